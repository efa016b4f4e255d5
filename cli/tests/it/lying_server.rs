//! ATTACKS 3, 13 and 23: a server that lies is found out before anything is signed.

use countersign_cli::acts::{Client, RequestSpec, Served};
use countersign_cli::failure::Failure;
use countersign_cli::shapes::JudgedShape;
use countersign_cli::trust::Standing;
use countersign_cli::verify::{self, Options, Report, Source};
use countersign_cli::{describe, exit_code, shapes};
use countersign_protocol::api::BlobBody;
use countersign_protocol::blob::Blob;
use countersign_protocol::command::CommandSpec;
use countersign_protocol::event::{CommandApproved, Event, Stream, StreamTotals};
use countersign_protocol::fold;
use countersign_protocol::hash::{CommandId, Digest};
use countersign_protocol::rights::ChangeBody;
use countersign_protocol::short;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::book::{Book, key};
use super::client;
use super::server::Server;

struct Scene {
    server: Server,
    home: tempfile::TempDir,
    bob: Client,
    /// Asked for by alice: harmless.
    shown: CommandId,
    /// Asked for by alice: not harmless.
    other: CommandId,
}

async fn scene() -> Scene {
    let mut book = Book::ready();
    let shown = book.request("alice", &["web-1"], &["true"]);
    let other = book.request("alice", &["web-1"], &["rm", "-rf", "/"]);
    let server = Server::start(book).await;
    let home = tempfile::tempdir().unwrap();
    let bob = client(&server, home.path(), "bob").await;
    Scene {
        server,
        home,
        bob,
        shown,
        other,
    }
}

fn assert_tampering(failure: &Failure, code: &str) {
    assert_eq!(failure.code, code, "{failure}");
    assert_eq!(failure.exit, exit_code::TAMPERING, "{failure}");
}

impl Scene {
    /// Bob wants to approve the one that he is shown.
    async fn approve(&self) -> Failure {
        let failure = self.bob.approve(&self.shown, None).await.unwrap_err();
        assert_eq!(self.server.signed(), 0, "nothing may be signed: {failure}");
        failure
    }

    fn lie_about_entries(&self, lie: impl Fn(&mut Value) + Send + 'static) {
        self.server.lies(move |path, _status, body| {
            if path.contains("/commands/") && path.ends_with("/entries") {
                lie(body);
            }
        });
    }

    fn stream(&self, of: CommandId) -> Value {
        let inner = self.server.inner();
        serde_json::to_value(inner.body(fold::Stream::Command(of))).unwrap()
    }
}

#[tokio::test]
async fn another_command_under_this_ones_id_is_found() {
    let scene = scene().await;
    let other = scene.stream(scene.other);
    scene.lie_about_entries(move |body| *body = other.clone());
    assert_tampering(&scene.approve().await, "foreign_entry");
}

#[tokio::test]
async fn another_commands_spec_under_this_request_is_found() {
    let scene = scene().await;
    let other = scene.stream(scene.other);
    scene.lie_about_entries(move |body| body["blobs"] = other["blobs"].clone());
    assert_tampering(&scene.approve().await, "wrong_content");
}

#[tokio::test]
async fn a_spec_that_says_something_else_is_found() {
    let scene = scene().await;
    let spec: CommandSpec = Book::spec(&["rm", "-rf", "/"]);
    let blob = Blob::new([7; 32], spec.to_document().unwrap()).unwrap();
    let swapped = serde_json::to_value(BlobBody::from(&blob)).unwrap();
    scene.lie_about_entries(move |body| body["blobs"][0] = swapped.clone());
    assert_tampering(&scene.approve().await, "wrong_content");
}

/// A text that is missing, passed off as redacted: the log would say so.
#[tokio::test]
async fn content_that_is_said_to_be_erased_without_an_entry_is_found() {
    let scene = scene().await;
    scene.server.lies(|path, status, body| {
        if path.ends_with("/entries") {
            body["blobs"] = json!([]);
        }
        if path.starts_with("/v1/blobs/") {
            *status = 410;
        }
    });
    assert_tampering(&scene.approve().await, "erased_unsaid");
    scene.lie_about_entries(|body| {
        let lost = body["blobs"][0].take();
        let lost: BlobBody = serde_json::from_value(lost).unwrap();
        let digest = lost.into_blob().unwrap().reference().digest;
        body["blobs"].as_array_mut().unwrap().remove(0);
        body["redacted"] = json!([digest]);
    });
    assert_tampering(&scene.approve().await, "erased_unsaid");
}

