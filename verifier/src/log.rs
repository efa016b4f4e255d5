//! A whole log from its first entry on: what a database, a server's pages and a bundle are all
//! checked by, and what they are compared with at the end.

use std::sync::Arc;

use countersign_policy::CedarJudge;
use countersign_protocol::audit;
use countersign_protocol::audit::{Auditor, CheckedEntry, Reason};
use countersign_protocol::checkpoint::{Checkpoint, CheckpointError, VerifierKey};
use countersign_protocol::event::{BlobRedacted, Erased, Event};
use countersign_protocol::fold::{Attachment, State};
use countersign_protocol::hash::{Hash, KeyId, LedgerId};
use countersign_protocol::judgement::Judge;
use countersign_protocol::merkle;
use countersign_protocol::name::Time;
use countersign_protocol::rights::{KeyRecord, Rights};
use countersign_protocol::witness_policy::WitnessPolicy;

use crate::blobs::Documents;
use crate::erasures::Erasures;
use crate::outputs::Outputs;
use crate::report::{BlobCounts, CounterBack, Findings, Report, Scope, Suspect};
use crate::witnesses::{Witnessed, vouch};

/// A log under verification.
#[derive(Debug)]
pub struct Log {
    ledger: Option<LedgerId>,
    auditor: Auditor,
    last: Option<(Hash, Time)>,
    outputs: Outputs,
    witnessed: Option<Witnessed>,
    is_whole: bool,
    /// What was found.
    pub findings: Findings,
    /// What became of blobs.
    pub blobs: BlobCounts,
    /// What is erased where it was looked for.
    pub erasures: Erasures,
    /// Checkpoints that hold.
    pub checkpoints: u64,
}

impl Log {
    /// Before the first entry. Without a `ledger` it can only be consistent in itself.
    #[must_use]
    pub fn new(ledger: Option<LedgerId>) -> Self {
        Self {
            ledger,
            auditor: Auditor::new(judge()),
            last: None,
            outputs: Outputs::default(),
            witnessed: None,
            is_whole: true,
            findings: Findings::default(),
            blobs: BlobCounts::default(),
            erasures: Erasures::default(),
            checkpoints: 0,
        }
    }

    /// The audit so far.
    #[must_use]
    pub const fn auditor(&self) -> &Auditor {
        &self.auditor
    }

    /// Leaf and time of the last entry.
    #[must_use]
    pub const fn last(&self) -> Option<(Hash, Time)> {
        self.last
    }

    /// No entry failed so far: the audited entries are all there are.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Takes the next entry. `claimed` is the place its source gives it. False: it may not stand
    /// there, and none may come after it.
    pub fn take(
        &mut self,
        claimed: u64,
        entry: Result<CheckedEntry, Reason>,
        documents: &Documents,
    ) -> bool {
        let seq = self.auditor.size();
        if let Err((name, reason)) = self.try_take(claimed, entry, documents) {
            self.findings.bad(name, seq, reason);
            self.is_whole = false;
        }
        self.is_whole
    }

    fn try_take(
        &mut self,
        claimed: u64,
        entry: Result<CheckedEntry, Reason>,
        documents: &Documents,
    ) -> Result<(), (&'static str, String)> {
        let seq = self.auditor.size();
        if claimed != seq {
            let next =
                format!("the entry is missing; the next one that is stored is number {claimed}");
            return Err(("missing_entry", next));
        }
        let entry = entry.map_err(worded)?;
        check_pin(self.ledger, &entry)?;
        let attachment = attachment(&entry, documents).map_err(worded)?;
        if let Event::BlobRedacted(said) = entry.verified.event() {
            self.auditor.name_texts(self.erasures.naming(erased(said)));
        }
        let pushed = self.auditor.push(&entry, attachment);
        pushed.map_err(|finding| worded(finding.reason))?;
        if let Event::BlobRedacted(said) = entry.verified.event() {
            self.erasures.say(seq, said);
        }
        self.last = Some((entry.leaf, entry.time));
        let (id, event) = (entry.verified.id(), entry.verified.event());
        self.outputs.take((seq, id), event, documents);
        Ok(())
    }

    /// Stops at what its source found by itself.
    pub fn stop(&mut self, name: &'static str, reason: impl Into<String>) {
        self.findings.bad(name, self.auditor.size(), reason);
        self.is_whole = false;
    }

    /// The audit so far, and what was found.
    #[must_use]
    pub const fn parts(&mut self) -> (&Auditor, &mut Findings) {
        (&self.auditor, &mut self.findings)
    }

