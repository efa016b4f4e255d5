//! What a verification comes to.

use countersign_protocol::checkpoint::CheckpointError;
use countersign_protocol::hash::{Hash, KeyId};
use serde::Serialize;

use super::source::SourceError;

/// Where a ledger first fails, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FirstBad {
    /// The entry concerned. For what is cut off: the first that is missing. For a checkpoint: the
    /// last entry that it covers.
    pub seq: u64,
    /// Why, in one sentence.
    pub reason: String,
}

/// What became of the blobs that entries name, counted once for each entry that names one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct BlobCounts {
    /// The very bytes that were signed.
    pub ok: u64,
    /// Erased, with an entry that says so.
    pub redacted: u64,
    /// Erased, and no entry says so: a failure.
    pub erased: u64,
    /// Not shown to this reader.
    pub withheld: u64,
    /// Not there: a failure.
    pub missing: u64,
    /// Other bytes than were signed: a failure.
    pub mismatch: u64,
    /// Stored, and named by no entry: sent ahead of a statement, purged after an hour.
    pub unreferenced: u64,
}

/// A range in which signatures of a revoked key are under suspicion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Suspect {
    /// The key.
    pub key_id: KeyId,
    /// The first suspect entry.
    pub from: u64,
    /// The entry that revoked the key.
    pub until: u64,
}

/// A security key that showed a smaller counter than before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CounterBack {
    /// The entry that it signed.
    pub seq: u64,
    /// The key.
    pub key_id: KeyId,
    /// The counter there.
    pub counter: u32,
    /// The largest counter before.
    pub before: u32,
}

/// The verdict. `ok` exactly when there is no `first_bad`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Nothing was found.
    pub ok: bool,
    /// Entries that hold, from the first on.
    pub size: u64,
    /// Merkle root over them.
    pub root: Hash,
    /// Where it first fails.
    pub first_bad: Option<FirstBad>,
    /// The first entry is the ledger that the caller pinned. Without a pin the ledger is only
    /// consistent in itself.
    pub pinned: bool,
    /// Checkpoints whose signature and root hold.
    pub checkpoints: u64,
    /// What became of the blobs.
    pub blobs: BlobCounts,
    /// Entries that could not be judged again because a document behind them is not at hand.
    pub not_rejudged: u64,
    /// Ranges that an administrator declared suspect. No failure by themselves.
    pub suspect: Vec<Suspect>,
    /// Security keys whose counters went back: there may be two of one. No failure by themselves.
    pub counters_back: Vec<CounterBack>,
    /// The first difference of each side table.
    pub findings: Vec<String>,
}

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The database cannot be read.
    #[error("the database cannot be read, so nothing was verified: {0}")]
    Database(#[from] sqlx::Error),
    /// Another schema, or none.
    #[error(
        "this database has no tables of a countersign ledger ({0}); check the URL, or run `countersign migrate` for a new one"
    )]
    NotALedger(String),
    /// The source of pages failed.
    #[error("the ledger cannot be read, so nothing was verified: {0}")]
    Source(SourceError),
    /// The checkpoint that the caller gave is not readable.
    #[error(
        "the checkpoint that was given is damaged ({0}); give the whole note as the ledger issued it"
    )]
    Note(CheckpointError),
    /// A checking thread ended without an answer.
    #[error("a checking thread ended without an answer, so nothing was verified; try again")]
    Worker,
}

/// What was found so far: the lowest seq, and the first difference of each side table.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) first: Option<FirstBad>,
    pub(super) tables: Vec<String>,
}

impl Findings {
    /// Takes a failure. The lowest seq stays; of two at the same seq the one found first.
    pub(super) fn bad(&mut self, seq: u64, reason: impl Into<String>) {
        if self.first.as_ref().is_none_or(|first| seq < first.seq) {
            let reason = reason.into();
            self.first = Some(FirstBad { seq, reason });
        }
    }

    /// Takes the first difference of a table.
    pub(super) fn table(&mut self, table: &str, seq: u64, what: &str) {
        let text = format!("table {table}, entry {seq}: {what}");
        self.bad(seq, text.clone());
        self.tables.push(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_seq_stays_and_of_equals_the_first() {
        let mut findings = Findings::default();
        findings.bad(5, "a");
        findings.bad(7, "b");
        findings.table("statements", 5, "c");
        findings.bad(3, "d");
        let first = findings.first.unwrap();
        assert_eq!((first.seq, first.reason.as_str()), (3, "d"));
        assert_eq!(findings.tables, ["table statements, entry 5: c"]);
    }
}
