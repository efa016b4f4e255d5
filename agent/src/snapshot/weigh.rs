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
use crate::signers::AllowedSigners;

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
    words: Vec<PolicySnapshot>,
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
            match counts(
                verified.key(),
                word,
                rule,
                (revoked, &snapshot.revoked),
                now,
            ) {
                Ok(()) => words.push(word.clone()),
                Err(why) => others.push_str(&format!("; {}: {why}", word.principal)),
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
            let oldest = word.made_at.plus_micros(rule.max_age_us);
            bounded.expires_at = bounded.expires_at.min(oldest);
            holding.insert(&word.principal, bounded);
        }
        held_until(holding.values(), rule.threshold).ok_or(why)
    }
}

/// Says whether this key's word is a pinned administrator's.
fn counts(
    key: &PublicKey,
    word: &PolicySnapshot,
    rule: &SnapshotRule,
    (revoked, named_revoked): (&BTreeSet<KeyId>, &[KeyId]),
    now: Time,
) -> Result<(), String> {
    let id = key.key_id();
    if revoked.contains(&id) || named_revoked.contains(&id) {
        return Err("the key was revoked".to_owned());
    }
    let kind = Kind::PolicySnapshot;
    rule.administrators
        .check(key, &word.principal, kind, now)
        .map_err(|why| format!("{why} (administrators)"))
}
