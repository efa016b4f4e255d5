//! Foreign text as it is shown: the protocol's rules for what may reach a screen, and times for
//! people. Everything that came from elsewhere passes through here.

use countersign_protocol::name::Time;
pub use countersign_protocol::visible::{
    Escaper, MAX_COLUMNS, WRAP_COLUMNS, block, cut, is_foreign, line, word, words,
};

/// A time for people: UTC, to the second.
#[must_use]
pub fn time(time: Time) -> String {
    let micros = i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_microsecond(micros).map_or_else(
        |_| format!("{} us", time.as_micros()),
        |stamp| stamp.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
    )
}
