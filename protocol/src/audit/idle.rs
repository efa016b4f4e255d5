//! Whether nothing ran on a host from one time to another: what its idle statements cover, where they
//! leave a gap, and the runs that stand against it.
//!
//! It must not verify signatures, links or rights; whoever feeds it has. Only the host's own chains are
//! its to check, for they are what a proof of absence rests on. PROTOCOL 7.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::entry::{CheckedEntry, Finding};
use crate::event::{Event, LossForm};
use crate::fold::{self, AgentChain};
use crate::hash::{CommandId, KeyId, StatementId};
use crate::name::{AgentName, Time};
use crate::refusal::Refusal;

/// A key of the host, from its acceptance to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyLife {
    /// Which key.
    pub key_id: KeyId,
    /// The entry that accepted it.
    pub since: u64,
    /// When that was, by the ledger.
    pub from: Time,
    /// The entry that ended it, and when; nothing while it is in force.
    pub ended: Option<(u64, Time)>,
}

/// A time inside of the one asked about, of which nobody says that nothing ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// From when.
    pub from: Time,
    /// Until when.
    pub to: Time,
    /// The key that was in force and said nothing; without one the host had no key.
    pub key_id: Option<KeyId>,
}

/// A run that was, or may have been, in progress inside of the time asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunFound {
    /// The command.
    pub command: CommandId,
    /// Its `execution.started`.
    pub started: StatementId,
    /// Where that stands.
    pub seq: u64,
    /// The earlier of what host and ledger say of its begin.
    pub from: Time,
    /// The later of what they say of its end; nothing while nobody knows of one.
    pub to: Option<Time>,
    /// Whether its end came with the proof that no process of it was left.
    pub tree_gone: bool,
}

/// What the log says about a host and a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NothingRan {
    /// Keys that were the host's at some time, as they were accepted.
    pub keys: Vec<KeyLife>,
    /// Idle statements that speak of the time asked about.
    pub statements: u64,
    /// What they do not cover, by time.
    pub gaps: Vec<Gap>,
    /// Runs inside of it, in the order of the log.
    pub runs: Vec<RunFound>,
    /// Runs that ended before it, and whose processes nobody has proved gone.
    pub left_over: Vec<RunFound>,
}

impl NothingRan {
    /// Whether the host has said of all that time that it started nothing, and no run contradicts.
    #[must_use]
    pub const fn is_proved(&self) -> bool {
        self.gaps.is_empty() && self.runs.is_empty()
    }
}

/// What one idle statement says.
#[derive(Debug, Clone, Copy)]
struct Said {
    seq: u64,
    from: Time,
    to: Time,
    entered: Time,
}

#[derive(Debug)]
struct Key {
    life: KeyLife,
    chain: AgentChain,
    said: Vec<Said>,
    /// The newest statement of the chain is an idle one.
    is_idle: bool,
    suspect_from: Option<u64>,
}

#[derive(Debug)]
struct Run {
    found: RunFound,
    key_id: KeyId,
    presumed: Option<Time>,
}

/// Takes a log from its first entry on, and remembers what concerns one host.
#[derive(Debug)]
pub struct IdleAuditor {
    host: AgentName,
    keys: BTreeMap<KeyId, Key>,
    runs: BTreeMap<StatementId, Run>,
}

impl IdleAuditor {
    /// For this host, before the first entry.
    #[must_use]
    pub const fn new(host: AgentName) -> Self {
        Self {
            host,
            keys: BTreeMap::new(),
            runs: BTreeMap::new(),
        }
    }

    /// Takes the next entry of a log whose links, signatures and rights are checked elsewhere. All
    /// must come: one that is left out is found as soon as the host's chain goes on.
    ///
    /// # Errors
    /// The host's chain does not go on with this entry.
    pub fn push(&mut self, entry: &CheckedEntry) -> Result<(), Finding> {
        self.take(entry).map_err(|refusal| Finding {
            seq: entry.seq,
            reason: refusal.into(),
        })
    }

    fn take(&mut self, entry: &CheckedEntry) -> Result<(), Refusal> {
        let event = entry.verified.event();
        if let Some((key_id, next, prev)) = fold::agent_link(event)
            && let Some(key) = self.keys.get_mut(&key_id)
        {
            if key.chain != (AgentChain { next, prev }) {
                return Err(Refusal::AgentChain {
                    expected: key.chain.next,
                });
            }
            key.chain = AgentChain {
                next: next + 1,
                prev: entry.verified.id(),
            };
            let was_idle = key.is_idle;
            // What it says of the host itself starts nothing.
            key.is_idle = matches!(event, Event::AgentIdle(_))
                || (was_idle && matches!(event, Event::AgentFacts(_)));
            if matches!(event, Event::AgentKeyRetired(_)) {
                key.retire(entry, was_idle);
            }
        }
        self.note_keys(event, entry);
        self.note_runs(event, entry);
        Ok(())
    }

