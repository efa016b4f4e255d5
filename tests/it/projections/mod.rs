//! Rows follow from the log and from nothing else; two followers share the work; a rebuild and a
//! comparison come to the same. `meanwhile.rs`: what others have while that happens. `search.rs`: what is
//! found in them.

mod meanwhile;
mod search;

use std::time::{Duration, Instant};

use countersign::projections::{self, Bell, Difference, Filter};
use countersign_protocol::name::SECOND_US;
use countersign_protocol::permission::Permission;
use countersign_protocol::policy::Policy;
use countersign_protocol::rights::ChangeBody;
use sqlx::Row as _;

use crate::cedar;
use crate::support::logged::Logged;
use crate::support::{TestLedger, TestServer, have};

/// Longer than a follower takes to try again a few times.
const PATIENCE: Duration = Duration::from_secs(30);

async fn differences(server: &TestServer) -> Vec<Difference> {
    server.reader.caught_up().await.unwrap();
    let mut connection = server.book.database.app.acquire().await.unwrap();
    projections::compare(&mut connection, &server.book.ledger.judge())
        .await
        .unwrap()
}

fn one() -> Filter {
    Filter {
        limit: 10,
        ..Filter::default()
    }
}

#[tokio::test]
async fn people_read_their_own_writes() {
    let server = TestServer::start().await;
    for _round in 0..20 {
        let (request, _) = server.book.request();
        let id = server.book.send(request).await.unwrap().id;
        let item = server.reader.command(&id).await.unwrap().unwrap();
        assert_eq!(item.status, "requested");
        assert_eq!((item.approvals, item.needed), (Some(0), Some(2)));
    }
}

#[tokio::test]
async fn the_rows_equal_a_fold_of_the_log() {
    let server = TestServer::start().await;
    let (first, _) = server.book.authorized().await;
    server.book.run(first).await;
    let (waiting, act) = server.book.request();
    let waiting = server.book.send(waiting).await.unwrap().id;
    server
        .book
        .send(server.book.approval("bob", waiting, &act))
        .await
        .unwrap();
    assert_eq!(differences(&server).await, Vec::new());
    let item = server.reader.command(&first).await.unwrap().unwrap();
    assert_eq!(
        (item.status.as_str(), item.approvals),
        ("completed", Some(2))
    );
    let judge = server.book.ledger.judge();
    let (for_carol, _) = server
        .reader
        .inbox(&"carol".parse().unwrap(), 10, judge.as_ref())
        .await
        .unwrap();
    assert_eq!(for_carol.len(), 1);
    let (for_bob, _) = server
        .reader
        .inbox(&"bob".parse().unwrap(), 10, judge.as_ref())
        .await
        .unwrap();
    assert_eq!(for_bob, Vec::new());
}

#[tokio::test]
async fn a_row_that_was_changed_is_found() {
    let server = TestServer::start().await;
    server.book.authorized().await;
    assert_eq!(differences(&server).await, Vec::new());
    for (table, change) in [
        (
            "commands",
            "UPDATE projections.commands SET requester = 'mallory'",
        ),
        ("executions", "DELETE FROM projections.executions"),
        (
            "inbox",
            "INSERT INTO projections.inbox VALUES ('mallory', '\\x00', false)",
        ),
        ("agents", "UPDATE projections.agents SET status = 'revoked'"),
        (
            "spans",
            "UPDATE projections.spans SET last_seq = last_seq + 1",
        ),
        ("runs", "UPDATE projections.runs SET host = 'web-9'"),
        ("deeds", "DELETE FROM projections.deeds WHERE seq = 1"),
    ] {
        sqlx::query(change)
            .execute(&server.book.database.app)
            .await
            .unwrap();
        let found = differences(&server).await;
        assert!(
            found.iter().any(
                |found| matches!(found, Difference::Rows { projection, .. } if *projection == table)
            ),
            "{table}: {found:?}"
        );
    }
    projections::rebuild(&server.book.database.app, &server.book.ledger.judge())
        .await
        .unwrap();
    assert_eq!(differences(&server).await, Vec::new());
}

