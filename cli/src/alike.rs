//! A command on many hosts in a few lines: how many came out how, and who said the same.
//!
//! Two runs said the same when they ended alike and the digests of all that they wrote are equal,
//! also of what was not kept. It judges nothing, and reads what the hosts themselves signed.

use std::collections::BTreeMap;

use countersign_protocol::event::Stream;
use countersign_protocol::hash::Digest;
use countersign_protocol::lifecycle::{Execution, ExecutionStatus};
use countersign_protocol::name::AgentName;
use countersign_protocol::view::Skipped;
use serde::Serialize;

use crate::view::{CommandView, Output};
use crate::{describe, difference};

/// Most names that are written out for one group; the rest is counted.
const MAX_NAMES: usize = 8;

/// The runs of a command, by host.
type Runs = BTreeMap<AgentName, Execution>;

/// How a host came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It exited with 0.
    Ok,
    /// It ran and ended in any other way.
    Failed,
    /// The host would not.
    Refused,
    /// Not started in time.
    Skipped,
    /// A person stopped it.
    Cancelled,
    /// Nobody can say.
    Lost,
    /// It goes on.
    Running,
    /// Not started yet.
    Waiting,
}

impl Verdict {
    /// How a host came out, as far as the log tells.
    #[must_use]
    pub fn of(part: &Execution) -> Self {
        match part.status {
            ExecutionStatus::Completed if part.succeeded() => Self::Ok,
            ExecutionStatus::Completed => Self::Failed,
            ExecutionStatus::Refused => Self::Refused,
            ExecutionStatus::Skipped => Self::Skipped,
            ExecutionStatus::Cancelled => Self::Cancelled,
            ExecutionStatus::Lost => Self::Lost,
            ExecutionStatus::Running => Self::Running,
            ExecutionStatus::Waiting => Self::Waiting,
        }
    }

    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Skipped => "skipped",
            Self::Cancelled => "cancelled",
            Self::Lost => "lost",
            Self::Running => "running",
            Self::Waiting => "waiting",
        }
    }
}

/// What two hosts have in common when they said the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Said {
    verdict: Verdict,
    /// The outcome's word, with code or signal; nothing of a run that did not end.
    end: Option<String>,
    /// Why it never started.
    skipped: Option<Skipped>,
    /// Standard output and standard error.
    wrote: Option<[Digest; 2]>,
}

impl Said {
    fn by(part: &Execution) -> Self {
        let done = part.completed.as_ref();
        let end = done.map(describe::end);
        Self {
            verdict: Verdict::of(part),
            end,
            skipped: Skipped::of(part),
            wrote: done.map(|done| [done.stdout.sha256, done.stderr.sha256]),
        }
    }
}

/// Hosts that said the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Group {
    /// How each of them came out.
    pub verdict: Verdict,
    /// How their runs ended, for people; nothing where none did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
    /// Why they never started: `errors`, `turn_missed` or `expired`; nothing where they were not skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<Skipped>,
    /// Their names, sorted.
    pub hosts: Vec<AgentName>,
}

impl Group {
    /// How each of them came out, in a few words.
    #[must_use]
    pub fn said(&self) -> String {
        match (&self.end, self.skipped) {
            (Some(end), _) => end.clone(),
            (None, Some(why)) => format!("{}: {}", self.verdict.as_str(), describe::skipped(why)),
            (None, None) => self.verdict.as_str().to_owned(),
        }
    }
}

/// Who said the same, the largest group first.
#[must_use]
pub fn groups(runs: &Runs) -> Vec<Group> {
    let mut found: BTreeMap<Said, Vec<AgentName>> = BTreeMap::new();
    for (agent, part) in runs {
        found.entry(Said::by(part)).or_default().push(agent.clone());
    }
    let group = |(said, hosts): (Said, Vec<AgentName>)| Group {
        verdict: said.verdict,
        end: said.end,
        skipped: said.skipped,
        hosts,
    };
    let mut groups: Vec<Group> = found.into_iter().map(group).collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.hosts.len()));
    groups
}

/// How many hosts came out how.
#[must_use]
pub fn tally(runs: &Runs) -> BTreeMap<Verdict, u64> {
    let mut tally = BTreeMap::new();
    for part in runs.values() {
        *tally.entry(Verdict::of(part)).or_default() += 1;
    }
    tally
}

