//! Idle statements: who may make them, where they stand, and what they prove of a host's time.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use countersign_protocol::audit::{IdleAuditor, NothingRan, check_entry};
use countersign_protocol::event::*;
use countersign_protocol::fold::{Refusal, Stream, agent_link};
use countersign_protocol::hash::StatementId;
use countersign_protocol::name::{SECOND_US, Time};
use countersign_protocol::rights::ChangeBody;
use support::{Book, public};

const HOST: &str = "web-1";

fn time(us: u64) -> Time {
    Time::from_micros(us).unwrap()
}

/// The next word on a key's chain: that it started nothing more from `from` until now.
fn idle_event(book: &mut Book, key: &str, from: u64, running: u64) -> Event {
    let (agent_seq, agent_prev) = book.chain(key);
    let to = time(book.now);
    let event = say!(agent book, HOST, AgentIdle {
        agent_seq: agent_seq, agent_prev: agent_prev, from: time(from), to: to, running: running,
    });
    let Event::AgentIdle(mut idle) = event else {
        unreachable!("it is an idle statement")
    };
    idle.signer = public(key).key_id();
    idle.into()
}

fn idle_as(book: &mut Book, key: &str, from: u64) -> Result<StatementId, Refusal> {
    let event = idle_event(book, key, from, 0);
    book.sign_and_append(key, &event)
}

fn idle(book: &mut Book, from: u64) -> StatementId {
    idle_as(book, HOST, from).unwrap()
}

/// Time goes by.
fn pass(book: &mut Book, seconds: u64) -> u64 {
    book.now += seconds * SECOND_US;
    book.now
}

/// A command that the host may start.
fn command(book: &mut Book) -> StatementId {
    let command = book.request("alice", &[HOST]).unwrap();
    book.approve("bob", command).unwrap();
    book.approve("carol", command).unwrap();
    command
}

fn auditor(book: &Book, host: &str) -> IdleAuditor {
    let mut auditor = IdleAuditor::new(host.parse().unwrap());
    for bytes in &book.entries {
        auditor.push(&check_entry(bytes).unwrap()).unwrap();
    }
    auditor
}

fn about(book: &Book, from: u64, to: u64) -> NothingRan {
    auditor(book, HOST).about(time(from), time(to))
}

/// Begin and end of each gap.
fn gaps(found: &NothingRan) -> Vec<(u64, u64)> {
    let gaps = found.gaps.iter();
    gaps.map(|gap| (gap.from.as_micros(), gap.to.as_micros()))
        .collect()
}

#[test]
fn an_idle_statement_stands_on_the_agents_chain_and_in_no_stream() {
    let mut book = Book::ready();
    let since = book.now;
    let command = command(&mut book);
    let started = book.start(HOST, command).unwrap();
    pass(&mut book, 10);
    let event = idle_event(&mut book, HOST, since, 1);
    let id = book.sign_and_append(HOST, &event).unwrap();
    assert_eq!(Stream::of(&event, id), None);
    assert_eq!(
        agent_link(&event),
        Some((public(HOST).key_id(), 1, started))
    );
    assert_eq!(book.chain(HOST), (2, id));
    // The run goes on behind it.
    book.complete(HOST, command, 0).unwrap();
    assert_eq!(book.chain(HOST).0, 3);
    book.audit().unwrap();
}

#[test]
fn an_idle_statement_that_skips_repeats_or_forks_the_chain_is_refused() {
    let mut book = Book::ready();
    let since = book.now;
    idle(&mut book, since);
    for (seq, prev) in [
        (0, StatementId::ZERO),
        (2, book.chain(HOST).1),
        (1, StatementId::ZERO),
    ] {
        let Event::AgentIdle(mut event) = idle_event(&mut book, HOST, since, 0) else {
            panic!("no idle statement")
        };
        (event.agent_seq, event.agent_prev) = (seq, prev);
        let refused = book.sign_and_append(HOST, &event.into());
        assert_eq!(refused, Err(Refusal::AgentChain { expected: 1 }), "{seq}");
    }
    // A refused one frees its number.
    idle(&mut book, since);
    book.audit().unwrap();
}

