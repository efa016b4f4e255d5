//! A running server: the rooms put together.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use countersign_protocol::hash::LedgerId;
use countersign_protocol::judgement::Judge;
use countersign_protocol::origin::ServerOrigin;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use secrecy::SecretString;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::cosigned::{Cosigned, CosignedError};
use crate::deadlines;
use crate::feed::{ConfigError, Feed, FeedConfig, Source};
use crate::http::{
    self, App, ConnectionLimits, Origins, Presence, Tls, TlsError, TlsFiles, Transport,
};
use crate::keys::{KeyFileError, LedgerKeys};
use crate::ledger::{Ledger, OpenError, Settings, StartRule, store};
use crate::primary::{Addresses, FellSilent, PrimaryError};
use crate::projections::{self, Bell, Reader};
use crate::setup;

/// Connections to the database for the projections, and enough for reads on small machines. The
/// ledger has some of its own for what is written.
pub const CONNECTIONS: u32 = 16;

/// How long a request waits for a connection before it is told that the database is away.
const ACQUIRE: Duration = Duration::from_secs(5);

/// How long connections may take to close when the server stops.
const CLOSE: Duration = Duration::from_secs(2);

/// What each connection asks of the database. Whoever holds the head and goes silent, because its
/// process was paused or its network cut, loses it after ten seconds (a batch takes some 50 ms);
/// whoever waits for it gives up a little later and says so.
///
/// Every query here goes by an index. A connection keeps the plans it made when the log was short,
/// and one that reads a whole table, right on the first day, takes a second a batch in the first
/// week. The planner then takes the readings that cannot be avoided (of one row, of a batch) for
/// dear, and would compile them each time: they take microseconds, compiling takes a tenth of a
/// second.
const SESSION: [(&str, &str); 4] = [
    ("jit", "off"),
    ("enable_seqscan", "off"),
    ("idle_in_transaction_session_timeout", "10s"),
    ("lock_timeout", "15s"),
];

/// What a server needs.
#[derive(Debug)]
pub struct Options {
    /// The database, as the role that serves; several addresses have a comma between, and the one
    /// that takes writes is used. May hold a password.
    pub database: SecretString,
    /// The folder of the ledger's keys.
    pub keys: PathBuf,
    /// Where the newest committed checkpoint is kept, outside the database.
    pub checkpoint_file: PathBuf,
    /// What to do without that file.
    pub start: StartRule,
    /// Where to listen.
    pub listen: SocketAddr,
    /// How clients get there.
    pub way: Way,
    /// The file of the witnesses whose signatures are collected.
    pub witness_policy: Option<PathBuf>,
    /// The file of the sinks that hear of each entry.
    pub feed: Option<PathBuf>,
    /// Time.
    pub clock: Clock,
}

/// How clients get to a server. By default in clear, and on loopback only.
#[derive(Debug, Clone, Default)]
pub struct Way {
    /// Its certificate and key.
    pub tls: Option<TlsFiles>,
    /// A proxy stands before it, ends TLS, and says where callers are.
    pub behind_proxy: bool,
    /// Where clients meet it, when that is not the loopback address it listens at.
    pub public_urls: Vec<ServerOrigin>,
}

