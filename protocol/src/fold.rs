//! The state that decisions read: rights, commands and agents' chains after some entries.
//!
//! `state(N) = fold(entries[0..N))`. The server folds live and on restart, an auditor folds again
//! from the bytes: both through [`State::admit`], so they cannot come to different answers.
//! A stream that is closed may be dropped and put back ([`State::close`], [`State::restore`]).

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::canonical;
use crate::command::CommandSpec;
use crate::erasure::{self, Naming};
use crate::event::{
    Author, ChangeBody, Erased, Event, ExecutionCompleted, ExecutionLost, ExecutionStarted, Seen,
};
use crate::hash::{CommandId, Hash, KeyId, StatementId};
use crate::judgement::{Denial, Judge, Judgement, Question};
use crate::lifecycle::{Approval, Command, Due, ExecutionStatus, Position, Stage, Turn, Vote};
use crate::name::{Principal, SECOND_US, Time, TokenId};
use crate::permission::{Permission, Whom};
use crate::policy::{Policy, PolicyRef};
use crate::quorum::{self, MAX_COUNTED_BYTES, Membership, Requirement};
use crate::retry;
use crate::rights::{Proposal, Rights};
use crate::rollout::{Gap, Gaps};
use crate::statement::Verified;
use crate::target::{TargetLine, TargetList};

pub use crate::refusal::{Class, Refusal};

/// How old a person's statement may be when it is entered: time to carry it over by hand.
pub const MAX_AGE_US: u64 = 24 * 3600 * SECOND_US;

/// How far a person's clock may be ahead.
pub const MAX_AHEAD_US: u64 = 120 * SECOND_US;

/// The document that some statements need to be judged, already checked against its digest.
#[derive(Debug, Clone, Default)]
pub enum Attachment {
    /// The statement needs none.
    #[default]
    None,
    /// What a `change.requested` would change, and the policy that it would publish.
    Change(ChangeBody, Option<Policy>),
    /// Where and what a `command.requested` would run, as far as it is at hand.
    Request(Option<TargetList>, Option<CommandSpec>),
    /// It needs one that this auditor does not hold; what depends on it is not re-judged.
    Withheld,
}

impl Attachment {
    /// Says whether a document that judging needs is not at hand.
    #[must_use]
    pub const fn is_withheld(&self) -> bool {
        match self {
            Self::Withheld | Self::Request(None, _) | Self::Request(_, None) => true,
            Self::None | Self::Change(..) | Self::Request(Some(_), Some(_)) => false,
        }
    }
}

/// Which stream an entry belongs to; each is folded by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stream {
    /// Keys, people, agents, policies and changes.
    Rights,
    /// One command.
    Command(CommandId),
}

impl Stream {
    /// 32 bytes that name the stream: zeros for rights, else the command's id.
    #[must_use]
    pub const fn id(&self) -> StatementId {
        match self {
            Self::Rights => StatementId::ZERO,
            Self::Command(id) => *id,
        }
    }

    /// The stream of an event whose statement has this id; heartbeats and idle statements
    /// belong to none.
    #[must_use]
    pub const fn of(event: &Event, id: StatementId) -> Option<Self> {
        let command = match event {
            crate::other_event!() | Event::AgentIdle(_) => return None,
            crate::rights_event!() => return Some(Self::Rights),
            Event::CommandRequested(_) => id,
            Event::CommandApproved(event) => event.command,
            Event::CommandRejected(event) => event.command,
            Event::CommandVotedDown(event) => event.command,
            Event::CommandWithdrawn(event) => event.command,
            Event::CommandAuthorized(event) => event.command,
            Event::CommandExpired(event) => event.command,
            Event::CommandCancelRequested(event) => event.command,
            Event::RolloutPaused(event) => event.command,
            Event::RolloutResumed(event) => event.command,
            Event::RolloutContinued(event) => event.command,
            Event::ExecutionReleased(event) => event.command,
            Event::ExecutionStarted(event) => event.command,
            Event::ExecutionRefused(event) => event.command,
            Event::ExecutionSkipped(event) => event.command,
            Event::ExecutionOutput(event) => event.command,
            Event::ExecutionCompleted(event) => event.command,
            Event::ExecutionLost(event) => event.command,
        };
        Some(Self::Command(command))
    }
}

/// The end of an agent's own chain. It belongs to the key that signs it: a new key of the same host
/// begins a new chain, and while both are in force each goes on with its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgentChain {
    /// The next `agent_seq`.
    pub next: u64,
    /// The statement before it.
    pub prev: StatementId,
}

impl AgentChain {
    /// The chain of an agent that has said nothing.
    pub const EMPTY: Self = Self {
        next: 0,
        prev: StatementId::ZERO,
    };
}

