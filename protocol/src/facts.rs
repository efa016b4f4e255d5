//! What a host says of itself, and how arguments use it: `@fact.hostname`. PROTOCOL 6.
//!
//! An agent signs its facts ([`AgentFacts`](crate::event::AgentFacts)). A request that uses some writes
//! into each host's line of the targets what they are there, so what every host runs is frozen before
//! anybody approves. [`CommandSpec::for_host`] is the one place that puts them into words.

use alloc::borrow::Cow;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::canonical::{self, CanonicalError};
use crate::command::{CommandError, CommandSpec, Mode};
use crate::name::{AgentName, OsUser, parsed_text};
use crate::rights::Rights;
use crate::target::{TargetLine, TargetList};

/// What stands before a fact's name in a word.
pub const MARK: &str = "@fact.";

/// Longest name of a fact: `interface.` and Linux's longest name of an interface take 25 of them.
pub const MAX_NAME_BYTES: usize = 64;

/// Longest value: a fully qualified host name has 253 at most.
pub const MAX_VALUE_BYTES: usize = 256;

/// Most facts of a host. A host with some dozens of interfaces has room.
pub const MAX_FACTS: usize = 128;

/// Largest document of facts. Everybody who reads rights reads those of all hosts, so it is far less than
/// the other limits would allow.
pub const MAX_DOCUMENT_BYTES: usize = 8 * 1024;

/// Most bytes that a request's different command lines may come to. Whoever judges or shows the request
/// holds them all: 10,000 hosts have 1.6 KiB each, and nobody's long argument becomes gigabytes.
pub const MAX_RUNS_BYTES: usize = 16 * 1024 * 1024;

/// What a word takes beside its bytes: a `String` and what it lies in.
const WORD_BYTES: usize = 32;

/// Where facts do not stand: there they would choose what runs, and as whom.
const NAME: &str = "the name of a program or an action";
/// The same: a shell would read a value as part of its script.
const SCRIPT: &str = "the script of a shell";
/// The same.
const DIRECTORY: &str = "the working directory";
/// The same.
const ACCOUNT: &str = "the name of the account";

/// Why something is no fact, or no document of facts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FactsError {
    /// The document is not canonical or not of this shape.
    #[error(transparent)]
    Document(#[from] CanonicalError),
    /// Not a name.
    #[error("a fact's name is 1 to 64 characters of a-z 0-9 . _ - and begins with a letter")]
    Name,
    /// Not a value.
    #[error(
        "a fact's value is 1 to 256 characters of A-Z a-z 0-9 . _ : / + = , - and does not begin with '-'"
    )]
    Value,
    /// Too many, too much, unsorted, or one twice.
    #[error("facts are 128 at most and 8 KiB together, sorted by name, each once")]
    Limit,
}

/// The name of a fact: `hostname`, `interface.eth0`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct FactName(String);

const fn is_of_names(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-')
}

impl FromStr for FactName {
    type Err = FactsError;

    fn from_str(text: &str) -> Result<Self, FactsError> {
        let begins = text.as_bytes().first().is_some_and(u8::is_ascii_lowercase);
        if begins && text.len() <= MAX_NAME_BYTES && text.bytes().all(is_of_names) {
            Ok(Self(text.to_string()))
        } else {
            Err(FactsError::Name)
        }
    }
}

/// The value of a fact. No blanks and no quotes, so that it reads the same everywhere; not with a `-` in
/// front, so that a host cannot make an option of an argument; and no `@`, which programs read files by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct FactValue(String);

impl FromStr for FactValue {
    type Err = FactsError;

    fn from_str(text: &str) -> Result<Self, FactsError> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || b"._:/+=,-".contains(&b);
        let fits = (1..=MAX_VALUE_BYTES).contains(&text.len()) && text.bytes().all(legal);
        if fits && !text.starts_with('-') {
            Ok(Self(text.to_string()))
        } else {
            Err(FactsError::Value)
        }
    }
}

parsed_text!(FactName);
parsed_text!(FactValue);

/// Facts by name. As JSON an array of `[name, value]`, because names have points in them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Facts(BTreeMap<FactName, FactValue>);

