//! `agents`: the hosts that the ledger knows, from the verified rights; what can be asked of them.

use clap::{Args, Subcommand};
use countersign_protocol::api::AgentItem;
use countersign_protocol::event::Event;
use countersign_protocol::key::{self, PublicKey};
use countersign_protocol::name::{AgentName, Label, Time};
use countersign_protocol::rights::Holder;
use countersign_protocol::view;

use super::asking::Why;
use super::{Globals, agent_changes};
use crate::acts::RightsView;
use crate::console::base64;
use crate::failure::Failure;
use crate::{console, describe, exit_code, render, shapes};

/// What to do with agents.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  countersign agents
  countersign agents --facts  # what @fact.NAME stands for, host by host
  countersign agents accept web-1 --fingerprint SHA256:… --label env=prod --label role=web
  countersign agents drain web-1 --reason 'kernel update'")]
pub struct Arguments {
    /// What hosts have signed of themselves, for @fact.NAME in arguments, instead of the list
    #[arg(long)]
    facts: bool,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Clone, Subcommand)]
pub(super) enum Action {
    /// Ask for an enrolled agent to be accepted
    #[command(after_help = "Examples:
  countersign agents accept web-1 --fingerprint SHA256:… --label env=prod
  countersign agents accept web-1 --fingerprint SHA256:… --rotate

Compare the fingerprint with what the host itself prints, over another way than this server.")]
    Accept {
        /// Its name
        name: AgentName,
        /// Its key's fingerprint, as the host prints it
        #[arg(long, value_name = "SHA256:…")]
        fingerprint: String,
        /// The host has a key already, and this one is to replace it; its labels stay
        #[arg(long, conflicts_with = "labels")]
        rotate: bool,
        /// What is said of the host: env=prod; several times
        #[arg(long = "label", value_name = "KEY=VALUE")]
        labels: Vec<Label>,
        #[command(flatten)]
        why: Why,
    },
    /// Ask for an enrolment to be turned down; this key may not enrol under the name again
    #[command(after_help = "Example:
  countersign agents reject web-1 --fingerprint SHA256:… --reason 'not our host'")]
    Reject {
        /// The name it enrolled with
        name: AgentName,
        /// Its key's fingerprint, as `agents` shows it
        #[arg(long, value_name = "SHA256:…")]
        fingerprint: String,
        #[command(flatten)]
        why: Why,
    },
    /// Ask for labels to be added to a host or taken from it; the others stay
    #[command(after_help = "Examples:
  countersign agents label web-1 env=prod group=web.eu
  countersign agents label web-1 env=prod --remove env=test")]
    Label {
        /// Which host
        name: AgentName,
        /// Labels that it gets
        #[arg(value_name = "KEY=VALUE", required_unless_present = "remove")]
        add: Vec<Label>,
        /// A label that it loses; several times
        #[arg(long, value_name = "KEY=VALUE")]
        remove: Vec<Label>,
        #[command(flatten)]
        why: Why,
    },
    /// Ask for a host to take no new work; what runs goes on
    Drain(One),
    /// Ask for a drained host to take work again
    Undrain(One),
    /// Ask for a host to be gone: its keys end, its name is free
    Retire(One),
}

/// One host.
#[derive(Debug, Clone, Args)]
pub(super) struct One {
    /// Which
    pub(super) name: AgentName,
    #[command(flatten)]
    pub(super) why: Why,
}

/// Lists hosts, or asks for a change of one.
pub(super) async fn agents(globals: &Globals, arguments: Arguments) -> Result<u8, Failure> {
    match arguments.action {
        None if arguments.facts => list_facts(globals).await,
        None => list(globals).await,
        Some(action) => agent_changes::change(globals, action).await,
    }
}

