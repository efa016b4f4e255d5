//! What an operator's short files mean, judged by the Cedar that they become.

use countersign_policy::lists::{allowed_commands, from_file};
use countersign_protocol::command::Mode;
use countersign_protocol::judgement::{Denial, Judgement};
use countersign_protocol::quorum::Requirement;

use crate::book::{Book, Case, exec, shell};

fn toml(text: &str) -> String {
    from_file("policy.toml", text).unwrap().text().to_owned()
}

fn requirement(book: &Book, policy: &str, case: &Case) -> Option<Requirement> {
    match book.judge(policy, case) {
        Judgement::Permitted(requirement) => Some(requirement),
        Judgement::Denied(Denial::NoRule | Denial::Forbidden(_)) => None,
        Judgement::Denied(other) => panic!("{other:?}"),
    }
}

fn may(book: &Book, policy: &str, case: &Case) -> bool {
    requirement(book, policy, case).is_some()
}

#[test]
fn an_allowlist_permits_its_programs_by_name_and_nothing_else() {
    let book = Book::peopled();
    let policy = allowed_commands("ls, echo,cat,grep,find,pwd").unwrap();
    let may = |case: &Case| may(&book, policy.text(), case);
    assert!(may(&exec("grace", &["ls", "-l"])) && may(&exec("alice", &["pwd"])));
    assert!(!may(&exec("dave", &["ls"])), "no command:execute");
    for words in [
        &["rm"][..],
        &["/tmp/ls"],
        &["LS"],
        &["ls "],
        &["sh", "-c", "ls"],
    ] {
        assert!(!may(&exec("grace", words)), "{words:?}");
    }
    assert!(!may(&shell("grace", "ls")));
    assert!(!may(&Case {
        mode: Mode::Action,
        ..exec("grace", &["ls"])
    }));
    assert!(!may(&exec("grace", &["ls"]).breaking_glass()));
    for bad in ["", "ls,", "ls rm", "/bin/ls", "ls\"]"] {
        assert!(allowed_commands(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn single_users_have_more_programs_at_their_own_price() {
    let book = Book::peopled();
    let policy = toml(
        "allow = [\"ls\"]\nwho = [\"sre\"]\nfrom = [\"security\"]\n\
         [users.dave]\nallow = [\"systemctl\"]\napprovals = 3\n",
    );
    assert!(may(&book, &policy, &exec("erin", &["ls"])));
    assert!(!may(&book, &policy, &exec("erin", &["systemctl"])));
    let own = requirement(&book, &policy, &exec("dave", &["systemctl"])).unwrap();
    assert_eq!(own.demands[0].0[0].approvals, 3);
    assert_eq!(own.demands[0].0[0].from[0].to_string(), "group:security");
    let common = requirement(&book, &policy, &exec("dave", &["ls"])).unwrap();
    assert_eq!(common.demands[0].0[0].approvals, 2);
}

#[test]
fn what_is_denied_stays_denied_by_a_path_or_behind_another_program() {
    let book = Book::peopled();
    let policy = toml("deny = [\"rm\", \"dd\"]\n");
    assert!(may(&book, &policy, &exec("grace", &["touch", "rm"])));
    for words in [
        &["rm", "x"][..],
        &["/bin/rm", "x"],
        &["../../bin/rm"],
        &["sudo", "-u", "x", "/bin/rm"],
        &["find", ".", "-exec", "rm", "{}", ";"],
        &["env", "A=1", "dd"],
        &["bash", "-c", "rm x"],
        &["/bin/sh", "script"],
    ] {
        assert!(!may(&book, &policy, &exec("grace", words)), "{words:?}");
    }
    assert!(!may(&book, &policy, &shell("grace", "ls")));
    let scripts = toml("deny = [\"rm\"]\nshell = true\n");
    assert!(may(&book, &scripts, &shell("grace", "ls; pwd")));
    assert!(!may(&book, &scripts, &shell("grace", "ls;/bin/rm -rf x")));
    let both = toml("allow = [\"rm\", \"ls\"]\ndeny = [\"rm\"]\n");
    assert!(
        !may(&book, &both, &exec("grace", &["rm"])) && may(&book, &both, &exec("grace", &["ls"]))
    );
}

#[test]
fn a_script_in_one_word_hides_nothing_that_is_denied_or_protected() {
    let book = Book::peopled();
    let strict = toml("deny = [\"rm\"]\nprotected_directories = [\"/etc\"]\n");
    for words in [
        &["sudo", "sh", "-c", "rm -rf /srv"][..],
        &["env", "-S", "rm x"],
        &["su", "-c", "rm x"],
        &["watch", "rm x"],
        &["ssh", "h", "cd /srv;/bin/rm x"],
        &["sudo", "sh", "-c", "cat /etc/shadow"],
        &["su", "-c", "cat </etc/shadow"],
    ] {
        assert!(!may(&book, &strict, &exec("grace", words)), "{words:?}");
    }
    for words in [
        &["su", "-c", "ls -l /srv"][..],
        &["watch", "df -h"],
        &["ls", "/"],
        &["echo", "rm x"],
    ] {
        assert!(may(&book, &strict, &exec("grace", words)), "{words:?}");
    }
    let scripts = toml("deny = [\"rm\"]\nshell = true\n");
    assert!(!may(
        &book,
        &scripts,
        &exec("grace", &["bash", "-c", "rm x"])
    ));
    assert!(may(
        &book,
        &scripts,
        &exec("grace", &["bash", "-c", "ls x"])
    ));
}

#[test]
fn without_scripts_no_shell_is_started_by_another_program() {
    let book = Book::peopled();
    let none = toml("approvals = 1\n");
    for words in [
        &["sudo", "sh", "-c", "ls"][..],
        &["env", "A=1", "/bin/bash", "script"],
        &["env", "-S", "sh -c ls"],
        &["find", ".", "-exec", "dash", "{}", ";"],
    ] {
        assert!(!may(&book, &none, &exec("grace", words)), "{words:?}");
    }
    assert!(may(&book, &none, &exec("grace", &["sudo", "ls"])));
    assert!(may(&book, &none, &exec("grace", &["cat", "sh"])));
    let named = toml("allow = [\"sudo\", \"bash\"]\n");
    assert!(may(
        &book,
        &named,
        &exec("grace", &["sudo", "bash", "script"])
    ));
    assert!(!may(
        &book,
        &named,
        &exec("grace", &["sudo", "sh", "script"])
    ));
}

#[test]
fn protected_directories_and_operations_are_kept() {
    let book = Book::peopled();
    let policy = toml(
        "protected_directories = [\"/etc\", \"/root\"]\n\
         protected_operations = [\"systemctl stop *\", \"shutdown *\", \"say \\\"x\\\" *\"]\n",
    );
    let mut within = exec("grace", &["cat", "passwd"]);
    within.cwd = Some("/etc".to_owned());
    assert!(!may(&book, &policy, &within));
    for words in [
        &["cat", "/etc/passwd"][..],
        &["cat", "/var/../etc//passwd"],
        &["cat", "etc/passwd"],
        &["tar", "--directory=/root", "x"],
        &["ls", "/root"],
        &["systemctl", "stop", "nginx"],
        &["/usr/bin/systemctl", "stop", "nginx"],
        &["sudo", "systemctl", "stop", "nginx"],
        &["shutdown"],
        &["shutdown", "-h", "now"],
    ] {
        assert!(!may(&book, &policy, &exec("grace", words)), "{words:?}");
    }
    for words in [
        &["cat", "/etcetera"][..],
        &["systemctl", "status", "stop"],
        &["shutdownd"],
    ] {
        assert!(may(&book, &policy, &exec("grace", words)), "{words:?}");
    }
}

#[test]
fn the_older_form_names_people_on_both_sides() {
    let book = Book::peopled();
    let policy = from_file(
        "p.json",
        r#"{"approvals":2,"may_request":["dave","bob"],"may_approve":["carol","alice","bob"]}"#,
    )
    .unwrap();
    let of = |who: &str| requirement(&book, policy.text(), &exec(who, &["ls"]));
    let from: Vec<String> = of("dave").unwrap().demands[0].0[0]
        .from
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(from, ["user:alice", "user:bob", "user:carol"]);
    assert!(of("bob").is_some() && of("alice").is_none());
    let swapped =
        r#"{"may_approve":["bob","alice","carol"],"may_request":["bob","dave"],"approvals":2}"#;
    assert_eq!(from_file("p.json", swapped).unwrap(), policy);
}

#[test]
fn a_file_that_makes_no_sense_is_told_in_a_sentence() {
    for (name, text, told) in [
        ("p.yaml", "", ".cedar, .toml or .json"),
        ("p", "", ".cedar, .toml or .json"),
        ("p.toml", "alow = [\"ls\"]", "alow"),
        ("p.toml", "approvals = 0", "1 to 16"),
        ("p.toml", "approvals = 17", "1 to 16"),
        ("p.toml", "allow = []", "nothing could run"),
        ("p.toml", "allow = [\"/bin/ls\"]", "no program's name"),
        ("p.toml", "who = [\"team:x\"]", "user:NAME"),
        ("p.toml", "from = [\"user:alice\"]", "names only 1"),
        ("p.toml", "protected_directories = [\"etc\"]", "/a/b"),
        ("p.toml", "protected_directories = [\"/etc/\"]", "/a/b"),
        ("p.toml", "protected_directories = [\"/\"]", "/a/b"),
        (
            "p.toml",
            "shell = true\nprotected_directories = [\"/etc\"]",
            "exclude each other",
        ),
        ("p.toml", "protected_operations = [\"\"]", "empty"),
        (
            "p.toml",
            "protected_operations = [\"a\\n}; permit\"]",
            "control",
        ),
        ("p.toml", "[users.dave]\nallow = [\"ls\"]", "both"),
        (
            "p.toml",
            "allow = [\"ls\"]\n[users.\"a b\"]\nallow = [\"ls\"]",
            "users",
        ),
        ("p.json", "{\"approvals\":2}", "may_request"),
        (
            "p.json",
            r#"{"approvals":2,"may_request":["a"],"may_approve":["a","b"]}"#,
            "never run",
        ),
        (
            "p.json",
            r#"{"approvals":0,"may_request":["a"],"may_approve":["a","b"]}"#,
            "1 to 16",
        ),
        (
            "p.json",
            r#"{"approvals":1,"may_request":[],"may_approve":["a","b"]}"#,
            "1 to 48",
        ),
        ("p.cedar", "permit", "line 1"),
    ] {
        let sentence = from_file(name, text).unwrap_err().to_string();
        assert!(
            sentence.contains(told),
            "{text}\n  said: {sentence}\n  not: {told}"
        );
    }
}

#[test]
fn nothing_in_a_list_is_read_as_cedar() {
    let text = toml(
        "protected_operations = ['\"}; permit (principal, action, resource);', '\\*', \"sp\u{e9}cial *\"]\n",
    );
    let rules = countersign_policy::review(&crate::book::text(&text))
        .unwrap()
        .rules;
    let permits = rules
        .iter()
        .filter(|rule| rule.effect == countersign_policy::Effect::Permit);
    assert_eq!(permits.count(), 1);
}

#[test]
fn a_list_becomes_the_same_readable_text_every_time() {
    let text = "who = [\"ops\", \"sre\"]\nallow = [\"ls\", \"cat\"]\ndeny = [\"rm\"]\n\
                protected_operations = [\"shutdown *\"]\n[users.zoe]\nallow=[\"id\"]\n[users.abe]\nallow=[\"id\"]\n";
    let again = "deny = [\"rm\"]\nallow = [\"cat\", \"ls\", \"cat\"]\nwho = [\"sre\", \"group:ops\"]\n\
                 protected_operations = [\"shutdown *\"]\n[users.abe]\nallow=[\"id\"]\n[users.zoe]\nallow=[\"id\"]\n";
    assert_eq!(toml(text), toml(again));
    assert!(toml(text).contains("// More programs for abe."));
}
