//! Whether a query fits a row. What may not be read makes neither a yes nor a no.

use countersign_protocol::search::{Pattern, Query, Term};

use super::runs::RunRow;
use crate::acts::Wanted;

/// What is known of what a run wrote.
#[derive(Debug, Clone, Copy)]
pub enum Sight<'a> {
    /// It was not read, or cannot be.
    Unknown,
    /// Each stream as a whole.
    Read(&'a [Vec<u8>]),
}

/// Whether a query fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fits {
    /// It does.
    Yes,
    /// It does not.
    No,
    /// That depends on what was not read.
    Unknown,
}

impl Fits {
    /// What is known for certain.
    #[must_use]
    pub const fn of(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }

    const fn not(self) -> Self {
        match self {
            Self::Yes => Self::No,
            Self::No => Self::Yes,
            Self::Unknown => Self::Unknown,
        }
    }
}

/// Whether a query fits one host's part of a command.
#[must_use]
pub fn fits(query: &Query, row: &RunRow, sight: Sight<'_>) -> Fits {
    judge(query, &|term| of_term(term, row, sight))
}

/// Whether a query fits what `of_term` tells of each of its terms.
pub fn judge(query: &Query, of_term: &impl Fn(&Term) -> Fits) -> Fits {
    match query {
        Query::Term(term) => of_term(term),
        Query::Not(one) => judge(one, of_term).not(),
        Query::And(all) => {
            // The other way round of an or: one no is enough, else one unknown.
            let each = all.iter().map(|one| judge(one, of_term).not());
            one_of(each).not()
        }
        Query::Or(all) => one_of(all.iter().map(|one| judge(one, of_term))),
    }
}

fn one_of(each: impl Iterator<Item = Fits>) -> Fits {
    let mut found = Fits::No;
    for one in each {
        match one {
            Fits::Yes => return Fits::Yes,
            Fits::Unknown => found = Fits::Unknown,
            Fits::No => {}
        }
    }
    found
}

fn of_term(term: &Term, row: &RunRow, sight: Sight<'_>) -> Fits {
    match term {
        Term::Who(pattern) => {
            let said = row.approved_by.iter().chain(&row.rejected_by);
            let mut people = said.chain([&row.requester]);
            Fits::of(people.any(|who| pattern.fits(who)))
        }
        Term::Host(pattern) => Fits::of(pattern.fits(&row.host)),
        Term::Program(pattern) => of_words(row, |words| is_program(row.mode, words, pattern)),
        Term::Arg(pattern) => of_words(row, |words| is_argument(row.mode, words, pattern)),
        Term::Exit(first, last) => {
            let code = row.exit_code;
            Fits::of(code.is_some_and(|code| (*first..=*last).contains(&code)))
        }
        Term::Label(pattern) => Fits::of(row.labels.iter().any(|label| pattern.fits(label))),
        Term::Status(word) => Fits::of(row.status == word || row.run == word),
        Term::From(time) => Fits::of(row.requested_us >= time.as_micros()),
        Term::To(time) => Fits::of(row.requested_us < time.as_micros()),
        Term::Mode(word) => Fits::of(row.mode == word),
        Term::Id(text) => {
            let id = row.id.parse().ok();
            let wanted = Wanted::parse(text).ok();
            let both = wanted.zip(id);
            Fits::of(both.is_some_and(|(wanted, id)| wanted.fits(&id)))
        }
        Term::Output(text) => match sight {
            Sight::Unknown => Fits::Unknown,
            Sight::Read(streams) => Fits::of(streams.iter().any(|stream| has(stream, text))),
        },
    }
}

fn of_words(row: &RunRow, says: impl FnOnce(&[String]) -> bool) -> Fits {
    row.argv
        .as_ref()
        .map_or(Fits::Unknown, |argv| Fits::of(says(argv)))
}

/// What runs a script; that of an action is its name.
const SHELL: &str = "/bin/sh";

fn is_program(mode: &str, words: &[String], pattern: &Pattern) -> bool {
    let path = if mode == "shell" {
        SHELL
    } else {
        words.first().map_or("", String::as_str)
    };
    let name = path.rsplit('/').next().unwrap_or(path);
    pattern.fits(path) || pattern.fits(name)
}