/// Everyone who ever enrolled, and what became of them.
pub(super) fn items(view: &RightsView) -> Vec<AgentItem> {
    let rights = view.state.rights();
    let labels = |agent: &AgentName| rights.labels(agent).map(ToString::to_string).collect();
    let drained = |agent: &AgentName| {
        let record = rights.agent_record(agent);
        record.is_some_and(|record| record.drained)
    };
    // They are the host's, and stand beside the key that new requests name.
    let current = |agent: &AgentName, key: &PublicKey| rights.agent(agent) == Some(key.key_id());
    let item = |agent: &AgentName, key: &PublicKey, status: &str, seq| AgentItem {
        labels: if current(agent, key) {
            labels(agent)
        } else {
            Vec::new()
        },
        drained: current(agent, key) && drained(agent),
        agent: agent.to_string(),
        status: status.to_owned(),
        key_id: key.key_id().to_string(),
        fingerprint: key::fingerprint(&key.key_id()),
        key: base64(&key.to_blob()),
        sealing_key: view::sealing_key(rights, agent, &key.key_id()),
        facts: view::facts(rights, agent, &key.key_id()),
        presence: None,
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

/// How a host's key stands, and whether the host takes work.
fn status(item: &AgentItem) -> String {
    let running = item.presence.as_ref();
    let running = running.map_or(0, |presence| presence.running);
    if item.drained && running > 0 {
        format!("{}, draining ({running} running)", item.status)
    } else if item.drained {
        format!("{}, drained", item.status)
    } else {
        item.status.clone()
    }
}

async fn list(globals: &Globals) -> Result<u8, Failure> {
    let client = globals.connect().await?;
    let mut items = items(&client.rights().await?);
    match client.presences().await {
        Ok(presences) => {
            for item in &mut items {
                item.presence = presences.get(&item.key_id).cloned();
            }
        }
        Err(failure) => console::note(&format!("where they are is not shown: {failure}")),
    }
    print(globals, items)
}

/// What hosts say of themselves, from the verified rights.
async fn list_facts(globals: &Globals) -> Result<u8, Failure> {
    let client = globals.connect().await?;
    let mut items = items(&client.rights().await?);
    items.retain(|item| !item.facts.is_empty());
    if globals.json {
        return print(globals, items);
    }
    if items.is_empty() {
        console::note("no host has signed facts of itself yet");
        return Ok(exit_code::DONE);
    }
    let rows = items.into_iter().flat_map(|item| {
        let agent = item.agent;
        let facts = item.facts.into_iter();
        facts.map(move |(name, value)| vec![agent.clone(), name, value])
    });
    console::print(&describe::table(
        &["AGENT", "FACT", "VALUE"],
        rows.collect(),
    ))?;
    Ok(exit_code::DONE)
}

/// Where a host was seen, by the server's word. Silence is told as silence.
fn seen(item: &AgentItem) -> String {
    let Some(presence) = &item.presence else {
        return String::new();
    };
    if presence.listening > 0 {
        return "connected".to_owned();
    }
    let moments = [presence.last_request_us, presence.last_statement_us];
    let last = moments.into_iter().flatten().max();
    let last = last.and_then(Time::from_micros).map(render::time);
    let last = last.map_or_else(
        || "never seen".to_owned(),
        |last| format!("last seen {last}"),
    );
    format!("not connected to this server; {last}")
}

/// What it says to run.
fn says(item: &AgentItem) -> String {
    let says = item.presence.as_ref();
    let says = says.and_then(|presence| presence.says_version.as_deref());
    says.unwrap_or_default().to_owned()
}

/// Prints hosts.
pub(super) fn print(globals: &Globals, items: Vec<AgentItem>) -> Result<u8, Failure> {
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
            status(item),
            item.labels.join(", "),
            seen(item),
            says(item),
            item.fingerprint.clone(),
        ]
    });
    console::print(&describe::table(
        &["AGENT", "STATUS", "LABELS", "SEEN", "SAYS", "KEY"],
        rows.collect(),
    ))?;
    Ok(exit_code::DONE)
}
