//! `people`: everybody whom the ledger knows, and what goes when somebody leaves.

use clap::{Args, Subcommand};
use countersign_protocol::key;
use countersign_protocol::name::Principal;
use countersign_protocol::rights::ChangeBody;
use countersign_protocol::short;

use super::Globals;
use super::asking::Why;
use super::decide;
use crate::acts::{Client, RightsView, leaving};
use crate::failure::Failure;
use crate::{clock, console, describe, exit_code, shapes};

/// Which people.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  countersign people
  countersign people show dave@example.com
  countersign people leave dave@example.com --reason 'last day was Friday'")]
pub struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Clone, Subcommand)]
enum Action {
    /// Keys, roles, groups and permissions of one person
    Show {
        /// Their name
        name: Principal,
    },
    /// Ask for everything to be taken from somebody who leaves: keys in force, API tokens, roles,
    /// groups
    #[command(after_help = "Example:
  countersign people leave dave@example.com --reason 'last day was Friday'

Each is a change of its own that waits for consent; the keys come first. What dave signed before
stays verified, and his name stays his for ever.")]
    Leave {
        /// Their name
        name: Principal,
        #[command(flatten)]
        why: Why,
    },
}

/// Lists, shows, or lets go.
pub(super) async fn people(globals: &Globals, arguments: Arguments) -> Result<u8, Failure> {
    let client = globals.connect().await?;
    match arguments.action {
        None => list(globals, &client).await,
        Some(Action::Show { name }) => show(globals, &client, &name).await,
        Some(Action::Leave { name, why }) => leave(globals, &client, &name, &why).await,
    }
}

async fn list(globals: &Globals, client: &Client) -> Result<u8, Failure> {
    let view = client.rights().await?;
    let items = shapes::people(view.state.rights(), clock::now());
    if globals.json {
        console::print_json(&shapes::ItemsShape { items, next: None })?;
    } else {
        console::print(&describe::people(&items))?;
    }
    Ok(exit_code::DONE)
}

fn require_known(view: &RightsView, name: &Principal) -> Result<(), Failure> {
    if view.state.rights().people().contains(name) {
        return Ok(());
    }
    Err(Failure::failed(
        "unknown_person",
        format!("nobody of the name {name} has or had a key in this ledger"),
    )
    .hint("countersign people lists everybody"))
}

async fn show(globals: &Globals, client: &Client, name: &Principal) -> Result<u8, Failure> {
    let view = client.rights().await?;
    require_known(&view, name)?;
    let person = shapes::person(view.state.rights(), name, clock::now());
    if globals.json {
        console::print_json(&person)?;
    } else {
        console::print(&describe::person(&person))?;
    }
    Ok(exit_code::DONE)
}

/// What a change takes away, in a word.
fn what(body: &ChangeBody) -> String {
    if let ChangeBody::KeyRevoked { key_id, .. } = body {
        key::fingerprint(key_id)
    } else if let ChangeBody::RoleRevoked { role, .. } = body {
        format!("role {role}")
    } else if let ChangeBody::GroupChanged { group, .. } = body {
        format!("group {group}")
    } else if let ChangeBody::TokenRevoked { token } = body {
        format!("token {token}")
    } else {
        body.kind().as_str().to_owned()
    }
}

async fn leave(
    globals: &Globals,
    client: &Client,
    name: &Principal,
    why: &Why,
) -> Result<u8, Failure> {
    let view = client.rights().await?;
    require_known(&view, name)?;
    let me = view.person(&client.key_id())?;
    let bodies = leaving(view.state.rights(), name, clock::now(), me == *name);
    let mut items = Vec::new();
    for body in &bodies {
        items.push(let_go(client, &view, body, why).await?);
    }
    let refused = items.iter().any(|item| item.refused.is_some());
    if globals.json {
        let principal = name.to_string();
        console::print_json(&shapes::LeaveShape { principal, items })?;
    } else if items.is_empty() {
        console::note(&format!(
            "{name} has nothing left to take: no key in force, no token, no role, no group"
        ));
    } else {
        tell(name, &items)?;
    }
    Ok(if refused {
        exit_code::REFUSED
    } else {
        exit_code::DONE
    })
}

/// Asks for one of the changes. One that the ledger refuses does not keep the others.
async fn let_go(
    client: &Client,
    view: &RightsView,
    body: &ChangeBody,
    why: &Why,
) -> Result<shapes::LeavingShape, Failure> {
    let mut item = shapes::LeavingShape {
        change: body.kind().as_str(),
        what: what(body),
        id: None,
        status: "requested",
        refused: None,
    };
    if let Some(waiting) = view.waiting(body) {
        item.id = Some(waiting.to_string());
        return Ok(item);
    }
    match client.change(body, None, why.reason.as_deref()).await {
        Ok(accepted) => {
            let judged = decide::shape(client.judged_change(&accepted.id, &accepted).await)?;
            item.id = Some(judged.id);
            // What could not be read has been asked for at least.
            item.status = judged.status.unwrap_or(item.status);
        }
        Err(failure) if failure.exit == exit_code::REFUSED => {
            item.status = "refused";
            item.refused = Some(failure.message().to_owned());
        }
        Err(failure) => return Err(failure),
    }
    Ok(item)
}

fn tell(name: &Principal, items: &[shapes::LeavingShape]) -> Result<(), Failure> {
    let code = |item: &shapes::LeavingShape| {
        let id: Option<countersign_protocol::hash::StatementId> = item.id.as_ref()?.parse().ok();
        id.as_ref().map(short::short)
    };
    let rows = items.iter().map(|item| {
        vec![
            code(item).unwrap_or_default(),
            item.change.to_owned(),
            item.what.clone(),
            item.refused
                .clone()
                .unwrap_or_else(|| item.status.replace('_', " ")),
        ]
    });
    let headings = ["ID", "CHANGE", "WHAT", "STATUS"];
    console::print(&describe::table(&headings, rows.collect()))?;
    let waiting = items.iter().filter(|item| item.status == "requested");
    let waiting: Vec<String> = waiting.filter_map(code).collect();
    if waiting.is_empty() {
        console::note(&format!(
            "nothing waits for consent; look with: countersign people show {name}"
        ));
    } else {
        console::note(
            "these wait for consent; until then they still hold. Somebody else whose consent counts runs:",
        );
        for code in waiting {
            console::note(&format!("    countersign approve {code}"));
        }
    }
    Ok(())
}
