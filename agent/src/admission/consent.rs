//! Is it enough? Which of the proved approvals count on this host, and whether they suffice.
//!
//! It owns the host's view of people: pinned keys, four eyes, ages, dates, and who may break the
//! glass. The counting itself is `countersign_protocol::quorum`'s, the same rule that the ledger
//! used, over what its policy was compiled to; the host's own number is counted beside it. The
//! stricter wins. Who is in which group is the ledger's word, and gives nobody a seat here who is
//! not pinned.

use std::collections::BTreeSet;

use countersign_protocol::audit::CheckedEntry;
use countersign_protocol::event::{CommandApproved, CommandAuthorized, Event, RefusalReason};
use countersign_protocol::key::PublicKey;
use countersign_protocol::name::{Principal, SECOND_US, Time};
use countersign_protocol::permission::Whom;
use countersign_protocol::quorum;

use super::evidence::{ProvenCommand, ProvenStream};
use super::pipeline::Host;
use crate::rules::LocalRefusal;
use crate::signers::NotPinned;
use crate::snapshot::{People, SETTING as SNAPSHOT};

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
    #[error("it says no reason, and the ledger's policy wants one of each")]
    NoReason,
    #[error("the gateway's key speaks for tokens, which approve nothing")]
    Gateway,
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
    (host, people): (&Host, &People<'_>),
    stream: &ProvenStream,
    proven: &ProvenCommand,
    now: Time,
    (least, demanded_by): (u32, &str),
) -> Result<Time, LocalRefusal> {
    let asked = &proven.authorized.requirement;
    if let Err(why) = asked.check() {
        // What demands nothing is never met, whatever the host's own minimum.
        let detail = format!("the authorization demands nothing that can be counted: {why}");
        return Err(LocalRefusal::new(
            RefusalReason::Approvals,
            demanded_by,
            detail,
        ));
    }
    let act = proven.command.act();
    if asked.break_glass.is_some() || act.break_glass {
        return glass_broken((host, people), stream, proven, now);
    }
    let mut until = act.expires_at;
    let mut counted: BTreeSet<&Principal> = BTreeSet::new();
    let mut discounted = Vec::new();
    for (entry, approval) in approvals(stream, proven) {
        match weigh((host, people), entry, approval, proven, now) {
            Ok(young_until) => {
                until = until.min(young_until);
                counted.insert(&approval.principal);
            }
            Err(why) => discounted.push((&approval.principal, why)),
        }
    }
    let requester = proven.command.requester();
    counted.remove(requester);
    let count = u32::try_from(counted.len()).unwrap_or(u32::MAX);
    let belongs = |who: &Principal, whom: &Whom| match people.snapshot() {
        Some(snapshot) => snapshot.belongs(who, whom),
        None => is_member(&proven.authorized, who, whom),
    };
    let verdict = quorum::count(asked, requester, counted, belongs);
    if verdict.is_met() && count >= least {
        return Ok(until);
    }
    let of_time = discounted.iter().any(|(_, why)| why.is_of_time());
    let (why, rule) = if of_time {
        let strictest = max_age_us(host, &proven.authorized).1;
        (RefusalReason::Time, strictest)
    } else {
        (RefusalReason::Approvals, demanded_by)
    };
    let (have, need) = if verdict.is_met() {
        (count, least)
    } else {
        (verdict.have, verdict.need)
    };
    let mut detail = format!("{have} of {need} approvals count on this host");
    for (who, why) in discounted {
        detail.push_str(&format!("; {who}: {why}"));
    }
    Err(LocalRefusal::new(why, rule, detail))
}

/// What a verified snapshot rules out: a request by a revoked key, and an authorization from behind
/// the snapshot by an older policy than the one that administrators saw in force.
pub(super) fn check_keys(
    stream: &ProvenStream,
    proven: &ProvenCommand,
    people: &People<'_>,
) -> Result<(), LocalRefusal> {
    let refused = |detail: &str| {
        let why = RefusalReason::Approvals;
        Err(LocalRefusal::new(why, SNAPSHOT, detail))
    };
    let first = stream.entries().first();
    if first.is_some_and(|request| people.is_revoked(request.verified.key())) {
        return refused("the key that asked was revoked; sign the request with another one");
    }
    let Some(snapshot) = people.snapshot() else {
        return Ok(());
    };
    let mut entries = stream.entries().iter();
    let authorized =
        entries.find(|entry| matches!(entry.verified.event(), Event::CommandAuthorized(_)));
    let seq = authorized.map(|entry| entry.seq);
    let (known, used) = (snapshot.policy, proven.authorized.policy);
    let is_behind = used.seq < known.seq || (used.seq == known.seq && used != known);
    if is_behind && seq.is_none_or(|seq| seq >= snapshot.seen.size) {
        return refused(
            "it was authorized by an older policy than the one in the policy snapshot of this host",
        );
    }
    Ok(())
}

