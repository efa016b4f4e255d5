//! What is asked for: the act that people sign, and the free text behind its digests.
//!
//! An [`Act`] is the part that request and approval share, word for word: comparing two of them is
//! the whole binding check. [`CommandSpec`] and [`Environment`] are the documents in its blobs.
//! They are parsed here once; whoever holds one may rely on every limit below.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::blob::{BlobRef, MAX_BLOB_BYTES};
use crate::canonical::{self, CanonicalError};
use crate::hash::{Digest, Hash};
use crate::name::{OsUser, RuleName, Time};
use crate::quorum::is_false;
use crate::rollout::Rollout;

/// Used when a request names no timeout.
pub const DEFAULT_TIMEOUT_MS: u64 = 30_000;

/// The longest timeout; longer work belongs to a job system, not to an approval.
pub const MAX_TIMEOUT_MS: u64 = 300_000;

/// Output kept of one execution, both streams together, when a request names no limit.
pub const DEFAULT_OUTPUT_LIMIT: u64 = 1024 * 1024;

/// The largest output limit a request may name: what one host may make everybody store.
pub const MAX_OUTPUT_LIMIT: u64 = 64 * 1024 * 1024;

/// Most arguments; more belongs on standard input.
pub const MAX_ARGS: usize = 1024;

/// Longest argument, directory or variable in bytes: Linux's own limit for one string.
pub const MAX_STRING_BYTES: usize = 128 * 1024;

/// Most environment variables.
pub const MAX_VARIABLES: usize = 256;

/// How long a request may stay open at most: a week of approvals on paper is no approval.
pub const MAX_LIFETIME_US: u64 = 7 * 24 * 3600 * crate::name::SECOND_US;

/// How the command is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// A program and its argument list; no shell sees it.
    Exec,
    /// One string for `/bin/sh -c`.
    Shell,
    /// A named action of the host: its name, then the arguments that its host's own configuration
    /// puts into the action's steps.
    Action,
}

/// What happens when a run reaches its output limit. Where an act says nothing, the run goes on and
/// the rest of its output is counted and hashed only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AtOutputLimit {
    /// The run is ended there, with the outcome `output_limit`.
    Stop,
}

/// The frozen targets of a command: how many, and the root of their tree. PROTOCOL 6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Targets {
    /// Number of lines.
    pub count: u64,
    /// RFC 6962 root over the lines.
    pub root: Hash,
    /// The lines themselves, a [`crate::target::TargetList`] document.
    pub list: BlobRef,
}

/// Exactly what would run, where and until when. Request and approval carry equal ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Act {
    /// Program or shell.
    pub mode: Mode,
    /// The [`CommandSpec`].
    pub spec: BlobRef,
    /// The [`Environment`], when the request sets variables.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<BlobRef>,
    /// Standard input, when the request brings some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdin: Option<BlobRef>,
    /// The [`SealedSecrets`](crate::secret::SealedSecrets), when the request hands some over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secrets: Option<BlobRef>,
    /// Where it runs.
    pub targets: Targets,
    /// The account to run as; without it the host's own configuration decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<OsUser>,
    /// Time the command may take, in milliseconds.
    pub timeout_ms: u64,
    /// Bytes of output kept for each execution.
    pub output_limit: u64,
    /// What happens there; when left out, the run goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_output_limit: Option<AtOutputLimit>,
    /// No run starts before this.
    pub not_before: Time,
    /// No approval counts and no run starts from this on.
    pub expires_at: Time,
    /// Always 1.
    pub max_runs: u8,
    /// Asked for without approvals, by a rule for that, and with a review afterwards.
    #[serde(default, skip_serializing_if = "is_false")]
    pub break_glass: bool,
    /// How it goes over its hosts; when left out, and the policy asks nothing, all start at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
}

