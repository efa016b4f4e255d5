//! A time as rules see it: hour, minute and weekday in UTC, by arithmetic alone.

use countersign_protocol::name::{SECOND_US, Time};

/// From Monday on. Day 0 of the epoch was a Thursday.
const WEEKDAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const FIRST_WEEKDAY: u64 = 3;

/// A time of a week.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    /// 0 to 1439.
    pub(crate) minute_of_day: u64,
    /// `mon` to `sun`.
    pub(crate) weekday: &'static str,
}

impl Moment {
    pub(crate) fn of(time: Time) -> Self {
        let minutes = time.as_micros() / (60 * SECOND_US);
        let day = minutes / (24 * 60);
        let weekday = usize::try_from((day + FIRST_WEEKDAY) % 7).unwrap_or(0);
        Self {
            minute_of_day: minutes % (24 * 60),
            weekday: WEEKDAYS.get(weekday).copied().unwrap_or("mon"),
        }
    }

    pub(crate) const fn hour(self) -> u64 {
        self.minute_of_day / 60
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weekday_and_an_hour_are_those_of_the_calendar() {
        let of = |seconds: u64| {
            let moment = Moment::of(Time::from_micros(seconds * SECOND_US).unwrap());
            (moment.weekday, moment.hour(), moment.minute_of_day)
        };
        assert_eq!(of(0), ("thu", 0, 0));
        // 2026-11-21 was a Saturday; 2024-02-29 a Thursday; 2000-01-03 a Monday.
        assert_eq!(of(1_795_219_199), ("fri", 23, 1439));
        assert_eq!(of(1_795_219_200), ("sat", 0, 0));
        assert_eq!(of(1_709_210_096), ("thu", 12, 754));
        assert_eq!(of(946_857_600), ("mon", 0, 0));
    }
}
