//! The order of a verification: entries one after the other, then what is derived from them.

use std::collections::BTreeMap;

use countersign_protocol::audit::{self, Auditor, CheckedEntry};
use countersign_protocol::checkpoint::{Checkpoint, CheckpointError, VerifierKey};
use countersign_protocol::fold::Attachment;
use countersign_protocol::hash::{Hash, LedgerId};
use countersign_protocol::merkle;
use countersign_protocol::name::Time;

use super::blobs::{self, Documents};
use super::closing::{self, compare_root};
use super::database::{Access, Database};
use super::pipeline::{Checked, Pipeline, source_error};
use super::report::{BlobCounts, CounterBack, Findings, Report, Suspect, VerifyError};
use super::source::{Pages, Source};
use super::tables::{Expected, SideTables};
use crate::replay;

/// Hears how many entries of how many are done.
pub type Progress = Box<dyn FnMut(u64, u64) + Send>;

/// What to verify, and against what.
pub struct Options {
    /// The ledger's bytes.
    pub source: Source,
    /// The ledger that it must be; without one it can only be consistent in itself.
    pub ledger: Option<LedgerId>,
    /// A checkpoint note that the caller holds: the log must contain and continue it.
    pub checkpoint: Option<String>,
    /// Size and root of the newest checkpoint that the caller remembers.
    pub remembered: Option<(u64, Hash)>,
    /// Called after every page.
    pub progress: Option<Progress>,
}

impl Options {
    /// Nothing but the source.
    #[must_use]
    pub const fn new(source: Source) -> Self {
        Self {
            source,
            ledger: None,
            checkpoint: None,
            remembered: None,
            progress: None,
        }
    }
}

/// Verifies a ledger.
///
/// Finding something is a [`Report`], not an error. An error means that there is no verdict.
///
/// # Errors
/// See [`VerifyError`].
pub async fn verify(options: Options) -> Result<Report, VerifyError> {
    let Options {
        source,
        ledger,
        checkpoint,
        remembered,
        progress,
    } = options;
    let mut run = Run {
        ledger,
        progress,
        auditor: Auditor::new(replay::judge()),
        last: None,
        seen: BTreeMap::new(),
        blobs: BlobCounts::default(),
        findings: Findings::default(),
        checkpoints: 0,
        whole: true,
    };
    match source {
        Source::Database(url) => run.database(&url).await?,
        Source::Pages(mut pages) => run.pages(pages.as_mut()).await?,
    }
    run.memories(checkpoint.as_deref(), remembered)?;
    Ok(run.report())
}

struct Run {
    ledger: Option<LedgerId>,
    progress: Option<Progress>,
    auditor: Auditor,
    last: Option<(Hash, Time)>,
    /// Sizes of checkpoints that signers saw, with the first entry that says so.
    seen: BTreeMap<u64, u64>,
    blobs: BlobCounts,
    findings: Findings,
    checkpoints: u64,
    /// No entry failed so far: the audited entries are all there are.
    whole: bool,
}

impl Run {
    async fn database(&mut self, url: &str) -> Result<(), VerifyError> {
        let mut database = Database::open(url).await?;
        let head = database.head().await?;
        let total = head.as_ref().map_or(0, |head| head.size);
        let mut tables = SideTables::default();
        let mut pipeline = Pipeline::new(u64::MAX);
        while self.whole
            && let Some(page) = pipeline.next(&mut database).await?
        {
            let expected = self.page(&mut database, page).await?;
            tables
                .compare(&mut database, &expected, &mut self.findings)
                .await?;
            self.tell(total);
        }
        database.access(Access::Heap).await?;
        let (auditor, findings) = (&self.auditor, &mut self.findings);
        if let Some(verifier) = verifier(auditor) {
            let seen = std::mem::take(&mut self.seen);
            let checkpoints = closing::checkpoints(
                &mut database,
                auditor,
                &verifier,
                seen,
                self.whole,
                findings,
            )
            .await?;
            self.checkpoints = checkpoints.good;
            if self.whole {
                closing::head(head.as_ref(), &checkpoints, auditor, self.last, findings);
            }
        }
        if self.whole {
            tables
                .finish(&mut database, auditor.size(), findings)
                .await?;
            closing::subtrees(&mut database, auditor, findings).await?;
            closing::open_streams(&mut database, auditor, findings).await?;
            closing::heap(&mut database, auditor, findings).await?;
            self.blobs.unreferenced = database.unreferenced().await?;
        }
        Ok(())
    }

    /// The newest note first, then the entries it covers: a log that grows meanwhile is no matter.
    async fn pages(&mut self, pages: &mut dyn Pages) -> Result<(), VerifyError> {
        let note = pages.newest().await.map_err(source_error)?;
        let size = note.as_deref().and_then(claimed_size);
        let total = size.unwrap_or(0);
        let mut pipeline = Pipeline::new(total.max(1));
        while self.whole
            && let Some(page) = pipeline.next(pages).await?
        {
            self.page(pages, page).await?;
            self.tell(total);
        }
        let Some(verifier) = verifier(&self.auditor) else {
            return Ok(());
        };
        let Some(note) = note else {
            self.findings.bad(0, "the ledger shows no checkpoint");
            return Ok(());
        };
        match Checkpoint::open(&note, &verifier) {
            Err(error) => self.findings.bad(
                total.saturating_sub(1),
                format!("the newest checkpoint: {error}"),
            ),
            Ok(newest) if self.whole => {
                let claim = (newest.size(), newest.root());
                let whose = "the newest checkpoint";
                let good = compare_root(&self.auditor, claim, whose, &mut self.findings);
                self.checkpoints += u64::from(good);
            }
            Ok(_) => {}
        }
        Ok(())
    }

