//! Words for people: a command, a list. Only escaped text leaves this file.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use comfy_table::{ContentArrangement, Table, presets};
use countersign_protocol::command::{AtOutputLimit, Mode};
use countersign_protocol::event::{ExecutionCompleted, RefusalReason, Stream};
use countersign_protocol::facts::{self, Run};
use countersign_protocol::hash::Digest;
use countersign_protocol::key;
use countersign_protocol::lifecycle::{
    Command, CommandStatus, Execution, ExecutionStatus, LOST_GRACE_US, Refused,
};
use countersign_protocol::name::{AgentName, SECOND_US};
use countersign_protocol::secret::Delivery;
use countersign_protocol::short;
use countersign_protocol::view::{Skipped, outcome_word};
use sha2::{Digest as _, Sha256};

use super::erasure::redactions;
use super::requirement::{duration, requirement, votes};
use super::rollout::{rollout, standing};
use crate::acts::Retried;
use crate::shapes::FilledShape;
use crate::streams::Held;
use crate::view::{CommandView, Deed, Start, Word};
use crate::{alike, render};

/// Standard input that is shown whole to whoever approves; of more the beginning and the digest.
const MAX_STDIN_SHOWN: usize = 64 * 1024;

/// Columns of a name in a list; longer ones are cut and counted.
const NAME_COLUMNS: usize = 48;

/// Targets that a list names before it counts.
const LISTED_TARGETS: usize = 4;

/// What stands before the lines of a text in a description.
const INDENT: &str = "    ";

/// A line of a description: a name in its column, then what it is.
pub(super) fn row(out: &mut String, name: &str, value: &str) {
    let written = writeln!(out, "{name:<10} {value}");
    debug_assert!(written.is_ok(), "writing to a String does not fail");
}

/// A status word, coloured; colours never reach what is no terminal.
#[must_use]
pub fn status(status: CommandStatus) -> String {
    let colour = match status {
        CommandStatus::Completed => AnsiColor::Green,
        CommandStatus::Requested | CommandStatus::Authorized | CommandStatus::Running => {
            AnsiColor::Yellow
        }
        CommandStatus::Rejected
        | CommandStatus::Withdrawn
        | CommandStatus::Expired
        | CommandStatus::Failed
        | CommandStatus::Partial
        | CommandStatus::Cancelled
        | CommandStatus::Refused
        | CommandStatus::Lost => AnsiColor::Red,
    };
    let style = Style::new().fg_color(Some(colour.into())).bold();
    format!("{style}{}{style:#}", status.as_str())
}

pub(super) fn absent<T>(held: &Held<T>) -> &'static str {
    match held {
        Held::Here(_) => "",
        Held::Redacted => "(erased)",
        Held::Withheld => "(you may not read this)",
    }
}

/// Everything that would run, in full: what an approver reads before signing.
#[must_use]
pub fn act(view: &CommandView) -> String {
    let mut out = String::new();
    let act = view.command.act();
    let id = view.id();
    row(&mut out, "command", &format!("{}  {id}", short::short(&id)));
    let asked = render::time(view.command.requested.time);
    row(
        &mut out,
        "asked by",
        &format!("{}, {asked}", view.command.requester()),
    );
    // Its own word, and signed by the gateway: the person's key has not been near it.
    if let Some(token) = &view.command.request.token {
        let text = format!(
            "{token} asked for it, in the name of {}, who signed nothing",
            view.command.requester()
        );
        row(&mut out, "API token", &text);
    }
    match view.reason.here() {
        Some(reason) => free_text(&mut out, "reason", reason),
        None => row(&mut out, "reason", absent(&view.reason)),
    }
    if let Some(retried) = &view.retried {
        retry(&mut out, view, retried);
    }
    hosts(&mut out, view);
    program(&mut out, view);
    let user = act.user.as_ref().map(ToString::to_string);
    let user = user.unwrap_or_else(|| "whom the host's own configuration names".to_owned());
    row(&mut out, "as user", &user);
    environment(&mut out, view);
    stdin(&mut out, view);
    secrets(&mut out, view);
    let foreign = foreign(view);
    if !foreign.is_empty() {
        let text = format!(
            "characters outside ASCII, which may look like others, are in {}",
            foreign.join(", ")
        );
        row(&mut out, "note", &text);
    }
    row(
        &mut out,
        "limits",
        &format!(
            "{}, {} of output {}",
            duration(act.timeout_ms),
            size(act.output_limit),
            match act.at_output_limit {
                None => "kept",
                Some(AtOutputLimit::Stop) => "and then it is ended",
            }
        ),
    );
    if let Some(asked) = &act.rollout {
        row(&mut out, "rollout", &rollout(asked));
    }
    // Usually a little earlier, so that clocks may differ: then it says nothing.
    if act.not_before > view.command.requested.time {
        row(&mut out, "not before", &render::time(act.not_before));
    }
    row(&mut out, "open until", &render::time(act.expires_at));
    out
}

