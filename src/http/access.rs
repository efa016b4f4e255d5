//! What of a command a caller may see. The only place that says so.
//!
//! Who asked for it or is asked to judge it sees it; others need `command:read`. Its output is for
//! whoever asked for it, and for those who hold `output:read`: that an administrator ran something
//! is no secret of theirs, what came back may be one. A token's labels hold here as where it asks: of
//! others' commands it sees those on its hosts.

use countersign_protocol::api::CommandItem;
use countersign_protocol::event::{Event, ReadWhat};
use countersign_protocol::hash::CommandId;
use countersign_protocol::permission::Permission;

use super::app::App;
use super::auth::{Caller, Who};
use super::error::ApiError;
use super::{commands, notes, streams};

/// What a caller sees of a command that it may see at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sight {
    /// Also what its hosts wrote.
    pub(super) output: bool,
}

/// Turns away whoever may not see a command.
pub(super) async fn sight(
    app: &App,
    caller: &Caller,
    id: &CommandId,
) -> Result<(Sight, CommandItem), ApiError> {
    let item = commands::item(app, id).await?;
    let item = item.ok_or_else(streams::commands_missing)?;
    Ok((sight_of(app, caller, id, &item).await?, item))
}

/// [`sight`] of a command that was looked up.
pub(super) async fn sight_of(
    app: &App,
    caller: &Caller,
    id: &CommandId,
    item: &CommandItem,
) -> Result<Sight, ApiError> {
    let me = caller.who.principal();
    let own = item.requester == me.as_str();
    let reads = caller.holds(Permission::CommandRead) && caller.reaches(item);
    if !own && !reads {
        match &caller.who {
            // Whose command it is, and that there is one, is nothing for a stranger's token.
            Who::Token(..) => return Err(streams::commands_missing()),
            Who::Person(name, _) => {
                let approved = item.approved_by.iter().any(|who| who == name.as_str());
                if !approved && !app.reader.waits_for(name, id).await? {
                    caller.require(app, Permission::CommandRead)?;
                }
            }
        }
    }
    let output = own || caller.holds(Permission::OutputRead);
    Ok(Sight { output })
}

/// Turns away whoever may not see what a command's hosts wrote, and writes down who does.
pub(super) async fn output(app: &App, caller: &Caller, id: &CommandId) -> Result<(), ApiError> {
    let (sight, _) = sight(app, caller, id).await?;
    if !sight.output {
        caller.require(app, Permission::OutputRead)?;
    }
    notes::reads(app, &caller.who, ReadWhat::Output, Some(*id)).await
}

/// Says whether an event's blobs are what a host wrote.
pub(super) const fn is_output(event: &Event) -> bool {
    matches!(event, Event::ExecutionOutput(_))
}
