//! Whom a command would run as, with which variables and where.
//!
//! It looks at the directory and changes nothing. What it lets pass is looked at again at the start.

use std::path::Path;

use countersign_protocol::command::Environment;
use countersign_protocol::event::RefusalReason;
use countersign_protocol::name::OsUser;
use rustix::fs::{CWD, OFlags, ResolveFlags};

use super::host::{LocalRefusal, Rules};
use super::variables::{is_dangerous, is_safe_value};

/// The accounts that matter here: the agent's own, and the one used when a request names none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The user id the agent runs with.
    pub uid: u32,
    /// Its name, if the system's list of users has one.
    pub name: Option<String>,
    /// `default_user` of the configuration.
    pub default_user: Option<OsUser>,
    /// `users` of the configuration: whom a command may run as. When left out, as whom the agent
    /// itself and `default_user` are.
    pub users: Option<Vec<OsUser>>,
}

impl Account {
    /// Whom a command runs as that asks for this user, or for none.
    pub(super) fn user_for(&self, asked: Option<&OsUser>) -> String {
        let named = asked.or(self.default_user.as_ref()).map(OsUser::to_string);
        named
            .or_else(|| self.name.clone())
            .unwrap_or_else(|| self.uid.to_string())
    }

    /// Whether the agent runs as this user itself.
    pub(super) fn is_own(&self, user: &str) -> bool {
        self.name.as_deref() == Some(user) || self.uid.to_string() == user
    }

    /// Whether this is who runs what names no user.
    pub(super) fn is_usual(&self, user: &str) -> bool {
        self.is_same(user, &self.user_for(None))
    }

    /// Whether a user is in a list; the agent's own name and number are one.
    pub(super) fn is_one_of(&self, user: &str, users: &[OsUser]) -> bool {
        users.iter().any(|known| self.is_same(user, known.as_str()))
    }

    fn is_same(&self, one: &str, other: &str) -> bool {
        one == other || (self.is_own(one) && self.is_own(other))
    }

    fn may_run_as(&self, user: &str) -> bool {
        match &self.users {
            Some(users) => self.is_one_of(user, users),
            None => self.is_own(user) || self.is_usual(user),
        }
    }
}

impl Rules {
    pub(super) fn check_surroundings(
        &self,
        user: Option<&OsUser>,
        environment: Option<&Environment>,
        cwd: Option<&str>,
    ) -> Result<(), LocalRefusal> {
        self.check_user(user)?;
        for (name, value) in environment.into_iter().flat_map(Environment::variables) {
            self.check_variable(name, value)?;
        }
        check_directory(cwd.unwrap_or("/"))
    }

    /// Until the agent can become another user, the user must be its own; root is never implied.
    fn check_user(&self, asked: Option<&OsUser>) -> Result<(), LocalRefusal> {
        let account = &self.account;
        if account.uid == 0 && asked.or(account.default_user.as_ref()).is_none() {
            return Err(LocalRefusal::new(
                RefusalReason::NotAllowed,
                "default_user",
                "the agent runs as root and neither the request nor default_user says root",
            ));
        }
        let user = account.user_for(asked);
        if !account.may_run_as(&user) {
            return Err(LocalRefusal::new(
                RefusalReason::NotAllowed,
                "users",
                format!("{user} is not among the users that commands may run as on this host"),
            ));
        }
        if account.is_own(&user) {
            return Ok(());
        }
        Err(LocalRefusal::new(
            RefusalReason::Unusable,
            "run_as",
            format!("this agent cannot become {user}; it runs commands as its own user only"),
        ))
    }

    fn check_variable(&self, name: &str, value: &str) -> Result<(), LocalRefusal> {
        let (list, rule) = if is_dangerous(name) {
            (&self.environment_dangerous, "environment_dangerous")
        } else {
            (&self.environment, "environment")
        };
        let refuse = |detail| {
            let why = RefusalReason::NotAllowed;
            Err(LocalRefusal::new(why, rule, detail))
        };
        if !list.iter().any(|pattern| pattern.matches(name)) {
            return refuse(format!("the variable {name:?} is not allowed on this host"));
        }
        if !is_safe_value(name, value) {
            return refuse(format!("the value of {name:?} could name a file to load"));
        }
        Ok(())
    }
}

/// The directory exists, and no component of its path is a symlink. Looked at again at the start.
fn check_directory(path: &str) -> Result<(), LocalRefusal> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat2(
        CWD,
        Path::new(path),
        flags,
        rustix::fs::Mode::empty(),
        ResolveFlags::NO_SYMLINKS,
    )
    .map(drop)
    .map_err(|error| {
        LocalRefusal::new(
            RefusalReason::Unusable,
            "cwd",
            format!("the directory {path:?} cannot be used (symlinks are not followed): {error}"),
        )
    })
}