#[tokio::test]
async fn a_policy_that_changes_counts_open_requests_anew() {
    let server = TestServer::start().await;
    let (request, act) = server.book.request();
    let id = server.book.send(request).await.unwrap().id;
    server
        .book
        .send(server.book.approval("bob", id, &act))
        .await
        .unwrap();
    let item = server.reader.command(&id).await.unwrap().unwrap();
    assert_eq!((item.approvals, item.needed), (Some(1), Some(2)));
    let policy = cedar::names(1, &["alice"], &["carol"]);
    server.book.publish(&policy).await;
    let item = server.reader.command(&id).await.unwrap().unwrap();
    assert_eq!((item.approvals, item.needed), (Some(0), Some(1)));
    assert_eq!(differences(&server).await, Vec::new());
}

/// What waits for a person, and how many approvals of how many a command has.
async fn waiting(server: &TestServer, who: &str) -> usize {
    let judge = server.book.ledger.judge();
    let person = who.parse().unwrap();
    let inbox = server.reader.inbox(&person, 10, judge.as_ref());
    inbox.await.unwrap().0.len()
}

#[tokio::test]
async fn roles_and_groups_that_change_move_requests_between_inboxes() {
    let server = TestServer::start().await;
    let book = &server.book;
    let policy = book.publish(&Policy::built_in()).await;
    let (request, act) = book.request();
    let id = book.send(request).await.unwrap().id;
    let approval = book.view().approval("carol", id, &act, policy);
    book.send(approval).await.unwrap();
    let count = async || {
        let item = server.reader.command(&id).await.unwrap().unwrap();
        (item.approvals, item.needed)
    };
    assert_eq!(count().await, (Some(1), Some(2)));
    assert_eq!(differences(&server).await, Vec::new());
    // Who may not approve any more does not count any more.
    book.take_away("admin", "user:carol").await;
    assert_eq!(count().await, (Some(0), Some(2)));
    assert_eq!(waiting(&server, "carol").await, 0);
    assert_eq!(differences(&server).await, Vec::new());
    // A role of one's own making, by a group.
    book.join("dave").await;
    book.regroup("sre", &["carol", "dave"], &[]).await;
    book.change(ChangeBody::RoleDefined {
        role: "approver".parse().unwrap(),
        permissions: vec![Permission::CommandApprove],
    })
    .await;
    assert_eq!(waiting(&server, "dave").await, 0);
    book.grant("approver", "group:sre").await;
    assert_eq!(count().await, (Some(1), Some(2)));
    assert_eq!(waiting(&server, "dave").await, 1);
    assert_eq!(waiting(&server, "carol").await, 0);
    assert_eq!(differences(&server).await, Vec::new());
    book.regroup("sre", &[], &["dave"]).await;
    assert_eq!(waiting(&server, "dave").await, 0);
    assert_eq!(differences(&server).await, Vec::new());
    // A role that means something else from here on.
    book.change(ChangeBody::RoleDefined {
        role: "approver".parse().unwrap(),
        permissions: vec![Permission::CommandRead],
    })
    .await;
    assert_eq!(count().await, (Some(0), Some(2)));
    assert_eq!(differences(&server).await, Vec::new());
    projections::rebuild(&book.database.app, &book.ledger.judge())
        .await
        .unwrap();
    assert_eq!(differences(&server).await, Vec::new());
}

