//! Who may sign what hosts believe, for how long, and what the log remembers of it. ATTACKS row 15.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use countersign_protocol::event::{Event, EventError, PolicySnapshot, Seen};
use countersign_protocol::fold::{Class, Refusal};
use countersign_protocol::name::{Principal, SECOND_US, Time};
use countersign_protocol::permission::{Permission, Whom};
use countersign_protocol::rights::ChangeBody;
use countersign_protocol::snapshot::{MAX_VALID_US, Snapshot, held_until};

mod support;

use support::{Book, public};

const HOUR_US: u64 = 3600 * SECOND_US;

fn at(us: u64) -> Time {
    Time::from_micros(us).unwrap()
}

fn who(name: &str) -> Principal {
    name.parse().unwrap()
}

fn whom(text: &str) -> Whom {
    text.parse().unwrap()
}

/// A ledger with dave, who is nobody in particular.
fn ledger() -> Book {
    let mut book = Book::genesis();
    book.change(book.key_of("dave", "dave"));
    book
}

fn snapshot(book: &Book, electors: &[Whom]) -> Snapshot {
    let size = book.tree.size();
    let root = book.tree.root_at(size).unwrap();
    Snapshot::of(book.state.rights(), Seen { size, root }, electors, 2).unwrap()
}

/// This person's word on a new document.
fn word(book: &mut Book, name: &str, valid_us: u64) -> PolicySnapshot {
    let document = snapshot(book, &[]).to_document().unwrap();
    let document = book.blob(&document);
    let expires_at = at(book.now + valid_us);
    let event = support_word(book, name, document, expires_at);
    let Event::PolicySnapshot(word) = event else {
        panic!("no snapshot");
    };
    word
}

fn support_word(
    book: &mut Book,
    name: &str,
    document: countersign_protocol::blob::BlobRef,
    expires_at: Time,
) -> Event {
    say!(person book, name, PolicySnapshot { document: document, expires_at: expires_at })
}

/// Somebody else's word on the same document.
fn also(book: &mut Book, name: &str, word: &PolicySnapshot) -> Result<(), Refusal> {
    let event = support_word(book, name, word.document, word.expires_at);
    book.sign_and_append(name, &event).map(drop)
}

fn sign(book: &mut Book, name: &str) -> Result<PolicySnapshot, Refusal> {
    let word = word(book, name, HOUR_US);
    book.sign_and_append(name, &Event::from(word.clone()))?;
    Ok(word)
}

#[test]
fn only_an_administrator_signs_a_snapshot() {
    let mut book = ledger();
    let refused = sign(&mut book, "dave").unwrap_err();
    assert_eq!(refused, Refusal::NotPermitted(Permission::RightsManage));
    assert_eq!(refused.class(), Class::Forbidden);
    sign(&mut book, "bob").unwrap();
    // A word of an agent or of the ledger is none of a person.
    book.enrol("web-1");
    assert!(sign(&mut book, "web-1").is_err());
    assert!(sign(&mut book, "ledger").is_err());
    book.change(ChangeBody::RoleGranted {
        role: "admin".parse().unwrap(),
        to: whom("user:dave"),
    });
    sign(&mut book, "dave").unwrap();
}

#[test]
fn a_snapshot_holds_for_a_day_at_most() {
    let mut book = ledger();
    for (valid_us, holds) in [(1, true), (MAX_VALID_US, true), (MAX_VALID_US + 1, false)] {
        let event = Event::from(word(&mut book, "alice", valid_us));
        assert_eq!(event.to_payload().is_ok(), holds, "{valid_us}");
    }
    let mut none = word(&mut book, "alice", 1);
    none.expires_at = none.made_at;
    let refused = Event::from(none).to_payload().unwrap_err();
    assert!(matches!(refused, EventError::Value(_)), "{refused}");
    // Made long ago and entered after its end.
    let late = word(&mut book, "alice", HOUR_US);
    book.now += HOUR_US;
    let refused = book.sign_and_append("alice", &Event::from(late));
    assert_eq!(refused.unwrap_err(), Refusal::Late);
}

#[test]
fn a_person_signs_a_document_once_and_all_until_the_same_time() {
    let mut book = ledger();
    let first = sign(&mut book, "alice").unwrap();
    book.now += SECOND_US;
    assert_eq!(
        also(&mut book, "alice", &first),
        Err(Refusal::DuplicateApproval)
    );
    let mut longer = first.clone();
    longer.expires_at = at(book.now + 2 * HOUR_US);
    let refused = also(&mut book, "bob", &longer);
    assert_eq!(refused, Err(Refusal::Binding("expires_at")));
    also(&mut book, "bob", &first).unwrap();
}

#[test]
fn hosts_get_the_newest_that_enough_have_signed() {
    let mut book = ledger();
    let first = sign(&mut book, "alice").unwrap();
    let given = |book: &Book| {
        let rights = book.state.rights();
        let given = rights.snapshot_for_hosts(at(book.now)).unwrap();
        given.document
    };
    // Nothing better is there.
    assert_eq!(given(&book), first.document);
    also(&mut book, "bob", &first).unwrap();
    book.now += SECOND_US;
    let second = sign(&mut book, "carol").unwrap();
    assert_eq!(given(&book), first.document);
    also(&mut book, "alice", &second).unwrap();
    assert_eq!(given(&book), second.document);
    assert_eq!(book.state.rights().snapshots().len(), 1);
    // Whoever is no administrator any more has said nothing.
    let role = || "admin".parse().unwrap();
    book.change(ChangeBody::RoleGranted {
        role: role(),
        to: whom("user:dave"),
    });
    book.change(ChangeBody::RoleRevoked {
        role: role(),
        from: whom("user:carol"),
    });
    let rights = book.state.rights();
    let words = rights.words_on(&rights.snapshots()[0], at(book.now));
    let names: Vec<_> = words.map(|word| word.principal.clone()).collect();
    assert_eq!(names, [who("alice")]);
    let rights = book.state.rights();
    let over = rights.words_on(&rights.snapshots()[0], at(book.now + HOUR_US));
    assert_eq!(over.count(), 0);
}

