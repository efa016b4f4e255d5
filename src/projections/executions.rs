//! `projections.executions`: one row for each host of a command.

use countersign_protocol::lifecycle::{Command, Execution, Stage};
use countersign_protocol::name::AgentName;
use countersign_protocol::view;
use serde::Serialize;
use sqlx::PgConnection;

use super::page::Page;
use super::rows::Rows;
use super::runner::Projection;
use crate::ledger::store::signed;

pub(super) struct Executions;

impl Projection for Executions {
    const NAME: &'static str = "executions";
    const VERSION: i32 = 4;
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
        released_seq bigint,
        started_seq bigint,
        over_seq bigint,
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
        let sql = "INSERT INTO executions
             SELECT decode(command, 'hex'), agent, key_id, authorized, may_start, status, outcome, exit_code,
                 signal, released_seq, started_seq, over_seq, duration_us, chunks, truncated, late
             FROM jsonb_to_recordset($1::jsonb) AS given (command text, agent text, key_id text,
                 authorized boolean, may_start boolean, status text, outcome text, exit_code smallint,
                 signal smallint, released_seq bigint, started_seq bigint, over_seq bigint,
                 duration_us bigint, chunks bigint,
                 truncated boolean, late boolean)
             ON CONFLICT (command, agent) DO UPDATE SET authorized = excluded.authorized,
                 may_start = excluded.may_start,
                status = excluded.status, outcome = excluded.outcome,
                exit_code = excluded.exit_code, signal = excluded.signal,
                released_seq = excluded.released_seq, started_seq = excluded.started_seq,
                over_seq = excluded.over_seq, duration_us = excluded.duration_us,
                chunks = excluded.chunks, truncated = excluded.truncated, late = excluded.late";
        let mut rows = Rows::into(sql);
        for command in page.commands() {
            for (agent, part) in page.parts(command) {
                rows.push(&row(command, agent, part))?;
            }
            rows.write_many(connection).await?;
        }
        rows.write(connection).await
    }
}

#[derive(Serialize)]
struct Row {
    command: String,
    agent: String,
    key_id: Option<String>,
    authorized: bool,
    /// In a rollout: it has its turn; otherwise always.
    may_start: bool,
    status: &'static str,
    outcome: Option<&'static str>,
    exit_code: Option<u8>,
    signal: Option<u8>,
    /// In a rollout: where its turn stands.
    released_seq: Option<i64>,
    started_seq: Option<i64>,
    /// Where its end stands.
    over_seq: Option<i64>,
    duration_us: Option<i64>,
    chunks: i64,
    truncated: bool,
    late: bool,
}

fn row(command: &Command, agent: &AgentName, part: &Execution) -> Row {
    let told = view::execution_row(agent, part);
    // The key that the host's line names: of its keys that one starts it.
    let list = command.targets.as_ref();
    let line = list.and_then(|list| list.line_of(agent));
    Row {
        command: command.id.to_string(),
        agent: told.agent,
        key_id: line.map(|(_, line)| line.key_id.to_string()),
        authorized: matches!(command.stage, Stage::Authorized { .. }),
        may_start: command.plan.is_none() || part.released.is_some(),
        status: told.status,
        outcome: told.outcome,
        exit_code: told.exit_code,
        signal: told.signal,
        released_seq: part.released.map(|turn| signed(turn.at.seq)),
        started_seq: told.started_seq.map(signed),
        over_seq: part.over.map(|over| signed(over.seq)),
        duration_us: told.duration_us.map(signed),
        chunks: signed(told.chunks),
        truncated: told.truncated,
        late: told.late,
    }
}
