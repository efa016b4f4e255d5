//! What a person should know of a policy before they publish it, and what differs between two.
//!
//! A warning is no problem: the policy can be published, and may be meant so.

use std::collections::{BTreeMap, BTreeSet};

use countersign_protocol::name::{Label, RuleName};
use countersign_protocol::permission::Whom;
use countersign_protocol::policy::Policy;
use countersign_protocol::quorum::Demand;
use serde_json::Value;

use crate::compile::{CheckedRule, compile};
use crate::price::Deed;
use crate::problem::Problem;
use crate::source::{self, Effect, RuleSummary};

/// A policy that can be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Review {
    /// Its rules, in the order of the text.
    pub rules: Vec<RuleSummary>,
    /// What may not be meant so, in sentences, by rule.
    pub warnings: Vec<String>,
}

/// How a rule differs between two policies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuleChange {
    /// Only the new one has it.
    Added(RuleSummary),
    /// Only the old one has it.
    Removed(RuleSummary),
    /// Both have it, and it does not say the same. How it is laid out and commented is no difference.
    Changed {
        /// As it was.
        old: RuleSummary,
        /// As it would be.
        new: RuleSummary,
    },
}

/// Checks a policy and says what may not be meant so.
///
/// # Errors
/// Everything that keeps it from being published.
pub fn review(policy: &Policy) -> Result<Review, Vec<Problem>> {
    let compiled = compile(policy.text())?;
    let mut warnings = Vec::new();
    for (name, rule) in &compiled.rules {
        let said = warnings_of(rule).into_iter();
        warnings.extend(said.map(|warning| format!("rule {name}: {warning}")));
    }
    warnings.extend(gaps(compiled.rules.values()));
    let mut rules: Vec<RuleSummary> = compiled
        .rules
        .into_values()
        .map(|rule| rule.summary)
        .collect();
    rules.sort_by_key(|rule| rule.line);
    Ok(Review { rules, warnings })
}

/// Everybody who approves commands by a rule: whom it names, or means when it names nobody.
///
/// # Errors
/// What keeps the policy from being read.
pub fn electors(policy: &Policy) -> Result<BTreeSet<Whom>, Vec<Problem>> {
    let compiled = compile(policy.text())?;
    let rules = compiled.rules.values();
    let of_commands = rules.filter(|rule| rule.deeds.contains(&Deed::Execute));
    let demands = of_commands.filter_map(|rule| rule.price.as_ref()?.demand.as_ref());
    let seats = demands.flat_map(|Demand(seats)| seats);
    Ok(seats.flat_map(|seats| &seats.from).cloned().collect())
}

/// What differs, by rule and sorted by its name.
///
/// # Errors
/// What keeps one of them from being read.
pub fn diff(old: &Policy, new: &Policy) -> Result<Vec<RuleChange>, Vec<Problem>> {
    let read = |policy: &Policy| -> Result<BTreeMap<RuleName, (Value, RuleSummary)>, Vec<Problem>> {
        let rules = source::rules(policy.text())?.into_iter();
        Ok(rules
            .map(|rule| (rule.summary.name.clone(), (rule.json, rule.summary)))
            .collect())
    };
    let (mut old, new) = (read(old)?, read(new)?);
    let mut changes: BTreeMap<RuleName, RuleChange> = BTreeMap::new();
    for (name, (json, summary)) in new {
        let change = match old.remove(&name) {
            Some((before, _)) if before == json => continue,
            Some((_, before)) => RuleChange::Changed {
                old: before,
                new: summary,
            },
            None => RuleChange::Added(summary),
        };
        changes.insert(name, change);
    }
    let removed = old
        .into_iter()
        .map(|(name, (_, summary))| (name, RuleChange::Removed(summary)));
    changes.extend(removed);
    Ok(changes.into_values().collect())
}

