//! Migrating: once more changes nothing, and two ledgers may share a cluster.

use sqlx::PgPool;
use sqlx::migrate::Migrator;
use sqlx::postgres::PgPoolOptions;

use super::passes;
use crate::support::database;

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// Everything that migrations make, as text.
async fn schema(pool: &PgPool) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT format('column %s.%s %s %s %s', table_name, column_name, data_type, is_nullable,
             coalesce(column_default, generation_expression)) AS line
         FROM information_schema.columns WHERE table_schema IN ('public', 'projections')
         UNION ALL SELECT 'constraint ' || conrelid::regclass || ' ' || pg_get_constraintdef(oid)
         FROM pg_constraint WHERE connamespace = 'public'::regnamespace
         UNION ALL SELECT 'index ' || indexdef FROM pg_indexes WHERE schemaname = 'public'
         UNION ALL SELECT 'trigger ' || pg_get_triggerdef(oid) FROM pg_trigger
         WHERE NOT tgisinternal
         UNION ALL SELECT 'function ' || pg_get_functiondef(oid) FROM pg_proc
         WHERE pronamespace = 'public'::regnamespace
         UNION ALL SELECT 'access ' || relname || ' ' || relacl::text FROM pg_class
         WHERE relnamespace = 'public'::regnamespace AND relacl IS NOT NULL
         UNION ALL SELECT 'ran ' || version || ' ' || installed_on FROM _sqlx_migrations
         ORDER BY line",
    )
    .fetch_all(pool)
    .await
    .unwrap()
}

#[tokio::test]
async fn migrating_twice_changes_nothing() {
    let database = database().await;
    let before = schema(&database.owner).await;
    assert!(before.len() > 60, "{}", before.len());
    MIGRATIONS.run(&database.owner).await.unwrap();
    assert_eq!(schema(&database.owner).await, before);
}

#[tokio::test]
async fn a_second_ledger_of_a_cluster_gets_the_same_schema() {
    let database = database().await;
    let name = format!("{}_second", database.name);
    passes(&database.owner, &format!("CREATE DATABASE {name}")).await;
    let options = (*database.owner.connect_options()).clone().database(&name);
    let second = PgPoolOptions::new().connect_with(options).await.unwrap();
    MIGRATIONS.run(&second).await.unwrap();
    let without_times = |lines: Vec<String>| -> Vec<String> {
        let ran = |line: &String| !line.starts_with("ran ");
        lines.into_iter().filter(ran).collect()
    };
    assert_eq!(
        without_times(schema(&second).await),
        without_times(schema(&database.owner).await)
    );
    second.close().await;
}

#[tokio::test]
async fn a_migration_that_was_edited_after_it_ran_is_refused() {
    let database = database().await;
    passes(
        &database.owner,
        "UPDATE _sqlx_migrations SET checksum = set_byte(checksum, 0, 0) WHERE version = 2;
         UPDATE _sqlx_migrations SET checksum = set_byte(checksum, 1, 0) WHERE version = 2",
    )
    .await;
    assert!(MIGRATIONS.run(&database.owner).await.is_err());
}
