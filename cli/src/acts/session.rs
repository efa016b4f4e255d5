//! Sessions: one signature for many reads. A signed challenge gives a token for some minutes.
//!
//! The token is kept 0600 in the state home, for one ledger, key and server. It lets its holder
//! read; it can sign nothing.

use countersign_protocol::api::{SessionBody, Submission};
use countersign_protocol::event::{Event, SessionChallenge};
use countersign_protocol::hash::Digest;
use countersign_protocol::key;
use countersign_protocol::name::{Principal, SECOND_US, Time};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::connect::{Client, GetError};
use crate::client::{ClientError, EventStream};
use crate::failure::Failure;
use crate::{clock, entropy};

/// A token is not used this close to its end, so that it does not end on the way.
const MARGIN_US: u64 = 10 * SECOND_US;

/// The server's word for an answer to a challenge that it does not take.
const NOT_ITS_CHALLENGE: &str = "challenge";

/// How often a challenge is answered in one sign-in; each may take a touch. One may be spent though its answer is
/// right: that was lost and sent again, or another server than its own took it, whose clock is behind.
const CHALLENGES: u32 = 3;

/// Why no session was had.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Nothing says whose key this is.
    #[error("it is not known here whose key this is ({0})")]
    Nameless(String),
    /// The challenge is none, or is for another ledger.
    #[error("the server's challenge is not one of this ledger")]
    Challenge,
}

impl From<SessionError> for Failure {
    fn from(error: SessionError) -> Self {
        let message = error.to_string();
        match error {
            SessionError::Nameless(_) => Self::refused("unknown_key", message).hint(
                "set COUNTERSIGN_PRINCIPAL (--principal) to your name in the ledger; if it has none, an administrator adds you with: countersign key add NAME KEY.pub",
            ),
            SessionError::Challenge => Self::tampering("challenge", message),
        }
    }
}

/// A token and what it is good for.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Session {
    server: String,
    token: String,
    expires_us: u64,
    principal: Principal,
}

/// Never the token.
impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("server", &self.server)
            .field("expires_us", &self.expires_us)
            .finish_non_exhaustive()
    }
}

impl Session {
    fn is_good(&self, server: &str, now: Time) -> bool {
        self.server == server && self.expires_us > now.plus_micros(MARGIN_US).as_micros()
    }
}

/// The answer to a wish for a challenge. The name is the server's guess for a key that it knows;
/// it is only used to sign in, and the verified rights say later who that is.
#[derive(Deserialize)]
struct Challenge {
    challenge: String,
    ledger: String,
    #[serde(default)]
    principal: Option<String>,
}

impl Client {
    /// Reads a document with a session; signs in anew, once, when the server wants that.
    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<T, GetError> {
        let token = self.token(None).await?;
        match self.http.get(path, query, Some(&token)).await {
            Err(error) if error.status() == Some(401) => {
                let token = self.token(Some(&token)).await?;
                Ok(self.http.get(path, query, Some(&token)).await?)
            }
            settled => Ok(settled?),
        }
    }

    /// Asks with a body and a session, in the same way. What it asks changes nothing.
    pub(super) async fn ask<B: Serialize + Sync, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, GetError> {
        let token = self.token(None).await?;
        match self.http.post(path, &[], body, Some(&token)).await {
            Err(error) if error.status() == Some(401) => {
                let token = self.token(Some(&token)).await?;
                Ok(self.http.post(path, &[], body, Some(&token)).await?)
            }
            settled => Ok(settled?),
        }
    }

    /// Opens an event stream with a session, in the same way.
    pub(super) async fn events(
        &self,
        path: &str,
        last: Option<u64>,
    ) -> Result<EventStream, GetError> {
        let token = self.token(None).await?;
        match self.http.events(path, last, Some(&token)).await {
            Err(error) if error.status() == Some(401) => {
                let token = self.token(Some(&token)).await?;
                Ok(self.http.events(path, last, Some(&token)).await?)
            }
            settled => Ok(settled?),
        }
    }

    /// A token; `refused` is one that the server does not take any more.
    async fn token(&self, refused: Option<&str>) -> Result<String, Failure> {
        let mut held = self.session.lock().await;
        let stored = || self.stored_session();
        let now = clock::now();
        let session = held.take().or_else(stored);
        let good = session
            .filter(|session| session.is_good(self.http.base(), now))
            .filter(|session| Some(session.token.as_str()) != refused);
        let session = match good {
            Some(session) => session,
            None => self.sign_in().await?,
        };
        let token = session.token.clone();
        *held = Some(session);
        Ok(token)
    }

    fn session_file(&self) -> String {
        format!("session-{}", self.key_id)
    }

    /// What is kept of an earlier session. One that cannot be read is as good as none.
    fn stored_session(&self) -> Option<Session> {
        let text = self.trust.home().read(&self.session_file()).ok()??;
        serde_json::from_str(&text).ok()
    }

    /// Signs in, with another challenge where one was spent in vain.
    async fn sign_in(&self) -> Result<Session, Failure> {
        let mut more = 1..CHALLENGES;
        let (answer, principal): (SessionBody, _) = loop {
            let (body, principal) = self.answer_challenge().await?;
            match self.http.post("/v1/sessions", &[], &body, None).await {
                Err(ClientError::Problem(problem))
                    if problem.code == NOT_ITS_CHALLENGE && more.next().is_some() => {}
                answer => break (answer?, principal),
            }
        };
        let session = Session {
            server: self.http.base().to_owned(),
            token: answer.token,
            expires_us: answer.expires_us,
            principal,
        };
        let text = serde_json::to_string(&session).map_err(|error| ClientError::Malformed {
            path: "/v1/sessions".into(),
            reason: error.to_string(),
        })?;
        self.trust.home().write(&self.session_file(), &text)?;
        Ok(session)
    }

    /// A challenge, signed, and as whom.
    async fn answer_challenge(&self) -> Result<(Submission, Principal), Failure> {
        let path = "/v1/sessions/challenge";
        let query = [("key_id", self.key_id.to_string())];
        let challenge: Challenge = self.http.post(path, &query, &Empty {}, None).await?;
        if challenge.ledger != self.ledger().to_string() {
            return Err(SessionError::Challenge.into());
        }
        let drawn: Digest = challenge
            .challenge
            .parse()
            .map_err(|_| SessionError::Challenge)?;
        let principal = self.name_to_sign_in_as(challenge.principal.as_deref())?;
        let event = Event::from(SessionChallenge {
            signer: self.key_id,
            principal: Some(principal.clone()),
            agent: None,
            nonce: entropy::nonce(),
            made_at: clock::now(),
            ledger: self.ledger(),
            server: self.http.origin().clone(),
            challenge: drawn,
        });
        let signed = self.signer.sign(&event).await?;
        Ok((Submission::new(signed.statement(), []), principal))
    }

    /// Whose key this is, as far as can be known before the rights may be read.
    fn name_to_sign_in_as(&self, guess: Option<&str>) -> Result<Principal, SessionError> {
        let of_genesis = || {
            let administrators = self.trust.genesis().administrators.iter();
            let mut mine = administrators.filter(|admin| admin.key.key_id() == self.key_id);
            mine.next().map(|admin| admin.principal.clone())
        };
        self.principal
            .clone()
            .or_else(|| Some(self.stored_session()?.principal))
            .or_else(of_genesis)
            .or_else(|| guess?.parse().ok())
            .ok_or_else(|| SessionError::Nameless(key::fingerprint(&self.key_id)))
    }
}

/// `{}`
#[derive(Serialize)]
struct Empty {}
