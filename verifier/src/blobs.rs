//! The content behind the digests that entries name: there, whole, and what was signed.

use std::collections::HashMap;

use countersign_protocol::audit::CheckedEntry;
use countersign_protocol::blob::{Blob, BlobRef};
use countersign_protocol::event::Event;
use countersign_protocol::fold::Stream;
use countersign_protocol::hash::Digest;

use crate::erasures::Erasures;
use crate::report::{BlobCounts, Findings};

/// What a source holds under a digest. Nothing is believed of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// Here it is. Unchecked.
    Here(Blob),
    /// The place is there, salt and content are erased.
    Erased,
    /// This reader may not see it; it is counted, and not a failure.
    Withheld,
    /// Bytes that cannot be any blob: no salt of 32 bytes, or more than a blob holds.
    Malformed,
}

/// Content that the checks read themselves, by digest: what is judged, and what runs wrote.
pub type Documents = HashMap<Digest, Blob>;

/// A blob that an entry names.
#[derive(Debug, Clone, Copy)]
pub struct Named {
    /// The entry's place, as its source gives it.
    pub seq: u64,
    /// The blob.
    pub blob: BlobRef,
    /// The stream of that entry.
    pub stream: Option<Stream>,
    /// Whether checking the entry needs its content.
    pub is_document: bool,
    /// Whether it is what a host wrote, which not everybody reads who reads the rest.
    pub is_output: bool,
}

/// The blobs that an entry names.
pub fn named(seq: u64, entry: &CheckedEntry) -> impl Iterator<Item = Named> + use<> {
    let event = entry.verified.event();
    let stream = Stream::of(event, entry.verified.id());
    let documents = if let Event::ChangeRequested(request) = event {
        [Some(request.body), request.document]
    } else if let Event::CommandRequested(request) = event {
        [Some(request.act.targets.list), Some(request.act.spec)]
    } else if let Event::AgentFacts(said) = event {
        [Some(said.facts), None]
    } else if let Event::ExecutionOutput(chunk) = event {
        [Some(chunk.data), None]
    } else {
        [None, None]
    };
    let is_output = matches!(event, Event::ExecutionOutput(_));
    event.blobs().into_iter().map(move |blob| Named {
        seq,
        blob,
        stream,
        is_document: documents.contains(&Some(blob)),
        is_output,
    })
}

/// What one blob came to.
enum Verdict {
    Ok,
    Erased,
    Withheld,
    Mismatch,
    Missing,
}

/// What some blobs came to.
pub struct Settled {
    verdicts: Vec<(Named, Verdict)>,
    /// The documents among them that are what was signed.
    pub documents: Documents,
}

/// Recomputes every digest. What `found` has nothing under is missing.
#[must_use]
pub fn settle(batch: Vec<Named>, found: &HashMap<Digest, Held>) -> Settled {
    let mut documents = Documents::new();
    let judge = |named: Named| {
        let verdict = match found.get(&named.blob.digest) {
            Some(Held::Here(blob)) if blob.verify(&named.blob).is_ok() => {
                if named.is_document {
                    documents.insert(named.blob.digest, blob.clone());
                }
                Verdict::Ok
            }
            Some(Held::Here(_) | Held::Malformed) => Verdict::Mismatch,
            Some(Held::Erased) => Verdict::Erased,
            Some(Held::Withheld) => Verdict::Withheld,
            None => Verdict::Missing,
        };
        (named, verdict)
    };
    let verdicts = batch.into_iter().map(judge).collect();
    Settled {
        verdicts,
        documents,
    }
}

impl Settled {
    /// Those that the source says its reader may not see.
    pub fn withheld(&self) -> impl Iterator<Item = &Named> {
        let verdicts = self.verdicts.iter();
        let withheld = verdicts.filter(|(_, verdict)| matches!(verdict, Verdict::Withheld));
        withheld.map(|(named, _)| named)
    }

    /// Counts what came out, and hands the documents on. What is erased waits for an entry that says so.
    pub fn count(
        self,
        counts: &mut BlobCounts,
        findings: &mut Findings,
        erasures: &mut Erasures,
    ) -> Documents {
        for (named, verdict) in self.verdicts {
            let digest = named.blob.digest;
            let mut bad = |name, what: &str| {
                findings.bad(name, named.seq, format!("the blob {digest} {what}"));
            };
            match verdict {
                Verdict::Ok => counts.ok += 1,
                Verdict::Withheld => counts.withheld += 1,
                Verdict::Erased => erasures.note(&named),
                Verdict::Mismatch => {
                    counts.mismatch += 1;
                    bad(
                        "other_content",
                        "holds other bytes than the entry's signer named",
                    );
                }
                Verdict::Missing => {
                    counts.missing += 1;
                    bad(
                        "missing_content",
                        "that the entry names is missing; only a redaction event may remove one",
                    );
                }
            }
        }
        self.documents
    }
}
