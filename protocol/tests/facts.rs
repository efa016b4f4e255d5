//! Facts of hosts in arguments: how words are filled, and what the ledger takes.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use countersign_protocol::command::{Act, CommandSpec, Mode};
use countersign_protocol::event::*;
use countersign_protocol::facts::{self, FactName, Facts, FactsError, MARK, UseError};
use countersign_protocol::fold::{Refusal, Stream};
use countersign_protocol::hash::{Digest, StatementId};
use countersign_protocol::name::SECOND_US;
use countersign_protocol::retry::Retry;
use countersign_protocol::target::{TargetError, TargetLine, TargetList};
use proptest::prelude::*;
use support::{Book, public};

const HOSTS: [&str; 2] = ["web-1", "web-2"];

fn facts(pairs: &[(&str, &str)]) -> Facts {
    let mut facts = Facts::default();
    for (name, value) in pairs {
        assert!(facts.insert(name.parse().unwrap(), value.parse().unwrap()));
    }
    facts
}

fn spec(mode: Mode, argv: &[&str]) -> CommandSpec {
    CommandSpec {
        mode,
        argv: argv.iter().map(|word| (*word).to_owned()).collect(),
        cwd: None,
        user: None,
        timeout_ms: 30_000,
        output_limit: 1 << 20,
        at_output_limit: None,
    }
}

fn echo(words: &[&str]) -> CommandSpec {
    spec(Mode::Exec, &[&["/bin/echo"], words].concat())
}

fn line(host: &str, facts: Option<Facts>) -> TargetLine {
    TargetLine {
        agent: host.parse().unwrap(),
        key_id: public(host).key_id(),
        service: None,
        spec: Digest::new([0; 32]),
        turn: None,
        facts,
    }
}

fn filled(spec: &CommandSpec, pairs: &[(&str, &str)]) -> Result<Vec<String>, UseError> {
    let filled = spec.for_host(&line("web-1", Some(facts(pairs))));
    filled.map(|spec| spec.argv.clone())
}

#[test]
fn a_fact_is_put_in_wherever_its_name_stands_in_an_argument() {
    let spec = echo(&[
        "@fact.hostname",
        "--name=@fact.hostname,",
        "@fact.{hostname}.example",
        "@fact.hostname@fact.os.id",
        "a@fact.{}b",
    ]);
    let words = filled(&spec, &[("hostname", "web-1"), ("os.id", "debian")]).unwrap();
    let expected = [
        "/bin/echo",
        "web-1",
        "--name=web-1,",
        "web-1.example",
        "web-1debian",
        "a@fact.b",
    ];
    assert_eq!(words, expected);
}

#[test]
fn without_facts_in_its_line_every_word_means_itself() {
    let spec = echo(&["@fact.hostname", "@fact.{}", "@fact."]);
    let same = spec.for_host(&line("web-1", None)).unwrap();
    assert_eq!(*same, spec);
}

#[test]
fn a_line_has_exactly_the_facts_that_the_words_use() {
    let spec = echo(&["@fact.hostname"]);
    let why = filled(&spec, &[("arch", "x")]).unwrap_err();
    assert!(matches!(why, UseError::Unused { .. }), "{why}");
    let why = filled(&spec, &[("hostname", "a"), ("arch", "x")]).unwrap_err();
    assert!(matches!(why, UseError::Unused { .. }), "{why}");
    let why = filled(&echo(&["@fact.hostname", "@fact.arch"]), &[("arch", "x")]).unwrap_err();
    assert!(why.to_string().contains("hostname of web-1"), "{why}");
}

#[test]
fn facts_stand_in_arguments_alone() {
    let pairs = [("hostname", "web-1")];
    let program = spec(Mode::Exec, &["/bin/@fact.hostname", "@fact.hostname"]);
    let action = spec(Mode::Action, &["@fact.hostname", "@fact.hostname"]);
    let shell = spec(Mode::Shell, &["echo @fact.hostname"]);
    let mut directory = echo(&["@fact.hostname"]);
    directory.cwd = Some("/srv/@fact.hostname".into());
    let mut account = echo(&["@fact.hostname"]);
    account.user = Some("@fact.hostname".parse().unwrap());
    for spec in [program, action, shell, directory, account] {
        let why = filled(&spec, &pairs).unwrap_err();
        assert!(matches!(why, UseError::Place(_)), "{spec:?}: {why}");
        let why = spec.clone().recorded().unwrap_err();
        assert!(matches!(why, UseError::Place(_)), "{spec:?}: {why}");
    }
    let action = spec(Mode::Action, &["restart", "@fact.hostname"]);
    assert_eq!(filled(&action, &pairs).unwrap(), ["restart", "web-1"]);
}