/// What this runs again: how the earlier one came out on each of these hosts, and what that means.
fn retry(out: &mut String, view: &CommandView, retried: &Retried) {
    let code = short::short(&retried.of);
    let Some(earlier) = &retried.earlier else {
        let text = format!(
            "{code}, says the request; the server does not show you that one, so it was not checked here"
        );
        return row(out, "retry of", &text);
    };
    let lines = view.command.targets.iter().flat_map(|list| list.lines());
    let again: Vec<String> = lines.map(|line| came(earlier, &line.agent)).collect();
    let all = earlier.executions.len();
    let text = format!(
        "{code}, on {} of its {all} hosts, where it came out:",
        again.len()
    );
    row(out, "retry of", &text);
    for line in again {
        row(out, "", &line);
    }
    if retried.lost {
        let text = "lost hosts are meant too: such a host may have run it, and would run it twice";
        row(out, "CAREFUL", text);
    }
}

/// How a command came out on a host, in a few words: `web-1 failed (exited with code 3)`.
#[must_use]
pub fn came(command: &Command, agent: &AgentName) -> String {
    let Some(part) = command.executions.get(agent) else {
        return format!("{agent} unknown");
    };
    // Before it was authorized nothing waits for anything any more.
    let word = if part.status == ExecutionStatus::Waiting {
        "never started"
    } else {
        alike::Verdict::of(part).as_str()
    };
    let why = part.completed.as_ref().map(end);
    let skip = || Skipped::of(part).map(|why| why.as_str().to_owned());
    match why.or_else(skip) {
        Some(why) => format!("{agent} {word} ({why})"),
        None => format!("{agent} {word}"),
    }
}

/// What was made safe already, as names and words are: in its row, or below it where it is long.
pub(super) fn paragraph(out: &mut String, name: &str, shown: &str) {
    if !shown.contains('\n') && shown.chars().count() <= render::WRAP_COLUMNS {
        row(out, name, &render::line(shown));
    } else {
        row(out, name, "");
        out.push_str(&render::wrapped(shown, INDENT));
    }
}

/// Free text of others, exact: in its row, or below it where it has several lines.
pub(super) fn free_text(out: &mut String, name: &str, text: &str) {
    let shown = render::block(text, "");
    match shown.trim_end_matches('\n') {
        line if line.len() + 1 == shown.len() && !line.contains('\n') => row(out, name, line),
        _lines => {
            row(out, name, "");
            out.push_str(&render::block(text, INDENT));
        }
    }
}

fn hosts(out: &mut String, view: &CommandView) {
    match &view.command.targets {
        None => row(out, "hosts", "(the list cannot be read)"),
        Some(list) => {
            let names: Vec<String> = list.by_turn().map(|(_, line)| line.to_string()).collect();
            paragraph(
                out,
                "hosts",
                &format!("{} ({})", names.join(", "), names.len()),
            );
        }
    }
}

fn program(out: &mut String, view: &CommandView) {
    let Some(spec) = view.spec.here() else {
        row(out, "runs", absent(&view.spec));
        return;
    };
    match spec.mode {
        Mode::Exec => paragraph(out, "runs", &render::words(&spec.argv)),
        Mode::Action => {
            let name = spec.argv.first().map_or("", String::as_str);
            let what = format!("the action {} as each host has it", render::word(name));
            row(out, "runs", &what);
            let arguments = spec.argv.get(1..).unwrap_or_default();
            if arguments.is_empty() {
                row(out, "with", "no arguments");
            } else {
                paragraph(out, "with", &render::words(arguments));
            }
        }
        Mode::Shell => {
            row(
                out,
                "runs",
                "a shell script (/bin/sh -c), between the lines:",
            );
            let script = spec.argv.first().map_or("", String::as_str);
            row(out, "", "----");
            out.push_str(&render::block(script, INDENT));
            row(out, "", "----");
        }
    }
    let targets = view.command.targets.as_ref();
    match targets.map(|list| facts::runs(spec, list)) {
        Some(Ok(runs)) => {
            for line in self::runs(&runs) {
                row(out, "", &line);
            }
        }
        // Nothing such gets into a log that keeps its rules.
        Some(Err(error)) => row(out, "CAREFUL", &error.to_string()),
        None => {}
    }
    let directory = spec.cwd.as_deref().map(render::word);
    let otherwise = match spec.mode {
        Mode::Exec | Mode::Shell => "/",
        Mode::Action => "the action's own",
    };
    row(out, "directory", directory.as_deref().unwrap_or(otherwise));
}

