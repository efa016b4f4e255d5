//! What a verification comes to.

use std::fmt;

use countersign_protocol::hash::{CommandId, Hash, KeyId, StatementId};
use countersign_protocol::name::{LegalBasis, SECOND_US};
use countersign_protocol::{short, visible};

use crate::outputs::{OtherOutput, OutputCounts};
use crate::witnesses::Witnessed;
use serde::Serialize;

/// Where a ledger first fails, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FirstBad {
    /// A stable word for what is wrong.
    pub name: &'static str,
    /// The entry concerned. For what is cut off: the first that is missing. For a checkpoint: the
    /// last entry that it covers.
    pub seq: u64,
    /// Why, in one sentence.
    pub reason: String,
}

/// How much of a ledger was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// All entries, from the first on.
    Whole,
    /// Chosen entries, each proved to be in the checkpoint. What was left out is not known.
    Excerpt,
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

/// An entry that erased texts, and what it rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RedactedBy {
    /// The entry.
    pub seq: u64,
    /// The change that it puts into effect: who asked for it and why.
    pub change: StatementId,
    /// The command whose texts they were.
    pub command: CommandId,
    /// Where the consents stand, the request first.
    pub rests_on: Vec<u64>,
    /// By which law or rule.
    pub legal_basis: LegalBasis,
    /// Texts that it names.
    pub named: u64,
    /// Those of them that were looked for here and are gone.
    pub texts: u64,
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
    /// How much was looked at.
    pub scope: Scope,
    /// Of a whole log, entries that hold, from the first on. Of an excerpt, the checkpoint's size.
    pub size: u64,
    /// Entries that were checked.
    pub entries: u64,
    /// Merkle root of that size.
    pub root: Hash,
    /// Where it first fails.
    pub first_bad: Option<FirstBad>,
    /// The first entry is the ledger that the caller pinned. Without a pin the ledger is only
    /// consistent in itself.
    pub pinned: bool,
    /// Checkpoints whose signature and root hold.
    pub checkpoints: u64,
    /// What witnesses say of the bundle's checkpoint; nothing when none were asked for.
    pub witnessed: Option<Witnessed>,
    /// What became of the blobs.
    pub blobs: BlobCounts,
    /// Entries that erased texts.
    pub redacted_by: Vec<RedactedBy>,
    /// What the output of completed runs came to.
    pub outputs: OutputCounts,
    /// Entries that could not be judged again because a document behind them is not at hand.
    pub not_rejudged: u64,
    /// Ranges that an administrator declared suspect. No failure by themselves.
    pub suspect: Vec<Suspect>,
    /// Security keys whose counters went back: there may be two of one. No failure by themselves.
    pub counters_back: Vec<CounterBack>,
    /// Output of which its own host says two things: it lies, or its key was stolen. Nothing else in the
    /// log rests on it, so it is no failure by itself.
    pub other_outputs: Vec<OtherOutput>,
    /// The first difference of each side table.
    pub findings: Vec<String>,
}

impl Report {
    /// Whether something that holds is under suspicion all the same.
    #[must_use]
    pub const fn is_suspect(&self) -> bool {
        !self.suspect.is_empty() || !self.counters_back.is_empty() || !self.other_outputs.is_empty()
    }
}

