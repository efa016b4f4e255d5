//! `[[action]]` and `[[service]]`: a mistake is told with its line, and what is not written down is
//! refused. What runs is in the black-box tests.

use countersign_agent::rules::{Allowed, Inside, LocalRefusal};
use countersign_protocol::command::{CommandSpec, Environment, Mode};

use crate::config::{Files, least};
use crate::support::Book;

/// Loads settings after the pins, and judges with them.
struct Desk(countersign_agent::Config);

impl Desk {
    fn new(text: &str) -> Self {
        let files = Files::new();
        let config = files
            .load(&format!("{}execution = true\n{text}", least()))
            .unwrap();
        let mut config = config;
        // Whoever runs the tests may run commands as themselves.
        config.rules.account.default_user = config
            .rules
            .account
            .name
            .as_ref()
            .map(|name| name.parse().unwrap());
        Self(config)
    }

    fn act(&self, words: &[&str]) -> Result<Allowed, LocalRefusal> {
        let spec = CommandSpec {
            mode: Mode::Action,
            ..Book::spec(words)
        };
        self.0.rules.judge(None, &spec, None)
    }

    fn inside(
        &self,
        service: &str,
        spec: &CommandSpec,
        env: &[(&str, &str)],
    ) -> Result<Allowed, LocalRefusal> {
        let env = env
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let env = Environment::new(env.collect()).unwrap();
        let service = service.parse().unwrap();
        self.0.rules.judge(Some(&service), spec, Some(&env))
    }
}

fn words(allowed: &Allowed) -> Vec<Vec<String>> {
    let steps = allowed.steps.as_ref().unwrap().iter();
    steps
        .map(|step| {
            let words = step.argv.iter();
            words
                .map(|word| word.to_str().unwrap().to_owned())
                .collect()
        })
        .collect()
}

fn rule(refused: Result<Allowed, LocalRefusal>) -> String {
    refused.unwrap_err().rule.unwrap().to_string()
}

#[test]
fn an_argument_takes_its_place_in_one_word_and_never_becomes_two() {
    let desk = Desk::new(
        "[[action]]\nname = \"say\"\nargs = [\"*\", \"*\"]\nsteps = [[\"echo\", \"{2}-{1}\", \"{{1}}\", \"{1}\"], [\"true\"]]\n",
    );
    let allowed = desk.act(&["say", "a b; rm $(x)", "{1}"]).unwrap();
    assert_eq!(
        words(&allowed),
        [
            vec!["echo", "{1}-a b; rm $(x)", "{1}", "a b; rm $(x)"],
            vec!["true"]
        ]
    );
    assert_eq!(allowed.rule.as_str(), "say");
}

#[test]
fn an_action_has_demands_of_its_own() {
    let desk = Desk::new(
        "[[action]]\nname = \"say\"\nsteps = [[\"true\"]]\nmin_approvals = 5\ntimeout_s = 10\nconfine.open_files = 77\n\
         [[action]]\nname = \"other\"\nsteps = [[\"true\"]]\nusers = [\"nobody-in-particular\"]\n",
    );
    let mut spec = CommandSpec {
        mode: Mode::Action,
        timeout_ms: 10_000,
        ..Book::spec(&["say"])
    };
    let allowed = desk.0.rules.judge(None, &spec, None).unwrap();
    assert_eq!(allowed.min_approvals, 5);
    assert_eq!(allowed.confinement.limits.open_files, Some(77));
    spec.timeout_ms += 1;
    assert_eq!(rule(desk.0.rules.judge(None, &spec, None)), "say");
    assert_eq!(rule(desk.act(&["other"])), "other");
}

#[test]
fn an_action_runs_only_where_modes_has_it_and_execution_is_on() {
    let tables = "[[action]]\nname = \"say\"\nsteps = [[\"true\"]]\n";
    assert!(Desk::new(tables).act(&["say"]).is_ok());
    let exec = Desk::new(&format!("modes = [\"exec\"]\n{tables}"));
    assert_eq!(rule(exec.act(&["say"])), "modes");
    let mut off = Desk::new(tables);
    off.0.rules.execution = false;
    assert_eq!(rule(off.act(&["say"])), "execution");
    // allow_all is for commands and names no action.
    let all = Desk::new("allow_all = true\n");
    assert_eq!(rule(all.act(&["say"])), "action");
}

