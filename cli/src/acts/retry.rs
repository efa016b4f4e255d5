//! Running again what was recorded, where it did not go well: a new request, of the very texts that
//! the earlier one named.

use std::sync::Arc;
use std::time::Duration;

use countersign_protocol::blob::{Blob, BlobRef};
use countersign_protocol::command::{Act, CommandError};
use countersign_protocol::facts::Facts;
use countersign_protocol::hash::CommandId;
use countersign_protocol::judgement::Question;
use countersign_protocol::lifecycle::{Command, ExecutionStatus};
use countersign_protocol::name::{AgentName, Principal};
use countersign_protocol::refusal::Refusal;
use countersign_protocol::retry::{self, Retry};
use countersign_protocol::rights::{AgentRecord, Rights};
use countersign_protocol::target::{TargetLine, TargetList};

use super::connect::Client;
use super::explain::rules_of;
use super::read::RightsView;
use super::request::{self, RequestError, Requested};
use super::submit::person_event;
use super::turns::{Order, take_turns};
use crate::clock;
use crate::failure::Failure;
use crate::replay::Replay;
use crate::streams::Held;
use crate::view::{CommandView, ViewError};

/// What a retry would be for, before anything is signed.
#[derive(Debug, Clone)]
pub struct RetryPlan {
    /// The earlier command.
    pub earlier: CommandView,
    /// Where it runs again.
    pub targets: TargetList,
    /// Where it went well.
    pub well: Vec<AgentName>,
    /// Where nobody can say how it ended, and which are left out for that.
    pub lost: Vec<AgentName>,
    /// Which take no work now: retired, or drained.
    pub gone: Vec<AgentName>,
    /// As [`Client::count_above`].
    pub count_above: Option<u32>,
    retry: Retry,
}

/// The earlier command of a retry, for whoever judges it.
#[derive(Debug, Clone)]
pub struct Retried {
    /// Its id.
    pub of: CommandId,
    /// The retry is also for hosts of which nobody can say whether they ran it.
    pub lost: bool,
    /// How it came out; none where it is not for the caller to read.
    pub earlier: Option<Box<Command>>,
}

/// Sorts the hosts of a command by whether it runs there again.
fn plan(
    earlier: CommandView,
    rights: &Rights,
    (only, lost): (&[AgentName], bool),
) -> Result<RetryPlan, Failure> {
    let status = earlier.command.status();
    if !status.is_final() {
        return Err(Failure::from(Refusal::RetryTooEarly));
    }
    if earlier.command.act().secrets.is_some() {
        return Err(Failure::from(Refusal::RetrySecrets).hint(
            "ask for it anew with --secret: what is handed over is sealed to one request and cannot be opened here",
        ));
    }
    let targets = earlier.command.targets.clone();
    let targets = targets.ok_or_else(not_whole)?;
    let of = earlier.id();
    if let Some(other) = only.iter().find(|name| targets.line_of(name).is_none()) {
        return Err(Failure::from(Refusal::RetryElsewhere(other.clone())));
    }
    let mut lines = Vec::new();
    let (mut well, mut left_lost, mut gone) = (Vec::new(), Vec::new(), Vec::new());
    let wanted = |line: &&TargetLine| only.is_empty() || only.contains(&line.agent);
    for line in targets.by_turn().map(|(_, line)| line).filter(wanted) {
        let part = earlier.command.executions.get(&line.agent);
        let is_lost = part.is_some_and(|part| part.status == ExecutionStatus::Lost);
        let takes_work = rights
            .agent_record(&line.agent)
            .filter(|record| !record.drained);
        let agent = line.agent.clone();
        match takes_work {
            _ if part.is_some_and(countersign_protocol::lifecycle::Execution::succeeded) => {
                well.push(agent);
            }
            _ if is_lost && !lost => left_lost.push(agent),
            None => gone.push(agent),
            Some(record) if !still(line.facts.as_ref(), record) => {
                return Err(other_facts(&agent));
            }
            Some(record) => lines.push(TargetLine {
                key_id: record.key,
                ..line.clone()
            }),
        }
    }
    if lines.is_empty() {
        return Err(nothing_to_retry(&left_lost, &gone));
    }
    // In the order in which they had their turns; fewer hosts have fewer of them.
    if lines.iter().any(|line| line.turn.is_some()) {
        take_turns(&mut lines, Order::Given);
    }
    Ok(RetryPlan {
        earlier,
        targets: TargetList::new(lines).map_err(RequestError::from)?,
        well,
        lost: left_lost,
        gone,
        count_above: None,
        retry: Retry { of, lost },
    })
}

/// What the line was made with is what the host says of itself today.
fn still(recorded: Option<&Facts>, record: &AgentRecord) -> bool {
    let signed = record.facts.as_ref();
    let signed = signed.and_then(|signed| signed.facts.as_ref());
    recorded
        .is_none_or(|recorded| signed.is_some_and(|signed| recorded.first_other(signed).is_none()))
}

fn other_facts(agent: &AgentName) -> Failure {
    let message = format!(
        "the facts of {agent} that the command was made with are not what it says of itself today, and a \
         retry runs exactly what was recorded"
    );
    Failure::refused("facts_differ", message)
        .hint("ask for it anew with `countersign run`, or leave that host out with --on")
}

fn not_whole() -> Failure {
    Failure::refused(
        "not_whole",
        "a part of what ran cannot be read here any more, so it cannot be asked for again",
    )
    .hint("ask for it anew with `countersign run`")
}

