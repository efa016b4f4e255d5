//! At least once, in order, by one server at a time; and the ledger waits for nobody.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use axum::http::StatusCode;
use serde_json::Value;

use super::support::{Fed, Hook, SECRET, private, until};
use crate::statements::Ask;
use crate::support::{TestLedger, make_unwritable, mend};

const LINES: &str = "[[sink]]\nname = \"lines\"\nkind = \"jsonl\"\npath = \"lines.jsonl\"\nfrom = \"start\"\nkinds = [\"*\"]\n";

/// In that time a server asks twice whether a sink is nobody's.
const TWO_TRIES: Duration = Duration::from_secs(5);

fn lines(book: &TestLedger) -> Vec<Value> {
    let text = fs::read_to_string(book.folder.path().join("lines.jsonl")).unwrap_or_default();
    let whole = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    whole.collect()
}

fn seqs(lines: &[Value]) -> Vec<u64> {
    lines
        .iter()
        .map(|line| line["seq"].as_u64().unwrap())
        .collect()
}

#[tokio::test]
async fn a_file_has_every_entry_once_in_order_and_names_it_as_the_log_does() {
    let book = TestLedger::ready().await;
    let fed = Fed::start(&book, LINES).await;
    fed.caught_up(&book).await;
    let (command, _) = book.authorized().await;
    book.run(command).await;
    fed.caught_up(&book).await;
    let told = lines(&book);
    let size = book.ledger.newest().size();
    assert_eq!(seqs(&told), (0..size).collect::<Vec<u64>>());
    for line in &told {
        let seq = i64::try_from(line["seq"].as_u64().unwrap()).unwrap();
        let (leaf, id): (String, String) = sqlx::query_as(
            "SELECT encode(leaf, 'hex'), encode(statement_id, 'hex')
             FROM entries JOIN statements USING (seq) WHERE seq = $1",
        )
        .bind(seq)
        .fetch_one(&book.database.owner)
        .await
        .unwrap();
        assert_eq!(
            (line["leaf"].as_str(), line["id"].as_str()),
            (Some(&*leaf), Some(&*id))
        );
        assert_eq!(line["ledger"], book.ledger.id().to_string());
    }
    let mode = fs::metadata(book.folder.path().join("lines.jsonl")).unwrap();
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o777,
        0o600
    );
}

#[tokio::test]
async fn a_restart_goes_on_at_the_cursor_and_a_torn_line_spoils_no_other() {
    let book = TestLedger::ready().await;
    let fed = Fed::start(&book, LINES).await;
    fed.caught_up(&book).await;
    fed.stop().await;
    let path = book.folder.path().join("lines.jsonl");
    let torn = [fs::read(&path).unwrap(), b"{\"torn\":".to_vec()].concat();
    fs::write(&path, torn).unwrap();
    book.send(book.request().0).await.unwrap();
    let fed = Fed::start(&book, LINES).await;
    fed.caught_up(&book).await;
    let size = book.ledger.newest().size();
    assert_eq!(seqs(&lines(&book)), (0..size).collect::<Vec<u64>>());
    // Whoever rotates logs takes the file away: the next one begins where that one ended.
    fs::rename(&path, path.with_extension("1")).unwrap();
    book.send(book.request().0).await.unwrap();
    fed.caught_up(&book).await;
    assert_eq!(seqs(&lines(&book)), [size]);
}

#[tokio::test]
async fn from_now_tells_of_what_comes_and_a_sink_that_has_begun_goes_on() {
    let book = TestLedger::ready().await;
    let now = LINES.replace("\"start\"", "\"now\"");
    let fed = Fed::start(&book, &now).await;
    fed.state("feeding").await;
    fed.stop().await;
    let size = book.ledger.newest().size();
    // While no server runs.
    book.send(book.request().0).await.unwrap();
    let fed = Fed::start(&book, &now).await;
    fed.caught_up(&book).await;
    assert_eq!(seqs(&lines(&book)), [size]);
}

