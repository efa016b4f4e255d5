//! The command line, one file a verb. Each parses its own arguments, calls [`crate::acts`], and
//! prints: results on stdout, questions and progress on stderr.

mod agent_changes;
mod agents;
mod asking;
mod at;
mod audit;
mod casting;
mod changes;
mod decide;
mod export;
mod globals;
mod holds;
mod hosts;
mod inbox;
mod keys;
mod list;
mod live;
mod log;
mod logs;
mod moment;
mod new_file;
mod nothing_ran;
mod people;
mod policy;
mod progress;
mod redact;
mod replay;
mod request;
mod retention;
mod retry;
mod reviews;
mod roles;
mod rollout;
mod run;
mod seal;
mod secrets;
mod selfcheck;
mod show;
mod stop;
mod tokens;
mod verb;
mod verify;
mod whoami;

pub use globals::Globals;
pub use verb::{Verb, report_usage, run};
pub use verify::{Arguments as VerifyArguments, Lists, verify};
