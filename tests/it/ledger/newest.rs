//! What a server knows of what other servers on its database commit.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use countersign::ledger::{AppendError, Ledger, OpenError, Settings, StartRule, history};
use countersign_protocol::lifecycle::CommandStatus;
use countersign_protocol::name::SECOND_US;

use super::rollback::{back_up, restore};
use crate::statements::Ask;
use crate::support::{TestLedger, make_unwritable, mend};

/// Longer than a server waits for room on its disk.
const PATIENCE: Duration = Duration::from_secs(20);

/// The next look of its own is over by then.
const A_LOOK: Duration = Duration::from_millis(600);

/// Longer as well, where nothing is to come of it.
const WITHOUT_ROOM: Duration = Duration::from_secs(7);

/// A second server on the same database, with a file of its own in a folder of its own.
async fn beside(book: &TestLedger) -> (Ledger, PathBuf) {
    let folder = book.folder.path().join("beside");
    fs::create_dir(&folder).unwrap();
    let checkpoint_file = folder.join("checkpoint");
    let pool = book.database.another_app().await;
    let settings = Settings {
        checkpoint_file: checkpoint_file.clone(),
        ..book.settings(pool, StartRule::FirstStart)
    };
    (Ledger::open(settings).await.unwrap(), checkpoint_file)
}

#[tokio::test]
async fn after_a_look_it_knows_and_keeps_what_another_server_committed() {
    let book = TestLedger::ready().await;
    let (second, file) = beside(&book).await;
    let (request, _) = book.request();
    let receipt = book.send(request).await.unwrap();
    second.look().await.unwrap();
    let newest = second.newest();
    assert_eq!(newest.note(), receipt.checkpoint.note());
    assert_eq!(fs::read_to_string(file).unwrap(), newest.note());
}

/// Each would otherwise wait for the pool's whole patience, one after the other.
#[tokio::test]
async fn who_asks_a_database_that_does_not_answer_waits_once_with_all_others() {
    let book = TestLedger::ready().await;
    let (second, _file) = beside(&book).await;
    let pool = second.pool();
    let patience = pool.options().get_acquire_timeout();
    let mut others = Vec::new();
    for _other in 0..pool.options().get_max_connections() {
        others.push(pool.acquire().await.unwrap());
    }
    let begun = Instant::now();
    let looks = futures_util::future::join_all((0..8).map(|_| second.look()));
    assert!(looks.await.iter().all(Result::is_err));
    assert!(begun.elapsed() < patience * 5, "{:?}", begun.elapsed());
    // Nothing of that is remembered.
    drop(others);
    second.look().await.unwrap();
}

/// The one that wrote it may be gone.
#[tokio::test]
async fn what_another_server_wrote_is_due_here_too() {
    let book = TestLedger::two_minutes_ago().await;
    let (second, _file) = beside(&book).await;
    second.append_due().await.unwrap();
    let (request, act) = book.ask(&Ask {
        seconds: 20,
        ..Ask::of("web-1")
    });
    let command = book.send(request).await.unwrap().id;
    second.look().await.unwrap();
    book.clock.advance(30 * SECOND_US);
    assert!(book.clock.now() > act.expires_at);
    second.append_due().await.unwrap();
    let size = second.newest().size();
    let mut connection = book.database.app.acquire().await.unwrap();
    let command = history::command(&mut connection, command, size).await;
    let status = command.unwrap().unwrap().status();
    assert_eq!(status, CommandStatus::Expired);
}

#[tokio::test]
async fn a_server_that_only_watched_stops_when_the_database_goes_back() {
    let book = TestLedger::ready().await;
    let size = back_up(&book).await;
    let (second, _file) = beside(&book).await;
    let (request, _) = book.request();
    book.send(request.clone()).await.unwrap();
    second.look().await.unwrap();
    restore(&book, size).await;
    let found = second.look().await.unwrap_err();
    assert!(
        matches!(found, OpenError::Behind { database, file } if database == size && file == size + 1),
        "{found}"
    );
    assert!(second.is_stopped());
    let refused = second.append(request).await.unwrap_err();
    assert!(matches!(refused, AppendError::Stopped(_)), "{refused}");
}

#[tokio::test]
async fn another_note_for_the_same_entries_stops_it() {
    let book = TestLedger::ready().await;
    let (second, _file) = beside(&book).await;
    second.look().await.unwrap();
    sqlx::query("UPDATE head SET note = note || 'x'")
        .execute(&book.database.owner)
        .await
        .unwrap();
    let found = second.look().await.unwrap_err();
    assert!(matches!(found, OpenError::Checkpoint(_)), "{found}");
    assert!(second.is_stopped());
}

