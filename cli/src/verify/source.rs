//! Where a ledger's bytes come from. Nothing of what a source says is believed.

use std::future::Future;
use std::pin::Pin;

use countersign_protocol::fold::State;
use countersign_protocol::hash::{Digest, Hash};
use countersign_protocol::name::Principal;
use countersign_verifier::Held;

/// What a source of pages fails with; its text goes to the user.
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// An answer on its way.
pub type Fetch<'a, T> = Pin<Box<dyn Future<Output = Result<T, SourceError>> + Send + 'a>>;

/// An entry as a source holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryRow {
    /// The place that the source gives it.
    pub seq: u64,
    /// Its bytes.
    pub entry: Vec<u8>,
    /// The leaf that is stored beside it, where one is.
    pub leaf: Option<Hash>,
}

/// Who reads through a source, and the rights of now.
#[derive(Debug)]
pub struct Reader {
    /// Their name.
    pub who: Principal,
    /// The rights, proved, no older than what was read.
    pub state: State,
}

/// A ledger that is read page by page.
pub trait Pages: Send {
    /// The newest checkpoint's note; nothing when there is none.
    fn newest(&mut self) -> Fetch<'_, Option<String>>;

    /// At most `limit` entries from `from` on, in order; nothing past the end.
    fn entries(&mut self, from: u64, limit: u64) -> Fetch<'_, Vec<EntryRow>>;

    /// What is held under these digests, in any order. One that is not answered for is missing.
    fn blobs<'a>(&'a mut self, digests: &'a [Digest]) -> Fetch<'a, Vec<(Digest, Held)>>;

    /// Who reads, by rights that are no older than this size; nothing where nobody in particular does.
    fn reader(&mut self, size: u64) -> Fetch<'_, Option<Reader>> {
        let _anybody = size;
        Box::pin(async { Ok(None) })
    }
}

/// What is verified.
pub enum Source {
    /// A Postgres database, by its URL. Either role will do; everything is of one moment.
    Database(String),
    /// Pages, as the HTTP client reads them. Without checkpoints of old, head and side tables.
    Pages(Box<dyn Pages>),
}

/// The URL may hold a password.
impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Database(_) => "Database",
            Self::Pages(_) => "Pages",
        })
    }
}
