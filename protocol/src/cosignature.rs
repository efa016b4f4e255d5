//! Cosignatures: a witness's word that a checkpoint continues all it saw before. C2SP
//! tlog-cosignature, the Ed25519 kind (type 0x04). PROTOCOL 4.
//!
//! ```text
//! signed   cosignature/v1\ntime <seconds>\n<origin>\n<size>\n<base64 root>\n
//! line     — <witness> <base64 (key hash[4] ‖ u64 seconds ‖ Ed25519 signature[64])>
//! ```
//!
//! It owns the bytes and their check. It must not decide whose word is enough, nor read a clock.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use ed25519_dalek::{Signer as _, SigningKey};

use crate::checkpoint::{
    CheckpointBody, CheckpointError, MAX_SIGNATURE_LINES, Origin, SignatureLine, parse_vkey, vkey,
};
use crate::key::Point;
use crate::name::{SECOND_US, Time};

/// The signature type of Ed25519 cosignatures in a signed note.
const COSIGNATURE: u8 = 0x04;

/// Bytes of the time that stands before the signature.
const TIME_BYTES: usize = 8;

/// The latest time that a cosignature may name: the format ends there.
const MAX_SECONDS: u64 = u64::MAX >> 1;

/// A witness's public key, under its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessKey {
    name: Origin,
    key: Point,
}

/// One witness's word on one checkpoint. Its signature holds when one has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cosignature {
    seconds: u64,
    line: String,
}

impl WitnessKey {
    /// The public half of a witness's key.
    #[must_use]
    pub fn of(name: &Origin, key: &SigningKey) -> Self {
        Self {
            name: name.clone(),
            key: Point::from(key),
        }
    }

    /// The name in its signature lines.
    #[must_use]
    pub const fn name(&self) -> &Origin {
        &self.name
    }

    /// The 32 bytes of the Ed25519 key.
    #[must_use]
    pub fn key(&self) -> &[u8; 32] {
        self.key.as_bytes()
    }

    /// This witness's newest cosignature of a checkpoint among signature lines; none when it did
    /// not sign. Lines of others are ignored, one of its own that fails rejects them all.
    ///
    /// # Errors
    /// [`CheckpointError::BadSignature`]; a line that is none, or too many of them.
    pub fn find<'a>(
        &self,
        body: &CheckpointBody,
        lines: impl IntoIterator<Item = &'a str>,
    ) -> Result<Option<Cosignature>, CheckpointError> {
        let mut newest: Option<Cosignature> = None;
        for (count, text) in lines.into_iter().enumerate() {
            if count >= MAX_SIGNATURE_LINES {
                return Err(CheckpointError::TooLarge);
            }
            let line = SignatureLine::parse(text)?;
            if !line.is_by(&self.name, COSIGNATURE, &self.key) {
                continue;
            }
            let seconds = self.check(body, &line.signature)?;
            if newest.as_ref().is_none_or(|known| known.seconds < seconds) {
                let line = text.to_string();
                newest = Some(Cosignature { seconds, line });
            }
        }
        Ok(newest)
    }

    /// Checks `u64 seconds ‖ signature` and gives the seconds.
    fn check(&self, body: &CheckpointBody, bytes: &[u8]) -> Result<u64, CheckpointError> {
        let bad = || CheckpointError::BadSignature;
        let (seconds, signature) = bytes.split_first_chunk::<TIME_BYTES>().ok_or_else(bad)?;
        let seconds = u64::from_be_bytes(*seconds);
        let signature = signature.try_into().map_err(|_| bad())?;
        if seconds > MAX_SECONDS {
            return Err(bad());
        }
        let message = message(body, seconds);
        self.key.verify(&message, signature).map_err(|_| bad())?;
        Ok(seconds)
    }
}

/// `name+hash+base64(0x04 ‖ key)`, as signed notes have it.
impl fmt::Display for WitnessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&vkey(&self.name, COSIGNATURE, &self.key))
    }
}

impl FromStr for WitnessKey {
    type Err = CheckpointError;

    fn from_str(text: &str) -> Result<Self, CheckpointError> {
        let (name, key) = parse_vkey(text, COSIGNATURE).ok_or(CheckpointError::VerifierKey)?;
        Ok(Self { name, key })
    }
}

impl Cosignature {
    /// Signs a checkpoint at this time. Whoever calls it has seen that it continues all before.
    #[must_use]
    pub fn sign(body: &CheckpointBody, name: &Origin, key: &SigningKey, at: Time) -> Self {
        let seconds = at.as_micros() / SECOND_US;
        let signature = key.sign(&message(body, seconds)).to_bytes();
        let timed: Vec<u8> = seconds.to_be_bytes().into_iter().chain(signature).collect();
        let line = SignatureLine::write(name, COSIGNATURE, &Point::from(key), &timed);
        Self { seconds, line }
    }

    /// When the witness signed, by its clock: seconds since the Unix epoch.
    #[must_use]
    pub const fn seconds(&self) -> u64 {
        self.seconds
    }

    /// Its line in a note, without the end.
    #[must_use]
    pub fn line(&self) -> &str {
        &self.line
    }
}

fn message(body: &CheckpointBody, seconds: u64) -> Vec<u8> {
    format!("cosignature/v1\ntime {seconds}\n{body}").into_bytes()
}