impl Way {
    /// What must be so before anything is opened.
    fn check(&self, listen: SocketAddr) -> Result<(), StartError> {
        let is_near = listen.ip().is_loopback();
        if self.tls.is_none() && !is_near && !self.behind_proxy {
            return Err(StartError::InClear(listen));
        }
        if self.public_urls.is_empty() && (!is_near || self.behind_proxy) {
            return Err(StartError::Nowhere);
        }
        Ok(())
    }
}

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The ledger's keys.
    #[error(transparent)]
    Keys(#[from] KeyFileError),
    /// The database's address, or where it leads.
    #[error(transparent)]
    Database(#[from] PrimaryError),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] OpenError),
    /// In clear, where others can listen.
    #[error(
        "cannot listen at {0} in clear: whoever is on the way could read all output and use sessions \
         as their own. Do one of three: give --tls-cert FILE and --tls-key FILE; listen on loopback, \
         as --listen 127.0.0.1:7070 does; or say --behind-proxy, if a proxy before this server ends TLS"
    )]
    InClear(SocketAddr),
    /// Nobody could sign in.
    #[error(
        "nobody could sign in: a sign-in names the address where the client meets the server, and this \
         server does not know its own; give it as clients have it, --public-url https://ledger.example.com"
    )]
    Nowhere,
    /// Certificate or key.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The witness policy, or what witnesses have signed.
    #[error(transparent)]
    Cosigned(#[from] CosignedError),
    /// The file of sinks.
    #[error(transparent)]
    Feed(#[from] ConfigError),
    /// TLS of a sink.
    #[error("no connections to webhooks can be made: {0}")]
    Webhooks(reqwest::Error),
    /// The address to listen at.
    #[error("cannot listen at {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
}

impl StartError {
    /// Says whether the database contradicts what was committed.
    #[must_use]
    pub const fn is_evidence(&self) -> bool {
        matches!(
            self,
            Self::Ledger(
                OpenError::Behind { .. }
                    | OpenError::OtherHistory(_)
                    | OpenError::Entry { .. }
                    | OpenError::Head(_)
                    | OpenError::Checkpoint(_)
            ) | Self::Cosigned(CosignedError::Ledger(
                OpenError::Behind { .. } | OpenError::OtherHistory(_)
            ))
        )
    }
}

/// A server that runs until it is told to stop.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    ledger: LedgerId,
    vkey: String,
    origin: String,
    pool: PgPool,
    presence: Presence,
    shutdown: CancellationToken,
    silent: Arc<OnceLock<FellSilent>>,
    tasks: JoinSet<()>,
}

/// Connects to the primary as the role that serves.
///
/// # Errors
/// The address is not one, nobody answers there, or nothing there takes writes.
pub async fn connect(database: &SecretString) -> Result<PgPool, StartError> {
    open_pool(&Addresses::read(database)?.with(SESSION)).await
}

async fn open_pool(addresses: &Addresses) -> Result<PgPool, StartError> {
    let options = PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(ACQUIRE);
    Ok(addresses.pool(options).await?)
}

/// Lets this process open as many files as its machine allows: each connection takes one, and many
/// systems begin with 1024 for programs that were written long ago.
pub fn open_many_files() {
    let most = getrlimit(Resource::Nofile).maximum;
    let wanted = Rlimit {
        current: most,
        maximum: most,
    };
    if let Err(error) = setrlimit(Resource::Nofile, wanted) {
        tracing::warn!(%error, "the number of open files stays as it was");
    }
}

