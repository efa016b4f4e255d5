//! What every handler may reach.

use std::collections::BTreeMap;
use std::sync::Arc;

use countersign_protocol::name::AgentName;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;
use super::sessions::Sessions;
use crate::clock::Clock;
use crate::ledger::Ledger;
use crate::projections::Reader;

/// Bodies that are read at a time: at 8 MiB each they cannot fill the memory.
const CONCURRENT_BODIES: usize = 128;

/// Streams that are open at a time, so that idle listeners cannot take every descriptor.
const CONCURRENT_STREAMS: usize = 16 * 1024;

/// The server as its handlers see it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct App {
    pub(super) ledger: Ledger,
    pub(super) reader: Reader,
    pub(super) clock: Clock,
    pub(super) genesis: Arc<[u8]>,
    pub(super) sessions: Arc<Sessions>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) bodies: Arc<Semaphore>,
    pub(super) streams: Arc<Semaphore>,
    pub(super) presence: Presence,
    pub(super) shutdown: CancellationToken,
}

/// Which agents listen for work at this server, and on how many streams each.
#[derive(Debug, Clone)]
pub struct Presence(watch::Sender<BTreeMap<AgentName, usize>>);

impl Presence {
    fn new() -> Self {
        Self(watch::Sender::new(BTreeMap::new()))
    }

    /// Waits until an agent listens.
    pub async fn wait_for(&self, agent: &AgentName) {
        // The sender is held here, so the channel cannot close.
        let mut present = self.0.subscribe();
        let _open = present
            .wait_for(|present| present.contains_key(agent))
            .await;
    }

    /// Counts an agent's stream until what is returned is dropped.
    pub(super) fn enter(&self, agent: AgentName) -> Present {
        self.0
            .send_modify(|present| *present.entry(agent.clone()).or_default() += 1);
        Present {
            presence: self.clone(),
            agent,
        }
    }
}

/// An agent that listens.
#[derive(Debug)]
pub(super) struct Present {
    presence: Presence,
    agent: AgentName,
}

impl Drop for Present {
    fn drop(&mut self) {
        self.presence.0.send_modify(|present| {
            let streams = present.get(&self.agent).copied().unwrap_or(0);
            if streams > 1 {
                present.insert(self.agent.clone(), streams - 1);
            } else {
                present.remove(&self.agent);
            }
        });
    }
}

impl App {
    /// Which agents listen here.
    #[must_use]
    pub fn presence(&self) -> Presence {
        self.presence.clone()
    }

    /// Puts the rooms together. `session_secret` authenticates session tokens; all servers of a
    /// ledger have the same. `genesis` is entry 0. Streams end when `shutdown` is cancelled.
    #[must_use]
    pub fn new(
        ledger: Ledger,
        reader: Reader,
        clock: Clock,
        genesis: Vec<u8>,
        session_secret: [u8; 64],
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            metrics: Arc::new(Metrics::new()),
            sessions: Arc::new(Sessions::new(session_secret)),
            genesis: genesis.into(),
            ledger,
            reader,
            clock,
            bodies: Arc::new(Semaphore::new(CONCURRENT_BODIES)),
            streams: Arc::new(Semaphore::new(CONCURRENT_STREAMS)),
            presence: Presence::new(),
            shutdown,
        }
    }
}

/// Streams that are open.
pub(super) fn open_streams(app: &App) -> usize {
    CONCURRENT_STREAMS.saturating_sub(app.streams.available_permits())
}
