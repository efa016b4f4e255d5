//! Row 16: a thief who was root on a host has its key and its journal, and runs an agent with them.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};

use serde_json::{Value, json};

use crate::agents::agent_of;
use crate::support::{Dev, PROGRAM, signal, text, until};

/// An agent with all the files of the host's own, killed when dropped.
struct Thief(Child);

impl Thief {
    fn start(dev: &Dev) -> Self {
        let folder = dev.folder().path().join("thief");
        let copied = Command::new("cp")
            .arg("-a")
            .arg(dev.data().join("agent"))
            .arg(&folder)
            .status();
        assert!(copied.unwrap().success());
        let log = fs::File::create(folder.join("thief.log")).unwrap();
        let child = Command::new(PROGRAM)
            .args(["agent", "--config"])
            .arg(folder.join("agent.toml"))
            .stderr(log)
            .spawn();
        Self(child.unwrap())
    }
}

impl Drop for Thief {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _status = self.0.wait();
    }
}

fn said(log: &Path) -> String {
    fs::read_to_string(log).unwrap_or_default()
}

fn items(list: &Value) -> &[Value] {
    list["items"].as_array().unwrap()
}

#[test]
fn the_thief_of_a_hosts_key_forks_its_chain_and_is_suspect_when_it_is_revoked() {
    let dev = Dev::start();
    let before = dev.through(&[], &["true"]);
    let host = agent_of(&dev);
    signal(host, "STOP");
    let _thief = Thief::start(&dev);
    // Whoever has the key and knows where the chain ends can go on with it: nobody can tell yet.
    let mark = dev.folder().path().join("ran");
    let words = ["sh", "-c", &format!("echo ran >> {}", mark.display())];
    let stolen = dev.through(&[], &words);
    assert_eq!(stolen["status"], "completed");
    let log = dev.data().join("agent.log");
    assert!(!said(&log).contains("another agent"), "{}", said(&log));
    // The host's own next word says the same number again. It is not entered, and the host stops.
    signal(host, "CONT");
    let next = dev.request(&[], &words);
    dev.approve(&next);
    until("the host says that its chain goes on elsewhere", || {
        said(&log).contains("chain")
    });
    dev.ended(&next);
    assert_eq!(
        said(&mark),
        "ran\nran\n",
        "each ran once, on one of the two"
    );
    // It is revoked, and all that it signed since is suspect.
    let from = stolen["approvals"][0]["seq"].as_u64().unwrap();
    let keys = dev.json("alice", 0, &["key", "list", "--all"]);
    let of_host = items(&keys).iter().find(|key| key["principal"] == "local");
    let print = of_host.unwrap()["fingerprint"].as_str().unwrap();
    let revoke = ["key", "revoke", print, "--suspect-from", &from.to_string()];
    let asked = dev.json("alice", 0, &revoke);
    dev.json(
        "carol",
        0,
        &["approve", asked["id"].as_str().unwrap(), "--yes"],
    );
    let marked = dev.json(
        "alice",
        0,
        &["audit", "suspect", "--marked", "--limit", "1000"],
    );
    let of = |id: &Value| items(&marked).iter().filter(|row| row["id"] == *id).count();
    assert_eq!(
        (of(&before["id"]), of(&stolen["id"]) > 0),
        (0, true),
        "{marked}"
    );
    let verdict = dev.json(
        "carol",
        6,
        &["verify", "--database", dev.env("DATABASE_URL")],
    );
    assert_eq!(
        (&verdict["ok"], &verdict["suspect"][0]["from"]),
        (&json!(true), &json!(from))
    );
    // Neither of the two runs anything with it any more.
    let refused = dev.verb(
        "alice",
        &["request", "--on", "local", "--reason", "x", "--", "true"],
    );
    let said = text(&refused.stderr);
    assert!(said.contains("there is no accepted agent local"), "{said}");
}
