//! Time as a value: the only file of the agent that reads a clock.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use countersign_protocol::name::{SECOND_US, Time};

/// Where "now" comes from. Cheap to clone; all clones tell the same time.
#[derive(Clone)]
pub struct Clock(Source);

#[derive(Clone)]
enum Source {
    System,
    Fixed(Arc<AtomicU64>),
}

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub const fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands still until it is moved; for tests.
    #[must_use]
    pub fn fixed(now: Time) -> Self {
        Self(Source::Fixed(Arc::new(AtomicU64::new(now.as_micros()))))
    }

    /// Moves a fixed clock; the machine's clock stays what it is.
    pub fn advance(&self, micros: u64) {
        if let Source::Fixed(now) = &self.0 {
            now.fetch_add(micros, Ordering::SeqCst);
        }
    }

    /// Microseconds since the epoch. A clock before 1970 reads as 1970, which every check refuses.
    #[must_use]
    pub fn now(&self) -> Time {
        let micros = match &self.0 {
            Source::System => system_micros(),
            Source::Fixed(now) => now.load(Ordering::SeqCst),
        };
        Time::from_micros(micros).unwrap_or(EPOCH)
    }
}

const EPOCH: Time = match Time::from_micros(0) {
    Some(epoch) => epoch,
    None => unreachable!(),
};

#[expect(
    clippy::disallowed_methods,
    reason = "this is the one file that reads the clock"
)]
fn system_micros() -> u64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Microseconds of the monotonic clock, which the service manager compares with its own.
pub(crate) fn monotonic_micros() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanos = u64::try_from(time.tv_nsec).unwrap_or_default();
    seconds
        .saturating_mul(SECOND_US)
        .saturating_add(nanos / 1000)
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}
