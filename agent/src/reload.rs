//! Another configuration for a running agent: whole and checked, or not at all.
//!
//! It owns what a reload may change. Whether a grant may run is `admission`'s, by the [`Host`] that
//! stands when it is looked at; a dispatcher swaps that between two grants, never during one.
//!
//! A reload forgets nothing: used grants, the newest checkpoint (and with it every revocation that
//! the ledger has shown) and the cancels that were heard are not part of it. What was taken away by
//! one reload stays away when the next one fails.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use countersign_protocol::witness_policy::WitnessPolicy;
use tokio::sync::watch;

use crate::admission::{Host, Pins};
use crate::config::{Config, ConfigError, Fixed};
use crate::orders::Orders;
use crate::snapshot::Snapshots;

/// Why the agent goes on with the configuration that it has.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReloadError {
    /// The file, or the one of people.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// It is another agent's.
    #[error(
        "{} cannot change while the agent runs, as its key and its chain belong to it; restart the \
         agent for that", .0.join(", "))]
    NeedsRestart(Vec<&'static str>),
    /// Nobody told where the file is.
    #[error("there is no file to read again")]
    NoFile,
    /// The thread that read it died.
    #[error("it could not be read: {0}")]
    Task(String),
}

/// What a configuration decides about grants that are looked at from now on.
pub(crate) struct Policy {
    /// People and rules.
    pub(crate) host: Arc<Host>,
    /// The witnesses that must have signed, if any must.
    pub(crate) witnesses: Option<Arc<WitnessPolicy>>,
    /// Most commands at once.
    pub(crate) max_runs: usize,
    /// From TERM to KILL.
    pub(crate) grace: Duration,
    /// How long commands may go on when the agent is told to stop.
    pub(crate) drain: Duration,
    /// The pause between two idle statements, if it makes any by itself.
    pub(crate) idle_every: Option<Duration>,
    /// Bytes of the journal from which on there is no room.
    pub(crate) spool_max: u64,
}

impl Policy {
    /// That of a configuration, for an agent with these pins.
    pub(crate) fn of(
        config: Config,
        pins: Pins,
        journal_since: countersign_protocol::name::Time,
        snapshots: Arc<Snapshots>,
    ) -> Self {
        if config.rules.account.uid == 0 && config.rules.account.default_user.is_none() {
            tracing::warn!(
                "running as root without default_user: commands that name no user are refused"
            );
        }
        Self {
            host: Arc::new(Host {
                pins,
                signers: config.signers,
                rules: config.rules,
                journal_since,
                snapshot: config.snapshot,
                snapshots,
                max_checkpoint_age_us: config.max_checkpoint_age_us,
                facts: config.facts,
            }),
            witnesses: config.witnesses.map(Arc::new),
            max_runs: config.max_runs,
            grace: config.grace,
            drain: config.drain,
            idle_every: config.idle_every,
            spool_max: config.spool_max,
        }
    }
}

/// Reads the configuration again whenever it is told to, and hands on each that holds. A dispatcher
/// looks for it before it takes a grant, so that it counts for all that come later.
pub(crate) async fn follow(orders: &Orders, live: &watch::Sender<Arc<Config>>) {
    let fixed = live.borrow().fixed();
    loop {
        orders.reload.notified().await;
        let _told = orders.manager.reloading();
        match read(orders.file.clone(), &fixed).await {
            Ok(config) => {
                live.send_replace(Arc::new(config));
                tracing::info!("the configuration was read again and counts from here on");
            }
            Err(error @ ReloadError::NoFile) => tracing::debug!(%error, "nothing is reloaded"),
            Err(error) => {
                tracing::error!(%error, "the new configuration is refused; the old one goes on");
            }
        }
    }
}

/// Reads the configuration again, and refuses one of another agent.
async fn read(file: Option<PathBuf>, fixed: &Fixed) -> Result<Config, ReloadError> {
    let file = file.ok_or(ReloadError::NoFile)?;
    let reading = tokio::task::spawn_blocking(move || Config::load(&file));
    let config = reading
        .await
        .map_err(|error| ReloadError::Task(error.to_string()))??;
    let differing = fixed.differing(&config);
    if differing.is_empty() {
        Ok(config)
    } else {
        Err(ReloadError::NeedsRestart(differing))
    }
}