#[test]
fn only_an_accepted_key_in_force_says_that_its_host_is_idle() {
    let mut book = Book::ready();
    let since = book.now;
    for (who, refusal) in [
        ("web-9", Refusal::UnknownKey),
        ("alice", Refusal::KeyRole),
        ("ledger", Refusal::KeyRole),
    ] {
        assert_eq!(idle_as(&mut book, who, since), Err(refusal), "{who}");
    }
    book.enrol("web-2");
    assert_eq!(idle_as(&mut book, "web-2", since), Err(Refusal::KeyHolder));
    book.change(ChangeBody::AgentRetired {
        agent: HOST.parse().unwrap(),
    });
    assert_eq!(idle_as(&mut book, HOST, since), Err(Refusal::RevokedKey));
}

#[test]
fn an_idle_statement_about_a_time_that_is_not_over_has_no_form() {
    let mut book = Book::ready();
    let now = book.now;
    let Event::AgentIdle(idle) = idle_event(&mut book, HOST, now, 0) else {
        panic!("no idle statement")
    };
    for (from, to) in [(now, now + 1), (now, now - 1), (now + 1, now + 1)] {
        let event = Event::from(AgentIdle {
            from: time(from),
            to: time(to),
            ..idle.clone()
        });
        assert!(event.to_payload().is_err(), "{from} {to}");
    }
}

#[test]
fn consecutive_statements_prove_that_nothing_ran_and_their_ends_are_the_proofs() {
    let mut book = Book::ready();
    let (from, middle) = (book.now, pass(&mut book, 3600));
    idle(&mut book, from);
    let to = pass(&mut book, 3600);
    idle(&mut book, middle);
    let found = about(&book, from + 1, to);
    assert!(found.is_proved(), "{found:?}");
    assert_eq!(found.statements, 2);
    // Nobody has said anything about the next microsecond.
    assert_eq!(gaps(&about(&book, from + 1, to + 1)), [(to, to + 1)]);
    let key = about(&book, from, to + 1).gaps[0].key_id;
    assert_eq!(key, Some(public(HOST).key_id()));
}

#[test]
fn a_host_that_was_down_leaves_a_gap() {
    let mut book = Book::ready();
    let (from, down) = (book.now, pass(&mut book, 3600));
    idle(&mut book, from);
    let up = pass(&mut book, 60);
    let to = pass(&mut book, 3600);
    idle(&mut book, up);
    let found = about(&book, from + 1, to);
    assert!(!found.is_proved());
    assert_eq!(gaps(&found), [(down, up)]);
    assert!(about(&book, up, to).is_proved());
}

#[test]
fn a_run_inside_is_found_and_one_that_ended_before_is_not() {
    let mut book = Book::ready();
    let from = pass(&mut book, 1);
    let command = command(&mut book);
    let begun = book.now;
    book.start(HOST, command).unwrap();
    let ended = pass(&mut book, 20);
    book.complete(HOST, command, 0).unwrap();
    let to = pass(&mut book, 3600);
    idle(&mut book, from);
    for (from, to, runs) in [
        (from, to, 1),
        (begun + 5, begun + 6, 1),
        (ended, to, 1),
        (ended + 1, to, 0),
        (from, begun - 1, 0),
    ] {
        let found = about(&book, from, to);
        assert_eq!(
            (found.runs.len(), found.gaps.len()),
            (runs, 0),
            "{from} {to}"
        );
        assert_eq!(found.is_proved(), runs == 0);
    }
}

#[test]
fn a_run_whose_end_nobody_knows_stays_until_the_host_says_that_nothing_runs() {
    let mut book = Book::ready();
    let from = pass(&mut book, 1);
    let command = command(&mut book);
    book.start(HOST, command).unwrap();
    let later = pass(&mut book, 3600);
    let event = idle_event(&mut book, HOST, from, 1);
    book.sign_and_append(HOST, &event).unwrap();
    assert_eq!(about(&book, later - 1, later).runs.len(), 1);
    let after = pass(&mut book, 3600);
    idle(&mut book, later);
    pass(&mut book, 3600);
    idle(&mut book, after);
    let found = about(&book, after + 1, book.now);
    assert!(found.is_proved(), "{found:?}");
    // Its processes were never proved gone, which is told.
    assert_eq!(found.left_over.len(), 1);
    assert_eq!(about(&book, later, after).runs.len(), 1);
}

