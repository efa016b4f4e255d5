//! What all parts of a running agent share: its identity, its view of the ledger, its journal; and
//! the one way in which it speaks on its own chain.
//!
//! A statement on the chain is written down, sent, and answered before the next one is signed: so
//! at most one is ever without an answer, and a refused one frees its number. It must not decide
//! what is said.

use std::sync::Arc;
use std::time::Duration;

use countersign_protocol::api::{Problem, Submission};
use countersign_protocol::blob::Blob;
use countersign_protocol::event::{Event, Seen};
use countersign_protocol::hash::{KeyId, LedgerId, StatementId};
use countersign_protocol::name::{AgentName, Nonce, SECOND_US, Time};
use countersign_protocol::statement::{Statement, StatementError};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::client::{Backoff, Client, ClientError};
use crate::clock::Clock;
use crate::execution::SecretsPlace;
use crate::idle::Spoken;
use crate::key::{self, Identity, IdentityError};
use crate::manager::Manager;
use crate::snapshot::{MemoryError, Snapshots};
use crate::spool::{About, ChainEnd, Record, Spool, SpoolError};
use crate::trust::{PinError, View, ViewError};

/// The first pause before a full disk is tried again.
const ROOM_PAUSE: Duration = Duration::from_millis(200);

/// The longest: what waits goes on soon after somebody made room.
const LONGEST_ROOM_PAUSE: Duration = Duration::from_secs(5);

/// Why the agent stops. Nothing that it has begun is forgotten; the next start goes on.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Key or journal.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The journal.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The server's ledger is not the pinned one.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// A second history, or the remembered checkpoint cannot be kept.
    #[error(transparent)]
    View(#[from] ViewError),
    /// What is remembered of policy snapshots cannot be read.
    #[error(transparent)]
    Snapshot(#[from] MemoryError),
    /// The client cannot be set up.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The ledger will not have this agent.
    #[error("the ledger refused the enrolment ({}): {}", .0.code, .0.detail)]
    Enrolment(Box<Problem>),
    /// The key counts no more.
    #[error("the ledger does not take this agent's key any more ({}): {}", .0.code, .0.detail)]
    KeyRefused(Box<Problem>),
    /// The ledger knows statements of this key that the journal does not.
    #[error(
        "the ledger's chain of this agent does not end where the journal's does: the journal is an \
         old copy, or somebody else uses the key. Nothing runs until a person has looked ({0})"
    )]
    ChainFork(String),
    /// A statement has no form.
    #[error("a statement cannot be made: {0}")]
    Statement(#[from] StatementError),
    /// The operating system gives no randomness.
    #[error("the operating system gives no randomness: {0}")]
    Random(getrandom::Error),
    /// There is nothing yet that statements could say they have seen.
    #[error("no checkpoint of the ledger was seen yet")]
    NothingSeen,
    /// A task of the agent's own died.
    #[error("a part of the agent stopped unexpectedly: {0}")]
    Task(String),
}

impl AgentError {
    /// Whether this is evidence that the ledger or this key was tampered with.
    #[must_use]
    pub const fn is_evidence(&self) -> bool {
        matches!(
            self,
            Self::Pin(_) | Self::ChainFork(_) | Self::View(ViewError::Fork { .. })
        )
    }
}

/// The fields that every statement of this agent carries.
#[derive(Debug, Clone)]
pub(crate) struct Header {
    /// The agent's key.
    pub(crate) signer: KeyId,
    /// The agent.
    pub(crate) agent: AgentName,
    /// Random.
    pub(crate) nonce: Nonce,
    /// The host's clock.
    pub(crate) made_at: Time,
    /// The pinned ledger.
    pub(crate) ledger: LedgerId,
    /// The remembered checkpoint.
    pub(crate) seen: Seen,
}

/// Builds an agent's payload from the header and its own fields.
macro_rules! agent_event {
    ($header:expr, $name:ident { $($field:ident $(: $value:expr)?),* $(,)? }) => {{
        let $crate::station::Header { signer, agent, nonce, made_at, ledger, seen } = $header;
        countersign_protocol::event::Event::from($name {
            signer, agent, nonce, made_at, ledger, seen, $($field $(: $value)?),*
        })
    }};
}
pub(crate) use agent_event;

/// The answer to a statement on the chain.
#[derive(Debug)]
pub(crate) enum Said {
    /// It stands in the log, and the receipt proves it.
    Accepted(StatementId),
    /// The ledger said no, for good.
    Refused(Box<Problem>),
    /// The agent is stopping; the journal knows.
    Unanswered,
}

