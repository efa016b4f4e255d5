//! A command's life, as people and scripts see it.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Dev, processes_running, text, until};

#[test]
fn run_streams_both_streams_and_exits_as_the_command() {
    let dev = Dev::start();
    let ran = dev.run(&[], &["sh", "-c", "echo to-out; echo to-err >&2; exit 7"]);
    assert_eq!(ran.status.code(), Some(7), "{}", text(&ran.stderr));
    assert_eq!(text(&ran.stdout), "to-out\n");
    assert_eq!(
        text(&ran.stderr)
            .lines()
            .filter(|line| *line == "to-err")
            .count(),
        1
    );
    assert_eq!(
        dev.run(&[], &["sh", "-c", "kill -9 $$"]).status.code(),
        Some(137)
    );
    assert_eq!(dev.run(&[], &["no-such-program"]).status.code(), Some(127));
    assert_eq!(dev.run(&[], &["/etc/passwd"]).status.code(), Some(126));
    let timed = dev.run(&["--timeout", "1"], &["sh", "-c", "echo early; sleep 60"]);
    assert_eq!(
        (timed.status.code(), text(&timed.stdout)),
        (Some(124), "early\n".to_owned())
    );
    assert_eq!(dev.run(&["--shell"], &["exit 5"]).status.code(), Some(5));
}

