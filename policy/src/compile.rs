//! A text becomes rules that were checked against the schema, priced, and shelved.

use std::collections::{BTreeMap, BTreeSet};

use cedar_policy::{
    ActionConstraint, Authorizer, Entities, EntityUid, PolicySet, Request, ResourceConstraint,
    ValidationMode, Validator,
};
use countersign_protocol::judgement::{Denial, Judgement};
use countersign_protocol::name::{AgentName, GroupName, Principal, RoleName, RuleName};
use countersign_protocol::permission::Permission;
use serde_json::Value;

use crate::facts::{Asked, LookedAt};
use crate::price::{self, Deed, Price};
use crate::problem::Problem;
use crate::scope::{self, Gate, Shelves};
use crate::source::{self, Effect, Rule, RuleSummary, diagnosed};
use crate::vocabulary::{REQUEST, Vocabulary};

/// A policy that judges.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) vocabulary: &'static Vocabulary,
    pub(crate) looked_at: LookedAt,
    pub(crate) rules: BTreeMap<String, CheckedRule>,
    shelves: BTreeMap<Deed, Shelves>,
    whole: PolicySet,
    permits: PolicySet,
}

/// A rule of it.
#[derive(Debug)]
pub(crate) struct CheckedRule {
    pub(crate) summary: RuleSummary,
    pub(crate) deeds: Vec<Deed>,
    /// Of a permit.
    pub(crate) price: Option<Price>,
    /// Whom its scope names; nobody in particular when it speaks for all.
    pub(crate) named: Option<EntityUid>,
    /// Cedar's JSON form.
    pub(crate) json: Value,
}

/// Which rules are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Search {
    /// Those that can hold.
    Shelved,
    /// All of them.
    Whole,
    /// All permits, also where something forbids.
    Permits,
}

/// What the rules said.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    /// Permits that hold.
    pub(crate) permits: BTreeSet<String>,
    /// Forbids that hold.
    pub(crate) forbids: BTreeSet<String>,
    /// Rules that could not be evaluated, with why.
    pub(crate) broken: BTreeMap<String, String>,
}

/// Checks a text in full and makes a policy of it.
///
/// # Errors
/// Everything that is wrong with it, sorted by place.
pub(crate) fn compile(text: &str) -> Result<Compiled, Vec<Problem>> {
    let vocabulary = Vocabulary::get().map_err(|why| vec![Problem::of_text(why)])?;
    let rules = source::rules(text)?;
    let mut problems: Vec<Problem> = Vec::new();
    let mut compiled = Compiled {
        vocabulary,
        looked_at: LookedAt::default(),
        rules: BTreeMap::new(),
        shelves: BTreeMap::new(),
        whole: PolicySet::new(),
        permits: PolicySet::new(),
    };
    for rule in rules {
        let (name, offset) = (rule.summary.name.clone(), rule.offset);
        let wrong = compiled.add(rule).err().unwrap_or_default();
        problems.extend(
            wrong
                .into_iter()
                .map(|sentence| Problem::at(text, offset, sentence).of_rule(Some(name.as_str()))),
        );
    }
    problems.extend(compiled.validate(text));
    if problems.is_empty() {
        return Ok(compiled);
    }
    problems.sort();
    problems.dedup();
    Err(problems)
}

impl Compiled {
    fn add(&mut self, rule: Rule) -> Result<(), Vec<String>> {
        let Rule {
            summary,
            policy,
            json,
            offset: _,
        } = rule;
        let broken = |error: &dyn std::error::Error| vec![error.to_string()];
        // Validated as a whole, so that Cedar's own words are read also where ours fail.
        self.whole
            .add(policy.clone())
            .map_err(|error| broken(&error))?;
        let mut wrong: Vec<String> = Vec::new();
        for named in policy.entity_literals() {
            wrong.extend(self.look_at(&named).err());
        }
        words(&json, &mut self.looked_at.words);
        let deeds = deeds(self.vocabulary, summary.effect, &policy.action_constraint());
        let deeds = deeds
            .map_err(|sentence| wrong.push(sentence))
            .unwrap_or_default();
        wrong.extend(resource(self.vocabulary, &policy.resource_constraint()).err());
        let notes = || {
            summary
                .annotations
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
        };
        let price = match (summary.effect, deeds.first()) {
            (Effect::Permit, Some(deed)) => Price::read(*deed, notes())
                .map_err(|sentences| wrong.extend(sentences))
                .ok(),
            (Effect::Permit, None) => None,
            (Effect::Forbid, _) => {
                wrong.extend(price::check_notes(notes().map(|(name, _)| name)));
                None
            }
        };
        if !wrong.is_empty() {
            return Err(wrong);
        }
        if summary.effect == Effect::Permit {
            self.permits
                .add(policy.clone())
                .map_err(|error| broken(&error))?;
        }
        let gate = Gate::of(&json);
        for deed in &deeds {
            let shelves = self.shelves.entry(*deed).or_default();
            shelves
                .add(policy.clone(), gate.as_ref())
                .map_err(|error| broken(&error))?;
        }
        let named = scope::named(&policy);
        let checked = CheckedRule {
            summary,
            deeds,
            price,
            named,
            json,
        };
        self.rules.insert(policy.id().to_string(), checked);
        Ok(())
    }

