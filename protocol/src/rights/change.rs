//! What may change now, and whose consent it takes.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::{ChangeBody, Consent, Holder, KeyRecord, OpenChange, Rights};
use crate::hash::{KeyId, StatementId};
use crate::judgement::{ChangeQuestion, Judge};
use crate::name::{AgentName, Label, Principal, RoleName, Time};
use crate::permission::{self, ADMIN, Permission, Whom};
use crate::policy::Policy;
use crate::quorum::{self, Requirement};
use crate::refusal::{Refusal, require};

/// Most roles, groups, tokens, holds and labels of one host: more is a mistake or an attack on the memory.
const MAX_HELD: usize = 10_000;

impl Rights {
    /// What a change takes: its rule's quorum, or the administrators' threshold.
    ///
    /// A rule speaks of hosts alone, and no rule asks for less than one consent. Whatever touches
    /// people, roles, tokens or the rules themselves takes as many administrators as genesis says.
    #[must_use]
    pub fn change_requirement(
        &self,
        body: &ChangeBody,
        requester: &Principal,
        judge: &dyn Judge,
        now: Time,
    ) -> Requirement {
        let threshold = self
            .genesis
            .as_ref()
            .map_or(u32::MAX, |genesis| genesis.threshold);
        let administrators = || -> Requirement {
            let role = ADMIN.parse().map(Whom::Role);
            // What is erased is gone: nobody does that alone, whatever genesis says.
            let threshold = if body.needs_two() {
                threshold.max(2)
            } else {
                threshold
            };
            Requirement::of(threshold, role.into_iter().collect())
        };
        if right_to_ask(body) != Permission::AgentManage {
            return administrators();
        }
        let Some(in_force) = self.policy() else {
            return administrators();
        };
        let question = ChangeQuestion {
            rights: self,
            requester,
            body,
            now,
        };
        let ruled = judge.judge_change(&in_force.policy, &question);
        ruled
            .filter(|requirement| requirement.check().is_ok() && requirement.break_glass.is_none())
            .unwrap_or_else(administrators)
    }

    /// Says whether somebody may ask for a change or stop it.
    ///
    /// # Errors
    /// The permission that they lack.
    pub fn may_ask(&self, who: &Principal, body: &ChangeBody) -> Result<(), Refusal> {
        let right = right_to_ask(body);
        require(self.holds(who, right), Refusal::NotPermitted(right))
    }

    /// Says whether a change still waits at `now`: it does not for ever, nor past the key of whoever
    /// asked for it.
    #[must_use]
    pub fn is_waiting(&self, change: &OpenChange, now: Time) -> bool {
        change.requester(&self.keys, now).is_some()
    }

    /// Says whether a person's consent counts towards a change.
    ///
    /// # Errors
    /// Nobody of the change's quorum, or the change has come to its end.
    pub fn may_consent(
        &self,
        who: &Principal,
        change: &OpenChange,
        judge: &dyn Judge,
        now: Time,
    ) -> Result<(), Refusal> {
        let requester = change.requester(&self.keys, now);
        let requester = requester.ok_or(Refusal::UnknownChange)?;
        let requirement = self.change_requirement(&change.body, requester, judge, now);
        let right = right_to_ask(&change.body);
        require(
            self.has_seat(who, &requirement),
            Refusal::NotPermitted(right),
        )
    }

    /// Says whether a person's no ends a change.
    ///
    /// One no is enough, so nobody has one on what would be taken from themselves: whoever stole an
    /// administrator's key would keep it for ever. Their own asking anybody may take back.
    pub(super) fn may_stop(
        &self,
        who: &Principal,
        change: &OpenChange,
        judge: &dyn Judge,
        now: Time,
    ) -> Result<(), Refusal> {
        let requester = change.requester(&self.keys, now);
        let own = requester.ok_or(Refusal::UnknownChange)? == who;
        self.may_ask(who, &change.body)
            .or_else(|_| self.may_consent(who, change, judge, now))?;
        require(own || !self.takes_from(who, &change.body), Refusal::OwnLoss)
    }

