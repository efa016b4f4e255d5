//! A retry: a new request that runs again exactly what an earlier one recorded, on hosts where that
//! did not go well. PROTOCOL 9.
//!
//! It is a request like any other: rights, approvals and hosts' own rules judge it as if there had
//! been none before. What stands here comes on top, and needs the earlier command: whoever holds it
//! checks it (the ledger always, an auditor of the whole log, a client before it signs).

use serde::{Deserialize, Serialize};

use crate::hash::CommandId;
use crate::lifecycle::{Command, ExecutionStatus};
use crate::quorum::is_false;
use crate::refusal::{Refusal, require};
use crate::target::TargetLine;

/// Which command is run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// The earlier one.
    pub of: CommandId,
    /// Also where nobody can say how it ended: such a host may have run it, and may run it twice.
    #[serde(default, skip_serializing_if = "is_false")]
    pub lost: bool,
}

/// Says whether a request is a retry of `earlier`: that is over, the same would run, and on no other
/// hosts than those on which it did not go well.
///
/// Where a list of hosts is withheld, hosts are not looked at.
///
/// # Errors
/// Why it is none.
pub fn check(earlier: &Command, again: &Command, retry: &Retry) -> Result<(), Refusal> {
    require(earlier.status().is_final(), Refusal::RetryTooEarly)?;
    let (was, is) = (earlier.act(), again.act());
    // What is handed over is sealed for one request; nobody but the hosts can open it.
    let has_secrets = was.secrets.is_some() || is.secrets.is_some();
    require(!has_secrets, Refusal::RetrySecrets)?;
    let same = |same: bool, what| require(same, Refusal::RetryDiffers(what));
    same(was.mode == is.mode, "mode")?;
    same(was.spec == is.spec, "spec")?;
    same(was.env == is.env, "env")?;
    same(was.stdin == is.stdin, "stdin")?;
    same(was.user == is.user, "user")?;
    same(was.timeout_ms == is.timeout_ms, "timeout_ms")?;
    same(was.output_limit == is.output_limit, "output_limit")?;
    same(was.at_output_limit == is.at_output_limit, "at_output_limit")?;
    let lines = again.targets.iter().flat_map(|list| list.lines());
    lines
        .into_iter()
        .try_for_each(|line| check_host(earlier, line, retry))
}

/// A host is one of the earlier ones, in the same place of it, and its part did not go well.
fn check_host(earlier: &Command, line: &TargetLine, retry: &Retry) -> Result<(), Refusal> {
    let host = || line.agent.clone();
    if let Some(targets) = &earlier.targets {
        let before = targets.line_of(&line.agent);
        let (_, before) = before.ok_or_else(|| Refusal::RetryElsewhere(host()))?;
        if before.service != line.service {
            return Err(Refusal::RetryElsewhere(host()));
        }
        if before.spec != line.spec {
            return Err(Refusal::RetryDiffers("spec"));
        }
        if before.facts != line.facts {
            return Err(Refusal::RetryDiffers("facts"));
        }
    }
    let Some(part) = earlier.executions.get(&line.agent) else {
        // Withheld: whoever said nothing is not known to be one of them.
        return Ok(());
    };
    if part.succeeded() {
        return Err(Refusal::RetrySucceeded(host()));
    }
    if part.status == ExecutionStatus::Lost && !retry.lost {
        return Err(Refusal::RetryLost(host()));
    }
    Ok(())
}
