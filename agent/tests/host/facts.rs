//! A host's own facts in the words that it runs.

use countersign_agent::admission::{Unproven, Verdict};
use countersign_agent::own::OwnFacts;
use countersign_protocol::api::Base64;
use countersign_protocol::canonical;
use countersign_protocol::entry::Entry;
use countersign_protocol::event::*;
use countersign_protocol::facts::Facts;
use countersign_protocol::hash::StatementId;
use countersign_protocol::name::SECOND_US;
use countersign_protocol::target::{TargetLine, TargetList};

use crate::support::{Book, World};
use crate::whole::Rig;

fn facts(value: &str) -> Facts {
    let mut facts = Facts::default();
    assert!(facts.insert("hostname".parse().unwrap(), value.parse().unwrap()));
    facts
}

/// `echo @fact.hostname` on this host, which says that it is `web-1.example`.
fn world() -> (World, StatementId) {
    let mut world = World::new();
    world.host.facts = OwnFacts::Fixed(facts("web-1.example"));
    let book = &mut world.book;
    let blob = book.blob(&facts("web-1.example").to_document().unwrap());
    let said = say!(agent book, "web-1", AgentFacts {
        agent_seq: 0, agent_prev: StatementId::ZERO, facts: blob,
    });
    book.sign_and_append("web-1", &said).unwrap();
    let mut act = book.act(&["web-1"], &Book::spec(&["echo", "@fact.hostname"]));
    let lines = vec![TargetLine {
        agent: "web-1".parse().unwrap(),
        key_id: world.host.pins.key_id,
        service: None,
        spec: act.spec.digest,
        turn: None,
        facts: Some(facts("web-1.example")),
    }];
    let list = TargetList::new(lines).unwrap();
    let document = book.blob(&list.to_document().unwrap());
    act.targets = list.describe(document).unwrap();
    let id = world.approved(act);
    (world, id)
}

#[test]
fn a_host_runs_the_words_with_its_own_facts_in_them() {
    let (world, id) = world();
    let Ok(Verdict::Run(permit)) = world.admit(&world.grant(id)) else {
        panic!("it runs");
    };
    let plan = permit.into_plan(std::time::Duration::ZERO).unwrap();
    assert_eq!(plan.first.argv, ["echo", "web-1.example"]);
}

#[test]
fn a_host_that_is_another_one_by_now_refuses() {
    let (mut world, id) = world();
    for own in [
        OwnFacts::Fixed(facts("web-2.example")),
        OwnFacts::Fixed(Facts::default()),
        OwnFacts::Silent,
    ] {
        world.host.facts = own;
        let refusal = world.refused(id);
        assert_eq!(refusal.rule.as_ref().unwrap().as_str(), "facts");
        assert_eq!(refusal.why, RefusalReason::NotAllowed);
    }
}

#[test]
fn a_value_that_somebody_swapped_in_the_line_is_not_the_one_that_people_signed() {
    let (mut world, id) = world();
    let mut grant = world.grant(id);
    let mut line: TargetLine = canonical::from_document(&grant.line.0, 1 << 16).unwrap();
    line.facts = Some(facts("evil.example"));
    grant.line = Base64(canonical::to_vec(&line).unwrap());
    // Not even where the host has become that one.
    world.host.facts = OwnFacts::Fixed(facts("evil.example"));
    assert!(matches!(world.admit(&grant), Err(Unproven::NotATarget)));
}

/// Facts that stand in the log of a rig, in order.
fn said(book: &Book) -> Vec<Facts> {
    let events = book.entries.iter().map(|bytes| {
        let statement = Entry::decode(bytes).unwrap().statement;
        Event::parse(statement.kind, &statement.payload).unwrap()
    });
    let mut said = Vec::new();
    for event in events {
        if let Event::AgentFacts(event) = event {
            said.push(Facts::parse(book.blobs[&event.facts.digest].content()).unwrap());
        }
    }
    said
}

async fn says(rig: &Rig, times: usize) -> Facts {
    rig.until("its facts", |book| said(book).len() >= times)
        .await;
    said(&rig.fake.book()).pop().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_says_its_facts_when_it_starts_and_again_only_when_they_changed() {
    let mut rig = Rig::ready().await;
    rig.restart_with(|config| config.facts = OwnFacts::Fixed(facts("web-1")))
        .await;
    assert_eq!(says(&rig, 1).await, facts("web-1"));
    // A host that is stopped before it has kept what it said says it once more.
    let kept = rig.config.state.join("identity/facts");
    rig.until("it remembers what it said", |_book| kept.exists())
        .await;
    // The same, and then others.
    rig.restart_with(|_same| ()).await;
    rig.listening(3).await;
    let id = rig.granted("true");
    rig.ended(id).await;
    assert_eq!(said(&rig.fake.book()).len(), 1);
    rig.clock.advance(120 * SECOND_US);
    rig.fake.book().now += 120 * SECOND_US;
    rig.restart_with(|config| config.facts = OwnFacts::Fixed(facts("web-9")))
        .await;
    assert_eq!(says(&rig, 2).await, facts("web-9"));
}
