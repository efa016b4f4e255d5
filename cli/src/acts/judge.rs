//! A person's word on a command: approve, reject, withdraw, cancel.
//!
//! An approval is built here from the verified request: the id is the hash of what is shown, every
//! blob was recomputed, every target line has the key that the rights give that host. What the log
//! already rules out is refused before anything is signed.

use countersign_protocol::blob::{Blob, BlobRef};
use countersign_protocol::event::Event;
use countersign_protocol::hash::CommandId;
use countersign_protocol::lifecycle::{CommandStatus, Stage};
use countersign_protocol::name::{Principal, Time};
use countersign_protocol::permission::{Permission, Whom};
use countersign_protocol::policy::PolicyRef;
use countersign_protocol::quorum::Requirement;
use countersign_protocol::refusal::Refusal;

use super::connect::Client;
use super::read::RightsView;
use super::submit::{Accepted, Head, person_event};
use crate::failure::Failure;
use crate::streams::Held;
use crate::view::CommandView;
use crate::{clock, entropy};

/// A reason as a blob, and how the payload names it.
pub(super) fn said(reason: Option<&str>) -> Result<(Option<BlobRef>, Vec<Blob>), Failure> {
    let Some(text) = reason.filter(|text| !text.is_empty()) else {
        return Ok((None, Vec::new()));
    };
    let blob = entropy::blob(text.as_bytes().to_vec())
        .map_err(|error| Failure::usage(format!("the reason is too long: {error}")))?;
    Ok((Some(blob.reference()), vec![blob]))
}

pub(super) fn unless(holds: bool, otherwise: Refusal) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(otherwise.into()) }
}

fn require_open(view: &CommandView) -> Result<(), Failure> {
    let open = view.command.stage == Stage::Requested;
    unless(open, Refusal::Over(view.command.status()))
}

/// What the command needs, judged here by the policy that the verified log has in force.
fn requirement(view: &CommandView) -> Result<&Requirement, Failure> {
    let needed = view.requirement.as_ref().map_err(Clone::clone);
    needed.map_err(Failure::from)
}

/// Refuses somebody who has no seat of what the command needs.
fn require_seat(
    requirement: &Requirement,
    rights: &RightsView,
    me: &Principal,
) -> Result<(), Failure> {
    let mine = rights.state.rights().has_seat(me, requirement);
    unless(mine, Refusal::NotPermitted(Permission::CommandApprove))
}

/// Refuses what the verified log already rules out, and gives the policy to approve under.
fn may_approve(
    view: &CommandView,
    rights: &RightsView,
    me: &Principal,
    now: Time,
    reason: Option<&str>,
) -> Result<PolicyRef, Failure> {
    let in_force = rights.state.rights().policy();
    let in_force = in_force.ok_or(Failure::from(Refusal::NoGenesis))?;
    unless(view.command.requester() != me, Refusal::OwnRequest)?;
    require_open(view)?;
    // Before the policy is asked, which cannot judge what is not here.
    if !view.is_whole() {
        return Err(Failure::refused(
            "not_whole",
            "a part of what would run cannot be read, so it cannot be approved",
        )
        .hint("ask the requester to ask again, or for the right to read it"));
    }
    let needed = requirement(view)?;
    require_seat(needed, rights, me)?;
    let silent = reason.is_none_or(str::is_empty);
    unless(!needed.reason || !silent, Refusal::ReasonMissing)?;
    unless(now < view.command.act().expires_at, Refusal::Late)?;
    let again = rights.state.has_approved(&view.command, me, needed, now);
    unless(!again, Refusal::DuplicateApproval)?;
    require_current_targets(view, rights)?;
    require_sealed(view)?;
    Ok(in_force.reference)
}

/// Each host still has the key that its line was frozen with.
fn require_current_targets(view: &CommandView, rights: &RightsView) -> Result<(), Failure> {
    let lines = view.command.targets.iter().flat_map(|list| list.lines());
    for line in lines {
        if rights.state.rights().agent(&line.agent) != Some(line.key_id) {
            return Err(Failure::refused(
                "target_key",
                format!(
                    "{} has no longer the key that the request was made for",
                    line.agent
                ),
            )
            .hint("ask the requester to ask again"));
        }
    }
    Ok(())
}

/// Each host of the request, by the key that its line names, has a box of each secret, and nobody
/// else has one.
fn require_sealed(view: &CommandView) -> Result<(), Failure> {
    let secrets = view.secrets.as_ref().and_then(Held::here);
    let (Some(secrets), Some(targets)) = (secrets, &view.command.targets) else {
        return Ok(());
    };
    secrets.check_targets(targets).map_err(|error| {
        Failure::refused("secret_targets", error.to_string()).hint("ask the requester to ask again")
    })
}

/// A yes to exactly what was shown.
pub(super) fn approval(
    head: Head,
    view: &CommandView,
    policy: PolicyRef,
    reason: Option<BlobRef>,
) -> Event {
    person_event!(
        head,
        CommandApproved {
            command: view.id(),
            requester: view.command.requester().clone(),
            act: view.command.act().clone(),
            policy,
            reason
        }
    )
}

