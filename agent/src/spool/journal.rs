//! When the journal's file is added to, made durable and written anew, and what happens without room.
//!
//! It owns the order "write, fdatasync, then it counts". After a failed write or sync nothing more
//! is written: what the disk then holds is not known, and recovery at the next start finds out. Only
//! a write for which there was no room is taken back, since then nothing is in doubt.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use countersign_protocol::api::Submission;
use countersign_protocol::hash::{CommandId, StatementId};
use countersign_protocol::name::Time;

use super::frame;
use super::log::{Log, LogError, encode};
use super::record::{Birth, Record};
use super::state::{ChainEnd, Illegal, Run, Waiting, Word};
use crate::key;

/// The journal's name in its folder.
pub const FILE: &str = "journal";

/// A smaller journal is not worth writing anew: some thousand commands.
const COMPACT_BYTES: u64 = 4 << 20;

/// While more than this waits to be delivered, what was delivered is not cleared away by itself: each
/// time all of the rest would be copied.
const FORGET_BYTES: u64 = 16 << 20;

/// When the host says nothing else: above this no new command is taken and output waits in its command, so that a ledger that is
/// away fills no disk: three of the largest outputs. While the journal is written anew, the half of
/// it that still counts is there twice.
pub const FULL_BYTES: u64 = 256 << 20;

/// The smallest such bound. What counts no more leaves the journal when that is half of it and it has
/// [`COMPACT_BYTES`]; near that, a journal could stay full
/// of what was delivered long ago.
pub const LEAST_BYTES: u64 = 4 * COMPACT_BYTES;

/// Why the journal cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SpoolError {
    /// The disk.
    #[error("the journal {path} cannot be used: {source}; nothing runs until it can", path = path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: Arc<io::Error>,
    },
    /// Bytes in the middle do not check.
    #[error(
        "the journal {path} is damaged at byte {at}, so it cannot say which grants were used; \
         restore it, or remove the folder and enrol anew under another name", path = path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Where.
        at: u64,
    },
    /// It checks but makes no sense.
    #[error("the journal {path} contradicts itself: {source}", path = path.display())]
    Illegal {
        /// Which file.
        path: PathBuf,
        /// How.
        source: Illegal,
    },
    /// Nothing was written, and nothing is lost.
    #[error(
        "there is no room to write the journal {path}; commands that run wait in their output, and \
         no other starts until there is room", path = path.display())]
    NoRoom {
        /// Which file.
        path: PathBuf,
    },
    /// An earlier write failed.
    #[error("an earlier write to the journal failed, so nothing more is written; start anew")]
    Broken,
}

struct Inner {
    /// Where the file is now; its folder may be given another name.
    path: PathBuf,
    log: Log,
    /// A write failed, and what the disk holds is not known.
    broken: bool,
    /// The last write found no room.
    crowded: bool,
    full_bytes: u64,
    compact_bytes: u64,
}

/// The journal and what it adds up to. All calls that read or write output block on the disk.
pub struct Spool {
    inner: Mutex<Inner>,
}

impl Spool {
    /// Makes the journal of a new identity in `folder`. Never over an existing one.
    ///
    /// # Errors
    /// See [`SpoolError`].
    pub fn create(folder: &Path, birth: &Birth) -> Result<(), SpoolError> {
        let path = folder.join(FILE);
        let io = |source| io_error(&path, source);
        let body = encode(&[Record::Birth(birth.clone())]).map_err(io)?;
        let bytes = frame::wrap(0, &body).unwrap_or_default();
        key::write_private(&path, &bytes).map_err(io)?;
        key::sync_folder(folder).map_err(io)
    }

    /// Opens the journal in `folder`, cuts a torn end off and takes all records.
    ///
    /// # Errors
    /// See [`SpoolError`]; damage before the end is never passed over.
    pub fn open(folder: &Path) -> Result<Self, SpoolError> {
        Self::open_bounded(folder, FULL_BYTES, COMPACT_BYTES)
    }

    /// [`Spool::open`] with other bounds, in bytes: from `full` on there is no room, and below
    /// `compact` the journal is not written anew.
    ///
    /// # Errors
    /// As [`Spool::open`].
    pub fn open_bounded(folder: &Path, full: u64, compact: u64) -> Result<Self, SpoolError> {
        let path = folder.join(FILE);
        let log = Log::open(&path).map_err(|error| log_error(&path, error))?;
        let torn = log.torn().map_err(|source| io_error(&path, source))?;
        if torn > 0 {
            tracing::warn!(
                torn,
                "cutting an unfinished record off the journal; it was never acted on"
            );
            log.cut().map_err(|source| io_error(&path, source))?;
        }
        let inner = Inner {
            path,
            log,
            broken: false,
            crowded: false,
            full_bytes: full,
            compact_bytes: compact,
        };
        Ok(Self {
            inner: Mutex::new(inner),
        })
    }

