//! `[[allow]]` and `[[deny]]`: what may run with which arguments. CAPABILITIES B, ATTACKS row 26.
//!
//! Rules are read from a real file, and asked as a grant asks them.

use std::fs;
use std::path::{Path, PathBuf};

use countersign_agent::rules::{Directory, LocalRefusal, NOT_LISTED, Rules};
use countersign_protocol::command::{CommandSpec, Mode};
use countersign_protocol::event::RefusalReason;

use crate::config::{Files, least};
use crate::support::{Book, World, people};

/// A host with programs of its own and rules from a file.
pub(crate) struct Desk {
    pub(crate) files: Files,
    pub(crate) bin: PathBuf,
    pub(crate) rules: Rules,
}

impl Desk {
    pub(crate) fn new(rules: &str) -> Self {
        let files = Files::new();
        let bin = files.folder.path().canonicalize().unwrap().join("bin");
        fs::create_dir(&bin).unwrap();
        for name in ["systemctl", "truncate", "apt-get", "rm", "echo"] {
            // A copy, so that the path is this and no link.
            fs::copy("/bin/true", bin.join(name)).unwrap();
        }
        let head = format!("execution = true\npath = [{bin:?}]\n");
        let text = format!("{}{head}{rules}", least()).replace("BIN", bin.to_str().unwrap());
        let mut rules = files.load(&text).unwrap().rules;
        // The tests pass as root and as anybody.
        let account = &mut rules.account;
        (account.uid, account.gid, account.name) = (1000, 1000, Some("agent".into()));
        account.directory = Directory::These(people());
        Self { files, bin, rules }
    }

    fn ask(&self, words: &[&str]) -> Result<String, LocalRefusal> {
        self.ask_spec(&Book::spec(words))
    }

    fn ask_spec(&self, spec: &CommandSpec) -> Result<String, LocalRefusal> {
        let allowed = self.rules.judge(None, spec, None)?;
        Ok(allowed.rule.to_string())
    }

    fn refusal(&self, words: &[&str]) -> (RefusalReason, String) {
        let refusal = self.ask(words).expect_err(&words.join(" "));
        (refusal.why, refusal.rule.unwrap().to_string())
    }

    /// Refused because no rule speaks of it.
    #[track_caller]
    fn is_unlisted(&self, words: &[&str]) {
        let refusal = self.ask(words).expect_err(&words.join(" "));
        assert_eq!(refusal.detail, NOT_LISTED, "{words:?}");
        assert_eq!(refusal.why, RefusalReason::NotAllowed);
        assert_eq!(refusal.rule, "allow".parse().ok());
    }
}

const SERVICE: &str = r#"
[[allow]]
name = "restart_service"
program = "systemctl"
args = ["restart", "*.service"]
"#;

#[test]
fn no_rule_at_all_allows_nothing() {
    let desk = Desk::new("");
    desk.is_unlisted(&["echo"]);
    desk.is_unlisted(&["true"]);
    assert_eq!(
        Desk::new("allow_all = true\n").ask(&["echo"]).unwrap(),
        "allow_all"
    );
    Desk::new("allow_all = false\n").is_unlisted(&["echo"]);
}

#[test]
fn nginx_service_is_allowed_where_a_unit_is_meant_and_force_is_not() {
    let desk = Desk::new(SERVICE);
    for unit in ["nginx.service", "getty@tty1.service", "a-b_c.service"] {
        let ask = desk.ask(&["systemctl", "restart", unit]);
        assert_eq!(ask.unwrap(), "restart_service", "{unit}");
    }
    for words in [
        ["systemctl", "restart", "--force"].as_slice(),
        &["systemctl", "restart", "--force.service"],
        &["systemctl", "restart", "-H.service"],
        &["systemctl", "restart", "nginx.service\n"],
        &["systemctl", "restart", "nginx.service\n--force"],
        &["systemctl", "restart", "nginx\n.service"],
        &["systemctl", "restart", "/tmp/evil.service"],
        &["systemctl", "restart", "..service/../x.service"],
        &["systemctl", "restart", "nginx.service", "--force"],
        &["systemctl", "restart", "nginx.service", "sshd.service"],
        &["systemctl", "restart", "nginx.services"],
        &["systemctl", "restart", " nginx.service "],
        &["systemctl", "restart", "nginx"],
        &["systemctl", "restart"],
        &["systemctl", "--force", "restart", "nginx.service"],
        &["systemctl", "stop", "nginx.service"],
        &["systemctl", "RESTART", "nginx.service"],
        &["systemctl"],
        &["echo", "restart", "nginx.service"],
    ] {
        desk.is_unlisted(words);
    }
}

