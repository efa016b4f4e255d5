//! What travels over HTTP: request and response bodies shared by server, agent and clients.
//!
//! Shapes only. Nothing here is trusted: a client verifies the entries inside from their bytes.
//! Bytes are base64 (standard alphabet, padded), hashes 64 lowercase hex digits, times integer
//! microseconds since the Unix epoch.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::blob::Blob;
use crate::event::Kind;
use crate::hash::Hash;
use crate::statement::Statement;

/// Most statements in one submission: what the writer takes in one batch of one submitter.
pub const MAX_BATCH: usize = 64;

/// Largest request body in bytes: one full blob in base64, with room for its statement.
pub const MAX_BODY_BYTES: usize = 8 * 1024 * 1024;

/// Most entries in one page.
pub const MAX_PAGE: u64 = 1000;

/// Names of targets in a list of commands; the whole list is in the command's own entries.
pub const LISTED_TARGETS: usize = 100;

/// Most commands whose entries are asked for at once: a page of what a search finds.
pub const MAX_STREAMS: usize = 200;

/// Bytes as base64.
#[derive(Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String, format = "byte"))]
pub struct Base64(pub Vec<u8>);

/// May hold what was run or written; only the length is shown.
impl core::fmt::Debug for Base64 {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Base64({} bytes)", self.0.len())
    }
}

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD
            .decode(text)
            .map(Self)
            .map_err(|_| de::Error::custom("not base64"))
    }
}

/// A blob with its salt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BlobBody {
    /// 32 bytes.
    pub salt: Base64,
    /// At most 4 MiB.
    pub content: Base64,
}

impl BlobBody {
    /// The blob, if the salt has 32 bytes and the content is not too large.
    #[must_use]
    pub fn into_blob(self) -> Option<Blob> {
        Blob::new(self.salt.0.try_into().ok()?, self.content.0).ok()
    }
}

impl From<&Blob> for BlobBody {
    fn from(blob: &Blob) -> Self {
        Self {
            salt: Base64(blob.salt().to_vec()),
            content: Base64(blob.content().to_vec()),
        }
    }
}

/// A signed statement with the blobs it names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Submission {
    /// `command.requested.v1@countersign`
    pub namespace: String,
    /// Canonical JSON.
    pub payload: Base64,
    /// The binary SSHSIG blob, not the armoured text.
    pub signature: Base64,
    /// The blobs that the payload names, in any order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blobs: Vec<BlobBody>,
}

impl Submission {
    /// Packs a statement and its blobs.
    #[must_use]
    pub fn new<'a>(statement: &Statement, blobs: impl IntoIterator<Item = &'a Blob>) -> Self {
        Self {
            namespace: statement.kind.namespace().into(),
            payload: Base64(statement.payload.clone()),
            signature: Base64(statement.signature.clone()),
            blobs: blobs.into_iter().map(BlobBody::from).collect(),
        }
    }

    /// The statement, still unverified; nothing when the namespace is unknown.
    #[must_use]
    pub fn statement(&self) -> Option<Statement> {
        let kind = Kind::from_namespace(&self.namespace).ok()?;
        let (payload, signature) = (self.payload.0.clone(), self.signature.0.clone());
        Some(Statement {
            kind,
            payload,
            signature,
        })
    }
}

/// Several statements at once; each is answered by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SubmissionBatch {
    /// At most [`MAX_BATCH`], taken in this order.
    pub statements: Vec<Submission>,
}

/// Where a statement stands, and the checkpoint it was committed with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Receipt {
    /// The statement's id.
    pub statement_id: String,
    /// Its place.
    pub seq: u64,
    /// The ledger's clock then.
    pub time_us: u64,
    /// The entry's bytes.
    pub entry: Base64,
    /// The entry's hash.
    pub leaf: String,
    /// A signed checkpoint that covers the entry.
    pub checkpoint: String,
    /// Inclusion proof of the entry in that checkpoint.
    pub inclusion: Vec<Hash>,
    /// Proof that this checkpoint continues the one that the statement had seen, so that nobody
    /// who remembers that one has to ask again. May be missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_seen: Option<Vec<Hash>>,
    /// The status of the command it concerns, after its batch; none for other statements.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Whether this statement stood in the log before.
    pub repeated: bool,
    /// What became of the request, when the caller preferred to wait and it ended in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results: Option<Vec<ExecutionResult>>,
}

