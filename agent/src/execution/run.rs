//! The story of one run: start, watch, stop, and say what happened.
//!
//! It owns the plan, the messages and the policy of ending: when a tree is asked, when it is
//! killed, how long anything is waited for. How to find and signal processes it leaves to others.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc::Sender;
use tokio_util::sync::CancellationToken;

use super::confinement::{Confinement, InForce};
use super::output::{Pump, Sink, StreamTotals, Tally};
use super::program::Program;
use super::reach::{Left, Reach};
use super::sandbox;
use super::secrets::{Delivered, Secrets, SecretsPlace};
use super::spawn::{self, Launch, Supervisor};
use super::supervisor::Report;
use super::syscalls::{End, Usage};
use super::terminate;

/// How long background processes may go on after the leader ended: enough to finish a write.
const LEFTOVER_WAIT: Duration = Duration::from_secs(1);

/// How long a killed tree is waited for. A process stuck in the kernel can outlive it, and then
/// the run says that its tree is not proved gone.
const KILL_WAIT: Duration = Duration::from_secs(5);

/// How long pipes are read after the tree ended: only a process outside of it can hold them.
const PIPE_WAIT: Duration = Duration::from_secs(1);

/// How long lies between two looks for processes outside a tree.
const OUTSIDE_LOOK: Duration = Duration::from_millis(50);

/// A program and its arguments.
#[derive(Debug)]
pub struct Step {
    /// The program; it, and not a path, is what runs.
    pub program: Program,
    /// All arguments, argv\[0\] included; they reach the program as they are.
    pub argv: Vec<OsString>,
}

/// One command, ready to run. Whether it may run was decided elsewhere.
pub struct Plan {
    /// What runs first.
    pub first: Step,
    /// What runs after it, in turn: each only when all processes of the one before are gone and it
    /// exited with 0. Together they have one timeout, one output and one end, that of the last one
    /// that ran.
    pub then: Vec<Step>,
    /// Absolute path of the working directory, without a symlink in any component.
    pub cwd: PathBuf,
    /// The whole environment, as names and values; nothing is added.
    pub env: Vec<(OsString, OsString)>,
    /// What stdin holds, from its beginning for each step; empty means `/dev/null`.
    pub stdin: Vec<u8>,
    /// From the start until the tree is asked to end.
    pub timeout: Duration,
    /// From being asked (TERM) until the tree is killed (KILL).
    pub grace: Duration,
    /// Bytes of both streams together that are kept; further output is counted and hashed only.
    pub output_limit: u64,
    /// Whether the run is ended there.
    pub stop_at_limit: bool,
    /// Values that it is handed, and that must not stand in what it writes: masked before anything
    /// is hashed or sent. One on standard input takes the place of `stdin`.
    pub secrets: Secrets,
    /// Where those are delivered that come as files.
    pub secrets_place: Option<Arc<SecretsPlace>>,
    /// Where its processes can be.
    pub reach: Reach,
    /// Whom it runs as and what it may not do; [`Confinement::foresee`] says what will hold here.
    pub confinement: Confinement,
    /// What was announced to hold it, by [`Confinement::foresee`] of the same confinement: it is
    /// set, or nothing runs. None: nobody was told, and it is foreseen at the start.
    pub announced: Option<InForce>,
}

/// Arguments, environment and stdin may hold secrets, so they never reach a log this way.
impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan")
            .field("program", &self.first.program.path())
            .field("further_steps", &self.then.len())
            .field("cwd", &self.cwd)
            .field("timeout", &self.timeout)
            .field("confinement", &self.confinement)
            .finish_non_exhaustive()
    }
}

/// Which of the two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What a run says while it goes on. `Finished` is the last, after every chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunEvent {
    /// Output as it came: 1 to [`super::CHUNK_BYTES`] bytes, in order within its stream.
    Chunk {
        /// Where it was written.
        stream: Stream,
        /// When its first byte was read, in microseconds since the start, by a monotonic clock.
        offset_us: u64,
        /// The bytes, exactly.
        bytes: Vec<u8>,
    },
    /// The run is over.
    Finished(Finished),
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The leader ended by itself with this code, 0 to 255.
    Exited(i32),
    /// The leader was ended by this signal, which was not ours.
    Signalled(i32),
    /// The timeout passed and the tree was ended.
    TimedOut,
    /// The run was cancelled and the tree was ended.
    Cancelled,
    /// More was written than the output limit keeps, and the plan says to stop there.
    OutputLimit,
    /// There is no such program (127 to a shell).
    NotFound,
    /// The program cannot be executed: a directory, no x permission, no such interpreter (126).
    NotExecutable,
    /// Nothing was run for another reason, or a later step was not, which this sentence gives.
    FailedToStart(String),
}

