//! Becoming another user by `sudo`: what it can carry, and the words that it is given.
//!
//! It owns those words. They are never joined into one, so no shell reads them. What `sudo` lets
//! the agent do is decided in `sudoers`, not here.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use countersign_protocol::command::{CommandSpec, Environment, Mode};
use countersign_protocol::event::RefusalReason;

use super::account::{Account, RunAs, Runner};
use super::host::LocalRefusal;
use crate::execution::Program;

/// The `sudo` that takes the command to its user; none where no other user is become, or by the
/// agent itself.
pub(super) fn find(
    account: &Account,
    runner: &Runner,
    spec: &CommandSpec,
    environment: Option<&Environment>,
) -> Result<Option<Program>, LocalRefusal> {
    let RunAs::Sudo(sudo) = &account.run_as else {
        return Ok(None);
    };
    if runner.is_own {
        return Ok(None);
    }
    let refuse = |detail| {
        let why = RefusalReason::Unusable;
        Err(LocalRefusal::new(why, "run_as", detail))
    };
    if spec.mode == Mode::Shell {
        return refuse(format!(
            "a script cannot run as {runner} here: sudo closes the sealed file that holds it. Ask \
             for a program, or have an agent that is root",
        ));
    }
    let mut variables = environment.into_iter().flat_map(Environment::variables);
    if let Some((name, _)) = variables.next() {
        return refuse(format!(
            "the variable {name:?} would not reach the command: it runs as {runner} through sudo, \
             which sets an environment of its own. Ask without variables",
        ));
    }
    match Program::resolve(sudo.as_os_str(), &[]) {
        Ok(program) => Ok(Some(program)),
        Err(error) => refuse(format!(
            "the command was to run as {runner} through sudo: {error}"
        )),
    }
}

/// All words of a command that runs through `sudo`: it never asks for a password, and everything
/// after `--` is the program and its arguments.
#[must_use]
pub fn through_sudo(runner: &Runner, program: &Path, args: &[OsString]) -> Vec<OsString> {
    let user = runner.name.as_deref().unwrap_or_default();
    ["sudo", "-n", "-u", user, "--"]
        .into_iter()
        .map(OsStr::new)
        .chain([program.as_os_str()])
        .chain(args.iter().map(OsString::as_os_str))
        .map(OsStr::to_owned)
        .collect()
}
