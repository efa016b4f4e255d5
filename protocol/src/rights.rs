//! The fold of keys and rights over positions, not over clocks. PROTOCOL 5.
//!
//! `Rights` after N entries says whose key is whose and what it may sign in entry N. Revoking never
//! un-verifies what stands before it. Rights change only by `change.*` of the administrators; the
//! event that puts a change into effect must equal the body they consented to and rest on exactly
//! the consents that counted.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::blob::MAX_BLOB_BYTES;
use crate::canonical::{self, CanonicalError};
use crate::event::{Author, Event, Kind, LedgerGenesis, Signatory};
use crate::fold::Refusal;
use crate::hash::{Digest, KeyId, LedgerId, StatementId};
use crate::key::PublicKey;
use crate::name::{AgentName, Principal};
use crate::policy::{Policy, PolicyRef};
use crate::quorum::Requirement;

/// Most enrolments that wait for an administrator; more would let strangers fill the memory.
pub const MAX_WAITING_ENROLMENTS: usize = 1024;

/// Most changes that wait for consent at once, for the same reason.
pub const MAX_OPEN_CHANGES: usize = 1024;

/// The document behind `change.requested`: what would change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", deny_unknown_fields)]
pub enum ChangeBody {
    /// A person gets a key.
    #[serde(rename = "key.added")]
    KeyAdded {
        /// Whose.
        principal: Principal,
        /// The key.
        key: PublicKey,
    },
    /// A key counts no more.
    #[serde(rename = "key.revoked")]
    KeyRevoked {
        /// Which.
        key_id: KeyId,
        /// From which entry on its signatures are suspect.
        #[serde(skip_serializing_if = "Option::is_none")]
        suspect_from: Option<u64>,
    },
    /// An enrolled agent is accepted.
    #[serde(rename = "agent.accepted")]
    AgentAccepted {
        /// Which.
        agent: AgentName,
        /// With which key.
        key: PublicKey,
        /// The agent's key until then. Absent: the name has none, and nobody's key is replaced.
        #[serde(skip_serializing_if = "Option::is_none")]
        replaces: Option<KeyId>,
    },
    /// A policy comes into force.
    #[serde(rename = "policy.published")]
    PolicyPublished {
        /// The policy.
        policy: Policy,
    },
}

impl ChangeBody {
    /// Parses the document.
    ///
    /// # Errors
    /// Not canonical or not of this shape.
    pub fn parse(document: &[u8]) -> Result<Self, CanonicalError> {
        canonical::from_document(document, MAX_BLOB_BYTES)
    }

    /// The document's bytes.
    ///
    /// # Errors
    /// A value that canonical JSON has no form for.
    pub fn to_document(&self) -> Result<Vec<u8>, CanonicalError> {
        canonical::to_vec(self)
    }
}

/// Whose a key is. A key has one holder and so one role, for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// The ledger signs its own statements with it.
    Ledger,
    /// It signs checkpoints or waits in a safe: never an event.
    Reserved,
    /// A person's.
    Person(Principal),
    /// An agent's.
    Agent(AgentName),
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
    /// The entry that revoked it, or with which it retired.
    pub revoked: Option<u64>,
    /// It ended by its own word, `agent.key_retired`, and nobody has revoked it since.
    pub retired: bool,
    /// From which entry on its signatures are suspect.
    pub suspect_from: Option<u64>,
}

/// One administrator's consent to a change.
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
    /// Digest of the body, as the request names it.
    pub digest: Digest,
    /// Who consented: the requester first.
    pub consents: Vec<Consent>,
}

/// The policy in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyInForce {
    /// The policy.
    pub policy: Policy,
    /// Its digest and where it was published.
    pub reference: PolicyRef,
}

