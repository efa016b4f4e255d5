//! Is it theirs? A document with its signatures against the administrators whom this host pins.
//!
//! It must not keep anything, and reads no clock: the time comes in.

use std::collections::{BTreeMap, BTreeSet};

use countersign_protocol::api::SnapshotBody;
use countersign_protocol::event::{Event, Kind, PolicySnapshot};
use countersign_protocol::hash::{KeyId, LedgerId};
use countersign_protocol::key::PublicKey;
use countersign_protocol::name::{Principal, Time};
use countersign_protocol::snapshot::{Snapshot, SnapshotError, held_until};

use crate::admission::MAX_AHEAD_US;
use crate::signers::{AllowedSigners, NotPinned};

/// Most signatures that are looked at: twice as many administrators as a ledger begins with.
pub const MAX_STATEMENTS: usize = 64;

/// Whose word a snapshot takes here: the host's own setting.
#[derive(Debug, Clone)]
pub struct SnapshotRule {
    /// The pinned administrators.
    pub administrators: AllowedSigners,
    /// So many distinct ones of them; at least 1.
    pub threshold: u32,
    /// How old a signature may be, in microseconds; a day at most.
    pub max_age_us: u64,
}

impl SnapshotRule {
    /// Says whether a key's word is a pinned administrator's at `now`. A revoked one is nobody's.
    pub(super) fn counts(
        &self,
        key: &PublicKey,
        who: &Principal,
        is_revoked: impl Fn(&KeyId) -> bool,
        now: Time,
    ) -> Result<(), NotPinned> {
        if is_revoked(&key.key_id()) {
            return Err(NotPinned::Revoked);
        }
        self.administrators
            .check(key, who, Kind::PolicySnapshot, now)
    }

    /// Until when a word holds on this host, by its signer and by the host.
    pub(super) fn end_of(&self, word: &PolicySnapshot) -> Time {
        let oldest = word.made_at.plus_micros(self.max_age_us);
        word.expires_at.min(oldest)
    }
}

/// Why there is no snapshot to go by. The text says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoSnapshot {
    /// None was ever shown.
    #[error("this host was never shown one")]
    Missing,
    /// Its blob.
    #[error("the document is larger than any may be, or its salt is cut")]
    Blob,
    /// No snapshot.
    #[error("the document is not usable: {0}")]
    Document(#[from] SnapshotError),
    /// Of another ledger.
    #[error("it is for another ledger than the pinned one")]
    OtherLedger,
    /// Too few signatures count.
    #[error("{have} of {need} pinned administrators have signed it{others}")]
    UnderSigned {
        /// How many.
        have: usize,
        /// How many it takes.
        need: u32,
        /// Signatures that do not count, with their reasons, each after `; `.
        others: String,
    },
    /// Signed by enough, and over.
    #[error("its time is over by this host's clock")]
    Expired,
    /// Signed by enough, and older than this host takes.
    #[error("it is older than max_age_s of [snapshot]")]
    TooOld,
    /// Signed by enough, with clocks ahead.
    #[error("it is from the future of this host's clock")]
    Ahead,
}

impl NoSnapshot {
    /// Whether only time is wrong with it.
    #[must_use]
    pub const fn is_of_time(&self) -> bool {
        matches!(self, Self::Expired | Self::TooOld | Self::Ahead)
    }
}

/// A snapshot that enough pinned administrators have signed, whenever that was.
#[derive(Debug, Clone)]
pub(super) struct Signed {
    pub(super) snapshot: Snapshot,
    /// Those that count, in the order in which they came.
    pub(super) words: Vec<PolicySnapshot>,
}

impl Signed {
    /// Checks document and signatures. A key in `revoked`, or in the document's own list, signs for
    /// nobody.
    pub(super) fn read(
        body: &SnapshotBody,
        rule: &SnapshotRule,
        ledger: &LedgerId,
        revoked: &BTreeSet<KeyId>,
        now: Time,
    ) -> Result<Self, NoSnapshot> {
        let blob = body.document.clone().into_blob().ok_or(NoSnapshot::Blob)?;
        let snapshot = Snapshot::parse(blob.content())?;
        if snapshot.ledger != *ledger {
            return Err(NoSnapshot::OtherLedger);
        }
        let named = blob.reference();
        let mut words: Vec<PolicySnapshot> = Vec::new();
        let mut others = String::new();
        for submission in body.statements.iter().take(MAX_STATEMENTS) {
            let verified = submission
                .statement()
                .and_then(|statement| statement.verify().ok());
            let Some(verified) = verified else {
                others.push_str("; a signature that does not hold");
                continue;
            };
            let Event::PolicySnapshot(word) = verified.event() else {
                continue;
            };
            if word.ledger != *ledger || word.document != named {
                others.push_str(&format!("; {}: signed for another one", word.principal));
                continue;
            }
            let (key, who) = (verified.key(), &word.principal);
            let is_revoked = |id: &KeyId| revoked.contains(id) || snapshot.revoked.contains(id);
            match rule.counts(key, who, is_revoked, now) {
                Ok(()) => words.push(word.clone()),
                Err(why) => others.push_str(&format!("; {who}: {why} (administrators)")),
            }
        }
        let people: BTreeSet<&Principal> = words.iter().map(|word| &word.principal).collect();
        let (have, need) = (people.len(), rule.threshold);
        if need == 0 || u32::try_from(have).unwrap_or(u32::MAX) < need {
            return Err(NoSnapshot::UnderSigned { have, need, others });
        }
        Ok(Self { snapshot, words })
    }

    /// Until when enough of its signatures hold on this host.
    pub(super) fn holds(&self, rule: &SnapshotRule, now: Time) -> Result<Time, NoSnapshot> {
        let mut why = NoSnapshot::Expired;
        let mut holding: BTreeMap<&Principal, PolicySnapshot> = BTreeMap::new();
        for word in &self.words {
            if now >= word.expires_at {
                continue;
            }
            if word.made_at.micros_since(now) > MAX_AHEAD_US {
                why = NoSnapshot::Ahead;
                continue;
            }
            if now.micros_since(word.made_at) > rule.max_age_us {
                why = NoSnapshot::TooOld;
                continue;
            }
            let mut bounded = word.clone();
            bounded.expires_at = rule.end_of(word);
            holding.insert(&word.principal, bounded);
        }
        held_until(holding.values(), rule.threshold).ok_or(why)
    }
}
