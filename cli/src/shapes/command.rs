//! The JSON of commands, changes and lists.

use std::collections::BTreeMap;

use countersign_protocol::api::{Base64, ChangeItem, CommandItem, ExecutionResult};
use countersign_protocol::blob::BlobRef;
use countersign_protocol::command::{Act, AtOutputLimit, Environment, Mode};
use countersign_protocol::facts::{self, Run};
use countersign_protocol::hash::StatementId;
use countersign_protocol::key;
use countersign_protocol::lifecycle::Execution;
use countersign_protocol::name::AgentName;
use countersign_protocol::rights::ChangeBody;
use countersign_protocol::rollout::Rollout;
use countersign_protocol::secret::{SealedSecret, SealedSecrets};
use countersign_protocol::short;
use countersign_protocol::view as protocol_view;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::RedactionShape;
use crate::acts::{ChangeView, Judged, Replaced};
use crate::alike::{self, Group, Verdict};
use crate::console::base64;
use crate::streams::{Held, Link};
use crate::view::CommandView;

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
    /// Its status word; null where it could not be read back once the statement was in the log.
    pub status: Option<&'static str>,
    /// Where the statement stands.
    pub seq: u64,
    /// With an acceptance that replaces a key, and only then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaces: Option<ReplacedShape>,
}

impl From<&Judged> for JudgedShape {
    fn from(judged: &Judged) -> Self {
        Self {
            id: judged.id.to_string(),
            status: judged.status.as_ref().ok().copied(),
            seq: judged.seq,
            replaces: judged.replaces.as_ref().map(ReplacedShape::from),
        }
    }
}

/// `list`, `inbox`, `agents`, `changes`
#[derive(Debug, Serialize)]
pub struct ItemsShape<T> {
    /// The items.
    pub items: Vec<T>,
    /// For the next page.
    pub next: Option<String>,
}

/// A change in a list.
#[derive(Debug, Serialize)]
pub struct ChangeItemShape {
    /// As the server lists those that wait.
    #[serde(flatten)]
    pub item: ChangeItem,
    /// `XXXX-XXXX`
    pub short: String,
    /// Its status word.
    pub status: &'static str,
}

/// `inbox`: commands, and changes of rights beside them.
#[derive(Debug, Serialize)]
pub struct InboxShape {
    /// Commands that wait for the caller.
    pub items: Vec<CommandItem>,
    /// Changes that wait for the caller.
    pub changes: Vec<ChangeItemShape>,
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
    /// Null where it brings none.
    stdin: Option<StdinShape>,
    timeout_ms: u64,
    output_limit: u64,
    at_output_limit: Option<AtOutputLimit>,
    not_before_us: u64,
    expires_us: u64,
    max_runs: u8,
    break_glass: bool,
    /// How it goes over its hosts; null where it asks for nothing.
    rollout: Option<Rollout>,
    reason: Option<String>,
    targets: Vec<String>,
    /// What hosts run with their own facts in it; only where it uses some.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    runs: Vec<FilledShape>,
    requester: String,
    /// The API token that asked for its requester; null where they signed it themselves.
    token: Option<String>,
    /// Only where the request hands over some.
    #[serde(skip_serializing_if = "Option::is_none")]
    secrets: Option<Option<Vec<SecretShape>>>,
}

/// The standard input of a request.
#[derive(Debug, Serialize)]
struct StdinShape {
    /// How many bytes, also where they are not here.
    len: u64,
    /// `here`, `erased`, or `withheld`: then the caller may not read it.
    held: &'static str,
    /// Of its bytes; null where they are not here.
    sha256: Option<String>,
    /// Its bytes; null where they are not here.
    base64: Option<Base64>,
}

/// What some hosts run with their own facts in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FilledShape {
    /// The words.
    pub argv: Vec<String>,
    /// The hosts that run just these.
    pub targets: Vec<String>,
}

