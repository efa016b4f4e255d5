//! Facts of hosts in arguments, with a real server and real agents: people see what each host will run,
//! each runs its own, and none runs what it no longer is.

use std::fs;

use serde_json::{Value, json};

use crate::answers::Host;
use crate::rights::{IN_AN_EMERGENCY, change};
use crate::support::{Dev, signal, text, until};

const ON: [&str; 5] = ["request", "--on", "second,third", "--reason", "a test"];

fn file(name: &str) -> String {
    format!("\n[facts]\nhostname = {name:?}\nrack = \"r-{name}\"\n")
}

/// What the verified rights say of a host's fact.
fn fact(dev: &Dev, host: &str, name: &str) -> Value {
    let agents = dev.json("bob", 0, &["agents", "--facts"]);
    let mut items = agents["items"].as_array().unwrap().iter();
    let item = items.find(|item| item["agent"] == host);
    item.map_or(Value::Null, |item| item["facts"][name].clone())
}

fn part<'a>(shown: &'a Value, host: &str) -> &'a Value {
    let mut parts = shown["executions"].as_array().unwrap().iter();
    parts.find(|part| part["agent"] == host).unwrap()
}

#[test]
fn each_host_runs_its_own_facts_and_approvers_see_them_before() {
    let dev = Dev::start();
    let second = Host::join_with(&dev, "second", &file("second"));
    let _third = Host::join_with(&dev, "third", &file("third"));
    until("both have signed their facts", || {
        fact(&dev, "second", "rack") == "r-second" && fact(&dev, "third", "rack") == "r-third"
    });
    // What the system says stands beside what the host's file says.
    assert!(fact(&dev, "local", "kernel").is_string());

    let words = ["--", "/bin/echo", "@fact.hostname", "in=@fact.rack"];
    let asked = dev.verb("alice", &[&ON[..], &words].concat());
    assert!(asked.status.success(), "{}", text(&asked.stderr));
    let line = "on second runs /bin/echo second in=r-second";
    let told = text(&asked.stderr);
    assert!(told.contains(line), "{told}");
    let out = text(&asked.stdout);
    let id = out.split_whitespace().nth(1).unwrap().to_owned();
    let shown = dev.verb("bob", &["show", &id]);
    let shown = text(&shown.stdout);
    assert!(shown.contains(line), "{shown}");
    assert!(
        shown.contains("on third runs /bin/echo third in=r-third"),
        "{shown}"
    );
    assert_eq!(
        dev.show(&id)["request"]["runs"],
        json!([
            { "argv": ["/bin/echo", "second", "in=r-second"], "targets": ["second"] },
            { "argv": ["/bin/echo", "third", "in=r-third"], "targets": ["third"] },
        ])
    );
    dev.approve(&id);
    let ended = dev.ended(&id);
    assert_eq!(ended["status"], "completed", "{ended}");
    assert_eq!(part(&ended, "second")["stdout"], "second in=r-second\n");
    assert_eq!(part(&ended, "third")["stdout"], "third in=r-third\n");

    // An auditor reads what each host ran and what was asked for.
    let ran = dev.json("alice", 0, &["audit", "ran", "--host", "second"]);
    let row = &ran["items"][0];
    assert_eq!(
        (&row["argv"], &row["runs"]),
        (
            &json!(["/bin/echo", "@fact.hostname", "in=@fact.rack"]),
            &json!(["/bin/echo", "second", "in=r-second"])
        ),
        "{ran}"
    );
    for question in [
        &["audit", "ran", "--host", "second"][..],
        &["audit", "why", &id],
    ] {
        let told = text(&dev.verb("alice", question).stdout);
        assert!(told.contains("/bin/echo second in=r-second"), "{told}");
    }

    // What no host has signed, and where no fact may stand, is refused before anything is signed.
    let none = dev.json(
        "alice",
        1,
        &[&ON[..], &["--", "/bin/echo", "@fact.moon"]].concat(),
    );
    assert_eq!(none["error"]["code"], "unknown_fact", "{none}");
    let script = [&ON[..], &["--shell", "--", "echo @fact.hostname"]].concat();
    let said = dev.verb("alice", &script);
    assert_eq!(said.status.code(), Some(2), "{}", text(&said.stderr));

    // A host that is another one by now refuses, whatever people and the ledger say.
    let asked = dev.json("alice", 0, &[&ON[..], &words].concat());
    let id = asked["id"].as_str().unwrap();
    let config = dev.folder().path().join("second/agent.toml");
    let own = fs::read_to_string(&config).unwrap();
    fs::write(&config, own.replace("r-second", "r-moved")).unwrap();
    let log = dev.folder().path().join("second/log");
    signal(second.pid(), "HUP");
    until("it was read again", || {
        let log = fs::read_to_string(&log).unwrap();
        log.contains("the configuration was read again")
    });
    dev.approve(id);
    let ended = dev.ended(id);
    assert_eq!(
        part(&ended, "second")["refused"]["rule"],
        "facts",
        "{ended}"
    );
    assert_eq!(part(&ended, "third")["stdout"], "third in=r-third\n");

    // Whoever verifies has what hosts signed, and judges again what was made of it.
    let bundle = dev.folder().path().join("bundle.tar");
    let bundle = bundle.to_str().unwrap();
    dev.json("alice", 0, &["export", id, "-o", bundle]);
    for what in [
        &["verify", bundle][..],
        &["verify", "--database", dev.env("DATABASE_URL")],
    ] {
        let report = dev.json("alice", 0, what);
        let said = (&report["ok"], &report["not_rejudged"]);
        assert_eq!(said, (&json!(true), &json!(0)), "{report}");
    }
}

