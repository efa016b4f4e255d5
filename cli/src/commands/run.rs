//! `run`: ask, wait for people, stream both outputs, and exit as the command did.

use std::collections::BTreeMap;

use anstyle::{AnsiColor, Color, Style};
use clap::Args;
use countersign_protocol::event::{Outcome, Stream};
use countersign_protocol::hash::CommandId;
use countersign_protocol::lifecycle::{CommandStatus, Execution, ExecutionStatus};
use countersign_protocol::short;
use tokio::signal::unix::{SignalKind, signal};

use super::live::{Form, Live, Progress};
use super::{Globals, request};
use crate::acts::Client;
use crate::failure::Failure;
use crate::render::Escaper;
use crate::shapes::LineShape;
use crate::view::CommandView;
use crate::{alike, console, describe, exit_code, render, shapes};

/// As for `request`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  countersign run --on web-1 --reason 'is it up?' -- systemctl is-active nginx
  countersign run --on web-1,web-2 --reason T-7 -- uptime                # each line names its host
  countersign run --on web-1 --reason T-8 --action restart_service nginx.service
  countersign run --on web-1/app --reason T-9 -- ls /srv                 # in the service app of web-1
  countersign run --where 'group=web.dev and not web-3' --reason T-10 -- uptime
  countersign run --where group=web --reason T-13 -- /usr/bin/curl -sf http://@fact.hostname/health
  countersign run --where group=web --grouped --reason T-11 -- uname -r  # what is the same only once
  countersign run --where group=web --jsonl --reason T-12 -- uname -r | jq -r 'select(.type==\"completed\") | .host'

Exits with the command's own code, 128 + signal, 124 when its time was over, and 125 for everything
else (the reason is on stderr); of several hosts with the largest of these, so with 0 only if it is 0
on all of them. ^C stops the waiting, not the command: `countersign cancel` does.")]
pub struct Arguments {
    #[command(flatten)]
    request: request::RequestArguments,
    #[command(flatten)]
    watching: Watching,
}

impl Arguments {
    /// Whether standard output is JSON lines, errors too.
    pub(super) const fn is_jsonl(&self) -> bool {
        self.watching.jsonl
    }
}

/// How to wait for what comes of it.
#[derive(Debug, Clone, Args)]
pub(super) struct Watching {
    /// Give a terminal the output as it is, with all its control characters
    #[arg(long)]
    raw: bool,
    /// One JSON object a line on stdout, as things happen: requested, event, started, output,
    /// completed, summary (docs/API.md, JSON lines)
    #[arg(long, conflicts_with_all = ["raw", "grouped"])]
    pub(super) jsonl: bool,
    /// Print no output before the end, and then what hosts have in common only once
    #[arg(long)]
    grouped: bool,
    /// How far the hosts are, on stderr
    #[arg(long, value_enum, default_value = "auto", value_name = "WHEN")]
    progress: Progress,
}

/// Writes output as it comes: raw where a program reads it, escaped where a person does, and with
/// the host's name before each line when there are several.
#[derive(Debug)]
pub(super) struct Printer {
    raw: bool,
    prefixed: bool,
    only: Option<String>,
    silent: bool,
    coloured: bool,
    streams: BTreeMap<(String, Stream), Lane>,
}

/// What is held back of one host's stream.
#[derive(Debug, Default)]
struct Lane {
    escaper: Escaper,
    line: Vec<u8>,
}

/// Standard error on terminals, where it stands apart: what failed is red elsewhere too.
const STDERR_STYLE: Style = Style::new().fg_color(Some(Color::Ansi(AnsiColor::Red)));

/// Most bytes of a line that are held back to be written in one piece after its host's name.
const MAX_HELD_LINE: usize = 64 * 1024;

impl Printer {
    /// Raw wherever no terminal is, and there too if asked for.
    pub(super) const fn new(raw: bool, prefixed: bool) -> Self {
        Self {
            raw,
            prefixed,
            only: None,
            silent: false,
            coloured: false,
            streams: BTreeMap::new(),
        }
    }

    /// Only this host's output.
    pub(super) fn only(mut self, agent: Option<String>) -> Self {
        self.only = agent;
        self
    }

    /// Nothing at all: the result is JSON.
    pub(super) const fn silent(mut self, silent: bool) -> Self {
        self.silent = silent;
        self
    }

    /// Standard error in a colour of its own, where it is escaped and colours are welcome.
    pub(super) fn coloured(mut self) -> Self {
        self.coloured = !self.raw && console::has_colours(true);
        self
    }

    fn style(&self, to_stderr: bool) -> Style {
        if self.coloured && to_stderr {
            STDERR_STYLE
        } else {
            Style::new()
        }
    }

