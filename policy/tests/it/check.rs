//! What can be published, and what a person is told of it.

use countersign_policy::{CedarJudge, RuleChange, diff, review};
use countersign_protocol::judgement::Judge as _;
use countersign_protocol::policy::Policy;

use crate::book::{Book, exec, text};

const HEAD: &str =
    "permit (principal in Group::\"sre\", action == Action::\"command:execute\", resource)";

/// The first problem of a policy.
fn wrong(policy: &str) -> String {
    let problems = review(&text(policy)).unwrap_err();
    assert!(CedarJudge::new().check(&text(policy)).is_err());
    problems[0].to_string()
}

fn warnings(policy: &str) -> Vec<String> {
    review(&text(policy)).unwrap().warnings
}

#[test]
fn the_built_in_policy_can_be_published_and_warns_of_nothing() {
    CedarJudge::new().check(&Policy::built_in()).unwrap();
    assert_eq!(
        review(&Policy::built_in()).unwrap().warnings,
        Vec::<String>::new()
    );
}

#[test]
fn a_problem_is_a_sentence_with_its_place() {
    let policy = format!(
        "// one\n@id(\"a\")\n{HEAD};\n\n@id(\"b\") {HEAD}\n  when {{ resource.color == \"red\" }};"
    );
    let told = wrong(&policy);
    assert!(told.starts_with("line 6, column 10: rule b: "), "{told}");
    assert!(told.contains("color"), "{told}");
    let syntax = wrong("@id(\"a\")\npermit (principal, action resource);");
    assert!(syntax.starts_with("line 2, column "), "{syntax}");
}

/// Names of groups, as long as they may be.
fn long_names(count: usize) -> Vec<String> {
    let name = |n: usize| format!("g{n:02}{}", "x".repeat(125));
    (0..count).map(name).collect()
}

/// Each rule could be written down; what both demand together could not.
#[test]
fn rules_that_demand_more_together_than_fits_permit_nothing() {
    let names = long_names(48);
    let rule = |id: &str, names: &[String]| {
        format!("@id(\"{id}\") @from(\"{}\") {HEAD};\n", names.join(","))
    };
    let both = format!("{}{}", rule("a", &names[..24]), rule("b", &names[24..]));
    let policy = Policy::new(both).unwrap();
    let judge = CedarJudge::new();
    judge.check(&policy).unwrap();
    let asked = Book::peopled().asked(&exec("dave", &["true"]), |question| {
        countersign_protocol::fold::judge_request(&judge, &policy, question)
    });
    let refused = asked.unwrap_err();
    let sentence = refused.to_string();
    assert!(sentence.contains("(6 KiB)"), "{sentence}");
}

