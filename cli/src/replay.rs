//! The fold of a proven rights stream and one command: the server's own rules, judged again here.
//!
//! Entries are taken in the order of their places, so each statement is judged by the rights that
//! held where it stands.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use countersign_policy::CedarJudge;
use countersign_protocol::audit;
use countersign_protocol::fold::{self, AgentChain, State};
use countersign_protocol::hash::{Hash, KeyId};
use countersign_protocol::judgement::Judge;
use countersign_protocol::lifecycle::Position;
use countersign_protocol::name::Time;
use countersign_protocol::refusal::Refusal;

use crate::failure::Failure;
use crate::streams::{Blobs, Link, ProvenStream};

/// An entry that may not stand where it stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("entry {seq} may not stand there: {refusal}")]
pub struct ReplayError {
    /// Where.
    pub seq: u64,
    /// Why not.
    pub refusal: Refusal,
}

impl From<ReplayError> for Failure {
    fn from(error: ReplayError) -> Self {
        Self::tampering("illegal_entry", error.to_string())
            .hint("the server's log breaks its own rules; audit the ledger (verify)")
    }
}

/// One for all, so that a policy is read once.
static JUDGE: LazyLock<Arc<CedarJudge>> = LazyLock::new(|| Arc::new(CedarJudge::new()));

/// Who reads policies here.
#[must_use]
pub fn judge() -> Arc<dyn Judge> {
    Arc::clone(&*JUDGE) as Arc<dyn Judge>
}

/// The same one, for what only this reader of policies can tell: which rules speak.
#[must_use]
pub fn cedar() -> &'static CedarJudge {
    &JUDGE
}

/// A fold under way.
#[derive(Debug, Clone)]
pub struct Replay {
    rights: Arc<ProvenStream>,
    /// How many of the rights' entries were taken.
    taken: usize,
    state: State,
    chains: BTreeMap<KeyId, AgentChain>,
    last: Option<(u64, Time, Hash)>,
}

impl Replay {
    /// A fold before the first entry.
    #[must_use]
    pub fn new(rights: Arc<ProvenStream>) -> Self {
        Self {
            rights,
            taken: 0,
            state: State::new(judge()),
            chains: BTreeMap::new(),
            last: None,
        }
    }

    /// Takes the command's next entry, after all rights before it.
    ///
    /// # Errors
    /// It, or an entry on rights before it, may not stand there. The fold is of no more use then.
    pub fn take(&mut self, link: &Link, blobs: &Blobs) -> Result<(), ReplayError> {
        self.rights_before(link.entry.seq)?;
        self.admit(link, blobs)
    }

    /// Takes the rest of the rights: the state at the newest entry that is known.
    ///
    /// # Errors
    /// An entry on rights may not stand there.
    pub fn finish(mut self) -> Result<State, ReplayError> {
        self.rights_before(u64::MAX)?;
        Ok(self.state)
    }

    /// The state so far.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// Takes all rights before a place.
    ///
    /// # Errors
    /// An entry on rights may not stand there.
    pub fn rights_before(&mut self, seq: u64) -> Result<(), ReplayError> {
        let rights = Arc::clone(&self.rights);
        while let Some(link) = rights.entries.get(self.taken) {
            if link.entry.seq >= seq {
                break;
            }
            self.taken += 1;
            self.admit(link, &rights.blobs)?;
        }
        Ok(())
    }

    fn admit(&mut self, link: &Link, blobs: &Blobs) -> Result<(), ReplayError> {
        let entry = &link.entry;
        let seq = entry.seq;
        self.judge(link, blobs)
            .map_err(|refusal| ReplayError { seq, refusal })?;
        self.last = Some((seq, entry.time, entry.leaf));
        Ok(())
    }

    fn judge(&mut self, link: &Link, blobs: &Blobs) -> Result<(), Refusal> {
        let entry = &link.entry;
        let event = entry.verified.event();
        self.check_place(link)?;
        // The roots of older sizes are not known here; that nothing is from the future is.
        if let Some(seen) = event.header().seen
            && (seen.size == 0 || seen.size > entry.seq)
        {
            return Err(Refusal::SeenAhead);
        }
        self.continue_chain(link)?;
        let attachment = audit::attachment(event, |named| blobs.blob(named).cloned())?;
        let at = Position {
            seq: entry.seq,
            time: entry.time,
            id: entry.verified.id(),
        };
        self.state
            .admit(&entry.verified, at, entry.leaf, attachment)
    }

    /// Places and times ascend, and neighbours link.
    fn check_place(&self, link: &Link) -> Result<(), Refusal> {
        let entry = &link.entry;
        let Some((seq, time, leaf)) = self.last else {
            return Ok(());
        };
        let linked = entry.seq != seq + 1 || entry.prev == leaf;
        if entry.seq > seq && entry.time >= time && linked {
            Ok(())
        } else {
            Err(Refusal::Transition)
        }
    }

    /// An agent's chain runs through all its commands and only this one's are here: its numbers
    /// must ascend, and neighbours must link.
    fn continue_chain(&mut self, link: &Link) -> Result<(), Refusal> {
        let verified = &link.entry.verified;
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

/// Folds rights alone.
///
/// # Errors
/// An entry may not stand there.
pub fn rights(stream: &Arc<ProvenStream>) -> Result<State, ReplayError> {
    Replay::new(Arc::clone(stream)).finish()
}
