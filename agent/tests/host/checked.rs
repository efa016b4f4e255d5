//! `check` and `check-config` of a host that takes policy snapshots: what it has, in the words of the
//! admission.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use clap::Parser as _;
use countersign_agent::Config;
use countersign_agent::args::{Args, Verb};
use countersign_agent::check::{self, Answer, CheckError, Question};
use countersign_agent::snapshot::{FILE, SnapshotRule, Snapshots};
use countersign_agent::summary::summary;
use countersign_protocol::api::Grant;
use countersign_protocol::event::RefusalReason;
use countersign_protocol::hash::StatementId;
use countersign_protocol::name::{SECOND_US, Time};
use serde_json::json;

use crate::config::{Files, least};
use crate::snapshot::{of_book, signed_in};
use crate::support::{World, at, public, signers};

const HOUR_US: u64 = 3600 * SECOND_US;

/// A host that takes snapshots of two of these administrators, its world, and a command that is
/// properly approved. Both keep their memory in the same folder.
struct Checked {
    /// Removed with the test.
    _files: Files,
    config: Config,
    world: World,
    id: StatementId,
}

impl Checked {
    fn new() -> Self {
        let files = Files::new();
        let mut world = World::new();
        let id = world.approved_true();
        let config = Config {
            ledger: world.host.pins.ledger,
            rules: world.host.rules.clone(),
            ..files.load(&least()).unwrap()
        };
        let mut checked = Self {
            config,
            _files: files,
            world,
            id,
        };
        fs::create_dir(&checked.config.state).unwrap();
        checked.reopen();
        checked.pins(&["alice", "bob", "carol"]);
        checked
    }

    fn pins(&mut self, administrators: &[&str]) {
        let rule = SnapshotRule {
            administrators: signers(administrators),
            threshold: 2,
            max_age_us: 24 * HOUR_US,
        };
        self.config.snapshot = Some(rule.clone());
        self.world.host.snapshot = Some(rule);
    }

    fn reopen(&mut self) {
        self.world.host.snapshots = Arc::new(Snapshots::open(&self.config.state).unwrap());
    }

    /// The host is shown a snapshot of these people, with a grant.
    fn shown(&mut self, by: &[&str], min_approvals: u32) {
        let mut snapshot = of_book(&self.world.book);
        snapshot.min_approvals = min_approvals;
        let by: Vec<(&str, &str)> = by.iter().map(|name| (*name, *name)).collect();
        let body = signed_in(&mut self.world.book, &snapshot, &by, |_| {});
        let grant = Grant {
            snapshot: Some(body),
            ..self.world.grant(self.id)
        };
        drop(self.world.admit(&grant).unwrap());
    }

    fn now(&self) -> Time {
        at(self.world.now)
    }

    fn ask(&self, options: &[&str]) -> Answer {
        check::ask(&self.config, question(options), self.now()).unwrap()
    }

    /// `check` and the admission refuse with the same rule and the same words.
    fn refuse_alike(&self, words: &str) {
        let refusal = self.world.refused(self.id);
        let answer = self.ask(&[]);
        assert!(!answer.is_yes());
        let said = answer.to_json();
        assert_eq!(said["allowed"], json!(false));
        assert_eq!(said["rule"], json!(refusal.rule.unwrap().as_str()));
        assert_eq!(said["detail"], json!(refusal.detail));
        assert_eq!(said["snapshot"]["holds"], json!(false));
        assert_eq!(said["snapshot"]["detail"], json!(refusal.detail));
        assert!(refusal.detail.contains(words), "{}", refusal.detail);
        let text = answer.to_string();
        let first = format!("refused by snapshot: {}\n", refusal.detail);
        assert!(text.starts_with(&first), "{text}");
        assert!(text.contains("it would be allowed by allow_all"), "{text}");
    }
}

fn question(options: &[&str]) -> Question {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }
    let words = [&["agent", "check"], options, &["--", "true"]].concat();
    match Line::parse_from(words).args.verb {
        Some(Verb::Check(question)) => question,
        other => panic!("{other:?}"),
    }
}

