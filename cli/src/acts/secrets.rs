//! Sealing what a request hands over: to each host's own key, as the verified log has it.
//!
//! Values are encrypted here, on the requester's machine, and go nowhere else. It must not take a key
//! from anybody but the fold of verified entries: a host's sealing key is the one that it enrolled
//! with, signed by the very key that administrators accepted. Whoever seals for an API token, without
//! a ledger at hand, says whose keys they are.

use std::fmt;

use countersign_protocol::hash::{Digest, KeyId, LedgerId};
use countersign_protocol::name::{AgentName, Nonce};
use countersign_protocol::rights::Rights;
use countersign_protocol::secret::{
    Binding, Delivery, SealedSecret, SealedSecrets, SealingKey, SecretName, commitment, token_nonce,
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

/// A host that may open secrets.
#[derive(Debug, Clone)]
pub struct Recipient {
    /// Its name.
    pub agent: AgentName,
    /// Its signing key, which a box names.
    pub key_id: KeyId,
    /// What is sealed to; none where it takes no secrets.
    pub sealing_key: Option<SealingKey>,
}

/// Seals each secret to each target.
pub(super) fn seal(
    secrets: &[SecretSpec],
    lines: &[TargetLine],
    rights: &Rights,
    carrier: Carrier,
) -> Result<SealedSecrets, RequestError> {
    let recipient = |line: &TargetLine| {
        let record = rights.agent_record(&line.agent);
        // The key of the very line: a host that is being rotated has another one tomorrow.
        let record = record.filter(|record| record.key == line.key_id);
        Recipient {
            agent: line.agent.clone(),
            key_id: line.key_id,
            sealing_key: record.and_then(|record| record.sealing_key),
        }
    };
    let recipients: Vec<Recipient> = lines.iter().map(recipient).collect();
    seal_to(secrets, &recipients, carrier)
}

/// Seals each secret to each host, for the request that the `gateway` of the ledger will sign for an
/// API token under this `client_ref`, and for no other one.
///
/// # Errors
/// A host that takes none, or values that cannot go together.
pub fn seal_for_token(
    secrets: &[SecretSpec],
    hosts: &[Recipient],
    (ledger, gateway): (LedgerId, KeyId),
    client_ref: &Digest,
) -> Result<SealedSecrets, RequestError> {
    let carrier = Carrier {
        ledger,
        signer: gateway,
        nonce: token_nonce(client_ref),
    };
    seal_to(secrets, hosts, carrier)
}

fn seal_to(
    secrets: &[SecretSpec],
    hosts: &[Recipient],
    carrier: Carrier,
) -> Result<SealedSecrets, RequestError> {
    let sealed = secrets.iter().map(|secret| {
        // One for all targets, so that all of them have the same commitment.
        let salt = Zeroizing::new(entropy::random::<32>());
        let boxes = hosts.iter().map(|host| {
            let to = host.sealing_key;
            let to = to.ok_or_else(|| RequestError::NoSealingKey(host.agent.clone()))?;
            let binding = Binding {
                ledger: carrier.ledger,
                agent: host.key_id,
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
