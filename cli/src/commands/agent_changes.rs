//! Changes of hosts: accept, reject, label, drain, undrain, retire.

use std::collections::BTreeSet;

use countersign_protocol::key::{self, PublicKey};
use countersign_protocol::name::{AgentName, Label};
use countersign_protocol::refusal::Refusal;
use countersign_protocol::rights::ChangeBody;

use super::Globals;
use super::agents::{Action, One};
use super::asking::{self, Why, in_order};
use crate::acts::{Client, Replaced, RightsView};
use crate::failure::Failure;
use crate::{console, describe};

/// Asks for one.
pub(super) async fn change(globals: &Globals, action: Action) -> Result<u8, Failure> {
    let client = globals.connect().await?;
    let view = client.rights().await?;
    let (body, why) = match action {
        Action::Accept {
            name,
            fingerprint,
            rotate,
            labels,
            why,
        } => (accepted(&view, name, &fingerprint, rotate, labels)?, why),
        Action::Reject {
            name,
            fingerprint,
            why,
        } => {
            let key_id = waiting(&view, &name, &fingerprint)?.key_id();
            let body = ChangeBody::AgentRejected {
                agent: name,
                key_id,
            };
            (body, why)
        }
        Action::Label {
            name,
            add,
            remove,
            why,
        } => (relabelled(&view, name, add, &remove)?, why),
        Action::Drain(One { name, why }) => {
            require_drained(&view, &name, false)?;
            (ChangeBody::AgentDrained { agent: name }, why)
        }
        Action::Undrain(One { name, why }) => {
            require_drained(&view, &name, true)?;
            (ChangeBody::AgentUndrained { agent: name }, why)
        }
        Action::Retire(One { name, why }) => {
            require_known(&view, &name)?;
            console::note(&format!(
                "the keys of {name} end with this for good; another host may then enrol under the name"
            ));
            (ChangeBody::AgentRetired { agent: name }, why)
        }
    };
    ask(globals, &client, &body, &why).await
}

async fn ask(
    globals: &Globals,
    client: &Client,
    body: &ChangeBody,
    why: &Why,
) -> Result<u8, Failure> {
    asking::ask(globals, client, body, None, why).await
}

fn require_known(view: &RightsView, name: &AgentName) -> Result<(), Failure> {
    if view.state.rights().agent(name).is_some() {
        return Ok(());
    }
    Err(Failure::failed(
        "unknown_agent",
        format!("there is no accepted agent {name}"),
    )
    .hint("countersign agents lists them"))
}

fn require_drained(view: &RightsView, name: &AgentName, drained: bool) -> Result<(), Failure> {
    require_known(view, name)?;
    let record = view.state.rights().agent_record(name);
    if record.is_some_and(|record| record.drained == drained) {
        Ok(())
    } else {
        Err(Refusal::NothingChanges.into())
    }
}

/// The host's labels with these and without those: a change names all of them.
fn relabelled(
    view: &RightsView,
    agent: AgentName,
    add: Vec<Label>,
    remove: &[Label],
) -> Result<ChangeBody, Failure> {
    require_known(view, &agent)?;
    let before: BTreeSet<Label> = view.state.rights().labels(&agent).cloned().collect();
    let missing = remove.iter().find(|label| !before.contains(label));
    if let Some(label) = missing {
        return Err(
            Failure::failed("unknown_label", format!("{agent} has no label {label}"))
                .hint("countersign agents shows its labels"),
        );
    }
    let mut after = before.clone();
    after.extend(add);
    after.retain(|label| !remove.contains(label));
    if after == before {
        return Err(Refusal::NothingChanges.into());
    }
    let shown: Vec<&str> = after.iter().map(Label::as_str).collect();
    let shown = if shown.is_empty() {
        "none".to_owned()
    } else {
        shown.join(", ")
    };
    console::note(&format!("labels of {agent} from then on: {shown}"));
    let labels = after.into_iter().collect();
    Ok(ChangeBody::AgentRelabelled { agent, labels })
}

/// The key with this fingerprint that waits under this name.
fn waiting(view: &RightsView, agent: &AgentName, fingerprint: &str) -> Result<PublicKey, Failure> {
    let waiting: Vec<&PublicKey> = view
        .state
        .rights()
        .enrolments()
        .filter(|(name, _)| *name == agent)
        .map(|(_, key)| key)
        .collect();
    let same = |key: &&&PublicKey| key::fingerprint(&key.key_id()) == fingerprint;
    if let Some(key) = waiting.iter().find(same) {
        return Ok((**key).clone());
    }
    let found: Vec<String> = waiting
        .iter()
        .map(|key| key::fingerprint(&key.key_id()))
        .collect();
    Err(if found.is_empty() {
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
    })
}

fn accepted(
    view: &RightsView,
    agent: AgentName,
    fingerprint: &str,
    rotate: bool,
    labels: Vec<Label>,
) -> Result<ChangeBody, Failure> {
    let key = waiting(view, &agent, fingerprint)?;
    let replaces = replaced(view, &agent, rotate)?;
    if let Some(replaced) = &replaces {
        console::note(&format!(
            "{fingerprint} replaces {}.\nCommands that name the old key still run with it, until the host retires it.",
            describe::replaced_key(replaced)
        ));
    }
    Ok(ChangeBody::AgentAccepted {
        agent,
        key,
        replaces: replaces.map(|replaced| replaced.key_id),
        labels: in_order(labels),
    })
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
