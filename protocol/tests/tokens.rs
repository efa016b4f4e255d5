//! API tokens: the gateway speaks for them and says so, inside of their scope and their time, and
//! they never allow anything. ATTACKS rows 10, 11.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking"
)]

mod support;

use countersign_protocol::command::{CommandSpec, Mode};
use countersign_protocol::event::*;
use countersign_protocol::fold::Refusal;
use countersign_protocol::hash::{Digest, StatementId};
use countersign_protocol::name::{SECOND_US, Time};
use countersign_protocol::permission::Permission;
use countersign_protocol::rights::ChangeBody;
use countersign_protocol::target::TargetLine;
use support::{Book, public};

const TOKEN: &str = "ci-1";
const MACHINE: &str = "ci@example.com";
const DAY_US: u64 = 24 * 3600 * SECOND_US;

/// What a token is issued with.
fn issued(book: &Book) -> TokenIssued {
    let genesis = book.state.rights().genesis().unwrap();
    TokenIssued {
        signer: genesis.signer,
        nonce: genesis.nonce,
        made_at: genesis.made_at,
        ledger: book.state.rights().ledger().unwrap(),
        seen: Seen {
            size: 1,
            root: countersign_protocol::hash::Hash::ZERO,
        },
        change: StatementId::ZERO,
        rests_on: vec![],
        token: TOKEN.parse().unwrap(),
        principal: MACHINE.parse().unwrap(),
        secret: Digest::new([3; 32]),
        roles: vec![],
        permissions: vec![Permission::CommandExecute],
        labels: vec![],
        commands: vec![],
        expires_at: Time::from_micros(book.now + DAY_US).unwrap(),
    }
}

fn body(token: TokenIssued) -> ChangeBody {
    ChangeBody::effected(&Event::from(token)).unwrap().body
}

/// A ledger with a token, changed before it is issued.
fn ready(change: impl FnOnce(&mut TokenIssued)) -> Book {
    let mut book = Book::ready();
    book.publish_text("2 permission:command:execute bob,carol,dave\n1 alice - break-glass=60");
    let mut token = issued(&book);
    change(&mut token);
    book.change(body(token));
    book
}

/// A request in the token's name, signed by `key`.
fn request(book: &mut Book, key: &str, hosts: &[&str]) -> Result<StatementId, Refusal> {
    let act = book.act(hosts);
    asked(book, key, act)
}

fn asked(
    book: &mut Book,
    key: &str,
    act: countersign_protocol::command::Act,
) -> Result<StatementId, Refusal> {
    let reason = book.blob(b"the pipeline");
    let event = say!(person book, MACHINE, CommandRequested {
        client_ref: None, token: Some(TOKEN.parse().unwrap()), retry: None, act: act, reason: reason,
    });
    book.with_key(key, event)
}

#[test]
fn the_gateway_asks_for_a_token_and_people_approve() {
    let mut book = ready(|_| {});
    let command = request(&mut book, "gateway", &["web-1"]).unwrap();
    assert_eq!(book.command(command).requester().as_str(), MACHINE);
    book.approve("bob", command).unwrap();
    assert_eq!(book.status(command), "requested");
    book.approve("carol", command).unwrap();
    assert_eq!(book.status(command), "authorized");
    book.audit().unwrap();
}

#[test]
fn a_persons_key_does_not_speak_for_a_token_and_the_gateway_for_nobody_else() {
    let mut book = ready(|token| token.principal = "alice".parse().unwrap());
    let act = book.act(&["web-1"]);
    let reason = book.blob(b"because");
    let token = Some(TOKEN.parse().unwrap());
    let by = |book: &mut Book, who: &str, token| say!(person book, who, CommandRequested { client_ref: None, token: token, retry: None, act: act.clone(), reason: reason });
    let event = by(&mut book, "alice", token.clone());
    assert_eq!(book.with_key("alice", event), Err(Refusal::KeyRole));
    let event = by(&mut book, "alice", None);
    assert_eq!(book.with_key("gateway", event), Err(Refusal::KeyRole));
    // The token is alice's, and bob is not alice.
    let event = by(&mut book, "bob", token.clone());
    assert_eq!(book.with_key("gateway", event), Err(Refusal::KeyHolder));
    let event = by(&mut book, "alice", Some("ci-9".parse().unwrap()));
    assert_eq!(book.with_key("gateway", event), Err(Refusal::UnknownToken));
    let event = by(&mut book, "alice", token);
    book.with_key("gateway", event).unwrap();
}