    /// Says whether a change takes a key, a role, a group or a token away from somebody.
    fn takes_from(&self, who: &Principal, body: &ChangeBody) -> bool {
        match body {
            ChangeBody::KeyRevoked { key_id, .. } => {
                let record = self.keys.get(key_id);
                record.and_then(|record| record.holder.person()) == Some(who)
            }
            ChangeBody::RoleRevoked { from, .. } => self.belongs(who, from),
            ChangeBody::GroupChanged { remove, .. } => remove.contains(who),
            ChangeBody::TokenRevoked { token } => {
                let record = self.tokens.get(token);
                record.is_some_and(|record| record.issued.principal == *who)
            }
            ChangeBody::KeyAdded { .. }
            | ChangeBody::RoleDefined { .. }
            | ChangeBody::RoleGranted { .. }
            | ChangeBody::PolicyPublished { .. }
            | ChangeBody::AgentAccepted { .. }
            | ChangeBody::AgentRejected { .. }
            | ChangeBody::AgentRelabelled { .. }
            | ChangeBody::AgentDrained { .. }
            | ChangeBody::AgentUndrained { .. }
            | ChangeBody::AgentRetired { .. }
            | ChangeBody::BlobRedacted { .. }
            | ChangeBody::HoldPlaced { .. }
            | ChangeBody::HoldLifted { .. }
            | ChangeBody::TokenIssued { .. } => false,
        }
    }

    /// Says whether the key of a consent is in force at `now`.
    pub(super) fn stands(&self, consent: &Consent, now: Time) -> bool {
        let key = self.keys.get(&consent.key_id);
        key.is_some_and(|key| key.is_in_force(now))
    }

    /// Those whose consent to a change would count and is not given, sorted.
    #[must_use]
    pub fn awaited(&self, change: &OpenChange, judge: &dyn Judge, now: Time) -> Vec<&Principal> {
        let consented = |person: &Principal| {
            let mut consents = change.consents.iter();
            consents.any(|given| given.principal == *person && self.stands(given, now))
        };
        let Some(requester) = change.requester(&self.keys, now) else {
            return Vec::new();
        };
        // Judged once, and not for each person.
        let requirement = self.change_requirement(&change.body, requester, judge, now);
        let people = self.people().into_iter();
        people
            .filter(|person| !consented(person) && self.has_seat(person, &requirement))
            .collect()
    }

    /// The consents of a change that has enough of them: what its effect rests on.
    #[must_use]
    pub fn ready(
        &self,
        id: &StatementId,
        judge: &dyn Judge,
        now: Time,
    ) -> Option<(&ChangeBody, Vec<u64>)> {
        let change = self.changes.get(id)?;
        let (verdict, counted) = self.weigh(change, judge, now)?;
        let possible = self.may_change(&change.body, change.policy.as_ref(), judge, now);
        if !verdict.is_met() || possible.is_err() {
            return None;
        }
        let seqs = counted.iter().map(|consent| consent.seq);
        Some((&change.body, seqs.collect()))
    }

    /// How many consents of a change count here and now, and how many it takes.
    pub fn change_standing(
        &self,
        change: &OpenChange,
        judge: &dyn Judge,
        now: Time,
    ) -> quorum::Verdict {
        let weighed = self.weigh(change, judge, now);
        weighed.map_or(quorum::Verdict { have: 0, need: 1 }, |(verdict, _)| verdict)
    }

