//! When each piece of output is shown: all hosts on one line of time, and the waits between.
//!
//! Pure: it neither sleeps nor prints. Times are microseconds; a run's own are those that its host
//! signed, and runs stand to each other as the ledger's times of their starts do.

use std::collections::BTreeMap;
use std::time::Duration;

use countersign_protocol::name::{AgentName, Time};

use crate::view::{CommandView, Piece};

/// A piece of output, and when it came.
#[derive(Debug, Clone, Copy)]
pub struct Cue<'a> {
    /// Microseconds since the first start among the hosts that are shown.
    pub at_us: u64,
    /// The host.
    pub agent: &'a AgentName,
    /// What it wrote.
    pub piece: &'a Piece,
}

/// How fast, and from where.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timing {
    /// How many times as fast as it was; above 0.
    pub speed: f64,
    /// The most that a gap counts, before the speed.
    pub max_wait: Option<Duration>,
    /// What came until then is shown at once.
    pub from: Duration,
    /// Nothing waits.
    pub no_wait: bool,
}

impl Default for Timing {
    /// As it was.
    fn default() -> Self {
        Self {
            speed: 1.0,
            max_wait: None,
            from: Duration::ZERO,
            no_wait: false,
        }
    }
}

/// When a host's run began, by the ledger's clock: the one clock that all hosts share.
#[must_use]
pub fn started(view: &CommandView, agent: &AgentName) -> Option<Time> {
    let part = view.command.executions.get(agent)?;
    part.started.as_ref().map(|(_, position)| position.time)
}

/// All pieces in the order in which they came, of all hosts or only of one.
///
/// Each stream keeps its own order, whatever its host says of times.
#[must_use]
pub fn timeline<'a>(view: &'a CommandView, only: Option<&AgentName>) -> Vec<Cue<'a>> {
    let shown = || {
        let all = view.outputs.iter();
        all.filter(|(agent, _)| only.is_none_or(|only| only == *agent))
    };
    let starts = shown().filter_map(|(agent, _)| started(view, agent));
    let first = starts.min();
    let mut cues = Vec::new();
    for (agent, output) in shown() {
        let start = started(view, agent);
        let after = start.zip(first);
        let after = after.map_or(0, |(start, first)| start.micros_since(first));
        cues.extend(run(agent, &output.pieces, after));
    }
    // A stable sort: what came at the same time stays as the host entered it.
    cues.sort_by_key(|cue| cue.at_us);
    cues
}

/// One run's pieces, which begins `after` microseconds.
fn run<'a>(agent: &'a AgentName, pieces: &'a [Piece], after: u64) -> Vec<Cue<'a>> {
    let mut latest = BTreeMap::new();
    let cues = pieces.iter().map(|piece| {
        let latest = latest.entry(piece.stream).or_insert(0);
        *latest = piece.offset_us.max(*latest);
        Cue {
            at_us: after.saturating_add(*latest),
            agent,
            piece,
        }
    });
    cues.collect()
}

/// How long to wait before each piece. Takes them with their times, ascending.
#[must_use]
pub fn plan<P>(pieces: impl IntoIterator<Item = (u64, P)>, timing: &Timing) -> Vec<(Duration, P)> {
    let mut before = u64::try_from(timing.from.as_micros()).unwrap_or(u64::MAX);
    let waits = pieces.into_iter().map(|(at, piece)| {
        let gap = Duration::from_micros(at.saturating_sub(before));
        before = before.max(at);
        (timing.wait(gap), piece)
    });
    waits.collect()
}