/// `secret seal`: what goes into the body of a call.
#[derive(Debug, Serialize)]
pub struct SealedShape<'a> {
    execution_id: &'a str,
    secrets: &'a SealedSecrets,
}

/// `secret seal`
#[must_use]
pub const fn sealed<'a>(execution_id: &'a str, secrets: &'a SealedSecrets) -> SealedShape<'a> {
    SealedShape {
        execution_id,
        secrets,
    }
}

/// A secret of a request; nobody but its hosts has the value.
#[derive(Debug, Serialize)]
struct SecretShape {
    name: String,
    delivery: &'static str,
    digest: String,
}

/// One approval in `show`.
#[derive(Debug, Serialize)]
pub struct ApprovalShape {
    principal: String,
    key_id: String,
    seq: u64,
}

/// What a retry runs again.
#[derive(Debug, Serialize)]
pub struct RetryShape {
    /// The earlier command.
    of: String,
    /// Also where nobody can say whether it ran.
    lost: bool,
}

/// `show` of a command, and the end of `run` and `logs`.
#[derive(Debug, Serialize)]
pub struct CommandShape {
    id: String,
    short: String,
    status: &'static str,
    request: RequestShape,
    /// What it runs again; left out where it is no retry.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry: Option<RetryShape>,
    approvals: Vec<ApprovalShape>,
    /// How many hosts came out how; empty before it is authorized.
    tally: BTreeMap<Verdict, u64>,
    /// Hosts that said the same, the largest group first.
    groups: Vec<Group>,
    executions: Vec<ExecutionResult>,
    /// What was erased, by whom and why; left out where nothing was.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    redactions: Vec<RedactionShape>,
}

impl CommandShape {
    /// With the execution of one of its hosts alone; all else is of the whole command.
    #[must_use]
    pub fn only(mut self, agent: &AgentName) -> Self {
        self.executions.retain(|part| part.agent == agent.as_str());
        self
    }
}

/// `show` of a change of rights.
#[derive(Debug, Serialize)]
pub struct ChangeShape<'a> {
    id: String,
    short: String,
    status: &'static str,
    change: &'a ChangeBody,
    /// The text of a policy that would be published.
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<&'a str>,
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

fn stdin(named: &BlobRef, held: Option<&Held<Vec<u8>>>) -> StdinShape {
    let (word, bytes) = match held {
        Some(Held::Here(bytes)) => ("here", Some(bytes)),
        Some(Held::Redacted) => ("erased", None),
        Some(Held::Withheld) | None => ("withheld", None),
    };
    StdinShape {
        len: named.len,
        held: word,
        sha256: bytes.map(|bytes| hex::encode(Sha256::digest(bytes))),
        base64: bytes.map(|bytes| base64(bytes)),
    }
}

/// Whoever approves by a script decides by this, so an act's field cannot be left out: each is named.
fn request(view: &CommandView) -> RequestShape {
    let Act {
        mode,
        // What these name is in the view.
        spec: _,
        env: _,
        secrets: _,
        targets: _,
        stdin: named_stdin,
        user,
        timeout_ms,
        output_limit,
        at_output_limit,
        not_before,
        expires_at,
        max_runs,
        break_glass,
        rollout,
    } = view.command.act();
    let spec = view.spec.here();
    let lines = view.command.targets.iter().flat_map(|list| list.lines());
    RequestShape {
        mode: *mode,
        argv: spec.map(|spec| spec.argv.clone()),
        cwd: spec.and_then(|spec| spec.cwd.clone()),
        env: match &view.env {
            None => Some(BTreeMap::new()),
            Some(held) => held.here().map(variables),
        },
        user: user.as_ref().map(ToString::to_string),
        stdin: named_stdin
            .as_ref()
            .map(|named| stdin(named, view.stdin.as_ref())),
        timeout_ms: *timeout_ms,
        output_limit: *output_limit,
        at_output_limit: *at_output_limit,
        not_before_us: not_before.as_micros(),
        expires_us: expires_at.as_micros(),
        max_runs: *max_runs,
        break_glass: *break_glass,
        rollout: rollout.clone(),
        reason: view.reason.here().cloned(),
        targets: lines.map(ToString::to_string).collect(),
        runs: runs(view),
        requester: view.command.requester().to_string(),
        token: view.command.request.token.as_ref().map(ToString::to_string),
        secrets: view.secrets.as_ref().map(|held| held.here().map(secrets)),
    }
}

