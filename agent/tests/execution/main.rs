//! The executor against real processes: what runs, what is read, and what is left behind.
//!
//! Nothing is replaced by a double. Waits are bounded by generous limits, never by exact times, so
//! that a slow machine stays green; what must be gone is looked for under `/proc`.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "in a test a panic is the report, and what is left out is said"
)]

#[path = "../../../tests/support/left_out.rs"]
mod left_out;

mod account;
mod cgroup;
mod fence;
mod filter;
mod fixture;
mod limits;
mod output;
mod program;
mod secrets;
mod steps;
mod surroundings;
mod tree;