#[test]
fn a_token_approves_rejects_changes_and_reviews_nothing() {
    let mut book = ready(|token| token.principal = "dave".parse().unwrap());
    book.welcome("dave");
    let command = book.request("alice", &["web-1"]).unwrap();
    let broken = book.break_glass("alice", "web-1").unwrap();
    let change = book
        .ask_change("alice", Book::group("sre", &["bob"], &[]))
        .unwrap();
    let body = book.state.rights().change(&change).unwrap().digest;
    let blob = book.blob(b"x");
    let approval = {
        let Event::CommandApproved(mut approval) = book.approval_event("bob", command) else {
            panic!("an approval")
        };
        approval.principal = "dave".parse().unwrap();
        Event::from(approval)
    };
    let words = [
        approval,
        say!(person book, "dave", CommandRejected { command: command, vote: false, reason: None }),
        say!(person book, "dave", ReviewClosed { command: broken, reason: blob }),
        say!(person book, "dave", ChangeApproved { change: change, body: body, reason: None }),
        say!(person book, "dave", ChangeRejected { change: change, reason: None }),
    ];
    for word in words {
        let kind = word.kind().as_str();
        assert_eq!(
            book.with_key("gateway", word),
            Err(Refusal::KeyRole),
            "{kind}"
        );
    }
    let drained = ChangeBody::AgentDrained {
        agent: "web-1".parse().unwrap(),
    };
    let document = book.blob(&drained.to_document().unwrap());
    let asks =
        say!(person book, "dave", ChangeRequested { body: document, document: None, reason: None });
    assert_eq!(book.with_key("gateway", asks), Err(Refusal::KeyRole));
    let (signer, nonce, made_at, ledger, seen) = book.header("gateway");
    let beat = Event::from(LedgerHeartbeat {
        signer,
        nonce,
        made_at,
        ledger,
        seen,
    });
    assert_eq!(
        book.sign_and_append("gateway", &beat),
        Err(Refusal::KeyRole)
    );
    let start = match book.start_event("web-1", command) {
        Event::ExecutionStarted(start) => Event::from(ExecutionStarted {
            signer: public("gateway").key_id(),
            ..start
        }),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        book.sign_and_append("gateway", &start),
        Err(Refusal::KeyRole)
    );
}

#[test]
fn a_token_is_not_issued_with_what_it_must_never_do_and_roles_give_it_none_of_that() {
    let mut book = ready(|token| token.roles = vec!["admin".parse().unwrap()]);
    let record = book.state.rights().token(&TOKEN.parse().unwrap()).unwrap();
    let rights = book.state.rights().rights_of_token(record);
    let never = [
        Permission::CommandApprove,
        Permission::AgentManage,
        Permission::RightsManage,
        Permission::ReviewClose,
    ];
    for right in never {
        assert!(!rights.contains(&right), "{right}");
        let token = TokenIssued {
            token: "ci-2".parse().unwrap(),
            permissions: vec![right],
            ..issued(&book)
        };
        assert_eq!(
            book.ask_change("alice", body(token)),
            Err(Refusal::TokenRight),
            "{right}"
        );
    }
    assert!(rights.contains(&Permission::CommandExecute));
}

#[test]
fn a_token_asks_only_inside_of_its_labels() {
    let mut book = ready(|token| token.labels = vec!["group=web".parse().unwrap()]);
    book.enrol("db-1");
    let labelled = |book: &mut Book, host: &str, label: &str| {
        book.change(ChangeBody::AgentRelabelled {
            agent: host.parse().unwrap(),
            labels: vec![label.parse().unwrap()],
        });
    };
    assert_eq!(
        request(&mut book, "gateway", &["web-1"]),
        Err(Refusal::TokenScope("host"))
    );
    labelled(&mut book, "web-1", "group=web.dev");
    labelled(&mut book, "db-1", "group=website");
    request(&mut book, "gateway", &["web-1"]).unwrap();
    for hosts in [&["db-1"][..], &["db-1", "web-1"]] {
        assert_eq!(
            request(&mut book, "gateway", hosts),
            Err(Refusal::TokenScope("host")),
            "{hosts:?}"
        );
    }
    book.audit().unwrap();
}

