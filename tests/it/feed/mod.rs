//! Events out to the world: real receivers hear of every entry, in order, at least once; and nothing
//! that they do, or leave undone, holds the ledger up.
//!
//! | file | asks |
//! |---|---|
//! | `config.rs` | what a file of sinks may say, and secrets that stay secret |
//! | `ocsf.rs` | every kind against the schema of OCSF |
//! | `delivery.rs` | order, cursors, two servers, receivers that are away, full, silent or gone |
//! | `webhooks.rs` | signatures beside a tool that is not ours, rotation, retries |
//! | `wire.rs` | RFC 5424 over UDP, TCP and TLS, read by a parser that is not ours |

mod config;
mod delivery;
mod ocsf;
mod support;
mod webhooks;
mod wire;
