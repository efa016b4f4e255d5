//! A command as it happens, for whoever waits for it: its output, words on what became of it, how
//! far its hosts are; as text, or as JSON lines.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use countersign_protocol::event::Event;
use countersign_protocol::hash::CommandId;
use countersign_protocol::lifecycle::{Command, Stage};
use countersign_protocol::name::AgentName;

use super::run::Printer;
use crate::acts::{Client, Step};
use crate::alike::Verdict;
use crate::failure::Failure;
use crate::shapes::{self, LineShape};
use crate::view::CommandView;
use crate::{console, describe};

/// How often the hosts are looked at.
const TICK: Duration = Duration::from_millis(500);

/// How often a terminal is told how far they are, when something changed.
const ON_TERMINALS: Duration = Duration::from_secs(2);

/// How often anybody else who asked for it is told.
const PLAIN: Duration = Duration::from_secs(10);

/// Above so many hosts it is not said of each that it runs: their number says more.
const EACH_HOST: u64 = 8;

/// Whether to say how far the hosts are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Progress {
    /// On a terminal, with several hosts
    Auto,
    /// A line each ten seconds, wherever standard error goes
    Plain,
    /// Never
    None,
}

/// What is made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Output as it comes.
    Text,
    /// No output: it comes at the end, or as one document.
    Silent,
    /// JSON lines.
    Lines,
}

/// How far the hosts are.
#[derive(Debug, Default)]
struct Standing {
    hosts: u64,
    started: u64,
    done: BTreeMap<Verdict, u64>,
    /// Those that are over, so that each is counted once.
    over: BTreeMap<AgentName, Verdict>,
}

impl Standing {
    fn words(&self, took: Duration) -> String {
        let done: u64 = self.done.values().sum();
        let each = self
            .done
            .iter()
            .map(|(verdict, count)| format!("{count} {}", verdict.as_str()));
        let each: Vec<String> = each.collect();
        let each = if each.is_empty() {
            String::new()
        } else {
            format!(" ({})", each.join(", "))
        };
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
        let tenths = done.saturating_mul(10_000) / millis;
        format!(
            "started {}/{}, done {done}{each}, {}.{}/s",
            self.started,
            self.hosts,
            tenths / 10,
            tenths % 10
        )
    }
}

/// A command that is watched.
pub(super) struct Live {
    printer: Printer,
    form: Form,
    /// How often to say how far they are.
    every: Option<Duration>,
    standing: Standing,
    begun: Option<Instant>,
    told: Instant,
    said: String,
    every_time: bool,
    /// Whether somebody waits for it: then what it waits for is said, whatever its output is made of.
    awaited: bool,
    told_canary: bool,
}

/// Whose part an event may have ended or begun; none for one that is about all of them.
const fn host_of(event: &Event) -> Option<&AgentName> {
    if let Event::ExecutionStarted(event) = event {
        Some(&event.agent)
    } else if let Event::ExecutionRefused(event) = event {
        Some(&event.agent)
    } else if let Event::ExecutionSkipped(event) = event {
        Some(&event.agent)
    } else if let Event::ExecutionCompleted(event) = event {
        Some(&event.agent)
    } else if let Event::ExecutionLost(event) = event {
        Some(&event.agent)
    } else {
        None
    }
}

impl Live {
    pub(super) fn new(printer: Printer, form: Form, several: bool, progress: Progress) -> Self {
        let every = match progress {
            Progress::Auto if several && console::is_terminal(true) => Some(ON_TERMINALS),
            Progress::Plain => Some(PLAIN),
            Progress::Auto | Progress::None => None,
        };
        Self {
            printer,
            form,
            every,
            standing: Standing::default(),
            begun: None,
            told: Instant::now(),
            said: String::new(),
            every_time: progress == Progress::Plain,
            awaited: true,
            told_canary: false,
        }
    }

    /// Only what happens, for whom the command's own log is read, perhaps long after.
    pub(super) const fn not_awaited(mut self) -> Self {
        self.awaited = false;
        self
    }

    /// Follows a command to its end, as [`Client::follow`] does.
    pub(super) async fn follow(
        self,
        client: &Client,
        id: &CommandId,
    ) -> Result<CommandView, Failure> {
        let live = Mutex::new(self);
        let lock = || live.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sink = |step: Step<'_>| lock().take(step);
        let mut followed = std::pin::pin!(client.follow(id, &mut sink));
        let mut ticks = tokio::time::interval(TICK);
        let view = loop {
            tokio::select! {
                view = &mut followed => break view?,
                _ = ticks.tick() => lock().tell_how_far(false),
            }
        };
        let mut live: MutexGuard<'_, Self> = lock();
        if live.every.is_some() {
            live.tell_how_far(true);
        }
        live.printer.finish()?;
        if live.form == Form::Lines {
            console::print_json(&LineShape::summary(shapes::command(&view)))?;
        }
        drop(live);
        Ok(view)
    }

