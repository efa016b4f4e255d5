//! Connections: how many, how long each part of one may take, and an end that does not hang.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderValue, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use super::limits::{Peer, Source};
use super::tls::Tls;

/// How long requests may finish after the word to stop.
const DRAIN: Duration = Duration::from_secs(5);

/// Connections at a time: all streams there may be, for each one more while it says something, and a
/// quarter of that for what is short.
const CONNECTIONS: usize = 40 * 1024;

/// From three quarters of the places on, a connection ends with its answer: an agent says two things
/// and is silent for hours, and its second connection must not keep a place that another needs.
const CROWDED: (usize, usize) = (3, 4);

/// With fewer places than that no fleet is served, and each connection goes on as it likes.
const FEW: usize = 256;

/// Files that the process needs for other things: the database, logs, its own.
const OTHER_FILES: usize = 128;

/// Connections of one address: a site of two thousand agents behind one, each with its stream and one
/// more while it speaks, and a tenth of all there are.
const CONNECTIONS_OF_ONE: usize = 4 * 1024;

/// The part of all connections that one address may have where there are few.
const SHARE_OF_ONE: usize = 4;

/// How long a request's head may take, and how long a connection may wait for its next one: longer
/// than any network needs, and nobody holds a place for nothing.
const HEAD: Duration = Duration::from_secs(30);

/// How long a TLS handshake may take: two round trips.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Header lines of a request: clients of ours send ten, proxies add a few.
const MAX_HEADERS: usize = 64;

/// Bytes of a request's head, and of what is held of any part of a message at a time.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// After an error that is the machine's, as too many open files, accepting pauses.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Refused connections are told in the log at most this often.
const TELL: Duration = Duration::from_secs(10);

/// What connections may take.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// At a time.
    pub all: usize,
    /// At a time, of one address (of one /64 with IPv6).
    pub of_one: usize,
    /// For the head of a request, and between requests.
    pub head: Duration,
    /// For the TLS handshake.
    pub handshake: Duration,
}

impl Default for ConnectionLimits {
    /// As many as the process may open files.
    fn default() -> Self {
        let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let files = files.map_or(usize::MAX, |files| {
            usize::try_from(files).unwrap_or(usize::MAX)
        });
        let all = files.saturating_sub(OTHER_FILES).clamp(1, CONNECTIONS);
        Self {
            all,
            of_one: CONNECTIONS_OF_ONE.min(all.div_ceil(SHARE_OF_ONE)),
            head: HEAD,
            handshake: HANDSHAKE,
        }
    }
}

/// How connections are taken up.
#[derive(Debug, Clone, Default)]
pub struct Transport {
    /// The certificate; none to speak in clear.
    pub tls: Option<Tls>,
    /// A proxy is at the other end of all of them, so no single address has too many.
    pub behind_proxy: bool,
    /// What they may take.
    pub limits: ConnectionLimits,
}

/// Serves until `shutdown`, then lets requests finish for a moment. Streams end at once.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    transport: Transport,
    shutdown: CancellationToken,
) {
    let (tasks, cut) = (TaskTracker::new(), CancellationToken::new());
    if let Some(tls) = transport.tls.clone() {
        tasks.spawn(tls.follow(shutdown.clone()));
    }
    let hall = Hall::new(&transport);
    while let Some(accepted) = shutdown.run_until_cancelled(listener.accept()).await {
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                pause_after(&error).await;
                continue;
            }
        };
        // Dropped, which closes it: saying more would take what there is too little of.
        let Some(place) = hall.enter(peer.ip()) else {
            continue;
        };
        let serving = Connection {
            peer,
            router: router.clone(),
            transport: transport.clone(),
            shutdown: shutdown.clone(),
            place,
        };
        let cut = cut.clone();
        tasks.spawn(async move { cut.run_until_cancelled(serving.serve(stream)).await });
    }
    drop(listener);
    tasks.close();
    // A peer that does not read its answer cannot keep the server from stopping.
    if timeout(DRAIN, tasks.wait()).await.is_err() {
        cut.cancel();
        tasks.wait().await;
    }
}

