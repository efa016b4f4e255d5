//! The log itself: who this ledger is, its checkpoints, proofs, entries and blobs.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use countersign_protocol::api::{
    Base64, BlobBody, EntryItem, LedgerInfo, MAX_PAGE, Page, ProofBody, StreamBody,
};
use countersign_protocol::event::{Event, ReadWhat};
use countersign_protocol::fold::Stream;
use countersign_protocol::hash::Digest;
use countersign_protocol::permission::Permission;
use countersign_protocol::proof;
use serde::Deserialize;

use super::access;
use super::app::App;
use super::auth::{Caller, Session};
use super::bodies::Parameters;
use super::error::ApiError;
use super::notes::{self, Purpose};
use super::streams::{self, Wanted};
use crate::ledger::{history, store};

/// Who this ledger is.
#[utoipa::path(get, path = "/v1/ledger", tag = "log", responses((status = 200, body = LedgerInfo)))]
pub(super) async fn ledger(State(app): State<App>) -> Json<LedgerInfo> {
    let verifier = app.ledger.verifier();
    Json(LedgerInfo {
        ledger: app.ledger.id().to_string(),
        origin: verifier.origin().as_str().to_owned(),
        vkey: verifier.to_string(),
        checkpoint: app.ledger.newest().note().to_owned(),
        genesis: Base64(app.genesis.to_vec()),
    })
}

/// The newest checkpoint, a C2SP signed note.
#[utoipa::path(get, path = "/v1/checkpoint", tag = "log",
    responses((status = 200, body = String, content_type = "text/plain")))]
pub(super) async fn checkpoint(State(app): State<App>) -> Response {
    let note = app.ledger.newest().note().to_owned();
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], note).into_response()
}

/// Between which sizes.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
pub(super) struct Between {
    /// The smaller size, at least 1.
    from: u64,
    /// A committed size; the newest when left out.
    to: Option<u64>,
}

/// Proves that the log at one size begins with the log at a smaller one.
#[utoipa::path(get, path = "/v1/proofs/consistency", tag = "log", params(Between),
    responses((status = 200, body = ProofBody), super::openapi::Problems))]
pub(super) async fn consistency(
    State(app): State<App>,
    _session: Session,
    Parameters(between): Parameters<Between>,
) -> Result<Json<ProofBody>, ApiError> {
    let (size, checkpoint) = committed(&app, between.to).await?;
    if between.from == 0 || between.from > size {
        return Err(outside());
    }
    let proofs = app
        .proofs
        .consistency(app.ledger.pool(), between.from, size);
    let proof = proofs.await?.to_vec();
    Ok(Json(ProofBody { checkpoint, proof }))
}

/// What in which size.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
pub(super) struct Included {
    /// The entry's place.
    seq: u64,
    /// A committed size; the newest when left out.
    size: Option<u64>,
}

/// Proves that an entry is in the log at some size.
#[utoipa::path(get, path = "/v1/proofs/inclusion", tag = "log", params(Included),
    responses((status = 200, body = ProofBody), super::openapi::Problems))]
pub(super) async fn inclusion(
    State(app): State<App>,
    _session: Session,
    Parameters(included): Parameters<Included>,
) -> Result<Json<ProofBody>, ApiError> {
    let (size, checkpoint) = committed(&app, included.size).await?;
    if included.seq >= size {
        return Err(outside());
    }
    let mut connection = app.ledger.pool().acquire().await?;
    let wanted = proof::nodes_for_inclusion(included.seq, size);
    let nodes = store::nodes(&mut connection, &wanted).await?;
    let proof = proof::inclusion_proof(&nodes, included.seq, size)
        .ok_or_else(|| history::bad(included.seq, "nodes of the tree are missing"))?;
    Ok(Json(ProofBody { checkpoint, proof }))
}

fn outside() -> ApiError {
    ApiError::new(
        StatusCode::NOT_FOUND,
        "outside",
        "the log at that size does not contain this place",
    )
}

/// The checkpoint of a size, the newest when none is named.
async fn committed(app: &App, size: Option<u64>) -> Result<(u64, String), ApiError> {
    let newest = app.ledger.newest();
    let Some(size) = size.filter(|size| *size != newest.size()) else {
        return Ok((newest.size(), newest.note().to_owned()));
    };
    let mut connection = app.ledger.pool().acquire().await?;
    let note = store::note(&mut connection, size).await?.ok_or_else(|| {
        ApiError::not_found("no_checkpoint", "no checkpoint of this size was committed")
    })?;
    Ok((size, note))
}

