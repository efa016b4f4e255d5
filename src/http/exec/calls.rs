//! The calls: asked for, found again, stopped; and what is answered.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use countersign_protocol::api::{ExecutionResult, Problem};
use countersign_protocol::blob::Blob;
use countersign_protocol::command::Mode;
use countersign_protocol::event::{
    CommandCancelRequested, CommandRequested, Event, ReadWhat, Seen,
};
use countersign_protocol::hash::CommandId;
use countersign_protocol::lifecycle::CommandStatus;
use countersign_protocol::name::{Principal, TokenId};
use countersign_protocol::permission::Permission;
use countersign_protocol::token::reference;
use serde::Serialize;

use super::asked::{Asked, same};
use super::body::ExecBody;
use super::identity::{execution_id, find};
use crate::http::app::App;
use crate::http::auth::{Caller, Who};
use crate::http::bodies::Body;
use crate::http::error::ApiError;
use crate::http::statements::preferred_wait;
use crate::http::{access, commands, notes, streams};
use crate::keys::{self, Gateway};
use crate::ledger;

/// What came of it.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub(in crate::http) struct ExecAnswer {
    /// The command's id.
    command: String,
    /// Its status word.
    status: String,
    /// With one host: what it wrote.
    #[serde(skip_serializing_if = "Option::is_none")]
    stdout: Option<String>,
    /// The same of standard error.
    #[serde(skip_serializing_if = "Option::is_none")]
    stderr: Option<String>,
    /// With one host: the end as one number; -1 when it did not end by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    /// With one host: how long it ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_ms: Option<u64>,
    /// Whether some output was not kept.
    truncated: bool,
    /// Each host's part; of somebody else's command only with `output:read`.
    results: Vec<ExecutionResult>,
}

/// A problem with what there is of a result.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in crate::http) struct ExecProblem {
    #[serde(flatten)]
    problem: Problem,
    result: ExecAnswer,
}

/// Runs a program with its arguments, once people have approved it.
///
/// With `Prefer: wait=N` the answer comes when it has ended. The same `execution_id` or
/// `Idempotency-Key` with the same content is the same command; with other content, 409.
#[utoipa::path(post, path = "/v1/commands/exec", tag = "commands", request_body = ExecBody,
    params(("prefer" = Option<String>, Header, description = "wait=N: answer when it has ended, or after N seconds"),
        ("idempotency-key" = Option<String>, Header, description = "as `execution_id`")),
    security(("token" = ["command:execute"])),
    responses(
        (status = 200, body = ExecAnswer, description = "It has ended"),
        (status = 202, body = ExecAnswer, description = "It has not ended; see Location"),
        (status = 504, body = ExecProblem, description = "Its time was over on the host; with what it wrote"),
        crate::http::openapi::Problems))]
pub(in crate::http) async fn exec(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    body: Body<ExecBody>,
) -> Result<Response, ApiError> {
    run(&app, &caller, &headers, Mode::Exec, body).await
}

/// Runs a line by `/bin/sh -c`, once people have approved it. As `exec`.
#[utoipa::path(post, path = "/v1/commands/shell", tag = "commands", request_body = ExecBody,
    params(("prefer" = Option<String>, Header, description = "wait=N: answer when it has ended, or after N seconds"),
        ("idempotency-key" = Option<String>, Header, description = "as `execution_id`")),
    security(("token" = ["command:execute"])),
    responses(
        (status = 200, body = ExecAnswer, description = "It has ended"),
        (status = 202, body = ExecAnswer, description = "It has not ended; see Location"),
        (status = 504, body = ExecProblem, description = "Its time was over on the host; with what it wrote"),
        crate::http::openapi::Problems))]
pub(in crate::http) async fn shell(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    body: Body<ExecBody>,
) -> Result<Response, ApiError> {
    run(&app, &caller, &headers, Mode::Shell, body).await
}

/// The command of the caller's own id, as far as it has come.
#[utoipa::path(get, path = "/v1/executions/{execution_id}", tag = "commands",
    params(("execution_id" = String, Path), ("prefer" = Option<String>, Header, description = "wait=N")),
    security(("session" = []), ("token" = [])),
    responses((status = 200, body = ExecAnswer), (status = 202, body = ExecAnswer), crate::http::openapi::Problems))]
