//! How a dispatcher comes to its end: what runs may go on for a while, then all of it is ended.
//!
//! It must not take new work.

use std::pin::pin;
use std::time::Duration;

use countersign_protocol::api::Work;
use tokio::sync::mpsc;

use crate::dispatcher::{Came, Dispatcher, when};
use crate::manager::Pulse;
use crate::orders::Orders;
use crate::station::AgentError;

/// How long a stopping agent tries to deliver what its commands still say.
const LAST_DELIVERY: Duration = Duration::from_secs(5);

/// What is left of that, at the least, for a command that had to be killed.
const AFTER_KILL: Duration = Duration::from_secs(1);

/// How long it tries to say that nothing was started up to its end. The journal has it in any case, and
/// then it is said at the next start.
const LAST_WORD: Duration = Duration::from_secs(1);

impl Dispatcher {
    /// Lets what runs go on for the configured time, unless it is told to stop at once. Grants are
    /// left to the next start; cancels by people still count.
    pub(crate) async fn drain(
        &mut self,
        work: &mut mpsc::Receiver<Work>,
        orders: &Orders,
        pulse: &mut Pulse,
    ) -> Result<(), AgentError> {
        let mut runs = self.runs();
        self.station.manager.stopping(runs);
        if self.policy.drain.is_zero() || runs == 0 {
            return Ok(());
        }
        // A cancel may have been under way when it was told to stop, or have waited for its proof.
        self.again.notify_one();
        tracing::info!(
            runs,
            seconds = self.policy.drain.as_secs(),
            "no new work is taken; what runs may go on for a while, and a second TERM or INT ends it at once"
        );
        let mut over = pin!(tokio::time::sleep(self.policy.drain));
        while runs > 0 {
            let next = tokio::select! {
                biased;
                () = orders.at_once.cancelled() => return Ok(()),
                () = &mut over => {
                    tracing::warn!(runs, "the time to stop is over; what still runs is ended");
                    return Ok(());
                }
                () = pulse.beat() => None,
                Some(ended) = self.tasks.join_next() => {
                    pulse.during(self.take_end(ended)).await?;
                    None
                }
                () = when(self.aside.next()) => self.aside.take(),
                Some(next) = work.recv() => Some(next),
            };
            if let Some(cancel @ Work::Cancel(_)) = next {
                // The server may be slow with its proof, and the time is over all the same.
                tokio::select! {
                    () = &mut over => return Ok(()),
                    taken = self.take((cancel, Came::Now), &orders.at_once, pulse) => taken?,
                }
            }
            if self.runs() < runs {
                runs = self.runs();
                self.station.manager.stopping(runs);
            }
        }
        Ok(())
    }

    /// Commands under way.
    pub(crate) fn runs(&self) -> usize {
        let runs = self.active.values().filter(|active| active.is_run);
        runs.count()
    }

    /// Ends every run as a cancel does, and delivers what it said if the server answers in time.
    pub(crate) async fn end_all(&mut self, pulse: &mut Pulse) {
        self.aside.clear();
        for active in self.active.values() {
            active.cancel.cancel();
        }
        let give_up = self.station.give_up.clone();
        let graces = self.active.values().map(|active| active.grace);
        let longest = graces.max().unwrap_or(self.policy.grace);
        let limit = LAST_DELIVERY.max(longest.saturating_add(AFTER_KILL));
        let timer = tokio::spawn(async move {
            tokio::time::sleep(limit).await;
            give_up.cancel();
        });
        loop {
            tokio::select! {
                ended = self.tasks.join_next() => match ended {
                    Some(Ok((_, Ok(())))) => {}
                    Some(Ok((_, Err(error)))) => tracing::error!(%error, "while stopping"),
                    Some(Err(error)) => tracing::error!(%error, "while stopping"),
                    None => break,
                },
                () = pulse.beat() => {}
            }
        }
        timer.abort();
    }

    /// Up to the moment of a stop by order there is no gap in what it says of its time.
    pub(crate) async fn say_last(&self) {
        if self.policy.idle_every.is_none() || self.station.give_up.is_cancelled() {
            return;
        }
        let give_up = self.station.give_up.clone();
        let timer = tokio::spawn(async move {
            tokio::time::sleep(LAST_WORD).await;
            give_up.cancel();
        });
        if let Err(error) = self.station.say_idle().await {
            tracing::error!(%error, "while stopping");
        }
        timer.abort();
    }
}
