//! `projections.agents`: agents that count and agents that wait.

use countersign_protocol::view;
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

    async fn apply(connection: &mut PgConnection, page: &Page<'_>) -> Result<(), sqlx::Error> {
        if !page.rights_touched {
            return Ok(());
        }
        sqlx::query("DELETE FROM agents")
            .execute(&mut *connection)
            .await?;
        for item in view::agent_items(page.state().rights()) {
            sqlx::query("INSERT INTO agents VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)")
                .bind(item.agent)
                .bind(item.key_id)
                .bind(item.status)
                .bind(item.fingerprint)
                .bind(item.key.0)
                .bind(item.seq.map(signed))
                .bind(item.labels)
                .bind(item.drained)
                .bind(item.sealing_key.map(|key| key.0))
                .execute(&mut *connection)
                .await?;
        }
        Ok(())
    }
}
