//! The log page by page: each entry linked to the one before it, the last to a believed checkpoint.

use countersign_protocol::api::{EntryItem, LedgerInfo, Page, ProofBody};
use countersign_protocol::checkpoint::Checkpoint;
use countersign_protocol::hash::Hash;
use countersign_protocol::{audit, proof};

use super::connect::Client;
use super::read::{LoggedEntry, Purpose};
use crate::failure::Failure;
use crate::streams::{Link, StreamError};

/// Entries that are asked for at once: a few hundred kilobytes.
const PAGE: u64 = 500;

/// A stretch of the log that is read from its first entry to its end.
pub(super) struct Stretch<'a> {
    client: &'a Client,
    purpose: Option<Purpose>,
    next: u64,
    end: u64,
    prev: Option<Hash>,
}

impl Stretch<'_> {
    /// The place of the next entry: how far it is read.
    pub(super) const fn at(&self) -> u64 {
        self.next
    }

    /// The next page; nothing at the end. A page has at least one entry.
    ///
    /// # Errors
    /// Unreachable, not allowed, or evidence of tampering: an end that a checkpoint covers and that is
    /// not shown is cut off.
    pub(super) async fn page(&mut self) -> Result<Option<Vec<LoggedEntry>>, Failure> {
        if self.next >= self.end {
            return Ok(None);
        }
        let limit = PAGE.min(self.end - self.next);
        let links = self
            .client
            .entries_for(self.purpose, self.next, limit, self.prev)
            .await?;
        let Some(last) = links.last() else {
            let (end, next) = (self.end, self.next);
            let text = format!("the checkpoint is of {end} entries, and the server shows {next}");
            return Err(Failure::tampering("cut_off", text)
                .hint("nothing came of it; audit the ledger (countersign verify)"));
        };
        self.next = last.entry.seq + 1;
        self.prev = Some(last.entry.leaf);
        Ok(Some(links))
    }
}

impl Client {
    /// The newest checkpoint that the server shows, believed.
    pub(super) async fn newest(&self) -> Result<Checkpoint, Failure> {
        let info: LedgerInfo = self.get("/v1/ledger", &[]).await?;
        Ok(self.believe(&info.checkpoint).await?.0)
    }

    /// The log from `from` to before `end`, which a believed checkpoint covers.
    pub(super) const fn stretch(
        &self,
        purpose: Option<Purpose>,
        from: u64,
        end: u64,
    ) -> Stretch<'_> {
        Stretch {
            client: self,
            purpose,
            next: from,
            end,
            prev: None,
        }
    }

    /// A page of the log from `from` on, linked entry by entry to a believed checkpoint.
    ///
    /// `prev` is the leaf of the entry before, when the caller has it. Empty past the end.
    ///
    /// # Errors
    /// Unreachable, not allowed, or evidence of tampering.
    pub async fn entries(
        &self,
        from: u64,
        limit: u64,
        prev: Option<Hash>,
    ) -> Result<Vec<LoggedEntry>, Failure> {
        self.entries_for(None, from, limit, prev).await
    }

    /// [`Client::entries`], with the word for what they are read for.
    async fn entries_for(
        &self,
        purpose: Option<Purpose>,
        from: u64,
        limit: u64,
        prev: Option<Hash>,
    ) -> Result<Vec<LoggedEntry>, Failure> {
        let mut query = vec![("from", from.to_string()), ("limit", limit.to_string())];
        query.extend(purpose.map(Purpose::query));
        let page: Page<EntryItem> = self.get("/v1/entries", &query).await?;
        check_length(&page.items, limit)?;
        let links = check_page(page.items, from, prev)?;
        let Some(last) = links.last() else {
            return Ok(links);
        };
        // Each entry holds the hash of the one before, so the last one's proof covers the page.
        let query = [("seq", last.entry.seq.to_string())];
        let body: ProofBody = self.get("/v1/proofs/inclusion", &query).await?;
        let (checkpoint, _standing) = self.believe(&body.checkpoint).await?;
        let seq = last.entry.seq;
        let (size, root) = (checkpoint.size(), checkpoint.root());
        proof::verify_inclusion(&last.entry.leaf, seq, size, &body.proof, &root)
            .map_err(|error| StreamError::NotIncluded { seq, error })?;
        Ok(links)
    }
}

/// What goes beyond the limit would go beyond the point that was asked for, and into an answer as of then.
///
/// # Errors
/// A page has more items than were asked for.
pub(super) fn check_length<T>(items: &[T], limit: u64) -> Result<(), Failure> {
    let count = items.len();
    if count as u64 <= limit {
        return Ok(());
    }
    let text = format!("the server was asked for {limit} items and gave {count}");
    Err(Failure::unreachable("malformed", text)
        .hint("nothing of them was taken; is this a countersign server of the same version?"))
}

fn check_page(
    items: Vec<EntryItem>,
    from: u64,
    mut prev: Option<Hash>,
) -> Result<Vec<Link>, StreamError> {
    let mut links = Vec::with_capacity(items.len());
    for (item, expected) in items.into_iter().zip(from..) {
        let (seq, bytes) = (item.seq, item.entry.0);
        if seq != expected {
            return Err(StreamError::Order(seq));
        }
        let entry =
            audit::check_entry(&bytes).map_err(|reason| StreamError::Entry { seq, reason })?;
        if entry.seq != seq {
            let found = entry.seq;
            return Err(StreamError::Place {
                claimed: seq,
                found,
            });
        }
        if prev.is_some_and(|prev| prev != entry.prev) {
            let reason = audit::Reason::Link;
            return Err(StreamError::Entry { seq, reason });
        }
        prev = Some(entry.leaf);
        links.push(Link { bytes, entry });
    }
    Ok(links)
}
