//! `retry`: run again exactly what was recorded, where it did not go well.

use std::time::Duration;

use clap::Args;
use countersign_protocol::facts;
use countersign_protocol::name::AgentName;
use countersign_protocol::short;
use countersign_protocol::target::Place;

use super::hosts::Limit;
use super::request::duration;
use super::run::{self, Watching};
use super::{Globals, request};
use crate::acts::{Found, RetryPlan};
use crate::failure::Failure;
use crate::shapes::LineShape;
use crate::{console, describe, exit_code, render};

/// What to run again.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  countersign retry 7K3M-9QPX
  countersign retry 7K3M-9QPX --on web-3 --reason 'disk was full' --follow
  countersign retry 7K3M-9QPX --also-lost  # also where it may have run already

It is a new request: the same program, words, variables, input, user and limits as recorded, on the hosts
where it failed, was refused, skipped or cancelled. It takes the same rights and approvals as any other, and
approvers see what it is a retry of. What was sealed for one request (--secret) cannot be sent again.

A run that was lost may have done its work, so it is not run again unless --also-lost says so.")]
pub struct Arguments {
    /// The command: XXXX-XXXX, the whole id, or at least its first 8 digits
    id: String,
    /// Only these of its hosts
    #[arg(long, value_delimiter = ',', value_name = "HOST,…")]
    on: Vec<AgentName>,
    /// Also where nobody can say how it ended: it may run there a second time
    #[arg(long)]
    also_lost: bool,
    /// Why; approvers read it. The reason of the earlier one when left out
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// How long it stays open, for approvals and for hosts to start: at most 7 days
    #[arg(long, default_value = "1h", value_name = "DURATION", value_parser = duration)]
    expires: Duration,
    /// Do not ask, if it is exactly so many hosts
    #[arg(long, value_name = "COUNT")]
    yes_all: Option<usize>,
    /// Wait for it and stream its output, as `run` does; exits as it does
    #[arg(long, short)]
    follow: bool,
    #[command(flatten)]
    watching: Watching,
}

impl Arguments {
    /// Whether it ends as `run` does.
    pub(super) const fn follows(&self) -> bool {
        self.follow
    }

    /// Whether standard output is JSON lines, errors too.
    pub(super) const fn is_jsonl(&self) -> bool {
        self.follow && self.watching.jsonl
    }
}

/// Asks for it again.
pub(super) async fn retry(globals: &Globals, arguments: Arguments) -> Result<u8, Failure> {
    let client = globals.connect().await?;
    let Found::Command(id) = client.find(&arguments.id).await? else {
        return Err(Failure::usage("this is a change of rights, no command")
            .hint("ask for the change anew"));
    };
    let plan = client
        .plan_retry(&id, &arguments.on, arguments.also_lost)
        .await?;
    tell(&plan);
    let count = plan.targets.lines().len();
    Limit::new(plan.count_above).confirm(count, arguments.yes_all)?;
    let earlier = plan.earlier.reason.here();
    let reason = arguments.reason.clone();
    let reason = reason.unwrap_or_else(|| {
        let earlier = earlier.map_or("(not readable)", String::as_str);
        format!("retry of {}: {earlier}", short::short(&id))
    });
    let requested = client.retry(&plan, &reason, arguments.expires).await?;
    if !arguments.follow {
        request::print_requested(globals, &requested, false)?;
        return Ok(exit_code::DONE);
    }
    if arguments.watching.jsonl {
        let lines = plan.targets.by_turn();
        let places: Vec<Place> = lines.map(|(_, line)| line.into()).collect();
        console::print_json(&LineShape::requested(&requested.id, &places))?;
    }
    let asked = (requested.id, count > 1, false);
    run::wait(globals, &client, asked, arguments.watching).await
}

/// Where it runs again and how it ended there, and what is left out.
fn tell(plan: &RetryPlan) {
    let code = short::short(&plan.earlier.id());
    let all = plan.earlier.command.executions.len();
    let again: Vec<String> = plan
        .targets
        .by_turn()
        .map(|(_, line)| describe::came(&plan.earlier.command, &line.agent))
        .collect();
    console::note(&format!(
        "countersign: retry of {code} on {} of its {all} hosts: {}",
        again.len(),
        describe::some(&again)
    ));
    if let Some(spec) = plan.earlier.spec.here() {
        let words = render::words(&spec.argv);
        console::note(&format!("countersign: runs {words}"));
        if let Ok(runs) = facts::runs(spec, &plan.targets) {
            request::tell_runs(&runs);
        }
    }
    for (names, why) in [
        (&plan.lost, "it may have run there already (--also-lost)"),
        (&plan.gone, "not accepted any more, or drained"),
    ] {
        if !names.is_empty() {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            console::note(&format!(
                "countersign: left out, {why}: {}",
                describe::few(&names)
            ));
        }
    }
}
