//! Pages of rows: as a table, JSON or CSV.

use serde::Serialize;

use super::arguments::Form;
use crate::acts::{Past, Point, Since};
use crate::audit::{Record, csv};
use crate::failure::Failure;
use crate::{console, describe, exit_code, render};

/// Rows of a page when nobody says how many: some screens.
const ROWS: usize = 200;

/// As of when an answer is.
#[derive(Debug, Serialize)]
pub(super) struct AsOf {
    /// How many entries the log had.
    size: u64,
    /// The time of the newest of them, in microseconds.
    time_us: Option<u64>,
}

impl AsOf {
    pub(super) fn of(past: &Past) -> Self {
        Self {
            size: past.chronicle.size(),
            time_us: past.chronicle.last().map(|time| time.as_micros()),
        }
    }

    pub(super) const fn at(point: &Point) -> Self {
        Self {
            size: point.size,
            time_us: Some(point.last.as_micros()),
        }
    }
}

/// Whose word it is that nothing is missing from an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Complete {
    /// Nobody's: every entry of the log was audited.
    Audited,
    /// The server's.
    Server,
}

/// A page of rows, and what they rest on.
pub(super) struct Rows<'a, T> {
    as_of: AsOf,
    complete: Complete,
    page: &'a [T],
    next: Option<String>,
    /// How many were shown until here, of how many.
    of: Option<(usize, usize)>,
}

impl<'a, T> Rows<'a, T> {
    /// A page of all rows of an audited log.
    pub(super) fn whole(form: &Form, past: &Past, rows: &'a [T]) -> Result<Self, Failure> {
        let cursor = Cursor::of(form)?;
        let (page, next) = page(form, cursor, past.chronicle.size(), rows);
        Ok(Self {
            as_of: AsOf::of(past),
            complete: Complete::Audited,
            of: Some((cursor.rows + page.len(), rows.len())),
            page,
            next,
        })
    }

    /// What a server found.
    pub(super) const fn found(point: &Point, page: &'a [T], next: Option<String>) -> Self {
        Self {
            as_of: AsOf::at(point),
            complete: Complete::Server,
            page,
            next,
            of: None,
        }
    }
}

/// Where a page of what a server finds goes on: in the log of that size, and the server's own cursor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct FoundCursor {
    pub(super) size: Option<u64>,
    pub(super) after: Option<String>,
}

impl FoundCursor {
    pub(super) fn of(form: &Form) -> Result<Self, Failure> {
        let parse = |text: &str| {
            let (size, after) = text.split_once('.')?;
            Some(Self {
                size: Some(size.parse().ok()?),
                after: Some(after.to_owned()),
            })
        };
        form.cursor.as_deref().map_or(Ok(Self::default()), |text| {
            parse(text).ok_or_else(|| {
                Failure::usage("the cursor is not one that a page gave").hint(
                    "give the `next` of the page before, as it is; with --whole if that had it",
                )
            })
        })
    }

    pub(super) fn text(point: &Point, after: Option<&str>) -> Option<String> {
        after.map(|after| format!("{}.{after}", point.size))
    }
}

/// How many rows of what a server finds are wanted.
pub(super) fn wanted(form: &Form) -> u64 {
    let usual = if form.csv { u64::MAX } else { ROWS as u64 };
    form.limit.map_or(usual, u64::from)
}

/// A page of an answer.
#[derive(Debug, Serialize)]
struct Answer<'a, T> {
    as_of: AsOf,
    complete: Complete,
    items: &'a [T],
    next: Option<String>,
    /// Runs that fit or not by what may not be read here.
    #[serde(skip_serializing_if = "Option::is_none")]
    unknown: Option<usize>,
}

/// Where a page goes on: in the log of that size, after so many rows. The rows of one size never
/// change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    size: Option<u64>,
    rows: usize,
}

