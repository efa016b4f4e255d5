//! The changes of rights: one table of what each may change.
//!
//! A line gives both the document that administrators consent to ([`ChangeBody`]) and the event by
//! which the ledger puts it into effect; they have the same fields, so that comparing the two is
//! the whole check.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::api::Base64;
use crate::blob::MAX_BLOB_BYTES;
use crate::canonical::{self, CanonicalError};
use crate::effect::LedgerHeader;
use crate::event::payload;
use crate::event::{Event, EventError, Kind};
use crate::hash::{CommandId, Digest, KeyId, LedgerId, StatementId};
use crate::key::PublicKey;
use crate::name::{
    AgentName, GroupName, HoldName, Label, LegalBasis, Principal, RoleName, Time, TokenId,
};
use crate::permission::{Permission, Whom};
use crate::statement::Statement;

/// Most names in one list of a change, so that it fits into a payload.
pub const MAX_NAMES: usize = 64;

/// Most texts that one change erases: 256 MiB of output in full chunks, and as many events as fit
/// into one batch beside everybody else's.
pub const MAX_REDACTED: usize = 4096;

/// Most digests in one `blob.redacted`, so that it fits into a payload with all its consents.
pub const REDACTED_AT_ONCE: usize = 192;

macro_rules! changes {
    ($($(#[$doc:meta])* $name:ident, $word:literal {
        $($(#[$meta:meta])* $field:ident: $type:ty,)*
    })*) => {
        $(payload! {
            $(#[$doc])*
            ledger $name {
                /// The request this puts into effect.
                change: StatementId,
                /// Where the consents stand that counted: the request, then the approvals.
                rests_on: Vec<u64>,
                $($(#[$meta])* $field: $type,)*
            }
        })*

        /// The document behind `change.requested`: what would change.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(tag = "kind", deny_unknown_fields)]
        pub enum ChangeBody {
            $($(#[$doc])* #[serde(rename = $word)] $name {
                $($(#[$meta])* $field: $type,)*
            },)*
        }

        impl ChangeBody {
            /// The kind of the event that puts it into effect.
            #[must_use]
            pub const fn kind(&self) -> Kind {
                match self { $(Self::$name { .. } => Kind::$name,)* }
            }

            /// The event that puts it into effect.
            #[must_use]
            pub fn into_event(self, header: LedgerHeader, change: StatementId, rests_on: Vec<u64>) -> Event {
                let LedgerHeader { signer, nonce, made_at, ledger, seen } = header;
                match self {
                    $(Self::$name { $($field,)* } => Event::$name($name {
                        signer, nonce, made_at, ledger, seen, change, rests_on, $($field,)*
                    }),)*
                }
            }

            /// What an event puts into effect; nothing for an event that is no such effect.
            #[must_use]
            pub fn effected(event: &Event) -> Option<Effected<'_>> {
                $(if let Event::$name(e) = event {
                    return Some(Effected {
                        change: e.change,
                        rests_on: &e.rests_on,
                        body: Self::$name { $($field: e.$field.clone(),)* },
                    });
                })*
                None
            }
        }
    };
}

/// What an effecting event says.
#[derive(Debug)]
pub struct Effected<'a> {
    /// The request.
    pub change: StatementId,
    /// The consents.
    pub rests_on: &'a [u64],
    /// What changes.
    pub body: ChangeBody,
}

changes! {
    /// A person's key counts from here on.
    KeyAdded, "key.added" {
        /// Whose.
        principal: Principal,
        /// The key.
        key: PublicKey,
        /// The key's own word that it is this person's: whoever has it wants it here.
        claim: KeyClaim,
        /// It signs nothing that is entered from this time on.
        #[serde(skip_serializing_if = "Option::is_none")]
        expires_at: Option<Time>,
    }
    /// A key counts no more from here on; what it signed before stays verified.
    KeyRevoked, "key.revoked" {
        /// Which.
        key_id: KeyId,
        /// From which entry on its signatures are suspect.
        #[serde(skip_serializing_if = "Option::is_none")]
        suspect_from: Option<u64>,
    }
    /// A role means these permissions from here on.
    RoleDefined, "role.defined" {
        /// Which; never a built-in one.
        role: RoleName,
        /// All of its permissions, sorted by word, each once.
        permissions: Vec<Permission>,
    }
    /// A person or the members of a group have a role from here on.
    RoleGranted, "role.granted" {
        /// Which.
        role: RoleName,
        /// A user or a group.
        to: Whom,
    }
    /// They have it no more.
    RoleRevoked, "role.revoked" {
        /// Which.
        role: RoleName,
        /// A user or a group.
        from: Whom,
    }
    /// People join and leave a group.
    GroupChanged, "group.changed" {
        /// Which; a group that nobody is in does not exist.
        group: GroupName,
        /// Who joins, sorted, each once.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        add: Vec<Principal>,
        /// Who leaves, sorted, each once.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        remove: Vec<Principal>,
    }
    /// A policy is in force from here on.
    PolicyPublished, "policy.published" {
        /// Digest of its text, which is the request's `document`.
        policy: Digest,
    }
    /// The agent's key counts from here on.
    AgentAccepted, "agent.accepted" {
        /// Which agent.
        agent: AgentName,
        /// Its key.
        key: PublicKey,
        /// The agent's key until here. Absent: the name has none, and nobody's key is replaced.
        #[serde(skip_serializing_if = "Option::is_none")]
        replaces: Option<KeyId>,
        /// What administrators say of the host, sorted, each once; with `replaces` they stay as they were.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        labels: Vec<Label>,
    }
    /// An enrolment is turned down; the key may not enrol under this name again.
    AgentRejected, "agent.rejected" {
        /// Which agent.
        agent: AgentName,
        /// The key it enrolled with.
        key_id: KeyId,
    }
    /// These are the host's labels from here on.
    AgentRelabelled, "agent.relabelled" {
        /// Which agent.
        agent: AgentName,
        /// All of them, sorted, each once.
        labels: Vec<Label>,
    }
    /// The host takes no new work.
    AgentDrained, "agent.drained" {
        /// Which agent.
        agent: AgentName,
    }
    /// It takes work again.
    AgentUndrained, "agent.undrained" {
        /// Which agent.
        agent: AgentName,
    }
    /// The host is gone: its keys end, its name is free.
    AgentRetired, "agent.retired" {
        /// Which agent.
        agent: AgentName,
    }
    /// A secret stands for a principal from here on; the gateway signs what it asks for.
    TokenIssued, "token.issued" {
        /// Its public name; never used again.
        token: TokenId,
        /// For whom it asks.
        principal: Principal,
        /// SHA-256 over the secret, as `docs/PROTOCOL.md` says.
        secret: Digest,
        /// Its roles, sorted, each once.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        roles: Vec<RoleName>,
        /// What it may do beside them, sorted by word, each once.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        permissions: Vec<Permission>,
        /// It asks only for hosts that have one of these; for all when empty.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        labels: Vec<Label>,
        /// It asks only for these programs; for all when empty.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        commands: Vec<ProgramName>,
        /// It stands for nobody from this time on.
        expires_at: Time,
    }
    /// The secret stands for nobody any more.
    TokenRevoked, "token.revoked" {
        /// Which.
        token: TokenId,
    }
    /// Salt and content of these texts are erased, with this entry. A change of many texts takes
    /// effect by several events that stand one behind the other, each of the next of them.
    BlobRedacted, "blob.redacted" {
        /// The command whose texts they are.
        command: CommandId,
        /// Which, sorted, each once.
        digests: Vec<Digest>,
        /// By which law or rule.
        legal_basis: LegalBasis,
    }
    /// Nothing may be erased of these commands until the hold is lifted.
    HoldPlaced, "hold.placed" {
        /// The hold's name.
        hold: HoldName,
        /// These commands, sorted, each once.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        commands: Vec<CommandId>,
        /// All that were to run on this host, too.
        #[serde(skip_serializing_if = "Option::is_none")]
        agent: Option<AgentName>,
        /// All that this person or machine asked for, too.
        #[serde(skip_serializing_if = "Option::is_none")]
        requester: Option<Principal>,
    }
    /// The hold forbids nothing any more.
    HoldLifted, "hold.lifted" {
        /// Which.
        hold: HoldName,
    }
}

/// A program that a token may ask for, as the request writes it.
pub type ProgramName = crate::name::RuleName;

impl ChangeBody {
    /// Parses the document and checks what its shape alone does not.
    ///
    /// # Errors
    /// Not canonical, not of this shape, or a list out of order.
    pub fn parse(document: &[u8]) -> Result<Self, ChangeError> {
        let body: Self = canonical::from_document(document, MAX_BLOB_BYTES)?;
        body.check()?;
        Ok(body)
    }

    /// The document's bytes.
    ///
    /// # Errors
    /// A value that canonical JSON has no form for.
    pub fn to_document(&self) -> Result<Vec<u8>, CanonicalError> {
        canonical::to_vec(self)
    }

    /// The host that it is about; nothing for a change of people, rules or tokens.
    #[must_use]
    pub const fn agent(&self) -> Option<&AgentName> {
        match self {
            Self::AgentAccepted { agent, .. }
            | Self::AgentRejected { agent, .. }
            | Self::AgentRelabelled { agent, .. }
            | Self::AgentDrained { agent }
            | Self::AgentUndrained { agent }
            | Self::AgentRetired { agent } => Some(agent),
            Self::KeyAdded { .. }
            | Self::KeyRevoked { .. }
            | Self::RoleDefined { .. }
            | Self::RoleGranted { .. }
            | Self::RoleRevoked { .. }
            | Self::GroupChanged { .. }
            | Self::PolicyPublished { .. }
            | Self::TokenIssued { .. }
            | Self::TokenRevoked { .. }
            | Self::BlobRedacted { .. }
            | Self::HoldPlaced { .. }
            | Self::HoldLifted { .. } => None,
        }
    }

    /// What would be erased; nothing for a change that erases nothing.
    #[must_use]
    pub const fn erased(&self) -> Option<Erased<'_>> {
        if let Self::BlobRedacted {
            command, digests, ..
        } = self
        {
            Some(Erased {
                command: *command,
                digests: digests.as_slice(),
            })
        } else {
            None
        }
    }

    /// Says whether it erases, or makes way for erasing: two people at least must want it, whatever
    /// genesis says, and say why.
    #[must_use]
    pub const fn needs_two(&self) -> bool {
        matches!(self, Self::BlobRedacted { .. } | Self::HoldLifted { .. })
    }

    /// Says whether whoever asks for it must say why.
    #[must_use]
    pub const fn needs_reason(&self) -> bool {
        self.needs_two() || matches!(self, Self::HoldPlaced { .. })
    }

    /// What the next event puts into effect, and what is left for those behind it.
    #[must_use]
    pub fn in_parts(&self) -> (Self, Option<Self>) {
        if let Self::BlobRedacted {
            command,
            digests,
            legal_basis,
        } = self
        {
            let of = |digests: &[Digest]| Self::BlobRedacted {
                command: *command,
                digests: digests.to_vec(),
                legal_basis: legal_basis.clone(),
            };
            if let Some((now, later)) = digests.split_at_checked(REDACTED_AT_ONCE)
                && !later.is_empty()
            {
                return (of(now), Some(of(later)));
            }
        }
        (self.clone(), None)
    }

    /// Lists are sorted and short, so that a change has one form.
    pub(crate) fn check(&self) -> Result<(), EventError> {
        let listed = match self {
            Self::RoleDefined { permissions, .. } => {
                let words: Vec<&str> = permissions.iter().map(|right| right.as_str()).collect();
                in_order(&words)
            }
            Self::GroupChanged { add, remove, .. } => {
                let some = !add.is_empty() || !remove.is_empty();
                some && in_order(add)
                    && in_order(remove)
                    && !add.iter().any(|who| remove.contains(who))
            }
            Self::AgentAccepted {
                labels, replaces, ..
            } => in_order(labels) && (replaces.is_none() || labels.is_empty()),
            Self::AgentRelabelled { labels, .. } => in_order(labels),
            Self::TokenIssued {
                roles,
                permissions,
                labels,
                commands,
                ..
            } => {
                let words: Vec<&str> = permissions.iter().map(|right| right.as_str()).collect();
                in_order(roles) && in_order(&words) && in_order(labels) && in_order(commands)
            }
            Self::BlobRedacted { digests, .. } => {
                return if !digests.is_empty() && is_sorted(digests, MAX_REDACTED) {
                    Ok(())
                } else {
                    Err(EventError::Value(
                        "a redaction names 1 to 4096 digests, sorted, each once",
                    ))
                };
            }
            Self::HoldPlaced {
                commands,
                agent,
                requester,
                ..
            } => {
                let some = !commands.is_empty() || agent.is_some() || requester.is_some();
                some && in_order(commands)
            }
            Self::KeyAdded { .. }
            | Self::KeyRevoked { .. }
            | Self::RoleGranted { .. }
            | Self::RoleRevoked { .. }
            | Self::PolicyPublished { .. }
            | Self::HoldLifted { .. }
            | Self::AgentRejected { .. }
            | Self::AgentDrained { .. }
            | Self::AgentUndrained { .. }
            | Self::AgentRetired { .. }
            | Self::TokenRevoked { .. } => true,
        };
        if listed {
            Ok(())
        } else {
            Err(EventError::Value(
                "lists of a change are sorted, each name once, 64 at most, and a hold is about something",
            ))
        }
    }
}

fn in_order<T: Ord>(items: &[T]) -> bool {
    is_sorted(items, MAX_NAMES)
}

fn is_sorted<T: Ord>(items: &[T], most: usize) -> bool {
    items.len() <= most && items.iter().zip(items.iter().skip(1)).all(|(a, b)| a < b)
}

/// What a change erases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Erased<'a> {
    /// The command whose texts they are.
    pub command: CommandId,
    /// Which texts.
    pub digests: &'a [Digest],
}

/// Why a document is no change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// Its bytes.
    #[error(transparent)]
    Document(#[from] CanonicalError),
    /// Its values.
    #[error(transparent)]
    Value(#[from] EventError),
}

/// Proof that whoever has a key wants it to be this person's: a signed `key.claimed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyClaim {
    /// The payload of `key.claimed`.
    pub payload: Base64,
    /// The SSHSIG blob over it.
    pub signature: Base64,
}

impl KeyClaim {
    /// Packs a signed claim.
    #[must_use]
    pub fn of(statement: &Statement) -> Self {
        Self {
            payload: Base64(statement.payload.clone()),
            signature: Base64(statement.signature.clone()),
        }
    }

    /// Says whether it is the word of `key` that it is `principal`'s in `ledger`.
    #[must_use]
    pub fn proves(&self, key: &PublicKey, principal: &Principal, ledger: LedgerId) -> bool {
        let statement = Statement {
            kind: Kind::KeyClaimed,
            payload: self.payload.0.clone(),
            signature: self.signature.0.clone(),
        };
        let Ok(verified) = statement.verify() else {
            return false;
        };
        let Event::KeyClaimed(claim) = verified.event() else {
            return false;
        };
        *verified.key() == *key && claim.principal == *principal && claim.ledger == ledger
    }
}