#[tokio::test]
async fn content_that_was_lost_without_a_redaction_is_found() {
    let scene = scene().await;
    scene.server.lies(|path, status, body| {
        if path.ends_with("/entries") {
            body["blobs"] = json!([]);
        }
        if path.starts_with("/v1/blobs/") {
            *status = 404;
        }
    });
    assert_tampering(&scene.approve().await, "missing_content");
}

#[tokio::test]
async fn content_that_cannot_be_read_cannot_be_approved() {
    let scene = scene().await;
    scene.server.lies(|path, status, body| {
        if path.contains("/commands/") && path.ends_with("/entries") {
            body["blobs"] = json!([]);
        }
        if path.starts_with("/v1/blobs/") {
            *status = 403;
        }
    });
    let failure = scene.approve().await;
    assert_eq!(failure.code, "not_whole");
    assert_eq!(failure.exit, exit_code::REFUSED);
    // To say no, nobody need have read it.
    let rejected = scene.bob.reject(&scene.shown, Some("not readable")).await;
    rejected.unwrap();
}

#[tokio::test]
async fn a_prefix_that_is_answered_with_another_command_is_found() {
    let scene = scene().await;
    let other = scene.other.to_string();
    let code = short::short(&scene.shown);
    scene.server.lies(move |path, _status, body| {
        if path.starts_with("/v1/commands/") && body.get("requester").is_some() {
            body["id"] = json!(other);
        }
    });
    let failure = scene.bob.find(&code).await.unwrap_err();
    assert_tampering(&failure, "other_command");
}

#[tokio::test]
async fn a_checkpoint_that_the_ledgers_key_did_not_sign_is_found() {
    let scene = scene().await;
    let forged = scene.server.inner().book.checkpoint_by("mallory");
    let forged = forged.note().to_owned();
    scene.lie_about_entries(move |body| body["checkpoint"] = json!(forged));
    assert_tampering(&scene.approve().await, "checkpoint");
}

#[tokio::test]
async fn an_entry_that_is_not_in_the_log_is_found() {
    let scene = scene().await;
    // Validly signed by carol, and never entered.
    let mut elsewhere = scene.server.inner().book.clone();
    elsewhere.approve("carol", scene.shown);
    let seq = elsewhere.entries.len() - 1;
    let bytes = countersign_cli::console::base64(&elsewhere.entries[seq]);
    let bytes = serde_json::to_value(bytes).unwrap();
    scene.lie_about_entries(move |body| {
        let mut invented = body["entries"][0].clone();
        invented["seq"] = json!(seq);
        invented["entry"] = bytes.clone();
        body["entries"].as_array_mut().unwrap().push(invented);
    });
    assert_tampering(&scene.approve().await, "not_included");
}

#[tokio::test]
async fn an_entry_of_another_command_in_the_stream_is_found() {
    let scene = scene().await;
    let other = scene.stream(scene.other);
    scene.lie_about_entries(move |body| {
        let foreign = other["entries"][0].clone();
        body["entries"].as_array_mut().unwrap().push(foreign);
    });
    assert_tampering(&scene.approve().await, "foreign_entry");
}

#[tokio::test]
async fn an_entry_with_one_bit_changed_is_found() {
    let scene = scene().await;
    let mut bytes = scene.server.inner().book.entries.last().unwrap().clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let bytes = serde_json::to_value(countersign_cli::console::base64(&bytes)).unwrap();
    scene.lie_about_entries(move |body| body["entries"][0]["entry"] = bytes.clone());
    assert_tampering(&scene.approve().await, "bad_entry");
}

