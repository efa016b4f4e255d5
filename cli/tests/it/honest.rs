//! What works when nobody lies.

use std::sync::atomic::Ordering::SeqCst;

use countersign_cli::acts::{ChangeStage, Found, RequestSpec, Step};
use countersign_cli::exit_code;
use countersign_protocol::command::Mode;
use countersign_protocol::event::Stream;
use countersign_protocol::lifecycle::CommandStatus;
use countersign_protocol::name::Time;
use countersign_protocol::rights::ChangeBody;
use countersign_protocol::rollout::Rollout;
use countersign_protocol::short;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::book::{Book, public};
use super::cedar;
use super::client;
use super::server::Server;

fn spec(words: &[&str]) -> RequestSpec {
    let argv = words.iter().map(|word| (*word).to_owned()).collect();
    RequestSpec::new(vec!["web-1".parse().unwrap()], argv, "because")
}

#[tokio::test]
async fn a_command_goes_all_the_way_and_its_output_comes_out_exact() {
    let server = Server::start(Book::ready()).await;
    let home = tempfile::tempdir().unwrap();
    let alice = client(&server, home.path(), "alice").await;
    let mut wanted = spec(&["printf", "a b"]);
    wanted.env = vec![("B".into(), "2".into()), ("A".into(), "1".into())];
    wanted.stdin = Some(b"in\n".to_vec());
    let id = alice.request(&wanted).await.unwrap().id;
    for who in ["bob", "carol"] {
        let approver = client(&server, home.path(), who).await;
        approver.approve(&id, Some("fine")).await.unwrap();
    }
    {
        let book = &mut server.inner().book;
        book.start("web-1", id);
        book.output("web-1", id, Stream::Stdout, b"hello\n");
        book.output("web-1", id, Stream::Stderr, b"\xff\n");
        book.complete("web-1", id, 0, b"hello\n", b"\xff\n");
    }
    let (mut out, mut err, mut entries) = (Vec::new(), Vec::new(), 0);
    let view = alice
        .follow(&id, &mut |step| {
            match step {
                Step::Output { stream, bytes, .. } => match stream {
                    Stream::Stdout => out.extend_from_slice(bytes),
                    Stream::Stderr => err.extend_from_slice(bytes),
                },
                Step::Entry { .. } => entries += 1,
                Step::Hidden { .. } => unreachable!(),
            }
            Ok(())
        })
        .await
        .unwrap();
    assert_eq!(
        (out.as_slice(), err.as_slice()),
        (&b"hello\n"[..], &b"\xff\n"[..])
    );
    assert_eq!(entries, view.entries.len());
    assert_eq!(view.command.status(), CommandStatus::Completed);
    assert_eq!(view.spec.here().unwrap().argv, ["printf", "a b"]);
    let env = view.env.as_ref().unwrap().here().unwrap();
    assert_eq!(env.variables()[0], ("A".to_owned(), "1".to_owned()));
    assert_eq!(view.stdin.as_ref().unwrap().here().unwrap(), b"in\n");
    let shown = serde_json::to_value(countersign_cli::shapes::command(&view)).unwrap();
    assert_eq!(shown["executions"][0]["stdout"], "hello\n");
    assert_eq!(shown["executions"][0]["stderr"], "\u{fffd}\n");
    assert_eq!(shown["executions"][0]["stderr_base64"], "/wo=");
    assert_eq!(shown["approvals"].as_array().unwrap().len(), 2);
    assert_eq!(shown["request"]["env"]["B"], "2");
}

/// An answer that was lost and sent again, or that another server took whose clock is behind.
#[tokio::test]
async fn a_challenge_that_was_spent_in_vain_is_followed_by_another_a_few_times() {
    for (spent, works) in [(2, true), (3, false)] {
        let server = Server::start(Book::ready()).await;
        let home = tempfile::tempdir().unwrap();
        let left = std::sync::atomic::AtomicU32::new(spent);
        server.lies(move |path, status, body| {
            let less = |left: u32| left.checked_sub(1);
            if path == "/v1/sessions" && left.fetch_update(SeqCst, SeqCst, less).is_ok() {
                *status = 403;
                *body = json!({"type": "about:blank", "title": "", "status": 403, "code": "challenge", "detail": "used"});
            }
        });
        let alice = client(&server, home.path(), "alice").await;
        let rights = alice.rights().await;
        assert_eq!(rights.is_ok(), works, "{spent}");
        assert_eq!(server.inner().received.len(), 3, "each answers its own");
        if let Err(failure) = rights {
            let came = (failure.exit, failure.code.as_ref());
            assert_eq!(came, (exit_code::REFUSED, "challenge"));
        }
    }
}