pub(in crate::http) async fn by_execution_id(
    State(app): State<App>,
    caller: Caller,
    Path(execution_id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let principal = caller.who.principal();
    let found = find(&app, principal, &reference(principal, &execution_id)).await?;
    // Somebody else's id names nothing here, and nothing says that it is one.
    let id = found.ok_or_else(streams::commands_missing)?;
    answer(&app, &caller, &id, preferred_wait(&headers)).await
}

/// Stops a command, in the name of an API token: its own, or with `command:cancel` another.
#[utoipa::path(post, path = "/v1/commands/{id}/cancel", tag = "commands", params(("id" = String, Path)),
    security(("token" = ["command:cancel"])),
    responses((status = 202, body = ExecAnswer), crate::http::openapi::Problems))]
pub(in crate::http) async fn cancel(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    let (gateway, principal, token) = speaker(&app, &caller)?;
    let id = commands::find(&app, &name).await?;
    access::sight(&app, &caller, &id).await?;
    let event = Event::from(CommandCancelRequested {
        signer: gateway.key_id(),
        principal: principal.clone(),
        nonce: keys::nonce(),
        made_at: app.clock.now(),
        ledger: app.ledger.id(),
        seen: seen(&app),
        command: id,
        token: Some(token.clone()),
        reason: None,
    });
    let receipt = append(&app, gateway, &event, Vec::new()).await?;
    let answered = answer(&app, &caller, &id, None).await;
    Ok(answered.unwrap_or_else(|error| entered(&id, receipt.status, &error)))
}

/// The gateway's key, and in whose name it speaks for this caller.
fn speaker<'a>(
    app: &'a App,
    caller: &'a Caller,
) -> Result<(&'a Gateway, &'a Principal, &'a TokenId), ApiError> {
    let Who::Token(principal, token) = &caller.who else {
        return Err(ApiError::forbidden(
            "this call is for API tokens: a person signs what they ask for themselves",
        )
        .hint("countersign run, or POST /v1/statements with a signed request"));
    };
    let gateway = app.gateway.as_deref().ok_or_else(|| {
        ApiError::new(
            StatusCode::CONFLICT,
            "no_gateway",
            "this server has no gateway key, so nobody signs for API tokens",
        )
        .hint("an operator copies gateway.key beside the other keys and starts the server again")
    })?;
    Ok((gateway, principal, token))
}

async fn run(
    app: &App,
    caller: &Caller,
    headers: &HeaderMap,
    mode: Mode,
    Body(body, room): Body<ExecBody>,
) -> Result<Response, ApiError> {
    let asked = ask(app, caller, headers, mode, &body).await?;
    // Whoever waits for the end takes no room.
    drop((body, room));
    let answered = answer(app, caller, &asked.id, preferred_wait(headers)).await;
    match asked.receipt {
        Some(receipt) => {
            Ok(answered.unwrap_or_else(|error| entered(&asked.id, receipt.status, &error)))
        }
        None => answered,
    }
}

/// What a call has asked for.
struct Taken {
    id: CommandId,
    /// None where an earlier call has asked for it.
    receipt: Option<ledger::Receipt>,
}

impl Taken {
    const fn before(id: CommandId) -> Self {
        Self { id, receipt: None }
    }
}

/// The answer to a call that is in the log, when how far it has come cannot be told: an error would have the
/// caller ask once more, and that would be a second command.
fn entered(id: &CommandId, status: Option<CommandStatus>, error: &ApiError) -> Response {
    tracing::warn!(%id, code = error.0.code, "entered; how far it has come cannot be told");
    let location = [(header::LOCATION, format!("/v1/commands/{id}"))];
    let status = status
        .unwrap_or(CommandStatus::Requested)
        .as_str()
        .to_owned();
    let answer = ExecAnswer::new(id.to_string(), status, Vec::new());
    (StatusCode::ACCEPTED, location, Json(answer)).into_response()
}

/// Asks for it, if the caller's own id does not name it already.
async fn ask(
    app: &App,
    caller: &Caller,
    headers: &HeaderMap,
    mode: Mode,
    body: &ExecBody,
) -> Result<Taken, ApiError> {
    let (gateway, principal, token) = speaker(app, caller)?;
    caller.require(app, Permission::CommandExecute)?;
    let execution_id = execution_id(headers, body)?;
    let reference = execution_id.map(|id| reference(principal, &id));
    let asked = Asked::new(mode, body)?;
    if let Some(reference) = &reference
        && let Some(id) = find(app, principal, reference).await?
    {
        same(app, &id, &asked).await?;
        return Ok(Taken::before(id));
    }
    let nonce = asked.nonce(reference.as_ref())?;
    let frozen = asked.freeze(app, caller, body.expires_in)?;
    let event = Event::from(CommandRequested {
        signer: gateway.key_id(),
        principal: principal.clone(),
        nonce,
        made_at: app.clock.now(),
        ledger: app.ledger.id(),
        seen: seen(app),
        client_ref: reference,
        token: Some(token.clone()),
        retry: None,
        act: frozen.act,
        reason: frozen.reason,
    });
    match append(app, gateway, &event, frozen.blobs).await {
        Ok(receipt) => Ok(Taken {
            id: receipt.id,
            receipt: Some(receipt),
        }),
        // The same call beside this one came first.
        Err(error) if error.0.code == "client_ref" => {
            let reference = reference.ok_or(error)?;
            let found = find(app, principal, &reference).await?;
            let id = found.ok_or_else(ApiError::busy)?;
            same(app, &id, &asked).await?;
            Ok(Taken::before(id))
        }
        Err(error) => Err(error),
    }
}

