//! What holds a command: settings and their mistakes, rules over defaults, demands that refuse.
//! ATTACKS rows 16, 25 and 26.

use countersign_agent::admission::Verdict;
use countersign_agent::execution::{CgroupLimits, Limits, Profile};
use countersign_agent::rules::{Allowed, Cap, LocalRefusal, RunAs, Writes};
use countersign_protocol::command::Mode;
use countersign_protocol::event::RefusalReason;

use crate::config::{Files, least};
use crate::left_out::left_out;
use crate::rules::Desk;
use crate::support::{Book, World};

fn judge(desk: &Desk, words: &[&str]) -> Result<Allowed, LocalRefusal> {
    desk.rules.judge(None, &Book::spec(words), None)
}

#[test]
fn a_mistake_in_confinement_is_told_with_its_line() {
    for (line, word) in [
        ("memory = 1", "between 16777216"),
        ("memory = \"8M\"", "between 16777216"),
        ("memory = \"2000T\"", "between"),
        ("memory = \"99999999999G\"", "512M"),
        ("memory = \"1GB\"", "512M"),
        ("memory = \"1.5G\"", "512M"),
        ("memory = \"\"", "512M"),
        ("memory = -1", "negative"),
        ("memory = true", "512M"),
        ("file_size = 0", "between"),
        ("cpu_s = 0", "between"),
        ("cpu_s = 86401", "between"),
        ("cpu_s = \"1K\"", "plain number"),
        ("processes = 0", "between"),
        ("processes = 4194305", "between"),
        ("open_files = 15", "between"),
        ("open_files = 1048577", "between"),
        ("cgroup = { memory = 1 }", "between"),
        ("cgroup = { cpu_percent = 0 }", "between"),
        ("cgroup = { processes = \"1K\" }", "plain number"),
        ("cgroup = { swap = 1 }", "swap"),
        ("profile = \"readonly\"", "read-only"),
        ("protected = [\"etc\"]", "absolute"),
        ("protected = [\"/a/../b\"]", "absolute"),
        ("protected = [\"/\"]", "nothing to run"),
        ("protect_own = 1", "bool"),
        ("seccomp = \"no\"", "bool"),
        ("demand = [\"selinux\"]", "landlock"),
        ("umask = 18", "string"),
        ("umask = \"0800\"", "octal"),
        ("umask = \"1777\"", "octal"),
        ("umask = \"+22\"", "octal"),
        ("umask = \"\"", "octal"),
        ("limit = 1", "limit"),
        ("demand = [\"cgroup\"]", "cgroup = {}"),
        ("seccomp = false\ndemand = [\"seccomp\"]", "switched off"),
        (
            "demand = [\"landlock\"]\nprotect_own = false",
            "nothing to guard",
        ),
    ] {
        for head in [
            "[confine]",
            "[shell.confine]",
            "[[allow]]\nname = \"a\"\nprogram = \"/a\"\n[allow.confine]",
        ] {
            let text = format!("{}{head}\n{line}\n", least());
            let (at, problem) = Files::new().mistake(&text);
            assert_eq!(
                at,
                9 + head.matches('\n').count(),
                "{head} {line}: {problem}"
            );
            assert!(problem.contains(word), "{line}: {problem}");
        }
    }
}

