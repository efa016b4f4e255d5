//! The log as static files: C2SP tlog-tiles. Hashes are public; entries are read by right.

use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use countersign_protocol::event::ReadWhat;
use countersign_protocol::merkle::NodeSource as _;
use countersign_protocol::permission::Permission;
use countersign_protocol::proof::NodeId;
use countersign_protocol::tile::{MAX_TILE_LEVEL, TILE_HEIGHT, TilePlace};
use countersign_protocol::witness::parse_size;

use super::app::App;
use super::auth::Caller;
use super::error::ApiError;
use super::notes;
use crate::ledger::{history, store};

/// A full tile never changes.
const FOR_EVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

/// A partial tile is of use until there is a wider one.
const FOR_A_MINUTE: HeaderValue = HeaderValue::from_static("public, max-age=60");

/// The newest checkpoint moves, and what is read by right is for whoever asked.
const NOT_KEPT: HeaderValue = HeaderValue::from_static("no-store");

/// The newest checkpoint that a quorum of witnesses has signed, where this server has a witness
/// policy; otherwise the newest one.
#[utoipa::path(get, path = "/checkpoint", tag = "tiles",
    responses((status = 200, body = String, content_type = "text/plain"), super::openapi::Problems))]
pub(super) async fn checkpoint(State(app): State<App>) -> Result<Response, ApiError> {
    let newest = match &app.cosigned {
        Some(cosigned) => cosigned.newest().ok_or_else(|| {
            ApiError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "no_quorum",
                "no quorum of witnesses has signed a checkpoint of this ledger yet",
            )
            .hint("/v1/checkpoint has the newest one by the ledger's word alone; this server's log says which witnesses are in trouble")
        })?,
        None => app.ledger.newest(),
    };
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        ),
        (header::CACHE_CONTROL, NOT_KEPT),
    ];
    Ok((headers, newest.note().to_owned()).into_response())
}

/// A tile of hashes: 32 bytes each.
#[utoipa::path(get, path = "/tile/{level}/{*rest}", tag = "tiles",
    params(("level" = String, Path, description = "0 for leaves; each level spans 8 of the tree"),
        ("rest" = String, Path, description = "which tile, as x001/x234/067 or 000.p/7")),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"), super::openapi::Problems))]
pub(super) async fn hashes(
    State(app): State<App>,
    Path((level, rest)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let level = parse_size(&level).and_then(|level| u8::try_from(level).ok());
    let level = level.filter(|level| *level <= MAX_TILE_LEVEL);
    let level = level.ok_or_else(no_tile)?;
    let place = place(&rest)?;
    if !place.is_within(level, app.ledger.newest().size()) {
        return Err(no_tile());
    }
    let height = level * TILE_HEIGHT;
    let indexes = place.first()..place.first() + place.width();
    let wanted: Vec<NodeId> = indexes
        .map(|index| NodeId {
            level: height,
            index,
        })
        .collect();
    let mut connection = app.ledger.pool().acquire().await?;
    let nodes = store::nodes(&mut connection, &wanted).await?;
    let mut bytes = Vec::new();
    for NodeId { level, index } in wanted {
        let hash = nodes.node(level, index);
        let hash = hash.ok_or_else(|| history::bad(index, "nodes of the tree are missing"))?;
        bytes.extend_from_slice(hash.as_bytes());
    }
    let kept = if place.is_full() {
        FOR_EVER
    } else {
        FOR_A_MINUTE
    };
    Ok(octets(kept, bytes))
}

/// A bundle of entries: a length of two bytes, big-endian, before each.
#[utoipa::path(get, path = "/tile/entries/{*rest}", tag = "tiles", security(("session" = ["audit:read"])),
    params(("rest" = String, Path, description = "which bundle, as x001/x234/067 or 000.p/7")),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"), super::openapi::Problems))]
pub(super) async fn entries(
    State(app): State<App>,
    caller: Caller,
    Path(rest): Path<String>,
) -> Result<Response, ApiError> {
    caller.require(&app, Permission::AuditRead)?;
    let place = place(&rest)?;
    notes::reads(&app, &caller.who, ReadWhat::Log, None).await?;
    let size = app.ledger.newest().size();
    if !place.is_within(0, size) {
        return Err(no_tile());
    }
    let mut connection = app.ledger.pool().acquire().await?;
    let rows = store::entries(&mut connection, place.first(), size, place.width()).await?;
    let mut bytes = Vec::new();
    for (seq, row) in (place.first()..).zip(&rows) {
        let length = u16::try_from(row.entry.len()).ok();
        let length = length.filter(|_| row.seq == seq);
        let length = length.ok_or_else(|| history::bad(seq, "it is not where it should be"))?;
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&row.entry);
    }
    if rows.len() as u64 == place.width() {
        Ok(octets(NOT_KEPT, bytes))
    } else {
        Err(history::bad(place.first(), "entries are missing").into())
    }
}

fn place(rest: &str) -> Result<TilePlace, ApiError> {
    rest.parse().map_err(|_| no_tile())
}

fn no_tile() -> ApiError {
    ApiError::not_found("no_tile", "the newest log does not have this tile")
        .hint("tiles are named as C2SP tlog-tiles names them, and exist for sizes that a checkpoint names")
}

fn octets(kept: HeaderValue, bytes: Vec<u8>) -> Response {
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        ),
        (header::CACHE_CONTROL, kept),
    ];
    (headers, bytes).into_response()
}
