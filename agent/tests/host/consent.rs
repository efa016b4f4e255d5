//! What the ledger's policy asked, counted again by the host: groups, ages, reasons, tokens, and runs
//! without approvals. The stricter of host and policy wins. ATTACKS rows 8, 10, 15, 26.

use countersign_agent::admission::{Unproven, Verdict};
use countersign_agent::signers::AllowedSigners;
use countersign_protocol::command::Act;
use countersign_protocol::event::*;
use countersign_protocol::fold::Refusal;
use countersign_protocol::hash::StatementId;
use countersign_protocol::name::{Principal, SECOND_US, Time};
use countersign_protocol::permission::{Permission, Whom};
use countersign_protocol::quorum::{BreakGlass, Demand, Requirement, Seats};
use countersign_protocol::rights::ChangeBody;

use crate::support::{World, public, sign, signers};

fn whom(text: &str) -> Whom {
    text.parse().unwrap()
}

fn named(names: &[&str]) -> Vec<Principal> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

fn group(world: &mut World, name: &str, members: &[&str]) {
    world.book.change(ChangeBody::GroupChanged {
        group: name.parse().unwrap(),
        add: named(members),
        remove: vec![],
    });
}

/// Alice's request under this policy, approved by these.
fn approved_by(world: &mut World, policy: &str, approvers: &[&str]) -> StatementId {
    world.book.publish_text(policy);
    let act = world.act();
    let id = world.book.request("alice", act);
    for who in approvers {
        world.book.approve(who, id).unwrap();
    }
    assert_eq!(world.book.command(id).status().as_str(), "authorized");
    id
}

/// A thief's authorization of alice's request that bob and carol approved.
fn forged(
    requirement: Requirement,
    people: impl Fn(&Whom) -> Vec<Principal>,
) -> (World, StatementId) {
    let mut world = World::new();
    let act = world.act();
    let id = world.force_request("alice", "alice", act.clone());
    let approve =
        |world: &mut World, who| world.force_approval((who, who), id, ("alice", &act), |_| {});
    let approvals = vec![approve(&mut world, "bob"), approve(&mut world, "carol")];
    world.force_requirement(id, approvals, requirement, people);
    (world, id)
}

#[test]
fn seats_of_two_groups_are_counted_again_among_pinned_people() {
    let mut world = World::new();
    group(&mut world, "sre", &["bob", "dave"]);
    group(&mut world, "security", &["carol", "dave"]);
    let policy = "1 alice group:sre also=1:group:security";
    let id = approved_by(&mut world, policy, &["bob", "carol"]);
    assert!(world.runs(id));
    // Dave sits for security in the ledger, and this host does not know him.
    let other = approved_by(&mut world, policy, &["bob", "dave"]);
    world.host.rules.min_approvals = 1;
    let refusal = world.refused(other);
    assert_eq!(refusal.why, RefusalReason::Approvals);
    assert!(refusal.detail.starts_with("1 of 2"), "{}", refusal.detail);
    world.host.signers = signers(&["bob", "dave"]);
    assert!(world.runs(other));
}

#[test]
fn the_ledgers_word_on_groups_seats_nobody_who_did_not_approve() {
    let two = || Requirement::of(2, vec![whom("group:sre")]);
    let (world, id) = forged(two(), |_| named(&["bob", "carol", "dave"]));
    assert!(world.runs(id));
    // It says that only dave is one of them, or nobody.
    for members in [named(&["dave"]), named(&["bob", "dave"]), vec![]] {
        let (world, id) = forged(two(), |_| members.clone());
        let unproven = world.unproven(id);
        let quorum = matches!(
            &unproven,
            Unproven::Life {
                source: Refusal::Quorum,
                ..
            }
        );
        assert!(quorum, "{unproven:?}");
    }
}

#[test]
fn every_demand_of_the_policy_is_met_here_too() {
    let mut requirement = Requirement::of(1, vec![whom("group:sre")]);
    requirement.demands.push(Demand(vec![Seats {
        approvals: 1,
        from: vec![whom("group:two")],
    }]));
    let people = |whom: &Whom| match whom.to_string().as_str() {
        "group:sre" => named(&["bob"]),
        _two => named(&["carol"]),
    };
    let (mut world, id) = forged(requirement, people);
    assert!(world.runs(id));
    world.host.rules.min_approvals = 1;
    world.host.signers = signers(&["alice", "bob"]);
    assert_eq!(world.refused(id).why, RefusalReason::Approvals);
}