#[tokio::test]
async fn only_kinds_that_are_asked_for_are_told_and_the_rest_is_passed() {
    let book = TestLedger::ready().await;
    let (command, _) = book.authorized().await;
    book.run(command).await;
    let some = LINES.replace("[\"*\"]", "[\"execution.*\", \"command.requested\"]");
    let fed = Fed::start(&book, &some).await;
    fed.caught_up(&book).await;
    let told = lines(&book);
    let kinds: Vec<&str> = told
        .iter()
        .map(|line| line["kind"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds,
        [
            "command.requested",
            "execution.started",
            "execution.output",
            "execution.completed"
        ]
    );
    assert!(told.iter().all(|line| line["requester"] == "alice"));
}

/// A receiver that takes calls and answers none.
#[tokio::test]
async fn appends_go_on_while_a_receiver_says_nothing() {
    let book = TestLedger::ready().await;
    private(book.folder.path(), "secret", SECRET);
    let hook = Hook::start().await;
    hook.hang(true);
    let fed = Fed::start(&book, &hook.sink("")).await;
    until("it was called", || !hook.calls().is_empty()).await;
    let before = book.ledger.newest().size();
    for _each in 0..50 {
        book.send(book.request().0).await.unwrap();
    }
    assert!(book.ledger.newest().size() >= before + 50);
    // All of it while the first call still waits for its answer.
    assert_eq!(hook.seqs(), [0]);
    assert_eq!(fed.report().next, Some(0));
    let waiting: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM pg_locks WHERE NOT granted
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
    )
    .fetch_one(&book.database.owner)
    .await
    .unwrap();
    assert_eq!(waiting, 0, "a feed holds no lock that anybody waits for");
    hook.hang(false);
    fed.caught_up(&book).await;
    let told: BTreeSet<u64> = hook.seqs().into_iter().collect();
    assert_eq!(told.len() as u64, book.ledger.newest().size());
}

#[tokio::test]
async fn two_servers_feed_a_sink_once_and_the_other_takes_over() {
    let book = TestLedger::ready().await;
    let (first, second) = (
        Fed::start(&book, LINES).await,
        Fed::start(&book, LINES).await,
    );
    until("one of them feeds", || {
        let states = [
            first.report().state.as_str(),
            second.report().state.as_str(),
        ];
        states.contains(&"feeding") && states.contains(&"standby")
    })
    .await;
    let first_feeds = first.report().state.as_str() == "feeding";
    let (feeds, waits) = if first_feeds {
        (first, second)
    } else {
        (second, first)
    };
    for _each in 0..10 {
        book.send(book.request().0).await.unwrap();
    }
    feeds.caught_up(&book).await;
    assert_eq!(waits.report().delivered, 0);
    feeds.stop().await;
    waits.state("feeding").await;
    book.send(book.request().0).await.unwrap();
    waits.caught_up(&book).await;
    let size = book.ledger.newest().size();
    assert_eq!(
        seqs(&lines(&book)),
        (0..size).collect::<Vec<u64>>(),
        "no doubles in quiet operation"
    );
}

#[tokio::test]
async fn a_server_that_cannot_keep_what_others_commit_leaves_its_sink_to_them() {
    let book = TestLedger::ready().await;
    let (other, file) = (book.another_server().await, book.other_checkpoint_file());
    let deaf = Fed::of(&book, &other, LINES).await;
    deaf.caught_up(&book).await;
    let well = Fed::start(&book, LINES).await;
    well.state("standby").await;
    make_unwritable(&file);
    book.send(book.request().0).await.unwrap();
    well.state("feeding").await;
    well.caught_up(&book).await;
    deaf.state("standby").await;
    let left = deaf.report();
    assert_eq!((left.failures["deaf"], left.next), (1, None));
    let size = book.ledger.newest().size();
    assert_eq!(seqs(&lines(&book)), (0..size).collect::<Vec<u64>>());
    // Nobody else is there, and yet it does not take what it has nothing to tell to.
    well.stop().await;
    tokio::time::sleep(TWO_TRIES).await;
    assert_eq!(deaf.report().state.as_str(), "standby");
    mend(&file);
    deaf.caught_up(&book).await;
    assert_eq!(deaf.report().state.as_str(), "feeding");
}

