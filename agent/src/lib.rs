//! The agent: runs on a host what its people have signed, and nothing else.
//!
//! | room | what it owns |
//! |---|---|
//! | [`config`] [`signers`] [`rules`] | what the host pins: `agent.toml`, `allowed_signers`, local rules |
//! | [`admission`] | may this grant run here, now? the order of the checks |
//! | [`snapshot`] | who may approve, by administrators whom this host pins |
//! | [`trust`] | the pinned ledger and the one history of it that this host has seen |
//! | [`spool`] | the journal: used grants, statements before they are sent |
//! | [`client`] | HTTP: the only code that talks to the server |
//! | [`execution`] | the executor: a verified plan in, what happened out |
//! | `dispatcher` `listener` `running` `delivery` `stopping` `enrolment` `idle` `reload` `station` | the world and the executor, joined by messages |
//! | [`succession`] `rotation` `rotate_key` | a second key takes the first one's place: on the disk, and while the agent runs |
//! | [`key`] [`clock`] | the private key and randomness; the time |
//! | [`own`] | what this host says of itself, for arguments |
//! | [`orders`] [`manager`] | what a running agent is told, and what it tells the service manager |
//! | [`service`] [`args`] [`check`] [`enroll`] | from a configuration to a running agent; the command line; what the rules would answer; how a host becomes known |
//!
//! The order that everything here serves: verify the grant, ask the local rules, write down that
//! it is used, say `started`, hold the receipt, run. No step can be reached without the one before.

pub mod admission;
pub mod args;
mod aside;
pub mod check;
pub mod client;
pub mod clock;
pub mod config;
mod delivery;
mod dispatcher;
pub mod enroll;
mod enrolment;
pub mod execution;
mod facts;
mod held;
mod idle;
pub mod key;
mod listener;
pub mod manager;
pub mod orders;
pub mod own;
mod reload;
mod rotate_key;
mod rotation;
pub mod rules;
mod running;
pub mod service;
pub mod signers;
pub mod snapshot;
pub mod spool;
mod station;
mod stopping;
pub mod succession;
pub mod summary;
pub mod trust;
mod witnessed;

pub use config::{Config, ConfigError};
pub use service::run;
pub use station::AgentError;
