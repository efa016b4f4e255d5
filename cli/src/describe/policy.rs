//! Words for people: what a policy says of requests. Only escaped text leaves this file.

use countersign_policy::{Effect, RuleChange, RuleSummary};
use countersign_protocol::key::fingerprint;
use countersign_protocol::permission::Whom;
use countersign_protocol::short;

use super::command::{paragraph, row, table};
use super::requirement::{price, whom};
use crate::acts::{Explained, Price, Ruling, SeatsView, SnapshotDraft, SnapshotStep, WhatIf};
use crate::render;

/// Columns of a command's words in a table.
const WORDS_COLUMNS: usize = 60;

/// `policy explain`
#[must_use]
pub fn explained(view: &Explained) -> String {
    let mut out = String::new();
    match &view.outcome {
        Ok(needed) => {
            row(&mut out, "permitted", "yes");
            paragraph(&mut out, "needs", &price(&needed.requirement));
            who(&mut out, needed);
        }
        Err(refusal) => {
            row(&mut out, "permitted", "no");
            paragraph(&mut out, "because", &refusal.to_string());
        }
    }
    rules(&mut out, "permits", &view.rules.permits);
    rules(&mut out, "forbids", &view.rules.forbids);
    rules(&mut out, "nearly", &view.rules.near);
    for agent in &view.drained {
        let text = format!("{agent} is drained: nothing can be asked of it until it is undrained");
        row(&mut out, "note", &text);
    }
    out
}

/// Who could approve, seat by seat, and whether they would be enough.
fn who(out: &mut String, price: &Price) {
    for demand in &price.demands {
        for seats in demand {
            paragraph(out, "seats", &seats_line(seats));
        }
    }
    if price.requirement.break_glass.is_some() {
        return;
    }
    if price.can_be_met {
        return;
    }
    let text = "NOBODY CAN MEET THIS: too few people with a key in force have a seat, so it would never run";
    row(out, "note", text);
}

fn seats_line(seats: &SeatsView) -> String {
    let from: Vec<String> = seats.from.iter().map(whom).collect();
    let people: Vec<&str> = seats.people.iter().map(|who| who.as_str()).collect();
    let people = if people.is_empty() {
        "nobody now".to_owned()
    } else {
        people.join(", ")
    };
    format!("{} of {}: {people}", seats.approvals, from.join(", "))
}

fn rules(out: &mut String, what: &str, rules: &[RuleSummary]) {
    for rule in rules {
        let line = format!("{} (line {}) {}", rule.name, rule.line, costs(rule));
        paragraph(out, what, line.trim_end());
    }
}

/// A rule's price as it was written: `@approvals(2) @from(sre)`.
fn costs(rule: &RuleSummary) -> String {
    let notes = rule.annotations.iter();
    let notes: Vec<String> = notes
        .map(|(name, value)| format!("@{name}({value})"))
        .collect();
    notes.join(" ")
}

const fn effect(rule: &RuleSummary) -> &'static str {
    match rule.effect {
        Effect::Permit => "permit",
        Effect::Forbid => "forbid",
    }
}

/// `policy check`: the rules and what they cost.
#[must_use]
pub fn rule_table(rules: &[RuleSummary]) -> String {
    let rows = rules.iter().map(|rule| {
        vec![
            rule.line.to_string(),
            rule.name.to_string(),
            effect(rule).to_owned(),
            costs(rule),
        ]
    });
    table(&["LINE", "RULE", "", "COSTS"], rows.collect())
}

/// `policy diff`: rule by rule, the old text and the new one.
#[must_use]
pub fn rule_changes(changes: &[RuleChange]) -> String {
    let mut out = String::new();
    for change in changes {
        let (word, old, new) = match change {
            RuleChange::Added(new) => ("added", None, Some(new)),
            RuleChange::Removed(old) => ("removed", Some(old), None),
            RuleChange::Changed { old, new } => ("changed", Some(old), Some(new)),
        };
        if let Some(rule) = new.or(old) {
            out.push_str(&format!("{word}: {} {}\n", effect(rule), rule.name));
        }
        for (mark, rule) in [("  - ", old), ("  + ", new)] {
            if let Some(rule) = rule {
                out.push_str(&render::block(rule.text.trim_end(), mark));
            }
        }
    }
    out
}

/// A judgement in a few words.
#[must_use]
pub fn ruling(ruling: &Ruling) -> String {
    match ruling {
        Ok(needed) => format!("permitted: {}", price(needed)),
        Err(refusal) => format!("denied: {refusal}"),
    }
}

/// `policy replay`
#[must_use]
pub fn what_if(found: &WhatIf) -> String {
    let rows = found.otherwise.iter().map(|found| {
        vec![
            short::short(&found.id),
            render::time(found.time),
            found.requester.to_string(),
            render::cut(&render::words(&found.argv), WORDS_COLUMNS),
            ruling(&found.before),
            ruling(&found.after),
        ]
    });
    let headings = ["ID", "WHEN", "ASKED BY", "COMMAND", "WAS", "WOULD BE"];
    table(&headings, rows.collect())
}

/// What an administrator would sign for the hosts.
#[must_use]
pub fn snapshot(draft: &SnapshotDraft) -> String {
    let snapshot = &draft.snapshot;
    let mut out = match draft.step {
        SnapshotStep::New => "a new policy snapshot for the hosts\n".to_owned(),
        SnapshotStep::Join | SnapshotStep::Signed => {
            let names: Vec<&str> = draft.signed_by.iter().map(|who| who.as_str()).collect();
            format!(
                "the policy snapshot that {} signed; your rights give the same\n",
                names.join(", ")
            )
        }
    };
    let mut line = |name: &str, value: String| out.push_str(&format!("{name:<10} {value}\n"));
    line("from", format!("a log of {} entries", snapshot.seen.size));
    line("policy", format!("of entry {}", snapshot.policy.seq));
    line("until", render::time(draft.expires_at));
    line(
        "at least",
        format!("{} distinct people", snapshot.min_approvals),
    );
    line("revoked", format!("{} keys", snapshot.revoked.len()));
    for approver in &snapshot.approvers {
        let keys: Vec<String> = approver
            .keys
            .iter()
            .map(|key| fingerprint(&key.key_id))
            .collect();
        line(
            "approver",
            format!("{}  {}", approver.principal, keys.join(" ")),
        );
    }
    for membership in &snapshot.members {
        if matches!(membership.of, Whom::Group(_) | Whom::Role(_)) {
            let people: Vec<&str> = membership.people.iter().map(|who| who.as_str()).collect();
            let of = membership.of.to_string();
            line("who", format!("{of}: {}", people.join(", ")));
        }
    }
    out
}
