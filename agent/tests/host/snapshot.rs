//! The policy snapshot: a host that pins administrators takes approvers, groups and the least number
//! of people from them and not from the ledger, for a day at most; and it takes no old log for
//! today's. ATTACKS rows 8, 10, 11, 15.

use std::fs;
use std::sync::Arc;

use countersign_agent::admission::{Unproven, Verdict};
use countersign_agent::rules::LocalRefusal;
use countersign_agent::snapshot::{FILE, MemoryError, SnapshotRule, Snapshots};
use countersign_protocol::api::{Base64, BlobBody, Grant, SnapshotBody, Submission};
use countersign_protocol::blob::Blob;
use countersign_protocol::event::*;
use countersign_protocol::hash::{LedgerId, StatementId};
use countersign_protocol::name::{Principal, SECOND_US, Time};
use countersign_protocol::permission::Whom;
use countersign_protocol::quorum::Requirement;
use countersign_protocol::rights::ChangeBody;
use countersign_protocol::snapshot::Snapshot;

use crate::config::{Files, least};
use crate::support::{Book, World, newest, public, sign, signers, stream};

const HOUR_US: u64 = 3600 * SECOND_US;

fn at(us: u64) -> Time {
    Time::from_micros(us).unwrap()
}

fn named(names: &[&str]) -> Vec<Principal> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

/// A host that takes the snapshots of two of alice, bob and carol, each with the key of the same
/// name, and pins `pinned` as approvers itself.
fn asking(pinned: &[&str]) -> World {
    let mut world = World::new();
    world.host.signers = signers(pinned);
    world.host.snapshot = Some(SnapshotRule {
        administrators: signers(&["alice", "bob", "carol"]),
        threshold: 2,
        max_age_us: 24 * HOUR_US,
    });
    world
}

/// What the ledger's rights are now.
pub(crate) fn of_book(book: &Book) -> Snapshot {
    let size = book.tree.size();
    let root = book.tree.root_at(size).unwrap();
    let seen = Seen { size, root };
    Snapshot::of(book.state.rights(), seen, &[], 2).unwrap()
}

fn made(world: &World) -> Snapshot {
    of_book(&world.book)
}

/// The same, signed by these, for an hour.
fn signed(world: &mut World, by: &[&str]) -> SnapshotBody {
    let snapshot = made(world);
    let by: Vec<(&str, &str)> = by.iter().map(|name| (*name, *name)).collect();
    signed_as(world, &snapshot, &by, |_| {})
}

fn signed_as(
    world: &mut World,
    snapshot: &Snapshot,
    by: &[(&str, &str)],
    change: impl Fn(&mut PolicySnapshot),
) -> SnapshotBody {
    signed_in(&mut world.book, snapshot, by, change)
}

/// A document signed by people, each with a key of that name, for an hour.
pub(crate) fn signed_in(
    book: &mut Book,
    snapshot: &Snapshot,
    by: &[(&str, &str)],
    change: impl Fn(&mut PolicySnapshot),
) -> SnapshotBody {
    let document = Blob::new([7; 32], snapshot.to_document().unwrap()).unwrap();
    let statements = by.iter().map(|(who, key)| {
        let event = say!(person book, who, PolicySnapshot {
            document: document.reference(),
            expires_at: at(book.now + HOUR_US),
        });
        let Event::PolicySnapshot(mut word) = event else {
            panic!("no snapshot");
        };
        word.signer = public(key).key_id();
        change(&mut word);
        Submission::new(&sign(&Event::from(word), key), [])
    });
    let statements = statements.collect();
    SnapshotBody {
        document: BlobBody::from(&document),
        statements,
    }
}

fn with(world: &World, id: StatementId, snapshot: Option<&SnapshotBody>) -> Grant {
    Grant {
        snapshot: snapshot.cloned(),
        ..world.grant(id)
    }
}

fn runs(world: &World, id: StatementId, snapshot: Option<&SnapshotBody>) -> bool {
    let grant = with(world, id, snapshot);
    matches!(world.admit(&grant), Ok(Verdict::Run(_)))
}

