//! Whose turn it is in a rollout; pause, resume, continue, and hosts that are skipped.
//!
//! Here stands what the command's own events say. Gaps for a label reach over all commands: the
//! fold knows those.

use alloc::vec::Vec;

use super::command::{Command, Position, Stage};
use super::execution::{Execution, Over, Released};
use super::status::ExecutionStatus;
use crate::event::{ExecutionReleased, ExecutionSkipped, SkipReason};
use crate::hash::StatementId;
use crate::name::{AgentName, Label, Time};
use crate::refusal::{Refusal, require};
use crate::rollout::{self, Plan};

/// A turn that may begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// Which, from 0.
    pub number: u64,
    /// Whose.
    pub agent: AgentName,
    /// The ends that it waited for.
    pub waited_for: Vec<StatementId>,
    /// The labels whose gaps it stands under, sorted.
    pub labels: Vec<Label>,
    /// Until when its host may start.
    pub start_before: Time,
}

impl Turn {
    /// The same turn, which also waited for these ends, each named once.
    pub(crate) fn after(mut self, others: &[StatementId]) -> Self {
        let own = self.waited_for.first().copied();
        let others = others.iter().copied();
        self.waited_for.extend(others.filter(|id| Some(*id) != own));
        self
    }
}

impl Command {
    /// So many hosts may end badly, once it is authorized; one more, and those that wait are skipped.
    #[must_use]
    pub fn max_errors(&self) -> Option<u64> {
        let requirement = self.requirement.as_deref()?;
        rollout::max_errors(self.act(), requirement)
    }

    /// Says whether more hosts have ended badly than it allows.
    #[must_use]
    pub fn has_too_many_errors(&self) -> bool {
        self.max_errors().is_some_and(|most| self.errors > most)
    }

    /// The plan, while turns may begin at all.
    fn running_plan(&self, now: Time) -> Option<&Plan> {
        let act = self.act();
        let in_time = act.not_before <= now && now < act.expires_at;
        let goes_on = matches!(self.stage, Stage::Authorized { .. })
            && self.cancel.is_none()
            && self.paused.is_none()
            && !self.has_too_many_errors();
        self.plan.as_ref().filter(|_| in_time && goes_on)
    }

