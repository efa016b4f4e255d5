//! HTTP: one door for signed statements, many windows for reading. `docs/API.md` says who may call
//! what. Handlers decide nothing: they hand statements to the ledger and rows to people.
//!
//! | file | routes |
//! |---|---|
//! | `statements` | the door |
//! | `sessions`, `auth` | sign-in, and who is calling |
//! | `log` | ledger, checkpoint, proofs, entries, blobs, streams |
//! | `commands` | lists and lives of commands |
//! | `people` | inbox, changes, agents, targets |
//! | `events`, `work` | what happens, as it happens; an agent's work |
//! | `operations` | health, readiness, metrics |
//! | `error` | the only place of status codes |

mod app;
mod auth;
mod bodies;
mod commands;
mod error;
mod events;
mod log;
mod metrics;
mod openapi;
mod operations;
mod people;
mod serve;
mod sessions;
mod statements;
mod streams;
mod work;

pub use app::{App, Presence};
pub use openapi::{document, router};
pub use serve::serve;
