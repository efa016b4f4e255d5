//! The file that proves: one tar that any tool unpacks, in one legal form.
//!
//! ```text
//! container   the strict tar: one way to write each member, so that no byte is free
//! layout      what lies where, in which order, and how large it may be
//! manifest    which ledger, how much of it
//! reader      a bundle page by page, in bounded memory
//! writer      the same, written
//! texts       the words for people that come along
//! ```

mod container;
mod layout;
mod manifest;
mod reader;
mod texts;
mod writer;

pub use container::ContainerError;
pub(crate) use layout::MAX_TEXT_BYTES;
pub use layout::{Absence, PAGE_BLOB_BYTES, PAGE_ENTRIES};
pub use manifest::{Manifest, ManifestError, Selection};
pub use reader::{BundleError, Page, Reader, Tail};
pub use writer::{WriteError, Writer};
