//! Rollouts: turns, gaps, errors, the canary, pauses; and what an auditor finds when the ledger gives
//! a turn that it may not give.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::BTreeMap;

use countersign_protocol::audit::Reason;
use countersign_protocol::event::*;
use countersign_protocol::fold::Refusal;
use countersign_protocol::hash::StatementId;
use countersign_protocol::lifecycle::{Due, ExecutionStatus, Position};
use countersign_protocol::name::{SECOND_US, Time};
use countersign_protocol::permission::Permission;
use countersign_protocol::rights::ChangeBody;
use countersign_protocol::rollout::{Gap, Rollout};
use support::Book;

const HOSTS: [&str; 3] = ["web-1", "web-2", "web-3"];
const MINUTE_US: u64 = 60 * SECOND_US;

fn book() -> Book {
    let mut book = Book::ready();
    book.enrol("web-2");
    book.enrol("web-3");
    book
}

fn label(book: &mut Book, host: &str, label: &str) {
    let labels = vec![label.parse().unwrap()];
    let agent = host.parse().unwrap();
    book.change(ChangeBody::AgentRelabelled { agent, labels });
}

fn ask(book: &mut Book, hosts: &[&str], rollout: Rollout) -> Result<StatementId, Refusal> {
    let mut act = book.act(hosts);
    act.rollout = Some(rollout);
    let reason = book.blob(b"because");
    let event = say!(person book, "alice", CommandRequested {
        client_ref: None, token: None, retry: None, act: act, reason: reason,
    });
    book.sign_and_append("alice", &event)
}

/// Asked for and approved; nothing is released yet.
fn rolled_out(book: &mut Book, hosts: &[&str], rollout: Rollout) -> StatementId {
    let command = ask(book, hosts, rollout).unwrap();
    book.approve("bob", command).unwrap();
    book.approve("carol", command).unwrap();
    command
}

fn at_most(hosts: u64) -> Rollout {
    Rollout {
        max_in_flight: Some(hosts),
        ..Rollout::default()
    }
}

fn apart(minutes: u64, label: Option<&str>) -> Rollout {
    Rollout {
        gap: Some(Gap {
            label: label.map(|label| label.parse().unwrap()),
            ms: minutes * 60_000,
        }),
        ..Rollout::default()
    }
}

fn due(book: &Book, command: StatementId) -> Vec<Due> {
    let now = Time::from_micros(book.now).unwrap();
    book.state.due(&command, now)
}

/// The ledger says all that is due, and all that is due then. The hosts that got their turn.
fn turns(book: &mut Book, command: StatementId) -> Vec<String> {
    let mut released = Vec::new();
    loop {
        let all = due(book, command);
        if all.is_empty() {
            return released;
        }
        for due in all {
            if let Due::Release(turn) = &due {
                released.push(turn.agent.to_string());
            }
            let event = book.ledger_header().due(command, due);
            book.sign_and_append("ledger", &event).unwrap();
        }
    }
}

fn run(book: &mut Book, host: &str, command: StatementId, code: u8) {
    book.start(host, command).unwrap();
    book.complete(host, command, code).unwrap();
}

fn steer(book: &mut Book, who: &str, command: StatementId, word: &str) -> Result<(), Refusal> {
    let event = match word {
        "pause" => say!(person book, who, RolloutPaused { command: command, reason: None }),
        "resume" => say!(person book, who, RolloutResumed { command: command, reason: None }),
        _go_on => say!(person book, who, RolloutContinued { command: command, reason: None }),
    };
    book.sign_and_append(who, &event).map(drop)
}

/// The ledger's own word, whatever is due.
fn forced(
    book: &mut Book,
    command: StatementId,
    change: impl FnOnce(&mut ExecutionReleased),
) -> Result<(), Refusal> {
    let found = due(book, command).pop().unwrap();
    let event = book.ledger_header().due(command, found);
    let Event::ExecutionReleased(mut released) = event else {
        panic!("a turn is due")
    };
    change(&mut released);
    book.sign_and_append("ledger", &released.into()).map(drop)
}

#[test]
fn a_host_without_its_turn_does_not_start_and_an_end_lets_the_next_one_begin() {
    let mut book = book();
    let command = rolled_out(&mut book, &HOSTS, at_most(2));
    assert_eq!(book.start("web-1", command), Err(Refusal::NoTurn));
    assert_eq!(turns(&mut book, command), ["web-1", "web-2"]);
    assert_eq!(book.start("web-3", command), Err(Refusal::NoTurn));
    run(&mut book, "web-2", command, 0);
    // web-3 takes the place of web-1, and of nobody else.
    assert_eq!(turns(&mut book, command), [""; 0]);
    run(&mut book, "web-1", command, 0);
    assert_eq!(turns(&mut book, command), ["web-3"]);
    run(&mut book, "web-3", command, 0);
    assert_eq!(book.status(command), "completed");
    book.audit().unwrap();
}

