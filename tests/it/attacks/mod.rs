//! Attacks and mishaps that need a whole ledger: a COMMIT whose answer is lost, a checkpoint that
//! cannot be written down, servers that catch up with each other, requests made to be expensive. `docs/THREAT_MODEL.md` names each test.

mod durability;
mod limits;
mod lost_commit;
mod severing;
mod two_servers;
