//! That nothing ran on a host: by the real binaries, from the agent's own words to the verdict.

use std::fs;

use serde_json::Value;

use crate::agents::agent_of;
use crate::support::{Dev, signal, text, until};

/// From when to when each idle statement of the log speaks, in microseconds.
fn spoken(dev: &Dev) -> Vec<(u64, u64)> {
    let log = dev.verb("alice", &["--json", "log"]);
    let log = text(&log.stdout);
    let entries = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let idle = entries.filter(|entry| entry["namespace"] == "agent.idle.v1@countersign");
    let span = |entry: Value| {
        let time = |field: &str| entry["payload"][field].as_u64().unwrap();
        (time("from"), time("to"))
    };
    idle.map(span).collect()
}

/// Waits for the first idle statement that begins at this time or later.
fn next(dev: &Dev, from: u64) -> (u64, u64) {
    let mut found = None;
    until("the host has said that it is idle", || {
        found = spoken(dev).into_iter().find(|span| span.0 >= from);
        found.is_some()
    });
    found.unwrap()
}

fn asked(dev: &Dev, (from, to): (u64, u64), more: &[&str]) -> (Option<i32>, String) {
    let time = |us: u64| {
        dev.sql(&format!(
            "SELECT to_char(timestamp 'epoch' + {us} * interval '1 microsecond', \
             'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
        ))
    };
    let (from, to) = (time(from), time(to));
    let words = [
        "audit",
        "nothing-ran",
        "--host",
        "local",
        "--from",
        &from,
        "--to",
        &to,
    ];
    let output = dev.verb("alice", &[more, &words].concat());
    (output.status.code(), text(&output.stdout))
}

/// What `nothing-ran` says of a time, as a script reads it.
fn verdict(dev: &Dev, span: (u64, u64), code: i32) -> Value {
    let (ended, said) = asked(dev, span, &["--json"]);
    assert_eq!(ended, Some(code), "{said}");
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["proved"], code == 0);
    said
}

#[test]
fn that_nothing_ran_is_proved_and_a_run_or_a_gap_is_named() {
    let dev = Dev::start();
    let agent = agent_of(&dev);
    // Once an hour; asked, at once.
    assert_eq!(spoken(&dev), []);
    signal(agent, "USR1");
    until("it answers", || spoken(&dev).len() == 1);
    assert_eq!(agent_of(&dev), agent, "it goes on");

    let config = dev.data().join("agent/agent.toml");
    let written = fs::read_to_string(&config).unwrap();
    let often = written.replace("\ngrace_s = ", "\nidle_every_s = 1\ngrace_s = ");
    fs::write(&config, often).unwrap();
    signal(agent, "HUP");
    let (_, first) = spoken(&dev)[0];
    let quiet = next(&dev, first);
    let quiet = (quiet.0, next(&dev, quiet.1).1);
    let said = verdict(&dev, quiet, 0);
    assert_eq!(said["statements"], 3, "the one before ends where it begins");
    assert_eq!(said["keys"].as_array().unwrap().len(), 1);
    let (_, words) = asked(&dev, quiet, &[]);
    assert!(words.starts_with("proved: nothing ran on local"), "{words}");

    let shown = dev.through(&[], &["true"]);
    let (_, before) = quiet;
    // Two more: the second one begins after the run has ended.
    let ended = spoken(&dev).last().unwrap().1;
    next(&dev, next(&dev, ended).1);
    let last = *spoken(&dev).last().unwrap();
    let said = verdict(&dev, (before, last.1), 1);
    assert_eq!(
        said["gaps"],
        Value::Array(vec![]),
        "it spoke of all of that time"
    );
    assert_eq!(said["runs"][0]["command"], shown["id"]);
    assert_eq!(said["runs"][0]["tree_gone"], true);
    let (_, words) = asked(&dev, (before, last.1), &[]);
    assert!(words.contains("ran from"), "{words}");

    signal(agent, "KILL");
    until("another agent is there", || agent_of(&dev) != agent);
    // The last word of the one may be told by the other.
    let mut around = None;
    until("the new one has said that it is idle", || {
        let spoken = spoken(&dev);
        let mut neighbours = spoken.windows(2).map(|two| (two[0], two[1]));
        around = neighbours.find(|(one, other)| one.1 >= last.1 && other.0 > one.1);
        around.is_some()
    });
    let (last, up) = around.unwrap();
    let said = verdict(&dev, (last.0, up.1), 1);
    let gap = &said["gaps"][0];
    assert_eq!(
        (&gap["why"], &gap["from_us"]),
        (&"silent".into(), &last.1.into())
    );
    assert_eq!(gap["to_us"], up.0);
    assert_eq!(said["runs"], Value::Array(vec![]));
    let (_, words) = asked(&dev, (last.0, up.1), &[]);
    assert!(
        words.contains("a gap of") && words.contains("it was down"),
        "{words}"
    );
    verdict(&dev, up, 0);
    assert!(dev.is_sound());
}

#[test]
fn of_a_host_that_is_not_known_nothing_is_proved() {
    let dev = Dev::shared();
    let words = [
        "audit",
        "nothing-ran",
        "--host",
        "nowhere",
        "--from",
        "1h",
        "--to",
        "1m",
    ];
    let output = dev.verb("alice", &words);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("never accepted a host of this name"));
    let turned = [
        "audit",
        "nothing-ran",
        "--host",
        "local",
        "--from",
        "1m",
        "--to",
        "1h",
    ];
    assert_eq!(dev.verb("alice", &turned).status.code(), Some(2));
}
