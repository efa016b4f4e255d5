//! `projections.outputs`: which blobs a host wrote, in order.

use countersign_protocol::event::{Event, Stream};
use serde::Serialize;
use sqlx::PgConnection;

use crate::ledger::store::signed;
use crate::projections::page::Page;
use crate::projections::rows::Rows;
use crate::projections::runner::Projection;

pub(in crate::projections) struct Outputs;

#[derive(Serialize)]
struct Row {
    seq: i64,
    command: String,
    host: String,
    stream: &'static str,
    digest: String,
    bytes: i64,
}

impl Projection for Outputs {
    const NAME: &'static str = "outputs";
    const VERSION: i32 = 1;
    const TABLE: &'static str = "CREATE TABLE outputs (
        seq bigint PRIMARY KEY,
        command bytea NOT NULL,
        host text NOT NULL,
        stream text NOT NULL,
        digest bytea NOT NULL,
        bytes bigint NOT NULL
    )";
    const INDEXES: &'static [&'static str] = &[
        "CREATE INDEX outputs_by_digest ON outputs (digest)",
        "CREATE INDEX outputs_of_run ON outputs (command, host, seq)",
    ];

    async fn apply(connection: &mut PgConnection, page: &Page<'_>) -> Result<(), sqlx::Error> {
        let rows = page.entries().iter().filter_map(|entry| {
            let Event::ExecutionOutput(chunk) = entry.verified.event() else {
                return None;
            };
            Some(Row {
                seq: signed(entry.seq),
                command: chunk.command.to_string(),
                host: chunk.agent.to_string(),
                stream: match chunk.stream {
                    Stream::Stdout => "stdout",
                    Stream::Stderr => "stderr",
                },
                digest: chunk.data.digest.to_string(),
                bytes: signed(chunk.data.len),
            })
        });
        let sql = "INSERT INTO outputs
             SELECT seq, decode(command, 'hex'), host, stream, decode(digest, 'hex'), bytes
             FROM jsonb_to_recordset($1::jsonb) AS given
                 (seq bigint, command text, host text, stream text, digest text, bytes bigint)";
        Rows::into(sql).write_all(connection, rows.collect()).await
    }
}
