//! The words of a search: brackets, `and`, `or`, `not`, and terms with their values.

use super::parse::QueryError;

/// One word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// `(`
    Open,
    /// `)`
    Close,
    /// `and`
    And,
    /// `or`
    Or,
    /// `not`
    Not,
    /// `KEY:VALUE`
    Term {
        /// The key.
        key: String,
        /// The value, without its quotes.
        value: String,
        /// Whether it had some.
        is_quoted: bool,
    },
}

/// All words, each with the place of its first character, from 1. With `bare`, a word without a key
/// is a label if it has a `=`, else a host.
///
/// # Errors
/// Quotes that do not close, and what is no term.
pub(super) fn tokens(text: &str, bare: bool) -> Result<Vec<(usize, Token)>, QueryError> {
    let mut tokens = Vec::new();
    let mut chars = (1..).zip(text.chars()).peekable();
    while let Some((at, c)) = chars.next() {
        if c.is_whitespace() {
            continue;
        }
        if matches!(c, '(' | ')') {
            tokens.push((at, if c == '(' { Token::Open } else { Token::Close }));
            continue;
        }
        let mut word = String::new();
        let mut quoted = None;
        let mut next = Some((at, c));
        while let Some((at, c)) = next {
            if c == '"' && word.ends_with(':') {
                quoted = Some(quote(at, &mut chars)?);
                break;
            }
            if c == '"' {
                word.push(c);
                return Err(QueryError::Key { at, word });
            }
            word.push(c);
            let ends = |(_, c): &(usize, char)| c.is_whitespace() || matches!(c, '(' | ')');
            next = chars.next_if(|one| !ends(one));
        }
        tokens.push((at, token(at, word, quoted, bare)?));
    }
    Ok(tokens)
}

/// The text up to the closing quotes; the opening ones are behind us.
fn quote(at: usize, chars: &mut impl Iterator<Item = (usize, char)>) -> Result<String, QueryError> {
    let mut text = String::new();
    while let Some((_, c)) = chars.next() {
        match c {
            '"' => return Ok(text),
            '\\' => match chars.next() {
                Some((_, escaped @ ('"' | '\\'))) => text.push(escaped),
                Some((_, other)) => text.extend(['\\', other]),
                None => break,
            },
            other => text.push(other),
        }
    }
    Err(QueryError::Quote { at })
}

fn token(at: usize, word: String, quoted: Option<String>, bare: bool) -> Result<Token, QueryError> {
    match (word.as_str(), &quoted) {
        ("and", None) => return Ok(Token::And),
        ("or", None) => return Ok(Token::Or),
        ("not", None) => return Ok(Token::Not),
        _term => {}
    }
    let Some((key, value)) = word.split_once(':') else {
        if bare {
            let key = if word.contains('=') { "label" } else { "host" };
            return Ok(Token::Term {
                key: key.to_owned(),
                value: word,
                is_quoted: false,
            });
        }
        return Err(QueryError::Key { at, word });
    };
    // Quotes come after the first colon and nothing between: `arg:"a:b"`, never `arg:b:"a"`.
    if quoted.is_some() && !value.is_empty() {
        return Err(QueryError::Key { at, word });
    }
    Ok(Token::Term {
        key: key.to_owned(),
        is_quoted: quoted.is_some(),
        value: quoted.unwrap_or_else(|| value.to_owned()),
    })
}