impl Facts {
    /// Parses the document behind [`AgentFacts::facts`](crate::event::AgentFacts).
    ///
    /// # Errors
    /// Not canonical, not sorted, or outside a limit.
    pub fn parse(document: &[u8]) -> Result<Self, FactsError> {
        Ok(canonical::from_document(document, MAX_DOCUMENT_BYTES)?)
    }

    /// The document's bytes.
    ///
    /// # Errors
    /// More than a document may hold.
    pub fn to_document(&self) -> Result<Vec<u8>, FactsError> {
        let bytes = canonical::to_vec(self)?;
        if bytes.len() > MAX_DOCUMENT_BYTES {
            return Err(FactsError::Limit);
        }
        Ok(bytes)
    }

    /// Adds a fact or replaces its value, if there is room. Says whether it is in.
    pub fn insert(&mut self, name: FactName, value: FactValue) -> bool {
        let before = self.0.insert(name.clone(), value);
        let fits = self.0.len() <= MAX_FACTS && self.to_document().is_ok();
        if !fits {
            match before {
                Some(before) => drop(self.0.insert(name, before)),
                None => drop(self.0.remove(&name)),
            }
        }
        fits
    }

    /// A fact's value.
    #[must_use]
    pub fn get(&self, name: &FactName) -> Option<&FactValue> {
        self.0.get(name)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&FactName, &FactValue)> {
        self.0.iter()
    }

    /// The first of them that `now` does not have, or has with another value.
    #[must_use]
    pub fn first_other(&self, now: &Self) -> Option<(&FactName, &FactValue)> {
        self.iter()
            .find(|(name, value)| now.get(name) != Some(*value))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Facts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter())
    }
}

impl<'de> Deserialize<'de> for Facts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let pairs = Vec::<(FactName, FactValue)>::deserialize(deserializer)?;
        let sorted = pairs.windows(2).all(|pair| match pair {
            [before, after] => before.0 < after.0,
            _ => true,
        });
        if !sorted || pairs.len() > MAX_FACTS {
            return Err(de::Error::custom(FactsError::Limit));
        }
        Ok(Self(pairs.into_iter().collect()))
    }
}

/// Why a command cannot use facts as it does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UseError {
    /// Elsewhere than in an argument.
    #[error(
        "a fact of the host stands in {0}, and facts stand only in the arguments of a program or an action, and nowhere else; for the text itself write @fact.{{}}"
    )]
    Place(&'static str),
    /// What follows the mark is no name.
    #[error(
        "\"{0}\" names no fact: after @fact. comes a name of a-z 0-9 . _ - that begins with a letter (in braces where more text follows: @fact.{{hostname}}.example); for the text itself write @fact.{{}}"
    )]
    Name(String),
    /// A host's line lacks it.
    #[error(
        "the command uses the fact {fact} of {host}, and the host has signed none of this name"
    )]
    Missing {
        /// Whose.
        host: AgentName,
        /// Which.
        fact: FactName,
    },
    /// The host has signed no facts at all, with the key that counts.
    #[error(
        "the command uses facts of {0}, and the host has signed none: its agent is too old, or was not up since it was accepted"
    )]
    Unsigned(AgentName),
    /// What it signed is not at hand.
    #[error("the facts that {0} has signed are not at hand, so nobody can say what it would run")]
    Withheld(AgentName),
    /// A line has one that is not used.
    #[error(
        "the line of {host} in the targets has the fact {fact}, which the command does not use"
    )]
    Unused {
        /// Whose.
        host: AgentName,
        /// Which.
        fact: FactName,
    },
    /// All command lines together are too long.
    #[error(
        "with the facts of its hosts put in, the different command lines have more than {MAX_RUNS_BYTES} bytes together; ask for fewer hosts at once, or with fewer words"
    )]
    TooLong,
    /// With the values it is no command any more.
    #[error("with the facts of {host} put in, {source}")]
    Limit {
        /// Whose.
        host: AgentName,
        /// Why.
        source: CommandError,
    },
}

/// A piece of a word.
enum Part<'a> {
    Text(&'a str),
    Fact(FactName),
}