#[test]
fn a_bare_program_is_the_one_in_the_folders_of_path() {
    let desk = Desk::new(SERVICE);
    let elsewhere = desk
        .files
        .folder
        .path()
        .canonicalize()
        .unwrap()
        .join("systemctl");
    fs::copy("/bin/true", &elsewhere).unwrap();
    let own = desk.bin.join("systemctl");
    let run = |program: &Path| desk.ask(&[program.to_str().unwrap(), "restart", "a.service"]);
    assert!(run(&own).is_ok());
    assert_eq!(run(&elsewhere).unwrap_err().detail, NOT_LISTED);
    // The same file by another text is another text.
    let detour = desk.bin.join("../bin/systemctl");
    assert_eq!(run(&detour).unwrap_err().detail, NOT_LISTED);
}

#[test]
fn a_path_is_matched_whole_and_dots_do_not_lead_out_of_it() {
    let desk = Desk::new("[[allow]]\nname = \"tools\"\nprogram = \"BIN/e*\"\nargs = [\"**\"]\n");
    let at = |path: &str| {
        let path = format!("{}{path}", desk.bin.display());
        desk.ask(&[&path]).map_err(|refusal| refusal.detail)
    };
    assert_eq!(at("/echo").unwrap(), "tools");
    for path in ["/rm", "//echo", "/./echo", "/../bin/echo", "/e/../rm"] {
        assert!(at(path).is_err(), "{path}");
    }
    assert_eq!(desk.ask(&["echo"]).unwrap(), "tools");
}

#[test]
fn deny_wins_over_allow_wherever_it_stands() {
    let desk = Desk::new(
        "allow_all = true\n\
         [[allow]]\nname = \"all_rm\"\nprogram = \"rm\"\nargs = [\"**\"]\n\
         [[deny]]\nname = \"no_root\"\nprogram = \"rm\"\nany_arg = [\"/\", \"/etc*\"]\n\
         reason = \"it would be gone\"\n\
         [[deny]]\nname = \"no_force\"\nprogram = \"systemctl\"\nany_arg = [\"--force*\"]\n\
         [[deny]]\nname = \"no_upgrade\"\nprogram = \"apt-get\"\nargs = [\"*\", \"dist-upgrade\", \"**\"]\n",
    );
    assert_eq!(desk.ask(&["rm", "-rf", "/tmp/x"]).unwrap(), "all_rm");
    let denied = |words: &[&str]| desk.refusal(words);
    let by = |rule: &str| (RefusalReason::NotAllowed, rule.to_owned());
    assert_eq!(denied(&["rm", "-rf", "/"]), by("no_root"));
    assert_eq!(denied(&["rm", "/etc/a/b\n"]), by("no_root"));
    assert_eq!(denied(&["systemctl", "restart", "--force"]), by("no_force"));
    assert_eq!(denied(&["apt-get", "-y", "dist-upgrade"]), by("no_upgrade"));
    assert_eq!(desk.ask(&["apt-get", "update"]).unwrap(), "allow_all");
    let refusal = desk.ask(&["rm", "/"]).unwrap_err();
    assert!(refusal.detail.contains("it would be gone"), "{refusal:?}");
}

#[test]
fn a_link_or_a_detour_does_not_evade_a_deny_rule() {
    let desk = Desk::new(
        "allow_all = true\n[[deny]]\nname = \"no_rm\"\nprogram = \"BIN/rm\"\n\
         [[deny]]\nname = \"no_echo\"\nprogram = \"echo\"\n",
    );
    let link = desk.files.folder.path().join("harmless");
    std::os::unix::fs::symlink(desk.bin.join("rm"), &link).unwrap();
    let copy = desk.files.folder.path().join("echo");
    fs::copy("/bin/true", &copy).unwrap();
    let detour = desk.bin.join("../bin/rm");
    for (path, rule) in [(&link, "no_rm"), (&detour, "no_rm"), (&copy, "no_echo")] {
        assert_eq!(desk.refusal(&[path.to_str().unwrap()]).1, rule, "{path:?}");
    }
}

#[test]
fn a_rule_takes_no_argument_that_it_does_not_name() {
    let desk = Desk::new("[[allow]]\nname = \"bare\"\nprogram = \"echo\"\n");
    assert!(desk.ask(&["echo"]).is_ok());
    desk.is_unlisted(&["echo", ""]);
    desk.is_unlisted(&["echo", "x"]);
}

