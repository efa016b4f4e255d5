//! `check-config`: what a configuration says, rule by rule, and what of it cannot work.
//!
//! Mistakes are found when it is loaded; here it is in order. It must not judge a command.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

use countersign_protocol::command::Mode;
use countersign_protocol::event::Kind;
use countersign_protocol::name::{Principal, SECOND_US, Time};
use serde_json::json;

use crate::config::Config;
use crate::held::confine;
use crate::rules::{AllowRule, Confine, Rules};
use crate::snapshot::{SnapshotRule, Snapshots};

/// Below this, administrators can hardly sign one after the other, and a command come through, before
/// the first signature is too old.
const LEAST_USEFUL_US: u64 = 300 * SECOND_US;

/// How to read a configuration.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct How {
    /// One JSON object on stdout: ok, problem or file, agent, execution, people, `min_approvals`,
    /// snapshot, `max_checkpoint_age_s`, rules, warnings.
    #[arg(long)]
    pub json: bool,
}

/// A configuration that is in order.
#[must_use]
#[derive(Debug)]
pub struct Summary<'a> {
    path: PathBuf,
    config: &'a Config,
    lines: Vec<Line>,
    warnings: Vec<String>,
}

/// A rule or setting, in the order in which they are asked.
#[derive(Debug)]
struct Line {
    kind: &'static str,
    name: String,
    says: String,
}

/// What was read from `path`, and what of it cannot work at `now`.
pub fn summary<'a>(path: &Path, config: &'a Config, now: Time) -> Summary<'a> {
    Summary {
        path: path.to_owned(),
        config,
        lines: lines(config),
        warnings: warnings(config, now),
    }
}

impl fmt::Display for Summary<'_> {
    /// One line for all, then one for each rule, then the warnings; without a last line end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules = &self.config.rules;
        write!(
            f,
            "{} is in order: agent {}, execution {}, {} people who count, {} of them needed",
            self.path.display(),
            self.config.name,
            if rules.execution { "on" } else { "off" },
            self.config.signers.people().len(),
            rules.min_approvals,
        )?;
        for Line { kind, name, says } in &self.lines {
            write!(f, "\n  {kind} {name}: {says}")?;
        }
        for warning in &self.warnings {
            write!(f, "\nwarning: {warning}")?;
        }
        Ok(())
    }
}

impl Summary<'_> {
    /// The same for a script. What is not set is null.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let config = self.config;
        let rules = self.lines.iter().map(|line| {
            let Line { kind, name, says } = line;
            json!({ "kind": kind, "name": name, "says": says })
        });
        let snapshot = config.snapshot.as_ref().map(|rule| {
            json!({
                "administrators": rule.administrators.people(),
                "threshold": rule.threshold,
                "max_age_s": rule.max_age_us / SECOND_US,
            })
        });
        json!({
            "ok": true,
            "file": self.path.display().to_string(),
            "agent": config.name,
            "execution": config.rules.execution,
            "people": config.signers.people(),
            "min_approvals": config.rules.min_approvals,
            "snapshot": snapshot,
            "max_checkpoint_age_s": config.max_checkpoint_age_us.map(|age_us| age_us / SECOND_US),
            "rules": rules.collect::<Vec<_>>(),
            "warnings": self.warnings,
        })
    }
}

/// The mistake of a configuration, for a script.
#[must_use]
pub fn mistake_to_json(problem: &dyn fmt::Display) -> serde_json::Value {
    json!({ "ok": false, "problem": problem.to_string() })
}

/// What is in order and will not do what it is there for.
fn warnings(config: &Config, now: Time) -> Vec<String> {
    let mut told = Vec::new();
    let (people, needed) = (config.signers.people().len(), config.rules.min_approvals);
    let Some(rule) = &config.snapshot else {
        if u32::try_from(people).unwrap_or(u32::MAX) < needed {
            told.push(format!(
                "min_approvals is {needed} and allowed_signers names {people}, so no command can ever \
                 have enough approvals here; name more people, lower the number, or take approvers \
                 from a [snapshot]"
            ));
        }
        return told;
    };
    match Snapshots::open(&config.state) {
        Ok(kept) => {
            let able = kept.able(rule, now);
            if u32::try_from(able.len()).unwrap_or(u32::MAX) < rule.threshold {
                told.push(too_few(rule, &able));
            }
        }
        Err(error) => told.push(format!(
            "{error} (so it is not known which administrators' keys were revoked)"
        )),
    }
    if rule.max_age_us < LEAST_USEFUL_US {
        told.push(format!(
            "max_age_s of [snapshot] is {}: administrators would have to sign anew all the time, and \
             nothing runs whenever they do not; a working day is 43200",
            rule.max_age_us / SECOND_US
        ));
    }
    told
}

