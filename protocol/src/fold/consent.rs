//! Who may say yes or no to a command, which of their words count, and when they suffice.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::{Effect, State};
use crate::canonical;
use crate::lifecycle::{Approval, Command, Stage, Vote};
use crate::name::{Principal, Time};
use crate::permission::{Permission, Whom};
use crate::policy::PolicyRef;
use crate::quorum::{self, MAX_COUNTED_BYTES, Membership, Requirement};
use crate::refusal::{Refusal, require};

impl State {
    /// Says whether somebody has a seat of what a command needs, or may have one for all that is known
    /// here: where its words are withheld, nobody can judge again what the ledger judged then.
    pub(super) fn may_sit(&self, command: &Command, who: &Principal) -> bool {
        let seat = |requirement: &Requirement| self.rights.has_seat(who, requirement);
        match command.stage {
            Stage::Requested => self
                .judgement(command, self.judged_at(command))
                .is_none_or(|judged| judged.is_ok_and(|requirement| seat(&requirement))),
            // By what was asked then: the words are held no more, and whoever let it run may stop it.
            Stage::Authorized { .. } => command.requirement.as_deref().is_some_and(seat),
            Stage::Rejected | Stage::Withdrawn | Stage::Expired | Stage::Cancelled => false,
        }
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

    /// Says whether somebody may say yes or no to a command.
    pub(super) fn may_judge(
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
    pub(super) fn end_by_votes(&self, command: &Command, now: Time) -> Option<Effect> {
        let requirement = self.requirement_at(command, now).ok()?;
        Some(Effect::VoteDown {
            command: command.id,
            rejections: self.votes_against(command, &requirement, now)?,
        })
    }

    /// The authorization of a command whose approvals suffice at `now`, and no votes against it.
    pub(super) fn authorization(&self, command: &Command, now: Time) -> Option<Effect> {
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

    pub(super) fn has_voted(
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
    pub(super) fn votes_against(
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

/// The approvals of a command that count.
struct Counted {
    approvals: Vec<u64>,
    policy: PolicyRef,
    requirement: Requirement,
    members: Vec<Membership>,
    verdict: quorum::Verdict,
}
