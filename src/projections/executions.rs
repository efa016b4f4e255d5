//! `projections.executions`: one row for each host of a command.

use countersign_protocol::view;
use sqlx::PgConnection;

use super::page::Page;
use super::runner::Projection;
use crate::ledger::store::signed;

pub(super) struct Executions;

impl Projection for Executions {
    const NAME: &'static str = "executions";
    const VERSION: i32 = 3;
    const TABLE: &'static str = "CREATE TABLE executions (
        command bytea NOT NULL,
        agent text NOT NULL,
        key_id text,
        authorized boolean NOT NULL,
        may_start boolean NOT NULL,
        status text NOT NULL,
        outcome text,
        exit_code smallint,
        signal smallint,
        started_seq bigint,
        duration_us bigint,
        chunks bigint NOT NULL,
        truncated boolean NOT NULL,
        late boolean NOT NULL,
        PRIMARY KEY (command, agent)
    )";
    // What an agent that connects asks for: what it may start, and what it has not ended.
    const INDEXES: &'static [&'static str] =
        &["CREATE INDEX executions_open ON executions (agent, key_id)
        WHERE authorized AND status IN ('waiting', 'running')"];

    async fn apply(connection: &mut PgConnection, page: &Page<'_>) -> Result<(), sqlx::Error> {
        for command in page.commands() {
            let authorized = matches!(
                command.stage,
                countersign_protocol::lifecycle::Stage::Authorized { .. }
            );
            for (agent, execution) in &command.executions {
                let row = view::execution_row(agent, execution);
                // The key that the host's line names: of its keys that one starts it.
                let list = command.targets.as_ref();
                let line = list.and_then(|list| list.line_of(agent));
                sqlx::query(
                    "INSERT INTO executions
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
                     ON CONFLICT (command, agent) DO UPDATE SET authorized = excluded.authorized,
                        may_start = excluded.may_start,
                        status = excluded.status, outcome = excluded.outcome,
                        exit_code = excluded.exit_code, signal = excluded.signal,
                        started_seq = excluded.started_seq, duration_us = excluded.duration_us,
                        chunks = excluded.chunks, truncated = excluded.truncated,
                        late = excluded.late",
                )
                .bind(command.id.as_bytes().as_slice())
                .bind(row.agent)
                .bind(line.map(|(_, line)| line.key_id.to_string()))
                .bind(authorized)
                .bind(command.plan.is_none() || execution.released.is_some())
                .bind(row.status)
                .bind(row.outcome)
                .bind(row.exit_code.map(i16::from))
                .bind(row.signal.map(i16::from))
                .bind(row.started_seq.map(signed))
                .bind(row.duration_us.map(signed))
                .bind(signed(row.chunks))
                .bind(row.truncated)
                .bind(row.late)
                .execute(&mut *connection)
                .await?;
            }
        }
        Ok(())
    }
}