/// Why a request asks for something that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The document is not canonical or not of this shape.
    #[error(transparent)]
    Document(#[from] CanonicalError),
    /// A number or string is outside its limits; the text names it.
    #[error("{0}")]
    Limit(&'static str),
    /// The document and the signed act name different things.
    #[error("{0} in the command spec differs from the signed act")]
    Differs(&'static str),
}

fn limit(holds: bool, otherwise: &'static str) -> Result<(), CommandError> {
    if holds {
        Ok(())
    } else {
        Err(CommandError::Limit(otherwise))
    }
}

impl Act {
    /// Checks the limits that hold for every act.
    ///
    /// # Errors
    /// [`CommandError::Limit`] names the first number that is out of bounds.
    pub fn check(&self) -> Result<(), CommandError> {
        limit(self.max_runs == 1, "max_runs must be 1")?;
        limit(
            (1..=MAX_TIMEOUT_MS).contains(&self.timeout_ms),
            "timeout must be between 1 ms and 300 s",
        )?;
        limit(
            self.output_limit <= MAX_OUTPUT_LIMIT,
            "output limit is at most 64 MiB",
        )?;
        limit(
            self.not_before < self.expires_at,
            "not_before must come before expires_at",
        )?;
        limit(
            self.expires_at.micros_since(self.not_before) <= MAX_LIFETIME_US,
            "a request stays open for seven days at most",
        )?;
        limit(
            (1..=crate::target::MAX_TARGETS).contains(&self.targets.count),
            "a command names between 1 and 100,000 targets",
        )?;
        match &self.rollout {
            Some(rollout) => rollout.check().map_err(CommandError::Limit),
            None => Ok(()),
        }
    }
}

/// The document behind [`Act::spec`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandSpec {
    /// Program or shell; equals the act's.
    pub mode: Mode,
    /// The words. For a shell there is exactly one: the script. For an action the first is its name.
    pub argv: Vec<String>,
    /// Absolute directory to run in; the host's `/` when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Equals the act's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<OsUser>,
    /// Equals the act's.
    pub timeout_ms: u64,
    /// Equals the act's.
    pub output_limit: u64,
    /// Equals the act's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_output_limit: Option<AtOutputLimit>,
}

fn is_c_string(text: &str) -> bool {
    text.len() <= MAX_STRING_BYTES && !text.contains('\0')
}

impl CommandSpec {
    /// Parses the document and checks it against the act that names it.
    ///
    /// # Errors
    /// Not canonical, outside a limit, or different from `act`.
    pub fn parse(document: &[u8], act: &Act) -> Result<Self, CommandError> {
        let spec: Self = canonical::from_document(document, MAX_BLOB_BYTES)?;
        spec.check()?;
        let differs = |same: bool, what| {
            if same {
                Ok(())
            } else {
                Err(CommandError::Differs(what))
            }
        };
        differs(spec.mode == act.mode, "mode")?;
        differs(spec.user == act.user, "user")?;
        differs(spec.timeout_ms == act.timeout_ms, "timeout_ms")?;
        differs(spec.output_limit == act.output_limit, "output_limit")?;
        differs(
            spec.at_output_limit == act.at_output_limit,
            "at_output_limit",
        )?;
        Ok(spec)
    }

    /// Checks the limits that hold for every spec.
    ///
    /// # Errors
    /// [`CommandError::Limit`] names what is wrong.
    pub fn check(&self) -> Result<(), CommandError> {
        limit(
            (1..=MAX_ARGS).contains(&self.argv.len()),
            "a command has between 1 and 1024 words",
        )?;
        limit(
            self.argv.iter().all(|word| is_c_string(word)),
            "an argument has no NUL and at most 128 KiB",
        )?;
        limit(
            self.argv.first().is_some_and(|program| !program.is_empty()),
            "the program's name is empty",
        )?;
        limit(
            self.mode != Mode::Shell || self.argv.len() == 1,
            "a shell command is exactly one word; quote it",
        )?;
        limit(
            self.mode != Mode::Action || self.action().is_some(),
            "an action's name is 1 to 128 characters of A-Z a-z 0-9 . _ @ : / = + -",
        )?;
        limit(
            self.cwd
                .as_deref()
                .is_none_or(|dir| dir.starts_with('/') && is_c_string(dir)),
            "the working directory must be an absolute path",
        )
    }

    /// The action that is asked for; none in another mode.
    #[must_use]
    pub fn action(&self) -> Option<RuleName> {
        let name = self.argv.first()?;
        name.parse().ok().filter(|_| self.mode == Mode::Action)
    }

    /// The document's bytes.
    ///
    /// # Errors
    /// A value that canonical JSON has no form for.
    pub fn to_document(&self) -> Result<Vec<u8>, CanonicalError> {
        canonical::to_vec(self)
    }
}

/// One step of an action as its host will run it: an element of the document behind
/// [`ExecutionStarted::steps`](crate::event::ExecutionStarted::steps).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActionStep {
    /// The words, as the action's template and the request's arguments make them.
    pub argv: Vec<String>,
    /// The opened program's path; the name that was looked for where there is none.
    pub path: String,
    /// SHA-256 of its bytes; zeros where there is none.
    pub sha256: Digest,
}

/// The document behind [`Act::env`]: variables sorted by name, each name once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Environment(Vec<(String, String)>);

impl Environment {
    /// Sorts and checks variables.
    ///
    /// # Errors
    /// A name that is empty, holds `=` or NUL, or stands twice; too many or too long ones.
    pub fn new(mut variables: Vec<(String, String)>) -> Result<Self, CommandError> {
        variables.sort();
        let environment = Self(variables);
        environment.check()?;
        Ok(environment)
    }

    /// Parses the document.
    ///
    /// # Errors
    /// Not canonical, not sorted, or outside a limit.
    pub fn parse(document: &[u8]) -> Result<Self, CommandError> {
        let environment: Self = canonical::from_document(document, MAX_BLOB_BYTES)?;
        environment.check()?;
        Ok(environment)
    }

    fn check(&self) -> Result<(), CommandError> {
        limit(
            self.0.len() <= MAX_VARIABLES,
            "at most 256 environment variables",
        )?;
        limit(
            self.0.iter().all(|(name, value)| {
                !name.is_empty() && !name.contains('=') && is_c_string(name) && is_c_string(value)
            }),
            "a variable's name is not empty and has no '='; neither part has a NUL",
        )?;
        limit(
            self.0
                .iter()
                .zip(self.0.iter().skip(1))
                .all(|(a, b)| a.0 < b.0),
            "environment variables are sorted by name and each stands once",
        )
    }

    /// The variables, sorted by name.
    #[must_use]
    pub fn variables(&self) -> &[(String, String)] {
        &self.0
    }

    /// The document's bytes.
    ///
    /// # Errors
    /// A value that canonical JSON has no form for.
    pub fn to_document(&self) -> Result<Vec<u8>, CanonicalError> {
        canonical::to_vec(self)
    }
}