    /// Sets the bytes from which on there is no room; what is there already stays.
    pub fn bound(&self, full: u64) {
        self.lock().full_bytes = full;
    }

    /// Writes records down, all or none. When this returns they are durable and count.
    ///
    /// # Errors
    /// [`SpoolError::NoRoom`] when nothing was written and it may be tried again; after any other
    /// nothing counts any more.
    pub fn append(&self, records: impl AsRef<[Record]>) -> Result<(), SpoolError> {
        let records = records.as_ref();
        let mut inner = self.lock();
        if inner.broken {
            return Err(SpoolError::Broken);
        }
        let body = encode(records).map_err(|source| io_error(&inner.path, source))?;
        let mut written = self.write(&mut inner, &body);
        if matches!(written, Err(SpoolError::NoRoom { .. }))
            && inner.log.state.weight() < inner.log.len / 4 * 3
        {
            match self.write_anew(&mut inner, None) {
                Ok(()) => written = self.write(&mut inner, &body),
                Err(SpoolError::NoRoom { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        written?;
        inner.broken = true;
        let taken = inner.log.take(records, &body);
        taken.map_err(|error| log_error(&inner.path, error))?;
        inner.broken = false;
        Ok(())
    }

    /// Writes and makes durable; without room the file is as it was.
    fn write(&self, inner: &mut Inner, body: &[u8]) -> Result<(), SpoolError> {
        inner.broken = true;
        if let Err(error) = inner.log.write(body) {
            if !key::is_no_room(&error) || inner.log.cut().is_err() {
                return Err(io_error(&inner.path, error));
            }
            inner.broken = false;
            inner.crowded = true;
            let path = inner.path.clone();
            return Err(SpoolError::NoRoom { path });
        }
        inner
            .log
            .sync()
            .map_err(|source| io_error(&inner.path, source))?;
        inner.broken = false;
        inner.crowded = false;
        Ok(())
    }

    /// Writes the journal anew when at least half of it counts no more; says whether it did.
    /// What runs and what waits to be delivered stays.
    ///
    /// # Errors
    /// See [`SpoolError`]. Without room for the new file the old one goes on.
    pub fn compact(&self, now: Time) -> Result<bool, SpoolError> {
        let mut inner = self.lock();
        let worth =
            inner.log.len >= inner.compact_bytes && inner.log.state.weight() <= inner.log.len / 2;
        if inner.broken || !worth {
            return Ok(false);
        }
        match self.write_anew(&mut inner, Some(now)) {
            Ok(()) => Ok(true),
            Err(SpoolError::NoRoom { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Writes the journal anew when texts lie in it that the ledger has: it is no archive, and what is
    /// erased there must not stay here. Says whether it did. What runs and what waits stays.
    ///
    /// # Errors
    /// As [`Spool::compact`].
    pub fn forget(&self, now: Time) -> Result<bool, SpoolError> {
        let mut inner = self.lock();
        let state = &inner.log.state;
        if inner.broken || !state.is_spent() || state.weight() > FORGET_BYTES {
            return Ok(false);
        }
        match self.write_anew(&mut inner, Some(now)) {
            Ok(()) => Ok(true),
            Err(SpoolError::NoRoom { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn write_anew(&self, inner: &mut Inner, now: Option<Time>) -> Result<(), SpoolError> {
        let path = inner.path.clone();
        let aside = path.with_extension("new");
        let io = |source| io_error(&path, source);
        remove(&aside).map_err(io)?;
        let copy = match inner.log.copy_to(&aside, now) {
            Ok(copy) => copy,
            Err(LogError::Io(error)) if key::is_no_room(&error) => {
                remove(&aside).map_err(io)?;
                return Err(SpoolError::NoRoom { path });
            }
            Err(error) => return Err(log_error(&path, error)),
        };
        // From here on it is not known which of the two a power cut would leave.
        inner.broken = true;
        fs::rename(&aside, &path).map_err(io)?;
        path.parent().map_or(Ok(()), key::sync_folder).map_err(io)?;
        inner.log = copy;
        inner.broken = false;
        inner.crowded = false;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose journal this is.
    #[must_use]
    pub fn birth(&self) -> Birth {
        self.lock().log.state.birth().clone()
    }

    /// The enrolment, once it was signed.
    #[must_use]
    pub fn enrolment(&self) -> Option<Arc<Submission>> {
        self.lock().log.state.enrolment()
    }

    /// Whether the ledger accepted this agent.
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        self.lock().log.state.is_accepted()
    }

    /// Gives the journal's folder another name, while nothing is written.
    ///
    /// # Errors
    /// It keeps its name then.
    pub(crate) fn move_folder(&self, to: &Path) -> io::Result<()> {
        let mut inner = self.lock();
        if let Some(folder) = inner.path.parent() {
            fs::rename(folder, to)?;
        }
        inner.path = to.join(FILE);
        Ok(())
    }

    /// Since when the key before this one is in its grace, if there was one.
    #[must_use]
    pub fn succeeds(&self) -> Option<Time> {
        self.lock().log.state.succeeds()
    }

    /// Whether the key has said its last word.
    #[must_use]
    pub fn is_retired(&self) -> bool {
        self.lock().log.state.is_retired()
    }

    /// Whether a grant was used.
    #[must_use]
    pub fn is_used(&self, command: &CommandId) -> bool {
        self.lock().log.state.is_used(command)
    }

    /// Whether there is room for another command's output.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let inner = self.lock();
        !inner.broken && !inner.crowded && inner.log.len < inner.full_bytes
    }

    /// Whether output has to wait in its command until some was delivered.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let inner = self.lock();
        !inner.broken && inner.log.len >= inner.full_bytes
    }

    /// Bytes on disk.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.lock().log.len
    }

    /// Where the agent's chain stands.
    #[must_use]
    pub fn chain(&self) -> ChainEnd {
        self.lock().log.state.chain()
    }

    /// The statement on the chain that has no answer yet.
    #[must_use]
    pub fn word(&self) -> Option<Word> {
        self.lock().log.state.word().cloned()
    }

    /// The runs whose end is not in the log.
    #[must_use]
    pub fn open_runs(&self) -> Vec<StatementId> {
        self.lock().log.state.runs().keys().copied().collect()
    }

    /// A run, without its pending output; none once its end is in the log.
    #[must_use]
    pub fn run(&self, started: &StatementId) -> Option<Run> {
        let inner = self.lock();
        let run = inner.log.state.runs().get(started)?;
        Some(Run {
            command: run.command,
            chunks: run.chunks,
            last_chunk: run.last_chunk,
            pending: std::collections::VecDeque::new(),
            broken: run.broken,
            ended: run.ended.clone(),
        })
    }

    /// The oldest chunks of a run that are to be delivered: at most `count`, and after the first
    /// at most `bytes` of output. They are read back from the disk.
    ///
    /// # Errors
    /// They cannot be read, or are not what was written.
    pub fn pending(
        &self,
        started: &StatementId,
        count: usize,
        bytes: usize,
    ) -> Result<Vec<Arc<Submission>>, SpoolError> {
        let inner = self.lock();
        let Some(run) = inner.log.state.runs().get(started) else {
            return Ok(Vec::new());
        };
        let mut room = bytes;
        let fits = move |chunk: &&Waiting| {
            let fits = room == bytes || chunk.output <= room;
            room = room.saturating_sub(chunk.output);
            fits
        };
        let oldest = run.pending.iter().take(count).take_while(fits);
        let oldest: Vec<Waiting> = oldest.copied().collect();
        let read = inner.log.submissions(&oldest);
        read.map_err(|error| log_error(&inner.path, error))
    }

    /// How many chunks of a run wait to be delivered.
    #[must_use]
    pub fn pending_count(&self, started: &StatementId) -> usize {
        let inner = self.lock();
        inner
            .log
            .state
            .runs()
            .get(started)
            .map_or(0, |run| run.pending.len())
    }
}

impl std::fmt::Debug for Spool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spool")
            .field("path", &self.lock().path)
            .finish_non_exhaustive()
    }
}

fn io_error(path: &Path, source: io::Error) -> SpoolError {
    SpoolError::Io {
        path: path.to_owned(),
        source: Arc::new(source),
    }
}

fn log_error(path: &Path, error: LogError) -> SpoolError {
    let path = path.to_owned();
    match error {
        LogError::Io(source) => io_error(&path, source),
        LogError::Damaged(at) => SpoolError::Damaged { path, at },
        LogError::Illegal(source) => SpoolError::Illegal { path, source },
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
