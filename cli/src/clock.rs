//! Time as a value: the only file of the client that reads a clock.

use std::time::SystemTime;

use countersign_protocol::name::Time;

/// Microseconds since the epoch. A clock before 1970 reads as 1970, which every check refuses.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one file that reads the clock"
)]
pub fn now() -> Time {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let micros = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
    Time::from_micros(0)
        .map(|epoch| epoch.plus_micros(micros))
        .unwrap_or_else(|| unreachable!("zero is a time"))
}
