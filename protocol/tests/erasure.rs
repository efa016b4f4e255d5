//! What may be erased, by whom, and what a legal hold keeps: the rules of the fold.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use countersign_protocol::audit::{self, Reason};
use countersign_protocol::effect::LedgerHeader;
use countersign_protocol::erasure::Naming;
use countersign_protocol::event::{Event, MAX_REDACTED, REDACTED_AT_ONCE};
use countersign_protocol::fold::{Refusal, Stream};
use countersign_protocol::hash::{Digest, StatementId};
use countersign_protocol::permission::Permission;
use countersign_protocol::rights::ChangeBody;
use countersign_protocol::statement::Statement;
use support::{Book, key, public};

fn redaction(command: StatementId, mut digests: Vec<Digest>) -> ChangeBody {
    digests.sort_unstable();
    ChangeBody::BlobRedacted {
        command,
        digests,
        legal_basis: "gdpr-17".parse().unwrap(),
    }
}

fn hold(name: &str, commands: &[StatementId]) -> ChangeBody {
    let mut commands = commands.to_vec();
    commands.sort_unstable();
    ChangeBody::HoldPlaced {
        hold: name.parse().unwrap(),
        commands,
        agent: None,
        requester: None,
    }
}

fn lifted(name: &str) -> ChangeBody {
    ChangeBody::HoldLifted {
        hold: name.parse().unwrap(),
    }
}

/// As many digests that nobody has.
fn digests(count: usize) -> Vec<Digest> {
    let digest = |number: usize| {
        let mut bytes = [7; 32];
        bytes[..8].copy_from_slice(&(number as u64).to_be_bytes());
        Digest::new(bytes)
    };
    (0..count).map(digest).collect()
}

fn events(book: &Book) -> Vec<Event> {
    let event = |bytes: &Vec<u8>| audit::check_entry(bytes).unwrap().verified.event().clone();
    book.entries.iter().map(event).collect()
}

fn output_of(book: &Book, command: StatementId) -> Digest {
    let found = events(book).into_iter().find_map(|event| {
        let Event::ExecutionOutput(chunk) = event else {
            return None;
        };
        (chunk.command == command).then_some(chunk.data.digest)
    });
    found.unwrap()
}

fn reason_of(book: &Book, command: StatementId) -> Digest {
    book.command(command).request.reason.digest
}

fn ask_without_reason(book: &mut Book, body: &ChangeBody) -> Result<StatementId, Refusal> {
    let body = book.blob(&body.to_document().unwrap());
    let event = say!(person book, "alice", ChangeRequested {
        body: body, document: None, reason: None,
    });
    book.sign_and_append("alice", &event)
}

fn held(name: &str) -> Refusal {
    Refusal::Held(name.parse().unwrap())
}

#[test]
fn two_people_erase_the_output_of_a_command_that_is_over() {
    let (mut book, command) = Book::story();
    let output = output_of(&book, command);
    let change = book
        .ask_change("alice", redaction(command, vec![output]))
        .unwrap();
    assert_eq!(book.state.rights().redacted(&output), None);
    book.consent("bob", change).unwrap();
    let seq = book.entries.len() as u64 - 1;
    assert_eq!(book.state.rights().redacted(&output), Some(seq));
    book.blobs.remove(&output);
    book.audit().unwrap();
    // Once is all there is to erase.
    let again = book.ask_change("alice", redaction(command, vec![output]));
    assert_eq!(again, Err(Refusal::Redacted));
}

#[test]
fn nobody_erases_alone_or_without_saying_why() {
    let (mut book, command) = Book::story();
    let output = output_of(&book, command);
    let body = redaction(command, vec![output]);
    assert_eq!(
        ask_without_reason(&mut book, &body),
        Err(Refusal::ReasonMissing)
    );
    assert_eq!(
        ask_without_reason(&mut book, &hold("case-1", &[command])),
        Err(Refusal::ReasonMissing)
    );
    let change = book.ask_change("alice", body).unwrap();
    assert_eq!(
        book.consent("alice", change),
        Err(Refusal::DuplicateApproval)
    );
    assert_eq!(book.state.rights().redacted(&output), None);
}

#[test]
fn with_a_threshold_of_one_it_still_takes_two_to_erase_or_to_lift_a_hold() {
    let mut book = Book::found(|genesis| genesis.threshold = 1);
    book.ask_policy("alice", "1 alice,bob alice,bob").unwrap();
    book.enrol_with("web-1", "web-1").unwrap();
    let accepted = ChangeBody::AgentAccepted {
        agent: "web-1".parse().unwrap(),
        key: public("web-1"),
        replaces: None,
        labels: Vec::new(),
    };
    book.ask_change("alice", accepted).unwrap();
    let command = book.request("alice", &["web-1"]).unwrap();
    book.say_no("bob", command, false).unwrap();
    let reason = reason_of(&book, command);
    let change = book
        .ask_change("alice", redaction(command, vec![reason]))
        .unwrap();
    assert!(book.state.rights().change(&change).is_some());
    // A hold is quickly placed, by one; and lifted by two.
    book.ask_change("alice", hold("case-1", &[command]))
        .unwrap();
    assert_eq!(book.consent("bob", change), Err(held("case-1")));
    let lift = book.ask_change("alice", lifted("case-1")).unwrap();
    assert!(book.state.rights().change(&lift).is_some());
    book.consent("bob", lift).unwrap();
    book.consent("bob", change).unwrap();
    assert!(book.state.rights().redacted(&reason).is_some());
    book.audit().unwrap();
}

