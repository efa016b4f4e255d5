//! `agent.toml`: a missing pin is never a yes, and a mistake is told with its line. ATTACKS row 26.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use countersign_agent::config::Variables;
use countersign_agent::execution::Demand;
use countersign_agent::rules::{Cap, CgroupCaps, Confine, RunAs, Writes};
use countersign_agent::{Config, ConfigError};
use countersign_protocol::checkpoint::VerifierKey;
use countersign_protocol::command::Mode;
use countersign_protocol::name::SECOND_US;

use crate::support::public;

const PINS: [&str; 7] = [
    "server",
    "name",
    "state",
    "ledger",
    "origin",
    "vkey",
    "allowed_signers",
];

pub(crate) struct Files {
    pub(crate) folder: tempfile::TempDir,
    path: PathBuf,
}

impl Files {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let line = |name: &str| format!("{name} {}\n", public(name).to_openssh());
        let signers = ["alice", "bob"].map(line).concat();
        fs::write(folder.path().join("allowed_signers"), signers).unwrap();
        let path = folder.path().join("agent.toml");
        Self { folder, path }
    }

    pub(crate) fn load(&self, text: &str) -> Result<Config, ConfigError> {
        fs::write(&self.path, text).unwrap();
        Config::load_with(&self.path, Variables::default())
    }

    pub(crate) fn load_with(
        &self,
        text: &str,
        variables: &[(&str, &str)],
    ) -> Result<Config, ConfigError> {
        fs::write(&self.path, text).unwrap();
        let pairs = variables
            .iter()
            .map(|(name, value)| (format!("COUNTERSIGN_AGENT_{name}").into(), value.into()));
        Config::load_with(&self.path, pairs.collect())
    }

    pub(crate) fn mistake(&self, text: &str) -> (usize, String) {
        match self.load(text) {
            Err(ConfigError::Mistake { line, problem, .. }) => (line, problem),
            other => panic!("no mistake was found: {other:?}"),
        }
    }
}

fn vkey() -> String {
    let origin = "ledger.example.com".parse().unwrap();
    VerifierKey::of(&origin, &public("checkpoint"))
        .unwrap()
        .to_string()
}

pub(crate) fn least() -> String {
    let ledger = "ab".repeat(32);
    let vkey = vkey();
    format!(
        "server = \"http://127.0.0.1:8080\"\nname = \"web-1\"\nstate = \"state\"\n\
         ledger = \"{ledger}\"\norigin = \"ledger.example.com\"\nvkey = \"{vkey}\"\n\
         allowed_signers = \"allowed_signers\"\n"
    )
}

#[test]
fn with_the_pins_alone_everything_else_is_strict() {
    let files = Files::new();
    let config = files.load(&least()).unwrap();
    assert!(!config.rules.execution);
    assert_eq!(
        (config.rules.min_approvals, config.rules.shell_min_approvals),
        (2, 2)
    );
    assert_eq!(config.rules.max_approval_age_us, 3600 * SECOND_US);
    assert!(config.rules.break_glass.is_empty() && !config.rules.gateway_may_cancel);
    assert_eq!(config.rules.modes, [Mode::Exec, Mode::Action]);
    assert!(config.rules.environment_dangerous.is_empty());
    assert_eq!(config.rules.account.default_user, None);
    assert_eq!(config.state, files.folder.path().join("state"));
    assert_eq!(config.drain, Duration::from_secs(10));
    assert_eq!(config.spool_max, 256 << 20);
    assert_eq!(config.signers.people().len(), 2);
}

#[test]
fn every_pin_must_be_there() {
    let files = Files::new();
    for pin in PINS {
        let without: String = least()
            .lines()
            .filter(|line| !line.starts_with(pin))
            .map(|line| format!("{line}\n"))
            .collect();
        let (_, problem) = files.mistake(&without);
        assert!(problem.contains(pin), "{pin}: {problem}");
    }
}

