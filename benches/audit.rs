//! (b) How many entries a second does a full audit take, beside bare `verify_strict`?
//!
//! On all cores: the signatures alone; `verify` of the same entries from memory; and `verify` of the
//! whole database, side tables, blobs and checkpoints included (`COUNTERSIGN_BENCH_AUDIT_ENTRIES`).
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    reason = "a bench fails by panicking, prints, and starts what it measures"
)]

#[expect(dead_code, reason = "the other benches use the rest of it")]
mod fixture;

use std::collections::HashMap;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use countersign_cli::verify::{self, EntryRow, Fetch, Held, Options, Pages, Source};
use countersign_protocol::audit;
use countersign_protocol::blob::Blob;
use countersign_protocol::entry::Entry;
use countersign_protocol::hash::Digest;
use countersign_protocol::key::PublicKey;
use countersign_protocol::sshsig;
use ed25519_dalek::{Signature, VerifyingKey};
use fixture::book::Book;
use fixture::peak::{self, Peak};
use fixture::run::MOST_CHUNKS;
use fixture::{cpu, fill, on_all_cores, setting};
use sqlx::Row as _;

/// The aim: this share of the bare figure.
const AIM: f64 = 80.0;

/// The aim for the memory of a process that verifies, in MiB.
const MEMORY_AIM: u64 = 200;

/// The program that verifies.
const PROGRAM: &str = env!("CARGO_BIN_EXE_countersign");

/// The log in memory, as a source of pages.
struct Memory {
    note: String,
    entries: Vec<Vec<u8>>,
    blobs: HashMap<Digest, Blob>,
}

struct InMemory(Arc<Memory>);

impl Pages for InMemory {
    fn newest(&mut self) -> Fetch<'_, Option<String>> {
        Box::pin(async { Ok(Some(self.0.note.clone())) })
    }

    fn entries(&mut self, from: u64, limit: u64) -> Fetch<'_, Vec<EntryRow>> {
        let (from, limit) = (
            usize::try_from(from).unwrap(),
            usize::try_from(limit).unwrap(),
        );
        let rows = self.0.entries.iter().enumerate().skip(from).take(limit);
        let rows = rows.map(|(seq, entry)| EntryRow {
            seq: seq as u64,
            entry: entry.clone(),
            leaf: None,
        });
        let rows = rows.collect();
        Box::pin(async { Ok(rows) })
    }

    fn blobs<'a>(&'a mut self, digests: &'a [Digest]) -> Fetch<'a, Vec<(Digest, Held)>> {
        let found = digests.iter().filter_map(|digest| {
            let blob = self.0.blobs.get(digest)?;
            Some((*digest, Held::Here(blob.clone())))
        });
        let found = found.collect();
        Box::pin(async { Ok(found) })
    }
}

fn main() {
    if !fixture::is_bench() {
        return;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(bench());
}

async fn bench() {
    let count = setting("COUNTERSIGN_BENCH_AUDIT_ENTRIES", 200_000);
    let mut book = Book::new("audit").await;
    let runs = book.runs("web-2", count.div_ceil(MOST_CHUNKS)).await;
    let view = book.view();
    book.close().await;
    fill::fill(&book, &view, runs, count).await;
    eprintln!("{count} entries are there");
    let memory = Arc::new(load(&book).await);
    let size = memory.entries.len() as f64;
    let parsed = on_all_cores(&memory.entries, |bytes| parse(bytes));
    let timed = Timed {
        postmaster: book.postmaster(),
        size,
    };
    let bare = timed
        .begin()
        .end("bare verify_strict, keys parsed before", || bare(&parsed));
    let alone = timed.begin().end(
        "each entry by itself: bytes, shape, leaf, signature",
        || {
            let good = on_all_cores(&memory.entries, |bytes| audit::check_entry(bytes).is_ok());
            assert!(good.into_iter().all(|good| good));
        },
    );
    let begun = timed.begin();
    verified(Source::Pages(Box::new(InMemory(Arc::clone(&memory))))).await;
    let from_memory = begun.end("verify, from memory: all that the log says", || ());
    let begun = timed.begin();
    verified(Source::Database(book.url.clone())).await;
    let what = "verify, from Postgres: and side tables, heap, all notes";
    let from_database = begun.end(what, || ());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!(
        "\n(b) audit: {size:.0} entries (execution.output, a blob of 200 B each), {cores} cores"
    );
    println!(
        "{:<56} {:>10} {:>8} {:>12} {:>12}",
        "", "entries/s", "of bare", "own us each", "postgres us"
    );
    let base = bare.rate;
    for line in [bare, alone, from_memory, from_database] {
        println!(
            "{:<56} {:>10.0} {:>7.0}% {:>12.1} {:>12.1}",
            line.what,
            line.rate,
            100.0 * line.rate / base,
            line.own_us,
            line.postgres_us
        );
    }
    println!("aim: {AIM:.0}% of bare");
    let whole = verified_by_itself(&book);
    println!(
        "`countersign verify --database`, a process of its own: {:.1} s, {} MiB at its peak (aim {MEMORY_AIM} MiB)",
        whole.took.as_secs_f64(),
        whole.mebibytes
    );
}

/// What the program takes to verify the whole database.
fn verified_by_itself(book: &Book) -> Peak {
    let mut verify = Command::new(PROGRAM);
    verify
        .args(["verify", "--json", "--database", &book.url])
        .env("HOME", book.keys_folder())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let peak = peak::run(&mut verify);
    assert!(peak.is_good, "the ledger of this bench does not verify");
    peak
}

/// What every line is measured over.
struct Timed {
    postmaster: i32,
    size: f64,
}

/// A measurement under way.
struct Begun<'a> {
    timed: &'a Timed,
    used: cpu::Used,
    at: Instant,
}

