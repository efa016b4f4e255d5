//! The Cedar text of a list: short rules with a comment each, the same for the same list.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use countersign_protocol::name::Principal;
use countersign_protocol::permission::Whom;

use super::form::{Lists, Own};

/// Programs that start what their words name. What is denied is denied also behind these.
const STARTERS: &[&str] = &[
    "ash",
    "bash",
    "busybox",
    "chrt",
    "chroot",
    "csh",
    "dash",
    "doas",
    "env",
    "find",
    "fish",
    "flock",
    "gosu",
    "ionice",
    "ksh",
    "mksh",
    "nice",
    "nohup",
    "nsenter",
    "parallel",
    "pkexec",
    "prlimit",
    "rbash",
    "runuser",
    "script",
    "setpriv",
    "setsid",
    "sh",
    "ssh",
    "stdbuf",
    "strace",
    "su",
    "su-exec",
    "sudo",
    "systemd-run",
    "taskset",
    "tcsh",
    "time",
    "timeout",
    "toybox",
    "unshare",
    "watch",
    "xargs",
    "zsh",
];

/// Shells: to run one with `-c` is a script by another door.
const SHELLS: &[&str] = &[
    "ash", "bash", "csh", "dash", "fish", "ksh", "mksh", "rbash", "sh", "tcsh", "zsh",
];

/// Both ways to run a command: a guard holds also where glass is broken.
const BOTH: &str = "action in [Action::\"command:execute\", Action::\"command:break_glass\"]";

/// A Cedar string.
fn string(text: &str) -> String {
    format!("\"{}\"", text.escape_default())
}

/// A Cedar set of strings, sorted, each once.
fn set<'a>(items: impl IntoIterator<Item = &'a str>) -> String {
    let items: BTreeSet<&str> = items.into_iter().collect();
    let items: Vec<String> = items.into_iter().map(string).collect();
    format!("[{}]", items.join(", "))
}

fn is_one_of(attribute: &str, items: &[String]) -> String {
    format!(
        "{}.contains({attribute})",
        set(items.iter().map(String::as_str))
    )
}

/// A pattern for `like`: the stars stay, all else is meant literally.
fn pattern(text: &str) -> String {
    let parts: Vec<String> = text
        .split('*')
        .map(|part| part.escape_default().to_string())
        .collect();
    format!("\"{}\"", parts.join("*"))
}

fn principal(whom: &Whom) -> String {
    match whom {
        Whom::User(name) => format!("principal == User::{}", string(name.as_str())),
        Whom::Group(name) => format!("principal in Group::{}", string(name.as_str())),
        Whom::Role(name) => format!("principal in Role::{}", string(name.as_str())),
        Whom::Permission(right) => format!("principal in Permission::{}", string(right.as_str())),
    }
}

fn electors(from: &BTreeSet<Whom>) -> String {
    let names: Vec<String> = from.iter().map(Whom::to_string).collect();
    names.join(",")
}

/// A growing text.
struct Text(String);

impl Text {
    fn comment(&mut self, line: &str) {
        self.add(&format!("\n// {line}\n"));
    }

    fn add(&mut self, piece: &str) {
        self.0.push_str(piece);
    }

    fn permit(&mut self, id: &str, notes: (u32, &str), whom: &Whom, when: &str) {
        let (approvals, from) = notes;
        // Writing to a string cannot fail.
        let _ = writeln!(
            self.0,
            "@id({})\n@approvals(\"{approvals}\")\n@from({})\npermit (\n    {},\n    \
             action == Action::\"command:execute\",\n    resource\n) when {{\n    {when}\n}};",
            string(id),
            string(from),
            principal(whom),
        );
    }

    fn forbid(&mut self, id: &str, when: &str) {
        let _ = writeln!(
            self.0,
            "@id({})\nforbid (principal, {BOTH}, resource) when {{\n    {when}\n}};",
            string(id),
        );
    }
}

/// The policy of a list.
pub(super) fn lists(
    lists: &Lists,
    who: &BTreeSet<Whom>,
    from: &BTreeSet<Whom>,
    own: &BTreeMap<Principal, &Own>,
) -> String {
    let mut text = Text("// Written from a short list. Change the list, not this.\n".to_owned());
    permits(&mut text, lists, who, from, own);
    guards(&mut text, lists);
    text.0
}