#[test]
fn what_would_be_no_guard_cannot_be_published() {
    let when = |condition: &str| format!("@id(\"a\") {HEAD} when {{ {condition} }};");
    let note = |notes: &str| format!("@id(\"a\") {notes} {HEAD};");
    for (policy, told) in [
        (format!("{HEAD};"), "name of its own"),
        (format!("@id(\"a b\") {HEAD};"), "not a rule name"),
        (format!("@id(\"a\") {HEAD}; @id(\"a\") {HEAD};"), "same @id"),
        (when("resource.mode == 1"), "types"),
        (when("resource.color == \"red\""), "color"),
        (when("principal in Permission::\"command:run\""), "command:run"),
        (when("principal in Team::\"sre\""), "Team"),
        (when("principal == User::\"a b\""), "cannot exist"),
        (when("resource == Command::\"ls\""), "the only command"),
        (when("context.hours > 1"), "hours"),
        (when("false"), "impossible"),
        (when("context has token && resource.line.startsWith(\"x\")"), "startsWith"),
        (note("@aprovals(\"2\")"), "@aprovals means nothing"),
        (note("@approvals(\"0\")"), "from 1 to 16"),
        (note("@approvals(\"-1\")"), "from 1 to 16"),
        (note("@approvals(\"17\")"), "from 1 to 16"),
        (note("@approvals(\"9\") @also_from(\"x:8\")"), "17 approvals in all"),
        (note("@approvals"), "from 1 to 16"),
        (note("@approvals(\"2\") @from(\"user:alice\")"), "names only 1"),
        (note("@from(\"\")"), "names nobody"),
        (note("@from(\"sre,,x\")"), "names nobody"),
        (note("@from(\"team:x\")"), "names nobody"),
        (note("@from(\"permission:run\")"), "names nobody"),
        (note("@also_from(\"security\")"), "NAME:COUNT"),
        (note("@also_from(\"user:alice\")"), "NAME:COUNT"),
        (note("@also_from(\"security:0\")"), "from 1 to 16"),
        (note(&format!("@from(\"{}\")", long_names(48).join(","))), "(6 KiB)"),
        (note("@expires(\"30\")"), "such as"),
        (note("@expires(\"0s\")"), "such as"),
        (note("@expires(\"1.5h\")"), "such as"),
        (note("@expires(\"9999999999999999999d\")"), "such as"),
        (note("@max_in_flight(\"0\")"), "number from 1"),
        (note("@rejections(\"0\")"), "number from 1"),
        (note("@reason(\"yes\")"), "required"),
        (note("@review_within(\"1h\")"), "@review_within means nothing"),
        (note("@from(\"a\") @from(\"b\")"), "uplicate"),
        ("@id(\"a\") @approvals(\"2\") forbid (principal, action, resource);".to_owned(), "on a forbid"),
        ("@id(\"a\") permit (principal, action, resource);".to_owned(), "exactly one action"),
        ("@id(\"a\") permit (principal, action in [Action::\"command:execute\", Action::\"command:break_glass\"], resource);".to_owned(), "exactly one action"),
        ("@id(\"a\") forbid (principal, action == Action::\"command:kill\", resource);".to_owned(), "command:kill"),
        ("@id(\"a\") forbid (principal == Group::\"sre\", action, resource);".to_owned(), "rule a"),
        ("@id(\"a\") forbid (principal, action, resource in Agent::\"web-1\");".to_owned(), "says little"),
        ("@id(\"a\") forbid (principal, action, resource) when { resource.mode == \"exec\" };".to_owned(), "mode"),
        ("@id(\"a\") permit (principal == ?principal, action == Action::\"command:execute\", resource);".to_owned(), "templates"),
        ("@id(\"a\") @approvals(\"1\") permit (principal, action == Action::\"command:break_glass\", resource);".to_owned(), "no approvals"),
        ("@id(\"a\") @from(\"sre\") permit (principal, action == Action::\"command:break_glass\", resource);".to_owned(), "@from means nothing"),
        ("@id(\"a\") @expires(\"1h\") permit (principal, action == Action::\"agent:manage\", resource);".to_owned(), "@expires means nothing"),
        ("@id(\"a\") permit (principal".to_owned(), "line 1"),
        (format!("// \u{202e}x\n@id(\"a\") {HEAD};"), "U+202E"),
        (format!("// x\rforbid\n@id(\"a\") {HEAD};"), "U+000D"),
        (when("resource.line == \"\u{200b}x\""), "U+200B"),
        (when("resource.name == \"rm\u{fe00}\""), "U+FE00"),
        (when("resource.name == \"rm\u{34f}\""), "U+034F"),
        (when("resource.name == \"rm\u{e0100}\""), "U+E0100"),
        (when("resource.line == \"rm\u{a0}-r\""), "U+00A0"),
        (when("resource.name == \"s\u{0441}p\""), "rule a"),
    ] {
        let sentence = wrong(&policy);
        assert!(sentence.contains(told), "{policy}\n  said: {sentence}\n  not: {told}");
    }
}

#[test]
fn no_depth_of_a_rule_depends_on_the_stack_that_reads_it() {
    let deep = |inner: String| format!("@id(\"a\") {HEAD} when {{ {inner} }};");
    let chain = |count: usize| vec!["resource.words == 1"; count].join(" || ");
    for policy in [
        deep("(".repeat(200_000)),
        deep("!".repeat(200_000) + "true"),
        deep(chain(20_000)),
        deep("if true then ".repeat(20_000) + "true"),
        deep("if true then true else ".repeat(20_000) + "true"),
        deep("1 + ".repeat(20_000) + "1 == 1"),
        deep("resource".to_owned() + &".mode".repeat(20_000)),
        "[".repeat(500_000),
        deep(chain(40)),
    ] {
        let told = wrong(&policy);
        assert!(
            told.contains("the most") || told.contains("may nest"),
            "{told}"
        );
    }
    // The deepest that is let through is read, and judged, on the stack that every thread has.
    let policy = deep(chain(28));
    let small = std::thread::Builder::new().stack_size(2 * 1024 * 1024);
    let judged = small.spawn(move || {
        let book = Book::peopled();
        review(&text(&policy)).unwrap();
        book.judge(&policy, &exec("dave", &["ls"]))
    });
    let judged = judged.unwrap().join().unwrap();
    assert!(
        matches!(
            judged,
            countersign_protocol::judgement::Judgement::Permitted(_)
        ),
        "{judged:?}"
    );
}

