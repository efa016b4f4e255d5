//! Reading is by right, and what not everybody may read leaves an event before it goes out.

use std::time::Duration;

use std::collections::BTreeSet;

use countersign::http;
use countersign::ledger::store;
use countersign_protocol::api::{StreamBody, TokenItem};
use countersign_protocol::entry::Entry;
use countersign_protocol::event::{AuditRead, DeniedWhat, Event, ReadWhat};
use countersign_protocol::hash::StatementId;
use countersign_protocol::permission::{BUILT_IN_ROLES, Permission, built_in};
use reqwest::Method;
use serde_json::Value;

use crate::support::TestServer;
use crate::support::server::{json, problem};

/// All events of the log.
async fn events(server: &TestServer) -> Vec<Event> {
    let mut connection = server.book.database.app.acquire().await.unwrap();
    let size = server.book.ledger.newest().size();
    let rows = store::entries(&mut connection, 0, size, 1000)
        .await
        .unwrap();
    let event = |bytes: &[u8]| {
        let statement = Entry::decode(bytes).unwrap().statement;
        Event::parse(statement.kind, &statement.payload).unwrap()
    };
    rows.iter().map(|row| event(&row.entry)).collect()
}

async fn reads(server: &TestServer) -> Vec<AuditRead> {
    let events = events(server).await.into_iter();
    events
        .filter_map(|event| {
            if let Event::AuditRead(read) = event {
                return Some(read);
            }
            None
        })
        .collect()
}

/// A person with a role and no more.
async fn person(server: &TestServer, name: &str, role: &str) -> String {
    server.book.join(name).await;
    server.book.grant(role, &format!("user:{name}")).await;
    server.sign_in(name).await
}

/// A command of alice's that ran, and the digest of what it wrote.
async fn ran(server: &TestServer) -> (StatementId, String) {
    let (command, _) = server.book.authorized().await;
    server.book.run(command).await;
    let chunk = events(server).await.into_iter().find_map(|event| {
        if let Event::ExecutionOutput(chunk) = event {
            return Some(chunk.data.digest.to_string());
        }
        None
    });
    (command, chunk.unwrap())
}

/// The document says what each endpoint takes; every built-in role is held against all of them.
#[tokio::test]
async fn every_endpoint_and_every_built_in_role_do_what_the_document_says() {
    let server = TestServer::start().await;
    let (command, digest) = ran(&server).await;
    let document = serde_json::to_value(http::document()).unwrap();
    let mut asked = BTreeSet::new();
    for role in BUILT_IN_ROLES {
        let name = format!("a-{role}");
        let session = person(&server, &name, role).await;
        let holds = built_in(&role.parse().unwrap()).unwrap();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let Some(scopes) = scopes(operation) else {
                    continue;
                };
                let url = path
                    .replace("{digest}", &digest)
                    .replace("{*rest}", "000.p/1")
                    .replace("{id}", &command.to_string());
                let method: Method = method.to_uppercase().parse().unwrap();
                let mut call = server.call(method, &url).bearer_auth(&session);
                // What is asked for stands in the body, and is read before the right to it.
                match path.as_str() {
                    "/v1/audit/search" => {
                        call = call.json(
                            &serde_json::json!({ "search": { "break_glass": {} }, "size": 1 }),
                        );
                    }
                    "/v1/commands/entries" => {
                        call = call.json(&serde_json::json!({ "ids": [command.to_string()] }));
                    }
                    _without => {}
                }
                let response = call.send().await.unwrap();
                let status = response.status().as_u16();
                let missing = scopes.iter().find(|right| !holds.contains(right));
                match missing {
                    None => assert_ne!(status, 403, "{role} {path}"),
                    Some(right) => {
                        assert_eq!(status, 403, "{role} {path}");
                        let text = response.text().await.unwrap();
                        assert!(text.contains(right.as_str()), "{role} {path}: {text}");
                    }
                }
                asked.extend(scopes);
            }
        }
    }
    let never_asked: Vec<_> = [
        Permission::CommandRead,
        Permission::OutputRead,
        Permission::AuditRead,
        Permission::AgentRead,
        Permission::RightsRead,
    ]
    .into_iter()
    .filter(|right| !asked.contains(right))
    .collect();
    assert!(
        never_asked.is_empty(),
        "no endpoint asks for {never_asked:?}"
    );
}

