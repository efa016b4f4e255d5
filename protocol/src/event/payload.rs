//! The payloads that the ledger and people sign, one struct a kind.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::blob::BlobRef;
use crate::command::Act;
use crate::event::{Author, EventError, Header};
use crate::hash::{CommandId, Digest, Hash, KeyId, LedgerId, StatementId};
use crate::key::PublicKey;
use crate::name::{AgentName, Nonce, Principal, Time};
use crate::origin::ServerOrigin;
use crate::policy::{Policy, PolicyRef};
use crate::quorum::Requirement;

/// A committed checkpoint that the signer had verified when it signed: "not before this".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seen {
    /// Number of entries, at least 1.
    pub size: u64,
    /// Root over them.
    pub root: Hash,
}

/// Declares a payload: the fields every statement of that author carries, then its own.
macro_rules! payload {
    ($(#[$doc:meta])* person $name:ident { $($(#[$meta:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            /// The key that signs.
            pub signer: $crate::hash::KeyId,
            /// The person or machine that signs.
            pub principal: $crate::name::Principal,
            /// Random.
            pub nonce: $crate::name::Nonce,
            /// The signer's clock.
            pub made_at: $crate::name::Time,
            /// The ledger it is meant for.
            pub ledger: $crate::hash::LedgerId,
            /// The newest checkpoint the signer had verified.
            pub seen: $crate::event::Seen,
            $($(#[$meta])* pub $field: $type,)*
        }

        impl $name {
            pub(crate) const fn header(&self) -> $crate::event::Header<'_> {
                $crate::event::Header {
                    signer: self.signer,
                    author: $crate::event::Author::Person(&self.principal),
                    nonce: self.nonce,
                    made_at: self.made_at,
                    ledger: Some(self.ledger),
                    seen: Some(self.seen),
                }
            }
        }
    };
    ($(#[$doc:meta])* agent $name:ident { $($(#[$meta:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            /// The key that signs.
            pub signer: $crate::hash::KeyId,
            /// The agent that signs.
            pub agent: $crate::name::AgentName,
            /// Random.
            pub nonce: $crate::name::Nonce,
            /// The signer's clock.
            pub made_at: $crate::name::Time,
            /// The ledger it is meant for.
            pub ledger: $crate::hash::LedgerId,
            /// The newest checkpoint the signer had verified.
            pub seen: $crate::event::Seen,
            $($(#[$meta])* pub $field: $type,)*
        }

        impl $name {
            pub(crate) const fn header(&self) -> $crate::event::Header<'_> {
                $crate::event::Header {
                    signer: self.signer,
                    author: $crate::event::Author::Agent(&self.agent),
                    nonce: self.nonce,
                    made_at: self.made_at,
                    ledger: Some(self.ledger),
                    seen: Some(self.seen),
                }
            }
        }
    };
    ($(#[$doc:meta])* ledger $name:ident { $($(#[$meta:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            /// The ledger's statement key.
            pub signer: $crate::hash::KeyId,
            /// Random.
            pub nonce: $crate::name::Nonce,
            /// The ledger's clock.
            pub made_at: $crate::name::Time,
            /// This ledger.
            pub ledger: $crate::hash::LedgerId,
            /// The checkpoint before the batch this stands in.
            pub seen: $crate::event::Seen,
            $($(#[$meta])* pub $field: $type,)*
        }

        impl $name {
            pub(crate) const fn header(&self) -> $crate::event::Header<'_> {
                $crate::event::Header {
                    signer: self.signer,
                    author: $crate::event::Author::Ledger,
                    nonce: self.nonce,
                    made_at: self.made_at,
                    ledger: Some(self.ledger),
                    seen: Some(self.seen),
                }
            }
        }
    };
}
pub(crate) use payload;

/// Someone who may change rights, with a first key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Administrator {
    /// Who.
    pub principal: Principal,
    /// Their key.
    pub key: PublicKey,
}

/// The first entry: every root of trust. Its leaf is the ledger's id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerGenesis {
    /// The statement key's id.
    pub signer: KeyId,
    /// Random, so that no two ledgers are the same.
    pub nonce: Nonce,
    /// When it was made.
    pub made_at: Time,
    /// The checkpoints' origin line.
    pub origin: crate::checkpoint::Origin,
    /// Signs checkpoints and nothing else: base64 of an SSH key blob, `ssh-ed25519`.
    pub checkpoint_key: PublicKey,
    /// Signs the ledger's statements and nothing else.
    pub statement_key: PublicKey,
    /// Who may change rights, sorted by name, each once.
    pub administrators: Vec<Administrator>,
    /// How many of them a change takes.
    pub threshold: u32,
    /// An offline key for the day when administrators are lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovery_key: Option<PublicKey>,
}

/// Most administrators, so that genesis fits into a payload.
const MAX_ADMINISTRATORS: usize = 32;

impl LedgerGenesis {
    pub(crate) const fn header(&self) -> Header<'_> {
        Header {
            signer: self.signer,
            author: Author::Ledger,
            nonce: self.nonce,
            made_at: self.made_at,
            ledger: None,
            seen: None,
        }
    }

    pub(crate) fn check(&self) -> Result<(), EventError> {
        let admins = &self.administrators;
        let sorted = admins
            .iter()
            .zip(admins.iter().skip(1))
            .all(|(a, b)| a.principal < b.principal);
        if !sorted || admins.len() > MAX_ADMINISTRATORS {
            return Err(EventError::Value(
                "administrators are sorted, each once, 32 at most",
            ));
        }
        let threshold = self.threshold as usize;
        let spare =
            admins.len() > threshold || (admins.len() == threshold && self.recovery_key.is_some());
        if threshold == 0 || !spare {
            return Err(EventError::Value(
                "genesis needs at least one more administrator than its threshold, or a recovery key",
            ));
        }
        let mut keys: Vec<KeyId> = admins.iter().map(|admin| admin.key.key_id()).collect();
        keys.extend([self.checkpoint_key.key_id(), self.statement_key.key_id()]);
        keys.extend(self.recovery_key.as_ref().map(PublicKey::key_id));
        let count = keys.len();
        keys.sort_unstable();
        keys.dedup();
        if keys.len() != count {
            return Err(EventError::Value(
                "each role in genesis has a key of its own",
            ));
        }
        if self.signer != self.statement_key.key_id() {
            return Err(EventError::Value("genesis is signed by the statement key"));
        }
        match self.checkpoint_key {
            PublicKey::Ed25519(_) => Ok(()),
            PublicKey::SkEd25519 { .. } => Err(EventError::Value(
                "the checkpoint key is a plain ssh-ed25519 key",
            )),
        }
    }
}

