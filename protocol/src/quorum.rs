//! Do these approvals suffice? One rule, used by server, agent and auditor alike.
//!
//! People are counted, not keys and not signatures: two keys of one person are one person, whoever
//! asked does not count, and one person takes one seat of a demand.

use alloc::collections::BTreeSet;
use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::canonical;
use crate::name::{Principal, RuleName};
use crate::permission::Whom;
use crate::rollout::{self, Gap};

/// Most seats of one demand: more signatures than that are no control any more.
pub const MAX_SEATS: u32 = 16;

/// Most demands and most names of rules, so that a requirement fits into a payload.
pub const MAX_DEMANDS: usize = 16;

/// Most names in one [`Seats::from`], for the same reason.
pub const MAX_ELECTORS: usize = 48;

/// Largest requirement as JSON: with [`MAX_COUNTED_BYTES`] and the fields of every statement,
/// `command.authorized` fits into a payload.
pub const MAX_REQUIREMENT_BYTES: usize = 6 * 1024;

/// From how many bytes of JSON on approvals and memberships are thinned out to what is needed, for
/// the same reason.
pub const MAX_COUNTED_BYTES: usize = 8 * 1024;

/// So many distinct people of these.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seats {
    /// How many distinct people; at least 1.
    pub approvals: u32,
    /// Of whom, sorted, each once: being one of them is enough.
    pub from: Vec<Whom>,
}

/// What one rule demands: all of its seats filled, nobody sitting on two of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Demand(pub Vec<Seats>);

/// What a command needs, compiled from the rules that permit it. The strictest of each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requirement {
    /// Every demand must be met, each by itself: one for each permitting rule that differs.
    /// None at all only with `break_glass`.
    pub demands: Vec<Demand>,
    /// The rules that permit it, sorted.
    pub rules: Vec<RuleName>,
    /// How long an approval counts, in milliseconds since it was entered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approval_age_ms: Option<u64>,
    /// So many hosts at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_in_flight: Option<u32>,
    /// So many hosts may end badly; one more, and the rest is skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_errors: Option<u32>,
    /// So many hosts, and then a person looks before it goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<u32>,
    /// So long between two hosts, sorted by label, each label once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<Gap>,
    /// Each approver says why.
    #[serde(default, skip_serializing_if = "is_false")]
    pub reason: bool,
    /// How many people must say no to end the request, when it is not one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rejections: Option<u32>,
    /// It runs on its requester's word alone, and a review is open from then on, for so long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub break_glass: Option<BreakGlass>,
}

/// What a run without approvals owes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakGlass {
    /// When the review is overdue, in milliseconds after the authorization.
    pub review_ms: u64,
}

/// A number that would be left out.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands a reference to every field"
)]
pub(crate) const fn is_false(value: &bool) -> bool {
    !*value
}

/// Of those whose approvals count: who is one of whom. The ledger's word, checked by everybody who
/// holds the fold; a host takes it together with what it knows itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Membership {
    /// Of whom.
    pub of: Whom,
    /// Who, sorted.
    pub people: Vec<Principal>,
}

/// Why a requirement is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoRequirement(pub &'static str);

/// The outcome of counting. Only [`Verdict::is_met`] allows anything.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Distinct people who count, at most `need`.
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

impl Demand {
    /// Its seats one by one, each for one person.
    fn places(&self) -> Vec<&Seats> {
        let each = self.0.iter();
        each.flat_map(|seats| (0..seats.approvals.min(MAX_SEATS)).map(move |_| seats))
            .collect()
    }
}

impl Requirement {
    /// So many distinct people of these, and nothing else.
    #[must_use]
    pub fn of(approvals: u32, from: Vec<Whom>) -> Self {
        Self {
            demands: vec![Demand(vec![Seats { approvals, from }])],
            rules: Vec::new(),
            approval_age_ms: None,
            max_in_flight: None,
            max_errors: None,
            canary: None,
            gaps: Vec::new(),
            reason: false,
            rejections: None,
            break_glass: None,
        }
    }

