//! The journal: what this agent must never forget, on disk before it acts on it.
//!
//! | file | owns |
//! |---|---|
//! | `frame` | bytes on disk: length, checksums, where a torn end begins |
//! | `record` | what is written down |
//! | `state` | what the records add up to: used grants, the agent's chain, runs and their output |
//! | `log` | the file and its state: frames written, read back, copied into a new file |
//! | `journal` | when: append, make durable, what to do without room, when to write anew |
//!
//! Recovery and live running go through the same [`State::apply`]. A record counts once
//! `fdatasync` has returned; what a power cut leaves of a later one is cut off. Statements are
//! written down before they are sent, and forgotten once the ledger has them: the journal is also
//! the queue of what is to be delivered; output that waits is on disk only. The room knows neither HTTP nor the rules.

mod frame;
mod journal;
mod log;
mod record;
mod state;

pub use journal::{FILE, FULL_BYTES, LEAST_BYTES, Spool, SpoolError};
pub use record::{About, Birth, EndFacts, Record, Totals};
pub use state::{ChainEnd, Illegal, Run, State, Waiting, Word};
