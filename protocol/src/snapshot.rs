//! The policy snapshot: who may approve, as so many administrators put it down for the hosts.
//!
//! It owns the document's shape and bounds, how it is read off the rights, and how it is weighed
//! with its signatures. It must not decide which administrators count: whoever weighs it says so.
//!
//! A host that pins administrators believes this and not the ledger on who is one of whom. It is
//! good for a day at most ([`MAX_VALID_US`]), so that a newer one can be withheld for no longer.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::canonical::{self, CanonicalError};
use crate::event::{EventError, PolicySnapshot, Seen};
use crate::hash::{KeyId, LedgerId};
use crate::name::{Principal, SECOND_US, Time};
use crate::permission::{Permission, Whom};
use crate::policy::PolicyRef;
use crate::quorum::{MAX_SEATS, Membership};
use crate::rights::{Holder, Rights};

/// The longest that a signature under a snapshot holds: what was withheld from a host is bounded
/// by it, and people can still renew it once a working day.
pub const MAX_VALID_US: u64 = 24 * 3600 * SECOND_US;

/// Largest document in bytes: it comes with every grant to a host that wants one.
pub const MAX_SNAPSHOT_BYTES: usize = 1024 * 1024;

/// Most approvers: as many as a host reads of `allowed_signers`.
pub const MAX_APPROVERS: usize = 4096;

/// Most keys of one approver: their own, their spare ones, and those on their way out.
pub const MAX_KEYS_EACH: usize = 32;

/// Most groups, roles and permissions together.
pub const MAX_MEMBERSHIPS: usize = 4096;

/// Most revoked keys: decades of leaving people, in half of the largest document.
pub const MAX_REVOKED: usize = 8192;

/// A key of an approver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApproverKey {
    /// Which.
    pub key_id: KeyId,
    /// It counts for nothing from this time on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
}

/// Somebody whose approval counts, with the keys they may give it with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approver {
    /// Who.
    pub principal: Principal,
    /// Their keys that are not revoked, sorted.
    pub keys: Vec<ApproverKey>,
}

/// The document behind `policy.snapshot`. The same rights give the same bytes, so that one
/// administrator can make anew what another has signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// The ledger.
    pub ledger: LedgerId,
    /// The checkpoint that it was made from.
    pub seen: Seen,
    /// The policy in force there.
    pub policy: PolicyRef,
    /// Whose approvals count, sorted by name, each once.
    pub approvers: Vec<Approver>,
    /// Which of the approvers is one of whom, sorted by whom, each once; never a single user.
    pub members: Vec<Membership>,
    /// So many distinct people at least, whatever the ledger says; at least 1.
    pub min_approvals: u32,
    /// People's keys that count for nothing any more, sorted.
    pub revoked: Vec<KeyId>,
}

