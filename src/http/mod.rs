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
//! | `connections`, `tls`, `serve` | connections and their limits, certificates, what wraps every request |
//! | `limits`, `origins` | how often one may call, and where this server is met |
//! | `error` | the only place of status codes |

mod app;
mod auth;
mod bodies;
mod commands;
mod connections;
mod error;
mod events;
mod limits;
mod log;
mod metrics;
mod openapi;
mod operations;
mod origins;
mod people;
mod serve;
mod sessions;
mod statements;
mod streams;
mod tls;
mod work;

pub use app::{App, Presence};
pub use connections::{ConnectionLimits, Transport, serve};
pub use openapi::{document, router};
pub use origins::Origins;
pub use tls::{Tls, TlsError, TlsFiles};
