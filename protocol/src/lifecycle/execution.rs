//! One host's part of a command, and how it takes what its agent says.

use alloc::format;

use super::command::Position;
use super::status::ExecutionStatus;
use crate::blob::BlobRef;
use crate::event::{
    ExecutionCompleted, ExecutionOutput, ExecutionStarted, LossForm, Outcome, RefusalReason,
    SkipReason, Stream,
};
use crate::hash::StatementId;
use crate::name::{RuleName, Time};
use crate::refusal::{Refusal, require};

/// One host's part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Execution {
    /// Where it is.
    pub status: ExecutionStatus,
    /// In a rollout: that it has its turn.
    pub released: Option<Released>,
    /// Its `execution.started`, and where that stands.
    pub started: Option<(ExecutionStarted, Position)>,
    /// Chunks so far.
    pub chunks: u64,
    /// The last chunk, or the start before the first.
    pub last_chunk: StatementId,
    /// Bytes in these chunks.
    pub kept: Kept,
    /// How it ended, when the agent said so; it may be late.
    pub completed: Option<ExecutionCompleted>,
    /// Why the host would not.
    pub refused: Option<Refused>,
    /// Why it was skipped, where it was not for the command's time being over.
    pub skipped: Option<SkipReason>,
    /// Who said that the run is lost.
    pub lost: Option<LossForm>,
    /// The first statement after which nothing more was expected.
    pub over: Option<Over>,
    /// Something of the agent arrived after the end was settled.
    pub late: bool,
    /// A refusal was such a thing. One is all that a host has to say of it.
    pub late_refusal: bool,
}

/// Bytes of output that chunks hold, by stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Kept {
    /// Of standard output.
    pub stdout: u64,
    /// Of standard error.
    pub stderr: u64,
}

impl Kept {
    /// No chunk so far.
    const NOTHING: Self = Self {
        stdout: 0,
        stderr: 0,
    };

    /// Of both together.
    const fn total(self) -> u64 {
        self.stdout.saturating_add(self.stderr)
    }

    /// With one chunk more.
    const fn and(self, stream: Stream, bytes: u64) -> Self {
        let Self { stdout, stderr } = self;
        match stream {
            Stream::Stdout => Self {
                stdout: stdout.saturating_add(bytes),
                stderr,
            },
            Stream::Stderr => Self {
                stdout,
                stderr: stderr.saturating_add(bytes),
            },
        }
    }
}

/// A host's turn in a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Released {
    /// Where its `execution.released` stands.
    pub at: Position,
    /// Until when it may start.
    pub start_before: Time,
}

/// The end of a host's part, as others may wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Over {
    /// The statement that ended it.
    pub id: StatementId,
    /// Where that stands.
    pub seq: u64,
    /// When, by the later of two clocks: see [`crate::rollout::over_at`].
    pub time: Time,
}

/// Why a host would not run a command, in its own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The class.
    pub why: RefusalReason,
    /// The host's rule or setting that said so.
    pub rule: Option<RuleName>,
    /// More about it, in free text.
    pub detail: Option<BlobRef>,
}

impl Execution {
    /// The end as one number, where only a number can be told: the exit code; 128 and the signal;
    /// 127 and 126 as shells have them; −1 for what ended otherwise or was refused. None while it
    /// is not over.
    #[must_use]
    pub fn number(&self) -> Option<i32> {
        match self.status {
            ExecutionStatus::Waiting | ExecutionStatus::Running => return None,
            ExecutionStatus::Completed => {}
            ExecutionStatus::Refused
            | ExecutionStatus::Skipped
            | ExecutionStatus::Cancelled
            | ExecutionStatus::Lost => return Some(-1),
        }
        let done = self.completed.as_ref()?;
        Some(match done.outcome {
            Outcome::Exited => done.exit_code.map_or(-1, i32::from),
            Outcome::Signalled => done.signal.map_or(-1, |signal| 128 + i32::from(signal)),
            Outcome::NotFound => 127,
            Outcome::NotExecutable => 126,
            Outcome::TimedOut | Outcome::Cancelled | Outcome::OutputLimit => -1,
        })
    }