/// A statement's link on its agent's chain: whose key, number and predecessor.
#[must_use]
pub const fn agent_link(event: &Event) -> Option<(KeyId, u64, StatementId)> {
    match event {
        Event::ExecutionStarted(e) => Some((e.signer, e.agent_seq, e.agent_prev)),
        Event::ExecutionRefused(e) => Some((e.signer, e.agent_seq, e.agent_prev)),
        Event::ExecutionCompleted(e) => Some((e.signer, e.agent_seq, e.agent_prev)),
        Event::AgentKeyRetired(e) => Some((e.signer, e.agent_seq, e.agent_prev)),
        Event::AgentIdle(e) => Some((e.signer, e.agent_seq, e.agent_prev)),
        Event::ExecutionLost(e) => match (e.agent_seq, e.agent_prev) {
            (Some(seq), Some(prev)) => Some((e.signer, seq, prev)),
            _presumed => None,
        },
        Event::LedgerGenesis(_)
        | Event::ChangeRequested(_)
        | Event::ChangeApproved(_)
        | Event::ChangeRejected(_)
        | Event::AgentEnrolled(_)
        | Event::ReviewOpened(_)
        | Event::ReviewClosed(_)
        | Event::PolicySnapshot(_)
        | Event::CommandRequested(_)
        | Event::ExecutionReleased(_)
        | Event::ExecutionSkipped(_)
        | Event::ExecutionOutput(_)
        | crate::effecting_event!()
        | crate::decision_event!()
        | crate::other_event!() => None,
    }
}

/// What the ledger itself must say next, because what it holds suffices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// `command.authorized`.
    Authorize {
        /// The command.
        command: CommandId,
        /// Where its request stands.
        request_seq: u64,
        /// The approvals that count.
        approvals: Vec<u64>,
        /// The policy in force.
        policy: PolicyRef,
        /// What it asks.
        requirement: Requirement,
        /// Who of the approvers is one of whom.
        members: Vec<Membership>,
    },
    /// `command.voted_down`.
    VoteDown {
        /// The command.
        command: CommandId,
        /// The votes that count.
        rejections: Vec<u64>,
    },
    /// `review.opened`.
    OpenReview {
        /// The command.
        command: CommandId,
        /// Who ran it.
        requester: Principal,
        /// When the review is overdue.
        due_at: Time,
    },
    /// The event that puts a change into effect.
    Change {
        /// The change.
        change: StatementId,
        /// What changes.
        body: ChangeBody,
        /// The consents.
        rests_on: Vec<u64>,
    },
}

/// Says whether `seen` is a checkpoint of this very log, before the entry at `seq`.
///
/// `root` is this log's root at that size, if it has one.
///
/// # Errors
/// Ahead of the log, or another history.
pub fn check_seen(seen: &Seen, seq: u64, root: Option<Hash>) -> Result<(), Refusal> {
    if seen.size > seq {
        return Err(Refusal::SeenAhead);
    }
    if seen.size == 0 || root != Some(seen.root) {
        return Err(Refusal::SeenFork);
    }
    Ok(())
}

/// Everything that a decision reads, and the one who reads the policy.
#[derive(Debug, Clone)]
pub struct State {
    judge: Arc<dyn Judge>,
    rights: Rights,
    commands: BTreeMap<CommandId, Command>,
    chains: BTreeMap<KeyId, AgentChain>,
    /// Runs of the commands that are held and not over, by the key that started them.
    running: BTreeSet<(KeyId, CommandId)>,
    /// The last turn under each label's gap.
    gaps: Gaps,
    /// Who names the texts that a redaction is about, where that is known.
    naming: Naming,
}

impl State {
    /// The state before the first entry.
    #[must_use]
    pub fn new(judge: Arc<dyn Judge>) -> Self {
        Self {
            judge,
            rights: Rights::default(),
            commands: BTreeMap::new(),
            chains: BTreeMap::new(),
            running: BTreeSet::new(),
            gaps: Gaps::default(),
            naming: Naming::new(),
        }
    }

    /// Says who names the texts that the next decisions may erase. What was said before is forgotten.
    pub fn name_texts(&mut self, naming: Naming) {
        self.naming = naming;
    }

    /// Says whether texts may be erased here and now.
    ///
    /// # Errors
    /// Why not.
    pub fn may_erase(&self, erased: Erased<'_>) -> Result<(), Refusal> {
        erasure::may_erase(
            &self.rights,
            |id| self.commands.get(id),
            &self.naming,
            erased,
        )
    }

    /// Who reads the policy.
    #[must_use]
    pub fn judge(&self) -> &dyn Judge {
        self.judge.as_ref()
    }

    /// Keys, people, agents, policy.
    #[must_use]
    pub const fn rights(&self) -> &Rights {
        &self.rights
    }

    /// A command that is held.
    #[must_use]
    pub fn command(&self, id: &CommandId) -> Option<&Command> {
        self.commands.get(id)
    }

