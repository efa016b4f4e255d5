//! What a request and its approvals rest on may end before they suffice: a key, a token, its time.
//! Then nothing is authorized, whatever others still approve.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use countersign_protocol::event::*;
use countersign_protocol::fold::{Effect, Refusal};
use countersign_protocol::hash::{Digest, StatementId};
use countersign_protocol::lifecycle::Position;
use countersign_protocol::name::{SECOND_US, Time};
use countersign_protocol::permission::Permission;
use countersign_protocol::rights::ChangeBody;
use countersign_protocol::statement::Statement;
use support::{Book, key};

const MINUTE_US: u64 = 60 * SECOND_US;
const MACHINE: &str = "ci@example.com";

fn at(us: u64) -> Time {
    Time::from_micros(us).unwrap()
}

/// Under a policy, with dave and with erin, whose key ends in half an hour.
fn under(policy: &str) -> Book {
    let mut book = Book::genesis();
    book.enrol("web-1");
    book.welcome("dave");
    let mut body = book.key_of("erin", "erin");
    if let ChangeBody::KeyAdded { expires_at, .. } = &mut body {
        *expires_at = Some(at(book.now + 30 * MINUTE_US));
    }
    book.change(body);
    book.publish_text(policy);
    book
}

/// The authorization that the ledger would say to an approval, which it does not say.
fn held_back(book: &mut Book, who: &str, command: StatementId) -> Event {
    let event = book.approval_event(who, command);
    let statement = Statement::sign(&event, &key(who)).unwrap();
    let (position, event): (Position, Event) = book.append_one(statement).unwrap();
    let effect = book.state.effect_of(&event, position);
    let Some(effect @ Effect::Authorize { .. }) = effect else {
        panic!("it suffices: {effect:?}")
    };
    book.ledger_header().effect(effect)
}

/// An authorization that names these approvals, whatever they are worth.
fn forged(book: &mut Book, command: StatementId) -> Result<StatementId, Refusal> {
    let waiting = book.command(command).clone();
    let effect = Effect::Authorize {
        command,
        request_seq: waiting.requested.seq,
        approvals: waiting.approvals.iter().map(|given| given.seq).collect(),
        policy: book.state.rights().policy().unwrap().reference,
        requirement: countersign_protocol::quorum::Requirement::of(
            2,
            vec!["user:bob".parse().unwrap(), "user:carol".parse().unwrap()],
        ),
        members: ["bob", "carol"]
            .map(|name| countersign_protocol::quorum::Membership {
                of: format!("user:{name}").parse().unwrap(),
                people: vec![name.parse().unwrap()],
            })
            .to_vec(),
    };
    let event = book.ledger_header().effect(effect);
    book.sign_and_append("ledger", &event)
}

// Whoever asked

#[test]
fn a_request_of_a_key_that_was_revoked_is_authorized_by_nobody() {
    for approved_before in [false, true] {
        let mut book = under("2 dave bob,carol");
        let command = book.request("dave", &["web-1"]).unwrap();
        if approved_before {
            book.approve("bob", command).unwrap();
        }
        book.change(Book::ended("dave"));
        let refused = Err(Refusal::RequesterEnded);
        assert_eq!(book.approve("carol", command), refused);
        assert_eq!(forged(&mut book, command), refused);
        assert_eq!(book.status(command), "requested");
        assert_eq!(book.state.standing(book.command(command)), None);
        assert!(book.state.approvers(book.command(command)).is_empty());
        book.audit().unwrap();
    }
}

#[test]
fn a_request_ends_with_the_time_of_the_key_that_asked() {
    let mut book = under("2 erin bob,carol");
    let command = book.request("erin", &["web-1"]).unwrap();
    book.approve("bob", command).unwrap();
    book.now += 30 * MINUTE_US;
    let refused = Err(Refusal::RequesterEnded);
    assert_eq!(book.approve("carol", command), refused);
    assert_eq!(forged(&mut book, command), refused);
    assert_eq!(book.status(command), "requested");
    book.audit().unwrap();
}

#[test]
fn a_second_key_of_the_requester_does_not_keep_what_the_first_asked_for() {
    let mut book = under("2 dave bob,carol");
    book.change(book.key_of("dave", "dave-2"));
    let command = book.request("dave", &["web-1"]).unwrap();
    book.change(Book::ended("dave"));
    assert_eq!(
        book.approve("bob", command),
        Err(Refusal::RequesterEnded),
        "whoever stole the first key asked"
    );
}