#[test]
fn a_requirement_that_demands_nothing_is_not_believed() {
    let one = || Requirement::of(1, vec![whom("user:bob")]);
    let (world, id) = forged(one(), |_| named(&["bob"]));
    assert!(world.runs(id));
    let nobody = Requirement {
        demands: vec![],
        ..one()
    };
    let nothing = Requirement {
        demands: vec![Demand(vec![])],
        ..one()
    };
    for none in [nobody, nothing, Requirement::of(0, vec![whom("user:bob")])] {
        let (mut world, id) = forged(none, |_| named(&["bob", "carol"]));
        world.host.rules.min_approvals = 0;
        assert!(matches!(world.unproven(id), Unproven::Entry { .. }));
    }
}

#[test]
fn the_lower_of_the_two_ages_holds() {
    let mut world = World::new();
    let id = approved_by(&mut world, "2 alice bob,carol age=60", &["bob", "carol"]);
    world.now = world.book.now + 60 * SECOND_US;
    let Ok(Verdict::Run(permit)) = world.admit(&world.grant(id)) else {
        panic!("it runs");
    };
    assert!(!permit.is_valid_at(Time::from_micros(world.now).unwrap()));
    assert!(permit.is_valid_at(Time::from_micros(world.now - 1).unwrap()));
    world.now += 1;
    let refusal = world.refused(id);
    assert_eq!(refusal.why, RefusalReason::Time);
    assert_eq!(refusal.rule.unwrap().as_str(), "approval_age_ms");
    world.host.rules.max_approval_age_us = 30 * SECOND_US;
    assert_eq!(
        world.refused(id).rule.unwrap().as_str(),
        "max_approval_age_s"
    );
}

#[test]
fn an_approval_without_the_reason_that_the_policy_wants_does_not_count() {
    let mut requirement = Requirement::of(2, vec![whom("group:sre")]);
    requirement.reason = true;
    let (world, id) = forged(requirement, |_| named(&["bob", "carol"]));
    let refusal = world.refused(id);
    assert_eq!(refusal.why, RefusalReason::Approvals);
    assert!(refusal.detail.contains("no reason"), "{}", refusal.detail);
}

#[test]
fn what_was_voted_down_does_not_run() {
    let mut world = World::new();
    world
        .book
        .publish_text("2 alice bob,carol,dave rejections=2");
    let act = world.act();
    let id = world.book.request("alice", act);
    for who in ["bob", "dave"] {
        let vote = say!(person world.book, who, CommandRejected {
            command: id, vote: true, reason: None,
        });
        world.book.sign_and_append(who, &vote).unwrap();
    }
    assert_eq!(world.unproven(id), Unproven::NotAuthorized("rejected"));
}

// Without approvals

/// A ledger whose policy lets alice and dave break the glass.
fn with_glass() -> World {
    let mut world = World::new();
    world
        .book
        .publish_text("2 alice bob,carol\n1 alice,dave - break-glass=3600");
    world
}

fn glass(world: &mut World, who: &str) -> StatementId {
    let mut act = world.act();
    act.break_glass = true;
    let id = world.book.request(who, act);
    assert_eq!(world.book.command(id).status().as_str(), "authorized");
    id
}

fn refused_glass(world: &World, id: StatementId) {
    let refusal = world.refused(id);
    let rule = refusal.rule.as_ref().map(|rule| rule.as_str());
    assert_eq!(
        (refusal.why, rule),
        (RefusalReason::Approvals, Some("break_glass")),
        "{refusal:?}"
    );
}

#[test]
fn a_run_without_approvals_is_for_whom_the_host_lists_and_for_nobody_else() {
    let mut world = with_glass();
    let id = glass(&mut world, "alice");
    refused_glass(&world, id);
    world.host.rules.break_glass = named(&["bob", "dave"]);
    refused_glass(&world, id);
    world.host.rules.break_glass = named(&["alice"]);
    assert!(world.runs(id));
    // Whatever number of people the host or a rule wants besides.
    world.host.rules.min_approvals = 5;
    assert!(world.runs(id));
    // And all that the rules say of the command itself holds.
    world.host.rules.execution = false;
    assert_eq!(world.refused(id).rule.unwrap().as_str(), "execution");
}

