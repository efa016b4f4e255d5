//! `check` and `check-config`: what this host's rules say, before anybody asks it to run something.
//!
//! It asks the very function that a grant is judged by. It must not run anything, and it speaks to
//! no server: whether people approve is another question.

use std::ffi::OsStr;
use std::fmt::{self, Write as _};
use std::path::Path;

use countersign_protocol::command::{CommandSpec, DEFAULT_OUTPUT_LIMIT, Environment, Mode};
use countersign_protocol::name::{OsUser, RuleName, ServiceName};

use crate::config::Config;
use crate::execution::Step;
use crate::facts::action_step;
use crate::held::{confine, in_force, not_in_force};
use crate::rules::{AllowRule, Allowed, Commands, Confine, Inside, LocalRefusal, Rules, SHELL};

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
    /// One JSON object on stdout: allowed, rule, detail, reason, approvals, steps, user, `in_force`.
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

/// What the rules answer.
#[must_use]
#[derive(Debug)]
pub struct Answer {
    result: Result<Allowed, LocalRefusal>,
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
            "approvals": allowed.map(|allowed| allowed.min_approvals),
            "user": allowed.map(|allowed| allowed.runner.to_string()),
            "steps": steps,
            "in_force": allowed.filter(|allowed| allowed.is_held_here())
                .map(|allowed| in_force(&allowed.in_force)),
        })
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.result {
            Ok(allowed) => {
                let people = allowed.min_approvals;
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
        match &self.reason {
            Some(reason) => writeln!(f, "reason: {reason}"),
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

/// Asks the rules.
///
/// # Errors
/// The question is none that a request could ask; the text says why.
pub fn ask(config: &Config, question: Question) -> Result<Answer, String> {
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
    spec.check().map_err(|error| error.to_string())?;
    let environment = Environment::new(question.env).map_err(|error| error.to_string())?;
    let service = question.service.as_ref();
    let result = config.rules.judge(service, &spec, Some(&environment));
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
        reason,
        asked,
    })
}

/// What was read: one line for all, then one for each rule in the order in which they are asked.
#[must_use]
pub fn summary(path: &Path, config: &Config) -> String {
    let rules = &config.rules;
    let mut text = format!(
        "{} is in order: agent {}, execution {}, {} people who count, {} of them needed",
        path.display(),
        config.name,
        if rules.execution { "on" } else { "off" },
        config.signers.people().len(),
        rules.min_approvals,
    );
    for person in &rules.break_glass {
        let what = "runs without approvals where the ledger's policy lets them";
        line(&mut text, "break_glass", person.as_str(), what);
    }
    for rule in &rules.commands.deny {
        let program = rule.program.as_ref().map_or("any program", |p| p.as_str());
        line(&mut text, "deny", rule.name.as_str(), program);
    }
    for rule in &rules.commands.allow {
        line(&mut text, "allow", rule.name.as_str(), &described(rule));
    }
    let exec = rules.modes.contains(&Mode::Exec);
    let rest = match (
        exec,
        rules.commands.allow_all,
        rules.commands.allow.is_empty(),
    ) {
        (false, ..) => "nothing: modes does not have exec",
        (true, true, _) => "everything else that is not denied (allow_all)",
        (true, false, true) => "nothing: there is no [[allow]] rule and no allow_all = true",
        (true, false, false) => "nothing else",
    };
    line(&mut text, "exec", "runs", rest);
    for action in &rules.actions {
        let steps: Vec<String> = action.steps.iter().map(ToString::to_string).collect();
        line(&mut text, "action", action.name.as_str(), &steps.join("; "));
    }
    if !rules.actions.is_empty() && !rules.modes.contains(&Mode::Action) {
        let off = "nothing: modes does not have action";
        line(&mut text, "action", "runs", off);
    }
    for service in &rules.services {
        let enter = [service.way.enter.as_slice(), &service.way.into].concat();
        let mut what = format!("entered by {}", enter.join(" "));
        if service.allow_all {
            what.push_str(", everything that is not denied (allow_all)");
        }
        if service.shell {
            what.push_str(", any script");
        }
        line(&mut text, "service", service.name.as_str(), &what);
    }
    let shell = match (rules.modes.contains(&Mode::Shell), rules.shell) {
        (true, true) => format!("any script, with {} people", rules.shell_min_approvals),
        (true, false) => "nothing: [shell] does not say allow = true".to_owned(),
        (false, _) => "nothing: modes does not have shell".to_owned(),
    };
    line(&mut text, "shell", "runs", &shell);
    let account = &rules.account;
    let own = account.name.clone().unwrap_or(account.uid.to_string());
    let users = match (&account.users, &account.default_user) {
        (Some(users), _) => users.iter().map(ToString::to_string).collect(),
        (None, Some(usual)) if usual.as_str() != own => vec![own, usual.to_string()],
        (None, Some(_) | None) => vec![own],
    };
    line(&mut text, "users", "are", &users.join(", "));
    line(&mut text, "confine", "holds", &confine(&rules.confine));
    for (name, over) in over(rules) {
        line(&mut text, "confine", name, &confine(over));
    }
    text
}

/// The tables that lie over the host's own, by the name of their rule.
fn over(rules: &Rules) -> impl Iterator<Item = (&str, &Confine)> {
    let shell = [("shell", &rules.shell_confine)];
    let allow = rules.commands.allow.iter();
    let actions = rules.actions.iter();
    let tables = allow
        .map(|rule| (rule.name.as_str(), &rule.confine))
        .chain(actions.map(|action| (action.name.as_str(), &action.confine)))
        .chain(shell);
    tables.filter(|(_, table)| **table != Confine::default())
}

fn line(text: &mut String, kind: &str, name: &str, what: &str) {
    // Writing to a String cannot fail.
    let _ = write!(text, "\n  {kind} {name}: {what}");
}

fn described(rule: &AllowRule) -> String {
    let words = rule.args.fixed.iter().map(|pattern| pattern.as_str());
    let mut text = rule.program.as_str().to_owned();
    for word in words.chain(rule.args.rest.then_some("**")) {
        text.push(' ');
        text.push_str(word);
    }
    if let Some(services) = &rule.services {
        let services: Vec<&str> = services.iter().map(|service| service.as_str()).collect();
        let _ = write!(text, ", in {}", services.join(", "));
    }
    if let Some(people) = rule.min_approvals {
        let _ = write!(text, ", {people} people");
    }
    if !rule.sha256.is_empty() {
        text.push_str(", only this digest");
    }
    text
}
