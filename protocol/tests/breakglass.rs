//! Runs without approvals: by a rule for that alone, and a review is open from then on until somebody
//! else signs for it.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use countersign_protocol::audit::Reason;
use countersign_protocol::entry::Entry;
use countersign_protocol::event::*;
use countersign_protocol::fold::{Effect, Refusal};
use countersign_protocol::hash::StatementId;
use countersign_protocol::name::{SECOND_US, Time};
use countersign_protocol::permission::Permission;
use countersign_protocol::statement::Statement;
use support::{Book, key};

/// Alice may break the glass, and ask as anybody.
fn ready() -> Book {
    let mut book = Book::ready();
    book.welcome("dave");
    book.publish_text("2 alice bob,carol\n1 alice,dave - break-glass=60");
    book
}

fn kinds(book: &Book, last: usize) -> Vec<&'static str> {
    let decode = |bytes: &Vec<u8>| Entry::decode(bytes).unwrap().statement.kind.as_str();
    book.entries[book.entries.len() - last..]
        .iter()
        .map(decode)
        .collect()
}

#[test]
fn one_word_runs_it_and_a_review_is_open_from_then_on() {
    let mut book = ready();
    let command = book.break_glass("alice", "web-1").unwrap();
    assert_eq!(
        kinds(&book, 3),
        ["command.requested", "command.authorized", "review.opened"]
    );
    assert_eq!(book.status(command), "authorized");
    let (id, review) = book.state.rights().reviews().next().unwrap();
    assert_eq!((*id, review.requester.as_str()), (command, "alice"));
    assert_eq!(
        review.due_at,
        Time::from_micros(book.now + 60 * SECOND_US).unwrap()
    );
    book.start("web-1", command).unwrap();
    book.complete("web-1", command, 0).unwrap();
    assert_eq!(
        book.state.rights().reviews().count(),
        1,
        "a run that ended well is reviewed too"
    );
    book.audit().unwrap();
}

#[test]
fn without_a_rule_for_it_nobody_breaks_the_glass() {
    let mut book = ready();
    assert_eq!(book.break_glass("bob", "web-1"), Err(Refusal::NoRule));
    // And the rule for it permits nothing else.
    assert_eq!(book.request("dave", &["web-1"]), Err(Refusal::NoRule));
    let command = book.request("alice", &["web-1"]).unwrap();
    assert_eq!(book.status(command), "requested");
    let mut book = Book::ready();
    assert_eq!(book.break_glass("alice", "web-1"), Err(Refusal::NoRule));
}

#[test]
fn only_another_person_closes_the_review() {
    let mut book = ready();
    let command = book.break_glass("alice", "web-1").unwrap();
    assert_eq!(book.close_review("alice", command), Err(Refusal::OwnReview));
    // Nor does her second key, nor anybody without the right.
    book.change(book.key_of("alice", "alice-2"));
    let reason = book.blob(b"fine");
    let event = say!(person book, "alice", ReviewClosed { command: command, reason: reason });
    assert_eq!(book.with_key("alice-2", event), Err(Refusal::OwnReview));
    assert_eq!(
        book.close_review("dave", command),
        Err(Refusal::NotPermitted(Permission::ReviewClose))
    );
    book.close_review("bob", command).unwrap();
    assert_eq!(book.state.rights().reviews().count(), 0);
    assert_eq!(
        book.close_review("carol", command),
        Err(Refusal::UnknownReview)
    );
    book.audit().unwrap();
}

#[test]
fn there_is_no_review_of_what_was_approved() {
    let mut book = ready();
    let command = book.request("alice", &["web-1"]).unwrap();
    book.approve("bob", command).unwrap();
    book.approve("carol", command).unwrap();
    assert_eq!(
        book.close_review("bob", command),
        Err(Refusal::UnknownReview)
    );
    assert_eq!(
        book.close_review("bob", StatementId::ZERO),
        Err(Refusal::UnknownReview)
    );
}

#[test]
fn it_expires_and_is_cancelled_as_any_other() {
    let mut book = ready();
    let command = book.break_glass("alice", "web-1").unwrap();
    let event = say!(person book, "bob", CommandCancelRequested { command: command, token: None, reason: None });
    book.sign_and_append("bob", &event).unwrap();
    assert_eq!(book.status(command), "cancelled");
    assert_eq!(
        book.state.rights().reviews().count(),
        1,
        "it is looked at all the same"
    );
}

/// What a ledger that wants to hide a run would enter instead of its review.
#[test]
fn a_ledger_that_opens_no_review_or_another_one_is_found() {
    let honest = {
        let mut book = ready();
        book.break_glass("alice", "web-1").unwrap();
        book
    };
    let authorized = honest.entries.len() - 2;
    let mut opened = honest.audit_of(&honest.entries[..=authorized]).unwrap();
    assert!(opened.owes_a_review());
    opened = honest.audit().unwrap();
    assert!(!opened.owes_a_review());
    let Ok(Event::ReviewOpened(review)) = ({
        let statement = Entry::decode(honest.entries.last().unwrap())
            .unwrap()
            .statement;
        Event::parse(statement.kind, &statement.payload)
    }) else {
        unreachable!("it is the last entry")
    };
    let beat = LedgerHeartbeat {
        signer: review.signer,
        nonce: review.nonce,
        made_at: review.made_at,
        ledger: review.ledger,
        seen: review.seen,
    };
    let later = ReviewOpened {
        due_at: review.due_at.plus_micros(1),
        ..review.clone()
    };
    let anothers = ReviewOpened {
        requester: "bob".parse().unwrap(),
        ..review
    };
    for forged in [Event::from(beat), later.into(), anothers.into()] {
        let mut entries = honest.entries.clone();
        let mut last = Entry::decode(&entries.pop().unwrap()).unwrap();
        last.statement = Statement::sign(&forged, &key("ledger")).unwrap();
        entries.push(last.encode().unwrap());
        let found = honest.audit_of(&entries).unwrap_err();
        assert_eq!(
            (found.seq, found.reason),
            (authorized as u64 + 1, Reason::Review)
        );
    }
    // And one of a run that somebody approved.
    let (mut book, command) = Book::story();
    let review = Effect::OpenReview {
        command,
        requester: "alice".parse().unwrap(),
        due_at: Time::from_micros(book.now).unwrap(),
    };
    let event = book.ledger_header().effect(review);
    book.sign_and_append("ledger", &event).unwrap();
    assert_eq!(book.audit().unwrap_err().reason, Reason::Review);
}

#[test]
fn the_ledgers_key_turns_no_request_into_one_without_approvals() {
    let mut book = ready();
    let command = book.request("alice", &["web-1"]).unwrap();
    let mut requirement = book.state.requirement(book.command(command)).unwrap();
    requirement.demands.clear();
    requirement.break_glass = Some(countersign_protocol::quorum::BreakGlass { review_ms: 1 });
    let effect = Effect::Authorize {
        command,
        request_seq: book.command(command).requested.seq,
        approvals: vec![],
        policy: book.state.rights().policy().unwrap().reference,
        requirement,
        members: vec![],
    };
    let event = book.ledger_header().effect(effect);
    assert_eq!(book.sign_and_append("ledger", &event), Err(Refusal::Quorum));
}
