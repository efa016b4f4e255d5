//! A statement on its way: made for a verified person, signed, sent, and its receipt verified.

use countersign_protocol::api::{Receipt, Submission};
use countersign_protocol::audit::{self, Reason};
use countersign_protocol::blob::Blob;
use countersign_protocol::checkpoint::Checkpoint;
use countersign_protocol::event::{Event, KeyClaim, Seen};
use countersign_protocol::hash::{KeyId, LedgerId, StatementId};
use countersign_protocol::name::{Nonce, Principal, Time};
use countersign_protocol::proof::{self, ProofError};
use countersign_protocol::statement::Verified;

use super::connect::Client;
use crate::client::ClientError;
use crate::failure::Failure;
use crate::sign::Signer;
use crate::{clock, entropy};

/// Why a receipt is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// The entry does not hold.
    #[error("the entry in the receipt does not hold: {0}")]
    Entry(#[from] Reason),
    /// It is a receipt for something else.
    #[error("the receipt is for another statement than the one that was sent")]
    OtherStatement,
    /// What it says of the entry is not what the entry says.
    #[error("the receipt and its own entry differ")]
    Differs,
    /// The entry is not in the checkpoint.
    #[error("the entry is not in the receipt's checkpoint: {0}")]
    NotIncluded(#[from] ProofError),
}

impl From<ReceiptError> for Failure {
    fn from(error: ReceiptError) -> Self {
        Self::tampering("receipt", error.to_string()).hint(
            "the statement may or may not be in the log: look with `show`, and audit (verify)",
        )
    }
}

/// A statement that is provably in the log.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// The statement's id.
    pub id: StatementId,
    /// Where it stands.
    pub seq: u64,
    /// When it was entered.
    pub time: Time,
    /// The receipt, all of whose proofs hold. Its status word is the server's.
    pub receipt: Receipt,
}

/// Says whether a receipt proves that exactly `sent` stands in the log of `checkpoint`.
pub(super) fn verify_receipt(
    receipt: &Receipt,
    sent: &Verified,
    checkpoint: &Checkpoint,
) -> Result<Time, ReceiptError> {
    let entry = audit::check_entry(&receipt.entry.0)?;
    let (found, ours) = (entry.verified.statement(), sent.statement());
    // The signature may differ: the same statement may have been signed and sent before.
    if found.kind != ours.kind || found.payload != ours.payload {
        return Err(ReceiptError::OtherStatement);
    }
    let same = receipt.seq == entry.seq
        && receipt.time_us == entry.time.as_micros()
        && receipt.leaf == entry.leaf.to_string()
        && receipt.statement_id == sent.id().to_string();
    if !same {
        return Err(ReceiptError::Differs);
    }
    let (size, root) = (checkpoint.size(), checkpoint.root());
    proof::verify_inclusion(&entry.leaf, entry.seq, size, &receipt.inclusion, &root)?;
    Ok(entry.time)
}

/// What a person's every statement carries.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) signer: KeyId,
    pub(super) principal: Principal,
    pub(super) nonce: Nonce,
    pub(super) made_at: Time,
    pub(super) ledger: LedgerId,
    pub(super) seen: Seen,
}

/// A person's event of this kind: the head, then its own fields.
macro_rules! person_event {
    ($head:expr, $kind:ident { $($field:ident $(: $value:expr)?),* $(,)? }) => {{
        let $crate::acts::submit::Head { signer, principal, nonce, made_at, ledger, seen } = $head;
        countersign_protocol::event::Event::from(countersign_protocol::event::$kind {
            signer, principal, nonce, made_at, ledger, seen,
            $($field $(: $value)?,)*
        })
    }};
}
pub(super) use person_event;

impl Client {
    /// The head of a new statement by `principal`, as of the newest believed checkpoint.
    pub(super) fn head(&self, principal: &Principal) -> Result<Head, Failure> {
        let newest = self.trust.remembered()?.ok_or_else(|| {
            Failure::failed(
                "nothing_seen",
                "no checkpoint of this ledger was verified yet",
            )
        })?;
        Ok(Head {
            signer: self.key_id,
            principal: principal.clone(),
            nonce: entropy::nonce(),
            made_at: clock::now(),
            ledger: self.ledger(),
            seen: Seen {
                size: newest.size(),
                root: newest.root(),
            },
        })
    }

    /// The word of another key that it is `principal`'s, for this ledger: proof of possession.
    ///
    /// # Errors
    /// The key does not sign.
    pub async fn claim(&self, principal: &Principal, signer: &Signer) -> Result<KeyClaim, Failure> {
        super::claim::claim(self.ledger(), principal, signer).await
    }

    /// Signs and sends a statement; it is in the log, provably, when this returns.
    pub(super) async fn submit(&self, event: &Event, blobs: &[Blob]) -> Result<Accepted, Failure> {
        let signed = self.signer.sign(event).await?;
        let body = Submission::new(signed.statement(), blobs);
        let answer = self.http.post("/v1/statements", &[], &body, None).await;
        let receipt: Receipt = answer.map_err(|error| self.refusal(error))?;
        let seen = event.header().seen.map(|seen| seen.size);
        let since = seen.zip(receipt.since_seen.as_deref());
        let (checkpoint, _standing) = self.believe_since(&receipt.checkpoint, since).await?;
        let time = verify_receipt(&receipt, &signed, &checkpoint)?;
        Ok(Accepted {
            id: signed.id(),
            seq: receipt.seq,
            time,
            receipt,
        })
    }

    /// A server that does not know a checkpoint which it signed has lost or replaced entries.
    fn refusal(&self, error: ClientError) -> Failure {
        let denies_history = matches!(&error, ClientError::Problem(problem)
            if problem.status == 409 && matches!(problem.code.as_str(), "seen_fork" | "seen_ahead"));
        if !denies_history {
            return error.into();
        }
        let path = self.trust.home().path("checkpoint");
        Failure::tampering(
            "history_denied",
            format!(
                "the server does not know the checkpoint that it signed for this client (kept in {}): entries were cut or replaced",
                path.display()
            ),
        )
        .hint("keep that file and show it to whoever watches this ledger")
    }
}