/// The newest checkpoint that this server has committed: it made it.
fn seen(app: &App) -> Seen {
    let newest = app.ledger.newest();
    Seen {
        size: newest.size(),
        root: newest.root(),
    }
}

async fn append(
    app: &App,
    gateway: &Gateway,
    event: &Event,
    blobs: Vec<Blob>,
) -> Result<ledger::Receipt, ApiError> {
    let kind = event.kind();
    let statement = gateway.sign(event).map_err(|error| {
        ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "document",
            error.to_string(),
        )
    })?;
    let submission = ledger::Submission { statement, blobs };
    let answer = app.ledger.append(submission).await.map_err(ApiError::from);
    let code = answer
        .as_ref()
        .map_or_else(|error| error.0.code.as_str(), |_| "ok");
    app.metrics.statement(kind.as_str(), code);
    answer
}

/// How far a command has come, after waiting for its end if that is wanted; with what its hosts wrote
/// for a caller who may read it when the wait is over.
async fn answer(
    app: &App,
    caller: &Caller,
    id: &CommandId,
    wait: Option<Duration>,
) -> Result<Response, ApiError> {
    let location = [(header::LOCATION, format!("/v1/commands/{id}"))];
    let ended = match wait {
        Some(wait) => commands::ended(app, caller, id, wait).await?,
        None => None,
    };
    let caller = caller.again(app).await?;
    let (sight, now) = access::sight(app, &caller, id).await?;
    let item = ended.unwrap_or(now);
    if !commands::is_final(&item.status) {
        let answer = ExecAnswer::new(item.id, item.status, Vec::new());
        return Ok((StatusCode::ACCEPTED, location, Json(answer)).into_response());
    }
    let results = if sight.output {
        notes::reads(app, &caller.who, ReadWhat::Output, Some(*id)).await?;
        streams::results(app, *id).await?
    } else {
        Vec::new()
    };
    let timed_out = results
        .iter()
        .any(|part| part.outcome.as_deref() == Some("timed_out"));
    let answer = ExecAnswer::new(item.id, item.status, results);
    let problem = match answer.status.as_str() {
        _any if timed_out => Some(ApiError::new(
            StatusCode::GATEWAY_TIMEOUT,
            "timed_out",
            "the command's own time was over on a host; it was stopped there, with all its processes",
        )),
        "rejected" => Some(ApiError::new(
            StatusCode::FORBIDDEN,
            "rejected",
            "people said no to this command; nothing was run",
        )),
        "expired" | "withdrawn" | "cancelled" | "refused" | "lost" => Some(ApiError::new(
            StatusCode::CONFLICT,
            &answer.status,
            format!(
                "the command is {}: it did not run to its end",
                answer.status
            ),
        )),
        _ran => None,
    };
    Ok(match problem {
        None => (StatusCode::OK, location, Json(answer)).into_response(),
        Some(error) => {
            let status = StatusCode::from_u16(error.0.status).unwrap_or(StatusCode::CONFLICT);
            let kind = [(header::CONTENT_TYPE, "application/problem+json")];
            let body = ExecProblem {
                problem: *error.0,
                result: answer,
            };
            (status, location, kind, Json(body)).into_response()
        }
    })
}

impl ExecAnswer {
    fn new(command: String, status: String, results: Vec<ExecutionResult>) -> Self {
        let only = match results.as_slice() {
            [only] => Some(only.clone()),
            _none_or_several => None,
        };
        Self {
            command,
            status,
            stdout: only.as_ref().map(|part| part.stdout.clone()),
            stderr: only.as_ref().map(|part| part.stderr.clone()),
            exit_code: only.as_ref().and_then(|part| part.code),
            duration_ms: only.as_ref().and_then(|part| part.duration_ms),
            truncated: results.iter().any(|part| part.truncated),
            results,
        }
    }
}