#[test]
fn a_mistake_in_an_action_is_told_with_its_line() {
    let cases = [
        (
            "args = [\"a\"]\nsteps = [[\"echo\"]]",
            "no step uses argument 1",
        ),
        (
            "steps = [[\"echo\", \"{1}\"]]",
            "{1} stands for an argument",
        ),
        ("steps = [[\"echo\", \"{x}\"]]", "{1} to {9} stand for"),
        ("steps = [[\"echo\", \"{\"]]", "{1} to {9} stand for"),
        ("steps = [[\"echo\", \"}\"]]", "{1} to {9} stand for"),
        ("steps = [[\"echo\", \"a\\nb\"]]", "control characters"),
        (
            "args = [\"*\"]\nsteps = [[\"{1}\"]]",
            "begins with its program",
        ),
        (
            "args = [\"*\"]\nsteps = [[\"/bin/{1}\"]]",
            "begins with its program",
        ),
        ("steps = [[]]", "begins with its program"),
        ("steps = [[\"\"]]", "begins with its program"),
        ("steps = []", "1 to 32 steps"),
        ("steps = [[\"bin/echo\"]]", "a program is an absolute path"),
        (
            "args = [\"{a\"]\nsteps = [[\"echo\", \"{1}\"]]",
            "braces are",
        ),
        (
            "steps = [[\"true\"]]\nmin_approvals = 0",
            "must be between 1",
        ),
        ("steps = [[\"true\"]]\nshell = true", "unknown field"),
    ];
    let files = Files::new();
    let head = least();
    for (text, expected) in cases {
        let (line, problem) = files.mistake(&format!("{head}[[action]]\nname = \"say\"\n{text}\n"));
        assert!(problem.contains(expected), "{text}: {problem}");
        assert!(line > head.lines().count(), "{text}: line {line}");
    }
    for (name, expected) in [("modes", "name of a setting"), ("no_rm", "another rule")] {
        let text = format!(
            "{head}[[deny]]\nname = \"no_rm\"\nprogram = \"rm\"\n[[action]]\nname = \"{name}\"\nsteps = [[\"true\"]]\n"
        );
        let (_, problem) = files.mistake(&text);
        assert!(problem.contains(expected), "{problem}");
    }
}

const SERVICES: &str = r#"
[[service]]
name = "box"
docker = "web-1"
allow_all = true
shell = true

[[service]]
name = "pod"
enter = ["true"]
into = ["pod/web", "--"]

[[allow]]
name = "list"
program = "ls"
args = ["**"]
services = ["pod"]

[[allow]]
name = "for_the_host"
program = "true"

[[deny]]
name = "no_rm"
program = "rm"
"#;

/// The client of an engine need not be here for its words to be known.
fn with_docker() -> (Desk, tempfile::TempDir) {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().unwrap();
    let docker = folder.path().join("docker");
    std::fs::write(&docker, "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(&docker, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut desk = Desk::new(&format!("modes = [\"exec\", \"shell\"]\n{SERVICES}"));
    desk.0.rules.path.insert(0, folder.path().to_owned());
    desk.0.rules.environment = desk.0.rules.environment_dangerous.clone();
    for name in ["LANG", "DOCKER_HOST", "LD_PRELOAD"] {
        let pattern = countersign_agent::rules::NamePattern::parse(name).unwrap();
        desk.0.rules.environment.push(pattern.clone());
        desk.0.rules.environment_dangerous.push(pattern);
    }
    (desk, folder)
}

#[test]
fn a_container_is_entered_with_each_word_apart_and_no_value_among_them() {
    let (desk, _folder) = with_docker();
    let mut spec = Book::spec(&["psql", "-c", "select 1; --"]);
    spec.cwd = Some("/srv/app dir".into());
    spec.user = Some("postgres".parse().unwrap());
    let allowed = desk
        .inside("box", &spec, &[("LANG", "secret value")])
        .unwrap();
    assert_eq!(
        words(&allowed),
        [[
            "docker",
            "exec",
            "--interactive",
            "--env",
            "LANG",
            "--env",
            "COUNTERSIGN_RUN",
            "--workdir",
            "/srv/app dir",
            "--user",
            "postgres",
            "web-1",
            "psql",
            "-c",
            "select 1; --",
        ]]
    );
    assert_eq!(allowed.env, [("LANG".into(), "secret value".into())]);
    let expected = Inside::Service {
        marked: true,
        descends: false,
    };
    assert_eq!(allowed.inside, expected);
    assert!(allowed.confinement.unheld);
    let script = CommandSpec {
        mode: Mode::Shell,
        ..Book::spec(&["cd /tmp && ls"])
    };
    let allowed = desk.inside("box", &script, &[]).unwrap();
    assert_eq!(
        words(&allowed)[0][5..],
        ["web-1", "/bin/sh", "-c", "cd /tmp && ls"]
    );
}

