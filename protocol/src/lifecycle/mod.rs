//! A command's life: one state machine, used live, on restart, in projections, by agents and by
//! auditors. DESIGN "A command's life".
//!
//! What rights say (who may request, approve, cancel) is [`crate::fold`]'s; here stands only what may
//! follow what.
//!
//! | file | holds |
//! |---|---|
//! | `status.rs` | the status words |
//! | `command.rs` | a command, and what may follow what |
//! | `execution.rs` | one host's part |
//! | `turns.rs` | whose turn it is in a rollout; pause, resume, continue, skip |
//! | `due.rs` | what passing time and ended turns demand of the ledger |

mod command;
mod due;
mod execution;
mod status;
mod turns;

pub use command::{Approval, Command, LOST_GRACE_US, Position, Stage, Vote};
pub use due::Due;
pub use execution::{Execution, Kept, Over, Refused, Released};
pub use status::{CommandStatus, ExecutionStatus};
pub use turns::Turn;