fn refused(world: &World, id: StatementId, snapshot: Option<&SnapshotBody>) -> LocalRefusal {
    match world.admit(&with(world, id, snapshot)) {
        Ok(Verdict::Refuse { refusal, .. }) => refusal,
        other => panic!("not refused by the host: {other:?}"),
    }
}

/// Refused for want of a snapshot, with these words.
fn has_none(refusal: &LocalRefusal, why: RefusalReason, words: &str) {
    assert_eq!(refusal.why, why, "{}", refusal.detail);
    assert_eq!(refusal.rule.as_ref().unwrap().as_str(), "snapshot");
    assert!(refusal.detail.contains(words), "{}", refusal.detail);
    assert!(refusal.detail.contains("countersign policy snapshot"));
}

const APPROVALS: RefusalReason = RefusalReason::Approvals;
const TIME: RefusalReason = RefusalReason::Time;

// Whose word it is

#[test]
fn a_host_that_asks_for_a_snapshot_runs_nothing_without_one() {
    let mut world = asking(&["alice", "bob", "carol"]);
    let id = world.approved_true();
    has_none(&refused(&world, id, None), APPROVALS, "never shown");
    let body = signed(&mut world, &["alice", "bob"]);
    assert!(runs(&world, id, Some(&body)));
    // From here on it has one.
    assert!(runs(&world, id, None));
}

#[test]
fn a_snapshot_takes_distinct_pinned_administrators() {
    let mut world = asking(&["alice", "bob", "carol"]);
    let id = world.approved_true();
    let snapshot = made(&world);
    let few: [&[(&str, &str)]; 6] = [
        &[],
        &[("alice", "alice")],
        &[("alice", "alice"), ("alice", "alice")],
        &[("alice", "alice"), ("dave", "dave")],
        &[("alice", "alice"), ("bob", "mallory")],
        &[("alice", "alice"), ("dave", "alice")],
    ];
    for by in few {
        let body = signed_as(&mut world, &snapshot, by, |_| {});
        let refusal = refused(&world, id, Some(&body));
        has_none(&refusal, APPROVALS, " of 2 pinned administrators");
    }
    // Not the word that was signed.
    let mut body = signed(&mut world, &["alice", "bob"]);
    body.statements[1].signature = body.statements[0].signature.clone();
    has_none(&refused(&world, id, Some(&body)), APPROVALS, "1 of 2");
    // A word of another kind.
    let mut body = signed(&mut world, &["alice", "bob"]);
    let other = say!(person world.book, "bob", ReviewClosed {
        command: id, reason: Blob::new([7; 32], vec![]).unwrap().reference(),
    });
    body.statements[1] = Submission::new(&sign(&other, "bob"), []);
    has_none(&refused(&world, id, Some(&body)), APPROVALS, "1 of 2");
    let body = signed(&mut world, &["carol", "bob"]);
    assert!(runs(&world, id, Some(&body)));
}

#[test]
fn a_snapshot_is_for_this_ledger_and_has_not_been_touched() {
    let mut world = asking(&["alice", "bob", "carol"]);
    let id = world.approved_true();
    let by = [("alice", "alice"), ("bob", "bob")];
    let elsewhere = LedgerId::new([9; 32]);
    let mut snapshot = made(&world);
    snapshot.ledger = elsewhere;
    let body = signed_as(&mut world, &snapshot, &by, |_| {});
    has_none(
        &refused(&world, id, Some(&body)),
        APPROVALS,
        "another ledger",
    );
    // This ledger's document, signed for another one.
    let snapshot = made(&world);
    let body = signed_as(&mut world, &snapshot, &by, |word| word.ledger = elsewhere);
    has_none(&refused(&world, id, Some(&body)), APPROVALS, "0 of 2");
    let mut body = signed(&mut world, &["alice", "bob"]);
    body.document.salt.0[0] ^= 1;
    has_none(
        &refused(&world, id, Some(&body)),
        APPROVALS,
        "signed for another",
    );
    let mut body = signed(&mut world, &["alice", "bob"]);
    let mut other = made(&world);
    other.min_approvals = 1;
    body.document.content = Base64(other.to_document().unwrap());
    has_none(
        &refused(&world, id, Some(&body)),
        APPROVALS,
        "signed for another",
    );
    let mut body = signed(&mut world, &["alice", "bob"]);
    body.document.content.0.push(b' ');
    has_none(&refused(&world, id, Some(&body)), APPROVALS, "not usable");
}

