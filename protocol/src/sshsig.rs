//! SSHSIG: the signature format of `ssh-keygen -Y sign`, version 1. PROTOCOL 1.
//!
//! What stock `ssh-keygen -Y verify` accepts we accept, but for what it does not look at: weak
//! keys, and the flags of security keys. There is one hash (SHA-512) and no second encoding.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use ed25519_dalek::{Signer as _, SigningKey};
use sha2::{Digest as _, Sha256, Sha512};

use crate::hash::KeyId;
use crate::key::{self, KeyError, PublicKey, SK_APPLICATION};
use crate::wire::{Malformed, Reader, put_string};

/// Largest signature blob in bytes: with the largest payload it still fits an entry.
pub const MAX_SSHSIG_BYTES: usize = 8 * 1024;

const MAGIC: &[u8] = b"SSHSIG";
const VERSION: u32 = 1;
const HASH: &str = "sha512";
const BEGIN: &str = "-----BEGIN SSH SIGNATURE-----";
const END: &str = "-----END SSH SIGNATURE-----";

/// The user touched the security key.
const USER_PRESENT: u8 = 0x01;
/// The user proved who they are to the security key.
const USER_VERIFIED: u8 = 0x04;
/// Extension data and attested credentials: no part of a signature for us.
const REFUSED_FLAGS: u8 = 0x40 | 0x80;

/// Why a signature is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SshSigError {
    /// Larger than any signature.
    #[error("the signature is larger than 8 KiB")]
    TooLarge,
    /// Not an SSHSIG of version 1, or bytes are left over.
    #[error("not an SSH signature of version 1")]
    Malformed,
    /// Another hash than SHA-512.
    #[error("the signature must use sha512")]
    Hash,
    /// The key inside.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Made for another purpose.
    #[error("the signature was made for another namespace")]
    Namespace,
    /// The mathematics.
    #[error("it does not fit these bytes and this key")]
    Invalid,
    /// A security key signed without being touched.
    #[error("the security key was not touched")]
    NotPresent,
    /// A security key set a flag that no SSH signature has.
    #[error("the security key set flags that are not accepted")]
    Flags,
}

impl From<Malformed> for SshSigError {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// What the signature itself proves, beside that it fits.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignatureFacts {
    /// The key that signed.
    pub key_id: KeyId,
    /// A security key was touched; always so for one.
    pub user_present: bool,
    /// A security key had verified its user.
    pub user_verified: bool,
    /// A security key's counter.
    pub counter: Option<u32>,
}

/// The inner signature.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Inner {
    Ed25519([u8; 64]),
    SkEd25519 {
        signature: [u8; 64],
        flags: u8,
        counter: u32,
    },
}

/// A parsed signature: well-formed, not yet verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshSig {
    key: PublicKey,
    namespace: Vec<u8>,
    inner: Inner,
}

/// The bytes that are signed for a payload in a namespace.
#[must_use]
pub fn signed_data(namespace: &str, payload: &[u8]) -> Vec<u8> {
    let mut data = MAGIC.to_vec();
    put_string(&mut data, namespace.as_bytes());
    put_string(&mut data, b"");
    put_string(&mut data, HASH.as_bytes());
    put_string(&mut data, &Sha512::digest(payload));
    data
}

/// Signs with a key held in software: the ledger's, an agent's.
#[must_use]
pub fn sign(key: &SigningKey, namespace: &str, payload: &[u8]) -> SshSig {
    SshSig {
        key: PublicKey::of(key),
        namespace: namespace.as_bytes().to_vec(),
        inner: Inner::Ed25519(key.sign(&signed_data(namespace, payload)).to_bytes()),
    }
}

impl SshSig {
    /// The key inside: a claim, until it is looked up by its id.
    #[must_use]
    pub const fn key(&self) -> &PublicKey {
        &self.key
    }

    /// Reads the binary form.
    ///
    /// # Errors
    /// See [`SshSigError`].
    pub fn from_blob(blob: &[u8]) -> Result<Self, SshSigError> {
        Self::from_blob_by(blob, PublicKey::from_blob)
    }

