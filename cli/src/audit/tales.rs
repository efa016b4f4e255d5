//! What a person did, what keys signed that are not trusted any more, and runs without approvals.

use std::collections::BTreeMap;

use countersign_protocol::hash::{CommandId, StatementId};
use countersign_protocol::key;
use countersign_protocol::lifecycle::{Command, Stage};
use countersign_protocol::name::{Principal, Time};
use countersign_protocol::rights::KeyRecord;
use countersign_protocol::short;
use serde::Serialize;

use super::chronicle::Chronicle;
use super::fact::{About, Fact, Who, change_line, denied_word, read_word};
use super::runs::Span;
use super::table::{Record, filled, list, maybe, runs_cell, shown, stamp, words};
use crate::describe;
use crate::shapes::FilledShape;

/// One thing that a person did.
#[derive(Debug, Clone, Serialize)]
pub struct DeedRow {
    /// Where it stands.
    pub seq: u64,
    /// When it was entered, in microseconds.
    pub time_us: u64,
    /// `command.requested`, `command.approved`, `audit.read`, …
    pub kind: &'static str,
    /// Who did it.
    pub who: String,
    /// With which key, as people compare it; none where a token or nobody signed in.
    pub fingerprint: Option<String>,
    /// The command or change that it is about.
    pub id: Option<String>,
    /// The same as `XXXX-XXXX`.
    pub short: Option<String>,
    /// What the command or change is, or what was read.
    pub detail: String,
}

/// Something signed by a key that was revoked.
#[derive(Debug, Clone, Serialize)]
pub struct SuspectRow {
    /// What was signed.
    #[serde(flatten)]
    pub deed: DeedRow,
    /// `suspect` from the entry on that the revocation names, else `revoked_later`.
    pub standing: &'static str,
    /// From which entry on the key is suspect.
    pub suspect_from: Option<u64>,
    /// The entry that revoked it.
    pub revoked: u64,
}

/// A run without approvals.
#[derive(Debug, Clone, Serialize)]
pub struct BreakGlassRow {
    /// The command's whole id.
    pub id: String,
    /// `XXXX-XXXX`
    pub short: String,
    /// The entry that asked for it.
    pub seq: u64,
    /// When that was entered, in microseconds.
    pub requested_us: u64,
    /// Who asked.
    pub requester: String,
    /// Its words as they were asked for; none where they may not be read.
    pub argv: Option<Vec<String>>,
    /// What hosts ran with their own facts in it; none where they ran the words as they are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<FilledShape>,
    /// Its hosts.
    pub hosts: Vec<String>,
    /// The command's status word.
    pub status: &'static str,
    /// `open`, `overdue` or `closed`.
    pub review: &'static str,
    /// By when the review should be closed.
    pub due_us: Option<u64>,
    /// Who closed it.
    pub reviewed_by: Option<String>,
    /// Where.
    pub reviewed_seq: Option<u64>,
    /// When.
    pub reviewed_us: Option<u64>,
    /// What they found, where that may be read.
    pub found: Option<String>,
}

/// Everything that a person asked for, said, changed and read, and where they were turned away.
#[must_use]
pub fn of_person(chronicle: &Chronicle, person: &Principal, span: &Span) -> Vec<DeedRow> {
    let facts = chronicle.facts().iter();
    let within = facts.filter(|fact| span.holds(fact.time.as_micros()));
    within
        .filter(|fact| is_theirs(fact, person))
        .map(|fact| deed(chronicle, fact))
        .collect()
}

fn is_theirs(fact: &Fact, person: &Principal) -> bool {
    match &fact.about {
        About::Read { reader, .. } => reader == person,
        About::Denied { who, .. } => who.as_ref() == Some(person),
        About::Command(_) | About::Change(_) | About::Other => {
            matches!(&fact.who, Who::Person(name) if name == person)
        }
    }
}

