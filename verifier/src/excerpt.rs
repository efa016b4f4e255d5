//! Chosen entries, each proved to be in a checkpoint that the first of them, genesis, names the
//! key of.

use std::collections::BTreeSet;

use countersign_protocol::audit::{CheckedEntry, Excerpt, Reason};
use countersign_protocol::checkpoint::{Checkpoint, CheckpointError};
use countersign_protocol::event::Event;
use countersign_protocol::fold::{State, Stream};
use countersign_protocol::hash::{CommandId, Hash, LedgerId};
use countersign_protocol::merkle;
use countersign_protocol::proof;
use countersign_protocol::tlog_proof::TlogProof;
use countersign_protocol::witness_policy::WitnessPolicy;

use crate::blobs::Documents;
use crate::erasures::Erasures;
use crate::log::{
    attachment, check_pin, erased, judge, note_word, open_given, suspects, verifier, worded,
};
use crate::outputs::Outputs;
use crate::report::{BlobCounts, Findings, Report, Scope};
use crate::witnesses::{Witnessed, vouch};

/// What came of the checkpoint that was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Given {
    /// What there is to be found is among the findings.
    Compared,
    /// An excerpt is proved against one checkpoint, and this one is of another size.
    NotComparable {
        /// The entries of the one that was given.
        given: u64,
        /// The entries of the bundle's own.
        held: u64,
    },
}

