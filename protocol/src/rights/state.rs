//! Everything that is known of keys, people, hosts, rules and tokens after some entries, and how an
//! entry changes it.
//!
//! `Rights` after N entries says whose key is whose and what it may sign in entry N. Revoking never
//! un-verifies what stands before it. Rights change only by `change.*`; the event that puts a change
//! into effect must equal the body that was consented to and rest on exactly the consents that
//! counted.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::records::{
    AgentRecord, Consent, Enrolment, FACTS_PAUSE_US, HoldRecord, Holder, HostFacts, KeyRecord,
    MAX_OPEN_CHANGES, MAX_OPEN_OF_ONE, MAX_OPEN_REVIEWS, MAX_WAITING_ENROLMENTS, OpenChange,
    OpenReview, PolicyInForce, ROOM_FOR_CONSENTS, SnapshotRecord, TokenRecord,
};
use crate::effect::LedgerHeader;
use crate::event::{
    AgentEnrolled, AgentFacts, Author, ChangeApproved, ChangeBody, ChangeRequested, Event, Kind,
    LedgerGenesis, ReviewClosed, ReviewOpened, Seen, Signatory,
};
use crate::facts::Facts;
use crate::fold::Refusal;
use crate::hash::{CommandId, Digest, Hash, KeyId, LedgerId, StatementId};
use crate::judgement::Judge;
use crate::key::PublicKey;
use crate::lifecycle::Position;
use crate::name::{
    AgentName, GroupName, HoldName, Label, MAX_INTEGER, Principal, RoleName, Time, TokenId,
};
use crate::permission::{ADMIN, Permission, Whom};
use crate::policy::{Policy, PolicyRef};
use crate::refusal::require;
use crate::{decision_event, execution_event, other_event};

/// Keys, people, hosts, rules, tokens, open changes and open reviews after some number of entries.
#[derive(Debug, Clone, Default)]
pub struct Rights {
    pub(super) ledger: Option<LedgerId>,
    pub(super) genesis: Option<LedgerGenesis>,
    pub(super) keys: BTreeMap<KeyId, KeyRecord>,
    pub(super) roles: BTreeMap<RoleName, BTreeSet<Permission>>,
    pub(super) grants: BTreeSet<(Whom, RoleName)>,
    pub(super) groups: BTreeMap<GroupName, BTreeSet<Principal>>,
    pub(super) agents: BTreeMap<AgentName, AgentRecord>,
    pub(super) enrolments: BTreeMap<(AgentName, KeyId), Enrolment>,
    pub(super) rejected: BTreeSet<KeyId>,
    pub(super) tokens: BTreeMap<TokenId, TokenRecord>,
    pub(super) changes: BTreeMap<StatementId, OpenChange>,
    pub(super) reviews: BTreeMap<CommandId, OpenReview>,
    pub(super) snapshots: Vec<SnapshotRecord>,
    pub(super) legal_holds: BTreeMap<HoldName, HoldRecord>,
    /// What was redacted, and by which entry.
    pub(super) redacted: Arc<BTreeMap<Digest, u64>>,
    policy: Option<PolicyInForce>,
    changed_at: Option<Time>,
}

/// What came with a `change.requested`, checked against what it names.
#[derive(Debug, Clone)]
pub(crate) struct Proposal {
    /// What would change.
    pub(crate) body: ChangeBody,
    /// The policy's text, of a policy.
    pub(crate) policy: Option<Policy>,
}

/// The document that an event of rights is judged by.
#[derive(Debug, Clone)]
pub(crate) enum Document {
    /// It needs none, or it is not at hand.
    None,
    /// Of a `change.requested`.
    Proposal(Box<Proposal>),
    /// Of an `agent.facts`.
    Facts(Facts),
}

impl Document {
    /// What a change would be.
    pub(crate) const fn proposal(&self) -> Option<&Proposal> {
        match self {
            Self::Proposal(proposal) => Some(proposal),
            Self::None | Self::Facts(_) => None,
        }
    }
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

    /// The policy in force: the built-in one from genesis on, then what was published.
    #[must_use]
    pub const fn policy(&self) -> Option<&PolicyInForce> {
        self.policy.as_ref()
    }

    /// When something last changed that a judgement may look at: an entry's time. What only waits
    /// for consent is none of it.
    #[must_use]
    pub const fn changed_at(&self) -> Option<Time> {
        self.changed_at
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
        self.agents.get(name).map(|record| record.key)
    }

