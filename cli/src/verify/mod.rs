//! `verify`: recomputes a whole ledger from the bytes of its entries, and says where it first fails.
//!
//! ```text
//! verify(Options) → Report
//!   source     where entries, blobs and notes come from: a database, or pages over HTTP
//!   database   one read-only snapshot of Postgres, and its SQL
//!   pipeline   entries read ahead and checked one by one on all cores
//!   blobs      the content behind the digests that entries name
//!   tables     side tables, compared row by row while the entries pass
//!   closing    checkpoints, head, subtrees, open streams, heap: compared with the audited tree
//!   run        the order of all that
//!   report     what came out
//! ```
//!
//! Nothing here writes, and nothing is believed: every byte goes through the protocol's audit. What
//! the source leaves out can be seen only by what somebody else remembers, so a caller hands in the
//! ledger it pinned and the newest checkpoint it knows.

mod blobs;
mod closing;
mod database;
mod pipeline;
mod report;
mod run;
mod source;
mod tables;

pub use report::{BlobCounts, FirstBad, Report, Suspect, VerifyError};
pub use run::{Options, Progress, verify};
pub use source::{BlobFound, EntryRow, Fetch, Pages, Source, SourceError};
