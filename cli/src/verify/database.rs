//! One read-only snapshot of a ledger's database, and the SQL that reads it. Nothing is judged here.

use countersign_protocol::blob::{Blob, MAX_BLOB_BYTES};
use countersign_protocol::hash::{Digest, Hash};
use countersign_verifier::Held;
use futures_util::TryStreamExt as _;
use futures_util::stream::BoxStream;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};

use super::error::VerifyError;
use super::source::{EntryRow, Fetch, Pages};
use super::tables::{SideRow, TABLES, Table};

/// Side rows fetched at a time: some 200 KiB.
const SIDE_ROWS: u32 = 2048;

/// How the planner reads a table. A corrupted index shows only when both ways are taken.
#[derive(Debug, Clone, Copy)]
pub(super) enum Access {
    /// By its indexes, as the server does.
    Index,
    /// By its rows, whatever its indexes say.
    Heap,
}

/// The head row.
#[derive(Debug)]
pub(super) struct HeadRow {
    pub(super) size: u64,
    pub(super) last_leaf: Vec<u8>,
    pub(super) last_time_us: u64,
    pub(super) right_edge: Vec<Vec<u8>>,
    pub(super) note: String,
}

/// A stored subtree: level, index, root.
pub(super) type SubtreeRow = (u64, u64, Vec<u8>);

/// A connection inside a snapshot. Dropping it ends both.
#[derive(Debug)]
pub(super) struct Database(PgConnection);

/// Numbers of ours are never negative; one that is was put there by somebody else, and is past any.
fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn missing_table(error: sqlx::Error) -> VerifyError {
    // undefined_table, undefined_column, undefined_function
    let undefined = ["42P01", "42703", "42883"];
    let code = error.as_database_error().and_then(|error| error.code());
    match code {
        Some(code) if undefined.contains(&code.as_ref()) => {
            VerifyError::NotALedger(error.to_string())
        }
        _other => error.into(),
    }
}

impl Database {
    /// Connects and takes the snapshot: all that is read is of one moment.
    pub(super) async fn open(url: &str) -> Result<Self, VerifyError> {
        let mut this = Self(PgConnection::connect(url).await?);
        this.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .await?;
        // A policy that hides rows from this role becomes an error instead of a gap.
        this.run("SET LOCAL row_security = off").await?;
        this.access(Access::Heap).await?;
        for table in &TABLES {
            let declare = format!(
                "DECLARE verify_{} NO SCROLL CURSOR FOR {}",
                table.name, table.rows
            );
            let declared = sqlx::raw_sql(AssertSqlSafe(declare))
                .execute(&mut this.0)
                .await;
            declared.map_err(missing_table)?;
        }
        this.access(Access::Index).await?;
        Ok(this)
    }

    async fn run(&mut self, sql: &'static str) -> Result<(), sqlx::Error> {
        sqlx::raw_sql(sql).execute(&mut self.0).await.map(drop)
    }

    /// Chooses how what is planned from now on is read.
    pub(super) async fn access(&mut self, access: Access) -> Result<(), sqlx::Error> {
        self.run(match access {
            Access::Index => {
                "SET LOCAL enable_seqscan = off; SET LOCAL enable_indexscan = on;
                 SET LOCAL enable_indexonlyscan = on; SET LOCAL enable_bitmapscan = on"
            }
            Access::Heap => {
                "SET LOCAL enable_seqscan = on; SET LOCAL enable_indexscan = off;
                 SET LOCAL enable_indexonlyscan = off; SET LOCAL enable_bitmapscan = off"
            }
        })
        .await
    }

    /// The head row; nothing when somebody removed it.
    pub(super) async fn head(&mut self) -> Result<Option<HeadRow>, VerifyError> {
        let row = sqlx::query("SELECT size, last_leaf, last_time_us, right_edge, note FROM head")
            .fetch_optional(&mut self.0)
            .await
            .map_err(missing_table)?;
        let read = |row: PgRow| {
            Ok(HeadRow {
                size: unsigned(row.try_get("size")?),
                last_leaf: row.try_get("last_leaf")?,
                last_time_us: unsigned(row.try_get("last_time_us")?),
                right_edge: row.try_get("right_edge")?,
                note: row.try_get("note")?,
            })
        };
        row.map(read).transpose().map_err(VerifyError::Database)
    }

    /// The next rows of a side table, in the order of the entries they belong to.
    pub(super) async fn side_rows(&mut self, table: &Table) -> Result<Vec<SideRow>, sqlx::Error> {
        let fetch = format!("FETCH FORWARD {SIDE_ROWS} FROM verify_{}", table.name);
        let rows = sqlx::query(AssertSqlSafe(fetch))
            .fetch_all(&mut self.0)
            .await?;
        let read = |row: &PgRow| {
            let seq: Option<i64> = row.try_get("seq")?;
            let cells = row.try_get("cells")?;
            Ok(SideRow {
                seq: seq.map(unsigned),
                cells,
            })
        };
        rows.iter().map(read).collect()
    }