#[test]
fn who_is_listed_and_not_pinned_breaks_nothing() {
    let mut world = with_glass();
    let id = glass(&mut world, "dave");
    world.host.rules.break_glass = named(&["dave"]);
    refused_glass(&world, id);
    world.host.signers = signers(&["alice", "dave"]);
    assert!(world.runs(id));
    // A key for approvals only does not ask.
    let key = public("dave").to_openssh();
    let line = format!("dave namespaces=\"command.approved.v1@countersign\" {key}\n");
    world.host.signers = AllowedSigners::parse(&line).unwrap();
    refused_glass(&world, id);
    let line = format!("dave valid-before=\"20200101Z\" {key}\n");
    world.host.signers = AllowedSigners::parse(&line).unwrap();
    refused_glass(&world, id);
}

#[test]
fn an_old_word_without_approvals_does_not_run() {
    let mut world = with_glass();
    let id = glass(&mut world, "alice");
    world.host.rules.break_glass = named(&["alice"]);
    let asked = world.book.now;
    world.now = asked + 3600 * SECOND_US;
    let Ok(Verdict::Run(permit)) = world.admit(&world.grant(id)) else {
        panic!("it runs");
    };
    assert!(!permit.is_valid_at(Time::from_micros(world.now).unwrap()));
    world.now += 1;
    refused_glass(&world, id);
    world.now = asked;
    world.host.journal_since = Time::from_micros(asked + 1).unwrap();
    refused_glass(&world, id);
}

/// Authorizes alice's request as one without approvals, with the ledger's own key.
fn forge_glass(world: &mut World, id: StatementId) {
    let mut requirement = Requirement::of(1, vec![]);
    requirement.demands = vec![];
    requirement.break_glass = Some(BreakGlass { review_ms: 1 });
    world.force_requirement(id, vec![], requirement, |_| vec![]);
}

#[test]
fn a_thief_of_the_ledgers_key_breaks_no_glass() {
    let unproven = |change: fn(&mut Act), who: &str, key: &str| {
        let mut world = World::new();
        world.host.rules.break_glass = named(&["alice"]);
        let mut act = world.act();
        change(&mut act);
        let id = world.force_request(who, key, act);
        forge_glass(&mut world, id);
        world.unproven(id)
    };
    // An ordinary request of alice's is no word of hers for that.
    let found = unproven(|_| {}, "alice", "alice");
    let binding = matches!(
        &found,
        Unproven::Life {
            source: Refusal::Binding("break_glass"),
            ..
        }
    );
    assert!(binding, "{found:?}");
    // And another's key is not hers.
    let found = unproven(|act| act.break_glass = true, "alice", "mallory");
    assert!(matches!(found, Unproven::Requester(_)), "{found:?}");
}

// API tokens

const TOKEN: &str = "ci-1";

/// A ledger with a token of this principal, for which two of bob, carol and dave must agree.
pub(crate) fn with_token(principal: &str) -> World {
    let mut world = World::new();
    world
        .book
        .publish_text(&format!("2 {principal} bob,carol,dave"));
    let expires_at = Time::from_micros(world.book.now + 24 * 3600 * SECOND_US).unwrap();
    world.book.change(ChangeBody::TokenIssued {
        token: TOKEN.parse().unwrap(),
        principal: principal.parse().unwrap(),
        secret: countersign_protocol::hash::Digest::new([4; 32]),
        roles: vec![],
        permissions: vec![Permission::CommandCancel, Permission::CommandExecute],
        labels: vec![],
        commands: vec![],
        expires_at,
    });
    world
}

pub(crate) fn by_token(world: &mut World, principal: &str, signed_by: &str, act: Act) -> Event {
    let Event::CommandRequested(mut request) = world.book.request_event(principal, act) else {
        panic!("no request");
    };
    request.signer = public(signed_by).key_id();
    request.token = Some(TOKEN.parse().unwrap());
    Event::from(request)
}

