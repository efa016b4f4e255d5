//! Do these approvals suffice? One rule, used by server, agent and auditor alike.
//!
//! People are counted, not keys and not signatures: two keys of one person are one person, and
//! whoever asked does not count.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::name::Principal;

/// What a command needs, compiled from the policy in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requirement {
    /// How many distinct people.
    pub approvals: u32,
    /// Who counts, sorted, each once.
    pub approvers: Vec<Principal>,
}

/// The outcome of counting. Only [`Verdict::is_met`] allows anything.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Distinct people who count.
    pub have: u32,
    /// How many it takes; never 0.
    pub need: u32,
}

impl Verdict {
    /// Says whether enough distinct people approved.
    #[must_use]
    pub const fn is_met(&self) -> bool {
        self.need > 0 && self.have >= self.need
    }
}

/// Counts distinct approvers that the requirement names, without the requester.
///
/// A requirement of 0 is never met: absence never means yes.
pub fn count<'a>(
    requirement: &Requirement,
    requester: &Principal,
    approvers: impl IntoIterator<Item = &'a Principal>,
) -> Verdict {
    let people: BTreeSet<&Principal> = approvers
        .into_iter()
        .filter(|person| *person != requester && requirement.approvers.contains(person))
        .collect();
    let have = u32::try_from(people.len()).unwrap_or(u32::MAX);
    Verdict {
        have,
        need: requirement.approvals,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn people(names: &[&str]) -> Vec<Principal> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn met(need: u32, approvers: &[&str]) -> bool {
        let requirement = Requirement {
            approvals: need,
            approvers: people(&["alice", "bob", "carol"]),
        };
        let given = people(approvers);
        count(&requirement, &people(&["alice"])[0], &given).is_met()
    }

    #[test]
    fn two_distinct_people_are_two() {
        assert!(met(2, &["bob", "carol"]));
    }

    #[test]
    fn one_person_twice_is_one() {
        assert!(!met(2, &["bob", "bob"]));
    }

    #[test]
    fn the_requester_does_not_count() {
        assert!(!met(2, &["alice", "bob"]));
    }

    #[test]
    fn a_stranger_does_not_count() {
        assert!(!met(2, &["bob", "mallory"]));
    }

    #[test]
    fn nothing_required_is_never_met() {
        assert!(!met(0, &["bob", "carol"]));
    }
}
