//! Sealed secrets: values that a request hands to its run, and that only the hosts it names can read.
//!
//! It owns the form: what is encrypted, to what the encryption is bound, the commitment to a value,
//! and the document behind [`Act::secrets`]. The encryption itself is the sealing crate's. Nothing
//! here holds a value longer than its caller does. PROTOCOL 14.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256};

use crate::api::Base64;
use crate::blob::MAX_BLOB_BYTES;
use crate::canonical::{self, CanonicalError};
use crate::command::Act;
use crate::event::CommandRequested;
use crate::hash::{Digest, KeyId, LedgerId};
use crate::name::Nonce;
use crate::target::TargetList;
use crate::wire;

/// Most secrets of one request: each is looked for in every byte of the output.
pub const MAX_SECRETS: usize = 16;

/// The longest value: keys and certificate chains fit, archives do not.
pub const MAX_SECRET_BYTES: usize = 64 * 1024;

/// The shortest value: a shorter one stands in ordinary output by chance, and could not be masked
/// without telling what it is.
pub const MIN_SECRET_BYTES: usize = 8;

/// The longest name.
pub const MAX_SECRET_NAME_BYTES: usize = 64;

/// A plaintext is as long as a multiple of this, so that its box tells a value's length only roughly.
pub const SECRET_PAD_BYTES: usize = 256;

/// Bytes before the value: its salt and its length.
const HEAD_BYTES: usize = 32 + 4;

/// What the cipher adds to a plaintext: the tag of ChaCha20-Poly1305.
pub const SEAL_TAG_BYTES: usize = 16;

/// To what a box is bound begins with this.
const CONTEXT_PREFIX: &[u8] = b"countersign/secret/v1\n";

/// A commitment to a value begins with this.
const VALUE_PREFIX: &[u8] = b"countersign/secret-value/v1\n";

/// The nonce of a request for an API token begins with this, before it is hashed.
const TOKEN_NONCE_PREFIX: &[u8] = b"countersign/token-nonce/v1\n";

/// The nonce of a request with secrets that the gateway signs for an API token. It follows from the
/// request's `client_ref`, so whoever seals knows it beforehand; and since that stands for one
/// command for ever, the gateway's key takes the boxes into no second request, though it signs for
/// everybody.
#[must_use]
pub fn token_nonce(client_ref: &Digest) -> Nonce {
    let digest: [u8; 32] = Sha256::new()
        .chain_update(TOKEN_NONCE_PREFIX)
        .chain_update(client_ref.as_bytes())
        .finalize()
        .into();
    let mut nonce = [0; 16];
    for (byte, drawn) in nonce.iter_mut().zip(digest) {
        *byte = drawn;
    }
    Nonce::new(nonce)
}

/// What a secret is called: a file, or a variable. `[A-Za-z0-9_]` first, then also `.` and `-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct SecretName(String);

/// The text is no secret's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a secret's name is 1 to 64 characters of A-Z a-z 0-9 _ . - and begins with a letter, a digit or _"
)]
pub struct NotASecretName;

impl SecretName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a shell could name a variable so.
    #[must_use]
    pub fn is_variable(&self) -> bool {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        self.0.bytes().all(plain) && !self.0.starts_with(|c: char| c.is_ascii_digit())
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SecretName {
    type Err = NotASecretName;

    fn from_str(text: &str) -> Result<Self, NotASecretName> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let begins = text.bytes().next().is_some_and(plain);
        let legal = text.bytes().all(|b| plain(b) || b == b'.' || b == b'-');
        if begins && legal && text.len() <= MAX_SECRET_NAME_BYTES {
            Ok(Self(text.into()))
        } else {
            Err(NotASecretName)
        }
    }
}

impl<'de> Deserialize<'de> for SecretName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// An X25519 public key that secrets for an agent are sealed to: 32 bytes, in base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealingKey([u8; 32]);

impl SealingKey {
    /// Takes the key's bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key's bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Serialize for SealingKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(self.0))
    }
}

impl<'de> Deserialize<'de> for SealingKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = Base64::deserialize(deserializer)?.0;
        let bytes = bytes.try_into();
        bytes
            .map(Self)
            .map_err(|_| de::Error::custom("a sealing key has 32 bytes"))
    }
}

/// How a run gets a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// As a file of its own, in a folder that only the run's user can enter.
    File,
    /// As an environment variable.
    Env,
    /// As standard input.
    Stdin,
}

impl Delivery {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Env => "env",
            Self::Stdin => "stdin",
        }
    }
}

/// To what a box is bound. In any other place than this one it does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding {
    /// The ledger that the request is for.
    pub ledger: LedgerId,
    /// The agent that may open it, by its signing key.
    pub agent: KeyId,
    /// Whoever signs the request: nobody else can put the box into a request of their own, not even
    /// one with the same nonce.
    pub requester: KeyId,
    /// The request's nonce.
    pub nonce: Nonce,
}

