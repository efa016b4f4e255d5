//! The log as it was: audited from bytes, whatever the server says.

use std::collections::BTreeSet;

use countersign_cli::acts::{Client, Reach, Since};
use countersign_cli::audit::{Fits, Keep, Sight, fits, of_person, parse, runs, suspect, why};
use countersign_cli::exit_code;
use countersign_cli::failure::Failure;
use countersign_protocol::event::Stream;
use countersign_protocol::hash::CommandId;
use countersign_protocol::name::Time;
use countersign_protocol::rights::ChangeBody;
use countersign_protocol::search::SearchFor;
use serde_json::{Value, json};

use super::book::{Book, public};
use super::client;
use super::server::Server;

async fn past(client: &Client, reach: &Reach) -> Result<countersign_cli::acts::Past, Failure> {
    client.past(reach, &mut |_, _| ()).await
}

fn until(size: u64) -> Reach {
    Reach {
        until: Some(Since::Entry(size)),
        keep: Keep::default(),
    }
}

#[tokio::test]
async fn an_entry_that_breaks_the_rules_is_found_and_nothing_is_answered() {
    let mut book = Book::ready();
    let id = book.request("alice", &["web-1"], &["true"]);
    let sound = book.entries.len() as u64;
    let own = book.approval("alice", id);
    book.smuggle("alice", &own);
    let server = Server::start(book).await;
    let home = tempfile::tempdir().unwrap();
    let bob = client(&server, home.path(), "bob").await;
    let failure = past(&bob, &Reach::default()).await.unwrap_err();
    assert_eq!(
        (failure.exit, failure.code.as_ref()),
        (exit_code::TAMPERING, "illegal_entry")
    );
    assert!(failure.message().contains(&format!("entry {sound}")));
    // What stands before it is as sound as ever.
    let before = past(&bob, &until(sound)).await.unwrap();
    assert_eq!(before.chronicle.size(), sound);
    assert_eq!(runs(&before.chronicle).len(), 1);
}

#[tokio::test]
async fn a_log_that_ends_before_its_checkpoint_is_found() {
    let server = Server::start(Book::ready()).await;
    let home = tempfile::tempdir().unwrap();
    let bob = client(&server, home.path(), "bob").await;
    server.lies(|path, _status, body| {
        if path == "/v1/entries" {
            body["items"] = json!([]);
        }
    });
    let failure = past(&bob, &Reach::default()).await.unwrap_err();
    assert_eq!(
        (failure.exit, failure.code.as_ref()),
        (exit_code::TAMPERING, "cut_off")
    );
}

#[tokio::test]
async fn words_that_were_swapped_are_found_and_words_that_are_withheld_are_told() {
    let mut book = Book::ready();
    book.request("alice", &["web-1"], &["true"]);
    let server = Server::start(book).await;
    let home = tempfile::tempdir().unwrap();
    let bob = client(&server, home.path(), "bob").await;
    // By the one call for many, and by the one for each that the first did not bring.
    for is_left_out in [false, true] {
        server.lies(move |path, _status, body| {
            let other = Value::from("dHJ1ZQ==");
            if path.starts_with("/v1/blobs/") {
                body["content"] = other;
            } else if path == "/v1/commands/entries" && is_left_out {
                body["streams"][0]["blobs"] = json!([]);
            } else if path == "/v1/commands/entries" {
                body["streams"][0]["blobs"][0]["content"] = other;
            }
        });
        let failure = past(&bob, &Reach::default()).await.unwrap_err();
        assert_eq!(
            (failure.exit, failure.code.as_ref()),
            (exit_code::TAMPERING, "wrong_content")
        );
    }
    server.lies(|path, status, body| {
        // A document that begins with {"argv".
        let is_spec = |blob: &Value| {
            blob["content"]
                .as_str()
                .unwrap_or_default()
                .starts_with("eyJhcmd2")
        };
        if path.starts_with("/v1/blobs/") && is_spec(body) {
            *status = 403;
        } else if path == "/v1/commands/entries" {
            let blobs = body["streams"][0]["blobs"].as_array_mut().unwrap();
            blobs.retain(|blob| !is_spec(blob));
        }
    });
    let seen = past(&bob, &Reach::default()).await.unwrap();
    assert_eq!(seen.chronicle.not_rejudged(), 1);
    let rows = runs(&seen.chronicle);
    assert_eq!(rows[0].argv, None);
    let time = |_: &str| Err::<Time, _>(String::new());
    let query = parse("program:true", time).unwrap();
    assert_eq!(fits(&query, &rows[0], Sight::Unknown), Fits::Unknown);
}

