//! From a configuration to a running agent: identity, pins, enrolment, then the dispatcher.

use std::sync::Arc;

use countersign_protocol::key::PublicKey;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::admission::{Host, Pins};
use crate::client::{Backoff, Client, ClientError, SignIn};
use crate::clock::Clock;
use crate::config::Config;
use crate::dispatcher::Dispatcher;
use crate::key::Identity;
use crate::station::{AgentError, Station, tolerate};
use crate::trust::{self, View};

/// Runs the agent until `shutdown`. A stopping agent ends its commands as a cancel does.
///
/// # Errors
/// Why it cannot go on; see [`AgentError`]. What it has begun stays in the journal.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), AgentError> {
    run_with(config, Clock::system(), shutdown).await
}

/// [`run`] with a clock of the caller's.
///
/// # Errors
/// As [`run`].
pub async fn run_with(
    config: Config,
    clock: Clock,
    shutdown: CancellationToken,
) -> Result<(), AgentError> {
    let (identity, spool) = Identity::open_or_create(&config.state, clock.now())?;
    let who = SignIn {
        agent: config.name.clone(),
        ledger: config.ledger,
        key: identity.key().clone(),
    };
    let client = Arc::new(Client::new(&config.server, who, clock.clone())?);
    let vkey = config.vkey.clone();
    let view = View::open(Arc::clone(&client), vkey, identity.folder(), clock.clone())?;
    let station = Arc::new(Station {
        name: config.name.clone(),
        ledger: config.ledger,
        identity,
        client,
        view,
        spool: Arc::new(spool),
        clock,
        grace: config.grace,
        give_up: CancellationToken::new(),
        turn: Mutex::new(()),
    });
    let statement_key = tokio::select! {
        () = shutdown.cancelled() => return Ok(()),
        key = meet(&station, &config) => key?,
    };
    if !station.enrol(&shutdown).await? {
        return Ok(());
    }
    if config.rules.account.uid == 0 && config.rules.account.default_user.is_none() {
        tracing::warn!(
            "running as root without default_user: commands that name no user are refused"
        );
    }
    let host = Host {
        pins: Pins {
            ledger: config.ledger,
            statement_key,
            agent: config.name,
            key_id: station.identity.key_id(),
        },
        signers: config.signers,
        rules: config.rules,
        journal_since: station.identity.created(),
    };
    Dispatcher::new(station, host, config.max_runs)
        .work(&shutdown)
        .await
}

/// Asks the server who its ledger is until it answers, and holds the answer against the pins.
async fn meet(station: &Station, config: &Config) -> Result<PublicKey, AgentError> {
    let mut backoff = Backoff::for_server();
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
