//! What rights and policy ask of a request: when it comes in, and again while it waits.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::{Attachment, MAX_AHEAD_US, State};
use crate::command::{CommandSpec, MAX_LIFETIME_US};
use crate::event::Event;
use crate::facts::{self, FactValue, Run, UseError};
use crate::judgement::{Denial, Judge, Judgement, Question};
use crate::lifecycle::Command;
use crate::name::Time;
use crate::policy::Policy;
use crate::quorum::Requirement;
use crate::refusal::{Refusal, require};
use crate::retry;
use crate::rights::AgentRecord;
use crate::rollout::Gap;
use crate::target::{TargetLine, TargetList};

impl State {
    /// Where the earlier command is held, a retry of it has to be one. Who lets requests into a log
    /// holds it ([`State::holds_retried`]); in an excerpt it may not be.
    pub(super) fn may_retry(&self, command: &Command) -> Result<(), Refusal> {
        let Some(retry) = &command.request.retry else {
            return Ok(());
        };
        let earlier = self.commands.get(&retry.of);
        earlier.map_or(Ok(()), |earlier| retry::check(earlier, command, retry))
    }

    /// For whoever has the whole log: what an event would run again is held, so that it is looked at.
    ///
    /// # Errors
    /// There is no such command.
    pub fn holds_retried(&self, event: &Event) -> Result<(), Refusal> {
        let Event::CommandRequested(request) = event else {
            return Ok(());
        };
        let earlier = request.retry.as_ref().map(|retry| &retry.of);
        let is_held = earlier.is_none_or(|id| self.commands.contains_key(id));
        require(is_held, Refusal::UnknownCommand)
    }

    /// For whoever has the whole log and all its documents: what hosts have signed that a request uses is
    /// at hand, so that it is compared.
    ///
    /// # Errors
    /// It is not.
    pub fn holds_facts(&self, attachment: &Attachment) -> Result<(), Refusal> {
        let Attachment::Request(Some(targets), _) = attachment else {
            return Ok(());
        };
        for line in targets.lines().iter().filter(|line| line.facts.is_some()) {
            let record = self.rights.agent_record(&line.agent);
            let signed = record.and_then(|record| record.facts.as_ref());
            if signed.is_some_and(|signed| signed.facts.is_none()) {
                let why = UseError::Withheld(line.agent.clone());
                return Err(Refusal::FactsDiffer(why.to_string()));
            }
        }
        Ok(())
    }

    pub(super) fn may_request(&self, command: &Command) -> Result<(), Refusal> {
        let (act, targets) = (command.act(), command.targets.as_ref());
        let asked_at = command.requested.time;
        require(act.expires_at > asked_at, Refusal::Late)?;
        // The payload binds its end to its own beginning; this, to the ledger's clock.
        let longest = MAX_LIFETIME_US.saturating_add(MAX_AHEAD_US);
        let stays = act.expires_at.micros_since(asked_at);
        require(stays <= longest, Refusal::Lifetime)?;
        if !act.break_glass {
            // That one waits for nobody: what else waits must not keep it out.
            self.waiting.has_room_for(command)?;
        }
        if let (Some(spec), Some(targets)) = (&command.spec, targets) {
            facts::runs(spec, targets).map_err(unusable)?;
        }
        for line in targets.into_iter().flat_map(TargetList::lines) {
            let record = self.rights.agent_record(&line.agent);
            let record = record.ok_or(Refusal::UnknownAgent)?;
            let same = record.key == line.key_id && line.spec == act.spec.digest;
            require(same, Refusal::Targets)?;
            require(!record.drained, Refusal::Drained)?;
            check_facts(line, record)?;
        }
        if let Some(token) = &command.request.token {
            let asked = (act, command.spec.as_ref(), targets);
            self.rights.token_may_ask(token, asked)?;
        }
        if act.break_glass {
            require(self.rights.has_room_for_a_review(), Refusal::TooManyOpen)?;
        }
        // Where a document is withheld, nobody can judge again what the ledger judged then.
        self.judgement(command, command.requested.time)
            .map_or(Ok(()), |judged| judged.map(drop))
    }

