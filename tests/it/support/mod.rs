//! What the suites share: one throw-away cluster, a database a test, a ledger with people in it.

pub(crate) mod cluster;
pub(crate) mod logged;
pub(crate) mod people;
pub(crate) mod server;

pub(crate) use cluster::{TestDatabase, database, hold};
pub(crate) use people::{TestLedger, have, make_unwritable, mend};
pub(crate) use server::TestServer;
