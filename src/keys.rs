//! The only holder of the server's secret keys, and the only source of randomness.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use countersign_protocol::event::Event;
use countersign_protocol::hash::KeyId;
use countersign_protocol::key::{self, KeyError, PublicKey};
use countersign_protocol::name::Nonce;
use countersign_protocol::statement::{Statement, StatementError};
use ed25519_dalek::SigningKey;
use sha2::{Digest as _, Sha512};
use zeroize::Zeroizing;

use crate::durable;

/// File of the key that signs the ledger's statements.
pub const STATEMENT_KEY_FILE: &str = "statement.key";

/// File of the key that signs checkpoints.
pub const CHECKPOINT_KEY_FILE: &str = "checkpoint.key";

/// File of the key that signs for the holders of API tokens.
pub const GATEWAY_KEY_FILE: &str = "gateway.key";

/// Keeps the derived session secret apart from every other use of the key.
const SESSION_DOMAIN: &[u8] = b"countersign/session-secret/v1\n";

/// The ledger's keys; each has a role of its own.
pub struct LedgerKeys {
    statement: SigningKey,
    checkpoint: SigningKey,
    /// A ledger that was founded before there were API tokens has none.
    gateway: Option<SigningKey>,
}

/// Why a key is not there.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// Not readable.
    #[error("cannot read the key {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Cannot be written.
    #[error("cannot write the key {path}: {source}")]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others could read it.
    #[error("the key {0} can be read by others; run: chmod 600 {0}")]
    Permissions(PathBuf),
    /// Not a key.
    #[error("the key {path} is not usable: {source}")]
    Key {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: KeyError,
    },
}

/// `N` random bytes from the operating system.
///
/// # Panics
/// Never on a system that this runs on: getrandom fails only where the kernel lacks it.
#[must_use]
#[expect(clippy::panic, reason = "without randomness nothing here may go on")]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    if let Err(error) = getrandom::fill(&mut bytes) {
        panic!("the operating system gives no randomness: {error}");
    }
    bytes
}

/// A nonce for one statement.
#[must_use]
pub fn nonce() -> Nonce {
    Nonce::new(random())
}

/// A new key.
#[must_use]
pub fn generate() -> SigningKey {
    SigningKey::from_bytes(&Zeroizing::new(random()))
}

/// Makes a folder that only we can enter, unless it is there.
fn make_private_folder(folder: &Path) -> Result<(), KeyFileError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder
        .create(folder)
        .map_err(|source| KeyFileError::Write {
            path: folder.to_path_buf(),
            source,
        })
}

/// Writes a private key as an OpenSSH file, 0600, and never over an existing one.
///
/// # Errors
/// [`KeyFileError::Write`], also when the file exists.
pub fn write_new(path: &Path, key: &SigningKey, comment: &str) -> Result<(), KeyFileError> {
    let write = || {
        let text = Zeroizing::new(key::to_openssh_private(
            key,
            comment,
            u32::from_be_bytes(random()),
        ));
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        // What it signs may be on another machine's disk before this name is on ours.
        durable::sync_folder(path)
    };
    write().map_err(|source| KeyFileError::Write {
        path: path.to_path_buf(),
        source,
    })
}

/// Reads a private key that only its owner can read.
///
/// # Errors
/// See [`KeyFileError`].
pub fn read(path: &Path) -> Result<SigningKey, KeyFileError> {
    let failed = |source| KeyFileError::Read {
        path: path.to_path_buf(),
        source,
    };
    if fs::metadata(path).map_err(failed)?.mode() & 0o077 != 0 {
        return Err(KeyFileError::Permissions(path.to_path_buf()));
    }
    let text = Zeroizing::new(fs::read_to_string(path).map_err(failed)?);
    key::from_openssh_private(&text).map_err(|source| KeyFileError::Key {
        path: path.to_path_buf(),
        source,
    })
}

impl LedgerKeys {
    /// Draws all keys.
    #[must_use]
    pub fn generate() -> Self {
        Self {
            statement: generate(),
            checkpoint: generate(),
            gateway: Some(generate()),
        }
    }

    /// Writes the keys to a folder, which is made if it is missing.
    ///
    /// # Errors
    /// See [`KeyFileError`]; existing keys are never replaced.
    pub fn write_new(&self, folder: &Path) -> Result<(), KeyFileError> {
        make_private_folder(folder)?;
        write_new(
            &folder.join(STATEMENT_KEY_FILE),
            &self.statement,
            "countersign statements",
        )?;
        write_new(
            &folder.join(CHECKPOINT_KEY_FILE),
            &self.checkpoint,
            "countersign checkpoints",
        )?;
        self.gateway.as_ref().map_or(Ok(()), |gateway| {
            let file = folder.join(GATEWAY_KEY_FILE);
            write_new(&file, gateway, "countersign gateway")
        })
    }

    /// Says whether a folder holds one of the keys.
    #[must_use]
    pub fn exist(folder: &Path) -> bool {
        [STATEMENT_KEY_FILE, CHECKPOINT_KEY_FILE, GATEWAY_KEY_FILE]
            .iter()
            .any(|name| folder.join(name).exists())
    }

    /// Reads the keys from a folder.
    ///
    /// # Errors
    /// See [`KeyFileError`].
    pub fn read(folder: &Path) -> Result<Self, KeyFileError> {
        let statement = read(&folder.join(STATEMENT_KEY_FILE))?;
        let gateway = folder.join(GATEWAY_KEY_FILE);
        Ok(Self {
            statement,
            checkpoint: read(&folder.join(CHECKPOINT_KEY_FILE))?,
            gateway: gateway.exists().then(|| read(&gateway)).transpose()?,
        })
    }

    /// Signs the ledger's statements.
    #[must_use]
    pub const fn statement(&self) -> &SigningKey {
        &self.statement
    }

    /// Signs checkpoints.
    #[must_use]
    pub const fn checkpoint(&self) -> &SigningKey {
        &self.checkpoint
    }

    /// Signs for the holders of API tokens, where the ledger was founded with such a key.
    #[must_use]
    pub fn gateway(&self) -> Option<Gateway> {
        self.gateway.clone().map(Gateway)
    }

    /// The public half of that.
    #[must_use]
    pub fn gateway_key(&self) -> Option<PublicKey> {
        self.gateway.as_ref().map(PublicKey::of)
    }

    /// Authenticates session tokens. Derived, so that all servers of a ledger have the same one and
    /// nothing more has to be kept.
    #[must_use]
    pub fn session_secret(&self) -> [u8; 64] {
        Sha512::new()
            .chain_update(SESSION_DOMAIN)
            .chain_update(self.statement.as_bytes())
            .finalize()
            .into()
    }

    /// The statement key's id.
    #[must_use]
    pub fn statement_id(&self) -> KeyId {
        PublicKey::of(&self.statement).key_id()
    }
}

/// Signs what the holders of API tokens ask for, and nothing else.
pub struct Gateway(SigningKey);

impl Gateway {
    /// Its key's id.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        PublicKey::of(&self.0).key_id()
    }

    /// Signs an event in the name of a token.
    ///
    /// # Errors
    /// The event has no canonical form, or names another signer.
    pub fn sign(&self, event: &Event) -> Result<Statement, StatementError> {
        Statement::sign(event, &self.0)
    }
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for LedgerKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LedgerKeys").finish_non_exhaustive()
    }
}