    /// An accepted agent.
    #[must_use]
    pub fn agent_record(&self, name: &AgentName) -> Option<&AgentRecord> {
        self.agents.get(name)
    }

    /// All accepted agents.
    pub fn agents(&self) -> impl Iterator<Item = (&AgentName, &AgentRecord)> {
        self.agents.iter()
    }

    /// The labels of a host; none of one that is not accepted.
    pub fn labels(&self, name: &AgentName) -> impl Iterator<Item = &Label> {
        self.agents
            .get(name)
            .into_iter()
            .flat_map(|record| &record.labels)
    }

    /// Agents that wait to be accepted.
    pub fn enrolments(&self) -> impl Iterator<Item = (&AgentName, &PublicKey)> {
        let waiting = self.enrolments.iter();
        waiting.map(|((name, _), enrolment)| (name, &enrolment.key))
    }

    /// Roles that were defined, beside the built-in ones.
    pub fn roles(&self) -> impl Iterator<Item = (&RoleName, &BTreeSet<Permission>)> {
        self.roles.iter()
    }

    /// Who was granted which role.
    pub fn grants(&self) -> impl Iterator<Item = (&Whom, &RoleName)> {
        self.grants.iter().map(|(whom, role)| (whom, role))
    }

    /// Groups and their members.
    pub fn groups(&self) -> impl Iterator<Item = (&GroupName, &BTreeSet<Principal>)> {
        self.groups.iter()
    }

    /// An API token, revoked or not.
    #[must_use]
    pub fn token(&self, id: &TokenId) -> Option<&TokenRecord> {
        self.tokens.get(id)
    }

