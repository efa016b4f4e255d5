//! What a call says.

use std::collections::BTreeMap;

use countersign_protocol::rollout::Rollout;
use countersign_protocol::secret::SealedSecret;
use serde::Deserialize;

/// What is asked for: a program and its arguments, which no shell sees; or one line for `/bin/sh -c`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct ExecBody {
    /// The program, or the line.
    pub(super) command: String,
    /// The program's arguments; a line has none.
    #[serde(default)]
    pub(super) args: Vec<String>,
    /// Where: `HOST` or `HOST/SERVICE`, at least one. A target is always named.
    pub(super) on: Vec<String>,
    /// Why; it goes into the log. "asked with an API token" when left out.
    pub(super) reason: Option<String>,
    /// An absolute directory.
    pub(super) cwd: Option<String>,
    /// The account to run as; the host's configuration decides when left out.
    pub(super) user: Option<String>,
    /// Environment variables.
    #[serde(default)]
    pub(super) env: BTreeMap<String, String>,
    /// Standard input, as text.
    pub(super) stdin: Option<String>,
    /// Standard input, as base64 of bytes; not both.
    pub(super) stdin_base64: Option<String>,
    /// Secrets that the caller has sealed to the hosts' keys (`countersign secret seal`), to this
    /// `execution_id`. A value in clear is never sent.
    #[serde(default)]
    #[schema(value_type = Vec<Object>)]
    pub(super) secrets: Vec<SealedSecret>,
    /// Seconds that it may run: 30 when left out, 300 at most.
    pub(super) timeout: Option<u64>,
    /// Bytes of output that are kept of each host: 1 MiB when left out.
    pub(super) output_limit: Option<u64>,
    /// Seconds that the request stays open for approvals: an hour when left out.
    pub(super) expires_in: Option<u64>,
    /// How it goes over its hosts, in the order of their names: `max_in_flight`, `canary`, `max_errors`
    /// (hosts), `gap` (`ms`, and `label` for one over all commands), `start_within_ms`. All start at
    /// once when left out, unless the policy says otherwise.
    pub(super) rollout: Option<Rollout>,
    /// The caller's own id, as `Idempotency-Key` says it too: the same again is the same command.
    pub(super) execution_id: Option<String>,
}
