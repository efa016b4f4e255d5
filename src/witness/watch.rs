//! The decision of a witness: which checkpoints it signs.
//!
//! It signs a checkpoint when it continues the last one it signed of that log, and writes that down
//! before anybody hears of it. One request at a time for each log: two cannot both win. It must not
//! know of HTTP.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use countersign_protocol::checkpoint::{Checkpoint, CheckpointError, Origin, VerifierKey};
use countersign_protocol::cosignature::{Cosignature, WitnessKey};
use countersign_protocol::merkle;
use countersign_protocol::proof;
use countersign_protocol::witness::AddCheckpoint;
use ed25519_dalek::SigningKey;

use super::memory::{Evidence, Kept, MAX_EVIDENCE, Memory, MemoryError, open_by_any};
use crate::clock::Clock;

/// Most logs of one witness: each has a lock and a note in memory.
pub const MAX_LOGS: usize = 1024;

/// How often it is told of one log that there is no more room for evidence: anybody can send some.
const TELL: Duration = Duration::from_secs(60);

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
    /// The newest checkpoint that was signed, or that may have reached the disk.
    known: Mutex<Option<Known>>,
    untold: Mutex<Untold>,
}

/// Evidence that was neither kept nor told of.
#[derive(Default)]
struct Untold {
    told: Option<Instant>,
    count: u64,
}

struct Known {
    checkpoint: Checkpoint,
    /// A write of it has succeeded, to the folder's name. One that was read back may be in the
    /// system's memory only: it counts as known, and is written again before it is signed. Syncing it
    /// would not do: after a failed sync the next one can succeed and have written nothing.
    is_durable: bool,
}

impl Known {
    const fn read_back(checkpoint: Checkpoint) -> Self {
        Self {
            checkpoint,
            is_durable: false,
        }
    }
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
            let known = Mutex::new(memory.load(origin, &keys)?.map(Known::read_back));
            let untold = Mutex::default();
            let log = Log {
                keys,
                known,
                untold,
            };
            logs.insert(origin.as_str().to_owned(), log);
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
        let newest = known.as_ref().map(|known| &known.checkpoint);
        if let Err(refused) = self.check(log, request, newest, &shown) {
            return refused;
        }
        let cosignature = Cosignature::sign(shown.body(), &self.name, &self.key, self.clock.now());
        // The same tree again: the disk holds it, and only the time is new.
        if known
            .as_ref()
            .is_some_and(|known| known.is_durable && known.checkpoint.body() == shown.body())
        {
            return Answer::Signed(cosignature);
        }
        match self.memory.keep(&shown) {
            Ok(()) => {
                if let Err(error) = self.memory.forget_unproved(&shown) {
                    tracing::warn!(%error, log = %claimed.origin, "what is proved now cannot be removed from the evidence");
                }
                *known = Some(Known {
                    checkpoint: shown,
                    is_durable: true,
                });
                Answer::Signed(cosignature)
            }
            Err(error) => {
                tracing::error!(%error, log = %claimed.origin, "a checkpoint cannot be kept, so it is not signed");
                // It failed halfway: what the disk shows now counts, signed by nobody or not.
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
        log: &Log,
        request: &AddCheckpoint,
        known: Option<&Checkpoint>,
        shown: &Checkpoint,
    ) -> Result<(), Answer> {
        if let Some(known) = known
            && known.size() == shown.size()
            && known.root() != shown.root()
        {
            self.evidence(log, Evidence::Fork, known, shown);
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
            // A needless proof for the known one says nothing against it.
            if known.body() != shown.body() {
                self.evidence(log, Evidence::Unproved, known, shown);
            }
            Answer::BadProof(error.to_string())
        })
    }

    fn evidence(&self, of: &Log, kind: Evidence, known: &Checkpoint, shown: &Checkpoint) {
        let (log, size, other) = (&known.body().origin, known.size(), shown.size());
        match (kind, self.memory.keep_evidence(kind, known, shown)) {
            (_, Ok(Kept::Already)) => {}
            (Evidence::Fork, Ok(Kept::Now(place))) => tracing::error!(
                %log, size, place = %place.display(),
                "FORK: the log has signed two histories of one size; both notes are kept, show them to all who rely on it"
            ),
            (Evidence::Unproved, Ok(Kept::Now(place))) => tracing::warn!(
                %log, size, other, place = %place.display(),
                "a signed checkpoint came without a proof that it continues the known one; both notes are kept, ask the log's operator for the proof"
            ),
            (Evidence::Fork, Ok(Kept::Full(place))) => of.tell_full(|untold| {
                tracing::error!(
                    %log, place = %place.display(), untold,
                    known = known.note(), shown = shown.note(),
                    "FORK: the log has signed two histories of one size once more; {MAX_EVIDENCE} such pairs of notes are kept and this one is not, it stands here"
                );
            }),
            (Evidence::Unproved, Ok(Kept::Full(place))) => of.tell_full(|untold| {
                tracing::warn!(
                    %log, place = %place.display(), untold,
                    known = known.note(), shown = shown.note(),
                    "a signed checkpoint came without a proof that it continues the known one; {MAX_EVIDENCE} such pairs of notes are kept and this one is not, it stands here: compare the kept ones with the log, and delete those that lie on it"
                );
            }),
            (_, Err(error)) => tracing::error!(
                %error, %log, size, other,
                known = known.note(), shown = shown.note(),
                "two notes do not fit together and cannot be kept"
            ),
        }
    }
}