/// Takes a word apart.
fn parts(word: &str) -> Result<Vec<Part<'_>>, UseError> {
    let mut parts = Vec::new();
    let mut rest = word;
    while let Some((before, after)) = rest.split_once(MARK) {
        parts.push(Part::Text(before));
        if let Some(after) = after.strip_prefix("{}") {
            parts.push(Part::Text(MARK));
            rest = after;
            continue;
        }
        let (name, behind) = match after.strip_prefix('{') {
            Some(braced) => braced.split_once('}').unwrap_or(("", "")),
            None => {
                let end = after.bytes().position(|byte| !is_of_names(byte));
                after.split_at(end.unwrap_or(after.len()))
            }
        };
        let named = name.parse::<FactName>();
        parts.push(Part::Fact(
            named.map_err(|_| UseError::Name(word.to_string()))?,
        ));
        rest = behind;
    }
    parts.push(Part::Text(rest));
    Ok(parts)
}

/// A text in which no fact may stand, as it is meant: with [`MARK`] where it says `@fact.{}`.
///
/// # Errors
/// It names a fact; `place` says what it is.
pub fn literal<'a>(text: &'a str, place: &'static str) -> Result<Cow<'a, str>, UseError> {
    if !text.contains(MARK) {
        return Ok(Cow::Borrowed(text));
    }
    let mut plain = String::with_capacity(text.len());
    for part in parts(text)? {
        match part {
            Part::Text(text) => plain.push_str(text),
            Part::Fact(_) => return Err(UseError::Place(place)),
        }
    }
    Ok(Cow::Owned(plain))
}

impl CommandSpec {
    /// A command as somebody wrote it, as it is recorded, and the facts that it uses. One that uses none is
    /// recorded word for word, with `@fact.` where `@fact.{}` was written; one that does keeps its words,
    /// for the lines of its hosts to fill in.
    ///
    /// # Errors
    /// A fact that stands where none may, or a word that names none.
    pub fn recorded(mut self) -> Result<(Self, BTreeSet<FactName>), UseError> {
        if let Some(cwd) = &self.cwd {
            self.cwd = Some(literal(cwd, DIRECTORY)?.into_owned());
        }
        let (fixed, place) = match self.mode {
            Mode::Shell => (self.argv.len(), SCRIPT),
            Mode::Exec | Mode::Action => (1, NAME),
        };
        for word in self.argv.iter_mut().take(fixed) {
            *word = literal(word, place)?.into_owned();
        }
        let used = used(self.argv.iter().skip(fixed))?;
        if used.is_empty() {
            for word in self.argv.iter_mut().skip(fixed) {
                *word = literal(word, place)?.into_owned();
            }
        } else {
            // Beside facts nothing of it is read as text that only looks like one.
            self.facts_used()?;
        }
        Ok((self, used))
    }

    /// The facts that its arguments use, if lines carry facts at all.
    ///
    /// # Errors
    /// As [`CommandSpec::for_host`].
    pub fn facts_used(&self) -> Result<BTreeSet<FactName>, UseError> {
        let nowhere = |text: &str, place| {
            let none = !text.contains(MARK);
            none.then_some(()).ok_or(UseError::Place(place))
        };
        if self.mode == Mode::Shell {
            return Err(UseError::Place(SCRIPT));
        }
        nowhere(self.argv.first().map_or("", String::as_str), NAME)?;
        nowhere(self.cwd.as_deref().unwrap_or(""), DIRECTORY)?;
        nowhere(self.user.as_ref().map_or("", OsUser::as_str), ACCOUNT)?;
        used(self.argv.iter().skip(1))
    }