/// Scripts that approve look at this and at nothing else.
#[tokio::test]
async fn the_json_of_a_command_has_all_that_its_request_asks_for() {
    let mut book = Book::ready();
    let (stdin, script) = (b"rm -rf /\n", "cm0gLXJmIC8K");
    let named = book.blob(stdin);
    let rollout = Rollout {
        max_in_flight: Some(1),
        ..Rollout::default()
    };
    let id = book.request_for("alice", &["web-1"], &["sh", "-s"], |act| {
        act.stdin = Some(named);
        act.rollout = Some(rollout);
    });
    let server = Server::start(book).await;
    let home = tempfile::tempdir().unwrap();
    let bob = client(&server, home.path(), "bob").await;
    let shown = async || {
        let view = bob.fetch_command(&id).await.unwrap();
        let shown = serde_json::to_value(countersign_cli::shapes::command(&view)).unwrap();
        (shown["request"].clone(), view.command.act().clone())
    };
    let (request, act) = shown().await;
    let digest = hex::encode(Sha256::digest(stdin));
    assert_eq!(
        request["stdin"],
        json!({"len": 9, "held": "here", "sha256": digest, "base64": script})
    );
    assert_eq!(request["rollout"], json!({"max_in_flight": 1}));
    assert_eq!(request["not_before_us"], act.not_before.as_micros());
    assert_eq!(request["expires_us"], act.expires_at.as_micros());
    assert_eq!(
        (&request["break_glass"], &request["max_runs"]),
        (&json!(false), &json!(1))
    );
    assert_eq!(request["token"], Value::Null);
    // What bob may not read is said to be withheld, and is not passed off as nothing.
    server.lies(move |path, status, body| {
        if path.ends_with("/entries") {
            let blobs = body["blobs"].as_array_mut().unwrap();
            blobs.retain(|blob| blob["content"] != script);
        }
        if path == format!("/v1/blobs/{}", named.digest) {
            *status = 403;
        }
    });
    assert_eq!(
        shown().await.0["stdin"],
        json!({"len": 9, "held": "withheld", "sha256": null, "base64": null})
    );
}

#[tokio::test]
async fn who_approves_is_told_of_an_api_token_and_of_the_earliest_start() {
    let server = Server::start(Book::ready()).await;
    let home = tempfile::tempdir().unwrap();
    let alice = client(&server, home.path(), "alice").await;
    let id = alice.request(&spec(&["true"])).await.unwrap().id;
    let mut view = alice.fetch_command(&id).await.unwrap();
    let signed = countersign_cli::describe::act(&view);
    for word in ["token", "not before"] {
        assert!(!signed.contains(word), "{signed}");
    }
    view.command.request.token = Some("0123456789abcdef".parse().unwrap());
    view.command.request.act.not_before = Time::from_micros(1_900_000_000_000_000).unwrap();
    let shown = countersign_cli::describe::act(&view);
    for line in [
        "API token  0123456789abcdef asked for it, in the name of alice, who signed nothing\n",
        "not before 2030-03-17 17:46:40 UTC\n",
    ] {
        assert!(shown.contains(line), "{shown}");
    }
}

