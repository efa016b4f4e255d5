//! The names and shapes that scripts rely on.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Dev, text};

/// The names of an object, sorted: in which order they are printed is no promise.
fn keys(value: &Value) -> Vec<&str> {
    let names = value.as_object().unwrap().keys().map(String::as_str);
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    names
}

fn is_hex_id(value: &Value) -> bool {
    let id = value.as_str().unwrap();
    id.len() == 64 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[test]
fn dev_leaves_keys_and_an_environment() {
    let dev = Dev::shared();
    for name in ["alice", "bob", "carol"] {
        let key = dev.data().join("keys").join(name);
        let listed = Command::new("ssh-keygen")
            .arg("-lf")
            .arg(&key)
            .output()
            .unwrap();
        assert!(listed.status.success(), "{}", text(&listed.stderr));
        assert_eq!(
            fs::metadata(&key).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert!(key.with_extension("pub").exists());
    }
    let env = dev.data().join("dev.env");
    assert_eq!(
        fs::metadata(&env).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(
        dev.env("COUNTERSIGN_SERVER"),
        format!("http://127.0.0.1:{}", dev.port)
    );
    assert_eq!(dev.env("COUNTERSIGN_AGENT"), "local");
    assert!(is_hex_id(&json!(dev.env("COUNTERSIGN_LEDGER"))));
    assert!(
        dev.env("COUNTERSIGN_VKEY")
            .starts_with(dev.env("COUNTERSIGN_ORIGIN"))
    );
    // A shell reads the file, and psql both addresses, without a password.
    for (url, user) in [
        ("DATABASE_URL", "countersign_app"),
        ("COUNTERSIGN_OWNER_DATABASE_URL", "countersign_owner"),
    ] {
        let script = format!(
            ". {} && psql \"${url}\" -XAtc 'SELECT current_user, count(*) > 0 FROM entries'",
            env.display()
        );
        let output = Command::new("sh")
            .args(["-c", &script])
            .env("PGPASSWORD", "")
            .output()
            .unwrap();
        assert_eq!(
            text(&output.stdout).trim(),
            format!("{user}|t"),
            "{}",
            text(&output.stderr)
        );
    }
}

#[test]
fn the_log_is_in_tables_that_anybody_can_query() {
    let dev = Dev::shared();
    for (table, columns) in [
        ("entries", "seq, entry, leaf"),
        ("blobs", "digest, salt, content"),
        ("checkpoints", "size, note"),
    ] {
        let url = dev.env("DATABASE_URL");
        let sql = format!("SELECT {columns} FROM {table} LIMIT 1");
        let output = Command::new("psql")
            .args([url, "-Xc", &sql])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    let wrong =
        dev.sql(r"SELECT count(*) FROM entries WHERE leaf <> sha256('\x00'::bytea || entry)");
    assert_eq!(wrong, "0");
}

#[test]
fn request_approve_and_show_have_their_shapes() {
    let dev = Dev::shared();
    let asked = dev.json(
        "alice",
        0,
        &[
            "request",
            "--on",
            "local",
            "--reason",
            "why not",
            "--env",
            "FOO=bar baz",
            "--cwd",
            "/tmp",
            "--timeout",
            "9",
            "--",
            "sh",
            "-c",
            "echo out; echo err >&2; pwd; echo \"$FOO\"; exit 3",
        ],
    );
    assert_eq!(keys(&asked), ["id", "short", "status"]);
    assert!(is_hex_id(&asked["id"]));
    let short = asked["short"].as_str().unwrap();
    assert_eq!((short.len(), &short[4..5]), (9, "-"));
    assert_eq!(asked["status"], "requested");
    let id = asked["id"].as_str().unwrap();
    let first = dev.json(
        "bob",
        0,
        &["approve", short, "--yes", "--reason", "seems fine"],
    );
    assert_eq!(keys(&first), ["id", "seq", "status"]);
    assert_eq!(
        (&first["id"], &first["status"]),
        (&asked["id"], &json!("requested"))
    );
    let second = dev.json("carol", 0, &["approve", id, "--yes"]);
    assert_eq!(second["status"], "authorized");
    let shown = dev.ended(id);
    assert_eq!(
        keys(&shown),
        [
            "approvals",
            "executions",
            "groups",
            "id",
            "request",
            "short",
            "status",
            "tally"
        ]
    );
    assert_eq!(shown["status"], "failed");
    assert_eq!(shown["tally"], json!({"failed": 1}));
    assert_eq!(keys(&shown["groups"][0]), ["end", "hosts", "verdict"]);
    let request = &shown["request"];
    assert_eq!(
        keys(request),
        [
            "argv",
            "at_output_limit",
            "break_glass",
            "cwd",
            "env",
            "expires_us",
            "max_runs",
            "mode",
            "not_before_us",
            "output_limit",
            "reason",
            "requester",
            "rollout",
            "stdin",
            "targets",
            "timeout_ms",
            "token",
            "user"
        ]
    );
    assert_eq!(request["mode"], "exec");
    assert_eq!(request["argv"][0], "sh");
    assert_eq!(
        (&request["cwd"], &request["env"]),
        (&json!("/tmp"), &json!({"FOO": "bar baz"}))
    );
    assert_eq!(
        (&request["user"], &request["timeout_ms"]),
        (&Value::Null, &json!(9000))
    );
    assert_eq!(
        (
            &request["reason"],
            &request["targets"],
            &request["requester"]
        ),
        (&json!("why not"), &json!(["local"]), &json!("alice"))
    );
    let approvals = shown["approvals"].as_array().unwrap();
    assert_eq!(approvals.len(), 2);
    assert_eq!(keys(&approvals[0]), ["key_id", "principal", "seq"]);
    assert_eq!(
        (&approvals[0]["principal"], &approvals[0]["seq"]),
        (&json!("bob"), &first["seq"])
    );
    let execution = &shown["executions"][0];
    assert_eq!(
        keys(execution),
        [
            "agent",
            "code",
            "contradicted",
            "duration_ms",
            "exit_code",
            "failure",
            "masked",
            "outcome",
            "refused",
            "service",
            "signal",
            "skipped",
            "status",
            "stderr",
            "stderr_base64",
            "stdout",
            "stdout_base64",
            "truncated"
        ]
    );
    assert_eq!(
        (
            &execution["agent"],
            &execution["status"],
            &execution["outcome"]
        ),
        (&json!("local"), &json!("completed"), &json!("exited"))
    );
    assert_eq!(
        (
            &execution["exit_code"],
            &execution["signal"],
            &execution["truncated"]
        ),
        (&json!(3), &Value::Null, &json!(false))
    );
    assert_eq!(
        (
            &execution["code"],
            &execution["failure"],
            &execution["refused"],
            &execution["service"]
        ),
        (&json!(3), &Value::Null, &Value::Null, &Value::Null)
    );
    assert_eq!(
        (&execution["stdout"], &execution["stderr"]),
        (&json!("out\n/tmp\nbar baz\n"), &json!("err\n"))
    );
    assert_eq!(execution["stderr_base64"], "ZXJyCg==");
    assert!(execution["duration_ms"].is_u64());
}

#[test]
fn bytes_that_are_no_text_are_exact_in_base64() {
    let dev = Dev::shared();
    let shown = dev.through(&[], &["printf", r"a\377\000b"]);
    let execution = &shown["executions"][0];
    assert_eq!(execution["stdout"], "a\u{fffd}\0b");
    assert_eq!(execution["stdout_base64"], "Yf8AYg==");
}

#[test]
fn lists_have_items_and_a_cursor() {
    let dev = Dev::shared();
    let ids: Vec<String> = (0..3).map(|_| dev.request(&[], &["true"])).collect();
    let page = dev.json("bob", 0, &["list", "--limit", "2"]);
    assert_eq!(keys(&page), ["items", "next"]);
    assert_eq!(page["items"].as_array().unwrap().len(), 2);
    let cursor = page["next"].as_str().unwrap().to_owned();
    let more = dev.json("bob", 0, &["list", "--limit", "2", "--cursor", &cursor]);
    assert!(!more["items"].as_array().unwrap().is_empty());
    let waiting = dev.json(
        "bob",
        0,
        &["list", "--status", "requested", "--limit", "1000"],
    );
    let inbox = dev.json("bob", 0, &["inbox"]);
    let agents = dev.json("bob", 0, &["agents"]);
    for id in &ids {
        for list in [&waiting, &inbox] {
            assert!(
                list["items"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .any(|item| item["id"] == id.as_str())
            );
        }
    }
    assert_eq!(agents["items"][0]["agent"], "local");
    assert!(agents.as_object().unwrap().contains_key("next"));
    dev.json("bob", 2, &["list", "--status", "done"]);
}

#[test]
fn log_gives_an_entry_a_line() {
    let dev = Dev::shared();
    let output = dev.verb("alice", &["log", "--json"]);
    assert!(output.status.success());
    for (seq, line) in text(&output.stdout).lines().enumerate() {
        let entry: Value = serde_json::from_str(line).unwrap();
        assert_eq!(
            keys(&entry),
            [
                "entry",
                "key_id",
                "leaf",
                "namespace",
                "payload",
                "seq",
                "time_us"
            ]
        );
        assert_eq!(entry["seq"], seq);
        assert!(
            entry["payload"].is_object()
                && is_hex_id(&entry["leaf"])
                && is_hex_id(&entry["key_id"])
        );
    }
    let output = dev.verb("alice", &["log", "--from", "3", "--json"]);
    let first: Value = serde_json::from_str(text(&output.stdout).lines().next().unwrap()).unwrap();
    assert_eq!(first["seq"], 3);
}

#[test]
fn logs_give_the_output_as_it_was() {
    let dev = Dev::shared();
    let shown = dev.through(
        &[],
        &["sh", "-c", "printf 'one\\n\\033[31mtwo'; echo three >&2"],
    );
    let id = shown["id"].as_str().unwrap();
    for arguments in [
        vec!["logs", id],
        vec!["logs", id, "-f"],
        vec!["logs", id, "--agent", "local"],
    ] {
        let output = dev.verb("bob", &arguments);
        assert!(output.status.success());
        assert_eq!(output.stdout, b"one\n\x1b[31mtwo");
        assert_eq!(
            text(&output.stderr)
                .lines()
                .filter(|line| *line == "three")
                .count(),
            1
        );
    }
}

#[test]
fn logs_without_output_say_why_and_a_host_that_is_none_is_a_mistake() {
    let dev = Dev::shared();
    let waits = dev.request(&[], &["true"]);
    let said = |id: &str| {
        let output = dev.verb("bob", &["logs", id]);
        assert!(output.status.success() && output.stdout.is_empty());
        text(&output.stderr)
    };
    let told = said(&waits);
    assert!(
        told.contains("nothing was written; the command is requested") && told.contains("-f"),
        "{told}"
    );
    dev.approve(&waits);
    dev.ended(&waits);
    let told = said(&waits);
    assert!(
        told.contains("nothing was written; local: completed, exited with code 0")
            && !told.contains("-f"),
        "{told}"
    );
    let unusable = dev.through(&["--cwd", "/nowhere"], &["true"]);
    let told = said(unusable["id"].as_str().unwrap());
    assert!(
        told.contains("nothing was written; local: refused"),
        "{told}"
    );

    for arguments in [
        &["logs", &waits, "--agent", "locla"][..],
        &["logs", &waits, "-f", "--agent", "locla"],
    ] {
        let error = dev.json("bob", 2, arguments);
        let message = error["error"]["message"].as_str().unwrap();
        assert!(message.contains("was not for locla"), "{message}");
    }
    let shown = dev.json("bob", 0, &["logs", &waits, "--agent", "local"]);
    assert_eq!(shown["executions"][0]["agent"], "local");
}

#[test]
fn errors_are_one_object_with_code_message_and_hint() {
    let dev = Dev::shared();
    let id = dev.request(&[], &["true"]);
    let own = dev.json("alice", 4, &["approve", &id, "--yes"]);
    assert_eq!(keys(&own), ["error"]);
    assert_eq!(keys(&own["error"]), ["code", "hint", "message"]);
    assert_eq!(own["error"]["code"], "own_request");
    dev.json("bob", 0, &["approve", &id, "--yes"]);
    let twice = dev.json("bob", 4, &["approve", &id, "--yes"]);
    assert_eq!(twice["error"]["code"], "duplicate_approval");
    dev.json("bob", 2, &["approve", &id]);
    dev.json("bob", 2, &["reject", &id]);
    dev.json(
        "alice",
        2,
        &[
            "request", "--on", "local", "--reason", "x", "--shell", "--", "two", "words",
        ],
    );
    dev.json("alice", 2, &["request", "--on", "local", "--", "true"]);
    dev.json(
        "alice",
        1,
        &["request", "--on", "nowhere", "--reason", "x", "--", "true"],
    );
    dev.json("alice", 1, &["show", &"0".repeat(64)]);
    dev.json("alice", 2, &["frobnicate"]);
    dev.json("alice", 5, &["--server", "http://127.0.0.1:1", "list"]);
}

#[test]
fn json_stands_anywhere_before_the_command() {
    let dev = Dev::shared();
    for place in [
        vec![
            "--json", "request", "--on", "local", "--reason", "x", "--", "echo", "--json",
        ],
        vec![
            "request", "--json", "--on", "local", "--reason", "x", "--", "echo", "--json",
        ],
        vec![
            "request", "--on", "local", "--reason", "x", "--json", "--", "echo", "--json",
        ],
    ] {
        let output = dev.verb("alice", &place);
        let asked: Value = serde_json::from_slice(&output.stdout).unwrap();
        let shown = dev.show(asked["id"].as_str().unwrap());
        assert_eq!(shown["request"]["argv"], json!(["echo", "--json"]));
    }
}

#[test]
fn a_client_without_a_pinned_ledger_signs_nothing() {
    let dev = Dev::shared();
    let mut command = dev.command(
        "alice",
        &[
            "request", "--json", "--on", "local", "--reason", "x", "--", "true",
        ],
    );
    let output = command.env_remove("COUNTERSIGN_LEDGER").output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stdout));
    let other = dev
        .command("alice", &["--json", "list"])
        .env("COUNTERSIGN_LEDGER", "0".repeat(64))
        .output()
        .unwrap();
    assert_eq!(other.status.code(), Some(3), "{}", text(&other.stdout));
}

#[test]
fn a_key_in_an_ssh_agent_signs() {
    let dev = Dev::shared();
    let key = dev.data().join("keys/alice");
    let script = format!(
        "eval $(ssh-agent -s) >/dev/null; trap 'kill $SSH_AGENT_PID' EXIT; ssh-add -q {key} && COUNTERSIGN_KEY={key}.pub \"$0\" --json request --on local --reason x -- true",
        key = key.display()
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script, crate::support::PROGRAM]);
    for (name, value) in dev.command("alice", &[]).get_envs() {
        command.env(name, value.unwrap());
    }
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
}
