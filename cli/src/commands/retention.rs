//! `retention`: what rules would erase, from verified entries. It erases nothing by itself: with
//! `--propose` it asks, and other people consent to each change as to any other.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::{Args, ValueEnum as _};
use countersign_protocol::hash::CommandId;
use countersign_protocol::name::{Label, LegalBasis, RuleName, Time};
use countersign_protocol::short;
use serde::Deserialize;

use super::redact::{self, Only};
use super::{Globals, asking, decide, request};
use crate::acts::{Client, RightsView, Text, counted};
use crate::failure::Failure;
use crate::view::CommandView;
use crate::{clock, console, exit_code, shapes};

/// Commands that one page of the server's list has.
const PAGE: u64 = 1000;

/// By which rules.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example of rules:
  [[rule]]
  name = \"output-90d\"
  after = \"90d\"
  erase = [\"output\", \"stdin\"]
  labels = [\"env=test\"]        # all of its hosts have one of these; left out: any host
  programs = [\"/usr/bin/psql\"] # as requests write them; left out: any program
  legal_basis = \"retention-2026\"
  reason = \"kept for 90 days, as the works agreement says\"

The first rule that fits a command speaks for it. What a legal hold covers is shown and never asked
for. Which commands there are is the server's word; what is proposed of each was verified.")]
pub struct Arguments {
    /// A file of rules (TOML)
    #[arg(long, value_name = "FILE")]
    rules: PathBuf,
    /// Sign a change for each command; other administrators consent to each
    #[arg(long)]
    propose: bool,
    /// With --propose: do not ask
    #[arg(long, requires = "propose")]
    yes: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    rule: Vec<Written>,
}

/// A rule as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: RuleName,
    after: String,
    erase: Vec<String>,
    #[serde(default)]
    labels: Vec<Label>,
    #[serde(default)]
    programs: Vec<String>,
    legal_basis: LegalBasis,
    reason: String,
}

/// A rule.
#[derive(Debug)]
struct Rule {
    name: RuleName,
    after_us: u64,
    erase: Vec<Only>,
    labels: Vec<Label>,
    programs: Vec<String>,
    legal_basis: LegalBasis,
    reason: String,
}

fn parse(text: &str) -> Result<Vec<Rule>, Failure> {
    let wrong = |what: String| Failure::usage(format!("the rules cannot be read: {what}"));
    let rules: Rules = toml::from_str(text).map_err(|error| wrong(error.to_string()))?;
    let rule = |rule: Written| {
        let of = |what: String| wrong(format!("rule {}: {what}", rule.name));
        let after =
            request::duration(&rule.after).map_err(|error| of(format!("after: {error}")))?;
        let kinds = rule
            .erase
            .iter()
            .map(|word| Only::from_str(word, false).map_err(|error| of(format!("erase: {error}"))));
        let erase: Vec<Only> = kinds.collect::<Result<_, _>>()?;
        if erase.is_empty() || rule.reason.is_empty() {
            return Err(of("it erases something, and says why".to_owned()));
        }
        Ok(Rule {
            after_us: u64::try_from(after.as_micros()).unwrap_or(u64::MAX),
            erase,
            name: rule.name,
            labels: rule.labels,
            programs: rule.programs,
            legal_basis: rule.legal_basis,
            reason: rule.reason,
        })
    };
    rules.rule.into_iter().map(rule).collect()
}

impl Rule {
    fn fits(&self, view: &CommandView, rights: &RightsView, now: Time) -> bool {
        let age = now.micros_since(view.command.requested.time);
        let hosts = || view.command.executions.keys();
        let has_one = |host| {
            let mut labels = rights.state.rights().labels(host);
            labels.any(|label| self.labels.iter().any(|asked| label.is_within(asked)))
        };
        let labelled = self.labels.is_empty() || hosts().all(has_one);
        let program = view.spec.here().and_then(|spec| spec.argv.first());
        let named = self.programs.is_empty()
            || program.is_some_and(|program| self.programs.contains(program));
        age >= self.after_us && labelled && named
    }
}

/// What a rule says of a command.
struct Proposal<'a> {
    rule: &'a Rule,
    command: CommandId,
    texts: Vec<Text>,
    held: Option<String>,
}

/// Shows what the rules propose, and asks for it when it is wanted.
pub(super) async fn retention(globals: &Globals, arguments: Arguments) -> Result<u8, Failure> {
    if arguments.propose {
        decide::require_asking(arguments.yes)?;
    }
    let rules = parse(&asking::read(&arguments.rules).await?)?;
    let client = globals.connect().await?;
    let rights = client.rights().await?;
    let mut proposals = Vec::new();
    for command in settled(&client).await? {
        proposals.extend(propose(&client, &rights, &rules, command).await?);
    }
    if !globals.json {
        show(&proposals)?;
    }
    let free = proposals.iter().filter(|one| one.held.is_none()).count();
    let asks = arguments.propose && free > 0;
    if asks {
        let question = format!("Ask for the texts of these {free} commands to be erased?");
        decide::confirm(arguments.yes, &question)?;
    }
    let mut items = Vec::with_capacity(proposals.len());
    for proposal in &proposals {
        let changes = if asks && proposal.held.is_none() {
            let (basis, reason) = (&proposal.rule.legal_basis, &proposal.rule.reason);
            redact::ask(&client, proposal.command, &proposal.texts, basis, reason).await?
        } else {
            Vec::new()
        };
        if !globals.json {
            redact::say(&changes)?;
        }
        items.push(shape(proposal, changes));
    }
    if globals.json {
        console::print_json(&shapes::ItemsShape { items, next: None })?;
    }
    Ok(exit_code::DONE)
}

/// Commands that are over, as the server lists them.
async fn settled(client: &Client) -> Result<BTreeSet<CommandId>, Failure> {
    let mut found = BTreeSet::new();
    let mut cursor: Option<String> = None;
    loop {
        let mut query = vec![("limit", PAGE.to_string())];
        query.extend(cursor.take().map(|cursor| ("cursor", cursor)));
        let page = client.list(&query).await?;
        let before = found.len();
        found.extend(
            page.items
                .iter()
                .filter_map(|item| item.id.parse::<CommandId>().ok()),
        );
        match page.next {
            // A server that never ends its list must not keep anybody for ever.
            Some(next) if found.len() > before => cursor = Some(next),
            Some(_) | None => return Ok(found),
        }
    }
}

async fn propose<'a>(
    client: &Client,
    rights: &RightsView,
    rules: &'a [Rule],
    command: CommandId,
) -> Result<Option<Proposal<'a>>, Failure> {
    let view = client.fetch_command(&command).await?;
    let now = clock::now();
    let fits = |rule: &&Rule| rule.fits(&view, rights, now);
    let Some(rule) = rules.iter().find(fits) else {
        return Ok(None);
    };
    if !view.command.status().is_final() {
        return Ok(None);
    }
    let held = rights.state.rights();
    let texts = redact::wanted(&view, held, &rule.erase, &BTreeSet::new());
    let waits = |text: &Text| {
        let mut erased = held
            .changes()
            .filter_map(|(_, change)| change.body.erased());
        erased.any(|erased| erased.digests.contains(&text.digest))
    };
    let texts: Vec<Text> = texts.into_iter().filter(|text| !waits(text)).collect();
    Ok((!texts.is_empty()).then(|| Proposal {
        rule,
        command,
        texts,
        held: held.hold_over(&view.command).map(ToString::to_string),
    }))
}