    /// All checkpoints, smallest first: size and note.
    pub(super) fn checkpoints(&mut self) -> BoxStream<'_, Result<(u64, String), sqlx::Error>> {
        let rows =
            sqlx::query("SELECT size, note FROM checkpoints ORDER BY size").fetch(&mut self.0);
        Box::pin(
            rows.and_then(async |row| Ok((unsigned(row.try_get("size")?), row.try_get("note")?))),
        )
    }

    /// All stored subtrees, in order of level and index.
    pub(super) fn subtrees(&mut self) -> BoxStream<'_, Result<SubtreeRow, sqlx::Error>> {
        let rows = sqlx::query(
            "SELECT level::bigint AS level, index, root FROM subtrees ORDER BY level, index",
        )
        .fetch(&mut self.0);
        Box::pin(rows.and_then(async |row| {
            let (level, index) = (row.try_get("level")?, row.try_get("index")?);
            Ok((unsigned(level), unsigned(index), row.try_get("root")?))
        }))
    }

    /// All streams that are noted as open.
    pub(super) fn open_streams(&mut self) -> BoxStream<'_, Result<Vec<u8>, sqlx::Error>> {
        let rows =
            sqlx::query("SELECT stream FROM open_streams ORDER BY stream").fetch(&mut self.0);
        Box::pin(rows.and_then(async |row| row.try_get("stream")))
    }

    /// Number and leaf of every row of the log, in no order.
    pub(super) fn leaves(&mut self) -> BoxStream<'_, Result<(u64, Vec<u8>), sqlx::Error>> {
        let rows =
            sqlx::query("SELECT seq, sha256('\\x00'::bytea || entry) AS computed FROM entries")
                .fetch(&mut self.0);
        Box::pin(
            rows.and_then(async |row| {
                Ok((unsigned(row.try_get("seq")?), row.try_get("computed")?))
            }),
        )
    }

    /// Those of these blobs whose content is stored.
    pub(super) async fn stored(&mut self, digests: &[Digest]) -> Result<Vec<Digest>, sqlx::Error> {
        let wanted: Vec<&[u8]> = digests
            .iter()
            .map(|digest| digest.as_bytes().as_slice())
            .collect();
        let rows = sqlx::query(
            "SELECT digest FROM blobs
             WHERE digest = ANY($1) AND (content IS NOT NULL OR salt IS NOT NULL)",
        )
        .bind(wanted)
        .fetch_all(&mut self.0)
        .await?;
        let digest = |row: &PgRow| {
            let digest: Vec<u8> = row.try_get("digest")?;
            Digest::from_slice(&digest)
                .ok_or_else(|| sqlx::Error::Decode("a digest has 32 bytes".into()))
        };
        rows.iter().map(digest).collect()
    }

    /// Blobs that no entry names.
    pub(super) async fn unreferenced(&mut self) -> Result<u64, sqlx::Error> {
        let row = sqlx::query(
            "SELECT count(*) AS found FROM blobs
             WHERE NOT EXISTS (
                 SELECT FROM blob_references WHERE blob_references.digest = blobs.digest)",
        );
        let found: i64 = row.fetch_one(&mut self.0).await?.try_get("found")?;
        Ok(unsigned(found))
    }

    async fn read_entries(&mut self, from: u64, limit: u64) -> Result<Vec<EntryRow>, sqlx::Error> {
        let rows = sqlx::query(
            "SELECT seq, entry, leaf FROM entries WHERE seq >= $1 ORDER BY seq LIMIT $2",
        )
        .bind(signed(from))
        .bind(signed(limit))
        .fetch_all(&mut self.0)
        .await?;
        let read = |row: &PgRow| {
            let leaf: Vec<u8> = row.try_get("leaf")?;
            Ok(EntryRow {
                seq: unsigned(row.try_get("seq")?),
                entry: row.try_get("entry")?,
                leaf: Some(Hash::from_slice(&leaf).unwrap_or(Hash::ZERO)),
            })
        };
        rows.iter().map(read).collect()
    }

    async fn read_blobs(&mut self, digests: &[Digest]) -> Result<Vec<(Digest, Held)>, sqlx::Error> {
        let wanted: Vec<&[u8]> = digests
            .iter()
            .map(|digest| digest.as_bytes().as_slice())
            .collect();
        // One byte past the largest content is enough to see that it is none.
        let rows = sqlx::query(
            "SELECT digest, salt, substring(content FROM 1 FOR $2) AS content
             FROM blobs WHERE digest = ANY($1)",
        )
        .bind(wanted)
        .bind(i32::try_from(MAX_BLOB_BYTES + 1).unwrap_or(i32::MAX))
        .fetch_all(&mut self.0)
        .await?;
        rows.iter().map(blob_row).collect()
    }
}

fn blob_row(row: &PgRow) -> Result<(Digest, Held), sqlx::Error> {
    let digest: Vec<u8> = row.try_get("digest")?;
    let digest = Digest::from_slice(&digest)
        .ok_or_else(|| sqlx::Error::Decode("a digest has 32 bytes".into()))?;
    let (salt, content): (Option<Vec<u8>>, Option<Vec<u8>>) =
        (row.try_get("salt")?, row.try_get("content")?);
    let found = match (salt, content) {
        (None, None) => Held::Erased,
        (Some(salt), Some(content)) => {
            let salt = salt.try_into().ok();
            let blob = salt.and_then(|salt| Blob::new(salt, content).ok());
            blob.map_or(Held::Malformed, Held::Here)
        }
        (Some(_), None) | (None, Some(_)) => Held::Malformed,
    };
    Ok((digest, found))
}

impl Pages for Database {
    fn newest(&mut self) -> Fetch<'_, Option<String>> {
        Box::pin(async { Ok(self.head().await?.map(|head| head.note)) })
    }

    fn entries(&mut self, from: u64, limit: u64) -> Fetch<'_, Vec<EntryRow>> {
        Box::pin(async move { Ok(self.read_entries(from, limit).await?) })
    }

    fn blobs<'a>(&'a mut self, digests: &'a [Digest]) -> Fetch<'a, Vec<(Digest, Held)>> {
        Box::pin(async move { Ok(self.read_blobs(digests).await?) })
    }
}
