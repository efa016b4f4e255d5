//! Whom a command runs as: found once, judged by name and number, by the agent itself or by sudo.
//! CAPABILITIES A and B, ATTACKS rows 14 and 26.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use countersign_agent::execution;
use countersign_agent::rules::{Allowed, LocalRefusal, Rules, RunAs, through_sudo};
use countersign_protocol::command::{CommandSpec, Environment, Mode};
use countersign_protocol::event::RefusalReason;

use crate::rules::Desk;
use crate::support::Book;

const ALL: &str = "allow_all = true\n";

/// A host whose agent is root and may become these.
fn root(rules: &str, users: &[&str]) -> Desk {
    let mut desk = Desk::new(rules);
    let account = &mut desk.rules.account;
    (account.uid, account.gid, account.name) = (0, 0, Some("root".into()));
    account.users = Some(users.iter().map(|user| user.parse().unwrap()).collect());
    desk
}

fn spec(user: &str) -> CommandSpec {
    let mut spec = Book::spec(&["echo", "hello"]);
    spec.user = Some(user.parse().unwrap());
    spec
}

fn ask(rules: &Rules, user: &str) -> Result<Allowed, LocalRefusal> {
    rules.judge(None, &spec(user), None)
}

fn refusal(rules: &Rules, user: &str) -> (RefusalReason, String) {
    let refusal = ask(rules, user).expect_err(user);
    (refusal.why, refusal.rule.unwrap().to_string())
}

#[test]
fn an_agent_that_is_root_takes_on_the_whole_account() {
    let desk = root(ALL, &["deploy", "33"]);
    let taken = |user: &str| ask(&desk.rules, user).unwrap().confinement.account.unwrap();
    let account = |uid| execution::Account {
        uid,
        gid: uid,
        groups: vec![uid, 27],
    };
    // By name and by number, whichever of both the host has written.
    assert_eq!(taken("deploy"), account(1001));
    assert_eq!(taken("1001"), account(1001));
    assert_eq!(taken("www-data"), account(33));
    assert_eq!(taken("033"), account(33));
    let refused = (RefusalReason::NotAllowed, "users".to_owned());
    for user in ["root", "0", "agent", "1000", "twin"] {
        assert_eq!(refusal(&desk.rules, user), refused, "{user}");
    }
}

#[test]
fn the_default_user_runs_what_names_none() {
    let mut desk = root(ALL, &[]);
    (desk.rules.account.users, desk.rules.account.default_user) =
        (None, Some("deploy".parse().unwrap()));
    let mut spec = spec("deploy");
    spec.user = None;
    let allowed = desk.rules.judge(None, &spec, None).unwrap();
    assert_eq!((allowed.runner.uid, allowed.runner.is_own), (1001, false));
    assert_eq!(refusal(&desk.rules, "www-data").1, "users");
}

#[test]
fn the_agents_own_account_changes_nothing() {
    let desk = root(ALL, &["root"]);
    for user in ["root", "0"] {
        let allowed = ask(&desk.rules, user).unwrap();
        assert!(allowed.runner.is_own && allowed.confinement.account.is_none());
    }
}

#[test]
fn an_account_that_is_not_there_is_refused_and_told_only_to_who_may_have_it() {
    let desk = root(ALL, &["ghost", "4242", "5555", "99999999999"]);
    let gone = (RefusalReason::Unusable, "run_as".to_owned());
    // "4242" is the name of an account, and a number all the same.
    for user in ["ghost", "4242", "5555"] {
        assert_eq!(refusal(&desk.rules, user), gone, "{user}");
    }
    assert_eq!(refusal(&desk.rules, "99999999999").1, "users");
    let denied = (RefusalReason::NotAllowed, "users".to_owned());
    assert_eq!(refusal(&desk.rules, "nobody-at-all"), denied);
    let detail = ask(&desk.rules, "ghost").unwrap_err().detail;
    assert!(detail.contains("no such account"), "{detail}");
}

