//! What servers that run have of lists that are built, begun anew or caught up with at the same moment: what
//! they had before, or the word that nobody knows; never nothing in the place of something.

use std::time::{Duration, Instant};

use countersign::projections::{self, Bell, Calls, ReadError};
use countersign_protocol::api::{LiveEntry, Work};
use reqwest::Response;
use sqlx::postgres::PgPoolOptions;

use super::{PATIENCE, differences, one};
use crate::http::streams::events;
use crate::statements::public;
use crate::support::{TestLedger, TestServer, have, hold};

/// Less than a list waits for a lock, and more than one takes that nobody holds up.
const SOON: Duration = Duration::from_secs(5);

/// What words of people without a text do not need, and building everything from the first entry does.
const TEXTS: &str = "LOCK TABLE blob_texts IN ACCESS EXCLUSIVE MODE";

/// What reading the rights needs, and an approval without a text does not.
const BLOBS: &str = "LOCK TABLE blobs IN ACCESS EXCLUSIVE MODE";

async fn granted(work: &mut Response) -> bool {
    let granted = tokio::time::timeout(SOON, events::<Work>(work, 1)).await;
    granted.is_ok_and(|granted| matches!(granted.as_slice(), [(_, Work::Grant(_))]))
}

#[tokio::test]
async fn lists_follow_and_hosts_are_woken_while_the_lists_are_built_anew() {
    let server = TestServer::start().await;
    let book = &server.book;
    let (request, act) = book.request();
    let id = book.send(request).await.unwrap().id;
    let (alice, web_1) = (server.sign_in("alice").await, server.sign_in("web-1").await);
    let mut work = server.get_as(&web_1, "/v1/agents/web-1/work").await;
    server.reader.caught_up().await.unwrap();
    let held = hold(&book.database.owner, TEXTS).await;
    let pool = book.database.another_app().await;
    let judge = book.ledger.judge();
    let rebuilding = tokio::spawn(async move { projections::rebuild(&pool, &judge).await });
    book.database.until_a_lock_is_awaited().await;
    for who in ["bob", "carol"] {
        book.send(book.approval(who, id, &act)).await.unwrap();
    }
    let listed = tokio::time::timeout(SOON, server.get_as(&alice, "/v1/commands"));
    let listed = listed.await.expect("nobody waits for the build");
    assert_eq!(listed.status(), 200);
    let item = server.reader.command(&id).await.unwrap().unwrap();
    assert_eq!(item.status, "authorized");
    assert!(granted(&mut work).await, "the host is woken");
    // One that comes now gets it as well.
    let mut work = server.get_as(&web_1, "/v1/agents/web-1/work").await;
    assert!(granted(&mut work).await, "what is open is told");
    drop(held);
    let size = rebuilding.await.unwrap().unwrap();
    assert!(size >= book.ledger.newest().size());
    assert_eq!(differences(&server).await, Vec::new());
    book.run(id).await;
    assert_eq!(differences(&server).await, Vec::new());
}

#[tokio::test]
async fn lists_of_another_version_are_there_until_those_of_a_rebuild_are() {
    let book = TestLedger::ready().await;
    let app = &book.database.app;
    book.authorized().await;
    projections::rebuild(app, &book.ledger.judge())
        .await
        .unwrap();
    sqlx::query("UPDATE projections.cursors SET version = version + 1")
        .execute(app)
        .await
        .unwrap();
    let held = hold(&book.database.owner, TEXTS).await;
    let (pool, judge) = (book.database.another_app().await, book.ledger.judge());
    let rebuilding = tokio::spawn(async move { projections::rebuild(&pool, &judge).await });
    book.database.until_a_lock_is_awaited().await;
    let rows = "SELECT count(*) FROM projections.commands";
    let rows = tokio::time::timeout(SOON, sqlx::query_scalar::<_, i64>(rows).fetch_one(app));
    assert_eq!(rows.await.expect("nobody waits").unwrap(), 1);
    drop(held);
    rebuilding.await.unwrap().unwrap();
    let mut connection = app.acquire().await.unwrap();
    let judge = book.ledger.judge();
    let found = projections::compare(&mut connection, &judge).await;
    assert_eq!(found.unwrap(), Vec::new());
}

