//! The rule in force: who may ask, who may approve, how many must.
//!
//! A first, small policy: one rule for every command. It is published by the administrators'
//! quorum as an event, so the rule that held at any position is in the log.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::canonical::{self, CanonicalError};
use crate::hash::Digest;
use crate::name::Principal;

/// Most names in one list, so that a policy and the requirement made of it fit into a payload.
pub const MAX_NAMES: usize = 48;

/// Domain separation of policy digests.
const PREFIX: &[u8] = b"countersign/policy/v1\n";

/// Who may ask for a command and what it takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// How many distinct people must approve; at least 1.
    pub approvals: u32,
    /// Who may request, sorted, each once.
    pub may_request: Vec<Principal>,
    /// Who may approve and reject, sorted, each once.
    pub may_approve: Vec<Principal>,
}

/// Why a policy is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// No approval at all: absence never means yes.
    #[error("a policy asks for at least one approval")]
    NoApproval,
    /// More approvals than people who may give one.
    #[error("the policy asks for more approvals than it names approvers")]
    Unreachable,
    /// A list is empty, too long, unsorted or names someone twice.
    #[error("names in a policy are 1 to 48 a list, sorted, each once")]
    Names,
}

/// Which policy an approval or authorization was made under. PROTOCOL 6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyRef {
    /// [`Policy::digest`].
    pub digest: Digest,
    /// Where it was published.
    pub seq: u64,
}

impl Policy {
    /// Checks that the policy can be met and that its lists are in order.
    ///
    /// # Errors
    /// See [`PolicyError`].
    pub fn check(&self) -> Result<(), PolicyError> {
        if self.approvals == 0 {
            return Err(PolicyError::NoApproval);
        }
        for names in [&self.may_request, &self.may_approve] {
            let sorted = names.iter().zip(names.iter().skip(1)).all(|(a, b)| a < b);
            if names.is_empty() || names.len() > MAX_NAMES || !sorted {
                return Err(PolicyError::Names);
            }
        }
        if self.may_approve.len() < self.approvals as usize {
            return Err(PolicyError::Unreachable);
        }
        Ok(())
    }

    /// SHA-256 over the canonical form, with a prefix of its own.
    ///
    /// # Errors
    /// A value that canonical JSON has no form for.
    pub fn digest(&self) -> Result<Digest, CanonicalError> {
        let digest = Sha256::new()
            .chain_update(PREFIX)
            .chain_update(canonical::to_vec(self)?)
            .finalize();
        Ok(Digest::new(digest.into()))
    }
}