impl Cursor {
    pub(super) fn of(form: &Form) -> Result<Self, Failure> {
        form.cursor.as_deref().map_or(Ok(Self::default()), |text| {
            Self::parse(text).ok_or_else(|| {
                Failure::usage("the cursor is not one that a page gave")
                    .hint("give the `next` of the page before, as it is")
            })
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let (size, rows) = text.split_once('-')?;
        Some(Self {
            size: Some(size.parse().ok()?),
            rows: rows.parse().ok()?,
        })
    }

    /// How far to read the log.
    pub(super) fn until(&self) -> Option<Since> {
        self.size.map(Since::Entry)
    }
}

/// Prints a page of rows.
pub(super) fn print<T: Record>(
    json: bool,
    form: &Form,
    rows: Rows<'_, T>,
    unknown: Option<usize>,
) -> Result<u8, Failure> {
    let Rows {
        as_of,
        complete,
        page,
        next,
        of,
    } = rows;
    if let Some(some) = unknown.filter(|some| *some > 0) {
        console::note(&format!(
            "{some} runs are left out: whether they fit depends on what is erased or not for you to read"
        ));
    }
    if json {
        console::print_json(&Answer {
            as_of,
            complete,
            items: page,
            next,
            unknown,
        })?;
        return Ok(exit_code::DONE);
    }
    if form.csv {
        console::write_raw(false, csv(page).as_bytes())?;
    } else if page.is_empty() {
        console::note("nothing was found");
    } else {
        let cells = page.iter().map(Record::brief).collect();
        console::print(&describe::table(T::HEADINGS, cells))?;
    }
    if let Some(next) = next {
        let shown = match of {
            Some((shown, all)) => format!("{shown} of {all} rows"),
            None => format!("{} rows", page.len()),
        };
        console::note(&format!("{shown}; more: --cursor {}", render::word(&next)));
    }
    Ok(exit_code::DONE)
}

fn page<'a, T>(form: &Form, cursor: Cursor, size: u64, rows: &'a [T]) -> (&'a [T], Option<String>) {
    let limit = form.limit.and_then(|limit| usize::try_from(limit).ok());
    let limit = limit.unwrap_or(if form.csv { usize::MAX } else { ROWS });
    let rest = rows.get(cursor.rows..).unwrap_or_default();
    let page = rest.get(..limit.min(rest.len())).unwrap_or_default();
    let more = page.len() < rest.len();
    let next = more.then(|| format!("{size}-{}", cursor.rows + page.len()));
    (page, next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(limit: Option<u32>, cursor: Option<&str>, csv: bool) -> Form {
        Form {
            csv,
            limit,
            cursor: cursor.map(ToOwned::to_owned),
            whole: false,
        }
    }

    #[test]
    fn pages_follow_each_other_and_the_last_has_no_next() {
        let rows: Vec<u8> = (0..5).collect();
        let mut cursor = None;
        let mut seen = Vec::new();
        loop {
            let form = form(Some(2), cursor.as_deref(), false);
            let at = Cursor::of(&form).unwrap();
            let (page, next) = page(&form, at, 42, &rows);
            seen.extend_from_slice(page);
            let Some(next) = next else { break };
            let read = Cursor::parse(&next).unwrap();
            assert_eq!(read.until(), Some(Since::Entry(42)));
            cursor = Some(next);
        }
        assert_eq!(seen, rows);
    }

    #[test]
    fn csv_is_whole_unless_somebody_wants_less() {
        let rows = vec![(); ROWS + 1];
        let shown = |form: &Form| page(form, Cursor::default(), 1, &rows).0.len();
        assert_eq!(shown(&form(None, None, true)), ROWS + 1);
        assert_eq!(shown(&form(Some(3), None, true)), 3);
        assert_eq!(shown(&form(None, None, false)), ROWS);
    }

    #[test]
    fn a_cursor_of_something_else_is_refused() {
        for text in ["", "7", "7-", "-7", "a-b", "1-2-3"] {
            assert!(
                Cursor::of(&form(None, Some(text), false)).is_err(),
                "{text}"
            );
        }
    }
}
