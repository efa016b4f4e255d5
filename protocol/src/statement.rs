//! A statement: what one party says, and the proof that it did. PROTOCOL 1.
//!
//! [`Statement`] is bytes that anyone may have sent. [`Verified`] is one whose signature, bytes and
//! shape were checked; only [`Statement::verify`] makes it. Whether its key may say such a thing at
//! its position is the fold's question ([`crate::rights`]).

use alloc::vec::Vec;

use sha2::{Digest as _, Sha256};

use crate::event::{Event, EventError, Kind};
use crate::hash::StatementId;
use crate::key::{KeyError, KeysRead, PublicKey};
use crate::sshsig::{SignatureFacts, SshSig, SshSigError};

/// Domain separation of statement ids.
const ID_PREFIX: &[u8] = b"countersign/statement/v1\n";

/// One party's words: kind, payload and signature, as they came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Its kind, which fixes the namespace.
    pub kind: Kind,
    /// Canonical JSON.
    pub payload: Vec<u8>,
    /// The binary SSHSIG blob.
    pub signature: Vec<u8>,
}

/// Why a statement is not what it claims to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// The payload or its namespace.
    #[error(transparent)]
    Event(#[from] EventError),
    /// The signature.
    #[error("the signature does not verify: {0}")]
    Signature(#[from] SshSigError),
    /// The payload names another key than the one that signed: somebody else's words.
    #[error("the payload's signer is not the key that signed")]
    Signer,
}

/// A statement whose bytes, shape and signature hold.
#[derive(Debug, Clone)]
pub struct Verified {
    statement: Statement,
    event: Event,
    id: StatementId,
    key: PublicKey,
    facts: SignatureFacts,
}

/// The id of the statement with this namespace and payload.
#[must_use]
pub fn statement_id(kind: Kind, payload: &[u8]) -> StatementId {
    let namespace = kind.namespace();
    let digest = Sha256::new()
        .chain_update(ID_PREFIX)
        .chain_update(
            u16::try_from(namespace.len())
                .unwrap_or(u16::MAX)
                .to_be_bytes(),
        )
        .chain_update(namespace)
        .chain_update(
            u32::try_from(payload.len())
                .unwrap_or(u32::MAX)
                .to_be_bytes(),
        )
        .chain_update(payload)
        .finalize();
    StatementId::new(digest.into())
}

impl Statement {
    /// The id: namespace and payload, not the signature.
    #[must_use]
    pub fn id(&self) -> StatementId {
        statement_id(self.kind, &self.payload)
    }

    /// Encodes and signs an event with a key held in software: the ledger's, an agent's.
    ///
    /// # Errors
    /// The event has no canonical form, or its `signer` is another key.
    pub fn sign(event: &Event, key: &ed25519_dalek::SigningKey) -> Result<Self, StatementError> {
        let kind = event.kind();
        let payload = event.to_payload()?;
        let signature = crate::sshsig::sign(key, kind.namespace(), &payload);
        if signature.key().key_id() != event.header().signer {
            return Err(StatementError::Signer);
        }
        Ok(Self {
            kind,
            payload,
            signature: signature.to_blob(),
        })
    }

    /// Verifies the signature, then parses the same bytes.
    ///
    /// # Errors
    /// See [`StatementError`].
    pub fn verify(self) -> Result<Verified, StatementError> {
        self.verify_by(PublicKey::from_blob)
    }

    /// [`Statement::verify`] for one of many: a key that signed several of them is read once.
    ///
    /// # Errors
    /// See [`StatementError`].
    pub fn verify_among(self, keys: &mut KeysRead) -> Result<Verified, StatementError> {
        self.verify_by(|blob| keys.read(blob))
    }

    fn verify_by(
        self,
        read: impl FnOnce(&[u8]) -> Result<PublicKey, KeyError>,
    ) -> Result<Verified, StatementError> {
        let signature = SshSig::from_blob_by(&self.signature, read)?;
        let facts = signature.verify(self.kind.namespace(), &self.payload)?;
        let event = Event::parse(self.kind, &self.payload)?;
        if event.header().signer != facts.key_id {
            return Err(StatementError::Signer);
        }
        let id = self.id();
        Ok(Verified {
            statement: self,
            event,
            id,
            key: signature.key().clone(),
            facts,
        })
    }
}

impl Verified {
    /// The bytes.
    #[must_use]
    pub const fn statement(&self) -> &Statement {
        &self.statement
    }

    /// What it says.
    #[must_use]
    pub const fn event(&self) -> &Event {
        &self.event
    }

    /// Its id.
    #[must_use]
    pub const fn id(&self) -> StatementId {
        self.id
    }

    /// The key inside the signature: a claim, until the fold knows it.
    #[must_use]
    pub const fn key(&self) -> &PublicKey {
        &self.key
    }

    /// What the signature itself says: touch, user verification, counter.
    pub const fn facts(&self) -> &SignatureFacts {
        &self.facts
    }
}
