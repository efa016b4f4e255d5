//! The text of a search: `host:web-* and (exit:1..255 or not status:completed)`.
//!
//! ```text
//! query = all { "or" all }          all = one { [ "and" ] one }
//! one   = "not" one | "(" query ")" | KEY ":" VALUE
//! VALUE = word without space, quote, bracket | '"' text with \" and \\ '"'
//! ```

use countersign_protocol::lifecycle::{CommandStatus, ExecutionStatus};
use countersign_protocol::name::Time;
use countersign_protocol::search::{MAX_DEPTH, MAX_QUERY_BYTES, MAX_TERMS, Pattern, Query, Term};
use countersign_protocol::short;

use super::token::{Token, tokens};

/// Fewest hex digits that name a command.
const MIN_ID: usize = 8;

/// What every key means, for whoever mistypes one.
const KEYS: &str = "who, host, program, arg, exit, label, status, from, to, output, mode, id";

/// Why a text is no query.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// Too long.
    #[error("a query has at most {MAX_QUERY_BYTES} bytes")]
    Long,
    /// Too deep.
    #[error("a query nests at most {MAX_DEPTH} brackets and nots")]
    Deep,
    /// Too many terms.
    #[error("a query has at most {MAX_TERMS} terms")]
    Terms,
    /// Nothing where a term should be.
    #[error("at character {at}: a term such as host:web-1, `not` or `(` is missing here")]
    Missing {
        /// Where, from 1.
        at: usize,
    },
    /// A bracket that has no partner.
    #[error("at character {at}: this bracket has no partner")]
    Bracket {
        /// Where, from 1.
        at: usize,
    },
    /// Quotes that do not close.
    #[error("at character {at}: these quotes do not close")]
    Quote {
        /// Where, from 1.
        at: usize,
    },
    /// A term that says nothing of a host.
    #[error(
        "a host is chosen by its name and its labels: web-1, web-*, group=web.dev, host:, label:"
    )]
    NoChoice,
    /// A word without a key, or with an unknown one.
    #[error("at character {at}: {word:?} is no term; a term is KEY:VALUE, with a key of {KEYS}")]
    Key {
        /// Where, from 1.
        at: usize,
        /// What stands there.
        word: String,
    },
    /// A value that its key does not take.
    #[error("at character {at}: {key}: takes {takes}, not {value:?}")]
    Value {
        /// Where, from 1.
        at: usize,
        /// The key.
        key: String,
        /// What it takes.
        takes: String,
        /// What was given.
        value: String,
    },
}

/// Reads the text of a query; `time` reads times.
///
/// # Errors
/// See [`QueryError`].
pub fn parse(text: &str, time: impl Fn(&str) -> Result<Time, String>) -> Result<Query, QueryError> {
    read(text, false, time)
}

/// Reads which hosts are meant: `group=web.dev and not (web-3 or site=fra)`. A word without a key is a
/// label if it has a `=`, else a host.
///
/// # Errors
/// See [`QueryError`]; a term of anything but hosts and labels too.
pub fn parse_choice(text: &str) -> Result<Query, QueryError> {
    let query = read(text, true, |_time| {
        Err("no time: a host is chosen by its name and labels".to_owned())
    })?;
    let is_foreign = |term: &Term| !matches!(term, Term::Host(_) | Term::Label(_));
    if query.any(&is_foreign) {
        return Err(QueryError::NoChoice);
    }
    Ok(query)
}

fn read(
    text: &str,
    bare: bool,
    time: impl Fn(&str) -> Result<Time, String>,
) -> Result<Query, QueryError> {
    if text.len() > MAX_QUERY_BYTES {
        return Err(QueryError::Long);
    }
    let tokens = tokens(text, bare)?;
    let terms = tokens
        .iter()
        .filter(|(_, token)| matches!(token, Token::Term { .. }));
    if terms.count() > MAX_TERMS {
        return Err(QueryError::Terms);
    }
    let mut parser = Parser {
        tokens: tokens.into_iter().peekable(),
        end: text.chars().count() + 1,
        time,
    };
    let query = parser.query(0)?;
    match parser.tokens.next() {
        None => Ok(query),
        Some((at, _close)) => Err(QueryError::Bracket { at }),
    }
}

