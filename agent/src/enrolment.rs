//! Becoming known: a new agent introduces itself and waits until people have accepted its key.
//!
//! It owns the one statement that enrols, kept so that a retry is the same statement, and the
//! line that tells an administrator what to compare.

use std::io::Write as _;
use std::time::Duration;

use countersign_protocol::api::Submission;
use countersign_protocol::event::AgentEnrolled;
use tokio_util::sync::CancellationToken;

use crate::client::{Backoff, Client, ClientError};
use crate::enroll::{self, Card};
use crate::spool::Record;
use crate::station::{AgentError, Station, agent_event};

/// The longest pause between two questions whether the agent was accepted: a person has just
/// typed the command and is watching.
const LONGEST_QUESTION: Duration = Duration::from_secs(2);

impl Station {
    /// Enrols if that was not done, and returns once the ledger lets this agent in. False when
    /// the agent is to stop before.
    pub(crate) async fn enrol(&self, shutdown: &CancellationToken) -> Result<bool, AgentError> {
        if self.spool.is_accepted() {
            return Ok(true);
        }
        let accepted = async {
            self.manager.status("introducing itself to the ledger");
            self.introduce().await?;
            self.manager.status("waiting to be accepted");
            self.wait_for_acceptance().await
        };
        tokio::select! {
            () = shutdown.cancelled() => Ok(false),
            accepted = accepted => accepted.map(|()| true),
        }
    }

    /// Asks until the ledger lets this agent in.
    pub(crate) async fn wait_for_acceptance(&self) -> Result<(), AgentError> {
        until_accepted(&self.client).await;
        tracing::info!(agent = %self.name, "accepted by the ledger");
        self.write_down(vec![Record::Accepted]).await
    }

    /// Asks once more whether the ledger lets in an agent that it had accepted.
    pub(crate) async fn still_accepted(&self) -> Result<(), AgentError> {
        let mut backoff = Backoff::for_server();
        loop {
            match self.client.sign_in().await {
                Ok(()) => return Ok(()),
                Err(ClientError::Unauthorized(problem) | ClientError::Refused(problem)) => {
                    return Err(AgentError::KeyRefused(problem));
                }
                Err(error) => tracing::warn!(%error, "waiting for the server"),
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }

    /// Brings the one statement that enrols to the ledger; a second time, the same one.
    pub(crate) async fn introduce(&self) -> Result<(), AgentError> {
        if self.spool.enrolment().is_none() {
            let key = self.identity.public();
            let sealing = self.identity.sealing();
            // Without one that can be used it takes no secrets, and says so.
            let sealing_key = sealing.and_then(|secret| secret.public().ok());
            let event = agent_event!(self.header()?, AgentEnrolled { key, sealing_key });
            let statement = self.sign(&event)?;
            let submission = Submission::new(&statement, []);
            self.write_down(vec![Record::Enrolment(submission)]).await?;
        }
        let mut backoff = Backoff::for_server();
        while let Some(submission) = self.spool.enrolment() {
            match self.client.submit(&submission).await {
                Ok(_) => return Ok(()),
                Err(ClientError::Refused(problem)) => return Err(AgentError::Enrolment(problem)),
                Err(error) => tracing::warn!(%error, "the enrolment is not delivered yet"),
            }
            tokio::time::sleep(backoff.pause()).await;
        }
        Ok(())
    }

    /// For the person at the host: what to compare, and the command that accepts.
    pub(crate) fn announce(&self) {
        if self.spool.is_accepted() {
            return;
        }
        let card = Card::of(self, false);
        // Nobody may be reading; the log has it too.
        let _ = write!(std::io::stderr(), "{}", enroll::words(&card));
        tracing::info!(
            agent = card.agent,
            fingerprint = card.fingerprint,
            "waiting to be accepted"
        );
    }
}

/// Asks until the ledger knows the client's key: a sign-in succeeds from then on.
pub(crate) async fn until_accepted(client: &Client) {
    let mut backoff = Backoff::new(Duration::from_millis(50), LONGEST_QUESTION);
    loop {
        match client.sign_in().await {
            Ok(()) => return,
            Err(ClientError::Unauthorized(_) | ClientError::Refused(_)) => {}
            Err(error) => tracing::warn!(%error, "waiting to be accepted"),
        }
        tokio::time::sleep(backoff.pause()).await;
    }
}
