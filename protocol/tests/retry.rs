//! A retry is a new request that runs exactly what was recorded, where it did not go well; anything
//! else that calls itself one is refused.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use countersign_protocol::command::Act;
use countersign_protocol::event::*;
use countersign_protocol::fold::Refusal;
use countersign_protocol::hash::StatementId;
use countersign_protocol::lifecycle::{CommandStatus, Due};
use countersign_protocol::name::{OsUser, SECOND_US, Time};
use countersign_protocol::retry::Retry;
use countersign_protocol::target::TargetList;
use proptest::prelude::*;
use support::Book;

const HOSTS: [&str; 3] = ["web-1", "web-2", "web-3"];

/// How a host's part comes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Came {
    Ok,
    Failed,
    Lost,
    Skipped,
}

fn world() -> Book {
    let mut book = Book::ready();
    HOSTS[1..].iter().for_each(|host| book.enrol(host));
    book
}

/// A command whose hosts came out so, and that is over.
fn ended(book: &mut Book, came: [Came; 3]) -> StatementId {
    let command = book.request("alice", &HOSTS).unwrap();
    book.approve("bob", command).unwrap();
    book.approve("carol", command).unwrap();
    let mut lost = Vec::new();
    for (host, came) in HOSTS.iter().zip(came) {
        if came == Came::Skipped {
            continue;
        }
        let run = book.start(host, command).unwrap();
        match came {
            Came::Ok => drop(book.complete(host, command, 0).unwrap()),
            Came::Failed => drop(book.complete(host, command, 1).unwrap()),
            Came::Lost => lost.push((host, run)),
            Came::Skipped => {}
        }
    }
    book.now += 2 * 3600 * SECOND_US;
    for (host, run) in lost {
        let due = Due::PresumeLost(host.parse().unwrap(), run);
        let event = book.ledger_header().due(command, due);
        book.sign_and_append("ledger", &event).unwrap();
    }
    for (host, _) in HOSTS
        .iter()
        .zip(came)
        .filter(|(_, came)| *came == Came::Skipped)
    {
        let due = Due::Skip(host.parse().unwrap(), None);
        let event = book.ledger_header().due(command, due);
        book.sign_and_append("ledger", &event).unwrap();
    }
    assert!(book.command(command).status().is_final());
    command
}

/// alice asks for it again on some hosts; `change` makes another act of it.
fn again(
    book: &mut Book,
    of: StatementId,
    hosts: &[&str],
    lost: bool,
    change: impl FnOnce(&mut Book, &mut Act),
) -> Result<StatementId, Refusal> {
    let earlier = book.command(of);
    let mut act = earlier.act().clone();
    let lines = earlier.targets.as_ref().unwrap().lines().to_vec();
    let list = lines
        .into_iter()
        .filter(|line| hosts.contains(&line.agent.as_str()));
    let list = TargetList::new(list.collect()).unwrap();
    let document = book.blob(&list.to_document().unwrap());
    act.targets = list.describe(document).unwrap();
    act.not_before = Time::from_micros(book.now).unwrap();
    act.expires_at = Time::from_micros(book.now + 3600 * SECOND_US).unwrap();
    change(book, &mut act);
    let reason = book.blob(b"once more");
    let event = say!(person book, "alice", CommandRequested {
        client_ref: None, token: None, retry: Some(Retry { of, lost }), act: act, reason: reason,
    });
    book.sign_and_append("alice", &event)
}

/// Makes another act of one.
type Change = fn(&mut Book, &mut Act);

const fn unchanged(_: &mut Book, _: &mut Act) {}

#[test]
fn a_retry_waits_for_people_like_any_other_runs_and_audits() {
    let mut book = world();
    let earlier = ended(&mut book, [Came::Ok, Came::Failed, Came::Skipped]);
    let retry = again(&mut book, earlier, &["web-2", "web-3"], false, unchanged).unwrap();
    book.approve("bob", retry).unwrap();
    assert_eq!(book.status(retry), "requested");
    let early = book.start("web-2", retry);
    assert_eq!(early, Err(Refusal::Over(CommandStatus::Requested)));
    book.approve("carol", retry).unwrap();
    for host in ["web-2", "web-3"] {
        book.start(host, retry).unwrap();
        book.complete(host, retry, 0).unwrap();
    }
    assert_eq!(book.status(retry), "completed");
    // A retry of a retry has nothing to run.
    let third = again(&mut book, retry, &["web-2"], false, unchanged);
    assert_eq!(
        third,
        Err(Refusal::RetrySucceeded("web-2".parse().unwrap()))
    );
    assert_eq!(book.audit().unwrap().not_rejudged(), 0);
}

