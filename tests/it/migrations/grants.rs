//! What the serving role may do: this list, and nothing past it.

use std::collections::BTreeSet;

use super::{NOT_ALLOWED, passes, refused};
use crate::support::database;

/// Every grant on a table or view of the log.
const TABLES: &[(&str, &[&str])] = &[
    ("_sqlx_migrations", &["SELECT"]),
    ("agent_statements", &["INSERT", "SELECT"]),
    // Read and moved by the function that purges.
    ("blob_purge", &[]),
    ("blob_references", &["INSERT", "SELECT"]),
    ("blob_texts", &["INSERT", "SELECT"]),
    ("blobs", &["INSERT", "SELECT"]),
    ("checkpoints", &["INSERT", "SELECT"]),
    ("client_refs", &["INSERT", "SELECT"]),
    ("entries", &["INSERT", "SELECT"]),
    ("feed_cursors", &["INSERT", "SELECT", "UPDATE"]),
    ("head", &["SELECT", "UPDATE"]),
    ("label_turns", &["INSERT", "SELECT"]),
    ("open_streams", &["DELETE", "INSERT", "SELECT"]),
    ("statements", &["INSERT", "SELECT"]),
    ("subtrees", &["INSERT", "SELECT"]),
];

/// A set of names that a query gives.
async fn names(pool: &sqlx::PgPool, query: &'static str) -> BTreeSet<String> {
    let found: Vec<String> = sqlx::query_scalar(query).fetch_all(pool).await.unwrap();
    found.into_iter().collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test]
async fn the_server_has_exactly_the_grants_it_needs() {
    let database = database().await;
    let granted = names(
        &database.owner,
        "SELECT table_name || ' ' || privilege_type FROM information_schema.role_table_grants
         WHERE grantee = 'countersign_app' AND table_schema = 'public'",
    )
    .await;
    let wanted = TABLES
        .iter()
        .flat_map(|(table, rights)| rights.iter().map(move |right| format!("{table} {right}")));
    assert_eq!(granted, wanted.collect());
}

/// A table that is not in the list has no grant, and one that is new must be thought about.
#[tokio::test]
async fn every_table_is_in_the_list_and_none_is_open_to_everybody() {
    let database = database().await;
    let tables = names(
        &database.owner,
        "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'",
    )
    .await;
    let listed: Vec<&str> = TABLES.iter().map(|(table, _)| *table).collect();
    assert_eq!(tables, set(&listed));
    let open = names(
        &database.owner,
        "SELECT table_name || ' ' || privilege_type FROM information_schema.role_table_grants
         WHERE grantee = 'PUBLIC' AND table_schema IN ('public', 'projections')",
    )
    .await;
    assert!(open.is_empty(), "{open:?}");
}

#[tokio::test]
async fn no_column_is_granted_past_its_table() {
    let database = database().await;
    let past = names(
        &database.owner,
        "SELECT c.table_name || '.' || c.column_name || ' ' || c.privilege_type
         FROM information_schema.role_column_grants AS c
         WHERE c.grantee IN ('countersign_app', 'PUBLIC') AND c.table_schema = 'public'
             AND NOT EXISTS (
                 SELECT FROM information_schema.role_table_grants AS t
                 WHERE t.grantee = c.grantee AND t.table_schema = c.table_schema
                     AND t.table_name = c.table_name AND t.privilege_type = c.privilege_type)",
    )
    .await;
    assert!(past.is_empty(), "{past:?}");
}

