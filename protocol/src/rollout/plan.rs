//! What was asked for and what is required, made into one plan; turns and times.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::command::Act;
use crate::name::{Label, SECOND_US, Time};
use crate::quorum::Requirement;

/// The longest gap, and the longest that a host may have its turn: no request stays open longer.
pub const MAX_SPAN_MS: u64 = crate::command::MAX_LIFETIME_US / 1000;

/// Most gaps that the rules ask for at once, so that a requirement fits into a payload.
pub const MAX_GAPS: usize = 8;

/// How far ahead of its entry the end of a run may be dated and still hold up the next host: what
/// clocks may differ by. A host whose clock is wrong does not stop a rollout.
pub const MAX_AHEAD_US: u64 = 120 * SECOND_US;

/// So long between the end of a run on one host and the start on another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Gap {
    /// Hosts with this label, whatever command runs on them under a gap for it. Left out: the hosts
    /// of this command.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub label: Option<Label>,
    /// How long, in milliseconds.
    pub ms: u64,
}

impl Gap {
    /// Whether two gaps are about some of the same hosts, by the names of their labels alone.
    #[must_use]
    pub fn meets(one: &Label, other: &Label) -> bool {
        one.is_within(other) || other.is_within(one)
    }

    /// How long, in microseconds.
    #[must_use]
    pub const fn micros(&self) -> u64 {
        self.ms.saturating_mul(1000)
    }

    const fn is_sound(&self) -> bool {
        1 <= self.ms && self.ms <= MAX_SPAN_MS
    }
}

/// What the requester asks for, signed with the act and bound by every approval.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Rollout {
    /// So many hosts, and then a person looks before it goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<u64>,
    /// So long between two hosts. With it they run one after the other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gap: Option<Gap>,
    /// So many hosts may end badly; one more, and the rest is skipped. Without it nothing stops it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_errors: Option<u64>,
    /// So many hosts at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_in_flight: Option<u64>,
    /// How long a host may have its turn before it has started, in milliseconds; then it is
    /// skipped. Without it, until the command's own time is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_within_ms: Option<u64>,
}

impl Rollout {
    /// Checks its numbers.
    ///
    /// # Errors
    /// A sentence on the first that is out of bounds.
    pub fn check(&self) -> Result<(), &'static str> {
        if *self == Self::default() {
            return Err("a rollout says something, or is left out");
        }
        if self.max_in_flight == Some(0) || self.canary == Some(0) {
            return Err("a rollout has at least one host in flight, and in its canary");
        }
        let gap = self.gap.as_ref().is_none_or(Gap::is_sound);
        let within = self
            .start_within_ms
            .is_none_or(|ms| (1..=MAX_SPAN_MS).contains(&ms));
        if !gap || !within {
            return Err("a gap, and the time to start in, is between 1 ms and seven days");
        }
        Ok(())
    }
}

/// Checks the gaps that rules ask for: sorted by label, each label once, within the limits.
#[must_use]
pub(crate) fn are_gaps(gaps: &[Gap]) -> bool {
    let pairs = gaps.iter().zip(gaps.iter().skip(1));
    gaps.len() <= MAX_GAPS
        && gaps.iter().all(Gap::is_sound)
        && pairs.into_iter().all(|(a, b)| a.label < b.label)
}

/// The rules of one rollout, as they hold: the stricter of what was asked and what is required.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// So many hosts at once; at least 1.
    pub in_flight: u64,
    /// The gaps that hold, sorted by label.
    pub gaps: Vec<Gap>,
    /// So many hosts, and then a person looks.
    pub canary: Option<u64>,
    /// How long a host may have its turn, in milliseconds.
    pub start_within_ms: Option<u64>,
}

impl Plan {
    /// The plan of an authorized command. None where all its hosts may start at once, for as long as
    /// its own time: then there are no turns.
    #[must_use]
    pub fn of(act: &Act, requirement: &Requirement) -> Option<Self> {
        let none = Rollout::default();
        let asked = act.rollout.as_ref().unwrap_or(&none);
        let gaps = stricter(asked.gap.as_ref(), &requirement.gaps);
        let count = act.targets.count;
        let in_flight = least(asked.max_in_flight, requirement.max_in_flight)
            .filter(|_| gaps.is_empty())
            .unwrap_or(if gaps.is_empty() { count } else { 1 });
        let canary = least(asked.canary, requirement.canary).filter(|canary| *canary < count);
        // A host can miss its turn only where it has one.
        let is_timed = asked.start_within_ms.is_some();
        let free = in_flight >= count && gaps.is_empty() && canary.is_none() && !is_timed;
        (!free).then(|| Self {
            in_flight: in_flight.max(1),
            gaps,
            canary,
            start_within_ms: asked.start_within_ms,
        })
    }