    fn take(&mut self, step: Step<'_>) -> Result<(), Failure> {
        match step {
            Step::Output {
                agent,
                stream,
                bytes,
            } => match self.form {
                Form::Text => self.printer.write(agent.as_str(), stream, bytes),
                Form::Silent => Ok(()),
                Form::Lines => console::print_json(&LineShape::output(agent, stream, bytes)),
            },
            Step::Hidden { agent, len } => {
                if self.form == Form::Lines {
                    return console::print_json(&LineShape::hidden(agent, len));
                }
                console::note(&format!(
                    "countersign: {len} bytes of {agent} are not for you to read"
                ));
                Ok(())
            }
            Step::Entry { link, command } => {
                let event = link.entry.verified.event();
                if self.form != Form::Lines {
                    self.tell(event, command, link.entry.seq);
                } else if !matches!(event, Event::ExecutionOutput(_)) {
                    console::print_json(&LineShape::event(link))?;
                }
                if self.awaited {
                    self.tell_rollout(event, command);
                }
                self.count(event, command)
            }
        }
    }

    fn tell(&self, event: &Event, command: &Command, seq: u64) {
        if let Event::CommandApproved(approval) = event {
            console::note(&format!("countersign: approved by {}", approval.principal));
        } else if let Event::CommandRejected(rejection) = event {
            console::note(&format!("countersign: rejected by {}", rejection.principal));
        } else if let Event::ExecutionStarted(started) = event {
            if command.act().targets.count <= EACH_HOST || self.every.is_none() {
                console::note(&format!("countersign: {} runs it", started.agent));
            }
        } else if let Stage::Authorized { at, .. } = command.stage
            && at.seq == seq
        {
            console::note("countersign: authorized");
        }
    }

    /// Says what a rollout waits for, so that whoever watches knows what to type.
    fn tell_rollout(&mut self, event: &Event, command: &Command) {
        if let Event::RolloutPaused(paused) = event {
            let how = describe::until_resumed(command);
            console::note(&format!(
                "countersign: paused by {}; {how}",
                paused.principal
            ));
        } else if let Event::RolloutResumed(resumed) = event {
            console::note(&format!("countersign: resumed by {}", resumed.principal));
        } else if let Event::RolloutContinued(continued) = event {
            console::note(&format!(
                "countersign: continued by {}",
                continued.principal
            ));
        }
        if !self.told_canary
            && let Some(line) = describe::at_canary(command)
        {
            self.told_canary = true;
            console::note(&format!("countersign: {line}"));
        }
    }

    /// Counts what an event began or ended.
    fn count(&mut self, event: &Event, command: &Command) -> Result<(), Failure> {
        self.standing.hosts = command.act().targets.count;
        if matches!(event, Event::ExecutionStarted(_)) {
            self.standing.started += 1;
            self.begun.get_or_insert_with(Instant::now);
        }
        match host_of(event) {
            Some(agent) => self.count_host(agent, command),
            // Those that have not started end with it.
            None if matches!(event, Event::CommandCancelRequested(_)) => {
                let mut agents = command.executions.keys();
                agents.try_for_each(|agent| self.count_host(agent, command))
            }
            None => Ok(()),
        }
    }

    fn count_host(&mut self, agent: &AgentName, command: &Command) -> Result<(), Failure> {
        let part = command.executions.get(agent);
        let Some(part) = part.filter(|part| part.status.is_final()) else {
            return Ok(());
        };
        let verdict = Verdict::of(part);
        if self.standing.over.insert(agent.clone(), verdict).is_some() {
            return Ok(());
        }
        *self.standing.done.entry(verdict).or_default() += 1;
        if self.form == Form::Lines {
            console::print_json(&LineShape::completed(agent, part))?;
        }
        Ok(())
    }

    /// Says how far the hosts are when it is time to: on a terminal only what is new.
    fn tell_how_far(&mut self, is_end: bool) {
        let Some(every) = self.every else { return };
        if !is_end && self.told.elapsed() < every {
            return;
        }
        let took = self.begun.map_or(Duration::ZERO, |begun| begun.elapsed());
        let counts = format!("{:?}{}", self.standing.done, self.standing.started);
        if self.standing.hosts == 0 || (!self.every_time && counts == self.said) {
            return;
        }
        self.told = Instant::now();
        console::note(&format!("countersign: {}", self.standing.words(took)));
        self.said = counts;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_they_are_is_counted_and_has_a_rate() {
        let standing = Standing {
            hosts: 100,
            started: 12,
            done: BTreeMap::from([(Verdict::Ok, 6), (Verdict::Failed, 1)]),
            over: BTreeMap::new(),
        };
        assert_eq!(
            standing.words(Duration::from_millis(2200)),
            "started 12/100, done 7 (6 ok, 1 failed), 3.1/s"
        );
        let nothing = Standing {
            hosts: 2,
            ..Standing::default()
        };
        assert_eq!(nothing.words(Duration::ZERO), "started 0/2, done 0, 0.0/s");
    }
}
