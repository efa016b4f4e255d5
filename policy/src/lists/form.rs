//! The shapes of the short files, and how a file is read by its ending.

use std::collections::{BTreeMap, BTreeSet};

use countersign_protocol::name::Principal;
use countersign_protocol::permission::{Permission, Whom};
use countersign_protocol::policy::Policy;
use countersign_protocol::quorum::{MAX_ELECTORS, MAX_SEATS};
use serde::Deserialize;

use super::write;
use crate::problem::Problem;
use crate::review;

/// Longest entry of a list in bytes: a program's name, a directory or a pattern.
const MAX_ENTRY_BYTES: usize = 256;

/// Most entries of one list; more is a rule of another kind.
const MAX_ENTRIES: usize = 1000;

/// Why a file is no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListsError {
    /// Its ending says nothing.
    #[error("{0:?} is no policy file: its name ends in .cedar, .toml or .json")]
    Ending(String),
    /// It cannot be read.
    #[error("the file cannot be read: {0}")]
    Form(String),
    /// A value makes no sense.
    #[error("{0}")]
    Value(String),
    /// The text that it is or becomes cannot be published.
    #[error("the policy cannot be published: {}", crate::problem::in_one_sentence(.0))]
    Policy(Vec<Problem>),
}

/// The TOML form. What is left out has the default that is named.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Lists {
    /// How many others must agree: 2.
    pub approvals: u32,
    /// Who may agree, as in `@from`: whoever holds `command:approve`.
    pub from: Vec<String>,
    /// Who may ask, as `group:NAME` and so on: whoever holds `command:execute`.
    pub who: Vec<String>,
    /// Programs that may run, by name: all of them. As soon as there is a list, nothing else may.
    pub allow: Option<Vec<String>>,
    /// Programs that may not, whatever allows them.
    pub deny: Vec<String>,
    /// Directories that no word of a command may lie in.
    pub protected_directories: Vec<String>,
    /// Patterns of lines that may not run; `*` stands for anything.
    pub protected_operations: Vec<String>,
    /// Whether scripts for a shell may run at all: no.
    pub shell: bool,
    /// What single users may beside.
    pub users: BTreeMap<String, Own>,
}

impl Default for Lists {
    fn default() -> Self {
        Self {
            approvals: 2,
            from: Vec::new(),
            who: Vec::new(),
            allow: None,
            deny: Vec::new(),
            protected_directories: Vec::new(),
            protected_operations: Vec::new(),
            shell: false,
            users: BTreeMap::new(),
        }
    }
}

/// What a single user may beside what all may.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Own {
    /// More programs.
    pub allow: Vec<String>,
    /// How many others must agree to these; as for all when left out.
    pub approvals: Option<u32>,
}

/// The older JSON form.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Simple {
    approvals: u32,
    may_request: Vec<String>,
    may_approve: Vec<String>,
}

/// Reads a policy from a file's name and text: Cedar itself, or a short form that becomes it.
///
/// # Errors
/// A sentence that says what to change.
pub fn from_file(name: &str, text: &str) -> Result<Policy, ListsError> {
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    match ending {
        "cedar" => checked(text.to_owned()),
        "toml" => {
            let lists = toml::from_str::<Lists>(text);
            lists
                .map_err(|error| ListsError::Form(error.to_string()))?
                .to_policy()
        }
        "json" => {
            let simple = serde_json::from_str(text);
            simple_policy(simple.map_err(|error| ListsError::Form(error.to_string()))?)
        }
        _other => Err(ListsError::Ending(name.to_owned())),
    }
}

/// The policy of `COUNTERSIGN_ALLOWED_COMMANDS`: a comma list of programs, and the defaults.
///
/// # Errors
/// An entry that is no program's name.
pub fn allowed_commands(list: &str) -> Result<Policy, ListsError> {
    let allow = list.split(',').map(|name| name.trim().to_owned()).collect();
    let lists = Lists {
        allow: Some(allow),
        ..Lists::default()
    };
    lists.to_policy()
}

fn checked(text: String) -> Result<Policy, ListsError> {
    let policy = Policy::new(text).map_err(|error| ListsError::Value(error.to_string()))?;
    review(&policy).map_err(ListsError::Policy)?;
    Ok(policy)
}

fn require(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), ListsError> {
    if holds {
        Ok(())
    } else {
        Err(ListsError::Value(otherwise()))
    }
}

