//! The JSON of people, keys, roles, groups, tokens and reviews.

use std::collections::{BTreeMap, BTreeSet};

use countersign_protocol::hash::{CommandId, KeyId};
use countersign_protocol::key;
use countersign_protocol::name::{Principal, Time};
use countersign_protocol::permission::{self, BUILT_IN_ROLES, Permission};
use countersign_protocol::rights::{Holder, KeyRecord, OpenReview, Rights};
use countersign_protocol::short;
use serde::Serialize;

use super::{FilledShape, JudgedShape, runs};
use crate::acts::{ClaimFile, keys_of};
use crate::view::CommandView;

/// A key of a person or of the ledger.
#[derive(Debug, Clone, Serialize)]
pub struct KeyShape {
    /// Whose: a person's name, or null for the ledger's own keys.
    pub principal: Option<String>,
    /// What it is for: `person`, `ledger`, `gateway`, `reserved` or `agent`.
    pub holder: &'static str,
    /// Its id.
    pub key_id: String,
    /// `SHA256:…`
    pub fingerprint: String,
    /// `in_force`, `expired` or `revoked`.
    pub status: &'static str,
    /// The entry that made it count.
    pub since: u64,
    /// It signs nothing from this time on.
    pub expires_us: Option<u64>,
    /// The entry that revoked it.
    pub revoked: Option<u64>,
    /// From which entry on its signatures are suspect.
    pub suspect_from: Option<u64>,
}

fn key_shape(id: &KeyId, record: &KeyRecord, now: Time) -> KeyShape {
    let (holder, principal) = match &record.holder {
        Holder::Person(name) => ("person", Some(name.to_string())),
        Holder::Ledger => ("ledger", None),
        Holder::Gateway => ("gateway", None),
        Holder::Reserved => ("reserved", None),
        Holder::Agent(name) => ("agent", Some(name.to_string())),
    };
    KeyShape {
        principal,
        holder,
        key_id: id.to_string(),
        fingerprint: key::fingerprint(id),
        status: record.standing(now),
        since: record.since,
        expires_us: record.expires_at.map(Time::as_micros),
        revoked: record.revoked,
        suspect_from: record.suspect_from,
    }
}

/// `key list`: all keys of people, and with `all` those of the ledger and of hosts.
#[must_use]
pub fn keys(rights: &Rights, now: Time, all: bool) -> Vec<KeyShape> {
    let of_people = |record: &KeyRecord| matches!(record.holder, Holder::Person(_));
    let wanted = rights.keys().filter(|(_, record)| all || of_people(record));
    let mut keys: Vec<KeyShape> = wanted
        .map(|(id, record)| key_shape(id, record, now))
        .collect();
    keys.sort_by(|a, b| {
        (&a.principal, a.since, &a.key_id).cmp(&(&b.principal, b.since, &b.key_id))
    });
    keys
}

/// `people`: one of them.
#[derive(Debug, Clone, Serialize)]
pub struct PersonShape {
    /// The name.
    pub principal: String,
    /// Every key that they have or had, the oldest first.
    pub keys: Vec<KeyShape>,
    /// Roles that they have, also by a group.
    pub roles: Vec<String>,
    /// Groups that they are in.
    pub groups: Vec<String>,
    /// What they may do by their roles.
    pub permissions: Vec<Permission>,
}

/// Everything that the rights say of a person.
#[must_use]
pub fn person(rights: &Rights, name: &Principal, now: Time) -> PersonShape {
    let keys = keys_of(rights, name).into_iter();
    let roles = rights.roles_of(name);
    PersonShape {
        principal: name.to_string(),
        keys: keys
            .map(|(id, record)| key_shape(id, record, now))
            .collect(),
        roles: roles.iter().map(ToString::to_string).collect(),
        groups: rights.groups_of(name).map(ToString::to_string).collect(),
        permissions: rights.rights_of(name).into_iter().collect(),
    }
}