/// What is missing in the policy as a whole.
fn gaps<'a>(rules: impl Iterator<Item = &'a CheckedRule>) -> Vec<String> {
    let rules: Vec<&CheckedRule> = rules.collect();
    let permits = |deed: Deed| {
        let mut permits = rules
            .iter()
            .filter(|rule| rule.summary.effect == Effect::Permit);
        permits.any(|rule| rule.deeds.contains(&deed))
    };
    let mut warnings = Vec::new();
    if !permits(Deed::Execute) && !permits(Deed::BreakGlass) {
        warnings.push("no rule permits a command, so nobody can run any".to_owned());
    }
    if permits(Deed::BreakGlass) {
        for rule in &rules {
            let forbids = rule.summary.effect == Effect::Forbid;
            if forbids
                && rule.deeds.contains(&Deed::Execute)
                && !rule.deeds.contains(&Deed::BreakGlass)
            {
                warnings.push(format!(
                    "rule {}: it forbids command:execute and not command:break_glass, which another \
                     rule permits",
                    rule.summary.name
                ));
            }
        }
    }
    warnings
}

fn warnings_of(rule: &CheckedRule) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut looks = Looks::default();
    looks.read_rule(&rule.json);
    for (attribute, word) in &looks.compared {
        if let Some(values) = values_of(attribute)
            && !values.contains(&word.as_str())
        {
            warnings.push(format!(
                "{attribute} is never {word:?}; it is one of {}",
                values.join(", ")
            ));
        }
        let labels = matches!(attribute.as_str(), "labels" | "common_labels");
        if labels && word.parse::<Label>().is_err() {
            warnings.push(format!(
                "no host has the label {word:?}; a label is key=value"
            ));
        }
    }
    match &rule.price {
        Some(price) => {
            warnings.extend(of_cost(rule, price.demand.as_ref()));
            warnings.extend(of_permit(rule, &looks));
        }
        None if looks
            .patterns
            .iter()
            .any(|(attribute, _)| attribute == "line") =>
        {
            warnings.push(
                "line begins with the program as it was written, so /bin/x is not x; a forbid looks at \
                 name_line"
                    .to_owned(),
            );
        }
        None => {}
    }
    if rule.price.is_none()
        && looks
            .compared
            .iter()
            .any(|(attribute, _)| attribute == "program")
    {
        warnings.push(
            "program is as it was written, so /bin/x is not x; a forbid looks at name".to_owned(),
        );
    }
    warnings
}

fn of_cost(rule: &CheckedRule, demand: Option<&Demand>) -> Vec<String> {
    let mut warnings = Vec::new();
    if rule.named.is_none() {
        let everybody = "it speaks for everybody who has a key, also those whose role permits nothing; \
                         name them, as in principal in Permission::\"command:execute\"";
        warnings.push(everybody.to_owned());
    }
    let seats = demand.map(|demand| demand.0.iter().map(|seats| seats.approvals).sum::<u32>());
    if seats == Some(1) {
        warnings.push(if rule.deeds.contains(&Deed::Manage) {
            "one approval is enough, and whoever asks gives it; nobody else looks".to_owned()
        } else {
            "one approval is enough: whoever asks and one other".to_owned()
        });
    }
    warnings
}

fn of_permit(rule: &CheckedRule, looks: &Looks) -> Vec<String> {
    let mut warnings = Vec::new();
    let compares = |name: &str| {
        looks
            .compared
            .iter()
            .any(|(attribute, _)| attribute == name)
    };
    let opens = looks.opening.iter().any(|name| name == "labels");
    if opens && !rule.deeds.contains(&Deed::Manage) {
        warnings.push(
            "labels are those that at least one host has, so one such host permits all the others; a \
             permit looks at common_labels"
                .to_owned(),
        );
    }
    if looks.attributes.iter().any(|name| name == "paths") {
        warnings.push(
            "paths are all that a word could mean, so one of them permits whatever else is named; only \
             a forbid can rely on them"
                .to_owned(),
        );
    }
    let shell = looks
        .compared
        .contains(&("mode".to_owned(), "shell".to_owned()));
    let bounded = ["program", "name", "arguments"]
        .into_iter()
        .find(|name| compares(name));
    if let (true, Some(name)) = (shell, bounded) {
        warnings.push(format!("a shell has no {name}: its one word is a script"));
    }
    for (attribute, pattern) in &looks.patterns {
        let line = matches!(attribute.as_str(), "line" | "name_line");
        let first = pattern.split(' ').next().unwrap_or("");
        if line && first.contains('*') {
            warnings.push(format!(
                "the pattern {pattern:?} also matches other programs whose names begin alike; put a \
                 space before the *, or compare name"
            ));
        }
    }
    if !shell && !looks.patterns.is_empty() && !compares("mode") {
        warnings.push(
            "a pattern matches scripts too, with whatever they have after a ; or a $( — add \
             resource.mode == \"exec\""
                .to_owned(),
        );
    }
    warnings
}