/// Where letters are that may look like others.
fn foreign(view: &CommandView) -> Vec<&'static str> {
    let spec = view.spec.here();
    let words = spec.is_some_and(|spec| spec.argv.iter().any(|word| render::is_foreign(word)));
    let directory = spec.and_then(|spec| spec.cwd.as_deref());
    let environment = view.env.as_ref().and_then(Held::here);
    let mut variables = environment
        .into_iter()
        .flat_map(|environment| environment.variables());
    let stdin = view.stdin.as_ref().and_then(Held::here);
    // Bytes that are no characters are shown as escapes.
    let mut chunks = stdin.into_iter().flat_map(|bytes| bytes.utf8_chunks());
    let places = [
        ("what runs", words),
        ("its directory", directory.is_some_and(render::is_foreign)),
        (
            "its variables",
            variables.any(|(name, value)| render::is_foreign(name) || render::is_foreign(value)),
        ),
        (
            "its standard input",
            chunks.any(|chunk| render::is_foreign(chunk.valid())),
        ),
    ];
    let there = places.into_iter().filter(|(_, there)| *there);
    there.map(|(place, _)| place).collect()
}

fn environment(out: &mut String, view: &CommandView) {
    match &view.env {
        None => row(out, "variables", "none"),
        Some(Held::Here(environment)) => {
            for (name, value) in environment.variables() {
                let shown = format!("{}={}", render::word(name), render::word(value));
                paragraph(out, "variable", &shown);
            }
        }
        Some(held) => row(out, "variables", absent(held)),
    }
}

/// By name and commitment: who approves allows a value without seeing it.
fn secrets(out: &mut String, view: &CommandView) {
    match &view.secrets {
        None => {}
        Some(Held::Here(sealed)) => {
            for secret in sealed.secrets() {
                let how = match secret.delivery {
                    Delivery::File => "a file",
                    Delivery::Env => "a variable",
                    Delivery::Stdin => "standard input",
                };
                let (name, hosts) = (&secret.name, secret.boxes.len());
                let shown = format!(
                    "{name} as {how}, sealed to {hosts} of the hosts; digest {}",
                    secret.digest
                );
                row(out, "secret", &shown);
            }
        }
        Some(held) => row(out, "secrets", absent(held)),
    }
}

fn stdin(out: &mut String, view: &CommandView) {
    match &view.stdin {
        None => row(out, "stdin", "none"),
        Some(Held::Here(bytes)) => {
            let digest = hex::encode(Sha256::digest(bytes));
            row(
                out,
                "stdin",
                &format!("{} bytes, SHA-256 {digest}:", bytes.len()),
            );
            let shown = bytes.get(..MAX_STDIN_SHOWN).unwrap_or(bytes);
            out.push_str(&render::block(shown, INDENT));
            if shown.len() < bytes.len() {
                let rest = bytes.len() - shown.len();
                row(
                    out,
                    "",
                    &format!("({rest} more bytes are not shown; compare the SHA-256)"),
                );
            }
        }
        Some(held) => row(out, "stdin", absent(held)),
    }
}

/// `show`: the act, what people said, what came out, and what that rests on.
#[must_use]
pub fn command(view: &CommandView) -> String {
    let mut out = act(view);
    row(&mut out, "status", &status(view.command.status()));
    row(&mut out, "needs", &requirement(view));
    if let Some(votes) = votes(view) {
        row(&mut out, "noes", &votes);
    }
    let how = match view.command.plan {
        Some(_) => "in turns",
        None => "at once",
    };
    for (first, line) in standing(&view.command).iter().enumerate() {
        row(&mut out, if first == 0 { how } else { "" }, line);
    }
    for word in &view.words {
        row(&mut out, deed(word.deed), &word_line(word));
    }
    for (first, line) in alike::summary(&view.command.executions).iter().enumerate() {
        row(&mut out, if first == 0 { "came out" } else { "" }, line);
    }
    for (agent, part) in &view.command.executions {
        out.push('\n');
        execution(&mut out, view, agent, part);
    }
    if !view.redactions.is_empty() {
        out.push('\n');
        out.push_str(&redactions(&view.redactions));
    }
    let _infallible = writeln!(
        out,
        "\nverified from the bytes of {} entries, all in the checkpoint of {} entries",
        view.entries.len(),
        view.size
    );
    out
}