impl Log {
    /// Tells of evidence that is not kept, with how much there was since it was told of last.
    fn tell_full(&self, tell: impl FnOnce(u64)) {
        let mut untold = self.untold.lock().unwrap_or_else(PoisonError::into_inner);
        if untold.told.is_some_and(|told| told.elapsed() < TELL) {
            untold.count += 1;
            return;
        }
        untold.told = Some(Instant::now());
        tell(std::mem::take(&mut untold.count));
    }
}

/// The larger of what memory and disk hold, so that a size never goes back.
fn newer(memory: Option<Known>, disk: Option<Checkpoint>) -> Option<Known> {
    let is_newer = |disk: &Checkpoint| {
        let known = memory.as_ref().map(|known| known.checkpoint.size());
        known.is_none_or(|known| disk.size() > known)
    };
    disk.filter(is_newer).map(Known::read_back).or(memory)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use countersign_protocol::checkpoint::CheckpointBody;
    use countersign_protocol::merkle::Tree;
    use sha2::{Digest as _, Sha256};

    use super::*;
    use crate::durable::faults::let_folders_fail;

    const LOG: &str = "log.example.com";

    /// A folder of one test, and a log of 40 entries.
    struct World {
        folder: PathBuf,
        key: SigningKey,
        tree: Tree,
    }

    impl World {
        fn new(test: &str) -> Self {
            let name = format!("watch-{test}-{}", std::process::id());
            let mut tree = Tree::default();
            for n in 0..40_u64 {
                tree.push(merkle::leaf_hash(&n.to_be_bytes()));
            }
            Self {
                folder: std::env::temp_dir().join(name),
                key: SigningKey::from_bytes(&[77; 32]),
                tree,
            }
        }

        /// A witness that begins, or begins again after its process has ended.
        fn watch(&self) -> Watch {
            let public = self.key.verifying_key().to_bytes();
            let keys = [VerifierKey::new(LOG.parse().unwrap(), public).unwrap()];
            let (name, key) = (
                "w.example.com".parse().unwrap(),
                SigningKey::from_bytes(&[5; 32]),
            );
            Watch::open(&self.folder, name, key, &keys, Clock::system()).unwrap()
        }

        fn note(&self, size: u64) -> String {
            let body = CheckpointBody {
                origin: LOG.parse().unwrap(),
                size,
                root: self.tree.root_at(size).unwrap(),
            };
            Checkpoint::sign(body, &self.key).note().to_owned()
        }

        fn request(&self, old: u64, new: u64) -> AddCheckpoint {
            let proof = proof::consistency_proof(&self.tree, old, new);
            AddCheckpoint {
                old,
                proof: proof.filter(|_| old > 0).unwrap_or_default(),
                note: self.note(new),
            }
        }

        fn file(&self) -> PathBuf {
            let folder: &Path = &self.folder;
            folder
                .join(hex::encode(Sha256::digest(LOG)))
                .join("checkpoint")
        }
    }

    impl Drop for World {
        fn drop(&mut self) {
            let _gone = fs::remove_dir_all(&self.folder);
        }
    }

    fn is_signed(answer: &Answer) -> bool {
        matches!(answer, Answer::Signed(_))
    }

    /// The disk may have taken the new name, or may lose it in a power cut: the witness cannot tell.
    #[test]
    fn what_has_its_name_and_is_not_durable_is_not_signed_until_a_write_succeeds() {
        let world = World::new("named");
        let watch = world.watch();
        assert!(is_signed(&watch.add(&world.request(0, 20))));
        let_folders_fail(true);
        assert_eq!(watch.add(&world.request(20, 30)), Answer::CannotKeep);
        for _again in 0..3 {
            assert_eq!(watch.add(&world.request(30, 30)), Answer::CannotKeep);
        }
        let_folders_fail(false);
        assert!(is_signed(&watch.add(&world.request(30, 30))));
        let_folders_fail(true);
        assert!(is_signed(&watch.add(&world.request(30, 30))), "it is kept");
        let_folders_fail(false);
    }

    /// Killed between the new name and its folder: what a restart reads may be in the system's
    /// memory only.
    #[test]
    fn what_a_restart_reads_is_written_again_before_it_is_signed() {
        let world = World::new("killed");
        let watch = world.watch();
        assert!(is_signed(&watch.add(&world.request(0, 20))));
        let_folders_fail(true);
        assert_eq!(watch.add(&world.request(20, 30)), Answer::CannotKeep);
        drop(watch);
        // The new name was there all the same.
        let watch = world.watch();
        assert_eq!(watch.add(&world.request(20, 30)), Answer::Conflict(30));
        assert_eq!(watch.add(&world.request(30, 30)), Answer::CannotKeep);
        drop(watch);
        // It was not: a power cut has brought the old one back, and nobody has a signature of the new.
        fs::write(world.file(), world.note(20)).unwrap();
        let watch = world.watch();
        assert_eq!(watch.add(&world.request(20, 20)), Answer::CannotKeep);
        let_folders_fail(false);
        assert!(is_signed(&watch.add(&world.request(20, 20))));
        assert!(is_signed(&watch.add(&world.request(20, 30))));
        assert_eq!(fs::read_to_string(world.file()).unwrap(), world.note(30));
    }
}
