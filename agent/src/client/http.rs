//! Requests to the server: signed in where that is needed, bounded, and told apart by whether
//! another try can help.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Once};
use std::time::Duration;

use countersign_protocol::api::{
    Answer, Answers, ChallengeBody, LedgerInfo, MAX_BODY_BYTES, Problem, ProofBody, Receipt, SEEN,
    SessionBody, Submission, Work,
};
use countersign_protocol::event::{Event, SessionChallenge};
use countersign_protocol::hash::{Hash, LedgerId};
use countersign_protocol::key::PublicKey;
use countersign_protocol::name::{AgentName, SECOND_US, Time};
use countersign_protocol::origin::ServerOrigin;
use countersign_protocol::statement::Statement;
use ed25519_dalek::SigningKey;
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::events::{EventParser, ServerEvent};
use super::tls::{self, Ca};
use crate::clock::Clock;
use crate::key;

/// How long a connection may take: a server that needs longer is as good as away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an answer may take; the ledger commits in milliseconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the work stream may be silent: three of the server's comments.
const SILENCE: Duration = Duration::from_secs(45);

/// Largest answer: a batch of receipts with full entries stays below it.
const MAX_ANSWER_BYTES: usize = MAX_BODY_BYTES;

/// A session is renewed when it has less left than this.
const RENEW_BEFORE_US: u64 = 60 * SECOND_US;

/// The longest wait that a server may ask for with `Retry-After`: commands wait with it.
const LONGEST_ASKED: Duration = Duration::from_secs(30);

/// How often a request is sent again after such a wait, before whoever sends it is told.
const PATIENCE: u32 = 3;

/// The code of a sign-in at a server that is not met where this agent was told.
const OTHER_ORIGIN: &str = "origin";

/// The code of a sign-in whose challenge the server does not take.
const NOT_ITS_CHALLENGE: &str = "challenge";

/// How often a challenge is asked for in one sign-in. One may be spent though its answer is right: the answer was
/// lost and sent again, or another server than its own took it, whose clock is behind.
const CHALLENGES: u32 = 3;

/// Why a request has no answer that can be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClientError {
    /// The server is away, busy or not itself: try again, the same statement is entered once.
    #[error("the server cannot be reached: {0}")]
    Unreachable(String),
    /// It answered with something else than the interface says; try again later.
    #[error("the server's answer makes no sense: {0}")]
    Malformed(String),
    /// No session, or one that ended, or a key that is not accepted.
    #[error("the server does not let this agent in: {}", .0.detail)]
    Unauthorized(Box<Problem>),
    /// It said no; trying again does not help.
    #[error("the server refused ({}): {}", .0.code, .0.detail)]
    Refused(Box<Problem>),
    /// Here, before anything was sent.
    #[error("cannot make the request: {0}")]
    Local(String),
}

/// Who signs in.
#[derive(Clone)]
pub struct SignIn {
    /// The agent.
    pub agent: AgentName,
    /// The ledger it knows.
    pub ledger: LedgerId,
    /// Its key.
    pub key: SigningKey,
}

struct Session {
    token: Zeroizing<String>,
    expires: Time,
}

/// A connection to one server as one agent.
pub struct Client {
    http: reqwest::Client,
    base: Url,
    origin: ServerOrigin,
    who: SignIn,
    clock: Clock,
    session: Mutex<Option<Session>>,
}

#[derive(Serialize)]
struct Batch<'a> {
    statements: Vec<&'a Submission>,
}

impl Client {
    /// A client for the server at `base`. Connects to nothing yet. With a pinned `ca` only that one
    /// is trusted, else the system's are.
    ///
    /// # Errors
    /// The TLS of this system cannot be set up, or the address has no host.
    pub fn new(
        base: &Url,
        ca: Option<&Ca>,
        who: SignIn,
        clock: Clock,
    ) -> Result<Self, ClientError> {
        Self::from_address(base, ca, who, (clock, None))
    }

