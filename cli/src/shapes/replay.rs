//! The JSON of `replay`: every piece of output, exact, and when it came.

use countersign_protocol::api::Base64;
use countersign_protocol::name::AgentName;
use countersign_protocol::short;
use serde::Serialize;

use crate::console::base64;
use crate::playback::{self, Cue};
use crate::view::{CommandView, stream_word};

/// `replay`
#[derive(Debug, Serialize)]
pub struct ReplayShape {
    id: String,
    short: String,
    status: &'static str,
    runs: Vec<RunShape>,
    pieces: Vec<PieceShape>,
}

/// A host's run that has begun.
#[derive(Debug, Serialize)]
pub struct RunShape {
    agent: String,
    /// When it began, by the ledger's clock: microseconds since 1970.
    started_us: u64,
}

/// A piece of output, in the order in which all of them came.
#[derive(Debug, Serialize)]
pub struct PieceShape {
    agent: String,
    /// `stdout`, `stderr`
    stream: &'static str,
    /// Microseconds since the start of its run, as its host signed it.
    offset_us: u64,
    /// Its bytes' number.
    len: u64,
    /// Its bytes; null when they were erased or the caller may not read them.
    data: Option<Base64>,
}

fn piece(cue: &Cue<'_>) -> PieceShape {
    PieceShape {
        agent: cue.agent.to_string(),
        stream: stream_word(cue.piece.stream),
        offset_us: cue.piece.offset_us,
        len: cue.piece.len,
        data: cue.piece.bytes.here().map(|bytes| base64(bytes)),
    }
}

/// `replay` of a command, of all its hosts or of one.
#[must_use]
pub fn replayed(view: &CommandView, only: Option<&AgentName>) -> ReplayShape {
    let agents = view.command.executions.keys();
    let agents = agents.filter(|agent| only.is_none_or(|only| only == *agent));
    let runs = agents.filter_map(|agent| {
        let started_us = playback::started(view, agent)?.as_micros();
        let agent = agent.to_string();
        Some(RunShape { agent, started_us })
    });
    ReplayShape {
        id: view.id().to_string(),
        short: short::short(&view.id()),
        status: view.command.status().as_str(),
        runs: runs.collect(),
        pieces: playback::timeline(view, only).iter().map(piece).collect(),
    }
}
