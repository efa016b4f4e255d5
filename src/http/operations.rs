//! For operators: alive, ready, counted.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;

use super::app::App;
use super::error::ApiError;
use crate::ledger::store;

/// A word on how it is.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Health {
    /// `ok`
    status: &'static str,
}

const OK: Json<Health> = Json(Health { status: "ok" });

/// The process answers.
#[utoipa::path(get, path = "/livez", tag = "operations", responses((status = 200, body = Health)))]
pub(super) async fn livez() -> Json<Health> {
    OK
}

/// As `/livez`.
#[utoipa::path(get, path = "/health", tag = "operations", responses((status = 200, body = Health)))]
pub(super) async fn health() -> Json<Health> {
    OK
}

/// The writer has not stopped, the database answers and is not behind, and the lists follow the log.
#[utoipa::path(get, path = "/readyz", tag = "operations",
    responses((status = 200, body = Health), super::openapi::Problems))]
pub(super) async fn readyz(State(app): State<App>) -> Result<Json<Health>, ApiError> {
    if app.shutdown.is_cancelled() {
        return Err(ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "stopping",
            "the server is stopping",
        ));
    }
    if app.ledger.is_stopped() {
        return Err(ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "stopped",
            "this ledger has stopped writing; its log says why, and its operator must look",
        ));
    }
    let head = store::head(app.ledger.pool()).await?;
    if head.size < app.ledger.newest().size() {
        return Err(ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "behind",
            "the database is behind what this server has committed",
        ));
    }
    app.reader.caught_up().await?;
    Ok(OK)
}

/// Prometheus metrics.
#[utoipa::path(get, path = "/metrics", tag = "operations",
    responses((status = 200, body = String, content_type = "text/plain")))]
pub(super) async fn metrics(State(app): State<App>) -> Response {
    let open = super::app::open_streams(&app);
    let cosigned = app.cosigned.as_ref().and_then(|cosigned| cosigned.newest());
    let cosigned = cosigned.map_or(0, |note| note.size());
    let newest = app.ledger.newest().size();
    let text = app.metrics.text(newest, cosigned, app.reader.size(), open);
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}
