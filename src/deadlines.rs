//! Turns passing time into events: expired, skipped, lost, and the heartbeat of an idle ledger.
//! And takes out what was sent ahead of a statement that never came.
//!
//! It only asks: what is due is decided by the ledger, under its lock, so any number of servers may
//! run this. The database may keep either waiting; a server that stops does not.

use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::ledger::{AppendError, Ledger};

/// How often the ledger is asked: deadlines are promised to the second.
const TICK: Duration = Duration::from_secs(1);

/// How often blobs that no entry named are looked for: they are kept for an hour anyway.
const PURGE: Duration = Duration::from_secs(600);

/// Asks for what is due until `shutdown`, or until the ledger has stopped.
pub async fn run(ledger: Ledger, shutdown: CancellationToken) {
    let ask = async {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match ledger.append_due().await {
                Ok(()) => {}
                // Said where it happened.
                Err(AppendError::Stopped(_)) => return,
                Err(error) => tracing::warn!(%error, "what is due was not appended; trying again"),
            }
        }
    };
    let _stopped = shutdown.run_until_cancelled(ask).await;
}

/// Removes what no entry named within an hour, until `shutdown` or until the ledger has stopped. A task of
/// its own: where there is much to remove, nothing that is due waits for it.
pub async fn purge(ledger: Ledger, shutdown: CancellationToken) {
    let purge = async {
        let mut ticks = tokio::time::interval(PURGE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // Nothing goes out of a database that contradicts what is known.
            if ledger.is_stopped() {
                return;
            }
            match purge_all(&ledger).await {
                Ok(0) => {}
                Ok(count) => tracing::info!(count, "blobs that no entry names were removed"),
                Err(error) => tracing::warn!(%error, "unreferenced blobs were not removed"),
            }
        }
    };
    let _stopped = shutdown.run_until_cancelled(purge).await;
}

/// They go in portions: while some went, there may be more.
async fn purge_all(ledger: &Ledger) -> Result<u64, AppendError> {
    let mut all = 0;
    loop {
        let removed = ledger.purge_unreferenced_blobs().await?;
        if removed == 0 {
            return Ok(all);
        }
        all += removed;
    }
}
