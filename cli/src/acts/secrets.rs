//! Sealing what a request hands over: to each host's own key, as the verified log has it.
//!
//! Values are encrypted here, on the requester's machine, and go nowhere else. It must not take a key
//! from anybody but the fold of verified entries: a host's sealing key is the one that it enrolled
//! with, signed by the very key that administrators accepted.

use std::fmt;

use countersign_protocol::hash::{KeyId, LedgerId};
use countersign_protocol::name::Nonce;
use countersign_protocol::rights::Rights;
use countersign_protocol::secret::{
    Binding, Delivery, SealedSecret, SealedSecrets, SecretName, commitment,
};
use countersign_protocol::target::TargetLine;
use zeroize::Zeroizing;

use super::request::RequestError;
use crate::entropy;

/// A secret that a request is to hand over.
#[derive(Clone)]
pub struct SecretSpec {
    /// What it is called there.
    pub name: SecretName,
    /// How the run gets it.
    pub delivery: Delivery,
    /// The bytes, exactly.
    pub value: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for SecretSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretSpec")
            .field("name", &self.name)
            .field("delivery", &self.delivery)
            .finish_non_exhaustive()
    }
}

/// The statement that will carry the secrets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Carrier {
    pub(super) ledger: LedgerId,
    pub(super) signer: KeyId,
    pub(super) nonce: Nonce,
}

/// Seals each secret to each target.
pub(super) fn seal(
    secrets: &[SecretSpec],
    lines: &[TargetLine],
    rights: &Rights,
    carrier: Carrier,
) -> Result<SealedSecrets, RequestError> {
    let sealed = secrets.iter().map(|secret| {
        // One for all targets, so that all of them have the same commitment.
        let salt = Zeroizing::new(entropy::random::<32>());
        let boxes = lines.iter().map(|line| {
            let record = rights.agent_record(&line.agent);
            // The key of the very line: a host that is being rotated has another one tomorrow.
            let record = record.filter(|record| record.key == line.key_id);
            let to = record.and_then(|record| record.sealing_key);
            let to = to.ok_or_else(|| RequestError::NoSealingKey(line.agent.clone()))?;
            let binding = Binding {
                ledger: carrier.ledger,
                agent: line.key_id,
                requester: carrier.signer,
                nonce: carrier.nonce,
            };
            let drawn = Zeroizing::new(entropy::random());
            let (value, place) = ((&*salt, secret.value.as_slice()), (&binding, &secret.name));
            let name = || secret.name.clone();
            countersign_sealing::seal(value, place, &to, drawn)
                .map_err(|error| RequestError::Seal(name(), error))
        });
        Ok(SealedSecret {
            boxes: boxes.collect::<Result<_, RequestError>>()?,
            delivery: secret.delivery,
            digest: commitment(&salt, &secret.value),
            name: secret.name.clone(),
        })
    });
    let sealed: Vec<_> = sealed.collect::<Result<_, RequestError>>()?;
    Ok(SealedSecrets::new(sealed)?)
}
