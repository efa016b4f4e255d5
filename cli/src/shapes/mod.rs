//! The JSON that scripts rely on. A change here is a change of the interface.
//!
//! | file | holds |
//! |---|---|
//! | `command.rs` | commands, changes, lists, entries |
//! | `lines.rs` | a command as it happens, a line each |
//! | `replay.rs` | output with its timing |
//! | `stopped.rs` | what a cancel stopped |
//! | `rights.rs` | people, keys, roles, groups, tokens, reviews |
//! | `erasure.rs` | what was erased, what would be, and legal holds |
//! | `policy.rs` | policies, and what they say of requests |

mod command;
mod erasure;
mod lines;
mod policy;
mod replay;
mod rights;
mod stopped;

pub use command::{
    ApprovalShape, ChangeItemShape, ChangeShape, CommandShape, FilledShape, InboxShape, ItemsShape,
    JudgedShape, ReplacedShape, RequestShape, RequestedShape, RetryShape, SealedShape, change,
    change_item, command, entry_line, requested, runs, sealed,
};
pub use erasure::{
    ErasingShape, HoldShape, ProposalShape, RedactionShape, TextShape, holds, redactions, text,
};
pub use lines::LineShape;
pub use policy::{
    CheckedShape, ExplainedShape, OtherwiseShape, PolicyShape, PriceShape, ProblemShape,
    RefusalShape, RuleChangeShape, RuleShape, RulingShape, SeatsShape, SnapshotShape, WhatIfShape,
    checked, explained, policy, problems, snapshot, what_if,
};
pub use replay::{PieceShape, ReplayShape, RunShape, replayed};
pub use rights::{
    ClaimShape, GroupShape, IssuedShape, KeyShape, LeaveShape, LeavingShape, PersonShape,
    ReviewShape, RoleShape, TokenShape, WhoamiShape, claimed, groups, keys, people, person, review,
    roles, tokens,
};
pub use stopped::{Stopped, StoppedShape, stopped, stopped_unread};