#[test]
fn any_further_arguments_are_still_held_against_args_not() {
    let desk = Desk::new(
        "[[allow]]\nname = \"look\"\nprogram = \"echo\"\nargs = [\"in\", \"**\"]\n\
         args_not = [\"--delete*\", \"*passwd*\"]\n",
    );
    assert!(desk.ask(&["echo", "in"]).is_ok());
    assert!(desk.ask(&["echo", "in", "-l", "/a/b", "ü"]).is_ok());
    desk.is_unlisted(&["echo", "in", "a", "--delete=now"]);
    desk.is_unlisted(&["echo", "in", "/etc/passwd\nx"]);
    desk.is_unlisted(&["echo", "in", "/etc/passwd"]);
    for control in ["a\n", "\t", "\u{1b}[2J", "a\u{85}b"] {
        desk.is_unlisted(&["echo", "in", control]);
    }
}

#[test]
fn a_rule_can_demand_the_digest_of_the_program() {
    use sha2::{Digest as _, Sha256};
    let digest = hex::encode(Sha256::digest(fs::read("/bin/true").unwrap()));
    let rule = |digest: &str| {
        format!(
            "allow_all = true\n[[allow]]\nname = \"pinned\"\nprogram = \"echo\"\nsha256 = [{digest:?}]\n"
        )
    };
    let desk = Desk::new(&rule(&digest));
    assert_eq!(desk.ask(&["echo"]).unwrap(), "pinned");
    // Changed since: refused in the rule's name, and no later rule is asked.
    let file = desk.bin.join("echo");
    let mut bytes = fs::read(&file).unwrap();
    bytes.push(0);
    fs::write(&file, bytes).unwrap();
    assert_eq!(desk.refusal(&["echo"]).1, "pinned");
    // A program that is not there has no digest.
    fs::remove_file(&file).unwrap();
    assert_eq!(desk.refusal(&["echo"]).1, "pinned");
}

#[test]
fn a_longer_timeout_than_the_rule_gives_is_refused_and_not_shortened() {
    let desk = Desk::new("[[allow]]\nname = \"quick\"\nprogram = \"echo\"\ntimeout_s = 60\n");
    let mut spec = Book::spec(&["echo"]);
    spec.timeout_ms = 60_000;
    assert!(desk.ask_spec(&spec).is_ok());
    spec.timeout_ms = 60_001;
    let refusal = desk.ask_spec(&spec).unwrap_err();
    assert_eq!(refusal.rule, "quick".parse().ok());
}

#[test]
fn the_first_rule_that_matches_gives_the_limits() {
    let desk = Desk::new(
        "[[allow]]\nname = \"a\"\nprogram = \"echo\"\nargs = [\"x\"]\nmin_approvals = 5\n\
         [[allow]]\nname = \"b\"\nprogram = \"echo\"\nargs = [\"?\"]\nmin_approvals = 1\n",
    );
    let of = |word| {
        desk.rules
            .judge(None, &Book::spec(&["echo", word]), None)
            .unwrap()
    };
    assert_eq!((of("x").rule.as_str(), of("x").min_approvals), ("a", 5));
    // The host's own 2 is stricter.
    assert_eq!((of("y").rule.as_str(), of("y").min_approvals), ("b", 2));
}

#[test]
fn a_rule_that_wants_more_people_than_approved_refuses_in_its_name() {
    let mut world = World::new();
    let id = world.approved_true();
    let rule = |people: u32| {
        let rule = "[[allow]]\nname = \"careful\"\nprogram = \"true\"\n";
        Desk::new(&format!("{rule}min_approvals = {people}\n"))
            .rules
            .commands
    };
    world.host.rules.commands = rule(2);
    assert!(world.runs(id));
    world.host.rules.commands = rule(3);
    let refusal = world.refused(id);
    assert_eq!(refusal.why, RefusalReason::Approvals);
    assert_eq!(refusal.rule, "careful".parse().ok());
}

#[test]
fn what_is_true_and_unlisted_is_refused_for_the_ledger_to_know() {
    let mut world = World::new();
    let id = world.approved_true();
    world.host.rules.commands = Desk::new(SERVICE).rules.commands;
    let refusal = world.refused(id);
    assert_eq!(refusal.why, RefusalReason::NotAllowed);
    assert_eq!(refusal.detail, NOT_LISTED);
}