#[test]
fn a_snapshot_is_over_by_the_hosts_own_clock() {
    let mut world = asking(&["alice", "bob", "carol"]);
    world.host.rules.max_approval_age_us = 2 * HOUR_US;
    let id = world.approved_true();
    let body = signed(&mut world, &["alice", "bob"]);
    world.now = world.book.now + HOUR_US - 1;
    let Ok(Verdict::Run(permit)) = world.admit(&with(&world, id, Some(&body))) else {
        panic!("it runs");
    };
    // And nothing starts by it afterwards.
    assert!(permit.is_valid_at(at(world.now)));
    assert!(!permit.is_valid_at(at(world.now + 1)));
    world.now += 1;
    has_none(&refused(&world, id, Some(&body)), TIME, "time is over");
    has_none(&refused(&world, id, None), TIME, "time is over");
    // The host's own limit.
    world.host.snapshot.as_mut().unwrap().max_age_us = HOUR_US / 2;
    world.now = world.book.now + HOUR_US / 2;
    assert!(runs(&world, id, Some(&body)));
    world.now += 1;
    has_none(&refused(&world, id, Some(&body)), TIME, "max_age_s");
}

#[test]
fn a_snapshot_from_the_future_does_not_outlive_its_day() {
    let mut world = asking(&["alice", "bob", "carol"]);
    let id = world.approved_true();
    let snapshot = made(&world);
    let by = [("alice", "alice"), ("bob", "bob")];
    let ahead = world.book.now + 2 * HOUR_US;
    let body = signed_as(&mut world, &snapshot, &by, |word| {
        word.made_at = at(ahead);
        word.expires_at = at(ahead + 24 * HOUR_US);
    });
    has_none(&refused(&world, id, Some(&body)), TIME, "future");
}

#[test]
fn a_newer_snapshot_that_is_withheld_is_missed_for_as_long_as_the_older_one_holds() {
    let mut world = asking(&["alice"]);
    let older = signed(&mut world, &["alice", "bob"]);
    let id = world.approved_true();
    // Bob's key is revoked and a snapshot says so; the server shows neither.
    assert!(runs(&world, id, Some(&older)));
    world.now = world.book.now + HOUR_US;
    has_none(&refused(&world, id, Some(&older)), TIME, "time is over");
}

// Who counts

#[test]
fn approvers_come_from_the_snapshot() {
    let mut world = asking(&["alice"]);
    let id = world.approved_true();
    let body = signed(&mut world, &["alice", "carol"]);
    assert!(runs(&world, id, Some(&body)));
    // Carol is in it no more, nor her key.
    let mut without = made(&world);
    without
        .approvers
        .retain(|approver| approver.principal.as_str() != "carol");
    for membership in &mut without.members {
        membership.people.retain(|who| who.as_str() != "carol");
    }
    without
        .members
        .retain(|membership| !membership.people.is_empty());
    without.seen.size += 1;
    let by = [("alice", "alice"), ("carol", "carol")];
    let body = signed_as(&mut world, &without, &by, |_| {});
    let refusal = refused(&world, id, Some(&body));
    assert_eq!(refusal.why, APPROVALS);
    assert!(refusal.detail.contains("carol"), "{}", refusal.detail);
    // Pinned here, she counts all the same: for a rule that names her.
    world.host.signers = signers(&["alice", "carol"]);
    assert!(runs(&world, id, None));
}

