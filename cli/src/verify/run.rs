//! The order of a verification: entries one after the other, then what is derived from them.

use std::collections::BTreeMap;

use countersign_protocol::hash::{Hash, LedgerId};
use countersign_protocol::witness_policy::WitnessPolicy;
use countersign_verifier::{Log, Report, claimed_size};

use super::blobs;
use super::closing;
use super::database::{Access, Database};
use super::error::VerifyError;
use super::pipeline::{Checked, Pipeline, source_error};
use super::source::{Pages, Source};
use super::tables::{Expected, SideTables};
use super::withheld::Withheld;

/// How often a log is read on because something was erased while it was read.
const MEANWHILE: usize = 4;

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
    /// Enough of these must vouch for `checkpoint`.
    pub witnesses: Option<WitnessPolicy>,
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
            witnesses: None,
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
        witnesses,
        progress,
    } = options;
    let mut run = Run {
        log: Log::new(ledger),
        progress,
        seen: BTreeMap::new(),
        withheld: Withheld::default(),
    };
    match source {
        Source::Database(url) => run.database(&url).await?,
        Source::Pages(mut pages) => run.pages(pages.as_mut()).await?,
    }
    run.log
        .memories(checkpoint.as_deref(), remembered, witnesses.as_ref())
        .map_err(VerifyError::Note)?;
    Ok(run.log.report())
}

struct Run {
    log: Log,
    progress: Option<Progress>,
    /// Sizes of checkpoints that signers saw, with the first entry that says so.
    seen: BTreeMap<u64, u64>,
    withheld: Withheld,
}

impl Run {
    async fn database(&mut self, url: &str) -> Result<(), VerifyError> {
        let mut database = Database::open(url).await?;
        let head = database.head().await?;
        let total = head.as_ref().map_or(0, |head| head.size);
        let mut tables = SideTables::default();
        let mut pipeline = Pipeline::new(0, u64::MAX);
        while self.log.is_whole()
            && let Some(page) = pipeline.next(&mut database).await?
        {
            let expected = self.page(&mut database, page, true).await?;
            tables
                .compare(&mut database, &expected, &mut self.log.findings)
                .await?;
            self.tell(total);
        }
        database.access(Access::Heap).await?;
        let (whole, last) = (self.log.is_whole(), self.log.last());
        if let Some(verifier) = self.log.verifier() {
            let seen = std::mem::take(&mut self.seen);
            let (auditor, findings) = self.log.parts();
            let checkpoints =
                closing::checkpoints(&mut database, auditor, &verifier, seen, whole, findings)
                    .await?;
            if whole {
                closing::head(head.as_ref(), &checkpoints, auditor, last, findings);
            }
            self.log.checkpoints = checkpoints.good;
        }
        if whole {
            let (auditor, findings) = self.log.parts();
            tables
                .finish(&mut database, auditor.size(), findings)
                .await?;
            closing::subtrees(&mut database, auditor, findings).await?;
            closing::open_streams(&mut database, auditor, findings).await?;
            closing::heap(&mut database, auditor, findings).await?;
            let (auditor, findings) = self.log.parts();
            closing::erased(&mut database, auditor, findings).await?;
            self.log.blobs.unreferenced = database.unreferenced().await?;
        }
        Ok(())
    }

    /// The newest note first, then the entries it covers: a log that grows meanwhile is no matter,
    /// but for a text that was erased meanwhile: the entry that says so is then read as well.
    async fn pages(&mut self, pages: &mut dyn Pages) -> Result<(), VerifyError> {
        let mut note = pages.newest().await.map_err(source_error)?;
        let mut done = 0;
        for _again in 0..MEANWHILE {
            let total = note.as_deref().and_then(claimed_size).unwrap_or(0);
            let mut pipeline = Pipeline::new(done, total.max(1));
            while self.log.is_whole()
                && let Some(page) = pipeline.next(pages).await?
            {
                self.page(pages, page, false).await?;
                self.tell(total);
            }
            if !self.log.is_whole() || !self.log.erasures.are_unsaid() {
                break;
            }
            let newer = pages.newest().await.map_err(source_error)?;
            let grown = newer.as_deref().and_then(claimed_size);
            if grown.is_none_or(|grown| grown <= total) {
                break;
            }
            (note, done) = (newer, total);
        }
        if self.log.is_whole() && !self.withheld.is_empty() {
            let size = self.log.auditor().size();
            let reader = pages.reader(size).await.map_err(source_error)?;
            if let Some(reader) = reader {
                let (auditor, findings) = self.log.parts();
                self.withheld.judge(&reader, auditor.state(), findings);
            }
        }
        match note {
            Some(note) => self.log.newest(&note, None),
            None if self.log.verifier().is_some() => {
                let reason = "the ledger shows no checkpoint";
                self.log.findings.bad("missing_checkpoint", 0, reason);
            }
            None => {}
        }
        Ok(())
    }

    /// Audits one page; what its entries call for in side tables comes back, where there are some.
    async fn page(
        &mut self,
        pages: &mut dyn Pages,
        page: Vec<Checked>,
        has_tables: bool,
    ) -> Result<Vec<Expected>, VerifyError> {
        let sound = page.iter().map_while(|checked| checked.entry.as_ref().ok());
        let sound = (self.log.auditor().size()..).zip(sound);
        let log = &mut self.log;
        let documents = blobs::check(pages, sound, log, &mut self.withheld).await?;
        let mut expected = Vec::with_capacity(page.len());
        for checked in page {
            let seq = self.log.auditor().size();
            if let (Some(stored), Ok(entry)) = (checked.stored, &checked.entry)
                && stored != entry.leaf
                && checked.seq == seq
            {
                let reason = "the leaf that is stored beside the entry is not the entry's";
                self.log.stop("other_leaf", reason);
                break;
            }
            let entry = checked.entry.as_ref().ok();
            let rows = entry.filter(|_| has_tables).map(Expected::of);
            let seen = entry.and_then(|entry| entry.verified.event().header().seen);
            if !self.log.take(checked.seq, checked.entry, &documents) {
                break;
            }
            expected.extend(rows);
            if let Some(seen) = seen {
                self.seen.entry(seen.size).or_insert(seq);
            }
        }
        Ok(expected)
    }

    fn tell(&mut self, total: u64) {
        let done = self.log.auditor().size();
        if let Some(progress) = &mut self.progress {
            progress(done, total.max(done));
        }
    }
}
