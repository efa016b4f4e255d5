//! What passing time and ended turns demand of the ledger, each a legal next event.

use alloc::vec::Vec;

use super::command::{Command, Stage};
use super::status::ExecutionStatus;
use super::turns::Turn;
use crate::event::SkipReason;
use crate::hash::StatementId;
use crate::name::{AgentName, Time};

/// What is demanded of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Due {
    /// `command.expired`.
    Expire,
    /// `execution.skipped` for this host.
    Skip(AgentName, Option<SkipReason>),
    /// `execution.lost`, presumed, for this host's run.
    PresumeLost(AgentName, StatementId),
    /// `execution.released`.
    Release(Turn),
}

impl Command {
    /// What is due at `now`, but for turns: those are [`Command::turns`].
    #[must_use]
    pub fn due(&self, now: Time) -> Vec<Due> {
        match self.stage {
            Stage::Requested if now >= self.act().expires_at => alloc::vec![Due::Expire],
            Stage::Authorized { .. } => self.due_of_hosts(now),
            Stage::Requested
            | Stage::Rejected
            | Stage::Withdrawn
            | Stage::Expired
            | Stage::Cancelled => Vec::new(),
        }
    }

    fn due_of_hosts(&self, now: Time) -> Vec<Due> {
        let expired = now >= self.act().expires_at;
        let stopped = self.has_too_many_errors();
        let due = |(agent, part): (&AgentName, &super::Execution)| match part.status {
            ExecutionStatus::Waiting => {
                let missed = part.released.is_some_and(|turn| now >= turn.start_before);
                let why = if stopped {
                    Some(SkipReason::Errors)
                } else if expired {
                    None
                } else if missed {
                    Some(SkipReason::TurnMissed)
                } else {
                    return None;
                };
                Some(Due::Skip(agent.clone(), why))
            }
            ExecutionStatus::Running => part
                .started
                .as_ref()
                .filter(|(_, at)| now >= self.lost_at(*at))
                .map(|(_, at)| Due::PresumeLost(agent.clone(), at.id)),
            ExecutionStatus::Completed
            | ExecutionStatus::Refused
            | ExecutionStatus::Skipped
            | ExecutionStatus::Cancelled
            | ExecutionStatus::Lost => None,
        };
        self.executions.iter().filter_map(due).collect()
    }

    /// When something is next due, if nothing happens before; but for turns.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        let stopped = self.has_too_many_errors();
        match self.stage {
            Stage::Requested => Some(self.act().expires_at),
            Stage::Authorized { .. } => self
                .executions
                .values()
                .filter_map(|part| match (part.status, &part.started) {
                    // Since its last error; a batch may have had no room for all of them.
                    (ExecutionStatus::Waiting, _) if stopped => Some(self.requested.time),
                    (ExecutionStatus::Waiting, _) => Some(
                        part.released
                            .map_or(self.act().expires_at, |turn| turn.start_before),
                    ),
                    (ExecutionStatus::Running, Some((_, at))) => Some(self.lost_at(*at)),
                    _nothing_due => None,
                })
                .min(),
            Stage::Rejected | Stage::Withdrawn | Stage::Expired | Stage::Cancelled => None,
        }
    }
}