    fn note_keys(&mut self, event: &Event, entry: &CheckedEntry) {
        if let Event::AgentAccepted(accepted) = event
            && accepted.agent == self.host
        {
            let life = KeyLife {
                key_id: accepted.key.key_id(),
                since: entry.seq,
                from: entry.time,
                ended: None,
            };
            let key = Key {
                life,
                chain: AgentChain::EMPTY,
                said: Vec::new(),
                is_idle: false,
                suspect_from: None,
            };
            self.keys.insert(life.key_id, key);
        } else if let Event::KeyRevoked(revoked) = event
            && let Some(key) = self.keys.get_mut(&revoked.key_id)
        {
            key.end(entry);
            key.suspect_from = revoked.suspect_from.or(key.suspect_from);
        } else if let Event::AgentRetired(retired) = event
            && retired.agent == self.host
        {
            for key in self.keys.values_mut() {
                key.end(entry);
            }
        } else if let Event::AgentIdle(idle) = event
            && let Some(key) = self.keys.get_mut(&idle.signer)
        {
            key.said.push(Said {
                seq: entry.seq,
                from: idle.from,
                to: idle.to,
                entered: entry.time,
            });
        }
    }

    fn note_runs(&mut self, event: &Event, entry: &CheckedEntry) {
        let end = |made_at: Time| made_at.max(entry.time);
        if let Event::ExecutionStarted(started) = event
            && started.agent == self.host
        {
            let id = entry.verified.id();
            let found = RunFound {
                command: started.command,
                started: id,
                seq: entry.seq,
                from: started.made_at.min(entry.time),
                to: None,
                tree_gone: false,
            };
            let run = Run {
                found,
                key_id: started.signer,
                presumed: None,
            };
            self.runs.insert(id, run);
        } else if let Event::ExecutionCompleted(done) = event
            && let Some(run) = self.runs.get_mut(&done.started)
        {
            run.found.to = Some(end(done.made_at));
            run.found.tree_gone = done.tree_gone;
        } else if let Event::ExecutionLost(lost) = event
            && let Some(run) = self.runs.get_mut(&lost.started)
        {
            match lost.form {
                LossForm::Confirmed => run.found.to = Some(end(lost.made_at)),
                LossForm::Presumed => run.presumed = Some(entry.time),
            }
        } else if let Event::AgentIdle(idle) = event
            && idle.running == 0
        {
            // The host has nothing more to say of them, so they are over for it.
            let open = self.runs.values_mut();
            for run in open.filter(|run| run.key_id == idle.signer && run.found.to.is_none()) {
                run.found.to = Some(end(idle.made_at));
            }
        }
    }

    /// What stands in the log about this time, both ends included; `from` is before `to`.
    ///
    /// The times of idle statements are the host's own. A run counts when it was inside by the host's
    /// clock or by the ledger's.
    #[must_use]
    pub fn about(&self, from: Time, to: Time) -> NothingRan {
        let mut keys: Vec<KeyLife> = self.keys.values().map(|key| key.life).collect();
        keys.sort_by_key(|life| life.since);
        let lives = keys.iter().map(|life| {
            let end = life.ended.map_or(to, |(_, end)| end);
            (life.from, end)
        });
        let mut gaps: Vec<Gap> = uncovered((from, to), lives.collect())
            .into_iter()
            .map(|(from, to)| Gap {
                from,
                to,
                key_id: None,
            })
            .collect();
        let mut statements = 0;
        for key in self.keys.values() {
            let end = key.life.ended.map_or(to, |(_, end)| end.min(to));
            let wanted = (from.max(key.life.from), end);
            let said = key.believed();
            let speaks = |said: &&Said| said.from <= to && said.to >= from;
            statements += said.iter().filter(speaks).count() as u64;
            let silent = silence(wanted, &said).into_iter();
            gaps.extend(silent.map(|(from, to)| Gap {
                from,
                to,
                key_id: Some(key.life.key_id),
            }));
        }
        gaps.sort_by_key(|gap| (gap.from, gap.to));
        let (mut runs, mut left_over) = (Vec::new(), Vec::new());
        for run in self.runs.values() {
            let found = RunFound {
                to: self.end_of(run),
                ..run.found
            };
            if found.from > to {
                continue;
            }
            if found.to.is_none_or(|end| end >= from) {
                runs.push(found);
            } else if !found.tree_gone {
                left_over.push(found);
            }
        }
        runs.sort_by_key(|run| run.seq);
        left_over.sort_by_key(|run| run.seq);
        NothingRan {
            keys,
            statements,
            gaps,
            runs,
            left_over,
        }
    }

