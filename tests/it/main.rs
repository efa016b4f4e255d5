//! Integration tests of the server, against a real Postgres that they start and stop themselves.
//! The folders mirror `src/`; `support/` is what they share. See `tests/README.md`.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking; the allowance for tests does not reach helper functions"
)]

#[path = "../support/cedar.rs"]
mod cedar;
#[path = "../support/certificates.rs"]
mod certificates;
#[path = "../support/folder.rs"]
mod folder;
#[path = "../support/forger.rs"]
mod forger;
#[path = "../support/left_out.rs"]
mod left_out;
#[path = "../support/statements.rs"]
mod statements;

mod architecture;
mod attacks;
mod cosigned;
mod dev;
mod docs;
mod feed;
mod http;
mod ledger;
mod licences;
mod migrations;
mod projections;
mod review;
mod support;
mod vectors;
mod verify;
mod witness;