/// One line of the table.
struct Line {
    what: &'static str,
    rate: f64,
    own_us: f64,
    postgres_us: f64,
}

impl Timed {
    fn begin(&self) -> Begun<'_> {
        Begun {
            timed: self,
            used: cpu::used(self.postmaster),
            at: Instant::now(),
        }
    }
}

impl Begun<'_> {
    fn end(self, what: &'static str, work: impl FnOnce()) -> Line {
        work();
        let took = self.at.elapsed();
        let used = cpu::used(self.timed.postmaster);
        let size = self.timed.size;
        Line {
            what,
            rate: size / took.as_secs_f64(),
            own_us: (used.own - self.used.own).as_secs_f64() * 1e6 / size,
            postgres_us: (used.postgres - self.used.postgres).as_secs_f64() * 1e6 / size,
        }
    }
}

async fn verified(source: Source) {
    let report = verify::verify(Options::new(source)).await.unwrap();
    assert!(report.ok, "{report:?}");
}

/// Key, message and signature of an entry.
type Parsed = (VerifyingKey, Vec<u8>, Signature);

fn parse(bytes: &[u8]) -> Parsed {
    let entry = Entry::decode(bytes).unwrap();
    let signature = sshsig::SshSig::from_blob(&entry.statement.signature).unwrap();
    let PublicKey::Ed25519(key) = signature.key() else {
        unreachable!("keys of this bench are in software");
    };
    let namespace = entry.statement.kind.namespace();
    let message = sshsig::signed_data(namespace, &entry.statement.payload);
    // The signature's 64 bytes end the blob.
    let blob = &entry.statement.signature;
    let bytes: [u8; 64] = blob[blob.len() - 64..].try_into().unwrap();
    let key = VerifyingKey::from_bytes(key.as_bytes()).unwrap();
    (key, message, Signature::from_bytes(&bytes))
}

/// The signatures alone: keys and signatures parsed, messages built, before the time runs.
fn bare(parsed: &[Parsed]) {
    let good = on_all_cores(parsed, |(key, message, signature)| {
        key.verify_strict(message, signature).is_ok()
    });
    assert!(good.into_iter().all(|good| good));
}

async fn load(book: &Book) -> Memory {
    let entries = sqlx::query("SELECT entry FROM entries ORDER BY seq")
        .fetch_all(&book.app)
        .await
        .unwrap();
    let blobs = sqlx::query("SELECT digest, salt, content FROM blobs")
        .fetch_all(&book.app)
        .await
        .unwrap();
    let blob = |row: &sqlx::postgres::PgRow| {
        let salt: Vec<u8> = row.get("salt");
        let blob = Blob::new(salt.try_into().unwrap(), row.get("content")).unwrap();
        (Digest::from_slice(row.get("digest")).unwrap(), blob)
    };
    let note = sqlx::query("SELECT note FROM head")
        .fetch_one(&book.app)
        .await
        .unwrap();
    Memory {
        note: note.get("note"),
        entries: entries.iter().map(|row| row.get("entry")).collect(),
        blobs: blobs.iter().map(blob).collect(),
    }
}
