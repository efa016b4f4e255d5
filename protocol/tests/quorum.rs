//! Whose yes and whose no counts, and for how long: everything is judged again at the authorization.
//! ATTACKS rows 8, 10, 15, 26.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use countersign_protocol::effect::LedgerHeader;
use countersign_protocol::entry::Entry;
use countersign_protocol::event::*;
use countersign_protocol::fold::{Effect, Refusal};
use countersign_protocol::hash::StatementId;
use countersign_protocol::lifecycle::CommandStatus;
use countersign_protocol::name::SECOND_US;
use countersign_protocol::permission::Permission;
use countersign_protocol::quorum::{Membership, Requirement};
use countersign_protocol::rights::ChangeBody;
use support::Book;

/// With dave and erin, under this policy.
fn under(policy: &str) -> Book {
    let mut book = Book::ready();
    for name in ["dave", "erin"] {
        book.welcome(name);
    }
    for group in ["sre", "security"] {
        book.change(Book::group(group, &["bob"], &[]));
    }
    book.publish_text(policy);
    book
}

fn not_permitted() -> Result<StatementId, Refusal> {
    Err(Refusal::NotPermitted(Permission::CommandApprove))
}

#[test]
fn only_whom_a_rule_names_asks_and_approves() {
    let mut book = under("1 dave erin");
    assert_eq!(book.request("alice", &["web-1"]), Err(Refusal::NoRule));
    let command = book.request("dave", &["web-1"]).unwrap();
    // An administrator is nobody here, whatever else she may.
    assert_eq!(book.approve("alice", command), not_permitted());
    assert_eq!(book.say_no("alice", command, false), not_permitted());
    assert_eq!(book.approve("dave", command), Err(Refusal::OwnRequest));
    book.approve("erin", command).unwrap();
    assert_eq!(book.status(command), "authorized");
    book.audit().unwrap();
}

#[test]
fn what_one_rule_forbids_no_other_permits() {
    let mut book = under("1 dave erin\nforbid dave");
    let refused = Err(Refusal::ForbiddenBy("rule-1".parse().unwrap()));
    assert_eq!(book.request("dave", &["web-1"]), refused);
}

#[test]
fn one_person_has_one_seat_of_two_groups() {
    let mut book = under("1 alice group:sre also=1:group:security");
    let command = book.request("alice", &["web-1"]).unwrap();
    book.approve("bob", command).unwrap();
    assert_eq!(
        book.status(command),
        "requested",
        "bob is of both, and one person"
    );
    assert_eq!(book.approve("erin", command), not_permitted());
    book.change(Book::group("security", &["erin"], &[]));
    book.approve("erin", command).unwrap();
    assert_eq!(book.status(command), "authorized");
    book.audit().unwrap();
}

#[test]
fn every_rule_that_permits_has_its_own_demand() {
    let mut book = under("1 alice bob,carol\n2 alice dave,erin");
    let command = book.request("alice", &["web-1"]).unwrap();
    for (who, status) in [
        ("bob", "requested"),
        ("dave", "requested"),
        ("erin", "authorized"),
    ] {
        book.approve(who, command).unwrap();
        assert_eq!(book.status(command), status, "{who}");
    }
    book.audit().unwrap();
}

#[test]
fn who_joins_a_group_after_the_request_may_approve_and_who_leaves_it_counts_no_more() {
    let mut book = under("2 alice group:sre");
    let command = book.request("alice", &["web-1"]).unwrap();
    book.approve("bob", command).unwrap();
    assert_eq!(book.approve("dave", command), not_permitted());
    book.change(Book::group("sre", &["dave", "erin"], &["bob"]));
    book.approve("dave", command).unwrap();
    assert_eq!(
        book.status(command),
        "requested",
        "bob left before it was enough"
    );
    book.approve("erin", command).unwrap();
    assert_eq!(book.status(command), "authorized");
    let word = Entry::decode(book.entries.last().unwrap())
        .unwrap()
        .statement;
    let Ok(Event::CommandAuthorized(word)) = Event::parse(word.kind, &word.payload) else {
        panic!("the ledger's word")
    };
    let given = &book.command(command).approvals;
    let counted: Vec<u64> = given.iter().skip(1).map(|given| given.seq).collect();
    assert_eq!(word.approvals, counted, "only what counted is named");
    let authorized = book.entries.len();
    book.change(Book::group("sre", &[], &["dave", "erin"]));
    assert_eq!(
        book.status(command),
        "authorized",
        "what was counted then stays"
    );
    assert!(authorized < book.entries.len());
    book.audit().unwrap();
}

