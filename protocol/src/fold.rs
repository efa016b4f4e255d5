//! The state that decisions read: rights, commands and agents' chains after some entries.
//!
//! `state(N) = fold(entries[0..N))`. The server folds live and on restart, an auditor folds again
//! from the bytes: both through [`State::admit`], so they cannot come to different answers.
//! A stream that is closed may be dropped and put back ([`State::close`], [`State::restore`]).

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::event::{
    Author, Event, ExecutionCompleted, ExecutionLost, ExecutionStarted, Kind, Seen,
};
use crate::hash::{CommandId, Hash, KeyId, StatementId};
use crate::lifecycle::{Command, ExecutionStatus, Position, Stage};
use crate::name::{Principal, SECOND_US, Time};
use crate::policy::PolicyRef;
use crate::quorum::{self, Requirement};
use crate::rights::{ChangeBody, Rights};
use crate::statement::Verified;
use crate::target::TargetList;

pub use crate::refusal::{Class, Refusal};

/// How old a person's statement may be when it is entered: time to carry it over by hand.
pub const MAX_AGE_US: u64 = 24 * 3600 * SECOND_US;

/// How far a person's clock may be ahead.
pub const MAX_AHEAD_US: u64 = 120 * SECOND_US;

/// The document that some statements need to be judged, already checked against its digest.
#[derive(Debug, Clone, Default)]
#[expect(
    clippy::large_enum_variant,
    reason = "lives as long as one statement is judged"
)]
pub enum Attachment {
    /// The statement needs none.
    #[default]
    None,
    /// The body of a `change.requested`.
    Body(ChangeBody),
    /// The targets of a `command.requested`.
    Targets(TargetList),
    /// It needs one that this auditor does not hold; what depends on it is not re-judged.
    Withheld,
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

