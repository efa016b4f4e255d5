//! For operators: alive, ready, counted.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use countersign_protocol::name::SECOND_US;
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::app::App;
use super::error::ApiError;
use super::metrics::Levels;
use crate::feed::SinkReport;
use crate::ledger::store;

/// A word on how it is.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Health {
    /// `ok`
    status: &'static str,
    /// At `/readyz`, where there are sinks: what each does. A receiver that is away does not make a
    /// server unready.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    feed: Vec<SinkHealth>,
}

/// How a sink is.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct SinkHealth {
    /// Its name.
    sink: String,
    /// `starting`, `standby`, `feeding`, `retrying` or `disabled`
    state: &'static str,
    /// Entries that it was not told of yet; left out where another server feeds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    behind: Option<u64>,
    /// What is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
}

impl SinkHealth {
    fn of(report: SinkReport, size: u64) -> Self {
        Self {
            sink: report.name.to_string(),
            state: report.state.as_str(),
            behind: report.next.map(|next| size.saturating_sub(next)),
            error: report.error,
        }
    }
}

const OK: Json<Health> = Json(Health {
    status: "ok",
    feed: Vec::new(),
});

/// How long a word on readiness is good: anybody may ask, and the database is asked once for all.
const READY_FOR: Duration = Duration::from_secs(1);

/// What was last found of the database and the lists.
#[derive(Debug, Default)]
pub(super) struct Readiness(Mutex<Option<(Instant, Result<(), ApiError>)>>);

impl Readiness {
    /// What was found within the last [`READY_FOR`], else what `look` finds; who asks meanwhile waits
    /// for the same look.
    async fn ask<F>(&self, look: impl FnOnce() -> F) -> Result<(), ApiError>
    where
        F: Future<Output = Result<(), ApiError>>,
    {
        let mut known = self.0.lock().await;
        if let Some((at, found)) = &*known
            && at.elapsed() < READY_FOR
        {
            return found.clone();
        }
        let found = look().await;
        *known = Some((Instant::now(), found.clone()));
        found
    }
}

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

/// Fails where what other servers commit is not heard of.
pub(super) fn learns(app: &App) -> Result<(), ApiError> {
    if app.ledger.is_stopped() {
        return Err(ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "stopped",
            "this ledger has stopped writing; its log says why, and its operator must look",
        ));
    }
    if app.ledger.learning().holds() {
        Ok(())
    } else {
        Err(ApiError::not_kept())
    }
}

/// The writer has not stopped, what others commit can be kept, the database answers and is not behind,
/// and the lists follow the log.
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
    learns(&app)?;
    app.readiness.ask(|| look(&app)).await?;
    let size = app.ledger.newest().size();
    let reports = app.feed.iter().flat_map(|feed| feed.reports());
    Ok(Json(Health {
        status: "ok",
        feed: reports.map(|report| SinkHealth::of(report, size)).collect(),
    }))
}

async fn look(app: &App) -> Result<(), ApiError> {
    let head = store::head(app.ledger.pool()).await?;
    if head.size < app.ledger.newest().size() {
        return Err(ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "behind",
            "the database is behind what this server has committed",
        ));
    }
    app.reader.caught_up().await?;
    Ok(())
}

/// Prometheus metrics.
#[utoipa::path(get, path = "/metrics", tag = "operations",
    responses((status = 200, body = String, content_type = "text/plain")))]
pub(super) async fn metrics(State(app): State<App>) -> Response {
    let open = super::app::open_streams(&app);
    let cosigned = app.cosigned.as_ref().and_then(|cosigned| cosigned.newest());
    let cosigned = cosigned.map_or(0, |note| note.size());
    let newest = app.ledger.newest().size();
    for report in app.feed.iter().flat_map(|feed| feed.reports()) {
        app.metrics.sink(&report, newest);
    }
    let rights = app.reader.rights_of_rows();
    let agreed = rights.as_ref().and_then(|rights| rights.agreed_snapshot());
    let text = app.metrics.text(Levels {
        size: newest,
        cosigned,
        projected: app.reader.size(),
        streams: open,
        learns: app.ledger.learning().holds(),
        snapshot_ends: agreed.map_or(0, |snapshot| snapshot.expires_at.as_micros() / SECOND_US),
    });
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn many_who_ask_whether_a_server_is_ready_make_one_look() {
        let (readiness, looks) = (Readiness::default(), Cell::new(0));
        let ask = || {
            readiness.ask(|| async {
                looks.set(looks.get() + 1);
                tokio::task::yield_now().await;
                Err(ApiError::unavailable())
            })
        };
        let words = futures_util::future::join_all((0..100).map(|_each| ask())).await;
        assert!(words.iter().all(Result::is_err));
        assert_eq!(looks.get(), 1);
        tokio::time::sleep(READY_FOR).await;
        assert!(ask().await.is_err());
        assert_eq!(looks.get(), 2, "and it is looked again");
    }
}
