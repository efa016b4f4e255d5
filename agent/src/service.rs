//! From a configuration to a running agent: identity, pins, enrolment, then its keys are served.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use crate::client::{Backoff, ClientError};
use crate::clock::Clock;
use crate::config::Config;
use crate::dispatcher::Places;
use crate::execution::SecretsPlace;
use crate::key::Identity;
use crate::orders::Orders;
use crate::rotation::{self, Service, Shared};
use crate::snapshot::Snapshots;
use crate::station::{AgentError, Station, tolerate};
use crate::trust::{self, LedgerKeys, View};

/// Of the digest that tells agents of one host apart: enough for all that there will be.
const PLACE_ID_BYTES: usize = 8;

/// Runs the agent until it is told to stop. A stopping agent ends its commands as a cancel does.
///
/// # Errors
/// Why it cannot go on; see [`AgentError`]. What it has begun stays in the journal.
pub async fn run(config: Config, orders: impl Into<Orders>) -> Result<(), AgentError> {
    run_with(config, Clock::system(), orders).await
}

/// [`run`] with a clock of the caller's.
///
/// # Errors
/// As [`run`].
pub async fn run_with(
    config: Config,
    clock: Clock,
    orders: impl Into<Orders>,
) -> Result<(), AgentError> {
    let orders: Orders = orders.into();
    let station = open(&config, clock, &orders)?;
    let keys = tokio::select! {
        () = orders.stop.cancelled() => return stopped(&orders),
        keys = meet(&station, &config) => keys?,
    };
    station.announce();
    if !station.enrol(&orders.stop).await? {
        return stopped(&orders);
    }
    let service = Service {
        live: watch::Sender::new(Arc::new(config)),
        clock: station.clock.clone(),
        view: Arc::clone(&station.view),
        snapshots: Arc::clone(&station.snapshots),
        secrets_place: station.secrets_place.clone(),
        keys,
        orders,
        places: Places::default(),
    };
    tokio::select! {
        served = service.serve(Arc::new(station)) => served,
        () = service.reload() => Ok(()),
    }
}

/// Key, journal, view and client of a configuration. A new host gets its key here.
pub(crate) fn open(config: &Config, clock: Clock, orders: &Orders) -> Result<Station, AgentError> {
    let (identity, spool) = Identity::open_or_create(&config.state, clock.now())?;
    let client = rotation::client(config, &identity, &clock)?;
    // A key that was ended gets no proofs; the one that replaced it does.
    let asks = match identity.open_next(&config.state) {
        Ok(Some((next, journal))) if journal.is_accepted() => {
            rotation::client(config, &next, &clock)?
        }
        // Trouble with one that is not accepted is told when it is taken up.
        Ok(_) | Err(_) => Arc::clone(&client),
    };
    let vkey = config.vkey.clone();
    let view = Arc::new(View::open(asks, vkey, identity.folder(), clock.clone())?);
    let snapshots = Arc::new(Snapshots::open(&config.state)?);
    let shared = Shared {
        view,
        snapshots,
        manager: Arc::clone(&orders.manager),
        secrets_place: secrets_place(&config.state),
    };
    Ok(rotation::station(
        config,
        (identity, spool),
        client,
        shared,
        &clock,
    ))
}

/// The folder in memory of the agent with this state, and of no other: whoever holds the state's lock
/// may wipe it. What runs that a crash ended left there is gone after this.
fn secrets_place(state: &Path) -> Option<Arc<SecretsPlace>> {
    let state = state.canonicalize().unwrap_or_else(|_| state.to_owned());
    let digest = Sha256::digest(state.as_os_str().as_bytes());
    let id = hex::encode(digest.get(..PLACE_ID_BYTES).unwrap_or_default());
    let place = SecretsPlace::prepare(&format!("countersign-{id}"));
    let place = place.inspect_err(|error| {
        tracing::warn!(%error, "no secret can be delivered as a file on this host");
    });
    place.ok().map(Arc::new)
}

/// It was told to stop before there was anything to end.
fn stopped(orders: &Orders) -> Result<(), AgentError> {
    orders.manager.stopping(0);
    Ok(())
}

/// Asks the server who its ledger is until it answers, and holds the answer against the pins.
pub(crate) async fn meet(station: &Station, config: &Config) -> Result<LedgerKeys, AgentError> {
    let mut backoff = Backoff::for_server();
    station.manager.status("waiting for the server");
    loop {
        match station.client.ledger().await {
            Ok(info) => {
                let keys = trust::ledger_keys(&info, &config.ledger, &config.vkey)?;
                // A key that is not accepted yet cannot ask for proofs; what is remembered stands.
                if station.view.seen().is_some() {
                    return Ok(keys);
                }
                match station.view.confirm(&info.checkpoint).await {
                    Ok(_) => return Ok(keys),
                    Err(error) => tolerate(error)?,
                }
            }
            Err(error @ (ClientError::Local(_) | ClientError::Refused(_))) => {
                return Err(error.into());
            }
            Err(error) => tracing::warn!(%error, "waiting for the server"),
        }
        tokio::time::sleep(backoff.pause()).await;
    }
}