    /// The next bytes of a host's stream.
    pub(super) fn write(
        &mut self,
        agent: &str,
        stream: Stream,
        bytes: &[u8],
    ) -> Result<(), Failure> {
        if self.silent || self.only.as_deref().is_some_and(|only| only != agent) {
            return Ok(());
        }
        let to_stderr = stream == Stream::Stderr;
        let escaped = !self.raw && console::is_terminal(to_stderr);
        let style = self.style(to_stderr);
        let lane = self.streams.entry((agent.to_owned(), stream)).or_default();
        let shown = if escaped {
            lane.escaper.push(bytes).into_bytes()
        } else {
            bytes.to_vec()
        };
        if !self.prefixed {
            return write_styled(style, to_stderr, &[], &shown);
        }
        for piece in shown.split_inclusive(|byte| *byte == b'\n') {
            lane.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") || lane.line.len() >= MAX_HELD_LINE {
                lane.flush(agent, style, to_stderr)?;
            }
        }
        Ok(())
    }

    /// What is left at the end.
    pub(super) fn finish(&mut self) -> Result<(), Failure> {
        for ((agent, stream), mut lane) in std::mem::take(&mut self.streams) {
            let to_stderr = stream == Stream::Stderr;
            let rest = lane.escaper.finish();
            let style = self.style(to_stderr);
            if self.prefixed {
                lane.line.extend_from_slice(rest.as_bytes());
                if !lane.line.is_empty() {
                    lane.line.push(b'\n');
                    lane.flush(&agent, style, to_stderr)?;
                }
            } else {
                write_styled(style, to_stderr, &[], rest.as_bytes())?;
            }
        }
        Ok(())
    }
}

impl Lane {
    fn flush(&mut self, agent: &str, style: Style, to_stderr: bool) -> Result<(), Failure> {
        let line = std::mem::take(&mut self.line);
        let name = [b"[", agent.as_bytes(), b"] "].concat();
        write_styled(style, to_stderr, &name, &line)
    }
}

/// Writes a head as it is and a text in its style, in one piece: whoever stops us between two
/// pieces finds the terminal without a colour left on.
fn write_styled(style: Style, to_stderr: bool, head: &[u8], text: &[u8]) -> Result<(), Failure> {
    if text.is_empty() {
        return Ok(());
    }
    let (on, off) = (style.render().to_string(), style.render_reset().to_string());
    let styled = [head, on.as_bytes(), text, off.as_bytes()].concat();
    console::write_raw(to_stderr, &styled)
}

/// Runs.
pub(super) async fn run(globals: &Globals, arguments: Arguments) -> Result<u8, Failure> {
    let (yes, on) = (arguments.request.yes(), arguments.request.on());
    let mut spec = arguments.request.spec().await?;
    let client = globals.connect().await?;
    on.choose(&client, &mut spec).await?;
    request::may_break_glass(&client, &spec, yes).await?;
    let requested = client.request_telling(&spec, request::tell_runs).await?;
    if arguments.watching.jsonl {
        console::print_json(&LineShape::requested(&requested.id, &spec.targets))?;
    }
    let several = spec.targets.len() > 1;
    let asked = (requested.id, several, spec.break_glass);
    wait(globals, &client, asked, arguments.watching).await
}

/// Waits for what was asked for, and exits as it does.
pub(super) async fn wait(
    globals: &Globals,
    client: &Client,
    (id, several, break_glass): (CommandId, bool, bool),
    watching: Watching,
) -> Result<u8, Failure> {
    let interrupted = |error: std::io::Error| {
        Failure::failed("signals", format!("cannot listen for signals: {error}"))
    };
    let mut interrupt = signal(SignalKind::interrupt()).map_err(interrupted)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(interrupted)?;
    let code = short::short(&id);
    if break_glass {
        console::note(&format!(
            "countersign: {code} runs without approvals; a review is open"
        ));
    } else {
        console::note(&format!(
            "countersign: asked for {code}; others approve it with"
        ));
        console::note(&format!("    countersign approve {code}"));
    }
    let form = match (watching.jsonl, globals.json || watching.grouped) {
        (true, _) => Form::Lines,
        (false, true) => Form::Silent,
        (false, false) => Form::Text,
    };
    let printer = Printer::new(watching.raw, several);
    let live = Live::new(printer, form, several, watching.progress);
    let view = tokio::select! {
        followed = live.follow(client, &id) => followed?,
        _signal = interrupt.recv() => return Ok(left(&code)),
        _signal = terminate.recv() => return Ok(left(&code)),
    };
    if watching.jsonl {
        return Ok(exit(&view));
    }
    if globals.json {
        console::print_json(&shapes::command(&view))?;
    } else if watching.grouped {
        print_grouped(&view, watching.raw)?;
    }
    tell_end(&view);
    for line in alike::compared(&view) {
        console::note(&format!("countersign: {line}"));
    }
    Ok(exit(&view))
}

