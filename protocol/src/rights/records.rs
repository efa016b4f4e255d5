//! What the fold of rights holds: keys, hosts, tokens, open changes, open reviews.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::blob::BlobRef;
use crate::event::{ChangeBody, TokenIssued};
use crate::facts::Facts;
use crate::hash::{CommandId, Digest, KeyId};
use crate::key::PublicKey;
use crate::lifecycle::Command;
use crate::name::{AgentName, Label, Principal, SECOND_US, Time};
use crate::policy::{Policy, PolicyRef};
use crate::secret::SealingKey;

/// Most enrolments that wait for an administrator; more would let strangers fill the memory.
pub const MAX_WAITING_ENROLMENTS: usize = 1024;

/// Most changes that wait for consent at once, for the same reason.
pub const MAX_OPEN_CHANGES: usize = 1024;

/// Those of one person among them: whoever may ask for changes of hosts alone must not keep the
/// administrators from revoking a key.
pub const MAX_OPEN_OF_ONE: usize = 128;

/// How long a change waits for consents: who consents to an older one does not know any more what it
/// was about, and what nobody wanted takes no place for ever.
pub const CHANGE_EXPIRES_US: u64 = 7 * 24 * 3600 * SECOND_US;

/// So many consents an effect has room for, beside what changes; a change takes far fewer.
pub(super) const ROOM_FOR_CONSENTS: usize = 64;

/// How long a host waits before it says its facts anew: everybody who reads rights reads them, and a host
/// that somebody took over must not fill them.
pub const FACTS_PAUSE_US: u64 = 60 * SECOND_US;

/// Most reviews that are open at once: who leaves more behind breaks no more glass.
pub const MAX_OPEN_REVIEWS: usize = 1024;

/// Whose a key is. A key has one holder and so one role, for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// The ledger signs its own statements with it.
    Ledger,
    /// It signs for the holders of API tokens, and nothing else.
    Gateway,
    /// It signs checkpoints or waits in a safe: never an event.
    Reserved,
    /// A person's.
    Person(Principal),
    /// An agent's.
    Agent(AgentName),
}

impl Holder {
    /// The person whose it is; nobody when it is no person's.
    #[must_use]
    pub const fn person(&self) -> Option<&Principal> {
        match self {
            Self::Person(name) => Some(name),
            Self::Ledger | Self::Gateway | Self::Reserved | Self::Agent(_) => None,
        }
    }
}

/// A key that the log knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    /// The key itself.
    pub key: PublicKey,
    /// Whose.
    pub holder: Holder,
    /// The entry that made it count.
    pub since: u64,
    /// It signs nothing that is entered from this time on.
    pub expires_at: Option<Time>,
    /// The entry that revoked it, or with which it retired.
    pub revoked: Option<u64>,
    /// It ended by its own word, `agent.key_retired`, and nobody has revoked it since.
    pub retired: bool,
    /// From which entry on its signatures are suspect.
    pub suspect_from: Option<u64>,
}

impl KeyRecord {
    /// Says whether the key signs at `now`.
    #[must_use]
    pub fn is_in_force(&self, now: Time) -> bool {
        self.revoked.is_none() && self.expires_at.is_none_or(|end| now < end)
    }

    /// The word for how it stands at `now`: `in_force`, `expired` or `revoked`.
    #[must_use]
    pub fn standing(&self, now: Time) -> &'static str {
        standing(self.revoked, self.is_in_force(now))
    }
}

/// An agent that waits for an administrator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolment {
    /// The key that it asks to be known by.
    pub key: PublicKey,
    /// What secrets for that key are sealed to, by the key's own word.
    pub sealing_key: Option<SealingKey>,
}

/// An accepted host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentRecord {
    /// The key that new requests name.
    pub key: KeyId,
    /// What administrators say of it.
    pub labels: BTreeSet<Label>,
    /// What secrets are sealed to: as it enrolled with that key.
    pub sealing_key: Option<SealingKey>,
    /// It takes no new work.
    pub drained: bool,
    /// What it says of itself with that key; none before it said anything.
    pub facts: Option<HostFacts>,
    /// When one of its other keys said something last. Nobody reads what.
    pub other_facts_at: Option<Time>,
}