impl Client {
    /// Refuses, without signing anything, an approval that the log already rules out.
    ///
    /// # Errors
    /// Why it would be refused: exit code 4.
    pub async fn check_approval(
        &self,
        id: &CommandId,
        reason: Option<&str>,
    ) -> Result<CommandView, Failure> {
        Ok(self.check_seats(id, reason).await?.0)
    }

    /// As [`Client::check_approval`], and of whom one is for this command: the seats that an approval
    /// could take.
    ///
    /// # Errors
    /// Why it would be refused: exit code 4.
    pub async fn check_seats(
        &self,
        id: &CommandId,
        reason: Option<&str>,
    ) -> Result<(CommandView, Vec<Whom>), Failure> {
        let (view, rights) = self.fetch_command_and_rights(id).await?;
        let me = rights.person(&self.key_id())?;
        may_approve(&view, &rights, &me, clock::now(), reason)?;
        let electors = requirement(&view)?.electors().into_iter();
        let mine = electors.filter(|whom| rights.state.rights().belongs(&me, whom));
        let seats = mine.cloned().collect();
        Ok((view, seats))
    }

    /// Approves exactly what a fresh, verified reading of the command says.
    ///
    /// Whoever shows it to a person first uses [`Client::approve_shown`].
    ///
    /// # Errors
    /// Refused, or evidence of tampering (nothing was signed then), or no valid receipt.
    pub async fn approve(&self, id: &CommandId, reason: Option<&str>) -> Result<Accepted, Failure> {
        let (view, rights) = self.fetch_command_and_rights(id).await?;
        self.approve_in(&view, &rights, reason).await
    }

    /// Approves exactly what `view` says: the very one that a person has looked at.
    ///
    /// # Errors
    /// As [`Client::approve`].
    pub async fn approve_shown(
        &self,
        view: &CommandView,
        reason: Option<&str>,
    ) -> Result<Accepted, Failure> {
        let rights = self.rights_as_of(view.size).await?;
        self.approve_in(view, &rights, reason).await
    }

    async fn approve_in(
        &self,
        view: &CommandView,
        rights: &RightsView,
        reason: Option<&str>,
    ) -> Result<Accepted, Failure> {
        let me = rights.person(&self.key_id())?;
        let policy = may_approve(view, rights, &me, clock::now(), reason)?;
        let (reason, blobs) = said(reason)?;
        let event = approval(self.head(&me)?, view, policy, reason);
        self.submit(&event, &blobs).await
    }

    /// Says no. One no ends the request, unless its rule counts them.
    ///
    /// # Errors
    /// Refused, or evidence of tampering, or no valid receipt.
    pub async fn reject(&self, id: &CommandId, reason: Option<&str>) -> Result<Accepted, Failure> {
        let (view, rights) = self.fetch_command_and_rights(id).await?;
        let me = rights.person(&self.key_id())?;
        unless(view.command.requester() != &me, Refusal::OwnRequest)?;
        require_open(&view)?;
        let (reason, blobs) = said(reason)?;
        // Of what is not for this person to read, the ledger alone can say who may stop it.
        let vote = if view.spec.here().is_some() {
            let needed = requirement(&view)?;
            require_seat(needed, &rights, &me)?;
            unless(!needed.reason || reason.is_some(), Refusal::ReasonMissing)?;
            needed.rejections.is_some_and(|noes| noes > 1)
        } else {
            false
        };
        let (head, command) = (self.head(&me)?, *id);
        let event = person_event!(
            head,
            CommandRejected {
                command,
                vote,
                reason
            }
        );
        self.submit(&event, &blobs).await
    }

    /// Takes one's own request back before it was authorized.
    ///
    /// # Errors
    /// Refused, or evidence of tampering, or no valid receipt.
    pub async fn withdraw(
        &self,
        id: &CommandId,
        reason: Option<&str>,
    ) -> Result<Accepted, Failure> {
        let (view, rights) = self.fetch_command_and_rights(id).await?;
        let me = rights.person(&self.key_id())?;
        unless(view.command.requester() == &me, Refusal::NotYours)?;
        require_open(&view)?;
        let (reason, blobs) = said(reason)?;
        let (head, command) = (self.head(&me)?, *id);
        let token = None;
        let event = person_event!(
            head,
            CommandWithdrawn {
                command,
                token,
                reason
            }
        );
        self.submit(&event, &blobs).await
    }

    /// Asks for a command to be stopped where it runs, and not to be started where it does not.
    ///
    /// # Errors
    /// It has ended, or was cancelled before; else as above.
    pub async fn cancel(&self, id: &CommandId, reason: Option<&str>) -> Result<Accepted, Failure> {
        let (view, rights) = self.fetch_command_and_rights(id).await?;
        let me = rights.person(&self.key_id())?;
        let status: CommandStatus = view.command.status();
        unless(!status.is_final(), Refusal::Over(status))?;
        unless(view.command.cancel.is_none(), Refusal::AlreadyCancelled)?;
        let (reason, blobs) = said(reason)?;
        let (head, command) = (self.head(&me)?, *id);
        let token = None;
        let event = person_event!(
            head,
            CommandCancelRequested {
                command,
                token,
                reason
            }
        );
        self.submit(&event, &blobs).await
    }
}
