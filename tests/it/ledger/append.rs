//! Appending: what is acknowledged is there, once, in order, proved.

use countersign::clock::Clock;
use countersign::ledger::{AppendError, Ledger, Settings, StartRule, store};
use countersign_protocol::audit::{self, Auditor};
use countersign_protocol::blob::{Blob, BlobRef};
use countersign_protocol::checkpoint::Checkpoint;
use countersign_protocol::event::{CommandRequested, Event};
use countersign_protocol::fold::Refusal;
use countersign_protocol::hash::Digest;
use countersign_protocol::lifecycle::CommandStatus;
use countersign_protocol::name::Time;
use countersign_protocol::proof;
use sqlx::PgPool;

use crate::support::TestLedger;

/// Folds the whole database from its bytes.
pub(crate) async fn audit_database(pool: &PgPool) -> Auditor {
    let mut connection = pool.acquire().await.unwrap();
    let rows = store::entries(&mut connection, 0, u64::MAX, u64::MAX)
        .await
        .unwrap();
    let mut blobs = std::collections::BTreeMap::new();
    for row in &rows {
        let entry = audit::check_entry(&row.entry).unwrap();
        for named in entry.verified.event().blobs() {
            let blob = store::blob(&mut connection, &named.digest)
                .await
                .unwrap()
                .flatten()
                .unwrap();
            blob.verify(&named).unwrap();
            blobs.insert(named.digest, blob);
        }
    }
    let blob = |named: &BlobRef| -> Option<Blob> { blobs.get(&named.digest).cloned() };
    let entries = rows.iter().map(|row| row.entry.as_slice());
    audit::audit(countersign::setup::judge(), entries, blob).unwrap()
}

#[tokio::test]
async fn a_command_goes_all_the_way_and_the_database_audits() {
    let book = TestLedger::ready().await;
    let (command, _) = book.authorized().await;
    let done = book.run(command).await;
    assert_eq!(done.status, Some(CommandStatus::Completed));
    let auditor = audit_database(&book.database.app).await;
    let newest = book.ledger.newest();
    assert_eq!(auditor.size(), newest.size());
    assert_eq!(auditor.root_at(newest.size()), Some(newest.root()));
    assert_eq!(
        auditor.state().command(&command).unwrap().status(),
        CommandStatus::Completed
    );
}

#[tokio::test]
async fn a_receipt_proves_its_entry() {
    let book = TestLedger::ready().await;
    let (request, _) = book.request();
    let receipt = book.send(request).await.unwrap();
    let checkpoint = Checkpoint::open(receipt.checkpoint.note(), book.ledger.verifier()).unwrap();
    assert_eq!(
        countersign_protocol::entry::leaf(&receipt.entry),
        receipt.leaf
    );
    proof::verify_inclusion(
        &receipt.leaf,
        receipt.seq,
        checkpoint.size(),
        &receipt.inclusion,
        &checkpoint.root(),
    )
    .unwrap();
}

#[tokio::test]
async fn a_retry_gets_the_first_receipt_and_nothing_is_written_twice() {
    let book = TestLedger::ready().await;
    let (request, _) = book.request();
    let first = book.send(request.clone()).await.unwrap();
    let size = book.ledger.newest().size();
    let second = book.send(request).await.unwrap();
    assert!(!first.repeated && second.repeated);
    assert_eq!((first.seq, &first.entry), (second.seq, &second.entry));
    assert_eq!(second.status, Some(CommandStatus::Requested));
    assert_eq!(book.ledger.newest().size(), size);
    proof::verify_inclusion(
        &second.leaf,
        second.seq,
        second.checkpoint.size(),
        &second.inclusion,
        &second.checkpoint.root(),
    )
    .unwrap();
}

#[tokio::test]
async fn the_same_statement_many_times_at_once_is_one_entry() {
    let book = TestLedger::ready().await;
    let (request, _) = book.request();
    let before = book.ledger.newest().size();
    let sends = (0..16).map(|_| book.send(request.clone()));
    let receipts = futures_util::future::join_all(sends).await;
    let seqs: Vec<u64> = receipts
        .iter()
        .map(|receipt| receipt.as_ref().unwrap().seq)
        .collect();
    assert!(seqs.iter().all(|seq| *seq == before), "{seqs:?}");
    assert_eq!(
        receipts
            .iter()
            .filter(|receipt| !receipt.as_ref().unwrap().repeated)
            .count(),
        1
    );
    assert_eq!(book.ledger.newest().size(), before + 1);
}

