//! `hold`: what must not be erased, placed and lifted by administrators.

use clap::{Args, Subcommand};
use countersign_protocol::name::{AgentName, HoldName, Principal};
use countersign_protocol::rights::ChangeBody;

use super::Globals;
use super::asking::{self, Why, in_order};
use super::redact::command_of;
use crate::failure::Failure;
use crate::{console, describe, exit_code, shapes};

/// What to do with holds.
#[derive(Debug, Clone, Args)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Clone, Subcommand)]
enum Action {
    /// Ask for a hold: nothing of what it covers is erased until it is lifted
    #[command(after_help = "Examples:
  countersign hold place case-7 7K3M-9QPX --reason 'claim of 3 May'
  countersign hold place audit-2026 --host db-1 --by alice@example.com --reason 'external audit'

It covers the commands that are named, all that were to run on the host, and all that the person or
machine asked for: what any one of these says. The name stays in the log; name no one in it.")]
    Place(Place),
    /// Ask for a hold to be lifted; it takes two people at least
    Lift {
        /// Which
        hold: HoldName,
        /// Why; it goes into the log
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// The holds in force
    List,
}

#[derive(Debug, Clone, Args)]
struct Place {
    /// Its name
    hold: HoldName,
    #[command(flatten)]
    scope: Scope,
    /// Why; it goes into the log
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

/// What a hold covers: at least one of the three is given.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = true)]
struct Scope {
    /// Commands, at most 64: XXXX-XXXX, the whole id, or at least its first 8 digits
    ids: Vec<String>,
    /// All commands for this host
    #[arg(long, value_name = "HOST")]
    host: Option<AgentName>,
    /// All commands that this person or machine asked for
    #[arg(long, value_name = "WHO")]
    by: Option<Principal>,
}

/// Places, lifts, lists.
pub(super) async fn hold(globals: &Globals, arguments: Arguments) -> Result<u8, Failure> {
    let client = globals.connect().await?;
    let (body, reason) = match arguments.action {
        Action::List => {
            let items = shapes::holds(client.rights().await?.state.rights());
            if globals.json {
                console::print_json(&shapes::ItemsShape { items, next: None })?;
            } else if items.is_empty() {
                console::note("no legal hold is in force");
            } else {
                console::print(&describe::holds(&items))?;
            }
            return Ok(exit_code::DONE);
        }
        Action::Place(place) => {
            let mut commands = Vec::with_capacity(place.scope.ids.len());
            for id in &place.scope.ids {
                commands.push(command_of(&client, id).await?);
            }
            let body = ChangeBody::HoldPlaced {
                hold: place.hold,
                commands: in_order(commands),
                agent: place.scope.host,
                requester: place.scope.by,
            };
            (body, place.reason)
        }
        Action::Lift { hold, reason } => (ChangeBody::HoldLifted { hold }, reason),
    };
    let why = Why {
        reason: Some(reason),
    };
    asking::ask(globals, &client, &body, None, &why).await
}
