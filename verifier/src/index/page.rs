//! `index.html`: one page without scripts, pictures or anything from elsewhere.
//!
//! All text comes from [`super::shape`], where foreign text was made safe to show; the markup
//! escapes the rest.

use jiff::Timestamp;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::gather::Word;
use super::shape::{CommandShape, HostShape, Index};
use crate::report::Scope;

/// Light and dark, for screens and paper.
const STYLE: &str = include_str!("page.css");

pub(super) fn write(index: &Index) -> String {
    page(index).into_string()
}

/// What a command adds to the page.
pub(super) fn command_size(command: &CommandShape) -> usize {
    self::command(command).into_string().len()
}

fn page(index: &Index) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width";
                meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'";
                title { "Evidence: " (index.origin) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (head(index))
                main {
                    h2 { "Commands" }
                    @if index.commands.is_empty() { p { "None." } }
                    @for command in &index.commands { (self::command(command)) }
                    @if index.more_commands > 0 {
                        p { (index.more_commands) " older commands are in the bundle and not on this page." }
                    }
                    (people(index))
                    (changes(index))
                }
                footer {
                    "Written from the bundle's entries. Whoever verifies the bundle writes this page again and compares; a page that was not verified proves nothing."
                }
            }
        }
    }
}

fn head(index: &Index) -> Markup {
    let scope = match index.scope {
        Scope::Whole => "the whole ledger",
        Scope::Excerpt => "chosen commands, with everything on rights",
    };
    html! {
        header {
            h1 { "Evidence of " (index.origin) }
            dl {
                dt { "Ledger" } dd { code { (index.ledger) } }
                dt { "Holds" } dd { (scope) ": " (index.entries) " entries of " (index.size) }
                dt { "Last entry" } dd { (time(index.last_entry_us)) }
            }
        }
    }
}

fn command(command: &CommandShape) -> Markup {
    let asked = time(command.requested_us);
    html! {
        section id=(command.id) {
            h3 {
                span class={ "status " (command.status) } { (command.status) } " "
                code { (command.runs.as_deref().unwrap_or("(withheld)")) }
            }
            dl {
                dt { "Asked by" } dd { (command.requester) ", " (asked) }
                @if let Some(user) = &command.user { dt { "As user" } dd { (user) } }
                @if let Some(cwd) = &command.cwd { dt { "In" } dd { code { (cwd) } } }
                @if command.break_glass { dt { "Break-glass" } dd { "ran without approvals" } }
                dt { "Id" } dd { (command.short) " " code { (command.id) } }
            }
            (words(&command.words, command.more_words))
            @for host in &command.hosts { (self::host(host)) }
            @if command.more_hosts > 0 { p { (command.more_hosts) " more hosts." } }
        }
    }
}

fn words(words: &[Word], more: u64) -> Markup {
    html! {
        table {
            thead { tr { th { "Entry" } th { "Time" } th { "Who" } th { "What" } th { "In their words" } } }
            tbody {
                @for word in words {
                    tr {
                        td { (word.seq) }
                        td { (time(word.time_us)) }
                        td title=(word.key) { (word.by) }
                        td { (word.kind) }
                        td { (word.text.as_deref().unwrap_or("")) }
                    }
                }
            }
        }
        @if more > 0 { p { (more) " more." } }
    }
}

fn host(host: &HostShape) -> Markup {
    html! {
        h4 {
            (host.agent) ": " (host.status)
            @if let Some(outcome) = host.outcome { ", " (outcome) }
            @if let Some(code) = host.exit_code { " with " (code) }
            @if let Some(signal) = host.signal { " by signal " (signal) }
            @if let Some(took) = host.duration_us { ", " (took / 1000) " ms" }
            @if let Some(seq) = host.started_seq { ", started in entry " (seq) }
        }
        @if let Some(runs) = &host.runs { p { code { (runs) } } }
        @if !host.stdout.is_empty() { pre { (host.stdout) } }
        @if !host.stderr.is_empty() { pre class="stderr" { (host.stderr) } }
        @if host.is_cut { p { "There is more output than is shown here." } }
    }
}

fn people(index: &Index) -> Markup {
    html! {
        h2 { "People, at the last entry" }
        table {
            thead { tr { th { "Who" } th { "Roles" } th { "Keys" } } }
            tbody {
                @for person in &index.people {
                    tr {
                        td { (person.principal) }
                        td { (person.roles.join(", ")) }
                        td { @for key in &person.keys { code { (key) } " " } }
                    }
                }
            }
        }
    }
}

fn changes(index: &Index) -> Markup {
    html! {
        h2 { "Keys, people, hosts and rules" }
        @if index.more_changes > 0 { p { (index.more_changes) " older entries are in the bundle and not on this page." } }
        (words(&index.changes, 0))
    }
}

/// UTC, to the second.
fn time(us: u64) -> String {
    let stamp = i64::try_from(us)
        .ok()
        .and_then(|us| Timestamp::from_microsecond(us).ok());
    stamp.map_or_else(
        || format!("{us} us"),
        |stamp| stamp.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
    )
}
