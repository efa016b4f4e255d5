//! People in the verified rights: whose keys hold now, and what has to go when somebody leaves.

use countersign_protocol::hash::KeyId;
use countersign_protocol::name::{Principal, Time};
use countersign_protocol::permission::Whom;
use countersign_protocol::rights::{ChangeBody, KeyRecord, Rights};

/// The keys that a person has or had, the oldest first.
#[must_use]
pub fn keys_of<'a>(rights: &'a Rights, person: &Principal) -> Vec<(&'a KeyId, &'a KeyRecord)> {
    let own = |record: &KeyRecord| record.holder.person() == Some(person);
    let mut keys: Vec<_> = rights.keys().filter(|(_, record)| own(record)).collect();
    keys.sort_by_key(|(id, record)| (record.since, **id));
    keys
}

/// The changes that take everything from a person: keys in force and API tokens first, then roles
/// and groups, so that a half-done leave is one that cannot sign.
///
/// Whoever leaves themselves signs with what would go first; `own` puts that last.
#[must_use]
pub fn leaving(rights: &Rights, person: &Principal, now: Time, own: bool) -> Vec<ChangeBody> {
    let keys = keys_of(rights, person);
    let keys = keys
        .into_iter()
        .filter(|(_, record)| record.is_in_force(now));
    let keys = keys.map(|(id, _)| ChangeBody::KeyRevoked {
        key_id: *id,
        suspect_from: None,
    });
    let tokens = rights
        .tokens()
        .filter(|(_, record)| record.issued.principal == *person && record.is_in_force(now));
    let tokens = tokens.map(|(token, _)| ChangeBody::TokenRevoked {
        token: token.clone(),
    });
    let user = Whom::User(person.clone());
    let roles = rights.grants().filter(|(to, _)| **to == user);
    let roles = roles.map(|(_, role)| ChangeBody::RoleRevoked {
        role: role.clone(),
        from: user.clone(),
    });
    let groups = rights.groups_of(person);
    let groups = groups.map(|group| ChangeBody::GroupChanged {
        group: group.clone(),
        add: Vec::new(),
        remove: vec![person.clone()],
    });
    let mut all: Vec<ChangeBody> = keys.chain(tokens).chain(roles).chain(groups).collect();
    if own {
        all.reverse();
    }
    all
}
