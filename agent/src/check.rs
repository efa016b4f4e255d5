//! `check`: what this host's rules say, before anybody asks it to run something, and whether it has a
//! policy snapshot to go by.
//!
//! It asks the very functions that a grant is judged by. It must not run or write anything, and it
//! speaks to no server: whether people approve is another question.

use std::ffi::OsStr;
use std::fmt;

use countersign_protocol::command::{CommandSpec, DEFAULT_OUTPUT_LIMIT, Environment, Mode};
use countersign_protocol::name::{OsUser, RuleName, ServiceName, Time};

use crate::config::Config;
use crate::execution::Step;
use crate::facts::action_step;
use crate::held::{in_force, not_in_force};
use crate::rules::{Allowed, Commands, Inside, LocalRefusal, SHELL};
use crate::snapshot::{MemoryError, Report, Snapshots, Standing};

/// A command to ask the rules about.
#[derive(Debug, Clone, clap::Args)]
pub struct Question {
    /// As whom it would run; the host's own choice when left out.
    #[arg(long, value_name = "USER")]
    pub user: Option<OsUser>,
    /// Where it would run.
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<String>,
    /// A variable that it would have; may be given several times.
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    pub env: Vec<(String, String)>,
    /// The timeout that it would ask for, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub timeout: u64,
    /// The one word is a script for /bin/sh.
    #[arg(long)]
    pub shell: bool,
    /// The words are the name of an action of this host and its arguments.
    #[arg(long, conflicts_with = "shell")]
    pub action: bool,
    /// It would run in this service of the host.
    #[arg(long, value_name = "SERVICE")]
    pub service: Option<ServiceName>,
    /// One JSON object on stdout: allowed, rule, detail, reason, approvals, steps, user, `in_force`,
    /// snapshot.
    #[arg(long)]
    pub json: bool,
    /// The program and its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<String>,
}

fn variable(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once('=').ok_or("a variable is NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// It is no command.
    #[error("no request could ask this: {0}")]
    NoQuestion(String),
    /// The host asks for a snapshot, and what it has cannot be read.
    #[error(
        "{0}; whether anything runs depends on it, so ask as root or as the agent's own account"
    )]
    Memory(#[from] MemoryError),
}

/// What the rules answer.
#[must_use]
#[derive(Debug)]
pub struct Answer {
    /// What a grant would be told, but for its people.
    result: Result<Allowed, LocalRefusal>,
    /// What the rules alone would allow, where a snapshot is missing.
    but_for_snapshot: Option<RuleName>,
    /// Of a host that asks for one.
    snapshot: Option<Report>,
    /// The least number of people, also without any rule.
    least: u32,
    reason: Option<String>,
    /// The words of the question.
    asked: Vec<String>,
}

impl Answer {
    /// Whether it would run, once enough people approve.
    #[must_use]
    pub const fn is_yes(&self) -> bool {
        self.result.is_ok()
    }

    /// The answer for a script. What does not apply is null.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let (allowed, refused) = (self.result.as_ref().ok(), self.result.as_ref().err());
        let steps = allowed.map(|allowed| match &allowed.steps {
            Ok(steps) => serde_json::json!(steps.iter().map(action_step).collect::<Vec<_>>()),
            Err(error) => serde_json::json!({ "missing": error.to_string() }),
        });
        serde_json::json!({
            "allowed": allowed.is_some(),
            "rule": rule_of(&self.result).map(ToString::to_string),
            "detail": refused.map(|refused| &refused.detail),
            "reason": self.reason,
            "approvals": allowed.map(|allowed| self.approvals(allowed)),
            "user": allowed.map(|allowed| allowed.runner.to_string()),
            "steps": steps,
            "in_force": allowed.filter(|allowed| allowed.is_held_here())
                .map(|allowed| in_force(&allowed.in_force)),
            "snapshot": self.snapshot.as_ref().map(Report::to_json),
        })
    }

    /// The host's own number, the snapshot's or the rule's, whichever is the largest.
    fn approvals(&self, allowed: &Allowed) -> u32 {
        allowed.min_approvals.max(self.least)
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.result {
            Ok(allowed) => {
                let people = self.approvals(allowed);
                writeln!(f, "allowed by {}", allowed.rule)?;
                match &allowed.steps {
                    Ok(steps) => steps.iter().try_for_each(|step| self.program(f, step))?,
                    Err(error) => writeln!(f, "but it would not start: {error}")?,
                }
                let by = allowed.sudo.as_ref().map_or("", |_| ", through sudo");
                let enters = match allowed.inside {
                    Inside::Host => "",
                    Inside::Service { .. } => ", who enters the service",
                };
                writeln!(f, "user: {}{by}{enters}", allowed.runner)?;
                let held = if allowed.is_held_here() {
                    in_force(&allowed.in_force)
                } else {
                    "what the service's engine sets, and nothing of this host".to_owned()
                };
                writeln!(f, "in force: {held}")?;
                for missing in not_in_force(allowed) {
                    writeln!(f, "not in force: {missing}")?;
                }
                writeln!(
                    f,
                    "approvals: {people} at least, or what the ledger's policy asks for"
                )?;
            }
            Err(refusal) => {
                let rule = refusal.rule.as_ref().map_or("-", |rule| rule.as_str());
                writeln!(f, "refused by {rule}: {}", refusal.detail)?;
            }
        }
        if let Some(reason) = &self.reason {
            writeln!(f, "reason: {reason}")?;
        }
        if let Some(snapshot) = &self.snapshot {
            write!(f, "{snapshot}")?;
        }
        match &self.but_for_snapshot {
            Some(rule) => writeln!(
                f,
                "it would be allowed by {rule}; the next grant brings the newest snapshot that the \
                 ledger has"
            ),
            None => Ok(()),
        }
    }
}