/// The ledger's word on who is one of whom. It was checked by whoever holds the fold, and here it
/// seats only those who are pinned.
fn is_member(authorized: &CommandAuthorized, who: &Principal, whom: &Whom) -> bool {
    let of = authorized.members.iter();
    of.filter(|membership| membership.of == *whom)
        .any(|membership| membership.people.contains(who))
}

/// A run without approvals: only by somebody whom this host lists for that, by their own pinned
/// key, and while their word is young. The answer is the time until which it counts.
fn glass_broken(
    (host, people): (&Host, &People<'_>),
    stream: &ProvenStream,
    proven: &ProvenCommand,
    now: Time,
) -> Result<Time, LocalRefusal> {
    const SETTING: &str = "break_glass";
    let refused = |detail: String| LocalRefusal::new(RefusalReason::Approvals, SETTING, detail);
    let (requester, act) = (proven.command.requester(), proven.command.act());
    if proven.command.request.token.is_some() {
        return Err(refused("an API token never breaks the glass".to_owned()));
    }
    if !host.rules.break_glass.contains(requester) {
        return Err(refused(format!(
            "{requester} is not in break_glass of this host, so nothing runs here without approvals"
        )));
    }
    let (first, _) = stream
        .entries()
        .split_first()
        .ok_or_else(|| refused("the request is missing".to_owned()))?;
    let (key, event) = (first.verified.key(), first.verified.event());
    let weighed = pinned(host, key)
        .and_then(|()| Ok(people.check_pinned(key, requester, event.kind(), now)?))
        .and_then(|()| {
            let said = [event.header().made_at, first.time];
            young(host, said, host.rules.max_approval_age_us, now)
        });
    let young_until =
        weighed.map_err(|why| refused(format!("the request by {requester}: {why}")))?;
    Ok(young_until.min(act.expires_at))
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
    (host, people): (&Host, &People<'_>),
    entry: &CheckedEntry,
    approval: &CommandApproved,
    proven: &ProvenCommand,
    now: Time,
) -> Result<Time, Discounted> {
    let key = entry.verified.key();
    let kind = entry.verified.event().kind();
    pinned(host, key)?;
    people.check(key, &approval.principal, kind, now)?;
    if approval.policy != proven.authorized.policy {
        return Err(Discounted::OtherPolicy);
    }
    if proven.authorized.requirement.reason && approval.reason.is_none() {
        return Err(Discounted::NoReason);
    }
    let (max_age_us, _) = max_age_us(host, &proven.authorized);
    young(host, [approval.made_at, entry.time], max_age_us, now)
}

/// The gateway's key is nobody's, whoever wrote it into `allowed_signers`.
fn pinned(host: &Host, key: &PublicKey) -> Result<(), Discounted> {
    if host.pins.gateway_key.as_ref() == Some(key) {
        Err(Discounted::Gateway)
    } else {
        Ok(())
    }
}

/// How old an approval may be, in microseconds, by the stricter of host and policy; and whose word
/// that is.
fn max_age_us(host: &Host, authorized: &CommandAuthorized) -> (u64, &'static str) {
    let own = host.rules.max_approval_age_us;
    let theirs = authorized.requirement.approval_age_ms;
    let theirs = theirs.map_or(u64::MAX, |ms| ms.saturating_mul(1000));
    if theirs < own {
        (theirs, "approval_age_ms")
    } else {
        (own, "max_approval_age_s")
    }
}

/// Until when a word counts that was said at both of these times: the person's own and the ledger's.
/// A back-dated or a post-dated one does not help.
fn young(host: &Host, said: [Time; 2], max_age_us: u64, now: Time) -> Result<Time, Discounted> {
    for time in said {
        if time < host.journal_since {
            return Err(Discounted::BeforeJournal);
        }
        if now.micros_since(time) > max_age_us {
            return Err(Discounted::TooOld);
        }
        if time.micros_since(now) > MAX_AHEAD_US {
            return Err(Discounted::Ahead);
        }
    }
    let [own, entered] = said;
    Ok(own.min(entered).plus_micros(max_age_us))
}
