//! Which stream an entry belongs to, and which chain of an agent.

use crate::event::Event;
use crate::hash::{CommandId, KeyId, StatementId};

/// Which stream an entry belongs to; each is folded by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stream {
    /// Keys, people, agents, policies and changes.
    Rights,
    /// One command.
    Command(CommandId),
}

impl Stream {
    /// 32 bytes that name the stream: zeros for rights, else the command's id.
    #[must_use]
    pub const fn id(&self) -> StatementId {
        match self {
            Self::Rights => StatementId::ZERO,
            Self::Command(id) => *id,
        }
    }

    /// The stream of an event whose statement has this id; heartbeats and idle statements
    /// belong to none.
    #[must_use]
    pub const fn of(event: &Event, id: StatementId) -> Option<Self> {
        let command = match event {
            crate::other_event!() | Event::AgentIdle(_) => return None,
            crate::rights_event!() => return Some(Self::Rights),
            Event::CommandRequested(_) => id,
            Event::CommandApproved(event) => event.command,
            Event::CommandRejected(event) => event.command,
            Event::CommandVotedDown(event) => event.command,
            Event::CommandWithdrawn(event) => event.command,
            Event::CommandAuthorized(event) => event.command,
            Event::CommandExpired(event) => event.command,
            Event::CommandCancelRequested(event) => event.command,
            Event::RolloutPaused(event) => event.command,
            Event::RolloutResumed(event) => event.command,
            Event::RolloutContinued(event) => event.command,
            Event::ExecutionReleased(event) => event.command,
            Event::ExecutionStarted(event) => event.command,
            Event::ExecutionRefused(event) => event.command,
            Event::ExecutionSkipped(event) => event.command,
            Event::ExecutionOutput(event) => event.command,
            Event::ExecutionCompleted(event) => event.command,
            Event::ExecutionLost(event) => event.command,
        };
        Some(Self::Command(command))
    }
}

/// The end of an agent's own chain. It belongs to the key that signs it: a new key of the same host
/// begins a new chain, and while both are in force each goes on with its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgentChain {
    /// The next `agent_seq`.
    pub next: u64,
    /// The statement before it.
    pub prev: StatementId,
}

impl AgentChain {
    /// The chain of an agent that has said nothing.
    pub const EMPTY: Self = Self {
        next: 0,
        prev: StatementId::ZERO,
    };
}

/// A statement's link on its agent's chain: whose key, number and predecessor.
#[must_use]
pub const fn agent_link(event: &Event) -> Option<(KeyId, u64, StatementId)> {
    match event {
        Event::ExecutionStarted(e) => Some((e.signer, e.agent_seq, e.agent_prev)),
        Event::ExecutionRefused(e) => Some((e.signer, e.agent_seq, e.agent_prev)),
        Event::ExecutionCompleted(e) => Some((e.signer, e.agent_seq, e.agent_prev)),
        Event::AgentKeyRetired(e) => Some((e.signer, e.agent_seq, e.agent_prev)),
        Event::AgentIdle(e) => Some((e.signer, e.agent_seq, e.agent_prev)),
        Event::AgentFacts(e) => Some((e.signer, e.agent_seq, e.agent_prev)),
        Event::ExecutionLost(e) => match (e.agent_seq, e.agent_prev) {
            (Some(seq), Some(prev)) => Some((e.signer, seq, prev)),
            _presumed => None,
        },
        Event::LedgerGenesis(_)
        | Event::ChangeRequested(_)
        | Event::ChangeApproved(_)
        | Event::ChangeRejected(_)
        | Event::AgentEnrolled(_)
        | Event::ReviewOpened(_)
        | Event::ReviewClosed(_)
        | Event::PolicySnapshot(_)
        | Event::CommandRequested(_)
        | Event::ExecutionReleased(_)
        | Event::ExecutionSkipped(_)
        | Event::ExecutionOutput(_)
        | crate::effecting_event!()
        | crate::decision_event!()
        | crate::other_event!() => None,
    }
}