fn values_of(attribute: &str) -> Option<&'static [&'static str]> {
    match attribute {
        "mode" => Some(&["exec", "shell", "action"]),
        "weekday" => Some(&["mon", "tue", "wed", "thu", "fri", "sat", "sun"]),
        "change" => Some(&[
            "agent.accepted",
            "agent.rejected",
            "agent.relabelled",
            "agent.drained",
            "agent.undrained",
            "agent.retired",
        ]),
        _other => None,
    }
}

/// What a rule compares, read from Cedar's JSON form of it.
#[derive(Debug, Default)]
struct Looks {
    /// Every attribute that it names.
    attributes: Vec<String>,
    /// Attributes that must compare equal for the rule to hold, as far as can be seen: none that
    /// stands under a `!` or an `unless`.
    opening: Vec<String>,
    /// An attribute, and a word that it is compared with.
    compared: Vec<(String, String)>,
    /// An attribute, and a pattern that it is matched with.
    patterns: Vec<(String, String)>,
}

impl Looks {
    /// Reads all conditions of a rule.
    fn read_rule(&mut self, rule: &Value) {
        let conditions = rule.get("conditions").and_then(Value::as_array);
        for condition in conditions.into_iter().flatten() {
            let denies = condition.get("kind").and_then(Value::as_str) == Some("unless");
            self.read(condition.get("body").unwrap_or(&Value::Null), denies);
        }
    }

    fn read(&mut self, json: &Value, denied: bool) {
        match json {
            Value::Array(items) => items.iter().for_each(|item| self.read(item, denied)),
            Value::Object(fields) => {
                for (operator, operands) in fields {
                    self.read_one(operator, operands, denied);
                    self.read(operands, denied != (operator == "!"));
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn read_one(&mut self, operator: &str, operands: &Value, denied: bool) {
        let (left, right) = (operands.get("left"), operands.get("right"));
        if operator == "." {
            let name = operands.get("attr").and_then(Value::as_str);
            self.attributes.extend(name.map(str::to_owned));
        }
        let known = left
            .and_then(attribute)
            .or_else(|| right.and_then(attribute));
        let Some(name) = known else { return };
        if operator == "like" {
            let pattern = operands.get("pattern").map(pattern).unwrap_or_default();
            self.patterns.push((name, pattern));
            return;
        }
        let mut words = Vec::new();
        for side in [left, right].into_iter().flatten() {
            literals(side, &mut words);
        }
        if !words.is_empty() && denied == (operator == "!=") {
            self.opening.push(name.clone());
        }
        let compared = words.into_iter().map(|word| (name.clone(), word));
        self.compared.extend(compared);
    }
}

/// The attribute that an expression is, of the resource or of the context.
fn attribute(expression: &Value) -> Option<String> {
    let access = expression.get(".")?;
    let of = access.get("left")?.get("Var")?.as_str()?;
    let own = matches!(of, "resource" | "context");
    access
        .get("attr")?
        .as_str()
        .filter(|_| own)
        .map(str::to_owned)
}

/// The words that an expression is: one, or a set of them.
fn literals(expression: &Value, found: &mut Vec<String>) {
    if let Some(word) = expression.get("Value").and_then(Value::as_str) {
        found.push(word.to_owned());
    }
    let set = expression.get("Set").and_then(Value::as_array);
    for item in set.into_iter().flatten() {
        literals(item, found);
    }
}

/// A pattern as it was written.
fn pattern(json: &Value) -> String {
    let parts = json.as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |part: &Value| match part.get("Literal").and_then(Value::as_str) {
        Some(literal) => literal.to_owned(),
        None => "*".to_owned(),
    };
    parts.iter().map(text).collect()
}
