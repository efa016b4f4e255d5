//! What a command's texts are, which of them were erased, by whom and why; from verified entries.

use std::collections::{BTreeMap, BTreeSet};

use countersign_protocol::event::Event;
use countersign_protocol::hash::{CommandId, Digest, StatementId};
use countersign_protocol::name::{AgentName, LegalBasis, Principal, Time};

use super::change::ChangeView;
use super::connect::Client;
use super::read::RightsView;
use super::walk::Past;
use crate::failure::Failure;
use crate::streams::{Blobs, Held, Link};
use crate::view::CommandView;

/// What a text of a command is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TextKind {
    /// What runs: a script, or a program and its arguments.
    Script,
    /// The environment.
    Env,
    /// Standard input.
    Stdin,
    /// Names of secrets, and what they are sealed as.
    Secrets,
    /// Why somebody asked, agreed or refused.
    Reason,
    /// What a run wrote.
    Output,
    /// What a host says besides: the program's path, why it would not.
    Detail,
}

impl TextKind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Script,
        Self::Env,
        Self::Stdin,
        Self::Secrets,
        Self::Reason,
        Self::Output,
        Self::Detail,
    ];

    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Script => "script",
            Self::Env => "env",
            Self::Stdin => "stdin",
            Self::Secrets => "secrets",
            Self::Reason => "reason",
            Self::Output => "output",
            Self::Detail => "detail",
        }
    }
}

/// A text that an entry of a command names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub len: u64,
    /// What it is.
    pub kind: TextKind,
    /// The host that said it.
    pub agent: Option<AgentName>,
    /// The entry that names it.
    pub seq: u64,
}

/// The texts that a command's entries name, in their order, each once. Lists of targets are not among
/// them: they hold no free text and are never erased.
#[must_use]
pub fn texts(entries: &[Link]) -> Vec<Text> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for link in entries {
        let event = link.entry.verified.event();
        let seq = link.entry.seq;
        for named in event.blobs() {
            let Some((kind, agent)) = kind_of(event, named.digest) else {
                continue;
            };
            if seen.insert(named.digest) {
                found.push(Text {
                    digest: named.digest,
                    len: named.len,
                    kind,
                    agent: agent.cloned(),
                    seq,
                });
            }
        }
    }
    found
}

fn kind_of(event: &Event, digest: Digest) -> Option<(TextKind, Option<&AgentName>)> {
    let of_host = |kind, agent| Some((kind, Some(agent)));
    if let Event::CommandRequested(request) = event {
        let act = &request.act;
        if digest == act.targets.list.digest {
            return None;
        }
        let is = |named: Option<countersign_protocol::blob::BlobRef>| {
            named.is_some_and(|named| named.digest == digest)
        };
        let kind = if digest == act.spec.digest {
            TextKind::Script
        } else if is(act.env) {
            TextKind::Env
        } else if is(act.stdin) {
            TextKind::Stdin
        } else if is(act.secrets) {
            TextKind::Secrets
        } else {
            TextKind::Reason
        };
        Some((kind, None))
    } else if let Event::ExecutionOutput(chunk) = event {
        of_host(TextKind::Output, &chunk.agent)
    } else if let Event::ExecutionStarted(started) = event {
        of_host(TextKind::Detail, &started.agent)
    } else if let Event::ExecutionRefused(refused) = event {
        of_host(TextKind::Detail, &refused.agent)
    } else if let Event::ExecutionCompleted(completed) = event {
        of_host(TextKind::Detail, &completed.agent)
    } else {
        Some((TextKind::Reason, None))
    }
}

