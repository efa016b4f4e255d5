//! The host's decision and what keeps it: admission, signers, rules, configuration, journal, and a
//! whole agent against a small server in this process.
//!
//! Grants are built with the protocol's own types over a ledger in memory. Each attack is made by
//! somebody who holds the ledger's keys, since that is whom the host must not depend on.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test a panic is the report"
)]

#[macro_use]
mod support;

#[path = "../../../tests/support/left_out.rs"]
mod left_out;
#[path = "../../../tests/support/small_disk.rs"]
mod small_disk;

mod admission;
mod checked;
mod config;
mod confine;
mod consent;
mod drained;
mod facts;
mod idle;
mod journal;
mod named;
mod orders;
mod outages;
mod patterns;
mod rotation;
mod rules;
mod secrets;
mod signers;
mod snapshot;
mod spool;
mod surroundings;
mod turns;
mod users;
mod waited;
mod whole;
mod witnessed;
