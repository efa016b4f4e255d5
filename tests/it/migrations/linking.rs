//! What is inserted links on, whoever inserts it.

use sqlx::PgPool;

use super::{passes, words};
use crate::support::database;
use crate::vectors::golden;

const TIME: u64 = 1_800_000_000_000_000;

/// A row to insert: its key, and the bytes that say number, time and link.
#[derive(Clone)]
struct Row {
    key: i64,
    prefix: &'static [u8],
    seq: u64,
    time: u64,
    prev: [u8; 32],
}

impl Row {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.prefix.to_vec();
        bytes.extend(self.seq.to_be_bytes());
        bytes.extend(self.time.to_be_bytes());
        bytes.extend(self.prev);
        bytes.extend(b"the rest of entry, which the database does not read");
        bytes
    }

    fn leaf(&self) -> [u8; 32] {
        *countersign_protocol::entry::leaf(&self.bytes()).as_bytes()
    }
}

/// `count` rows that link, from 0.
fn chain(count: u64) -> Vec<Row> {
    let mut prev = [0; 32];
    (0..count)
        .map(|seq| {
            let row = Row {
                key: i64::try_from(seq).unwrap(),
                prefix: b"countersign/entry/v1\n",
                seq,
                time: TIME + seq,
                prev,
            };
            prev = row.leaf();
            row
        })
        .collect()
}

async fn insert(pool: &PgPool, rows: &[Row]) -> Result<(), String> {
    let rows: Vec<_> = rows.iter().map(|row| (row.key, row.bytes())).collect();
    golden::insert(pool, &rows)
        .await
        .map_err(|error| words(&error))
}

/// Fails unless the trigger refuses the last of `rows` as app and as owner, and unless the very
/// same insert passes once the trigger is gone.
async fn only_the_trigger_stops(standing: &[Row], added: &[Row], bad: i64) {
    let database = database().await;
    if !standing.is_empty() {
        insert(&database.app, standing).await.unwrap();
    }
    for pool in [&database.app, &database.owner] {
        let said = insert(pool, added).await;
        let expected = format!("entry {bad} does not link to the one before it");
        assert!(
            said.as_ref().is_err_and(|words| words.contains(&expected)),
            "{said:?}"
        );
        let left: i64 = sqlx::query_scalar("SELECT count(*) FROM entries")
            .fetch_one(pool)
            .await
            .unwrap();
        assert_eq!(left, i64::try_from(standing.len()).unwrap());
    }
    passes(&database.owner, "DROP TRIGGER linking ON entries").await;
    insert(&database.app, added).await.unwrap();
}

#[tokio::test]
async fn a_chain_passes_row_by_row_and_in_batches() {
    let database = database().await;
    let rows = chain(12);
    for row in &rows[..3] {
        insert(&database.app, std::slice::from_ref(row))
            .await
            .unwrap();
    }
    insert(&database.app, &rows[3..12]).await.unwrap();
}

#[tokio::test]
async fn a_batch_may_come_in_any_order() {
    let database = database().await;
    let mut rows = chain(6);
    rows.reverse();
    insert(&database.app, &rows).await.unwrap();
}

#[tokio::test]
async fn equal_times_pass() {
    let database = database().await;
    let mut rows = chain(2);
    rows[1].time = rows[0].time;
    insert(&database.app, &rows).await.unwrap();
}

#[tokio::test]
async fn another_link_is_refused() {
    let rows = chain(3);
    let mut bad = rows[2].clone();
    bad.prev[31] ^= 1;
    only_the_trigger_stops(&rows[..2], &[bad], 2).await;
}

#[tokio::test]
async fn another_number_in_the_bytes_is_refused() {
    let rows = chain(3);
    let mut bad = rows[2].clone();
    bad.seq = 3;
    only_the_trigger_stops(&rows[..2], &[bad], 2).await;
}

#[tokio::test]
async fn a_gap_is_refused() {
    let rows = chain(5);
    only_the_trigger_stops(&rows[..2], &rows[3..], 3).await;
    only_the_trigger_stops(&[], &rows[1..], 1).await;
    let mut holed = rows.clone();
    holed.remove(2);
    only_the_trigger_stops(&[], &holed, 3).await;
    // Linked over the gap, so that nothing but the numbers shows it.
    let mut bridged = holed[..3].to_vec();
    bridged[2].prev = bridged[1].leaf();
    only_the_trigger_stops(&[], &bridged, 3).await;
}

#[tokio::test]
async fn an_earlier_time_is_refused() {
    let rows = chain(3);
    let mut bad = rows[2].clone();
    bad.time = rows[1].time - 1;
    only_the_trigger_stops(&rows[..2], &[bad], 2).await;
}

#[tokio::test]
async fn another_beginning_of_the_bytes_is_refused() {
    let rows = chain(3);
    let mut bad = rows[2].clone();
    bad.prefix = b"countersign/entry/v2\n";
    only_the_trigger_stops(&rows[..2], &[bad], 2).await;
}

