//! An operator's short files: lists of programs and people that become a policy in Cedar.
//!
//! Each compiles to a readable text, the same one for the same file; that text is what is published,
//! reviewed and judged by. There is no second way to judge.
//!
//! | file | holds |
//! |---|---|
//! | `form.rs` | the files' shapes, and how a file is read by its ending |
//! | `write.rs` | the Cedar text of a list |

mod form;
mod write;

pub use form::{Lists, ListsError, Own, allowed_commands, from_file};
