//! (k) Does it get slower as the history grows: asking, showing a command, listing?
//!
//! The same questions, over HTTP with one client that verifies all it gets, at a history and at one ten
//! times as long. One of [`OF_ENTRIES`] entries asks for a command, through the real writer, and two more end
//! it; the others are output of some runs, filled in as the ledger would have written it. The lists are built by the server. `COUNTERSIGN_BENCH_HISTORY` sets the shorter one (100,000 entries).
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

use countersign_cli::acts::RequestSpec;
use countersign_protocol::hash::CommandId;
use fixture::book::Book;
use fixture::fill;
use fixture::serve::Serve;
use fixture::{is_bench, setting};

/// The aim: ten times the history, so many times the latency at the most.
const AIM: f64 = 1.2;

/// Of so many entries one asks for a command.
const OF_ENTRIES: usize = 300;

/// Entries of output of a run, at the most: its limit of 64 MiB has room for more.
const OF_RUN: usize = 100_000;

/// Rounds of each question; the first tenth warms up and does not count.
const ROUNDS: usize = 330;

/// What is measured, in order.
const QUESTIONS: [&str; 3] = [
    "request, until its receipt",
    "show one command",
    "list, fifty rows",
];

fn main() {
    if !is_bench() {
        return;
    }
    tokio::runtime::Runtime::new().unwrap().block_on(bench());
}

async fn bench() {
    let short = setting("COUNTERSIGN_BENCH_HISTORY", 100_000);
    let mut book = Book::new("history").await;
    let pins = (book.ledger().id(), book.ledger().verifier().clone());
    println!("\n(k) history: the same questions at a history and at ten times as much; ms");
    let mut before: Option<Vec<[Duration; 2]>> = None;
    for (host, entries) in [("web-2", short), ("web-1", short * 9)] {
        let begun = Instant::now();
        let commands = entries / OF_ENTRIES;
        book.refused(host, commands).await;
        let runs = book.runs(host, entries.div_ceil(OF_RUN)).await;
        let view = book.view();
        book.close().await;
        fill::fill(&book, &view, runs, entries - 3 * commands).await;
        eprintln!("filled {entries} in {:.0} s", begun.elapsed().as_secs_f64());
        let serve = Serve::start(&book, pins.clone()).await;
        let begun = Instant::now();
        while behind(&book).await {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        eprintln!("lists built in {:.0} s", begun.elapsed().as_secs_f64());
        sqlx::raw_sql("VACUUM ANALYZE")
            .execute(&book.owner)
            .await
            .unwrap();
        let found = ask(&serve).await;
        drop(serve);
        // Its connections end with it, and so do its locks.
        tokio::time::sleep(Duration::from_secs(1)).await;
        book.open().await;
        println!("at {} entries", book.ledger().newest().size());
        for (number, (name, [half, most])) in QUESTIONS.iter().zip(&found).enumerate() {
            let ratio = before
                .as_ref()
                .map(|before| half.div_duration_f64(before[number][0]));
            let ratio = ratio.map_or_else(String::new, |ratio| {
                let word = if ratio <= AIM { "met" } else { "missed" };
                format!("   {ratio:.2} times the shorter   aim {AIM} {word}")
            });
            println!(
                "  {name:<30} p50 {:>7.2}   p99 {:>7.2}{ratio}",
                ms(*half),
                ms(*most)
            );
        }
        before = Some(found);
    }
}

async fn behind(book: &Book) -> bool {
    let behind: Result<bool, _> = sqlx::query_scalar(
        "SELECT min(next) < (SELECT size FROM public.head) FROM projections.cursors",
    )
    .fetch_one(&book.app)
    .await;
    behind.unwrap_or(true)
}

/// The median and the 99th percentile of each question.
async fn ask(serve: &Serve) -> Vec<[Duration; 2]> {
    let alice = serve.person("alice").await;
    let agent: countersign_protocol::target::Place = "web-2".parse().unwrap();
    let spec = RequestSpec::new(vec![agent], vec!["true".to_owned()], "bench");
    let mut ids: Vec<CommandId> = Vec::new();
    let mut times = vec![Vec::new(); QUESTIONS.len()];
    for round in 0..ROUNDS {
        let begun = Instant::now();
        ids.push(alice.request(&spec).await.unwrap().id);
        times[0].push(begun.elapsed());
        let begun = Instant::now();
        alice.fetch_command(&ids[round / 2]).await.unwrap();
        times[1].push(begun.elapsed());
        let begun = Instant::now();
        let page = alice.list(&[("limit", "50".to_owned())]).await.unwrap();
        assert!(!page.items.is_empty());
        times[2].push(begun.elapsed());
    }
    let quantiles = |times: &Vec<Duration>| {
        let mut times = times[ROUNDS / 10..].to_vec();
        times.sort_unstable();
        [times[times.len() / 2], times[times.len() * 99 / 100]]
    };
    times.iter().map(quantiles).collect()
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
