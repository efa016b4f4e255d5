//! `reviews` and `review`: runs without approvals, until somebody else has looked at them.

use clap::Args;
use countersign_protocol::hash::CommandId;
use countersign_protocol::rights::Rights;
use countersign_protocol::short;

use super::{Globals, decide};
use crate::acts::{Client, Found, OpenReviews};
use crate::failure::Failure;
use crate::view::CommandView;
use crate::{clock, console, describe, exit_code, render, shapes};

/// What to review.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:
  countersign review 7K3M-9QPX --reason 'disk was full, T-1234; nothing else was touched'

Shows the command and what came of it, verified from its bytes, asks, and signs that you have
looked. Nobody reviews a run of their own.")]
pub struct Arguments {
    /// The command: XXXX-XXXX, the whole id, or at least its first 8 digits
    id: String,
    /// What you found; it goes into the log
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// Says beside a status page that reviews are open, if some are.
pub(super) fn remind(rights: &Rights) {
    if let Some(line) = describe::open_reviews(OpenReviews::of(rights, clock::now())) {
        console::note(&line);
    }
}

/// As [`remind`], where the rights are not at hand.
pub(super) async fn remind_from(client: &Client) -> Result<(), Failure> {
    remind(client.rights().await?.state.rights());
    Ok(())
}

/// Lists open reviews, those that are due first on top.
pub(super) async fn reviews(globals: &Globals) -> Result<u8, Failure> {
    let client = globals.connect().await?;
    let view = client.rights().await?;
    let now = clock::now();
    let mut open: Vec<_> = view.state.rights().reviews().collect();
    open.sort_by_key(|(_, review)| (review.due_at, review.seq));
    let mut items = Vec::with_capacity(open.len());
    for (id, review) in open {
        let view = seen(&client, id).await?;
        items.push(shapes::review(id, review, view.as_ref(), now));
    }
    if globals.json {
        console::print_json(&shapes::ItemsShape { items, next: None })?;
    } else if items.is_empty() {
        console::note("no review is open");
    } else {
        console::print(&describe::reviews(&items))?;
        console::note("look and close one with: countersign review ID --reason TEXT");
    }
    Ok(exit_code::DONE)
}

/// What was run, as far as this person may read it.
async fn seen(client: &Client, id: &CommandId) -> Result<Option<CommandView>, Failure> {
    match client.fetch_command(id).await {
        Ok(view) => Ok(Some(view)),
        Err(failure) if failure.exit == exit_code::REFUSED => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// Shows a run and closes its review.
pub(super) async fn review(globals: &Globals, arguments: Arguments) -> Result<u8, Failure> {
    decide::require_asking(arguments.yes)?;
    let client = globals.connect().await?;
    let id = match client.find(&arguments.id).await? {
        Found::Command(id) => id,
        Found::Change(_) => {
            return Err(Failure::usage("this is a change of rights, no command")
                .hint("countersign reviews lists what waits for review"));
        }
    };
    let open = client.check_review(&id).await?;
    let view = client.fetch_command(&id).await?;
    console::note(&describe::command(&view));
    console::note(&format!(
        "{} ran this without approvals on {}; the review is due {}",
        open.requester,
        render::time(open.opened_at),
        render::time(open.due_at)
    ));
    decide::confirm(arguments.yes, "Sign that you have looked at this?")?;
    let accepted = client.close_review(&id, &arguments.reason).await?;
    if globals.json {
        console::print_json(&shapes::JudgedShape {
            id: id.to_string(),
            status: Some("reviewed"),
            seq: accepted.seq,
            replaces: None,
        })?;
    } else {
        console::print(&format!(
            "{} reviewed: entry {} of the log\n",
            short::short(&id),
            accepted.seq
        ))?;
    }
    Ok(exit_code::DONE)
}
