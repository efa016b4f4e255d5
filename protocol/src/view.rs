//! The fold as people read it: one function for each row of a list.
//!
//! Projections store what these return, and whoever rebuilds or checks a projection calls them
//! again: a row is a function of the log and of nothing else.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::api::{
    AgentItem, Base64, ChangeItem, CommandItem, ExecutionResult, LISTED_TARGETS, RefusedBy,
};
use crate::blob::BlobRef;
use crate::event::{ExecutionCompleted, Outcome, RefusalReason, SkipReason, StreamTotals};
use crate::facts::Facts;
use crate::fold::State;
use crate::hash::{KeyId, StatementId};
use crate::judgement::Judge;
use crate::key::{self, PublicKey};
use crate::lifecycle::{Command, Execution, ExecutionStatus};
use crate::name::AgentName;
use crate::rights::{Consent, Holder, KeyRecord, OpenChange, Rights};

/// A command in a list.
#[must_use]
pub fn command_item(state: &State, command: &Command) -> CommandItem {
    let standing = state.standing(command);
    CommandItem {
        id: command.id.to_string(),
        status: command.status().as_str().into(),
        requester: command.requester().to_string(),
        requested_us: command.requested.time.as_micros(),
        seq: command.requested.seq,
        expires_us: command.act().expires_at.as_micros(),
        approved_by: command
            .approvals
            .iter()
            .map(|given| given.principal.to_string())
            .collect(),
        approvals: standing.map(|verdict| verdict.have),
        needed: standing.map(|verdict| verdict.need),
        hosts: u32::try_from(command.act().targets.count).unwrap_or(u32::MAX),
        targets: command
            .executions
            .keys()
            .take(LISTED_TARGETS)
            .map(ToString::to_string)
            .collect(),
        retry_of: command
            .request
            .retry
            .as_ref()
            .map(|retry| retry.of.to_string()),
    }
}

/// The word for how a run ended.
#[must_use]
pub const fn outcome_word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Exited => "exited",
        Outcome::Signalled => "signalled",
        Outcome::TimedOut => "timed_out",
        Outcome::Cancelled => "cancelled",
        Outcome::OutputLimit => "output_limit",
        Outcome::NotFound => "not_found",
        Outcome::NotExecutable => "not_executable",
    }
}

/// One host's part of a command, without its output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecutionRow {
    /// The host.
    pub agent: String,
    /// Its status word.
    pub status: &'static str,
    /// How it ended.
    pub outcome: Option<&'static str>,
    /// Only when the process exited.
    pub exit_code: Option<u8>,
    /// Only when a signal ended it.
    pub signal: Option<u8>,
    /// Where its start stands.
    pub started_seq: Option<u64>,
    /// Wall time in microseconds.
    pub duration_us: Option<u64>,
    /// Chunks of output so far.
    pub chunks: u64,
    /// Whether some output was not kept.
    pub truncated: bool,
    /// Whether the agent's word came after the end was settled.
    pub late: bool,
}

/// One host's part of a command.
#[must_use]
pub fn execution_row(agent: &AgentName, execution: &Execution) -> ExecutionRow {
    let completed = execution.completed.as_ref();
    ExecutionRow {
        agent: agent.to_string(),
        status: execution.status.as_str(),
        outcome: completed.map(|done| outcome_word(done.outcome)),
        exit_code: completed.and_then(|done| done.exit_code),
        signal: completed.and_then(|done| done.signal),
        started_seq: execution.started.as_ref().map(|(_, at)| at.seq),
        duration_us: completed.map(|done| done.duration_us),
        chunks: execution.chunks,
        truncated: completed.is_some_and(ExecutionCompleted::is_truncated),
        late: execution.late,
    }
}

/// What is here of a run's output.
#[derive(Debug, Clone, Default)]
pub struct Written {
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// Whether a part of what the run's chunks hold is not here.
    pub is_cut: bool,
}