fn show(proposals: &[Proposal<'_>]) -> Result<(), Failure> {
    if proposals.is_empty() {
        console::note("the rules propose nothing");
    }
    for proposal in proposals {
        let held = proposal.held.as_ref();
        let held = held.map_or_else(String::new, |hold| format!("; HELD by {hold}, stays"));
        console::print(&format!(
            "{}  {}: {}{held}\n",
            short::short(&proposal.command),
            proposal.rule.name,
            counted(&proposal.texts)
        ))?;
    }
    Ok(())
}

fn shape(proposal: &Proposal<'_>, changes: Vec<shapes::JudgedShape>) -> shapes::ProposalShape {
    shapes::ProposalShape {
        rule: proposal.rule.name.to_string(),
        command: proposal.command.to_string(),
        short: short::short(&proposal.command),
        legal_basis: proposal.rule.legal_basis.to_string(),
        texts: proposal.texts.iter().map(shapes::text).collect(),
        held: proposal.held.clone(),
        changes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: &str = "[[rule]]\nname = \"a\"\nafter = \"90d\"\nerase = [\"output\"]\n\
        legal_basis = \"b\"\nreason = \"r\"\n";

    #[test]
    fn rules_are_closed_and_say_what_and_why() {
        let rules = parse(RULE).unwrap();
        assert_eq!(rules[0].after_us, 90 * 24 * 3600 * 1_000_000);
        assert_eq!(rules[0].erase, [Only::Output]);
        for (before, after) in [
            ("after", "afer"),
            ("90d", "soon"),
            ("output", "targets"),
            ("[\"output\"]", "[]"),
            ("\"r\"", "\"\""),
            ("\"b\"", "\"b b\""),
        ] {
            let wrong = RULE.replacen(before, after, 1);
            assert!(parse(&wrong).is_err(), "{wrong}");
        }
    }
}
