//! What concerns people and agents: the inbox, changes of rights, agents, targets.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use countersign_protocol::api::{
    AgentItem, ChangeItem, Inbox, MAX_PAGE, Page, ResolveRequest, ResolvedTarget, ResolvedTargets,
};
use countersign_protocol::name::{AgentName, Time};
use countersign_protocol::permission::Permission;
use countersign_protocol::target::MAX_TARGETS;
use countersign_protocol::view;

use super::app::App;
use super::auth::{Caller, Person};
use super::bodies::Body;
use super::error::ApiError;

/// What waits for the caller's judgement.
#[utoipa::path(get, path = "/v1/inbox", tag = "people",
    responses((status = 200, body = Inbox), super::openapi::Problems))]
pub(super) async fn inbox(State(app): State<App>, person: Person) -> Result<Json<Inbox>, ApiError> {
    let (items, changes) = app
        .reader
        .inbox(&person.name, MAX_PAGE, app.judge.as_ref())
        .await?;
    Ok(Json(Inbox {
        items,
        changes,
        next: None,
    }))
}

/// Changes of rights that wait for consent.
#[utoipa::path(get, path = "/v1/changes", tag = "people",
    responses((status = 200, body = Page<ChangeItem>), super::openapi::Problems))]
pub(super) async fn changes(State(app): State<App>, person: Person) -> Json<Page<ChangeItem>> {
    let rights = &person.rights;
    let mut items: Vec<ChangeItem> = rights
        .changes()
        .map(|(id, change)| view::change_item(rights, app.judge.as_ref(), id, change))
        .collect();
    items.sort_by_key(|item| item.seq);
    Json(Page { items, next: None })
}

/// All agents.
#[utoipa::path(get, path = "/v1/agents", tag = "people", security(("session" = ["agent:read"])),
    responses((status = 200, body = Page<AgentItem>), super::openapi::Problems))]
pub(super) async fn agents(
    State(app): State<App>,
    caller: Caller,
) -> Result<Json<Page<AgentItem>>, ApiError> {
    caller.require(&app, Permission::AgentRead)?;
    let mut items = app.reader.agents().await?;
    let mut said = app.reader.agents_said().await?;
    for item in &mut items {
        let mut presence = said.remove(&item.key_id).unwrap_or_default();
        if let (Ok(agent), Ok(key)) = (item.agent.parse(), item.key_id.parse()) {
            item.facts = view::facts(&caller.rights, &agent, &key);
            if let Some(seen) = app.presence.of(&agent, &key) {
                presence.listening = seen.streams as u64;
                presence.listening_since_us = seen.since.map(Time::as_micros);
                presence.last_request_us = seen.last.map(Time::as_micros);
                presence.says_version = seen.version;
            }
        }
        item.presence = Some(presence);
    }
    Ok(Json(Page { items, next: None }))
}

/// Resolves names to agents and their keys. A target is always named, never assumed.
#[utoipa::path(post, path = "/v1/targets/resolve", tag = "people", request_body = ResolveRequest,
    responses((status = 200, body = ResolvedTargets), super::openapi::Problems))]
pub(super) async fn resolve(
    State(app): State<App>,
    person: Person,
    Body(request, _room): Body<ResolveRequest>,
) -> Result<Json<ResolvedTargets>, ApiError> {
    if request.names.is_empty() || request.names.len() as u64 > MAX_TARGETS {
        return Err(ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "targets",
            "name between 1 and 100,000 agents",
        ));
    }
    let mut targets = BTreeMap::new();
    for name in &request.names {
        let unknown = || {
            ApiError::not_found("unknown_target", "one of the targets is no accepted agent")
                .hint("see who there is with `countersign agents`")
        };
        let agent: AgentName = name.parse().map_err(|_| unknown())?;
        let key = person.rights.agent(&agent).ok_or_else(unknown)?;
        let record = person
            .rights
            .key(&key)
            .filter(|record| record.is_in_force(app.clock.now()))
            .ok_or_else(unknown)?;
        targets.insert(
            agent.to_string(),
            ResolvedTarget {
                agent: agent.to_string(),
                key_id: key.to_string(),
                seq: record.since,
            },
        );
    }
    Ok(Json(ResolvedTargets {
        targets: targets.into_values().collect(),
    }))
}
