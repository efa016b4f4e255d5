//! The decision of a witness: which checkpoints it signs.
//!
//! It signs a checkpoint when it continues the last one it signed of that log, and writes that down
//! before anybody hears of it. One request at a time for each log: two cannot both win. It must not
//! know of HTTP.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use countersign_protocol::checkpoint::{Checkpoint, CheckpointError, Origin, VerifierKey};
use countersign_protocol::cosignature::{Cosignature, WitnessKey};
use countersign_protocol::merkle;
use countersign_protocol::proof;
use countersign_protocol::witness::AddCheckpoint;
use ed25519_dalek::SigningKey;

use super::memory::{Evidence, Memory, MemoryError, open_by_any};
use crate::clock::Clock;

/// Most logs of one witness: each has a lock and a note in memory.
pub const MAX_LOGS: usize = 1024;

/// What a witness answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Its signature line, durable before it is given.
    Signed(Cosignature),
    /// Not in the form that is asked for.
    Malformed(String),
    /// It watches no such log.
    UnknownLog,
    /// No key that it knows of this log has signed.
    NotSigned(String),
    /// Not from the size that it signed last, or another tree of that size. The size it knows.
    Conflict(u64),
    /// The proof does not lead there.
    BadProof(String),
    /// What it would sign could not be written down.
    CannotKeep,
}

/// The logs that are watched, and the key that signs.
pub struct Watch {
    name: Origin,
    key: SigningKey,
    clock: Clock,
    memory: Memory,
    logs: BTreeMap<String, Log>,
}

struct Log {
    keys: Vec<VerifierKey>,
    /// The checkpoint that was signed last, as the disk holds it.
    known: Mutex<Option<Checkpoint>>,
}

impl Watch {
    /// Takes the state folder and reads what was signed before.
    ///
    /// # Errors
    /// See [`MemoryError`]. A witness that has lost its memory does not sign.
    pub fn open(
        state: &std::path::Path,
        name: Origin,
        key: SigningKey,
        keys: &[VerifierKey],
        clock: Clock,
    ) -> Result<Self, MemoryError> {
        let memory = Memory::open(state, &WitnessKey::of(&name, &key))?;
        let mut by_origin: BTreeMap<&Origin, Vec<VerifierKey>> = BTreeMap::new();
        for key in keys.iter().take(MAX_LOGS) {
            by_origin.entry(key.origin()).or_default().push(key.clone());
        }
        let mut logs = BTreeMap::new();
        for (origin, keys) in by_origin {
            let known = Mutex::new(memory.load(origin, &keys)?);
            logs.insert(origin.as_str().to_owned(), Log { keys, known });
        }
        Ok(Self {
            name,
            key,
            clock,
            memory,
            logs,
        })
    }

    /// The key by which its signatures are checked.
    #[must_use]
    pub fn witness_key(&self) -> WitnessKey {
        WitnessKey::of(&self.name, &self.key)
    }

    /// Judges a request and signs if all is well. It waits for the disk.
    #[must_use]
    pub fn add(&self, request: &AddCheckpoint) -> Answer {
        let claimed = match request.claimed() {
            Ok(claimed) => claimed,
            Err(error) => return Answer::Malformed(error.to_string()),
        };
        let Some(log) = self.logs.get(claimed.origin.as_str()) else {
            return Answer::UnknownLog;
        };
        let shown = match open_by_any(&request.note, &log.keys) {
            Ok(shown) => shown,
            Err(error @ (CheckpointError::BadSignature | CheckpointError::Unsigned)) => {
                return Answer::NotSigned(error.to_string());
            }
            Err(error) => return Answer::Malformed(error.to_string()),
        };
        if request.old > shown.size() {
            let text = "the old size is larger than the checkpoint";
            return Answer::Malformed(text.to_owned());
        }
        let mut known = log.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(refused) = self.check(request, known.as_ref(), &shown) {
            return refused;
        }
        let cosignature = Cosignature::sign(shown.body(), &self.name, &self.key, self.clock.now());
        // The same tree again: the disk holds it, and only the time is new.
        if known
            .as_ref()
            .is_some_and(|known| known.body() == shown.body())
        {
            return Answer::Signed(cosignature);
        }
        match self.memory.keep(&shown) {
            Ok(()) => {
                *known = Some(shown);
                Answer::Signed(cosignature)
            }
            Err(error) => {
                tracing::error!(%error, log = %claimed.origin, "a checkpoint cannot be kept, so it is not signed");
                // It failed halfway: what the disk holds now counts, signed by nobody or not.
                match self.memory.load(&claimed.origin, &log.keys) {
                    Ok(on_disk) => *known = newer(known.take(), on_disk),
                    Err(error) => tracing::error!(%error, "nor can it be read again"),
                }
                Answer::CannotKeep
            }
        }
    }

    /// Whether a checkpoint continues the known one.
    fn check(
        &self,
        request: &AddCheckpoint,
        known: Option<&Checkpoint>,
        shown: &Checkpoint,
    ) -> Result<(), Answer> {
        if let Some(known) = known
            && known.size() == shown.size()
            && known.root() != shown.root()
        {
            self.evidence(Evidence::Fork, known, shown);
            return Err(Answer::Conflict(known.size()));
        }
        let size = known.map_or(0, Checkpoint::size);
        if request.old != size {
            return Err(Answer::Conflict(size));
        }
        if shown.size() == 0 && shown.root() != merkle::empty_root() {
            let text = "the root is not that of an empty tree";
            return Err(Answer::BadProof(text.to_owned()));
        }
        if size == 0 {
            return if request.proof.is_empty() {
                Ok(())
            } else {
                let text = "there is nothing to prove from a size of 0";
                Err(Answer::BadProof(text.to_owned()))
            };
        }
        let Some(known) = known else {
            return Ok(());
        };
        let (old, new) = (known.root(), shown.root());
        proof::verify_consistency(size, shown.size(), &old, &new, &request.proof).map_err(|error| {
            self.evidence(Evidence::Unproved, known, shown);
            Answer::BadProof(error.to_string())
        })
    }

    fn evidence(&self, kind: Evidence, known: &Checkpoint, shown: &Checkpoint) {
        let (log, size, other) = (&known.body().origin, known.size(), shown.size());
        match (kind, self.memory.keep_evidence(kind, known, shown)) {
            (_, Ok(None)) => {}
            (Evidence::Fork, Ok(Some(place))) => tracing::error!(
                %log, size, place = %place.display(),
                "FORK: the log has signed two histories of one size; both notes are kept, show them to all who rely on it"
            ),
            (Evidence::Unproved, Ok(Some(place))) => tracing::warn!(
                %log, size, other, place = %place.display(),
                "a signed checkpoint came without a proof that it continues the known one; both notes are kept, ask the log's operator for the proof"
            ),
            (_, Err(error)) => tracing::error!(
                %error, %log, size, other,
                known = known.note(), shown = shown.note(),
                "two notes do not fit together and cannot be kept"
            ),
        }
    }
}

/// The larger of what memory and disk hold, so that a size never goes back.
fn newer(memory: Option<Checkpoint>, disk: Option<Checkpoint>) -> Option<Checkpoint> {
    match (memory, disk) {
        (Some(memory), Some(disk)) if disk.size() > memory.size() => Some(disk),
        (Some(memory), _) => Some(memory),
        (None, disk) => disk,
    }
}
