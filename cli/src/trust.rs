//! What this client believes before it hears anything: the pinned ledger, and the newest
//! checkpoint that it remembers.
//!
//! The ledger's id is the hash of its genesis, and genesis names the checkpoint key; so the id
//! alone pins whose checkpoints count. What is remembered only ever moves forward, under a lock,
//! and only to a checkpoint that is proved to continue it. PROTOCOL 4.

use std::path::PathBuf;

use countersign_protocol::api::LedgerInfo;
use countersign_protocol::audit::{self, Reason};
use countersign_protocol::checkpoint::{Checkpoint, CheckpointError, Origin, VerifierKey};
use countersign_protocol::event::Event;
use countersign_protocol::hash::{Hash, LedgerId};
use countersign_protocol::proof;

use crate::failure::Failure;
use crate::home::{HomeError, LedgerHome};

/// The file that holds the newest checkpoint seen.
pub(crate) const CHECKPOINT_FILE: &str = "checkpoint";

/// What the user pins.
#[derive(Debug, Clone)]
pub struct Pins {
    /// The ledger.
    pub ledger: LedgerId,
    /// Its checkpoints' key, if it is pinned as well.
    pub vkey: Option<VerifierKey>,
    /// Its origin, if it is pinned as well.
    pub origin: Option<Origin>,
}

/// Why something is not believed.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The server's genesis is not an entry that holds.
    #[error("the server's genesis entry does not hold: {0}")]
    Genesis(Reason),
    /// The server has another ledger.
    #[error("the server has another ledger ({found}) than the pinned one ({pinned})")]
    OtherLedger {
        /// The server's.
        found: LedgerId,
        /// Ours.
        pinned: LedgerId,
    },
    /// The pinned key or origin is not the one that genesis names.
    #[error("the pinned {0} is not the one that the pinned ledger's genesis names")]
    Pin(&'static str),
    /// The note does not open.
    #[error("the server gave a checkpoint that the ledger's key did not sign: {0}")]
    Note(#[from] CheckpointError),
    /// The remembered checkpoint does not open.
    #[error("the remembered checkpoint in {path} is not readable: {source}")]
    Memory {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: CheckpointError,
    },
    /// Two signed checkpoints contradict each other.
    #[error(
        "the ledger shows two histories: the checkpoint of {received} entries and the remembered one of {remembered} do not fit together ({why}); both are kept in {} and {}",
        .evidence.0.display(), .evidence.1.display()
    )]
    Fork {
        /// Size of the one that came.
        received: u64,
        /// Size of the one that is remembered.
        remembered: u64,
        /// What failed.
        why: String,
        /// Where the remembered and the received note were kept.
        evidence: (PathBuf, PathBuf),
    },
    /// The server cannot account for a checkpoint that it signed.
    #[error(
        "the ledger is shorter than it was: the server shows {received} entries and cannot account for the {remembered} that it had signed for this client; both checkpoints are kept in {} and {}",
        .evidence.0.display(), .evidence.1.display()
    )]
    Shrunk {
        /// Size of the one that came.
        received: u64,
        /// Size of the one that is remembered.
        remembered: u64,
        /// Where the remembered and the received note were kept.
        evidence: (PathBuf, PathBuf),
    },
    /// The state home.
    #[error(transparent)]
    Home(#[from] HomeError),
}

impl From<TrustError> for Failure {
    fn from(error: TrustError) -> Self {
        let message = error.to_string();
        let code = match error {
            TrustError::Home(error) => return error.into(),
            TrustError::Memory { path, .. } => {
                return Self::failed("memory", message).hint(format!(
                    "find out who changed it; without {} this client remembers nothing and starts anew",
                    path.display()
                ));
            }
            TrustError::OtherLedger { .. } => {
                return Self::tampering("other_ledger", message).hint(
                    "check --server and --ledger; if both are right, do not trust this server",
                );
            }
            TrustError::Genesis(_) => "genesis",
            TrustError::Pin(_) => "pin",
            TrustError::Note(_) => "checkpoint",
            TrustError::Fork { .. } => "fork",
            TrustError::Shrunk { .. } => "shrunk",
        };
        Self::tampering(code, message).hint(
            "nothing was signed; keep what you have and show it to whoever watches this ledger",
        )
    }
}

/// Where a checkpoint stands beside what was remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is the newest seen.
    Newest,
    /// It is older, and of the same history.
    Stale,
}

/// The proof that a checkpoint needs before it is believed.
#[derive(Debug, Clone)]
pub enum Need {
    /// None: nothing is remembered, or the very same.
    Nothing,
    /// That these two sizes are one history.
    Consistency {
        /// The smaller size.
        from: u64,
        /// The larger size.
        to: u64,
        /// What is remembered: the proof is good for this one only.
        remembered: Box<Checkpoint>,
    },
}

/// The pinned ledger and what is remembered of it.
#[derive(Debug, Clone)]
pub struct Trust {
    ledger: LedgerId,
    verifier: VerifierKey,
    genesis: Box<countersign_protocol::event::LedgerGenesis>,
    home: LedgerHome,
}