#[test]
fn a_rule_lies_over_the_defaults_field_by_field() {
    let desk = Desk::new(
        "allow_all = true\n\
         [confine]\nprotected = [\"/srv\"]\nprotect_own = false\ncpu_s = 10\nmemory = \"1G\"\n\
         open_files = 64\numask = \"077\"\ncgroup = { memory = \"2G\", processes = 50 }\n\
         [[allow]]\nname = \"own\"\nprogram = \"echo\"\n\
         confine = { protected = [], memory = \"none\", file_size = 4096, profile = \"read-only\", \
         cgroup = { processes = 9, cpu_percent = 50 } }\n",
    );
    let base = judge(&desk, &["rm"]).unwrap().confinement;
    assert_eq!(base.protected, ["/srv"].map(std::path::PathBuf::from));
    assert_eq!((base.umask, &base.profile), (0o077, &Profile::None));
    let limits = Limits {
        cpu_s: Some(10),
        memory_bytes: Some(1 << 30),
        open_files: Some(64),
        ..Limits::default()
    };
    assert_eq!(base.limits, limits);
    let rule = judge(&desk, &["echo"]);
    // A profile is nothing without Landlock, and this machine may have none.
    let rule = match rule {
        Ok(allowed) => allowed.confinement,
        Err(refusal) => {
            assert_eq!(refusal.rule, "profile".parse().ok());
            left_out("this machine has no Landlock: a rule over the defaults");
            return;
        }
    };
    assert!(rule.protected.is_empty());
    assert_eq!((rule.umask, &rule.profile), (0o077, &Profile::ReadOnly));
    let limits = Limits {
        memory_bytes: None,
        file_size_bytes: Some(4096),
        ..limits
    };
    assert_eq!(rule.limits, limits);
    let cgroup = CgroupLimits {
        memory_bytes: Some(2 << 30),
        cpu_percent: Some(50),
        processes: Some(9),
    };
    assert_eq!(rule.cgroup, Some(cgroup));
}

#[test]
fn the_example_of_the_manual_is_in_order() {
    let manual = include_str!("../../../docs/AGENT.md");
    let (_, rest) = manual.split_once("<!-- confine -->\n```toml\n").unwrap();
    let (example, _) = rest.split_once("```").unwrap();
    let rules = Desk::new(example).rules;
    let over = |at: usize| rules.commands.allow[at].confine.over(&rules.confine);
    let (updates, report) = (over(0), over(1));
    assert_eq!(
        (updates.memory, updates.protect_own),
        (Some(Cap::Lifted), Some(false))
    );
    assert_eq!(report.memory, Some(Cap::At(4 << 30)));
    assert_eq!(report.profile, Some(Writes::OnlyHere));
    assert_eq!(updates.protected, report.protected);
    assert!(report.demand.unwrap().landlock && updates.demand.is_none());
}

#[test]
fn scripts_have_confinement_of_their_own() {
    let desk = Desk::new(
        "modes = [\"exec\", \"shell\"]\nconfine.cpu_s = 10\n\
         [shell]\nallow = true\nconfine = { cpu_s = 3, umask = \"007\" }\n",
    );
    let mut spec = Book::spec(&["echo hello"]);
    spec.mode = Mode::Shell;
    let allowed = desk.rules.judge(None, &spec, None).unwrap();
    assert_eq!(allowed.confinement.limits.cpu_s, Some(3));
    assert_eq!(allowed.confinement.umask, 0o007);
    // The shell reads the text itself from a file that nobody can change.
    let program = allowed.steps.unwrap().remove(0).program;
    let digest: [u8; 32] = {
        use sha2::{Digest as _, Sha256};
        Sha256::digest(b"echo hello").into()
    };
    assert_eq!(program.script_sha256(), Some(&digest));
}

