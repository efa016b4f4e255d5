//! Policies: the ledger's own rules, published by two people and read by nobody but the judge.

use std::fs;

use serde_json::json;

use crate::cedar;
use crate::support::Dev;

/// Writes a policy beside the data and gives its path.
fn file(dev: &Dev, name: &str, text: &str) -> String {
    let path = dev.folder().path().join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_published_policy_says_who_asks_who_approves_and_how_many_it_takes() {
    let dev = Dev::start();
    let before = dev.request(&[], &["true"]);
    dev.json("bob", 0, &["approve", &before, "--yes"]);
    let rules = cedar::names(1, &["alice"], &["bob"]);
    let path = file(&dev, "names.cedar", rules.text());
    let asked = dev.json("alice", 0, &["policy", "set", &path]);
    assert_eq!(asked["status"], "requested", "one person changes no rule");
    let id = asked["id"].as_str().unwrap();
    // Whoever consents reads the text itself.
    let shown = dev.verb("carol", &["show", id]);
    let shown = crate::support::text(&shown.stdout);
    assert!(shown.contains(r#"@from("user:bob")"#), "{shown}");
    let consent = dev.json("carol", 0, &["approve", id, "--yes"]);
    assert_eq!(consent["status"], "in_effect");

    let not_named = dev.json(
        "carol",
        4,
        &["request", "--on", "local", "--reason", "x", "--", "true"],
    );
    assert_eq!(not_named["error"]["code"], "not_permitted");
    // What was asked for before is judged by the new rules, and an approval of the old ones is none.
    for id in [before, dev.request(&[], &["true"])] {
        let no_seat = dev.json("carol", 4, &["approve", &id, "--yes"]);
        assert_eq!(no_seat["error"]["code"], "not_permitted");
        let own = dev.json("alice", 4, &["approve", &id, "--yes"]);
        assert_eq!(own["error"]["code"], "own_request");
        let approved = dev.json("bob", 0, &["approve", &id, "--yes"]);
        assert_eq!(approved["status"], "authorized");
        // The host wants two all the same: the stricter of both wins.
        assert_eq!(dev.ended(&id)["status"], json!("refused"));
    }
    assert!(dev.is_sound());
}

#[test]
fn a_policy_that_makes_no_sense_cannot_be_asked_for() {
    let dev = Dev::shared();
    let changes = || dev.json("bob", 0, &["inbox"])["changes"].clone();
    let waiting = changes();
    for (name, text) in [
        ("cut.cedar", "permit (principal, action"),
        (
            "unknown.cedar",
            "permit (principal, action == Action::\"command:execute\", resource) when { resource.colour == \"red\" };",
        ),
        (
            "free.cedar",
            "@approvals(\"0\") permit (principal, action == Action::\"command:execute\", resource);",
        ),
    ] {
        let path = file(&dev, name, text);
        // The client reads it first: nothing was signed. The server would say the same.
        let said = dev.json("alice", 2, &["policy", "set", &path]);
        let message = said["error"]["message"].as_str().unwrap();
        assert!(message.contains("policy"), "{name}: {message}");
    }
    assert_eq!(changes(), waiting);
}
