//! The SQL that reads and writes the log. The comment of each function is its contract.
//!
//! Nothing here decides. Errors are the database's own: whoever calls knows what they mean.

use std::collections::BTreeMap;

use countersign_protocol::blob::{Blob, BlobRef};
use countersign_protocol::hash::{Digest, Hash, KeyId, StatementId};
use countersign_protocol::merkle::{self, NodeSource};
use countersign_protocol::proof::NodeId;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, PgPool, Row as _};

/// Height of the subtrees whose roots are stored, as in C2SP tlog-tiles.
pub const TILE_HEIGHT: u8 = 8;

/// The one row that writers lock.
#[derive(Debug, Clone)]
pub struct HeadRow {
    /// Number of entries.
    pub size: u64,
    /// Leaf of the newest.
    pub last_leaf: Hash,
    /// Its time in microseconds.
    pub last_time_us: u64,
    /// Roots of the perfect subtrees along the right edge, largest first.
    pub right_edge: Vec<Hash>,
    /// The newest checkpoint; empty before genesis.
    pub note: String,
    /// The database's own clock, in microseconds.
    pub database_us: u64,
}

/// An entry as it is stored.
#[derive(Debug, Clone)]
pub struct EntryRow {
    /// Its place.
    pub seq: u64,
    /// Its bytes.
    pub entry: Vec<u8>,
}

/// What a batch inserts, column by column.
#[derive(Debug, Default)]
pub struct BatchRows {
    /// Places of the entries.
    pub seqs: Vec<i64>,
    /// Their bytes.
    pub entries: Vec<Vec<u8>>,
    /// Their statements' ids.
    pub statements: Vec<Vec<u8>>,
    /// Their streams.
    pub streams: Vec<Option<Vec<u8>>>,
    /// Digest and place of each blob that an entry names.
    pub references: (Vec<Vec<u8>>, Vec<i64>),
    /// Principal, client_ref and statement of each request that has one.
    pub client_refs: (Vec<String>, Vec<Vec<u8>>, Vec<Vec<u8>>),
    /// Agent, number and statement of each link of an agent's chain.
    pub agent_links: (Vec<Vec<u8>>, Vec<i64>, Vec<Vec<u8>>),
    /// Label and place of each turn that a label's gap holds.
    pub label_turns: (Vec<String>, Vec<i64>),
    /// Level, index and root of each stored subtree that was completed.
    pub subtrees: (Vec<i16>, Vec<i64>, Vec<Vec<u8>>),
    /// Streams that opened.
    pub opened: Vec<Vec<u8>>,
    /// Streams that closed.
    pub closed: Vec<Vec<u8>>,
    /// Places of redactions: what they name is erased in the same transaction.
    pub redactions: Vec<i64>,
}

/// Postgres has no unsigned integers. A size past 2^63 cannot be stored and is the largest there is.
#[must_use]
pub fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> Result<u64, sqlx::Error> {
    u64::try_from(number).map_err(|error| sqlx::Error::Decode(error.into()))
}

fn hash(bytes: &[u8]) -> Result<Hash, sqlx::Error> {
    Hash::from_slice(bytes).ok_or_else(|| sqlx::Error::Decode("a hash has 32 bytes".into()))
}

fn id(bytes: &[u8]) -> Result<StatementId, sqlx::Error> {
    hash(bytes).map(|hash| StatementId::new(*hash.as_bytes()))
}

fn head_row(row: &PgRow) -> Result<HeadRow, sqlx::Error> {
    let edge: Vec<Vec<u8>> = row.try_get("right_edge")?;
    Ok(HeadRow {
        size: unsigned(row.try_get("size")?)?,
        last_leaf: hash(row.try_get("last_leaf")?)?,
        last_time_us: unsigned(row.try_get("last_time_us")?)?,
        right_edge: edge
            .iter()
            .map(|node| hash(node))
            .collect::<Result<_, _>>()?,
        note: row.try_get("note")?,
        database_us: unsigned(row.try_get("database_us")?)?,
    })
}