#[test]
fn a_key_of_the_snapshot_counts_until_its_time_is_over() {
    let mut world = asking(&["alice"]);
    let id = world.approved_true();
    let mut snapshot = made(&world);
    let end = at(world.now + 10 * SECOND_US);
    for approver in &mut snapshot.approvers {
        approver.keys[0].expires_at = Some(end);
    }
    let by = [("alice", "alice"), ("bob", "bob")];
    let body = signed_as(&mut world, &snapshot, &by, |_| {});
    assert!(runs(&world, id, Some(&body)));
    world.now += 10 * SECOND_US;
    assert_eq!(refused(&world, id, Some(&body)).why, APPROVALS);
}

#[test]
fn the_snapshot_says_who_is_one_of_whom_and_not_the_ledger() {
    let group = || vec!["group:sre".parse::<Whom>().unwrap()];
    let forged = |members: &[&str]| {
        let mut world = asking(&["alice", "bob", "carol", "dave"]);
        world.book.change(ChangeBody::GroupChanged {
            group: "sre".parse().unwrap(),
            add: named(members),
            remove: vec![],
        });
        let body = signed(&mut world, &["alice", "bob"]);
        let act = world.act();
        let id = world.force_request("alice", "alice", act.clone());
        let approvals = ["bob", "carol"]
            .map(|who| world.force_approval((who, who), id, ("alice", &act), |_| {}))
            .to_vec();
        // A thief of the ledger's key puts both into the group.
        let requirement = Requirement::of(2, group());
        world.force_requirement(id, approvals, requirement, |_| named(&["bob", "carol"]));
        (world, id, body)
    };
    let (world, id, body) = forged(&["bob", "carol"]);
    assert!(runs(&world, id, Some(&body)));
    let (mut world, id, body) = forged(&["bob", "dave"]);
    assert_eq!(refused(&world, id, Some(&body)).why, APPROVALS);
    world.host.snapshot = None;
    assert!(runs(&world, id, None));
}

#[test]
fn the_larger_number_of_people_counts() {
    let mut world = asking(&["alice", "bob", "carol"]);
    let id = world.approved_true();
    let mut snapshot = made(&world);
    snapshot.min_approvals = 3;
    let by = [("alice", "alice"), ("bob", "bob")];
    let body = signed_as(&mut world, &snapshot, &by, |_| {});
    let refusal = refused(&world, id, Some(&body));
    assert_eq!(refusal.why, APPROVALS);
    assert_eq!(refusal.rule.unwrap().as_str(), "snapshot");
    assert!(refusal.detail.starts_with("2 of 3"), "{}", refusal.detail);
    snapshot.min_approvals = 1;
    snapshot.seen.size += 1;
    let body = signed_as(&mut world, &snapshot, &by, |_| {});
    assert!(runs(&world, id, Some(&body)));
    world.host.rules.min_approvals = 3;
    let refusal = refused(&world, id, Some(&body));
    assert_eq!(refusal.rule.unwrap().as_str(), "min_approvals");
}

#[test]
fn whom_the_snapshot_lists_asks_under_no_other_name() {
    let mut world = asking(&["dave"]);
    let body = signed(&mut world, &["alice", "bob"]);
    let act = world.act();
    // Bob's key in mallory's name, and mallory's key in bob's.
    for (who, key) in [("mallory", "bob"), ("bob", "mallory")] {
        let id = world.force_request(who, key, act.clone());
        let approvals = ["alice", "carol"]
            .map(|name| world.force_approval((name, name), id, (who, &act), |_| {}))
            .to_vec();
        world.force_authorized(id, approvals, 2);
        let unproven = world.admit(&with(&world, id, Some(&body)));
        assert!(
            matches!(unproven, Err(Unproven::Requester(_))),
            "{unproven:?}"
        );
    }
}

