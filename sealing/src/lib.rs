//! Encrypts a secret to an agent's key, and opens it there.
//!
//! It owns the one place where the form of `countersign_protocol::secret` meets the cipher: HPKE
//! (RFC 9180) in base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305. Randomness
//! and keys come in as values; it reads no file, no clock and no network, and logs nothing.
#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::fmt;

use countersign_protocol::api::Base64;
use countersign_protocol::hash::Digest;
use countersign_protocol::secret::{
    Binding, SealedBox, SealingKey, SecretError, SecretName, commitment, parse_plaintext, plaintext,
};
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::rand_core::{TryCryptoRng, TryRng};
use hpke::{
    Deserializable, HpkeError, Kem, OpModeR, OpModeS, Serializable, single_shot_open,
    single_shot_seal_with_rng,
};
use zeroize::Zeroizing;

/// Why a value cannot be sealed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Too short or too long.
    #[error(transparent)]
    Value(#[from] SecretError),
    /// Nobody has a private key for it.
    #[error("the agent's sealing key is not a key that anything can be sealed to")]
    Key,
}

/// Why a box does not open to the value that was signed for. It says no more than that: whoever
/// moved it learns nothing, and whoever looks for the cause compares what it is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Another key, ledger, agent, requester, request or name than it was sealed for; or changed.
    #[error(
        "it was sealed for another agent's key, ledger, requester, request or name, or it was changed"
    )]
    Foreign,
    /// It opens to something else than the digest that people signed for.
    #[error("it does not hold the value whose digest was signed")]
    OtherValue,
}

/// An agent's private sealing key. Wiped from memory with its owner, and never shown.
pub struct SealingSecret(Zeroizing<[u8; 32]>);

impl SealingSecret {
    /// Takes 32 random bytes for a key.
    #[must_use]
    pub const fn new(bytes: Zeroizing<[u8; 32]>) -> Self {
        Self(bytes)
    }

    /// The bytes, to be written to a file that nobody else can read.
    #[must_use]
    pub const fn as_bytes(&self) -> &Zeroizing<[u8; 32]> {
        &self.0
    }

    /// The key that others seal to.
    ///
    /// # Errors
    /// The bytes are no private key.
    pub fn public(&self) -> Result<SealingKey, SealError> {
        let public = X25519HkdfSha256::sk_to_pk(&self.private().map_err(|_| SealError::Key)?);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(&public.to_bytes());
        Ok(SealingKey::new(bytes))
    }

    fn private(&self) -> Result<<X25519HkdfSha256 as Kem>::PrivateKey, HpkeError> {
        <X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(self.0.as_slice())
    }

    /// Opens the secret `name` of a request, and holds its value against the digest in it.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(
        &self,
        sealed: &SealedBox,
        (binding, name): (&Binding, &SecretName),
        digest: &Digest,
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let private = self.private().map_err(|_| OpenError::Foreign)?;
        let sender = <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(&sealed.enc.0)
            .map_err(|_| OpenError::Foreign)?;
        let opened = single_shot_open::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
            &OpModeR::Base,
            &private,
            &sender,
            &binding.context(name),
            &sealed.ciphertext.0,
            b"",
        );
        let opened = Zeroizing::new(opened.map_err(|_| OpenError::Foreign)?);
        let (salt, value) = parse_plaintext(&opened).map_err(|_| OpenError::OtherValue)?;
        if commitment(salt, value) == *digest {
            Ok(Zeroizing::new(value.to_vec()))
        } else {
            Err(OpenError::OtherValue)
        }
    }
}

impl fmt::Debug for SealingSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingSecret(..)")
    }
}

/// Seals `value` as the secret `name` to the agent that `binding` names, by its key `to`. `drawn` is
/// randomness for this box alone.
///
/// # Errors
/// A value outside its limits, or a key that nothing can be sealed to.
pub fn seal(
    (salt, value): (&[u8; 32], &[u8]),
    (binding, name): (&Binding, &SecretName),
    to: &SealingKey,
    drawn: Zeroizing<[u8; 32]>,
) -> Result<SealedBox, SealError> {
    let plaintext = Zeroizing::new(plaintext(salt, value)?);
    let public = <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(to.as_bytes())
        .map_err(|_| SealError::Key)?;
    let (enc, ciphertext) =
        single_shot_seal_with_rng::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
            &OpModeS::Base,
            &public,
            &binding.context(name),
            &plaintext,
            b"",
            &mut Drawn(drawn),
        )
        .map_err(|_| SealError::Key)?;
    Ok(SealedBox {
        ciphertext: Base64(ciphertext),
        enc: Base64(enc.to_bytes().to_vec()),
        key_id: binding.agent,
    })
}

/// Bytes that the caller drew, as the generator that the cipher asks for. HPKE asks once, for the 32
/// bytes that its ephemeral key is derived from.
struct Drawn(Zeroizing<[u8; 32]>);

impl TryRng for Drawn {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        for (byte, drawn) in out.iter_mut().zip(self.0.iter().cycle()) {
            *byte = *drawn;
        }
        Ok(())
    }
}

impl TryCryptoRng for Drawn {}
