//! A secret is printed by mistake: a hold keeps it, two people erase it, and it is gone from the
//! database and the host, while everything still verifies and says who and why.

use std::fs;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::support::{Dev, PROGRAM, text, until};

/// What is printed. No argument has it in one piece.
const SECRET: &str = "hunter2-by-mistake";

fn id(shown: &Value) -> String {
    shown["id"].as_str().unwrap().to_owned()
}

/// Asks as alice; carol consents.
fn change(dev: &Dev, arguments: &[&str]) -> Value {
    let asked = dev.json("alice", 0, arguments);
    let agreed = dev.json("carol", 0, &["approve", &id(&asked), "--yes"]);
    assert_eq!(agreed["status"], "in_effect");
    agreed
}

/// Whether any file below a folder has the secret in it, as it is or as the journal writes it.
fn lies_below(folder: &Path) -> bool {
    let coded = STANDARD.encode(format!("{SECRET}\n"));
    let has = |bytes: &[u8], text: &str| {
        let mut windows = bytes.windows(text.len());
        windows.any(|some| some == text.as_bytes())
    };
    fs::read_dir(folder).unwrap().flatten().any(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return lies_below(&path);
        }
        let bytes = fs::read(&path).unwrap_or_default();
        has(&bytes, SECRET) || has(&bytes, &coded)
    })
}

/// Everything that the database holds, as text: a bytea is hex in it.
fn dumped(dev: &Dev) -> bool {
    let hex = hex::encode(SECRET);
    let tables = dev.sql(
        "SELECT schemaname || '.' || tablename FROM pg_tables
         WHERE schemaname IN ('public', 'projections')",
    );
    tables.lines().any(|table| {
        let sql = format!(
            "SELECT count(*) FROM {table} AS whole WHERE position('{hex}' IN whole::text) > 0
             OR position('{SECRET}' IN whole::text) > 0"
        );
        dev.sql(&sql) != "0"
    })
}

fn verified(dev: &Dev) -> Value {
    let database = dev.env("DATABASE_URL").to_owned();
    dev.json("alice", 0, &["verify", "--database", &database])
}

#[test]
fn a_secret_that_was_printed_by_mistake_is_held_then_erased_by_two_and_gone() {
    let mut dev = Dev::start();
    let ran = dev.through(&[], &["printf", "hunter2-%s\\n", "by-mistake"]);
    let command = id(&ran);
    assert!(
        ran["executions"][0]["stdout"]
            .as_str()
            .unwrap()
            .contains(SECRET)
    );
    assert!(dumped(&dev), "the search finds it while it is there");

    // A hold forbids it.
    let placed = ["hold", "place", "case-7", &command, "--reason", "a claim"];
    change(&dev, &placed);
    let holds = dev.json("bob", 0, &["hold", "list"]);
    assert_eq!(holds["items"][0]["hold"], "case-7");
    assert_eq!(holds["items"][0]["commands"][0], command.as_str());
    let redact = [
        "redact",
        &command,
        "--only",
        "output",
        "--reason",
        "a password in it",
        "--legal-basis",
        "gdpr-17",
        "--yes",
    ];
    let refused = dev.json("alice", 4, &redact);
    assert_eq!(refused["error"]["code"], "held", "{refused}");
    change(&dev, &["hold", "lift", "case-7", "--reason", "settled"]);

    // One alone does not suffice.
    let asked = dev.json("alice", 0, &redact);
    assert_eq!(asked["texts"].as_array().unwrap().len(), 1);
    assert_eq!(asked["changes"][0]["status"], "requested");
    assert!(dumped(&dev));
    let agreed = dev.json("carol", 0, &["approve", &id(&asked["changes"][0]), "--yes"]);
    assert_eq!(agreed["status"], "in_effect");
    assert!(!dumped(&dev));
    until("the host has forgotten it", || {
        !lies_below(&dev.data().join("agent"))
    });

    // Everything verifies, and says who and why.
    let report = verified(&dev);
    assert_eq!(report["blobs"]["redacted"], 1, "{report}");
    assert_eq!(report["blobs"]["erased"], 0);
    let pages = dev.json("alice", 0, &["verify"]);
    assert_eq!(pages["blobs"]["redacted"], 1);
    let shown = dev.show(&command);
    let redaction = &shown["redactions"][0];
    assert_eq!(redaction["legal_basis"], "gdpr-17");
    assert_eq!(redaction["reason"], "a password in it");
    assert_eq!(redaction["consents"], serde_json::json!(["alice", "carol"]));
    assert_eq!(redaction["texts"][0]["kind"], "output");
    let words = text(&dev.verb("alice", &["show", &command]).stdout);
    assert!(
        words.contains("a password in it") && words.contains("gdpr-17"),
        "{words}"
    );
    // As of before it was erased, and as of after: the text is gone for every day, and the same entry says so.
    let seq = redaction["seq"].as_u64().unwrap();
    for size in [seq, seq + 1] {
        for whole in [&["--whole"][..], &[]] {
            let size = size.to_string();
            let then = [&["at", &size], whole, &["show", &command]].concat();
            let then = dev.json("alice", 0, &then);
            assert_eq!(then["redactions"], shown["redactions"], "{whole:?} {then}");
            let executions = [&then, &shown].map(|view| &view["executions"][0]["truncated"]);
            assert_eq!(executions, [true, true]);
        }
    }
    for verb in [
        &["logs", command.as_str()][..],
        &["replay", &command, "--no-wait"],
        &["audit", "why", &command],
        &["at", "20", "show", &command],
    ] {
        let done = dev.verb("alice", verb);
        assert_eq!(
            done.status.code(),
            Some(0),
            "{verb:?}: {}",
            text(&done.stderr)
        );
        assert!(!text(&done.stdout).contains(SECRET));
    }
    let folder = dev.folder();
    for (name, what) in [("one", vec![command.as_str()]), ("all", vec![])] {
        let file = folder.path().join(name);
        let file = file.to_str().unwrap();
        dev.json(
            "alice",
            0,
            &[&["export"], what.as_slice(), &["-o", file]].concat(),
        );
        let bundle = dev.json("nobody", 0, &["verify", file]);
        assert_eq!(bundle["blobs"]["redacted"], 1, "{name}: {bundle}");
    }

    // A restart, and rows that are built anew.
    dev.stop();
    let dev = Dev::start_in(folder);
    assert_eq!(
        dev.show(&command)["redactions"][0]["legal_basis"],
        "gdpr-17"
    );
    let rebuilt = Command::new(PROGRAM)
        .args(["rebuild", "--database", dev.env("DATABASE_URL")])
        .output()
        .unwrap();
    assert!(rebuilt.status.success(), "{}", text(&rebuilt.stderr));
    assert!(dev.is_sound());
    // The next command runs as ever.
    assert_eq!(dev.through(&[], &["true"])["status"], "completed");
}

