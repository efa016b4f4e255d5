//! Entries read ahead and checked one by one on all cores; they come out in order.
//!
//! Bounded: at most [`READ_AHEAD`] pages are in memory, whatever the size of the log.

use std::collections::VecDeque;
use std::num::NonZero;

use countersign_protocol::audit::{self, CheckedEntry, Reason};
use countersign_protocol::hash::Hash;
use tokio::task::JoinHandle;

use super::error::VerifyError;
use super::source::{EntryRow, Pages};

/// Entries in a page: at most 16 MiB, and some 10 ms of checking, so that a page's own cost vanishes.
const PAGE: u64 = 512;

/// Pages in memory: enough that no core waits for the next read.
const READ_AHEAD: usize = 4;

/// An entry after the checks that need no other.
#[derive(Debug)]
pub(super) struct Checked {
    /// The place that the source gives it.
    pub(super) seq: u64,
    /// The leaf that is stored beside it.
    pub(super) stored: Option<Hash>,
    /// What its bytes came to.
    pub(super) entry: Result<CheckedEntry, Reason>,
}

/// Reads ahead and checks.
#[derive(Debug)]
pub(super) struct Pipeline {
    next: u64,
    end: u64,
    parts: usize,
    pages: VecDeque<Vec<JoinHandle<Vec<Checked>>>>,
}

fn check(rows: Vec<EntryRow>) -> Vec<Checked> {
    let checked = audit::check_entries(rows.iter().map(|row| row.entry.as_slice()));
    let of_row = |(row, entry): (&EntryRow, _)| Checked {
        seq: row.seq,
        stored: row.leaf,
        entry,
    };
    rows.iter().zip(checked).map(of_row).collect()
}

/// The cores that this process may use.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

impl Pipeline {
    /// Reads from entry `next` to before `end`, or to where the source ends.
    pub(super) fn new(next: u64, end: u64) -> Self {
        Self {
            next,
            end,
            parts: cores(),
            pages: VecDeque::new(),
        }
    }

    /// The next page of checked entries; nothing at the end.
    pub(super) async fn next(
        &mut self,
        pages: &mut dyn Pages,
    ) -> Result<Option<Vec<Checked>>, VerifyError> {
        while self.next < self.end && self.pages.len() < READ_AHEAD {
            self.read(pages).await?;
        }
        let Some(parts) = self.pages.pop_front() else {
            return Ok(None);
        };
        let mut checked = Vec::new();
        for part in parts {
            checked.extend(part.await.map_err(|_| VerifyError::Worker)?);
        }
        Ok(Some(checked))
    }

    async fn read(&mut self, pages: &mut dyn Pages) -> Result<(), VerifyError> {
        let limit = PAGE.min(self.end - self.next);
        let mut rows = pages
            .entries(self.next, limit)
            .await
            .map_err(source_error)?;
        rows.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        let Some(last) = rows.last() else {
            self.end = self.next;
            return Ok(());
        };
        self.next = last.seq.saturating_add(1).max(self.next);
        let size = rows.len().div_ceil(self.parts);
        let mut parts = Vec::new();
        while !rows.is_empty() {
            let rest = rows.split_off(size.min(rows.len()));
            let part = std::mem::replace(&mut rows, rest);
            parts.push(tokio::task::spawn_blocking(|| check(part)));
        }
        self.pages.push_back(parts);
        Ok(())
    }
}

/// The database's own errors stay what they are.
pub(super) fn source_error(error: super::source::SourceError) -> VerifyError {
    match error.downcast::<sqlx::Error>() {
        Ok(error) => VerifyError::Database(*error),
        Err(error) => match error.downcast::<VerifyError>() {
            Ok(error) => *error,
            Err(error) => VerifyError::Source(error),
        },
    }
}