#[test]
fn an_empty_policy_is_a_freeze_and_says_so() {
    assert!(warnings("// nothing\n")[0].contains("nobody can run any"));
}

#[test]
fn what_may_not_be_meant_so_is_a_warning() {
    let when =
        |notes: &str, condition: &str| format!("@id(\"a\") {notes} {HEAD} when {{ {condition} }};");
    for (policy, told) in [
        ("@id(\"a\") permit (principal, action == Action::\"command:execute\", resource);".to_owned(), "everybody"),
        (when("@approvals(\"1\")", "true"), "one approval"),
        (when("", "resource.labels.contains(\"env=dev\")"), "common_labels"),
        (
            when("", "!(resource.words > 1 || !resource.labels.contains(\"env=dev\"))"),
            "common_labels",
        ),
        (when("", "resource.common_labels.contains(\"dev\")"), "key=value"),
        (when("", "resource.mode == \"shell\" && resource.name == \"ls\""), "a shell has no name"),
        (when("", "resource.mode == \"exec\" && resource.line like \"ls*\""), "begin alike"),
        (when("", "resource.line like \"ls *\""), "scripts too"),
        (when("", "resource.mode == \"shel\""), "never \"shel\""),
        (when("", "[\"mon\", \"Tue\"].contains(context.weekday)"), "never \"Tue\""),
        (when("", "resource.paths.contains(\"/var/log\")"), "only a forbid"),
        (format!("@id(\"b\") {HEAD}; @id(\"a\") forbid (principal, action == Action::\"command:execute\", resource) when {{ resource.program == \"rm\" }};"), "/bin/x is not x"),
        (format!("@id(\"b\") {HEAD}; @id(\"a\") forbid (principal, action == Action::\"command:execute\", resource) when {{ resource.line like \"rm *\" }};"), "/bin/x is not x"),
        ("@id(\"b\") permit (principal in Group::\"ops\", action == Action::\"command:break_glass\", resource); @id(\"a\") forbid (principal, action == Action::\"command:execute\", resource);".to_owned(), "not command:break_glass"),
    ] {
        let said = warnings(&policy);
        assert!(said.iter().any(|warning| warning.contains(told)), "{policy}\n  said {said:?}\n  not {told}");
    }
    let narrower = when("", "!resource.labels.contains(\"env=prod\")");
    assert_eq!(warnings(&narrower), Vec::<String>::new());
    let sound = when(
        "",
        "resource.mode == \"exec\" && resource.common_labels.contains(\"env=dev\") && resource.line like \"ls *\"",
    );
    assert_eq!(warnings(&sound), Vec::<String>::new());
}

#[test]
fn a_difference_is_in_what_rules_say_and_not_in_how_they_are_laid_out() {
    let old = format!(
        "@id(\"same\") {HEAD}; @id(\"gone\") {HEAD}; @id(\"other\") @approvals(\"2\") {HEAD};"
    );
    let new = format!(
        "@id(\"other\") @approvals(\"3\") {HEAD};\n\n@id(\"same\")\n  {HEAD}; // as it was\n@id(\"fresh\") {HEAD};"
    );
    let changes = diff(&text(&old), &text(&new)).unwrap();
    let told: Vec<String> = changes
        .iter()
        .map(|change| match change {
            RuleChange::Added(rule) => format!("+{}", rule.name),
            RuleChange::Removed(rule) => format!("-{}", rule.name),
            RuleChange::Changed { old, new } => {
                assert!(old.text.contains("\"2\"") && new.text.contains("\"3\""));
                format!("~{}", new.name)
            }
        })
        .collect();
    assert_eq!(told, ["+fresh", "-gone", "~other"]);
    assert!(diff(&text(&old), &text("nonsense")).is_err());
}

#[test]
fn a_summary_has_the_rules_own_text_and_line() {
    let policy = format!(
        "// first\n@id(\"a\")\n{HEAD};\n// second\n@id(\"b\") @approvals(\"3\")\n{HEAD};\n"
    );
    let rules = review(&text(&policy)).unwrap().rules;
    assert_eq!((rules[0].line, rules[1].line), (2, 5));
    assert!(rules[0].text.starts_with("@id(\"a\")") && rules[0].text.ends_with(';'));
}