    /// The stream of an event whose statement has this id; heartbeats belong to none.
    #[must_use]
    pub const fn of(event: &Event, id: StatementId) -> Option<Self> {
        let command = match event {
            Event::LedgerHeartbeat(_) | Event::SessionChallenge(_) => return None,
            Event::LedgerGenesis(_)
            | Event::ChangeRequested(_)
            | Event::ChangeApproved(_)
            | Event::ChangeRejected(_)
            | Event::KeyAdded(_)
            | Event::KeyRevoked(_)
            | Event::PolicyPublished(_)
            | Event::AgentEnrolled(_)
            | Event::AgentAccepted(_)
            | Event::AgentKeyRetired(_) => return Some(Self::Rights),
            Event::CommandRequested(_) => id,
            Event::CommandApproved(event) => event.command,
            Event::CommandRejected(event) => event.command,
            Event::CommandWithdrawn(event) => event.command,
            Event::CommandAuthorized(event) => event.command,
            Event::CommandExpired(event) => event.command,
            Event::CommandCancelRequested(event) => event.command,
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
        Event::ExecutionLost(e) => match (e.agent_seq, e.agent_prev) {
            (Some(seq), Some(prev)) => Some((e.signer, seq, prev)),
            _presumed => None,
        },
        Event::LedgerGenesis(_)
        | Event::LedgerHeartbeat(_)
        | Event::ChangeRequested(_)
        | Event::ChangeApproved(_)
        | Event::ChangeRejected(_)
        | Event::KeyAdded(_)
        | Event::KeyRevoked(_)
        | Event::PolicyPublished(_)
        | Event::AgentEnrolled(_)
        | Event::AgentAccepted(_)
        | Event::CommandRequested(_)
        | Event::CommandApproved(_)
        | Event::CommandRejected(_)
        | Event::CommandWithdrawn(_)
        | Event::CommandAuthorized(_)
        | Event::CommandExpired(_)
        | Event::CommandCancelRequested(_)
        | Event::ExecutionSkipped(_)
        | Event::ExecutionOutput(_)
        | Event::SessionChallenge(_) => None,
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

/// Everything that a decision reads.
#[derive(Debug, Clone, Default)]
pub struct State {
    rights: Rights,
    commands: BTreeMap<CommandId, Command>,
    chains: BTreeMap<KeyId, AgentChain>,
    /// Runs of the commands that are held and not over, by the key that started them.
    running: BTreeSet<(KeyId, CommandId)>,
}

impl State {
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
        self.rights.may_sign(event, verified.key())?;
        check_made_at(event, at.time)?;
        match Stream::of(event, at.id) {
            None if event.kind() == Kind::SessionChallenge => Err(Refusal::NotAnEvent),
            None => Ok(()),
            Some(Stream::Rights) => {
                let body = match attachment {
                    Attachment::Body(body) => Some(body),
                    Attachment::None | Attachment::Targets(_) | Attachment::Withheld => None,
                };
                self.admit_rights(event, at, leaf, body)
            }
            Some(Stream::Command(id)) => self.admit_command(id, event, at, attachment),
        }
    }

    fn admit_rights(
        &mut self,
        event: &Event,
        at: Position,
        leaf: Hash,
        body: Option<ChangeBody>,
    ) -> Result<(), Refusal> {
        let link = self.check_link(event)?;
        if let Event::AgentKeyRetired(retired) = event {
            self.require_no_run(retired.signer)?;
        }
        self.rights.apply(at.seq, at.id, leaf, event, body)?;
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
            let targets = match attachment {
                Attachment::Targets(list) => Some(list),
                Attachment::Withheld => None,
                Attachment::None | Attachment::Body(_) => return Err(Refusal::Targets),
            };
            let command = Command::open(request.clone(), targets, at);
            self.may_request(&command)?;
            self.commands.insert(id, command);
            return Ok(());
        }
        self.may_act(id, event)?;
        let link = self.check_link(event)?;
        let command = self.commands.get_mut(&id).ok_or(Refusal::UnknownCommand)?;
        command.next(event, at)?;
        match run_after(command, event) {
            Some((key, true)) => drop(self.running.insert((key, id))),
            Some((key, false)) => drop(self.running.remove(&(key, id))),
            None => {}
        }
        self.continue_chain(link, at.id);
        Ok(())
    }

    fn may_request(&self, command: &Command) -> Result<(), Refusal> {
        let in_force = self.rights.policy().ok_or(Refusal::NoPolicy)?;
        let permitted = in_force.policy.may_request.contains(command.requester());
        let refuse_unless = |holds: bool, why| if holds { Ok(()) } else { Err(why) };
        refuse_unless(permitted, Refusal::NotPermitted)?;
        refuse_unless(
            command.act().expires_at > command.requested.time,
            Refusal::Late,
        )?;
        let spec = command.act().spec.digest;
        for line in command.targets.iter().flat_map(TargetList::lines) {
            let key = self
                .rights
                .agent(&line.agent)
                .ok_or(Refusal::UnknownAgent)?;
            refuse_unless(key == line.key_id && line.spec == spec, Refusal::Targets)?;
        }
        Ok(())
    }

    /// What rights say of an event on an existing command.
    fn may_act(&self, id: CommandId, event: &Event) -> Result<(), Refusal> {
        let command = self.commands.get(&id).ok_or(Refusal::UnknownCommand)?;
        let in_force = self.rights.policy().ok_or(Refusal::NoPolicy)?;
        let may_approve = |who| in_force.policy.may_approve.contains(who);
        let refuse_unless = |holds: bool, why| if holds { Ok(()) } else { Err(why) };
        match event {
            Event::CommandApproved(approval) => {
                // Four eyes come first, so that a requester learns the real reason.
                refuse_unless(
                    approval.principal != *command.requester(),
                    Refusal::OwnRequest,
                )?;
                refuse_unless(may_approve(&approval.principal), Refusal::NotPermitted)?;
                refuse_unless(approval.policy == in_force.reference, Refusal::OtherPolicy)
            }
            Event::CommandRejected(rejection) => {
                refuse_unless(
                    rejection.principal != *command.requester(),
                    Refusal::OwnRequest,
                )?;
                refuse_unless(may_approve(&rejection.principal), Refusal::NotPermitted)
            }
            Event::CommandWithdrawn(word) => refuse_unless(
                word.principal == *command.requester(),
                Refusal::NotPermitted,
            ),
            Event::CommandCancelRequested(word) => refuse_unless(
                self.may_cancel(command, &word.principal),
                Refusal::NotPermitted,
            ),
            Event::CommandAuthorized(authorized) => {
                let Some(Effect::Authorize {
                    approvals,
                    policy,
                    requirement,
                    ..
                }) = self.authorization(command)
                else {
                    return Err(Refusal::Quorum);
                };
                refuse_unless(authorized.policy == policy, Refusal::Binding("policy"))?;
                refuse_unless(
                    authorized.requirement == requirement,
                    Refusal::Binding("requirement"),
                )?;
                refuse_unless(
                    authorized.approvals == approvals,
                    Refusal::Binding("approvals"),
                )
            }
            Event::CommandExpired(_)
            | Event::ExecutionStarted(_)
            | Event::ExecutionRefused(_)
            | Event::ExecutionSkipped(_)
            | Event::ExecutionOutput(_)
            | Event::ExecutionCompleted(_)
            | Event::ExecutionLost(_)
            | Event::CommandRequested(_)
            | Event::LedgerGenesis(_)
            | Event::LedgerHeartbeat(_)
            | Event::ChangeRequested(_)
            | Event::ChangeApproved(_)
            | Event::ChangeRejected(_)
            | Event::KeyAdded(_)
            | Event::KeyRevoked(_)
            | Event::PolicyPublished(_)
            | Event::AgentEnrolled(_)
            | Event::AgentAccepted(_)
            | Event::AgentKeyRetired(_)
            | Event::SessionChallenge(_) => Ok(()),
        }
    }

    fn may_cancel(&self, command: &Command, who: &Principal) -> bool {
        let approver = self
            .rights
            .policy()
            .is_some_and(|in_force| in_force.policy.may_approve.contains(who));
        who == command.requester() || approver || self.rights.is_administrator(who)
    }

    /// What the ledger must say now because of this event, if anything.
    #[must_use]
    pub fn effect_of(&self, event: &Event, id: StatementId) -> Option<Effect> {
        if let Event::CommandApproved(approval) = event {
            return self.authorization(self.commands.get(&approval.command)?);
        }
        let change = if let Event::ChangeApproved(approval) = event {
            approval.change
        } else {
            id
        };
        let (body, rests_on) = self.rights.ready(&change)?;
        Some(Effect::Change {
            change,
            body: body.clone(),
            rests_on,
        })
    }

    /// How many approvals of a command count here and now, and how many it takes.
    ///
    /// Before the authorization an approval counts only while its key does, and only under the
    /// policy in force; afterwards what was counted then stays. Nothing when the command ended
    /// without one, or no policy is in force.
    #[must_use]
    pub fn standing(&self, command: &Command) -> Option<quorum::Verdict> {
        match command.stage {
            Stage::Requested => self.counted(command).map(|counted| counted.verdict),
            Stage::Authorized { verdict, .. } => Some(verdict),
            Stage::Rejected | Stage::Withdrawn | Stage::Expired | Stage::Cancelled => None,
        }
    }

    /// The authorization of a command whose approvals suffice here and now.
    fn authorization(&self, command: &Command) -> Option<Effect> {
        let counted = self.counted(command)?;
        if !counted.verdict.is_met() {
            return None;
        }
        Some(Effect::Authorize {
            command: command.id,
            request_seq: command.requested.seq,
            approvals: counted.approvals,
            policy: counted.policy,
            requirement: counted.requirement,
        })
    }

    fn counted(&self, command: &Command) -> Option<Counted> {
        let (policy, requirement) = self.rights.requirement()?;
        let counts = |given: &&crate::lifecycle::Approval| {
            let valid = self
                .rights
                .key(&given.key_id)
                .is_some_and(|key| key.revoked.is_none());
            valid && given.policy == policy && requirement.approvers.contains(&given.principal)
        };
        let counted: Vec<_> = command.approvals.iter().filter(counts).collect();
        let people = counted.iter().map(|given| &given.principal);
        let verdict = quorum::count(&requirement, command.requester(), people);
        Some(Counted {
            approvals: counted.iter().map(|given| given.seq).collect(),
            policy,
            requirement,
            verdict,
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

/// The approvals of a command that count.
struct Counted {
    approvals: Vec<u64>,
    policy: PolicyRef,
    requirement: Requirement,
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
