//! A judge for tests: it reads a few words instead of Cedar, and says what the real one could.
//!
//! One rule a line: `2 alice,group:dev bob,carol` lets alice and whoever is in dev ask, and demands
//! two of bob and carol. A name without a sort is a user's; `-` names nobody. Further words of a rule:
//!
//! | word | what it means |
//! |---|---|
//! | `reason` | each approver says why |
//! | `age=60` | an approval counts for so many seconds |
//! | `rejections=2` | so many noes end it |
//! | `in-flight=1`, `gap=5` | hosts at a time, seconds between two |
//! | `errors=0`, `canary=1` | errors that are allowed, hosts before a person looks |
//! | `gap-label=role=dns` | the gap is between hosts with this label |
//! | `also=1:group:security` | one more seat in the same demand, for one of those |
//! | `break-glass=60` | it is a rule for breaking glass alone; the review is due in so many seconds |
//! | `agents` | it is a rule for changes of hosts alone |
//!
//! `forbid alice` forbids what the others permit. The built-in text means what it says.

use countersign_protocol::judgement::{ChangeQuestion, Denial, Judge, Judgement, Question};
use countersign_protocol::name::Label;
use countersign_protocol::permission::Whom;
use countersign_protocol::policy::{BUILT_IN, Policy};
use countersign_protocol::quorum::{BreakGlass, Demand, Requirement, Seats};
use countersign_protocol::rollout::Gap;

/// The built-in policy in this judge's words.
const BUILT_IN_RULE: &str = "2 permission:command:execute permission:command:approve";

/// Reads the words above.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Named;

/// A rule that was read.
struct Rule {
    name: String,
    may_request: Vec<Whom>,
    seats: Vec<Seats>,
    reason: bool,
    age_ms: Option<u64>,
    rejections: Option<u32>,
    in_flight: Option<u32>,
    gap_ms: Option<u64>,
    gap_label: Option<Label>,
    errors: Option<u32>,
    canary: Option<u32>,
    break_glass: Option<u64>,
    agents: bool,
    forbids: bool,
}

fn whoms(text: &str) -> Option<Vec<Whom>> {
    if text == "-" {
        return Some(Vec::new());
    }
    let one = |name: &str| match name.contains(':') {
        true => name.parse().ok(),
        false => name.parse().ok().map(Whom::User),
    };
    let mut all: Vec<Whom> = text.split(',').map(one).collect::<Option<_>>()?;
    all.sort();
    all.dedup();
    Some(all)
}

impl Rule {
    fn read(index: usize, line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let first = words.next()?;
        let mut rule = Self {
            name: format!("rule-{index}"),
            may_request: whoms(words.next()?)?,
            seats: Vec::new(),
            reason: false,
            age_ms: None,
            rejections: None,
            in_flight: None,
            gap_ms: None,
            gap_label: None,
            errors: None,
            canary: None,
            break_glass: None,
            agents: false,
            forbids: first == "forbid",
        };
        if rule.forbids {
            return words.next().is_none().then_some(rule);
        }
        rule.seats = vec![Seats {
            approvals: first.parse().ok()?,
            from: whoms(words.next()?)?,
        }];
        for word in words {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            match name {
                "reason" => rule.reason = true,
                "agents" => rule.agents = true,
                "age" => rule.age_ms = Some(value.parse::<u64>().ok()? * 1000),
                "rejections" => rule.rejections = Some(value.parse().ok()?),
                "in-flight" => rule.in_flight = Some(value.parse().ok()?),
                "gap" => rule.gap_ms = Some(value.parse::<u64>().ok()? * 1000),
                "gap-label" => rule.gap_label = Some(value.parse().ok()?),
                "errors" => rule.errors = Some(value.parse().ok()?),
                "canary" => rule.canary = Some(value.parse().ok()?),
                "break-glass" => rule.break_glass = Some(value.parse::<u64>().ok()? * 1000),
                "also" => {
                    let (approvals, from) = value.split_once(':')?;
                    rule.seats.push(Seats {
                        approvals: approvals.parse().ok()?,
                        from: whoms(from)?,
                    });
                }
                _unknown => return None,
            }
        }
        Some(rule)
    }