    /// Checks that it demands something that can be counted, in the one order it may stand in.
    ///
    /// # Errors
    /// [`NoRequirement`] says what is wrong.
    pub fn check(&self) -> Result<(), NoRequirement> {
        let need = |holds: bool, otherwise| {
            if holds {
                Ok(())
            } else {
                Err(NoRequirement(otherwise))
            }
        };
        need(
            self.demands.is_empty() == self.break_glass.is_some(),
            "a requirement demands approvals, unless it breaks glass",
        )?;
        need(
            self.demands.len() <= MAX_DEMANDS && self.rules.len() <= MAX_DEMANDS,
            "a requirement has at most 16 demands and names at most 16 rules",
        )?;
        need(
            is_sorted(&self.demands) && is_sorted(&self.rules),
            "demands and rules are sorted, each once",
        )?;
        need(
            self.rejections
                .is_none_or(|noes| (1..=MAX_SEATS).contains(&noes)),
            "it takes 1 to 16 noes to end a request",
        )?;
        need(
            self.max_in_flight != Some(0)
                && self.canary != Some(0)
                && rollout::are_gaps(&self.gaps),
            "at least one host runs at a time; at most 8 gaps of up to seven days, sorted by label",
        )?;
        for Demand(seats) in &self.demands {
            let sound = |seats: &Seats| {
                (1..=MAX_SEATS).contains(&seats.approvals)
                    && (1..=MAX_ELECTORS).contains(&seats.from.len())
                    && is_sorted(&seats.from)
            };
            let total = seats
                .iter()
                .map(|seats| seats.approvals)
                .fold(0, u32::saturating_add);
            need(
                (1..=MAX_SEATS).contains(&total) && seats.iter().all(sound),
                "a demand has 1 to 16 seats, each for 1 to 48 sorted names",
            )?;
        }
        need(
            canonical::to_vec(self).is_ok_and(|json| json.len() <= MAX_REQUIREMENT_BYTES),
            "what the rules demand together names too many to be written down (6 KiB); \
             name groups instead of people, or let fewer rules permit the same",
        )
    }

    /// How many distinct people it takes at least; 0 only where it breaks glass.
    #[must_use]
    pub fn least(&self) -> u32 {
        let seats = |demand: &Demand| demand.0.iter().map(|seats| seats.approvals).sum();
        self.demands.iter().map(seats).max().unwrap_or(0)
    }

    /// Everybody that its seats name, each once.
    #[must_use]
    pub fn electors(&self) -> BTreeSet<&Whom> {
        let seats = self.demands.iter().flat_map(|demand| &demand.0);
        seats.flat_map(|seats| &seats.from).collect()
    }
}

fn is_sorted<T: Ord>(items: &[T]) -> bool {
    items.iter().zip(items.iter().skip(1)).all(|(a, b)| a < b)
}

/// Counts distinct approvers towards a requirement, without the requester.
///
/// `belongs` says whether a person is one of somebody. Nothing demanded is never met, unless the
/// requirement breaks glass: then the requester's own word is all it takes.
pub fn count<'a>(
    requirement: &Requirement,
    requester: &Principal,
    approvers: impl IntoIterator<Item = &'a Principal>,
    belongs: impl Fn(&Principal, &Whom) -> bool,
) -> Verdict {
    if requirement.break_glass.is_some() && requirement.demands.is_empty() {
        return Verdict { have: 1, need: 1 };
    }
    let others = approvers.into_iter().filter(|person| *person != requester);
    count_all(requirement, others, belongs)
}