#[test]
fn what_names_no_fact_is_an_error_and_no_text() {
    for word in [
        "@fact.",
        "@fact.Host",
        "@fact.{hostname",
        "@fact.{A}",
        "x@fact.-y",
        "@fact.9",
    ] {
        let why = echo(&[word]).recorded().unwrap_err();
        assert!(matches!(why, UseError::Name(_)), "{word}: {why}");
    }
}

#[test]
fn a_command_without_facts_is_recorded_as_it_is_meant() {
    let (plain, used) = echo(&["a@fact.{}b", "user@fact"]).recorded().unwrap();
    assert_eq!(plain, echo(&["a@fact.b", "user@fact"]));
    assert!(used.is_empty());
    let (script, used) = spec(Mode::Shell, &["grep @fact.{} x"]).recorded().unwrap();
    assert_eq!(script.argv, ["grep @fact. x"]);
    assert!(used.is_empty());
    let (kept, used) = echo(&["@fact.{}", "@fact.arch"]).recorded().unwrap();
    assert_eq!(kept, echo(&["@fact.{}", "@fact.arch"]));
    assert_eq!(used.len(), 1);
}

#[test]
fn names_and_values_that_could_mean_something_else_are_none() {
    for name in ["", "A", "9", "-a", ".a", "a b", "a@b", &"a".repeat(65)] {
        assert_eq!(name.parse::<FactName>(), Err(FactsError::Name), "{name:?}");
    }
    for value in [
        "",
        "-x",
        "a b",
        "a\nb",
        "@file",
        "$x",
        "a;b",
        "\u{e4}",
        &"a".repeat(257),
    ] {
        let parsed = value.parse::<facts::FactValue>();
        assert_eq!(parsed, Err(FactsError::Value), "{value:?}");
    }
}

#[test]
fn a_document_of_facts_is_sorted_bounded_and_has_each_once() {
    let document = br#"[["arch","x86_64"],["hostname","web-1"]]"#;
    let parsed = Facts::parse(document).unwrap();
    assert_eq!(parsed.to_document().unwrap(), document);
    for bad in [
        &br#"[["hostname","web-1"],["arch","x86_64"]]"#[..],
        br#"[["arch","a"],["arch","b"]]"#,
        br#"[["arch","-a"]]"#,
        br#"[["arch"]]"#,
        br#"{"arch":"a"}"#,
        br#"[["arch","a"] ]"#,
    ] {
        assert!(
            Facts::parse(bad).is_err(),
            "{}",
            String::from_utf8_lossy(bad)
        );
    }
    let mut full = Facts::default();
    let value = "v".repeat(200);
    let fits = |n: &usize| full.insert(format!("f{n:03}").parse().unwrap(), value.parse().unwrap());
    let count = (0..facts::MAX_FACTS).take_while(fits).count();
    assert!(count < facts::MAX_FACTS, "{count}");
    assert!(full.to_document().unwrap().len() <= facts::MAX_DOCUMENT_BYTES);
}

#[test]
fn what_hosts_run_together_has_a_largest_size() {
    let long = "x".repeat(64 * 1024);
    let spec = echo(&[&long, "@fact.hostname"]);
    let runs = |spec: &CommandSpec, hosts: usize| {
        let lines = (0..hosts).map(|n| {
            let host = format!("web-{n}");
            line(&host, Some(facts(&[("hostname", &host)])))
        });
        let targets = TargetList::new(lines.collect()).unwrap();
        facts::runs(spec, &targets).map(|runs| runs.len())
    };
    assert_eq!(runs(&spec, 255), Ok(255));
    assert_eq!(runs(&spec, 256), Err(UseError::TooLong));
    // Also where a long name becomes a short value.
    let names = "@fact.{hostname}".repeat(8 * 1024);
    let spec = echo(&[&names]);
    assert_eq!(runs(&spec, 127), Ok(127));
    assert_eq!(runs(&spec, 128), Err(UseError::TooLong));
    // A directory and words without letters take room too.
    let spec = CommandSpec {
        cwd: Some(format!("/{}", "d".repeat(128 * 1024 - 1))),
        ..echo(&["@fact.hostname"])
    };
    assert_eq!(runs(&spec, 127), Ok(127));
    assert_eq!(runs(&spec, 128), Err(UseError::TooLong));
    let mut words = vec![""; 1000];
    words.push("@fact.hostname");
    assert_eq!(runs(&echo(&words), 600), Err(UseError::TooLong));
}

#[test]
fn all_lines_have_facts_or_none_has() {
    let some = || Some(facts(&[("arch", "x")]));
    let list = |a, b| TargetList::new(vec![line("web-1", a), line("web-2", b)]);
    list(some(), some()).unwrap();
    list(None, None).unwrap();
    for (a, b) in [(some(), None), (Some(Facts::default()), some())] {
        assert_eq!(list(a, b).unwrap_err(), TargetError::Facts);
    }
}