/// Without the list, of whom nothing was heard there is no part; a refusal makes none.
#[test]
fn what_is_refused_changes_nothing_also_where_the_list_of_hosts_is_withheld() {
    let mut book = book();
    let command = rolled_out(&mut book, &HOSTS, at_most(1));
    let Event::ExecutionStarted(start) = book.start_event("web-2", command) else {
        panic!("it is a start")
    };
    let refuse = say!(agent book, "web-2", ExecutionRefused {
        command: command, agent_seq: 0, agent_prev: StatementId::ZERO,
        why: RefusalReason::Busy, rule: None, detail: None,
    });
    let skip = Due::Skip("web-2".parse().unwrap(), None);
    let skip = book.ledger_header().due(command, skip);
    let Some(Due::Release(turn)) = due(&book, command).pop() else {
        panic!("a turn is due")
    };
    let release = book.ledger_header().due(command, Due::Release(turn));
    let at = Position {
        seq: book.tree.size(),
        time: Time::from_micros(book.now).unwrap(),
        id: StatementId::ZERO,
    };
    let mut held = book.command(command).clone();
    (held.targets, held.executions) = (None, BTreeMap::new());
    let mut released = held.clone();
    released.next(&release, at).unwrap();
    for (before, event, why) in [
        (&held, start.into(), Refusal::NoTurn),
        (&held, refuse, Refusal::NoTurn),
        (&held, skip, Refusal::NotYet),
        (&released, release, Refusal::Transition),
    ] {
        let mut after = before.clone();
        assert_eq!(after.next(&event, at), Err(why));
        assert_eq!(after, *before);
    }
}

#[test]
fn the_order_of_the_turns_is_the_one_of_the_lines() {
    let mut book = book();
    let mut act = book.act(&HOSTS);
    act.targets = book.with_turns(&HOSTS, act.spec.digest, |name| match name {
        "web-1" => 2,
        "web-2" => 0,
        _web_3 => 1,
    });
    act.rollout = Some(at_most(1));
    let reason = book.blob(b"because");
    let event = say!(person book, "alice", CommandRequested {
        client_ref: None, token: None, retry: None, act: act, reason: reason,
    });
    let command = book.sign_and_append("alice", &event).unwrap();
    book.approve("bob", command).unwrap();
    book.approve("carol", command).unwrap();
    for host in ["web-2", "web-3", "web-1"] {
        assert_eq!(turns(&mut book, command), [host]);
        run(&mut book, host, command, 0);
    }
    book.audit().unwrap();
}

/// PROTOCOL 5: whoever has a seat may stop it, also once it is authorized and without any role.
#[test]
fn who_has_a_seat_pauses_resumes_and_cancels_what_they_approved() {
    let mut book = book();
    for name in ["dave", "erin"] {
        book.welcome(name);
    }
    book.change(Book::group("sre", &["dave"], &[]));
    book.publish_text("1 alice group:sre");
    let command = ask(&mut book, &HOSTS, at_most(1)).unwrap();
    book.approve("dave", command).unwrap();
    let may_not = Err(Refusal::NotPermitted(Permission::CommandCancel));
    let cancel = |book: &mut Book, who: &str| {
        let event = say!(person book, who, CommandCancelRequested {
            command: command, token: None, reason: None,
        });
        book.sign_and_append(who, &event).map(drop)
    };
    assert_eq!(steer(&mut book, "erin", command, "pause"), may_not);
    assert_eq!(cancel(&mut book, "erin"), may_not);
    steer(&mut book, "dave", command, "pause").unwrap();
    steer(&mut book, "dave", command, "resume").unwrap();
    // As things stand now, as everywhere.
    book.change(Book::group("sre", &["erin"], &["dave"]));
    assert_eq!(cancel(&mut book, "dave"), may_not);
    cancel(&mut book, "erin").unwrap();
    assert_eq!(book.status(command), "cancelled");
    book.audit().unwrap();
}

#[test]
fn one_error_too_many_skips_the_rest() {
    let mut book = book();
    let rollout = Rollout {
        max_errors: Some(0),
        ..at_most(1)
    };
    let command = rolled_out(&mut book, &HOSTS, rollout);
    turns(&mut book, command);
    run(&mut book, "web-1", command, 3);
    assert_eq!(turns(&mut book, command), [""; 0]);
    let parts = &book.command(command).executions;
    let skipped = parts
        .values()
        .filter(|part| part.skipped == Some(SkipReason::Errors));
    assert_eq!(skipped.count(), 2);
    assert_eq!(book.status(command), "failed");
    book.audit().unwrap();
}

