//! The registry of kinds: its names, its namespaces and who may sign which.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::blob::BlobRef;
use crate::canonical::{self, CanonicalError};
use crate::event::{ChangeBody, LossForm, Seen};
use crate::hash::{KeyId, LedgerId};
use crate::name::{AgentName, Nonce, Principal, Time};

/// Which role's key signs a kind. A key is used only for the kinds of its role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signatory {
    /// The ledger's statement key.
    Ledger,
    /// A person's key.
    Person,
    /// The key of an accepted agent.
    Agent,
    /// A key that proves itself by this very statement: an agent that enrols.
    Newcomer,
    /// The ledger, or the agent concerned: a run is lost.
    LedgerOrAgent,
    /// A person's or an agent's key; never an entry of the log: sign-ins, claims of keys.
    SignIn,
}

/// Who a payload says it is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Author<'a> {
    /// The ledger.
    Ledger,
    /// A person.
    Person(&'a Principal),
    /// An agent.
    Agent(&'a AgentName),
}

/// What every payload carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// The key that signs.
    pub signer: KeyId,
    /// Who signs.
    pub author: Author<'a>,
    /// Keeps equal statements apart.
    pub nonce: Nonce,
    /// The signer's own clock.
    pub made_at: Time,
    /// The ledger it is meant for; only genesis has none.
    pub ledger: Option<LedgerId>,
    /// The checkpoint the signer had verified; only genesis has none.
    pub seen: Option<Seen>,
}

/// Why a payload is no event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// The namespace names no kind of ours.
    #[error("unknown namespace {0:?}")]
    Namespace(String),
    /// The payload is not canonical or not of its kind's shape.
    #[error(transparent)]
    Payload(#[from] CanonicalError),
    /// A field is outside what its kind allows.
    #[error("{0}")]
    Value(&'static str),
}

macro_rules! kinds {
    ($($name:ident, $word:literal, $signatory:ident;)*) => {
        /// A kind of statement.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind {
            $(#[doc = concat!("`", $word, "`")] $name,)*
        }

        impl Kind {
            /// All kinds, in the order of the registry.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The word: `command.requested`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// The signature's namespace: `command.requested.v1@countersign`.
            #[must_use]
            pub const fn namespace(self) -> &'static str {
                match self { $(Self::$name => concat!($word, ".v1@countersign"),)* }
            }

            /// Who signs it.
            #[must_use]
            pub const fn signatory(self) -> Signatory {
                match self { $(Self::$name => Signatory::$signatory,)* }
            }
        }

        /// A parsed payload of any kind.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Event {
            $(#[doc = concat!("`", $word, "`")] $name(super::$name),)*
        }

        impl Event {
            /// Parses a payload of `kind`: canonical bytes, closed shape, values in bounds.
            ///
            /// # Errors
            /// See [`EventError`].
            pub fn parse(kind: Kind, payload: &[u8]) -> Result<Self, EventError> {
                let event = match kind {
                    $(Kind::$name => Self::$name(canonical::from_payload(payload)?),)*
                };
                event.check()?;
                Ok(event)
            }

            /// The kind.
            #[must_use]
            pub const fn kind(&self) -> Kind {
                match self { $(Self::$name(_) => Kind::$name,)* }
            }

            /// The canonical payload bytes.
            ///
            /// # Errors
            /// A value outside canonical JSON's profile, or a payload over its size limit.
            pub fn to_payload(&self) -> Result<Vec<u8>, EventError> {
                self.check()?;
                let payload = match self { $(Self::$name(event) => canonical::to_vec(event)?,)* };
                canonical::check_payload(&payload)?;
                Ok(payload)
            }

            /// What every payload carries.
            #[must_use]
            pub const fn header(&self) -> Header<'_> {
                match self { $(Self::$name(event) => event.header(),)* }
            }
        }

        $(impl From<super::$name> for Event {
            fn from(event: super::$name) -> Self {
                Self::$name(event)
            }
        })*
    };
}

