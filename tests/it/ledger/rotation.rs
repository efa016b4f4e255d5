//! A second key for an agent against a real Postgres and over HTTP: each key gets its own work, and
//! after the retirement the old one gets in nowhere, on no server, also on one that starts anew.

use countersign::ledger::{AppendError, Ledger, StartRule};
use countersign::projections;
use countersign_protocol::api::{AgentItem, Page, Work};
use countersign_protocol::fold::Refusal;
use countersign_protocol::hash::StatementId;

use crate::http::streams::events;
use crate::ledger::append::audit_database;
use crate::statements::public;
use crate::support::server::problem;
use crate::support::{TestLedger, TestServer};

const HOST: &str = "web-1";
const ANEW: &str = "web-1 anew";

async fn refusal(book: &TestLedger, submission: countersign::ledger::Submission) -> Refusal {
    match book.send(submission).await {
        Err(AppendError::Refused(refusal)) => refusal,
        other => unreachable!("{other:?}"),
    }
}

fn command_of(work: &Work) -> StatementId {
    let Work::Grant(grant) = work else {
        unreachable!("a grant")
    };
    let first = &grant.stream.entries[0].entry.0;
    let entry = countersign_protocol::audit::check_entry(first).unwrap();
    entry.verified.id()
}

#[tokio::test]
async fn each_key_gets_the_work_that_names_it_and_no_other() {
    let server = TestServer::start().await;
    let book = &server.book;
    let (for_old, _) = book.authorized().await;
    book.rotate(HOST, ANEW).await;
    let (for_new, _) = book.authorized_for(ANEW).await;
    let tokens = [
        server.sign_in(HOST).await,
        server.sign_in_by(HOST, ANEW).await,
    ];
    for (token, expected) in tokens.iter().zip([for_old, for_new]) {
        let mut work = server.get_as(token, "/v1/agents/web-1/work").await;
        let found: Vec<(u64, Work)> = events(&mut work, 1).await;
        assert_eq!(command_of(&found[0].1), expected);
        // Nothing else comes, and the stream stays open.
        let more = tokio::time::timeout(std::time::Duration::from_millis(500), work.chunk()).await;
        let text = more.map(|chunk| chunk.unwrap().unwrap_or_default());
        assert!(text.is_err() || !text.unwrap().starts_with(b"event"));
    }
}

#[tokio::test]
async fn a_retired_key_opens_nothing_and_its_stream_ends() {
    let server = TestServer::start().await;
    let book = &server.book;
    let token = server.sign_in(HOST).await;
    book.rotate(HOST, ANEW).await;
    let mut work = server.get_as(&token, "/v1/agents/web-1/work").await;
    assert_eq!(work.status(), 200);
    // The last word may be said again: its answer may have been lost. Another one may not.
    let word = book.retire();
    assert_eq!(server.submit(&word).await.status(), 201);
    assert_eq!(server.submit(&word).await.status(), 200);
    let another = problem(server.submit(&book.retire()).await).await;
    assert_eq!(another, (403, "revoked_key".into()));
    let rest: Vec<(u64, Work)> = events(&mut work, usize::MAX).await;
    assert!(rest.is_empty());
    let again = server.get_as(&token, "/v1/agents/web-1/work").await;
    assert_eq!(problem(again).await.0, 401);
    let answer = server.answer(HOST, true).await;
    let refused = problem(server.sign_in_with(&answer).await).await;
    assert_eq!(refused, (403, "unknown_key".into()));
    // The new key's session is its own.
    let token = server.sign_in_by(HOST, ANEW).await;
    let work = server.get_as(&token, "/v1/agents/web-1/work").await;
    assert_eq!(work.status(), 200);
}

#[tokio::test]
async fn the_key_retires_after_its_last_run_and_every_server_knows_it() {
    let server = TestServer::start().await;
    let book = &server.book;
    let mut settings = book.settings(book.database.another_app().await, StartRule::FirstStart);
    settings.checkpoint_file = book.folder.path().join("other-checkpoint");
    let other = Ledger::open(settings).await.unwrap();

    let (running, _) = book.authorized().await;
    let started = book.send(book.start(running)).await.unwrap().id;
    assert_eq!(
        refusal(book, book.retire()).await,
        Refusal::AgentChain { expected: 1 }
    );
    book.rotate(HOST, ANEW).await;
    let items: Page<AgentItem> = server.get("alice", "/v1/agents").await;
    let words: Vec<_> = items
        .items
        .iter()
        .map(|item| item.status.as_str())
        .collect();
    assert_eq!(words.iter().filter(|word| **word == "accepted").count(), 1);
    assert_eq!(words.iter().filter(|word| **word == "replaced").count(), 1);
    let early = book.retire_after(1, started);
    assert_eq!(refusal(book, early.clone()).await, Refusal::RunsOpen);
    // A server that starts now has the run from the log.
    let anew = book.reopen().await.unwrap();
    let refused = anew.append(early).await.unwrap_err();
    assert!(
        matches!(refused, AppendError::Refused(Refusal::RunsOpen)),
        "{refused}"
    );

    book.finish(running, started).await;
    book.send(book.retire()).await.unwrap();

    // The other server follows; one that starts anew has it from the rights alone.
    let late = book.start(running);
    for ledger in [other, book.reopen().await.unwrap()] {
        let refused = ledger.append(late.clone()).await.unwrap_err();
        let is_revoked = matches!(&refused, AppendError::Refused(Refusal::RevokedKey));
        assert!(is_revoked, "{refused}");
    }
    server.reader.caught_up().await.unwrap();
    let mut connection = book.database.app.acquire().await.unwrap();
    let different = projections::compare(&mut connection, &book.ledger.judge())
        .await
        .unwrap();
    assert_eq!(different, Vec::new());
    let auditor = audit_database(&book.database.app).await;
    let record = auditor
        .state()
        .rights()
        .key(&public(HOST).key_id())
        .cloned();
    assert!(record.is_some_and(|record| record.retired));
}

#[tokio::test]
async fn administrators_revoke_the_old_key_at_once_and_the_host_goes_on() {
    let server = TestServer::start().await;
    let book = &server.book;
    book.rotate(HOST, ANEW).await;
    book.revoke(HOST).await;
    let (command, _) = book.authorized_for(ANEW).await;
    let token = server.sign_in_by(HOST, ANEW).await;
    let mut work = server.get_as(&token, "/v1/agents/web-1/work").await;
    let found: Vec<(u64, Work)> = events(&mut work, 1).await;
    assert_eq!(command_of(&found[0].1), command);
    let answer = server.answer(HOST, true).await;
    assert_eq!(problem(server.sign_in_with(&answer).await).await.0, 403);
}
