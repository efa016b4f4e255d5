//! What holds of every policy: asked with rules and requests at random.

use countersign_policy::CedarJudge;
use countersign_policy::lists::from_file;
use countersign_protocol::command::CommandSpec;
use countersign_protocol::judgement::{Judge as _, Judgement, Question};
use countersign_protocol::policy::Policy;
use countersign_protocol::quorum::{Demand, Requirement};
use countersign_protocol::rollout::Gap;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use std::sync::LazyLock;

use crate::book::{Book, Case, exec, shell, text};

static BOOK: LazyLock<Book> = LazyLock::new(Book::peopled);

const PRINCIPALS: &[&str] = &[
    "principal",
    "principal is User",
    "principal == User::\"dave\"",
    "principal in User::\"dave\"",
    "principal in Group::\"sre\"",
    "principal in Group::\"ops\"",
    "principal is User in Group::\"sre\"",
    "principal in Role::\"admin\"",
    "principal in Permission::\"command:execute\"",
];

const CONDITIONS: &[&str] = &[
    "",
    "when { true }",
    "when { resource.program == \"ls\" }",
    "when { resource.name == \"rm\" && resource.mode == \"exec\" }",
    "when { \"rm\" == resource.name }",
    "when { resource.program != \"ls\" }",
    "when { resource.labels.contains(\"env=prod\") }",
    "when { resource.common_labels.contains(\"env=dev\") || resource.words > 1 }",
    "unless { resource.common_labels.contains(\"group=web\") }",
    "unless { resource.program == \"ls\" }",
    "when { resource.hosts.contains(\"web-1\") } unless { resource.program == \"rm\" }",
    "when { resource.mode == \"shell\" }",
    "when { resource.line like \"ls *\" }",
    "when { resource.line like \"*ls *\" }",
    "when { resource.line like \"ls*\" }",
    "when { resource.mode == \"exec\" && resource.name_line like \"rm x*\" }",
    "when { resource.mode == \"exec\" && resource.program == \"ls\" && context.time_us * 9000 > 0 }",
    "when { context.time_us * 9000 > 0 && resource.program == \"ls\" }",
    "when { resource.mode == \"exec\" && (resource.program == \"ls\" || resource.words == 2) }",
    "when { resource.paths.contains(\"/etc\") }",
    "when { resource.program == \"ls\" && context.time_us * 9000 > 0 }",
    "when { context.hour > 6 } when { resource.program == \"ls\" }",
];

/// One more argument.
const LAST_WORDS: &[&str] = &["ls", "x", "/etc/passwd", "rm", "a b", "web-1"];

const NOTES: &[&str] = &[
    "",
    "@approvals(\"1\")",
    "@approvals(\"3\") @from(\"sre\")",
    "@also_from(\"security:1\") @expires(\"10m\")",
    "@expires(\"5m\") @reason(\"required\") @rejections(\"3\")",
    "@max_in_flight(\"2\") @gap(\"1m\") @rejections(\"2\")",
    "@max_timeout(\"10s\")",
];

fn permit() -> impl Strategy<Value = String> {
    let parts = (
        select(PRINCIPALS),
        select(CONDITIONS),
        select(NOTES),
        0..10_u8,
    );
    parts.prop_map(|(principal, condition, notes, glass)| {
        if glass == 0 {
            format!("permit ({principal}, action == Action::\"command:break_glass\", resource) {condition};\n")
        } else {
            format!("{notes} permit ({principal}, action == Action::\"command:execute\", resource) {condition};\n")
        }
    })
}

fn forbid() -> impl Strategy<Value = String> {
    let actions = &[
        "action",
        "action == Action::\"command:execute\"",
        "action in [Action::\"command:execute\", Action::\"command:break_glass\"]",
    ][..];
    let parts = (select(PRINCIPALS), select(actions), select(CONDITIONS));
    parts.prop_map(|(principal, action, condition)| {
        format!("forbid ({principal}, {action}, resource is Command) {condition};\n")
    })
}

/// A policy of rules at random, each with a name.
fn rules(forbids: usize) -> impl Strategy<Value = Vec<String>> {
    let both = (
        prop::collection::vec(permit(), 0..12),
        prop::collection::vec(forbid(), 0..=forbids),
    );
    both.prop_map(|(permits, forbids)| {
        let all = permits.into_iter().chain(forbids).enumerate();
        all.map(|(at, rule)| format!("@id(\"r{at:02}\") {rule}"))
            .collect()
    })
}

const WORDS: &[&[&str]] = &[
    &["ls"],
    &["ls", "-l"],
    &["rm", "x"],
    &["/bin/rm", "/etc/x"],
    &["cat"],
];

fn case() -> impl Strategy<Value = Case> {
    let words = select(WORDS);
    let hosts = subsequence(&["bare", "dev-1", "web-1", "web-2"][..], 1..=4);
    let who = select(&["alice", "dave", "erin", "frank", "grace", "nobody"][..]);
    (who, words, hosts, any::<bool>(), 0..6_u8, any::<bool>()).prop_map(
        |(who, words, hosts, is_shell, glass, slow)| {
            let mut case = if is_shell {
                shell(who, "ls /etc")
            } else {
                exec(who, words)
            };
            case = case.on(&hosts);
            case.break_glass = glass == 0;
            case.timeout_ms = if slow { 30_000 } else { 5000 };
            case
        },
    )
}

fn judge(policy: &str, case: &Case) -> Judgement {
    CedarJudge::new().check(&text(policy)).unwrap();
    BOOK.judge(policy, case)
}

/// As a number, so that more is stricter. No veto number is weaker than any.
fn veto(requirement: &Requirement) -> u32 {
    requirement.rejections.map_or(0, |needed| needed)
}

