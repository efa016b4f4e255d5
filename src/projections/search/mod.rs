//! Searching what happened: rows to find things by. Nothing here proves anything; a client judges what
//! was found from proven entries.
//!
//! ```text
//! spans     one row a command: from which entry to which it lives, and how it stands
//! runs      one row for each host of a command: who, where, when, how it ended
//! outputs   which blobs a host wrote
//! deeds     one row a statement but for output: who, what, of what
//! texts     the words of blobs, in `public.blob_texts`, from where erasing removes them
//! condition a query as SQL with parameters
//! find      the questions
//! views     what the role countersign_reader reads
//! ```

mod condition;
mod deeds;
mod find;
mod outputs;
mod runs;
mod spans;
mod texts;
mod views;

pub use find::{Found, FoundPage, SearchError};

pub(super) use deeds::Deeds;
pub(super) use outputs::Outputs;
pub(super) use runs::Runs;
pub(super) use spans::Spans;
pub(super) use texts::fill;
pub(super) use views::{are_current, create_views, drop_views};
