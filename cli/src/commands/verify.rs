//! `verify`: recomputes the whole ledger from the bytes of its entries.

use std::fs::File;
use std::io::{self, BufReader, IsTerminal as _, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use countersign_protocol::checkpoint::CheckpointBody;
use countersign_protocol::hash::{Hash, LedgerId};
use countersign_protocol::witness_policy::WitnessPolicy;
use countersign_verifier::{Expectations, Unreadable};
use serde::Serialize;

use super::Globals;
use crate::acts::{Served, witness_policy, witness_policy_file};
use crate::failure::Failure;
use crate::home::{self, LedgerHome};
use crate::verify::{
    FirstBad, Options, Progress, Report, Source, VerifyError, verify as recompute,
};
use crate::{console, exit_code, render};

/// Entries between two words on progress.
const PROGRESS_STEP: u64 = 10_000;

/// Where the server finds its database, too.
const DATABASE_VARIABLE: &str = "DATABASE_URL";

/// What to verify.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  countersign verify                                          # all that the server shows
  countersign verify evidence.tar                             # a bundle, offline
  countersign verify --database                               # the database itself, side tables and lists too
  countersign verify --checkpoint kept.note                   # ... and it must continue a checkpoint you kept
  countersign verify evidence.tar --checkpoint evidence.note  # of an excerpt: it must be its own

Exit codes: 0 everything holds, 3 it does not, 5 it could not be read, 6 it holds and a part of it is
under suspicion: of a key that an administrator calls suspect, or whose counter went back, or of a host
whose output is not what it says at the end.")]
pub struct Arguments {
    /// A bundle as `export` writes it, instead of asking a server; - reads standard input
    #[arg(value_name = "BUNDLE", conflicts_with = "database")]
    bundle: Option<PathBuf>,
    /// Read the database itself instead of asking a server: that of DATABASE_URL, or at this address,
    /// which others can read while it runs if there is a password in it. Either role's will do
    #[arg(long, value_name = "URL", num_args = 0..=1, default_missing_value = "")]
    database: Option<String>,
    /// A checkpoint that the log must contain and continue; an excerpt can be compared with one of its
    /// own size only
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
}

/// What comparing the lists with a fold of the log came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lists {
    /// They equal it, or none were built yet.
    Equal,
    /// They do not; one sentence for each.
    Differ(Vec<String>),
    /// They are behind the log, so there is nothing to compare yet.
    NotCompared(String),
    /// They could not be read.
    Failed(String),
}

#[derive(Serialize)]
struct Shape<'a> {
    #[serde(flatten)]
    report: &'a Report,
    lists: &'a str,
}

impl From<VerifyError> for Failure {
    fn from(error: VerifyError) -> Self {
        let text = error.to_string();
        match error {
            VerifyError::Database(_) => Self::unreachable("database", text),
            VerifyError::Source(source) => match source.downcast::<Self>() {
                Ok(failure) => *failure,
                Err(_other) => Self::unreachable("source", text),
            },
            VerifyError::NotALedger(_) | VerifyError::Note(_) => Self::usage(text),
            VerifyError::Worker => Self::failed("worker", text),
        }
    }
}

/// Verifies and prints. `lists` compares the lists in a database with the log that was verified.
pub async fn verify<F>(
    globals: &Globals,
    arguments: Arguments,
    lists: impl FnOnce(String) -> F,
) -> u8
where
    F: Future<Output = Lists>,
{
    match report(globals, arguments, lists).await {
        Ok(code) => code,
        Err(failure) => console::report(globals.json, &failure),
    }
}

async fn report<F>(
    globals: &Globals,
    arguments: Arguments,
    lists: impl FnOnce(String) -> F,
) -> Result<u8, Failure>
where
    F: Future<Output = Lists>,
{
    let checkpoint =
        match &arguments.checkpoint {
            Some(path) => Some(std::fs::read_to_string(path).map_err(|error| {
                Failure::usage(format!("cannot read {}: {error}", path.display()))
            })?),
            None => None,
        };
    if let Some(path) = &arguments.bundle {
        let report = bundle(globals, path, checkpoint)?;
        return conclude(globals, &report, "not compared");
    }
    let database = arguments.database.map(address).transpose()?;
    let witnesses = match &database {
        Some(_) => witnesses(globals)?,
        // The policy is held against the server's own cosigned note on the way in.
        None => None,
    };
    let source = match &database {
        Some(_) if witnesses.is_some() && checkpoint.is_none() => {
            return Err(Failure::usage(
                "a database holds no cosignatures, so the witnesses' policy has nothing to judge here",
            )
            .hint("give --checkpoint FILE with a note that they signed, as /checkpoint of the server gives it"));
        }
        Some(url) => Source::Database(url.clone()),
        None => Source::Pages(Box::new(Served::new(globals.connect().await?))),
    };
    let mut report = recompute(Options {
        source,
        ledger: globals.ledger,
        checkpoint,
        remembered: globals.ledger.map(remembered).transpose()?.flatten(),
        witnesses,
        progress: progress(globals.json),
    })
    .await?;
    let mut compared = "not compared".to_owned();
    if let Some(url) = database
        && report.ok
    {
        compared = match lists(url).await {
            Lists::Equal => "equal".to_owned(),
            Lists::NotCompared(why) => why,
            Lists::Failed(why) => {
                return Err(Failure::unreachable(
                    "lists",
                    format!("the log holds, but its lists could not be compared with it: {why}"),
                ));
            }
            Lists::Differ(found) => {
                report.ok = false;
                report.first_bad = Some(FirstBad {
                    name: "other_lists",
                    seq: report.size,
                    reason: found.join("; "),
                });
                report.findings.extend(found);
                "differ".to_owned()
            }
        };
    }
    conclude(globals, &report, &compared)
}

