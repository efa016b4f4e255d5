//! The only code that talks HTTP: requests out, capped bodies in, retries.
//!
//! It believes nothing and verifies nothing: what comes back is parsed into the wire's shapes and
//! handed on. A request that may not have arrived is sent again with the very same bytes; the
//! ledger enters a statement once.

use std::time::Duration;

use countersign_protocol::api::Problem;
use countersign_protocol::origin::ServerOrigin;
use reqwest::{RequestBuilder, Response, StatusCode, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout};

use crate::entropy;
use crate::events::{Parser, ServerEvent};
use crate::failure::Failure;
use crate::tls::{self, Way, WayError};

/// Longest wait for a connection: further away than that is down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest wait for an ordinary answer; a stream with all its blobs may take a while.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// After this much silence a stream's peer is dead: it comments every 15 s.
const SILENCE: Duration = Duration::from_secs(45);

/// Most tries of one request: with the waits between them some ten seconds, a restart's length.
const TRIES: u32 = 7;

/// No new try after this long, however few there were: a person is waiting.
const RETRY_FOR: Duration = Duration::from_secs(20);

/// The first wait between tries; each next one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// The longest wait between tries.
const LONGEST_WAIT: Duration = Duration::from_secs(4);

/// The longest wait that a server may ask for with `Retry-After`: a person is waiting.
const LONGEST_ASKED: Duration = Duration::from_secs(15);

/// Largest answer: a command's stream with 64 MiB of output in base64, and its proofs.
const MAX_ANSWER_BYTES: usize = 128 * 1024 * 1024;

/// Largest problem document that is read; more would only fill the screen.
const MAX_PROBLEM_BYTES: usize = 64 * 1024;

/// Why there is no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is none.
    #[error("not a server's address: {0}")]
    Address(String),
    /// TLS could not be set up.
    #[error("cannot set up connections: {0}")]
    Setup(reqwest::Error),
    /// The way there is not one to take.
    #[error(transparent)]
    Way(#[from] WayError),
    /// Somebody is there, and is not proved to be the server.
    #[error("cannot trust {server}: {reason}")]
    Untrusted {
        /// Which server.
        server: String,
        /// What TLS has against it.
        reason: String,
    },
    /// No connection, or it broke, each time.
    #[error("cannot reach {server}: {reason}")]
    Unreachable {
        /// Which server.
        server: String,
        /// Why, as the last try had it.
        reason: String,
    },
    /// The server answered with an error.
    #[error("{}", .0.detail)]
    Problem(Box<Problem>),
    /// The answer is larger than any.
    #[error("the server's answer is larger than {0} bytes; it was not read further")]
    TooLarge(usize),
    /// The answer is not of its shape.
    #[error("the server's answer to {path} is not what the interface says: {reason}")]
    Malformed {
        /// What was asked for.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl ClientError {
    /// The status of the server's answer, when it gave an error.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Problem(problem) => Some(problem.status),
            Self::Address(_)
            | Self::Setup(_)
            | Self::Way(_)
            | Self::Untrusted { .. }
            | Self::Unreachable { .. }
            | Self::TooLarge(_)
            | Self::Malformed { .. } => None,
        }
    }

    /// Whether trying again later may help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. }) || matches!(self.status(), Some(429 | 502..=504))
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let message = error.to_string();
        match error {
            ClientError::Address(_) => {
                Self::usage(message).hint("give it as http://HOST:PORT or https://HOST")
            }
            ClientError::Setup(_) => Self::failed("setup", message)
                .hint("install the system's CA certificates (ca-certificates)"),
            ClientError::Way(WayError::InClear(_)) => Self::usage(message).hint(
                "give an https address; if the network between is trusted, say --insecure-http or set COUNTERSIGN_INSECURE_HTTP=true",
            ),
            ClientError::Way(_) => Self::usage(message)
                .hint("give the CA's certificate with --ca FILE or COUNTERSIGN_CA"),
            ClientError::Untrusted { .. } => Self::unreachable("untrusted", message).hint(
                "nothing was sent; give the file of the CA that issued the server's certificate with --ca FILE or COUNTERSIGN_CA, and ask its operator when that does not help",
            ),
            ClientError::Unreachable { .. } => Self::unreachable("unreachable", message)
                .hint("check --server and the network; nothing was lost, try again"),
            ClientError::TooLarge(_) => Self::failed("answer_too_large", message),
            ClientError::Malformed { .. } => Self::failed("malformed_answer", message)
                .hint("is this a countersign server of the same version?"),
            ClientError::Problem(problem) => of_problem(*problem),
        }
    }
}

fn of_problem(problem: Problem) -> Failure {
    let message = if problem.detail.is_empty() {
        problem.title
    } else {
        problem.detail
    };
    let failure = match problem.status {
        401 | 403 | 409 => Failure::refused(problem.code, message),
        429 | 502..=504 => Failure::unreachable(problem.code, message),
        _other => Failure::failed(problem.code, message),
    };
    match problem.hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// A server's address and the connections to it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Http {
    client: reqwest::Client,
    base: String,
    origin: ServerOrigin,
}

