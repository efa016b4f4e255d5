//! `policy snapshot`: who may approve, signed for the hosts that pin administrators.

use std::time::Duration;

use clap::Args;

use crate::acts::{SnapshotDraft, SnapshotStep, SnapshotWish};
use crate::commands::{Globals, decide, request};
use crate::failure::Failure;
use crate::{console, describe, exit_code, render, shapes};

/// What to put into it.
#[derive(Debug, Clone, Args)]
pub(super) struct Snapshot {
    /// How long it holds; a day at most
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = request::duration)]
    valid: Duration,
    /// So many distinct people at least, on every host that takes it; as in the one before, or 2
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16))]
    min_approvals: Option<u32>,
    /// Make another one, whatever waits for your signature
    #[arg(long)]
    new: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// Shows what is to be signed, asks and signs.
pub(super) async fn snapshot(globals: &Globals, arguments: Snapshot) -> Result<u8, Failure> {
    decide::require_asking(arguments.yes)?;
    let client = globals.connect().await?;
    let wish = SnapshotWish {
        valid: arguments.valid,
        min_approvals: arguments.min_approvals,
        new: arguments.new,
    };
    let draft = client.snapshot(&wish).await?;
    if draft.step == SnapshotStep::Signed {
        return told(globals, &draft, None);
    }
    console::note(describe::snapshot(&draft).trim_end());
    decide::confirm(arguments.yes, "Sign this for the hosts?")?;
    let (draft, seq) = client.sign_snapshot(draft).await?;
    told(globals, &draft, Some(seq))
}

fn told(globals: &Globals, draft: &SnapshotDraft, seq: Option<u64>) -> Result<u8, Failure> {
    if globals.json {
        console::print_json(&shapes::snapshot(draft, seq))?;
        return Ok(exit_code::DONE);
    }
    let names = |people: &[countersign_protocol::name::Principal]| {
        let names: Vec<&str> = people.iter().map(|who| who.as_str()).collect();
        names.join(", ")
    };
    console::print(&format!(
        "policy snapshot {}: {} of {} signatures ({}), until {}\n",
        if draft.is_enough() {
            "in force"
        } else {
            "waits"
        },
        draft.signed_by.len(),
        draft.needed,
        names(&draft.signed_by),
        render::time(draft.expires_at),
    ))?;
    if !draft.is_enough() {
        console::note(&format!(
            "it takes {} more of {}; each runs: countersign policy snapshot",
            draft.needed as usize - draft.signed_by.len().min(draft.needed as usize),
            names(&draft.missing),
        ));
    }
    Ok(exit_code::DONE)
}
