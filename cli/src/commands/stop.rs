//! `withdraw` and `cancel`.

use clap::Args;

use super::{Globals, decide};
use crate::acts::{Accepted, Client, Found, Steer};
use crate::failure::Failure;
use crate::{console, exit_code};

/// What to stop.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "`withdraw` takes back your own request while it waits for approvals.
`cancel` works until the command has ended: what runs is stopped, what has not started does not."
)]
pub struct Arguments {
    /// The command: XXXX-XXXX, the whole id, or at least its first 8 digits
    id: String,
    /// Why; it goes into the log
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// Takes a request back.
pub(super) async fn withdraw(globals: &Globals, arguments: Arguments) -> Result<u8, Failure> {
    let (client, id) = command(globals, &arguments).await?;
    let accepted = client.withdraw(&id, arguments.reason.as_deref()).await?;
    done(globals, &client, &id, &accepted).await
}

/// Cancels.
pub(super) async fn cancel(globals: &Globals, arguments: Arguments) -> Result<u8, Failure> {
    let (client, id) = command(globals, &arguments).await?;
    let accepted = client.cancel(&id, arguments.reason.as_deref()).await?;
    done(globals, &client, &id, &accepted).await
}

/// Pauses, resumes, continues.
pub(super) async fn steer(
    globals: &Globals,
    arguments: Arguments,
    steer: Steer,
) -> Result<u8, Failure> {
    let (client, id) = command(globals, &arguments).await?;
    let accepted = client
        .steer(&id, steer, arguments.reason.as_deref())
        .await?;
    done(globals, &client, &id, &accepted).await
}

async fn command(
    globals: &Globals,
    arguments: &Arguments,
) -> Result<(Client, countersign_protocol::hash::CommandId), Failure> {
    let client = globals.connect().await?;
    match client.find(&arguments.id).await? {
        Found::Command(id) => Ok((client, id)),
        Found::Change(_) => Err(Failure::usage("this is a change of rights, no command")
            .hint("an administrator ends it with: countersign reject ID")),
    }
}

async fn done(
    globals: &Globals,
    client: &Client,
    id: &countersign_protocol::hash::CommandId,
    accepted: &Accepted,
) -> Result<u8, Failure> {
    let judged = decide::judged_command(client, id, accepted).await?;
    if globals.json {
        console::print_json(&judged)?;
    } else {
        console::print(&format!(
            "{}; it is entry {} of the log\n",
            judged.status, judged.seq
        ))?;
    }
    Ok(exit_code::DONE)
}