#[test]
fn an_authorization_by_an_older_policy_than_the_snapshots_is_refused() {
    let mut world = asking(&["alice", "bob", "carol"]);
    let old = world.book.state.rights().policy().unwrap().reference;
    world.book.publish_text("2 alice bob,carol");
    let snapshot = made(&world);
    let by = [("alice", "alice"), ("bob", "bob")];
    let body = signed_as(&mut world, &snapshot, &by, |_| {});
    let honest = world.approved_true();
    assert!(runs(&world, honest, Some(&body)));
    let act = world.act();
    let id = world.force_request("alice", "alice", act.clone());
    let approvals = ["bob", "carol"]
        .map(|who| {
            world.force_approval((who, who), id, ("alice", &act), |approval| {
                approval.policy = old;
            })
        })
        .to_vec();
    world.force_authorized_by(id, approvals, old);
    let refusal = refused(&world, id, Some(&body));
    assert_eq!(refusal.why, APPROVALS);
    assert!(
        refusal.detail.contains("older policy"),
        "{}",
        refusal.detail
    );
}

// Revoked keys

/// Bob's key is revoked in the ledger.
fn revoke_bob(world: &mut World) {
    world.book.change(ChangeBody::KeyRevoked {
        key_id: public("bob").key_id(),
        suspect_from: None,
    });
}

#[test]
fn a_revoked_key_is_never_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Arc::new(Snapshots::open(folder.path()).unwrap());
    let mut world = asking(&["alice", "bob", "carol"]);
    world.host.snapshots = open();
    let older = signed(&mut world, &["alice", "carol"]);
    let id = world.approved_true();
    assert!(runs(&world, id, Some(&older)));
    revoke_bob(&mut world);
    let newer = signed(&mut world, &["alice", "carol"]);
    let no_bob = |world: &World, snapshot: Option<&SnapshotBody>| {
        let refusal = refused(world, id, snapshot);
        assert_eq!(refusal.why, APPROVALS);
        let said = refusal.detail.contains("bob: the key was revoked");
        assert!(said, "{}", refusal.detail);
    };
    no_bob(&world, Some(&newer));
    no_bob(&world, Some(&older));
    // After a restart, with the older one, and with neither.
    world.host.snapshots = open();
    no_bob(&world, Some(&older));
    no_bob(&world, None);
    // Also when the host asks for snapshots no more, or a later one leaves it out.
    let mut left_out = made(&world);
    left_out.revoked.clear();
    left_out.seen.size += 1;
    let by = [("alice", "alice"), ("carol", "carol")];
    let left_out = signed_as(&mut world, &left_out, &by, |_| {});
    no_bob(&world, Some(&left_out));
    world.host.snapshot = None;
    world.host.snapshots = open();
    no_bob(&world, None);
    // Without the file it would count again.
    fs::remove_file(folder.path().join(FILE)).unwrap();
    world.host.snapshots = open();
    assert!(runs(&world, id, None));
}

#[test]
fn an_older_snapshot_takes_no_newer_ones_place() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = asking(&["alice"]);
    world.host.snapshots = Arc::new(Snapshots::open(folder.path()).unwrap());
    let older = signed(&mut world, &["alice", "bob"]);
    let id = world.approved_true();
    let mut newer = made(&world);
    newer.min_approvals = 3;
    let by = [("alice", "alice"), ("bob", "bob")];
    let newer = signed_as(&mut world, &newer, &by, |_| {});
    assert!(runs(&world, id, Some(&older)));
    assert_eq!(refused(&world, id, Some(&newer)).why, APPROVALS);
    assert_eq!(refused(&world, id, Some(&older)).why, APPROVALS);
    world.host.snapshots = Arc::new(Snapshots::open(folder.path()).unwrap());
    assert_eq!(refused(&world, id, Some(&older)).why, APPROVALS);
}

#[test]
fn whom_the_kept_snapshot_lists_may_cancel_when_its_time_is_over_and_a_revoked_key_may_not() {
    let mut world = asking(&["alice"]);
    let id = world.approved_true();
    let older = signed(&mut world, &["alice", "carol"]);
    let event = say!(person world.book, "bob", CommandCancelRequested {
        command: id, token: None, reason: None,
    });
    world.book.sign_and_append("bob", &event).unwrap();
    let cancelled = |world: &World| {
        let (stream, checkpoint) = (stream(&world.book, id), world.book.checkpoint());
        let cancelled = world.host.cancelled(&stream, &checkpoint, at(world.now));
        cancelled.unwrap()
    };
    assert_eq!(cancelled(&world), None, "it was never shown a list");
    let next = world.approved_true();
    assert!(runs(&world, next, Some(&older)));
    assert_eq!(cancelled(&world), Some(id));
    world.now += 25 * HOUR_US;
    assert_eq!(cancelled(&world), Some(id), "stopping is safe");
    revoke_bob(&mut world);
    let newer = signed(&mut world, &["alice", "carol"]);
    let _shown = world.admit(&with(&world, next, Some(&newer)));
    assert_eq!(cancelled(&world), None);
}

