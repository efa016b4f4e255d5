//! A stream of entries as a server sends it, checked until nothing in it is the server's word.
//!
//! Each entry's own bytes and signature, its place in a believed checkpoint, the order, the stream
//! it belongs to, each blob under a digest that a statement names. That *all* entries of a stream
//! are there no proof can show: a server may hold back the newest, never change or invent one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use countersign_protocol::api::{BlobBody, LiveEntry, StreamPart};
use countersign_protocol::audit::{self, CheckedEntry, Reason};
use countersign_protocol::blob::{Blob, BlobRef};
use countersign_protocol::checkpoint::Checkpoint;
use countersign_protocol::fold::Stream;
use countersign_protocol::hash::{Digest, LedgerId};
use countersign_protocol::proof::{self, ProofError};

use crate::failure::Failure;

/// Why a stream is not believed. Each is the server's doing: what it sent contradicts itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// An entry by itself.
    #[error("entry {seq} does not hold: {reason}")]
    Entry {
        /// Where the server says it stands.
        seq: u64,
        /// What is wrong.
        reason: Reason,
    },
    /// An entry says it stands elsewhere.
    #[error("the server gave entry {found} as entry {claimed}")]
    Place {
        /// Where the server says it stands.
        claimed: u64,
        /// Where the entry says so.
        found: u64,
    },
    /// An entry is not in the checkpoint.
    #[error("entry {seq} is not in the signed checkpoint: {error}")]
    NotIncluded {
        /// Which.
        seq: u64,
        /// Why not.
        error: ProofError,
    },
    /// Not ascending.
    #[error("entry {0} is out of order")]
    Order(u64),
    /// Of something else.
    #[error("entry {0} belongs to something else than what was asked for")]
    Foreign(u64),
    /// The stream does not begin where its story begins.
    #[error("the server left out the first entry of what was asked for")]
    Beginning,
    /// A blob that no statement names: its content was changed.
    #[error("the server gave content that no signed statement names: it was changed or swapped")]
    StrayBlob,
    /// A blob that is neither there nor erased.
    #[error("the server has lost content that entry {seq} names, without a redaction")]
    MissingBlob {
        /// The entry.
        seq: u64,
    },
}

impl From<StreamError> for Failure {
    fn from(error: StreamError) -> Self {
        let code = match &error {
            StreamError::Entry { .. } => "bad_entry",
            StreamError::Place { .. } | StreamError::Order(_) => "wrong_place",
            StreamError::NotIncluded { .. } => "not_included",
            StreamError::Foreign(_) => "foreign_entry",
            StreamError::Beginning => "missing_entry",
            StreamError::StrayBlob => "wrong_content",
            StreamError::MissingBlob { .. } => "missing_content",
        };
        Self::tampering(code, error.to_string())
            .hint("nothing was signed; do not trust this server, and audit the ledger (verify)")
    }
}

/// An entry that holds by itself, with the bytes that it was read from.
#[derive(Debug, Clone)]
pub struct Link {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// What they say.
    pub entry: CheckedEntry,
}

/// Blobs that statements name: here, erased, or not to be read.
#[derive(Debug, Clone, Default)]
pub struct Blobs {
    held: BTreeMap<Digest, Blob>,
    redacted: BTreeSet<Digest>,
    withheld: BTreeSet<Digest>,
}

/// Content behind a digest, as far as it can be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held<T> {
    /// Here it is; it is what was signed.
    Here(T),
    /// Erased, says the server.
    Redacted,
    /// The server says that the caller may not read it.
    Withheld,
}

impl<T> Held<T> {
    /// The content, if it is here.
    pub const fn here(&self) -> Option<&T> {
        match self {
            Self::Here(value) => Some(value),
            Self::Redacted | Self::Withheld => None,
        }
    }

    /// Changes what is here.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Held<U> {
        match self {
            Self::Here(value) => Held::Here(change(value)),
            Self::Redacted => Held::Redacted,
            Self::Withheld => Held::Withheld,
        }
    }
}

impl Blobs {
    /// Takes in blobs of a server, each under the digest that its own bytes have.
    ///
    /// # Errors
    /// [`StreamError::StrayBlob`] for one that none of `named` is.
    pub fn take(
        &mut self,
        bodies: Vec<BlobBody>,
        named: &BTreeSet<Digest>,
    ) -> Result<(), StreamError> {
        for body in bodies {
            let blob = body.into_blob().ok_or(StreamError::StrayBlob)?;
            let digest = blob.reference().digest;
            if !named.contains(&digest) {
                return Err(StreamError::StrayBlob);
            }
            self.hold(digest, blob);
        }
        Ok(())
    }

    /// Takes in a blob that was compared with what a statement names.
    pub(crate) fn hold(&mut self, digest: Digest, blob: Blob) {
        self.held.insert(digest, blob);
    }

    /// Notes that a server says this one was erased.
    pub fn redact(&mut self, digest: Digest) {
        self.redacted.insert(digest);
    }

    /// Notes that a server says the caller may not read this one.
    pub fn withhold(&mut self, digest: Digest) {
        self.withheld.insert(digest);
    }

    /// Notes what a server gives for a blob: content that was compared with what a statement names, or
    /// why there is none.
    pub(crate) fn settle(&mut self, digest: Digest, found: Held<Blob>) {
        match found {
            Held::Here(blob) => self.hold(digest, blob),
            Held::Redacted => self.redact(digest),
            Held::Withheld => self.withhold(digest),
        }
    }