/// Whether a run's output, where all of it is here, is not what its host says of it at the end. Each piece
/// is what that host signed, so it contradicts itself, or its key was stolen; nobody else has done anything.
#[must_use]
pub fn contradicts(done: &ExecutionCompleted, written: &Written) -> bool {
    let differs = |said: &StreamTotals, bytes: &[u8]| {
        said.agrees(Sha256::digest(bytes).into()) == Some(false)
    };
    !written.is_cut
        && (differs(&done.stdout, &written.stdout) || differs(&done.stderr, &written.stderr))
}

/// One host's part of a command with its output; `text` finds the free text behind a blob.
#[must_use]
pub fn execution_result(
    command: &Command,
    (agent, execution): (&AgentName, &Execution),
    written: Written,
    text: impl Fn(&BlobRef) -> Option<String>,
) -> ExecutionResult {
    let row = execution_row(agent, execution);
    let line = command
        .targets
        .as_ref()
        .and_then(|list| list.line_of(agent));
    let service = line.and_then(|(_, line)| line.service.as_ref());
    let refused = execution.refused.as_ref();
    let completed = execution.completed.as_ref();
    let contradicted = completed.is_some_and(|done| contradicts(done, &written));
    ExecutionResult {
        agent: row.agent,
        service: service.map(ToString::to_string),
        status: row.status.into(),
        outcome: row.outcome.map(ToString::to_string),
        code: execution.number(),
        refused: refused.map(|refused| RefusedBy {
            why: refusal_word(refused.why).into(),
            rule: refused.rule.as_ref().map(ToString::to_string),
            detail: refused.detail.as_ref().and_then(&text),
        }),
        skipped: Skipped::of(execution).map(|why| why.as_str().into()),
        failure: completed.and_then(|done| text(done.detail.as_ref()?)),
        exit_code: row.exit_code,
        signal: row.signal,
        stdout: String::from_utf8_lossy(&written.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&written.stderr).into_owned(),
        stdout_base64: Base64(written.stdout),
        stderr_base64: Base64(written.stderr),
        // What is erased or withheld is missing here as well, and an empty text would hide that.
        truncated: row.truncated || written.is_cut,
        duration_ms: row.duration_us.map(|us| us / 1000),
        masked: completed.and_then(|done| done.masked),
        contradicted,
    }
}

/// The word for why a host would not run a command.
#[must_use]
pub const fn refusal_word(why: RefusalReason) -> &'static str {
    match why {
        RefusalReason::Disabled => "disabled",
        RefusalReason::NotAllowed => "not_allowed",
        RefusalReason::Approvals => "approvals",
        RefusalReason::Time => "time",
        RefusalReason::Grant => "grant",
        RefusalReason::Used => "used",
        RefusalReason::Unusable => "unusable",
        RefusalReason::Busy => "busy",
    }
}

/// Why a host was skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Skipped {
    /// More hosts ended badly than its rollout allows.
    Errors,
    /// It had its turn and did not start in the time for that.
    TurnMissed,
    /// The command's own time was over: the one that statements leave out.
    Expired,
}

impl Skipped {
    /// Why one host's part was skipped; none where it was not.
    #[must_use]
    pub fn of(execution: &Execution) -> Option<Self> {
        let skipped = execution.status == ExecutionStatus::Skipped;
        skipped.then(|| Self::said(execution.skipped))
    }

    /// What an `execution.skipped` says.
    #[must_use]
    pub const fn said(why: Option<SkipReason>) -> Self {
        match why {
            Some(SkipReason::Errors) => Self::Errors,
            Some(SkipReason::TurnMissed) => Self::TurnMissed,
            None => Self::Expired,
        }
    }

    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Errors => SkipReason::Errors.as_str(),
            Self::TurnMissed => SkipReason::TurnMissed.as_str(),
            Self::Expired => "expired",
        }
    }
}

