//! A command as its verified entries tell it: what was asked, who said what, what came out.
//!
//! Nothing here is a server's word. What the caller may not read, or what was erased, is marked as
//! such and never passed off as empty.

use std::collections::BTreeMap;
use std::sync::Arc;

use countersign_protocol::blob::{BlobRef, MAX_BLOB_BYTES};
use countersign_protocol::canonical;
use countersign_protocol::command::{ActionStep, CommandError, CommandSpec, Environment};
use countersign_protocol::event::{Event, Stream};
use countersign_protocol::fold::State;
use countersign_protocol::hash::{CommandId, Digest, KeyId};
use countersign_protocol::lifecycle::Command;
use countersign_protocol::name::{AgentName, Principal, Time};
use countersign_protocol::quorum::Requirement;
use countersign_protocol::refusal::Refusal;
use countersign_protocol::secret::{SealedSecrets, SecretError};
use countersign_protocol::view::{self, Written};

use crate::acts::{Redaction, Retried};
use crate::failure::Failure;
use crate::streams::{Blobs, Held, Link};

/// Why verified entries make no command that can be shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ViewError {
    /// The documents do not say what was signed.
    #[error("what the request names does not fit it: {0}")]
    Document(#[from] CommandError),
    /// The same of its secrets.
    #[error("the secrets that the request names do not fit it: {0}")]
    Secrets(#[from] SecretError),
    /// The request itself is not there.
    #[error("the command's request is missing")]
    NoRequest,
}

impl From<ViewError> for Failure {
    fn from(error: ViewError) -> Self {
        Self::tampering("contradiction", error.to_string())
            .hint("nothing was signed; audit the ledger (verify)")
    }
}

/// What a person did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Said yes.
    Approved,
    /// Said no.
    Rejected,
    /// Took it back.
    Withdrew,
    /// Asked to stop it.
    Cancelled,
    /// No further host has its turn for now.
    Paused,
    /// It goes on after a pause.
    Resumed,
    /// It goes on after the canary.
    Continued,
}

/// A person's word on a command.
#[derive(Debug, Clone)]
pub struct Word {
    /// What they did.
    pub deed: Deed,
    /// Who.
    pub principal: Principal,
    /// With which key.
    pub key_id: KeyId,
    /// Where it stands.
    pub seq: u64,
    /// When it was entered.
    pub time: Time,
    /// Why, if they said so.
    pub reason: Option<Held<String>>,
}

/// A piece of output, in the order it was written.
#[derive(Debug, Clone)]
pub struct Piece {
    /// Which stream.
    pub stream: Stream,
    /// Microseconds from the start of its run to its first byte, by the host's clock.
    pub offset_us: u64,
    /// How many bytes it has, also when they are not here.
    pub len: u64,
    /// The bytes.
    pub bytes: Held<Arc<Vec<u8>>>,
}

/// What one host's run wrote.
#[derive(Debug, Clone, Default)]
pub struct Output {
    /// In order.
    pub pieces: Vec<Piece>,
}

impl Output {
    /// One stream's bytes, as far as they are here.
    #[must_use]
    pub fn bytes(&self, stream: Stream) -> Vec<u8> {
        let pieces = self.pieces.iter().filter(|piece| piece.stream == stream);
        let here = pieces.filter_map(|piece| piece.bytes.here());
        here.flat_map(|bytes| bytes.iter().copied()).collect()
    }

    /// Whether every piece is here.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.pieces.iter().all(|piece| piece.bytes.here().is_some())
    }

    /// Both streams, as far as they are here.
    #[must_use]
    pub fn written(&self) -> Written {
        Written {
            stdout: self.bytes(Stream::Stdout),
            stderr: self.bytes(Stream::Stderr),
            is_cut: !self.is_whole(),
        }
    }
}

/// The word for an output stream.
#[must_use]
pub const fn stream_word(stream: Stream) -> &'static str {
    match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    }
}

/// What a host runs, as it said before it did.
#[derive(Debug, Clone)]
pub struct Start {
    /// The program's path; of an action, that of its first step.
    pub path: Held<String>,
    /// The program's SHA-256.
    pub sha256: Digest,
    /// The steps of an action. None where they are of no form that this client knows.
    pub steps: Option<Held<Option<Vec<ActionStep>>>>,
}

/// A command, verified from bytes.
#[derive(Debug, Clone)]
pub struct CommandView {
    /// Its state, folded.
    pub command: Command,
    /// What runs.
    pub spec: Held<CommandSpec>,
    /// With which variables, if it sets some.
    pub env: Option<Held<Environment>>,
    /// Standard input, if it brings some.
    pub stdin: Option<Held<Vec<u8>>>,
    /// What it hands over that only its hosts can read, if it does.
    pub secrets: Option<Held<SealedSecrets>>,
    /// Why it was asked for.
    pub reason: Held<String>,
    /// What people said, in order.
    pub words: Vec<Word>,
    /// What its hosts wrote.
    pub outputs: BTreeMap<AgentName, Output>,
    /// What its hosts say in free text: why they would not, or what could not be started.
    pub texts: BTreeMap<Digest, Held<String>>,
    /// What its hosts run, where they said so.
    pub starts: BTreeMap<AgentName, Start>,
    /// What was required when it was authorized; while it waits, what is required now, or why
    /// nothing that people say would suffice.
    pub requirement: Result<Requirement, Refusal>,
    /// The command that it runs again, where it is a retry and was read with it.
    pub retried: Option<Retried>,
    /// What was erased of it, by whom and why, where the rights were read too.
    pub redactions: Vec<Redaction>,
    /// The entries it was read from, in order.
    pub entries: Vec<Link>,
    /// Size of the believed checkpoint that covers them all.
    pub size: u64,
}

