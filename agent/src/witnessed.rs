//! Whether a quorum of the pinned witnesses has lately signed the history that a grant stands in.
//!
//! It fetches the cosigned checkpoint and holds it against the remembered one. It must not decide
//! about commands, nor start any.

use countersign_protocol::event::RefusalReason;
use countersign_protocol::name::Time;
use countersign_protocol::witness_policy::{WitnessPolicy, is_young};

use crate::client::{Client, ClientError};
use crate::rules::LocalRefusal;
use crate::trust::{View, ViewError};

/// The setting that refusals name.
pub(crate) const WITNESS_POLICY: &str = "witness_policy";

/// Demands a young checkpoint with a quorum of these witnesses, of one history with all that this
/// host has seen. Gives the refusal when there is none.
///
/// # Errors
/// [`ViewError::NoProof`] when the server does not answer: worth another try. A second history.
pub(crate) async fn demand(
    policy: &WitnessPolicy,
    client: &Client,
    view: &View,
    now: Time,
) -> Result<Result<(), LocalRefusal>, ViewError> {
    let refused = |detail: String| {
        Ok(Err(LocalRefusal::new(
            RefusalReason::Grant,
            WITNESS_POLICY,
            detail,
        )))
    };
    let note = match client.cosigned().await {
        Ok(note) => note,
        Err(error @ ClientError::Unreachable(_)) => return Err(error.into()),
        Err(error) => {
            return refused(format!(
                "this host takes only what witnesses have signed, and the server shows no such checkpoint: {error}"
            ));
        }
    };
    let checkpoint = view.confirm(&note).await?;
    match policy.check(&checkpoint, |at| is_young(at, now)) {
        Ok(()) => Ok(Ok(())),
        Err(error) => refused(format!(
            "{error}; see that the ledger's witnesses are up and clocks are right, and ask again"
        )),
    }
}
