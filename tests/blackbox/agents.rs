//! The agent under bad luck: killed at any moment, it runs nothing twice and says what it lost.

use std::fs;

use serde_json::json;

use crate::support::{Dev, processes_with, signal, until};

pub(crate) fn agent_of(dev: &Dev) -> u32 {
    let config = dev.data().join("agent/agent.toml");
    let mut found = Vec::new();
    until("the agent is there", || {
        found = processes_with(&format!("agent --config {}", config.display()));
        // Its supervisors have the same command line; the agent is the oldest.
        !found.is_empty()
    });
    found.sort_unstable();
    found[0]
}

#[test]
fn a_killed_agent_says_lost_and_runs_nothing_twice() {
    let dev = Dev::start();
    let mark = dev.folder().path().join("ran");
    let script = format!("echo ran >> {}; echo begun; sleep 60", mark.display());
    let id = dev.request(&["--timeout", "120"], &["sh", "-c", &script]);
    dev.approve(&id);
    until("it runs", || {
        dev.show(&id)["executions"][0]["stdout"] == "begun\n"
    });
    signal(agent_of(&dev), "KILL");
    let shown = dev.ended(&id);
    assert_eq!(
        (&shown["status"], &shown["executions"][0]["status"]),
        (&json!("lost"), &json!("lost"))
    );
    assert_eq!(shown["executions"][0]["stdout"], "begun\n");
    assert_eq!(shown["executions"][0]["exit_code"], json!(null));
    // The next command runs; the lost one does not.
    assert_eq!(dev.through(&[], &["true"])["status"], "completed");
    assert_eq!(fs::read_to_string(&mark).unwrap(), "ran\n");
    assert!(dev.is_sound());
}

#[test]
fn killed_again_and_again_it_runs_each_command_at_most_once() {
    let dev = Dev::start();
    let mark = dev.folder().path().join("ran");
    let mut ids = Vec::new();
    for round in 0..6_u32 {
        let script = format!("echo {round} >> {}", mark.display());
        let id = dev.request(&[], &["sh", "-c", &script]);
        dev.approve(&id);
        // At another point of its work each time.
        std::thread::sleep(std::time::Duration::from_millis(u64::from(round) * 15));
        signal(agent_of(&dev), "KILL");
        ids.push(id);
    }
    for id in &ids {
        let shown = dev.ended(id);
        let status = shown["status"].as_str().unwrap();
        assert!(["completed", "lost"].contains(&status), "{status}");
    }
    let ran = fs::read_to_string(&mark).unwrap_or_default();
    let mut lines: Vec<&str> = ran.lines().collect();
    let all = lines.len();
    lines.dedup();
    assert_eq!(lines.len(), all, "something ran twice: {ran:?}");
    assert!(dev.is_sound());
}

#[test]
fn an_agent_without_its_journal_does_not_start() {
    let mut dev = Dev::start();
    dev.through(&[], &["true"]);
    signal(dev.pid(), "TERM");
    dev.wait();
    let state = dev.data().join("agent/state");
    let mut journals = Vec::new();
    let mut folders = vec![state];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path
                .file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .contains("journal")
            {
                journals.push(path);
            }
        }
    }
    assert_eq!(journals.len(), 1);
    fs::remove_file(&journals[0]).unwrap();
    let output = std::process::Command::new(crate::support::PROGRAM)
        .args(["agent", "--config"])
        .arg(dev.data().join("agent/agent.toml"))
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("journal"));
}

#[test]
fn a_host_that_wants_more_approvals_refuses_and_says_so() {
    let mut dev = Dev::start();
    signal(dev.pid(), "TERM");
    dev.wait();
    // A real host's own file is not written by dev: give the agent another one, more careful.
    let folder = dev.folder();
    drop(dev);
    let dev = Dev::start_in(folder);
    let config = dev.data().join("agent/agent.toml");
    let careful = fs::read_to_string(&config)
        .unwrap()
        .replace("execution = true", "execution = false");
    fs::write(&config, careful).unwrap();
    signal(agent_of(&dev), "KILL");
    let shown = dev.through(&[], &["true"]);
    assert_eq!(
        (&shown["status"], &shown["executions"][0]["status"]),
        (&json!("refused"), &json!("refused"))
    );
}

/// An agent that joins by hand, as on a second host; ended with the test.
struct Second(std::process::Child);

impl Drop for Second {
    fn drop(&mut self) {
        signal(self.0.id(), "TERM");
        let _status = self.0.wait();
    }
}

#[test]
fn a_second_host_joins_by_fingerprint_and_a_command_runs_on_both() {
    let dev = Dev::start();
    let folder = dev.folder().path().join("second");
    fs::create_dir(&folder).unwrap();
    let config = fs::read_to_string(dev.data().join("agent/agent.toml")).unwrap();
    let config = config.replace("name = \"local\"", "name = \"second\"");
    fs::write(folder.join("agent.toml"), config).unwrap();
    fs::copy(
        dev.data().join("agent/allowed_signers"),
        folder.join("allowed_signers"),
    )
    .unwrap();
    let log = folder.join("log");
    let second = std::process::Command::new(crate::support::PROGRAM)
        .args(["agent", "--config"])
        .arg(folder.join("agent.toml"))
        .stderr(fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let _second = Second(second);
    // What it prints is what an administrator compares.
    let mut fingerprint = String::new();
    until("it has printed its fingerprint", || {
        let text = fs::read_to_string(&log).unwrap();
        let word = text
            .split_whitespace()
            .find(|word| word.starts_with("SHA256:"));
        fingerprint = word.unwrap_or_default().trim_end_matches('.').to_owned();
        !fingerprint.is_empty()
    });
    let wrong = format!("SHA256:{}", "A".repeat(43));
    until("its enrolment is in the log", || {
        let agents = dev.json("alice", 0, &["agents"]);
        agents["items"]
            .as_array()
            .unwrap()
            .iter()
            .any(|item| item["agent"] == "second")
    });
    let refused = dev.verb(
        "alice",
        &["agents", "accept", "second", "--fingerprint", &wrong],
    );
    assert!(!refused.status.success());
    let asked = dev.json(
        "alice",
        0,
        &["agents", "accept", "second", "--fingerprint", &fingerprint],
    );
    dev.json(
        "carol",
        0,
        &["approve", asked["id"].as_str().unwrap(), "--yes"],
    );
    let asked = dev.json(
        "alice",
        0,
        &[
            "request",
            "--on",
            "second,local",
            "--reason",
            "both",
            "--",
            "echo",
            "here",
        ],
    );
    let id = asked["id"].as_str().unwrap();
    dev.approve(id);
    let shown = dev.ended(id);
    assert_eq!(shown["status"], "completed");
    let hosts: Vec<&str> = shown["executions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|execution| execution["agent"].as_str().unwrap())
        .collect();
    assert_eq!(hosts, ["local", "second"]);
    assert!(
        shown["executions"]
            .as_array()
            .unwrap()
            .iter()
            .all(|execution| execution["stdout"] == "here\n")
    );
    crate::replays::of_two_hosts(&dev, id);
}
