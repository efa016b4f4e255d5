//! What rules say of requests and changes, and what that costs.

use countersign_policy::CedarJudge;
use countersign_protocol::command::Mode;
use countersign_protocol::judgement::{Denial, Judge as _, Judgement};
use countersign_protocol::name::SECOND_US;
use countersign_protocol::policy::BUILT_IN;
use countersign_protocol::quorum::{Demand, Requirement, Seats};
use countersign_protocol::rights::ChangeBody;
use countersign_protocol::rollout::Gap;

use crate::book::{Book, Case, START, exec, shell, text};

/// A permit for whoever is in `who`, with more annotations and conditions.
fn permit(id: &str, notes: &str, who: &str, when: &str) -> String {
    format!(
        "@id(\"{id}\") {notes} permit (principal in {who}, action == Action::\"command:execute\", \
         resource) when {{ {when} }};\n"
    )
}

fn forbid(id: &str, when: &str) -> String {
    format!("@id(\"{id}\") forbid (principal, action, resource is Command) when {{ {when} }};\n")
}

const SRE: &str = "Group::\"sre\"";

fn permitted(judgement: Judgement) -> Requirement {
    match judgement {
        Judgement::Permitted(requirement) => {
            requirement.check().unwrap();
            requirement
        }
        Judgement::Denied(denial) => panic!("{denial:?}"),
    }
}

fn denied(judgement: Judgement) -> Denial {
    match judgement {
        Judgement::Denied(denial) => denial,
        Judgement::Permitted(requirement) => panic!("{requirement:?}"),
    }
}

fn seats(approvals: u32, from: &[&str]) -> Seats {
    Seats {
        approvals,
        from: from.iter().map(|whom| whom.parse().unwrap()).collect(),
    }
}

fn names(requirement: &Requirement) -> Vec<String> {
    requirement.rules.iter().map(ToString::to_string).collect()
}

#[test]
fn the_built_in_policy_permits_whoever_may_execute_at_two_approvals() {
    let book = Book::peopled();
    for who in ["alice", "grace"] {
        let requirement = permitted(book.judge(BUILT_IN, &exec(who, &["ls"])));
        assert_eq!(
            requirement.demands,
            [Demand(vec![seats(2, &["permission:command:approve"])])]
        );
        assert_eq!(names(&requirement), ["built-in"]);
    }
    assert_eq!(
        denied(book.judge(BUILT_IN, &exec("dave", &["ls"]))),
        Denial::NoRule
    );
    let broken = exec("alice", &["ls"]).breaking_glass();
    assert_eq!(denied(book.judge(BUILT_IN, &broken)), Denial::NoRule);
}

#[test]
fn a_forbid_wins_and_the_first_by_name_is_named() {
    let book = Book::peopled();
    let policy = forbid("z", "true")
        + &permit("p", "", SRE, "true")
        + &forbid("a", "resource.name == \"rm\"");
    let rm = exec("dave", &["/bin/rm", "x"]);
    assert_eq!(
        denied(book.judge(&policy, &rm)),
        Denial::Forbidden("a".parse().unwrap())
    );
    assert_eq!(
        denied(book.judge(&policy, &exec("dave", &["ls"]))),
        Denial::Forbidden("z".parse().unwrap())
    );
}

#[test]
fn annotations_become_the_requirement() {
    let book = Book::peopled();
    let notes = "@approvals(\"3\") @from(\"sre, user:alice\") @also_from(\"security:1,role:admin:2\") \
                 @expires(\"30m\") @max_in_flight(\"1\") @max_errors(\"0\") @canary(\"2\") @gap(\"2h\") \
                 @gap_label(\"role=dns\") @reason(\"required\") \
                 @rejections(\"2\") @comment(\"why\")";
    let requirement =
        permitted(book.judge(&permit("p", notes, SRE, "true"), &exec("erin", &["ls"])));
    let demand = Demand(vec![
        seats(1, &["group:security"]),
        seats(2, &["role:admin"]),
        seats(3, &["user:alice", "group:sre"]),
    ]);
    let expected = Requirement {
        demands: vec![demand],
        rules: vec!["p".parse().unwrap()],
        approval_age_ms: Some(1_800_000),
        max_in_flight: Some(1),
        max_errors: Some(0),
        canary: Some(2),
        gaps: vec![Gap {
            label: Some("role=dns".parse().unwrap()),
            ms: 7_200_000,
        }],
        reason: true,
        rejections: Some(2),
        break_glass: None,
    };
    assert_eq!(requirement, expected);
}

