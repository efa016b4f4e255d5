//! Turns passing time into events: expired, skipped, lost, and the heartbeat of an idle ledger.
//! And takes out what was sent ahead of a statement that never came.
//!
//! It only asks: what is due is decided by the ledger, under its lock, so any number of servers may
//! run this.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::ledger::{AppendError, Ledger};

/// How often the ledger is asked: deadlines are promised to the second.
const TICK: Duration = Duration::from_secs(1);

/// How often blobs that no entry named are looked for: they are kept for an hour anyway.
const PURGE: Duration = Duration::from_secs(600);

/// Asks until `shutdown`, or until the ledger has stopped.
pub async fn run(ledger: Ledger, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut purges = tokio::time::interval(PURGE);
    purges.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _now = ticks.tick() => {}
            _now = purges.tick() => {
                match ledger.purge_unreferenced_blobs().await {
                    Ok(0) => {}
                    Ok(count) => tracing::info!(count, "blobs that no entry names were removed"),
                    Err(error) => tracing::warn!(%error, "unreferenced blobs were not removed"),
                }
                continue;
            }
        }
        // The database may keep the ledger waiting; a server that stops does not.
        let appended = tokio::select! {
            () = shutdown.cancelled() => return,
            appended = ledger.append_due() => appended,
        };
        match appended {
            Ok(()) => {}
            // Said where it happened.
            Err(AppendError::Stopped(_)) => return,
            Err(error) => tracing::warn!(%error, "what is due was not appended; trying again"),
        }
    }
}