    /// A run of a key that says nothing any more ends with what the ledger presumed.
    fn end_of(&self, run: &Run) -> Option<Time> {
        let key = self.keys.get(&run.key_id);
        let ended = key.and_then(|key| key.life.ended);
        let presumed = run.presumed.zip(ended);
        run.found
            .to
            .or_else(|| presumed.map(|(presumed, (_, end))| presumed.max(end)))
    }
}

impl Key {
    fn end(&mut self, entry: &CheckedEntry) {
        self.life.ended = self.life.ended.or(Some((entry.seq, entry.time)));
    }

    /// The key's last word, right after an idle statement: nothing stands between the two.
    fn retire(&mut self, entry: &CheckedEntry, was_idle: bool) {
        self.end(entry);
        if was_idle && let Some(last) = self.said.last_mut() {
            last.to = last.to.max(entry.time);
            last.entered = entry.time;
        }
    }

    /// What it said before it came under suspicion.
    fn believed(&self) -> Vec<Said> {
        let suspect = self.suspect_from.unwrap_or(u64::MAX);
        let said = self.said.iter().copied();
        said.filter(|said| said.seq < suspect).collect()
    }
}

/// What idle statements leave of a time. None of them speaks of a time that, by the ledger's clock,
/// was not over when the newest of them was entered.
fn silence(wanted: (Time, Time), said: &[Said]) -> Vec<(Time, Time)> {
    let Some(entered) = said.iter().map(|said| said.entered).max() else {
        return uncovered(wanted, Vec::new());
    };
    let spans = said.iter().map(|said| (said.from, said.to.min(entered)));
    uncovered(wanted, spans.collect())
}

/// What spans of time leave of another one. Empty where that has no length.
fn uncovered(wanted: (Time, Time), mut spans: Vec<(Time, Time)>) -> Vec<(Time, Time)> {
    spans.retain(|(from, to)| from < to);
    spans.sort_unstable();
    let (mut at, end) = wanted;
    let mut left = Vec::new();
    for (from, to) in spans {
        if at >= end {
            break;
        }
        if from > at {
            left.push((at, from.min(end)));
        }
        at = at.max(from).max(to);
    }
    if at < end {
        left.push((at, end));
    }
    left
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn time(tick: u64) -> Time {
        Time::from_micros(tick * 2).unwrap()
    }

    fn said(from: u64, to: u64, entered: u64) -> Said {
        let [from, to, entered] = [from, to, entered].map(time);
        Said {
            seq: 0,
            from,
            to,
            entered,
        }
    }

    /// Moment by moment, between two ticks: whether some statement speaks of it, and it was over.
    fn is_silent(said: &[Said], moment: u64) -> bool {
        let speaks = |said: &Said| said.from.as_micros() < moment && moment < said.to.as_micros();
        let over = |said: &Said| moment < said.entered.as_micros();
        !(said.iter().any(speaks) && said.iter().any(over))
    }

    proptest! {
        #[test]
        fn the_gaps_are_what_moment_by_moment_nobody_speaks_of(
            spans in prop::collection::vec((0..30_u64, 0..12_u64, 0..45_u64), 0..8),
            (from, length) in (0..30_u64, 0..20_u64),
        ) {
            let said: Vec<Said> = spans
                .into_iter()
                .map(|(from, length, entered)| said(from, from + length, entered))
                .collect();
            let wanted = (time(from), time(from + length));
            let gaps = silence(wanted, &said);
            for (from, to) in &gaps {
                prop_assert!(from < to && wanted.0 <= *from && *to <= wanted.1);
            }
            for pair in gaps.windows(2) {
                prop_assert!(pair.iter().is_sorted_by(|one, two| one.1 < two.0));
            }
            for tick in from..from + length {
                let moment = tick * 2 + 1;
                let in_gap = gaps.iter().any(|(from, to)| from.as_micros() < moment && moment < to.as_micros());
                prop_assert_eq!(in_gap, is_silent(&said, moment), "{}", moment);
            }
        }
    }

    #[test]
    fn consecutive_statements_leave_no_gap_and_a_moment_between_two_is_one() {
        let hours = [said(0, 10, 10), said(10, 20, 21)];
        assert_eq!(silence((time(0), time(20)), &hours), []);
        let apart = [said(0, 10, 10), said(11, 20, 21)];
        assert_eq!(silence((time(0), time(20)), &apart), [(time(10), time(11))]);
    }
}
