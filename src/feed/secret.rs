//! Signing secrets of webhooks, and addresses that are secrets themselves.
//!
//! It is the only file that sees them in clear; what it gives away is signatures.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};
use sha2::Sha256;
use zeroize::Zeroizing;

/// What Standard Webhooks puts before a symmetric secret.
const PREFIX: &str = "whsec_";

/// Lengths of a secret in bytes that Standard Webhooks allows.
const LENGTHS: std::ops::RangeInclusive<usize> = 24..=64;

/// Largest file: a line of text, or a key.
const MAX_FILE_BYTES: u64 = 16 * 1024;

/// Most secrets of a sink: the one in force, the next, and some that nobody took away yet.
pub(super) const MAX_SECRETS: usize = 4;

/// What stands for a text that is not shown.
const HIDDEN: &str = "(not shown: it may be a secret)";

/// Whether a value where a name belongs may be a secret, or an address that is one.
pub(super) fn looks_like_one(value: &str) -> bool {
    value.starts_with(PREFIX) || value.contains("://")
}

/// A text that is about to be shown, if nothing in it may be a secret.
pub(super) fn unless_it_looks_like_one(text: &str) -> &str {
    if text.contains(PREFIX) || text.contains("://") {
        HIDDEN
    } else {
        text
    }
}

/// Why a secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}; it must be there and readable by the account that serves", path = path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others can read it.
    #[error("{path} can be read by others, who could then sign as this feed; run: chmod 600 {path}", path = .0.display())]
    Permissions(PathBuf),
    /// It holds no secret.
    #[error(
        "{path} holds no secret of Standard Webhooks: one line, whsec_ and then 24 to 64 random bytes in base64; make one with: (printf whsec_; openssl rand -base64 32) > {path}",
        path = .0.display()
    )]
    NotASecret(PathBuf),
    /// It is larger than any secret.
    #[error("{path} is larger than 16 KiB; it must hold one secret", path = .0.display())]
    TooLarge(PathBuf),
}

/// A file that only its owner can read.
pub(super) fn read_private(path: &Path) -> Result<Zeroizing<String>, SecretError> {
    let failed = |source| SecretError::Read {
        path: path.to_path_buf(),
        source,
    };
    let metadata = fs::metadata(path).map_err(failed)?;
    if metadata.mode() & 0o077 != 0 {
        return Err(SecretError::Permissions(path.to_path_buf()));
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(SecretError::TooLarge(path.to_path_buf()));
    }
    fs::read_to_string(path).map(Zeroizing::new).map_err(failed)
}

/// One line of such a file.
pub(super) fn read_line(path: &Path) -> Result<SecretString, SecretError> {
    Ok(read_private(path)?.trim().into())
}

/// Secrets of one webhook: each message is signed with all of them, so that one can be replaced
/// while its receiver still has the other.
pub struct Secrets(Vec<SecretSlice<u8>>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({})", self.0.len())
    }
}

impl Secrets {
    /// Reads one secret from each file.
    ///
    /// # Errors
    /// See [`SecretError`].
    pub fn read(paths: &[PathBuf]) -> Result<Self, SecretError> {
        let secrets = paths.iter().map(|path| {
            let line = read_line(path)?;
            let bytes = line
                .expose_secret()
                .strip_prefix(PREFIX)
                .and_then(|text| STANDARD.decode(text).ok())
                .map(Zeroizing::new)
                .filter(|bytes| LENGTHS.contains(&bytes.len()))
                .ok_or_else(|| SecretError::NotASecret(path.clone()))?;
            Ok(bytes.to_vec().into())
        });
        secrets.collect::<Result<_, _>>().map(Self)
    }

    /// How many there are.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.0.len()
    }

    /// The value of `webhook-signature`: a `v1,` and base64 of HMAC-SHA256 over `id.timestamp.body`
    /// for each secret, with blanks between.
    #[must_use]
    pub fn sign(&self, id: &str, timestamp: &str, body: &[u8]) -> String {
        let signatures = self.0.iter().map(|secret| {
            // HMAC takes a key of any length, so this cannot fail.
            let mac = Hmac::<Sha256>::new_from_slice(secret.expose_secret());
            let signature = mac.map(|mac| {
                let parts = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body];
                let mac = parts.iter().fold(mac, |mac, part| mac.chain_update(part));
                STANDARD.encode(mac.finalize().into_bytes())
            });
            format!("v1,{}", signature.unwrap_or_default())
        });
        signatures.collect::<Vec<_>>().join(" ")
    }
}
