//! The log read, and the rows of an answer.

use countersign_protocol::event::Stream;
use countersign_protocol::name::{AgentName, Time};
use countersign_protocol::search::Query;
use serde::Serialize;

use super::arguments::{Arguments, Between, Form, Question};
use super::print::{AsOf, Cursor, print};
use crate::acts::{Client, Found, Past, Reach, Since};
use crate::audit::{
    self, Fits, Keep, RunRow, Sight, Span, Why, break_glass, fits, of_person, runs, suspect,
};
use crate::commands::nothing_ran::nothing_ran;
use crate::commands::{Globals, at, moment};
use crate::failure::Failure;
use crate::shapes::{self, CommandShape};
use crate::{clock, console, describe, exit_code, render};

/// Answers.
pub(in crate::commands) async fn audit(
    globals: &Globals,
    arguments: Arguments,
) -> Result<u8, Failure> {
    let json = globals.json;
    if json && arguments.question.is_csv() {
        return Err(Failure::usage(
            "--json and --csv are two forms of one answer; give one of them",
        ));
    }
    match arguments.question {
        Question::NothingRan(arguments) => nothing_ran(globals, arguments).await,
        Question::Why { id, form } => why(globals, &id, &form).await,
        Question::Ran {
            host,
            user,
            span,
            form,
        } => {
            let span = span_of(&span)?;
            let past = past(&globals.connect().await?, &form, Keep::default()).await?;
            let mut rows = runs(&past.chronicle);
            rows.retain(|row| {
                let is_theirs = user.as_ref().is_none_or(|user| row.ran_as(user));
                row.host == host.as_str() && row.ran_within(&span) && is_theirs
            });
            rows.sort_by_key(|row| row.started_seq);
            print(json, &form, &past, &rows, None)
        }
        Question::Person { name, span, form } => {
            let span = span_of(&span)?;
            let past = past(&globals.connect().await?, &form, Keep::default()).await?;
            let rows = of_person(&past.chronicle, &name, &span);
            if rows.is_empty() && !past.rights().state.rights().people().contains(&name) {
                console::note(&format!("the ledger never knew {name}"));
            }
            print(json, &form, &past, &rows, None)
        }
        Question::BreakGlass {
            without_review,
            form,
        } => {
            let past = past(&globals.connect().await?, &form, Keep::default()).await?;
            let mut rows = break_glass(&past.chronicle, clock::now());
            rows.retain(|row| !without_review || row.reviewed_seq.is_none());
            print(json, &form, &past, &rows, None)
        }
        Question::Suspect { marked, form } => {
            let past = past(&globals.connect().await?, &form, Keep::default()).await?;
            let mut rows = suspect(&past.chronicle);
            rows.retain(|row| !marked || row.standing == "suspect");
            print(json, &form, &past, &rows, None)
        }
        Question::Search { query, form } => search(globals, &query, &form).await,
    }
}

fn span_of(between: &Between) -> Result<Span, Failure> {
    Ok(Span {
        from: moment::time_of(between.from)?,
        to: moment::time_of(between.to)?,
    })
}

/// Reads the log as far as the page before did.
async fn past(client: &Client, form: &Form, keep: Keep) -> Result<Past, Failure> {
    let until = Cursor::of(form)?.until();
    let past = client.past(&Reach { until, keep }, &mut |_, _| ()).await?;
    at::tell(&past);
    Ok(past)
}

/// What is printed of `why` as JSON.
#[derive(Serialize)]
struct WhyShape<'a> {
    as_of: AsOf,
    command: CommandShape,
    #[serde(flatten)]
    why: &'a Why,
}