impl Timing {
    fn wait(&self, gap: Duration) -> Duration {
        if self.no_wait {
            return Duration::ZERO;
        }
        let gap = self.max_wait.map_or(gap, |most| gap.min(most));
        let seconds = gap.as_secs_f64() / self.speed;
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use countersign_protocol::event::Stream;
    use proptest::prelude::*;

    use super::*;
    use crate::streams::Held;

    const PIECES: [(u64, char); 4] = [
        (500_000, 'a'),
        (500_000, 'b'),
        (1_500_000, 'c'),
        (61_500_000, 'd'),
    ];

    /// The waits in milliseconds; the pieces must be all of them, in order.
    fn waits(timing: &Timing) -> Vec<u128> {
        let planned = plan(PIECES, timing);
        let order: String = planned.iter().map(|(_, piece)| *piece).collect();
        assert_eq!(order, "abcd");
        planned.iter().map(|(wait, _)| wait.as_millis()).collect()
    }

    #[test]
    fn pieces_come_at_the_pace_at_which_they_were_written() {
        assert_eq!(waits(&Timing::default()), [500, 0, 1_000, 60_000]);
    }

    #[test]
    fn speed_scales_every_wait() {
        let at = |speed| {
            waits(&Timing {
                speed,
                ..Timing::default()
            })
        };
        assert_eq!(at(2.0), [250, 0, 500, 30_000]);
        assert_eq!(at(0.5), [1_000, 0, 2_000, 120_000]);
    }

    #[test]
    fn a_gap_counts_no_more_than_the_longest_wait_and_then_the_speed_counts() {
        let timing = Timing {
            max_wait: Some(Duration::from_millis(800)),
            speed: 2.0,
            ..Timing::default()
        };
        assert_eq!(waits(&timing), [250, 0, 400, 400]);
    }

    #[test]
    fn what_came_before_the_offset_is_shown_at_once_and_the_rest_counts_from_there() {
        let from = |millis| {
            waits(&Timing {
                from: Duration::from_millis(millis),
                ..Timing::default()
            })
        };
        assert_eq!(from(500), [0, 0, 1_000, 60_000]);
        assert_eq!(from(1_000), [0, 0, 500, 60_000]);
        assert_eq!(from(31_500), [0, 0, 0, 30_000]);
        assert_eq!(from(100_000), [0, 0, 0, 0]);
    }

    #[test]
    fn nothing_waits_when_nothing_is_to_wait() {
        let timing = Timing {
            no_wait: true,
            ..Timing::default()
        };
        assert_eq!(waits(&timing), [0, 0, 0, 0]);
    }

    #[test]
    fn a_stream_keeps_its_order_and_the_other_one_goes_between_by_its_time() {
        let agent: AgentName = "web-1".parse().unwrap();
        let piece = |stream, offset_us| Piece {
            stream,
            offset_us,
            len: 0,
            bytes: Held::Here(Arc::default()),
        };
        let pieces = [
            piece(Stream::Stdout, 10),
            piece(Stream::Stdout, 30),
            piece(Stream::Stderr, 20),
            piece(Stream::Stdout, 5),
        ];
        let times: Vec<u64> = run(&agent, &pieces, 100).iter().map(|c| c.at_us).collect();
        assert_eq!(times, [110, 130, 120, 130]);
    }

    proptest! {
        /// Whatever is asked for, every piece comes, in order, and the whole takes what the
        /// time from the offset to the last piece allows at that speed.
        #[test]
        fn no_plan_loses_a_piece_or_takes_longer_than_the_run(
            mut times in prop::collection::vec(0_u64..10_000_000, 0..30),
            speed in 0.1_f64..100.0,
            max in prop::option::of(1_u64..5_000),
            from in 0_u64..10_000,
        ) {
            times.sort_unstable();
            let timing = Timing {
                speed,
                max_wait: max.map(Duration::from_millis),
                from: Duration::from_millis(from),
                no_wait: false,
            };
            let planned = plan(times.iter().map(|at| (*at, *at)), &timing);
            prop_assert_eq!(planned.iter().map(|(_, at)| *at).collect::<Vec<_>>(), times.clone());
            let sum: f64 = planned.iter().map(|(wait, _)| wait.as_secs_f64()).sum();
            let last = times.last().copied().unwrap_or(0);
            let span = last.saturating_sub(from * 1_000);
            let allowed = Duration::from_micros(span).as_secs_f64() / speed;
            prop_assert!(sum <= allowed + 0.001, "{} > {}", sum, allowed);
            if max.is_none() {
                prop_assert!(sum >= allowed - 0.001, "{} < {}", sum, allowed);
            }
        }
    }
}
