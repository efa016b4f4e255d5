//! `logs`: a command's output, verified.

use clap::Args;
use countersign_protocol::name::AgentName;

use super::Globals;
use super::live::{Form, Live, Progress};
use super::run::Printer;
use crate::acts::{Found, Step};
use crate::failure::Failure;
use crate::{console, exit_code, shapes};

/// Whose output.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  countersign logs 7K3M-9QPX > out.txt       (exact bytes)
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
    /// Only this host's
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
        let live = Live::new(printer, Form::Lines, false, Progress::None);
        live.follow(&client, &id).await?;
        return Ok(exit_code::DONE);
    }
    let only = arguments.agent.as_ref().map(ToString::to_string);
    let view = client.fetch_command(&id).await?;
    let several = only.is_none() && view.command.act().targets.count > 1;
    let mut printer = Printer::new(arguments.raw, several)
        .only(only)
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
        console::print_json(&shapes::command(&view))?;
    } else if view.outputs.values().any(|output| !output.is_whole()) {
        console::note("a part of the output was erased or is not for you to read");
    }
    Ok(exit_code::DONE)
}
