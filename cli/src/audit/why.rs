//! Everything that led to one command, in the order of the log: whose rights by which changes, who asked,
//! who agreed, under which rules, what was granted, what ran.

use std::collections::{BTreeMap, BTreeSet};

use countersign_protocol::event::{CommandAuthorized, Event, Kind};
use countersign_protocol::hash::{CommandId, KeyId};
use countersign_protocol::key;
use countersign_protocol::name::Principal;
use countersign_protocol::policy::{Policy, PolicyRef};
use countersign_protocol::quorum::Requirement;
use countersign_protocol::rights::ChangeBody;
use countersign_protocol::short;
use countersign_protocol::view::{Skipped, outcome_word, refusal_word};
use serde::Serialize;

use super::chronicle::Chronicle;
use super::fact::{Fact, change_line};
use super::sources::Sources;
use super::table::{Record, maybe, shown, stamp, words};
use crate::describe;
use crate::streams::{Held, Link};
use crate::view::CommandView;

/// One entry that led to the command.
#[derive(Debug, Clone, Serialize)]
pub struct WhyRow {
    /// Where it stands.
    pub seq: u64,
    /// When it was entered, in microseconds.
    pub time_us: u64,
    /// Its kind.
    pub kind: &'static str,
    /// Who signed it.
    pub who: String,
    /// With which key, as people compare it.
    pub fingerprint: String,
    /// Whose rights it gave, for a change of rights.
    pub gives: Vec<String>,
    /// Who consented to it and where, for a change of rights.
    pub agreed: Vec<String>,
    /// What it says.
    pub detail: String,
}

/// A rule that was satisfied.
#[derive(Debug, Clone, Serialize)]
pub struct RuleText {
    /// Its `@id`.
    pub id: String,
    /// Its text; none where the policy is not to be had.
    pub text: Option<String>,
}

/// Everything that led to a command.
#[derive(Debug, Clone, Serialize)]
pub struct Why {
    /// The policy that it was judged by: its digest, and the entry that published it.
    pub policy: Option<PolicyRef>,
    /// The rules that spoke.
    pub rules: Vec<RuleText>,
    /// What they asked.
    pub requirement: Option<Requirement>,
    /// The entries, in order.
    pub entries: Vec<WhyRow>,
}

/// Somebody who signed for a command, whose rights are asked for where they signed.
struct Moment<'a> {
    seq: u64,
    whose: String,
    who: Signer<'a>,
    key: KeyId,
}

