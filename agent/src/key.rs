//! The agent's key and its folder, and the only source of randomness.
//!
//! It owns how key and journal come into being: together, in one rename, so that neither can be
//! found without the other unless somebody took one away. It must not sign anything. How a second
//! key takes the first one's place is `succession`'s.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use countersign_protocol::hash::KeyId;
use countersign_protocol::key::{self, KeyError, PublicKey};
use countersign_protocol::name::{Nonce, Time};
use countersign_sealing::SealingSecret;
use ed25519_dalek::SigningKey;
use zeroize::Zeroizing;

use crate::spool::{Birth, Spool, SpoolError};
use crate::succession;

/// Holds key, journal and remembered checkpoint, below the configured state folder.
pub(crate) const FOLDER: &str = "identity";

/// Where a new identity is put together; one that was left behind was never used.
const NEW_FOLDER: &str = "identity.new";

/// The private key, in OpenSSH's format after one line that names its journal.
pub(crate) const KEY_FILE: &str = "key";

/// The private key that secrets for this agent are sealed to, in hex.
pub(crate) const SEALING_FILE: &str = "sealing.key";

/// Held by the agent that runs on a state folder.
const LOCK: &str = "lock";

/// What that line begins with.
const JOURNAL_MARK: &str = "# journal ";

/// Largest key file that is read; a real one has some 500 bytes.
const MAX_KEY_FILE: u64 = 16 * 1024;

/// Who this agent is: its key, and when that was made.
pub struct Identity {
    folder: PathBuf,
    key: SigningKey,
    key_id: KeyId,
    birth: Birth,
    /// None: the key was made before there were sealed secrets, and takes none.
    sealing: Option<SealingSecret>,
    /// Held as long as any identity of the folder lives; the kernel gives it up however the
    /// process ends.
    lock: Arc<File>,
}

/// Why there is no identity to act with.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file or folder cannot be used.
    #[error("cannot use {path}: {source}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others could read or change it.
    #[error("{file} can be read or changed by others; run: chmod go= {file}", file = .0.display())]
    Permissions(PathBuf),
    /// Another user's.
    #[error("{file} belongs to another user; the agent keeps its own files", file = .0.display())]
    Owner(PathBuf),
    /// Not a key.
    #[error("the key {path} is not usable: {source}", path = path.display())]
    Key {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: KeyError,
    },
    /// One of the two is missing.
    #[error(
        "{file} is missing beside its twin; key and journal belong together, because the journal is \
         what keeps a grant from running twice. Put it back, or remove the folder and enrol anew under another name", file = .0.display())]
    Twin(PathBuf),
    /// The journal is not the one that was made with the key.
    #[error(
        "the journal in {file} is not the one that was made with this key, so it cannot say which \
         grants were used; put the right one back, or remove the folder and enrol anew under another name", file = .0.display())]
    OtherJournal(PathBuf),
    /// The operating system gives no randomness.
    #[error("the operating system gives no randomness: {0}")]
    Random(getrandom::Error),
    /// The journal.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// Nothing to replace.
    #[error("there is no key in {state} to be replaced; start the agent, which makes the first one", state = .0.display())]
    NoIdentity(PathBuf),
    /// Another agent runs on the same folder.
    #[error("another agent uses {file}; two on one key would break its chain", file = .0.display())]
    Busy(PathBuf),
}

/// `N` random bytes from the operating system.
///
/// # Errors
/// The operating system gives none.
pub fn random<const N: usize>() -> Result<[u8; N], getrandom::Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// A nonce for one statement.
///
/// # Errors
/// The operating system gives no randomness.
pub fn nonce() -> Result<Nonce, getrandom::Error> {
    random().map(Nonce::new)
}

