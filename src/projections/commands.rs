//! `projections.commands`: one row a command, for lists.

use countersign_protocol::view;
use sqlx::PgConnection;

use super::page::Page;
use super::runner::Projection;
use crate::ledger::store::signed;

pub(super) struct Commands;

impl Projection for Commands {
    const NAME: &'static str = "commands";
    const VERSION: i32 = 2;
    const TABLE: &'static str = "CREATE TABLE commands (
        id bytea PRIMARY KEY,
        seq bigint NOT NULL UNIQUE,
        status text NOT NULL,
        requester text NOT NULL,
        requested_us bigint NOT NULL,
        expires_us bigint NOT NULL,
        approved_by text[] NOT NULL,
        approvals integer,
        needed integer,
        hosts integer NOT NULL,
        targets text[] NOT NULL,
        cancelled boolean NOT NULL,
        retry_of bytea
    )";
    const INDEXES: &'static [&'static str] =
        &["CREATE INDEX commands_by_status ON commands (status, seq DESC)"];

    async fn apply(connection: &mut PgConnection, page: &Page<'_>) -> Result<(), sqlx::Error> {
        for command in page.commands() {
            let item = view::command_item(page.state(), command);
            let count = |number: Option<u32>| number.map(|n| i32::try_from(n).unwrap_or(i32::MAX));
            sqlx::query(
                "INSERT INTO commands VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
                 ON CONFLICT (id) DO UPDATE SET status = excluded.status,
                    approved_by = excluded.approved_by, approvals = excluded.approvals,
                    needed = excluded.needed, targets = excluded.targets,
                    cancelled = excluded.cancelled",
            )
            .bind(command.id.as_bytes().as_slice())
            .bind(signed(item.seq))
            .bind(item.status)
            .bind(item.requester)
            .bind(signed(item.requested_us))
            .bind(signed(item.expires_us))
            .bind(item.approved_by)
            .bind(count(item.approvals))
            .bind(count(item.needed))
            .bind(count(Some(item.hosts)))
            .bind(item.targets)
            .bind(command.cancel.is_some())
            .bind(command.request.retry.map(|retry| retry.of.as_bytes().to_vec()))
            .execute(&mut *connection)
            .await?;
        }
        Ok(())
    }
}
