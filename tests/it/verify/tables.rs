//! ATTACKS 4: side tables are indexes of the log; each is recomputed and its first difference named.

use super::story::{Story, assert_holds};
use crate::support::TestLedger;
use countersign_cli::verify::{self, Options, Source};

async fn names(story: &Story, table: &str, change: &str, seq: u64) {
    let (found, reason) = story.found(&[change]).await;
    assert_eq!(found, seq, "{change}: {reason}");
    assert!(
        reason.contains(&format!("table {table},")),
        "{change}: {reason}"
    );
    let report = story.verify().await;
    assert!(report.findings.contains(&reason), "{report:?}");
}

#[tokio::test]
async fn a_changed_statement_row_is_named() {
    let story = Story::new().await;
    let change = "UPDATE statements SET stream = sha256('x') WHERE seq = 4";
    names(&story, "statements", change, 4).await;
}

#[tokio::test]
async fn a_forgotten_statement_is_named() {
    // Without its row the same statement could be entered again.
    let story = Story::new().await;
    names(
        &story,
        "statements",
        "DELETE FROM statements WHERE seq = 9",
        9,
    )
    .await;
}

#[tokio::test]
async fn a_statement_that_no_entry_made_is_named() {
    let story = Story::new().await;
    let insert = "INSERT INTO statements VALUES (sha256('x'), 1000, NULL)";
    names(&story, "statements", insert, 1000).await;
}

#[tokio::test]
async fn an_invented_and_a_forgotten_blob_reference_are_named() {
    let story = Story::new().await;
    let insert = "INSERT INTO blob_references SELECT digest, 0 FROM blobs LIMIT 1";
    names(&story, "blob_references", insert, 0).await;
    let seq = story.number("SELECT max(seq) FROM blob_references").await;
    let delete = format!("DELETE FROM blob_references WHERE seq IN (0, {seq})");
    names(&story, "blob_references", &delete, seq).await;
}

#[tokio::test]
async fn a_changed_and_an_invented_client_ref_are_named() {
    let story = Story::new().await;
    let seq = story
        .number("SELECT seq FROM client_refs JOIN statements USING (statement_id)")
        .await;
    let change = "UPDATE client_refs SET client_ref = sha256('x')";
    names(&story, "client_refs", change, seq).await;
    let mut changes = vec![format!(
        "UPDATE client_refs SET client_ref = '\\x{}'",
        "05".repeat(32)
    )];
    changes.push("INSERT INTO client_refs VALUES ('bob', sha256('x'), sha256('y'))".to_owned());
    names(&story, "client_refs", &changes.join(";"), story.size).await;
}

#[tokio::test]
async fn a_shifted_agent_chain_is_named() {
    let story = Story::new().await;
    let seq = story
        .number("SELECT max(seq) FROM agent_statements JOIN statements USING (statement_id)")
        .await;
    let change = "UPDATE agent_statements SET agent_seq = 7 WHERE agent_seq = 1";
    names(&story, "agent_statements", change, seq).await;
}

#[tokio::test]
async fn an_invented_turn_of_a_label_is_named() {
    let story = Story::new().await;
    let change = "INSERT INTO label_turns VALUES ('role=dns', 3)";
    names(&story, "label_turns", change, 3).await;
}

#[tokio::test]
async fn a_forgotten_and_a_revived_command_are_named() {
    let story = Story::new().await;
    let waiting = story.seq_of(story.waiting).await;
    let forget = format!(
        "DELETE FROM open_streams WHERE stream = '\\x{}'",
        story.waiting
    );
    names(&story, "open_streams", &forget, waiting).await;
    let restore = format!("INSERT INTO open_streams VALUES ('\\x{}')", story.waiting);
    story.tamper(&[&restore]).await;
    assert_holds(&story.verify().await);
    let done = story.seq_of(story.done).await;
    let revive = format!("INSERT INTO open_streams VALUES ('\\x{}')", story.done);
    names(&story, "open_streams", &revive, done).await;
}

#[tokio::test]
async fn a_changed_a_missing_and_an_early_subtree_are_named() {
    let book = TestLedger::ready().await;
    let sends = (0..260).map(|_| book.send(book.request().0));
    for sent in futures_util::future::join_all(sends).await {
        sent.unwrap();
    }
    let owner = &book.database.owner;
    for (change, undo, seq) in [
        (
            "UPDATE subtrees SET root = sha256(root)",
            "UPDATE subtrees SET root = (SELECT root FROM backup)",
            255,
        ),
        (
            "DELETE FROM subtrees",
            "INSERT INTO subtrees SELECT * FROM backup",
            255,
        ),
        (
            "INSERT INTO subtrees VALUES (8, 1, sha256('x'))",
            "DELETE FROM subtrees WHERE index = 1",
            book.ledger.newest().size(),
        ),
        (
            "INSERT INTO subtrees VALUES (16, 0, sha256('x'))",
            "DELETE FROM subtrees WHERE level = 16",
            book.ledger.newest().size(),
        ),
    ] {
        let script = format!(
            "SET session_replication_role = replica; CREATE TABLE IF NOT EXISTS backup AS SELECT * FROM subtrees; {change}; RESET session_replication_role"
        );
        run(owner, &script).await;
        let source = Source::Database(super::story::url(&book.database.app));
        let report = verify::verify(Options::new(source)).await.unwrap();
        let (found, reason) = super::story::bad(&report);
        assert_eq!(found, seq, "{change}: {reason}");
        assert!(reason.contains("table subtrees"), "{reason}");
        let script = format!(
            "SET session_replication_role = replica; {undo}; RESET session_replication_role"
        );
        run(owner, &script).await;
    }
    let source = Source::Database(super::story::url(&book.database.app));
    assert_holds(&verify::verify(Options::new(source)).await.unwrap());
}

async fn run(owner: &sqlx::PgPool, script: &str) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(script.to_owned()))
        .execute(owner)
        .await
        .unwrap();
}