    /// Takes note of somebody or something that a rule names, if there can be such a one: a name that
    /// nobody can have makes a guard that guards nothing.
    fn look_at(&mut self, named: &EntityUid) -> Result<(), String> {
        let (kind, id) = (named.type_name(), named.id().unescaped());
        let known = &self.vocabulary;
        let ok = if *kind == known.user {
            id.parse::<Principal>().is_ok()
        } else if *kind == known.group {
            id.parse::<GroupName>()
                .map(|group| self.looked_at.groups.insert(group))
                .is_ok()
        } else if *kind == known.role {
            id.parse::<RoleName>()
                .map(|role| self.looked_at.roles.insert(role))
                .is_ok()
        } else if *kind == known.permission {
            id.parse::<Permission>()
                .map(|right| self.looked_at.permissions.insert(right))
                .is_ok()
        } else if *kind == known.agent {
            id.parse::<AgentName>().is_ok()
        } else if *kind == known.command {
            id == REQUEST
        } else {
            // Actions, and what the schema does not have: Cedar says it.
            true
        };
        if ok {
            return Ok(());
        }
        Err(if *kind == known.command {
            format!(
                "the only command is Command::\"{REQUEST}\", the request; compare its attributes instead of {named}"
            )
        } else {
            format!("{named} cannot exist: no ledger has such a name")
        })
    }

    /// What Cedar says of the rules, against the schema.
    fn validate(&self, text: &str) -> Vec<Problem> {
        let validator = Validator::new(self.vocabulary.schema.clone());
        let result = validator.validate(&self.whole, ValidationMode::Strict);
        let errors = result.validation_errors();
        let errors = errors.map(|error| (error.policy_id().to_string(), diagnosed(text, error)));
        // Rules that read otherwise than they are, and rules that can never hold, are mistakes too.
        let warnings = result.validation_warnings();
        let warnings = warnings.map(|note| (note.policy_id().to_string(), diagnosed(text, note)));
        errors
            .chain(warnings)
            .map(|(rule, problem)| problem.of_rule(Some(&rule)))
            .collect()
    }

    /// What the rules say. A token may no more than its person: it is asked as itself and as one of all that its
    /// person is one of. A forbid that holds either way holds, and a permit is one that holds both ways.
    pub(crate) fn ask(&self, asked: &Asked, search: Search) -> Said {
        let mut said = self.ask_of(asked, (&asked.keys, &asked.entities), search);
        if let Some((keys, entities)) = &asked.as_person {
            let more = self.ask_of(asked, (keys, entities), search);
            said.permits.retain(|rule| more.permits.contains(rule));
            said.forbids.extend(more.forbids);
            said.broken.extend(more.broken);
        }
        said
    }

    /// What the rules say of whoever asks as one of these.
    fn ask_of(&self, asked: &Asked, who: (&[EntityUid], &Entities), search: Search) -> Said {
        let (keys, entities) = who;
        let mut said = Said::default();
        let mut hear = |set| said.hear(self, (&asked.request, entities), set);
        match search {
            Search::Whole => hear(&self.whole),
            Search::Permits => hear(&self.permits),
            Search::Shelved => {
                let shelves = self.shelves.get(&asked.deed).into_iter();
                let sets = shelves.flat_map(|shelves| shelves.to_ask(keys, &asked.facts));
                sets.for_each(hear);
            }
        }
        said
    }

    /// How many rules a search of the shelves asks.
    pub(crate) fn count_asked(&self, asked: &Asked) -> usize {
        let shelves = self.shelves.get(&asked.deed).into_iter();
        let sets = shelves.flat_map(|shelves| shelves.to_ask(&asked.keys, &asked.facts));
        sets.map(PolicySet::num_of_policies).sum()
    }

