//! The `enroll` verb: a key for this host, and the wait until people have accepted it.
//!
//! It owns what is printed and how the wait ends. It makes no dispatcher, so nothing can run by it,
//! whatever the configuration says.

use std::cell::Cell;
use std::time::Duration;

use countersign_protocol::key::fingerprint;
use serde::Serialize;

use crate::clock::Clock;
use crate::config::Config;
use crate::orders::Orders;
use crate::service;
use crate::station::{AgentError, Station};

/// What to do beside making a key.
#[derive(Debug, Clone, clap::Args)]
pub struct Enroll {
    /// Do not wait to be accepted: end as soon as the enrolment is in the ledger.
    #[arg(long)]
    pub no_wait: bool,
    /// Wait no longer than this; for ever when left out.
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
    /// One JSON object on stdout for each change: agent, `key_id`, fingerprint, accepted.
    #[arg(long)]
    pub json: bool,
}

/// Who asks, for a person to compare or a script to pass on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Card {
    /// The name that it asks for.
    pub agent: String,
    /// The key's id: 64 hex digits.
    pub key_id: String,
    /// The same as people compare it: `SHA256:` and base64.
    pub fingerprint: String,
    /// Whether the ledger lets this key in.
    pub accepted: bool,
}

/// How an enrolment ended that was not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The ledger lets this agent in.
    Accepted,
    /// The enrolment is in the ledger, and nobody waits for the answer.
    Introduced,
    /// The wait is over: the time, or a signal. The enrolment may have been delivered.
    Over {
        /// Whether it was.
        delivered: bool,
    },
}

impl Card {
    pub(crate) fn of(station: &Station, accepted: bool) -> Self {
        let key_id = station.identity.key_id();
        Self {
            agent: station.name.to_string(),
            key_id: key_id.to_string(),
            fingerprint: fingerprint(&key_id),
            accepted,
        }
    }
}

/// Makes the key if there is none, shows it, introduces it and waits. Run again, it goes on with the
/// same key. `show` is called with the card before anything is sent, unless it was accepted before,
/// and when it is accepted.
///
/// # Errors
/// As for running the agent: another one holds the folder, the ledger is not the pinned one, or it
/// will not have this agent.
pub async fn enroll(
    config: &Config,
    options: &Enroll,
    orders: &Orders,
    show: impl Fn(&Card),
) -> Result<End, AgentError> {
    let station = service::open(config, Clock::system(), orders)?;
    let known = station.spool.is_accepted();
    if !known {
        show(&Card::of(&station, false));
    }
    let delivered = Cell::new(known);
    let enrolling = async {
        service::meet(&station, config).await?;
        if known {
            station.still_accepted().await?;
        } else {
            station.introduce().await?;
            delivered.set(true);
            if options.no_wait {
                return Ok(End::Introduced);
            }
            station.wait_for_acceptance().await?;
        }
        show(&Card::of(&station, true));
        Ok(End::Accepted)
    };
    let over = async {
        match options.timeout {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        end = enrolling => end,
        () = over => Ok(End::Over { delivered: delivered.get() }),
        () = orders.stop.cancelled() => Ok(End::Over { delivered: delivered.get() }),
    }
}

/// The card as a person reads it.
#[must_use]
pub fn words(card: &Card) -> String {
    let Card {
        agent, fingerprint, ..
    } = card;
    if card.accepted {
        return format!(
            "Accepted: the ledger knows this host as {agent}, by the key {fingerprint}.\n"
        );
    }
    format!(
        "This host asks to be known as {agent}, with the key {fingerprint}.\n\
         It runs nothing until administrators accept it:\n\
         \x20   countersign agents accept {agent} --fingerprint {fingerprint}\n"
    )
}
