//! `inbox`: what waits for the caller. Commands in the server's words, changes from verified rights.

use countersign_protocol::api::CommandItem;
use countersign_protocol::name::Principal;
use countersign_protocol::short;

use super::{Globals, changes, list, reviews};
use crate::acts::{ChangeStage, ChangeView, RightsView};
use crate::failure::Failure;
use crate::{console, exit_code, shapes};

/// The changes of rights that wait for somebody.
pub(super) fn waiting(rights: &RightsView, who: &Principal) -> Result<Vec<ChangeView>, Failure> {
    let state = &rights.state;
    let mut waiting: Vec<ChangeView> = rights.changes()?;
    waiting.retain(|change| {
        let open = state.rights().change(&change.id);
        let counts = open
            .zip(state.rights().changed_at())
            .is_some_and(|(open, now)| {
                let may = state.rights().may_consent(who, open, state.judge(), now);
                may.is_ok()
            });
        counts && change.stage == ChangeStage::Requested && !change.consents.contains(who)
    });
    Ok(waiting)
}

/// Prints what waits. Gives whether something does.
pub(super) fn print(
    globals: &Globals,
    items: Vec<CommandItem>,
    waiting: &[ChangeView],
) -> Result<bool, Failure> {
    let some = !items.is_empty() || !waiting.is_empty();
    if globals.json {
        console::print_json(&shapes::InboxShape {
            items,
            changes: waiting.iter().map(shapes::change_item).collect(),
            next: None,
        })?;
        return Ok(some);
    }
    if !items.is_empty() {
        console::print(&list::table(&items))?;
    }
    if !waiting.is_empty() {
        console::print(&changes::table(waiting))?;
    }
    Ok(some)
}

/// Shows the inbox.
pub(super) async fn inbox(globals: &Globals) -> Result<u8, Failure> {
    let client = globals.connect().await?;
    let rights = client.rights().await?;
    let me = rights.person(&client.key_id())?;
    let waiting = waiting(&rights, &me)?;
    let items = client.inbox().await?.items;
    if !globals.json {
        reviews::remind(rights.state.rights());
    }
    let some = print(globals, items, &waiting)?;
    if globals.json {
        return Ok(exit_code::DONE);
    }
    if !some {
        console::note("nothing waits for you");
        return Ok(exit_code::DONE);
    }
    let first = waiting.first().map(|change| short::short(&change.id));
    let first = first.unwrap_or_else(|| "ID".to_owned());
    console::note(&format!("judge with: countersign approve {first}"));
    Ok(exit_code::DONE)
}
