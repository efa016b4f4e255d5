//! `selfcheck`: a newcomer's first five minutes with a live service, a line for each thing that it
//! must do and each that it must refuse.
//!
//! | file | owns |
//! |---|---|
//! | `arguments.rs` | the command line |
//! | `story.rs` | the checks in their order, and the exit code |
//! | `trial.rs` | one command on its way: asked, approved, followed, given up |
//! | `expected.rs` | what each command is and what must come of it |
//! | `report.rs` | a line each, for people and as JSON |
//!
//! It approves nothing by itself: approvals are other people's, here or with keys that the caller
//! names. What it asked for and nobody wants any more it takes back.

mod arguments;
mod expected;
mod report;
mod story;
mod trial;

pub(super) use arguments::Arguments;
pub(super) use story::selfcheck;
