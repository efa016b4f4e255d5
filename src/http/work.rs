//! An agent's work: what people have authorized for it, with all that it needs to check that itself.
//!
//! An agent may have two keys in force. Each listens for itself, and gets what names it alone.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;

use axum::extract::{Path, State};
use axum::response::sse::{Event as SseEvent, Sse};
use countersign_protocol::api::{Ahead, Base64, Grant, StreamBody, Work};
use countersign_protocol::canonical;
use countersign_protocol::event::{Event, Kind};
use countersign_protocol::hash::{CommandId, Hash, KeyId};
use countersign_protocol::lifecycle::Command;
use countersign_protocol::name::AgentName;
use countersign_protocol::target::TargetList;
use futures_util::Stream;

use super::app::{App, Place, Present};
use super::auth::Agent;
use super::error::ApiError;
use super::events::{event, place, respond};
use super::streams::{self, Wanted};
use crate::ledger::history;

/// What an agent was told of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Told {
    granted: bool,
    cancelled: bool,
}

/// An agent that listens for work, with one of its keys.
struct Listener {
    app: App,
    agent: AgentName,
    key: KeyId,
    told: BTreeMap<CommandId, Told>,
    waiting: VecDeque<(u64, Work)>,
    _present: Present,
    _place: Place,
}

/// The agent's work: first what is open, then what comes. Work that was not started comes again
/// after a reconnect; the agent knows what it has used.
#[utoipa::path(get, path = "/v1/agents/{name}/work", tag = "events", params(("name" = String, Path)),
    responses((status = 200, body = Work, content_type = "text/event-stream"), super::openapi::Problems))]
pub(super) async fn stream(
    State(app): State<App>,
    agent: Agent,
    Path(name): Path<String>,
) -> Result<Sse<impl Stream<Item = Result<SseEvent, Infallible>>>, ApiError> {
    if agent.name.as_str() != name {
        return Err(ApiError::forbidden("an agent gets its own work only"));
    }
    tracing::info!(agent = name, "an agent listens for work");
    let listener = Listener {
        _place: place(&app, agent.key)?,
        _present: app.presence.enter(agent.name.clone()),
        app: app.clone(),
        agent: agent.name,
        key: agent.key,
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
            let mut steps = self.app.reader.watch();
            steps.borrow_and_update();
            if let Err(error) = self.look().await {
                // The agent comes again, and gets all that is open.
                tracing::warn!(agent = %self.agent, code = error.0.code, "an agent's stream ends");
                return None;
            }
            if self.waiting.is_empty() {
                steps.changed().await.ok()?;
            }
        }
    }

    async fn look(&mut self) -> Result<(), ApiError> {
        let rights = self.app.reader.rights().await?;
        let record = rights.key(&self.key);
        if record.is_none_or(|record| record.revoked.is_some()) {
            return Err(ApiError::unauthenticated());
        }
        let open = self.app.reader.work(&self.agent, &self.key).await?;
        let before = std::mem::take(&mut self.told);
        for work in open {
            let told = before.get(&work.command).copied().unwrap_or(Told {
                granted: false,
                cancelled: false,
            });
            let id = work.command;
            if work.waiting && work.may_start && !told.granted {
                let grant = grant(&self.app, id, &self.agent).await?;
                self.waiting.push_back(grant);
            }
            if work.cancelled && !told.cancelled {
                let cancel = cancel(&self.app, id).await?;
                self.waiting.push_back(cancel);
            }
            self.told.insert(
                id,
                Told {
                    granted: told.granted || work.may_start || !work.waiting,
                    cancelled: work.cancelled,
                },
            );
        }
        Ok(())
    }
}

/// Entries that a host needs to judge for itself; other hosts' runs are none of its business.
fn concerns_host(event: &Event, agent: &AgentName) -> bool {
    if let Event::ExecutionReleased(released) = event {
        return released.agent == *agent;
    }
    matches!(
        event.kind(),
        Kind::CommandRequested
            | Kind::CommandApproved
            | Kind::CommandRejected
            | Kind::CommandWithdrawn
            | Kind::CommandAuthorized
            | Kind::CommandExpired
            | Kind::CommandCancelRequested
            | Kind::RolloutContinued
    )
}

async fn grant(app: &App, id: CommandId, agent: &AgentName) -> Result<(u64, Work), ApiError> {
    // The host gets its own line and a proof, not the list; and it runs without the reasons.
    let checkpoint = app.ledger.newest();
    let size = checkpoint.size();
    let mut connection = app.ledger.pool().acquire().await?;
    let stream = streams::prove_in(
        &mut connection,
        &checkpoint,
        &Wanted {
            stream: id,
            event: &|event| concerns_host(event, agent),
            blob: &|event, digest| {
                let Event::CommandRequested(request) = event else {
                    return false;
                };
                *digest != request.act.targets.list.digest && *digest != request.reason.digest
            },
        },
    )
    .await?;
    let seq = stream.entries.last().map_or(0, |entry| entry.seq);
    let newest = streams::newest(&mut connection, size).await?;
    let broken = || history::bad(seq, "the agent's line is not among its targets");
    let command = history::command(&mut connection, id, size).await?;
    let command = command.ok_or_else(broken)?;
    let targets = command.targets.as_ref().ok_or_else(broken)?;
    let (line_index, line, line_proof) = line_of(targets, agent).ok_or_else(broken)?;
    let ahead = match host_before(&command, agent) {
        Some((before, over)) => {
            let (line_index, line, line_proof) = line_of(targets, before).ok_or_else(broken)?;
            let entry = streams::one(&mut connection, over, size).await?;
            Some(Box::new(Ahead {
                entry: entry.ok_or_else(broken)?,
                line_index,
                line,
                line_proof,
            }))
        }
        None => None,
    };
    drop(connection);
    let work = Work::Grant(Grant {
        stream,
        line_index,
        line,
        line_proof,
        ahead,
        snapshot: streams::snapshot(app).await?,
        newest,
    });
    Ok((seq, work))
}

/// A host's line with its index and proof.
fn line_of(targets: &TargetList, agent: &AgentName) -> Option<(u64, Base64, Vec<Hash>)> {
    let (index, line) = targets.line_of(agent)?;
    let proof = targets.prove(index).ok()?;
    Some((index, Base64(canonical::to_vec(line).ok()?), proof))
}

/// In a rollout: whose end this host's turn waited for, and where that stands.
fn host_before<'a>(command: &'a Command, agent: &AgentName) -> Option<(&'a AgentName, u64)> {
    let targets = command.targets.as_ref()?;
    let (index, line) = targets.line_of(agent)?;
    let before = command.plan.as_ref()?.waits_for(line.turn_at(index))?;
    let before = &targets.at_turn(before)?.agent;
    Some((before, command.executions.get(before)?.over?.seq))
}

async fn cancel(app: &App, id: CommandId) -> Result<(u64, Work), ApiError> {
    let stream: StreamBody = streams::prove(
        app,
        &Wanted {
            stream: id,
            event: &|event| {
                matches!(
                    event.kind(),
                    Kind::CommandRequested | Kind::CommandCancelRequested
                )
            },
            blob: &|_, _| false,
        },
    )
    .await?;
    let seq = stream.entries.last().map_or(0, |entry| entry.seq);
    Ok((seq, Work::Cancel(stream)))
}
