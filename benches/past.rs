//! (h) How long do questions about the past take on a long log: `at` and audit searches?
//!
//! A ledger whose every entry went through the real writer: requests, of which a tenth get their two
//! approvals and the others an approval and a no; some run with output. Then a server over it and one
//! client, over HTTP: `at` for a list and a time, and searches, each twice: what the server answers, of
//! which nothing is proved, and the first page of it with every entry proved and judged. The baseline is
//! the whole log read and audited by the same client, up to so many entries that it is bearable.
//! `COUNTERSIGN_BENCH_PAST_ENTRIES` sets how many entries (100,000).
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::indexing_slicing,
    reason = "a bench fails by panicking, and prints"
)]

#[expect(dead_code, reason = "the other benches use the rest of it")]
mod fixture;

use std::time::{Duration, Instant};

use countersign::ledger::Receipt;
use countersign::server::{Options, Server, Way as Served};
use countersign_cli::acts::{Client, Connection, Past, Reach, Since};
use countersign_cli::audit::{Fits, Keep, Sight, fits, parse, runs};
use countersign_cli::sign::Signer;
use countersign_cli::tls::Way;
use countersign_cli::trust::Pins;
use countersign_protocol::command::Act;
use countersign_protocol::name::Time;
use countersign_protocol::search::{Query, SearchFor};
use fixture::book::{Book, ask, no};
use fixture::fill::completion;
use fixture::run::Run;
use fixture::statements::{Ask, key, signed};
use fixture::{is_bench, setting};
use tokio_util::sync::CancellationToken;

/// The aims at a million entries.
const AIM_AT: Duration = Duration::from_secs(2);
const AIM_SEARCH: Duration = Duration::from_millis(300);
const AIM_PROVED: Duration = Duration::from_secs(2);

/// Entries of ten commands: each has a request and an approval; nine a no, and one another approval and
/// the ledger's word that it suffices.
const OF_TEN: usize = 31;

/// Commands that run: each start waits for the one before it on its host's chain.
const STARTED: usize = 200;

/// Commands that are asked for at once.
const AT_ONCE: usize = 500;

/// Of which so many are authorized; the others end, as most do: what is open is held by every server.
const AUTHORIZED: usize = 50;

/// The whole log is read where it has at most so many entries: a client fetches two documents for each
/// command one by one, of which a server gives 200 a second.
const WHOLE: u64 = 150_000;

/// Rounds of each question; the median counts.
const ROUNDS: usize = 7;

/// Rows that a search asks for, as `audit search` does for a terminal.
const ROWS: u64 = 200;

fn main() {
    if !is_bench() {
        return;
    }
    tokio::runtime::Runtime::new().unwrap().block_on(bench());
}