/// The database's address: the one that was given, or the environment's, which no other account reads.
fn address(given: String) -> Result<String, Failure> {
    if !given.is_empty() {
        return Ok(given);
    }
    let found = std::env::var(DATABASE_VARIABLE).ok();
    let found = found.filter(|url| !url.is_empty()).ok_or_else(|| {
        Failure::usage("--database names no address, and DATABASE_URL is not set").hint(
            "export DATABASE_URL=postgres://…, the password in it or in the file that PGPASSFILE names",
        )
    })?;
    // A server takes several. Read as one they would be a database's name with a password in it, which
    // the first of them writes into its log.
    if found.matches("://").count() > 1 {
        return Err(Failure::usage("DATABASE_URL has several addresses, and one is read").hint(
            "set it to one of them for this call: DATABASE_URL=postgres://… countersign verify --database",
        ));
    }
    Ok(found)
}

/// Prints the verdict; its exit code.
fn conclude(globals: &Globals, report: &Report, lists: &str) -> Result<u8, Failure> {
    if globals.json {
        console::print_json(&Shape { report, lists })?;
    } else {
        console::print(&human(report, lists))?;
    }
    Ok(if !report.ok {
        exit_code::TAMPERING
    } else if report.is_suspect() {
        exit_code::SUSPECT
    } else {
        exit_code::DONE
    })
}

/// Verifies a bundle: no server, no database.
fn bundle(globals: &Globals, path: &Path, checkpoint: Option<String>) -> Result<Report, Failure> {
    let unreadable = |error: io::Error| {
        Failure::unreachable("bundle", format!("cannot read {}: {error}", path.display()))
    };
    let source: Box<dyn Read> = if path == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(BufReader::new(File::open(path).map_err(unreadable)?))
    };
    let expectations = Expectations {
        ledger: globals.ledger,
        checkpoint,
        remembered: globals.ledger.map(remembered).transpose()?.flatten(),
        witnesses: witnesses(globals)?,
    };
    let mut told = progress(globals.json);
    let verified = countersign_verifier::verify(source, &expectations, &mut |done| {
        if let Some(tell) = &mut told {
            tell(done, done);
        }
    });
    verified.map_err(|error| match error {
        Unreadable::Io(error) => unreadable(error),
        Unreadable::Note(_) | Unreadable::NotComparable { .. } => Failure::usage(error.to_string()),
    })
}

/// The witnesses' policy that holds: the one that was named, or that of the pinned ledger's folder.
fn witnesses(globals: &Globals) -> Result<Option<WitnessPolicy>, Failure> {
    witnesses_in(globals, || Ok(home::find()?))
}

fn witnesses_in(
    globals: &Globals,
    state_home: impl FnOnce() -> Result<PathBuf, Failure>,
) -> Result<Option<WitnessPolicy>, Failure> {
    let named = globals.witness_policy.as_deref();
    match (named, globals.ledger) {
        (None, None) => Ok(None),
        (Some(path), None) => witness_policy_file(path).map(Some),
        (named, Some(ledger)) => witness_policy(named, &LedgerHome::open(&state_home()?, &ledger)?),
    }
}

/// Size and root of the newest checkpoint that this client remembers.
fn remembered(ledger: LedgerId) -> Result<Option<(u64, Hash)>, Failure> {
    let home = LedgerHome::open(&home::find()?, &ledger)?;
    let Some(note) = home.read(crate::trust::CHECKPOINT_FILE)? else {
        return Ok(None);
    };
    let text = note.split_once("\n\n").map_or("", |(text, _)| text);
    let body: Result<CheckpointBody, _> = format!("{text}\n").parse();
    let body = body.map_err(|error| {
        Failure::failed(
            "memory",
            format!("the remembered checkpoint is not readable: {error}"),
        )
    })?;
    Ok(Some((body.size, body.root)))
}

fn progress(json: bool) -> Option<Progress> {
    if json || !io::stderr().is_terminal() {
        return None;
    }
    let mut said = 0;
    Some(Box::new(move |done, total| {
        if done / PROGRESS_STEP > said {
            said = done / PROGRESS_STEP;
            console::note(&format!("{done} of {total} entries"));
        }
    }))
}

fn human(report: &Report, lists: &str) -> String {
    let mut text = report.to_string();
    if lists != "not compared" {
        text.push_str(&format!("lists: {}\n", render::line(lists)));
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        globals: Globals,
    }

    #[test]
    fn the_policy_in_the_ledgers_folder_holds_when_none_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let home = || Ok(folder.path().to_path_buf());
        let id = "0".repeat(64);
        let pinned = Line::parse_from(["x", "--ledger", &id]).globals;
        assert!(witnesses_in(&pinned, home).unwrap().is_none());
        let own = LedgerHome::open(folder.path(), &id.parse().unwrap()).unwrap();
        let path = own.write("witness-policy", "nonsense").unwrap();
        let failure = witnesses_in(&pinned, home).unwrap_err();
        assert_eq!(failure.exit, exit_code::USAGE);
        let path = path.display().to_string();
        assert!(failure.message().starts_with(&path), "{failure}");
    }
}
