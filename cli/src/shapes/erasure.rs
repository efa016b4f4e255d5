//! The JSON of erasing and of legal holds.

use countersign_protocol::name::HoldName;
use countersign_protocol::rights::{HoldRecord, Rights};
use serde::Serialize;

use super::JudgedShape;
use crate::acts::{Redaction, Text};
use crate::streams::Held;

/// A text of a command.
#[derive(Debug, Serialize)]
pub struct TextShape {
    /// Its digest.
    pub digest: String,
    /// Its length.
    pub len: u64,
    /// `script`, `env`, `stdin`, `reason`, `output`, `detail`
    pub kind: &'static str,
    /// The host that said it.
    pub agent: Option<String>,
    /// The entry that names it.
    pub seq: u64,
}

/// `show`: what was erased of a command.
#[derive(Debug, Serialize)]
pub struct RedactionShape {
    /// The entry.
    pub seq: u64,
    /// Its time.
    pub time_us: u64,
    /// The change that it rests on.
    pub change: String,
    /// By which law or rule.
    pub legal_basis: String,
    /// Who consented, the requester first.
    pub consents: Vec<String>,
    /// Why; null where that may not be read.
    pub reason: Option<String>,
    /// Which texts.
    pub texts: Vec<TextShape>,
}

/// `redact`: what was asked for.
#[derive(Debug, Serialize)]
pub struct ErasingShape {
    /// The command.
    pub command: String,
    /// What is to be erased.
    pub texts: Vec<TextShape>,
    /// The changes that were asked for; none where nothing was signed.
    pub changes: Vec<JudgedShape>,
}

/// `retention`: what a rule proposes of a command.
#[derive(Debug, Serialize)]
pub struct ProposalShape {
    /// The rule.
    pub rule: String,
    /// The command.
    pub command: String,
    /// `XXXX-XXXX`
    pub short: String,
    /// By which law or rule.
    pub legal_basis: String,
    /// What would be erased.
    pub texts: Vec<TextShape>,
    /// The hold that forbids it, and then nothing is asked for.
    pub held: Option<String>,
    /// The changes that were asked for.
    pub changes: Vec<JudgedShape>,
}

/// `hold list`
#[derive(Debug, Serialize)]
pub struct HoldShape {
    /// Its name.
    pub hold: String,
    /// Commands by their ids.
    pub commands: Vec<String>,
    /// All that were to run on this host.
    pub agent: Option<String>,
    /// All that this one asked for.
    pub requester: Option<String>,
    /// The entry that placed it.
    pub since: u64,
}

/// A text.
#[must_use]
pub fn text(text: &Text) -> TextShape {
    TextShape {
        digest: text.digest.to_string(),
        len: text.len,
        kind: text.kind.as_str(),
        agent: text.agent.as_ref().map(ToString::to_string),
        seq: text.seq,
    }
}

/// What was erased.
#[must_use]
pub fn redactions(redactions: &[Redaction]) -> Vec<RedactionShape> {
    let shape = |redaction: &Redaction| RedactionShape {
        seq: redaction.seq,
        time_us: redaction.time.as_micros(),
        change: redaction.change.to_string(),
        legal_basis: redaction.legal_basis.to_string(),
        consents: redaction.consents.iter().map(ToString::to_string).collect(),
        reason: redaction.reason.as_ref().and_then(Held::here).cloned(),
        texts: redaction.texts.iter().map(text).collect(),
    };
    redactions.iter().map(shape).collect()
}

/// Legal holds in force.
#[must_use]
pub fn holds(rights: &Rights) -> Vec<HoldShape> {
    let holds = rights.legal_holds();
    let shape = |(name, hold): (&HoldName, &HoldRecord)| HoldShape {
        hold: name.to_string(),
        commands: hold.commands.iter().map(ToString::to_string).collect(),
        agent: hold.agent.as_ref().map(ToString::to_string),
        requester: hold.requester.as_ref().map(ToString::to_string),
        since: hold.since,
    };
    holds.map(shape).collect()
}
