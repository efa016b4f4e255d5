//! Sign-in: a signed challenge, once, by a key in force.

use countersign::http::Transport;
use countersign_protocol::api::ChallengeBody;
use countersign_protocol::event::{Event, SessionChallenge};
use countersign_protocol::hash::{Digest, LedgerId};
use countersign_protocol::statement::Statement;

use crate::statements::{key, public};
use crate::support::server::{json, problem};
use crate::support::{TestLedger, TestServer};

fn fields(answer: &Statement) -> SessionChallenge {
    let Event::SessionChallenge(fields) = Event::parse(answer.kind, &answer.payload).unwrap()
    else {
        unreachable!("a sign-in")
    };
    fields
}

fn signed(fields: SessionChallenge, who: &str) -> Statement {
    Statement::sign(&fields.into(), &key(who)).unwrap()
}

#[tokio::test]
async fn a_person_and_an_agent_sign_in() {
    let server = TestServer::start().await;
    for (who, path) in [
        ("alice", "/v1/inbox"),
        ("web-1", "/v1/proofs/consistency?from=1"),
    ] {
        let token = server.sign_in(who).await;
        assert_eq!(server.get_as(&token, path).await.status(), 200);
    }
}

#[tokio::test]
async fn a_challenge_is_answered_once() {
    let server = TestServer::start().await;
    let answer = server.answer("alice", false).await;
    assert_eq!(server.sign_in_with(&answer).await.status(), 200);
    assert_eq!(
        problem(server.sign_in_with(&answer).await).await,
        (403, "challenge".into())
    );
}

#[tokio::test]
async fn a_challenge_of_ones_own_making_is_refused() {
    let server = TestServer::start().await;
    let mut fields = fields(&server.answer("alice", false).await);
    fields.challenge = Digest::new([7; 32]);
    let answer = signed(fields, "alice");
    assert_eq!(
        problem(server.sign_in_with(&answer).await).await,
        (403, "challenge".into())
    );
}

#[tokio::test]
async fn a_sign_in_for_another_ledger_is_refused() {
    let server = TestServer::start().await;
    let mut fields = fields(&server.answer("alice", false).await);
    fields.ledger = LedgerId::new([7; 32]);
    let answer = signed(fields, "alice");
    assert_eq!(
        problem(server.sign_in_with(&answer).await).await,
        (403, "challenge".into())
    );
}

#[tokio::test]
async fn a_sign_in_that_was_made_for_another_address_is_refused() {
    let server = TestServer::start().await;
    let port = server.address().rsplit_once(':').unwrap().1.to_owned();
    let own = [
        format!("http://127.0.0.1:{port}"),
        format!("http://localhost:{port}"),
    ];
    for own in own {
        let answer = server.answer_at("alice", &own).await;
        assert_eq!(server.sign_in_with(&answer).await.status(), 200, "{own}");
    }
    for elsewhere in [
        // A relay on the same machine, one on another, and the same place by other means.
        "http://127.0.0.1:1".to_owned(),
        "https://ledger.example.com".to_owned(),
        format!("https://127.0.0.1:{port}"),
        format!("http://127.0.0.2:{port}"),
    ] {
        let answer = server.answer_at("alice", &elsewhere).await;
        assert_eq!(
            problem(server.sign_in_with(&answer).await).await,
            (403, "origin".into()),
            "{elsewhere}"
        );
    }
}

#[tokio::test]
async fn a_server_is_met_where_its_operator_says() {
    let public = "https://ledger.example.com";
    let book = TestLedger::ready().await;
    let server = TestServer::with(book, Transport::default(), &[public]).await;
    let answer = server.answer_at("alice", public).await;
    assert_eq!(server.sign_in_with(&answer).await.status(), 200);
    // And still only once.
    assert_eq!(
        problem(server.sign_in_with(&answer).await).await,
        (403, "challenge".into())
    );
}

#[tokio::test]
async fn a_strangers_key_does_not_sign_in() {
    let server = TestServer::start().await;
    let mut fields = fields(&server.answer("alice", false).await);
    fields.signer = public("mallory").key_id();
    let answer = signed(fields, "mallory");
    assert_eq!(
        problem(server.sign_in_with(&answer).await).await,
        (403, "unknown_key".into())
    );
}

#[tokio::test]
async fn nobody_signs_in_under_anothers_name() {
    let server = TestServer::start().await;
    for (principal, agent) in [
        (Some("alice"), None),
        (None, Some("web-1")),
        (None, None),
        (Some("bob"), Some("web-1")),
    ] {
        let mut fields = fields(&server.answer("bob", false).await);
        fields.principal = principal.map(|name| name.parse().unwrap());
        fields.agent = agent.map(|name| name.parse().unwrap());
        let answer = signed(fields, "bob");
        assert_eq!(
            problem(server.sign_in_with(&answer).await).await,
            (403, "unknown_key".into())
        );
    }
}

#[tokio::test]
async fn a_session_ends_with_its_key() {
    let server = TestServer::start().await;
    let token = server.sign_in("carol").await;
    assert_eq!(server.get_as(&token, "/v1/inbox").await.status(), 200);
    server.book.revoke("carol").await;
    assert_eq!(
        problem(server.get_as(&token, "/v1/inbox").await).await.0,
        401
    );
    let answer = server.answer("carol", false).await;
    assert_eq!(problem(server.sign_in_with(&answer).await).await.0, 403);
}

#[tokio::test]
async fn a_token_that_was_touched_is_no_session() {
    let server = TestServer::start().await;
    let token = server.sign_in("alice").await;
    for place in [0, token.len() / 2, token.len() - 2] {
        let mut touched = token.clone().into_bytes();
        touched[place] = if touched[place] == b'A' { b'B' } else { b'A' };
        let touched = String::from_utf8(touched).unwrap();
        assert_eq!(
            problem(server.get_as(&touched, "/v1/inbox").await).await.0,
            401
        );
    }
}

#[tokio::test]
async fn whose_a_key_is_that_opens_nothing_is_told_to_nobody() {
    let server = TestServer::start().await;
    let whose = async || {
        let path = format!("/v1/sessions/challenge?key_id={}", public("carol").key_id());
        let body: ChallengeBody = json(server.post(&path, &()).await).await;
        body.principal
    };
    assert_eq!(whose().await.as_deref(), Some("carol"));
    server.book.revoke("carol").await;
    assert_eq!(whose().await, None);
}
