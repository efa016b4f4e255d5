//! The 32-byte names of things: one newtype a meaning, so that a leaf cannot stand for a key.
//!
//! All of them are SHA-256 values, shown and serialised as 64 lowercase hex digits.
//! This file owns their text form. How each is computed stands where the thing itself lives.

use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

/// The text is not exactly 64 lowercase hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a hash: expected 64 lowercase hex digits")]
pub struct NotAHash;

/// Reads exactly 64 lowercase hex digits.
fn parse_hex(text: &str) -> Result<[u8; 32], NotAHash> {
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(NotAHash);
    }
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| NotAHash)?;
    Ok(bytes)
}

/// The 64 digits, at once: one by one they took an eighth of what a server itself did for a fleet.
fn digits<'a>(bytes: &[u8; 32], room: &'a mut [u8; 64]) -> Result<&'a str, fmt::Error> {
    hex::encode_to_slice(bytes, room).map_err(|_| fmt::Error)?;
    core::str::from_utf8(room).map_err(|_| fmt::Error)
}

/// Reads the digits where they stand in a text, without a copy.
struct Hex;

impl de::Visitor<'_> for Hex {
    type Value = [u8; 32];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        parse_hex(text).map_err(E::custom)
    }
}

macro_rules! hash_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[cfg_attr(feature = "openapi", schema(value_type = String, pattern = "^[0-9a-f]{64}$"))]
        pub struct $name([u8; 32]);

        impl $name {
            /// Takes the bytes as they are; any 32 bytes are a value.
            #[must_use]
            pub const fn new(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The 32 bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// Takes the bytes if there are exactly 32 of them.
            #[must_use]
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(digits(&self.0, &mut [0; 64])?)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = NotAHash;

            fn from_str(text: &str) -> Result<Self, NotAHash> {
                parse_hex(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut room = [0; 64];
                let digits = digits(&self.0, &mut room).map_err(ser::Error::custom)?;
                serializer.serialize_str(digits)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(Hex).map(Self)
            }
        }
    };
}

hash_newtype! {
    /// A node of a Merkle tree: a leaf, an inner node or a root. PROTOCOL 2.
    Hash
}

hash_newtype! {
    /// Names a public key: SHA-256 of its SSH blob, what `ssh-keygen -lf` prints. PROTOCOL 1.
    KeyId
}

hash_newtype! {
    /// Names a statement by its namespace and payload, not its signature. PROTOCOL 1.
    StatementId
}

hash_newtype! {
    /// Names a blob by salt and content. PROTOCOL 3.
    Digest
}

hash_newtype! {
    /// Names a ledger: the leaf of its first entry. PROTOCOL 2.
    LedgerId
}

/// A command is named by the statement that asked for it.
pub type CommandId = StatementId;

impl Hash {
    /// What stands where there is nothing before: `prev` of entry 0.
    pub const ZERO: Self = Self::new([0; 32]);
}

impl StatementId {
    /// What stands where there is nothing before: `agent_prev` of an agent's first statement.
    pub const ZERO: Self = Self::new([0; 32]);
}