#[tokio::test]
async fn a_log_that_breaks_its_own_rules_is_found() {
    let mut book = Book::ready();
    let id = book.request("alice", &["web-1"], &["true"]);
    let event: Event = book.approval("alice", id);
    assert!(matches!(
        &event,
        Event::CommandApproved(CommandApproved { .. })
    ));
    // Whoever holds the ledger's keys can seal this; nobody can make it right.
    book.smuggle("alice", &event);
    let server = Server::start(book).await;
    let home = tempfile::tempdir().unwrap();
    let bob = client(&server, home.path(), "bob").await;
    assert_tampering(&bob.approve(&id, None).await.unwrap_err(), "illegal_entry");
    assert_eq!(server.signed(), 0);
}

#[tokio::test]
async fn another_ledger_than_the_pinned_one_is_found() {
    let scene = scene().await;
    let stranger = Server::start(Book::ready()).await;
    let signer = countersign_cli::sign::Signer::Software(key("bob"));
    let mut connection = super::connection(&scene.server, scene.home.path(), signer);
    connection.server = stranger.url;
    let failure = Client::connect(&connection).await.unwrap_err();
    assert_tampering(&failure, "other_ledger");
}

#[tokio::test]
async fn a_pinned_key_or_origin_that_genesis_does_not_name_is_found() {
    let scene = scene().await;
    let signer = countersign_cli::sign::Signer::Software(key("bob"));
    let mut connection = super::connection(&scene.server, scene.home.path(), signer);
    connection.pins.origin = Some("elsewhere.example.com".parse().unwrap());
    assert_tampering(&Client::connect(&connection).await.unwrap_err(), "pin");
    connection.pins.origin = None;
    connection.pins.vkey = Some(scene.bob.trust().verifier().clone());
    assert!(Client::connect(&connection).await.is_ok());
    let other = countersign_protocol::checkpoint::VerifierKey::new(
        super::book::ORIGIN.parse().unwrap(),
        key("mallory").verifying_key().to_bytes(),
    );
    connection.pins.vkey = Some(other.unwrap());
    assert_tampering(&Client::connect(&connection).await.unwrap_err(), "pin");
}

/// Notes kept as evidence.
fn evidence(scene: &Scene) -> usize {
    let home = scene.bob.trust().home().path("evidence");
    std::fs::read_dir(home).map_or(0, Iterator::count)
}

#[tokio::test]
async fn two_histories_are_found_and_both_notes_are_kept() {
    let scene = scene().await;
    let mut fork = scene.server.inner().book.clone();
    scene.server.inner().book.approve("carol", scene.other);
    scene.bob.rights().await.unwrap();
    let remembered = scene.bob.trust().remembered().unwrap().unwrap();
    // The same size, and larger: what the fork's own proofs say does not help it.
    fork.approve("carol", scene.shown);
    for more in [false, true] {
        if more {
            fork.request("alice", &["web-2"], &["id"]);
        }
        scene.server.inner().book = fork.clone();
        assert_tampering(&scene.approve().await, "fork");
    }
    assert_eq!(evidence(&scene), 4);
    assert_eq!(scene.bob.trust().remembered().unwrap().unwrap(), remembered);
}

#[tokio::test]
async fn a_log_that_was_cut_is_found_and_the_memory_does_not_go_back() {
    let scene = scene().await;
    let cut = scene.server.inner().book.clone();
    scene.server.inner().book.approve("carol", scene.other);
    scene.bob.rights().await.unwrap();
    let remembered = scene.bob.trust().remembered().unwrap().unwrap();
    scene.server.inner().book = cut;
    assert_tampering(&scene.approve().await, "shrunk");
    assert_eq!(evidence(&scene), 2);
    assert_eq!(scene.bob.trust().remembered().unwrap().unwrap(), remembered);
}

#[tokio::test]
async fn an_older_checkpoint_of_the_same_history_is_stale_and_no_fork() {
    let scene = scene().await;
    let old = scene.stream(scene.shown);
    let note = scene.server.inner().book.checkpoint().note().to_owned();
    scene.server.inner().book.approve("carol", scene.other);
    scene.bob.rights().await.unwrap();
    let remembered = scene.bob.trust().remembered().unwrap().unwrap();
    let (believed, standing) = scene.bob.believe(&note).await.unwrap();
    assert!(believed.size() < remembered.size());
    assert_eq!(standing, Standing::Stale);
    assert_eq!(scene.bob.trust().remembered().unwrap().unwrap(), remembered);
    scene.lie_about_entries(move |body| *body = old.clone());
    let view = scene.bob.fetch_command(&scene.shown).await.unwrap();
    assert!(view.size < remembered.size());
}