/// Keys, people, agents, policy and open changes after some number of entries.
#[derive(Debug, Clone, Default)]
pub struct Rights {
    ledger: Option<LedgerId>,
    genesis: Option<LedgerGenesis>,
    administrators: BTreeSet<Principal>,
    keys: BTreeMap<KeyId, KeyRecord>,
    agents: BTreeMap<AgentName, KeyId>,
    enrolments: BTreeMap<(AgentName, KeyId), PublicKey>,
    changes: BTreeMap<StatementId, OpenChange>,
    policy: Option<PolicyInForce>,
}

impl Rights {
    /// The ledger's id; nothing before genesis.
    #[must_use]
    pub const fn ledger(&self) -> Option<LedgerId> {
        self.ledger
    }

    /// The first entry's payload.
    #[must_use]
    pub const fn genesis(&self) -> Option<&LedgerGenesis> {
        self.genesis.as_ref()
    }

    /// The policy in force, if one was published.
    #[must_use]
    pub const fn policy(&self) -> Option<&PolicyInForce> {
        self.policy.as_ref()
    }

    /// What a command needs under the policy in force.
    #[must_use]
    pub fn requirement(&self) -> Option<(PolicyRef, Requirement)> {
        let in_force = self.policy.as_ref()?;
        let requirement = Requirement {
            approvals: in_force.policy.approvals,
            approvers: in_force.policy.may_approve.clone(),
        };
        Some((in_force.reference, requirement))
    }

    /// A key that the log knows, revoked or not.
    #[must_use]
    pub fn key(&self, id: &KeyId) -> Option<&KeyRecord> {
        self.keys.get(id)
    }

    /// All keys that the log knows.
    pub fn keys(&self) -> impl Iterator<Item = (&KeyId, &KeyRecord)> {
        self.keys.iter()
    }

    /// The current key of an accepted agent: the one that new requests name.
    #[must_use]
    pub fn agent(&self, name: &AgentName) -> Option<KeyId> {
        self.agents.get(name).copied()
    }

    /// All accepted agents, with their current keys.
    pub fn agents(&self) -> impl Iterator<Item = (&AgentName, &KeyId)> {
        self.agents.iter()
    }

    /// Agents that wait to be accepted.
    pub fn enrolments(&self) -> impl Iterator<Item = (&AgentName, &PublicKey)> {
        self.enrolments.iter().map(|((name, _), key)| (name, key))
    }

    /// Changes that wait for consent.
    pub fn changes(&self) -> impl Iterator<Item = (&StatementId, &OpenChange)> {
        self.changes.iter()
    }

    /// A change that waits for consent.
    #[must_use]
    pub fn change(&self, id: &StatementId) -> Option<&OpenChange> {
        self.changes.get(id)
    }

    /// Says whether this person is an administrator.
    #[must_use]
    pub fn is_administrator(&self, person: &Principal) -> bool {
        self.administrators.contains(person)
    }

    /// Says whether this key may sign this kind for this author, here and now.
    ///
    /// # Errors
    /// A key that is unknown, revoked, of another role, or of somebody else.
    pub fn may_sign(&self, event: &Event, key: &PublicKey) -> Result<(), Refusal> {
        let header = event.header();
        let kind = event.kind();
        if self.genesis.is_none() {
            let Event::LedgerGenesis(genesis) = event else {
                return Err(Refusal::NoGenesis);
            };
            return if genesis.statement_key == *key {
                Ok(())
            } else {
                Err(Refusal::KeyHolder)
            };
        }
        if kind == Kind::LedgerGenesis {
            return Err(Refusal::SecondGenesis);
        }
        if header.ledger != self.ledger {
            return Err(Refusal::WrongLedger);
        }
        if let Event::AgentEnrolled(enrolled) = event {
            return if enrolled.key == *key {
                Ok(())
            } else {
                Err(Refusal::KeyHolder)
            };
        }
        let record = self.keys.get(&header.signer).ok_or(Refusal::UnknownKey)?;
        if record.key != *key {
            return Err(Refusal::UnknownKey);
        }
        if record.revoked.is_some() {
            return Err(Refusal::RevokedKey);
        }
        if !allows(&record.holder, kind.signatory()) {
            return Err(Refusal::KeyRole);
        }
        match (&record.holder, header.author) {
            (Holder::Ledger, Author::Ledger) => Ok(()),
            (Holder::Person(holder), Author::Person(author)) if holder == author => Ok(()),
            (Holder::Agent(holder), Author::Agent(author)) if holder == author => Ok(()),
            (Holder::Ledger | Holder::Reserved | Holder::Person(_) | Holder::Agent(_), _) => {
                Err(Refusal::KeyHolder)
            }
        }
    }

