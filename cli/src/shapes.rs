//! The JSON that scripts rely on. A change here is a change of the interface.

use std::collections::BTreeMap;

use countersign_protocol::api::{ChangeItem, CommandItem, ExecutionResult};
use countersign_protocol::command::{Environment, Mode};
use countersign_protocol::event::{Outcome, Stream};
use countersign_protocol::hash::StatementId;
use countersign_protocol::key;
use countersign_protocol::lifecycle::Execution;
use countersign_protocol::name::AgentName;
use countersign_protocol::rights::ChangeBody;
use countersign_protocol::short;
use serde::Serialize;

use crate::acts::{ChangeView, Replaced};
use crate::console::base64;
use crate::streams::Link;
use crate::view::{CommandView, Output};

/// `request`
#[derive(Debug, Serialize)]
pub struct RequestedShape {
    /// The whole id.
    pub id: String,
    /// `XXXX-XXXX`
    pub short: String,
    /// The status word.
    pub status: &'static str,
}

/// The key that an acceptance replaces.
#[derive(Debug, Serialize)]
pub struct ReplacedShape {
    key_id: String,
    fingerprint: String,
    /// The entry that made it count.
    since: u64,
}

impl From<&Replaced> for ReplacedShape {
    fn from(replaced: &Replaced) -> Self {
        Self {
            key_id: replaced.key_id.to_string(),
            fingerprint: key::fingerprint(&replaced.key_id),
            since: replaced.since,
        }
    }
}

/// `approve`, `reject`, `withdraw`, `cancel`, and what changes rights.
#[derive(Debug, Serialize)]
pub struct JudgedShape {
    /// Of the command or change.
    pub id: String,
    /// Its status word.
    pub status: &'static str,
    /// Where the statement stands.
    pub seq: u64,
    /// With an acceptance that replaces a key, and only then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaces: Option<ReplacedShape>,
}

/// `list`, `inbox`, `agents`, `changes`
#[derive(Debug, Serialize)]
pub struct ItemsShape<T> {
    /// The items.
    pub items: Vec<T>,
    /// For the next page.
    pub next: Option<String>,
}

/// `inbox`: commands, and changes of rights beside them.
#[derive(Debug, Serialize)]
pub struct InboxShape {
    /// Commands that wait for the caller.
    pub items: Vec<CommandItem>,
    /// Changes that wait for the caller.
    pub changes: Vec<ChangeItem>,
    /// Always none.
    pub next: Option<String>,
}

/// The request's part of `show`. What the caller may not read is null.
#[derive(Debug, Serialize)]
pub struct RequestShape {
    mode: Mode,
    argv: Option<Vec<String>>,
    cwd: Option<String>,
    env: Option<BTreeMap<String, String>>,
    user: Option<String>,
    timeout_ms: u64,
    reason: Option<String>,
    targets: Vec<String>,
    requester: String,
}

/// One approval in `show`.
#[derive(Debug, Serialize)]
pub struct ApprovalShape {
    principal: String,
    key_id: String,
    seq: u64,
}

/// `show` of a command, and the end of `run` and `logs`.
#[derive(Debug, Serialize)]
pub struct CommandShape {
    id: String,
    short: String,
    status: &'static str,
    request: RequestShape,
    approvals: Vec<ApprovalShape>,
    executions: Vec<ExecutionResult>,
}

/// `show` of a change of rights.
#[derive(Debug, Serialize)]
pub struct ChangeShape<'a> {
    id: String,
    short: String,
    status: &'static str,
    change: &'a ChangeBody,
    #[serde(skip_serializing_if = "Option::is_none")]
    replaces: Option<ReplacedShape>,
    requester: String,
    seq: u64,
    consents: Vec<String>,
    needed: u32,
}

fn variables(environment: &Environment) -> BTreeMap<String, String> {
    environment.variables().iter().cloned().collect()
}

