//! A text becomes single rules, each with its name and its place. What a rule means is not read here.
//!
//! Depth is bounded before anything recursive reads the text, and again in each rule: how deep an
//! expression may be is otherwise a matter of a thread's stack, and a judgement must not depend on it.

use cedar_policy::{Policy, PolicyId, PolicySet};
use countersign_protocol::name::RuleName;
use countersign_protocol::visible;
use miette::Diagnostic;
use serde_json::Value;

use crate::problem::{Problem, place};

/// Deepest nesting of brackets in the text.
const MAX_BRACKETS: usize = 48;

/// Most operators in one rule, each of which can make an expression one level deeper.
const MAX_OPERATORS: usize = 512;

/// Deepest expression of one rule, so that every thread of every program can evaluate it: a debug
/// build manages more on the 2 MiB that a thread has, a release build several times as much.
const MAX_DEPTH: usize = 32;

/// Whether a rule opens or closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// It permits, at the price that its annotations name.
    Permit,
    /// It forbids, whatever else permits.
    Forbid,
}

/// One rule as its author wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleSummary {
    /// Its `@id`.
    pub name: RuleName,
    /// Permit or forbid.
    pub effect: Effect,
    /// Its other annotations, sorted by name: what it costs.
    pub annotations: Vec<(String, String)>,
    /// Where its text begins, from 1.
    pub line: usize,
    /// Its text.
    pub text: String,
}

/// A rule with its place and its form.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) summary: RuleSummary,
    /// Where its text begins, in bytes.
    pub(crate) offset: usize,
    /// Under its `@id`.
    pub(crate) policy: Policy,
    /// Cedar's JSON form of it.
    pub(crate) json: Value,
}

/// All rules of a text, in its order.
///
/// # Errors
/// What keeps it from being read at all, and rules without a name of their own.
pub(crate) fn rules(text: &str) -> Result<Vec<Rule>, Vec<Problem>> {
    check_characters(text)?;
    check_shape(text)?;
    let set: PolicySet = text.parse().map_err(|errors: cedar_policy::ParseErrors| {
        errors
            .iter()
            .map(|error| diagnosed(text, error))
            .collect::<Vec<_>>()
    })?;
    let mut problems: Vec<Problem> = Vec::new();
    for template in set.templates() {
        let offset = text.find(template.to_cedar().as_str()).unwrap_or(0);
        problems.push(Problem::at(
            text,
            offset,
            "templates (?principal, ?resource) cannot be published; write the rule out",
        ));
    }
    let mut policies: Vec<&Policy> = set.policies().collect();
    policies.sort_by_key(|policy| number_of(policy.id()));
    let mut rules: Vec<Rule> = Vec::new();
    let mut end = 0;
    for policy in policies {
        let own = policy.to_cedar().unwrap_or_default();
        let offset = text.get(end..).and_then(|rest| rest.find(&own));
        let offset = offset.map_or(end, |at| end + at);
        end = offset + own.len();
        match rule(text, offset, own, policy) {
            Ok(rule) => rules.push(rule),
            Err(sentence) => problems.push(Problem::at(text, offset, sentence)),
        }
    }
    problems.extend(doubled(text, &rules));
    if problems.is_empty() {
        Ok(rules)
    } else {
        problems.sort();
        Err(problems)
    }
}

/// Cedar numbers the rules of a text: `policy0`, `policy1`.
fn number_of(id: &PolicyId) -> (usize, String) {
    let name = id.to_string();
    let number = name
        .strip_prefix("policy")
        .and_then(|number| number.parse().ok());
    (number.unwrap_or(usize::MAX), name)
}