#[test]
fn check_says_who_signed_the_snapshot_how_old_it_is_and_until_when_it_holds() {
    let mut checked = Checked::new();
    checked.shown(&["alice", "bob"], 3);
    let made = checked.world.book.now;
    checked.world.now = made + 600 * SECOND_US;
    let answer = checked.ask(&[]);
    assert!(answer.is_yes(), "{answer}");
    let text = answer.to_string();
    for line in [
        "approvals: 3 at least",
        ", for 50 min 0 s\n",
        "  signed by: alice 10 min 0 s ago, bob 10 min 0 s ago; it takes 2\n",
        "  it lists: 3 approvers, 3 approvals at least, as the log of",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let said = answer.to_json();
    assert_eq!(said["approvals"], json!(3));
    let snapshot = &said["snapshot"];
    assert_eq!(
        (&snapshot["holds"], &snapshot["detail"]),
        (&json!(true), &json!(null))
    );
    assert_eq!(snapshot["until_us"], json!(made + HOUR_US));
    assert_eq!(snapshot["age_s"], json!(600));
    assert_eq!(
        (&snapshot["threshold"], &snapshot["max_age_s"]),
        (&json!(2), &json!(86_400))
    );
    let signed: Vec<&str> = snapshot["signed_by"]
        .as_array()
        .unwrap()
        .iter()
        .map(|word| word["principal"].as_str().unwrap())
        .collect();
    assert_eq!(signed, ["alice", "bob"]);
    // The host's own limit ends it earlier.
    let limited = 1200 * SECOND_US;
    checked.config.snapshot.as_mut().unwrap().max_age_us = limited;
    let said = checked.ask(&[]).to_json();
    assert_eq!(said["snapshot"]["until_us"], json!(made + limited));
    // And a host that asks for none says nothing of any.
    checked.config.snapshot = None;
    let answer = checked.ask(&[]);
    assert!(!answer.to_string().contains("snapshot"), "{answer}");
    assert_eq!(answer.to_json()["snapshot"], json!(null));
}

#[test]
fn check_refuses_for_want_of_a_snapshot_in_the_words_of_the_admission() {
    let mut checked = Checked::new();
    checked.refuse_alike("this host was never shown one");
    assert!(checked.ask(&[]).to_string().contains("none is kept"));
    // One that one administrator has signed is not kept.
    checked.shown(&["alice"], 2);
    checked.refuse_alike("this host was never shown one");
    checked.shown(&["alice", "bob"], 2);
    assert!(checked.ask(&[]).is_yes());
    let made = checked.world.book.now;
    checked.world.now = made + HOUR_US;
    checked.world.host.rules.max_approval_age_us = 2 * HOUR_US;
    checked.refuse_alike("its time is over by this host's clock");
    let said = checked.ask(&[]);
    assert!(
        said.to_string()
            .contains("one is kept that does not hold\n  signed by: alice 1 h 0 min ago"),
        "{said}"
    );
    assert_eq!(said.to_json()["snapshot"]["until_us"], json!(null));
    checked.world.now = made;
    // Its signers are administrators here no more.
    checked.pins(&["alice", "carol"]);
    checked.refuse_alike("1 of 2 pinned administrators have signed it; bob: ");
}

#[test]
fn check_asks_the_rules_as_well() {
    let mut checked = Checked::new();
    checked.shown(&["alice", "bob"], 2);
    let refused = checked.ask(&["--shell"]);
    assert!(!refused.is_yes());
    let text = refused.to_string();
    assert!(text.starts_with("refused by modes: "), "{text}");
    assert!(text.contains("\nsnapshot: holds until "), "{text}");
    checked.world.now = checked.world.book.now + HOUR_US;
    let text = checked.ask(&["--shell"]).to_string();
    assert!(text.starts_with("refused by snapshot: "), "{text}");
    assert!(!text.contains("would be allowed"), "{text}");
}

#[test]
fn check_has_no_answer_where_what_is_kept_cannot_be_read() {
    let checked = Checked::new();
    fs::write(checked.config.state.join(FILE), "{").unwrap();
    let answer = check::ask(&checked.config, question(&[]), checked.now());
    assert!(matches!(answer, Err(CheckError::Memory(_))), "{answer:?}");
}

fn of_config(checked: &Checked) -> (String, serde_json::Value) {
    let path = Path::new("agent.toml");
    let summary = summary(path, &checked.config, checked.now());
    (summary.to_string(), summary.to_json())
}

#[test]
fn check_config_says_whose_snapshot_is_taken_and_how_old_all_may_be() {
    let mut checked = Checked::new();
    checked.config.max_checkpoint_age_us = Some(300 * SECOND_US);
    let (text, said) = of_config(&checked);
    for line in [
        "\n  snapshot takes: approvers and groups that 2 of alice, bob, carol have signed, at most 86400 s ago\n",
        "\n  ledger shows: an entry of the last 300 s with each grant (max_checkpoint_age_s)\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
    assert!(!text.contains("warning"), "{text}");
    let table = json!({
        "administrators": ["alice", "bob", "carol"], "threshold": 2, "max_age_s": 86_400,
    });
    assert_eq!(
        (&said["ok"], &said["snapshot"]),
        (&json!(true), &table),
        "{said}"
    );
    assert_eq!(said["max_checkpoint_age_s"], json!(300));
    assert_eq!(said["warnings"], json!([]));
    checked.config.snapshot = None;
    checked.config.max_checkpoint_age_us = None;
    let (text, said) = of_config(&checked);
    assert!(!text.contains("snapshot") && !text.contains("ledger shows"));
    assert_eq!(
        (&said["snapshot"], &said["max_checkpoint_age_s"]),
        (&json!(null), &json!(null))
    );
}

/// The only warning, which both forms have.
fn warned(checked: &Checked) -> String {
    let (text, said) = of_config(checked);
    let warnings = said["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 1, "{said}");
    let warning = warnings[0].as_str().unwrap();
    assert!(text.ends_with(&format!("\nwarning: {warning}")), "{text}");
    warning.to_owned()
}

#[test]
fn check_config_warns_of_administrators_who_cannot_sign() {
    let mut checked = Checked::new();
    let line =
        |name: &str, options: &str| format!("{name} {options}{}\n", public(name).to_openssh());
    for options in [
        "namespaces=\"command.approved.v1@countersign\" ",
        "valid-before=\"20200101Z\" ",
    ] {
        let text = line("alice", "") + &line("bob", options);
        checked.config.snapshot.as_mut().unwrap().administrators =
            countersign_agent::signers::AllowedSigners::parse(&text).unwrap();
        let warning = warned(&checked);
        assert!(
            warning.contains("takes 2 administrators and 1 of them can sign now"),
            "{warning}"
        );
        assert!(warning.contains("of bob no key"), "{warning}");
    }
    // Nor can a key that a snapshot revoked.
    checked.pins(&["alice", "bob", "carol"]);
    checked
        .world
        .book
        .change(countersign_protocol::rights::ChangeBody::KeyRevoked {
            key_id: public("bob").key_id(),
            suspect_from: None,
        });
    checked.shown(&["alice", "carol"], 2);
    assert_eq!(of_config(&checked).1["warnings"], json!([]));
    checked.pins(&["alice", "bob"]);
    let warning = warned(&checked);
    assert!(warning.contains("of bob no key"), "{warning}");
    // As the admission has it.
    assert_eq!(
        checked.world.refused(checked.id).why,
        RefusalReason::Approvals
    );
}

#[test]
fn check_config_warns_of_what_can_never_be_met() {
    let mut checked = Checked::new();
    checked.config.snapshot.as_mut().unwrap().max_age_us = 60 * SECOND_US;
    let warning = warned(&checked);
    assert!(
        warning.starts_with("max_age_s of [snapshot] is 60: "),
        "{warning}"
    );
    checked.pins(&["alice", "bob"]);
    fs::write(checked.config.state.join(FILE), "{").unwrap();
    assert!(warned(&checked).contains("does not hold what this agent wrote"));
    // Pins alone: alice and bob.
    checked.config.snapshot = None;
    assert_eq!(of_config(&checked).1["warnings"], json!([]));
    checked.config.rules.min_approvals = 3;
    let warning = warned(&checked);
    assert!(warning.contains("allowed_signers names 2"), "{warning}");
}
