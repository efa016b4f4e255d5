//! The content behind the digests that entries name, asked for in bounded batches.

use std::collections::HashMap;

use countersign_protocol::audit::CheckedEntry;
use countersign_protocol::hash::Digest;
use countersign_verifier::{Documents, Held, Log, Named, Settled, named, settle};

use super::error::VerifyError;
use super::pipeline::source_error;
use super::source::Pages;
use super::withheld::Withheld;

/// Content that is asked for at once, as the entries state it: bounds the memory of one answer.
const ASK_BYTES: u64 = 16 * 1024 * 1024;

/// Digests that are asked for at once: the length of one SQL array or URL.
const ASK_DIGESTS: usize = 512;

/// Less than this is hashed where we are: handing it to a thread would cost as much.
const INLINE_BYTES: u64 = 512 * 1024;

/// Checks all blobs that the entries at these places name, and keeps the documents among them.
pub(super) async fn check<'a>(
    pages: &mut dyn Pages,
    entries: impl Iterator<Item = (u64, &'a CheckedEntry)>,
    log: &mut Log,
    withheld: &mut Withheld,
) -> Result<Documents, VerifyError> {
    let mut documents = Documents::new();
    let mut batch: Vec<Named> = Vec::new();
    let mut bytes = 0;
    for named in entries.flat_map(|(seq, entry)| named(seq, entry)) {
        let len = named.blob.len;
        if !batch.is_empty() && (bytes + len > ASK_BYTES || batch.len() >= ASK_DIGESTS) {
            let full = std::mem::take(&mut batch);
            let settled = check_batch(pages, full, bytes).await?;
            withheld.take(&settled);
            documents.extend(count(settled, log));
            bytes = 0;
        }
        bytes += len;
        batch.push(named);
    }
    if !batch.is_empty() {
        let settled = check_batch(pages, batch, bytes).await?;
        withheld.take(&settled);
        documents.extend(count(settled, log));
    }
    Ok(documents)
}

async fn check_batch(
    pages: &mut dyn Pages,
    batch: Vec<Named>,
    bytes: u64,
) -> Result<Settled, VerifyError> {
    let mut digests: Vec<Digest> = batch.iter().map(|named| named.blob.digest).collect();
    digests.sort_unstable();
    digests.dedup();
    let found: HashMap<Digest, Held> = pages
        .blobs(&digests)
        .await
        .map_err(source_error)?
        .into_iter()
        .collect();
    if bytes <= INLINE_BYTES {
        return Ok(settle(batch, &found));
    }
    let settled = tokio::task::spawn_blocking(move || settle(batch, &found)).await;
    settled.map_err(|_| VerifyError::Worker)
}

fn count(settled: Settled, log: &mut Log) -> Documents {
    settled.count(&mut log.blobs, &mut log.findings, &mut log.erasures)
}