/// The permissions that a session needs for an endpoint; nothing where the document names none.
fn scopes(operation: &Value) -> Option<Vec<Permission>> {
    let requirements = operation["security"].as_array()?;
    let session = requirements.iter().find_map(|needs| needs.get("session"))?;
    let scopes = session.as_array()?.iter();
    let scopes: Vec<Permission> = scopes
        .map(|right| right.as_str().unwrap().parse().unwrap())
        .collect();
    (!scopes.is_empty()).then_some(scopes)
}

#[tokio::test]
async fn the_output_of_somebody_elses_command_is_not_for_those_who_may_only_read_commands() {
    let server = TestServer::start().await;
    let (command, digest) = ran(&server).await;
    let reader = person(&server, "reader", "read").await;
    let path = |rest: &str| format!("/v1/commands/{command}{rest}");
    assert_eq!(server.get_as(&reader, &path("")).await.status(), 200);
    let refused = server.get_as(&reader, &path("/output")).await;
    assert_eq!(problem(refused).await, (403, "not_permitted".to_owned()));
    let refused = server.get_as(&reader, &format!("/v1/blobs/{digest}")).await;
    assert_eq!(problem(refused).await, (403, "not_permitted".to_owned()));
    let stream: StreamBody = json(server.get_as(&reader, &path("/entries")).await).await;
    let text = serde_json::to_string(&stream.blobs).unwrap();
    assert!(!text.contains("aGVsbG8K"), "hello, in base64");
    let live = server
        .get_as(&reader, &path("/events"))
        .await
        .text()
        .await
        .unwrap();
    assert!(
        live.contains("event: entry") && !live.contains("aGVsbG8K"),
        "{live}"
    );
    let auditor = person(&server, "auditor", "auditor").await;
    assert_eq!(
        server.get_as(&auditor, &path("/output")).await.status(),
        200
    );
}

#[tokio::test]
async fn who_holds_no_role_sees_what_concerns_them_and_nothing_else() {
    let server = TestServer::start().await;
    let (command, _) = ran(&server).await;
    server.book.join("dave").await;
    let dave = server.sign_in("dave").await;
    let refused = server
        .get_as(&dave, &format!("/v1/commands/{command}"))
        .await;
    assert_eq!(problem(refused).await, (403, "not_permitted".to_owned()));
    let list: Value = json(server.get_as(&dave, "/v1/commands").await).await;
    assert_eq!(list["items"], Value::Array(Vec::new()));
    let call = server.call(Method::POST, "/v1/commands/entries");
    let call = call.bearer_auth(&dave);
    let ids = serde_json::json!({ "ids": [command.to_string()] });
    let refused = call.json(&ids).send().await.unwrap();
    assert_eq!(problem(refused).await, (403, "not_permitted".to_owned()));
    let rights = server.get_as(&dave, "/v1/streams/rights").await;
    assert_eq!(rights.status(), 200, "nothing can be verified without them");
}

#[tokio::test]
async fn a_text_that_one_may_not_read_is_not_read_by_naming_it_as_ones_own() {
    let server = TestServer::start().await;
    let (_, digest) = ran(&server).await;
    let (mut request, _) = server.book.request_running(&["true"], b"hello\n");
    let stolen = countersign_protocol::blob::BlobRef {
        digest: digest.parse().unwrap(),
        len: 6,
    };
    let Event::CommandRequested(mut asked) =
        Event::parse(request.statement.kind, &request.statement.payload).unwrap()
    else {
        unreachable!("it is a request")
    };
    request
        .blobs
        .retain(|blob| blob.reference() != asked.reason);
    asked.reason = stolen;
    let request = crate::statements::signed("alice", &asked.into(), request.blobs);
    let refused = server.submit(&request).await;
    assert_eq!(problem(refused).await, (422, "blob_missing".to_owned()));
}

