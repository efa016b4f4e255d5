//! Who may do what: roles, groups and permissions as they stand.

use alloc::collections::BTreeSet;

use super::change::may_be_a_tokens;
use super::{Holder, Rights};
use crate::command::{Act, CommandSpec};
use crate::fold::Refusal;
use crate::name::{GroupName, Label, Principal, RoleName, Time, TokenId};
use crate::permission::{self, ADMIN, Permission, Whom};
use crate::quorum::Requirement;
use crate::rights::TokenRecord;
use crate::target::TargetList;

impl Rights {
    /// What a role permits; nothing for one that nobody defined.
    #[must_use]
    pub fn permissions_of(&self, role: &RoleName) -> BTreeSet<Permission> {
        match permission::built_in(role) {
            Some(built_in) => built_in.iter().copied().collect(),
            None => self.roles.get(role).cloned().unwrap_or_default(),
        }
    }

    /// The groups that a person is in.
    pub fn groups_of<'a>(&'a self, person: &'a Principal) -> impl Iterator<Item = &'a GroupName> {
        let of = self
            .groups
            .iter()
            .filter(|(_, members)| members.contains(person));
        of.map(|(group, _)| group)
    }

    /// The roles that a person has, granted to them or to a group of theirs.
    #[must_use]
    pub fn roles_of(&self, person: &Principal) -> BTreeSet<&RoleName> {
        let has = |whom: &Whom| match whom {
            Whom::User(name) => name == person,
            Whom::Group(group) => self.is_member(person, group),
            Whom::Role(_) | Whom::Permission(_) => false,
        };
        let granted = self.grants.iter().filter(|(whom, _)| has(whom));
        granted.map(|(_, role)| role).collect()
    }

    /// Everything that a person may do by their roles.
    #[must_use]
    pub fn rights_of(&self, person: &Principal) -> BTreeSet<Permission> {
        let roles = self.roles_of(person);
        roles
            .into_iter()
            .flat_map(|role| self.permissions_of(role))
            .collect()
    }

    /// Everything that an API token may do.
    #[must_use]
    pub fn rights_of_token(&self, token: &TokenRecord) -> BTreeSet<Permission> {
        let by_role = token
            .issued
            .roles
            .iter()
            .flat_map(|role| self.permissions_of(role));
        let all = by_role.chain(token.issued.permissions.iter().copied());
        all.filter(|right| may_be_a_tokens(*right)).collect()
    }

    /// Says whether a person may do a thing.
    #[must_use]
    pub fn holds(&self, person: &Principal, right: Permission) -> bool {
        let roles = self.roles_of(person);
        roles
            .into_iter()
            .any(|role| self.permissions_of(role).contains(&right))
    }

    /// Says whether a person is one of somebody.
    #[must_use]
    pub fn belongs(&self, person: &Principal, whom: &Whom) -> bool {
        match whom {
            Whom::User(name) => name == person,
            Whom::Group(group) => self.is_member(person, group),
            Whom::Role(role) => self.roles_of(person).contains(role),
            Whom::Permission(right) => self.holds(person, *right),
        }
    }

    fn is_member(&self, person: &Principal, group: &GroupName) -> bool {
        self.groups
            .get(group)
            .is_some_and(|members| members.contains(person))
    }

    /// Says whether this person is an administrator.
    #[must_use]
    pub fn is_administrator(&self, person: &Principal) -> bool {
        self.roles_of(person)
            .iter()
            .any(|role| role.as_str() == ADMIN)
    }

    /// Everybody who has or had a key of their own, sorted.
    #[must_use]
    pub fn people(&self) -> BTreeSet<&Principal> {
        let holders = self.keys.values().map(|record| &record.holder);
        holders.filter_map(Holder::person).collect()
    }

    /// Everybody with a key in force at `now`: those who can sign, sorted.
    #[must_use]
    pub fn who_can_sign(&self, now: Time) -> BTreeSet<&Principal> {
        let in_force = self.keys.values().filter(|record| record.is_in_force(now));
        in_force
            .filter_map(|record| record.holder.person())
            .collect()
    }

    /// Administrators with a key in force at `now`.
    #[must_use]
    pub fn administrators(&self, now: Time) -> BTreeSet<&Principal> {
        let mut people = self.who_can_sign(now);
        people.retain(|name| self.is_administrator(name));
        people
    }

    /// Says whether a person has a seat of what is required: is one of those it names.
    #[must_use]
    pub fn has_seat(&self, person: &Principal, requirement: &Requirement) -> bool {
        let mut electors = requirement.electors().into_iter();
        electors.any(|whom| self.belongs(person, whom))
    }

    /// Says whether a token may ask for this at all: its principal, its time, its scope. What the
    /// policy says of it is another question.
    ///
    /// # Errors
    /// [`Refusal`] says which of these.
    pub fn token_may_ask(
        &self,
        token: &TokenId,
        asked: (&Act, Option<&CommandSpec>, Option<&TargetList>),
    ) -> Result<(), Refusal> {
        let (act, spec, targets) = asked;
        let record = self.tokens.get(token).ok_or(Refusal::UnknownToken)?;
        if !self
            .rights_of_token(record)
            .contains(&Permission::CommandExecute)
        {
            return Err(Refusal::NotPermitted(Permission::CommandExecute));
        }
        let scope = &record.issued;
        let named = |spec: &CommandSpec| {
            // A shell's one word is a program of its own making.
            let program = spec
                .argv
                .first()
                .filter(|_| spec.mode != crate::command::Mode::Shell);
            program
                .is_some_and(|program| scope.commands.iter().any(|name| name.as_str() == program))
        };
        if !scope.commands.is_empty() && !spec.is_none_or(named) {
            return Err(Refusal::TokenScope("program"));
        }
        let lines = targets.into_iter().flat_map(TargetList::lines);
        let outside = |labels: &BTreeSet<Label>| {
            !labels
                .iter()
                .any(|label| scope.labels.iter().any(|asked| label.is_within(asked)))
        };
        for line in lines.filter(|_| !scope.labels.is_empty()) {
            let record = self.agents.get(&line.agent).ok_or(Refusal::UnknownAgent)?;
            if outside(&record.labels) {
                return Err(Refusal::TokenScope("host"));
            }
        }
        if act.break_glass {
            return Err(Refusal::TokenScope("break-glass"));
        }
        Ok(())
    }
}
