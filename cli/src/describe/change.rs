//! Words for people: a change of rights. Only escaped text leaves this file.

use countersign_protocol::key;
use countersign_protocol::rights::ChangeBody;
use countersign_protocol::short;

use super::command::{absent, free_text, paragraph, row};
use super::requirement::{price, whom};
use crate::acts::{ChangeView, Replaced};
use crate::render;
use crate::streams::Held;

/// A change of rights, in full: what an administrator reads before signing.
#[must_use]
pub fn change(view: &ChangeView) -> String {
    let mut out = String::new();
    let id = &view.id;
    row(&mut out, "change", &format!("{}  {id}", short::short(id)));
    let asked = render::time(view.time);
    row(
        &mut out,
        "asked by",
        &format!("{}, {asked} (entry {})", view.requester, view.seq),
    );
    match &view.reason {
        None => {}
        Some(Held::Here(reason)) => free_text(&mut out, "reason", reason),
        Some(held) => row(&mut out, "reason", absent(held)),
    }
    change_body(&mut out, view);
    if let Some(needed) = &view.requirement {
        row(&mut out, "needs", &price(needed));
    }
    let consents: Vec<&str> = view.consents.iter().map(|who| who.as_str()).collect();
    let count = format!(
        "{} of {}: {}",
        consents.len(),
        view.needed,
        consents.join(", ")
    );
    row(&mut out, "consents", &count);
    row(&mut out, "status", view.stage.as_str());
    out
}

fn change_body(out: &mut String, view: &ChangeView) {
    let list = |names: &[String]| names.join(", ");
    let words = |items: &[&dyn std::fmt::Display]| {
        let words: Vec<String> = items.iter().map(ToString::to_string).collect();
        list(&words)
    };
    match &view.body {
        ChangeBody::KeyAdded {
            principal,
            key,
            expires_at,
            claim: _,
        } => {
            row(out, "adds a key", &key::fingerprint(&key.key_id()));
            row(out, "for", &format!("{principal}, who has signed with it"));
            if let Some(end) = expires_at {
                row(out, "until", &render::time(*end));
            }
        }
        ChangeBody::KeyRevoked {
            key_id,
            suspect_from,
        } => {
            row(out, "revokes", &key::fingerprint(key_id));
            if let Some(seq) = suspect_from {
                row(out, "suspect", &format!("from entry {seq} on"));
            }
        }
        ChangeBody::RoleDefined { role, permissions } => {
            row(out, "defines", &format!("role {role}"));
            let permissions: Vec<&str> = permissions.iter().map(|right| right.as_str()).collect();
            paragraph(out, "may", &permissions.join(", "));
        }
        ChangeBody::RoleGranted { role, to } => {
            row(out, "grants", &format!("role {role}"));
            row(out, "to", &whom(to));
        }
        ChangeBody::RoleRevoked { role, from } => {
            row(out, "takes away", &format!("role {role}"));
            row(out, "from", &whom(from));
        }
        ChangeBody::GroupChanged { group, add, remove } => {
            row(out, "changes", &format!("group {group}"));
            for (what, people) in [("adds", add), ("removes", remove)] {
                let people: Vec<&str> = people.iter().map(|who| who.as_str()).collect();
                if !people.is_empty() {
                    paragraph(out, what, &people.join(", "));
                }
            }
        }
        ChangeBody::PolicyPublished { policy } => {
            row(out, "publishes", &format!("a policy, digest {policy}"));
            if let Some(policy) = &view.policy {
                free_text(out, "policy", policy.text());
            }
        }
        ChangeBody::AgentAccepted {
            agent, key, labels, ..
        } => {
            row(out, "accepts", &format!("agent {agent}"));
            row(out, "with key", &key::fingerprint(&key.key_id()));
            if let Some(replaced) = &view.replaces {
                row(out, "replaces", &replaced_key(replaced));
            }
            labels_row(out, labels);
        }
        ChangeBody::AgentRejected { agent, key_id } => {
            row(out, "turns down", &format!("agent {agent}"));
            row(out, "with key", &key::fingerprint(key_id));
        }
        ChangeBody::AgentRelabelled { agent, labels } => {
            row(out, "labels", &format!("agent {agent}"));
            labels_row(out, labels);
        }
        ChangeBody::AgentDrained { agent } => {
            row(
                out,
                "drains",
                &format!("agent {agent}: it takes no new work"),
            );
        }
        ChangeBody::AgentUndrained { agent } => {
            row(
                out,
                "undrains",
                &format!("agent {agent}: it takes work again"),
            );
        }
        ChangeBody::AgentRetired { agent } => {
            row(
                out,
                "retires",
                &format!("agent {agent}: its keys end, its name is free"),
            );
        }
        ChangeBody::TokenIssued {
            token,
            principal,
            roles,
            permissions,
            labels,
            commands,
            expires_at,
            secret: _,
        } => {
            row(out, "issues", &format!("API token {token}"));
            row(out, "for", principal.as_str());
            let rights: Vec<&dyn std::fmt::Display> = roles
                .iter()
                .map(|role| role as &dyn std::fmt::Display)
                .chain(
                    permissions
                        .iter()
                        .map(|right| right as &dyn std::fmt::Display),
                )
                .collect();
            paragraph(out, "may", &words(&rights));
            labels_row(out, labels);
            let commands: Vec<String> = commands.iter().map(ToString::to_string).collect();
            if !commands.is_empty() {
                paragraph(out, "programs", &list(&commands));
            }
            row(out, "until", &render::time(*expires_at));
        }
        ChangeBody::TokenRevoked { token } => row(out, "revokes", &format!("API token {token}")),
        ChangeBody::BlobRedacted {
            command,
            digests,
            legal_basis,
        } => {
            let short = short::short(command);
            row(
                out,
                "erases",
                &format!(
                    "{} texts of command {short}, for ever (see them: countersign show {short})",
                    digests.len()
                ),
            );
            row(out, "command", &command.to_string());
            row(out, "legal basis", legal_basis.as_str());
            let digests: Vec<String> = digests.iter().map(ToString::to_string).collect();
            paragraph(out, "digests", &digests.join("\n"));
        }
        ChangeBody::HoldPlaced {
            hold,
            commands,
            agent,
            requester,
        } => {
            row(out, "holds", &format!("nothing of it is erased: {hold}"));
            let commands: Vec<String> = commands.iter().map(ToString::to_string).collect();
            if !commands.is_empty() {
                paragraph(out, "commands", &commands.join("\n"));
            }
            if let Some(agent) = agent {
                row(out, "on host", agent.as_str());
            }
            if let Some(requester) = requester {
                row(out, "asked by", requester.as_str());
            }
        }
        ChangeBody::HoldLifted { hold } => {
            row(out, "lifts", &format!("the legal hold {hold}"));
        }
    }
}

fn labels_row(out: &mut String, labels: &[countersign_protocol::name::Label]) {
    let labels: Vec<&str> = labels.iter().map(|label| label.as_str()).collect();
    if !labels.is_empty() {
        paragraph(out, "labels", &labels.join(", "));
    }
}

/// The key that an acceptance replaces, so that nobody consents to that unseen.
#[must_use]
pub fn replaced_key(replaced: &Replaced) -> String {
    let Replaced { key_id, since } = replaced;
    format!(
        "the key {} (in force since entry {since})",
        key::fingerprint(key_id)
    )
}