/// As [`count`], with whoever asked: for changes of rights, whose requester consents by asking.
pub fn count_all<'a>(
    requirement: &Requirement,
    people: impl IntoIterator<Item = &'a Principal>,
    belongs: impl Fn(&Principal, &Whom) -> bool,
) -> Verdict {
    let people: BTreeSet<&Principal> = people.into_iter().collect();
    let people: Vec<&Principal> = people.into_iter().collect();
    let mut need = 0;
    let mut missing = 0;
    for demand in &requirement.demands {
        let wanted = demand.places();
        let total = u32::try_from(wanted.len()).unwrap_or(u32::MAX);
        let filled = seated(&wanted, &people, &belongs);
        need = need.max(total);
        missing = missing.max(total.saturating_sub(filled));
    }
    Verdict {
        have: need.saturating_sub(missing),
        need,
    }
}

/// Of these people, in their order, those who fill a seat that those before them leave empty. What
/// all of them fill together, these do.
pub fn needed<'a>(
    requirement: &Requirement,
    people: impl IntoIterator<Item = &'a Principal>,
    belongs: impl Fn(&Principal, &Whom) -> bool,
) -> BTreeSet<&'a Principal> {
    let wanted: Vec<Vec<&Seats>> = requirement.demands.iter().map(Demand::places).collect();
    let filled = |people: &[&Principal]| -> Vec<u32> {
        let each = wanted.iter();
        each.map(|places| seated(places, people, &belongs))
            .collect()
    };
    let mut kept: Vec<&Principal> = Vec::new();
    let mut before = filled(&kept);
    for person in people {
        if kept.contains(&person) {
            continue;
        }
        kept.push(person);
        let after = filled(&kept);
        if after == before {
            kept.pop();
        }
        before = after;
    }
    kept.into_iter().collect()
}

/// How many seats can be filled at most, one person a seat: a maximum matching, by augmenting paths.
fn seated(
    wanted: &[&Seats],
    people: &[&Principal],
    belongs: &impl Fn(&Principal, &Whom) -> bool,
) -> u32 {
    let may_sit: Vec<Vec<usize>> = wanted
        .iter()
        .map(|seats| {
            let one_of = |person: &Principal| seats.from.iter().any(|whom| belongs(person, whom));
            let indexed = people.iter().enumerate();
            indexed
                .filter(|(_, person)| one_of(person))
                .map(|(index, _)| index)
                .collect()
        })
        .collect();
    let mut seat_of: Vec<Option<usize>> = vec![None; people.len()];
    let mut filled = 0;
    for seat in 0..wanted.len() {
        let mut asked = vec![false; people.len()];
        filled += u32::from(find_person(seat, &may_sit, &mut seat_of, &mut asked));
    }
    filled
}