/// The word for what a person did.
#[must_use]
pub const fn deed(deed: Deed) -> &'static str {
    match deed {
        Deed::Approved => "approved",
        Deed::Rejected => "rejected",
        Deed::Withdrew => "withdrawn",
        Deed::Cancelled => "cancel",
        Deed::Paused => "paused",
        Deed::Resumed => "resumed",
        Deed::Continued => "continued",
    }
}

fn word_line(word: &Word) -> String {
    let mut line = format!(
        "by {}, {} (entry {}, {})",
        word.principal,
        render::time(word.time),
        word.seq,
        key::fingerprint(&word.key_id)
    );
    match &word.reason {
        None => {}
        Some(Held::Here(reason)) => {
            line.push_str(": ");
            line.push_str(&render::cut(reason, render::MAX_COLUMNS));
        }
        Some(held) => line.push_str(absent(held)),
    }
    line
}

/// Why a host would not run it: the class, the host's rule, the host's own sentence.
#[must_use]
pub fn refused(view: &CommandView, refused: &Refused) -> String {
    let mut text = refusal(refused.why).to_owned();
    if let Some(rule) = &refused.rule {
        let _infallible = write!(text, " (its rule or setting {rule})");
    }
    let detail = refused.detail.as_ref();
    if let Some(detail) = detail.and_then(|named| view.texts.get(&named.digest)) {
        text.push_str(": ");
        text.push_str(&held_line(detail));
    }
    text
}

fn held_line(held: &Held<String>) -> String {
    match held {
        Held::Here(text) => render::cut(text, render::MAX_COLUMNS),
        Held::Redacted | Held::Withheld => absent(held).to_owned(),
    }
}

/// How a run ended by itself or was ended: `exited with code 1`, `signalled by signal 9`.
#[must_use]
pub fn end(done: &ExecutionCompleted) -> String {
    let mut text = outcome_word(done.outcome).to_owned();
    if let Some(code) = done.exit_code {
        let _infallible = write!(text, " with code {code}");
    }
    if let Some(signal) = done.signal {
        let _infallible = write!(text, " by signal {signal}");
    }
    text
}

/// How one host's part ended, in a few words.
#[must_use]
pub fn ending(view: &CommandView, part: &Execution) -> String {
    let mut text = part.status.as_str().to_owned();
    if let Some(why) = &part.refused {
        text.push_str(": ");
        text.push_str(&refused(view, why));
    }
    if let Some(why) = Skipped::of(part) {
        text.push_str(": ");
        text.push_str(skipped(why));
    }
    if part.lost.is_some() {
        let _infallible = write!(
            text,
            ": nobody can say how it ended (the agent was silent {} s past the timeout, or crashed)",
            LOST_GRACE_US / SECOND_US
        );
    }
    if let Some(done) = &part.completed {
        text.push_str(", ");
        text.push_str(&end(done));
        let _infallible = write!(text, " after {} ms", done.duration_us / 1000);
        let detail = done.detail.as_ref();
        if let Some(detail) = detail.and_then(|named| view.texts.get(&named.digest)) {
            text.push_str(": ");
            text.push_str(&held_line(detail));
        }
        if done.is_truncated() {
            text.push_str(", output cut at its limit");
        }
        if let Some(masked) = done.masked.filter(|masked| *masked > 0) {
            let _infallible = write!(text, ", secrets masked in its output: {masked}");
        }
        if !done.tree_gone {
            text.push_str(", PROCESSES OF IT MAY STILL RUN");
        }
        if view.is_contradicted(&done.agent) {
            text.push_str(
                ", ITS OUTPUT IS NOT WHAT IT SAYS OF IT AT THE END: it lies, or its key was stolen",
            );
        }
    }
    if part.late {
        text.push_str(" (the agent's word came late)");
    }
    text
}

/// Why a host never started it.
#[must_use]
pub const fn skipped(why: Skipped) -> &'static str {
    match why {
        Skipped::Errors => "not started, because more hosts ended badly than the rollout allows",
        Skipped::TurnMissed => "did not start in its turn; its agent may be away",
        Skipped::Expired => "did not start before the command's time was over",
    }
}

const fn refusal(why: RefusalReason) -> &'static str {
    match why {
        RefusalReason::Disabled => "execution is switched off on this host",
        RefusalReason::NotAllowed => "a local rule forbids it, or none allows it",
        RefusalReason::Approvals => "too few approvals by people whom this host pins",
        RefusalReason::Time => "too early or too late by this host's own clock",
        RefusalReason::Grant => "the grant does not verify",
        RefusalReason::Used => "this grant was used already",
        RefusalReason::Unusable => "directory, user or program cannot be had",
        RefusalReason::Busy => "too much runs on this host already",
    }
}

