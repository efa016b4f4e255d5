//! Attacks on a grant: replays, forgeries, people who do not count. ATTACKS rows 7, 8, 14, 15, 26.

use countersign_agent::admission::{Unproven, Verdict};
use countersign_protocol::api::Base64;
use countersign_protocol::command::{Act, Mode};
use countersign_protocol::event::{Event, RefusalReason};
use countersign_protocol::fold::Refusal;
use countersign_protocol::hash::{Digest, LedgerId, StatementId};
use countersign_protocol::name::{SECOND_US, Time};

use crate::support::{Book, World, public, signers};

/// A thief's stream: alice's request for `true`, and what `approve` adds to it.
fn forged(
    need: u32,
    approve: impl FnOnce(&mut World, StatementId, &Act) -> Vec<u64>,
) -> (World, StatementId) {
    let mut world = World::new();
    let act = world.act();
    let id = world.force_request("alice", "alice", act.clone());
    let approvals = approve(&mut world, id, &act);
    world.force_authorized(id, approvals, need);
    (world, id)
}

fn honest(world: &mut World, who: &str, id: StatementId, act: &Act) -> u64 {
    world.force_approval((who, who), id, ("alice", act), |_| {})
}

#[test]
fn what_two_pinned_people_approved_runs() {
    let mut world = World::new();
    let id = world.approved_true();
    assert!(world.runs(id));
}

#[test]
fn a_forged_stream_with_honest_people_runs_so_that_the_attacks_below_fail_for_their_own_reason() {
    let (world, id) = forged(2, |world, id, act| {
        vec![
            honest(world, "bob", id, act),
            honest(world, "carol", id, act),
        ]
    });
    assert!(world.runs(id));
}

#[test]
fn an_approval_of_another_command_is_foreign() {
    let mut world = World::new();
    let before = world.approved_true();
    let approvals: Vec<_> = (world.seq_of(before) + 1..world.seq_of(before) + 3).collect();
    let act = world.act();
    let id = world.force_request("alice", "alice", act);
    world.force_authorized(id, approvals, 2);
    assert!(matches!(
        world.unproven(id),
        Unproven::Life {
            source: Refusal::Binding("approvals"),
            ..
        }
    ));
    // And put into the stream, they are seen to be another command's.
    let mut grant = world.grant(id);
    let other = world.grant(before).stream.entries;
    grant.stream.entries = [other, grant.stream.entries].concat();
    assert!(matches!(world.admit(&grant), Err(Unproven::Foreign(_))));
}

#[test]
fn an_approval_binds_every_part_of_the_act() {
    type Change = fn(&mut Act);
    let changes: &[(&str, Change)] = &[
        ("targets", |act| act.targets.count = 2),
        ("spec", |act| act.spec.digest = Digest::new([7; 32])),
        ("environment", |act| act.env = Some(act.spec)),
        ("stdin", |act| act.stdin = Some(act.spec)),
        ("user", |act| act.user = Some("root".parse().unwrap())),
        ("mode", |act| act.mode = Mode::Shell),
        ("timeout", |act| act.timeout_ms = 1),
        ("output limit", |act| act.output_limit = 1),
        ("begin", |act| {
            act.not_before = Time::from_micros(1).unwrap()
        }),
        ("end", |act| act.expires_at = act.expires_at.plus_micros(1)),
    ];
    for (what, change) in changes {
        let (world, id) = forged(2, |world, id, act| {
            let mut other = act.clone();
            change(&mut other);
            if *what == "begin" {
                other.expires_at = Time::from_micros(2).unwrap();
            }
            vec![
                honest(world, "bob", id, act),
                world.force_approval(("carol", "carol"), id, ("alice", &other), |_| {}),
            ]
        });
        let unproven = world.unproven(id);
        let binding = matches!(
            unproven,
            Unproven::Life {
                source: Refusal::Binding("act"),
                ..
            }
        );
        assert!(binding, "{what}: {unproven:?}");
    }
}

