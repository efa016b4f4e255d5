//! Commands: lists, one, its entries, its output.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use countersign_protocol::api::{
    CommandItem, ExecutionResult, MAX_PAGE, MAX_STREAMS, Page, StreamBody, StreamsBody,
    StreamsRequest,
};
use countersign_protocol::event::ReadWhat;
use countersign_protocol::fold::Stream;
use countersign_protocol::hash::CommandId;
use countersign_protocol::lifecycle::CommandStatus;
use countersign_protocol::permission::Permission;
use countersign_protocol::search;
use serde::Deserialize;

use super::access;
use super::app::App;
use super::auth::Caller;
use super::bodies::{Body, Parameters};
use super::error::ApiError;
use super::notes::{self, Purpose};
use super::operations;
use super::statements::preferred_wait;
use super::streams::{self, Wanted};
use crate::projections::Filter;

/// Commands in a page unless asked otherwise: a screenful or two.
const DEFAULT_PAGE: u64 = 50;

/// Which commands.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
pub(super) struct Listed {
    /// With this status word only.
    status: Option<String>,
    /// At most so many; 1000 at most, 50 when left out.
    limit: Option<u64>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// Commands, newest first; without `command:read` one's own. A token with labels sees its own and those
/// on its hosts, so that a page of it may be short.
#[utoipa::path(get, path = "/v1/commands", tag = "commands", params(Listed), security(("session" = [])),
    responses((status = 200, body = Page<CommandItem>), super::openapi::Problems))]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    Parameters(listed): Parameters<Listed>,
) -> Result<Json<Page<CommandItem>>, ApiError> {
    check_status(listed.status.as_deref())?;
    let before = listed
        .cursor
        .map(|cursor| cursor.parse().map_err(|_| bad_cursor()))
        .transpose()?;
    let limit = listed.limit.unwrap_or(DEFAULT_PAGE).clamp(1, MAX_PAGE);
    let own_only = !caller.holds(Permission::CommandRead);
    let filter = Filter {
        requester: own_only.then(|| caller.who.principal().clone()),
        status: listed.status,
        before,
        limit: limit + 1,
    };
    let mut items = app.reader.commands(&filter).await?;
    let more = items.len() as u64 > limit;
    items.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let next = items
        .last()
        .filter(|_| more)
        .map(|item| item.seq.to_string());
    let me = caller.who.principal().as_str();
    items.retain(|item| item.requester == me || caller.reaches(item));
    Ok(Json(Page { items, next }))
}

/// Turns away a status word that no command ever has.
pub(super) fn check_status(status: Option<&str>) -> Result<(), ApiError> {
    let mut words = CommandStatus::ALL.iter().map(|word| word.as_str());
    if status.is_none_or(|status| words.any(|word| word == status)) {
        return Ok(());
    }
    let words: Vec<&str> = CommandStatus::ALL
        .iter()
        .map(|word| word.as_str())
        .collect();
    Err(ApiError::bad_request(
        "status",
        format!(
            "there is no such status; the words are {}",
            words.join(", ")
        ),
    ))
}

fn bad_cursor() -> ApiError {
    ApiError::bad_request("cursor", "the cursor is not one that a page gave")
}

/// Finds a command by its whole id, its short form, or the first hex digits of its id.
pub(super) async fn find(app: &App, name: &str) -> Result<CommandId, ApiError> {
    let id = match name.parse() {
        // Zeros name the stream of rights, and no command.
        Ok(id) if id == Stream::Rights.id() => return Err(streams::commands_missing()),
        Ok(id) => id,
        Err(_) => {
            let (low, high) = search::id_bounds(name).ok_or_else(|| {
                ApiError::bad_request(
                    "id",
                    "an id is 64 hex digits, at least the first 8 of them, or the short form XXXX-XXXX",
                )
            })?;
            let found = app.reader.find(low, high).await?;
            found.ok_or_else(streams::commands_missing)?
        }
    };
    tracing::Span::current().record("command", tracing::field::display(id));
    Ok(id)
}

/// A command as the rows have it. Where they say that it has ended, all that it ended with can be read
/// after this: another server may have written both, and this one not have looked at the log since.
pub(super) async fn item(app: &App, id: &CommandId) -> Result<Option<CommandItem>, ApiError> {
    let item = app.reader.command(id).await?;
    if item.as_ref().is_some_and(|item| is_final(&item.status)) {
        app.ledger.look().await?;
    }
    Ok(item)
}

/// Waits for a command's end; nothing when it has not ended in time, or when so many calls wait that
/// this one gets no place to.
pub(super) async fn ended(
    app: &App,
    caller: &Caller,
    id: &CommandId,
    wait: Duration,
) -> Result<Option<CommandItem>, ApiError> {
    let mut steps = app.reader.watch();
    let place = app.waiter(&caller.who);
    let mut learning = app.ledger.learning();
    let look = async {
        loop {
            steps.borrow_and_update();
            if let Some(item) = item(app, id).await?
                && is_final(&item.status)
            {
                return Ok::<_, ApiError>(Some(item));
            }
            if place.is_none() || steps.changed().await.is_err() {
                return Ok(None);
            }
        }
    };
    tokio::select! {
        found = look => found,
        () = tokio::time::sleep(wait) => Ok(None),
        () = app.shutdown.cancelled() => Ok(None),
        // Another server may have it; this one would not hear of it, and says so.
        () = learning.lost() => operations::learns(app).map(|()| None),
    }
}

