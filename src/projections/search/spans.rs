//! `projections.spans`: one row a command, from the entry that asked for it to its newest one.
//!
//! A command whose newest entry lies before some place stood there as it stands now; one that reaches
//! past it may have stood otherwise. So a list as of then has few commands to look at.

use std::collections::BTreeMap;

use countersign_protocol::fold::Stream;
use countersign_protocol::hash::CommandId;
use serde::Serialize;
use sqlx::PgConnection;

use crate::ledger::store::signed;
use crate::projections::page::Page;
use crate::projections::rows::Rows;
use crate::projections::runner::Projection;

pub(in crate::projections) struct Spans;

#[derive(Serialize)]
struct Row {
    command: String,
    seq: i64,
    last_seq: i64,
    status: &'static str,
    break_glass: bool,
}

impl Projection for Spans {
    const NAME: &'static str = "spans";
    const VERSION: i32 = 1;
    const TABLE: &'static str = "CREATE TABLE spans (
        command bytea PRIMARY KEY,
        seq bigint NOT NULL UNIQUE,
        last_seq bigint NOT NULL,
        status text NOT NULL,
        break_glass boolean NOT NULL
    )";
    const INDEXES: &'static [&'static str] = &[
        "CREATE INDEX spans_over ON spans USING gist (int8range(seq, last_seq, '[]'))",
        "CREATE INDEX spans_by_status ON spans (status, seq DESC)",
        "CREATE INDEX spans_break_glass ON spans (seq) WHERE break_glass",
    ];

    async fn apply(connection: &mut PgConnection, page: &Page<'_>) -> Result<(), sqlx::Error> {
        let mut newest: BTreeMap<CommandId, u64> = BTreeMap::new();
        for entry in page.entries() {
            let event = entry.verified.event();
            if let Some(Stream::Command(id)) = Stream::of(event, entry.verified.id()) {
                newest.insert(id, entry.seq);
            }
        }
        let rows = page.commands().map(|command| Row {
            command: command.id.to_string(),
            seq: signed(command.requested.seq),
            // One that is looked at again without an entry of its own keeps its newest.
            last_seq: signed(
                newest
                    .get(&command.id)
                    .copied()
                    .unwrap_or(command.requested.seq),
            ),
            status: command.status().as_str(),
            break_glass: command.act().break_glass,
        });
        let sql = "INSERT INTO spans
             SELECT decode(command, 'hex'), seq, last_seq, status, break_glass
             FROM jsonb_to_recordset($1::jsonb) AS given
                 (command text, seq bigint, last_seq bigint, status text, break_glass boolean)
             ON CONFLICT (command) DO UPDATE SET status = excluded.status,
                last_seq = greatest(spans.last_seq, excluded.last_seq)";
        Rows::into(sql).write_all(connection, rows.collect()).await
    }
}
