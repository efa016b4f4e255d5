//! The door: signed statements in, receipts out.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use countersign_protocol::api::{
    Answer, Answers, Base64, CommandItem, ExecutionResult, MAX_BATCH, Receipt, Submission,
    SubmissionBatch,
};
use countersign_protocol::event::{Author, DeniedWhat, Kind, ReadWhat, Signatory};
use countersign_protocol::fold::Refusal;
use countersign_protocol::hash::{CommandId, Hash, KeyId};
use countersign_protocol::name::AgentName;
use countersign_protocol::rights::Holder;
use countersign_protocol::sshsig::SshSig;
use futures_util::future::join_all;

use super::app::App;
use super::auth::{Caller, Who};
use super::bodies::Body;
use super::error::ApiError;
use super::{access, commands, notes, streams};
use crate::ledger::{self, Admitted};

/// The longest wait that a caller may prefer: the longest timeout of a command.
const MAX_WAIT: Duration = Duration::from_secs(300);

/// Unpacks a body into a statement and its blobs.
pub(super) fn unpack(body: Submission) -> Result<ledger::Submission, ApiError> {
    let statement = body.statement().ok_or_else(|| {
        ApiError::bad_request(
            "namespace",
            "the namespace names no kind of statement known here",
        )
    })?;
    let blobs = body
        .blobs
        .into_iter()
        .map(|blob| {
            blob.into_blob().ok_or_else(|| {
                ApiError::bad_request("blob", "a blob has a salt of 32 bytes and at most 4 MiB")
            })
        })
        .collect::<Result<_, _>>()?;
    Ok(ledger::Submission { statement, blobs })
}

/// Seconds of `Prefer: wait=N` (RFC 7240), capped.
pub(super) fn preferred_wait(headers: &HeaderMap) -> Option<Duration> {
    headers
        .get_all("prefer")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .find_map(|part| part.trim().strip_prefix("wait=")?.parse().ok())
        .map(|seconds| Duration::from_secs(seconds).min(MAX_WAIT))
}

pub(super) fn pack(receipt: &ledger::Receipt) -> Receipt {
    Receipt {
        statement_id: receipt.id.to_string(),
        seq: receipt.seq,
        time_us: receipt.time.as_micros(),
        entry: Base64(receipt.entry.to_vec()),
        leaf: receipt.leaf.to_string(),
        checkpoint: receipt.checkpoint.note().to_owned(),
        inclusion: receipt.inclusion.clone(),
        since_seen: None,
        status: receipt.status.map(|status| status.as_str().to_owned()),
        repeated: receipt.repeated,
        results: None,
    }
}

/// A statement that may go to the writer, or why not; its kind is for the books.
type Admission = (Option<Kind>, Result<Admitted, ApiError>);

/// Everything before the writer: unpacking, the key, signature, blobs.
async fn admit(app: &App, body: Submission) -> Admission {
    let submission = match unpack(body) {
        Ok(submission) => submission,
        Err(error) => return (None, Err(error)),
    };
    let kind = submission.statement.kind;
    let admitted = async {
        known_key(app, &submission).await?;
        Ok(app.ledger.admit(submission).await?)
    };
    (Some(kind), admitted.await)
}

/// The person who signed, as the statement says; the ledger checks that when it is entered.
fn who_signed(admitted: &Admitted) -> Option<Who> {
    let header = admitted.event().header();
    match header.author {
        Author::Person(name) => Some(Who::Person(name.clone(), header.signer)),
        Author::Ledger | Author::Agent(_) => None,
    }
}

/// The agent that signed, as the statement says.
fn agent_who_signed(admitted: &Admitted) -> Option<(AgentName, KeyId)> {
    let header = admitted.event().header();
    match header.author {
        Author::Agent(name) => Some((name.clone(), header.signer)),
        Author::Ledger | Author::Person(_) => None,
    }
}

/// Says whether the key is this person's: a name that somebody else signs under is not written down.
fn is_own_key(app: &App, who: &Who) -> bool {
    match who {
        Who::Person(name, key) => app.reader.holder(key) == Some(Holder::Person(name.clone())),
        Who::Token(..) => false,
    }
}

