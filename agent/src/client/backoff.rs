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
