//! A server that feeds sinks and is killed: what it told before comes again, and nothing is missing.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command};
use std::sync::mpsc;
use std::thread;

use serde_json::Value;

use crate::support::{Dev, PROGRAM, free_port, signal, text, until};

/// A `countersign serve --feed` on a dev's database.
struct Feeding {
    child: Child,
    url: String,
}

impl Feeding {
    fn start(dev: &Dev, sinks: &str, first: bool) -> Self {
        let file = dev.folder().path().join("feed.toml");
        fs::write(&file, sinks).unwrap();
        let port = free_port();
        let mut command = Command::new(PROGRAM);
        command
            .args(["serve", "--listen", &format!("127.0.0.1:{port}")])
            .env("DATABASE_URL", dev.env("DATABASE_URL"))
            .env("COUNTERSIGN_FEED", &file)
            .arg("--keys")
            .arg(dev.data().join("ledger"))
            .arg("--checkpoint")
            .arg(dev.folder().path().join("feeding-checkpoint"))
            .stderr(fs::File::create(dev.folder().path().join(format!("feeding-{port}"))).unwrap());
        if first {
            command.arg("--first-start");
        }
        let child = command.spawn().unwrap();
        let url = format!("127.0.0.1:{port}");
        let this = Self { child, url };
        until("it feeds", || {
            this.get("/readyz").contains("\"state\":\"feeding\"")
        });
        this
    }

    fn get(&self, path: &str) -> String {
        let Ok(mut stream) = TcpStream::connect(&self.url) else {
            return String::new();
        };
        let _sent = write!(
            stream,
            "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        );
        let mut answer = String::new();
        let _read = stream.read_to_string(&mut answer);
        answer
    }
}

impl Drop for Feeding {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

/// One call of a webhook, which waits for its answer.
struct Call {
    stream: TcpStream,
    id: String,
    seq: u64,
}

impl Call {
    fn answer(mut self) {
        let _gone = self
            .stream
            .write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n");
    }
}

/// Reads one request from a connection.
fn read(stream: TcpStream) -> Option<Call> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let (mut id, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.trim().split_once(": ") {
            match name {
                "webhook-id" => value.clone_into(&mut id),
                "content-length" => length = value.parse().ok()?,
                _other => {}
            }
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let told: Value = serde_json::from_slice(&body).ok()?;
    let seq = told["data"]["seq"].as_u64()?;
    Some(Call { stream, id, seq })
}

/// Killed after the receiver has a message and before the cursor has moved: told again, once more
/// under the same id, and every entry is heard of.
#[test]
fn killed_between_delivery_and_cursor_it_tells_again_and_misses_nothing() {
    let dev = Dev::start();
    let secret = dev.folder().path().join("secret");
    fs::write(
        &secret,
        "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n",
    )
    .unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let sinks = format!(
        "[[sink]]\nname = \"hook\"\nkind = \"webhook\"\nurl = \"http://{}/\"\nsecret_files = [\"secret\"]\nfrom = \"start\"\nkinds = [\"*\"]\n",
        listener.local_addr().unwrap()
    );
    let (tell, calls) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if let Some(call) = read(stream)
                && tell.send(call).is_err()
            {
                return;
            }
        }
    });
    let mut heard: Vec<(u64, String)> = Vec::new();
    let mut again = 0;
    for round in 0..4_u64 {
        let mut feeding = Feeding::start(&dev, &sinks, round == 0);
        dev.request(&[], &["true"]);
        // Some are taken; the next one is taken and its answer never comes.
        for _each in 0..3 {
            let call = calls.recv().unwrap();
            if heard.last().is_some_and(|(_, id)| *id == call.id) {
                again += 1;
            }
            heard.push((call.seq, call.id.clone()));
            call.answer();
        }
        let call = calls.recv().unwrap();
        heard.push((call.seq, call.id.clone()));
        feeding.child.kill().unwrap();
        feeding.child.wait().unwrap();
        drop(call);
    }
    assert!(again >= 3, "what was not confirmed comes again: {again}");
    let feeding = Feeding::start(&dev, &sinks, false);
    let size: u64 = dev.sql("SELECT size FROM head").parse().unwrap();
    while heard.last().is_none_or(|(seq, _)| seq + 1 < size) {
        let call = calls.recv().unwrap();
        heard.push((call.seq, call.id.clone()));
        call.answer();
    }
    let seqs: BTreeSet<u64> = heard.iter().map(|(seq, _)| *seq).collect();
    assert_eq!(
        seqs.len() as u64,
        heard.last().unwrap().0 + 1,
        "none is missing: {heard:?}"
    );
    for pair in heard.windows(2) {
        let ((before, id), (after, next)) = (&pair[0], &pair[1]);
        let in_order = after == &(before + 1) || (after == before && id == next);
        assert!(in_order, "{before} then {after}");
    }
    let in_log = dev.sql("SELECT encode(statement_id, 'hex') FROM statements");
    let in_log: BTreeSet<&str> = in_log.lines().collect();
    assert!(heard.iter().all(|(_, id)| in_log.contains(id.as_str())));
    drop(feeding);
    assert!(dev.is_sound());
}