proptest! {
    #[test]
    fn filling_changes_no_number_of_words_and_leaves_no_name(
        words in prop::collection::vec("(@fact\\.|@fact\\.\\{\\}|hostname|\\{arch\\}|arch|[a-c=,. @{}-]){0,6}", 0..6),
        value in "[a-z0-9/:=,][a-z0-9/:=,.-]{0,8}",
    ) {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let asked = echo(&words);
        let Ok((recorded, used)) = asked.clone().recorded() else { return Ok(()); };
        let mut own = Facts::default();
        for name in &used {
            prop_assert!(own.insert(name.clone(), value.parse().unwrap()));
        }
        let own = (!used.is_empty()).then_some(own);
        let literal = asked.argv.iter().map(|word| word.matches("@fact.{}").count()).sum::<usize>();
        let run = recorded.for_host(&line("web-1", own)).unwrap();
        prop_assert_eq!(run.argv.len(), asked.argv.len());
        // Only what was written as the text itself looks like a name afterwards.
        let left = run.argv.iter().map(|word| word.matches(MARK).count()).sum::<usize>();
        prop_assert_eq!(left, literal);
    }
}

/// Two hosts that have said who they are.
fn ready() -> Book {
    let mut book = Book::ready();
    book.enrol("web-2");
    for host in HOSTS {
        say_facts(&mut book, host, &[("hostname", host), ("arch", "x86_64")]).unwrap();
    }
    book
}

fn facts_event(book: &mut Book, host: &str, pairs: &[(&str, &str)]) -> Event {
    let document = facts(pairs).to_document().unwrap();
    let blob = book.blob(&document);
    let (agent_seq, agent_prev) = book.chain(host);
    say!(agent book, host, AgentFacts { agent_seq: agent_seq, agent_prev: agent_prev, facts: blob })
}

fn say_facts(book: &mut Book, host: &str, pairs: &[(&str, &str)]) -> Result<StatementId, Refusal> {
    let event = facts_event(book, host, pairs);
    book.sign_and_append(host, &event)
}

/// The act of `spec` where each host's line has these facts.
fn act_with(book: &mut Book, spec: &CommandSpec, own: &[(&str, Option<Facts>)]) -> Act {
    let hosts: Vec<&str> = own.iter().map(|(host, _)| *host).collect();
    let mut act = book.act(&hosts);
    act.mode = spec.mode;
    act.spec = book.blob(&spec.to_document().unwrap());
    let lines = own.iter().map(|(host, facts)| TargetLine {
        spec: act.spec.digest,
        key_id: book.state.rights().agent(&host.parse().unwrap()).unwrap(),
        ..line(host, facts.clone())
    });
    let list = TargetList::new(lines.collect()).unwrap();
    let document = book.blob(&list.to_document().unwrap());
    act.targets = list.describe(document).unwrap();
    act
}

fn ask(book: &mut Book, act: Act, retry: Option<Retry>) -> Result<StatementId, Refusal> {
    let reason = book.blob(b"because");
    let event = say!(person book, "alice", CommandRequested {
        client_ref: None, token: None, retry: retry, act: act, reason: reason,
    });
    book.sign_and_append("alice", &event)
}

fn own(name: &str, value: &str) -> Option<Facts> {
    Some(facts(&[(name, value)]))
}

fn ask_for(
    book: &mut Book,
    spec: &CommandSpec,
    own: &[(&str, Option<Facts>)],
) -> Result<StatementId, Refusal> {
    let act = act_with(book, spec, own);
    ask(book, act, None)
}

#[test]
fn facts_stand_with_the_rights_and_on_the_agents_chain() {
    let mut book = ready();
    let event = facts_event(&mut book, "web-1", &[("hostname", "web-1")]);
    assert_eq!(Stream::of(&event, StatementId::ZERO), Some(Stream::Rights));
    assert_eq!(book.chain("web-1").0, 1);
    let record = book
        .state
        .rights()
        .agent_record(&"web-1".parse().unwrap())
        .unwrap();
    let signed = record.facts.as_ref().unwrap().facts.as_ref().unwrap();
    assert_eq!(
        signed.get(&"arch".parse().unwrap()).unwrap().as_str(),
        "x86_64"
    );
    book.audit().unwrap();
}

#[test]
fn a_host_says_its_facts_at_most_once_a_minute() {
    let mut book = ready();
    let again = [("hostname", "web-1")];
    assert_eq!(
        say_facts(&mut book, "web-1", &again),
        Err(Refusal::FactsTooSoon)
    );
    book.now += 61 * SECOND_US;
    say_facts(&mut book, "web-1", &again).unwrap();
    book.audit().unwrap();
}

