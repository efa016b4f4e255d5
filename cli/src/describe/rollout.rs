//! Words for a rollout: what was asked for, and how far it has come.

use countersign_protocol::lifecycle::{Command, ExecutionStatus};
use countersign_protocol::rollout::{Gap, Plan, Rollout};
use countersign_protocol::short;

use super::command::{came, some};
use super::requirement::duration;
use crate::render;

/// `30 min between hosts with role=dns`
pub(super) fn gap(gap: &Gap) -> String {
    let apart = duration(gap.ms);
    match &gap.label {
        Some(label) => format!("{apart} between any two hosts with {label}"),
        None => format!("{apart} between two hosts"),
    }
}

/// What the requester asks for, in one line.
pub(super) fn rollout(rollout: &Rollout) -> String {
    let most = rollout.max_in_flight;
    Words {
        in_flight: most.map(|most| most.to_string()),
        gaps: rollout.gap.as_slice(),
        canary: rollout.canary,
        max_errors: rollout.max_errors,
        start_within_ms: rollout.start_within_ms,
    }
    .line()
}

/// The plan that holds, in one line: what was asked for and what the policy asks besides.
fn plan(plan: &Plan, max_errors: Option<u64>) -> String {
    Words {
        in_flight: Some(plan.in_flight.to_string()),
        gaps: &plan.gaps,
        canary: plan.canary,
        max_errors,
        start_within_ms: plan.start_within_ms,
    }
    .line()
}

/// What both have to say.
struct Words<'a> {
    in_flight: Option<String>,
    gaps: &'a [Gap],
    canary: Option<u64>,
    max_errors: Option<u64>,
    start_within_ms: Option<u64>,
}

impl Words<'_> {
    fn line(self) -> String {
        let in_flight = self.in_flight;
        let mut parts: Vec<_> = in_flight
            .map(|most| format!("at most {most} at a time"))
            .into_iter()
            .collect();
        parts.extend(self.gaps.iter().map(gap));
        parts.extend(self.canary.map(canary));
        parts.push(errors(self.max_errors));
        if let Some(ms) = self.start_within_ms {
            parts.push(format!("a turn is lost after {}", duration(ms)));
        }
        parts.join("; ")
    }
}

pub(super) fn canary(hosts: u64) -> String {
    let hosts = match hosts {
        1 => "1 host".to_owned(),
        hosts => format!("{hosts} hosts"),
    };
    format!("{hosts} first, then a person lets it go on")
}

fn errors(most: Option<u64>) -> String {
    match most {
        None => "errors do not stop it".to_owned(),
        Some(0) => "the first error stops it".to_owned(),
        Some(most) => format!("it stops after more than {most} errors"),
    }
}

/// What a rollout that waits at its canary waits for, and how the canary came out.
#[must_use]
pub fn at_canary(command: &Command) -> Option<String> {
    let canary = command.plan.as_ref()?.canary?;
    let targets = command.targets.as_ref()?;
    // Where the canary itself is one error too many, nobody is asked: the rest is skipped.
    let is_asked = command.waits_at_canary() && !command.has_too_many_errors();
    if !is_asked || command.status().is_final() {
        return None;
    }
    let first = targets.by_turn().take_while(|(turn, _)| *turn < canary);
    let ran: Vec<String> = first.map(|(_, line)| came(command, &line.agent)).collect();
    Some(format!(
        "the canary is over: {}; look at it, then: countersign continue {}",
        some(&ran),
        short::short(&command.id)
    ))
}

/// How a paused rollout goes on.
#[must_use]
pub fn until_resumed(command: &Command) -> String {
    let code = short::short(&command.id);
    format!("go on with: countersign resume {code}")
}

/// How it goes and where it stands, as lines; none where all hosts start at once and nothing stops them.
pub(super) fn standing(command: &Command) -> Vec<String> {
    let most = command.max_errors();
    let Some(held) = &command.plan else {
        return most.map(|most| errors(Some(most))).into_iter().collect();
    };
    let mut lines = vec![plan(held, most)];
    let over = command.status().is_final();
    let waiting = command
        .executions
        .values()
        .filter(|part| part.status == ExecutionStatus::Waiting && part.released.is_none());
    let waiting = waiting.count();
    if over {
        return lines;
    }
    if let Some(at) = command.paused {
        lines.push(format!(
            "paused since {}; {}",
            render::time(at.time),
            until_resumed(command)
        ));
    } else if let Some(line) = at_canary(command) {
        lines.push(line);
    }
    if waiting > 0 {
        lines.push(format!("{waiting} wait for their turn"));
    }
    lines
}