/// A change of rights that waits for consent, as of the newest entry on rights.
#[must_use]
pub fn change_item(
    rights: &Rights,
    judge: &dyn Judge,
    id: &StatementId,
    change: &OpenChange,
) -> ChangeItem {
    let first = change.consents.first();
    let now = rights.changed_at();
    let verdict = now.map(|now| rights.change_standing(change, judge, now));
    ChangeItem {
        id: id.to_string(),
        change: change.body.kind().as_str().replace('.', "_"),
        requester: first.map_or_else(String::new, |consent| consent.principal.to_string()),
        seq: first.map_or(0, |consent| consent.seq),
        consents: change
            .consents
            .iter()
            .map(|Consent { principal, .. }| principal.to_string())
            .collect(),
        needed: verdict.map_or(0, |verdict| verdict.need),
    }
}

fn agent_item(
    rights: &Rights,
    agent: &AgentName,
    key: &PublicKey,
    (status, seq): (&str, Option<u64>),
) -> AgentItem {
    let key_id = key.key_id();
    let record = rights.agent_record(agent).filter(|_| seq.is_some());
    AgentItem {
        agent: agent.to_string(),
        status: status.into(),
        key_id: key_id.to_string(),
        fingerprint: key::fingerprint(&key_id),
        key: Base64(key.to_blob()),
        seq,
        labels: record
            .into_iter()
            .flat_map(|record| &record.labels)
            .map(ToString::to_string)
            .collect(),
        drained: record.is_some_and(|record| record.drained),
        sealing_key: sealing_key(rights, agent, &key_id),
        facts: facts(rights, agent, &key_id),
        presence: None,
    }
}

/// What secrets for a host are sealed to, if this is the key that new requests name.
#[must_use]
pub fn sealing_key(rights: &Rights, agent: &AgentName, key: &KeyId) -> Option<Base64> {
    let record = rights.agent_record(agent)?;
    let sealing_key = record.sealing_key.filter(|_| record.key == *key)?;
    Some(Base64(sealing_key.as_bytes().to_vec()))
}

/// What a host has signed of itself last, if this is the key that new requests name.
#[must_use]
pub fn facts(rights: &Rights, agent: &AgentName, key: &KeyId) -> BTreeMap<String, String> {
    let record = rights.agent_record(agent);
    let record = record.filter(|record| record.key == *key);
    let signed = record.and_then(|record| record.facts.as_ref());
    let facts = signed.and_then(|signed| signed.facts.as_deref());
    let facts = facts.into_iter().flat_map(Facts::iter);
    facts
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect()
}

/// The status word of an agent's key that the log knows: `accepted` for the one that new requests
/// name, `replaced` while an older one is still in force, `retired` and `revoked` after their ends.
#[must_use]
pub fn agent_key_word(rights: &Rights, agent: &AgentName, record: &KeyRecord) -> &'static str {
    if record.retired {
        "retired"
    } else if record.revoked.is_some() {
        "revoked"
    } else if rights.agent(agent) == Some(record.key.key_id()) {
        "accepted"
    } else {
        "replaced"
    }
}

/// All keys of agents that are in force, and those that wait to be accepted, sorted by name.
#[must_use]
pub fn agent_items(rights: &Rights) -> Vec<AgentItem> {
    let known = |(_, record): (&KeyId, &KeyRecord)| {
        let Holder::Agent(name) = &record.holder else {
            return None;
        };
        let word = agent_key_word(rights, name, record);
        let item = || agent_item(rights, name, &record.key, (word, Some(record.since)));
        record.revoked.is_none().then(item)
    };
    let waiting = rights
        .enrolments()
        .filter(|(_, key)| rights.key(&key.key_id()).is_none())
        .map(|(name, key)| agent_item(rights, name, key, ("enrolled", None)));
    let mut items: Vec<AgentItem> = rights.keys().filter_map(known).chain(waiting).collect();
    items.sort_by(|a, b| (&a.agent, &a.key_id).cmp(&(&b.agent, &b.key_id)));
    items
}
