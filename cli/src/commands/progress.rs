//! Words on long work, for whoever watches a terminal: how much of how much, and how fast.

use std::time::{Duration, Instant};

use crate::console;

/// How often something is said.
const EVERY: Duration = Duration::from_secs(1);

/// Work under way.
pub(super) struct Progress {
    is_watched: bool,
    begun: Instant,
    told: Instant,
}

impl Progress {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            is_watched: console::is_terminal(true),
            begun: now,
            told: now,
        }
    }

    /// Says so when it is time to.
    pub(super) fn tell(&mut self, done: u64, all: u64) {
        if !self.is_watched || self.told.elapsed() < EVERY {
            return;
        }
        self.told = Instant::now();
        console::note(&words(done, all, self.begun.elapsed()));
    }
}

fn words(done: u64, all: u64, took: Duration) -> String {
    let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
    let rate = done.saturating_mul(1000) / millis;
    format!("{done} of {all} entries audited, {rate} a second")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_of_all_the_time_and_never_of_none() {
        let said = words(300, 1000, Duration::from_secs(2));
        assert_eq!(said, "300 of 1000 entries audited, 150 a second");
        assert!(words(1, 2, Duration::ZERO).contains("1000 a second"));
    }
}
