//! Cosignatures for this ledger's checkpoints: witnesses are asked beside the writer, and the newest
//! note that a quorum of them has signed is kept and published.
//!
//! A witness that is down, slow or hostile delays that note and nothing else: no append waits for it.
//!
//! | file | what |
//! |---|---|
//! | `courier` | one witness: asked, its answer checked |
//! | `collect` | rounds over all of them, and what is published |

mod collect;
mod courier;

pub use collect::{Cosigned, CosignedError};
