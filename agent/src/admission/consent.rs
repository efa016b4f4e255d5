//! Is it enough? Which of the proved approvals count on this host, and whether they suffice.
//!
//! It owns the host's view of people: pinned keys, four eyes, ages, dates. The counting itself is
//! `countersign_protocol::quorum`'s, the same rule that the ledger used. The stricter wins.

use countersign_protocol::audit::CheckedEntry;
use countersign_protocol::event::{CommandApproved, Event, RefusalReason};
use countersign_protocol::name::{Principal, SECOND_US, Time};
use countersign_protocol::quorum::{self, Requirement};

use super::evidence::{ProvenCommand, ProvenStream};
use super::pipeline::Host;
use crate::rules::LocalRefusal;
use crate::signers::NotPinned;

/// How far ahead of this host's clock an approval may have been made.
pub const MAX_AHEAD_US: u64 = 120 * SECOND_US;

/// Why an approval does not count here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Discounted {
    #[error("{0}")]
    NotPinned(#[from] NotPinned),
    #[error("it was given under another policy than the command was authorized under")]
    OtherPolicy,
    #[error("it is older than this host takes")]
    TooOld,
    #[error("it is from the future of this host's clock")]
    Ahead,
    #[error("it is older than this host's journal of used grants")]
    BeforeJournal,
}

impl Discounted {
    const fn is_of_time(self) -> bool {
        matches!(self, Self::TooOld | Self::Ahead | Self::BeforeJournal)
    }
}

/// Counts the approvals that the authorization rests on, as this host sees them. The answer is the
/// time until which they count: the expiry, or when the first of them is too old. `least` is the
/// host's own number, and the setting or rule that demands it.
pub(super) fn check(
    host: &Host,
    stream: &ProvenStream,
    proven: &ProvenCommand,
    now: Time,
    (least, demanded_by): (u32, &str),
) -> Result<Time, LocalRefusal> {
    let mut until = proven.command.act().expires_at;
    let mut counted: Vec<&Principal> = Vec::new();
    let mut discounted = Vec::new();
    for (entry, approval) in approvals(stream, proven) {
        match weigh(host, entry, approval, proven, now) {
            Ok(young_until) => {
                until = until.min(young_until);
                counted.push(&approval.principal);
            }
            Err(why) => discounted.push((&approval.principal, why)),
        }
    }
    let asked = &proven.authorized.requirement;
    let requirement = Requirement {
        approvals: asked.approvals.max(least),
        approvers: asked.approvers.clone(),
    };
    // A requirement of 0 is no requirement: it is never met, whatever the host's own minimum.
    let sound = asked.approvals > 0;
    let verdict = quorum::count(&requirement, proven.command.requester(), counted);
    if sound && verdict.is_met() {
        return Ok(until);
    }
    let of_time = discounted.iter().any(|(_, why)| why.is_of_time());
    let (why, rule) = if of_time {
        (RefusalReason::Time, "max_approval_age_s")
    } else {
        (RefusalReason::Approvals, demanded_by)
    };
    let mut detail = format!(
        "{} of {} approvals count on this host",
        verdict.have, verdict.need
    );
    for (who, why) in discounted {
        detail.push_str(&format!("; {who}: {why}"));
    }
    Err(LocalRefusal::new(why, rule, detail))
}

/// The approvals that `command.authorized` names, each once; others are not counted.
fn approvals<'a>(
    stream: &'a ProvenStream,
    proven: &'a ProvenCommand,
) -> impl Iterator<Item = (&'a CheckedEntry, &'a CommandApproved)> {
    stream.entries().iter().filter_map(|entry| {
        let Event::CommandApproved(approval) = entry.verified.event() else {
            return None;
        };
        let named = proven.authorized.approvals.contains(&entry.seq);
        named.then_some((entry, approval))
    })
}

/// The binding to the request (act, requester, command) was checked by the fold. Four eyes stand in
/// the fold and in the quorum; that nobody asks under a second name, in `evidence`.
fn weigh(
    host: &Host,
    entry: &CheckedEntry,
    approval: &CommandApproved,
    proven: &ProvenCommand,
    now: Time,
) -> Result<Time, Discounted> {
    let key = entry.verified.key();
    let kind = entry.verified.event().kind();
    host.signers.check(key, &approval.principal, kind, now)?;
    if approval.policy != proven.authorized.policy {
        return Err(Discounted::OtherPolicy);
    }
    // The person's own word and the ledger's: a back-dated or a post-dated one does not help.
    for time in [approval.made_at, entry.time] {
        if time < host.journal_since {
            return Err(Discounted::BeforeJournal);
        }
        if now.micros_since(time) > host.rules.max_approval_age_us {
            return Err(Discounted::TooOld);
        }
        if time.micros_since(now) > MAX_AHEAD_US {
            return Err(Discounted::Ahead);
        }
    }
    let oldest = approval.made_at.min(entry.time);
    Ok(oldest.plus_micros(host.rules.max_approval_age_us))
}
