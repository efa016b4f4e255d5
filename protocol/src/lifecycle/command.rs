//! The state machine of one command: [`Command::next`] takes the command's own events one by one. A
//! pair of state and event that is not listed is refused.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::execution::{Execution, Over, Refused};
use super::status::{CommandStatus, ExecutionStatus};
use crate::command::{Act, CommandSpec};
use crate::event::{
    CommandApproved, CommandAuthorized, CommandRejected, CommandRequested, CommandVotedDown, Event,
    ExecutionLost, ExecutionRefused, ExecutionStarted, LossForm,
};
use crate::hash::{CommandId, KeyId, StatementId};
use crate::name::{AgentName, Principal, SECOND_US, Time};
use crate::permission::Whom;
use crate::policy::PolicyRef;
use crate::quorum::{self, Requirement, Verdict};
use crate::refusal::{Refusal, require};
use crate::rollout::{self, Plan};
use crate::target::TargetList;

/// How long after a run's own timeout the ledger presumes it lost: time for the grace before KILL,
/// for a slow disk and for a short outage of the network.
pub const LOST_GRACE_US: u64 = 60 * SECOND_US;

/// Where an event stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Its seq.
    pub seq: u64,
    /// Its entry's time.
    pub time: Time,
    /// Its statement's id.
    pub id: StatementId,
}

/// An approval that was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// Who.
    pub principal: Principal,
    /// With which key.
    pub key_id: KeyId,
    /// Under which policy.
    pub policy: PolicyRef,
    /// Whether they said why.
    pub with_reason: bool,
    /// Where it stands.
    pub seq: u64,
    /// When it was entered.
    pub time: Time,
}

/// One no of several, where a rule counts them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vote {
    /// Who.
    pub principal: Principal,
    /// With which key.
    pub key_id: KeyId,
    /// Where it stands.
    pub seq: u64,
    /// When it was entered.
    pub time: Time,
}

/// How far a command has come before its hosts act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Waits for approvals.
    Requested,
    /// Someone said no.
    Rejected,
    /// Taken back.
    Withdrawn,
    /// Out of time.
    Expired,
    /// Cancelled before it was authorized.
    Cancelled,
    /// Allowed.
    Authorized {
        /// Where the authorization stands.
        at: Position,
        /// What was counted then.
        verdict: Verdict,
    },
}

/// A command and everything that happened to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Its id.
    pub id: CommandId,
    /// Where the request stands.
    pub requested: Position,
    /// The request.
    pub request: CommandRequested,
    /// The frozen targets; unknown where the blob is withheld, and then not re-judged.
    pub targets: Option<TargetList>,
    /// What would run, in words; held while it waits for people, where it is at hand.
    pub spec: Option<CommandSpec>,
    /// Approvals, in order.
    pub approvals: Vec<Approval>,
    /// Noes that end it only together, in order.
    pub votes: Vec<Vote>,
    /// How far it has come.
    pub stage: Stage,
    /// What the policy asked, once it is authorized: who has a seat of it may stop it.
    pub requirement: Option<Box<Requirement>>,
    /// How it goes over its hosts, once it is authorized; none when all start at once.
    pub plan: Option<Plan>,
    /// Since when it is paused.
    pub paused: Option<Position>,
    /// The person's word after the canary.
    pub continued: Option<Position>,
    /// How many hosts have ended badly.
    pub errors: u64,
    /// The first `command.cancel_requested`.
    pub cancel: Option<Position>,
    /// One for each host that did something, and for each target where they are known.
    pub executions: BTreeMap<AgentName, Execution>,
}

impl Command {
    /// A command begins with its request.
    #[must_use]
    pub fn open(
        request: CommandRequested,
        targets: Option<TargetList>,
        spec: Option<CommandSpec>,
        at: Position,
    ) -> Self {
        let executions = targets
            .iter()
            .flat_map(|list| list.lines())
            .map(|line| (line.agent.clone(), Execution::WAITING))
            .collect();
        Self {
            id: at.id,
            requested: at,
            request,
            targets,
            spec,
            approvals: Vec::new(),
            votes: Vec::new(),
            stage: Stage::Requested,
            requirement: None,
            plan: None,
            paused: None,
            continued: None,
            errors: 0,
            cancel: None,
            executions,
        }
    }

    /// What would run.
    #[must_use]
    pub const fn act(&self) -> &Act {
        &self.request.act
    }

    /// Who asked.
    #[must_use]
    pub const fn requester(&self) -> &Principal {
        &self.request.principal
    }

    /// When the last of the words was said that decide whether it is allowed.
    #[must_use]
    pub fn last_word(&self) -> Time {
        let approved = self.approvals.last().map(|given| given.time);
        let voted = self.votes.last().map(|given| given.time);
        self.requested
            .time
            .max(approved.max(voted).unwrap_or(self.requested.time))
    }

