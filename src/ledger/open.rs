//! Opening a ledger, and its one door.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use countersign_protocol::checkpoint::{Checkpoint, VerifierKey};
use countersign_protocol::effect::Note;
use countersign_protocol::event::Event;
use countersign_protocol::hash::LedgerId;
use countersign_protocol::judgement::Judge;
use countersign_protocol::key::PublicKey;
use countersign_protocol::statement::Statement;
use sqlx::{Acquire as _, PgPool};
use tokio::sync::{oneshot, watch};

use super::admission::{Admission, Admitted, Submission};
use super::checkpoint_file::CheckpointFile;
use super::error::{AppendError, OpenError};
use super::newest::{Learning, Newest, check_continues};
use super::queue::{self, Entrance};
use super::receipt::Receipt;
use super::state::Folded;
use super::store::{self, HeadRow};
use super::writer::Writer;
use crate::clock::Clock;
use crate::keys::{GATEWAY_KEY_FILE, LedgerKeys};

/// The writer's own connections: one for the batch, one to ask what became of a COMMIT. However many
/// readers there are, they do not keep it waiting.
const WRITER_CONNECTIONS: u32 = 2;

/// Connections for the blobs of what is submitted: what is written waits for no reader either.
const ADMISSION_CONNECTIONS: u32 = 4;

/// The version of the schema that this program reads and writes.
pub const SCHEMA: i64 = 10;

/// What to do when there is no checkpoint file, and what to check beside one.
#[derive(Debug, Clone)]
pub enum StartRule {
    /// Refuse if the ledger has entries.
    FileRequired,
    /// This server has never served this ledger: trust what the database holds.
    FirstStart,
    /// Trust what the database holds if it continues this note, and the file where there is one.
    Accept(String),
}

/// What a ledger is opened with.
#[derive(Debug)]
pub struct Settings {
    /// The database, as the role that serves.
    pub pool: PgPool,
    /// The ledger's keys.
    pub keys: LedgerKeys,
    /// Where the newest committed checkpoint is kept, outside the database.
    pub checkpoint_file: PathBuf,
    /// What to do without that file.
    pub start: StartRule,
    /// Time.
    pub clock: Clock,
    /// Reads the policy.
    pub judge: Arc<dyn Judge>,
}

/// An open ledger. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Ledger {
    admission: Admission,
    /// What is read through, what is written through, what is stored through.
    pools: [PgPool; 3],
    entrance: Arc<Entrance>,
    newest: Arc<Newest>,
    /// Keeps the follower going.
    listening: watch::Receiver<Arc<Checkpoint>>,
    id: LedgerId,
    verifier: Arc<VerifierKey>,
    stopped: Arc<OnceLock<Arc<str>>>,
    judge: Arc<dyn Judge>,
}

impl Ledger {
    /// Writes the first entry into an empty database.
    ///
    /// # Errors
    /// The database is not empty, or the genesis is not the keys' own.
    pub async fn create(settings: &Settings, genesis: Statement) -> Result<LedgerId, OpenError> {
        check_schema(&settings.pool).await?;
        let mut connection = settings.pool.acquire().await?;
        let mut transaction = connection.begin().await?;
        let head = store::lock_head(&mut transaction).await?;
        if head.size != 0 {
            return Err(OpenError::Exists);
        }
        let verified = genesis.verify().map_err(|error| OpenError::Entry {
            seq: 0,
            reason: error.to_string(),
        })?;
        let Event::LedgerGenesis(first) = verified.event() else {
            return Err(OpenError::Empty);
        };
        let verifier = VerifierKey::of(&first.origin, &first.checkpoint_key)?;
        if first.checkpoint_key != PublicKey::of(settings.keys.checkpoint()) {
            return Err(OpenError::OtherKeys);
        }
        let (checkpoint, leaf) = Writer::begin(
            &mut transaction,
            &settings.keys,
            &settings.judge,
            verifier.origin(),
            &verified,
        )
        .await?;
        transaction.commit().await?;
        CheckpointFile::begin(&settings.checkpoint_file, &checkpoint)?;
        Ok(LedgerId::new(*leaf.as_bytes()))
    }

