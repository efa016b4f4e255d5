//! The order of an examination: pages in the order of the log, then what follows from them.

use std::collections::HashMap;
use std::io::{self, Read};
use std::num::NonZero;
use std::thread;

use countersign_protocol::audit::{self, CheckedEntry, Reason};
use countersign_protocol::checkpoint::CheckpointError;
use countersign_protocol::fold::State;
use countersign_protocol::hash::{Digest, Hash, LedgerId};
use countersign_protocol::witness_policy::WitnessPolicy;

use crate::blobs::{self, Documents, Held, Named};
use crate::bundle::{
    Absence, BundleError, ContainerError, Manifest, Page, Reader, Selection, Tail,
};
use crate::excerpt::{Chosen, Given};
use crate::index::{self, Gathered};
use crate::log::Log;
use crate::report::{Findings, Report};

/// Hears how many entries are done.
pub type Progress<'a> = &'a mut dyn FnMut(u64);

/// What whoever verifies knows from elsewhere. A bundle by itself is only consistent in itself.
#[derive(Debug, Clone, Default)]
pub struct Expectations {
    /// The ledger that it must be.
    pub ledger: Option<LedgerId>,
    /// A checkpoint's note that a whole log must contain and continue, and that must be an excerpt's own.
    pub checkpoint: Option<String>,
    /// Size and root of a checkpoint that is remembered: compared where the bundle covers it.
    pub remembered: Option<(u64, Hash)>,
    /// Witnesses of whom enough must vouch for the bundle's checkpoint.
    pub witnesses: Option<WitnessPolicy>,
}

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// The file cannot be read.
    #[error("the bundle cannot be read, so nothing was verified: {0}")]
    Io(#[from] io::Error),
    /// The checkpoint that was given is damaged.
    #[error(
        "the checkpoint that was given is damaged ({0}); give the whole note as the ledger issued it"
    )]
    Note(CheckpointError),
    /// The checkpoint that was given says nothing of an excerpt that is proved against another.
    #[error(
        "the checkpoint that was given is of {given} entries and the excerpt is proved against one of {held}: they cannot be compared, so nothing shows that they are of one log. Nothing wrong was found in the excerpt itself; verify it without that checkpoint, or a bundle of the whole ledger with it"
    )]
    NotComparable {
        /// The entries of the one that was given.
        given: u64,
        /// The entries of the excerpt's.
        held: u64,
    },
}

/// Verifies a bundle. Finding something is a [`Report`], not an error.
///
/// # Errors
/// See [`Unreadable`]: there is no verdict then.
pub fn verify(
    source: impl Read,
    expectations: &Expectations,
    progress: Progress<'_>,
) -> Result<Report, Unreadable> {
    let mut reader = match Reader::open(source) {
        Ok(reader) => reader,
        Err(error) => {
            let mut nothing = Log::new(expectations.ledger);
            stop_at(error, |name, reason| nothing.stop(name, reason))?;
            return Ok(nothing.report());
        }
    };
    let (manifest, note) = (reader.manifest().clone(), reader.note().to_owned());
    let mut examination = Examination::new(manifest, note, expectations);
    let read = loop {
        match reader.page() {
            Ok(Some(page)) if examination.is_whole() => {
                examination.page(page);
                progress(examination.entries());
            }
            Ok(Some(_)) => break Ok(None),
            Ok(None) => break reader.finish().map(Some),
            Err(error) => break Err(error),
        }
    };
    let given = examination
        .memories(expectations)
        .map_err(Unreadable::Note)?;
    let report = match read {
        Ok(Some(tail)) => examination.finish(&tail),
        Ok(None) => examination.report(),
        Err(error) => {
            stop_at(error, |name, reason| examination.stop(name, reason))?;
            examination.report()
        }
    };
    match given {
        // What is wrong by itself is said first.
        Given::NotComparable { given, held } if report.ok => {
            Err(Unreadable::NotComparable { given, held })
        }
        Given::NotComparable { .. } | Given::Compared => Ok(report),
    }
}