    /// Applies an event that concerns rights, checking that it may follow.
    ///
    /// `body` is the document of a `change.requested`. Events that do not concern rights are not
    /// this fold's and change nothing.
    ///
    /// # Errors
    /// The event may not follow; nothing changed then.
    pub fn apply(
        &mut self,
        seq: u64,
        id: StatementId,
        leaf: crate::hash::Hash,
        event: &Event,
        body: Option<ChangeBody>,
    ) -> Result<(), Refusal> {
        match event {
            Event::LedgerGenesis(genesis) => self.begin(genesis, leaf),
            Event::ChangeRequested(request) => {
                self.require_administrator(&request.principal)?;
                let body = body.ok_or(Refusal::BodyMissing)?;
                self.may_change(&body)?;
                if self.changes.len() >= MAX_OPEN_CHANGES {
                    return Err(Refusal::TooManyOpen);
                }
                let (principal, key_id) = (request.principal.clone(), request.signer);
                let consents = alloc::vec![Consent {
                    principal,
                    key_id,
                    seq
                }];
                let digest = request.body.digest;
                self.changes.insert(
                    id,
                    OpenChange {
                        body,
                        digest,
                        consents,
                    },
                );
                Ok(())
            }
            Event::ChangeApproved(approval) => {
                self.require_administrator(&approval.principal)?;
                let change = self
                    .changes
                    .get_mut(&approval.change)
                    .ok_or(Refusal::UnknownChange)?;
                if change.digest != approval.body {
                    return Err(Refusal::Binding("body"));
                }
                if change
                    .consents
                    .iter()
                    .any(|consent| consent.principal == approval.principal)
                {
                    return Err(Refusal::DuplicateApproval);
                }
                let (principal, key_id) = (approval.principal.clone(), approval.signer);
                change.consents.push(Consent {
                    principal,
                    key_id,
                    seq,
                });
                Ok(())
            }
            Event::ChangeRejected(rejection) => {
                self.require_administrator(&rejection.principal)?;
                let ended = self.changes.remove(&rejection.change);
                ended.map(drop).ok_or(Refusal::UnknownChange)
            }
            Event::KeyAdded(added) => {
                let (principal, key) = (added.principal.clone(), added.key.clone());
                let body = ChangeBody::KeyAdded {
                    principal: principal.clone(),
                    key: key.clone(),
                };
                self.effect(added.change, &body, &added.rests_on)?;
                self.insert_key(seq, key, Holder::Person(principal));
                Ok(())
            }
            Event::KeyRevoked(revoked) => {
                let (key_id, suspect_from) = (revoked.key_id, revoked.suspect_from);
                let body = ChangeBody::KeyRevoked {
                    key_id,
                    suspect_from,
                };
                self.effect(revoked.change, &body, &revoked.rests_on)?;
                if let Some(record) = self.keys.get_mut(&key_id) {
                    // A key that has retired signed nothing since; only the suspicion is new.
                    record.revoked.get_or_insert(seq);
                    record.retired = false;
                    record.suspect_from = suspect_from;
                }
                // An older key of an agent may go; the name goes only with the current one.
                self.agents.retain(|_, key| *key != key_id);
                for change in self.changes.values_mut() {
                    change.consents.retain(|consent| consent.key_id != key_id);
                }
                Ok(())
            }
            Event::PolicyPublished(published) => {
                let policy = published.policy.clone();
                let digest = policy.digest().map_err(|_| Refusal::Binding("policy"))?;
                let body = ChangeBody::PolicyPublished {
                    policy: policy.clone(),
                };
                self.effect(published.change, &body, &published.rests_on)?;
                self.policy = Some(PolicyInForce {
                    policy,
                    reference: PolicyRef { digest, seq },
                });
                Ok(())
            }
            Event::AgentEnrolled(enrolled) => self.enrol(&enrolled.agent, &enrolled.key),
            Event::AgentAccepted(accepted) => {
                let (agent, key) = (accepted.agent.clone(), accepted.key.clone());
                let body = ChangeBody::AgentAccepted {
                    agent: agent.clone(),
                    key: key.clone(),
                    replaces: accepted.replaces,
                };
                self.effect(accepted.change, &body, &accepted.rests_on)?;
                self.enrolments.retain(|(name, _), _| *name != agent);
                self.agents.insert(agent.clone(), key.key_id());
                // A key that was the agent's before stays in force until it ends by an event.
                self.insert_key(seq, key, Holder::Agent(agent));
                Ok(())
            }
            Event::AgentKeyRetired(retired) => self.retire(seq, &retired.agent, &retired.signer),
            Event::LedgerHeartbeat(_)
            | Event::CommandRequested(_)
            | Event::CommandApproved(_)
            | Event::CommandRejected(_)
            | Event::CommandWithdrawn(_)
            | Event::CommandAuthorized(_)
            | Event::CommandExpired(_)
            | Event::CommandCancelRequested(_)
            | Event::ExecutionStarted(_)
            | Event::ExecutionRefused(_)
            | Event::ExecutionSkipped(_)
            | Event::ExecutionOutput(_)
            | Event::ExecutionCompleted(_)
            | Event::ExecutionLost(_) => Ok(()),
            Event::SessionChallenge(_) => Err(Refusal::NotAnEvent),
        }
    }

