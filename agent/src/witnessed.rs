//! Whether a quorum of the pinned witnesses has lately signed the history that a grant stands in.
//!
//! It fetches the cosigned checkpoint and holds it against the remembered one. It must not decide
//! about commands, nor start any.

use std::collections::HashMap;

use countersign_protocol::event::RefusalReason;
use countersign_protocol::hash::CommandId;
use countersign_protocol::name::{SECOND_US, Time};
use countersign_protocol::witness_policy::{WitnessPolicy, is_young};

use crate::client::{Client, ClientError};
use crate::rules::LocalRefusal;
use crate::trust::{View, ViewError};

/// The setting that refusals name.
pub(crate) const WITNESS_POLICY: &str = "witness_policy";

/// How long a grant waits for a younger note where only age is wrong with the one that is shown. A server
/// that was down shows the note that it kept until it has asked its witnesses, of whom each has ten seconds:
/// time for two rounds. The command's own end comes before that where it is sooner.
const LONGEST_OLD_US: u64 = 30 * SECOND_US;

/// Waits are forgotten after this long: a grant that waits is looked at each second, so nothing asks for
/// these any more.
const FORGOTTEN_US: u64 = 10 * LONGEST_OLD_US;

/// What the witnesses say for a grant.
#[derive(Debug)]
pub(crate) enum Word {
    /// A quorum has lately signed.
    Young,
    /// A quorum has signed, and too long ago: this is the refusal if none does again.
    Old(LocalRefusal),
    /// No quorum has signed what is shown.
    Missing(LocalRefusal),
}

/// Since when commands wait, as the note that was shown for them was too old.
#[derive(Debug, Default)]
pub(crate) struct Waits(HashMap<CommandId, Time>);

impl Waits {
    /// Whether the command may wait on for a younger note.
    pub(crate) fn may_wait(&mut self, command: CommandId, now: Time) -> bool {
        self.0
            .retain(|_, since| now.micros_since(*since) < FORGOTTEN_US);
        let since = *self.0.entry(command).or_insert(now);
        now.micros_since(since) < LONGEST_OLD_US
    }

    /// It waits no more.
    pub(crate) fn forget(&mut self, command: &CommandId) {
        self.0.remove(command);
    }
}

/// Demands a young checkpoint with a quorum of these witnesses, of one history with all that this
/// host has seen.
///
/// # Errors
/// [`ViewError::NoProof`] when the server does not answer: worth another try. A second history.
pub(crate) async fn demand(
    policy: &WitnessPolicy,
    client: &Client,
    view: &View,
    now: Time,
) -> Result<Word, ViewError> {
    let refusal = |detail: String| LocalRefusal::new(RefusalReason::Grant, WITNESS_POLICY, detail);
    let note = match client.cosigned().await {
        Ok(note) => note,
        Err(error @ ClientError::Unreachable(_)) => return Err(error.into()),
        Err(error) => {
            return Ok(Word::Missing(refusal(format!(
                "this host takes only what witnesses have signed, and the server shows no such checkpoint: {error}"
            ))));
        }
    };
    let checkpoint = view.confirm(&note).await?;
    let Err(error) = policy.check(&checkpoint, |at| is_young(at, now)) else {
        return Ok(Word::Young);
    };
    let refusal = refusal(format!(
        "{error}; see that the ledger's witnesses are up and clocks are right, and ask again"
    ));
    let is_past = |seconds| seconds < now.as_micros() / SECOND_US;
    let of_any_age = policy.check(&checkpoint, |at| is_past(at) || is_young(at, now));
    Ok(match of_any_age {
        Ok(()) => Word::Old(refusal),
        Err(_) => Word::Missing(refusal),
    })
}
