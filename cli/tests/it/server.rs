//! A hand-written HTTP server over a [`Book`]: honest by itself, with a place to lie in.

use std::sync::{Arc, Mutex, MutexGuard};

use countersign_protocol::api::*;
use countersign_protocol::event::Event;
use countersign_protocol::fold::Stream;
use countersign_protocol::hash::{Digest, StatementId};
use countersign_protocol::{audit, proof};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::book::Book;

/// Changes an answer: the path, and status and body as an honest server would give them.
pub(crate) type Lie = Box<dyn Fn(&str, &mut u16, &mut Value) + Send>;

pub(crate) struct Inner {
    pub(crate) book: Book,
    lie: Option<Lie>,
    /// Every statement that came, as it came.
    pub(crate) received: Vec<Submission>,
    /// Every request line.
    pub(crate) asked: Vec<String>,
    /// Requests to answer with 503, one after the other.
    pub(crate) busy: u32,
    /// Statements to take and then to answer with 503: the answer is lost on its way.
    pub(crate) lose: u32,
    /// Tokens that were given; only the last one counts.
    pub(crate) tokens: u32,
}

#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) inner: Arc<Mutex<Inner>>,
    pub(crate) url: String,
}

struct Request {
    method: String,
    path: String,
    query: String,
    token: Option<String>,
    last_event_id: Option<u64>,
    body: Vec<u8>,
}

impl Server {
    pub(crate) async fn start(book: Book) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let inner = Arc::new(Mutex::new(Inner {
            book,
            lie: None,
            received: Vec::new(),
            asked: Vec::new(),
            busy: 0,
            lose: 0,
            tokens: 0,
        }));
        let server = Self { inner, url };
        let accepting = server.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let server = accepting.clone();
                tokio::spawn(async move { server.serve(socket).await });
            }
        });
        server
    }

    pub(crate) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// From now on answers pass through here.
    pub(crate) fn lies(&self, lie: impl Fn(&str, &mut u16, &mut Value) + Send + 'static) {
        self.inner().lie = Some(Box::new(lie));
    }

    /// Statements that came, without sign-ins.
    pub(crate) fn signed(&self) -> usize {
        let inner = self.inner();
        let acts = |one: &&Submission| !one.namespace.starts_with("session.");
        inner.received.iter().filter(acts).count()
    }

    async fn serve(&self, mut socket: TcpStream) {
        let Some(request) = read(&mut socket).await else {
            return;
        };
        if request.path.ends_with("/events") {
            return self.stream(&mut socket, &request).await;
        }
        let (status, body) = self.answer(&request);
        let body = body.to_string();
        let head = format!(
            "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        drop(socket.write_all(head.as_bytes()).await);
        drop(socket.write_all(body.as_bytes()).await);
    }

    fn answer(&self, request: &Request) -> (u16, Value) {
        let mut inner = self.inner();
        inner
            .asked
            .push(format!("{} {}", request.method, request.path));
        if inner.busy > 0 {
            inner.busy -= 1;
            return problem(503, "busy");
        }
        let (mut status, mut body) = inner.honest(request);
        if let Some(lie) = &inner.lie {
            lie(&request.path, &mut status, &mut body);
        }
        (status, body)
    }

    /// Sends a command's entries one by one; ends as soon as all were sent.
    async fn stream(&self, socket: &mut TcpStream, request: &Request) {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n: hello\n\n";
        drop(socket.write_all(head.as_bytes()).await);
        let items = {
            let inner = self.inner();
            let id = request.path.split('/').nth(3).unwrap();
            let Some(stream) = id.parse().ok().map(Stream::Command) else {
                return;
            };
            let from = request.last_event_id.map_or(0, |last| last + 1);
            inner.live(stream, from)
        };
        for (seq, item) in items {
            let mut item = serde_json::to_value(item).unwrap();
            if let Some(lie) = &self.inner().lie {
                lie(&request.path, &mut 200, &mut item);
            }
            // A lie of nothing: this one is left out.
            if item.is_null() {
                continue;
            }
            let event = format!("event: entry\nid: {seq}\ndata: {item}\n\n");
            drop(socket.write_all(event.as_bytes()).await);
        }
    }
}

fn problem(status: u16, code: &str) -> (u16, Value) {
    let body = Problem {
        kind: "about:blank".into(),
        title: code.into(),
        status,
        code: code.into(),
        detail: code.into(),
        hint: None,
    };
    (status, serde_json::to_value(body).unwrap())
}

fn ok(body: impl Serialize) -> (u16, Value) {
    (200, serde_json::to_value(body).unwrap())
}