/// Asked for, or by the policy: without turns too, and without a word of the ledger for each host.
#[test]
fn one_error_too_many_skips_those_that_have_not_started_also_where_all_may() {
    for asked in [true, false] {
        let mut book = book();
        let command = if asked {
            let rollout = Rollout {
                max_errors: Some(0),
                ..Rollout::default()
            };
            rolled_out(&mut book, &HOSTS, rollout)
        } else {
            book.publish_text("2 permission:command:execute permission:command:approve errors=0");
            let command = book.request("alice", &HOSTS).unwrap();
            book.approve("bob", command).unwrap();
            book.approve("carol", command).unwrap();
            command
        };
        assert_eq!(book.command(command).plan, None);
        assert_eq!(turns(&mut book, command), [""; 0]);
        book.start("web-1", command).unwrap();
        book.start("web-2", command).unwrap();
        let now = Time::from_micros(book.now).unwrap();
        assert!(book.command(command).next_deadline().unwrap() > now);
        book.complete("web-1", command, 3).unwrap();
        // Before the ledger has said so of each host, which takes it several batches for many.
        assert_eq!(book.start("web-3", command), Err(Refusal::TurnNotFree));
        assert!(book.command(command).next_deadline().unwrap() <= now);
        turns(&mut book, command);
        assert!(book.command(command).next_deadline().unwrap() > now);
        let part = |host: &str| &book.command(command).executions[&host.parse().unwrap()];
        assert_eq!(part("web-3").skipped, Some(SkipReason::Errors));
        assert_eq!(part("web-2").status, ExecutionStatus::Running);
        assert_eq!(book.start("web-3", command), Err(Refusal::AlreadyStarted));
        book.complete("web-2", command, 0).unwrap();
        assert_eq!(book.status(command), "partial");
        book.audit().unwrap();
    }
}

#[test]
fn who_may_miss_a_turn_has_one_also_where_all_hosts_start_at_once() {
    let mut book = book();
    let rollout = Rollout {
        start_within_ms: Some(60_000),
        ..Rollout::default()
    };
    let command = rolled_out(&mut book, &HOSTS, rollout);
    assert_eq!(turns(&mut book, command), HOSTS);
    run(&mut book, "web-1", command, 0);
    book.now += MINUTE_US;
    turns(&mut book, command);
    let parts = book.command(command).executions.values();
    let missed = parts.filter(|part| part.skipped == Some(SkipReason::TurnMissed));
    assert_eq!(missed.count(), 2);
    book.audit().unwrap();
}

#[test]
fn an_error_that_is_allowed_stops_nothing() {
    let mut book = book();
    let rollout = Rollout {
        max_errors: Some(1),
        ..at_most(1)
    };
    let command = rolled_out(&mut book, &HOSTS, rollout);
    turns(&mut book, command);
    run(&mut book, "web-1", command, 3);
    assert_eq!(turns(&mut book, command), ["web-2"]);
    run(&mut book, "web-2", command, 0);
    assert_eq!(turns(&mut book, command), ["web-3"]);
    run(&mut book, "web-3", command, 0);
    assert_eq!(book.status(command), "partial");
}

#[test]
fn a_host_that_misses_its_turn_is_skipped_and_the_next_one_has_its() {
    let mut book = book();
    let rollout = Rollout {
        start_within_ms: Some(60_000),
        ..at_most(1)
    };
    let command = rolled_out(&mut book, &HOSTS, rollout);
    turns(&mut book, command);
    book.now += MINUTE_US;
    assert_eq!(book.start("web-1", command), Err(Refusal::Late));
    assert_eq!(turns(&mut book, command), ["web-2"]);
    let part = &book.command(command).executions[&"web-1".parse().unwrap()];
    assert_eq!(part.skipped, Some(SkipReason::TurnMissed));
    assert!(book.start("web-1", command).is_err());
    book.audit().unwrap();
}

#[test]
fn after_the_canary_a_person_looks_and_only_then_it_goes_on() {
    let mut book = book();
    let rollout = Rollout {
        canary: Some(1),
        ..Rollout::default()
    };
    let command = rolled_out(&mut book, &HOSTS, rollout);
    assert_eq!(turns(&mut book, command), ["web-1"]);
    let early = steer(&mut book, "alice", command, "continue");
    assert_eq!(early, Err(Refusal::CanaryOpen));
    run(&mut book, "web-1", command, 0);
    assert_eq!(turns(&mut book, command), [""; 0]);
    steer(&mut book, "alice", command, "continue").unwrap();
    assert_eq!(turns(&mut book, command), ["web-2", "web-3"]);
    let again = steer(&mut book, "alice", command, "continue");
    assert_eq!(again, Err(Refusal::NoCanary));
    book.audit().unwrap();
}

