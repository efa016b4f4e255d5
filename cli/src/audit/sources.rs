//! Which entries gave somebody what they may: for each key, grant, membership and role in force the
//! entry that brought it. What was taken away again is forgotten.

use std::collections::{BTreeMap, BTreeSet};

use countersign_protocol::event::Event;
use countersign_protocol::hash::KeyId;
use countersign_protocol::name::{AgentName, GroupName, Principal, RoleName, TokenId};
use countersign_protocol::permission::Whom;
use countersign_protocol::rights::ChangeBody;

/// The entries that rights in force rest on.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    keys: BTreeMap<KeyId, u64>,
    grants: BTreeMap<(RoleName, Whom), u64>,
    members: BTreeMap<(GroupName, Principal), u64>,
    roles: BTreeMap<RoleName, u64>,
    tokens: BTreeMap<TokenId, u64>,
    agents: BTreeMap<AgentName, BTreeSet<u64>>,
    policy: u64,
}

/// The role that genesis gives.
const ADMIN: &str = "admin";

impl Sources {
    /// Takes the next entry.
    pub fn take(&mut self, seq: u64, event: &Event) {
        if let Event::LedgerGenesis(genesis) = event {
            for one in &genesis.administrators {
                self.keys.insert(one.key.key_id(), seq);
                if let Ok(admin) = ADMIN.parse() {
                    let whom = Whom::User(one.principal.clone());
                    self.grants.insert((admin, whom), seq);
                }
            }
        } else if let Some(effected) = ChangeBody::effected(event) {
            self.change(seq, effected.body);
        }
    }

    fn change(&mut self, seq: u64, body: ChangeBody) {
        match body {
            ChangeBody::KeyAdded { key, .. } => drop(self.keys.insert(key.key_id(), seq)),
            ChangeBody::KeyRevoked { key_id, .. } => drop(self.keys.remove(&key_id)),
            ChangeBody::RoleDefined { role, .. } => drop(self.roles.insert(role, seq)),
            ChangeBody::RoleGranted { role, to } => drop(self.grants.insert((role, to), seq)),
            ChangeBody::RoleRevoked { role, from } => drop(self.grants.remove(&(role, from))),
            ChangeBody::GroupChanged { group, add, remove } => {
                for who in remove {
                    self.members.remove(&(group.clone(), who));
                }
                for who in add {
                    self.members.entry((group.clone(), who)).or_insert(seq);
                }
            }
            ChangeBody::PolicyPublished { .. } => self.policy = seq,
            ChangeBody::AgentAccepted { agent, key, .. } => {
                self.keys.insert(key.key_id(), seq);
                self.agents.insert(agent, [seq].into());
            }
            ChangeBody::AgentRelabelled { agent, .. } => {
                self.agents.entry(agent).or_default().insert(seq);
            }
            ChangeBody::AgentRejected { .. }
            | ChangeBody::BlobRedacted { .. }
            | ChangeBody::HoldPlaced { .. }
            | ChangeBody::HoldLifted { .. }
            | ChangeBody::AgentDrained { .. }
            | ChangeBody::AgentUndrained { .. } => {}
            ChangeBody::AgentRetired { agent } => drop(self.agents.remove(&agent)),
            ChangeBody::TokenIssued { token, .. } => drop(self.tokens.insert(token, seq)),
            ChangeBody::TokenRevoked { token } => drop(self.tokens.remove(&token)),
        }
    }

    /// What a person's rights rest on: the key that signed, roles, groups, and what the roles mean.
    #[must_use]
    pub fn of_person(&self, who: &Principal, key: &KeyId) -> BTreeSet<u64> {
        let mut found: BTreeSet<u64> = self.keys.get(key).copied().into_iter().collect();
        let groups: BTreeMap<&GroupName, u64> = self
            .members
            .iter()
            .filter(|((_, member), _)| member == who)
            .map(|((group, _), seq)| (group, *seq))
            .collect();
        found.extend(groups.values());
        for ((role, whom), seq) in &self.grants {
            let is_theirs = match whom {
                Whom::User(name) => name == who,
                Whom::Group(group) => groups.contains_key(group),
                // Roles are granted to people and groups alone.
                Whom::Role(_) | Whom::Permission(_) => false,
            };
            if is_theirs {
                found.insert(*seq);
                found.extend(self.roles.get(role));
            }
        }
        found
    }

    /// What lets a host take work: its key and its labels.
    #[must_use]
    pub fn of_agent(&self, name: &AgentName, key: &KeyId) -> BTreeSet<u64> {
        let mut found = self.agents.get(name).cloned().unwrap_or_default();
        found.extend(self.keys.get(key));
        found
    }

    /// The entry that issued a token.
    #[must_use]
    pub fn of_token(&self, token: &TokenId) -> Option<u64> {
        self.tokens.get(token).copied()
    }

    /// The entry that published the policy in force; 0 for the built-in one.
    #[must_use]
    pub const fn policy(&self) -> u64 {
        self.policy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(sources: &mut Sources, seq: u64, role: &str, to: &str) {
        let body = ChangeBody::RoleGranted {
            role: role.parse().unwrap(),
            to: to.parse().unwrap(),
        };
        sources.change(seq, body);
    }

    fn group(sources: &mut Sources, seq: u64, add: &[&str], remove: &[&str]) {
        let names = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
        let body = ChangeBody::GroupChanged {
            group: "sre".parse().unwrap(),
            add: names(add),
            remove: names(remove),
        };
        sources.change(seq, body);
    }

    fn of(sources: &Sources, who: &str) -> Vec<u64> {
        let found = sources.of_person(&who.parse().unwrap(), &KeyId::new([7; 32]));
        found.into_iter().collect()
    }

    #[test]
    fn a_right_by_a_group_rests_on_the_membership_the_grant_and_the_role() {
        let mut sources = Sources::default();
        let body = ChangeBody::RoleDefined {
            role: "operator".parse().unwrap(),
            permissions: Vec::new(),
        };
        sources.change(3, body);
        granted(&mut sources, 5, "operator", "group:sre");
        group(&mut sources, 7, &["dave"], &[]);
        group(&mut sources, 8, &["erin", "dave"], &[]);
        granted(&mut sources, 9, "read", "user:erin");
        assert_eq!(of(&sources, "dave"), [3, 5, 7]);
        assert_eq!(of(&sources, "erin"), [3, 5, 8, 9]);
        assert_eq!(of(&sources, "mallory"), [0_u64; 0]);
    }

    #[test]
    fn what_was_taken_away_gives_nothing() {
        let mut sources = Sources::default();
        granted(&mut sources, 5, "read", "group:sre");
        granted(&mut sources, 6, "write", "user:dave");
        group(&mut sources, 7, &["dave"], &[]);
        group(&mut sources, 8, &[], &["dave"]);
        assert_eq!(of(&sources, "dave"), [6]);
        sources.change(
            9,
            ChangeBody::RoleRevoked {
                role: "write".parse().unwrap(),
                from: "user:dave".parse().unwrap(),
            },
        );
        assert_eq!(of(&sources, "dave"), [0_u64; 0]);
    }
}