enum Signer<'a> {
    Person(&'a Principal),
    Agent(&'a countersign_protocol::name::AgentName),
}

/// Puts together everything that led to a command whose entries the chronicle keeps.
#[must_use]
pub fn why(chronicle: &Chronicle, view: &CommandView) -> Why {
    let authorized = chronicle.kept().iter().find_map(|link| {
        if let Event::CommandAuthorized(authorized) = link.entry.verified.event() {
            Some(authorized)
        } else {
            None
        }
    });
    let in_force = chronicle.state().rights().policy();
    let policy = authorized.map_or_else(|| in_force.map(|it| it.reference), |it| Some(it.policy));
    let requirement = authorized.map_or_else(
        || view.requirement.as_ref().ok().cloned(),
        |it| Some(it.requirement.clone()),
    );
    let mut entries = rights_rows(chronicle, view, policy);
    entries.extend(own_rows(chronicle, view, authorized));
    entries.sort_by_key(|row| row.seq);
    Why {
        rules: rules(chronicle, policy, requirement.as_ref()),
        policy,
        requirement,
        entries,
    }
}

fn rules(
    chronicle: &Chronicle,
    reference: Option<PolicyRef>,
    requirement: Option<&Requirement>,
) -> Vec<RuleText> {
    let policy = reference.and_then(|reference| policy_of(chronicle, reference));
    let review = policy.and_then(|policy| countersign_policy::review(&policy).ok());
    let texts: BTreeMap<String, String> = review
        .into_iter()
        .flat_map(|review| review.rules)
        .map(|rule| (rule.name.to_string(), rule.text))
        .collect();
    let names = requirement.iter().flat_map(|it| &it.rules);
    names
        .map(|name| RuleText {
            id: name.to_string(),
            text: texts.get(name.as_str()).cloned(),
        })
        .collect()
}

/// The text of a policy that was in force once.
fn policy_of(chronicle: &Chronicle, reference: PolicyRef) -> Option<Policy> {
    let built_in = Policy::built_in();
    if built_in.digest() == reference.digest {
        return Some(built_in);
    }
    chronicle.rights().iter().find_map(|link| {
        let Event::ChangeRequested(request) = link.entry.verified.event() else {
            return None;
        };
        let blob = chronicle.blobs().blob(request.document.as_ref()?)?;
        let policy = Policy::new(String::from_utf8(blob.content().to_vec()).ok()?).ok()?;
        (policy.digest() == reference.digest).then_some(policy)
    })
}

/// Everybody whose signature the command rests on.
fn moments<'a>(chronicle: &'a Chronicle, view: &'a CommandView) -> Vec<Moment<'a>> {
    let command = &view.command;
    let request = &command.request;
    let mut moments = vec![Moment {
        seq: command.requested.seq,
        whose: request.principal.to_string(),
        who: Signer::Person(&request.principal),
        key: request.signer,
    }];
    moments.extend(view.words.iter().map(|word| Moment {
        seq: word.seq,
        whose: word.principal.to_string(),
        who: Signer::Person(&word.principal),
        key: word.key_id,
    }));
    let closed = chronicle.review(&command.id);
    if let Some((who, at, key, _)) = closed.and_then(|review| review.closed.as_ref()) {
        moments.push(Moment {
            seq: at.seq,
            whose: who.to_string(),
            who: Signer::Person(who),
            key: *key,
        });
    }
    for (agent, part) in &command.executions {
        if let Some((started, at)) = &part.started {
            moments.push(Moment {
                seq: at.seq,
                whose: agent.to_string(),
                who: Signer::Agent(agent),
                key: started.signer,
            });
        }
    }
    moments.sort_by_key(|moment| moment.seq);
    moments
}

/// The changes of rights that gave these people and hosts what they needed, where they signed.
fn rights_rows(
    chronicle: &Chronicle,
    view: &CommandView,
    policy: Option<PolicyRef>,
) -> Vec<WhyRow> {
    let mut gives: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
    let mut sources = Sources::default();
    let mut rights = chronicle.rights().iter().peekable();
    let token = view.command.request.token.as_ref();
    for moment in moments(chronicle, view) {
        while let Some(link) = rights.next_if(|link| link.entry.seq < moment.seq) {
            sources.take(link.entry.seq, link.entry.verified.event());
        }
        let mut found = match moment.who {
            Signer::Person(who) => sources.of_person(who, &moment.key),
            Signer::Agent(name) => sources.of_agent(name, &moment.key),
        };
        if moment.seq == view.command.requested.seq {
            found.extend(token.and_then(|token| sources.of_token(token)));
        }
        for seq in found {
            gives.entry(seq).or_default().insert(moment.whose.clone());
        }
    }
    // The policy concerns everybody, so it is named for nobody.
    if let Some(policy) = policy {
        gives.entry(policy.seq).or_default();
    }
    let named = |link: &&Link| gives.contains_key(&link.entry.seq);
    let rows = chronicle.rights().iter().filter(named).map(|link| {
        let mut row = row(link, rights_detail(link.entry.verified.event()));
        let whose = gives.get(&row.seq).into_iter().flatten();
        row.gives = whose.cloned().collect();
        row.agreed = agreed(chronicle, link.entry.verified.event());
        row
    });
    rows.collect()
}

fn row(link: &Link, detail: String) -> WhyRow {
    let entry = &link.entry;
    let event = entry.verified.event();
    let id = entry.verified.id();
    let fact = Fact::of(entry.seq, entry.time, id, event);
    WhyRow {
        seq: entry.seq,
        time_us: entry.time.as_micros(),
        kind: event.kind().as_str(),
        who: fact.map_or_else(String::new, |fact| fact.who.as_str().to_owned()),
        fingerprint: key::fingerprint(&event.header().signer),
        gives: Vec::new(),
        agreed: Vec::new(),
        detail,
    }
}

fn rights_detail(event: &Event) -> String {
    if let Event::LedgerGenesis(genesis) = event {
        let names = genesis.administrators.iter();
        let names: Vec<&str> = names.map(|one| one.principal.as_str()).collect();
        return format!(
            "administrators: {}; a change takes {} of them",
            names.join(", "),
            genesis.threshold
        );
    }
    ChangeBody::effected(event).map_or_else(String::new, |effected| change_line(&effected.body))
}

/// Who consented to a change, and where: `carol (12)`.
fn agreed(chronicle: &Chronicle, event: &Event) -> Vec<String> {
    let Some(effected) = ChangeBody::effected(event) else {
        return Vec::new();
    };
    let who = |seq: &u64| {
        let facts = chronicle.facts();
        let at = facts.binary_search_by_key(seq, |fact| fact.seq).ok()?;
        let fact = facts.get(at)?;
        Some(format!("{} ({seq})", fact.who.as_str()))
    };
    effected.rests_on.iter().filter_map(who).collect()
}

/// The command's own entries, and those of its review.
fn own_rows(
    chronicle: &Chronicle,
    view: &CommandView,
    authorized: Option<&CommandAuthorized>,
) -> Vec<WhyRow> {
    let is_review = |link: &&Link| {
        let event = link.entry.verified.event();
        matches!(event.kind(), Kind::ReviewOpened | Kind::ReviewClosed)
            && reviewed(event) == Some(view.id())
    };
    let reviews = chronicle.rights().iter().filter(is_review);
    let own = chronicle.kept().iter();
    let rows = own.chain(reviews).filter_map(|link| {
        let event = link.entry.verified.event();
        // Output is what came of it; `logs` and `replay` show that.
        let is_output = matches!(event, Event::ExecutionOutput(_));
        (!is_output).then(|| {
            row(
                link,
                own_detail(chronicle, view, link.entry.seq, event, authorized),
            )
        })
    });
    rows.collect()
}

fn reviewed(event: &Event) -> Option<CommandId> {
    if let Event::ReviewOpened(review) = event {
        Some(review.command)
    } else if let Event::ReviewClosed(review) = event {
        Some(review.command)
    } else {
        None
    }
}

fn own_detail(
    chronicle: &Chronicle,
    view: &CommandView,
    seq: u64,
    event: &Event,
    authorized: Option<&CommandAuthorized>,
) -> String {
    if let Event::CommandRequested(request) = event {
        let argv = view.spec.here().map(|spec| spec.argv.as_slice());
        let token = request.token.as_ref();
        let token = token.map(|token| format!("; by the token {token}"));
        let retry = request.retry.as_ref();
        let retry = retry.map(|retry| format!("; retry of {}", short::short(&retry.of)));
        return format!(
            "{}; reason: {}{}{}",
            words(argv),
            text(&view.reason),
            token.unwrap_or_default(),
            retry.unwrap_or_default()
        );
    }
    if let Some(word) = view.words.iter().find(|word| word.seq == seq) {
        let reason = word.reason.as_ref();
        let reason = reason.map_or_else(
            || "no reason".to_owned(),
            |why| format!("reason: {}", text(why)),
        );
        let counted = authorized.map(|grant| grant.approvals.contains(&seq));
        return match (matches!(event, Event::CommandApproved(_)), counted) {
            (true, Some(true)) => format!("counted; {reason}"),
            (true, Some(false)) => format!("did not count; {reason}"),
            (_, _) => reason,
        };
    }
    if let Event::CommandAuthorized(grant) = event {
        let seqs: Vec<String> = grant.approvals.iter().map(ToString::to_string).collect();
        let on = if seqs.is_empty() {
            "none".to_owned()
        } else {
            seqs.join(", ")
        };
        return format!(
            "policy of entry {}; {}; approvals: {on}",
            grant.policy.seq,
            describe::price(&grant.requirement)
        );
    }
    if let Event::ExecutionStarted(started) = event {
        let uid = started.in_force.map(|it| format!(" as uid {}", it.uid));
        let path = view
            .starts
            .get(&started.agent)
            .map(|start| text(&start.path));
        let runs = chronicle.runs(&(started.command, started.agent.clone()));
        let runs = runs.map(|argv| format!("; runs {}", words(Some(&argv))));
        return format!(
            "{}{}, SHA-256 {}{}",
            path.unwrap_or_default(),
            uid.unwrap_or_default(),
            started.program.sha256,
            runs.unwrap_or_default()
        );
    }
    if let Event::ExecutionCompleted(done) = event {
        let code = done.exit_code.map(|code| format!(" {code}"));
        return format!(
            "{}{} after {} ms; stdout {} bytes, stderr {} bytes",
            outcome_word(done.outcome),
            code.unwrap_or_default(),
            done.duration_us / 1000,
            done.stdout.total,
            done.stderr.total
        );
    }
    if let Event::ExecutionRefused(refused) = event {
        let detail = refused
            .detail
            .and_then(|named| view.texts.get(&named.digest));
        let detail = detail.map(|detail| format!(": {}", text(detail)));
        return format!(
            "{}{}",
            refusal_word(refused.why),
            detail.unwrap_or_default()
        );
    }
    if let Event::ExecutionSkipped(skipped) = event {
        return describe::skipped(Skipped::said(skipped.why)).to_owned();
    }
    if let Event::ReviewOpened(review) = event {
        return format!("due {}", shown(Some(review.due_at.as_micros())));
    }
    if let Event::ReviewClosed(review) = event {
        let found = chronicle.blobs().content(&review.reason);
        return text(&found.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()));
    }
    String::new()
}

