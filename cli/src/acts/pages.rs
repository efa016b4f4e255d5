//! The ledger as its server shows it, page by page: what `verify` reads without a database.

use countersign_protocol::api::{BlobBody, EntryItem, LedgerInfo, Page};
use countersign_protocol::hash::Digest;

use super::connect::Client;
use super::connect::GetError;
use super::log::check_length;
use crate::failure::Failure;
use crate::verify::{EntryRow, Fetch, Held, Pages, Reader};

/// A client's ledger, to be verified. Nothing that comes from it is believed here.
#[derive(Debug)]
pub struct Served(Client);

impl Served {
    /// Reads through this client.
    #[must_use]
    pub const fn new(client: Client) -> Self {
        Self(client)
    }
}

impl Pages for Served {
    fn newest(&mut self) -> Fetch<'_, Option<String>> {
        Box::pin(async move {
            let info: LedgerInfo = self.0.get("/v1/ledger", &[]).await.map_err(Failure::from)?;
            Ok(Some(info.checkpoint))
        })
    }

    fn entries(&mut self, from: u64, limit: u64) -> Fetch<'_, Vec<EntryRow>> {
        Box::pin(async move {
            let query = [("from", from.to_string()), ("limit", limit.to_string())];
            let page: Page<EntryItem> = self
                .0
                .get("/v1/entries", &query)
                .await
                .map_err(Failure::from)?;
            check_length(&page.items, limit)?;
            let row = |item: EntryItem| EntryRow {
                seq: item.seq,
                entry: item.entry.0,
                leaf: None,
            };
            Ok(page.items.into_iter().map(row).collect())
        })
    }

    fn blobs<'a>(&'a mut self, digests: &'a [Digest]) -> Fetch<'a, Vec<(Digest, Held)>> {
        Box::pin(async move {
            let mut found = Vec::new();
            for digest in digests {
                let answer = self.0.get(&format!("/v1/blobs/{digest}"), &[]).await;
                if let Some(blob) = of_answer(answer)? {
                    found.push((*digest, blob));
                }
            }
            Ok(found)
        })
    }

    fn reader(&mut self, size: u64) -> Fetch<'_, Option<Reader>> {
        Box::pin(async move {
            let view = self.0.rights_as_of(size).await?;
            let who = view.person(&self.0.key_id())?;
            let state = view.state;
            Ok(Some(Reader { who, state }))
        })
    }
}

/// What an answer says of a blob, which a server that has lost one may say as well: the caller holds
/// "withheld" against what the reader may read; nothing when the server has none.
fn of_answer(answer: Result<BlobBody, GetError>) -> Result<Option<Held>, Failure> {
    match answer {
        Ok(body) => Ok(Some(body.into_blob().map_or(Held::Malformed, Held::Here))),
        Err(error) => match error.status() {
            Some(410) => Ok(Some(Held::Erased)),
            Some(403) => Ok(Some(Held::Withheld)),
            Some(404) => Ok(None),
            Some(_) | None => Err(error.into()),
        },
    }
}