    /// What the policy says at `now` of a command that waits. Nothing where a document that the judge
    /// needs is not at hand.
    pub(super) fn judgement(
        &self,
        command: &Command,
        now: Time,
    ) -> Option<Result<Requirement, Refusal>> {
        if let Err(refusal) = self.still_asks(command, now) {
            return Some(Err(refusal));
        }
        let in_force = self.rights.policy()?;
        let targets = command.targets.as_ref()?;
        let question = Question {
            rights: &self.rights,
            requester: command.requester(),
            token: command.request.token.as_ref(),
            act: command.act(),
            spec: command.spec.as_ref()?,
            targets,
            now,
        };
        Some(judge_request(self.judge(), &in_force.policy, &question))
    }

    /// A request stands for as long as whoever signed it could sign it: a key that is revoked because
    /// somebody stole it must not leave requests behind that others still approve.
    pub(super) fn still_asks(&self, command: &Command, now: Time) -> Result<(), Refusal> {
        let request = &command.request;
        let key = self.rights.key(&request.signer);
        let signs = key.is_some_and(|key| key.is_in_force(now));
        require(signs, Refusal::RequesterEnded)?;
        let Some(token) = &request.token else {
            return Ok(());
        };
        let record = self.rights.token(token);
        let speaks = record.is_some_and(|record| record.is_in_force(now));
        let asked = (
            command.act(),
            command.spec.as_ref(),
            command.targets.as_ref(),
        );
        let may = speaks && self.rights.token_may_ask(token, asked).is_ok();
        require(may, Refusal::RequesterEnded)
    }

    /// Says whether all that a judge needs is at hand.
    pub(super) const fn is_judgeable(&self, command: &Command) -> bool {
        let documents = command.targets.is_some() && command.spec.is_some();
        documents && self.rights.policy().is_some()
    }

    /// The time at which a command that waits is looked at, where no entry decides: of the newest one
    /// that could matter.
    pub(super) fn judged_at(&self, command: &Command) -> Time {
        let last = command.last_word();
        self.rights
            .changed_at()
            .map_or(last, |changed| changed.max(last))
    }

    /// What a command that waits needs, here and now.
    ///
    /// # Errors
    /// The policy does not permit it any more, or its words are withheld.
    pub fn requirement(&self, command: &Command) -> Result<Requirement, Refusal> {
        self.requirement_at(command, self.judged_at(command))
    }

    pub(super) fn requirement_at(
        &self,
        command: &Command,
        now: Time,
    ) -> Result<Requirement, Refusal> {
        self.judgement(command, now).unwrap_or(Err(Refusal::Spec))
    }
}

/// What a policy asks of a request, as the ledger takes it: the judge's word, and what every request
/// has to keep to. Also for whoever asks what would be.
///
/// # Errors
/// Why the request is not permitted.
pub fn judge_request(
    judge: &dyn Judge,
    policy: &Policy,
    question: &Question<'_>,
) -> Result<Requirement, Refusal> {
    let lines = command_lines(question)?;
    let judgements = if lines.is_empty() {
        alloc::vec![judge.judge(policy, question)]
    } else {
        judge.judge_each(policy, question, &lines)
    };
    let mut common: Option<Requirement> = None;
    for judgement in judgements {
        let requirement = match judgement {
            Judgement::Permitted(requirement) => requirement,
            Judgement::Denied(denial) => return Err(refused_by(denial)),
        };
        let same = common.as_ref().is_none_or(|before| *before == requirement);
        require(same, Refusal::OverLimit(JUDGED_APART.to_string()))?;
        common = Some(requirement);
    }
    // A judge that says nothing permits nothing.
    within_limits(common.ok_or(Refusal::NoRule)?, question)
}