impl Lists {
    /// The policy that the lists mean.
    ///
    /// # Errors
    /// A value that makes no sense.
    pub fn to_policy(&self) -> Result<Policy, ListsError> {
        check_approvals(self.approvals)?;
        programs("allow", self.allow.iter().flatten())?;
        programs("deny", &self.deny)?;
        require(
            self.allow.as_ref().is_none_or(|allow| !allow.is_empty()),
            || {
                "allow is empty, so nothing could run; leave it out to allow every program"
                    .to_owned()
            },
        )?;
        let mut own = BTreeMap::new();
        for (name, user) in &self.users {
            let person: Principal = name
                .parse()
                .map_err(|error| ListsError::Value(format!("[users.{name:?}]: {error}")))?;
            programs("a user's allow", &user.allow)?;
            require(self.allow.is_some() && !user.allow.is_empty(), || {
                format!("[users.{name:?}] names programs beside a list `allow`; there must be both")
            })?;
            check_approvals(user.approvals.unwrap_or(self.approvals))?;
            own.insert(person, user);
        }
        entries("protected_operations", &self.protected_operations)?;
        entries("protected_directories", &self.protected_directories)?;
        for directory in &self.protected_directories {
            let plain = directory
                .split('/')
                .skip(1)
                .all(|part| !matches!(part, "" | "." | ".."));
            require(directory.starts_with('/') && plain, || {
                format!(
                    "protected_directories has {directory:?}; write it as /a/b, without . .. // or a / at the end"
                )
            })?;
        }
        require(!self.shell || self.protected_directories.is_empty(), || {
            "shell = true and protected_directories exclude each other: a script can build any path \
             while it runs, so nothing would be protected"
                .to_owned()
        })?;
        let who = self.named("who", &self.who, Permission::CommandExecute)?;
        let from = self.named("from", &self.from, Permission::CommandApprove)?;
        checked(write::lists(self, &who, &from, &own))
    }

    fn named(
        &self,
        list: &str,
        names: &[String],
        otherwise: Permission,
    ) -> Result<BTreeSet<Whom>, ListsError> {
        if names.is_empty() {
            return Ok(BTreeSet::from([Whom::Permission(otherwise)]));
        }
        require(names.len() <= MAX_ELECTORS, || {
            format!("{list} has at most {MAX_ELECTORS} names")
        })?;
        let whom = |name: &String| {
            let found = if name.contains(':') {
                name.parse().ok()
            } else {
                name.parse().ok().map(Whom::Group)
            };
            found.ok_or_else(|| {
                ListsError::Value(format!(
                    "{list} has {name:?}: a group, or user:NAME, group:NAME, role:NAME, permission:NAME"
                ))
            })
        };
        names.iter().map(whom).collect()
    }
}

fn check_approvals(approvals: u32) -> Result<(), ListsError> {
    require((1..=MAX_SEATS).contains(&approvals), || {
        format!(
            "approvals is {approvals}; it is 1 to {MAX_SEATS}, for nobody may run a command alone"
        )
    })
}

fn entries(list: &str, items: &[String]) -> Result<(), ListsError> {
    require(items.len() <= MAX_ENTRIES, || {
        format!("{list} has at most {MAX_ENTRIES} entries")
    })?;
    for item in items {
        let shown = !item.chars().any(char::is_control);
        require(
            !item.trim().is_empty() && item.len() <= MAX_ENTRY_BYTES && shown,
            || format!("{list} has {item:?}, which is empty, too long, or has a control character"),
        )?;
    }
    Ok(())
}

/// Programs are listed by name: a path would only look like a narrower rule.
fn programs<'a>(list: &str, names: impl IntoIterator<Item = &'a String>) -> Result<(), ListsError> {
    let names: Vec<String> = names.into_iter().cloned().collect();
    entries(list, &names)?;
    for name in &names {
        let plain = name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._+-[@".contains(&b));
        require(plain, || {
            format!(
                "{list} has {name:?}, which is no program's name: letters, digits and . _ + - without a path"
            )
        })?;
    }
    Ok(())
}

fn simple_policy(simple: Simple) -> Result<Policy, ListsError> {
    check_approvals(simple.approvals)?;
    let people = |list: &str, names: &[String]| -> Result<BTreeSet<Principal>, ListsError> {
        require((1..=MAX_ELECTORS).contains(&names.len()), || {
            format!(
                "{list} names {} people; it names 1 to {MAX_ELECTORS}",
                names.len()
            )
        })?;
        let person = |name: &String| {
            name.parse()
                .map_err(|error| ListsError::Value(format!("{list} has {name:?}: {error}")))
        };
        names.iter().map(person).collect()
    };
    let may_request = people("may_request", &simple.may_request)?;
    let may_approve = people("may_approve", &simple.may_approve)?;
    for who in &may_request {
        let others = may_approve.iter().filter(|name| *name != who).count();
        require(others >= simple.approvals as usize, || {
            format!(
                "{who} could never run anything: it takes {} approvals, and beside {who} only {others} \
                 may approve",
                simple.approvals
            )
        })?;
    }
    checked(write::simple(simple.approvals, &may_request, &may_approve))
}
