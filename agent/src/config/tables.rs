//! `[[allow]]` and `[[deny]]` as they are written, to rules: patterns parsed, names distinct, and
//! no rule that could never be reached.
//!
//! It must not decide about commands.

use std::collections::BTreeSet;

use countersign_protocol::name::{RuleName, ServiceName};
use toml::Spanned;

use super::confine::{WrittenConfine, confine};
use super::source::{ConfigError, Source};
use super::written::{Setting, WrittenAllow, WrittenDeny};
use crate::rules::{AllowRule, Arguments, Commands, DenyRule, Pattern, ProgramPattern, Service};

/// Refusals name a setting or a rule; one word must not be both.
const SETTINGS: &[&str] = &[
    "action",
    "allow",
    "allow_all",
    "approval_age_ms",
    "break_glass",
    "canary",
    "cgroup",
    "confine",
    "cwd",
    "default_user",
    "demand",
    "deny",
    "environment",
    "environment_dangerous",
    "execution",
    "expires_at",
    "facts",
    "max_approval_age_s",
    "max_checkpoint_age_s",
    "witness_policy",
    "max_runs",
    "min_approvals",
    "modes",
    "path",
    "profile",
    "protected",
    "run_as",
    "secrets",
    "service",
    "shell",
    "snapshot",
    "start_before",
    "sudo",
    "users",
];

/// For any further arguments, as the last of `args`.
const REST: &str = "**";

/// Longest timeout that a rule can name: as long as any request's.
const MAX_TIMEOUT_S: u64 = countersign_protocol::command::MAX_TIMEOUT_MS / 1000;

/// All rules about commands. `least` is the smallest number of people that a rule may name, and
/// `base` the confinement that theirs lies over.
pub(super) fn commands(
    source: &Source<'_>,
    allow_all: bool,
    (least, base): (u32, &WrittenConfine),
    (allow, deny): (Vec<Spanned<WrittenAllow>>, Vec<Spanned<WrittenDeny>>),
    (names, services): (&mut Names, &[Service]),
) -> Result<Commands, ConfigError> {
    let mut commands = Commands {
        allow_all,
        ..Commands::default()
    };
    for written in deny {
        let span = written.span();
        let written = written.into_inner();
        names.take(source, &written.name)?;
        let rule = deny_rule(source, written)?;
        let same = |known: &&DenyRule| {
            let renamed = DenyRule {
                name: known.name.clone(),
                reason: known.reason.clone(),
                ..rule.clone()
            };
            renamed == **known
        };
        if let Some(known) = commands.deny.iter().find(same) {
            let problem = hidden(&rule.name, &known.name);
            return Err(source.mistake(Some(span), problem));
        }
        commands.deny.push(rule);
    }
    for written in allow {
        let span = written.span();
        let written = written.into_inner();
        names.take(source, &written.name)?;
        check_services(source, &written, services)?;
        let rule = allow_rule(source, (least, base), written)?;
        let allowed = commands.allow.iter().find(|known| known.hides(&rule));
        let denied = || {
            let mut rules = commands.deny.iter();
            rules.find(|known| known.hides(&rule.program))
        };
        let before = allowed
            .map(|known| &known.name)
            .or_else(|| denied().map(|known| &known.name));
        if let Some(before) = before {
            let problem = hidden(&rule.name, before);
            return Err(source.mistake(Some(span), problem));
        }
        commands.allow.push(rule);
    }
    Ok(commands)
}

fn hidden(rule: &RuleName, before: &RuleName) -> String {
    format!(
        "the rule {rule} is never reached, as {before} takes all that it speaks of; remove it or put it first"
    )
}

/// A rule for services speaks of those that are there, and demands nothing that nobody can check.
fn check_services(
    source: &Source<'_>,
    written: &WrittenAllow,
    services: &[Service],
) -> Result<(), ConfigError> {
    for named in written.services.iter().flatten() {
        if !services.iter().any(|known| known.name == *named.get_ref()) {
            let problem = format!("there is no [[service]] with the name {}", named.get_ref());
            return Err(source.mistake(Some(named.span()), problem));
        }
    }
    let is_held = |name: &ServiceName| {
        let mut known = services.iter().filter(|known| known.name == *name);
        known.all(|known| known.way.descends)
    };
    let unheld = written
        .services
        .iter()
        .flatten()
        .find(|named| !is_held(named.get_ref()));
    if let Some(named) = unheld.filter(|_| !written.confine.is_empty()) {
        let problem = "nothing of this host holds a command there (it does not descend), so confine would do nothing; set limits on the service itself";
        return Err(source.mistake(Some(named.span()), problem));
    }
    match (&written.services, &written.sha256) {
        (Some(_), Some(_)) => {
            let problem = "nobody here can open a program inside a service, so its SHA-256 cannot be demanded";
            Err(source.mistake(Some(written.name.span()), problem))
        }
        (Some(_) | None, _) => Ok(()),
    }
}

