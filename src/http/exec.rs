//! One call for the holders of API tokens: a command, or a line for a shell, on hosts that are named.
//!
//! The gateway's key signs the request in the name of the token's principal, and the statement says
//! so. It is judged, approved and run like every other; the server runs nothing. `docs/API.md`
//! shows calls.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_protocol::api::{CommandItem, ExecutionResult, Problem};
use countersign_protocol::blob::{Blob, BlobRef};
use countersign_protocol::canonical::CanonicalError;
use countersign_protocol::command::{
    Act, CommandSpec, DEFAULT_OUTPUT_LIMIT, DEFAULT_TIMEOUT_MS, Environment, Mode,
};
use countersign_protocol::event::{
    CommandCancelRequested, CommandRequested, Event, ReadWhat, Seen,
};
use countersign_protocol::hash::{CommandId, Digest};
use countersign_protocol::lifecycle::Command;
use countersign_protocol::name::{Principal, SECOND_US, TokenId};
use countersign_protocol::permission::Permission;
use countersign_protocol::target::{Place, TargetLine, TargetList};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::app::App;
use super::auth::{Caller, Who};
use super::bodies::Body;
use super::error::ApiError;
use super::statements::preferred_wait;
use super::{access, commands, notes, streams};
use crate::keys::{self, Gateway};
use crate::ledger::{self, history, store};

/// How long a request stays open unless it says otherwise: an hour for people to look at it.
const DEFAULT_OPEN_S: u64 = 3600;

/// Longest id of a caller's own: a UUID, a name of a job, a digest.
const MAX_EXECUTION_ID: usize = 128;

/// Keeps a caller's own ids apart from every other digest.
const REF_DOMAIN: &[u8] = b"countersign/execution-id/v1\n";

/// What is asked for: a program and its arguments, which no shell sees; or one line for `/bin/sh -c`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ExecBody {
    /// The program, or the line.
    command: String,
    /// The program's arguments; a line has none.
    #[serde(default)]
    args: Vec<String>,
    /// Where: `HOST` or `HOST/SERVICE`, at least one. A target is always named.
    on: Vec<String>,
    /// Why; it goes into the log. "asked with an API token" when left out.
    reason: Option<String>,
    /// An absolute directory.
    cwd: Option<String>,
    /// The account to run as; the host's configuration decides when left out.
    user: Option<String>,
    /// Environment variables.
    #[serde(default)]
    env: BTreeMap<String, String>,
    /// Standard input, as text.
    stdin: Option<String>,
    /// Standard input, as base64 of bytes; not both.
    stdin_base64: Option<String>,
    /// Seconds that it may run: 30 when left out, 300 at most.
    timeout: Option<u64>,
    /// Bytes of output that are kept of each host: 1 MiB when left out.
    output_limit: Option<u64>,
    /// Seconds that the request stays open for approvals: an hour when left out.
    expires_in: Option<u64>,
    /// The caller's own id, as `Idempotency-Key` says it too: the same again is the same command.
    execution_id: Option<String>,
}

/// What came of it.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub(super) struct ExecAnswer {
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
pub(super) struct ExecProblem {
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
        super::openapi::Problems))]
pub(super) async fn exec(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    Body(body): Body<ExecBody>,
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
        super::openapi::Problems))]
pub(super) async fn shell(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    Body(body): Body<ExecBody>,
) -> Result<Response, ApiError> {
    run(&app, &caller, &headers, Mode::Shell, body).await
}

/// The command of the caller's own id, as far as it has come.
#[utoipa::path(get, path = "/v1/executions/{execution_id}", tag = "commands",
    params(("execution_id" = String, Path), ("prefer" = Option<String>, Header, description = "wait=N")),
    security(("session" = []), ("token" = [])),
    responses((status = 200, body = ExecAnswer), (status = 202, body = ExecAnswer), super::openapi::Problems))]
pub(super) async fn by_execution_id(
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
    responses((status = 202, body = ExecAnswer), super::openapi::Problems))]
pub(super) async fn cancel(
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
    append(&app, gateway, &event, Vec::new()).await?;
    answer(&app, &caller, &id, None).await
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
    })?;
    Ok((gateway, principal, token))
}