impl Identity {
    /// Opens the identity below `state`, or makes one where there is none at all.
    ///
    /// # Errors
    /// See [`IdentityError`]; half an identity is never completed.
    pub fn open_or_create(state: &Path, now: Time) -> Result<(Self, Spool), IdentityError> {
        let file = |source| IdentityError::File {
            path: state.to_owned(),
            source,
        };
        let mut builder = fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(state)
            .map_err(file)?;
        check_private(state)?;
        let lock = Arc::new(lock(state, LOCK)?);
        succession::settle(state)?;
        let folder = state.join(FOLDER);
        if !fs::exists(&folder).map_err(file)? {
            create(&state.join(NEW_FOLDER), &folder, now, |_| Ok(()))?;
        }
        Self::open(folder, lock)
    }

    /// Opens the identity that is to follow this one; none where none was made.
    ///
    /// # Errors
    /// As [`Identity::open_or_create`].
    pub fn open_next(&self, state: &Path) -> Result<Option<(Self, Spool)>, IdentityError> {
        let folder = state.join(succession::NEXT_FOLDER);
        if !fs::exists(&folder).unwrap_or(false) {
            return Ok(None);
        }
        Self::open(folder, Arc::clone(&self.lock)).map(Some)
    }

    fn open(folder: PathBuf, lock: Arc<File>) -> Result<(Self, Spool), IdentityError> {
        check_private(&folder)?;
        let path = folder.join(KEY_FILE);
        let journal = folder.join(crate::spool::FILE);
        for twin in [&path, &journal] {
            if !fs::exists(twin).unwrap_or(false) {
                return Err(IdentityError::Twin(twin.clone()));
            }
            check_private(twin)?;
        }
        let (key, journal_id) = read_key(&path)?;
        let key_id = PublicKey::of(&key).key_id();
        let spool = Spool::open(&folder)?;
        let birth = spool.birth();
        if birth.key_id != key_id || birth.journal_id != journal_id {
            return Err(IdentityError::OtherJournal(folder));
        }
        let sealing = read_sealing_key(&folder.join(SEALING_FILE))?;
        let identity = Self {
            folder,
            sealing,
            key,
            key_id,
            birth,
            lock,
        };
        Ok((identity, spool))
    }

    /// The folder of key and journal.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The private key.
    #[must_use]
    pub const fn key(&self) -> &SigningKey {
        &self.key
    }