kinds! {
    LedgerGenesis, "ledger.genesis", Ledger;
    LedgerHeartbeat, "ledger.heartbeat", Ledger;
    ChangeRequested, "change.requested", Person;
    ChangeApproved, "change.approved", Person;
    ChangeRejected, "change.rejected", Person;
    KeyAdded, "key.added", Ledger;
    KeyRevoked, "key.revoked", Ledger;
    RoleDefined, "role.defined", Ledger;
    RoleGranted, "role.granted", Ledger;
    RoleRevoked, "role.revoked", Ledger;
    GroupChanged, "group.changed", Ledger;
    PolicyPublished, "policy.published", Ledger;
    PolicySnapshot, "policy.snapshot", Person;
    TokenIssued, "token.issued", Ledger;
    TokenRevoked, "token.revoked", Ledger;
    BlobRedacted, "blob.redacted", Ledger;
    HoldPlaced, "hold.placed", Ledger;
    HoldLifted, "hold.lifted", Ledger;
    AgentEnrolled, "agent.enrolled", Newcomer;
    AgentAccepted, "agent.accepted", Ledger;
    AgentRejected, "agent.rejected", Ledger;
    AgentRelabelled, "agent.relabelled", Ledger;
    AgentDrained, "agent.drained", Ledger;
    AgentUndrained, "agent.undrained", Ledger;
    AgentRetired, "agent.retired", Ledger;
    AgentKeyRetired, "agent.key_retired", Agent;
    AgentIdle, "agent.idle", Agent;
    AgentFacts, "agent.facts", Agent;
    CommandRequested, "command.requested", Person;
    CommandApproved, "command.approved", Person;
    CommandRejected, "command.rejected", Person;
    CommandVotedDown, "command.voted_down", Ledger;
    CommandWithdrawn, "command.withdrawn", Person;
    CommandAuthorized, "command.authorized", Ledger;
    CommandExpired, "command.expired", Ledger;
    CommandCancelRequested, "command.cancel_requested", Person;
    RolloutPaused, "rollout.paused", Person;
    RolloutResumed, "rollout.resumed", Person;
    RolloutContinued, "rollout.continued", Person;
    ExecutionReleased, "execution.released", Ledger;
    ExecutionStarted, "execution.started", Agent;
    ExecutionRefused, "execution.refused", Agent;
    ExecutionSkipped, "execution.skipped", Ledger;
    ExecutionOutput, "execution.output", Agent;
    ExecutionCompleted, "execution.completed", Agent;
    ExecutionLost, "execution.lost", LedgerOrAgent;
    ReviewOpened, "review.opened", Ledger;
    ReviewClosed, "review.closed", Person;
    AuditRead, "audit.read", Ledger;
    AccessDenied, "access.denied", Ledger;
    KeyClaimed, "key.claimed", SignIn;
    SessionChallenge, "session.challenge", SignIn;
}

/// Most ends that a turn waits for: the host before it, and one for each gap.
const MAX_WAITED_FOR: usize = 1 + crate::rollout::MAX_GAPS;

/// A pattern of every event that puts a change of rights into effect.
#[macro_export]
macro_rules! effecting_event {
    () => {
        $crate::event::Event::KeyAdded(_)
            | $crate::event::Event::KeyRevoked(_)
            | $crate::event::Event::RoleDefined(_)
            | $crate::event::Event::RoleGranted(_)
            | $crate::event::Event::RoleRevoked(_)
            | $crate::event::Event::GroupChanged(_)
            | $crate::event::Event::PolicyPublished(_)
            | $crate::event::Event::TokenIssued(_)
            | $crate::event::Event::TokenRevoked(_)
            | $crate::event::Event::BlobRedacted(_)
            | $crate::event::Event::HoldPlaced(_)
            | $crate::event::Event::HoldLifted(_)
            | $crate::event::Event::AgentAccepted(_)
            | $crate::event::Event::AgentRejected(_)
            | $crate::event::Event::AgentRelabelled(_)
            | $crate::event::Event::AgentDrained(_)
            | $crate::event::Event::AgentUndrained(_)
            | $crate::event::Event::AgentRetired(_)
    };
}

/// A pattern of every event of the stream of rights.
#[macro_export]
macro_rules! rights_event {
    () => {
        $crate::effecting_event!()
            | $crate::event::Event::LedgerGenesis(_)
            | $crate::event::Event::ChangeRequested(_)
            | $crate::event::Event::ChangeApproved(_)
            | $crate::event::Event::ChangeRejected(_)
            | $crate::event::Event::AgentEnrolled(_)
            | $crate::event::Event::AgentKeyRetired(_)
            | $crate::event::Event::AgentFacts(_)
            | $crate::event::Event::ReviewOpened(_)
            | $crate::event::Event::ReviewClosed(_)
            | $crate::event::Event::PolicySnapshot(_)
    };
}

