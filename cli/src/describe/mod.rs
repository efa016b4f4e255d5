//! Words for people, made of what was verified. Only escaped text leaves this room.
//!
//! | file | holds |
//! |---|---|
//! | `command.rs` | a command and its hosts; tables |
//! | `requirement.rs` | what approving takes, and whose word counts |
//! | `change.rs` | a change of rights |
//! | `erasure.rs` | what was erased, what would be, and legal holds |
//! | `rights.rs` | people, keys, roles, groups, tokens, reviews |
//! | `rollout.rs` | how a command goes over its hosts |
//! | `policy.rs` | what a policy says of requests |

mod change;
mod command;
mod erasure;
mod policy;
mod requirement;
mod rights;
mod rollout;

pub use change::{change, replaced_key};
pub use command::{
    act, came, command, deed, end, ending, few, filled, refused, runs, skipped, some, status, table,
};
pub use erasure::{holds, redactions};
pub use policy::{explained, rule_changes, rule_table, ruling, snapshot, what_if};
pub(crate) use requirement::duration;
pub use requirement::{demands, price, requirement, votes, whom};
pub use rights::{groups, keys, open_reviews, people, person, reviews, roles, tokens, whoami};
pub use rollout::{at_canary, until_resumed};
