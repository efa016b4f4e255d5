//! Patterns for paths and arguments, anchored by construction: a pattern is the whole text.
//!
//! Literal text, `*`, `?`, `{a,b}` and `\` before any of these. Two readings, each on the safe side
//! of its use: [`Pattern::allows`] is narrow, [`Pattern::forbids`] is broad. It knows no regular
//! expressions, no files and no rules.

use std::str::Chars;

/// Longest pattern in characters: it bounds the work for one argument, and people read it.
pub const MAX_PATTERN_CHARS: usize = 512;

/// Most texts that the braces of one pattern may stand for; more belongs into several rules.
pub const MAX_ALTERNATIVES: usize = 64;

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Longer than [`MAX_PATTERN_CHARS`].
    #[error("a pattern has at most {MAX_PATTERN_CHARS} characters; write several rules")]
    Long,
    /// Braces multiply to more than [`MAX_ALTERNATIVES`].
    #[error("the braces stand for more than {MAX_ALTERNATIVES} texts; write several rules")]
    Alternatives,
    /// A newline, a tab or another control character.
    #[error("a pattern has no control characters, as no argument that has one is ever allowed")]
    Control,
    /// `**` inside a pattern.
    #[error(
        "** stands alone, as the last of args, for any further arguments; inside a pattern write *"
    )]
    Rest,
    /// Braces within braces, one that is never closed or opened, or one without a choice.
    #[error("braces are {{a,b}}: closed, not nested, with a comma; write \\{{ for the character")]
    Braces,
    /// A backslash before something that needs none, or at the end.
    #[error("a backslash stands before one of * ? {{ }} , \\ and nothing else")]
    Escape,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Literal(char),
    One,
    Many,
}

/// One of the texts that the braces stand for, still with its wildcards.
type Alternative = Vec<Token>;

/// A pattern, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    alternatives: Vec<Alternative>,
}

impl Pattern {
    /// Parses literal text with `*` (any run of characters, also none), `?` (any one character) and
    /// `{a,b}` (one of these).
    ///
    /// # Errors
    /// What is wrong, and what would be right.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text.chars().count() > MAX_PATTERN_CHARS {
            return Err(PatternError::Long);
        }
        if text.chars().any(char::is_control) {
            return Err(PatternError::Control);
        }
        let mut alternatives: Vec<Alternative> = vec![Vec::new()];
        let mut chars = text.chars();
        while let Some(next) = chars.next() {
            let choices = match next {
                '{' => choices(&mut chars)?,
                '}' => return Err(PatternError::Braces),
                other => vec![vec![token(other, &mut chars)?]],
            };
            alternatives = product(&alternatives, &choices)?;
        }
        let doubled = |pair: (&Token, &Token)| pair == (&Token::Many, &Token::Many);
        if alternatives
            .iter()
            .any(|tokens| tokens.iter().zip(tokens.iter().skip(1)).any(doubled))
        {
            return Err(PatternError::Rest);
        }
        let text = text.to_owned();
        Ok(Self { text, alternatives })
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The narrow reading, for what may run. Wildcards match neither `/` nor a control character,
    /// and write no `..`; an argument that starts with `-` matches only what starts with `-` itself.
    #[must_use]
    pub fn allows(&self, text: &str) -> bool {
        let climbs = text.split('/').any(|part| part == "..");
        let is_option = text.starts_with('-');
        self.alternatives.iter().any(|tokens| {
            let is_literal = tokens
                .iter()
                .all(|token| matches!(token, Token::Literal(_)));
            let is_for_options = tokens.first() == Some(&Token::Literal('-'));
            (is_literal || !climbs)
                && (is_for_options || !is_option)
                && matches(tokens, text, |c| c != '/' && !c.is_control())
        })
    }

    /// The broad reading, for what may not run: wildcards match every character.
    #[must_use]
    pub fn forbids(&self, text: &str) -> bool {
        self.alternatives
            .iter()
            .any(|tokens| matches(tokens, text, |_| true))
    }

    /// The broad reading of a file whose folder nobody knows: whether some folder before the name
    /// makes it a text that is forbidden.
    pub(super) fn forbids_somewhere(&self, name: &str) -> bool {
        let ends = |tokens: &Alternative| {
            let starts = tokens
                .iter()
                .enumerate()
                .filter_map(|(at, token)| match token {
                    Token::Literal('/') => tokens.get(at.saturating_add(1)..),
                    // It may stand for the folders and for the beginning of the name.
                    Token::Many => tokens.get(at..),
                    Token::Literal(_) | Token::One => None,
                });
            starts.into_iter().any(|rest| matches(rest, name, |_| true))
        };
        self.alternatives.iter().any(ends)
    }

    /// Whether all that it can match are absolute paths, or none has a `/` at all.
    pub(super) fn shape(&self) -> Shape {
        let slash = Token::Literal('/');
        if self
            .alternatives
            .iter()
            .all(|tokens| !tokens.contains(&slash))
        {
            Shape::Bare
        } else if self
            .alternatives
            .iter()
            .all(|tokens| tokens.first() == Some(&slash))
        {
            Shape::Absolute
        } else {
            Shape::Neither
        }
    }
}

