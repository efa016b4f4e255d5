//! What becomes of a change that waits: whose no stops it, and when it comes to its end. And what
//! is left of a group.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use countersign_protocol::event::Administrator;
use countersign_protocol::fold::{Effect, Refusal};
use countersign_protocol::hash::{Digest, StatementId};
use countersign_protocol::name::{SECOND_US, Time};
use countersign_protocol::permission::Permission;
use countersign_protocol::rights::{CHANGE_EXPIRES_US, ChangeBody, MAX_OPEN_OF_ONE};
use support::{Book, public};

fn no(book: &mut Book, who: &str, change: StatementId) -> Result<StatementId, Refusal> {
    let event = say!(person book, who, ChangeRejected { change: change, reason: None });
    book.sign_and_append(who, &event)
}

fn relabelled(number: usize) -> ChangeBody {
    ChangeBody::AgentRelabelled {
        agent: "web-1".parse().unwrap(),
        labels: vec![format!("n={number}").parse().unwrap()],
    }
}

#[test]
fn nobody_stops_what_would_be_taken_from_themselves() {
    let mut book = Book::ready();
    book.welcome("dave");
    book.change(Book::granted("admin", "user:dave"));
    book.change(Book::group("chiefs", &["bob", "carol"], &[]));
    book.change(Book::granted("write", "group:chiefs"));
    book.change(book.key_of("carol", "carol-2"));
    book.change(ChangeBody::TokenIssued {
        token: "ci-1".parse().unwrap(),
        principal: "carol".parse().unwrap(),
        secret: Digest::new([1; 32]),
        roles: vec![],
        permissions: vec![Permission::CommandExecute],
        labels: vec![],
        commands: vec![],
        expires_at: Time::from_micros(book.now + 3600 * SECOND_US).unwrap(),
    });
    let takes = [
        Book::ended("carol-2"),
        Book::revoked("write", "group:chiefs"),
        Book::group("chiefs", &[], &["carol"]),
        ChangeBody::TokenRevoked {
            token: "ci-1".parse().unwrap(),
        },
        Book::revoked("admin", "user:carol"),
    ];
    for body in takes {
        let what = format!("{body:?}");
        let change = book.ask_change("alice", body.clone()).unwrap();
        assert_eq!(
            no(&mut book, "carol", change),
            Err(Refusal::OwnLoss),
            "{what}"
        );
        // Somebody else's no is one, and one's own asking may be taken back.
        no(&mut book, "bob", change).unwrap_or_else(|refusal| {
            assert_eq!((refusal, what.contains("chiefs")), (Refusal::OwnLoss, true));
            no(&mut book, "dave", change).unwrap()
        });
        let own = book.ask_change("carol", body.clone()).unwrap();
        no(&mut book, "carol", own).unwrap();
        book.change(body);
    }
    book.audit().unwrap();
}

#[test]
fn a_change_ends_with_the_key_that_asked_for_it() {
    let mut book = Book::ready();
    let change = book
        .ask_change("carol", Book::group("sre", &["bob"], &[]))
        .unwrap();
    book.consent("carol", change).unwrap_err();
    book.change(Book::ended("carol"));
    // Alice would stand in for her otherwise, and only one more would be needed.
    for who in ["alice", "bob"] {
        assert_eq!(book.consent(who, change), Err(Refusal::UnknownChange));
        assert_eq!(no(&mut book, who, change), Err(Refusal::UnknownChange));
    }
    assert!(book.state.rights().change(&change).is_none());
    book.audit().unwrap();
}

/// As [`Book::genesis`], with dave, and three of the four change rights.
fn of_three() -> Book {
    Book::found(|genesis| {
        genesis.threshold = 3;
        genesis.administrators.push(Administrator {
            principal: "dave".parse().unwrap(),
            key: public("dave"),
        });
    })
}

fn changed_by_three(book: &mut Book, body: ChangeBody) {
    let change = book.ask_change("alice", body).unwrap();
    book.consent("bob", change).unwrap();
    book.consent("dave", change).unwrap();
}

#[test]
fn nobody_who_consented_takes_the_place_of_a_requester_whose_key_ended() {
    let mut book = of_three();
    let change = book
        .ask_change("carol", Book::group("sre", &["bob"], &[]))
        .unwrap();
    book.consent("bob", change).unwrap();
    changed_by_three(&mut book, Book::ended("carol"));
    assert!(book.state.rights().change(&change).is_none());
    assert_eq!(book.consent("alice", change), Err(Refusal::UnknownChange));
    book.audit().unwrap();
}

#[test]
fn a_consent_whose_key_is_over_gives_way_to_a_new_one() {
    let mut book = of_three();
    let mut body = book.key_of("bob", "bob-2");
    if let ChangeBody::KeyAdded { expires_at, .. } = &mut body {
        *expires_at = Time::from_micros(book.now + 60 * SECOND_US);
    }
    changed_by_three(&mut book, body);
    let change = book
        .ask_change("alice", Book::group("sre", &["bob"], &[]))
        .unwrap();
    let body = book.state.rights().change(&change).unwrap().digest;
    let first =
        say!(person book, "bob", ChangeApproved { change: change, body: body, reason: None });
    book.with_key("bob-2", first).unwrap();
    assert_eq!(book.consent("bob", change), Err(Refusal::DuplicateApproval));
    book.now += 60 * SECOND_US;
    book.consent("bob", change).unwrap();
    assert_eq!(book.consent("bob", change), Err(Refusal::DuplicateApproval));
    book.consent("carol", change).unwrap();
    assert!(book.state.rights().change(&change).is_none());
    book.audit().unwrap();
}