/// Names that are taken.
#[derive(Default)]
pub(super) struct Names(BTreeSet<RuleName>);

impl Names {
    pub(super) fn take(
        &mut self,
        source: &Source<'_>,
        name: &Spanned<RuleName>,
    ) -> Result<(), ConfigError> {
        let problem = if SETTINGS.contains(&name.get_ref().as_str()) {
            "a rule cannot have the name of a setting, as refusals name either"
        } else if self.0.insert(name.get_ref().clone()) {
            return Ok(());
        } else {
            "another rule has this name; refusals and the ledger tell rules by it"
        };
        Err(source.mistake(Some(name.span()), problem))
    }
}

fn allow_rule(
    source: &Source<'_>,
    (least, base): (u32, &WrittenConfine),
    written: WrittenAllow,
) -> Result<AllowRule, ConfigError> {
    let min_approvals = people(source, least, written.min_approvals)?;
    let timeout_s = timeout(source, written.timeout_s)?;
    let services = written.services.map(|services| {
        let services = services.into_iter().map(Spanned::into_inner);
        services.collect()
    });
    Ok(AllowRule {
        name: written.name.into_inner(),
        program: program(source, &written.program)?,
        args: arguments(source, written.args)?,
        args_not: patterns(source, &written.args_not)?,
        services,
        users: written.users,
        sha256: digests(source, written.sha256)?,
        min_approvals,
        timeout_s,
        confine: confine(source, &written.confine, base)?,
        reason: written.reason,
    })
}

/// The people that a rule demands, where it names a number.
pub(super) fn people(
    source: &Source<'_>,
    least: u32,
    written: Setting<u32>,
) -> Result<Option<u32>, ConfigError> {
    let checked = written.map(|number| source.number(Some(number), least, (least, u32::MAX)));
    checked.transpose()
}

/// The longest timeout that a rule gives, in seconds, where it names one.
pub(super) fn timeout(
    source: &Source<'_>,
    written: Setting<u64>,
) -> Result<Option<u64>, ConfigError> {
    let checked = written.map(|number| source.number(Some(number), 1, (1, MAX_TIMEOUT_S)));
    checked.transpose()
}

fn deny_rule(source: &Source<'_>, written: WrittenDeny) -> Result<DenyRule, ConfigError> {
    let any_arg = written.any_arg.unwrap_or_default();
    let sha256 = digests(source, written.sha256)?;
    let names_nothing = written.program.is_none()
        && written.args.is_none()
        && any_arg.is_empty()
        && written.users.is_none()
        && sha256.is_empty();
    if names_nothing {
        let problem = "a deny rule without a condition denies everything; if that is meant, write execution = false";
        return Err(source.mistake(Some(written.name.span()), problem));
    }
    Ok(DenyRule {
        name: written.name.into_inner(),
        program: written
            .program
            .map(|text| program(source, &text))
            .transpose()?,
        args: written
            .args
            .map(|args| arguments(source, args))
            .transpose()?,
        any_arg: patterns(source, &any_arg)?,
        users: written.users,
        sha256,
        reason: written.reason,
    })
}

fn program(source: &Source<'_>, text: &Spanned<String>) -> Result<ProgramPattern, ConfigError> {
    let at = Some(text.span());
    match ProgramPattern::parse(text.get_ref()) {
        Ok(Some(pattern)) => Ok(pattern),
        Ok(None) => Err(source.mistake(
            at,
            "a program is an absolute path, or a file name without / for one in the folders of path",
        )),
        Err(error) => Err(source.mistake(at, error.to_string())),
    }
}

fn arguments(
    source: &Source<'_>,
    mut written: Vec<Spanned<String>>,
) -> Result<Arguments, ConfigError> {
    let rest = written.pop_if(|last| last.get_ref() == REST).is_some();
    let fixed = patterns(source, &written)?;
    Ok(Arguments { fixed, rest })
}

pub(super) fn patterns(
    source: &Source<'_>,
    written: &[Spanned<String>],
) -> Result<Vec<Pattern>, ConfigError> {
    let parse = |text: &Spanned<String>| {
        Pattern::parse(text.get_ref())
            .map_err(|error| source.mistake(Some(text.span()), error.to_string()))
    };
    written.iter().map(parse).collect()
}

fn digests(
    source: &Source<'_>,
    written: Option<Vec<Spanned<String>>>,
) -> Result<Vec<[u8; 32]>, ConfigError> {
    let parse = |text: &Spanned<String>| {
        let mut digest = [0; 32];
        hex::decode_to_slice(text.get_ref(), &mut digest)
            .map(|()| digest)
            .map_err(|_| {
                let problem = "a digest is the 64 hex digits that sha256sum prints";
                source.mistake(Some(text.span()), problem)
            })
    };
    match written {
        // An empty list would read as a demand and make none.
        Some(list) if list.is_empty() => {
            Err(source.mistake(None, "sha256 = [] demands nothing; leave it out"))
        }
        list => list.iter().flatten().map(parse).collect(),
    }
}
