//! The ledger room against a real Postgres.

pub(crate) mod append;
pub(crate) mod erasing;
pub(crate) mod facts;
pub(crate) mod fairness;
pub(crate) mod judging;
pub(crate) mod newest;
pub(crate) mod plans;
pub(crate) mod retries;
pub(crate) mod rollback;
pub(crate) mod rotation;
