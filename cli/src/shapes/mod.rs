//! The JSON that scripts rely on. A change here is a change of the interface.
//!
//! | file | holds |
//! |---|---|
//! | `command.rs` | commands, changes, lists, entries |
//! | `replay.rs` | output with its timing |
//! | `rights.rs` | people, keys, roles, groups, tokens, reviews |
//! | `erasure.rs` | what was erased, what would be, and legal holds |
//! | `policy.rs` | policies, and what they say of requests |

mod command;
mod erasure;
mod policy;
mod replay;
mod rights;

pub use command::{
    ApprovalShape, ChangeShape, CommandShape, InboxShape, ItemsShape, JudgedShape, ReplacedShape,
    RequestShape, RequestedShape, SealedShape, change, change_item, command, entry_line, requested,
    sealed,
};
pub use erasure::{
    ErasingShape, HoldShape, ProposalShape, RedactionShape, TextShape, holds, redactions, text,
};
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
