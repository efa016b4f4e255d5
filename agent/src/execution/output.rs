//! From a pipe to chunks: what the command writes, byte for byte, with digests and totals.
//!
//! It owns the two reading ends, the size and age of a chunk and the limit on what is kept. It
//! holds at most one chunk a stream: when the receiver is slow, the command waits in its write.

use std::io::ErrorKind;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::mpsc::Sender;
use tokio_util::sync::CancellationToken;

use super::run::{RunEvent, Stream};

/// Largest chunk: what a Linux pipe holds, so one read can empty it.
pub const CHUNK_BYTES: usize = 64 << 10;

/// How long a byte waits for company before its chunk is sent: not yet noticed by a reader.
pub const CHUNK_DELAY: Duration = Duration::from_millis(100);

/// Bytes still read after the order to stop: the largest a pipe may hold for an ordinary user, so
/// that a writer outside of the tree cannot keep the run open.
const LAST_BYTES: u64 = 1 << 20;

/// What one stream amounted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamTotals {
    /// Bytes the command wrote.
    pub total_bytes: u64,
    /// Bytes of these that were sent as chunks; the first ones.
    pub kept_bytes: u64,
    /// SHA-256 of all `total_bytes`, kept or not.
    pub sha256: [u8; 32],
}

/// What both streams of a run share: the way out and the room that is left.
pub(super) struct Sink {
    events: Sender<RunEvent>,
    started: Instant,
    left: AtomicU64,
    truncated: AtomicBool,
}

impl Sink {
    pub(super) fn new(events: Sender<RunEvent>, started: Instant, limit: u64) -> Self {
        let (left, truncated) = (AtomicU64::new(limit), AtomicBool::new(false));
        Self {
            events,
            started,
            left,
            truncated,
        }
    }

    /// Whether some output was not kept.
    pub(super) fn truncated(&self) -> bool {
        self.truncated.load(Ordering::Relaxed)
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Takes as much of `wanted` as the limit still allows.
    fn reserve(&self, wanted: u64) -> u64 {
        let left = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                Some(left.saturating_sub(wanted))
            })
            .unwrap_or(0);
        if left < wanted {
            self.truncated.store(true, Ordering::Relaxed);
        }
        left.min(wanted)
    }
}

/// One stream on its way from pipe to sink.
pub(super) struct Pump<'a> {
    pipe: Receiver,
    stream: Stream,
    sink: &'a Sink,
    buffer: Vec<u8>,
    /// Bytes of `buffer` that wait to be sent.
    filled: usize,
    /// When the first of them came, since the start of the run.
    first_us: u64,
    hasher: Sha256,
    total: u64,
    kept: u64,
}

/// Why gathering a chunk ended.
#[derive(PartialEq, Eq)]
enum Gathered {
    Due,
    Ended,
    Stopped,
}

impl<'a> Pump<'a> {
    pub(super) fn new(pipe: Receiver, stream: Stream, sink: &'a Sink) -> Self {
        Self {
            pipe,
            stream,
            sink,
            buffer: vec![0; CHUNK_BYTES],
            filled: 0,
            first_us: 0,
            hasher: Sha256::new(),
            total: 0,
            kept: 0,
        }
    }

    /// Reads to the end of the stream; after `stop` only what already lies in the pipe.
    pub(super) async fn run(mut self, stop: &CancellationToken) -> StreamTotals {
        loop {
            let gathered = self.gather(stop).await;
            self.deliver().await;
            match gathered {
                Gathered::Due => {}
                Gathered::Ended => break,
                Gathered::Stopped => {
                    self.take_rest().await;
                    break;
                }
            }
        }
        StreamTotals {
            total_bytes: self.total,
            kept_bytes: self.kept,
            sha256: self.hasher.finalize().into(),
        }
    }

    /// Fills the buffer until it is full or its first byte has waited long enough.
    async fn gather(&mut self, stop: &CancellationToken) -> Gathered {
        let mut due = pin!(tokio::time::sleep(CHUNK_DELAY));
        while self.filled < CHUNK_BYTES {
            let waiting = self.filled > 0;
            let room = self.buffer.get_mut(self.filled..).unwrap_or_default();
            let length = tokio::select! {
                read = self.pipe.read(room) => match read {
                    Ok(0) | Err(_) => return Gathered::Ended,
                    Ok(length) => length,
                },
                () = &mut due, if waiting => return Gathered::Due,
                () = stop.cancelled() => return Gathered::Stopped,
            };
            if !waiting {
                self.first_us = self.sink.now_us();
                due.as_mut()
                    .reset(tokio::time::Instant::now() + CHUNK_DELAY);
            }
            self.filled = self.filled.saturating_add(length);
        }
        Gathered::Due
    }

    /// Hashes and counts the buffer, and sends what the limit allows of it.
    async fn deliver(&mut self) {
        let bytes = self.buffer.get(..self.filled).unwrap_or_default();
        self.filled = 0;
        if bytes.is_empty() {
            return;
        }
        self.hasher.update(bytes);
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.total = self.total.saturating_add(length);
        let room = self.sink.reserve(length);
        let kept = bytes
            .get(..usize::try_from(room).unwrap_or(usize::MAX))
            .unwrap_or_default();
        if kept.is_empty() {
            return;
        }
        let chunk = RunEvent::Chunk {
            stream: self.stream,
            offset_us: self.first_us,
            bytes: kept.to_vec(),
        };
        // Without a receiver the run is being stopped; until it is, the pipe must still be drained.
        if self.sink.events.send(chunk).await.is_ok() {
            self.kept = self.kept.saturating_add(room);
        }
    }

    /// What lies in the pipe now, without waiting for more.
    async fn take_rest(&mut self) {
        let end = self.total.saturating_add(LAST_BYTES);
        while self.total < end {
            match self.pipe.try_read(&mut self.buffer) {
                Ok(0) => return,
                Ok(length) => self.filled = length,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return,
            }
            self.first_us = self.sink.now_us();
            self.deliver().await;
        }
    }
}