#[tokio::test]
async fn a_read_stands_in_the_log_before_it_is_answered_and_once_an_hour() {
    let server = TestServer::start().await;
    let (command, _) = ran(&server).await;
    let auditor = person(&server, "auditor", "auditor").await;
    let before = reads(&server).await.len();
    for _again in 0..2 {
        let path = format!("/v1/commands/{command}/output");
        assert_eq!(server.get_as(&auditor, &path).await.status(), 200);
        let entries = server.get_as(&auditor, "/v1/entries?limit=1").await;
        assert_eq!(entries.status(), 200);
        assert_eq!(server.get_as(&auditor, "/v1/commands").await.status(), 200);
    }
    let reads = reads(&server).await.split_off(before);
    let facts: Vec<_> = reads
        .iter()
        .map(|read| (read.reader.as_str(), read.what, read.command))
        .collect();
    let expected = [
        ("auditor", ReadWhat::Output, Some(command)),
        ("auditor", ReadWhat::Log, None),
    ];
    assert_eq!(facts, expected, "status reads make none");
}

/// Whoever asks and hangs up while the note is being written makes no more notes than whoever waits.
#[tokio::test]
async fn a_reader_who_hangs_up_stands_in_the_log_once() {
    let server = TestServer::start().await;
    let auditor = person(&server, "auditor", "auditor").await;
    let before = reads(&server).await.len();
    let mut head = server.book.database.owner.begin().await.unwrap();
    sqlx::query("SELECT FROM head FOR UPDATE")
        .execute(&mut *head)
        .await
        .unwrap();
    let path = "/v1/entries?limit=1";
    for _again in 0..5 {
        let call = server.get_as(&auditor, path);
        let hung_up = tokio::time::timeout(Duration::from_millis(100), call).await;
        assert!(hung_up.is_err(), "it waits for its note");
    }
    head.rollback().await.unwrap();
    assert_eq!(server.get_as(&auditor, path).await.status(), 200);
    assert_eq!(reads(&server).await.len(), before + 1);
}

#[tokio::test]
async fn who_is_turned_away_is_counted_in_the_log_and_cannot_fill_it() {
    let server = TestServer::start().await;
    let reader = person(&server, "reader", "read").await;
    let size = server.book.ledger.newest().size();
    for _again in 0..50 {
        let refused = server.get_as(&reader, "/v1/entries").await;
        assert_eq!(refused.status(), 403);
    }
    let answer = server.answer("alice", false).await;
    assert!(server.sign_in_with(&answer).await.status().is_success());
    assert_eq!(server.sign_in_with(&answer).await.status(), 403, "a replay");
    assert_eq!(server.book.ledger.newest().size(), size, "nothing yet");
    server.shutdown.cancel();
    let mut log = server.book.ledger.watch();
    log.wait_for(|newest| newest.size() >= size + 2)
        .await
        .unwrap();
    let mut denied: Vec<_> = events(&server)
        .await
        .into_iter()
        .filter_map(|event| {
            let Event::AccessDenied(denied) = event else {
                return None;
            };
            let who = denied.principal.map(|name| name.to_string());
            Some((denied.what, who, denied.permission, denied.count))
        })
        .collect();
    denied.sort();
    let expected = [
        (DeniedWhat::SignIn, None, None, 1),
        (
            DeniedWhat::Permission,
            Some("reader".to_owned()),
            Some(Permission::AuditRead),
            50,
        ),
    ];
    assert_eq!(denied, expected);
}

#[tokio::test]
async fn tokens_are_listed_for_those_who_may_read_rights() {
    let server = TestServer::start().await;
    let reader = person(&server, "reader", "read").await;
    let list = server.get_as(&reader, "/v1/tokens").await;
    let list: countersign_protocol::api::Page<TokenItem> = json(list).await;
    assert!(list.items.is_empty());
}
