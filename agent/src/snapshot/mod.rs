//! The policy snapshot: who may approve, by so many administrators whom this host pins, so that it
//! need not take the ledger's word.
//!
//! | file | what it owns |
//! |---|---|
//! | `weigh` | is it theirs? the document, its signatures, its time |
//! | `memory` | the newest one, and every key that one of them revoked: durable, never going back |
//! | `report` | what is kept and whether it holds, in words |
//! | `people` | who counts here: pinned, or listed in the snapshot, and never with a revoked key |
//!
//! Nothing here decides about a command; `admission` does.

mod memory;
mod people;
mod report;
mod weigh;

pub use memory::{FILE, MAX_REVOKED_KEPT, MemoryError, Snapshots};
pub(crate) use memory::{SETTING, Standing};
pub(crate) use people::People;
pub(crate) use report::Report;
pub use weigh::{MAX_STATEMENTS, NoSnapshot, SnapshotRule};
