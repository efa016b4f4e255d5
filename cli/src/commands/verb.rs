//! The table of verbs, and how one is run.

use std::ffi::OsString;

use clap::Subcommand;

use super::{
    Globals, agents, changes, decide, inbox, list, log, logs, request, rights, run as run_verb,
    show, stop,
};
use crate::console;
use crate::exit_code;
use crate::failure::Failure;

/// What a person can do.
#[derive(Debug, Clone, Subcommand)]
pub enum Verb {
    /// Ask for a command; it runs once enough people have approved it
    Request(request::Arguments),
    /// Ask for a command, wait, and stream its output; exits as the command does
    Run(run_verb::Arguments),
    /// Look at a command or a change of rights, and sign a yes
    Approve(decide::Arguments),
    /// Look at a command or a change of rights, and sign a no: one no ends it
    Reject(decide::Arguments),
    /// Take your own request back
    Withdraw(stop::Arguments),
    /// Stop a command where it runs, and do not start it where it does not
    Cancel(stop::Arguments),
    /// Show a command or a change, verified from its bytes
    Show(show::Arguments),
    /// List commands, newest first
    List(list::Arguments),
    /// What waits for your judgement
    Inbox,
    /// The agents that the ledger knows; accept one
    Agents(agents::Arguments),
    /// The output of a command
    Logs(logs::Arguments),
    /// The entries of the log, one a line
    Log(log::Arguments),
    /// Ask for keys of people to be added
    Key(rights::KeyArguments),
    /// Ask for a policy to come into force
    Policy(rights::PolicyArguments),
    /// The changes of rights that wait, or all of them
    Changes(changes::Arguments),
}

/// Runs a verb and prints what comes of it, errors too. Gives the exit code.
pub async fn run(globals: &Globals, verb: Verb) -> u8 {
    let is_run = matches!(verb, Verb::Run(_));
    match dispatch(globals, verb).await {
        Ok(code) => code,
        Err(failure) => {
            let code = console::report(globals.json, &failure);
            // `run` keeps the small numbers for the command itself.
            if is_run { exit_code::RUN_OURS } else { code }
        }
    }
}

async fn dispatch(globals: &Globals, verb: Verb) -> Result<u8, Failure> {
    match verb {
        Verb::Request(arguments) => request::request(globals, arguments).await,
        // The largest future by far; boxed, so that the others do not carry its size.
        Verb::Run(arguments) => Box::pin(run_verb::run(globals, arguments)).await,
        Verb::Approve(arguments) => Box::pin(decide::approve(globals, arguments)).await,
        Verb::Reject(arguments) => Box::pin(decide::reject(globals, arguments)).await,
        Verb::Withdraw(arguments) => Box::pin(stop::withdraw(globals, arguments)).await,
        Verb::Cancel(arguments) => Box::pin(stop::cancel(globals, arguments)).await,
        Verb::Show(arguments) => Box::pin(show::show(globals, arguments)).await,
        Verb::List(arguments) => list::list(globals, arguments).await,
        Verb::Inbox => inbox::inbox(globals).await,
        Verb::Agents(arguments) => Box::pin(agents::agents(globals, arguments)).await,
        Verb::Logs(arguments) => Box::pin(logs::logs(globals, arguments)).await,
        Verb::Log(arguments) => Box::pin(log::log(globals, arguments)).await,
        Verb::Key(arguments) => Box::pin(rights::key(globals, arguments)).await,
        Verb::Policy(arguments) => Box::pin(rights::policy(globals, arguments)).await,
        Verb::Changes(arguments) => changes::changes(globals, arguments).await,
    }
}

/// Reports a command line that cannot be parsed, as JSON when `--json` stands before any `--`.
///
/// Help and version are printed as text and are no error. Gives the exit code.
pub fn report_usage(words: impl IntoIterator<Item = OsString>, error: &clap::Error) -> u8 {
    let mut options = words.into_iter().take_while(|word| word != "--");
    let json = options.any(|word| word == "--json");
    if !error.use_stderr() {
        // Help that nobody reads any more is no failure.
        drop(error.print());
        return exit_code::DONE;
    }
    if json {
        let text = error.render().to_string();
        let message = text.strip_prefix("error: ").unwrap_or(&text).trim();
        return console::report(true, &Failure::usage(message).hint("see --help"));
    }
    drop(error.print());
    exit_code::USAGE
}
