//! An agent's work: what people have authorized for it, with all that it needs to check that itself.
//!
//! An agent may have two keys in force. Each listens for itself, and gets what names it alone.
//! It owns what a listener was told. It asks the database when it comes and when nobody knows what has
//! changed; else the bell says which commands to look at.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event as SseEvent, Sse};
use countersign_protocol::api::{SEEN, Work};
use countersign_protocol::hash::{CommandId, KeyId};
use countersign_protocol::name::AgentName;
use futures_util::Stream;

use super::app::{App, Place};
use super::auth::Agent;
use super::error::ApiError;
use super::events::{event, place, respond};
use super::grants::Enough;
use super::presence::Present;
use crate::projections::{Calls, Ear};

/// Commands that a listener remembers to have been told of: with more it looks at what is open, and
/// forgets the others.
const MOST_TOLD: usize = 256;

/// What an agent was told of a command.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Told {
    granted: bool,
    cancelled: bool,
}

/// An agent that listens for work, with one of its keys.
struct Listener {
    app: App,
    agent: AgentName,
    key: KeyId,
    ear: Ear,
    /// It was told what was open when it came.
    begun: bool,
    told: BTreeMap<CommandId, Told>,
    waiting: VecDeque<(u64, Work)>,
    _present: Present,
    _place: Place,
}

/// The agent's work: first what is open, then what comes. Work that was not started comes again
/// after a reconnect; the agent knows what it has used.
#[utoipa::path(get, path = "/v1/agents/{name}/work", tag = "events", params(("name" = String, Path),
    ("countersign-seen" = Option<u64>, Header, description = "The size of the checkpoint that the agent remembers: grants come with a proof from there")),
    responses((status = 200, body = Work, content_type = "text/event-stream"), super::openapi::Problems))]
pub(super) async fn stream(
    State(app): State<App>,
    agent: Agent,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<SseEvent, Infallible>>>, ApiError> {
    if agent.name.as_str() != name {
        return Err(ApiError::forbidden("an agent gets its own work only"));
    }
    tracing::info!(agent = name, "an agent listens for work");
    let seen = headers
        .get(SEEN)
        .and_then(|seen| seen.to_str().ok()?.parse().ok());
    if let Some(size) = seen {
        app.presence.has_seen((agent.name.clone(), agent.key), size);
    }
    let listener = Listener {
        _place: place(&app, agent.key)?,
        _present: app
            .presence
            .enter((agent.name.clone(), agent.key), &app.clock),
        // Before it looks, so that nothing comes between.
        ear: app.reader.bell().listen(agent.name.clone(), agent.key),
        app: app.clone(),
        agent: agent.name,
        key: agent.key,
        begun: false,
        told: BTreeMap::new(),
        waiting: VecDeque::new(),
    };
    Ok(respond(&app, listener, Listener::next))
}

impl Listener {
    async fn next(mut self) -> Option<(SseEvent, Self)> {
        loop {
            if let Some((seq, work)) = self.waiting.pop_front() {
                return Some((event("work", seq, &work), self));
            }
            let calls = if self.begun {
                self.ear.heard().await
            } else {
                Calls::All
            };
            self.begun = true;
            let looked = match calls {
                Calls::Commands(called) if self.told.len() < MOST_TOLD => {
                    self.look_at(called).await
                }
                Calls::Commands(_) | Calls::All => self.look().await,
            };
            if let Err(error) = looked {
                // The agent comes again, and gets all that is open.
                tracing::warn!(agent = %self.agent, code = error.0.code, "an agent's stream ends");
                return None;
            }
        }
    }

    /// Commands that were just allowed, or cancelled, without a question to the database for each host.
    async fn look_at(&mut self, called: BTreeMap<CommandId, u64>) -> Result<(), ApiError> {
        for (id, size) in called {
            let alike = self
                .app
                .grants
                .of(&self.app, id, Enough::Size(size))
                .await?;
            let told = self.told.get(&id).copied().unwrap_or_default();
            if alike.goes_in_turns() || (alike.is_cancelled() && !told.granted) {
                // Whether it may be started here, the rows say.
                return self.look().await;
            }
            self.tell(id, true, alike.is_cancelled()).await?;
        }
        Ok(())
    }

    /// All that is open, as the rows have it.
    async fn look(&mut self) -> Result<(), ApiError> {
        let rights = self.app.reader.rights().await?;
        let record = rights.key(&self.key);
        if record.is_none_or(|record| record.revoked.is_some()) {
            return Err(ApiError::unauthenticated());
        }
        let open = self.app.reader.work(&self.agent, &self.key).await?;
        if !open.is_empty() {
            // Another server may have written rows of entries that this one could not prove yet.
            self.app.ledger.look().await?;
        }
        self.told
            .retain(|id, _| open.iter().any(|work| work.command == *id));
        for work in open {
            let may_start = work.waiting && work.may_start;
            self.tell(work.command, may_start, work.cancelled).await?;
        }
        Ok(())
    }

    /// Puts what it was not told yet of a command behind what waits to be sent.
    async fn tell(
        &mut self,
        id: CommandId,
        may_start: bool,
        cancelled: bool,
    ) -> Result<(), ApiError> {
        let mut told = self.told.get(&id).copied().unwrap_or_default();
        let is_new = may_start && !told.granted;
        let is_cancelled_now = cancelled && !told.cancelled;
        if is_new || is_cancelled_now {
            let enough = Enough::Cancelled(cancelled);
            let mut alike = self.app.grants.of(&self.app, id, enough).await?;
            if is_new && alike.goes_in_turns() {
                // What was made for the host before does not have this one's turn.
                let enough = Enough::Size(self.app.ledger.newest().size());
                alike = self.app.grants.of(&self.app, id, enough).await?;
            }
            if is_new {
                let seen = self.app.presence.of(&self.agent, &self.key);
                let seen = seen.and_then(|seen| seen.size);
                let since = alike.since(&self.app, seen).await;
                let turn = alike.turn(&self.app, &self.agent).await?;
                let grant = alike.grant((&self.agent, &self.key), since, turn)?;
                told.granted = grant.is_some();
                self.waiting.extend(grant);
            }
            if is_cancelled_now {
                let cancel = alike.cancel();
                told.cancelled = cancel.is_some();
                self.waiting.extend(cancel);
            }
        }
        self.told.insert(id, told);
        Ok(())
    }
}
