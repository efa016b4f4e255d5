//! A stream of the log with its proofs, and what its output amounts to.

use std::collections::{BTreeMap, BTreeSet};

use countersign_protocol::api::{
    Base64, BlobBody, ExecutionResult, ProvenEntry, SnapshotBody, StreamBody, Submission,
};
use countersign_protocol::blob::BlobRef;
use countersign_protocol::checkpoint::Checkpoint;
use countersign_protocol::entry::Entry;
use countersign_protocol::event::{Event, Kind, Stream as OutputStream};
use countersign_protocol::hash::{CommandId, Digest, StatementId};
use countersign_protocol::name::AgentName;
use countersign_protocol::proof;
use countersign_protocol::view::{self, Written};
use sqlx::PgConnection;

use super::app::App;
use super::error::ApiError;
use crate::ledger::history;
use crate::ledger::store::{self, EntryRow};

/// Bytes of blobs that come with a stream, and of output that comes with results; the others are
/// fetched one by one.
const INLINE_BLOBS: usize = 16 * 1024 * 1024;

/// What of a stream is wanted.
pub(super) struct Wanted<'a> {
    pub(super) stream: StatementId,
    /// Which events; their blobs come along.
    pub(super) event: &'a (dyn Fn(&Event) -> bool + Sync),
    /// Which of their blobs.
    pub(super) blob: &'a (dyn Fn(&Event, &Digest) -> bool + Sync),
}

/// Everything of a stream.
pub(super) const fn whole(stream: StatementId) -> Wanted<'static> {
    Wanted {
        stream,
        event: &|_| true,
        blob: &|_, _| true,
    }
}

pub(super) fn parse(row: &EntryRow) -> Result<(StatementId, Event), ApiError> {
    let entry = Entry::decode(&row.entry).map_err(|error| history::bad(row.seq, error))?;
    let statement = &entry.statement;
    let event = Event::parse(statement.kind, &statement.payload)
        .map_err(|error| history::bad(row.seq, error))?;
    let id = countersign_protocol::statement::statement_id(statement.kind, &statement.payload);
    Ok((id, event))
}

/// A stream's entries up to the newest checkpoint, each proved to be in it.
pub(super) async fn prove(app: &App, wanted: &Wanted<'_>) -> Result<StreamBody, ApiError> {
    let checkpoint = app.ledger.newest();
    let mut connection = app.ledger.pool().acquire().await?;
    prove_in(&mut connection, &checkpoint, wanted).await
}

/// [`prove`] for a checkpoint that the caller holds.
pub(super) async fn prove_in(
    connection: &mut PgConnection,
    checkpoint: &Checkpoint,
    wanted: &Wanted<'_>,
) -> Result<StreamBody, ApiError> {
    let size = checkpoint.size();
    let mut rows = Vec::new();
    let mut named = BTreeSet::new();
    for row in store::stream(connection, &wanted.stream, size).await? {
        let (_, event) = parse(&row)?;
        if !(wanted.event)(&event) {
            continue;
        }
        let blobs = event.blobs().into_iter().map(|blob| blob.digest);
        named.extend(blobs.filter(|digest| (wanted.blob)(&event, digest)));
        rows.push(row);
    }
    let entries = proven(connection, rows, size).await?;
    let (blobs, redacted) = blobs(connection, named).await?;
    Ok(StreamBody {
        checkpoint: checkpoint.note().to_owned(),
        entries,
        blobs,
        redacted,
    })
}

/// Each of these entries with its proof in the log of that size.
async fn proven(
    connection: &mut PgConnection,
    rows: Vec<EntryRow>,
    size: u64,
) -> Result<Vec<ProvenEntry>, ApiError> {
    let nodes: BTreeSet<_> = rows
        .iter()
        .flat_map(|row| proof::nodes_for_inclusion(row.seq, size))
        .collect();
    let nodes: Vec<_> = nodes.into_iter().collect();
    let nodes = store::nodes(connection, &nodes).await?;
    rows.into_iter()
        .map(|row| {
            let inclusion = proof::inclusion_proof(&nodes, row.seq, size)
                .ok_or_else(|| history::bad(row.seq, "nodes of the tree are missing"))?;
            Ok(ProvenEntry {
                seq: row.seq,
                entry: Base64(row.entry),
                inclusion,
            })
        })
        .collect()
}

/// The newest entry of the log of that size, proved: it tells how old the log is.
pub(super) async fn newest(
    connection: &mut PgConnection,
    size: u64,
) -> Result<Option<ProvenEntry>, ApiError> {
    let last = size.saturating_sub(1);
    let rows = store::entries(connection, last, size, 1).await?;
    Ok(proven(connection, rows, size).await?.pop())
}