struct Parser<I: Iterator<Item = (usize, Token)>, T> {
    tokens: std::iter::Peekable<I>,
    /// One past the last character.
    end: usize,
    time: T,
}

impl<I: Iterator<Item = (usize, Token)>, T: Fn(&str) -> Result<Time, String>> Parser<I, T> {
    fn takes(&mut self, wanted: &Token) -> bool {
        self.tokens.next_if(|(_, token)| token == wanted).is_some()
    }

    fn query(&mut self, depth: usize) -> Result<Query, QueryError> {
        let mut all = vec![self.all(depth)?];
        while self.takes(&Token::Or) {
            all.push(self.all(depth)?);
        }
        Ok(joined(all, Query::Or))
    }

    fn all(&mut self, depth: usize) -> Result<Query, QueryError> {
        let mut all = vec![self.one(depth)?];
        loop {
            let ends = matches!(
                self.tokens.peek(),
                None | Some((_, Token::Or | Token::Close))
            );
            if ends {
                return Ok(joined(all, Query::And));
            }
            // Two terms side by side mean both.
            self.takes(&Token::And);
            all.push(self.one(depth)?);
        }
    }

    fn one(&mut self, depth: usize) -> Result<Query, QueryError> {
        if depth > MAX_DEPTH {
            return Err(QueryError::Deep);
        }
        match self.tokens.next() {
            Some((_, Token::Not)) => Ok(Query::Not(Box::new(self.one(depth + 1)?))),
            Some((at, Token::Open)) => {
                let query = self.query(depth + 1)?;
                if self.takes(&Token::Close) {
                    Ok(query)
                } else {
                    Err(QueryError::Bracket { at })
                }
            }
            Some((
                at,
                Token::Term {
                    key,
                    value,
                    is_quoted,
                },
            )) => term(at, &key, value, is_quoted, &self.time).map(Query::Term),
            Some((at, Token::And | Token::Or | Token::Close)) => Err(QueryError::Missing { at }),
            None => Err(QueryError::Missing { at: self.end }),
        }
    }
}

/// One alone needs nothing around it.
fn joined(mut all: Vec<Query>, join: impl FnOnce(Vec<Query>) -> Query) -> Query {
    match (all.len(), all.pop()) {
        (1, Some(one)) => one,
        (_, last) => {
            all.extend(last);
            join(all)
        }
    }
}

fn term(
    at: usize,
    key: &str,
    value: String,
    is_quoted: bool,
    time: impl Fn(&str) -> Result<Time, String>,
) -> Result<Term, QueryError> {
    let wrong = |takes: String, value: String| QueryError::Value {
        at,
        key: key.to_owned(),
        takes,
        value,
    };
    if value.is_empty() && !is_quoted {
        return Err(wrong("a value; \"\" for an empty one".to_owned(), value));
    }
    let pattern = |value: String| {
        if is_quoted {
            Pattern::Exact(value)
        } else {
            Pattern::Glob(value)
        }
    };
    match key {
        "who" => Ok(Term::Who(pattern(value))),
        "host" => Ok(Term::Host(pattern(value))),
        "program" => Ok(Term::Program(pattern(value))),
        "arg" => Ok(Term::Arg(pattern(value))),
        "label" => Ok(Term::Label(pattern(value))),
        "output" if value.is_empty() => Err(wrong("some text".to_owned(), value)),
        "output" => Ok(Term::Output(value)),
        "exit" => exit(&value)
            .ok_or_else(|| wrong("0 to 255, or a range such as 1..255".to_owned(), value)),
        "status" if statuses().any(|word| word == value) => Ok(Term::Status(value)),
        "status" => Err(wrong(format!("one of {}", words(statuses())), value)),
        "mode" if MODES.contains(&value.as_str()) => Ok(Term::Mode(value)),
        "mode" => Err(wrong(format!("one of {}", words(MODES.into_iter())), value)),
        "id" if is_id(&value) => Ok(Term::Id(value)),
        "id" => Err(wrong(
            format!("XXXX-XXXX, or {MIN_ID} to 64 hex digits"),
            value,
        )),
        "from" => time(&value)
            .map(Term::From)
            .map_err(|why| wrong(why, value)),
        "to" => time(&value).map(Term::To).map_err(|why| wrong(why, value)),
        other => Err(QueryError::Key {
            at,
            word: format!("{other}:"),
        }),
    }
}