#[test]
fn a_mistake_is_told_with_its_line() {
    let files = Files::new();
    for (line, word) in [
        ("min_approvals = 0", "unattended"),
        ("shell_min_approvals = 0", "unattended"),
        ("min_aprovals = 2", "min_aprovals"),
        ("max_approval_age_s = 0", "between"),
        ("break_glass = [\"mallory\"]", "not in allowed_signers"),
        ("break_glass = \"alice\"", "sequence"),
        ("gateway_may_cancel = 1", "bool"),
        ("max_runs = 0", "between"),
        ("grace_s = 3600", "between"),
        ("drain_s = 301", "between"),
        ("idle_every_s = 86401", "between"),
        ("spool_max = \"4M\"", "between"),
        ("spool_max = \"none\"", "between"),
        ("spool_max = \"8E\"", "size like"),
        ("modes = [\"sudo\"]", "sudo"),
        ("path = [\"bin\"]", "absolute"),
        ("environment = [\"*\"]", "NAME"),
        ("environment_dangerous = [\"LD PRELOAD\"]", "NAME"),
        ("default_user = \"a b\"", "user name"),
        ("execution = yes", ""),
        ("allow_all = 1", "bool"),
        ("users = [\"a b\"]", "user name"),
        ("shell.alow = true", "alow"),
        ("shell.min_approvals = 0", "unattended"),
        ("run_as = \"su\"", "setuid"),
        ("sudo = \"sudo\"", "absolute"),
        (
            "default_user = \"deploy\"\nusers = [\"www\"]",
            "users does not",
        ),
        (
            "shell_min_approvals = 3\nshell.min_approvals = 3",
            "keep one",
        ),
    ] {
        let (at, problem) = files.mistake(&format!("{}\n{line}\n", least()));
        assert_eq!(at, 9, "{line}: {problem}");
        assert!(problem.contains(word), "{line}: {problem}");
    }
}

#[test]
fn pins_that_contradict_each_other_are_refused() {
    let files = Files::new();
    let other = least().replace("origin = \"ledger", "origin = \"other");
    assert_eq!(files.mistake(&other).0, 5);
    let other = least().replace(&vkey(), &vkey().replace("ledger", "other"));
    assert_eq!(files.mistake(&other).0, 6);
    for server in [
        "ftp://x",
        "http://",
        "nonsense",
        "http://u@x/",
        "http://x/?q",
    ] {
        let other = least().replace("http://127.0.0.1:8080", server);
        assert_eq!(files.mistake(&other).0, 1, "{server}");
    }
}

#[test]
fn no_approval_at_all_must_be_meant() {
    let files = Files::new();
    for setting in ["min_approvals", "shell_min_approvals"] {
        let (_, problem) = files.mistake(&format!("{}{setting} = 0\n", least()));
        assert!(problem.contains("unattended"), "{problem}");
    }
    let text = format!("{}min_approvals = 0\nunattended = true\n", least());
    assert_eq!(files.load(&text).unwrap().rules.min_approvals, 0);
}

#[test]
fn a_file_that_others_could_change_is_not_read() {
    let files = Files::new();
    files.load(&least()).unwrap();
    for file in [
        files.path.clone(),
        files.folder.path().join("allowed_signers"),
    ] {
        for mode in [0o664, 0o646] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            assert!(matches!(
                Config::load(&files.path),
                Err(ConfigError::Writable(_))
            ));
        }
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    }
}

#[test]
fn an_empty_or_wrong_list_of_signers_stops_the_start() {
    let files = Files::new();
    for text in ["", "# nobody\n", "* ssh-ed25519 AAAA\n"] {
        fs::write(files.folder.path().join("allowed_signers"), text).unwrap();
        assert!(
            matches!(files.load(&least()), Err(ConfigError::Signers { .. })),
            "{text:?}"
        );
    }
    fs::remove_file(files.folder.path().join("allowed_signers")).unwrap();
    assert!(matches!(
        files.load(&least()),
        Err(ConfigError::Read { .. })
    ));
}

/// The line of the mistake in a file whose rules begin on line 9, and what is told.
fn rule_mistake(rules: &str) -> (usize, String) {
    Files::new().mistake(&format!("{}\n{rules}", least()))
}

