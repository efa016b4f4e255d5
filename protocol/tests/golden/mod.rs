//! The golden vectors: one ledger in which every kind stands, with fixed keys, salts and times.
//!
//! | file | owns |
//! |---|---|
//! | `story.rs` | what happens in it |
//! | `files.rs` | how it is written down in `tests/vectors/` |
//!
//! Ed25519 is deterministic and nothing here draws a number, so the same code writes the same bytes.

mod files;
mod rights;
mod rollout;
mod story;

pub(crate) use files::{folder, render};
pub(crate) use story::{Golden, identity};
