//! The golden ledger's administrators at work: keys, roles, groups, tokens, hosts.

use countersign_protocol::event::*;
use countersign_protocol::hash::{Digest, StatementId};
use countersign_protocol::name::{SECOND_US, Time};
use countersign_protocol::permission::Permission;
use countersign_protocol::rights::ChangeBody;
use countersign_protocol::snapshot::Snapshot;
use sha2::{Digest as _, Sha256};

use super::story::{HOSTS, act, claim_of_the_security_key, security_key, tick};
use crate::say;
use crate::support::{Book, public};

/// The policy of the story, in the words of its test judge. Alice and the token ask for two others;
/// bob too, and it takes two noes to stop him; carol may break the glass.
const POLICY: &str = "\
2 alice,ci@example.com permission:command:approve
2 bob permission:command:approve rejections=2
1 carol permission:command:approve break-glass=3600
";

/// The API token of the story.
const TOKEN: &str = "ci-1";

/// For whom it asks.
const MACHINE: &str = "ci@example.com";

/// Domain separation of the digest by which the ledger knows a token's secret.
const TOKEN_PREFIX: &[u8] = b"countersign/token/v1\n";

/// A policy, three agents, a security key, a key that comes and goes, a change that is refused.
pub(super) fn rights(book: &mut Book) {
    book.publish_text(POLICY);
    for host in HOSTS {
        tick(book);
        book.enrol(host);
    }
    let body = ChangeBody::KeyAdded {
        principal: "carol".parse().unwrap(),
        key: security_key(),
        claim: KeyClaim::of(&claim_of_the_security_key(book)),
        expires_at: None,
    };
    book.change(body);
    tick(book);
    let end = Time::from_micros(book.now + 365 * 24 * 3600 * SECOND_US).unwrap();
    let mut second = book.key_of("bob", "bob-2");
    if let ChangeBody::KeyAdded { expires_at, .. } = &mut second {
        *expires_at = Some(end);
    }
    book.change(second);
    book.change(ChangeBody::KeyRevoked {
        key_id: public("bob-2").key_id(),
        suspect_from: Some(12),
    });
    let refused = book.key_of("mallory", "mallory");
    let change = book.ask_change("alice", refused).unwrap();
    let reason = Some(book.blob("Nobody knows “mallory”.".as_bytes()));
    let rejected = say!(person book, "carol", ChangeRejected { change: change, reason: reason });
    book.sign_and_append("carol", &rejected).unwrap();
    book.now += 60 * SECOND_US;
    let heartbeat = book.ledger_header().heartbeat();
    book.sign_and_append("ledger", &heartbeat).unwrap();
    people(book);
    hosts(book);
}

/// A role, a group that has it, and a person who joins and leaves it again.
fn people(book: &mut Book) {
    tick(book);
    book.change(book.key_of("dave", "dave"));
    let role = || "on-call".parse().unwrap();
    let group = || "sre".parse().unwrap();
    book.change(ChangeBody::RoleDefined {
        role: role(),
        permissions: vec![Permission::CommandCancel, Permission::OutputRead],
    });
    book.change(ChangeBody::GroupChanged {
        group: group(),
        add: vec!["bob".parse().unwrap(), "dave".parse().unwrap()],
        remove: Vec::new(),
    });
    book.change(ChangeBody::RoleGranted {
        role: role(),
        to: "group:sre".parse().unwrap(),
    });
    tick(book);
    book.change(ChangeBody::GroupChanged {
        group: group(),
        add: vec!["carol".parse().unwrap()],
        remove: vec!["dave".parse().unwrap()],
    });
    book.change(ChangeBody::RoleRevoked {
        role: role(),
        from: "group:sre".parse().unwrap(),
    });
}

/// One host is turned away; another is accepted with labels, drained for a while, and retired.
fn hosts(book: &mut Book) {
    tick(book);
    let (stranger, agent) = ("web-9", || "web-4".parse().unwrap());
    let enrolled =
        say!(agent book, stranger, AgentEnrolled { key: public(stranger), sealing_key: None });
    book.sign_and_append(stranger, &enrolled).unwrap();
    book.change(ChangeBody::AgentRejected {
        agent: stranger.parse().unwrap(),
        key_id: public(stranger).key_id(),
    });
    let enrolled =
        say!(agent book, "web-4", AgentEnrolled { key: public("web-4"), sealing_key: None });
    book.sign_and_append("web-4", &enrolled).unwrap();
    let labels = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    for body in [
        ChangeBody::AgentAccepted {
            agent: agent(),
            key: public("web-4"),
            replaces: None,
            labels: labels(&["env=prod", "group=web.dev"]),
        },
        ChangeBody::AgentRelabelled {
            agent: agent(),
            labels: labels(&["env=test"]),
        },
        ChangeBody::AgentDrained { agent: agent() },
        ChangeBody::AgentUndrained { agent: agent() },
        ChangeBody::AgentRetired { agent: agent() },
    ] {
        tick(book);
        book.change(body);
    }
}