/// What kind of path a pattern is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Begins with `/`.
    Absolute,
    /// Has no `/`.
    Bare,
    /// A relative path, or some of each.
    Neither,
}

fn token(first: char, rest: &mut Chars<'_>) -> Result<Token, PatternError> {
    Ok(match first {
        '*' => Token::Many,
        '?' => Token::One,
        '\\' => match rest.next() {
            Some(escaped @ ('*' | '?' | '{' | '}' | ',' | '\\')) => Token::Literal(escaped),
            Some(_) | None => return Err(PatternError::Escape),
        },
        literal => Token::Literal(literal),
    })
}

/// Reads up to the closing brace; the opening one is gone.
fn choices(chars: &mut Chars<'_>) -> Result<Vec<Alternative>, PatternError> {
    let mut done = Vec::new();
    let mut current = Vec::new();
    loop {
        match chars.next() {
            None | Some('{') => return Err(PatternError::Braces),
            Some(',') => done.push(std::mem::take(&mut current)),
            Some('}') if done.is_empty() => return Err(PatternError::Braces),
            Some('}') => {
                done.push(current);
                return Ok(done);
            }
            Some(other) => current.push(token(other, chars)?),
        }
    }
}

fn product(
    beginnings: &[Alternative],
    endings: &[Alternative],
) -> Result<Vec<Alternative>, PatternError> {
    if beginnings.len().saturating_mul(endings.len()) > MAX_ALTERNATIVES {
        return Err(PatternError::Alternatives);
    }
    let join = |beginning: &Alternative| {
        let beginning = beginning.clone();
        endings
            .iter()
            .map(move |ending| [beginning.as_slice(), ending].concat())
    };
    Ok(beginnings.iter().flat_map(join).collect())
}

/// Walks the text once with the set of places in the pattern that it can have reached: no
/// backtracking, so no text makes it slow.
fn matches(tokens: &[Token], text: &str, is_wild: impl Fn(char) -> bool) -> bool {
    let places = tokens.len().saturating_add(1);
    let mut here = vec![false; places];
    if let Some(start) = here.first_mut() {
        *start = true;
    }
    skip_empty_runs(tokens, &mut here);
    for c in text.chars() {
        let mut next = vec![false; places];
        let reached = tokens.iter().zip(&here).enumerate();
        for (at, (token, _)) in reached.filter(|(_, (_, is_here))| **is_here) {
            let to = match token {
                Token::Literal(literal) => (*literal == c).then_some(at.saturating_add(1)),
                Token::One => is_wild(c).then_some(at.saturating_add(1)),
                Token::Many => is_wild(c).then_some(at),
            };
            if let Some(place) = to.and_then(|to| next.get_mut(to)) {
                *place = true;
            }
        }
        if !next.contains(&true) {
            return false;
        }
        skip_empty_runs(tokens, &mut next);
        here = next;
    }
    here.last() == Some(&true)
}

/// A `*` may match nothing, so whoever stands before it also stands after it.
fn skip_empty_runs(tokens: &[Token], here: &mut [bool]) {
    let mut carried = false;
    for (token, place) in tokens.iter().map(Some).chain([None]).zip(here) {
        *place |= carried;
        carried = *place && token == Some(&Token::Many);
    }
}