async fn why(globals: &Globals, id: &str, form: &Form) -> Result<u8, Failure> {
    if form.limit.is_some() || form.cursor.is_some() {
        return Err(Failure::usage("what led to one command is one page"));
    }
    let client = globals.connect().await?;
    let Found::Command(id) = client.find(id).await? else {
        return Err(Failure::usage(
            "this is a change of rights, no command: its consents are all that led to it",
        )
        .hint("countersign show ID"));
    };
    let keep = Keep {
        command: Some(id),
        output: false,
    };
    let past = past(&client, form, keep).await?;
    let view = past.command(&id)?;
    let why = audit::why(&past.chronicle, &view);
    if globals.json {
        console::print_json(&WhyShape {
            as_of: AsOf::of(&past),
            command: shapes::command(&view),
            why: &why,
        })?;
    } else if form.csv {
        console::write_raw(false, audit::csv(&why.entries).as_bytes())?;
    } else {
        console::print(&told(&why))?;
    }
    Ok(exit_code::DONE)
}

/// What led to a command, for people: nothing is cut, for the whole of it is what was asked for.
fn told(why: &Why) -> String {
    let mut out = String::new();
    for row in &why.entries {
        let time = Time::from_micros(row.time_us).map_or_else(String::new, render::time);
        out.push_str(&format!("{:>8}  {time}  {}\n", row.seq, row.kind));
        let mut line = |name: &str, text: &str| {
            if !text.is_empty() {
                out.push_str(&format!("          {name:<7} {}\n", render::line(text)));
            }
        };
        line("by", &format!("{} {}", row.who, row.fingerprint));
        line("agreed", &row.agreed.join(", "));
        line("for", &row.gives.join(", "));
        line("says", &row.detail);
    }
    if let Some(needed) = &why.requirement {
        out.push_str(&format!("\nit took: {}\n", describe::price(needed)));
    }
    for rule in &why.rules {
        out.push_str(&format!("\nrule {}\n", render::line(&rule.id)));
        let text = rule.text.as_deref();
        let text = text.unwrap_or("(the text of this policy is not to be had)");
        out.push_str(&render::block(text.trim_end(), "    "));
    }
    out
}

async fn search(globals: &Globals, query: &str, form: &Form) -> Result<u8, Failure> {
    let time = |text: &str| match moment::since(text)? {
        Since::Time(time) => Ok(time),
        Since::Entry(_) => Err("a time, a day, or how long ago: 2026-01-31, 30d".to_owned()),
    };
    let query = audit::parse(query, time).map_err(|error| {
        Failure::usage(error.to_string()).hint("countersign audit search --help")
    })?;
    let client = globals.connect().await?;
    let keep = Keep {
        command: None,
        output: query.reads_output(),
    };
    let past = past(&client, form, keep).await?;
    let (rows, unknown) = found(&client, &past, &query).await?;
    print(globals.json, form, &past, &rows, Some(unknown))
}

/// The runs that fit, and how many nobody can tell of.
async fn found(
    client: &Client,
    past: &Past,
    query: &Query,
) -> Result<(Vec<RunRow>, usize), Failure> {
    let (mut rows, mut unknown) = (Vec::new(), 0);
    for row in runs(&past.chronicle) {
        let mut fit = fits(query, &row, Sight::Unknown);
        // Output is read only where the rest does not decide.
        if fit == Fits::Unknown
            && query.reads_output()
            && let Some(streams) = written(client, past, &row).await?
        {
            fit = fits(query, &row, Sight::Read(&streams));
        }
        match fit {
            Fits::Yes => rows.push(row),
            Fits::No => {}
            Fits::Unknown => unknown += 1,
        }
    }
    Ok((rows, unknown))
}

/// What a run wrote, a stream each; nothing when a part of it is not to be had.
async fn written(
    client: &Client,
    past: &Past,
    row: &RunRow,
) -> Result<Option<Vec<Vec<u8>>>, Failure> {
    let agent: Option<AgentName> = row.host.parse().ok();
    let Some(part) = row.id.parse().ok().zip(agent) else {
        return Ok(None);
    };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    for (seq, stream, named) in past.chronicle.output(&part) {
        let blobs = client.fetch_blobs(*seq, &[*named]).await?;
        let Some(blob) = blobs.blob(named) else {
            return Ok(None);
        };
        match stream {
            Stream::Stdout => out.extend_from_slice(blob.content()),
            Stream::Stderr => err.extend_from_slice(blob.content()),
        }
    }
    Ok(Some(vec![out, err]))
}
