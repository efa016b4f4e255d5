//! Blobs: content never changes, what an entry names never goes, what nobody names is purged.

use sqlx::PgPool;

use super::{passes, refused, words};
use crate::support::{TestDatabase, database};
use crate::vectors::golden;

const NOT_REDACTED: &str = "no redaction event names the blob";
const NAMED: &str = "an entry names the blob or may yet";

/// Four blobs: named and not, old and fresh. The server may say when it stored one.
async fn four() -> TestDatabase {
    let database = database().await;
    golden::fill(&database.app, 2).await;
    passes(
        &database.app,
        "INSERT INTO blobs (digest, salt, content, stored_at)
         SELECT sha256(name::bytea), sha256('salt'), name::bytea,
             now() - CASE WHEN name LIKE 'old%' THEN interval '61 minutes'
                 ELSE interval '59 minutes' END
         FROM unnest(ARRAY['old named', 'old loose', 'new named', 'new loose']) AS name;
         INSERT INTO blob_references
         SELECT digest, 1 FROM blobs WHERE content::text LIKE '%' AND
             convert_from(content, 'UTF8') LIKE '% named'",
    )
    .await;
    database
}

async fn left(pool: &PgPool) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT convert_from(content, 'UTF8') AS name FROM blobs
         WHERE content IS NOT NULL ORDER BY name",
    )
    .fetch_all(pool)
    .await
    .unwrap()
}

fn named(name: &str) -> String {
    format!("digest = sha256('{name}')")
}

#[tokio::test]
async fn purging_takes_what_no_entry_named_within_an_hour_and_nothing_else() {
    let database = four().await;
    let purged: i64 = sqlx::query_scalar("SELECT purge_unreferenced_blobs()")
        .fetch_one(&database.app)
        .await
        .unwrap();
    assert_eq!(purged, 1);
    assert_eq!(
        left(&database.app).await,
        ["new loose", "new named", "old named"]
    );
}

#[tokio::test]
async fn purging_goes_on_where_it_ended_and_takes_no_more_than_a_portion() {
    let database = four().await;
    passes(
        &database.app,
        "INSERT INTO blobs (digest, salt, content, stored_at)
         SELECT sha256(int8send(n)), sha256('salt'), 'loose', now() - interval '61 minutes'
         FROM generate_series(1, 10000) AS n",
    )
    .await;
    for wanted in [10_000, 1, 0] {
        let purged: i64 = sqlx::query_scalar("SELECT purge_unreferenced_blobs()")
            .fetch_one(&database.app)
            .await
            .unwrap();
        assert_eq!(purged, wanted);
    }
}

/// It came first over an hour ago, with a statement that was refused.
#[tokio::test]
async fn what_is_sent_again_is_young_again_and_keeps_its_bytes() {
    let database = four().await;
    let renew = "SELECT renew_blobs(array_agg(digest)) FROM blobs";
    passes(&database.app, renew).await;
    let purged: i64 = sqlx::query_scalar("SELECT purge_unreferenced_blobs()")
        .fetch_one(&database.app)
        .await
        .unwrap();
    assert_eq!(purged, 0);
    assert_eq!(left(&database.app).await.len(), 4);
    // What an entry names is not touched: it is never purged.
    let old = "SELECT convert_from(content, 'UTF8') FROM blobs WHERE stored_at < now() - interval '1 hour'";
    let old: Vec<String> = sqlx::query_scalar(old)
        .fetch_all(&database.app)
        .await
        .unwrap();
    assert_eq!(old, ["old named"]);
    for age in ["now() + interval '1 second'", "now() - interval '1 second'"] {
        let sql = format!(
            "UPDATE blobs SET stored_at = {age} WHERE {}",
            named("new loose")
        );
        refused(&database.owner, &sql, NOT_REDACTED).await;
    }
}

/// The purge runs with the owner's rights. A table of the caller's own must not tell it what is
/// named.
#[tokio::test]
async fn purging_asks_the_log_and_no_table_of_the_session() {
    let database = four().await;
    let mut session = database.app.acquire().await.unwrap();
    sqlx::raw_sql(
        "CREATE TEMPORARY TABLE blob_references (digest bytea, seq bigint);
         SELECT public.purge_unreferenced_blobs()",
    )
    .execute(&mut *session)
    .await
    .unwrap();
    assert!(left(&database.app).await.contains(&"old named".to_owned()));
}

#[tokio::test]
async fn the_server_itself_cannot_delete_or_change_a_blob() {
    let database = four().await;
    for sql in [
        "DELETE FROM blobs",
        "UPDATE blobs SET content = 'x'",
        "UPDATE blobs SET content = NULL, salt = NULL",
        "TRUNCATE blobs CASCADE",
    ] {
        refused(&database.app, sql, "permission denied").await;
    }
}

#[tokio::test]
async fn the_guard_keeps_named_and_fresh_blobs_from_the_owner_too() {
    let database = four().await;
    let owner = &database.owner;
    for name in ["old named", "new named", "new loose"] {
        let sql = format!("DELETE FROM blobs WHERE {}", named(name));
        refused(owner, &sql, NAMED).await;
    }
    refused(owner, "TRUNCATE blobs CASCADE", "the log only grows").await;
    let loose = format!("DELETE FROM blobs WHERE {}", named("old loose"));
    assert_eq!(passes(owner, &loose).await, 1);
    passes(owner, "DROP TRIGGER guard_blob ON blobs").await;
    let fresh = format!("DELETE FROM blobs WHERE {}", named("new loose"));
    assert_eq!(
        passes(owner, &fresh).await,
        1,
        "without its trigger it goes"
    );
}