#[test]
fn operators_see_a_receiver_that_is_away_and_the_server_stays_ready() {
    let dev = Dev::start();
    let sinks = format!(
        "[[sink]]\nname = \"away\"\nkind = \"syslog\"\nto = \"tcp://127.0.0.1:{}\"\nfrom = \"start\"\n\
         [[sink]]\nname = \"lines\"\nkind = \"jsonl\"\npath = \"lines.jsonl\"\nfrom = \"start\"\nformat = \"ocsf\"\n",
        free_port()
    );
    let feeding = Feeding::start(&dev, &sinks, true);
    until("the trouble shows", || {
        feeding.get("/readyz").contains("\"error\":\"unreachable\"")
    });
    let ready = feeding.get("/readyz");
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    assert!(
        ready.contains("{\"sink\":\"away\",\"state\":\"retrying\",\"behind\":"),
        "{ready}"
    );
    assert!(feeding.get("/health").ends_with("{\"status\":\"ok\"}"));
    until("the file is fed", || {
        feeding
            .get("/metrics")
            .contains("countersign_feed_state{sink=\"lines\",state=\"feeding\"} 1")
    });
    let metrics = feeding.get("/metrics");
    for line in [
        "countersign_feed_state{sink=\"away\",state=\"retrying\"} 1",
        "countersign_feed_failures_total{sink=\"away\",error=\"unreachable\"} ",
        "countersign_feed_lag_entries{sink=\"away\"} ",
        "countersign_feed_deliveries_total{sink=\"lines\"} ",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    // A stop does not wait for the receiver.
    signal(feeding.child.id(), "TERM");
    let mut feeding = feeding;
    until("it has stopped", || {
        feeding.child.try_wait().unwrap().is_some()
    });
}

#[test]
fn a_file_of_sinks_is_checked_before_it_serves_and_printed_without() {
    let dev = Dev::shared();
    let file = dev.folder().path().join("wrong.toml");
    fs::write(
        &file,
        "[[sink]]\nname = \"x\"\nkind = \"syslog\"\nfrom = \"now\"\nto = \"tcp://192.0.2.1:514\"\n",
    )
    .unwrap();
    let path = file.to_str().unwrap();
    let checked = dev.verb("alice", &["feed", "check", path]);
    assert_eq!(checked.status.code(), Some(1));
    assert!(
        text(&checked.stderr).contains("insecure = true"),
        "{}",
        text(&checked.stderr)
    );
    let served = dev.verb("alice", &["serve", "--feed", path, "--keys", "nowhere"]);
    assert_eq!(served.status.code(), Some(1));
    assert!(
        text(&served.stderr).contains("insecure = true"),
        "{}",
        text(&served.stderr)
    );
    fs::write(
        &file,
        "[[sink]]\nname = \"x\"\nkind = \"jsonl\"\npath = \"x\"\nfrom = \"now\"\n",
    )
    .unwrap();
    let checked = dev.verb("alice", &["feed", "check", path]);
    assert_eq!(checked.status.code(), Some(0));
    assert!(
        text(&checked.stdout).starts_with("x: JSON lines to "),
        "{}",
        text(&checked.stdout)
    );
    let printed = dev.verb(
        "alice",
        &[
            "feed",
            "print",
            "--format",
            "ocsf",
            "--kinds",
            "ledger.genesis",
        ],
    );
    let line: Value = serde_json::from_slice(&printed.stdout).unwrap();
    assert_eq!(
        (&line["class_uid"], &line["metadata"]["event_code"]),
        (&6002.into(), &"ledger.genesis".into())
    );
    let wrong = dev.verb("alice", &["feed", "print", "--kinds", "ledger"]);
    assert_eq!(wrong.status.code(), Some(2));
}
