//! HTTP: one door for signed statements, many windows for reading. `docs/API.md` says who may call
//! what. Handlers decide nothing: they hand statements to the ledger and rows to people.
//!
//! | file | routes |
//! |---|---|
//! | `statements` | the door |
//! | `sessions`, `auth`, `access` | sign-in, who is calling, and what of a command they may see |
//! | `notes` | what the ledger writes down of the door: reads, and who was turned away |
//! | `log`, `proofs` | ledger, checkpoint, proofs, entries, blobs, streams |
//! | `tiles` | the log as static files, and the cosigned checkpoint |
//! | `commands` | lists and lives of commands |
//! | `people`, `presence` | inbox, changes, agents, targets; which agents were seen here |
//! | `exec`, `tokens` | one call for the holders of API tokens, and the tokens themselves |
//! | `events`, `work`, `grants` | what happens, as it happens; an agent's work, and what of it all hosts of a command get alike |
//! | `operations` | health, readiness, metrics |
//! | `connections`, `tls`, `serve` | connections and their limits, certificates, what wraps every request |
//! | `limits`, `origins` | how often one may call, and where this server is met |
//! | `error` | the only place of status codes |

mod access;
mod app;
mod auth;
mod bodies;
mod commands;
mod connections;
mod error;
mod events;
mod exec;
mod grants;
mod limits;
mod log;
mod metrics;
mod notes;
mod openapi;
mod operations;
mod origins;
mod people;
mod presence;
mod proofs;
mod search;
mod serve;
mod sessions;
mod statements;
mod streams;
mod tiles;
mod tls;
mod tokens;
mod work;

pub use app::App;
pub use connections::{ConnectionLimits, Transport, serve};
pub use notes::run as write_notes;
pub use openapi::{document, router};
pub use origins::Origins;
pub use presence::{Presence, Seen};
pub use tls::{Tls, TlsError, TlsFiles};