pub(super) fn is_final(status: &str) -> bool {
    CommandStatus::ALL
        .iter()
        .any(|word| word.as_str() == status && word.is_final())
}

/// One command. With `Prefer: wait=N` the answer comes when it has ended, or after N seconds.
#[utoipa::path(get, path = "/v1/commands/{id}", tag = "commands",
    params(("id" = String, Path), ("prefer" = Option<String>, Header, description = "wait=N")),
    security(("session" = ["command:read"])),
    responses((status = 200, body = CommandItem), super::openapi::Problems))]
pub(super) async fn show(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Json<CommandItem>, ApiError> {
    let id = find(&app, &name).await?;
    let (_, item) = access::sight(&app, &caller, &id).await?;
    let Some(wait) = preferred_wait(&headers) else {
        return Ok(Json(item));
    };
    ended(&app, &caller, &id, wait).await?;
    let caller = caller.again(&app).await?;
    let (_, item) = access::sight(&app, &caller, &id).await?;
    Ok(Json(item))
}

/// What something is read for.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
pub(super) struct For {
    /// When it is not just looked at; the log says so.
    purpose: Option<Purpose>,
    /// Whether what the hosts wrote comes along, for whoever may read it; it does when left out.
    output: Option<bool>,
}

/// All entries of a command, proved, with the blobs they name.
#[utoipa::path(get, path = "/v1/commands/{id}/entries", tag = "commands", params(("id" = String, Path), For),
    security(("session" = ["command:read"])),
    responses((status = 200, body = StreamBody), super::openapi::Problems))]
pub(super) async fn entries(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    Parameters(read_for): Parameters<For>,
) -> Result<Json<StreamBody>, ApiError> {
    let id = find(&app, &name).await?;
    let (sight, _) = access::sight(&app, &caller, &id).await?;
    if let Some(purpose) = read_for.purpose {
        notes::reads(&app, &caller.who, purpose.into(), Some(id)).await?;
    }
    let output = sight.output && read_for.output.unwrap_or(true);
    let wanted = Wanted {
        blob: &|event, _| output || !access::is_output(event),
        ..streams::whole(id)
    };
    let body = streams::prove(&app, &wanted).await?;
    if output && streams::has_output(&body) {
        notes::reads(&app, &caller.who, ReadWhat::Output, Some(id)).await?;
    }
    if body.entries.is_empty() {
        return Err(streams::commands_missing());
    }
    Ok(Json(body))
}

/// All entries of several commands, proved for one checkpoint, with the blobs they name and without what
/// hosts wrote. The answer holds the first of them that fit into it, one at least: ask for the rest again.
/// One that the caller may not see turns all of them away.
#[utoipa::path(post, path = "/v1/commands/entries", tag = "commands", request_body = StreamsRequest,
    security(("session" = ["command:read"])),
    responses((status = 200, body = StreamsBody), super::openapi::Problems))]
pub(super) async fn entries_of_many(
    State(app): State<App>,
    caller: Caller,
    Body(request, _room): Body<StreamsRequest>,
) -> Result<Json<StreamsBody>, ApiError> {
    let ids = whole_ids(&request)?;
    let items = app.reader.these(&ids).await?;
    for id in &ids {
        let item = items.get(id).ok_or_else(streams::commands_missing)?;
        access::sight_of(&app, &caller, id, item).await?;
    }
    streams::prove_many(&app, &ids).await.map(Json)
}

fn whole_ids(request: &StreamsRequest) -> Result<Vec<CommandId>, ApiError> {
    let refuse = |why: &str| ApiError::bad_request("ids", why);
    if request.ids.is_empty() || request.ids.len() > MAX_STREAMS {
        return Err(refuse("one call takes 1 to 200 ids"));
    }
    let ids: Result<Vec<CommandId>, _> = request.ids.iter().map(|id| id.parse()).collect();
    let ids = ids.map_err(|_| refuse("each id is whole: 64 hex digits"))?;
    let distinct: BTreeSet<&CommandId> = ids.iter().collect();
    if distinct.len() < ids.len() {
        return Err(refuse("an id is named twice"));
    }
    Ok(ids)
}

/// What came back from each host.
#[utoipa::path(get, path = "/v1/commands/{id}/output", tag = "commands", params(("id" = String, Path)),
    security(("session" = ["command:read", "output:read"])),
    responses((status = 200, body = Page<ExecutionResult>), super::openapi::Problems))]
pub(super) async fn output(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<Page<ExecutionResult>>, ApiError> {
    let id = find(&app, &name).await?;
    access::output(&app, &caller, &id).await?;
    let items = streams::results(&app, id).await?;
    Ok(Json(Page { items, next: None }))
}
