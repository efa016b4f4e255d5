//! The story of one run: start, watch, stop, and say what happened.
//!
//! It owns the plan, the messages and the policy of ending: when a tree is asked, when it is
//! killed, how long anything is waited for. How to find and signal processes it leaves to others.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::pin::pin;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::Pid;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc::Sender;
use tokio_util::sync::CancellationToken;

use super::confinement::{Confinement, InForce};
use super::output::{Pump, Sink, StreamTotals};
use super::program::Program;
use super::sandbox::Step;
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

/// One command, ready to run. Whether it may run was decided elsewhere.
pub struct Plan {
    /// The program; it, and not a path, is what runs.
    pub program: Program,
    /// All arguments, argv\[0\] included; they reach the program as they are.
    pub argv: Vec<OsString>,
    /// Absolute path of the working directory, without a symlink in any component.
    pub cwd: PathBuf,
    /// The whole environment, as names and values; nothing is added.
    pub env: Vec<(OsString, OsString)>,
    /// What stdin holds; empty means `/dev/null`.
    pub stdin: Vec<u8>,
    /// From the start until the tree is asked to end.
    pub timeout: Duration,
    /// From being asked (TERM) until the tree is killed (KILL).
    pub grace: Duration,
    /// Bytes of both streams together that are kept; further output is counted and hashed only.
    pub output_limit: u64,
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
            .field("program", &self.program.path())
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
    /// The output limit was reached in a run that must stop there; no plan asks for that yet.
    OutputLimit,
    /// There is no such program (127 to a shell).
    NotFound,
    /// The program cannot be executed: a directory, no x permission, no such interpreter (126).
    NotExecutable,
    /// Nothing was run for another reason, which this sentence gives.
    FailedToStart(String),
}

/// The last word of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// How it ended.
    pub outcome: Outcome,
    /// From the start to the end of the leader.
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
    let finished = match spawn::launch(&plan) {
        Ok(launch) => finish(launch, &plan, started, &cancel, &events).await?,
        Err(error) => Finished::not_started(Outcome::FailedToStart(error.to_string())),
    };
    last_word(finished, &events).await
}

async fn last_word(finished: Finished, events: &Sender<RunEvent>) -> Result<(), RunError> {
    let sent = events.send(RunEvent::Finished(finished)).await;
    sent.map_err(|_| RunError::ReceiverGone)
}

/// Reads both streams while the tree is overseen, until both are over.
async fn finish(
    launch: Launch,
    plan: &Plan,
    started: Instant,
    cancel: &CancellationToken,
    events: &Sender<RunEvent>,
) -> Result<Finished, RunError> {
    let Launch {
        supervisor,
        stdout,
        stderr,
        in_force,
    } = launch;
    let sink = Sink::new(events.clone(), started, plan.output_limit);
    let stop = CancellationToken::new();
    let mut readers = pin!(async {
        tokio::join!(
            Pump::new(stdout, Stream::Stdout, &sink).run(&stop),
            Pump::new(stderr, Stream::Stderr, &sink).run(&stop),
        )
    });
    let mut tree = pin!(Tree::new(supervisor, started).oversee(plan, cancel, events));
    let (ending, (stdout, stderr)) = tokio::select! {
        totals = &mut readers => (tree.await, totals),
        ending = &mut tree => match tokio::time::timeout(PIPE_WAIT, &mut readers).await {
            Ok(totals) => (ending, totals),
            Err(_) => {
                stop.cancel();
                (ending, readers.await)
            }
        },
    };
    let Ending {
        outcome,
        duration,
        usage,
        tree_gone,
    } = ending?;
    Ok(Finished {
        outcome,
        duration,
        cpu: Duration::from_micros(usage.cpu_us),
        max_rss_bytes: usage.max_rss_bytes,
        stdout,
        stderr,
        truncated: sink.truncated(),
        tree_gone,
        in_force: Box::new(in_force),
    })
}

/// What is known once a tree needs no more watching.
struct Ending {
    outcome: Outcome,
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
    ReceiverGone,
}

/// What the supervisor has reported of its tree.
struct Tree {
    supervisor: Supervisor,
    started: Instant,
    failed: Option<(Step, Errno)>,
    leader: Option<(End, Duration)>,
    usage: Usage,
    gone: bool,
}

impl Tree {
    fn new(supervisor: Supervisor, started: Instant) -> Self {
        Self {
            supervisor,
            started,
            failed: None,
            leader: None,
            usage: Usage::default(),
            gone: false,
        }
    }

