//! Thousands of agents in one process: real keys, real sessions, each its own connection that waits for
//! work, each grant judged by the agent's own admission, each word signed on its own chain.
//!
//! | file | owns |
//! |---|---|
//! | `agent` | one simulated host: its chain, its memory, what it does with work |
//! | `fleet` | many of them: made, enrolled, connected, counted |
//! | `office` | two administrators who accept many keys |
//! | `files` | how many connections this process may open |
//!
//! What it leaves out is what hosts do by themselves: no process is started (`true` is said to have run)
//! and the journal is in memory. The server cannot tell the difference, and has no way in that is
//! made for this. It is for benches and tests; nothing that is shipped reaches it.

mod agent;
mod files;
mod fleet;
mod office;

pub use files::open_many_files;
pub use fleet::{Counts, Fleet, Plan};
pub use office::{Administrator, Office};

/// Why a simulation does not go on.
#[derive(Debug, thiserror::Error)]
pub enum SimulationError {
    /// The server, or the way there.
    #[error(transparent)]
    Client(#[from] countersign_agent::client::ClientError),
    /// Something is not as the ledger has it: what, and why.
    #[error("{0}: {1}")]
    Shape(&'static str, String),
    /// The server did not accept what it should have.
    #[error("the server answered {code} to {what}: {detail}")]
    Refused {
        /// What was sent.
        what: &'static str,
        /// The problem's code.
        code: String,
        /// The problem's text.
        detail: String,
    },
}

impl SimulationError {
    pub(crate) fn shape(what: &'static str) -> impl Fn(&dyn std::fmt::Display) -> Self {
        move |why| Self::Shape(what, why.to_string())
    }
}
