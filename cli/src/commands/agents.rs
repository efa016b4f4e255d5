//! `agents`: the hosts that the ledger knows, from the verified rights, and accepting one.

use clap::{Args, Subcommand};
use countersign_protocol::api::AgentItem;
use countersign_protocol::event::Event;
use countersign_protocol::key::{self, PublicKey};
use countersign_protocol::name::AgentName;
use countersign_protocol::rights::{ChangeBody, Holder};
use countersign_protocol::view;

use super::{Globals, rights};
use crate::acts::{Replaced, RightsView};
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
    #[command(after_help = "Examples:
  countersign agents accept web-1 --fingerprint SHA256:…
  countersign agents accept web-1 --fingerprint SHA256:… --rotate

Compare the fingerprint with what the host itself prints, over another way than this server.")]
    Accept {
        /// Its name
        name: AgentName,
        /// Its key's fingerprint, as the host prints it
        #[arg(long, value_name = "SHA256:…")]
        fingerprint: String,
        /// The host has a key already, and this one is to replace it
        #[arg(long)]
        rotate: bool,
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
            rotate,
            reason,
        }) => accept(globals, name, &fingerprint, rotate, reason.as_deref()).await,
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
        let status = view::agent_key_word(rights, agent, record);
        let seq = record.revoked.unwrap_or(record.since);
        items.push(item(agent, &record.key, status, Some(seq)));
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
    rotate: bool,
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
    let replaces = replaced(&view, &agent, rotate)?;
    if let Some(replaced) = &replaces {
        console::note(&format!(
            "{fingerprint} replaces {}.\nCommands that name the old key still run with it, until the host retires it.",
            describe::replaced_key(replaced)
        ));
    }
    let replaces = replaces.map(|replaced| replaced.key_id);
    rights::ask(
        globals,
        &client,
        &ChangeBody::AgentAccepted {
            agent,
            key,
            replaces,
        },
        reason,
    )
    .await
}

/// The key that an acceptance replaces. Nobody replaces one without having asked for it.
fn replaced(
    view: &RightsView,
    agent: &AgentName,
    rotate: bool,
) -> Result<Option<Replaced>, Failure> {
    let current = view.state.rights().agent(agent);
    let current = current.and_then(|key_id| view.replaced(key_id));
    match (&current, rotate) {
        (Some(replaced), false) => Err(Failure::refused(
            "agent_taken",
            format!(
                "the agent {agent} has a key: accepting this one replaces {}",
                describe::replaced_key(replaced)
            ),
        )
        .hint("if the host itself made the new key, add --rotate; another host enrols under another name")),
        (None, true) => Err(Failure::refused(
            "no_key",
            format!("the agent {agent} has no key in force that this one could replace"),
        )
        .hint("leave --rotate out")),
        (Some(_), true) | (None, false) => Ok(current),
    }
}
