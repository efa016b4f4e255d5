//! The journal's file and what it adds up to: frames written at its end, chunks read back, and all
//! that still counts copied into a new file.
//!
//! It knows no policy: when something is made durable, given up or written anew is `journal`'s.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use countersign_protocol::api::Submission;
use countersign_protocol::name::Time;

use super::frame::{self, Frames, ReadError};
use super::record::Record;
use super::state::{Illegal, Place, State, Waiting};

/// Records in one frame of a journal that is written anew: about a megabyte of output.
const COPIED_AT_ONCE: usize = 16;

/// Used grants in one frame of a journal that is written anew.
const HEAD_AT_ONCE: usize = 4096;

/// Why a file is no log, or cannot be added to.
#[derive(Debug)]
pub(super) enum LogError {
    Io(io::Error),
    Damaged(u64),
    Illegal(Illegal),
}

impl From<io::Error> for LogError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Illegal> for LogError {
    fn from(error: Illegal) -> Self {
        Self::Illegal(error)
    }
}

impl From<ReadError> for LogError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Io(error) => Self::Io(error),
            ReadError::Damaged(at) => Self::Damaged(at),
        }
    }
}

/// A file of frames and the state that they add up to.
pub(super) struct Log {
    file: File,
    /// Where the next frame goes.
    pub(super) len: u64,
    pub(super) state: State,
}

impl Log {
    /// Reads a file, a frame at a time. `len` is then where its last whole frame ends.
    pub(super) fn open(path: &Path) -> Result<Self, LogError> {
        let file = OpenOptions::new().read(true).append(true).open(path)?;
        let mut frames = Frames::new(BufReader::new(&file));
        let mut state = None;
        while let Some((offset, body)) = frames.next()? {
            let records = decode(&body)?;
            take(&mut state, &records, offset, body_len(&body)?)?;
        }
        let len = frames.end();
        let state = state.ok_or(Illegal("it is empty"))?;
        Ok(Self { file, len, state })
    }

    /// Bytes beyond the last whole frame, torn off by a power cut.
    pub(super) fn torn(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len().saturating_sub(self.len))
    }

    /// Writes a frame at the end. It counts once it is durable and taken.
    pub(super) fn write(&mut self, body: &[u8]) -> io::Result<()> {
        let bytes = frame::wrap(self.len, body).ok_or_else(too_large)?;
        self.file.write_all(&bytes)
    }

    /// Makes what was written durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Cuts off what was not taken.
    pub(super) fn cut(&self) -> io::Result<()> {
        self.file.set_len(self.len)?;
        self.file.sync_all()
    }

    /// Takes the records of the frame that was written last.
    pub(super) fn take(&mut self, records: &[Record], body: &[u8]) -> Result<(), LogError> {
        let body_len = body_len(body)?;
        let offset = self.len;
        self.len = offset.saturating_add(frame::size(body));
        for (index, record) in records.iter().enumerate() {
            let place = Place {
                offset,
                body_len,
                index,
            };
            self.state.apply(record, place)?;
        }
        Ok(())
    }

    /// Reads chunks back; neighbours in one frame are read together.
    pub(super) fn chunks(&self, waiting: &[Waiting]) -> Result<Vec<Record>, LogError> {
        let mut chunks = Vec::with_capacity(waiting.len());
        for group in waiting.chunk_by(|a, b| a.place.offset == b.place.offset) {
            let Some(first) = group.first() else { continue };
            let body = frame::read_again(&self.file, first.place.offset, first.place.body_len)?;
            let wanted = group.iter().map(|chunk| chunk.place.index);
            let mut records = decode(&body)?.into_iter().enumerate();
            for index in wanted {
                let found = records.find(|(at, _)| *at == index);
                chunks.push(found.ok_or(Illegal("a chunk is gone"))?.1);
            }
        }
        Ok(chunks)
    }

    /// What is to be sent of chunks.
    pub(super) fn submissions(
        &self,
        waiting: &[Waiting],
    ) -> Result<Vec<Arc<Submission>>, LogError> {
        let mut submissions = Vec::with_capacity(waiting.len());
        for record in self.chunks(waiting)? {
            let Record::Chunk { submission, .. } = record else {
                return Err(Illegal("what waits is no chunk").into());
            };
            submissions.push(Arc::new(submission));
        }
        Ok(submissions)
    }

    /// Copies all that counts into a new file, which is durable then.
    pub(super) fn copy_to(&self, path: &Path, now: Option<Time>) -> Result<Self, LogError> {
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        let summary = self.state.summary(now);
        let (birth, head) = summary
            .head
            .split_first()
            .ok_or(Illegal("a state without a birth"))?;
        let mut copy = Self {
            file,
            len: 0,
            state: State::begin(birth)?,
        };
        let body = encode(std::slice::from_ref(birth))?;
        copy.write(&body)?;
        copy.take(&[], &body)?;
        for records in head.chunks(HEAD_AT_ONCE) {
            copy.put(records)?;
        }
        for (open, waiting, ended) in &summary.runs {
            copy.put(std::slice::from_ref(open))?;
            for chunks in waiting.chunks(COPIED_AT_ONCE) {
                copy.put(&self.chunks(chunks)?)?;
            }
            copy.put(ended.as_slice())?;
        }
        copy.put(summary.word.as_slice())?;
        copy.file.sync_all()?;
        Ok(copy)
    }

    fn put(&mut self, records: &[Record]) -> Result<(), LogError> {
        if records.is_empty() {
            return Ok(());
        }
        let body = encode(records)?;
        self.write(&body)?;
        self.take(records, &body)
    }
}

/// The body that holds these records.
pub(super) fn encode(records: &[Record]) -> io::Result<Vec<u8>> {
    Ok(serde_json::to_vec(records)?)
}

fn decode(body: &[u8]) -> Result<Vec<Record>, Illegal> {
    serde_json::from_slice(body).map_err(|_| Illegal("a record of unknown shape"))
}

fn body_len(body: &[u8]) -> io::Result<u32> {
    u32::try_from(body.len()).map_err(|_| too_large())
}

fn too_large() -> io::Error {
    io::Error::other("a record is too large")
}

/// Applies a frame's records; the first of all is the birth.
fn take(
    state: &mut Option<State>,
    records: &[Record],
    offset: u64,
    body_len: u32,
) -> Result<(), Illegal> {
    for (index, record) in records.iter().enumerate() {
        let place = Place {
            offset,
            body_len,
            index,
        };
        match state {
            None => *state = Some(State::begin(record)?),
            Some(state) => state.apply(record, place)?,
        }
    }
    Ok(())
}
