//! Turns of a rollout: what a host checks itself before it starts, and what it does not believe.

use countersign_agent::admission::{Unproven, Verdict};
use countersign_protocol::api::{Ahead, Base64, Grant, ProvenEntry};
use countersign_protocol::canonical;
use countersign_protocol::event::*;
use countersign_protocol::hash::{Digest, StatementId};
use countersign_protocol::lifecycle::Due;
use countersign_protocol::name::{SECOND_US, Time};
use countersign_protocol::proof;
use countersign_protocol::rollout::{Gap, Rollout};
use countersign_protocol::target::TargetList;

use crate::support::{Book, World, public};

const MINUTE_US: u64 = 60 * SECOND_US;

/// The host before ours, by name.
const BEFORE: &str = "web-0";

fn world() -> World {
    let mut world = World::new();
    world.book.enrol(BEFORE);
    world
}

fn one_by_one() -> Rollout {
    Rollout {
        max_in_flight: Some(1),
        ..Rollout::default()
    }
}

/// `true` on both hosts, allowed, in turns.
fn rolled_out(world: &mut World, rollout: Rollout) -> StatementId {
    let mut act = world.book.act(&[BEFORE, "web-1"], &Book::spec(&["true"]));
    act.rollout = Some(rollout);
    let id = world.approved(act);
    turns(world, id);
    id
}

/// The ledger gives the turns that may begin.
fn turns(world: &mut World, id: StatementId) {
    let now = Time::from_micros(world.book.now).unwrap();
    for due in world.book.state.due(&id, now) {
        assert!(matches!(due, Due::Release(_)), "{due:?}");
        let event = world.book.ledger_header().due(id, due);
        world.book.sign_and_append("ledger", &event).unwrap();
    }
}

/// The other host starts it: the run.
fn other_starts(world: &mut World, id: StatementId) -> StatementId {
    let book = &mut world.book;
    let path = book.blob(b"/usr/bin/true");
    let sha256 = Digest::new([1; 32]);
    let started = say!(agent book, BEFORE, ExecutionStarted {
        command: id, agent_seq: 0, agent_prev: StatementId::ZERO, in_force: None,
        program: ProgramFacts { path, sha256 }, steps: None,
    });
    book.sign_and_append(BEFORE, &started).unwrap()
}

/// The other host runs it; where its end stands.
fn other_runs(world: &mut World, id: StatementId) -> u64 {
    let run = other_starts(world, id);
    let book = &mut world.book;
    let sha256 = Digest::new([1; 32]);
    let none = StreamTotals {
        total: 0,
        kept: 0,
        sha256,
    };
    let done = say!(agent book, BEFORE, ExecutionCompleted {
        command: id, agent_seq: 1, agent_prev: run, started: run, outcome: Outcome::Exited,
        detail: None, exit_code: Some(0), signal: None, duration_us: 1, cpu_us: 1, max_rss: 1,
        stdout: none, stderr: none, chunks: 0, last_chunk: run, tree_gone: true, masked: None,
    });
    let done = book.sign_and_append(BEFORE, &done).unwrap();
    book.seq_of(done).unwrap()
}

/// An entry, proved for the newest checkpoint.
fn entry(world: &World, seq: u64) -> ProvenEntry {
    let (book, size) = (&world.book, world.book.tree.size());
    ProvenEntry {
        seq,
        entry: Base64(book.entries[usize::try_from(seq).unwrap()].clone()),
        inclusion: proof::inclusion_proof(&book.tree, seq, size).unwrap(),
    }
}

/// What the server sends our host, with the end at `seq` as the one of the host `name`.
fn shown(world: &World, id: StatementId, (name, seq): (&str, u64)) -> Grant {
    let targets = world.book.command(id).targets.clone().unwrap();
    let line = |list: &TargetList, name: &str| {
        let (index, line) = list.line_of(&name.parse().unwrap()).unwrap();
        (
            index,
            Base64(canonical::to_vec(line).unwrap()),
            list.prove(index).unwrap(),
        )
    };
    let (line_index, line, line_proof) = line(&targets, name);
    Grant {
        ahead: Some(Box::new(Ahead {
            entry: entry(world, seq),
            line_index,
            line,
            line_proof,
        })),
        ..world.grant(id)
    }
}