    /// What the host of this line runs: its own facts in the place of their names. Where lines carry none,
    /// every word means itself, whatever it looks like.
    ///
    /// # Errors
    /// The line has not exactly the facts that the arguments use, or they stand where none may.
    pub fn for_host(&self, line: &TargetLine) -> Result<Cow<'_, Self>, UseError> {
        let Some(facts) = &line.facts else {
            return Ok(Cow::Borrowed(self));
        };
        let host = || line.agent.clone();
        let used = self.facts_used()?;
        if let Some((fact, _)) = facts.iter().find(|(name, _)| !used.contains(*name)) {
            let (host, fact) = (host(), fact.clone());
            return Err(UseError::Unused { host, fact });
        }
        let mut filled = self.clone();
        for word in filled.argv.iter_mut().skip(1) {
            let mut text = String::with_capacity(word.len());
            for part in parts(word)? {
                match part {
                    Part::Text(plain) => text.push_str(plain),
                    Part::Fact(fact) => {
                        let value = facts.get(&fact);
                        let host = host();
                        let value = value.ok_or(UseError::Missing { host, fact })?;
                        text.push_str(value.as_str());
                    }
                }
            }
            *word = text;
        }
        let fits = filled.check();
        fits.map_err(|source| UseError::Limit {
            host: host(),
            source,
        })?;
        Ok(Cow::Owned(filled))
    }
}

fn used<'a>(words: impl Iterator<Item = &'a String>) -> Result<BTreeSet<FactName>, UseError> {
    let mut used = BTreeSet::new();
    for word in words {
        let names = parts(word)?.into_iter().filter_map(|part| match part {
            Part::Fact(name) => Some(name),
            Part::Text(_) => None,
        });
        used.extend(names);
    }
    Ok(used)
}

/// What the line of a host carries of the facts that a command uses: what the host has signed. Nothing
/// where the command uses none.
///
/// # Errors
/// The host has not signed one of them, or what it signed is not at hand.
pub fn of_host(
    used: &BTreeSet<FactName>,
    host: &AgentName,
    rights: &Rights,
) -> Result<Option<Facts>, UseError> {
    if used.is_empty() {
        return Ok(None);
    }
    let signed = rights
        .agent_record(host)
        .and_then(|record| record.facts.as_ref());
    let signed = signed.ok_or_else(|| UseError::Unsigned(host.clone()))?;
    let known = signed.facts.as_ref();
    let known = known.ok_or_else(|| UseError::Withheld(host.clone()))?;
    let mut own = Facts::default();
    for fact in used {
        let value = known.get(fact).ok_or_else(|| UseError::Missing {
            host: host.clone(),
            fact: fact.clone(),
        })?;
        own.0.insert(fact.clone(), value.clone());
    }
    Ok(Some(own))
}

/// What some hosts run, where hosts have facts of their own in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run<'a> {
    /// The words, with the facts put in.
    pub words: Vec<String>,
    /// The lines of the hosts that run them, in the order of their turns.
    pub lines: Vec<&'a TargetLine>,
}

/// What hosts really run, each different one once, by the first turn. Nothing where their lines have no
/// facts, and then all run the words as they are.
///
/// # Errors
/// As [`CommandSpec::for_host`], or they are too long together.
pub fn runs<'a>(spec: &CommandSpec, targets: &'a TargetList) -> Result<Vec<Run<'a>>, UseError> {
    let mut runs: Vec<Run<'a>> = Vec::new();
    let mut places: BTreeMap<&Facts, usize> = BTreeMap::new();
    // A command line has its directory too.
    let directory = spec.cwd.as_ref().map_or(0, String::len);
    let length = |words: &[String]| {
        let each = words.iter().map(|word| word.len() + WORD_BYTES);
        each.sum::<usize>() + directory
    };
    let template = length(&spec.argv);
    let mut bytes = 0;
    for (_, line) in targets.by_turn() {
        let Some(facts) = &line.facts else {
            return Ok(Vec::new());
        };
        if let Some(run) = places.get(facts).and_then(|at| runs.get_mut(*at)) {
            run.lines.push(line);
            continue;
        }
        let words = spec.for_host(line)?.into_owned().argv;
        // Where values are shorter than the names of their facts, reading it is what takes time.
        bytes += length(&words).max(template);
        if bytes > MAX_RUNS_BYTES {
            return Err(UseError::TooLong);
        }
        places.insert(facts, runs.len());
        runs.push(Run {
            words,
            lines: alloc::vec![line],
        });
    }
    Ok(runs)
}
