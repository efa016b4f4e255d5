//! A bundle: everything on rights and some commands, or the whole log, written so that it proves
//! itself. What would not verify is not exported.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use countersign_protocol::api::ProofBody;
use countersign_protocol::audit::CheckedEntry;
use countersign_protocol::blob::Blob;
use countersign_protocol::checkpoint::Checkpoint;
use countersign_protocol::event::Event;
use countersign_protocol::fold::Stream;
use countersign_protocol::hash::{CommandId, Digest};
use countersign_protocol::name::{AgentName, Time};
use countersign_protocol::proof;
use countersign_protocol::target::TargetList;
use countersign_protocol::tlog_proof::TlogProof;
use countersign_verifier::Report;
use countersign_verifier::bundle::{
    Absence, Manifest, PAGE_BLOB_BYTES, PAGE_ENTRIES, Page, Selection, WriteError, Writer,
};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::connect::Client;
use super::read::{LoggedEntry, Purpose};
use crate::failure::Failure;
use crate::streams::{Held, ProvenStream, StreamError};

/// Blobs or proofs that are on their way at once: a server answers each from an index.
const AT_ONCE: usize = 8;

/// What a verifier calls a text that is erased without an entry that says so.
const ERASED_UNSAID: &str = "erased_unsaid";

/// What to export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// The whole log.
    Whole,
    /// These commands.
    Commands(BTreeSet<CommandId>),
}

/// Which requests of the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Search {
    /// Entered at that time or later.
    pub from: Option<Time>,
    /// Entered before that time.
    pub to: Option<Time>,
    /// Naming this host among others.
    pub host: Option<AgentName>,
}

/// Hears how much of how much is done.
pub type Progress<'a> = &'a mut (dyn FnMut(u64, u64) + Send);

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Self {
        let hint = match &error {
            WriteError::Io(_) => "nothing was kept; look at the disk",
            WriteError::Manifest(_) | WriteError::Entry => "nothing was kept",
            WriteError::TooLarge { .. } => "nothing was kept; name the commands to export",
        };
        Self::failed("export", error.to_string()).hint(hint)
    }
}

/// What a page comes to while it is filled.
struct Pager<W> {
    writer: Writer<W>,
    page: Option<Page>,
    bytes: usize,
}

impl<W: Write> Pager<W> {
    fn put(&mut self, entry: Ready) -> Result<(), WriteError> {
        let bytes: usize = entry.blobs.values().map(|blob| blob.content().len()).sum();
        let is_full = self.page.as_ref().is_some_and(|page| {
            page.entries.len() >= PAGE_ENTRIES || self.bytes + bytes > PAGE_BLOB_BYTES
        });
        if is_full {
            self.flush()?;
        }
        let page = self.page.get_or_insert_with(|| Page {
            first: entry.seq,
            entries: Vec::new(),
            proofs: Vec::new(),
            absent: BTreeMap::new(),
            blobs: BTreeMap::new(),
        });
        page.entries.push(entry.bytes);
        page.proofs.extend(entry.proof);
        page.absent.extend(entry.absent);
        page.blobs.extend(entry.blobs);
        self.bytes += bytes;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), WriteError> {
        self.bytes = 0;
        self.page
            .take()
            .map_or(Ok(()), |page| self.writer.page(page))
    }
}

/// An entry with all that belongs to it.
struct Ready {
    seq: u64,
    bytes: Vec<u8>,
    proof: Option<TlogProof>,
    absent: BTreeMap<Digest, Absence>,
    blobs: BTreeMap<Digest, Blob>,
}

impl Client {
    /// Writes a bundle into `sink`, and says what a verifier will say of it.
    ///
    /// Content that the caller may not read is marked as withheld; `without_output` leaves out
    /// what commands wrote as well.
    ///
    /// # Errors
    /// Unreachable, not allowed, the sink fails, or evidence of tampering: then there is no bundle.
    pub async fn export<W: Write + Send>(
        &self,
        wish: Wish,
        without_output: bool,
        sink: W,
        progress: Progress<'_>,
    ) -> Result<(W, Report), Failure> {
        let (sink, report) = match wish {
            Wish::Whole => self.export_whole(without_output, sink, progress).await?,
            Wish::Commands(ids) => {
                self.export_commands(ids, without_output, sink, progress)
                    .await?
            }
        };
        match &report.first_bad {
            None => Ok((sink, report)),
            Some(bad) if bad.name == ERASED_UNSAID && self.erased_after(&report).await? => {
                Err(Failure::failed(
                    "erased_meanwhile",
                    "texts were erased while the bundle was made, by entries behind its checkpoint; no bundle was made",
                )
                .hint("export again"))
            }
            Some(bad) => Err(Failure::tampering(
                bad.name,
                format!("entry {} does not hold: {}", bad.seq, bad.reason),
            )
            .hint("no bundle was made; audit the ledger (countersign verify)")),
        }
    }