#[tokio::test]
async fn what_the_log_already_rules_out_is_refused_before_anything_is_signed() {
    let server = Server::start(Book::ready()).await;
    let home = tempfile::tempdir().unwrap();
    let alice = client(&server, home.path(), "alice").await;
    let bob = client(&server, home.path(), "bob").await;
    let id = alice.request(&spec(&["true"])).await.unwrap().id;
    bob.approve(&id, None).await.unwrap();
    let before = server.signed();
    let own = alice.approve(&id, None).await.unwrap_err();
    let twice = bob.approve(&id, None).await.unwrap_err();
    let not_mine = bob.withdraw(&id, None).await.unwrap_err();
    assert_eq!(
        (own.exit, own.code.as_ref()),
        (exit_code::REFUSED, "own_request")
    );
    assert_eq!(twice.code, "duplicate_approval");
    assert_eq!(not_mine.code, "not_permitted");
    assert_eq!(server.signed(), before);
    alice.withdraw(&id, Some("never mind")).await.unwrap();
    let over = bob.reject(&id, None).await.unwrap_err();
    assert_eq!(
        (over.exit, over.code.as_ref()),
        (exit_code::REFUSED, "over")
    );
    assert_eq!(server.signed(), before + 1);
}

#[tokio::test]
async fn a_cancel_stops_what_waits() {
    let server = Server::start(Book::ready()).await;
    let home = tempfile::tempdir().unwrap();
    let alice = client(&server, home.path(), "alice").await;
    let id = alice.request(&spec(&["true"])).await.unwrap().id;
    let accepted = alice.cancel(&id, None).await.unwrap();
    let view = alice.fetch_command_with(&id, accepted.seq).await.unwrap();
    assert_eq!(view.command.status(), CommandStatus::Cancelled);
    assert_eq!(alice.cancel(&id, None).await.unwrap_err().code, "over");
}

#[tokio::test]
async fn bad_requests_are_usage_errors_and_nothing_is_signed() {
    let server = Server::start(Book::ready()).await;
    let home = tempfile::tempdir().unwrap();
    let alice = client(&server, home.path(), "alice").await;
    let mut bad = Vec::new();
    let mut shell = spec(&["a", "b"]);
    shell.mode = Mode::Shell;
    bad.push(shell);
    let mut relative = spec(&["true"]);
    relative.cwd = Some("tmp".into());
    bad.push(relative);
    let mut long = spec(&["true"]);
    long.timeout_ms = 300_001;
    bad.push(long);
    let mut week = spec(&["true"]);
    week.expires_in = std::time::Duration::from_secs(8 * 24 * 3600);
    bad.push(week);
    let mut silent = spec(&["true"]);
    silent.reason = " ".into();
    bad.push(silent);
    let mut twice = spec(&["true"]);
    twice.env = vec![("A".into(), "1".into()), ("A".into(), "2".into())];
    bad.push(twice);
    for bad in bad {
        let failure = alice.request(&bad).await.unwrap_err();
        assert_eq!(failure.exit, exit_code::USAGE, "{failure}");
    }
    let mut unknown = spec(&["true"]);
    unknown.targets = vec!["web-9".parse().unwrap()];
    let failure = alice.request(&unknown).await.unwrap_err();
    assert_eq!(
        (failure.exit, failure.code.as_ref()),
        (exit_code::FAILED, "unknown_agent")
    );
    assert_eq!(server.signed(), 0);
}

#[tokio::test]
async fn a_change_of_rights_is_asked_for_shown_and_consented_to() {
    let server = Server::start(Book::ready()).await;
    let home = tempfile::tempdir().unwrap();
    let alice = client(&server, home.path(), "alice").await;
    let bob = client(&server, home.path(), "bob").await;
    let policy = cedar::names(1, &["alice"], &["bob"]);
    let digest = policy.digest();
    let body = ChangeBody::PolicyPublished { policy: digest };
    let asked = alice.change(&body, Some(&policy), Some("fewer")).await;
    let asked = asked.unwrap();
    let again = alice.change(&body, Some(&policy), None).await.unwrap_err();
    assert_eq!(again.code, "change_waits");
    assert_eq!(
        bob.find(&short::short(&asked.id)).await.unwrap(),
        Found::Change(asked.id)
    );
    let waiting = bob.rights().await.unwrap().change(&asked.id).unwrap();
    assert_eq!(
        (waiting.stage, &waiting.body),
        (ChangeStage::Requested, &body)
    );
    // Whoever consents reads the text and not its digest.
    let shown = countersign_cli::describe::change(&waiting);
    assert!(shown.contains("principal == User::"), "{shown}");
    let twice = alice.approve_change(&asked.id, None).await.unwrap_err();
    assert_eq!(twice.code, "duplicate_approval");
    let consent = bob.approve_change(&asked.id, None).await.unwrap();
    let settled = bob.change_with(&asked.id, consent.seq).await.unwrap();
    assert_eq!(settled.stage, ChangeStage::InEffect);
    let rights = bob.rights().await.unwrap();
    let in_force = rights.state.rights().policy().unwrap();
    assert_eq!(
        (&in_force.policy, in_force.reference.digest),
        (&policy, digest)
    );
    assert_eq!(
        bob.approve_change(&asked.id, None).await.unwrap_err().code,
        "over"
    );
}