#[tokio::test]
async fn a_server_that_denies_what_it_signed_is_found() {
    let scene = scene().await;
    scene.server.lies(|path, status, body| {
        if path == "/v1/statements" {
            *status = 409;
            *body = json!({"type": "about:blank", "title": "t", "status": 409, "code": "seen_fork", "detail": "d"});
        }
    });
    let failure = scene.bob.approve(&scene.shown, None).await.unwrap_err();
    assert_tampering(&failure, "history_denied");
}

#[tokio::test]
async fn a_receipt_for_another_statement_or_without_its_place_is_found() {
    let scene = scene().await;
    let other = serde_json::to_value(scene.server.inner().receipt(&scene.other)).unwrap();
    type Twist = Box<dyn Fn(&mut Value) + Send>;
    let disguised = other.clone();
    let lies: [Twist; 5] = [
        Box::new(move |body| *body = other.clone()),
        Box::new(move |body| {
            let ours = body["statement_id"].clone();
            *body = disguised.clone();
            body["statement_id"] = ours;
        }),
        Box::new(|body| body["seq"] = json!(1)),
        Box::new(|body| body["statement_id"] = json!("0".repeat(64))),
        Box::new(|body| body["inclusion"] = json!([])),
    ];
    for lie in lies {
        scene.server.lies(move |path, status, body| {
            if path == "/v1/statements" && *status == 200 {
                lie(body);
            }
        });
        let argv = vec!["true".to_owned()];
        let spec = RequestSpec::new(vec!["web-1".parse().unwrap()], argv, "because");
        assert_tampering(&scene.bob.request(&spec).await.unwrap_err(), "receipt");
    }
}

#[tokio::test]
async fn a_receipts_proof_of_another_history_is_a_fork_and_a_missing_one_is_asked_for() {
    let scene = scene().await;
    let ask = || {
        let argv = vec!["true".to_owned()];
        RequestSpec::new(vec!["web-1".parse().unwrap()], argv, "because")
    };
    let asked = || {
        let inner = scene.server.inner();
        let asked = inner.asked.iter();
        asked.filter(|line| line.contains("consistency")).count()
    };
    scene.bob.request(&ask()).await.unwrap();
    assert_eq!(asked(), 0, "the receipt brought its proof");
    scene.server.lies(|path, _status, body| {
        if path == "/v1/statements" {
            body["since_seen"] = Value::Null;
        }
    });
    scene.bob.request(&ask()).await.unwrap();
    assert_eq!(asked(), 1, "the receipt brought none");
    scene.server.lies(|path, _status, body| {
        if path == "/v1/statements" {
            body["since_seen"] = json!(["0".repeat(64)]);
        }
    });
    let remembered = scene.bob.trust().remembered().unwrap();
    assert_tampering(&scene.bob.request(&ask()).await.unwrap_err(), "fork");
    assert_eq!(evidence(&scene), 2);
    assert_eq!(scene.bob.trust().remembered().unwrap(), remembered);
}

#[tokio::test]
async fn live_output_with_another_content_is_found_before_it_is_shown() {
    let scene = scene().await;
    scene.server.inner().book.carry_out(scene.shown);
    scene.server.lies(|path, _status, body| {
        let content = &body["blobs"][0]["content"];
        if path.ends_with("/events") && content == "aGVsbG8K" {
            body["blobs"][0]["content"] = json!("SEVMTE8K");
        }
    });
    let mut shown = Vec::new();
    let followed = scene
        .bob
        .follow(&scene.shown, &mut |step| {
            if let countersign_cli::acts::Step::Output { bytes, .. } = step {
                shown.extend_from_slice(bytes);
            }
            Ok(())
        })
        .await;
    assert_tampering(&followed.unwrap_err(), "wrong_content");
    assert!(shown.is_empty());
}