/// The last word of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// How it ended.
    pub outcome: Outcome,
    /// From the start to the end of the last leader.
    pub duration: Duration,
    /// User and system time of all processes of the run that were waited for.
    pub cpu: Duration,
    /// Largest resident set of any of these processes, in bytes. The leader begins as a copy of
    /// the agent, so it is never below what the agent itself held.
    pub max_rss_bytes: u64,
    /// Totals of standard output.
    pub stdout: StreamTotals,
    /// Totals of standard error.
    pub stderr: StreamTotals,
    /// Whether some output was not kept, for the output limit.
    pub truncated: bool,
    /// Whether it is proved that no process of the run is left.
    pub tree_gone: bool,
    /// How often a secret was masked in its output; none where it was handed no secret.
    pub masked: Option<u64>,
    /// What confined the run: what was foreseen, or nothing if nothing was started.
    pub in_force: Box<InForce>,
}

impl Finished {
    /// The end of a run in which no process was started.
    #[must_use]
    pub fn not_started(outcome: Outcome) -> Self {
        let nothing = StreamTotals {
            total_bytes: 0,
            kept_bytes: 0,
            sha256: Sha256::digest([]).into(),
        };
        Self {
            outcome,
            duration: Duration::ZERO,
            cpu: Duration::ZERO,
            max_rss_bytes: 0,
            stdout: nothing,
            stderr: nothing,
            truncated: false,
            tree_gone: true,
            masked: None,
            in_force: Box::default(),
        }
    }
}

/// Why a run has no result. What it has sent so far stays true.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// The supervisor died before its tree, so neither the result nor the end of the tree is known.
    #[error(
        "the supervisor of the run died, so how the command ended is unknown and processes of it \
         may be left; look at the host before running it again"
    )]
    SupervisorLost,
    /// Nobody takes the events any more; the tree was killed.
    #[error("nobody takes the events of the run, so it was killed")]
    ReceiverGone,
}

/// Runs the plan and sends its events. `cancel` ends it early; dropping the future kills it.
///
/// A full channel holds the command back, not the timeout and not the cancellation.
///
/// # Errors
/// [`RunError`] when no [`RunEvent::Finished`] was sent; a command that fails, or cannot be
/// started, is no error but an [`Outcome`].
pub async fn run(
    plan: Plan,
    cancel: CancellationToken,
    events: Sender<RunEvent>,
) -> Result<(), RunError> {
    let started = Instant::now();
    if cancel.is_cancelled() {
        return last_word(Finished::not_started(Outcome::Cancelled), &events).await;
    }
    let delivered = match deliver(&plan) {
        Ok(delivered) => delivered,
        Err(outcome) => return last_word(Finished::not_started(outcome), &events).await,
    };
    let folder = delivered.as_ref().map(Delivered::folder);
    let mut story = Story::new((&plan, folder), &events, started);
    let mut outcome = story.tell(&plan.first, &cancel).await?;
    for step in &plan.then {
        if outcome != Outcome::Exited(0) || !story.tree_gone {
            break;
        }
        outcome = story.tell(step, &cancel).await?;
    }
    let finished = story.end(outcome);
    // Before anybody hears that the run is over.
    drop(delivered);
    last_word(finished, &events).await
}

/// The files of secrets, where there are some.
fn deliver(plan: &Plan) -> Result<Option<Delivered>, Outcome> {
    if !plan.secrets.has_files() {
        return Ok(None);
    }
    let failed = |why: &dyn fmt::Display| {
        not_started(
            0,
            &format_args!("its secrets could not be delivered: {why}"),
        )
    };
    let place = plan.secrets_place.as_ref();
    let place = place.ok_or_else(|| failed(&"this host has no folder in memory for them"))?;
    let account = plan.confinement.account.as_ref();
    let owner = account.map(|account| (account.uid, account.gid));
    let delivered = place.deliver(&plan.secrets, owner);
    delivered.map(Some).map_err(|error| failed(&error))
}

