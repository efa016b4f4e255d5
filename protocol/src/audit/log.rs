//! A whole log, from its first entry on.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::entry::{CheckedEntry, Finding, Reason, attachment, check_entry};
use crate::blob::{Blob, BlobRef};
use crate::erasure::Naming;
use crate::event::Event;
use crate::fold::{self, Attachment, Effect, Refusal, State};
use crate::hash::{Digest, Hash, KeyId, StatementId};
use crate::judgement::Judge;
use crate::lifecycle::Position;
use crate::merkle::Tree;
use crate::name::{Principal, Time};

/// Most counters that are told of: one is reason enough to look at a key.
const MAX_WENT_BACK: usize = 1024;

/// A security key showed a smaller counter than before: there may be two of it. No failure by
/// itself, for keys may count anew after a reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WentBack {
    /// The entry that it signed.
    pub seq: u64,
    /// Which key.
    pub key_id: KeyId,
    /// The counter there.
    pub counter: u32,
    /// The largest counter before.
    pub before: u32,
}

/// Folds checked entries from the first on.
#[derive(Debug)]
pub struct Auditor {
    state: State,
    tree: Tree,
    last: Option<(Hash, Time)>,
    /// Size and root that the entry before had seen: its neighbours mostly saw the same.
    last_seen: Option<(u64, Hash)>,
    statements: BTreeSet<StatementId>,
    client_refs: BTreeMap<(Principal, Digest), StatementId>,
    not_rejudged: u64,
    /// What the next entry must be: after a run without approvals its review, after a part of a
    /// redaction the next part.
    owed: Option<Effect>,
    /// The largest counter that each security key has shown.
    counters: BTreeMap<KeyId, u32>,
    went_back: Vec<WentBack>,
}

impl Auditor {
    /// An auditor before the first entry, with whoever reads policies.
    #[must_use]
    pub fn new(judge: Arc<dyn Judge>) -> Self {
        Self {
            state: State::new(judge),
            tree: Tree::default(),
            last: None,
            last_seen: None,
            statements: BTreeSet::new(),
            client_refs: BTreeMap::new(),
            not_rejudged: 0,
            owed: None,
            counters: BTreeMap::new(),
            went_back: Vec::new(),
        }
    }

    /// Says who names the texts that the next entry may erase, as far as the auditor's caller knows.
    pub fn name_texts(&mut self, naming: Naming) {
        self.state.name_texts(naming);
    }

