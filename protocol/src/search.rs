//! A search of the log: terms, joined by and, or, not; and what a server answers to it.
//!
//! Shapes and bounds only. A server finds with it in its indexes, which prove nothing; a client
//! judges each thing found again, by the same terms, from proven entries.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::name::Time;
use crate::short;

/// Longest text of a query, and of all texts within one: more is no question that a person asks.
pub const MAX_QUERY_BYTES: usize = 4096;

/// Deepest nesting of brackets and nots: each is a step of recursion.
pub const MAX_DEPTH: usize = 32;

/// Most terms: each is tried on each row.
pub const MAX_TERMS: usize = 128;

/// Most things in one page of an answer: each is a stream to fetch.
pub const MAX_HITS: u64 = 1000;

/// Text to compare with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(no_recursion))]
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

/// Why a query is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QueryRefusal {
    /// Its texts are too long together.
    #[error("the texts of a query have at most {MAX_QUERY_BYTES} bytes together")]
    Long,
    /// Too deep.
    #[error("a query nests at most {MAX_DEPTH} brackets and nots")]
    Deep,
    /// Too many terms.
    #[error("a query has at most {MAX_TERMS} terms")]
    Terms,
    /// An and or an or of nothing.
    #[error("an and, and an or, joins something")]
    Empty,
    /// A text that no database holds.
    #[error("a text with a zero byte is found by nobody; search the whole log for it")]
    Zero,
    /// No id.
    #[error("an id is 64 hex digits, at least the first 8 of them, or the short form XXXX-XXXX")]
    Id,
}

impl Query {
    /// Checks the bounds of a query that came from elsewhere.
    ///
    /// # Errors
    /// See [`QueryRefusal`].
    pub fn check(&self) -> Result<(), QueryRefusal> {
        let (mut terms, mut bytes) = (0, 0);
        self.count(0, &mut terms, &mut bytes)
    }

    fn count(
        &self,
        depth: usize,
        terms: &mut usize,
        bytes: &mut usize,
    ) -> Result<(), QueryRefusal> {
        // A step past the depth: side by side is a join that takes no bracket.
        if depth > 2 * MAX_DEPTH + 1 {
            return Err(QueryRefusal::Deep);
        }
        match self {
            Self::Term(term) => {
                *terms += 1;
                let text = term.text();
                *bytes += text.len();
                if *terms > MAX_TERMS {
                    return Err(QueryRefusal::Terms);
                }
                if *bytes > MAX_QUERY_BYTES {
                    return Err(QueryRefusal::Long);
                }
                if text.contains('\0') {
                    return Err(QueryRefusal::Zero);
                }
                if matches!(term, Term::Id(_)) && id_bounds(text).is_none() {
                    return Err(QueryRefusal::Id);
                }
                Ok(())
            }
            Self::Not(one) => one.count(depth + 1, terms, bytes),
            Self::And(all) | Self::Or(all) if all.is_empty() => Err(QueryRefusal::Empty),
            Self::And(all) | Self::Or(all) => all
                .iter()
                .try_for_each(|one| one.count(depth + 1, terms, bytes)),
        }
    }
}

impl Pattern {
    /// The text, stars and all.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Exact(text) | Self::Glob(text) => text,
        }
    }
}

impl Term {
    fn text(&self) -> &str {
        match self {
            Self::Who(pattern)
            | Self::Host(pattern)
            | Self::Program(pattern)
            | Self::Arg(pattern)
            | Self::Label(pattern) => pattern.text(),
            Self::Status(text) | Self::Output(text) | Self::Mode(text) | Self::Id(text) => text,
            Self::Exit(..) | Self::From(_) | Self::To(_) => "",
        }
    }
}

/// Fewest hex digits that stand for a command.
const FEWEST_DIGITS: usize = 8;