    /// The public key.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey::of(&self.key)
    }

    /// The key's id.
    #[must_use]
    pub const fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// What opens secrets that were sealed to this agent by this key; none for a key that was made
    /// before there were any.
    #[must_use]
    pub const fn sealing(&self) -> Option<&SealingSecret> {
        self.sealing.as_ref()
    }

    /// When key and journal were made; no approval from before counts.
    #[must_use]
    pub const fn created(&self) -> Time {
        self.birth.created
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

/// Draws a key, writes it and its journal to a folder aside, lets `more` be put there, then names
/// that folder: the commit point. Before it there is nothing, after it there is all.
pub(crate) fn create(
    aside: &Path,
    folder: &Path,
    now: Time,
    more: impl FnOnce(&Path) -> io::Result<()>,
) -> Result<(), IdentityError> {
    let file = |source| IdentityError::File {
        path: aside.to_owned(),
        source,
    };
    match fs::remove_dir_all(aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(file(error)),
        Ok(()) | Err(_) => {}
    }
    fs::DirBuilder::new()
        .mode(0o700)
        .create(aside)
        .map_err(file)?;
    let seed = Zeroizing::new(random().map_err(IdentityError::Random)?);
    let key = SigningKey::from_bytes(&seed);
    let birth = Birth {
        key_id: PublicKey::of(&key).key_id(),
        journal_id: hex::encode(random::<16>().map_err(IdentityError::Random)?),
        created: now,
    };
    Spool::create(aside, &birth)?;
    let check = u32::from_be_bytes(random().map_err(IdentityError::Random)?);
    let pem = Zeroizing::new(key::to_openssh_private(&key, "countersign agent", check));
    let text = Zeroizing::new(format!("{JOURNAL_MARK}{}\n{}", birth.journal_id, *pem));
    write_private(&aside.join(KEY_FILE), text.as_bytes()).map_err(file)?;
    let sealing = Zeroizing::new(random::<32>().map_err(IdentityError::Random)?);
    let text = Zeroizing::new(hex::encode(sealing.as_slice()));
    write_private(&aside.join(SEALING_FILE), text.as_bytes()).map_err(file)?;
    more(aside).map_err(file)?;
    sync_folder(aside).map_err(file)?;
    fs::rename(aside, folder).map_err(file)?;
    folder.parent().map_or(Ok(()), sync_folder).map_err(file)
}

/// The public key of the agent whose state folder this is; nothing when it has none yet. For
/// whoever accepts the agent on the same machine.
#[must_use]
pub fn public_key(state: &Path) -> Option<PublicKey> {
    let (key, _journal) = read_key(&state.join(FOLDER).join(KEY_FILE)).ok()?;
    Some(PublicKey::of(&key))
}

pub(crate) fn read_key(path: &Path) -> Result<(SigningKey, String), IdentityError> {
    let mut text = Zeroizing::new(String::new());
    File::open(path)
        .and_then(|file| file.take(MAX_KEY_FILE).read_to_string(&mut text))
        .map_err(|source| IdentityError::File {
            path: path.to_owned(),
            source,
        })?;
    let malformed = |source| IdentityError::Key {
        path: path.to_owned(),
        source,
    };
    let (journal, pem) = text
        .strip_prefix(JOURNAL_MARK)
        .and_then(|rest| rest.split_once('\n'))
        .ok_or_else(|| malformed(KeyError::Malformed))?;
    let key = key::from_openssh_private(pem).map_err(malformed)?;
    Ok((key, journal.to_owned()))
}

/// The private sealing key; none where none was made.
fn read_sealing_key(path: &Path) -> Result<Option<SealingSecret>, IdentityError> {
    let file = |source| IdentityError::File {
        path: path.to_owned(),
        source,
    };
    match fs::exists(path) {
        Ok(true) => check_private(path)?,
        Ok(false) => return Ok(None),
        Err(error) => return Err(file(error)),
    }
    let mut text = Zeroizing::new(String::new());
    let opened = File::open(path);
    let read = opened.and_then(|opened| opened.take(MAX_KEY_FILE).read_to_string(&mut text));
    read.map_err(file)?;
    let mut bytes = Zeroizing::new([0; 32]);
    hex::decode_to_slice(text.trim_end(), bytes.as_mut_slice()).map_err(|_| {
        IdentityError::Key {
            path: path.to_owned(),
            source: KeyError::Malformed,
        }
    })?;
    Ok(Some(SealingSecret::new(bytes)))
}

/// Refuses what others may read or change, and what is not this user's own.
pub(crate) fn check_private(path: &Path) -> Result<(), IdentityError> {
    let metadata = fs::symlink_metadata(path).map_err(|source| IdentityError::File {
        path: path.to_owned(),
        source,
    })?;
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(IdentityError::Owner(path.to_owned()));
    }
    if metadata.permissions().mode() & 0o077 != 0 || metadata.is_symlink() {
        return Err(IdentityError::Permissions(path.to_owned()));
    }
    Ok(())
}

/// Whether an agent runs on this state folder.
#[must_use]
pub fn is_running(state: &Path) -> bool {
    matches!(lock(state, LOCK), Err(IdentityError::Busy(_)))
}

/// Takes the folder for this process, as long as the file is held.
pub(crate) fn lock(state: &Path, name: &str) -> Result<File, IdentityError> {
    use rustix::fs::{FlockOperation, flock};

    let path = state.join(name);
    let file = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(|source| IdentityError::File {
            path: path.clone(),
            source,
        })?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| IdentityError::Busy(state.to_owned()))?;
    Ok(file)
}

/// Creates a file of mode 0600, never over an existing one, and makes it durable.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Replaces a file in one step that survives a power cut.
pub(crate) fn replace_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let aside = path.with_extension("new");
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    write_private(&aside, bytes)?;
    fs::rename(&aside, path)?;
    path.parent().map_or(Ok(()), sync_folder)
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Whether a write failed for want of room: the disk, the account's quota or the largest file.
pub(crate) fn is_no_room(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}
