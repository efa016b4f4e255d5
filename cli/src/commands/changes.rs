//! `changes`: changes of rights, from the verified rights stream.

use clap::Args;
use countersign_protocol::short;

use super::Globals;
use crate::acts::{ChangeStage, ChangeView};
use crate::failure::Failure;
use crate::{console, describe, exit_code, render, shapes};

/// Which changes.
#[derive(Debug, Clone, Args)]
pub struct Arguments {
    /// Also those that are settled
    #[arg(long)]
    all: bool,
}

/// A table of changes.
pub(super) fn table(changes: &[ChangeView]) -> String {
    let rows = changes.iter().map(|change| {
        vec![
            short::short(&change.id),
            change.kind().to_owned(),
            change.stage.as_str().to_owned(),
            change.requester.to_string(),
            format!("{}/{}", change.consents.len(), change.needed),
            render::time(change.time),
        ]
    });
    let headings = ["ID", "CHANGE", "STATUS", "ASKED BY", "YES", "WHEN"];
    describe::table(&headings, rows.collect())
}

/// Lists changes.
pub(super) async fn changes(globals: &Globals, arguments: Arguments) -> Result<u8, Failure> {
    let client = globals.connect().await?;
    print(globals, client.rights().await?.changes()?, arguments.all)
}

/// Prints changes, those that are settled only when `all` are wanted.
pub(super) fn print(
    globals: &Globals,
    mut changes: Vec<ChangeView>,
    all: bool,
) -> Result<u8, Failure> {
    changes.retain(|change| all || change.stage == ChangeStage::Requested);
    if globals.json {
        let items = changes.iter().map(shapes::change_item).collect();
        console::print_json(&shapes::ItemsShape { items, next: None })?;
    } else if changes.is_empty() {
        console::note("no change of rights waits for consent");
    } else {
        console::print(&table(&changes))?;
    }
    Ok(exit_code::DONE)
}