/// Finds somebody for a seat, moving others to other seats where they can sit too.
fn find_person(
    seat: usize,
    may_sit: &[Vec<usize>],
    seat_of: &mut [Option<usize>],
    asked: &mut [bool],
) -> bool {
    for person in may_sit.get(seat).into_iter().flatten().copied() {
        let Some(known) = asked.get_mut(person) else {
            continue;
        };
        if core::mem::replace(known, true) {
            continue;
        }
        let sits = seat_of.get(person).copied().flatten();
        let free = sits.is_none_or(|other| find_person(other, may_sit, seat_of, asked));
        if free && let Some(place) = seat_of.get_mut(person) {
            *place = Some(seat);
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::{String, ToString};

    use super::*;

    fn people(names: &[&str]) -> Vec<Principal> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn whom(name: &str) -> Whom {
        name.parse().unwrap()
    }

    /// alice and bob are of sre, bob and carol of security.
    fn belongs(person: &Principal, whom: &Whom) -> bool {
        match whom.to_string().as_str() {
            "group:sre" => ["alice", "bob"].contains(&person.as_str()),
            "group:security" => ["bob", "carol"].contains(&person.as_str()),
            "permission:command:approve" => ["alice", "bob", "carol"].contains(&person.as_str()),
            _nobody => false,
        }
    }

    fn verdict(seats: &[(u32, &str)], approvers: &[&str]) -> Verdict {
        let mut requirement = Requirement::of(1, Vec::new());
        requirement.demands = vec![Demand(
            seats
                .iter()
                .map(|(approvals, from)| Seats {
                    approvals: *approvals,
                    from: vec![whom(from)],
                })
                .collect(),
        )];
        let given = people(approvers);
        count(&requirement, &people(&["requester"])[0], &given, belongs)
    }

    const ANY: &str = "permission:command:approve";

    #[test]
    fn two_distinct_people_are_two() {
        assert!(verdict(&[(2, ANY)], &["bob", "carol"]).is_met());
        assert!(!verdict(&[(2, ANY)], &["bob"]).is_met());
    }

    #[test]
    fn one_person_twice_is_one() {
        assert!(!verdict(&[(2, ANY)], &["bob", "bob"]).is_met());
    }

    #[test]
    fn the_requester_does_not_count() {
        let requirement = Requirement::of(2, vec![whom(ANY)]);
        let given = people(&["alice", "bob"]);
        assert!(!count(&requirement, &given[0], &given, belongs).is_met());
    }

    #[test]
    fn a_stranger_does_not_count() {
        assert!(!verdict(&[(2, ANY)], &["bob", "mallory"]).is_met());
    }

    #[test]
    fn nothing_required_is_never_met() {
        assert!(!verdict(&[], &["bob", "carol"]).is_met());
        assert!(!verdict(&[(0, ANY)], &["bob", "carol"]).is_met());
    }

    #[test]
    fn nobody_sits_on_the_seats_of_two_groups() {
        let both = [(1, "group:sre"), (1, "group:security")];
        assert!(!verdict(&both, &["bob"]).is_met());
        assert!(verdict(&both, &["bob", "carol"]).is_met());
        assert!(verdict(&both, &["alice", "bob"]).is_met());
        assert_eq!(verdict(&both, &["alice"]), Verdict { have: 1, need: 2 });
    }

    #[test]
    fn somebody_moves_to_another_seat_when_that_helps() {
        // bob is found for sre first, and must make room for alice, who can sit nowhere else.
        let seats = [(1, "group:sre"), (1, "group:security")];
        assert!(verdict(&seats, &["bob", "alice"]).is_met());
    }

    #[test]
    fn every_demand_is_met_by_itself() {
        let mut requirement = Requirement::of(1, vec![whom("group:sre")]);
        requirement.demands.push(Demand(vec![Seats {
            approvals: 2,
            from: vec![whom(ANY)],
        }]));
        let counted = |names: &[&str]| {
            let given = people(names);
            count(&requirement, &people(&["requester"])[0], &given, belongs)
        };
        assert!(!counted(&["bob"]).is_met());
        assert!(!counted(&["carol"]).is_met());
        assert!(counted(&["bob", "carol"]).is_met());
    }

    #[test]
    fn those_who_are_needed_fill_what_all_fill() {
        let mut requirement = Requirement::of(1, vec![whom("group:sre")]);
        requirement.demands.push(Demand(vec![Seats {
            approvals: 2,
            from: vec![whom("group:security")],
        }]));
        let needed = |names: &[&str]| -> Vec<String> {
            let given = people(names);
            let needed = needed(&requirement, &given, belongs);
            needed.into_iter().map(ToString::to_string).collect()
        };
        let given = ["mallory", "alice", "alice", "bob", "bob"];
        assert_eq!(needed(&given), ["alice", "bob"]);
        assert_eq!(needed(&["bob", "alice", "bob", "carol"]), ["bob", "carol"]);
        assert_eq!(needed(&["mallory"]), [""; 0]);
    }

    #[test]
    fn a_requirement_that_does_not_fit_is_none() {
        let named = |len: usize| {
            let name = |n: usize| whom(&format!("user:{n:02}{}", "x".repeat(len)));
            Requirement::of(2, (0..MAX_ELECTORS).map(name).collect())
        };
        assert_eq!(named(100).check(), Ok(()));
        assert!(named(126).check().is_err());
    }
}