payload! {
    /// Nothing happened for a while: the ledger is still this long.
    ledger LedgerHeartbeat {}
}

payload! {
    /// An administrator asks for a change of rights, and consents to it by asking.
    person ChangeRequested {
        /// A [`crate::rights::ChangeBody`] document.
        body: BlobRef,
        /// Why, in free text.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<BlobRef>,
    }
}

payload! {
    /// Another administrator consents.
    person ChangeApproved {
        /// The request.
        change: StatementId,
        /// Digest of the body that is consented to; equals the request's.
        body: Digest,
        /// Why, in free text.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<BlobRef>,
    }
}

payload! {
    /// An administrator ends a requested change.
    person ChangeRejected {
        /// The request.
        change: StatementId,
        /// Why, in free text.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<BlobRef>,
    }
}

payload! {
    /// A person's key counts from here on.
    ledger KeyAdded {
        /// The request this puts into effect.
        change: StatementId,
        /// Where the consents stand: the request, then the approvals that counted.
        rests_on: Vec<u64>,
        /// Whose key.
        principal: Principal,
        /// The key.
        key: PublicKey,
    }
}

payload! {
    /// A key counts no more from here on; what it signed before stays verified.
    ledger KeyRevoked {
        /// The request this puts into effect.
        change: StatementId,
        /// Where the consents stand.
        rests_on: Vec<u64>,
        /// Which key.
        key_id: KeyId,
        /// From which entry on its signatures are suspect.
        #[serde(skip_serializing_if = "Option::is_none")]
        suspect_from: Option<u64>,
    }
}