#[tokio::test]
async fn who_may_not_see_a_command_reads_the_log_one_document_at_a_time() {
    let (server, _home, bob, _ids) = five().await;
    server.lies(|path, status, _body| {
        if path == "/v1/commands/entries" {
            *status = 403;
        }
    });
    let seen = past(&bob, &Reach::default()).await.unwrap();
    assert_eq!(seen.chronicle.not_rejudged(), 0);
    assert_eq!(runs(&seen.chronicle).len(), 5);
}

/// Five commands, and a client of whoever answers for them.
async fn five() -> (Server, tempfile::TempDir, Client, Vec<CommandId>) {
    let mut book = Book::ready();
    let ids = (0..5)
        .map(|n| book.request("alice", &["web-1"], &["echo", &n.to_string()]))
        .collect();
    let server = Server::start(book).await;
    let home = tempfile::tempdir().unwrap();
    let bob = client(&server, home.path(), "bob").await;
    (server, home, bob, ids)
}

#[tokio::test]
async fn several_commands_come_by_few_calls_each_under_its_own_id() {
    let (server, _home, bob, ids) = five().await;
    let point = bob.point(None).await.unwrap();
    let past = bob.gathered(&point, Keep::default(), &ids).await.unwrap();
    let found: BTreeSet<String> = runs(&past.chronicle)
        .into_iter()
        .map(|row| row.id)
        .collect();
    assert_eq!(found, ids.iter().map(ToString::to_string).collect());
    let inner = server.inner();
    let asked = |path: &str| {
        inner
            .asked
            .iter()
            .filter(|line| line.ends_with(path))
            .count()
    };
    // This server gives two at a time.
    assert_eq!(asked("/v1/commands/entries"), 3);
    assert_eq!(asked("/entries"), 3 + asked("/v1/entries"));
}

#[tokio::test]
async fn a_lie_about_one_of_several_commands_is_found() {
    let (server, _home, bob, ids) = five().await;
    let point = bob.point(None).await.unwrap();
    type Lie = fn(&mut Vec<Value>);
    let lies: [(Lie, &str); 6] = [
        (|streams| streams.swap(0, 1), "foreign_entry"),
        (|streams| streams[1] = streams[0].clone(), "foreign_entry"),
        (|streams| streams[1]["entries"] = json!([]), "missing_entry"),
        (|streams| streams.clear(), "missing_entry"),
        (
            |streams| streams[1]["blobs"] = streams[0]["blobs"].clone(),
            "wrong_content",
        ),
        (
            |streams| {
                let proof = streams[0]["entries"][0]["inclusion"].clone();
                streams[1]["entries"][0]["inclusion"] = proof;
            },
            "not_included",
        ),
    ];
    for (lie, code) in lies {
        server.lies(move |path, _status, body| {
            if path == "/v1/commands/entries"
                && let Some(streams) = body["streams"].as_array_mut()
                && streams.len() > 1
            {
                lie(streams);
            }
        });
        let failure = bob.gathered(&point, Keep::default(), &ids).await;
        let failure = failure.unwrap_err();
        assert_eq!(
            (failure.exit, failure.code.as_ref()),
            (exit_code::TAMPERING, code),
            "{failure}"
        );
    }
}

#[tokio::test]
async fn several_commands_under_a_forged_checkpoint_are_not_believed() {
    let (server, _home, bob, ids) = five().await;
    let point = bob.point(None).await.unwrap();
    let forged = server.inner().book.checkpoint_by("mallory");
    let forged = forged.note().to_owned();
    server.lies(move |path, _status, body| {
        if path == "/v1/commands/entries" {
            body["checkpoint"] = json!(forged);
        }
    });
    let failure = bob.gathered(&point, Keep::default(), &ids).await;
    let failure = failure.unwrap_err();
    assert_eq!(
        (failure.exit, failure.code.as_ref()),
        (exit_code::TAMPERING, "checkpoint")
    );
}

