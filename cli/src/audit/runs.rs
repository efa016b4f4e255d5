//! One host's part of a command as a row: what was asked for, by whom, who allowed it, what came of it.

use std::collections::BTreeMap;

use countersign_protocol::command::Mode;
use countersign_protocol::event::Kind;
use countersign_protocol::hash::CommandId;
use countersign_protocol::lifecycle::{Command, Execution};
use countersign_protocol::name::{AgentName, Time};
use countersign_protocol::short;
use countersign_protocol::view;
use serde::Serialize;

use super::chronicle::Chronicle;
use super::table::{Record, list, maybe, shown, stamp, words};

/// One host's part of a command. Times are microseconds since 1970.
#[derive(Debug, Clone, Serialize)]
pub struct RunRow {
    /// The command's whole id.
    pub id: String,
    /// `XXXX-XXXX`
    pub short: String,
    /// The entry that asked for it.
    pub seq: u64,
    /// When that was entered.
    pub requested_us: u64,
    /// Who asked.
    pub requester: String,
    /// Who said yes, in order.
    pub approved_by: Vec<String>,
    /// Who said no, in order.
    pub rejected_by: Vec<String>,
    /// Whether it was meant to run without approvals.
    pub break_glass: bool,
    /// `exec`, `shell` or `action`.
    pub mode: &'static str,
    /// Its words as they were asked for; none where they may not be read.
    pub argv: Option<Vec<String>>,
    /// The same with this host's own facts in them; none where the host runs them as they are.
    pub runs: Option<Vec<String>>,
    /// The account that was asked for; none for the host's default.
    pub user: Option<String>,
    /// The host.
    pub host: String,
    /// The host's labels when it was asked for.
    pub labels: Vec<String>,
    /// The command's status word.
    pub status: &'static str,
    /// The status word of this host's part.
    pub run: &'static str,
    /// The account's number, as the host signed it.
    pub uid: Option<u32>,
    /// The entry of its start.
    pub started_seq: Option<u64>,
    /// When that was entered.
    pub started_us: Option<u64>,
    /// The entry of its end.
    pub ended_seq: Option<u64>,
    /// When that was entered.
    pub ended_us: Option<u64>,
    /// How the run ended.
    pub outcome: Option<&'static str>,
    /// Only when the process exited.
    pub exit_code: Option<u8>,
}

/// From one time on, up to another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    /// At that time or later.
    pub from: Option<Time>,
    /// Before that time.
    pub to: Option<Time>,
}

impl Span {
    /// Whether a time is in it.
    #[must_use]
    pub fn holds(&self, micros: u64) -> bool {
        self.from.is_none_or(|from| micros >= from.as_micros()) && self.is_begun(micros)
    }

    /// Whether something that began then touches it, when it went on until `end` or goes on.
    #[must_use]
    pub fn touches(&self, began: u64, end: Option<u64>) -> bool {
        let is_over = |from: Time| end.is_some_and(|end| end < from.as_micros());
        self.is_begun(began) && !self.from.is_some_and(is_over)
    }