/// Reads the head as it is committed now.
///
/// # Errors
/// The database's.
pub async fn head(pool: &PgPool) -> Result<HeadRow, sqlx::Error> {
    let row = sqlx::query(
        "SELECT *, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS database_us FROM head",
    );
    head_row(&row.fetch_one(pool).await?)
}

/// Locks the head until the transaction ends: whoever holds it is the only writer. The database's clock
/// is read when the lock is there, which may be seconds after it was asked for.
///
/// # Errors
/// The database's.
pub async fn lock_head(connection: &mut PgConnection) -> Result<HeadRow, sqlx::Error> {
    let row = sqlx::query(
        "SELECT *, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS database_us
         FROM (SELECT * FROM head FOR UPDATE) AS locked",
    );
    head_row(&row.fetch_one(connection).await?)
}

fn entry_row(row: &PgRow) -> Result<EntryRow, sqlx::Error> {
    Ok(EntryRow {
        seq: unsigned(row.try_get("seq")?)?,
        entry: row.try_get("entry")?,
    })
}

/// Entries `from..to` in order, at most `limit`.
///
/// # Errors
/// The database's.
pub async fn entries(
    connection: &mut PgConnection,
    from: u64,
    to: u64,
    limit: u64,
) -> Result<Vec<EntryRow>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT seq, entry FROM entries WHERE seq >= $1 AND seq < $2 ORDER BY seq LIMIT $3",
    )
    .bind(signed(from))
    .bind(signed(to))
    .bind(signed(limit))
    .fetch_all(connection)
    .await?;
    rows.iter().map(entry_row).collect()
}

/// All entries of a stream before `to`, in order.
///
/// # Errors
/// The database's.
pub async fn stream(
    connection: &mut PgConnection,
    stream: &StatementId,
    to: u64,
) -> Result<Vec<EntryRow>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT e.seq, e.entry FROM statements s JOIN entries e USING (seq)
         WHERE s.stream = $1 AND s.seq < $2 ORDER BY s.seq",
    )
    .bind(stream.as_bytes().as_slice())
    .bind(signed(to))
    .fetch_all(connection)
    .await?;
    rows.iter().map(entry_row).collect()
}

/// How many entries before `to` each of these streams has; one without any is left out.
///
/// # Errors
/// The database's.
pub async fn stream_lengths(
    connection: &mut PgConnection,
    streams: &[StatementId],
    to: u64,
) -> Result<BTreeMap<StatementId, u64>, sqlx::Error> {
    let streams: Vec<_> = streams.iter().map(|id| id.as_bytes().as_slice()).collect();
    let rows = sqlx::query(
        "SELECT stream, count(*) AS length FROM statements
         WHERE stream = ANY($1) AND seq < $2 GROUP BY stream",
    )
    .bind(streams)
    .bind(signed(to))
    .fetch_all(connection)
    .await?;
    let length = |row: &PgRow| {
        let stream: &[u8] = row.try_get("stream")?;
        Ok((id(stream)?, unsigned(row.try_get("length")?)?))
    };
    rows.iter().map(length).collect()
}

/// All entries of these streams before `to`, in order, each with its stream.
///
/// # Errors
/// The database's.
pub async fn streams(
    connection: &mut PgConnection,
    streams: &[StatementId],
    to: u64,
) -> Result<Vec<(StatementId, EntryRow)>, sqlx::Error> {
    let streams: Vec<_> = streams.iter().map(|id| id.as_bytes().as_slice()).collect();
    let rows = sqlx::query(
        "SELECT s.stream, e.seq, e.entry FROM statements s JOIN entries e USING (seq)
         WHERE s.stream = ANY($1) AND s.seq < $2 ORDER BY s.seq",
    )
    .bind(streams)
    .bind(signed(to))
    .fetch_all(connection)
    .await?;
    let entry = |row: &PgRow| Ok((id(row.try_get("stream")?)?, entry_row(row)?));
    rows.iter().map(entry).collect()
}

