//! The content behind the digests that entries name: there, whole, and what was signed.

use std::collections::HashMap;

use countersign_protocol::audit::CheckedEntry;
use countersign_protocol::blob::{Blob, BlobRef};
use countersign_protocol::event::Event;
use countersign_protocol::hash::Digest;

use super::pipeline::source_error;
use super::report::{BlobCounts, Findings, VerifyError};
use super::source::{BlobFound, Pages};

/// Content that is asked for at once, as the entries state it: bounds the memory of one answer.
const ASK_BYTES: u64 = 16 * 1024 * 1024;

/// Digests that are asked for at once: the length of one SQL array or URL.
const ASK_DIGESTS: usize = 512;

/// Less than this is hashed where we are: handing it to a thread would cost as much.
const INLINE_BYTES: u64 = 512 * 1024;

/// Documents that the audit itself reads, by digest.
pub(super) type Documents = HashMap<Digest, Blob>;

/// What one blob came to.
enum Verdict {
    Ok,
    Erased,
    Withheld,
    Mismatch,
}

/// A blob that an entry names.
#[derive(Debug, Clone, Copy)]
struct Named {
    seq: u64,
    blob: BlobRef,
    document: bool,
}

/// `seq` is the entry's place; what it says of itself is not checked yet.
fn named((seq, entry): (u64, &CheckedEntry)) -> impl Iterator<Item = Named> {
    let event = entry.verified.event();
    let documents = if let Event::ChangeRequested(request) = event {
        [Some(request.body), request.document]
    } else if let Event::CommandRequested(request) = event {
        [Some(request.act.targets.list), Some(request.act.spec)]
    } else {
        [None, None]
    };
    event.blobs().into_iter().map(move |blob| Named {
        seq,
        blob,
        document: documents.contains(&Some(blob)),
    })
}

/// Checks all blobs that the entries at these places name, and keeps the documents among them.
pub(super) async fn check<'a>(
    pages: &mut dyn Pages,
    entries: impl Iterator<Item = (u64, &'a CheckedEntry)>,
    counts: &mut BlobCounts,
    findings: &mut Findings,
) -> Result<Documents, VerifyError> {
    let mut documents = Documents::new();
    let mut batch: Vec<Named> = Vec::new();
    let mut bytes = 0;
    for named in entries.flat_map(named) {
        let len = named.blob.len;
        if !batch.is_empty() && (bytes + len > ASK_BYTES || batch.len() >= ASK_DIGESTS) {
            let full = std::mem::take(&mut batch);
            check_batch(pages, full, bytes, counts, findings, &mut documents).await?;
            bytes = 0;
        }
        bytes += len;
        batch.push(named);
    }
    if !batch.is_empty() {
        check_batch(pages, batch, bytes, counts, findings, &mut documents).await?;
    }
    Ok(documents)
}

async fn check_batch(
    pages: &mut dyn Pages,
    batch: Vec<Named>,
    bytes: u64,
    counts: &mut BlobCounts,
    findings: &mut Findings,
    documents: &mut Documents,
) -> Result<(), VerifyError> {
    let mut digests: Vec<Digest> = batch.iter().map(|named| named.blob.digest).collect();
    digests.sort_unstable();
    digests.dedup();
    let found: HashMap<Digest, BlobFound> = pages
        .blobs(&digests)
        .await
        .map_err(source_error)?
        .into_iter()
        .collect();
    let judge = move || judge(batch, found);
    let judged = if bytes <= INLINE_BYTES {
        judge()
    } else {
        let judged = tokio::task::spawn_blocking(judge).await;
        judged.map_err(|_| VerifyError::Worker)?
    };
    for (named, verdict) in judged.verdicts {
        count(named, verdict, counts, findings);
    }
    documents.extend(judged.documents);
    Ok(())
}

struct Judged {
    verdicts: Vec<(Named, Option<Verdict>)>,
    documents: Documents,
}

/// Recomputes every digest. No verdict: the source holds nothing under that digest.
fn judge(batch: Vec<Named>, found: HashMap<Digest, BlobFound>) -> Judged {
    let judge = |named: Named| {
        let verdict = found.get(&named.blob.digest).map(|found| match found {
            BlobFound::Here(blob) if blob.verify(&named.blob).is_ok() => Verdict::Ok,
            BlobFound::Here(_) | BlobFound::Malformed => Verdict::Mismatch,
            BlobFound::Erased => Verdict::Erased,
            BlobFound::Withheld => Verdict::Withheld,
        });
        (named, verdict)
    };
    let verdicts: Vec<_> = batch.into_iter().map(judge).collect();
    let mut documents = Documents::new();
    for (named, verdict) in &verdicts {
        let digest = named.blob.digest;
        if let (true, Some(Verdict::Ok), Some(BlobFound::Here(blob))) =
            (named.document, verdict, found.get(&digest))
        {
            documents.insert(digest, blob.clone());
        }
    }
    Judged {
        verdicts,
        documents,
    }
}

fn count(named: Named, verdict: Option<Verdict>, counts: &mut BlobCounts, findings: &mut Findings) {
    let digest = named.blob.digest;
    let mut bad = |what: &str| findings.bad(named.seq, format!("the blob {digest} {what}"));
    match verdict {
        Some(Verdict::Ok) => counts.ok += 1,
        Some(Verdict::Withheld) => counts.withheld += 1,
        Some(Verdict::Erased) => {
            counts.erased += 1;
            bad("that the entry names was redacted without an event that says so");
        }
        Some(Verdict::Mismatch) => {
            counts.mismatch += 1;
            bad("holds other bytes than the entry's signer named");
        }
        None => {
            counts.missing += 1;
            bad("that the entry names is missing; only a redaction event may remove one");
        }
    }
}