/// One line of counts, and who differs from the most, for people. Nothing for a single host.
#[must_use]
pub fn summary(runs: &Runs) -> Vec<String> {
    summed_up(runs, |_, _| Vec::new())
}

/// As [`summary`], with the lines in which others differ from the most where those are few.
#[must_use]
pub fn compared(view: &CommandView) -> Vec<String> {
    let text = |group: &Group, stream| {
        let host = group.hosts.first()?;
        let output = view.outputs.get(host);
        let whole = output.is_none_or(Output::is_whole);
        whole.then(|| output.map_or_else(Vec::new, |output| output.bytes(stream)))
    };
    summed_up(&view.command.executions, |most, other| {
        let lines = |stream| {
            let (most, other) = (text(most, stream)?, text(other, stream)?);
            Some(difference::lines(&most, &other))
        };
        let streams = [Stream::Stdout, Stream::Stderr].into_iter();
        streams.filter_map(lines).flatten().collect()
    })
}

/// Who said the same, with what `detail` has to say of how a group differs from the largest.
fn summed_up(runs: &Runs, detail: impl Fn(&Group, &Group) -> Vec<String>) -> Vec<String> {
    let hosts = runs.len();
    if hosts < 2 {
        return Vec::new();
    }
    let counts = tally(runs);
    let counts = counts
        .iter()
        .map(|(verdict, count)| format!("{count} {}", verdict.as_str()));
    let counts: Vec<String> = counts.collect();
    let mut lines = vec![format!("{hosts} hosts: {}", counts.join(", "))];
    let groups = groups(runs);
    let Some((most, others)) = groups.split_first() else {
        return lines;
    };
    let alike = most.hosts.len();
    if others.is_empty() {
        lines.push("all said the same".to_owned());
    } else if alike < 2 {
        lines.push("no two said the same:".to_owned());
        lines.extend(groups.iter().map(line));
    } else {
        let differ = hosts - alike;
        let verb = if differ == 1 { "differs" } else { "differ" };
        lines.push(format!("{alike} hosts said the same; {differ} {verb}:"));
        for other in others {
            lines.push(line(other));
            let detail = detail(most, other).into_iter();
            lines.extend(detail.map(|line| format!("      {line}")));
        }
    }
    lines
}

fn line(group: &Group) -> String {
    let mut names: Vec<String> = group
        .hosts
        .iter()
        .take(MAX_NAMES)
        .map(ToString::to_string)
        .collect();
    if let Some(more) = group.hosts.len().checked_sub(MAX_NAMES + 1) {
        names.push(format!("and {} more", more + 1));
    }
    format!("  {}: {}", names.join(", "), group.said())
}

#[cfg(test)]
pub(crate) mod tests {
    use countersign_protocol::event::{
        ExecutionCompleted, Outcome, Seen, SkipReason, StreamTotals,
    };
    use countersign_protocol::hash::{Hash, KeyId, LedgerId, StatementId};
    use countersign_protocol::lifecycle::Kept;
    use countersign_protocol::name::{Nonce, Time};

    use super::*;

    /// A run that ended so, having written nothing.
    pub(crate) fn ended(outcome: Outcome, exit_code: Option<u8>, signal: Option<u8>) -> Execution {
        let totals = StreamTotals {
            total: 0,
            kept: 0,
            sha256: Digest::new([0; 32]),
        };
        let root = Hash::ZERO;
        let done = ExecutionCompleted {
            signer: KeyId::new([0; 32]),
            agent: "a".parse().unwrap(),
            nonce: Nonce::new([0; 16]),
            made_at: Time::from_micros(0).unwrap(),
            ledger: LedgerId::new([0; 32]),
            seen: Seen { size: 1, root },
            command: StatementId::ZERO,
            agent_seq: 0,
            agent_prev: StatementId::ZERO,
            started: StatementId::ZERO,
            detail: None,
            outcome,
            exit_code,
            signal,
            duration_us: 0,
            cpu_us: 0,
            max_rss: 0,
            stdout: totals,
            stderr: totals,
            chunks: 0,
            last_chunk: StatementId::ZERO,
            tree_gone: true,
            masked: None,
        };
        Execution {
            status: ExecutionStatus::Completed,
            started: None,
            chunks: 0,
            last_chunk: StatementId::ZERO,
            kept: Kept::default(),
            completed: Some(done),
            refused: None,
            lost: None,
            late: false,
            late_refusal: false,
            released: None,
            skipped: None,
            over: None,
        }
    }

