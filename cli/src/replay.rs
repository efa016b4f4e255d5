//! The fold of a proven rights stream and one command: the server's own rules, judged again here.
//!
//! Entries are taken in the order of their places, so each statement is judged by the rights that
//! held where it stands.

use std::sync::Arc;

use countersign_policy::CedarJudge;
use countersign_protocol::audit::{self, Excerpt, Finding};
use countersign_protocol::blob::BlobRef;
use countersign_protocol::fold::State;
use countersign_protocol::judgement::Judge;

use crate::failure::Failure;
use crate::streams::{Blobs, Link, ProvenStream};

impl From<Finding> for Failure {
    fn from(error: Finding) -> Self {
        Self::tampering("illegal_entry", error.to_string())
            .hint("the server's log breaks its own rules; audit the ledger (verify)")
    }
}

/// Who reads policies here.
#[must_use]
pub fn judge() -> Arc<dyn Judge> {
    Arc::<CedarJudge>::clone(CedarJudge::shared())
}

/// A fold under way.
#[derive(Debug, Clone)]
pub struct Replay {
    rights: Arc<ProvenStream>,
    /// How many of the rights' entries were taken.
    taken: usize,
    fold: Excerpt,
}

impl Replay {
    /// A fold before the first entry.
    #[must_use]
    pub fn new(rights: Arc<ProvenStream>) -> Self {
        Self {
            rights,
            taken: 0,
            fold: Excerpt::new(judge()),
        }
    }

    /// Takes the command's next entry, after all rights before it.
    ///
    /// # Errors
    /// It, or an entry on rights before it, may not stand there. The fold is of no more use then.
    pub fn take(&mut self, link: &Link, blobs: &Blobs) -> Result<(), Finding> {
        self.rights_before(link.entry.seq)?;
        self.admit(link, blobs)
    }

    /// Takes the rest of the rights: the state at the newest entry that is known.
    ///
    /// # Errors
    /// An entry on rights may not stand there.
    pub fn finish(mut self) -> Result<State, Finding> {
        self.rights_before(u64::MAX)?;
        Ok(self.fold.into_state())
    }

    /// The state so far.
    #[must_use]
    pub const fn state(&self) -> &State {
        self.fold.state()
    }

    /// Takes all rights before a place.
    ///
    /// # Errors
    /// An entry on rights may not stand there.
    pub fn rights_before(&mut self, seq: u64) -> Result<(), Finding> {
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

    fn admit(&mut self, link: &Link, blobs: &Blobs) -> Result<(), Finding> {
        let entry = &link.entry;
        let held = |named: &BlobRef| blobs.blob(named).cloned();
        let attachment = audit::attachment(entry.verified.event(), held);
        let attachment = attachment.map_err(|refusal| Finding {
            seq: entry.seq,
            reason: refusal.into(),
        })?;
        self.fold.push(entry, attachment)
    }
}

/// Folds rights alone.
///
/// # Errors
/// An entry may not stand there.
pub fn rights(stream: &Arc<ProvenStream>) -> Result<State, Finding> {
    Replay::new(Arc::clone(stream)).finish()
}
