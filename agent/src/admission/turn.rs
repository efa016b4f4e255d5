//! Is it this host's turn? The end of the host before it, the gap after that, and the person's word
//! after a canary: checked from their own signatures, without the ledger's word.
//!
//! It must not decide how a rollout goes: that is `countersign_protocol::rollout`'s, the same plan
//! that ledger and auditor make. What cannot be shown to one host (that no other has failed, that
//! no other command had a turn under the same label) stands on the log alone.

use countersign_protocol::api::{Ahead, Grant};
use countersign_protocol::audit::CheckedEntry;
use countersign_protocol::checkpoint::Checkpoint;
use countersign_protocol::event::{Author, Event, ExecutionReleased, RefusalReason};
use countersign_protocol::fold::Stream;
use countersign_protocol::name::Time;
use countersign_protocol::rollout::{self, Plan};
use countersign_protocol::target::TargetLine;

use super::evidence::{self, ProvenCommand, ProvenStream, Unproven};
use super::pipeline::Pins;
use crate::rules::LocalRefusal;
use crate::snapshot::People;

/// A turn that was proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Proven {
    /// By this host's clock it does not begin before.
    pub(super) from: Time,
    /// From then on it is over.
    pub(super) until: Time,
}

/// Everything that a turn is judged by.
pub(super) struct Shown<'a> {
    pub(super) grant: &'a Grant,
    pub(super) stream: &'a ProvenStream,
    pub(super) proven: &'a ProvenCommand,
    pub(super) line: &'a TargetLine,
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) pins: &'a Pins,
}

/// Proves that this host has its turn. None where all hosts start at once.
///
/// # Errors
/// It is not proved; nothing is done.
pub(super) fn prove(shown: &Shown<'_>) -> Result<Option<Proven>, Unproven> {
    let command = &shown.proven.command;
    let Some(plan) = &command.plan else {
        return Ok(None);
    };
    let released = released(shown).ok_or(Unproven::NoTurn)?;
    let turn = shown.line.turn_at(shown.grant.line_index);
    if released.turn != turn {
        return Err(Unproven::OtherTurn);
    }
    let from = match plan.waits_for(turn) {
        Some(before) => {
            let ahead = shown.grant.ahead.as_ref();
            let ahead = ahead.ok_or(Unproven::HostBefore("it is not shown"))?;
            let over = over_at(shown, released, (ahead, before))?;
            plan.free_at(over)
        }
        None => command.act().not_before,
    };
    Ok(Some(Proven {
        from,
        until: released.start_before,
    }))
}

/// This host's `execution.released`, as the fold took it.
fn released<'a>(shown: &Shown<'a>) -> Option<&'a ExecutionReleased> {
    let own = &shown.pins.agent;
    let part = shown.proven.command.executions.get(own)?;
    let at = part.released?.at;
    let mut entries = shown.stream.entries().iter();
    entries.find_map(|entry| {
        let Event::ExecutionReleased(released) = entry.verified.event() else {
            return None;
        };
        (entry.seq == at.seq).then_some(released)
    })
}

/// When the host before was over: by its own signed end, or by the ledger's where it said nothing.
fn over_at(
    shown: &Shown<'_>,
    released: &ExecutionReleased,
    (ahead, before): (&Ahead, u64),
) -> Result<Time, Unproven> {
    let entry = evidence::prove_entry(&ahead.entry, shown.checkpoint, &shown.pins.ledger)?;
    let line = line_at(shown, ahead, before)?;
    let wrong = |what| Err(Unproven::HostBefore(what));
    let event = entry.verified.event();
    if Stream::of(event, entry.verified.id()) != Some(Stream::Command(shown.proven.command.id)) {
        return wrong("its end is of another command");
    }
    if event.host() != Some(&line.agent) || !is_end(event) {
        return wrong("what is shown is not its end");
    }
    if !is_signed_by(&entry, &line, shown.pins) {
        return wrong("its end is not signed with the key that people allowed it to have");
    }
    if !released.waited_for.contains(&entry.verified.id()) {
        return wrong("this turn waited for something else");
    }
    Ok(rollout::over_at(event.header().made_at, entry.time))
}

fn line_at(shown: &Shown<'_>, ahead: &Ahead, before: u64) -> Result<TargetLine, Unproven> {
    let wrong = Unproven::HostBefore("its line is not among the targets that people signed");
    let place = (ahead.line_index, ahead.line_proof.as_slice());
    evidence::signed_line(&ahead.line, place, shown.proven.command.act())
        .filter(|line| line.turn_at(ahead.line_index) == before)
        .ok_or(wrong)
}

/// After it the host has nothing of the command any more.
const fn is_end(event: &Event) -> bool {
    matches!(
        event,
        Event::ExecutionCompleted(_)
            | Event::ExecutionRefused(_)
            | Event::ExecutionSkipped(_)
            | Event::ExecutionLost(_)
    )
}

fn is_signed_by(entry: &CheckedEntry, line: &TargetLine, pins: &Pins) -> bool {
    let key = entry.verified.key();
    match entry.verified.event().header().author {
        Author::Ledger => *key == pins.statement_key,
        Author::Agent(_) => key.key_id() == line.key_id,
        Author::Person(_) => false,
    }
}

/// After the canary a person whom this host knows has let it go on; no token and no gateway.
pub(super) fn check_canary(
    shown: &Shown<'_>,
    people: &People<'_>,
    now: Time,
) -> Result<(), LocalRefusal> {
    let turn = shown.line.turn_at(shown.grant.line_index);
    let plan: Option<&Plan> = shown.proven.command.plan.as_ref();
    if plan.is_none_or(|plan| !plan.is_after_canary(turn)) {
        return Ok(());
    }
    let continued = shown.proven.command.continued;
    let mut entries = shown.stream.entries().iter();
    let counts = entries.any(|entry| {
        let event = entry.verified.event();
        let Event::RolloutContinued(word) = event else {
            return false;
        };
        let key = entry.verified.key();
        let by_gateway = shown.pins.gateway_key.as_ref() == Some(key);
        continued.is_some_and(|at| at.seq == entry.seq)
            && !by_gateway
            && people
                .check(key, &word.principal, event.kind(), now)
                .is_ok()
    });
    if counts {
        return Ok(());
    }
    let (why, detail) = (
        RefusalReason::Approvals,
        "the canary was continued by nobody whom this host knows",
    );
    Err(LocalRefusal::new(why, "canary", detail))
}

/// The turn is not over by this host's clock.
pub(super) fn check_time(turn: Option<Proven>, now: Time) -> Result<(), LocalRefusal> {
    if turn.is_none_or(|turn| now < turn.until) {
        return Ok(());
    }
    Err(LocalRefusal::new(
        RefusalReason::Time,
        "start_before",
        "this host's turn is over by its own clock",
    ))
}
