//! Waiting between tries: longer each time, bounded, and never in step with other agents.

use std::time::Duration;

use crate::key;

/// The pauses between tries of one thing.
#[derive(Debug, Clone)]
pub struct Backoff {
    next: Duration,
    first: Duration,
    most: Duration,
}

impl Backoff {
    /// Pauses that begin at `first` and double up to `most`.
    #[must_use]
    pub const fn new(first: Duration, most: Duration) -> Self {
        Self {
            next: first,
            first,
            most,
        }
    }

    /// For a server that cannot be reached: quick at first, half a minute at most.
    #[must_use]
    pub const fn for_server() -> Self {
        Self::new(Duration::from_millis(100), Duration::from_secs(30))
    }

    /// The next pause: between half of its length and all of it, drawn at random.
    pub fn pause(&mut self) -> Duration {
        let length = self.next;
        self.next = length.saturating_mul(2).min(self.most);
        // Without randomness the pause is whole; it only spreads agents out.
        let [byte] = key::random::<1>().unwrap_or([u8::MAX]);
        length / 2 + length.saturating_mul(u32::from(byte)) / (2 * u32::from(u8::MAX))
    }

    /// Begins anew after a success.
    pub const fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More agents than one would restart at once.
    const AGENTS: usize = 200;

    #[test]
    fn agents_that_lost_their_server_at_once_do_not_come_back_at_once() {
        let mut all: Vec<Backoff> = (0..AGENTS).map(|_| Backoff::for_server()).collect();
        let mut length = Duration::from_millis(100);
        for _ in 0..12 {
            let mut pauses: Vec<Duration> = all.iter_mut().map(Backoff::pause).collect();
            pauses.sort_unstable();
            let (first, last) = (pauses[0], pauses[AGENTS - 1]);
            assert!(
                length / 2 <= first && last <= length,
                "{first:?} to {last:?}"
            );
            // With 200 draws of 256 a quarter stays empty once in 10^24 runs.
            let quarter = |n: u32| length / 2 + length * n / 8;
            for n in 0..4 {
                let within = quarter(n)..=quarter(n + 1);
                let one = pauses.iter().any(|pause| within.contains(pause));
                assert!(one, "nobody within {within:?}");
            }
            length = (length * 2).min(Duration::from_secs(30));
        }
    }

    #[test]
    fn a_success_begins_anew() {
        let mut backoff = Backoff::for_server();
        for _ in 0..8 {
            backoff.pause();
        }
        backoff.reset();
        assert!(backoff.pause() <= Duration::from_millis(100));
    }
}
