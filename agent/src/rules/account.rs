//! Whom a command runs as: the account is found once, by name and number, and judged by both.
//!
//! It owns the look-up in the system's list of users and who counts as whom. It changes no user:
//! the executor does, by the numbers that are found here.

use std::ffi::CString;
use std::fmt;
use std::path::PathBuf;

use countersign_protocol::event::RefusalReason;
use countersign_protocol::name::OsUser;
use nix::errno::Errno;
use nix::unistd::{Gid, Uid, User, getgrouplist};

use super::host::LocalRefusal;

/// An account of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// All its groups, the primary one included.
    pub groups: Vec<u32>,
}

/// Where accounts are looked up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Directory {
    /// What the system's C library asks: `/etc/passwd`, and a directory service if there is one.
    #[default]
    System,
    /// These and no others.
    These(Vec<Listed>),
}

impl Directory {
    /// The account of a name, or of a number where the text is one. The text says why if nobody
    /// can tell.
    fn find(&self, text: &str) -> Result<Option<Listed>, String> {
        let number = match number(text) {
            // As no account has such a number, it is not taken for a name either.
            Some(None) => return Ok(None),
            number => number.flatten(),
        };
        match self {
            Self::System => find_in_system(text, number).map_err(|error| error.to_string()),
            Self::These(accounts) => {
                let is_it = |known: &&Listed| match number {
                    Some(uid) => known.uid == uid,
                    None => known.name == text,
                };
                Ok(accounts.iter().find(is_it).cloned())
            }
        }
    }
}

fn find_in_system(text: &str, number: Option<u32>) -> Result<Option<Listed>, Errno> {
    let found = match number {
        Some(uid) => User::from_uid(Uid::from_raw(uid)),
        None => User::from_name(text),
    };
    let user = match found {
        Ok(Some(user)) => user,
        // Some systems say "there is none" by an error.
        Ok(None) | Err(Errno::ENOENT | Errno::ESRCH) => return Ok(None),
        Err(error) => return Err(error),
    };
    let name = CString::new(user.name.as_str()).map_err(|_| Errno::EINVAL)?;
    let groups = getgrouplist(&name, user.gid)?;
    Ok(Some(Listed {
        name: user.name,
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
        groups: groups.into_iter().map(Gid::as_raw).collect(),
    }))
}

/// The number that a text of digits is; `Some(None)` if it is larger than any.
fn number(text: &str) -> Option<Option<u32>> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok())
}

/// How the agent becomes another user.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum RunAs {
    /// By itself, which only root may.
    #[default]
    Setuid,
    /// By this program, `sudo`, which must let it without a password.
    Sudo(PathBuf),
}

/// The accounts that matter here: the agent's own, the one used when a request names none, and
/// those that it may become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The user id the agent runs with.
    pub uid: u32,
    /// The group id the agent runs with.
    pub gid: u32,
    /// Its name, if the system's list of users has one.
    pub name: Option<String>,
    /// `default_user` of the configuration.
    pub default_user: Option<OsUser>,
    /// `users` of the configuration: whom a command may run as. When left out, as whom the agent
    /// itself and `default_user` are.
    pub users: Option<Vec<OsUser>>,
    /// How another user is become.
    pub run_as: RunAs,
    /// Who is there.
    pub directory: Directory,
}

/// The account that a command runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runner {
    /// The text that named it: in the request, in `default_user`, or the agent's own name.
    asked: String,
    /// Its name; none only where the agent's own account has none.
    pub name: Option<String>,
    /// Its user id.
    pub uid: u32,
    /// Its primary group id.
    pub gid: u32,
    /// Its groups; none for the agent's own account, which keeps those that it has.
    pub groups: Vec<u32>,
    /// The agent runs as this user itself, so nothing is changed.
    pub is_own: bool,
}

impl fmt::Display for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.as_deref().unwrap_or(&self.asked);
        write!(f, "{name} (uid {}, gid {}", self.uid, self.gid)?;
        if self.is_own {
            return f.write_str(", the agent's own)");
        }
        f.write_str(", groups")?;
        for group in &self.groups {
            write!(f, " {group}")?;
        }
        f.write_str(")")
    }
}

impl Runner {
    /// Whether this word of a list that allows means this account: its name, or its number.
    fn is(&self, word: &OsUser) -> bool {
        match number(word.as_str()) {
            Some(uid) => uid == Some(self.uid),
            None => {
                [Some(self.asked.as_str()), self.name.as_deref()].contains(&Some(word.as_str()))
            }
        }
    }

    /// Whether a list that allows has this account.
    pub(super) fn is_one_of(&self, users: &[OsUser]) -> bool {
        users.iter().any(|word| self.is(word))
    }
}

impl Account {
    /// That of this process. An own name that nobody knows is left out; its number still counts.
    #[must_use]
    pub fn of_process(
        default_user: Option<OsUser>,
        users: Option<Vec<OsUser>>,
        run_as: RunAs,
    ) -> Self {
        let uid = rustix::process::geteuid().as_raw();
        let own = User::from_uid(Uid::from_raw(uid)).ok().flatten();
        Self {
            uid,
            gid: rustix::process::getegid().as_raw(),
            name: own.map(|own| own.name),
            default_user,
            users,
            run_as,
            directory: Directory::System,
        }
    }

