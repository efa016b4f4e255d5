//! `approve` and `reject`: show the whole thing, ask, and only then sign.

use clap::Args;
use countersign_protocol::short;

use super::Globals;
use crate::acts::{Client, Found, Judged};
use crate::failure::Failure;
use crate::view::CommandView;
use crate::{console, describe, exit_code, shapes};

/// What to judge.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  countersign approve 7K3M-9QPX
  countersign approve 7K3M-9QPX --yes --reason 'seen in T-1234'
  countersign reject 7K3M-9QPX --reason 'wrong host'

What is shown was recomputed from signed bytes, never taken from the server's words, and exactly
that is signed. Without a terminal there is nobody to ask, so --yes is needed.")]
pub struct Arguments {
    /// The command or change: XXXX-XXXX, the whole id, or at least its first 8 digits
    id: String,
    /// Why; it goes into the log
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// What is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Say {
    Yes,
    No,
}

/// Says yes.
pub(super) async fn approve(globals: &Globals, arguments: Arguments) -> Result<u8, Failure> {
    decide(globals, &arguments, Say::Yes).await
}

/// Says no.
pub(super) async fn reject(globals: &Globals, arguments: Arguments) -> Result<u8, Failure> {
    decide(globals, &arguments, Say::No).await
}

async fn decide(globals: &Globals, arguments: &Arguments, say: Say) -> Result<u8, Failure> {
    require_asking(arguments.yes)?;
    let client = globals.connect().await?;
    let judged = match client.find(&arguments.id).await? {
        Found::Command(id) => command(&client, &id, arguments, say).await?,
        Found::Change(id) => change(&client, &id, arguments, say).await?,
    };
    if globals.json {
        console::print_json(&judged)?;
    } else {
        let said = match say {
            Say::Yes => "approved",
            Say::No => "rejected",
        };
        console::print(&format!(
            "{said}: entry {} of the log; it is now {}\n",
            judged.seq,
            status(&judged)
        ))?;
    }
    Ok(exit_code::DONE)
}

/// Refuses before anything else when there would be nobody to ask.
pub(super) fn require_asking(yes: bool) -> Result<(), Failure> {
    if yes || console::can_ask() {
        return Ok(());
    }
    Err(
        Failure::usage("there is no terminal to show this on and ask; nothing was signed")
            .hint("look at it with `countersign show ID --json`, then give --yes"),
    )
}

async fn command(
    client: &Client,
    id: &countersign_protocol::hash::CommandId,
    arguments: &Arguments,
    say: Say,
) -> Result<shapes::JudgedShape, Failure> {
    let reason = arguments.reason.as_deref();
    let accepted = match say {
        Say::Yes => {
            let (view, seats) = client.check_seats(id, reason).await?;
            console::note(&describe::act(&view));
            needs(&view);
            let seats: Vec<String> = seats.iter().map(describe::whom).collect();
            console::note(&format!("your seat  as one of: {}", seats.join(", ")));
            confirm(arguments.yes, "Sign a yes to exactly this?")?;
            client.approve_shown(&view, reason).await?
        }
        Say::No => {
            let view = client.fetch_command(id).await?;
            console::note(&describe::act(&view));
            needs(&view);
            let question = match describe::votes(&view) {
                None => "Sign a no? It ends the request.",
                Some(_) => "Sign a no? It counts as one of those that it takes.",
            };
            confirm(arguments.yes, question)?;
            client.reject(id, reason).await?
        }
    };
    shape(client.judged_command(id, &accepted).await)
}

/// What it takes, and who has said what so far.
fn needs(view: &CommandView) {
    console::note(&format!("needs      {}", describe::requirement(view)));
    let given = view.command.approvals.iter();
    let given: Vec<&str> = given.map(|given| given.principal.as_str()).collect();
    if !given.is_empty() {
        console::note(&format!("yes so far {}", given.join(", ")));
    }
    if let Some(votes) = describe::votes(view) {
        console::note(&format!("no so far  {votes}"));
    }
}

/// What is shown of how it stands now. Where that could not be read, it is said that the statement is in the
/// log all the same, and as what.
///
/// # Errors
/// What was read is evidence of tampering.
pub(super) fn shape(judged: Judged) -> Result<shapes::JudgedShape, Failure> {
    let shape = shapes::JudgedShape::from(&judged);
    let Err(failure) = judged.status else {
        return Ok(shape);
    };
    let (code, id, seq) = (short::short(&judged.id), judged.id, judged.seq);
    console::note(&format!(
        "it is in the log as entry {seq}, of {code} ({id}); do not sign it again. How that stands now could not be read: {failure}"
    ));
    if failure.exit == exit_code::TAMPERING {
        return Err(failure);
    }
    Ok(shape)
}

/// A status word for people.
pub(super) fn status(shape: &shapes::JudgedShape) -> String {
    shape.status.map_or_else(
        || "of a status that could not be read".to_owned(),
        |word| word.replace('_', " "),
    )
}

async fn change(
    client: &Client,
    id: &countersign_protocol::hash::StatementId,
    arguments: &Arguments,
    say: Say,
) -> Result<shapes::JudgedShape, Failure> {
    let view = client.rights().await?.change(id)?;
    console::note(&describe::change(&view));
    let reason = arguments.reason.as_deref();
    let accepted = match say {
        Say::Yes => {
            confirm(arguments.yes, "Sign your consent to exactly this?")?;
            client.approve_change(id, reason).await?
        }
        Say::No => {
            confirm(arguments.yes, "Sign a no? It ends the change.")?;
            client.reject_change(id, reason).await?
        }
    };
    shape(client.judged_change(id, &accepted).await)
}

/// Goes on only with a yes.
pub(super) fn confirm(yes: bool, question: &str) -> Result<(), Failure> {
    if yes || console::ask(question)? {
        return Ok(());
    }
    Err(Failure::failed("not_confirmed", "nothing was signed"))
}