#[test]
fn who_asks_by_a_token_is_nobody_whom_the_host_knows_and_needs_approvals_as_anybody() {
    // Also where the token speaks for somebody who is pinned.
    for principal in ["ci@example.com", "alice"] {
        let mut world = with_token(principal);
        let act = world.act();
        let request = by_token(&mut world, principal, "gateway", act);
        let id = world.book.sign_and_append("gateway", &request).unwrap();
        world.book.approve("bob", id).unwrap();
        world.book.approve("carol", id).unwrap();
        assert!(world.runs(id), "{principal}");
        // Without a gateway in the pinned genesis nobody speaks for tokens.
        world.host.pins.gateway_key = None;
        assert!(
            matches!(world.unproven(id), Unproven::Requester(_)),
            "{principal}"
        );
    }
}

#[test]
fn nobody_but_the_gateway_speaks_for_a_token_and_it_speaks_for_nobody_else() {
    for (signed_by, token) in [("alice", true), ("mallory", true), ("gateway", false)] {
        let mut world = with_token("alice");
        let act = world.act();
        let Event::CommandRequested(mut request) = by_token(&mut world, "alice", signed_by, act)
        else {
            panic!("no request");
        };
        if !token {
            request.token = None;
        }
        let request = Event::from(request);
        let id = sign(&request, signed_by).id();
        world.book.force_event(signed_by, &request);
        world.force_authorized(id, vec![], 1);
        let found = world.unproven(id);
        assert!(
            matches!(found, Unproven::Requester(_)),
            "{signed_by}: {found:?}"
        );
    }
}

#[test]
fn a_token_breaks_no_glass_and_the_gateways_key_approves_nothing() {
    let mut world = with_token("alice");
    world.host.rules.break_glass = named(&["alice"]);
    let mut act = world.act();
    act.break_glass = true;
    let request = by_token(&mut world, "alice", "gateway", act);
    let id = sign(&request, "gateway").id();
    world.book.force_event("gateway", &request);
    forge_glass(&mut world, id);
    refused_glass(&world, id);

    // Somebody wrote its key into allowed_signers as a person's.
    let mut world = World::new();
    let key = |who: &str, name: &str| format!("{who} {}\n", public(name).to_openssh());
    let text = [key("bob", "bob"), key("eve", "gateway")].concat();
    world.host.signers = AllowedSigners::parse(&text).unwrap();
    let act = world.act();
    let id = world.force_request("alice", "alice", act.clone());
    let honest = world.force_approval(("bob", "bob"), id, ("alice", &act), |_| {});
    let borrowed = world.force_approval(("eve", "gateway"), id, ("alice", &act), |_| {});
    world.force_authorized(id, vec![honest, borrowed], 2);
    let refusal = world.refused(id);
    assert_eq!(refusal.why, RefusalReason::Approvals);
    assert!(refusal.detail.contains("gateway"), "{}", refusal.detail);
}

#[test]
fn the_gateway_stops_a_run_only_where_the_host_says_so() {
    let mut world = with_token("alice");
    let act = world.act();
    let request = by_token(&mut world, "alice", "gateway", act);
    let id = world.book.sign_and_append("gateway", &request).unwrap();
    world.book.approve("bob", id).unwrap();
    world.book.approve("carol", id).unwrap();
    let cancel = |world: &mut World, signed_by: &str| {
        let Event::CommandCancelRequested(mut cancel) = say!(person world.book, "alice", CommandCancelRequested {
            command: id, token: Some(TOKEN.parse().unwrap()), reason: None,
        }) else {
            panic!("no cancel");
        };
        cancel.signer = public(signed_by).key_id();
        world.book.force_event(signed_by, &Event::from(cancel));
    };
    let heard = |world: &World| {
        let (stream, checkpoint) = (world.grant(id).stream, world.book.checkpoint());
        let now = Time::from_micros(world.now).unwrap();
        world.host.cancelled(&stream, &checkpoint, now).unwrap()
    };
    // Alice's own key does not speak for the token.
    cancel(&mut world, "alice");
    world.host.rules.gateway_may_cancel = true;
    assert_eq!(heard(&world), None);
    cancel(&mut world, "gateway");
    assert_eq!(heard(&world), Some(id));
    world.host.rules.gateway_may_cancel = false;
    assert_eq!(heard(&world), None);
}