#[test]
fn a_revoked_administrator_signs_for_nobody() {
    let mut world = asking(&["alice", "bob", "carol"]);
    let id = world.approved_true();
    revoke_bob(&mut world);
    // His own document names his key, so it cannot be signed with it.
    let body = signed(&mut world, &["alice", "bob"]);
    has_none(
        &refused(&world, id, Some(&body)),
        APPROVALS,
        "key was revoked",
    );
    let body = signed(&mut world, &["alice", "carol"]);
    drop(refused(&world, id, Some(&body)));
    // Nor can one that leaves it out.
    let mut left_out = made(&world);
    left_out.revoked.clear();
    left_out.min_approvals = 1;
    left_out.seen.size += 1;
    let by = [("alice", "alice"), ("bob", "bob")];
    let body = signed_as(&mut world, &left_out, &by, |_| {});
    world.host.rules.min_approvals = 1;
    let refusal = refused(&world, id, Some(&body));
    assert!(refusal.detail.starts_with("1 of 2"), "{}", refusal.detail);
}

#[test]
fn a_request_by_a_revoked_key_does_not_run() {
    let mut world = asking(&["alice", "bob", "carol", "dave"]);
    let act = world.act();
    let id = world.book.request("bob", act);
    world.book.approve("alice", id).unwrap();
    world.book.approve("carol", id).unwrap();
    let body = signed(&mut world, &["alice", "carol"]);
    assert!(runs(&world, id, Some(&body)));
    revoke_bob(&mut world);
    let body = signed(&mut world, &["alice", "carol"]);
    let refusal = refused(&world, id, Some(&body));
    assert!(
        refusal.detail.contains("key that asked was revoked"),
        "{}",
        refusal.detail
    );
}

#[test]
fn what_is_remembered_is_private_and_a_broken_memory_is_no_start() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().unwrap();
    let mut world = asking(&["alice", "bob", "carol"]);
    world.host.snapshots = Arc::new(Snapshots::open(folder.path()).unwrap());
    let id = world.approved_true();
    let body = signed(&mut world, &["alice", "bob"]);
    assert!(runs(&world, id, Some(&body)));
    let file = folder.path().join(FILE);
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    fs::write(&file, "{").unwrap();
    let broken = Snapshots::open(folder.path());
    assert!(matches!(broken, Err(MemoryError::Malformed(_))));
}

#[test]
fn a_snapshot_that_cannot_be_kept_is_not_gone_by() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    fs::create_dir(&state).unwrap();
    let mut world = asking(&["alice", "bob", "carol"]);
    world.host.snapshots = Arc::new(Snapshots::open(&state).unwrap());
    let older = signed(&mut world, &["alice", "bob"]);
    let id = world.approved_true();
    assert!(runs(&world, id, Some(&older)));
    fs::remove_dir_all(&state).unwrap();
    let body = signed(&mut world, &["alice", "bob"]);
    assert_eq!(refused(&world, id, Some(&body)).why, RefusalReason::Busy);
    fs::create_dir(&state).unwrap();
    assert!(runs(&world, id, Some(&body)));
}

// Today's log

