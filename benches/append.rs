//! (a) How many signed statements a second go through admission, writer and Postgres with fsync on?
//!
//! Beside it, in the same run: the same entries' bytes by plain batched INSERT into one table. On an
//! empty ledger and with a million entries present (`COUNTERSIGN_BENCH_ENTRIES`), with and without
//! the linking trigger; and how long one append takes when a thousand a second come in.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a bench fails by panicking, and prints"
)]

#[expect(dead_code, reason = "the other benches use the rest of it")]
mod fixture;

use std::time::{Duration, Instant};

use countersign::ledger::Submission;
use countersign::server::CONNECTIONS;
use fixture::book::{self, Book};
use fixture::run::{CHUNK_BYTES, MOST_CHUNKS, Run};
use fixture::statements::key;
use fixture::{cpu, fill, on_all_cores, setting};
use sqlx::Row as _;

/// Aims: statements a second, and the 99th percentile of one append.
const AIM_RATE: f64 = 15_000.0;
const AIM_P99: Duration = Duration::from_millis(50);

/// Runs that write output side by side: two full batches, so that one fills while one commits.
const RUNS: usize = 1024;

/// Statements that one figure is measured over.
const STATEMENTS: usize = 32_768;

/// The steady load and how long it lasts.
const STEADY_RATE: usize = 1000;
const STEADY_SECONDS: usize = 10;

/// Statements in a plain INSERT, as many as in a batch of the ledger.
const PLAIN_BATCH: i64 = 512;

/// One line of the table.
struct Figure {
    present: u64,
    trigger: bool,
    kind: &'static str,
    blobs: usize,
    rate: f64,
    batch: f64,
    entry_bytes: f64,
    plain: f64,
    own_us: f64,
    postgres_us: f64,
}

