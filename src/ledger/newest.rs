//! The newest committed checkpoint that this server knows, whichever server committed it.
//!
//! A newer one is first checked to continue the one before it, then made durable outside the
//! database, and only then announced. So what anybody heard here survives a rollback of the
//! database, and a rewritten one is noticed by whoever reads next.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use countersign_protocol::checkpoint::{Checkpoint, VerifierKey};
use countersign_protocol::hash::Hash;
use countersign_protocol::proof;
use sqlx::{PgConnection, PgPool};
use tokio::sync::watch;
use tokio::time::Instant;

use super::checkpoint_file::{CheckpointFile, CheckpointFileError};
use super::error::OpenError;
use super::store::{self, HeadRow};

/// How often the head is read for entries of other servers: a person does not notice the wait, and
/// one row five times a second costs nothing.
const FOLLOW_PAUSE: Duration = Duration::from_millis(200);

/// How long what others committed may not be kept before whoever listens here is sent away: a disk that
/// has no room for a moment sends nobody, and no host waits long for what another server has for it.
const UNKEPT_FOR: Duration = Duration::from_secs(5);

/// What is known, where it is kept, and who is told.
#[derive(Debug)]
pub(super) struct Newest {
    pool: PgPool,
    verifier: Arc<VerifierKey>,
    file: Mutex<CheckpointFile>,
    announce: watch::Sender<Arc<Checkpoint>>,
    /// Looks at the head that were begun, and the last of them that ended.
    begun: AtomicU64,
    looked: tokio::sync::Mutex<Looked>,
    /// Whether what others commit is still learned here.
    learns: watch::Sender<bool>,
    /// Set once the database contradicts what is known, with the reason.
    stopped: Arc<OnceLock<Arc<str>>>,
}

/// The last look at the head that ended.
#[derive(Debug, Default)]
struct Looked {
    last: u64,
    failed: Option<Failed>,
}

/// What kept a look from coming to an end, which all who wait for it share.
#[derive(Debug, Clone, Copy)]
enum Failed {
    /// The database did not answer.
    Unanswered,
    /// The file could not be written.
    Unkept,
}

impl From<Failed> for OpenError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Unanswered => Self::Unanswered,
            Failed::Unkept => Self::Unkept,
        }
    }
}

impl Newest {
    /// Begins with what the file holds already.
    pub(super) fn new(
        pool: PgPool,
        verifier: Arc<VerifierKey>,
        file: CheckpointFile,
        checkpoint: Checkpoint,
        stopped: Arc<OnceLock<Arc<str>>>,
    ) -> Self {
        Self {
            pool,
            verifier,
            file: Mutex::new(file),
            announce: watch::Sender::new(Arc::new(checkpoint)),
            begun: AtomicU64::new(0),
            looked: tokio::sync::Mutex::default(),
            learns: watch::Sender::new(true),
            stopped,
        }
    }

    pub(super) fn known(&self) -> Arc<Checkpoint> {
        Arc::clone(&self.announce.borrow())
    }

    pub(super) fn watch(&self) -> watch::Receiver<Arc<Checkpoint>> {
        self.announce.subscribe()
    }

    pub(super) fn learning(&self) -> Learning {
        Learning(self.learns.subscribe())
    }

    /// Makes a committed checkpoint durable and tells of it; one that is not newer changes nothing.
    ///
    /// # Errors
    /// The file. Nobody is told then.
    pub(super) fn advance(&self, newer: Arc<Checkpoint>) -> Result<(), CheckpointFileError> {
        self.file
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .advance(&newer)?;
        self.announce.send_if_modified(|known| {
            let is_newer = newer.size() > known.size();
            if is_newer {
                *known = newer;
            }
            is_newer
        });
        Ok(())
    }

