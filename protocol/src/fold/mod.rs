//! The state that decisions read: rights, commands and agents' chains after some entries.
//!
//! `state(N) = fold(entries[0..N))`. The server folds live and on restart, an auditor folds again
//! from the bytes: both through [`State::admit`], so they cannot come to different answers.
//! A stream that is closed may be dropped and put back ([`State::close`], [`State::restore`]).
//!
//! | Here | |
//! |---|---|
//! | `stream.rs` | streams and agents' chains |
//! | `asking.rs` | what rights and policy ask of a request |
//! | `consent.rs` | who may say yes or no, what counts, when it suffices |
//! | `turns.rs` | what passing time and ended turns demand |
//! | `waiting.rs` | how much of one person waits at once |

mod asking;
mod consent;
mod stream;
mod turns;
mod waiting;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::command::CommandSpec;
use crate::erasure::{self, Naming};
use crate::event::{
    Author, ChangeBody, Erased, Event, ExecutionCompleted, ExecutionLost, ExecutionStarted, Seen,
};
use crate::facts::Facts;
use crate::hash::{CommandId, Hash, KeyId, StatementId};
use crate::judgement::Judge;
use crate::lifecycle::{Command, ExecutionStatus, Position};
use crate::name::{Principal, SECOND_US, Time, TokenId};
use crate::permission::Permission;
use crate::policy::{Policy, PolicyRef};
use crate::quorum::{Membership, Requirement};
use crate::refusal::require;
use crate::rights::{Document, Proposal, Rights};
use crate::rollout::Gaps;
use crate::statement::Verified;
use crate::target::TargetList;

use self::waiting::Waiting;

pub use asking::judge_request;
pub use stream::{AgentChain, Stream, agent_link};

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
    /// What an `agent.facts` says.
    Facts(Facts),
    /// It needs one that this auditor does not hold; what depends on it is not re-judged.
    Withheld,
}

impl Attachment {
    /// Says whether a document that judging needs is not at hand.
    #[must_use]
    pub const fn is_withheld(&self) -> bool {
        match self {
            Self::Withheld | Self::Request(None, _) | Self::Request(_, None) => true,
            Self::None | Self::Change(..) | Self::Facts(_) | Self::Request(Some(_), Some(_)) => {
                false
            }
        }
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
    /// Requests of the commands that are held and wait for people.
    waiting: Waiting,
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
            waiting: Waiting::default(),
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
        if command.is_waiting() {
            self.waiting.insert(&command);
        }
        self.commands.insert(command.id, command);
    }

    /// Puts back the end of an agent's chain.
    pub fn restore_chain(&mut self, agent: KeyId, chain: AgentChain) {
        self.chains.insert(agent, chain);
    }

    /// Drops the ends of all agents' chains; whoever touches one again restores it first.
    pub fn forget_chains(&mut self) {
        self.chains.clear();
    }

    /// Drops a command; whoever touches it again restores it first.
    pub fn close(&mut self, id: &CommandId) -> Option<Command> {
        let command = self.commands.remove(id)?;
        for run in running(&command) {
            self.running.remove(&run);
        }
        self.waiting.remove(&command);
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
                // Of no stream, and yet an idle statement stands on its agent's chain. However soon it
                // comes: an agent says one when it is asked and before it stops, and a last one that was
                // refused would be a gap in what it proves.
                let link = self.check_link(event)?;
                self.continue_chain(link, at.id);
                Ok(())
            }
            Some(Stream::Rights) => {
                let document = match attachment {
                    Attachment::Change(body, policy) => {
                        Document::Proposal(Box::new(Proposal { body, policy }))
                    }
                    Attachment::Facts(facts) => Document::Facts(facts),
                    Attachment::None | Attachment::Request(..) | Attachment::Withheld => {
                        Document::None
                    }
                };
                self.admit_rights(event, at, leaf, document)
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
        document: Document,
    ) -> Result<(), Refusal> {
        let link = self.check_link(event)?;
        if let Event::AgentKeyRetired(retired) = event {
            self.require_no_run(retired.signer)?;
        }
        self.check_erasure(event, document.proposal(), at.time)?;
        let judge = Arc::clone(&self.judge);
        self.rights
            .apply(at, leaf, event, document, judge.as_ref())?;
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
                Attachment::None | Attachment::Change(..) | Attachment::Facts(_) => {
                    return Err(Refusal::Targets);
                }
            };
            let command = Command::open(request.clone(), targets, spec, at);
            self.may_retry(&command)?;
            self.may_request(&command)?;
            self.waiting.insert(&command);
            self.commands.insert(id, command);
            return Ok(());
        }
        self.may_act(id, event, at.time)?;
        let link = self.check_link(event)?;
        let command = self.commands.get_mut(&id).ok_or(Refusal::UnknownCommand)?;
        let waited = command.is_waiting();
        command.next(event, at)?;
        if waited && !command.is_waiting() {
            self.waiting.remove(command);
        }
        self.gaps.follow(command, event);
        match run_after(command, event) {
            Some((key, true)) => drop(self.running.insert((key, id))),
            Some((key, false)) => drop(self.running.remove(&(key, id))),
            None => {}
        }
        self.continue_chain(link, at.id);
        Ok(())
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

    fn may_cancel(&self, command: &Command, who: &Principal) -> bool {
        let by_right = [Permission::CommandCancel, Permission::CommandApprove];
        who == command.requester()
            || by_right
                .into_iter()
                .any(|right| self.rights.holds(who, right))
            || self.may_sit(command, who)
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
            | Event::AgentFacts(_)
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
