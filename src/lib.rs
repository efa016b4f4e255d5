//! The server: an append-only ledger on Postgres and the ways to read it.
//!
//! | room | owns |
//! |---|---|
//! | [`ledger`] | the only room that appends, through one door |
//! | [`http`] | the door and the windows |
//! | [`projections`] | what queries read, built from the log |
//! | [`cosigned`] | what witnesses sign of this ledger |
//! | [`feed`] | events out to SIEMs and webhooks |
//! | [`deadlines`] | passing time, turned into events |
//! | [`primary`] | which of the database's addresses takes writes |
//! | [`server`], [`setup`] | the rooms put together; a ledger made |
//! | [`telemetry`] | logs |
//! | [`dev`] | a private Postgres, for `dev`, `demo` and the tests |
//! | [`keys`] | the ledger's secret keys, and randomness |
//! | [`clock`] | time |
//! | [`witness`] | a role of its own: vouches that logs show everybody one history |
//!
//! `docs/ARCHITECTURE.md` has the arrows between them; `tests/it/architecture.rs` keeps them.
#![deny(unsafe_code)]

pub mod clock;
pub mod cosigned;
pub mod deadlines;
pub mod dev;
mod durable;
pub mod feed;
pub mod http;
pub mod keys;
pub mod ledger;
pub mod primary;
pub mod projections;
pub mod server;
pub mod setup;
pub mod telemetry;
pub mod witness;