/// The answer to one statement of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Answer {
    /// It is in the log.
    Receipt(Receipt),
    /// It is not.
    Problem(Problem),
}

/// The answers to a batch, in its order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Answers {
    /// One for each statement.
    pub answers: Vec<Answer>,
}

/// An error, as RFC 9457 has it, with a stable code and a hint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// Always `about:blank`: the code says which.
    #[serde(rename = "type")]
    pub kind: String,
    /// Short and the same for each code.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// A stable word for programs: `duplicate_approval`.
    pub code: String,
    /// What happened and what it means.
    pub detail: String,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// Who this ledger is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LedgerInfo {
    /// The ledger's id.
    pub ledger: String,
    /// The origin line of its checkpoints.
    pub origin: String,
    /// The verifier key of its checkpoints, as a signed-note vkey.
    pub vkey: String,
    /// The newest checkpoint.
    pub checkpoint: String,
    /// Entry 0; its leaf is the ledger's id, so whoever pins that id can believe it.
    pub genesis: Base64,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EntryItem {
    /// Its place.
    pub seq: u64,
    /// Its bytes.
    pub entry: Base64,
}

/// An entry with the proof that it is in a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ProvenEntry {
    /// Its place.
    pub seq: u64,
    /// Its bytes.
    pub entry: Base64,
    /// Inclusion proof in the checkpoint that comes with it.
    pub inclusion: Vec<Hash>,
}

/// All entries of a stream, proved: a command's, or (stream `rights`) those on keys and rights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StreamBody {
    /// The checkpoint that the proofs are for.
    pub checkpoint: String,
    /// The stream's entries up to it, ascending.
    pub entries: Vec<ProvenEntry>,
    /// The blobs that they name and that the caller may read.
    pub blobs: Vec<BlobBody>,
    /// Digests of named blobs that were redacted.
    pub redacted: Vec<String>,
}

impl StreamBody {
    /// The checkpoint's note, and what is proved for it.
    #[must_use]
    pub fn into_parts(self) -> (String, StreamPart) {
        let part = StreamPart {
            entries: self.entries,
            blobs: self.blobs,
            redacted: self.redacted,
        };
        (self.checkpoint, part)
    }
}

/// Whose entries are asked for together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StreamsRequest {
    /// Whole ids of commands, 64 hex digits each: 200 at most, each once.
    pub ids: Vec<String>,
}

/// The streams of several commands, all proved for one checkpoint: of the first of those that were asked
/// for, in that order. Whoever asked asks for the rest again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StreamsBody {
    /// The checkpoint that the proofs are for.
    pub checkpoint: String,
    /// The streams; one at least.
    pub streams: Vec<StreamPart>,
}

/// One of several streams, without what hosts wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StreamPart {
    /// The stream's entries up to the checkpoint, ascending.
    pub entries: Vec<ProvenEntry>,
    /// The blobs that they name and that the caller may read, as far as they fit.
    pub blobs: Vec<BlobBody>,
    /// Digests of named blobs that were redacted.
    pub redacted: Vec<String>,
}

/// One entry as it happens, with the blobs that it names and that the caller may read. Not proved
/// to be in a checkpoint: the stream is asked for again when that matters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LiveEntry {
    /// Its place.
    pub seq: u64,
    /// Its bytes.
    pub entry: Base64,
    /// The blobs.
    pub blobs: Vec<BlobBody>,
}

/// A position that something happened at: what `/v1/events` sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Notice {
    /// The entry's place.
    pub seq: u64,
    /// Its kind.
    pub kind: String,
    /// The command it concerns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

/// A proof for a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ProofBody {
    /// The checkpoint that the proof leads to.
    pub checkpoint: String,
    /// The hashes.
    pub proof: Vec<Hash>,
}

/// A page of items.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Give this as `cursor` for the next page; none on the last.
    pub next: Option<String>,
}

/// Why a host would not run a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RefusedBy {
    /// `disabled`, `not_allowed`, `approvals`, `time`, `grant`, `used`, `unusable` or `busy`.
    pub why: String,
    /// The host's rule or setting that said so.
    pub rule: Option<String>,
    /// The host's own sentence; none where it was erased or is not for the caller.
    pub detail: Option<String>,
}

