//! `[[allow]]` and `[[deny]]`: which programs may run here with which arguments.
//!
//! Deny wins over allow; of the allow rules the first that matches counts, with its limits. What a
//! rule speaks of (program, arguments, user) decides whether it matches; what it demands besides
//! (digest, time, people) refuses in its name. It must not open files and knows no shell: argument
//! rules do not bind one.

use std::path::{Path, PathBuf};

use countersign_protocol::event::RefusalReason;
use countersign_protocol::name::{OsUser, RuleName, ServiceName};

use super::account::{Account, Runner};
use super::confine::Confine;
use super::host::LocalRefusal;
use super::patterns::{Pattern, PatternError, Shape};
use super::services;

/// What the ledger is told when no rule allows a command.
pub const NOT_LISTED: &str = "Command not in whitelist";

/// A pattern for a program: an absolute path, or a bare file name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramPattern {
    pattern: Pattern,
    is_bare: bool,
}

impl ProgramPattern {
    /// `None` if it is a relative path with a `/`, which would depend on a directory.
    ///
    /// # Errors
    /// It is no pattern at all.
    pub fn parse(text: &str) -> Result<Option<Self>, PatternError> {
        let pattern = Pattern::parse(text)?;
        let is_bare = match pattern.shape() {
            Shape::Absolute => false,
            Shape::Bare if !text.is_empty() => true,
            Shape::Bare | Shape::Neither => return Ok(None),
        };
        Ok(Some(Self { pattern, is_bare }))
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.pattern.as_str()
    }

    /// A bare name means that file in one of the folders of `path`, not of that name anywhere.
    /// Where no folders are known it means the bare name itself.
    fn allows(&self, file: &Path, folders: Option<&[PathBuf]>) -> bool {
        let Some(text) = file.to_str() else {
            return false;
        };
        if !self.is_bare {
            // `//` and `.` name the same file by another text, `..` may name another one.
            let plain = |part: &str| !matches!(part, "" | "." | "..");
            return text.split('/').skip(1).all(plain) && self.pattern.allows(text);
        }
        let Some(folders) = folders else {
            return !text.contains('/') && self.pattern.allows(text);
        };
        let Some((folder, name)) = text.rsplit_once('/') else {
            return false;
        };
        let is_known = |known: &PathBuf| known.to_str() == Some(folder);
        folders.iter().any(is_known) && self.pattern.allows(name)
    }

    /// A bare name means every file of that name. Where a bare name was asked for and nobody knows
    /// where it will be found, a path means its last part too.
    fn forbids(&self, file: &Path, is_found: bool) -> bool {
        let text = file.to_string_lossy();
        let name = text.rsplit('/').next().unwrap_or_default();
        if !self.is_bare && !is_found && !text.contains('/') {
            return self.pattern.forbids_somewhere(name);
        }
        self.pattern
            .forbids(if self.is_bare { name } else { &text })
    }
}

/// Patterns for the arguments after the program, one each; then nothing more, or any more.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Arguments {
    /// One for each of the first arguments.
    pub fixed: Vec<Pattern>,
    /// Whether any further arguments may follow (`**`).
    pub rest: bool,
}

impl Arguments {
    fn fits(&self, count: usize) -> bool {
        count == self.fixed.len() || (self.rest && count > self.fixed.len())
    }

    fn allows(&self, words: &[String]) -> bool {
        let mut pairs = self.fixed.iter().zip(words);
        self.fits(words.len())
            && pairs.all(|(pattern, word)| pattern.allows(word))
            // What `**` stands for is free, but never a control character.
            && !words.iter().any(|word| word.contains(char::is_control))
    }

    fn forbids(&self, words: &[String]) -> bool {
        let mut pairs = self.fixed.iter().zip(words);
        self.fits(words.len()) && pairs.all(|(pattern, word)| pattern.forbids(word))
    }

    /// Whether everything that `other` allows is allowed by this too; may say no where it is so.
    fn covers(&self, other: &Self) -> bool {
        self == other || (self.rest && self.fixed.is_empty())
    }
}