/// Whether a stream has an entry in `from..to`.
///
/// # Errors
/// The database's.
pub async fn stream_moved(
    pool: &PgPool,
    stream: &StatementId,
    from: u64,
    to: u64,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM statements WHERE stream = $1 AND seq >= $2 AND seq < $3)",
    )
    .bind(stream.as_bytes().as_slice())
    .bind(signed(from))
    .bind(signed(to))
    .fetch_one(pool)
    .await
}

/// Entries of a stream in `from..to`, in order, at most `limit`.
///
/// # Errors
/// The database's.
pub async fn stream_page(
    connection: &mut PgConnection,
    stream: &StatementId,
    from: u64,
    to: u64,
    limit: u64,
) -> Result<Vec<EntryRow>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT e.seq, e.entry FROM statements s JOIN entries e USING (seq)
         WHERE s.stream = $1 AND s.seq >= $2 AND s.seq < $3 ORDER BY s.seq LIMIT $4",
    )
    .bind(stream.as_bytes().as_slice())
    .bind(signed(from))
    .bind(signed(to))
    .bind(signed(limit))
    .fetch_all(connection)
    .await?;
    rows.iter().map(entry_row).collect()
}

/// The first entry that names a blob: whose text it is.
///
/// # Errors
/// The database's.
pub async fn naming(
    connection: &mut PgConnection,
    digest: &Digest,
    to: u64,
) -> Result<Option<EntryRow>, sqlx::Error> {
    let row = sqlx::query(
        "SELECT e.seq, e.entry FROM blob_references r JOIN entries e USING (seq)
         WHERE r.digest = $1 AND r.seq < $2 ORDER BY r.seq LIMIT 1",
    )
    .bind(digest.as_bytes().as_slice())
    .bind(signed(to))
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(entry_row).transpose()
}

/// The streams whose entries name these blobs, at most `limit` lines; none for an entry of no stream.
///
/// # Errors
/// The database's.
pub async fn naming_streams(
    connection: &mut PgConnection,
    digests: &[Digest],
    limit: u64,
) -> Result<Vec<(Digest, Option<StatementId>)>, sqlx::Error> {
    let wanted: Vec<&[u8]> = digests
        .iter()
        .map(|digest| digest.as_bytes().as_slice())
        .collect();
    let rows = sqlx::query(
        "SELECT DISTINCT r.digest, s.stream FROM blob_references r JOIN statements s USING (seq)
         WHERE r.digest = ANY($1) LIMIT $2",
    )
    .bind(wanted)
    .bind(signed(limit))
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            let digest = hash(row.try_get("digest")?)?;
            let stream: Option<Vec<u8>> = row.try_get("stream")?;
            let stream = stream.map(|bytes| id(&bytes)).transpose()?;
            Ok((Digest::new(*digest.as_bytes()), stream))
        })
        .collect()
}

/// Streams that are not settled at the head and began before `before`.
///
/// # Errors
/// The database's.
pub async fn open_streams(
    connection: &mut PgConnection,
    before: u64,
) -> Result<Vec<StatementId>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT o.stream FROM open_streams o JOIN statements s ON s.statement_id = o.stream
         WHERE s.seq < $1",
    )
    .bind(signed(before))
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| id(row.try_get("stream")?)).collect()
}

/// The commands of the last turn under each label's gap, before `before`.
///
/// # Errors
/// The database's.
pub async fn last_label_turns(
    connection: &mut PgConnection,
    before: u64,
) -> Result<Vec<StatementId>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT DISTINCT ON (t.label) s.stream
         FROM label_turns t JOIN statements s ON s.seq = t.seq
         WHERE t.seq < $1 ORDER BY t.label, t.seq DESC",
    )
    .bind(signed(before))
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| id(row.try_get("stream")?)).collect()
}