    /// What a server says was erased.
    pub fn said_redacted(&self) -> impl Iterator<Item = &Digest> {
        self.redacted.iter()
    }

    /// Takes over what another set holds.
    pub fn extend(&mut self, other: Self) {
        self.held.extend(other.held);
        self.redacted.extend(other.redacted);
        self.withheld.extend(other.withheld);
    }

    /// What is known of these alone.
    #[must_use]
    pub fn only(&self, named: &[BlobRef]) -> Self {
        let mut few = Self::default();
        for named in named {
            if let Some(blob) = self.held.get(&named.digest) {
                few.hold(named.digest, blob.clone());
            }
            if self.redacted.contains(&named.digest) {
                few.redact(named.digest);
            }
            if self.withheld.contains(&named.digest) {
                few.withhold(named.digest);
            }
        }
        few
    }

    /// The blob that a statement names, with its length checked as well.
    #[must_use]
    pub fn blob(&self, named: &BlobRef) -> Option<&Blob> {
        let blob = self.held.get(&named.digest)?;
        blob.verify(named).is_ok().then_some(blob)
    }

    /// Its content, or why there is none.
    #[must_use]
    pub fn content(&self, named: &BlobRef) -> Held<Vec<u8>> {
        self.shared(named).map(Arc::unwrap_or_clone)
    }

    /// [`Blobs::content`] without a copy: output is long.
    #[must_use]
    pub fn shared(&self, named: &BlobRef) -> Held<Arc<Vec<u8>>> {
        match self.blob(named) {
            Some(blob) => Held::Here(blob.shared()),
            None if self.redacted.contains(&named.digest) => Held::Redacted,
            None => Held::Withheld,
        }
    }

    /// Whether nothing is known of a blob that a statement names.
    #[must_use]
    pub fn lacks(&self, named: &BlobRef) -> bool {
        self.blob(named).is_none()
            && !self.redacted.contains(&named.digest)
            && !self.withheld.contains(&named.digest)
    }
}

/// A stream whose entries are all in a believed checkpoint.
#[derive(Debug, Clone)]
pub struct ProvenStream {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// Ascending.
    pub entries: Vec<Link>,
    /// What the entries name.
    pub blobs: Blobs,
}

impl ProvenStream {
    /// Checks a stream against a checkpoint that is believed already.
    ///
    /// # Errors
    /// See [`StreamError`].
    pub fn verify(
        part: StreamPart,
        checkpoint: Checkpoint,
        asked: Stream,
        ledger: LedgerId,
    ) -> Result<Self, StreamError> {
        let mut entries: Vec<Link> = Vec::with_capacity(part.entries.len());
        let mut named = BTreeSet::new();
        for item in part.entries {
            let link = check(item.seq, item.entry.0, asked)?;
            if entries
                .last()
                .is_some_and(|last| last.entry.seq >= item.seq)
            {
                return Err(StreamError::Order(item.seq));
            }
            let (leaf, root) = (&link.entry.leaf, &checkpoint.root());
            let size = checkpoint.size();
            proof::verify_inclusion(leaf, item.seq, size, &item.inclusion, root).map_err(
                |error| StreamError::NotIncluded {
                    seq: item.seq,
                    error,
                },
            )?;
            named.extend(digests(&link));
            entries.push(link);
        }
        check_beginning(entries.first(), asked, ledger)?;
        let mut blobs = Blobs::default();
        blobs.take(part.blobs, &named)?;
        for digest in part.redacted.iter().filter_map(|text| text.parse().ok()) {
            blobs.redact(digest);
        }
        Ok(Self {
            checkpoint,
            entries,
            blobs,
        })
    }

    /// Whether it holds the entry at this place.
    #[must_use]
    pub fn holds(&self, seq: u64) -> bool {
        self.entries.iter().any(|link| link.entry.seq == seq)
    }
}

/// Checks one entry that comes live: all that needs no checkpoint.
///
/// # Errors
/// See [`StreamError`].
pub fn check_live(item: LiveEntry, asked: Stream) -> Result<(Link, Blobs), StreamError> {
    let link = check(item.seq, item.entry.0, asked)?;
    let mut blobs = Blobs::default();
    blobs.take(item.blobs, &digests(&link).collect())?;
    Ok((link, blobs))
}

fn digests(link: &Link) -> impl Iterator<Item = Digest> + use<> {
    let named = link.entry.verified.event().blobs();
    named.into_iter().map(|named| named.digest)
}

fn check(seq: u64, bytes: Vec<u8>, asked: Stream) -> Result<Link, StreamError> {
    let entry = audit::check_entry(&bytes).map_err(|reason| StreamError::Entry { seq, reason })?;
    if entry.seq != seq {
        return Err(StreamError::Place {
            claimed: seq,
            found: entry.seq,
        });
    }
    if Stream::of(entry.verified.event(), entry.verified.id()) != Some(asked) {
        return Err(StreamError::Foreign(seq));
    }
    Ok(Link { bytes, entry })
}

/// Rights begin with genesis, a command with its request: the id that was asked for is its hash.
fn check_beginning(
    first: Option<&Link>,
    asked: Stream,
    ledger: LedgerId,
) -> Result<(), StreamError> {
    let first = &first.ok_or(StreamError::Beginning)?.entry;
    let holds = match asked {
        Stream::Rights => first.seq == 0 && first.leaf.as_bytes() == ledger.as_bytes(),
        Stream::Command(id) => first.verified.id() == id,
    };
    if holds {
        Ok(())
    } else {
        Err(StreamError::Beginning)
    }
}
