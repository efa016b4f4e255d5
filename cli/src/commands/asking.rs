//! What all changes of rights have in common: a reason, the asking, and what is said of it.

use std::path::Path;

use clap::Args;
use countersign_protocol::policy::Policy;
use countersign_protocol::rights::ChangeBody;
use countersign_protocol::short;
use tokio::io::AsyncReadExt as _;

use super::{Globals, decide};
use crate::acts::Client;
use crate::failure::Failure;
use crate::{console, exit_code};

/// Largest file that is read here; a policy has at most 1 MiB, and one byte more is too long.
const MAX_FILE_BYTES: u64 = 1024 * 1024 + 1;

/// Why a change is asked for.
#[derive(Debug, Clone, Args)]
pub(super) struct Why {
    /// Why; it goes into the log
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,
}

/// Reads a text file that the command line names.
pub(super) async fn read(path: &Path) -> Result<String, Failure> {
    let failed = |error| Failure::usage(format!("cannot read {}: {error}", path.display()));
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    let mut text = String::new();
    let mut capped = file.take(MAX_FILE_BYTES);
    capped.read_to_string(&mut text).await.map_err(failed)?;
    Ok(text)
}

/// Names, sorted, each once: the one form that a change has.
pub(super) fn in_order<T: Ord>(mut names: Vec<T>) -> Vec<T> {
    names.sort();
    names.dedup();
    names
}

/// Asks for a change and says how far it has come.
pub(super) async fn ask(
    globals: &Globals,
    client: &Client,
    body: &ChangeBody,
    policy: Option<&Policy>,
    why: &Why,
) -> Result<u8, Failure> {
    let accepted = client.change(body, policy, why.reason.as_deref()).await?;
    let judged = decide::shape(client.judged_change(&accepted.id, &accepted).await)?;
    if globals.json {
        console::print_json(&judged)?;
        return Ok(exit_code::DONE);
    }
    let code = short::short(&accepted.id);
    let status = decide::status(&judged);
    console::print(&format!("{code}  {}  {status}\n", accepted.id))?;
    if judged.status == Some("requested") {
        console::note(&consent_with(&code));
    }
    Ok(exit_code::DONE)
}

/// What a change waits for.
pub(super) fn consent_with(code: &str) -> String {
    format!("another administrator consents with: countersign approve {code}")
}
