//! How a command goes over its hosts: the arguments, and `pause`, `resume` and `continue`.

use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use countersign_protocol::name::Label;
use countersign_protocol::rollout::{Gap, Rollout};

use super::request::duration;
use super::stop::Arguments;
use super::{Globals, stop};
use crate::acts::{Order, Steer};
use crate::failure::Failure;
use crate::{console, describe};

/// Where help shows them.
const HEADING: &str = "Rollout (without it all hosts start at once)";

/// How long a host may have its turn before it has started, unless somebody says otherwise: long
/// enough for a restart of its agent, short enough that an absent host does not hold up the others.
const START_WITHIN: Duration = Duration::from_secs(600);

/// How old an approval may be for a host that says nothing else.
const APPROVALS_HOLD: Duration = Duration::from_secs(3600);

const OLD_APPROVALS: &str = "Hosts also refuse approvals that are older than the max_approval_age_s of their agent.toml: \
    an hour where it says nothing";

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A number of hosts, or a share of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Share {
    Hosts(u64),
    Percent(u64),
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |_| format!("a number of hosts, or a share such as 10%, not {text:?}");
        match text.strip_suffix('%') {
            Some(percent) => match percent.parse().map_err(wrong)? {
                percent @ 0..=100 => Ok(Self::Percent(percent)),
                _more => Err("a share is 100% at most".to_owned()),
            },
            None => text.parse().map(Self::Hosts).map_err(wrong),
        }
    }
}

impl Share {
    /// Of so many hosts; a share is rounded down.
    const fn of(self, count: u64) -> u64 {
        match self {
            Self::Hosts(hosts) => hosts,
            Self::Percent(percent) => count * percent / 100,
        }
    }
}

/// In which order hosts have their turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum OrderWord {
    /// By their names
    #[default]
    Name,
    /// By their names, the last first
    Reverse,
    /// By chance
    Random,
    /// As --on names them
    Given,
}

/// How it goes over its hosts.
#[derive(Debug, Clone, Args)]
pub(super) struct RolloutArguments {
    /// So many hosts at once: 3, or 10%; a share is rounded down, and is 1 at least
    #[arg(help_heading = HEADING, long, value_name = "N|%")]
    max_in_flight: Option<Share>,
    /// So many hosts may end badly; one more, and those that have not started are skipped. 0 when left
    /// out of a rollout: the first one that fails, refuses or is lost stops it. Alone it takes no
    /// turns. A share is rounded down: 5% of 10 hosts is 0
    #[arg(help_heading = HEADING, long, value_name = "N|%")]
    max_errors: Option<Share>,
    /// So long between the end on one host and the start on the next: 30m
    #[arg(help_heading = HEADING, long, value_name = "DURATION", value_parser = duration)]
    gap: Option<Duration>,
    /// With --gap: between any two hosts with this label, whatever command has a gap for it
    #[arg(help_heading = HEADING, long, value_name = "LABEL", requires = "gap")]
    gap_label: Option<Label>,
    /// So many hosts first; then a person looks and says: countersign continue ID. A share is rounded
    /// down, and is 1 at least
    #[arg(help_heading = HEADING, long, value_name = "N|%")]
    canary: Option<Share>,
    /// In which order
    #[arg(help_heading = HEADING, long, value_enum, default_value_t)]
    order: OrderWord,
    /// How long a host may have its turn before it starts; then it is skipped, and counts as an error
    #[arg(help_heading = HEADING, long, value_name = "DURATION", value_parser = duration)]
    start_within: Option<Duration>,
}

impl RolloutArguments {
    /// The rollout and the order for so many hosts and a request that stays open for so long. None: all
    /// start at once, unless the policy says otherwise.
    ///
    /// # Errors
    /// It says nothing that can be held, or cannot come to its last host.
    pub(super) fn of(
        &self,
        count: usize,
        expires: Duration,
    ) -> Result<(Option<Rollout>, Order), Failure> {
        let count = count as u64;
        let order = match self.order {
            OrderWord::Name => Order::Name,
            OrderWord::Reverse => Order::Reverse,
            OrderWord::Random => Order::Random,
            OrderWord::Given => Order::Given,
        };
        let in_turns = self.max_in_flight.is_some()
            || self.gap.is_some()
            || self.canary.is_some()
            || self.start_within.is_some();
        if !in_turns && self.max_errors.is_none() {
            return Ok((None, order));
        }
        let at_least_one = |share: Share| share.of(count).max(1);
        let rollout = Rollout {
            canary: self.canary.map(at_least_one),
            gap: self.gap.map(|gap| Gap {
                label: self.gap_label.clone(),
                ms: ms(gap),
            }),
            max_errors: Some(self.max_errors.map_or(0, |share| share.of(count))),
            max_in_flight: self.max_in_flight.map(at_least_one),
            // Errors alone take no turns: whoever has not started is skipped.
            start_within_ms: in_turns.then(|| ms(self.start_within.unwrap_or(START_WITHIN))),
        };
        rollout.check().map_err(Failure::usage)?;
        self.must_fit(count, expires)?;
        Ok((Some(rollout), order))
    }

