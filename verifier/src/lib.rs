//! A bundle in, a verdict out: no network, no database, no clock, and no trust in whoever made it.
//!
//! ```text
//! verify(bytes, Expectations) → Report
//!   bundle/    the file: its container, what lies where in it, how it is read and written
//!   log        a whole log from its first entry on; also what a database or a server is checked by
//!   excerpt    chosen entries, each proved to be in a checkpoint
//!   blobs      the content behind the digests that entries name
//!   erasures   what is erased, until an entry says so
//!   outputs    what a run's end says of its output, against the chunks
//!   index/     the readable pages of a bundle, written from verified entries alone
//!   witnesses  who else vouches for the checkpoint
//!   report     what came out
//!   page       what a web page calls, as WebAssembly
//! ```
//!
//! Everything in a bundle is either signed, hashed into what is signed, or written again from that
//! and compared: no bit of it can be changed unseen.

mod blobs;
pub mod bundle;
mod erasures;
mod excerpt;
mod index;
mod log;
mod outputs;
pub mod page;
mod report;
mod verify;
mod witnesses;

pub use blobs::{Documents, Held, Named, Settled, named, settle};
pub use erasures::Erasures;
pub use log::{Log, claimed_size, compare_root, note_word};
pub use outputs::{OtherOutput, OutputCounts};
pub use report::{BlobCounts, CounterBack, Findings, FirstBad, RedactedBy, Report, Scope, Suspect};
pub use verify::{Expectations, Progress, Unreadable, verify};
pub use witnesses::Witnessed;
