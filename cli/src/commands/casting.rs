//! A cast file made: for `replay --cast` and `export --cast`.

use std::io::{self, BufWriter, Write as _};
use std::path::Path;
use std::time::Duration;

use countersign_protocol::command::Mode;
use countersign_protocol::name::AgentName;
use countersign_protocol::short;
use serde::Serialize;

use super::new_file::{NewFile, unwritable};
use super::replay;
use crate::acts::{Client, Purpose};
use crate::cast::{self, About};
use crate::failure::Failure;
use crate::playback::{self, Cue};
use crate::view::CommandView;
use crate::{console, exit_code, render};

/// Columns of the title: players show it in one line.
const TITLE_COLUMNS: usize = 120;

/// The file name that stands for standard output.
pub(super) const STDOUT: &str = "-";

/// What is wanted.
#[derive(Debug, Clone, Copy)]
pub(super) struct CastWish<'a> {
    /// The command, as it was typed.
    pub(super) id: &'a str,
    /// Whose output; needed when several hosts ran it.
    pub(super) agent: Option<&'a AgentName>,
    /// What the log says that it is read for.
    pub(super) purpose: Purpose,
    /// The most that a player should wait.
    pub(super) max_wait: Option<Duration>,
}

#[derive(Serialize)]
struct Shape {
    file: String,
    agent: String,
    events: u64,
    whole: bool,
}

/// Writes a cast to a file that must not be there yet, or to standard output.
pub(super) async fn cast(
    client: &Client,
    json: bool,
    wish: &CastWish<'_>,
    target: &Path,
) -> Result<u8, Failure> {
    let id = replay::command(client, wish.id).await?;
    let view = client.fetch_command_for(&id, wish.purpose).await?;
    let agent = host(&view, wish.agent)?;
    let Some(start) = playback::started(&view, agent) else {
        let text = format!("{agent} has not started it, so there is nothing to play");
        return Err(Failure::failed("not_started", text)
            .hint(format!("countersign show {} says how it stands", wish.id)));
    };
    let cues = playback::timeline(&view, Some(agent));
    let title = title(&view, agent);
    let about = About {
        start,
        title: &title,
        max_wait: wish.max_wait,
    };
    let whole = cues.iter().all(|cue| cue.piece.bytes.here().is_some());
    if target.as_os_str() == STDOUT {
        let mut out = BufWriter::new(io::stdout().lock());
        let written = cast::write(&about, &cues, &mut out).and_then(|_| out.flush());
        written.map_err(|error| unwritable(target, &error))?;
    } else {
        let events = to_file(&about, &cues, target)?;
        tell(json, target, agent, events, whole)?;
    }
    if !json {
        replay::tell_missing(whole);
        if !view.command.status().is_final() {
            console::note("the command has not ended: this is what it has written until now");
        }
    }
    Ok(exit_code::DONE)
}

fn tell(
    json: bool,
    target: &Path,
    agent: &AgentName,
    events: u64,
    whole: bool,
) -> Result<(), Failure> {
    let file = target.display().to_string();
    if json {
        return console::print_json(&Shape {
            file,
            agent: agent.to_string(),
            events,
            whole,
        });
    }
    console::print(&format!(
        "{}, {events} events\nplay it: asciinema play {}\n",
        render::line(&file),
        render::word(&file)
    ))
}

fn to_file(about: &About<'_>, cues: &[Cue<'_>], target: &Path) -> Result<u64, Failure> {
    let (new, file) = NewFile::create(target)?;
    let write = || {
        let mut out = BufWriter::new(file);
        let events = cast::write(about, cues, &mut out)?;
        out.flush()?;
        Ok(events)
    };
    let events = write().map_err(|error| unwritable(new.path(), &error))?;
    new.keep()?;
    Ok(events)
}

/// The one host whose output it is: a cast is what one terminal saw.
fn host<'a>(
    view: &'a CommandView,
    wanted: Option<&'a AgentName>,
) -> Result<&'a AgentName, Failure> {
    if let Some(agent) = wanted {
        replay::must_be_host(view, agent)?;
        return Ok(agent);
    }
    let mut hosts = view.command.executions.keys();
    match (hosts.next(), hosts.next()) {
        (Some(agent), None) => Ok(agent),
        (None, _) => Err(Failure::failed(
            "not_started",
            "no host has started it, so there is nothing to play",
        )
        .hint("`countersign show ID` says how it stands")),
        (Some(_), Some(_)) => {
            let text = "several hosts ran this, and a cast is what one terminal saw";
            Err(Failure::usage(text).hint(format!("name one: --agent {}", hosts_of(view))))
        }
    }
}

/// The hosts' names, a few of them.
fn hosts_of(view: &CommandView) -> String {
    let names: Vec<String> = view
        .command
        .executions
        .keys()
        .map(ToString::to_string)
        .collect();
    crate::describe::few(&names)
}

fn title(view: &CommandView, agent: &AgentName) -> String {
    let code = short::short(&view.id());
    let Some(spec) = view.spec.here() else {
        return format!("{code} on {agent}");
    };
    let words = match spec.mode {
        Mode::Exec | Mode::Action => render::words(&spec.argv),
        Mode::Shell => spec.argv.join(" "),
    };
    render::cut(&format!("{code} on {agent}: {words}"), TITLE_COLUMNS)
}
