//! With which variables a command would run, and where.
//!
//! It looks at the directory and changes nothing. What it lets pass is looked at again at the start.

use std::path::Path;

use countersign_protocol::command::Environment;
use countersign_protocol::event::RefusalReason;
use rustix::fs::{CWD, OFlags, ResolveFlags};

use super::host::{LocalRefusal, Rules};
use super::variables::{is_dangerous, is_safe_value};

impl Rules {
    pub(super) fn check_surroundings(
        &self,
        environment: Option<&Environment>,
        cwd: &str,
    ) -> Result<(), LocalRefusal> {
        self.check_variables(environment)?;
        check_directory(cwd)
    }

    pub(super) fn check_variables(
        &self,
        environment: Option<&Environment>,
    ) -> Result<(), LocalRefusal> {
        let mut variables = environment.into_iter().flat_map(Environment::variables);
        variables.try_for_each(|(name, value)| self.check_variable(name, value))
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
