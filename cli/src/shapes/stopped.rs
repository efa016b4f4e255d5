//! The JSON of `cancel`: for each host, whether it stopped something.

use std::collections::BTreeMap;

use countersign_protocol::event::Outcome;
use countersign_protocol::lifecycle::{Execution, ExecutionStatus, Stage};
use countersign_protocol::name::AgentName;
use serde::Serialize;

use super::JudgedShape;
use crate::describe;
use crate::view::CommandView;

/// What a cancel did on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stopped {
    /// It ran, and the host ended it.
    Stopped,
    /// It had not started, and never will.
    NotStarted,
    /// It ended by itself, or the host would not run it: there was nothing to stop.
    Over,
    /// Nobody can say how it ended.
    Lost,
    /// The host runs it and has not answered.
    Unanswered,
}

impl Stopped {
    /// What it did to one host's part.
    #[must_use]
    pub fn of(part: &Execution) -> Self {
        let outcome = part.completed.as_ref().map(|done| done.outcome);
        match part.status {
            ExecutionStatus::Cancelled if outcome == Some(Outcome::Cancelled) => Self::Stopped,
            ExecutionStatus::Cancelled | ExecutionStatus::Skipped | ExecutionStatus::Waiting => {
                Self::NotStarted
            }
            ExecutionStatus::Completed | ExecutionStatus::Refused => Self::Over,
            ExecutionStatus::Lost => Self::Lost,
            ExecutionStatus::Running => Self::Unanswered,
        }
    }

    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::NotStarted => "not started",
            Self::Over => "over by itself",
            Self::Lost => "lost",
            Self::Unanswered => "not answered yet",
        }
    }
}

/// `cancel`
#[derive(Debug, Serialize)]
pub struct StoppedShape {
    /// Of the command.
    pub id: String,
    /// Its status word; null where what the cancel did could not be read, with no hosts then.
    pub status: Option<&'static str>,
    /// Where the cancel stands.
    pub seq: u64,
    /// How many hosts it did what on.
    pub tally: BTreeMap<Stopped, u64>,
    /// Each of them; none where it was not authorized yet.
    pub hosts: Vec<HostShape>,
}

/// What it did on one host.
#[derive(Debug, Serialize)]
pub struct HostShape {
    /// Which.
    pub host: AgentName,
    /// What it did.
    pub came: Stopped,
    /// Of one that was stopped: whether the host proved that no process of it is left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nothing_left: Option<bool>,
    /// How it ended, for people.
    pub end: String,
}

/// What a cancel at `seq` did, as far as the hosts have said.
#[must_use]
pub fn stopped(view: &CommandView, seq: u64) -> StoppedShape {
    let is_authorized = matches!(view.command.stage, Stage::Authorized { .. });
    let parts = view.command.executions.iter().filter(|_| is_authorized);
    let host = |(agent, part): (&AgentName, &Execution)| {
        let came = Stopped::of(part);
        let done = part.completed.as_ref().filter(|_| came == Stopped::Stopped);
        HostShape {
            host: agent.clone(),
            came,
            nothing_left: done.map(|done| done.tree_gone),
            end: describe::ending(view, part),
        }
    };
    let hosts: Vec<HostShape> = parts.map(host).collect();
    let mut tally = BTreeMap::new();
    for host in &hosts {
        *tally.entry(host.came).or_default() += 1;
    }
    StoppedShape {
        id: view.id().to_string(),
        status: Some(view.command.status().as_str()),
        seq,
        tally,
        hosts,
    }
}

/// A cancel that is in the log, where it could not be read what it did.
#[must_use]
pub fn stopped_unread(judged: JudgedShape) -> StoppedShape {
    StoppedShape {
        id: judged.id,
        status: None,
        seq: judged.seq,
        tally: BTreeMap::new(),
        hosts: Vec::new(),
    }
}