/// Everybody who has or had a key.
#[must_use]
pub fn people(rights: &Rights, now: Time) -> Vec<PersonShape> {
    let names = rights.people().into_iter();
    names.map(|name| person(rights, name, now)).collect()
}

/// `whoami`
#[derive(Debug, Serialize)]
pub struct WhoamiShape {
    /// The ledger.
    pub ledger: String,
    /// The key that signs.
    pub key_id: String,
    /// The same as people compare it.
    pub fingerprint: String,
    /// Who one is.
    #[serde(flatten)]
    pub person: PersonShape,
    /// One's own runs that nobody has reviewed yet.
    pub reviews: Vec<ReviewShape>,
}

/// `role list`: one of them.
#[derive(Debug, Serialize)]
pub struct RoleShape {
    /// Its name.
    pub role: String,
    /// Every ledger has it, and nobody can define it anew.
    pub built_in: bool,
    /// What it may do.
    pub permissions: Vec<Permission>,
    /// Who has it: `user:NAME`, `group:NAME`.
    pub granted_to: Vec<String>,
}

/// All roles, the built-in ones first.
#[must_use]
pub fn roles(rights: &Rights) -> Vec<RoleShape> {
    let granted = |role: &str| {
        let to = rights.grants().filter(|(_, name)| name.as_str() == role);
        to.map(|(whom, _)| whom.to_string()).collect()
    };
    let built_in = BUILT_IN_ROLES.iter().filter_map(|role| {
        let may = permission::built_in(&role.parse().ok()?)?;
        Some(RoleShape {
            role: (*role).to_owned(),
            built_in: true,
            permissions: may.to_vec(),
            granted_to: granted(role),
        })
    });
    let defined = rights.roles().map(|(role, may)| RoleShape {
        role: role.to_string(),
        built_in: false,
        permissions: may.iter().copied().collect(),
        granted_to: granted(role.as_str()),
    });
    built_in.chain(defined).collect()
}

/// `group list`: one of them.
#[derive(Debug, Serialize)]
pub struct GroupShape {
    /// Its name.
    pub group: String,
    /// Who is in it.
    pub members: Vec<String>,
    /// Roles that its members have by it.
    pub roles: Vec<String>,
}

/// All groups that somebody is in.
#[must_use]
pub fn groups(rights: &Rights) -> Vec<GroupShape> {
    let roles_of = |group: &str| {
        let name = format!("group:{group}");
        let granted = rights.grants().filter(|(to, _)| to.to_string() == name);
        granted.map(|(_, role)| role.to_string()).collect()
    };
    let groups = rights.groups().map(|(group, members)| GroupShape {
        group: group.to_string(),
        members: members.iter().map(ToString::to_string).collect(),
        roles: roles_of(group.as_str()),
    });
    groups.collect()
}

/// `token list`: one of them. The secret is in no list.
#[derive(Debug, Serialize)]
pub struct TokenShape {
    /// Its public name.
    pub token: String,
    /// For whom it asks.
    pub principal: String,
    /// `in_force`, `expired` or `revoked`.
    pub status: &'static str,
    /// Its roles.
    pub roles: Vec<String>,
    /// What it may do beside them.
    pub permissions: Vec<Permission>,
    /// What it may do in all.
    pub may: BTreeSet<Permission>,
    /// It asks only for hosts with one of these; for all when empty.
    pub labels: Vec<String>,
    /// It asks only for these programs; for all when empty.
    pub commands: Vec<String>,
    /// It stands for nobody from this time on.
    pub expires_us: u64,
    /// The entry that issued it.
    pub since: u64,
    /// When it was last used, to the minute, by the server's word.
    pub last_used_us: Option<u64>,
    /// The entry that revoked it.
    pub revoked: Option<u64>,
}

