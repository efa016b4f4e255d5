//! A search of the log: terms, joined by and, or, not. Its text is read in `parse.rs`; what is printed
//! here reads back as the same query.

use std::fmt;

use countersign_protocol::name::Time;

/// Text to compare with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// The very same text; written in quotes.
    Exact(String),
    /// `*` stands for any text; written without quotes.
    Glob(String),
}

impl Pattern {
    /// Whether a text is meant.
    #[must_use]
    pub fn fits(&self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == text,
            Self::Glob(glob) => glob_fits(glob, text),
        }
    }
}

/// Each piece between stars where it first occurs: a later place could fit no more.
fn glob_fits(glob: &str, text: &str) -> bool {
    let mut pieces = glob.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let mut pieces: Vec<&str> = pieces.collect();
    let Some(last) = pieces.pop() else {
        return rest.is_empty();
    };
    for piece in pieces {
        let Some((_, after)) = rest.split_once(piece) else {
            return false;
        };
        rest = after;
    }
    rest.ends_with(last)
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Term {
    /// Somebody asked for it, or said yes or no to it.
    Who(Pattern),
    /// A host.
    Host(Pattern),
    /// The program: its path, or its name alone.
    Program(Pattern),
    /// One of the further words; of a script, its text.
    Arg(Pattern),
    /// The exit code, from the first to the last.
    Exit(u8, u8),
    /// A label that the host had when the command was asked for.
    Label(Pattern),
    /// A status word, of the command or of the host's part.
    Status(String),
    /// Asked for at that time or later.
    From(Time),
    /// Asked for before that time.
    To(Time),
    /// Text that it wrote, on either stream.
    Output(String),
    /// `exec`, `shell` or `action`.
    Mode(String),
    /// The command's id: its first digits, or its short form.
    Id(String),
}

/// What is searched for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// One condition.
    Term(Term),
    /// The other way round.
    Not(Box<Self>),
    /// All of them; two at least.
    And(Vec<Self>),
    /// One of them; two at least.
    Or(Vec<Self>),
}

impl Query {
    /// Whether a term satisfies something, anywhere within.
    pub fn any(&self, says: &impl Fn(&Term) -> bool) -> bool {
        match self {
            Self::Term(term) => says(term),
            Self::Not(one) => one.any(says),
            Self::And(all) | Self::Or(all) => all.iter().any(|one| one.any(says)),
        }
    }

    /// Whether what commands wrote must be read for it.
    #[must_use]
    pub fn reads_output(&self) -> bool {
        self.any(&|term| matches!(term, Term::Output(_)))
    }
}

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

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) => quoted(f, text),
            Self::Glob(glob) => f.write_str(glob),
        }
    }
}

/// A time with all of its microseconds; one past every calendar as their number.
fn stamp(time: Time) -> String {
    let micros = i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_microsecond(micros)
        .map_or_else(|_| time.as_micros().to_string(), |stamp| stamp.to_string())
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Who(pattern) => write!(f, "who:{pattern}"),
            Self::Host(pattern) => write!(f, "host:{pattern}"),
            Self::Program(pattern) => write!(f, "program:{pattern}"),
            Self::Arg(pattern) => write!(f, "arg:{pattern}"),
            Self::Label(pattern) => write!(f, "label:{pattern}"),
            Self::Exit(first, last) if first == last => write!(f, "exit:{first}"),
            Self::Exit(first, last) => write!(f, "exit:{first}..{last}"),
            Self::Status(word) => write!(f, "status:{word}"),
            Self::Mode(word) => write!(f, "mode:{word}"),
            Self::Id(text) => write!(f, "id:{text}"),
            Self::From(time) => write!(f, "from:{}", stamp(*time)),
            Self::To(time) => write!(f, "to:{}", stamp(*time)),
            Self::Output(text) => {
                f.write_str("output:")?;
                quoted(f, text)
            }
        }
    }
}

impl Query {
    fn part(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Term(_) | Self::Not(_) => write!(f, "{self}"),
            Self::And(_) | Self::Or(_) => write!(f, "({self})"),
        }
    }

    fn joined(f: &mut fmt::Formatter<'_>, all: &[Self], word: &str) -> fmt::Result {
        for (at, one) in all.iter().enumerate() {
            if at > 0 {
                write!(f, " {word} ")?;
            }
            one.part(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Term(term) => write!(f, "{term}"),
            Self::Not(one) => {
                f.write_str("not ")?;
                one.part(f)
            }
            Self::And(all) => Self::joined(f, all, "and"),
            Self::Or(all) => Self::joined(f, all, "or"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text_and_nothing_else_does() {
        let glob = |glob: &str, text| Pattern::Glob(glob.to_owned()).fits(text);
        for (pattern, text) in [
            ("web-*", "web-1"),
            ("*", ""),
            ("*a*b*", "xxaxxbxx"),
            ("a*a", "aba"),
            ("web-1", "web-1"),
            ("*.sh", "x.sh.sh"),
        ] {
            assert!(glob(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("web-*", "db-1"),
            ("a*a", "a"),
            ("web-1", "web-12"),
            ("*b*a", "ab"),
            ("?", "a"),
            ("a.c", "abc"),
        ] {
            assert!(!glob(pattern, text), "{pattern} {text}");
        }
        assert!(!Pattern::Exact("web-*".to_owned()).fits("web-1"));
    }
}
