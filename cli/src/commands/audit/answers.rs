//! What a server finds, proved, or the whole log read; and the rows of an answer.

use std::collections::BTreeMap;

use countersign_protocol::event::Stream;
use countersign_protocol::name::{AgentName, Time};
use countersign_protocol::search::{Query, Ran, SearchFor, SearchHit};
use serde::Serialize;

use super::arguments::{Arguments, Between, Form, Question};
use super::print::{AsOf, Complete, Cursor, FoundCursor, Rows, print, wanted};
use crate::acts::{Client, Found, Hits, Past, Reach, Since, lied};
use crate::audit::{
    self, BreakGlassRow, Fits, Keep, Record, RunRow, Sight, Span, Why, break_glass, fits,
    of_person, runs, suspect,
};
use crate::commands::nothing_ran::nothing_ran;
use crate::commands::progress::Progress;
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
            let wish = RanWish {
                host,
                user,
                span: span_of(&span)?,
            };
            ran(globals, &wish, &form).await
        }
        Question::Person { name, span, form } => {
            let span = span_of(&span)?;
            let past = past(&globals.connect().await?, &form, Keep::default()).await?;
            let rows = of_person(&past.chronicle, &name, &span);
            if rows.is_empty() && !past.rights().state.rights().people().contains(&name) {
                console::note(&format!("the ledger never knew {name}"));
            }
            print(json, &form, Rows::whole(&form, &past, &rows)?, None)
        }
        Question::BreakGlass {
            without_review,
            form,
        } => glass(globals, without_review, &form).await,
        Question::Suspect { marked, form } => {
            let past = past(&globals.connect().await?, &form, Keep::default()).await?;
            let mut rows = suspect(&past.chronicle);
            rows.retain(|row| !marked || row.standing == "suspect");
            print(json, &form, Rows::whole(&form, &past, &rows)?, None)
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
    let mut progress = Progress::new();
    let mut tell = |done, of| progress.tell(done, of);
    let past = client.past(&Reach { until, keep }, &mut tell).await?;
    at::tell(&past);
    Ok(past)
}

/// What is printed of `why` as JSON.
#[derive(Serialize)]
struct WhyShape<'a> {
    as_of: AsOf,
    complete: Complete,
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
    let past = if form.whole {
        past(&client, form, keep).await?
    } else {
        let point = client.point(None).await?;
        let past = client.gathered(&point, keep, &[id]).await?;
        at::tell(&past);
        past
    };
    let view = past.command(&id)?;
    let why = audit::why(&past.chronicle, &view);
    if globals.json {
        console::print_json(&WhyShape {
            as_of: AsOf::of(&past),
            complete: if form.whole {
                Complete::Audited
            } else {
                Complete::Server
            },
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
    if form.whole {
        let past = past(&client, form, keep).await?;
        let (rows, unknown) = fitting(&client, &past, &query).await?;
        let rows = Rows::whole(form, &past, &rows)?;
        return print(globals.json, form, rows, Some(unknown));
    }
    let mut hits = hits(&client, form, SearchFor::Runs(query.clone())).await?;
    let (mut rows, mut unknown) = (Vec::new(), 0);
    while let Some((past, found)) = hits.next(keep).await? {
        for row in named(&past, &found)? {
            match fit(&client, &past, &query, &row).await? {
                Fits::Yes => rows.push(row),
                Fits::Unknown => unknown += 1,
                // What lies in two pieces of output, or went on since, an index cannot tell.
                Fits::No if query.reads_output() || went_on(&past, &row.id) => {}
                Fits::No => return Err(misled(&row.id, "its row does not fit the query")),
            }
        }
    }
    answer(globals, form, &hits, &rows, Some(unknown))
}

/// Prints a page of what was found and proved, and where the next one begins.
fn answer<T: Record>(
    globals: &Globals,
    form: &Form,
    hits: &Hits<'_>,
    rows: &[T],
    unknown: Option<usize>,
) -> Result<u8, Failure> {
    let next = FoundCursor::text(&hits.point, hits.cursor());
    let rows = Rows::found(&hits.point, rows, next);
    print(globals.json, form, rows, unknown)
}

/// A search of the server's indexes, where the page before ended; says what an answer rests on.
async fn hits<'a>(client: &'a Client, form: &Form, search: SearchFor) -> Result<Hits<'a>, Failure> {
    let cursor = FoundCursor::of(form)?;
    let point = client.point(cursor.size.map(Since::Entry)).await?;
    at::tell_point(&point);
    Ok(client.hits(point, search, cursor.after, wanted(form)))
}