fn permits(
    text: &mut Text,
    lists: &Lists,
    who: &BTreeSet<Whom>,
    from: &BTreeSet<Whom>,
    own: &BTreeMap<Principal, &Own>,
) {
    let from = electors(from);
    let all = (lists.approvals, from.as_str());
    let exec = "resource.mode == \"exec\"";
    for (number, whom) in who.iter().enumerate() {
        match &lists.allow {
            Some(allow) => {
                text.comment(&format!(
                    "Programs that {whom} may ask for, from wherever PATH finds them."
                ));
                // By the program as it is written: the name alone, so that no other file of the
                // same name runs.
                let listed = is_one_of("resource.program", allow);
                text.permit(
                    &format!("allow:{number}"),
                    all,
                    whom,
                    &format!("{exec} &&\n    {listed}"),
                );
            }
            None => {
                text.comment(&format!("{whom} may ask for every program and action."));
                let words = "resource.mode != \"shell\"";
                text.permit(&format!("allow:{number}"), all, whom, words);
            }
        }
        if lists.shell {
            text.comment(&format!(
                "{whom} may ask for scripts, and a script can run any program."
            ));
            text.permit(
                &format!("shell:{number}"),
                all,
                whom,
                "resource.mode == \"shell\"",
            );
        }
    }
    for (person, more) in own {
        text.comment(&format!("More programs for {person}."));
        let listed = is_one_of("resource.program", &more.allow);
        let notes = (more.approvals.unwrap_or(lists.approvals), from.as_str());
        let whom = Whom::User(person.clone());
        text.permit(
            &format!("own:{person}"),
            notes,
            &whom,
            &format!("{exec} &&\n    {listed}"),
        );
    }
}

fn guards(text: &mut Text, lists: &Lists) {
    let starters = || format!("{}.contains(resource.name)", set(STARTERS.iter().copied()));
    if !lists.shell {
        text.comment("No scripts.");
        text.forbid("no-shell", "resource.mode == \"shell\"");
        let listed = lists.allow.iter().flatten();
        let users = lists.users.values().flat_map(|own| &own.allow);
        let allowed: BTreeSet<&str> = listed.chain(users).map(String::as_str).collect();
        let shells: Vec<&str> = SHELLS
            .iter()
            .copied()
            .filter(|name| !allowed.contains(name))
            .collect();
        text.comment("A shell that is started as a program reads scripts too.");
        text.forbid(
            "no-shell-program",
            &format!("{}.contains(resource.name)", set(shells.iter().copied())),
        );
        text.comment("Nor behind a program that starts others.");
        text.forbid(
            "no-shell-behind",
            &format!(
                "{} &&\n    resource.names.containsAny({})",
                starters(),
                set(shells)
            ),
        );
    }
    if !lists.deny.is_empty() {
        let denied = set(lists.deny.iter().map(String::as_str));
        text.comment("Programs that nobody may ask for, wherever they lie.");
        text.forbid("deny", &format!("{denied}.contains(resource.name)"));
        text.comment("Nor by way of a program that starts others, or of a script.");
        text.forbid(
            "deny-behind",
            &format!(
                "(resource.mode == \"shell\" ||\n     {}) &&\n    resource.names.containsAny({denied})",
                starters()
            ),
        );
    }
    for (number, operation) in lists.protected_operations.iter().enumerate() {
        text.comment(&format!("Protected: {operation}"));
        let mut holds = format!("resource.name_line like {}", pattern(operation));
        // `x *` is also meant of x alone.
        if let Some(bare) = operation.strip_suffix(" *") {
            let _ = write!(holds, " ||\n    resource.name_line like {}", pattern(bare));
        }
        text.forbid(&format!("protected:{number}"), &holds);
        let inner = operation.strip_suffix(" *").unwrap_or(operation);
        text.forbid(
            &format!("protected-behind:{number}"),
            &format!(
                "(resource.mode == \"shell\" ||\n     {}) &&\n    resource.line like {}",
                starters(),
                pattern(&format!("*{inner}*"))
            ),
        );
    }
    if !lists.protected_directories.is_empty() {
        let directories = set(lists.protected_directories.iter().map(String::as_str));
        text.comment("Directories that no word may lie in.");
        text.forbid(
            "protected-directories",
            &format!("resource.paths.containsAny({directories})"),
        );
    }
}

/// The policy of the older JSON form.
pub(super) fn simple(
    approvals: u32,
    may_request: &BTreeSet<Principal>,
    may_approve: &BTreeSet<Principal>,
) -> String {
    let mut text = Text("// Written from a short list. Change the list, not this.\n".to_owned());
    let from: BTreeSet<Whom> = may_approve.iter().cloned().map(Whom::User).collect();
    let from = electors(&from);
    for person in may_request {
        text.comment(&format!("{person} may ask."));
        let whom = Whom::User(person.clone());
        text.permit(
            &format!("may-request:{person}"),
            (approvals, &from),
            &whom,
            "true",
        );
    }
    text.0
}