#[test]
fn a_role_that_is_taken_away_takes_the_approval_with_it() {
    let mut book = under("2 alice permission:command:approve");
    book.change(ChangeBody::RoleDefined {
        role: "approver".parse().unwrap(),
        permissions: vec![Permission::CommandApprove],
    });
    book.change(Book::granted("approver", "user:dave"));
    let command = book.request("alice", &["web-1"]).unwrap();
    book.approve("dave", command).unwrap();
    book.change(ChangeBody::RoleDefined {
        role: "approver".parse().unwrap(),
        permissions: vec![Permission::CommandRead],
    });
    book.approve("bob", command).unwrap();
    assert_eq!(book.status(command), "requested");
    book.approve("carol", command).unwrap();
    assert_eq!(book.status(command), "authorized");
    book.audit().unwrap();
}

#[test]
fn a_policy_that_forbids_meanwhile_stops_a_waiting_request() {
    let mut book = under("2 alice bob,carol");
    let command = book.request("alice", &["web-1"]).unwrap();
    book.approve("bob", command).unwrap();
    book.publish_text("2 dave bob,carol");
    assert_eq!(book.approve("carol", command), Err(Refusal::NoRule));
    assert_eq!(book.say_no("carol", command, false), Err(Refusal::NoRule));
    // Back again it is another policy: what was approved under the first counts no more.
    book.publish_text("2 alice bob,carol");
    book.approve("carol", command).unwrap();
    assert_eq!(book.status(command), "requested");
    book.approve("bob", command).unwrap();
    assert_eq!(book.status(command), "authorized");
    book.audit().unwrap();
}

#[test]
fn an_approval_is_too_old_at_its_age_and_not_before() {
    for (waited, status) in [
        (60 * SECOND_US - 1, "authorized"),
        (60 * SECOND_US, "requested"),
    ] {
        let mut book = under("2 alice bob,carol,dave age=60");
        let command = book.request("alice", &["web-1"]).unwrap();
        book.approve("bob", command).unwrap();
        book.now += waited;
        book.approve("carol", command).unwrap();
        assert_eq!(book.status(command), status, "{waited}");
        book.audit().unwrap();
    }
}

#[test]
fn where_a_rule_wants_reasons_each_no_and_each_yes_has_one() {
    let mut book = under("1 alice bob,carol reason");
    let command = book.request("alice", &["web-1"]).unwrap();
    assert_eq!(book.approve("bob", command), Err(Refusal::ReasonMissing));
    assert_eq!(
        book.say_no("bob", command, false),
        Err(Refusal::ReasonMissing)
    );
    let Event::CommandApproved(mut approval) = book.approval_event("bob", command) else {
        panic!("an approval")
    };
    approval.reason = Some(book.blob(b"I have looked"));
    book.sign_and_append("bob", &approval.into()).unwrap();
    assert_eq!(book.status(command), "authorized");
    book.audit().unwrap();
}

#[test]
fn an_approval_without_a_reason_counts_no_more_once_the_policy_wants_one() {
    // The policy is another one then, so it is asked for anew in any case.
    let mut book = under("2 alice bob,carol");
    let command = book.request("alice", &["web-1"]).unwrap();
    book.approve("bob", command).unwrap();
    book.publish_text("2 alice bob,carol reason");
    assert_eq!(book.approve("bob", command), Err(Refusal::ReasonMissing));
    assert_eq!(book.status(command), "requested");
}

#[test]
fn what_a_rule_says_of_several_hosts_becomes_turns() {
    let mut book = under("1 alice bob in-flight=1\n1 carol bob gap=5");
    book.enrol("web-2");
    for (who, hosts, in_flight) in [
        ("alice", &["web-1"][..], None),
        ("alice", &["web-1", "web-2"], Some(1)),
        ("carol", &["web-1", "web-2"], Some(1)),
    ] {
        let command = book.request(who, hosts).unwrap();
        book.approve("bob", command).unwrap();
        let plan = book.command(command).plan.as_ref();
        assert_eq!(
            plan.map(|plan| plan.in_flight),
            in_flight,
            "{who} {hosts:?}"
        );
    }
}