    /// The consents of a change that has enough of them: what its effect rests on.
    #[must_use]
    pub fn ready(&self, id: &StatementId) -> Option<(&ChangeBody, Vec<u64>)> {
        let change = self.changes.get(id)?;
        let threshold = self.genesis.as_ref()?.threshold;
        let people: BTreeSet<&Principal> = change
            .consents
            .iter()
            .map(|consent| &consent.principal)
            .collect();
        if people.len() < threshold as usize || self.may_change(&change.body).is_err() {
            return None;
        }
        Some((
            &change.body,
            change.consents.iter().map(|consent| consent.seq).collect(),
        ))
    }

    fn begin(&mut self, genesis: &LedgerGenesis, leaf: crate::hash::Hash) -> Result<(), Refusal> {
        if self.genesis.is_some() {
            return Err(Refusal::SecondGenesis);
        }
        self.ledger = Some(LedgerId::new(*leaf.as_bytes()));
        self.insert_key(0, genesis.statement_key.clone(), Holder::Ledger);
        self.insert_key(0, genesis.checkpoint_key.clone(), Holder::Reserved);
        if let Some(recovery) = &genesis.recovery_key {
            self.insert_key(0, recovery.clone(), Holder::Reserved);
        }
        for administrator in &genesis.administrators {
            let principal = administrator.principal.clone();
            self.administrators.insert(principal.clone());
            self.insert_key(0, administrator.key.clone(), Holder::Person(principal));
        }
        self.genesis = Some(genesis.clone());
        Ok(())
    }

    fn insert_key(&mut self, since: u64, key: PublicKey, holder: Holder) {
        let record = KeyRecord {
            holder,
            since,
            revoked: None,
            retired: false,
            suspect_from: None,
            key,
        };
        self.keys.insert(record.key.key_id(), record);
    }

