//! Blobs: bytes that may have to be erased one day, named by a salted digest. PROTOCOL 3.
//!
//! Free text (arguments, reasons, output) lives here and never in a payload. Erasing salt and
//! content leaves the digest, so no root changes and a guessable text cannot be recovered.

use alloc::sync::Arc;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::hash::Digest;

/// Largest content in bytes: what a request may bring as standard input.
pub const MAX_BLOB_BYTES: usize = 4 * 1024 * 1024;

/// Largest content of one output chunk in bytes, so that live output stays live.
pub const MAX_CHUNK_BYTES: usize = 64 * 1024;

/// Domain separation: nothing else that is hashed here begins like this.
const PREFIX: &[u8] = b"countersign/blob/v1\n";

/// How a payload names a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlobRef {
    /// The salted digest.
    pub digest: Digest,
    /// Length of the content in bytes.
    pub len: u64,
}

/// Salt and content. The salt is drawn at random by whoever signs the statement that names it.
#[derive(Clone, PartialEq, Eq)]
pub struct Blob {
    salt: [u8; 32],
    /// Shared: output that is shown was checked before, and is as long as all of its chunks.
    content: Arc<Vec<u8>>,
}

/// Contents are private to those who may read them; only their length is shown.
impl core::fmt::Debug for Blob {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Blob")
            .field("len", &self.content.len())
            .finish_non_exhaustive()
    }
}

/// Why bytes are not the blob they were named as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BlobError {
    /// More than [`MAX_BLOB_BYTES`].
    #[error("a blob holds at most 4 MiB, this has {0} bytes")]
    TooLarge(usize),
    /// Digest or length differ from what the signed statement names.
    #[error("the content does not match the digest that was signed")]
    Mismatch,
}

impl Blob {
    /// Pairs content with its salt.
    ///
    /// # Errors
    /// [`BlobError::TooLarge`] past [`MAX_BLOB_BYTES`].
    pub fn new(salt: [u8; 32], content: Vec<u8>) -> Result<Self, BlobError> {
        if content.len() > MAX_BLOB_BYTES {
            return Err(BlobError::TooLarge(content.len()));
        }
        Ok(Self {
            salt,
            content: Arc::new(content),
        })
    }

    /// The salt.
    #[must_use]
    pub const fn salt(&self) -> &[u8; 32] {
        &self.salt
    }

    /// The content.
    #[must_use]
    pub fn content(&self) -> &[u8] {
        &self.content
    }

    /// The content, without a copy of it.
    #[must_use]
    pub fn shared(&self) -> Arc<Vec<u8>> {
        Arc::clone(&self.content)
    }

    /// The content, giving up the salt.
    #[must_use]
    pub fn into_content(self) -> Vec<u8> {
        Arc::unwrap_or_clone(self.content)
    }

    /// Digest and length, as a payload names them.
    #[must_use]
    pub fn reference(&self) -> BlobRef {
        let digest = Sha256::new()
            .chain_update(PREFIX)
            .chain_update(self.salt)
            .chain_update(self.content.as_slice())
            .finalize();
        BlobRef {
            digest: Digest::new(digest.into()),
            len: self.content.len() as u64,
        }
    }

    /// Says whether these are the very bytes that `expected` names.
    ///
    /// # Errors
    /// [`BlobError::Mismatch`] when digest or length differ.
    pub fn verify(&self, expected: &BlobRef) -> Result<(), BlobError> {
        if self.reference() == *expected {
            Ok(())
        } else {
            Err(BlobError::Mismatch)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn salt_and_every_byte_of_content_bind() {
        let blob = Blob::new([7; 32], b"ls -l".to_vec()).unwrap();
        let named = blob.reference();
        assert_eq!(blob.verify(&named), Ok(()));
        for other in [
            Blob::new([8; 32], b"ls -l".to_vec()).unwrap(),
            Blob::new([7; 32], b"ls -L".to_vec()).unwrap(),
            Blob::new([7; 32], b"ls -".to_vec()).unwrap(),
        ] {
            assert_eq!(other.verify(&named), Err(BlobError::Mismatch));
        }
    }

    #[test]
    fn four_mebibytes_and_one_are_refused() {
        assert!(Blob::new([0; 32], alloc::vec![0; MAX_BLOB_BYTES]).is_ok());
        assert!(Blob::new([0; 32], alloc::vec![0; MAX_BLOB_BYTES + 1]).is_err());
    }
}
