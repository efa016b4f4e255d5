//! Searching what happened. What is found is this server's word: a client fetches each stream with its
//! proofs and judges it again.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use countersign_protocol::api::Page;
use countersign_protocol::event::ReadWhat;
use countersign_protocol::permission::Permission;
use countersign_protocol::search::{MAX_HITS, SearchFor, SearchHit, SearchRequest};

use super::app::App;
use super::auth::Caller;
use super::bodies::Body;
use super::commands;
use super::error::ApiError;
use super::notes;
use crate::projections::FoundPage;

/// Things in a page unless asked otherwise.
const DEFAULT_PAGE: u64 = 200;

/// Searches at a time: each may keep a connection and a core of the database for seconds, and people
/// who approve come first.
pub(super) const CONCURRENT_SEARCHES: usize = 4;

/// Finds commands and hosts' parts of them, in the order that each search says. The answer proves
/// nothing: fetch each stream and judge it. The log says that the caller reads it.
#[utoipa::path(post, path = "/v1/audit/search", tag = "log", request_body = SearchRequest,
    security(("session" = ["audit:read", "command:read"])),
    responses((status = 200, body = Page<SearchHit>), super::openapi::Problems))]
pub(super) async fn search(
    State(app): State<App>,
    caller: Caller,
    Body(request, _room): Body<SearchRequest>,
) -> Result<Json<Page<SearchHit>>, ApiError> {
    may_search(&app, &caller, &request)?;
    check(&app, &request)?;
    let _place = app.searches.try_acquire().map_err(|_| {
        ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "busy",
            "as many searches as there may be are under way",
        )
        .hint("ask again in a moment")
    })?;
    notes::reads(&app, &caller.who, ReadWhat::Log, None).await?;
    let limit = request.limit.unwrap_or(DEFAULT_PAGE).clamp(1, MAX_HITS);
    let (size, cursor) = (request.size, request.cursor.as_deref());
    let reader = &app.reader;
    let page = match &request.search {
        SearchFor::Runs(query) => reader.runs_that_fit(query, size, cursor, limit).await?,
        SearchFor::Ran(ran) => reader.runs_on(ran, size, cursor, limit).await?,
        SearchFor::BreakGlass {} => reader.break_glass(size, cursor, limit).await?,
        SearchFor::Then { status, open } => {
            let status = status.as_deref();
            reader
                .there_then(status, *open, size, cursor, limit)
                .await?
        }
    };
    Ok(Json(told(page)))
}

fn told(page: FoundPage) -> Page<SearchHit> {
    let items = page.items.into_iter().map(|found| SearchHit {
        command: found.command.to_string(),
        host: found.host,
    });
    Page {
        items: items.collect(),
        next: page.next,
    }
}

/// A search says whether something has been written, so it takes the right to read it.
fn may_search(app: &App, caller: &Caller, request: &SearchRequest) -> Result<(), ApiError> {
    caller.require(app, Permission::AuditRead)?;
    caller.require(app, Permission::CommandRead)?;
    if let SearchFor::Runs(query) = &request.search
        && query.reads_output()
    {
        caller.require(app, Permission::OutputRead)?;
    }
    if caller.is_for_all_hosts() {
        Ok(())
    } else {
        Err(
            ApiError::forbidden("a token for some hosts sees their commands, and searches nothing")
                .hint("GET /v1/commands lists what this token may see"),
        )
    }
}

fn check(app: &App, request: &SearchRequest) -> Result<(), ApiError> {
    if request.size > app.ledger.newest().size() {
        return Err(ApiError::bad_request(
            "size",
            "the log is not that long; give the size of a checkpoint",
        ));
    }
    match &request.search {
        SearchFor::Runs(query) => query
            .check()
            .map_err(|refusal| ApiError::bad_request("query", refusal.to_string())),
        SearchFor::Ran(ran) => {
            let texts = [Some(&ran.host), ran.user.as_ref()];
            if texts.into_iter().flatten().any(|text| text.contains('\0')) {
                return Err(ApiError::bad_request("query", "no name has a zero byte"));
            }
            Ok(())
        }
        SearchFor::BreakGlass {} => Ok(()),
        SearchFor::Then { status, .. } => commands::check_status(status.as_deref()),
    }
}