/// The newer one has begun; no entry comes that would show it.
#[tokio::test]
async fn an_older_server_beside_lists_begun_anew_does_not_say_that_there_is_nothing() {
    let server = TestServer::start().await;
    let book = &server.book;
    let (id, _) = book.authorized().await;
    let web_1 = server.sign_in("web-1").await;
    let mut work = server.get_as(&web_1, "/v1/agents/web-1/work").await;
    assert!(granted(&mut work).await);
    assert_eq!(server.reader.commands(&one()).await.unwrap().len(), 1);
    let mut newer = book.database.app.begin().await.unwrap();
    for begun in [
        "UPDATE projections.cursors SET version = version + 1, next = 0 WHERE name = 'commands'",
        "DELETE FROM projections.commands",
    ] {
        sqlx::query(begun).execute(&mut *newer).await.unwrap();
    }
    newer.commit().await.unwrap();
    let begun = Instant::now();
    while server.reader.size() > 0 {
        assert!(begun.elapsed() < SOON, "it still tells of rows");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let listed = server.reader.commands(&one()).await;
    assert!(matches!(listed, Err(ReadError::Behind)), "{listed:?}");
    let rest = tokio::time::timeout(PATIENCE, events::<Work>(&mut work, usize::MAX));
    assert_eq!(rest.await.expect("who listens leaves").len(), 0);
    // Who may do what follows from the log, and is known as before.
    assert!(server.reader.rights().await.is_ok());
    projections::rebuild(&book.database.app, &book.ledger.judge())
        .await
        .unwrap();
    assert_eq!(differences(&server).await, Vec::new());
    assert!(server.reader.command(&id).await.unwrap().is_some());
}

#[tokio::test]
async fn rows_that_were_taken_from_a_server_that_told_of_them_come_back_without_an_entry() {
    let server = TestServer::start().await;
    server.book.authorized().await;
    server.reader.caught_up().await.unwrap();
    let app = &server.book.database.app;
    let mut emptied = app.begin().await.unwrap();
    for begun in [
        "UPDATE projections.cursors SET next = 0 WHERE name = 'executions'",
        "DELETE FROM projections.executions",
    ] {
        sqlx::query(begun).execute(&mut *emptied).await.unwrap();
    }
    emptied.commit().await.unwrap();
    let begun = Instant::now();
    let rows = "SELECT count(*) FROM projections.executions";
    while sqlx::query_scalar::<_, i64>(rows)
        .fetch_one(app)
        .await
        .unwrap()
        == 0
    {
        assert!(begun.elapsed() < PATIENCE, "nobody looks");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(differences(&server).await, Vec::new());
}

/// Whoever follows takes the cursors and then the tables.
#[tokio::test]
async fn who_begins_lists_anew_holds_no_table_while_it_waits_for_who_follows() {
    let book = TestLedger::ready().await;
    let app = &book.database.app;
    projections::rebuild(app, &book.ledger.judge())
        .await
        .unwrap();
    sqlx::query("UPDATE projections.cursors SET version = 0")
        .execute(app)
        .await
        .unwrap();
    let mut follows = app.begin().await.unwrap();
    sqlx::query("SELECT FROM projections.cursors ORDER BY name FOR UPDATE")
        .execute(&mut *follows)
        .await
        .unwrap();
    let pool = book.database.another_app().await;
    let mut rows = book.follow(pool, Bell::default());
    book.database.until_a_lock_is_awaited().await;
    for step in [
        "SET LOCAL lock_timeout = '500ms'",
        "UPDATE projections.commands SET status = status",
    ] {
        let step = sqlx::query(step).execute(&mut *follows).await;
        step.expect("nobody has the table");
    }
    follows.commit().await.unwrap();
    have(&mut rows, book.ledger.newest().size()).await;
}

#[tokio::test]
async fn lists_follow_while_another_server_reads_the_rights_at_its_start() {
    let server = TestServer::start().await;
    let book = &server.book;
    let (request, act) = book.request();
    let id = book.send(request).await.unwrap().id;
    server.reader.caught_up().await.unwrap();
    let held = hold(&book.database.owner, BLOBS).await;
    let pool = book.database.another_app().await;
    let mut rows = book.follow(pool, Bell::default());
    book.database.until_a_lock_is_awaited().await;
    book.send(book.approval("bob", id, &act)).await.unwrap();
    let item = tokio::time::timeout(SOON, server.reader.command(&id)).await;
    let item = item.expect("nobody waits for who starts").unwrap();
    assert_eq!(item.unwrap().approvals, Some(1));
    drop(held);
    have(&mut rows, book.ledger.newest().size()).await;
}

/// Everybody who listens asked the database for all that is open, and all rights were read again.
#[tokio::test]
async fn a_server_that_had_no_connection_for_a_while_goes_on_where_it_was() {
    let book = TestLedger::ready().await;
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(Duration::from_millis(100))
        .connect(&book.database.app_url().await)
        .await
        .unwrap();
    let bell = Bell::default();
    let mut rows = book.follow(pool.clone(), bell.clone());
    have(&mut rows, book.ledger.newest().size()).await;
    let ear = bell.listen("web-1".parse().unwrap(), public("web-1").key_id());
    let taken = loop {
        if let Ok(connection) = pool.acquire().await {
            break connection;
        }
    };
    let (id, _) = book.authorized().await;
    // For some tries that come to nothing.
    tokio::time::sleep(Duration::from_secs(2)).await;
    drop(taken);
    have(&mut rows, book.ledger.newest().size()).await;
    let heard = tokio::time::timeout(SOON, ear.heard()).await.unwrap();
    assert!(
        matches!(&heard, Calls::Commands(called) if called.contains_key(&id)),
        "{heard:?}"
    );
}

/// Who follows may write the same text, and administrators may erase the blob.
#[tokio::test]
async fn the_texts_that_a_rebuild_finds_are_there_at_once_and_kept_from_nobody() {
    let book = TestLedger::ready().await;
    let (app, owner) = (&book.database.app, &book.database.owner);
    book.authorized().await;
    projections::rebuild(app, &book.ledger.judge())
        .await
        .unwrap();
    let emptied = sqlx::query("DELETE FROM blob_texts").execute(owner).await;
    let texts = i64::try_from(emptied.unwrap().rows_affected()).unwrap();
    let mut follows = app.begin().await.unwrap();
    sqlx::query("SELECT FROM projections.cursors ORDER BY name FOR UPDATE")
        .execute(&mut *follows)
        .await
        .unwrap();
    let (pool, judge) = (book.database.another_app().await, book.ledger.judge());
    let rebuilding = tokio::spawn(async move { projections::rebuild(&pool, &judge).await });
    book.database.until_a_lock_is_awaited().await;
    let found: i64 = sqlx::query_scalar("SELECT count(*) FROM blob_texts")
        .fetch_one(owner)
        .await
        .unwrap();
    assert!(texts > 0);
    assert_eq!(found, texts);
    let blobs = sqlx::query("SELECT FROM blobs FOR UPDATE NOWAIT").execute(owner);
    blobs.await.expect("nobody holds a blob");
    follows.commit().await.unwrap();
    rebuilding.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_command_that_the_lists_have_lost_is_not_taken_for_one_that_has_ended() {
    let server = TestServer::start().await;
    let book = &server.book;
    let (id, _) = book.authorized().await;
    let alice = server.sign_in("alice").await;
    let path = format!("/v1/commands/{id}/events");
    let mut live = server.get_as(&alice, &path).await;
    assert_eq!(events::<LiveEntry>(&mut live, 4).await.len(), 4);
    sqlx::query("DELETE FROM projections.commands WHERE id = $1")
        .bind(id.as_bytes().as_slice())
        .execute(&book.database.app)
        .await
        .unwrap();
    // Of another command, so that its row is not written again.
    book.send(book.request().0).await.unwrap();
    let rest = tokio::time::timeout(PATIENCE, live.text()).await;
    let rest = rest.expect("the stream ends").unwrap();
    assert!(rest.contains("event: problem"), "{rest}");
    assert!(rest.contains("\"behind\""), "{rest}");
}
