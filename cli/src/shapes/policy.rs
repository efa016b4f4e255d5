//! The JSON of policies and of what they say.

use std::collections::BTreeMap;

use countersign_policy::{Effect, Problem, Review, RuleChange, RuleSummary};
use countersign_protocol::policy::{Policy, PolicyRef};
use countersign_protocol::quorum::Requirement;
use countersign_protocol::refusal::Refusal;
use countersign_protocol::rights::PolicyInForce;
use countersign_protocol::short;
use serde::Serialize;

use crate::acts::{Explained, Otherwise, Price, Ruling, SnapshotDraft, WhatIf};

/// `policy show`
#[derive(Debug, Serialize)]
pub struct PolicyShape<'a> {
    /// Its digest and the entry that published it; 0 for the built-in one.
    #[serde(flatten)]
    pub reference: PolicyRef,
    /// Its text.
    pub policy: &'a str,
}

/// A policy in force.
#[must_use]
pub fn policy(in_force: &PolicyInForce) -> PolicyShape<'_> {
    PolicyShape {
        reference: in_force.reference,
        policy: in_force.policy.text(),
    }
}

/// Why something is not permitted.
#[derive(Debug, Serialize)]
pub struct RefusalShape {
    /// A stable word: `not_permitted`, `forbidden_by_rule`, `over_limit`, `policy_broken`.
    pub code: &'static str,
    /// A sentence.
    pub message: String,
}

impl From<&Refusal> for RefusalShape {
    fn from(refusal: &Refusal) -> Self {
        Self {
            code: refusal.code(),
            message: refusal.to_string(),
        }
    }
}

/// A rule.
#[derive(Debug, Serialize)]
pub struct RuleShape {
    rule: String,
    /// `permit` or `forbid`.
    effect: &'static str,
    /// Where it begins, from 1.
    line: usize,
    /// What it costs, by annotation.
    price: BTreeMap<String, String>,
}

impl From<&RuleSummary> for RuleShape {
    fn from(rule: &RuleSummary) -> Self {
        Self {
            rule: rule.name.to_string(),
            effect: match rule.effect {
                Effect::Permit => "permit",
                Effect::Forbid => "forbid",
            },
            line: rule.line,
            price: rule.annotations.iter().cloned().collect(),
        }
    }
}

/// What keeps a policy from being published, and where.
#[derive(Debug, Serialize)]
pub struct ProblemShape {
    /// From 1; 0 when it is the whole text's.
    line: usize,
    column: usize,
    rule: Option<String>,
    sentence: String,
}

/// `policy check`
#[derive(Debug, Default, Serialize)]
pub struct CheckedShape {
    /// Whether it can be published.
    pub ok: bool,
    /// Its digest, when it can.
    pub digest: Option<String>,
    /// Its rules, in the order of the text.
    pub rules: Vec<RuleShape>,
    /// What may not be meant so.
    pub warnings: Vec<String>,
    /// What keeps it from being published.
    pub problems: Vec<ProblemShape>,
}

/// A policy that can be published.
#[must_use]
pub fn checked(policy: &Policy, review: &Review) -> CheckedShape {
    CheckedShape {
        ok: true,
        digest: Some(policy.digest().to_string()),
        rules: review.rules.iter().map(RuleShape::from).collect(),
        warnings: review.warnings.clone(),
        problems: Vec::new(),
    }
}

/// One that cannot.
#[must_use]
pub fn problems(problems: &[Problem]) -> CheckedShape {
    let shapes = problems.iter().map(|problem| ProblemShape {
        line: problem.line,
        column: problem.column,
        rule: problem.rule.clone(),
        sentence: problem.sentence.clone(),
    });
    CheckedShape {
        problems: shapes.collect(),
        ..CheckedShape::default()
    }
}

/// `policy diff`: one rule.
#[derive(Debug, Serialize)]
pub struct RuleChangeShape {
    rule: String,
    /// `added`, `removed` or `changed`.
    change: &'static str,
    /// Its text as it was.
    old: Option<String>,
    /// Its text as it would be.
    new: Option<String>,
}

impl From<&RuleChange> for RuleChangeShape {
    fn from(change: &RuleChange) -> Self {
        let text = |rule: &RuleSummary| Some(rule.text.clone());
        let (rule, word, old, new) = match change {
            RuleChange::Added(new) => (new, "added", None, text(new)),
            RuleChange::Removed(old) => (old, "removed", text(old), None),
            RuleChange::Changed { old, new } => (new, "changed", text(old), text(new)),
        };
        Self {
            rule: rule.name.to_string(),
            change: word,
            old,
            new,
        }
    }
}

/// Seats, and who could sit there.
#[derive(Debug, Serialize)]
pub struct SeatsShape {
    approvals: u32,
    from: Vec<String>,
    people: Vec<String>,
}

/// What a request costs.
#[derive(Debug, Serialize)]
pub struct PriceShape {
    requirement: Requirement,
    demands: Vec<Vec<SeatsShape>>,
    /// Everybody who could approve, without the requester.
    approvers: Vec<String>,
    /// Whether all of them together would be enough.
    can_be_met: bool,
}

