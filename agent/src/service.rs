//! From a configuration to a running agent: identity, pins, enrolment, then the dispatcher.

use std::sync::Arc;

use countersign_protocol::key::PublicKey;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::admission::Pins;
use crate::client::{Backoff, Client, ClientError, SignIn};
use crate::clock::Clock;
use crate::config::Config;
use crate::dispatcher::Dispatcher;
use crate::key::Identity;
use crate::orders::Orders;
use crate::reload::Policy;
use crate::station::{AgentError, Station, tolerate};
use crate::trust::{self, View};

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
    let station = Arc::new(open(&config, clock, &orders)?);
    let statement_key = tokio::select! {
        () = orders.stop.cancelled() => return stopped(&orders),
        key = meet(&station, &config) => key?,
    };
    if !station.enrol(&orders.stop).await? {
        return stopped(&orders);
    }
    let pins = Pins {
        ledger: config.ledger,
        statement_key,
        agent: config.name.clone(),
        key_id: station.identity.key_id(),
    };
    let (fixed, since) = (config.fixed(), station.identity.created());
    let policy = Policy::of(config, pins, since);
    Dispatcher::new(station, policy, fixed).work(&orders).await
}

/// Key, journal, view and client of a configuration. A new host gets its key here.
pub(crate) fn open(config: &Config, clock: Clock, orders: &Orders) -> Result<Station, AgentError> {
    let (identity, spool) = Identity::open_or_create(&config.state, clock.now())?;
    let who = SignIn {
        agent: config.name.clone(),
        ledger: config.ledger,
        key: identity.key().clone(),
    };
    spool.bound(config.spool_max);
    let client = Arc::new(Client::new(&config.server, who, clock.clone())?);
    let vkey = config.vkey.clone();
    let view = View::open(Arc::clone(&client), vkey, identity.folder(), clock.clone())?;
    Ok(Station {
        name: config.name.clone(),
        ledger: config.ledger,
        identity,
        client,
        view,
        spool: Arc::new(spool),
        clock,
        give_up: CancellationToken::new(),
        turn: Mutex::new(()),
        manager: Arc::clone(&orders.manager),
    })
}

/// It was told to stop before there was anything to end.
fn stopped(orders: &Orders) -> Result<(), AgentError> {
    orders.manager.stopping(0);
    Ok(())
}

/// Asks the server who its ledger is until it answers, and holds the answer against the pins.
pub(crate) async fn meet(station: &Station, config: &Config) -> Result<PublicKey, AgentError> {
    let mut backoff = Backoff::for_server();
    station.manager.status("waiting for the server");
    loop {
        match station.client.ledger().await {
            Ok(info) => {
                let key = trust::statement_key(&info, &config.ledger, &config.vkey)?;
                // A key that is not accepted yet cannot ask for proofs; what is remembered stands.
                if station.view.seen().is_some() {
                    return Ok(key);
                }
                match station.view.confirm(&info.checkpoint).await {
                    Ok(_) => return Ok(key),
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
