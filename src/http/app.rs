//! What every handler may reach.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use countersign_protocol::hash::KeyId;
use countersign_protocol::judgement::Judge;
use countersign_protocol::name::TokenId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::auth::Who;
use super::grants::Grants;
use super::limits::Limits;
use super::metrics::Metrics;
use super::notes::{Denials, Reads, TokenUses};
use super::operations::Readiness;
use super::origins::Origins;
use super::presence::Presence;
use super::proofs::Proofs;
use super::search::CONCURRENT_SEARCHES;
use super::sessions::Sessions;
use crate::clock::Clock;
use crate::cosigned::Cosigned;
use crate::feed::Standing;
use crate::keys::Gateway;
use crate::ledger::Ledger;
use crate::projections::Reader;

/// What large bodies that are read at a time take together: more would fill the memory of a small
/// machine.
const BODY_BYTES: usize = 256 * 1024 * 1024;

/// Bytes of a body that one permit stands for.
pub(super) const BODY_UNIT: usize = 64 * 1024;

/// Streams that are open at a time, so that idle listeners cannot take every descriptor.
const CONCURRENT_STREAMS: usize = 16 * 1024;

/// Streams of one key: enough for every terminal of one person, and far from all there are, so that
/// nobody takes the agents' place.
const STREAMS_OF_ONE: usize = 64;

/// Calls that wait for a command's end at a time: each asks the database at every step of the lists.
const CONCURRENT_WAITERS: usize = 512;

/// Waiting calls of one key or API token: every job of a large pipeline, and far from all there are.
const WAITERS_OF_ONE: usize = 32;

/// The server as its handlers see it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct App {
    pub(super) ledger: Ledger,
    pub(super) reader: Reader,
    pub(super) clock: Clock,
    pub(super) judge: Arc<dyn Judge>,
    pub(super) genesis: Arc<[u8]>,
    pub(super) sessions: Arc<Sessions>,
    pub(super) origins: Arc<Origins>,
    pub(super) behind_proxy: bool,
    pub(super) limits: Arc<Limits>,
    pub(super) reads: Arc<Reads>,
    pub(super) denials: Arc<Denials>,
    pub(super) uses: Arc<TokenUses>,
    pub(super) gateway: Option<Arc<Gateway>>,
    /// Where there is a witness policy.
    pub(super) cosigned: Option<Arc<Cosigned>>,
    /// Where there are sinks.
    pub(super) feed: Option<Arc<Standing>>,
    pub(super) metrics: Arc<Metrics>,
    /// Room for large bodies, in units of [`BODY_UNIT`].
    pub(super) bodies: Arc<Semaphore>,
    pub(super) streams: Room,
    pub(super) waiters: Room,
    pub(super) searches: Arc<Semaphore>,
    pub(super) readiness: Arc<Readiness>,
    pub(super) presence: Presence,
    pub(super) grants: Grants,
    pub(super) proofs: Proofs,
    pub(super) shutdown: CancellationToken,
}

impl App {
    /// Which agents were seen here.
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
            origins: Arc::default(),
            behind_proxy: false,
            limits: Arc::new(Limits::new()),
            reads: Arc::default(),
            denials: Arc::default(),
            uses: Arc::default(),
            gateway: None,
            cosigned: None,
            feed: None,
            genesis: genesis.into(),
            judge: ledger.judge(),
            ledger,
            reader,
            clock,
            bodies: Arc::new(Semaphore::new(BODY_BYTES / BODY_UNIT)),
            streams: Room::new(CONCURRENT_STREAMS, STREAMS_OF_ONE),
            waiters: Room::new(CONCURRENT_WAITERS, WAITERS_OF_ONE),
            searches: Arc::new(Semaphore::new(CONCURRENT_SEARCHES)),
            readiness: Arc::default(),
            presence: Presence::new(),
            grants: Grants::default(),
            proofs: Proofs::default(),
            shutdown,
        }
    }
}

impl App {
    /// Gives it the key that signs for the holders of API tokens.
    #[must_use]
    pub fn with_gateway(mut self, gateway: Option<Gateway>) -> Self {
        self.gateway = gateway.map(Arc::new);
        self
    }

    /// Gives it what witnesses sign.
    #[must_use]
    pub fn with_cosigned(mut self, cosigned: Option<Arc<Cosigned>>) -> Self {
        self.cosigned = cosigned;
        self
    }

    /// Gives it what sinks are heard of.
    #[must_use]
    pub fn with_feed(mut self, feed: Option<Arc<Standing>>) -> Self {
        self.feed = feed;
        self
    }

    /// Says where clients meet it, which sign-ins must name, and whether a proxy stands before it,
    /// whose word on where callers are is taken then. Without this nobody can sign in.
    #[must_use]
    pub fn met_at(mut self, origins: Origins, behind_proxy: bool) -> Self {
        self.origins = Arc::new(origins);
        self.behind_proxy = behind_proxy;
        self
    }
}

/// Who takes a place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Taker {
    Key(KeyId),
    Token(TokenId),
}

/// Places, of which nobody takes more than a share.
#[derive(Debug, Clone)]
pub(super) struct Room {
    all: Arc<Semaphore>,
    of_one: usize,
    taken: Arc<Mutex<BTreeMap<Taker, usize>>>,
}

/// A place in a room, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    taker: Taker,
    room: Room,
    _permit: OwnedSemaphorePermit,
}

impl App {
    /// A place for one more stream of a key; none when there are too many.
    pub(super) fn place(&self, key: KeyId) -> Option<Place> {
        self.streams.place(Taker::Key(key))
    }

    /// A place for one more of a caller's calls to wait; none when there are too many.
    pub(super) fn waiter(&self, who: &Who) -> Option<Place> {
        self.waiters.place(match who {
            Who::Person(_, key) => Taker::Key(*key),
            Who::Token(_, token) => Taker::Token(token.clone()),
        })
    }
}

impl Room {
    fn new(all: usize, of_one: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(all)),
            of_one,
            taken: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Taker, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self, taker: Taker) -> Option<Place> {
        let permit = Arc::clone(&self.all).try_acquire_owned().ok()?;
        let mut taken = self.lock();
        let count = taken.get(&taker).copied().unwrap_or(0);
        if count >= self.of_one {
            return None;
        }
        taken.insert(taker.clone(), count + 1);
        Some(Place {
            taker,
            room: self.clone(),
            _permit: permit,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.room.lock();
        let count = taken.get(&self.taker).copied().unwrap_or(0);
        if count > 1 {
            taken.insert(self.taker.clone(), count - 1);
        } else {
            taken.remove(&self.taker);
        }
    }
}

/// Streams that are open.
pub(super) fn open_streams(app: &App) -> usize {
    CONCURRENT_STREAMS.saturating_sub(app.streams.all.available_permits())
}