    fn runs(of: &[(&str, Execution)]) -> Runs {
        let run = |(name, part): &(&str, Execution)| (name.parse().unwrap(), part.clone());
        of.iter().map(run).collect()
    }

    fn wrote(bytes: u8) -> Execution {
        let mut part = ended(Outcome::Exited, Some(0), None);
        if let Some(done) = &mut part.completed {
            done.stdout.sha256 = Digest::new([bytes; 32]);
        }
        part
    }

    fn refused() -> Execution {
        Execution {
            status: ExecutionStatus::Refused,
            completed: None,
            ..wrote(0)
        }
    }

    #[test]
    fn one_host_needs_no_summary() {
        assert_eq!(summary(&runs(&[("a", wrote(1))])), [""; 0]);
    }

    #[test]
    fn hosts_that_wrote_the_same_are_one_group_and_the_others_are_named() {
        let failed = ended(Outcome::Exited, Some(3), None);
        let of = [
            ("a", wrote(1)),
            ("b", wrote(2)),
            ("c", wrote(1)),
            ("d", failed),
            ("e", refused()),
            ("f", wrote(1)),
        ];
        let said = summary(&runs(&of));
        assert_eq!(said[0], "6 hosts: 4 ok, 1 failed, 1 refused");
        assert_eq!(said[1], "3 hosts said the same; 3 differ:");
        assert_eq!(said.len(), 5);
        assert!(
            said.contains(&"  b: exited with code 0".to_owned()),
            "{said:?}"
        );
        assert!(
            said.contains(&"  d: exited with code 3".to_owned()),
            "{said:?}"
        );
        assert!(said.contains(&"  e: refused".to_owned()), "{said:?}");
    }

    #[test]
    fn hosts_that_were_skipped_for_different_reasons_did_not_say_the_same() {
        let skipped = |why| Execution {
            status: ExecutionStatus::Skipped,
            skipped: why,
            completed: None,
            ..wrote(0)
        };
        let of = [
            ("a", skipped(Some(SkipReason::Errors))),
            ("b", skipped(Some(SkipReason::Errors))),
            ("c", skipped(Some(SkipReason::TurnMissed))),
            ("d", skipped(None)),
        ];
        let said = summary(&runs(&of));
        assert_eq!(said[0], "4 hosts: 4 skipped");
        assert!(
            said.contains(
                &"  c: skipped: did not start in its turn; its agent may be away".to_owned()
            ),
            "{said:?}"
        );
        let groups = serde_json::to_value(groups(&runs(&of))).unwrap();
        let words: Vec<_> = (0..3).map(|at| &groups[at]["skipped"]).collect();
        assert_eq!(words, ["errors", "turn_missed", "expired"]);
    }

    #[test]
    fn when_all_say_the_same_or_no_two_do_it_says_so() {
        let same = runs(&[("a", wrote(1)), ("b", wrote(1))]);
        assert_eq!(summary(&same), ["2 hosts: 2 ok", "all said the same"]);
        let none = runs(&[("a", wrote(1)), ("b", wrote(2))]);
        assert_eq!(summary(&none)[1..].len(), 3);
    }

    #[test]
    fn of_many_hosts_some_are_named_and_the_rest_is_counted() {
        let names: Vec<String> = (10..40).map(|number| format!("web-{number}")).collect();
        let others = names[..12].iter().map(|name| (name.as_str(), wrote(2)));
        let most = names[12..].iter().map(|name| (name.as_str(), wrote(1)));
        let all: Vec<_> = others.chain(most).collect();
        let said = summary(&runs(&all));
        assert_eq!(said[1], "18 hosts said the same; 12 differ:");
        assert!(said[2].contains("web-17, and 4 more: exited"), "{said:?}");
    }

    #[test]
    fn a_late_success_of_a_lost_run_is_none() {
        let mut lost = wrote(0);
        lost.status = ExecutionStatus::Lost;
        assert_eq!(Verdict::of(&lost), Verdict::Lost);
    }
}
