//! What happens, as it happens: server-sent events over the log, resumable by position.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use countersign_protocol::api::{Base64, LiveEntry, Notice};
use countersign_protocol::event::ReadWhat;
use countersign_protocol::fold::Stream as LogStream;
use countersign_protocol::hash::{CommandId, KeyId};
use countersign_protocol::permission::Permission;
use futures_util::Stream;
use serde::Serialize;

use super::access;
use super::app::{App, Place};
use super::auth::{Caller, Person};
use super::error::ApiError;
use super::{commands, notes, operations, streams};
use crate::ledger::store;
use crate::projections::ReadError;

/// How often a silent stream says that it lives, so that both sides notice a dead peer.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Entries that are read for a listener at a time.
const PAGE: u64 = 256;

/// One event with a position.
pub(super) fn event(name: &str, seq: u64, data: &impl Serialize) -> SseEvent {
    let event = SseEvent::default().event(name).id(seq.to_string());
    event.json_data(data).unwrap_or_else(|error| {
        tracing::error!(%error, "an event has no JSON form");
        SseEvent::default().comment("an event could not be written")
    })
}

/// Keeps a stream's place among the open ones, where there is something to hear.
pub(super) fn place(app: &App, key: KeyId) -> Result<Place, ApiError> {
    operations::learns(app)?;
    app.place(key).ok_or_else(ApiError::busy)
}

/// Makes a response of a source of events. The source gives `None` when the stream is over; it is
/// dropped, with all it holds, when the caller goes, the server stops, or learns nothing any more.
pub(super) fn respond<S, F>(
    app: &App,
    source: S,
    next: fn(S) -> F,
) -> Sse<impl Stream<Item = Result<SseEvent, Infallible>> + use<S, F>>
where
    S: Send + 'static,
    F: Future<Output = Option<(SseEvent, S)>> + Send + 'static,
{
    let ends = (app.shutdown.clone(), app.ledger.learning());
    let events = futures_util::stream::unfold((source, ends), move |(source, ends)| async move {
        let (stop, mut learning) = ends;
        let next = tokio::select! {
            // A server that stops does not wait for its listeners.
            () = stop.cancelled() => None,
            // Comments alone would keep them here, while another server has what they wait for.
            () = learning.lost() => None,
            next = next(source) => next,
        };
        next.map(|(event, source)| (Ok(event), (source, (stop, learning))))
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let Some(value) = headers.get("last-event-id") else {
        return Ok(None);
    };
    let seq = value.to_str().ok().and_then(|value| value.parse().ok());
    seq.map(Some).ok_or_else(|| {
        ApiError::bad_request("last_event_id", "Last-Event-ID is the number of an entry")
    })
}

/// A stream outlives the look at its session: a key that is revoked hears nothing more.
async fn still_heard(app: &App, key: &KeyId) -> Result<(), ApiError> {
    let rights = app.reader.rights().await?;
    let record = rights.key(key);
    if record.is_some_and(|record| record.is_in_force(app.clock.now())) {
        Ok(())
    } else {
        Err(ApiError::unauthenticated())
    }
}

/// The last event of a stream that ends before its time: the problem that another call would get. It
/// has no position, for whoever comes again goes on after the last entry.
fn problem(error: &ApiError) -> SseEvent {
    tracing::warn!(code = error.0.code, "a listener's stream ends");
    let event = SseEvent::default().event("problem");
    event.json_data(&error.0).unwrap_or_default()
}

/// A listener on the whole log.
struct Follower {
    app: App,
    caller: Caller,
    next: u64,
    waiting: VecDeque<Notice>,
    is_over: bool,
    _place: Place,
}

/// A notice for each entry of the log, after `Last-Event-ID` or from now on.
#[utoipa::path(get, path = "/v1/events", tag = "events",
    params(("last-event-id" = Option<u64>, Header)), security(("session" = ["command:read"])),
    responses((status = 200, body = Notice, content_type = "text/event-stream"), super::openapi::Problems))]
