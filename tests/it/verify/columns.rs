//! ATTACKS 4, swept: a superuser changes any column of any row of any table, one at a time.
//!
//! The columns are read from the database's own catalogue, so that a new one is in the sweep, or
//! breaks it, on the day it is made.

use std::collections::{BTreeMap, BTreeSet};

use countersign::projections;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _};

use super::story::Story;
use crate::support::TestServer;

/// What may change unseen, and why nothing rests on it.
const HARMLESS: [(&str, &str); 2] = [
    // Says which of the blobs that no entry names are waste; what an entry names is never deleted.
    ("blobs", "stored_at"),
    // Raised by a new version of the server; with any other number the list is built anew.
    ("cursors", "version"),
];

/// Tables without a row in this story; each is changed by a test of its own in `tables.rs`.
const EMPTY_HERE: [&str; 2] = ["subtrees", "label_turns"];

/// Say nothing of the log: what was migrated, which `serve` compares with its own; when a token was
/// used last, for its holder's eyes; how far a sink of the feed is; how far the purge has looked, which
/// takes nothing that an entry names; the words that a search finds texts by, whose hits are judged
/// again from the log and whose gaps `--whole` finds.
const NOT_THE_LOG: [&str; 5] = [
    "_sqlx_migrations",
    "token_uses",
    "feed_cursors",
    "blob_purge",
    "blob_texts",
];

/// Rows of a table that are tried, evenly spread: each change costs a whole audit.
const ROWS: usize = 5;

struct Table {
    /// With its schema.
    name: String,
    /// Name and type of each column that is stored and not computed.
    columns: Vec<(String, String)>,
}

async fn tables(connection: &mut PgConnection, schema: &str) -> Vec<Table> {
    let rows = sqlx::query(
        "SELECT table_name::text, column_name::text, udt_name::text
         FROM information_schema.columns
         JOIN information_schema.tables USING (table_schema, table_name)
         WHERE table_schema = $1 AND is_generated = 'NEVER' AND table_type = 'BASE TABLE'
         ORDER BY table_name, ordinal_position",
    )
    .bind(schema)
    .fetch_all(connection)
    .await
    .unwrap();
    let mut tables: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for row in rows {
        let columns = tables.entry(row.get(0)).or_default();
        columns.push((row.get(1), row.get(2)));
    }
    tables.retain(|name, _| !NOT_THE_LOG.contains(&name.as_str()));
    let named = |(name, columns)| Table {
        name: format!("{schema}.{name}"),
        columns,
    };
    tables.into_iter().map(named).collect()
}