#[test]
fn nothing_of_a_command_that_is_not_over_is_erased() {
    let mut book = Book::ready();
    let command = book.request("alice", &["web-1"]).unwrap();
    let reason = reason_of(&book, command);
    let body = redaction(command, vec![reason]);
    assert_eq!(
        book.ask_change("alice", body.clone()),
        Err(Refusal::NotSettled)
    );
    book.say_no("bob", command, false).unwrap();
    book.change(body);
    book.audit().unwrap();
}

#[test]
fn a_hold_forbids_when_it_is_asked_for_and_when_it_would_happen() {
    let (mut book, command) = Book::story();
    let output = output_of(&book, command);
    let body = redaction(command, vec![output]);
    let change = book.ask_change("alice", body.clone()).unwrap();
    book.change(hold("case-1", &[command]));
    assert_eq!(book.ask_change("carol", body), Err(held("case-1")));
    assert_eq!(book.consent("bob", change), Err(held("case-1")));
    assert_eq!(
        book.ask_change("alice", hold("case-1", &[command])),
        Err(Refusal::HoldTaken)
    );
    assert_eq!(
        book.ask_change("alice", lifted("case-2")),
        Err(Refusal::UnknownHold)
    );
    book.change(lifted("case-1"));
    book.consent("bob", change).unwrap();
    assert!(book.state.rights().redacted(&output).is_some());
    book.audit().unwrap();
}

#[test]
fn a_hold_covers_all_of_a_host_and_all_of_a_requester() {
    let (mut book, command) = Book::story();
    let body = redaction(command, vec![output_of(&book, command)]);
    let about = |agent: Option<&str>, requester: Option<&str>| ChangeBody::HoldPlaced {
        hold: "case-1".parse().unwrap(),
        commands: Vec::new(),
        agent: agent.map(|name| name.parse().unwrap()),
        requester: requester.map(|name| name.parse().unwrap()),
    };
    for (covers, place) in [
        (true, about(Some("web-1"), None)),
        (true, about(None, Some("alice"))),
        (true, about(Some("web-2"), Some("alice"))),
        (false, about(Some("web-2"), None)),
        (false, about(None, Some("bob"))),
    ] {
        book.change(place.clone());
        let asked = book.ask_change("alice", body.clone());
        assert_eq!(asked.is_err(), covers, "{place:?}: {asked:?}");
        if let Ok(change) = asked {
            let no = say!(person book, "alice", ChangeRejected { change: change, reason: None });
            book.sign_and_append("alice", &no).unwrap();
        }
        book.change(lifted("case-1"));
    }
    assert!(
        about(None, None)
            .to_document()
            .is_ok_and(|document| { ChangeBody::parse(&document).is_err() })
    );
    book.audit().unwrap();
}

#[test]
fn what_others_name_too_is_kept_by_their_holds_and_by_their_being_open() {
    let (mut book, command) = Book::story();
    let output = output_of(&book, command);
    let body = redaction(command, vec![output]);
    let other = book.request("alice", &["web-1"]).unwrap();
    let by = |streams: &[Option<Stream>]| -> Naming {
        [(output, streams.iter().copied().collect())].into()
    };
    let own = Some(Stream::Command(command));
    let others = Some(Stream::Command(other));
    let refused = |book: &mut Book, naming: Naming| {
        book.state.name_texts(naming);
        let asked = book.ask_change("alice", body.clone());
        book.state.name_texts(Naming::new());
        asked.unwrap_err()
    };
    assert_eq!(refused(&mut book, by(&[own, others])), Refusal::NotSettled);
    book.say_no("bob", other, false).unwrap();
    book.change(hold("case-1", &[other]));
    assert_eq!(refused(&mut book, by(&[own, others])), held("case-1"));
    book.change(lifted("case-1"));
    for naming in [
        by(&[others]),
        by(&[]),
        by(&[own, Some(Stream::Rights)]),
        by(&[own, None]),
    ] {
        let refusal = refused(&mut book, naming);
        assert!(matches!(refusal, Refusal::NotErasable(_)), "{refusal}");
    }
    book.state.name_texts(by(&[own, others]));
    book.change(body);
    assert!(book.state.rights().redacted(&output).is_some());
}

