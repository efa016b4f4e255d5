//! What came of each check: a line for people as it is known, and one document for scripts.

use std::time::Duration;

use serde::Serialize;

use super::expected::Check;
use crate::failure::Failure;
use crate::{console, exit_code, render};

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Came {
    /// As it must.
    Ok,
    /// Otherwise.
    Failed,
    /// Not tried.
    LeftOut,
}

/// Why a check is not well.
#[derive(Debug, Clone)]
pub(super) struct Bad {
    came: Came,
    said: String,
    hint: Option<String>,
    /// The exit code that it alone would have.
    pub(super) exit: u8,
}

impl Bad {
    /// It came out otherwise than it must.
    pub(super) fn failed(said: impl Into<String>) -> Self {
        Self {
            came: Came::Failed,
            said: said.into(),
            hint: None,
            exit: exit_code::FAILED,
        }
    }

    /// It could not be tried.
    pub(super) fn left_out(said: impl Into<String>) -> Self {
        Self {
            came: Came::LeftOut,
            exit: exit_code::LEFT_OUT,
            ..Self::failed(said)
        }
    }

    /// What to do.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<Failure> for Bad {
    fn from(failure: Failure) -> Self {
        let exit = if failure.exit == exit_code::TAMPERING {
            exit_code::TAMPERING
        } else {
            exit_code::FAILED
        };
        Self {
            came: Came::Failed,
            said: failure.message().to_owned(),
            hint: failure.hint,
            exit,
        }
    }
}

/// A check that is over.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Line {
    check: Check,
    came: Came,
    took_ms: u64,
    said: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    #[serde(skip)]
    exit: u8,
}

/// Width of the longest word for a check, so that the sentences stand below each other.
const NAME_WIDTH: usize = 10;

impl Line {
    fn new(check: Check, outcome: Result<String, Bad>, took: Duration) -> Self {
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let (came, said, hint, exit) = match outcome {
            Ok(said) => (Came::Ok, said, None, exit_code::DONE),
            Err(bad) => (bad.came, bad.said, bad.hint, bad.exit),
        };
        Self {
            check,
            came,
            took_ms,
            said,
            hint,
            exit,
        }
    }

    fn text(&self) -> String {
        let word = match self.came {
            Came::Ok => "ok",
            Came::Failed => "FAILED",
            Came::LeftOut => "LEFT OUT",
        };
        let (name, said) = (self.check.as_str(), render::line(&self.said));
        let mut text = format!("{word:<9} {name:<NAME_WIDTH$} {said}");
        if self.came != Came::LeftOut {
            let (seconds, tenths) = (self.took_ms / 1000, self.took_ms % 1000 / 100);
            text.push_str(&format!("  {seconds}.{tenths} s"));
        }
        text.push('\n');
        if let Some(hint) = &self.hint {
            text.push_str(&format!(
                "{:10}{:<NAME_WIDTH$} {}\n",
                "",
                "",
                render::line(hint)
            ));
        }
        text
    }
}

/// All lines, as they come.
#[derive(Debug)]
pub(super) struct Report {
    lines: Vec<Line>,
    json: bool,
}

/// The document of `--json`.
#[derive(Debug, Serialize)]
struct Document<'a> {
    /// Nothing failed.
    ok: bool,
    /// Everything was tried.
    complete: bool,
    failed: usize,
    left_out: usize,
    server: &'a str,
    host: Option<String>,
    checks: &'a [Line],
}

impl Report {
    pub(super) const fn new(json: bool) -> Self {
        Self {
            lines: Vec::new(),
            json,
        }
    }

    /// Takes a line and, for people, prints it.
    pub(super) fn take(
        &mut self,
        check: Check,
        outcome: Result<String, Bad>,
        took: Duration,
    ) -> Result<(), Failure> {
        let line = Line::new(check, outcome, took);
        if !self.json {
            console::print(&line.text())?;
        }
        self.lines.push(line);
        Ok(())
    }

    fn count(&self, came: Came) -> usize {
        self.lines.iter().filter(|line| line.came == came).count()
    }

    /// Says what came of all, and gives the exit code.
    pub(super) fn end(
        &self,
        server: &str,
        host: Option<String>,
        allow_left_out: bool,
    ) -> Result<u8, Failure> {
        let (failed, left_out) = (self.count(Came::Failed), self.count(Came::LeftOut));
        if self.json {
            console::print_json(&Document {
                ok: failed == 0,
                complete: left_out == 0,
                failed,
                left_out,
                server,
                host,
                checks: &self.lines,
            })?;
        } else {
            let ok = self.count(Came::Ok);
            console::print(&format!("{ok} ok, {failed} failed, {left_out} left out\n"))?;
            if left_out > 0 && failed == 0 {
                console::note(if allow_left_out {
                    "countersign: what was left out is not known to work"
                } else {
                    "countersign: what was left out is not known to work; --allow-left-out if that is as it should be"
                });
            }
        }
        Ok(self.exit(allow_left_out))
    }

    fn exit(&self, allow_left_out: bool) -> u8 {
        let codes = || self.lines.iter().map(|line| line.exit);
        for code in [exit_code::TAMPERING, exit_code::FAILED] {
            if codes().any(|found| found == code) {
                return code;
            }
        }
        if !allow_left_out && codes().any(|found| found == exit_code::LEFT_OUT) {
            return exit_code::LEFT_OUT;
        }
        exit_code::DONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(bad: &[Bad], allow_left_out: bool) -> u8 {
        let mut report = Report::new(true);
        let mut take = |outcome| report.take(Check::Health, outcome, Duration::ZERO).unwrap();
        take(Ok("well".to_owned()));
        bad.iter().for_each(|bad| take(Err(bad.clone())));
        report.exit(allow_left_out)
    }

    #[test]
    fn the_worst_line_gives_the_exit_code_and_what_was_left_out_is_not_well() {
        let (failed, left_out) = (Bad::failed("x"), Bad::left_out("y"));
        let tampering = Bad::from(Failure::tampering("fork", "z"));
        assert_eq!(exit(&[], false), exit_code::DONE);
        let only_left_out = std::slice::from_ref(&left_out);
        assert_eq!(exit(only_left_out, false), exit_code::LEFT_OUT);
        assert_eq!(exit(only_left_out, true), exit_code::DONE);
        let both = [left_out, failed.clone()];
        assert_eq!(exit(&both, true), exit_code::FAILED);
        assert_eq!(exit(&[failed, tampering], true), exit_code::TAMPERING);
    }

    #[test]
    fn a_line_says_how_it_came_out_and_what_to_do() {
        let took = Duration::from_millis(1470);
        let ok = Line::new(Check::Timeout, Ok("ended after 1 s".to_owned()), took);
        assert_eq!(ok.text(), "ok        timeout    ended after 1 s  1.4 s\n");
        let bad = Bad::left_out("no shell").hint("allow it");
        let text = Line::new(Check::Pipeline, Err(bad), took).text();
        assert!(
            text.starts_with("LEFT OUT  pipeline   no shell\n"),
            "{text}"
        );
        assert!(text.ends_with(" allow it\n"), "{text}");
    }
}
