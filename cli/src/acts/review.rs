//! Reviews of runs without approvals: which are open, and a second person's signature under one.

use countersign_protocol::hash::CommandId;
use countersign_protocol::name::{Principal, Time};
use countersign_protocol::permission::Permission;
use countersign_protocol::refusal::Refusal;
use countersign_protocol::rights::{OpenReview, Rights};

use super::connect::Client;
use super::read::RightsView;
use super::submit::{Accepted, person_event};
use crate::entropy;
use crate::failure::Failure;

/// How many reviews are open, and how many of them are overdue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenReviews {
    /// All.
    pub open: usize,
    /// Those past their time.
    pub overdue: usize,
}

impl OpenReviews {
    /// Counts them.
    #[must_use]
    pub fn of(rights: &Rights, now: Time) -> Self {
        let overdue = rights.reviews().filter(|(_, review)| review.due_at <= now);
        Self {
            open: rights.reviews().count(),
            overdue: overdue.count(),
        }
    }
}

/// The review of a command, while it is open.
#[must_use]
pub fn open_review<'a>(rights: &'a Rights, command: &CommandId) -> Option<&'a OpenReview> {
    let mut reviews = rights.reviews();
    let found = reviews.find(|(id, _)| *id == command);
    found.map(|(_, review)| review)
}

/// Refuses what the verified log already rules out: four eyes first, as the ledger says it.
fn may_close(rights: &RightsView, me: &Principal, command: &CommandId) -> Result<(), Failure> {
    let rights = rights.state.rights();
    let review = open_review(rights, command);
    let review = review.ok_or_else(|| {
        Failure::from(Refusal::UnknownReview).hint("countersign reviews lists those that are open")
    })?;
    if review.requester == *me {
        return Err(Refusal::OwnReview.into());
    }
    let right = Permission::ReviewClose;
    if rights.holds(me, right) {
        Ok(())
    } else {
        Err(Refusal::NotPermitted(right).into())
    }
}

impl Client {
    /// Refuses, without signing anything, to close a review that this person cannot close.
    ///
    /// # Errors
    /// No review of it is open, it is one's own run, or the right is missing.
    pub async fn check_review(&self, command: &CommandId) -> Result<OpenReview, Failure> {
        let (rights, me) = self.rights_and_me().await?;
        may_close(&rights, &me, command)?;
        let review = open_review(rights.state.rights(), command).cloned();
        review.ok_or_else(|| Refusal::UnknownReview.into())
    }

    /// Closes the review of a run without approvals: signs that one has looked, and what one found.
    ///
    /// # Errors
    /// As [`Client::check_review`], no reason, or no valid receipt.
    pub async fn close_review(
        &self,
        command: &CommandId,
        reason: &str,
    ) -> Result<Accepted, Failure> {
        if reason.trim().is_empty() {
            return Err(Failure::usage("a review says what was found").hint("--reason TEXT"));
        }
        let (rights, me) = self.rights_and_me().await?;
        may_close(&rights, &me, command)?;
        let found = entropy::blob(reason.as_bytes().to_vec())
            .map_err(|error| Failure::usage(format!("the reason is too long: {error}")))?;
        let head = self.head(&me)?;
        let event = person_event!(
            head,
            ReviewClosed {
                command: *command,
                reason: found.reference()
            }
        );
        self.submit(&event, &[found]).await
    }
}