/// Places of those of these statements that are in the log.
///
/// # Errors
/// The database's.
pub async fn places(
    connection: &mut PgConnection,
    statements: &[StatementId],
) -> Result<BTreeMap<StatementId, u64>, sqlx::Error> {
    let ids: Vec<&[u8]> = statements
        .iter()
        .map(|id| id.as_bytes().as_slice())
        .collect();
    let rows = sqlx::query("SELECT statement_id, seq FROM statements WHERE statement_id = ANY($1)")
        .bind(ids)
        .fetch_all(connection)
        .await?;
    rows.iter()
        .map(|row| {
            Ok((
                id(row.try_get("statement_id")?)?,
                unsigned(row.try_get("seq")?)?,
            ))
        })
        .collect()
}

/// The request that a principal's own id stands for.
///
/// # Errors
/// The database's.
pub async fn client_ref(
    connection: &mut PgConnection,
    principal: &str,
    client_ref: &Digest,
) -> Result<Option<StatementId>, sqlx::Error> {
    let row = sqlx::query(
        "SELECT statement_id FROM client_refs WHERE principal = $1 AND client_ref = $2",
    )
    .bind(principal)
    .bind(client_ref.as_bytes().as_slice())
    .fetch_optional(connection)
    .await?;
    row.map(|row| id(row.try_get("statement_id")?)).transpose()
}

/// The newest link of an agent's chain before number `before`: its number and statement.
///
/// # Errors
/// The database's.
pub async fn agent_chain(
    connection: &mut PgConnection,
    agent: &KeyId,
    before: u64,
) -> Result<Option<(u64, StatementId)>, sqlx::Error> {
    let row = sqlx::query(
        "SELECT agent_seq, statement_id FROM agent_statements WHERE key_id = $1 AND agent_seq < $2
         ORDER BY agent_seq DESC LIMIT 1",
    )
    .bind(agent.as_bytes().as_slice())
    .bind(signed(before))
    .fetch_optional(connection)
    .await?;
    row.map(|row| {
        Ok((
            unsigned(row.try_get("agent_seq")?)?,
            id(row.try_get("statement_id")?)?,
        ))
    })
    .transpose()
}

/// The note of the checkpoint with this size, if one was committed.
///
/// # Errors
/// The database's.
pub async fn note(connection: &mut PgConnection, size: u64) -> Result<Option<String>, sqlx::Error> {
    let row = sqlx::query("SELECT note FROM checkpoints WHERE size = $1")
        .bind(signed(size))
        .fetch_optional(connection)
        .await?;
    row.map(|row| row.try_get("note")).transpose()
}

/// A blob; its inside is none when it was redacted.
///
/// # Errors
/// The database's.
pub async fn blob(
    connection: &mut PgConnection,
    digest: &Digest,
) -> Result<Option<Option<Blob>>, sqlx::Error> {
    let row = sqlx::query("SELECT salt, content FROM blobs WHERE digest = $1")
        .bind(digest.as_bytes().as_slice())
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(blob_row).transpose()
}

/// How many bytes each of these blobs has, nothing for one that was redacted. Those that were never
/// there are left out.
///
/// # Errors
/// The database's.
pub async fn blob_lengths(
    connection: &mut PgConnection,
    digests: &[Digest],
) -> Result<BTreeMap<Digest, Option<u64>>, sqlx::Error> {
    let digests: Vec<_> = digests
        .iter()
        .map(|one| one.as_bytes().as_slice())
        .collect();
    let rows = sqlx::query(
        "SELECT digest, octet_length(content)::bigint AS length FROM blobs WHERE digest = ANY($1)",
    )
    .bind(digests)
    .fetch_all(connection)
    .await?;
    let length = |row: &PgRow| {
        let length: Option<i64> = row.try_get("length")?;
        Ok((digest(row)?, length.map(unsigned).transpose()?))
    };
    rows.iter().map(length).collect()
}

/// These blobs, nothing for one that was redacted. Those that were never there are left out.
///
/// # Errors
/// The database's.
pub async fn blobs(
    connection: &mut PgConnection,
    digests: &[Digest],
) -> Result<BTreeMap<Digest, Option<Blob>>, sqlx::Error> {
    let digests: Vec<_> = digests
        .iter()
        .map(|one| one.as_bytes().as_slice())
        .collect();
    let rows = sqlx::query("SELECT digest, salt, content FROM blobs WHERE digest = ANY($1)")
        .bind(digests)
        .fetch_all(connection)
        .await?;
    let blob = |row: &PgRow| Ok((digest(row)?, blob_row(row)?));
    rows.iter().map(blob).collect()
}

