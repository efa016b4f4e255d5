//! The pins against the server's words: which ledger, and one history of it.
//!
//! It owns the genesis check and the remembered checkpoint, which is durable and never goes back.
//! A second history is evidence: both notes are kept and nothing more is believed. It must not
//! decide about commands.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use countersign_protocol::api::{LedgerInfo, Receipt};
use countersign_protocol::audit;
use countersign_protocol::checkpoint::{Checkpoint, CheckpointError, VerifierKey};
use countersign_protocol::event::{Event, Seen};
use countersign_protocol::hash::{Hash, LedgerId, StatementId};
use countersign_protocol::key::PublicKey;
use countersign_protocol::proof;
use tokio::sync::Mutex;

use crate::client::{Client, ClientError};
use crate::clock::Clock;
use crate::key;

/// The remembered checkpoint, beside the key.
pub(crate) const FILE: &str = "checkpoint";

/// Why the server's ledger is not the one that is pinned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// The genesis is another.
    #[error("the server's ledger is not the pinned one; check `ledger` and `server`")]
    OtherLedger,
    /// The genesis does not hold.
    #[error("the server's genesis does not verify: {0}")]
    Genesis(String),
    /// The genesis names another origin or checkpoint key.
    #[error("the pinned ledger's genesis names another origin or checkpoint key than `vkey`")]
    OtherKey,
}

/// The keys with which the ledger's own words are signed, as its genesis names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerKeys {
    /// Of its statements.
    pub statement: PublicKey,
    /// Of what API tokens ask for; a ledger may have none.
    pub gateway: Option<PublicKey>,
}

/// The ledger's keys, if this genesis is the pinned ledger's and names the pinned checkpoint key.
///
/// # Errors
/// See [`PinError`].
pub fn ledger_keys(
    info: &LedgerInfo,
    ledger: &LedgerId,
    vkey: &VerifierKey,
) -> Result<LedgerKeys, PinError> {
    let entry = audit::check_entry(&info.genesis.0)
        .map_err(|reason| PinError::Genesis(reason.to_string()))?;
    if entry.leaf.as_bytes() != ledger.as_bytes() {
        return Err(PinError::OtherLedger);
    }
    let Event::LedgerGenesis(genesis) = entry.verified.event() else {
        return Err(PinError::Genesis("entry 0 is no genesis".into()));
    };
    if *entry.verified.key() != genesis.statement_key {
        return Err(PinError::Genesis("it is signed by another key".into()));
    }
    match VerifierKey::of(&genesis.origin, &genesis.checkpoint_key) {
        Ok(named) if named == *vkey => Ok(LedgerKeys {
            statement: genesis.statement_key.clone(),
            gateway: genesis.gateway_key.clone(),
        }),
        Ok(_) | Err(_) => Err(PinError::OtherKey),
    }
}

/// Why a checkpoint or receipt is not believed.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// Not signed by the pinned key, or malformed.
    #[error("the checkpoint is not believed: {0}")]
    Note(#[from] CheckpointError),
    /// The proof could not be fetched; try again.
    #[error("no proof of consistency: {0}")]
    NoProof(#[from] ClientError),
    /// Two histories.
    #[error(
        "the ledger shows a second history: the checkpoint of size {offered} does not agree with \
         the remembered one of size {remembered}. Both notes are kept in {}; nothing is run until \
         a person has looked at them", .evidence.display()
    )]
    Fork {
        /// Size of the remembered one.
        remembered: u64,
        /// Size of the other.
        offered: u64,
        /// Where both are kept.
        evidence: PathBuf,
    },
    /// The disk.
    #[error("the remembered checkpoint {} cannot be kept: {source}", .path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The receipt is for something else, or proves nothing.
    #[error("the receipt does not prove that the statement is in the log: {0}")]
    Receipt(String),
}

impl ViewError {
    /// Whether what was shown could not be kept for want of room on the disk: worth another try.
    #[must_use]
    pub fn is_no_room(&self) -> bool {
        matches!(self, Self::Io { source, .. } if key::is_no_room(source))
    }
}

