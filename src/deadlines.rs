//! Turns passing time into events: expired, skipped, lost, and the heartbeat of an idle ledger.
//!
//! It only asks: what is due is decided by the ledger, under its lock, so any number of servers may
//! run this.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::ledger::{AppendError, Ledger};

/// How often the ledger is asked: deadlines are promised to the second.
const TICK: Duration = Duration::from_secs(1);

/// Asks until `shutdown`, or until the ledger has stopped.
pub async fn run(ledger: Ledger, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _now = ticks.tick() => {}
        }
        match ledger.append_due().await {
            Ok(()) => {}
            // Said where it happened.
            Err(AppendError::Stopped(_)) => return,
            Err(error) => tracing::warn!(%error, "what is due was not appended; trying again"),
        }
    }
}
