//! `projections.deeds`: one row a statement but for pieces of output: who made it, what, of what.

use countersign_protocol::audit::CheckedEntry;
use countersign_protocol::event::{Author, Event, ReadWhat};
use countersign_protocol::hash::Digest;
use countersign_protocol::key;
use countersign_protocol::subject::Subject;
use serde::Serialize;
use sqlx::PgConnection;

use crate::ledger::store::signed;
use crate::projections::page::Page;
use crate::projections::rows::Rows;
use crate::projections::runner::Projection;

pub(in crate::projections) struct Deeds;

#[derive(Serialize)]
struct Row {
    seq: i64,
    time_us: i64,
    kind: &'static str,
    author: &'static str,
    who: String,
    fingerprint: String,
    command: Option<String>,
    change: Option<String>,
    reason: Option<String>,
    reader: Option<String>,
    read: Option<&'static str>,
}

impl Projection for Deeds {
    const NAME: &'static str = "deeds";
    const VERSION: i32 = 1;
    const TABLE: &'static str = "CREATE TABLE deeds (
        seq bigint PRIMARY KEY,
        time_us bigint NOT NULL,
        kind text NOT NULL,
        author text NOT NULL,
        who text NOT NULL,
        fingerprint text NOT NULL,
        command bytea,
        change bytea,
        reason bytea,
        reader text,
        read text
    )";
    const INDEXES: &'static [&'static str] = &[
        "CREATE INDEX deeds_by_who ON deeds (who, seq)",
        "CREATE INDEX deeds_by_reader ON deeds (reader, seq) WHERE reader IS NOT NULL",
        "CREATE INDEX deeds_by_kind ON deeds (kind, seq)",
        "CREATE INDEX deeds_of_command ON deeds (command, seq) WHERE command IS NOT NULL",
    ];

    async fn apply(connection: &mut PgConnection, page: &Page<'_>) -> Result<(), sqlx::Error> {
        let rows = page.entries().iter().filter_map(row);
        let sql = "INSERT INTO deeds
             SELECT seq, time_us, kind, author, who, fingerprint, decode(command, 'hex'),
                 decode(change, 'hex'), decode(reason, 'hex'), reader, read
             FROM jsonb_to_recordset($1::jsonb) AS given (seq bigint, time_us bigint, kind text,
                 author text, who text, fingerprint text, command text, change text, reason text,
                 reader text, read text)";
        Rows::into(sql).write_all(connection, rows.collect()).await
    }
}

fn row(entry: &CheckedEntry) -> Option<Row> {
    let (event, id) = (entry.verified.event(), entry.verified.id());
    if matches!(event, Event::ExecutionOutput(_)) {
        return None;
    }
    let header = event.header();
    let (author, who) = match header.author {
        Author::Ledger => ("ledger", String::new()),
        Author::Person(name) => ("person", name.to_string()),
        Author::Agent(name) => ("host", name.to_string()),
    };
    let read = if let Event::AuditRead(read) = event {
        Some(read)
    } else {
        None
    };
    let (command, change) = match Subject::of(event, id) {
        Some(Subject::Command(id)) => (Some(id.to_string()), None),
        Some(Subject::Change(id)) => (None, Some(id.to_string())),
        None => (None, None),
    };
    Some(Row {
        seq: signed(entry.seq),
        time_us: signed(entry.time.as_micros()),
        kind: event.kind().as_str(),
        author,
        who,
        fingerprint: key::fingerprint(&header.signer),
        command,
        change,
        reason: reason(event).map(|digest| digest.to_string()),
        reader: read.map(|read| read.reader.to_string()),
        read: read.map(|read| read_word(read.what)),
    })
}

/// The free text that somebody gave as their reason.
pub(super) fn reason(event: &Event) -> Option<Digest> {
    let named = if let Event::CommandRequested(request) = event {
        Some(request.reason)
    } else if let Event::CommandApproved(word) = event {
        word.reason
    } else if let Event::CommandRejected(word) = event {
        word.reason
    } else if let Event::CommandWithdrawn(word) = event {
        word.reason
    } else if let Event::CommandCancelRequested(word) = event {
        word.reason
    } else if let Event::RolloutPaused(word) = event {
        word.reason
    } else if let Event::RolloutResumed(word) = event {
        word.reason
    } else if let Event::RolloutContinued(word) = event {
        word.reason
    } else if let Event::ChangeRequested(change) = event {
        change.reason
    } else if let Event::ChangeApproved(word) = event {
        word.reason
    } else if let Event::ChangeRejected(word) = event {
        word.reason
    } else if let Event::ReviewClosed(review) = event {
        Some(review.reason)
    } else {
        None
    };
    named.map(|named| named.digest)
}

const fn read_word(what: ReadWhat) -> &'static str {
    match what {
        ReadWhat::Output => "output",
        ReadWhat::Log => "log",
        ReadWhat::Replay => "replay",
        ReadWhat::Export => "export",
    }
}
