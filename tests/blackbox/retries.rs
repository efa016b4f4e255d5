//! `retry`: exactly what was recorded, only where it did not go well, with people's yes again.

use std::fs;

use serde_json::{Value, json};

use crate::agents::agent_of;
use crate::answers::{Host, approved, first_only};
use crate::support::{Dev, signal, text, until};

fn id(document: &Value) -> String {
    document["id"].as_str().unwrap().to_owned()
}

fn entries(dev: &Dev) -> String {
    dev.sql("SELECT count(*) FROM statements WHERE stream = statement_id")
}

#[test]
fn a_retry_runs_on_the_host_that_failed_alone_and_approvers_see_why() {
    let dev = Dev::start();
    let _second = Host::join(&dev, "second");
    let (mark, script) = first_only(&dev);
    let head = ["request", "--on", "local,second", "--reason", "a test"];
    let words = ["--env", "A=b", "--shell", "--", &script];
    let first = id(&dev.json("alice", 0, &[&head[..], &words].concat()));
    let early = dev.json("alice", 4, &["retry", &first]);
    assert_eq!(early["error"]["code"], "retry_too_early");
    dev.approve(&first);
    let shown = dev.ended(&first);
    assert_eq!(shown["status"], "partial");
    let runs = shown["executions"].as_array().unwrap();
    let failed = runs.iter().find(|run| run["exit_code"] == 3).unwrap();
    let (failed, well) = if failed["agent"] == "local" {
        ("local", "second")
    } else {
        ("second", "local")
    };

    let before = entries(&dev);
    let elsewhere = dev.json("alice", 4, &["retry", &first, "--on", well]);
    assert_eq!(elsewhere["error"]["code"], "nothing_to_retry");
    let nowhere = dev.json("alice", 4, &["retry", &first, "--on", "nobody"]);
    assert_eq!(nowhere["error"]["code"], "retry_elsewhere");
    assert_eq!(entries(&dev), before, "something was signed");

    fs::remove_dir(&mark).unwrap();
    let asked = dev.verb("alice", &["--json", "retry", &first]);
    let told = text(&asked.stderr);
    assert!(
        told.contains(&format!("{failed} failed (exited with code 3)")),
        "{told}"
    );
    let again = id(&serde_json::from_slice(&asked.stdout).unwrap());
    let shown = dev.show(&again);
    assert_eq!(shown["status"], "requested");
    assert_eq!(shown["retry"], json!({"of": first, "lost": false}));
    assert_eq!(shown["request"]["targets"], json!([failed]));
    for field in ["argv", "env", "mode", "timeout_ms", "output_limit", "user"] {
        let earlier = &dev.show(&first)["request"][field];
        assert_eq!(&shown["request"][field], earlier, "{field}");
    }
    let reason = shown["request"]["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("retry of ") && reason.ends_with(": a test"),
        "{reason}"
    );
    let waits = dev.json("bob", 0, &["inbox"])["items"][0].clone();
    assert_eq!(waits["retry_of"], json!(first));
    // Whoever approves reads what it is a retry of.
    let yes = dev.verb("bob", &["approve", &again, "--yes"]);
    let read = text(&yes.stderr);
    assert!(read.contains("retry of"), "{read}");
    assert!(
        read.contains(&format!("{failed} failed (exited with code 3)")),
        "{read}"
    );
    dev.json("carol", 0, &["approve", &again, "--yes"]);
    let shown = dev.ended(&again);
    assert_eq!(shown["status"], "completed", "{shown}");
    assert_eq!(shown["tally"], json!({"ok": 1}));

    let nothing = dev.json("bob", 4, &["retry", &again]);
    assert_eq!(nothing["error"]["code"], "nothing_to_retry");
    assert!(dev.is_sound());
}

#[test]
fn what_was_lost_is_not_run_again_unless_it_is_named_and_secrets_never_are() {
    let dev = Dev::start();
    let mark = dev.folder().path().join("ran");
    let script = format!(
        "echo ran >> {0}; test $(wc -l < {0}) = 1 && sleep 60; true",
        mark.display()
    );
    let lost = dev.request(&["--timeout", "120", "--shell"], &[&script]);
    dev.approve(&lost);
    until("it runs", || mark.exists());
    signal(agent_of(&dev), "KILL");
    assert_eq!(dev.ended(&lost)["status"], "lost");
    let silent = dev.json("alice", 4, &["retry", &lost]);
    assert_eq!(silent["error"]["code"], "nothing_to_retry");
    assert!(
        silent["error"]["hint"]
            .as_str()
            .unwrap()
            .contains("--also-lost")
    );
    let follow = ["retry", &lost, "--also-lost", "--follow", "--jsonl"];
    let output = approved(&dev, &follow);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(fs::read_to_string(&mark).unwrap(), "ran\nran\n");
    let listed = dev.json("alice", 0, &["list"]);
    // Whoever reads the lines learns from the first what it is that runs.
    let lines = text(&output.stdout);
    let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&first["type"], &first["id"], &first["hosts"]),
        (
            &json!("requested"),
            &listed["items"][0]["id"],
            &json!(["local"])
        )
    );
    let shown = dev.verb("bob", &["show", listed["items"][0]["id"].as_str().unwrap()]);
    let shown = text(&shown.stdout);
    assert!(
        shown.contains("local lost") && shown.contains("CAREFUL"),
        "{shown}"
    );

    let secret = dev.folder().path().join("secret");
    fs::write(&secret, "s3cret-and-long").unwrap();
    let named = format!("token=@{}", secret.display());
    let sealed = dev.request(&["--secret", &named], &["false"]);
    dev.approve(&sealed);
    assert_eq!(dev.ended(&sealed)["status"], "failed");
    let refused = dev.json("alice", 4, &["retry", &sealed]);
    assert_eq!(refused["error"]["code"], "retry_secrets");
    assert!(
        refused["error"]["hint"]
            .as_str()
            .unwrap()
            .contains("--secret")
    );
    assert!(dev.is_sound());
}