/// To the writer and back. The first poll puts the statement into the queue.
async fn enter(app: &App, (kind, admitted): Admission) -> Result<ledger::Receipt, ApiError> {
    let who = admitted.as_ref().ok().and_then(who_signed);
    let answer = match admitted {
        Ok(admitted) => app.ledger.enter(admitted).await.map_err(ApiError::from),
        Err(error) => Err(error),
    };
    let kind = kind.map_or("unknown", Kind::as_str);
    match &answer {
        Ok(receipt) => {
            app.metrics.statement(kind, "ok");
            tracing::info!(kind, id = %receipt.id, seq = receipt.seq, "appended");
        }
        Err(error) => {
            app.metrics.statement(kind, &error.0.code);
            if error.0.status == StatusCode::FORBIDDEN.as_u16() {
                let known = who.filter(|who| is_own_key(app, who));
                let principal = known.map(|who| who.principal().clone());
                app.denials
                    .count(DeniedWhat::Statement, principal, None, app.clock.now());
            }
            tracing::info!(kind, code = error.0.code, "refused");
        }
    }
    answer
}

/// Strangers' blobs are not stored: whoever signs must be known and not revoked, before anything
/// else is done.
/// What the key may say is decided by the ledger, under its lock.
async fn known_key(app: &App, submission: &ledger::Submission) -> Result<(), ApiError> {
    if submission.statement.kind.signatory() == Signatory::Newcomer {
        return Ok(());
    }
    let key = SshSig::from_blob(&submission.statement.signature)
        .map_err(|error| ApiError::bad_request("statement", error.to_string()))?
        .key()
        .key_id();
    if app.reader.knows(&key) {
        return Ok(());
    }
    app.ledger.look().await?;
    match app.reader.rights().await?.key(&key) {
        Some(record) if record.revoked.is_none() => Ok(()),
        // Its last word again, whose answer was lost: it has no blobs, and the writer knows it.
        Some(record) if record.retired && submission.statement.kind == Kind::AgentKeyRetired => {
            Ok(())
        }
        Some(_) => Err((&Refusal::RevokedKey).into()),
        None => Err((&Refusal::UnknownKey).into()),
    }
}

/// Appends a signed statement with the blobs it names.
///
/// The statement authenticates itself. The same statement again gets the first one's receipt. That
/// is no right to read: `Prefer: wait=N` is heard only with a session or an API token that may see
/// the command, and results come only to one that may read its output.
#[utoipa::path(post, path = "/v1/statements", tag = "statements", request_body = Submission,
    params(("prefer" = Option<String>, Header, description = "wait=N: with a session or an API token that may see the command, answer a request when it has ended, or after N seconds")),
    responses(
        (status = 201, body = Receipt, description = "Appended"),
        (status = 200, body = Receipt, description = "It stood in the log before, or the request that was waited for has ended"),
        (status = 202, body = Receipt, description = "Appended; the request has not ended yet"),
        super::openapi::Problems))]
pub(super) async fn submit(
    State(app): State<App>,
    headers: HeaderMap,
    Body(body, room): Body<Submission>,
) -> Result<Response, ApiError> {
    let is_request = Kind::from_namespace(&body.namespace) == Ok(Kind::CommandRequested);
    let admission = admit(&app, body).await;
    let admitted = admission.1.as_ref().ok();
    let seen = admitted.and_then(Admitted::seen);
    let agent = admitted.and_then(agent_who_signed);
    let entered = enter(&app, admission).await?;
    // It is in the log; a caller who waits for the end of a command takes no room.
    drop(room);
    if let Some(agent) = agent {
        // It will have seen the receipt's checkpoint when it gets a grant.
        app.presence.has_seen(agent, entered.checkpoint.size());
    }
    let mut receipt = pack(&entered);
    receipt.since_seen = since_seen(&app, seen, entered.checkpoint.size()).await;
    if !is_request {
        let status = created(&receipt);
        return Ok((status, Json(receipt)).into_response());
    }
    let location = format!("/v1/commands/{}", receipt.statement_id);
    let mut status = created(&receipt);
    let id: Option<CommandId> = receipt.statement_id.parse().ok();
    if let (Some(wait), Some(id)) = (preferred_wait(&headers), id)
        && let Some(caller) = reader(&app, &headers, &id).await
    {
        status = StatusCode::ACCEPTED;
        match end(&app, &caller, id, wait).await {
            Ok(Some((item, results))) => {
                status = StatusCode::OK;
                receipt.status = Some(item.status);
                receipt.results = results;
            }
            Ok(None) => {}
            // The statement is entered, whatever becomes of the wait: the answer is its receipt.
            Err(error) => {
                tracing::warn!(%id, code = error.0.code, "its end cannot be told");
            }
        }
    }
    Ok((status, [(header::LOCATION, location)], Json(receipt)).into_response())
}