    /// Audits one page; what its entries call for in side tables comes back.
    async fn page(
        &mut self,
        pages: &mut dyn Pages,
        page: Vec<Checked>,
    ) -> Result<Vec<Expected>, VerifyError> {
        let sound = page.iter().map_while(|checked| checked.entry.as_ref().ok());
        let sound = (self.auditor.size()..).zip(sound);
        let documents = blobs::check(pages, sound, &mut self.blobs, &mut self.findings).await?;
        let mut expected = Vec::with_capacity(page.len());
        for checked in page {
            let seq = self.auditor.size();
            match self.entry(checked, &documents) {
                Ok(rows) => expected.push(rows),
                Err(reason) => {
                    self.findings.bad(seq, reason);
                    self.whole = false;
                    break;
                }
            }
        }
        Ok(expected)
    }

    /// Takes the next entry, or says why it cannot stand there.
    fn entry(&mut self, checked: Checked, documents: &Documents) -> Result<Expected, String> {
        let seq = self.auditor.size();
        if checked.seq != seq {
            return Err(format!(
                "the entry is missing; the next one that is stored is number {}",
                checked.seq
            ));
        }
        let entry = checked.entry.map_err(|reason| reason.to_string())?;
        if checked.stored.is_some_and(|stored| stored != entry.leaf) {
            return Err("the leaf that is stored beside the entry is not the entry's".to_owned());
        }
        if seq == 0
            && let Some(pinned) = self.ledger
            && pinned.as_bytes() != entry.leaf.as_bytes()
        {
            return Err(format!(
                "this is another ledger: {pinned} was pinned, this one is {}",
                entry.leaf
            ));
        }
        // A document that is not what was signed is a finding already; here it is not at hand.
        let attachment = audit::attachment(entry.verified.event(), |named| {
            documents.get(&named.digest).cloned()
        })
        .map_err(|refusal| refusal.to_string())?;
        self.push(entry, attachment)
    }

    fn push(&mut self, entry: CheckedEntry, attachment: Attachment) -> Result<Expected, String> {
        let expected = Expected::of(&entry);
        let (seq, leaf, time) = (entry.seq, entry.leaf, entry.time);
        let seen = entry.verified.event().header().seen;
        let pushed = self.auditor.push(entry, attachment);
        pushed.map_err(|finding| finding.reason.to_string())?;
        self.last = Some((leaf, time));
        if let Some(seen) = seen {
            self.seen.entry(seen.size).or_insert(seq);
        }
        Ok(expected)
    }

    fn tell(&mut self, total: u64) {
        let done = self.auditor.size();
        if let Some(progress) = &mut self.progress {
            progress(done, total.max(done));
        }
    }

    /// Compares with what the caller holds: only that can show that the end was cut off.
    fn memories(
        &mut self,
        checkpoint: Option<&str>,
        remembered: Option<(u64, Hash)>,
    ) -> Result<(), VerifyError> {
        let (auditor, findings) = (&self.auditor, &mut self.findings);
        if let (Some(note), Some(verifier)) = (checkpoint, verifier(auditor)) {
            match Checkpoint::open(note, &verifier) {
                Ok(given) => {
                    let claim = (given.size(), given.root());
                    compare_root(auditor, claim, "the checkpoint that was given", findings);
                }
                Err(error @ (CheckpointError::OtherOrigin | CheckpointError::Unsigned)) => {
                    findings.bad(0, format!("the checkpoint that was given: {error}"));
                }
                Err(error) => return Err(VerifyError::Note(error)),
            }
        }
        if let Some(claim) = remembered {
            compare_root(
                auditor,
                claim,
                "the newest checkpoint remembered here",
                findings,
            );
        }
        Ok(())
    }

    fn report(mut self) -> Report {
        let size = self.auditor.size();
        if size == 0 {
            self.findings
                .bad(0, "there is no first entry: no ledger was begun here");
        }
        if self.auditor.owes_a_review() {
            self.findings.bad(
                size.saturating_sub(1),
                "a run without approvals was authorized here and its review was not opened",
            );
        }
        let root = self.auditor.root_at(size);
        let back = self.auditor.went_back().iter();
        let counters_back = back.map(|back| CounterBack {
            seq: back.seq,
            key_id: back.key_id,
            counter: back.counter,
            before: back.before,
        });
        let counters_back = counters_back.collect();
        let pinned = self.ledger;
        let suspect = self.auditor.state().rights().keys();
        let suspect = suspect.filter_map(|(key_id, record)| {
            Some(Suspect {
                key_id: *key_id,
                from: record.suspect_from?,
                until: record.revoked?,
            })
        });
        Report {
            ok: self.findings.first.is_none(),
            size,
            root: root.unwrap_or_else(merkle::empty_root),
            pinned: pinned.is_some() && pinned == self.auditor.state().rights().ledger(),
            checkpoints: self.checkpoints,
            blobs: self.blobs,
            not_rejudged: self.auditor.not_rejudged(),
            suspect: suspect.collect(),
            counters_back,
            first_bad: self.findings.first,
            findings: self.findings.tables,
        }
    }
}

/// The key that this ledger's genesis names for its checkpoints.
fn verifier(auditor: &Auditor) -> Option<VerifierKey> {
    let genesis = auditor.state().rights().genesis()?;
    VerifierKey::of(&genesis.origin, &genesis.checkpoint_key).ok()
}

/// The size in a note's second line, before anything of it is checked.
fn claimed_size(note: &str) -> Option<u64> {
    note.lines().nth(1)?.parse().ok()
}