impl Inner {
    fn honest(&mut self, request: &Request) -> (u16, Value) {
        let number = |name: &str| -> Option<u64> {
            let mut pairs = request
                .query
                .split('&')
                .filter_map(|pair| pair.split_once('='));
            pairs.find(|(key, _)| *key == name)?.1.parse().ok()
        };
        let path: Vec<&str> = request.path.trim_start_matches('/').split('/').collect();
        match path.as_slice() {
            ["v1", "ledger"] => return ok(self.info()),
            ["v1", "sessions", "challenge"] => {
                let challenge = Digest::new([self.tokens as u8; 32]).to_string();
                return ok(
                    json!({"challenge": challenge, "ledger": self.book.ledger().to_string()}),
                );
            }
            ["v1", "sessions"] => return self.session(&request.body),
            ["v1", "statements"] => return self.statement(&request.body),
            _ => {}
        }
        if request.token.as_deref() != Some(&format!("token-{}", self.tokens)) {
            return problem(401, "no_session");
        }
        let tree = &self.book.tree;
        match path.as_slice() {
            ["v1", "proofs", "consistency"] => {
                let (from, to) = (number("from").unwrap(), number("to").unwrap());
                match proof::consistency_proof(tree, from, to) {
                    Some(proof) if to <= tree.size() => ok(self.proof(proof)),
                    _ => problem(404, "outside"),
                }
            }
            ["v1", "proofs", "inclusion"] => {
                let seq = number("seq").unwrap();
                ok(self.proof(proof::inclusion_proof(tree, seq, tree.size()).unwrap()))
            }
            ["v1", "streams", "rights"] => ok(self.body(Stream::Rights)),
            ["v1", "entries"] => ok(self.page(number("from").unwrap(), number("limit").unwrap())),
            ["v1", "blobs", digest] => self.blob(digest),
            ["v1", "commands", "entries"] => self.streams(&request.body),
            ["v1", "commands", id] => self.command(id),
            ["v1", "commands", id, "entries"] => match id.parse() {
                Ok(id) if self.book.state.command(&id).is_some() => {
                    ok(self.body(Stream::Command(id)))
                }
                _ => problem(404, "unknown_command"),
            },
            _ => problem(404, "no_route"),
        }
    }

    fn info(&self) -> LedgerInfo {
        let genesis = self.book.state.rights().genesis().unwrap();
        LedgerInfo {
            ledger: self.book.ledger().to_string(),
            origin: genesis.origin.to_string(),
            vkey: String::new(),
            checkpoint: self.book.checkpoint().note().to_owned(),
            genesis: Base64(self.book.entries[0].clone()),
        }
    }

    fn session(&mut self, body: &[u8]) -> (u16, Value) {
        let submission: Submission = serde_json::from_slice(body).unwrap();
        let verified = submission.statement().unwrap().verify();
        self.received.push(submission);
        if verified.is_err() {
            return problem(403, "unknown_key");
        }
        self.tokens += 1;
        let expires_us = countersign_cli::clock::now().as_micros() + 900_000_000;
        ok(json!({"token": format!("token-{}", self.tokens), "expires_us": expires_us}))
    }

    fn statement(&mut self, body: &[u8]) -> (u16, Value) {
        let submission: Submission = serde_json::from_slice(body).unwrap();
        self.received.push(submission.clone());
        let statement = submission.statement().unwrap();
        let id = statement.id();
        let event = Event::parse(statement.kind, &statement.payload).unwrap();
        for blob in submission.blobs {
            let blob = blob.into_blob().unwrap();
            self.book.blobs.insert(blob.reference().digest, blob);
        }
        let mut entered = self
            .book
            .entries
            .iter()
            .map(|bytes| audit::check_entry(bytes).unwrap());
        let repeated = entered.any(|entry| entry.verified.id() == id);
        drop(entered);
        if !repeated && let Err(refusal) = self.book.enter(statement) {
            return problem(409, refusal.code());
        }
        if self.lose > 0 {
            self.lose -= 1;
            return problem(503, "unavailable");
        }
        let receipt = self.receipt(&id);
        let since_seen = event.header().seen.and_then(|seen| {
            proof::consistency_proof(&self.book.tree, seen.size, self.book.tree.size())
        });
        ok(Receipt {
            repeated,
            since_seen,
            ..receipt
        })
    }

    pub(crate) fn receipt(&self, id: &StatementId) -> Receipt {
        let mut entries = self
            .book
            .entries
            .iter()
            .map(|bytes| audit::check_entry(bytes).unwrap());
        let entry = entries.find(|entry| entry.verified.id() == *id).unwrap();
        let tree = &self.book.tree;
        Receipt {
            statement_id: id.to_string(),
            seq: entry.seq,
            time_us: entry.time.as_micros(),
            entry: Base64(self.book.entries[entry.seq as usize].clone()),
            leaf: entry.leaf.to_string(),
            checkpoint: self.book.checkpoint().note().to_owned(),
            inclusion: proof::inclusion_proof(tree, entry.seq, tree.size()).unwrap(),
            since_seen: None,
            status: None,
            repeated: false,
            results: None,
        }
    }