#[tokio::test]
async fn rows_tell_who_asked_who_agreed_and_what_came_of_it() {
    let mut book = Book::ready();
    let id = book.request("alice", &["web-1"], &["printf", "a b"]);
    book.carry_out(id);
    let at = book.entries.len() as u64;
    let revoked = ChangeBody::KeyRevoked {
        key_id: public("bob").key_id(),
        suspect_from: Some(at - 1),
    };
    book.change(revoked);
    let server = Server::start(book).await;
    let home = tempfile::tempdir().unwrap();
    let alice = client(&server, home.path(), "alice").await;
    let keep = Keep {
        command: Some(id),
        output: true,
    };
    let reach = Reach { until: None, keep };
    let past = past(&alice, &reach).await.unwrap();
    let chronicle = &past.chronicle;
    let rows = runs(chronicle);
    let row = &rows[0];
    assert_eq!(row.argv.as_deref().unwrap(), ["printf", "a b"]);
    assert_eq!(
        (row.requester.as_str(), row.host.as_str()),
        ("alice", "web-1")
    );
    assert!(row.approved_by.contains(&"bob".to_owned()));
    assert!(row.started_seq < row.ended_seq && row.ended_us.is_some());

    let time = |_: &str| Err::<Time, _>(String::new());
    let query = parse("output:hello and host:web-1", time).unwrap();
    assert_eq!(fits(&query, row, Sight::Unknown), Fits::Unknown);
    let part = (id, "web-1".parse().unwrap());
    let (seq, stream, named) = chronicle.output(&part)[0];
    assert_eq!(stream, Stream::Stdout);
    let blobs = alice.fetch_blobs(seq, &[named]).await.unwrap();
    let bytes = [blobs.blob(&named).unwrap().content().to_vec()];
    assert_eq!(fits(&query, row, Sight::Read(&bytes)), Fits::Yes);

    let told = why(chronicle, &past.command(&id).unwrap());
    let kinds: Vec<&str> = told.entries.iter().map(|row| row.kind).collect();
    for kind in [
        "ledger.genesis",
        "agent.accepted",
        "command.requested",
        "execution.completed",
    ] {
        assert!(kinds.contains(&kind), "{kinds:?}");
    }
    // The revocation came later, and led to nothing.
    assert!(!kinds.contains(&"key.revoked"));
    assert!(
        told.rules.iter().all(|rule| rule.text.is_some()),
        "{:?}",
        told.rules
    );

    let deeds = of_person(chronicle, &"bob".parse().unwrap(), &Default::default());
    assert!(deeds.iter().any(|deed| deed.kind == "command.approved"));
    let rows = suspect(chronicle);
    assert!(rows.iter().all(|row| row.deed.who == "bob"));
    assert!(rows.iter().any(|row| row.standing == "revoked_later"));
    let marked = |row: &&countersign_cli::audit::SuspectRow| row.standing == "suspect";
    assert!(rows.iter().filter(marked).all(|row| row.deed.seq >= at - 1));
}

#[tokio::test]
async fn hits_that_a_server_names_again_or_more_than_were_asked_for_are_found() {
    let mut book = Book::ready();
    let ids: Vec<CommandId> = (0..2)
        .map(|_| book.request("alice", &["web-1"], &["true"]))
        .collect();
    let server = Server::start(book).await;
    let home = tempfile::tempdir().unwrap();
    let bob = client(&server, home.path(), "bob").await;
    let point = bob.point(None).await.unwrap();
    let hit = move |id: CommandId| json!({"command": id.to_string(), "host": "web-1"});
    // Page 1 for ever: true, and each time the same.
    server.lies(move |path, status, body| {
        if path == "/v1/audit/search" {
            *status = 200;
            *body = json!({"items": [hit(ids[0]), hit(ids[1])], "next": "2"});
        }
    });
    let hits = |wanted| bob.hits(point.clone(), SearchFor::BreakGlass {}, None, wanted);
    let mut all = hits(u64::MAX);
    let (_, found) = all.next(Keep::default()).await.unwrap().unwrap();
    assert_eq!(found.len(), 2);
    let failure = all.next(Keep::default()).await.unwrap_err();
    assert_eq!(
        (failure.exit, failure.code.as_ref()),
        (exit_code::TAMPERING, "wrong_hit")
    );
    let failure = hits(1).next(Keep::default()).await.unwrap_err();
    assert_eq!(
        (failure.exit, failure.code.as_ref()),
        (exit_code::UNREACHABLE, "malformed")
    );
}

/// The entries are true, and stand behind the point that was asked for.
#[tokio::test]
async fn a_page_longer_than_was_asked_for_does_not_move_the_point_of_an_answer() {
    let mut book = Book::ready();
    let point = book.entries.len() as u64;
    book.request("alice", &["web-1"], &["true"]);
    let server = Server::start(book).await;
    let home = tempfile::tempdir().unwrap();
    let bob = client(&server, home.path(), "bob").await;
    assert_eq!(
        past(&bob, &until(point)).await.unwrap().chronicle.size(),
        point
    );
    let all = serde_json::to_value(server.inner().page(0, u64::MAX)).unwrap();
    server.lies(move |path, _status, body| {
        if path == "/v1/entries" {
            *body = all.clone();
        }
    });
    let failure = past(&bob, &until(point)).await.unwrap_err();
    assert_eq!(
        (failure.exit, failure.code.as_ref()),
        (exit_code::UNREACHABLE, "malformed")
    );
}
