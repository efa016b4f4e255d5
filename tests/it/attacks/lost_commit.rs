//! The answer to a COMMIT is lost: what became of it is read, never guessed.

use countersign::ledger::{AppendError, Ledger, StartRule};
use sqlx::PgPool;

use super::severing::{Fault, Network};
use crate::ledger::append::audit_database;
use crate::support::TestLedger;

/// A server of the same ledger whose database is behind a network that breaks. Its checkpoint file
/// is its own.
async fn behind(book: &TestLedger, network: &Network) -> Ledger {
    let mut settings = book.settings(network.pool().await, StartRule::FirstStart);
    settings.checkpoint_file = book.folder.path().join("severed-checkpoint");
    Ledger::open(settings).await.unwrap()
}

fn noted(book: &TestLedger) -> String {
    std::fs::read_to_string(book.folder.path().join("severed-checkpoint")).unwrap()
}

async fn entries(pool: &PgPool) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM entries")
        .fetch_one(pool)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_commit_that_never_arrived_is_no_receipt_and_the_retry_is_entered_once() {
    let book = TestLedger::ready().await;
    let network = Network::to(&book.database.app);
    let ledger = behind(&book, &network).await;
    let (request, _) = book.request();
    let admitted = ledger.admit(request.clone()).await.unwrap();
    let (size, note) = (entries(&book.database.app).await, noted(&book));
    network.break_at(Fault::BeforeCommit).await;
    let lost = ledger.enter(admitted).await;
    assert!(network.has_broken().await);
    let lost = lost.map(|receipt| receipt.seq);
    assert!(matches!(lost, Err(AppendError::Unavailable)), "{lost:?}");
    assert_eq!(entries(&book.database.app).await, size);
    assert_eq!(noted(&book), note, "what did not happen is nowhere noted");
    let again = ledger.append(request.clone()).await.unwrap();
    assert!(!again.repeated);
    assert!(ledger.append(request).await.unwrap().repeated);
    assert_eq!(entries(&book.database.app).await, size + 1);
    audit_database(&book.database.app).await;
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_found_and_gets_its_receipt() {
    for fault in [Fault::AfterCommit, Fault::LateCommit] {
        let book = TestLedger::ready().await;
        let network = Network::to(&book.database.app);
        let ledger = behind(&book, &network).await;
        let (request, _) = book.request();
        let admitted = ledger.admit(request.clone()).await.unwrap();
        let size = entries(&book.database.app).await;
        network.break_at(fault).await;
        let receipt = ledger.enter(admitted).await.unwrap();
        assert!(network.has_broken().await);
        assert!(!receipt.repeated, "{fault:?}");
        assert_eq!(noted(&book), receipt.checkpoint.note());
        let again = ledger.append(request).await.unwrap();
        assert!(again.repeated);
        assert_eq!((again.seq, &again.entry), (receipt.seq, &receipt.entry));
        assert_eq!(entries(&book.database.app).await, size + 1);
        // The state that is held is the database's: the next one goes on from there.
        let (next, _) = book.request();
        assert_eq!(ledger.append(next).await.unwrap().seq, receipt.seq + 1);
        audit_database(&book.database.app).await;
    }
}

#[tokio::test]
async fn a_commit_that_cannot_be_asked_about_is_unknown_and_its_note_stays_inside() {
    let book = TestLedger::ready().await;
    let network = Network::to(&book.database.app);
    let ledger = behind(&book, &network).await;
    let (request, _) = book.request();
    let admitted = ledger.admit(request.clone()).await.unwrap();
    let (size, note) = (ledger.newest().size(), noted(&book));
    network.break_at(Fault::AfterCommitForLong).await;
    let lost = ledger.enter(admitted).await;
    assert!(network.has_broken().await);
    let lost = lost.map(|receipt| receipt.seq);
    assert!(matches!(lost, Err(AppendError::Unavailable)), "{lost:?}");
    assert_eq!(ledger.newest().size(), size);
    assert_eq!(noted(&book), note);
    network.mend();
    let again = ledger.append(request).await.unwrap();
    assert!(again.repeated, "it was committed all the same");
    assert_eq!(again.seq, size);
    let (next, _) = book.request();
    assert_eq!(ledger.append(next).await.unwrap().seq, size + 1);
    audit_database(&book.database.app).await;
}
