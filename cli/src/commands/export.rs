//! `export`: a bundle that proves itself, in one file.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use countersign_protocol::name::AgentName;
use countersign_verifier::Report;
use serde::Serialize;

use super::casting::{self, CastWish};
use super::new_file::{NewFile, may_write, unwritable};
use super::{Globals, moment};
use crate::acts::{Client, Found, Purpose, Search, Since, Wish};
use crate::failure::Failure;
use crate::{console, exit_code, render};

/// What to take away.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  countersign export -o ledger.tar                 # the whole ledger
  countersign export 7K3M-9QPX -o evidence.tar     # one command and all it rests on
  countersign export --from 2026-01-01 --to 2026-04-01 --host web-1 -o q1.tar
  countersign export 7K3M-9QPX --cast -o run.cast  # its output for asciinema
  countersign verify evidence.tar                  # what whoever gets it should do

Whoever gets the file needs nothing of ours: its README.txt says how to check it with public tools,
its index.html is for reading. A whole ledger needs audit:read. Texts that you may not read are
marked as withheld; --no-output withholds what commands wrote as well. The ledger records exports.")]
pub struct Arguments {
    /// Commands: XXXX-XXXX, the whole id, or at least its first 8 digits; without any the whole
    /// ledger
    #[arg(value_name = "ID", conflicts_with_all = ["from", "to", "host"])]
    ids: Vec<String>,
    /// Commands asked for at that time or later: a time, a day, or how long ago
    #[arg(long, value_parser = moment::since, value_name = "T")]
    from: Option<Since>,
    /// Commands asked for before that
    #[arg(long, value_parser = moment::since, value_name = "T")]
    to: Option<Since>,
    /// Commands that name this host
    #[arg(long, value_name = "HOST")]
    host: Option<AgentName>,
    /// The file to write; it must not be there yet
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Leave out what commands wrote
    #[arg(long)]
    no_output: bool,
    /// No bundle, but one command's output with its timing as asciicast v2, which any player shows
    /// and which proves nothing
    #[arg(long, requires = "ids", conflicts_with = "no_output")]
    cast: bool,
    /// With --cast, when several hosts ran it: whose output
    #[arg(long, value_name = "HOST", requires = "cast")]
    agent: Option<AgentName>,
}

#[derive(Serialize)]
struct Shape<'a> {
    file: String,
    bytes: u64,
    #[serde(flatten)]
    report: &'a Report,
}

/// Writes a bundle.
pub(super) async fn export(globals: &Globals, arguments: Arguments) -> Result<u8, Failure> {
    let target = &arguments.output;
    may_write(target)?;
    let client = globals.connect().await?;
    if arguments.cast {
        let [id] = arguments.ids.as_slice() else {
            let text = "a cast is of one command; nothing was written";
            return Err(Failure::usage(text).hint("one cast after the other"));
        };
        let wish = CastWish {
            id,
            agent: arguments.agent.as_ref(),
            purpose: Purpose::Export,
            max_wait: None,
        };
        return casting::cast(&client, globals.json, &wish, target).await;
    }
    let (new, file) = NewFile::create(target)?;
    let (report, bytes) = make(&client, &arguments, globals.json, file, new.path()).await?;
    new.keep()?;
    if globals.json {
        console::print_json(&Shape {
            file: target.display().to_string(),
            bytes,
            report: &report,
        })?;
    } else {
        console::print(&human(target, bytes, &report))?;
    }
    Ok(exit_code::DONE)
}

async fn make(
    client: &Client,
    arguments: &Arguments,
    json: bool,
    file: File,
    partial: &Path,
) -> Result<(Report, u64), Failure> {
    let wish = wish(client, arguments, json).await?;
    let without_output = arguments.no_output;
    let mut told = Told::new("entries written", json);
    let sink = BufWriter::new(file);
    let mut tell = |done, all| told.tell(done, all);
    let written = client.export(wish, without_output, sink, &mut tell).await?;
    let (mut sink, report) = written;
    let failed = |error: io::Error| unwritable(partial, &error);
    sink.flush().map_err(failed)?;
    let file = sink
        .into_inner()
        .map_err(|error| failed(error.into_error()))?;
    file.sync_all().map_err(failed)?;
    let bytes = file.metadata().map_err(failed)?.len();
    Ok((report, bytes))
}

async fn wish(client: &Client, arguments: &Arguments, json: bool) -> Result<Wish, Failure> {
    let search = Search {
        from: moment::time_of(arguments.from)?,
        to: moment::time_of(arguments.to)?,
        host: arguments.host.clone(),
    };
    if search != Search::default() {
        let mut told = Told::new("entries searched", json);
        let mut tell = |done, all| told.tell(done, all);
        let found = client.search(&search, &mut tell).await?;
        if found.is_empty() {
            return Err(Failure::failed(
                "nothing_found",
                "no command fits; nothing was written",
            ));
        }
        return Ok(Wish::Commands(found));
    }
    if arguments.ids.is_empty() {
        return Ok(Wish::Whole);
    }
    let mut ids = BTreeSet::new();
    for text in &arguments.ids {
        match client.find(text).await? {
            Found::Command(id) => ids.insert(id),
            Found::Change(_) => {
                let text = format!("{text} is a change of rights: those are in every bundle");
                return Err(
                    Failure::usage(text).hint("name a command, or none for the whole ledger")
                );
            }
        };
    }
    Ok(Wish::Commands(ids))
}

/// Words on progress, for those who watch.
struct Told {
    what: &'static str,
    is_watched: bool,
    steps: u64,
}

/// Entries between two words on progress.
const PROGRESS_STEP: u64 = 1_000;

impl Told {
    fn new(what: &'static str, json: bool) -> Self {
        Self {
            what,
            is_watched: !json && io::stderr().is_terminal(),
            steps: 0,
        }
    }

    fn tell(&mut self, done: u64, all: u64) {
        if self.is_watched && done / PROGRESS_STEP > self.steps {
            self.steps = done / PROGRESS_STEP;
            console::note(&format!("{done} of {all} {}", self.what));
        }
    }
}

fn human(target: &Path, bytes: u64, report: &Report) -> String {
    let name = target.display().to_string();
    let mut text = format!("{}, {bytes} bytes\n{report}", render::line(&name));
    text.push_str(&format!(
        "check it: countersign verify {}\n",
        render::word(&name)
    ));
    text
}
