//! `policy explain` and `policy replay`: what rules say, of what was not asked and of what was.

use std::path::Path;

use countersign_protocol::command::Mode;

use super::arguments::Explain;
use super::{file, publish};
use crate::acts::{self, RequestSpec, Since};
use crate::commands::Globals;
use crate::failure::Failure;
use crate::{clock, console, describe, exit_code, shapes};

/// What the arguments would ask for.
fn spec(arguments: &Explain) -> Result<RequestSpec, Failure> {
    if arguments.shell && arguments.argv.len() != 1 {
        return Err(Failure::usage("--shell takes exactly one word")
            .hint("quote the whole script: --shell -- 'cd /tmp && ls'"));
    }
    let words = [arguments.action.as_slice(), &arguments.argv].concat();
    let mut spec = RequestSpec::new(arguments.on.clone(), words, "what would be");
    spec.mode = match (arguments.shell, arguments.action.is_empty()) {
        (true, _) => Mode::Shell,
        (false, false) => Mode::Action,
        (false, true) => Mode::Exec,
    };
    spec.user.clone_from(&arguments.user);
    spec.cwd.clone_from(&arguments.cwd);
    spec.timeout_ms = arguments.timeout.saturating_mul(1000);
    spec.break_glass = arguments.break_glass;
    Ok(spec)
}

pub(super) async fn explain(globals: &Globals, arguments: Explain) -> Result<u8, Failure> {
    let spec = spec(&arguments)?;
    let other = match &arguments.with {
        Some(path) => Some(file::usable(path).await?.0),
        None => None,
    };
    let client = globals.connect().await?;
    let view = client.rights().await?;
    let rights = view.state.rights();
    let policy = match &other {
        Some(policy) => policy,
        None => &publish::in_force(rights)?.policy,
    };
    let known = rights.people().contains(&arguments.who);
    if !known {
        console::note(&format!(
            "note: nobody of the name {} has a key in this ledger",
            arguments.who
        ));
    }
    let explained = acts::explain(&view, policy, &arguments.who, &spec, clock::now())?;
    if globals.json {
        console::print_json(&shapes::explained(&explained))?;
    } else {
        console::print(&describe::explained(&explained))?;
    }
    Ok(exit_code::DONE)
}

pub(super) async fn replay(globals: &Globals, with: &Path, since: Since) -> Result<u8, Failure> {
    let (policy, _) = file::usable(with).await?;
    let client = globals.connect().await?;
    let found = client.what_if(&policy, since).await?;
    if globals.json {
        console::print_json(&shapes::what_if(&found))?;
        return Ok(exit_code::DONE);
    }
    if !found.otherwise.is_empty() {
        console::print(&describe::what_if(&found))?;
    }
    console::note(&format!(
        "{} of {} requests would have been decided otherwise",
        found.otherwise.len(),
        found.requests
    ));
    if found.withheld > 0 {
        console::note(&format!(
            "{} could not be judged: their words are erased, or not for you to read",
            found.withheld
        ));
    }
    Ok(exit_code::DONE)
}