#[test]
fn several_permits_cost_the_strictest_of_each() {
    let book = Book::peopled();
    let one = permit(
        "b",
        "@approvals(\"1\") @expires(\"1h\") @rejections(\"3\") @gap(\"1m\")",
        SRE,
        "true",
    );
    let two = permit(
        "a",
        "@approvals(\"2\") @from(\"security\") @expires(\"10m\") @max_in_flight(\"4\") @rejections(\"2\") @gap(\"5m\")",
        SRE,
        "true",
    );
    let same = permit(
        "c",
        "@approvals(\"1\") @reason(\"required\") @max_in_flight(\"9\") @rejections(\"4\")",
        SRE,
        "true",
    );
    let three = one + &two + &same;
    let requirement = permitted(book.judge(&three, &exec("dave", &["ls"])));
    assert_eq!(
        requirement.demands,
        [
            Demand(vec![seats(1, &["permission:command:approve"])]),
            Demand(vec![seats(2, &["group:security"])]),
        ]
    );
    assert_eq!(names(&requirement), ["a", "b", "c"]);
    assert_eq!(requirement.approval_age_ms, Some(600_000));
    assert_eq!(
        (requirement.max_in_flight, &requirement.gaps[..]),
        (
            Some(4),
            &[Gap {
                label: None,
                ms: 300_000
            }][..]
        )
    );
    assert!(requirement.reason);
    assert_eq!(requirement.rejections, Some(2));
    // One no is stricter than any number of them.
    let veto = three + &permit("d", "", SRE, "true");
    assert_eq!(
        permitted(book.judge(&veto, &exec("dave", &["ls"]))).rejections,
        None
    );
}

#[test]
fn a_timeout_over_the_smallest_limit_is_denied_by_that_rule() {
    let book = Book::peopled();
    let policy = permit("long", "@max_timeout(\"60s\")", SRE, "true")
        + &permit("short", "@max_timeout(\"10s\")", SRE, "true");
    let mut case = exec("dave", &["ls"]);
    let Denial::Limit(rule, limit) = denied(book.judge(&policy, &case)) else {
        panic!("no limit");
    };
    assert_eq!(rule.as_str(), "short");
    assert!(limit.contains("10000 ms"), "{limit}");
    case.timeout_ms = 10_000;
    assert_eq!(
        names(&permitted(book.judge(&policy, &case))),
        ["long", "short"]
    );
}

#[test]
fn a_rule_that_cannot_be_evaluated_permits_nothing() {
    let book = Book::peopled();
    let policy = permit("p", "", SRE, "true") + &forbid("late", "context.time_us * 9000 > 0");
    let Denial::Broken(why) = denied(book.judge(&policy, &exec("dave", &["ls"]))) else {
        panic!("not broken");
    };
    assert!(why.contains("rule late"), "{why}");
    // Also where another rule forbids: what is broken is said first.
    let both = policy + &forbid("a", "true");
    assert!(matches!(
        denied(book.judge(&both, &exec("dave", &["ls"]))),
        Denial::Broken(_)
    ));
}

#[test]
fn a_policy_that_makes_no_sense_permits_nothing() {
    let book = Book::peopled();
    let judgement = book.judge(
        "permit (principal, action, resource);",
        &exec("alice", &["ls"]),
    );
    assert!(matches!(denied(judgement), Denial::Broken(_)));
}

#[test]
fn more_rules_than_an_authorization_can_name_are_broken_and_not_cut() {
    let book = Book::peopled();
    let many = |count: usize| -> String {
        (0..count)
            .map(|at| permit(&format!("r{at}"), "", SRE, "true"))
            .collect()
    };
    assert_eq!(
        names(&permitted(book.judge(&many(16), &exec("dave", &["ls"])))).len(),
        16
    );
    let Denial::Broken(why) = denied(book.judge(&many(17), &exec("dave", &["ls"]))) else {
        panic!("not broken");
    };
    assert!(why.contains("17 rules"), "{why}");
}

