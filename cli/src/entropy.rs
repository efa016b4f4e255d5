//! Randomness: nonces, the salts of blobs, names of temporary files. Nothing else draws any.

use countersign_protocol::blob::{Blob, BlobError};
use countersign_protocol::name::Nonce;

/// `N` random bytes from the operating system.
///
/// # Panics
/// Never on a system that this runs on: getrandom fails only where the kernel lacks it.
#[must_use]
#[expect(
    clippy::panic,
    reason = "without randomness nothing here may be signed"
)]
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

/// Content under a fresh salt.
///
/// # Errors
/// The content is larger than a blob may be.
pub fn blob(content: Vec<u8>) -> Result<Blob, BlobError> {
    Blob::new(random(), content)
}
