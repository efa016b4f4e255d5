//! The registry of kinds: its names, its namespaces and who may sign which.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::blob::BlobRef;
use crate::canonical::{self, CanonicalError};
use crate::event::{LossForm, Seen};
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
    /// A person's or an agent's key; never an entry of the log.
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
    PolicyPublished, "policy.published", Ledger;
    AgentEnrolled, "agent.enrolled", Newcomer;
    AgentAccepted, "agent.accepted", Ledger;
    AgentKeyRetired, "agent.key_retired", Agent;
    CommandRequested, "command.requested", Person;
    CommandApproved, "command.approved", Person;
    CommandRejected, "command.rejected", Person;
    CommandWithdrawn, "command.withdrawn", Person;
    CommandAuthorized, "command.authorized", Ledger;
    CommandExpired, "command.expired", Ledger;
    CommandCancelRequested, "command.cancel_requested", Person;
    ExecutionStarted, "execution.started", Agent;
    ExecutionRefused, "execution.refused", Agent;
    ExecutionSkipped, "execution.skipped", Ledger;
    ExecutionOutput, "execution.output", Agent;
    ExecutionCompleted, "execution.completed", Agent;
    ExecutionLost, "execution.lost", LedgerOrAgent;
    SessionChallenge, "session.challenge", SignIn;
}

impl Kind {
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
            Self::PolicyPublished(published) => published
                .policy
                .check()
                .map_err(|_| EventError::Value("the policy cannot be met or is out of order")),
            Self::ExecutionOutput(chunk) => holds(
                chunk.data.len >= 1 && chunk.data.len <= crate::blob::MAX_CHUNK_BYTES as u64,
                "an output chunk holds 1 byte to 64 KiB",
            ),
            Self::ExecutionCompleted(completed) => completed.check(),
            Self::ExecutionLost(lost) => holds(
                match lost.form {
                    LossForm::Presumed => lost.agent_seq.is_none() && lost.agent_prev.is_none(),
                    LossForm::Confirmed => lost.agent_seq.is_some() && lost.agent_prev.is_some(),
                },
                "a confirmed loss is on the agent's chain, a presumed one is not",
            ),
            Self::LedgerHeartbeat(_)
            | Self::ChangeRequested(_)
            | Self::ChangeApproved(_)
            | Self::ChangeRejected(_)
            | Self::KeyAdded(_)
            | Self::KeyRevoked(_)
            | Self::AgentEnrolled(_)
            | Self::AgentAccepted(_)
            | Self::AgentKeyRetired(_)
            | Self::CommandRejected(_)
            | Self::CommandWithdrawn(_)
            | Self::CommandAuthorized(_)
            | Self::CommandExpired(_)
            | Self::CommandCancelRequested(_)
            | Self::ExecutionStarted(_)
            | Self::ExecutionRefused(_)
            | Self::ExecutionSkipped(_)
            | Self::SessionChallenge(_) => Ok(()),
        }
    }

    /// The blobs that the payload names, in a fixed order.
    #[must_use]
    pub fn blobs(&self) -> Vec<BlobRef> {
        match self {
            Self::ChangeRequested(change) => {
                [change.body].into_iter().chain(change.reason).collect()
            }
            Self::ChangeApproved(word) => word.reason.into_iter().collect(),
            Self::ChangeRejected(word) => word.reason.into_iter().collect(),
            Self::CommandRequested(request) => {
                let act = &request.act;
                [act.spec, act.targets.list, request.reason]
                    .into_iter()
                    .chain(act.env)
                    .chain(act.stdin)
                    .collect()
            }
            // The act's blobs are the request's; only the approver's own words are new.
            Self::CommandApproved(approval) => approval.reason.into_iter().collect(),
            Self::CommandRejected(word) => word.reason.into_iter().collect(),
            Self::CommandWithdrawn(word) => word.reason.into_iter().collect(),
            Self::CommandCancelRequested(word) => word.reason.into_iter().collect(),
            Self::ExecutionStarted(started) => [started.program.path]
                .into_iter()
                .chain(started.steps)
                .collect(),
            Self::ExecutionRefused(refused) => refused.detail.into_iter().collect(),
            Self::ExecutionOutput(chunk) => [chunk.data].into_iter().collect(),
            Self::ExecutionCompleted(completed) => completed.detail.into_iter().collect(),
            Self::LedgerGenesis(_)
            | Self::LedgerHeartbeat(_)
            | Self::KeyAdded(_)
            | Self::KeyRevoked(_)
            | Self::PolicyPublished(_)
            | Self::AgentEnrolled(_)
            | Self::AgentAccepted(_)
            | Self::AgentKeyRetired(_)
            | Self::CommandAuthorized(_)
            | Self::CommandExpired(_)
            | Self::ExecutionSkipped(_)
            | Self::ExecutionLost(_)
            | Self::SessionChallenge(_) => Vec::new(),
        }
    }
}
