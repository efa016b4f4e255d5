//! The door: what is acknowledged, what is refused and with which status, and that nothing is lost.

use countersign_protocol::api::{Answer, Answers, Base64, Receipt, SubmissionBatch};
use countersign_protocol::checkpoint::Checkpoint;
use countersign_protocol::proof;

use crate::statements::{public, signed};
use crate::support::TestServer;
use crate::support::server::{json, pack, problem};

#[tokio::test]
async fn a_request_gets_a_receipt_and_a_place_to_look() {
    let server = TestServer::start().await;
    let (request, _) = server.book.request();
    let response = server.submit(&request).await;
    assert_eq!(response.status(), 201);
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let receipt: Receipt = json(response).await;
    assert_eq!(location, format!("/v1/commands/{}", receipt.statement_id));
    assert_eq!(receipt.status.as_deref(), Some("requested"));
    let checkpoint = Checkpoint::open(&receipt.checkpoint, server.book.ledger.verifier()).unwrap();
    proof::verify_inclusion(
        &receipt.leaf.parse().unwrap(),
        receipt.seq,
        checkpoint.size(),
        &receipt.inclusion,
        &checkpoint.root(),
    )
    .unwrap();
}

#[tokio::test]
async fn the_same_statement_again_is_a_quiet_success() {
    let server = TestServer::start().await;
    let (request, _) = server.book.request();
    let first: Receipt = json(server.submit(&request).await).await;
    let size = server.book.ledger.newest().size();
    let again = server.submit(&request).await;
    assert_eq!(again.status(), 200);
    let again: Receipt = json(again).await;
    assert_eq!(
        (again.seq, again.entry, again.repeated),
        (first.seq, first.entry, true)
    );
    assert_eq!(server.book.ledger.newest().size(), size);
}

#[tokio::test]
async fn refusals_have_their_status_and_leave_no_event() {
    let server = TestServer::start().await;
    let (request, act) = server.book.request();
    let id = server.book.send(request).await.unwrap().id;
    let approval = server.book.approval("bob", id, &act);
    server.book.send(approval).await.unwrap();
    let size = server.book.ledger.newest().size();
    let second = server.book.approval("bob", id, &act);
    assert_eq!(
        problem(server.submit(&second).await).await,
        (409, "duplicate_approval".into())
    );
    let own = server.book.approval("alice", id, &act);
    assert_eq!(
        problem(server.submit(&own).await).await,
        (403, "own_request".into())
    );
    let nowhere = server
        .book
        .approval("bob", countersign_protocol::hash::StatementId::ZERO, &act);
    assert_eq!(
        problem(server.submit(&nowhere).await).await,
        (404, "unknown_command".into())
    );
    assert_eq!(server.book.ledger.newest().size(), size);
}

#[tokio::test]
async fn malformed_bytes_are_told_and_leave_no_event() {
    let server = TestServer::start().await;
    let size = server.book.ledger.newest().size();
    let (request, _) = server.book.request();
    let good = pack(&request);
    let mut spaced = good.clone();
    spaced.payload.0.push(b' ');
    let mut flipped = good.clone();
    flipped.signature.0[100] ^= 1;
    let mut unknown = good.clone();
    unknown.namespace = "command.requested.v9@countersign".into();
    let mut elsewhere = good.clone();
    elsewhere.namespace = "command.withdrawn.v1@countersign".into();
    let mut salted = good.clone();
    salted.blobs[0].salt = Base64(vec![0; 31]);
    let mut other = good.clone();
    other.blobs[0].content.0.push(b'!');
    for (bad, code) in [
        (spaced, "statement"),
        (flipped, "statement"),
        (unknown, "namespace"),
        (elsewhere, "statement"),
        (salted, "blob"),
        (other, "blob"),
    ] {
        let answer = problem(server.post("/v1/statements", &bad).await).await;
        assert_eq!(answer, (400, code.into()));
    }
    let mut without = good;
    without.blobs.remove(0);
    assert_eq!(
        problem(server.post("/v1/statements", &without).await)
            .await
            .0,
        422
    );
    let text = server
        .call(reqwest::Method::POST, "/v1/statements")
        .body("{\"namespace\":1}");
    assert_eq!(
        problem(text.send().await.unwrap()).await,
        (400, "body".into())
    );
    assert_eq!(server.book.ledger.newest().size(), size);
}

#[tokio::test]
async fn an_oversized_body_is_refused_before_it_is_parsed() {
    let server = TestServer::start().await;
    let body = vec![b' '; countersign_protocol::api::MAX_BODY_BYTES + 1];
    let response = server
        .call(reqwest::Method::POST, "/v1/statements")
        .body(body)
        .send()
        .await
        .unwrap();
    assert_eq!(problem(response).await, (413, "too_large".into()));
}

