//! A proxy between an agent and its server that loses answers, says things twice, shows other
//! policy snapshots with its grants, or is not there.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

/// Which policy snapshot comes with a grant.
#[derive(Default)]
pub(crate) enum Shown {
    /// The server's.
    #[default]
    Newest,
    /// None.
    Nothing,
    /// Another one.
    Other(Value),
}

/// What it does to statements on their way.
#[derive(Default)]
pub(crate) struct Wire {
    /// Where the server is, `host:port`.
    upstream: Mutex<String>,
    /// Nobody gets through.
    pub(crate) away: AtomicBool,
    /// Every so many answers to statements are lost after the server took them; 0 for none.
    pub(crate) lose_every: AtomicUsize,
    /// Every so many requests with statements are sent twice; 0 for none.
    pub(crate) double_every: AtomicUsize,
    /// Requests with statements so far.
    pub(crate) statements: AtomicUsize,
    /// Streams of work so far.
    pub(crate) streams: AtomicUsize,
    /// Which snapshots hosts are shown.
    pub(crate) shown: Mutex<Shown>,
    /// The snapshot that the server sent last.
    pub(crate) sent: Mutex<Option<Value>>,
}

/// A proxy that runs as long as the test.
pub(crate) struct Proxy {
    pub(crate) wire: Arc<Wire>,
    pub(crate) url: String,
}

impl Proxy {
    pub(crate) fn start(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let wire = Arc::new(Wire::default());
        let serving = Arc::clone(&wire);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let wire = Arc::clone(&serving);
                thread::spawn(move || wire.serve(client));
            }
        });
        let proxy = Self { wire, url };
        proxy.to(upstream);
        proxy
    }

    /// From now on the server is this one.
    pub(crate) fn to(&self, upstream: &str) {
        let address = upstream.strip_prefix("http://").unwrap();
        address.clone_into(&mut self.wire.upstream.lock().unwrap());
    }
}

impl Wire {
    /// Requests of one connection, until one of the three ends it.
    fn serve(&self, client: TcpStream) -> Option<()> {
        let mut requests = BufReader::new(client.try_clone().ok()?);
        let mut client = client;
        loop {
            let (head, body) = message(&mut requests)?;
            if self.away.load(Ordering::SeqCst) {
                return client.shutdown(Shutdown::Both).ok();
            }
            let upstream = self.upstream.lock().unwrap().clone();
            let ask = || {
                let mut server = TcpStream::connect(&upstream).ok()?;
                server.write_all(head.as_bytes()).ok()?;
                server.write_all(&body).ok()?;
                Some(BufReader::new(server))
            };
            if head.starts_with("POST /v1/statements") {
                let number = self.statements.fetch_add(1, Ordering::SeqCst) + 1;
                let every = |which: &AtomicUsize| {
                    let every = which.load(Ordering::SeqCst);
                    every > 0 && number.is_multiple_of(every)
                };
                if every(&self.double_every) {
                    message(&mut ask()?)?;
                }
                let (head, body) = message(&mut ask()?)?;
                if every(&self.lose_every) {
                    return client.shutdown(Shutdown::Both).ok();
                }
                client.write_all(head.as_bytes()).ok()?;
                client.write_all(&body).ok()?;
                continue;
            }
            let mut answer = ask()?;
            if head.contains("/work ") {
                self.streams.fetch_add(1, Ordering::SeqCst);
                return self.work(&mut answer, client);
            }
            if !head.contains("stream") {
                let (head, body) = message(&mut answer)?;
                client.write_all(head.as_bytes()).ok()?;
                client.write_all(&body).ok()?;
                continue;
            }
            let mut piece = [0; 16 << 10];
            loop {
                let count = answer.read(&mut piece).ok()?;
                if count == 0 || self.away.load(Ordering::SeqCst) {
                    return client.shutdown(Shutdown::Both).ok();
                }
                client.write_all(&piece[..count]).ok()?;
            }
        }
    }

    /// A stream of work, one piece of it a chunk.
    fn work(&self, answer: &mut BufReader<TcpStream>, mut client: TcpStream) -> Option<()> {
        let (head, body) = message(answer)?;
        client.write_all(head.as_bytes()).ok()?;
        client.write_all(&body).ok()?;
        if !head.to_ascii_lowercase().contains("chunked") {
            // It was refused.
            return client.shutdown(Shutdown::Both).ok();
        }
        loop {
            let chunk = chunk(answer).filter(|_| !self.away.load(Ordering::SeqCst));
            let Some(chunk) = chunk else {
                return client.shutdown(Shutdown::Both).ok();
            };
            let chunk = self.with_snapshot(chunk);
            client
                .write_all(format!("{:x}\r\n", chunk.len()).as_bytes())
                .ok()?;
            client.write_all(&chunk).ok()?;
            client.write_all(b"\r\n").ok()?;
        }
    }

    /// The chunk, with the snapshot of its grant that is to be shown.
    fn with_snapshot(&self, chunk: Vec<u8>) -> Vec<u8> {
        let text = String::from_utf8(chunk).unwrap();
        let lines = text.split('\n').map(|line| {
            let work = line.strip_prefix("data:");
            let work = work.and_then(|work| serde_json::from_str::<Value>(work).ok());
            let mut work = work.unwrap_or_default();
            let Some(grant) = work.get_mut("grant").and_then(Value::as_object_mut) else {
                return line.to_owned();
            };
            *self.sent.lock().unwrap() = grant.get("snapshot").cloned();
            match &*self.shown.lock().unwrap() {
                Shown::Newest => return line.to_owned(),
                Shown::Nothing => drop(grant.remove("snapshot")),
                Shown::Other(other) => drop(grant.insert("snapshot".to_owned(), other.clone())),
            }
            format!("data: {work}")
        });
        lines.collect::<Vec<_>>().join("\n").into_bytes()
    }
}

/// The next chunk of an answer; none at its end.
fn chunk(from: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut line = String::new();
    from.read_line(&mut line).ok()?;
    let length = usize::from_str_radix(line.trim(), 16).ok()?;
    let mut chunk = vec![0; length + 2];
    from.read_exact(&mut chunk).ok()?;
    chunk.truncate(length);
    (length > 0).then_some(chunk)
}

/// The head and the body of a request or an answer, as they came.
fn message(from: &mut BufReader<TcpStream>) -> Option<(String, Vec<u8>)> {
    let mut head = String::new();
    let mut length = 0;
    loop {
        let begin = head.len();
        if from.read_line(&mut head).ok()? == 0 {
            return None;
        }
        let line = head[begin..].to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body).ok()?;
    Some((head, body))
}