#[test]
fn while_it_is_paused_no_turn_begins() {
    let mut book = book();
    let command = rolled_out(&mut book, &HOSTS, at_most(1));
    let not_paused = steer(&mut book, "bob", command, "resume");
    assert_eq!(not_paused, Err(Refusal::NotPaused));
    turns(&mut book, command);
    steer(&mut book, "bob", command, "pause").unwrap();
    run(&mut book, "web-1", command, 0);
    assert_eq!(turns(&mut book, command), [""; 0]);
    steer(&mut book, "bob", command, "resume").unwrap();
    assert_eq!(turns(&mut book, command), ["web-2"]);
    book.audit().unwrap();
}

#[test]
fn who_may_not_stop_it_may_not_steer_it_and_what_has_no_turns_is_not_steered() {
    let mut book = book();
    book.welcome("mallory");
    let command = rolled_out(&mut book, &HOSTS, at_most(1));
    for word in ["pause", "resume", "continue"] {
        let refused = steer(&mut book, "mallory", command, word).unwrap_err();
        assert!(matches!(refused, Refusal::NotPermitted(_)), "{refused}");
    }
    let all_at_once = book.request("alice", &HOSTS).unwrap();
    book.approve("bob", all_at_once).unwrap();
    book.approve("carol", all_at_once).unwrap();
    let refused = steer(&mut book, "bob", all_at_once, "pause");
    assert_eq!(refused, Err(Refusal::NoRollout));
}

#[test]
fn two_hosts_are_a_gap_apart_by_the_later_of_two_clocks() {
    let mut book = book();
    let command = rolled_out(&mut book, &HOSTS, apart(30, None));
    assert_eq!(turns(&mut book, command), ["web-1"]);
    book.start("web-1", command).unwrap();
    // Its host's clock is a minute ahead of the ledger's.
    let mut event = book.complete_event("web-1", command, 0);
    let Event::ExecutionCompleted(done) = &mut event else {
        panic!("it is an end")
    };
    done.made_at = done.made_at.plus_micros(MINUTE_US);
    book.sign_and_append("web-1", &event).unwrap();
    book.now += 30 * MINUTE_US;
    assert_eq!(turns(&mut book, command), [""; 0]);
    book.now += MINUTE_US;
    assert_eq!(turns(&mut book, command), ["web-2"]);
    book.audit().unwrap();
}

#[test]
fn a_gap_for_a_label_holds_over_all_commands_that_have_one() {
    let mut book = book();
    for host in HOSTS {
        label(&mut book, host, "role=dns.eu");
    }
    let one = rolled_out(&mut book, &["web-1"], apart(30, Some("role=dns")));
    let two = rolled_out(
        &mut book,
        &["web-2", "web-3"],
        apart(10, Some("role=dns.eu")),
    );
    assert_eq!(turns(&mut book, one), ["web-1"]);
    assert_eq!(turns(&mut book, two), [""; 0], "one has it");
    run(&mut book, "web-1", one, 0);
    book.now += 29 * MINUTE_US;
    assert_eq!(
        turns(&mut book, two),
        [""; 0],
        "the other's gap is longer, and holds"
    );
    book.now += MINUTE_US;
    let end = book.command(one).executions[&"web-1".parse().unwrap()]
        .over
        .unwrap();
    let Some(Due::Release(turn)) = due(&book, two).pop() else {
        panic!("a turn is due")
    };
    assert_eq!(turn.waited_for, [end.id]);
    assert_eq!(turns(&mut book, two), ["web-2"]);
    // A command without a gap is none of its business.
    let free = book.request("alice", &["web-3"]).unwrap();
    book.approve("bob", free).unwrap();
    book.approve("carol", free).unwrap();
    book.start("web-3", free).unwrap();
    book.audit().unwrap();
}

#[test]
fn all_hosts_of_a_gap_have_its_label_or_none_has() {
    let mut book = book();
    let none = ask(&mut book, &HOSTS, apart(30, Some("role=dns")));
    assert_eq!(none, Err(Refusal::NoHostWithLabel));
    label(&mut book, "web-1", "role=dns");
    let mixed = ask(&mut book, &HOSTS, apart(30, Some("role=dns"))).unwrap_err();
    assert!(
        matches!(&mixed, Refusal::OverLimit(why) if why.contains("1 of these 3")),
        "{mixed}"
    );
    ask(&mut book, &["web-1"], apart(30, Some("role=dns"))).unwrap();
}

