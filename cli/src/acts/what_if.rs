//! What would have been decided otherwise under another policy: past requests of the verified log,
//! each judged again by the rights of its own position.

use std::sync::Arc;

use countersign_protocol::audit::{self, Finding};
use countersign_protocol::event::Event;
use countersign_protocol::fold::{self, Attachment};
use countersign_protocol::hash::CommandId;
use countersign_protocol::judgement::Question;
use countersign_protocol::name::{Principal, Time};
use countersign_protocol::policy::Policy;
use countersign_protocol::quorum::Requirement;
use countersign_protocol::refusal::Refusal;

use super::connect::Client;
use super::read::{LoggedEntry, RightsView};
use crate::failure::Failure;
use crate::replay::Replay;
use crate::streams::Blobs;

/// From where on past requests are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// From this entry on.
    Entry(u64),
    /// From the first entry on that is not older.
    Time(Time),
}

/// What a policy says: a price, or why not.
pub type Ruling = Result<Requirement, Refusal>;

/// A request that would have been judged otherwise.
#[derive(Debug, Clone)]
pub struct Otherwise {
    /// The command.
    pub id: CommandId,
    /// Where it was asked for.
    pub seq: u64,
    /// When.
    pub time: Time,
    /// By whom.
    pub requester: Principal,
    /// Its words.
    pub argv: Vec<String>,
    /// By the policy that was in force there.
    pub before: Ruling,
    /// By the other one.
    pub after: Ruling,
}

/// What comes of judging again.
#[derive(Debug, Clone, Default)]
pub struct WhatIf {
    /// Requests that were looked at.
    pub requests: u64,
    /// Those whose words are erased or not for this person to read: nobody can judge them here.
    pub withheld: u64,
    /// Those that would have been judged otherwise, in order.
    pub otherwise: Vec<Otherwise>,
}

impl Client {
    /// Judges past requests again by another policy, by the rights that held where each stands.
    ///
    /// # Errors
    /// The log may not be read, or evidence of tampering.
    pub async fn what_if(&self, policy: &Policy, since: Since) -> Result<WhatIf, Failure> {
        let rights = self.rights().await?;
        let end = rights.stream.checkpoint.size();
        let from = match since {
            Since::Entry(seq) => seq,
            Since::Time(time) => self.first_at(time, end).await?,
        };
        let mut replay = Replay::new(Arc::clone(&rights.stream));
        let mut found = WhatIf::default();
        let mut log = self.stretch(None, from, end);
        while let Some(links) = log.page().await? {
            for link in &links {
                if matches!(link.entry.verified.event(), Event::CommandRequested(_)) {
                    replay.rights_before(link.entry.seq)?;
                    self.judge_again(policy, &replay, link, &mut found).await?;
                }
            }
        }
        Ok(found)
    }

    async fn judge_again(
        &self,
        policy: &Policy,
        replay: &Replay,
        link: &LoggedEntry,
        found: &mut WhatIf,
    ) -> Result<(), Failure> {
        let entry = &link.entry;
        let Event::CommandRequested(request) = entry.verified.event() else {
            return Ok(());
        };
        found.requests += 1;
        let mut blobs = Blobs::default();
        for named in [&request.act.targets.list, &request.act.spec] {
            self.fetch_blob(entry.seq, named, &mut blobs).await?;
        }
        let event = entry.verified.event();
        let attached = audit::attachment(event, |named| blobs.blob(named).cloned());
        let seq = entry.seq;
        let attached = attached.map_err(|refusal| Finding {
            seq,
            reason: refusal.into(),
        })?;
        let Attachment::Request(Some(targets), Some(spec)) = attached else {
            found.withheld += 1;
            return Ok(());
        };
        let state = replay.state();
        let Some(in_force) = state.rights().policy() else {
            return Ok(());
        };
        let question = Question {
            rights: state.rights(),
            requester: &request.principal,
            token: request.token.as_ref(),
            act: &request.act,
            spec: &spec,
            targets: &targets,
            now: entry.time,
        };
        let judged = |policy| fold::judge_request(state.judge(), policy, &question);
        let (before, after) = (judged(&in_force.policy), judged(policy));
        if !is_same(&before, &after) {
            found.otherwise.push(Otherwise {
                id: entry.verified.id(),
                seq: entry.seq,
                time: entry.time,
                requester: request.principal.clone(),
                argv: spec.argv.clone(),
                before,
                after,
            });
        }
        Ok(())
    }

    /// The first entry that is not older than a time: times ascend with places.
    async fn first_at(&self, time: Time, end: u64) -> Result<u64, Failure> {
        let (mut low, mut high) = (0, end);
        while low < high {
            let middle = low + (high - low) / 2;
            let links = self.entries(middle, 1, None).await?;
            let older = links.first().is_some_and(|link| link.entry.time < time);
            if older {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }
}

/// The names of rules are no difference: what counts is whether, and at what price.
fn is_same(before: &Ruling, after: &Ruling) -> bool {
    match (before, after) {
        (Ok(before), Ok(after)) => {
            let nameless = |requirement: &Requirement| Requirement {
                rules: Vec::new(),
                ..requirement.clone()
            };
            nameless(before) == nameless(after)
        }
        (Err(_), Err(_)) => true,
        (Ok(_), Err(_)) | (Err(_), Ok(_)) => false,
    }
}

impl RightsView {
    /// The rights as they were before the entry at `seq`.
    ///
    /// # Errors
    /// Evidence of tampering.
    pub fn before(&self, seq: u64) -> Result<Replay, Failure> {
        let mut replay = Replay::new(Arc::clone(&self.stream));
        replay.rights_before(seq)?;
        Ok(replay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(approvals: u32, rule: &str) -> Ruling {
        let whom = "role:admin".parse().unwrap();
        let mut requirement = Requirement::of(approvals, vec![whom]);
        requirement.rules = vec![rule.parse().unwrap()];
        Ok(requirement)
    }

    #[test]
    fn another_price_is_a_difference_and_another_name_is_none() {
        assert!(is_same(&of(2, "a"), &of(2, "b")));
        assert!(!is_same(&of(2, "a"), &of(1, "a")));
        assert!(!is_same(&of(2, "a"), &Err(Refusal::NoRule)));
        assert!(!is_same(&Err(Refusal::NoRule), &of(2, "a")));
        let forbidden = Err(Refusal::ForbiddenBy("never".parse().unwrap()));
        assert!(is_same(&Err(Refusal::NoRule), &forbidden));
    }
}
