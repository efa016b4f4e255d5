//! The log told as rows for an auditor. Pure: verified entries in, rows out; nothing here reaches a
//! server, a clock or a screen.
//!
//! | file | owns |
//! |---|---|
//! | `chronicle.rs` | [`Chronicle`]: the audit of all entries, and what rows are made of beside it |
//! | `fact.rs` | [`Fact`]: one statement, who made it and what it is about |
//! | `runs.rs` | [`RunRow`]: one host's part of a command |
//! | `tales.rs` | what a person did, what suspect keys signed, runs without approvals |
//! | `sources.rs` | [`Sources`]: which entries gave a person their rights |
//! | `why.rs` | everything that led to one command |
//! | `parse.rs` `token.rs` `query.rs` | the text of a query, read and written |
//! | `matching.rs` | whether a query fits a row |
//! | `table.rs` | rows as cells, and as CSV |
//!
//! Rows stand in the order of the log, so that a page of them as of one size never changes.

mod chronicle;
mod fact;
mod matching;
mod parse;
mod query;
mod runs;
mod sources;
mod table;
mod tales;
mod token;
mod why;

pub use chronicle::{Chronicle, Keep, PartKey, ReviewFact};
pub use fact::{About, Fact, Who};
pub use matching::{Fits, Sight, fits, judge};
pub use parse::{QueryError, parse, parse_choice};
pub use query::Written;
pub use runs::{RunRow, Span, runs};
pub use sources::Sources;
pub use table::{Record, csv};
pub use tales::{BreakGlassRow, DeedRow, SuspectRow, break_glass, of_person, suspect};
pub use why::{RuleText, Why, WhyRow, why};
