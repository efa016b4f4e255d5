//! What the agent says of a time in which it started nothing more: once in a while, when it is asked,
//! and before it stops.
//!
//! It owns from when the next such word speaks. It says it in its turn on the chain, as everything
//! there, so a start stands before it and is named by it, or comes after the time it speaks of.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use countersign_protocol::event::AgentIdle;
use countersign_protocol::name::Time;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::key::{self, Identity};
use crate::own;
use crate::spool::{About, Spool};
use crate::station::{AgentError, Said, Station, agent_event};

/// How far a pause differs from the configured one, in percent: a thousand hosts that were started
/// together do not speak together for ever.
const JITTER_PERCENT: u32 = 10;

/// Until when a key has spoken of its time.
#[derive(Debug)]
pub(crate) struct Spoken(Mutex<Time>);

impl Spoken {
    /// Before the first word of this process. A key that has said nothing, but what its host is, has started
    /// nothing since it was made; of any other it speaks only from now on, for nobody watched while no agent ran.
    pub(crate) fn of(identity: &Identity, spool: &Spool, clock: &Clock) -> Self {
        let of_facts = own::times_said(identity.folder());
        let is_new = spool.chain().next == of_facts && spool.word().is_none();
        let now = clock.now();
        let from = if is_new { identity.created() } else { now };
        Self(Mutex::new(from))
    }

    fn until(&self) -> Time {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, until: Time) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }
}

impl Station {
    /// Says that nothing was started but what stands on the chain already, since it said so last.
    pub(crate) async fn say_idle(&self) -> Result<(), AgentError> {
        let mut until = None;
        let said = self.say(About::Idle, vec![], vec![], |header, chain| {
            let to = header.made_at;
            until = Some(to);
            // A clock that was set back must not make it speak of a time that ends before it begins.
            let from = self.spoken.until().min(to);
            agent_event!(
                header,
                AgentIdle {
                    agent_seq: chain.next,
                    agent_prev: chain.prev,
                    from,
                    to,
                    running: self.spool.open_runs().len() as u64,
                }
            )
        });
        match (said.await?, until) {
            (Said::Refused(problem), _) => {
                tracing::warn!(
                    code = problem.code,
                    detail = problem.detail,
                    "the ledger does not take an idle statement; the next one speaks of that time too"
                );
            }
            // Unanswered, it is in the journal and comes first at the next start.
            (Said::Accepted(_) | Said::Unanswered, Some(until)) => self.spoken.set(until),
            (Said::Accepted(_) | Said::Unanswered, None) => {}
        }
        Ok(())
    }
}

/// When the next one is due, if any is.
pub(crate) fn next(every: Option<Duration>) -> Option<Instant> {
    // Without randomness there is no jitter; it only spreads hosts out.
    let [byte] = key::random::<1>().unwrap_or([u8::MAX / 2]);
    Instant::now().checked_add(jittered(every?, byte))
}

/// Between nine and eleven tenths of a pause.
fn jittered(pause: Duration, byte: u8) -> Duration {
    let spread = pause.saturating_mul(JITTER_PERCENT) / 100;
    let share = spread.saturating_mul(u32::from(byte)) * 2 / u32::from(u8::MAX);
    pause.saturating_sub(spread).saturating_add(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_a_tenth_longer_or_shorter_at_the_most() {
        let hour = Duration::from_secs(3600);
        assert_eq!(jittered(hour, 0), Duration::from_secs(3240));
        assert_eq!(jittered(hour, u8::MAX), Duration::from_secs(3960));
        assert!(jittered(hour, 127) < hour && hour < jittered(hour, 128));
    }

    #[test]
    fn without_a_pause_none_is_due() {
        assert_eq!(next(None), None);
    }
}
