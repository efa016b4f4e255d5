//! `[[action]]`: what a host does under a name, its words filled in from a request's arguments.
//!
//! It owns the templates and their filling. An argument takes the place of its mark inside one
//! word and never becomes two: no shell reads it, and nothing is split. It must not open files.

use std::fmt;

use countersign_protocol::name::{OsUser, RuleName};

use super::confine::Confine;
use super::patterns::Pattern;

/// Most arguments of an action: the marks are `{1}` to `{9}`.
pub const MAX_ARGUMENTS: usize = 9;

/// Most steps of an action; what is longer is a script, and a program of its own.
pub const MAX_STEPS: usize = 32;

/// Most bytes of all words of all steps together, filled in: as much as Linux takes for one program,
/// and less than a blob even where JSON has to escape each of them.
pub(super) const MAX_FILLED_BYTES: usize = 512 << 10;

/// Why a text is no word of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WordError {
    /// A brace that begins or ends no mark.
    #[error("{{1}} to {{9}} stand for the arguments; write {{{{ and }}}} for the characters")]
    Brace,
    /// A mark for an argument that the action does not have.
    #[error("{{{0}}} stands for an argument that args does not have")]
    NoSuchArgument(usize),
    /// A mark in the program's place.
    #[error("a step begins with its program, written out: no argument may choose it")]
    Program,
    /// NUL, newline or another control character.
    #[error("a word of a step has no control characters")]
    Control,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    /// From 0.
    Argument(usize),
}

/// A word of a step: text and marks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    parts: Vec<Part>,
}

impl Word {
    /// Parses text with `{1}` to `{9}` for the first so many `arguments`, and `{{` and `}}` for
    /// braces.
    ///
    /// # Errors
    /// What is wrong, and what would be right.
    pub fn parse(text: &str, arguments: usize) -> Result<Self, WordError> {
        if text.contains(char::is_control) {
            return Err(WordError::Control);
        }
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut chars = text.chars().peekable();
        while let Some(next) = chars.next() {
            match next {
                '{' | '}' if chars.peek() == Some(&next) => {
                    chars.next();
                    plain.push(next);
                }
                '{' => {
                    let digit = chars.next().and_then(|digit| digit.to_digit(10));
                    let (Some(number @ 1..), Some('}')) = (digit, chars.next()) else {
                        return Err(WordError::Brace);
                    };
                    let number = usize::try_from(number).map_err(|_| WordError::Brace)?;
                    if number > arguments {
                        return Err(WordError::NoSuchArgument(number));
                    }
                    parts.push(Part::Text(std::mem::take(&mut plain)));
                    parts.push(Part::Argument(number.saturating_sub(1)));
                }
                '}' => return Err(WordError::Brace),
                other => plain.push(other),
            }
        }
        parts.push(Part::Text(plain));
        parts.retain(|part| *part != Part::Text(String::new()));
        Ok(Self { parts })
    }

    /// Whether the arguments made of this word what its template does not say: an option, or a way
    /// up (`..`). Each of them may be harmless by itself, as a `.` behind another is.
    fn is_bent(&self, filled: &str) -> bool {
        let plain = self.fill(&[]);
        let climbs = |text: &str| text.split('/').any(|part| part == "..");
        let is_option = |text: &str| text.starts_with('-');
        let begins_with_mark = matches!(self.parts.first(), Some(Part::Argument(_)));
        let is_whole = self.parts.len() == 1;
        (climbs(filled) && !climbs(&plain) && !is_whole)
            // An option as a whole argument is what its pattern allows.
            || (begins_with_mark && !is_whole && is_option(filled))
    }

    /// Whether the word has a mark for this argument, from 0.
    #[must_use]
    pub fn uses(&self, argument: usize) -> bool {
        self.parts.contains(&Part::Argument(argument))
    }

    /// The word with the arguments in their places.
    pub(super) fn fill(&self, arguments: &[String]) -> String {
        let text = self.parts.iter().map(|part| match part {
            Part::Text(text) => text.as_str(),
            Part::Argument(number) => arguments.get(*number).map_or("", String::as_str),
        });
        text.collect()
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(text),
            Part::Argument(number) => write!(f, "{{{}}}", number.saturating_add(1)),
        })
    }
}

/// The template of one command: a program written out, then words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepTemplate {
    program: String,
    words: Vec<Word>,
}

impl StepTemplate {
    /// Takes the parsed words of a step, its program first.
    ///
    /// # Errors
    /// There is no program, or a mark in its place.
    pub fn new(words: Vec<Word>) -> Result<Self, WordError> {
        let mut words = words.into_iter();
        let program = words.next().map(|word| word.parts).unwrap_or_default();
        match <[Part; 1]>::try_from(program) {
            Ok([Part::Text(program)]) => Ok(Self {
                program,
                words: words.collect(),
            }),
            Ok([Part::Argument(_)]) | Err(_) => Err(WordError::Program),
        }
    }

    /// The program, as it is written.
    #[must_use]
    pub fn program(&self) -> &str {
        &self.program
    }

    /// Whether a word has a mark for this argument, from 0.
    #[must_use]
    pub fn uses(&self, argument: usize) -> bool {
        self.words.iter().any(|word| word.uses(argument))
    }

    /// All words, with the arguments in their places. None where these make of a word what its
    /// template does not say.
    pub(super) fn fill(&self, arguments: &[String]) -> Option<Vec<String>> {
        let words = self.words.iter().map(|word| {
            let filled = word.fill(arguments);
            (!word.is_bent(&filled)).then_some(filled)
        });
        std::iter::once(Some(self.program.clone()))
            .chain(words)
            .collect()
    }
}

impl fmt::Display for StepTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.program)?;
        self.words.iter().try_for_each(|word| write!(f, " {word}"))
    }
}

/// One `[[action]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// What requests call it, and refusals.
    pub name: RuleName,
    /// One for each argument; a request brings exactly so many.
    pub args: Vec<Pattern>,
    /// What runs, in turn; never empty.
    pub steps: Vec<StepTemplate>,
    /// Where it runs: `/` when left out. A request names no other directory.
    pub cwd: Option<String>,
    /// Whether a request may set variables, those that the host allows.
    pub env: bool,
    /// Whether a request may bring standard input.
    pub stdin: bool,
    /// Users that it may run as; when left out, the one who runs what names no user.
    pub users: Option<Vec<OsUser>>,
    /// Demanded people, when that is more than the host's own number.
    pub min_approvals: Option<u32>,
    /// The longest timeout, in seconds, that a request may name.
    pub timeout_s: Option<u64>,
    /// What holds each step, over the host's own defaults.
    pub confine: Confine,
    /// Why it is there, for people.
    pub reason: Option<String>,
}

impl Action {
    /// Says why these arguments are not the action's; nothing if they are.
    pub(super) fn mistake(&self, arguments: &[String]) -> Option<String> {
        if arguments.len() != self.args.len() {
            return Some(format!(
                "the action takes {} arguments and was given {}",
                self.args.len(),
                arguments.len()
            ));
        }
        let mut pairs = self.args.iter().zip(arguments).enumerate();
        let (at, (pattern, _)) = pairs.find(|(_, (pattern, text))| !pattern.allows(text))?;
        Some(format!(
            "argument {} is not one that the action takes: {}",
            at.saturating_add(1),
            pattern.as_str()
        ))
    }
}
