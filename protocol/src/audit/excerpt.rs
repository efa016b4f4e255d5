//! Chosen entries of a log, judged by the same fold as all of them.
//!
//! What is left out is unknown: the roots of older sizes, an agent's statements on other commands,
//! and a right that was taken away by an entry that is not here. Places and times must ascend,
//! neighbours must link, an agent's numbers must ascend; everything else is judged as ever. That
//! each entry is in the log is the caller's to prove, by its inclusion in a checkpoint.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;

use super::entry::{CheckedEntry, Finding, Reason};
use crate::erasure::Naming;
use crate::fold::{self, AgentChain, Attachment, Refusal, State};
use crate::hash::{Hash, KeyId};
use crate::judgement::Judge;
use crate::lifecycle::Position;
use crate::name::Time;

/// Folds chosen entries.
#[derive(Debug, Clone)]
pub struct Excerpt {
    state: State,
    chains: BTreeMap<KeyId, AgentChain>,
    last: Option<(u64, Time, Hash)>,
    not_rejudged: u64,
}

impl Excerpt {
    /// Before the first entry, with whoever reads policies.
    #[must_use]
    pub fn new(judge: Arc<dyn Judge>) -> Self {
        Self {
            state: State::new(judge),
            chains: BTreeMap::new(),
            last: None,
            not_rejudged: 0,
        }
    }

    /// Says who names the texts that the next entry may erase, as far as that is known here.
    pub fn name_texts(&mut self, naming: Naming) {
        self.state.name_texts(naming);
    }

    /// The fold of all entries taken.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// The fold of all entries taken, for keeps.
    #[must_use]
    pub fn into_state(self) -> State {
        self.state
    }

    /// Entries whose judgement needs a document that was not at hand.
    #[must_use]
    pub const fn not_rejudged(&self) -> u64 {
        self.not_rejudged
    }

    /// Takes the next entry. After an error the excerpt must not be used on.
    ///
    /// # Errors
    /// The entry's place and what is wrong with it.
    pub fn push(&mut self, entry: &CheckedEntry, attachment: Attachment) -> Result<(), Finding> {
        let seq = entry.seq;
        self.take(entry, attachment)
            .map_err(|reason| Finding { seq, reason })
    }

    fn take(&mut self, entry: &CheckedEntry, attachment: Attachment) -> Result<(), Reason> {
        self.check_place(entry)?;
        let event = entry.verified.event();
        if let Some(seen) = event.header().seen
            && (seen.size == 0 || seen.size > entry.seq)
        {
            return Err(Refusal::SeenAhead.into());
        }
        self.continue_chain(entry)?;
        self.not_rejudged += u64::from(attachment.is_withheld());
        let at = Position {
            seq: entry.seq,
            time: entry.time,
            id: entry.verified.id(),
        };
        self.state
            .admit(&entry.verified, at, entry.leaf, attachment)?;
        self.last = Some((entry.seq, entry.time, entry.leaf));
        Ok(())
    }

    fn check_place(&self, entry: &CheckedEntry) -> Result<(), Reason> {
        let Some((seq, time, leaf)) = self.last else {
            return Ok(());
        };
        if entry.seq <= seq {
            Err(Reason::Seq(entry.seq))
        } else if entry.time < time {
            Err(Reason::Time)
        } else if entry.seq == seq + 1 && entry.prev != leaf {
            Err(Reason::Link)
        } else {
            Ok(())
        }
    }

    /// An agent's chain runs through all its commands, of which only some are here.
    fn continue_chain(&mut self, entry: &CheckedEntry) -> Result<(), Refusal> {
        let verified = &entry.verified;
        let Some((agent, next, prev)) = fold::agent_link(verified.event()) else {
            return Ok(());
        };
        let here = AgentChain { next, prev };
        if let Some(known) = self.chains.get(&agent)
            && (next < known.next || (next == known.next && prev != known.prev))
        {
            return Err(Refusal::AgentChain {
                expected: known.next,
            });
        }
        self.state.restore_chain(agent, here);
        let after = AgentChain {
            next: next + 1,
            prev: verified.id(),
        };
        self.chains.insert(agent, after);
        Ok(())
    }
}
