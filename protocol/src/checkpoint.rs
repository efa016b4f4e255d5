//! Checkpoints: the ledger's word on its size. C2SP tlog-checkpoint in a C2SP signed note.
//! PROTOCOL 4.
//!
//! ```text
//! <origin>\n<size>\n<base64 root>\n\n— <origin> <base64 (key hash ‖ Ed25519 signature)>\n
//! ```

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer as _, SigningKey};
use serde::{Deserialize, Deserializer, Serialize, de};
use sha2::{Digest as _, Sha256};

use crate::hash::Hash;
use crate::key::{Point, PublicKey};
use crate::merkle::MAX_TREE_SIZE;
use crate::name::MAX_NAME_BYTES;

/// Largest note in bytes: room for a few dozen cosignatures.
pub const MAX_NOTE_BYTES: usize = 16 * 1024;

/// Most signature lines that are looked at, so that a hostile note costs little.
pub const MAX_SIGNATURE_LINES: usize = 64;

/// The signature type of plain Ed25519 in a signed note.
const ED25519: u8 = 0x01;

/// What a signature line begins with: an em dash and a space.
const SIGNATURE_MARK: &str = "\u{2014} ";

/// Names a log in its checkpoints; also the note key's name, so without `+`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Origin(String);

/// Why text is no checkpoint, or none that this key signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// No valid origin.
    #[error("an origin is 1 to 128 characters of A-Z a-z 0-9 . _ @ : / = -")]
    Origin,
    /// No valid verifier key.
    #[error("not a verifier key: expected NAME+HASH+KEY as signed notes have it")]
    VerifierKey,
    /// Too large, or too many signatures.
    #[error("the note is larger than any checkpoint")]
    TooLarge,
    /// Not of a checkpoint's form.
    #[error("the note is malformed: {0}")]
    Malformed(&'static str),
    /// Of another log.
    #[error("the checkpoint is another log's")]
    OtherOrigin,
    /// The known key's signature fails.
    #[error("the checkpoint's signature does not verify")]
    BadSignature,
    /// The known key did not sign.
    #[error("the checkpoint is not signed by the ledger's key")]
    Unsigned,
}

impl Origin {
    /// The origin as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Origin {
    type Err = CheckpointError;

    fn from_str(text: &str) -> Result<Self, CheckpointError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._@:/=-".contains(&b);
        if !(1..=MAX_NAME_BYTES).contains(&text.len()) || !text.bytes().all(allowed) {
            return Err(CheckpointError::Origin);
        }
        Ok(Self(text.to_string()))
    }
}

impl<'de> Deserialize<'de> for Origin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

/// The public half of a checkpoint key, under its log's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    origin: Origin,
    key: Point,
}

impl VerifierKey {
    /// Pairs a log's name with its key; a weak key is refused.
    ///
    /// # Errors
    /// [`CheckpointError::VerifierKey`] for a weak or non-canonical key.
    pub fn new(origin: Origin, key: [u8; 32]) -> Result<Self, CheckpointError> {
        let key = Point::from_bytes(&key).map_err(|_| CheckpointError::VerifierKey)?;
        Ok(Self { origin, key })
    }

    /// The key that a genesis names for its checkpoints.
    ///
    /// # Errors
    /// [`CheckpointError::VerifierKey`] when it is no plain Ed25519 key.
    pub fn of(origin: &Origin, key: &PublicKey) -> Result<Self, CheckpointError> {
        match key {
            PublicKey::Ed25519(key) => Ok(Self {
                origin: origin.clone(),
                key: *key,
            }),
            PublicKey::SkEd25519 { .. } => Err(CheckpointError::VerifierKey),
        }
    }

    /// The log's name.
    #[must_use]
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The 32 bytes of the Ed25519 key.
    #[must_use]
    pub fn key(&self) -> &[u8; 32] {
        self.key.as_bytes()
    }
}

/// `name+hash+base64(0x01 ‖ key)`, as signed notes have it.
impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&vkey(&self.origin, ED25519, &self.key))
    }
}

impl FromStr for VerifierKey {
    type Err = CheckpointError;

    fn from_str(text: &str) -> Result<Self, CheckpointError> {
        let (origin, key) = parse_vkey(text, ED25519).ok_or(CheckpointError::VerifierKey)?;
        Ok(Self { origin, key })
    }
}