#[test]
fn a_variable_that_would_act_on_the_client_is_refused_even_where_the_host_allows_it() {
    let (desk, _folder) = with_docker();
    for name in ["DOCKER_HOST", "LD_PRELOAD"] {
        let refused = desk.inside("box", &Book::spec(&["true"]), &[(name, "x")]);
        assert_eq!(rule(refused), "service", "{name}");
    }
}

#[test]
fn rules_of_the_host_and_of_a_service_do_not_mix() {
    let (desk, _folder) = with_docker();
    let asked = |service: &str, words: &[&str]| desk.inside(service, &Book::spec(words), &[]);
    assert_eq!(asked("pod", &["ls", "-l"]).unwrap().rule.as_str(), "list");
    // A bare program means the bare name, whose search is the service's own.
    assert_eq!(rule(asked("pod", &["/bin/ls"])), "allow");
    assert_eq!(rule(asked("pod", &["true"])), "allow");
    assert_eq!(
        rule(desk.0.rules.judge(None, &Book::spec(&["ls"]), None)),
        "allow"
    );
    // Deny wins everywhere, over allow_all too.
    assert_eq!(rule(asked("box", &["rm", "x"])), "no_rm");
    assert_eq!(rule(asked("nowhere", &["ls"])), "service");
    let script = CommandSpec {
        mode: Mode::Shell,
        ..Book::spec(&["ls"])
    };
    assert_eq!(rule(desk.inside("pod", &script, &[])), "service");
    let action = CommandSpec {
        mode: Mode::Action,
        ..Book::spec(&["ls"])
    };
    assert_eq!(rule(desk.inside("pod", &action, &[])), "modes");
}

#[test]
fn what_a_service_cannot_be_handed_is_refused() {
    let (desk, _folder) = with_docker();
    let mut user = Book::spec(&["ls"]);
    user.user = Some("www".parse().unwrap());
    let mut cwd = Book::spec(&["ls"]);
    cwd.cwd = Some("/srv".into());
    for spec in [&user, &cwd] {
        assert_eq!(rule(desk.inside("pod", spec, &[])), "service");
    }
    let plain = Book::spec(&["ls"]);
    assert_eq!(
        rule(desk.inside("pod", &plain, &[("LANG", "C")])),
        "service"
    );
    let allowed = desk.inside("pod", &plain, &[]).unwrap();
    let expected = Inside::Service {
        marked: false,
        descends: false,
    };
    assert_eq!(allowed.inside, expected, "nobody can see what runs there");
}

#[test]
fn what_must_hold_a_command_is_not_lost_on_the_way_into_a_container() {
    let (mut desk, _folder) = with_docker();
    let spec = Book::spec(&["true"]);
    desk.0.rules.confine.demand = Some(countersign_agent::execution::Demand {
        seccomp: true,
        ..Default::default()
    });
    assert_eq!(rule(desk.inside("box", &spec, &[])), "demand");
    desk.0.rules.confine.demand = None;
    desk.0.rules.confine.profile = Some(countersign_agent::rules::Writes::Nothing);
    assert_eq!(rule(desk.inside("box", &spec, &[])), "profile");
}