/// Another value of a column, and nothing where something was.
fn changes(column: &str, kind: &str) -> [String; 2] {
    let other = match kind {
        "bytea" => format!(
            "CASE WHEN {column} IS NULL THEN sha256('x')
             ELSE set_byte({column}, length({column}) / 2, get_byte({column}, length({column}) / 2) # 1) END"
        ),
        "int2" | "int4" | "int8" => format!("coalesce({column}, 0) + 1000"),
        "text" => format!("coalesce({column}, '') || 'x'"),
        "bool" => format!("NOT coalesce({column}, false)"),
        "_bytea" => format!("coalesce({column}, '{{}}') || sha256('x')"),
        "_text" => format!("coalesce({column}, '{{}}') || 'x'::text"),
        "timestamptz" => format!("{column} - interval '2 days'"),
        unknown => unreachable!("the sweep does not know how to change a {unknown}"),
    };
    [other, "NULL".to_owned()]
}

impl Table {
    /// Puts the rows back as they were saved, in the same order.
    fn restore(&self) -> String {
        let names: Vec<&str> = self.columns.iter().map(|(name, _)| name.as_str()).collect();
        let (table, names) = (&self.name, names.join(", "));
        format!("DELETE FROM {table}; INSERT INTO {table} ({names}) SELECT {names} FROM saved")
    }

    /// Changes one column of one row. False when the database refuses it, or it is so already.
    async fn change(
        &self,
        connection: &mut PgConnection,
        column: &str,
        to: &str,
        row: i64,
    ) -> bool {
        let table = &self.name;
        let update = format!(
            "UPDATE {table} SET {column} = {to} WHERE {column} IS DISTINCT FROM {to}
             AND ctid = (SELECT ctid FROM {table} ORDER BY ctid OFFSET {row} LIMIT 1)"
        );
        let done = connection.execute(AssertSqlSafe(update)).await;
        done.is_ok_and(|done| done.rows_affected() == 1)
    }
}

/// Changes each column of each row by itself and asks `holds` after each change. Gives the columns
/// that were changed unseen, by table and name.
async fn unseen<F: Future<Output = bool>>(
    owner: &sqlx::PgPool,
    schema: &str,
    holds: impl Fn() -> F,
) -> BTreeSet<(String, String)> {
    let mut connection = PgConnection::connect_with(&owner.connect_options())
        .await
        .unwrap();
    let guards_off = "SET session_replication_role = replica";
    connection.execute(guards_off).await.unwrap();
    let (mut unseen, mut tried) = (BTreeSet::new(), 0);
    for table in tables(&mut connection, schema).await {
        let save = format!(
            "DROP TABLE IF EXISTS saved; CREATE TEMPORARY TABLE saved AS TABLE {}",
            table.name
        );
        sqlx::raw_sql(AssertSqlSafe(save))
            .execute(&mut connection)
            .await
            .unwrap();
        let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM saved")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        let short = table.name.split('.').next_back().unwrap();
        assert_eq!(
            rows == 0,
            EMPTY_HERE.contains(&short),
            "{short} has {rows} rows"
        );
        for (column, kind) in &table.columns {
            for to in changes(column, kind) {
                for row in spread(rows) {
                    if table.change(&mut connection, column, &to, row).await {
                        tried += 1;
                        if holds().await {
                            unseen.insert((short.to_owned(), column.clone()));
                        }
                        let restore = AssertSqlSafe(table.restore());
                        sqlx::raw_sql(restore)
                            .execute(&mut connection)
                            .await
                            .unwrap();
                    }
                }
            }
        }
    }
    assert!(tried > 0 && holds().await, "what was put back holds");
    unseen
}

/// Up to [`ROWS`] places among so many, the first and the last with them.
fn spread(rows: i64) -> BTreeSet<i64> {
    let last = i64::try_from(ROWS - 1).unwrap();
    (0..=last)
        .map(|step| step * (rows - 1) / last)
        .filter(|row| *row >= 0)
        .collect()
}

fn harmless(tables: &[&str]) -> BTreeSet<(String, String)> {
    let listed = HARMLESS.iter().filter(|(table, _)| tables.contains(table));
    listed
        .map(|(table, column)| ((*table).to_owned(), (*column).to_owned()))
        .collect()
}

#[tokio::test]
async fn no_column_of_the_log_and_its_tables_changes_unseen() {
    let story = Story::new().await;
    let holds = async || {
        // A database whose rows have no reading at all is no verdict, and that is loud too.
        story.try_verify().await.is_ok_and(|report| report.ok)
    };
    let unseen = unseen(story.owner(), "public", holds).await;
    assert_eq!(unseen, harmless(&["blobs"]));
}

#[tokio::test]
async fn no_column_of_a_list_changes_unseen() {
    let server = TestServer::over(Story::new().await.book).await;
    server.reader.caught_up().await.unwrap();
    server.shutdown.cancel();
    let holds = async || {
        let mut connection = server.book.database.app.acquire().await.unwrap();
        let compared = projections::compare(&mut connection, &server.book.ledger.judge()).await;
        compared.is_ok_and(|differences| differences.is_empty())
    };
    let unseen = unseen(&server.book.database.owner, "projections", holds).await;
    assert_eq!(unseen, harmless(&["cursors"]));
}