    /// Whether entries behind the bundle's checkpoint erase something: then what is missing in it may
    /// be theirs.
    async fn erased_after(&self, report: &Report) -> Result<bool, Failure> {
        let rights = self.rights().await?;
        let mut redacted = rights.state.rights().all_redacted();
        Ok(redacted.any(|(_, seq)| seq >= report.size))
    }

    fn manifest(&self, selection: Selection) -> Manifest {
        Manifest {
            ledger: self.ledger(),
            origin: self.trust.verifier().origin().clone(),
            selection,
        }
    }

    async fn export_whole<W: Write + Send>(
        &self,
        without_output: bool,
        sink: W,
        progress: Progress<'_>,
    ) -> Result<(W, Report), Failure> {
        let vouched = self.vouched().await?;
        // What was erased since witnesses vouched is missing in a bundle that ends there.
        let rights = self.rights().await?;
        let mut redacted = rights.state.rights().all_redacted();
        let checkpoint = if redacted.any(|(_, seq)| seq >= vouched.size()) {
            self.newest().await?
        } else {
            vouched
        };
        let size = checkpoint.size();
        let manifest = self.manifest(Selection::Whole);
        let mut pager = Pager {
            writer: Writer::new(sink, manifest, checkpoint.note().to_owned())?,
            page: None,
            bytes: 0,
        };
        let mut log = self.stretch(Some(Purpose::Export), 0, size);
        while let Some(links) = log.page().await? {
            let mut ready = stream::iter(links)
                .map(|link| self.ready(link, None, without_output))
                .buffered(AT_ONCE);
            while let Some(entry) = ready.try_next().await? {
                pager.put(entry)?;
            }
            progress(log.at(), size);
        }
        pager.flush()?;
        Ok(pager.writer.finish()?)
    }

    async fn export_commands<W: Write + Send>(
        &self,
        ids: BTreeSet<CommandId>,
        without_output: bool,
        sink: W,
        progress: Progress<'_>,
    ) -> Result<(W, Report), Failure> {
        let mut links: BTreeMap<u64, LoggedEntry> = BTreeMap::new();
        let mut newest: Option<Checkpoint> = None;
        let mut take = |stream: ProvenStream| {
            let entries = stream.entries.into_iter();
            links.extend(entries.map(|link| (link.entry.seq, link)));
            let size = |checkpoint: &Option<Checkpoint>| checkpoint.as_ref().map(Checkpoint::size);
            if size(&newest) < Some(stream.checkpoint.size()) {
                newest = Some(stream.checkpoint);
            }
        };
        for id in &ids {
            let path = format!("/v1/commands/{id}/entries");
            let asked = Stream::Command(*id);
            take(self.stream(&path, Some(Purpose::Export), asked).await?);
        }
        // Last, so that no right that a command rests on is newer than what is read of rights.
        take(self.rights_stream().await?);
        let Some(newest) = newest else {
            return Err(Failure::usage("there is nothing to export"));
        };
        let checkpoint = self.covering(&links, newest, &ids).await?;
        links.retain(|seq, _| *seq < checkpoint.size());
        let manifest = self.manifest(Selection::Commands(ids.into_iter().collect()));
        let mut pager = Pager {
            writer: Writer::new(sink, manifest, checkpoint.note().to_owned())?,
            page: None,
            bytes: 0,
        };
        let all = u64::try_from(links.len()).unwrap_or(u64::MAX);
        let mut ready = stream::iter(links.into_values())
            .map(|link| self.ready(link, Some(&checkpoint), without_output))
            .buffered(AT_ONCE);
        let mut done = 0;
        while let Some(entry) = ready.try_next().await? {
            pager.put(entry)?;
            done += 1;
            progress(done, all);
        }
        pager.flush()?;
        Ok(pager.writer.finish()?)
    }

    /// The newest checkpoint that the server shows to everybody: with the words of witnesses, where
    /// it has some.
    async fn vouched(&self) -> Result<Checkpoint, Failure> {
        let note = self.http.text("/checkpoint").await?;
        Ok(self.believe(&note).await?.0)
    }