#[tokio::test]
async fn a_key_that_the_ledger_does_not_know_is_refused_with_a_hint() {
    let server = Server::start(Book::ready()).await;
    let home = tempfile::tempdir().unwrap();
    let mallory = client(&server, home.path(), "mallory").await;
    let failure = mallory.request(&spec(&["true"])).await.unwrap_err();
    assert_eq!(
        (failure.exit, failure.code.as_ref()),
        (exit_code::REFUSED, "unknown_key")
    );
    assert!(failure.hint.is_some());
    assert_eq!(server.signed(), 0);
}

#[tokio::test]
async fn a_key_added_later_signs_in_by_the_name_it_is_given() {
    let mut book = Book::ready();
    book.join("dave");
    let server = Server::start(book).await;
    let home = tempfile::tempdir().unwrap();
    let signer = countersign_cli::sign::Signer::Software(super::book::key("dave"));
    let mut connection = super::connection(&server, home.path(), signer);
    connection.principal = Some("dave".parse().unwrap());
    let dave = countersign_cli::acts::Client::connect(&connection)
        .await
        .unwrap();
    assert!(dave.rights().await.is_ok());
    // The name is remembered with the session.
    connection.principal = None;
    let dave = countersign_cli::acts::Client::connect(&connection)
        .await
        .unwrap();
    assert!(dave.rights().await.is_ok());
}

#[tokio::test]
async fn many_reads_take_one_signature_and_an_ended_session_one_more() {
    let server = Server::start(Book::ready()).await;
    let home = tempfile::tempdir().unwrap();
    for _call in 0..3 {
        let alice = client(&server, home.path(), "alice").await;
        alice.rights().await.unwrap();
    }
    assert_eq!(server.inner().received.len(), 1);
    server.inner().tokens += 1;
    let alice = client(&server, home.path(), "alice").await;
    alice.rights().await.unwrap();
    alice.rights().await.unwrap();
    assert_eq!(server.inner().received.len(), 2);
}

#[tokio::test]
async fn a_statement_whose_answer_was_lost_is_sent_again_and_stands_in_the_log_once() {
    let server = Server::start(Book::ready()).await;
    let home = tempfile::tempdir().unwrap();
    let alice = client(&server, home.path(), "alice").await;
    let before = server.inner().book.entries.len();
    server.inner().lose = 2;
    let requested = alice.request(&spec(&["true"])).await.unwrap();
    assert!(requested.accepted.receipt.repeated);
    let inner = server.inner();
    let sent: Vec<_> = inner
        .received
        .iter()
        .filter(|one| one.namespace.starts_with("command."))
        .collect();
    assert_eq!(sent.len(), 3);
    assert!(sent.iter().all(|one| *one == sent[0]));
    assert_eq!(inner.book.entries.len(), before + 1);
}

#[tokio::test]
async fn a_server_that_stays_away_is_told_as_unreachable() {
    let server = Server::start(Book::ready()).await;
    let home = tempfile::tempdir().unwrap();
    let mut connection = super::connection(
        &server,
        home.path(),
        countersign_cli::sign::Signer::Software(super::book::key("alice")),
    );
    // A port that nobody listens on any more.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    connection.server = format!("http://{}", gone.local_addr().unwrap());
    drop(gone);
    let failure = countersign_cli::acts::Client::connect(&connection)
        .await
        .unwrap_err();
    assert_eq!(failure.exit, exit_code::UNREACHABLE, "{failure}");
    assert!(failure.hint.is_some());
}

