//! The ledger: the only room that appends, through one door.
//!
//! ```text
//! Ledger::append(submission) → Receipt
//!   admission   outside the lock: shape, signature, documents, blobs stored
//!     blob_store  blobs that wait at the same time, stored together
//!   queue       what waits for the writer, a turn for each who submits
//!   writer      one at a time: drain, lock head, catch up, decide, seal, commit, answer
//!     state     what decisions read: the protocol's fold, streams loaded when touched
//!     batch     sealed entries, their tree and their rows
//!     store     the SQL; its comments are the contract
//!   newest      the newest committed checkpoint, whichever server committed it
//!     checkpoint_file   ... kept outside the database
//! ```

mod admission;
mod batch;
mod blob_store;
mod checkpoint_file;
mod erasing;
mod error;
pub mod history;
mod newest;
mod open;
mod queue;
mod receipt;
mod state;
pub mod store;
mod writer;

pub use admission::{Admission, Admitted, Submission};
pub use checkpoint_file::{CheckpointFile, CheckpointFileError};
pub use error::{AppendError, OpenError};
pub use newest::Learning;
pub use open::{Ledger, SCHEMA, Settings, StartRule};
pub use receipt::Receipt;