#[tokio::test]
async fn what_cannot_be_kept_is_not_told_and_is_no_reason_to_stop() {
    let book = TestLedger::ready().await;
    let (second, file) = beside(&book).await;
    let folder = file.parent().unwrap();
    let aside = folder.with_extension("aside");
    fs::rename(folder, &aside).unwrap();
    let size = second.newest().size();
    let (request, _) = book.request();
    book.send(request).await.unwrap();
    let failed = second.look().await.unwrap_err();
    assert!(matches!(failed, OpenError::File(_)), "{failed}");
    assert_eq!(second.newest().size(), size);
    assert!(!second.is_stopped());
    fs::rename(&aside, folder).unwrap();
    second.look().await.unwrap();
    assert_eq!(second.newest().size(), size + 1);
}

#[tokio::test]
async fn a_repeat_is_not_answered_with_what_cannot_be_kept() {
    let book = TestLedger::ready().await;
    let (second, file) = beside(&book).await;
    let folder = file.parent().unwrap();
    let aside = folder.with_extension("aside");
    fs::rename(folder, &aside).unwrap();
    let (request, _) = book.request();
    let seq = book.send(request.clone()).await.unwrap().seq;
    let told = second.append(request.clone()).await;
    assert!(told.is_err(), "{told:?}");
    assert!(!second.is_stopped());
    fs::rename(&aside, folder).unwrap();
    let receipt = second.append(request).await.unwrap();
    assert!(receipt.repeated && receipt.seq == seq);
    assert_eq!(fs::read_to_string(file).unwrap(), receipt.checkpoint.note());
}

async fn hears_nothing(server: &Ledger) {
    let lost = async { server.learning().lost().await };
    tokio::time::timeout(PATIENCE, lost)
        .await
        .expect("it says so");
}

#[tokio::test]
async fn a_server_that_cannot_keep_what_others_commit_says_so_until_it_can() {
    let book = TestLedger::ready().await;
    let (second, file) = beside(&book).await;
    make_unwritable(&file);
    book.send(book.request().0).await.unwrap();
    tokio::time::sleep(A_LOOK).await;
    second.look().await.unwrap_err();
    assert!(second.learning().holds(), "there may be room in a moment");
    hears_nothing(&second).await;
    assert!(!second.is_stopped());
    mend(&file);
    let mut told = second.watch();
    let newest = told.wait_for(|told| told.note() == book.ledger.newest().note());
    tokio::time::timeout(PATIENCE, newest)
        .await
        .unwrap()
        .unwrap();
    second.look().await.unwrap();
    tokio::time::sleep(A_LOOK).await;
    assert!(second.learning().holds());
}

#[tokio::test]
async fn a_server_that_has_stopped_learns_nothing_more_and_says_so() {
    let book = TestLedger::ready().await;
    make_unwritable(&book.checkpoint_file());
    let refused = book.send(book.request().0).await.unwrap_err();
    assert!(matches!(refused, AppendError::Stopped(_)), "{refused}");
    hears_nothing(&book.ledger).await;
    mend(&book.checkpoint_file());
    tokio::time::sleep(A_LOOK).await;
    assert!(!book.ledger.learning().holds(), "until it is started anew");
}

/// A fleet that was sent away comes back at once: each call would otherwise try for itself, one after the other.
#[tokio::test]
async fn what_cannot_be_kept_is_tried_once_for_all_who_wait() {
    let book = TestLedger::ready().await;
    let (second, file) = beside(&book).await;
    make_unwritable(&file);
    book.send(book.request().0).await.unwrap();
    let looks = futures_util::future::join_all((0..20).map(|_| second.look()));
    let looks = looks.await;
    let tried = |looked: &&Result<(), OpenError>| matches!(looked, Err(OpenError::File(_)));
    let shared = |looked: &&Result<(), OpenError>| matches!(looked, Err(OpenError::Unkept));
    let (tried, shared) = (looks.iter().filter(tried), looks.iter().filter(shared));
    let (tried, shared) = (tried.count(), shared.count());
    assert!(tried <= 2 && tried + shared == 20, "{tried} {shared}");
}

/// All servers share it: nobody who listens here would hear more elsewhere.
#[tokio::test]
async fn a_database_that_is_away_sends_nobody_away() {
    let book = TestLedger::ready().await;
    let (second, file) = beside(&book).await;
    // Also where there was no room for a moment, just before: nothing is known of that meanwhile.
    make_unwritable(&file);
    book.send(book.request().0).await.unwrap();
    tokio::time::sleep(A_LOOK).await;
    second.pool().close().await;
    second.look().await.unwrap_err();
    tokio::time::sleep(WITHOUT_ROOM).await;
    assert!(second.learning().holds());
    assert!(!second.is_stopped());
}
