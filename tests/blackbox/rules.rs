//! A careful host: what its own rules do not allow is refused, with the rule in the ledger, and
//! `check` says the same beforehand.

use std::fs;
use std::process::Command;

use serde_json::json;

use crate::support::{Dev, PROGRAM, processes_with, signal, text, until};

const RULES: &str = r#"
[[allow]]
name = "greet"
program = "echo"
args = ["*.service"]

[[deny]]
name = "no_secrets"
any_arg = ["*secret*"]
"#;

/// Gives dev's agent other rules.
fn make_careful(dev: &Dev) {
    configure(dev, |own| {
        assert!(own.contains("allow_all = true\n"));
        let careful = own
            .replace("allow_all = true\n", "")
            .replace("shell.allow = true\n", "");
        format!("{careful}{RULES}")
    });
}

/// Writes dev's agent another file and has it read, as an administrator of the host would.
pub(crate) fn configure(dev: &Dev, change: impl FnOnce(&str) -> String) {
    let config = dev.data().join("agent/agent.toml");
    let own = fs::read_to_string(&config).unwrap();
    fs::write(&config, change(&own)).unwrap();
    let line = format!("agent --config {}", config.display());
    let old = processes_with(&line);
    for pid in &old {
        signal(*pid, "KILL");
    }
    until("another agent is there", || {
        let now = processes_with(&line);
        !now.is_empty() && now.iter().all(|pid| !old.contains(pid))
    });
}

/// What `check` says of a command: its code and its words.
pub(crate) fn check(dev: &Dev, options: &[&str], words: &[&str]) -> (i32, String) {
    let output = Command::new(PROGRAM)
        .args(["agent", "--config"])
        .arg(dev.data().join("agent/agent.toml"))
        .arg("check")
        .args(options)
        .arg("--")
        .args(words)
        .output()
        .unwrap();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    (output.status.code().unwrap(), out + &err)
}

#[test]
fn a_careful_host_refuses_by_its_own_rule_and_check_says_the_same() {
    let dev = Dev::start();
    assert_eq!(check(&dev, &[], &["true"]).0, 0);
    make_careful(&dev);
    let allowed = check(&dev, &[], &["echo", "nginx.service"]);
    assert_eq!(allowed.0, 0, "{}", allowed.1);
    assert!(allowed.1.starts_with("allowed by greet\n"), "{}", allowed.1);
    assert_eq!(
        dev.through(&[], &["echo", "nginx.service"])["status"],
        "completed"
    );
    let cases: [(&[&str], &[&str], &str, &str); 5] = [
        (
            &[],
            &["echo", "--force"],
            "allow",
            "Command not in whitelist",
        ),
        (
            &[],
            &["echo", "nginx.service\n"],
            "allow",
            "Command not in whitelist",
        ),
        (
            &[],
            &["cat", "/etc/passwd"],
            "allow",
            "Command not in whitelist",
        ),
        (&[], &["echo", "secret.service"], "no_secrets", "forbids it"),
        (&["--shell"], &["echo nginx.service"], "shell", "scripts"),
    ];
    for (options, words, rule, detail) in cases {
        let (code, said) = check(&dev, options, words);
        assert_eq!(code, 4, "{words:?}: {said}");
        assert!(said.starts_with(&format!("refused by {rule}: ")), "{said}");
        assert!(said.contains(detail), "{said}");
        let shown = dev.through(options, words);
        let execution = &shown["executions"][0];
        assert_eq!(
            (&shown["status"], &execution["status"]),
            (&json!("refused"), &json!("refused")),
            "{words:?}"
        );
        let entry =
            dev.sql("SELECT encode(entry, 'escape') FROM entries ORDER BY seq DESC LIMIT 3");
        assert!(
            entry.contains(&format!("\"rule\":\"{rule}\"")),
            "{words:?}: {entry}"
        );
    }
}

#[test]
fn check_config_lists_the_rules_and_finds_a_mistake_with_its_line() {
    let dev = Dev::start();
    make_careful(&dev);
    let config = dev.data().join("agent/agent.toml");
    let check_config = || {
        let output = Command::new(PROGRAM)
            .args(["agent", "--config"])
            .arg(&config)
            .arg("check-config")
            .output()
            .unwrap();
        (output.status.code(), text(&output.stderr))
    };
    let (code, said) = check_config();
    assert_eq!(code, Some(0), "{said}");
    for line in [
        "is in order",
        "deny no_secrets",
        "allow greet: echo *.service",
        "nothing else",
    ] {
        assert!(said.contains(line), "{said}");
    }
    let good = fs::read_to_string(&config).unwrap();
    let at = good
        .lines()
        .position(|line| line.starts_with("args"))
        .unwrap()
        + 1;
    fs::write(&config, good.replace("*.service", "**.service")).unwrap();
    let (code, said) = check_config();
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains(&format!("line {at}: ")), "{said}");
}
