//! Side tables: indexes that the writer keeps beside the log. While the entries pass, each table's
//! rows pass beside them, and the first that differs from what its entry calls for is named.

use std::collections::VecDeque;

use countersign_protocol::audit::CheckedEntry;
use countersign_protocol::event::Event;
use countersign_protocol::fold::{self, Stream};
use countersign_protocol::name::Label;
use countersign_verifier::Findings;

use super::database::Database;

/// A row's columns as bytes.
type Cells = Vec<Vec<u8>>;

/// A row of a side table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SideRow {
    /// The entry it belongs to, as the database says; nothing when there is none.
    pub(super) seq: Option<u64>,
    /// Its columns.
    pub(super) cells: Cells,
}

/// How a table is read and what an entry calls for in it.
#[derive(Debug)]
pub(super) struct Table {
    /// Its name.
    pub(super) name: &'static str,
    /// `seq` and `cells` of all its rows, in the order of `seq`.
    pub(super) rows: &'static str,
    expected: fn(&CheckedEntry) -> Vec<Cells>,
}

pub(super) const TABLES: [Table; 5] = [
    Table {
        name: "statements",
        rows: "SELECT seq, ARRAY[statement_id, coalesce(stream, ''::bytea)] AS cells
               FROM statements ORDER BY seq",
        expected: statements,
    },
    Table {
        name: "blob_references",
        rows: "SELECT seq, ARRAY[digest] AS cells FROM blob_references ORDER BY seq",
        expected: blob_references,
    },
    Table {
        name: "client_refs",
        rows: "SELECT seq, ARRAY[convert_to(principal, 'UTF8'), client_ref, statement_id] AS cells
               FROM client_refs LEFT JOIN statements USING (statement_id)
               ORDER BY seq NULLS LAST",
        expected: client_refs,
    },
    Table {
        name: "agent_statements",
        rows: "SELECT seq,
                   ARRAY[key_id, int8send(agent_seq), statement_id] AS cells
               FROM agent_statements LEFT JOIN statements USING (statement_id)
               ORDER BY seq NULLS LAST",
        expected: agent_statements,
    },
    Table {
        name: "label_turns",
        rows: "SELECT seq, ARRAY[convert_to(label, 'UTF8')] AS cells
               FROM label_turns ORDER BY seq, label COLLATE \"C\"",
        expected: label_turns,
    },
];

fn statements(entry: &CheckedEntry) -> Vec<Cells> {
    let id = entry.verified.id();
    let stream = Stream::of(entry.verified.event(), id);
    let stream = stream.map(|stream| stream.id().as_bytes().to_vec());
    vec![vec![id.as_bytes().to_vec(), stream.unwrap_or_default()]]
}

fn blob_references(entry: &CheckedEntry) -> Vec<Cells> {
    let blobs = entry.verified.event().blobs();
    let mut digests: Vec<_> = blobs.into_iter().map(|blob| blob.digest).collect();
    digests.sort_unstable();
    digests.dedup();
    let cells = |digest: countersign_protocol::hash::Digest| vec![digest.as_bytes().to_vec()];
    digests.into_iter().map(cells).collect()
}

fn client_refs(entry: &CheckedEntry) -> Vec<Cells> {
    let Event::CommandRequested(request) = entry.verified.event() else {
        return Vec::new();
    };
    let Some(client_ref) = &request.client_ref else {
        return Vec::new();
    };
    vec![vec![
        request.principal.as_str().as_bytes().to_vec(),
        client_ref.as_bytes().to_vec(),
        entry.verified.id().as_bytes().to_vec(),
    ]]
}

fn agent_statements(entry: &CheckedEntry) -> Vec<Cells> {
    let Some((agent, agent_seq, _)) = fold::agent_link(entry.verified.event()) else {
        return Vec::new();
    };
    vec![vec![
        agent.as_bytes().to_vec(),
        agent_seq.to_be_bytes().to_vec(),
        entry.verified.id().as_bytes().to_vec(),
    ]]
}

fn label_turns(entry: &CheckedEntry) -> Vec<Cells> {
    let Event::ExecutionReleased(released) = entry.verified.event() else {
        return Vec::new();
    };
    let cells = |label: &Label| vec![label.as_str().as_bytes().to_vec()];
    released.labels.iter().map(cells).collect()
}

