//! `policy show`, `check`, `diff` and `publish`.

use std::path::Path;

use countersign_policy::{Review, RuleChange};
use countersign_protocol::policy::Policy;
use countersign_protocol::refusal::Refusal;
use countersign_protocol::rights::{ChangeBody, PolicyInForce, Rights};

use super::file::{self, Loaded};
use crate::commands::Globals;
use crate::commands::asking::{self, Why};
use crate::failure::Failure;
use crate::{console, describe, exit_code, render, shapes};

/// The policy in force.
pub(in crate::commands) fn in_force(rights: &Rights) -> Result<&PolicyInForce, Failure> {
    rights.policy().ok_or_else(|| Refusal::NoGenesis.into())
}

pub(super) async fn show(globals: &Globals, at: Option<u64>) -> Result<u8, Failure> {
    let client = globals.connect().await?;
    let view = client.rights().await?;
    let before;
    let rights = match at {
        None => view.state.rights(),
        Some(seq) => {
            before = view.before(seq)?;
            before.state().rights()
        }
    };
    print(globals, in_force(rights)?)
}

/// Prints a policy.
pub(in crate::commands) fn print(
    globals: &Globals,
    in_force: &PolicyInForce,
) -> Result<u8, Failure> {
    if globals.json {
        console::print_json(&shapes::policy(in_force))?;
        return Ok(exit_code::DONE);
    }
    let reference = &in_force.reference;
    let since = match reference.seq {
        0 => "built in, from genesis on".to_owned(),
        seq => format!("published by entry {seq}"),
    };
    console::note(&format!("policy {}, {since}", reference.digest));
    console::print(&render::block(in_force.policy.text().trim_end(), ""))?;
    Ok(exit_code::DONE)
}

pub(super) async fn check(globals: &Globals, path: &Path) -> Result<u8, Failure> {
    match file::load(path).await? {
        Loaded::Policy(policy, review) => {
            if globals.json {
                console::print_json(&shapes::checked(&policy, &review))?;
            } else {
                console::print(&describe::rule_table(&review.rules))?;
                warn(&review);
                console::note(&format!(
                    "it can be published; its digest is {}",
                    policy.digest()
                ));
            }
            Ok(exit_code::DONE)
        }
        Loaded::Problems(problems) => {
            if globals.json {
                console::print_json(&shapes::problems(&problems))?;
            } else {
                let name = path.display().to_string();
                for problem in &problems {
                    console::note(&format!("error: {}", file::problem_line(&name, problem)));
                }
                console::note("it cannot be published");
            }
            Ok(exit_code::USAGE)
        }
    }
}

fn warn(review: &Review) {
    for warning in &review.warnings {
        console::note(&format!("warning: {}", render::line(warning)));
    }
}

fn changes(old: &Policy, new: &Policy) -> Result<Vec<RuleChange>, Failure> {
    countersign_policy::diff(old, new).map_err(|problems| {
        let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
        Failure::failed(
            "policy",
            format!("a policy cannot be read: {}", told.join("; ")),
        )
    })
}

pub(super) async fn diff(
    globals: &Globals,
    path: &Path,
    other: Option<&Path>,
) -> Result<u8, Failure> {
    let (first, _) = file::usable(path).await?;
    let changes = match other {
        Some(other) => changes(&first, &file::usable(other).await?.0)?,
        None => {
            let client = globals.connect().await?;
            let view = client.rights().await?;
            changes(&in_force(view.state.rights())?.policy, &first)?
        }
    };
    if globals.json {
        let items = changes.iter().map(shapes::RuleChangeShape::from).collect();
        console::print_json(&shapes::ItemsShape { items, next: None })?;
    } else if changes.is_empty() {
        console::note("no rule differs");
    } else {
        console::print(&describe::rule_changes(&changes))?;
    }
    Ok(exit_code::DONE)
}

pub(super) async fn publish(
    globals: &Globals,
    path: Option<&Path>,
    why: &Why,
) -> Result<u8, Failure> {
    let (policy, review) = match path {
        Some(path) => file::usable(path).await?,
        None => file::from_environment()?,
    };
    let client = globals.connect().await?;
    let view = client.rights().await?;
    let changes = changes(&in_force(view.state.rights())?.policy, &policy)?;
    if changes.is_empty() {
        console::note("no rule differs from the policy in force");
    } else {
        console::note("against the policy in force:");
        console::note(describe::rule_changes(&changes).trim_end());
    }
    warn(&review);
    let body = ChangeBody::PolicyPublished {
        policy: policy.digest(),
    };
    asking::ask(globals, &client, &body, Some(&policy), why).await
}