/// Whoever may see the command, by what the request comes with beside the statement: whoever holds a
/// copy of a statement's bytes is not thereby its signer. Anybody else is answered without a wait, for
/// their statement stands in the log all the same.
async fn reader(app: &App, headers: &HeaderMap, id: &CommandId) -> Option<Caller> {
    let caller = Caller::of(app, headers).await.ok()?;
    let seen = access::sight(app, &caller, id).await;
    seen.is_ok().then_some(caller)
}

/// A command's end, when it comes within the wait, and what came back.
async fn end(
    app: &App,
    caller: &Caller,
    id: CommandId,
    wait: Duration,
) -> Result<Option<(CommandItem, Option<Vec<ExecutionResult>>)>, ApiError> {
    let Some(item) = commands::ended(app, caller, &id, wait).await? else {
        return Ok(None);
    };
    let results = results(app, caller, id).await?;
    Ok(Some((item, results)))
}

/// What came back from each host, for a caller who may read it now that the wait is over.
async fn results(
    app: &App,
    caller: &Caller,
    id: CommandId,
) -> Result<Option<Vec<ExecutionResult>>, ApiError> {
    // The statement is entered, so the answer is a receipt also for one who may not read any more.
    let Ok(caller) = caller.again(app).await else {
        return Ok(None);
    };
    let sight = access::sight(app, &caller, &id).await;
    if !sight.is_ok_and(|(sight, _)| sight.output) {
        return Ok(None);
    }
    notes::reads(app, &caller.who, ReadWhat::Output, Some(id)).await?;
    streams::results(app, id).await.map(Some)
}

/// Spares the caller a request: the proof that its memory goes on. It asks when it gets none.
async fn since_seen(app: &App, seen: Option<u64>, size: u64) -> Option<Vec<Hash>> {
    let from = seen.filter(|seen| (1..=size).contains(seen))?;
    let proof = app.proofs.consistency(app.ledger.pool(), from, size);
    Some(proof.await.ok()?.to_vec())
}

const fn created(receipt: &Receipt) -> StatusCode {
    if receipt.repeated {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    }
}

/// Appends several statements in this order; each is answered by itself.
#[utoipa::path(post, path = "/v1/statements/batch", tag = "statements", request_body = SubmissionBatch,
    responses((status = 200, body = Answers), super::openapi::Problems))]
pub(super) async fn submit_batch(
    State(app): State<App>,
    Body(batch, _room): Body<SubmissionBatch>,
) -> Result<Json<Answers>, ApiError> {
    if batch.statements.len() > MAX_BATCH {
        return Err(ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_many",
            format!("a batch has at most {MAX_BATCH} statements"),
        ));
    }
    let admissions = join_all(batch.statements.into_iter().map(|body| admit(&app, body))).await;
    // Polled in order, so that they reach the writer in order and share a batch there.
    let answers = join_all(
        admissions
            .into_iter()
            .map(|admission| enter(&app, admission)),
    )
    .await
    .into_iter()
    .map(|answer| match answer {
        Ok(receipt) => Answer::Receipt(pack(&receipt)),
        Err(error) => Answer::Problem(*error.0),
    })
    .collect();
    Ok(Json(Answers { answers }))
}