#[tokio::test]
async fn a_chunk_that_is_dropped_live_is_found() {
    let scene = scene().await;
    scene.server.inner().book.carry_out(scene.shown);
    scene.server.lies(|path, _status, body| {
        // The chunk "oops\n".
        if path.ends_with("/events") && body["blobs"][0]["content"] == "b29wcwo=" {
            *body = Value::Null;
        }
    });
    let followed = scene.bob.follow(&scene.shown, &mut |_step| Ok(())).await;
    assert_tampering(&followed.unwrap_err(), "illegal_entry");
}

#[tokio::test]
async fn what_was_shown_live_and_is_not_in_the_log_is_found() {
    let scene = scene().await;
    let honest = scene.server.inner().book.clone();
    let mut invented = honest.clone();
    invented.carry_out(scene.shown);
    scene.server.inner().book.carry_out(scene.shown);
    // Same people, same agent, same output: signed twice, so two different stories.
    let told: Vec<Value> = {
        let inner = scene.server.inner();
        let seqs = (honest.entries.len()..invented.entries.len()).collect::<Vec<_>>();
        drop(inner);
        seqs.into_iter()
            .map(|seq| {
                let bytes = &invented.entries[seq];
                let event = countersign_protocol::audit::check_entry(bytes).unwrap();
                let named = event.verified.event().blobs();
                let blobs: Vec<BlobBody> = named
                    .iter()
                    .map(|named| BlobBody::from(&invented.blobs[&named.digest]))
                    .collect();
                json!({"seq": seq, "entry": countersign_cli::console::base64(bytes), "blobs": blobs})
            })
            .collect()
    };
    let first = honest.entries.len() as u64;
    scene.server.lies(move |path, _status, body| {
        let seq = body["seq"].as_u64().unwrap_or_default();
        if path.ends_with("/events") && seq >= first {
            *body = told[(seq - first) as usize].clone();
        }
    });
    let followed = scene.bob.follow(&scene.shown, &mut |_step| Ok(())).await;
    assert_tampering(&followed.unwrap_err(), "shown_and_gone");
}

/// The ledger with a run of web-1 that has written hello, and one of web-2 that has not begun.
fn wrote_hello() -> (Book, CommandId) {
    let mut book = Book::ready();
    let id = book.request("alice", &["web-1", "web-2"], &["true"]);
    book.approve("bob", id);
    book.approve("carol", id);
    book.start("web-1", id);
    book.output("web-1", id, Stream::Stdout, b"hello\n");
    (book, id)
}

/// One host's key must not keep people from looking at the others, nor from stopping them.
#[tokio::test]
async fn a_host_that_contradicts_itself_is_told_and_the_others_can_be_stopped() {
    let (mut book, id) = wrote_hello();
    book.complete("web-1", id, 0, b"hellO\n", b"");
    let server = Server::start(book).await;
    let home = tempfile::tempdir().unwrap();
    let alice = client(&server, home.path(), "alice").await;
    let view = alice.fetch_command(&id).await.unwrap();
    let (one, other) = ("web-1".parse().unwrap(), "web-2".parse().unwrap());
    assert!(view.is_contradicted(&one) && !view.is_contradicted(&other));
    let told = describe::command(&view);
    assert!(
        told.contains("ITS OUTPUT IS NOT WHAT IT SAYS OF IT"),
        "{told}"
    );
    let shape = serde_json::to_value(shapes::command(&view)).unwrap();
    let said = |at: usize| &shape["executions"][at]["contradicted"];
    assert_eq!((said(0), said(1)), (&true.into(), &false.into()));
    alice.cancel(&id, None).await.unwrap();
}