fn execution(out: &mut String, view: &CommandView, agent: &AgentName, part: &Execution) {
    row(out, "host", &format!("{agent}: {}", ending(view, part)));
    if let Some(start) = view.starts.get(agent) {
        started(out, start);
    }
    let Some(output) = view.outputs.get(agent) else {
        return;
    };
    for stream in [Stream::Stdout, Stream::Stderr] {
        let bytes = output.bytes(stream);
        if bytes.is_empty() {
            continue;
        }
        let mut escaper = render::Escaper::default();
        let text = escaper.push(&bytes) + &escaper.finish();
        row(
            out,
            crate::view::stream_word(stream),
            &format!("{} bytes:", bytes.len()),
        );
        let text = text.strip_suffix('\n').unwrap_or(&text);
        out.push_str(&render::wrapped(text, INDENT));
    }
    if !output.is_whole() {
        row(
            out,
            "note",
            "a part of the output was erased or is not for you to read",
        );
    }
}

/// What the host opened before it ran it.
fn started(out: &mut String, start: &Start) {
    let opened = |path: &str, sha256: &Digest| format!("{path}, SHA-256 {sha256}");
    match &start.steps {
        None => paragraph(
            out,
            "program",
            &opened(&held_line(&start.path), &start.sha256),
        ),
        Some(Held::Here(Some(steps))) => {
            for (at, step) in steps.iter().enumerate() {
                row(
                    out,
                    "step",
                    &format!("{}: {}", at + 1, render::words(&step.argv)),
                );
                paragraph(
                    out,
                    "program",
                    &opened(&render::line(&step.path), &step.sha256),
                );
            }
        }
        Some(Held::Here(None)) => row(out, "steps", "(of a form that this client does not know)"),
        Some(held) => row(out, "steps", absent(held)),
    }
}

/// A table: headings, then rows of text that came from elsewhere.
#[must_use]
pub fn table(headings: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(headings.iter().copied());
    for cells in rows {
        let cells: Vec<String> = cells
            .iter()
            .map(|cell| render::cut(cell, NAME_COLUMNS * 2))
            .collect();
        table.add_row(cells);
    }
    format!("{}\n", table.trim_fmt())
}

/// Bytes as people say them, exact.
fn size(bytes: u64) -> String {
    const KIB: u64 = 1024;
    if bytes > 0 && bytes.is_multiple_of(KIB * KIB) {
        format!("{} MiB", bytes / KIB / KIB)
    } else if bytes > 0 && bytes.is_multiple_of(KIB) {
        format!("{} KiB", bytes / KIB)
    } else {
        format!("{bytes} bytes")
    }
}

/// Most different command lines that are shown of a request; --json has all.
const LISTED_RUNS: usize = 20;

/// What hosts run with their own facts in it: a line for each different one.
#[must_use]
pub fn runs(runs: &[Run<'_>]) -> Vec<String> {
    let mut shown: Vec<String> = runs
        .iter()
        .take(LISTED_RUNS)
        .map(|run| {
            let hosts: Vec<String> = run.lines.iter().map(ToString::to_string).collect();
            format!("on {} runs {}", few(&hosts), render::words(&run.words))
        })
        .collect();
    let more = runs.len().saturating_sub(LISTED_RUNS);
    if more > 0 {
        shown.push(format!(
            "and {more} more of {} different command lines; --json shows all",
            runs.len()
        ));
    }
    shown
}

/// What a command runs, in one line: with facts in it where it is the same on all of its hosts, else
/// as it was asked for, after a note, which a list may not cut off.
#[must_use]
pub fn filled(argv: &[String], runs: &[FilledShape]) -> String {
    match runs {
        [] => render::words(argv),
        [only] => render::words(&only.argv),
        [_, _, ..] => format!(
            "each host with its own facts (countersign show ID): {}",
            render::words(argv)
        ),
    }
}

/// The hosts of a list's line.
#[must_use]
pub fn few(names: &[String]) -> String {
    first(names, |name| render::cut(name, NAME_COLUMNS))
}

/// The first of several, whole, and how many more there are.
#[must_use]
pub fn some(all: &[String]) -> String {
    first(all, Clone::clone)
}

fn first(all: &[String], shown: impl Fn(&String) -> String) -> String {
    let shown: Vec<String> = all.iter().take(LISTED_TARGETS).map(shown).collect();
    match all.len().saturating_sub(LISTED_TARGETS) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