/// A command in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CommandItem {
    /// Its id.
    pub id: String,
    /// Its status word.
    pub status: String,
    /// Who asked.
    pub requester: String,
    /// When.
    pub requested_us: u64,
    /// Where the request stands.
    pub seq: u64,
    /// From when on nothing starts any more.
    pub expires_us: u64,
    /// Who approved, in order, whether or not it counts.
    pub approved_by: Vec<String>,
    /// Distinct approvals that count; none once it ended without an authorization.
    pub approvals: Option<u32>,
    /// How many it takes; none as above.
    pub needed: Option<u32>,
    /// How many hosts.
    pub hosts: u32,
    /// Its targets, the first [`LISTED_TARGETS`].
    pub targets: Vec<String>,
    /// The command that it runs again, where it is a retry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<String>,
}

/// An agent in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AgentItem {
    /// Its name.
    pub agent: String,
    /// `enrolled`, `accepted`, `replaced` (in force beside a newer key), `retired` or `revoked`.
    pub status: String,
    /// Its key's id.
    pub key_id: String,
    /// Its key as `SHA256:…`, to compare with what the host prints.
    pub fingerprint: String,
    /// Its key's SSH blob.
    pub key: Base64,
    /// Where it was accepted.
    pub seq: Option<u64>,
    /// What administrators say of it: `env=prod`.
    #[serde(default)]
    pub labels: Vec<String>,
    /// It takes no new work.
    #[serde(default)]
    pub drained: bool,
    /// What secrets for it are sealed to, where new requests name this key: the X25519 key that it
    /// enrolled with. Who does not read the log takes the server's word for it.
    #[serde(default)]
    pub sealing_key: Option<Base64>,
    /// What the host has signed of itself last, by name, for `@fact.NAME` in arguments; of the key that
    /// new requests name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<String, String>,
    /// Where it was seen. Of the server that answers, so what has no server behind it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub presence: Option<AgentPresence>,
}

/// What a server knows of where an agent's key is: its own word, and nothing is guessed from silence.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AgentPresence {
    /// Streams of work that are open at the server that answers; another one may have others.
    pub listening: u64,
    /// Since when there was always one, microseconds.
    pub listening_since_us: Option<u64>,
    /// Its last signed-in request at the server that answers, since that started; microseconds.
    pub last_request_us: Option<u64>,
    /// When the newest entry that it signed was made, output left out; microseconds.
    pub last_statement_us: Option<u64>,
    /// Where that stands.
    pub last_statement_seq: Option<u64>,
    /// Its runs that have not ended: of a drained host, what it still drains.
    pub running: u64,
    /// What it said to be, with that request. Nobody vouches for it.
    pub says_version: Option<String>,
}

/// A change that waits for consent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChangeItem {
    /// Its id.
    pub id: String,
    /// `key_added`, `policy_published`, …
    pub change: String,
    /// Who asked.
    pub requester: String,
    /// Where the request stands.
    pub seq: u64,
    /// Who consented, the requester first.
    pub consents: Vec<String>,
    /// How many it takes.
    pub needed: u32,
}

/// An API token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TokenItem {
    /// Its public name.
    pub token: String,
    /// `in_force`, `expired` or `revoked`.
    pub status: String,
    /// For whom it asks.
    pub principal: String,
    /// Its roles.
    pub roles: Vec<String>,
    /// What it may do beside them.
    pub permissions: Vec<String>,
    /// It asks only for hosts with one of these labels; for all when empty.
    pub labels: Vec<String>,
    /// It asks only for these programs; for all when empty.
    pub commands: Vec<String>,
    /// When it stands for nobody any more.
    pub expires_us: u64,
    /// Where it was issued.
    pub seq: u64,
    /// When it was last used, to the minute; never when none.
    pub last_used_us: Option<u64>,
}

/// What waits for the caller's judgement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Inbox {
    /// Commands the caller may approve and has not.
    pub items: Vec<CommandItem>,
    /// Changes of rights the caller may consent to and has not.
    pub changes: Vec<ChangeItem>,
    /// Always none: the inbox is one page.
    pub next: Option<String>,
}

/// Names to resolve to targets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ResolveRequest {
    /// Agents' names; none is ever assumed.
    pub names: Vec<String>,
}

/// A resolved target: the client proves the key against the rights stream before it signs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ResolvedTarget {
    /// The agent.
    pub agent: String,
    /// Its key's id.
    pub key_id: String,
    /// Where it was accepted.
    pub seq: u64,
}

/// Resolved targets, sorted by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ResolvedTargets {
    /// One for each name.
    pub targets: Vec<ResolvedTarget>,
}

