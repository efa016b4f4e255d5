//! `projections.runs`: one row for each host of a command, with all that is searched by but texts.

use std::collections::BTreeMap;

use countersign_protocol::command::Mode;
use countersign_protocol::event::Event;
use countersign_protocol::hash::CommandId;
use countersign_protocol::lifecycle::{Command, Execution};
use countersign_protocol::name::AgentName;
use countersign_protocol::view;
use serde::Serialize;
use sqlx::PgConnection;

use crate::ledger::store::signed;
use crate::projections::page::Page;
use crate::projections::rows::Rows;
use crate::projections::runner::Projection;

pub(in crate::projections) struct Runs;

#[derive(Serialize)]
struct Row {
    command: String,
    host: String,
    seq: i64,
    requested_us: i64,
    requester: String,
    mode: &'static str,
    break_glass: bool,
    account: Option<String>,
    spec: String,
    labels: Vec<String>,
    approved_by: Vec<String>,
    status: &'static str,
    run: &'static str,
    uid: Option<i64>,
    started_seq: Option<i64>,
    started_us: Option<i64>,
    outcome: Option<&'static str>,
    exit_code: Option<u8>,
}

#[derive(Serialize)]
struct No {
    command: String,
    who: Vec<String>,
}

#[derive(Serialize)]
struct End {
    command: String,
    host: String,
    seq: i64,
    time_us: i64,
    /// The ledger's word that it heard no more; the host's own word counts more.
    is_guess: bool,
}

impl Projection for Runs {
    const NAME: &'static str = "runs";
    const VERSION: i32 = 1;
    const TABLE: &'static str = "CREATE TABLE runs (
        command bytea NOT NULL,
        host text NOT NULL,
        seq bigint NOT NULL,
        requested_us bigint NOT NULL,
        requester text NOT NULL,
        mode text NOT NULL,
        break_glass boolean NOT NULL,
        account text,
        spec bytea NOT NULL,
        labels text[] NOT NULL,
        approved_by text[] NOT NULL,
        status text NOT NULL,
        run text NOT NULL,
        uid bigint,
        started_seq bigint,
        started_us bigint,
        outcome text,
        exit_code smallint,
        rejected_by text[] NOT NULL DEFAULT '{}',
        ended_seq bigint,
        ended_us bigint,
        PRIMARY KEY (command, host)
    )";
    const INDEXES: &'static [&'static str] = &[
        "CREATE INDEX runs_in_order ON runs (seq, host)",
        "CREATE INDEX runs_of_host ON runs (host, started_seq)",
        "CREATE INDEX runs_by_spec ON runs (spec)",
        "CREATE INDEX runs_by_requester ON runs (requester, seq)",
        "CREATE INDEX runs_by_approver ON runs USING gin (approved_by)",
        "CREATE INDEX runs_by_rejecter ON runs USING gin (rejected_by)",
        "CREATE INDEX runs_by_label ON runs USING gin (labels)",
        "CREATE INDEX runs_by_exit ON runs (exit_code, seq) WHERE exit_code <> 0",
        "CREATE INDEX runs_by_status ON runs (run, seq)",
        "CREATE INDEX runs_by_time ON runs (requested_us)",
    ];

    async fn apply(connection: &mut PgConnection, page: &Page<'_>) -> Result<(), sqlx::Error> {
        let sql = "INSERT INTO runs
             SELECT decode(command, 'hex'), host, seq, requested_us, requester, mode, break_glass,
                 account, decode(spec, 'hex'), labels, approved_by, status, run, uid, started_seq,
                 started_us, outcome, exit_code
             FROM jsonb_to_recordset($1::jsonb) AS given (command text, host text, seq bigint,
                 requested_us bigint, requester text, mode text, break_glass boolean, account text,
                 spec text, labels text[], approved_by text[], status text, run text, uid bigint,
                 started_seq bigint, started_us bigint, outcome text, exit_code smallint)
             ON CONFLICT (command, host) DO UPDATE SET approved_by = excluded.approved_by,
                status = excluded.status, run = excluded.run, uid = excluded.uid,
                started_seq = excluded.started_seq, started_us = excluded.started_us,
                outcome = excluded.outcome, exit_code = excluded.exit_code";
        let mut rows = Rows::into(sql);
        for command in page.commands() {
            for part in page.parts(command) {
                rows.push(&row(page, command, part))?;
            }
            rows.write_many(connection).await?;
        }
        rows.write(connection).await?;
        note_status(connection, page).await?;
        note_noes(connection, page).await?;
        note_ends(connection, page).await
    }
}

