//! `agents`: the hosts that the ledger knows, from the verified rights, and accepting one.

use clap::{Args, Subcommand};
use countersign_protocol::api::AgentItem;
use countersign_protocol::event::Event;
use countersign_protocol::key::{self, PublicKey};
use countersign_protocol::name::AgentName;
use countersign_protocol::rights::{ChangeBody, Holder};

use super::{Globals, rights};
use crate::acts::RightsView;
use crate::console::base64;
use crate::failure::Failure;
use crate::{console, describe, exit_code, shapes};

/// What to do with agents.
#[derive(Debug, Clone, Args)]
pub struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Clone, Subcommand)]
enum Action {
    /// Ask for an enrolled agent to be accepted
    #[command(after_help = "Example:
  countersign agents accept web-1 --fingerprint SHA256:…

Compare the fingerprint with what the host itself prints, over another way than this server.")]
    Accept {
        /// Its name
        name: AgentName,
        /// Its key's fingerprint, as the host prints it
        #[arg(long, value_name = "SHA256:…")]
        fingerprint: String,
        /// Why; it goes into the log
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
}

/// Lists or accepts.
pub(super) async fn agents(globals: &Globals, arguments: Arguments) -> Result<u8, Failure> {
    match arguments.action {
        None => list(globals).await,
        Some(Action::Accept {
            name,
            fingerprint,
            reason,
        }) => accept(globals, name, &fingerprint, reason.as_deref()).await,
    }
}

/// Everyone who ever enrolled, and what became of them.
fn items(view: &RightsView) -> Vec<AgentItem> {
    let rights = view.state.rights();
    let item = |agent: &AgentName, key: &PublicKey, status: &str, seq| AgentItem {
        agent: agent.to_string(),
        status: status.to_owned(),
        key_id: key.key_id().to_string(),
        fingerprint: key::fingerprint(&key.key_id()),
        key: base64(&key.to_blob()),
        seq,
    };
    let mut items = Vec::new();
    for (_, record) in rights.keys() {
        let Holder::Agent(agent) = &record.holder else {
            continue;
        };
        let (status, seq) = match record.revoked {
            Some(seq) => ("revoked", Some(seq)),
            None => ("accepted", Some(record.since)),
        };
        items.push(item(agent, &record.key, status, seq));
    }
    for (agent, key) in rights.enrolments() {
        let mut entries = view.stream.entries.iter();
        let enrolled = entries.find(|link| {
            matches!(link.entry.verified.event(),
                Event::AgentEnrolled(event) if event.key == *key && event.agent == *agent)
        });
        let seq = enrolled.map(|link| link.entry.seq);
        items.push(item(agent, key, "enrolled", seq));
    }
    items.sort_by(|a, b| (&a.agent, a.seq).cmp(&(&b.agent, b.seq)));
    items
}

async fn list(globals: &Globals) -> Result<u8, Failure> {
    let client = globals.connect().await?;
    let items = items(&client.rights().await?);
    if globals.json {
        console::print_json(&shapes::ItemsShape { items, next: None })?;
        return Ok(exit_code::DONE);
    }
    if items.is_empty() {
        console::note("no agent has enrolled yet");
        return Ok(exit_code::DONE);
    }
    let rows = items.iter().map(|item| {
        vec![
            item.agent.clone(),
            item.status.clone(),
            item.fingerprint.clone(),
        ]
    });
    console::print(&describe::table(
        &["AGENT", "STATUS", "KEY"],
        rows.collect(),
    ))?;
    Ok(exit_code::DONE)
}

async fn accept(
    globals: &Globals,
    agent: AgentName,
    fingerprint: &str,
    reason: Option<&str>,
) -> Result<u8, Failure> {
    let client = globals.connect().await?;
    let view = client.rights().await?;
    let waiting: Vec<&PublicKey> = view
        .state
        .rights()
        .enrolments()
        .filter(|(name, _)| **name == agent)
        .map(|(_, key)| key)
        .collect();
    let same = |key: &&&PublicKey| key::fingerprint(&key.key_id()) == fingerprint;
    let Some(key) = waiting.iter().find(same) else {
        let found: Vec<String> = waiting
            .iter()
            .map(|key| key::fingerprint(&key.key_id()))
            .collect();
        return Err(if found.is_empty() {
            Failure::failed(
                "unknown_agent",
                format!("no agent {agent} waits to be accepted"),
            )
            .hint("start it on its host first; `countersign agents` lists them")
        } else {
            Failure::refused(
                "fingerprint",
                format!(
                    "the agent {agent} that waits has another key: {}",
                    found.join(", ")
                ),
            )
            .hint("compare with what the host itself prints; if it differs, somebody else enrolled")
        });
    };
    let key = (*key).clone();
    rights::ask(
        globals,
        &client,
        &ChangeBody::AgentAccepted { agent, key },
        reason,
    )
    .await
}
