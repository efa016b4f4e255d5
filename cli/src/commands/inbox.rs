//! `inbox`: what waits for the caller. Commands in the server's words, changes from verified rights.

use countersign_protocol::short;

use super::{Globals, changes, list, reviews};
use crate::acts::{ChangeStage, ChangeView};
use crate::failure::Failure;
use crate::{console, exit_code, shapes};

/// Shows the inbox.
pub(super) async fn inbox(globals: &Globals) -> Result<u8, Failure> {
    let client = globals.connect().await?;
    let rights = client.rights().await?;
    let me = rights.person(&client.key_id())?;
    let state = &rights.state;
    let mut waiting: Vec<ChangeView> = rights.changes()?;
    waiting.retain(|change| {
        let open = state.rights().change(&change.id);
        let counts = open
            .zip(state.rights().changed_at())
            .is_some_and(|(open, now)| {
                let may = state.rights().may_consent(&me, open, state.judge(), now);
                may.is_ok()
            });
        counts && change.stage == ChangeStage::Requested && !change.consents.contains(&me)
    });
    let items = client.inbox().await?.items;
    if globals.json {
        console::print_json(&shapes::InboxShape {
            items,
            changes: waiting.iter().map(shapes::change_item).collect(),
            next: None,
        })?;
        return Ok(exit_code::DONE);
    }
    reviews::remind(state.rights());
    if items.is_empty() && waiting.is_empty() {
        console::note("nothing waits for you");
        return Ok(exit_code::DONE);
    }
    if !items.is_empty() {
        console::print(&list::table(&items))?;
    }
    if !waiting.is_empty() {
        console::print(&changes::table(&waiting))?;
    }
    let first = waiting.first().map(|change| short::short(&change.id));
    let first = first.unwrap_or_else(|| "ID".to_owned());
    console::note(&format!("judge with: countersign approve {first}"));
    Ok(exit_code::DONE)
}
