//! The ledger room against a real Postgres.

mod append;
mod rollback;