#[test]
fn a_token_is_in_its_own_roles_and_permissions_and_in_nothing_of_its_persons() {
    let mut book = Book::peopled();
    book.change(ChangeBody::GroupChanged {
        group: "sre".parse().unwrap(),
        add: vec!["grace".parse().unwrap()],
        remove: Vec::new(),
    });
    book.issue("ci", "read", "command:execute");
    book.issue("weak", "read", "output:read");
    let token = |name: &str| Case {
        token: Some(name.to_owned()),
        ..exec("grace", &["ls"])
    };
    let by = |who: &str| permit("p", "", who, "true");
    let is =
        |policy: &str, case: &Case| matches!(book.judge(policy, case), Judgement::Permitted(_));
    assert!(is(&by(SRE), &exec("grace", &["ls"])));
    assert!(!is(&by(SRE), &token("ci")));
    assert!(!is(&by("Role::\"deployer\""), &token("ci")));
    assert!(is(&by("Role::\"read\""), &token("ci")));
    assert!(is(BUILT_IN, &token("ci")));
    assert!(!is(BUILT_IN, &token("weak")));
    assert!(is(
        &permit("p", "", "Role::\"read\"", "context.token == \"ci\""),
        &token("ci")
    ));
    assert!(!is(
        &permit("p", "", "Role::\"read\"", "context.token == \"ci\""),
        &token("weak")
    ));
    assert!(!is(BUILT_IN, &token("never-issued")));
    let glass = BREAK_GLASS.replace("Group::\"ops\"", "Role::\"read\"");
    assert!(!is(&glass, &token("ci").breaking_glass()));
}

/// grace is in the group, and asks for `ls` with a token of hers that is not.
fn with_a_token_of(group: &str) -> (Book, Case) {
    let mut book = Book::peopled();
    book.change(ChangeBody::GroupChanged {
        group: group.parse().unwrap(),
        add: vec!["grace".parse().unwrap()],
        remove: Vec::new(),
    });
    book.issue("ci", "read", "command:execute");
    let token = Case {
        token: Some("ci".to_owned()),
        ..exec("grace", &["ls"])
    };
    (book, token)
}

#[test]
fn a_forbid_of_a_group_holds_for_its_members_tokens_and_a_permit_does_not() {
    let (book, token) = with_a_token_of("sre");
    let rule = |head: &str, rest: &str| {
        format!("@id(\"f\") {head}, action == Action::\"command:execute\", resource){rest};")
    };
    let forbid = rule("forbid (principal in Group::\"sre\"", "");
    let permit_all = permit("p", "", "Role::\"read\"", "true");
    permitted(book.judge(&permit_all, &token));
    let found = denied(book.judge(&(permit_all.clone() + &forbid), &token));
    assert!(matches!(found, Denial::Forbidden(_)), "{found:?}");
    let member = denied(book.judge(&permit("p", "", SRE, "true"), &token));
    assert_eq!(member, Denial::NoRule);
    // A way out that is for a group is not the token's either.
    let unless = rule(
        "forbid (principal",
        " unless { principal in Group::\"sre\" }",
    );
    let found = denied(book.judge(&(permit_all + &unless), &token));
    assert!(matches!(found, Denial::Forbidden(_)), "{found:?}");
}

/// Whoever is stopped by a rule is not let through by a token of theirs.
#[test]
fn a_token_may_no_more_than_its_person() {
    let (book, token) = with_a_token_of("contractors");
    let permit = |rest: &str| {
        format!(
            "@id(\"p\") permit (principal, action == Action::\"command:execute\", resource){rest};\n"
        )
    };
    permitted(book.judge(&permit(""), &token));
    let outside = permit(" unless { principal in Group::\"contractors\" }");
    assert_eq!(denied(book.judge(&outside, &token)), Denial::NoRule);
    // A role of the person's that the token does not have.
    let forbid = "@id(\"f\") forbid (principal in Role::\"deployer\", action == Action::\"command:execute\", resource);";
    for who in [&exec("grace", &["ls"]), &token] {
        let found = denied(book.judge(&(permit("") + forbid), who));
        assert!(matches!(found, Denial::Forbidden(_)), "{found:?}");
    }
}