    /// All commands that are held.
    pub fn commands(&self) -> impl Iterator<Item = &Command> {
        self.commands.values()
    }

    /// The end of an agent's chain, if it is held.
    #[must_use]
    pub fn chain(&self, agent: &KeyId) -> Option<AgentChain> {
        self.chains.get(agent).copied()
    }

    /// Puts back a command that was dropped or is read anew.
    pub fn restore(&mut self, command: Command) {
        self.running.extend(running(&command));
        self.gaps.restore(&command);
        self.commands.insert(command.id, command);
    }

    /// Puts back the end of an agent's chain.
    pub fn restore_chain(&mut self, agent: KeyId, chain: AgentChain) {
        self.chains.insert(agent, chain);
    }

    /// Drops a command; whoever touches it again restores it first.
    pub fn close(&mut self, id: &CommandId) -> Option<Command> {
        let command = self.commands.remove(id)?;
        for run in running(&command) {
            self.running.remove(&run);
        }
        Some(command)
    }

    /// Decides whether a verified statement may stand at this position, and if so applies it.
    ///
    /// `leaf` is the hash of its entry. `seen` and the uniqueness of ids are the caller's to check.
    /// On an error nothing has changed.
    ///
    /// # Errors
    /// Why it may not.
    pub fn admit(
        &mut self,
        verified: &Verified,
        at: Position,
        leaf: Hash,
        attachment: Attachment,
    ) -> Result<(), Refusal> {
        let event = verified.event();
        if !event.kind().is_event() {
            return Err(Refusal::NotAnEvent);
        }
        self.rights.may_sign(event, verified.key(), at.time)?;
        check_made_at(event, at.time)?;
        self.check_texts(event)?;
        match Stream::of(event, at.id) {
            None => {
                // Of no stream, and yet an idle statement stands on its agent's chain.
                let link = self.check_link(event)?;
                self.continue_chain(link, at.id);
                Ok(())
            }
            Some(Stream::Rights) => {
                let proposal = match attachment {
                    Attachment::Change(body, policy) => Some(Proposal { body, policy }),
                    Attachment::None | Attachment::Request(..) | Attachment::Withheld => None,
                };
                self.admit_rights(event, at, leaf, proposal)
            }
            Some(Stream::Command(id)) => self.admit_command(id, event, at, attachment),
        }
    }

    /// Nobody names again what was redacted: it would be a text that nobody has ever had.
    fn check_texts(&self, event: &Event) -> Result<(), Refusal> {
        let is_gone = |digest| self.rights.redacted(digest).is_some();
        let gone =
            self.rights.has_redacted() && event.blobs().iter().any(|blob| is_gone(&blob.digest));
        require(!gone, Refusal::Redacted)
    }

    /// Asked for, consented to, done: each time it is looked at whether it may be erased.
    fn check_erasure(
        &self,
        event: &Event,
        proposal: Option<&Proposal>,
        now: Time,
    ) -> Result<(), Refusal> {
        // Who may not even ask learns of no hold.
        if let (Event::ChangeRequested(request), Some(proposal)) = (event, proposal)
            && let Some(erased) = proposal.body.erased()
        {
            self.rights.may_ask(&request.principal, &proposal.body)?;
            return self.may_erase(erased);
        }
        if let Event::ChangeApproved(approval) = event
            && let Some(change) = self.rights.change(&approval.change)
            && let Some(erased) = change.body.erased()
        {
            self.rights
                .may_consent(&approval.principal, change, self.judge(), now)?;
            return self.may_erase(erased);
        }
        let Event::BlobRedacted(redacted) = event else {
            return Ok(());
        };
        self.may_erase(Erased {
            command: redacted.command,
            digests: &redacted.digests,
        })
    }

    fn admit_rights(
        &mut self,
        event: &Event,
        at: Position,
        leaf: Hash,
        proposal: Option<Proposal>,
    ) -> Result<(), Refusal> {
        let link = self.check_link(event)?;
        if let Event::AgentKeyRetired(retired) = event {
            self.require_no_run(retired.signer)?;
        }
        self.check_erasure(event, proposal.as_ref(), at.time)?;
        let judge = Arc::clone(&self.judge);
        self.rights
            .apply(at, leaf, event, proposal, judge.as_ref())?;
        self.rights.forget_ended(at.time);
        self.continue_chain(link, at.id);
        Ok(())
    }

    /// Whoever holds fewer commands sees fewer runs; what the ledger let pass, everybody does.
    fn require_no_run(&self, key: KeyId) -> Result<(), Refusal> {
        let first = (key, CommandId::ZERO);
        match self.running.range(first..).next() {
            Some((running, _)) if *running == key => Err(Refusal::RunsOpen),
            Some(_) | None => Ok(()),
        }
    }

