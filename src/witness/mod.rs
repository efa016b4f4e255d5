//! A witness: whoever runs it vouches that a log shows everybody one history. It speaks C2SP
//! tlog-witness and needs no database. `docs/OPERATIONS.md` says how to run one.
//!
//! | file | what |
//! |---|---|
//! | `watch` | the decision: what is signed and what is not, under a lock for each log |
//! | `memory` | the state folder: what was signed last, and evidence of forks |
//! | `serve` | HTTP, and the rooms put together |

mod memory;
mod serve;
mod watch;

pub use memory::MemoryError;
pub use serve::{Options, StartError, Witness};
pub use watch::{Answer, MAX_LOGS, Watch};