fn is_run(verdict: &Result<Verdict, Unproven>) -> bool {
    matches!(verdict, Ok(Verdict::Run(_)))
}

#[test]
fn a_host_runs_in_its_turn_after_the_end_of_the_one_before_it() {
    let mut world = world();
    let id = rolled_out(&mut world, one_by_one());
    // The ledger has given it none.
    assert_eq!(world.unproven(id), Unproven::NoTurn);
    let end = other_runs(&mut world, id);
    turns(&mut world, id);
    assert!(is_run(&world.admit(&shown(&world, id, (BEFORE, end)))));
}

#[test]
fn a_turn_without_the_end_of_the_host_before_is_not_believed() {
    let mut world = world();
    let id = rolled_out(&mut world, one_by_one());
    let end = other_runs(&mut world, id);
    turns(&mut world, id);
    let not_shown = Err(Unproven::HostBefore("it is not shown"));
    let said = world.admit(&world.grant(id)).map(drop);
    assert_eq!(said, not_shown);
    // Its start is no end, and its end is nobody else's.
    let start = shown(&world, id, (BEFORE, end - 1));
    assert!(matches!(world.admit(&start), Err(Unproven::HostBefore(_))));
    let own = shown(&world, id, ("web-1", end));
    assert!(matches!(world.admit(&own), Err(Unproven::HostBefore(_))));
    // The end of another command of that host.
    let other = rolled_out(&mut world, one_by_one());
    let foreign = {
        let event = say!(agent world.book, BEFORE, ExecutionRefused {
            command: other, agent_seq: 2, agent_prev: world.book.state.chain(&public(BEFORE).key_id()).unwrap().prev,
            why: RefusalReason::Busy, rule: None, detail: None,
        });
        let refused = world.book.sign_and_append(BEFORE, &event).unwrap();
        world.book.seq_of(refused).unwrap()
    };
    let foreign = shown(&world, id, (BEFORE, foreign));
    assert!(matches!(
        world.admit(&foreign),
        Err(Unproven::HostBefore(_))
    ));
}

/// A thief of the ledger's key gives our host its turn, by whatever end he names.
fn force_turn(world: &mut World, id: StatementId, waited_for: StatementId) {
    let book = &mut world.book;
    let header = book.ledger_header();
    let released = ExecutionReleased {
        signer: header.signer,
        nonce: header.nonce,
        made_at: header.made_at,
        ledger: header.ledger,
        seen: header.seen,
        command: id,
        agent: "web-1".parse().unwrap(),
        turn: 1,
        waited_for: vec![waited_for],
        labels: Vec::new(),
        start_before: book.command(id).act().expires_at,
    };
    book.force_event("ledger", &released.into());
}

#[test]
fn a_start_is_no_end_whatever_the_ledger_says() {
    let mut world = world();
    let id = rolled_out(&mut world, one_by_one());
    let run = other_starts(&mut world, id);
    force_turn(&mut world, id, run);
    let start = world.book.seq_of(run).unwrap();
    let said = world.admit(&shown(&world, id, (BEFORE, start))).map(drop);
    assert_eq!(
        said,
        Err(Unproven::HostBefore("what is shown is not its end"))
    );
}