/// What hosts run with their own facts in it; nothing where they run the words as they are.
#[must_use]
pub fn runs(view: &CommandView) -> Vec<FilledShape> {
    let (spec, targets) = (view.spec.here(), view.command.targets.as_ref());
    let Some(Ok(runs)) = spec
        .zip(targets)
        .map(|(spec, list)| facts::runs(spec, list))
    else {
        return Vec::new();
    };
    let shape = |run: Run<'_>| FilledShape {
        targets: run.lines.iter().map(ToString::to_string).collect(),
        argv: run.words,
    };
    runs.into_iter().map(shape).collect()
}

fn secrets(sealed: &SealedSecrets) -> Vec<SecretShape> {
    let secrets = sealed.secrets().iter();
    let shape = |secret: &SealedSecret| SecretShape {
        name: secret.name.to_string(),
        delivery: secret.delivery.as_str(),
        digest: secret.digest.to_string(),
    };
    secrets.map(shape).collect()
}

/// One host's part: what its agent signed.
#[must_use]
fn execution(view: &CommandView, agent: &AgentName, part: &Execution) -> ExecutionResult {
    let output = view.outputs.get(agent);
    let written = output.map(|output| output.written()).unwrap_or_default();
    let text = |named: &BlobRef| view.texts.get(&named.digest)?.here().cloned();
    protocol_view::execution_result(&view.command, (agent, part), written, text)
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
        retry: view.command.request.retry.map(|retry| RetryShape {
            of: retry.of.to_string(),
            lost: retry.lost,
        }),
        approvals: approvals.collect(),
        tally: alike::tally(&view.command.executions),
        groups: alike::groups(&view.command.executions),
        executions: parts
            .map(|(agent, part)| execution(view, agent, part))
            .collect(),
        redactions: super::erasure::redactions(&view.redactions),
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
        policy: view.policy.as_ref().map(|policy| policy.text()),
        replaces: view.replaces.as_ref().map(ReplacedShape::from),
        requester: view.requester.to_string(),
        seq: view.seq,
        consents: view.consents.iter().map(ToString::to_string).collect(),
        needed: view.needed,
    }
}

/// A change in a list.
#[must_use]
pub fn change_item(view: &ChangeView) -> ChangeItemShape {
    let item = ChangeItem {
        id: view.id.to_string(),
        change: view.kind().to_owned(),
        requester: view.requester.to_string(),
        seq: view.seq,
        consents: view.consents.iter().map(ToString::to_string).collect(),
        needed: view.needed,
    };
    ChangeItemShape {
        item,
        short: short::short(&view.id),
        status: view.stage.as_str(),
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

/// An entry of `log`: the payload stands in it as the very bytes that were signed.
#[must_use]
pub fn entry_line(link: &Link) -> String {
    let entry = &link.entry;
    let statement = entry.verified.statement();
    let kind = statement.kind.namespace();
    let payload = String::from_utf8_lossy(&statement.payload);
    let key_id = entry.verified.facts().key_id;
    let encoded = serde_json::to_string(&base64(&link.bytes)).unwrap_or_default();
    format!(
        "{{\"seq\":{},\"time_us\":{},\"namespace\":\"{kind}\",\"payload\":{payload},\"key_id\":\"{key_id}\",\"leaf\":\"{}\",\"entry\":{encoded}}}",
        entry.seq,
        entry.time.as_micros(),
        entry.leaf,
    )
}