/// A pattern of every event that is of no stream, and of every signed word that is no event.
#[macro_export]
macro_rules! other_event {
    () => {
        $crate::event::Event::LedgerHeartbeat(_)
            | $crate::event::Event::AuditRead(_)
            | $crate::event::Event::AccessDenied(_)
            | $crate::event::Event::SessionChallenge(_)
            | $crate::event::Event::KeyClaimed(_)
    };
}

/// A pattern of what people and the ledger say of a command as a whole, but for its request.
#[macro_export]
macro_rules! decision_event {
    () => {
        $crate::event::Event::CommandApproved(_)
            | $crate::event::Event::CommandRejected(_)
            | $crate::event::Event::CommandVotedDown(_)
            | $crate::event::Event::CommandWithdrawn(_)
            | $crate::event::Event::CommandAuthorized(_)
            | $crate::event::Event::CommandExpired(_)
            | $crate::event::Event::CommandCancelRequested(_)
            | $crate::event::Event::RolloutPaused(_)
            | $crate::event::Event::RolloutResumed(_)
            | $crate::event::Event::RolloutContinued(_)
    };
}

/// A pattern of every event of one host's part of a command.
#[macro_export]
macro_rules! execution_event {
    () => {
        $crate::event::Event::ExecutionReleased(_)
            | $crate::event::Event::ExecutionStarted(_)
            | $crate::event::Event::ExecutionRefused(_)
            | $crate::event::Event::ExecutionSkipped(_)
            | $crate::event::Event::ExecutionOutput(_)
            | $crate::event::Event::ExecutionCompleted(_)
            | $crate::event::Event::ExecutionLost(_)
    };
}

impl Kind {
    /// Says whether statements of this kind can be entries of the log.
    #[must_use]
    pub const fn is_event(self) -> bool {
        !matches!(self.signatory(), Signatory::SignIn)
    }

    /// The kind with this namespace.
    ///
    /// # Errors
    /// [`EventError::Namespace`] when there is none.
    pub fn from_namespace(namespace: &str) -> Result<Self, EventError> {
        Self::ALL
            .iter()
            .copied()
            .find(|kind| kind.namespace() == namespace)
            .ok_or_else(|| EventError::Namespace(namespace.to_string()))
    }
}

impl Event {
    /// Checks what the shape alone does not: numbers, and fields that belong together.
    fn check(&self) -> Result<(), EventError> {
        let holds = |holds: bool, otherwise| {
            if holds {
                Ok(())
            } else {
                Err(EventError::Value(otherwise))
            }
        };
        match self {
            Self::LedgerGenesis(genesis) => genesis.check(),
            Self::CommandRequested(request) => request
                .act
                .check()
                .map_err(|_| EventError::Value("the act is out of bounds")),
            Self::CommandApproved(approval) => approval
                .act
                .check()
                .map_err(|_| EventError::Value("the act is out of bounds")),
            Self::CommandAuthorized(authorized) => authorized
                .requirement
                .check()
                .map_err(|why| EventError::Value(why.0)),
            Self::PolicySnapshot(snapshot) => snapshot.check(),
            Self::ExecutionOutput(chunk) => holds(
                chunk.data.len >= 1 && chunk.data.len <= crate::blob::MAX_CHUNK_BYTES as u64,
                "an output chunk holds 1 byte to 64 KiB",
            ),
            Self::ExecutionCompleted(completed) => completed.check(),
            Self::AgentIdle(idle) => holds(
                idle.from <= idle.to && idle.to <= idle.made_at,
                "an idle statement is about a time that has a beginning, and is over",
            ),
            Self::ExecutionLost(lost) => holds(
                match lost.form {
                    LossForm::Presumed => lost.agent_seq.is_none() && lost.agent_prev.is_none(),
                    LossForm::Confirmed => lost.agent_seq.is_some() && lost.agent_prev.is_some(),
                },
                "a confirmed loss is on the agent's chain, a presumed one is not",
            ),
            effecting_event!() => match ChangeBody::effected(self) {
                Some(effected) => effected.body.check(),
                None => Ok(()),
            },
            Self::ChangeRequested(_)
            | Self::ChangeApproved(_)
            | Self::ChangeRejected(_)
            | Self::AgentEnrolled(_)
            | Self::AgentKeyRetired(_)
            | Self::AgentFacts(_)
            | Self::ReviewOpened(_)
            | Self::ReviewClosed(_)
            | Self::CommandRejected(_)
            | Self::CommandVotedDown(_)
            | Self::CommandWithdrawn(_)
            | Self::CommandExpired(_)
            | Self::CommandCancelRequested(_)
            | Self::RolloutPaused(_)
            | Self::RolloutResumed(_)
            | Self::RolloutContinued(_)
            | Self::ExecutionStarted(_)
            | Self::ExecutionRefused(_)
            | Self::ExecutionSkipped(_)
            | other_event!() => Ok(()),
            Self::ExecutionReleased(released) => holds(
                released.waited_for.len() <= MAX_WAITED_FOR,
                "a turn waits for nine ends at most",
            ),
        }
    }

