//! `agent.toml`: the pins and rules that the host keeps out of everybody else's reach.
//!
//! | file | what it owns |
//! |---|---|
//! | `load` | from a path to a checked [`Config`] |
//! | `written` | the shape of the file, and variables of the environment over it |
//! | `tables` | `[[allow]]` and `[[deny]]` |
//! | `actions`, `services` | `[[action]]`, `[[service]]` |
//! | `snapshot` | `[snapshot]` |
//! | `confine` | `[confine]` and the `confine` of a rule |
//! | `source` | where a mistake is: a line, or a variable |
//!
//! Read at the start, and again by a reload. Every mistake is told with its line; an unknown setting is a mistake.
//! A pin that is missing is never filled in from the server. Nothing here opens a socket.

mod actions;
mod confine;
mod load;
mod services;
mod snapshot;
mod source;
mod tables;
mod written;

pub use load::Config;
pub(crate) use load::Fixed;
pub use source::ConfigError;
pub use written::{PREFIX, Variables};
