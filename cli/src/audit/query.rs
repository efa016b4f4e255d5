//! The text of a search: what is written here reads back, in `parse.rs`, as the same query.

use std::fmt;

use countersign_protocol::name::Time;
use countersign_protocol::search::{Pattern, Query, Term};

/// Text in quotes, so that it reads back as the same.
fn quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str("\"")?;
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            f.write_str("\\")?;
        }
        write!(f, "{c}")?;
    }
    f.write_str("\"")
}

fn of_pattern(f: &mut fmt::Formatter<'_>, pattern: &Pattern) -> fmt::Result {
    match pattern {
        Pattern::Exact(text) => quoted(f, text),
        Pattern::Glob(glob) => f.write_str(glob),
    }
}

fn of_key(f: &mut fmt::Formatter<'_>, key: &str, pattern: &Pattern) -> fmt::Result {
    f.write_str(key)?;
    of_pattern(f, pattern)
}

/// A time with all of its microseconds; one past every calendar as their number.
fn stamp(time: Time) -> String {
    let micros = i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_microsecond(micros)
        .map_or_else(|_| time.as_micros().to_string(), |stamp| stamp.to_string())
}

fn of_term(f: &mut fmt::Formatter<'_>, term: &Term) -> fmt::Result {
    match term {
        Term::Who(pattern) => of_key(f, "who:", pattern),
        Term::Host(pattern) => of_key(f, "host:", pattern),
        Term::Program(pattern) => of_key(f, "program:", pattern),
        Term::Arg(pattern) => of_key(f, "arg:", pattern),
        Term::Label(pattern) => of_key(f, "label:", pattern),
        Term::Exit(first, last) if first == last => write!(f, "exit:{first}"),
        Term::Exit(first, last) => write!(f, "exit:{first}..{last}"),
        Term::Status(word) => write!(f, "status:{word}"),
        Term::Mode(word) => write!(f, "mode:{word}"),
        Term::Id(text) => write!(f, "id:{text}"),
        Term::From(time) => write!(f, "from:{}", stamp(*time)),
        Term::To(time) => write!(f, "to:{}", stamp(*time)),
        Term::Output(text) => {
            f.write_str("output:")?;
            quoted(f, text)
        }
    }
}

/// A query as its text, which reads back as the same query.
#[derive(Debug, Clone, Copy)]
pub struct Written<'a>(pub &'a Query);

impl Written<'_> {
    fn part(f: &mut fmt::Formatter<'_>, query: &Query) -> fmt::Result {
        match query {
            Query::Term(_) | Query::Not(_) => Self::whole(f, query),
            Query::And(_) | Query::Or(_) => {
                f.write_str("(")?;
                Self::whole(f, query)?;
                f.write_str(")")
            }
        }
    }

    fn joined(f: &mut fmt::Formatter<'_>, all: &[Query], word: &str) -> fmt::Result {
        for (at, one) in all.iter().enumerate() {
            if at > 0 {
                write!(f, " {word} ")?;
            }
            Self::part(f, one)?;
        }
        Ok(())
    }

    fn whole(f: &mut fmt::Formatter<'_>, query: &Query) -> fmt::Result {
        match query {
            Query::Term(term) => of_term(f, term),
            Query::Not(one) => {
                f.write_str("not ")?;
                Self::part(f, one)
            }
            Query::And(all) => Self::joined(f, all, "and"),
            Query::Or(all) => Self::joined(f, all, "or"),
        }
    }
}

impl fmt::Display for Written<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Self::whole(f, self.0)
    }
}