    /// Reads the ledger back, checks it against the checkpoint file, and starts the writer.
    ///
    /// The writer ends when the last clone is dropped.
    ///
    /// # Errors
    /// See [`OpenError`]. Nothing is served from a database that was rolled back or rewritten.
    pub async fn open(settings: Settings) -> Result<Self, OpenError> {
        let Settings {
            pool,
            keys,
            checkpoint_file,
            start,
            clock,
            judge,
        } = settings;
        check_schema(&pool).await?;
        let mut connection = pool.acquire().await?;
        let mut transaction = connection.begin().await?;
        // Locked, so that rights, open streams and head are of one moment.
        let head = store::lock_head(&mut transaction).await?;
        if head.size == 0 {
            return Err(OpenError::Empty);
        }
        let state = Folded::load(&mut transaction, &head, &judge).await?;
        let genesis = state.fold.rights().genesis().ok_or(OpenError::Empty)?;
        let id = state.fold.rights().ledger().ok_or(OpenError::Empty)?;
        let gateway = keys.gateway_key();
        let own = PublicKey::of(keys.checkpoint()) == genesis.checkpoint_key
            && PublicKey::of(keys.statement()) == genesis.statement_key
            && (gateway.is_none() || gateway == genesis.gateway_key);
        if !own {
            return Err(OpenError::OtherKeys);
        }
        if gateway.is_none() && genesis.gateway_key.is_some() {
            tracing::warn!(
                "there is no {GATEWAY_KEY_FILE} beside the other keys: no API token asks for anything at \
                 this server. Copy it from another server or from where the keys are kept"
            );
        }
        let verifier = VerifierKey::of(&genesis.origin, &genesis.checkpoint_key)?;
        let gateway = genesis.gateway_key.as_ref().map(PublicKey::key_id);
        let newest = check_head(&head, &state, &verifier)?;
        let kept = CheckpointFile::read(&checkpoint_file, &verifier)?;
        let given = match &start {
            StartRule::Accept(note) => {
                Some(Checkpoint::open(note, &verifier).map_err(OpenError::Given)?)
            }
            StartRule::FileRequired if kept.is_none() => {
                return Err(OpenError::NoFile { size: head.size });
            }
            StartRule::FileRequired | StartRule::FirstStart => None,
        };
        // Both: the file may be an old one that came back together with the database.
        for known in kept.iter().chain(&given) {
            check_continues(&mut transaction, &head, known).await?;
        }
        transaction.commit().await?;
        drop(connection);
        let file = CheckpointFile::begin(&checkpoint_file, &newest)?;
        let (entrance, waiting) = queue::queue(gateway);
        let verifier = Arc::new(verifier);
        let stopped = Arc::new(OnceLock::new());
        let newest = Arc::new(Newest::new(
            pool.clone(),
            Arc::clone(&verifier),
            file,
            newest,
            Arc::clone(&stopped),
        ));
        let listening = newest.watch();
        let [writing, storing] =
            [WRITER_CONNECTIONS, ADMISSION_CONNECTIONS].map(|most| own_pool(&pool, most));
        let writer = Writer {
            pool: writing.clone(),
            keys,
            clock,
            state: Some(state),
            newest: Arc::clone(&newest),
            verifier: Arc::clone(&verifier),
            ledger: id,
            stopped: Arc::clone(&stopped),
            judge: Arc::clone(&judge),
        };
        tokio::spawn(writer.run(waiting));
        tokio::spawn(Arc::clone(&newest).follow());
        Ok(Self {
            admission: Admission::new(storing.clone()),
            pools: [pool, writing, storing],
            entrance: Arc::new(entrance),
            newest,
            listening,
            id,
            verifier,
            stopped,
            judge,
        })
    }

    /// The one door: a submission in, a receipt out. The receipt is for a committed, durable entry.
    ///
    /// The same statement again gives the first one's receipt.
    ///
    /// # Errors
    /// See [`AppendError`]. [`AppendError::Unavailable`] and [`AppendError::Stopped`] leave open
    /// whether it was written, and with [`AppendError::NotKept`] it was.
    pub async fn append(&self, submission: Submission) -> Result<Receipt, AppendError> {
        let admitted = self.admit(submission).await?;
        self.enter(admitted).await
    }

    /// The part of [`Ledger::append`] that needs no order: signature, documents, blobs stored.
    ///
    /// # Errors
    /// As [`Ledger::append`].
    pub async fn admit(&self, submission: Submission) -> Result<Admitted, AppendError> {
        self.admission.admit(submission).await
    }

    /// Enters what was admitted before. It is in the writer's queue after the first poll.
    ///
    /// # Errors
    /// As [`Ledger::append`].
    pub async fn enter(&self, admitted: Admitted) -> Result<Receipt, AppendError> {
        let (answer, answered) = oneshot::channel();
        self.entrance.submit(admitted, answer)?;
        answered.await.unwrap_or(Err(AppendError::Unavailable))
    }

