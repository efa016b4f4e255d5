//! What comes back of a command on several hosts: who came out how, who said the same, as it happens
//! and at the end; and what a cancel stopped.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};

use crate::rights::{change, enrol};
use crate::support::{Dev, PROGRAM, signal, text, until};

/// A further host of a dev: another agent on this machine.
pub(crate) struct Host {
    child: Child,
}

impl Host {
    pub(crate) fn join(dev: &Dev, name: &str) -> Self {
        Self::join_with(dev, name, "")
    }

    /// With more at the end of its file.
    pub(crate) fn join_with(dev: &Dev, name: &str, further: &str) -> Self {
        let fingerprint = enrol(dev, name);
        let config = dev.folder().path().join(name).join("agent.toml");
        let own = fs::read_to_string(&config).unwrap();
        fs::write(&config, own + further).unwrap();
        change(
            dev,
            &["agents", "accept", name, "--fingerprint", &fingerprint],
        );
        let folder = dev.folder().path().join(name);
        let log = File::create(folder.join("log")).unwrap();
        let child = Command::new(PROGRAM)
            .args(["agent", "--config"])
            .arg(folder.join("agent.toml"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            signal(self.child.id(), "CONT");
            signal(self.child.id(), "TERM");
            let _status = self.child.wait();
        }
    }
}

/// Runs a verb of alice's that waits for approvals, and approves the one thing that waits then.
pub(crate) fn approved(dev: &Dev, arguments: &[&str]) -> Output {
    let child = dev
        .command("alice", arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    dev.approve_next(&child);
    child.wait_with_output().unwrap()
}

/// A script that comes out well on the one host that is first, and with 3 on the others.
pub(crate) fn first_only(dev: &Dev) -> (PathBuf, String) {
    let mark = dev.folder().path().join("mark");
    let script = format!(
        "mkdir {} 2>/dev/null && echo first && exit 0; echo other; exit 3",
        mark.display()
    );
    (mark, script)
}

fn run_on<'a>(options: &[&'a str], script: &'a str) -> Vec<&'a str> {
    let head = ["run", "--on", "local,second,third", "--reason", "a test"];
    [&head[..], options, &["--shell", "--", script]].concat()
}

#[test]
fn several_hosts_answer_in_lines_in_groups_and_with_the_worst_code() {
    let dev = Dev::start();
    let _hosts = [Host::join(&dev, "second"), Host::join(&dev, "third")];
    let (mark, script) = first_only(&dev);

    let output = approved(&dev, &run_on(&["--jsonl"], &script));
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    let lines: Vec<Value> = text(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(lines.iter().all(|line| line["v"] == 1));
    let of =
        |word: &str| -> Vec<&Value> { lines.iter().filter(|line| line["type"] == word).collect() };
    assert_eq!(lines[0]["type"], "requested");
    assert_eq!(lines[0]["hosts"], json!(["local", "second", "third"]));
    let kinds: Vec<&str> = of("event")
        .iter()
        .map(|line| line["kind"].as_str().unwrap())
        .collect();
    for kind in ["command.approved", "command.authorized"] {
        assert!(kinds.contains(&kind), "{kinds:?}");
    }
    assert_eq!((of("started").len(), of("completed").len()), (3, 3));
    let ok = of("completed")
        .into_iter()
        .filter(|line| line["came"] == "ok");
    assert_eq!(ok.count(), 1);
    let failed = of("completed")
        .into_iter()
        .filter(|line| line["exit_code"] == 3);
    assert_eq!(failed.count(), 2);
    let wrote = of("output")
        .into_iter()
        .filter(|line| line["text"] == "other\n");
    assert_eq!(wrote.count(), 2);
    let last = lines.last().unwrap();
    assert_eq!(last["type"], "summary");
    assert_eq!(last["command"]["status"], "partial");
    assert_eq!(last["command"]["tally"], json!({"ok": 1, "failed": 2}));

    // The same again as text: who differs from the most, and in which lines; how far they were.
    fs::remove_dir(&mark).unwrap();
    let output = approved(&dev, &run_on(&["--progress", "plain"], &script));
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    for part in [
        "2 hosts said the same; 1 differs:",
        "      - other",
        "      + first",
        "started 3/3, done 3 (1 ok, 2 failed)",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let id = lines[0]["id"].as_str().unwrap();
    let followed = dev.verb("bob", &["logs", id, "--follow", "--jsonl"]);
    let followed = text(&followed.stdout);
    assert!(
        followed
            .lines()
            .last()
            .unwrap()
            .contains("\"type\":\"summary\"")
    );

    // 0 only where it is 0 on all of them.
    let output = approved(&dev, &run_on(&["--grouped"], "echo same"));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    assert_eq!(
        shown,
        "== 3 hosts: local, second, third (exited with code 0)\nsame\n"
    );
    let nobody = [
        "run", "--on", "nobody", "--jsonl", "--reason", "r", "--", "true",
    ];
    let refused = dev.verb("alice", &nobody);
    assert_eq!(refused.status.code(), Some(125));
    let refused: Value = serde_json::from_slice(&refused.stdout).unwrap();
    assert_eq!(refused["error"]["code"], "unknown_agent");
}

#[test]
fn a_cancel_says_for_each_host_whether_it_stopped_something() {
    let dev = Dev::start();
    let second = Host::join(&dev, "second");
    signal(second.pid(), "STOP");
    let head = [
        "request",
        "--on",
        "local,second",
        "--timeout",
        "120",
        "--reason",
        "a test",
    ];
    let asked = dev.json("alice", 0, &[&head[..], &["--", "sleep", "100"]].concat());
    let id = asked["id"].as_str().unwrap();
    dev.approve(id);
    until("it runs", || {
        dev.show(id)["executions"][0]["status"] == "running"
    });
    let cancelled = dev.verb("bob", &["cancel", id]);
    let said = text(&cancelled.stdout);
    assert_eq!(cancelled.status.code(), Some(0), "{said}");
    for line in [
        "local: stopped it, and proved that nothing of it is left",
        "second: had not started it, and never will",
        "2 hosts: 1 stopped, 1 not started",
    ] {
        assert!(said.lines().any(|known| known == line), "{line}: {said}");
    }

    // One that does not answer is not said to have stopped it, and does once it hears of it.
    signal(second.pid(), "CONT");
    let head = [
        "request",
        "--on",
        "second",
        "--timeout",
        "120",
        "--reason",
        "a test",
    ];
    let asked = dev.json("alice", 0, &[&head[..], &["--", "sleep", "101"]].concat());
    let id = asked["id"].as_str().unwrap();
    dev.approve(id);
    until("it runs", || {
        dev.show(id)["executions"][0]["status"] == "running"
    });
    signal(second.pid(), "STOP");
    let cancelled = dev.json("alice", 0, &["cancel", id, "--wait", "1s"]);
    assert_eq!(cancelled["hosts"][0]["came"], "unanswered", "{cancelled}");
    assert_eq!(cancelled["tally"], json!({"unanswered": 1}));
    signal(second.pid(), "CONT");
    assert_eq!(dev.ended(id)["executions"][0]["outcome"], "cancelled");
}
