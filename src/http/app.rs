//! What every handler may reach.

use std::sync::Arc;

use tokio::sync::Semaphore;
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
    pub(super) shutdown: CancellationToken,
}

impl App {
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
            shutdown,
        }
    }
}

/// Streams that are open.
pub(super) fn open_streams(app: &App) -> usize {
    CONCURRENT_STREAMS.saturating_sub(app.streams.available_permits())
}