    /// Takes the command's next event. On an error nothing has changed.
    ///
    /// # Errors
    /// The event may not follow.
    pub fn next(&mut self, event: &Event, at: Position) -> Result<(), Refusal> {
        self.take(event, at)?;
        let made_at = event.header().made_at;
        if let Some(part) = event.host().and_then(|host| self.executions.get_mut(host))
            && part.status.is_final()
            && part.over.is_none()
        {
            let time = rollout::over_at(made_at, at.time);
            let Position { seq, id, .. } = at;
            part.over = Some(Over { id, seq, time });
            self.errors += u64::from(part.is_error());
        }
        if self.stage != Stage::Requested {
            // Nobody judges it any more, and it may be long.
            self.spec = None;
        }
        Ok(())
    }

    fn take(&mut self, event: &Event, at: Position) -> Result<(), Refusal> {
        match event {
            Event::CommandApproved(approval) => self.approve(approval, at),
            Event::CommandRejected(rejection) if rejection.vote => self.vote(rejection, at),
            Event::CommandRejected(_) => self.end(Stage::Rejected),
            Event::CommandVotedDown(down) => self.vote_down(down),
            Event::CommandWithdrawn(_) => self.end(Stage::Withdrawn),
            Event::CommandExpired(_) => {
                require(at.time >= self.act().expires_at, Refusal::NotYet)?;
                self.end(Stage::Expired)
            }
            Event::CommandAuthorized(authorized) => self.authorize(authorized, at),
            Event::CommandCancelRequested(_) => self.cancel(at),
            Event::RolloutPaused(_) => self.pause(at),
            Event::RolloutResumed(_) => self.resume(),
            Event::RolloutContinued(_) => self.go_on(at),
            Event::ExecutionReleased(released) => self.release(released, at),
            Event::ExecutionStarted(started) => self.start(started, at),
            Event::ExecutionRefused(refused) => self.refuse(refused),
            Event::ExecutionSkipped(skipped) => self.skip(skipped, at),
            Event::ExecutionOutput(chunk) => {
                let most = self.act().output_limit;
                let run = self.run_of(&chunk.agent, Some(chunk.signer), chunk.started)?;
                run.output(chunk, at, most)
            }
            Event::ExecutionCompleted(done) => {
                let run = self.run_of(&done.agent, Some(done.signer), done.started)?;
                run.complete(done)
            }
            Event::ExecutionLost(lost) => self.lose(lost, at),
            Event::CommandRequested(_)
            | Event::AgentIdle(_)
            | crate::rights_event!()
            | crate::other_event!() => Err(Refusal::Transition),
        }
    }

    /// Says whether it waits for people.
    pub(crate) fn is_waiting(&self) -> bool {
        self.stage == Stage::Requested
    }

    /// The command's status word, rolled up from its hosts.
    #[must_use]
    pub fn status(&self) -> CommandStatus {
        match self.stage {
            Stage::Requested => CommandStatus::Requested,
            Stage::Rejected => CommandStatus::Rejected,
            Stage::Withdrawn => CommandStatus::Withdrawn,
            Stage::Expired => CommandStatus::Expired,
            Stage::Cancelled => CommandStatus::Cancelled,
            Stage::Authorized { .. } => self.roll_up(),
        }
    }

    fn roll_up(&self) -> CommandStatus {
        use ExecutionStatus as E;
        let all = |status| {
            self.executions
                .values()
                .all(|execution| execution.status == status)
        };
        let any_open = self
            .executions
            .values()
            .any(|execution| !execution.status.is_final());
        let good = self
            .executions
            .values()
            .filter(|execution| execution.succeeded())
            .count();
        if self.executions.is_empty() || all(E::Waiting) {
            CommandStatus::Authorized
        } else if any_open {
            CommandStatus::Running
        } else if good == self.executions.len() {
            CommandStatus::Completed
        } else if good > 0 {
            CommandStatus::Partial
        } else if all(E::Refused) {
            CommandStatus::Refused
        } else if all(E::Skipped) {
            CommandStatus::Expired
        } else if all(E::Cancelled) {
            CommandStatus::Cancelled
        } else if all(E::Lost) {
            CommandStatus::Lost
        } else {
            CommandStatus::Failed
        }
    }

    pub(super) const fn lost_at(&self, started: Position) -> Time {
        started
            .time
            .plus_micros(self.request.act.timeout_ms * 1000 + LOST_GRACE_US)
    }

    fn end(&mut self, stage: Stage) -> Result<(), Refusal> {
        require(self.stage == Stage::Requested, self.past())?;
        self.stage = stage;
        Ok(())
    }

    /// How to say that the command is past the point an event wants.
    pub(super) fn past(&self) -> Refusal {
        Refusal::Over(self.status())
    }