#[tokio::test]
async fn it_leaves_the_sink_also_while_the_receiver_takes_nothing() {
    let book = TestLedger::ready().await;
    private(book.folder.path(), "secret", SECRET);
    let hook = Hook::start().await;
    hook.answer(vec![(StatusCode::SERVICE_UNAVAILABLE, Vec::new()); 100]);
    let other = book.another_server().await;
    let deaf = Fed::of(&book, &other, &hook.sink("")).await;
    deaf.state("retrying").await;
    let well = Fed::start(&book, &hook.sink("")).await;
    well.state("standby").await;
    make_unwritable(&book.other_checkpoint_file());
    book.send(book.request().0).await.unwrap();
    until("the other has the sink", || well.report().next.is_some()).await;
    deaf.state("standby").await;
    hook.answer(Vec::new());
    well.caught_up(&book).await;
}

/// Whoever loses the connection that holds the right feeds no more, and takes it up again.
#[tokio::test]
async fn a_lost_connection_is_noticed_before_anything_else_is_told() {
    let book = TestLedger::ready().await;
    let fed = Fed::start(&book, LINES).await;
    fed.caught_up(&book).await;
    let ended: i64 = sqlx::query_scalar(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
         WHERE application_name = 'countersign feed' AND datname = current_database()",
    )
    .fetch_one(&book.database.owner)
    .await
    .unwrap();
    assert_eq!(ended, 1);
    book.send(book.request().0).await.unwrap();
    fed.caught_up(&book).await;
    assert_eq!(fed.report().failures["database"], 1);
    let size = book.ledger.newest().size();
    assert_eq!(seqs(&lines(&book)), (0..size).collect::<Vec<u64>>());
}

#[tokio::test]
async fn a_cursor_of_another_history_stops_the_sink_and_not_the_ledger() {
    let book = TestLedger::ready().await;
    let fed = Fed::start(&book, LINES).await;
    fed.caught_up(&book).await;
    fed.stop().await;
    let told = lines(&book).len();
    sqlx::query("UPDATE feed_cursors SET leaf = sha256('other')")
        .execute(&book.database.app)
        .await
        .unwrap();
    let fed = Fed::start(&book, LINES).await;
    fed.state("retrying").await;
    assert_eq!(fed.report().error, Some("history"));
    book.send(book.request().0).await.unwrap();
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(lines(&book).len(), told);
}

#[tokio::test]
async fn a_cursor_can_be_moved_and_not_removed_by_the_server() {
    let book = TestLedger::ready().await;
    let gone = sqlx::query("DELETE FROM feed_cursors")
        .execute(&book.database.app)
        .await;
    assert!(gone.unwrap_err().to_string().contains("permission denied"));
}

/// Approvers see what was asked for; what a host did is told with its own facts in it.
#[tokio::test]
async fn what_a_host_did_is_told_in_the_words_that_it_ran() {
    let book = TestLedger::ready().await;
    book.say_facts("r-1").await;
    let (request, act) = book.ask(&Ask {
        argv: &["/bin/echo", "@fact.rack"],
        rack: Some("r-1"),
        ..Ask::of("web-1")
    });
    let command = book.send(request).await.unwrap().id;
    for who in ["bob", "carol"] {
        book.send(book.approval(who, command, &act)).await.unwrap();
    }
    book.run(command).await;
    let fed = Fed::start(&book, &format!("{LINES}texts = true\n")).await;
    fed.caught_up(&book).await;
    let told = lines(&book);
    let words = |kind: &str| {
        let line = told.iter().find(|line| line["kind"] == kind).unwrap();
        line["texts"]["command"].as_str().unwrap().to_owned()
    };
    assert_eq!(words("command.requested"), "/bin/echo @fact.rack");
    assert_eq!(words("command.approved"), "/bin/echo @fact.rack");
    assert_eq!(words("execution.started"), "/bin/echo r-1");
    assert_eq!(words("execution.completed"), "/bin/echo r-1");
}
