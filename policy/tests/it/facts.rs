//! What rules say of a command into which hosts put facts of their own: they judge what each really runs.

use countersign_policy::CedarJudge;
use countersign_protocol::facts::{Facts, MAX_LOOKS};
use countersign_protocol::fold::{self, Refusal};
use countersign_protocol::judgement::Question;
use countersign_protocol::quorum::Requirement;
use countersign_protocol::target::{TargetLine, TargetList};

use crate::book::{Book, exec, text};

const WORDS: [&str; 2] = ["/bin/echo", "@fact.hostname"];

/// What the ledger says of `echo` with the host's name, where hosts have these names.
fn judged(policy: &str, hosts: &[(&str, &str)]) -> Result<Requirement, Refusal> {
    let names: Vec<&str> = hosts.iter().map(|(host, _)| *host).collect();
    let book = Book::peopled();
    book.asked(&exec("dave", &WORDS).on(&names), |question| {
        let line = |line: &TargetLine| {
            let own = hosts.iter().find(|(host, _)| *host == line.agent.as_str());
            let mut facts = Facts::default();
            let value = own.unwrap().1.parse().unwrap();
            assert!(facts.insert("hostname".parse().unwrap(), value));
            TargetLine {
                facts: Some(facts),
                ..line.clone()
            }
        };
        let lines = question.targets.lines().iter().map(line);
        let targets = TargetList::new(lines.collect()).unwrap();
        let question = Question {
            targets: &targets,
            ..*question
        };
        fold::judge_request(&CedarJudge::new(), &text(policy), &question)
    })
}

fn rule(id: &str, approvals: u32, when: &str) -> String {
    format!(
        "@id(\"{id}\") @approvals(\"{approvals}\") @from(\"sre\") permit (principal in Group::\"sre\", \
         action == Action::\"command:execute\", resource) when {{ {when} }};\n"
    )
}

fn line(value: &str) -> String {
    format!("resource.line == \"/bin/echo {value}\"")
}

#[test]
fn a_rule_sees_the_words_that_a_host_really_runs() {
    let policy = rule("one", 2, &line("web-1"));
    judged(&policy, &[("web-1", "web-1")]).unwrap();
    // All of them must be permitted, and the words as they were asked for are none.
    for hosts in [
        &[("web-1", "web-1"), ("web-2", "web-2")][..],
        &[("web-1", "evil")],
    ] {
        assert_eq!(judged(&policy, hosts), Err(Refusal::NoRule));
    }
    let template = rule("template", 2, &line("@fact.hostname"));
    assert_eq!(
        judged(&template, &[("web-1", "web-1")]),
        Err(Refusal::NoRule)
    );
}

#[test]
fn hosts_that_the_policy_prices_otherwise_are_asked_for_apart() {
    let policy = rule("one", 2, &line("web-1")) + &rule("two", 1, &line("web-2"));
    judged(&policy, &[("web-1", "web-1")]).unwrap();
    judged(&policy, &[("web-2", "web-2")]).unwrap();
    let both = judged(&policy, &[("web-1", "web-1"), ("web-2", "web-2")]);
    assert!(
        matches!(&both, Err(Refusal::OverLimit(why)) if why.contains("other approvals")),
        "{both:?}"
    );
}

#[test]
fn so_many_different_command_lines_are_judged_and_no_more() {
    let policy = rule("all", 2, "true");
    let most = MAX_LOOKS.isqrt();
    let names: Vec<String> = (0..=most).map(|n| format!("web-{n}")).collect();
    let each = |names: &[String]| {
        let hosts: Vec<(&str, &str)> = names
            .iter()
            .map(|name| (name.as_str(), name.as_str()))
            .collect();
        judged(&policy, &hosts)
    };
    each(&names[..most]).unwrap();
    assert!(matches!(each(&names), Err(Refusal::OverLimit(_))));
    // Any number of hosts that run the same.
    let same: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "web")).collect();
    judged(&policy, &same).unwrap();
}