/// A thief of the ledger's keys gives our host its turn while the one before it still runs.
#[test]
fn a_thief_of_the_ledgers_key_cannot_end_another_hosts_run() {
    let mut world = world();
    let id = rolled_out(&mut world, one_by_one());
    let book = &mut world.book;
    let header = book.ledger_header();
    let none = StreamTotals {
        total: 0,
        kept: 0,
        sha256: Digest::new([1; 32]),
    };
    let nonce = header.nonce;
    // The agent's own kind and name, signed by the thief with a key of his.
    let done = ExecutionCompleted {
        signer: public("mallory").key_id(),
        agent: BEFORE.parse().unwrap(),
        nonce,
        made_at: header.made_at,
        ledger: header.ledger,
        seen: header.seen,
        command: id,
        agent_seq: 1,
        agent_prev: StatementId::ZERO,
        started: StatementId::ZERO,
        outcome: Outcome::Exited,
        detail: None,
        exit_code: Some(0),
        signal: None,
        duration_us: 1,
        cpu_us: 1,
        max_rss: 1,
        stdout: none,
        stderr: none,
        chunks: 0,
        last_chunk: StatementId::ZERO,
        tree_gone: true,
        masked: None,
    };
    let end = book.force_event("mallory", &done.into());
    let end_id = {
        let bytes = &book.entries[usize::try_from(end).unwrap()];
        countersign_protocol::entry::Entry::decode(bytes)
            .unwrap()
            .statement
            .id()
    };
    force_turn(&mut world, id, end_id);
    let said = world.admit(&shown(&world, id, (BEFORE, end))).map(drop);
    assert_eq!(
        said,
        Err(Unproven::HostBefore(
            "its end is not signed with the key that people allowed it to have"
        ))
    );
}

#[test]
fn a_host_waits_for_the_gap_by_its_own_clock_and_takes_no_turn_that_is_over() {
    let mut world = world();
    let gap = Gap {
        label: None,
        ms: 10 * 60_000,
    };
    let rollout = Rollout {
        gap: Some(gap),
        start_within_ms: Some(60_000),
        ..Rollout::default()
    };
    let id = rolled_out(&mut world, rollout);
    let end = other_runs(&mut world, id);
    let over = world.book.now;
    world.book.now += 10 * MINUTE_US;
    turns(&mut world, id);
    // A host whose clock is a minute behind waits for that minute.
    world.now = over + 9 * MINUTE_US;
    let verdict = world.admit(&shown(&world, id, (BEFORE, end)));
    let until = Time::from_micros(over + 10 * MINUTE_US).unwrap();
    assert!(
        matches!(&verdict, Ok(Verdict::Wait { until: found, .. }) if *found == until),
        "{verdict:?}"
    );
    world.now = over + 10 * MINUTE_US;
    assert!(is_run(&world.admit(&shown(&world, id, (BEFORE, end)))));
    world.now = over + 11 * MINUTE_US;
    let verdict = world.admit(&shown(&world, id, (BEFORE, end)));
    let Ok(Verdict::Refuse { refusal, .. }) = verdict else {
        panic!("not refused: {verdict:?}")
    };
    assert_eq!(refusal.why, RefusalReason::Time);
}

#[test]
fn after_a_canary_the_word_of_somebody_whom_the_host_pins_is_needed() {
    for (who, may) in [("alice", true), ("dave", false)] {
        let mut world = world();
        let rollout = Rollout {
            canary: Some(1),
            ..Rollout::default()
        };
        let mut act = world.book.act(&[BEFORE, "web-1"], &Book::spec(&["true"]));
        act.rollout = Some(rollout);
        let id = if who == "dave" {
            let id = world.book.request("dave", act);
            world.book.approve("bob", id).unwrap();
            world.book.approve("carol", id).unwrap();
            id
        } else {
            world.approved(act)
        };
        turns(&mut world, id);
        other_runs(&mut world, id);
        let event = say!(person world.book, who, RolloutContinued { command: id, reason: None });
        world.book.sign_and_append(who, &event).unwrap();
        turns(&mut world, id);
        let verdict = world.admit(&world.grant(id));
        if may {
            assert!(is_run(&verdict), "{verdict:?}");
        } else {
            let Ok(Verdict::Refuse { refusal, .. }) = verdict else {
                panic!("not refused: {verdict:?}")
            };
            assert_eq!(refusal.why, RefusalReason::Approvals);
        }
    }
}