#[tokio::test]
async fn a_server_that_comes_back_in_time_is_waited_for() {
    let server = Server::start(Book::ready()).await;
    let home = tempfile::tempdir().unwrap();
    server.inner().busy = 3;
    let alice = client(&server, home.path(), "alice").await;
    assert!(alice.rights().await.is_ok());
}

#[tokio::test]
async fn the_log_is_read_page_by_page_and_links() {
    let server = Server::start(Book::ready()).await;
    let home = tempfile::tempdir().unwrap();
    let alice = client(&server, home.path(), "alice").await;
    let first = alice.entries(0, 4, None).await.unwrap();
    let prev = first.last().map(|link| link.entry.leaf);
    let rest = alice.entries(4, 1000, prev).await.unwrap();
    assert_eq!(first.len() + rest.len(), server.inner().book.entries.len());
    let line = countersign_cli::shapes::entry_line(&rest[0]);
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["seq"], 4);
    assert!(line["payload"].is_object());
}

#[tokio::test]
async fn an_execution_withheld_from_the_caller_is_not_passed_off_as_empty() {
    let mut book = Book::ready();
    let id = book.request("alice", &["web-1"], &["true"]);
    book.carry_out(id);
    let server = Server::start(book).await;
    let home = tempfile::tempdir().unwrap();
    let alice = client(&server, home.path(), "alice").await;
    server.lies(move |path, status, body| {
        if path.ends_with("/entries") && path.contains("commands") {
            body["blobs"].as_array_mut().unwrap().retain(|blob| {
                // "hello\n" and "world\n"
                blob["content"] != "aGVsbG8K" && blob["content"] != "d29ybGQK"
            });
        }
        if path.starts_with("/v1/blobs/") {
            *status = 403;
        }
    });
    let view = alice.fetch_command(&id).await.unwrap();
    let shown = serde_json::to_value(countersign_cli::shapes::command(&view)).unwrap();
    assert_eq!(shown["executions"][0]["stdout"], "");
    assert_eq!(shown["executions"][0]["truncated"], true);
    assert!(countersign_cli::describe::command(&view).contains("not for you to read"));
}

#[tokio::test]
async fn an_administrator_sees_which_key_an_acceptance_replaces_before_consenting() {
    let mut book = Book::ready();
    book.enrol_with("web-1", "web-1 anew");
    let agent = "web-1".parse().unwrap();
    let old = public("web-1");
    let since = book.state.rights().key(&old.key_id()).unwrap().since;
    let server = Server::start(book).await;
    let home = tempfile::tempdir().unwrap();
    let alice = client(&server, home.path(), "alice").await;
    let body = |replaces| ChangeBody::AgentAccepted {
        agent: "web-1".parse().unwrap(),
        key: public("web-1 anew"),
        replaces,
        labels: Vec::new(),
    };
    // Without the word that it replaces a key it does not.
    let refused = alice.change(&body(None), None, None).await.unwrap_err();
    assert_eq!(refused.code, "agent_taken");
    let replaces = Some(old.key_id());
    let asked = alice.change(&body(replaces), None, None).await.unwrap();

    let carol = client(&server, home.path(), "carol").await;
    let view = carol.rights().await.unwrap().change(&asked.id).unwrap();
    let text = countersign_cli::describe::change(&view);
    let fingerprint = countersign_protocol::key::fingerprint(&old.key_id());
    let line = format!("the key {fingerprint} (in force since entry {since})");
    assert!(text.contains(&line), "{text}");
    let shown = serde_json::to_value(countersign_cli::shapes::change(&view)).unwrap();
    assert_eq!(shown["replaces"]["fingerprint"], fingerprint.as_str());
    assert_eq!(shown["replaces"]["since"], since);
    assert_eq!(shown["change"]["replaces"], old.key_id().to_string());
    carol.approve_change(&asked.id, None).await.unwrap();
    let rights = carol.rights().await.unwrap();
    assert_eq!(
        rights.state.rights().agent(&agent),
        Some(public("web-1 anew").key_id())
    );
}