    /// Number of entries taken.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.tree.size()
    }

    /// This log's root when it had `size` entries.
    #[must_use]
    pub fn root_at(&self, size: u64) -> Option<Hash> {
        self.tree.root_at(size)
    }

    /// All entries' nodes: to prove inclusion and consistency from.
    #[must_use]
    pub const fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The fold of all entries taken.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// Entries whose judgement needs a document that was not at hand.
    #[must_use]
    pub const fn not_rejudged(&self) -> u64 {
        self.not_rejudged
    }

    /// Whether the log ends before the review of its last run without approvals was opened. A
    /// checkpoint is never between the two.
    #[must_use]
    pub const fn owes_a_review(&self) -> bool {
        matches!(self.owed, Some(Effect::OpenReview { .. }))
    }

    /// Whether the log ends in the middle of a redaction. A checkpoint is never between two parts.
    #[must_use]
    pub const fn owes_a_redaction(&self) -> bool {
        matches!(self.owed, Some(Effect::Change { .. }))
    }

    /// Entries whose security key showed a smaller counter than before.
    #[must_use]
    pub fn went_back(&self) -> &[WentBack] {
        &self.went_back
    }

    /// Keeps a security key's counter. One that does not count shows 0 for ever, which is legal.
    fn count(&mut self, seq: u64, key_id: KeyId, counter: Option<u32>) {
        let Some(counter) = counter.filter(|counter| *counter > 0) else {
            return;
        };
        let before = self.counters.entry(key_id).or_insert(counter);
        if counter >= *before {
            *before = counter;
        } else if self.went_back.len() < MAX_WENT_BACK {
            self.went_back.push(WentBack {
                seq,
                key_id,
                counter,
                before: *before,
            });
        }
    }

    /// Takes the next entry. After an error the auditor must not be used on.
    ///
    /// # Errors
    /// The entry's place and what is wrong with it.
    pub fn push(&mut self, entry: &CheckedEntry, attachment: Attachment) -> Result<(), Finding> {
        let seq = self.size();
        self.take(seq, entry, attachment)
            .map_err(|reason| Finding { seq, reason })
    }

    /// As [`Auditor::root_at`], keeping the answer: the root of a size never changes again.
    fn seen_root(&mut self, size: u64) -> Option<Hash> {
        if let Some((known, root)) = self.last_seen
            && known == size
        {
            return Some(root);
        }
        let root = self.tree.root_at(size)?;
        self.last_seen = Some((size, root));
        Some(root)
    }

    fn take(
        &mut self,
        seq: u64,
        entry: &CheckedEntry,
        attachment: Attachment,
    ) -> Result<(), Reason> {
        if entry.seq != seq {
            return Err(Reason::Seq(entry.seq));
        }
        let (prev, not_before) = self.last.unwrap_or((Hash::ZERO, entry.time));
        if entry.prev != prev {
            return Err(Reason::Link);
        }
        if entry.time < not_before {
            return Err(Reason::Time);
        }
        let event = entry.verified.event();
        let id = entry.verified.id();
        if !self.statements.insert(id) {
            return Err(Reason::Duplicate);
        }
        if let Some(seen) = event.header().seen {
            fold::check_seen(&seen, seq, self.seen_root(seen.size))?;
        }
        if let Event::CommandRequested(request) = event
            && let Some(reference) = request.client_ref
            && self
                .client_refs
                .insert((request.principal.clone(), reference), id)
                .is_some()
        {
            return Err(Refusal::ClientRef.into());
        }
        self.check_owed(event)?;
        self.check_waited_for(event, entry.time)?;
        self.state.holds_retried(event)?;
        self.not_rejudged += u64::from(attachment.is_withheld());
        let at = Position {
            seq,
            time: entry.time,
            id,
        };
        self.state
            .admit(&entry.verified, at, entry.leaf, attachment)?;
        if matches!(event, Event::CommandAuthorized(_) | Event::BlobRedacted(_)) {
            self.owed = self.state.effect_of(event, at);
        }
        let facts = entry.verified.facts();
        self.count(seq, facts.key_id, facts.counter);
        self.tree.push(entry.leaf);
        self.last = Some((entry.leaf, entry.time));
        Ok(())
    }

    /// Who holds all commands knows which ends a turn had to wait for, also those of others.
    fn check_waited_for(&self, event: &Event, now: Time) -> Result<(), Reason> {
        let Event::ExecutionReleased(released) = event else {
            return Ok(());
        };
        let command = self.state.command(&released.command);
        if command.is_some_and(|command| command.targets.is_some()) {
            let ends = self
                .state
                .waits_for(&released.command, released.turn, now)?;
            if ends != released.waited_for {
                return Err(Refusal::Binding("waited_for").into());
            }
        }
        Ok(())
    }

    /// The fold alone does not know whether a review belongs to a run: rights are folded by
    /// themselves too.
    fn check_owed(&mut self, event: &Event) -> Result<(), Reason> {
        let mut opens = None;
        if let Event::ReviewOpened(opened) = event {
            opens = Some(Effect::OpenReview {
                command: opened.command,
                requester: opened.requester.clone(),
                due_at: opened.due_at,
            });
        }
        match self.owed.take() {
            // That it is of the change that is owed, and of which texts, the fold has to say.
            Some(Effect::Change { change, .. }) => {
                let goes_on =
                    matches!(event, Event::BlobRedacted(redacted) if redacted.change == change);
                goes_on.then_some(()).ok_or(Reason::Redaction)
            }
            owed if owed == opens => Ok(()),
            _other => Err(Reason::Review),
        }
    }
}

/// Audits entries from the first on, one after the other.
///
/// # Errors
/// The first bad entry.
pub fn audit<'a>(
    judge: Arc<dyn Judge>,
    entries: impl IntoIterator<Item = &'a [u8]>,
    mut blob: impl FnMut(&BlobRef) -> Option<Blob>,
) -> Result<Auditor, Finding> {
    let mut auditor = Auditor::new(judge);
    for bytes in entries {
        let seq = auditor.size();
        let fail = |reason| Finding { seq, reason };
        let entry = check_entry(bytes).map_err(fail)?;
        let attached = attachment(entry.verified.event(), &mut blob);
        let attached = attached.map_err(|refusal| fail(refusal.into()))?;
        auditor.push(&entry, attached)?;
    }
    Ok(auditor)
}