#[test]
fn an_approval_binds_requester_ledger_and_policy() {
    let (world, id) = forged(2, |world, id, act| {
        let other = world.force_approval(("carol", "carol"), id, ("dave", act), |_| {});
        vec![honest(world, "bob", id, act), other]
    });
    assert!(matches!(
        world.unproven(id),
        Unproven::Life {
            source: Refusal::Binding("requester"),
            ..
        }
    ));
    let (world, id) = forged(2, |world, id, act| {
        let other = world.force_approval(("carol", "carol"), id, ("alice", act), |approval| {
            approval.ledger = LedgerId::new([1; 32]);
        });
        vec![honest(world, "bob", id, act), other]
    });
    assert!(matches!(world.unproven(id), Unproven::OtherLedger(_)));
    let (world, id) = forged(2, |world, id, act| {
        let other = world.force_approval(("carol", "carol"), id, ("alice", act), |approval| {
            approval.policy.digest = Digest::new([1; 32]);
        });
        vec![honest(world, "bob", id, act), other]
    });
    assert!(matches!(
        world.unproven(id),
        Unproven::Life {
            source: Refusal::Binding("approvals"),
            ..
        }
    ));
}

#[test]
fn a_used_grant_is_used() {
    let mut world = World::new();
    let id = world.approved_true();
    let now = Time::from_micros(world.now).unwrap();
    let checkpoint = world.book.checkpoint();
    let verdict = world
        .host
        .admit(&world.grant(id), &checkpoint, now, |used| *used == id);
    assert!(matches!(verdict, Ok(Verdict::Used(command)) if command == id));
}

#[test]
fn nothing_runs_before_its_time_or_after_it_by_the_hosts_own_clock() {
    let mut world = World::new();
    let id = world.approved_true();
    world.now -= 2;
    assert!(matches!(
        world.admit(&world.grant(id)),
        Ok(Verdict::Wait { command, .. }) if command == id
    ));
    world.host.rules.max_approval_age_us = 100 * 3600 * SECOND_US;
    world.now += 2 * 3600 * SECOND_US + 1;
    assert!(world.runs(id));
    world.now += 1;
    assert_eq!(world.refused(id).why, RefusalReason::Time);
}

#[test]
fn a_permit_ends_with_the_first_of_its_approvals() {
    let mut world = World::new();
    let id = world.approved_true();
    let Ok(Verdict::Run(permit)) = world.admit(&world.grant(id)) else {
        panic!("it runs");
    };
    let at = |us| Time::from_micros(world.now + us).unwrap();
    assert!(permit.is_valid_at(at(3600 * SECOND_US - 1)));
    assert!(!permit.is_valid_at(at(3600 * SECOND_US)));
}

#[test]
fn one_approval_counts_once() {
    for approvals in [|seq| vec![seq], |seq| vec![seq, seq]] {
        let (world, id) = forged(2, |world, id, act| approvals(honest(world, "bob", id, act)));
        assert!(matches!(world.unproven(id), Unproven::Life { .. }));
    }
    // The ledger says that one suffices; the host does not think so.
    let (world, id) = forged(1, |world, id, act| vec![honest(world, "bob", id, act)]);
    assert_eq!(world.refused(id).why, RefusalReason::Approvals);
}

#[test]
fn two_keys_of_one_person_are_one_person() {
    let mut signers = String::new();
    for (who, key) in [
        ("alice", "alice"),
        ("bob", "bob"),
        ("bob", "bob2"),
        ("carol", "carol"),
    ] {
        signers.push_str(&format!("{who} {}\n", public(key).to_openssh()));
    }
    let (mut world, id) = forged(2, |world, id, act| {
        let again = world.force_approval(("bob", "bob2"), id, ("alice", act), |_| {});
        vec![again, honest(world, "bob", id, act)]
    });
    world.host.signers = countersign_agent::signers::AllowedSigners::parse(&signers).unwrap();
    assert!(matches!(
        world.unproven(id),
        Unproven::Life {
            source: Refusal::Quorum,
            ..
        }
    ));
    // Under a second name, bob's second key is another person's and does not count.
    let (mut world, id) = forged(2, |world, id, act| {
        let again = world.force_approval(("mallory", "bob2"), id, ("alice", act), |_| {});
        vec![again, honest(world, "bob", id, act)]
    });
    world.host.signers = countersign_agent::signers::AllowedSigners::parse(&signers).unwrap();
    assert_eq!(world.refused(id).why, RefusalReason::Approvals);
}

