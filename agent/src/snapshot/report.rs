//! What a host knows of policy snapshots, in words: for `check`.
//!
//! Whether one holds is the answer of [`Snapshots::weigh`], the same that a grant gets. This file
//! must not judge.

use std::fmt;

use countersign_protocol::hash::LedgerId;
use countersign_protocol::name::{Principal, SECOND_US, Time};
use countersign_protocol::snapshot::Snapshot;
use serde_json::json;

use super::memory::{Snapshots, Standing};
use super::weigh::SnapshotRule;

/// Days in the 400 years after which the calendar repeats itself.
const ERA_DAYS: u64 = 146_097;

/// From 1 March of the year 0 to 1 January 1970.
const EPOCH_DAYS: u64 = 719_468;

/// What a grant would meet that brings no snapshot of its own.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) standing: Standing,
    threshold: u32,
    max_age_us: u64,
    /// The one that is kept, as long as enough of today's administrators have signed it.
    kept: Option<(Snapshot, Vec<Word>)>,
    revoked: usize,
    now: Time,
}

/// An administrator's signature that counts.
#[derive(Debug)]
struct Word {
    who: Principal,
    made_at: Time,
    end: Time,
}

impl Report {
    /// Of what is remembered, by the host's rule.
    pub(crate) fn of(
        snapshots: &Snapshots,
        rule: &SnapshotRule,
        ledger: &LedgerId,
        now: Time,
    ) -> Self {
        let (kept, revoked) = snapshots.kept(rule, ledger, now);
        let kept = kept.ok().map(|signed| {
            let words = signed.words.iter().map(|word| Word {
                who: word.principal.clone(),
                made_at: word.made_at,
                end: rule.end_of(word),
            });
            let words = words.collect();
            (signed.snapshot, words)
        });
        Self {
            standing: snapshots.weigh(None, Some(rule), ledger, now),
            threshold: rule.threshold,
            max_age_us: rule.max_age_us,
            kept,
            revoked: revoked.len(),
            now,
        }
    }

    /// The same for a script. What is not known is null.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        let until = self.standing.snapshot.as_ref().map(|(_, until)| until);
        let kept = self.kept.as_ref();
        let first = kept.and_then(|(_, words)| words.iter().map(|word| word.made_at).min());
        let words = kept.map_or(&[][..], |(_, words)| words.as_slice());
        let words = words.iter().map(|word| {
            json!({
                "principal": word.who,
                "made_us": word.made_at,
                "age_s": self.now.micros_since(word.made_at) / SECOND_US,
                "until_us": word.end,
            })
        });
        json!({
            "holds": until.is_some(),
            "held": kept.is_some(),
            "until_us": until,
            "age_s": first.map(|made_at| self.now.micros_since(made_at) / SECOND_US),
            "signed_by": words.collect::<Vec<_>>(),
            "threshold": self.threshold,
            "max_age_s": self.max_age_us / SECOND_US,
            "approvers": kept.map(|(snapshot, _)| snapshot.approvers.len()),
            "min_approvals": kept.map(|(snapshot, _)| snapshot.min_approvals),
            "log_size": kept.map(|(snapshot, _)| snapshot.seen.size),
            "revoked_keys": self.revoked,
            "detail": self.standing.refusal.as_ref().map(|refusal| &refusal.detail),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.standing.snapshot, &self.kept) {
            (Some((_, until)), _) => {
                let left = span(until.micros_since(self.now));
                writeln!(f, "snapshot: holds until {}, for {left}", stamp(*until))?;
            }
            (None, Some(_)) => writeln!(f, "snapshot: one is kept that does not hold")?,
            (None, None) => writeln!(f, "snapshot: none is kept that counts")?,
        }
        if let Some((snapshot, words)) = &self.kept {
            let words = words.iter().map(|word| {
                let age = span(self.now.micros_since(word.made_at));
                format!("{} {age} ago", word.who)
            });
            let words: Vec<String> = words.collect();
            let needed = self.threshold;
            writeln!(f, "  signed by: {}; it takes {needed}", words.join(", "))?;
            writeln!(
                f,
                "  it lists: {} approvers, {} approvals at least, as the log of {} entries has them",
                snapshot.approvers.len(),
                snapshot.min_approvals,
                snapshot.seen.size,
            )?;
        }
        if self.revoked > 0 {
            writeln!(f, "  revoked keys that count for nothing: {}", self.revoked)?;
        }
        Ok(())
    }
}

/// A time of the calendar, in UTC.
fn stamp(time: Time) -> String {
    let seconds = time.as_micros() / SECOND_US;
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// Days since 1970 as year, month and day; years begin in March here, so that a leap day is their
/// last.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days.saturating_add(EPOCH_DAYS);
    let (era, day) = (days / ERA_DAYS, days % ERA_DAYS);
    let leaps = (day / 36_524).saturating_sub(day / (ERA_DAYS - 1));
    let year = day.saturating_add(leaps).saturating_sub(day / 1460) / 365;
    let first = (365 * year)
        .saturating_add(year / 4)
        .saturating_sub(year / 100);
    let day = day.saturating_sub(first);
    let month = (5 * day).saturating_add(2) / 153;
    let day = day.saturating_sub((153 * month).saturating_add(2) / 5);
    let year = year.saturating_add(400 * era);
    let (year, month) = if month < 10 {
        (year, month.saturating_add(3))
    } else {
        (year.saturating_add(1), month.saturating_sub(9))
    };
    (year, month, day.saturating_add(1))
}

/// A span in its two largest units.
fn span(us: u64) -> String {
    let seconds = us / SECOND_US;
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds} s"),
        (0, minutes) => format!("{minutes} min {} s", seconds % 60),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, said) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (951_868_800, "2000-03-01 00:00:00 UTC"),
            (1_709_251_199, "2024-02-29 23:59:59 UTC"),
            (1_798_761_599, "2026-12-31 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            let time = Time::from_micros(seconds * SECOND_US).unwrap();
            assert_eq!(stamp(time), said);
        }
    }

    #[test]
    fn spans_are_said_in_two_units() {
        for (seconds, said) in [(59, "59 s"), (60, "1 min 0 s"), (7_325, "2 h 2 min")] {
            assert_eq!(span(seconds * SECOND_US), said);
        }
    }
}
