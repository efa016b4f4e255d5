//! The command line, one file a verb. Each parses its own arguments, calls [`crate::acts`], and
//! prints: results on stdout, questions and progress on stderr.

mod agents;
mod changes;
mod decide;
mod globals;
mod inbox;
mod list;
mod log;
mod logs;
mod request;
mod rights;
mod run;
mod show;
mod stop;
mod verb;
mod verify;

pub use globals::Globals;
pub use verb::{Verb, report_usage, run};
pub use verify::{Arguments as VerifyArguments, Lists, verify};