    /// [`Client::new`] whose connections come from one of this machine's addresses: whoever plays
    /// many hosts gives each its own, as hosts have.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn from_address(
        base: &Url,
        ca: Option<&Ca>,
        who: SignIn,
        (clock, address): (Clock, Option<IpAddr>),
    ) -> Result<Self, ClientError> {
        static PROVIDER: Once = Once::new();
        PROVIDER.call_once(|| {
            // Someone else in this process may have chosen one before; then that one serves.
            let _ = rustls::crypto::ring::default_provider().install_default();
        });
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(SILENCE)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .local_address(address)
            .user_agent(concat!("countersign-agent/", env!("CARGO_PKG_VERSION")));
        if base.scheme() == "http" {
            // Without TLS no roots are needed, and a bare machine has none.
            builder = builder.tls_certs_only([]);
        } else if let Some(ca) = ca {
            builder = builder.tls_certs_only(ca.certificates());
        }
        let http = builder.build();
        let http = http.map_err(|error| ClientError::Local(tell(&error)))?;
        let origin = base.origin().ascii_serialization().parse();
        let origin: ServerOrigin =
            origin.map_err(|_| ClientError::Local("the server's address has no host".into()))?;
        let mut base = base.clone();
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        Ok(Self {
            http,
            base,
            origin,
            who,
            clock,
            session: Mutex::new(None),
        })
    }

    /// Who the ledger says it is.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn ledger(&self) -> Result<LedgerInfo, ClientError> {
        self.answer(self.request(Method::GET, &["v1", "ledger"])?)
            .await
    }

    /// The newest checkpoint that the server's witnesses have signed.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn cosigned(&self) -> Result<String, ClientError> {
        let request = self.request(Method::GET, &["checkpoint"])?;
        let response = send(request.timeout(ANSWER_TIMEOUT)).await?;
        String::from_utf8(body(response).await?)
            .map_err(|error| ClientError::Malformed(error.to_string()))
    }

    /// Hashes that lead from the tree of size `from` to that of size `to`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn consistency(&self, from: u64, to: u64) -> Result<Vec<Hash>, ClientError> {
        let make = || {
            let request = self.request(Method::GET, &["v1", "proofs", "consistency"])?;
            Ok(request.query(&[("from", from), ("to", to)]))
        };
        let body: ProofBody = self.answer_signed_in(make).await?;
        Ok(body.proof)
    }

    /// Sends a statement once.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn submit(&self, submission: &Submission) -> Result<Receipt, ClientError> {
        let request = self.request(Method::POST, &["v1", "statements"])?;
        self.answer(json(request, submission)?).await
    }

    /// Sends several statements once; the answers are in their order.
    ///
    /// # Errors
    /// See [`ClientError`], for all of them together.
    pub async fn submit_batch(
        &self,
        submissions: &[Arc<Submission>],
    ) -> Result<Vec<Answer>, ClientError> {
        let request = self.request(Method::POST, &["v1", "statements", "batch"])?;
        let statements = submissions.iter().map(AsRef::as_ref).collect();
        let answers: Answers = self.answer(json(request, &Batch { statements })?).await?;
        if answers.answers.len() == submissions.len() {
            Ok(answers.answers)
        } else {
            Err(ClientError::Malformed("not one answer each".into()))
        }
    }

    /// Signs in now, whatever session there is. Works once the ledger has accepted the agent.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn sign_in(&self) -> Result<(), ClientError> {
        let mut session = self.session.lock().await;
        *session = Some(self.new_session().await?);
        Ok(())
    }

    /// Opens the stream of work, as one who remembers a checkpoint of that size.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn work(&self, seen: Option<u64>) -> Result<WorkStream, ClientError> {
        let path = ["v1", "agents", self.who.agent.as_str(), "work"];
        let make = || {
            let request = self.request(Method::GET, &path)?;
            let request = request.header("accept", "text/event-stream");
            Ok(match seen {
                Some(size) => request.header(SEEN, size),
                None => request,
            })
        };
        let response = self.send_signed_in(make).await?;
        Ok(WorkStream {
            response,
            parser: EventParser::default(),
            ready: VecDeque::new(),
        })
    }

    /// Signs in, with another challenge where one was spent in vain.
    async fn new_session(&self) -> Result<Session, ClientError> {
        let mut why = String::new();
        for _challenge in 0..CHALLENGES {
            match self.answer_challenge().await {
                Err(ClientError::Refused(problem)) if problem.code == NOT_ITS_CHALLENGE => {
                    why = problem.detail;
                }
                answer => return answer,
            }
        }
        // Of the server or of the way there, and nothing about this agent: it may be mended.
        Err(ClientError::Unreachable(why))
    }

    async fn answer_challenge(&self) -> Result<Session, ClientError> {
        let request = self.request(Method::POST, &["v1", "sessions", "challenge"])?;
        let challenge: ChallengeBody = self.answer(request).await?;
        // A challenge of another ledger would be a signature for somebody else's use.
        if challenge.ledger != self.who.ledger.to_string() {
            return Err(ClientError::Malformed(
                "a challenge of another ledger".into(),
            ));
        }
        let malformed = |_| ClientError::Malformed("the challenge is no digest".into());
        let event = Event::from(SessionChallenge {
            signer: PublicKey::of(&self.who.key).key_id(),
            principal: None,
            agent: Some(self.who.agent.clone()),
            nonce: key::nonce().map_err(|error| ClientError::Local(error.to_string()))?,
            made_at: self.clock.now(),
            ledger: self.who.ledger,
            server: self.origin.clone(),
            challenge: challenge.challenge.parse().map_err(malformed)?,
        });
        let statement = Statement::sign(&event, &self.who.key)
            .map_err(|error| ClientError::Local(error.to_string()))?;
        let request = self.request(Method::POST, &["v1", "sessions"])?;
        let request = json(request, &Submission::new(&statement, []))?;
        let session: SessionBody = match self.answer(request).await {
            // Of the server or of the way there, and nothing about this agent: it may be mended.
            Err(ClientError::Refused(problem)) if problem.code == OTHER_ORIGIN => {
                let hint = problem.hint.unwrap_or_default();
                let text = format!("{}; {hint}", problem.detail);
                return Err(ClientError::Unreachable(text));
            }
            answer => answer?,
        };
        Ok(Session {
            token: Zeroizing::new(session.token),
            expires: Time::from_micros(session.expires_us).unwrap_or(self.clock.now()),
        })
    }

    /// A session's token: the one at hand, unless it is `stale` or nearly over.
    async fn token(&self, stale: Option<&str>) -> Result<Zeroizing<String>, ClientError> {
        let mut session = self.session.lock().await;
        let now = self.clock.now();
        let good = session.as_ref().filter(|session| {
            stale != Some(session.token.as_str())
                && session.expires.micros_since(now) > RENEW_BEFORE_US
        });
        if let Some(session) = good {
            return Ok(session.token.clone());
        }
        let fresh = self.new_session().await?;
        Ok(session.insert(fresh).token.clone())
    }

    /// Sends with a session; a session that ended early is renewed once.
    async fn send_signed_in(
        &self,
        make: impl Fn() -> Result<RequestBuilder, ClientError>,
    ) -> Result<Response, ClientError> {
        let token = self.token(None).await?;
        match send(make()?.bearer_auth(token.as_str())).await {
            Err(ClientError::Unauthorized(_)) => {
                let token = self.token(Some(&token)).await?;
                send(make()?.bearer_auth(token.as_str())).await
            }
            other => other,
        }
    }

    async fn answer_signed_in<T: DeserializeOwned>(
        &self,
        make: impl Fn() -> Result<RequestBuilder, ClientError>,
    ) -> Result<T, ClientError> {
        let make = || Ok(make()?.timeout(ANSWER_TIMEOUT));
        read(self.send_signed_in(make).await?).await
    }

    async fn answer<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, ClientError> {
        read(send(request.timeout(ANSWER_TIMEOUT)).await?).await
    }

    fn request(&self, method: Method, path: &[&str]) -> Result<RequestBuilder, ClientError> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| ClientError::Local("the server's address has no path".into()))?
            .pop_if_empty()
            .extend(path);
        Ok(self.http.request(method, url))
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("base", &self.base.as_str())
            .finish_non_exhaustive()
    }
}