async fn bench() {
    let count = setting("COUNTERSIGN_BENCH_PAST_ENTRIES", 100_000);
    let mut book = Book::new("past").await;
    let begun = Instant::now();
    fill(&book, count).await;
    let size = book.ledger().newest().size();
    eprintln!(
        "{size} entries after {:.0} s",
        begun.elapsed().as_secs_f64()
    );
    book.close().await;
    let shutdown = CancellationToken::new();
    let options = Options {
        database: book.url.clone().into(),
        keys: book.keys_folder().to_owned(),
        checkpoint_file: book.keys_folder().join("checkpoint"),
        start: countersign::ledger::StartRule::FileRequired,
        listen: "127.0.0.1:0".parse().unwrap(),
        way: Served::default(),
        witness_policy: None,
        feed: None,
        clock: countersign::clock::Clock::system(),
    };
    let server = Server::start(options, shutdown.clone()).await.unwrap();
    let connection = Connection {
        server: format!("http://{}", server.address()),
        way: Way::default(),
        pins: Pins {
            ledger: server.ledger(),
            vkey: None,
            origin: None,
        },
        state_home: book.keys_folder().join("memory"),
        signer: Signer::Software(key("alice")),
        principal: Some("alice".parse().unwrap()),
    };
    let running = tokio::spawn(server.run());
    let begun = Instant::now();
    while behind(&book).await {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let followed = begun.elapsed();
    sqlx::raw_sql("VACUUM ANALYZE")
        .execute(&book.owner)
        .await
        .unwrap();
    let client = Client::connect(&connection).await.unwrap();
    println!(
        "\n(h) the past: {size} entries, lists built in {:.0} s; medians of {ROUNDS}, over HTTP, every entry shown proved",
        followed.as_secs_f64()
    );
    questions(&client, size).await;
    if size <= WHOLE {
        let begun = Instant::now();
        let read = client.past(&Reach::default(), &mut |_, _| ()).await;
        drop(read.unwrap());
        println!(
            "{:<66} {:>9.0} ms",
            "baseline: the whole log read and audited (--whole)",
            begun.elapsed().as_secs_f64() * 1e3
        );
    }
    shutdown.cancel();
    running.await.unwrap().unwrap();
}

async fn behind(book: &Book) -> bool {
    let behind: Result<bool, _> = sqlx::query_scalar(
        "SELECT min(next) < (SELECT size FROM public.head) FROM projections.cursors",
    )
    .fetch_one(&book.app)
    .await;
    behind.unwrap_or(true)
}

/// Commands with words of their own, a tenth of them authorized; then some that run.
async fn fill(book: &Book, count: usize) {
    let mut asked = 0;
    while asked < count * 10 / OF_TEN {
        let view = book.view();
        let names: Vec<[String; 2]> = (asked..asked + AT_ONCE)
            .map(|n| {
                [
                    format!("service-{n}"),
                    format!("ticket {n}: the disk is full"),
                ]
            })
            .collect();
        let pairs = names.iter().map(|[service, reason]| {
            view.request(&Ask {
                argv: &["/usr/bin/systemctl", "restart", service],
                reason: reason.as_bytes(),
                ..ask("web-2")
            })
        });
        let (requests, acts): (Vec<_>, Vec<_>) = pairs.unzip();
        let requested = book.send_all(requests).await;
        let view = book.view();
        let yes = |who, (one, act): (&Receipt, &Act)| view.approval(who, one.id, act, book.policy);
        let all = || requested.iter().zip(&acts);
        let first = all().map(|pair| yes("bob", pair));
        book.send_all(first.collect()).await;
        let some = all().take(AUTHORIZED).map(|pair| yes("carol", pair));
        let others = all().skip(AUTHORIZED).map(|(one, _)| no(&view, one.id));
        book.send_all(some.chain(others).collect()).await;
        asked += AT_ONCE;
    }
    let started = book.runs("web-1", STARTED).await;
    let mut link = (STARTED as u64, started[STARTED - 1].started);
    for run in &started {
        let mut run: Run = run.clone();
        let view = book.view();
        let (chunk, _, data) = run.chunk(&view);
        book.send(signed("web-1", &chunk, vec![data])).await;
        let done = completion(&view, &run, link);
        let ended = book.send(signed("web-1", &done, Vec::new())).await;
        link = (link.0 + 1, ended.id);
    }
}

/// The median of some rounds.
async fn median(what: &str, aim: Duration, ask: impl AsyncFn() -> String) {
    let mut took = Vec::new();
    let mut said = String::new();
    for _round in 0..ROUNDS {
        let begun = Instant::now();
        said = ask().await;
        took.push(begun.elapsed());
    }
    took.sort();
    let median = took[ROUNDS / 2];
    let verdict = if median <= aim { "met" } else { "missed" };
    println!(
        "{what:<66} {:>9.0} ms   aim {:>5} ms {verdict}   {said}",
        median.as_secs_f64() * 1e3,
        aim.as_millis()
    );
}

async fn questions(client: &Client, size: u64) {
    let then = size / 2;
    for (what, status) in [
        ("at SEQ list (50 commands)", None),
        ("at SEQ list --status completed", Some("completed")),
    ] {
        median(what, AIM_AT, async || {
            let point = client.point(Some(Since::Entry(then))).await.unwrap();
            let past = listed(client, point, status).await;
            format!(
                "{} commands",
                past.map_or(0, |past| past.chronicle.state().commands().count())
            )
        })
        .await;
    }
    let now = client.point(None).await.unwrap().last;
    let at = Time::from_micros(now.as_micros() - 10_000_000).unwrap();
    median("at TIME agents", AIM_AT, async || {
        let point = client.point(Some(Since::Time(at))).await.unwrap();
        let past = client.gathered(&point, Keep::default(), &[]).await.unwrap();
        format!("as of entry {}", past.chronicle.size() - 1)
    })
    .await;
    for text in [
        "arg:service-7",
        "arg:*vice-1234*",
        "program:systemctl and not who:bob",
        "status:completed and host:web-1 and program:true",
        "exit:1..255 or label:env=prod",
        "output:\"xxxxxxxxxx\"",
        "output:\"no such text anywhere\"",
        "not host:web-2 and from:1000000",
    ] {
        let query = parse(text, |text| {
            let time = text.parse().ok().and_then(Time::from_micros);
            time.ok_or_else(|| "microseconds".to_owned())
        });
        let query = query.unwrap();
        let point = client.point(None).await.unwrap();
        let what = format!("search {text}: the answer");
        median(&what, AIM_SEARCH, async || {
            let runs = SearchFor::Runs(query.clone());
            let mut hits = client.hits(point.clone(), runs, None, ROWS);
            let found = hits.said().await.unwrap().unwrap_or_default();
            format!("{} rows, unproved", found.len())
        })
        .await;
        median("  and its first page proved", AIM_PROVED, async || {
            search(client, &query, ROWS).await
        })
        .await;
    }
}

async fn listed(
    client: &Client,
    point: countersign_cli::acts::Point,
    status: Option<&str>,
) -> Option<Past> {
    let search = SearchFor::Then {
        status: status.map(ToOwned::to_owned),
        open: false,
    };
    let mut hits = client.hits(point, search, None, 51);
    hits.next(Keep::default())
        .await
        .unwrap()
        .map(|(past, _)| past)
}

async fn search(client: &Client, query: &Query, rows: u64) -> String {
    let point = client.point(None).await.unwrap();
    let mut hits = client.hits(point, SearchFor::Runs(query.clone()), None, rows);
    let Some((past, found)) = hits.next(Keep::default()).await.unwrap() else {
        return "0 rows".to_owned();
    };
    let mut rows = runs(&past.chronicle);
    rows.retain(|row| found.iter().any(|hit| hit.command == row.id));
    assert!(
        rows.iter()
            .all(|row| fits(query, row, Sight::Unknown) != Fits::No)
    );
    format!("{} rows", rows.len())
}