async fn pause_after(error: &io::Error) {
    let is_peers = matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    );
    if !is_peers {
        tracing::error!(%error, "a connection cannot be accepted");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

struct Connection {
    peer: SocketAddr,
    router: Router,
    transport: Transport,
    shutdown: CancellationToken,
    place: Place,
}

impl Connection {
    async fn serve(self, stream: TcpStream) {
        // An event of a stream is small and follows others: it must not wait for their acknowledgement.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection keeps Nagle's delay");
        }
        let Some(tls) = &self.transport.tls else {
            return self.talk(stream).await;
        };
        let handshake = tls.acceptor().accept(stream);
        let handshake = timeout(self.transport.limits.handshake, handshake);
        match self.shutdown.run_until_cancelled(handshake).await {
            Some(Ok(Ok(stream))) => self.talk(stream).await,
            Some(Ok(Err(error))) => {
                tracing::debug!(peer = %self.peer, %error, "a TLS handshake failed");
            }
            Some(Err(_elapsed)) => {
                tracing::debug!(peer = %self.peer, "a TLS handshake took too long");
            }
            None => {}
        }
    }

    async fn talk<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(self, stream: S) {
        let (router, peer, place) = (self.router, Peer(self.peer.ip()), self.place);
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(peer);
            let (router, is_crowded) = (router.clone(), place.hall.is_crowded());
            async move {
                let mut answer = router.oneshot(request).await?;
                if is_crowded {
                    let close = HeaderValue::from_static("close");
                    answer.headers_mut().insert(header::CONNECTION, close);
                }
                Ok::<_, Infallible>(answer)
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.transport.limits.head)
            .max_headers(MAX_HEADERS)
            .max_header_size(MAX_HEAD_BYTES)
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let served = tokio::select! {
            served = &mut connection => served,
            () = self.shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = served {
            tracing::debug!(peer = %self.peer, %error, "a connection broke");
        }
    }
}

/// How many connections are open, and whose.
#[derive(Debug, Clone)]
struct Hall {
    all: usize,
    of_one: usize,
    open: Arc<Mutex<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    of: HashMap<Source, usize>,
    refused: u64,
    told: Option<Instant>,
}

/// A connection's place, until it is dropped.
#[derive(Debug)]
struct Place {
    source: Source,
    hall: Hall,
}

impl Hall {
    fn new(transport: &Transport) -> Self {
        let ConnectionLimits { all, of_one, .. } = transport.limits;
        Self {
            all,
            of_one: if transport.behind_proxy { all } else { of_one },
            open: Arc::default(),
        }
    }

    fn is_crowded(&self) -> bool {
        let (part, whole) = CROWDED;
        self.all >= FEW && self.lock().all.saturating_mul(whole) > self.all.saturating_mul(part)
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more connection; none when there are too many.
    fn enter(&self, address: IpAddr) -> Option<Place> {
        let source = Source::of(address);
        let mut open = self.lock();
        let of_one = open.of.get(&source).copied().unwrap_or(0);
        if open.all >= self.all || of_one >= self.of_one {
            open.tell_refused(address);
            return None;
        }
        open.all += 1;
        open.of.insert(source, of_one + 1);
        Some(Place {
            source,
            hall: self.clone(),
        })
    }
}

impl Open {
    fn tell_refused(&mut self, address: IpAddr) {
        self.refused += 1;
        if self.told.is_some_and(|told| told.elapsed() < TELL) {
            return;
        }
        self.told = Some(Instant::now());
        let (open, refused) = (self.all, std::mem::take(&mut self.refused));
        tracing::warn!(%address, open, refused, "too many connections; some were closed unheard");
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.hall.lock();
        open.all = open.all.saturating_sub(1);
        let of_one = open.of.get(&self.source).copied().unwrap_or(0);
        if of_one > 1 {
            open.of.insert(self.source, of_one - 1);
        } else {
            open.of.remove(&self.source);
        }
    }
}
