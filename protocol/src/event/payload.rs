//! The payloads that the ledger and people sign, one struct a kind.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::blob::BlobRef;
use crate::command::Act;
use crate::event::{Author, EventError, Header};
use crate::hash::{CommandId, Digest, Hash, KeyId, LedgerId, StatementId};
use crate::key::PublicKey;
use crate::name::{AgentName, Label, Nonce, Principal, Time, TokenId};
use crate::origin::ServerOrigin;
use crate::permission::Permission;
use crate::policy::PolicyRef;
use crate::quorum::{Membership, Requirement, is_false};
use crate::retry::Retry;
use crate::secret::SealingKey;
use crate::snapshot::{MAX_SNAPSHOT_BYTES, MAX_VALID_US};

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
    /// Signs for the holders of API tokens, and says so; a ledger without one has no tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway_key: Option<PublicKey>,
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
        let further = [&self.gateway_key, &self.recovery_key];
        keys.extend(further.into_iter().flatten().map(PublicKey::key_id));
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
    /// Somebody who may asks for a change of rights, and consents to it by asking.
    person ChangeRequested {
        /// A [`crate::event::ChangeBody`] document.
        body: BlobRef,
        /// The text that the body names by its digest: of a policy, and only then.
        #[serde(skip_serializing_if = "Option::is_none")]
        document: Option<BlobRef>,
        /// Why, in free text.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<BlobRef>,
    }
}

payload! {
    /// Another person who may consents.
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
    /// A person who could consent ends a requested change.
    person ChangeRejected {
        /// The request.
        change: StatementId,
        /// Why, in free text.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<BlobRef>,
    }
}

payload! {
    /// A host's agent introduces itself, signing with the key it asks to be known by.
    agent AgentEnrolled {
        /// That key.
        key: PublicKey,
        /// What secrets for it are sealed to. Absent: it takes none.
        #[serde(skip_serializing_if = "Option::is_none")]
        sealing_key: Option<SealingKey>,
    }
}

payload! {
    /// A person asks for a command. This statement's id is the command's id.
    person CommandRequested {
        /// The caller's own id, digested: unique for ever per principal.
        #[serde(skip_serializing_if = "Option::is_none")]
        client_ref: Option<Digest>,
        /// The API token that asks for its principal. The gateway's key signs then, and only then.
        #[serde(skip_serializing_if = "Option::is_none")]
        token: Option<TokenId>,
        /// It runs again what an earlier command recorded.
        #[serde(skip_serializing_if = "Option::is_none")]
        retry: Option<Retry>,
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
    /// A person who could approve says no; one no ends the request, unless its rule wants more.
    person CommandRejected {
        /// The request.
        command: CommandId,
        /// One no of several: the rule of this request wants more than one, and this ends nothing
        /// by itself.
        #[serde(default, skip_serializing_if = "is_false")]
        vote: bool,
        /// Why, in free text.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<BlobRef>,
    }
}

payload! {
    /// As many people have voted against the request as its rule wants.
    ledger CommandVotedDown {
        /// The request.
        command: CommandId,
        /// Where the votes that counted stand, ascending.
        rejections: Vec<u64>,
    }
}

payload! {
    /// The requester takes the request back before it was authorized.
    person CommandWithdrawn {
        /// The request.
        command: CommandId,
        /// The API token that says so for its principal; the gateway's key signs then.
        #[serde(skip_serializing_if = "Option::is_none")]
        token: Option<TokenId>,
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
        /// Who of those who approved is one of whom; sorted, only what the requirement names.
        members: Vec<Membership>,
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
        /// The API token that says so for its principal; the gateway's key signs then.
        #[serde(skip_serializing_if = "Option::is_none")]
        token: Option<TokenId>,
        /// Why, in free text.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<BlobRef>,
    }
}

payload! {
    /// A host of a rollout has its turn. Without this it does not start.
    ledger ExecutionReleased {
        /// The command.
        command: CommandId,
        /// Whose turn it is.
        agent: AgentName,
        /// Which turn, from 0.
        turn: u64,
        /// The ends that it waited for: of the host whose place it takes, and of the last one before
        /// it under a label's gap, if that was another; each once.
        waited_for: Vec<StatementId>,
        /// The labels whose gaps it stands under, sorted: the next turn under one of them waits for
        /// its end.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        labels: Vec<Label>,
        /// Until when it may start.
        start_before: Time,
    }
}

payload! {
    /// A person wants no further host to have its turn for now.
    person RolloutPaused {
        /// The command.
        command: CommandId,
        /// Why, in free text.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<BlobRef>,
    }
}

payload! {
    /// A person lets a paused rollout go on.
    person RolloutResumed {
        /// The command.
        command: CommandId,
        /// Why, in free text.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<BlobRef>,
    }
}

payload! {
    /// A person has looked at what the canary's hosts did, and lets the others have their turns.
    person RolloutContinued {
        /// The command.
        command: CommandId,
        /// Why, in free text.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<BlobRef>,
    }
}

/// Why a host was skipped, where it was not for the command's time being over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SkipReason {
    /// More hosts have ended badly than the rollout allows.
    Errors,
    /// It had its turn and did not start in the time for that.
    TurnMissed,
}