async fn last_word(finished: Finished, events: &Sender<RunEvent>) -> Result<(), RunError> {
    let sent = events.send(RunEvent::Finished(finished)).await;
    sent.map_err(|_| RunError::ReceiverGone)
}

/// What the steps of one run come to together.
struct Story<'a> {
    plan: &'a Plan,
    /// Where its secrets lie as files.
    secrets: Option<&'a Path>,
    events: &'a Sender<RunEvent>,
    started: Instant,
    sink: Sink,
    stdout: Tally,
    stderr: Tally,
    duration: Duration,
    usage: Usage,
    tree_gone: bool,
    in_force: InForce,
    /// How many steps have run.
    ran: usize,
}

/// Of a run in which so many steps have run, and no more. What they did is done.
fn not_started(ran: usize, why: &dyn fmt::Display) -> Outcome {
    let steps = if ran == 1 { "step" } else { "steps" };
    Outcome::FailedToStart(match ran.checked_add(1) {
        Some(next) if ran > 0 => {
            format!("step {next} did not start, after {ran} {steps} had run: {why}")
        }
        Some(_) | None => format!("nothing was run: {why}"),
    })
}

impl<'a> Story<'a> {
    fn new(
        (plan, secrets): (&'a Plan, Option<&'a Path>),
        events: &'a Sender<RunEvent>,
        started: Instant,
    ) -> Self {
        Self {
            plan,
            secrets,
            events,
            started,
            sink: Sink::new(events.clone(), started, plan.output_limit),
            stdout: Tally::new(Stream::Stdout, &plan.secrets),
            stderr: Tally::new(Stream::Stderr, &plan.secrets),
            duration: Duration::ZERO,
            usage: Usage::default(),
            tree_gone: true,
            in_force: InForce::default(),
            ran: 0,
        }
    }

    /// Runs one step: reads both its streams while its tree is overseen, until all are over.
    async fn tell(&mut self, step: &Step, cancel: &CancellationToken) -> Result<Outcome, RunError> {
        if let Some(outcome) = self.is_over(cancel) {
            return Ok(outcome);
        }
        let launch = match spawn::launch(step, self.plan, self.secrets) {
            Ok(launch) => launch,
            Err(error) => return Ok(not_started(self.ran, &error)),
        };
        let Launch {
            supervisor,
            stdout,
            stderr,
            in_force,
        } = launch;
        let (sink, stop) = (&self.sink, CancellationToken::new());
        let (out, err) = (&mut self.stdout, &mut self.stderr);
        let mut readers = pin!(async {
            tokio::join!(
                Pump::new(stdout, out, sink).run(&stop),
                Pump::new(stderr, err, sink).run(&stop),
            )
        });
        let tree = Tree::new(supervisor, self.plan, self.started);
        let mut tree = pin!(tree.oversee(cancel, sink, self.events));
        let ending = tokio::select! {
            _ = &mut readers => tree.await,
            ending = &mut tree => {
                if tokio::time::timeout(PIPE_WAIT, &mut readers).await.is_err() {
                    stop.cancel();
                    readers.await;
                }
                ending
            }
        }?;
        self.in_force = in_force;
        self.duration = ending.duration;
        self.usage = self.usage.and(ending.usage);
        self.tree_gone &= ending.tree_gone;
        let outcome = ending
            .outcome
            .unwrap_or_else(|failed| failed.outcome(self.ran));
        self.ran = self.ran.saturating_add(1);
        Ok(outcome)
    }

    /// Why no further step may begin, though the one before ended well.
    fn is_over(&self, cancel: &CancellationToken) -> Option<Outcome> {
        if cancel.is_cancelled() {
            return Some(Outcome::Cancelled);
        }
        if self.plan.stop_at_limit && self.sink.truncated().is_cancelled() {
            return Some(Outcome::OutputLimit);
        }
        (self.started.elapsed() >= self.plan.timeout).then_some(Outcome::TimedOut)
    }

    fn end(self, outcome: Outcome) -> Finished {
        let masked = self.stdout.masked().saturating_add(self.stderr.masked());
        Finished {
            outcome,
            duration: self.duration,
            cpu: Duration::from_micros(self.usage.cpu_us),
            max_rss_bytes: self.usage.max_rss_bytes,
            stdout: self.stdout.finish(),
            stderr: self.stderr.finish(),
            truncated: self.sink.truncated().is_cancelled(),
            tree_gone: self.tree_gone,
            masked: (!self.plan.secrets.is_empty()).then_some(masked),
            in_force: Box::new(self.in_force),
        }
    }
}