#[tokio::test]
async fn a_callers_own_id_stands_for_one_request_for_ever() {
    let book = TestLedger::ready().await;
    let reference = Some(Digest::new([5; 32]));
    let (first, _) = book.request_with(reference);
    let (other, _) = book.request_with(reference);
    book.send(first.clone()).await.unwrap();
    let refused = book.send(other).await.unwrap_err();
    assert!(
        matches!(refused, AppendError::Refused(Refusal::ClientRef)),
        "{refused}"
    );
    assert!(book.send(first).await.unwrap().repeated);
}

#[tokio::test]
async fn one_bad_statement_never_fails_its_neighbours() {
    let book = TestLedger::ready().await;
    let (good, act) = book.request();
    let unknown = book.approval(
        "bob",
        countersign_protocol::hash::StatementId::new([9; 32]),
        &act,
    );
    let (another, _) = book.request();
    let (a, b, c) = tokio::join!(book.send(good), book.send(unknown), book.send(another));
    assert!(a.is_ok() && c.is_ok());
    assert!(matches!(
        b,
        Err(AppendError::Refused(Refusal::UnknownCommand))
    ));
}

#[tokio::test]
async fn a_blob_that_is_named_must_come_and_one_that_is_not_must_not() {
    let book = TestLedger::ready().await;
    let (mut request, _) = book.request();
    let last = request.blobs.pop().unwrap();
    assert!(matches!(
        book.send(request.clone()).await,
        Err(AppendError::BlobMissing)
    ));
    request.blobs.push(last);
    let stranger = Blob::new([1; 32], b"unasked".to_vec()).unwrap();
    request.blobs.push(stranger);
    assert!(matches!(
        book.send(request.clone()).await,
        Err(AppendError::Blob(_))
    ));
    request.blobs.pop();
    assert!(book.send(request).await.is_ok());
}

#[tokio::test]
async fn a_seen_of_a_longer_or_another_log_is_refused() {
    let book = TestLedger::ready().await;
    let (request, _) = book.request();
    let verified = request.statement.clone().verify().unwrap();
    let Event::CommandRequested(event) = verified.event() else {
        panic!("not a request")
    };
    let mut ahead = event.clone();
    ahead.seen.size += 1000;
    let mut forked = event.clone();
    forked.seen.root = countersign_protocol::hash::Hash::ZERO;
    for (event, why) in [(ahead, Refusal::SeenAhead), (forked, Refusal::SeenFork)] {
        let sent = crate::statements::signed("alice", &event.into(), request.blobs.clone());
        let refused = book.send(sent).await.unwrap_err();
        assert!(matches!(refused, AppendError::Refused(refusal) if refusal == why));
    }
}

#[tokio::test]
async fn a_restart_reads_everything_back() {
    let book = TestLedger::ready().await;
    let (command, act) = {
        let (request, act) = book.request();
        (book.send(request).await.unwrap().id, act)
    };
    book.send(book.approval("bob", command, &act))
        .await
        .unwrap();
    let again = book.reopen().await.unwrap();
    let receipt = again
        .append(book.approval("carol", command, &act))
        .await
        .unwrap();
    assert_eq!(receipt.status, Some(CommandStatus::Authorized));
    book.run(command).await;
    audit_database(&book.database.app).await;
}

#[tokio::test]
async fn a_closed_command_is_read_back_when_something_touches_it() {
    let book = TestLedger::ready().await;
    let (command, act) = book.authorized().await;
    book.run(command).await;
    let refused = book
        .send(book.approval("bob", command, &act))
        .await
        .unwrap_err();
    let over = Refusal::Over(CommandStatus::Completed);
    assert!(matches!(refused, AppendError::Refused(refusal) if refusal == over));
}

