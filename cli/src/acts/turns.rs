//! In which order the hosts of a rollout have their turns, and what people say of it while it goes on.

use countersign_protocol::fold::Refusal;
use countersign_protocol::hash::CommandId;
use countersign_protocol::target::TargetLine;

use super::connect::Client;
use super::judge::{said, unless};
use super::submit::{Accepted, person_event};
use crate::entropy;
use crate::failure::Failure;

/// In which order hosts have their turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// By their names.
    #[default]
    Name,
    /// By their names, the last first.
    Reverse,
    /// By chance.
    Random,
    /// As they were named.
    Given,
}

/// Gives each line its turn, in the order in which they were named; by name it needs none.
pub(super) fn take_turns(lines: &mut [TargetLine], order: Order) {
    match order {
        Order::Name => return,
        Order::Given => {}
        Order::Reverse => lines.sort_by(|a, b| b.agent.cmp(&a.agent)),
        Order::Random => shuffle(lines),
    }
    for (turn, line) in (0..).zip(lines) {
        line.turn = Some(turn);
    }
}

/// Fisher and Yates, with the system's randomness. The tiny bias of the remainder decides nothing.
fn shuffle<T>(items: &mut [T]) {
    for last in (1..items.len()).rev() {
        let drawn = u64::from_le_bytes(entropy::random());
        let at = usize::try_from(drawn % (last as u64 + 1)).unwrap_or(last);
        items.swap(last, at);
    }
}

/// What a person says of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steer {
    /// No further host has its turn for now.
    Pause,
    /// It goes on after a pause.
    Resume,
    /// It goes on after the canary.
    Continue,
}

impl Client {
    /// Says it. For a pause hosts that have their turn already may still start.
    ///
    /// # Errors
    /// It has no turns, or nothing to pause, resume or continue; refused, or no valid receipt.
    pub async fn steer(
        &self,
        id: &CommandId,
        steer: Steer,
        reason: Option<&str>,
    ) -> Result<Accepted, Failure> {
        let (view, rights) = self.fetch_command_and_rights(id).await?;
        let me = rights.person(&self.key_id())?;
        let held = &view.command;
        unless(!held.status().is_final(), Refusal::Over(held.status()))?;
        match steer {
            Steer::Pause => {
                unless(held.plan.is_some(), Refusal::NoRollout)?;
                unless(held.paused.is_none(), Refusal::Paused)?;
            }
            Steer::Resume => unless(held.paused.is_some(), Refusal::NotPaused)?,
            Steer::Continue => {
                let canary = held.plan.as_ref().and_then(|plan| plan.canary);
                unless(
                    canary.is_some() && held.continued.is_none(),
                    Refusal::NoCanary,
                )?;
            }
        }
        let (reason, blobs) = said(reason)?;
        let (head, command) = (self.head(&me)?, *id);
        let event = match steer {
            Steer::Pause => person_event!(head, RolloutPaused { command, reason }),
            Steer::Resume => person_event!(head, RolloutResumed { command, reason }),
            Steer::Continue => person_event!(head, RolloutContinued { command, reason }),
        };
        self.submit(&event, &blobs).await
    }
}