// Noes

#[test]
fn one_no_ends_it_unless_its_rule_counts_them() {
    let mut book = under("2 alice bob,carol,dave\n2 bob alice,carol,dave,erin rejections=2");
    let veto = book.request("alice", &["web-1"]).unwrap();
    assert_eq!(book.say_no("bob", veto, true), Err(Refusal::OtherRejection));
    book.say_no("bob", veto, false).unwrap();
    assert_eq!(book.status(veto), "rejected");

    let counted = book.request("bob", &["web-1"]).unwrap();
    assert_eq!(
        book.say_no("alice", counted, false),
        Err(Refusal::OtherRejection)
    );
    assert_eq!(book.say_no("bob", counted, true), Err(Refusal::OwnRequest));
    book.say_no("alice", counted, true).unwrap();
    assert_eq!(book.status(counted), "requested");
    assert_eq!(
        book.say_no("alice", counted, true),
        Err(Refusal::DuplicateApproval)
    );
    book.change(book.key_of("alice", "alice-2"));
    let again =
        say!(person book, "alice", CommandRejected { command: counted, vote: true, reason: None });
    assert_eq!(
        book.with_key("alice-2", again),
        Err(Refusal::DuplicateApproval)
    );
    book.say_no("carol", counted, true).unwrap();
    assert_eq!(book.status(counted), "rejected");
    assert_eq!(
        book.approve("dave", counted),
        Err(Refusal::Over(CommandStatus::Rejected))
    );
    book.audit().unwrap();
}

#[test]
fn a_vote_ends_with_its_key_and_approvals_may_be_faster() {
    let mut book = under("2 bob alice,carol,dave,erin rejections=2");
    let command = book.request("bob", &["web-1"]).unwrap();
    book.say_no("dave", command, true).unwrap();
    book.change(Book::ended("dave"));
    book.say_no("erin", command, true).unwrap();
    assert_eq!(
        book.status(command),
        "requested",
        "dave's no ended with his key"
    );
    book.approve("alice", command).unwrap();
    book.approve("carol", command).unwrap();
    assert_eq!(book.status(command), "authorized");
    book.audit().unwrap();
}

fn voted_down(header: LedgerHeader, command: StatementId, rejections: Vec<u64>) -> Event {
    header.effect(Effect::VoteDown {
        command,
        rejections,
    })
}

#[test]
fn the_ledger_votes_nothing_down_by_itself() {
    let mut book = under("2 bob alice,carol,dave,erin rejections=3");
    let command = book.request("bob", &["web-1"]).unwrap();
    let votes: Vec<u64> = ["alice", "carol"]
        .map(|who| {
            book.say_no(who, command, true).unwrap();
            book.entries.len() as u64 - 1
        })
        .to_vec();
    for rejections in [
        vec![],
        vec![votes[0]],
        votes.clone(),
        vec![votes[0], votes[0], votes[1]],
    ] {
        let event = voted_down(book.ledger_header(), command, rejections);
        let refused = book.sign_and_append("ledger", &event);
        assert_eq!(refused, Err(Refusal::Binding("rejections")));
    }
    assert_eq!(book.status(command), "requested");
}

// What fits

/// More people of one group than an entry can name say yes, before the one of the other group does.
#[test]
fn an_authorization_names_those_who_are_needed_when_all_do_not_fit() {
    let mut book = under("2 alice group:crowd also=1:group:security");
    let crowd: Vec<(String, String)> = (0..80)
        .map(|n| (format!("p{n:02}{}", "x".repeat(100)), format!("key-{n}")))
        .collect();
    for (person, key) in &crowd {
        book.change(book.key_of(person, key));
    }
    for half in crowd.chunks(40) {
        let names: Vec<&str> = half.iter().map(|(person, _)| person.as_str()).collect();
        book.change(Book::group("crowd", &names, &[]));
    }
    book.change(Book::group("security", &["dave"], &[]));
    let command = book.request("alice", &["web-1"]).unwrap();
    for (person, key) in &crowd {
        let Event::CommandApproved(mut approval) = book.approval_event("bob", command) else {
            panic!("an approval")
        };
        approval.principal = person.parse().unwrap();
        book.with_key(key, approval.into()).unwrap();
    }
    assert_eq!(book.status(command), "requested");
    book.approve("dave", command).unwrap();
    assert_eq!(book.status(command), "authorized");
    let word = Entry::decode(book.entries.last().unwrap()).unwrap();
    let event = Event::parse(word.statement.kind, &word.statement.payload).unwrap();
    let Event::CommandAuthorized(said) = event else {
        panic!("an authorization")
    };
    let seqs: Vec<u64> = book
        .command(command)
        .approvals
        .iter()
        .map(|given| given.seq)
        .collect();
    // The first two of the crowd, and dave.
    assert_eq!(said.approvals, [seqs[0], seqs[1], seqs[80]]);
    book.audit().unwrap();
}

