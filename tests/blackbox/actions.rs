//! Named actions: what a host does under a name, step by step, and nothing that its own file does
//! not say.

use serde_json::{Value, json};

use crate::rules::{check, configure};
use crate::support::{Dev, text};

const ACTIONS: &str = r#"
[[action]]
name = "restart_service"
args = ["{nginx,redis}.service"]
steps = [
  ["echo", "stop", "{1}"],
  ["printf", "%s|", "start", "unit={1}", "{{}}"],
]
timeout_s = 60
reason = "as the runbook says"

[[action]]
name = "half_way"
steps = [["echo", "first"], ["sh", "-c", "echo second >&2; exit 7"], ["echo", "third"]]

[[action]]
name = "not_there"
steps = [["echo", "first"], ["no-such-program"]]

[[action]]
name = "clear_logs"
steps = [["rm", "-rf", "/var/log/audit"]]

[[deny]]
name = "no_rm"
program = "rm"
"#;

/// A dev whose agent runs actions and nothing else.
fn careful() -> Dev {
    let dev = Dev::start();
    configure(&dev, |own| {
        let own = own
            .replace("allow_all = true\n", "")
            .replace("shell.allow = true\n", "");
        let modes = own.lines().filter(|line| !line.starts_with("modes"));
        let own: Vec<&str> = modes.collect();
        format!("modes = [\"action\"]\n{}\n{ACTIONS}", own.join("\n"))
    });
    dev
}

/// Asks for an action, as a person types it, and approves it.
fn act(dev: &Dev, words: &[&str]) -> Value {
    let head = ["request", "--on", "local", "--reason", "a test", "--action"];
    let asked = dev.json("alice", 0, &[&head, words].concat());
    let id = asked["id"].as_str().unwrap();
    dev.approve(id);
    dev.ended(id)
}

fn refused(shown: &Value) -> (&str, &str) {
    let execution = &shown["executions"][0];
    assert_eq!(execution["status"], "refused", "{shown}");
    assert_eq!(execution["code"], -1, "{shown}");
    let refused = &execution["refused"];
    let word = |name: &str| refused[name].as_str().unwrap();
    (word("rule"), word("detail"))
}

#[test]
fn an_action_runs_its_steps_in_turn_with_the_arguments_in_their_places() {
    let dev = careful();
    let shown = act(&dev, &["restart_service", "nginx.service"]);
    let execution = &shown["executions"][0];
    assert_eq!(shown["status"], "completed", "{shown}");
    assert_eq!(
        execution["stdout"],
        "stop nginx.service\nstart|unit=nginx.service|{}|"
    );
    assert_eq!(execution["code"], 0);
    // The ledger has what the host opened, each step of it, before anything ran.
    let id = shown["id"].as_str().unwrap();
    let said = text(&dev.verb("alice", &["show", id]).stdout);
    for line in [
        "the action restart_service as each host has it",
        "1: echo stop nginx.service",
        "/usr/bin/echo, SHA-256 ",
        "2: printf '%s|' start unit=nginx.service '{}'",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    let audit = dev.verb("alice", &["verify"]);
    assert!(audit.status.success(), "{}", text(&audit.stderr));
}

#[test]
fn an_action_stops_at_the_first_step_that_fails() {
    let dev = careful();
    let shown = act(&dev, &["half_way"]);
    let execution = &shown["executions"][0];
    assert_eq!(shown["status"], "failed", "{shown}");
    assert_eq!(
        (&execution["stdout"], &execution["stderr"]),
        (&json!("first\n"), &json!("second\n"))
    );
    assert_eq!(execution["code"], 7);
    // Nothing of an action runs when one of its programs is not there.
    let shown = act(&dev, &["not_there"]);
    let execution = &shown["executions"][0];
    assert_eq!(execution["outcome"], "not_found", "{shown}");
    assert_eq!(
        (&execution["stdout"], &execution["code"]),
        (&json!(""), &json!(127))
    );
}

#[test]
fn an_action_takes_the_arguments_that_its_host_wrote_down_and_no_others() {
    let dev = careful();
    let cases: [(&[&str], &str, &str); 7] = [
        (&["restart_service"], "restart_service", "takes 1 arguments"),
        (
            &["restart_service", "a", "b"],
            "restart_service",
            "takes 1 arguments",
        ),
        (
            &["restart_service", "sshd.service"],
            "restart_service",
            "argument 1",
        ),
        (
            &["restart_service", "nginx.service\n"],
            "restart_service",
            "argument 1",
        ),
        (
            &["restart_service", "--", "--force"],
            "restart_service",
            "argument 1",
        ),
        (&["apply_updates"], "action", "Command not in whitelist"),
        // What no command may do, no action may either.
        (
            &["clear_logs"],
            "no_rm",
            "a deny rule of this host forbids it",
        ),
    ];
    for (words, rule, detail) in cases {
        let shown = act(&dev, words);
        let (by, said) = refused(&shown);
        assert_eq!(by, rule, "{words:?}: {said}");
        assert!(said.contains(detail), "{words:?}: {said}");
        let plain: Vec<&str> = words.iter().copied().filter(|word| *word != "--").collect();
        let (code, said) = check(&dev, &["--action"], &plain);
        assert_eq!(code, 4, "{said}");
        assert!(said.starts_with(&format!("refused by {rule}: ")), "{said}");
    }
    // An action is no way around the other modes, and they are none around it.
    let shown = dev.through(&[], &["echo", "hello"]);
    assert_eq!(refused(&shown).0, "modes");
    let (code, said) = check(&dev, &["--action"], &["restart_service", "redis.service"]);
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains("words: \"echo\" \"stop\" \"redis.service\""),
        "{said}"
    );
    assert!(said.contains("reason: as the runbook says"), "{said}");
}

#[test]
fn a_run_is_ended_at_its_output_limit_when_it_was_asked_so() {
    let dev = Dev::start();
    let options = ["--output-limit", "1000", "--stop-at-output-limit"];
    let shown = dev.through(&options, &["yes", "0123456789"]);
    let execution = &shown["executions"][0];
    assert_eq!(execution["outcome"], "output_limit", "{shown}");
    assert_eq!(shown["status"], "failed");
    assert_eq!(
        (&execution["code"], &execution["truncated"]),
        (&json!(-1), &json!(true))
    );
    assert_eq!(execution["stdout"].as_str().unwrap().len(), 1000);
    // Without being asked to, it goes on to its own end.
    let shown = dev.through(&options[..2], &["seq", "1", "1000"]);
    let execution = &shown["executions"][0];
    assert_eq!(
        (&execution["outcome"], &execution["code"]),
        (&json!("exited"), &json!(0))
    );
    assert_eq!(execution["truncated"], true);
}