/// What the policy demands must be one thing for all hosts.
const JUDGED_APART: &str = "with the facts of its hosts put in, the policy demands other approvals of some \
    hosts than of others; ask for those hosts in a request of their own";

/// What hosts really run, each different one once; nothing where all run the words as they are.
fn command_lines(question: &Question<'_>) -> Result<Vec<CommandSpec>, Refusal> {
    let runs = facts::runs(question.spec, question.targets);
    let runs = runs.map_err(unusable)?;
    let spec = |run: Run<'_>| CommandSpec {
        argv: run.words,
        ..question.spec.clone()
    };
    Ok(runs.into_iter().map(spec).collect())
}

fn unusable(error: UseError) -> Refusal {
    let why = error.to_string();
    if error == UseError::TooLong {
        Refusal::OverLimit(why)
    } else {
        Refusal::Facts(why)
    }
}

/// The facts in a host's line have the values that the host signed last.
fn check_facts(line: &TargetLine, record: &AgentRecord) -> Result<(), Refusal> {
    let Some(own) = &line.facts else {
        return Ok(());
    };
    let differ = |what: String| Err(Refusal::FactsDiffer(what));
    let host = &line.agent;
    let Some(signed) = &record.facts else {
        return differ(UseError::Unsigned(host.clone()).to_string());
    };
    // Where its document is withheld, nobody can look again.
    let Some(signed) = &signed.facts else {
        return Ok(());
    };
    let Some((name, value)) = own.first_other(signed) else {
        return Ok(());
    };
    differ(format!(
        "the line of {host} says {value} of its fact {name}, and the host has signed {} last: it \
         changed since, or somebody made it up; ask anew",
        signed.get(name).map_or("nothing", FactValue::as_str),
    ))
}

fn refused_by(denial: Denial) -> Refusal {
    match denial {
        Denial::NoRule => Refusal::NoRule,
        Denial::Forbidden(rule) => Refusal::ForbiddenBy(rule),
        Denial::Limit(rule, limit) => {
            Refusal::OverLimit(format!("the rule {rule} permits this only {limit}"))
        }
        Denial::Lines(why) => Refusal::OverLimit(why),
        Denial::Broken(why) => Refusal::PolicyBroken(why),
    }
}

/// What the rules demand, as far as it is about these hosts.
fn within_limits(
    mut requirement: Requirement,
    question: &Question<'_>,
) -> Result<Requirement, Refusal> {
    if let Err(why) = requirement.check() {
        return Err(Refusal::PolicyBroken(why.0.to_string()));
    }
    require(
        requirement.break_glass.is_some() == question.act.break_glass,
        Refusal::NoRule,
    )?;
    let mut gaps = Vec::with_capacity(requirement.gaps.len());
    for gap in requirement.gaps {
        if is_kept_apart(&gap, question)? {
            gaps.push(gap);
        }
    }
    requirement.gaps = gaps;
    let asked = question.act.rollout.as_ref();
    if let Some(gap) = asked.and_then(|rollout| rollout.gap.as_ref()) {
        let about = is_kept_apart(gap, question)?;
        require(about, Refusal::NoHostWithLabel)?;
    }
    Ok(requirement)
}

/// Whether a gap is about the hosts of a request: about all of them or about none, because they
/// run one after the other then.
fn is_kept_apart(gap: &Gap, question: &Question<'_>) -> Result<bool, Refusal> {
    let Some(label) = &gap.label else {
        return Ok(true);
    };
    let lines = question.targets.lines();
    let carries = |line: &&TargetLine| {
        let mut labels = question.rights.labels(&line.agent);
        labels.any(|own| own.is_within(label))
    };
    let count = lines.iter().filter(carries).count();
    if count == 0 || count == lines.len() {
        return Ok(count > 0);
    }
    Err(Refusal::OverLimit(format!(
        "hosts with the label {label} are kept apart, and {count} of these {} are such; ask for them in a \
         request of their own",
        lines.len()
    )))
}