fn issued(book: &mut Book, change: impl FnOnce(&mut ChangeBody)) {
    let mut body = ChangeBody::TokenIssued {
        token: "ci-1".parse().unwrap(),
        principal: MACHINE.parse().unwrap(),
        secret: Digest::new([3; 32]),
        roles: vec!["jobs".parse().unwrap()],
        permissions: vec![],
        labels: vec!["env=dev".parse().unwrap()],
        commands: vec![],
        expires_at: at(book.now + 30 * MINUTE_US),
    };
    change(&mut body);
    book.change(body);
}

fn defined(permissions: &[Permission]) -> ChangeBody {
    ChangeBody::RoleDefined {
        role: "jobs".parse().unwrap(),
        permissions: permissions.to_vec(),
    }
}

fn labelled(label: &str) -> ChangeBody {
    ChangeBody::AgentRelabelled {
        agent: "web-1".parse().unwrap(),
        labels: vec![label.parse().unwrap()],
    }
}

/// What a token asked for, once approved and once more to be.
fn asked_by_token() -> (Book, StatementId) {
    let mut book = under("2 ci@example.com bob,carol");
    book.change(defined(&[Permission::CommandExecute]));
    book.change(labelled("env=dev"));
    issued(&mut book, |_| {});
    let act = book.act(&["web-1"]);
    let reason = book.blob(b"the pipeline");
    let event = say!(person book, MACHINE, CommandRequested {
        client_ref: None, token: Some("ci-1".parse().unwrap()), retry: None, act: act, reason: reason,
    });
    let command = book.with_key("gateway", event).unwrap();
    book.approve("bob", command).unwrap();
    (book, command)
}

#[test]
fn a_request_ends_with_the_token_that_asked() {
    type Ends = fn(&mut Book);
    let ends: [(&str, Ends); 5] = [
        ("revoked", |book| {
            book.change(ChangeBody::TokenRevoked {
                token: "ci-1".parse().unwrap(),
            });
        }),
        ("over", |book| book.now += 30 * MINUTE_US),
        ("the gateway's key revoked", |book| {
            book.change(Book::ended("gateway"));
        }),
        ("its role means less", |book| {
            book.change(defined(&[Permission::CommandRead]));
        }),
        ("its host is none of its own any more", |book| {
            book.change(labelled("env=prod"));
        }),
    ];
    for (what, end) in ends {
        let (mut book, command) = asked_by_token();
        end(&mut book);
        let refused = Err(Refusal::RequesterEnded);
        assert_eq!(book.approve("carol", command), refused, "{what}");
        assert_eq!(forged(&mut book, command), refused, "{what}");
        assert_eq!(book.status(command), "requested", "{what}");
        book.audit().unwrap();
    }
    let (mut book, command) = asked_by_token();
    book.approve("carol", command).unwrap();
    assert_eq!(book.status(command), "authorized");
    book.audit().unwrap();
}

#[test]
fn who_asked_is_judged_also_where_the_words_are_withheld() {
    let mut book = under("2 dave bob,carol");
    let command = book.request("dave", &["web-1"]).unwrap();
    book.approve("bob", command).unwrap();
    let word = held_back(&mut book, "carol", command);
    book.change(Book::ended("dave"));
    let mut auditor = book.state.clone();
    let mut blind = book.command(command).clone();
    (blind.spec, blind.targets) = (None, None);
    auditor.restore(blind);
    let verified = Statement::sign(&word, &key("ledger")).unwrap();
    let verified = verified.verify().unwrap();
    let place = Position {
        seq: book.entries.len() as u64,
        time: at(book.now),
        id: verified.id(),
    };
    let leaf = countersign_protocol::hash::Hash::ZERO;
    assert_eq!(
        auditor.admit(&verified, place, leaf, Default::default()),
        Err(Refusal::RequesterEnded)
    );
}

// Its own time

#[test]
fn an_authorization_that_was_held_back_is_judged_by_the_time_of_its_entry() {
    for (policy, wait_us, asks) in [
        ("2 alice bob,carol age=60", MINUTE_US, "alice"),
        ("2 alice carol,erin", 30 * MINUTE_US, "alice"),
        ("2 erin bob,carol", 30 * MINUTE_US, "erin"),
    ] {
        for waits in [false, true] {
            let mut book = under(policy);
            let command = book.request(asks, &["web-1"]).unwrap();
            let first = if policy.contains("bob") {
                "bob"
            } else {
                "erin"
            };
            book.approve(first, command).unwrap();
            let word = held_back(&mut book, "carol", command);
            if waits {
                book.now += wait_us;
            }
            let said = book.sign_and_append("ledger", &word);
            assert_eq!(said.is_err(), waits, "{policy}: {said:?}");
        }
    }
}