#[test]
fn run_says_no_with_125() {
    let dev = Dev::start();
    let run = |words: &[&str]| {
        let head = ["run", "--on", "local", "--reason", "x", "--"];
        dev.command("alice", &[&head, words].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let child = run(&["true"]);
    let mut id = String::new();
    until("the request waits", || {
        let inbox = dev.json("bob", 0, &["inbox"]);
        id = inbox["items"][0]["id"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        !id.is_empty()
    });
    dev.json("bob", 0, &["reject", &id, "--yes", "--reason", "not today"]);
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(125));
    assert!(
        text(&ended.stderr).contains("rejected"),
        "{}",
        text(&ended.stderr)
    );
    let nowhere = dev.verb(
        "alice",
        &["run", "--on", "nowhere", "--reason", "x", "--", "true"],
    );
    assert_eq!(nowhere.status.code(), Some(125));
}

#[test]
fn standard_input_arrives_whole() {
    let dev = Dev::shared();
    let path = dev.folder().path().join("stdin");
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    std::fs::write(&path, &bytes).unwrap();
    let shown = dev.through(&["--stdin", path.to_str().unwrap()], &["sha256sum"]);
    let sum = std::process::Command::new("sha256sum")
        .arg(&path)
        .output()
        .unwrap();
    let expected = text(&sum.stdout).split(' ').next().unwrap().to_owned();
    assert!(
        shown["executions"][0]["stdout"]
            .as_str()
            .unwrap()
            .starts_with(&expected)
    );
}

#[test]
fn arguments_reach_the_program_as_they_are() {
    let dev = Dev::shared();
    let words = [
        "printf",
        "%s.",
        "a b",
        "*",
        "|",
        ">x",
        "$HOME",
        "\n",
        "'\"",
        "\u{202e}ü",
    ];
    let shown = dev.through(&[], &words);
    let expected: String = words[2..].iter().map(|word| format!("{word}.")).collect();
    assert_eq!(shown["executions"][0]["stdout"], json!(expected));
}

#[test]
fn the_environment_is_what_was_asked_and_nothing_else() {
    let dev = Dev::shared();
    let shown = dev.through(&["--env", "B=2", "--env", "A=1"], &["env"]);
    assert_eq!(shown["executions"][0]["stdout"], "A=1\nB=2\n");
}

#[test]
fn output_over_the_limit_is_marked() {
    let dev = Dev::shared();
    let shown = dev.through(&[], &["head", "-c", "3000000", "/dev/zero"]);
    let execution = &shown["executions"][0];
    assert_eq!(
        (&execution["truncated"], &execution["exit_code"]),
        (&json!(true), &json!(0))
    );
}

#[test]
fn one_rejection_ends_it() {
    let dev = Dev::shared();
    let id = dev.request(&[], &["true"]);
    dev.json("bob", 0, &["approve", &id, "--yes"]);
    let no = dev.json("carol", 0, &["reject", &id, "--yes", "--reason", "no"]);
    assert_eq!(no["status"], "rejected");
    let late = dev.json("carol", 4, &["approve", &id, "--yes"]);
    assert_eq!(late["error"]["code"], "over");
    assert_eq!(dev.show(&id)["status"], "rejected");
}

#[test]
fn the_requester_withdraws_and_nobody_else() {
    let dev = Dev::shared();
    let id = dev.request(&[], &["true"]);
    dev.json("bob", 4, &["withdraw", &id]);
    assert_eq!(
        dev.json("alice", 0, &["withdraw", &id])["status"],
        "withdrawn"
    );
    dev.json("bob", 4, &["approve", &id, "--yes"]);
}

#[test]
fn a_request_expires_by_its_deadline() {
    let dev = Dev::shared();
    let id = dev.request(&["--expires", "10s"], &["true"]);
    dev.json("bob", 0, &["approve", &id, "--yes"]);
    assert_eq!(dev.ended(&id)["status"], "expired");
    dev.json("carol", 4, &["approve", &id, "--yes"]);
}

#[test]
fn a_cancel_stops_the_whole_tree_and_keeps_the_output() {
    let dev = Dev::shared();
    let marker = format!("314159{}", std::process::id());
    let id = dev.request(
        &["--timeout", "120"],
        &[
            "sh",
            "-c",
            &format!("echo begun; setsid sleep {marker} & sleep {marker}"),
        ],
    );
    dev.approve(&id);
    until("it runs", || {
        processes_running(&format!("sleep {marker}")).len() >= 2
            && dev.show(&id)["executions"][0]["stdout"] == "begun\n"
    });
    let begun = Instant::now();
    dev.json("bob", 0, &["cancel", &id, "--reason", "enough"]);
    let shown = dev.ended(&id);
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert_eq!(shown["executions"][0]["outcome"], "cancelled");
    assert_eq!(shown["executions"][0]["stdout"], "begun\n");
    until("nothing is left", || {
        processes_running(&format!("sleep {marker}")).is_empty()
    });
}

#[test]
fn a_cancel_before_the_approval_ends_it() {
    let dev = Dev::shared();
    let id = dev.request(&[], &["true"]);
    assert_eq!(
        dev.json("alice", 0, &["cancel", &id])["status"],
        "cancelled"
    );
}

#[test]
fn output_is_seen_while_it_runs() {
    let dev = Dev::shared();
    let id = dev.request(
        &["--timeout", "120"],
        &["sh", "-c", "echo first; sleep 60; echo second"],
    );
    dev.approve(&id);
    let begun = Instant::now();
    until("the first line is there", || {
        dev.show(&id)["executions"][0]["stdout"] == "first\n"
    });
    assert!(
        begun.elapsed() < Duration::from_secs(45),
        "it came only at the end"
    );
    dev.json("alice", 0, &["cancel", &id]);
    dev.ended(&id);
}

#[test]
fn escape_sequences_do_not_reach_a_reader_raw() {
    let dev = Dev::shared();
    let nasty = "\u{1b}]0;owned\u{7}\r\u{202e}abc\u{200b}";
    let asked = dev.json(
        "alice",
        0,
        &[
            "request", "--on", "local", "--reason", nasty, "--", "printf", nasty,
        ],
    );
    let id = asked["id"].as_str().unwrap();
    dev.approve(id);
    dev.ended(id);
    for arguments in [vec!["show", id], vec!["list"], vec!["log"]] {
        let output = dev.verb("bob", &arguments);
        let shown = text(&output.stdout) + &text(&output.stderr);
        for raw in ['\u{1b}', '\r', '\u{7}', '\u{202e}', '\u{200b}'] {
            assert!(!shown.contains(raw), "{arguments:?} shows {raw:?}");
        }
    }
}
