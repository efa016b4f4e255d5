//! `secret seal`: seals secrets for a call with an API token, on the machine of whoever calls. It
//! reads files and talks to nobody.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use countersign_protocol::api::{AgentItem, LedgerInfo, Page};
use countersign_protocol::audit;
use countersign_protocol::event::Event;
use countersign_protocol::hash::{KeyId, LedgerId};
use countersign_protocol::name::{AgentName, Principal};
use countersign_protocol::secret::SealingKey;
use countersign_protocol::token::reference;
use serde::de::DeserializeOwned;

use super::{Globals, secrets};
use crate::acts::{Recipient, seal_for_token};
use crate::failure::Failure;
use crate::{console, exit_code, shapes};

/// What to do with secrets.
#[derive(Debug, Clone, Args)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Clone, Subcommand)]
enum Action {
    /// Seal secrets for one call with an API token, without talking to anybody
    Seal(Seal),
}

#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:
  countersign agents --json > agents.json               # by a person; keep it with the job
  curl -sS $COUNTERSIGN_SERVER/v1/ledger > ledger.json  # held against --ledger
  countersign secret seal --on web-1 --for ci@example.com --execution-id deploy-4711 \\
    --agents agents.json --ledger-info ledger.json --secret db.password=@db.password > sealed.json

Prints {\"execution_id\":…,\"secrets\":[…]}: put both into the body of POST /v1/commands/exec or shell.
The boxes open for that one call: this principal, this execution id, these hosts. To send the call
again, send the same sealed.json again. `agents` proves each key from the log; GET /v1/agents has
the same form, and is the server's word alone.")]
struct Seal {
    /// A host that gets them; several times, the same as in the call
    #[arg(long, value_name = "HOST", required = true)]
    on: Vec<AgentName>,
    /// For whom the token asks, as in `token list`
    #[arg(long = "for", value_name = "PRINCIPAL")]
    asks_for: Principal,
    /// The execution id of the call, which is of one command for ever
    #[arg(long, value_name = "ID")]
    execution_id: String,
    /// The hosts' keys: what `countersign agents --json` printed
    #[arg(long, value_name = "FILE")]
    agents: PathBuf,
    /// What GET /v1/ledger answered: its first entry names the key that signs for tokens
    #[arg(long, value_name = "FILE")]
    ledger_info: PathBuf,
    /// A secret: NAME=@FILE or NAME=- as a file, NAME:env= as a variable, NAME:stdin=; several times
    #[arg(long, value_name = "NAME=@FILE", required = true)]
    secret: Vec<String>,
}

/// Seals.
pub(super) async fn secret(globals: &Globals, arguments: Arguments) -> Result<u8, Failure> {
    let Action::Seal(wanted) = arguments.action;
    let ledger = globals.pinned_ledger()?;
    let gateway = gateway(&read(&wanted.ledger_info)?, &ledger)?;
    let known: Page<AgentItem> = read(&wanted.agents)?;
    let hosts = wanted.on.iter().map(|name| recipient(&known.items, name));
    let hosts = hosts.collect::<Result<Vec<_>, _>>()?;
    let secrets = secrets::read(&wanted.secret, false).await?;
    let reference = reference(&wanted.asks_for, &wanted.execution_id);
    let sealed = seal_for_token(&secrets, &hosts, (ledger, gateway), &reference)?;
    console::print_json(&shapes::sealed(&wanted.execution_id, &sealed))?;
    Ok(exit_code::DONE)
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    let bad = |error: String| Failure::usage(format!("cannot read {}: {error}", path.display()));
    let text = std::fs::read(path).map_err(|error| bad(error.to_string()))?;
    serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))
}

/// The key that signs for tokens, by the entry whose hash the pinned id is.
fn gateway(info: &LedgerInfo, pinned: &LedgerId) -> Result<KeyId, Failure> {
    let entry = audit::check_entry(&info.genesis.0);
    let entry = entry
        .ok()
        .filter(|entry| entry.leaf.as_bytes() == pinned.as_bytes());
    let entry = entry.ok_or_else(|| {
        Failure::tampering(
            "other_ledger",
            "the first entry is not that of the pinned ledger",
        )
        .hint("nothing was sealed; ask the server of this ledger: GET /v1/ledger")
    })?;
    let Event::LedgerGenesis(genesis) = entry.verified.event() else {
        return Err(Failure::tampering(
            "other_ledger",
            "the first entry is no first entry of a ledger",
        ));
    };
    genesis
        .gateway_key
        .as_ref()
        .map(|key| key.key_id())
        .ok_or_else(|| {
            Failure::failed(
                "no_gateway",
                "this ledger has no gateway key, so nobody asks with an API token",
            )
        })
}

/// The keys of an accepted host.
fn recipient(known: &[AgentItem], name: &AgentName) -> Result<Recipient, Failure> {
    let mut named = known.iter().filter(|item| item.agent == name.as_str());
    let item = named
        .find(|item| item.status == "accepted")
        .ok_or_else(|| {
            Failure::failed(
                "unknown_agent",
                format!("there is no accepted agent {name}"),
            )
            .hint("the file is what `countersign agents --json` prints; make it anew")
        })?;
    let key_id = item.key_id.parse();
    let key_id = key_id.map_err(|_| Failure::usage(format!("the key id of {name} is none")))?;
    let sealing_key = item.sealing_key.as_ref();
    let sealing_key = sealing_key.and_then(|key| <[u8; 32]>::try_from(key.0.as_slice()).ok());
    Ok(Recipient {
        agent: name.clone(),
        key_id,
        sealing_key: sealing_key.map(SealingKey::new),
    })
}