#[test]
fn the_requester_does_not_approve_under_any_name() {
    let (world, id) = forged(2, |world, id, act| {
        vec![
            honest(world, "alice", id, act),
            honest(world, "bob", id, act),
        ]
    });
    assert!(matches!(
        world.unproven(id),
        Unproven::Life {
            source: Refusal::OwnRequest,
            ..
        }
    ));
    // Bob asks as mallory, with his own key, so that his approval would count beside carol's.
    let mut world = World::new();
    let act = world.act();
    let id = world.force_request("mallory", "bob", act.clone());
    let approvals =
        ["bob", "carol"].map(|who| world.force_approval((who, who), id, ("mallory", &act), |_| {}));
    world.force_authorized(id, approvals.to_vec(), 2);
    assert!(matches!(world.unproven(id), Unproven::Requester(_)));
    // And a stranger's key cannot ask as somebody whom the host knows.
    let mut world = World::new();
    let act = world.act();
    let id = world.force_request("alice", "eve", act.clone());
    let approvals =
        ["bob", "carol"].map(|who| world.force_approval((who, who), id, ("alice", &act), |_| {}));
    world.force_authorized(id, approvals.to_vec(), 2);
    assert!(matches!(world.unproven(id), Unproven::Requester(_)));
}

#[test]
fn a_requester_whom_the_host_does_not_know_may_ask() {
    let mut world = World::new();
    let act = world.act();
    let id = world.book.request("dave", act);
    world.book.approve("bob", id).unwrap();
    world.book.approve("carol", id).unwrap();
    assert!(world.runs(id));
}

#[test]
fn an_approver_whom_the_host_does_not_pin_does_not_count() {
    let mut world = World::new();
    let act = world.act();
    let id = world.book.request("alice", act);
    world.book.approve("bob", id).unwrap();
    world.book.approve("dave", id).unwrap();
    let refusal = world.refused(id);
    assert_eq!(refusal.why, RefusalReason::Approvals);
    assert!(refusal.detail.contains("dave"), "{}", refusal.detail);
    world.host.signers = signers(&["alice", "bob", "dave"]);
    assert!(world.runs(id));
}

#[test]
fn a_pinned_key_counts_only_in_its_namespaces_and_dates() {
    let mut world = World::new();
    let id = world.approved_true();
    let with = |option: &str| {
        let line = |name, option: &str| format!("{name} {option}{}\n", public(name).to_openssh());
        let text = [line("alice", ""), line("bob", ""), line("carol", option)].concat();
        countersign_agent::signers::AllowedSigners::parse(&text).unwrap()
    };
    for (option, counts) in [
        ("namespaces=\"command.approved.v1@countersign,git\" ", true),
        ("namespaces=\"git\" ", false),
        ("valid-before=\"20270115Z\" ", false),
        ("valid-before=\"20270116Z\" ", true),
        ("valid-after=\"20270116Z\" ", false),
    ] {
        world.host.signers = with(option);
        assert_eq!(world.runs(id), counts, "{option}");
    }
}

#[test]
fn an_old_approval_does_not_count() {
    let mut world = World::new();
    let id = world.approved_true();
    world.now += 3600 * SECOND_US;
    assert!(world.runs(id));
    world.now += 1;
    assert_eq!(world.refused(id).why, RefusalReason::Time);
}

#[test]
fn an_old_approval_entered_late_does_not_count() {
    let (world, id) = forged(2, |world, id, act| {
        let old = Time::from_micros(world.now - 3601 * SECOND_US).unwrap();
        let change = |approval: &mut countersign_protocol::event::CommandApproved| {
            approval.made_at = old;
        };
        let late = world.force_approval(("carol", "carol"), id, ("alice", act), change);
        vec![late, honest(world, "bob", id, act)]
    });
    assert_eq!(world.refused(id).why, RefusalReason::Time);
}

#[test]
fn a_post_dated_approval_does_not_live_longer() {
    let (world, id) = forged(2, |world, id, act| {
        let ahead = Time::from_micros(world.now + 121 * SECOND_US).unwrap();
        let change = |approval: &mut countersign_protocol::event::CommandApproved| {
            approval.made_at = ahead;
        };
        let early = world.force_approval(("carol", "carol"), id, ("alice", act), change);
        vec![early, honest(world, "bob", id, act)]
    });
    assert_eq!(world.refused(id).why, RefusalReason::Time);
}

