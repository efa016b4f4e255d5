//! `list`: commands, newest first. The server's words, to find one's way; `show` verifies.

use clap::Args;
use countersign_protocol::api::{CommandItem, Page};
use countersign_protocol::lifecycle::CommandStatus;
use countersign_protocol::name::Time;
use countersign_protocol::short;

use super::{Globals, reviews};
use crate::failure::Failure;
use crate::{console, describe, exit_code, render, shapes};

/// Which commands.
#[derive(Debug, Clone, Args)]
pub struct Arguments {
    /// Only those with this status
    #[arg(long, value_parser = status)]
    pub(super) status: Option<&'static str>,
    /// How many, at most 1000
    #[arg(long, default_value_t = 50)]
    pub(super) limit: u64,
    /// Where to go on: the `next` of the page before
    #[arg(long)]
    pub(super) cursor: Option<String>,
}

fn status(text: &str) -> Result<&'static str, String> {
    let words = || CommandStatus::ALL.iter().map(|status| status.as_str());
    words().find(|word| *word == text).ok_or_else(|| {
        let words: Vec<&str> = words().collect();
        format!("one of: {}", words.join(", "))
    })
}

/// A table of commands.
pub(super) fn table(items: &[CommandItem]) -> String {
    let rows = items.iter().map(|item| {
        let id: Option<countersign_protocol::hash::CommandId> = item.id.parse().ok();
        vec![
            id.map_or_else(|| item.id.clone(), |id| short::short(&id)),
            item.status.clone(),
            item.requester.clone(),
            counted(item),
            where_to(item),
            Time::from_micros(item.requested_us).map_or_else(String::new, render::time),
        ]
    });
    let headings = ["ID", "STATUS", "ASKED BY", "YES", "HOSTS", "WHEN"];
    describe::table(&headings, rows.collect())
}

/// Its hosts, and what it runs again on them.
fn where_to(item: &CommandItem) -> String {
    let hosts = describe::few(&item.targets);
    let of = item.retry_of.as_ref().and_then(|of| of.parse().ok());
    match of {
        Some(of) => format!("{hosts} (retry of {})", short::short(&of)),
        None => hosts,
    }
}

/// Approvals so far of those it takes; nothing once it ended without.
fn counted(item: &CommandItem) -> String {
    match (item.approvals, item.needed) {
        (Some(have), Some(need)) => format!("{have}/{need}"),
        _ended => String::new(),
    }
}

/// Lists.
pub(super) async fn list(globals: &Globals, arguments: Arguments) -> Result<u8, Failure> {
    let client = globals.connect().await?;
    let mut query = vec![("limit", arguments.limit.to_string())];
    query.extend(arguments.status.map(|status| ("status", status.to_owned())));
    query.extend(arguments.cursor.map(|cursor| ("cursor", cursor)));
    let page = client.list(&query).await?;
    print(globals, page)?;
    if globals.json {
        return Ok(exit_code::DONE);
    }
    console::note("as the server lists them; `countersign show ID` verifies one");
    reviews::remind_from(&client).await?;
    Ok(exit_code::DONE)
}

/// Prints a page of commands.
pub(super) fn print(globals: &Globals, page: Page<CommandItem>) -> Result<(), Failure> {
    if globals.json {
        let (items, next) = (page.items, page.next);
        return console::print_json(&shapes::ItemsShape { items, next });
    }
    console::print(&table(&page.items))?;
    if let Some(next) = page.next {
        console::note(&format!("more: --cursor {}", render::word(&next)));
    }
    Ok(())
}
