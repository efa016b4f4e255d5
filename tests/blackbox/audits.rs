//! The past and its questions: `at` beside what the live verbs said then, and `audit`.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Dev, text};

const RULES: &str = "\
@id(\"sre-asks\") @approvals(\"2\") @from(\"role:admin\")
permit (principal in Group::\"sre\", action == Action::\"command:execute\", resource);
@id(\"usual\") @approvals(\"2\") @from(\"role:admin\")
permit (principal in Role::\"admin\", action == Action::\"command:execute\", resource);
@id(\"emergency\") @review_within(\"12h\")
permit (principal in Role::\"admin\", action == Action::\"command:break_glass\", resource);
";

fn items(list: &Value) -> &Vec<Value> {
    list["items"].as_array().unwrap()
}

fn id(shown: &Value) -> String {
    shown["id"].as_str().unwrap().to_owned()
}

fn file(dev: &Dev, name: &str, text: &str) -> String {
    let path = dev.folder().path().join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// alice asks for a change, carol consents.
fn change(dev: &Dev, arguments: &[&str]) -> Value {
    let asked = dev.json("alice", 0, arguments);
    let agreed = dev.json("carol", 0, &["approve", &id(&asked), "--yes"]);
    assert_eq!(agreed["status"], "in_effect");
    asked
}

fn size(dev: &Dev) -> u64 {
    dev.sql("SELECT count(*) FROM entries").parse().unwrap()
}

/// The questions that both the live verbs and `at` answer: what is asked live, and of the past.
fn questions(ids: &[String]) -> Vec<(&'static str, Vec<String>, Vec<String>)> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let mut all = vec![
        ("alice", words(&["list"]), words(&["list"])),
        (
            "alice",
            words(&["list", "--limit", "2"]),
            words(&["list", "--limit", "2"]),
        ),
        (
            "alice",
            words(&["list", "--status", "completed"]),
            words(&["list", "--status", "completed"]),
        ),
        ("bob", words(&["inbox"]), words(&["inbox"])),
        (
            "carol",
            words(&["inbox"]),
            words(&["inbox", "--for", "carol"]),
        ),
        ("alice", words(&["agents"]), words(&["agents"])),
        ("alice", words(&["policy", "show"]), words(&["policy"])),
        (
            "alice",
            words(&["changes", "--all"]),
            words(&["changes", "--all"]),
        ),
    ];
    for id in ids {
        all.push(("alice", words(&["show", id]), words(&["show", id])));
    }
    all
}

fn answers(dev: &Dev, ids: &[String]) -> Vec<Value> {
    let ask = |(who, words, _): (&'static str, Vec<String>, Vec<String>)| {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        of_the_log(dev.json(who, 0, &words))
    };
    questions(ids).into_iter().map(ask).collect()
}

/// Without what a server saw with its own eyes: who is connected stands in no log.
fn of_the_log(mut answer: Value) -> Value {
    let items = answer.get_mut("items").and_then(Value::as_array_mut);
    for item in items.into_iter().flatten().filter_map(Value::as_object_mut) {
        item.remove("presence");
    }
    answer
}

/// A size of the log, and what the live verbs said of it.
type Said = (u64, Vec<Value>);

/// What the live verbs say, all of it of one size of the log: reading may itself be an entry.
fn said(dev: &Dev, ids: &[String]) -> Said {
    for _try in 0..20 {
        let before = size(dev);
        let answers = answers(dev, ids);
        if size(dev) == before {
            return (before, answers);
        }
    }
    unreachable!("the log never stands still")
}

#[test]
fn what_the_verbs_said_at_a_size_is_what_the_log_says_of_it_later() {
    let dev = Dev::start();
    let mut told: Vec<(Vec<String>, Said)> = Vec::new();
    let mut ids: Vec<String> = Vec::new();
    let mut keep = |ids: &[String]| told.push((ids.to_vec(), said(&dev, ids)));
    keep(&ids);
    ids.push(dev.request(&[], &["echo", "one"]));
    keep(&ids);
    dev.json("bob", 0, &["approve", &ids[0], "--yes", "--reason", "fine"]);
    keep(&ids);
    let path = file(&dev, "rules.cedar", RULES);
    let asked = dev.json("alice", 0, &["policy", "publish", &path]);
    keep(&ids);
    // The approval of the old rules counts no more: the command waits for bob again.
    dev.json("carol", 0, &["approve", &id(&asked), "--yes"]);
    keep(&ids);
    dev.approve(&ids[0]);
    assert_eq!(dev.ended(&ids[0])["status"], "completed");
    ids.push(dev.request(&[], &["false"]));
    dev.json("bob", 0, &["reject", &ids[1], "--reason", "no", "--yes"]);
    ids.push(dev.request(&["--break-glass", "--yes"], &["true"]));
    dev.ended(&ids[2]);
    keep(&ids);
    change(&dev, &["agents", "drain", "local"]);
    change(&dev, &["agents", "label", "local", "env=test"]);
    keep(&ids);

    let sizes: Vec<u64> = told.iter().map(|(_, (size, _))| *size).collect();
    assert!(
        sizes.is_sorted() && sizes.first() < sizes.last(),
        "{sizes:?}"
    );
    for (ids, (size, answers)) in &told {
        let point = size.to_string();
        for ((who, live, past), answer) in questions(ids).into_iter().zip(answers) {
            let words: Vec<&str> = past.iter().map(String::as_str).collect();
            for way in [&["at"][..], &["at", "--whole"]] {
                let found = dev.json(who, 0, &[way, &[point.as_str()], &words[..]].concat());
                assert_eq!(&found, answer, "{way:?} {size}: {live:?}");
            }
        }
    }

    // A time is as good as a number: the last entry that is not younger.
    let (ids, (size, answers)) = &told[3];
    let lines = text(&dev.verb("alice", &["log", "--json"]).stdout);
    let line: Value = serde_json::from_str(
        lines
            .lines()
            .nth(usize::try_from(size - 1).unwrap())
            .unwrap(),
    )
    .unwrap();
    let micros = line["time_us"].as_u64().unwrap();
    let stamp = dev.sql(&format!(
        "SELECT to_char((timestamptz 'epoch' + interval '1 microsecond' * {micros}) AT TIME ZONE 'UTC', \
         'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
    ));
    for ((who, _, past), answer) in questions(ids).into_iter().zip(answers) {
        let words: Vec<&str> = past.iter().map(String::as_str).collect();
        assert_eq!(
            &dev.json(who, 0, &[&["at", stamp.as_str()], &words[..]].concat()),
            answer
        );
    }
    let human = dev.verb("alice", &["at", &size.to_string(), "list"]);
    let note = format!("as of entry {} ({size} entries)", size - 1);
    assert!(
        text(&human.stderr).contains(&note),
        "{}",
        text(&human.stderr)
    );

    let later = &told[5].0[2];
    assert_eq!(
        dev.json("alice", 1, &["at", &size.to_string(), "show", later])["error"]["code"],
        "unknown_command"
    );
    for nowhere in ["0", "1000000", "1970-01-02"] {
        dev.json("alice", 2, &["at", nowhere, "list"]);
    }
}

/// A key of dave's, claimed and added; he is in a group that a role is granted to.
fn dave_comes(dev: &Dev) {
    let key = dev.data().join("keys/dave");
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&key)
        .status();
    assert!(made.unwrap().success());
    let claim = dev.folder().path().join("dave.claim");
    let claim = claim.to_str().unwrap();
    let claimed = dev.verb("dave", &["key", "claim", "dave", "-o", claim]);
    assert!(claimed.status.success(), "{}", text(&claimed.stderr));
    change(dev, &["key", "add", "dave", claim]);
    change(
        dev,
        &["role", "define", "asker", "command:execute", "command:read"],
    );
    change(dev, &["group", "add", "sre", "dave"]);
    change(dev, &["role", "grant", "asker", "--to", "group:sre"]);
}

/// How often each kind stands among rows.
fn kinds(rows: &[Value]) -> BTreeMap<&str, usize> {
    let mut kinds = BTreeMap::new();
    for row in rows {
        *kinds.entry(row["kind"].as_str().unwrap()).or_default() += 1;
    }
    kinds
}

#[test]
fn an_auditor_gets_each_question_answered_in_one_call() {
    let dev = Dev::start();
    dave_comes(&dev);
    let path = file(&dev, "rules.cedar", RULES);
    change(&dev, &["policy", "publish", &path]);
    let ask = [
        "request", "--on", "local", "--reason", "T-7", "--", "echo", "=1+1", "a,b",
    ];
    let asked = id(&dev.json("dave", 0, &ask));
    dev.json(
        "bob",
        0,
        &["approve", &asked, "--yes", "--reason", "looks right"],
    );
    dev.json("carol", 0, &["approve", &asked, "--yes"]);
    assert_eq!(dev.ended(&asked)["status"], "completed");
    let fails = id(&dev.through(&["--shell"], &["echo the disk is full >&2; exit 3"]));
    let glass = dev.request(&["--break-glass", "--yes"], &["true"]);
    let unseen = dev.request(&["--break-glass", "--yes"], &["true"]);
    dev.json("bob", 0, &["review", &glass, "--reason", "looked", "--yes"]);

    // Nobody who may not read the log gets an answer.
    assert_eq!(
        dev.json("dave", 4, &["audit", "suspect"])["error"]["code"],
        "not_permitted"
    );
    assert_eq!(
        dev.json("dave", 4, &["at", "3", "list"])["error"]["code"],
        "not_permitted"
    );

    led_to(&dev, &asked);
    ran(&dev, &asked, &fails);
    person(&dev, &asked);
    let open = dev.json("alice", 0, &["audit", "break-glass", "--without-review"]);
    assert_eq!(items(&open).len(), 1, "{open}");
    assert_eq!(
        (&items(&open)[0]["id"], &items(&open)[0]["review"]),
        (&json!(unseen), &json!("open"))
    );
    let all = dev.json("alice", 0, &["audit", "break-glass"]);
    let whole = dev.json("alice", 0, &["audit", "break-glass", "--whole"]);
    assert_eq!(all["items"], whole["items"]);
    let closed = &items(&all)[0];
    assert_eq!(
        (&closed["id"], &closed["reviewed_by"], &closed["found"]),
        (&json!(glass), &json!("bob"), &json!("looked"))
    );
    searches(&dev, &asked, &fails);
    lies_in_the_lists(&dev, &fails);
    suspect_keys(&dev, &asked);
    // All of it holds, and a script sees that a part of it is under suspicion.
    let verdict = dev.json(
        "alice",
        6,
        &["verify", "--database", dev.env("DATABASE_URL")],
    );
    assert_eq!(verdict["ok"], true);
}

/// Rights, rules with their text, request, approvals with reasons, start and end.
fn led_to(dev: &Dev, asked: &str) {
    let why = dev.json("alice", 0, &["audit", "why", asked]);
    let whole = dev.json("alice", 0, &["audit", "why", asked, "--whole"]);
    for part in ["entries", "rules", "policy", "requirement", "command"] {
        assert_eq!(why[part], whole[part], "{part}");
    }
    assert_eq!(why["command"]["id"], asked);
    assert_eq!(why["rules"][0]["id"], "sre-asks");
    let rule = why["rules"][0]["text"].as_str().unwrap();
    assert!(rule.contains("Group::\"sre\""), "{rule}");
    let rows = why["entries"].as_array().unwrap();
    let kinds = kinds(rows);
    for (kind, times) in [
        ("ledger.genesis", 1),
        ("key.added", 1),
        ("role.defined", 1),
        ("role.granted", 1),
        ("group.changed", 1),
        ("policy.published", 1),
        ("agent.accepted", 1),
        ("command.requested", 1),
        ("command.approved", 2),
        ("command.authorized", 1),
        ("execution.started", 1),
        ("execution.completed", 1),
    ] {
        assert_eq!(kinds.get(kind), Some(&times), "{kind}: {kinds:?}");
    }
    let of = |kind: &str| rows.iter().find(|row| row["kind"] == kind).unwrap();
    assert_eq!(of("group.changed")["gives"], json!(["dave"]));
    assert_eq!(of("ledger.genesis")["gives"], json!(["bob", "carol"]));
    assert_eq!(of("agent.accepted")["gives"], json!(["local"]));
    let agreed = of("key.added")["agreed"].to_string();
    assert!(
        agreed.contains("alice (") && agreed.contains("carol ("),
        "{agreed}"
    );
    let approved = of("command.approved")["detail"].as_str().unwrap();
    assert_eq!(approved, "counted; reason: looks right");
    let requested = of("command.requested");
    assert!(
        requested["detail"]
            .as_str()
            .unwrap()
            .contains("reason: T-7")
    );
    assert!(
        requested["fingerprint"]
            .as_str()
            .unwrap()
            .starts_with("SHA256:")
    );
    let seqs: Vec<u64> = rows
        .iter()
        .map(|row| row["seq"].as_u64().unwrap())
        .collect();
    assert!(seqs.is_sorted());
    let told = text(&dev.verb("alice", &["audit", "why", asked]).stdout);
    assert!(
        told.contains("rule sre-asks") && told.contains("looks right"),
        "{told}"
    );
}

/// What ran, page by page, by account and time, and as CSV.
fn ran(dev: &Dev, asked: &str, fails: &str) {
    let of_host = ["audit", "ran", "--host", "local"];
    let with = |more: &[&str]| dev.json("alice", 0, &[&of_host, more].concat());
    let all = with(&[]);
    assert_eq!(items(&all).len(), 2, "{all}");
    assert_eq!(all["items"], with(&["--whole"])["items"]);
    assert_eq!(
        (&items(&all)[0]["id"], &items(&all)[1]["exit_code"]),
        (&json!(asked), &json!(3))
    );
    let first = with(&["--limit", "1"]);
    let next = first["next"].as_str().unwrap().to_owned();
    // What is entered meanwhile is not in the next page: it is of the same log.
    dev.json("alice", 0, &["audit", "person", "alice", "--limit", "1"]);
    dev.request(&[], &["true"]);
    let second = with(&["--limit", "1", "--cursor", &next]);
    assert_eq!(items(&second)[0]["id"], fails);
    assert_eq!(
        (&second["next"], &second["as_of"]),
        (&Value::Null, &first["as_of"])
    );
    let uid = items(&all)[0]["uid"].as_u64().unwrap().to_string();
    assert_eq!(items(&with(&["--user", &uid, "--from", "1h"])).len(), 2);
    assert_eq!(items(&with(&["--user", "nobody-else"])).len(), 0);
    assert_eq!(items(&with(&["--to", "1h"])).len(), 0);
    let csv = dev.verb("alice", &[&of_host[..], &["--csv"]].concat());
    let csv = text(&csv.stdout);
    let lines: Vec<&str> = csv.split("\r\n").collect();
    assert!(lines[0].starts_with("id,short,seq,requested,"), "{csv}");
    assert_eq!(lines.len(), 4, "{csv}");
    assert!(
        lines[1].contains(r#""[""echo"",""=1+1"",""a,b""]""#),
        "{csv}"
    );
}

/// Requests, approvals, changes and reads of one person, and nobody else's.
fn person(dev: &Dev, asked: &str) {
    let of = |who: &str| dev.json("alice", 0, &["audit", "person", who]);
    let dave = of("dave");
    assert_eq!(kinds(items(&dave)).get("command.requested"), Some(&1));
    assert_eq!(items(&dave)[0]["id"], asked);
    assert!(
        items(&dave)[0]["detail"]
            .as_str()
            .unwrap()
            .contains("echo =1+1 a,b on local")
    );
    let (carol, bob, alice) = (of("carol"), of("bob"), of("alice"));
    assert_eq!(kinds(items(&carol)).get("command.approved"), Some(&2));
    assert!(kinds(items(&carol)).get("change.approved") >= Some(&5));
    assert_eq!(kinds(items(&bob)).get("review.closed"), Some(&1));
    assert!(kinds(items(&alice)).contains_key("audit.read"), "{alice}");
    assert!(
        !kinds(items(&bob)).contains_key("change.requested"),
        "{bob}"
    );
    let nobody = dev.verb("alice", &["audit", "person", "nobody"]);
    assert!(text(&nobody.stderr).contains("never knew nobody"));
}

fn searches(dev: &Dev, asked: &str, fails: &str) {
    let found = |query: &str| {
        let found = dev.json("alice", 0, &["audit", "search", query]);
        assert_eq!(found["unknown"], 0, "{found}");
        assert_eq!(found["complete"], "server");
        let whole = dev.json("alice", 0, &["audit", "search", query, "--whole"]);
        assert_eq!(whole["complete"], "audited");
        assert_eq!(found["items"], whole["items"], "{query}");
        let ids = items(&found).iter().map(id);
        ids.collect::<Vec<_>>()
    };
    assert_eq!(found("who:dave program:echo"), [asked]);
    assert_eq!(
        found("who:bob and not who:dave and status:completed"),
        [fails]
    );
    assert_eq!(found("exit:1..255 or arg:\"a,b\""), [asked, fails]);
    assert_eq!(found("output:\"disk is full\""), [fails]);
    assert_eq!(found("host:loc* and mode:shell and from:1h"), [fails]);
    assert_eq!(found(&format!("id:{}", &asked[..8])), [asked]);
    assert_eq!(found("to:1h"), [""; 0]);
    dev.json("alice", 2, &["audit", "suspect", "--csv"]);
    let wrong = dev.json("alice", 2, &["audit", "search", "exit:many"]);
    assert!(
        wrong["error"]["message"]
            .as_str()
            .unwrap()
            .contains("takes 0 to 255")
    );
}

/// A list that names what does not fit is caught by the command's own entries; one that leaves something
/// out is caught by whoever reads the whole log.
fn lies_in_the_lists(dev: &Dev, fails: &str) {
    dev.sql("UPDATE projections.runs SET exit_code = 7 WHERE exit_code = 3");
    let lie = dev.json("alice", 3, &["audit", "search", "exit:7"]);
    assert_eq!(lie["error"]["code"], "wrong_hit", "{lie}");
    let search = |more: &[&str]| {
        let found = dev.json("alice", 0, &[&["audit", "search", "exit:3"], more].concat());
        items(&found).iter().map(id).collect::<Vec<_>>()
    };
    assert_eq!(search(&[]), [""; 0]);
    assert_eq!(search(&["--whole"]), [fails]);
    dev.sql("UPDATE projections.runs SET exit_code = 3 WHERE exit_code = 7");
    assert_eq!(search(&[]), [fails]);
    let told = dev.verb("alice", &["audit", "search", "exit:3"]);
    assert!(text(&told.stderr).contains("that nothing is left out is the server's word"));
    let told = dev.verb("alice", &["audit", "search", "exit:3", "--whole"]);
    assert!(text(&told.stderr).contains("all of them audited"));
}

/// carol's key is revoked, and marked suspect from her approval on.
fn suspect_keys(dev: &Dev, asked: &str) {
    let none = dev.json("alice", 0, &["audit", "suspect"]);
    assert_eq!(items(&none).len(), 0, "{none}");
    let shown = dev.show(asked);
    let approvals = shown["approvals"].as_array().unwrap();
    let of_carol = approvals
        .iter()
        .find(|one| one["principal"] == "carol")
        .unwrap();
    let from = of_carol["seq"].as_u64().unwrap();
    let key = dev.json("alice", 0, &["people", "show", "carol"])["keys"][0].clone();
    let print = key["fingerprint"].as_str().unwrap();
    let revoke = ["key", "revoke", print, "--suspect-from", &from.to_string()];
    let revoked = dev.json("alice", 0, &revoke);
    dev.json("bob", 0, &["approve", &id(&revoked), "--yes"]);
    let all = dev.json("alice", 0, &["audit", "suspect", "--limit", "1000"]);
    let marked = dev.json("alice", 0, &["audit", "suspect", "--marked"]);
    assert!(items(&all).len() > items(&marked).len());
    let first = &items(&marked)[0];
    assert_eq!(
        (&first["kind"], &first["id"], &first["suspect_from"]),
        (&json!("command.approved"), &json!(asked), &json!(from))
    );
    for row in items(&all) {
        let is_after = row["seq"].as_u64().unwrap() >= from;
        let standing = if is_after { "suspect" } else { "revoked_later" };
        assert_eq!(
            (&row["who"], &row["standing"]),
            (&json!("carol"), &json!(standing))
        );
    }
}
