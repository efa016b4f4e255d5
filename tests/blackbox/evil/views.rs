//! Row 3: two views of one ledger, each signed by its key, each served by a server of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use countersign_protocol::checkpoint::{Checkpoint, VerifierKey};
use countersign_protocol::event::Event;
use serde_json::Value;
use sqlx::PgPool;

use super::{Database, TAMPERING, copy, forge, named, newcomer, original, rewrite};
use crate::servers::{Server, http};
use crate::support::{Dev, PROGRAM, free_port, text, until};

/// A copy of the ledger in which the ledger's own word on a command is another.
fn second_view(dev: &Dev) -> Database {
    let second = copy(dev, "second");
    rewrite(dev, &second, |forger| {
        let seq = forger.find(|event| matches!(event, Event::CommandAuthorized(_)));
        forger.say_anew(seq);
    });
    second
}

/// A `countersign witness` of the ledger, killed when dropped.
struct Witness {
    child: Child,
    state: PathBuf,
    /// The file that names it as the one who is enough.
    policy: String,
}

impl Witness {
    fn start(dev: &Dev) -> Self {
        let (folder, port) = (dev.folder(), free_port());
        let [key, state, policy] =
            ["witness.key", "witness", "witnesses"].map(|name| folder.path().join(name));
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(&key)
            .status();
        assert!(made.unwrap().success());
        let witness = || {
            let mut command = Command::new(PROGRAM);
            command.args(["witness", "--name", "witness.example.org/w", "--key"]);
            command.arg(&key);
            command
        };
        let vkey = witness().arg("--show-key").output().unwrap();
        let vkey = text(&vkey.stdout).trim().to_owned();
        let url = format!("http://127.0.0.1:{port}");
        fs::write(&policy, format!("witness w {vkey} {url}\nquorum w\n")).unwrap();
        let child = witness()
            .args(["--log", dev.env("COUNTERSIGN_VKEY"), "--state"])
            .arg(&state)
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .spawn()
            .unwrap();
        until("the witness answers", || !http(&url, "/").is_empty());
        Self {
            child,
            state,
            policy: policy.to_str().unwrap().to_owned(),
        }
    }

    /// The two notes of the contradiction that it keeps, once there is one.
    fn evidence(&self) -> Option<[String; 2]> {
        let known = find(&self.state, "known.note")?;
        let shown = known.with_file_name("shown.note");
        Some([known, shown].map(|note| fs::read_to_string(note).unwrap_or_default()))
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

/// A file somewhere below a folder, whose name begins so.
fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?.flatten();
    let mut paths = entries.map(|entry| entry.path());
    paths.find_map(|path| {
        let its = path.file_name()?.to_str()?;
        if path.is_dir() {
            find(&path, name)
        } else {
            its.starts_with(name).then_some(path)
        }
    })
}

/// Both are signed by the ledger, and are not one history as far as anybody can show.
fn contradict(dev: &Dev, notes: &[String; 2]) {
    let ledger: VerifierKey = dev.env("COUNTERSIGN_VKEY").parse().unwrap();
    let [one, other] = notes
        .each_ref()
        .map(|note| Checkpoint::open(note, &ledger).unwrap());
    assert_ne!(one.root(), other.root());
}

#[test]
fn of_two_views_a_witness_signs_one_and_keeps_both() {
    let dev = Dev::start();
    dev.through(&[], &["true"]);
    let witness = Witness::start(&dev);
    let (keys, folder) = (dev.data().join("ledger"), dev.folder());
    let serve = |database: &Database, checkpoint: &str| {
        let checkpoint = folder.path().join(checkpoint);
        let asks = ["--witness-policy", witness.policy.as_str()];
        Server::spawn_with(&dev, &database.app, &keys, &checkpoint, true, &asks)
    };
    let log = |server: &Server, pins: &[&str]| {
        let server = ["--server", server.url.as_str()];
        newcomer(&dev, "alice", &[&server, pins, &["list"]].concat())
    };
    let pins = ["--witness-policy", witness.policy.as_str()];
    let first = serve(&original(&dev), "first-checkpoint");
    until("the first view has its witness", || {
        log(&first, &pins).status.success()
    });

    let view = second_view(&dev);
    let second = serve(&view, "second-checkpoint");
    until("the second view is served", || second.is_ready());
    until("the witness was shown both", || {
        witness.evidence().is_some()
    });
    contradict(&dev, &witness.evidence().unwrap());
    // Nobody vouches for it, also where its server does not say so.
    let bare = folder.path().join("bare-checkpoint");
    let bare = Server::start(&dev, &view.app, &keys, &bare, true);
    let refused = log(&bare, &pins);
    assert_eq!(refused.status.code(), Some(4), "{}", text(&refused.stdout));
    let refused: Value = serde_json::from_slice(&refused.stdout).unwrap();
    assert_eq!(refused["error"]["code"], "no_quorum");
    // Who pins no witness and remembers nothing believes whichever view comes first.
    let believed = log(&bare, &[]);
    assert!(believed.status.success(), "{}", text(&believed.stdout));
}

#[test]
fn what_was_signed_in_one_view_does_not_stand_in_the_other() {
    let dev = Dev::start();
    let ran = dev.through(&[], &["true"]);
    let ran = ran["id"].as_str().unwrap();
    let (first, second) = (original(&dev), second_view(&dev));
    let (keys, blank) = (dev.data().join("ledger"), dev.folder().path().join("blank"));
    let evil = Server::start(&dev, &second.app, &keys, &blank, true);

    // Who saw the first keeps both when shown the second.
    let at = ["--server", evil.url.as_str()];
    let shown = dev.json("alice", TAMPERING, &[&at[..], &["show", ran]].concat());
    assert_eq!(shown["error"]["code"], "fork", "{shown}");
    let state = dev.folder().path().join("state");
    let kept = ["remembered-", "received-"]
        .map(|name| fs::read_to_string(find(&state, name).unwrap()).unwrap());
    contradict(&dev, &kept);

    // Somebody signs what he saw of the second; the operator enters it in the first.
    let ask = ["request", "--on", "local", "--reason", "x", "--", "true"];
    let asked = newcomer(&dev, "bob", &[&at[..], &ask].concat());
    assert!(asked.status.success(), "{}", text(&asked.stdout));
    drop(evil);
    let (entry, blobs) = forge(&dev, &second, async |forger, owner| {
        let entry = forger.entries.last().unwrap().clone();
        (entry, texts(owner).await)
    });
    let place = forge(&dev, &first, async |forger, owner| {
        for (digest, salt, content) in blobs {
            sqlx::query("INSERT INTO blobs (digest, salt, content) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
                .bind(digest)
                .bind(salt)
                .bind(content)
                .execute(owner)
                .await
                .unwrap();
        }
        forger.entries.push(entry);
        let place = forger.entries.len() as u64 - 1;
        forger.seal_from(place);
        forger.put().await;
        place
    });
    let (seq, reason) = named(&dev, &first);
    assert_eq!(seq, place, "{reason}");
    assert!(reason.contains("another history"), "{reason}");
}

type Text = (Vec<u8>, Option<Vec<u8>>, Option<Vec<u8>>);

async fn texts(owner: &PgPool) -> Vec<Text> {
    let all = sqlx::query_as("SELECT digest, salt, content FROM blobs");
    all.fetch_all(owner).await.unwrap()
}