#[test]
fn a_mistake_in_a_rule_is_told_with_its_line() {
    let head = "[[allow]]\nname = \"a\"\nprogram = \"/bin/a\"\n";
    for (line, word) in [
        ("args = [\n\"ok\",\n\"a**\"]", "**"),
        ("args = [\n\"ok\",\n\"**\",\n\"a\"]", "**"),
        ("args_not = [\n\"ok\",\n\"{a\"]", "braces"),
        ("\n\narg = [\"a\"]", "arg"),
        ("\n\nsha256 = [\"abc\"]", "sha256sum"),
        ("\n\nmin_approvals = 0", "between"),
        ("\n\ntimeout_s = 0", "between"),
        ("\n\ntimeout_s = 301", "between"),
        ("\n\nusers = [\"a b\"]", "user name"),
        ("\n\n[[allow]]\nname = \"b\"", "program"),
    ] {
        let (at, problem) = rule_mistake(&format!("{head}{line}\n"));
        assert_eq!(at, 14, "{line}: {problem}");
        assert!(problem.contains(word), "{line}: {problem}");
    }
    for program in ["bin/a", "./a", "{/bin,usr}/a", "", "{/bin/,}a"] {
        let (at, problem) = rule_mistake(&head.replace("/bin/a", program));
        assert_eq!(at, 11, "{program}");
        assert!(problem.contains("absolute"), "{program}: {problem}");
    }
    let (at, problem) = rule_mistake("[[deny]]\nname = \"all\"\n");
    assert_eq!(at, 10);
    assert!(problem.contains("execution = false"), "{problem}");
}

#[test]
fn two_rules_of_one_name_and_a_rule_named_like_a_setting_are_mistakes() {
    let rule = |name: &str, program: &str| {
        format!("[[allow]]\nname = \"{name}\"\nprogram = \"{program}\"\n")
    };
    let (at, problem) = rule_mistake(&format!("{}{}", rule("a", "x"), rule("a", "y")));
    assert_eq!(at, 13);
    assert!(problem.contains("another rule"), "{problem}");
    let (at, problem) = rule_mistake(&rule("modes", "x"));
    assert_eq!(at, 10);
    assert!(problem.contains("setting"), "{problem}");
}

#[test]
fn a_rule_that_could_never_be_reached_is_a_mistake() {
    let rule = |name: &str, more: &str| {
        format!("[[allow]]\nname = \"{name}\"\nprogram = \"echo\"\n{more}\n")
    };
    for (first, second, hides) in [
        ("", "", true),
        ("", "min_approvals = 3", true),
        ("args = [\"a\"]", "args = [\"a\"]", true),
        ("args = [\"**\"]", "args = [\"a\", \"-f\"]", true),
        (
            "args = [\"**\"]\nargs_not = [\"-f\"]",
            "args = [\"-f\"]",
            false,
        ),
        ("args = [\"*\"]", "args = [\"-f\"]", false),
        ("users = [\"a\"]", "", false),
        ("args = [\"a\"]", "args = [\"a\", \"**\"]", false),
    ] {
        let text = format!("{}\n{}{}", least(), rule("one", first), rule("two", second));
        let files = Files::new();
        if hides {
            let (at, problem) = files.mistake(&text);
            assert_eq!(at, 13 + first.matches('\n').count(), "{first} {second}");
            assert!(
                problem.contains("two is never reached, as one"),
                "{problem}"
            );
        } else {
            files.load(&text).unwrap();
        }
    }
    let deny = "[[deny]]\nname = \"no\"\nprogram = \"echo\"\n";
    let (_, problem) = rule_mistake(&format!("{}{deny}", rule("one", "")));
    assert!(problem.contains("one is never reached, as no"), "{problem}");
    let (at, _) = rule_mistake(&format!("{deny}{}", deny.replace("no", "again")));
    assert_eq!(at, 12);
}