#[test]
fn every_attribute_of_a_command_says_what_it_is() {
    let book = Book::peopled();
    let mut case =
        exec("dave", &["/usr/bin/cp", "-r", "a b", "../etc/x"]).on(&["dev-1", "web-1/db"]);
    case.cwd = Some("/srv".to_owned());
    case.user = Some("www".to_owned());
    for holds in [
        "resource.mode == \"exec\"",
        "resource.program == \"/usr/bin/cp\"",
        "resource.name == \"cp\"",
        "resource.arguments == [\"-r\", \"a b\", \"../etc/x\"]",
        "resource.names == [\"cp\", \"-r\", \"a b\", \"a\", \"b\", \"x\"]",
        "resource.words == 4",
        "resource.line == \"/usr/bin/cp -r 'a b' ../etc/x\"",
        "resource.name_line like \"cp -r *\"",
        "resource.user == \"www\" && resource.cwd == \"/srv\"",
        "!resource.has_environment && !resource.has_stdin",
        "resource.timeout_ms == 30000 && resource.output_limit == 1024",
        "resource.hosts == [\"dev-1\", \"web-1\"] && resource.host_count == 2",
        "resource.services == [\"db\"] && resource.on_host_itself",
        "resource.labels.containsAll([\"env=dev\", \"env=prod\", \"group=web.eu\", \"group=web\"])",
        "resource.common_labels == [\"group=web\", \"group=web.eu\"]",
        "resource.paths.containsAll([\"/etc\", \"/etc/x\", \"/srv\", \"/usr/bin\", \"/\"])",
        "context.hour == 8 && context.minute_of_day == 480 && context.weekday == \"fri\"",
        "context.time_us == 1800000000000000 && !context.break_glass && context.token == \"\"",
        "context.open_reviews == 0 && context.overdue_reviews == 0",
        "principal == User::\"dave\" && principal in Group::\"ops\" && !(principal in Role::\"admin\")",
    ] {
        let yes = book.judge(&permit("p", "", SRE, holds), &case);
        assert!(matches!(yes, Judgement::Permitted(_)), "{holds}: {yes:?}");
        let no = book.judge(&permit("p", "", SRE, &format!("!({holds})")), &case);
        assert_eq!(no, Judgement::Denied(Denial::NoRule), "{holds}");
    }
    let script = shell("dave", "cd /; rm -rf etc >/etc/x");
    for holds in [
        "resource.mode == \"shell\" && resource.program == \"\" && resource.name == \"\"",
        "resource.arguments == resource.services && resource.words == 1",
        "resource.line == \"cd /; rm -rf etc >/etc/x\" && resource.name_line == resource.line",
        "resource.names.contains(\"rm\") && resource.paths.contains(\"/etc\")",
    ] {
        let yes = book.judge(&permit("p", "", SRE, holds), &script);
        assert!(matches!(yes, Judgement::Permitted(_)), "{holds}: {yes:?}");
    }
    let action = Case {
        mode: Mode::Action,
        ..exec("dave", &["db/backup", "full"])
    };
    let holds = "resource.mode == \"action\" && resource.program == \"db/backup\" && resource.name == \"backup\"";
    permitted(book.judge(&permit("p", "", SRE, holds), &action));
}

#[test]
fn one_host_with_a_label_does_not_stand_for_all() {
    let book = Book::peopled();
    let policy = permit("p", "", SRE, "resource.common_labels.contains(\"env=dev\")");
    permitted(book.judge(&policy, &exec("dave", &["ls"]).on(&["dev-1"])));
    for hosts in [&["dev-1", "web-1"][..], &["bare", "dev-1"]] {
        let case = exec("dave", &["ls"]).on(hosts);
        assert_eq!(denied(book.judge(&policy, &case)), Denial::NoRule);
    }
    let guard =
        permit("p", "", SRE, "true") + &forbid("prod", "resource.labels.contains(\"env=prod\")");
    let both = exec("dave", &["ls"]).on(&["dev-1", "web-1"]);
    assert!(matches!(
        denied(book.judge(&guard, &both)),
        Denial::Forbidden(_)
    ));
}

