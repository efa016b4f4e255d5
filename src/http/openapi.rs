//! The whole route table on one screen, and the OpenAPI document that is made of it.

use std::sync::OnceLock;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use countersign_protocol::api::Problem;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::app::App;
use super::error::ApiError;
use super::{
    commands, events, exec, log, operations, people, search, serve, sessions, statements, tiles,
    tokens, work,
};

/// What can go wrong, the same for every route.
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, reason = "describes answers that are made elsewhere")]
pub(super) enum Problems {
    /// Malformed bytes, a bad signature.
    #[response(status = 400, content_type = "application/problem+json")]
    BadRequest(Problem),
    /// No session.
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthenticated(Problem),
    /// This key, person or agent may not.
    #[response(status = 403, content_type = "application/problem+json")]
    Forbidden(Problem),
    /// No such thing.
    #[response(status = 404, content_type = "application/problem+json")]
    NotFound(Problem),
    /// It may not follow what has happened.
    #[response(status = 409, content_type = "application/problem+json")]
    Conflict(Problem),
    /// Larger than the limit.
    #[response(status = 413, content_type = "application/problem+json")]
    TooLarge(Problem),
    /// It names things that do not fit together.
    #[response(status = 422, content_type = "application/problem+json")]
    Unprocessable(Problem),
    /// Too often: wait for `Retry-After`.
    #[response(status = 429, content_type = "application/problem+json")]
    TooMany(Problem),
    /// Busy, or the database is away: try again.
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(Problem),
}

#[derive(OpenApi)]
#[openapi(
    info(title = "countersign", description = "A ledger for commands run on hosts. Writing is by signed statements; everything that is read can be verified by the reader."),
    modifiers(&Bearer),
)]
struct Document;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        document
            .components
            .get_or_insert_default()
            .add_security_scheme("session", SecurityScheme::Http(scheme.clone()));
        document
            .components
            .get_or_insert_default()
            .add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

fn table() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(Document::openapi())
        // The door.
        .routes(routes!(statements::submit))
        .routes(routes!(statements::submit_batch))
        // Who is there.
        .routes(routes!(sessions::challenge))
        .routes(routes!(sessions::sign_in))
        // The log.
        .routes(routes!(log::ledger))
        .routes(routes!(log::checkpoint))
        .routes(routes!(log::consistency))
        .routes(routes!(log::inclusion))
        .routes(routes!(log::entries))
        .routes(routes!(log::blob))
        .routes(routes!(log::rights))
        .routes(routes!(search::search))
        .routes(routes!(tiles::checkpoint))
        .routes(routes!(tiles::hashes))
        .routes(routes!(tiles::entries))
        // Commands.
        .routes(routes!(commands::list))
        .routes(routes!(commands::show))
        .routes(routes!(commands::entries))
        .routes(routes!(commands::entries_of_many))
        .routes(routes!(commands::output))
        .routes(routes!(exec::calls::exec))
        .routes(routes!(exec::calls::shell))
        .routes(routes!(exec::calls::by_execution_id))
        .routes(routes!(exec::calls::cancel))
        .routes(routes!(events::of_command))
        .routes(routes!(events::all))
        // People and hosts.
        .routes(routes!(people::inbox))
        .routes(routes!(people::changes))
        .routes(routes!(people::agents))
        .routes(routes!(tokens::list))
        .routes(routes!(people::resolve))
        .routes(routes!(work::stream))
        // Operators.
        .routes(routes!(operations::livez))
        .routes(routes!(operations::readyz))
        .routes(routes!(operations::health))
        .routes(routes!(operations::metrics))
        .routes(routes!(served))
}

/// The OpenAPI document of all routes.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    table().into_openapi()
}

/// All routes, with what wraps them.
pub fn router(app: App) -> Router {
    let (router, _document) = table().split_for_parts();
    let router = router
        .fallback(nothing_here)
        .method_not_allowed_fallback(other_method);
    serve::wrap(router, &app).with_state(app)
}

async fn nothing_here() -> ApiError {
    ApiError::not_found("no_route", "there is nothing at this address")
        .hint("see /openapi.json for what there is")
}

async fn other_method() -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method",
        "this address does not take this method",
    )
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "operations", responses((status = 200, body = String, content_type = "application/json")))]
async fn served(State(_app): State<App>) -> Response {
    /// Written once: some 200 KB that never change, and anybody may ask for them.
    static DOCUMENT: OnceLock<Option<Bytes>> = OnceLock::new();
    let text = DOCUMENT.get_or_init(|| match document().to_json() {
        Ok(text) => Some(text.into()),
        Err(error) => {
            tracing::error!(%error, "the OpenAPI document has no JSON form");
            None
        }
    });
    match text {
        Some(text) => ([(header::CONTENT_TYPE, "application/json")], text.clone()).into_response(),
        None => ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "openapi", "no document")
            .into_response(),
    }
}