#[test]
fn an_approval_from_before_the_journal_does_not_count() {
    let mut world = World::new();
    let id = world.approved_true();
    world.host.journal_since = Time::from_micros(world.now).unwrap();
    assert!(world.runs(id));
    world.host.journal_since = Time::from_micros(world.now + 1).unwrap();
    assert_eq!(world.refused(id).why, RefusalReason::Time);
}

#[test]
fn missing_approvals_are_never_enough() {
    for need in [1, 2] {
        let (mut world, id) = forged(need, |_, _, _| vec![]);
        world.host.rules.min_approvals = 0;
        assert!(matches!(
            world.unproven(id),
            Unproven::Life {
                source: Refusal::Quorum,
                ..
            }
        ));
    }
    // A demand for nobody is none.
    for approvers in [&["bob"][..], &[]] {
        let (mut world, id) = forged(0, |world, id, act| {
            let approve = |who: &&str| honest(world, who, id, act);
            approvers.iter().map(approve).collect()
        });
        world.host.rules.min_approvals = 0;
        assert!(matches!(world.unproven(id), Unproven::Entry { .. }));
    }
}

#[test]
fn approvals_that_the_authorization_does_not_name_are_not_counted() {
    let (world, id) = forged(1, |world, id, act| {
        honest(world, "bob", id, act);
        vec![honest(world, "carol", id, act)]
    });
    assert_eq!(world.refused(id).why, RefusalReason::Approvals);
}

#[test]
fn the_stricter_minimum_wins() {
    let mut world = World::new();
    let id = world.approved_true();
    world.host.rules.min_approvals = 3;
    assert_eq!(world.refused(id).why, RefusalReason::Approvals);
    let (mut world, id) = forged(2, |world, id, act| {
        vec![
            honest(world, "bob", id, act),
            honest(world, "carol", id, act),
        ]
    });
    world.host.rules.min_approvals = 0;
    assert!(world.runs(id));
    world.host.signers = signers(&["alice", "bob"]);
    assert_eq!(world.refused(id).why, RefusalReason::Approvals);
}

#[test]
fn nobody_else_speaks_for_the_ledger() {
    let mut world = World::new();
    let act = world.act();
    let id = world.book.request("alice", act);
    world.book.approve("bob", id).unwrap();
    world.book.approve("carol", id).unwrap();
    // The honest authorization is there; another key's word on top of it ends the belief.
    let header = world.book.ledger_header();
    let event = Event::from(countersign_protocol::event::CommandExpired {
        signer: public("eve").key_id(),
        nonce: header.nonce,
        made_at: header.made_at,
        ledger: header.ledger,
        seen: header.seen,
        command: id,
    });
    world.book.force_event("eve", &event);
    assert!(matches!(world.unproven(id), Unproven::NotTheLedger(_)));
    let mut grant = world.grant(id);
    grant.stream.entries.pop();
    assert!(matches!(world.admit(&grant), Ok(Verdict::Run(_))));
    grant.stream.entries.pop();
    assert!(matches!(
        world.admit(&grant),
        Err(Unproven::NotAuthorized(_))
    ));
}

#[test]
fn an_authorization_by_another_key_is_no_authorization() {
    let (mut world, id) = forged(2, |world, id, act| {
        vec![
            honest(world, "bob", id, act),
            honest(world, "carol", id, act),
        ]
    });
    assert!(world.runs(id));
    world.host.pins.statement_key = public("eve");
    assert!(matches!(world.unproven(id), Unproven::NotTheLedger(_)));
}

#[test]
fn a_flipped_bit_anywhere_in_an_entry_is_seen() {
    let mut world = World::new();
    let id = world.approved_true();
    let grant = world.grant(id);
    for at in 0..grant.stream.entries.len() {
        for offset in [30, 200, 500, 700] {
            let mut changed = grant.clone();
            let entry = &mut changed.stream.entries[at].entry.0;
            let offset = offset.min(entry.len() - 1);
            entry[offset] ^= 1;
            assert!(world.admit(&changed).is_err(), "entry {at}, byte {offset}");
        }
    }
}