#[tokio::test]
async fn a_strangers_blobs_are_not_stored() {
    let server = TestServer::start().await;
    let count = "SELECT count(*) FROM blobs";
    let app = &server.book.database.app;
    let before: i64 = sqlx::query_scalar(count).fetch_one(app).await.unwrap();
    let (request, _) = server.book.request();
    let countersign_protocol::event::Event::CommandRequested(mut stranger) =
        request.statement.clone().verify().unwrap().event().clone()
    else {
        unreachable!("a request")
    };
    stranger.signer = public("mallory").key_id();
    let stranger = signed("mallory", &stranger.into(), request.blobs);
    assert_eq!(
        problem(server.submit(&stranger).await).await,
        (403, "unknown_key".into())
    );
    let after: i64 = sqlx::query_scalar(count).fetch_one(app).await.unwrap();
    assert_eq!(after, before);
}

#[tokio::test]
async fn a_batch_is_taken_in_order_and_each_is_answered() {
    let server = TestServer::start().await;
    let (command, _) = server.book.authorized().await;
    let started = server.book.start(command);
    let again = server.book.start(command);
    let (request, _) = server.book.request();
    let batch = SubmissionBatch {
        statements: vec![pack(&request), pack(&started), pack(&again)],
    };
    let answers: Answers = json(server.post("/v1/statements/batch", &batch).await).await;
    let [
        Answer::Receipt(first),
        Answer::Receipt(second),
        Answer::Problem(third),
    ] = answers.answers.as_slice()
    else {
        unreachable!("{answers:?}")
    };
    assert_eq!(second.seq, first.seq + 1);
    assert_eq!(third.status, 409);
}

#[tokio::test]
async fn who_prefers_to_wait_gets_the_end_or_a_place_to_look() {
    let server = TestServer::start().await;
    let session = server.sign_in("alice").await;
    let (request, act) = server.book.request();
    let wait = |seconds: u32| {
        let body = serde_json::to_vec(&pack(&request)).unwrap();
        let call = server
            .call(reqwest::Method::POST, "/v1/statements")
            .bearer_auth(&session)
            .body(body);
        call.header("prefer", format!("respond-async, wait={seconds}"))
            .send()
    };
    let early = wait(1).await.unwrap();
    assert_eq!(early.status(), 202);
    assert!(early.headers().contains_key("location"));
    let receipt: Receipt = json(early).await;
    let command = receipt.statement_id.parse().unwrap();
    let life = async {
        for who in ["bob", "carol"] {
            server
                .book
                .send(server.book.approval(who, command, &act))
                .await
                .unwrap();
        }
        server.book.run(command).await;
    };
    let (answer, ()) = tokio::join!(wait(20), life);
    let answer = answer.unwrap();
    assert_eq!(answer.status(), 200);
    let receipt: Receipt = json(answer).await;
    let results = receipt.results.unwrap();
    assert_eq!(receipt.status.as_deref(), Some("completed"));
    assert_eq!(
        (results[0].exit_code, results[0].stdout.as_str()),
        (Some(0), "hello\n")
    );
}

/// A backup, a proxy's log, a colleague's terminal: bytes that were signed once are not whoever signed
/// them.
#[tokio::test]
async fn a_copy_of_a_request_is_no_right_to_its_output_nor_to_a_wait() {
    let server = TestServer::start().await;
    let (request, act) = server.book.request();
    let again = async |session: Option<&str>| {
        let body = serde_json::to_vec(&pack(&request)).unwrap();
        let call = server
            .call(reqwest::Method::POST, "/v1/statements")
            .header("prefer", "wait=20")
            .body(body);
        let call = match session {
            Some(session) => call.bearer_auth(session),
            None => call,
        };
        let patience = std::time::Duration::from_secs(10);
        let answer = tokio::time::timeout(patience, call.send()).await;
        answer.expect("nobody waits for a stranger").unwrap()
    };
    server.book.join("reader").await;
    server.book.grant("read", "user:reader").await;
    server.book.join("dave").await;
    let dave = server.sign_in("dave").await;
    for session in [None, Some(""), Some(dave.as_str())] {
        let status = again(session).await.status();
        assert!([200, 201].contains(&status.as_u16()), "{session:?}");
    }
    let command = server.book.send(request.clone()).await.unwrap().id;
    for who in ["bob", "carol"] {
        let approval = server.book.approval(who, command, &act);
        server.book.send(approval).await.unwrap();
    }
    server.book.run(command).await;
    let reader = server.sign_in("reader").await;
    let agent = server.sign_in("web-1").await;
    let size = server.book.ledger.newest().size();
    for session in [None, Some(dave.as_str()), Some(&reader), Some(&agent)] {
        let answer = again(session).await;
        assert!(answer.headers().contains_key("location"));
        let receipt: Receipt = json(answer).await;
        assert_eq!(receipt.results, None, "{session:?}");
    }
    assert_eq!(
        server.book.ledger.newest().size(),
        size,
        "and no read is written down in the requester's name"
    );
    let alice = server.sign_in("alice").await;
    let receipt: Receipt = json(again(Some(&alice)).await).await;
    assert_eq!(receipt.results.unwrap()[0].stdout, "hello\n");
    assert_eq!(server.book.ledger.newest().size(), size + 1, "hers is");
}
