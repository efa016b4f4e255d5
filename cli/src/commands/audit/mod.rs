//! `audit`: an auditor's questions, one call each, answered from the audited log.
//!
//! | file | owns |
//! |---|---|
//! | `arguments.rs` | what can be asked |
//! | `answers.rs` | the log read, and its rows |
//! | `print.rs` | pages of rows as a table, JSON or CSV |

mod answers;
mod arguments;
mod print;

pub(super) use answers::audit;
pub(super) use arguments::Arguments;
