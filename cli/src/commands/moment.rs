//! A point of the past as people write it: an entry, a time, a day, or how long ago.

use countersign_protocol::name::Time;

use super::request;
use crate::acts::Since;
use crate::clock;
use crate::failure::Failure;

/// An entry, a time, a day, or how long ago.
pub(super) fn since(text: &str) -> Result<Since, String> {
    if let Ok(seq) = text.parse() {
        return Ok(Since::Entry(seq));
    }
    let day = || -> Option<jiff::Timestamp> {
        let day: jiff::civil::Date = text.parse().ok()?;
        Some(day.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
    };
    let stamp: Option<jiff::Timestamp> = text.parse().ok().or_else(day);
    let now = clock::now();
    let micros = match stamp {
        Some(stamp) => u64::try_from(stamp.as_microsecond()).ok(),
        None => {
            let ago = request::duration(text).map_err(|_| {
                format!("{text:?} is no entry, time or duration: 4711, 2026-01-31, 30d")
            })?;
            let ago = u64::try_from(ago.as_micros()).unwrap_or(u64::MAX);
            Some(now.as_micros().saturating_sub(ago))
        }
    };
    let time = micros.and_then(Time::from_micros);
    time.map(Since::Time)
        .ok_or_else(|| format!("{text:?} is before 1970"))
}

/// The time, where an entry's number will not do.
pub(super) fn time_of(since: Option<Since>) -> Result<Option<Time>, Failure> {
    match since {
        None => Ok(None),
        Some(Since::Time(time)) => Ok(Some(time)),
        Some(Since::Entry(seq)) => Err(Failure::usage(format!(
            "{seq} is an entry's number; give a time, a day, or how long ago"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_an_entry_a_time_a_day_or_how_long_ago() {
        let micros = |text| match since(text).unwrap() {
            Since::Time(time) => time.as_micros(),
            Since::Entry(seq) => unreachable!("{text} is no entry: {seq}"),
        };
        assert_eq!(since("4711").unwrap(), Since::Entry(4711));
        assert_eq!(micros("1970-01-02"), 86_400_000_000);
        assert_eq!(micros("1970-01-01T00:00:01Z"), 1_000_000);
        let then = micros("1h");
        let ago = clock::now().as_micros() - then;
        assert!((3_600_000_000..3_660_000_000).contains(&ago), "{ago}");
        for bad in ["", "soon", "1969-01-01", "-1h"] {
            assert!(since(bad).is_err(), "{bad:?}");
        }
    }
}