#[test]
fn an_entry_that_is_not_in_the_log_is_not_believed() {
    let mut world = World::new();
    let id = world.approved_true();
    let mut grant = world.grant(id);
    grant.stream.entries[1].inclusion.pop();
    assert!(matches!(
        world.admit(&grant),
        Err(Unproven::NotInLog { .. })
    ));
    // A checkpoint of another history, signed by the same key.
    let mut other = World::new();
    let act = other.book.act(&["web-1"], &Book::spec(&["false"]));
    other.approved(act);
    let mut grant = world.grant(id);
    grant.stream.checkpoint = other.book.checkpoint().note().to_owned();
    assert!(matches!(
        world.admit(&grant),
        Err(Unproven::NotInLog { .. })
    ));
}

#[test]
fn another_persons_words_under_ones_own_key_are_nobodys() {
    let mut world = World::new();
    let act = world.act();
    let id = world.book.request("alice", act);
    let statement = crate::support::sign(&world.book.approval_event("carol", id), "carol");
    world.book.approve("bob", id).unwrap();
    let mut stolen = statement;
    let kind = stolen.kind.namespace();
    stolen.signature =
        countersign_protocol::sshsig::sign(&crate::support::key("bob"), kind, &stolen.payload)
            .to_blob();
    let seq = world.book.force(stolen);
    let approvals = vec![seq - 1, seq];
    world.force_authorized(id, approvals, 2);
    assert!(matches!(world.unproven(id), Unproven::Entry { .. }));
}

#[test]
fn a_line_of_another_host_or_key_is_not_this_hosts() {
    let mut world = World::new();
    world.book.enrol("web-2");
    let act = world.book.act(&["web-1", "web-2"], &Book::spec(&["true"]));
    let id = world.approved(act);
    assert!(world.runs(id));
    let other = crate::support::grant(&world.book, id, "web-2");
    assert_eq!(world.admit(&other).unwrap_err(), Unproven::NotATarget);
    let mut moved = world.grant(id);
    moved.line_index = other.line_index;
    assert_eq!(world.admit(&moved).unwrap_err(), Unproven::NotATarget);
    let mut invented = world.grant(id);
    let text = String::from_utf8(other.line.0).unwrap();
    invented.line = Base64(text.replace("web-2", "web-1").into_bytes());
    assert_eq!(world.admit(&invented).unwrap_err(), Unproven::NotATarget);
    world.host.pins.key_id = public("web-9").key_id();
    assert_eq!(world.unproven(id), Unproven::NotATarget);
}

#[test]
fn a_command_for_other_hosts_only_is_not_this_hosts() {
    let mut world = World::new();
    world.book.enrol("web-2");
    let act = world.book.act(&["web-2"], &Book::spec(&["true"]));
    let id = world.approved(act);
    let theirs = crate::support::grant(&world.book, id, "web-2");
    assert_eq!(world.admit(&theirs).unwrap_err(), Unproven::NotATarget);
}

#[test]
fn what_was_cancelled_or_rejected_does_not_run() {
    let mut world = World::new();
    let id = world.approved_true();
    let event = say!(person world.book, "alice", CommandCancelRequested {
        command: id, token: None, reason: None,
    });
    world.book.sign_and_append("alice", &event).unwrap();
    assert_eq!(world.unproven(id), Unproven::NotAuthorized("cancelled"));

    let mut world = World::new();
    let act = world.act();
    let id = world.book.request("alice", act);
    let event =
        say!(person world.book, "bob", CommandRejected { command: id, vote: false, reason: None });
    world.book.sign_and_append("bob", &event).unwrap();
    assert_eq!(world.unproven(id), Unproven::NotAuthorized("rejected"));
}

#[test]
fn a_cancel_counts_from_pinned_people_only() {
    let mut world = World::new();
    let act = world.act();
    let id = world.book.request("dave", act);
    world.book.approve("bob", id).unwrap();
    world.book.approve("carol", id).unwrap();
    let event = say!(person world.book, "dave", CommandCancelRequested {
        command: id, token: None, reason: None,
    });
    world.book.sign_and_append("dave", &event).unwrap();
    let (stream, checkpoint) = (world.grant(id).stream, world.book.checkpoint());
    let now = Time::from_micros(world.now).unwrap();
    assert_eq!(world.host.cancelled(&stream, &checkpoint, now), Ok(None));
    world.host.signers = signers(&["bob", "dave"]);
    assert_eq!(
        world.host.cancelled(&stream, &checkpoint, now),
        Ok(Some(id))
    );
}
