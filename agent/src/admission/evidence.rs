//! Is it true? From the bytes of a stream to a command whose every word is proved.
//!
//! It owns signatures, places in the log, the fold of the command's own events, this host's line
//! and the documents behind digests. It must not weigh anything: whether the people who spoke
//! count on this host is `consent`'s.

use std::collections::BTreeMap;

use countersign_protocol::api::{Base64, Grant, ProvenEntry, StreamBody};
use countersign_protocol::audit::{self, CheckedEntry, Reason};
use countersign_protocol::blob::{Blob, BlobRef, MAX_BLOB_BYTES};
use countersign_protocol::canonical;
use countersign_protocol::checkpoint::Checkpoint;
use countersign_protocol::command::{Act, CommandError, CommandSpec, Environment};
use countersign_protocol::event::{Author, CommandAuthorized, CommandRequested, Event};
use countersign_protocol::facts::UseError;
use countersign_protocol::fold::{Refusal, Stream};
use countersign_protocol::hash::{CommandId, Digest, Hash, LedgerId};
use countersign_protocol::key::PublicKey;
use countersign_protocol::lifecycle::{Command, ExecutionStatus, Position, Stage};
use countersign_protocol::name::{AgentName, Principal, Time};
use countersign_protocol::proof::{self, ProofError};
use countersign_protocol::secret::{SealedSecrets, SecretError};
use countersign_protocol::target::{self, TargetLine};

use super::pipeline::Pins;
use crate::snapshot::People;

/// Most entries of one grant: a request, its approvals and a few words more.
pub const MAX_STREAM_ENTRIES: usize = 1024;

