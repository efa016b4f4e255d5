//! A server that is told to stop stops, whatever the database does.

use std::time::Duration;

use countersign::ledger::StartRule;
use countersign::server::{Options, Server, Way};
use tokio_util::sync::CancellationToken;

use crate::support::TestLedger;

/// As long as a heartbeat takes, and a little.
const IDLE_US: u64 = 61_000_000;

async fn serve(book: &TestLedger, shutdown: &CancellationToken) -> Server {
    let options = Options {
        database: book.database.app_url().await.into(),
        keys: book.folder.path().to_owned(),
        checkpoint_file: book.folder.path().join("served-checkpoint"),
        start: StartRule::FirstStart,
        listen: "127.0.0.1:0".parse().unwrap(),
        way: Way::default(),

        witness_policy: None,
        feed: None,
        clock: book.clock.clone(),
    };
    Server::start(options, shutdown.clone()).await.unwrap()
}

/// Another server that was paused, or cut off, holds the head.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_stops_while_another_holds_the_head() {
    let book = TestLedger::two_minutes_ago().await;
    book.clock.advance(IDLE_US);
    let mut paused = book.database.owner.begin().await.unwrap();
    sqlx::query("SELECT FROM head FOR UPDATE")
        .execute(&mut *paused)
        .await
        .unwrap();
    let shutdown = CancellationToken::new();
    // Its clock is past a heartbeat: the writer waits for the head by itself.
    let starting = serve(&book, &shutdown);
    let starting = tokio::time::timeout(Duration::from_secs(2), starting).await;
    assert!(starting.is_err(), "it opened without the head");
    drop(paused);
    let server = serve(&book, &shutdown).await;
    let mut paused = book.database.owner.begin().await.unwrap();
    sqlx::query("SELECT FROM head FOR UPDATE")
        .execute(&mut *paused)
        .await
        .unwrap();
    let address = server.address();
    let stopped = tokio::spawn(server.run());
    tokio::time::sleep(Duration::from_secs(3)).await;
    // Something to write: the idle minute is over for ever.
    let _asked = reqwest::get(format!("http://{address}/readyz")).await;
    shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(9), stopped)
        .await
        .expect("the server stops within ten seconds")
        .unwrap()
        .unwrap();
}

/// The other one was paused in the middle of a batch: after a while the database takes the head
/// from it.
#[tokio::test(flavor = "multi_thread")]
async fn a_paused_server_does_not_hold_the_head_for_ever() {
    let book = TestLedger::ready().await;
    let url = book.database.app_url().await.into();
    let pool = countersign::server::connect(&url).await.unwrap();
    let mut paused = pool.begin().await.unwrap();
    countersign::ledger::store::lock_head(&mut paused)
        .await
        .unwrap();
    let (request, _) = book.request();
    let sent = tokio::time::timeout(Duration::from_secs(20), book.send(request));
    sent.await.expect("the head is free again").unwrap();
    assert!(paused.commit().await.is_err());
}

/// What nobody names is looked for in `blobs` from the start on; somebody else holds that table.
#[tokio::test(flavor = "multi_thread")]
async fn a_purge_that_waits_holds_up_neither_what_is_due_nor_the_end() {
    let book = TestLedger::two_minutes_ago().await;
    let mut busy = book.database.owner.begin().await.unwrap();
    sqlx::query("LOCK TABLE blobs IN SHARE ROW EXCLUSIVE MODE")
        .execute(&mut *busy)
        .await
        .unwrap();
    let shutdown = CancellationToken::new();
    let server = serve(&book, &shutdown).await;
    book.database.until_a_lock_is_awaited().await;
    let size = book.ledger.newest().size();
    book.clock.advance(IDLE_US);
    let heartbeat = async {
        while book.ledger.newest().size() == size {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), heartbeat)
        .await
        .expect("what is due is written meanwhile");
    let stopped = tokio::spawn(server.run());
    shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(9), stopped)
        .await
        .expect("the server stops within ten seconds")
        .unwrap()
        .unwrap();
}