    /// All API tokens.
    pub fn tokens(&self) -> impl Iterator<Item = (&TokenId, &TokenRecord)> {
        self.tokens.iter()
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

    /// Runs without approvals that nobody has looked at.
    pub fn reviews(&self) -> impl Iterator<Item = (&CommandId, &OpenReview)> {
        self.reviews.iter()
    }

    /// Says whether this key may sign this kind for this author, here and now.
    ///
    /// # Errors
    /// A key that is unknown, revoked, expired, of another role, or of somebody else.
    pub fn may_sign(&self, event: &Event, key: &PublicKey, now: Time) -> Result<(), Refusal> {
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
        if !record.is_in_force(now) {
            return Err(Refusal::KeyExpired);
        }
        if record.holder == Holder::Gateway {
            return self.may_sign_for(event, now);
        }
        if !allows(&record.holder, kind.signatory()) {
            return Err(Refusal::KeyRole);
        }
        // A person's own key does not speak in the name of a token.
        if token_of(event).is_some() {
            return Err(Refusal::KeyRole);
        }
        match (&record.holder, header.author) {
            (Holder::Ledger, Author::Ledger) => Ok(()),
            (Holder::Person(holder), Author::Person(author)) if holder == author => Ok(()),
            (Holder::Agent(holder), Author::Agent(author)) if holder == author => Ok(()),
            (
                Holder::Ledger
                | Holder::Gateway
                | Holder::Reserved
                | Holder::Person(_)
                | Holder::Agent(_),
                _,
            ) => Err(Refusal::KeyHolder),
        }
    }

    /// The gateway says what a token asks for, in the name of the token's principal, and says so.
    fn may_sign_for(&self, event: &Event, now: Time) -> Result<(), Refusal> {
        let (token, principal) = token_of(event).ok_or(Refusal::KeyRole)?;
        let record = self.tokens.get(token).ok_or(Refusal::UnknownToken)?;
        if !record.is_in_force(now) {
            return Err(Refusal::TokenEnded);
        }
        if record.issued.principal == *principal {
            Ok(())
        } else {
            Err(Refusal::KeyHolder)
        }
    }

    /// Applies an event that concerns rights, checking that it may follow.
    ///
    /// `document` came with a `change.requested` or an `agent.facts`. Events that do not concern rights are not this
    /// fold's and change nothing.
    ///
    /// # Errors
    /// The event may not follow; nothing changed then.
    pub(crate) fn apply(
        &mut self,
        at: Position,
        leaf: Hash,
        event: &Event,
        document: Document,
        judge: &dyn Judge,
    ) -> Result<(), Refusal> {
        match event {
            Event::LedgerGenesis(genesis) => self.begin(genesis, leaf),
            Event::ChangeRequested(request) => {
                let Document::Proposal(proposal) = document else {
                    return Err(Refusal::BodyMissing);
                };
                return self.propose(request, at, *proposal, judge);
            }
            Event::ChangeApproved(approval) => return self.consent(approval, at, judge),
            Event::ChangeRejected(rejection) => {
                let change = self.changes.get(&rejection.change);
                let change = change.ok_or(Refusal::UnknownChange)?;
                self.may_stop(&rejection.principal, change, judge, at.time)?;
                self.changes.remove(&rejection.change);
                return Ok(());
            }
            Event::AgentEnrolled(enrolled) => return self.enrol(enrolled),
            Event::AgentKeyRetired(retired) => self.retire(at.seq, &retired.agent, &retired.signer),
            Event::ReviewOpened(opened) => self.open_review(opened, at),
            Event::ReviewClosed(closed) => self.close_review(closed),
            // Nothing that a judgement looks at: the lines of a request have the values of their time.
            Event::AgentFacts(said) => return self.take_facts(said, at, document),
            // Nor here: it is for the hosts.
            Event::PolicySnapshot(word) => return self.sign_snapshot(word, at),
            crate::effecting_event!() => self.take_effect(at, event, judge),
            decision_event!() | execution_event!() | Event::CommandRequested(_) => return Ok(()),
            other_event!() | Event::AgentIdle(_) => return Err(Refusal::NotAnEvent),
        }?;
        self.changed_at = Some(at.time);
        Ok(())
    }

    fn begin(&mut self, genesis: &LedgerGenesis, leaf: Hash) -> Result<(), Refusal> {
        if self.genesis.is_some() {
            return Err(Refusal::SecondGenesis);
        }
        let admin: RoleName = ADMIN.parse().map_err(|_| Refusal::UnknownRole)?;
        self.ledger = Some(LedgerId::new(*leaf.as_bytes()));
        self.insert_key(0, genesis.statement_key.clone(), Holder::Ledger, None);
        self.insert_key(0, genesis.checkpoint_key.clone(), Holder::Reserved, None);
        if let Some(recovery) = &genesis.recovery_key {
            self.insert_key(0, recovery.clone(), Holder::Reserved, None);
        }
        if let Some(gateway) = &genesis.gateway_key {
            self.insert_key(0, gateway.clone(), Holder::Gateway, None);
        }
        for administrator in &genesis.administrators {
            let principal = administrator.principal.clone();
            self.grants
                .insert((Whom::User(principal.clone()), admin.clone()));
            let key = administrator.key.clone();
            self.insert_key(0, key, Holder::Person(principal), None);
        }
        let policy = Policy::built_in();
        let digest = policy.digest();
        self.policy = Some(PolicyInForce {
            policy,
            reference: PolicyRef { digest, seq: 0 },
        });
        self.genesis = Some(genesis.clone());
        Ok(())
    }

    fn propose(
        &mut self,
        request: &ChangeRequested,
        at: Position,
        proposal: Proposal,
        judge: &dyn Judge,
    ) -> Result<(), Refusal> {
        let Proposal { body, policy } = proposal;
        self.may_ask(&request.principal, &body)?;
        if body.needs_reason() && request.reason.is_none() {
            return Err(Refusal::ReasonMissing);
        }
        require_sayable(request, at.id, &body)?;
        self.may_change(&body, policy.as_ref(), judge, at.time)?;
        let changes = self.changes.values();
        let open = changes.filter_map(|change| change.requester(&self.keys, at.time));
        let of_one = open.clone().filter(|who| **who == request.principal);
        if open.clone().count() >= MAX_OPEN_CHANGES || of_one.count() >= MAX_OPEN_OF_ONE {
            return Err(Refusal::TooManyOpen);
        }
        let first = Consent {
            principal: request.principal.clone(),
            key_id: request.signer,
            seq: at.seq,
        };
        let change = OpenChange {
            body,
            policy,
            digest: request.body.digest,
            consents: alloc::vec![first],
            requested_at: at.time,
        };
        self.changes.insert(at.id, change);
        Ok(())
    }

    /// Forgets changes that nobody can consent to any more.
    pub(crate) fn forget_ended(&mut self, now: Time) {
        let keys = &self.keys;
        self.changes
            .retain(|_, change| change.requester(keys, now).is_some());
    }

    fn consent(
        &mut self,
        approval: &ChangeApproved,
        at: Position,
        judge: &dyn Judge,
    ) -> Result<(), Refusal> {
        let change = self.changes.get(&approval.change);
        let change = change.ok_or(Refusal::UnknownChange)?;
        self.may_consent(&approval.principal, change, judge, at.time)?;
        if change.digest != approval.body {
            return Err(Refusal::Binding("body"));
        }
        let again =
            |given: &Consent| given.principal == approval.principal && self.stands(given, at.time);
        if change.consents.iter().any(again) {
            return Err(Refusal::DuplicateApproval);
        }
        if let Some(change) = self.changes.get_mut(&approval.change) {
            // One of theirs whose key is over counts no more, and this one takes its place.
            change
                .consents
                .retain(|given| given.principal != approval.principal);
            change.consents.push(Consent {
                principal: approval.principal.clone(),
                key_id: approval.signer,
                seq: at.seq,
            });
        }
        Ok(())
    }

    /// Checks an effecting event against the change it rests on, closes that change and lets it
    /// happen.
    fn take_effect(
        &mut self,
        at: Position,
        event: &Event,
        judge: &dyn Judge,
    ) -> Result<(), Refusal> {
        let effected = ChangeBody::effected(event).ok_or(Refusal::NotAnEvent)?;
        let id = effected.change;
        if !self.changes.contains_key(&id) {
            return Err(Refusal::UnknownChange);
        }
        let (agreed, consents) = self.ready(&id, judge, at.time).ok_or(Refusal::Quorum)?;
        let (now, rest) = agreed.in_parts();
        if now != effected.body {
            return Err(Refusal::Binding("body"));
        }
        if consents != effected.rests_on {
            return Err(Refusal::Binding("rests_on"));
        }
        let mut policy = None;
        if let Some(rest) = rest {
            if let Some(change) = self.changes.get_mut(&id) {
                change.body = rest;
            }
        } else {
            policy = self.changes.remove(&id).and_then(|change| change.policy);
        }
        self.happen(at.seq, event, effected.body, policy);
        Ok(())
    }

    /// Puts a change into effect that was found possible.
    fn happen(&mut self, seq: u64, event: &Event, body: ChangeBody, policy: Option<Policy>) {
        match body {
            ChangeBody::BlobRedacted { .. } => {
                if let Some(erased) = body.erased() {
                    self.redact(seq, erased);
                }
            }
            ChangeBody::HoldPlaced { .. } => self.place_hold(seq, body),
            ChangeBody::HoldLifted { hold } => drop(self.legal_holds.remove(&hold)),
            ChangeBody::KeyAdded {
                principal,
                key,
                expires_at,
                claim: _,
            } => self.insert_key(seq, key, Holder::Person(principal), expires_at),
            ChangeBody::KeyRevoked {
                key_id,
                suspect_from,
            } => self.revoke(seq, key_id, suspect_from),
            ChangeBody::RoleDefined { role, permissions } => {
                self.roles.insert(role, permissions.into_iter().collect());
            }
            ChangeBody::RoleGranted { role, to } => drop(self.grants.insert((to, role))),
            ChangeBody::RoleRevoked { role, from } => drop(self.grants.remove(&(from, role))),
            ChangeBody::GroupChanged { group, add, remove } => {
                self.change_group(&group, &add, &remove);
            }
            ChangeBody::PolicyPublished { policy: digest } => {
                if let Some(policy) = policy {
                    let reference = PolicyRef { digest, seq };
                    self.policy = Some(PolicyInForce { policy, reference });
                }
            }
            ChangeBody::AgentAccepted {
                agent,
                key,
                replaces: _,
                labels,
            } => {
                let current = key.key_id();
                // Said by the key that the administrators accept, so it is theirs as well.
                let enrolment = self.enrolments.get(&(agent.clone(), current));
                let sealing_key = enrolment.and_then(|enrolment| enrolment.sealing_key);
                self.enrolments.retain(|(name, _), _| *name != agent);
                // A key that was the agent's before stays in force until it ends by an event.
                self.insert_key(seq, key, Holder::Agent(agent.clone()), None);
                let record = self.agents.entry(agent).or_insert_with(|| AgentRecord {
                    key: current,
                    sealing_key,
                    labels: labels.into_iter().collect(),
                    drained: false,
                    facts: None,
                    other_facts_at: None,
                });
                if record.key != current {
                    // Another key's words are not this one's.
                    record.facts = None;
                }
                record.key = current;
                record.sealing_key = sealing_key;
            }
            ChangeBody::AgentRejected { agent, key_id } => {
                self.enrolments.remove(&(agent, key_id));
                self.rejected.insert(key_id);
            }
            ChangeBody::AgentRelabelled { agent, labels } => {
                if let Some(record) = self.agents.get_mut(&agent) {
                    record.labels = labels.into_iter().collect();
                }
            }
            ChangeBody::AgentDrained { agent } => self.set_drained(&agent, true),
            ChangeBody::AgentUndrained { agent } => self.set_drained(&agent, false),
            ChangeBody::AgentRetired { agent } => {
                self.agents.remove(&agent);
                let holder = Holder::Agent(agent);
                let own = self
                    .keys
                    .values_mut()
                    .filter(|record| record.holder == holder);
                for record in own {
                    record.revoked.get_or_insert(seq);
                }
            }
            ChangeBody::TokenIssued { token, .. } => {
                if let Event::TokenIssued(issued) = event {
                    let record = TokenRecord {
                        issued: issued.clone(),
                        since: seq,
                        revoked: None,
                    };
                    self.tokens.insert(token, record);
                }
            }
            ChangeBody::TokenRevoked { token } => {
                if let Some(record) = self.tokens.get_mut(&token) {
                    record.revoked.get_or_insert(seq);
                }
            }
        }
    }

    fn place_hold(&mut self, seq: u64, body: ChangeBody) {
        if let ChangeBody::HoldPlaced {
            hold,
            commands,
            agent,
            requester,
        } = body
        {
            let record = HoldRecord {
                commands: commands.into_iter().collect(),
                agent,
                requester,
                since: seq,
            };
            self.legal_holds.insert(hold, record);
        }
    }

    pub(super) fn change_group(
        &mut self,
        group: &GroupName,
        add: &[Principal],
        remove: &[Principal],
    ) {
        let members = self.groups.entry(group.clone()).or_default();
        members.extend(add.iter().cloned());
        members.retain(|member| !remove.contains(member));
        if members.is_empty() {
            self.groups.remove(group);
        }
    }

    fn set_drained(&mut self, agent: &AgentName, drained: bool) {
        if let Some(record) = self.agents.get_mut(agent) {
            record.drained = drained;
        }
    }

    fn revoke(&mut self, seq: u64, key_id: KeyId, suspect_from: Option<u64>) {
        if let Some(record) = self.keys.get_mut(&key_id) {
            // A key that has retired signed nothing since; only the suspicion is new.
            record.revoked.get_or_insert(seq);
            record.retired = false;
            record.suspect_from = suspect_from;
        }
        // An older key of an agent may go; the name goes only with the current one.
        self.agents.retain(|_, record| record.key != key_id);
        // First of all, so that nobody's consent moves to the requester's place.
        let own = |change: &OpenChange| {
            let first = change.consents.first();
            first.is_none_or(|first| first.key_id == key_id)
        };
        self.changes.retain(|_, change| !own(change));
        for change in self.changes.values_mut() {
            change.consents.retain(|consent| consent.key_id != key_id);
        }
    }

    fn insert_key(&mut self, since: u64, key: PublicKey, holder: Holder, expires_at: Option<Time>) {
        let record = KeyRecord {
            holder,
            since,
            expires_at,
            revoked: None,
            retired: false,
            suspect_from: None,
            key,
        };
        self.keys.insert(record.key.key_id(), record);
    }

    fn enrol(&mut self, enrolled: &AgentEnrolled) -> Result<(), Refusal> {
        let (agent, id) = (&enrolled.agent, enrolled.key.key_id());
        let known = self.keys.contains_key(&id) || self.rejected.contains(&id);
        if known || self.enrolments.contains_key(&(agent.clone(), id)) {
            return Err(Refusal::KeyTaken);
        }
        if self.enrolments.len() >= MAX_WAITING_ENROLMENTS {
            return Err(Refusal::TooManyOpen);
        }
        let enrolment = Enrolment {
            key: enrolled.key.clone(),
            sealing_key: enrolled.sealing_key,
        };
        self.enrolments.insert((agent.clone(), id), enrolment);
        Ok(())
    }

    /// The key ends by its own word. The current one does not: a host would cut itself off.
    fn retire(&mut self, seq: u64, agent: &AgentName, key: &KeyId) -> Result<(), Refusal> {
        if self.agent(agent) == Some(*key) {
            return Err(Refusal::CurrentKey);
        }
        let record = self.keys.get_mut(key).ok_or(Refusal::UnknownKey)?;
        record.revoked = Some(seq);
        record.retired = true;
        Ok(())
    }

    /// What a host says of itself counts from the key that new requests name.
    fn take_facts(
        &mut self,
        said: &AgentFacts,
        at: Position,
        document: Document,
    ) -> Result<(), Refusal> {
        let record = self.agents.get_mut(&said.agent);
        let record = record.ok_or(Refusal::UnknownAgent)?;
        let is_current = record.key == said.signer;
        let last = if is_current {
            record.facts.as_ref().map(|facts| facts.time)
        } else {
            record.other_facts_at
        };
        let soon = |last| at.time.micros_since(last) < FACTS_PAUSE_US;
        require(!last.is_some_and(soon), Refusal::FactsTooSoon)?;
        if !is_current {
            // A key in its grace says what nobody reads, and as seldom.
            record.other_facts_at = Some(at.time);
            return Ok(());
        }
        let facts = match document {
            Document::Facts(facts) => Some(Arc::new(facts)),
            Document::None | Document::Proposal(_) => None,
        };
        record.facts = Some(HostFacts {
            named: said.facts,
            facts,
            seq: at.seq,
            time: at.time,
        });
        Ok(())
    }

    fn open_review(&mut self, opened: &ReviewOpened, at: Position) -> Result<(), Refusal> {
        if self.reviews.contains_key(&opened.command) {
            return Err(Refusal::Transition);
        }
        let review = OpenReview {
            requester: opened.requester.clone(),
            opened_at: at.time,
            due_at: opened.due_at,
            seq: at.seq,
        };
        self.reviews.insert(opened.command, review);
        Ok(())
    }

    fn close_review(&mut self, closed: &ReviewClosed) -> Result<(), Refusal> {
        let review = self.reviews.get(&closed.command);
        let review = review.ok_or(Refusal::UnknownReview)?;
        // Four eyes come first, so that whoever broke the glass learns the real reason.
        if review.requester == closed.principal {
            return Err(Refusal::OwnReview);
        }
        if !self.holds(&closed.principal, Permission::ReviewClose) {
            return Err(Refusal::NotPermitted(Permission::ReviewClose));
        }
        self.reviews.remove(&closed.command);
        Ok(())
    }

    /// Says whether one more review may be opened.
    pub(crate) fn has_room_for_a_review(&self) -> bool {
        self.reviews.len() < MAX_OPEN_REVIEWS
    }
}

/// The event that would put a change into effect fits into a payload, whatever the numbers in it.
fn require_sayable(
    request: &ChangeRequested,
    change: StatementId,
    body: &ChangeBody,
) -> Result<(), Refusal> {
    let header = LedgerHeader {
        signer: request.signer,
        nonce: request.nonce,
        made_at: request.made_at,
        ledger: request.ledger,
        seen: Seen {
            size: MAX_INTEGER,
            ..request.seen
        },
    };
    let rests_on = alloc::vec![MAX_INTEGER; ROOM_FOR_CONSENTS];
    let event = body.in_parts().0.into_event(header, change, rests_on);
    event.to_payload().map(drop).map_err(|_| Refusal::TooLarge)
}

/// The token in whose name a statement says to speak, and for whom. True where the gateway signed it.
#[must_use]
pub const fn token_of(event: &Event) -> Option<(&TokenId, &Principal)> {
    let (token, principal) = match event {
        Event::CommandRequested(e) => (&e.token, &e.principal),
        Event::CommandWithdrawn(e) => (&e.token, &e.principal),
        Event::CommandCancelRequested(e) => (&e.token, &e.principal),
        crate::rights_event!()
        | execution_event!()
        | other_event!()
        | Event::AgentIdle(_)
        | Event::CommandApproved(_)
        | Event::CommandRejected(_)
        | Event::CommandVotedDown(_)
        | Event::CommandAuthorized(_)
        | Event::CommandExpired(_)
        | Event::RolloutPaused(_)
        | Event::RolloutResumed(_)
        | Event::RolloutContinued(_) => return None,
    };
    match token {
        Some(token) => Some((token, principal)),
        None => None,
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