fn is_argument(mode: &str, words: &[String], pattern: &Pattern) -> bool {
    let before = usize::from(mode != "shell");
    words.iter().skip(before).any(|word| pattern.fits(word))
}

/// Whether bytes hold a text, whatever else they are.
fn has(bytes: &[u8], text: &str) -> bool {
    let text = text.as_bytes();
    bytes.windows(text.len().max(1)).any(|part| part == text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::parse;

    fn row() -> RunRow {
        RunRow {
            id: format!("ab{}", "0".repeat(62)),
            short: String::new(),
            seq: 7,
            requested_us: 1_000_000,
            requester: "alice".to_owned(),
            approved_by: vec!["bob".to_owned()],
            rejected_by: vec!["carol".to_owned()],
            break_glass: false,
            mode: "exec",
            argv: Some(vec!["/usr/bin/systemctl".to_owned(), "restart".to_owned()]),
            runs: None,
            user: Some("root".to_owned()),
            host: "web-1".to_owned(),
            labels: vec!["env=prod".to_owned()],
            status: "completed",
            run: "completed",
            uid: Some(0),
            started_seq: Some(9),
            started_us: Some(2_000_000),
            ended_seq: Some(11),
            ended_us: Some(3_000_000),
            outcome: Some("exited"),
            exit_code: Some(3),
        }
    }

    fn asked(text: &str, row: &RunRow, sight: Sight<'_>) -> Fits {
        let time = |text: &str| {
            let stamp: jiff::Timestamp = text.parse().unwrap();
            let micros = u64::try_from(stamp.as_microsecond()).unwrap();
            Ok(countersign_protocol::name::Time::from_micros(micros).unwrap())
        };
        fits(&parse(text, time).unwrap(), row, sight)
    }

    #[test]
    fn each_key_looks_at_its_own_field() {
        let row = row();
        for text in [
            "who:alice",
            "who:bob",
            "who:carol",
            "host:web-*",
            "program:systemctl",
            "program:/usr/bin/systemctl",
            "arg:rest*",
            "exit:3",
            "exit:1..255",
            "label:env=*",
            "status:completed",
            "mode:exec",
            "id:ab000000",
            "from:1970-01-01T00:00:01Z",
            "to:1970-01-01T00:00:02Z",
            "not host:db-1",
            "host:db-1 or exit:3",
        ] {
            assert_eq!(asked(text, &row, Sight::Unknown), Fits::Yes, "{text}");
        }
        for text in [
            "who:dave",
            "host:web",
            "program:restart",
            "arg:systemctl",
            "exit:0",
            "label:prod",
            "status:lost",
            "mode:shell",
            "id:cd000000",
            "from:1970-01-01T00:00:02Z",
            "to:1970-01-01T00:00:01Z",
            "host:web-1 and exit:0",
            "not who:alice",
        ] {
            assert_eq!(asked(text, &row, Sight::Unknown), Fits::No, "{text}");
        }
    }

    #[test]
    fn a_script_is_an_argument_of_the_shell() {
        let mut row = row();
        row.mode = "shell";
        row.argv = Some(vec!["cd /tmp && ls".to_owned()]);
        for text in ["program:sh", "program:/bin/sh", "arg:*/tmp*"] {
            assert_eq!(asked(text, &row, Sight::Unknown), Fits::Yes, "{text}");
        }
    }

    #[test]
    fn what_was_not_read_is_neither_a_yes_nor_a_no() {
        let mut row = row();
        let read = [b"\xffthe disk is full".to_vec(), Vec::new()];
        for (text, unread, seen) in [
            ("output:disk", Fits::Unknown, Fits::Yes),
            ("not output:disk", Fits::Unknown, Fits::No),
            ("output:disk or exit:3", Fits::Yes, Fits::Yes),
            ("output:disk and exit:0", Fits::No, Fits::No),
            ("output:disk and exit:3", Fits::Unknown, Fits::Yes),
            ("output:Disk", Fits::Unknown, Fits::No),
        ] {
            assert_eq!(asked(text, &row, Sight::Unknown), unread, "{text}");
            assert_eq!(asked(text, &row, Sight::Read(&read)), seen, "{text}");
        }
        row.argv = None;
        assert_eq!(asked("program:ls", &row, Sight::Unknown), Fits::Unknown);
        assert_eq!(asked("not arg:ls", &row, Sight::Unknown), Fits::Unknown);
    }
}