#[test]
fn root_by_another_name_must_be_written_out_as_root() {
    let mut desk = root(ALL, &["toor", "deploy"]);
    desk.rules.account.uid = 1000;
    desk.rules.account.name = Some("agent".into());
    desk.rules.account.run_as = RunAs::Sudo("/bin/true".into());
    assert_eq!(refusal(&desk.rules, "toor").1, "users");
    desk.rules.account.users = None;
    desk.rules.account.default_user = Some("toor".parse().unwrap());
    assert_eq!(refusal(&desk.rules, "toor").1, "users");
    for written in ["root", "0"] {
        let users = ["toor", written].map(|user| user.parse().unwrap());
        desk.rules.account.users = Some(users.to_vec());
        assert_eq!(ask(&desk.rules, "toor").unwrap().runner.uid, 0);
    }
}

#[test]
fn two_names_of_one_number_are_two_accounts_where_it_allows_and_one_where_it_forbids() {
    let desk = root(ALL, &["deploy"]);
    assert!(ask(&desk.rules, "deploy").is_ok());
    assert_eq!(refusal(&desk.rules, "twin").1, "users");
    let desk = root(ALL, &["1001"]);
    let groups = ask(&desk.rules, "twin").unwrap().runner.groups;
    assert_eq!(groups, [1001, 27, 4]);
    let deny = "[[deny]]\nname = \"not_them\"\nusers = [\"deploy\", \"root\"]\n";
    let desk = root(&format!("{ALL}{deny}"), &["deploy", "twin", "toor", "root"]);
    for user in ["deploy", "1001", "twin", "toor", "root", "0"] {
        assert_eq!(refusal(&desk.rules, user).1, "not_them", "{user}");
    }
}

#[test]
fn a_rule_is_for_the_users_that_it_names() {
    let rule =
        "[[allow]]\nname = \"theirs\"\nprogram = \"echo\"\nargs = [\"**\"]\nusers = [\"33\"]\n";
    let desk = root(rule, &["deploy", "www-data"]);
    assert!(ask(&desk.rules, "www-data").is_ok());
    assert_eq!(refusal(&desk.rules, "deploy").1, "allow");
}

#[test]
fn an_ordinary_agent_says_that_it_cannot() {
    let mut desk = Desk::new(ALL);
    desk.rules.account.users = Some(["agent", "deploy"].map(|u| u.parse().unwrap()).to_vec());
    assert!(ask(&desk.rules, "agent").is_ok());
    let refused = ask(&desk.rules, "deploy").unwrap_err();
    assert_eq!(refused.rule, "run_as".parse().ok());
    assert!(refused.detail.contains("uid 1000"), "{}", refused.detail);
    assert!(refused.detail.contains("sudo"), "{}", refused.detail);
}

#[test]
fn the_systems_own_accounts_are_found_by_name_and_number() {
    let mut desk = root(ALL, &["daemon", "root"]);
    desk.rules.account.directory = countersign_agent::rules::Directory::System;
    let id = |option: &str| {
        let passwd = fs::read_to_string("/etc/passwd").unwrap();
        let line = passwd.lines().find(|line| line.starts_with("daemon:"));
        let line = line.unwrap().to_owned();
        let at = if option == "uid" { 2 } else { 3 };
        line.split(':').nth(at).unwrap().to_owned()
    };
    let (uid, gid) = (id("uid"), id("gid"));
    for user in ["daemon", &uid] {
        let runner = ask(&desk.rules, user).unwrap().runner;
        assert_eq!(runner.name.as_deref(), Some("daemon"));
        assert_eq!(
            (runner.uid.to_string(), runner.gid.to_string()),
            (uid.clone(), gid.clone())
        );
        assert!(runner.groups.contains(&runner.gid));
    }
}

