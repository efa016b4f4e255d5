//! What a policy would say of a request that nobody has made: judged here, over the verified rights,
//! by the very function that the ledger judges with. Nothing is sent.

use std::collections::BTreeSet;

use countersign_policy::{CedarJudge, Explanation};
use countersign_protocol::facts;
use countersign_protocol::fold;
use countersign_protocol::judgement::Question;
use countersign_protocol::name::{AgentName, Principal, Time};
use countersign_protocol::permission::Whom;
use countersign_protocol::policy::Policy;
use countersign_protocol::quorum::{self, Requirement};
use countersign_protocol::refusal::Refusal;
use countersign_protocol::rights::Rights;

use super::connect::Client;
use super::read::RightsView;
use super::request::{RequestSpec, freeze};
use crate::clock;
use crate::failure::Failure;

/// Seats of a demand, and everybody who may sit on one of them now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeatsView {
    /// How many distinct people.
    pub approvals: u32,
    /// Of whom.
    pub from: Vec<Whom>,
    /// By name, without the requester: those with a key in force.
    pub people: Vec<Principal>,
}

/// What approving would take, with the people that there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Price {
    /// What the rules ask.
    pub requirement: Requirement,
    /// The demands, each with its seats.
    pub demands: Vec<Vec<SeatsView>>,
    /// Everybody who could approve.
    pub approvers: Vec<Principal>,
    /// Whether all of them together would be enough.
    pub can_be_met: bool,
}

/// What a policy says of a request.
#[derive(Debug, Clone)]
pub struct Explained {
    /// What it costs, or why it is not permitted.
    pub outcome: Result<Price, Refusal>,
    /// Hosts of it that take no new work, so that it could not be asked for now all the same.
    pub drained: Vec<AgentName>,
    /// The rules that speak of it, and those that nearly do.
    pub rules: Explanation,
}

/// Puts names to what a requirement demands.
#[must_use]
pub fn price(rights: &Rights, requirement: Requirement, requester: &Principal, now: Time) -> Price {
    let people: BTreeSet<&Principal> = rights
        .who_can_sign(now)
        .into_iter()
        .filter(|who| *who != requester)
        .collect();
    let of = |from: &[Whom]| -> Vec<Principal> {
        let named = |who: &Principal| from.iter().any(|whom| rights.belongs(who, whom));
        let one = people.iter().filter(|who| named(who));
        one.map(|who| (*who).clone()).collect()
    };
    let demands = requirement.demands.iter().map(|demand| {
        let seats = demand.0.iter().map(|seats| SeatsView {
            approvals: seats.approvals,
            from: seats.from.clone(),
            people: of(&seats.from),
        });
        seats.collect()
    });
    let demands: Vec<Vec<SeatsView>> = demands.collect();
    let named = demands.iter().flatten().flat_map(|seats| &seats.people);
    let approvers: BTreeSet<Principal> = named.cloned().collect();
    let belongs = |who: &Principal, whom: &Whom| rights.belongs(who, whom);
    let verdict = quorum::count(&requirement, requester, people.iter().copied(), belongs);
    Price {
        demands,
        approvers: approvers.into_iter().collect(),
        can_be_met: verdict.is_met(),
        requirement,
    }
}

/// Judges what somebody would ask for by a policy.
///
/// # Errors
/// It could not be asked for at all: outside a limit, or an unknown host.
pub fn explain(
    view: &RightsView,
    policy: &Policy,
    requester: &Principal,
    spec: &RequestSpec,
    now: Time,
) -> Result<Explained, Failure> {
    let rights = view.state.rights();
    let frozen = freeze(spec, rights, None, now)?;
    let question = frozen.question(rights, requester, now);
    let drained = |agent: &AgentName| {
        let record = rights.agent_record(agent);
        record.is_some_and(|record| record.drained)
    };
    let hosts = frozen.targets.lines().iter().map(|line| &line.agent);
    let hosts: BTreeSet<&AgentName> = hosts.filter(|agent| drained(agent)).collect();
    let outcome = fold::judge_request(view.state.judge(), policy, &question);
    Ok(Explained {
        outcome: outcome.map(|requirement| price(rights, requirement, requester, now)),
        drained: hosts.into_iter().cloned().collect(),
        rules: rules_of(policy, &question),
    })
}

/// The rules that speak of a request. Where hosts have facts of their own in it and so different command
/// lines, those of the first: the others must cost the same.
pub(super) fn rules_of(policy: &Policy, question: &Question<'_>) -> Explanation {
    let runs = facts::runs(question.spec, question.targets).unwrap_or_default();
    let mut spec = question.spec.clone();
    if let Some(run) = runs.into_iter().next() {
        spec.argv = run.words;
    }
    let spec = &spec;
    CedarJudge::shared().explain(policy, &Question { spec, ..*question })
}

fn in_force(rights: &Rights) -> Result<&Policy, Failure> {
    let in_force = rights.policy().map(|in_force| &in_force.policy);
    in_force.ok_or(Failure::from(Refusal::NoGenesis))
}

impl Client {
    /// Above how many hosts the rules that permit this want their number typed, where they say so.
    ///
    /// # Errors
    /// Nothing that could be asked for.
    pub async fn count_above(&self, spec: &RequestSpec) -> Result<Option<u32>, Failure> {
        let (view, me) = self.rights_and_me().await?;
        let (rights, now) = (view.state.rights(), clock::now());
        let frozen = freeze(spec, rights, None, now)?;
        let rules = rules_of(in_force(rights)?, &frozen.question(rights, &me, now));
        Ok(rules.count_above)
    }

    /// Refuses, without signing anything, to break glass where no rule of the policy in force allows
    /// it. Gives what it owes.
    ///
    /// # Errors
    /// No such rule, or nothing that could be asked for.
    pub async fn check_break_glass(&self, spec: &RequestSpec) -> Result<Requirement, Failure> {
        let (rights, me) = self.rights_and_me().await?;
        let policy = in_force(rights.state.rights())?;
        let explained = explain(&rights, policy, &me, spec, clock::now())?;
        let price = explained.outcome.map_err(|refusal| {
            Failure::from(refusal).hint(
                "nothing was signed; ask for it without --break-glass, so that others approve it",
            )
        })?;
        Ok(price.requirement)
    }
}