type Bad = (&'static str, String);

/// An excerpt under verification.
#[derive(Debug)]
pub(crate) struct Chosen {
    ledger: Option<LedgerId>,
    note: String,
    wanted: BTreeSet<CommandId>,
    found: BTreeSet<CommandId>,
    fold: Excerpt,
    checkpoint: Option<Checkpoint>,
    entries: u64,
    outputs: Outputs,
    witnessed: Option<Witnessed>,
    is_whole: bool,
    pub(crate) findings: Findings,
    pub(crate) blobs: BlobCounts,
    pub(crate) erasures: Erasures,
}

impl Chosen {
    pub(crate) fn new(ledger: Option<LedgerId>, note: String, wanted: &[CommandId]) -> Self {
        Self {
            ledger,
            note,
            wanted: wanted.iter().copied().collect(),
            found: BTreeSet::new(),
            fold: Excerpt::new(judge()),
            checkpoint: None,
            entries: 0,
            outputs: Outputs::default(),
            witnessed: None,
            is_whole: true,
            findings: Findings::default(),
            blobs: BlobCounts::default(),
            erasures: Erasures::default(),
        }
    }

    pub(crate) const fn state(&self) -> &State {
        self.fold.state()
    }

    pub(crate) const fn is_whole(&self) -> bool {
        self.is_whole
    }

    pub(crate) const fn checkpoint(&self) -> Option<&Checkpoint> {
        self.checkpoint.as_ref()
    }

    /// Takes the next entry with the proof that is said to be its own.
    pub(crate) fn take(
        &mut self,
        entry: Result<CheckedEntry, Reason>,
        proof: &TlogProof,
        documents: &Documents,
    ) -> bool {
        let seq = proof.index;
        let taken = entry
            .map_err(worded)
            .and_then(|entry| self.try_take(&entry, proof, documents));
        if let Err((name, reason)) = taken {
            self.stop(name, seq, reason);
        }
        self.is_whole
    }

    fn try_take(
        &mut self,
        entry: &CheckedEntry,
        proof: &TlogProof,
        documents: &Documents,
    ) -> Result<(), Bad> {
        if entry.seq != proof.index {
            let reason = format!("the proof beside entry {} is another entry's", entry.seq);
            return Err(("other_proof", reason));
        }
        check_pin(self.ledger, entry)?;
        if self.entries == 0 && entry.seq != 0 {
            let reason = "the first entry of the ledger is missing, which names its keys";
            return Err(("no_genesis", reason.to_owned()));
        }
        self.check_belongs(entry)?;
        let attachment = attachment(entry, documents).map_err(worded)?;
        // Of another command's texts it is not known here who names them.
        if let Event::BlobRedacted(said) = entry.verified.event()
            && self.wanted.contains(&said.command)
        {
            self.fold.name_texts(self.erasures.naming(erased(said)));
        }
        self.fold
            .push(entry, attachment)
            .map_err(|finding| worded(finding.reason))?;
        if let Event::BlobRedacted(said) = entry.verified.event() {
            self.erasures.say(entry.seq, said);
        }
        self.entries += 1;
        let (id, event) = (entry.verified.id(), entry.verified.event());
        self.outputs.take((entry.seq, id), event, documents);
        self.check_proof(entry, proof)
    }

    /// Only rights and the commands that the bundle is about: what else stood here would be read
    /// with the trust of the rest, and nothing would have judged it.
    fn check_belongs(&mut self, entry: &CheckedEntry) -> Result<(), Bad> {
        let event = entry.verified.event();
        let belongs = match Stream::of(event, entry.verified.id()) {
            Some(Stream::Rights) => true,
            Some(Stream::Command(id)) => self.wanted.contains(&id),
            None => false,
        };
        if !belongs {
            let reason = "the entry is about nothing that the bundle says it is about";
            return Err(("stray_entry", reason.to_owned()));
        }
        if matches!(event, Event::CommandRequested(_)) {
            self.found.insert(entry.verified.id());
        }
        Ok(())
    }

    fn check_proof(&mut self, entry: &CheckedEntry, proof: &TlogProof) -> Result<(), Bad> {
        if proof.note != self.note {
            let reason = "its proof is for another checkpoint than the bundle's";
            return Err(("other_checkpoint", reason.to_owned()));
        }
        if self.checkpoint.is_none() {
            self.checkpoint = Some(self.open()?);
        }
        let Some(checkpoint) = &self.checkpoint else {
            return Ok(());
        };
        let (size, root) = (checkpoint.size(), checkpoint.root());
        proof::verify_inclusion(&entry.leaf, entry.seq, size, &proof.hashes, &root).map_err(
            |error| {
                (
                    "not_included",
                    format!("it is not in the checkpoint: {error}"),
                )
            },
        )
    }

    fn open(&self) -> Result<Checkpoint, Bad> {
        let genesis = verifier(self.fold.state());
        let verifier = genesis.ok_or(("no_genesis", "there is no genesis".to_owned()))?;
        Checkpoint::open(&self.note, &verifier)
            .map_err(|error| (note_word(&error), format!("the checkpoint: {error}")))
    }

    pub(crate) fn stop(&mut self, name: &'static str, seq: u64, reason: String) {
        self.findings.bad(name, seq, reason);
        self.is_whole = false;
    }

    /// Demands that enough witnesses vouch for the checkpoint.
    pub(crate) fn demand(&mut self, witnesses: &WitnessPolicy) {
        let Some(checkpoint) = &self.checkpoint else {
            return;
        };
        match vouch(witnesses, checkpoint) {
            Ok(witnessed) => self.witnessed = Some(witnessed),
            Err((name, reason)) => {
                let last = checkpoint.size().saturating_sub(1);
                self.findings.bad(name, last, reason);
            }
        }
    }

    /// Compares with what the caller remembers, as far as an excerpt can, and with the checkpoint that
    /// was given.
    ///
    /// # Errors
    /// The checkpoint that was given is damaged.
    pub(crate) fn memories(
        &mut self,
        given: Option<&str>,
        remembered: Option<(u64, Hash)>,
    ) -> Result<Given, CheckpointError> {
        let genesis = verifier(self.fold.state());
        let (Some(checkpoint), Some(verifier)) = (&self.checkpoint, genesis) else {
            return Ok(Given::Compared);
        };
        let held = (checkpoint.size(), checkpoint.root());
        if let Some(claim) = remembered {
            compare(held, claim, "the one remembered here", &mut self.findings);
        }
        let Some(note) = given else {
            return Ok(Given::Compared);
        };
        let Some(given) = open_given(note, &verifier, &mut self.findings)? else {
            return Ok(Given::Compared);
        };
        if given.size() != held.0 {
            return Ok(Given::NotComparable {
                given: given.size(),
                held: held.0,
            });
        }
        let claim = (given.size(), given.root());
        compare(held, claim, "the one that was given", &mut self.findings);
        Ok(Given::Compared)
    }

    pub(crate) fn report(mut self) -> Report {
        if self.entries == 0 {
            self.findings.bad("empty", 0, "there is nothing in it");
        }
        if self.is_whole
            && let Some(missing) = self.wanted.difference(&self.found).next()
        {
            let reason = format!("the command {missing} that the bundle is about is not in it");
            self.findings.bad("missing_command", 0, reason);
        }
        let redacted_by = self
            .erasures
            .settle(self.is_whole, &mut self.blobs, &mut self.findings);
        let checkpoint = self.checkpoint.as_ref();
        let rights = self.fold.state().rights();
        let pinned = self.ledger.is_some() && self.ledger == rights.ledger();
        let suspect = suspects(rights);
        let (first_bad, findings) = self.findings.into_parts();
        Report {
            ok: first_bad.is_none(),
            scope: Scope::Excerpt,
            size: checkpoint.map_or(0, Checkpoint::size),
            entries: self.entries,
            root: checkpoint.map_or_else(merkle::empty_root, Checkpoint::root),
            pinned,
            checkpoints: u64::from(checkpoint.is_some()),
            witnessed: self.witnessed,
            blobs: self.blobs,
            redacted_by,
            outputs: self.outputs.counts,
            not_rejudged: self.fold.not_rejudged(),
            suspect,
            counters_back: Vec::new(),
            other_outputs: self.outputs.others,
            first_bad,
            findings,
        }
    }
}

/// Of one size there is one root. Between two sizes only all the log's entries could tell.
fn compare(held: (u64, Hash), (size, root): (u64, Hash), whose: &str, findings: &mut Findings) {
    if size == held.0 && root != held.1 {
        let reason = format!(
            "the bundle's checkpoint of {size} entries has another root than {whose}: the log was forked"
        );
        findings.bad("other_root", size.saturating_sub(1), reason);
    }
}
