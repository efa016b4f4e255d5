//! What is written down: the records of the journal.

use countersign_protocol::api::Submission;
use countersign_protocol::event::Outcome;
use countersign_protocol::hash::{CommandId, Digest, KeyId, StatementId};
use countersign_protocol::name::Time;
use serde::{Deserialize, Serialize};

/// The first record: whose journal this is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Birth {
    /// The agent's key.
    pub key_id: KeyId,
    /// 16 random bytes in hex, kept beside the key too.
    pub journal_id: String,
    /// When key and journal were made.
    pub created: Time,
}

/// What a statement on the agent's own chain is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum About {
    /// `execution.started` of this command.
    Started(CommandId),
    /// `execution.refused` of this command.
    Refused(CommandId),
    /// `execution.completed` of the run with this `execution.started`.
    Completed(StatementId),
    /// `execution.lost` of the run with this `execution.started`.
    Lost(StatementId),
    /// `agent.key_retired`: the last word.
    Retired,
    /// `agent.idle`.
    Idle,
    /// `agent.facts`.
    Facts,
}

/// What one output stream of a run amounted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Totals {
    /// Bytes written.
    pub total: u64,
    /// Bytes of them in chunks.
    pub kept: u64,
    /// SHA-256 over all.
    pub sha256: Digest,
}

/// How a run ended, not yet said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndFacts {
    /// How.
    pub outcome: Outcome,
    /// Why nothing was run, or a later step was not, where that has a reason of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// With `exited`.
    pub exit_code: Option<u8>,
    /// With `signalled`.
    pub signal: Option<u8>,
    /// Wall time in microseconds.
    pub duration_us: u64,
    /// Processor time in microseconds.
    pub cpu_us: u64,
    /// Peak memory in bytes.
    pub max_rss: u64,
    /// Standard output.
    pub stdout: Totals,
    /// Standard error.
    pub stderr: Totals,
    /// Whether no process is left.
    pub tree_gone: bool,
    /// How often a secret was masked, where the run was handed some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub masked: Option<u64>,
}

/// One fact. Several in one append are durable together or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Record {
    /// Whose journal; the first record and only that.
    Birth(Birth),
    /// The enrolment, kept so that sending it again is the same statement.
    Enrolment(Submission),
    /// The ledger accepted this agent.
    Accepted,
    /// This key follows another one of the host, which has been in its grace since then.
    Succeeds {
        /// By the host's own clock.
        since: Time,
    },
    /// The key has retired and signs nothing more; only in a journal written anew.
    Retired,
    /// Where the agent's chain stands; only in a compacted journal.
    Chain {
        /// The next `agent_seq`.
        next: u64,
        /// The statement before it.
        prev: StatementId,
    },
    /// This grant is used up, whatever happens next.
    Used {
        /// The command.
        command: CommandId,
        /// Until then it could still be replayed.
        until: Time,
    },
    /// The next statement on the agent's chain, about to be sent. One at a time.
    Word {
        /// What it is about.
        about: About,
        /// Its id.
        id: StatementId,
        /// The statement and its blobs.
        submission: Submission,
    },
    /// The ledger's answer to that statement.
    Answered {
        /// The statement.
        id: StatementId,
        /// Whether it stands in the log; a refused one frees its number.
        accepted: bool,
    },
    /// A run under way; only in a journal written anew. Its waiting chunks and its end follow.
    Open {
        /// The run.
        started: StatementId,
        /// The command.
        command: CommandId,
        /// Chunks that are delivered.
        chunks: u64,
        /// The last chunk; the run's `execution.started` before the first.
        last_chunk: StatementId,
        /// The ledger refused a chunk.
        broken: bool,
    },
    /// A signed chunk of output, about to be sent.
    Chunk {
        /// The run.
        started: StatementId,
        /// The chunk's own id.
        id: StatementId,
        /// The statement and its bytes.
        submission: Submission,
    },
    /// So many more chunks of this run are in the log.
    Delivered {
        /// The run.
        started: StatementId,
        /// How many, the oldest first.
        chunks: u64,
    },
    /// The ledger refused a chunk of this run: the rest is not sent, and the run ends as lost.
    Broken {
        /// The run.
        started: StatementId,
    },
    /// How a run ended.
    Ended {
        /// The run.
        started: StatementId,
        /// The facts.
        facts: EndFacts,
    },
    /// Nothing more will be said of this run.
    Closed {
        /// The run.
        started: StatementId,
    },
}
