//! Making a ledger: the schema, the keys, the first entry.

use std::path::Path;
use std::sync::Arc;

use countersign_policy::CedarJudge;
use countersign_protocol::checkpoint::{Origin, VerifierKey};
use countersign_protocol::entry::{self, Entry};
use countersign_protocol::event::{Administrator, Event, LedgerGenesis};
use countersign_protocol::hash::{Hash, LedgerId};
use countersign_protocol::judgement::Judge;
use countersign_protocol::key::PublicKey;
use countersign_protocol::statement::{Statement, StatementError};
use secrecy::SecretString;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

use crate::clock::Clock;
use crate::keys::{self, KeyFileError, LedgerKeys};
use crate::ledger::{Ledger, OpenError, Settings, StartRule, history};
use crate::primary::{Addresses, PrimaryError};

/// The schema, compiled in.
pub static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// Why a ledger was not made.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The database.
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
    /// Its address, or where it leads.
    #[error(transparent)]
    Address(#[from] PrimaryError),
    /// A migration.
    #[error("the schema could not be brought up to date: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// The ledger's keys.
    #[error(transparent)]
    Keys(#[from] KeyFileError),
    /// What the first entry would say.
    #[error("the first entry: {0}")]
    Genesis(#[from] StatementError),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] OpenError),
}

/// Brings the schema up to date, with the owner's address. Doing it twice does nothing.
///
/// # Errors
/// See [`SetupError`].
pub async fn migrate(owner: &SecretString) -> Result<(), SetupError> {
    let options = PgPoolOptions::new().max_connections(1);
    let pool = Addresses::read(owner)?.pool(options).await?;
    MIGRATIONS.run(&pool).await?;
    pool.close().await;
    Ok(())
}

/// The first entry of a ledger: who may change rights, and how many of them it takes.
#[derive(Debug, Clone)]
pub struct Founding {
    /// The origin line of its checkpoints.
    pub origin: Origin,
    /// Who may change rights.
    pub administrators: Vec<Administrator>,
    /// How many of them a change takes.
    pub threshold: u32,
    /// An offline key for the day when administrators are lost.
    pub recovery_key: Option<PublicKey>,
}

/// A ledger that was made: what hosts and clients pin.
#[derive(Debug, Clone)]
pub struct Founded {
    /// Its id.
    pub id: LedgerId,
    /// The key of its checkpoints.
    pub vkey: VerifierKey,
}

/// Draws the ledger's keys into a folder, unless it has some, and writes the first entry into an
/// empty, migrated database. The checkpoint file is begun.
///
/// # Errors
/// See [`SetupError`]; a database that holds a ledger is left alone.
pub async fn found(
    pool: PgPool,
    folder: &Path,
    checkpoint_file: &Path,
    clock: &Clock,
    founding: Founding,
) -> Result<Founded, SetupError> {
    let genesis = draft(folder, clock, founding)?;
    enter(pool, folder, checkpoint_file, clock, genesis).await
}

/// Draws the ledger's keys into a folder, unless it has some, and signs the first entry. No database
/// is needed: it can be done on a machine without a network, and says the ledger's id.
///
/// # Errors
/// See [`SetupError`].
pub fn draft(folder: &Path, clock: &Clock, founding: Founding) -> Result<Statement, SetupError> {
    // What would be signed is checked before any key is written.
    let keys = LedgerKeys::generate();
    sign(&keys, clock, founding.clone())?;
    if !LedgerKeys::exist(folder) {
        keys.write_new(folder)?;
    }
    sign(&LedgerKeys::read(folder)?, clock, founding)
}

/// What hosts and clients pin of a ledger that begins with this entry.
///
/// # Errors
/// It is no genesis that holds.
pub fn pins(genesis: &Statement) -> Result<Founded, SetupError> {
    let verified = genesis.clone().verify()?;
    let Event::LedgerGenesis(first) = verified.event() else {
        return Err(OpenError::Empty.into());
    };
    let entry = Entry {
        seq: 0,
        time: first.made_at,
        prev: Hash::ZERO,
        key_id: verified.facts().key_id,
        statement: genesis.clone(),
    };
    let bytes = entry.encode().map_err(|error| history::bad(0, error))?;
    Ok(Founded {
        id: LedgerId::new(*entry::leaf(&bytes).as_bytes()),
        vkey: VerifierKey::of(&first.origin, &first.checkpoint_key).map_err(OpenError::from)?,
    })
}

/// Writes a first entry that was signed with the keys in a folder into an empty, migrated database.
/// The checkpoint file is begun.
///
/// # Errors
/// See [`SetupError`]; a database that holds a ledger is left alone.
pub async fn enter(
    pool: PgPool,
    folder: &Path,
    checkpoint_file: &Path,
    clock: &Clock,
    genesis: Statement,
) -> Result<Founded, SetupError> {
    let founded = pins(&genesis)?;
    let settings = Settings {
        pool,
        keys: LedgerKeys::read(folder)?,
        checkpoint_file: checkpoint_file.to_owned(),
        start: StartRule::FirstStart,
        clock: clock.clone(),
        judge: judge(),
    };
    Ledger::create(&settings, genesis).await?;
    Ok(founded)
}

/// Who reads the policies of a ledger.
#[must_use]
pub fn judge() -> Arc<dyn Judge> {
    Arc::new(CedarJudge::new())
}

fn sign(keys: &LedgerKeys, clock: &Clock, founding: Founding) -> Result<Statement, SetupError> {
    let mut administrators = founding.administrators;
    administrators.sort_by(|a, b| a.principal.cmp(&b.principal));
    let genesis = LedgerGenesis {
        signer: keys.statement_id(),
        nonce: keys::nonce(),
        made_at: clock.now(),
        origin: founding.origin,
        checkpoint_key: PublicKey::of(keys.checkpoint()),
        statement_key: PublicKey::of(keys.statement()),
        administrators,
        threshold: founding.threshold,
        gateway_key: keys.gateway_key(),
        recovery_key: founding.recovery_key,
    };
    Ok(Statement::sign(&genesis.into(), keys.statement())?)
}
