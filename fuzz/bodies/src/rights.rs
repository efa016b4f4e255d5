//! Changes of rights and requirements: one form each, and the counting against plain trying.

use countersign_protocol::blob::MAX_BLOB_BYTES;
use countersign_protocol::canonical;
use countersign_protocol::effect::LedgerHeader;
use countersign_protocol::event::{Event, Seen};
use countersign_protocol::hash::{Hash, LedgerId, StatementId};
use countersign_protocol::name::{Nonce, Principal};
use countersign_protocol::permission::Whom;
use countersign_protocol::quorum::{self, Demand, Requirement, Seats};
use countersign_protocol::rights::ChangeBody;

use crate::bytes::Bytes;
use crate::story::{NOW, public, time};

/// Most people, groups and seats of what is tried out: all ways to sit are looked at.
const SMALL: usize = 5;

/// The document behind a `change.requested`: it has one form, and the event that puts it into effect
/// says the same and nothing more.
pub fn change(data: &[u8]) {
    let Ok(body) = ChangeBody::parse(data) else {
        return;
    };
    assert_eq!(body.to_document().as_deref(), Ok(data));
    let header = LedgerHeader {
        signer: public("ledger").key_id(),
        nonce: Nonce::new([1; 16]),
        made_at: time(NOW),
        ledger: LedgerId::new([2; 32]),
        seen: Seen {
            size: 1,
            root: Hash::ZERO,
        },
    };
    let (id, rests_on) = (StatementId::new([3; 32]), vec![4, 5]);
    let event = body.clone().into_event(header, id, rests_on.clone());
    assert_eq!(event.kind(), body.kind());
    let effected = ChangeBody::effected(&event).unwrap();
    assert_eq!(
        (effected.change, effected.rests_on),
        (id, rests_on.as_slice())
    );
    assert_eq!(effected.body, body);
    // A document may be longer than a payload; then the ledger cannot say it, and does not.
    if let Ok(payload) = event.to_payload() {
        assert_eq!(Event::parse(event.kind(), &payload), Ok(event));
    }
}

/// A requirement as it stands in `command.authorized`, then one made up of the same bytes, counted
/// in two ways.
pub fn requirement(data: &[u8]) {
    if let Ok(read) = canonical::from_document::<Requirement>(data, MAX_BLOB_BYTES) {
        judge(&read);
    }
    let mut bytes = Bytes(data);
    let mut requirement = Requirement::of(1, Vec::new());
    requirement.demands = (0..bytes.below(3))
        .map(|_| Demand((0..bytes.below(4)).map(|_| seats(&mut bytes)).collect()))
        .collect();
    judge(&requirement);
    let people: Vec<Principal> = (0..bytes.below(SMALL + 1)).map(person).collect();
    let members: Vec<u8> = (0..SMALL).map(|_| bytes.byte()).collect();
    let belongs = |who: &Principal, whom: &Whom| {
        let group = (0..SMALL).find(|number| group(*number) == *whom);
        let who = (0..SMALL).find(|number| person(*number) == *who);
        group
            .zip(who)
            .is_some_and(|(group, who)| members[group] >> who & 1 == 1)
    };
    let all = quorum::count_all(&requirement, &people, belongs);
    let (mut need, mut missing) = (0, 0);
    for Demand(seats) in &requirement.demands {
        let each = seats
            .iter()
            .flat_map(|seats| (0..seats.approvals).map(move |_| seats));
        let wanted: Vec<&Seats> = each.collect();
        let filled = most_seated(&wanted, &mut vec![false; people.len()], &people, &belongs);
        need = need.max(wanted.len());
        missing = missing.max(wanted.len() - filled);
    }
    assert_eq!(usize::try_from(all.need), Ok(need));
    assert_eq!(usize::try_from(all.have), Ok(need - missing));
    assert_eq!(all.is_met(), need > 0 && missing == 0);
    // The order of people does not matter, nor who stands twice; and the requester never counts.
    let again = people.iter().rev().chain(&people);
    assert_eq!(quorum::count_all(&requirement, again, belongs), all);
    let requester = person(0);
    let others = people.iter().filter(|who| **who != requester);
    assert_eq!(
        quorum::count(&requirement, &requester, &people, belongs),
        quorum::count_all(&requirement, others, belongs)
    );
}

fn person(number: usize) -> Principal {
    format!("p{number}").parse().unwrap()
}

fn group(number: usize) -> Whom {
    format!("group:g{number}").parse().unwrap()
}

fn seats(bytes: &mut Bytes<'_>) -> Seats {
    let approvals = u32::try_from(bytes.below(3)).unwrap();
    let mask = bytes.byte();
    let from = (0..SMALL)
        .filter(|number| mask >> number & 1 == 1)
        .map(group);
    Seats {
        approvals,
        from: from.collect(),
    }
}

/// What is sound demands somebody, in one form; what demands nothing is met by nobody.
fn judge(requirement: &Requirement) {
    let nobody: [&Principal; 0] = [];
    let met = quorum::count(requirement, &person(0), nobody, |_, _| true).is_met();
    let breaks = requirement.break_glass.is_some() && requirement.demands.is_empty();
    assert_eq!(met, breaks, "met by nobody");
    if requirement.check().is_err() {
        return;
    }
    let document = canonical::to_vec(requirement).unwrap();
    let read = canonical::from_document::<Requirement>(&document, MAX_BLOB_BYTES);
    assert_eq!(read.as_ref(), Ok(requirement));
    // As many people as there are seats fill them, if each may sit anywhere.
    let many: Vec<Principal> = (1..=16).map(person).collect();
    let verdict = quorum::count(requirement, &person(0), &many, |_, _| true);
    assert!(verdict.is_met() && verdict.need >= 1);
}

/// The most seats that can be filled, by trying every person on every seat.
fn most_seated(
    wanted: &[&Seats],
    taken: &mut Vec<bool>,
    people: &[Principal],
    belongs: &impl Fn(&Principal, &Whom) -> bool,
) -> usize {
    let Some((seat, rest)) = wanted.split_first() else {
        return 0;
    };
    let mut most = most_seated(rest, taken, people, belongs);
    for at in 0..people.len() {
        let may = seat.from.iter().any(|whom| belongs(&people[at], whom));
        if may && !taken[at] {
            taken[at] = true;
            most = most.max(1 + most_seated(rest, taken, people, belongs));
            taken[at] = false;
        }
    }
    most
}