#[test]
fn a_token_asks_only_for_its_programs() {
    let mut book = ready(|token| token.commands = vec!["true".parse().unwrap()]);
    request(&mut book, "gateway", &["web-1"]).unwrap();
    // A script that has the program's name is no program of that name.
    for (mode, word) in [
        (Mode::Exec, "false"),
        (Mode::Exec, "/bin/true"),
        (Mode::Shell, "true"),
    ] {
        let mut act = book.act(&["web-1"]);
        let spec = CommandSpec {
            mode,
            argv: vec![word.into()],
            cwd: None,
            user: None,
            timeout_ms: act.timeout_ms,
            output_limit: act.output_limit,
            at_output_limit: None,
        };
        act.mode = mode;
        act.spec = book.blob(&spec.to_document().unwrap());
        let line = TargetLine {
            agent: "web-1".parse().unwrap(),
            key_id: public("web-1").key_id(),
            service: None,
            spec: act.spec.digest,
            turn: None,
            facts: None,
        };
        let list = countersign_protocol::target::TargetList::new(vec![line]).unwrap();
        let document = book.blob(&list.to_document().unwrap());
        act.targets = list.describe(document).unwrap();
        let found = asked(&mut book, "gateway", act);
        assert_eq!(
            found,
            Err(Refusal::TokenScope("program")),
            "{mode:?} {word}"
        );
    }
}

#[test]
fn a_token_needs_the_right_to_ask_and_breaks_no_glass() {
    let mut book = ready(|token| token.permissions = vec![Permission::CommandRead]);
    let refused = Err(Refusal::NotPermitted(Permission::CommandExecute));
    assert_eq!(request(&mut book, "gateway", &["web-1"]), refused);
    let mut book = ready(|_| {});
    book.publish_text("1 alice,ci@example.com - break-glass=60");
    let mut act = book.act(&["web-1"]);
    act.break_glass = true;
    assert_eq!(
        asked(&mut book, "gateway", act),
        Err(Refusal::TokenScope("break-glass"))
    );
}

#[test]
fn a_token_ends_by_its_time_or_by_a_change() {
    let ended = Err(Refusal::TokenEnded);
    let mut book = ready(|_| {});
    book.now += DAY_US - 1;
    request(&mut book, "gateway", &["web-1"]).unwrap();
    book.now += 1;
    assert_eq!(request(&mut book, "gateway", &["web-1"]), ended);

    let mut book = ready(|_| {});
    let command = request(&mut book, "gateway", &["web-1"]).unwrap();
    let revoked = || ChangeBody::TokenRevoked {
        token: TOKEN.parse().unwrap(),
    };
    book.change(revoked());
    assert_eq!(request(&mut book, "gateway", &["web-1"]), ended);
    let event = say!(person book, MACHINE, CommandWithdrawn {
        command: command, token: Some(TOKEN.parse().unwrap()), reason: None,
    });
    assert_eq!(book.with_key("gateway", event), ended);
    assert_eq!(
        book.ask_change("alice", revoked()),
        Err(Refusal::NothingChanges)
    );
    // Its name is used up for ever.
    let again = body(issued(&book));
    assert_eq!(book.ask_change("alice", again), Err(Refusal::TokenTaken));
    book.audit().unwrap();
}

#[test]
fn a_token_stops_what_it_asked_for_and_more_only_by_right() {
    for (rights, may) in [
        (vec![Permission::CommandExecute], false),
        (
            vec![Permission::CommandCancel, Permission::CommandExecute],
            true,
        ),
    ] {
        let mut book = ready(|token| token.permissions = rights);
        let own = request(&mut book, "gateway", &["web-1"]).unwrap();
        let others = book.request("alice", &["web-1"]).unwrap();
        let cancel = |book: &mut Book, command| {
            let event = say!(person book, MACHINE, CommandCancelRequested {
                command: command, token: Some(TOKEN.parse().unwrap()), reason: None,
            });
            book.with_key("gateway", event)
        };
        cancel(&mut book, own).unwrap();
        assert_eq!(cancel(&mut book, others).is_ok(), may);
        book.audit().unwrap();
    }
}

#[test]
fn a_ledger_without_a_gateway_in_force_issues_no_tokens() {
    let mut book = Book::found(|genesis| genesis.gateway_key = None);
    let token = body(issued(&book));
    assert_eq!(book.ask_change("alice", token), Err(Refusal::NoGateway));
    // And one whose gateway key was revoked hears no token any more.
    let mut book = ready(|_| {});
    book.change(Book::ended("gateway"));
    assert_eq!(
        request(&mut book, "gateway", &["web-1"]),
        Err(Refusal::RevokedKey)
    );
    let token = TokenIssued {
        token: "ci-2".parse().unwrap(),
        ..issued(&book)
    };
    assert_eq!(
        book.ask_change("alice", body(token)),
        Err(Refusal::NoGateway)
    );
}
