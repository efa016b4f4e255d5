//! A key's own word whose it is, and the small file in which it travels from a person's machine to
//! an administrator's. The file holds nothing secret.

use countersign_protocol::event::{Event, KeyClaim, KeyClaimed};
use countersign_protocol::hash::LedgerId;
use countersign_protocol::key::PublicKey;
use countersign_protocol::name::Principal;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::sign::Signer;
use crate::{clock, entropy};

/// What the file begins with, so that nobody takes another file for one.
const FORMAT: &str = "countersign key claim";

/// The word of a key that it is `principal`'s, for this ledger: proof of possession.
///
/// # Errors
/// The key does not sign.
pub(super) async fn claim(
    ledger: LedgerId,
    principal: &Principal,
    signer: &Signer,
) -> Result<KeyClaim, Failure> {
    let event = Event::from(KeyClaimed {
        signer: signer.public_key().await?.key_id(),
        principal: principal.clone(),
        nonce: entropy::nonce(),
        made_at: clock::now(),
        ledger,
    });
    Ok(KeyClaim::of(signer.sign(&event).await?.statement()))
}

/// A claim with all that an administrator needs to ask for the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimFile {
    format: String,
    /// For which ledger.
    pub ledger: LedgerId,
    /// Whose key it is, as the key itself says.
    pub principal: Principal,
    /// The public key.
    pub key: PublicKey,
    /// The key's signed word.
    pub claim: KeyClaim,
}

/// Why a file is no claim for this key.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// It is no JSON of this shape.
    #[error("it is no key claim: {0}")]
    Shape(#[from] serde_json::Error),
    /// It is something else.
    #[error("it is no key claim of `countersign key claim`")]
    Format,
    /// For another ledger.
    #[error("the key was claimed for another ledger: {0}")]
    Ledger(LedgerId),
    /// For somebody else.
    #[error("the key says that it is the key of {0}")]
    Principal(Principal),
    /// What the key signed is not what the file says.
    #[error("the key has not signed what the file says")]
    Signature,
}

impl From<ClaimError> for Failure {
    fn from(error: ClaimError) -> Self {
        let message = error.to_string();
        match error {
            ClaimError::Shape(_) | ClaimError::Format => Self::usage(message).hint(
                "give the .pub file of a key whose private half is at hand, or what `countersign key claim NAME` wrote",
            ),
            ClaimError::Ledger(_) | ClaimError::Principal(_) | ClaimError::Signature => {
                Self::refused("key_claim", message)
                    .hint("have its owner run: countersign key claim NAME --key FILE")
            }
        }
    }
}

impl ClaimFile {
    /// Lets a key claim that it is `principal`'s. Needs no server.
    ///
    /// # Errors
    /// The key does not sign.
    pub async fn make(
        ledger: LedgerId,
        principal: Principal,
        signer: &Signer,
    ) -> Result<Self, Failure> {
        Ok(Self {
            format: FORMAT.to_owned(),
            ledger,
            key: signer.public_key().await?,
            claim: claim(ledger, &principal, signer).await?,
            principal,
        })
    }

    /// Reads a file and checks that its key has signed exactly this.
    ///
    /// # Errors
    /// See [`ClaimError`].
    pub fn parse(text: &str, ledger: LedgerId, principal: &Principal) -> Result<Self, ClaimError> {
        let file: Self = serde_json::from_str(text)?;
        if file.format != FORMAT {
            return Err(ClaimError::Format);
        }
        if file.ledger != ledger {
            return Err(ClaimError::Ledger(file.ledger));
        }
        if file.principal != *principal {
            return Err(ClaimError::Principal(file.principal));
        }
        if !file.claim.proves(&file.key, principal, ledger) {
            return Err(ClaimError::Signature);
        }
        Ok(file)
    }

    /// The file's text.
    ///
    /// # Errors
    /// Never: it holds nothing that JSON has no form for.
    pub fn to_text(&self) -> Result<String, Failure> {
        let text = serde_json::to_string_pretty(self);
        let text = text.map_err(|error| Failure::failed("output", error.to_string()))?;
        Ok(text + "\n")
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::*;

    const LEDGER: LedgerId = LedgerId::new([7; 32]);

    fn name(text: &str) -> Principal {
        text.parse().unwrap()
    }

    async fn made() -> ClaimFile {
        let signer = Signer::Software(SigningKey::from_bytes(&[1; 32]));
        ClaimFile::make(LEDGER, name("dave"), &signer)
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn a_claim_reads_back_and_is_for_one_person_and_one_ledger() {
        let text = made().await.to_text().unwrap();
        let parse = |ledger, who| ClaimFile::parse(&text, ledger, &name(who));
        assert_eq!(parse(LEDGER, "dave").unwrap(), made_of(&text));
        assert!(matches!(
            parse(LedgerId::new([8; 32]), "dave"),
            Err(ClaimError::Ledger(_))
        ));
        assert!(matches!(
            parse(LEDGER, "mallory"),
            Err(ClaimError::Principal(_))
        ));
    }

    fn made_of(text: &str) -> ClaimFile {
        serde_json::from_str(text).unwrap()
    }

    #[tokio::test]
    async fn a_claim_of_another_key_or_name_proves_nothing() {
        let mut other_key = made().await;
        other_key.key = PublicKey::of(&SigningKey::from_bytes(&[2; 32]));
        let mut other_name = made().await;
        other_name.principal = name("mallory");
        for (file, who) in [(other_key, "dave"), (other_name, "mallory")] {
            let read = ClaimFile::parse(&file.to_text().unwrap(), LEDGER, &name(who));
            assert!(matches!(read, Err(ClaimError::Signature)), "{who}");
        }
    }

    #[test]
    fn another_file_is_no_claim() {
        for text in ["{}", "ssh-ed25519 AAAA", "[1]"] {
            assert!(ClaimFile::parse(text, LEDGER, &name("dave")).is_err());
        }
    }
}