    /// The judgement that follows from what the rules said.
    pub(crate) fn conclude(&self, deed: Deed, said: &Said, timeout_ms: Option<u64>) -> Judgement {
        // First of all, for a forbid that fails must not be passed by.
        if let Some((rule, why)) = said.broken.iter().next() {
            let why = format!("the rule {rule} could not be evaluated: {why}");
            return Judgement::Denied(Denial::Broken(why));
        }
        if let Some(rule) = said.forbids.iter().find_map(|rule| self.rules.get(rule)) {
            return Judgement::Denied(Denial::Forbidden(rule.summary.name.clone()));
        }
        let permits = said.permits.iter().filter_map(|rule| self.rules.get(rule));
        let permits: Vec<(&RuleName, &Price)> = permits
            .filter_map(|rule| Some((&rule.summary.name, rule.price.as_ref()?)))
            .collect();
        if permits.is_empty() {
            return Judgement::Denied(Denial::NoRule);
        }
        price::strictest(deed, &permits, timeout_ms)
    }
}

impl Said {
    fn hear(&mut self, compiled: &Compiled, asked: (&Request, &Entities), set: &PolicySet) {
        let (request, entities) = asked;
        let response = Authorizer::new().is_authorized(request, set, entities);
        let diagnostics = response.diagnostics();
        // Cedar names the forbids when one holds, and the permits only otherwise; a set of a shelf
        // that has both is denied then, as all is.
        for id in diagnostics.reason() {
            let id = id.to_string();
            match compiled.rules.get(&id).map(|rule| rule.summary.effect) {
                Some(Effect::Permit) => drop(self.permits.insert(id)),
                Some(Effect::Forbid) => drop(self.forbids.insert(id)),
                None => {}
            }
        }
        for error in diagnostics.errors() {
            let cedar_policy::AuthorizationError::PolicyEvaluationError(error) = error;
            self.broken
                .insert(error.policy_id().to_string(), error.to_string());
        }
    }
}

/// What a rule speaks of. A permit names one action, for its price depends on it.
fn deeds(
    vocabulary: &Vocabulary,
    effect: Effect,
    constraint: &ActionConstraint,
) -> Result<Vec<Deed>, String> {
    let known = |action: &EntityUid| {
        let unknown = || {
            let names = Deed::ALL.map(Deed::as_str).join(", ");
            format!("{action} is no action; there are {names}")
        };
        vocabulary.deed(action).ok_or_else(unknown)
    };
    match (effect, constraint) {
        (_, ActionConstraint::Eq(action)) => Ok(vec![known(action)?]),
        (Effect::Permit, ActionConstraint::Any | ActionConstraint::In(_)) => Err(
            "a permit names exactly one action, as in action == Action::\"command:execute\""
                .to_owned(),
        ),
        (Effect::Forbid, ActionConstraint::Any) => Ok(Deed::ALL.to_vec()),
        (Effect::Forbid, ActionConstraint::In(actions)) => {
            let deeds: Result<BTreeSet<Deed>, String> = actions.iter().map(known).collect();
            Ok(deeds?.into_iter().collect())
        }
    }
}

/// A resource is in nothing, so `in` would be another way to write `==` that reads like more.
fn resource(vocabulary: &Vocabulary, constraint: &ResourceConstraint) -> Result<(), String> {
    match constraint {
        ResourceConstraint::Any | ResourceConstraint::Is(_) => Ok(()),
        ResourceConstraint::Eq(named)
            if *named.type_name() == vocabulary.agent
                || *named.type_name() == vocabulary.command =>
        {
            Ok(())
        }
        ResourceConstraint::Eq(named)
        | ResourceConstraint::In(named)
        | ResourceConstraint::IsIn(_, named) => Err(format!(
            "a request and a host are in nothing, so `resource in {named}` says little; \
             write `resource`, `resource is Command` or `resource == Agent::\"name\"`"
        )),
    }
}

/// Every text in a rule's JSON form: what it looks at is among them.
fn words(json: &Value, found: &mut BTreeSet<String>) {
    match json {
        Value::String(text) => drop(found.insert(text.clone())),
        Value::Array(items) => items.iter().for_each(|item| words(item, found)),
        Value::Object(fields) => fields.values().for_each(|value| words(value, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
