//! A ledger that shows two histories, and witnesses that lie.

use std::fs;
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::post;
use countersign::keys::LedgerKeys;
use countersign_protocol::checkpoint::{Checkpoint, CheckpointBody};
use countersign_protocol::cosignature::Cosignature;
use countersign_protocol::hash::Hash;
use countersign_protocol::witness::AddCheckpoint;
use ed25519_dalek::SigningKey;

use super::support::{PATIENCE, TestWitness, Witnessed, line};
use crate::support::TestLedger;
use crate::support::logged::Logged;
use crate::witness::logs::{WITNESS, answer};

/// What somebody who holds the ledger's keys can sign: any history.
fn forged(book: &TestLedger, size: u64) -> Checkpoint {
    let keys = LedgerKeys::read(book.folder.path()).unwrap();
    let body = CheckpointBody {
        origin: book.ledger.verifier().origin().clone(),
        size,
        root: Hash::new([13; 32]),
    };
    Checkpoint::sign(body, keys.checkpoint())
}

/// The server shows its clients one history and an auditor another, both signed by its own key. Who
/// asks a witness about the second one finds the first.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_view_of_the_ledger_is_found_at_the_witness() {
    let book = TestLedger::ready().await;
    let witness = TestWitness::start(&book, 5).await;
    let server = Witnessed::start(&book, &format!("{}quorum w\n", witness.line("w"))).await;
    let shown = server.cosigned(&book, book.ledger.newest().size()).await;
    server.stop().await;
    let second = forged(&book, shown.size());
    let request = AddCheckpoint {
        old: shown.size(),
        proof: Vec::new(),
        note: second.note().to_owned(),
    };
    let (status, text) = answer(&witness.running.url, &request).await;
    assert_eq!((status, text), (409, format!("{}\n", shown.size())));
    let mut notes = Vec::new();
    let mut folders = vec![witness.folder.path().join("state")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else if entry.path().extension().is_some_and(|end| end == "note") {
                let note = fs::read_to_string(entry.path()).unwrap();
                notes.push(Checkpoint::open(&note, book.ledger.verifier()).unwrap());
            }
        }
    }
    let bodies: Vec<_> = notes.iter().map(Checkpoint::body).collect();
    assert!(bodies.len() == 2 && bodies.contains(&shown.body()) && bodies.contains(&second.body()));
}

/// A database that was rolled back, or whose key signs elsewhere: the witness has seen more.
#[tokio::test(flavor = "multi_thread")]
async fn a_witness_that_knows_a_longer_log_signs_no_shorter_one() {
    let book = TestLedger::ready().await;
    let witness = TestWitness::start(&book, 5).await;
    let longer = forged(&book, 10_000);
    let request = AddCheckpoint {
        old: 0,
        proof: Vec::new(),
        note: longer.note().to_owned(),
    };
    assert_eq!(answer(&witness.running.url, &request).await.0, 200);
    let server = Witnessed::start(&book, &format!("{}quorum w\n", witness.line("w"))).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(server.get("/checkpoint").await.0, 503);
    let (request, _) = book.request();
    book.send(request).await.unwrap();
    assert_eq!(server.get("/readyz").await.0, 200);
}

/// A history that was rewritten behind what the witness has signed: no proof leads there from it.
#[tokio::test]
async fn a_witness_that_no_proof_convinces_knows_another_history() {
    let book = TestLedger::ready().await;
    let witness = TestWitness::start(&book, 5).await;
    let rewritten = forged(&book, book.ledger.newest().size() - 1);
    let request = AddCheckpoint {
        old: 0,
        proof: Vec::new(),
        note: rewritten.note().to_owned(),
    };
    assert_eq!(answer(&witness.running.url, &request).await.0, 200);
    // All of the server runs on this thread.
    let (logged, _guard) = Logged::by_this_thread();
    let server = Witnessed::start(&book, &format!("{}quorum w\n", witness.line("w"))).await;
    let begun = Instant::now();
    while !logged.text().contains("a witness knows another history") {
        assert!(begun.elapsed() < PATIENCE, "{}", logged.text());
        assert!(
            !logged.text().contains("does not sign"),
            "{}",
            logged.text()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(server.get("/checkpoint").await.0, 503);
}

/// What witnesses have signed and this server has published is a second memory beside the database.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_does_not_start_on_a_database_that_witnesses_contradict() {
    let book = TestLedger::ready().await;
    let witness = TestWitness::start(&book, 5).await;
    let text = format!("{}quorum w\n", witness.line("w"));
    Witnessed::start(&book, &text).await.stop().await;
    let newest = book.ledger.newest().size();
    for size in [newest, newest - 1, newest + 1] {
        let note = forged(&book, size);
        fs::write(book.folder.path().join("served-cosigned"), note.note()).unwrap();
        let Err(error) = Witnessed::try_start(&book, &text).await else {
            unreachable!("it starts");
        };
        assert!(error.is_evidence(), "{error}");
    }
}

async fn hostile(status: u16, kind: &'static str, body: String) -> String {
    let answer = move |_asked: String| {
        let body = body.clone();
        async move {
            let kind = [(header::CONTENT_TYPE, kind)];
            (StatusCode::from_u16(status).unwrap(), kind, body)
        }
    };
    let router = Router::new().route("/add-checkpoint", post(answer));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, router).into_future());
    url
}

/// Whatever a witness answers, it is its signature on this checkpoint that counts.
#[tokio::test(flavor = "multi_thread")]
async fn no_answer_but_a_signature_on_this_checkpoint_counts() {
    let book = TestLedger::ready().await;
    let newest = book.ledger.newest();
    let (name, key) = (WITNESS.parse().unwrap(), SigningKey::from_bytes(&[9; 32]));
    let vkey = countersign_protocol::cosignature::WitnessKey::of(&name, &key).to_string();
    let other = forged(&book, newest.size());
    let elsewhere = Cosignature::sign(other.body(), &name, &key, book.clock.now());
    let stranger = SigningKey::from_bytes(&[10; 32]);
    let strangers = Cosignature::sign(newest.body(), &name, &stranger, book.clock.now());
    for (status, kind, body) in [
        (200, "text/plain", format!("{}\n", elsewhere.line())),
        (200, "text/plain", format!("{}\n", strangers.line())),
        (200, "text/plain", newest.note().to_owned()),
        (200, "text/plain", String::new()),
        (200, "text/plain", "x".repeat(1 << 20)),
        (409, "text/x.tlog.size", "1\n".to_owned()),
        (409, "text/x.tlog.size", "18446744073709551615\n".to_owned()),
        (409, "text/x.tlog.size", "-1\n".to_owned()),
        (302, "text/plain", String::new()),
        (500, "text/html", "\u{2014}".repeat(5_000)),
    ] {
        let url = hostile(status, kind, body.clone()).await;
        let server =
            Witnessed::start(&book, &format!("{}quorum w\n", line("w", &vkey, &url))).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let answered = server.get("/checkpoint").await.0;
        assert_eq!(
            answered,
            503,
            "{status} {}",
            body.chars().take(80).collect::<String>()
        );
        assert_eq!(server.get("/readyz").await.0, 200);
        server.stop().await;
    }
}
