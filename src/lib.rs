//! The server: an append-only ledger on Postgres and the ways to read it.
//!
//! | room | owns |
//! |---|---|
//! | [`ledger`] | the only room that appends, through one door |
//! | [`dev`] | a private Postgres, for `dev`, `demo` and the tests |
//! | [`keys`] | the ledger's secret keys, and randomness |
//! | [`clock`] | time |
//!
//! `docs/ARCHITECTURE.md` has the arrows between them; `tests/it/architecture.rs` keeps them.
#![deny(unsafe_code)]

pub mod clock;
pub mod dev;
pub mod keys;
pub mod ledger;
