//! For whom a rule speaks, and on what it first looks: what is enough to pass most rules by.
//!
//! Asking Cedar takes time for each rule, so rules stand on shelves and only those are asked that can
//! hold. A rule is passed by only where its scope names somebody that the requester is not one of, or
//! where its first condition compares one attribute with one word and that comparison fails: Cedar
//! reads conditions from left to right, so such a rule is false and no error is missed.

use std::collections::BTreeMap;

use cedar_policy::{EntityUid, Policy, PolicySet, PolicySetError, PrincipalConstraint};
use serde_json::Value;

use crate::facts::{Fact, Facts};

/// What of an attribute is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    /// All of it, or one of its elements.
    Whole,
    /// What stands before its first space.
    FirstWord,
}

/// A condition at the beginning of a rule, when it is this plain: the attribute of the resource, and
/// the word that it must be, have or begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gate {
    attribute: String,
    part: Part,
    word: String,
}

/// What most requests are alike in tells rules apart the least, so it is a gate only for want of
/// another.
const COMMON: &str = "mode";

impl Gate {
    /// Reads it from a rule in Cedar's JSON form: the best of the plain conditions that stand before
    /// all others. Such a condition never fails, so the ones after it are reached only through it.
    pub(crate) fn of(rule: &Value) -> Option<Self> {
        let first = rule.get("conditions")?.get(0)?;
        if first.get("kind")?.as_str()? != "when" {
            return None;
        }
        let mut conditions = Vec::new();
        flatten(first.get("body")?, &mut conditions);
        let plain = conditions.into_iter().map_while(Self::of_condition);
        plain.reduce(|best, next| if best.attribute == COMMON { next } else { best })
    }

    fn of_condition(condition: &Value) -> Option<Self> {
        let like = condition.get("like");
        let sides = condition.get("==").or_else(|| condition.get("contains"));
        let access = sides.or(like)?.get("left")?.get(".")?;
        if access.get("left")?.get("Var")?.as_str()? != "resource" {
            return None;
        }
        let start;
        let (part, word) = match like {
            None => (Part::Whole, sides?.get("right")?.get("Value")?.as_str()?),
            Some(like) => {
                // Cedar writes a pattern in pieces, often of one character each.
                let pieces = like.get("pattern")?.as_array()?.iter();
                start = pieces
                    .map_while(|piece| piece.get("Literal")?.as_str())
                    .collect::<String>();
                (Part::FirstWord, start.split_once(' ')?.0)
            }
        };
        Some(Self {
            attribute: access.get("attr")?.as_str()?.to_owned(),
            part,
            word: word.to_owned(),
        })
    }
}

/// The conditions that an `&&` joins, from left to right.
fn flatten<'a>(body: &'a Value, conditions: &mut Vec<&'a Value>) {
    let both = body.get("&&");
    match both.and_then(|both| Some((both.get("left")?, both.get("right")?))) {
        Some((left, right)) => {
            flatten(left, conditions);
            flatten(right, conditions);
        }
        None => conditions.push(body),
    }
}

/// Whom a rule's scope names; nobody in particular when it speaks for all.
pub(crate) fn named(rule: &Policy) -> Option<EntityUid> {
    match rule.principal_constraint() {
        PrincipalConstraint::Any | PrincipalConstraint::Is(_) => None,
        PrincipalConstraint::In(whom)
        | PrincipalConstraint::Eq(whom)
        | PrincipalConstraint::IsIn(_, whom) => Some(whom),
    }
}

/// Rules that speak of the same people.
#[derive(Debug, Default)]
struct Shelf {
    /// Asked whenever the shelf is.
    open: PolicySet,
    /// Asked when the attribute is or has the word.
    gated: BTreeMap<(String, Part), BTreeMap<String, PolicySet>>,
}

/// The rules of one action, by whom they speak of.
#[derive(Debug, Default)]
pub(crate) struct Shelves(BTreeMap<Option<EntityUid>, Shelf>);