impl Server {
    /// Opens the ledger and listens. It serves when this returns.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(options: Options, shutdown: CancellationToken) -> Result<Self, StartError> {
        options.way.check(options.listen)?;
        let tls = options.way.tls.map(Tls::open).transpose()?;
        let sinks = options.feed.as_deref().map(FeedConfig::read).transpose()?;
        let addresses = Addresses::read(&options.database)?.with(SESSION);
        let pool = open_pool(&addresses).await?;
        let keys = LedgerKeys::read(&options.keys)?;
        let session_secret = keys.session_secret();
        let gateway = keys.gateway();
        let ledger = Ledger::open(Settings {
            pool: pool.clone(),
            keys,
            checkpoint_file: options.checkpoint_file.clone(),
            start: options.start,
            clock: options.clock.clone(),
            judge: setup::judge(),
        })
        .await?;
        let cosigned = match &options.witness_policy {
            Some(policy) => {
                let file = &options.checkpoint_file;
                let cosigned = Cosigned::open(policy, file, ledger.clone()).await?;
                Some(Arc::new(cosigned))
            }
            None => None,
        };
        let source = Source {
            ledger: ledger.id(),
            origin: ledger.verifier().origin().clone(),
            database: pool.clone(),
            log: ledger.watch(),
            learning: ledger.learning(),
            clock: options.clock.clone(),
        };
        let feed = sinks.map(|sinks| Feed::new(sinks, &source)).transpose();
        let feed = feed.map_err(StartError::Webhooks)?;
        let genesis = first_entry(&pool).await?;
        let listener = TcpListener::bind(options.listen)
            .await
            .map_err(|error| StartError::Listen(options.listen, error))?;
        let address = listener
            .local_addr()
            .map_err(|error| StartError::Listen(options.listen, error))?;
        let (tell, projected) = watch::channel(None);
        let reader = Reader::new(pool.clone(), ledger.watch(), projected);
        let bell = reader.bell();
        let verifier = ledger.verifier();
        let (vkey, origin) = (verifier.to_string(), verifier.origin().as_str().to_owned());
        let id = ledger.id();
        let app = App::new(
            ledger.clone(),
            reader,
            options.clock,
            genesis,
            session_secret,
            shutdown.clone(),
        )
        .met_at(
            Origins::of(address, tls.is_some(), &options.way.public_urls),
            options.way.behind_proxy,
        )
        .with_gateway(gateway)
        .with_cosigned(cosigned.clone())
        .with_feed(feed.as_ref().map(Feed::standing));
        let presence = app.presence();
        let mut tasks = JoinSet::new();
        tasks.spawn(follow(
            pool.clone(),
            ledger.watch(),
            (tell, bell),
            ledger.judge(),
            shutdown.clone(),
        ));
        let silent = Arc::new(OnceLock::new());
        tasks.spawn(watch_primary(
            addresses,
            ledger.pools().clone(),
            Arc::clone(&silent),
            shutdown.clone(),
        ));
        tasks.spawn(deadlines::run(ledger.clone(), shutdown.clone()));
        tasks.spawn(deadlines::purge(ledger, shutdown.clone()));
        if let Some(cosigned) = cosigned {
            tasks.spawn(cosigned.run(shutdown.clone()));
        }
        if let Some(feed) = feed {
            tasks.spawn(feed.run(shutdown.clone()));
        }
        tasks.spawn(http::write_notes(app.clone(), shutdown.clone()));
        let (router, stop) = (http::router(app), shutdown.clone());
        let transport = Transport {
            tls,
            behind_proxy: options.way.behind_proxy,
            limits: ConnectionLimits::default(),
        };
        tasks.spawn(http::serve(listener, router, transport, stop));
        tracing::info!(%address, ledger = %id, "serving");
        Ok(Self {
            address,
            ledger: id,
            vkey,
            origin,
            pool,
            presence,
            shutdown,
            silent,
            tasks,
        })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The ledger it serves.
    #[must_use]
    pub const fn ledger(&self) -> LedgerId {
        self.ledger
    }

    /// The key that checks its checkpoints, as a signed-note vkey.
    #[must_use]
    pub fn vkey(&self) -> &str {
        &self.vkey
    }

    /// The origin line of its checkpoints.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Which agents listen for work here.
    #[must_use]
    pub fn presence(&self) -> Presence {
        self.presence.clone()
    }

    /// Waits for the word to stop, and then until everything has ended.
    ///
    /// # Errors
    /// It stops by itself: see [`FellSilent`].
    pub async fn run(mut self) -> Result<(), FellSilent> {
        self.shutdown.cancelled().await;
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if let Some(silent) = self.silent.get() {
            // What waits for a silent database is not waited for.
            let _waiting = tokio::time::timeout(CLOSE, ended).await;
            return Err(silent.clone());
        }
        ended.await;
        // A batch that waits for the database does not keep the process: it is not committed, and
        // nobody was told that it is.
        if tokio::time::timeout(CLOSE, self.pool.close())
            .await
            .is_err()
        {
            tracing::warn!("the database does not answer; its connections are dropped");
        }
        Ok(())
    }
}

/// Keeps the ledger's connections on the primary; ends the server where that is not possible.
async fn watch_primary(
    addresses: Addresses,
    pools: [PgPool; 3],
    silent: Arc<OnceLock<FellSilent>>,
    shutdown: CancellationToken,
) {
    if let Err(error) = addresses.watch(pools, shutdown.clone()).await {
        tracing::error!(%error, "this server ends");
        let _first = silent.set(error);
        shutdown.cancel();
    }
}

async fn follow(
    pool: PgPool,
    log: watch::Receiver<Arc<countersign_protocol::checkpoint::Checkpoint>>,
    tell: (watch::Sender<Option<projections::Projected>>, Bell),
    judge: Arc<dyn Judge>,
    shutdown: CancellationToken,
) {
    tokio::select! {
        () = projections::run(pool, log, tell, judge) => {}
        () = shutdown.cancelled() => {}
    }
}

async fn first_entry(pool: &PgPool) -> Result<Vec<u8>, OpenError> {
    let mut connection = pool.acquire().await?;
    let rows = store::entries(&mut connection, 0, 1, 1).await?;
    rows.into_iter()
        .next()
        .map(|row| row.entry)
        .ok_or(OpenError::Empty)
}
