//! The payloads that agents sign. Two chains: the agent's own, and the output of each run.
//! PROTOCOL 7.

use serde::{Deserialize, Serialize};

use crate::blob::BlobRef;
use crate::event::payload;
use crate::event::{Author, EventError, Header, Seen};
use crate::hash::{CommandId, Digest, KeyId, LedgerId, StatementId};
use crate::name::{AgentName, Nonce, RuleName, Time};

/// What was opened to run, before it ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProgramFacts {
    /// Its resolved path, as a blob.
    pub path: BlobRef,
    /// SHA-256 of the file's bytes, without salt: programs are compared across hosts.
    pub sha256: Digest,
}

/// Limits that the host set on every process of a run; absent ones it left as they were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsInForce {
    /// Seconds of CPU time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_s: Option<u64>,
    /// Size in bytes of a file that is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_size_bytes: Option<u64>,
    /// Bytes of address space.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Descriptors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_files: Option<u64>,
    /// Processes and threads of the user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
}

/// Which limits the cgroup of a run enforces on all its processes together. That the run can be
/// killed by its cgroup comes with each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CgroupInForce {
    /// CPU time.
    pub cpu: bool,
    /// Memory.
    pub memory: bool,
    /// Processes and threads.
    pub pids: bool,
}

/// What held a run, as its host says: decided before the run, and a step of it that failed would
/// have ended the run before the program began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InForce {
    /// The cgroup of the run, if it had one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<CgroupInForce>,
    /// Group id of the command.
    pub gid: u32,
    /// The kernel's Landlock version, where Landlock guarded paths.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub landlock: Option<u32>,
    /// Limits of each process.
    pub limits: LimitsInForce,
    /// No program of the run could gain privileges.
    pub no_new_privs: bool,
    /// The deny list of system calls held.
    pub seccomp: bool,
    /// User id of the command.
    pub uid: u32,
}

payload! {
    /// The host will run it now. Its receipt comes before the fork.
    agent ExecutionStarted {
        /// The command.
        command: CommandId,
        /// Position on the agent's chain, from 0.
        agent_seq: u64,
        /// The agent's previous statement on its chain; zeros first.
        agent_prev: StatementId,
        /// What holds it. Absent: the host does not say, and nothing may be assumed.
        #[serde(skip_serializing_if = "Option::is_none")]
        in_force: Option<InForce>,
        /// What will run; of an action, its first step.
        program: ProgramFacts,
        /// Of an action: all its steps, a document of [`ActionStep`](crate::command::ActionStep)s.
        #[serde(skip_serializing_if = "Option::is_none")]
        steps: Option<BlobRef>,
    }
}

/// Why a host would not run what was authorized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalReason {
    /// Execution is switched off on this host.
    Disabled,
    /// A local rule forbids it or none allows it: "Command not in whitelist".
    NotAllowed,
    /// Too few approvals by people this host pins.
    Approvals,
    /// Too early, too late, or an approval is too old for this host's own clock.
    Time,
    /// The grant does not verify.
    Grant,
    /// This grant was used already.
    Used,
    /// Working directory, user or program cannot be had.
    Unusable,
    /// As many commands run as this host allows.
    Busy,
}

payload! {
    /// The host will not run it.
    agent ExecutionRefused {
        /// The command.
        command: CommandId,
        /// Position on the agent's chain.
        agent_seq: u64,
        /// The agent's previous statement on its chain.
        agent_prev: StatementId,
        /// Why.
        why: RefusalReason,
        /// Which local rule said so.
        #[serde(skip_serializing_if = "Option::is_none")]
        rule: Option<RuleName>,
        /// More about it, in free text.
        #[serde(skip_serializing_if = "Option::is_none")]
        detail: Option<BlobRef>,
    }
}

/// Which of the two output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

payload! {
    /// Bytes that the command wrote, as they came.
    agent ExecutionOutput {
        /// The command.
        command: CommandId,
        /// The run's `execution.started`.
        started: StatementId,
        /// Position among this run's chunks, both streams together, from 0.
        chunk_no: u64,
        /// The chunk before; the run's `execution.started` for the first.
        chunk_prev: StatementId,
        /// Which stream.
        stream: Stream,
        /// Microseconds since the start, by the host's monotonic clock.
        offset_us: u64,
        /// The bytes.
        data: BlobRef,
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// By itself, with a code.
    Exited,
    /// By a signal that was not the agent's.
    Signalled,
    /// Stopped when its time was over.
    TimedOut,
    /// Stopped when a person cancelled it.
    Cancelled,
    /// Stopped at the output limit.
    OutputLimit,
    /// There was no such program.
    NotFound,
    /// There was one that cannot be executed.
    NotExecutable,
}

/// What one stream amounted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamTotals {
    /// Bytes that the command wrote.
    pub total: u64,
    /// Bytes of them that are in chunks.
    pub kept: u64,
    /// SHA-256 over all that it wrote, also over what was not kept.
    pub sha256: Digest,
}

impl StreamTotals {
    /// Whether this is the digest of all that the chunks hold. None where the stream was cut: of what
    /// nobody kept nobody can make one.
    #[must_use]
    pub fn agrees(&self, chunks: [u8; 32]) -> Option<bool> {
        (self.total == self.kept).then(|| *self.sha256.as_bytes() == chunks)
    }
}

