//! A ledger with people in it, served over HTTP on a port of its own.

use std::time::Duration;

use countersign::http::{self, App, Origins, Transport};
use countersign::keys::LedgerKeys;
use countersign::ledger::{self, Ledger, store};
use countersign::projections::{self, Reader};
use countersign_protocol::api::{self, ChallengeBody, SessionBody};
use countersign_protocol::event::{Event, SessionChallenge};
use countersign_protocol::name::Nonce;
use countersign_protocol::statement::Statement;
use reqwest::{Method, RequestBuilder, Response};
use serde::de::DeserializeOwned;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::TestLedger;
use crate::statements::{key, public};

pub(crate) struct TestServer {
    pub(crate) book: TestLedger,
    /// What it serves: the book's, or one beside it.
    pub(crate) ledger: Ledger,
    pub(crate) reader: Reader,
    pub(crate) shutdown: CancellationToken,
    url: String,
    http: reqwest::Client,
    _stop: DropGuard,
}

/// A statement and its blobs as they travel.
pub(crate) fn pack(submission: &ledger::Submission) -> api::Submission {
    api::Submission::new(&submission.statement, &submission.blobs)
}

impl TestServer {
    pub(crate) async fn start() -> Self {
        Self::over(TestLedger::ready().await).await
    }

    pub(crate) async fn over(book: TestLedger) -> Self {
        Self::with(book, Transport::default(), &[]).await
    }

    /// One that listens as `transport` says and is also met at the addresses `public`.
    pub(crate) async fn with(book: TestLedger, transport: Transport, public: &[&str]) -> Self {
        let ledger = book.ledger.clone();
        Self::serving((book, ledger), transport, public).await
    }

    /// A second server on the book's database: what the book says, it learns from there.
    pub(crate) async fn beside(book: TestLedger) -> Self {
        let ledger = book.another_server().await;
        Self::serving((book, ledger), Transport::default(), &[]).await
    }

    async fn serving(
        (book, ledger): (TestLedger, Ledger),
        transport: Transport,
        public: &[&str],
    ) -> Self {
        // One pool for all, as a server has.
        let pool = ledger.pool().clone();
        let (tell, projected) = watch::channel(None);
        let reader = Reader::new(pool.clone(), ledger.watch(), projected);
        tokio::spawn(projections::run(
            pool,
            ledger.watch(),
            (tell, reader.bell()),
            ledger.judge(),
        ));
        let keys = LedgerKeys::read(book.folder.path()).unwrap();
        let mut connection = book.database.app.acquire().await.unwrap();
        let genesis = store::entries(&mut connection, 0, 1, 1)
            .await
            .unwrap()
            .remove(0);
        drop(connection);
        let shutdown = CancellationToken::new();
        let app = App::new(
            ledger.clone(),
            reader.clone(),
            book.clock.clone(),
            genesis.entry,
            keys.session_secret(),
            shutdown.clone(),
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, is_tls) = (listener.local_addr().unwrap(), transport.tls.is_some());
        let scheme = if is_tls { "https" } else { "http" };
        let url = format!("{scheme}://{address}");
        let public: Vec<_> = public.iter().map(|url| url.parse().unwrap()).collect();
        let app = app.met_at(
            Origins::of(address, is_tls, &public),
            transport.behind_proxy,
        );
        let app = app.with_gateway(keys.gateway());
        tokio::spawn(http::write_notes(app.clone(), shutdown.clone()));
        let router = http::router(app);
        tokio::spawn(http::serve(listener, router, transport, shutdown.clone()));
        let _second = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(30))
            .build()
            .unwrap();
        let stop = shutdown.clone().drop_guard();
        Self {
            book,
            ledger,
            reader,
            shutdown,
            url,
            http,
            _stop: stop,
        }
    }

    /// The same server, called with another client.
    pub(crate) fn using(self, http: reqwest::Client) -> Self {
        Self { http, ..self }
    }

    /// Host and port.
    pub(crate) fn address(&self) -> &str {
        self.url.split_once("://").unwrap().1
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn call(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url))
    }

    pub(crate) async fn post(&self, path: &str, body: &impl serde::Serialize) -> Response {
        let body = serde_json::to_vec(body).unwrap();
        self.call(Method::POST, path)
            .body(body)
            .send()
            .await
            .unwrap()
    }

    pub(crate) async fn submit(&self, submission: &ledger::Submission) -> Response {
        self.post("/v1/statements", &pack(submission)).await
    }

    /// A session token of an agent, by one of its keys.
    pub(crate) async fn sign_in_by(&self, agent: &str, with: &str) -> String {
        let answer = self.answer_by(agent, true, with).await;
        let session: SessionBody = json(self.sign_in_with(&answer).await).await;
        session.token
    }

    /// The signed answer to a challenge.
    pub(crate) async fn answer(&self, who: &str, is_agent: bool) -> Statement {
        self.answer_by(who, is_agent, who).await
    }

    /// A person's answer by a client that met the server at another address.
    pub(crate) async fn answer_at(&self, who: &str, origin: &str) -> Statement {
        self.answer_of(who, false, who, origin).await
    }

    async fn answer_by(&self, who: &str, is_agent: bool, with: &str) -> Statement {
        self.answer_of(who, is_agent, with, &self.url).await
    }

    async fn answer_of(&self, who: &str, is_agent: bool, with: &str, origin: &str) -> Statement {
        let challenge: ChallengeBody = json(self.post("/v1/sessions/challenge", &()).await).await;
        let (principal, agent) = if is_agent {
            (None, Some(who.parse().unwrap()))
        } else {
            (Some(who.parse().unwrap()), None)
        };
        let answer = SessionChallenge {
            signer: public(with).key_id(),
            principal,
            agent,
            nonce: Nonce::new([0; 16]),
            made_at: self.book.clock.now(),
            ledger: self.book.ledger.id(),
            server: origin.parse().unwrap(),
            challenge: challenge.challenge.parse().unwrap(),
        };
        Statement::sign(&Event::from(answer), &key(with)).unwrap()
    }

    pub(crate) async fn sign_in_with(&self, answer: &Statement) -> Response {
        self.post("/v1/sessions", &api::Submission::new(answer, []))
            .await
    }

    /// A session token of a person, or of an agent (`web-1`).
    pub(crate) async fn sign_in(&self, who: &str) -> String {
        let answer = self.answer(who, who.starts_with("web-")).await;
        let session: SessionBody = json(self.sign_in_with(&answer).await).await;
        session.token
    }

    pub(crate) async fn get_as(&self, token: &str, path: &str) -> Response {
        self.call(Method::GET, path)
            .bearer_auth(token)
            .send()
            .await
            .unwrap()
    }

    /// Reads a resource as a person.
    pub(crate) async fn get<T: DeserializeOwned>(&self, who: &str, path: &str) -> T {
        let token = self.sign_in(who).await;
        json(self.get_as(&token, path).await).await
    }
}

/// The JSON of a successful answer.
pub(crate) async fn json<T: DeserializeOwned>(response: Response) -> T {
    let status = response.status();
    let text = response.text().await.unwrap();
    assert!(status.is_success(), "{status}: {text}");
    serde_json::from_str(&text).unwrap_or_else(|error| unreachable!("{error}: {text}"))
}

/// Status and code of a problem.
pub(crate) async fn problem(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let kind = response.headers()["content-type"]
        .to_str()
        .unwrap()
        .to_owned();
    let text = response.text().await.unwrap();
    assert_eq!(kind, "application/problem+json", "{text}");
    let problem: api::Problem = serde_json::from_str(&text).unwrap();
    assert_eq!(problem.status, status);
    (status, problem.code)
}
