//! The JSON lines of `run --jsonl` and `logs --jsonl`: one object a line, as things happen.
//!
//! Each has `v`, the version of these shapes, and `type`. New types and new fields may come; readers
//! skip what they do not know. Another meaning of one that is here is another `v`.

use countersign_protocol::api::Base64;
use countersign_protocol::event::{Author, Event, Stream};
use countersign_protocol::hash::CommandId;
use countersign_protocol::lifecycle::Execution;
use countersign_protocol::name::AgentName;
use countersign_protocol::short;
use countersign_protocol::target::Place;
use countersign_protocol::view::Skipped;
use serde::Serialize;

use super::CommandShape;
use crate::alike::Verdict;
use crate::console::base64;
use crate::describe;
use crate::streams::Link;
use crate::view::stream_word;

/// The version of these shapes.
const VERSION: u8 = 1;

/// One line.
#[derive(Debug, Serialize)]
pub struct LineShape<'a> {
    v: u8,
    #[serde(flatten)]
    what: What<'a>,
}

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum What<'a> {
    /// It stands in the log and waits.
    Requested {
        id: String,
        short: String,
        hosts: Vec<String>,
    },
    /// An entry of the command; output has lines of its own.
    Event {
        seq: u64,
        /// When it was entered: microseconds since 1970.
        time_us: u64,
        /// `command.approved`
        kind: &'static str,
        /// Who said it; null for the ledger.
        by: Option<&'a str>,
    },
    /// A host runs it.
    Started {
        host: &'a str,
        seq: u64,
        time_us: u64,
    },
    /// Bytes that a host's run wrote.
    Output {
        host: &'a str,
        stream: &'static str,
        /// Where they are UTF-8.
        #[serde(skip_serializing_if = "Option::is_none")]
        text: Option<&'a str>,
        /// Where they are not.
        #[serde(skip_serializing_if = "Option::is_none")]
        base64: Option<Base64>,
    },
    /// Bytes that the caller may not read, or that were erased.
    Hidden { host: &'a str, bytes: u64 },
    /// A host's part is over, whether it ran or not.
    Completed {
        host: &'a str,
        /// `ok`, `failed`, `refused`, `skipped`, `cancelled`, `lost`
        came: Verdict,
        /// Where it exited.
        exit_code: Option<u8>,
        /// Where a signal ended it.
        signal: Option<u8>,
        /// How the run ended, for people; null where there was none.
        end: Option<String>,
        /// Why it never started: `errors`, `turn_missed` or `expired`; null where it was not skipped.
        skipped: Option<Skipped>,
    },
    /// The last line: all of it, proved; as `show --json`.
    Summary { command: Box<CommandShape> },
}

impl<'a> LineShape<'a> {
    const fn new(what: What<'a>) -> Self {
        Self { v: VERSION, what }
    }

    /// It was asked for.
    #[must_use]
    pub fn requested(id: &CommandId, places: &[Place]) -> Self {
        let host = |place: &Place| match &place.service {
            Some(service) => format!("{}/{service}", place.agent),
            None => place.agent.to_string(),
        };
        Self::new(What::Requested {
            id: id.to_string(),
            short: short::short(id),
            hosts: places.iter().map(host).collect(),
        })
    }

    /// An entry that is no output.
    #[must_use]
    pub fn event(link: &'a Link) -> Self {
        let event = link.entry.verified.event();
        let (seq, time_us) = (link.entry.seq, link.entry.time.as_micros());
        if let Event::ExecutionStarted(started) = event {
            return Self::new(What::Started {
                host: started.agent.as_str(),
                seq,
                time_us,
            });
        }
        Self::new(What::Event {
            seq,
            time_us,
            kind: event.kind().as_str(),
            by: match event.header().author {
                Author::Ledger => None,
                Author::Person(principal) => Some(principal.as_str()),
                Author::Agent(agent) => Some(agent.as_str()),
            },
        })
    }

    /// Bytes of a host.
    #[must_use]
    pub fn output(agent: &'a AgentName, stream: Stream, bytes: &'a [u8]) -> Self {
        let text = str::from_utf8(bytes).ok();
        Self::new(What::Output {
            host: agent.as_str(),
            stream: stream_word(stream),
            text,
            base64: text.is_none().then(|| base64(bytes)),
        })
    }

    /// Bytes that are not here.
    #[must_use]
    pub fn hidden(agent: &'a AgentName, bytes: u64) -> Self {
        let host = agent.as_str();
        Self::new(What::Hidden { host, bytes })
    }

    /// A host's part is over.
    #[must_use]
    pub fn completed(agent: &'a AgentName, part: &Execution) -> Self {
        let done = part.completed.as_ref();
        Self::new(What::Completed {
            host: agent.as_str(),
            came: Verdict::of(part),
            exit_code: done.and_then(|done| done.exit_code),
            signal: done.and_then(|done| done.signal),
            end: done.map(describe::end),
            skipped: Skipped::of(part),
        })
    }

    /// All of it.
    #[must_use]
    pub fn summary(command: CommandShape) -> Self {
        let command = Box::new(command);
        Self::new(What::Summary { command })
    }
}
