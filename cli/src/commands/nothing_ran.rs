//! `audit nothing-ran`: whether a host started nothing from one time to another, proved by its own signed
//! statements and the log.

use std::fmt::Write as _;

use clap::Args;
use countersign_protocol::audit::{Gap, NothingRan, RunFound};
use countersign_protocol::key::fingerprint;
use countersign_protocol::name::{AgentName, Time};
use countersign_protocol::short;
use serde::Serialize;

use super::{Globals, moment};
use crate::acts::Since;
use crate::failure::Failure;
use crate::{console, exit_code, render};

/// Gaps and runs that are told of one by one to people; `--json` has all of them.
const MOST_TOLD: usize = 20;

/// Which host, and from when to when.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  countersign audit nothing-ran --host web-1 --from 2026-01-01 --to 2026-02-01
  countersign audit nothing-ran --host web-1 --from 24h --to 1h --json

Reads the whole log and needs audit:read. Exit 0: proved; 1: not proved, and why; 3: the log was
tampered with. The proof is the host's own word, once an hour, bound to all that it ever started: it
says nothing of what runs there without countersign. To have the last hour too, ask the agent to speak
now: send it USR1.")]
pub(super) struct Arguments {
    /// The host
    #[arg(long, value_name = "HOST")]
    host: AgentName,
    /// From when: a time, a day, or how long ago
    #[arg(long, value_parser = moment::since, value_name = "T")]
    from: Since,
    /// Until when
    #[arg(long, value_parser = moment::since, value_name = "T")]
    to: Since,
}

#[derive(Serialize)]
struct Shape<'a> {
    proved: bool,
    host: &'a str,
    from_us: u64,
    to_us: u64,
    /// Entries that the log had.
    size: u64,
    /// Idle statements that speak of that time.
    statements: u64,
    keys: Vec<KeyShape>,
    gaps: Vec<GapShape>,
    runs: Vec<RunShape>,
    left_over: Vec<RunShape>,
}

#[derive(Serialize)]
struct KeyShape {
    key_id: String,
    since_seq: u64,
    from_us: u64,
    ended_seq: Option<u64>,
    to_us: Option<u64>,
}

#[derive(Serialize)]
struct GapShape {
    why: &'static str,
    from_us: u64,
    to_us: u64,
    key_id: Option<String>,
}

#[derive(Serialize)]
struct RunShape {
    command: String,
    started: String,
    seq: u64,
    from_us: u64,
    to_us: Option<u64>,
    tree_gone: bool,
}

impl From<&Gap> for GapShape {
    fn from(gap: &Gap) -> Self {
        Self {
            why: gap.key_id.map_or("no_key", |_| "silent"),
            from_us: gap.from.as_micros(),
            to_us: gap.to.as_micros(),
            key_id: gap.key_id.map(|key| key.to_string()),
        }
    }
}

impl From<&RunFound> for RunShape {
    fn from(run: &RunFound) -> Self {
        Self {
            command: run.command.to_string(),
            started: run.started.to_string(),
            seq: run.seq,
            from_us: run.from.as_micros(),
            to_us: run.to.map(Time::as_micros),
            tree_gone: run.tree_gone,
        }
    }
}

/// Says whether nothing ran.
pub(super) async fn nothing_ran(globals: &Globals, arguments: Arguments) -> Result<u8, Failure> {
    let (from, to) = (time(arguments.from)?, time(arguments.to)?);
    if from >= to {
        let text = "--from is not before --to, so there is no time to look at";
        return Err(Failure::usage(text).hint("give the earlier one as --from"));
    }
    let host = &arguments.host;
    let client = globals.connect().await?;
    let found = client.nothing_ran(host, (from, to), &mut |_, _| {}).await;
    let (found, size) = found?;
    if globals.json {
        console::print_json(&Shape {
            proved: found.is_proved(),
            host: host.as_str(),
            from_us: from.as_micros(),
            to_us: to.as_micros(),
            size,
            statements: found.statements,
            keys: keys(&found),
            gaps: found.gaps.iter().map(GapShape::from).collect(),
            runs: found.runs.iter().map(RunShape::from).collect(),
            left_over: found.left_over.iter().map(RunShape::from).collect(),
        })?;
    } else {
        console::print(&verdict(host, (from, to), &found))?;
    }
    Ok(if found.is_proved() {
        exit_code::DONE
    } else {
        exit_code::FAILED
    })
}

fn time(since: Since) -> Result<Time, Failure> {
    let none = || Failure::usage("no time is given");
    moment::time_of(Some(since))?.ok_or_else(none)
}

fn keys(found: &NothingRan) -> Vec<KeyShape> {
    let keys = found.keys.iter();
    keys.map(|life| KeyShape {
        key_id: life.key_id.to_string(),
        since_seq: life.since,
        from_us: life.from.as_micros(),
        ended_seq: life.ended.map(|(seq, _)| seq),
        to_us: life.ended.map(|(_, time)| time.as_micros()),
    })
    .collect()
}

/// The verdict in words.
fn verdict(host: &AgentName, (from, to): (Time, Time), found: &NothingRan) -> String {
    let (name, span) = (render::line(host.as_str()), span(from, to));
    let mut text = if found.is_proved() {
        format!(
            "proved: nothing ran on {name} {span}.\nIt has signed so in {} statement(s), which leave no \
             gap and name all that it ever started.\n",
            found.statements
        )
    } else {
        format!("not proved that nothing ran on {name} {span}:\n")
    };
    if found.keys.is_empty() {
        text.push_str("  the ledger has never accepted a host of this name\n");
        return text;
    }
    let runs: Vec<String> = found.runs.iter().map(run_in_words).collect();
    told(&mut text, &runs);
    let gaps: Vec<String> = found.gaps.iter().map(gap_in_words).collect();
    told(&mut text, &gaps);
    if !found.left_over.is_empty() {
        let count = found.left_over.len();
        let _ = writeln!(
            text,
            "note: of {count} run(s) that ended before, nobody has proved that no process was left over:"
        );
        let runs: Vec<String> = found.left_over.iter().map(run_in_words).collect();
        told(&mut text, &runs);
    }
    text
}

fn told(text: &mut String, lines: &[String]) {
    for line in lines.iter().take(MOST_TOLD) {
        let _ = writeln!(text, "  {line}");
    }
    if let Some(more @ 1..) = lines.len().checked_sub(MOST_TOLD) {
        let _ = writeln!(text, "  and {more} more; --json has all of them");
    }
}

fn span(from: Time, to: Time) -> String {
    format!("from {} to {}", render::time(from), render::time(to))
}

fn run_in_words(run: &RunFound) -> String {
    let id = short::short(&run.command);
    let begin = render::time(run.from);
    let end = match run.to {
        Some(end) => format!("until {}", render::time(end)),
        None => "and the log does not know of its end".to_owned(),
    };
    format!("{id} ran from {begin} {end} (entry {})", run.seq)
}

fn gap_in_words(gap: &Gap) -> String {
    let seconds = gap.to.micros_since(gap.from).div_ceil(1_000_000);
    let span = span(gap.from, gap.to);
    match gap.key_id {
        Some(key) => format!(
            "a gap of {seconds} s {span}: the host has said nothing of it (key {}); it was down, or has \
             not spoken yet",
            fingerprint(&key)
        ),
        None => format!("a gap of {seconds} s {span}: the ledger had no key of this host"),
    }
}