#[test]
fn the_agents_own_files_are_kept_from_who_could_reach_them() {
    let desk = |confine: &str| {
        let mut desk = Desk::new(&format!("allow_all = true\n{confine}"));
        let account = &mut desk.rules.account;
        (account.uid, account.name) = (0, Some("root".into()));
        let users = ["root", "deploy"].map(|user| user.parse().unwrap());
        account.users = Some(users.to_vec());
        desk
    };
    let protected = |desk: &Desk, user: &str| {
        let mut spec = Book::spec(&["echo"]);
        spec.user = Some(user.parse().unwrap());
        desk.rules
            .judge(None, &spec, None)
            .unwrap()
            .confinement
            .protected
    };
    let careful = desk("");
    let folder = careful.files.folder.path().canonicalize().unwrap();
    let own = ["state", "agent.toml", "allowed_signers"].map(|name| folder.join(name));
    assert_eq!(protected(&careful, "root"), own);
    // Permissions keep another account away, and it has no fence to stumble over.
    assert!(protected(&careful, "deploy").is_empty());
    assert!(protected(&desk("confine.protect_own = false\n"), "root").is_empty());
    let mut more = vec!["/srv".into()];
    more.extend(
        own.into_iter()
            .map(|path| path.file_name().unwrap().to_owned()),
    );
    let named = desk("confine.protected = [\"/srv\"]\n");
    let names: Vec<_> = protected(&named, "root")
        .iter()
        .map(|path| match path.to_str() {
            Some("/srv") => "/srv".into(),
            _other => path.file_name().unwrap().to_owned(),
        })
        .collect();
    assert_eq!(names, more);
}

#[test]
fn a_demand_that_cannot_be_met_refuses_by_its_own_name() {
    // Nothing can be held through sudo, on every machine.
    for (confine, rule) in [
        ("demand = [\"no_new_privs\"]", "demand"),
        ("demand = [\"seccomp\"]", "demand"),
        ("demand = [\"landlock\"]", "demand"),
        ("profile = \"read-only\"", "profile"),
        ("profile = \"write-only-here\"", "profile"),
    ] {
        let mut desk = Desk::new(&format!("allow_all = true\n[confine]\n{confine}\n"));
        let sudo = desk.bin.join("true");
        std::fs::copy("/bin/true", &sudo).unwrap();
        desk.rules.account.run_as = RunAs::Sudo(sudo);
        desk.rules.account.users = Some(vec!["deploy".parse().unwrap()]);
        let mut spec = Book::spec(&["echo"]);
        spec.user = Some("deploy".parse().unwrap());
        let refusal = desk.rules.judge(None, &spec, None).unwrap_err();
        assert_eq!(refusal.why, RefusalReason::Unusable, "{confine}");
        assert_eq!(refusal.rule, rule.parse().ok(), "{confine}");
        assert!(refusal.detail.contains("sudo"), "{}", refusal.detail);
        assert!(refusal.detail.contains("allow_all"), "{}", refusal.detail);
    }
}

#[test]
fn a_directory_that_is_protected_cannot_be_the_one_to_write_in() {
    let text =
        "allow_all = true\n[confine]\nprotected = [\"/srv\"]\nprofile = \"write-only-here\"\n";
    let desk = Desk::new(text);
    let mut spec = Book::spec(&["echo"]);
    spec.cwd = Some("/srv".into());
    let refusal = desk.rules.judge(None, &spec, None).unwrap_err();
    if refusal.rule == "profile".parse().ok() {
        left_out("this machine has no Landlock: a contradiction of paths");
        return;
    }
    assert_eq!(refusal.rule, "protected".parse().ok());
    spec.cwd = Some("/tmp".into());
    let allowed = desk.rules.judge(None, &spec, None).unwrap();
    assert_eq!(
        allowed.confinement.profile,
        Profile::WriteOnlyHere("/tmp".into())
    );
}

#[test]
fn what_is_announced_is_what_the_executor_is_told_to_set() {
    let mut world = World::new();
    world.host.rules.confine = Desk::new("confine.cpu_s = 7\n").rules.confine;
    let id = world.approved_true();
    let Ok(Verdict::Run(permit)) = world.admit(&world.grant(id)) else {
        panic!("it runs");
    };
    let (runner, held) = permit.held().unwrap();
    let (uid, held) = (runner.uid, *held);
    assert_eq!((uid, held.rlimits.cpu_s), (1000, Some(7)));
    let plan = permit.into_plan(std::time::Duration::ZERO).unwrap();
    assert_eq!(plan.announced, Some(held));
    assert_eq!(plan.confinement.limits.cpu_s, Some(7));
}