    /// The checkpoint that witnesses vouch for, if it covers all entries of the commands; the newest
    /// otherwise.
    async fn covering(
        &self,
        links: &BTreeMap<u64, LoggedEntry>,
        newest: Checkpoint,
        ids: &BTreeSet<CommandId>,
    ) -> Result<Checkpoint, Failure> {
        let vouched = self.vouched().await?;
        let is_of_one = |link: &&LoggedEntry| {
            let verified = &link.entry.verified;
            let stream = Stream::of(verified.event(), verified.id());
            matches!(stream, Some(Stream::Command(id)) if ids.contains(&id))
        };
        let last = links.values().rfind(is_of_one).map(|link| link.entry.seq);
        // Nor one that does not cover what was erased, by which entry.
        let is_redaction =
            |link: &&LoggedEntry| matches!(link.entry.verified.event(), Event::BlobRedacted(_));
        let erased = links
            .values()
            .rfind(is_redaction)
            .map(|link| link.entry.seq);
        let covers = last.max(erased).is_none_or(|last| last < vouched.size());
        // A newer one than was read from would promise entries that are not here.
        if covers && vouched.size() <= newest.size() {
            Ok(vouched)
        } else {
            Ok(newest)
        }
    }

    /// Fetches what belongs to an entry: its proof where one is wanted, and what it names.
    async fn ready(
        &self,
        link: LoggedEntry,
        against: Option<&Checkpoint>,
        without_output: bool,
    ) -> Result<Ready, Failure> {
        let entry = &link.entry;
        let mut ready = Ready {
            seq: entry.seq,
            bytes: Vec::new(),
            proof: None,
            absent: BTreeMap::new(),
            blobs: BTreeMap::new(),
        };
        if let Some(checkpoint) = against {
            ready.proof = Some(self.prove_inclusion(entry, checkpoint).await?);
        }
        let event = entry.verified.event();
        let left_out = without_output && matches!(event, Event::ExecutionOutput(_));
        for named in event.blobs() {
            if left_out {
                ready.absent.insert(named.digest, Absence::Withheld);
                continue;
            }
            match self.blob(entry.seq, &named).await? {
                Held::Here(blob) => drop(ready.blobs.insert(named.digest, blob)),
                Held::Redacted => drop(ready.absent.insert(named.digest, Absence::Erased)),
                Held::Withheld => drop(ready.absent.insert(named.digest, Absence::Withheld)),
            }
        }
        ready.bytes = link.bytes;
        Ok(ready)
    }

    async fn prove_inclusion(
        &self,
        entry: &CheckedEntry,
        checkpoint: &Checkpoint,
    ) -> Result<TlogProof, Failure> {
        let (seq, size) = (entry.seq, checkpoint.size());
        let query = [("seq", seq.to_string()), ("size", size.to_string())];
        let body: ProofBody = self.get("/v1/proofs/inclusion", &query).await?;
        let root = checkpoint.root();
        proof::verify_inclusion(&entry.leaf, seq, size, &body.proof, &root)
            .map_err(|error| StreamError::NotIncluded { seq, error })?;
        Ok(TlogProof {
            index: seq,
            hashes: body.proof,
            note: checkpoint.note().to_owned(),
        })
    }

    /// Every request of the verified log that a search finds. Reads the whole log.
    ///
    /// # Errors
    /// Unreachable, not allowed, evidence of tampering, or a list of targets that may not be read.
    pub async fn search(
        &self,
        search: &Search,
        progress: Progress<'_>,
    ) -> Result<BTreeSet<CommandId>, Failure> {
        let size = self.newest().await?.size();
        let mut found = BTreeSet::new();
        let mut log = self.stretch(Some(Purpose::Export), 0, size);
        while let Some(links) = log.page().await? {
            for link in &links {
                if self.is_found(search, &link.entry).await? {
                    found.insert(link.entry.verified.id());
                }
            }
            progress(log.at(), size);
        }
        Ok(found)
    }

    async fn is_found(&self, search: &Search, entry: &CheckedEntry) -> Result<bool, Failure> {
        let Event::CommandRequested(request) = entry.verified.event() else {
            return Ok(false);
        };
        let early = search.from.is_some_and(|from| entry.time < from);
        let late = search.to.is_some_and(|to| entry.time >= to);
        if early || late {
            return Ok(false);
        }
        let Some(host) = &search.host else {
            return Ok(true);
        };
        let list = &request.act.targets.list;
        let Held::Here(blob) = self.blob(entry.seq, list).await? else {
            let text = format!(
                "entry {}: its hosts were erased or are not for you to read, so that nobody can say here whether it is looked for",
                entry.seq
            );
            return Err(Failure::refused("withheld", text).hint("name the commands by their ids"));
        };
        let targets = TargetList::parse(blob.content(), &request.act.targets);
        let targets = targets.map_err(|error| {
            Failure::tampering(
                "bad_targets",
                format!("entry {}: its targets: {error}", entry.seq),
            )
        })?;
        Ok(targets.line_of(host).is_some())
    }
}
