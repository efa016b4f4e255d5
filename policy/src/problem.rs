//! What is wrong with a policy, and where: a sentence for whoever wrote it.

use core::fmt;

/// Most problems that one sentence for the log names; the rest are counted.
const MAX_TOLD: usize = 8;

/// Something that keeps a policy from being published.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub struct Problem {
    /// Line in the text, from 1; 0 when it is the whole text's.
    pub line: usize,
    /// Column in characters, from 1; 0 when it is the whole text's.
    pub column: usize,
    /// The rule, by its `@id`, when it has one.
    pub rule: Option<String>,
    /// What is wrong and what to do.
    pub sentence: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}, column {}: ", self.line, self.column)?;
        }
        if let Some(rule) = &self.rule {
            write!(f, "rule {rule}: ")?;
        }
        f.write_str(&self.sentence)
    }
}

impl Problem {
    /// A problem of the text as a whole.
    pub(crate) fn of_text(sentence: impl Into<String>) -> Self {
        Self {
            line: 0,
            column: 0,
            rule: None,
            sentence: sentence.into(),
        }
    }

    /// A problem at a byte of the text.
    pub(crate) fn at(text: &str, offset: usize, sentence: impl Into<String>) -> Self {
        let (line, column) = place(text, offset);
        Self {
            line,
            column,
            rule: None,
            sentence: sentence.into(),
        }
    }

    /// The same, of this rule.
    pub(crate) fn of_rule(mut self, rule: Option<&str>) -> Self {
        self.rule = rule.map(str::to_owned);
        self
    }
}

/// Line and column of a byte, both from 1.
pub(crate) fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    let column = before.get(line_start..).unwrap_or("").chars().count() + 1;
    (line, column)
}

/// All of them in one sentence, the first few in full.
pub(crate) fn in_one_sentence(problems: &[Problem]) -> String {
    let told: Vec<String> = problems
        .iter()
        .take(MAX_TOLD)
        .map(Problem::to_string)
        .collect();
    let more = problems.len().saturating_sub(MAX_TOLD);
    let mut sentence = told.join("; ");
    if more > 0 {
        sentence.push_str(&format!("; and {more} more"));
    }
    sentence
}