#[test]
fn a_request_names_for_each_host_what_it_signed_last() {
    let mut book = ready();
    let spec = echo(&["@fact.hostname"]);
    let right = [
        ("web-1", own("hostname", "web-1")),
        ("web-2", own("hostname", "web-2")),
    ];
    ask_for(&mut book, &spec, &right).unwrap();
    // The other host's, and somebody's own.
    for value in ["web-1", "evil"] {
        let wrong = [right[0].clone(), ("web-2", own("hostname", value))];
        let refused = ask_for(&mut book, &spec, &wrong).unwrap_err();
        assert!(
            matches!(&refused, Refusal::FactsDiffer(why) if why.contains("web-2")),
            "{refused}"
        );
    }
    let both = Some(facts(&[("arch", "x86_64"), ("hostname", "web-1")]));
    let extra = [("web-1", both), right[1].clone()];
    assert!(matches!(
        ask_for(&mut book, &spec, &extra),
        Err(Refusal::Facts(_))
    ));
    let other = [
        ("web-1", own("arch", "x86_64")),
        ("web-2", own("arch", "x86_64")),
    ];
    assert!(matches!(
        ask_for(&mut book, &spec, &other),
        Err(Refusal::Facts(_))
    ));
    let script = spec_of_shell();
    assert!(matches!(
        ask_for(&mut book, &script, &right),
        Err(Refusal::Facts(_))
    ));
    // Once it says something else, the old value counts no more.
    book.now += 61 * SECOND_US;
    say_facts(&mut book, "web-1", &[("hostname", "web-9")]).unwrap();
    assert!(matches!(
        ask_for(&mut book, &spec, &right),
        Err(Refusal::FactsDiffer(_))
    ));
    book.audit().unwrap();
}

fn spec_of_shell() -> CommandSpec {
    spec(Mode::Shell, &["echo @fact.hostname"])
}

#[test]
fn a_host_that_said_nothing_with_its_new_key_has_no_facts() {
    let mut book = ready();
    let spec = echo(&["@fact.hostname"]);
    book.rotate("web-1", "web-1-anew");
    let refused = ask_for(&mut book, &spec, &[("web-1", own("hostname", "web-1"))]);
    assert!(
        matches!(refused, Err(Refusal::FactsDiffer(_))),
        "{refused:?}"
    );
    // The old key's word in its grace is not the new one's.
    book.now += 61 * SECOND_US;
    say_facts(&mut book, "web-1", &[("hostname", "web-1")]).unwrap();
    // Nor does it fill the stream that everybody reads.
    let again = say_facts(&mut book, "web-1", &[("hostname", "web-8")]);
    assert_eq!(again, Err(Refusal::FactsTooSoon));
    let refused = ask_for(&mut book, &spec, &[("web-1", own("hostname", "web-1"))]);
    assert!(
        matches!(refused, Err(Refusal::FactsDiffer(_))),
        "{refused:?}"
    );
}

#[test]
fn a_retry_runs_the_recorded_facts_and_only_while_they_are_the_hosts() {
    let mut book = ready();
    let spec = echo(&["@fact.hostname"]);
    let line = [("web-1", own("hostname", "web-1"))];
    let act = act_with(&mut book, &spec, &line);
    let of = ask(&mut book, act.clone(), None).unwrap();
    book.approve("bob", of).unwrap();
    book.approve("carol", of).unwrap();
    book.start("web-1", of).unwrap();
    book.complete("web-1", of, 1).unwrap();
    let retry = Some(Retry { of, lost: false });
    ask(&mut book, act.clone(), retry).unwrap();
    book.now += 61 * SECOND_US;
    say_facts(&mut book, "web-1", &[("hostname", "web-9")]).unwrap();
    let again = ask(&mut book, act.clone(), retry);
    assert!(matches!(again, Err(Refusal::FactsDiffer(_))), "{again:?}");
    let mut anew = act_with(&mut book, &spec, &[("web-1", own("hostname", "web-9"))]);
    anew.spec = act.spec;
    let list = TargetList::new(vec![TargetLine {
        spec: act.spec.digest,
        ..self::line("web-1", own("hostname", "web-9"))
    }]);
    let list = list.unwrap();
    let document = book.blob(&list.to_document().unwrap());
    anew.targets = list.describe(document).unwrap();
    assert_eq!(
        ask(&mut book, anew, retry),
        Err(Refusal::RetryDiffers("facts"))
    );
}

#[test]
fn a_document_that_is_not_at_hand_lets_an_auditor_go_on_and_the_ledger_not() {
    let mut book = ready();
    let spec = echo(&["@fact.hostname"]);
    ask_for(&mut book, &spec, &[("web-1", own("hostname", "web-1"))]).unwrap();
    let event = facts_event(&mut book, "web-1", &[("hostname", "web-1")]);
    let held = countersign_protocol::audit::attachment(&event, |_| None).unwrap();
    assert!(held.is_withheld());
}