/// Why a leader never became its program.
struct NotBegun(Option<(sandbox::Step, Errno)>);

impl NotBegun {
    fn outcome(self, ran: usize) -> Outcome {
        match self.0 {
            // Its own word says all, unless others have run.
            Some((sandbox::Step::Exec, Errno::NOENT | Errno::ACCESS | Errno::NOEXEC))
                if ran == 0 =>
            {
                Outcome::NotExecutable
            }
            Some((step, error)) => {
                let purpose = step.purpose();
                not_started(ran, &format_args!("the run could not {purpose}: {error}"))
            }
            None => not_started(ran, &"the run ended before its command began"),
        }
    }
}

/// What is known once a tree needs no more watching.
struct Ending {
    outcome: Result<Outcome, NotBegun>,
    duration: Duration,
    usage: Usage,
    tree_gone: bool,
}

/// Why a tree is no longer just watched.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    LeaderEnded,
    TimedOut,
    Cancelled,
    OutputLimit,
    ReceiverGone,
}

/// What a supervisor has reported of its tree.
#[derive(Default)]
struct Known {
    failed: Option<(sandbox::Step, Errno)>,
    leader: Option<(End, Duration)>,
    usage: Usage,
    gone: bool,
}

impl Known {
    /// Takes in a report that came so long after the start. A leader ends once.
    fn take(&mut self, report: Report, after: Duration) {
        match report {
            Report::NotStarted { step, error } => self.failed = Some((step, error)),
            Report::LeaderEnded { end, usage } => {
                if self.leader.is_none() {
                    self.leader = Some((end, after));
                    self.usage = usage;
                }
            }
            Report::TreeGone { usage } => {
                self.usage = usage;
                self.gone = true;
            }
        }
    }
}

/// A tree, and its supervisor.
struct Tree<'a> {
    plan: &'a Plan,
    supervisor: Supervisor,
    started: Instant,
    known: Known,
}

impl<'a> Tree<'a> {
    fn new(supervisor: Supervisor, plan: &'a Plan, started: Instant) -> Self {
        Self {
            plan,
            supervisor,
            started,
            known: Known::default(),
        }
    }

    /// From the start to the end of the tree, or to the point where no more can be done.
    async fn oversee(
        mut self,
        cancel: &CancellationToken,
        sink: &Sink,
        events: &Sender<RunEvent>,
    ) -> Result<Ending, RunError> {
        let left = self.plan.timeout.saturating_sub(self.started.elapsed());
        let stop_at_limit = self.plan.stop_at_limit;
        let turn = tokio::select! {
            biased;
            ended = self.leader_ended() => ended.map(|()| Turn::LeaderEnded)?,
            () = cancel.cancelled() => Turn::Cancelled,
            () = sink.truncated().cancelled(), if stop_at_limit => Turn::OutputLimit,
            () = tokio::time::sleep(left) => Turn::TimedOut,
            () = events.closed() => Turn::ReceiverGone,
        };
        match turn {
            Turn::LeaderEnded => {
                if !self.all_gone_within(LEFTOVER_WAIT).await? {
                    self.bring_down().await?;
                }
            }
            Turn::TimedOut | Turn::Cancelled | Turn::OutputLimit => self.bring_down().await?,
            Turn::ReceiverGone => {
                self.kill().await?;
                return Err(RunError::ReceiverGone);
            }
        }
        let tree_gone =
            self.known.gone && (self.known.failed.is_some() || self.nothing_outside().await);
        Ok(Ending {
            outcome: self.outcome(turn),
            duration: self
                .known
                .leader
                .map_or_else(|| self.started.elapsed(), |(_, after)| after),
            usage: self.known.usage,
            tree_gone,
        })
    }

    /// Asks, waits, kills. Every process of the run is asked, whatever its session.
    async fn bring_down(&mut self) -> Result<(), RunError> {
        self.walk(terminate::ask_to_end).await;
        self.signal_outside(&[Signal::TERM, Signal::CONT]).await;
        if self.all_gone_within(self.plan.grace).await? {
            return Ok(());
        }
        self.kill().await
    }

