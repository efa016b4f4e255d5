//! Why there is no verdict.

use countersign_protocol::checkpoint::CheckpointError;

use super::source::SourceError;

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The database cannot be read.
    #[error("the database cannot be read, so nothing was verified: {0}")]
    Database(#[from] sqlx::Error),
    /// Another schema, or none.
    #[error(
        "this database has no tables of a countersign ledger ({0}); check the URL, or run `countersign migrate` for a new one"
    )]
    NotALedger(String),
    /// The source of pages failed.
    #[error("the ledger cannot be read, so nothing was verified: {0}")]
    Source(SourceError),
    /// The checkpoint that the caller gave is not readable.
    #[error(
        "the checkpoint that was given is damaged ({0}); give the whole note as the ledger issued it"
    )]
    Note(CheckpointError),
    /// A checking thread ended without an answer.
    #[error("a checking thread ended without an answer, so nothing was verified; try again")]
    Worker,
}