#[test]
fn a_mistake_in_a_service_is_told_with_its_line() {
    let cases = [
        ("", "how it is entered"),
        ("enter = []", "how it is entered"),
        ("docker = \"--privileged\"", "a container is named by"),
        ("docker = \"a b\"", "a container is named by"),
        ("docker = \"a\"\npodman = \"a\"", "not in both"),
        ("docker = \"a\"\nenter = [\"x\"]", "say all of the way"),
        ("podman = \"a\"\ndescends = true", "say all of the way"),
        (
            "enter = [\"x\"]\ncwd = [\"--cwd\"]",
            "nothing would be carried",
        ),
        (
            "enter = [\"x\"]\nenv = [\"-e\", \"{1}\"]\ndescends = true",
            "leave env out",
        ),
        ("enter = [\"x\"]\nimage = \"y\"", "unknown field"),
    ];
    let files = Files::new();
    let head = least();
    for (text, expected) in cases {
        let (line, problem) = files.mistake(&format!("{head}[[service]]\nname = \"s\"\n{text}\n"));
        assert!(problem.contains(expected), "{text}: {problem}");
        assert!(line > head.lines().count(), "{text}: line {line}");
    }
    let rules = [
        ("services = [\"t\"]", "no [[service]] with the name t"),
        (
            &format!("services = [\"s\"]\nsha256 = [\"{}\"]", "ab".repeat(32)),
            "SHA-256 cannot be demanded",
        ),
        (
            "services = [\"s\"]\nconfine = { memory = \"1G\" }",
            "confine would do nothing",
        ),
    ];
    for (text, expected) in rules {
        let (_, problem) = files.mistake(&format!(
            "{head}[[service]]\nname = \"s\"\npodman = \"p\"\n[[allow]]\nname = \"r\"\nprogram = \"ls\"\n{text}\n"
        ));
        assert!(problem.contains(expected), "{text}: {problem}");
    }
}

#[test]
fn arguments_cannot_bend_a_word_into_what_its_template_is_not() {
    let desk = Desk::new(
        "[[action]]\nname = \"hidden\"\nargs = [\"*\"]\nsteps = [[\"ls\", \"/var/lib/app/.{1}\"]]\n\
         [[action]]\nname = \"joined\"\nargs = [\"*\", \"*\"]\nsteps = [[\"ls\", \"{1}{2}\"]]\n\
         [[action]]\nname = \"option\"\nargs = [\"*\", \"-{a,l}\"]\nsteps = [[\"ls\", \"{1}{2}\", \"{2}\"]]\n\
         [[action]]\nname = \"up\"\nargs = [\"*\"]\nsteps = [[\"ls\", \"/srv/../{1}\"]]\n",
    );
    assert_eq!(rule(desk.act(&["hidden", "."])), "hidden");
    assert_eq!(rule(desk.act(&["hidden", "./"])), "hidden");
    assert_eq!(rule(desk.act(&["joined", ".", "."])), "joined");
    assert_eq!(rule(desk.act(&["option", "", "-l"])), "option");
    assert!(desk.act(&["hidden", "x"]).is_ok());
    assert!(desk.act(&["joined", "a", "."]).is_ok());
    assert!(desk.act(&["option", "x", "-l"]).is_ok());
    // What the host itself wrote is the host's to answer for.
    assert!(desk.act(&["up", "x"]).is_ok());
}

#[test]
fn the_words_of_an_action_are_bounded() {
    let marks = "\"{1}\", ".repeat(20);
    let desk = Desk::new(&format!(
        "[[action]]\nname = \"many\"\nargs = [\"*\"]\nsteps = [[\"echo\", {marks}\"end\"]]\n"
    ));
    assert!(desk.act(&["many", &"\"".repeat(20_000)]).is_ok());
    assert_eq!(rule(desk.act(&["many", &"\"".repeat(130_000)])), "many");
}

#[test]
fn where_an_action_runs_and_with_what_is_its_hosts_to_say() {
    let desk = Desk::new(
        "environment = [\"LANG\"]\n[[action]]\nname = \"plain\"\nsteps = [[\"true\"]]\n\
         [[action]]\nname = \"placed\"\ncwd = \"/tmp\"\nenv = true\nstdin = true\nsteps = [[\"true\"]]\n",
    );
    let asked = |name: &str, cwd: Option<&str>, env: &[(&str, &str)]| {
        let spec = CommandSpec {
            mode: Mode::Action,
            cwd: cwd.map(str::to_owned),
            ..Book::spec(&[name])
        };
        let env = env
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let env = Environment::new(env.collect()).unwrap();
        desk.0.rules.judge(None, &spec, Some(&env))
    };
    let plain = asked("plain", None, &[]).unwrap();
    assert_eq!(plain.cwd, std::path::Path::new("/"));
    assert!(!plain.stdin);
    assert_eq!(rule(asked("plain", Some("/tmp"), &[])), "plain");
    assert_eq!(rule(asked("plain", None, &[("LANG", "C")])), "plain");
    let placed = asked("placed", None, &[("LANG", "C")]).unwrap();
    assert_eq!(placed.cwd, std::path::Path::new("/tmp"));
    assert!(placed.stdin);
    assert!(asked("placed", Some("/tmp"), &[]).is_ok());
    assert_eq!(rule(asked("placed", Some("/"), &[])), "placed");
}

