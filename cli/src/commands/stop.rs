//! `withdraw` and `cancel`.

use std::time::Duration;

use clap::Args;
use tokio::time::timeout;

use super::request::duration;
use super::{Globals, decide};
use crate::acts::{Accepted, Client, Found, Judged, Steer, Step};
use crate::failure::Failure;
use crate::shapes::{Stopped, StoppedShape};
use crate::{console, exit_code, shapes};

/// What to stop.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "`withdraw` takes back your own request while it waits for approvals; `cancel` works until the
command has ended."
)]
pub struct Arguments {
    /// The command: XXXX-XXXX, the whole id, or at least its first 8 digits
    id: String,
    /// Why; it goes into the log
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// What to stop, and how long to wait for its hosts.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  countersign cancel 7K3M-9QPX
  countersign cancel 7K3M-9QPX --reason 'wrong host' --wait 1m

It works until the command has ended: what runs is stopped, what has not started does not. It says of each
host whether it stopped something; one that has not answered within --wait still does when it hears of it.")]
pub struct CancelArguments {
    #[command(flatten)]
    stop: Arguments,
    /// How long to wait for the hosts to say what they stopped
    #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = duration)]
    wait: Duration,
}

/// Takes a request back.
pub(super) async fn withdraw(globals: &Globals, arguments: Arguments) -> Result<u8, Failure> {
    let (client, id) = command(globals, &arguments).await?;
    let accepted = client.withdraw(&id, arguments.reason.as_deref()).await?;
    done(globals, &client, &id, &accepted).await
}

/// Cancels, and says for each host whether it stopped something.
pub(super) async fn cancel(globals: &Globals, arguments: CancelArguments) -> Result<u8, Failure> {
    let (client, id) = command(globals, &arguments.stop).await?;
    let reason = arguments.stop.reason.as_deref();
    let accepted = client.cancel(&id, reason).await?;
    let mut unheard = |_step: Step<'_>| Ok(());
    let followed = timeout(arguments.wait, client.follow(&id, &mut unheard)).await;
    let read = match followed {
        Ok(followed) => followed,
        // Whoever has not answered by now is said not to have.
        Err(_elapsed) => client.fetch_command_with(&id, accepted.seq).await,
    };
    let view = match read {
        Ok(view) => view,
        Err(failure) => return unread(globals, Judged::command(&id, &accepted, Err(failure))),
    };
    let shape = shapes::stopped(&view, accepted.seq);
    if globals.json {
        console::print_json(&shape)?;
    } else {
        console::print(&format!(
            "{}; it is entry {} of the log\n",
            shape.status.unwrap_or_default(),
            shape.seq
        ))?;
        console::print(&told(&shape))?;
    }
    Ok(exit_code::DONE)
}

/// The cancel is in the log, and what it did on the hosts could not be read.
fn unread(globals: &Globals, judged: Judged) -> Result<u8, Failure> {
    let judged = decide::shape(judged)?;
    if globals.json {
        console::print_json(&shapes::stopped_unread(judged))?;
    } else {
        console::print(&format!(
            "cancelled: entry {} of the log; look at what it did with: countersign show {}\n",
            judged.seq, judged.id
        ))?;
    }
    Ok(exit_code::DONE)
}

/// What it did, a line for each host and one for all.
fn told(shape: &StoppedShape) -> String {
    if shape.hosts.is_empty() {
        return "it was not authorized yet: nothing ran, and nothing will\n".to_owned();
    }
    let mut text = String::new();
    for host in &shape.hosts {
        let what = match (host.came, host.nothing_left) {
            (Stopped::Stopped, Some(true)) => {
                "stopped it, and proved that nothing of it is left".to_owned()
            }
            (Stopped::Stopped, _) => {
                "stopped it, and cannot say that nothing of it is left: look at its processes"
                    .to_owned()
            }
            (Stopped::NotStarted, _) => "had not started it, and never will".to_owned(),
            (Stopped::Over, _) => format!("had nothing to stop: {}", host.end),
            (Stopped::Lost, _) => format!("may or may not have run it to its end: {}", host.end),
            (Stopped::Unanswered, _) => {
                "runs it and has not answered yet; `countersign show` says when it has".to_owned()
            }
        };
        text.push_str(&format!("{}: {what}\n", host.host));
    }
    if shape.hosts.len() > 1 {
        let each = shape.tally.iter();
        let each: Vec<String> = each
            .map(|(came, count)| format!("{count} {}", came.as_str()))
            .collect();
        text.push_str(&format!(
            "{} hosts: {}\n",
            shape.hosts.len(),
            each.join(", ")
        ));
    }
    text
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
    let judged = decide::shape(client.judged_command(id, accepted).await)?;
    if globals.json {
        console::print_json(&judged)?;
    } else {
        console::print(&format!(
            "{}; it is entry {} of the log\n",
            decide::status(&judged),
            judged.seq
        ))?;
    }
    Ok(exit_code::DONE)
}
