//! The agent says for how long it has started nothing more: in its turn on the chain, on demand, once
//! in a while, and up to its end.

use std::fs;
use std::sync::atomic::Ordering;
use std::time::Duration;

use countersign_agent::succession;
use countersign_protocol::audit::{IdleAuditor, NothingRan, check_entry};
use countersign_protocol::entry::Entry;
use countersign_protocol::event::{AgentIdle, Event};
use countersign_protocol::name::{SECOND_US, Time};

use crate::support::{Book, at};
use crate::whole::Rig;

/// All idle statements of the log.
fn said(book: &Book) -> Vec<AgentIdle> {
    let statements = book.entries.iter().map(|bytes| {
        let statement = Entry::decode(bytes).unwrap().statement;
        Event::parse(statement.kind, &statement.payload).unwrap()
    });
    let mut said = Vec::new();
    for event in statements {
        if let Event::AgentIdle(idle) = event {
            said.push(idle);
        }
    }
    said
}

async fn says(rig: &Rig, times: usize) -> AgentIdle {
    rig.until("an idle statement", |book| said(book).len() >= times)
        .await;
    said(&rig.fake.book()).pop().unwrap()
}

/// Time goes by for host and ledger.
fn pass(rig: &Rig, seconds: u64) -> Time {
    rig.clock.advance(seconds * SECOND_US);
    let mut book = rig.fake.book();
    book.now += seconds * SECOND_US;
    rig.clock.now()
}

fn about(rig: &Rig, from: Time, to: Time) -> NothingRan {
    let mut auditor = IdleAuditor::new("web-1".parse().unwrap());
    for bytes in &rig.fake.book().entries {
        auditor.push(&check_entry(bytes).unwrap()).unwrap();
    }
    auditor.about(from, to)
}

#[tokio::test(flavor = "multi_thread")]
async fn asked_it_says_so_at_once_and_goes_on_from_there() {
    let rig = Rig::ready().await;
    // The ledger took the key at its own time, a little after.
    let from = at(rig.fake.book().now);
    pass(&rig, 600);
    rig.orders.ask_for_idle();
    let first = says(&rig, 1).await;
    assert_eq!((first.agent_seq, first.running), (0, 0));
    assert!(first.from <= from, "a new key speaks of all of its life");
    pass(&rig, 600);
    rig.orders.ask_for_idle();
    let second = says(&rig, 2).await;
    assert_eq!((second.agent_seq, second.from), (1, first.to));
    let to = pass(&rig, 1);
    assert!(about(&rig, from, second.to).is_proved());
    assert!(!about(&rig, from, to).is_proved());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_stands_before_it_on_the_chain_and_is_counted_while_it_goes_on() {
    let rig = Rig::ready().await;
    let from = rig.clock.now();
    let go = rig.file("go");
    let id = rig.granted(&format!(
        "until test -e {}; do sleep 0.02; done",
        go.display()
    ));
    rig.running(id).await;
    pass(&rig, 5);
    rig.orders.ask_for_idle();
    let during = says(&rig, 1).await;
    assert_eq!((during.agent_seq, during.running), (1, 1));
    fs::write(go, "").unwrap();
    rig.ended(id).await;
    pass(&rig, 60);
    rig.orders.ask_for_idle();
    let after = says(&rig, 2).await;
    assert_eq!((after.agent_seq, after.running), (3, 0));
    let found = about(&rig, from, after.to);
    assert_eq!(found.runs.len(), 1);
    assert_eq!(found.runs[0].command, id);
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_by_order_it_speaks_of_its_time_up_to_the_end_and_then_from_its_new_start() {
    let mut rig = Rig::ready().await;
    let from = at(rig.fake.book().now);
    let down = pass(&rig, 600);
    rig.stop().await.unwrap();
    assert_eq!(said(&rig.fake.book()).pop().unwrap().to, down);
    let up = pass(&rig, 30);
    rig.start();
    rig.listening(2).await;
    let to = pass(&rig, 600);
    rig.orders.ask_for_idle();
    let after = says(&rig, 2).await;
    // The chain goes on; of the time in which it was down it says nothing.
    assert_eq!((after.agent_seq, after.from), (1, up));
    let gaps = about(&rig, from, to).gaps;
    assert_eq!(gaps.len(), 1);
    assert_eq!((gaps[0].from, gaps[0].to), (down, up));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_was_about_to_say_when_it_was_killed_comes_first() {
    let mut rig = Rig::ready().await;
    pass(&rig, 600);
    // Entered, and no answer ever comes.
    rig.fake.wire.lose.store(usize::MAX, Ordering::SeqCst);
    rig.orders.ask_for_idle();
    says(&rig, 1).await;
    rig.kill().await;
    rig.fake.wire.lose.store(0, Ordering::SeqCst);
    rig.start();
    rig.listening(2).await;
    pass(&rig, 60);
    rig.orders.ask_for_idle();
    assert_eq!(says(&rig, 2).await.agent_seq, 1);
    // Nothing was said twice, and the chain goes on with whatever comes.
    let id = rig.granted("true");
    rig.ended(id).await;
    assert_eq!(said(&rig.fake.book()).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn by_itself_it_says_so_once_in_a_while_and_a_server_that_is_away_does_not_pile_them_up() {
    let mut rig = Rig::ready().await;
    rig.restart_with(|config| config.idle_every = Some(Duration::from_millis(100)))
        .await;
    says(&rig, 4).await;
    rig.fake.wire.away.store(true, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(600)).await;
    let before = said(&rig.fake.book()).len();
    rig.fake.wire.away.store(false, Ordering::SeqCst);
    says(&rig, before + 2).await;
    let all = said(&rig.fake.book());
    assert!(all.is_sorted_by(|one, two| one.agent_seq + 1 == two.agent_seq));
    rig.restart_with(|config| config.idle_every = None).await;
    rig.listening(3).await;
    let silent = said(&rig.fake.book()).len();
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(said(&rig.fake.book()).len(), silent, "switched off");
    rig.orders.ask_for_idle();
    says(&rig, silent + 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_replaced_leaves_no_gap() {
    let rig = Rig::ready().await;
    let from = at(rig.fake.book().now);
    pass(&rig, 600);
    let next = succession::prepare(&rig.config.state, rig.clock.now()).unwrap();
    let old = next.replaces.key_id();
    pass(&rig, 60);
    rig.accept().await;
    rig.until("the old key has retired", |book| {
        let record = book.state.rights().key(&old);
        record.is_some_and(|record| record.retired)
    })
    .await;
    pass(&rig, 600);
    rig.orders.ask_for_idle();
    let last = says(&rig, 2).await;
    assert_ne!(last.signer, old);
    let found = about(&rig, from, last.to);
    assert!(found.is_proved(), "{found:?}");
    assert_eq!(found.keys.len(), 2);
}