/// Of what was not kept nobody can recompute the digest; the count is still checked, and no honest
/// ledger enters another one.
#[tokio::test]
async fn an_end_that_counts_other_bytes_than_the_chunks_hold_was_never_to_be_entered() {
    for (total, kept) in [
        (100, [6, 0]),
        (100, [5, 0]),
        (100, [7, 0]),
        (6, [5, 0]),
        (6, [6, 1]),
    ] {
        let (mut book, id) = wrote_hello();
        let totals = kept.map(|kept| StreamTotals {
            total: if kept == 0 { 0 } else { total },
            kept,
            sha256: match kept {
                0 => Digest::new(Sha256::digest([]).into()),
                _ => Digest::new([9; 32]),
            },
        });
        let end = book.completion("web-1", id, 0, totals);
        let honest = kept == [6, 0];
        if honest {
            book.say("web-1", &end).unwrap();
        } else {
            book.smuggle("web-1", &end);
        }
        let server = Server::start(book).await;
        let home = tempfile::tempdir().unwrap();
        let bob = client(&server, home.path(), "bob").await;
        match bob.fetch_command(&id).await {
            Ok(view) => assert!(honest && view.is_whole(), "{kept:?}"),
            Err(failure) => {
                assert!(!honest, "{failure}");
                assert_tampering(&failure, "illegal_entry");
            }
        }
    }
}

#[tokio::test]
async fn a_stream_without_its_beginning_is_found() {
    let scene = scene().await;
    scene.server.inner().book.approve("carol", scene.shown);
    scene.lie_about_entries(|body| {
        body["entries"].as_array_mut().unwrap().remove(0);
        body["blobs"] = json!([]);
    });
    assert_tampering(&scene.approve().await, "missing_entry");
    scene.server.lies(|path, _status, body| {
        if path == "/v1/streams/rights" {
            body["entries"] = json!([]);
        }
    });
    assert_tampering(&scene.approve().await, "missing_entry");
}

#[tokio::test]
async fn a_page_of_the_log_with_an_entry_left_out_is_found() {
    let scene = scene().await;
    scene.server.lies(|path, _status, body| {
        if path == "/v1/entries" {
            body["items"].as_array_mut().unwrap().remove(2);
        }
    });
    let failure = scene.bob.entries(0, 10, None).await.unwrap_err();
    assert_tampering(&failure, "wrong_place");
}

#[tokio::test]
async fn hostile_text_in_a_request_is_shown_escaped() {
    let mut book = Book::ready();
    let hostile = "a\u{1b}[2Jb\r\u{202e}c\nd";
    let id = book.request("alice", &["web-1"], &["echo", hostile]);
    let server = Server::start(book).await;
    let home = tempfile::tempdir().unwrap();
    let bob = client(&server, home.path(), "bob").await;
    let view = bob.fetch_command(&id).await.unwrap();
    let shown = describe::act(&view);
    assert!(
        shown.contains("echo $'a\\x1b[2Jb\\r\\u{202e}c\\nd'"),
        "{shown}"
    );
    assert!(!shown.contains(['\u{1b}', '\r', '\u{202e}']));
}

/// What a server says stands in our sentences, and commands no terminal.
#[tokio::test]
async fn hostile_text_in_a_servers_problem_is_shown_escaped() {
    let scene = scene().await;
    scene.server.lies(|path, status, body| {
        if path == "/v1/agents" {
            *status = 500;
            *body = json!({"type": "about:blank", "title": "t", "status": 500, "code": "c", "detail": "a\u{1b}]0;b\u{7}\u{9b}2J"});
        }
    });
    let failure = scene.bob.presences().await.unwrap_err();
    let note = format!("where they are is not shown: {failure}");
    assert!(note.ends_with("a\\x1b]0;b\\x07\\u{9b}2J"), "{note}");
    // Programs get it as it came.
    assert!(failure.message().contains('\u{1b}'));
}

/// Bob is shown standard input as it is, to its last column, and where letters may look like others.
#[tokio::test]
async fn standard_input_is_shown_whole_and_what_it_could_be_taken_for_is_told() {
    let mut book = Book::ready();
    let long = "x".repeat(3_000) + "; rm -rf /tm\u{440}\n";
    let stdin = [long.as_bytes(), b"\\t\t\xff\n"].concat();
    let named = book.blob(&stdin);
    let id = book.request_for("alice", &["web-1"], &["sh", "-s"], |act| {
        act.stdin = Some(named);
    });
    let server = Server::start(book).await;
    let home = tempfile::tempdir().unwrap();
    let bob = client(&server, home.path(), "bob").await;
    let shown = describe::act(&bob.fetch_command(&id).await.unwrap());
    let columns = |line: &str| line.chars().filter(|c| *c == 'x').count();
    let most = shown.lines().filter(|line| line.contains("xxx"));
    assert_eq!(most.map(columns).sum::<usize>(), 3_000, "{shown}");
    assert!(shown.contains("; rm -rf /tm\u{440}\n"), "{shown}");
    assert!(shown.contains("\n    \\\\t\\t\\xff\n"), "{shown}");
    assert!(
        shown.contains("outside ASCII, which may look like others, are in its standard input\n"),
        "{shown}"
    );
}

