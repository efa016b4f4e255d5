//! Every kind of statement and its payload. PROTOCOL 1 and 8.
//!
//! | file | holds |
//! |---|---|
//! | `kind.rs` | the registry: kinds, namespaces, who signs which |
//! | `change.rs` | changes of rights: the documents and the events that put them into effect |
//! | `payload.rs` | the shapes that the ledger and people sign |
//! | `execution.rs` | the shapes that agents sign |
//!
//! The types are closed: an unknown field, kind or word is an error, and a new kind breaks the
//! build wherever kinds are told apart.

mod change;
mod execution;
mod kind;
mod payload;

pub use change::{
    AgentAccepted, AgentDrained, AgentRejected, AgentRelabelled, AgentRetired, AgentUndrained,
    BlobRedacted, ChangeBody, ChangeError, Effected, Erased, GroupChanged, HoldLifted, HoldPlaced,
    KeyAdded, KeyClaim, KeyRevoked, MAX_NAMES, MAX_REDACTED, PolicyPublished, ProgramName,
    REDACTED_AT_ONCE, RoleDefined, RoleGranted, RoleRevoked, TokenIssued, TokenRevoked,
};
pub use execution::{
    AgentFacts, AgentIdle, AgentKeyRetired, CgroupInForce, ExecutionCompleted, ExecutionLost,
    ExecutionOutput, ExecutionRefused, ExecutionStarted, InForce, LimitsInForce, LossForm, Outcome,
    ProgramFacts, RefusalReason, Stream, StreamTotals,
};
pub use kind::{Author, Event, EventError, Header, Kind, Signatory};
pub(crate) use payload::payload;
pub use payload::{
    AccessDenied, Administrator, AgentEnrolled, AuditRead, ChangeApproved, ChangeRejected,
    ChangeRequested, CommandApproved, CommandAuthorized, CommandCancelRequested, CommandExpired,
    CommandRejected, CommandRequested, CommandVotedDown, CommandWithdrawn, DeniedWhat,
    ExecutionReleased, ExecutionSkipped, KeyClaimed, LedgerGenesis, LedgerHeartbeat,
    PolicySnapshot, ReadWhat, ReviewClosed, ReviewOpened, RolloutContinued, RolloutPaused,
    RolloutResumed, Seen, SessionChallenge, SkipReason,
};