    fn is_begun(&self, micros: u64) -> bool {
        self.to.is_none_or(|to| micros < to.as_micros())
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

/// Every host's part of every command, in the order of the requests.
#[must_use]
pub fn runs(chronicle: &Chronicle) -> Vec<RunRow> {
    let mut commands: Vec<&Command> = chronicle.state().commands().collect();
    commands.sort_by_key(|command| command.requested.seq);
    let noes = noes(chronicle);
    let parts = commands.into_iter().flat_map(|command| {
        let noes = noes.get(&command.id).map_or(&[][..], Vec::as_slice);
        let parts = command.executions.iter();
        parts.map(move |part| row(chronicle, command, noes, part))
    });
    parts.collect()
}

/// Who said no to what: the state keeps only the noes that are votes.
fn noes(chronicle: &Chronicle) -> BTreeMap<CommandId, Vec<String>> {
    let mut noes: BTreeMap<CommandId, Vec<String>> = BTreeMap::new();
    for fact in chronicle.facts() {
        if fact.kind == Kind::CommandRejected
            && let Some(id) = fact.command()
        {
            noes.entry(id).or_default().push(fact.who.as_str().into());
        }
    }
    noes
}

fn row(
    chronicle: &Chronicle,
    command: &Command,
    noes: &[String],
    (agent, part): (&AgentName, &Execution),
) -> RunRow {
    let key = (command.id, agent.clone());
    let told = view::execution_row(agent, part);
    let started = part.started.as_ref();
    let end = chronicle.end(&key);
    let labels = chronicle.labels(&key).iter();
    let yes = command.approvals.iter();
    RunRow {
        id: command.id.to_string(),
        short: short::short(&command.id),
        seq: command.requested.seq,
        requested_us: command.requested.time.as_micros(),
        requester: command.requester().to_string(),
        approved_by: yes.map(|given| given.principal.to_string()).collect(),
        rejected_by: noes.to_vec(),
        break_glass: command.act().break_glass,
        mode: mode_word(command.act().mode),
        argv: chronicle.words(&command.id).map(<[String]>::to_vec),
        runs: chronicle.runs(&key),
        user: command.act().user.as_ref().map(ToString::to_string),
        host: agent.to_string(),
        labels: labels.map(ToString::to_string).collect(),
        status: command.status().as_str(),
        run: told.status,
        uid: started.and_then(|(started, _)| Some(started.in_force?.uid)),
        started_seq: told.started_seq,
        started_us: started.map(|(_, at)| at.time.as_micros()),
        ended_seq: end.map(|at| at.seq),
        ended_us: end.map(|at| at.time.as_micros()),
        outcome: told.outcome,
        exit_code: told.exit_code,
    }
}

impl RunRow {
    /// Whether it ran as this account: by the name that was asked for, or the number that the host
    /// signed.
    #[must_use]
    pub fn ran_as(&self, account: &str) -> bool {
        self.user.as_deref() == Some(account)
            || self.uid.is_some_and(|uid| uid.to_string() == account)
    }

    /// Whether a process was started within a span, or went on into it.
    #[must_use]
    pub fn ran_within(&self, span: &Span) -> bool {
        self.started_us
            .is_some_and(|began| span.touches(began, self.ended_us))
    }
}

impl Record for RunRow {
    const COLUMNS: &'static [&'static str] = &[
        "id",
        "short",
        "seq",
        "requested",
        "requester",
        "approved_by",
        "rejected_by",
        "break_glass",
        "mode",
        "argv",
        "runs",
        "user",
        "host",
        "labels",
        "status",
        "run",
        "uid",
        "started_seq",
        "started",
        "ended_seq",
        "ended",
        "outcome",
        "exit_code",
    ];
    const HEADINGS: &'static [&'static str] = &[
        "ID", "HOST", "AS", "STATUS", "EXIT", "ASKED BY", "YES", "STARTED", "COMMAND",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.clone(),
            self.short.clone(),
            self.seq.to_string(),
            stamp(Some(self.requested_us)),
            self.requester.clone(),
            list(&self.approved_by),
            list(&self.rejected_by),
            self.break_glass.to_string(),
            self.mode.to_owned(),
            self.argv.as_deref().map_or_else(String::new, list),
            self.runs.as_deref().map_or_else(String::new, list),
            self.user.clone().unwrap_or_default(),
            self.host.clone(),
            list(&self.labels),
            self.status.to_owned(),
            self.run.to_owned(),
            maybe(self.uid),
            maybe(self.started_seq),
            stamp(self.started_us),
            maybe(self.ended_seq),
            stamp(self.ended_us),
            maybe(self.outcome),
            maybe(self.exit_code),
        ]
    }

    fn brief(&self) -> Vec<String> {
        let uid = self.uid.map(|uid| format!("uid {uid}"));
        vec![
            self.short.clone(),
            self.host.clone(),
            self.user.clone().or(uid).unwrap_or_default(),
            self.run.to_owned(),
            maybe(self.exit_code),
            self.requester.clone(),
            self.approved_by.join(", "),
            shown(self.started_us),
            words(self.runs.as_deref().or(self.argv.as_deref())),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_touches_a_span_when_it_goes_on_into_it() {
        let time = Time::from_micros;
        let span = Span {
            from: time(10),
            to: time(20),
        };
        assert!(span.touches(10, Some(11)) && span.touches(5, Some(10)) && span.touches(5, None));
        assert!(span.touches(19, None) && !span.touches(20, None) && !span.touches(5, Some(9)));
        assert!(span.holds(10) && !span.holds(20) && !span.holds(9));
        assert!(Span::default().holds(0) && Span::default().touches(0, Some(0)));
    }
}
