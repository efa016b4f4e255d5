//! Public keys as SSH has them, parsed once into keys that are safe to verify with.
//!
//! Weak keys never become a [`PublicKey`]: with a key of small order a signature can be made that
//! passes lax verifiers for *every* message. PROTOCOL 1.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Ordering;
use core::fmt;
use core::hash::{Hash, Hasher};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use ed25519_dalek::{Signature, SigningKey, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256};

use crate::hash::KeyId;
use crate::wire::{Malformed, Reader, put_string};

const ED25519: &str = "ssh-ed25519";
const SK_ED25519: &str = "sk-ssh-ed25519@openssh.com";

/// The application that OpenSSH gives to its security keys. Others would belong to web sites.
pub const SK_APPLICATION: &str = "ssh:";

/// Largest SSH key blob or key file in bytes; an Ed25519 one is far smaller.
const MAX_KEY_BYTES: usize = 4096;

/// Most keys that are kept while entries are read: some 100 KiB, and more than sign one page.
const MAX_KEYS_READ: usize = 256;

/// A key that may sign statements.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PublicKey {
    /// `ssh-ed25519`
    Ed25519(Point),
    /// `sk-ssh-ed25519@openssh.com`: held by a security key that wants to be touched.
    SkEd25519 {
        /// The Ed25519 key.
        key: Point,
    },
}

impl From<&SigningKey> for Point {
    /// A key made from its secret is never weak, and always in its legal encoding.
    fn from(key: &SigningKey) -> Self {
        Self(key.verifying_key())
    }
}

/// A point of the curve by which signatures may be checked: not weak, and in its one legal encoding.
///
/// It is decompressed once, when it is read: that is a tenth of a whole verification.
#[derive(Clone, Copy)]
pub struct Point(VerifyingKey);

impl Point {
    /// Reads the 32 bytes of an Ed25519 public key.
    ///
    /// # Errors
    /// [`KeyError::NotCanonical`], [`KeyError::Weak`].
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, KeyError> {
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| KeyError::NotCanonical)?;
        if !is_reduced(bytes) {
            return Err(KeyError::NotCanonical);
        }
        if key.is_weak() {
            Err(KeyError::Weak)
        } else {
            Ok(Self(key))
        }
    }

    /// The 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// The only way in which an Ed25519 signature is checked: strictly.
    pub(crate) fn verify(&self, message: &[u8], signature: &[u8; 64]) -> Result<(), KeyError> {
        self.0
            .verify_strict(message, &Signature::from_bytes(signature))
            .map_err(|_| KeyError::Malformed)
    }
}

impl PartialEq for Point {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Point {}

impl PartialOrd for Point {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Point {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl Hash for Point {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl fmt::Debug for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes()
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Why bytes are no key that we take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not SSH's encoding of a key.
    #[error("not an SSH key")]
    Malformed,
    /// A kind of key that is not taken.
    #[error("this kind of key is not accepted; use ssh-ed25519 or sk-ssh-ed25519@openssh.com")]
    Unsupported,
    /// Of small order: signatures by it prove nothing.
    #[error("this key is weak: anyone could sign with it")]
    Weak,
    /// Not in the one legal encoding of a point on the curve.
    #[error("this key is not a canonical point of the curve")]
    NotCanonical,
    /// A security key of another application.
    #[error("this security key was made for another application than \"ssh:\"")]
    Application,
    /// The private key is encrypted; a service cannot ask for a passphrase.
    #[error("the private key is encrypted; this one must be stored without a passphrase")]
    Encrypted,
}

impl From<Malformed> for KeyError {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// Says whether y is below p = 2^255 - 19: decoding reduces it modulo p and would take both.
///
/// The other second spelling, a sign on x = 0, exists for y = 1 and y = -1 alone: two points of
/// small order, refused as weak. So no point needs to be encoded again, which costs a tenth of a
/// whole verification.
fn is_reduced(bytes: &[u8; 32]) -> bool {
    let [low, middle @ .., high] = bytes;
    high & 0x7f != 0x7f || middle.iter().any(|byte| *byte != 0xff) || *low < 0xed
}

impl PublicKey {
    /// The public half of a software key.
    #[must_use]
    pub fn of(key: &SigningKey) -> Self {
        Self::Ed25519(Point::from(key))
    }

