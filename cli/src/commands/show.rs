//! `show`: a command or a change, from its verified bytes.

use clap::Args;

use super::{Globals, reviews};
use crate::acts::Found;
use crate::failure::Failure;
use crate::{console, describe, exit_code, shapes};

/// What to show.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  countersign show 7K3M-9QPX
  countersign show 7K3M-9QPX --json | jq -r '.executions[0].stdout'")]
pub struct Arguments {
    /// The command or change: XXXX-XXXX, the whole id, or at least its first 8 digits
    id: String,
}

/// Shows.
pub(super) async fn show(globals: &Globals, arguments: Arguments) -> Result<u8, Failure> {
    let client = globals.connect().await?;
    match client.find(&arguments.id).await? {
        Found::Command(id) => {
            let view = client.fetch_command(&id).await?;
            if globals.json {
                console::print_json(&shapes::command(&view))?;
            } else {
                console::print(&describe::command(&view))?;
                reviews::remind_from(&client).await?;
            }
        }
        Found::Change(id) => {
            let view = client.rights().await?.change(&id)?;
            if globals.json {
                console::print_json(&shapes::change(&view))?;
            } else {
                console::print(&describe::change(&view))?;
            }
        }
    }
    Ok(exit_code::DONE)
}
