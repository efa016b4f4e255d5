//! `policy`: the rules, and what they say.
//!
//! | file | owns |
//! |---|---|
//! | `arguments.rs` | what can be asked, and who answers |
//! | `file.rs` | a policy from a file or the environment; what is wrong with one |
//! | `publish.rs` | `show`, `check`, `diff`, `publish` |
//! | `snapshot.rs` | `snapshot` |
//! | `judge.rs` | `explain`, `replay` |

mod arguments;
mod file;
mod judge;
mod publish;
mod snapshot;

pub(super) use arguments::{Arguments, policy};
pub(super) use publish::{in_force, print};