/// The word for how a command is run.
const fn mode_word(mode: Mode) -> &'static str {
    match mode {
        Mode::Exec => "exec",
        Mode::Shell => "shell",
        Mode::Action => "action",
    }
}

fn row(page: &Page<'_>, command: &Command, (agent, part): (&AgentName, &Execution)) -> Row {
    let told = view::execution_row(agent, part);
    let act = command.act();
    let started = part.started.as_ref();
    let yes = command.approvals.iter();
    let (id, at) = (command.id, command.requested);
    Row {
        command: id.to_string(),
        host: agent.to_string(),
        seq: signed(at.seq),
        requested_us: signed(at.time.as_micros()),
        requester: command.requester().to_string(),
        mode: mode_word(act.mode),
        break_glass: act.break_glass,
        account: act.user.as_ref().map(ToString::to_string),
        spec: act.spec.digest.to_string(),
        labels: page.labels_then(&id, agent),
        approved_by: yes.map(|given| given.principal.to_string()).collect(),
        status: command.status().as_str(),
        run: told.status,
        uid: started.and_then(|(started, _)| Some(i64::from(started.in_force?.uid))),
        started_seq: told.started_seq.map(signed),
        started_us: started.map(|(_, at)| signed(at.time.as_micros())),
        outcome: told.outcome,
        exit_code: told.exit_code,
    }
}

/// The command's own status, which stands with each of its hosts: those that nothing else was heard of
/// follow when it is another.
async fn note_status(connection: &mut PgConnection, page: &Page<'_>) -> Result<(), sqlx::Error> {
    for command in page.commands() {
        sqlx::query("UPDATE runs SET status = $2 WHERE command = $1 AND status <> $2")
            .bind(command.id.as_bytes().as_slice())
            .bind(command.status().as_str())
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// Who said no, in order: the fold keeps only the noes that are votes.
async fn note_noes(connection: &mut PgConnection, page: &Page<'_>) -> Result<(), sqlx::Error> {
    let mut noes: BTreeMap<CommandId, Vec<String>> = BTreeMap::new();
    for entry in page.entries() {
        if let Event::CommandRejected(word) = entry.verified.event() {
            let whose = noes.entry(word.command).or_default();
            whose.push(word.principal.to_string());
        }
    }
    let rows = noes.into_iter().map(|(command, who)| No {
        command: command.to_string(),
        who,
    });
    let sql = "UPDATE runs SET rejected_by = rejected_by || given.who
         FROM jsonb_to_recordset($1::jsonb) AS given (command text, who text[])
         WHERE runs.command = decode(given.command, 'hex')";
    Rows::onto(sql).write_all(connection, rows.collect()).await
}

/// Where each host's part came to its end.
async fn note_ends(connection: &mut PgConnection, page: &Page<'_>) -> Result<(), sqlx::Error> {
    let mut ends: BTreeMap<(CommandId, AgentName), End> = BTreeMap::new();
    for entry in page.entries() {
        let event = entry.verified.event();
        let (part, is_guess) = if let Event::ExecutionCompleted(done) = event {
            ((done.command, done.agent.clone()), false)
        } else if let Event::ExecutionRefused(refused) = event {
            ((refused.command, refused.agent.clone()), false)
        } else if let Event::ExecutionSkipped(skipped) = event {
            ((skipped.command, skipped.agent.clone()), false)
        } else if let Event::ExecutionLost(lost) = event {
            ((lost.command, lost.agent.clone()), true)
        } else {
            continue;
        };
        if is_guess && ends.contains_key(&part) {
            continue;
        }
        let end = End {
            command: part.0.to_string(),
            host: part.1.to_string(),
            seq: signed(entry.seq),
            time_us: signed(entry.time.as_micros()),
            is_guess,
        };
        ends.insert(part, end);
    }
    let sql = "UPDATE runs SET ended_seq = given.seq, ended_us = given.time_us
         FROM jsonb_to_recordset($1::jsonb) AS given
             (command text, host text, seq bigint, time_us bigint, is_guess boolean)
         WHERE runs.command = decode(given.command, 'hex') AND runs.host = given.host
             AND (runs.ended_seq IS NULL OR NOT given.is_guess)";
    Rows::onto(sql)
        .write_all(connection, ends.into_values().collect())
        .await
}
