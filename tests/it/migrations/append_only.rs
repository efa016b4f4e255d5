//! The log only grows, for the server and for the owner of the tables alike.

use super::{passes, refused, run};
use crate::support::{TestDatabase, database};
use crate::vectors::golden;

/// The tables that only grow, each with a change of one of its columns.
const LOG: &[(&str, &str)] = &[
    ("entries", "entry = '\\x00'"),
    ("checkpoints", "note = 'another'"),
    ("blob_references", "seq = 2"),
    ("statements", "seq = 2"),
    ("client_refs", "principal = 'mallory'"),
    ("agent_statements", "agent_seq = 7"),
    ("label_turns", "label = 'role=other'"),
    ("subtrees", "root = digest"),
];

const NO: &str = "the log only grows";

/// One row in every table of the log.
async fn one_row_each() -> TestDatabase {
    let database = database().await;
    golden::fill(&database.app, 3).await;
    passes(
        &database.app,
        "INSERT INTO blobs (digest, salt, content) VALUES (sha256('b'), sha256('s'), 'c');
         INSERT INTO checkpoints VALUES (3, 'note');
         INSERT INTO blob_references VALUES (sha256('b'), 1);
         INSERT INTO statements VALUES (sha256('i'), 1, NULL);
         INSERT INTO client_refs VALUES ('alice', sha256('r'), sha256('i'));
         INSERT INTO agent_statements VALUES (sha256('k'), 0, sha256('i'));
         INSERT INTO label_turns VALUES ('role=dns', 1);
         INSERT INTO subtrees VALUES (8, 0, sha256('n'))",
    )
    .await;
    database
}

fn update(table: &str, change: &str) -> String {
    let change = change.replace("digest", "sha256('other')");
    format!("UPDATE {table} SET {change}")
}

#[tokio::test]
async fn the_server_can_neither_change_nor_delete_nor_truncate_the_log() {
    let database = one_row_each().await;
    for (table, change) in LOG {
        for sql in [
            update(table, change),
            format!("DELETE FROM {table}"),
            format!("TRUNCATE {table} CASCADE"),
        ] {
            refused(&database.app, &sql, "permission denied").await;
        }
    }
}

#[tokio::test]
async fn neither_can_the_owner_while_the_guards_stand() {
    let database = one_row_each().await;
    for (table, change) in LOG {
        for sql in [
            update(table, change),
            format!("UPDATE {table} SET {change} WHERE false").replace("digest", "sha256('')"),
            format!("DELETE FROM {table}"),
            format!("DELETE FROM {table} WHERE false"),
            format!("TRUNCATE {table} CASCADE"),
        ] {
            refused(&database.owner, &sql, NO).await;
        }
        let left: i64 =
            sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}")))
                .fetch_one(&database.owner)
                .await
                .unwrap();
        assert!(left > 0, "{table}");
    }
}

/// The tests above fail without the guards: here they are gone.
#[tokio::test]
async fn without_its_trigger_each_table_can_be_changed_and_emptied() {
    let database = one_row_each().await;
    for (table, _) in LOG {
        passes(
            &database.owner,
            &format!("DROP TRIGGER append_only ON {table}"),
        )
        .await;
    }
    for (table, change) in LOG.iter().rev() {
        let sql = update(table, change);
        let said = run(&database.owner, &sql).await;
        assert!(!said.is_err_and(|words| words.contains(NO)), "{sql}");
    }
    for (table, _) in LOG.iter().rev() {
        passes(&database.owner, &format!("TRUNCATE {table} CASCADE")).await;
    }
}

#[tokio::test]
async fn the_head_moves_but_never_goes() {
    let database = database().await;
    passes(&database.app, "UPDATE head SET size = 0").await;
    for sql in ["DELETE FROM head", "TRUNCATE head"] {
        refused(&database.app, sql, "permission denied").await;
        refused(&database.owner, sql, NO).await;
    }
    refused(
        &database.owner,
        "INSERT INTO head SELECT * FROM head",
        "duplicate key",
    )
    .await;
    refused(
        &database.app,
        "UPDATE head SET one = false",
        "violates check constraint",
    )
    .await;
    passes(&database.owner, "DROP TRIGGER head_stays ON head").await;
    passes(&database.owner, "DELETE FROM head").await;
}

#[tokio::test]
async fn a_rewrite_by_upsert_merge_or_cursor_is_refused_too() {
    let database = one_row_each().await;
    for pool in [&database.app, &database.owner] {
        for sql in [
            "INSERT INTO checkpoints VALUES (3, 'x') ON CONFLICT (size) DO UPDATE SET note = 'x'",
            "MERGE INTO checkpoints USING (VALUES (3)) AS s (size) ON checkpoints.size = s.size
             WHEN MATCHED THEN DELETE",
            "WITH gone AS (DELETE FROM checkpoints RETURNING 1) SELECT * FROM gone",
        ] {
            let said = run(pool, sql).await;
            assert!(said.is_err(), "{sql}");
        }
    }
}