/// All API tokens.
#[must_use]
pub fn tokens(rights: &Rights, uses: &BTreeMap<String, u64>, now: Time) -> Vec<TokenShape> {
    let tokens = rights.tokens().map(|(token, record)| {
        let issued = &record.issued;
        TokenShape {
            token: token.to_string(),
            principal: issued.principal.to_string(),
            status: record.standing(now),
            roles: issued.roles.iter().map(ToString::to_string).collect(),
            permissions: issued.permissions.clone(),
            may: rights.rights_of_token(record),
            labels: issued.labels.iter().map(ToString::to_string).collect(),
            commands: issued.commands.iter().map(ToString::to_string).collect(),
            expires_us: issued.expires_at.as_micros(),
            since: record.since,
            last_used_us: uses.get(token.as_str()).copied(),
            revoked: record.revoked,
        }
    });
    tokens.collect()
}

/// `token issue`: the only time that the secret is shown.
#[derive(Serialize)]
pub struct IssuedShape {
    /// The change that waits for consent.
    #[serde(flatten)]
    pub change: JudgedShape,
    /// The token's public name.
    pub token: String,
    /// What its holder sends.
    pub secret: String,
    /// When it ends.
    pub expires_us: u64,
}

/// Never the secret.
impl std::fmt::Debug for IssuedShape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IssuedShape")
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

/// A run without approvals that nobody has reviewed.
#[derive(Debug, Serialize)]
pub struct ReviewShape {
    /// The command.
    pub id: String,
    /// `XXXX-XXXX`
    pub short: String,
    /// Who ran it.
    pub requester: String,
    /// Since when the review is open.
    pub opened_us: u64,
    /// From when on it is overdue.
    pub due_us: u64,
    /// Whether it is, by this client's clock.
    pub overdue: bool,
    /// Where it was opened.
    pub seq: u64,
    /// The words of the command; null where they are erased or not for this person, or not looked at.
    pub argv: Option<Vec<String>>,
    /// What hosts ran with their own facts in it; only where it uses some.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<FilledShape>,
}

/// One review; `view` is the command, where it is looked at.
#[must_use]
pub fn review(
    id: &CommandId,
    review: &OpenReview,
    view: Option<&CommandView>,
    now: Time,
) -> ReviewShape {
    let spec = view.and_then(|view| view.spec.here());
    ReviewShape {
        id: id.to_string(),
        short: short::short(id),
        requester: review.requester.to_string(),
        opened_us: review.opened_at.as_micros(),
        due_us: review.due_at.as_micros(),
        overdue: review.due_at <= now,
        seq: review.seq,
        argv: spec.map(|spec| spec.argv.clone()),
        runs: view.map(runs).unwrap_or_default(),
    }
}

/// `key claim -o FILE`: what the file says.
#[derive(Debug, Serialize)]
pub struct ClaimShape {
    /// Where it was written.
    pub file: String,
    /// Whose key.
    pub principal: String,
    /// Which.
    pub fingerprint: String,
}

/// A claim that was written to a file.
#[must_use]
pub fn claimed(claim: &ClaimFile, file: &std::path::Path) -> ClaimShape {
    ClaimShape {
        file: file.display().to_string(),
        principal: claim.principal.to_string(),
        fingerprint: key::fingerprint(&claim.key.key_id()),
    }
}

/// `people leave`
#[derive(Debug, Serialize)]
pub struct LeaveShape {
    /// Who leaves.
    pub principal: String,
    /// One for each change, in the order in which they were asked for.
    pub items: Vec<LeavingShape>,
}

/// One change of a leaver.
#[derive(Debug, Serialize)]
pub struct LeavingShape {
    /// `key.revoked`, `role.revoked`, …
    pub change: &'static str,
    /// What goes: a fingerprint, a role, a group, a token.
    pub what: String,
    /// The change; null where it was refused.
    pub id: Option<String>,
    /// `requested`, `in_effect`, or `refused`.
    pub status: &'static str,
    /// Why it was refused.
    pub refused: Option<String>,
}
