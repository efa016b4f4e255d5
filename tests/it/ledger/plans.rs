//! Every query goes by an index, also with the plans of a day when the log was short.

use countersign::ledger::store;
use countersign_protocol::hash::StatementId;
use sqlx::Connection as _;

use crate::support::TestLedger;

/// Rows that make a lookup of many look dearer than one reading of all, to a plan that is made now.
const SHORT_LOG: usize = 40;

/// A prepared statement gets its lasting plan with its sixth use.
const USES: usize = 10;

async fn whole_readings(connection: &mut sqlx::PgConnection) -> i64 {
    sqlx::query("SELECT pg_stat_force_next_flush()")
        .execute(&mut *connection)
        .await
        .unwrap();
    sqlx::query_scalar("SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'statements'")
        .fetch_one(connection)
        .await
        .unwrap()
}

#[tokio::test]
async fn looking_for_a_batch_never_reads_the_whole_log() {
    let book = TestLedger::ready().await;
    for _each in 0..SHORT_LOG {
        book.send(book.request().0).await.unwrap();
    }
    let mut connection = book.database.app.acquire().await.unwrap();
    let before = whole_readings(&mut connection).await;
    for use_ in 0..USES {
        let id = |n: usize| {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&(use_ * 1000 + n).to_be_bytes());
            StatementId::new(id)
        };
        let ids: Vec<_> = (0..500).map(id).collect();
        let places = store::places(&mut connection, &ids).await.unwrap();
        assert!(places.is_empty());
    }
    assert_eq!(whole_readings(&mut connection).await, before);
}

/// Blobs that entries name, in some five ranges of the index.
const OLD_BLOBS: i64 = 50_000;

/// Readings of the whole of `blobs` by this transaction, and rows of it that it read: what others read is counted late.
async fn read_of_blobs(connection: &mut sqlx::PgConnection) -> (i64, i64) {
    sqlx::query_as(
        "SELECT seq_scan, seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables
         WHERE relname = 'blobs'",
    )
    .fetch_one(connection)
    .await
    .unwrap()
}

#[tokio::test]
async fn a_purge_reads_what_came_since_the_last_one_and_not_all_blobs() {
    let book = TestLedger::ready().await;
    let old = "INSERT INTO blobs (digest, salt, content, stored_at)
         SELECT sha256(int8send(n)), sha256('salt'), 'old', now() - interval '2 days'
         FROM generate_series(1, $1) AS n";
    let owner = &book.database.owner;
    sqlx::query(old)
        .bind(OLD_BLOBS)
        .execute(owner)
        .await
        .unwrap();
    for sql in [
        "INSERT INTO blob_references SELECT digest, 1 FROM blobs WHERE content = 'old'",
        "VACUUM ANALYZE blobs",
    ] {
        sqlx::query(sql).execute(owner).await.unwrap();
    }
    let mut connection = book.database.app.acquire().await.unwrap();
    let purged = store::purge_unreferenced_blobs(&mut connection).await;
    assert_eq!(purged.unwrap(), 0);
    // As if that had been a while ago.
    for sql in [
        "UPDATE blob_purge SET looked_until = now() - interval '70 minutes'",
        "INSERT INTO blobs (digest, salt, content, stored_at)
         VALUES (sha256('waste'), sha256('salt'), 'waste', now() - interval '61 minutes')",
    ] {
        sqlx::query(sql).execute(owner).await.unwrap();
    }
    // What the first one read is not counted with what the second one reads.
    sqlx::query("SELECT pg_stat_force_next_flush()")
        .execute(&mut *connection)
        .await
        .unwrap();
    let mut second = connection.begin().await.unwrap();
    let purged = store::purge_unreferenced_blobs(&mut second).await;
    assert_eq!(purged.unwrap(), 1);
    let (whole, rows) = read_of_blobs(&mut second).await;
    assert_eq!(whole, 0, "the whole table was read");
    assert!(rows < OLD_BLOBS / 2, "{rows} rows were read for one");
}
