//! What witnesses must have signed before this client believes anything: a pinned policy, and a
//! young enough checkpoint with a quorum of it. PROTOCOL 4.
//!
//! What the ledger shows after that must be of one history with the cosigned checkpoint, as with
//! everything remembered. So a history that the witnesses never saw lasts as long as a cosigned
//! checkpoint is young, and no longer.

use std::path::Path;

use countersign_protocol::checkpoint::CheckpointError;
use countersign_protocol::witness_policy::{QuorumError, WitnessPolicy, YOUNG_S, is_young};

use super::connect::Client;
use crate::clock;
use crate::failure::Failure;
use crate::home::LedgerHome;

/// The policy's name in the ledger's folder of the state home.
const POLICY_FILE: &str = "witness-policy";

impl Client {
    /// Demands that a quorum of the pinned witnesses has lately signed the ledger's history; with no
    /// policy pinned it demands nothing.
    ///
    /// # Errors
    /// No quorum: exit code 4. A cosignature that fails, or a history that is not the remembered
    /// one: exit code 3. A policy that cannot be read: exit code 2.
    pub async fn demand_witnesses(&self, policy: Option<&Path>) -> Result<(), Failure> {
        let Some(policy) = witness_policy(policy, self.trust.home())? else {
            return Ok(());
        };
        if !policy.is_about(self.trust.verifier()) {
            return Err(Failure::usage(format!(
                "the witness policy names other logs than the pinned ledger ({})",
                self.trust.verifier()
            )));
        }
        let note = self.http.text("/checkpoint").await?;
        let checkpoint = self.trust.open(&note)?;
        let now = clock::now();
        let counts = |at| is_young(at, now);
        policy.check(&checkpoint, counts).map_err(refused)?;
        self.believe(&note).await?;
        Ok(())
    }
}

/// The policy that was named, or the one that lies in the ledger's folder.
///
/// # Errors
/// It cannot be read: exit code 2.
pub fn witness_policy(
    named: Option<&Path>,
    home: &LedgerHome,
) -> Result<Option<WitnessPolicy>, Failure> {
    match named {
        Some(path) => witness_policy_file(path).map(Some),
        None => match home.read(POLICY_FILE)? {
            Some(text) => parse(&text, &home.path(POLICY_FILE)).map(Some),
            None => Ok(None),
        },
    }
}

/// The policy in a file.
///
/// # Errors
/// It cannot be read: exit code 2.
pub fn witness_policy_file(path: &Path) -> Result<WitnessPolicy, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))?;
    parse(&text, path)
}

fn parse(text: &str, from: &Path) -> Result<WitnessPolicy, Failure> {
    text.parse()
        .map_err(|error| Failure::usage(format!("{}: {error}", from.display())))
}

fn refused(error: QuorumError) -> Failure {
    let message = error.to_string();
    match error {
        QuorumError::Note(CheckpointError::BadSignature) => {
            Failure::tampering("cosignature", message).hint(
                "nothing was signed; show the server's /checkpoint to the witness's operator",
            )
        }
        QuorumError::Note(_) => Failure::tampering("checkpoint", message),
        QuorumError::NotMet { .. } => Failure::refused("no_quorum", message).hint(format!(
            "cosignatures count for {} minutes: either witnesses are away, or this history is shown to you alone. Ask the ledger's operator, and a witness's, for the newest checkpoint that it signed; nothing was signed",
            YOUNG_S / 60
        )),
    }
}
