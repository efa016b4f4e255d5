//! Who may, by the verbs: people come and leave, roles, groups, tokens, hosts, rules and reviews.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Dev, PROGRAM, text};

/// A change that somebody asked for comes into effect by a second administrator.
fn agree(dev: &Dev, who: &str, asked: &Value) {
    assert_eq!(asked["status"], "requested", "{asked}");
    let id = asked["id"].as_str().unwrap();
    let agreed = dev.json(who, 0, &["approve", id, "--yes"]);
    assert_eq!(agreed["status"], "in_effect");
}

/// alice asks, carol consents.
pub(crate) fn change(dev: &Dev, arguments: &[&str]) -> Value {
    let asked = dev.json("alice", 0, arguments);
    agree(dev, "carol", &asked);
    asked
}

/// A fresh key, where the verbs look for this person's.
fn keygen(dev: &Dev, name: &str) -> PathBuf {
    let file = dev.data().join("keys").join(name);
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"])
        .arg(&file)
        .status();
    assert!(made.unwrap().success());
    file
}

fn write(dev: &Dev, name: &str, text: &str) -> String {
    let file = dev.folder().path().join(name);
    fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

fn items(list: &Value) -> &Vec<Value> {
    list["items"].as_array().unwrap()
}

/// dave claims his key on his own machine, without a server.
pub(crate) fn claim(dev: &Dev) -> String {
    keygen(dev, "dave");
    let file = dev.folder().path().join("dave.claim");
    let file = file.to_str().unwrap().to_owned();
    let claimed = dev
        .command("dave", &["key", "claim", "dave", "-o", &file])
        .env_remove("COUNTERSIGN_SERVER")
        .output()
        .unwrap();
    assert!(claimed.status.success(), "{}", text(&claimed.stderr));
    assert!(text(&claimed.stderr).contains("SHA256:"));
    file
}

#[test]
fn a_person_comes_with_a_claim_and_leaves_with_everything() {
    let dev = Dev::start();
    let file = claim(&dev);
    // A claim is for one name.
    let wrong = dev.json("alice", 4, &["key", "add", "mallory", &file]);
    assert_eq!(wrong["error"]["code"], "key_claim");
    change(&dev, &["key", "add", "dave", &file, "--expires", "365d"]);
    let me = dev.json("dave", 0, &["whoami"]);
    assert_eq!(
        (&me["principal"], &me["roles"]),
        (&json!("dave"), &json!([]))
    );
    assert_eq!(me["keys"][0]["status"], "in_force");
    assert!(me["keys"][0]["expires_us"].as_u64().is_some());

    change(
        &dev,
        &["role", "define", "operator", "command:read", "agent:read"],
    );
    change(&dev, &["group", "add", "sre", "dave", "bob"]);
    change(&dev, &["role", "grant", "operator", "--to", "group:sre"]);
    change(&dev, &["role", "grant", "read", "--to", "dave"]);
    let token = [
        "token", "issue", "-r", "read", "--for", "dave", "--ttl", "1h", "--name", "daves",
    ];
    change(&dev, &token);
    let me = dev.json("dave", 0, &["whoami"]);
    assert_eq!(me["roles"], json!(["operator", "read"]));
    assert_eq!(me["groups"], json!(["sre"]));
    let roles = dev.json("dave", 0, &["role", "list"]);
    let operator = items(&roles)
        .iter()
        .find(|role| role["role"] == "operator")
        .unwrap();
    assert_eq!(operator["granted_to"], json!(["group:sre"]));
    let groups = dev.json("dave", 0, &["group", "list"]);
    assert_eq!(items(&groups)[0]["members"], json!(["bob", "dave"]));
    // Nobody makes themselves more.
    let more = dev.json("dave", 4, &["role", "grant", "admin", "--to", "dave"]);
    assert_eq!(more["error"]["code"], "not_permitted");
    let built_in = dev.json("alice", 4, &["role", "define", "admin", "command:read"]);
    assert_eq!(built_in["error"]["code"], "built_in_role");

    let left = dev.json("bob", 0, &["people", "leave", "dave"]);
    let changes: Vec<&str> = items(&left)
        .iter()
        .map(|item| item["change"].as_str().unwrap())
        .collect();
    let all = [
        "key.revoked",
        "token.revoked",
        "role.revoked",
        "group.changed",
    ];
    assert_eq!(changes, all);
    // Asked for again, the same changes wait, and none is asked for twice.
    let again = dev.json("bob", 0, &["people", "leave", "dave"]);
    assert_eq!(again, left);
    for item in items(&left) {
        agree(&dev, "carol", item);
    }
    let gone = dev.json("alice", 0, &["people", "show", "dave"]);
    assert_eq!(gone["keys"][0]["status"], "revoked");
    assert_eq!((&gone["roles"], &gone["groups"]), (&json!([]), &json!([])));
    let tokens = dev.json("alice", 0, &["token", "list"]);
    assert_eq!(items(&tokens)[0]["status"], "revoked");
    assert_eq!(dev.verb("dave", &["whoami"]).status.code(), Some(4));
    assert_eq!(
        items(&dev.json("alice", 0, &["people", "leave", "dave"])).len(),
        0
    );
    assert!(dev.is_sound());
}

#[test]
fn a_person_gets_a_new_key_and_lets_the_old_one_go() {
    let dev = Dev::start();
    let new = keygen(&dev, "alice-2");
    let rotated = dev.json("alice", 0, &["key", "rotate", new.to_str().unwrap()]);
    agree(&dev, "carol", &rotated);
    let keys = dev.json("alice", 0, &["key", "list"]);
    let mine: Vec<&Value> = items(&keys)
        .iter()
        .filter(|key| key["principal"] == "alice")
        .collect();
    assert_eq!(mine.len(), 2);
    // Which of the two is not to be guessed.
    let which = dev.verb("alice-2", &["key", "revoke", "alice"]);
    assert_eq!(which.status.code(), Some(2));
    let old = mine[0]["fingerprint"].as_str().unwrap();
    assert!(text(&which.stderr).contains(old));
    let revoked = dev.json("alice-2", 0, &["key", "revoke", old, "--suspect-from", "3"]);
    agree(&dev, "carol", &revoked);
    let keys = dev.json("alice-2", 0, &["key", "list"]);
    let old = items(&keys)
        .iter()
        .find(|key| key["fingerprint"] == old)
        .unwrap();
    assert_eq!(
        (&old["status"], &old["suspect_from"]),
        (&json!("revoked"), &json!(3))
    );
    assert_eq!(dev.verb("alice", &["whoami"]).status.code(), Some(4));
    // It holds, and a script sees that a part of it is under suspicion.
    let verdict = dev.json(
        "carol",
        6,
        &["verify", "--database", dev.env("DATABASE_URL")],
    );
    assert_eq!(
        (&verdict["ok"], &verdict["suspect"][0]["from"]),
        (&json!(true), &json!(3))
    );
    // Two administrators stay: of three, one key more cannot be taken together with another.
    change_of(&dev, &["key", "revoke", "bob"]);
    let last = dev.json("alice-2", 4, &["key", "revoke", "carol"]);
    assert_eq!(last["error"]["code"], "last_administrators");
}

/// As [`change`], by alice's second key.
fn change_of(dev: &Dev, arguments: &[&str]) {
    let asked = dev.json("alice-2", 0, arguments);
    agree(dev, "carol", &asked);
}

#[test]
fn a_token_is_shown_once_and_never_again() {
    let dev = Dev::start();
    let issue = [
        "token",
        "issue",
        "-p",
        "command:execute",
        "-p",
        "command:read",
        "--for",
        "ci@example.com",
        "--ttl",
        "90d",
        "--label",
        "env=test",
        "--command",
        "uptime",
        "--name",
        "ci",
    ];
    let issued = dev.json("alice", 0, &issue);
    let secret = issued["secret"].as_str().unwrap();
    let random = secret.strip_prefix("cst_ci_").unwrap();
    assert_eq!(random.len(), 43, "32 bytes as base64url");
    // Until a second administrator consents there is no such token.
    assert_eq!(items(&dev.json("bob", 0, &["token", "list"])).len(), 0);
    agree(&dev, "carol", &issued);
    let listed = dev.json("bob", 0, &["token", "list"]);
    let token = &items(&listed)[0];
    assert_eq!(token["status"], "in_force");
    assert_eq!(
        token["permissions"],
        json!(["command:execute", "command:read"])
    );
    assert_eq!(
        (&token["labels"], &token["commands"]),
        (&json!(["env=test"]), &json!(["uptime"]))
    );
    let id = issued["id"].as_str().unwrap();
    for shown in [
        listed.to_string(),
        dev.json("alice", 0, &["show", id]).to_string(),
        text(&dev.verb("alice", &["token", "list"]).stdout),
        dev.sql("SELECT string_agg(convert_from(content, 'UTF8'), ' ') FROM blobs"),
    ] {
        assert!(shown.contains("ci@example.com"), "{shown}");
        assert!(!shown.contains(random), "{shown}");
    }
    // For people the secret is alone on stdout, so that a script can take it.
    let plain = dev.verb(
        "alice",
        &["token", "issue", "-r", "read", "--for", "x", "--ttl", "1h"],
    );
    let out = text(&plain.stdout);
    assert!(out.starts_with("cst_token-") && out.lines().count() == 1);
    assert!(text(&plain.stderr).contains("only time"));

    for approves in ["command:approve", "rights:manage"] {
        let refused = dev.json(
            "alice",
            4,
            &[
                "token", "issue", "-p", approves, "--for", "x", "--ttl", "1h",
            ],
        );
        assert_eq!(refused["error"]["code"], "token_right");
    }
    change(&dev, &["token", "revoke", "ci"]);
    let listed = dev.json("bob", 0, &["token", "list"]);
    assert_eq!(items(&listed)[0]["status"], "revoked");
}

/// A second host that enrols; its fingerprint.
pub(crate) fn enrol(dev: &Dev, name: &str) -> String {
    enrol_from(dev, name, name)
}

/// A host whose files are in this folder, and which says that this is its name.
fn enrol_from(dev: &Dev, folder: &str, name: &str) -> String {
    let folder = dev.folder().path().join(folder);
    fs::create_dir(&folder).unwrap();
    let own = fs::read_to_string(dev.data().join("agent/agent.toml")).unwrap();
    let own = own.replace("name = \"local\"", &format!("name = {name:?}"));
    fs::write(folder.join("agent.toml"), own).unwrap();
    let signers = dev.data().join("agent/allowed_signers");
    fs::copy(signers, folder.join("allowed_signers")).unwrap();
    let output = Command::new(PROGRAM)
        .args(["agent", "--config"])
        .arg(folder.join("agent.toml"))
        .args(["enroll", "--json", "--no-wait"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let line = text(&output.stdout);
    let card: Value = serde_json::from_str(line.lines().next().unwrap()).unwrap();
    card["fingerprint"].as_str().unwrap().to_owned()
}

fn host(dev: &Dev, name: &str) -> Value {
    let agents = dev.json("alice", 0, &["agents"]);
    let mut items = items(&agents).iter();
    items
        .find(|item| item["agent"] == name)
        .cloned()
        .unwrap_or_default()
}

#[test]
fn another_host_does_not_get_the_name_of_one_that_there_is() {
    let dev = Dev::start();
    let first = enrol(&dev, "web-1");
    let accept = |fingerprint| ["agents", "accept", "web-1", "--fingerprint", fingerprint];
    change(&dev, &accept(&first));
    let second = enrol_from(&dev, "a-clone-of-web-1", "web-1");
    assert_ne!(first, second);
    let refused = dev.json("alice", 4, &accept(&second));
    assert_eq!(refused["error"]["code"], "agent_taken");
    let told = refused["error"]["hint"].as_str().unwrap_or_default();
    assert!(told.contains("another name"), "{refused}");
    // It is listed as one that waits, and the first one keeps its name and its work.
    let agents = dev.json("alice", 0, &["agents"]);
    let named = items(&agents)
        .iter()
        .filter(|item| item["agent"] == "web-1");
    let mut said: Vec<_> = named
        .map(|item| (&item["fingerprint"], &item["status"]))
        .map(|(key, status)| (key.as_str().unwrap(), status.as_str().unwrap()))
        .collect();
    said.sort_unstable();
    let mut wanted = [(first.as_str(), "accepted"), (second.as_str(), "enrolled")];
    wanted.sort_unstable();
    assert_eq!(said, wanted);
}

#[test]
fn hosts_are_labelled_drained_rejected_and_retired_by_two() {
    let dev = Dev::start();
    change(
        &dev,
        &["agents", "label", "local", "env=test", "group=web.eu"],
    );
    let more = [
        "agents", "label", "local", "env=prod", "--remove", "env=test",
    ];
    change(&dev, &more);
    assert_eq!(
        host(&dev, "local")["labels"],
        json!(["env=prod", "group=web.eu"])
    );
    let same = dev.json("alice", 4, &["agents", "label", "local", "env=prod"]);
    assert_eq!(same["error"]["code"], "nothing_changes");

    change(&dev, &["agents", "drain", "local", "--reason", "kernel"]);
    assert_eq!(host(&dev, "local")["drained"], true);
    let table = text(&dev.verb("alice", &["agents"]).stdout);
    assert!(table.contains("accepted, drained"), "{table}");
    let ask = ["request", "--on", "local", "--reason", "r", "--", "true"];
    assert_eq!(dev.json("alice", 4, &ask)["error"]["code"], "drained");
    change(&dev, &["agents", "undrain", "local"]);
    assert_eq!(dev.through(&[], &["true"])["status"], "completed");

    let fingerprint = enrol(&dev, "stranger");
    let reject = |shown| ["agents", "reject", "stranger", "--fingerprint", shown];
    let other = dev.json("alice", 4, &reject("SHA256:other"));
    assert_eq!(other["error"]["code"], "fingerprint");
    change(&dev, &reject(&fingerprint));
    assert_eq!(host(&dev, "stranger"), Value::Null);

    let fingerprint = enrol(&dev, "web-2");
    let accept = [
        "agents",
        "accept",
        "web-2",
        "--fingerprint",
        &fingerprint,
        "--label",
        "env=prod",
    ];
    change(&dev, &accept);
    assert_eq!(host(&dev, "web-2")["labels"], json!(["env=prod"]));
    change(&dev, &["agents", "retire", "web-2"]);
    assert_eq!(host(&dev, "web-2")["status"], "revoked");
    assert!(dev.is_sound());
}

#[test]
fn a_policy_is_checked_compared_explained_and_replayed_before_it_holds() {
    let dev = Dev::start();
    assert_eq!(dev.through(&[], &["true"])["status"], "completed");
    let bad = write(
        &dev,
        "bad.cedar",
        "@id(\"a\")\npermit (principal, action, resource;\n",
    );
    let checked = dev.json("alice", 2, &["policy", "check", &bad]);
    assert_eq!(checked["ok"], false);
    assert!(checked["problems"][0]["line"].as_u64().unwrap() > 0);
    let said = dev.verb("alice", &["policy", "check", &bad]);
    assert!(text(&said.stderr).contains("bad.cedar:"));
    let refused = dev.json("alice", 2, &["policy", "publish", &bad]);
    assert_eq!(refused["error"]["code"], "usage");

    let list = write(&dev, "list.toml", "allow = [\"uname\"]\n");
    let checked = Command::new(PROGRAM)
        .args(["--json", "policy", "check", &list])
        .env_clear()
        .output()
        .unwrap();
    assert!(checked.status.success(), "a check needs no server");
    let checked: Value = serde_json::from_slice(&checked.stdout).unwrap();
    assert_eq!(checked["ok"], true);
    let differs = dev.json("alice", 0, &["policy", "diff", &list]);
    assert!(
        items(&differs)
            .iter()
            .any(|rule| rule["change"] == "removed" && rule["rule"] == "dev")
    );
    assert_eq!(
        items(&dev.json("alice", 0, &["policy", "diff", &list, &list])).len(),
        0
    );

    let explain = |words: &[&str]| {
        let head = ["policy", "explain", "--as", "alice", "--on", "local"];
        dev.json("bob", 0, &[&head, words].concat())
    };
    let now = explain(&["--", "true"]);
    assert_eq!(now["permitted"], true);
    assert_eq!(now["price"]["approvers"], json!(["bob", "carol"]));
    assert_eq!(now["price"]["can_be_met"], true);
    assert_eq!(now["permits"][0]["rule"], "dev");
    let then = explain(&["--with", &list, "--", "true"]);
    assert_eq!(then["permitted"], false);
    assert_eq!(
        explain(&["--with", &list, "--", "uname"])["permitted"],
        true
    );
    let three = "@id(\"three\") @approvals(\"3\") @from(\"role:admin\")\npermit (principal, action == Action::\"command:execute\", resource);\n";
    let three = write(&dev, "three.cedar", three);
    let dear = explain(&["--with", &three, "--", "true"]);
    assert_eq!(
        dear["price"]["can_be_met"], false,
        "only two others are there"
    );

    let replayed = dev.json("alice", 0, &["policy", "replay", "--with", &list]);
    assert_eq!(
        (&replayed["requests"], items(&replayed).len()),
        (&json!(1), 1)
    );
    let found = &items(&replayed)[0];
    assert_eq!(found["argv"], json!(["true"]));
    assert!(found["before"]["permitted"].is_object());
    assert!(found["after"]["denied"].is_object());
    let later = dev.json(
        "alice",
        0,
        &["policy", "replay", "--with", &list, "--since", "2100-01-01"],
    );
    assert_eq!(later["requests"], 0);

    let before = dev.json("alice", 0, &["policy", "show"]);
    let asked = change(&dev, &["policy", "publish", &list, "--reason", "T-7"]);
    let shown = dev.json("bob", 0, &["policy", "show"]);
    assert!(shown["policy"].as_str().unwrap().contains("uname"));
    let at = asked["seq"].as_u64().unwrap().to_string();
    assert_eq!(dev.json("bob", 0, &["policy", "show", "--at", &at]), before);
    let ask = ["request", "--on", "local", "--reason", "r", "--", "true"];
    assert_eq!(dev.json("alice", 4, &ask)["error"]["code"], "not_permitted");
    let environment = dev
        .command("alice", &["--json", "policy", "publish"])
        .env("COUNTERSIGN_ALLOWED_COMMANDS", "ls, uname")
        .output()
        .unwrap();
    let asked: Value = serde_json::from_slice(&environment.stdout).unwrap();
    agree(&dev, "carol", &asked);
    assert_eq!(explain(&["--", "ls"])["permitted"], true);
}

#[test]
fn lists_of_changes_say_what_became_of_each_in_json_too() {
    let dev = Dev::start();
    change(&dev, &["group", "add", "sre", "bob"]);
    let waits = dev.json("alice", 0, &["group", "add", "sre", "carol"]);
    let statuses = |words: &[&str]| {
        let listed = dev.json("bob", 0, words);
        let of = |item: &Value| {
            assert_eq!(item["short"].as_str().unwrap().len(), "XXXX-XXXX".len());
            item["status"].as_str().unwrap().to_owned()
        };
        items(&listed).iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(statuses(&["changes"]), ["requested"]);
    let mut all = statuses(&["changes", "--all"]);
    let size = dev.sql("SELECT count(*) FROM entries");
    assert_eq!(statuses(&["at", &size, "changes", "--all"]), all);
    all.sort();
    all.dedup();
    assert_eq!(all, ["in_effect", "requested"]);
    let inbox = dev.json("bob", 0, &["inbox"]);
    assert_eq!(inbox["changes"][0]["id"], waits["id"]);
    assert_eq!(inbox["changes"][0]["status"], "requested");
}

pub(crate) const IN_AN_EMERGENCY: &str = "\
@id(\"usual\") @approvals(\"2\") @from(\"role:admin\")
permit (principal in Role::\"admin\", action == Action::\"command:execute\", resource);
@id(\"emergency\") @review_within(\"12h\")
permit (principal in Role::\"admin\", action == Action::\"command:break_glass\", resource);
";

#[test]
fn broken_glass_stays_on_every_page_until_somebody_else_has_looked() {
    let dev = Dev::start();
    let glass = [
        "request",
        "--on",
        "local",
        "--reason",
        "r",
        "--break-glass",
        "--yes",
        "--",
        "true",
    ];
    // Without a rule for it nothing is signed.
    let refused = dev.json("alice", 4, &glass);
    assert_eq!(refused["error"]["code"], "not_permitted");
    assert_eq!(items(&dev.json("alice", 0, &["list"])).len(), 0);
    let file = write(&dev, "glass.cedar", IN_AN_EMERGENCY);
    change(&dev, &["policy", "publish", &file]);
    let unasked: Vec<&str> = glass.into_iter().filter(|word| *word != "--yes").collect();
    assert_eq!(dev.verb("alice", &unasked).status.code(), Some(2));

    assert!(!text(&dev.verb("bob", &["list"]).stderr).contains("review"));
    let asked = dev.json("alice", 0, &glass);
    let id = asked["id"].as_str().unwrap();
    let open = dev.json("bob", 0, &["reviews"]);
    let review = &items(&open)[0];
    assert_eq!(
        (&review["id"], &review["requester"], &review["argv"]),
        (&asked["id"], &json!("alice"), &json!(["true"]))
    );
    assert_eq!(review["overdue"], false);
    for page in [&["list"][..], &["inbox"], &["show", id], &["whoami"]] {
        let said = text(&dev.verb("bob", page).stderr);
        assert!(
            said.contains("1 run without approvals waits for review"),
            "{page:?}: {said}"
        );
    }
    let me = dev.json("alice", 0, &["whoami"]);
    assert_eq!(me["reviews"][0]["id"], asked["id"]);

    let close = ["review", id, "--reason", "looked at it", "--yes"];
    let own = dev.json("alice", 4, &close);
    assert_eq!(own["error"]["code"], "own_review");
    assert_eq!(dev.verb("bob", &close[..4]).status.code(), Some(2));
    assert_eq!(dev.json("bob", 0, &close)["status"], "reviewed");
    assert_eq!(items(&dev.json("bob", 0, &["reviews"])).len(), 0);
    let again = dev.json("carol", 4, &close);
    assert_eq!(again["error"]["code"], "unknown_review");
    assert!(dev.is_sound());
}

#[test]
fn a_policy_snapshot_is_made_by_one_administrator_and_joined_by_another() {
    let dev = Dev::start();
    let sign = |who: &str, more: &[&str]| {
        let words = [&["policy", "snapshot", "--yes"], more].concat();
        dev.json(who, 0, &words)
    };
    let made = sign("alice", &["--valid", "12h", "--min-approvals", "3"]);
    assert_eq!(made["status"], "waits", "{made}");
    assert_eq!(made["signed_by"], json!(["alice"]));
    assert_eq!(made["missing"], json!(["bob", "carol"]));
    assert_eq!(
        (&made["needed"], &made["min_approvals"]),
        (&json!(2), &json!(3))
    );
    // Once is enough, for a timer too.
    let again = sign("alice", &["--valid", "12h"]);
    assert_eq!(again["document"], made["document"]);
    assert_eq!(again.get("seq"), None);
    let joined = sign("bob", &[]);
    assert_eq!(joined["status"], "in_force", "{joined}");
    assert_eq!(joined["document"], made["document"]);
    assert_eq!(joined["signed_by"], json!(["alice", "bob"]));
    // What changes between is not signed as it was.
    let other = dev.json(
        "carol",
        4,
        &["policy", "snapshot", "--yes", "--min-approvals", "2"],
    );
    assert!(other.to_string().contains("snapshot_differs"), "{other}");
    change(&dev, &["group", "add", "sre", "bob"]);
    let stale = dev.json("carol", 4, &["policy", "snapshot", "--yes"]);
    assert!(stale.to_string().contains("group:sre"), "{stale}");
    let anew = sign("carol", &["--new"]);
    assert_eq!(anew["status"], "waits", "{anew}");
    assert_ne!(anew["document"], made["document"]);
    assert_eq!(anew["min_approvals"], 3);
    assert_eq!(sign("alice", &[])["status"], "in_force");
    assert!(dev.is_sound());
}