    /// Consents by people who count here and now, with keys that do, and what they come to. Nothing
    /// of a change that has come to its end.
    fn weigh<'a>(
        &self,
        change: &'a OpenChange,
        judge: &dyn Judge,
        now: Time,
    ) -> Option<(quorum::Verdict, Vec<&'a Consent>)> {
        let requester = change.requester(&self.keys, now)?;
        let requirement = self.change_requirement(&change.body, requester, judge, now);
        let counts = |consent: &&Consent| {
            self.stands(consent, now) && self.has_seat(&consent.principal, &requirement)
        };
        let counted: Vec<&Consent> = change.consents.iter().filter(counts).collect();
        let people = counted.iter().map(|consent| &consent.principal);
        let belongs = |who: &Principal, whom: &Whom| self.belongs(who, whom);
        let verdict = quorum::count_all(&requirement, people, belongs);
        Some((verdict, counted))
    }

    /// Says whether a change could take effect now.
    pub(super) fn may_change(
        &self,
        body: &ChangeBody,
        policy: Option<&Policy>,
        judge: &dyn Judge,
        now: Time,
    ) -> Result<(), Refusal> {
        match body {
            ChangeBody::KeyAdded {
                principal,
                key,
                claim,
                expires_at,
            } => {
                require(!self.keys.contains_key(&key.key_id()), Refusal::KeyTaken)?;
                require(expires_at.is_none_or(|end| now < end), Refusal::KeyExpired)?;
                let ledger = self.ledger.ok_or(Refusal::NoGenesis)?;
                require(claim.proves(key, principal, ledger), Refusal::KeyClaim)
            }
            ChangeBody::KeyRevoked {
                key_id,
                suspect_from,
            } => self.may_revoke(key_id, suspect_from.is_some(), now),
            ChangeBody::RoleDefined { role, permissions } => {
                require(permission::built_in(role).is_none(), Refusal::BuiltInRole)?;
                let owned = permissions.contains(&Permission::RightsManage);
                require(!owned, Refusal::BuiltInRole)?;
                require(self.roles.len() < MAX_HELD, Refusal::TooManyOpen)
            }
            ChangeBody::RoleGranted { role, to } => {
                self.require_role(role)?;
                self.require_known(to)?;
                let new = !self.grants.contains(&(to.clone(), role.clone()));
                require(new, Refusal::NothingChanges)
            }
            ChangeBody::RoleRevoked { role, from } => {
                let granted = (from.clone(), role.clone());
                require(self.grants.contains(&granted), Refusal::NothingChanges)?;
                let mut after = self.clone();
                after.grants.remove(&granted);
                after.require_administrators(now)
            }
            ChangeBody::GroupChanged { group, add, remove } => {
                for who in add {
                    self.require_known(&Whom::User(who.clone()))?;
                }
                let members = self.groups.get(group);
                let is_in = |who: &Principal| members.is_some_and(|members| members.contains(who));
                let moves = add.iter().any(|who| !is_in(who)) || remove.iter().any(is_in);
                require(moves, Refusal::NothingChanges)?;
                require(self.groups.len() < MAX_HELD, Refusal::TooManyOpen)?;
                let mut after = self.clone();
                after.change_group(group, add, remove);
                after.require_administrators(now)?;
                // A later group of this name would have the roles of this one, and nobody would have
                // said so; nor does a right end without an event that says it.
                let holds = |(whom, _): &(Whom, RoleName)| *whom == Whom::Group(group.clone());
                let emptied = !after.groups.contains_key(group);
                let kept = emptied && self.grants.iter().any(holds);
                require(!kept, Refusal::GroupHoldsRoles)
            }
            ChangeBody::PolicyPublished { policy: digest } => {
                let policy = policy.ok_or(Refusal::BodyMissing)?;
                require(policy.digest() == *digest, Refusal::Binding("policy"))?;
                judge.check(policy).map_err(Refusal::Policy)
            }
            ChangeBody::AgentAccepted {
                agent,
                key,
                replaces,
                ..
            } => {
                let current = self.agents.get(agent).map(|record| record.key);
                require(current == *replaces, Refusal::AgentTaken)?;
                require(!self.keys.contains_key(&key.key_id()), Refusal::KeyTaken)?;
                self.require_enrolled(agent, key.key_id())
            }
            ChangeBody::AgentRejected { agent, key_id } => self.require_enrolled(agent, *key_id),
            ChangeBody::AgentRelabelled { agent, labels } => {
                let record = self.agents.get(agent).ok_or(Refusal::UnknownAgent)?;
                let labels: BTreeSet<&Label> = labels.iter().collect();
                require(
                    record.labels.iter().collect::<BTreeSet<_>>() != labels,
                    Refusal::NothingChanges,
                )
            }
            ChangeBody::AgentDrained { agent } => self.require_drained(agent, false),
            ChangeBody::AgentUndrained { agent } => self.require_drained(agent, true),
            ChangeBody::AgentRetired { agent } => {
                require(self.agents.contains_key(agent), Refusal::UnknownAgent)
            }
            ChangeBody::TokenIssued {
                token,
                roles,
                permissions,
                expires_at,
                ..
            } => {
                let signs = |key: &KeyRecord| key.holder == Holder::Gateway && key.is_in_force(now);
                require(self.keys.values().any(signs), Refusal::NoGateway)?;
                require(!self.tokens.contains_key(token), Refusal::TokenTaken)?;
                require(*expires_at > now, Refusal::Late)?;
                require(self.tokens.len() < MAX_HELD, Refusal::TooManyOpen)?;
                roles.iter().try_for_each(|role| self.require_role(role))?;
                let beyond = permissions.iter().any(|right| !may_be_a_tokens(*right));
                require(!beyond, Refusal::TokenRight)
            }
            ChangeBody::TokenRevoked { token } => {
                let record = self.tokens.get(token).ok_or(Refusal::UnknownToken)?;
                require(record.revoked.is_none(), Refusal::NothingChanges)
            }
            ChangeBody::BlobRedacted { .. } => body
                .erased()
                .map_or(Ok(()), |erased| self.may_redact(erased)),
            ChangeBody::HoldPlaced { hold, .. } => {
                require(!self.legal_holds.contains_key(hold), Refusal::HoldTaken)?;
                require(self.legal_holds.len() < MAX_HELD, Refusal::TooManyOpen)
            }
            ChangeBody::HoldLifted { hold } => {
                require(self.legal_holds.contains_key(hold), Refusal::UnknownHold)
            }
        }
    }

    fn may_revoke(&self, key_id: &KeyId, is_suspect: bool, now: Time) -> Result<(), Refusal> {
        let record = self.keys.get(key_id).ok_or(Refusal::UnknownKey)?;
        // What a retired key signed may still be called suspect: a thief could retire it. And a key is
        // revoked at once, also with its host; since when it was somebody else's is found out later.
        let ended = record.revoked.is_some() && !record.retired;
        let adds = is_suspect && record.suspect_from.is_none();
        require(!ended || adds, Refusal::RevokedKey)?;
        let own = matches!(record.holder, Holder::Ledger | Holder::Reserved);
        require(!own, Refusal::KeyRole)?;
        let mut after = self.clone();
        after.keys.remove(key_id);
        after.require_administrators(now)
    }

    /// Enough administrators are left to change rights ever again.
    fn require_administrators(&self, now: Time) -> Result<(), Refusal> {
        let threshold = self
            .genesis
            .as_ref()
            .map_or(u32::MAX, |genesis| genesis.threshold);
        let left = self.administrators(now).len();
        require(left >= threshold as usize, Refusal::LastAdministrators)
    }

    fn require_role(&self, role: &RoleName) -> Result<(), Refusal> {
        let known = permission::built_in(role).is_some() || self.roles.contains_key(role);
        require(known, Refusal::UnknownRole)
    }

    /// A name that nobody has is a typing error, and rights given to one are a trap.
    fn require_known(&self, whom: &Whom) -> Result<(), Refusal> {
        match whom {
            Whom::User(name) => require(self.people().contains(name), Refusal::UnknownPerson),
            Whom::Group(group) => require(self.groups.contains_key(group), Refusal::UnknownGroup),
            Whom::Role(_) | Whom::Permission(_) => Err(Refusal::Binding("to")),
        }
    }

    fn require_enrolled(&self, agent: &AgentName, key: KeyId) -> Result<(), Refusal> {
        let enrolled = self.enrolments.contains_key(&(agent.clone(), key));
        require(enrolled, Refusal::UnknownAgent)
    }

    fn require_drained(&self, agent: &AgentName, drained: bool) -> Result<(), Refusal> {
        let record = self.agents.get(agent).ok_or(Refusal::UnknownAgent)?;
        require(record.drained == drained, Refusal::NothingChanges)
    }
}

/// The permission that whoever asks for a change needs.
const fn right_to_ask(body: &ChangeBody) -> Permission {
    if body.agent().is_some() {
        Permission::AgentManage
    } else {
        Permission::RightsManage
    }
}

/// What a secret on some machine may ever stand for: asking and reading, never allowing. A role
/// gives a token only these of its permissions.
pub(super) const fn may_be_a_tokens(right: Permission) -> bool {
    match right {
        Permission::CommandRead
        | Permission::CommandExecute
        | Permission::CommandCancel
        | Permission::CommandRetry
        | Permission::OutputRead
        | Permission::AuditRead
        | Permission::AuditExport
        | Permission::AgentRead
        | Permission::RightsRead => true,
        Permission::CommandApprove
        | Permission::AgentManage
        | Permission::RightsManage
        | Permission::ReviewClose => false,
    }
}