    fn read_all(policy: &Policy) -> Option<Vec<Self>> {
        let text = match policy.text() {
            BUILT_IN => BUILT_IN_RULE,
            text => text,
        };
        let lines = text.lines().enumerate();
        lines.map(|(index, line)| Self::read(index, line)).collect()
    }
}

/// The strictest of each.
fn compile(rules: &[&Rule]) -> Requirement {
    let mut requirement = Requirement::of(1, Vec::new());
    let broken = rules.iter().filter_map(|rule| rule.break_glass).min();
    requirement.break_glass = broken.map(|review_ms| BreakGlass { review_ms });
    requirement.demands = match broken {
        Some(_) => Vec::new(),
        None => rules
            .iter()
            .map(|rule| Demand(rule.seats.clone()))
            .collect(),
    };
    requirement.demands.sort();
    requirement.demands.dedup();
    requirement.rules = rules
        .iter()
        .map(|rule| rule.name.parse().unwrap())
        .collect();
    requirement.rules.sort();
    requirement.reason = rules.iter().any(|rule| rule.reason);
    requirement.approval_age_ms = rules.iter().filter_map(|rule| rule.age_ms).min();
    requirement.rejections = rules.iter().filter_map(|rule| rule.rejections).max();
    requirement.max_in_flight = rules.iter().filter_map(|rule| rule.in_flight).min();
    requirement.max_errors = rules.iter().filter_map(|rule| rule.errors).min();
    requirement.canary = rules.iter().filter_map(|rule| rule.canary).min();
    let longest = rules
        .iter()
        .filter_map(|rule| Some((rule.gap_ms?, &rule.gap_label)));
    let longest = longest.max_by_key(|(ms, _)| *ms);
    requirement.gaps = longest
        .map(|(ms, label)| Gap {
            label: label.clone(),
            ms,
        })
        .into_iter()
        .collect();
    requirement
}

impl Judge for Named {
    fn check(&self, policy: &Policy) -> Result<(), String> {
        let rules = Rule::read_all(policy).ok_or("a line is no rule")?;
        let permits = rules.iter().filter(|rule| !rule.forbids);
        for rule in permits {
            compile(&[rule]).check().map_err(|why| why.to_string())?;
        }
        Ok(())
    }

    fn judge(&self, policy: &Policy, question: &Question<'_>) -> Judgement {
        let Some(rules) = Rule::read_all(policy) else {
            return Judgement::Denied(Denial::Broken("a line is no rule".into()));
        };
        let token = question.token.and_then(|id| question.rights.token(id));
        let is_one = |whom: &Whom| match (token, whom) {
            // A token has the rights that it was issued with, not those of its principal.
            (Some(token), Whom::Permission(right)) => {
                question.rights.rights_of_token(token).contains(right)
            }
            _named => question.rights.belongs(question.requester, whom),
        };
        let speaks = |rule: &&Rule| !rule.agents && rule.may_request.iter().any(is_one);
        let of: Vec<&Rule> = rules.iter().filter(speaks).collect();
        if let Some(rule) = of.iter().find(|rule| rule.forbids) {
            return Judgement::Denied(Denial::Forbidden(rule.name.parse().unwrap()));
        }
        let breaks = question.act.break_glass;
        let permits = of
            .into_iter()
            .filter(|rule| rule.break_glass.is_some() == breaks);
        let permits: Vec<&Rule> = permits.collect();
        if permits.is_empty() {
            return Judgement::Denied(Denial::NoRule);
        }
        Judgement::Permitted(compile(&permits))
    }

    fn judge_change(&self, policy: &Policy, question: &ChangeQuestion<'_>) -> Option<Requirement> {
        let rules = Rule::read_all(policy)?;
        let is_one = |whom: &Whom| question.rights.belongs(question.requester, whom);
        let speaks = |rule: &&Rule| rule.agents && rule.may_request.iter().any(is_one);
        let of: Vec<&Rule> = rules.iter().filter(speaks).collect();
        (!of.is_empty()).then(|| compile(&of))
    }
}