fn digest(row: &PgRow) -> Result<Digest, sqlx::Error> {
    let digest = Digest::from_slice(row.try_get("digest")?);
    digest.ok_or_else(|| sqlx::Error::Decode("a digest has 32 bytes".into()))
}

fn blob_row(row: &PgRow) -> Result<Option<Blob>, sqlx::Error> {
    let (salt, content): (Option<Vec<u8>>, Option<Vec<u8>>) =
        (row.try_get("salt")?, row.try_get("content")?);
    let (Some(salt), Some(content)) = (salt, content) else {
        return Ok(None);
    };
    let salt = salt
        .try_into()
        .map_err(|_| sqlx::Error::Decode("a salt has 32 bytes".into()))?;
    let blob = Blob::new(salt, content).map_err(|error| sqlx::Error::Decode(error.into()))?;
    Ok(Some(blob))
}

/// Removes blobs that were stored over an hour ago and that no entry names, up to some number of them,
/// among those that came since it last found none left.
///
/// # Errors
/// The database's.
pub async fn purge_unreferenced_blobs(connection: &mut PgConnection) -> Result<u64, sqlx::Error> {
    let row = sqlx::query("SELECT purge_unreferenced_blobs() AS purged")
        .fetch_one(connection)
        .await?;
    unsigned(row.try_get("purged")?)
}

/// Says whether a statement may name these blobs without bringing them: all are here, of the length
/// that is named and not redacted, and no entry names them, unless it is this very statement that
/// stands in the log. Whoever only knows the digest of somebody's text does not get at it by naming
/// it as their own.
///
/// # Errors
/// The database's.
pub async fn has_blobs(
    pool: &PgPool,
    statement: &StatementId,
    named: &[BlobRef],
) -> Result<bool, sqlx::Error> {
    let wanted: Vec<&[u8]> = named
        .iter()
        .map(|named| named.digest.as_bytes().as_slice())
        .collect();
    let lengths: Vec<i64> = named.iter().map(|named| signed(named.len)).collect();
    renew_blobs(pool, &wanted).await?;
    let row = sqlx::query(
        "SELECT count(*) AS found FROM unnest($1::bytea[], $2::bigint[]) AS named(digest, len)
         JOIN blobs USING (digest) WHERE octet_length(content) = len
           AND (EXISTS (SELECT FROM statements WHERE statement_id = $3)
             OR NOT EXISTS (SELECT FROM blob_references r WHERE r.digest = blobs.digest))",
    )
    .bind(&wanted)
    .bind(lengths)
    .bind(statement.as_bytes().as_slice())
    .fetch_one(pool)
    .await?;
    let found: i64 = row.try_get("found")?;
    Ok(unsigned(found)? == wanted.len() as u64)
}

/// Makes blobs young that no entry names yet, so that they are not purged before the statement that
/// names them now is entered: they may have come first with one that was refused. By itself and first:
/// what was purged before is then found missing, or is stored anew.
async fn renew_blobs(pool: &PgPool, digests: &[&[u8]]) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT renew_blobs($1)")
        .bind(digests)
        .execute(pool)
        .await?;
    Ok(())
}

