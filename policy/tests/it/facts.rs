//! What rules say of a command into which hosts put facts of their own: they judge what each really runs.

use countersign_policy::CedarJudge;
use countersign_protocol::fold::{self, Refusal};
use countersign_protocol::quorum::Requirement;

use crate::book::{Book, exec, text};

const WORDS: [&str; 2] = ["/bin/echo", "@fact.hostname"];

/// What the ledger says of `echo` with the host's name, where hosts have these names.
fn judged(policy: &str, hosts: &[(&str, &str)]) -> Result<Requirement, Refusal> {
    let names: Vec<&str> = hosts.iter().map(|(host, _)| *host).collect();
    let book = Book::peopled();
    let own = |name: &str| {
        let own = hosts.iter().find(|(host, _)| *host == name);
        own.unwrap().1.to_owned()
    };
    let case = exec("dave", &WORDS).on(&names);
    book.asked_with_names(&case, own, |question| {
        fold::judge_request(&CedarJudge::new(), &text(policy), question)
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

/// Hosts of which each has its own name for a fact.
fn each_itself(policy: &str, hosts: usize) -> Result<Requirement, Refusal> {
    let names: Vec<String> = (0..hosts).map(|n| format!("web-{n}")).collect();
    let case = exec("dave", &WORDS).on(&names.iter().map(String::as_str).collect::<Vec<_>>());
    Book::peopled().asked_with_names(&case, str::to_owned, |question| {
        fold::judge_request(&CedarJudge::new(), &text(policy), question)
    })
}

#[test]
fn command_lines_of_which_rules_see_the_same_are_judged_once() {
    // It looks at the hosts, and at nothing of what differs in the words.
    let policy = rule(
        "echo",
        2,
        "resource.name == \"echo\" && resource.hosts.contains(\"web-7\")",
    );
    each_itself(&policy, 10_000).unwrap();
}

#[test]
fn so_many_command_lines_are_judged_as_rules_look_at_and_no_more() {
    let line = |more: &str| {
        rule(
            "line",
            2,
            &format!("resource.line like \"/bin/echo *\"{more}"),
        )
    };
    let few = line("");
    each_itself(&few, 4_000).unwrap();
    let many = each_itself(&few, 10_000);
    assert!(
        matches!(&many, Err(Refusal::OverLimit(why)) if why.contains("10000 different")),
        "{many:?}"
    );
    // Each line is judged with the names of all hosts.
    let all = line(" && !resource.hosts.contains(\"db-1\")");
    each_itself(&all, 256).unwrap();
    assert!(matches!(
        each_itself(&all, 1_000),
        Err(Refusal::OverLimit(_))
    ));
    // One that the policy does not permit is found wherever it stands.
    let last = rule("most", 2, "!(resource.line like \"*web-199\")");
    assert_eq!(each_itself(&last, 200), Err(Refusal::NoRule));
    each_itself(&last, 199).unwrap();
}
