//! The door: a [`Judge`] that reads Cedar, with the few policies it last read kept compiled.

use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use countersign_protocol::judgement::{ChangeQuestion, Denial, Judge, Judgement, Question};
use countersign_protocol::policy::Policy;
use countersign_protocol::quorum::Requirement;

use crate::compile::{Compiled, Said, Search, compile};
use crate::facts::Asked;
use crate::price::Deed;
use crate::problem::{Problem, in_one_sentence};
use crate::source::{Effect, RuleSummary};

/// How many policies stay compiled: the one in force, those that wait for consent and those that a
/// person compares, and no more, for a compiled policy is some ten times its text.
const MAX_COMPILED: usize = 8;

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
        let broken = |why: String| (Judgement::Denied(Denial::Broken(why)), None);
        let outcome = self.compiled(policy);
        let compiled = match outcome.as_ref() {
            Ok(compiled) => compiled,
            Err(problems) => return broken(in_one_sentence(problems)),
        };
        // The protocol refuses it before; a token's holder is nobody who could answer for it.
        if question.act.break_glass && question.token.is_some() {
            return (Judgement::Denied(Denial::NoRule), None);
        }
        let asked = Asked::command(compiled.vocabulary, &compiled.looked_at, question);
        let asked = match asked {
            Ok(asked) => asked,
            Err(why) => return broken(why),
        };
        let said = compiled.ask(&asked, search);
        let judgement = compiled.conclude(asked.deed, &said, Some(question.act.timeout_ms));
        (judgement, Some((asked, said)))
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
                Effect::Permit if permits.contains(id) => {
                    let own = rule.price.as_ref().and_then(|price| price.count_above);
                    let others = explanation.count_above;
                    explanation.count_above = own.into_iter().chain(others).min();
                    &mut explanation.permits
                }
                Effect::Permit => &mut explanation.near,
            };
            list.push(rule.summary.clone());
        }
        explanation
    }
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
