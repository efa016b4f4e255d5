//! What one caller can do to all others through HTTP.

use std::time::Duration;

use countersign_protocol::blob::Blob;
use countersign_protocol::event::{CommandCancelRequested, Event};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::statements::signed;
use crate::support::server::problem;
use crate::support::{TestServer, make_unwritable, mend};

/// Connections that promise a body and never send it, by nobody in particular.
#[tokio::test]
async fn bodies_that_never_come_keep_nobody_out() {
    let server = TestServer::start().await;
    let mut idle = Vec::new();
    for _each in 0..160 {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        stream
            .write_all(b"POST /v1/sessions HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n{")
            .await
            .unwrap();
        idle.push(stream);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (request, _) = server.book.request();
    let response = server.submit(&request).await;
    assert_eq!(response.status(), 201);
}

#[tokio::test]
async fn a_stream_ends_when_its_listeners_key_is_revoked() {
    let server = TestServer::start().await;
    let token = server.sign_in("carol").await;
    let (command, _) = server.book.authorized().await;
    let mut everything = server.get_as(&token, "/v1/events").await;
    let path = format!("/v1/commands/{command}/events");
    let mut one = server.get_as(&token, &path).await;
    server.book.revoke("carol").await;
    server.reader.caught_up().await.unwrap();
    server.book.run(command).await;
    for response in [&mut everything, &mut one] {
        let rest = tokio::time::timeout(Duration::from_secs(5), async {
            let mut text = Vec::new();
            while let Some(bytes) = response.chunk().await.unwrap() {
                text.extend_from_slice(&bytes);
            }
            String::from_utf8(text).unwrap()
        });
        let text = rest.await.expect("the stream ends");
        assert!(!text.contains("execution.completed"), "{text}");
    }
}

#[tokio::test]
async fn a_server_whose_ledger_has_stopped_is_not_ready() {
    let server = TestServer::start().await;
    // The file of the newest checkpoint can no longer be replaced.
    make_unwritable(&server.book.checkpoint_file());
    let (request, _) = server.book.request();
    let refused = problem(server.submit(&request).await).await;
    assert_eq!(refused, (503, "stopped".into()));
    let ready = server.call(reqwest::Method::GET, "/readyz").send();
    assert_eq!(problem(ready.await.unwrap()).await, (503, "stopped".into()));
}

/// Another server goes on; what it commits cannot be kept here, so it is not shown here.
#[tokio::test]
async fn a_server_that_cannot_keep_a_checkpoint_says_so_and_not_that_the_database_is_away() {
    let server = TestServer::start().await;
    let token = server.sign_in("alice").await;
    let other = server.book.another_server().await;
    make_unwritable(&server.book.checkpoint_file());
    let (request, _) = server.book.request();
    other.append(request.clone()).await.unwrap();
    let read = server.get_as(&token, "/v1/commands").await;
    assert_eq!(problem(read).await, (503, "checkpoint_file".into()));
    let repeat = server.submit(&request).await;
    assert_eq!(problem(repeat).await, (503, "checkpoint_file".into()));
    mend(&server.book.checkpoint_file());
    let read = server.get_as(&token, "/v1/commands").await;
    assert_eq!(read.status(), 200);
}

#[tokio::test]
async fn a_revoked_keys_blobs_are_not_stored() {
    let server = TestServer::start().await;
    server.book.revoke("carol").await;
    server.reader.caught_up().await.unwrap();
    let count = "SELECT count(*) FROM blobs";
    let app = &server.book.database.app;
    let before: i64 = sqlx::query_scalar(count).fetch_one(app).await.unwrap();
    let (signer, nonce, made_at, ledger, seen) = server.book.header("carol");
    let reason = Blob::new([8; 32], b"a lot of text".to_vec()).unwrap();
    let cancel = Event::from(CommandCancelRequested {
        signer,
        nonce,
        made_at,
        ledger,
        seen,
        principal: "carol".parse().unwrap(),
        command: countersign_protocol::hash::StatementId::new([9; 32]),
        token: None,
        reason: Some(reason.reference()),
    });
    let sent = server.submit(&signed("carol", &cancel, vec![reason])).await;
    assert_eq!(problem(sent).await, (403, "revoked_key".into()));
    let after: i64 = sqlx::query_scalar(count).fetch_one(app).await.unwrap();
    assert_eq!(after, before);
}

#[tokio::test]
async fn the_largest_event_id_is_only_far_away() {
    let server = TestServer::start().await;
    let (command, _) = server.book.authorized().await;
    let token = server.sign_in("alice").await;
    for path in [
        "/v1/events".into(),
        format!("/v1/commands/{command}/events"),
    ] {
        let response = server
            .call(reqwest::Method::GET, &path)
            .bearer_auth(&token)
            .header("last-event-id", u64::MAX.to_string())
            .send()
            .await
            .unwrap();
        assert!(
            !response.status().is_server_error(),
            "{}",
            response.status()
        );
    }
}

/// The writer has connections of its own: readers can only make readers wait.
#[tokio::test]
async fn readers_that_hold_every_connection_do_not_stop_the_writer() {
    let server = TestServer::start().await;
    let (request, _) = server.book.request();
    let mut held = Vec::new();
    for _each in 0..8 {
        held.push(server.book.database.app.acquire().await.unwrap());
    }
    let sent = tokio::time::timeout(Duration::from_secs(10), server.book.send(request));
    sent.await.expect("the writer does not wait").unwrap();
}

/// One person's listeners do not take the agents' places.
#[tokio::test]
async fn one_key_has_a_share_of_the_streams_and_not_all() {
    let server = TestServer::start().await;
    let token = server.sign_in("alice").await;
    let mut open = Vec::new();
    for _each in 0..64 {
        let stream = server.get_as(&token, "/v1/events").await;
        assert_eq!(stream.status(), 200);
        open.push(stream);
    }
    let more = server.get_as(&token, "/v1/events").await;
    assert_eq!(problem(more).await, (503, "busy".into()));
    let agent = server.sign_in("web-1").await;
    let work = server.get_as(&agent, "/v1/agents/web-1/work").await;
    assert_eq!(work.status(), 200);
    open.clear();
    // Their places are free again once the server has noticed.
    let free = tokio::time::timeout(Duration::from_secs(10), async {
        while server.get_as(&token, "/v1/events").await.status() != 200 {
            server.book.authorized().await;
        }
    });
    free.await.expect("the places are free again");
}

/// Lists are built beside the old ones: who reads meanwhile does not wait.
#[tokio::test]
async fn readers_do_not_wait_for_a_rebuild() {
    let server = TestServer::start().await;
    server.book.authorized().await;
    let token = server.sign_in("alice").await;
    server.get_as(&token, "/v1/commands").await;
    server.reader.caught_up().await.unwrap();
    // The fold needs documents, and here it waits for them.
    let mut lock = server.book.database.owner.begin().await.unwrap();
    sqlx::query("LOCK TABLE blobs IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *lock)
        .await
        .unwrap();
    let pool = server.book.database.another_app().await;
    let judge = server.book.ledger.judge();
    let rebuilding =
        tokio::spawn(async move { countersign::projections::rebuild(&pool, &judge).await });
    server.book.database.until_a_lock_is_awaited().await;
    let listed = tokio::time::timeout(
        Duration::from_secs(5),
        server.get_as(&token, "/v1/commands"),
    );
    let listed = listed.await.expect("the old list is there");
    assert_eq!(listed.status(), 200);
    drop(lock);
    let size = rebuilding.await.unwrap().unwrap();
    assert_eq!(size, server.book.ledger.newest().size());
    let mut connection = server.book.database.app.acquire().await.unwrap();
    let found = countersign::projections::compare(&mut connection, &server.book.ledger.judge())
        .await
        .unwrap();
    assert_eq!(found, Vec::new());
    server.book.authorized().await;
    assert_eq!(server.get_as(&token, "/v1/commands").await.status(), 200);
}

/// Zeros name the stream of rights inside the log; outside they are a command that does not exist.
#[tokio::test]
async fn the_id_of_zeros_is_no_command() {
    let server = TestServer::start().await;
    let token = server.sign_in("alice").await;
    let zeros = "0".repeat(64);
    for what in ["", "/entries", "/output", "/events"] {
        let path = format!("/v1/commands/{zeros}{what}");
        let answer = problem(server.get_as(&token, &path).await).await;
        assert_eq!(answer, (404, "unknown_command".into()), "{what}");
    }
}

/// Who prefers to wait holds a place in memory and asks the database at every step.
#[tokio::test]
async fn one_caller_has_a_share_of_the_waiting_calls_and_not_all() {
    let server = TestServer::start().await;
    let (request, _) = server.book.request();
    let command = server.book.send(request).await.unwrap().id;
    let path = format!("/v1/commands/{command}");
    let alice = server.sign_in("alice").await;
    let wait = |session: &str| {
        let call = server
            .call(reqwest::Method::GET, &path)
            .bearer_auth(session);
        call.header("prefer", "wait=60").send()
    };
    let mut waiting = Vec::new();
    for _each in 0..33 {
        waiting.push(tokio::spawn(wait(&alice)));
    }
    let soon = Duration::from_secs(2);
    let answered = async {
        while !waiting.iter().any(tokio::task::JoinHandle::is_finished) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let answered = tokio::time::timeout(Duration::from_secs(15), answered).await;
    answered.expect("one too many is answered at once");
    let place = waiting
        .iter()
        .position(tokio::task::JoinHandle::is_finished);
    let told = waiting.remove(place.unwrap()).await.unwrap().unwrap();
    assert_eq!(told.status(), 200);
    let bob = server.sign_in("bob").await;
    let other = tokio::time::timeout(soon, wait(&bob)).await;
    assert!(other.is_err(), "somebody else still waits");
    server
        .book
        .send(server.book.cancel("alice", command))
        .await
        .unwrap();
    for call in waiting {
        let text = call.await.unwrap().unwrap().text().await.unwrap();
        assert!(text.contains("cancelled"), "{text}");
    }
}
