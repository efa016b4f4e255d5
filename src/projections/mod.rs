//! What queries read: rows that follow from the log and from nothing else.
//!
//! ```text
//! runner     follows the log; cursors and rows move in one transaction
//!   page     a run of entries folded, and what they touched
//!   commands executions inbox agents     one projection a file
//! search     rows to find things by, the questions to them, views for SQL
//! bell       wakes the agents here that a step concerns
//! read       the queries, after a bounded wait for the newest entry known
//! compare    proves that the rows equal a fold of the log
//! ```
//!
//! Nothing is decided from a projection, and none can write an event. Dropping one is harmless: it
//! is built anew (`countersign rebuild`).

mod agents;
mod bell;
mod commands;
mod compare;
mod executions;
mod inbox;
mod page;
mod read;
mod rows;
mod runner;
mod search;

pub use bell::{Bell, Calls, Ear};
pub use compare::{CompareError, Difference, compare};
pub use read::{Filter, OpenWork, ReadError, Reader};
pub use runner::{Projected, ProjectionError, rebuild, run};
pub use search::{Found, FoundPage, SearchError};
