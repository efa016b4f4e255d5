//! `selfcheck`: a healthy service passes, and what is broken has a line and an exit code.

use std::fs;
use std::process::{Child, Stdio};

use serde_json::{Value, json};

use crate::agents::agent_of;
use crate::answers::Host;
use crate::support::{Dev, signal, text, until};

/// Each check's word and how it came out.
fn came(document: &Value) -> Vec<(String, String)> {
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    let checks = document["checks"].as_array().unwrap();
    checks
        .iter()
        .map(|line| (word(&line["check"]), word(&line["came"])))
        .collect()
}

fn line<'a>(document: &'a Value, check: &str) -> &'a Value {
    let mut checks = document["checks"].as_array().unwrap().iter();
    checks.find(|line| line["check"] == check).unwrap()
}

const ALL: [&str; 11] = [
    "health",
    "you",
    "host",
    "refused",
    "allowed",
    "cancel",
    "pipeline",
    "timeout",
    "truncation",
    "tampered",
    "audit",
];

#[test]
fn a_healthy_service_passes_all_of_it_and_its_log_is_sound() {
    let dev = Dev::shared();
    let run = dev.verb("alice", &["selfcheck"]);
    let (out, err) = (text(&run.stdout), text(&run.stderr));
    assert_eq!(run.status.code(), Some(0), "{out}{err}");
    let words: Vec<&str> = out
        .lines()
        .filter_map(|line| line.strip_prefix("ok"))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(words, ALL, "{out}");
    assert!(out.ends_with("11 ok, 0 failed, 0 left out\n"), "{out}");
    assert!(dev.is_sound());
}

#[test]
fn a_host_that_is_away_is_said_and_what_was_asked_of_it_never_runs() {
    let dev = Dev::start();
    let agent = agent_of(&dev);
    signal(agent, "STOP");
    let document = dev.json("alice", 1, &["selfcheck"]);
    signal(agent, "CONT");
    let allowed = line(&document, "allowed");
    assert_eq!(allowed["came"], "failed");
    let said = allowed["said"].as_str().unwrap();
    assert!(said.contains("local did not start it"), "{said}");
    assert!(
        allowed["hint"].as_str().unwrap().contains("agent"),
        "{allowed}"
    );
    for check in ["cancel", "pipeline", "timeout", "truncation"] {
        assert_eq!(line(&document, check)["came"], "left_out", "{document}");
    }
    // The server itself is well, and said so.
    assert_eq!(line(&document, "health")["came"], "ok");
    assert_eq!(line(&document, "refused")["came"], "ok");
    until("what was cancelled is over", || {
        let listed = dev.json("alice", 0, &["list"]);
        listed["items"][0]["status"] == "cancelled"
    });
}

#[test]
fn what_a_host_does_not_allow_is_left_out_aloud() {
    let mut dev = Dev::start();
    // One that allows programs and no shell: dev writes its file anew at each start, HUP reads it.
    let path = dev.data().join("agent/agent.toml");
    let config = fs::read_to_string(&path).unwrap();
    let stricter = config
        .replace(
            "modes = [\"exec\", \"shell\", \"action\"]",
            "modes = [\"exec\"]",
        )
        .replace("shell.allow = true\n", "");
    assert_ne!(config, stricter);
    fs::write(&path, stricter).unwrap();
    signal(agent_of(&dev), "HUP");
    let document = dev.json("alice", 7, &["selfcheck"]);
    assert_eq!(
        (&document["ok"], &document["complete"]),
        (&json!(true), &json!(false))
    );
    let others = came(&document);
    let others = others.iter().filter(|(check, _)| check != "pipeline");
    assert!(others.clone().all(|(_, came)| came == "ok"), "{document}");
    let pipeline = line(&document, "pipeline");
    assert_eq!(pipeline["came"], "left_out");
    assert!(
        pipeline["said"]
            .as_str()
            .unwrap()
            .contains("local would not run"),
        "{pipeline}"
    );
    assert_eq!(
        dev.json("alice", 0, &["selfcheck", "--allow-left-out"])["left_out"],
        1
    );
    dev.stop();
    let document = dev.json("alice", 1, &["selfcheck"]);
    let health = line(&document, "health");
    assert_eq!(health["came"], "failed");
    assert!(
        health["said"].as_str().unwrap().contains("cannot reach"),
        "{health}"
    );
}

/// Without keys of others, as it is in earnest.
fn alone(dev: &Dev, options: &[&str]) -> Child {
    let arguments = [&["--json", "selfcheck"], options].concat();
    dev.command("alice", &arguments)
        .env_remove("COUNTERSIGN_SELFCHECK_APPROVERS")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn without_their_keys_others_approve_and_what_they_do_not_is_taken_back() {
    let dev = Dev::start();
    let running = alone(&dev, &["--wait", "300s"]);
    let mut ids = Vec::new();
    until("all of it is asked for", || {
        let inbox = dev.json("bob", 0, &["inbox"]);
        let items = inbox["items"].as_array().unwrap().iter();
        ids = items
            .map(|item| item["id"].as_str().unwrap().to_owned())
            .collect();
        ids.len() == 5
    });
    ids.iter().for_each(|id| dev.approve(id));
    let output = running.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));

    let output = alone(&dev, &["--wait", "3s"]).wait_with_output().unwrap();
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    // The commands were neither approved nor run: nothing failed, and nothing is known.
    assert_eq!(output.status.code(), Some(7), "{document}");
    assert_eq!(line(&document, "allowed")["came"], "left_out");
    assert_eq!(line(&document, "refused")["came"], "ok");
    assert_eq!(dev.json("bob", 0, &["inbox"])["items"], json!([]));

    let nobody = dev.json("alice", 0, &["selfcheck", "--no-runs", "--allow-left-out"]);
    assert_eq!(nobody["left_out"], 8);
}

#[test]
fn a_monitor_that_names_none_of_several_hosts_is_not_told_that_all_is_well() {
    let dev = Dev::start();
    let _second = Host::join(&dev, "second");
    let monitor = ["selfcheck", "--no-runs", "--allow-left-out"];
    let said = dev.json("alice", 2, &monitor);
    assert_eq!(said["error"]["code"], "usage");
    assert!(said["error"]["hint"].as_str().unwrap().contains("--host"));
    let on_one = dev.json("alice", 0, &[&monitor[..], &["--host", "second"]].concat());
    assert_eq!(line(&on_one, "host")["came"], "ok");
    // Who does not forgive what is left out is told what was tried.
    let document = dev.json("alice", 7, &["selfcheck", "--no-runs"]);
    assert_eq!(line(&document, "host")["came"], "left_out");
}

#[test]
fn nobody_approves_their_own_selfcheck() {
    let dev = Dev::shared();
    let own = dev.data().join("keys/alice");
    let said = dev.json(
        "alice",
        2,
        &["selfcheck", "--approver-key", own.to_str().unwrap()],
    );
    assert_eq!(said["error"]["code"], "usage");
}