#[tokio::test]
async fn a_first_row_that_links_to_something_is_refused() {
    let mut bad = chain(1);
    bad[0].prev = [1; 32];
    only_the_trigger_stops(&[], &bad, 0).await;
}

#[tokio::test]
async fn one_bad_row_refuses_the_whole_batch() {
    let mut rows = chain(6);
    rows[4].prev[0] ^= 1;
    only_the_trigger_stops(&rows[..1], &rows[1..], 4).await;
}

#[tokio::test]
async fn bytes_cut_short_are_refused() {
    let database = database().await;
    let whole = chain(1)[0].bytes();
    for end in [0, 20, 21, 28, 36, 68] {
        let said = golden::insert(&database.app, &[(0, whole[..end].to_vec())]).await;
        assert!(said.is_err(), "cut at {end}");
    }
}

#[tokio::test]
async fn a_second_row_0_and_a_negative_one_are_refused_by_the_table() {
    let database = database().await;
    let rows = chain(2);
    insert(&database.app, &rows).await.unwrap();
    let again = insert(&database.app, &rows[..1]).await.unwrap_err();
    assert!(again.contains("duplicate key"), "{again}");
    let mut negative = rows[0].clone();
    negative.key = -1;
    let refused = insert(&database.app, &[negative]).await.unwrap_err();
    assert!(refused.contains("violates check constraint"), "{refused}");
}

#[tokio::test]
async fn the_leaf_is_computed_by_the_database_and_cannot_be_given() {
    let database = database().await;
    let rows = chain(2);
    insert(&database.app, &rows).await.unwrap();
    let leaves: Vec<Vec<u8>> = sqlx::query_scalar("SELECT leaf FROM entries ORDER BY seq")
        .fetch_all(&database.app)
        .await
        .unwrap();
    assert_eq!(leaves, rows.iter().map(Row::leaf).collect::<Vec<_>>());
    super::refused(
        &database.app,
        "INSERT INTO entries (seq, entry, leaf) VALUES (2, '\\x00', sha256(''))",
        "cannot insert a non-DEFAULT value into column \"leaf\"",
    )
    .await;
}

/// The trigger runs in the session of whoever inserts. What that session calls `entries`, or `=`,
/// must not be what the trigger reads.
#[tokio::test]
async fn tables_and_operators_of_the_session_do_not_stand_in_for_the_log() {
    let database = database().await;
    let rows = chain(4);
    insert(&database.app, &rows[..1]).await.unwrap();
    let mut forged = rows[0].clone();
    forged.time += 1;
    let mut bad = rows[1].clone();
    bad.prev = forged.leaf();
    for schema in ["pg_temp", "projections"] {
        let mut session = database.app.acquire().await.unwrap();
        let decoy = format!(
            "SET search_path = {schema}, public;
             CREATE TABLE {schema}.entries (seq bigint, entry bytea, leaf bytea)"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(decoy))
            .execute(&mut *session)
            .await
            .unwrap();
        let plant = format!("INSERT INTO {schema}.entries VALUES (0, $1, $2)");
        sqlx::query(sqlx::AssertSqlSafe(plant))
            .bind(forged.bytes())
            .bind(forged.leaf().to_vec())
            .execute(&mut *session)
            .await
            .unwrap();
        let said = sqlx::query("INSERT INTO public.entries (seq, entry) VALUES (1, $1)")
            .bind(bad.bytes())
            .execute(&mut *session)
            .await
            .map(drop)
            .map_err(|error| words(&error));
        assert!(
            said.is_err_and(|words| words.contains("entry 1 does not link")),
            "{schema}"
        );
        sqlx::raw_sql("RESET search_path")
            .execute(&mut *session)
            .await
            .unwrap();
    }
    let mut session = database.app.acquire().await.unwrap();
    sqlx::raw_sql(
        "CREATE FUNCTION projections.yes(bytea, bytea) RETURNS boolean
             LANGUAGE sql IMMUTABLE AS 'SELECT true';
         CREATE OPERATOR projections.= (LEFTARG = bytea, RIGHTARG = bytea,
             FUNCTION = projections.yes);
         SET search_path = projections, pg_catalog, public",
    )
    .execute(&mut *session)
    .await
    .unwrap();
    let said = sqlx::query("INSERT INTO public.entries (seq, entry) VALUES (1, $1)")
        .bind(bad.bytes())
        .execute(&mut *session)
        .await;
    assert!(said.is_err(), "an operator of the session's own was asked");
}

#[tokio::test]
async fn two_sessions_cannot_both_follow_the_same_entry() {
    let database = database().await;
    let rows = chain(3);
    insert(&database.app, &rows[..1]).await.unwrap();
    // What another transaction has not committed does not count as being there.
    let mut first = database.app.begin().await.unwrap();
    sqlx::query("INSERT INTO entries (seq, entry) VALUES (1, $1)")
        .bind(rows[1].bytes())
        .execute(&mut *first)
        .await
        .unwrap();
    let said = insert(&database.app, &rows[2..]).await;
    assert!(said.is_err(), "it links to what may never be committed");
    first.commit().await.unwrap();
    insert(&database.app, &rows[2..]).await.unwrap();
}