pub(super) async fn all(
    State(app): State<App>,
    person: Person,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<SseEvent, Infallible>>>, ApiError> {
    let key = person.key;
    let caller = person.caller();
    caller.require(&app, Permission::CommandRead)?;
    let next = match last_event_id(&headers)? {
        Some(seq) => seq.saturating_add(1),
        None => app.ledger.newest().size(),
    };
    let follower = Follower {
        _place: place(&app, key)?,
        app: app.clone(),
        caller,
        next,
        waiting: VecDeque::new(),
        is_over: false,
    };
    Ok(respond(&app, follower, Follower::next))
}

impl Follower {
    async fn next(mut self) -> Option<(SseEvent, Self)> {
        while !self.is_over {
            if let Some(notice) = self.waiting.pop_front() {
                return Some((event("entry", notice.seq, &notice), self));
            }
            let mut log = self.app.ledger.watch();
            if let Err(error) = self.read().await {
                self.is_over = true;
                return Some((problem(&error), self));
            }
            if self.waiting.is_empty() {
                let next = self.next;
                log.wait_for(|newest| newest.size() > next).await.ok()?;
            }
        }
        None
    }

    async fn read(&mut self) -> Result<(), ApiError> {
        let size = self.app.ledger.newest().size();
        let mut connection = self.app.ledger.pool().acquire().await?;
        let rows = store::entries(&mut connection, self.next, size, PAGE).await?;
        drop(connection);
        // After the rows: a right that one of them takes away, or an earlier one, is gone by now.
        let caller = self.caller.again(&self.app).await?;
        caller.require(&self.app, Permission::CommandRead)?;
        for row in rows {
            let (id, parsed) = streams::parse(&row)?;
            let command = match LogStream::of(&parsed, id) {
                Some(LogStream::Command(command)) => Some(command.to_string()),
                Some(LogStream::Rights) | None => None,
            };
            self.waiting.push_back(Notice {
                seq: row.seq,
                kind: parsed.kind().as_str().to_owned(),
                command,
            });
            self.next = row.seq + 1;
        }
        Ok(())
    }
}

/// A listener on one command.
struct CommandFollower {
    app: App,
    key: KeyId,
    caller: Caller,
    id: CommandId,
    next: u64,
    waiting: VecDeque<LiveEntry>,
    is_over: bool,
    _place: Place,
}

/// Each entry of a command with its blobs, from the first or after `Last-Event-ID`; it ends after
/// the last entry of an ended command.
#[utoipa::path(get, path = "/v1/commands/{id}/events", tag = "events",
    params(("id" = String, Path), ("last-event-id" = Option<u64>, Header)),
    security(("session" = ["command:read"])),
    responses((status = 200, body = LiveEntry, content_type = "text/event-stream"), super::openapi::Problems))]
pub(super) async fn of_command(
    State(app): State<App>,
    person: Person,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<SseEvent, Infallible>>>, ApiError> {
    let id = commands::find(&app, &name).await?;
    let key = person.key;
    let caller = person.caller();
    access::sight(&app, &caller, &id).await?;
    let follower = CommandFollower {
        _place: place(&app, key)?,
        app: app.clone(),
        key,
        caller,
        id,
        next: last_event_id(&headers)?.map_or(0, |seq| seq.saturating_add(1)),
        waiting: VecDeque::new(),
        is_over: false,
    };
    Ok(respond(&app, follower, CommandFollower::next))
}

impl CommandFollower {
    async fn next(mut self) -> Option<(SseEvent, Self)> {
        let mut log = self.app.ledger.watch();
        while !self.is_over {
            if let Some(entry) = self.waiting.pop_front() {
                return Some((event("entry", entry.seq, &entry), self));
            }
            log.borrow_and_update();
            match self.read().await {
                Ok(true) => return None,
                Ok(false) => {}
                Err(error) => {
                    self.is_over = true;
                    return Some((problem(&error), self));
                }
            }
            if self.waiting.is_empty() {
                log.changed().await.ok()?;
            }
        }
        None
    }

    /// Reads what is new. True when there is nothing, and nothing can come any more.
    async fn read(&mut self) -> Result<bool, ApiError> {
        still_heard(&self.app, &self.key).await?;
        if self.read_page().await? {
            // It is told before the lists, which say whether that was all, have followed.
            return Ok(false);
        }
        // It was there when the listener came: lists that do not have it do not know whether that was all.
        let item = commands::item(&self.app, &self.id).await?;
        let item = item.ok_or(ReadError::Behind)?;
        let ended = commands::is_final(&item.status);
        // Whatever was entered before that status is in the log that this server knows by now.
        Ok(ended && !self.read_page().await?)
    }

    /// Whether there was anything.
    async fn read_page(&mut self) -> Result<bool, ApiError> {
        let size = self.app.ledger.newest().size();
        let mut connection = self.app.ledger.pool().acquire().await?;
        let rows = store::stream_page(&mut connection, &self.id, self.next, size, PAGE).await?;
        drop(connection);
        if rows.is_empty() {
            return Ok(false);
        }
        // For each page and not at the opening alone: session and rights end meanwhile. After its rows,
        // so that a right that one of them takes away is gone by now.
        let caller = self.caller.again(&self.app).await?;
        let (sight, _) = access::sight(&self.app, &caller, &self.id).await?;
        let mut connection = self.app.ledger.pool().acquire().await?;
        for row in rows {
            let (_, parsed) = streams::parse(&row)?;
            let is_output = access::is_output(&parsed);
            if is_output && sight.output {
                let (what, id) = (ReadWhat::Output, Some(self.id));
                notes::reads(&self.app, &caller.who, what, id).await?;
            }
            let named = parsed.blobs().into_iter().map(|blob| blob.digest);
            let named = named.filter(|_| sight.output || !is_output);
            let (blobs, _redacted) = streams::blobs(&mut connection, named.collect()).await?;
            self.next = row.seq + 1;
            self.waiting.push_back(LiveEntry {
                seq: row.seq,
                entry: Base64(row.entry),
                blobs,
            });
        }
        Ok(!self.waiting.is_empty())
    }
}
