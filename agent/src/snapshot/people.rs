//! Who counts on this host: whom it pins, and whom the administrators' snapshot lists.
//!
//! A pin wins: a key of `allowed_signers` is who it says there, with the limits that stand there. A
//! revoked key is nobody's, wherever it stands.

use std::collections::BTreeSet;

use countersign_protocol::event::Kind;
use countersign_protocol::hash::KeyId;
use countersign_protocol::key::PublicKey;
use countersign_protocol::name::{Principal, Time};
use countersign_protocol::snapshot::Snapshot;

use super::memory::Standing;
use crate::signers::{AllowedSigners, NotPinned};

/// The people of a host, for one grant.
#[derive(Debug, Clone, Copy)]
pub(crate) struct People<'a> {
    signers: &'a AllowedSigners,
    snapshot: Option<&'a Snapshot>,
    revoked: &'a BTreeSet<KeyId>,
}

impl<'a> People<'a> {
    /// Those that a host pins, with what it goes by.
    pub(crate) fn new(signers: &'a AllowedSigners, standing: &'a Standing) -> Self {
        Self {
            signers,
            snapshot: standing.snapshot.as_ref().map(|(snapshot, _)| snapshot),
            revoked: &standing.revoked,
        }
    }

    /// The snapshot, where the host goes by one.
    pub(crate) const fn snapshot(&self) -> Option<&'a Snapshot> {
        self.snapshot
    }

    /// Whether the key counts for nothing any more.
    pub(crate) fn is_revoked(&self, key: &PublicKey) -> bool {
        self.revoked.contains(&key.key_id())
    }

    /// Whose key this is, whatever it may sign and whenever.
    pub(crate) fn owner_of(&self, key: &PublicKey) -> Option<&'a Principal> {
        let listed = || self.snapshot?.owner_of(&key.key_id());
        self.signers.owner_of(key).or_else(listed)
    }

    /// Whether any key of this person is known.
    pub(crate) fn knows(&self, who: &Principal) -> bool {
        let listed = |snapshot: &Snapshot| snapshot.knows(who);
        self.signers.knows(who) || self.snapshot.is_some_and(listed)
    }

    /// Says whether `key` speaks for `who` in statements of `kind` at `now`, by pin or snapshot.
    pub(crate) fn check(
        &self,
        key: &PublicKey,
        who: &Principal,
        kind: Kind,
        now: Time,
    ) -> Result<(), NotPinned> {
        match (self.check_pinned(key, who, kind, now), self.snapshot) {
            (Err(NotPinned::UnknownKey), Some(snapshot)) => {
                if snapshot.speaks_for(&key.key_id(), who, now) {
                    Ok(())
                } else {
                    Err(NotPinned::Unlisted)
                }
            }
            (pinned, _) => pinned,
        }
    }

    /// The same by pin alone.
    pub(crate) fn check_pinned(
        &self,
        key: &PublicKey,
        who: &Principal,
        kind: Kind,
        now: Time,
    ) -> Result<(), NotPinned> {
        if self.is_revoked(key) {
            return Err(NotPinned::Revoked);
        }
        self.signers.check(key, who, kind, now)
    }
}