/// A key's id in signature lines: first four bytes of SHA-256(name ‖ "\n" ‖ type ‖ key).
pub(crate) fn key_hash(name: &Origin, kind: u8, key: &Point) -> [u8; 4] {
    let digest = Sha256::new()
        .chain_update(name.as_str())
        .chain_update([b'\n', kind])
        .chain_update(key.as_bytes())
        .finalize();
    let [a, b, c, d, ..]: [u8; 32] = digest.into();
    [a, b, c, d]
}

/// A key as signed notes have it: `name+hash+base64(type ‖ key)`.
pub(crate) fn vkey(name: &Origin, kind: u8, key: &Point) -> String {
    let typed: Vec<u8> = [kind].into_iter().chain(*key.as_bytes()).collect();
    let (hash, key) = (
        hex::encode(key_hash(name, kind, key)),
        STANDARD.encode(typed),
    );
    format!("{name}+{hash}+{key}")
}

/// Reads a key of this type in its one legal spelling.
pub(crate) fn parse_vkey(text: &str, kind: u8) -> Option<(Origin, Point)> {
    let (name, rest) = text.split_once('+')?;
    let (_hash, key) = rest.split_once('+')?;
    let typed = STANDARD.decode(key).ok()?;
    let key = typed.strip_prefix(&[kind])?.try_into().ok()?;
    let (name, key) = (name.parse().ok()?, Point::from_bytes(key).ok()?);
    // Comparing the whole text also checks the hash and its one legal spelling.
    (vkey(&name, kind, &key) == text).then_some((name, key))
}

/// A line of a signed note that holds a signature, whoever's it is.
pub(crate) struct SignatureLine<'a> {
    name: &'a str,
    hash: [u8; 4],
    /// What follows the key's id.
    pub(crate) signature: Vec<u8>,
}

impl<'a> SignatureLine<'a> {
    /// Reads a line, without its end.
    pub(crate) fn parse(line: &'a str) -> Result<Self, CheckpointError> {
        let malformed = || CheckpointError::Malformed("a signature line");
        let rest = line.strip_prefix(SIGNATURE_MARK).ok_or_else(malformed)?;
        let (name, signature) = rest.split_once(' ').ok_or_else(malformed)?;
        let bytes = STANDARD.decode(signature).map_err(|_| malformed())?;
        let (hash, signature) = bytes.split_first_chunk::<4>().ok_or_else(malformed)?;
        if name.is_empty() || name.contains('\n') || signature.is_empty() {
            return Err(malformed());
        }
        Ok(Self {
            name,
            hash: *hash,
            signature: signature.to_vec(),
        })
    }

    /// Says whether it claims to be by this key.
    pub(crate) fn is_by(&self, name: &Origin, kind: u8, key: &Point) -> bool {
        self.name == name.as_str() && self.hash == key_hash(name, kind, key)
    }

    /// Writes one, without its end.
    pub(crate) fn write(name: &Origin, kind: u8, key: &Point, signature: &[u8]) -> String {
        let bytes: Vec<u8> = key_hash(name, kind, key)
            .iter()
            .chain(signature)
            .copied()
            .collect();
        format!("{SIGNATURE_MARK}{name} {}", STANDARD.encode(bytes))
    }
}

/// What a checkpoint says, without its signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointBody {
    /// Which log.
    pub origin: Origin,
    /// Number of entries.
    pub size: u64,
    /// Root over them.
    pub root: Hash,
}

/// `<origin>\n<size>\n<base64 root>\n`
impl fmt::Display for CheckpointBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let root = STANDARD.encode(self.root.as_bytes());
        write!(f, "{}\n{}\n{root}\n", self.origin, self.size)
    }
}

impl FromStr for CheckpointBody {
    type Err = CheckpointError;

    fn from_str(text: &str) -> Result<Self, CheckpointError> {
        let mut lines = text.split_terminator('\n');
        let mut line = || {
            lines
                .next()
                .ok_or(CheckpointError::Malformed("a line is missing"))
        };
        let origin = line()?.parse()?;
        let size = line()?
            .parse()
            .map_err(|_| CheckpointError::Malformed("the size"))?;
        let root = STANDARD
            .decode(line()?)
            .ok()
            .and_then(|root| Hash::from_slice(&root));
        let root = root.ok_or(CheckpointError::Malformed("the root"))?;
        let body = Self { origin, size, root };
        // One legal spelling: no sign, no leading zero, no extension line, no missing end.
        if size > MAX_TREE_SIZE || body.to_string() != text {
            return Err(CheckpointError::Malformed("not in its one legal form"));
        }
        Ok(body)
    }
}

