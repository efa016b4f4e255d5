//! How a verb ends when it does not succeed: one value with exit code, stable word, text and hint.
//!
//! The rooms below have small errors of their own; each says beside its definition how it reads
//! here. The texts may hold words of a server: `Display` escapes the message, so that a failure put into
//! a sentence can always be shown; JSON gets it as it came.

use std::borrow::Cow;

use countersign_protocol::refusal::Refusal;

use crate::exit_code;
use crate::render;

/// Why a verb did not succeed: what happened and what it means, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", render::line(.message))]
pub struct Failure {
    /// One of [`crate::exit_code`].
    pub exit: u8,
    /// A stable word for programs: `duplicate_approval`.
    pub code: Cow<'static, str>,
    /// What happened and what it means, one sentence or two; no field for others, who would print it
    /// as it came.
    message: String,
    /// What to do next.
    pub hint: Option<String>,
}

impl Failure {
    fn new(exit: u8, code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self {
            exit,
            code: code.into(),
            message: message.into(),
            hint: None,
        }
    }

    /// It failed for a reason that none of the others names.
    pub fn failed(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::new(exit_code::FAILED, code, message)
    }

    /// The caller asked for something that cannot be; nothing was signed.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(exit_code::USAGE, "usage", message)
    }

    /// Evidence of tampering.
    pub fn tampering(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::new(exit_code::TAMPERING, code, message)
    }

    /// Policy, people or time say no.
    pub fn refused(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::new(exit_code::REFUSED, code, message)
    }

    /// No answer.
    pub fn unreachable(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::new(exit_code::UNREACHABLE, code, message)
    }

    /// The message as it came, for JSON, or for those who escape it when they print.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// A refusal that this client foresees from the verified log: the server would say the same.
impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::refused(refusal.code(), refusal.to_string())
    }
}