const BREAK_GLASS: &str = "@id(\"fire\") @review_within(\"2h\") permit (principal in Group::\"ops\", \
     action == Action::\"command:break_glass\", resource);\n\
     @id(\"owing\") forbid (principal, action == Action::\"command:break_glass\", resource) \
     when { context.overdue_reviews > 0 || context.open_reviews > 1 };\n\
     @id(\"admins\") permit (principal in Role::\"admin\", action == Action::\"command:execute\", resource);\n";

#[test]
fn breaking_glass_takes_its_own_rule_and_owes_a_review() {
    let mut book = Book::peopled();
    book.publish(BREAK_GLASS);
    let case = exec("dave", &["reboot"]);
    let requirement = permitted(book.judge(BREAK_GLASS, &case.clone().breaking_glass()));
    assert!(requirement.demands.is_empty());
    assert_eq!(requirement.break_glass.unwrap().review_ms, 7_200_000);
    assert_eq!(denied(book.judge(BREAK_GLASS, &case)), Denial::NoRule);
    let admin = exec("alice", &["reboot"]).breaking_glass();
    assert_eq!(denied(book.judge(BREAK_GLASS, &admin)), Denial::NoRule);

    book.break_glass("dave", &case).unwrap();
    assert_eq!(book.rights().reviews().count(), 1);
    let glass = case.clone().breaking_glass();
    permitted(book.judge(BREAK_GLASS, &glass));
    let due = START + 7200 * SECOND_US;
    permitted(book.judge(BREAK_GLASS, &glass.clone().at(due - 1)));
    let owing = Denial::Forbidden("owing".parse().unwrap());
    assert_eq!(
        denied(book.judge(BREAK_GLASS, &glass.clone().at(due))),
        owing
    );
    book.break_glass("dave", &case).unwrap();
    assert_eq!(denied(book.judge(BREAK_GLASS, &glass)), owing);
    assert!(book.break_glass("dave", &case).is_err());
}

#[test]
fn a_review_is_due_in_a_day_when_the_rule_does_not_say() {
    let book = Book::peopled();
    let policy = BREAK_GLASS.replace("@review_within(\"2h\")", "");
    let requirement = permitted(book.judge(&policy, &exec("dave", &["reboot"]).breaking_glass()));
    assert_eq!(requirement.break_glass.unwrap().review_ms, 86_400_000);
}

fn manage(id: &str, notes: &str, when: &str) -> String {
    format!(
        "@id(\"{id}\") {notes} permit (principal, action == Action::\"agent:manage\", resource) \
         when {{ {when} }};\n"
    )
}

#[test]
fn a_rule_sets_the_quorum_of_a_change_of_hosts() {
    let book = Book::peopled();
    let relabel = |agent: &str, labels: &[&str]| ChangeBody::AgentRelabelled {
        agent: agent.parse().unwrap(),
        labels: labels.iter().map(|label| label.parse().unwrap()).collect(),
    };
    let policy = manage(
        "dev",
        "@approvals(\"1\") @from(\"sre\")",
        "!resource.labels.contains(\"env=prod\")",
    ) + &manage(
        "prod",
        "@approvals(\"3\")",
        "resource.labels.contains(\"env=prod\")",
    );
    let of = |body: &ChangeBody| book.judge_change(&policy, "dave", body).unwrap();
    assert_eq!(
        of(&relabel("dev-1", &["env=dev"])).demands,
        [Demand(vec![seats(1, &["group:sre"])])]
    );
    // Neither what a host is nor what it would be is passed by.
    for (agent, labels) in [
        ("dev-1", &["env=prod"][..]),
        ("web-1", &["env=dev"]),
        ("web-1", &[]),
    ] {
        let demands = of(&relabel(agent, labels)).demands;
        assert_eq!(
            demands,
            [Demand(vec![seats(3, &["permission:agent:manage"])])],
            "{agent} {labels:?}"
        );
    }
    let drained = ChangeBody::AgentDrained {
        agent: "dev-1".parse().unwrap(),
    };
    let only = manage(
        "drain",
        "",
        "resource.change == \"agent.drained\" && resource.name == \"dev-1\"",
    );
    assert_eq!(
        book.judge_change(&only, "dave", &drained).unwrap().rules[0].as_str(),
        "drain"
    );
    assert_eq!(
        book.judge_change(&only, "dave", &relabel("dev-1", &[])),
        None
    );
}

