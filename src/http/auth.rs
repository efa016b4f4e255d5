//! Who is calling. A handler that takes one of these as a parameter is open to nobody else.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use countersign_protocol::api::CommandItem;
use countersign_protocol::event::DeniedWhat;
use countersign_protocol::hash::KeyId;
use countersign_protocol::name::{AgentName, Principal, Time, TokenId};
use countersign_protocol::permission::Permission;
use countersign_protocol::rights::{Holder, Rights};
use countersign_protocol::token::TokenSecret;

use super::app::App;
use super::error::ApiError;

/// Any person or agent with a key in force.
pub(super) struct Session {
    key: KeyId,
    until: Time,
    holder: Holder,
    rights: Arc<Rights>,
}

/// Whoever may read: a person with a session, or the holder of an API token. What of it they may
/// read, [`Caller::require`] says.
pub(super) struct Caller {
    pub(super) who: Who,
    pub(super) rights: Arc<Rights>,
    /// When the session ends; of an API token its record says it.
    until: Option<Time>,
}

/// Who a caller is.
#[derive(Debug, Clone)]
pub(super) enum Who {
    /// A person, by a session of this key.
    Person(Principal, KeyId),
    /// The holder of an API token, who asks and reads for this principal.
    Token(Principal, TokenId),
}

/// A person with a key in force.
pub(super) struct Person {
    pub(super) name: Principal,
    pub(super) key: KeyId,
    pub(super) rights: Arc<Rights>,
    until: Time,
}

/// An accepted agent with its key in force.
pub(super) struct Agent {
    pub(super) name: AgentName,
    pub(super) key: KeyId,
}

/// The key of the session that a request comes with; what the key may do is not looked at.
pub(super) fn key_of_session(app: &App, headers: &HeaderMap) -> Option<KeyId> {
    session_of(app, headers).map(|(key, _)| key)
}

fn session_of(app: &App, headers: &HeaderMap) -> Option<(KeyId, Time)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    app.sessions
        .open(value.strip_prefix("Bearer ")?, app.clock.now())
}

impl Session {
    async fn of(app: &App, headers: &HeaderMap) -> Result<Self, ApiError> {
        let session = session_of(app, headers);
        let (key, until) = session.ok_or_else(ApiError::unauthenticated)?;
        // What is answered is not older than what anybody was told anywhere before this request,
        // and a key that another server saw revoked opens nothing here.
        app.ledger.look().await?;
        let rights = app.reader.rights().await?;
        let record = rights
            .key(&key)
            .filter(|record| record.is_in_force(app.clock.now()))
            .ok_or_else(ApiError::unauthenticated)?;
        let holder = record.holder.clone();
        if let Holder::Agent(agent) = &holder {
            let says = headers.get(header::USER_AGENT);
            let says = says.and_then(|says| says.to_str().ok());
            app.presence.saw(agent, key, app.clock.now(), says);
        }
        Ok(Self {
            key,
            until,
            holder,
            rights,
        })
    }
}

impl FromRequestParts<App> for Session {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        Self::of(app, &parts.headers).await
    }
}

impl Who {
    /// For whom they speak.
    pub(super) const fn principal(&self) -> &Principal {
        match self {
            Self::Person(principal, _) | Self::Token(principal, _) => principal,
        }
    }
}

impl Caller {
    /// Whose session or API token a request comes with.
    pub(super) async fn of(app: &App, headers: &HeaderMap) -> Result<Self, ApiError> {
        if let Some(secret) = secret_of_token(headers) {
            return by_token(app, &secret).await;
        }
        Ok(Person::of(app, headers).await?.caller())
    }

    /// The same caller as of now: what waits or streams outlives the look at its session and rights.
    pub(super) async fn again(&self, app: &App) -> Result<Self, ApiError> {
        let rights = app.reader.rights().await?;
        let now = app.clock.now();
        let is_in_force = match &self.who {
            Who::Person(_, key) => rights
                .key(key)
                .is_some_and(|record| record.is_in_force(now)),
            Who::Token(_, token) => rights
                .token(token)
                .is_some_and(|record| record.is_in_force(now)),
        };
        if !is_in_force || self.until.is_some_and(|until| now >= until) {
            return Err(ApiError::unauthenticated());
        }
        Ok(Self {
            who: self.who.clone(),
            rights,
            until: self.until,
        })
    }

    /// Says whether the caller holds a permission.
    pub(super) fn holds(&self, right: Permission) -> bool {
        match &self.who {
            Who::Person(name, _) => self.rights.holds(name, right),
            Who::Token(_, token) => {
                let record = self.rights.token(token);
                record.is_some_and(|record| self.rights.rights_of_token(record).contains(&right))
            }
        }
    }