impl Binding {
    /// The bytes that go into the encryption as `info`.
    #[must_use]
    pub fn context(&self, name: &SecretName) -> Vec<u8> {
        let mut out = CONTEXT_PREFIX.to_vec();
        out.extend_from_slice(self.ledger.as_bytes());
        out.extend_from_slice(self.agent.as_bytes());
        out.extend_from_slice(self.requester.as_bytes());
        out.extend_from_slice(self.nonce.as_bytes());
        wire::put_string(&mut out, name.as_str().as_bytes());
        out
    }
}

/// The commitment to a value. The salt is sealed with it, so nobody can guess a value and compare.
#[must_use]
pub fn commitment(salt: &[u8; 32], value: &[u8]) -> Digest {
    let digest = Sha256::new()
        .chain_update(VALUE_PREFIX)
        .chain_update(salt)
        .chain_update(value)
        .finalize();
    Digest::new(digest.into())
}

/// What is encrypted: salt, length, value, zeros. Whoever holds it wipes it.
///
/// # Errors
/// [`SecretError::Length`].
pub fn plaintext(salt: &[u8; 32], value: &[u8]) -> Result<Vec<u8>, SecretError> {
    check_length(value.len())?;
    let length = u32::try_from(value.len()).map_err(|_| SecretError::Length)?;
    // All of it at once: a buffer that grows leaves copies behind.
    let mut out = Vec::with_capacity(padded(value.len()));
    out.extend_from_slice(salt);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(value);
    out.resize(padded(value.len()), 0);
    Ok(out)
}

/// Salt and value of a plaintext.
///
/// # Errors
/// Another form than [`plaintext`] gives.
pub fn parse_plaintext(plaintext: &[u8]) -> Result<(&[u8; 32], &[u8]), SecretError> {
    let (salt, rest) = plaintext
        .split_first_chunk::<32>()
        .ok_or(SecretError::Form)?;
    let (length, rest) = rest.split_first_chunk::<4>().ok_or(SecretError::Form)?;
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| SecretError::Form)?;
    check_length(length)?;
    let (value, padding) = rest.split_at_checked(length).ok_or(SecretError::Form)?;
    let fits = plaintext.len() == padded(length) && padding.iter().all(|byte| *byte == 0);
    if fits {
        Ok((salt, value))
    } else {
        Err(SecretError::Form)
    }
}

const fn padded(length: usize) -> usize {
    (HEAD_BYTES + length).next_multiple_of(SECRET_PAD_BYTES)
}

fn check_length(length: usize) -> Result<(), SecretError> {
    if (MIN_SECRET_BYTES..=MAX_SECRET_BYTES).contains(&length) {
        Ok(())
    } else {
        Err(SecretError::Length)
    }
}

/// A value, sealed to one agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedBox {
    /// The encrypted plaintext and its tag.
    pub ciphertext: Base64,
    /// The sender's ephemeral X25519 key: 32 bytes.
    pub enc: Base64,
    /// The agent's signing key; its sealing key is the one that it enrolled with.
    pub key_id: KeyId,
}

/// One secret of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedSecret {
    /// One for each target, sorted by key.
    pub boxes: Vec<SealedBox>,
    /// How the run gets it.
    pub delivery: Delivery,
    /// [`commitment`] to the value, the same for all targets.
    pub digest: Digest,
    /// What it is called.
    pub name: SecretName,
}

/// Why secrets are not those of a request, or no secrets at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// The document is not canonical or not of this shape.
    #[error(transparent)]
    Document(#[from] CanonicalError),
    /// None, or too many.
    #[error("a request has 1 to {MAX_SECRETS} secrets, or says nothing of any")]
    Number,
    /// Names or boxes out of order.
    #[error("secrets are sorted by name and their boxes by key, each once")]
    Order,
    /// A value that is too short or too long.
    #[error(
        "a secret has {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes; a shorter one could not be masked in output"
    )]
    Length,
    /// A name that is no variable's.
    #[error("a secret that becomes a variable has a name of A-Z a-z 0-9 _ and no digit first")]
    Variable,
    /// Two things for standard input.
    #[error("only one thing can stand on standard input")]
    Stdin,
    /// Boxes whose bytes could not be of a value.
    #[error("a sealed box is not of the form that one has")]
    Form,
    /// A token's request with another nonce than its own id gives.
    #[error(
        "a request for an API token that hands over secrets has a client_ref, and the nonce that follows from it"
    )]
    Nonce,
    /// A target cannot read a secret.
    #[error("a target has no box of its own for every secret, or a box is for no target")]
    Targets,
}

/// The document behind [`Act::secrets`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SealedSecrets(Vec<SealedSecret>);

