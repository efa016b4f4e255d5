//! A database that was rolled back or rewritten is not served.

use std::path::Path;

use countersign::ledger::{OpenError, StartRule};

use crate::folder::Folder;
use crate::support::TestLedger;

/// A copy of the head; the size of the log at that moment comes back.
pub(crate) async fn back_up(book: &TestLedger) -> u64 {
    sqlx::query("CREATE TABLE backup AS SELECT * FROM head")
        .execute(&book.database.owner)
        .await
        .unwrap();
    book.ledger.newest().size()
}

/// What a superuser would do: switch the guards off, cut the log behind `size`, and put the head of
/// [`back_up`] back.
pub(crate) async fn restore(book: &TestLedger, size: u64) {
    let owner = &book.database.owner;
    let size = i64::try_from(size).unwrap();
    for table in [
        "entries",
        "checkpoints",
        "blob_references",
        "statements",
        "client_refs",
        "agent_statements",
        "label_turns",
        "subtrees",
    ] {
        let off = format!("ALTER TABLE {table} DISABLE TRIGGER USER");
        sqlx::query(sqlx::AssertSqlSafe(off))
            .execute(owner)
            .await
            .unwrap();
    }
    for statement in [
        "DELETE FROM agent_statements WHERE statement_id IN (SELECT statement_id FROM statements WHERE seq >= $1)",
        "DELETE FROM client_refs WHERE statement_id IN (SELECT statement_id FROM statements WHERE seq >= $1)",
        "DELETE FROM label_turns WHERE seq >= $1",
        "DELETE FROM statements WHERE seq >= $1",
        "DELETE FROM blob_references WHERE seq >= $1",
        "DELETE FROM entries WHERE seq >= $1",
        "DELETE FROM checkpoints WHERE size > $1",
        "DELETE FROM subtrees WHERE $1::bigint IS NOT NULL",
    ] {
        sqlx::query(statement)
            .bind(size)
            .execute(owner)
            .await
            .unwrap();
    }
    sqlx::query(
        "UPDATE head SET (size, last_leaf, last_time_us, right_edge, note) =
         (SELECT size, last_leaf, last_time_us, right_edge, note FROM backup)",
    )
    .execute(owner)
    .await
    .unwrap();
}

#[tokio::test]
async fn a_database_restored_from_a_backup_is_refused() {
    let book = TestLedger::ready().await;
    let size = back_up(&book).await;
    let (request, _) = book.request();
    book.send(request).await.unwrap();
    restore(&book, size).await;
    sqlx::query("DELETE FROM open_streams")
        .execute(&book.database.owner)
        .await
        .unwrap();
    let refused = book.reopen().await.unwrap_err();
    assert!(
        matches!(refused, OpenError::Behind { database, file } if database == size && file == size + 1),
        "{refused}"
    );
}

#[tokio::test]
async fn a_running_server_stops_when_the_database_goes_back() {
    let book = TestLedger::ready().await;
    let size = back_up(&book).await;
    let (request, _) = book.request();
    book.send(request).await.unwrap();
    restore(&book, size).await;
    let (request, _) = book.request();
    let stopped = book.send(request).await.unwrap_err();
    assert!(
        matches!(stopped, countersign::ledger::AppendError::Stopped(_)),
        "{stopped}"
    );
}

#[tokio::test]
async fn another_history_of_the_same_length_is_refused() {
    let book = TestLedger::ready().await;
    let note = std::fs::read_to_string(book.checkpoint_file()).unwrap();
    let owner = &book.database.owner;
    // One bit of an old entry's signature, with the guards off: the byte may be any, zero too.
    sqlx::query("ALTER TABLE entries DISABLE TRIGGER USER")
        .execute(owner)
        .await
        .unwrap();
    sqlx::query("UPDATE entries SET entry = set_byte(entry, length(entry) - 1, get_byte(entry, length(entry) - 1) # 1) WHERE seq = 2")
        .execute(owner)
        .await
        .unwrap();
    let refused = book.reopen().await.unwrap_err();
    assert!(
        matches!(
            refused,
            OpenError::Entry { seq: 2, .. } | OpenError::OtherHistory(_)
        ),
        "{refused}"
    );
    assert_eq!(
        std::fs::read_to_string(book.checkpoint_file()).unwrap(),
        note
    );
}

#[tokio::test]
async fn a_ledger_with_entries_needs_its_file_or_a_word() {
    let book = TestLedger::ready().await;
    let note = std::fs::read_to_string(book.checkpoint_file()).unwrap();
    std::fs::remove_file(book.checkpoint_file()).unwrap();
    let refused = book.reopen().await.unwrap_err();
    assert!(matches!(refused, OpenError::NoFile { .. }), "{refused}");
    let pool = book.database.another_app().await;
    let accepted =
        countersign::ledger::Ledger::open(book.settings(pool, StartRule::Accept(note))).await;
    assert!(accepted.is_ok());
    assert!(book.checkpoint_file().exists());
}

#[tokio::test]
async fn foreign_keys_do_not_open_a_ledger() {
    let book = TestLedger::ready().await;
    let pool = book.database.another_app().await;
    let mut settings = book.settings(pool, StartRule::FileRequired);
    settings.keys = countersign::keys::LedgerKeys::generate();
    let refused = countersign::ledger::Ledger::open(settings)
        .await
        .unwrap_err();
    assert!(matches!(refused, OpenError::OtherKeys), "{refused}");
}

#[tokio::test]
async fn a_foreign_key_of_the_gateway_does_not_open_a_ledger_and_none_does() {
    let book = TestLedger::ready().await;
    let other = countersign::keys::LedgerKeys::generate();
    let folder = Folder::new("other-keys");
    other.write_new(folder.path()).unwrap();
    let file = |folder: &Path| folder.join(countersign::keys::GATEWAY_KEY_FILE);
    std::fs::copy(file(folder.path()), file(book.folder.path())).unwrap();
    let refused = book.reopen().await.unwrap_err();
    assert!(matches!(refused, OpenError::OtherKeys), "{refused}");
    std::fs::remove_file(file(book.folder.path())).unwrap();
    book.reopen().await.unwrap();
}

/// The file was lost, an old one came back with the database; the operator holds a newer note.
#[tokio::test]
async fn a_note_that_is_given_is_checked_beside_a_file_too() {
    let book = TestLedger::ready().await;
    let size = back_up(&book).await;
    let file = std::fs::read_to_string(book.checkpoint_file()).unwrap();
    let (request, _) = book.request();
    let newer = book.send(request).await.unwrap().checkpoint;
    restore(&book, size).await;
    sqlx::query("DELETE FROM open_streams")
        .execute(&book.database.owner)
        .await
        .unwrap();
    std::fs::write(book.checkpoint_file(), file).unwrap();
    let given = async |note: &str| {
        let pool = book.database.another_app().await;
        let start = StartRule::Accept(note.to_owned());
        countersign::ledger::Ledger::open(book.settings(pool, start))
            .await
            .map(|ledger| ledger.newest().size())
    };
    let refused = given(newer.note()).await;
    assert!(
        matches!(refused, Err(OpenError::Behind { database, file }) if database == size && file == size + 1),
        "{refused:?}"
    );
    // Half of a note says nothing, and is not passed over.
    let (half, _) = newer.note().split_once('\u{2014}').unwrap();
    let refused = given(half).await;
    assert!(refused.is_err(), "{refused:?}");
}
