//! A grant that was put aside is looked at again, and what came with it may be out of date by then.

use std::sync::atomic::Ordering;
use std::time::Duration;

use countersign_agent::Config;
use countersign_agent::orders::Orders;
use countersign_agent::snapshot::SnapshotRule;
use countersign_protocol::api::SnapshotBody;
use countersign_protocol::event::RefusalReason;
use countersign_protocol::hash::StatementId;
use countersign_protocol::lifecycle::ExecutionStatus;
use countersign_protocol::name::SECOND_US;

use crate::snapshot::{of_book, signed_in};
use crate::support::{Book, Tell, at, signers};
use crate::whole::Rig;

/// How long logs and snapshots are good for.
const GOOD_US: u64 = 300 * SECOND_US;

/// A host with these settings that has put a grant aside, as its time has not come.
async fn waiting(
    change: impl FnOnce(&mut Config),
    snapshot: fn(&mut Book) -> Option<SnapshotBody>,
) -> (Rig, StatementId) {
    let rig = Rig::new_with(|config| {
        change(config);
        Orders::default()
    })
    .await;
    rig.accept().await;
    rig.listening(1).await;
    let id = {
        let mut book = rig.fake.book();
        let id = not_before(&mut book, SECOND_US);
        *rig.fake.wire.snapshot.lock().unwrap() = snapshot(&mut book);
        id
    };
    // It asks for a proof when it first looks at the grant, so that we see that it has.
    rig.fake.wire.unproven.store(1, Ordering::SeqCst);
    rig.fake.tell(Tell::Grant(id));
    rig.until("it has looked at the grant", |_| {
        rig.fake.wire.unproven.load(Ordering::SeqCst) == 0
    })
    .await;
    (rig, id)
}

/// A command that may run so much later, by the host's clock, which stands still.
fn not_before(book: &mut Book, later_us: u64) -> StatementId {
    let mut act = book.act(&["web-1"], &Book::spec(&["true"]));
    act.not_before = at(book.now + later_us);
    let id = book.request("alice", act);
    book.approve("bob", id).unwrap();
    book.approve("carol", id).unwrap();
    id
}

/// More time goes by than what came with the grant is good for.
fn too_long(rig: &Rig) {
    rig.clock.advance(GOOD_US + 2 * SECOND_US);
}

/// The host's and the ledger's.
fn both_clocks(rig: &Rig, us: u64) {
    rig.fake.book().now += us;
    rig.clock.advance(us);
}

/// The same for the ledger, which says that it is there.
fn goes_on(book: &mut Book) {
    book.now += GOOD_US + 2 * SECOND_US;
    let heartbeat = book.ledger_header().heartbeat();
    book.sign_and_append("ledger", &heartbeat).unwrap();
}

fn connections(rig: &Rig) -> usize {
    rig.fake.wire.streams.load(Ordering::SeqCst)
}

fn bounded_log(config: &mut Config) {
    config.max_checkpoint_age_us = Some(GOOD_US);
}

fn snapshots(config: &mut Config) {
    config.snapshot = Some(SnapshotRule {
        administrators: signers(&["alice", "bob"]),
        threshold: 2,
        max_age_us: GOOD_US,
    });
}

