//! The secret of an API token: its text, and the digest that the log holds of it; and what a
//! caller's own id becomes in the log.
//!
//! `cst_<token id>_<base64url of 32 bytes>`. The log holds SHA-256("countersign/token/v1\n" ‖ the 32
//! bytes): they are random, so that the digest gives nothing away.

use alloc::format;
use alloc::string::String;
use core::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use crate::hash::Digest;
use crate::name::{Principal, TokenId};

/// Domain separation of the digest.
const PREFIX: &[u8] = b"countersign/token/v1\n";

/// Keeps callers' own ids apart from every other digest.
const REFERENCE_PREFIX: &[u8] = b"countersign/execution-id/v1\n";

/// The `client_ref` of a caller's own id: of one principal, and of one command for ever.
#[must_use]
pub fn reference(principal: &Principal, execution_id: &str) -> Digest {
    let digest = Sha256::new()
        .chain_update(REFERENCE_PREFIX)
        .chain_update(principal.as_str())
        .chain_update(b"\n")
        .chain_update(execution_id)
        .finalize();
    Digest::new(digest.into())
}

/// What every secret's text begins with, so that scanners for leaked secrets can find one.
const MARK: &str = "cst_";

/// Characters of 32 bytes in base64url without padding.
const SECRET_CHARS: usize = 43;

/// A token's secret. Never shown but by [`TokenSecret::reveal`].
#[derive(Clone, PartialEq, Eq)]
pub struct TokenSecret {
    id: TokenId,
    bytes: [u8; 32],
}

/// Never the secret itself.
impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenSecret")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl TokenSecret {
    /// Takes bytes that the caller drew at random.
    #[must_use]
    pub const fn new(id: TokenId, bytes: [u8; 32]) -> Self {
        Self { id, bytes }
    }

    /// Reads the text; nothing when it is no token's secret.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(MARK)?;
        let (id, secret) = rest.split_at_checked(rest.len().checked_sub(SECRET_CHARS)?)?;
        let bytes = URL_SAFE_NO_PAD.decode(secret).ok()?;
        Some(Self {
            id: id.strip_suffix('_')?.parse().ok()?,
            bytes: bytes.try_into().ok()?,
        })
    }

    /// The text, for its holder and nobody else.
    #[must_use]
    pub fn reveal(&self) -> String {
        format!("{MARK}{}_{}", self.id, URL_SAFE_NO_PAD.encode(self.bytes))
    }

    /// The token's public name.
    #[must_use]
    pub const fn id(&self) -> &TokenId {
        &self.id
    }

    /// What the log holds of it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let digest = Sha256::new()
            .chain_update(PREFIX)
            .chain_update(self.bytes)
            .finalize();
        Digest::new(digest.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_as_it_was_written_also_with_marks_in_it() {
        for byte in [0, 0xff, 0x5a] {
            let secret = TokenSecret::new("ci_deploy-1".parse().unwrap(), [byte; 32]);
            let text = secret.reveal();
            assert_eq!(TokenSecret::parse(&text), Some(secret.clone()));
            assert!(!format!("{secret:?}").contains(text.rsplit('_').next().unwrap()));
        }
        for bad in [
            "",
            "cst_",
            "cst_a_short",
            "abc_x_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        ] {
            assert_eq!(TokenSecret::parse(bad), None, "{bad}");
        }
    }
}
