//! A caller's own id of a command: the same again is the same command.

use axum::http::HeaderMap;
use countersign_protocol::hash::{CommandId, Digest};
use countersign_protocol::name::Principal;

use super::body::ExecBody;
use crate::http::app::App;
use crate::http::error::ApiError;
use crate::ledger::store;

/// Longest id of a caller's own: a UUID, a name of a job, a digest.
const MAX_EXECUTION_ID: usize = 128;

pub(super) fn execution_id(
    headers: &HeaderMap,
    body: &ExecBody,
) -> Result<Option<String>, ApiError> {
    let key = headers.get("idempotency-key");
    let key = key
        .map(|value| value.to_str().map(str::to_owned))
        .transpose();
    let bad = |what: &str| ApiError::bad_request("execution_id", what);
    let key = key.map_err(|_| bad("Idempotency-Key is not readable text"))?;
    let id = match (key, body.execution_id.clone()) {
        (Some(key), Some(id)) if key != id => {
            return Err(bad(
                "Idempotency-Key and execution_id differ; give one of them",
            ));
        }
        (key, id) => key.or(id),
    };
    let fits = |id: &String| (1..=MAX_EXECUTION_ID).contains(&id.len());
    if id.as_ref().is_some_and(|id| !fits(id)) {
        return Err(bad("an execution id has 1 to 128 bytes"));
    }
    Ok(id)
}

/// The command of a reference. What the log has of it can be read after this: it may have been entered a
/// moment ago, here or by another server.
pub(super) async fn find(
    app: &App,
    principal: &Principal,
    reference: &Digest,
) -> Result<Option<CommandId>, ApiError> {
    let mut connection = app.ledger.pool().acquire().await?;
    let found = store::client_ref(&mut connection, principal.as_str(), reference).await?;
    drop(connection);
    if found.is_some() {
        app.ledger.look().await?;
    }
    Ok(found)
}
