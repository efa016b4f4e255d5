//! API tokens as people look after them. Secrets are nowhere here: the log holds their digests.

use axum::Json;
use axum::extract::State;
use countersign_protocol::api::{Page, TokenItem};
use countersign_protocol::name::Time;
use countersign_protocol::permission::Permission;
use countersign_protocol::rights::TokenRecord;

use super::app::App;
use super::auth::Caller;
use super::error::ApiError;

/// All API tokens, with their last use to the minute.
#[utoipa::path(get, path = "/v1/tokens", tag = "people", security(("session" = ["rights:read"])),
    responses((status = 200, body = Page<TokenItem>), super::openapi::Problems))]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
) -> Result<Json<Page<TokenItem>>, ApiError> {
    caller.require(&app, Permission::RightsRead)?;
    let uses = app.reader.token_uses().await?;
    let now = app.clock.now();
    let tokens = caller.rights.tokens();
    let items = tokens.map(|(id, record)| item(record, uses.get(id.as_str()).copied(), now));
    Ok(Json(Page {
        items: items.collect(),
        next: None,
    }))
}

fn item(record: &TokenRecord, last_used_us: Option<u64>, now: Time) -> TokenItem {
    let issued = &record.issued;
    TokenItem {
        token: issued.token.to_string(),
        status: record.standing(now).into(),
        principal: issued.principal.to_string(),
        roles: issued.roles.iter().map(ToString::to_string).collect(),
        permissions: issued.permissions.iter().map(ToString::to_string).collect(),
        labels: issued.labels.iter().map(ToString::to_string).collect(),
        commands: issued.commands.iter().map(ToString::to_string).collect(),
        expires_us: issued.expires_at.as_micros(),
        seq: record.since,
        last_used_us,
    }
}
