//! `replay`: a command's output as it came, verified; or as a cast for another player.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use countersign_protocol::hash::CommandId;
use countersign_protocol::name::AgentName;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use super::casting::{self, CastWish};
use super::new_file::may_write;
use super::run::Printer;
use super::{Globals, request};
use crate::acts::{Client, Found, Purpose, Step};
use crate::failure::Failure;
use crate::playback::{self, Timing};
use crate::view::CommandView;
use crate::{console, exit_code, shapes};

/// The slowest that makes sense: a second takes nearly two minutes.
const MIN_SPEED: f64 = 0.01;

/// The fastest: more is --no-wait.
const MAX_SPEED: f64 = 10_000.0;

/// So far behind its time a replay goes on from where it is, as after ^S: it does not hurry after.
const FORGIVEN: Duration = Duration::from_secs(1);

/// What a terminal is told after raw output that was cut off: soft reset, no style, a cursor.
const SANE: &[u8] = b"\x1b[!p\x1b[0m\x1b[?25h";

/// What to play, and how.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  countersign replay 7K3M-9QPX                          # as it was
  countersign replay 7K3M-9QPX --speed 4 --max-wait 1s  # faster, and never a long wait
  countersign replay 7K3M-9QPX --from 10m               # the first 10 minutes at once, then as it was
  countersign replay 7K3M-9QPX -f --agent web-1         # and on, live, until the command ends
  countersign replay 7K3M-9QPX --cast run.cast          # asciicast v2: asciinema play run.cast

Standard output and standard error of the command go to our own. A terminal gets them escaped, and
standard error in red (not with NO_COLOR), unless --raw is given; files and pipes get the exact
bytes. Times are those that the host signed; several hosts stand to each other as their starts do.
--max-wait counts before --speed. --json gives all pieces at once, without waiting.

A cast is for the eye and proves nothing: it holds control characters as they were written, both
streams as one, and U+FFFD for what is no UTF-8. `export` is for evidence. The ledger records
replays. ^C ends one with exit code 130, and the command knows nothing of it.")]
pub struct Arguments {
    /// The command: XXXX-XXXX, the whole id, or at least its first 8 digits
    id: String,
    /// Only this host's
    #[arg(long, value_name = "HOST")]
    agent: Option<AgentName>,
    /// So many times as fast: 2, 0.5
    #[arg(long, value_name = "N", default_value = "1", value_parser = speed)]
    speed: f64,
    /// Take longer gaps for one of this length: 2s
    #[arg(long, value_name = "TIME", value_parser = request::duration)]
    max_wait: Option<Duration>,
    /// Show at once what came until this long after the start, and play from there: 10s
    #[arg(long, value_name = "TIME", value_parser = request::duration)]
    from: Option<Duration>,
    /// After what is there, go on live until the command has ended
    #[arg(short, long)]
    follow: bool,
    /// Give a terminal the output as it is, with all its control characters
    #[arg(long)]
    raw: bool,
    /// Do not wait at all
    #[arg(long, conflicts_with_all = ["speed", "max_wait", "from"])]
    no_wait: bool,
    /// Play nothing: write asciicast v2 to a file that is not there yet, or with - to standard output
    #[arg(long, value_name = "FILE|-", conflicts_with_all = ["speed", "from", "follow", "raw", "no_wait"])]
    cast: Option<PathBuf>,
}

fn speed(text: &str) -> Result<f64, String> {
    let speed: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if (MIN_SPEED..=MAX_SPEED).contains(&speed) {
        Ok(speed)
    } else {
        Err(format!("it must be from {MIN_SPEED} to {MAX_SPEED}"))
    }
}

impl Arguments {
    fn timing(&self) -> Timing {
        Timing {
            speed: self.speed,
            max_wait: self.max_wait,
            from: self.from.unwrap_or_default(),
            no_wait: self.no_wait,
        }
    }
}

/// Which command; changes of rights have no output.
pub(super) async fn command(client: &Client, text: &str) -> Result<CommandId, Failure> {
    match client.find(text).await? {
        Found::Command(id) => Ok(id),
        Found::Change(_) => Err(Failure::usage(
            "this is a change of rights and has no output",
        )),
    }
}

/// A host that the command does not name wrote nothing, which must not look like an empty output.
pub(super) fn must_be_host(view: &CommandView, agent: &AgentName) -> Result<(), Failure> {
    if view.command.executions.is_empty() || view.command.executions.contains_key(agent) {
        return Ok(());
    }
    Err(Failure::usage(format!("this command was not for {agent}"))
        .hint("`countersign show ID` names its hosts"))
}

/// Says when not all of it was there to be shown.
pub(super) fn tell_missing(whole: bool) {
    if !whole {
        console::note("a part of the output was erased or is not for you to read");
    }
}

