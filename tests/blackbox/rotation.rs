//! A host gets a new key while it works: by the real binaries, from `rotate-key` to the old key's
//! last word; and killed on the way.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::agents::agent_of;
use crate::support::{Dev, PROGRAM, signal, text, until};

/// Seconds of grace in these tests: long enough to be seen.
const GRACE_S: u32 = 4;

/// A dev whose agent has a short grace for keys.
fn dev() -> Dev {
    let dev = Dev::start();
    let config = config(&dev);
    let written = fs::read_to_string(&config).unwrap();
    let grace = format!("rotation_grace_s = {GRACE_S}\ngrace_s = ");
    fs::write(
        &config,
        written.replace("\ngrace_s = ", &format!("\n{grace}")),
    )
    .unwrap();
    signal(agent_of(&dev), "KILL");
    assert_eq!(dev.through(&[], &["true"])["status"], "completed");
    dev
}

fn config(dev: &Dev) -> PathBuf {
    dev.data().join("agent/agent.toml")
}

fn state(dev: &Dev) -> PathBuf {
    dev.data().join("agent/state")
}

/// Asks for a new key, beside the agent that runs.
fn rotate(dev: &Dev) -> Value {
    let output = Command::new(PROGRAM)
        .args(["agent", "--config"])
        .arg(config(dev))
        .args(["rotate-key", "--json", "--no-wait"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("agents accept local --fingerprint SHA256:"));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn key_status(dev: &Dev, key: &Value) -> Option<String> {
    let agents = dev.json("alice", 0, &["agents"]);
    let mut items = agents["items"].as_array().unwrap().iter();
    let item = items.find(|item| item["key_id"] == key["key_id"])?;
    Some(item["status"].as_str().unwrap().to_owned())
}

/// alice asks for the new key to be accepted, carol consents.
fn accept(dev: &Dev, key: &Value) {
    until("the new key has enrolled", || {
        key_status(dev, key).as_deref() == Some("enrolled")
    });
    let shown = key["fingerprint"].as_str().unwrap();
    let accept = ["agents", "accept", "local", "--fingerprint", shown];
    // Not by mistake: without the word for it nothing is asked, and it says whose key it would be.
    let refused = dev.verb("alice", &accept);
    assert_eq!(refused.status.code(), Some(4));
    let old = key["replaces"]["fingerprint"].as_str().unwrap();
    let said = text(&refused.stderr);
    assert!(said.contains(old) && said.contains("--rotate"), "{said}");
    let asked = dev.json("alice", 0, &[&accept[..], &["--rotate"]].concat());
    assert_eq!(asked["replaces"]["fingerprint"], old);
    let id = asked["id"].as_str().unwrap();
    let shown = dev.json("carol", 0, &["show", id]);
    assert_eq!(shown["replaces"]["key_id"], key["replaces"]["key_id"]);
    assert!(shown["replaces"]["since"].as_u64().is_some());
    dev.json("carol", 0, &["approve", id, "--yes"]);
}

/// The key that started a command, from the log.
fn started_by(dev: &Dev, id: &str) -> String {
    let log = dev.verb("alice", &["--json", "log"]);
    let log = text(&log.stdout);
    let mut entries = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let started = entries.find(|entry| {
        entry["namespace"] == "execution.started.v1@countersign"
            && entry["payload"]["command"] == id
    });
    started.unwrap()["key_id"].as_str().unwrap().to_owned()
}

fn verifies(dev: &Dev) {
    let database = dev.env("DATABASE_URL");
    let report = dev.json("alice", 0, &["verify", "--database", database]);
    assert_eq!(report["ok"], true);
}

fn copy_folder(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.unwrap().success());
}

/// An agent with a stolen copy of the old identity; ended with the test.
struct Thief(std::process::Child);

impl Drop for Thief {
    fn drop(&mut self) {
        signal(self.0.id(), "TERM");
        let _status = self.0.wait();
    }
}

#[test]
fn a_host_gets_a_new_key_while_a_command_runs_and_another_waits_and_both_finish() {
    let dev = dev();
    let stolen = dev.folder().path().join("stolen");
    copy_folder(&dev.data().join("agent"), &stolen);
    let go = dev.folder().path().join("go");
    let script = format!(
        "until test -e {}; do sleep 0.1; done; echo ran",
        go.display()
    );
    let running = dev.request(&[], &["sh", "-c", &script]);
    dev.approve(&running);
    until("it runs", || dev.show(&running)["status"] == "running");
    let waiting = dev.request(&[], &["echo", "waited"]);

    let key = rotate(&dev);
    assert_eq!(key["status"], "waiting");
    until("the new key has enrolled", || {
        key_status(&dev, &key).is_some()
    });
    // The agent hears of neither before both are in the log.
    let agent = agent_of(&dev);
    signal(agent, "STOP");
    dev.approve(&waiting);
    accept(&dev, &key);
    assert_eq!(dev.show(&waiting)["status"], "authorized");
    assert_eq!(key_status(&dev, &key).as_deref(), Some("accepted"));
    assert_eq!(
        key_status(&dev, &key["replaces"]).as_deref(),
        Some("replaced")
    );
    let new = dev.request(&[], &["echo", "new"]);
    dev.approve(&new);
    signal(agent, "CONT");

    for (id, word, by) in [
        (&waiting, "waited\n", &key["replaces"]["key_id"]),
        (&new, "new\n", &key["key_id"]),
    ] {
        let shown = dev.ended(id);
        assert_eq!(
            (&shown["status"], &shown["executions"][0]["stdout"]),
            (&"completed".into(), &word.into())
        );
        assert_eq!(started_by(&dev, id), by.as_str().unwrap());
    }
    // The grace passes, and the run of the old key is still let be.
    std::thread::sleep(std::time::Duration::from_secs(u64::from(GRACE_S) + 1));
    assert_eq!(
        key_status(&dev, &key["replaces"]).as_deref(),
        Some("replaced")
    );
    fs::write(&go, "").unwrap();
    let shown = dev.ended(&running);
    assert_eq!(shown["executions"][0]["stdout"], "ran\n");
    assert_eq!(
        started_by(&dev, &running),
        key["replaces"]["key_id"].as_str().unwrap()
    );
    until("the old key has retired", || {
        key_status(&dev, &key["replaces"]).as_deref() == Some("retired")
    });
    until("its private part is gone", || {
        let retired = fs::read_dir(state(&dev)).unwrap().flatten().find(|entry| {
            let name = entry.file_name();
            name.to_str().unwrap().starts_with("identity.retired-")
        });
        retired.is_some_and(|folder| {
            !folder.path().join("key").exists() && folder.path().join("journal").exists()
        }) && !state(&dev).join("identity.next").exists()
    });
    assert_eq!(agent_of(&dev), agent, "it went on all the while");

    // Whoever has a copy of the old key gets in nowhere.
    let log = stolen.join("log");
    let thief = Command::new(PROGRAM)
        .args(["agent", "--config"])
        .arg(stolen.join("agent.toml"))
        .stdin(Stdio::null())
        .stderr(fs::File::create(&log).unwrap())
        .spawn();
    let _thief = Thief(thief.unwrap());
    until("the thief is turned away", || {
        let said = fs::read_to_string(&log).unwrap();
        said.contains("signs with this key here")
    });
    let last = dev.through(&[], &["echo", "last"]);
    assert_eq!(last["executions"][0]["stdout"], "last\n");
    assert_eq!(
        started_by(&dev, last["id"].as_str().unwrap()),
        key["key_id"].as_str().unwrap()
    );
    verifies(&dev);
}

#[test]
fn killed_again_and_again_in_a_rotation_the_host_ends_with_one_key_and_ran_nothing_twice() {
    let dev = dev();
    let mark = dev.folder().path().join("ran");
    let run = |number: u32| {
        let script = format!("echo {number} >> {}", mark.display());
        let id = dev.request(&[], &["sh", "-c", &script]);
        dev.approve(&id);
        id
    };
    let mut ids = vec![run(0)];
    let key = rotate(&dev);
    signal(agent_of(&dev), "KILL");
    assert_eq!(
        rotate(&dev)["key_id"],
        key["key_id"],
        "the key that waits is the one"
    );
    ids.push(run(1));
    accept(&dev, &key);
    signal(agent_of(&dev), "KILL");
    for number in 2..6 {
        ids.push(run(number));
        std::thread::sleep(std::time::Duration::from_millis(u64::from(number) * 250));
        signal(agent_of(&dev), "KILL");
    }
    for id in &ids {
        let status = dev.ended(id)["status"].as_str().unwrap().to_owned();
        assert!(["completed", "lost"].contains(&status.as_str()), "{status}");
    }
    until("the old key has retired", || {
        key_status(&dev, &key["replaces"]).as_deref() == Some("retired")
    });
    let last = dev.through(&[], &["true"]);
    assert_eq!(last["status"], "completed");
    assert_eq!(
        started_by(&dev, last["id"].as_str().unwrap()),
        key["key_id"].as_str().unwrap()
    );
    let ran = fs::read_to_string(&mark).unwrap_or_default();
    let mut lines: Vec<&str> = ran.lines().collect();
    let all = lines.len();
    lines.sort_unstable();
    lines.dedup();
    assert_eq!(lines.len(), all, "something ran twice: {ran:?}");
    verifies(&dev);
}