payload! {
    /// This policy is in force from here on.
    ledger PolicyPublished {
        /// The request this puts into effect.
        change: StatementId,
        /// Where the consents stand.
        rests_on: Vec<u64>,
        /// The policy.
        policy: Policy,
    }
}

payload! {
    /// A host's agent introduces itself, signing with the key it asks to be known by.
    agent AgentEnrolled {
        /// That key.
        key: PublicKey,
    }
}

payload! {
    /// The agent's key counts from here on.
    ledger AgentAccepted {
        /// The request this puts into effect.
        change: StatementId,
        /// Where the consents stand.
        rests_on: Vec<u64>,
        /// Which agent.
        agent: AgentName,
        /// Its key.
        key: PublicKey,
        /// The key that was the agent's until here, if it had one.
        #[serde(skip_serializing_if = "Option::is_none")]
        replaces: Option<KeyId>,
    }
}

payload! {
    /// A person asks for a command. This statement's id is the command's id.
    person CommandRequested {
        /// The caller's own id, digested: unique for ever per principal.
        #[serde(skip_serializing_if = "Option::is_none")]
        client_ref: Option<Digest>,
        /// What would run.
        act: Act,
        /// Why, in free text.
        reason: BlobRef,
    }
}

payload! {
    /// A person allows exactly this act, once.
    person CommandApproved {
        /// The request.
        command: CommandId,
        /// Who asked; equals the request's principal.
        requester: Principal,
        /// What is allowed; equals the request's.
        act: Act,
        /// Under which policy.
        policy: PolicyRef,
        /// Why, in free text.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<BlobRef>,
    }
}

payload! {
    /// A person who could approve says no; one no ends the request.
    person CommandRejected {
        /// The request.
        command: CommandId,
        /// Why, in free text.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<BlobRef>,
    }
}

payload! {
    /// The requester takes the request back before it was authorized.
    person CommandWithdrawn {
        /// The request.
        command: CommandId,
        /// Why, in free text.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<BlobRef>,
    }
}

payload! {
    /// The approvals suffice. Anyone can count again from what is named here.
    ledger CommandAuthorized {
        /// The request.
        command: CommandId,
        /// Where the request stands.
        request_seq: u64,
        /// Where the approvals that counted stand, ascending.
        approvals: Vec<u64>,
        /// The policy it was judged under.
        policy: PolicyRef,
        /// What that policy asked for this command.
        requirement: Requirement,
    }
}

payload! {
    /// The request's time ran out before it was authorized.
    ledger CommandExpired {
        /// The request.
        command: CommandId,
    }
}

payload! {
    /// A person wants the command stopped, or not started where it has not.
    person CommandCancelRequested {
        /// The request.
        command: CommandId,
        /// Why, in free text.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<BlobRef>,
    }
}

payload! {
    /// An authorized command's time ran out before this host started it.
    ledger ExecutionSkipped {
        /// The command.
        command: CommandId,
        /// The host that did not start it.
        agent: AgentName,
    }
}

/// A sign-in: the server's challenge, signed. Never an entry of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionChallenge {
    /// The key that signs.
    pub signer: KeyId,
    /// The person that signs in; an agent's name is given instead in `agent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal: Option<Principal>,
    /// The agent that signs in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentName>,
    /// Random.
    pub nonce: Nonce,
    /// The signer's clock.
    pub made_at: Time,
    /// The ledger.
    pub ledger: LedgerId,
    /// Where the signer meets the server, as it was configured: a server elsewhere takes it not.
    pub server: ServerOrigin,
    /// What the server drew.
    pub challenge: Digest,
}

impl SessionChallenge {
    pub(crate) const fn header(&self) -> Header<'_> {
        let author = match (&self.principal, &self.agent) {
            (Some(principal), _) => Author::Person(principal),
            (None, Some(agent)) => Author::Agent(agent),
            // Signs in as nobody; no key is the ledger's here, so this is refused everywhere.
            (None, None) => Author::Ledger,
        };
        Header {
            signer: self.signer,
            author,
            nonce: self.nonce,
            made_at: self.made_at,
            ledger: Some(self.ledger),
            seen: None,
        }
    }
}
