//! The file: appended to, made durable, recovered, written anew.
//!
//! It owns the order "write, fdatasync, then it counts". After a failed write or sync nothing more
//! is written: what the disk then holds is not known, and recovery at the next start finds out.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use countersign_protocol::api::Submission;
use countersign_protocol::hash::{CommandId, StatementId};
use countersign_protocol::name::Time;

use super::frame;
use super::record::{Birth, Record};
use super::state::{ChainEnd, Illegal, Run, State, Word};
use crate::key;

/// The journal's name in its folder.
pub const FILE: &str = "journal";

/// A quiet journal larger than this is written anew: some thousand commands.
const COMPACT_BYTES: u64 = 4 << 20;

/// Above this no new command is taken, so that output never fills a disk unseen.
const FULL_BYTES: u64 = 256 << 20;

/// The largest journal that is read back: what may be there when it was full and runs went on.
const MAX_FILE_BYTES: u64 = 4 << 30;

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
    /// An earlier write failed.
    #[error("an earlier write to the journal failed, so nothing more is written; start anew")]
    Broken,
}

struct Inner {
    file: File,
    len: u64,
    state: State,
    broken: bool,
}

/// The journal and what it adds up to. All calls that write block on the disk.
pub struct Spool {
    path: PathBuf,
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
        let bytes = encode(0, &[Record::Birth(birth.clone())]).map_err(io)?;
        key::write_private(&path, &bytes).map_err(io)?;
        key::sync_folder(folder).map_err(io)
    }

    /// Opens the journal in `folder`, cuts a torn end off and takes all records.
    ///
    /// # Errors
    /// See [`SpoolError`]; damage before the end is never passed over.
    pub fn open(folder: &Path) -> Result<Self, SpoolError> {
        let path = folder.join(FILE);
        let io = |source| io_error(&path, source);
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .open(&path)
            .map_err(io)?;
        // Reading a part of it would look like a torn end.
        if file.metadata().map_err(io)?.len() > MAX_FILE_BYTES {
            return Err(io(io::Error::other("it is larger than any journal")));
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io)?;
        let frames = frame::read(&bytes).map_err(|damaged| SpoolError::Damaged {
            path: path.clone(),
            at: damaged.at as u64,
        })?;
        let state = replay(&frames.bodies).map_err(|source| SpoolError::Illegal {
            path: path.clone(),
            source,
        })?;
        let len = frames.end as u64;
        if len < bytes.len() as u64 {
            tracing::warn!(
                torn = bytes.len() as u64 - len,
                "cutting an unfinished record off the journal; it was never acted on"
            );
            file.set_len(len)
                .and_then(|()| file.sync_all())
                .map_err(io)?;
        }
        let inner = Inner {
            file,
            len,
            state,
            broken: false,
        };
        Ok(Self {
            path,
            inner: Mutex::new(inner),
        })
    }

    /// Writes records down, all or none. When this returns they are durable and count.
    ///
    /// # Errors
    /// See [`SpoolError`]; after one nothing counts any more.
    pub fn append(&self, records: Vec<Record>) -> Result<(), SpoolError> {
        let mut inner = self.lock();
        if inner.broken {
            return Err(SpoolError::Broken);
        }
        let io = |source| io_error(&self.path, source);
        let bytes = encode(inner.len, &records).map_err(io)?;
        inner.broken = true;
        inner.file.write_all(&bytes).map_err(io)?;
        inner.file.sync_data().map_err(io)?;
        inner.len = inner.len.saturating_add(bytes.len() as u64);
        for record in records {
            let applied = inner.state.apply(record);
            applied.map_err(|source| SpoolError::Illegal {
                path: self.path.clone(),
                source,
            })?;
        }
        inner.broken = false;
        Ok(())
    }

    /// Writes the journal anew when it is large and nothing is under way; says whether it did.
    ///
    /// # Errors
    /// See [`SpoolError`].
    pub fn compact(&self, now: Time) -> Result<bool, SpoolError> {
        let mut inner = self.lock();
        if inner.len < COMPACT_BYTES || inner.broken {
            return Ok(false);
        }
        let Some(records) = inner.state.summary(now) else {
            return Ok(false);
        };
        let io = |source| io_error(&self.path, source);
        let bytes = encode(0, &records).map_err(io)?;
        // Until the new file is open, appends would go to a file that has no name any more.
        inner.broken = true;
        key::replace_private(&self.path, &bytes).map_err(io)?;
        inner.file = OpenOptions::new()
            .append(true)
            .open(&self.path)
            .map_err(io)?;
        inner.len = bytes.len() as u64;
        inner.state = fold(records).map_err(|source| SpoolError::Illegal {
            path: self.path.clone(),
            source,
        })?;
        inner.broken = false;
        Ok(true)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose journal this is.
    #[must_use]
    pub fn birth(&self) -> Birth {
        self.lock().state.birth().clone()
    }

    /// The enrolment, once it was signed.
    #[must_use]
    pub fn enrolment(&self) -> Option<Arc<Submission>> {
        self.lock().state.enrolment()
    }

    /// Whether the ledger accepted this agent.
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        self.lock().state.is_accepted()
    }

    /// Whether a grant was used.
    #[must_use]
    pub fn is_used(&self, command: &CommandId) -> bool {
        self.lock().state.is_used(command)
    }

    /// Whether there is room for another command's output.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let inner = self.lock();
        !inner.broken && inner.len < FULL_BYTES
    }

    /// Where the agent's chain stands.
    #[must_use]
    pub fn chain(&self) -> ChainEnd {
        self.lock().state.chain()
    }

    /// The statement on the chain that has no answer yet.
    #[must_use]
    pub fn word(&self) -> Option<Word> {
        self.lock().state.word().cloned()
    }

    /// The runs whose end is not in the log.
    #[must_use]
    pub fn open_runs(&self) -> Vec<StatementId> {
        self.lock().state.runs().keys().copied().collect()
    }

    /// A run, without its pending output; none once its end is in the log.
    #[must_use]
    pub fn run(&self, started: &StatementId) -> Option<Run> {
        let inner = self.lock();
        let run = inner.state.runs().get(started)?;
        Some(Run {
            command: run.command,
            chunks: run.chunks,
            last_chunk: run.last_chunk,
            pending: std::collections::VecDeque::new(),
            broken: run.broken,
            ended: run.ended,
        })
    }

    /// The oldest chunks of a run that are to be delivered: at most `count`, and after the first
    /// at most `bytes` of output.
    #[must_use]
    pub fn pending(
        &self,
        started: &StatementId,
        count: usize,
        bytes: usize,
    ) -> Vec<Arc<Submission>> {
        let inner = self.lock();
        let Some(run) = inner.state.runs().get(started) else {
            return Vec::new();
        };
        let mut room = bytes;
        let fits = move |submission: &&Arc<Submission>| {
            let size = submission.blobs.iter().map(|b| b.content.0.len()).sum();
            let fits = room == bytes || size <= room;
            room = room.saturating_sub(size);
            fits
        };
        run.pending
            .iter()
            .take(count)
            .take_while(fits)
            .cloned()
            .collect()
    }

    /// How many chunks of a run wait to be delivered.
    #[must_use]
    pub fn pending_count(&self, started: &StatementId) -> usize {
        let inner = self.lock();
        inner
            .state
            .runs()
            .get(started)
            .map_or(0, |run| run.pending.len())
    }
}

impl std::fmt::Debug for Spool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spool")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

fn io_error(path: &Path, source: io::Error) -> SpoolError {
    SpoolError::Io {
        path: path.to_owned(),
        source: Arc::new(source),
    }
}

fn encode(offset: u64, records: &[Record]) -> io::Result<Vec<u8>> {
    let body = serde_json::to_vec(records)?;
    frame::wrap(offset, &body).ok_or_else(|| io::Error::other("a record is too large"))
}

fn fold(records: Vec<Record>) -> Result<State, Illegal> {
    let mut records = records.into_iter();
    let mut state = State::begin(records.next().ok_or(Illegal("it is empty"))?)?;
    records.try_for_each(|record| state.apply(record))?;
    Ok(state)
}

fn replay(bodies: &[&[u8]]) -> Result<State, Illegal> {
    let mut records = Vec::new();
    for body in bodies {
        let more: Vec<Record> =
            serde_json::from_slice(body).map_err(|_| Illegal("a record of unknown shape"))?;
        records.extend(more);
    }
    fold(records)
}