    /// A statement on a key's chain is the next one there.
    fn check_link(&self, event: &Event) -> Result<Option<(KeyId, u64)>, Refusal> {
        let Some((key, seq, prev)) = agent_link(event) else {
            return Ok(None);
        };
        let chain = self.chain(&key).unwrap_or(AgentChain::EMPTY);
        if chain == (AgentChain { next: seq, prev }) {
            Ok(Some((key, seq)))
        } else {
            Err(Refusal::AgentChain {
                expected: chain.next,
            })
        }
    }

    fn continue_chain(&mut self, link: Option<(KeyId, u64)>, id: StatementId) {
        if let Some((key, seq)) = link {
            let (next, prev) = (seq + 1, id);
            self.chains.insert(key, AgentChain { next, prev });
        }
    }

    fn admit_command(
        &mut self,
        id: CommandId,
        event: &Event,
        at: Position,
        attachment: Attachment,
    ) -> Result<(), Refusal> {
        if let Event::CommandRequested(request) = event {
            let (targets, spec) = match attachment {
                Attachment::Request(targets, spec) => (targets, spec),
                Attachment::Withheld => (None, None),
                Attachment::None | Attachment::Change(..) => return Err(Refusal::Targets),
            };
            let command = Command::open(request.clone(), targets, spec, at);
            self.may_retry(&command)?;
            self.may_request(&command)?;
            self.commands.insert(id, command);
            return Ok(());
        }
        self.may_act(id, event, at.time)?;
        let link = self.check_link(event)?;
        let command = self.commands.get_mut(&id).ok_or(Refusal::UnknownCommand)?;
        command.next(event, at)?;
        self.gaps.follow(command, event);
        match run_after(command, event) {
            Some((key, true)) => drop(self.running.insert((key, id))),
            Some((key, false)) => drop(self.running.remove(&(key, id))),
            None => {}
        }
        self.continue_chain(link, at.id);
        Ok(())
    }

