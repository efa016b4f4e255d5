//! A witness over HTTP: one route that signs, one that says it is alive.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use countersign_protocol::checkpoint::{Origin, VerifierKey};
use countersign_protocol::cosignature::WitnessKey;
use countersign_protocol::witness::{AddCheckpoint, MAX_REQUEST_BYTES, SIZE_CONTENT_TYPE};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::memory::MemoryError;
use super::watch::{Answer, MAX_LOGS, Watch};
use crate::clock::Clock;
use crate::http::{ConnectionLimits, Tls, TlsError, TlsFiles, Transport, serve};
use crate::keys::{self, KeyFileError};

/// Requests that are judged at a time: each may wait for the disk, and more only wait for each other.
const JUDGED_AT_A_TIME: usize = 64;

/// How long a request's body may take: it is small.
const BODY: Duration = Duration::from_secs(10);

/// What a witness needs.
#[derive(Debug)]
pub struct Options {
    /// The name in its signature lines.
    pub name: Origin,
    /// The file of its key, an OpenSSH private key.
    pub key: PathBuf,
    /// Where it remembers what it signed.
    pub state: PathBuf,
    /// The logs it watches, by their keys; one log may have several.
    pub logs: Vec<VerifierKey>,
    /// Where to listen.
    pub listen: SocketAddr,
    /// Its certificate and key; none to speak in clear: all that it says is signed and public.
    pub tls: Option<TlsFiles>,
    /// A proxy stands before it.
    pub behind_proxy: bool,
    /// Time.
    pub clock: Clock,
}

/// Why a witness does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its key.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// Its memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Certificate or key.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Nothing to watch, or too much.
    #[error(
        "a witness watches 1 to {MAX_LOGS} logs, not {0}; name each with --log VKEY, as its operator gave it to you"
    )]
    Logs(usize),
    /// The address to listen at.
    #[error("cannot listen at {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
}

/// A witness that serves.
#[derive(Debug)]
pub struct Witness {
    address: SocketAddr,
    key: WitnessKey,
    serving: tokio::task::JoinHandle<()>,
}

#[derive(Clone)]
struct Room {
    watch: Arc<Watch>,
    judging: Arc<Semaphore>,
}

impl Witness {
    /// Reads its memory and listens. It serves when this returns, until `shutdown`.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(options: Options, shutdown: CancellationToken) -> Result<Self, StartError> {
        if options.logs.is_empty() || options.logs.len() > MAX_LOGS {
            return Err(StartError::Logs(options.logs.len()));
        }
        let tls = options.tls.map(Tls::open).transpose()?;
        let key = keys::read(&options.key)?;
        let watch = Watch::open(
            &options.state,
            options.name,
            key,
            &options.logs,
            options.clock,
        )?;
        let key = watch.witness_key();
        let listening = |error| StartError::Listen(options.listen, error);
        let listener = TcpListener::bind(options.listen).await.map_err(listening)?;
        let address = listener.local_addr().map_err(listening)?;
        let transport = Transport {
            tls,
            behind_proxy: options.behind_proxy,
            limits: ConnectionLimits::default(),
        };
        let room = Room {
            watch: Arc::new(watch),
            judging: Arc::new(Semaphore::new(JUDGED_AT_A_TIME)),
        };
        let router = Router::new()
            .route("/add-checkpoint", post(add_checkpoint))
            .route("/livez", get(async || "ok\n"))
            .with_state(room);
        let serving = tokio::spawn(serve(listener, router, transport, shutdown));
        tracing::info!(%address, key = %key, logs = options.logs.len(), "witnessing");
        Ok(Self {
            address,
            key,
            serving,
        })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The key by which its signatures are checked.
    #[must_use]
    pub const fn key(&self) -> &WitnessKey {
        &self.key
    }

    /// Waits until it has stopped.
    pub async fn run(self) {
        if let Err(error) = self.serving.await {
            tracing::error!(%error, "the witness broke");
        }
    }
}

async fn add_checkpoint(State(room): State<Room>, body: Body) -> Response {
    let text = |status: StatusCode, text: &str| (status, format!("{text}\n")).into_response();
    let bytes = match tokio::time::timeout(BODY, to_bytes(body, MAX_REQUEST_BYTES)).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(_)) => return text(StatusCode::PAYLOAD_TOO_LARGE, "larger than any request"),
        Err(_elapsed) => return text(StatusCode::REQUEST_TIMEOUT, "the request took too long"),
    };
    let request = std::str::from_utf8(&bytes).ok();
    let Some(request) = request.and_then(|text| text.parse::<AddCheckpoint>().ok()) else {
        let usage = countersign_protocol::witness::NotARequest.to_string();
        return text(StatusCode::BAD_REQUEST, &usage);
    };
    let Ok(permit) = room.judging.acquire_owned().await else {
        return text(StatusCode::SERVICE_UNAVAILABLE, "the witness is stopping");
    };
    // Runs to its end also when the caller has gone: memory and disk stay one.
    let judged = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        room.watch.add(&request)
    });
    match judged.await {
        Ok(answer) => respond(answer),
        Err(error) => {
            tracing::error!(%error, "a request could not be judged");
            text(StatusCode::INTERNAL_SERVER_ERROR, "the witness failed")
        }
    }
}

fn respond(answer: Answer) -> Response {
    let text = |status: StatusCode, text: &str| (status, format!("{text}\n")).into_response();
    match answer {
        Answer::Signed(line) => text(StatusCode::OK, line.line()),
        Answer::Malformed(why) => text(StatusCode::BAD_REQUEST, &why),
        Answer::UnknownLog => text(StatusCode::NOT_FOUND, "this witness watches no such log"),
        Answer::NotSigned(why) => text(StatusCode::FORBIDDEN, &why),
        Answer::Conflict(size) => {
            let kind = [(header::CONTENT_TYPE, SIZE_CONTENT_TYPE)];
            (StatusCode::CONFLICT, kind, format!("{size}\n")).into_response()
        }
        Answer::BadProof(why) => text(StatusCode::UNPROCESSABLE_ENTITY, &why),
        Answer::CannotKeep => text(
            StatusCode::SERVICE_UNAVAILABLE,
            "the witness cannot write down what it would sign; its operator must look",
        ),
    }
}
