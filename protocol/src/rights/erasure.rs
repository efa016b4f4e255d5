//! Legal holds in force and what was redacted, as far as the stream of rights alone tells.
//!
//! What hosts a command had and who asked for it is not in this stream: [`crate::erasure`] asks where
//! the commands are held.

use alloc::sync::Arc;

use super::{HoldRecord, Rights};
use crate::event::Erased;
use crate::fold::Refusal;
use crate::hash::{CommandId, Digest};
use crate::lifecycle::Command;
use crate::name::HoldName;

impl Rights {
    /// Legal holds in force, by name.
    pub fn legal_holds(&self) -> impl Iterator<Item = (&HoldName, &HoldRecord)> {
        self.legal_holds.iter()
    }

    /// The entry that redacted a text; nothing when none did.
    #[must_use]
    pub fn redacted(&self, digest: &Digest) -> Option<u64> {
        self.redacted.get(digest).copied()
    }

    /// Whether anything was redacted in this ledger.
    #[must_use]
    pub fn has_redacted(&self) -> bool {
        !self.redacted.is_empty()
    }

    /// Everything that was redacted, and by which entry.
    pub fn all_redacted(&self) -> impl Iterator<Item = (&Digest, u64)> {
        self.redacted.iter().map(|(digest, seq)| (digest, *seq))
    }

    /// A hold that covers a command; the first by name.
    #[must_use]
    pub fn hold_over(&self, command: &Command) -> Option<&HoldName> {
        let mut covering = self.legal_holds.iter();
        let found = covering.find(|(_, hold)| hold.covers(command));
        found.map(|(name, _)| name)
    }

    /// A hold that names a command by its id.
    #[must_use]
    pub fn hold_naming(&self, command: &CommandId) -> Option<&HoldName> {
        let mut naming = self.legal_holds.iter();
        let found = naming.find(|(_, hold)| hold.commands.contains(command));
        found.map(|(name, _)| name)
    }

    /// Says whether something may be erased, as far as this stream tells.
    pub(crate) fn may_redact(&self, erased: Erased<'_>) -> Result<(), Refusal> {
        if let Some(hold) = self.hold_naming(&erased.command) {
            return Err(Refusal::Held(hold.clone()));
        }
        if erased
            .digests
            .iter()
            .any(|digest| self.redacted.contains_key(digest))
        {
            return Err(Refusal::Redacted);
        }
        Ok(())
    }

    pub(super) fn redact(&mut self, seq: u64, erased: Erased<'_>) {
        // Shared: rights are cloned to look ahead, and these are many.
        let redacted = Arc::make_mut(&mut self.redacted);
        redacted.extend(erased.digests.iter().map(|digest| (*digest, seq)));
    }
}