/// What a host has signed of itself last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFacts {
    /// What was signed.
    pub named: BlobRef,
    /// The document, where it is at hand. Shared: rights are cloned to look ahead.
    pub facts: Option<Arc<Facts>>,
    /// The entry.
    pub seq: u64,
    /// The entry's time.
    pub time: Time,
}

/// An API token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRecord {
    /// As it was issued.
    pub issued: TokenIssued,
    /// Where.
    pub since: u64,
    /// The entry that revoked it.
    pub revoked: Option<u64>,
}

impl TokenRecord {
    /// Says whether the token stands for its principal at `now`.
    #[must_use]
    pub fn is_in_force(&self, now: Time) -> bool {
        self.revoked.is_none() && now < self.issued.expires_at
    }

    /// The word for how it stands at `now`: `in_force`, `expired` or `revoked`.
    #[must_use]
    pub fn standing(&self, now: Time) -> &'static str {
        standing(self.revoked, self.is_in_force(now))
    }
}

/// What is neither revoked nor in force has come to its end.
const fn standing(revoked: Option<u64>, in_force: bool) -> &'static str {
    if revoked.is_some() {
        "revoked"
    } else if in_force {
        "in_force"
    } else {
        "expired"
    }
}

/// One person's consent to a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consent {
    /// Who.
    pub principal: Principal,
    /// With which key; a consent ends with its key.
    pub key_id: KeyId,
    /// Where it stands.
    pub seq: u64,
}

/// A requested change that waits for consent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenChange {
    /// What would change.
    pub body: ChangeBody,
    /// The policy that would be published, when one would.
    pub policy: Option<Policy>,
    /// Digest of the body, as the request names it.
    pub digest: Digest,
    /// Who consented: the requester first.
    pub consents: Vec<Consent>,
    /// When it was asked for.
    pub requested_at: Time,
}

impl OpenChange {
    /// Whoever asked for it, while it waits at `now`: with a key that is in force, and not for ever.
    /// What somebody asked for with a key that has ended is nobody else's to go on with.
    pub(super) fn requester(
        &self,
        keys: &BTreeMap<KeyId, KeyRecord>,
        now: Time,
    ) -> Option<&Principal> {
        let first = self.consents.first()?;
        let key = keys.get(&first.key_id)?;
        let waits = now < self.requested_at.plus_micros(CHANGE_EXPIRES_US);
        (waits && key.is_in_force(now)).then_some(&first.principal)
    }
}

/// A run without approvals that nobody has looked at yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenReview {
    /// Who ran it.
    pub requester: Principal,
    /// When it was opened.
    pub opened_at: Time,
    /// From when on it is overdue.
    pub due_at: Time,
    /// Where it was opened.
    pub seq: u64,
}

/// A document that administrators have signed for the hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotRecord {
    /// What was signed.
    pub document: BlobRef,
    /// Until when; the same for each of them.
    pub expires_at: Time,
    /// Who signed, in their order; never empty.
    pub words: Vec<Consent>,
}

/// A legal hold in force. What it is about adds up: it covers what any of its parts names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldRecord {
    /// These commands.
    pub commands: BTreeSet<CommandId>,
    /// All that were to run on this host.
    pub agent: Option<AgentName>,
    /// All that this one asked for.
    pub requester: Option<Principal>,
    /// The entry that placed it.
    pub since: u64,
}

impl HoldRecord {
    /// Says whether it covers a command.
    #[must_use]
    pub fn covers(&self, command: &Command) -> bool {
        let on = |agent: &AgentName| command.executions.contains_key(agent);
        self.commands.contains(&command.id)
            || self.agent.as_ref().is_some_and(on)
            || self.requester.as_ref() == Some(command.requester())
    }
}

/// The policy in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyInForce {
    /// The policy.
    pub policy: Policy,
    /// Its digest and where it was published.
    pub reference: PolicyRef,
}
