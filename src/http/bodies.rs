//! Request bodies: read with a limit, and parsed once.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use countersign_protocol::api::MAX_BODY_BYTES;
use futures_util::StreamExt as _;
use serde::de::DeserializeOwned;
use tokio::sync::OwnedSemaphorePermit;

use super::app::{App, BODY_UNIT};
use super::error::ApiError;

/// How long a body may take: 8 MiB over a slow line, and no longer.
const READ_TIME: Duration = Duration::from_secs(30);

/// Bytes of a body that need no room of the common one: nearly all statements are smaller, so that
/// those who bring or delay much keep out each other, and not approvals.
const FREE_BYTES: usize = 64 * 1024;

/// Reads a body, taking room for its bytes as they come: a peer that promises much and sends
/// nothing takes none.
async fn read(body: axum::body::Body, app: &App) -> Result<(Vec<u8>, Room), ApiError> {
    let mut pieces = body.into_data_stream();
    let (mut bytes, mut room) = (Vec::new(), Room(None));
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|_| too_large())?;
        if bytes.len() + piece.len() > MAX_BODY_BYTES {
            return Err(too_large());
        }
        bytes.extend_from_slice(&piece);
        let held = room.0.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let wanted = bytes.len().saturating_sub(FREE_BYTES).div_ceil(BODY_UNIT);
        let more = u32::try_from(wanted.saturating_sub(held)).unwrap_or(u32::MAX);
        if more > 0 {
            let more = Arc::clone(&app.bodies).try_acquire_many_owned(more);
            let more = more.map_err(|_| ApiError::busy())?;
            match &mut room.0 {
                Some(room) => room.merge(more),
                None => room.0 = Some(more),
            }
        }
    }
    Ok((bytes, room))
}

/// The room that a body takes, for as long as what it says is held.
#[must_use = "the room is given back when this is dropped"]
pub(super) struct Room(Option<OwnedSemaphorePermit>);

fn too_large() -> ApiError {
    ApiError::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "too_large",
        "the body is larger than 8 MiB, or it broke off",
    )
}

fn slow() -> ApiError {
    ApiError::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "slow",
        "the body did not come within 30 seconds; nothing was written",
    )
    .hint("send it again; a statement is entered once")
}

/// A JSON body, and its room: whoever waits with what it says, for the database or for the writer, keeps it.
pub(super) struct Body<T>(pub(super) T, pub(super) Room);

impl<T: DeserializeOwned> FromRequest<App> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let reading = tokio::time::timeout(READ_TIME, read(request.into_body(), app));
        let (bytes, room) = reading.await.map_err(|_| slow())??;
        let said = serde_json::from_slice(&bytes);
        said.map(|said| Self(said, room)).map_err(|error| {
            // The message names fields and places, never their contents.
            let place = format!("line {}, column {}", error.line(), error.column());
            ApiError::bad_request(
                "body",
                format!("the body is not the JSON that is expected ({place})"),
            )
            .hint("its shape is in /openapi.json")
        })
    }
}

/// Query parameters.
pub(super) struct Parameters<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<App> for Parameters<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        Query::from_request_parts(parts, app)
            .await
            .map(|Query(parameters)| Self(parameters))
            .map_err(|_| ApiError::bad_request("query", "a query parameter is not of its form"))
    }
}