#[test]
fn another_act_than_the_recorded_one_is_no_retry() {
    let mut book = world();
    let earlier = ended(&mut book, [Came::Failed; 3]);
    let changes: [(&str, Change); 7] = [
        ("spec", |book, act| act.spec = book.blob(b"{}")),
        ("env", |book, act| act.env = Some(book.blob(b"{}"))),
        ("stdin", |book, act| act.stdin = Some(book.blob(b"x"))),
        ("user", |_, act| {
            act.user = Some("root".parse::<OsUser>().unwrap())
        }),
        ("timeout_ms", |_, act| act.timeout_ms += 1),
        ("output_limit", |_, act| act.output_limit += 1),
        ("mode", |_, act| {
            act.mode = countersign_protocol::command::Mode::Shell;
        }),
    ];
    let events = book.entries.len();
    for (field, change) in changes {
        let earlier = book.command(earlier).clone();
        let mut altered = earlier.clone();
        change(&mut book, &mut altered.request.act);
        let retry = Retry {
            of: earlier.id,
            lost: false,
        };
        let said = countersign_protocol::retry::check(&earlier, &altered, &retry);
        assert_eq!(said, Err(Refusal::RetryDiffers(field)));
    }
    // And through the fold: no entry comes of it.
    let said = again(&mut book, earlier, &["web-1"], false, |_, act| {
        act.timeout_ms += 1
    });
    assert!(said.is_err(), "{said:?}");
    assert_eq!(book.entries.len(), events);
}

#[test]
fn what_was_sealed_for_one_request_is_not_asked_for_again() {
    let mut book = world();
    let id = ended(&mut book, [Came::Failed; 3]);
    let again = book.command(id).clone();
    let mut earlier = again.clone();
    earlier.request.act.secrets = Some(book.blob(b"sealed"));
    let retry = Retry {
        of: id,
        lost: false,
    };
    let said = countersign_protocol::retry::check(&earlier, &again, &retry);
    assert_eq!(said, Err(Refusal::RetrySecrets));
}

#[test]
fn a_host_that_was_no_target_and_a_command_that_goes_on_are_refused() {
    let mut book = world();
    let narrow = book.request("alice", &["web-1"]).unwrap();
    let open = again(&mut book, narrow, &["web-1"], false, unchanged);
    assert_eq!(open, Err(Refusal::RetryTooEarly));
    book.approve("bob", narrow).unwrap();
    book.approve("carol", narrow).unwrap();
    book.start("web-1", narrow).unwrap();
    let running = again(&mut book, narrow, &["web-1"], false, unchanged);
    assert_eq!(running, Err(Refusal::RetryTooEarly));
    book.complete("web-1", narrow, 1).unwrap();
    let wider = book.act(&["web-2"]);
    let elsewhere = again(&mut book, narrow, &["web-1"], false, |_, act| {
        act.targets = wider.targets;
    });
    assert_eq!(
        elsewhere,
        Err(Refusal::RetryElsewhere("web-2".parse().unwrap()))
    );
    again(&mut book, narrow, &["web-1"], false, unchanged).unwrap();
}

#[test]
fn a_lost_run_is_not_run_again_unless_the_request_says_so() {
    let mut book = world();
    let earlier = ended(&mut book, [Came::Ok, Came::Lost, Came::Failed]);
    let silent = again(&mut book, earlier, &["web-2"], false, unchanged);
    assert_eq!(silent, Err(Refusal::RetryLost("web-2".parse().unwrap())));
    again(&mut book, earlier, &["web-2", "web-3"], true, unchanged).unwrap();
}

#[test]
fn a_retry_of_what_is_not_in_the_log_fails_the_audit() {
    let mut book = world();
    let earlier = ended(&mut book, [Came::Failed; 3]);
    // Whoever folds less than all cannot know; whoever has the whole log must.
    let nothing = StatementId::new([9; 32]);
    let event = book.request_event("alice", &["web-1"]);
    let Event::CommandRequested(mut request) = event else {
        unreachable!("it is a request")
    };
    request.retry = Some(Retry {
        of: nothing,
        lost: false,
    });
    let event = Event::from(request);
    assert_eq!(
        book.state.holds_retried(&event),
        Err(Refusal::UnknownCommand)
    );
    book.sign_and_append("alice", &event).unwrap();
    let found = book.audit().unwrap_err();
    assert_eq!(found.reason, Refusal::UnknownCommand.into());
    assert!(found.seq > book.command(earlier).requested.seq);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever came of the hosts and whichever are named: a retry stands if and only if it went
    /// well on none of them, and it is said where nobody knows.
    #[test]
    fn a_retry_is_only_for_hosts_on_which_it_did_not_go_well(
        came in prop::array::uniform3(prop_oneof![
            Just(Came::Ok), Just(Came::Failed), Just(Came::Lost), Just(Came::Skipped)
        ]),
        named in prop::sample::subsequence(&[0_usize, 1, 2], 1..=3),
        lost in any::<bool>(),
    ) {
        let mut book = world();
        let earlier = ended(&mut book, came);
        let hosts: Vec<&str> = named.iter().map(|index| HOSTS[*index]).collect();
        let may = named.iter().all(|index| match came[*index] {
            Came::Ok => false,
            Came::Lost => lost,
            Came::Failed | Came::Skipped => true,
        });
        let said = again(&mut book, earlier, &hosts, lost, unchanged);
        prop_assert_eq!(said.is_ok(), may, "{:?}", said);
        prop_assert!(book.audit().is_ok());
    }
}