/// Plays.
pub(super) async fn replay(globals: &Globals, arguments: Arguments) -> Result<u8, Failure> {
    if let Some(target) = &arguments.cast {
        return write_cast(globals, &arguments, target).await;
    }
    let only = arguments.agent.as_ref();
    let client = globals.connect().await?;
    let id = command(&client, &arguments.id).await?;
    let view = client.fetch_command_for(&id, Purpose::Replay).await?;
    if let Some(agent) = only {
        must_be_host(&view, agent)?;
    }
    if globals.json {
        let view = if arguments.follow {
            client.follow(&id, &mut |_step| Ok(())).await?
        } else {
            view
        };
        console::print_json(&shapes::replayed(&view, only))?;
        return Ok(exit_code::DONE);
    }
    Box::pin(show(&client, &arguments, view)).await
}

async fn write_cast(
    globals: &Globals,
    arguments: &Arguments,
    target: &Path,
) -> Result<u8, Failure> {
    if target.as_os_str() != casting::STDOUT {
        may_write(target)?;
    } else if globals.json {
        return Err(Failure::usage("--cast - and --json both want stdout"));
    }
    let client = globals.connect().await?;
    let wish = CastWish {
        id: &arguments.id,
        agent: arguments.agent.as_ref(),
        purpose: Purpose::Replay,
        max_wait: arguments.max_wait,
    };
    casting::cast(&client, globals.json, &wish, target).await
}

/// Plays to the end or to ^C.
async fn show(client: &Client, arguments: &Arguments, view: CommandView) -> Result<u8, Failure> {
    let only = arguments.agent.as_ref();
    let several = only.is_none() && view.command.act().targets.count > 1;
    let mut printer = Printer::new(arguments.raw, several)
        .only(only.map(ToString::to_string))
        .coloured();
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| {
        Failure::failed("signals", format!("cannot listen for signals: {error}"))
    })?;
    let played = tokio::select! {
        played = play(client, arguments, view, &mut printer) => Some(played?),
        _signal = interrupt.recv() => None,
    };
    printer.finish()?;
    let Some(view) = played else {
        if arguments.raw && console::is_terminal(false) {
            console::write_raw(false, SANE)?;
        }
        return Ok(exit_code::INTERRUPTED);
    };
    let shown = playback::timeline(&view, only);
    tell_missing(shown.iter().all(|cue| cue.piece.bytes.here().is_some()));
    if shown.is_empty() {
        let status = view.command.status();
        console::note(&format!("nothing was written; the command is {status}"));
    }
    Ok(exit_code::DONE)
}

/// Plays what is there, and what comes; gives the command as it was at the end.
async fn play(
    client: &Client,
    arguments: &Arguments,
    view: CommandView,
    printer: &mut Printer,
) -> Result<CommandView, Failure> {
    let cues = playback::timeline(&view, arguments.agent.as_ref());
    let cues = cues
        .into_iter()
        .filter_map(|cue| Some((cue.at_us, (cue, cue.piece.bytes.here()?))));
    let mut due = Instant::now();
    for (wait, (cue, bytes)) in playback::plan(cues, &arguments.timing()) {
        due = due.checked_add(wait).unwrap_or(due);
        tokio::time::sleep_until(due).await;
        if due.elapsed() > FORGIVEN {
            due = Instant::now();
        }
        printer.write(cue.agent.as_str(), cue.piece.stream, bytes)?;
        // Between two pieces that do not wait, ^C must be heard too.
        tokio::task::yield_now().await;
    }
    if !arguments.follow || view.command.status().is_final() {
        return Ok(view);
    }
    Box::pin(follow(client, view, printer)).await
}

/// Goes on after what was played.
async fn follow(
    client: &Client,
    view: CommandView,
    printer: &mut Printer,
) -> Result<CommandView, Failure> {
    // A host's pieces have one order for ever: as many as were played are not new.
    let outputs = view.outputs.iter();
    let played = outputs.map(|(agent, output)| (agent.clone(), output.pieces.len()));
    let mut played: BTreeMap<AgentName, usize> = played.collect();
    let mut is_new = |agent: &AgentName| match played.get_mut(agent) {
        Some(left) if *left > 0 => {
            *left -= 1;
            false
        }
        Some(_) | None => true,
    };
    let mut sink = |step: Step<'_>| match step {
        Step::Output {
            agent,
            stream,
            bytes,
        } if is_new(agent) => printer.write(agent.as_str(), stream, bytes),
        Step::Hidden { agent, .. } => {
            is_new(agent);
            Ok(())
        }
        Step::Output { .. } | Step::Entry { .. } => Ok(()),
    };
    client.follow(&view.id(), &mut sink).await
}
