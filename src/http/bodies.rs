//! Request bodies: read with a limit, and parsed once.

use axum::body::to_bytes;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use countersign_protocol::api::MAX_BODY_BYTES;
use serde::de::DeserializeOwned;

use super::app::App;
use super::error::ApiError;

/// A JSON body.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<App> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        // Held while the body is read and parsed: many large bodies wait outside.
        let _permit = app.bodies.try_acquire().map_err(|_| ApiError::busy())?;
        let bytes = to_bytes(request.into_body(), MAX_BODY_BYTES)
            .await
            .map_err(|_| {
                ApiError::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "too_large",
                    "the body is larger than 8 MiB, or it broke off",
                )
            })?;
        serde_json::from_slice(&bytes).map(Self).map_err(|error| {
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
