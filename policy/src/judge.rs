//! The door: a [`Judge`] that reads Cedar, with the few policies it last read kept compiled.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use countersign_protocol::command::CommandSpec;
use countersign_protocol::judgement::{ChangeQuestion, Denial, Judge, Judgement, Question};
use countersign_protocol::policy::Policy;
use countersign_protocol::quorum::Requirement;

use crate::compile::{Compiled, Said, Search, compile};
use crate::facts::{Asked, Facts, place_facts, size, words_facts};
use crate::price::Deed;
use crate::problem::{Problem, in_one_sentence};
use crate::source::{Effect, RuleSummary};

/// How many policies stay compiled: the one in force, those that wait for consent and those that a
/// person compares, and no more, for a compiled policy is some ten times its text.
const MAX_COMPILED: usize = 8;

/// What the rules may be asked about the different command lines of one request, in texts that they look at.
/// The ledger asks under its lock: some 100 ms. One command line is always judged.
pub const MAX_LOOKS: usize = 128 * 1024;

/// What asking costs by itself, in texts.
const ASKING_LOOKS: usize = 16;

/// What one rule costs that is asked, in texts.
const RULE_LOOKS: usize = 4;

type Outcome = Arc<Result<Compiled, Vec<Problem>>>;

/// Judges by policies in Cedar. Cheap to share; what it remembers changes no answer.
#[derive(Default)]
pub struct CedarJudge {
    /// The newest last. Found by the text itself: comparing it is quicker than a digest of it.
    compiled: Mutex<Vec<(Policy, Outcome)>>,
}

impl fmt::Debug for CedarJudge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CedarJudge")
    }
}

/// Why a request is judged as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The judgement.
    pub judgement: Judgement,
    /// The permits that hold, by name. Their annotations are what they cost.
    pub permits: Vec<RuleSummary>,
    /// The forbids that hold, by name.
    pub forbids: Vec<RuleSummary>,
    /// Permits that speak for this requester and this action, and whose conditions do not hold.
    pub near: Vec<RuleSummary>,
    /// Above so many hosts whoever asks types their number: the smallest of the permits that hold.
    pub count_above: Option<u32>,
}

impl CedarJudge {
    /// A judge that has read nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One for a whole program that reads one ledger after the other, so that a policy is compiled once.
    #[must_use]
    pub fn shared() -> &'static Arc<Self> {
        static SHARED: LazyLock<Arc<CedarJudge>> = LazyLock::new(Arc::default);
        &SHARED
    }

    fn compiled(&self, policy: &Policy) -> Outcome {
        let mut held = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = held.iter().position(|(known, _)| known == policy) {
            let entry = held.remove(at);
            let outcome = Arc::clone(&entry.1);
            held.push(entry);
            return outcome;
        }
        drop(held);
        let outcome = Arc::new(compile(policy.text()));
        let mut held = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if held.len() >= MAX_COMPILED {
            held.remove(0);
        }
        held.push((policy.clone(), Arc::clone(&outcome)));
        outcome
    }

    /// As [`Judge::judge`], asking every rule one by one: for the proof that passing rules by changes
    /// no judgement, and to measure what it saves.
    pub fn judge_linearly(&self, policy: &Policy, question: &Question<'_>) -> Judgement {
        self.judged(policy, question, Search::Whole).0
    }

    fn judged(
        &self,
        policy: &Policy,
        question: &Question<'_>,
        search: Search,
    ) -> (Judgement, Option<(Asked, Said)>) {
        let outcome = self.compiled(policy);
        let asking = match Asking::new(&outcome, question) {
            Ok(asking) => asking,
            Err(denial) => return (Judgement::Denied(denial), None),
        };
        match asking.of(question.spec, search) {
            Ok((judgement, asked, said)) => (judgement, Some((asked, said))),
            Err(denial) => (Judgement::Denied(denial), None),
        }
    }

    /// Says which rules speak of a request, and which nearly do.
    #[must_use]
    pub fn explain(&self, policy: &Policy, question: &Question<'_>) -> Explanation {
        let (judgement, heard) = self.judged(policy, question, Search::Shelved);
        let mut explanation = Explanation {
            judgement,
            permits: Vec::new(),
            forbids: Vec::new(),
            near: Vec::new(),
            count_above: None,
        };
        let outcome = self.compiled(policy);
        let (Ok(compiled), Some((asked, said))) = (outcome.as_ref(), heard) else {
            return explanation;
        };
        let permits = compiled.ask(&asked, Search::Permits).permits;
        for (id, rule) in &compiled.rules {
            let named = rule.named.as_ref();
            let speaks = rule.deeds.contains(&asked.deed)
                && (named.is_none_or(|whom| asked.keys.contains(whom))
                    || said.forbids.contains(id));
            let list = match rule.summary.effect {
                _ if !speaks => continue,
                Effect::Forbid if said.forbids.contains(id) => &mut explanation.forbids,
                Effect::Forbid => continue,
                Effect::Permit if permits.contains(id) => &mut explanation.permits,
                Effect::Permit => &mut explanation.near,
            };
            list.push(rule.summary.clone());
        }
        let prices = permits
            .iter()
            .filter_map(|id| compiled.rules.get(id)?.price.as_ref());
        explanation.count_above = prices.filter_map(|price| price.count_above).min();
        explanation
    }
}