const RULES: &str = r#"
[[rule]]
name = "old-output"
after = "1s"
erase = ["output", "stdin"]
legal_basis = "retention-2026"
reason = "kept as long as we agreed"
"#;

#[test]
fn retention_proposes_and_two_people_confirm_each() {
    let dev = Dev::start();
    let [first, held] = ["one", "two"].map(|word| id(&dev.through(&[], &["echo", word])));
    change(&dev, &["hold", "place", "case-1", &held, "--reason", "r"]);
    let rules = dev.folder().path().join("rules.toml");
    fs::write(&rules, RULES).unwrap();
    let rules = rules.to_str().unwrap();
    std::thread::sleep(std::time::Duration::from_secs(1));
    let size = || {
        dev.sql("SELECT count(*) FROM entries WHERE position('change.requested' IN encode(entry, 'escape')) > 0")
    };
    let before = size();
    let proposed = dev.json("alice", 0, &["retention", "--rules", rules]);
    assert_eq!(size(), before, "it only shows");
    let items = proposed["items"].as_array().unwrap();
    assert_eq!(items.len(), 2, "{proposed}");
    for item in items {
        let is_held = item["command"] == held.as_str();
        assert_eq!(item["held"].as_str(), is_held.then_some("case-1"));
    }
    let asked = dev.json(
        "alice",
        0,
        &["retention", "--rules", rules, "--propose", "--yes"],
    );
    let items = asked["items"].as_array().unwrap();
    let changes: Vec<&Value> = items
        .iter()
        .flat_map(|item| item["changes"].as_array().unwrap())
        .collect();
    assert_eq!(changes.len(), 1, "{asked}");
    // What waits is not proposed again.
    let again = dev.json("alice", 0, &["retention", "--rules", rules]);
    assert_eq!(again["items"].as_array().unwrap().len(), 1);
    let agreed = dev.json("bob", 0, &["approve", &id(changes[0]), "--yes"]);
    assert_eq!(agreed["status"], "in_effect");
    let shown = dev.show(&first);
    assert_eq!(shown["redactions"][0]["legal_basis"], "retention-2026");
    assert!(dev.is_sound());
}