#[test]
fn a_rule_without_users_is_for_the_usual_user_only() {
    let mut desk = Desk::new(
        "[[allow]]\nname = \"mine\"\nprogram = \"echo\"\n\
         [[allow]]\nname = \"theirs\"\nprogram = \"rm\"\nusers = [\"deploy\"]\n",
    );
    desk.rules.account.users = Some(["agent", "deploy"].map(|u| u.parse().unwrap()).to_vec());
    let run = |rules: &Rules, program: &str, user: Option<&str>| {
        let mut spec = Book::spec(&[program]);
        spec.user = user.map(|user| user.parse().unwrap());
        rules
            .judge(None, &spec, None)
            .map(drop)
            .map_err(|refusal| refusal.rule.unwrap().to_string())
    };
    assert_eq!(run(&desk.rules, "echo", None), Ok(()));
    assert_eq!(run(&desk.rules, "echo", Some("agent")), Ok(()));
    assert_eq!(run(&desk.rules, "echo", Some("1000")), Ok(()));
    assert_eq!(run(&desk.rules, "rm", None), Err("allow".into()));
    // As the agent of the account `deploy`, the other way round.
    desk.rules.account.name = Some("deploy".into());
    desk.rules.account.default_user = Some("deploy".parse().unwrap());
    assert_eq!(run(&desk.rules, "rm", None), Ok(()));
    assert_eq!(run(&desk.rules, "rm", Some("nobody")), Err("users".into()));
}

#[test]
fn a_shell_has_a_rule_of_its_own_and_allow_all_is_not_it() {
    let shell = |text: &str| {
        let desk = Desk::new(&format!(
            "modes = [\"exec\", \"shell\"]\nallow_all = true\n{text}"
        ));
        let mut spec = Book::spec(&["echo hello | cat"]);
        spec.mode = Mode::Shell;
        desk.rules
            .judge(None, &spec, None)
            .map(|allowed| (allowed.rule.to_string(), allowed.min_approvals))
            .map_err(|refusal| refusal.rule.unwrap().to_string())
    };
    assert_eq!(shell(""), Err("shell".into()));
    assert_eq!(shell("[shell]\nallow = false\n"), Err("shell".into()));
    assert_eq!(shell("[shell]\nallow = true\n"), Ok(("shell".into(), 2)));
    assert_eq!(
        shell("[shell]\nallow = true\nmin_approvals = 3\n"),
        Ok(("shell".into(), 3))
    );
    let denied = "[[deny]]\nname = \"no_sh\"\nprogram = \"sh\"\n[shell]\nallow = true\n";
    assert_eq!(shell(denied), Err("no_sh".into()));
}

#[test]
fn a_program_that_is_not_there_is_not_found_for_who_may_run_it_only() {
    let desk = Desk::new("[[allow]]\nname = \"ghost\"\nprogram = \"ghost\"\n");
    assert_eq!(desk.ask(&["ghost"]).unwrap(), "ghost");
    desk.is_unlisted(&["phantom"]);
    desk.is_unlisted(&["/nowhere/ghost"]);
}

#[test]
fn the_examples_of_the_manual_do_what_it_says() {
    let manual = include_str!("../../../docs/AGENT.md");
    let block = |title: &str| {
        let (_, rest) = manual.split_once(title).unwrap();
        let (_, rest) = rest.split_once("```toml\n").unwrap();
        rest.split_once("```").unwrap().0.to_owned()
    };
    let desk = Desk::new(&block("<!-- fleet -->"));
    for (words, rule) in [
        (
            ["systemctl", "restart", "nginx.service"].as_slice(),
            "restart_service",
        ),
        (&["systemctl", "restart", "nginx"], "restart_service"),
        (
            &["truncate", "--size=0", "/var/log/app/web.log"],
            "clear_logs",
        ),
        (&["apt-get", "-y", "upgrade"], "apply_updates"),
    ] {
        assert_eq!(desk.ask(words).unwrap(), rule, "{words:?}");
    }
    desk.is_unlisted(&["systemctl", "restart", "--force"]);
    desk.is_unlisted(&["truncate", "--size=0", "/var/log/app/../x.log"]);
    desk.is_unlisted(&["apt-get", "-y", "remove"]);
    let denied = ["truncate", "--size=0", "/var/log/app/audit.log"];
    assert_eq!(desk.refusal(&denied).1, "keep_evidence");
    let desk = Desk::new(&block("<!-- global -->"));
    assert_eq!(desk.ask(&["echo", "-n", "a/b"]).unwrap(), "global");
    desk.is_unlisted(&["rm", "x"]);
}
