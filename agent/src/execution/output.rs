//! From a pipe to chunks: what the command writes, byte for byte, with digests and totals.
//!
//! It owns the two reading ends, the size and age of a chunk and the limit on what is kept. Secrets
//! are masked here, before a byte is counted, hashed or sent: nothing behind this file has seen
//! them. It holds at most one chunk a stream: when the receiver is slow, the command waits in its
//! write.

use std::io::ErrorKind;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::mpsc::Sender;
use tokio_util::sync::CancellationToken;

use super::mask::Mask;
use super::run::{RunEvent, Stream};
use super::secrets::Secrets;

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
    truncated: CancellationToken,
}

impl Sink {
    pub(super) fn new(events: Sender<RunEvent>, started: Instant, limit: u64) -> Self {
        Self {
            events,
            started,
            left: AtomicU64::new(limit),
            truncated: CancellationToken::new(),
        }
    }

    /// Cancelled once some output is not kept.
    pub(super) const fn truncated(&self) -> &CancellationToken {
        &self.truncated
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
            self.truncated.cancel();
        }
        left.min(wanted)
    }
}

/// One stream of a run over all its steps: what it amounts to so far, and what must not stand in it.
pub(super) struct Tally {
    stream: Stream,
    mask: Mask,
    hasher: Sha256,
    total: u64,
    kept: u64,
}

impl Tally {
    pub(super) fn new(stream: Stream, secrets: &Secrets) -> Self {
        Self {
            stream,
            mask: Mask::new(secrets),
            hasher: Sha256::new(),
            total: 0,
            kept: 0,
        }
    }

    /// How often a secret was masked in it.
    pub(super) const fn masked(&self) -> u64 {
        self.mask.count()
    }

    /// What it came to.
    pub(super) fn finish(self) -> StreamTotals {
        StreamTotals {
            total_bytes: self.total,
            kept_bytes: self.kept,
            sha256: self.hasher.finalize().into(),
        }
    }

    /// Counts and hashes the bytes, and sends what the limit allows of them.
    async fn take(&mut self, bytes: &[u8], offset_us: u64, sink: &Sink) {
        self.hasher.update(bytes);
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.total = self.total.saturating_add(length);
        let room = sink.reserve(length);
        let kept = bytes
            .get(..usize::try_from(room).unwrap_or(usize::MAX))
            .unwrap_or_default();
        // Masked bytes may be more than a chunk holds.
        for bytes in kept.chunks(CHUNK_BYTES) {
            let chunk = RunEvent::Chunk {
                stream: self.stream,
                offset_us,
                bytes: bytes.to_vec(),
            };
            let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            // Without a receiver the run is being stopped; until it is, the pipe must still be drained.
            if sink.events.send(chunk).await.is_ok() {
                self.kept = self.kept.saturating_add(length);
            }
        }
    }
}

/// One stream of one step on its way from pipe to sink.
pub(super) struct Pump<'a> {
    pipe: Receiver,
    tally: &'a mut Tally,
    sink: &'a Sink,
    buffer: Vec<u8>,
    /// Bytes of `buffer` that wait to be sent.
    filled: usize,
    /// When the first of them came, since the start of the run.
    first_us: u64,
}

/// Why gathering a chunk ended.
#[derive(PartialEq, Eq)]
enum Gathered {
    Due,
    Ended,
    Stopped,
}

impl<'a> Pump<'a> {
    pub(super) fn new(pipe: Receiver, tally: &'a mut Tally, sink: &'a Sink) -> Self {
        Self {
            pipe,
            tally,
            sink,
            buffer: vec![0; CHUNK_BYTES],
            filled: 0,
            first_us: 0,
        }
    }

    /// Reads to the end of the stream; after `stop` only what already lies in the pipe.
    pub(super) async fn run(mut self, stop: &CancellationToken) {
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
        let rest = self.tally.mask.finish();
        self.tally.take(&rest, self.first_us, self.sink).await;
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

    /// Takes the buffer out, masked.
    async fn deliver(&mut self) {
        let bytes = self.buffer.get(..self.filled).unwrap_or_default();
        self.filled = 0;
        if bytes.is_empty() {
            return;
        }
        match self.tally.mask.push(bytes) {
            None => self.tally.take(bytes, self.first_us, self.sink).await,
            Some(masked) => self.tally.take(&masked, self.first_us, self.sink).await,
        }
    }

    /// What lies in the pipe now, without waiting for more.
    async fn take_rest(&mut self) {
        let mut read: u64 = 0;
        while read < LAST_BYTES {
            match self.pipe.try_read(&mut self.buffer) {
                Ok(0) => return,
                Ok(length) => {
                    self.filled = length;
                    read = read.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return,
            }
            self.first_us = self.sink.now_us();
            self.deliver().await;
        }
    }
}