    /// Where the earlier command is held, a retry of it has to be one. Who lets requests into a log
    /// holds it ([`State::holds_retried`]); in an excerpt it may not be.
    fn may_retry(&self, command: &Command) -> Result<(), Refusal> {
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

    fn may_request(&self, command: &Command) -> Result<(), Refusal> {
        let (act, targets) = (command.act(), command.targets.as_ref());
        require(act.expires_at > command.requested.time, Refusal::Late)?;
        for line in targets.into_iter().flat_map(TargetList::lines) {
            let record = self.rights.agent_record(&line.agent);
            let record = record.ok_or(Refusal::UnknownAgent)?;
            let same = record.key == line.key_id && line.spec == act.spec.digest;
            require(same, Refusal::Targets)?;
            require(!record.drained, Refusal::Drained)?;
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
    fn judgement(&self, command: &Command, now: Time) -> Option<Result<Requirement, Refusal>> {
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
    fn still_asks(&self, command: &Command, now: Time) -> Result<(), Refusal> {
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
    const fn is_judgeable(&self, command: &Command) -> bool {
        let documents = command.targets.is_some() && command.spec.is_some();
        documents && self.rights.policy().is_some()
    }

    /// The time at which a command that waits is looked at, where no entry decides: of the newest one
    /// that could matter.
    fn judged_at(&self, command: &Command) -> Time {
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

    fn requirement_at(&self, command: &Command, now: Time) -> Result<Requirement, Refusal> {
        self.judgement(command, now).unwrap_or(Err(Refusal::Spec))
    }

    /// Says whether a person has a seat of what a command that waits needs.
    #[must_use]
    pub fn may_approve(&self, command: &Command, who: &Principal) -> bool {
        let requirement = self.requirement(command);
        who != command.requester()
            && requirement.is_ok_and(|requirement| self.rights.has_seat(who, &requirement))
    }

    /// Everybody who has a seat of what a command that waits needs, sorted; never its requester.
    #[must_use]
    pub fn approvers(&self, command: &Command) -> Vec<&Principal> {
        let requirement = self.requirement(command);
        requirement.map_or_else(
            |_| Vec::new(),
            |requirement| self.seated(command, &requirement),
        )
    }

    /// Those of them who have said neither a yes nor a no that counts: for whom it waits.
    #[must_use]
    pub fn awaited(&self, command: &Command) -> Vec<&Principal> {
        let Ok(requirement) = self.requirement(command) else {
            return Vec::new();
        };
        let now = self.judged_at(command);
        let mut open = self.seated(command, &requirement);
        open.retain(|who| {
            !self.has_approved(command, who, &requirement, now)
                && !self.has_voted(command, who, &requirement, now)
        });
        open
    }

    fn seated(&self, command: &Command, requirement: &Requirement) -> Vec<&Principal> {
        let people = self.rights.people().into_iter();
        people
            .filter(|who| *who != command.requester() && self.rights.has_seat(who, requirement))
            .collect()
    }

    /// What rights say of an event on an existing command, entered at `now`.
    fn may_act(&self, id: CommandId, event: &Event, now: Time) -> Result<(), Refusal> {
        let command = self.commands.get(&id).ok_or(Refusal::UnknownCommand)?;
        match event {
            Event::CommandApproved(approval) => {
                let reason = approval.reason.is_some();
                self.may_judge(command, (&approval.principal, now), |requirement| {
                    require(reason || !requirement.reason, Refusal::ReasonMissing)?;
                    let again = self.has_approved(command, &approval.principal, requirement, now);
                    require(!again, Refusal::DuplicateApproval)
                })?;
                let in_force = self.rights.policy().map(|in_force| in_force.reference);
                require(in_force == Some(approval.policy), Refusal::OtherPolicy)
            }
            Event::CommandRejected(rejection) => {
                let reason = rejection.reason.is_some();
                let vote = rejection.vote;
                // As of the last word: the hour at which nobody may say yes keeps nobody from a no.
                let before = self.judged_at(command);
                self.may_judge(command, (&rejection.principal, before), |requirement| {
                    require(reason || !requirement.reason, Refusal::ReasonMissing)?;
                    let counts = requirement.rejections.is_some_and(|needed| needed > 1);
                    require(counts == vote, Refusal::OtherRejection)?;
                    let again = self.has_voted(command, &rejection.principal, requirement, now);
                    require(!again, Refusal::DuplicateApproval)
                })
            }
            Event::CommandVotedDown(down) => {
                let Some(judged) = self.judgement(command, now) else {
                    return Ok(());
                };
                let votes = self.votes_against(command, &judged?, now);
                require(
                    votes.as_ref() == Some(&down.rejections),
                    Refusal::Binding("rejections"),
                )
            }
            Event::CommandWithdrawn(word) => {
                require(word.principal == *command.requester(), Refusal::NotYours)
            }
            Event::CommandCancelRequested(word) => {
                let may = match &word.token {
                    Some(token) => self.token_may_cancel(command, token),
                    None => self.may_cancel(command, &word.principal),
                };
                require(may, Refusal::NotPermitted(Permission::CommandCancel))
            }
            Event::CommandAuthorized(authorized) => {
                self.still_asks(command, now)?;
                if !self.is_judgeable(command) {
                    // Withheld: who approved and how many is checked by the lifecycle all the same.
                    return Ok(());
                }
                // At its own time: one that was held back is judged by what holds when it is entered.
                let effect = self.authorization(command, now).ok_or(Refusal::Quorum)?;
                let Effect::Authorize {
                    approvals,
                    policy,
                    requirement,
                    members,
                    ..
                } = effect
                else {
                    return Err(Refusal::Quorum);
                };
                require(authorized.policy == policy, Refusal::Binding("policy"))?;
                require(
                    authorized.requirement == requirement,
                    Refusal::Binding("requirement"),
                )?;
                require(authorized.members == members, Refusal::Binding("members"))?;
                require(
                    authorized.approvals == approvals,
                    Refusal::Binding("approvals"),
                )
            }
            Event::ExecutionStarted(started) => {
                let record = self.rights.agent_record(&started.agent);
                let drained = record.is_some_and(|record| record.drained);
                require(!drained, Refusal::Drained)
            }
            Event::RolloutPaused(word) => self.may_steer(command, &word.principal),
            Event::RolloutResumed(word) => self.may_steer(command, &word.principal),
            Event::RolloutContinued(word) => self.may_steer(command, &word.principal),
            Event::ExecutionReleased(_) => self.gaps.may_begin(command, now).map(drop),
            Event::CommandExpired(_)
            | Event::ExecutionRefused(_)
            | Event::ExecutionSkipped(_)
            | Event::ExecutionOutput(_)
            | Event::ExecutionCompleted(_)
            | Event::ExecutionLost(_)
            | Event::CommandRequested(_)
            | Event::AgentIdle(_)
            | crate::rights_event!()
            | crate::other_event!() => Ok(()),
        }
    }

    /// Says whether somebody may say yes or no to a command.
    fn may_judge(
        &self,
        command: &Command,
        (who, now): (&Principal, Time),
        further: impl Fn(&Requirement) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        // Four eyes come first, so that a requester learns the real reason.
        require(who != command.requester(), Refusal::OwnRequest)?;
        if command.stage != Stage::Requested {
            // What may follow is the lifecycle's to say.
            return Ok(());
        }
        let Some(judged) = self.judgement(command, now) else {
            return Ok(());
        };
        let requirement = judged?;
        let named = self.rights.has_seat(who, &requirement);
        require(named, Refusal::NotPermitted(Permission::CommandApprove))?;
        further(&requirement)
    }

    fn may_cancel(&self, command: &Command, who: &Principal) -> bool {
        let by_right = [Permission::CommandCancel, Permission::CommandApprove];
        who == command.requester()
            || by_right
                .into_iter()
                .any(|right| self.rights.holds(who, right))
            || self.may_approve(command, who)
    }

    /// Whoever may stop a command may hold it up and let it go on.
    fn may_steer(&self, command: &Command, who: &Principal) -> Result<(), Refusal> {
        let may = self.may_cancel(command, who);
        require(may, Refusal::NotPermitted(Permission::CommandCancel))
    }

    /// A token stops what it asked for itself, and more only where it may.
    fn token_may_cancel(&self, command: &Command, token: &TokenId) -> bool {
        let record = self.rights.token(token);
        let by_right = record.is_some_and(|record| {
            self.rights
                .rights_of_token(record)
                .contains(&Permission::CommandCancel)
        });
        by_right || command.request.token.as_ref() == Some(token)
    }

    /// What passing time and ended turns demand of the ledger for a command that is held. Each is
    /// legal also after those before it: turns come when nothing else is due, and may call for more.
    #[must_use]
    pub fn due(&self, id: &CommandId, now: Time) -> Vec<Due> {
        let Some(command) = self.commands.get(id) else {
            return Vec::new();
        };
        let due = command.due(now);
        if due.is_empty() {
            let turns = self.turns(command, now).into_iter();
            return turns.map(Due::Release).collect();
        }
        due
    }

    /// The turns of a command that may begin now, in their order.
    fn turns(&self, command: &Command, now: Time) -> Vec<Turn> {
        let turns = command.turns(now).into_iter();
        turns
            .filter_map(|turn| self.with_others(command, turn, now).ok())
            .collect()
    }

    /// A turn with the ends of other commands that it waited for.
    fn with_others(&self, command: &Command, mut turn: Turn, now: Time) -> Result<Turn, Refusal> {
        let others = self.gaps.may_begin(command, now)?;
        let own = turn.waited_for.first().copied();
        let others = others.into_iter().filter(|id| Some(*id) != own);
        turn.waited_for.extend(others);
        Ok(turn)
    }

    /// Says whether anything is due at `now`, for a command that is held.
    #[must_use]
    pub fn is_due(&self, now: Time) -> bool {
        self.commands.values().any(|command| {
            command
                .next_deadline()
                .is_some_and(|deadline| deadline <= now)
                || !self.turns(command, now).is_empty()
        })
    }

    /// What a turn of a command waits for at `now`, by the whole log: the ends that its
    /// `execution.released` must name.
    ///
    /// # Errors
    /// It may not begin.
    pub fn waits_for(
        &self,
        id: &CommandId,
        number: u64,
        now: Time,
    ) -> Result<Vec<StatementId>, Refusal> {
        let command = self.commands.get(id).ok_or(Refusal::UnknownCommand)?;
        let turn = command.turn(number, now).ok_or(Refusal::TurnNotFree)?;
        Ok(self.with_others(command, turn, now)?.waited_for)
    }

    /// When a host of this command may next have its turn because of a label's gap; none while
    /// another one has it.
    #[must_use]
    pub fn gap_ends(&self, command: &Command) -> Option<Time> {
        self.gaps.free_at(command)
    }

    /// What the ledger must say now because of this event, if anything.
    #[must_use]
    pub fn effect_of(&self, event: &Event, at: Position) -> Option<Effect> {
        match event {
            Event::CommandApproved(approval) => {
                // A no that did not suffice may do so under the rule in force, and goes before a yes.
                let command = self.commands.get(&approval.command)?;
                self.end_by_votes(command, at.time)
                    .or_else(|| self.authorization(command, at.time))
            }
            Event::CommandRequested(request) if request.act.break_glass => {
                self.authorization(self.commands.get(&at.id)?, at.time)
            }
            Event::CommandRejected(rejection) if rejection.vote => {
                self.end_by_votes(self.commands.get(&rejection.command)?, at.time)
            }
            Event::CommandAuthorized(authorized) => {
                let owed = authorized.requirement.break_glass?;
                let command = self.commands.get(&authorized.command)?;
                Some(Effect::OpenReview {
                    command: command.id,
                    requester: command.requester().clone(),
                    due_at: at.time.plus_micros(owed.review_ms.saturating_mul(1000)),
                })
            }
            Event::ChangeApproved(approval) => self.change_effect(approval.change, at.time),
            Event::ChangeRequested(_) => self.change_effect(at.id, at.time),
            Event::CommandRequested(_)
            | Event::CommandRejected(_)
            | Event::CommandVotedDown(_)
            | Event::CommandWithdrawn(_)
            | Event::CommandExpired(_)
            | Event::CommandCancelRequested(_)
            | Event::RolloutPaused(_)
            | Event::RolloutResumed(_)
            | Event::RolloutContinued(_)
            | Event::LedgerGenesis(_)
            | Event::ChangeRejected(_)
            | Event::AgentEnrolled(_)
            | Event::AgentKeyRetired(_)
            | Event::AgentIdle(_)
            | Event::ReviewOpened(_)
            | Event::ReviewClosed(_)
            | Event::PolicySnapshot(_)
            | crate::execution_event!()
            | crate::other_event!() => None,
            crate::effecting_event!() => {
                let Event::BlobRedacted(redacted) = event else {
                    return None;
                };
                // Of many texts there is more to erase.
                self.change_effect(redacted.change, at.time)
            }
        }
    }

    fn change_effect(&self, change: StatementId, now: Time) -> Option<Effect> {
        let (body, rests_on) = self.rights.ready(&change, self.judge(), now)?;
        if let Some(erased) = body.erased() {
            self.may_erase(erased).ok()?;
        }
        let (body, _later) = body.in_parts();
        Some(Effect::Change {
            change,
            body,
            rests_on,
        })
    }

    /// How many approvals of a command count here and now, and how many it takes.
    ///
    /// Before the authorization an approval counts only while its key does, and only under the
    /// policy in force; afterwards what was counted then stays. Nothing when the command ended
    /// without one, or the policy does not permit it any more.
    #[must_use]
    pub fn standing(&self, command: &Command) -> Option<quorum::Verdict> {
        match command.stage {
            Stage::Requested => {
                let now = self.judged_at(command);
                self.counted(command, now).map(|counted| counted.verdict)
            }
            Stage::Authorized { verdict, .. } => Some(verdict),
            Stage::Rejected | Stage::Withdrawn | Stage::Expired | Stage::Cancelled => None,
        }
    }

    /// The end of a command against which enough have voted at `now`.
    fn end_by_votes(&self, command: &Command, now: Time) -> Option<Effect> {
        let requirement = self.requirement_at(command, now).ok()?;
        Some(Effect::VoteDown {
            command: command.id,
            rejections: self.votes_against(command, &requirement, now)?,
        })
    }

    /// The authorization of a command whose approvals suffice at `now`, and no votes against it.
    fn authorization(&self, command: &Command, now: Time) -> Option<Effect> {
        let counted = self.counted(command, now)?;
        let against = self.votes_against(command, &counted.requirement, now);
        if !counted.verdict.is_met() || against.is_some() {
            return None;
        }
        Some(Effect::Authorize {
            command: command.id,
            request_seq: command.requested.seq,
            approvals: counted.approvals,
            policy: counted.policy,
            requirement: counted.requirement,
            members: counted.members,
        })
    }

    /// Says whether an approval counts at `now`. Its person gives a new one only when it does not.
    fn counts(&self, given: &Approval, requirement: &Requirement, now: Time) -> bool {
        let in_force = self.rights.policy().map(|in_force| in_force.reference);
        let key = self.rights.key(&given.key_id);
        let age_us = requirement
            .approval_age_ms
            .map(|ms| ms.saturating_mul(1000));
        key.is_some_and(|key| key.is_in_force(now))
            && Some(given.policy) == in_force
            && (given.with_reason || !requirement.reason)
            && age_us.is_none_or(|age| now.micros_since(given.time) < age)
            && self.rights.has_seat(&given.principal, requirement)
    }

    /// Says whether a vote against a command counts at `now`.
    fn counts_against(&self, vote: &Vote, requirement: &Requirement, now: Time) -> bool {
        let key = self.rights.key(&vote.key_id);
        key.is_some_and(|key| key.is_in_force(now))
            && self.rights.has_seat(&vote.principal, requirement)
    }

    /// Whether an approval of somebody counts as things stand: another one would be one too many.
    #[must_use]
    pub fn has_approved(
        &self,
        command: &Command,
        who: &Principal,
        requirement: &Requirement,
        now: Time,
    ) -> bool {
        let mut own = command
            .approvals
            .iter()
            .filter(|given| given.principal == *who);
        own.any(|given| self.counts(given, requirement, now))
    }

    fn has_voted(
        &self,
        command: &Command,
        who: &Principal,
        requirement: &Requirement,
        now: Time,
    ) -> bool {
        let mut own = command.votes.iter().filter(|vote| vote.principal == *who);
        own.any(|vote| self.counts_against(vote, requirement, now))
    }

    fn counted(&self, command: &Command, now: Time) -> Option<Counted> {
        let policy = self.rights.policy()?.reference;
        let requirement = self.requirement_at(command, now).ok()?;
        let counts = |given: &&Approval| self.counts(given, &requirement, now);
        let mut counted: Vec<_> = command.approvals.iter().filter(counts).collect();
        let mut members = self.members(&requirement, &counted);
        let people = counted.iter().map(|given| &given.principal);
        let belongs = |who: &Principal, whom: &Whom| self.rights.belongs(who, whom);
        let verdict = quorum::count(&requirement, command.requester(), people.clone(), belongs);
        // People of one group may approve while one of another is awaited, more of them than can be
        // written down.
        if written(&counted, &members) > MAX_COUNTED_BYTES {
            let mut needed = quorum::needed(&requirement, people, belongs);
            counted.retain(|given| needed.remove(&given.principal));
            members = self.members(&requirement, &counted);
        }
        Some(Counted {
            approvals: counted.iter().map(|given| given.seq).collect(),
            policy,
            members,
            requirement,
            verdict,
        })
    }

    /// Who of these is one of whom, as far as a requirement asks.
    fn members(&self, requirement: &Requirement, counted: &[&Approval]) -> Vec<Membership> {
        let people: BTreeSet<&Principal> = counted.iter().map(|given| &given.principal).collect();
        let of = |whom: &Whom| {
            let one = people.iter().filter(|who| self.rights.belongs(who, whom));
            one.map(|who| (*who).clone()).collect::<Vec<_>>()
        };
        let electors = requirement.electors().into_iter();
        electors
            .map(|whom| Membership {
                of: whom.clone(),
                people: of(whom),
            })
            .filter(|membership| !membership.people.is_empty())
            .collect()
    }

    /// The votes against a command that count at `now`, once there are enough of them.
    fn votes_against(
        &self,
        command: &Command,
        requirement: &Requirement,
        now: Time,
    ) -> Option<Vec<u64>> {
        let counts = |vote: &&Vote| self.counts_against(vote, requirement, now);
        let counted: Vec<&Vote> = command.votes.iter().filter(counts).collect();
        let people: BTreeSet<&Principal> = counted.iter().map(|vote| &vote.principal).collect();
        let needed = requirement.rejections.unwrap_or(1) as usize;
        (people.len() >= needed).then(|| counted.iter().map(|vote| vote.seq).collect())
    }
}

/// Bytes of JSON that an authorization has for these.
fn written(approvals: &[&Approval], members: &[Membership]) -> usize {
    let seqs: Vec<u64> = approvals.iter().map(|given| given.seq).collect();
    let json = canonical::to_vec(&(seqs, members));
    json.map_or(usize::MAX, |json| json.len())
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
    match judge.judge(policy, question) {
        Judgement::Permitted(requirement) => within_limits(requirement, question),
        Judgement::Denied(denial) => Err(refused_by(denial)),
    }
}

fn require(holds: bool, otherwise: Refusal) -> Result<(), Refusal> {
    if holds { Ok(()) } else { Err(otherwise) }
}

fn refused_by(denial: Denial) -> Refusal {
    match denial {
        Denial::NoRule => Refusal::NoRule,
        Denial::Forbidden(rule) => Refusal::ForbiddenBy(rule),
        Denial::Limit(rule, limit) => {
            Refusal::OverLimit(format!("the rule {rule} permits this only {limit}"))
        }
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

/// The runs of a command that are not over: with whose key each was started.
fn running(command: &Command) -> impl Iterator<Item = (KeyId, CommandId)> + '_ {
    command
        .executions
        .values()
        .filter(|execution| execution.status == ExecutionStatus::Running)
        .filter_map(|execution| execution.started.as_ref())
        .map(|(started, _)| (started.signer, command.id))
}

/// Whose run an event began or ended, and whether it is open now.
fn run_after(command: &Command, event: &Event) -> Option<(KeyId, bool)> {
    let (Event::ExecutionStarted(ExecutionStarted { agent, .. })
    | Event::ExecutionCompleted(ExecutionCompleted { agent, .. })
    | Event::ExecutionLost(ExecutionLost { agent, .. })) = event
    else {
        return None;
    };
    let execution = command.executions.get(agent)?;
    let (started, _) = execution.started.as_ref()?;
    let is_open = execution.status == ExecutionStatus::Running;
    Some((started.signer, is_open))
}

/// The approvals of a command that count.
struct Counted {
    approvals: Vec<u64>,
    policy: PolicyRef,
    requirement: Requirement,
    members: Vec<Membership>,
    verdict: quorum::Verdict,
}

/// Refuses a person's statement that is too old or from the future.
fn check_made_at(event: &Event, now: Time) -> Result<(), Refusal> {
    let header = event.header();
    if !matches!(header.author, Author::Person(_)) {
        return Ok(());
    }
    let old = now.micros_since(header.made_at) > MAX_AGE_US;
    let ahead = header.made_at.micros_since(now) > MAX_AHEAD_US;
    if old || ahead {
        Err(Refusal::MadeAt)
    } else {
        Ok(())
    }
}
