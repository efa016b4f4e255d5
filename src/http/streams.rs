//! A stream of the log with its proofs, and what its output amounts to.

use std::collections::{BTreeMap, BTreeSet};

use countersign_protocol::api::{
    Base64, BlobBody, ExecutionResult, ProvenEntry, SnapshotBody, StreamBody, StreamPart,
    StreamsBody, Submission,
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

use super::access;
use super::app::App;
use super::error::ApiError;
use crate::ledger::history;
use crate::ledger::store::{self, EntryRow};

/// Bytes of blobs that come with a stream, and of output that comes with results; the others are
/// fetched one by one.
const INLINE_BLOBS: usize = 16 * 1024 * 1024;

/// Entries of several streams in one answer, unless the first has more by itself: some 10 MiB with their
/// proofs.
const MANY_ENTRIES: u64 = 4096;

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

/// The streams of several commands up to the newest checkpoint, of the first of them that fit into one
/// answer, without what hosts wrote.
pub(super) async fn prove_many(app: &App, ids: &[CommandId]) -> Result<StreamsBody, ApiError> {
    let checkpoint = app.ledger.newest();
    let size = checkpoint.size();
    let mut connection = app.ledger.pool().acquire().await?;
    let lengths = store::stream_lengths(&mut connection, ids, size).await?;
    let ids = fitting(ids, &lengths);
    let places: BTreeMap<CommandId, usize> = ids.iter().copied().zip(0..).collect();
    let mut named = vec![BTreeSet::new(); ids.len()];
    let (mut of, mut rows) = (Vec::new(), Vec::new());
    for (id, row) in store::streams(&mut connection, ids, size).await? {
        let (_, event) = parse(&row)?;
        let Some((at, named)) = places
            .get(&id)
            .and_then(|at| Some((*at, named.get_mut(*at)?)))
        else {
            continue;
        };
        if !access::is_output(&event) {
            named.extend(event.blobs().into_iter().map(|blob| blob.digest));
        }
        of.push(at);
        rows.push(row);
    }
    let mut entries = vec![Vec::new(); ids.len()];
    for (at, entry) in of
        .into_iter()
        .zip(proven(&mut connection, rows, size).await?)
    {
        if let Some(entries) = entries.get_mut(at) {
            entries.push(entry);
        }
    }
    if entries.iter().any(Vec::is_empty) {
        return Err(commands_missing());
    }
    let blobs = blobs_of_each(&mut connection, &named).await?;
    let parts = entries.into_iter().zip(blobs);
    let part = |(entries, (blobs, redacted))| StreamPart {
        entries,
        blobs,
        redacted,
    };
    Ok(StreamsBody {
        checkpoint: checkpoint.note().to_owned(),
        streams: parts.map(part).collect(),
    })
}

/// The first streams that have no more entries together than an answer takes; one at least.
fn fitting<'a>(ids: &'a [CommandId], lengths: &BTreeMap<CommandId, u64>) -> &'a [CommandId] {
    let mut room = MANY_ENTRIES;
    let mut fit = 0;
    for id in ids {
        let length = lengths.get(id).copied().unwrap_or_default();
        if length > room && fit > 0 {
            break;
        }
        room = room.saturating_sub(length);
        fit += 1;
    }
    ids.get(..fit).unwrap_or(ids)
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
    one(connection, size.saturating_sub(1), size).await
}

/// The entry at `seq`, proved in the log of that size.
pub(super) async fn one(
    connection: &mut PgConnection,
    seq: u64,
    size: u64,
) -> Result<Option<ProvenEntry>, ApiError> {
    let rows = store::entries(connection, seq, size, 1).await?;
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
) -> Result<Told, ApiError> {
    let mut told = blobs_of_each(connection, &[named]).await?;
    Ok(told.pop().unwrap_or_default())
}

/// Blobs, and digests of those that were redacted.
type Told = (Vec<BlobBody>, Vec<String>);

/// [`blobs`] for several parts of one answer. What two of them name takes room twice.
async fn blobs_of_each(
    connection: &mut PgConnection,
    named: &[BTreeSet<Digest>],
) -> Result<Vec<Told>, ApiError> {
    let all: BTreeSet<Digest> = named.iter().flatten().copied().collect();
    let all: Vec<Digest> = all.into_iter().collect();
    let lengths = store::blob_lengths(connection, &all).await?;
    let mut room = INLINE_BLOBS as u64;
    let mut fits = |digest: &Digest| match lengths.get(digest) {
        Some(Some(length)) if *length > room => false,
        Some(Some(length)) => {
            room -= length;
            true
        }
        // One that was redacted takes no room; that it was is told.
        Some(None) => true,
        None => {
            tracing::error!(%digest, "a blob that an entry names is missing");
            false
        }
    };
    let chosen: Vec<Vec<Digest>> = named
        .iter()
        .map(|named| named.iter().copied().filter(&mut fits).collect())
        .collect();
    let fetched: BTreeSet<Digest> = chosen.iter().flatten().copied().collect();
    let fetched: Vec<Digest> = fetched.into_iter().collect();
    let held = store::blobs(connection, &fetched).await?;
    let tell = |chosen: Vec<Digest>| {
        let mut told = Told::default();
        for digest in chosen {
            match held.get(&digest) {
                Some(Some(blob)) => told.0.push(BlobBody::from(blob)),
                Some(None) => told.1.push(digest.to_string()),
                None => {}
            }
        }
        told
    };
    Ok(chosen.into_iter().map(tell).collect())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_holds_the_first_streams_that_fit_and_one_at_least() {
        let ids: Vec<CommandId> = (0..4).map(|n| CommandId::new([n; 32])).collect();
        let fit = |lengths: [u64; 4]| {
            let lengths = ids.iter().copied().zip(lengths).collect();
            fitting(&ids, &lengths).len()
        };
        assert_eq!(fit([5, 5, 5, 5]), 4);
        assert_eq!(fit([MANY_ENTRIES - 5, 5, 1, 1]), 2);
        assert_eq!(fit([MANY_ENTRIES + 1, 1, 1, 1]), 1);
        // What is too long for this answer is not left out for one that fits.
        assert_eq!(fit([1, MANY_ENTRIES, 1, 1]), 1);
    }
}