/// The open stream of work.
pub struct WorkStream {
    response: Response,
    parser: EventParser,
    ready: VecDeque<ServerEvent>,
}

impl WorkStream {
    /// The next piece of work; none when the server ended the stream. May be dropped and called
    /// again without losing anything.
    ///
    /// # Errors
    /// The stream broke, was silent for too long, or made no sense; open another.
    pub async fn next(&mut self) -> Result<Option<Work>, ClientError> {
        loop {
            while let Some(event) = self.ready.pop_front() {
                if event.kind == "work" {
                    return serde_json::from_str(&event.data)
                        .map(Some)
                        .map_err(|error| ClientError::Malformed(error.to_string()));
                }
            }
            let piece = self.response.chunk().await;
            let piece = piece.map_err(|error| ClientError::Unreachable(tell(&error)))?;
            let Some(piece) = piece else {
                return Ok(None);
            };
            let events = self.parser.push(&piece);
            let events = events.map_err(|error| ClientError::Malformed(error.to_string()))?;
            self.ready.extend(events);
        }
    }
}

fn json(request: RequestBuilder, body: &impl Serialize) -> Result<RequestBuilder, ClientError> {
    let body = serde_json::to_vec(body).map_err(|error| ClientError::Local(error.to_string()))?;
    Ok(request
        .header("content-type", "application/json")
        .body(body))
}

