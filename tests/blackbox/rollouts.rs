//! Rollouts with real servers and hosts: one at a time, a canary, errors, gaps over two commands and a
//! restart.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::answers::Host;
use crate::rights::change;
use crate::support::{Dev, text, until};

const HOSTS: &str = "local,second,third";

/// Asks for a script on all three hosts, and has it approved.
fn asked(dev: &Dev, options: &[&str], script: &str) -> String {
    let head = ["request", "--on", HOSTS, "--reason", "a test"];
    let tail = ["--shell", "--", script];
    let said = dev.json("alice", 0, &[&head[..], options, &tail].concat());
    let id = said["id"].as_str().unwrap().to_owned();
    dev.approve(&id);
    id
}

fn statuses(shown: &Value) -> Vec<(String, String)> {
    let parts = shown["executions"].as_array().unwrap();
    let of = |part: &Value, name: &str| part[name].as_str().unwrap_or_default().to_owned();
    parts
        .iter()
        .map(|part| (of(part, "agent"), of(part, "status")))
        .collect()
}

fn with(dev: &Dev, id: &str, status: &str) -> Vec<String> {
    let all = statuses(&dev.show(id)).into_iter();
    all.filter(|(_, found)| found == status)
        .map(|(host, _)| host)
        .collect()
}

/// A script of so many seconds that fails where two of it run at once.
fn alone(dev: &Dev, seconds: &str) -> String {
    let lock = dev.folder().path().join("lock");
    let lock = lock.display();
    format!("mkdir {lock} || exit 9; sleep {seconds}; rmdir {lock}")
}

/// Places of the entries of a kind about a command, with their times in microseconds.
fn entries(dev: &Dev, id: &str, kind: &str) -> Vec<u64> {
    let namespace = format!("{kind}.v1@countersign");
    let rows = dev.sql(&format!(
        "SELECT ('x' || encode(substring(entry FROM 30 FOR 8), 'hex'))::bit(64)::bigint
         FROM entries JOIN statements USING (seq)
         WHERE stream = decode('{id}', 'hex') AND position('{namespace}'::bytea IN entry) > 0 ORDER BY seq"
    ));
    rows.lines()
        .map(|line| line.trim().parse().unwrap())
        .collect()
}

/// The hosts of the entries of a kind about a command, in the order of the log.
fn hosts_of(dev: &Dev, id: &str, kind: &str) -> Vec<String> {
    let rows = dev.sql(&format!(
        "SELECT substring(encode(entry, 'escape') FROM '\"agent\":\"([a-z]+)\"')
         FROM entries JOIN statements USING (seq)
         WHERE stream = decode('{id}', 'hex') AND position('{kind}.v1@countersign'::bytea IN entry) > 0
         ORDER BY seq"
    ));
    rows.lines().map(str::to_owned).collect()
}

#[test]
fn hosts_run_one_at_a_time_in_the_order_that_was_approved() {
    let dev = Dev::start();
    let _hosts = [Host::join(&dev, "second"), Host::join(&dev, "third")];
    let script = alone(&dev, "0.4");
    let id = asked(
        &dev,
        &["--max-in-flight", "1", "--order", "reverse"],
        &script,
    );
    let ended = dev.ended(&id);
    assert_eq!(ended["status"], "completed", "{ended}");
    assert_eq!(entries(&dev, &id, "execution.released").len(), 3);
    let order = hosts_of(&dev, &id, "execution.started");
    assert_eq!(order, ["third", "second", "local"]);
    // Without a rollout the same script finds that it is not alone.
    let id = asked(&dev, &[], &alone(&dev, "10"));
    assert_ne!(dev.ended(&id)["status"], "completed");
    assert!(dev.is_sound());
}

#[test]
fn a_canary_waits_for_a_persons_word_and_the_first_error_skips_the_rest() {
    let dev = Dev::start();
    let _hosts = [Host::join(&dev, "second"), Host::join(&dev, "third")];
    let id = asked(&dev, &["--canary", "1"], "true");
    until("the canary ran", || {
        with(&dev, &id, "completed") == ["local"]
    });
    let shown = dev.verb("alice", &["show", &id]);
    let said = text(&shown.stdout);
    assert!(said.contains("countersign continue"), "{said}");
    assert_eq!(with(&dev, &id, "waiting"), ["second", "third"]);
    let paused = dev.verb("bob", &["pause", &id]);
    assert!(paused.status.success(), "{}", text(&paused.stderr));
    let early = dev.json("bob", 4, &["pause", &id]);
    assert_eq!(early["error"]["code"], "paused");
    let continued = dev.verb("alice", &["continue", &id, "--reason", "it is fine"]);
    assert!(continued.status.success(), "{}", text(&continued.stderr));
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(
        with(&dev, &id, "waiting"),
        ["second", "third"],
        "it is paused"
    );
    let resumed = dev.verb("bob", &["resume", &id]);
    assert!(resumed.status.success(), "{}", text(&resumed.stderr));
    assert_eq!(dev.ended(&id)["status"], "completed");

    let id = asked(&dev, &["--max-in-flight", "1"], "exit 3");
    let ended = dev.ended(&id);
    assert_eq!(ended["status"], "failed", "{ended}");
    assert_eq!(with(&dev, &id, "skipped"), ["second", "third"]);
    assert!(dev.is_sound());
}