// Standing noes

/// Two noes of three that were needed, and then a rule that wants two.
fn against() -> (Book, StatementId) {
    let mut book = under("2 alice bob,carol,dave,erin rejections=3");
    let command = book.request("alice", &["web-1"]).unwrap();
    book.say_no("bob", command, true).unwrap();
    book.say_no("carol", command, true).unwrap();
    book.publish_text("2 alice bob,carol,dave,erin rejections=2");
    (book, command)
}

#[test]
fn noes_that_suffice_under_a_later_rule_go_before_any_approval() {
    let (mut book, command) = against();
    book.approve("dave", command).unwrap();
    assert_eq!(book.status(command), "rejected");
    assert!(matches!(
        book.approve("erin", command),
        Err(Refusal::Over(_))
    ));
    book.audit().unwrap();
}

#[test]
fn an_authorization_against_standing_noes_is_refused_by_everybody() {
    let (mut book, command) = against();
    for who in ["dave", "erin"] {
        // The ledger keeps silent of what it would have to say.
        let event = book.approval_event(who, command);
        let statement = Statement::sign(&event, &key(who)).unwrap();
        book.append_one(statement).unwrap();
    }
    let waiting = book.command(command).clone();
    let effect = Effect::Authorize {
        command,
        request_seq: waiting.requested.seq,
        approvals: waiting.approvals.iter().map(|given| given.seq).collect(),
        policy: book.state.rights().policy().unwrap().reference,
        requirement: book.state.requirement(&waiting).unwrap(),
        members: ["dave", "erin"]
            .map(|name| countersign_protocol::quorum::Membership {
                of: format!("user:{name}").parse().unwrap(),
                people: vec![name.parse().unwrap()],
            })
            .to_vec(),
    };
    let event = book.ledger_header().effect(effect);
    assert_eq!(book.sign_and_append("ledger", &event), Err(Refusal::Quorum));
    // An auditor who is given the same bytes says so too.
    book.audit().unwrap();
    let mut entries = book.entries.clone();
    let word = Statement::sign(&event, &key("ledger")).unwrap();
    let entry = countersign_protocol::entry::Entry {
        seq: entries.len() as u64,
        time: at(book.now),
        prev: book.last,
        key_id: word.clone().verify().unwrap().facts().key_id,
        statement: word,
    };
    entries.push(entry.encode().unwrap());
    let found = book.audit_of(&entries).unwrap_err();
    assert_eq!(found.reason, Refusal::Quorum.into());
}

// Again

#[test]
fn an_approval_that_counts_no_more_gives_way_to_a_new_one() {
    // Her key is over, or the approval too old.
    for (policy, asks, wait_us) in [
        ("2 alice erin,carol", "alice", 30 * MINUTE_US),
        ("2 alice erin,carol age=60", "alice", MINUTE_US),
    ] {
        let mut book = under(policy);
        book.change(book.key_of("erin", "erin-2"));
        let command = book.request(asks, &["web-1"]).unwrap();
        book.approve("erin", command).unwrap();
        let again = |book: &mut Book| {
            let event = book.approval_event("erin", command);
            book.with_key("erin-2", event)
        };
        assert_eq!(again(&mut book), Err(Refusal::DuplicateApproval));
        book.now += wait_us;
        again(&mut book).unwrap();
        assert_eq!(again(&mut book), Err(Refusal::DuplicateApproval));
        book.approve("carol", command).unwrap();
        assert_eq!(book.status(command), "authorized", "{policy}");
        book.audit().unwrap();
    }
}

#[test]
fn a_vote_whose_key_ended_gives_way_to_a_new_one() {
    let mut book = under("2 alice bob,dave,erin rejections=2");
    book.change(book.key_of("dave", "dave-2"));
    let command = book.request("alice", &["web-1"]).unwrap();
    book.say_no("dave", command, true).unwrap();
    book.change(Book::ended("dave"));
    let again = |book: &mut Book| {
        let event = say!(person book, "dave", CommandRejected {
            command: command, vote: true, reason: None,
        });
        book.with_key("dave-2", event)
    };
    again(&mut book).unwrap();
    assert_eq!(again(&mut book), Err(Refusal::DuplicateApproval));
    assert_eq!(book.status(command), "requested");
    book.say_no("bob", command, true).unwrap();
    assert_eq!(book.status(command), "rejected");
    book.audit().unwrap();
}
