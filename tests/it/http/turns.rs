//! A host's turn in a rollout, as its stream of work shows it.

use serde_json::json;

use super::streams::next_grant;
use super::tokens::{approve, ci, exec, server, taken};

/// As a hundred hosts whose turn comes at once: each gets it with the one connection that the others leave.
#[tokio::test]
async fn a_turn_takes_one_connection_at_a_time() {
    let server = server().await;
    server.book.enrol("web-2").await;
    let token = ci(&server).await;
    let asked = json!({
        "command": "true",
        "on": ["web-1", "web-2"],
        "rollout": {"max_in_flight": 1},
    });
    let command = taken(exec(&server, &token, &asked).await).await;
    approve(&server, command).await;
    let second = server.sign_in("web-2").await;
    let mut work = server.get_as(&second, "/v1/agents/web-2/work").await;
    let pool = server.ledger.pool();
    let mut others = Vec::new();
    for _other in 1..pool.options().get_max_connections() {
        others.push(pool.acquire().await.unwrap());
    }
    server.book.run(command).await;
    let grant = next_grant(&mut work).await;
    assert!(grant.ahead.is_some());
}
