//! How long a judgement takes, at 10, 100 and 1,000 rules.
//!
//! Beside each figure stands a baseline that the same run measured: bare Cedar over the whole set of
//! rules, with the question already in Cedar's terms. That is what a judge without shelves would take
//! at the least.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot go on shall stop"
)]

#[path = "../tests/it/book.rs"]
#[expect(dead_code, reason = "the tests need more of it than a benchmark does")]
mod book;

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::hint::black_box;
use std::time::{Duration, Instant};

use cedar_policy::{
    Authorizer, Context, Entities, Entity, EntityUid, PolicySet, Request, RestrictedExpression,
};
use countersign_policy::CedarJudge;
use countersign_protocol::fold::judge_request;
use countersign_protocol::judgement::{Judge as _, Judgement};

use book::{Book, Case, exec, text};

/// What a judgement may take at 1,000 rules.
const AIM: Duration = Duration::from_micros(200);

/// How long a figure is measured.
const SPAN: Duration = Duration::from_millis(1500);

/// A way to write many rules.
struct Form {
    name: &'static str,
    /// Rule number `at`; rule 0 is the one that holds.
    rule: fn(usize) -> String,
}

fn rule(at: usize, who: &str, when: &str) -> String {
    format!(
        "@id(\"r{at}\") permit (principal in {who}, action == Action::\"command:execute\", resource) \
         when {{ {when} }};\n"
    )
}

const FORMS: [Form; 4] = [
    Form {
        name: "each a group's own",
        rule: |at| {
            let who = if at == 0 {
                "sre".to_owned()
            } else {
                format!("team-{at}")
            };
            rule(at, &format!("Group::{who:?}"), "resource.mode == \"exec\"")
        },
    },
    Form {
        name: "one group, each a label",
        rule: |at| {
            let label = if at == 0 {
                "env=prod".to_owned()
            } else {
                format!("shop=s{at}")
            };
            let when =
                format!("resource.common_labels.contains({label:?}) && resource.mode == \"exec\"");
            rule(at, "Group::\"sre\"", &when)
        },
    },
    Form {
        name: "one group, each a pattern",
        rule: |at| {
            let when = format!(
                "resource.mode == \"exec\" && resource.line like \"{} *\"",
                if at == 0 {
                    "systemctl".to_owned()
                } else {
                    format!("tool-{at}")
                }
            );
            rule(at, "Group::\"sre\"", &when)
        },
    },
    Form {
        name: "one group, nothing plain",
        rule: |at| {
            let tool = if at == 0 {
                "systemctl".to_owned()
            } else {
                format!("tool-{at}")
            };
            let when = format!("resource.mode != \"shell\" && resource.line like \"{tool} *\"");
            rule(at, "Group::\"sre\"", &when)
        },
    },
];

/// The time of one call: of the fastest of many short rows of calls, for the others were held up by
/// whoever else uses the machine.
fn time(mut call: impl FnMut()) -> Duration {
    const ROW: u32 = 10;
    let start = Instant::now();
    let mut fastest = Duration::MAX;
    while start.elapsed() < SPAN {
        let row = Instant::now();
        for _ in 0..ROW {
            call();
        }
        fastest = fastest.min(row.elapsed() / ROW);
    }
    fastest
}

/// The same question in Cedar's terms, made once.
fn bare() -> (Request, Entities) {
    let id = |text: &str| text.parse::<EntityUid>().unwrap();
    let word = |text: &str| RestrictedExpression::new_string(text.to_owned());
    let labels = ["env=prod", "group=web", "group=web.eu"].map(word);
    let attributes = HashMap::from([
        ("mode".to_owned(), word("exec")),
        ("line".to_owned(), word("systemctl status nginx")),
        (
            "common_labels".to_owned(),
            RestrictedExpression::new_set(labels),
        ),
    ]);
    let (user, thing) = (id("User::\"dave\""), id("Command::\"request\""));
    let person = Entity::new_no_attrs(user.clone(), HashSet::from([id("Group::\"sre\"")]));
    let command = Entity::new(thing.clone(), attributes, HashSet::new()).unwrap();
    let action = id("Action::\"command:execute\"");
    let request = Request::new(user, action, thing, Context::empty(), None).unwrap();
    (
        request,
        Entities::from_entities([person, command], None).unwrap(),
    )
}

fn measure(book: &Book, case: &Case, form: &Form, count: usize, table: &mut String) {
    let source: String = (0..count).map(form.rule).collect();
    let policy = text(&source);
    let judge = CedarJudge::new();
    let start = Instant::now();
    judge.check(&policy).unwrap();
    let compile = start.elapsed();
    let (request, entities) = bare();
    let set: PolicySet = source.parse().unwrap();
    let whole = time(|| {
        let response = Authorizer::new().is_authorized(black_box(&request), &set, &entities);
        assert_eq!(response.diagnostics().reason().count(), 1);
    });
    let own = book.asked(case, |question| {
        time(|| {
            let judged = judge.judge(black_box(&policy), question);
            assert!(matches!(judged, Judgement::Permitted(_)));
        })
    });
    let aim = match (count >= 1000, own <= AIM) {
        (false, _) => "",
        (true, true) => "holds",
        (true, false) => "missed",
    };
    let _ = writeln!(
        table,
        "  {:<26} {count:>5} {:>9.1} {:>12.0} {:>9.1} {:>8.2} {:>10.1} {aim:>7}",
        form.name,
        own.as_secs_f64() * 1e6,
        1.0 / own.as_secs_f64(),
        whole.as_secs_f64() * 1e6,
        whole.as_secs_f64() / own.as_secs_f64(),
        compile.as_secs_f64() * 1e3,
    );
}

#[expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
fn main() {
    let book = Book::peopled();
    let case = exec("dave", &["systemctl", "status", "nginx"]);
    let mut table = String::new();
    for form in &FORMS {
        for count in [10, 100, 1000] {
            measure(&book, &case, form, count, &mut table);
        }
    }
    println!(
        "judgement: one core, aim {} us at 1000 rules",
        AIM.as_micros()
    );
    println!(
        "  {:<26} {:>5} {:>9} {:>12} {:>9} {:>8} {:>10} {:>7}",
        "rules", "count", "us each", "judgements/s", "bare us", "faster", "compile ms", "aim"
    );
    print!("{table}");
    print!("{}", own_lines(&book));
}

/// Of one request whose hosts each run a command line of their own, about as many as are judged at once.
fn own_lines(book: &Book) -> String {
    let mut table = "  one request, each host a command line of its own\n".to_owned();
    for (what, when, hosts) in [
        (
            "rules look at no words",
            "resource.name == \"echo\"",
            10_000,
        ),
        (
            "a rule looks at the line",
            "resource.line like \"/bin/echo *\"",
            5_000,
        ),
        (
            "and at all hosts",
            "resource.line like \"/bin/echo *\" && !resource.hosts.contains(\"db\")",
            340,
        ),
    ] {
        let policy = text(&rule(0, "Group::\"sre\"", when));
        let names: Vec<String> = (0..hosts).map(|n| format!("web-{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let case = exec("dave", &["/bin/echo", "@fact.hostname"]).on(&names);
        let judge = CedarJudge::new();
        let took = book.asked_with_names(&case, str::to_owned, |question| {
            time(|| drop(judge_request(&judge, black_box(&policy), question).unwrap()))
        });
        let _ = writeln!(
            table,
            "  {what:<26} {hosts:>6} hosts {:>9.1} ms",
            took.as_secs_f64() * 1e3
        );
    }
    table
}