    fn proof(&self, proof: Vec<countersign_protocol::hash::Hash>) -> ProofBody {
        let checkpoint = self.book.checkpoint().note().to_owned();
        ProofBody { checkpoint, proof }
    }

    fn seqs(&self, stream: Stream) -> impl Iterator<Item = usize> + '_ {
        let streams = self.book.streams.iter().enumerate();
        streams
            .filter(move |(_, of)| **of == Some(stream))
            .map(|(seq, _)| seq)
    }

    fn blobs_of(&self, bytes: &[u8]) -> Vec<BlobBody> {
        let event = audit::check_entry(bytes).unwrap().verified.event().clone();
        let named = event.blobs();
        let held = named
            .iter()
            .filter_map(|named| self.book.blobs.get(&named.digest));
        held.map(BlobBody::from).collect()
    }

    pub(crate) fn body(&self, stream: Stream) -> StreamBody {
        let tree = &self.book.tree;
        let entries: Vec<ProvenEntry> = self
            .seqs(stream)
            .map(|seq| ProvenEntry {
                seq: seq as u64,
                entry: Base64(self.book.entries[seq].clone()),
                inclusion: proof::inclusion_proof(tree, seq as u64, tree.size()).unwrap(),
            })
            .collect();
        let blobs = entries
            .iter()
            .flat_map(|item| self.blobs_of(&item.entry.0))
            .collect();
        StreamBody {
            checkpoint: self.book.checkpoint().note().to_owned(),
            entries,
            blobs,
            redacted: Vec::new(),
        }
    }

    /// Two at a time: whoever asks for more asks again.
    fn streams(&self, body: &[u8]) -> (u16, Value) {
        let request: StreamsRequest = serde_json::from_slice(body).unwrap();
        let ids = request.ids.iter().take(2).map(|id| id.parse().unwrap());
        let part = |id| {
            let body = self.body(Stream::Command(id));
            StreamPart {
                entries: body.entries,
                blobs: body.blobs,
                redacted: body.redacted,
            }
        };
        ok(StreamsBody {
            checkpoint: self.book.checkpoint().note().to_owned(),
            streams: ids.map(part).collect(),
        })
    }

    fn live(&self, stream: Stream, from: u64) -> Vec<(u64, LiveEntry)> {
        let seqs = self.seqs(stream).filter(|seq| *seq as u64 >= from);
        seqs.map(|seq| {
            let entry = self.book.entries[seq].clone();
            let blobs = self.blobs_of(&entry);
            let (seq, entry) = (seq as u64, Base64(entry));
            (seq, LiveEntry { seq, entry, blobs })
        })
        .collect()
    }

    pub(crate) fn page(&self, from: u64, limit: u64) -> Page<EntryItem> {
        let all = (0_u64..).zip(&self.book.entries);
        let some = all.skip(from as usize).take(limit as usize);
        let items = some.map(|(seq, bytes)| EntryItem {
            seq,
            entry: Base64(bytes.clone()),
        });
        Page {
            items: items.collect(),
            next: None,
        }
    }

    fn blob(&self, digest: &str) -> (u16, Value) {
        match self.book.blobs.get(&digest.parse().unwrap()) {
            Some(blob) => ok(BlobBody::from(blob)),
            None => problem(404, "unknown_blob"),
        }
    }

    fn command(&self, text: &str) -> (u16, Value) {
        let short = countersign_protocol::short::parse(text);
        let found = self.book.state.commands().find(|command| {
            short.is_some_and(|short| command.id.as_bytes().starts_with(&short))
                || command.id.to_string().starts_with(text)
        });
        let Some(command) = found else {
            return problem(404, "unknown_command");
        };
        ok(countersign_protocol::view::command_item(
            &self.book.state,
            command,
        ))
    }
}

async fn read(socket: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    let end = loop {
        let len = socket.read(&mut buffer).await.ok()?;
        bytes.extend_from_slice(&buffer[..len]);
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if len == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec())
        .unwrap()
        .to_ascii_lowercase();
    let header = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        lines
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.to_owned())
    };
    let length: usize = header("content-length").map_or(0, |text| text.parse().unwrap());
    while bytes.len() < end + length {
        let len = socket.read(&mut buffer).await.ok()?;
        bytes.extend_from_slice(&buffer[..len]);
    }
    let first = String::from_utf8(bytes.clone().split_off(0)[..end].to_vec()).unwrap();
    let mut words = first.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    Some(Request {
        method,
        path: path.to_owned(),
        query: query.to_owned(),
        token: header("authorization").map(|value| value.replace("bearer ", "")),
        last_event_id: header("last-event-id").and_then(|value| value.parse().ok()),
        body: bytes[end..].to_vec(),
    })
}