/// Sends, and sends again after as long as a busy server asks for.
async fn send_patiently(request: RequestBuilder) -> Result<Response, ClientError> {
    let failed = |error| ClientError::Unreachable(tell(&error));
    for _again in 0..PATIENCE {
        let Some(copy) = request.try_clone() else {
            break;
        };
        let response = copy.send().await.map_err(failed)?;
        let Some(asked) = asked_wait(&response) else {
            return Ok(response);
        };
        drop(response);
        tokio::time::sleep(asked).await;
    }
    request.send().await.map_err(failed)
}

/// How long a server asks to wait that has had too many calls, within bounds.
fn asked_wait(response: &Response) -> Option<Duration> {
    if response.status() != StatusCode::TOO_MANY_REQUESTS {
        return None;
    }
    let value = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    let asked = Duration::from_secs(value.parse().ok()?);
    Some(asked.min(LONGEST_ASKED))
}

/// Sends, and turns every status but success into an error.
async fn send(request: RequestBuilder) -> Result<Response, ClientError> {
    let response = send_patiently(request).await?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let body = body(response).await.unwrap_or_default();
    let Ok(problem) = serde_json::from_slice::<Problem>(&body) else {
        // Some proxy's page: it says nothing about the statement.
        return Err(ClientError::Unreachable(format!("it answered {status}")));
    };
    let problem = Box::new(problem);
    Err(match status {
        StatusCode::UNAUTHORIZED => ClientError::Unauthorized(problem),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
            ClientError::Unreachable(problem.detail)
        }
        _no if status.is_client_error() => ClientError::Refused(problem),
        _trouble => ClientError::Unreachable(problem.detail),
    })
}

async fn read<T: DeserializeOwned>(response: Response) -> Result<T, ClientError> {
    let body = body(response).await?;
    serde_json::from_slice(&body).map_err(|error| ClientError::Malformed(error.to_string()))
}

/// The whole body, if it is not larger than any answer.
async fn body(mut response: Response) -> Result<Vec<u8>, ClientError> {
    let mut body = Vec::new();
    let unreachable = |error: reqwest::Error| ClientError::Unreachable(tell(&error));
    while let Some(piece) = response.chunk().await.map_err(unreachable)? {
        if body.len().saturating_add(piece.len()) > MAX_ANSWER_BYTES {
            return Err(ClientError::Malformed("the answer is too large".into()));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

/// An error with its causes, which is where the reason stands.
fn tell(error: &(dyn std::error::Error + 'static)) -> String {
    if let Some(reason) = tls::reason(error) {
        return format!("it cannot be trusted: {reason}");
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
