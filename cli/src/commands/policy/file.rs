//! A policy from a file or from the environment, and the words for what is wrong with one.

use std::path::Path;

use countersign_policy::lists::{self, ListsError};
use countersign_policy::{Problem, Review};
use countersign_protocol::policy::Policy;

use crate::commands::asking;
use crate::failure::Failure;
use crate::render;

/// Programs that may run, comma by comma: enough of a policy to begin with.
const ALLOWED_COMMANDS: &str = "COUNTERSIGN_ALLOWED_COMMANDS";

/// What came of reading a file.
pub(super) enum Loaded {
    /// It can be published.
    Policy(Policy, Review),
    /// It is a policy's text with problems, each with its place.
    Problems(Vec<Problem>),
}

fn no_policy(what: &str, error: &ListsError) -> Failure {
    Failure::usage(format!("{what} is no policy: {error}"))
        .hint("countersign policy publish --help has examples")
}

fn reviewed(what: &str, policy: Result<Policy, ListsError>) -> Result<Loaded, Failure> {
    let policy = match policy {
        Ok(policy) => policy,
        Err(ListsError::Policy(problems)) => return Ok(Loaded::Problems(problems)),
        Err(error) => return Err(no_policy(what, &error)),
    };
    Ok(match countersign_policy::review(&policy) {
        Ok(review) => Loaded::Policy(policy, review),
        Err(problems) => Loaded::Problems(problems),
    })
}

/// Reads a file of any form and reviews it.
pub(super) async fn load(path: &Path) -> Result<Loaded, Failure> {
    let text = asking::read(path).await?;
    let name = path.file_name().unwrap_or(path.as_os_str());
    let policy = lists::from_file(&name.to_string_lossy(), &text);
    reviewed(&path.display().to_string(), policy)
}

/// A problem as compilers say it: `FILE:LINE:COLUMN: …`.
pub(super) fn problem_line(what: &str, problem: &Problem) -> String {
    let place = match problem.line {
        0 => String::new(),
        line => format!(":{line}:{}", problem.column),
    };
    let rule = problem.rule.as_deref();
    let rule = rule.map_or_else(String::new, |rule| format!("rule {rule}: "));
    render::line(&format!("{what}{place}: {rule}{}", problem.sentence))
}

fn unusable(what: &str, problems: &[Problem]) -> Failure {
    let told: Vec<String> = problems
        .iter()
        .map(|problem| problem_line(what, problem))
        .collect();
    Failure::usage(format!("the policy cannot be used: {}", told.join("; ")))
        .hint("countersign policy check FILE says more; it needs no server")
}

/// Reads a policy that can be published, or says why it cannot.
pub(super) async fn usable(path: &Path) -> Result<(Policy, Review), Failure> {
    match load(path).await? {
        Loaded::Policy(policy, review) => Ok((policy, review)),
        Loaded::Problems(problems) => Err(unusable(&path.display().to_string(), &problems)),
    }
}

/// The policy of `COUNTERSIGN_ALLOWED_COMMANDS`.
pub(super) fn from_environment() -> Result<(Policy, Review), Failure> {
    let listed = std::env::var(ALLOWED_COMMANDS).ok();
    let listed = listed.filter(|text| !text.trim().is_empty());
    let listed = listed.ok_or_else(|| {
        Failure::usage(format!(
            "no policy is named: give a FILE, or set {ALLOWED_COMMANDS}"
        ))
        .hint("countersign policy publish --help has examples")
    })?;
    match reviewed(ALLOWED_COMMANDS, lists::allowed_commands(&listed))? {
        Loaded::Policy(policy, review) => Ok((policy, review)),
        Loaded::Problems(problems) => Err(unusable(ALLOWED_COMMANDS, &problems)),
    }
}
