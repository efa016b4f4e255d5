//! What is logged names kinds, routes and ids; never a token, an argument or a reason.

use crate::support::TestServer;
use crate::support::logged::Logged;
use crate::support::server::problem;

#[tokio::test]
async fn neither_secret_nor_argument_is_logged() {
    let sink = Logged::default();
    let writer = sink.clone();
    // The only subscriber of this process, at the level that says most.
    tracing_subscriber::fmt()
        .json()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .init();
    let server = TestServer::start().await;
    let token = server.sign_in("alice").await;
    let secret = "hunter2-in-an-argument";
    let (request, _) = server
        .book
        .request_running(&["echo", secret], b"because-hunter2");
    assert_eq!(server.submit(&request).await.status(), 201);
    let mut broken = crate::support::server::pack(&request);
    broken.blobs[0]
        .content
        .0
        .extend_from_slice(secret.as_bytes());
    problem(server.post("/v1/statements", &broken).await).await;
    server.get_as(&token, "/v1/inbox").await;
    server.get_as(&format!("{token}x"), "/v1/inbox").await;
    let logged = sink.text();
    assert!(
        logged.contains("command.requested"),
        "something is logged at all"
    );
    for forbidden in [secret, "because-hunter2", token.as_str(), "Bearer"] {
        assert!(!logged.contains(forbidden), "the log holds {forbidden:?}");
    }
    // Statements hold secrets' digests only; the text travels as base64.
    let encoded = serde_json::to_string(&countersign_protocol::api::Base64(
        b"because-hunter2".to_vec(),
    ))
    .unwrap();
    assert!(!logged.contains(encoded.trim_matches('"')));
}