    /// Says whether every host of a command is one that the caller's token is for; a person's hosts
    /// are all there are. A host that is not listed, or is one no more, is not.
    pub(super) fn reaches(&self, item: &CommandItem) -> bool {
        let Who::Token(_, token) = &self.who else {
            return true;
        };
        let Some(record) = self.rights.token(token) else {
            return false;
        };
        let scope = &record.issued.labels;
        let is_for = |name: &String| {
            let agent: Option<AgentName> = name.parse().ok();
            let labels = agent.iter().flat_map(|agent| self.rights.labels(agent));
            let mut labels = labels.flat_map(|label| scope.iter().map(move |asked| (label, asked)));
            labels.any(|(label, asked)| label.is_within(asked))
        };
        let all_listed = usize::try_from(item.hosts) == Ok(item.targets.len());
        scope.is_empty() || (all_listed && item.targets.iter().all(is_for))
    }

    /// Says whether the caller sees all hosts: every person, and a token without labels.
    pub(super) fn is_for_all_hosts(&self) -> bool {
        match &self.who {
            Who::Person(..) => true,
            Who::Token(_, token) => {
                let record = self.rights.token(token);
                record.is_some_and(|record| record.issued.labels.is_empty())
            }
        }
    }

    /// Turns away whoever does not hold a permission, and counts that.
    pub(super) fn require(&self, app: &App, right: Permission) -> Result<(), ApiError> {
        if self.holds(right) {
            return Ok(());
        }
        let principal = Some(self.who.principal().clone());
        app.denials.count(
            DeniedWhat::Permission,
            principal,
            Some(right),
            app.clock.now(),
        );
        Err(ApiError::lacks(right))
    }

    /// Turns away the holder of a token that lacks a permission. People read this without one:
    /// without it they could verify nothing of what they are shown.
    pub(super) fn require_of_token(&self, app: &App, right: Permission) -> Result<(), ApiError> {
        match &self.who {
            Who::Person(..) => Ok(()),
            Who::Token(..) => self.require(app, right),
        }
    }
}

impl Person {
    /// As one who reads.
    pub(super) fn caller(self) -> Caller {
        Caller {
            who: Who::Person(self.name, self.key),
            rights: self.rights,
            until: Some(self.until),
        }
    }
}

impl FromRequestParts<App> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        Self::of(app, &parts.headers).await
    }
}

/// Says whether a request comes with something that looks like an API token.
pub(super) fn has_token(headers: &HeaderMap) -> bool {
    secret_of_token(headers).is_some()
}

/// The secret of an API token that a request comes with; another Bearer is a session's.
fn secret_of_token(headers: &HeaderMap) -> Option<TokenSecret> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    TokenSecret::parse(value.strip_prefix("Bearer ")?)
}

async fn by_token(app: &App, secret: &TokenSecret) -> Result<Caller, ApiError> {
    let refused = || {
        let now = app.clock.now();
        app.denials.count(DeniedWhat::Token, None, None, now);
        ApiError::unauthenticated()
    };
    app.ledger.look().await?;
    let rights = app.reader.rights().await?;
    let now = app.clock.now();
    let record = rights.token(secret.id()).ok_or_else(refused)?;
    // Digests of random secrets are compared: how long that takes tells nothing of a secret.
    if record.issued.secret != secret.digest() || !record.is_in_force(now) {
        return Err(refused());
    }
    let token = secret.id().clone();
    if app.uses.is_to_keep(&token, now)
        && let Err(error) = app.reader.keep_token_use(&token, now).await
    {
        tracing::warn!(%error, "the use of an API token is not kept");
    }
    let who = Who::Token(record.issued.principal.clone(), token);
    Ok(Caller {
        who,
        rights,
        until: None,
    })
}

impl Person {
    async fn of(app: &App, headers: &HeaderMap) -> Result<Self, ApiError> {
        let Session {
            key,
            until,
            holder,
            rights,
        } = Session::of(app, headers).await?;
        match holder {
            Holder::Person(name) => Ok(Self {
                name,
                key,
                rights,
                until,
            }),
            Holder::Agent(_) | Holder::Ledger | Holder::Gateway | Holder::Reserved => Err(
                ApiError::forbidden("this is for people; an agent may not read it"),
            ),
        }
    }
}

impl FromRequestParts<App> for Person {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        Self::of(app, &parts.headers).await
    }
}

impl FromRequestParts<App> for Agent {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let Session { key, holder, .. } = Session::from_request_parts(parts, app).await?;
        match holder {
            Holder::Agent(name) => Ok(Self { name, key }),
            Holder::Person(_) | Holder::Ledger | Holder::Gateway | Holder::Reserved => {
                Err(ApiError::forbidden("this is for the agent itself"))
            }
        }
    }
}
