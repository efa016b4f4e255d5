//! `agent.toml`: a missing pin is never a yes, and a mistake is told with its line. ATTACKS row 26.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

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

struct Files {
    folder: tempfile::TempDir,
    path: PathBuf,
}

impl Files {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let line = |name: &str| format!("{name} {}\n", public(name).to_openssh());
        let signers = ["alice", "bob"].map(line).concat();
        fs::write(folder.path().join("allowed_signers"), signers).unwrap();
        let path = folder.path().join("agent.toml");
        Self { folder, path }
    }

    fn load(&self, text: &str) -> Result<Config, ConfigError> {
        fs::write(&self.path, text).unwrap();
        Config::load(&self.path)
    }

    fn mistake(&self, text: &str) -> (usize, String) {
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

fn least() -> String {
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
    assert_eq!(config.rules.modes, [Mode::Exec]);
    assert!(config.rules.environment_dangerous.is_empty());
    assert_eq!(config.rules.account.default_user, None);
    assert_eq!(config.state, files.folder.path().join("state"));
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
        ("max_runs = 0", "between"),
        ("grace_s = 3600", "between"),
        ("modes = [\"sudo\"]", "sudo"),
        ("path = [\"bin\"]", "absolute"),
        ("environment = [\"*\"]", "NAME"),
        ("environment_dangerous = [\"LD PRELOAD\"]", "NAME"),
        ("default_user = \"a b\"", "user name"),
        ("execution = yes", ""),
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