impl CommandView {
    /// Puts together what the entries and their blobs say.
    ///
    /// # Errors
    /// See [`ViewError`].
    pub fn new(
        id: CommandId,
        state: &State,
        entries: Vec<Link>,
        blobs: &Blobs,
        size: u64,
    ) -> Result<Self, ViewError> {
        let command = state.command(&id).ok_or(ViewError::NoRequest)?.clone();
        let act = command.act().clone();
        let spec = transpose(blobs.content(&act.spec), |document| {
            CommandSpec::parse(&document, &act)
        })?;
        let env = match &act.env {
            Some(named) => Some(transpose(blobs.content(named), |document| {
                Environment::parse(&document)
            })?),
            None => None,
        };
        let stdin = act.stdin.as_ref().map(|named| blobs.content(named));
        let secrets = match &act.secrets {
            Some(named) => Some(transpose(blobs.content(named), |document| {
                SealedSecrets::parse(&document, &act)
            })?),
            None => None,
        };
        let reason = text(blobs, &command.request.reason);
        let mut view = Self {
            spec,
            env,
            stdin,
            secrets,
            reason,
            words: Vec::new(),
            outputs: BTreeMap::new(),
            texts: BTreeMap::new(),
            starts: BTreeMap::new(),
            requirement: state.requirement(&command),
            retried: None,
            redactions: Vec::new(),
            entries: Vec::new(),
            size,
            command,
        };
        for link in &entries {
            view.take(link, blobs);
        }
        view.entries = entries;
        Ok(view)
    }

    fn take(&mut self, link: &Link, blobs: &Blobs) {
        if let Some(word) = word_of(link, blobs) {
            self.words.push(word);
            return;
        }
        let event = link.entry.verified.event();
        if matches!(
            event,
            Event::ExecutionRefused(_) | Event::ExecutionCompleted(_)
        ) {
            let texts = event.blobs().into_iter();
            let texts = texts.map(|named| (named.digest, text(blobs, &named)));
            self.texts.extend(texts);
        } else if let Event::ExecutionStarted(started) = event {
            let steps = started.steps.map(|named| steps(blobs, &named));
            let start = Start {
                path: text(blobs, &started.program.path),
                sha256: started.program.sha256,
                steps,
            };
            self.starts.insert(started.agent.clone(), start);
        } else if let Event::ExecutionOutput(chunk) = event {
            let output = self.outputs.entry(chunk.agent.clone()).or_default();
            output.pieces.push(Piece {
                stream: chunk.stream,
                offset_us: chunk.offset_us,
                len: chunk.data.len,
                bytes: blobs.shared(&chunk.data),
            });
        } else if let Event::CommandAuthorized(authorized) = event {
            self.requirement = Ok(authorized.requirement.clone());
        }
    }

    /// Whether a host's output, where all of it is here, is not what that host says of it at the end. What
    /// one host says of itself is no reason not to look at the others, or not to stop them.
    #[must_use]
    pub fn is_contradicted(&self, agent: &AgentName) -> bool {
        let part = self.command.executions.get(agent);
        let done = part.and_then(|part| part.completed.as_ref());
        let written = || self.outputs.get(agent).map(Output::written);
        done.is_some_and(|done| view::contradicts(done, &written().unwrap_or_default()))
    }

    /// The command's id.
    #[must_use]
    pub const fn id(&self) -> CommandId {
        self.command.id
    }

    /// Whether everything that would run is here to be looked at.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.spec.here().is_some()
            && self.env.as_ref().is_none_or(|env| env.here().is_some())
            && self
                .stdin
                .as_ref()
                .is_none_or(|stdin| stdin.here().is_some())
            && self
                .secrets
                .as_ref()
                .is_none_or(|secrets| secrets.here().is_some())
            && self.command.targets.is_some()
    }
}

fn transpose<T, E>(
    held: Held<Vec<u8>>,
    parse: impl FnOnce(Vec<u8>) -> Result<T, E>,
) -> Result<Held<T>, E> {
    Ok(match held {
        Held::Here(document) => Held::Here(parse(document)?),
        Held::Redacted => Held::Redacted,
        Held::Withheld => Held::Withheld,
    })
}

fn text(blobs: &Blobs, named: &BlobRef) -> Held<String> {
    let content = blobs.content(named);
    content.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn steps(blobs: &Blobs, named: &BlobRef) -> Held<Option<Vec<ActionStep>>> {
    let document = blobs.content(named);
    document.map(|document| canonical::from_document(&document, MAX_BLOB_BYTES).ok())
}

fn word_of(link: &Link, blobs: &Blobs) -> Option<Word> {
    let event = link.entry.verified.event();
    let (deed, principal, reason) = if let Event::CommandApproved(word) = event {
        (Deed::Approved, &word.principal, word.reason)
    } else if let Event::CommandRejected(word) = event {
        (Deed::Rejected, &word.principal, word.reason)
    } else if let Event::CommandWithdrawn(word) = event {
        (Deed::Withdrew, &word.principal, word.reason)
    } else if let Event::CommandCancelRequested(word) = event {
        (Deed::Cancelled, &word.principal, word.reason)
    } else if let Event::RolloutPaused(word) = event {
        (Deed::Paused, &word.principal, word.reason)
    } else if let Event::RolloutResumed(word) = event {
        (Deed::Resumed, &word.principal, word.reason)
    } else if let Event::RolloutContinued(word) = event {
        (Deed::Continued, &word.principal, word.reason)
    } else {
        return None;
    };
    Some(Word {
        deed,
        principal: principal.clone(),
        key_id: event.header().signer,
        seq: link.entry.seq,
        time: link.entry.time,
        reason: reason.map(|named| text(blobs, &named)),
    })
}