fn text(held: &Held<String>) -> String {
    match held {
        Held::Here(text) => text.clone(),
        Held::Redacted => "(erased)".to_owned(),
        Held::Withheld => "(not for you to read)".to_owned(),
    }
}

impl Record for WhyRow {
    const COLUMNS: &'static [&'static str] = &[
        "seq",
        "time",
        "kind",
        "who",
        "fingerprint",
        "gives",
        "agreed",
        "detail",
    ];
    const HEADINGS: &'static [&'static str] = &["SEQ", "WHEN", "WHAT", "WHO", "FOR", "DETAIL"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.seq.to_string(),
            stamp(Some(self.time_us)),
            self.kind.to_owned(),
            self.who.clone(),
            self.fingerprint.clone(),
            super::table::list(&self.gives),
            super::table::list(&self.agreed),
            self.detail.clone(),
        ]
    }

    fn brief(&self) -> Vec<String> {
        let agreed = (!self.agreed.is_empty()).then(|| self.agreed.join(", "));
        vec![
            self.seq.to_string(),
            shown(Some(self.time_us)),
            self.kind.to_owned(),
            agreed.unwrap_or_else(|| format!("{} {}", self.who, self.fingerprint)),
            self.gives.join(", "),
            maybe(Some(&self.detail)),
        ]
    }
}