fn main() {
    if !fixture::is_bench() {
        return;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(bench());
}

async fn bench() {
    let entries = setting("COUNTERSIGN_BENCH_ENTRIES", 1_000_000);
    let mut book = Book::new("append").await;
    eprintln!("appending to {}", book.url);
    let fsync = commits_a_second(&book).await;
    let mut runs = book.runs("web-1", RUNS).await;
    let mut figures = Vec::new();
    let mut steady = Vec::new();
    measure(&book, &mut runs, &mut figures, &mut steady).await;
    if entries > 0 {
        let long = book.runs("web-2", entries.div_ceil(MOST_CHUNKS)).await;
        let view = book.view();
        book.close().await;
        let begun = Instant::now();
        fill::fill(&book, &view, long, entries).await;
        eprintln!(
            "filled {entries} entries in {:.0} s",
            begun.elapsed().as_secs_f64()
        );
        let begun = Instant::now();
        book.open().await;
        eprintln!(
            "opened the ledger in {:.1} s",
            begun.elapsed().as_secs_f64()
        );
        measure(&book, &mut runs, &mut figures, &mut steady).await;
    }
    print(&figures, &steady, fsync);
}

async fn measure(
    book: &Book,
    runs: &mut [Run],
    figures: &mut Vec<Figure>,
    steady: &mut Vec<(u64, Vec<Duration>)>,
) {
    for trigger in [true, false] {
        set_trigger(book, trigger).await;
        let chunks = chunks(book, runs, STATEMENTS / RUNS);
        figures.push(timed(book, "execution.output", 1, trigger, chunks).await);
        let view = book.view();
        let (requests, acts): (Vec<_>, Vec<_>) = (0..STATEMENTS)
            .map(|_| view.request(&book::ask("web-1")))
            .unzip();
        let ids: Vec<_> = requests
            .iter()
            .map(|request| request.statement.id())
            .collect();
        figures.push(timed(book, "command.requested", 3, trigger, in_lanes(requests)).await);
        let view = book.view();
        let requested: Vec<_> = ids.into_iter().zip(acts).collect();
        let approvals = on_all_cores(&requested, |(id, act)| {
            view.approval("bob", *id, act, book.policy)
        });
        figures.push(timed(book, "command.approved", 0, trigger, in_lanes(approvals)).await);
    }
    set_trigger(book, true).await;
    let present = book.ledger().newest().size();
    steady.push((present, steady_load(book, runs).await));
}

async fn set_trigger(book: &Book, on: bool) {
    let word = if on { "ENABLE" } else { "DISABLE" };
    let sql = format!("ALTER TABLE entries {word} TRIGGER linking");
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
        .execute(&book.owner)
        .await
        .unwrap();
}

/// The next chunks of every run, signed.
fn chunks(book: &Book, runs: &mut [Run], each: usize) -> Vec<Vec<Submission>> {
    let view = book.view();
    let signer = key("web-1");
    let unsigned: Vec<Vec<_>> = runs
        .iter_mut()
        .map(|run| (0..each).map(|_| run.chunk(&view)).collect())
        .collect();
    on_all_cores(&unsigned, |lane| {
        let sign = |(event, _, blob): &(_, Vec<u8>, countersign_protocol::blob::Blob)| Submission {
            statement: countersign_protocol::statement::Statement::sign(event, &signer).unwrap(),
            blobs: vec![blob.clone()],
        };
        lane.iter().map(sign).collect()
    })
}

/// Deals statements that need no order to as many submitters as there are runs.
fn in_lanes(submissions: Vec<Submission>) -> Vec<Vec<Submission>> {
    let mut lanes: Vec<Vec<Submission>> = (0..RUNS).map(|_| Vec::new()).collect();
    for (index, submission) in submissions.into_iter().enumerate() {
        lanes[index % RUNS].push(submission);
    }
    lanes
}

/// Every submitter sends its next statement when it has the receipt of the one before.
async fn timed(
    book: &Book,
    kind: &'static str,
    blobs: usize,
    trigger: bool,
    lanes: Vec<Vec<Submission>>,
) -> Figure {
    let count: usize = lanes.iter().map(Vec::len).sum();
    let present = book.ledger().newest().size();
    let batches = checkpoints(book).await;
    eprintln!("timing {count} {kind}");
    let before = cpu::used(book.postmaster());
    let begun = Instant::now();
    let submitters: Vec<_> = lanes
        .into_iter()
        .map(|lane| {
            let ledger = book.ledger().clone();
            tokio::spawn(async move {
                for submission in lane {
                    ledger.append(submission).await.unwrap();
                }
            })
        })
        .collect();
    for submitter in submitters {
        submitter.await.unwrap();
    }
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    let after = cpu::used(book.postmaster());
    let each = |spent: Duration| spent.as_secs_f64() * 1e6 / count as f64;
    let own_us = each(after.own.saturating_sub(before.own));
    let postgres_us = each(after.postgres.saturating_sub(before.postgres));
    let batch = count as f64 / (checkpoints(book).await - batches) as f64;
    let (entries, bytes) = sizes(book, present).await;
    let plain = plain(book, present, entries).await;
    eprintln!("{present} present, trigger {trigger}, {kind}: {rate:.0}/s");
    Figure {
        present,
        trigger,
        kind,
        blobs,
        rate,
        batch,
        entry_bytes: bytes as f64 / entries as f64,
        plain,
        own_us,
        postgres_us,
    }
}

/// Size of the log's entries: how many and how many bytes.
async fn sizes(book: &Book, from: u64) -> (u64, u64) {
    let row = sqlx::query(
        "SELECT count(*) AS n, coalesce(sum(octet_length(entry)), 0)::bigint AS bytes
         FROM entries WHERE seq >= $1",
    )
    .bind(i64::try_from(from).unwrap())
    .fetch_one(&book.owner)
    .await
    .unwrap();
    let number = |name| u64::try_from(row.get::<i64, _>(name)).unwrap();
    (number("n"), number("bytes"))
}

async fn checkpoints(book: &Book) -> i64 {
    let row = sqlx::query("SELECT count(*) FROM checkpoints");
    row.fetch_one(&book.owner).await.unwrap().get(0)
}

/// The same entries into a table of their own: no index but the key, no trigger, no hash.
async fn plain(book: &Book, from: u64, count: u64) -> f64 {
    let mut connection = book.owner.acquire().await.unwrap();
    let table = "DROP TABLE IF EXISTS plain;
        CREATE TABLE plain (seq bigint PRIMARY KEY, entry bytea NOT NULL);
        ALTER TABLE plain ALTER COLUMN entry SET STORAGE EXTERNAL";
    sqlx::raw_sql(table)
        .execute(&mut *connection)
        .await
        .unwrap();
    let rows = sqlx::query("SELECT seq, entry FROM entries WHERE seq >= $1 ORDER BY seq")
        .bind(i64::try_from(from).unwrap())
        .fetch_all(&mut *connection)
        .await
        .unwrap();
    let rows: Vec<(i64, Vec<u8>)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let begun = Instant::now();
    for batch in rows.chunks(usize::try_from(PLAIN_BATCH).unwrap()) {
        let seqs: Vec<i64> = batch.iter().map(|row| row.0).collect();
        let entries: Vec<&[u8]> = batch.iter().map(|row| row.1.as_slice()).collect();
        sqlx::query("INSERT INTO plain SELECT * FROM unnest($1::bigint[], $2::bytea[])")
            .bind(seqs)
            .bind(entries)
            .execute(&mut *connection)
            .await
            .unwrap();
    }
    count as f64 / begun.elapsed().as_secs_f64()
}

/// What the disk allows: single-row transactions, one after the other.
async fn commits_a_second(book: &Book) -> f64 {
    const COMMITS: i32 = 500;
    let mut connection = book.owner.acquire().await.unwrap();
    sqlx::raw_sql("CREATE TABLE commits (n int)")
        .execute(&mut *connection)
        .await
        .unwrap();
    let begun = Instant::now();
    for n in 0..COMMITS {
        sqlx::query("INSERT INTO commits VALUES ($1)")
            .bind(n)
            .execute(&mut *connection)
            .await
            .unwrap();
    }
    f64::from(COMMITS) / begun.elapsed().as_secs_f64()
}

/// Sends at a fixed rate, whatever the answers do; each is timed from when it was due.
async fn steady_load(book: &Book, runs: &mut [Run]) -> Vec<Duration> {
    let count = STEADY_RATE * STEADY_SECONDS;
    let lanes = chunks(book, runs, count.div_ceil(RUNS));
    let mut lanes: Vec<_> = lanes.into_iter().map(Vec::into_iter).collect();
    let begun = tokio::time::Instant::now();
    let mut waiting = Vec::new();
    for index in 0..count {
        let due =
            begun + Duration::from_secs(1) * u32::try_from(index).unwrap() / STEADY_RATE as u32;
        tokio::time::sleep_until(due).await;
        let submission = lanes[index % RUNS].next().unwrap();
        let ledger = book.ledger().clone();
        waiting.push(tokio::spawn(async move {
            ledger.append(submission).await.unwrap();
            due.elapsed()
        }));
    }
    // What was signed ahead and not sent keeps the runs' chains whole.
    let rest: Vec<Submission> = lanes.into_iter().flatten().collect();
    let mut took = Vec::new();
    for answer in waiting {
        took.push(answer.await.unwrap());
    }
    book.send_all(rest).await;
    took.sort_unstable();
    took
}

fn print(figures: &[Figure], steady: &[(u64, Vec<Duration>)], commits: f64) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!(
        "\n(a) append: {cores} cores shared with Postgres, fsync on ({commits:.0} single commits/s), \
         {CONNECTIONS} connections, {RUNS} submitters, {STATEMENTS} statements a figure, \
         output chunks of {CHUNK_BYTES} B"
    );
    println!(
        "{:>9}  {:<7}  {:<18} {:>5} {:>7} {:>6} {:>12} {:>9} {:>9} {:>7} {:>9} {:>11}",
        "present",
        "trigger",
        "kind",
        "blobs",
        "entry B",
        "batch",
        "statements/s",
        "plain/s",
        "of plain",
        "of aim",
        "server us",
        "postgres us"
    );
    for figure in figures {
        println!(
            "{:>9}  {:<7}  {:<18} {:>5} {:>7.0} {:>6.0} {:>12.0} {:>9.0} {:>8.0}% {:>6.0}% {:>9.0} {:>11.0}",
            figure.present,
            if figure.trigger { "on" } else { "off" },
            figure.kind,
            figure.blobs,
            figure.entry_bytes,
            figure.batch,
            figure.rate,
            figure.plain,
            100.0 * figure.rate / figure.plain,
            100.0 * figure.rate / AIM_RATE,
            figure.own_us,
            figure.postgres_us,
        );
    }
    for (present, took) in steady {
        let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
        println!(
            "one append at {STEADY_RATE}/s, {present} present: p50 {:.1} ms, p99 {:.1} ms (aim {} ms), max {:.1} ms",
            at(0.5).as_secs_f64() * 1000.0,
            at(0.99).as_secs_f64() * 1000.0,
            AIM_P99.as_millis(),
            at(1.0).as_secs_f64() * 1000.0,
        );
    }
    println!("aim: {AIM_RATE:.0} statements/s");
}
