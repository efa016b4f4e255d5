//! The golden log in a real Postgres, audited by plain SQL.

use sqlx::{AssertSqlSafe, PgPool, Row as _};

use crate::support::{TestDatabase, database};
use crate::vectors::golden;

const AUDIT: &str = include_str!("../../vectors/audit.sql");

/// What `audit.sql` says.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    first_bad: Option<i64>,
    size: i64,
    root: Vec<u8>,
    bad_blobs: i64,
}

async fn audit(pool: &PgPool) -> Verdict {
    let row = sqlx::query(AUDIT).fetch_one(pool).await.unwrap();
    Verdict {
        first_bad: row.get("first_bad"),
        size: row.get("size"),
        root: row.get("root"),
        bad_blobs: row.get("bad_blobs"),
    }
}

fn clean(size: usize) -> Verdict {
    Verdict {
        first_bad: None,
        size: i64::try_from(size).unwrap(),
        root: golden::roots()[size].clone(),
        bad_blobs: 0,
    }
}

async fn filled() -> (TestDatabase, usize) {
    let database = database().await;
    let size = golden::entries().len();
    golden::fill(&database.app, size).await;
    for [digest, salt, content] in golden::blobs() {
        sqlx::query("INSERT INTO blobs (digest, salt, content) VALUES ($1, $2, $3)")
            .bind(digest)
            .bind(salt)
            .bind(content)
            .execute(&database.app)
            .await
            .unwrap();
    }
    (database, size)
}

#[tokio::test]
async fn postgres_computes_the_golden_leaves_by_itself() {
    let (database, _) = filled().await;
    let stored: Vec<(i64, Vec<u8>)> = sqlx::query_as("SELECT seq, leaf FROM entries ORDER BY seq")
        .fetch_all(&database.app)
        .await
        .unwrap();
    let golden = golden::entries()
        .into_iter()
        .map(|entry| (entry.seq, entry.leaf));
    assert!(stored.into_iter().eq(golden));
}

#[tokio::test]
async fn plain_sql_walks_the_chain_and_comes_to_the_golden_root() {
    let (database, size) = filled().await;
    assert_eq!(audit(&database.app).await, clean(size));
}

#[tokio::test]
async fn plain_sql_comes_to_the_root_at_every_size() {
    let database = database().await;
    assert_eq!(audit(&database.app).await, clean(0));
    for entry in golden::entries().into_iter().take(20) {
        golden::insert(&database.app, &[(entry.seq, entry.bytes)])
            .await
            .unwrap();
        let size = usize::try_from(entry.seq).unwrap() + 1;
        assert_eq!(audit(&database.app).await, clean(size));
    }
}

/// What a superuser does with the guards off.
async fn tampered(statement: &'static str) -> (Verdict, usize) {
    let (database, size) = filled().await;
    for table in ["entries", "blobs"] {
        sqlx::query(AssertSqlSafe(format!(
            "ALTER TABLE {table} DISABLE TRIGGER USER"
        )))
        .execute(&database.owner)
        .await
        .unwrap();
    }
    sqlx::raw_sql(statement)
        .execute(&database.owner)
        .await
        .unwrap();
    (audit(&database.app).await, size)
}

#[tokio::test]
async fn plain_sql_finds_what_a_superuser_changed() {
    let (verdict, _) =
        tampered("UPDATE entries SET entry = set_byte(entry, 300, 0) WHERE seq = 7").await;
    assert_eq!(
        verdict.first_bad,
        Some(8),
        "the next one links to other bytes"
    );
    let (verdict, _) =
        tampered("UPDATE entries SET entry = set_byte(entry, 28, 9) WHERE seq = 7").await;
    assert_eq!(verdict.first_bad, Some(7), "it says another number");
    let (verdict, _) = tampered("DELETE FROM entries WHERE seq = 30").await;
    assert_eq!(verdict.first_bad, Some(30));
    let (verdict, _) = tampered(
        "UPDATE entries SET seq = seq + 1000 WHERE seq IN (5, 6);
         UPDATE entries SET seq = 1011 - seq WHERE seq > 1000",
    )
    .await;
    assert_eq!(verdict.first_bad, Some(5), "two entries changed places");
    let (verdict, size) = tampered(
        "UPDATE entries SET entry = set_byte(entry, 300, 0)
         WHERE seq = (SELECT max(seq) FROM entries)",
    )
    .await;
    assert_eq!(verdict.first_bad, None, "nothing links to the last entry");
    assert_ne!(
        verdict.root,
        golden::roots()[size],
        "but the checkpoint's root differs"
    );
    let (verdict, _) = tampered(
        "UPDATE blobs SET content = content || 'x'
         WHERE digest = (SELECT digest FROM blobs ORDER BY digest LIMIT 1)",
    )
    .await;
    assert_eq!(verdict.bad_blobs, 1);
}