/// Why a grant is not believed. Nothing is run and nothing is said to the ledger.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unproven {
    /// No entries, or more than any command has.
    #[error("the stream has no entry, or more than any command")]
    Length,
    /// An entry does not hold by itself.
    #[error("entry {seq} does not hold: {reason}")]
    Entry {
        /// Where it says it stands.
        seq: u64,
        /// What is wrong.
        reason: Reason,
    },
    /// The entries are not in order, or not where they are said to be.
    #[error("entry {0} is out of order")]
    Order(u64),
    /// An entry is not in the log.
    #[error("entry {seq} is not proved to be in the log: {source}")]
    NotInLog {
        /// Which.
        seq: u64,
        /// Why.
        source: ProofError,
    },
    /// Meant for another ledger.
    #[error("entry {0} was signed for another ledger than the pinned one")]
    OtherLedger(u64),
    /// Of another command.
    #[error("entry {0} belongs to another command, or to none")]
    Foreign(u64),
    /// The stream does not begin with its request.
    #[error("the stream does not begin with a request")]
    NoRequest,
    /// A word of the ledger that the ledger did not sign.
    #[error("entry {0} speaks for the ledger and is not signed by its statement key")]
    NotTheLedger(u64),
    /// A pinned key speaks for somebody else, or a pinned person with an unknown key.
    #[error("the request by {0} is not signed with the key that this host knows them by")]
    Requester(Principal),
    /// The command's events do not follow from each other.
    #[error("entry {seq} may not follow: {source}")]
    Life {
        /// Which.
        seq: u64,
        /// Why.
        source: Refusal,
    },
    /// Not authorized, or over.
    #[error("the command is {0} and not to be run")]
    NotAuthorized(&'static str),
    /// The line is another host's, or not in the signed targets.
    #[error("this host, with this key, is no target of the command")]
    NotATarget,
    /// In a rollout: the ledger has not given this host its turn.
    #[error("the command goes over its hosts in turns, and it is not shown that this host has one")]
    NoTurn,
    /// In a rollout: another turn than this host's line says.
    #[error("the turn is not the one of this host's line")]
    OtherTurn,
    /// In a rollout: the end of the host before is not proved.
    #[error("this host's turn waits for another one's end: {0}")]
    HostBefore(&'static str),
    /// A document is missing, redacted or another than the one that was signed.
    #[error("the {0} is missing or is not what was signed")]
    Document(&'static str),
    /// A document is what was signed and still cannot be used.
    #[error("the {what} cannot be used: {source}")]
    Unusable {
        /// Which.
        what: &'static str,
        /// Why.
        source: CommandError,
    },
    /// The line's facts and the command's words do not fit together.
    #[error("the facts in this host's line cannot be put into the command: {0}")]
    Facts(#[source] UseError),
    /// The document of secrets is what was signed and still cannot be used.
    #[error("the sealed secrets cannot be used: {0}")]
    Secrets(#[source] SecretError),
}

/// Entries that hold and stand in the log, with the blobs that came along.
pub(crate) struct ProvenStream {
    entries: Vec<CheckedEntry>,
    blobs: BTreeMap<Digest, Blob>,
}

impl ProvenStream {
    /// Checks every entry by itself and its place in the log of `checkpoint`.
    pub(crate) fn prove(
        stream: &StreamBody,
        checkpoint: &Checkpoint,
        ledger: &LedgerId,
    ) -> Result<Self, Unproven> {
        if !(1..=MAX_STREAM_ENTRIES).contains(&stream.entries.len()) {
            return Err(Unproven::Length);
        }
        let mut entries: Vec<CheckedEntry> = Vec::with_capacity(stream.entries.len());
        for item in &stream.entries {
            let entry = prove_entry(item, checkpoint, ledger)?;
            let after = entries.last().is_none_or(|before| before.seq < entry.seq);
            if !after {
                return Err(Unproven::Order(item.seq));
            }
            entries.push(entry);
        }
        let blobs = stream
            .blobs
            .iter()
            .filter_map(|body| body.clone().into_blob())
            .map(|blob| (blob.reference().digest, blob))
            .collect();
        Ok(Self { entries, blobs })
    }

    /// The entries, ascending.
    pub(crate) fn entries(&self) -> &[CheckedEntry] {
        &self.entries
    }

    /// The bytes that a signed statement names.
    fn content(&self, named: &BlobRef, what: &'static str) -> Result<&[u8], Unproven> {
        self.blobs
            .get(&named.digest)
            .filter(|blob| blob.verify(named).is_ok())
            .map(Blob::content)
            .ok_or(Unproven::Document(what))
    }
}

/// One entry by itself, and its place in the log of `checkpoint`.
pub(super) fn prove_entry(
    item: &ProvenEntry,
    checkpoint: &Checkpoint,
    ledger: &LedgerId,
) -> Result<CheckedEntry, Unproven> {
    let seq = item.seq;
    let entry =
        audit::check_entry(&item.entry.0).map_err(|reason| Unproven::Entry { seq, reason })?;
    if entry.seq != seq {
        return Err(Unproven::Order(seq));
    }
    proof::verify_inclusion(
        &entry.leaf,
        seq,
        checkpoint.size(),
        &item.inclusion,
        &checkpoint.root(),
    )
    .map_err(|source| Unproven::NotInLog { seq, source })?;
    if entry.verified.event().header().ledger != Some(*ledger) {
        return Err(Unproven::OtherLedger(seq));
    }
    Ok(entry)
}

/// The time of the newest entry that the grant shows: its checkpoint is not older than that.
pub(crate) fn shown_at(
    grant: &Grant,
    stream: &ProvenStream,
    checkpoint: &Checkpoint,
    ledger: &LedgerId,
) -> Result<Option<Time>, Unproven> {
    let newest = grant.newest.as_ref();
    let newest = newest.map(|item| prove_entry(item, checkpoint, ledger));
    let last = stream.entries.last().map(|entry| entry.time);
    Ok(last.max(newest.transpose()?.map(|entry| entry.time)))
}

/// A command as the log has it, up to its authorization.
pub(crate) struct ProvenCommand {
    pub(crate) command: Command,
    pub(crate) authorized: CommandAuthorized,
}

/// Folds the stream through the same state machine that the ledger uses.
pub(crate) fn fold(
    stream: &ProvenStream,
    pins: &Pins,
    people: &People<'_>,
) -> Result<ProvenCommand, Unproven> {
    let (first, rest) = stream.entries.split_first().ok_or(Unproven::Length)?;
    let Event::CommandRequested(request) = first.verified.event() else {
        return Err(Unproven::NoRequest);
    };
    check_requester(request, first.verified.key(), pins, people)?;
    let id = first.verified.id();
    let mut command = Command::open(request.clone(), None, None, position(first));
    let mut authorized = None;
    for entry in rest {
        let (seq, event) = (entry.seq, entry.verified.event());
        if Stream::of(event, entry.verified.id()) != Some(Stream::Command(id)) {
            return Err(Unproven::Foreign(seq));
        }
        let for_ledger = event.header().author == Author::Ledger;
        if for_ledger && *entry.verified.key() != pins.statement_key {
            return Err(Unproven::NotTheLedger(seq));
        }
        // What other hosts did with it is not this host's to judge.
        if event.host().is_some_and(|agent| *agent != pins.agent) {
            continue;
        }
        command
            .next(event, position(entry))
            .map_err(|source| Unproven::Life { seq, source })?;
        if let Event::CommandAuthorized(event) = event {
            authorized = Some(event.clone());
        }
    }
    check_stage(&command, &pins.agent)?;
    Ok(ProvenCommand {
        command,
        authorized: authorized.ok_or(Unproven::NotAuthorized("not authorized"))?,
    })
}

fn position(entry: &CheckedEntry) -> Position {
    Position {
        seq: entry.seq,
        time: entry.time,
        id: entry.verified.id(),
    }
}

/// The requester need not be known here. Who is known must be the one they say they are, or one
/// person could ask under a second name and then approve. Who asks by an API token is nobody whom
/// this host knows, whatever the name: the gateway signs then, and nobody else does.
fn check_requester(
    request: &CommandRequested,
    key: &PublicKey,
    pins: &Pins,
    people: &People<'_>,
) -> Result<(), Unproven> {
    let principal = &request.principal;
    let by_gateway = pins.gateway_key.as_ref() == Some(key);
    let honest = match (&request.token, people.owner_of(key)) {
        (Some(_), None) => by_gateway,
        (Some(_), Some(_)) => false,
        (None, _) if by_gateway => false,
        (None, Some(owner)) => owner == principal,
        (None, None) => !people.knows(principal),
    };
    if honest {
        Ok(())
    } else {
        Err(Unproven::Requester(principal.clone()))
    }
}

fn check_stage(command: &Command, agent: &AgentName) -> Result<(), Unproven> {
    if !matches!(command.stage, Stage::Authorized { .. }) || command.cancel.is_some() {
        let status = if command.cancel.is_some() {
            "cancelled"
        } else {
            command.status().as_str()
        };
        return Err(Unproven::NotAuthorized(status));
    }
    match command.executions.get(agent) {
        Some(execution) if execution.status != ExecutionStatus::Waiting => {
            Err(Unproven::NotAuthorized(execution.status.as_str()))
        }
        Some(_) | None => Ok(()),
    }
}

/// The grant's line, if it is this host's and one that people signed.
pub(crate) fn own_line(
    grant: &Grant,
    command: &Command,
    pins: &Pins,
) -> Result<TargetLine, Unproven> {
    let act = command.act();
    signed_line(&grant.line, (grant.line_index, &grant.line_proof), act)
        .filter(|line| {
            line.agent == pins.agent && line.key_id == pins.key_id && line.spec == act.spec.digest
        })
        .ok_or(Unproven::NotATarget)
}

/// A line at its place, if it is among those that people signed with the act.
pub(super) fn signed_line(
    line: &Base64,
    (index, proof): (u64, &[Hash]),
    act: &Act,
) -> Option<TargetLine> {
    let line: TargetLine = canonical::from_document(&line.0, MAX_BLOB_BYTES).ok()?;
    target::verify_line(&line, index, proof, &act.targets).ok()?;
    Some(line)
}

/// What would run, read from the very bytes that were signed for.
pub(crate) struct Documents {
    pub(crate) spec: CommandSpec,
    pub(crate) environment: Option<Environment>,
    pub(crate) stdin: Vec<u8>,
    pub(crate) secrets: Option<SealedSecrets>,
}

impl Documents {
    /// Finds and parses the documents that the act names.
    pub(crate) fn read(stream: &ProvenStream, command: &Command) -> Result<Self, Unproven> {
        let act = command.act();
        let unusable = |what| move |source| Unproven::Unusable { what, source };
        let spec = CommandSpec::parse(stream.content(&act.spec, "command spec")?, act)
            .map_err(unusable("command spec"))?;
        let environment = act
            .env
            .map(|named| {
                Environment::parse(stream.content(&named, "environment")?)
                    .map_err(unusable("environment"))
            })
            .transpose()?;
        let stdin = act
            .stdin
            .map(|named| stream.content(&named, "standard input").map(<[u8]>::to_vec))
            .transpose()?
            .unwrap_or_default();
        let secrets = act
            .secrets
            .map(|named| {
                let document = stream.content(&named, "document of sealed secrets")?;
                let secrets = SealedSecrets::parse(document, act).map_err(Unproven::Secrets)?;
                let bound = secrets.check_nonce(&command.request);
                bound.map_err(Unproven::Secrets)?;
                Ok(secrets)
            })
            .transpose()?;
        Ok(Self {
            spec,
            environment,
            secrets,
            stdin,
        })
    }
}

/// The command that a proven stream cancels, if a person whom this host knows asked for it; or the
/// gateway for an API token, where the host says that it may.
pub(crate) fn cancelled_by_known(
    stream: &ProvenStream,
    (pins, gateway_may): (&Pins, bool),
    people: &People<'_>,
    now: Time,
) -> Option<CommandId> {
    stream.entries().iter().find_map(|entry| {
        let event = entry.verified.event();
        let Event::CommandCancelRequested(cancel) = event else {
            return None;
        };
        let key = entry.verified.key();
        let by_gateway = pins.gateway_key.as_ref() == Some(key);
        let counts = match cancel.token {
            Some(_) => by_gateway && gateway_may,
            None => {
                let known = people.check(key, &cancel.principal, event.kind(), now);
                !by_gateway && known.is_ok()
            }
        };
        counts.then_some(cancel.command)
    })
}