/// What the variables of the next test say.
fn everything_confined() -> Confine {
    Confine {
        protected: Some(["/srv/a", "/srv/b"].map(PathBuf::from).to_vec()),
        protect_own: Some(false),
        profile: Some(Writes::Nothing),
        cpu_s: Some(Cap::At(10)),
        memory: Some(Cap::At(1 << 30)),
        processes: Some(Cap::At(100)),
        file_size: Some(Cap::Lifted),
        open_files: Some(Cap::At(64)),
        cgroup: Some(CgroupCaps {
            memory: Some(Cap::At(64 << 20)),
            cpu_percent: Some(Cap::At(150)),
            processes: Some(Cap::At(9)),
        }),
        seccomp: Some(true),
        demand: Some(Demand {
            seccomp: true,
            landlock: true,
            ..Demand::default()
        }),
        umask: Some(0o077),
    }
}

#[test]
fn every_setting_can_come_from_the_environment_which_wins() {
    let ledger = "cd".repeat(32);
    let vkey = vkey();
    let given = [
        ("SERVER", "https://other.example.com"),
        ("NAME", "web-2"),
        ("STATE", "/elsewhere"),
        ("LEDGER", &ledger),
        ("ORIGIN", "ledger.example.com"),
        ("VKEY", &vkey),
        ("ALLOWED_SIGNERS", "allowed_signers"),
        ("EXECUTION", "true"),
        ("MIN_APPROVALS", "0"),
        ("UNATTENDED", "true"),
        ("SHELL_MIN_APPROVALS", "7"),
        ("MAX_APPROVAL_AGE_S", "60"),
        ("ALLOW_ALL", "true"),
        ("DEFAULT_USER", "deploy"),
        ("MAX_RUNS", "3"),
        ("GRACE_S", "1"),
        ("DRAIN_S", "30"),
        ("SPOOL_MAX", "32M"),
        ("SHELL_ALLOW", "true"),
        ("MODES", "shell"),
        ("PATH", "/opt/bin,/bin"),
        ("ENVIRONMENT", "A,B*"),
        ("ENVIRONMENT_DANGEROUS", "PATH"),
        ("USERS", "deploy, www"),
        ("RUN_AS", "sudo"),
        ("SUDO", "/opt/bin/sudo"),
        ("CONFINE_PROTECTED", "/srv/a,/srv/b"),
        ("CONFINE_PROTECT_OWN", "false"),
        ("CONFINE_PROFILE", "read-only"),
        ("CONFINE_CPU_S", "10"),
        ("CONFINE_MEMORY", "1G"),
        ("CONFINE_PROCESSES", "100"),
        ("CONFINE_FILE_SIZE", "none"),
        ("CONFINE_OPEN_FILES", "64"),
        ("CONFINE_CGROUP_MEMORY", "64M"),
        ("CONFINE_CGROUP_CPU_PERCENT", "150"),
        ("CONFINE_CGROUP_PROCESSES", "9"),
        ("CONFINE_SECCOMP", "true"),
        ("CONFINE_DEMAND", "seccomp,landlock"),
        ("CONFINE_UMASK", "077"),
        ("BREAK_GLASS", "alice,bob"),
        ("GATEWAY_MAY_CANCEL", "true"),
    ];
    let files = Files::new();
    let file = format!("{}min_approvals = 5\nshell.min_approvals = 5\n", least());
    // From the file, and from the environment alone.
    for text in [file.as_str(), ""] {
        let config = files.load_with(text, &given).unwrap();
        let rules = &config.rules;
        assert_eq!(config.server.as_str(), "https://other.example.com/");
        assert_eq!(config.name.as_str(), "web-2");
        assert_eq!(config.state, PathBuf::from("/elsewhere"));
        assert_eq!(config.ledger.to_string(), ledger);
        assert_eq!((config.max_runs, config.grace.as_secs()), (3, 1));
        assert_eq!((config.drain.as_secs(), config.spool_max), (30, 32 << 20));
        assert!(rules.execution && rules.commands.allow_all && rules.shell);
        assert_eq!((rules.min_approvals, rules.shell_min_approvals), (0, 7));
        assert_eq!(rules.max_approval_age_us, 60 * SECOND_US);
        assert_eq!(
            rules.break_glass,
            ["alice", "bob"].map(|name| name.parse().unwrap())
        );
        assert!(rules.gateway_may_cancel);
        assert_eq!(rules.modes, [Mode::Shell]);
        assert_eq!(rules.path, ["/opt/bin", "/bin"].map(PathBuf::from));
        assert_eq!(
            (rules.environment.len(), rules.environment_dangerous.len()),
            (2, 1)
        );
        assert_eq!(rules.account.default_user, "deploy".parse().ok());
        assert_eq!(rules.account.users.as_ref().unwrap().len(), 2);
        assert_eq!(rules.account.run_as, RunAs::Sudo("/opt/bin/sudo".into()));
        assert_eq!(rules.confine, everything_confined());
    }
    // Nothing of the environment, nothing taken over.
    let config = files.load(&file).unwrap();
    assert_eq!(
        (config.rules.min_approvals, config.name.as_str()),
        (5, "web-1")
    );
}