/// What administrators have signed for the hosts, with the signatures that count. None when none
/// of them has, or when the document was erased.
pub(super) async fn snapshot(app: &App) -> Result<Option<SnapshotBody>, ApiError> {
    let (rights, now) = (app.reader.rights().await?, app.clock.now());
    let Some(record) = rights.snapshot_for_hosts(now) else {
        return Ok(None);
    };
    let mut connection = app.ledger.pool().acquire().await?;
    let Some(document) = store::blob(&mut connection, &record.document.digest)
        .await?
        .flatten()
    else {
        return Ok(None);
    };
    let mut statements = Vec::new();
    for word in rights.words_on(record, now) {
        let after = word.seq.saturating_add(1);
        for row in store::entries(&mut connection, word.seq, after, 1).await? {
            let entry = Entry::decode(&row.entry).map_err(|error| history::bad(row.seq, error))?;
            statements.push(Submission::new(&entry.statement, []));
        }
    }
    Ok(Some(SnapshotBody {
        document: BlobBody::from(&document),
        statements,
    }))
}

/// Blobs by their digests, as far as they fit, and those that were redacted.
pub(super) async fn blobs(
    connection: &mut PgConnection,
    named: BTreeSet<Digest>,
) -> Result<(Vec<BlobBody>, Vec<String>), ApiError> {
    let (mut blobs, mut redacted) = (Vec::new(), Vec::new());
    let mut room = INLINE_BLOBS;
    for digest in named {
        match store::blob(connection, &digest).await? {
            Some(Some(blob)) if blob.content().len() <= room => {
                room -= blob.content().len();
                blobs.push(BlobBody::from(&blob));
            }
            Some(Some(_)) => {}
            Some(None) => redacted.push(digest.to_string()),
            None => tracing::error!(%digest, "a blob that an entry names is missing"),
        }
    }
    Ok((blobs, redacted))
}

/// What came back from each host of a command.
pub(super) async fn results(app: &App, id: CommandId) -> Result<Vec<ExecutionResult>, ApiError> {
    let size = app.ledger.newest().size();
    let mut connection = app.ledger.pool().acquire().await?;
    let command = history::command(&mut connection, id, size)
        .await?
        .ok_or_else(commands_missing)?;
    let mut written: BTreeMap<AgentName, Written> = BTreeMap::new();
    let mut texts: BTreeMap<Digest, String> = BTreeMap::new();
    let mut room = INLINE_BLOBS;
    for row in store::stream(&mut connection, &id, size).await? {
        let (_, event) = parse(&row)?;
        if let Event::ExecutionOutput(chunk) = event {
            let part = written.entry(chunk.agent).or_default();
            let len = usize::try_from(chunk.data.len).unwrap_or(usize::MAX);
            // What does not fit into one answer is in the command's entries.
            part.is_cut |= len > room;
            if part.is_cut {
                continue;
            }
            let Some(blob) = store::blob(&mut connection, &chunk.data.digest)
                .await?
                .flatten()
            else {
                part.is_cut = true;
                continue;
            };
            room -= len;
            match chunk.stream {
                OutputStream::Stdout => part.stdout.extend_from_slice(blob.content()),
                OutputStream::Stderr => part.stderr.extend_from_slice(blob.content()),
            }
        } else if matches!(
            event,
            Event::ExecutionRefused(_) | Event::ExecutionCompleted(_)
        ) {
            for named in event.blobs() {
                let len = usize::try_from(named.len).unwrap_or(usize::MAX);
                if len > room {
                    continue;
                }
                room -= len;
                let blob = store::blob(&mut connection, &named.digest).await?.flatten();
                let text = blob.map(|blob| String::from_utf8_lossy(blob.content()).into_owned());
                texts.extend(text.map(|text| (named.digest, text)));
            }
        }
    }
    let parts = command.executions.iter().map(|(agent, execution)| {
        let written = written.remove(agent).unwrap_or_default();
        let text = |named: &BlobRef| texts.get(&named.digest).cloned();
        view::execution_result(&command, (agent, execution), written, text)
    });
    Ok(parts.collect())
}

/// Says whether a body has entries of a host's output.
pub(super) fn has_output(body: &StreamBody) -> bool {
    let mut entries = body.entries.iter();
    entries.any(|item| {
        let entry = Entry::decode(&item.entry.0);
        entry.is_ok_and(|entry| entry.statement.kind == Kind::ExecutionOutput)
    })
}

pub(super) fn commands_missing() -> ApiError {
    ApiError::not_found("unknown_command", "no such command")
}
