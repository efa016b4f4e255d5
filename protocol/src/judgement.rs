//! What a policy says of a request: the question, the answer, and the one who answers.
//!
//! The fold decides with a [`Judge`] at hand and knows no policy language. A judge is a pure
//! function of its arguments: server, projections and auditor get the same answer at the same
//! position, or the audit fails.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::command::{Act, CommandSpec};
use crate::event::ChangeBody;
use crate::name::{Principal, RuleName, Time, TokenId};
use crate::policy::Policy;
use crate::quorum::Requirement;
use crate::rights::Rights;
use crate::target::TargetList;

/// A request, and everything that a rule may look at.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Roles, groups, labels and open reviews at this position.
    pub rights: &'a Rights,
    /// Who asks.
    pub requester: &'a Principal,
    /// With which API token, if it was not a person's own key.
    pub token: Option<&'a TokenId>,
    /// What would run, as it was signed.
    pub act: &'a Act,
    /// What would run, in words.
    pub spec: &'a CommandSpec,
    /// Where.
    pub targets: &'a TargetList,
    /// When: the time of the entry that is decided.
    pub now: Time,
}

/// A change of hosts, whose quorum a rule may set. Other changes are the administrators' alone.
#[derive(Debug, Clone, Copy)]
pub struct ChangeQuestion<'a> {
    /// Roles, groups and labels at this position.
    pub rights: &'a Rights,
    /// Who asks.
    pub requester: &'a Principal,
    /// What would change.
    pub body: &'a ChangeBody,
    /// When.
    pub now: Time,
}

/// What the policy says. Nothing is allowed without [`Judgement::Permitted`].
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// Permitted, at this price.
    Permitted(Requirement),
    /// Not permitted.
    Denied(Denial),
}

/// Why a request is not permitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denial {
    /// No rule permits it.
    NoRule,
    /// These rules forbid it; the first by name.
    Forbidden(RuleName),
    /// A rule permits it within a limit that it exceeds: which rule, and what the limit is.
    Limit(RuleName, String),
    /// Hosts would run more different command lines than are judged at once: a sentence that says how many.
    Lines(String),
    /// A rule could not be evaluated, so nothing is permitted.
    Broken(String),
}

/// Reads policies. Pure: the same arguments give the same answer, everywhere and for ever.
pub trait Judge: fmt::Debug + Send + Sync {
    /// Says whether a policy can be published.
    ///
    /// # Errors
    /// What is wrong with it, in sentences.
    fn check(&self, policy: &Policy) -> Result<(), String>;

    /// What the policy says of a request.
    fn judge(&self, policy: &Policy, question: &Question<'_>) -> Judgement;

    /// What the policy says where hosts run different command lines: each of `lines` in the place of the
    /// question's own. A judge that sees the same in some of them may say it once; it stops at a denial.
    fn judge_each(
        &self,
        policy: &Policy,
        question: &Question<'_>,
        lines: &[CommandSpec],
    ) -> Vec<Judgement> {
        let judged = |spec| self.judge(policy, &Question { spec, ..*question });
        lines.iter().map(judged).collect()
    }

    /// What the policy demands of a change of hosts; nothing when no rule speaks of it, and then
    /// the administrators' threshold holds.
    fn judge_change(&self, policy: &Policy, question: &ChangeQuestion<'_>) -> Option<Requirement>;
}