#[test]
fn a_mistake_in_the_environment_names_the_variable() {
    let files = Files::new();
    for (name, value) in [
        ("MIN_APPROVALS", "0"),
        ("MIN_APPROVALS", "two"),
        ("MAX_RUNS", "0"),
        ("EXECUTION", "yes"),
        ("EXECUTION", ""),
        ("MODES", "sudo"),
        ("PATH", "bin"),
        ("ENVIRONMENT", "*"),
        ("SERVER", "ftp://x"),
        ("USERS", "a b"),
        ("RUN_AS", "su"),
        ("SUDO", "sudo"),
        ("CONFINE_CPU_S", "0"),
        ("CONFINE_MEMORY", "1 G"),
        ("CONFINE_DEMAND", "selinux"),
        ("CONFINE_PROTECTED", "etc"),
        ("CONFINE_UMASK", "8"),
        ("CONFINE_CPUS", "1"),
        ("MIN_APROVALS", "3"),
    ] {
        match files.load_with(&least(), &[(name, value)]) {
            Err(ConfigError::Variable {
                name: told,
                problem,
            }) => {
                assert_eq!(told, format!("COUNTERSIGN_AGENT_{name}"));
                assert!(!problem.is_empty());
            }
            other => panic!("{name}={value}: {other:?}"),
        }
    }
    // Where the file is, is said the same way and is no setting.
    assert!(files.load_with(&least(), &[("CONFIG", "/x")]).is_ok());
}

#[test]
fn the_example_of_the_manual_is_in_order_once_its_pins_are_filled_in() {
    let example = include_str!("../../../docs/examples/agent.toml");
    let key = vkey();
    let pins = [("VKEY", key.as_str()), ("ORIGIN", "ledger.example.com")];
    let files = Files::new();
    let rules = files.load_with(example, &pins).unwrap().rules;
    assert!(!rules.execution && !rules.commands.allow_all && !rules.shell);
    assert_eq!(
        (rules.commands.allow.len(), rules.commands.deny.len()),
        (2, 1)
    );
    // What it shows in comments can be taken as it stands.
    let uncommented: String = example
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(setting) if !setting.starts_with(' ') => format!("{setting}\n"),
            _other => format!("{line}\n"),
        })
        .collect();
    // Whom it lists must be somebody: this host's allowed_signers know her by another name.
    let uncommented = uncommented.replace("alice@example.com", "alice");
    // A CA file is read; another test has one.
    let uncommented = uncommented.replace("ca = \"ca.pem\"\n", "");
    let folder = files.folder.path();
    fs::copy(
        folder.join("allowed_signers"),
        folder.join("administrators"),
    )
    .unwrap();
    fs::write(folder.join("witnesses"), "quorum none\n").unwrap();
    let config = files.load_with(&uncommented, &pins).unwrap();
    assert!(config.witnesses.is_some());
    assert_eq!(config.snapshot.unwrap().threshold, 2);
    assert_eq!(config.max_checkpoint_age_us, Some(300 * SECOND_US));
    let rules = files.load_with(&uncommented, &pins).unwrap().rules;
    assert!(rules.shell);
    assert_eq!(rules.break_glass.len(), 1);
    assert_eq!(
        (rules.commands.allow.len(), rules.shell_min_approvals),
        (4, 3)
    );
    assert_eq!((rules.actions.len(), rules.services.len()), (1, 1));
}