impl Answer {
    /// A program, and its words where they are not those of the question.
    fn program(&self, f: &mut fmt::Formatter<'_>, step: &Step) -> fmt::Result {
        let digest = hex::encode(step.program.sha256());
        writeln!(
            f,
            "program: {} sha256 {digest}",
            step.program.path().display()
        )?;
        let is_asked = step.argv.iter().eq(self.asked.iter().map(OsStr::new));
        if is_asked || step.argv == [SHELL] {
            return Ok(());
        }
        let words = step.argv.iter().map(|word| format!("{word:?}"));
        writeln!(f, "  words: {}", words.collect::<Vec<_>>().join(" "))
    }
}

/// The rule or setting that decided.
fn rule_of(result: &Result<Allowed, LocalRefusal>) -> Option<&RuleName> {
    match result {
        Ok(allowed) => Some(&allowed.rule),
        Err(refusal) => refusal.rule.as_ref(),
    }
}

/// Asks what a grant would be told at `now`, but for its people. Reads the programs, and of a host
/// that asks for snapshots the one that is kept.
///
/// # Errors
/// See [`CheckError`].
pub fn ask(config: &Config, question: Question, now: Time) -> Result<Answer, CheckError> {
    let no_question = |error: &dyn fmt::Display| CheckError::NoQuestion(error.to_string());
    let spec = CommandSpec {
        mode: match (question.shell, question.action) {
            (true, _) => Mode::Shell,
            (false, true) => Mode::Action,
            (false, false) => Mode::Exec,
        },
        argv: question.command,
        cwd: question.cwd,
        user: question.user,
        timeout_ms: question.timeout.saturating_mul(1000),
        output_limit: DEFAULT_OUTPUT_LIMIT,
        at_output_limit: None,
    };
    let asked = spec.argv.clone();
    spec.check().map_err(|error| no_question(&error))?;
    let environment = Environment::new(question.env).map_err(|error| no_question(&error))?;
    let service = question.service.as_ref();
    let snapshot = match &config.snapshot {
        Some(rule) => {
            let kept = Snapshots::open(&config.state)?;
            Some(Report::of(&kept, rule, &config.ledger, now))
        }
        None => None,
    };
    let standing = snapshot.as_ref().map(|report| &report.standing);
    let own = (config.rules.approvals_for(spec.mode), "min_approvals");
    let least = standing.map_or(own, |standing| standing.least(own)).0;
    let by_rules = config.rules.judge(service, &spec, Some(&environment));
    // In the order of admission: people first.
    let (result, but_for_snapshot) = match (standing.map_or(Ok(()), Standing::check), by_rules) {
        (Ok(()), by_rules) => (by_rules, None),
        (Err(refusal), Ok(allowed)) => (Err(refusal), Some(allowed.rule)),
        (Err(refusal), Err(_)) => (Err(refusal), None),
    };
    let rule = rule_of(&result);
    let Commands { allow, deny, .. } = &config.rules.commands;
    let reasons = allow.iter().map(|rule| (&rule.name, &rule.reason));
    let reasons = reasons.chain(deny.iter().map(|rule| (&rule.name, &rule.reason)));
    let actions = config.rules.actions.iter();
    let reasons = reasons.chain(actions.map(|action| (&action.name, &action.reason)));
    let reason = reasons
        .filter(|(name, _)| Some(*name) == rule)
        .find_map(|(_, reason)| reason.clone());
    Ok(Answer {
        result,
        but_for_snapshot,
        snapshot,
        least,
        reason,
        asked,
    })
}
