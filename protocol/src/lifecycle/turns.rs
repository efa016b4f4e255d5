//! Whose turn it is in a rollout; pause, resume, continue, and hosts that are skipped.
//!
//! Here stands what the command's own events say. Gaps for a label reach over all commands: the
//! fold knows those.

use alloc::vec::Vec;

use super::command::{Command, Position, Stage};
use super::execution::{Execution, Over, Released};
use super::status::ExecutionStatus;
use crate::event::{ExecutionReleased, ExecutionSkipped, SkipReason};
use crate::fold::Refusal;
use crate::hash::StatementId;
use crate::name::{AgentName, Label, Time};
use crate::rollout::Plan;

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

impl Command {
    /// Says whether more hosts have ended badly than the rollout allows.
    #[must_use]
    pub fn has_too_many_errors(&self) -> bool {
        let most = self.plan.as_ref().and_then(|plan| plan.max_errors);
        most.is_some_and(|most| self.errors > most)
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
    #[must_use]
    pub fn turns(&self, now: Time) -> Vec<Turn> {
        let (Some(plan), Some(targets)) = (self.running_plan(now), &self.targets) else {
            return Vec::new();
        };
        let turns = targets.by_turn();
        turns
            .filter_map(|(number, line)| self.turn_of(plan, (number, &line.agent), now))
            .collect()
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
        self.require(self.plan.is_some(), Refusal::NoRollout)?;
        self.require(at.time >= self.act().not_before, Refusal::NotYet)?;
        self.require(self.paused.is_none(), Refusal::Paused)?;
        let plan = self.running_plan(at.time).ok_or(Refusal::TurnNotFree)?;
        let start_before = plan.start_before(at.time, self.act().expires_at);
        self.require(
            plan.labels().eq(&released.labels),
            Refusal::Binding("labels"),
        )?;
        // A host does not hold the list, and checks the end that is shown to it by itself.
        if let Some(targets) = &self.targets {
            let line = targets.at_turn(released.turn);
            let own = line.is_some_and(|line| line.agent == released.agent);
            self.require(own, Refusal::Binding("turn"))?;
            let before = self.may_begin(plan, released.turn, at.time)?;
            let named = before.is_none_or(|over| released.waited_for.first() == Some(&over.id));
            self.require(named, Refusal::Binding("waited_for"))?;
        }
        self.require(
            released.start_before == start_before,
            Refusal::Binding("start_before"),
        )?;
        let part = self.authorized_execution(&released.agent)?;
        if part.status != ExecutionStatus::Waiting || part.released.is_some() {
            return Err(Refusal::Transition);
        }
        part.released = Some(Released { at, start_before });
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
        part.status = ExecutionStatus::Skipped;
        part.skipped = skipped.why;
        Ok(())
    }

    /// A person's word on the rollout has something to be about.
    fn require_rollout(&self) -> Result<&Plan, Refusal> {
        let authorized = matches!(self.stage, Stage::Authorized { .. });
        self.require(authorized && !self.status().is_final(), self.past())?;
        self.plan.as_ref().ok_or(Refusal::NoRollout)
    }

    pub(super) fn pause(&mut self, at: Position) -> Result<(), Refusal> {
        self.require_rollout()?;
        self.require(self.paused.is_none(), Refusal::Paused)?;
        self.paused = Some(at);
        Ok(())
    }

    pub(super) fn resume(&mut self) -> Result<(), Refusal> {
        self.require_rollout()?;
        self.require(self.paused.is_some(), Refusal::NotPaused)?;
        self.paused = None;
        Ok(())
    }

    /// The person has seen how all of the canary came out.
    pub(super) fn go_on(&mut self, at: Position) -> Result<(), Refusal> {
        let canary = self.require_rollout()?.canary.ok_or(Refusal::NoCanary)?;
        self.require(self.continued.is_none(), Refusal::NoCanary)?;
        if let Some(targets) = &self.targets {
            let is_over = |name: &AgentName| {
                let part = self.executions.get(name);
                part.is_some_and(|part| part.over.is_some())
            };
            let all = targets
                .by_turn()
                .take_while(|(turn, _)| *turn < canary)
                .all(|(_, line)| is_over(&line.agent));
            self.require(all, Refusal::CanaryOpen)?;
        }
        self.continued = Some(at);
        Ok(())
    }
}