    fn approve(&mut self, approval: &CommandApproved, at: Position) -> Result<(), Refusal> {
        require(self.stage == Stage::Requested, self.past())?;
        require(at.time < self.act().expires_at, Refusal::Late)?;
        require(approval.principal != *self.requester(), Refusal::OwnRequest)?;
        require(
            approval.requester == *self.requester(),
            Refusal::Binding("requester"),
        )?;
        require(approval.act == *self.act(), Refusal::Binding("act"))?;
        self.approvals.push(Approval {
            principal: approval.principal.clone(),
            key_id: approval.signer,
            policy: approval.policy,
            with_reason: approval.reason.is_some(),
            seq: at.seq,
            time: at.time,
        });
        Ok(())
    }

    fn vote(&mut self, rejection: &CommandRejected, at: Position) -> Result<(), Refusal> {
        require(self.stage == Stage::Requested, self.past())?;
        self.votes.push(Vote {
            principal: rejection.principal.clone(),
            key_id: rejection.signer,
            seq: at.seq,
            time: at.time,
        });
        Ok(())
    }

    fn vote_down(&mut self, down: &CommandVotedDown) -> Result<(), Refusal> {
        let known = |seq: &u64| self.votes.iter().any(|vote| vote.seq == *seq);
        let all_known = !down.rejections.is_empty() && down.rejections.iter().all(known);
        require(
            all_known && is_ascending(&down.rejections),
            Refusal::Binding("rejections"),
        )?;
        self.end(Stage::Rejected)
    }

    fn authorize(&mut self, authorized: &CommandAuthorized, at: Position) -> Result<(), Refusal> {
        require(self.stage == Stage::Requested, self.past())?;
        require(at.time < self.act().expires_at, Refusal::Late)?;
        require(
            authorized.request_seq == self.requested.seq,
            Refusal::Binding("request_seq"),
        )?;
        let counted: Vec<&Approval> = authorized
            .approvals
            .iter()
            .filter_map(|seq| self.approvals.iter().find(|given| given.seq == *seq))
            .filter(|given| given.policy == authorized.policy)
            .collect();
        let known = counted.len() == authorized.approvals.len();
        require(
            is_ascending(&authorized.approvals) && known,
            Refusal::Binding("approvals"),
        )?;
        require(
            authorized.requirement.break_glass.is_some() == self.act().break_glass,
            Refusal::Binding("break_glass"),
        )?;
        let people = counted.iter().map(|given| &given.principal);
        let belongs = |who: &Principal, whom: &Whom| {
            let of = authorized
                .members
                .iter()
                .filter(|membership| membership.of == *whom);
            of.flat_map(|membership| &membership.people)
                .any(|person| person == who)
        };
        let verdict = quorum::count(&authorized.requirement, self.requester(), people, belongs);
        require(verdict.is_met(), Refusal::Quorum)?;
        self.stage = Stage::Authorized { at, verdict };
        self.plan = Plan::of(self.act(), &authorized.requirement);
        self.requirement = Some(Box::new(authorized.requirement.clone()));
        Ok(())
    }

    fn cancel(&mut self, at: Position) -> Result<(), Refusal> {
        require(!self.status().is_final(), self.past())?;
        require(self.cancel.is_none(), Refusal::AlreadyCancelled)?;
        self.cancel = Some(at);
        match self.stage {
            Stage::Requested => self.stage = Stage::Cancelled,
            Stage::Authorized { .. } => {
                let waiting =
                    |execution: &&mut Execution| execution.status == ExecutionStatus::Waiting;
                for execution in self.executions.values_mut().filter(waiting) {
                    execution.status = ExecutionStatus::Cancelled;
                    let Position { seq, time, id } = at;
                    execution.over = Some(Over { id, seq, time });
                }
            }
            Stage::Rejected | Stage::Withdrawn | Stage::Expired | Stage::Cancelled => {}
        }
        Ok(())
    }

    /// The part of a host that is a target of an authorized command. It waits where nothing was heard
    /// of it yet.
    pub(super) fn authorized_execution(&self, agent: &AgentName) -> Result<&Execution, Refusal> {
        static WAITING: Execution = Execution::WAITING;
        if !matches!(self.stage, Stage::Authorized { .. }) {
            return Err(self.past());
        }
        let listed = self
            .targets
            .as_ref()
            .is_none_or(|list| list.line_of(agent).is_some());
        require(listed, Refusal::NotATarget)?;
        Ok(self.executions.get(agent).unwrap_or(&WAITING))
    }

    /// The same, to be changed once nothing is in the way: without the list it begins to be held here,
    /// and that is a change too.
    pub(super) fn execution_mut(&mut self, agent: &AgentName) -> &mut Execution {
        self.executions
            .entry(agent.clone())
            .or_insert(Execution::WAITING)
    }

