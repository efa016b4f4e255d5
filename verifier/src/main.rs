//! `countersign-verify`: a bundle in, a verdict out. Reads one file and asks nobody.

use std::fs::File;
use std::io::{self, BufReader, IsTerminal as _, Read, Write as _};
use std::process::ExitCode;

use countersign_verifier::{Expectations, Report, verify};

/// Nothing was found.
const DONE: u8 = 0;

/// The command line is wrong.
const USAGE: u8 = 2;

/// The bundle does not hold.
const TAMPERING: u8 = 3;

/// The file cannot be read, or not be compared with what was given, so there is no verdict.
const UNREADABLE: u8 = 5;

/// Everything holds, and something of it is under suspicion.
const SUSPECT: u8 = 6;

/// Entries between two words on progress.
const PROGRESS_STEP: u64 = 10_000;

const HELP: &str = "countersign-verify: checks an evidence bundle of a countersign ledger, offline

Usage: countersign-verify [--ledger ID] [--checkpoint FILE] [--witness-policy FILE]
                          [--json] BUNDLE

  BUNDLE               the file; - reads standard input
  --ledger ID          the ledger that it must be: 64 hex digits, from somebody you trust
  --checkpoint FILE    a checkpoint of yours that a whole log must contain and continue; an
                       excerpt can be compared with its own size's only
  --witness-policy FILE  witnesses of whom enough must vouch for the checkpoint (C2SP tlog-policy)
  --json               the verdict for programs

Examples:
  countersign-verify evidence.tar --ledger 7d1c…e9
  countersign-verify - --json < evidence.tar

Exit codes: 0 everything holds, 2 wrong usage, 3 it does not hold, 5 it could not be read, or not
be compared with --checkpoint, 6 it holds and a part of it is under suspicion.
";

struct Arguments {
    bundle: String,
    expectations: Expectations,
    json: bool,
}

fn arguments(mut words: impl Iterator<Item = String>) -> Result<Option<Arguments>, String> {
    let mut bundle = None;
    let mut expectations = Expectations::default();
    let mut json = false;
    while let Some(word) = words.next() {
        let (name, joined) = match word.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
            Some(_) | None => (word.as_str(), None),
        };
        let mut value = || {
            let value = joined.clone().or_else(|| words.next());
            value.ok_or_else(|| format!("{name} needs a value"))
        };
        match name {
            "--help" | "-h" => return Ok(None),
            "--json" => json = true,
            "--ledger" => {
                let id = value()?.parse();
                expectations.ledger = Some(id.map_err(|error| format!("--ledger: {error}"))?);
            }
            "--checkpoint" => expectations.checkpoint = Some(text_of(&value()?)?),
            "--witness-policy" => {
                let path = value()?;
                let policy = text_of(&path)?.parse();
                let policy = policy.map_err(|error| format!("{path}: {error}"))?;
                expectations.witnesses = Some(policy);
            }
            other if other.starts_with('-') && other != "-" => {
                return Err(format!("there is no option {other}"));
            }
            _file if bundle.is_some() => return Err("one bundle at a time".to_owned()),
            _file => bundle = Some(word),
        }
    }
    let bundle = bundle.ok_or("which bundle? give a file, or - for standard input")?;
    Ok(Some(Arguments {
        bundle,
        expectations,
        json,
    }))
}

fn text_of(path: &str) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"))
}

fn main() -> ExitCode {
    match arguments(std::env::args().skip(1)) {
        Ok(Some(arguments)) => run(&arguments),
        Ok(None) => say(io::stdout(), HELP, DONE),
        Err(problem) => say(io::stderr(), &format!("{problem}; see --help\n"), USAGE),
    }
}

fn run(arguments: &Arguments) -> ExitCode {
    let source: Box<dyn Read> = if arguments.bundle == "-" {
        Box::new(io::stdin().lock())
    } else {
        match File::open(&arguments.bundle) {
            Ok(file) => Box::new(BufReader::new(file)),
            Err(error) => {
                let text = format!("cannot read {}: {error}\n", arguments.bundle);
                return say(io::stderr(), &text, UNREADABLE);
            }
        }
    };
    let is_watched = !arguments.json && io::stderr().is_terminal();
    let mut said = 0;
    let mut progress = |done: u64| {
        if is_watched && done / PROGRESS_STEP > said {
            said = done / PROGRESS_STEP;
            // Nobody is harmed when nobody can be told.
            let _told = writeln!(io::stderr(), "{done} entries");
        }
    };
    match verify(source, &arguments.expectations, &mut progress) {
        Err(error) => say(io::stderr(), &format!("{error}\n"), UNREADABLE),
        Ok(report) => {
            let code = match (report.ok, report.is_suspect()) {
                (false, _) => TAMPERING,
                (true, true) => SUSPECT,
                (true, false) => DONE,
            };
            let text = if arguments.json {
                json(&report)
            } else {
                report.to_string()
            };
            say(io::stdout(), &text, code)
        }
    }
}

fn json(report: &Report) -> String {
    // A report has nothing that JSON has no form for.
    serde_json::to_string(report).unwrap_or_default() + "\n"
}

/// Says it; who cannot hear the verdict gets no good one.
fn say(mut to: impl io::Write, text: &str, code: u8) -> ExitCode {
    match to.write_all(text.as_bytes()).and_then(|()| to.flush()) {
        Ok(()) => ExitCode::from(code),
        Err(_) => ExitCode::from(if code == DONE { UNREADABLE } else { code }),
    }
}