/// A running agent.
pub(crate) struct Station {
    pub(crate) name: AgentName,
    pub(crate) ledger: LedgerId,
    pub(crate) identity: Identity,
    pub(crate) client: Arc<Client>,
    /// One for all keys of the host, so that no two of them believe two histories.
    pub(crate) view: Arc<View>,
    /// What is remembered of policy snapshots; one for all keys too.
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) spool: Arc<Spool>,
    pub(crate) clock: Clock,
    /// Cancelled when nothing is waited for any more.
    pub(crate) give_up: CancellationToken,
    /// Held by whoever speaks on the chain.
    pub(crate) turn: Mutex<()>,
    /// Until when it has said that it started nothing more.
    pub(crate) spoken: Spoken,
    /// Where secrets are delivered that come as files, if this host has such a place; one for all
    /// keys.
    pub(crate) secrets_place: Option<Arc<SecretsPlace>>,
    /// Who is told what the agent is doing.
    pub(crate) manager: Arc<Manager>,
}

impl Station {
    /// The header of the next statement.
    pub(crate) fn header(&self) -> Result<Header, AgentError> {
        Ok(Header {
            signer: self.identity.key_id(),
            agent: self.name.clone(),
            nonce: key::nonce().map_err(AgentError::Random)?,
            made_at: self.clock.now(),
            ledger: self.ledger,
            seen: self.view.seen().ok_or(AgentError::NothingSeen)?,
        })
    }

    /// A blob with a salt of its own.
    pub(crate) fn blob(&self, content: Vec<u8>) -> Result<Blob, AgentError> {
        let salt = key::random().map_err(AgentError::Random)?;
        let largest = |_| AgentError::Task("a blob is larger than any may be".into());
        Blob::new(salt, content).map_err(largest)
    }

    /// Signs with the agent's key.
    pub(crate) fn sign(&self, event: &Event) -> Result<Statement, AgentError> {
        Ok(Statement::sign(event, self.identity.key())?)
    }

    /// Appends to the journal on a thread that may block. On a full disk it waits for room, and
    /// with it whatever wants to go on.
    pub(crate) async fn write_down(&self, records: Vec<Record>) -> Result<(), AgentError> {
        let records: Arc<[Record]> = records.into();
        let mut backoff = Backoff::new(ROOM_PAUSE, LONGEST_ROOM_PAUSE);
        loop {
            let (spool, records) = (Arc::clone(&self.spool), Arc::clone(&records));
            let written = tokio::task::spawn_blocking(move || spool.append(records)).await;
            match written.map_err(|error| AgentError::Task(error.to_string()))? {
                Err(error @ SpoolError::NoRoom { .. }) => {
                    tracing::error!(%error, "waiting for room");
                    if !self.pause(&mut backoff).await {
                        return Err(error.into());
                    }
                }
                written => return Ok(written?),
            }
        }
    }

    /// Says one thing on the chain: `before` and the statement are durable before it is sent.
    pub(crate) async fn say(
        &self,
        about: About,
        blobs: Vec<Blob>,
        mut before: Vec<Record>,
        build: impl FnOnce(Header, ChainEnd) -> Event,
    ) -> Result<Said, AgentError> {
        let _turn = self.turn.lock().await;
        // Left over when the agent last stopped; it comes first.
        if self.spool.word().is_some()
            && let Said::Unanswered = self.deliver_word().await?
        {
            return Ok(Said::Unanswered);
        }
        let event = build(self.header()?, self.spool.chain());
        let statement = self.sign(&event)?;
        before.push(Record::Word {
            about,
            id: statement.id(),
            submission: Submission::new(&statement, &blobs),
        });
        self.write_down(before).await?;
        self.deliver_word().await
    }

    /// Sends what the journal says was about to be sent, if there is something.
    pub(crate) async fn settle(&self) -> Result<(), AgentError> {
        let _turn = self.turn.lock().await;
        if self.spool.word().is_some() {
            self.deliver_word().await?;
        }
        Ok(())
    }