/// Stores blobs, before any lock. Those that are here already stay, and are young again.
///
/// # Errors
/// The database's; then it may or may not have stored them, and doing it again is safe.
pub async fn insert_blobs(
    pool: &PgPool,
    blobs: &BTreeMap<Digest, Blob>,
) -> Result<(), sqlx::Error> {
    let digests: Vec<&[u8]> = blobs
        .keys()
        .map(|digest| digest.as_bytes().as_slice())
        .collect();
    let salts: Vec<&[u8]> = blobs.values().map(|blob| blob.salt().as_slice()).collect();
    let contents: Vec<&[u8]> = blobs.values().map(Blob::content).collect();
    let insert = async || {
        sqlx::query(
            "INSERT INTO blobs (digest, salt, content)
             SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::bytea[]) ON CONFLICT DO NOTHING",
        )
        .bind(&digests)
        .bind(&salts)
        .bind(&contents)
        .execute(pool)
        .await
    };
    if insert().await?.rows_affected() < blobs.len() as u64 {
        renew_blobs(pool, &digests).await?;
        // What was purged before it was young again is stored now.
        insert().await?;
    }
    Ok(())
}

/// Inserts a batch and moves the head to it. Nothing is visible before the transaction commits.
///
/// # Errors
/// The database's, the triggers' objections included; nothing of the batch stays then.
pub async fn insert_batch(
    connection: &mut PgConnection,
    rows: &BatchRows,
    head: &HeadRow,
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO entries (seq, entry) SELECT * FROM unnest($1::bigint[], $2::bytea[])")
        .bind(&rows.seqs)
        .bind(&rows.entries)
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "INSERT INTO statements (statement_id, seq, stream)
         SELECT * FROM unnest($1::bytea[], $2::bigint[], $3::bytea[])",
    )
    .bind(&rows.statements)
    .bind(&rows.seqs)
    .bind(&rows.streams)
    .execute(&mut *connection)
    .await?;
    insert_side_tables(connection, rows).await?;
    let edge: Vec<&[u8]> = head
        .right_edge
        .iter()
        .map(|node| node.as_bytes().as_slice())
        .collect();
    sqlx::query(
        "WITH noted AS (INSERT INTO checkpoints (size, note) VALUES ($1, $5))
         UPDATE head SET size = $1, last_leaf = $2, last_time_us = $3, right_edge = $4, note = $5",
    )
    .bind(signed(head.size))
    .bind(head.last_leaf.as_bytes().as_slice())
    .bind(signed(head.last_time_us))
    .bind(edge)
    .bind(&head.note)
    .execute(&mut *connection)
    .await?;
    Ok(())
}