    /// Whose end this turn waits for.
    #[must_use]
    pub const fn waits_for(&self, turn: u64) -> Option<u64> {
        turn.checked_sub(self.in_flight)
    }

    /// Says whether a person has to look before this turn.
    #[must_use]
    pub fn is_after_canary(&self, turn: u64) -> bool {
        self.canary.is_some_and(|canary| turn >= canary)
    }

    /// The time that a host has its turn for: until then, and within the command's own time.
    #[must_use]
    pub fn start_before(&self, released: Time, expires_at: Time) -> Time {
        let within = self.start_within_ms;
        within.map_or(expires_at, |ms| {
            released
                .plus_micros(ms.saturating_mul(1000))
                .min(expires_at)
        })
    }

    /// The labels whose gaps hold, sorted.
    pub fn labels(&self) -> impl Iterator<Item = &Label> {
        self.gaps.iter().filter_map(|gap| gap.label.as_ref())
    }

    /// When the next host may start after one that was over at `over_at`.
    #[must_use]
    pub fn free_at(&self, over_at: Time) -> Time {
        let longest = self.gaps.iter().map(Gap::micros).max();
        over_at.plus_micros(longest.unwrap_or(0))
    }
}

/// So many hosts may end badly; one more, and those that wait are skipped. It takes no turns: where all
/// hosts may start at once it keeps out those that have not, at no cost of an entry for each of them.
#[must_use]
pub(crate) fn max_errors(act: &Act, requirement: &Requirement) -> Option<u64> {
    let asked = act.rollout.as_ref().and_then(|asked| asked.max_errors);
    least(asked, requirement.max_errors)
}

fn least(asked: Option<u64>, required: Option<u32>) -> Option<u64> {
    let required = required.map(u64::from);
    asked.into_iter().chain(required).min()
}

/// When a host was over, from its last statement: by its own clock or by the ledger's, whichever is
/// later, and never much later than the ledger's.
#[must_use]
pub fn over_at(made_at: Time, entered: Time) -> Time {
    made_at.min(entered.plus_micros(MAX_AHEAD_US)).max(entered)
}

/// The longest of the gaps for each label.
fn stricter(asked: Option<&Gap>, required: &[Gap]) -> Vec<Gap> {
    let mut gaps = required.to_vec();
    if let Some(asked) = asked {
        match gaps.iter_mut().find(|gap| gap.label == asked.label) {
            Some(same) => same.ms = same.ms.max(asked.ms),
            None => gaps.push(asked.clone()),
        }
        gaps.sort();
    }
    gaps
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn gap(label: Option<&str>, ms: u64) -> Gap {
        Gap {
            label: label.map(|label| label.parse().unwrap()),
            ms,
        }
    }

    #[test]
    fn for_each_label_the_longest_gap_holds() {
        let required = [gap(None, 5), gap(Some("role=dns"), 1000)];
        let found = stricter(Some(&gap(Some("role=dns"), 10)), &required);
        assert_eq!(found, required);
        let found = stricter(Some(&gap(Some("role=dns"), 2000)), &required);
        assert_eq!(found, [gap(None, 5), gap(Some("role=dns"), 2000)]);
        let found = stricter(Some(&gap(Some("role=db"), 7)), &required);
        assert_eq!(
            found,
            vec![
                gap(None, 5),
                gap(Some("role=db"), 7),
                gap(Some("role=dns"), 1000)
            ]
        );
        assert!(are_gaps(&found));
    }

    #[test]
    fn a_run_is_over_by_the_later_clock_within_what_clocks_may_differ_by() {
        let time = |us| Time::from_micros(us).unwrap();
        assert_eq!(over_at(time(5), time(9)), time(9));
        assert_eq!(over_at(time(9 + 7), time(9)), time(16));
        assert_eq!(
            over_at(time(9 + 10 * MAX_AHEAD_US), time(9)),
            time(9 + MAX_AHEAD_US)
        );
    }

    #[test]
    fn labels_that_share_hosts_meet() {
        let meets = |a: &str, b: &str| Gap::meets(&a.parse().unwrap(), &b.parse().unwrap());
        assert!(meets("role=dns", "role=dns.eu"));
        assert!(meets("role=dns.eu", "role=dns"));
        assert!(!meets("role=dns", "role=dnsx"));
        assert!(!meets("role=dns.eu", "role=dns.us"));
    }
}