    /// The key that genesis names for checkpoints; nothing before genesis.
    #[must_use]
    pub fn verifier(&self) -> Option<VerifierKey> {
        verifier(self.auditor.state())
    }

    fn compare_root(&mut self, claim: (u64, Hash), whose: &str) -> bool {
        compare_root(&self.auditor, claim, whose, &mut self.findings)
    }

    /// Opens the note that a source shows as its newest and compares it; with `witnesses`, enough of
    /// them must vouch for it.
    pub fn newest(&mut self, note: &str, witnesses: Option<&WitnessPolicy>) {
        let Some(verifier) = self.verifier() else {
            return;
        };
        match Checkpoint::open(note, &verifier) {
            Err(error) => {
                let last = claimed_size(note).unwrap_or(0).saturating_sub(1);
                self.findings.bad(
                    note_word(&error),
                    last,
                    format!("the newest checkpoint: {error}"),
                );
            }
            Ok(newest) if self.is_whole => {
                let claim = (newest.size(), newest.root());
                let good = self.compare_root(claim, "the newest checkpoint");
                self.checkpoints += u64::from(good);
                let (covered, held) = (newest.size(), self.auditor.size());
                if covered < held {
                    let reason = format!(
                        "{held} entries are here, and the newest checkpoint is of {covered}: nobody vouches for what stands behind it"
                    );
                    self.findings.bad("uncovered", covered, reason);
                }
                self.demand(witnesses, &newest);
            }
            Ok(_) => {}
        }
    }

    /// Where there is a policy, enough of its witnesses must vouch for a checkpoint.
    fn demand(&mut self, witnesses: Option<&WitnessPolicy>, checkpoint: &Checkpoint) {
        match witnesses
            .map(|policy| vouch(policy, checkpoint))
            .transpose()
        {
            Ok(witnessed) => self.witnessed = witnessed.or(self.witnessed),
            Err((name, reason)) => {
                let last = checkpoint.size().saturating_sub(1);
                self.findings.bad(name, last, reason);
            }
        }
    }

    /// Compares with what the caller holds: only that can show that the end was cut off. With
    /// `witnesses`, enough of them must vouch for the checkpoint that was given.
    ///
    /// # Errors
    /// The checkpoint that was given is damaged.
    pub fn memories(
        &mut self,
        checkpoint: Option<&str>,
        remembered: Option<(u64, Hash)>,
        witnesses: Option<&WitnessPolicy>,
    ) -> Result<(), CheckpointError> {
        if let (Some(note), Some(verifier)) = (checkpoint, self.verifier())
            && let Some(given) = open_given(note, &verifier, &mut self.findings)?
        {
            let claim = (given.size(), given.root());
            self.compare_root(claim, "the checkpoint that was given");
            self.demand(witnesses, &given);
        }
        if let Some(claim) = remembered {
            self.compare_root(claim, "the newest checkpoint remembered here");
        }
        Ok(())
    }

    /// The verdict.
    #[must_use]
    pub fn report(mut self) -> Report {
        let size = self.auditor.size();
        if size == 0 {
            let reason = "there is no first entry: no ledger was begun here";
            self.findings.bad("empty", 0, reason);
        }
        if self.auditor.owes_a_review() {
            self.findings.bad(
                "review_owed",
                size.saturating_sub(1),
                "a run without approvals was authorized here and its review was not opened",
            );
        }
        if self.auditor.owes_a_redaction() {
            self.findings.bad(
                "redaction_owed",
                size.saturating_sub(1),
                "a redaction of many texts stops here, and its next part is not there",
            );
        }
        let redacted_by = self
            .erasures
            .settle(self.is_whole, &mut self.blobs, &mut self.findings);
        let root = self.auditor.root_at(size);
        let back = self.auditor.went_back().iter();
        let counters_back = back.map(|back| CounterBack {
            seq: back.seq,
            key_id: back.key_id,
            counter: back.counter,
            before: back.before,
        });
        let counters_back = counters_back.collect();
        let rights = self.auditor.state().rights();
        let pinned = self.ledger.is_some() && self.ledger == rights.ledger();
        let suspect = suspects(rights);
        let (first_bad, findings) = self.findings.into_parts();
        Report {
            ok: first_bad.is_none(),
            scope: Scope::Whole,
            size,
            entries: size,
            root: root.unwrap_or_else(merkle::empty_root),
            pinned,
            checkpoints: self.checkpoints,
            witnessed: self.witnessed,
            blobs: self.blobs,
            redacted_by,
            outputs: self.outputs.counts,
            not_rejudged: self.auditor.not_rejudged(),
            suspect,
            counters_back,
            other_outputs: self.outputs.others,
            first_bad,
            findings,
        }
    }
}

