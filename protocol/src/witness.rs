//! How a witness is asked: the body of C2SP tlog-witness's `add-checkpoint`. PROTOCOL 4.
//!
//! ```text
//! old <size>\n
//! <base64 hash>\n        0 to 63 of them
//! \n
//! <checkpoint note>
//! ```
//!
//! It owns the one spelling of that body. It must not judge what is asked.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::checkpoint::{CheckpointBody, CheckpointError, MAX_NOTE_BYTES};
use crate::hash::Hash;

/// Most hashes of a proof: more than any tree that there can be has levels.
pub const MAX_PROOF_LINES: usize = 63;

/// Bytes of one hash in base64 with the end of its line.
const LINE_BYTES: usize = 45;

/// Bytes of the first line, of the empty one, and of some room.
const FRAME_BYTES: usize = 64;

/// Largest body: the largest note and the longest proof.
pub const MAX_REQUEST_BYTES: usize = MAX_NOTE_BYTES + MAX_PROOF_LINES * LINE_BYTES + FRAME_BYTES;

/// The type of an answer that names the size which the witness knows.
pub const SIZE_CONTENT_TYPE: &str = "text/x.tlog.size";

/// A checkpoint that a witness is to sign, and the proof that it continues the one it knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddCheckpoint {
    /// The size that the witness knows, as far as whoever asks can tell; 0 for none.
    pub old: u64,
    /// Consistency proof from there; none when it is 0 or the checkpoint's own size.
    pub proof: Vec<Hash>,
    /// The log's signed note. Neither its form nor its signature is checked here.
    pub note: String,
}

/// The text is no such body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not an add-checkpoint request: expected `old SIZE`, at most 63 hashes as base64, an empty line and a checkpoint"
)]
pub struct NotARequest;

/// Reads a size in its one spelling: decimal, no sign, no leading zero.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let size: u64 = text.parse().ok()?;
    (size.to_string() == text).then_some(size)
}

impl FromStr for AddCheckpoint {
    type Err = NotARequest;

    fn from_str(text: &str) -> Result<Self, NotARequest> {
        if text.len() > MAX_REQUEST_BYTES {
            return Err(NotARequest);
        }
        let (head, note) = text.split_once("\n\n").ok_or(NotARequest)?;
        let mut lines = head.split('\n');
        let old = lines.next().and_then(|line| line.strip_prefix("old "));
        let old = old.and_then(parse_size).ok_or(NotARequest)?;
        let mut proof = Vec::new();
        for line in lines {
            if proof.len() >= MAX_PROOF_LINES {
                return Err(NotARequest);
            }
            let hash = STANDARD.decode(line).ok();
            let hash = hash.and_then(|bytes| Hash::from_slice(&bytes));
            proof.push(hash.ok_or(NotARequest)?);
        }
        Ok(Self {
            old,
            proof,
            note: note.to_string(),
        })
    }
}

impl fmt::Display for AddCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "old {}", self.old)?;
        for hash in &self.proof {
            writeln!(f, "{}", STANDARD.encode(hash.as_bytes()))?;
        }
        write!(f, "\n{}", self.note)
    }
}

impl AddCheckpoint {
    /// What the checkpoint says of itself, before anyone has looked at a signature: whose it is
    /// decides which key must have signed it.
    ///
    /// # Errors
    /// It is no checkpoint.
    pub fn claimed(&self) -> Result<CheckpointBody, CheckpointError> {
        let end = self.note.find("\n\n");
        let end = end.ok_or(CheckpointError::Malformed("no signature"))?;
        let (body, _signatures) = self.note.split_at(end + 1);
        body.parse()
    }
}