#[test]
fn reviewers_see_what_hosts_ran_without_approvals_with_their_own_facts() {
    let dev = Dev::start();
    let _second = Host::join_with(&dev, "second", &file("second"));
    let _third = Host::join_with(&dev, "third", &file("third"));
    until("both have signed their facts", || {
        fact(&dev, "second", "rack") == "r-second" && fact(&dev, "third", "rack") == "r-third"
    });
    let rules = dev.folder().path().join("rules.cedar");
    fs::write(&rules, IN_AN_EMERGENCY).unwrap();
    change(&dev, &["policy", "publish", rules.to_str().unwrap()]);
    let glass = |on: &str| {
        let head = ["request", "--on", on, "--reason", "r", "--break-glass"];
        let tail = ["--yes", "--", "/bin/echo", "@fact.rack"];
        let asked = dev.json("alice", 0, &[&head[..], &tail].concat());
        asked["id"].as_str().unwrap().to_owned()
    };
    let ids = [glass("second"), glass("second,third")];
    let own = |host: &str| json!({ "argv": ["/bin/echo", format!("r-{host}")], "targets": [host] });
    let wanted = [json!([own("second")]), json!([own("second"), own("third")])];
    for question in [&["reviews"][..], &["audit", "break-glass"]] {
        let listed = dev.json("bob", 0, question);
        for (id, wanted) in ids.iter().zip(&wanted) {
            let mut items = listed["items"].as_array().unwrap().iter();
            let item = items.find(|item| item["id"] == json!(id)).unwrap();
            assert_eq!(&item["runs"], wanted, "{question:?} {item}");
            assert_eq!(item["argv"], json!(["/bin/echo", "@fact.rack"]));
        }
        let words = text(&dev.verb("bob", question).stdout);
        // A table breaks its lines where it is narrow.
        let words: Vec<&str> = words.split_whitespace().collect();
        let words = words.join(" ");
        assert!(words.contains("/bin/echo r-second"), "{question:?} {words}");
        assert!(
            words.contains("each host with its own facts"),
            "{question:?} {words}"
        );
    }
    let csv = text(&dev.verb("bob", &["audit", "break-glass", "--csv"]).stdout);
    assert!(
        csv.lines().next().unwrap().contains("argv,runs,hosts"),
        "{csv}"
    );
    assert!(csv.contains("r-third"), "{csv}");
}