/// One history of the ledger, as far as this host has seen it.
pub struct View {
    /// Who asks for proofs: a key that the ledger lets in.
    client: RwLock<Arc<Client>>,
    vkey: VerifierKey,
    folder: PathBuf,
    clock: Clock,
    /// Held while a checkpoint is compared, so that two cannot overtake each other.
    turn: Mutex<()>,
    remembered: RwLock<Option<Checkpoint>>,
}

impl View {
    /// Opens the memory in `folder`.
    ///
    /// # Errors
    /// The file cannot be read, or does not hold a checkpoint by the pinned key.
    pub fn open(
        client: Arc<Client>,
        vkey: VerifierKey,
        folder: &Path,
        clock: Clock,
    ) -> Result<Self, ViewError> {
        let path = folder.join(FILE);
        let remembered = match fs::read_to_string(&path) {
            Ok(note) => Some(Checkpoint::open(&note, &vkey)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(ViewError::Io { path, source }),
        };
        Ok(Self {
            client: RwLock::new(client),
            vkey,
            folder: folder.to_owned(),
            clock,
            turn: Mutex::new(()),
            remembered: RwLock::new(remembered),
        })
    }

    /// Asks for proofs as another key of the host from now on.
    pub(crate) fn ask_as(&self, client: Arc<Client>) {
        let mut asks = self.client.write().unwrap_or_else(PoisonError::into_inner);
        *asks = client;
    }

    fn client(&self) -> Arc<Client> {
        let asks = self.client.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&asks)
    }

    /// Does something while no checkpoint is compared or written down.
    pub(crate) async fn at_rest<T>(&self, work: impl Future<Output = T>) -> T {
        let _turn = self.turn.lock().await;
        work.await
    }

    /// What statements say they have seen; none before the first checkpoint.
    #[must_use]
    pub fn seen(&self) -> Option<Seen> {
        self.remembered().map(|known| Seen {
            size: known.size(),
            root: known.root(),
        })
    }

    /// Believes a note that is signed by the pinned key and agrees with all that was seen before,
    /// and remembers it when it is larger. A smaller one that agrees is only stale.
    ///
    /// # Errors
    /// See [`ViewError`].
    pub async fn confirm(&self, note: &str) -> Result<Checkpoint, ViewError> {
        self.confirm_since(note, None).await
    }

    /// As [`View::confirm`], with a proof that may have come along: that the note goes on from the
    /// size it is given with. It is used where it fits the memory, and checked all the same.
    ///
    /// # Errors
    /// See [`ViewError`].
    pub async fn confirm_since(
        &self,
        note: &str,
        since: Option<(u64, &[Hash])>,
    ) -> Result<Checkpoint, ViewError> {
        let (checkpoint, kept) = self.prove(note, since).await?;
        kept.map(|()| checkpoint)
    }

    /// As [`View::confirm`], for what can only stop something: it is good before it is durable, as a crash
    /// that makes this host forget it ends the run as well. Gives also whether it is remembered; if not,
    /// the next one is, that this host relies on for more.
    ///
    /// # Errors
    /// See [`ViewError`].
    pub(crate) async fn confirm_to_stop(
        &self,
        note: &str,
    ) -> Result<(Checkpoint, Result<(), ViewError>), ViewError> {
        self.prove(note, None).await
    }