fn nothing_to_retry(lost: &[AgentName], gone: &[AgentName]) -> Failure {
    let message = match (lost, gone) {
        ([], []) => "it went well on all of these hosts: there is nothing to run again",
        (_, []) => {
            "there is no host left to run it again on, but those of which nobody can say whether they ran it"
        }
        _ => "no host on which it did not go well takes work now",
    };
    let failure = Failure::refused("nothing_to_retry", message);
    if lost.is_empty() {
        failure.hint("countersign show ID says how it came out on each; nothing was signed")
    } else {
        failure.hint("look at those hosts; to run it there although it may have run: --also-lost")
    }
}

/// What was asked for, without how it was allowed: that says nothing of now.
fn again(before: &Act) -> Act {
    Act {
        break_glass: false,
        ..before.clone()
    }
}

/// Above how many hosts the rules that permit it now want their number typed.
fn count_above(plan: &RetryPlan, rights: &Rights, me: &Principal) -> Option<u32> {
    let (spec, in_force) = (plan.earlier.spec.here()?, rights.policy()?);
    let question = Question {
        rights,
        requester: me,
        token: None,
        act: &again(plan.earlier.command.act()),
        spec,
        targets: &plan.targets,
        now: clock::now(),
    };
    rules_of(&in_force.policy, &question).count_above
}

impl Client {
    /// Finds where a command did not go well, of all its hosts or of `only` those. With `lost` also
    /// where nobody can say how it ended.
    ///
    /// # Errors
    /// It is not over, hands over secrets, cannot be read, or there is nothing to run again.
    pub async fn plan_retry(
        &self,
        id: &CommandId,
        only: &[AgentName],
        lost: bool,
    ) -> Result<RetryPlan, Failure> {
        let (earlier, rights) = self.fetch_command_and_rights(id).await?;
        let me = rights.person(&self.key_id)?;
        let rights = rights.state.rights();
        let mut plan = plan(earlier, rights, (only, lost))?;
        plan.count_above = count_above(&plan, rights, &me);
        Ok(plan)
    }

    /// Asks for it again. It needs what any request needs.
    ///
    /// # Errors
    /// A text of it is not to be had any more, refused, or no valid receipt.
    pub async fn retry(
        &self,
        plan: &RetryPlan,
        reason: &str,
        expires_in: Duration,
    ) -> Result<Requested, Failure> {
        let (_rights, me) = self.rights_and_me().await?;
        let (before, seq) = (
            plan.earlier.command.act(),
            plan.earlier.command.requested.seq,
        );
        let named: Vec<BlobRef> = [before.spec]
            .into_iter()
            .chain(before.env)
            .chain(before.stdin)
            .collect();
        let mut blobs: Vec<Blob> = Vec::with_capacity(named.len() + 2);
        for named in &named {
            match self.blob(seq, named).await? {
                Held::Here(blob) => blobs.push(blob),
                Held::Redacted | Held::Withheld => return Err(not_whole()),
            }
        }
        let list = &plan.targets;
        let bytes = list.to_document().map_err(CommandError::from);
        let bytes = bytes.map_err(RequestError::from)?;
        let targets = request::blob("the list of hosts is too large", bytes)?;
        let reason = request::blob("the reason is too long", reason.as_bytes().to_vec())?;
        let now = clock::now();
        let expires_us = u64::try_from(expires_in.as_micros()).unwrap_or(u64::MAX);
        let act = Act {
            targets: list
                .describe(targets.reference())
                .map_err(RequestError::from)?,
            not_before: request::not_before(now, expires_us),
            expires_at: now.plus_micros(expires_us),
            ..again(before)
        };
        act.check().map_err(RequestError::from)?;
        let head = self.head(&me)?;
        let event = person_event!(
            head,
            CommandRequested {
                client_ref: None,
                token: None,
                retry: Some(plan.retry),
                act,
                reason: reason.reference()
            }
        );
        blobs.extend([targets, reason]);
        let accepted = self.submit(&event, &blobs).await?;
        let id = accepted.id;
        Ok(Requested { id, accepted })
    }

    /// What the earlier command of a retry came to, proven, and that this is a retry of it.
    ///
    /// # Errors
    /// Evidence of tampering: the ledger let something pass that is none.
    pub(super) async fn retried(
        &self,
        view: &CommandView,
        rights: &RightsView,
    ) -> Result<Option<Retried>, Failure> {
        let Some(retry) = view.command.request.retry else {
            return Ok(None);
        };
        let mut retried = Retried {
            of: retry.of,
            lost: retry.lost,
            earlier: None,
        };
        let streams = match self.bare_commands(&[retry.of]).await {
            // Its hosts and words are not for everybody who may judge this one.
            Err(failure)
                if matches!(
                    failure.code.as_ref(),
                    "not_permitted" | "unknown_command" | "not_found"
                ) =>
            {
                return Ok(Some(retried));
            }
            streams => streams?,
        };
        let Some(stream) = streams.into_iter().next() else {
            return Ok(Some(retried));
        };
        let mut replay = Replay::new(Arc::clone(&rights.stream));
        for link in &stream.entries {
            replay.take(link, &stream.blobs)?;
        }
        let state = replay.finish()?;
        let earlier = state.command(&retry.of).ok_or(ViewError::NoRequest)?;
        retry::check(earlier, &view.command, &retry).map_err(|refusal| {
            Failure::tampering(
                "no_retry",
                format!("the ledger let a retry pass that is none: {refusal}"),
            )
            .hint("nothing was signed; audit the ledger (verify)")
        })?;
        retried.earlier = Some(Box::new(earlier.clone()));
        Ok(Some(retried))
    }
}