/// One `[[allow]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowRule {
    /// What refusals and `check` call it.
    pub name: RuleName,
    /// The resolved program.
    pub program: ProgramPattern,
    /// Its arguments; none when left out.
    pub args: Arguments,
    /// No argument may match one of these, read broadly.
    pub args_not: Vec<Pattern>,
    /// Services that it may run in; when left out, on the host itself and in none of them.
    pub services: Option<Vec<ServiceName>>,
    /// Users that it may run as; when left out, the one who runs what names no user.
    pub users: Option<Vec<OsUser>>,
    /// Demanded digests of the program, any of them; no demand when empty.
    pub sha256: Vec<[u8; 32]>,
    /// Demanded people, when that is more than the host's own number.
    pub min_approvals: Option<u32>,
    /// The longest timeout, in seconds, that a request may name.
    pub timeout_s: Option<u64>,
    /// What holds it, over the host's own defaults.
    pub confine: Confine,
    /// Why it is there, for people.
    pub reason: Option<String>,
}

impl AllowRule {
    fn matches(&self, asked: &Asked<'_>) -> bool {
        let is_place = match (&asked.whom, &self.services) {
            (Whom::Inside { service, .. }, Some(services)) => services.contains(service),
            (Whom::Account { .. }, None) => true,
            (Whom::Inside { .. }, None) | (Whom::Account { .. }, Some(_)) => false,
        };
        let is_spared = |word: &String| !self.args_not.iter().any(|not| not.forbids(word));
        is_place
            && asked.whom.is_allowed(self.users.as_deref())
            && self.program.allows(asked.file, asked.known_folders())
            && self.args.allows(asked.args)
            && asked.args.iter().all(is_spared)
    }

    fn demands(&self, asked: &Asked<'_>) -> Result<(), LocalRefusal> {
        let refuse = |detail: String| {
            let rule = self.name.as_str();
            Err(LocalRefusal::new(RefusalReason::NotAllowed, rule, detail))
        };
        if !self.sha256.is_empty() && !asked.has_digest(&self.sha256) {
            return refuse(format!(
                "{} is not the file that this rule was written for: its SHA-256 differs",
                asked.file.display()
            ));
        }
        if !self.sha256.is_empty() && asked.whom.is_by_sudo() {
            return refuse(format!(
                "sudo opens {} again by its name, so nobody can hold it to the SHA-256 that this \
                 rule demands. Demand it in sudoers, which can, or have an agent that is root",
                asked.file.display()
            ));
        }
        match self.timeout_s {
            Some(most) if asked.timeout_ms > most.saturating_mul(1000) => refuse(format!(
                "the command asks for {} ms and this rule gives it {most} s at most",
                asked.timeout_ms
            )),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether nothing that matches `later` gets past this one.
    #[must_use]
    pub fn hides(&self, later: &Self) -> bool {
        self.program == later.program
            && self.services == later.services
            && self.users == later.users
            && self.args.covers(&later.args)
            && (self.args_not.is_empty() || self.args_not == later.args_not)
    }
}

/// One `[[deny]]`: everything that it names must hold, and what it leaves out is any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DenyRule {
    /// What refusals and `check` call it.
    pub name: RuleName,
    /// The program, by the path that was asked for or by the one behind all symlinks.
    pub program: Option<ProgramPattern>,
    /// Its arguments, read broadly.
    pub args: Option<Arguments>,
    /// One argument at least matches one of these, read broadly; no condition when empty.
    pub any_arg: Vec<Pattern>,
    /// Users that it would run as.
    pub users: Option<Vec<OsUser>>,
    /// Digests of the program, any of them; no condition when empty.
    pub sha256: Vec<[u8; 32]>,
    /// Why it is there; told in the refusal.
    pub reason: Option<String>,
}

impl DenyRule {
    fn matches(&self, asked: &Asked<'_>) -> bool {
        let files = [Some(asked.file), asked.real];
        let is_program = |program: &ProgramPattern| {
            let mut files = files.iter().flatten();
            files.any(|file| program.forbids(file, asked.known_folders().is_some()))
        };
        let is_named = |word: &String| self.any_arg.iter().any(|pattern| pattern.forbids(word));
        self.program.as_ref().is_none_or(is_program)
            && self
                .args
                .as_ref()
                .is_none_or(|args| args.forbids(asked.args))
            && (self.any_arg.is_empty() || asked.args.iter().any(is_named))
            && self
                .users
                .as_ref()
                .is_none_or(|users| asked.whom.is_forbidden(users))
            && (self.sha256.is_empty() || asked.could_have_digest(&self.sha256))
    }

    /// Whether a rule for `program` can never be reached because of this one.
    #[must_use]
    pub fn hides(&self, program: &ProgramPattern) -> bool {
        let is_plain = self.args.is_none() && self.any_arg.is_empty() && self.users.is_none();
        is_plain && self.sha256.is_empty() && self.program.as_ref() == Some(program)
    }

