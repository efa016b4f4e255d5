//! A client that pins witnesses believes nothing that they have not lately signed.

use std::fs;
use std::process::Command;

use axum::Router;
use axum::routing::get;
use countersign::keys::{self, LedgerKeys};
use countersign_cli::acts::{Client, Connection};
use countersign_cli::exit_code;
use countersign_cli::failure::Failure;
use countersign_cli::sign::Signer;
use countersign_cli::tls::Way;
use countersign_cli::trust::Pins;
use countersign_cli::verify::{self, Options, Source};
use countersign_protocol::checkpoint::{Checkpoint, CheckpointBody, Origin};
use countersign_protocol::cosignature::{Cosignature, WitnessKey};
use countersign_protocol::hash::Hash;
use countersign_protocol::name::Time;
use ed25519_dalek::SigningKey;

use super::support::{TestWitness, Witnessed};
use crate::folder::Folder;
use crate::statements::key;
use crate::support::TestLedger;
use crate::witness::logs::WITNESS;

const MINUTE_US: u64 = 60_000_000;

async fn connect(book: &TestLedger, url: &str, home: &Folder) -> Client {
    let connection = Connection {
        server: url.to_owned(),
        way: Way::default(),
        pins: Pins {
            ledger: book.ledger.id(),
            vkey: None,
            origin: None,
        },
        state_home: home.path().to_owned(),
        signer: Signer::Software(key("alice")),
        principal: None,
    };
    Client::connect(&connection).await.unwrap()
}

async fn demand(book: &TestLedger, url: &str, policy: &str) -> Result<(), Failure> {
    let home = Folder::new("client");
    let file = home.path().join("policy");
    fs::write(&file, policy).unwrap();
    let client = connect(book, url, &home).await;
    client.demand_witnesses(Some(&file)).await
}

fn code(found: Result<(), Failure>) -> (u8, String) {
    let failure = found.unwrap_err();
    (failure.exit, failure.code.into_owned())
}

/// A server that introduces itself as the ledger does, and shows any checkpoint.
async fn showing(ledger: &Witnessed, note: &str) -> String {
    let (_, info) = ledger.get("/v1/ledger").await;
    let note = note.to_owned();
    let router = Router::new()
        .route("/v1/ledger", get(async move || info.clone()))
        .route("/checkpoint", get(async move || note.clone()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, router).into_future());
    url
}

