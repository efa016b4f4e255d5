//! What an entry is about, whichever stream it stands in: a command, or a change of rights.

use crate::event::{ChangeBody, Event};
use crate::fold::Stream;
use crate::hash::{CommandId, StatementId};

/// What an entry is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// A command: of its stream, its review, or the reading of it.
    Command(CommandId),
    /// A change of rights: asked for, judged, or put into effect.
    Change(StatementId),
}

impl Subject {
    /// What an event whose statement has this id is about; nothing for a word on the ledger itself, on
    /// an agent, or on no one command.
    #[must_use]
    pub fn of(event: &Event, id: StatementId) -> Option<Self> {
        if let Event::AuditRead(read) = event {
            return read.command.map(Self::Command);
        }
        if let Event::ReviewOpened(review) = event {
            return Some(Self::Command(review.command));
        }
        if let Event::ReviewClosed(review) = event {
            return Some(Self::Command(review.command));
        }
        if let Some(Stream::Command(command)) = Stream::of(event, id) {
            return Some(Self::Command(command));
        }
        let change = if matches!(event, Event::ChangeRequested(_)) {
            Some(id)
        } else if let Event::ChangeApproved(word) = event {
            Some(word.change)
        } else if let Event::ChangeRejected(word) = event {
            Some(word.change)
        } else {
            ChangeBody::effected(event).map(|effected| effected.change)
        };
        change.map(Self::Change)
    }
}
