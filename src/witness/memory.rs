//! What a witness must never forget, as files: the newest checkpoint it signed of each log, and the
//! notes that contradict each other.
//!
//! ```text
//! STATE/witness                         whose folder it is
//! STATE/lock                            held by the one process that uses it
//! STATE/<SHA-256 of origin>/checkpoint  the note that was signed last
//! STATE/<SHA-256 of origin>/evidence/<kind>-<size>-<hash>/{known,shown}.note
//! ```
//!
//! It owns these files and decides nothing.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use countersign_protocol::checkpoint::{Checkpoint, CheckpointError, Origin, VerifierKey};
use countersign_protocol::cosignature::WitnessKey;
use sha2::{Digest as _, Sha256};

use crate::durable;

/// Evidence that is kept of one kind for each log: one proves it, some more show how; and nobody
/// fills the disk.
pub(super) const MAX_EVIDENCE: usize = 64;

/// Bytes of a hash that tell two notes of one size apart: so many that a log cannot make two of one
/// name, the second of which would not be kept.
const NAME_BYTES: usize = 16;

/// The state folder, ours alone while this lives.
#[derive(Debug)]
pub(super) struct Memory {
    folder: PathBuf,
    _lock: File,
}

/// Why the state folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The file system.
    #[error("the state folder: {path}: {source}", path = path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process has it.
    #[error("the state folder {} is in use by another witness; two on one folder could sign two histories", .0.display())]
    InUse(PathBuf),
    /// It is another witness's.
    #[error(
        "the state folder {} belongs to the witness {found}; give this one a folder of its own", folder.display()
    )]
    OtherWitness {
        /// Which.
        folder: PathBuf,
        /// Whose it is.
        found: String,
    },
    /// A remembered note does not stand.
    #[error(
        "{} is no checkpoint that a --log key has signed ({source}). Without it this witness would sign \
         any history: find out what changed it, or retire this witness's key", path.display()
    )]
    Note {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: CheckpointError,
    },
}

/// What two notes show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Evidence {
    /// Two roots of one size: the log has signed two histories.
    Fork,
    /// A signed checkpoint came without a proof that it continues the known one. Whoever sent it
    /// may have no proof; if the log has none either, it is a fork.
    Unproved,
}

/// What has become of two notes that do not fit together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kept {
    /// They lie there now.
    Now(PathBuf),
    /// They did before.
    Already,
    /// They do not: there are [`MAX_EVIDENCE`] of their kind in this folder.
    Full(PathBuf),
}

impl Memory {
    /// Makes the folder if there is none, and takes it.
    pub(super) fn open(folder: &Path, key: &WitnessKey) -> Result<Self, MemoryError> {
        let failed = |path: &Path, source| MemoryError::Io {
            path: path.to_path_buf(),
            source,
        };
        make_folder(folder).map_err(|source| failed(folder, source))?;
        let path = folder.join("lock");
        let mut options = OpenOptions::new();
        let lock = options.create(true).truncate(false).write(true).mode(0o600);
        let lock = lock.open(&path).map_err(|source| failed(&path, source))?;
        if lock.try_lock().is_err() {
            return Err(MemoryError::InUse(folder.to_path_buf()));
        }
        let (path, own) = (folder.join("witness"), key.to_string());
        match fs::read_to_string(&path) {
            Ok(found) if found.trim_end() == own => {}
            Ok(found) => {
                return Err(MemoryError::OtherWitness {
                    folder: folder.to_path_buf(),
                    found: found.trim_end().to_owned(),
                });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                durable::replace(&path, format!("{own}\n").as_bytes())
                    .map_err(|source| failed(&path, source))?;
            }
            Err(source) => return Err(failed(&path, source)),
        }
        Ok(Self {
            folder: folder.to_path_buf(),
            _lock: lock,
        })
    }

    fn of(&self, origin: &Origin) -> PathBuf {
        let name = hex::encode(Sha256::digest(origin.as_str()));
        self.folder.join(name)
    }

    /// What was signed last of a log; none for the first time.
    pub(super) fn load(
        &self,
        origin: &Origin,
        keys: &[VerifierKey],
    ) -> Result<Option<Checkpoint>, MemoryError> {
        let folder = self.of(origin);
        let path = folder.join("checkpoint");
        let failed = |path: PathBuf, source| MemoryError::Io { path, source };
        make_folder(&folder).map_err(|source| failed(folder, source))?;
        let note = match fs::read_to_string(&path) {
            Ok(note) => note,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(failed(path, source)),
        };
        let opened = open_by_any(&note, keys);
        opened
            .map(Some)
            .map_err(|source| MemoryError::Note { path, source })
    }

    /// Makes a checkpoint durable as the newest one.
    pub(super) fn keep(&self, checkpoint: &Checkpoint) -> io::Result<()> {
        let path = self.of(&checkpoint.body().origin).join("checkpoint");
        durable::replace(&path, checkpoint.note().as_bytes())
    }

    /// Keeps two notes that do not fit together.
    pub(super) fn keep_evidence(
        &self,
        kind: Evidence,
        known: &Checkpoint,
        shown: &Checkpoint,
    ) -> io::Result<Kept> {
        let all = self.evidence_of(&known.body().origin);
        make_folder(&all)?;
        let place = all.join(kind.name_of(shown));
        if place.exists() {
            return Ok(Kept::Already);
        }
        let kept = fs::read_dir(&all)?.flatten();
        let word = kind.word();
        let of_kind = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(word);
        if kept.filter(of_kind).count() >= MAX_EVIDENCE {
            return Ok(Kept::Full(all));
        }
        // Under its name only when it is whole.
        let making = all.join("new");
        make_folder(&making)?;
        durable::replace(&making.join("known.note"), known.note().as_bytes())?;
        durable::replace(&making.join("shown.note"), shown.note().as_bytes())?;
        fs::rename(&making, &place)?;
        File::open(&all)?.sync_all()?;
        Ok(Kept::Now(place))
    }

    /// Makes room: this checkpoint came without a proof before, and now a proof has led to it.
    pub(super) fn forget_unproved(&self, proved: &Checkpoint) -> io::Result<()> {
        let name = Evidence::Unproved.name_of(proved);
        let place = self.evidence_of(&proved.body().origin).join(name);
        match fs::remove_dir_all(place) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn evidence_of(&self, origin: &Origin) -> PathBuf {
        self.of(origin).join("evidence")
    }
}

impl Evidence {
    const fn word(self) -> &'static str {
        match self {
            Self::Fork => "fork",
            Self::Unproved => "unproved",
        }
    }

    /// What its folder is called.
    fn name_of(self, shown: &Checkpoint) -> String {
        let digest = Sha256::digest(shown.body().to_string());
        let hash = hex::encode(digest.get(..NAME_BYTES).unwrap_or_default());
        format!("{}-{}-{hash}", self.word(), shown.size())
    }
}

/// Opens a note by the first of a log's keys that signed it.
pub(super) fn open_by_any(note: &str, keys: &[VerifierKey]) -> Result<Checkpoint, CheckpointError> {
    let mut last = CheckpointError::Unsigned;
    for key in keys {
        match Checkpoint::open(note, key) {
            Ok(checkpoint) => return Ok(checkpoint),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn make_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    // Its name must survive a power cut as well, or what is kept in it is lost with it.
    match folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        Some(_) | None => Ok(()),
    }
}
