//! A bundle to be read: what its verified entries say, for people and for programs.
//!
//! ```text
//! gather    what is kept of each entry while the pages pass
//! shape     index.json
//! page      index.html
//! signers   allowed_signers
//! ```
//!
//! All of it is a function of the pages, so whoever verifies writes it again and compares.

mod gather;
mod page;
mod shape;
mod signers;

use countersign_protocol::fold::State;

use crate::bundle::{Manifest, Tail};

pub(crate) use gather::Gathered;

/// What follows from the pages of a bundle.
pub(crate) fn write(manifest: &Manifest, gathered: &Gathered, state: &State, size: u64) -> Tail {
    let shape = shape::shape(manifest, gathered, state, size);
    // A shape of ours has nothing that JSON has no form for.
    let json = serde_json::to_string_pretty(&shape).unwrap_or_default();
    Tail {
        allowed_signers: signers::write(state.rights()),
        index_html: page::write(&shape),
        index_json: json + "\n",
    }
}