fn too_few(rule: &SnapshotRule, able: &[Principal]) -> String {
    let mut unable = rule.administrators.people();
    unable.retain(|who| !able.contains(who));
    format!(
        "[snapshot] takes {} administrators and {} of them can sign now, so nothing runs here: of {} no \
         key in the file of administrators is within its dates, for the namespace \
         {}, and not revoked; put their keys in order, or lower threshold",
        rule.threshold,
        able.len(),
        names(&unable),
        Kind::PolicySnapshot.namespace(),
    )
}

fn names(people: &[Principal]) -> String {
    let names: Vec<&str> = people.iter().map(|who| who.as_str()).collect();
    names.join(", ")
}

/// Every rule, and what there is beside them.
fn lines(config: &Config) -> Vec<Line> {
    let rules = &config.rules;
    let mut lines = Vec::new();
    if let Some(rule) = &config.snapshot {
        let (administrators, age_s) = (rule.administrators.people(), rule.max_age_us / SECOND_US);
        let of = format!(
            "approvers and groups that {} of {} have signed, at most {age_s} s ago",
            rule.threshold,
            names(&administrators),
        );
        line(&mut lines, "snapshot", "takes", &of);
    }
    if let Some(age_us) = config.max_checkpoint_age_us {
        let age_s = age_us / SECOND_US;
        let entry =
            format!("an entry of the last {age_s} s with each grant (max_checkpoint_age_s)");
        line(&mut lines, "ledger", "shows", &entry);
    }
    for person in &rules.break_glass {
        let what = "runs without approvals where the ledger's policy lets them";
        line(&mut lines, "break_glass", person.as_str(), what);
    }
    for rule in &rules.commands.deny {
        let program = rule.program.as_ref().map_or("any program", |p| p.as_str());
        line(&mut lines, "deny", rule.name.as_str(), program);
    }
    for rule in &rules.commands.allow {
        line(&mut lines, "allow", rule.name.as_str(), &described(rule));
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
    line(&mut lines, "exec", "runs", rest);
    for action in &rules.actions {
        let steps: Vec<String> = action.steps.iter().map(ToString::to_string).collect();
        line(
            &mut lines,
            "action",
            action.name.as_str(),
            &steps.join("; "),
        );
    }
    if !rules.actions.is_empty() && !rules.modes.contains(&Mode::Action) {
        let off = "nothing: modes does not have action";
        line(&mut lines, "action", "runs", off);
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
        line(&mut lines, "service", service.name.as_str(), &what);
    }
    let shell = match (rules.modes.contains(&Mode::Shell), rules.shell) {
        (true, true) => format!("any script, with {} people", rules.shell_min_approvals),
        (true, false) => "nothing: [shell] does not say allow = true".to_owned(),
        (false, _) => "nothing: modes does not have shell".to_owned(),
    };
    line(&mut lines, "shell", "runs", &shell);
    let account = &rules.account;
    let own = account.name.clone().unwrap_or(account.uid.to_string());
    let users = match (&account.users, &account.default_user) {
        (Some(users), _) => users.iter().map(ToString::to_string).collect(),
        (None, Some(usual)) if usual.as_str() != own => vec![own, usual.to_string()],
        (None, Some(_) | None) => vec![own],
    };
    line(&mut lines, "users", "are", &users.join(", "));
    line(&mut lines, "confine", "holds", &confine(&rules.confine));
    for (name, over) in over(rules) {
        line(&mut lines, "confine", name, &confine(over));
    }
    lines
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

fn line(lines: &mut Vec<Line>, kind: &'static str, name: &str, says: &str) {
    lines.push(Line {
        kind,
        name: name.to_owned(),
        says: says.to_owned(),
    });
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