#[test]
fn a_statement_about_the_future_proves_nothing_of_it() {
    let mut book = Book::ready();
    let from = book.now;
    let to = pass(&mut book, 3600);
    let Event::AgentIdle(mut event) = idle_event(&mut book, HOST, from, 0) else {
        panic!("no idle statement")
    };
    // A host whose clock is a day ahead, or that lies.
    let ahead = time(to + 24 * 3600 * SECOND_US);
    (event.made_at, event.to) = (ahead, ahead);
    book.sign_and_append(HOST, &event.into()).unwrap();
    assert!(about(&book, from + 1, to).is_proved());
    assert_eq!(gaps(&about(&book, from + 1, to + 1)), [(to, to + 1)]);
}

#[test]
fn both_keys_of_a_rotation_must_have_said_it() {
    const ANEW: &str = "web-1 b";
    let mut book = Book::ready();
    let from = book.now;
    pass(&mut book, 600);
    book.rotate(HOST, ANEW);
    let both = book.now;
    let to = pass(&mut book, 600);
    idle(&mut book, from);
    // The new one was in force as well, and has said nothing.
    let found = about(&book, from + 1, to);
    assert_eq!(gaps(&found), [(both, to)]);
    assert_eq!(found.gaps[0].key_id, Some(public(ANEW).key_id()));
    // Born before it was accepted, it started nothing since.
    idle_as(&mut book, ANEW, from).unwrap();
    assert!(about(&book, from + 1, to).is_proved());
    // From its last word on the old one has nothing more to say.
    let (agent_seq, agent_prev) = book.chain(HOST);
    let retired = say!(agent book, HOST, AgentKeyRetired {
        agent_seq: agent_seq, agent_prev: agent_prev,
    });
    pass(&mut book, 1);
    book.sign_and_append(HOST, &retired).unwrap();
    let end = pass(&mut book, 600);
    idle_as(&mut book, ANEW, to).unwrap();
    let found = about(&book, from + 1, end);
    assert!(found.is_proved(), "{found:?}");
    assert_eq!(found.keys.len(), 2);
    book.audit().unwrap();
}

#[test]
fn what_a_suspect_key_said_proves_nothing() {
    let mut book = Book::ready();
    let from = book.now;
    let to = pass(&mut book, 600);
    idle(&mut book, from);
    let said = book.entries.len() as u64 - 1;
    assert!(about(&book, from + 1, to).is_proved());
    for (suspect_from, proved) in [(said + 1, true), (said, false)] {
        let mut book = Book::ready();
        pass(&mut book, 600);
        idle(&mut book, from);
        book.change(ChangeBody::KeyRevoked {
            key_id: public(HOST).key_id(),
            suspect_from: Some(suspect_from),
        });
        assert_eq!(about(&book, from + 1, to).is_proved(), proved);
    }
}

#[test]
fn of_a_host_that_has_no_key_nothing_is_proved() {
    let mut book = Book::ready();
    let accepted = book.now;
    let to = pass(&mut book, 600);
    idle(&mut book, accepted - 50);
    let before = about(&book, accepted - 20, to);
    assert_eq!(gaps(&before), [(accepted - 20, accepted)]);
    assert_eq!(before.gaps[0].key_id, None);
    let unknown = auditor(&book, "web-7").about(time(accepted), time(to));
    assert!(!unknown.is_proved() && unknown.keys.is_empty());
}

#[test]
fn an_entry_of_the_host_that_is_left_out_is_found() {
    let mut book = Book::ready();
    let from = book.now;
    let command = command(&mut book);
    book.start(HOST, command).unwrap();
    let hidden = book.entries.len() - 1;
    pass(&mut book, 600);
    let event = idle_event(&mut book, HOST, from, 1);
    book.sign_and_append(HOST, &event).unwrap();
    let mut auditor = IdleAuditor::new(HOST.parse().unwrap());
    let mut shown = book.entries.clone();
    shown.remove(hidden);
    let pushed = shown
        .iter()
        .try_for_each(|bytes| auditor.push(&check_entry(bytes).unwrap()));
    let finding = pushed.unwrap_err();
    assert_eq!(finding.reason.name(), "agent_chain");
}