/// A statement as a row.
pub(super) fn deed(chronicle: &Chronicle, fact: &Fact) -> DeedRow {
    let id: Option<StatementId> = fact.command().or_else(|| fact.change());
    let (who, key_id) = match &fact.about {
        About::Read { reader, key_id, .. } => (reader.to_string(), *key_id),
        About::Denied { who, .. } => (maybe(who.as_ref()), None),
        About::Command(_) | About::Change(_) | About::Other => {
            (fact.who.as_str().to_owned(), Some(fact.key_id))
        }
    };
    DeedRow {
        seq: fact.seq,
        time_us: fact.time.as_micros(),
        kind: fact.kind.as_str(),
        who,
        fingerprint: key_id.as_ref().map(key::fingerprint),
        id: id.map(|id| id.to_string()),
        short: id.map(|id| short::short(&id)),
        detail: detail(chronicle, fact),
    }
}

fn detail(chronicle: &Chronicle, fact: &Fact) -> String {
    match &fact.about {
        About::Command(id) => said(chronicle, id),
        About::Change(id) => chronicle
            .change(id)
            .map_or_else(|| words(None), change_line),
        About::Read { what, command, .. } => {
            let of = command.map(|id| format!(" of: {}", said(chronicle, &id)));
            format!("{}{}", read_word(*what), of.unwrap_or_default())
        }
        About::Denied { what, count, .. } => format!("{}, {count} times", denied_word(*what)),
        About::Other => String::new(),
    }
}

/// The words of a command, and its hosts.
pub(super) fn said(chronicle: &Chronicle, id: &CommandId) -> String {
    let Some(command) = chronicle.state().command(id) else {
        return String::new();
    };
    let hosts: Vec<String> = command.executions.keys().map(ToString::to_string).collect();
    // Whether all hosts run the same is all that is said here.
    let runs = runs(chronicle, command, 2);
    format!(
        "{} on {}",
        filled(chronicle.words(id), &runs),
        describe::few(&hosts)
    )
}

/// What the hosts of a command run with their own facts in it, up to so many different command lines.
fn runs(chronicle: &Chronicle, command: &Command, most: usize) -> Vec<FilledShape> {
    let mut runs: BTreeMap<Vec<String>, Vec<String>> = BTreeMap::new();
    for agent in command.executions.keys() {
        if runs.len() == most {
            break;
        }
        if let Some(words) = chronicle.runs(&(command.id, agent.clone())) {
            runs.entry(words).or_default().push(agent.to_string());
        }
    }
    let shape = |(argv, targets)| FilledShape { argv, targets };
    runs.into_iter().map(shape).collect()
}

/// Everything that was signed by keys which were revoked later, suspect or not.
#[must_use]
pub fn suspect(chronicle: &Chronicle) -> Vec<SuspectRow> {
    let rights = chronicle.state().rights();
    let row = |fact: &Fact| {
        let record: &KeyRecord = rights.key(&fact.key_id)?;
        let revoked = record.revoked?;
        // A key that its host gave up by itself was not taken from anybody.
        if record.retired && record.suspect_from.is_none() {
            return None;
        }
        let is_suspect = record.suspect_from.is_some_and(|from| fact.seq >= from);
        Some(SuspectRow {
            deed: deed(chronicle, fact),
            standing: if is_suspect {
                "suspect"
            } else {
                "revoked_later"
            },
            suspect_from: record.suspect_from,
            revoked,
        })
    };
    chronicle.facts().iter().filter_map(row).collect()
}

/// Every run without approvals, with its review.
#[must_use]
pub fn break_glass(chronicle: &Chronicle, now: Time) -> Vec<BreakGlassRow> {
    let commands = chronicle.state().commands();
    let broke = |command: &&Command| {
        command.act().break_glass && matches!(command.stage, Stage::Authorized { .. })
    };
    let mut rows: Vec<BreakGlassRow> = commands
        .filter(broke)
        .map(|command| glass(chronicle, command, now))
        .collect();
    rows.sort_by_key(|row| row.seq);
    rows
}