fn request(view: &CommandView) -> RequestShape {
    let act = view.command.act();
    let spec = view.spec.here();
    let lines = view.command.targets.iter().flat_map(|list| list.lines());
    RequestShape {
        mode: act.mode,
        argv: spec.map(|spec| spec.argv.clone()),
        cwd: spec.and_then(|spec| spec.cwd.clone()),
        env: match &view.env {
            None => Some(BTreeMap::new()),
            Some(held) => held.here().map(variables),
        },
        user: act.user.as_ref().map(ToString::to_string),
        timeout_ms: act.timeout_ms,
        reason: view.reason.here().cloned(),
        targets: lines.map(|line| line.agent.to_string()).collect(),
        requester: view.command.requester().to_string(),
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

/// One host's part: what its agent signed.
#[must_use]
pub fn execution(agent: &AgentName, part: &Execution, output: Option<&Output>) -> ExecutionResult {
    let bytes = |stream| {
        output
            .map(|output| output.bytes(stream))
            .unwrap_or_default()
    };
    let (stdout, stderr) = (bytes(Stream::Stdout), bytes(Stream::Stderr));
    let done = part.completed.as_ref();
    let whole = output.is_none_or(Output::is_whole);
    ExecutionResult {
        agent: agent.to_string(),
        status: part.status.as_str().to_owned(),
        outcome: done.map(|done| outcome_word(done.outcome).to_owned()),
        exit_code: done.and_then(|done| done.exit_code),
        signal: done.and_then(|done| done.signal),
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
        stdout_base64: base64(&stdout),
        stderr_base64: base64(&stderr),
        // What is erased or withheld is missing here as well, and an empty text would hide that.
        truncated: !whole || done.is_some_and(|done| done.is_truncated()),
        duration_ms: done.map(|done| done.duration_us / 1000),
    }
}

/// `show` of a command.
#[must_use]
pub fn command(view: &CommandView) -> CommandShape {
    let approvals = view.command.approvals.iter().map(|given| ApprovalShape {
        principal: given.principal.to_string(),
        key_id: given.key_id.to_string(),
        seq: given.seq,
    });
    let parts = view.command.executions.iter();
    CommandShape {
        id: view.id().to_string(),
        short: short::short(&view.id()),
        status: view.command.status().as_str(),
        request: request(view),
        approvals: approvals.collect(),
        executions: parts
            .map(|(agent, part)| execution(agent, part, view.outputs.get(agent)))
            .collect(),
    }
}

/// `show` of a change.
#[must_use]
pub fn change(view: &ChangeView) -> ChangeShape<'_> {
    ChangeShape {
        id: view.id.to_string(),
        short: short::short(&view.id),
        status: view.stage.as_str(),
        change: &view.body,
        replaces: view.replaces.as_ref().map(ReplacedShape::from),
        requester: view.requester.to_string(),
        seq: view.seq,
        consents: view.consents.iter().map(ToString::to_string).collect(),
        needed: view.needed,
    }
}

/// A change in a list.
#[must_use]
pub fn change_item(view: &ChangeView) -> ChangeItem {
    ChangeItem {
        id: view.id.to_string(),
        change: view.kind().to_owned(),
        requester: view.requester.to_string(),
        seq: view.seq,
        consents: view.consents.iter().map(ToString::to_string).collect(),
        needed: view.needed,
    }
}

/// `request`, once it is in the log.
#[must_use]
pub fn requested(id: &StatementId, status: &'static str) -> RequestedShape {
    RequestedShape {
        id: id.to_string(),
        short: short::short(id),
        status,
    }
}

/// An entry of `log`, a line: the payload stands in it as the very bytes that were signed.
#[must_use]
pub fn entry_line(link: &Link) -> String {
    let entry = &link.entry;
    let statement = entry.verified.statement();
    let kind = statement.kind.namespace();
    let payload = String::from_utf8_lossy(&statement.payload);
    let key_id = entry.verified.facts().key_id;
    let encoded = serde_json::to_string(&base64(&link.bytes)).unwrap_or_default();
    format!(
        "{{\"seq\":{},\"time_us\":{},\"namespace\":\"{kind}\",\"payload\":{payload},\"key_id\":\"{key_id}\",\"leaf\":\"{}\",\"entry\":{encoded}}}\n",
        entry.seq,
        entry.time.as_micros(),
        entry.leaf,
    )
}
