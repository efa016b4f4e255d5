//! (i) Output of 100,000,000 bytes: how fast is it run, exported, verified, made a cast of and replayed?
//!
//! Real parts in real processes: `countersign dev` (Postgres with fsync on, the server, an agent of its
//! own), and for each figure one `countersign` from its start to its end, through `ssh-keygen`. One run
//! keeps at most 64 MiB of output, so these are two runs of 50,000,000 bytes each; the bundle holds both.
//! Beside them the same bytes hashed and written to a file by one thread.
//! `COUNTERSIGN_BENCH_OUTPUT_BYTES` sets how much each run writes.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    reason = "a bench fails by panicking, prints, and starts what it measures"
)]

#[path = "fixture/dev.rs"]
mod dev;
#[expect(dead_code, reason = "the other benches use the rest of it")]
mod fixture;

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use countersign::keys;
use countersign_cli::acts::{Client, RequestSpec};
use countersign_cli::sign::Signer;
use countersign_cli::view::CommandView;
use countersign_protocol::command::MAX_OUTPUT_LIMIT;
use countersign_protocol::event::Kind;
use countersign_protocol::hash::CommandId;
use dev::{Dev, PROGRAM};
use fixture::peak::{self, Peak};
use fixture::{is_bench, setting};
use sha2::{Digest as _, Sha256};

/// Bytes that each run writes.
const BYTES: usize = 50_000_000;

/// Runs, so that all of them have written 100,000,000 bytes.
const RUNS: usize = 2;

fn main() {
    if !is_bench() {
        return;
    }
    let bytes = setting("COUNTERSIGN_BENCH_OUTPUT_BYTES", BYTES);
    let dev = Dev::start("output");
    let file = dev.folder.path().join("text");
    write_text(&file, bytes);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let all = bytes * RUNS;
    println!(
        "\n(i) output: {RUNS} runs of {bytes} B, {} cores for client, server, Postgres (fsync on) and agent",
        std::thread::available_parallelism().map_or(1, usize::from)
    );
    println!("{:<58} {:>8} {:>8} {:>10}", "", "s", "MB/s", "peak MiB");
    let bare = bare(&dev, &file);
    line(
        "bare: SHA-256 and write to a file, one thread",
        all,
        bare,
        None,
    );
    let (ids, ran) = runtime.block_on(ran(&dev, &file));
    line(
        "run: `cat`, from its start to its end in the log",
        all,
        ran.in_log,
        None,
    );
    line(
        "  and until the server's lists show its end",
        all,
        ran.listed,
        None,
    );
    let folder = dev.folder.path().to_path_buf();
    let bundle = folder.join("bundle.tar");
    let words: Vec<String> = ids.iter().map(ToString::to_string).collect();
    let mut export = alice(&dev);
    export.arg("export").args(&words).arg("-o").arg(&bundle);
    said(
        "export: both as one bundle, checked on the way",
        all,
        &peak::run(&mut export),
    );
    let size = fs::metadata(&bundle).unwrap().len();
    let mut verify = alice(&dev);
    verify.arg("verify").arg(&bundle);
    said(
        "verify of that bundle, without a server",
        all,
        &peak::run(&mut verify),
    );
    each(&dev, "export --cast", &words, bytes, |command, id| {
        let cast = folder.join(id).with_extension("cast");
        command.args(["export", id, "--cast", "-o"]).arg(cast);
    });
    each(
        &dev,
        "replay --no-wait, to nowhere",
        &words,
        bytes,
        |command, id| {
            command.args(["replay", id, "--no-wait"]);
        },
    );
    println!("the bundle has {size} B");
}

/// Lines that differ, as a build writes them.
fn write_text(file: &Path, bytes: usize) {
    let mut out = BufWriter::new(File::create(file).unwrap());
    let mut left = bytes;
    for number in 0_u64.. {
        let hash = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let line = format!(
            "[{number:>9}] Compiling module-{hash:016x} v0.{}.0\n",
            hash % 97
        );
        let some = line.len().min(left);
        out.write_all(&line.as_bytes()[..some]).unwrap();
        left -= some;
        if left == 0 {
            break;
        }
    }
    out.flush().unwrap();
}

/// The same bytes, hashed and written; not fsynced, as a bundle is not.
fn bare(dev: &Dev, file: &Path) -> Duration {
    let text = fs::read(file).unwrap();
    let begun = Instant::now();
    let mut hash = Sha256::new();
    let mut out = File::create(dev.folder.path().join("bare")).unwrap();
    for _run in 0..RUNS {
        for chunk in text.chunks(64 * 1024) {
            hash.update(chunk);
            out.write_all(chunk).unwrap();
        }
    }
    let _digest = hash.finalize();
    begun.elapsed()
}