    /// From the start to the end of the tree, or to the point where no more can be done.
    async fn oversee(
        mut self,
        plan: &Plan,
        cancel: &CancellationToken,
        events: &Sender<RunEvent>,
    ) -> Result<Ending, RunError> {
        let turn = tokio::select! {
            biased;
            ended = self.leader_ended() => ended.map(|()| Turn::LeaderEnded)?,
            () = cancel.cancelled() => Turn::Cancelled,
            () = tokio::time::sleep(plan.timeout) => Turn::TimedOut,
            () = events.closed() => Turn::ReceiverGone,
        };
        match turn {
            Turn::LeaderEnded => {
                if !self.gone_within(LEFTOVER_WAIT).await? {
                    self.bring_down(plan.grace).await?;
                }
            }
            Turn::TimedOut | Turn::Cancelled => self.bring_down(plan.grace).await?,
            Turn::ReceiverGone => {
                self.kill().await?;
                return Err(RunError::ReceiverGone);
            }
        }
        Ok(Ending {
            outcome: self.outcome(turn),
            duration: self
                .leader
                .map_or_else(|| self.started.elapsed(), |(_, after)| after),
            usage: self.usage,
            tree_gone: self.gone,
        })
    }

    /// Asks, waits, kills. Every process of the tree is asked, whatever its session.
    async fn bring_down(&mut self, grace: Duration) -> Result<(), RunError> {
        self.walk(terminate::ask_to_end).await;
        if self.gone_within(grace).await? {
            return Ok(());
        }
        self.kill().await
    }

    async fn kill(&mut self) -> Result<(), RunError> {
        self.supervisor.order_kill().await;
        if !self.gone {
            self.walk(terminate::kill_below).await;
        }
        self.gone_within(KILL_WAIT).await?;
        if !self.gone {
            tracing::warn!("processes of a run are left although they were killed");
        }
        Ok(())
    }

    /// A walk through `/proc` reads many small files, so it leaves this thread.
    async fn walk(&self, signal: fn(Pid)) {
        let held = self.supervisor.held();
        let _ = tokio::task::spawn_blocking(move || signal(held.pid())).await;
    }

    async fn leader_ended(&mut self) -> Result<(), RunError> {
        while self.leader.is_none() {
            self.hear().await?;
        }
        Ok(())
    }

    /// Whether the tree is proved gone, at the latest after `wait`.
    async fn gone_within(&mut self, wait: Duration) -> Result<bool, RunError> {
        let heard = tokio::time::timeout(wait, async {
            while !self.gone {
                self.hear().await?;
            }
            Ok(())
        });
        match heard.await {
            Ok(Err(lost)) => Err(lost),
            Ok(Ok(())) | Err(_) => Ok(self.gone),
        }
    }

    /// Takes in one report.
    async fn hear(&mut self) -> Result<(), RunError> {
        match self.supervisor.next_report().await {
            Some(Report::NotStarted { step, error }) => self.failed = Some((step, error)),
            Some(Report::LeaderEnded { end, usage }) => {
                self.leader = Some((end, self.started.elapsed()));
                self.usage = usage;
            }
            Some(Report::TreeGone { usage }) => {
                self.usage = usage;
                self.gone = true;
                self.supervisor.remove_cgroup();
            }
            None => return Err(RunError::SupervisorLost),
        }
        Ok(())
    }

    fn outcome(&self, turn: Turn) -> Outcome {
        match (self.failed, turn, self.leader) {
            (Some((Step::Exec, Errno::NOENT | Errno::ACCESS | Errno::NOEXEC)), ..) => {
                Outcome::NotExecutable
            }
            (Some((step, error)), ..) => Outcome::FailedToStart(format!(
                "the run could not {}, so nothing was run: {error}",
                step.purpose()
            )),
            (None, Turn::TimedOut, _) => Outcome::TimedOut,
            (None, Turn::Cancelled | Turn::ReceiverGone, _) => Outcome::Cancelled,
            (None, Turn::LeaderEnded, Some((End::Exited(code), _))) => Outcome::Exited(code),
            (None, Turn::LeaderEnded, Some((End::Signalled(signal), _))) => {
                Outcome::Signalled(signal)
            }
            (None, Turn::LeaderEnded, None) => {
                Outcome::FailedToStart("the run ended before its command began".to_owned())
            }
        }
    }
}