// The ledger's own arithmetic

/// The honest authorization of a command that bob and carol approved, to be changed.
fn forged(change: impl FnOnce(&mut Vec<u64>, &mut Requirement, &mut Vec<Membership>)) -> Refusal {
    let mut book = under("2 alice group:sre");
    book.change(Book::group("sre", &["carol", "dave"], &[]));
    let command = book.request("alice", &["web-1"]).unwrap();
    book.approve("bob", command).unwrap();
    let request_seq = book.command(command).requested.seq;
    let policy = book.state.rights().policy().unwrap().reference;
    let requirement = book.state.requirement(book.command(command)).unwrap();
    let event = book.approval_event("carol", command);
    // Carol's approval is entered, and the ledger says nothing yet.
    let approval = countersign_protocol::statement::Statement::sign(&event, &support::key("carol"));
    let verified = approval.unwrap().verify().unwrap();
    let at = countersign_protocol::lifecycle::Position {
        seq: book.entries.len() as u64,
        time: countersign_protocol::name::Time::from_micros(book.now).unwrap(),
        id: verified.id(),
    };
    let leaf = countersign_protocol::hash::Hash::ZERO;
    book.state
        .admit(&verified, at, leaf, Default::default())
        .unwrap();
    let Some(Effect::Authorize {
        mut approvals,
        mut members,
        requirement: mut asked,
        ..
    }) = book.state.effect_of(&event, at)
    else {
        panic!("it suffices")
    };
    assert_eq!(asked, requirement);
    change(&mut approvals, &mut asked, &mut members);
    let effect = Effect::Authorize {
        command,
        request_seq,
        approvals,
        policy,
        requirement: asked,
        members,
    };
    let event = book.ledger_header().effect(effect);
    book.sign_and_append("ledger", &event)
        .map_or_else(|refusal| refusal, |_| Refusal::NothingChanges)
}

#[test]
fn an_authorization_says_what_everybody_can_count_again_and_nothing_else() {
    assert_eq!(
        forged(|_, _, _| {}),
        Refusal::NothingChanges,
        "unchanged it is taken"
    );
    assert_eq!(
        forged(|seqs, _, _| seqs.truncate(1)),
        Refusal::Binding("approvals")
    );
    assert_eq!(
        forged(|_, _, members| members[0].people.push("dave".parse().unwrap())),
        Refusal::Binding("members")
    );
    assert_eq!(
        forged(|_, _, members| members.clear()),
        Refusal::Binding("members")
    );
    assert_eq!(
        forged(|_, asked, _| asked.demands[0].0[0].approvals = 1),
        Refusal::Binding("requirement")
    );
    assert_eq!(
        forged(|_, asked, _| asked.rules.clear()),
        Refusal::Binding("requirement")
    );
}

/// Where the words are withheld nobody can judge again; who approved is counted all the same.
#[test]
fn with_the_words_withheld_an_auditor_still_counts_people() {
    let mut book = under("2 alice bob,carol");
    let command = book.request("alice", &["web-1"]).unwrap();
    book.approve("bob", command).unwrap();
    book.approve("carol", command).unwrap();
    let spec = book.command(command).act().spec.digest;
    book.blobs.remove(&spec);
    let auditor = book.audit().unwrap();
    assert_eq!(auditor.not_rejudged(), 1);
    // Without carol's approval the same bytes are refused.
    let mut entries = book.entries.clone();
    let last = entries.pop().unwrap();
    entries.pop();
    let mut entry = Entry::decode(&last).unwrap();
    entry.seq = entries.len() as u64;
    entry.prev = countersign_protocol::entry::leaf(entries.last().unwrap());
    entries.push(entry.encode().unwrap());
    assert!(book.audit_of(&entries).is_err());
}