impl From<&Price> for PriceShape {
    fn from(price: &Price) -> Self {
        let demands = price.demands.iter().map(|demand| {
            let seats = demand.iter().map(|seats| SeatsShape {
                approvals: seats.approvals,
                from: seats.from.iter().map(ToString::to_string).collect(),
                people: seats.people.iter().map(ToString::to_string).collect(),
            });
            seats.collect()
        });
        Self {
            requirement: price.requirement.clone(),
            demands: demands.collect(),
            approvers: price.approvers.iter().map(ToString::to_string).collect(),
            can_be_met: price.can_be_met,
        }
    }
}

/// `policy explain`
#[derive(Debug, Serialize)]
pub struct ExplainedShape {
    permitted: bool,
    /// Only when permitted.
    price: Option<PriceShape>,
    /// Only when not.
    denied: Option<RefusalShape>,
    permits: Vec<RuleShape>,
    forbids: Vec<RuleShape>,
    near: Vec<RuleShape>,
    drained: Vec<String>,
}

/// What a policy says of a request.
#[must_use]
pub fn explained(view: &Explained) -> ExplainedShape {
    let shapes = |rules: &[RuleSummary]| rules.iter().map(RuleShape::from).collect();
    ExplainedShape {
        permitted: view.outcome.is_ok(),
        price: view.outcome.as_ref().ok().map(PriceShape::from),
        denied: view.outcome.as_ref().err().map(RefusalShape::from),
        permits: shapes(&view.rules.permits),
        forbids: shapes(&view.rules.forbids),
        near: shapes(&view.rules.near),
        drained: view.drained.iter().map(ToString::to_string).collect(),
    }
}

/// A request under another policy.
#[derive(Debug, Serialize)]
pub struct OtherwiseShape {
    id: String,
    short: String,
    seq: u64,
    time_us: u64,
    requester: String,
    argv: Vec<String>,
    before: RulingShape,
    after: RulingShape,
}

/// `permitted` with its requirement, or `denied` and why.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RulingShape {
    /// What it takes.
    Permitted(Requirement),
    /// Why not.
    Denied(RefusalShape),
}

impl From<&Ruling> for RulingShape {
    fn from(ruling: &Ruling) -> Self {
        match ruling {
            Ok(requirement) => Self::Permitted(requirement.clone()),
            Err(refusal) => Self::Denied(refusal.into()),
        }
    }
}

/// `policy replay`
#[derive(Debug, Serialize)]
pub struct WhatIfShape {
    /// Requests that were looked at.
    requests: u64,
    /// Those that nobody can judge here: their words are erased or withheld.
    withheld: u64,
    /// Those that would have been judged otherwise.
    items: Vec<OtherwiseShape>,
}

impl From<&Otherwise> for OtherwiseShape {
    fn from(found: &Otherwise) -> Self {
        Self {
            id: found.id.to_string(),
            short: short::short(&found.id),
            seq: found.seq,
            time_us: found.time.as_micros(),
            requester: found.requester.to_string(),
            argv: found.argv.clone(),
            before: (&found.before).into(),
            after: (&found.after).into(),
        }
    }
}

/// What comes of judging past requests again.
#[must_use]
pub fn what_if(found: &WhatIf) -> WhatIfShape {
    WhatIfShape {
        requests: found.requests,
        withheld: found.withheld,
        items: found.otherwise.iter().map(OtherwiseShape::from).collect(),
    }
}

/// `policy snapshot`
#[derive(Debug, Serialize)]
pub struct SnapshotShape<'a> {
    /// Digest of the document.
    pub document: String,
    /// `in_force` when enough have signed it, else `waits`.
    pub status: &'static str,
    /// Entries of the log that it was made from.
    pub size: u64,
    /// Until when it holds.
    pub expires_us: u64,
    /// The least number of people.
    pub min_approvals: u32,
    /// How many signatures it takes.
    pub needed: u32,
    /// Who has signed it.
    pub signed_by: Vec<&'a str>,
    /// Administrators who have not.
    pub missing: Vec<&'a str>,
    /// The approvers.
    pub approvers: Vec<&'a str>,
    /// Where one's own signature stands; absent when there was nothing to sign.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
}

/// A snapshot as it stands.
#[must_use]
pub fn snapshot(draft: &SnapshotDraft, seq: Option<u64>) -> SnapshotShape<'_> {
    let approvers = draft.snapshot.approvers.iter();
    SnapshotShape {
        document: draft.document.reference().digest.to_string(),
        status: if draft.is_enough() {
            "in_force"
        } else {
            "waits"
        },
        size: draft.snapshot.seen.size,
        expires_us: draft.expires_at.as_micros(),
        min_approvals: draft.snapshot.min_approvals,
        needed: draft.needed,
        signed_by: draft.signed_by.iter().map(|who| who.as_str()).collect(),
        missing: draft.missing.iter().map(|who| who.as_str()).collect(),
        approvers: approvers
            .map(|approver| approver.principal.as_str())
            .collect(),
        seq,
    }
}
