//! API tokens: one call asks, the gateway signs and says so, people approve, the host runs.

use std::time::Duration;

use countersign::ledger::{history, store};
use countersign_protocol::api::{Page, TokenItem};
use countersign_protocol::event::{CommandApproved, Event};
use countersign_protocol::hash::{CommandId, StatementId};
use countersign_protocol::lifecycle::Command;
use countersign_protocol::name::SECOND_US;
use countersign_protocol::permission::Permission;
use countersign_protocol::rights::ChangeBody;
use countersign_protocol::token::TokenSecret;
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::cedar;
use crate::statements::signed;
use crate::support::TestServer;
use crate::support::server::problem;

const CI: &str = "ci@example.com";

/// What a token may, beside what every test's token is.
#[derive(Default)]
struct Scope<'a> {
    roles: &'a [&'a str],
    permissions: &'a [Permission],
    labels: &'a [&'a str],
    commands: &'a [&'a str],
    seconds: Option<u64>,
}

/// A server whose policy lets ci ask, with bob's one approval.
pub(super) async fn server() -> TestServer {
    let mut server = TestServer::start().await;
    server.book.policy = server.book.publish(&cedar::names(1, &[CI], &["bob"])).await;
    server
}

async fn issue(server: &TestServer, id: &str, principal: &str, scope: &Scope<'_>) -> TokenSecret {
    let secret = TokenSecret::new(id.parse().unwrap(), [id.as_bytes()[0]; 32]);
    let lasting = scope.seconds.unwrap_or(3600) * SECOND_US;
    let mut permissions = scope.permissions.to_vec();
    permissions.sort_by_key(|right| right.as_str());
    server
        .book
        .change(ChangeBody::TokenIssued {
            token: secret.id().clone(),
            principal: principal.parse().unwrap(),
            secret: secret.digest(),
            roles: scope
                .roles
                .iter()
                .map(|role| role.parse().unwrap())
                .collect(),
            permissions,
            labels: scope
                .labels
                .iter()
                .map(|label| label.parse().unwrap())
                .collect(),
            commands: scope
                .commands
                .iter()
                .map(|name| name.parse().unwrap())
                .collect(),
            expires_at: server.book.clock.now().plus_micros(lasting),
        })
        .await;
    secret
}

pub(super) async fn ci(server: &TestServer) -> TokenSecret {
    asking_for(server, CI).await
}

/// A token that asks for commands in somebody's name, and may nothing else.
pub(super) async fn asking_for(server: &TestServer, principal: &str) -> TokenSecret {
    let permissions = &[Permission::CommandExecute];
    let scope = Scope {
        permissions,
        ..Scope::default()
    };
    issue(server, "deploy", principal, &scope).await
}

async fn call(
    server: &TestServer,
    token: &str,
    path: &str,
    body: &Value,
    prefer: &str,
) -> Response {
    let mut call = server
        .call(Method::POST, path)
        .bearer_auth(token)
        .json(body);
    if !prefer.is_empty() {
        call = call.header("prefer", prefer);
    }
    call.send().await.unwrap()
}

pub(super) async fn exec(server: &TestServer, token: &TokenSecret, body: &Value) -> Response {
    call(server, &token.reveal(), "/v1/commands/exec", body, "").await
}

fn body(command: &str) -> Value {
    json!({ "command": command, "on": ["web-1"] })
}

/// The id of a command that was taken, and its Location.
pub(super) async fn taken(response: Response) -> CommandId {
    let status = response.status();
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let answer: Value = response.json().await.unwrap();
    assert_eq!(status, 202, "{answer}");
    let id = answer["command"].as_str().unwrap();
    assert_eq!(location, format!("/v1/commands/{id}"));
    id.parse().unwrap()
}

async fn command(server: &TestServer, id: StatementId) -> Command {
    let mut connection = server.book.database.app.acquire().await.unwrap();
    let size = server.book.ledger.newest().size();
    let command = history::command(&mut connection, id, size).await;
    command.unwrap().unwrap()
}

pub(super) async fn approve(server: &TestServer, id: StatementId) {
    let asked = command(server, id).await;
    let (signer, nonce, made_at, ledger, seen) = server.book.header("bob");
    let approval = CommandApproved {
        signer,
        principal: "bob".parse().unwrap(),
        nonce,
        made_at,
        ledger,
        seen,
        command: id,
        requester: asked.requester().clone(),
        act: asked.act().clone(),
        policy: server.book.policy,
        reason: None,
    };
    let approval = signed("bob", &approval.into(), Vec::new());
    server.book.send(approval).await.unwrap();
}