#[tokio::test]
async fn hosts_that_are_labelled_drained_and_gone_are_listed_so() {
    let server = TestServer::start().await;
    let book = &server.book;
    let agent = || "web-1".parse().unwrap();
    let listed = async || {
        let agents = server.reader.agents().await.unwrap();
        let mut of = agents.into_iter().filter(|item| item.agent == "web-1");
        of.next()
            .map(|item| (item.status, item.labels, item.drained))
    };
    let labels = vec!["env=prod".to_owned(), "role=web".to_owned()];
    book.change(ChangeBody::AgentRelabelled {
        agent: agent(),
        labels: labels.iter().map(|label| label.parse().unwrap()).collect(),
    })
    .await;
    let accepted = |drained| Some(("accepted".to_owned(), labels.clone(), drained));
    assert_eq!(listed().await, accepted(false));
    book.change(ChangeBody::AgentDrained { agent: agent() })
        .await;
    assert_eq!(listed().await, accepted(true));
    assert_eq!(differences(&server).await, Vec::new());
    let (request, _) = book.request();
    assert!(book.send(request).await.is_err(), "a drained host");
    book.change(ChangeBody::AgentUndrained { agent: agent() })
        .await;
    assert_eq!(listed().await, accepted(false));
    book.change(ChangeBody::AgentRetired { agent: agent() })
        .await;
    let gone = listed().await;
    assert!(gone.is_none_or(|(status, ..)| status != "accepted"));
    assert_eq!(differences(&server).await, Vec::new());
}

#[tokio::test]
async fn a_review_that_opens_and_closes_leaves_the_rows_as_the_log_says() {
    let server = TestServer::start().await;
    let book = &server.book;
    let glass =
        r#"@id("glass") permit (principal, action == Action::"command:break_glass", resource);"#;
    book.publish(&Policy::new(glass.into()).unwrap()).await;
    let broken = book.send(book.break_glass()).await.unwrap().id;
    let item = server.reader.command(&broken).await.unwrap().unwrap();
    assert_eq!(item.status, "authorized");
    assert_eq!(waiting(&server, "bob").await, 0);
    assert_eq!(differences(&server).await, Vec::new());
    book.run(broken).await;
    assert_eq!(differences(&server).await, Vec::new());
    book.send(book.review("bob", broken)).await.unwrap();
    assert_eq!(differences(&server).await, Vec::new());
}

#[tokio::test]
async fn two_followers_share_the_rows() {
    let first = TestServer::start().await;
    let ledger = first.book.reopen().await.unwrap();
    // A second server on the first one's database.
    let pool = first.book.database.another_app().await;
    let (tell, projected) = tokio::sync::watch::channel(None);
    let second = projections::Reader::new(pool.clone(), ledger.watch(), projected);
    tokio::spawn(projections::run(
        pool,
        ledger.watch(),
        (tell, second.bell()),
        ledger.judge(),
    ));
    for _round in 0..10 {
        let (command, _) = first.book.authorized().await;
        first.book.run(command).await;
    }
    let size = first.book.ledger.newest().size();
    let mut log = ledger.watch();
    log.wait_for(|newest| newest.size() >= size).await.unwrap();
    assert_eq!(
        first.reader.commands(&one()).await.unwrap(),
        second.commands(&one()).await.unwrap()
    );
    assert_eq!(differences(&first).await, Vec::new());
}

#[tokio::test]
async fn a_projection_of_another_version_is_built_anew() {
    let server = TestServer::start().await;
    server.book.authorized().await;
    server.reader.caught_up().await.unwrap();
    let app = &server.book.database.app;
    sqlx::query("UPDATE projections.cursors SET version = 0 WHERE name = 'executions'")
        .execute(app)
        .await
        .unwrap();
    sqlx::query("DELETE FROM projections.executions")
        .execute(app)
        .await
        .unwrap();
    // A server that starts.
    let mut rows = server.book.follow(app.clone(), Bell::default());
    let size = server.book.ledger.newest().size();
    have(&mut rows, size).await;
    let rows = sqlx::query("SELECT count(*) AS n FROM projections.executions")
        .fetch_one(app)
        .await
        .unwrap();
    assert_eq!(rows.get::<i64, _>("n"), 1);
    assert_eq!(differences(&server).await, Vec::new());
}

