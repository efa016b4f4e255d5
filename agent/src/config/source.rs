//! Where a setting stands, so that a mistake is told with its line or its variable.
//!
//! It must not know what the settings mean.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;

use super::written::PREFIX;
use crate::rules::NamePattern;
use crate::signers::SignersError;

/// Why the agent does not start with this configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Someone else could change it.
    #[error("{file} can be changed by others, and with it what runs here; run: chmod go-w {file}", file = .0.display())]
    Writable(PathBuf),
    /// Someone else owns it.
    #[error("{file} belongs to another user, who could change what runs here; run: chown root {file}", file = .0.display())]
    Owner(PathBuf),
    /// A mistake in the file.
    #[error("{path}, line {line}: {problem}", path = path.display())]
    Mistake {
        /// Which file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// A mistake in a variable of the environment.
    #[error("environment variable {name}: {problem}")]
    Variable {
        /// Which.
        name: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// No CA in the CA file.
    #[error("{path} holds no certificate; ca names a PEM file of the CA that issued the server's certificate", path = .0.display())]
    Ca(PathBuf),
    /// A mistake in the witness policy.
    #[error("{path}: {reason}", path = path.display())]
    Witnesses {
        /// Which file.
        path: PathBuf,
        /// What.
        reason: String,
    },
    /// A mistake in `allowed_signers`.
    #[error("{path}, {source}", path = path.display())]
    Signers {
        /// Which file.
        path: PathBuf,
        /// Where and what.
        source: SignersError,
    },
}

/// A file's text and the settings that the environment gave instead. Those have a place behind the
/// end of the text, so that one kind of span serves both.
pub(super) struct Source<'a> {
    pub(super) path: &'a Path,
    pub(super) text: &'a str,
    pub(super) variables: Vec<&'static str>,
}

impl Source<'_> {
    /// The place of a value that comes from the environment.
    pub(super) fn place_of_variable(&mut self, setting: &'static str) -> Range<usize> {
        self.variables.push(setting);
        let start = self.text.len().saturating_add(self.variables.len());
        start..start
    }

    pub(super) fn mistake(
        &self,
        span: Option<Range<usize>>,
        problem: impl Into<String>,
    ) -> ConfigError {
        let start = span.map_or(0, |span| span.start);
        let behind = start.checked_sub(self.text.len().saturating_add(1));
        if let Some(setting) = behind.and_then(|at| self.variables.get(at)) {
            return ConfigError::Variable {
                name: format!("{PREFIX}{}", setting.to_ascii_uppercase()),
                problem: problem.into(),
            };
        }
        ConfigError::Mistake {
            path: self.path.to_owned(),
            line: self.line(start),
            problem: problem.into(),
        }
    }

    /// The line, from 1, of a place in the text.
    pub(super) fn line(&self, start: usize) -> usize {
        let before = self.text.as_bytes().get(..start.min(self.text.len()));
        let newlines = before.unwrap_or_default().iter();
        newlines
            .filter(|byte| **byte == b'\n')
            .count()
            .saturating_add(1)
    }

    /// A setting that has no default.
    pub(super) fn required<T>(
        &self,
        written: Option<Spanned<T>>,
        setting: &'static str,
    ) -> Result<Spanned<T>, ConfigError> {
        written.ok_or_else(|| {
            let variable = setting.to_ascii_uppercase();
            let problem = format!("{setting} is missing; write it here or set {PREFIX}{variable}");
            self.mistake(None, problem)
        })
    }

    /// A number within bounds, or the default when it is left out.
    pub(super) fn number<T: Copy + PartialOrd + std::fmt::Display>(
        &self,
        written: Option<Spanned<T>>,
        default: T,
        (least, most): (T, T),
    ) -> Result<T, ConfigError> {
        let Some(written) = written else {
            return Ok(default);
        };
        let value = *written.get_ref();
        if value < least || value > most {
            let problem = format!("the number must be between {least} and {most}");
            return Err(self.mistake(Some(written.span()), problem));
        }
        Ok(value)
    }

    pub(super) fn names(
        &self,
        written: Vec<Spanned<String>>,
    ) -> Result<Vec<NamePattern>, ConfigError> {
        let parse = |name: Spanned<String>| {
            NamePattern::parse(name.get_ref()).ok_or_else(|| {
                let problem = "a variable is NAME, or NAME* for all that begin so";
                self.mistake(Some(name.span()), problem)
            })
        };
        written.into_iter().map(parse).collect()
    }
}