async fn run(
    app: &App,
    caller: &Caller,
    headers: &HeaderMap,
    mode: Mode,
    body: ExecBody,
) -> Result<Response, ApiError> {
    let (gateway, principal, token) = speaker(app, caller)?;
    caller.require(app, Permission::CommandExecute)?;
    let execution_id = execution_id(headers, &body)?;
    let reference = execution_id.map(|id| reference(principal, &id));
    let asked = Asked::new(mode, &body)?;
    let wait = preferred_wait(headers);
    if let Some(reference) = &reference
        && let Some(id) = find(app, principal, reference).await?
    {
        same(app, &id, &asked).await?;
        return answer(app, caller, &id, wait).await;
    }
    let frozen = asked.freeze(app, caller, body.expires_in)?;
    let event = Event::from(CommandRequested {
        signer: gateway.key_id(),
        principal: principal.clone(),
        nonce: keys::nonce(),
        made_at: app.clock.now(),
        ledger: app.ledger.id(),
        seen: seen(app),
        client_ref: reference,
        token: Some(token.clone()),
        act: frozen.act,
        reason: frozen.reason,
    });
    let id = match append(app, gateway, &event, frozen.blobs).await {
        Ok(receipt) => receipt.id,
        // The same call beside this one came first.
        Err(error) if error.0.code == "client_ref" => {
            let reference = reference.ok_or(error)?;
            let found = find(app, principal, &reference).await?;
            let id = found.ok_or_else(ApiError::busy)?;
            same(app, &id, &asked).await?;
            id
        }
        Err(error) => return Err(error),
    };
    answer(app, caller, &id, wait).await
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

fn execution_id(headers: &HeaderMap, body: &ExecBody) -> Result<Option<String>, ApiError> {
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

/// A caller's own id, digested: unique for each principal.
fn reference(principal: &Principal, execution_id: &str) -> Digest {
    let digest = Sha256::new()
        .chain_update(REF_DOMAIN)
        .chain_update(principal.as_str())
        .chain_update(b"\n")
        .chain_update(execution_id)
        .finalize();
    Digest::new(digest.into())
}

async fn find(
    app: &App,
    principal: &Principal,
    reference: &Digest,
) -> Result<Option<CommandId>, ApiError> {
    let mut connection = app.ledger.pool().acquire().await?;
    Ok(store::client_ref(&mut connection, principal.as_str(), reference).await?)
}

/// What a call asks for, checked; what two calls are compared by.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    spec: CommandSpec,
    places: BTreeSet<(String, Option<String>)>,
    env: Option<Environment>,
    stdin: Option<Vec<u8>>,
    reason: String,
}

/// What is signed and sent along.
struct Frozen {
    act: Act,
    reason: BlobRef,
    blobs: Vec<Blob>,
}

fn unusable(code: &str, error: &dyn std::fmt::Display) -> ApiError {
    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, code, error.to_string())
}

impl Asked {
    fn new(mode: Mode, body: &ExecBody) -> Result<Self, ApiError> {
        let words = [&body.command].into_iter().chain(&body.args);
        let user = body.user.as_ref().map(|user| user.parse()).transpose();
        let timeout = body
            .timeout
            .map_or(DEFAULT_TIMEOUT_MS, |s| s.saturating_mul(1000));
        let spec = CommandSpec {
            mode,
            argv: words.cloned().collect(),
            cwd: body.cwd.clone(),
            user: user.map_err(|error| unusable("user", &error))?,
            timeout_ms: timeout,
            output_limit: body.output_limit.unwrap_or(DEFAULT_OUTPUT_LIMIT),
            at_output_limit: None,
        };
        spec.check().map_err(|error| unusable("document", &error))?;
        let mut places = BTreeSet::new();
        for text in &body.on {
            let place: Place = text.parse().map_err(|error| unusable("on", &error))?;
            let service = place.service.map(|service| service.to_string());
            if !places.insert((place.agent.to_string(), service)) {
                return Err(unusable("on", &"a host is named twice"));
            }
        }
        if places.is_empty() {
            return Err(unusable(
                "on",
                &"name at least one host; a target is never assumed",
            ));
        }
        let stdin = match (&body.stdin, &body.stdin_base64) {
            (Some(_), Some(_)) => return Err(unusable("stdin", &"give stdin or stdin_base64")),
            (Some(text), None) => Some(text.clone().into_bytes()),
            (None, Some(text)) => {
                let bytes = STANDARD.decode(text);
                Some(bytes.map_err(|_| unusable("stdin", &"stdin_base64 is not base64"))?)
            }
            (None, None) => None,
        };
        let variables: Vec<_> = body.env.clone().into_iter().collect();
        let env = (!variables.is_empty()).then(|| Environment::new(variables));
        Ok(Self {
            spec,
            places,
            env: env.transpose().map_err(|error| unusable("env", &error))?,
            stdin,
            reason: body
                .reason
                .clone()
                .unwrap_or_else(|| "asked with an API token".into()),
        })
    }