/// What to sign for a sign-in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChallengeBody {
    /// Goes into `session.challenge`; good for one minute and one use.
    pub challenge: String,
    /// The ledger.
    pub ledger: String,
    /// The person whose key was named in the question. A convenience and no proof.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
}

/// A session: a bearer token for reads.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SessionBody {
    /// Give it as `Authorization: Bearer …`. A secret.
    pub token: String,
    /// When it ends; at most 15 minutes away.
    pub expires_us: u64,
}

impl core::fmt::Debug for SessionBody {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SessionBody")
            .field("expires_us", &self.expires_us)
            .finish_non_exhaustive()
    }
}

/// One piece of work for an agent, sent over its stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Work {
    /// An authorized command with everything that the host needs to verify it.
    Grant(Box<Grant>),
    /// A cancel of a command that was granted before, with its proof.
    Cancel(StreamBody),
}

/// The header in which an agent that asks for work says the size of the checkpoint that it remembers.
pub const SEEN: &str = "countersign-seen";

/// An authorized command for one host, self-contained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Grant {
    /// The command's entries (request, approvals, authorization, cancels) with proofs and blobs.
    pub stream: StreamBody,
    /// Index of this host's line in the target tree.
    pub line_index: u64,
    /// This host's line: canonical JSON.
    pub line: Base64,
    /// Inclusion proof of the line.
    pub line_proof: Vec<Hash>,
    /// In a rollout: the end of the host whose place this turn takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ahead: Option<Box<Ahead>>,
    /// What administrators have signed for the hosts, where they have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotBody>,
    /// The newest entry of the checkpoint: how old that is, a host learns from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<ProvenEntry>,
    /// The proof that the stream's checkpoint goes on from what the host has seen, where the server
    /// thinks to know that. May be missing, or of another size than the host's; then it asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Since>,
}

/// A proof that a checkpoint continues a smaller one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Since {
    /// The smaller one's size.
    pub size: u64,
    /// The proof.
    pub proof: Vec<Hash>,
}

/// The end of another host's part of a command, with that host's line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Ahead {
    /// The statement that ended it: its agent's own, or the ledger's.
    pub entry: ProvenEntry,
    /// Index of its line in the target tree.
    pub line_index: u64,
    /// Its line: canonical JSON.
    pub line: Base64,
    /// Inclusion proof of the line.
    pub line_proof: Vec<Hash>,
}

/// A policy snapshot with its signatures; it stands by these alone, without a proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SnapshotBody {
    /// The document.
    pub document: BlobBody,
    /// One `policy.snapshot` for each administrator who signed, without blobs.
    pub statements: Vec<Submission>,
}

/// What became of one host, in a synchronous answer (`Prefer: wait`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExecutionResult {
    /// The host.
    pub agent: String,
    /// The service of the host, when it was not for the host itself.
    pub service: Option<String>,
    /// The execution's status word.
    pub status: String,
    /// How it ended.
    pub outcome: Option<String>,
    /// The end as one number: the exit code, 128 and the signal, 127 not found, 126 not executable,
    /// −1 for timed out, cancelled, stopped at the output limit, refused, skipped and lost; none
    /// while it is not over.
    pub code: Option<i32>,
    /// Why the host would not run it.
    pub refused: Option<RefusedBy>,
    /// Why it never started here, with the status `skipped`: `errors`, more hosts ended badly than the
    /// rollout allows; `turn_missed`, it had its turn and did not start in time; `expired`, the
    /// command's time was over.
    pub skipped: Option<String>,
    /// Why the host could not start it, with the outcome `not_executable`.
    pub failure: Option<String>,
    /// Only when the process exited.
    pub exit_code: Option<u8>,
    /// Only when a signal ended it.
    pub signal: Option<u8>,
    /// Standard output as text; what is no UTF-8 is U+FFFD.
    pub stdout: String,
    /// Standard error as text.
    pub stderr: String,
    /// Standard output, exact.
    pub stdout_base64: Base64,
    /// Standard error, exact.
    pub stderr_base64: Base64,
    /// Whether some output was not kept.
    pub truncated: bool,
    /// Wall time.
    pub duration_ms: Option<u64>,
    /// How often the host put `***` in place of a secret in the output before it signed that; none
    /// where the run was handed no secret, or is not over.
    pub masked: Option<u64>,
    /// Its output is not what the host says of it at the end: the host contradicts itself, or its key was
    /// stolen.
    pub contradicted: bool,
}