/// How long the runs took together.
#[derive(Default)]
struct Ran {
    /// By the ledger's times of their starts and ends.
    in_log: Duration,
    /// From their last approval until a list shows that they have ended: their output can be searched then.
    listed: Duration,
}

/// Asks for the runs, one after the other, and waits for their ends.
async fn ran(dev: &Dev, file: &Path) -> (Vec<CommandId>, Ran) {
    let mut people = Vec::new();
    for name in ["alice", "bob", "carol"] {
        let signer = Signer::Software(keys::read(&dev.key(name)).unwrap());
        people.push(dev.client(name, Path::new("prepare"), signer).await);
    }
    let agent = dev.env("COUNTERSIGN_AGENT").parse().unwrap();
    let argv = vec!["cat".to_owned(), file.display().to_string()];
    let spec = RequestSpec {
        output_limit: MAX_OUTPUT_LIMIT,
        ..RequestSpec::new(vec![agent], argv, "bench")
    };
    let mut ids = Vec::new();
    let mut took = Ran::default();
    for run in 0..RUNS {
        let id = people[0].request(&spec).await.unwrap().id;
        people[1].approve(&id, None).await.unwrap();
        let begun = Instant::now();
        people[2].approve(&id, None).await.unwrap();
        until_completed(&people[0], &id).await;
        took.listed += begun.elapsed();
        took.in_log += in_log(&people[0].fetch_command(&id).await.unwrap());
        eprintln!("run {run} has ended");
        ids.push(id);
    }
    (ids, took)
}

/// Between the two entries, as the ledger dated them.
fn in_log(view: &CommandView) -> Duration {
    let of = |wanted: Kind| {
        let mut entries = view.entries.iter().map(|link| &link.entry);
        let found = entries.find(|entry| entry.verified.event().kind() == wanted);
        found
            .unwrap_or_else(|| panic!("no {}", wanted.as_str()))
            .time
    };
    let micros = of(Kind::ExecutionCompleted).micros_since(of(Kind::ExecutionStarted));
    Duration::from_micros(micros)
}

/// By the server's list: to follow would verify on the same cores.
async fn until_completed(client: &Client, id: &CommandId) {
    let wanted = id.to_string();
    loop {
        let page = client.list(&[("limit", "10".to_owned())]).await.unwrap();
        let item = page.items.into_iter().find(|item| item.id == wanted);
        match item.map(|item| item.status).as_deref() {
            Some("completed") => return,
            Some("authorized" | "running" | "requested") | None => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Some(status) => panic!("it ended as {status}"),
        }
    }
}

/// The program as alice calls it, with a memory of its own.
fn alice(dev: &Dev) -> Command {
    let mut command = Command::new(PROGRAM);
    for name in ["SERVER", "LEDGER", "VKEY", "ORIGIN"] {
        let name = format!("COUNTERSIGN_{name}");
        command.env(&name, dev.env(&name));
    }
    let home: PathBuf = dev.folder.path().join("alice");
    command
        .env("COUNTERSIGN_KEY", dev.key("alice"))
        .env("HOME", home)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit());
    command
}

/// One verb for each run, one after the other; the worst peak counts.
fn each(
    dev: &Dev,
    what: &str,
    ids: &[String],
    bytes: usize,
    arguments: impl Fn(&mut Command, &str),
) {
    let mut both = Peak {
        took: Duration::ZERO,
        mebibytes: 0,
        is_good: true,
    };
    for id in ids {
        let mut command = alice(dev);
        arguments(&mut command, id);
        let one = peak::run(&mut command);
        both.took += one.took;
        both.mebibytes = both.mebibytes.max(one.mebibytes);
        both.is_good &= one.is_good;
    }
    said(
        &format!("{what}, one after the other"),
        bytes * ids.len(),
        &both,
    );
}

fn said(what: &str, bytes: usize, peak: &Peak) {
    assert!(peak.is_good, "{what}: failed");
    line(what, bytes, peak.took, Some(peak.mebibytes));
}

fn line(what: &str, bytes: usize, took: Duration, mebibytes: Option<u64>) {
    let seconds = took.as_secs_f64();
    let rate = bytes as f64 / seconds / 1e6;
    let peak = mebibytes.map_or_else(|| "-".to_owned(), |peak| peak.to_string());
    println!("{what:<58} {seconds:>8.2} {rate:>8.1} {peak:>10}");
}