    /// Checks a note, then remembers it where it is the largest, and says apart whether it could.
    async fn prove(
        &self,
        note: &str,
        since: Option<(u64, &[Hash])>,
    ) -> Result<(Checkpoint, Result<(), ViewError>), ViewError> {
        let offered = Checkpoint::open(note, &self.vkey)?;
        let _turn = self.turn.lock().await;
        if let Some(known) = self.remembered() {
            if known.body() == offered.body() {
                return Ok((offered, Ok(())));
            }
            let (old, new) = if known.size() < offered.size() {
                (&known, &offered)
            } else {
                (&offered, &known)
            };
            let fits = |size| size == old.size() && new.size() == offered.size();
            let proof = if old.size() == new.size() {
                Vec::new()
            } else if let Some((_, proof)) = since.filter(|(size, _)| fits(*size)) {
                proof.to_vec()
            } else {
                self.client().consistency(old.size(), new.size()).await?
            };
            let holds =
                proof::verify_consistency(old.size(), new.size(), &old.root(), &new.root(), &proof);
            if holds.is_err() {
                return Err(self.keep_evidence(&known, &offered));
            }
            if offered.size() < known.size() {
                return Ok((offered, Ok(())));
            }
        } else if offered.size() == 0 {
            return Err(CheckpointError::Malformed("a ledger has at least its genesis").into());
        }
        let kept = self.remember(&offered);
        Ok((offered, kept))
    }

    /// Durable before anything is run or said by it, so that a crash cannot make this host forget it.
    fn remember(&self, newest: &Checkpoint) -> Result<(), ViewError> {
        let path = self.folder.join(FILE);
        key::replace_private(&path, newest.note().as_bytes())
            .map_err(|source| ViewError::Io { path, source })?;
        let mut remembered = self
            .remembered
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *remembered = Some(newest.clone());
        Ok(())
    }

    /// Holds what the ledger shows against the memory, once it has denied what this host has seen. One
    /// that is shorter now has lost what it signed, and there is no proof to ask for.
    ///
    /// # Errors
    /// See [`ViewError`].
    pub(crate) async fn confront(&self, note: &str) -> Result<(), ViewError> {
        let offered = Checkpoint::open(note, &self.vkey)?;
        {
            let _turn = self.turn.lock().await;
            if let Some(known) = self.remembered()
                && offered.size() < known.size()
            {
                return Err(self.keep_evidence(&known, &offered));
            }
        }
        self.confirm(note).await.map(drop)
    }

    fn remembered(&self) -> Option<Checkpoint> {
        self.remembered
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// [`check_receipt`] with the pinned key.
    ///
    /// # Errors
    /// As [`check_receipt`].
    pub fn check_receipt(
        &self,
        receipt: &Receipt,
        id: StatementId,
    ) -> Result<Option<u64>, ViewError> {
        check_receipt(&self.vkey, receipt, id)
    }

    fn keep_evidence(&self, known: &Checkpoint, offered: &Checkpoint) -> ViewError {
        let now = self.clock.now().as_micros();
        let path = self.folder.join(format!("fork-{now}.notes"));
        let both = format!("{}\n{}", known.note(), offered.note());
        if let Err(error) = key::write_private(&path, both.as_bytes()) {
            tracing::error!(%error, notes = both, "the evidence of a second history cannot be kept");
        }
        ViewError::Fork {
            remembered: known.size(),
            offered: offered.size(),
            evidence: path,
        }
    }
}

/// Says whether a receipt proves that exactly this statement stands in the log of its checkpoint,
/// which the pinned key signed. Gives the size that the statement had seen.
///
/// # Errors
/// [`ViewError::Note`] or [`ViewError::Receipt`].
pub fn check_receipt(
    vkey: &VerifierKey,
    receipt: &Receipt,
    id: StatementId,
) -> Result<Option<u64>, ViewError> {
    let checkpoint = Checkpoint::open(&receipt.checkpoint, vkey)?;
    let wrong = |reason: &dyn std::fmt::Display| ViewError::Receipt(reason.to_string());
    let entry = audit::check_entry(&receipt.entry.0).map_err(|reason| wrong(&reason))?;
    if entry.verified.id() != id {
        return Err(wrong(&"it is for another statement"));
    }
    proof::verify_inclusion(
        &entry.leaf,
        entry.seq,
        checkpoint.size(),
        &receipt.inclusion,
        &checkpoint.root(),
    )
    .map_err(|reason| wrong(&reason))?;
    let seen = entry.verified.event().header().seen;
    Ok(seen.map(|seen| seen.size))
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View")
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}