/// What hosts that said the same wrote, once for all of them.
fn print_grouped(view: &CommandView, raw: bool) -> Result<(), Failure> {
    for group in alike::groups(&view.command.executions) {
        let Some(host) = group.hosts.first() else {
            continue;
        };
        let names: Vec<String> = group.hosts.iter().map(ToString::to_string).collect();
        let end = group.said();
        let count = group.hosts.len();
        let noun = if count == 1 { "host" } else { "hosts" };
        console::print(&format!(
            "== {count} {noun}: {} ({end})\n",
            names.join(", ")
        ))?;
        let mut printer = Printer::new(raw, false);
        for piece in view
            .outputs
            .get(host)
            .iter()
            .flat_map(|output| &output.pieces)
        {
            if let Some(bytes) = piece.bytes.here() {
                printer.write(host.as_str(), piece.stream, bytes)?;
            }
        }
        printer.finish()?;
    }
    Ok(())
}

fn left(code: &str) -> u8 {
    console::note(&format!(
        "countersign: no longer waiting for {code}, which goes on; stop it with: countersign cancel {code}"
    ));
    exit_code::RUN_OURS
}

/// Says on stderr what the exit code alone would not.
fn tell_end(view: &CommandView) {
    let status = view.command.status();
    if view.command.executions.is_empty() || status == CommandStatus::Expired {
        console::note(&format!(
            "countersign: the command was {status} and did not run"
        ));
        for word in &view.words {
            if let Some(reason) = word.reason.as_ref().and_then(|reason| reason.here()) {
                console::note(&format!(
                    "countersign: {} {}: {}",
                    word.principal,
                    describe::deed(word.deed),
                    render::cut(reason, render::MAX_COLUMNS)
                ));
            }
        }
        return;
    }
    for (agent, part) in &view.command.executions {
        let silent = part.completed.as_ref().is_some_and(|done| {
            part.status == ExecutionStatus::Completed
                && matches!(done.outcome, Outcome::Exited)
                && !done.is_truncated()
        });
        if !silent {
            console::note(&format!(
                "countersign: {agent}: {}",
                describe::ending(view, part)
            ));
        }
    }
}

/// One host's code, as a shell would give it.
fn exit_of(part: &Execution) -> u8 {
    let done = part.completed.as_ref();
    let Some(done) = done.filter(|_| part.status == ExecutionStatus::Completed) else {
        return exit_code::RUN_OURS;
    };
    match done.outcome {
        Outcome::Exited => done.exit_code.unwrap_or(exit_code::RUN_OURS),
        Outcome::Signalled => done.signal.map_or(exit_code::RUN_OURS, |signal| {
            exit_code::RUN_SIGNAL_BASE.saturating_add(signal)
        }),
        Outcome::TimedOut => exit_code::RUN_TIMED_OUT,
        Outcome::NotFound => exit_code::RUN_NOT_FOUND,
        Outcome::NotExecutable => exit_code::RUN_NOT_EXECUTABLE,
        Outcome::Cancelled | Outcome::OutputLimit => exit_code::RUN_OURS,
    }
}

/// The worst of all hosts; ours when nothing ran.
fn exit(view: &CommandView) -> u8 {
    let status = view.command.status();
    let ran = matches!(
        status,
        CommandStatus::Completed | CommandStatus::Failed | CommandStatus::Partial
    );
    let parts = view.command.executions.values().map(exit_of);
    parts.max().filter(|_| ran).unwrap_or(exit_code::RUN_OURS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alike::tests::ended;

    #[test]
    fn run_exits_as_a_shell_would() {
        assert_eq!(exit_of(&ended(Outcome::Exited, Some(0), None)), 0);
        assert_eq!(exit_of(&ended(Outcome::Exited, Some(42), None)), 42);
        assert_eq!(exit_of(&ended(Outcome::Signalled, None, Some(9))), 137);
        assert_eq!(exit_of(&ended(Outcome::TimedOut, None, None)), 124);
        assert_eq!(exit_of(&ended(Outcome::NotFound, None, None)), 127);
        assert_eq!(exit_of(&ended(Outcome::NotExecutable, None, None)), 126);
        assert_eq!(exit_of(&ended(Outcome::OutputLimit, None, None)), 125);
    }

    #[test]
    fn a_lost_run_is_never_a_success_whatever_its_agent_says_late() {
        let mut lost = ended(Outcome::Exited, Some(0), None);
        lost.status = ExecutionStatus::Lost;
        assert_eq!(exit_of(&lost), exit_code::RUN_OURS);
    }
}