    /// The host whose part of a command it is about.
    #[must_use]
    pub const fn host(&self) -> Option<&AgentName> {
        match self {
            Self::ExecutionReleased(event) => Some(&event.agent),
            Self::ExecutionStarted(event) => Some(&event.agent),
            Self::ExecutionRefused(event) => Some(&event.agent),
            Self::ExecutionSkipped(event) => Some(&event.agent),
            Self::ExecutionOutput(event) => Some(&event.agent),
            Self::ExecutionCompleted(event) => Some(&event.agent),
            Self::ExecutionLost(event) => Some(&event.agent),
            rights_event!()
            | decision_event!()
            | other_event!()
            | Self::AgentIdle(_)
            | Self::CommandRequested(_) => None,
        }
    }

    /// The blobs that the payload names, in a fixed order.
    #[must_use]
    pub fn blobs(&self) -> Vec<BlobRef> {
        match self {
            Self::ChangeRequested(change) => {
                let further = change.document.into_iter().chain(change.reason);
                [change.body].into_iter().chain(further).collect()
            }
            Self::ChangeApproved(word) => word.reason.into_iter().collect(),
            Self::ChangeRejected(word) => word.reason.into_iter().collect(),
            Self::CommandRequested(request) => {
                let act = &request.act;
                [act.spec, act.targets.list, request.reason]
                    .into_iter()
                    .chain(act.env)
                    .chain(act.stdin)
                    .chain(act.secrets)
                    .collect()
            }
            // The act's blobs are the request's; only the approver's own words are new.
            Self::CommandApproved(approval) => approval.reason.into_iter().collect(),
            Self::CommandRejected(word) => word.reason.into_iter().collect(),
            Self::CommandWithdrawn(word) => word.reason.into_iter().collect(),
            Self::CommandCancelRequested(word) => word.reason.into_iter().collect(),
            Self::RolloutPaused(word) => word.reason.into_iter().collect(),
            Self::RolloutResumed(word) => word.reason.into_iter().collect(),
            Self::RolloutContinued(word) => word.reason.into_iter().collect(),
            Self::ExecutionStarted(started) => [started.program.path]
                .into_iter()
                .chain(started.steps)
                .collect(),
            Self::ExecutionRefused(refused) => refused.detail.into_iter().collect(),
            Self::ExecutionOutput(chunk) => [chunk.data].into_iter().collect(),
            Self::ExecutionCompleted(completed) => completed.detail.into_iter().collect(),
            Self::ReviewClosed(closed) => [closed.reason].into(),
            Self::AgentFacts(said) => [said.facts].into(),
            Self::PolicySnapshot(snapshot) => [snapshot.document].into(),
            effecting_event!()
            | other_event!()
            | Self::LedgerGenesis(_)
            | Self::AgentEnrolled(_)
            | Self::AgentKeyRetired(_)
            | Self::AgentIdle(_)
            | Self::ReviewOpened(_)
            | Self::CommandVotedDown(_)
            | Self::CommandAuthorized(_)
            | Self::CommandExpired(_)
            | Self::ExecutionReleased(_)
            | Self::ExecutionSkipped(_)
            | Self::ExecutionLost(_) => Vec::new(),
        }
    }
}