#[tokio::test]
async fn two_servers_on_one_database_interleave() {
    let book = TestLedger::ready().await;
    let pool = book.database.another_app().await;
    let mut settings = book.settings(pool, StartRule::FirstStart);
    settings.checkpoint_file = book.folder.path().join("other-checkpoint");
    let other = Ledger::open(settings).await.unwrap();
    let before = book.ledger.newest().size();
    let mut sends = Vec::new();
    for n in 0..60 {
        let (request, _) = book.request();
        let ledger = if n % 2 == 0 {
            book.ledger.clone()
        } else {
            other.clone()
        };
        sends.push(tokio::spawn(async move {
            ledger.append(request).await.unwrap().seq
        }));
    }
    let mut seqs = Vec::new();
    for send in sends {
        seqs.push(send.await.unwrap());
    }
    seqs.sort_unstable();
    let expected: Vec<u64> = (before..before + 60).collect();
    assert_eq!(seqs, expected);
    let auditor = audit_database(&book.database.app).await;
    assert_eq!(auditor.size(), before + 60);
}

#[tokio::test]
async fn a_heartbeat_follows_an_idle_minute_and_not_before() {
    let book = TestLedger::two_minutes_ago().await;
    let size = book.ledger.newest().size();
    for (micros, wanted) in [(59_000_000, size), (2_000_000, size + 1), (0, size + 1)] {
        book.clock.advance(micros);
        book.ledger.append_due().await.unwrap();
        assert_eq!(book.ledger.newest().size(), wanted);
    }
    audit_database(&book.database.app).await;
}

/// A server whose clock is that many microseconds off from the database's.
async fn server_that_is_off(book: &TestLedger, off_us: i64) -> Ledger {
    let now = book.clock.now().as_micros();
    let off = Time::from_micros(now.checked_add_signed(off_us).unwrap()).unwrap();
    let pool = book.database.another_app().await;
    let settings = Settings {
        checkpoint_file: book.folder.path().join(format!("{off_us}")),
        clock: Clock::fixed(off),
        ..book.settings(pool, StartRule::FirstStart)
    };
    Ledger::open(settings).await.unwrap()
}

#[tokio::test]
async fn a_clock_that_is_wrong_writes_nothing() {
    let book = TestLedger::ready().await;
    // Well past the limits of 10 and 5 seconds, since a busy machine is slow between these lines.
    for wrong in [-30_000_000, 30_000_000] {
        let ledger = server_that_is_off(&book, wrong).await;
        let (request, _) = book.request();
        assert!(matches!(
            ledger.append(request).await,
            Err(AppendError::Clock)
        ));
    }
}

/// The one that is wrong writes nothing, so that the other one is not behind what it wrote.
#[tokio::test]
async fn of_two_servers_a_minute_apart_the_one_that_is_right_writes() {
    let book = TestLedger::ready().await;
    let wrong = server_that_is_off(&book, 60_000_000).await;
    let right = server_that_is_off(&book, 0).await;
    let (request, _) = book.request();
    let refused = wrong.append(request.clone()).await.map(|it| it.seq);
    assert!(matches!(refused, Err(AppendError::Clock)), "{refused:?}");
    right.append(request).await.unwrap();
    audit_database(&book.database.app).await;
}

/// A request whose blobs came over an hour ago with a statement that was refused is sent again, and what
/// nobody names is purged before it is entered. `brought` says which blobs come with it this time.
async fn sent_again(brought: impl Fn(&Blob, &CommandRequested) -> bool) {
    let book = TestLedger::ready().await;
    let (request, _) = book.request();
    for blob in &request.blobs {
        sqlx::query(
            "INSERT INTO blobs (digest, salt, content, stored_at)
             VALUES ($1, $2, $3, now() - interval '61 minutes')",
        )
        .bind(blob.reference().digest.as_bytes().as_slice())
        .bind(blob.salt().as_slice())
        .bind(blob.content())
        .execute(&book.database.app)
        .await
        .unwrap();
    }
    let verified = request.statement.clone().verify().unwrap();
    let Event::CommandRequested(event) = verified.event() else {
        unreachable!()
    };
    let mut again = request;
    again.blobs.retain(|blob| brought(blob, event));
    let admitted = book.ledger.admit(again).await.unwrap();
    book.ledger.purge_unreferenced_blobs().await.unwrap();
    book.ledger.enter(admitted).await.unwrap();
    audit_database(&book.database.app).await;
}

#[tokio::test]
async fn what_is_sent_again_is_not_purged_before_it_is_entered() {
    sent_again(|_, _| true).await;
}

/// Documents are always brought; a reason may be here already.
#[tokio::test]
async fn what_is_named_again_is_not_purged_before_it_is_entered() {
    sent_again(|blob, event| blob.reference() != event.reason).await;
}