    fn enrol(&mut self, agent: &AgentName, key: &PublicKey) -> Result<(), Refusal> {
        let id = key.key_id();
        if self.keys.contains_key(&id) || self.enrolments.contains_key(&(agent.clone(), id)) {
            return Err(Refusal::KeyTaken);
        }
        if self.enrolments.len() >= MAX_WAITING_ENROLMENTS {
            return Err(Refusal::TooManyOpen);
        }
        self.enrolments.insert((agent.clone(), id), key.clone());
        Ok(())
    }

    /// The key ends by its own word. The current one does not: a host would cut itself off.
    fn retire(&mut self, seq: u64, agent: &AgentName, key: &KeyId) -> Result<(), Refusal> {
        if self.agents.get(agent) == Some(key) {
            return Err(Refusal::CurrentKey);
        }
        let record = self.keys.get_mut(key).ok_or(Refusal::UnknownKey)?;
        record.revoked = Some(seq);
        record.retired = true;
        Ok(())
    }

    fn require_administrator(&self, person: &Principal) -> Result<(), Refusal> {
        if self.is_administrator(person) {
            Ok(())
        } else {
            Err(Refusal::NotPermitted)
        }
    }

    /// Says whether a change could take effect now.
    fn may_change(&self, body: &ChangeBody) -> Result<(), Refusal> {
        let refuse = |refused: bool, why| if refused { Err(why) } else { Ok(()) };
        match body {
            ChangeBody::KeyAdded { key, .. } => {
                refuse(self.keys.contains_key(&key.key_id()), Refusal::KeyTaken)
            }
            ChangeBody::KeyRevoked { key_id, .. } => {
                let record = self.keys.get(key_id).ok_or(Refusal::UnknownKey)?;
                // What a retired key signed may still be called suspect: a thief could retire it.
                let ended = record.revoked.is_some() && !record.retired;
                refuse(ended, Refusal::RevokedKey)?;
                let own = matches!(record.holder, Holder::Ledger | Holder::Reserved);
                refuse(own, Refusal::KeyRole)
            }
            ChangeBody::AgentAccepted {
                agent,
                key,
                replaces,
            } => {
                refuse(
                    self.agents.get(agent) != replaces.as_ref(),
                    Refusal::AgentTaken,
                )?;
                refuse(self.keys.contains_key(&key.key_id()), Refusal::KeyTaken)?;
                let enrolled = self.enrolments.contains_key(&(agent.clone(), key.key_id()));
                refuse(!enrolled, Refusal::UnknownAgent)
            }
            ChangeBody::PolicyPublished { policy } => {
                policy.check().map_err(|_| Refusal::Binding("policy"))
            }
        }
    }

    /// Checks an effecting event against the change it rests on, and closes that change.
    fn effect(
        &mut self,
        change: StatementId,
        body: &ChangeBody,
        rests_on: &[u64],
    ) -> Result<(), Refusal> {
        if !self.changes.contains_key(&change) {
            return Err(Refusal::UnknownChange);
        }
        let (agreed, consents) = self.ready(&change).ok_or(Refusal::Quorum)?;
        if agreed != body {
            return Err(Refusal::Binding("body"));
        }
        if consents != rests_on {
            return Err(Refusal::Binding("rests_on"));
        }
        self.changes.remove(&change);
        Ok(())
    }
}

const fn allows(holder: &Holder, signatory: Signatory) -> bool {
    match signatory {
        Signatory::Ledger => matches!(holder, Holder::Ledger),
        Signatory::Person => matches!(holder, Holder::Person(_)),
        Signatory::Agent => matches!(holder, Holder::Agent(_)),
        Signatory::LedgerOrAgent => matches!(holder, Holder::Ledger | Holder::Agent(_)),
        // A newcomer has no record yet, and a sign-in is never an entry.
        Signatory::Newcomer | Signatory::SignIn => false,
    }
}
