//! Every kind of statement and its payload. PROTOCOL 1 and 8.
//!
//! | file | holds |
//! |---|---|
//! | `kind.rs` | the registry: kinds, namespaces, who signs which |
//! | `payload.rs` | the shapes that the ledger and people sign |
//! | `execution.rs` | the shapes that agents sign |
//!
//! The types are closed: an unknown field, kind or word is an error, and a new kind breaks the
//! build wherever kinds are told apart.

mod execution;
mod kind;
mod payload;

pub use execution::{
    AgentKeyRetired, CgroupInForce, ExecutionCompleted, ExecutionLost, ExecutionOutput,
    ExecutionRefused, ExecutionStarted, InForce, LimitsInForce, LossForm, Outcome, ProgramFacts,
    RefusalReason, Stream, StreamTotals,
};
pub use kind::{Author, Event, EventError, Header, Kind, Signatory};
pub(crate) use payload::payload;
pub use payload::{
    Administrator, AgentAccepted, AgentEnrolled, ChangeApproved, ChangeRejected, ChangeRequested,
    CommandApproved, CommandAuthorized, CommandCancelRequested, CommandExpired, CommandRejected,
    CommandRequested, CommandWithdrawn, ExecutionSkipped, KeyAdded, KeyRevoked, LedgerGenesis,
    LedgerHeartbeat, PolicyPublished, Seen, SessionChallenge,
};
