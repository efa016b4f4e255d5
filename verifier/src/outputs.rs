//! What a run's end says of its output, against the chunks that hold it.
//!
//! The chain of chunks is checked by the fold; here the bytes are counted and hashed. A stream that
//! was cut at its limit has a digest over bytes that nobody kept: its length is checked alone.

use std::collections::HashMap;

use countersign_protocol::event::{
    Event, ExecutionCompleted, ExecutionOutput, LossForm, Stream, StreamTotals,
};
use countersign_protocol::hash::StatementId;
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

/// One stream of a run so far.
#[derive(Debug, Clone)]
struct Tally {
    bytes: u64,
    /// Over all bytes so far; nothing once some were not here.
    hash: Option<Sha256>,
}

impl Tally {
    fn new() -> Self {
        Self {
            bytes: 0,
            hash: Some(Sha256::new()),
        }
    }

    fn take(&mut self, len: u64, content: Option<&[u8]>) {
        self.bytes += len;
        match (content, &mut self.hash) {
            (Some(content), Some(hash)) => hash.update(content),
            (None, _) => self.hash = None,
            (Some(_), None) => {}
        }
    }

    /// True: every byte is here and hashes to what the host said. False: not every byte is here.
    fn check(self, said: &StreamTotals) -> Result<bool, String> {
        if self.bytes != said.kept {
            return Err(format!(
                "its chunks hold {} bytes, and its end says {}",
                self.bytes, said.kept
            ));
        }
        match self.hash {
            Some(hash) if said.total == said.kept => {
                let digest: [u8; 32] = hash.finalize().into();
                if digest == *said.sha256.as_bytes() {
                    Ok(true)
                } else {
                    Err("its chunks have another digest than its end says".to_owned())
                }
            }
            Some(_) | None => Ok(false),
        }
    }
}

/// The runs that have begun and not ended.
#[derive(Debug, Default)]
pub(crate) struct Outputs {
    running: HashMap<StatementId, [Tally; 2]>,
    pub(crate) counts: OutputCounts,
}

impl Outputs {
    /// Takes an event that was judged and may stand where it stands.
    pub(crate) fn take(
        &mut self,
        id: StatementId,
        event: &Event,
        documents: &Documents,
    ) -> Result<(), (&'static str, String)> {
        if let Event::ExecutionStarted(_) = event {
            self.running.insert(id, [Tally::new(), Tally::new()]);
        } else if let Event::ExecutionOutput(chunk) = event {
            self.chunk(chunk, documents);
        } else if let Event::ExecutionCompleted(done) = event {
            return self.end(done).map_err(|reason| ("other_output", reason));
        } else if let Event::ExecutionLost(lost) = event
            && lost.form == LossForm::Confirmed
        {
            self.running.remove(&lost.started);
        }
        Ok(())
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
        tally.take(chunk.data.len, content.map(|blob| blob.content()));
    }

    fn end(&mut self, done: &ExecutionCompleted) -> Result<(), String> {
        let Some([stdout, stderr]) = self.running.remove(&done.started) else {
            return Ok(());
        };
        for (name, tally, said) in [
            ("standard output", stdout, &done.stdout),
            ("standard error", stderr, &done.stderr),
        ] {
            let is_here = tally
                .check(said)
                .map_err(|reason| format!("{name} of the run: {reason}"))?;
            self.counts.ok += u64::from(is_here);
            self.counts.partial += u64::from(!is_here);
        }
        Ok(())
    }
}