/// How many texts of which kind, in words: `3 of output, 1 of stdin`.
#[must_use]
pub fn counted<'a>(texts: impl IntoIterator<Item = &'a Text>) -> String {
    let mut counts: BTreeMap<(TextKind, Option<&AgentName>), (u64, u64)> = BTreeMap::new();
    for text in texts {
        let (count, bytes) = counts.entry((text.kind, text.agent.as_ref())).or_default();
        *count += 1;
        *bytes += text.len;
    }
    let line = |((kind, agent), (count, bytes)): (&(TextKind, Option<&AgentName>), &(u64, u64))| {
        let of = agent.map_or_else(String::new, |agent| format!(" of {agent}"));
        format!("{count} of {}{of} ({bytes} bytes)", kind.as_str())
    };
    let lines: Vec<String> = counts.iter().map(line).collect();
    lines.join(", ")
}

/// An entry that erased texts of a command, and the change that it rests on.
#[derive(Debug, Clone)]
pub struct Redaction {
    /// The entry.
    pub seq: u64,
    /// When.
    pub time: Time,
    /// The change.
    pub change: StatementId,
    /// By which law or rule.
    pub legal_basis: LegalBasis,
    /// Who asked for it.
    pub requester: Principal,
    /// Who consented, the requester first.
    pub consents: Vec<Principal>,
    /// Why.
    pub reason: Option<Held<String>>,
    /// Which texts.
    pub texts: Vec<Text>,
}

/// What was erased of a command's texts, from the proven rights.
///
/// # Errors
/// The change behind one is not to be had.
pub(super) fn redactions(rights: &RightsView, entries: &[Link]) -> Result<Vec<Redaction>, Failure> {
    if !rights.state.rights().has_redacted() {
        return Ok(Vec::new());
    }
    let named: BTreeMap<Digest, Text> = texts(entries)
        .into_iter()
        .map(|text| (text.digest, text))
        .collect();
    let mut found = Vec::new();
    for link in &rights.stream.entries {
        let Event::BlobRedacted(said) = link.entry.verified.event() else {
            continue;
        };
        let texts: Vec<Text> = said
            .digests
            .iter()
            .filter_map(|digest| named.get(digest).cloned())
            .collect();
        if texts.is_empty() {
            continue;
        }
        let ChangeView {
            requester,
            consents,
            reason,
            ..
        } = rights.change(&said.change)?;
        found.push(Redaction {
            seq: link.entry.seq,
            time: link.entry.time,
            change: said.change,
            legal_basis: said.legal_basis.clone(),
            requester,
            consents,
            reason,
            texts,
        });
    }
    Ok(found)
}

/// A text that the server says is erased, and that no entry of the rights says so of.
fn unsaid(rights: &RightsView, blobs: &Blobs) -> Option<Digest> {
    let held = rights.state.rights();
    let mut said = blobs.said_redacted();
    said.find(|digest| held.redacted(digest).is_none()).copied()
}

impl Client {
    /// A command as it was then, and what was erased of it: then, or since, because what is gone
    /// today is not to be had for any day.
    ///
    /// # Errors
    /// As [`Past::command`]; and a text that the server says is erased while no entry says so.
    pub async fn command_then(&self, past: &Past, id: &CommandId) -> Result<CommandView, Failure> {
        let mut view = past.command(id)?;
        let blobs = past.chronicle.blobs();
        let rights = self.require_said(past.rights(), blobs).await?;
        view.redactions = redactions(&rights, &view.entries)?;
        Ok(view)
    }

    /// Holds a server's word that texts are erased against the rights: those that are given, or, for
    /// what was erased since they were read, newer ones, which come back.
    pub(super) async fn require_said(
        &self,
        rights: RightsView,
        blobs: &Blobs,
    ) -> Result<RightsView, Failure> {
        if unsaid(&rights, blobs).is_none() {
            return Ok(rights);
        }
        let newer = self.rights().await?;
        match unsaid(&newer, blobs) {
            None => Ok(newer),
            Some(digest) => Err(Failure::tampering(
                "erased_unsaid",
                format!(
                    "the server says that the text {digest} was erased, and no entry of the log says so"
                ),
            )
            .hint("nothing was signed; audit the ledger (countersign verify)")),
        }
    }
}