    /// Whom a command runs as that asks for this user, or for none. Root is never implied.
    ///
    /// # Errors
    /// The setting that forbids it; `run_as` where nobody is there or the agent cannot.
    pub(super) fn runner(&self, asked: Option<&OsUser>) -> Result<Runner, LocalRefusal> {
        let named = asked.or(self.default_user.as_ref()).map(OsUser::as_str);
        if self.uid == 0 && named.is_none() {
            return Err(not_allowed(
                "default_user",
                "the agent runs as root and neither the request nor default_user says root".into(),
            ));
        }
        let text = match (named, &self.name) {
            (Some(named), _) => named.to_owned(),
            (None, Some(own)) => own.clone(),
            (None, None) => self.uid.to_string(),
        };
        if self.is_own(&text) {
            return self.permit(self.own(text));
        }
        let found = self.directory.find(&text);
        let why = match found {
            Ok(Some(account)) => return self.take(account, text),
            Ok(None) => "there is no such account".to_owned(),
            Err(error) => format!("the account could not be looked up ({error})"),
        };
        // Who is there is told only to those who may ask for it.
        self.permit(Runner {
            asked: text.clone(),
            name: None,
            uid: number(&text).flatten().unwrap_or(u32::MAX),
            gid: u32::MAX,
            groups: Vec::new(),
            is_own: false,
        })?;
        Err(unusable(format!(
            "the command was to run as {text}, and {why} on this host"
        )))
    }

    fn take(&self, account: Listed, asked: String) -> Result<Runner, LocalRefusal> {
        let runner = self.permit(Runner {
            asked,
            name: Some(account.name),
            uid: account.uid,
            gid: account.gid,
            groups: account.groups,
            is_own: false,
        })?;
        if matches!(self.run_as, RunAs::Sudo(_)) || self.uid == 0 {
            return Ok(runner);
        }
        let own = self.own(self.uid.to_string());
        Err(unusable(format!(
            "this agent is not root and cannot become {}: it runs commands as its own user, {} \
             (uid {}), only. Run the agent as root, or set run_as = \"sudo\"",
            runner.asked,
            own.name.unwrap_or(own.asked),
            own.uid,
        )))
    }

    /// Whether the settings let a command run as this user.
    fn permit(&self, runner: Runner) -> Result<Runner, LocalRefusal> {
        let is_listed = match &self.users {
            Some(users) => runner.is_one_of(users),
            None => runner.is_own || self.is_usual(&runner),
        };
        if !is_listed {
            let asked = runner.asked;
            return Err(not_allowed(
                "users",
                format!("{asked} is not among the users that commands may run as on this host"),
            ));
        }
        let mut written = self.users.iter().flatten().chain(&self.default_user);
        if runner.uid == 0 && !runner.is_own && !written.any(is_root) {
            let asked = runner.asked;
            return Err(not_allowed(
                "users",
                format!("{asked} is root by another name, and this host does not name root"),
            ));
        }
        Ok(runner)
    }

    /// The agent's own account, as which services are entered.
    pub(super) fn entering(&self) -> Runner {
        self.own(self.name.clone().unwrap_or_else(|| self.uid.to_string()))
    }

    fn own(&self, asked: String) -> Runner {
        Runner {
            asked,
            name: self.name.clone(),
            uid: self.uid,
            gid: self.gid,
            groups: Vec::new(),
            is_own: true,
        }
    }

    /// Whether the agent runs as this user itself.
    fn is_own(&self, text: &str) -> bool {
        match number(text) {
            Some(uid) => uid == Some(self.uid),
            None => self.name.as_deref() == Some(text),
        }
    }

    /// Whether this is who runs what names no user.
    pub(super) fn is_usual(&self, runner: &Runner) -> bool {
        match &self.default_user {
            Some(usual) => runner.is(usual),
            None => runner.is_own,
        }
    }

    /// Whether a list that forbids has this user, by whatever name or number.
    pub(super) fn is_forbidden(&self, runner: &Runner, users: &[OsUser]) -> bool {
        users.iter().any(|word| {
            let same_uid = || {
                let other = self.directory.find(word.as_str()).ok().flatten();
                other.is_some_and(|other| other.uid == runner.uid)
            };
            runner.is(word) || (runner.uid == 0 && is_root(word)) || same_uid()
        })
    }
}

/// Root, written out.
fn is_root(word: &OsUser) -> bool {
    word.as_str() == "root" || number(word.as_str()) == Some(Some(0))
}

fn not_allowed(rule: &str, detail: String) -> LocalRefusal {
    LocalRefusal::new(RefusalReason::NotAllowed, rule, detail)
}

fn unusable(detail: String) -> LocalRefusal {
    LocalRefusal::new(RefusalReason::Unusable, "run_as", detail)
}
