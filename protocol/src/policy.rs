//! The policy in force: a text that a [`Judge`](crate::judgement::Judge) reads. Here it is only
//! bytes with a digest; what it says is the `policy` crate's, and hosts never read it.
//!
//! It is published by the administrators' quorum as an event, so the rules that held at any
//! position are in the log. Until one is published the built-in one is in force.

use alloc::string::String;
use alloc::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::hash::Digest;

/// Longest text in bytes: a thousand rules of a screen's width each, several times over.
pub const MAX_POLICY_BYTES: usize = 1024 * 1024;

/// Domain separation of policy digests.
const PREFIX: &[u8] = b"countersign/policy/v1\n";

/// In force until another is published: whoever holds `command:execute` may ask, which is `admin`
/// alone until it is granted, and two others who hold `command:approve` must agree.
pub const BUILT_IN: &str = "\
// In force until the administrators publish another policy.
@id(\"built-in\")
@approvals(\"2\")
permit (
    principal in Permission::\"command:execute\",
    action == Action::\"command:execute\",
    resource
);
";

/// A policy's text: Cedar, UTF-8. Clones share it: rights are cloned at each step of the lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy(Arc<str>);

/// The text is too long for a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a policy has at most 1 MiB")]
pub struct TooLong;

/// Which policy an approval or authorization was made under. PROTOCOL 6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyRef {
    /// [`Policy::digest`].
    pub digest: Digest,
    /// Where it was published; 0 for the built-in one.
    pub seq: u64,
}

impl Policy {
    /// Takes a text. Whether it makes sense is the judge's to say.
    ///
    /// # Errors
    /// Over [`MAX_POLICY_BYTES`].
    pub fn new(text: String) -> Result<Self, TooLong> {
        if text.len() > MAX_POLICY_BYTES {
            return Err(TooLong);
        }
        Ok(Self(text.into()))
    }

    /// [`BUILT_IN`].
    #[must_use]
    pub fn built_in() -> Self {
        Self(BUILT_IN.into())
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }

    /// SHA-256 over the text, with a prefix of its own.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let digest = Sha256::new()
            .chain_update(PREFIX)
            .chain_update(self.0.as_bytes())
            .finalize();
        Digest::new(digest.into())
    }
}