#[test]
fn a_rule_that_names_the_requester_is_not_that_of_whoever_consents_next() {
    let mut book = Book::ready();
    book.publish_text("2 alice bob,carol\n1 bob bob,carol agents");
    let drained = ChangeBody::AgentDrained {
        agent: "web-1".parse().unwrap(),
    };
    book.welcome("dave");
    book.change(Book::granted("admin", "user:dave"));
    let change = book.ask_change("dave", drained).unwrap();
    book.change(Book::ended("dave"));
    assert_eq!(book.consent("bob", change), Err(Refusal::UnknownChange));
    let drained = |book: &Book| {
        let agent = book.state.rights().agent_record(&"web-1".parse().unwrap());
        agent.unwrap().drained
    };
    assert!(!drained(&book));
    book.audit().unwrap();
}

#[test]
fn a_change_ends_when_the_key_that_asked_is_over() {
    let mut book = Book::ready();
    let mut body = book.key_of("bob", "bob-2");
    if let ChangeBody::KeyAdded { expires_at, .. } = &mut body {
        *expires_at = Time::from_micros(book.now + 60 * SECOND_US);
    }
    book.change(body);
    let asked = {
        let body = book.blob(&relabelled(1).to_document().unwrap());
        let event =
            say!(person book, "bob", ChangeRequested { body: body, document: None, reason: None });
        book.with_key("bob-2", event).unwrap()
    };
    book.now += 60 * SECOND_US;
    assert_eq!(book.consent("alice", asked), Err(Refusal::UnknownChange));
    assert_eq!(book.consent("carol", asked), Err(Refusal::UnknownChange));
}

#[test]
fn a_change_waits_for_a_week_and_then_takes_no_place() {
    let mut book = Book::ready();
    let old: Vec<StatementId> = (0..MAX_OPEN_OF_ONE)
        .map(|number| book.ask_change("alice", relabelled(number)).unwrap())
        .collect();
    let full = book.ask_change("alice", relabelled(MAX_OPEN_OF_ONE));
    assert_eq!(full, Err(Refusal::TooManyOpen));
    book.now += CHANGE_EXPIRES_US - 1;
    book.consent("bob", old[0]).unwrap();
    assert!(book.state.rights().change(&old[0]).is_none());
    book.now += 1;
    assert_eq!(book.consent("bob", old[1]), Err(Refusal::UnknownChange));
    assert_eq!(no(&mut book, "bob", old[1]), Err(Refusal::UnknownChange));
    // Nor does the ledger's own key make it happen.
    let seq = book.entries.len() as u64 - 1;
    let effect = Effect::Change {
        change: old[1],
        body: relabelled(1),
        rests_on: vec![seq],
    };
    let event = book.ledger_header().effect(effect);
    let forged = book.sign_and_append("ledger", &event);
    assert_eq!(forged, Err(Refusal::Quorum));
    let anew = book.ask_change("alice", relabelled(1)).unwrap();
    assert_eq!(book.state.rights().changes().count(), 1);
    book.consent("bob", anew).unwrap();
    book.audit().unwrap();
}

#[test]
fn a_change_whose_effect_fits_no_entry_is_not_even_asked_for() {
    let mut book = Book::ready();
    let names = |first: char, len: usize| -> Vec<String> {
        let name = |n: usize| format!("{first}{n:02}{}", "x".repeat(len - 3));
        (0..64).map(name).collect()
    };
    let moved = |add: &[String], remove: &[String]| {
        let add: Vec<&str> = add.iter().map(String::as_str).collect();
        let remove: Vec<&str> = remove.iter().map(String::as_str).collect();
        Book::group("sre", &add, &remove)
    };
    let many = moved(&names('a', 128), &names('b', 128));
    assert_eq!(book.ask_change("alice", many), Err(Refusal::TooLarge));
    // What fits is judged by what it says.
    for fits in [
        moved(&names('a', 128), &[]),
        moved(&names('a', 64), &names('b', 64)),
    ] {
        let asked = book.ask_change("alice", fits);
        assert_eq!(asked, Err(Refusal::UnknownPerson));
    }
}

#[test]
fn a_group_that_holds_roles_is_not_emptied_and_a_new_one_of_its_name_holds_none() {
    let mut book = Book::ready();
    book.change(Book::group("sre", &["bob", "carol"], &[]));
    book.change(Book::granted("write", "group:sre"));
    book.change(Book::group("sre", &[], &["carol"]));
    let emptied = || Book::group("sre", &[], &["bob"]);
    let asked = book.ask_change("alice", emptied());
    assert_eq!(asked, Err(Refusal::GroupHoldsRoles));
    book.change(Book::revoked("write", "group:sre"));
    // A role that it is given meanwhile holds the change up.
    let change = book.ask_change("alice", emptied()).unwrap();
    book.change(Book::granted("read", "group:sre"));
    book.consent("carol", change).unwrap();
    assert!(book.state.rights().change(&change).is_some());
    book.change(Book::revoked("read", "group:sre"));
    book.change(emptied());
    book.welcome("dave");
    book.change(Book::group("sre", &["dave"], &[]));
    let roles = book.state.rights().roles_of(&"dave".parse().unwrap()).len();
    assert_eq!(roles, 0);
    book.audit().unwrap();
}