/// A request before a compiled policy. From command line to command line only the words differ.
struct Asking<'a> {
    compiled: &'a Compiled,
    question: &'a Question<'a>,
    place: Facts,
}

impl<'a> Asking<'a> {
    fn new(
        outcome: &'a Result<Compiled, Vec<Problem>>,
        question: &'a Question<'a>,
    ) -> Result<Self, Denial> {
        let compiled = outcome
            .as_ref()
            .map_err(|problems| Denial::Broken(in_one_sentence(problems)))?;
        // The protocol refuses it before; a token's holder is nobody who could answer for it.
        if question.act.break_glass && question.token.is_some() {
            return Err(Denial::NoRule);
        }
        Ok(Self {
            compiled,
            question,
            place: place_facts(&compiled.looked_at, question),
        })
    }

    fn of(&self, spec: &CommandSpec, search: Search) -> Result<(Judgement, Asked, Said), Denial> {
        self.of_words(self.words(spec)?, search)
    }

    fn words(&self, spec: &CommandSpec) -> Result<Facts, Denial> {
        words_facts(&self.compiled.looked_at, spec).map_err(Denial::Broken)
    }

    fn of_words(
        &self,
        mut facts: Facts,
        search: Search,
    ) -> Result<(Judgement, Asked, Said), Denial> {
        let compiled = self.compiled;
        facts.extend(self.place.clone());
        let asked = Asked::command(
            compiled.vocabulary,
            &compiled.looked_at,
            self.question,
            facts,
        );
        let asked = asked.map_err(Denial::Broken)?;
        let said = compiled.ask(&asked, search);
        let timeout = self.question.act.timeout_ms;
        let judgement = compiled.conclude(asked.deed, &said, Some(timeout));
        Ok((judgement, asked, said))
    }

    /// Of each command line, those once of which the rules see the same.
    fn of_each(&self, lines: &[CommandSpec]) -> Result<Vec<Judgement>, Denial> {
        let mut seen: BTreeSet<Facts> = BTreeSet::new();
        let mut judgements = Vec::new();
        let mut looks = 0;
        for spec in lines {
            let words = self.words(spec)?;
            if !seen.insert(words.clone()) {
                continue;
            }
            if looks > MAX_LOOKS {
                return Err(too_many_lines(lines.len(), judgements.len()));
            }
            let (judgement, asked, _) = self.of_words(words, Search::Shelved)?;
            let rules = self.compiled.count_asked(&asked);
            looks += ASKING_LOOKS + RULE_LOOKS * rules + size(&asked.facts);
            let is_denied = matches!(judgement, Judgement::Denied(_));
            judgements.push(judgement);
            if is_denied {
                break;
            }
        }
        Ok(judgements)
    }
}

fn too_many_lines(lines: usize, judged: usize) -> Denial {
    Denial::Lines(format!(
        "with the facts of its hosts put in, this comes to {lines} different command lines, and the rules look at \
         what differs in them, so that {judged} could be judged at once; ask for fewer hosts at a time"
    ))
}

impl Judge for CedarJudge {
    fn check(&self, policy: &Policy) -> Result<(), String> {
        match self.compiled(policy).as_ref() {
            Ok(_) => Ok(()),
            Err(problems) => Err(in_one_sentence(problems)),
        }
    }

    fn judge(&self, policy: &Policy, question: &Question<'_>) -> Judgement {
        self.judged(policy, question, Search::Shelved).0
    }

    fn judge_each(
        &self,
        policy: &Policy,
        question: &Question<'_>,
        lines: &[CommandSpec],
    ) -> Vec<Judgement> {
        let outcome = self.compiled(policy);
        let judged = Asking::new(&outcome, question).and_then(|asking| asking.of_each(lines));
        judged.unwrap_or_else(|denial| vec![Judgement::Denied(denial)])
    }

    fn judge_change(&self, policy: &Policy, question: &ChangeQuestion<'_>) -> Option<Requirement> {
        let outcome = self.compiled(policy);
        let compiled = outcome.as_ref().as_ref().ok()?;
        let asked = Asked::change(compiled.vocabulary, &compiled.looked_at, question);
        let asked = asked.ok()??;
        let said = compiled.ask(&asked, Search::Shelved);
        // A forbid, or a rule that fails, takes the change back to the administrators.
        match compiled.conclude(Deed::Manage, &said, None) {
            Judgement::Permitted(requirement) => Some(requirement),
            Judgement::Denied(_) => None,
        }
    }
}
