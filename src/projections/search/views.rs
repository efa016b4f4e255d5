//! The views in the schema `audit`: what people who ask in SQL read, as `countersign_reader`.
//!
//! They stand on projections, so they go when those go and are made anew with them. None of them has a
//! salt: with it a short text could be guessed from its digest after it was erased.

use sqlx::{AssertSqlSafe, PgConnection};

/// Raised when a view changes.
const VERSION: &str = "views 1";

/// Each view by its name, in an order in which it can be made.
const VIEWS: &[(&str, &str)] = &[
    (
        "commands",
        "SELECT c.id AS command, c.seq, to_timestamp(c.requested_us / 1000000.0) AS requested,
            c.requester, c.status, c.approved_by, c.approvals, c.needed, c.hosts,
            s.break_glass, s.last_seq, reason.text AS reason
         FROM projections.commands AS c
         JOIN projections.spans AS s ON s.command = c.id
         JOIN projections.deeds AS d ON d.seq = c.seq
         LEFT JOIN public.blob_texts AS reason ON reason.digest = d.reason",
    ),
    (
        "runs",
        "SELECT r.command, r.host, r.seq, to_timestamp(r.requested_us / 1000000.0) AS requested,
            r.requester, r.approved_by, r.rejected_by, r.break_glass, r.mode,
            CASE WHEN r.mode = 'shell' THEN t.args ELSE t.program || t.args END AS argv,
            t.program, t.program_name, r.account, r.uid, r.labels, r.status, r.run,
            r.started_seq, to_timestamp(r.started_us / 1000000.0) AS started,
            r.ended_seq, to_timestamp(r.ended_us / 1000000.0) AS ended, r.outcome, r.exit_code
         FROM projections.runs AS r
         LEFT JOIN public.blob_texts AS t ON t.digest = r.spec",
    ),
    (
        "approvals",
        "SELECT d.seq, to_timestamp(d.time_us / 1000000.0) AS given, d.command, d.who,
            d.fingerprint, d.kind = 'command.approved' AS is_yes, reason.text AS reason
         FROM projections.deeds AS d
         LEFT JOIN public.blob_texts AS reason ON reason.digest = d.reason
         WHERE d.kind IN ('command.approved', 'command.rejected')",
    ),
    (
        "reads",
        "SELECT d.seq, to_timestamp(d.time_us / 1000000.0) AS read_at, d.reader, d.read AS what,
            d.command
         FROM projections.deeds AS d WHERE d.kind = 'audit.read'",
    ),
    (
        "changes",
        "SELECT d.seq, to_timestamp(d.time_us / 1000000.0) AS entered, d.change, d.kind, d.author,
            d.who, d.fingerprint, reason.text AS reason
         FROM projections.deeds AS d
         LEFT JOIN public.blob_texts AS reason ON reason.digest = d.reason
         WHERE d.change IS NOT NULL",
    ),
    (
        "statements",
        "SELECT d.seq, to_timestamp(d.time_us / 1000000.0) AS entered, d.kind, d.author, d.who,
            d.fingerprint, d.command, d.change
         FROM projections.deeds AS d",
    ),
    (
        "outputs",
        "SELECT o.seq, o.command, o.host, o.stream, o.bytes, t.text
         FROM projections.outputs AS o
         LEFT JOIN public.blob_texts AS t ON t.digest = o.digest",
    ),
    (
        "hosts",
        "SELECT a.agent AS host, a.status, a.fingerprint, a.labels, a.drained, a.seq
         FROM projections.agents AS a",
    ),
    (
        "progress",
        "SELECT min(c.next) AS entries, (SELECT size FROM public.head) AS log
         FROM projections.cursors AS c",
    ),
];

/// Says whether the views are those of this program.
pub(in crate::projections) async fn are_current(
    connection: &mut PgConnection,
) -> Result<bool, sqlx::Error> {
    let found: Option<String> =
        sqlx::query_scalar("SELECT obj_description(to_regclass('audit.progress'), 'pg_class')")
            .fetch_one(connection)
            .await?;
    Ok(found.as_deref() == Some(VERSION))
}

/// Drops them, so that the tables under them can go.
pub(in crate::projections) async fn drop_views(
    connection: &mut PgConnection,
) -> Result<(), sqlx::Error> {
    for (name, _) in VIEWS.iter().rev() {
        let sql = format!("DROP VIEW IF EXISTS audit.{name}");
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// Makes them, for `countersign_reader`.
pub(in crate::projections) async fn create_views(
    connection: &mut PgConnection,
) -> Result<(), sqlx::Error> {
    for (name, query) in VIEWS {
        let sql = format!(
            "CREATE VIEW audit.{name} AS {query};
             GRANT SELECT ON audit.{name} TO countersign_reader"
        );
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut *connection)
            .await?;
    }
    let sql = format!("COMMENT ON VIEW audit.progress IS '{VERSION}'");
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(connection)
        .await
        .map(drop)
}
