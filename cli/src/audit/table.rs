//! Rows as cells: for a table that people read, and for CSV (RFC 4180) that a spreadsheet opens.

use countersign_protocol::name::Time;
use serde::Serialize;

use crate::shapes::FilledShape;

/// A row of an answer.
pub trait Record: Serialize {
    /// What the columns of CSV are called; the same words as in JSON.
    const COLUMNS: &'static [&'static str];
    /// What the columns of the table are called, of which there is less room.
    const HEADINGS: &'static [&'static str];

    /// One cell for each of [`Record::COLUMNS`].
    fn cells(&self) -> Vec<String>;

    /// One cell for each of [`Record::HEADINGS`].
    fn brief(&self) -> Vec<String>;
}

/// Rows as CSV: a line of headings, lines end in CR LF, cells in quotes where they must be.
///
/// A cell that a spreadsheet would take for a formula gets an apostrophe in front.
#[must_use]
pub fn csv<T: Record>(rows: &[T]) -> String {
    let mut out = String::new();
    line(&mut out, T::COLUMNS.iter().map(|name| (*name).to_owned()));
    for row in rows {
        line(&mut out, row.cells().into_iter());
    }
    out
}

fn line(out: &mut String, cells: impl Iterator<Item = String>) {
    for (at, text) in cells.enumerate() {
        if at > 0 {
            out.push(',');
        }
        out.push_str(&cell(&text));
    }
    out.push_str("\r\n");
}

/// What some spreadsheet takes for the beginning of a formula. Tab and carriage return are left out of
/// what it looks at, so the character behind them would begin one.
const FORMULA: [char; 6] = ['=', '+', '-', '@', '\t', '\r'];

fn cell(text: &str) -> String {
    let guard = if text.starts_with(FORMULA) { "'" } else { "" };
    if text.contains(['"', ',', '\r', '\n']) || text.starts_with(' ') {
        format!("\"{guard}{}\"", text.replace('"', "\"\""))
    } else {
        format!("{guard}{text}")
    }
}

/// A time as RFC 3339 with microseconds; empty for none.
#[must_use]
pub(super) fn stamp(micros: Option<u64>) -> String {
    let stamp = micros.and_then(|micros| {
        let micros = i64::try_from(micros).ok()?;
        jiff::Timestamp::from_microsecond(micros).ok()
    });
    stamp.map_or_else(String::new, |stamp| format!("{stamp:.6}"))
}

/// A time for people; empty for none.
pub(super) fn shown(micros: Option<u64>) -> String {
    let time = micros.and_then(Time::from_micros);
    time.map_or_else(String::new, crate::render::time)
}

/// Something, or an empty cell.
pub(super) fn maybe<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

/// Words as one cell, so that two words never look like one: a JSON list.
pub(super) fn list(words: &[String]) -> String {
    serde_json::to_string(words).unwrap_or_default()
}

/// What hosts run with their own facts in it as one cell, as it is in JSON; empty for none.
pub(super) fn runs_cell(runs: &[FilledShape]) -> String {
    if runs.is_empty() {
        return String::new();
    }
    serde_json::to_string(runs).unwrap_or_default()
}

/// Words as people write them.
pub(super) fn words(argv: Option<&[String]>) -> String {
    filled(argv, &[])
}

/// The same, with the facts of hosts in them where all hosts run the same.
pub(super) fn filled(argv: Option<&[String]>, runs: &[FilledShape]) -> String {
    let words = argv.map(|argv| crate::describe::filled(argv, runs));
    words.unwrap_or_else(|| "(not for you to read)".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Pair(&'static str, &'static str);

    impl Record for Pair {
        const COLUMNS: &'static [&'static str] = &["a", "b"];
        const HEADINGS: &'static [&'static str] = &["A"];

        fn cells(&self) -> Vec<String> {
            vec![self.0.to_owned(), self.1.to_owned()]
        }

        fn brief(&self) -> Vec<String> {
            vec![self.0.to_owned()]
        }
    }

    #[test]
    fn csv_quotes_what_must_be_quoted_and_ends_lines_in_cr_lf() {
        let rows = [
            Pair("x", "y z"),
            Pair("a,b", "say \"no\""),
            Pair("two\nlines", ""),
        ];
        let wanted = "a,b\r\nx,y z\r\n\"a,b\",\"say \"\"no\"\"\"\r\n\"two\nlines\",\r\n";
        assert_eq!(csv(&rows), wanted);
    }

    #[test]
    fn no_cell_is_a_formula() {
        for text in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "=\"a\",1"] {
            let cell = cell(text);
            let inner = cell.trim_start_matches('"');
            assert!(inner.starts_with('\''), "{cell:?}");
        }
        assert_eq!(cell("a=1"), "a=1");
    }

    #[test]
    fn times_have_their_microseconds() {
        assert_eq!(stamp(Some(1_500_000)), "1970-01-01T00:00:01.500000Z");
        assert_eq!(stamp(None), "");
    }
}