/// Says whether a checkpoint is of this log; what is wrong goes to the findings.
///
/// `whose` begins the sentence: "the checkpoint", "the checkpoint that was given".
pub fn compare_root(
    auditor: &Auditor,
    (size, root): (u64, Hash),
    whose: &str,
    findings: &mut Findings,
) -> bool {
    let held = auditor.size();
    if size > held {
        let reason = format!(
            "{whose} is of {size} entries, but there are {held}: the end of the log was cut off, or this is a fork"
        );
        findings.bad("cut_off", held, reason);
        return false;
    }
    if auditor.root_at(size) != Some(root) {
        let reason = format!(
            "{whose} of {size} entries has another root than these entries: the log was rewritten or forked"
        );
        findings.bad("other_root", size.saturating_sub(1), reason);
        return false;
    }
    true
}

/// What an entry erases.
pub(crate) fn erased(said: &BlobRedacted) -> Erased<'_> {
    Erased {
        command: said.command,
        digests: &said.digests,
    }
}

/// The name and the sentence of what is wrong with an entry.
pub(crate) fn worded(reason: Reason) -> (&'static str, String) {
    (reason.name(), reason.to_string())
}

/// The word for what is wrong with a note.
#[must_use]
pub const fn note_word(error: &CheckpointError) -> &'static str {
    match error {
        CheckpointError::OtherOrigin | CheckpointError::Origin => "foreign_origin",
        CheckpointError::Unsigned => "unsigned_checkpoint",
        CheckpointError::BadSignature => "forged_checkpoint",
        CheckpointError::VerifierKey
        | CheckpointError::TooLarge
        | CheckpointError::Malformed(_) => "bad_checkpoint",
    }
}

/// The checkpoint that was given. Nothing when it is of another log, or nobody of this one signed it:
/// then that is found.
///
/// # Errors
/// It is damaged.
pub(crate) fn open_given(
    note: &str,
    verifier: &VerifierKey,
    findings: &mut Findings,
) -> Result<Option<Checkpoint>, CheckpointError> {
    match Checkpoint::open(note, verifier) {
        Ok(given) => Ok(Some(given)),
        Err(error @ (CheckpointError::OtherOrigin | CheckpointError::Unsigned)) => {
            let reason = format!("the checkpoint that was given: {error}");
            findings.bad(note_word(&error), 0, reason);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The first entry is the ledger that was pinned.
pub(crate) fn check_pin(
    pinned: Option<LedgerId>,
    entry: &CheckedEntry,
) -> Result<(), (&'static str, String)> {
    match pinned {
        Some(pinned) if entry.seq == 0 && pinned.as_bytes() != entry.leaf.as_bytes() => {
            let reason = format!(
                "this is another ledger: {pinned} was pinned, this one is {}",
                entry.leaf
            );
            Err(("other_ledger", reason))
        }
        Some(_) | None => Ok(()),
    }
}

/// The document that judging an entry needs. One that is not what was signed is a finding already;
/// here it is not at hand.
pub(crate) fn attachment(
    entry: &CheckedEntry,
    documents: &Documents,
) -> Result<Attachment, Reason> {
    let held = |named: &countersign_protocol::blob::BlobRef| documents.get(&named.digest).cloned();
    audit::attachment(entry.verified.event(), held).map_err(Reason::from)
}

/// Ranges that administrators declared suspect.
pub(crate) fn suspects(rights: &Rights) -> Vec<Suspect> {
    let of_key = |(key_id, record): (&KeyId, &KeyRecord)| {
        Some(Suspect {
            key_id: *key_id,
            from: record.suspect_from?,
            until: record.revoked?,
        })
    };
    rights.keys().filter_map(of_key).collect()
}

/// The key that this ledger's genesis names for its checkpoints.
#[must_use]
pub(crate) fn verifier(state: &State) -> Option<VerifierKey> {
    let genesis = state.rights().genesis()?;
    VerifierKey::of(&genesis.origin, &genesis.checkpoint_key).ok()
}

/// The size in a note's second line, before anything of it is checked.
#[must_use]
pub fn claimed_size(note: &str) -> Option<u64> {
    note.lines().nth(1)?.parse().ok()
}

/// Who reads policies here.
pub(crate) fn judge() -> Arc<dyn Judge> {
    Arc::<CedarJudge>::clone(CedarJudge::shared())
}
