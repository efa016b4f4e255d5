//! `at`: what a verb would have said at a point of the past, from proved streams or the audited log.

use clap::{Args, Subcommand};
use countersign_protocol::api::{CommandItem, Page};
use countersign_protocol::hash::CommandId;
use countersign_protocol::lifecycle::CommandStatus;
use countersign_protocol::name::Principal;
use countersign_protocol::search::{MAX_HITS, SearchFor};
use countersign_protocol::view;

use super::progress::Progress;
use super::{Globals, agents, changes, inbox, list, moment, policy};
use crate::acts::{Client, Found, Past, Point, Reach, RightsView, Since};
use crate::audit::Keep;
use crate::failure::Failure;
use crate::{console, describe, exit_code, render, shapes};

/// When, and what.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  countersign at 4711 list  # when the log had 4711 entries
  countersign at 2026-01-31T12:00:00Z show 7K3M-9QPX
  countersign at 30d agents
  countersign at 4711 inbox --for bob
  countersign at 2026-01-31 policy --json

Says what the verb of the same name would have said; the JSON is the same, too. The server finds what
the answer is about; every entry of that is proved and judged again (signatures, places, rights, policy).
That nothing was left out is the server's word, unless --whole reads the log from its first entry on and
audits all of it. Needs audit:read and command:read; with --whole, command:read only for the words of
commands. The ledger records that you read the log.")]
pub struct Arguments {
    /// How many entries the log had, or a time (2026-01-31, 2026-01-31T12:00:00Z), or how long ago (30d)
    #[arg(value_name = "SEQ|TIME", value_parser = moment::since)]
    point: Since,
    /// Read and audit every entry up to then, so that nothing can be left out
    #[arg(long)]
    whole: bool,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Clone, Subcommand)]
enum What {
    /// A command or a change
    Show {
        /// XXXX-XXXX, the whole id, or at least its first 8 digits
        id: String,
    },
    /// Commands, newest first
    List(list::Arguments),
    /// What waited for your judgement, or for somebody else's
    Inbox {
        /// For whom; you, when left out
        #[arg(long = "for", value_name = "NAME")]
        whose: Option<Principal>,
    },
    /// The hosts
    Agents,
    /// The policy in force
    Policy,
    /// Changes of rights that waited
    Changes {
        /// Also those that were settled
        #[arg(long)]
        all: bool,
    },
}

/// Says on stderr as of when an answer is: stdout is what the live verb prints.
pub(super) fn tell(past: &Past) {
    let chronicle = &past.chronicle;
    let time = chronicle.last().map_or_else(String::new, render::time);
    let last = chronicle.size().saturating_sub(1);
    let size = chronicle.size();
    let rests_on = if chronicle.is_whole() {
        "all of them audited"
    } else {
        BY_INDEX
    };
    console::note(&format!(
        "as of entry {last} ({size} entries), {time}; {rests_on}"
    ));
    let blind = chronicle.not_rejudged();
    if blind > 0 {
        console::note(&format!(
            "{blind} of them could not be judged again: their words are erased or not for you to read"
        ));
    }
}

/// Says the same of what a server finds, before it is there.
pub(super) fn tell_point(point: &Point) {
    let (last, size) = (point.size.saturating_sub(1), point.size);
    let time = render::time(point.last);
    console::note(&format!(
        "as of entry {last} ({size} entries), {time}; {BY_INDEX}"
    ));
}

/// What an answer rests on that is not of the whole log.
const BY_INDEX: &str = "what is shown is proved entry by entry; that nothing is left out is the server's word (--whole)";

/// Answers.
pub(super) async fn at(globals: &Globals, arguments: Arguments) -> Result<u8, Failure> {
    let client = globals.connect().await?;
    let found = match &arguments.what {
        What::Show { id } => Some(client.find(id).await?),
        What::List(_) | What::Inbox { .. } | What::Agents | What::Policy | What::Changes { .. } => {
            None
        }
    };
    let command = match found {
        Some(Found::Command(id)) => Some(id),
        Some(Found::Change(_)) | None => None,
    };
    let past = past(&client, &arguments, command).await?;
    tell(&past);
    match arguments.what {
        What::Show { .. } => match found {
            Some(Found::Change(id)) => show_change(globals, &past.rights(), &id),
            Some(Found::Command(id)) => {
                let view = client.command_then(&past, &id).await?;
                if globals.json {
                    console::print_json(&shapes::command(&view))?;
                } else {
                    console::print(&describe::command(&view))?;
                }
                Ok(exit_code::DONE)
            }
            None => Ok(exit_code::DONE),
        },
        What::List(arguments) => {
            list::print(globals, page(&past, &arguments)?)?;
            Ok(exit_code::DONE)
        }
        What::Inbox { whose } => {
            let rights = past.rights();
            let who = person(&client, &rights, whose)?;
            let waiting = inbox::waiting(&rights, &who)?;
            let some = inbox::print(globals, awaited(&past, &who), &waiting)?;
            if !some && !globals.json {
                console::note(&format!("nothing waited for {who}"));
            }
            Ok(exit_code::DONE)
        }
        What::Agents => agents::print(globals, agents::items(&past.rights())),
        What::Policy => {
            let rights = past.rights();
            policy::print(globals, policy::in_force(rights.state.rights())?)
        }
        What::Changes { all } => changes::print(globals, past.rights().changes()?, all),
    }
}