#[test]
fn a_list_of_targets_is_never_erased() {
    let (mut book, command) = Book::story();
    let list = book.command(command).act().targets.list.digest;
    let refused = book.ask_change("alice", redaction(command, vec![list]));
    assert!(matches!(refused, Err(Refusal::NotErasable(_))));
}

#[test]
fn many_texts_are_erased_by_events_one_behind_the_other() {
    let (mut book, command) = Book::story();
    let many = digests(2 * REDACTED_AT_ONCE + 1);
    let before = book.entries.len();
    book.change(redaction(command, many.clone()));
    let events = events(&book);
    let parts: Vec<usize> = events[before..]
        .iter()
        .filter_map(|event| match ChangeBody::effected(event) {
            Some(effected) => effected.body.erased().map(|erased| erased.digests.len()),
            None => None,
        })
        .collect();
    assert_eq!(parts, [REDACTED_AT_ONCE, REDACTED_AT_ONCE, 1]);
    assert!(
        many.iter()
            .all(|digest| book.state.rights().redacted(digest).is_some())
    );
    assert_eq!(book.state.rights().changes().count(), 0);
    book.audit().unwrap();
    // Cut in the middle it is found as soon as the log goes on, and said when it does not.
    let cut = book
        .audit_of(&book.entries[..book.entries.len() - 1])
        .unwrap();
    assert!(cut.owes_a_redaction());
}

#[test]
fn a_redaction_that_stops_half_way_is_found() {
    let (mut book, command) = Book::story();
    let body = redaction(command, digests(REDACTED_AT_ONCE + 1));
    let change = book.ask_change("alice", body).unwrap();
    let body = book.state.rights().change(&change).unwrap().digest;
    let yes = say!(person book, "bob", ChangeApproved { change: change, body: body, reason: None });
    let (at, event) = book
        .append_one(Statement::sign(&yes, &key("bob")).unwrap())
        .unwrap();
    let first = book.state.effect_of(&event, at).unwrap();
    let header: LedgerHeader = book.ledger_header();
    let first = Statement::sign(&header.effect(first), &key("ledger")).unwrap();
    book.append_one(first).unwrap();
    book.audit().unwrap();
    book.request("alice", &["web-1"]).unwrap();
    let finding = book.audit().unwrap_err();
    assert_eq!(finding.reason, Reason::Redaction);
    assert_eq!(finding.reason.name(), "redaction_owed");
}

#[test]
fn the_largest_redaction_is_sayable_and_one_more_is_no_change() {
    let (mut book, command) = Book::story();
    book.change(redaction(command, digests(MAX_REDACTED)));
    book.audit().unwrap();
    for wrong in [
        redaction(command, digests(MAX_REDACTED + 1)),
        redaction(command, Vec::new()),
        redaction(command, vec![Digest::new([1; 32]), Digest::new([1; 32])]),
    ] {
        let document = wrong.to_document().unwrap();
        ChangeBody::parse(&document).unwrap_err();
    }
}

#[test]
fn what_was_redacted_is_never_named_again() {
    let (mut book, command) = Book::story();
    let event = book.request_event("alice", &["web-1"]);
    let Event::CommandRequested(request) = &event else {
        unreachable!("a request");
    };
    let mut naming = request.clone();
    naming.reason = book.command(command).request.reason;
    let reason = naming.reason.digest;
    book.change(redaction(command, vec![reason]));
    let refused = book.sign_and_append("alice", &Event::from(naming));
    assert_eq!(refused, Err(Refusal::Redacted));
}

#[test]
fn what_judging_needs_may_be_erased_and_is_then_not_judged_again() {
    let (mut book, command) = Book::story();
    let spec = book.command(command).act().spec.digest;
    assert_eq!(book.audit().unwrap().not_rejudged(), 0);
    book.change(redaction(command, vec![spec]));
    book.blobs.remove(&spec);
    assert_eq!(book.audit().unwrap().not_rejudged(), 1);
}

/// Whether somebody has a seat only the policy says, of these very words.
#[test]
fn a_cancel_by_who_had_a_seat_stands_after_the_words_were_erased() {
    let mut book = Book::ready();
    for name in ["dave", "erin"] {
        book.welcome(name);
    }
    book.publish_text("1 alice dave");
    let command = book.request("alice", &["web-1"]).unwrap();
    let cancel = |book: &mut Book, who: &str| {
        let event = say!(person book, who, CommandCancelRequested {
            command: command, token: None, reason: None,
        });
        book.sign_and_append(who, &event)
    };
    let may_not = Refusal::NotPermitted(Permission::CommandCancel);
    assert_eq!(cancel(&mut book, "erin"), Err(may_not));
    cancel(&mut book, "dave").unwrap();
    let spec = book.command(command).act().spec.digest;
    book.change(redaction(command, vec![spec]));
    book.blobs.remove(&spec);
    assert_eq!(book.audit().unwrap().not_rejudged(), 1);
}