/// Which entries.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
pub(super) struct Range {
    /// The first place; 0 when left out.
    #[serde(default)]
    from: u64,
    /// At most so many; 1000 at most.
    limit: Option<u64>,
    /// What they are read for; the log says so.
    purpose: Option<Purpose>,
}

/// Entries in order, from the newest checkpoint's log.
#[utoipa::path(get, path = "/v1/entries", tag = "log", params(Range), security(("session" = ["audit:read"])),
    responses((status = 200, body = Page<EntryItem>), super::openapi::Problems))]
pub(super) async fn entries(
    State(app): State<App>,
    caller: Caller,
    Parameters(range): Parameters<Range>,
) -> Result<Json<Page<EntryItem>>, ApiError> {
    caller.require(&app, Permission::AuditRead)?;
    let what = range.purpose.map_or(ReadWhat::Log, ReadWhat::from);
    notes::reads(&app, &caller.who, what, None).await?;
    let size = app.ledger.newest().size();
    let limit = range.limit.unwrap_or(MAX_PAGE).clamp(1, MAX_PAGE);
    let mut connection = app.ledger.pool().acquire().await?;
    let rows = store::entries(&mut connection, range.from, size, limit).await?;
    let next = rows
        .last()
        .map(|row| row.seq + 1)
        .filter(|next| *next < size);
    let items = rows
        .into_iter()
        .map(|row| EntryItem {
            seq: row.seq,
            entry: Base64(row.entry),
        })
        .collect();
    Ok(Json(Page {
        items,
        next: next.map(|next| next.to_string()),
    }))
}

/// A blob that an entry names.
#[utoipa::path(get, path = "/v1/blobs/{digest}", tag = "log", security(("session" = [])), params(("digest" = String, Path)),
    responses((status = 200, body = BlobBody), super::openapi::Problems))]
pub(super) async fn blob(
    State(app): State<App>,
    caller: Caller,
    Path(digest): Path<String>,
) -> Result<Json<BlobBody>, ApiError> {
    let digest: Digest = digest
        .parse()
        .map_err(|_| ApiError::bad_request("digest", "a digest is 64 lowercase hex digits"))?;
    may_read(&app, &caller, &digest).await?;
    let mut connection = app.ledger.pool().acquire().await?;
    match store::blob(&mut connection, &digest).await? {
        Some(Some(blob)) => Ok(Json(BlobBody::from(&blob))),
        Some(None) => Err(ApiError::new(
            StatusCode::GONE,
            "redacted",
            "this text was redacted; the log says by whom and why",
        )),
        None => Err(ApiError::not_found("unknown_blob", "no such blob")),
    }
}

/// All entries on keys, people, agents and policies, proved.
#[utoipa::path(get, path = "/v1/streams/rights", tag = "log", security(("session" = [])),
    responses((status = 200, body = StreamBody), super::openapi::Problems))]
pub(super) async fn rights(
    State(app): State<App>,
    caller: Caller,
) -> Result<Json<StreamBody>, ApiError> {
    caller.require_of_token(&app, Permission::RightsRead)?;
    // Of what hosts say of themselves only what counts today: the rest is as old as the log, and who needs it
    // to look back asks for it by its digest.
    let records = caller.rights.agents().map(|(_, record)| record);
    let today: BTreeSet<Digest> = records
        .filter_map(|record| Some(record.facts.as_ref()?.named.digest))
        .collect();
    let wanted = Wanted {
        blob: &|event, digest| !matches!(event, Event::AgentFacts(_)) || today.contains(digest),
        ..streams::whole(Stream::Rights.id())
    };
    streams::prove(&app, &wanted).await.map(Json)
}

/// Turns away whoever may not see the entry that brought a blob. Whoever names it again makes it
/// nobody else's to read.
async fn may_read(app: &App, caller: &Caller, digest: &Digest) -> Result<(), ApiError> {
    let mut connection = app.ledger.pool().acquire().await?;
    let size = app.ledger.newest().size();
    let row = store::naming(&mut connection, digest, size).await?;
    drop(connection);
    let row = row.ok_or_else(|| ApiError::not_found("unknown_blob", "no such blob"))?;
    let (id, event) = streams::parse(&row)?;
    match Stream::of(&event, id) {
        Some(Stream::Rights) | None => caller.require_of_token(app, Permission::RightsRead),
        Some(Stream::Command(command)) if access::is_output(&event) => {
            access::output(app, caller, &command).await
        }
        Some(Stream::Command(command)) => access::sight(app, caller, &command).await.map(drop),
    }
}