fn witness() -> (Origin, SigningKey, String) {
    let (name, key) = (WITNESS.parse().unwrap(), SigningKey::from_bytes(&[9; 32]));
    let vkey = WitnessKey::of(&name, &key);
    let policy = format!("witness w {vkey}\nquorum w\n");
    (name, key, policy)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_pinned_witnesses_signed_is_believed_and_remembered() {
    let book = TestLedger::ready().await;
    let witness = TestWitness::start(&book, 5).await;
    let policy = format!("{}quorum w\n", witness.line("w"));
    let server = Witnessed::start(&book, &policy).await;
    let note = server.cosigned(&book, book.ledger.newest().size()).await;
    assert!(demand(&book, &server.url, &policy).await.is_ok());
    // The policy may lie where the client remembers.
    let home = Folder::new("client");
    let client = connect(&book, &server.url, &home).await;
    client.demand_witnesses(None).await.unwrap();
    assert_eq!(
        client.trust().remembered().unwrap(),
        None,
        "nothing is pinned"
    );
    client
        .trust()
        .home()
        .write("witness-policy", &policy)
        .unwrap();
    client.demand_witnesses(None).await.unwrap();
    let remembered = client.trust().remembered().unwrap().unwrap();
    assert_eq!(remembered.body(), note.body());
    client
        .trust()
        .home()
        .write("witness-policy", "quorum x\n")
        .unwrap();
    assert_eq!(
        code(client.demand_witnesses(None).await).0,
        exit_code::USAGE
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_without_the_pinned_quorum_is_refused() {
    let book = TestLedger::ready().await;
    let server = Witnessed::start(&book, "quorum none\n").await;
    let newest = book.ledger.newest();
    let (name, signing, policy) = witness();
    let now = book.clock.now().as_micros();
    let at = |micros| {
        Cosignature::sign(
            newest.body(),
            &name,
            &signing,
            Time::from_micros(micros).unwrap(),
        )
    };
    let shown = async |note: &Checkpoint| {
        let url = showing(&server, note.note()).await;
        demand(&book, &url, &policy).await
    };
    let no_quorum = (exit_code::REFUSED, "no_quorum".to_owned());
    assert_eq!(code(shown(&newest).await), no_quorum);
    for (micros, counts) in [
        (now, true),
        (now - 9 * MINUTE_US, true),
        (now + MINUTE_US, true),
        (now - 11 * MINUTE_US, false),
        (now + 4 * MINUTE_US, false),
    ] {
        let note = newest.with_lines([at(micros).line()]).unwrap();
        let found = shown(&note).await;
        if counts {
            assert!(found.is_ok(), "{micros}");
        } else {
            assert_eq!(code(found), no_quorum, "{micros}");
        }
    }
    let other = CheckpointBody {
        size: 1,
        ..newest.body().clone()
    };
    let line = Cosignature::sign(&other, &name, &signing, book.clock.now());
    let note = newest.with_lines([line.line()]).unwrap();
    let found = code(shown(&note).await);
    assert_eq!(found, (exit_code::TAMPERING, "cosignature".to_owned()));
}

/// Even when the witness signs two histories, a client that has met one does not take the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_cosigned_second_history_is_a_fork_for_who_remembers_the_first() {
    let book = TestLedger::ready().await;
    let server = Witnessed::start(&book, "quorum none\n").await;
    let newest = book.ledger.newest();
    let (name, signing, policy) = witness();
    let ledger = LedgerKeys::read(book.folder.path()).unwrap();
    let body = CheckpointBody {
        root: Hash::new([3; 32]),
        ..newest.body().clone()
    };
    let second = Checkpoint::sign(body, ledger.checkpoint());
    let home = Folder::new("client");
    let mut found = Vec::new();
    for note in [&*newest, &second] {
        let line = Cosignature::sign(note.body(), &name, &signing, book.clock.now());
        let note = note.with_lines([line.line()]).unwrap();
        let url = showing(&server, note.note()).await;
        let client = connect(&book, &url, &home).await;
        client
            .trust()
            .home()
            .write("witness-policy", &policy)
            .unwrap();
        found.push(client.demand_witnesses(None).await);
    }
    assert!(found[0].is_ok());
    assert_eq!(
        code(found.remove(1)),
        (exit_code::TAMPERING, "fork".to_owned())
    );
}

#[tokio::test(flavor = "multi_thread")]
#[expect(
    clippy::disallowed_methods,
    reason = "the client is a process of its own"
)]
async fn the_command_line_takes_the_policy() {
    let book = TestLedger::ready().await;
    let witnessed = TestWitness::start(&book, 5).await;
    let good = format!("{}quorum w\n", witnessed.line("w"));
    let server = Witnessed::start(&book, &good).await;
    server.cosigned(&book, book.ledger.newest().size()).await;
    let home = Folder::new("client");
    let (_, _, strangers) = witness();
    let file = |name: &str| home.path().join(name);
    keys::write_new(&file("alice"), &key("alice"), "alice").unwrap();
    fs::write(file("good"), &good).unwrap();
    fs::write(file("strangers"), strangers).unwrap();
    for (policy, exit) in [("good", exit_code::DONE), ("strangers", exit_code::REFUSED)] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
        command
            .args(["whoami", "--server", &server.url])
            .args(["--ledger", &book.ledger.id().to_string()])
            .arg("--key")
            .arg(file("alice"))
            .arg("--witness-policy")
            .arg(file(policy))
            .env("COUNTERSIGN_STATE_HOME", file("state"));
        let output = tokio::task::spawn_blocking(move || command.output().unwrap());
        let output = output.await.unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(exit.into()), "{policy}: {told}");
        assert_eq!(
            told.contains("no quorum of witnesses"),
            policy == "strangers",
            "{told}"
        );
    }
}

/// A database holds no cosignatures: whoever verifies it brings a note that witnesses signed.
#[tokio::test]
async fn a_database_is_held_against_a_note_that_witnesses_signed() {
    let book = TestLedger::ready().await;
    let newest = book.ledger.newest();
    let (name, signing, policy) = witness();
    let line = Cosignature::sign(newest.body(), &name, &signing, book.clock.now());
    let signed = newest.with_lines([line.line()]).unwrap();
    let judge = async |note: &Checkpoint| {
        let url = book.database.app_url().await;
        verify::verify(Options {
            checkpoint: Some(note.note().to_owned()),
            witnesses: Some(policy.parse().unwrap()),
            ..Options::new(Source::Database(url))
        })
        .await
        .unwrap()
    };
    let report = judge(&signed).await;
    assert!(report.ok, "{report:?}");
    assert_eq!(report.witnessed.unwrap().witnesses, 1);
    let report = judge(&newest).await;
    assert!(!report.ok && report.witnessed.is_none());
    assert_eq!(report.first_bad.unwrap().name, "unwitnessed");
}
