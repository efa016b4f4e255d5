//! Policy snapshots: a host that pins administrators takes approvers from what they have signed, and
//! runs nothing without. A real server, a real agent, the keys of real administrators.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::outages::behind_a_proxy;
use crate::proxy::Shown;
use crate::rules::{check, configure};
use crate::support::{Dev, PROGRAM, text};

/// Two of a group approve what any administrator asks for.
const BY_SRE: &str = "\
@id(\"sre\") @approvals(\"2\") @from(\"group:sre\")
permit (principal in Role::\"admin\", action == Action::\"command:execute\", resource);
";

/// How long a snapshot holds that is waited for: it is signed twice and used in that time.
const SHORT: Duration = Duration::from_secs(30);

/// alice asks for a change and carol consents.
fn change(dev: &Dev, arguments: &[&str]) {
    let asked = dev.json("alice", 0, arguments);
    let agreed = dev.json(
        "carol",
        0,
        &["approve", asked["id"].as_str().unwrap(), "--yes"],
    );
    assert_eq!(agreed["status"], "in_effect");
}

/// The ledger's rules ask for two of the group `sre`, which bob and carol are in; the host knows
/// only alice's key, and takes snapshots of two of `administrators`.
fn prepare(dev: &Dev, administrators: &[&str]) {
    let policy = dev.folder().path().join("sre.cedar");
    fs::write(&policy, BY_SRE).unwrap();
    change(dev, &["group", "add", "sre", "bob", "carol"]);
    change(dev, &["policy", "publish", policy.to_str().unwrap()]);
    let host = dev.data().join("agent");
    let everybody = fs::read_to_string(host.join("allowed_signers")).unwrap();
    let lines_of = |people: &[&str]| {
        let own = |line: &&str| {
            people
                .iter()
                .any(|who| line.starts_with(&format!("{who} ")))
        };
        let lines: Vec<&str> = everybody.lines().filter(own).collect();
        assert_eq!(lines.len(), people.len(), "{everybody}");
        lines.join("\n") + "\n"
    };
    fs::write(host.join("administrators"), lines_of(administrators)).unwrap();
    fs::write(host.join("allowed_signers"), lines_of(&["alice"])).unwrap();
    configure(dev, |own| {
        format!("{own}\n[snapshot]\nadministrators = \"administrators\"\n")
    });
}

/// Another agent process by the same file.
fn restart(dev: &Dev) {
    configure(dev, str::to_owned);
}

/// An administrator signs a snapshot: how it is then.
fn sign(dev: &Dev, who: &str, more: &[&str]) -> Value {
    let words = [&["policy", "snapshot", "--yes"], more].concat();
    dev.json(who, 0, &words)["status"].clone()
}

/// Two of them sign a new one.
fn renew(dev: &Dev, more: &[&str]) {
    assert_eq!(sign(dev, "alice", &[&["--new"], more].concat()), "waits");
    assert_eq!(sign(dev, "bob", &[]), "in_force");
}

/// A command that is properly approved ends as the host decides: its status and what people read.
fn told(dev: &Dev, id: &str) -> (Value, String) {
    let status = dev.ended(id)["status"].clone();
    let shown = text(&dev.verb("alice", &["show", id]).stdout);
    (status, shown)
}

fn runs(dev: &Dev) {
    let id = dev.request(&[], &["true"]);
    dev.approve(&id);
    let (status, shown) = told(dev, &id);
    assert_eq!(status, json!("completed"), "{shown}");
}

/// The host will not, and says this.
fn refuses(dev: &Dev, words: &str) {
    let id = dev.request(&[], &["true"]);
    dev.approve(&id);
    let (status, shown) = told(dev, &id);
    assert_eq!(status, json!("refused"), "{shown}");
    assert!(shown.contains("its rule or setting snapshot"), "{shown}");
    assert!(shown.contains(words), "{words}: {shown}");
}

/// What `check` says of a command that the rules allow, and the same for a script.
fn checked(dev: &Dev, code: i32) -> (String, Value) {
    let (human, said) = check(dev, &[], &["true"]);
    let (json, object) = check(dev, &["--json"], &["true"]);
    assert_eq!((human, json), (code, code), "{said}");
    (said, serde_json::from_str(&object).unwrap())
}

/// `check-config --json`: its code and its one object.
fn checked_config(dev: &Dev) -> (Option<i32>, Value) {
    let output = Command::new(PROGRAM)
        .args(["agent", "--config"])
        .arg(dev.data().join("agent/agent.toml"))
        .args(["check-config", "--json"])
        .output()
        .unwrap();
    let object = serde_json::from_slice(&output.stdout).unwrap();
    (output.status.code(), object)
}

#[test]
fn a_host_runs_what_its_administrators_approvers_allow_once_enough_of_them_have_signed() {
    let dev = Dev::start();
    prepare(&dev, &["bob", "carol"]);
    refuses(&dev, "this host was never shown one");
    let (said, object) = checked(&dev, 4);
    assert!(
        said.starts_with("refused by snapshot: no policy snapshot holds on this host: this host was never shown one;"),
        "{said}"
    );
    assert_eq!(object["snapshot"]["held"], json!(false));
    // Two have signed for the ledger, and one of them counts on this host.
    assert_eq!(sign(&dev, "alice", &[]), "waits");
    refuses(&dev, "0 of 2 pinned administrators have signed it");
    assert_eq!(sign(&dev, "bob", &[]), "in_force");
    refuses(&dev, "1 of 2 pinned administrators have signed it");
    assert_eq!(sign(&dev, "carol", &[]), "in_force");
    runs(&dev);
    let (said, object) = checked(&dev, 0);
    assert!(said.contains("\nsnapshot: holds until "), "{said}");
    let signed = object["snapshot"]["signed_by"].as_array().unwrap();
    let signed: Vec<&Value> = signed.iter().map(|word| &word["principal"]).collect();
    assert_eq!(signed, [&json!("bob"), &json!("carol")]);
    let (code, config) = checked_config(&dev);
    assert_eq!((code, &config["warnings"]), (Some(0), &json!([])));
    assert_eq!(
        config["snapshot"],
        json!({ "administrators": ["bob", "carol"], "threshold": 2, "max_age_s": 86_400 })
    );
    // Without the snapshot the same two approvers are strangers to the host.
    configure(&dev, |own| {
        own.split("\n[snapshot]").next().unwrap().to_owned()
    });
    let shown = dev.through(&[], &["true"]);
    assert_eq!(shown["status"], json!("refused"));
    // A mistake is told in the same form.
    let config = dev.data().join("agent/agent.toml");
    let own = fs::read_to_string(&config).unwrap();
    fs::write(&config, own + "\n[snapshot]\nthreshold = 2\n").unwrap();
    let (code, config) = checked_config(&dev);
    assert_eq!((code, &config["ok"]), (Some(2), &json!(false)));
    let problem = config["problem"].as_str().unwrap();
    assert!(problem.contains("no administrators"), "{problem}");
    assert!(dev.is_sound());
}

#[test]
fn a_snapshot_that_is_over_stops_the_host_until_another_one_is_signed() {
    let dev = Dev::start();
    prepare(&dev, &["alice", "bob", "carol"]);
    // All that takes time but the signatures comes before.
    let id = dev.request(&[], &["true"]);
    dev.json("bob", 0, &["approve", &id, "--yes"]);
    let begun = Instant::now();
    let valid = format!("{}s", SHORT.as_secs());
    renew(&dev, &["--valid", &valid]);
    dev.json("carol", 0, &["approve", &id, "--yes"]);
    let (status, shown) = told(&dev, &id);
    assert_eq!(status, json!("completed"), "{shown}");
    thread::sleep(SHORT.saturating_sub(begun.elapsed()) + Duration::from_secs(1));
    refuses(&dev, "its time is over by this host's clock");
    let (said, object) = checked(&dev, 4);
    assert!(
        said.contains("its time is over by this host's clock"),
        "{said}"
    );
    assert_eq!(
        (&object["snapshot"]["held"], &object["snapshot"]["holds"]),
        (&json!(true), &json!(false))
    );
    renew(&dev, &[]);
    runs(&dev);
}

#[test]
fn a_host_keeps_its_snapshot_over_a_restart_and_takes_no_older_one_in_its_place() {
    let (dev, proxy) = behind_a_proxy();
    let show = |what| *proxy.wire.shown.lock().unwrap() = what;
    prepare(&dev, &["alice", "bob", "carol"]);
    renew(&dev, &[]);
    runs(&dev);
    let older = proxy.wire.sent.lock().unwrap().clone().unwrap();
    // Nobody shows it one any more, and it has been started anew.
    show(Shown::Nothing);
    restart(&dev);
    runs(&dev);
    show(Shown::Newest);
    renew(&dev, &["--min-approvals", "3"]);
    refuses(&dev, "2 of 3 approvals count");
    show(Shown::Other(older));
    restart(&dev);
    refuses(&dev, "2 of 3 approvals count");
    // Whoever has forgotten the newer one would take it.
    fs::remove_file(dev.data().join("agent/state/snapshot")).unwrap();
    restart(&dev);
    runs(&dev);
}

#[test]
fn nobody_lowers_what_hosts_ask_for_by_a_draft_that_others_join_unread() {
    let dev = Dev::start();
    assert_eq!(sign(&dev, "alice", &["--min-approvals", "2"]), "waits");
    assert_eq!(sign(&dev, "bob", &[]), "in_force");
    let fewer = ["--new", "--min-approvals", "1"];
    assert_eq!(sign(&dev, "alice", &fewer), "waits");
    let joined = dev.verb("bob", &["policy", "snapshot", "--yes"]);
    let said = text(&joined.stderr);
    assert_eq!(joined.status.code(), Some(4), "{said}");
    assert!(said.contains("1 approvals at least, not 2"), "{said}");
    // Who means it says it.
    assert_eq!(sign(&dev, "bob", &["--min-approvals", "1"]), "in_force");
}