#[test]
fn one_administrator_alone_takes_no_snapshot_from_the_hosts() {
    let mut book = ledger();
    let first = sign(&mut book, "alice").unwrap();
    also(&mut book, "bob", &first).unwrap();
    for _ in 0..20 {
        book.now += SECOND_US;
        sign(&mut book, "carol").unwrap();
    }
    let rights = book.state.rights();
    assert_eq!(rights.snapshots().len(), 2);
    let given = rights.snapshot_for_hosts(at(book.now)).unwrap();
    assert_eq!(given.document, first.document);
}

#[test]
fn one_administrator_alone_keeps_no_others_from_a_snapshot() {
    let mut book = ledger();
    let first = sign(&mut book, "alice").unwrap();
    for _ in 0..20 {
        book.now += SECOND_US;
        sign(&mut book, "carol").unwrap();
    }
    // What she pushed out was her own.
    also(&mut book, "bob", &first).unwrap();
    let rights = book.state.rights();
    let given = rights.snapshot_for_hosts(at(book.now)).unwrap();
    assert_eq!(given.document, first.document);
    assert!(rights.words_on(given, at(book.now)).count() >= 2);
    book.audit().unwrap();
}

#[test]
fn what_waits_with_no_word_that_counts_takes_no_place() {
    let mut book = ledger();
    sign(&mut book, "alice").unwrap();
    sign(&mut book, "bob").unwrap();
    book.now += HOUR_US;
    sign(&mut book, "carol").unwrap();
    assert_eq!(book.state.rights().snapshots().len(), 1);
}

#[test]
fn a_snapshot_lists_who_approves_with_keys_groups_and_revoked_keys() {
    let mut book = ledger();
    let names = |snapshot: &Snapshot| -> Vec<String> {
        let approvers = snapshot.approvers.iter();
        approvers
            .map(|approver| approver.principal.to_string())
            .collect()
    };
    // Dave holds nothing, and no rule names him.
    assert_eq!(names(&snapshot(&book, &[])), ["alice", "bob", "carol"]);
    assert_eq!(
        names(&snapshot(&book, &[whom("user:dave")])),
        ["alice", "bob", "carol", "dave"]
    );
    book.change(ChangeBody::GroupChanged {
        group: "sre".parse().unwrap(),
        add: vec![who("bob"), who("dave")],
        remove: vec![],
    });
    let group = [whom("group:sre")];
    let made = snapshot(&book, &group);
    assert!(made.belongs(&who("dave"), &group[0]));
    assert!(!made.belongs(&who("alice"), &group[0]));
    assert!(made.belongs(&who("alice"), &whom("role:admin")));
    assert!(made.belongs(&who("alice"), &whom("permission:command:approve")));
    assert!(!made.belongs(&who("dave"), &whom("permission:command:approve")));
    let dave = public("dave").key_id();
    assert!(made.speaks_for(&dave, &who("dave"), at(book.now)));
    book.change(ChangeBody::KeyRevoked {
        key_id: dave,
        suspect_from: None,
    });
    let after = snapshot(&book, &group);
    assert_eq!(after.revoked, [dave]);
    assert!(!after.knows(&who("dave")));
    assert!(!after.belongs(&who("dave"), &group[0]));
    // The same rights give the same bytes.
    let again = snapshot(&book, &group).to_document().unwrap();
    assert_eq!(again, after.to_document().unwrap());
}

#[test]
fn it_holds_until_the_words_of_enough_people_are_over() {
    let mut book = ledger();
    let mut words = Vec::new();
    for (name, hours) in [("alice", 3), ("alice", 5), ("bob", 2), ("carol", 1)] {
        words.push(word(&mut book, name, hours * HOUR_US));
    }
    let after = |hours: u64| Some(at(book.now + hours * HOUR_US));
    assert_eq!(held_until(&words, 1), after(5));
    assert_eq!(held_until(&words, 2), after(2));
    assert_eq!(held_until(&words, 3), after(1));
    assert_eq!(held_until(&words, 4), None);
    assert_eq!(held_until(&words, 0), None);
}

#[test]
fn what_was_agreed_on_last_is_remembered_when_it_is_over() {
    let mut book = ledger();
    let agreed = sign(&mut book, "alice").unwrap();
    also(&mut book, "bob", &agreed).unwrap();
    book.now += 2 * HOUR_US;
    for name in ["carol", "alice", "carol"] {
        let alone = sign(&mut book, name).unwrap();
        assert_ne!(alone.document, agreed.document);
        let last = book.state.rights().agreed_snapshot().unwrap();
        assert_eq!(last.document, agreed.document);
    }
    let next = sign(&mut book, "bob").unwrap();
    also(&mut book, "carol", &next).unwrap();
    let last = book.state.rights().agreed_snapshot().unwrap();
    assert_eq!(last.document, next.document);
}