    /// The turns that may begin at `now`, as far as this command's own events say, in their order.
    pub fn turns(&self, now: Time) -> impl Iterator<Item = Turn> + '_ {
        let planned = self.running_plan(now).zip(self.targets.as_ref());
        planned.into_iter().flat_map(move |(plan, targets)| {
            let turns = targets.by_turn();
            turns.filter_map(move |(number, line)| self.turn_of(plan, (number, &line.agent), now))
        })
    }

    /// This turn, if it may begin at `now`.
    #[must_use]
    pub fn turn(&self, number: u64, now: Time) -> Option<Turn> {
        let plan = self.running_plan(now)?;
        let line = self.targets.as_ref()?.at_turn(number)?;
        self.turn_of(plan, (number, &line.agent), now)
    }

    fn turn_of(&self, plan: &Plan, (number, agent): (u64, &AgentName), now: Time) -> Option<Turn> {
        let part = self.executions.get(agent)?;
        if part.status != ExecutionStatus::Waiting || part.released.is_some() {
            return None;
        }
        let before = self.may_begin(plan, number, now).ok()?;
        Some(Turn {
            number,
            agent: agent.clone(),
            waited_for: before.map(|over| over.id).into_iter().collect(),
            labels: plan.labels().cloned().collect(),
            start_before: plan.start_before(now, self.act().expires_at),
        })
    }

    /// Says whether a turn may begin, and whose end it waited for.
    fn may_begin(&self, plan: &Plan, turn: u64, now: Time) -> Result<Option<Over>, Refusal> {
        if plan.is_after_canary(turn) && self.continued.is_none() {
            return Err(Refusal::CanaryOpen);
        }
        let Some(before) = plan.waits_for(turn) else {
            return Ok(None);
        };
        let over = self.part_at(before).and_then(|part| part.over);
        match over {
            Some(over) if plan.free_at(over.time) <= now => Ok(Some(over)),
            Some(_) | None => Err(Refusal::TurnNotFree),
        }
    }

    fn part_at(&self, turn: u64) -> Option<&Execution> {
        let line = self.targets.as_ref()?.at_turn(turn)?;
        self.executions.get(&line.agent)
    }

    pub(super) fn release(
        &mut self,
        released: &ExecutionReleased,
        at: Position,
    ) -> Result<(), Refusal> {
        require(self.plan.is_some(), Refusal::NoRollout)?;
        require(at.time >= self.act().not_before, Refusal::NotYet)?;
        require(self.paused.is_none(), Refusal::Paused)?;
        let plan = self.running_plan(at.time).ok_or(Refusal::TurnNotFree)?;
        let start_before = plan.start_before(at.time, self.act().expires_at);
        require(
            plan.labels().eq(&released.labels),
            Refusal::Binding("labels"),
        )?;
        // A host does not hold the list, and checks the end that is shown to it by itself.
        if let Some(targets) = &self.targets {
            let line = targets.at_turn(released.turn);
            let own = line.is_some_and(|line| line.agent == released.agent);
            require(own, Refusal::Binding("turn"))?;
            let before = self.may_begin(plan, released.turn, at.time)?;
            let named = before.is_none_or(|over| released.waited_for.first() == Some(&over.id));
            require(named, Refusal::Binding("waited_for"))?;
        }
        require(
            released.start_before == start_before,
            Refusal::Binding("start_before"),
        )?;
        let part = self.authorized_execution(&released.agent)?;
        if part.status != ExecutionStatus::Waiting || part.released.is_some() {
            return Err(Refusal::Transition);
        }
        self.execution_mut(&released.agent).released = Some(Released { at, start_before });
        Ok(())
    }

    pub(super) fn skip(&mut self, skipped: &ExecutionSkipped, at: Position) -> Result<(), Refusal> {
        let stopped = self.has_too_many_errors();
        let expired = at.time >= self.act().expires_at;
        let part = self.authorized_execution(&skipped.agent)?;
        let holds = match skipped.why {
            None => expired,
            Some(SkipReason::Errors) => stopped,
            Some(SkipReason::TurnMissed) => part
                .released
                .is_some_and(|turn| at.time >= turn.start_before),
        };
        if !holds {
            return Err(Refusal::NotYet);
        }
        if part.status != ExecutionStatus::Waiting {
            return Err(Refusal::Transition);
        }
        let part = self.execution_mut(&skipped.agent);
        part.status = ExecutionStatus::Skipped;
        part.skipped = skipped.why;
        Ok(())
    }

    /// A person's word on the rollout has something to be about.
    fn require_rollout(&self) -> Result<&Plan, Refusal> {
        let authorized = matches!(self.stage, Stage::Authorized { .. });
        require(authorized && !self.status().is_final(), self.past())?;
        self.plan.as_ref().ok_or(Refusal::NoRollout)
    }

    pub(super) fn pause(&mut self, at: Position) -> Result<(), Refusal> {
        self.require_rollout()?;
        require(self.paused.is_none(), Refusal::Paused)?;
        self.paused = Some(at);
        Ok(())
    }

    pub(super) fn resume(&mut self) -> Result<(), Refusal> {
        self.require_rollout()?;
        require(self.paused.is_some(), Refusal::NotPaused)?;
        self.paused = None;
        Ok(())
    }

    /// The person has seen how all of the canary came out.
    pub(super) fn go_on(&mut self, at: Position) -> Result<(), Refusal> {
        self.require_rollout()?.canary.ok_or(Refusal::NoCanary)?;
        require(self.continued.is_none(), Refusal::NoCanary)?;
        // A host does not hold the list; that the canary is over stands on the log for it.
        require(
            self.targets.is_none() || self.waits_at_canary(),
            Refusal::CanaryOpen,
        )?;
        self.continued = Some(at);
        Ok(())
    }

    /// Says whether all of the canary is over and a person's word is awaited. Not where the list of
    /// hosts is withheld: nobody knows then who the canary is.
    #[must_use]
    pub fn waits_at_canary(&self) -> bool {
        let canary = self.plan.as_ref().and_then(|plan| plan.canary);
        let (Some(canary), Some(targets)) = (canary, &self.targets) else {
            return false;
        };
        let mut first = targets.by_turn().take_while(|(turn, _)| *turn < canary);
        self.continued.is_none()
            && first.all(|(_, line)| {
                let part = self.executions.get(&line.agent);
                part.is_some_and(|part| part.over.is_some())
            })
    }
}