impl Http {
    /// Prepares connections to a server; connects to nothing yet.
    ///
    /// # Errors
    /// The address is none, the way there is not one to take, or there are no CA certificates for
    /// `https`.
    pub fn new(server: &str, way: &Way) -> Result<Self, ClientError> {
        let base = server.trim_end_matches('/');
        let url = reqwest::Url::parse(base).map_err(|_| ClientError::Address(server.to_owned()))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() || url.query().is_some() {
            return Err(ClientError::Address(server.to_owned()));
        }
        let origin = url.origin().ascii_serialization();
        let origin = origin.parse();
        let origin = origin.map_err(|_| ClientError::Address(server.to_owned()))?;
        // Another part of the process may have installed the same one before.
        drop(rustls::crypto::ring::default_provider().install_default());
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none());
        if let Some(roots) = way.check(&url)? {
            builder = builder.tls_certs_only(roots);
        }
        Ok(Self {
            client: builder.build().map_err(ClientError::Setup)?,
            base: base.to_owned(),
            origin,
        })
    }

    /// The address, without a slash at its end.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Where the server is met: what a sign-in there names.
    #[must_use]
    pub const fn origin(&self) -> &ServerOrigin {
        &self.origin
    }

    /// Reads a JSON document.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, String)],
        token: Option<&str>,
    ) -> Result<T, ClientError> {
        let request = || {
            let request = self.client.get(format!("{}{path}", self.base));
            bearer(request.query(query), token)
        };
        parse(path, &self.exchange(request).await?)
    }

    /// Reads a text that is open to all.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn text(&self, path: &str) -> Result<String, ClientError> {
        let request = || self.client.get(format!("{}{path}", self.base));
        let bytes = self.exchange(request).await?;
        String::from_utf8(bytes).map_err(|error| ClientError::Malformed {
            path: path.to_owned(),
            reason: error.to_string(),
        })
    }

    /// Sends a JSON document and reads one. Sent again, byte for byte, when it may not have arrived.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn post<B: Serialize + Sync, T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, String)],
        body: &B,
        token: Option<&str>,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| ClientError::Malformed {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
        let request = || {
            let request = self.client.post(format!("{}{path}", self.base));
            bearer(request.query(query), token)
                .header("content-type", "application/json")
                .body(body.clone())
        };
        parse(path, &self.exchange(request).await?)
    }

    /// Opens an event stream, after the entry `last` when one is given. One try, and one more after
    /// as long as a busy server asks for.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn events(
        &self,
        path: &str,
        last: Option<u64>,
        token: Option<&str>,
    ) -> Result<EventStream, ClientError> {
        let open = async || {
            let request = self.client.get(format!("{}{path}", self.base));
            let mut request = bearer(request, token).header("accept", "text/event-stream");
            if let Some(last) = last {
                request = request.header("last-event-id", last.to_string());
            }
            match timeout(ANSWER_TIMEOUT, request.send()).await {
                Ok(response) => response.map_err(|error| self.unreachable(&error)),
                Err(_elapsed) => Err(self.silent()),
            }
        };
        let mut response = open().await?;
        if let Some(asked) = asked_wait(&response) {
            sleep(asked).await;
            response = open().await?;
        }
        if !response.status().is_success() {
            let status = response.status();
            let body = self.read(response, MAX_PROBLEM_BYTES).await?;
            return Err(problem(status, &body));
        }
        Ok(EventStream {
            http: self.clone(),
            response,
            parser: Parser::default(),
            ready: Vec::new().into_iter(),
        })
    }

    /// One request, tried again while that may help.
    async fn exchange(&self, request: impl Fn() -> RequestBuilder) -> Result<Vec<u8>, ClientError> {
        let since = Instant::now();
        let mut wait = FIRST_WAIT;
        for attempt in 1.. {
            let mut asked = None;
            let once = self.once(request().timeout(ANSWER_TIMEOUT), &mut asked);
            let error = match once.await {
                Err(error) if error.is_transient() => error,
                settled => return settled,
            };
            if attempt >= TRIES || since.elapsed() >= RETRY_FOR {
                return Err(error);
            }
            sleep(jittered(wait).max(asked.unwrap_or_default())).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
        Err(self.silent())
    }

    /// One try. `asked` becomes the wait that the server asked for.
    async fn once(
        &self,
        request: RequestBuilder,
        asked: &mut Option<Duration>,
    ) -> Result<Vec<u8>, ClientError> {
        let response = request.send().await.map_err(|e| self.unreachable(&e))?;
        *asked = asked_wait(&response);
        let status = response.status();
        if status.is_success() {
            self.read(response, MAX_ANSWER_BYTES).await
        } else {
            let body = self.read(response, MAX_PROBLEM_BYTES).await?;
            Err(problem(status, &body))
        }
    }

    async fn read(&self, mut response: Response, cap: usize) -> Result<Vec<u8>, ClientError> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| self.unreachable(&e))? {
            if body.len() + chunk.len() > cap {
                return Err(ClientError::TooLarge(cap));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn unreachable(&self, error: &reqwest::Error) -> ClientError {
        if let Some(reason) = tls::reason(error) {
            return ClientError::Untrusted {
                server: self.base.clone(),
                reason,
            };
        }
        // The causes say "connection refused"; the error itself only "error sending request".
        let mut cause: &dyn std::error::Error = error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        ClientError::Unreachable {
            server: self.base.clone(),
            reason: cause.to_string(),
        }
    }

    fn silent(&self) -> ClientError {
        ClientError::Unreachable {
            server: self.base.clone(),
            reason: "it stays silent".to_owned(),
        }
    }
}

/// An open event stream.
#[derive(Debug)]
pub struct EventStream {
    http: Http,
    response: Response,
    parser: Parser,
    ready: std::vec::IntoIter<ServerEvent>,
}

impl EventStream {
    /// The next event; none when the server ended the stream.
    ///
    /// # Errors
    /// The connection broke or went silent, or an event is larger than any.
    pub async fn next(&mut self) -> Result<Option<ServerEvent>, ClientError> {
        loop {
            if let Some(event) = self.ready.next() {
                return Ok(Some(event));
            }
            let Ok(chunk) = timeout(SILENCE, self.response.chunk()).await else {
                return Err(self.http.silent());
            };
            let Some(chunk) = chunk.map_err(|error| self.http.unreachable(&error))? else {
                return Ok(None);
            };
            let events = self.parser.push(&chunk);
            let too_large = |_| ClientError::TooLarge(crate::events::MAX_EVENT_BYTES);
            self.ready = events.map_err(too_large)?.into_iter();
        }
    }
}

/// How long a server asks to wait that has had too many calls, within bounds. That of a server in
/// trouble is a guess, and ours is better.
fn asked_wait(response: &Response) -> Option<Duration> {
    if response.status() != StatusCode::TOO_MANY_REQUESTS {
        return None;
    }
    let value = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    let asked = Duration::from_secs(value.parse().ok()?);
    Some(asked.min(LONGEST_ASKED))
}

fn bearer(request: RequestBuilder, token: Option<&str>) -> RequestBuilder {
    match token {
        Some(token) => request.bearer_auth(token),
        None => request,
    }
}

/// Parses an answer; the path is for the error's text.
///
/// # Errors
/// [`ClientError::Malformed`].
pub fn parse<T: DeserializeOwned>(path: &str, body: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(body).map_err(|error| ClientError::Malformed {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

fn problem(status: StatusCode, body: &[u8]) -> ClientError {
    let fallback = || Problem {
        kind: "about:blank".into(),
        title: status.canonical_reason().unwrap_or("error").into(),
        status: status.as_u16(),
        code: format!("http_{}", status.as_u16()),
        detail: format!("the server answered with status {}", status.as_u16()),
        hint: None,
    };
    let mut problem: Problem = serde_json::from_slice(body).unwrap_or_else(|_| fallback());
    // The line's status decides; a document that says otherwise does not choose our exit code.
    problem.status = status.as_u16();
    ClientError::Problem(Box::new(problem))
}

/// Between half of it and all of it, so that many clients do not come back at once.
fn jittered(wait: Duration) -> Duration {
    let [byte] = entropy::random::<1>();
    wait / 2 + wait / 2 * u32::from(byte) / 255
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit_code;

    fn failure(status: u16, body: &str) -> Failure {
        problem(StatusCode::from_u16(status).unwrap(), body.as_bytes()).into()
    }

    #[test]
    fn statuses_become_exit_codes() {
        let expected = [
            (400, exit_code::FAILED),
            (401, exit_code::REFUSED),
            (403, exit_code::REFUSED),
            (404, exit_code::FAILED),
            (409, exit_code::REFUSED),
            (410, exit_code::FAILED),
            (413, exit_code::FAILED),
            (422, exit_code::FAILED),
            (429, exit_code::UNREACHABLE),
            (500, exit_code::FAILED),
            (503, exit_code::UNREACHABLE),
        ];
        for (status, exit) in expected {
            assert_eq!(failure(status, "<html>").exit, exit, "{status}");
        }
    }

    #[test]
    fn the_status_line_and_not_the_document_decides() {
        let body = r#"{"type":"about:blank","title":"t","status":503,"code":"c","detail":"d"}"#;
        let failure = failure(409, body);
        assert_eq!(failure.exit, exit_code::REFUSED);
        assert_eq!((failure.code.as_ref(), failure.message()), ("c", "d"));
    }

    #[test]
    fn an_address_is_http_with_a_host() {
        let way = Way::default();
        let http = Http::new("http://LOCALHOST:80/", &way).unwrap();
        assert_eq!(http.origin().as_str(), "http://localhost");
        let http = Http::new("http://127.0.0.1:8080/", &way).unwrap();
        assert_eq!(http.origin().as_str(), "http://127.0.0.1:8080");
        for bad in [
            "",
            "localhost:80",
            "ftp://x",
            "file:///etc/passwd",
            "http://h/?q",
        ] {
            assert!(
                matches!(Http::new(bad, &way), Err(ClientError::Address(_))),
                "{bad}"
            );
        }
    }
}