#[test]
fn a_program_that_looks_like_an_option_does_not_steer_what_enters() {
    let (mut desk, _folder) = with_docker();
    desk.0.rules.services[1].allow_all = true;
    for word in ["--target=1", "--", "-"] {
        let refused = desk.inside("pod", &Book::spec(&[word, "cat", "/etc/shadow"]), &[]);
        assert_eq!(rule(refused), "service", "{word}");
    }
}

#[test]
fn a_deny_rule_is_read_broadly_inside_a_service_too() {
    let denying = |what: &str| {
        Desk::new(&format!(
            "[[service]]\nname = \"s\"\nenter = [\"true\"]\nuser = [\"-u\", \"{{1}}\"]\nallow_all = true\n\
             [[deny]]\nname = \"no\"\n{what}\n"
        ))
    };
    let asked = |desk: &Desk, user: Option<&str>, word: &str| {
        let mut spec = Book::spec(&[word]);
        spec.user = user.map(|user| user.parse().unwrap());
        desk.inside("s", &spec, &[])
            .err()
            .and_then(|refused| refused.rule)
    };
    let no = "no".parse().ok();
    let root = denying("users = [\"root\"]");
    for user in [
        Some("root"),
        Some("root:root"),
        Some("0"),
        Some("0:0"),
        None,
    ] {
        assert_eq!(asked(&root, user, "ls"), no, "{user:?}");
    }
    assert_eq!(asked(&root, Some("www"), "ls"), None);
    assert_eq!(asked(&denying("users = [\"0\"]"), Some("root"), "ls"), no);
    for pattern in ["/usr/bin/rm", "/usr/*", "/{bin,usr/bin}/r?", "rm"] {
        let desk = denying(&format!("program = \"{pattern}\""));
        assert_eq!(asked(&desk, Some("www"), "rm"), no, "{pattern}");
    }
    let desk = denying("program = \"/usr/bin/rm\"");
    assert_eq!(asked(&desk, Some("www"), "/usr/bin/rm"), no);
    assert_eq!(asked(&desk, Some("www"), "ls"), None);
    let desk = denying(&format!("sha256 = [\"{}\"]", "ab".repeat(32)));
    assert_eq!(asked(&desk, Some("www"), "ls"), no, "it could be that one");
}

/// The first block of the manual behind this mark.
fn manual(mark: &str) -> &'static str {
    let manual = include_str!("../../../docs/AGENT.md");
    let (_, rest) = manual
        .split_once(&format!("<!-- {mark} -->\n```toml\n"))
        .unwrap();
    rest.split_once("```").unwrap().0
}

#[test]
fn the_examples_of_the_manual_do_what_it_says() {
    let actions = Desk::new(manual("actions"));
    let action = &actions.0.rules.actions[0];
    assert_eq!(action.steps[1].to_string(), "systemctl is-active {1}");
    let wrong = actions.act(&["restart_service", "sshd.service"]);
    assert_eq!(rule(wrong), "restart_service");
    let services = Desk::new(&format!(
        "modes = [\"exec\", \"shell\"]\n{}",
        manual("services")
    ));
    let listed = services.inside("app", &Book::spec(&["cat", "/etc/motd"]), &[]);
    let missing = listed.err().map(|refused| refused.detail);
    // Where there is a podman it is allowed, elsewhere only the client is missing.
    assert!(missing.is_none_or(|detail| detail.contains("cannot be entered")));
    assert_eq!(
        rule(services.inside("app", &Book::spec(&["rm", "x"]), &[])),
        "allow"
    );
    let ways = &services.0.rules.services;
    assert!(ways[1].way.descends && ways[1].way.cwd.is_none());
    assert_eq!(ways[2].way.into, ["pod/web-1", "--"]);
}