impl SkipReason {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Errors => "errors",
            Self::TurnMissed => "turn_missed",
        }
    }
}

payload! {
    /// This host does not start it: an authorized command's time ran out, or its rollout says so.
    ledger ExecutionSkipped {
        /// The command.
        command: CommandId,
        /// The host that did not start it.
        agent: AgentName,
        /// Why; left out when the command's time ran out.
        #[serde(skip_serializing_if = "Option::is_none")]
        why: Option<SkipReason>,
    }
}

payload! {
    /// A run without approvals waits for a second person's look. By the ledger, with the run.
    ledger ReviewOpened {
        /// The command.
        command: CommandId,
        /// Who ran it.
        requester: Principal,
        /// When the review is overdue.
        due_at: Time,
    }
}

payload! {
    /// A second person has looked at a run without approvals, and signs for that.
    person ReviewClosed {
        /// The command.
        command: CommandId,
        /// What they found, in free text.
        reason: BlobRef,
    }
}

payload! {
    /// An administrator says that this is who may approve, for the hosts that pin administrators.
    /// Each signs a word of their own over the same document.
    person PolicySnapshot {
        /// A [`crate::snapshot::Snapshot`] document.
        document: BlobRef,
        /// The word holds until then, at most a day.
        expires_at: Time,
    }
}

impl PolicySnapshot {
    pub(crate) const fn check(&self) -> Result<(), EventError> {
        if self.document.len > MAX_SNAPSHOT_BYTES as u64 {
            return Err(EventError::Value(
                "the document of a snapshot has at most 1 MiB",
            ));
        }
        // By its signer's own clock; the ledger's and each host's are asked besides.
        let span = self.expires_at.micros_since(self.made_at);
        if span == 0 || span > MAX_VALID_US {
            return Err(EventError::Value(
                "a snapshot holds for some time and for 24 hours at most",
            ));
        }
        Ok(())
    }
}

/// What was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadWhat {
    /// The output of a command.
    Output,
    /// Entries of the log, of everybody.
    Log,
    /// A command's output with its timing.
    Replay,
    /// A bundle to take away.
    Export,
}

payload! {
    /// Somebody reads what not everybody may. It stands in the log before the first byte goes out;
    /// one for each reader, thing and hour.
    ledger AuditRead {
        /// Who reads.
        reader: Principal,
        /// With the session of which key.
        #[serde(skip_serializing_if = "Option::is_none")]
        key_id: Option<KeyId>,
        /// With which API token.
        #[serde(skip_serializing_if = "Option::is_none")]
        token: Option<TokenId>,
        /// What.
        what: ReadWhat,
        /// Of which command; of the whole log when left out.
        #[serde(skip_serializing_if = "Option::is_none")]
        command: Option<CommandId>,
    }
}

/// Why somebody was turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeniedWhat {
    /// A sign-in with a wrong signature, an unknown key, an old challenge.
    SignIn,
    /// An API token that is unknown, revoked or over.
    Token,
    /// A permission that the caller does not hold.
    Permission,
    /// A statement that its signer may not make.
    Statement,
    /// Too many calls.
    RateLimit,
}

payload! {
    /// So many calls were turned away for one reason, in a span of time: counted, so that whoever
    /// is turned away cannot fill the log.
    ledger AccessDenied {
        /// Why.
        what: DeniedWhat,
        /// Who said to be calling; left out where nobody was proved, and for the rest of many.
        #[serde(skip_serializing_if = "Option::is_none")]
        principal: Option<Principal>,
        /// The permission that was missing.
        #[serde(skip_serializing_if = "Option::is_none")]
        permission: Option<Permission>,
        /// How many calls.
        count: u64,
        /// When the first of them came.
        from: Time,
        /// When the last of them came.
        to: Time,
    }
}

/// A key's own word whose it is: proof of possession for `key.added`. Never an entry of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyClaimed {
    /// The key that signs and is claimed.
    pub signer: KeyId,
    /// Whose it is.
    pub principal: Principal,
    /// Random.
    pub nonce: Nonce,
    /// The signer's clock.
    pub made_at: Time,
    /// The ledger it is claimed for.
    pub ledger: LedgerId,
}

impl KeyClaimed {
    pub(crate) const fn header(&self) -> Header<'_> {
        Header {
            signer: self.signer,
            author: Author::Person(&self.principal),
            nonce: self.nonce,
            made_at: self.made_at,
            ledger: Some(self.ledger),
            seen: None,
        }
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