    /// Reads SSH's key blob.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn from_blob(blob: &[u8]) -> Result<Self, KeyError> {
        if blob.len() > MAX_KEY_BYTES {
            return Err(KeyError::Malformed);
        }
        let mut fields = Reader(blob);
        let kind = fields.string()?;
        let is_sk = kind == SK_ED25519.as_bytes();
        if !is_sk && kind != ED25519.as_bytes() {
            return Err(KeyError::Unsupported);
        }
        let key: [u8; 32] = fields
            .string()?
            .try_into()
            .map_err(|_| KeyError::Malformed)?;
        let application = if is_sk { Some(fields.string()?) } else { None };
        fields.end()?;
        let key = Point::from_bytes(&key)?;
        match application {
            None => Ok(Self::Ed25519(key)),
            Some(name) if name == SK_APPLICATION.as_bytes() => Ok(Self::SkEd25519 { key }),
            Some(_) => Err(KeyError::Application),
        }
    }

    /// SSH's key blob.
    #[must_use]
    pub fn to_blob(&self) -> Vec<u8> {
        let mut blob = Vec::new();
        put_string(&mut blob, self.kind().as_bytes());
        match self {
            Self::Ed25519(key) => put_string(&mut blob, key.as_bytes()),
            Self::SkEd25519 { key } => {
                put_string(&mut blob, key.as_bytes());
                put_string(&mut blob, SK_APPLICATION.as_bytes());
            }
        }
        blob
    }

    /// `ssh-ed25519`, or the name of the security key's kind.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Ed25519(_) => ED25519,
            Self::SkEd25519 { .. } => SK_ED25519,
        }
    }

    /// SHA-256 of the blob: what `ssh-keygen -lf` prints.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        KeyId::new(Sha256::digest(self.to_blob()).into())
    }

    /// Reads the line of a `.pub` file: kind, base64 and, if there is one, a comment.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn from_openssh(line: &str) -> Result<Self, KeyError> {
        let mut words = line.split_ascii_whitespace();
        let (Some(kind), Some(blob)) = (words.next(), words.next()) else {
            return Err(KeyError::Malformed);
        };
        if kind != ED25519 && kind != SK_ED25519 {
            return Err(KeyError::Unsupported);
        }
        let key = Self::from_blob(&STANDARD.decode(blob).map_err(|_| KeyError::Malformed)?)?;
        if key.kind() == kind {
            Ok(key)
        } else {
            Err(KeyError::Malformed)
        }
    }

    /// The line of a `.pub` file, without a comment.
    #[must_use]
    pub fn to_openssh(&self) -> String {
        format!("{} {}", self.kind(), STANDARD.encode(self.to_blob()))
    }
}

/// Keys as they were read from their blobs before. The entries of a page are signed by few, and to read
/// a key is a tenth of a whole verification.
#[derive(Debug, Default)]
pub struct KeysRead(BTreeMap<Vec<u8>, PublicKey>);

impl KeysRead {
    /// [`PublicKey::from_blob`], once for each blob. What is no key is looked at each time.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn read(&mut self, blob: &[u8]) -> Result<PublicKey, KeyError> {
        if let Some(key) = self.0.get(blob) {
            return Ok(key.clone());
        }
        let key = PublicKey::from_blob(blob)?;
        if self.0.len() < MAX_KEYS_READ {
            self.0.insert(blob.to_vec(), key.clone());
        }
        Ok(key)
    }
}

/// The key id as people compare it: `SHA256:…`, as `ssh-keygen -lf` shows it.
#[must_use]
pub fn fingerprint(id: &KeyId) -> String {
    format!("SHA256:{}", STANDARD_NO_PAD.encode(id.as_bytes()))
}

/// The base64 of the blob.
impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(self.to_blob()))
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let blob = STANDARD
            .decode(text)
            .map_err(|_| de::Error::custom(KeyError::Malformed))?;
        Self::from_blob(&blob).map_err(de::Error::custom)
    }
}

const PEM_BEGIN: &str = "-----BEGIN OPENSSH PRIVATE KEY-----";
const PEM_END: &str = "-----END OPENSSH PRIVATE KEY-----";
const PRIVATE_MAGIC: &[u8] = b"openssh-key-v1\0";

