//! How much of one person may wait for others.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use countersign_protocol::command::{Act, MAX_LIFETIME_US};
use countersign_protocol::event::{CommandRequested, Event};
use countersign_protocol::fold::{MAX_AHEAD_US, Refusal};
use countersign_protocol::hash::StatementId;
use countersign_protocol::name::{SECOND_US, Time};

mod support;

use support::Book;

#[test]
fn a_thousand_requests_of_one_person_wait_and_no_more() {
    let mut book = Book::ready();
    let first = book.request("alice", &["web-1"]).unwrap();
    let second = book.request("alice", &["web-1"]).unwrap();
    for _ in 2..1000 {
        book.request("alice", &["web-1"]).unwrap();
    }
    let more = |book: &mut Book| book.request("alice", &["web-1"]);
    assert_eq!(more(&mut book), Err(Refusal::TooManyWaiting));
    book.request("bob", &["web-1"]).unwrap();
    // What is allowed, and what somebody said no to, waits no more.
    book.approve("bob", first).unwrap();
    book.approve("carol", first).unwrap();
    more(&mut book).unwrap();
    assert_eq!(more(&mut book), Err(Refusal::TooManyWaiting));
    book.say_no("bob", second, false).unwrap();
    more(&mut book).unwrap();
    assert_eq!(more(&mut book), Err(Refusal::TooManyWaiting));
    book.audit().unwrap();
}

#[test]
fn however_much_waits_nothing_keeps_who_may_break_the_glass_from_it() {
    let mut book = Book::ready();
    book.welcome("dave");
    book.publish_text("2 alice bob,carol\n1 alice,dave - break-glass=60");
    for _ in 0..1000 {
        book.request("alice", &["web-1"]).unwrap();
    }
    assert_eq!(
        book.request("alice", &["web-1"]),
        Err(Refusal::TooManyWaiting)
    );
    book.break_glass("alice", "web-1").unwrap();
    book.audit().unwrap();
}

/// A request that begins so much later than now, and stays for so long.
fn ask(book: &mut Book, later_us: u64, stays_us: u64) -> Result<StatementId, Refusal> {
    let Event::CommandRequested(request) = book.request_event("alice", &["web-1"]) else {
        panic!("no request");
    };
    let not_before = Time::from_micros(book.now + later_us).unwrap();
    let act = Act {
        not_before,
        expires_at: not_before.plus_micros(stays_us),
        ..request.act
    };
    let event = Event::from(CommandRequested { act, ..request });
    book.sign_and_append("alice", &event)
}

#[test]
fn a_request_ends_a_week_after_it_was_asked_for_whenever_it_begins() {
    let mut book = Book::ready();
    let year = 365 * 24 * 3600 * SECOND_US;
    assert_eq!(ask(&mut book, year, 60 * SECOND_US), Err(Refusal::Lifetime));
    ask(&mut book, MAX_AHEAD_US, MAX_LIFETIME_US - SECOND_US).unwrap();
    let late = ask(&mut book, MAX_AHEAD_US + SECOND_US, MAX_LIFETIME_US);
    assert_eq!(late, Err(Refusal::Lifetime));
    ask(&mut book, MAX_LIFETIME_US - 60 * SECOND_US, 60 * SECOND_US).unwrap();
}
