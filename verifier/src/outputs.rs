//! What a run's end says of its output, against the chunks that hold it.
//!
//! Chain and lengths are checked by the fold; here the bytes are hashed. A stream that was cut at its
//! limit has a digest over bytes that nobody kept: it is not compared.
//!
//! Chunks and end are signed by one and the same key, and each chunk is what was signed. So where they
//! differ, that host has said two things and nobody else has done anything: it is told, and the rest of
//! the log is judged as if it had not happened. Otherwise one stolen key of one host would keep everybody
//! from verifying for ever, and hide what is wrong behind it.

use std::collections::HashMap;

use countersign_protocol::event::{
    Event, ExecutionCompleted, ExecutionOutput, LossForm, Stream, StreamTotals,
};
use countersign_protocol::hash::{CommandId, StatementId};
use countersign_protocol::name::AgentName;
use sha2::{Digest as _, Sha256};

use crate::blobs::Documents;

/// What the outputs of completed runs came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct OutputCounts {
    /// Streams whose every byte is here, with the digest that the host gave.
    pub ok: u64,
    /// Streams of which a part is not here: withheld, redacted, or not kept by the host.
    pub partial: u64,
}

/// A stream whose every byte is here, and of which its host gave another digest at the end.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct OtherOutput {
    /// The run's end, which says so.
    pub seq: u64,
    /// The command.
    pub command: CommandId,
    /// The host, by its agent.
    pub agent: AgentName,
    /// Which of its streams.
    pub stream: Stream,
}

impl OtherOutput {
    /// The stream, for people.
    pub(crate) const fn words(&self) -> &'static str {
        match self.stream {
            Stream::Stdout => "standard output",
            Stream::Stderr => "standard error",
        }
    }
}

/// One stream of a run so far: over all bytes; nothing once some were not here.
#[derive(Debug, Clone)]
struct Tally(Option<Sha256>);

impl Tally {
    fn new() -> Self {
        Self(Some(Sha256::new()))
    }

    fn take(&mut self, content: Option<&[u8]>) {
        match (content, &mut self.0) {
            (Some(content), Some(hash)) => hash.update(content),
            (None, _) => self.0 = None,
            (Some(_), None) => {}
        }
    }

    /// Whether the bytes hash to what the host said; nothing where not every byte is here.
    fn agrees(self, said: &StreamTotals) -> Option<bool> {
        said.agrees(self.0?.finalize().into())
    }
}

/// The runs that have begun and not ended.
#[derive(Debug, Default)]
pub(crate) struct Outputs {
    running: HashMap<StatementId, [Tally; 2]>,
    pub(crate) counts: OutputCounts,
    /// In the order of their ends.
    pub(crate) others: Vec<OtherOutput>,
}

impl Outputs {
    /// Takes an event that was judged and may stand where it stands.
    pub(crate) fn take(
        &mut self,
        (seq, id): (u64, StatementId),
        event: &Event,
        documents: &Documents,
    ) {
        if let Event::ExecutionStarted(_) = event {
            self.running.insert(id, [Tally::new(), Tally::new()]);
        } else if let Event::ExecutionOutput(chunk) = event {
            self.chunk(chunk, documents);
        } else if let Event::ExecutionCompleted(done) = event {
            self.end(seq, done);
        } else if let Event::ExecutionLost(lost) = event
            && lost.form == LossForm::Confirmed
        {
            self.running.remove(&lost.started);
        }
    }

    fn chunk(&mut self, chunk: &ExecutionOutput, documents: &Documents) {
        let Some([stdout, stderr]) = self.running.get_mut(&chunk.started) else {
            return;
        };
        let tally = match chunk.stream {
            Stream::Stdout => stdout,
            Stream::Stderr => stderr,
        };
        let content = documents.get(&chunk.data.digest);
        tally.take(content.map(|blob| blob.content()));
    }

    fn end(&mut self, seq: u64, done: &ExecutionCompleted) {
        let Some([stdout, stderr]) = self.running.remove(&done.started) else {
            return;
        };
        for (stream, tally, said) in [
            (Stream::Stdout, stdout, &done.stdout),
            (Stream::Stderr, stderr, &done.stderr),
        ] {
            match tally.agrees(said) {
                Some(true) => self.counts.ok += 1,
                Some(false) => self.others.push(OtherOutput {
                    seq,
                    command: done.command,
                    agent: done.agent.clone(),
                    stream,
                }),
                None => self.counts.partial += 1,
            }
        }
    }
}
