//! A server that learns nothing of what other servers commit keeps nobody waiting: whoever listens there
//! goes, and may find another server at the same address.

use std::time::{Duration, Instant};

use countersign_protocol::api::{LiveEntry, Notice, Work};
use reqwest::{Method, Response};

use super::streams::events;
use crate::support::server::problem;
use crate::support::{TestLedger, TestServer, make_unwritable, mend};

/// Longer than a server waits for room on its disk, and shorter than agents wait for a silent server.
const PATIENCE: Duration = Duration::from_secs(20);

async fn ready(server: &TestServer) -> Response {
    let asked = server.call(Method::GET, "/readyz").send();
    asked.await.unwrap()
}

async fn gauge(server: &TestServer) -> String {
    let text = server.call(Method::GET, "/metrics").send().await.unwrap();
    let text = text.text().await.unwrap();
    let line = text
        .lines()
        .find(|line| line.starts_with("countersign_learns "));
    line.expect("it is counted").to_owned()
}

/// Reads a stream until the server ends it.
async fn ends(stream: &mut Response) {
    let rest = async { while stream.chunk().await.unwrap().is_some() {} };
    tokio::time::timeout(PATIENCE, rest).await.expect("it ends");
}

#[tokio::test]
async fn a_server_that_cannot_keep_what_others_commit_ends_its_streams_until_it_can() {
    let server = TestServer::beside(TestLedger::ready().await).await;
    let book = &server.book;
    let (command, _) = book.authorized().await;
    let (host, person) = (server.sign_in("web-1").await, server.sign_in("alice").await);
    let mut work = server.get_as(&host, "/v1/agents/web-1/work").await;
    assert_eq!(events::<Work>(&mut work, 1).await.len(), 1);
    let mut all = server.get_as(&person, "/v1/events").await;
    assert_eq!(all.status(), 200);
    let path = format!("/v1/commands/{command}/events");
    let mut one = server.get_as(&person, &path).await;
    assert_eq!(events::<LiveEntry>(&mut one, 4).await.len(), 4);
    assert_eq!(ready(&server).await.status(), 200);
    make_unwritable(&book.other_checkpoint_file());
    book.authorized().await;
    for stream in [&mut work, &mut all, &mut one] {
        ends(stream).await;
    }
    let refused = ready(&server).await;
    assert_eq!(refused.headers()["connection"], "close");
    assert_eq!(problem(refused).await, (503, "checkpoint_file".into()));
    assert_eq!(gauge(&server).await, "countersign_learns 0");
    let again = server.get_as(&host, "/v1/agents/web-1/work").await;
    assert_eq!(problem(again).await, (503, "checkpoint_file".into()));
    mend(&book.other_checkpoint_file());
    let begun = Instant::now();
    while ready(&server).await.status() != 200 {
        assert!(begun.elapsed() < PATIENCE, "it is ready again");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(gauge(&server).await, "countersign_learns 1");
    let mut work = server.get_as(&host, "/v1/agents/web-1/work").await;
    assert!(!work.headers().contains_key("connection"));
    let grants = events::<Work>(&mut work, 2);
    let grants = tokio::time::timeout(PATIENCE, grants)
        .await
        .expect("both come");
    assert_eq!(
        grants.len(),
        2,
        "what nobody has begun, and what came meanwhile"
    );
    let mut all = server.get_as(&person, "/v1/events").await;
    book.run(command).await;
    assert_eq!(events::<Notice>(&mut all, 1).await.len(), 1);
}

#[tokio::test]
async fn a_server_that_has_stopped_ends_its_streams_and_opens_none_though_there_is_room_again() {
    let server = TestServer::start().await;
    let (host, person) = (server.sign_in("web-1").await, server.sign_in("alice").await);
    let mut work = server.get_as(&host, "/v1/agents/web-1/work").await;
    let mut all = server.get_as(&person, "/v1/events").await;
    make_unwritable(&server.book.checkpoint_file());
    let (request, _) = server.book.request();
    let refused = problem(server.submit(&request).await).await;
    assert_eq!(refused, (503, "stopped".into()));
    ends(&mut work).await;
    ends(&mut all).await;
    mend(&server.book.checkpoint_file());
    for (who, path) in [(&host, "/v1/agents/web-1/work"), (&person, "/v1/events")] {
        let again = server.get_as(who, path).await;
        assert_eq!(problem(again).await, (503, "stopped".into()), "{path}");
    }
    assert_eq!(problem(ready(&server).await).await, (503, "stopped".into()));
    assert_eq!(gauge(&server).await, "countersign_learns 0");
}
