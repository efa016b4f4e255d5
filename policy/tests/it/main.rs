//! Facts about policies, each with rights that the real fold comes to.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod book;
mod check;
mod docs;
mod facts;
mod judge;
mod lists;
mod properties;