fn glass(chronicle: &Chronicle, command: &Command, now: Time) -> BreakGlassRow {
    let review = chronicle.review(&command.id);
    let closed = review.and_then(|review| review.closed.as_ref());
    let is_overdue = review.is_some_and(|review| review.due_at <= now);
    let found = closed.and_then(|(_, _, _, reason)| {
        let text = chronicle.blobs().content(reason);
        text.here()
            .map(|text| String::from_utf8_lossy(text).into_owned())
    });
    BreakGlassRow {
        id: command.id.to_string(),
        short: short::short(&command.id),
        seq: command.requested.seq,
        requested_us: command.requested.time.as_micros(),
        requester: command.requester().to_string(),
        argv: chronicle.words(&command.id).map(<[String]>::to_vec),
        runs: runs(chronicle, command, usize::MAX),
        hosts: command.executions.keys().map(ToString::to_string).collect(),
        status: command.status().as_str(),
        review: match (closed, is_overdue) {
            (Some(_), _) => "closed",
            (None, true) => "overdue",
            (None, false) => "open",
        },
        due_us: review.map(|review| review.due_at.as_micros()),
        reviewed_by: closed.map(|(who, ..)| who.to_string()),
        reviewed_seq: closed.map(|(_, at, ..)| at.seq),
        reviewed_us: closed.map(|(_, at, ..)| at.time.as_micros()),
        found,
    }
}

impl Record for DeedRow {
    const COLUMNS: &'static [&'static str] = &[
        "seq",
        "time",
        "kind",
        "who",
        "fingerprint",
        "id",
        "short",
        "detail",
    ];
    const HEADINGS: &'static [&'static str] = &["SEQ", "WHEN", "WHAT", "ID", "DETAIL"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.seq.to_string(),
            stamp(Some(self.time_us)),
            self.kind.to_owned(),
            self.who.clone(),
            maybe(self.fingerprint.as_ref()),
            maybe(self.id.as_ref()),
            maybe(self.short.as_ref()),
            self.detail.clone(),
        ]
    }

    fn brief(&self) -> Vec<String> {
        vec![
            self.seq.to_string(),
            shown(Some(self.time_us)),
            self.kind.to_owned(),
            maybe(self.short.as_ref()),
            self.detail.clone(),
        ]
    }
}

impl Record for SuspectRow {
    const COLUMNS: &'static [&'static str] = &[
        "seq",
        "time",
        "kind",
        "who",
        "fingerprint",
        "id",
        "short",
        "detail",
        "standing",
        "suspect_from",
        "revoked",
    ];
    const HEADINGS: &'static [&'static str] =
        &["SEQ", "WHEN", "STANDING", "WHAT", "WHO", "ID", "KEY"];

    fn cells(&self) -> Vec<String> {
        let mut cells = self.deed.cells();
        cells.extend([
            self.standing.to_owned(),
            maybe(self.suspect_from),
            self.revoked.to_string(),
        ]);
        cells
    }

    fn brief(&self) -> Vec<String> {
        vec![
            self.deed.seq.to_string(),
            shown(Some(self.deed.time_us)),
            self.standing.to_owned(),
            self.deed.kind.to_owned(),
            self.deed.who.clone(),
            maybe(self.deed.short.as_ref()),
            maybe(self.deed.fingerprint.as_ref()),
        ]
    }
}

impl Record for BreakGlassRow {
    const COLUMNS: &'static [&'static str] = &[
        "id",
        "short",
        "seq",
        "requested",
        "requester",
        "argv",
        "runs",
        "hosts",
        "status",
        "review",
        "due",
        "reviewed_by",
        "reviewed_seq",
        "reviewed",
        "found",
    ];
    const HEADINGS: &'static [&'static str] = &[
        "ID", "ASKED BY", "WHEN", "HOSTS", "COMMAND", "STATUS", "REVIEW", "BY", "FOUND",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.clone(),
            self.short.clone(),
            self.seq.to_string(),
            stamp(Some(self.requested_us)),
            self.requester.clone(),
            self.argv.as_deref().map_or_else(String::new, list),
            runs_cell(&self.runs),
            list(&self.hosts),
            self.status.to_owned(),
            self.review.to_owned(),
            stamp(self.due_us),
            maybe(self.reviewed_by.as_ref()),
            maybe(self.reviewed_seq),
            stamp(self.reviewed_us),
            maybe(self.found.as_ref()),
        ]
    }

    fn brief(&self) -> Vec<String> {
        vec![
            self.short.clone(),
            self.requester.clone(),
            shown(Some(self.requested_us)),
            describe::few(&self.hosts),
            filled(self.argv.as_deref(), &self.runs),
            self.status.to_owned(),
            self.review.to_owned(),
            maybe(self.reviewed_by.as_ref()),
            maybe(self.found.as_ref()),
        ]
    }
}
