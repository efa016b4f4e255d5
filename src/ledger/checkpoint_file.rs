//! The newest committed checkpoint, outside the database: how a server notices that the database
//! was rolled back.
//!
//! Written after a commit is known and before anyone is answered. What it holds never goes back.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use countersign_protocol::checkpoint::{Checkpoint, CheckpointError, VerifierKey};

use crate::durable;

/// The file and what it holds.
#[derive(Debug)]
pub struct CheckpointFile {
    path: PathBuf,
    size: u64,
}

/// Why the file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointFileError {
    /// The file system.
    #[error("the checkpoint file {path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What it holds is not the ledger's.
    #[error("the checkpoint file {path}: {source}")]
    Note {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: CheckpointError,
    },
}

impl CheckpointFile {
    /// Reads the file; none if there is none.
    ///
    /// # Errors
    /// Not readable, or not a checkpoint of this ledger.
    pub fn read(path: &Path, key: &VerifierKey) -> Result<Option<Checkpoint>, CheckpointFileError> {
        let note = match fs::read_to_string(path) {
            Ok(note) => note,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(CheckpointFileError::Io {
                    path: path.to_path_buf(),
                    source,
                });
            }
        };
        Checkpoint::open(&note, key)
            .map(Some)
            .map_err(|source| CheckpointFileError::Note {
                path: path.to_path_buf(),
                source,
            })
    }

    /// A file that holds, from now on, at least `checkpoint`.
    ///
    /// # Errors
    /// Not writable.
    pub fn begin(path: &Path, checkpoint: &Checkpoint) -> Result<Self, CheckpointFileError> {
        let mut file = Self {
            path: path.to_path_buf(),
            size: 0,
        };
        file.advance(checkpoint)?;
        Ok(file)
    }

    /// Makes a larger committed checkpoint durable; a smaller one changes nothing.
    ///
    /// When this returns, a power cut cannot bring an older one back.
    ///
    /// # Errors
    /// Not writable; the older one still stands then.
    pub fn advance(&mut self, checkpoint: &Checkpoint) -> Result<(), CheckpointFileError> {
        if checkpoint.size() <= self.size {
            return Ok(());
        }
        durable::replace(&self.path, checkpoint.note().as_bytes()).map_err(|source| {
            CheckpointFileError::Io {
                path: self.path.clone(),
                source,
            }
        })?;
        self.size = checkpoint.size();
        Ok(())
    }
}
