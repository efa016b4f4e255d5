//! Every query goes by an index, also with the plans of a day when the log was short.

use countersign::ledger::store;
use countersign_protocol::hash::StatementId;

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
