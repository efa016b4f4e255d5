//! The audit: entry bytes in, the first bad seq and why out. Fails closed.
//!
//! ```text
//! entry     one entry alone, which may run on all cores: bytes, hashes, signature, shape
//! log       a whole log in order: chain, clock, uniqueness, `seen`, rights, lifecycle, quorum
//! excerpt   chosen entries in order: the same fold, with what lies between them unknown
//! idle      whether nothing ran on a host from one time to another
//! ```

mod entry;
mod excerpt;
mod idle;
mod log;

pub use entry::{CheckedEntry, Finding, Reason, attachment, check_entries, check_entry};
pub use excerpt::Excerpt;
pub use idle::{Gap, IdleAuditor, KeyLife, NothingRan, RunFound};
pub use log::{Auditor, WentBack, audit};