#[tokio::test]
async fn a_token_asks_the_gateway_signs_and_says_so_and_one_call_gets_the_answer() {
    let server = server().await;
    let token = ci(&server).await;
    let id = taken(exec(&server, &token, &body("true")).await).await;
    let asked = command(&server, id).await;
    assert_eq!(asked.requester().as_str(), CI);
    assert_eq!(asked.request.token.as_ref(), Some(token.id()));
    let genesis = {
        let mut connection = server.book.database.app.acquire().await.unwrap();
        store::entries(&mut connection, 0, 1, 1)
            .await
            .unwrap()
            .remove(0)
    };
    let first = countersign_protocol::audit::check_entry(&genesis.entry).unwrap();
    let Event::LedgerGenesis(first) = first.verified.event() else {
        unreachable!()
    };
    assert_eq!(
        asked.request.signer,
        first.gateway_key.as_ref().unwrap().key_id()
    );
    approve(&server, id).await;
    let waiting = {
        let path = format!("/v1/commands/{id}/cancel");
        // Somebody else's token does not stop it, and is not told that it is there.
        let other = issue(&server, "other", "other@example.com", &Scope::default()).await;
        let refused = call(&server, &other.reveal(), &path, &json!({}), "").await;
        assert_eq!(problem(refused).await, (404, "unknown_command".to_owned()));
        let mut again = body("true");
        again["execution_id"] = json!("once");
        let (token, url) = (token.reveal(), "/v1/commands/exec");
        let second = call(&server, &token, url, &again, "").await;
        let second = taken(second).await;
        approve(&server, second).await;
        server.book.run(second).await;
        call(&server, &token, url, &again, "wait=10").await
    };
    assert_eq!(waiting.status(), 200);
    let answer: Value = waiting.json().await.unwrap();
    assert_eq!(answer["stdout"], "hello\n");
    assert_eq!(answer["stderr"], "");
    assert_eq!(answer["exit_code"], 0);
    assert_eq!(answer["duration_ms"], 1);
    assert_eq!(answer["truncated"], false);
}

#[tokio::test]
async fn a_call_says_how_it_goes_over_its_hosts() {
    let server = server().await;
    let token = ci(&server).await;
    let mut asked = body("true");
    asked["rollout"] = json!({"max_in_flight": 1, "max_errors": 0, "gap": {"ms": 1000}});
    let id = taken(exec(&server, &token, &asked).await).await;
    let rollout = command(&server, id).await.act().rollout.clone().unwrap();
    let gap = rollout.gap.unwrap();
    assert_eq!(
        (rollout.max_in_flight, rollout.max_errors),
        (Some(1), Some(0))
    );
    assert_eq!((gap.ms, gap.label), (1000, None));
    for nothing in [json!({}), json!({"canary": 0}), json!({"gap": {"ms": 0}})] {
        asked["rollout"] = nothing.clone();
        let refused = problem(exec(&server, &token, &asked).await).await;
        assert_eq!(refused, (422, "document".to_owned()), "{nothing}");
    }
    asked["rollout"] = json!({"max_in_flite": 1});
    assert_eq!(exec(&server, &token, &asked).await.status(), 400);
}

#[tokio::test]
async fn an_execution_id_is_one_command_of_one_principal_for_ever() {
    let server = server().await;
    let token = ci(&server).await;
    let mut first = body("true");
    first["execution_id"] = json!("job 4711");
    let id = taken(exec(&server, &token, &first).await).await;
    assert_eq!(taken(exec(&server, &token, &first).await).await, id);
    let by_header = server
        .call(Method::POST, "/v1/commands/exec")
        .bearer_auth(token.reveal())
        .header("idempotency-key", "job 4711")
        .json(&body("true"));
    assert_eq!(taken(by_header.send().await.unwrap()).await, id);
    for (field, value) in [
        ("command", json!("false")),
        ("args", json!(["x"])),
        ("cwd", json!("/")),
        ("env", json!({"A": "b"})),
        ("stdin", json!("in")),
        ("timeout", json!(7)),
        ("reason", json!("another")),
        ("rollout", json!({"max_in_flight": 1})),
    ] {
        let mut other = first.clone();
        other[field] = value;
        let refused = exec(&server, &token, &other).await;
        assert_eq!(
            problem(refused).await,
            (409, "client_ref".to_owned()),
            "{field}"
        );
    }
    let theirs = issue(&server, "theirs", "other@example.com", &Scope::default()).await;
    let path = "/v1/executions/job%204711";
    let found = server.get_as(&theirs.reveal(), path).await;
    assert_eq!(problem(found).await, (404, "unknown_command".to_owned()));
    let own: Value = server
        .get_as(&token.reveal(), path)
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(own["command"], id.to_string());
}