    /// Reads the head, so that what other servers committed before this moment is known after it.
    /// Whoever comes while one reads waits for the next reading, and shares it with all who came
    /// meanwhile: a fleet that calls at once costs a few readings and not one each. A database that does not
    /// answer has them all wait once, and not one after the other.
    ///
    /// # Errors
    /// The database or the file, which may pass; or the database contradicts what is known, and
    /// then the ledger stops.
    pub(super) async fn look(&self) -> Result<(), OpenError> {
        let known = self.begun.load(Ordering::SeqCst);
        let mut last = self.looked.lock().await;
        if last.last > known {
            return last.failed.map_or(Ok(()), |failed| Err(failed.into()));
        }
        let this = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let looked = self.look_once().await;
        let failed = match &looked {
            Ok(()) => None,
            Err(OpenError::Database(_)) => Some(Failed::Unanswered),
            Err(OpenError::File(error)) => {
                // Five times a second until there is room again; said once.
                if !matches!(last.failed, Some(Failed::Unkept)) {
                    tracing::warn!(%error, "what other servers committed cannot be kept");
                }
                Some(Failed::Unkept)
            }
            Err(error) => {
                if self.stopped.set(error.to_string().into()).is_ok() {
                    tracing::error!(%error, "the ledger stops: the database contradicts what is known");
                }
                return looked;
            }
        };
        *last = Looked { last: this, failed };
        looked
    }

    async fn look_once(&self) -> Result<(), OpenError> {
        // In this order: what is committed while the head is read only makes it larger.
        let known = self.known();
        let head = store::head(&self.pool).await?;
        if head.note == known.note() {
            return Ok(());
        }
        let newer = Checkpoint::open(&head.note, &self.verifier)?;
        if newer.size() != head.size {
            return Err(OpenError::Head("its checkpoint is not of its size"));
        }
        let mut connection = self.pool.acquire().await?;
        check_continues(&mut connection, &head, &known).await?;
        Ok(self.advance(Arc::new(newer))?)
    }

    /// Looks again and again, and tells when that is in vain. Ends when nobody listens any more or the
    /// ledger has stopped.
    pub(super) async fn follow(self: Arc<Self>) {
        let mut unkept: Option<Instant> = None;
        while self.announce.receiver_count() > 0 && self.stopped.get().is_none() {
            tokio::time::sleep(FOLLOW_PAUSE).await;
            // A database that is away is away for all servers, and ends no stream: nobody could go
            // anywhere. The next append says what is wrong with it, and a stop is logged above.
            match self.look().await {
                Ok(()) => {
                    unkept = None;
                    self.learns(true);
                }
                Err(OpenError::File(_) | OpenError::Unkept) => {
                    let since = unkept.get_or_insert_with(Instant::now);
                    if since.elapsed() >= UNKEPT_FOR {
                        self.learns(false);
                    }
                }
                // Nothing is known of the file meanwhile.
                Err(_other) => unkept = None,
            }
        }
        if self.stopped.get().is_some() {
            self.learns(false);
        }
    }

    /// Tells, and says once, whether what others commit is still heard of here.
    fn learns(&self, learns: bool) {
        let is_news = self
            .learns
            .send_if_modified(|known| std::mem::replace(known, learns) != learns);
        if is_news && learns {
            tracing::info!("this server hears again of what other servers commit");
        } else if is_news {
            tracing::error!(
                "this server does not hear any more of what other servers commit: it ends its streams, feeds no sink and is not ready"
            );
        }
    }
}

/// Whether a server learns what the others commit. One that has stopped, or cannot keep what it reads, does
/// not: whoever waits for its word would wait while another server has it.
#[derive(Debug, Clone)]
pub struct Learning(watch::Receiver<bool>);

impl Learning {
    /// Says whether it does at this moment.
    #[must_use]
    pub fn holds(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it does not. The end of the ledger is none.
    pub async fn lost(&mut self) {
        if self.0.wait_for(|learns| !learns).await.is_err() {
            std::future::pending().await
        }
    }
}

/// The database holds less than what is known.
pub(super) fn behind(head: &HeadRow, known: &Checkpoint) -> OpenError {
    OpenError::Behind {
        database: head.size,
        file: known.size(),
    }
}

/// The database must continue what was committed.
pub(super) async fn check_continues(
    connection: &mut PgConnection,
    head: &HeadRow,
    known: &Checkpoint,
) -> Result<(), OpenError> {
    if known.size() > head.size {
        return Err(behind(head, known));
    }
    let nodes = store::nodes(connection, &proof::nodes_for_root(known.size())).await?;
    let root: Option<Hash> = proof::root(&nodes, known.size());
    if root == Some(known.root()) {
        Ok(())
    } else {
        Err(OpenError::OtherHistory(known.size()))
    }
}