/// The words for how a command is run.
const MODES: [&str; 3] = ["exec", "shell", "action"];

/// Every status word, of commands and of their hosts' parts, each once.
fn statuses() -> impl Iterator<Item = &'static str> {
    let of_parts = [
        ExecutionStatus::Waiting,
        ExecutionStatus::Running,
        ExecutionStatus::Completed,
        ExecutionStatus::Refused,
        ExecutionStatus::Skipped,
        ExecutionStatus::Cancelled,
        ExecutionStatus::Lost,
    ];
    let of_commands = CommandStatus::ALL.iter().map(|status| status.as_str());
    let words: std::collections::BTreeSet<_> = of_commands
        .chain(of_parts.into_iter().map(ExecutionStatus::as_str))
        .collect();
    words.into_iter()
}

fn words(words: impl Iterator<Item = &'static str>) -> String {
    words.collect::<Vec<_>>().join(", ")
}

fn exit(value: &str) -> Option<Term> {
    let (first, last) = match value.split_once("..") {
        Some((first, last)) => (first.parse().ok()?, last.parse().ok()?),
        None => {
            let code = value.parse().ok()?;
            (code, code)
        }
    };
    (first <= last).then_some(Term::Exit(first, last))
}

fn is_id(value: &str) -> bool {
    let hex = |c: char| matches!(c, '0'..='9' | 'a'..='f');
    let is_prefix = (MIN_ID..=64).contains(&value.len()) && value.chars().all(hex);
    is_prefix || (short::parse(value).is_some() && !value.contains(char::is_whitespace))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::audit::Written;

    fn time(text: &str) -> Result<Time, String> {
        let stamp: jiff::Timestamp = text.parse().map_err(|_| "a time".to_owned())?;
        let micros = u64::try_from(stamp.as_microsecond()).ok();
        micros
            .and_then(Time::from_micros)
            .ok_or_else(|| "a time".to_owned())
    }

    fn read(text: &str) -> Result<Query, QueryError> {
        parse(text, time)
    }

    #[test]
    fn a_choice_of_hosts_needs_no_keys_and_takes_no_others() {
        for (text, printed) in [
            ("web-1", "host:web-1"),
            (
                "group=web.dev not web-*",
                "label:group=web.dev and not host:web-*",
            ),
            (
                "(site=fra or label:a=b) host:x",
                "(label:site=fra or label:a=b) and host:x",
            ),
        ] {
            let choice = parse_choice(text).unwrap();
            assert_eq!(Written(&choice).to_string(), printed, "{text}");
        }
        for text in [
            "who:bob",
            "exit:1",
            "from:today",
            "web-1 or status:lost",
            "",
            "not",
        ] {
            assert!(parse_choice(text).is_err(), "{text}");
        }
    }

    #[test]
    fn and_binds_closer_than_or_and_side_by_side_is_and() {
        for (text, printed) in [
            ("host:a who:b", "host:a and who:b"),
            ("host:a or who:b and exit:1", "host:a or (who:b and exit:1)"),
            (
                "( host:a or who:b ) exit:1..2",
                "(host:a or who:b) and exit:1..2",
            ),
            ("not not (status:lost)", "not not status:lost"),
            ("not (host:a or host:b)", "not (host:a or host:b)"),
            (r#"arg:"a \"b\" \\ (c)""#, r#"arg:"a \"b\" \\ (c)""#),
            ("output:not", r#"output:"not""#),
            ("from:2026-01-31T00:00:00Z", "from:2026-01-31T00:00:00Z"),
            ("id:7k3m-9qpx or mode:shell", "id:7k3m-9qpx or mode:shell"),
            ("label:env=prod", "label:env=prod"),
            ("arg:\"\"", "arg:\"\""),
        ] {
            assert_eq!(Written(&read(text).unwrap()).to_string(), printed, "{text}");
        }
    }

    #[test]
    fn what_is_no_query_is_told_where_and_why() {
        for (text, said) in [
            ("", "at character 1: a term"),
            ("host:a and", "at character 11: a term"),
            ("host:a or or who:b", "at character 11: a term"),
            ("(host:a", "at character 1: this bracket"),
            ("host:a)", "at character 7: this bracket"),
            ("web-1", "\"web-1\" is no term"),
            ("hots:a", "a key of who, host"),
            ("arg:\"a", "at character 5: these quotes"),
            ("exit:256", "takes 0 to 255"),
            ("exit:3..1", "takes 0 to 255"),
            ("status:done", "one of authorized"),
            ("mode:x", "one of exec, shell, action"),
            ("id:abc", "takes XXXX-XXXX"),
            ("host:", "takes a value"),
            ("output:\"\"", "takes some text"),
            ("arg:a\"b\"", "is no term"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn size_depth_and_number_of_terms_are_bounded() {
        let deep = |levels: usize| format!("{}host:a{}", "(".repeat(levels), ")".repeat(levels));
        assert!(read(&deep(MAX_DEPTH)).is_ok());
        assert_eq!(read(&deep(MAX_DEPTH + 1)), Err(QueryError::Deep));
        assert_eq!(read(&"not ".repeat(900)), Err(QueryError::Deep));
        assert!(read(&"host:a ".repeat(MAX_TERMS)).is_ok());
        assert_eq!(
            read(&"host:a ".repeat(MAX_TERMS + 1)),
            Err(QueryError::Terms)
        );
        assert_eq!(
            read(&" ".repeat(MAX_QUERY_BYTES + 1)),
            Err(QueryError::Long)
        );
    }

    fn pattern() -> impl Strategy<Value = Pattern> {
        prop_oneof![
            ".{0,12}".prop_map(Pattern::Exact),
            "[^\\s()\"]{1,12}".prop_map(Pattern::Glob),
        ]
    }

    fn any_term() -> impl Strategy<Value = Term> {
        let at = || (0..4_000_000_000_000_000_u64).prop_filter_map("a time", Time::from_micros);
        prop_oneof![
            pattern().prop_map(Term::Who),
            pattern().prop_map(Term::Host),
            pattern().prop_map(Term::Program),
            pattern().prop_map(Term::Arg),
            pattern().prop_map(Term::Label),
            (any::<u8>(), any::<u8>()).prop_map(|(a, b)| Term::Exit(a.min(b), a.max(b))),
            proptest::sample::select(statuses().collect::<Vec<_>>())
                .prop_map(|word| Term::Status(word.to_owned())),
            proptest::sample::select(MODES.to_vec()).prop_map(|word| Term::Mode(word.to_owned())),
            "[0-9a-f]{8,64}".prop_map(Term::Id),
            ".{1,12}".prop_map(Term::Output),
            at().prop_map(Term::From),
            at().prop_map(Term::To),
        ]
    }

    fn any_query() -> impl Strategy<Value = Query> {
        any_term()
            .prop_map(Query::Term)
            .prop_recursive(5, 24, 4, |inner| {
                prop_oneof![
                    inner.clone().prop_map(|one| Query::Not(Box::new(one))),
                    proptest::collection::vec(inner.clone(), 2..4).prop_map(Query::And),
                    proptest::collection::vec(inner, 2..4).prop_map(Query::Or),
                ]
            })
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back_as_the_same(query in any_query()) {
            let text = Written(&query).to_string();
            prop_assert_eq!(read(&text), Ok(query), "{}", text);
        }

        #[test]
        fn any_text_is_a_query_that_prints_and_reads_back_or_an_error(
            text in "([a-z\"\\\\*(): ]|and|or|not|host:|exit:1|\u{e9}){0,40}"
        ) {
            if let Ok(query) = read(&text) {
                prop_assert_eq!(read(&Written(&query).to_string()), Ok(query));
            }
        }
    }
}