    /// Draws salts, resolves hosts, and fixes times.
    fn freeze(
        &self,
        app: &App,
        caller: &Caller,
        expires_in: Option<u64>,
    ) -> Result<Frozen, ApiError> {
        let spec = document(self.spec.to_document())?;
        let env = self.env.as_ref().map(|env| document(env.to_document()));
        let env = env.transpose()?;
        let stdin = self.stdin.clone().map(blob).transpose()?;
        let reason = blob(self.reason.clone().into_bytes())?;
        let list = self.targets(caller, spec.reference().digest)?;
        let targets = document(list.to_document())?;
        let now = app.clock.now();
        let open = expires_in
            .unwrap_or(DEFAULT_OPEN_S)
            .saturating_mul(SECOND_US);
        let act = Act {
            mode: self.spec.mode,
            spec: spec.reference(),
            env: env.as_ref().map(Blob::reference),
            stdin: stdin.as_ref().map(Blob::reference),
            targets: list
                .describe(targets.reference())
                .map_err(|error| unusable("on", &error))?,
            user: self.spec.user.clone(),
            timeout_ms: self.spec.timeout_ms,
            output_limit: self.spec.output_limit,
            at_output_limit: None,
            not_before: now,
            expires_at: now.plus_micros(open),
            max_runs: 1,
            break_glass: false,
        };
        act.check().map_err(|error| unusable("document", &error))?;
        let named = reason.reference();
        let blobs = [spec, targets, reason].into_iter().chain(env).chain(stdin);
        Ok(Frozen {
            act,
            reason: named,
            blobs: blobs.collect(),
        })
    }

    fn targets(&self, caller: &Caller, spec: Digest) -> Result<TargetList, ApiError> {
        let unknown = || {
            ApiError::not_found("unknown_target", "one of the hosts is no accepted agent")
                .hint("GET /v1/agents lists them")
        };
        let mut lines = Vec::new();
        for (agent, service) in &self.places {
            let agent = agent.parse().map_err(|_| unknown())?;
            let service = service.as_ref().map(|service| service.parse()).transpose();
            lines.push(TargetLine {
                key_id: caller.rights.agent(&agent).ok_or_else(unknown)?,
                agent,
                service: service.map_err(|_| unknown())?,
                spec,
            });
        }
        TargetList::new(lines).map_err(|error| unusable("on", &error))
    }
}

fn document(bytes: Result<Vec<u8>, CanonicalError>) -> Result<Blob, ApiError> {
    blob(bytes.map_err(|error| unusable("document", &error))?)
}

fn blob(content: Vec<u8>) -> Result<Blob, ApiError> {
    Blob::new(keys::random(), content).map_err(|error| unusable("document", &error))
}

/// Turns away a call under an id that stands for something else.
async fn same(app: &App, id: &CommandId, asked: &Asked) -> Result<(), ApiError> {
    let mut connection = app.ledger.pool().acquire().await?;
    let size = app.ledger.newest().size();
    let command = history::command(&mut connection, *id, size).await?;
    let command = command.ok_or_else(streams::commands_missing)?;
    let before = before(&mut connection, &command).await?;
    if before.as_ref() == Some(asked) {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::CONFLICT,
        "client_ref",
        "this execution id stands for another command of yours, or for one whose text was redacted",
    )
    .hint("use a new id for a new command"))
}

/// What a command asked for, read from its documents; nothing when one of them is gone.
async fn before(
    connection: &mut sqlx::PgConnection,
    command: &Command,
) -> Result<Option<Asked>, ApiError> {
    let act = command.act();
    let mut texts: BTreeMap<Digest, Vec<u8>> = BTreeMap::new();
    let named = [
        Some(act.spec),
        act.env,
        act.stdin,
        Some(command.request.reason),
    ];
    for named in named.into_iter().flatten() {
        let Some(blob) = store::blob(connection, &named.digest).await?.flatten() else {
            return Ok(None);
        };
        texts.insert(named.digest, blob.content().to_vec());
    }
    let text = |named: &BlobRef| texts.get(&named.digest);
    let spec = text(&act.spec).and_then(|bytes| CommandSpec::parse(bytes, act).ok());
    let env = act
        .env
        .as_ref()
        .and_then(text)
        .map(|bytes| Environment::parse(bytes));
    let reason = text(&command.request.reason)
        .cloned()
        .and_then(|bytes| String::from_utf8(bytes).ok());
    let lines = command.targets.iter().flat_map(|list| list.lines());
    let places = lines.map(|line| {
        let service = line.service.as_ref().map(ToString::to_string);
        (line.agent.to_string(), service)
    });
    let (Some(spec), Some(reason), Ok(env)) = (spec, reason, env.transpose()) else {
        return Ok(None);
    };
    Ok(Some(Asked {
        spec,
        places: places.collect(),
        env,
        stdin: act.stdin.as_ref().and_then(text).cloned(),
        reason,
    }))
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
        let answer = ExecAnswer::new(item, Vec::new());
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
    let answer = ExecAnswer::new(item, results);
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
    fn new(item: CommandItem, results: Vec<ExecutionResult>) -> Self {
        let only = match results.as_slice() {
            [only] => Some(only.clone()),
            _none_or_several => None,
        };
        Self {
            command: item.id,
            status: item.status,
            stdout: only.as_ref().map(|part| part.stdout.clone()),
            stderr: only.as_ref().map(|part| part.stderr.clone()),
            exit_code: only.as_ref().and_then(|part| part.code),
            duration_ms: only.as_ref().and_then(|part| part.duration_ms),
            truncated: results.iter().any(|part| part.truncated),
            results,
        }
    }
}