impl Shelves {
    pub(crate) fn add(
        &mut self,
        rule: Policy,
        gate: Option<&Gate>,
    ) -> Result<(), Box<PolicySetError>> {
        let shelf = self.0.entry(named(&rule)).or_default();
        let set = match gate {
            None => &mut shelf.open,
            Some(gate) => {
                let kind = (gate.attribute.clone(), gate.part);
                let words = shelf.gated.entry(kind).or_default();
                words.entry(gate.word.clone()).or_default()
            }
        };
        set.add(rule).map_err(Box::new)
    }

    /// The sets of rules that can hold for somebody who is one of `keys`.
    pub(crate) fn to_ask<'a>(
        &'a self,
        keys: &'a [EntityUid],
        facts: &'a Facts,
    ) -> impl Iterator<Item = &'a PolicySet> {
        let everybody = self.0.get(&None).into_iter();
        let own = keys.iter().filter_map(|key| self.0.get(&Some(key.clone())));
        everybody.chain(own).flat_map(|shelf| shelf.to_ask(facts))
    }
}

impl Shelf {
    fn to_ask<'a>(&'a self, facts: &'a Facts) -> impl Iterator<Item = &'a PolicySet> {
        let gated = self.gated.iter().flat_map(|((attribute, part), words)| {
            let fact = facts.get(attribute.as_str());
            let (one, many, all) = match fact {
                Some(Fact::Text(text)) => {
                    let first = text.split_once(' ').map(|(first, _)| first);
                    let word = match part {
                        Part::Whole => Some(text.as_str()),
                        Part::FirstWord => first,
                    };
                    (word.and_then(|word| words.get(word)), None, None)
                }
                Some(Fact::Names(names)) => (None, Some((words, names)), None),
                // A rule that compares another sort of attribute with a word is asked, and says so.
                Some(Fact::Number(_) | Fact::Flag(_)) | None => (None, None, Some(words.values())),
            };
            let many = many.into_iter().flat_map(|(words, names)| {
                let held = words.iter().filter(|(word, _)| names.contains(*word));
                held.map(|(_, set)| set)
            });
            one.into_iter().chain(many).chain(all.into_iter().flatten())
        });
        let open = Some(&self.open).filter(|set| !set.is_empty());
        open.into_iter().chain(gated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(conditions: &str) -> Option<(String, Part, String)> {
        let rule = format!("permit (principal, action, resource) {conditions};");
        let rule: Policy = rule.parse().unwrap();
        Gate::of(&rule.to_json().unwrap()).map(|gate| (gate.attribute, gate.part, gate.word))
    }

    #[test]
    fn a_gate_is_the_best_of_the_plain_conditions_before_all_others() {
        let whole = |attribute: &str, word: &str| {
            Some((attribute.to_owned(), Part::Whole, word.to_owned()))
        };
        let first = Some(("line".to_owned(), Part::FirstWord, "rm".to_owned()));
        assert_eq!(
            gate("when { resource.name == \"rm\" }"),
            whole("name", "rm")
        );
        assert_eq!(
            gate("when { resource.mode == \"exec\" && resource.labels.contains(\"a=b\") }"),
            whole("labels", "a=b")
        );
        assert_eq!(gate("when { resource.line like \"rm -rf *\" }"), first);
        assert_eq!(
            gate("when { resource.mode == \"exec\" && (resource.line like \"rm *\" && true) }"),
            first
        );
        assert_eq!(
            gate("when { resource.mode == \"exec\" && true && resource.name == \"rm\" }"),
            whole("mode", "exec")
        );
    }

    #[test]
    fn what_can_fail_or_hold_otherwise_is_no_gate() {
        for conditions in [
            "",
            "when { true && resource.name == \"rm\" }",
            "when { context.hour * 2 > 1 && resource.name == \"rm\" }",
            "when { context.hour > 1 } when { resource.name == \"rm\" }",
            "unless { resource.name == \"rm\" }",
            "when { resource.name != \"rm\" }",
            "when { resource.name == \"rm\" || true }",
            "when { !(resource.name == \"rm\") }",
            "when { context.token == \"rm\" }",
            "when { resource.line like \"rm*\" }",
            "when { resource.line like \"*rm x\" }",
            "when { resource.name == resource.program }",
        ] {
            assert_eq!(gate(conditions), None, "{conditions}");
        }
    }
}