/// The past that the question is about.
async fn past(
    client: &Client,
    arguments: &Arguments,
    command: Option<CommandId>,
) -> Result<Past, Failure> {
    let until = Some(arguments.point);
    let keep = Keep {
        command,
        output: false,
    };
    if arguments.whole {
        let mut progress = Progress::new();
        let reach = Reach { until, keep };
        let mut tell = |done, of| progress.tell(done, of);
        return client.past(&reach, &mut tell).await;
    }
    let point = client.point(until).await?;
    let search = |status: Option<&str>| SearchFor::Then {
        status: status.map(ToOwned::to_owned),
        open: false,
    };
    match &arguments.what {
        What::List(wanted) => {
            // One more than the page, to know whether there is a next one.
            let few = wanted.limit.clamp(1, countersign_protocol::api::MAX_PAGE) + 1;
            let from = before(wanted)?.map(|before| format!("{before}-"));
            let search = search(wanted.status);
            listed(client, &point, (search, few), from, |past| {
                page(past, wanted).is_ok_and(|page| page.next.is_some())
            })
            .await
        }
        What::Inbox { .. } => {
            let word = CommandStatus::Requested.as_str();
            let search = search(Some(word));
            listed(client, &point, (search, MAX_HITS), None, |_past| false).await
        }
        What::Show { .. } | What::Agents | What::Policy | What::Changes { .. } => {
            let ids: Vec<CommandId> = command.into_iter().collect();
            client.gathered(&point, keep, &ids).await
        }
    }
}

/// What a server says there was, until it is enough or there is no more.
async fn listed(
    client: &Client,
    point: &Point,
    (search, few): (SearchFor, u64),
    cursor: Option<String>,
    is_enough: impl Fn(&Past) -> bool,
) -> Result<Past, Failure> {
    let mut ids = Vec::new();
    let mut hits = client.hits(point.clone(), search, cursor, few);
    loop {
        hits.want(few);
        let Some((past, page)) = hits.next(Keep::default()).await? else {
            return client.gathered(point, Keep::default(), &ids).await;
        };
        ids.extend(
            page.iter()
                .filter_map(|hit| hit.command.parse::<CommandId>().ok()),
        );
        let past = if ids.len() == page.len() {
            past
        } else {
            client.gathered(point, Keep::default(), &ids).await?
        };
        if hits.cursor().is_none() || is_enough(&past) {
            return Ok(past);
        }
    }
}

fn show_change(
    globals: &Globals,
    rights: &RightsView,
    id: &countersign_protocol::hash::StatementId,
) -> Result<u8, Failure> {
    let view = rights.change(id)?;
    if globals.json {
        console::print_json(&shapes::change(&view))?;
    } else {
        console::print(&describe::change(&view))?;
    }
    Ok(exit_code::DONE)
}

/// For whom the inbox is: whoever is named, else whose key this is, also when it was revoked since.
fn person(
    client: &Client,
    rights: &RightsView,
    whose: Option<Principal>,
) -> Result<Principal, Failure> {
    let holder = || {
        let record = rights.state.rights().key(&client.key_id())?;
        record.holder.person().cloned()
    };
    whose.or_else(holder).ok_or_else(|| {
        Failure::usage("the ledger did not know your key then, so nothing waited for you")
            .hint("name somebody: --for NAME")
    })
}

/// Before which place a page of the list stands.
fn before(arguments: &list::Arguments) -> Result<Option<u64>, Failure> {
    let parse = |text: &String| {
        text.parse()
            .map_err(|_| Failure::usage("the cursor is not one that a page gave"))
    };
    arguments.cursor.as_ref().map(parse).transpose()
}

/// The very page that the server would have given.
fn page(past: &Past, arguments: &list::Arguments) -> Result<Page<CommandItem>, Failure> {
    let before = before(arguments)?;
    let state = past.chronicle.state();
    let mut commands: Vec<_> = state.commands().collect();
    commands.retain(|command| before.is_none_or(|before| command.requested.seq < before));
    commands.retain(|command| {
        let status = command.status().as_str();
        arguments.status.is_none_or(|wanted| wanted == status)
    });
    commands.sort_by_key(|command| std::cmp::Reverse(command.requested.seq));
    let limit = usize::try_from(
        arguments
            .limit
            .clamp(1, countersign_protocol::api::MAX_PAGE),
    );
    let limit = limit.unwrap_or(usize::MAX);
    let more = commands.len() > limit;
    commands.truncate(limit);
    let next = commands.last().filter(|_| more);
    Ok(Page {
        next: next.map(|command| command.requested.seq.to_string()),
        items: commands
            .into_iter()
            .map(|command| view::command_item(state, command))
            .collect(),
    })
}

/// Commands that waited for somebody, oldest first.
fn awaited(past: &Past, who: &Principal) -> Vec<CommandItem> {
    let state = past.chronicle.state();
    let waits = |command: &&countersign_protocol::lifecycle::Command| {
        command.status() == CommandStatus::Requested && state.awaited(command).contains(&who)
    };
    let mut commands: Vec<_> = state.commands().filter(waits).collect();
    commands.sort_by_key(|command| command.requested.seq);
    let items = commands.into_iter();
    items
        .map(|command| view::command_item(state, command))
        .collect()
}
