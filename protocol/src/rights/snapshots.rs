//! What administrators have signed for the hosts: which documents, who signed, until when.
//!
//! It must not read the documents: the log takes what administrators sign, and whether it is true
//! is theirs to check before they do.

use super::records::{Consent, Holder, SnapshotRecord};
use super::state::Rights;
use crate::event::PolicySnapshot;
use crate::fold::{MAX_AHEAD_US, Refusal};
use crate::lifecycle::Position;
use crate::name::{Principal, Time};
use crate::permission::Permission;
use crate::snapshot::MAX_VALID_US;

impl Rights {
    /// Documents that administrators have signed for the hosts, in the order of their first
    /// signatures. Behind one that enough have signed, older ones are forgotten.
    #[must_use]
    pub fn snapshots(&self) -> &[SnapshotRecord] {
        &self.snapshots
    }

    /// The words on a document that count at `now`: of those who are administrators with a key in
    /// force, before its time is over.
    pub fn words_on<'a>(
        &'a self,
        snapshot: &'a SnapshotRecord,
        now: Time,
    ) -> impl Iterator<Item = &'a Consent> {
        let counts = move |word: &&Consent| {
            let key = self.keys.get(&word.key_id);
            let own = |holder: &Holder| *holder == Holder::Person(word.principal.clone());
            now < snapshot.expires_at
                && key.is_some_and(|key| key.is_in_force(now) && own(&key.holder))
                && self.is_administrator(&word.principal)
        };
        snapshot.words.iter().filter(counts)
    }

    /// How many administrators sign a snapshot: as many as change rights in this ledger.
    #[must_use]
    pub fn snapshot_threshold(&self) -> u32 {
        self.genesis.as_ref().map_or(1, |genesis| genesis.threshold)
    }

    /// The one for the hosts at `now`: the newest that enough have signed, or else the newest that
    /// somebody has, so that a host can say what it lacks.
    #[must_use]
    pub fn snapshot_for_hosts(&self, now: Time) -> Option<&SnapshotRecord> {
        let enough = |snapshot: &&SnapshotRecord| self.is_signed_by_enough(snapshot, now);
        let mut newest_first = self.snapshots.iter().rev();
        newest_first
            .clone()
            .find(enough)
            .or_else(|| newest_first.next())
    }

    /// The newest that as many signed as it takes, over or not: what the administrators last agreed on.
    #[must_use]
    pub fn agreed_snapshot(&self) -> Option<&SnapshotRecord> {
        let mut newest_first = self.snapshots.iter().rev();
        newest_first.find(|record| self.was_agreed_on(record))
    }

    /// Enough signed it once: whose keys have ended since, and whether it is over, is not asked.
    fn was_agreed_on(&self, snapshot: &SnapshotRecord) -> bool {
        u32::try_from(snapshot.words.len()).unwrap_or(u32::MAX) >= self.snapshot_threshold()
    }

    fn is_signed_by_enough(&self, snapshot: &SnapshotRecord, now: Time) -> bool {
        let count = self.words_on(snapshot, now).count();
        u32::try_from(count).unwrap_or(u32::MAX) >= self.snapshot_threshold()
    }

    /// Takes an administrator's word.
    pub(super) fn sign_snapshot(
        &mut self,
        word: &PolicySnapshot,
        at: Position,
    ) -> Result<(), Refusal> {
        if !self.is_administrator(&word.principal) {
            return Err(Refusal::NotPermitted(Permission::RightsManage));
        }
        if word.expires_at <= at.time {
            return Err(Refusal::Late);
        }
        // The payload binds it to its signer's clock; this, to the ledger's.
        let longest = MAX_VALID_US.saturating_add(MAX_AHEAD_US);
        if word.expires_at.micros_since(at.time) > longest {
            return Err(Refusal::SnapshotSpan);
        }
        let consent = Consent {
            principal: word.principal.clone(),
            key_id: word.signer,
            seq: at.seq,
        };
        let known = self
            .snapshots
            .iter()
            .position(|known| known.document == word.document);
        let index = match known {
            Some(index) => {
                self.join(index, word, consent)?;
                index
            }
            None => {
                self.make_room(&word.principal, at.time);
                self.snapshots.push(SnapshotRecord {
                    document: word.document,
                    expires_at: word.expires_at,
                    words: alloc::vec![consent],
                });
                self.snapshots.len().saturating_sub(1)
            }
        };
        let enough = self.snapshots.get(index);
        if enough.is_some_and(|snapshot| self.is_signed_by_enough(snapshot, at.time)) {
            self.snapshots.drain(..index);
        }
        Ok(())
    }

    /// Forgets what this administrator has waiting, and what waits with no word that counts. Never
    /// what others have waiting, nor what enough have signed: a single administrator could keep
    /// everybody from a snapshot, and stop the hosts that need one. Nor what was agreed on last and is
    /// over: the next one asks of hosts no less.
    fn make_room(&mut self, of: &Principal, now: Time) {
        let agreed = self.agreed_snapshot();
        let stays = |snapshot: &SnapshotRecord| {
            let own = snapshot
                .words
                .first()
                .is_some_and(|word| word.principal == *of);
            let waits = !own && self.words_on(snapshot, now).next().is_some();
            let is_last = agreed.is_some_and(|last| core::ptr::eq(last, snapshot));
            waits || is_last || self.is_signed_by_enough(snapshot, now)
        };
        let stay = self.snapshots.iter().filter(|snapshot| stays(snapshot));
        self.snapshots = stay.cloned().collect();
    }

    fn join(
        &mut self,
        index: usize,
        word: &PolicySnapshot,
        consent: Consent,
    ) -> Result<(), Refusal> {
        let known = self.snapshots.get_mut(index);
        let known = known.ok_or(Refusal::Binding("document"))?;
        if known.expires_at != word.expires_at {
            return Err(Refusal::Binding("expires_at"));
        }
        let same = |given: &Consent| given.principal == word.principal;
        if known.words.iter().any(same) {
            return Err(Refusal::DuplicateApproval);
        }
        known.words.push(consent);
        Ok(())
    }
}