    fn refuse(&mut self, refused: &ExecutionRefused) -> Result<(), Refusal> {
        let same_key = self.is_line_of(&refused.agent, refused.signer);
        let in_turns = self.plan.is_some();
        let execution = self.authorized_execution(&refused.agent)?;
        if !same_key {
            return Err(Refusal::NotATarget);
        }
        // An agent refuses once; whoever has its key might go on for ever.
        if execution.refused.is_some() || execution.late_refusal {
            return Err(Refusal::Transition);
        }
        // Its end would let the next one begin, out of turn.
        if in_turns && execution.released.is_none() && !execution.status.is_final() {
            return Err(Refusal::NoTurn);
        }
        let execution = self.execution_mut(&refused.agent);
        match execution.status {
            ExecutionStatus::Waiting => {
                execution.status = ExecutionStatus::Refused;
                execution.refused = Some(Refused {
                    why: refused.why,
                    rule: refused.rule.clone(),
                    detail: refused.detail,
                });
            }
            ExecutionStatus::Running
            | ExecutionStatus::Completed
            | ExecutionStatus::Refused
            | ExecutionStatus::Skipped
            | ExecutionStatus::Cancelled
            | ExecutionStatus::Lost => {
                execution.late = true;
                execution.late_refusal = true;
            }
        }
        Ok(())
    }

    fn start(&mut self, started: &ExecutionStarted, at: Position) -> Result<(), Refusal> {
        let act = self.act();
        require(at.time >= act.not_before, Refusal::NotYet)?;
        require(at.time < act.expires_at, Refusal::Late)?;
        let same_key = self.is_line_of(&started.agent, started.signer);
        let cancelled = self.cancel.is_some();
        let in_turns = self.plan.is_some();
        let stopped = self.has_too_many_errors();
        let execution = self.authorized_execution(&started.agent)?;
        if cancelled {
            return Err(Refusal::Over(CommandStatus::Cancelled));
        }
        if !same_key {
            return Err(Refusal::NotATarget);
        }
        if execution.status != ExecutionStatus::Waiting {
            return Err(Refusal::AlreadyStarted);
        }
        if stopped {
            // It is skipped, and a batch may not have had room to say so.
            return Err(Refusal::TurnNotFree);
        }
        if in_turns {
            let turn = execution.released.ok_or(Refusal::NoTurn)?;
            if at.time >= turn.start_before {
                return Err(Refusal::Late);
            }
        }
        let execution = self.execution_mut(&started.agent);
        execution.status = ExecutionStatus::Running;
        execution.last_chunk = at.id;
        execution.started = Some((started.clone(), at));
        Ok(())
    }

    /// Whether the host's line names this key; without the list that is not known, and not denied.
    fn is_line_of(&self, agent: &AgentName, key: KeyId) -> bool {
        let line = self.targets.as_ref().and_then(|list| list.line_of(agent));
        line.is_none_or(|(_, line)| line.key_id == key)
    }

    /// The run that a statement names. Of the agent's keys only the one that started it speaks of
    /// it; the ledger, which presumes, needs none.
    fn run_of(
        &mut self,
        agent: &AgentName,
        speaker: Option<KeyId>,
        started: StatementId,
    ) -> Result<&mut Execution, Refusal> {
        let is_it = |(start, at): &(ExecutionStarted, Position)| {
            at.id == started && speaker.is_none_or(|key| key == start.signer)
        };
        self.executions
            .get_mut(agent)
            .filter(|run| run.started.as_ref().is_some_and(is_it))
            .ok_or(Refusal::NeverStarted)
    }

    fn lose(&mut self, lost: &ExecutionLost, at: Position) -> Result<(), Refusal> {
        let timeout_us = self.act().timeout_ms * 1000;
        let speaker = match lost.form {
            LossForm::Presumed => None,
            LossForm::Confirmed => Some(lost.signer),
        };
        let run = self.run_of(&lost.agent, speaker, lost.started)?;
        match lost.form {
            LossForm::Presumed => {
                let since = run
                    .started
                    .as_ref()
                    .map_or(at.time, |(_, started)| started.time);
                if run.status != ExecutionStatus::Running {
                    return Err(Refusal::Transition);
                }
                if at.time < since.plus_micros(timeout_us + LOST_GRACE_US) {
                    return Err(Refusal::NotYet);
                }
            }
            // The agent's own word is taken also when the ledger had given the run up: once.
            LossForm::Confirmed => {
                require(!run.is_told(), Refusal::Transition)?;
                run.late |= run.status != ExecutionStatus::Running;
            }
        }
        run.status = ExecutionStatus::Lost;
        run.lost = Some(lost.form);
        Ok(())
    }
}

fn is_ascending(seqs: &[u64]) -> bool {
    seqs.iter().zip(seqs.iter().skip(1)).all(|(a, b)| a < b)
}