#[test]
fn the_policy_forces_what_nobody_asked_for_and_never_loosens_what_was() {
    let mut book = book();
    for host in ["web-1", "web-2"] {
        label(&mut book, host, "role=dns");
    }
    book.publish_text(
        "2 permission:command:execute permission:command:approve gap=1800 gap-label=role=dns \
         errors=0 canary=1",
    );
    let command = book.request("alice", &["web-1", "web-2"]).unwrap();
    book.approve("bob", command).unwrap();
    book.approve("carol", command).unwrap();
    let max_errors = book.command(command).max_errors();
    let plan = book.command(command).plan.clone().unwrap();
    assert_eq!(
        (plan.in_flight, max_errors, plan.canary),
        (1, Some(0), Some(1))
    );
    assert_eq!(plan.gaps[0].ms, 1_800_000);
    // Hosts without the label are not kept apart; both together are not asked for.
    let other = book.request("alice", &["web-3"]).unwrap();
    book.approve("bob", other).unwrap();
    book.approve("carol", other).unwrap();
    assert_eq!(book.command(other).plan, None);
    let mixed = book.request("alice", &HOSTS).unwrap_err();
    assert!(matches!(mixed, Refusal::OverLimit(_)), "{mixed}");
    // What is asked for besides holds too.
    let rollout = Rollout {
        max_errors: Some(5),
        ..apart(60, Some("role=dns"))
    };
    let longer = rolled_out(&mut book, &["web-1", "web-2"], rollout);
    let plan = book.command(longer).plan.clone().unwrap();
    let max_errors = book.command(longer).max_errors();
    assert_eq!((plan.gaps[0].ms, max_errors), (3_600_000, Some(0)));
    book.audit().unwrap();
}

#[test]
fn a_cancel_ends_all_turns_and_leaves_the_label_to_others() {
    let mut book = book();
    for host in HOSTS {
        label(&mut book, host, "role=dns");
    }
    let one = rolled_out(&mut book, &["web-1", "web-2"], apart(30, Some("role=dns")));
    turns(&mut book, one);
    let event = say!(person book, "bob", CommandCancelRequested { command: one, token: None, reason: None });
    book.sign_and_append("bob", &event).unwrap();
    assert_eq!(book.status(one), "cancelled");
    let two = rolled_out(&mut book, &["web-3"], apart(30, Some("role=dns")));
    assert_eq!(turns(&mut book, two), [""; 0]);
    book.now += 30 * MINUTE_US;
    assert_eq!(turns(&mut book, two), ["web-3"]);
    book.audit().unwrap();
}

#[test]
fn a_turn_out_of_order_early_or_with_another_word_is_refused() {
    let mut book = book();
    let command = rolled_out(&mut book, &HOSTS, at_most(1));
    let binding = |field| Err(Refusal::Binding(field));
    let other = forced(&mut book, command, |turn| {
        turn.agent = "web-2".parse().unwrap()
    });
    assert_eq!(other, binding("turn"));
    let later = forced(&mut book, command, |turn| {
        turn.agent = "web-2".parse().unwrap();
        turn.turn = 1;
    });
    assert_eq!(later, Err(Refusal::TurnNotFree));
    let longer = forced(&mut book, command, |turn| {
        turn.start_before = turn.start_before.plus_micros(1);
    });
    assert_eq!(longer, binding("start_before"));
    let labelled = forced(&mut book, command, |turn| {
        turn.labels = vec!["role=dns".parse().unwrap()]
    });
    assert_eq!(labelled, binding("labels"));
    forced(&mut book, command, |_| ()).unwrap();
    run(&mut book, "web-1", command, 0);
    let blind = forced(&mut book, command, |turn| turn.waited_for.clear());
    assert_eq!(blind, binding("waited_for"));
}

#[test]
fn an_auditor_finds_a_turn_that_names_ends_it_did_not_wait_for() {
    let mut book = book();
    let command = rolled_out(&mut book, &HOSTS, at_most(1));
    // The fold that serves takes it; whoever holds all commands does not.
    forced(&mut book, command, |turn| {
        turn.waited_for.push(StatementId::new([7; 32]))
    })
    .unwrap();
    let finding = book.audit().map(drop).unwrap_err();
    assert_eq!(
        finding.reason,
        Reason::Refused(Refusal::Binding("waited_for"))
    );
}