/// A checkpoint whose signature by the log's key holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    body: CheckpointBody,
    note: String,
}

impl Checkpoint {
    /// Signs a body.
    #[must_use]
    pub fn sign(body: CheckpointBody, key: &SigningKey) -> Self {
        let text = body.to_string();
        let signature = key.sign(text.as_bytes()).to_bytes();
        let line = SignatureLine::write(&body.origin, ED25519, &Point::from(key), &signature);
        let note = format!("{text}\n{line}\n");
        Self { body, note }
    }

    /// Reads a note and checks the log's signature on it.
    ///
    /// Lines of unknown keys are ignored; one by the known key that fails rejects the note.
    ///
    /// # Errors
    /// See [`CheckpointError`].
    pub fn open(note: &str, key: &VerifierKey) -> Result<Self, CheckpointError> {
        if note.len() > MAX_NOTE_BYTES {
            return Err(CheckpointError::TooLarge);
        }
        let end = note
            .rfind("\n\n")
            .ok_or(CheckpointError::Malformed("no signature"))?;
        let (text, signatures) = note.split_at(end + 1);
        let signatures = signatures
            .strip_prefix('\n')
            .and_then(|lines| lines.strip_suffix('\n'))
            .ok_or(CheckpointError::Malformed("the last line has no end"))?;
        let body: CheckpointBody = text.parse()?;
        if body.origin != key.origin {
            return Err(CheckpointError::OtherOrigin);
        }
        let mut signed = false;
        for (count, line) in signatures.split('\n').enumerate() {
            if count >= MAX_SIGNATURE_LINES {
                return Err(CheckpointError::TooLarge);
            }
            signed |= check_line(line, text, key)?;
        }
        if !signed {
            return Err(CheckpointError::Unsigned);
        }
        Ok(Self {
            body,
            note: note.to_string(),
        })
    }

    /// Number of entries.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.body.size
    }

    /// Root over them.
    #[must_use]
    pub const fn root(&self) -> Hash {
        self.body.root
    }

    /// What it says.
    #[must_use]
    pub const fn body(&self) -> &CheckpointBody {
        &self.body
    }

    /// The lines of all its signatures, without their ends. Only the log's own was checked.
    pub fn signature_lines(&self) -> impl Iterator<Item = &str> {
        let lines = self.note.rsplit_once("\n\n").map_or("", |(_, lines)| lines);
        lines.split_terminator('\n')
    }

    /// The same checkpoint with further signature lines, given without their ends.
    ///
    /// # Errors
    /// [`CheckpointError::TooLarge`], or [`CheckpointError::Malformed`] for what is no such line.
    pub fn with_lines<'a>(
        &self,
        lines: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, CheckpointError> {
        let mut note = self.note.clone();
        let mut count = self.signature_lines().count();
        for line in lines {
            SignatureLine::parse(line)?;
            note.push_str(line);
            note.push('\n');
            count += 1;
        }
        if note.len() > MAX_NOTE_BYTES || count > MAX_SIGNATURE_LINES {
            return Err(CheckpointError::TooLarge);
        }
        let body = self.body.clone();
        Ok(Self { body, note })
    }

    /// The whole note with all its signatures.
    #[must_use]
    pub fn note(&self) -> &str {
        &self.note
    }
}

/// Says whether a signature line is by the known key; an error if so and it fails.
fn check_line(line: &str, text: &str, key: &VerifierKey) -> Result<bool, CheckpointError> {
    let line = SignatureLine::parse(line)?;
    if !line.is_by(&key.origin, ED25519, &key.key) {
        return Ok(false);
    }
    let signature = line.signature.as_slice().try_into();
    let signature = signature.map_err(|_| CheckpointError::BadSignature)?;
    key.key
        .verify(text.as_bytes(), signature)
        .map_err(|_| CheckpointError::BadSignature)?;
    Ok(true)
}
