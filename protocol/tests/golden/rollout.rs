//! A rollout over two hosts: a canary, a person's word after it, a pause, and a gap for a label.

use countersign_protocol::event::*;
use countersign_protocol::hash::StatementId;
use countersign_protocol::name::{SECOND_US, Time};
use countersign_protocol::rights::ChangeBody;
use countersign_protocol::rollout::{Gap, Rollout};

use super::story;
use crate::say;
use crate::support::Book;

const MINUTE_US: u64 = 60 * SECOND_US;

/// The last first; web-3 never starts within its turn.
pub(super) fn a_rollout(book: &mut Book) {
    let dns: Vec<_> = ["role=dns".parse().unwrap()].into();
    for host in ["web-2", "web-3"] {
        let agent = host.parse().unwrap();
        let labels = dns.clone();
        book.change(ChangeBody::AgentRelabelled { agent, labels });
    }
    let command = request(book);
    story::authorize(book, command, 44);
    say_due(book, command);
    book.start("web-3", command).unwrap();
    story::complete(book, "web-3", command, Outcome::Exited, [b"", b""]);
    let reason = Some(book.blob(b"it answers again"));
    let event = say!(person book, "alice", RolloutContinued { command: command, reason: reason });
    book.sign_and_append("alice", &event).unwrap();
    let event = say!(person book, "carol", RolloutPaused { command: command, reason: None });
    book.sign_and_append("carol", &event).unwrap();
    book.now += 30 * MINUTE_US;
    let event = say!(person book, "carol", RolloutResumed { command: command, reason: None });
    book.sign_and_append("carol", &event).unwrap();
    say_due(book, command);
    book.now += 10 * MINUTE_US;
    say_due(book, command);
}

fn request(book: &mut Book) -> StatementId {
    let hosts = ["web-2", "web-3"];
    let mut act = story::act(book, &hosts, false);
    let first_last = |name: &str| u64::from(name == "web-2");
    // The list without turns is named by nobody.
    book.blobs.remove(&act.targets.list.digest);
    act.targets = book.with_turns(&hosts, act.spec.digest, first_last);
    act.rollout = Some(Rollout {
        canary: Some(1),
        gap: Some(Gap {
            label: Some("role=dns".parse().unwrap()),
            ms: 30 * 60 * 1000,
        }),
        max_errors: Some(0),
        max_in_flight: Some(1),
        start_within_ms: Some(10 * 60 * 1000),
    });
    let reason = book.blob(b"new resolver");
    let event = say!(person book, "alice", CommandRequested {
        client_ref: None, token: None, retry: None, act: act, reason: reason,
    });
    book.sign_and_append("alice", &event).unwrap()
}

/// The ledger says what is due of a command: turns, and hosts that missed theirs.
fn say_due(book: &mut Book, command: StatementId) {
    book.now += 250_000;
    let now = Time::from_micros(book.now).unwrap();
    for due in book.state.due(&command, now) {
        let event = book.ledger_header().due(command, due);
        book.sign_and_append("ledger", &event).unwrap();
    }
}