/// Writes an unencrypted OpenSSH private key file, for keys that services hold.
///
/// `check` is any random number; the format repeats it to notice a wrong passphrase.
#[must_use]
pub fn to_openssh_private(key: &SigningKey, comment: &str, check: u32) -> String {
    let public = PublicKey::of(key);
    let point = key.verifying_key().to_bytes();
    let mut secret = Vec::new();
    secret.extend_from_slice(&check.to_be_bytes());
    secret.extend_from_slice(&check.to_be_bytes());
    put_string(&mut secret, ED25519.as_bytes());
    put_string(&mut secret, &point);
    put_string(&mut secret, &[key.to_bytes(), point].concat());
    put_string(&mut secret, comment.as_bytes());
    // Padded with 1, 2, 3… to a multiple of eight.
    secret.extend((1..=8_u8).take((8 - secret.len() % 8) % 8));
    let mut file = PRIVATE_MAGIC.to_vec();
    put_string(&mut file, b"none");
    put_string(&mut file, b"none");
    put_string(&mut file, b"");
    file.extend_from_slice(&1_u32.to_be_bytes());
    put_string(&mut file, &public.to_blob());
    put_string(&mut file, &secret);
    format!("{PEM_BEGIN}\n{}\n{PEM_END}\n", armour(&file))
}

/// Reads an unencrypted OpenSSH private key file of an `ssh-ed25519` key.
///
/// # Errors
/// See [`KeyError`].
pub fn from_openssh_private(text: &str) -> Result<SigningKey, KeyError> {
    let file = unarmour(text, PEM_BEGIN, PEM_END).ok_or(KeyError::Malformed)?;
    let mut fields = Reader(
        file.strip_prefix(PRIVATE_MAGIC)
            .ok_or(KeyError::Malformed)?,
    );
    if fields.string()? != b"none" {
        return Err(KeyError::Encrypted);
    }
    fields.string()?;
    fields.string()?;
    if fields.u32()? != 1 {
        return Err(KeyError::Unsupported);
    }
    let public = PublicKey::from_blob(fields.string()?)?;
    let mut secret = Reader(fields.string()?);
    fields.end()?;
    let (first, second) = (secret.u32()?, secret.u32()?);
    if first != second || secret.string()? != ED25519.as_bytes() {
        return Err(KeyError::Unsupported);
    }
    secret.string()?;
    let (seed, _point) = secret
        .string()?
        .split_at_checked(32)
        .ok_or(KeyError::Malformed)?;
    let key = SigningKey::from_bytes(seed.try_into().map_err(|_| KeyError::Malformed)?);
    if PublicKey::of(&key) == public {
        Ok(key)
    } else {
        Err(KeyError::Malformed)
    }
}

/// Base64 in lines of 70, as OpenSSH writes it.
pub(crate) fn armour(bytes: &[u8]) -> String {
    let text = STANDARD.encode(bytes);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(70)
        .filter_map(|line| core::str::from_utf8(line).ok())
        .collect();
    lines.join("\n")
}

/// The bytes between two marks, if the text is of that form and not overlong.
pub(crate) fn unarmour(text: &str, begin: &str, end: &str) -> Option<Vec<u8>> {
    let body = text.trim().strip_prefix(begin)?.strip_suffix(end)?;
    if body.len() > 4 * MAX_KEY_BYTES {
        return None;
    }
    let joined: String = body.split_ascii_whitespace().collect::<Vec<_>>().concat();
    STANDARD.decode(&joined).ok()
}

#[cfg(test)]
mod canonical_points {
    use super::*;

    /// p + n, little-endian, with or without the sign.
    fn beyond(n: u8, sign: bool) -> [u8; 32] {
        let mut bytes = [0xff; 32];
        bytes[0] = 0xed + n;
        bytes[31] = if sign { 0xff } else { 0x7f };
        bytes
    }

    #[test]
    fn every_second_spelling_of_a_point_is_refused() {
        for n in 0..19 {
            for sign in [false, true] {
                assert!(Point::from_bytes(&beyond(n, sign)).is_err(), "p + {n}");
            }
        }
        // x = 0 with a sign: y = 1, and y = p - 1.
        let mut one = [0; 32];
        (one[0], one[31]) = (1, 0x80);
        let mut minus_one = [0xff; 32];
        minus_one[0] = 0xec;
        assert!(Point::from_bytes(&one).is_err());
        assert!(Point::from_bytes(&minus_one).is_err());
    }

    #[test]
    fn the_short_check_agrees_with_encoding_again() {
        let mut bytes = [0xff_u8; 32];
        bytes[31] = 0x7f;
        for low in 0..=255 {
            for sign in [0, 0x80] {
                bytes[0] = low;
                bytes[31] = 0x7f | sign;
                let Ok(key) = VerifyingKey::from_bytes(&bytes) else {
                    continue;
                };
                let same = key.to_edwards().compress().as_bytes() == &bytes;
                assert_eq!(
                    Point::from_bytes(&bytes).is_ok(),
                    same && !key.is_weak(),
                    "{low}"
                );
            }
        }
    }
}
