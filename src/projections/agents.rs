//! `projections.agents`: agents that count and agents that wait.

use countersign_protocol::api::AgentItem;
use countersign_protocol::view;
use serde::Serialize;
use sqlx::PgConnection;

use super::page::Page;
use super::runner::Projection;
use crate::ledger::store::signed;

pub(super) struct Agents;

impl Projection for Agents {
    const NAME: &'static str = "agents";
    const VERSION: i32 = 3;
    const TABLE: &'static str = "CREATE TABLE agents (
        agent text NOT NULL,
        key_id text NOT NULL,
        status text NOT NULL,
        fingerprint text NOT NULL,
        key bytea NOT NULL,
        seq bigint,
        labels text[] NOT NULL,
        drained boolean NOT NULL,
        sealing_key bytea,
        PRIMARY KEY (agent, key_id)
    )";
    const INDEXES: &'static [&'static str] = &[];

    /// Rows that are as they were are left alone: one host that enrols must not write all of them.
    async fn apply(connection: &mut PgConnection, page: &Page<'_>) -> Result<(), sqlx::Error> {
        if !page.rights_touched {
            return Ok(());
        }
        let items = view::agent_items(page.state().rights());
        let rows: Vec<Row> = items.into_iter().map(row).collect();
        let rows =
            serde_json::to_string(&rows).map_err(|error| sqlx::Error::Encode(error.into()))?;
        sqlx::query(
            "DELETE FROM agents WHERE (agent, key_id) NOT IN (SELECT agent, key_id
                 FROM jsonb_to_recordset($1::jsonb) AS given (agent text, key_id text))",
        )
        .persistent(false)
        .bind(&rows)
        .execute(&mut *connection)
        .await?;
        sqlx::query(
            "INSERT INTO agents AS kept
             SELECT agent, key_id, status, fingerprint, decode(key, 'hex'), seq, labels, drained,
                 decode(sealing_key, 'hex')
             FROM jsonb_to_recordset($1::jsonb) AS given (agent text, key_id text, status text,
                 fingerprint text, key text, seq bigint, labels text[], drained boolean,
                 sealing_key text)
             ON CONFLICT (agent, key_id) DO UPDATE SET status = excluded.status,
                fingerprint = excluded.fingerprint, key = excluded.key, seq = excluded.seq,
                labels = excluded.labels, drained = excluded.drained,
                sealing_key = excluded.sealing_key
             WHERE kept IS DISTINCT FROM excluded",
        )
        .bind(&rows)
        .execute(connection)
        .await
        .map(drop)
    }
}

#[derive(Serialize)]
struct Row {
    agent: String,
    key_id: String,
    status: String,
    fingerprint: String,
    key: String,
    seq: Option<i64>,
    labels: Vec<String>,
    drained: bool,
    sealing_key: Option<String>,
}

fn row(item: AgentItem) -> Row {
    Row {
        agent: item.agent,
        key_id: item.key_id,
        status: item.status,
        fingerprint: item.fingerprint,
        key: hex::encode(item.key.0),
        seq: item.seq.map(signed),
        labels: item.labels,
        drained: item.drained,
        sealing_key: item.sealing_key.map(|key| hex::encode(key.0)),
    }
}
