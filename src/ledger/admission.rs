//! Outside the lock, in parallel: everything about a submission that needs no order.
//!
//! Canonical bytes, strict signature, the documents behind digests, blobs stored and committed.
//! What comes out may still be refused by the state; what is refused here never reaches the lock.

use std::collections::BTreeMap;

use countersign_protocol::blob::{Blob, BlobRef};
use countersign_protocol::command::{CommandSpec, Environment};
use countersign_protocol::event::{Author, Event};
use countersign_protocol::facts::Facts;
use countersign_protocol::fold::{Attachment, Refusal};
use countersign_protocol::hash::{Digest, StatementId};
use countersign_protocol::policy::Policy;
use countersign_protocol::rights::ChangeBody;
use countersign_protocol::secret::SealedSecrets;
use countersign_protocol::statement::{Statement, Verified};
use countersign_protocol::target::TargetList;
use sqlx::PgPool;

use super::blob_store::BlobStore;
use super::error::AppendError;
use super::store;

/// A statement as it came, with the blobs it names.
#[derive(Debug, Clone)]
pub struct Submission {
    /// The statement.
    pub statement: Statement,
    /// Blobs, in any order.
    pub blobs: Vec<Blob>,
}

/// A submission that holds by itself and whose blobs are stored.
#[derive(Debug, Clone)]
pub struct Admitted {
    pub(super) verified: Verified,
    pub(super) attachment: Attachment,
}

impl Admitted {
    /// What it says.
    #[must_use]
    pub const fn event(&self) -> &Event {
        self.verified.event()
    }

    /// The size of the checkpoint that its signer says to have seen.
    #[must_use]
    pub fn seen(&self) -> Option<u64> {
        self.verified.event().header().seen.map(|seen| seen.size)
    }
}

/// The gate. Needs no key and no state, only the blob table.
#[derive(Debug, Clone)]
pub struct Admission {
    pool: PgPool,
    blobs: BlobStore,
}

impl Admission {
    /// A gate that stores blobs through this pool, by tasks that end with its last clone.
    ///
    /// # Panics
    /// Outside an async runtime.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        let blobs = BlobStore::start(&pool);
        Self { pool, blobs }
    }

    /// Checks a submission from outside and stores its blobs.
    ///
    /// # Errors
    /// See [`AppendError`]; nothing is stored unless the statement itself holds.
    pub async fn admit(&self, submission: Submission) -> Result<Admitted, AppendError> {
        let verified = submission.statement.verify()?;
        // The ledger's words come from the writer alone, whoever holds the key.
        if matches!(verified.event().header().author, Author::Ledger) {
            return Err(Refusal::KeyRole.into());
        }
        let blobs = Blobs::take(verified.event(), submission.blobs)?;
        let attachment = blobs.documents(verified.event())?;
        blobs.store(self, &verified.id()).await?;
        Ok(Admitted {
            verified,
            attachment,
        })
    }
}

fn policy(document: &[u8]) -> Result<Policy, AppendError> {
    let malformed = |error: &dyn std::fmt::Display| AppendError::Document(error.to_string());
    let text = std::str::from_utf8(document).map_err(|error| malformed(&error))?;
    Policy::new(text.to_owned()).map_err(|error| malformed(&error))
}

/// The blobs that an event names: those that came, each under its digest, and those that did not.
struct Blobs {
    came: BTreeMap<Digest, Blob>,
    absent: Vec<BlobRef>,
}

impl Blobs {
    /// Matches blobs with what the event names: each once, none that is not named.
    fn take(event: &Event, blobs: Vec<Blob>) -> Result<Self, AppendError> {
        let named = event.blobs();
        let mut came = BTreeMap::new();
        for blob in blobs {
            let reference = blob.reference();
            if !named.contains(&reference) {
                return Err(countersign_protocol::blob::BlobError::Mismatch.into());
            }
            came.insert(reference.digest, blob);
        }
        let mut absent = Vec::new();
        for named in named {
            match came.get(&named.digest) {
                // The same digest under another length: an audit would find it wrong for ever.
                Some(blob) if blob.content().len() as u64 != named.len => {
                    return Err(countersign_protocol::blob::BlobError::Mismatch.into());
                }
                Some(_) => {}
                None => absent.push(named),
            }
        }
        Ok(Self { came, absent })
    }

    fn content(&self, named: &BlobRef) -> Result<&[u8], AppendError> {
        self.came
            .get(&named.digest)
            .map(Blob::content)
            .ok_or(AppendError::BlobMissing)
    }

    /// Parses what a decision needs, and refuses documents that nobody could run.
    fn documents(&self, event: &Event) -> Result<Attachment, AppendError> {
        let malformed = |error: &dyn std::fmt::Display| AppendError::Document(error.to_string());
        if let Event::ChangeRequested(request) = event {
            let body = ChangeBody::parse(self.content(&request.body)?);
            let body = body.map_err(|error| malformed(&error))?;
            let policy = match &request.document {
                Some(named) => Some(policy(self.content(named)?)?),
                None => None,
            };
            return Ok(Attachment::Change(body, policy));
        }
        if let Event::AgentFacts(said) = event {
            let facts = Facts::parse(self.content(&said.facts)?);
            return Ok(Attachment::Facts(facts.map_err(|error| malformed(&error))?));
        }
        let Event::CommandRequested(request) = event else {
            return Ok(Attachment::None);
        };
        let act = &request.act;
        let spec = CommandSpec::parse(self.content(&act.spec)?, act);
        let spec = spec.map_err(|error| malformed(&error))?;
        if let Some(env) = &act.env {
            Environment::parse(self.content(env)?).map_err(|error| malformed(&error))?;
        }
        let list = TargetList::parse(self.content(&act.targets.list)?, &act.targets);
        let list = list.map_err(|error| malformed(&error))?;
        if let Some(secrets) = &act.secrets {
            let secrets = SealedSecrets::parse(self.content(secrets)?, act);
            let fit = secrets.and_then(|secrets| {
                secrets.check_nonce(request)?;
                secrets.check_targets(&list)
            });
            fit.map_err(|error| malformed(&error))?;
        }
        Ok(Attachment::Request(Some(list), Some(spec)))
    }

    /// Stores what came, and makes sure that what did not is here already.
    async fn store(self, gate: &Admission, statement: &StatementId) -> Result<(), AppendError> {
        if !self.absent.is_empty() {
            let found = store::has_blobs(&gate.pool, statement, &self.absent).await;
            let found = found.map_err(|error| {
                tracing::warn!(%error, "blobs could not be looked for");
                AppendError::Unavailable
            })?;
            if !found {
                return Err(AppendError::BlobMissing);
            }
        }
        if self.came.is_empty() || gate.blobs.store(self.came).await {
            Ok(())
        } else {
            Err(AppendError::Unavailable)
        }
    }
}