async fn insert_side_tables(
    connection: &mut PgConnection,
    rows: &BatchRows,
) -> Result<(), sqlx::Error> {
    if !rows.references.0.is_empty() {
        sqlx::query(
            "INSERT INTO blob_references (digest, seq)
             SELECT * FROM unnest($1::bytea[], $2::bigint[])",
        )
        .bind(&rows.references.0)
        .bind(&rows.references.1)
        .execute(&mut *connection)
        .await?;
    }
    if !rows.client_refs.0.is_empty() {
        sqlx::query(
            "INSERT INTO client_refs (principal, client_ref, statement_id)
             SELECT * FROM unnest($1::text[], $2::bytea[], $3::bytea[])",
        )
        .bind(&rows.client_refs.0)
        .bind(&rows.client_refs.1)
        .bind(&rows.client_refs.2)
        .execute(&mut *connection)
        .await?;
    }
    if !rows.agent_links.0.is_empty() {
        sqlx::query(
            "INSERT INTO agent_statements (key_id, agent_seq, statement_id)
             SELECT * FROM unnest($1::bytea[], $2::bigint[], $3::bytea[])",
        )
        .bind(&rows.agent_links.0)
        .bind(&rows.agent_links.1)
        .bind(&rows.agent_links.2)
        .execute(&mut *connection)
        .await?;
    }
    if !rows.label_turns.0.is_empty() {
        sqlx::query(
            "INSERT INTO label_turns (label, seq)
             SELECT * FROM unnest($1::text[], $2::bigint[])",
        )
        .bind(&rows.label_turns.0)
        .bind(&rows.label_turns.1)
        .execute(&mut *connection)
        .await?;
    }
    if !rows.subtrees.0.is_empty() {
        sqlx::query(
            "INSERT INTO subtrees (level, index, root)
             SELECT * FROM unnest($1::smallint[], $2::bigint[], $3::bytea[])",
        )
        .bind(&rows.subtrees.0)
        .bind(&rows.subtrees.1)
        .bind(&rows.subtrees.2)
        .execute(&mut *connection)
        .await?;
    }
    if !rows.opened.is_empty() {
        sqlx::query("INSERT INTO open_streams (stream) SELECT * FROM unnest($1::bytea[])")
            .bind(&rows.opened)
            .execute(&mut *connection)
            .await?;
    }
    if !rows.closed.is_empty() {
        sqlx::query("DELETE FROM open_streams WHERE stream = ANY($1)")
            .bind(&rows.closed)
            .execute(&mut *connection)
            .await?;
    }
    if !rows.redactions.is_empty() {
        sqlx::query("SELECT erase_blobs(seq) FROM unnest($1::bigint[]) AS seq")
            .bind(&rows.redactions)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// Nodes that were fetched, for proofs.
#[derive(Debug, Clone, Default)]
pub struct Nodes(BTreeMap<NodeId, Hash>);

impl NodeSource for Nodes {
    fn node(&self, level: u8, index: u64) -> Option<Hash> {
        self.0.get(&NodeId { level, index }).copied()
    }
}

/// Fetches nodes of the tree: one query for each height that is stored, at most 256 rows a node.
/// A node that is not in the tree is left out.
///
/// # Errors
/// The database's.
pub async fn nodes(connection: &mut PgConnection, wanted: &[NodeId]) -> Result<Nodes, sqlx::Error> {
    let mut by_base: BTreeMap<u8, Vec<NodeId>> = BTreeMap::new();
    for node in wanted {
        by_base
            .entry(node.level / TILE_HEIGHT * TILE_HEIGHT)
            .or_default()
            .push(*node);
    }
    let mut found = Nodes::default();
    for (base, nodes) in by_base {
        let ranges = nodes.iter().map(|node| {
            let height = node.level - base;
            (node.index << height, (node.index + 1) << height)
        });
        let (low, high): (Vec<i64>, Vec<i64>) = ranges
            .map(|(low, high)| (signed(low), signed(high)))
            .unzip();
        let rows = if base == 0 {
            sqlx::query(
                "SELECT r.n, e.leaf AS hash FROM
                 unnest($1::bigint[], $2::bigint[]) WITH ORDINALITY AS r(low, high, n)
                 JOIN entries e ON e.seq >= r.low AND e.seq < r.high ORDER BY r.n, e.seq",
            )
            .bind(low)
            .bind(high)
        } else {
            sqlx::query(
                "SELECT r.n, s.root AS hash FROM
                 unnest($1::bigint[], $2::bigint[]) WITH ORDINALITY AS r(low, high, n)
                 JOIN subtrees s ON s.level = $3 AND s.index >= r.low AND s.index < r.high
                 ORDER BY r.n, s.index",
            )
            .bind(low)
            .bind(high)
            .bind(i16::from(base))
        };
        let mut hashes: BTreeMap<u64, Vec<Hash>> = BTreeMap::new();
        for row in rows.fetch_all(&mut *connection).await? {
            let n = unsigned(row.try_get("n")?)?;
            hashes
                .entry(n)
                .or_default()
                .push(hash(row.try_get("hash")?)?);
        }
        for (n, node) in (1_u64..).zip(nodes) {
            let below = hashes.remove(&n).unwrap_or_default();
            if let Some(root) = perfect_root(below, node.level - base) {
                found.0.insert(node, root);
            }
        }
    }
    Ok(found)
}

/// The root over exactly `2^height` hashes.
fn perfect_root(mut hashes: Vec<Hash>, height: u8) -> Option<Hash> {
    if hashes.len() != 1_usize.checked_shl(height.into())? {
        return None;
    }
    while hashes.len() > 1 {
        hashes = hashes
            .chunks(2)
            .filter_map(|pair| match pair {
                [left, right] => Some(merkle::node_hash(left, right)),
                _odd => None,
            })
            .collect();
    }
    hashes.pop()
}