/// What a verb has said on stderr so far.
fn said(file: &Path) -> String {
    fs::read_to_string(file).unwrap()
}

#[test]
fn a_run_says_what_its_rollout_waits_for_and_why_hosts_were_skipped() {
    let dev = Dev::start();
    let _second = Host::join(&dev, "second");
    let file = dev.folder().path().join("said");
    let run = |script: &str, options: &[&str]| {
        let head = ["run", "--on", "local,second", "--reason", "a test"];
        let tail = ["--shell", "--", script];
        let mut command = dev.command("alice", &[&head[..], options, &tail].concat());
        let child = command
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&file).unwrap())
            .spawn()
            .unwrap();
        dev.approve_next(&child);
        child
    };
    let child = run("true", &["--canary", "1"]);
    until("it waits at its canary", || {
        said(&file).contains("continue")
    });
    let id = dev.json("bob", 0, &["list"])["items"][0]["id"].clone();
    let id = id.as_str().unwrap();
    let code = &dev.show(id)["short"];
    let code = code.as_str().unwrap();
    for (who, verb) in [("bob", "pause"), ("bob", "resume"), ("carol", "continue")] {
        dev.json(who, 0, &[verb, id]);
    }
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(0));
    let told = said(&file);
    let waits = format!(
        "countersign: the canary is over: local ok (exited with code 0); look at it, then: countersign continue {code}"
    );
    let paused = format!("countersign: paused by bob; go on with: countersign resume {code}");
    for line in [
        waits.as_str(),
        &paused,
        "countersign: resumed by bob",
        "countersign: continued by carol",
    ] {
        assert_eq!(
            told.lines().filter(|said| *said == line).count(),
            1,
            "{line}: {told}"
        );
    }

    // A canary that fails stops it and asks nobody, and the other host says that it was for this.
    let child = run("exit 3", &["--canary", "1", "--jsonl"]);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(125), "{}", said(&file));
    assert!(!said(&file).contains("continue"), "{}", said(&file));
    let lines = text(&output.stdout);
    let lines = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    let lines: Vec<Value> = lines.collect();
    let skipped = |line: &&Value| line["type"] == "completed" && line["host"] == "second";
    let line = lines.iter().find(skipped).unwrap();
    assert_eq!(
        (&line["came"], &line["skipped"]),
        (&json!("skipped"), &json!("errors"))
    );
    let shown = &lines.last().unwrap()["command"];
    let parts = shown["executions"].as_array().unwrap();
    let why: Vec<&Value> = parts.iter().map(|part| &part["skipped"]).collect();
    assert_eq!(why, [&Value::Null, &json!("errors")]);
    let id = shown["id"].as_str().unwrap();
    let words =
        "second: skipped: not started, because more hosts ended badly than the rollout allows";
    let shown = text(&dev.verb("bob", &["show", id]).stdout);
    assert!(shown.contains(words), "{shown}");
    let why = dev.json("alice", 0, &["audit", "why", id]);
    let mut entries = why["entries"].as_array().unwrap().iter();
    let skip = entries.find(|entry| entry["kind"] == "execution.skipped");
    let detail = skip.unwrap()["detail"].as_str().unwrap();
    assert!(words.ends_with(detail) && !detail.is_empty(), "{detail}");
    // `logs` says it too, where there is nothing to show.
    let logs = text(&dev.verb("bob", &["logs", id, "--agent", "second"]).stderr);
    assert!(
        logs.contains(&format!("nothing was written; {words}")),
        "{logs}"
    );
}

#[test]
fn two_commands_keep_a_labels_gap_also_over_a_restart_of_the_server() {
    const GAP: Duration = Duration::from_secs(8);
    let mut dev = Dev::start();
    let folder = dev.folder();
    let second = Host::join(&dev, "second");
    for host in ["local", "second"] {
        change(&dev, &["agents", "label", host, "role=dns.eu"]);
    }
    let options = ["--gap", "8s", "--gap-label", "role=dns"];
    let ask = |dev: &Dev, host: &str| {
        let head = ["request", "--on", host, "--reason", "a test"];
        let said = dev.json("alice", 0, &[&head[..], &options, &["--", "true"]].concat());
        let id = said["id"].as_str().unwrap().to_owned();
        dev.approve(&id);
        id
    };
    let one = ask(&dev, "second");
    assert_eq!(dev.ended(&one)["status"], "completed");
    let two = ask(&dev, "local");
    drop(second);
    dev.stop();
    drop(dev);
    let dev = Dev::start_in(Arc::clone(&folder));
    assert_eq!(dev.ended(&two)["status"], "completed");
    let (end, begin) = (
        entries(&dev, &one, "execution.completed")[0],
        entries(&dev, &two, "execution.released")[0],
    );
    let apart = Duration::from_micros(begin.saturating_sub(end));
    assert!(apart >= GAP, "only {apart:?} apart");
    assert!(dev.is_sound());
}
