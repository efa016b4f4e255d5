//! Admission: may this grant run here, now? The room where the host decides.
//!
//! | file | question |
//! |---|---|
//! | `evidence` | is it true? entries, signatures, places in the log, the command's life, this host's line, the documents |
//! | `consent` | is it enough? distinct pinned people, their keys, ages and dates |
//! | `pipeline` | the order of all checks, on one screen |
//!
//! Pure but for looking at the program and the directory that would be used. What is not *true* is
//! never acted on, and nothing is said about it in the ledger: it is logged. What is true and not
//! allowed *here* becomes a refusal that goes into the ledger. Only a [`Permit`] runs, and only
//! the pipeline makes one.

mod consent;
mod evidence;
mod pipeline;
mod turn;

pub use consent::MAX_AHEAD_US;
pub use evidence::{MAX_STREAM_ENTRIES, Unproven};
pub(crate) use pipeline::MAX_CHECKPOINT_AGE;
pub use pipeline::{Host, Permit, Pins, Verdict};