/// What one entry calls for in each table.
#[derive(Debug)]
pub(super) struct Expected {
    seq: u64,
    rows: [Vec<Cells>; TABLES.len()],
}

impl Expected {
    pub(super) fn of(entry: &CheckedEntry) -> Self {
        let rows = TABLES.each_ref().map(|table| (table.expected)(entry));
        Self {
            seq: entry.seq,
            rows,
        }
    }
}

/// How far a table's rows have passed.
#[derive(Debug, Default)]
struct Passing {
    rows: VecDeque<SideRow>,
    at_end: bool,
    /// A difference was named; what follows from it would be noise.
    differs: bool,
}

impl Passing {
    /// The next row, if it belongs to an entry up to `seq` or, at the end, to none.
    async fn next(
        &mut self,
        database: &mut Database,
        table: &Table,
        seq: Option<u64>,
    ) -> Result<Option<SideRow>, sqlx::Error> {
        if self.rows.is_empty() && !self.at_end {
            self.rows = database.side_rows(table).await?.into();
            self.at_end = self.rows.is_empty();
        }
        let due = |row: &SideRow| seq.is_none_or(|seq| row.seq.is_some_and(|row| row <= seq));
        Ok(if self.rows.front().is_some_and(due) {
            self.rows.pop_front()
        } else {
            None
        })
    }
}

/// All side tables, on their way along the log.
#[derive(Debug, Default)]
pub(super) struct SideTables {
    passing: [Passing; TABLES.len()],
}

impl SideTables {
    /// Compares the rows of these entries, which must come in order and without gaps.
    pub(super) async fn compare(
        &mut self,
        database: &mut Database,
        entries: &[Expected],
        findings: &mut Findings,
    ) -> Result<(), sqlx::Error> {
        for (index, (passing, table)) in self.passing.iter_mut().zip(&TABLES).enumerate() {
            for entry in entries {
                if passing.differs {
                    break;
                }
                let mut found = Vec::new();
                while let Some(row) = passing.next(database, table, Some(entry.seq)).await? {
                    found.push(row.cells);
                }
                let wanted = entry.rows.get(index).map(Vec::as_slice).unwrap_or_default();
                if let Some(what) = difference(found, wanted) {
                    findings.table(table.name, entry.seq, what);
                    passing.differs = true;
                }
            }
        }
        Ok(())
    }

    /// After the last entry: no table may hold more.
    pub(super) async fn finish(
        &mut self,
        database: &mut Database,
        size: u64,
        findings: &mut Findings,
    ) -> Result<(), sqlx::Error> {
        for (passing, table) in self.passing.iter_mut().zip(&TABLES) {
            if passing.differs {
                continue;
            }
            if let Some(row) = passing.next(database, table, None).await? {
                let seq = row.seq.unwrap_or(size);
                findings.table(table.name, seq, "it holds a row that belongs to no entry");
            }
        }
        Ok(())
    }
}

/// What is wrong with an entry's rows, if anything.
fn difference(mut found: Vec<Cells>, wanted: &[Cells]) -> Option<&'static str> {
    found.sort_unstable();
    let same = {
        let mut wanted = wanted.to_vec();
        wanted.sort_unstable();
        found == wanted
    };
    if same {
        return None;
    }
    Some(match found.len().cmp(&wanted.len()) {
        std::cmp::Ordering::Less => "its row is missing",
        std::cmp::Ordering::Equal => "its row differs from what the entry says",
        std::cmp::Ordering::Greater => "it holds a row that the entry does not call for",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_does_not_matter_and_every_difference_does() {
        let cells = |byte: u8| vec![vec![byte]];
        let both = [cells(1), cells(2)];
        assert_eq!(difference(vec![cells(2), cells(1)], &both), None);
        assert!(difference(vec![cells(1)], &both).is_some());
        assert!(difference(vec![cells(1), cells(3)], &both).is_some());
        assert!(difference(vec![cells(1), cells(2), cells(2)], &both).is_some());
        assert!(difference(vec![cells(1)], &[]).is_some());
    }
}