/// An agent that is not root and becomes others by a `sudo` that is there.
fn by_sudo(rules: &str) -> Desk {
    let mut desk = Desk::new(rules);
    let sudo = desk.bin.join("sudo");
    fs::write(&sudo, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&sudo, fs::Permissions::from_mode(0o755)).unwrap();
    desk.rules.account.users = Some(["agent", "deploy"].map(|u| u.parse().unwrap()).to_vec());
    desk.rules.account.run_as = RunAs::Sudo(sudo);
    desk
}

#[test]
fn sudo_is_given_each_word_apart_and_never_asks() {
    let desk = by_sudo(ALL);
    let allowed = ask(&desk.rules, "1001").unwrap();
    let sudo = allowed.sudo.as_ref().unwrap();
    assert_eq!(sudo.path(), desk.bin.join("sudo"));
    assert!(allowed.confinement.unheld && allowed.confinement.account.is_none());
    assert!(!allowed.in_force.no_new_privs && !allowed.in_force.seccomp);
    // What is said of the program is the program's.
    let program = allowed.steps.as_ref().unwrap()[0].program.path();
    assert_eq!(program, desk.bin.join("echo"));
    let args = ["-n", "a b; id", "-u", "root"].map(Into::into);
    let words = through_sudo(&allowed.runner, program, &args);
    let echo = desk.bin.join("echo");
    let expected: [&Path; 10] = [
        Path::new("sudo"),
        Path::new("-n"),
        Path::new("-u"),
        Path::new("deploy"),
        Path::new("--"),
        &echo,
        Path::new("-n"),
        Path::new("a b; id"),
        Path::new("-u"),
        Path::new("root"),
    ];
    assert_eq!(words, expected);
    // As itself it needs no sudo.
    let own = ask(&desk.rules, "agent").unwrap();
    assert!(own.sudo.is_none() && own.in_force.no_new_privs);
}

#[test]
fn what_sudo_would_not_carry_is_refused() {
    let desk = by_sudo(&format!(
        "{ALL}modes = [\"exec\", \"shell\"]\nshell.allow = true\nenvironment = [\"A*\"]\n"
    ));
    let environment = Environment::new(vec![("A".into(), "1".into())]).unwrap();
    let mut script = spec("deploy");
    (script.mode, script.argv) = (Mode::Shell, vec!["id".into()]);
    for (spec, environment, word) in [
        (&spec("deploy"), Some(&environment), "\"A\""),
        (&script, None, "script"),
    ] {
        let refusal = desk.rules.judge(None, spec, environment).unwrap_err();
        assert_eq!(refusal.why, RefusalReason::Unusable);
        assert_eq!(refusal.rule, "run_as".parse().ok());
        assert!(refusal.detail.contains(word), "{}", refusal.detail);
    }
    // Both are fine where nobody else is become.
    assert!(
        desk.rules
            .judge(None, &spec("agent"), Some(&environment))
            .is_ok()
    );
    script.user = None;
    assert!(desk.rules.judge(None, &script, Some(&environment)).is_ok());
    fs::remove_file(desk.bin.join("sudo")).unwrap();
    assert_eq!(refusal(&desk.rules, "deploy").1, "run_as");
}

#[test]
fn a_digest_is_not_promised_through_sudo() {
    use sha2::{Digest as _, Sha256};
    let digest = hex::encode(Sha256::digest(fs::read("/bin/true").unwrap()));
    let rule = format!(
        "[[allow]]\nname = \"pinned\"\nprogram = \"echo\"\nargs = [\"**\"]\n\
         users = [\"agent\", \"deploy\"]\nsha256 = [{digest:?}]\n"
    );
    let desk = by_sudo(&rule);
    assert!(ask(&desk.rules, "agent").is_ok());
    let refused = ask(&desk.rules, "deploy").unwrap_err();
    assert_eq!(refused.rule, "pinned".parse().ok());
    assert!(refused.detail.contains("sudoers"), "{}", refused.detail);
}
