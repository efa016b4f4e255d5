//! Words for people: what was erased and why, and legal holds. Only escaped text leaves this file.

use countersign_protocol::short;

use super::command::{absent, free_text, paragraph, row, table};
use crate::acts::{Redaction, counted};
use crate::render;
use crate::shapes::HoldShape;
use crate::streams::Held;

/// What was erased of a command, by whom and why; nothing when nothing was.
#[must_use]
pub fn redactions(redactions: &[Redaction]) -> String {
    let mut out = String::new();
    for redaction in redactions {
        let when = render::time(redaction.time);
        let what = counted(&redaction.texts);
        paragraph(
            &mut out,
            "erased",
            &format!("{what}, at entry {}, {when}", redaction.seq),
        );
        let consents: Vec<&str> = redaction.consents.iter().map(|who| who.as_str()).collect();
        row(
            &mut out,
            "by",
            &format!(
                "{} (change {}), legal basis {}",
                consents.join(", "),
                short::short(&redaction.change),
                redaction.legal_basis
            ),
        );
        match &redaction.reason {
            None => {}
            Some(Held::Here(reason)) => free_text(&mut out, "why", reason),
            Some(held) => row(&mut out, "why", absent(held)),
        }
    }
    out
}

/// Legal holds in force.
#[must_use]
pub fn holds(items: &[HoldShape]) -> String {
    let rows = items.iter().map(|item| {
        vec![
            item.hold.clone(),
            item.commands.len().to_string(),
            item.agent.clone().unwrap_or_default(),
            item.requester.clone().unwrap_or_default(),
            item.since.to_string(),
        ]
    });
    let headings = ["HOLD", "COMMANDS", "ON HOST", "ASKED BY", "SINCE ENTRY"];
    table(&headings, rows.collect())
}
