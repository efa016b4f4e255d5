//! Why a statement was not appended, or a ledger not opened.

use std::sync::Arc;

use countersign_protocol::blob::BlobError;
use countersign_protocol::checkpoint::CheckpointError;
use countersign_protocol::fold::Refusal;
use countersign_protocol::statement::StatementError;

use super::checkpoint_file::CheckpointFileError;

/// Why a statement is not in the log, or not known to be.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// Its bytes or signature.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// A blob that it names is not what it names, or one came that it does not name.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// A blob that it names is not here.
    #[error("a blob that the statement names was not sent with it")]
    BlobMissing,
    /// A document behind it is malformed; the text says how.
    #[error("{0}")]
    Document(String),
    /// It may not stand where it would.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// More is waiting than the writer takes; nothing was written.
    #[error("the ledger is busy; nothing was written, try again")]
    Busy,
    /// The database cannot be reached or the commit's outcome is not known. A retry is safe: the
    /// same statement is entered once.
    #[error(
        "the database cannot be reached; whether this was written is not known, and sending it again is safe"
    )]
    Unavailable,
    /// It stands in the log, and the receipt's checkpoint cannot be kept outside the database.
    #[error(
        "this server cannot write its checkpoint file, so it gives no receipt; what was sent stands in the log, and sending it again is safe"
    )]
    NotKept,
    /// The clocks of this server, of the database and of the log's newest entry disagree.
    #[error(
        "the clocks of this server, of its database and of the newest entry are further apart than the ledger allows; nothing was written"
    )]
    Clock,
    /// The ledger stopped: what it read contradicts what it knew, or what it committed could not be
    /// kept. In that case the statement stands in the log, and is found there after a restart.
    #[error("the ledger has stopped: {0}")]
    Stopped(Arc<str>),
}

/// Why a ledger does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The database.
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
    /// The database, asked by another caller whose answer this one waited for.
    #[error("the database did not answer a moment ago")]
    Unanswered,
    /// The checkpoint file, tried by another caller whose answer this one waited for.
    #[error("what other servers committed could not be kept a moment ago")]
    Unkept,
    /// No genesis.
    #[error("the database holds no ledger yet; make one with `countersign init`")]
    Empty,
    /// A genesis, where one was to be written.
    #[error("there is a ledger in this database already; nothing was changed")]
    Exists,
    /// The keys are another ledger's.
    #[error(
        "a key of this folder (statement.key, checkpoint.key, gateway.key) is not this ledger's; take those of its other servers, or of the copy that was kept when it was made"
    )]
    OtherKeys,
    /// The checkpoint file.
    #[error(transparent)]
    File(#[from] CheckpointFileError),
    /// No checkpoint file beside a ledger with entries.
    #[error(
        "there is no checkpoint file, but the ledger has {size} entries. If this server starts here for the first time, say --first-start; after a move, give the newest checkpoint you hold with --accept-checkpoint"
    )]
    NoFile {
        /// Entries in the database.
        size: u64,
    },
    /// The note that was given is not this ledger's.
    #[error(
        "the checkpoint that was given with --accept-checkpoint: {0}. Nothing was opened; give the file whole, as it was kept or as GET /v1/checkpoint gave it, or leave it out where there is a checkpoint file"
    )]
    Given(CheckpointError),
    /// The database is behind what was committed.
    #[error(
        "the database is behind: it has {database} entries, this server has committed {file}. It was restored from a backup or cut, or a standby was promoted that had not received the rest. Nothing is served; find the database that has it all, or begin a new ledger that names this one"
    )]
    Behind {
        /// Entries in the database.
        database: u64,
        /// Entries that were committed.
        file: u64,
    },
    /// The database holds another history.
    #[error(
        "the database holds another history than this server has committed: the roots at {0} entries differ"
    )]
    OtherHistory(u64),
    /// A stored note does not verify.
    #[error("the database's newest checkpoint: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// A stored entry does not fold.
    #[error("entry {seq} of the database does not stand: {reason}")]
    Entry {
        /// Where.
        seq: u64,
        /// Why.
        reason: String,
    },
    /// The head row contradicts the log.
    #[error("the head row contradicts the log: {0}")]
    Head(&'static str),
    /// The database's schema is of another version.
    #[error(
        "the database's schema has version {found}, this program needs {needed}; run `countersign migrate` of this version, or the matching program"
    )]
    Schema {
        /// What is there.
        found: i64,
        /// What is needed.
        needed: i64,
    },
}
