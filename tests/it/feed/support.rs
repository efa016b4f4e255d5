//! Feeds of a ledger's entries, and receivers that write down what they hear.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::routing::post;
use countersign::feed::{Feed, FeedConfig, SinkReport, Source, Standing};
use countersign::ledger::Ledger;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::certificates::put;
use crate::support::TestLedger;

/// Longer than anything here takes.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until something is so.
pub(super) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(
            begun.elapsed() < PATIENCE,
            "it never came to be that {what}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A secret, as the file of one holds it.
pub(super) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Writes a file that only its owner can read.
pub(super) fn private(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    put(&path, text, 0o600);
    path
}

/// A feed that runs until it is dropped.
pub(super) struct Fed {
    standing: Arc<Standing>,
    stop: Option<DropGuard>,
    ran: tokio::task::JoinHandle<()>,
}

impl Fed {
    /// Feeds a ledger's entries as a file of sinks says, which lies in the ledger's folder.
    pub(super) async fn start(book: &TestLedger, sinks: &str) -> Self {
        Self::of(book, &book.ledger, sinks).await
    }

    /// The same by a server of the book's ledger that may be another than the book's own.
    pub(super) async fn of(book: &TestLedger, server: &Ledger, sinks: &str) -> Self {
        let file = book.folder.path().join("feed.toml");
        std::fs::write(&file, sinks).unwrap();
        let pool = book.database.another_app().await;
        let source = Source {
            ledger: server.id(),
            origin: server.verifier().origin().clone(),
            database: pool.clone(),
            log: server.watch(),
            learning: server.learning(),
            clock: book.clock.clone(),
        };
        pool.close().await;
        let feed = Feed::new(FeedConfig::read(&file).unwrap(), &source).unwrap();
        let stop = CancellationToken::new();
        Self {
            standing: feed.standing(),
            ran: tokio::spawn(feed.run(stop.clone())),
            stop: Some(stop.drop_guard()),
        }
    }

    pub(super) fn report(&self) -> SinkReport {
        self.standing.reports().remove(0)
    }

    /// Waits until everything that is in the log now was told.
    pub(super) async fn caught_up(&self, book: &TestLedger) {
        let size = book.ledger.newest().size();
        until("all is told", || {
            self.report().next.is_some_and(|next| next >= size)
        })
        .await;
    }

    pub(super) async fn state(&self, word: &str) {
        until(word, || self.report().state.as_str() == word).await;
    }

    pub(super) async fn stop(mut self) {
        drop(self.stop.take());
        self.ran.await.unwrap();
    }
}

/// One call of a webhook.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    pub(super) at: Instant,
}

impl Call {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(super) fn seq(&self) -> u64 {
        self.json()["data"]["seq"].as_u64().unwrap()
    }
}

/// What the next calls are answered; 200 when nothing is left.
pub(super) type Answers = Vec<(StatusCode, Vec<(&'static str, String)>)>;

/// A real HTTP server that takes webhooks.
#[derive(Clone)]
pub(super) struct Hook {
    pub(super) url: String,
    calls: Arc<Mutex<Vec<Call>>>,
    answers: Arc<Mutex<Answers>>,
    hangs: Arc<Mutex<bool>>,
}

impl Hook {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let hook = Self {
            url: format!(
                "http://{}/hook/of-a-secret-path",
                listener.local_addr().unwrap()
            ),
            calls: Arc::default(),
            answers: Arc::default(),
            hangs: Arc::default(),
        };
        let router = Router::new()
            .route("/hook/of-a-secret-path", post(take))
            .with_state(hook.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        hook
    }

    /// A file of one sink that tells it of all there is.
    pub(super) fn sink(&self, more: &str) -> String {
        format!(
            "[[sink]]\nname = \"hook\"\nkind = \"webhook\"\nurl = \"{}\"\nfrom = \"start\"\nkinds = [\"*\"]\nsecret_files = [\"secret\"]\n{more}\n",
            self.url
        )
    }

    pub(super) fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    pub(super) fn seqs(&self) -> Vec<u64> {
        self.calls().iter().map(Call::seq).collect()
    }

    /// Says what the next calls are answered, the last first.
    pub(super) fn answer(&self, answers: Answers) {
        *self.answers.lock().unwrap() = answers;
    }

    /// From now on nothing is answered, or it is again.
    pub(super) fn hang(&self, hangs: bool) {
        *self.hangs.lock().unwrap() = hangs;
    }
}

async fn take(
    State(hook): State<Hook>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, HeaderMap) {
    hook.calls.lock().unwrap().push(Call {
        headers,
        body: body.to_vec(),
        at: Instant::now(),
    });
    let hangs = *hook.hangs.lock().unwrap();
    if hangs {
        std::future::pending::<()>().await;
    }
    let (status, headers) = hook
        .answers
        .lock()
        .unwrap()
        .pop()
        .unwrap_or((StatusCode::OK, Vec::new()));
    let headers = headers.into_iter().map(|(name, value)| {
        let value = HeaderValue::from_str(&value).unwrap();
        (HeaderName::from_static(name), value)
    });
    (status, headers.collect())
}