/// How old an approval is, is looked at as of the newest entry that could matter: also of one that no
/// administrator agreed to.
#[tokio::test]
async fn a_key_that_retires_makes_no_row_differ_from_the_log() {
    let book = TestLedger::two_minutes_ago().await;
    let server = TestServer::over(book).await;
    let book = &server.book;
    let short = "@id(\"short\") @approvals(\"2\") @expires(\"30s\")
        permit (principal, action == Action::\"command:execute\", resource);";
    let policy = book.publish(&Policy::new(short.to_owned()).unwrap()).await;
    let (request, act) = book.request();
    let id = book.send(request).await.unwrap().id;
    let approval = book.view().approval("bob", id, &act, policy);
    book.send(approval).await.unwrap();
    let count = async || {
        let item = server.reader.command(&id).await.unwrap();
        item.unwrap().approvals
    };
    assert_eq!(count().await, Some(1));
    assert_eq!(waiting(&server, "bob").await, 0);
    book.rotate("web-1", "web-1 anew").await;
    book.clock.advance(40 * SECOND_US);
    book.send(book.retire()).await.unwrap();
    assert_eq!(count().await, Some(0));
    assert_eq!(waiting(&server, "bob").await, 1);
    assert_eq!(differences(&server).await, Vec::new());
}

async fn version_of_executions(server: &TestServer) -> (i32, i64) {
    sqlx::query_as("SELECT version, next FROM projections.cursors WHERE name = 'executions'")
        .fetch_one(&server.book.database.app)
        .await
        .unwrap()
}

async fn raise_executions(server: &TestServer, by: i32) {
    sqlx::query("UPDATE projections.cursors SET version = version + $1 WHERE name = 'executions'")
        .bind(by)
        .execute(&server.book.database.app)
        .await
        .unwrap();
}

/// Two servers of different versions would drop each other's tables for ever.
#[tokio::test]
async fn lists_that_a_newer_program_made_are_neither_written_nor_dropped() {
    let server = TestServer::start().await;
    let app = &server.book.database.app;
    server.book.authorized().await;
    server.reader.caught_up().await.unwrap();
    // All of the servers run on this thread.
    let (logged, _guard) = Logged::by_this_thread();
    raise_executions(&server, 1).await;
    let before = version_of_executions(&server).await;
    // One that follows, and one that starts.
    server.book.authorized().await;
    let _rows = server.book.follow(app.clone(), Bell::default());
    let begun = Instant::now();
    while logged.text().matches("a newer program has made").count() < 4 {
        assert!(begun.elapsed() < PATIENCE, "{}", logged.text());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(version_of_executions(&server).await, before);
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM projections.executions")
        .fetch_one(app)
        .await
        .unwrap();
    assert_eq!(rows, 1);
    // A person decides for the older one.
    projections::rebuild(app, &server.book.ledger.judge())
        .await
        .unwrap();
    assert_eq!(version_of_executions(&server).await.0, before.0 - 1);
    assert_eq!(differences(&server).await, Vec::new());
}

/// An older server began a table anew while this one followed, and a newer one has a table of its own.
#[tokio::test]
async fn a_server_that_follows_writes_no_table_of_another_version() {
    let server = TestServer::start().await;
    let app = &server.book.database.app;
    server.book.authorized().await;
    server.reader.caught_up().await.unwrap();
    sqlx::query("INSERT INTO projections.cursors VALUES ('not-yet-known', 7, 0)")
        .execute(app)
        .await
        .unwrap();
    raise_executions(&server, -1).await;
    sqlx::query("DELETE FROM projections.executions")
        .execute(app)
        .await
        .unwrap();
    server.book.authorized().await;
    assert_eq!(differences(&server).await, Vec::new());
    let next: i64 =
        sqlx::query_scalar("SELECT next FROM projections.cursors WHERE name = 'not-yet-known'")
            .fetch_one(app)
            .await
            .unwrap();
    assert_eq!(next, 0);
}