/// The rows that a server named, in its order. One that its command does not have is a lie.
fn named(past: &Past, found: &[SearchHit]) -> Result<Vec<RunRow>, Failure> {
    let rows = runs(&past.chronicle);
    let key = |row: &RunRow| (row.id.clone(), row.host.clone());
    let mut rows: BTreeMap<_, _> = rows.into_iter().map(|row| (key(&row), row)).collect();
    let found = found.iter().filter_map(|hit| {
        let host = hit.host.clone().unwrap_or_default();
        match rows.remove(&(hit.command.clone(), host)) {
            Some(row) => Some(Ok(row)),
            None if went_on(past, &hit.command) => None,
            None => Some(Err(misled(&hit.command, "it is not for this host"))),
        }
    });
    found.collect()
}

/// Whether a command has entries past the point of the answer, which the server's index knows.
fn went_on(past: &Past, id: &str) -> bool {
    id.parse().is_ok_and(|id| past.moved.contains(&id))
}

fn misled(id: &str, why: &str) -> Failure {
    match id.parse() {
        Ok(id) => lied(&id, why),
        Err(_) => Failure::unreachable("malformed", "the server named what is no command"),
    }
}

/// What ran where.
struct RanWish {
    host: AgentName,
    user: Option<String>,
    span: Span,
}

impl RanWish {
    fn holds(&self, row: &RunRow) -> bool {
        let is_theirs = self.user.as_ref().is_none_or(|user| row.ran_as(user));
        row.host == self.host.as_str() && row.ran_within(&self.span) && is_theirs
    }
}

async fn ran(globals: &Globals, wish: &RanWish, form: &Form) -> Result<u8, Failure> {
    let client = globals.connect().await?;
    if form.whole {
        let past = past(&client, form, Keep::default()).await?;
        let mut rows = runs(&past.chronicle);
        rows.retain(|row| wish.holds(row));
        rows.sort_by_key(|row| row.started_seq);
        return print(globals.json, form, Rows::whole(form, &past, &rows)?, None);
    }
    let search = SearchFor::Ran(Ran {
        host: wish.host.to_string(),
        user: wish.user.clone(),
        from_us: wish.span.from.map(|from| from.as_micros()),
        to_us: wish.span.to.map(|to| to.as_micros()),
    });
    let mut hits = hits(&client, form, search).await?;
    let mut rows = Vec::new();
    while let Some((past, found)) = hits.next(Keep::default()).await? {
        for row in named(&past, &found)? {
            if wish.holds(&row) {
                rows.push(row);
            } else if !went_on(&past, &row.id) {
                return Err(misled(&row.id, "it did not run there and then"));
            }
        }
    }
    answer(globals, form, &hits, &rows, None)
}

async fn glass(globals: &Globals, without_review: bool, form: &Form) -> Result<u8, Failure> {
    let client = globals.connect().await?;
    let is_wanted = |row: &BreakGlassRow| !without_review || row.reviewed_seq.is_none();
    if form.whole {
        let past = past(&client, form, Keep::default()).await?;
        let mut rows = break_glass(&past.chronicle, clock::now());
        rows.retain(is_wanted);
        return print(globals.json, form, Rows::whole(form, &past, &rows)?, None);
    }
    let mut hits = hits(&client, form, SearchFor::BreakGlass {}).await?;
    let mut rows = Vec::new();
    while let Some((past, found)) = hits.next(Keep::default()).await? {
        for hit in &found {
            let mut commands = past.chronicle.state().commands();
            let named = commands.find(|command| command.id.to_string() == hit.command);
            if !named.is_some_and(|command| command.act().break_glass) {
                return Err(misled(&hit.command, "it waited for approvals"));
            }
        }
        let all = break_glass(&past.chronicle, clock::now()).into_iter();
        rows.extend(all.filter(is_wanted));
    }
    answer(globals, form, &hits, &rows, None)
}

/// The runs that fit, and how many nobody can tell of.
async fn fitting(
    client: &Client,
    past: &Past,
    query: &Query,
) -> Result<(Vec<RunRow>, usize), Failure> {
    let (mut rows, mut unknown) = (Vec::new(), 0);
    for row in runs(&past.chronicle) {
        match fit(client, past, query, &row).await? {
            Fits::Yes => rows.push(row),
            Fits::No => {}
            Fits::Unknown => unknown += 1,
        }
    }
    Ok((rows, unknown))
}

/// Whether a query fits a row. Output is read only where the rest does not decide.
async fn fit(client: &Client, past: &Past, query: &Query, row: &RunRow) -> Result<Fits, Failure> {
    let fit = fits(query, row, Sight::Unknown);
    if fit == Fits::Unknown
        && query.reads_output()
        && let Some(streams) = written(client, past, row).await?
    {
        return Ok(fits(query, row, Sight::Read(&streams)));
    }
    Ok(fit)
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