/// Why a document is no snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Its bytes.
    #[error(transparent)]
    Document(#[from] CanonicalError),
    /// Its values.
    #[error(transparent)]
    Value(#[from] EventError),
    /// The rights cannot be put into one: no genesis, or nobody who could approve.
    #[error("there is nothing to put into a snapshot: {0}")]
    Nothing(&'static str),
}

impl Snapshot {
    /// Reads it off the rights as they are at `seen`. Approvers are those who have a key that is
    /// not revoked and are one of `electors` or hold `command:approve`.
    ///
    /// # Errors
    /// [`SnapshotError::Nothing`], or more of something than a snapshot holds.
    pub fn of(
        rights: &Rights,
        seen: Seen,
        electors: &[Whom],
        min_approvals: u32,
    ) -> Result<Self, SnapshotError> {
        let ledger = rights.ledger();
        let ledger = ledger.ok_or(SnapshotError::Nothing("the ledger has no genesis"))?;
        let policy = rights.policy().map(|in_force| in_force.reference);
        let policy = policy.ok_or(SnapshotError::Nothing("no policy is in force"))?;
        let mut revoked = Vec::new();
        let mut keys: BTreeMap<&Principal, Vec<ApproverKey>> = BTreeMap::new();
        for (id, record) in rights.keys() {
            let Holder::Person(holder) = &record.holder else {
                continue;
            };
            if record.revoked.is_some() {
                revoked.push(*id);
            } else {
                keys.entry(holder).or_default().push(ApproverKey {
                    key_id: *id,
                    expires_at: record.expires_at,
                });
            }
        }
        let may_approve = |who: &Principal| {
            rights.holds(who, Permission::CommandApprove)
                || electors.iter().any(|whom| rights.belongs(who, whom))
        };
        keys.retain(|who, _| may_approve(who));
        let people: Vec<&Principal> = keys.keys().copied().collect();
        let snapshot = Self {
            ledger,
            seen,
            policy,
            members: memberships(rights, &people),
            approvers: keys
                .into_iter()
                .map(|(principal, keys)| Approver {
                    principal: principal.clone(),
                    keys,
                })
                .collect(),
            min_approvals,
            revoked,
        };
        snapshot.check()?;
        Ok(snapshot)
    }

    /// Parses the document and checks what its shape alone does not.
    ///
    /// # Errors
    /// Not canonical, not of this shape, a list out of order or too long.
    pub fn parse(document: &[u8]) -> Result<Self, SnapshotError> {
        let snapshot: Self = canonical::from_document(document, MAX_SNAPSHOT_BYTES)?;
        snapshot.check()?;
        Ok(snapshot)
    }

    /// The document's bytes.
    ///
    /// # Errors
    /// A value out of bounds, or more than [`MAX_SNAPSHOT_BYTES`].
    pub fn to_document(&self) -> Result<Vec<u8>, SnapshotError> {
        self.check()?;
        let document = canonical::to_vec(self)?;
        canonical::check_document(&document, MAX_SNAPSHOT_BYTES)?;
        Ok(document)
    }

    fn check(&self) -> Result<(), EventError> {
        let holds = |holds: bool, otherwise| {
            if holds {
                Ok(())
            } else {
                Err(EventError::Value(otherwise))
            }
        };
        holds(
            self.seen.size >= 1 && self.policy.seq < self.seen.size,
            "a snapshot names a checkpoint behind the policy that it names",
        )?;
        holds(
            (1..=MAX_SEATS).contains(&self.min_approvals),
            "a snapshot asks for 1 to 16 approvals at least",
        )?;
        let approvers = &self.approvers;
        holds(
            (1..=MAX_APPROVERS).contains(&approvers.len())
                && ascending(approvers.iter().map(|approver| &approver.principal)),
            "approvers of a snapshot are sorted, each once, 1 to 4096",
        )?;
        let mut known = BTreeSet::new();
        for approver in approvers {
            holds(
                (1..=MAX_KEYS_EACH).contains(&approver.keys.len())
                    && ascending(approver.keys.iter().map(|key| &key.key_id)),
                "keys of an approver are sorted, each once, 1 to 32",
            )?;
            let mut keys = approver.keys.iter();
            holds(
                keys.all(|key| known.insert(key.key_id)),
                "a key in a snapshot is one approver's",
            )?;
        }
        holds(
            self.revoked.len() <= MAX_REVOKED
                && ascending(self.revoked.iter())
                && !self.revoked.iter().any(|key| known.contains(key)),
            "revoked keys of a snapshot are sorted, each once, 8192 at most, and nobody's",
        )?;
        let members = &self.members;
        let sound = |membership: &Membership| {
            !matches!(membership.of, Whom::User(_))
                && !membership.people.is_empty()
                && membership.people.len() <= MAX_APPROVERS
                && ascending(membership.people.iter())
        };
        holds(
            members.len() <= MAX_MEMBERSHIPS
                && ascending(members.iter().map(|membership| &membership.of))
                && members.iter().all(sound),
            "memberships of a snapshot are sorted, each once, 4096 at most, and somebody's",
        )
    }

    /// Whose key this is, by the snapshot, also when its time is over.
    #[must_use]
    pub fn owner_of(&self, key: &KeyId) -> Option<&Principal> {
        let has = |approver: &&Approver| approver.keys.iter().any(|own| own.key_id == *key);
        self.approvers
            .iter()
            .find(has)
            .map(|found| &found.principal)
    }

    /// Says whether this person is an approver.
    #[must_use]
    pub fn knows(&self, who: &Principal) -> bool {
        let mut approvers = self.approvers.iter();
        approvers.any(|approver| approver.principal == *who)
    }

    /// Says whether the key approves for this person at `now`.
    #[must_use]
    pub fn speaks_for(&self, key: &KeyId, who: &Principal, now: Time) -> bool {
        let mut own = self
            .approvers
            .iter()
            .filter(|approver| approver.principal == *who)
            .flat_map(|approver| &approver.keys);
        own.any(|own| own.key_id == *key && own.expires_at.is_none_or(|end| now < end))
    }

    /// Says whether a person is one of somebody: of approvers only.
    #[must_use]
    pub fn belongs(&self, who: &Principal, whom: &Whom) -> bool {
        match whom {
            Whom::User(name) => name == who,
            Whom::Group(_) | Whom::Role(_) | Whom::Permission(_) => self
                .members
                .iter()
                .any(|membership| membership.of == *whom && membership.people.contains(who)),
        }
    }
}

/// Everything but single users that one of these people is one of.
fn memberships(rights: &Rights, people: &[&Principal]) -> Vec<Membership> {
    let mut members: BTreeMap<Whom, Vec<Principal>> = BTreeMap::new();
    for who in people {
        let groups = rights.groups_of(who).cloned().map(Whom::Group);
        let roles = rights.roles_of(who).into_iter().cloned().map(Whom::Role);
        let held = rights.rights_of(who).into_iter().map(Whom::Permission);
        for whom in groups.chain(roles).chain(held) {
            members.entry(whom).or_default().push((*who).clone());
        }
    }
    members
        .into_iter()
        .map(|(of, people)| Membership { of, people })
        .collect()
}

fn ascending<T: Ord>(items: impl Iterator<Item = T> + Clone) -> bool {
    items.clone().zip(items.skip(1)).all(|(a, b)| a < b)
}

/// Until when so many distinct people's words hold: the latest time at which `threshold` of them
/// still do. Nothing when there are fewer of them.
#[must_use]
pub fn held_until<'a>(
    words: impl IntoIterator<Item = &'a PolicySnapshot>,
    threshold: u32,
) -> Option<Time> {
    let mut ends: BTreeMap<&Principal, Time> = BTreeMap::new();
    for word in words {
        let end = ends.entry(&word.principal).or_insert(word.expires_at);
        *end = (*end).max(word.expires_at);
    }
    let mut ends: Vec<Time> = ends.into_values().collect();
    ends.sort_unstable_by(|a, b| b.cmp(a));
    let last = usize::try_from(threshold).ok()?.checked_sub(1)?;
    ends.get(last).copied()
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::hash::{Digest, Hash};

    fn key(byte: u8) -> ApproverKey {
        ApproverKey {
            key_id: KeyId::new([byte; 32]),
            expires_at: None,
        }
    }

    fn snapshot() -> Snapshot {
        let approver = |name: &str, byte| Approver {
            principal: name.parse().unwrap(),
            keys: vec![key(byte)],
        };
        Snapshot {
            ledger: LedgerId::new([1; 32]),
            seen: Seen {
                size: 7,
                root: Hash::new([2; 32]),
            },
            policy: PolicyRef {
                digest: Digest::new([3; 32]),
                seq: 6,
            },
            approvers: vec![approver("alice", 4), approver("bob", 5)],
            members: vec![Membership {
                of: "group:sre".parse().unwrap(),
                people: vec!["bob".parse().unwrap()],
            }],
            min_approvals: 2,
            revoked: vec![KeyId::new([9; 32])],
        }
    }

    #[test]
    fn a_document_comes_back_as_it_went() {
        let document = snapshot().to_document().unwrap();
        assert_eq!(Snapshot::parse(&document).unwrap(), snapshot());
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_no_snapshot() {
        let broken: [fn(&mut Snapshot); 12] = [
            |s| s.approvers.reverse(),
            |s| s.approvers.clear(),
            |s| s.approvers[0].keys.clear(),
            |s| s.approvers[0].keys.push(key(1)),
            |s| s.approvers[1].keys = vec![key(4)],
            |s| s.revoked = vec![KeyId::new([4; 32])],
            |s| s.revoked.push(KeyId::new([8; 32])),
            |s| s.members[0].people.clear(),
            |s| s.members[0].of = "user:bob".parse().unwrap(),
            |s| s.members.push(s.members[0].clone()),
            |s| s.min_approvals = 0,
            |s| s.policy.seq = 7,
        ];
        for (index, change) in broken.into_iter().enumerate() {
            let mut other = snapshot();
            change(&mut other);
            assert!(other.to_document().is_err(), "{index}");
            let document = canonical::to_vec(&other).unwrap();
            assert!(Snapshot::parse(&document).is_err(), "{index}");
        }
    }

    #[test]
    fn a_key_speaks_for_its_own_approver_until_its_time_is_over() {
        let mut snapshot = snapshot();
        let [alice, bob] = ["alice", "bob"].map(|name| name.parse::<Principal>().unwrap());
        let at = |us| Time::from_micros(us).unwrap();
        let id = KeyId::new([4; 32]);
        snapshot.approvers[0].keys[0].expires_at = Some(at(10));
        assert!(snapshot.speaks_for(&id, &alice, at(9)));
        assert!(!snapshot.speaks_for(&id, &alice, at(10)));
        assert!(!snapshot.speaks_for(&id, &bob, at(9)));
        assert!(!snapshot.belongs(&alice, &"group:sre".parse().unwrap()));
        assert!(snapshot.belongs(&bob, &"group:sre".parse().unwrap()));
    }
}