    pub(super) const WAITING: Self = Self {
        status: ExecutionStatus::Waiting,
        released: None,
        started: None,
        chunks: 0,
        last_chunk: StatementId::ZERO,
        kept: Kept::NOTHING,
        completed: None,
        refused: None,
        skipped: None,
        lost: None,
        over: None,
        late: false,
        late_refusal: false,
    };

    /// It ended, and well; what its agent says late of a lost run is no success.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.status == ExecutionStatus::Completed
            && self
                .completed
                .as_ref()
                .is_some_and(ExecutionCompleted::succeeded)
    }
}

impl Execution {
    /// It is over, and not well: what a rollout counts. Nobody is blamed for a cancel.
    #[must_use]
    pub fn is_error(&self) -> bool {
        match self.status {
            ExecutionStatus::Waiting | ExecutionStatus::Running | ExecutionStatus::Cancelled => {
                false
            }
            ExecutionStatus::Completed => !self.succeeded(),
            ExecutionStatus::Skipped => self.skipped == Some(SkipReason::TurnMissed),
            ExecutionStatus::Refused | ExecutionStatus::Lost => true,
        }
    }

    /// Whether the agent itself has said how the run ended, or that it cannot: then all of the output
    /// stands before. What the ledger presumes is no such word.
    pub(super) fn is_told(&self) -> bool {
        self.completed.is_some() || self.lost == Some(LossForm::Confirmed)
    }

    /// Takes a chunk of a run that may have so many bytes of output.
    ///
    /// The bytes bound the chunks too: each has one at least. Nothing tighter holds for every honest
    /// agent: how much comes in one piece is up to the command, which may write a byte at a time for as
    /// long as it runs, and to whatever still holds its pipes when it was killed.
    pub(super) fn output(
        &mut self,
        chunk: &ExecutionOutput,
        at: Position,
        most: u64,
    ) -> Result<(), Refusal> {
        require(!self.is_told(), Refusal::Transition)?;
        if chunk.chunk_no != self.chunks || chunk.chunk_prev != self.last_chunk {
            return Err(Refusal::Chain {
                expected: self.chunks,
            });
        }
        let kept = self.kept.and(chunk.stream, chunk.data.len);
        if kept.total() > most {
            return Err(Refusal::OverLimit(format!(
                "this run's output would come to {} bytes, and its request keeps {most} of each host",
                kept.total()
            )));
        }
        self.late |= self.status != ExecutionStatus::Running;
        self.chunks += 1;
        self.last_chunk = at.id;
        self.kept = kept;
        Ok(())
    }

    pub(super) fn complete(&mut self, done: &ExecutionCompleted) -> Result<(), Refusal> {
        if done.chunks != self.chunks || done.last_chunk != self.last_chunk {
            return Err(Refusal::Chain {
                expected: self.chunks,
            });
        }
        if self.completed.is_some() {
            return Err(Refusal::Transition);
        }
        // What is wrong by the log alone is never entered. Whether the digests are right takes the
        // bytes, which may be withheld: whoever holds them says so.
        require(
            done.stdout.kept == self.kept.stdout,
            Refusal::Binding("stdout.kept"),
        )?;
        require(
            done.stderr.kept == self.kept.stderr,
            Refusal::Binding("stderr.kept"),
        )?;
        self.completed = Some(done.clone());
        if self.status != ExecutionStatus::Running {
            // Presumed lost, and now we hear how it ended: shown, never as success.
            self.late = true;
            return Ok(());
        }
        self.status = match done.outcome {
            Outcome::Cancelled => ExecutionStatus::Cancelled,
            Outcome::Exited
            | Outcome::Signalled
            | Outcome::TimedOut
            | Outcome::OutputLimit
            | Outcome::NotFound
            | Outcome::NotExecutable => ExecutionStatus::Completed,
        };
        Ok(())
    }
}