#[test]
fn no_rule_lowers_the_quorum_of_another_change_and_a_forbid_takes_it_back() {
    let book = Book::peopled();
    let all = manage("all", "@approvals(\"1\")", "true");
    let drained = ChangeBody::AgentDrained {
        agent: "dev-1".parse().unwrap(),
    };
    assert!(book.judge_change(&all, "dave", &drained).is_some());
    let grant = ChangeBody::RoleGranted {
        role: "admin".parse().unwrap(),
        to: "user:dave".parse().unwrap(),
    };
    assert_eq!(book.judge_change(&all, "dave", &grant), None);
    let forbidden = all.clone()
        + "@id(\"no\") forbid (principal, action == Action::\"agent:manage\", resource);";
    assert_eq!(book.judge_change(&forbidden, "dave", &drained), None);
    let broken = all
        + "@id(\"no\") forbid (principal, action, resource) when { context.time_us * 9000 > 0 };";
    assert_eq!(book.judge_change(&broken, "dave", &drained), None);
    assert_eq!(book.judge_change(BUILT_IN, "alice", &drained), None);
}

#[test]
fn an_explanation_names_what_speaks_and_what_nearly_does() {
    let book = Book::peopled();
    let policy = permit("yes", "@approvals(\"1\")", SRE, "resource.name == \"ls\"")
        + &permit("nearly", "", SRE, "resource.name == \"cat\"")
        + &permit("others", "", "Group::\"security\"", "true")
        + &forbid("no", "resource.labels.contains(\"env=prod\")")
        + &forbid("silent", "resource.mode == \"shell\"");
    let explain = |case: &Case| {
        book.asked(case, |question| {
            CedarJudge::new().explain(&text(&policy), question)
        })
    };
    let on_prod = explain(&exec("dave", &["ls"]));
    let named = |rules: &[countersign_policy::RuleSummary]| -> Vec<String> {
        rules.iter().map(|rule| rule.name.to_string()).collect()
    };
    assert_eq!(
        on_prod.judgement,
        Judgement::Denied(Denial::Forbidden("no".parse().unwrap()))
    );
    assert_eq!(named(&on_prod.permits), ["yes"]);
    assert_eq!(named(&on_prod.forbids), ["no"]);
    assert_eq!(named(&on_prod.near), ["nearly"]);
    assert_eq!(
        on_prod.permits[0].annotations,
        [("approvals".to_owned(), "1".to_owned())]
    );
    let on_dev = explain(&exec("dave", &["ls"]).on(&["dev-1"]));
    assert_eq!(permitted(on_dev.judgement).rules.len(), 1);
}

#[test]
fn the_smallest_count_above_of_the_rules_that_permit_it_is_told_and_is_no_part_of_the_price() {
    let book = Book::peopled();
    let many = permit("many", "@count_above(\"9\")", SRE, "true");
    let few = permit("few", "@count_above(\"3\")", SRE, "resource.name == \"ls\"");
    let plain = permit("plain", "", SRE, "true");
    let told = |policy: &str, words: &[&str]| {
        book.asked(&exec("dave", words), |question| {
            CedarJudge::new()
                .explain(&text(policy), question)
                .count_above
        })
    };
    assert_eq!(told(&plain, &["ls"]), None);
    let all = many.clone() + &few + &plain;
    assert_eq!(told(&all, &["ls"]), Some(3));
    assert_eq!(
        told(&all, &["cat"]),
        Some(9),
        "a rule that does not permit it says nothing"
    );
    let bare = permit("many", "", SRE, "true");
    let price = |policy: &str| permitted(book.judge(policy, &exec("dave", &["ls"])));
    assert_eq!(price(&many), price(&bare));
}

#[test]
fn what_a_judge_read_before_changes_no_judgement() {
    let book = Book::peopled();
    let judge = CedarJudge::new();
    let case = exec("dave", &["ls"]);
    let policies: Vec<String> = (1..=12)
        .map(|count| permit("p", &format!("@approvals(\"{count}\")"), SRE, "true"))
        .collect();
    for _ in 0..2 {
        for (at, policy) in policies.iter().enumerate() {
            let judged = book.asked(&case, |question| judge.judge(&text(policy), question));
            assert_eq!(permitted(judged).demands[0].0[0].approvals as usize, at + 1);
        }
    }
}
