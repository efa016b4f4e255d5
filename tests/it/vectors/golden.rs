//! Reads the golden ledger from `tests/vectors/log/`.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sqlx::PgPool;

/// Where the vectors lie.
pub(crate) fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).unwrap()
}

fn lines(name: &str) -> Vec<Value> {
    let parse = |line| serde_json::from_str(line).unwrap();
    read(name).lines().map(parse).collect()
}

fn unhex(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

fn unbase64(value: &Value) -> Vec<u8> {
    STANDARD.decode(value.as_str().unwrap()).unwrap()
}

/// One entry of the golden log.
pub(crate) struct GoldenEntry {
    pub(crate) seq: i64,
    pub(crate) bytes: Vec<u8>,
    pub(crate) leaf: Vec<u8>,
}

/// All entries, in order.
pub(crate) fn entries() -> Vec<GoldenEntry> {
    let entry = |line: &Value| GoldenEntry {
        seq: line["seq"].as_i64().unwrap(),
        bytes: unbase64(&line["entry"]),
        leaf: unhex(&line["leaf"]),
    };
    lines("log/entries.jsonl").iter().map(entry).collect()
}

/// Digest, salt and content of all blobs.
pub(crate) fn blobs() -> Vec<[Vec<u8>; 3]> {
    let blob = |line: &Value| {
        [
            unhex(&line["digest"]),
            unhex(&line["salt"]),
            unbase64(&line["content"]),
        ]
    };
    lines("log/blobs.jsonl").iter().map(blob).collect()
}

/// The root at every size, from 0.
pub(crate) fn roots() -> Vec<Vec<u8>> {
    let ledger: Value = serde_json::from_str(&read("log/ledger.json")).unwrap();
    ledger["roots"]
        .as_array()
        .unwrap()
        .iter()
        .map(unhex)
        .collect()
}

/// Inserts entries in one statement, as the writer does.
pub(crate) async fn insert(pool: &PgPool, entries: &[(i64, Vec<u8>)]) -> Result<(), sqlx::Error> {
    let seqs: Vec<i64> = entries.iter().map(|(seq, _)| *seq).collect();
    let bytes: Vec<&[u8]> = entries.iter().map(|(_, bytes)| bytes.as_slice()).collect();
    sqlx::query("INSERT INTO entries (seq, entry) SELECT * FROM unnest($1::bigint[], $2::bytea[])")
        .bind(seqs)
        .bind(bytes)
        .execute(pool)
        .await
        .map(drop)
}

/// Inserts the golden log up to `size`, in two batches, as the serving role.
pub(crate) async fn fill(app: &PgPool, size: usize) {
    let all: Vec<(i64, Vec<u8>)> = entries()
        .into_iter()
        .take(size)
        .map(|entry| (entry.seq, entry.bytes))
        .collect();
    let (first, second) = all.split_at(size / 3);
    for batch in [first, second] {
        insert(app, batch).await.unwrap();
    }
}

/// The blobs of the golden log, and where each statement stands; after [`fill`].
pub(crate) async fn fill_side_tables(app: &PgPool) {
    for [digest, salt, content] in blobs() {
        sqlx::query("INSERT INTO blobs (digest, salt, content) VALUES ($1, $2, $3)")
            .bind(digest)
            .bind(salt)
            .bind(content)
            .execute(app)
            .await
            .unwrap();
    }
    for line in lines("log/entries.jsonl") {
        sqlx::query("INSERT INTO statements (statement_id, seq) VALUES ($1, $2)")
            .bind(unhex(&line["statement_id"]))
            .bind(line["seq"].as_i64().unwrap())
            .execute(app)
            .await
            .unwrap();
    }
}
