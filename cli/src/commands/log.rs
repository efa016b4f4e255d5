//! `log`: the entries of the log, each checked by itself, linked, and proved in a checkpoint.

use clap::Args;
use countersign_protocol::event::Author;
use countersign_protocol::hash::Hash;

use super::Globals;
use crate::acts::LoggedEntry;
use crate::failure::Failure;
use crate::{console, exit_code, render, shapes};

/// Entries that are asked for at once: a few hundred kilobytes.
const PAGE: u64 = 500;

/// Which entries.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  countersign log --from 100
  countersign log -f --json | jq -c 'select(.namespace | startswith(\"command.\"))'")]
pub struct Arguments {
    /// The first entry
    #[arg(long, default_value_t = 0, value_name = "SEQ")]
    from: u64,
    /// Go on as new ones come
    #[arg(short, long)]
    follow: bool,
}

fn line(link: &LoggedEntry) -> String {
    let entry = &link.entry;
    let event = entry.verified.event();
    let author = match event.header().author {
        Author::Ledger => "the ledger",
        Author::Person(name) => name.as_str(),
        Author::Agent(name) => name.as_str(),
    };
    format!(
        "{:>8}  {}  {:<24} {}\n",
        entry.seq,
        render::time(entry.time),
        event.kind().as_str(),
        render::line(author),
    )
}

/// Prints entries.
pub(super) async fn log(globals: &Globals, arguments: Arguments) -> Result<u8, Failure> {
    let client = globals.connect().await?;
    let mut next = arguments.from;
    let mut prev: Option<Hash> = None;
    loop {
        let links = client.entries(next, PAGE, prev).await?;
        for link in &links {
            if globals.json {
                console::print_json_text(shapes::entry_line(link))?;
            } else {
                console::print(&line(link))?;
            }
        }
        if let Some(last) = links.last() {
            next = last.entry.seq + 1;
            prev = Some(last.entry.leaf);
        } else if arguments.follow {
            client.wait_for_news(next.saturating_sub(1)).await?;
        } else {
            return Ok(exit_code::DONE);
        }
    }
}