fn signed(book: &mut Book) -> Option<SnapshotBody> {
    let by = [("alice", "alice"), ("bob", "bob")];
    let snapshot = of_book(book);
    Some(signed_in(book, &snapshot, &by, |_| {}))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_waited_until_its_log_was_old_runs_by_a_newer_log() {
    let (mut rig, id) = waiting(bounded_log, |_| None).await;
    goes_on(&mut rig.fake.book());
    too_long(&rig);
    let done = rig.ended(id).await;
    assert_eq!(done.status, ExecutionStatus::Completed, "{done:?}");
    assert_eq!(connections(&rig), 2, "it asked for what is open");
    rig.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_outlived_its_snapshot_runs_by_a_newer_snapshot() {
    let (mut rig, id) = waiting(snapshots, signed).await;
    {
        let mut book = rig.fake.book();
        goes_on(&mut book);
        *rig.fake.wire.snapshot.lock().unwrap() = signed(&mut book);
    }
    too_long(&rig);
    let done = rig.ended(id).await;
    assert_eq!(done.status, ExecutionStatus::Completed, "{done:?}");
    assert_eq!(connections(&rig), 2, "it asked for what is open");
    rig.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_waited_is_refused_when_there_is_nothing_newer() {
    for (change, snapshot, rule) in [
        (
            bounded_log as fn(&mut Config),
            (|_| None) as fn(&mut Book) -> Option<SnapshotBody>,
            "max_checkpoint_age_s",
        ),
        (snapshots, signed, "snapshot"),
    ] {
        let (mut rig, id) = waiting(change, snapshot).await;
        too_long(&rig);
        let done = rig.ended(id).await;
        assert_eq!(done.status, ExecutionStatus::Refused, "{done:?}");
        let refused = done.refused.unwrap();
        assert_eq!(refused.why, RefusalReason::Time);
        assert_eq!(refused.rule.unwrap().as_str(), rule);
        assert_eq!(connections(&rig), 2, "it asked once");
        rig.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_is_sent_again_at_each_connection_takes_one_place_among_those_that_wait() {
    let (mut rig, first) = waiting(|_| {}, |_| None).await;
    for _ in 0..70 {
        rig.hung_up(connections(&rig) + 1).await;
    }
    let second = not_before(&mut rig.fake.book(), SECOND_US);
    rig.fake.tell(Tell::Grant(second));
    // Whatever comes after it was looked at after it.
    let after = rig.granted("true");
    rig.ended(after).await;
    both_clocks(&rig, 2 * SECOND_US);
    for id in [first, second] {
        assert_eq!(rig.ended(id).await.status, ExecutionStatus::Completed);
    }
    rig.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_waits_for_its_proof_however_much_waits_besides() {
    let mut rig = Rig::ready().await;
    let later: Vec<_> = {
        let mut book = rig.fake.book();
        let hour = 3600 * SECOND_US;
        (0..64).map(|_| not_before(&mut book, hour)).collect()
    };
    for waits in later {
        rig.fake.tell(Tell::Grant(waits));
    }
    let id = rig.granted("echo on; sleep 60");
    rig.writing(id).await;
    // Nothing but the cancel asks for a proof after that.
    tokio::time::sleep(Duration::from_millis(500)).await;
    rig.cancels("bob", id);
    rig.fake.wire.unproven.store(1, Ordering::SeqCst);
    rig.fake.tell(Tell::Cancel(id));
    assert_eq!(rig.ended(id).await.status, ExecutionStatus::Cancelled);
    assert_eq!(rig.fake.wire.unproven.load(Ordering::SeqCst), 0);
    rig.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_outlived_its_snapshot_is_cancelled_by_somebody_whom_that_lists() {
    let mut rig = Rig::new_with(|config| {
        snapshots(config);
        config.signers = signers(&["alice"]);
        Orders::default()
    })
    .await;
    rig.accept().await;
    rig.listening(1).await;
    *rig.fake.wire.snapshot.lock().unwrap() = signed(&mut rig.fake.book());
    let id = rig.granted("echo on; sleep 60");
    rig.writing(id).await;
    both_clocks(&rig, GOOD_US + 2 * SECOND_US);
    rig.cancels("bob", id);
    rig.fake.tell(Tell::Cancel(id));
    assert_eq!(rig.ended(id).await.status, ExecutionStatus::Cancelled);
    rig.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_for_which_there_was_no_place_is_asked_for_when_there_is_one() {
    let mut rig = Rig::ready().await;
    let all: Vec<_> = {
        let mut book = rig.fake.book();
        let all = (0..66).map(|_| not_before(&mut book, 10 * SECOND_US));
        all.collect()
    };
    for id in &all {
        rig.fake.tell(Tell::Grant(*id));
    }
    let after = rig.granted("true");
    rig.ended(after).await;
    both_clocks(&rig, 11 * SECOND_US);
    for id in all {
        let end = rig.ended(id).await;
        // As many as it runs at once; of the others it says so.
        assert!(
            end.status == ExecutionStatus::Completed || end.refused.is_some(),
            "{end:?}"
        );
    }
    rig.stop().await.unwrap();
}
