//! Hosts by choice: what is signed is a list of names, shown and counted before.

use std::fs;

use serde_json::{Value, json};

use crate::rights::{change, enrol};
use crate::support::{Dev, text};

fn join(dev: &Dev, name: &str, label: &str) {
    let fingerprint = enrol(dev, name);
    let accept = ["agents", "accept", name, "--fingerprint", &fingerprint];
    change(dev, &[&accept[..], &["--label", label]].concat());
}

fn ask<'a>(hosts: &[&'a str]) -> Vec<&'a str> {
    let (head, tail) = (["request", "--reason", "a test"], ["--", "true"]);
    [&head[..], hosts, &tail[..]].concat()
}

/// Where a request that alice signs shall run.
fn targets(dev: &Dev, hosts: &[&str]) -> Value {
    let asked = dev.json("alice", 0, &ask(hosts));
    dev.show(asked["id"].as_str().unwrap())["request"]["targets"].clone()
}

#[test]
fn hosts_are_chosen_by_label_and_name_and_the_names_are_what_is_signed() {
    let dev = Dev::start();
    join(&dev, "web-1", "group=web.dev");
    join(&dev, "web-2", "group=web");
    let choice = |text: &str| targets(&dev, &["--where", text]);
    assert_eq!(choice("group=web"), json!(["web-1", "web-2"]));
    assert_eq!(choice("group=web.dev or local"), json!(["local", "web-1"]));
    assert_eq!(choice("not web-*"), json!(["local"]));
    let one = targets(&dev, &["--where", "group=web", "--one"]);
    assert!([json!(["web-1"]), json!(["web-2"])].contains(&one), "{one}");

    let entries = || {
        dev.sql(
            "SELECT count(*) FROM entries JOIN statements USING (seq) WHERE stream = statement_id",
        )
    };
    let before = entries();
    let none = dev.json("alice", 1, &ask(&["--where", "group=db"]));
    assert_eq!(none["error"]["code"], "no_host");
    // Nobody can be asked here, and a count that is not the right one is none.
    for hosts in [&["--all"][..], &["--all", "--yes-all", "2"], &[]] {
        let said = dev.verb("alice", &ask(hosts));
        assert_eq!(
            said.status.code(),
            Some(2),
            "{hosts:?}: {}",
            text(&said.stderr)
        );
    }
    assert_eq!(entries(), before, "something was signed");
    let all = targets(&dev, &["--all", "--yes-all", "3"]);
    assert_eq!(all, json!(["local", "web-1", "web-2"]));

    change(&dev, &["agents", "drain", "web-2"]);
    let said = dev.verb("alice", &ask(&["--where", "group=web"]));
    assert!(said.status.success());
    let told = text(&said.stderr);
    assert!(told.contains("1 host: web-1"), "{told}");
    assert!(told.contains("left out, drained: web-2"), "{told}");
}

#[test]
fn the_policy_says_above_how_many_hosts_their_number_is_typed() {
    let dev = Dev::start();
    join(&dev, "web-1", "group=web");
    let two = ["--on", "local,web-1"];
    assert_eq!(
        targets(&dev, &two),
        json!(["local", "web-1"]),
        "20 are not asked for"
    );
    let rule = r#"@id("careful") @approvals("1") @count_above("1")
        permit (principal, action == Action::"command:execute", resource);"#;
    let path = dev.folder().path().join("careful.cedar");
    fs::write(&path, rule).unwrap();
    change(&dev, &["policy", "set", path.to_str().unwrap()]);
    let said = dev.verb("alice", &ask(&two));
    assert_eq!(said.status.code(), Some(2), "{}", text(&said.stderr));
    let told = text(&said.stderr);
    assert!(told.contains("2 hosts: local, web-1"), "{told}");
    assert!(told.contains("--yes-all"), "{told}");
    let counted = [&two[..], &["--yes-all", "2"]].concat();
    assert_eq!(targets(&dev, &counted), json!(["local", "web-1"]));
    assert_eq!(targets(&dev, &["--on", "local"]), json!(["local"]));
}
