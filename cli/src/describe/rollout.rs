//! Words for a rollout: what was asked for, and how far it has come.

use countersign_protocol::lifecycle::{Command, ExecutionStatus};
use countersign_protocol::rollout::{Gap, Plan, Rollout};
use countersign_protocol::short;

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
    let mut parts = Vec::new();
    if let Some(most) = rollout.max_in_flight {
        parts.push(format!("at most {most} at a time"));
    }
    parts.extend(rollout.gap.as_ref().map(gap));
    parts.extend(rollout.canary.map(canary));
    parts.push(errors(rollout.max_errors));
    if let Some(ms) = rollout.start_within_ms {
        parts.push(format!("a turn is lost after {}", duration(ms)));
    }
    parts.join("; ")
}

/// The plan that holds, in one line: what was asked for and what the policy asks besides.
fn plan(plan: &Plan) -> String {
    let mut parts = vec![format!("at most {} at a time", plan.in_flight)];
    parts.extend(plan.gaps.iter().map(gap));
    parts.extend(plan.canary.map(canary));
    parts.push(errors(plan.max_errors));
    if let Some(ms) = plan.start_within_ms {
        parts.push(format!("a turn is lost after {}", duration(ms)));
    }
    parts.join("; ")
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

/// How it goes and where it stands, as lines; none where all hosts start at once.
pub(super) fn standing(command: &Command) -> Vec<String> {
    let Some(held) = &command.plan else {
        return Vec::new();
    };
    let mut lines = vec![plan(held)];
    let over = command.status().is_final();
    let waiting = command
        .executions
        .values()
        .filter(|part| part.status == ExecutionStatus::Waiting && part.released.is_none());
    let waiting = waiting.count();
    let code = short::short(&command.id);
    if over {
        return lines;
    }
    if let Some(at) = command.paused {
        lines.push(format!(
            "paused since {}; go on with: countersign resume {code}",
            render::time(at.time)
        ));
    } else if is_at_canary(command, held) {
        lines.push(format!(
            "the canary is over; look at it, then: countersign continue {code}"
        ));
    }
    if waiting > 0 {
        lines.push(format!("{waiting} wait for their turn"));
    }
    lines
}

/// Says whether all of the canary is over and nobody has continued.
fn is_at_canary(command: &Command, plan: &Plan) -> bool {
    let (Some(canary), Some(targets)) = (plan.canary, &command.targets) else {
        return false;
    };
    let mut first = targets.by_turn().take_while(|(turn, _)| *turn < canary);
    command.continued.is_none()
        && first.all(|(_, line)| {
            let part = command.executions.get(&line.agent);
            part.is_some_and(|part| part.over.is_some())
        })
}