/// Everything that the server shows, verified by a reader who holds every right, or by one who is nobody.
async fn verified(server: &Server, who: &str) -> Report {
    let home = tempfile::tempdir().unwrap();
    let signer = countersign_cli::sign::Signer::Software(key(who));
    let mut connection = super::connection(server, home.path(), signer);
    connection.principal = Some(who.parse().unwrap());
    let reader = Client::connect(&connection).await.unwrap();
    let pages = Source::Pages(Box::new(Served::new(reader)));
    verify::verify(Options::new(pages)).await.unwrap()
}

/// Says of one text that its reader may not see it.
fn forbid(server: &Server, digest: Digest) {
    server.lies(move |path, status, _body| {
        if path == format!("/v1/blobs/{digest}") {
            *status = 403;
        }
    });
}

#[tokio::test]
async fn a_text_that_is_said_not_to_be_for_a_reader_who_may_read_it_is_found() {
    let scene = scene().await;
    scene.server.inner().book.carry_out(scene.shown);
    let report = verified(&scene.server, "bob").await;
    assert_eq!(report.first_bad, None);
    let (spec, output) = {
        let book = &scene.server.inner().book;
        let spec = book.state.command(&scene.shown).unwrap().act().spec.digest;
        let mut blobs = book.blobs.iter();
        let output = blobs.find(|(_, blob)| blob.content() == b"hello\n");
        (spec, *output.unwrap().0)
    };
    for digest in [spec, output] {
        forbid(&scene.server, digest);
        let report = verified(&scene.server, "bob").await;
        let bad = report.first_bad.unwrap();
        assert_eq!(bad.name, "withheld_from_reader", "{}", bad.reason);
    }
}

#[tokio::test]
async fn a_text_that_is_not_for_its_reader_is_no_failure_and_the_verdict_claims_no_right_it_did_not_judge()
 {
    let mut book = Book::ready();
    book.join("dave");
    let id = book.request("alice", &["web-1"], &["true"]);
    let spec = book.state.command(&id).unwrap().act().spec.digest;
    let server = Server::start(book).await;
    forbid(&server, spec);
    let report = verified(&server, "dave").await;
    assert_eq!(report.first_bad, None);
    assert_eq!((report.blobs.withheld, report.not_rejudged > 0), (1, true));
    let text = report.to_string();
    assert!(!text.contains("right and proof holds"), "{text}");
    assert!(
        text.contains("every hash, signature and proof holds"),
        "{text}"
    );
}

/// A second statement would be a second one, or refused as a duplicate: the first is not to be forgotten.
#[tokio::test]
async fn what_is_in_the_log_is_told_by_place_and_id_when_the_server_dies_behind_the_receipt() {
    let scene = scene().await;
    let body = ChangeBody::AgentDrained {
        agent: "web-1".parse().unwrap(),
    };
    let yes = scene.bob.approve(&scene.shown, None).await.unwrap();
    let change = scene.bob.change(&body, None, None).await.unwrap();
    scene.server.lies(|_path, status, body| {
        *status = 500;
        *body = Value::Null;
    });
    let judged = [
        scene.bob.judged_command(&scene.shown, &yes).await,
        scene.bob.judged_change(&change.id, &change).await,
    ];
    let places = [(scene.shown, yes.seq), (change.id, change.seq)];
    for (judged, place) in judged.iter().zip(places) {
        assert_eq!((judged.id, judged.seq), place);
        assert!(judged.status.is_err());
        let shape = serde_json::to_value(JudgedShape::from(judged)).unwrap();
        let expected = json!({"id": place.0.to_string(), "status": null, "seq": place.1});
        assert_eq!(shape, expected);
    }
}