    fn refusal(&self) -> LocalRefusal {
        let detail = match &self.reason {
            Some(reason) => format!("a deny rule of this host forbids it: {reason}"),
            None => "a deny rule of this host forbids it".to_owned(),
        };
        LocalRefusal::new(RefusalReason::NotAllowed, self.name.as_str(), detail)
    }
}

/// What the rules are asked about.
pub(super) struct Asked<'a> {
    /// The program's path as it was opened.
    pub(super) file: &'a Path,
    /// The same behind all symlinks, if there is such a file.
    pub(super) real: Option<&'a Path>,
    /// Its digest, if there is such a file.
    pub(super) sha256: Option<&'a [u8; 32]>,
    /// The words after the program.
    pub(super) args: &'a [String],
    /// Whom it would run as.
    pub(super) whom: Whom<'a>,
    /// Where bare names are looked for.
    pub(super) folders: &'a [PathBuf],
    /// The request's timeout.
    pub(super) timeout_ms: u64,
}

/// Whom a command would run as.
#[derive(Clone, Copy)]
pub(super) enum Whom<'a> {
    /// An account of this host.
    Account {
        /// Which.
        runner: &'a Runner,
        /// It would become that user by `sudo`.
        sudo: bool,
        /// Who is who.
        account: &'a Account,
    },
    /// Somebody in a service, whose accounts nobody here can look up.
    Inside {
        /// Which service.
        service: &'a ServiceName,
        /// The user that the request names.
        user: Option<&'a OsUser>,
    },
}

impl Whom<'_> {
    /// Whether a list that allows has them; without a list, whether they are the usual one.
    pub(super) fn is_allowed(&self, users: Option<&[OsUser]>) -> bool {
        match (self, users) {
            (Self::Account { runner, .. }, Some(users)) => runner.is_one_of(users),
            (
                Self::Account {
                    runner, account, ..
                },
                None,
            ) => account.is_usual(runner),
            (Self::Inside { user, .. }, users) => services::is_user(users, *user),
        }
    }

    fn is_forbidden(&self, users: &[OsUser]) -> bool {
        match self {
            Self::Account {
                runner, account, ..
            } => account.is_forbidden(runner, users),
            Self::Inside { user, .. } => services::is_forbidden_user(users, *user),
        }
    }

    const fn is_by_sudo(&self) -> bool {
        matches!(self, Self::Account { sudo: true, .. })
    }
}

impl Asked<'_> {
    /// Where a bare name is known to be; in a service, its own search decides.
    fn known_folders(&self) -> Option<&[PathBuf]> {
        match self.whom {
            Whom::Account { .. } => Some(self.folders),
            Whom::Inside { .. } => None,
        }
    }

    fn has_digest(&self, digests: &[[u8; 32]]) -> bool {
        self.sha256.is_some_and(|sha256| digests.contains(sha256))
    }

    /// What cannot be opened from here could be any of them; what is not there is none.
    fn could_have_digest(&self, digests: &[[u8; 32]]) -> bool {
        matches!(self.whom, Whom::Inside { .. }) || self.has_digest(digests)
    }
}

/// All rules about commands; by default nothing may run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Commands {
    /// What no rule speaks of may run too.
    pub allow_all: bool,
    /// In the order of the file.
    pub allow: Vec<AllowRule>,
    /// In the order of the file.
    pub deny: Vec<DenyRule>,
}

impl Commands {
    /// The first deny rule that matches refuses.
    pub(super) fn check_denied(&self, asked: &Asked<'_>) -> Result<(), LocalRefusal> {
        match self.deny.iter().find(|rule| rule.matches(asked)) {
            Some(rule) => Err(rule.refusal()),
            None => Ok(()),
        }
    }

    /// The allow rule that speaks of it, its demands met. Where none does, `allow_all` decides: the
    /// host's, or that of a service.
    pub(super) fn find_allowed(
        &self,
        asked: &Asked<'_>,
        allow_all: bool,
    ) -> Result<Option<&AllowRule>, LocalRefusal> {
        let Some(rule) = self.allow.iter().find(|rule| rule.matches(asked)) else {
            return if allow_all {
                Ok(None)
            } else {
                let why = RefusalReason::NotAllowed;
                Err(LocalRefusal::new(why, "allow", NOT_LISTED))
            };
        };
        rule.demands(asked).map(|()| Some(rule))
    }
}