    /// Hosts of no label are all one gap apart: the last starts that much later than the first. Of a
    /// label's hosts nobody knows here how many there are, nor what else has a gap for it.
    fn must_fit(&self, count: u64, expires: Duration) -> Result<(), Failure> {
        let Some(gap) = self.gap else {
            return Ok(());
        };
        let gaps = u32::try_from(count.saturating_sub(1)).unwrap_or(u32::MAX);
        let least = match self.gap_label {
            Some(_) => gap,
            None => gap.saturating_mul(gaps),
        };
        if gaps > 0 && least >= expires {
            return Err(Failure::usage(format!(
                "the last of {count} hosts would start {} after the first at the earliest, and the request \
                 ends {} after it was asked for (--expires)",
                describe::duration(ms(least)),
                describe::duration(ms(expires)),
            ))
            .hint(format!(
                "give more than that with --expires, 7d at most, or a shorter --gap. {OLD_APPROVALS}"
            )));
        }
        if gaps > 0 && least >= APPROVALS_HOLD {
            console::note(&format!(
                "the last host starts {} after the first at the earliest. {OLD_APPROVALS}",
                describe::duration(ms(least))
            ));
        }
        Ok(())
    }
}

/// No further host has its turn until it is resumed.
pub(super) async fn pause(globals: &Globals, arguments: Arguments) -> Result<u8, Failure> {
    stop::steer(globals, arguments, Steer::Pause).await
}

/// Goes on after a pause.
pub(super) async fn resume(globals: &Globals, arguments: Arguments) -> Result<u8, Failure> {
    stop::steer(globals, arguments, Steer::Resume).await
}

/// Goes on after the canary.
pub(super) async fn go_on(globals: &Globals, arguments: Arguments) -> Result<u8, Failure> {
    stop::steer(globals, arguments, Steer::Continue).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(text: &str) -> Result<Share, String> {
        text.parse()
    }

    #[test]
    fn the_help_of_each_share_says_how_it_is_rounded() {
        let command = RolloutArguments::augment_args(clap::Command::new("x"));
        let takes_share = |argument: &&clap::Arg| {
            let names = argument.get_value_names().unwrap_or_default();
            names.iter().any(|name| name.contains('%'))
        };
        let shares: Vec<_> = command.get_arguments().filter(takes_share).collect();
        assert_eq!(shares.len(), 3);
        for share in shares {
            let help = share.get_help().unwrap().to_string();
            assert!(
                help.to_lowercase().contains("share is rounded down"),
                "{help}"
            );
        }
        // As the help says.
        let words = "--max-in-flight 5% --canary 5% --max-errors 5%";
        let words: Vec<&str> = words.split(' ').collect();
        let rollout = rollout(&words, 10, 3600).unwrap().0.unwrap();
        let rounded = (rollout.max_in_flight, rollout.canary, rollout.max_errors);
        assert_eq!(rounded, (Some(1), Some(1), Some(0)));
    }

    #[test]
    fn errors_alone_take_no_turns_and_a_time_to_start_within_does() {
        let alone = rollout(&["--max-errors", "0"], 10, 3600).unwrap().0;
        let alone = alone.unwrap();
        assert_eq!((alone.max_errors, alone.start_within_ms), (Some(0), None));
        let timed = rollout(&["--start-within", "1m"], 10, 3600).unwrap().0;
        let timed = timed.unwrap();
        assert_eq!(
            (timed.max_errors, timed.start_within_ms),
            (Some(0), Some(60_000))
        );
        assert_eq!(rollout(&[], 10, 3600).unwrap().0, None);
    }

    /// The arguments, for so many hosts and seconds.
    fn rollout(
        words: &[&str],
        hosts: usize,
        expires_s: u64,
    ) -> Result<(Option<Rollout>, Order), Failure> {
        let command = RolloutArguments::augment_args(clap::Command::new("x"));
        let matches = command.try_get_matches_from([&["x"], words].concat());
        let arguments =
            <RolloutArguments as clap::FromArgMatches>::from_arg_matches(&matches.unwrap());
        let expires = Duration::from_secs(expires_s);
        arguments.unwrap().of(hosts, expires)
    }

    #[test]
    fn a_gap_that_cannot_come_to_the_last_host_is_refused_before_anything_is_signed() {
        let gap = ["--gap", "30m"];
        let refused = rollout(&gap, 3, 3600).unwrap_err();
        assert_eq!(refused.exit, crate::exit_code::USAGE);
        assert!(refused.hint.unwrap().contains("--expires"));
        rollout(&gap, 3, 3601).unwrap();
        rollout(&gap, 2, 3600).unwrap();
        // Of how many hosts with the label, is not known: of two at least, or there is no gap.
        let of_label = [&gap[..], &["--gap-label", "role=dns"]].concat();
        rollout(&of_label, 30, 3600).unwrap();
        assert!(rollout(&of_label, 30, 1800).is_err());
        rollout(&of_label, 1, 60).unwrap();
    }

    #[test]
    fn a_share_is_of_the_hosts_that_there_are_and_rounded_down() {
        assert_eq!(share("3").unwrap().of(10), 3);
        assert_eq!(share("25%").unwrap().of(10), 2);
        assert_eq!(share("1%").unwrap().of(10), 0);
        assert_eq!(share("100%").unwrap().of(7), 7);
        for bad in ["", "-1", "%", "101%", "a", "1.5%"] {
            assert!(share(bad).is_err(), "{bad:?}");
        }
    }
}
