//! What the database itself refuses, whoever asks: the promises of `migrations/README.md`.
//!
//! | file | asks |
//! |---|---|
//! | `append_only.rs` | UPDATE, DELETE and TRUNCATE of the log |
//! | `linking.rs` | entries that do not link on |
//! | `blobs.rs` | erasing, purging and changing of blobs |
//! | `grants.rs` | what the serving role may do, and that it is nothing else |
//! | `running.rs` | migrating, once more and beside another ledger |
//!
//! The guards slow an attacker and stop a mistake; `vectors/sql.rs` and the audit show that what
//! gets past them is found.

mod append_only;
mod blobs;
mod grants;
mod linking;
mod running;

use sqlx::postgres::PgPool;
use sqlx::{AssertSqlSafe, Error};

/// The SQLSTATE of everything that a role may not do; the words for it change with Postgres.
const NOT_ALLOWED: &str = "42501";

/// Runs statements; the database's own words, after their SQLSTATE, when it refuses.
async fn run(pool: &PgPool, sql: &str) -> Result<u64, String> {
    let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(pool)
        .await;
    done.map(|result| result.rows_affected())
        .map_err(|error| words(&error))
}

fn words(error: &Error) -> String {
    error.as_database_error().map_or_else(
        || format!("no answer of the database: {error}"),
        |refused| {
            let code = refused.code().unwrap_or_default();
            format!("{code} {}", refused.message())
        },
    )
}

/// Demands a refusal that says so.
async fn refused(pool: &PgPool, sql: &str, why: &str) {
    let said = run(pool, sql).await;
    let fits = said.as_ref().is_err_and(|words| words.contains(why));
    assert!(fits, "{sql}\n  expected: {why}\n  answer: {said:?}");
}

/// Demands that a statement passes.
async fn passes(pool: &PgPool, sql: &str) -> u64 {
    let said = run(pool, sql).await;
    assert!(said.is_ok(), "{sql}\n  answer: {said:?}");
    said.unwrap()
}
