//! `logs`: a command's output, verified.

use clap::Args;
use countersign_protocol::lifecycle::ExecutionStatus;
use countersign_protocol::name::AgentName;
use countersign_protocol::short;

use super::Globals;
use super::live::{Form, Live, Progress};
use super::replay::{must_be_host, tell_missing};
use super::run::Printer;
use crate::acts::{Found, Step};
use crate::failure::Failure;
use crate::view::CommandView;
use crate::{console, describe, exit_code, shapes};

/// Whose output.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  countersign logs 7K3M-9QPX > out.txt  # exact bytes
  countersign logs 7K3M-9QPX -f --agent web-1
  countersign logs 7K3M-9QPX -f --jsonl

Standard output and standard error of the command go to our own. A terminal gets them escaped,
unless --raw is given; files and pipes get the exact bytes.")]
pub struct Arguments {
    /// The command: XXXX-XXXX, the whole id, or at least its first 8 digits
    id: String,
    /// Go on until the command has ended
    #[arg(short, long)]
    follow: bool,
    /// Only this host's; with --json too, where status, tally and groups stay those of all hosts
    #[arg(long, value_name = "HOST")]
    agent: Option<AgentName>,
    /// One JSON object a line on stdout, as things happen (docs/API.md, JSON lines)
    #[arg(long, requires = "follow", conflicts_with_all = ["agent", "raw"])]
    jsonl: bool,
    /// Give a terminal the output as it is, with all its control characters
    #[arg(long)]
    raw: bool,
}

impl Arguments {
    /// Whether standard output is JSON lines, errors too.
    pub(super) const fn is_jsonl(&self) -> bool {
        self.jsonl
    }
}

/// Prints output.
pub(super) async fn logs(globals: &Globals, arguments: Arguments) -> Result<u8, Failure> {
    let client = globals.connect().await?;
    let Found::Command(id) = client.find(&arguments.id).await? else {
        return Err(Failure::usage(
            "this is a change of rights and has no output",
        ));
    };
    if arguments.jsonl {
        let printer = Printer::new(true, false);
        let live = Live::new(printer, Form::Lines, false, Progress::None).not_awaited();
        live.follow(&client, &id).await?;
        return Ok(exit_code::DONE);
    }
    let only = arguments.agent.as_ref();
    let view = client.fetch_command(&id).await?;
    if let Some(agent) = only {
        must_be_host(&view, agent)?;
    }
    let several = only.is_none() && view.command.act().targets.count > 1;
    let mut printer = Printer::new(arguments.raw, several)
        .only(only.map(ToString::to_string))
        .silent(globals.json);
    let view = if arguments.follow {
        let mut sink = |step: Step<'_>| match step {
            Step::Output {
                agent,
                stream,
                bytes,
            } => printer.write(agent.as_str(), stream, bytes),
            Step::Hidden { .. } | Step::Entry { .. } => Ok(()),
        };
        client.follow(&id, &mut sink).await?
    } else {
        for (agent, output) in &view.outputs {
            for piece in &output.pieces {
                if let Some(bytes) = piece.bytes.here() {
                    printer.write(agent.as_str(), piece.stream, bytes)?;
                }
            }
        }
        view
    };
    printer.finish()?;
    if globals.json {
        let shape = shapes::command(&view);
        console::print_json(&match only {
            Some(agent) => shape.only(agent),
            None => shape,
        })?;
        return Ok(exit_code::DONE);
    }
    let mut outputs = view.outputs.iter();
    tell_missing(outputs.all(|(agent, output)| !is_meant(only, agent) || output.is_whole()));
    for line in unsaid(&view, only) {
        console::note(&line);
    }
    Ok(exit_code::DONE)
}

fn is_meant(only: Option<&AgentName>, agent: &AgentName) -> bool {
    only.is_none_or(|only| only == agent)
}

/// What an output that is short, or none, does not say by itself.
fn unsaid(view: &CommandView, only: Option<&AgentName>) -> Vec<String> {
    let mut lines = Vec::new();
    let command = &view.command;
    let status = command.status();
    let parts = command.executions.iter();
    let mut meant: Vec<_> = parts.filter(|(agent, _)| is_meant(only, agent)).collect();
    let wrote = |agent: &AgentName| {
        let output = view.outputs.get(agent);
        output.is_some_and(|output| !output.pieces.is_empty())
    };
    let is_empty = !meant.iter().any(|(agent, _)| wrote(agent));
    match meant.as_slice() {
        // Before it is authorized, nothing of it is any host's.
        [(agent, part)] if is_empty && part.status != ExecutionStatus::Waiting => {
            let ending = describe::ending(view, part);
            lines.push(format!("nothing was written; {agent}: {ending}"));
        }
        _ if is_empty => lines.push(format!("nothing was written; the command is {status}")),
        _ => {}
    }
    if meant.len() > 1 {
        meant.retain(|(agent, part)| {
            part.status.is_final() && part.completed.is_none() && !wrote(agent)
        });
        let others = meant
            .iter()
            .map(|(agent, _)| describe::came(command, agent));
        let others: Vec<String> = others.collect();
        if !others.is_empty() {
            lines.push(format!("nothing came from: {}", describe::some(&others)));
        }
    }
    if !status.is_final() {
        lines.push(format!(
            "the command is not over; wait for what comes: countersign logs {} -f",
            short::short(&command.id)
        ));
    }
    lines
}
