//! An entry: a statement in its place. Its bytes are the truth; all else is derived. PROTOCOL 2.

use alloc::vec::Vec;

use crate::event::{EventError, Kind};
use crate::hash::{Hash, KeyId};
use crate::merkle;
use crate::name::Time;
use crate::statement::Statement;

/// Largest entry in bytes: payload, signature and head together stay below it.
pub const MAX_ENTRY_BYTES: usize = 32 * 1024;

/// What every entry begins with.
pub const PREFIX: &[u8] = b"countersign/entry/v1\n";

/// A statement, where it stands and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Position, from 0, without gaps.
    pub seq: u64,
    /// The ledger's clock; never decreasing.
    pub time: Time,
    /// Leaf of the entry before; zeros for the first.
    pub prev: Hash,
    /// The key that signed; equals the statement's.
    pub key_id: KeyId,
    /// What was said.
    pub statement: Statement,
}

/// Why bytes are no entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// More than [`MAX_ENTRY_BYTES`].
    #[error("an entry has at most 32 KiB, this has {0} bytes")]
    TooLarge(usize),
    /// They do not begin as an entry does.
    #[error("the bytes do not begin as an entry")]
    Prefix,
    /// They end before the entry does.
    #[error("the entry is cut short")]
    Short,
    /// They go on after the entry's end.
    #[error("bytes follow the end of the entry")]
    Trailing,
    /// The time is past the largest that there is.
    #[error("the entry's time is out of range")]
    Time,
    /// The namespace is none of ours.
    #[error(transparent)]
    Kind(#[from] EventError),
}

/// Takes fields off the front of a buffer.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], EntryError> {
        let (field, rest) = self.0.split_at_checked(len).ok_or(EntryError::Short)?;
        self.0 = rest;
        Ok(field)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], EntryError> {
        self.take(N)?.try_into().map_err(|_| EntryError::Short)
    }

    fn u64(&mut self) -> Result<u64, EntryError> {
        self.array().map(u64::from_be_bytes)
    }

    fn long(&mut self) -> Result<&'a [u8], EntryError> {
        let len = u32::from_be_bytes(self.array()?);
        self.take(len as usize)
    }
}

impl Entry {
    /// The entry's bytes.
    ///
    /// # Errors
    /// [`EntryError::TooLarge`] past [`MAX_ENTRY_BYTES`].
    pub fn encode(&self) -> Result<Vec<u8>, EntryError> {
        let namespace = self.statement.kind.namespace().as_bytes();
        let Statement {
            payload, signature, ..
        } = &self.statement;
        let len = PREFIX.len() + 90 + namespace.len() + payload.len() + signature.len();
        if len > MAX_ENTRY_BYTES {
            return Err(EntryError::TooLarge(len));
        }
        let short = |n: usize| u16::try_from(n).unwrap_or(u16::MAX).to_be_bytes();
        let long = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).to_be_bytes();
        let mut bytes = Vec::with_capacity(len);
        bytes.extend_from_slice(PREFIX);
        bytes.extend_from_slice(&self.seq.to_be_bytes());
        bytes.extend_from_slice(&self.time.as_micros().to_be_bytes());
        bytes.extend_from_slice(self.prev.as_bytes());
        bytes.extend_from_slice(self.key_id.as_bytes());
        bytes.extend_from_slice(&short(namespace.len()));
        bytes.extend_from_slice(namespace);
        bytes.extend_from_slice(&long(payload.len()));
        bytes.extend_from_slice(payload);
        bytes.extend_from_slice(&long(signature.len()));
        bytes.extend_from_slice(signature);
        Ok(bytes)
    }

    /// Reads an entry: exactly these bytes, no more and no fewer.
    ///
    /// # Errors
    /// See [`EntryError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, EntryError> {
        if bytes.len() > MAX_ENTRY_BYTES {
            return Err(EntryError::TooLarge(bytes.len()));
        }
        let mut fields = Fields(bytes.strip_prefix(PREFIX).ok_or(EntryError::Prefix)?);
        let seq = fields.u64()?;
        let time = Time::from_micros(fields.u64()?).ok_or(EntryError::Time)?;
        let prev = Hash::new(fields.array()?);
        let key_id = KeyId::new(fields.array()?);
        let len = u16::from_be_bytes(fields.array()?);
        let namespace = fields.take(len.into())?;
        let kind = core::str::from_utf8(namespace)
            .map_err(|_| EventError::Namespace(alloc::format!("{namespace:02x?}")))
            .and_then(Kind::from_namespace)?;
        let payload = fields.long()?.to_vec();
        let signature = fields.long()?.to_vec();
        if !fields.0.is_empty() {
            return Err(EntryError::Trailing);
        }
        Ok(Self {
            seq,
            time,
            prev,
            key_id,
            statement: Statement {
                kind,
                payload,
                signature,
            },
        })
    }
}

/// Chain link and Merkle leaf of an entry's bytes: they are one hash.
#[must_use]
pub fn leaf(bytes: &[u8]) -> Hash {
    merkle::leaf_hash(bytes)
}