payload! {
    /// The run is over and nothing of it is left.
    agent ExecutionCompleted {
        /// The command.
        command: CommandId,
        /// Position on the agent's chain.
        agent_seq: u64,
        /// The agent's previous statement on its chain.
        agent_prev: StatementId,
        /// The run's `execution.started`.
        started: StatementId,
        /// How it ended.
        outcome: Outcome,
        /// Why nothing was run, in free text; with `not_executable`, and not always.
        #[serde(skip_serializing_if = "Option::is_none")]
        detail: Option<BlobRef>,
        /// With `exited`, and only then.
        #[serde(skip_serializing_if = "Option::is_none")]
        exit_code: Option<u8>,
        /// With `signalled`, and only then.
        #[serde(skip_serializing_if = "Option::is_none")]
        signal: Option<u8>,
        /// Wall time by the host's monotonic clock, in microseconds.
        duration_us: u64,
        /// Processor time of the whole tree, in microseconds.
        cpu_us: u64,
        /// Peak memory of the largest process, in bytes.
        max_rss: u64,
        /// Standard output.
        stdout: StreamTotals,
        /// Standard error.
        stderr: StreamTotals,
        /// Number of chunks.
        chunks: u64,
        /// The last chunk; the run's `execution.started` when there is none.
        last_chunk: StatementId,
        /// Whether every process of the run is proved gone.
        tree_gone: bool,
        /// Of a run that was handed secrets: how often one was masked in its output.
        #[serde(skip_serializing_if = "Option::is_none")]
        masked: Option<u64>,
    }
}

impl ExecutionCompleted {
    /// Exited with 0: the only success there is. A code stands with `exited` alone.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.exit_code == Some(0)
    }

    /// Says whether some output was not kept.
    #[must_use]
    pub const fn is_truncated(&self) -> bool {
        self.stdout.kept < self.stdout.total || self.stderr.kept < self.stderr.total
    }

    pub(crate) fn check(&self) -> Result<(), EventError> {
        let exited = (self.outcome == Outcome::Exited) == self.exit_code.is_some();
        let signalled = (self.outcome == Outcome::Signalled) == self.signal.is_some();
        if !exited || !signalled {
            return Err(EventError::Value(
                "an exit code stands with `exited` and a signal with `signalled`, and only there",
            ));
        }
        if self.detail.is_some() && self.outcome != Outcome::NotExecutable {
            return Err(EventError::Value(
                "why nothing was run stands with `not_executable`, and only there",
            ));
        }
        if self.stdout.kept > self.stdout.total || self.stderr.kept > self.stderr.total {
            return Err(EventError::Value(
                "no more output can be kept than was written",
            ));
        }
        Ok(())
    }
}

payload! {
    /// The last word of an agent's key: it signs nothing from here on. Only the key itself says it,
    /// once its host has a newer one and no run of it is open.
    agent AgentKeyRetired {
        /// Position on the key's chain.
        agent_seq: u64,
        /// The key's previous statement on its chain; zeros when it never said anything.
        agent_prev: StatementId,
    }
}

payload! {
    /// From one time to another this key started nothing but what stands before this statement on its
    /// chain. `agent_prev` binds all of that, so the statement proves what is missing as well.
    agent AgentIdle {
        /// Position on the key's chain.
        agent_seq: u64,
        /// The key's previous statement on its chain; zeros when it never said anything.
        agent_prev: StatementId,
        /// From when, by the agent's own clock.
        from: Time,
        /// Until when; not before `from`, and not after `made_at`.
        to: Time,
        /// Runs that this key has started and whose end it has not said, at `to`.
        running: u64,
    }
}

payload! {
    /// What the host says of itself, as requests may use it. The newest of the key in force counts.
    agent AgentFacts {
        /// Position on the key's chain.
        agent_seq: u64,
        /// The key's previous statement on its chain; zeros when it never said anything.
        agent_prev: StatementId,
        /// The [`Facts`](crate::facts::Facts).
        facts: BlobRef,
    }
}

/// Who says that a run is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossForm {
    /// The ledger, at the deadline. The agent's own late word may follow.
    Presumed,
    /// The agent, after a crash. Final.
    Confirmed,
}

/// Nobody can say how the run ended. Never shown as success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecutionLost {
    /// The ledger's statement key, or the agent's.
    pub signer: KeyId,
    /// Whose run.
    pub agent: AgentName,
    /// Random.
    pub nonce: Nonce,
    /// The signer's clock.
    pub made_at: Time,
    /// The ledger.
    pub ledger: LedgerId,
    /// The checkpoint the signer had seen.
    pub seen: Seen,
    /// The command.
    pub command: CommandId,
    /// The run's `execution.started`.
    pub started: StatementId,
    /// Who says so.
    pub form: LossForm,
    /// Position on the agent's chain; with `confirmed`, and only then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_seq: Option<u64>,
    /// The agent's previous statement; with `confirmed`, and only then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_prev: Option<StatementId>,
}

impl ExecutionLost {
    pub(crate) const fn header(&self) -> Header<'_> {
        Header {
            signer: self.signer,
            author: match self.form {
                LossForm::Presumed => Author::Ledger,
                LossForm::Confirmed => Author::Agent(&self.agent),
            },
            nonce: self.nonce,
            made_at: self.made_at,
            ledger: Some(self.ledger),
            seen: Some(self.seen),
        }
    }
}
