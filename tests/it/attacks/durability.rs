//! The checkpoint cannot be made durable: nothing is acknowledged, and a restart is consistent.

use std::os::unix::fs::symlink;
use std::path::Path;

use countersign::ledger::AppendError;
use countersign_protocol::effect::Note;
use countersign_protocol::event::DeniedWhat;

use crate::ledger::append::audit_database;
use crate::support::TestLedger;

/// Breaks the file in one way; what is returned mends it.
type Break = fn(&Path) -> Box<dyn Fn()>;

/// Every write fails with ENOSPC.
fn full_disk(file: &Path) -> Box<dyn Fn()> {
    let beside = file.with_extension("new");
    symlink("/dev/full", &beside).unwrap();
    Box::new(move || std::fs::remove_file(&beside).unwrap())
}

/// Writes succeed and fsync does not.
fn failing_fsync(file: &Path) -> Box<dyn Fn()> {
    let beside = file.with_extension("new");
    symlink("/dev/null", &beside).unwrap();
    Box::new(move || std::fs::remove_file(&beside).unwrap())
}

/// The file beside cannot be made, as in a folder that became read-only (which root would not
/// notice).
fn no_place(file: &Path) -> Box<dyn Fn()> {
    let beside = file.with_extension("new");
    std::fs::create_dir(&beside).unwrap();
    Box::new(move || std::fs::remove_dir(&beside).unwrap())
}

#[tokio::test]
async fn what_cannot_be_noted_is_not_acknowledged_and_stands_after_a_restart() {
    let breaks: [Break; 3] = [full_disk, failing_fsync, no_place];
    for (n, break_it) in breaks.into_iter().enumerate() {
        let book = TestLedger::ready().await;
        let (file, size) = (book.checkpoint_file(), book.ledger.newest().size());
        let note = std::fs::read_to_string(&file).unwrap();
        let mend = break_it(&file);
        let (request, _) = book.request();
        let refused = book.send(request.clone()).await.map(|receipt| receipt.seq);
        assert!(
            matches!(refused, Err(AppendError::Stopped(_))),
            "{n}: {refused:?}"
        );
        // Nothing more is taken: the next one could not be noted either.
        let refused = book.send(request.clone()).await;
        assert!(matches!(refused, Err(AppendError::Stopped(_))), "{n}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), note, "{n}");
        mend();
        let again = book.reopen().await.unwrap();
        let receipt = again.append(request).await.unwrap();
        assert!(receipt.repeated, "{n}: it had been committed");
        assert_eq!(receipt.seq, size);
        assert_eq!(again.newest().size(), size + 1);
        assert_eq!(
            std::fs::read_to_string(&file).unwrap(),
            again.newest().note()
        );
        audit_database(&book.database.app).await;
    }
}

/// After a crash between COMMIT and the file, the file is behind the database; that is no rollback.
#[tokio::test]
async fn a_file_that_is_behind_the_database_is_brought_up_at_the_start() {
    let book = TestLedger::ready().await;
    let note = std::fs::read_to_string(book.checkpoint_file()).unwrap();
    let (request, _) = book.request();
    book.send(request.clone()).await.unwrap();
    std::fs::write(book.checkpoint_file(), note).unwrap();
    let again = book.reopen().await.unwrap();
    assert!(again.append(request).await.unwrap().repeated);
    assert_eq!(
        std::fs::read_to_string(book.checkpoint_file()).unwrap(),
        again.newest().note()
    );
}

/// What waits at the door when the ledger stops hears that, and not that the database is away.
#[tokio::test]
async fn a_note_that_waits_when_the_ledger_stops_is_told_so() {
    let book = TestLedger::ready().await;
    let _mend = no_place(&book.checkpoint_file());
    let mut held = book.database.owner.begin().await.unwrap();
    sqlx::query("SELECT FROM head FOR UPDATE")
        .execute(&mut *held)
        .await
        .unwrap();
    let (request, _) = book.request();
    let request = book.ledger.admit(request).await.unwrap();
    let ledger = book.ledger.clone();
    let entering = tokio::spawn(async move { ledger.enter(request).await });
    book.database.until_a_lock_is_awaited().await;
    let now = book.clock.now();
    let note = Note::Denied {
        what: DeniedWhat::RateLimit,
        principal: None,
        permission: None,
        count: 1,
        from: now,
        to: now,
    };
    let ledger = book.ledger.clone();
    let noting = tokio::spawn(async move { ledger.note(note).await });
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    held.rollback().await.unwrap();
    let refused = entering.await.unwrap().map(|receipt| receipt.seq);
    assert!(
        matches!(refused, Err(AppendError::Stopped(_))),
        "{refused:?}"
    );
    let refused = noting.await.unwrap();
    assert!(
        matches!(refused, Err(AppendError::Stopped(_))),
        "{refused:?}"
    );
}