    /// Reads the binary form, and its key as the caller reads keys.
    pub(crate) fn from_blob_by(
        blob: &[u8],
        read: impl FnOnce(&[u8]) -> Result<PublicKey, KeyError>,
    ) -> Result<Self, SshSigError> {
        if blob.len() > MAX_SSHSIG_BYTES {
            return Err(SshSigError::TooLarge);
        }
        let mut fields = Reader(blob.strip_prefix(MAGIC).ok_or(SshSigError::Malformed)?);
        if fields.u32()? != VERSION {
            return Err(SshSigError::Malformed);
        }
        let key = read(fields.string()?)?;
        let namespace = fields.string()?.to_vec();
        let reserved = fields.string()?;
        if fields.string()? != HASH.as_bytes() {
            return Err(SshSigError::Hash);
        }
        let inner = parse_inner(&key, fields.string()?)?;
        fields.end()?;
        if !reserved.is_empty() {
            return Err(SshSigError::Malformed);
        }
        Ok(Self {
            key,
            namespace,
            inner,
        })
    }

    /// The binary form.
    #[must_use]
    pub fn to_blob(&self) -> Vec<u8> {
        let mut inner = Vec::new();
        put_string(&mut inner, self.key.kind().as_bytes());
        match &self.inner {
            Inner::Ed25519(signature) => put_string(&mut inner, signature),
            Inner::SkEd25519 {
                signature,
                flags,
                counter,
            } => {
                put_string(&mut inner, signature);
                inner.push(*flags);
                inner.extend_from_slice(&counter.to_be_bytes());
            }
        }
        let mut blob = MAGIC.to_vec();
        blob.extend_from_slice(&VERSION.to_be_bytes());
        put_string(&mut blob, &self.key.to_blob());
        put_string(&mut blob, &self.namespace);
        put_string(&mut blob, b"");
        put_string(&mut blob, HASH.as_bytes());
        put_string(&mut blob, &inner);
        blob
    }

    /// Reads the text form that `ssh-keygen -Y sign` writes.
    ///
    /// # Errors
    /// See [`SshSigError`].
    pub fn from_armour(text: &str) -> Result<Self, SshSigError> {
        Self::from_blob(&key::unarmour(text, BEGIN, END).ok_or(SshSigError::Malformed)?)
    }

    /// The text form that `ssh-keygen -Y verify` reads.
    #[must_use]
    pub fn to_armour(&self) -> String {
        format!("{BEGIN}\n{}\n{END}\n", key::armour(&self.to_blob()))
    }

    /// Verifies, strictly, that this key signed this payload in this namespace.
    ///
    /// # Errors
    /// See [`SshSigError`].
    pub fn verify(&self, namespace: &str, payload: &[u8]) -> Result<SignatureFacts, SshSigError> {
        if self.namespace != namespace.as_bytes() {
            return Err(SshSigError::Namespace);
        }
        let data = signed_data(namespace, payload);
        let mut facts = SignatureFacts {
            key_id: self.key.key_id(),
            user_present: false,
            user_verified: false,
            counter: None,
        };
        let (key, message, signature) = match (&self.key, &self.inner) {
            (PublicKey::Ed25519(key), Inner::Ed25519(signature)) => (key, data, signature),
            (
                PublicKey::SkEd25519 { key },
                Inner::SkEd25519 {
                    signature,
                    flags,
                    counter,
                },
            ) => {
                if flags & REFUSED_FLAGS != 0 {
                    return Err(SshSigError::Flags);
                }
                if flags & USER_PRESENT == 0 {
                    return Err(SshSigError::NotPresent);
                }
                facts.user_present = true;
                facts.user_verified = flags & USER_VERIFIED != 0;
                facts.counter = Some(*counter);
                let mut message = Sha256::digest(SK_APPLICATION).to_vec();
                message.push(*flags);
                message.extend_from_slice(&counter.to_be_bytes());
                message.extend_from_slice(&Sha256::digest(&data));
                (key, message, signature)
            }
            (PublicKey::Ed25519(_) | PublicKey::SkEd25519 { .. }, _) => {
                return Err(SshSigError::Malformed);
            }
        };
        key.verify(&message, signature)
            .map_err(|_| SshSigError::Invalid)?;
        Ok(facts)
    }
}

fn parse_inner(key: &PublicKey, bytes: &[u8]) -> Result<Inner, SshSigError> {
    let mut fields = Reader(bytes);
    if fields.string()? != key.kind().as_bytes() {
        return Err(SshSigError::Malformed);
    }
    let signature = fields
        .string()?
        .try_into()
        .map_err(|_| SshSigError::Malformed)?;
    let inner = match key {
        PublicKey::Ed25519(_) => Inner::Ed25519(signature),
        PublicKey::SkEd25519 { .. } => {
            let [flags] = fields.array()?;
            Inner::SkEd25519 {
                signature,
                flags,
                counter: fields.u32()?,
            }
        }
    };
    fields.end()?;
    Ok(inner)
}