fn rule(text: &str, offset: usize, own: String, policy: &Policy) -> Result<Rule, String> {
    let id = policy.annotation("id").unwrap_or_default();
    if id.is_empty() {
        return Err("every rule has a name of its own: put @id(\"name\") before it".to_owned());
    }
    let name: RuleName = id
        .parse()
        .map_err(|error| format!("@id(\"{}\"): {error}", id.escape_debug()))?;
    let json = policy.to_json().map_err(|error| error.to_string())?;
    // Each operator is an object in an object: two levels of JSON.
    let depth = json.get("conditions").map_or(0, depth) / 2;
    if depth > MAX_DEPTH {
        return Err(format!(
            "rule {name}: it is nested {depth} deep and {MAX_DEPTH} is the most; \
             use a set such as [\"a\", \"b\"].contains(…), or several rules"
        ));
    }
    let mut annotations: Vec<(String, String)> = policy
        .annotations()
        .filter(|(name, _)| *name != "id")
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    annotations.sort();
    let effect = match policy.effect() {
        cedar_policy::Effect::Permit => Effect::Permit,
        cedar_policy::Effect::Forbid => Effect::Forbid,
    };
    Ok(Rule {
        policy: policy.new_id(PolicyId::new(name.as_str())),
        json,
        offset,
        summary: RuleSummary {
            name,
            effect,
            annotations,
            line: place(text, offset).0,
            text: own,
        },
    })
}

fn doubled(text: &str, rules: &[Rule]) -> Vec<Problem> {
    let mut seen = std::collections::BTreeMap::new();
    let mut problems = Vec::new();
    for rule in rules {
        let name = &rule.summary.name;
        if let Some(first) = seen.insert(name, rule.summary.line) {
            let sentence = format!("another rule, in line {first}, has the same @id");
            let problem = Problem::at(text, rule.offset, sentence);
            problems.push(problem.of_rule(Some(name.as_str())));
        }
    }
    problems
}

fn depth(value: &Value) -> usize {
    let deepest = match value {
        Value::Array(items) => items.iter().map(depth).max(),
        Value::Object(fields) => fields.values().map(depth).max(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return 0,
    };
    1 + deepest.unwrap_or(0)
}

/// What Cedar says of a text, with the place that it points at.
pub(crate) fn diagnosed(text: &str, error: &dyn Diagnostic) -> Problem {
    let label = error.labels().and_then(|mut labels| labels.next());
    let mut sentence = error.to_string();
    if let Some(help) = error.help() {
        sentence.push_str(&format!(" ({help})"));
    }
    match label {
        Some(label) => Problem::at(text, label.offset(), sentence),
        None => Problem::of_text(sentence),
    }
}

/// A reader must see what Cedar reads: no character may hide or turn round what stands beside it.
fn check_characters(text: &str) -> Result<(), Vec<Problem>> {
    let hidden = |c: char| !visible::is_plain(c) && !matches!(c, '\n' | '\t' | '\r');
    // A carriage return ends a line on some screens and none in Cedar: a comment would seem to end.
    let next = |at: usize| text.as_bytes().get(at + 1).copied();
    let lone = |at: usize, c: char| c == '\r' && next(at) != Some(b'\n');
    let found = text
        .char_indices()
        .find(|(at, c)| hidden(*c) || lone(*at, *c));
    found.map_or(Ok(()), |(at, c)| {
        let sentence = format!(
            "the character U+{:04X} does not show, or shows what is not there; remove it",
            u32::from(c)
        );
        Err(vec![Problem::at(text, at, sentence)])
    })
}

/// Bounds the depth of whatever will be read from the text, without reading it.
fn check_shape(text: &str) -> Result<(), Vec<Problem>> {
    let mut brackets = 0_usize;
    let mut operators = 0_usize;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => {
                while let Some((_, inner)) = chars.next() {
                    match inner {
                        '\\' => drop(chars.next()),
                        '"' => break,
                        _other => {}
                    }
                }
            }
            '/' if chars.peek().is_some_and(|(_, next)| *next == '/') => {
                while chars.next_if(|(_, next)| *next != '\n').is_some() {}
            }
            '(' | '[' | '{' => brackets += 1,
            ')' | ']' | '}' => brackets = brackets.saturating_sub(1),
            ';' => operators = 0,
            '&' | '|' | '+' | '-' | '*' | '!' | '<' | '>' | '=' | '.' => operators += 1,
            // An `if` may follow an `else` without a bracket.
            'i' if text.get(at..).is_some_and(|rest| rest.starts_with("if")) => operators += 1,
            _other => {}
        }
        if brackets > MAX_BRACKETS || operators > 2 * MAX_OPERATORS {
            let sentence = format!(
                "a rule may nest {MAX_BRACKETS} brackets and have {MAX_OPERATORS} operators; \
                 make several rules of it, or use a set such as [\"a\", \"b\"].contains(…)"
            );
            return Err(vec![Problem::at(text, at, sentence)]);
        }
    }
    Ok(())
}
