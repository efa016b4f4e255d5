//! The ledger and the grants of the agent's own tests.

#[macro_use]
#[path = "../../../../agent/tests/host/support/book.rs"]
pub(crate) mod book;
#[path = "../../../../agent/tests/host/support/grants.rs"]
pub(crate) mod grants;
