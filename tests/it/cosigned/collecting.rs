//! Cosignatures are collected beside the ledger, kept, and shown.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::post;
use countersign_protocol::witness_policy::WitnessPolicy;

use super::support::{TestWitness, Witnessed, line};
use crate::support::TestLedger;

async fn write(book: &TestLedger) {
    let (request, _) = book.request();
    book.send(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quorum_signs_each_newer_checkpoint_while_one_witness_is_silent() {
    let book = TestLedger::ready().await;
    let (one, two) = (
        TestWitness::start(&book, 5).await,
        TestWitness::start(&book, 6).await,
    );
    // It takes connections and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = TestWitness::start(&book, 7).await;
    let text = format!(
        "log {}\n{}{}{}group g 2 a b c\nquorum g\n",
        book.ledger.verifier(),
        one.line("a"),
        two.line("b"),
        line(
            "c",
            &other.running.key.to_string(),
            &format!("http://{}", silent.local_addr().unwrap())
        ),
    );
    let policy: WitnessPolicy = text.parse().unwrap();
    let server = Witnessed::start(&book, &text).await;
    for _each in 0..3 {
        write(&book).await;
        let size = book.ledger.newest().size();
        let note = server.cosigned(&book, size).await;
        assert_eq!(policy.check(&note, |_| true), Ok(()));
        // What they signed is this ledger's history, and it is durable before it is shown.
        book.ledger.continues(&note).await.unwrap();
        let kept = std::fs::read_to_string(book.folder.path().join("served-cosigned")).unwrap();
        assert_eq!(
            kept.split_once("\n\n").unwrap().0,
            note.note().split_once("\n\n").unwrap().0
        );
    }
    let (_, metrics) = server.get("/metrics").await;
    assert!(
        !metrics.contains("countersign_cosigned_entries 0\n"),
        "{metrics}"
    );
    assert!(metrics.contains("countersign_cosigned_entries "));
}

/// Nobody who must sign can be reached: the ledger goes on, and says what it lacks.
#[tokio::test(flavor = "multi_thread")]
async fn a_witness_that_is_down_stops_nothing_and_is_asked_again() {
    let book = TestLedger::ready().await;
    let witness = TestWitness::start(&book, 5).await;
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let key = witness.running.key.to_string();
    let text = format!(
        "{}quorum w\n",
        line("w", &key, &format!("http://{address}"))
    );
    let server = Witnessed::start(&book, &text).await;
    let begun = Instant::now();
    for _each in 0..20 {
        write(&book).await;
    }
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "appends do not wait"
    );
    let (status, text) = server.get("/checkpoint").await;
    assert_eq!(status, 503);
    assert!(text.contains("no_quorum"), "{text}");
    assert_eq!(server.get("/readyz").await.0, 200);
    assert_eq!(server.get("/v1/checkpoint").await.0, 200);
    // It comes up, at that address.
    let url = witness.running.url.clone();
    let relay = Router::new().route(
        "/add-checkpoint",
        post(async move |body: String| {
            let (status, text) = crate::witness::logs::answer(&url, &body).await;
            (axum::http::StatusCode::from_u16(status).unwrap(), text)
        }),
    );
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    tokio::spawn(axum::serve(listener, relay).into_future());
    server.cosigned(&book, book.ledger.newest().size()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_the_note_that_was_shown_is_shown_again() {
    let book = TestLedger::ready().await;
    let witness = TestWitness::start(&book, 5).await;
    let text = format!("{}quorum w\n", witness.line("w"));
    let server = Witnessed::start(&book, &text).await;
    let before = server.cosigned(&book, book.ledger.newest().size()).await;
    server.stop().await;
    drop(witness);
    let server = Witnessed::start(&book, &text).await;
    let (status, note) = server.get("/checkpoint").await;
    assert_eq!((status, note.as_str()), (200, before.note()));
    server.stop().await;
    // Another policy: what its witnesses did not sign is not shown.
    let stranger = TestWitness::start(&book, 6).await;
    let gone = line("x", &stranger.running.key.to_string(), "http://127.0.0.1:1");
    let server = Witnessed::start(&book, &format!("{gone}quorum x\n")).await;
    assert_eq!(server.get("/checkpoint").await.0, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_asks_for_nobody_shows_the_newest() {
    let book = TestLedger::ready().await;
    let server = Witnessed::start(&book, "quorum none\n").await;
    write(&book).await;
    server.cosigned(&book, book.ledger.newest().size()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_cannot_work_stops_the_start_and_says_why() {
    let book = TestLedger::ready().await;
    let witness = TestWitness::start(&book, 5).await;
    let key = &witness.running.key;
    let other = crate::witness::logs::Log::honest(1).verifier;
    for (text, why) in [
        (format!("witness w {key}\nquorum w\n"), "can never be met"),
        (
            format!("log {other}\n{}quorum w\n", witness.line("w")),
            "names other logs",
        ),
        (format!("{}quorum x\n", witness.line("w")), "line 2"),
        (witness.line("w"), "no quorum line"),
    ] {
        let Err(error) = Witnessed::try_start(&book, &text).await else {
            unreachable!("it starts with {text}");
        };
        assert!(error.to_string().contains(why), "{error}");
        assert!(!error.is_evidence());
    }
}