/// A token asks, the gateway signs for it; its owner takes the request back and then the token.
pub(super) fn a_token_asks(book: &mut Book) {
    tick(book);
    let secret = Sha256::new()
        .chain_update(TOKEN_PREFIX)
        .chain_update([0x17; 32]);
    book.change(ChangeBody::TokenIssued {
        token: TOKEN.parse().unwrap(),
        principal: MACHINE.parse().unwrap(),
        secret: Digest::new(secret.finalize().into()),
        roles: vec!["read".parse().unwrap()],
        permissions: vec![Permission::CommandExecute],
        labels: Vec::new(),
        commands: vec!["/usr/bin/systemctl".parse().unwrap()],
        expires_at: Time::from_micros(book.now + 90 * 24 * 3600 * SECOND_US).unwrap(),
    });
    tick(book);
    let act = act(book, &["web-2"], false);
    let reason = book.blob("the pipeline wants it".as_bytes());
    let (signer, nonce, made_at, ledger, seen) = book.header("gateway");
    let request = Event::from(CommandRequested {
        signer,
        principal: MACHINE.parse().unwrap(),
        nonce,
        made_at,
        ledger,
        seen,
        client_ref: None,
        token: Some(TOKEN.parse().unwrap()),
        retry: None,
        act,
        reason,
    });
    let command = book.sign_and_append("gateway", &request).unwrap();
    tick(book);
    let (signer, nonce, made_at, ledger, seen) = book.header("gateway");
    let withdrawn = Event::from(CommandWithdrawn {
        signer,
        principal: MACHINE.parse().unwrap(),
        nonce,
        made_at,
        ledger,
        seen,
        command,
        token: Some(TOKEN.parse().unwrap()),
        reason: None,
    });
    book.sign_and_append("gateway", &withdrawn).unwrap();
    book.change(ChangeBody::TokenRevoked {
        token: TOKEN.parse().unwrap(),
    });
}

/// Bob asks, and two say no.
pub(super) fn a_command_is_voted_down(book: &mut Book) -> StatementId {
    let command = request_by(book, "bob", "web-3", false);
    for who in ["alice", "carol"] {
        tick(book);
        let reason = Some(book.blob(b"the backup runs"));
        let vote = say!(person book, who, CommandRejected {
            command: command, vote: true, reason: reason,
        });
        book.sign_and_append(who, &vote).unwrap();
    }
    assert_eq!(book.command(command).status().as_str(), "rejected");
    command
}

/// A hold keeps the texts of a command; once it is lifted, two erase why it was asked for.
pub(super) fn a_text_is_erased(book: &mut Book, command: StatementId) {
    tick(book);
    let hold = || "case-7".parse().unwrap();
    book.change(ChangeBody::HoldPlaced {
        hold: hold(),
        commands: vec![command],
        agent: Some("web-2".parse().unwrap()),
        requester: Some("carol".parse().unwrap()),
    });
    tick(book);
    book.change(ChangeBody::HoldLifted { hold: hold() });
    tick(book);
    let reason = book.command(command).request.reason.digest;
    book.change(ChangeBody::BlobRedacted {
        command,
        digests: vec![reason],
        legal_basis: "gdpr-17".parse().unwrap(),
    });
    book.blobs.remove(&reason);
}

/// Carol runs a command on her own word, and alice looks at it afterwards.
pub(super) fn glass_is_broken(book: &mut Book) -> StatementId {
    let command = request_by(book, "carol", "web-2", true);
    assert_eq!(book.command(command).status().as_str(), "authorized");
    tick(book);
    book.start("web-2", command).unwrap();
    book.complete("web-2", command, 0).unwrap();
    tick(book);
    let reason = book.blob(b"the name server was down indeed");
    let closed = say!(person book, "alice", ReviewClosed { command: command, reason: reason });
    book.sign_and_append("alice", &closed).unwrap();
    command
}

/// Alice says who may approve, for the hosts; bob says the same.
pub(super) fn a_snapshot_for_the_hosts(book: &mut Book) {
    tick(book);
    let size = book.tree.size();
    let root = book.tree.root_at(size).unwrap();
    let electors = ["user:dave".parse().unwrap()];
    let seen = Seen { size, root };
    let snapshot = Snapshot::of(book.state.rights(), seen, &electors, 2).unwrap();
    let document = book.blob(&snapshot.to_document().unwrap());
    let expires_at = Time::from_micros(book.now + 12 * 3600 * SECOND_US).unwrap();
    for who in ["alice", "bob"] {
        tick(book);
        let word = say!(person book, who, PolicySnapshot {
            document: document, expires_at: expires_at,
        });
        book.sign_and_append(who, &word).unwrap();
    }
}

fn request_by(book: &mut Book, who: &str, host: &str, break_glass: bool) -> StatementId {
    tick(book);
    let mut act = act(book, &[host], false);
    act.break_glass = break_glass;
    let reason = book.blob(b"the name server answers no more");
    let event = say!(person book, who, CommandRequested {
        client_ref: None, token: None, retry: None, act: act, reason: reason,
    });
    book.sign_and_append(who, &event).unwrap()
}