/// The ids that begin as a text says: whole, its first digits, or the short form. Both ends are meant.
#[must_use]
pub fn id_bounds(text: &str) -> Option<([u8; 32], [u8; 32])> {
    let spread = |bytes: &[u8], odd: Option<u8>| {
        let (mut low, mut high) = ([0; 32], [0xff; 32]);
        low.get_mut(..bytes.len())?.copy_from_slice(bytes);
        high.get_mut(..bytes.len())?.copy_from_slice(bytes);
        if let Some(digit) = odd {
            *low.get_mut(bytes.len())? = digit << 4;
            *high.get_mut(bytes.len())? = digit << 4 | 0x0f;
        }
        Some((low, high))
    };
    let is_hex = (FEWEST_DIGITS..=64).contains(&text.len())
        && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    // Eight digits may be both; the short form is written with its hyphen then.
    if is_hex {
        let (even, odd) = text.split_at(text.len() / 2 * 2);
        let odd = (!odd.is_empty()).then(|| u8::from_str_radix(odd, 16).ok());
        let odd = match odd {
            Some(digit) => Some(digit?),
            None => None,
        };
        return spread(&hex::decode(even).ok()?, odd);
    }
    spread(&short::parse(text)?, None)
}

/// What is searched for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum SearchFor {
    /// Hosts' parts of commands that fit a query, in the order of the requests.
    Runs(Query),
    /// What ran on a host, in the order of the starts.
    Ran(Ran),
    /// Commands that were meant to run without approvals, in the order of the requests.
    BreakGlass {},
    /// Commands that had been asked for when the log was as long as `size` says, and may have had this
    /// status word then; newest first.
    Then {
        /// The status word; any when left out.
        status: Option<String>,
        /// Only those that may have waited for approvals, or have run, then.
        open: bool,
    },
}

/// What ran on a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Ran {
    /// The host.
    pub host: String,
    /// As this account: the name that was asked for, or the number that the host signed.
    pub user: Option<String>,
    /// Going on at that time or later, in microseconds.
    pub from_us: Option<u64>,
    /// Begun before that time, in microseconds.
    pub to_us: Option<u64>,
}

/// A search.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SearchRequest {
    /// What for.
    pub search: SearchFor,
    /// Only what was asked for when the log was so long.
    pub size: u64,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// At most so many; 200 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

/// Something that was found: the server's word, to be judged from its stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SearchHit {
    /// The command's id.
    pub command: String,
    /// The host, where parts of commands are searched for.
    pub host: Option<String>,
}

#[cfg(test)]
mod tests {
    use alloc::borrow::ToOwned as _;
    use alloc::vec;

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

    #[test]
    fn what_comes_from_elsewhere_is_bounded() {
        let host = || Query::Term(Term::Host(Pattern::Exact("a".to_owned())));
        let text = |text: &str| Query::Term(Term::Output(text.to_owned()));
        let deep =
            |levels: usize| (0..levels).fold(host(), |inner, _level| Query::Not(Box::new(inner)));
        assert_eq!(deep(MAX_DEPTH).check(), Ok(()));
        assert_eq!(deep(3 * MAX_DEPTH).check(), Err(QueryRefusal::Deep));
        assert_eq!(Query::Or(vec![host(); MAX_TERMS]).check(), Ok(()));
        let many = Query::Or(vec![host(); MAX_TERMS + 1]);
        assert_eq!(many.check(), Err(QueryRefusal::Terms));
        assert_eq!(Query::And(vec![]).check(), Err(QueryRefusal::Empty));
        assert_eq!(text("a\0b").check(), Err(QueryRefusal::Zero));
        let long = text(&"x".repeat(MAX_QUERY_BYTES + 1));
        assert_eq!(long.check(), Err(QueryRefusal::Long));
        let id = Query::Term(Term::Id("abc".to_owned()));
        assert_eq!(id.check(), Err(QueryRefusal::Id));
    }

    #[test]
    fn hex_digits_bound_the_ids_that_begin_with_them() {
        let (low, high) = id_bounds("0123456789a").unwrap();
        assert_eq!(low[..6], [0x01, 0x23, 0x45, 0x67, 0x89, 0xa0]);
        assert_eq!(high[..6], [0x01, 0x23, 0x45, 0x67, 0x89, 0xaf]);
        assert_eq!((low[6], high[31]), (0, 0xff));
    }

    #[test]
    fn too_few_digits_name_nothing() {
        assert!(id_bounds("0123456").is_none());
        assert!(id_bounds("").is_none());
    }

    #[test]
    fn a_short_form_bounds_its_forty_bits() {
        let (low, high) = id_bounds("0123-4567").unwrap();
        assert_eq!(low[..5], high[..5]);
        assert_eq!((low[5], high[5]), (0, 0xff));
    }
}