/// What is wrong with a bundle's form is a finding; that it cannot be read is not.
fn stop_at(error: BundleError, stop: impl FnOnce(&'static str, String)) -> Result<(), Unreadable> {
    let name = error.name();
    match (name, error) {
        (None, BundleError::Container(ContainerError::Io(error))) => Err(error.into()),
        (name, error) => {
            stop(name.unwrap_or("unreadable"), error.to_string());
            Ok(())
        }
    }
}

/// A whole log or an excerpt: they differ in how an entry is known to be where it says.
#[derive(Debug)]
enum Body {
    Whole(Box<Log>),
    Excerpt(Box<Chosen>),
}

/// A bundle under examination, while it is read and while it is written.
pub(crate) struct Examination {
    manifest: Manifest,
    note: String,
    witnesses: Option<WitnessPolicy>,
    body: Body,
    gathered: Gathered,
}

impl Examination {
    pub(crate) fn new(manifest: Manifest, note: String, expectations: &Expectations) -> Self {
        let ledger = expectations.ledger;
        let body = match &manifest.selection {
            Selection::Whole => Body::Whole(Box::new(Log::new(ledger))),
            Selection::Commands(wanted) => {
                Body::Excerpt(Box::new(Chosen::new(ledger, note.clone(), wanted)))
            }
        };
        Self {
            manifest,
            note,
            witnesses: expectations.witnesses.clone(),
            body,
            gathered: Gathered::default(),
        }
    }

    fn is_whole(&self) -> bool {
        match &self.body {
            Body::Whole(log) => log.is_whole(),
            Body::Excerpt(chosen) => chosen.is_whole(),
        }
    }

    fn entries(&self) -> u64 {
        self.gathered.entries()
    }

    fn state(&self) -> &State {
        match &self.body {
            Body::Whole(log) => log.auditor().state(),
            Body::Excerpt(chosen) => chosen.state(),
        }
    }

    fn findings(&mut self) -> &mut Findings {
        match &mut self.body {
            Body::Whole(log) => &mut log.findings,
            Body::Excerpt(chosen) => &mut chosen.findings,
        }
    }

    fn count(&mut self, settled: blobs::Settled) -> Documents {
        match &mut self.body {
            Body::Whole(log) => settled.count(&mut log.blobs, &mut log.findings, &mut log.erasures),
            Body::Excerpt(chosen) => settled.count(
                &mut chosen.blobs,
                &mut chosen.findings,
                &mut chosen.erasures,
            ),
        }
    }

    fn stop(&mut self, name: &'static str, reason: String) {
        let next = self.gathered.next();
        match &mut self.body {
            Body::Whole(log) => log.stop(name, reason),
            Body::Excerpt(chosen) => chosen.stop(name, next, reason),
        }
    }

    /// Checks a page: its entries by themselves, what they name, and their places.
    pub(crate) fn page(&mut self, page: Page) {
        if !self.is_whole() {
            return;
        }
        let checked = check_all(&page.entries);
        let documents = match self.content(&page, &checked) {
            Ok(documents) => documents,
            Err((name, reason)) => return self.stop(name, reason),
        };
        if let Err((name, reason)) = check_first(&page, &checked) {
            return self.stop(name, reason);
        }
        for (number, entry) in (0..).zip(checked) {
            if let Ok(entry) = &entry {
                self.gathered.take(entry, &page.blobs);
            }
            let taken = match &mut self.body {
                Body::Whole(log) => log.take(page.first + number, entry, &documents),
                Body::Excerpt(chosen) => {
                    let proof = usize::try_from(number).ok();
                    let proof = proof.and_then(|number| page.proofs.get(number));
                    proof.is_some_and(|proof| chosen.take(entry, proof, &documents))
                }
            };
            if !taken {
                return;
            }
        }
    }

    /// Every blob that the page's entries name is here or said to be absent, and no other is.
    fn content(
        &mut self,
        page: &Page,
        checked: &[Result<CheckedEntry, Reason>],
    ) -> Result<Documents, (&'static str, String)> {
        let sound = checked.iter().map_while(|entry| entry.as_ref().ok());
        let all: Vec<Named> = sound
            .flat_map(|entry| blobs::named(entry.seq, entry))
            .collect();
        let named: std::collections::BTreeSet<Digest> =
            all.iter().map(|named| named.blob.digest).collect();
        let mut found: HashMap<Digest, Held> = HashMap::new();
        for (digest, blob) in &page.blobs {
            found.insert(*digest, Held::Here(blob.clone()));
        }
        for (digest, absence) in &page.absent {
            let held = match absence {
                Absence::Withheld => Held::Withheld,
                Absence::Erased => Held::Erased,
            };
            if found.insert(*digest, held).is_some() {
                let reason = format!("the blob {digest} is here and said to be absent");
                return Err(("here_and_absent", reason));
            }
        }
        let sound = checked.iter().all(Result::is_ok);
        if let Some(stray) = found.keys().filter(|digest| !named.contains(digest)).min()
            && sound
        {
            let reason = format!("no entry of its page names the blob {stray}");
            return Err(("stray_blob", reason));
        }
        Ok(self.count(blobs::settle(all, &found)))
    }

    fn memories(&mut self, expectations: &Expectations) -> Result<Given, CheckpointError> {
        let remembered = expectations.remembered;
        let given = expectations.checkpoint.as_deref();
        match &mut self.body {
            Body::Whole(log) => {
                // A bundle is of its day: that the log went on since is no cut.
                let held = log.auditor().size();
                let covered = remembered.filter(|(size, _)| *size <= held);
                log.memories(given, covered, None)?;
                Ok(Given::Compared)
            }
            Body::Excerpt(chosen) => chosen.memories(given, remembered),
        }
    }

    /// What follows from the pages.
    pub(crate) fn tail(&self) -> Tail {
        index::write(&self.manifest, &self.gathered, self.state(), self.size())
    }

    /// The checkpoint's size, as far as it is known.
    fn size(&self) -> u64 {
        match &self.body {
            Body::Whole(log) => log.auditor().size(),
            Body::Excerpt(chosen) => chosen.checkpoint().map_or(0, |note| note.size()),
        }
    }

    /// Compares what stands behind the pages with what follows from them, and judges.
    fn finish(mut self, tail: &Tail) -> Report {
        self.settle();
        if self.is_whole() {
            self.compare_tail(tail);
        }
        self.report()
    }

    /// Judges where what stands behind the pages was just written from them.
    pub(crate) fn close(mut self) -> Report {
        self.settle();
        self.report()
    }

    /// The checkpoint and the manifest.
    fn settle(&mut self) {
        let witnesses = self.witnesses.as_ref();
        match (&mut self.body, witnesses) {
            (Body::Whole(log), _) => log.newest(&self.note, witnesses),
            (Body::Excerpt(chosen), Some(witnesses)) => chosen.demand(witnesses),
            (Body::Excerpt(_), None) => {}
        }
        self.compare_manifest();
    }

    fn compare_tail(&mut self, tail: &Tail) {
        let expected = self.tail();
        let last = self.gathered.last();
        let findings = self.findings();
        for (name, same) in [
            (
                "allowed_signers",
                tail.allowed_signers == expected.allowed_signers,
            ),
            ("index.json", tail.index_json == expected.index_json),
            ("index.html", tail.index_html == expected.index_html),
        ] {
            if !same {
                let reason = format!("{name} says something else than the entries do");
                findings.bad("changed_index", last, reason);
            }
        }
    }

    /// The manifest's words are those of genesis.
    fn compare_manifest(&mut self) {
        let rights = self.state().rights();
        let genesis = rights.genesis();
        let same_ledger = rights.ledger() == Some(self.manifest.ledger);
        let same_origin = genesis.is_some_and(|genesis| genesis.origin == self.manifest.origin);
        if genesis.is_none() {
            return;
        }
        let findings = self.findings();
        if !same_ledger {
            let reason = "the manifest names another ledger than the first entry is";
            findings.bad("other_ledger", 0, reason);
        }
        if !same_origin {
            let reason = "the manifest names another origin than the first entry";
            findings.bad("foreign_origin", 0, reason);
        }
    }

    fn report(self) -> Report {
        match self.body {
            Body::Whole(log) => log.report(),
            Body::Excerpt(chosen) => chosen.report(),
        }
    }
}

/// The page's name is its first entry's number.
fn check_first(
    page: &Page,
    checked: &[Result<CheckedEntry, Reason>],
) -> Result<(), (&'static str, String)> {
    match checked.first() {
        Some(Ok(first)) if first.seq != page.first && page.proofs.is_empty() => Err((
            "wrong_place",
            format!("entry {} stands where {} should", first.seq, page.first),
        )),
        Some(Ok(first)) if first.seq != page.first => Err((
            "other_proof",
            format!(
                "a page is named {} and begins with entry {}",
                page.first, first.seq
            ),
        )),
        Some(Ok(_) | Err(_)) | None => Ok(()),
    }
}

/// Each entry by itself, on all cores.
fn check_all(entries: &[Vec<u8>]) -> Vec<Result<CheckedEntry, Reason>> {
    let check =
        |part: &[Vec<u8>]| -> Vec<_> { audit::check_entries(part.iter().map(Vec::as_slice)) };
    let cores = if cfg!(target_family = "wasm") {
        1
    } else {
        thread::available_parallelism().map_or(1, NonZero::get)
    };
    if cores == 1 || entries.len() < 2 * cores {
        return check(entries);
    }
    let size = entries.len().div_ceil(cores);
    thread::scope(|scope| {
        let parts = entries.chunks(size);
        let parts: Vec<_> = parts.map(|part| scope.spawn(move || check(part))).collect();
        // A thread that ended without an answer checked nothing: its part is checked here.
        let results = entries.chunks(size).zip(parts);
        let results =
            results.flat_map(|(part, thread)| thread.join().unwrap_or_else(|_| check(part)));
        results.collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever the number of cores, and also of none.
    #[test]
    fn entries_that_are_checked_at_once_are_answered_each_at_its_place() {
        for count in 0..40_u8 {
            let entries: Vec<Vec<u8>> = (0..count)
                .map(|number| {
                    [
                        b"countersign/entry/v1\n".as_slice(),
                        &vec![number; usize::from(number)],
                    ]
                    .concat()
                })
                .collect();
            let one_by_one = audit::check_entries(entries.iter().map(Vec::as_slice));
            let at_once = check_all(&entries);
            assert_eq!(format!("{at_once:?}"), format!("{one_by_one:?}"), "{count}");
        }
    }
}