#[tokio::test]
async fn without_a_token_that_holds_there_is_401_and_without_the_permission_403_with_its_name() {
    let server = server().await;
    let token = ci(&server).await;
    let forged = TokenSecret::new(token.id().clone(), [99; 32]);
    let reader = Scope {
        roles: &["read"],
        ..Scope::default()
    };
    let reader = issue(&server, "reader", CI, &reader).await;
    let short = Scope {
        permissions: &[Permission::CommandExecute],
        seconds: Some(1),
        ..Scope::default()
    };
    let short = issue(&server, "short-lived", CI, &short).await;
    for bad in ["", "AAAA", &forged.reveal()] {
        let refused = call(&server, bad, "/v1/commands/exec", &body("true"), "").await;
        assert_eq!(
            problem(refused).await,
            (401, "no_session".to_owned()),
            "{bad}"
        );
    }
    let refused = exec(&server, &reader, &body("true")).await;
    assert_eq!(refused.status(), 403);
    assert!(refused.text().await.unwrap().contains("command:execute"));
    let person = server.sign_in("alice").await;
    let refused = call(&server, &person, "/v1/commands/exec", &body("true"), "").await;
    assert_eq!(problem(refused).await, (403, "not_permitted".to_owned()));
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let refused = exec(&server, &short, &body("true")).await;
    assert_eq!(problem(refused).await, (401, "no_session".to_owned()));
    let id = token.id().clone();
    server
        .book
        .change(ChangeBody::TokenRevoked { token: id })
        .await;
    let refused = exec(&server, &token, &body("true")).await;
    assert_eq!(problem(refused).await, (401, "no_session".to_owned()));
}

#[tokio::test]
async fn a_token_asks_only_for_its_programs_and_hosts() {
    let server = server().await;
    let permissions = &[Permission::CommandExecute];
    let programs = Scope {
        permissions,
        commands: &["true"],
        ..Scope::default()
    };
    let programs = issue(&server, "programs", CI, &programs).await;
    let hosts = Scope {
        permissions,
        labels: &["env=test"],
        ..Scope::default()
    };
    let hosts = issue(&server, "hosts", CI, &hosts).await;
    taken(exec(&server, &programs, &body("true")).await).await;
    let refused = exec(&server, &programs, &body("false")).await;
    assert_eq!(problem(refused).await, (403, "token_scope".to_owned()));
    let line = json!({ "command": "true", "on": ["web-1"] });
    let shell = call(&server, &programs.reveal(), "/v1/commands/shell", &line, "").await;
    assert_eq!(
        problem(shell).await,
        (403, "token_scope".to_owned()),
        "a shell is any program"
    );
    let refused = exec(&server, &hosts, &body("true")).await;
    assert_eq!(problem(refused).await, (403, "token_scope".to_owned()));
    let labels = vec!["env=test.eu".parse().unwrap()];
    let agent = "web-1".parse().unwrap();
    server
        .book
        .change(ChangeBody::AgentRelabelled { agent, labels })
        .await;
    taken(exec(&server, &hosts, &body("true")).await).await;
}

#[tokio::test]
async fn a_target_is_always_named_and_what_is_not_known_is_refused() {
    let server = server().await;
    let token = ci(&server).await;
    for (wrong, code) in [
        (json!({ "command": "true" }), "body"),
        (json!({ "command": "true", "on": [] }), "on"),
        (
            json!({ "command": "true", "on": ["web-1"], "comand": "x" }),
            "body",
        ),
        (
            json!({ "command": "true", "on": ["web-1"], "timeout": 301 }),
            "document",
        ),
        (
            json!({ "command": "true", "on": ["nobody"] }),
            "unknown_target",
        ),
        (json!({ "command": "", "on": ["web-1"] }), "document"),
    ] {
        let refused = exec(&server, &token, &wrong).await;
        assert_eq!(problem(refused).await.1, code, "{wrong}");
    }
}

#[tokio::test]
async fn the_last_use_of_a_token_is_seen_and_its_secret_never() {
    let server = server().await;
    let token = ci(&server).await;
    taken(exec(&server, &token, &body("true")).await).await;
    let list: Page<TokenItem> = server.get("alice", "/v1/tokens").await;
    let item = list.items.first().unwrap();
    assert_eq!(
        (item.token.as_str(), item.status.as_str()),
        ("deploy", "in_force")
    );
    assert!(item.last_used_us.is_some());
    let secret = token.reveal();
    let secret = secret.rsplit('_').next().unwrap();
    let mut connection = server.book.database.app.acquire().await.unwrap();
    let size = server.book.ledger.newest().size();
    for row in store::entries(&mut connection, 0, size, 1000)
        .await
        .unwrap()
    {
        assert!(
            !String::from_utf8_lossy(&row.entry).contains(secret),
            "entry {}",
            row.seq
        );
    }
}