    /// Sends the one unanswered statement until it is answered.
    async fn deliver_word(&self) -> Result<Said, AgentError> {
        let Some(word) = self.spool.word() else {
            return Ok(Said::Unanswered);
        };
        let (mut backoff, mut behind) = (Backoff::for_server(), Behind::default());
        loop {
            let sent = tokio::select! {
                () = self.give_up.cancelled() => return Ok(Said::Unanswered),
                sent = self.client.submit(&word.submission) => sent,
            };
            match sent {
                Ok(receipt) => match self.believe(&receipt, word.id).await {
                    Ok(()) => {
                        let (id, accepted) = (word.id, true);
                        self.write_down(vec![Record::Answered { id, accepted }])
                            .await?;
                        return Ok(Said::Accepted(id));
                    }
                    Err(error) => tolerate(error)?,
                },
                Err(ClientError::Refused(problem)) => {
                    if self.heed(&problem, &mut behind).await? == Heed::Answered {
                        let (id, accepted) = (word.id, false);
                        self.write_down(vec![Record::Answered { id, accepted }])
                            .await?;
                        return Ok(Said::Refused(problem));
                    }
                }
                Err(error) => tracing::warn!(%error, "a statement is not delivered yet"),
            }
            if !self.pause(&mut backoff).await {
                return Ok(Said::Unanswered);
            }
        }
    }

    /// The receipt is for this statement, in a log that continues the one seen before.
    async fn believe(
        &self,
        receipt: &countersign_protocol::api::Receipt,
        id: StatementId,
    ) -> Result<(), ViewError> {
        let seen = self.view.check_receipt(receipt, id)?;
        let since = seen.zip(receipt.since_seen.as_deref());
        let confirmed = self.view.confirm_since(&receipt.checkpoint, since).await;
        confirmed.map(drop)
    }

    /// Stops where the agent cannot speak at all. A ledger that has not what this host has seen lost it or
    /// shows another history: then both notes are kept first, as evidence.
    pub(crate) async fn heed(
        &self,
        problem: &Problem,
        behind: &mut Behind,
    ) -> Result<Heed, AgentError> {
        match problem.code.as_str() {
            SEEN_AHEAD => {
                let now = self.clock.now();
                let since = *behind.0.get_or_insert(now);
                if now.micros_since(since) < LONGEST_BEHIND_US {
                    tracing::warn!("the ledger has not yet what this host has seen; asking again");
                } else if let Ok(shown) = self.client.ledger().await {
                    // One that has it after all is asked again, and so is one that does not answer:
                    // nothing is lost meanwhile.
                    self.view
                        .confront(&shown.checkpoint)
                        .await
                        .or_else(tolerate)?;
                }
                Ok(Heed::Again)
            }
            SEEN_FORK => {
                if let Ok(shown) = self.client.ledger().await
                    && let Err(error @ ViewError::Fork { .. }) =
                        self.view.confront(&shown.checkpoint).await
                {
                    return Err(error.into());
                }
                Err(AgentError::ChainFork(problem.detail.clone()))
            }
            "agent_chain" | "wrong_ledger" => Err(AgentError::ChainFork(problem.detail.clone())),
            "unknown_key" | "revoked_key" | "key_holder" | "key_role" => {
                Err(AgentError::KeyRefused(Box::new(problem.clone())))
            }
            _about_this_statement => Ok(Heed::Answered),
        }
    }

    /// Waits before another try; false when there shall be none.
    pub(crate) async fn pause(&self, backoff: &mut Backoff) -> bool {
        tokio::select! {
            () = self.give_up.cancelled() => false,
            () = tokio::time::sleep(backoff.pause()) => true,
        }
    }
}

/// What is not believed now may be shown better later; a second history never is.
pub(crate) fn tolerate(error: ViewError) -> Result<(), AgentError> {
    match error {
        error if error.is_no_room() => {
            tracing::error!(%error, "waiting for room");
            Ok(())
        }
        ViewError::Fork { .. } | ViewError::Io { .. } => Err(error.into()),
        ViewError::Note(_) | ViewError::NoProof(_) | ViewError::Receipt(_) => {
            tracing::warn!(%error, "the server's answer is not believed; asking again");
            Ok(())
        }
    }
}

/// The refusal of a statement whose signer has seen more than the ledger has.
const SEEN_AHEAD: &str = "seen_ahead";

/// The refusal of a statement whose signer has seen another history.
const SEEN_FORK: &str = "seen_fork";

/// How long a ledger may lack what this host has seen before that is taken for a loss. During a failover one
/// of two servers may still ask the primary that was deposed, until its manager has stopped it: half a minute
/// with the usual settings.
const LONGEST_BEHIND_US: u64 = 60 * SECOND_US;

/// Since when the ledger has lacked what this host has seen, as whoever says one thing knows.
#[derive(Debug, Default)]
pub(crate) struct Behind(Option<Time>);

/// What is to be done about a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heed {
    /// It is about this statement, and the answer to it.
    Answered,
    /// Nothing is answered yet: the same is sent again.
    Again,
}