impl Trust {
    /// Checks a server's introduction against the pins. Of what it says only genesis is used.
    ///
    /// # Errors
    /// It has another ledger, or the pins contradict its genesis.
    pub fn new(info: &LedgerInfo, pins: &Pins, home: LedgerHome) -> Result<Self, TrustError> {
        let entry = audit::check_entry(&info.genesis.0).map_err(TrustError::Genesis)?;
        let found = LedgerId::new(*entry.leaf.as_bytes());
        if found != pins.ledger {
            let pinned = pins.ledger;
            return Err(TrustError::OtherLedger { found, pinned });
        }
        let Event::LedgerGenesis(genesis) = entry.verified.event() else {
            return Err(TrustError::Pin("ledger id"));
        };
        let verifier = VerifierKey::of(&genesis.origin, &genesis.checkpoint_key)?;
        if pins.vkey.as_ref().is_some_and(|pinned| *pinned != verifier) {
            return Err(TrustError::Pin("verifier key"));
        }
        if pins
            .origin
            .as_ref()
            .is_some_and(|pinned| *pinned != genesis.origin)
        {
            return Err(TrustError::Pin("origin"));
        }
        Ok(Self {
            ledger: pins.ledger,
            verifier,
            genesis: Box::new(genesis.clone()),
            home,
        })
    }

    /// The ledger.
    #[must_use]
    pub const fn ledger(&self) -> LedgerId {
        self.ledger
    }

    /// The key of its checkpoints.
    #[must_use]
    pub const fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    /// What its first entry says.
    #[must_use]
    pub const fn genesis(&self) -> &countersign_protocol::event::LedgerGenesis {
        &self.genesis
    }

    /// Where things are remembered.
    #[must_use]
    pub const fn home(&self) -> &LedgerHome {
        &self.home
    }

    /// Reads a note and checks the ledger's signature on it.
    ///
    /// # Errors
    /// [`TrustError::Note`].
    pub fn open(&self, note: &str) -> Result<Checkpoint, TrustError> {
        let checkpoint = Checkpoint::open(note, &self.verifier)?;
        if checkpoint.size() == 0 {
            return Err(CheckpointError::Malformed("it is of no entries").into());
        }
        Ok(checkpoint)
    }

    /// The newest checkpoint this client has believed.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub fn remembered(&self) -> Result<Option<Checkpoint>, TrustError> {
        let Some(note) = self.home.read(CHECKPOINT_FILE)? else {
            return Ok(None);
        };
        let path = self.home.path(CHECKPOINT_FILE);
        let opened = Checkpoint::open(&note, &self.verifier);
        opened
            .map(Some)
            .map_err(|source| TrustError::Memory { path, source })
    }

    /// The proof that a checkpoint needs.
    ///
    /// # Errors
    /// It is of the remembered size and has another root: a fork.
    pub fn need(&self, received: &Checkpoint) -> Result<Need, TrustError> {
        let Some(remembered) = self.remembered()? else {
            return Ok(Need::Nothing);
        };
        let (old, new) = (remembered.size(), received.size());
        if old == new && remembered.root() == received.root() {
            return Ok(Need::Nothing);
        }
        if old == new {
            return Err(self.fork(&remembered, received, "same size, other root"));
        }
        Ok(Need::Consistency {
            from: old.min(new),
            to: old.max(new),
            remembered: Box::new(remembered),
        })
    }

    /// Believes a checkpoint, with the proof it needs, and remembers it when it is the newest.
    ///
    /// Gives nothing when another process has moved the memory since: ask [`Trust::need`] again.
    ///
    /// # Errors
    /// The proof fails: a fork. Both notes are kept.
    pub fn believe(
        &self,
        received: &Checkpoint,
        need: &Need,
        proof: &[Hash],
    ) -> Result<Option<Standing>, TrustError> {
        if let Need::Consistency {
            from,
            to,
            remembered,
        } = need
        {
            let (small, large) = if remembered.size() == *from {
                (remembered.as_ref(), received)
            } else {
                (received, remembered.as_ref())
            };
            proof::verify_consistency(*from, *to, &small.root(), &large.root(), proof)
                .map_err(|error| self.fork(remembered, received, &error.to_string()))?;
        }
        let _lock = self.home.lock()?;
        let now = self.remembered()?;
        let unmoved = match (need, &now) {
            (_, Some(now)) if now.body() == received.body() => return Ok(Some(Standing::Newest)),
            (Need::Nothing, None) => true,
            (Need::Consistency { remembered, .. }, Some(now)) => remembered.body() == now.body(),
            (Need::Nothing, Some(_)) | (Need::Consistency { .. }, None) => false,
        };
        if !unmoved {
            return Ok(None);
        }
        if now.is_some_and(|now| received.size() < now.size()) {
            return Ok(Some(Standing::Stale));
        }
        self.home.write(CHECKPOINT_FILE, received.note())?;
        Ok(Some(Standing::Newest))
    }

    /// A fork, with both notes kept.
    #[must_use]
    pub fn fork(&self, remembered: &Checkpoint, received: &Checkpoint, why: &str) -> TrustError {
        match self.keep(remembered, received) {
            Ok(evidence) => TrustError::Fork {
                received: received.size(),
                remembered: remembered.size(),
                why: why.to_owned(),
                evidence,
            },
            Err(error) => error.into(),
        }
    }

    /// A ledger that cannot account for what it signed, with both notes kept.
    #[must_use]
    pub fn shrunk(&self, remembered: &Checkpoint, received: &Checkpoint) -> TrustError {
        match self.keep(remembered, received) {
            Ok(evidence) => TrustError::Shrunk {
                received: received.size(),
                remembered: remembered.size(),
                evidence,
            },
            Err(error) => error.into(),
        }
    }

    fn keep(
        &self,
        remembered: &Checkpoint,
        received: &Checkpoint,
    ) -> Result<(PathBuf, PathBuf), HomeError> {
        Ok((
            self.home.keep_evidence("remembered", remembered.note())?,
            self.home.keep_evidence("received", received.note())?,
        ))
    }
}