#[tokio::test]
async fn the_server_owns_nothing_is_nobody_else_and_makes_things_in_projections_only() {
    let database = database().await;
    let owned = names(
        &database.owner,
        "SELECT 'relation ' || relname FROM pg_class WHERE relowner = 'countersign_app'::regrole
         UNION ALL SELECT 'function ' || proname FROM pg_proc
             WHERE proowner = 'countersign_app'::regrole
         UNION ALL SELECT 'schema ' || nspname FROM pg_namespace
             WHERE nspowner = 'countersign_app'::regrole
         UNION ALL SELECT 'database ' || datname FROM pg_database
             WHERE datdba = 'countersign_app'::regrole
         UNION ALL SELECT 'member of ' || roleid::regrole FROM pg_auth_members
             WHERE member = 'countersign_app'::regrole
         UNION ALL SELECT 'attribute' FROM pg_roles
             WHERE rolname = 'countersign_app' AND (rolsuper OR rolcreaterole OR rolcreatedb
                 OR rolreplication OR rolbypassrls)",
    )
    .await;
    assert!(owned.is_empty(), "{owned:?}");
    let schemas = names(
        &database.owner,
        "SELECT nspname::text FROM pg_namespace
         WHERE has_schema_privilege('countersign_app', oid, 'CREATE')
             AND nspname NOT LIKE 'pg_temp_%' AND nspname NOT LIKE 'pg_toast%'",
    )
    .await;
    assert_eq!(schemas, set(&["audit", "projections"]));
    let definers = names(
        &database.owner,
        "SELECT proname::text FROM pg_proc
         WHERE prosecdef AND has_function_privilege('countersign_app', oid, 'EXECUTE')",
    )
    .await;
    assert_eq!(
        definers,
        set(&["erase_blobs", "purge_unreferenced_blobs", "renew_blobs"])
    );
}

/// A function that runs in somebody's session must say where it looks: see `linking.rs`.
#[tokio::test]
async fn every_function_of_the_schema_has_a_fixed_search_path() {
    let database = database().await;
    let functions = names(
        &database.owner,
        "SELECT proname || ' ' || coalesce(array_to_string(proconfig, ' '), 'none') FROM pg_proc
         WHERE pronamespace = 'public'::regnamespace",
    )
    .await;
    assert!(functions.len() >= 4, "{functions:?}");
    for function in &functions {
        assert!(
            function.ends_with("search_path=pg_catalog, public, pg_temp"),
            "{function}"
        );
    }
}

#[tokio::test]
async fn the_server_cannot_get_a_guard_out_of_its_way() {
    let database = database().await;
    for table in ["entries", "checkpoints", "blobs", "statements", "head"] {
        for sql in [
            format!("ALTER TABLE {table} DISABLE TRIGGER ALL"),
            format!("ALTER TABLE {table} DISABLE TRIGGER USER"),
            format!("ALTER TABLE {table} OWNER TO countersign_app"),
            format!("ALTER TABLE {table} RENAME TO other"),
            format!("DROP TABLE {table} CASCADE"),
            format!("CREATE RULE quiet AS ON INSERT TO {table} DO INSTEAD NOTHING"),
            format!(
                "CREATE TRIGGER mine BEFORE INSERT ON {table}
                 FOR EACH ROW EXECUTE FUNCTION refuse_change()"
            ),
            format!("GRANT DELETE ON {table} TO countersign_app; DELETE FROM {table} WHERE false"),
        ] {
            refused(&database.app, &sql, NOT_ALLOWED).await;
        }
    }
    for sql in [
        "DROP TRIGGER append_only ON entries",
        "DROP TRIGGER linking ON entries",
        "DROP TRIGGER guard_blob ON blobs",
        "DROP FUNCTION check_links() CASCADE",
        "CREATE OR REPLACE FUNCTION check_links() RETURNS trigger LANGUAGE plpgsql
         AS 'BEGIN RETURN NULL; END'",
        "ALTER FUNCTION check_links() SET search_path = projections",
        "CREATE TABLE public.mine (a int)",
        "SET session_replication_role = replica",
        "SET ROLE countersign_owner",
        "SET SESSION AUTHORIZATION countersign_owner",
        "ALTER ROLE countersign_app SUPERUSER",
        "COPY entries TO PROGRAM 'true'",
        "CREATE TABLE projections.child () INHERITS (public.entries)",
        "INSERT INTO _sqlx_migrations SELECT * FROM _sqlx_migrations",
    ] {
        refused(&database.app, sql, NOT_ALLOWED).await;
    }
}

#[tokio::test]
async fn the_server_keeps_its_projections_and_its_streams() {
    let database = database().await;
    passes(
        &database.app,
        "CREATE TABLE projections.kept (a int);
         INSERT INTO projections.kept VALUES (1);
         UPDATE projections.kept SET a = 2;
         DELETE FROM projections.kept;
         DROP TABLE projections.kept;
         INSERT INTO open_streams VALUES (sha256('s'));
         DELETE FROM open_streams;
         SELECT purge_unreferenced_blobs()",
    )
    .await;
}
