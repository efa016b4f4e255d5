//! `verify`: recomputes a whole ledger from the bytes of its entries, and says where it first fails.
//!
//! ```text
//! verify(Options) → Report
//!   source     where entries, blobs and notes come from: a database, or pages over HTTP
//!   database   one read-only snapshot of Postgres, and its SQL
//!   pipeline   entries read ahead and checked one by one on all cores
//!   blobs      the content behind the digests that entries name
//!   withheld   what a server says its reader may not read, against the rights of its own log
//!   tables     side tables, compared row by row while the entries pass
//!   closing    checkpoints, head, subtrees, open streams, heap: compared with the audited tree
//!   run        the order of all that
//!   error      why there is no verdict
//! ```
//!
//! Nothing here writes, and nothing is believed: every byte goes through the verifier's `Log`. What
//! the source leaves out can be seen only by what somebody else remembers, so a caller hands in the
//! ledger it pinned and the newest checkpoint it knows.

mod blobs;
mod closing;
mod database;
mod error;
mod pipeline;
mod run;
mod source;
mod tables;
mod withheld;

pub use countersign_verifier::{BlobCounts, FirstBad, Held, Report, Suspect};
pub use error::VerifyError;
pub use run::{Options, Progress, verify};
pub use source::{EntryRow, Fetch, Pages, Reader, Source, SourceError};