    /// Appends what passing time demands: expiries, losses, a heartbeat when it was quiet.
    ///
    /// # Errors
    /// As [`Ledger::append`].
    pub async fn append_due(&self) -> Result<(), AppendError> {
        let (answer, answered) = oneshot::channel();
        self.entrance.due(answer)?;
        answered.await.unwrap_or(Err(AppendError::Unavailable))
    }

    /// Writes down what happened at the server's door. It stands in the log when this returns.
    ///
    /// # Errors
    /// As [`Ledger::append`].
    pub async fn note(&self, note: Note) -> Result<(), AppendError> {
        let (answer, answered) = oneshot::channel();
        self.entrance.note(note, answer)?;
        answered.await.unwrap_or(Err(AppendError::Unavailable))
    }

    /// Removes blobs that were stored over an hour ago and that no entry names, up to some number of
    /// them. Says how many: while it is not zero there may be more.
    ///
    /// # Errors
    /// [`AppendError::Unavailable`].
    pub async fn purge_unreferenced_blobs(&self) -> Result<u64, AppendError> {
        let mut connection = self.pool().acquire().await.map_err(away)?;
        store::purge_unreferenced_blobs(&mut connection)
            .await
            .map_err(away)
    }

    /// Who reads its policy.
    #[must_use]
    pub fn judge(&self) -> Arc<dyn Judge> {
        Arc::clone(&self.judge)
    }

    /// The newest checkpoint that this server has committed or seen.
    #[must_use]
    pub fn newest(&self) -> Arc<Checkpoint> {
        self.newest.known()
    }

    /// Learns of what any server on this database has committed before this moment. Whoever reads
    /// after it reads nothing older, whichever server took the write.
    ///
    /// # Errors
    /// The database; or it contradicts what this server knows, and then the ledger has stopped.
    pub async fn look(&self) -> Result<(), OpenError> {
        self.newest.look().await
    }

    /// Checks that the database continues a checkpoint that somebody else kept.
    ///
    /// # Errors
    /// It does not, or the database is away.
    pub async fn continues(&self, known: &Checkpoint) -> Result<(), OpenError> {
        let head = store::head(self.pool()).await?;
        let mut connection = self.pool().acquire().await?;
        check_continues(&mut connection, &head, known).await
    }

    /// Tells of each newer checkpoint.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<Checkpoint>> {
        self.listening.clone()
    }

    /// Tells whether this server still learns what the others commit.
    #[must_use]
    pub fn learning(&self) -> Learning {
        self.newest.learning()
    }

    /// Says whether the writer has stopped for good: what it read contradicts what it knew.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stopped.get().is_some() || self.entrance.is_closed()
    }

    /// The ledger's id.
    #[must_use]
    pub const fn id(&self) -> LedgerId {
        self.id
    }

    /// The key that checks its checkpoints.
    #[must_use]
    pub fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    /// The database, for reading.
    #[must_use]
    pub const fn pool(&self) -> &PgPool {
        let [reading, ..] = &self.pools;
        reading
    }

    /// All of its ways to the database, for whoever knows where that is now.
    pub(crate) const fn pools(&self) -> &[PgPool; 3] {
        &self.pools
    }
}

fn away(error: sqlx::Error) -> AppendError {
    tracing::warn!(%error, "the database failed");
    AppendError::Unavailable
}

/// A pool of its own, to the same database, which asks the same of each connection.
fn own_pool(pool: &PgPool, connections: u32) -> PgPool {
    let options = pool.options().clone().max_connections(connections);
    options.connect_lazy_with((*pool.connect_options()).clone())
}

async fn check_schema(pool: &PgPool) -> Result<(), OpenError> {
    let found: Option<i64> =
        sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations WHERE success")
            .fetch_one(pool)
            .await
            .or_else(
                |error| match error.as_database_error().and_then(|error| error.code()) {
                    // undefined_table: nothing was migrated.
                    Some(code) if code == "42P01" => Ok(None),
                    _other => Err(error),
                },
            )?;
    let found = found.unwrap_or(0);
    if found == SCHEMA {
        Ok(())
    } else {
        Err(OpenError::Schema {
            found,
            needed: SCHEMA,
        })
    }
}

/// The head must agree with its own note.
fn check_head(
    head: &HeadRow,
    state: &Folded,
    verifier: &VerifierKey,
) -> Result<Checkpoint, OpenError> {
    let newest = Checkpoint::open(&head.note, verifier)?;
    if newest.size() != head.size || newest.root() != state.edge.root() {
        return Err(OpenError::Head(
            "its checkpoint is not of its size and right edge",
        ));
    }
    Ok(newest)
}