#[tokio::test]
async fn a_command_whose_time_was_over_is_a_504_with_what_it_wrote() {
    let server = server().await;
    let token = ci(&server).await;
    let mut asked = body("true");
    asked["execution_id"] = json!("slow");
    let id = taken(exec(&server, &token, &asked).await).await;
    approve(&server, id).await;
    server.book.run_out_of_time(id).await;
    let url = "/v1/commands/exec";
    let answer = call(&server, &token.reveal(), url, &asked, "wait=10").await;
    assert_eq!(answer.status(), 504);
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(answer["code"], "timed_out");
    assert_eq!(answer["result"]["stdout"], "hello\n");
    assert_eq!(answer["result"]["exit_code"], -1);
}

#[tokio::test]
async fn stopping_somebody_elses_command_does_not_show_what_it_wrote() {
    let server = server().await;
    server.book.enrol("web-2").await;
    let owner = ci(&server).await;
    let both = json!({ "command": "true", "on": ["web-1", "web-2"] });
    let stopper = Scope {
        permissions: &[Permission::CommandCancel, Permission::CommandRead],
        ..Scope::default()
    };
    let stopper = issue(&server, "stopper", "ops@example.com", &stopper).await;
    for (token, sees) in [(&stopper, false), (&owner, true)] {
        let id = taken(exec(&server, &owner, &both).await).await;
        approve(&server, id).await;
        server.book.run(id).await;
        // One host has written; the other never starts, so that the command ends here.
        let path = format!("/v1/commands/{id}/cancel");
        let answer = call(&server, &token.reveal(), &path, &json!({}), "").await;
        let text = answer.text().await.unwrap();
        assert!(text.contains("\"status\":\"partial\""), "{text}");
        assert_eq!(text.contains("hello"), sees, "{text}");
        let refused = server
            .get_as(&token.reveal(), &format!("/v1/commands/{id}/output"))
            .await;
        assert_eq!(refused.status() == 200, sees, "the same right as there");
    }
}

#[tokio::test]
async fn a_token_for_some_hosts_sees_and_stops_nothing_of_others() {
    let server = server().await;
    let scope = Scope {
        permissions: &[
            Permission::CommandCancel,
            Permission::CommandExecute,
            Permission::CommandRead,
            Permission::OutputRead,
        ],
        labels: &["env=dev"],
        ..Scope::default()
    };
    let dev = issue(&server, "dev", "dev@example.com", &scope).await;
    let owner = ci(&server).await;
    let (ran, open) = {
        let ran = taken(exec(&server, &owner, &body("true")).await).await;
        approve(&server, ran).await;
        server.book.run(ran).await;
        (ran, taken(exec(&server, &owner, &body("true")).await).await)
    };
    let statuses = async || {
        let dev = dev.reveal();
        let mut statuses = Vec::new();
        for rest in ["", "/output", "/entries"] {
            let path = format!("/v1/commands/{ran}{rest}");
            statuses.push(server.get_as(&dev, &path).await.status().as_u16());
        }
        let ids = json!({ "ids": [ran.to_string()] });
        let many = call(&server, &dev, "/v1/commands/entries", &ids, "").await;
        statuses.push(many.status().as_u16());
        let path = format!("/v1/commands/{open}/cancel");
        let cancel = call(&server, &dev, &path, &json!({}), "").await;
        statuses.push(cancel.status().as_u16());
        let list = server.get_as(&dev, "/v1/commands").await;
        let list: Value = list.json().await.unwrap();
        (statuses, list["items"].as_array().unwrap().len())
    };
    assert_eq!(statuses().await, (vec![404; 5], 0));
    let labels = vec!["env=dev.eu".parse().unwrap()];
    let agent = "web-1".parse().unwrap();
    server
        .book
        .change(ChangeBody::AgentRelabelled { agent, labels })
        .await;
    // A command that is cancelled before it began has ended otherwise: 409 with its status.
    assert_eq!(statuses().await, (vec![200, 200, 200, 200, 409], 2));
    let labels = vec!["env=prod".parse().unwrap()];
    let agent = "web-1".parse().unwrap();
    server
        .book
        .change(ChangeBody::AgentRelabelled { agent, labels })
        .await;
    let own = format!("/v1/commands/{ran}/output");
    let own = server.get_as(&owner.reveal(), &own).await;
    assert_eq!(own.status(), 200, "one's own is one's own wherever it ran");
}