#[tokio::test]
async fn content_and_salt_never_change() {
    let database = four().await;
    for change in [
        "content = 'other'",
        "salt = sha256('other')",
        "digest = sha256('other')",
        "stored_at = now() - interval '1 day'",
        "content = NULL, salt = NULL",
    ] {
        let sql = format!("UPDATE blobs SET {change} WHERE {}", named("new loose"));
        refused(&database.owner, &sql, NOT_REDACTED).await;
    }
    passes(&database.owner, "DROP TRIGGER guard_blob ON blobs").await;
    let sql = format!(
        "UPDATE blobs SET content = 'other' WHERE {}",
        named("new loose")
    );
    passes(&database.owner, &sql).await;
}

/// An entry of the golden log's shape with another namespace and payload.
async fn append(database: &TestDatabase, namespace: &str, payload: &str) {
    let (seq, last): (i64, Vec<u8>) =
        sqlx::query_as("SELECT seq + 1, leaf FROM entries ORDER BY seq DESC LIMIT 1")
            .fetch_one(&database.app)
            .await
            .unwrap();
    let mut entry = b"countersign/entry/v1\n".to_vec();
    entry.extend(seq.to_be_bytes());
    entry.extend(1_900_000_000_000_000_u64.to_be_bytes());
    entry.extend(last);
    entry.extend([7; 32]);
    entry.extend(u16::try_from(namespace.len()).unwrap().to_be_bytes());
    entry.extend(namespace.as_bytes());
    entry.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
    entry.extend(payload.as_bytes());
    golden::insert(&database.app, &[(seq, entry)])
        .await
        .unwrap();
}

#[tokio::test]
async fn a_blob_is_erased_only_once_a_redaction_entry_names_it() {
    let database = four().await;
    let digest: String = sqlx::query_scalar("SELECT encode(sha256('old named'), 'hex') AS digest")
        .fetch_one(&database.app)
        .await
        .unwrap();
    let erase = |name| {
        format!(
            "UPDATE blobs SET content = NULL, salt = NULL WHERE {}",
            named(name)
        )
    };
    let payload = format!("{{\"digest\":\"{digest}\"}}");
    let mention = format!("{{\"digest\":\"{digest}\",\"user\":\"blob.redacted.v1@countersign\"}}");
    append(&database, "command.requested.v1@countersign", &mention).await;
    refused(&database.owner, &erase("old named"), NOT_REDACTED).await;
    append(&database, "blob.redacted.v1@countersign", &payload).await;
    refused(&database.owner, &erase("new named"), NOT_REDACTED).await;
    let half = format!(
        "UPDATE blobs SET content = NULL WHERE {}",
        named("old named")
    );
    refused(&database.owner, &half, "violates check constraint").await;
    let more = format!(
        "UPDATE blobs SET content = NULL, salt = NULL, stored_at = now() WHERE {}",
        named("old named")
    );
    refused(&database.owner, &more, NOT_REDACTED).await;
    assert_eq!(passes(&database.owner, &erase("old named")).await, 1);
}

#[tokio::test]
async fn the_server_erases_what_a_redaction_names_and_nothing_else() {
    let database = four().await;
    let digest: String = sqlx::query_scalar("SELECT encode(sha256('old named'), 'hex') AS digest")
        .fetch_one(&database.app)
        .await
        .unwrap();
    let payload = format!("{{\"digests\":[\"{digest}\"]}}");
    append(&database, "command.requested.v1@countersign", &payload).await;
    append(&database, "blob.redacted.v1@countersign", &payload).await;
    let last: i64 = sqlx::query_scalar("SELECT max(seq) FROM entries")
        .fetch_one(&database.app)
        .await
        .unwrap();
    for no in [0, last - 1, last + 1] {
        let sql = format!("SELECT erase_blobs({no})");
        refused(&database.app, &sql, "is no redaction").await;
    }
    assert_eq!(left(&database.app).await.len(), 4);
    let erased: i64 = sqlx::query_scalar("SELECT erase_blobs($1)")
        .bind(last)
        .fetch_one(&database.app)
        .await
        .unwrap();
    assert_eq!(erased, 1);
    let before = ["new loose", "new named", "old loose"];
    assert_eq!(left(&database.app).await, before);
}

/// It runs with the owner's rights: a table of the caller's own must not tell it what is redacted.
#[tokio::test]
async fn erasing_asks_the_log_and_no_table_of_the_session() {
    let database = four().await;
    let mut session = database.app.acquire().await.unwrap();
    let forged = sqlx::raw_sql(
        "CREATE TEMPORARY TABLE entries (seq bigint, entry bytea);
         INSERT INTO entries SELECT 7, substring(sha256('') || sha256('') || sha256('') || sha256('')
             FROM 1 FOR 101) || '\\x001c'::bytea || 'blob.redacted.v1@countersign'::bytea
             || int4send(82) || convert_to('{\"digests\":[\"' || encode(sha256('old named'), 'hex')
             || '\"]}', 'UTF8');
         SELECT public.erase_blobs(7)",
    )
    .execute(&mut *session)
    .await;
    assert!(words(&forged.unwrap_err()).contains("is no redaction"));
    assert_eq!(left(&database.app).await.len(), 4);
}

#[tokio::test]
async fn a_blob_over_its_limits_is_refused_by_the_table() {
    let database = database().await;
    for values in [
        "(sha256('a'), sha256('s'), repeat('x', 4194305)::bytea)",
        "(sha256('a'), '\\x00', 'x')",
        "('\\x00', sha256('s'), 'x')",
        "(sha256('a'), NULL, 'x')",
    ] {
        let sql = format!("INSERT INTO blobs (digest, salt, content) VALUES {values}");
        refused(&database.app, &sql, "violates check constraint").await;
    }
}