#[test]
fn an_old_log_is_not_taken_for_todays() {
    let mut world = World::new();
    world.host.max_checkpoint_age_us = Some(300 * SECOND_US);
    let id = world.approved_true();
    world.now = world.book.now + 300 * SECOND_US;
    assert!(world.runs(id));
    world.now += 1;
    let refusal = world.refused(id);
    assert_eq!(refusal.why, TIME);
    assert_eq!(refusal.rule.unwrap().as_str(), "max_checkpoint_age_s");
    // The ledger is idle and says that it is there.
    world.book.now = world.now;
    let heartbeat = world.book.ledger_header().heartbeat();
    world.book.sign_and_append("ledger", &heartbeat).unwrap();
    let mut grant = world.grant(id);
    assert!(matches!(world.admit(&grant), Ok(Verdict::Refuse { .. })));
    grant.newest = Some(newest(&world.book));
    assert!(matches!(world.admit(&grant), Ok(Verdict::Run(_))));
    // A heartbeat that is not in this log, and one of an hour to come.
    let mut forged = grant.clone();
    forged.newest.as_mut().unwrap().inclusion.clear();
    let unproven = world.admit(&forged).unwrap_err();
    assert!(
        matches!(unproven, Unproven::NotInLog { .. }),
        "{unproven:?}"
    );
    world.now -= 200 * SECOND_US;
    let Ok(Verdict::Refuse { refusal, .. }) = world.admit(&grant) else {
        panic!("the ledger's clock is not believed");
    };
    assert!(refusal.detail.contains("future"), "{}", refusal.detail);
    // A host that does not ask for it runs the same command.
    world.host.max_checkpoint_age_us = None;
    assert!(world.runs(id));
}

// The settings

/// Files of a host with this `[snapshot]`, alice and bob being administrators.
fn written(table: &str) -> (Files, String) {
    let files = Files::new();
    let folder = files.folder.path();
    fs::copy(
        folder.join("allowed_signers"),
        folder.join("administrators"),
    )
    .unwrap();
    (files, format!("{}\n{table}", least()))
}

#[test]
fn the_table_of_the_manual_is_in_order() {
    let manual = include_str!("../../../docs/AGENT.md");
    let (_, rest) = manual.split_once("<!-- snapshot -->\n```toml\n").unwrap();
    let (table, _) = rest.split_once("```").unwrap();
    let (files, text) = written(table);
    let config = files.load(&text).unwrap();
    let rule = config.snapshot.unwrap();
    assert_eq!((rule.threshold, rule.max_age_us), (2, 12 * HOUR_US));
    assert_eq!(rule.administrators.people(), named(&["alice", "bob"]));
    // Commands do not get at the file either.
    let own = files.folder.path().join("administrators");
    assert!(
        config
            .rules
            .own_files
            .contains(&own.canonicalize().unwrap())
    );
    let (files, text) = written("[snapshot]\nadministrators = \"administrators\"");
    let rule = files.load(&text).unwrap().snapshot.unwrap();
    assert_eq!((rule.threshold, rule.max_age_us), (2, 24 * HOUR_US));
    let (files, text) = written("");
    let given = [
        ("SNAPSHOT_ADMINISTRATORS", "administrators"),
        ("SNAPSHOT_THRESHOLD", "1"),
    ];
    let rule = files.load_with(&text, &given).unwrap().snapshot.unwrap();
    assert_eq!(rule.threshold, 1);
}

#[test]
fn a_table_that_could_never_be_met_or_would_hold_too_long_is_a_mistake() {
    let file = "administrators = \"administrators\"";
    for (table, told) in [
        ("threshold = 1".to_owned(), "no administrators"),
        (format!("{file}\nthreshold = 0"), "between 1 and 32"),
        (format!("{file}\nthreshold = 3"), "names 2"),
        (format!("{file}\nmax_age_s = 86401"), "between 1 and 86400"),
        (format!("{file}\nmax_age = 1"), "unknown field"),
    ] {
        let (files, text) = written(&format!("[snapshot]\n{table}"));
        let (_, problem) = files.mistake(&text);
        assert!(problem.contains(told), "{table}: {problem}");
    }
    let (files, text) = written("");
    let (_, problem) = files.mistake(&format!("max_checkpoint_age_s = 60\n{text}"));
    assert!(problem.contains("between 120"), "{problem}");
    let (files, text) = written("[snapshot]\nadministrators = \"nobody\"");
    assert!(files.load(&text).is_err());
}