/// For people: the verdict, what it rests on, and what it does not show.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.first_bad {
            None => {
                // A right that nobody judged again is none that holds.
                let holds = if self.not_rejudged == 0 {
                    "every hash, signature, right and proof holds"
                } else {
                    "every hash, signature and proof holds, and the rights that could be judged again"
                };
                writeln!(
                    f,
                    "ok: {} entries, {} checkpoints, {} texts; {holds}",
                    self.entries, self.checkpoints, self.blobs.ok
                )?;
            }
            Some(bad) => writeln!(
                f,
                "NOT OK at entry {}: {}: {}",
                bad.seq,
                bad.name,
                visible::line(&bad.reason)
            )?,
        }
        writeln!(f, "root {} of {} entries", self.root, self.size)?;
        if !self.pinned {
            writeln!(
                f,
                "no ledger is pinned (--ledger): this is internally consistent only"
            )?;
        }
        if let Some(witnessed) = &self.witnessed {
            writeln!(
                f,
                "{} witnesses vouch for the checkpoint, enough of them by {} s after 1970",
                witnessed.witnesses,
                witnessed.by_us.as_micros() / SECOND_US
            )?;
        }
        if self.scope == Scope::Excerpt {
            writeln!(
                f,
                "an excerpt: what it holds is in the log; what was left out of it, no excerpt can show"
            )?;
        }
        if self.outputs.partial > 0 {
            writeln!(
                f,
                "{} of {} streams of output are not here in full, so their digests are not compared",
                self.outputs.partial,
                self.outputs.partial + self.outputs.ok
            )?;
        }
        if self.blobs.withheld > 0 {
            writeln!(
                f,
                "{} texts are withheld: their digests stand in the log",
                self.blobs.withheld
            )?;
        }
        if self.blobs.redacted > 0 {
            writeln!(
                f,
                "{} texts are redacted: their digests stand in the log, and who erased them and why",
                self.blobs.redacted
            )?;
        }
        for by in &self.redacted_by {
            let consents: Vec<String> = by.rests_on.iter().map(ToString::to_string).collect();
            writeln!(
                f,
                "redacted at entry {}: {} texts of command {}, legal basis {}, wanted in entries {}",
                by.seq,
                by.named,
                short::short(&by.command),
                by.legal_basis,
                consents.join(", ")
            )?;
        }
        if self.not_rejudged > 0 {
            writeln!(
                f,
                "{} entries are not judged again: the text they name is not at hand",
                self.not_rejudged
            )?;
        }
        for suspect in &self.suspect {
            writeln!(
                f,
                "SUSPECT: what {} signed from entry {} to {}",
                suspect.key_id, suspect.from, suspect.until
            )?;
        }
        for back in &self.counters_back {
            writeln!(
                f,
                "SUSPECT: the security key {} showed counter {} in entry {}, after {}: there may be two of it",
                back.key_id, back.counter, back.seq, back.before
            )?;
        }
        for other in &self.other_outputs {
            writeln!(
                f,
                "SUSPECT: other_output at entry {}: {} of command {} has another digest there than what {} had sent: \
                 that host contradicts itself, or its key was stolen",
                other.seq,
                other.words(),
                short::short(&other.command),
                other.agent
            )?;
        }
        for finding in &self.findings {
            writeln!(f, "finding: {}", visible::line(finding))?;
        }
        Ok(())
    }
}

/// What was found so far: the lowest seq, and the first difference of each side table.
#[derive(Debug, Default)]
pub struct Findings {
    first: Option<FirstBad>,
    tables: Vec<String>,
}

impl Findings {
    /// Takes a failure. The lowest seq stays; of two at the same seq the one found first.
    pub fn bad(&mut self, name: &'static str, seq: u64, reason: impl Into<String>) {
        if self.first.as_ref().is_none_or(|first| seq < first.seq) {
            let reason = reason.into();
            self.first = Some(FirstBad { name, seq, reason });
        }
    }

    /// Takes the first difference of a table.
    pub fn table(&mut self, table: &str, seq: u64, what: &str) {
        let text = format!("table {table}, entry {seq}: {what}");
        self.bad("other_table", seq, text.clone());
        self.tables.push(text);
    }

    /// Whether nothing was found yet.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// The first failure, and the tables that differ.
    #[must_use]
    pub fn into_parts(self) -> (Option<FirstBad>, Vec<String>) {
        (self.first, self.tables)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_seq_stays_and_of_equals_the_first() {
        let mut findings = Findings::default();
        assert!(findings.is_empty());
        findings.bad("x", 5, "a");
        assert!(!findings.is_empty());
        findings.bad("x", 7, "b");
        findings.table("statements", 5, "c");
        findings.bad("y", 3, "d");
        let (first, tables) = findings.into_parts();
        let first = first.unwrap();
        assert_eq!(
            (first.name, first.seq, first.reason.as_str()),
            ("y", 3, "d")
        );
        assert_eq!(tables, ["table statements, entry 5: c"]);
    }
}