impl SealedSecrets {
    /// Sorts and checks what `act` is to hand over.
    ///
    /// # Errors
    /// See [`SecretError`].
    pub fn new(mut secrets: Vec<SealedSecret>) -> Result<Self, SecretError> {
        secrets.sort_by(|a, b| a.name.cmp(&b.name));
        for secret in &mut secrets {
            secret.boxes.sort_by_key(|sealed| sealed.key_id);
        }
        let sealed = Self(secrets);
        sealed.check()?;
        Ok(sealed)
    }

    /// Parses the document and checks it against the act that names it.
    ///
    /// # Errors
    /// Not canonical, out of a limit, or something else stands on standard input too.
    pub fn parse(document: &[u8], act: &Act) -> Result<Self, SecretError> {
        let sealed: Self = canonical::from_document(document, MAX_BLOB_BYTES)?;
        sealed.check()?;
        let on_stdin = |secret: &SealedSecret| secret.delivery == Delivery::Stdin;
        if act.stdin.is_some() && sealed.0.iter().any(on_stdin) {
            return Err(SecretError::Stdin);
        }
        Ok(sealed)
    }

    fn check(&self) -> Result<(), SecretError> {
        let unless = |holds: bool, otherwise| if holds { Ok(()) } else { Err(otherwise) };
        let secrets = self.0.as_slice();
        unless(
            (1..=MAX_SECRETS).contains(&secrets.len()),
            SecretError::Number,
        )?;
        let follow = |(a, b): (&SealedSecret, &SealedSecret)| a.name < b.name;
        unless(
            secrets.iter().zip(secrets.iter().skip(1)).all(follow),
            SecretError::Order,
        )?;
        let on_stdin = secrets.iter().filter(|one| one.delivery == Delivery::Stdin);
        unless(on_stdin.count() <= 1, SecretError::Stdin)?;
        for secret in secrets {
            let named = secret.delivery != Delivery::Env || secret.name.is_variable();
            unless(named, SecretError::Variable)?;
            let boxes = secret.boxes.as_slice();
            let follow = |(a, b): (&SealedBox, &SealedBox)| a.key_id < b.key_id;
            let sorted = boxes.iter().zip(boxes.iter().skip(1)).all(follow);
            unless(!boxes.is_empty() && sorted, SecretError::Order)?;
            // The same value in each, so the same length.
            let length = boxes.first().map_or(0, |first| first.ciphertext.0.len());
            let formed = |sealed: &SealedBox| {
                sealed.enc.0.len() == 32 && sealed.ciphertext.0.len() == length
            };
            unless(
                is_box_length(length) && boxes.iter().all(formed),
                SecretError::Form,
            )?;
        }
        Ok(())
    }

    /// The secrets, sorted by name.
    #[must_use]
    pub fn secrets(&self) -> &[SealedSecret] {
        &self.0
    }

    /// Says whether they are bound to this request alone. A person's key signs for that person; the
    /// gateway's signs for every token, so what it signs has the nonce of [`token_nonce`].
    ///
    /// # Errors
    /// [`SecretError::Nonce`].
    pub fn check_nonce(&self, request: &CommandRequested) -> Result<(), SecretError> {
        let expected = request.client_ref.as_ref().map(token_nonce);
        if request.token.is_none() || expected == Some(request.nonce) {
            Ok(())
        } else {
            Err(SecretError::Nonce)
        }
    }

    /// Says whether exactly the targets, by the keys that their lines name, have a box of each.
    ///
    /// # Errors
    /// [`SecretError::Targets`].
    pub fn check_targets(&self, targets: &TargetList) -> Result<(), SecretError> {
        let mut keys: Vec<KeyId> = targets.lines().iter().map(|line| line.key_id).collect();
        keys.sort_unstable();
        let same = |secret: &SealedSecret| {
            let boxes = secret.boxes.iter().map(|sealed| &sealed.key_id);
            boxes.eq(keys.iter())
        };
        if self.0.iter().all(same) {
            Ok(())
        } else {
            Err(SecretError::Targets)
        }
    }

    /// The document's bytes.
    ///
    /// # Errors
    /// A value that canonical JSON has no form for.
    pub fn to_document(&self) -> Result<Vec<u8>, CanonicalError> {
        canonical::to_vec(self)
    }
}

impl SealedSecret {
    /// The box that this agent can open.
    #[must_use]
    pub fn for_key(&self, key_id: &KeyId) -> Option<&SealedBox> {
        self.boxes.iter().find(|sealed| sealed.key_id == *key_id)
    }
}

const fn is_box_length(length: usize) -> bool {
    let least = padded(MIN_SECRET_BYTES) + SEAL_TAG_BYTES;
    let most = padded(MAX_SECRET_BYTES) + SEAL_TAG_BYTES;
    least <= length && length <= most && (length - SEAL_TAG_BYTES).is_multiple_of(SECRET_PAD_BYTES)
}
