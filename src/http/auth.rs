//! Who is calling. A handler that takes one of these as a parameter is open to nobody else.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use countersign_protocol::hash::KeyId;
use countersign_protocol::name::{AgentName, Principal};
use countersign_protocol::rights::{Holder, Rights};

use super::app::App;
use super::error::ApiError;

/// Any person or agent with a key in force.
pub(super) struct Session {
    key: KeyId,
    holder: Holder,
    rights: Arc<Rights>,
}

/// A person with a key in force.
pub(super) struct Person {
    pub(super) name: Principal,
    pub(super) key: KeyId,
    pub(super) rights: Arc<Rights>,
}

/// An accepted agent with its key in force.
pub(super) struct Agent {
    pub(super) name: AgentName,
    pub(super) key: KeyId,
}

/// The key of the session that a request comes with; what the key may do is not looked at.
pub(super) fn key_of_session(app: &App, headers: &HeaderMap) -> Option<KeyId> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    app.sessions
        .key(value.strip_prefix("Bearer ")?, app.clock.now())
}

impl FromRequestParts<App> for Session {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let key = key_of_session(app, &parts.headers).ok_or_else(ApiError::unauthenticated)?;
        // What is answered is not older than what anybody was told anywhere before this request,
        // and a key that another server saw revoked opens nothing here.
        app.ledger.look().await?;
        let rights = app.reader.rights().await?;
        let record = rights
            .key(&key)
            .filter(|record| record.revoked.is_none())
            .ok_or_else(ApiError::unauthenticated)?;
        Ok(Self {
            key,
            holder: record.holder.clone(),
            rights,
        })
    }
}

impl FromRequestParts<App> for Person {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let Session {
            key,
            holder,
            rights,
        } = Session::from_request_parts(parts, app).await?;
        match holder {
            Holder::Person(name) => Ok(Self { name, key, rights }),
            Holder::Agent(_) | Holder::Ledger | Holder::Reserved => Err(ApiError::forbidden(
                "this is for people; an agent may not read it",
            )),
        }
    }
}

impl FromRequestParts<App> for Agent {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let Session { key, holder, .. } = Session::from_request_parts(parts, app).await?;
        match holder {
            Holder::Agent(name) => Ok(Self { name, key }),
            Holder::Person(_) | Holder::Ledger | Holder::Reserved => {
                Err(ApiError::forbidden("this is for the agent itself"))
            }
        }
    }
}