    async fn kill(&mut self) -> Result<(), RunError> {
        self.supervisor.order_kill().await;
        if !self.known.gone {
            self.walk(terminate::kill_below).await;
        }
        let until = Instant::now() + KILL_WAIT;
        // One that was just being started escapes the first round.
        while matches!(self.signal_outside(&[Signal::KILL]).await, Left::These(_))
            && Instant::now() < until
        {
            tokio::time::sleep(OUTSIDE_LOOK).await;
        }
        self.gone_within(until.saturating_duration_since(Instant::now()))
            .await?;
        if !self.known.gone {
            tracing::warn!("processes of a run are left although they were killed");
        }
        Ok(())
    }

    /// A walk through `/proc` reads many small files, so it leaves this thread.
    async fn walk(&self, signal: fn(Pid)) {
        let held = self.supervisor.held();
        let _ = tokio::task::spawn_blocking(move || signal(held.pid())).await;
    }

    /// Signals the processes of the run that are not below the supervisor.
    async fn signal_outside(&self, signals: &'static [Signal]) -> Left {
        if self.plan.reach == Reach::Tree {
            return Left::Nothing;
        }
        let reach = self.plan.reach.clone();
        let signalled = tokio::task::spawn_blocking(move || reach.signal(signals)).await;
        signalled.unwrap_or(Left::Unknown)
    }

    async fn nothing_outside(&self) -> bool {
        self.signal_outside(&[]).await == Left::Nothing
    }

    async fn leader_ended(&mut self) -> Result<(), RunError> {
        while self.known.leader.is_none() {
            self.hear().await?;
        }
        Ok(())
    }

    /// Whether no process of the run is known to be left, at the latest after `wait`.
    async fn all_gone_within(&mut self, wait: Duration) -> Result<bool, RunError> {
        let until = Instant::now() + wait;
        if !self.gone_within(wait).await? {
            return Ok(false);
        }
        while matches!(self.signal_outside(&[]).await, Left::These(_)) {
            if Instant::now() >= until {
                return Ok(false);
            }
            tokio::time::sleep(OUTSIDE_LOOK).await;
        }
        Ok(true)
    }

    /// Whether the tree is proved gone, at the latest after `wait`.
    async fn gone_within(&mut self, wait: Duration) -> Result<bool, RunError> {
        let heard = tokio::time::timeout(wait, async {
            while !self.known.gone {
                self.hear().await?;
            }
            Ok(())
        });
        match heard.await {
            Ok(Err(lost)) => Err(lost),
            Ok(Ok(())) | Err(_) => Ok(self.known.gone),
        }
    }

    /// Takes in one report.
    async fn hear(&mut self) -> Result<(), RunError> {
        let report = self.supervisor.next_report().await;
        let report = report.ok_or(RunError::SupervisorLost)?;
        self.known.take(report, self.started.elapsed());
        if self.known.gone {
            self.supervisor.remove_cgroup();
        }
        Ok(())
    }

    fn outcome(&self, turn: Turn) -> Result<Outcome, NotBegun> {
        if self.known.failed.is_some() {
            return Err(NotBegun(self.known.failed));
        }
        Ok(match (turn, self.known.leader) {
            (Turn::TimedOut, _) => Outcome::TimedOut,
            (Turn::OutputLimit, _) => Outcome::OutputLimit,
            (Turn::Cancelled | Turn::ReceiverGone, _) => Outcome::Cancelled,
            (Turn::LeaderEnded, Some((End::Exited(code), _))) => Outcome::Exited(code),
            (Turn::LeaderEnded, Some((End::Signalled(signal), _))) => Outcome::Signalled(signal),
            (Turn::LeaderEnded, None) => return Err(NotBegun(None)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_ends_once_whoever_gets_its_number_afterwards() {
        let usage = |cpu_us| Usage {
            cpu_us,
            ..Usage::default()
        };
        let ended = |code, cpu_us| Report::LeaderEnded {
            end: End::Exited(code),
            usage: usage(cpu_us),
        };
        let mut known = Known::default();
        known.take(ended(3, 10), Duration::from_secs(1));
        known.take(ended(0, 20), Duration::from_secs(2));
        let first = Some((End::Exited(3), Duration::from_secs(1)));
        assert_eq!((known.leader, known.usage), (first, usage(10)));
        known.take(
            Report::TreeGone { usage: usage(30) },
            Duration::from_secs(3),
        );
        assert_eq!((known.leader, known.usage), (first, usage(30)));
        assert!(known.gone);
    }
}
