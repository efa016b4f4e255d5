//! Requests made to be expensive: each is refused early, and the server goes on.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use countersign_protocol::api::{Answers, MAX_BATCH, SubmissionBatch};
use reqwest::Method;

use crate::support::TestServer;
use crate::support::server::{json, pack, problem};

/// Sends raw bytes and gives what comes back before the connection ends.
async fn raw(server: &TestServer, parts: Vec<Vec<u8>>) -> String {
    let call = server.call(Method::GET, "/").build().unwrap();
    let address = (
        call.url().host_str().unwrap().to_owned(),
        call.url().port().unwrap(),
    );
    let talk = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        for part in parts {
            if stream.write_all(&part).is_err() {
                break; // It does not want to read on.
            }
        }
        let mut answer = Vec::new();
        let _reset = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    });
    talk.await.unwrap()
}

async fn is_well(server: &TestServer) -> bool {
    let health = server.call(Method::GET, "/health").send().await.unwrap();
    health.status().is_success()
}

#[tokio::test]
async fn a_header_of_ten_megabytes_and_ten_thousand_headers_are_refused() {
    let server = TestServer::start().await;
    let start = b"GET /health HTTP/1.1\r\nconnection: close\r\nhost: x\r\n".to_vec();
    let end = b"\r\n\r\n".to_vec();
    let small = raw(&server, vec![start.clone(), b"x: a".to_vec(), end.clone()]).await;
    assert!(small.starts_with("HTTP/1.1 200"), "{small}");
    let mut huge = vec![start.clone(), b"x: ".to_vec()];
    huge.extend(vec![vec![b'a'; 1 << 20]; 10]);
    huge.push(end.clone());
    let many = b"x: a\r\n".repeat(10_000);
    for attack in [huge, vec![start, many, end]] {
        let answer = raw(&server, attack).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 431"),
            "{answer}"
        );
        assert!(is_well(&server).await);
    }
}

#[tokio::test]
async fn a_deep_a_long_and_a_crowded_body_are_refused() {
    let server = TestServer::start().await;
    let size = server.book.ledger.newest().size();
    let many_blobs = format!(
        r#"{{"namespace":"command.requested.v1@countersign","payload":"","signature":"","blobs":[{}]}}"#,
        vec![r#"{"salt":"","content":""}"#; 200_000].join(",")
    );
    for body in [
        "[".repeat(1 << 20),
        "{\"blobs\":".repeat(1 << 18),
        many_blobs,
    ] {
        let sent = server.call(Method::POST, "/v1/statements").body(body);
        let (status, _) = problem(sent.send().await.unwrap()).await;
        assert_eq!(status, 400);
    }
    let (request, _) = server.book.request();
    let mut batch = SubmissionBatch {
        statements: vec![pack(&request); MAX_BATCH + 1],
    };
    let refused = problem(server.post("/v1/statements/batch", &batch).await).await;
    assert_eq!(refused, (413, "too_many".into()));
    assert_eq!(server.book.ledger.newest().size(), size);
    batch.statements.pop();
    let answers: Answers = json(server.post("/v1/statements/batch", &batch).await).await;
    assert_eq!(answers.answers.len(), MAX_BATCH);
    assert_eq!(server.book.ledger.newest().size(), size + 1, "once");
}

#[tokio::test]
async fn numbers_past_all_bounds_are_answered_and_never_a_fault() {
    let server = TestServer::start().await;
    let token = server.sign_in("alice").await;
    let (far, last) = (1_u64 << 63, u64::MAX);
    for (path, expected) in [
        (format!("/v1/proofs/inclusion?seq={far}"), 404),
        (format!("/v1/proofs/inclusion?seq=0&size={far}"), 404),
        (format!("/v1/proofs/inclusion?seq={last}&size={last}"), 404),
        (format!("/v1/proofs/consistency?from={far}"), 404),
        (format!("/v1/proofs/consistency?from=1&to={last}"), 404),
        (format!("/v1/entries?from={far}&limit={last}"), 200),
        (format!("/v1/entries?from={last}"), 200),
        (format!("/v1/commands?limit={last}"), 200),
        (format!("/v1/entries?from={last}0"), 400),
        ("/v1/entries?from=-1".to_owned(), 400),
        (format!("/v1/commands?cursor={}", "9".repeat(7000)), 400),
        (format!("/v1/commands/{}", "f".repeat(7000)), 400),
    ] {
        let status = server.get_as(&token, &path).await.status().as_u16();
        assert_eq!(status, expected, "{}", path.get(..60).unwrap_or(&path));
    }
    assert!(is_well(&server).await);
}
