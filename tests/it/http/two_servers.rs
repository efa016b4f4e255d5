//! What a server tells of entries that another one wrote a moment ago: never less than what the rows, which
//! both share, have led its callers to expect.
//!
//! In each test something is held while the one server writes on, so that the other's look at the head falls
//! between two entries, as it does by chance, and seldom, without that.

use std::time::Duration;

use countersign::projections::Bell;
use countersign_protocol::api::LiveEntry;
use countersign_protocol::hash::CommandId;
use countersign_protocol::token::reference;
use serde_json::json;
use sqlx::{Postgres, Transaction};

use super::streams::{events, next_grant};
use super::tokens::{asking_for, exec, taken};
use crate::support::server::problem;
use crate::support::{TestLedger, TestServer, have, hold};

/// Longer than any of it takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Nobody moves the rows.
const CURSORS: &str = "SELECT FROM projections.cursors ORDER BY name FOR UPDATE";

/// Nobody reads the rows of commands.
const COMMANDS: &str = "LOCK TABLE projections.commands IN ACCESS EXCLUSIVE MODE";

/// Does what the rows' server would, were it not held up as well.
async fn write(held: &mut Transaction<'static, Postgres>, rows: &'static str, id: CommandId) {
    let written = sqlx::query(rows).bind(id.as_bytes().as_slice());
    let written = written.execute(&mut **held).await.unwrap();
    assert_eq!(written.rows_affected(), 1);
}

#[tokio::test]
async fn a_host_gets_its_grant_though_the_approvals_came_one_by_one_to_another_server() {
    let server = TestServer::beside(TestLedger::ready().await).await;
    let book = &server.book;
    let token = server.sign_in("web-1").await;
    let mut work = server.get_as(&token, "/v1/agents/web-1/work").await;
    for _round in 0..5 {
        let (request, act) = book.request();
        let id = book.send(request).await.unwrap().id;
        book.send(book.approval("bob", id, &act)).await.unwrap();
        let held = hold(&book.database.app, CURSORS).await;
        server.ledger.look().await.unwrap();
        book.send(book.approval("carol", id, &act)).await.unwrap();
        held.commit().await.unwrap();
        assert_eq!(next_grant(&mut work).await.stream.entries.len(), 4);
        book.run(id).await;
    }
}

#[tokio::test]
async fn a_host_that_comes_while_another_server_authorizes_gets_its_grant() {
    let server = TestServer::beside(TestLedger::ready().await).await;
    let book = &server.book;
    let mut rows = book.follow(book.database.another_app().await, Bell::default());
    for _round in 0..5 {
        let token = server.sign_in("web-1").await;
        let (request, act) = book.request();
        let id = book.send(request).await.unwrap().id;
        let approved = book.send(book.approval("bob", id, &act)).await.unwrap();
        have(&mut rows, approved.seq + 1).await;
        server.ledger.look().await.unwrap();
        server.reader.caught_up().await.unwrap();
        let mut held = hold(&book.database.app, COMMANDS).await;
        let mut work = server.get_as(&token, "/v1/agents/web-1/work").await;
        // It asks for its rows.
        book.database.until_a_lock_is_awaited().await;
        book.send(book.approval("carol", id, &act)).await.unwrap();
        let rows_of_it = "UPDATE projections.executions SET authorized = true, may_start = true WHERE command = $1";
        write(&mut held, rows_of_it, id).await;
        held.commit().await.unwrap();
        assert_eq!(next_grant(&mut work).await.stream.entries.len(), 4);
        book.run(id).await;
    }
}

#[tokio::test]
async fn whoever_follows_a_command_hears_its_last_entry_before_the_stream_ends() {
    let server = TestServer::beside(TestLedger::ready().await).await;
    let book = &server.book;
    let mut rows = book.follow(book.database.another_app().await, Bell::default());
    let token = server.sign_in("alice").await;
    for _round in 0..5 {
        let (command, _) = book.authorized().await;
        let path = format!("/v1/commands/{command}/events");
        let mut live = server.get_as(&token, &path).await;
        let before: Vec<(u64, LiveEntry)> = events(&mut live, 4).await;
        assert_eq!(before.len(), 4);
        let started = book.send(book.start(command)).await.unwrap();
        have(&mut rows, started.seq + 1).await;
        let mut held = hold(&book.database.app, COMMANDS).await;
        server.ledger.look().await.unwrap();
        // It has the new entry, and asks how the command stands.
        book.database.until_a_lock_is_awaited().await;
        let ended = book.finish(command, started.id).await;
        let row = "UPDATE projections.commands SET status = 'completed' WHERE id = $1";
        write(&mut held, row, command).await;
        held.commit().await.unwrap();
        let rest = events::<LiveEntry>(&mut live, usize::MAX);
        let rest = tokio::time::timeout(PATIENCE, rest).await.expect("it ends");
        assert_eq!(rest.last().map(|(seq, _)| *seq), Some(ended.seq));
    }
}

/// A caller who believes that there is no such command asks for it once more under another id.
#[tokio::test]
async fn a_call_repeated_while_another_server_enters_the_first_is_not_told_that_there_is_none() {
    let server = TestServer::beside(TestLedger::ready().await).await;
    let book = &server.book;
    let token = asking_for(&server, "alice").await;
    let asked = json!({ "command": "true", "on": ["web-1"], "execution_id": "once" });
    server.reader.caught_up().await.unwrap();
    let held = hold(&book.database.app, CURSORS).await;
    // So that who calls has to wait for the rows.
    book.join("dave").await;
    let life = async {
        book.database.until_a_lock_is_awaited().await;
        let reference = reference(&"alice".parse().unwrap(), "once");
        let (request, _) = book.request_with(Some(reference));
        book.send(request).await.unwrap();
        held.commit().await.unwrap();
    };
    let (answer, ()) = tokio::join!(exec(&server, &token, &asked), life);
    // Hers has another reason, so it is another command; but it is one.
    assert_eq!(problem(answer).await, (409, "client_ref".to_owned()));
}

#[tokio::test]
async fn whom_another_server_let_in_a_moment_ago_signs_in() {
    let server = TestServer::beside(TestLedger::ready().await).await;
    server.book.join("dave").await;
    server.sign_in("dave").await;
}

/// An error would have the caller ask once more, and that would be a second command.
#[tokio::test]
async fn a_call_that_is_in_the_log_is_taken_also_while_the_lists_stand_still() {
    let server = TestServer::start().await;
    let token = asking_for(&server, "alice").await;
    server.reader.caught_up().await.unwrap();
    let held = hold(&server.book.database.app, CURSORS).await;
    let asked = json!({ "command": "true", "on": ["web-1"] });
    let command = taken(exec(&server, &token, &asked).await).await;
    held.commit().await.unwrap();
    let item = server.reader.command(&command).await.unwrap().unwrap();
    assert_eq!(item.status, "requested");
}
