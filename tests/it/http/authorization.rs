//! Every endpoint has its class of callers, and every other class is turned away. The OpenAPI
//! document is what says which endpoints there are: one that is not listed here fails the test.

use std::collections::BTreeMap;

use reqwest::{Method, StatusCode};

use crate::support::TestServer;
use crate::support::server::pack;

/// Who may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Anybody.
    Open,
    /// Whoever signed the statement inside; it leaves an event.
    Door,
    /// People and agents.
    Session,
    /// People.
    Person,
    /// The agent itself.
    Agent,
    /// Holders of API tokens; people and agents sign for themselves. It leaves an event.
    Token,
}

const CLASSES: &[(&str, &str, Class)] = &[
    ("post", "/v1/statements", Class::Door),
    ("post", "/v1/statements/batch", Class::Door),
    ("post", "/v1/sessions/challenge", Class::Open),
    ("post", "/v1/sessions", Class::Open),
    ("get", "/v1/ledger", Class::Open),
    ("get", "/v1/checkpoint", Class::Open),
    ("get", "/v1/proofs/consistency", Class::Session),
    ("get", "/v1/proofs/inclusion", Class::Session),
    ("get", "/v1/entries", Class::Person),
    ("get", "/v1/blobs/{digest}", Class::Person),
    ("get", "/v1/streams/rights", Class::Person),
    ("post", "/v1/audit/search", Class::Person),
    ("get", "/checkpoint", Class::Open),
    ("get", "/tile/{level}/{*rest}", Class::Open),
    ("get", "/tile/entries/{*rest}", Class::Person),
    ("get", "/v1/commands", Class::Person),
    ("get", "/v1/commands/{id}", Class::Person),
    ("post", "/v1/commands/exec", Class::Token),
    ("post", "/v1/commands/shell", Class::Token),
    ("post", "/v1/commands/{id}/cancel", Class::Token),
    ("get", "/v1/executions/{execution_id}", Class::Person),
    ("get", "/v1/commands/{id}/entries", Class::Person),
    ("post", "/v1/commands/entries", Class::Person),
    ("get", "/v1/commands/{id}/output", Class::Person),
    ("get", "/v1/commands/{id}/events", Class::Person),
    ("get", "/v1/events", Class::Person),
    ("get", "/v1/inbox", Class::Person),
    ("get", "/v1/changes", Class::Person),
    ("get", "/v1/agents", Class::Person),
    ("get", "/v1/tokens", Class::Person),
    ("post", "/v1/targets/resolve", Class::Person),
    ("get", "/v1/agents/{name}/work", Class::Agent),
    ("get", "/livez", Class::Open),
    ("get", "/readyz", Class::Open),
    ("get", "/health", Class::Open),
    ("get", "/metrics", Class::Open),
    ("get", "/openapi.json", Class::Open),
];

/// Endpoints that change something and need not leave an event: they change no state of the log.
const WITHOUT_EVENT: &[&str] = &[
    "/v1/sessions/challenge",
    "/v1/sessions",
    "/v1/targets/resolve",
    // Reads; that somebody does is written down, once an hour.
    "/v1/audit/search",
    "/v1/commands/entries",
];

fn documented() -> BTreeMap<(String, String), bool> {
    let document = serde_json::to_value(countersign::http::document()).unwrap();
    let mut found = BTreeMap::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            found.insert((method.clone(), path.clone()), true);
        }
    }
    found
}

#[test]
fn every_endpoint_has_a_class() {
    let listed: BTreeMap<_, _> = CLASSES
        .iter()
        .map(|(method, path, _)| (((*method).to_owned(), (*path).to_owned()), true))
        .collect();
    assert_eq!(documented(), listed);
}

#[test]
fn every_mutating_endpoint_is_a_door_or_says_why_not() {
    for (method, path, class) in CLASSES {
        if *method != "get" && !matches!(class, Class::Door | Class::Token) {
            assert!(
                WITHOUT_EVENT.contains(path),
                "{path} changes something and leaves no event"
            );
        }
    }
}

#[tokio::test]
async fn every_other_class_of_callers_is_turned_away() {
    let server = TestServer::start().await;
    let (command, _) = server.book.authorized().await;
    let (person, agent) = (server.sign_in("alice").await, server.sign_in("web-1").await);
    for (method, path, class) in CLASSES {
        let path = path
            .replace("{digest}", &"0".repeat(64))
            .replace("{id}", &command.to_string())
            .replace("{execution_id}", "job-1")
            .replace("{name}", "web-1")
            .replace("{level}", "0")
            .replace("{*rest}", "000.p/1");
        let body = if path.ends_with("/exec") || path.ends_with("/shell") {
            r#"{"command":"true","on":["web-1"]}"#
        } else {
            r#"{"names":["web-1"]}"#
        };
        let query = if path.contains("/proofs/") {
            "?from=1&seq=1"
        } else {
            ""
        };
        let call = async |token: Option<&str>| -> StatusCode {
            let method: Method = method.to_uppercase().parse().unwrap();
            let mut call = server.call(method, &format!("{path}{query}")).body(body);
            if let Some(token) = token {
                call = call.bearer_auth(token);
            }
            call.send().await.unwrap().status()
        };
        let (nobody, forged) = (call(None).await, call(Some("AAAA")).await);
        let (person, agent) = (call(Some(&person)).await, call(Some(&agent)).await);
        let turned_away = |status: StatusCode| status == 401 || status == 403;
        let expected = match class {
            Class::Open | Class::Door => [false; 4],
            Class::Session => [true, true, false, false],
            Class::Person => [true, true, false, true],
            Class::Agent => [true, true, true, false],
            Class::Token => [true; 4],
        };
        let found = [nobody, forged, person, agent].map(turned_away);
        assert_eq!(found, expected, "{method} {path}");
    }
}

#[tokio::test]
async fn every_door_leaves_an_event() {
    let server = TestServer::start().await;
    for (_, path, class) in CLASSES {
        if *class != Class::Door {
            continue;
        }
        let size = server.book.ledger.newest().size();
        let (request, _) = server.book.request();
        let request = pack(&request);
        let body = if path.ends_with("batch") {
            serde_json::json!({ "statements": [request] })
        } else {
            serde_json::to_value(request).unwrap()
        };
        assert!(server.post(path, &body).await.status().is_success());
        assert_eq!(server.book.ledger.newest().size(), size + 1, "{path}");
    }
}