fn at_most<T: Ord>(new: Option<T>, old: Option<T>) -> bool {
    match (new, old) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(new), Some(old)) => new <= old,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn passing_rules_by_changes_no_judgement(rules in rules(3), case in case()) {
        let policy = text(&rules.concat());
        let judge = CedarJudge::new();
        let (shelved, whole) = BOOK.asked(&case, |question| {
            (judge.judge(&policy, question), judge.judge_linearly(&policy, question))
        });
        prop_assert_eq!(shelved, whole);
    }

    #[test]
    fn lines_judged_together_are_judged_as_each_by_itself(
        rules in rules(3), case in case(), words in proptest::collection::vec(select(LAST_WORDS), 1..9),
    ) {
        let policy = text(&rules.concat());
        let judge = CedarJudge::new();
        BOOK.asked(&case, |question| {
            let line = |word: &&str| CommandSpec {
                argv: question.spec.argv.iter().cloned().chain([(*word).to_owned()]).collect(),
                ..question.spec.clone()
            };
            let lines: Vec<CommandSpec> = words.iter().map(line).collect();
            let by_itself = lines.iter().map(|spec| judge.judge(&policy, &Question { spec, ..*question }));
            let mut by_itself: Vec<Judgement> = by_itself.collect();
            let denied = by_itself.iter().position(|said| matches!(said, Judgement::Denied(_)));
            by_itself.truncate(denied.map_or(usize::MAX, |at| at + 1));
            let together = judge.judge_each(&policy, question, &lines);
            // What is said of several lines may be said once: neither says what the other does not.
            prop_assert!(by_itself.iter().all(|said| together.contains(said)));
            prop_assert!(together.iter().all(|said| by_itself.contains(said)));
            Ok(())
        })?;
    }

    #[test]
    fn nothing_is_permitted_without_a_demand_unless_glass_is_broken(rules in rules(1), case in case()) {
        if let Judgement::Permitted(requirement) = judge(&rules.concat(), &case) {
            prop_assert!(requirement.check().is_ok());
            prop_assert_eq!(requirement.break_glass.is_some(), case.break_glass);
            prop_assert_eq!(requirement.demands.is_empty(), case.break_glass);
            let counted = requirement.demands.iter().flat_map(|Demand(seats)| seats);
            prop_assert!(counted.clone().all(|seats| seats.approvals > 0));
            prop_assert!(!requirement.rules.is_empty());
        }
    }

    #[test]
    fn one_more_permit_never_lowers_what_was_demanded(rules in rules(0), more in permit(), case in case()) {
        let before = rules.concat();
        let after = format!("{before}@id(\"more\") {more}");
        let (Judgement::Permitted(old), after) = (judge(&before, &case), judge(&after, &case)) else {
            return Ok(());
        };
        if let Judgement::Permitted(new) = after {
            prop_assert!(old.demands.iter().all(|demand| new.demands.contains(demand)));
            prop_assert!(old.rules.iter().all(|rule| new.rules.contains(rule)));
            prop_assert!(at_most(new.approval_age_ms, old.approval_age_ms));
            prop_assert!(at_most(new.max_in_flight, old.max_in_flight));
            let covers = |gap: &Gap| new.gaps.iter().any(|new| new.label == gap.label && new.ms >= gap.ms);
            prop_assert!(old.gaps.iter().all(covers));
            prop_assert!(new.reason >= old.reason);
            prop_assert!(veto(&new) <= veto(&old));
            let review = |requirement: &Requirement| requirement.break_glass.map(|owed| owed.review_ms);
            prop_assert!(at_most(review(&new), review(&old)));
        }
    }

    #[test]
    fn one_more_forbid_never_permits_what_was_not(rules in rules(2), more in forbid(), case in case()) {
        let before = rules.concat();
        let after = format!("{before}@id(\"more\") {more}");
        let (before, after) = (judge(&before, &case), judge(&after, &case));
        let is_denied = matches!(after, Judgement::Denied(_));
        prop_assert!(is_denied || before == after);
    }

    #[test]
    fn the_order_of_rules_changes_no_judgement(
        (rules, shuffled) in rules(3).prop_flat_map(|rules| (Just(rules.clone()), Just(rules).prop_shuffle())),
        case in case(),
    ) {
        prop_assert_eq!(judge(&rules.concat(), &case), judge(&shuffled.concat(), &case));
    }

    #[test]
    fn no_text_makes_a_judge_panic(
        pieces in prop::collection::vec(select(&[
            "@id(\"a\")", "permit", "forbid", "(", ")", "principal", ",", "action", "==", "in", "is",
            "resource", ";", "when", "unless", "{", "}", "Action::\"command:execute\"", "?principal",
            "User::\"x\"", "resource.mode", "\"", "//", "\n", "\\u{110000}", "like", "\"*\"", "has", "[",
            "]", "9223372036854775808", "-", "!", "if", "then", "else", "@approvals(\"2\")", ".", "é", "context",
        ][..]), 0..60),
        noise in any::<String>(),
    ) {
        for text in [pieces.join(" "), pieces.concat(), noise] {
            let Ok(policy) = Policy::new(text.clone()) else { continue };
            let judge = CedarJudge::new();
            let sound = judge.check(&policy).is_ok();
            let judged = BOOK.asked(&exec("alice", &["ls"]), |question| judge.judge(&policy, question));
            prop_assert!(sound || matches!(judged, Judgement::Denied(_)));
            for name in ["a.toml", "a.json", "a.cedar"] {
                drop(from_file(name, &text));
            }
        }
    }
}
