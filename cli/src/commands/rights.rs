//! `key add` and `policy set`: changes of rights from files.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use countersign_protocol::key::PublicKey;
use countersign_protocol::name::Principal;
use countersign_protocol::policy::Policy;
use countersign_protocol::rights::ChangeBody;
use countersign_protocol::short;
use tokio::io::AsyncReadExt as _;

use super::{Globals, decide};
use crate::acts::Client;
use crate::failure::Failure;
use crate::{console, exit_code};

/// Largest file that is read here; a policy of 96 long names fits.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// What to do with keys.
#[derive(Debug, Clone, Args)]
pub struct KeyArguments {
    #[command(subcommand)]
    action: KeyAction,
}

#[derive(Debug, Clone, Subcommand)]
enum KeyAction {
    /// Ask for a person's key to be added
    #[command(after_help = "Example:
  countersign key add dave@example.com dave.pub --reason 'new on call'")]
    Add {
        /// The person's name; it is permanent
        name: Principal,
        /// Their public key: ssh-ed25519 or sk-ssh-ed25519@openssh.com
        file: PathBuf,
        /// Why; it goes into the log
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
}

/// What to do with policies.
#[derive(Debug, Clone, Args)]
pub struct PolicyArguments {
    #[command(subcommand)]
    action: PolicyAction,
}

#[derive(Debug, Clone, Subcommand)]
enum PolicyAction {
    /// Ask for a policy to come into force for every command
    #[command(after_help = "Example of a file:
  {\"approvals\": 2, \"may_request\": [\"alice\", \"bob\"], \"may_approve\": [\"alice\", \"bob\", \"carol\"]}")]
    Set {
        /// A JSON file: approvals, may_request, may_approve
        file: PathBuf,
        /// Why; it goes into the log
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
}

async fn read(path: &Path) -> Result<String, Failure> {
    let failed = |error| Failure::usage(format!("cannot read {}: {error}", path.display()));
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    let mut text = String::new();
    let mut capped = file.take(MAX_FILE_BYTES);
    capped.read_to_string(&mut text).await.map_err(failed)?;
    Ok(text)
}

/// Asks for a key.
pub(super) async fn key(globals: &Globals, arguments: KeyArguments) -> Result<u8, Failure> {
    let KeyAction::Add { name, file, reason } = arguments.action;
    let key = PublicKey::from_openssh(&read(&file).await?).map_err(|error| {
        Failure::usage(format!("{} is not usable: {error}", file.display()))
            .hint("give the .pub file of an ssh-ed25519 key")
    })?;
    let principal = name;
    let client = globals.connect().await?;
    let body = ChangeBody::KeyAdded { principal, key };
    ask(globals, &client, &body, reason.as_deref()).await
}

/// Asks for a policy.
pub(super) async fn policy(globals: &Globals, arguments: PolicyArguments) -> Result<u8, Failure> {
    let PolicyAction::Set { file, reason } = arguments.action;
    let unusable = |error: &dyn std::fmt::Display| {
        Failure::usage(format!("{} is no policy: {error}", file.display()))
            .hint("see countersign policy set --help for an example")
    };
    let text = read(&file).await?;
    let mut policy: Policy = serde_json::from_str(&text).map_err(|error| unusable(&error))?;
    for names in [&mut policy.may_request, &mut policy.may_approve] {
        names.sort();
        names.dedup();
    }
    policy.check().map_err(|error| unusable(&error))?;
    let client = globals.connect().await?;
    let body = ChangeBody::PolicyPublished { policy };
    ask(globals, &client, &body, reason.as_deref()).await
}

/// Asks for a change and says how far it has come.
pub(super) async fn ask(
    globals: &Globals,
    client: &Client,
    body: &ChangeBody,
    reason: Option<&str>,
) -> Result<u8, Failure> {
    let accepted = client.change(body, reason).await?;
    let judged = decide::judged_change(client, &accepted.id, &accepted).await?;
    if globals.json {
        console::print_json(&judged)?;
        return Ok(exit_code::DONE);
    }
    let code = short::short(&accepted.id);
    console::print(&format!("{code}  {}  {}\n", accepted.id, judged.status))?;
    if judged.status == "requested" {
        console::note(&format!(
            "another administrator consents with: countersign approve {code}"
        ));
    }
    Ok(exit_code::DONE)
}
