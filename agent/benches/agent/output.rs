//! What a byte of output costs: from the command's pipe to a signed chunk in a durable journal, in
//! the steps and with the bounds of `running.rs`; only the network is not in it.

use std::ffi::OsString;
use std::fs;
use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use countersign_agent::execution::{
    CHUNK_BYTES, Confinement, Plan, Program, Reach, RunEvent, Secrets, Step, run,
};
use countersign_agent::key;
use countersign_agent::spool::{About, Birth, Record, Spool};
use countersign_protocol::api::Submission;
use countersign_protocol::blob::Blob;
use countersign_protocol::event::{Event, ExecutionOutput, Seen, Stream};
use countersign_protocol::hash::{CommandId, Hash, KeyId, LedgerId, StatementId};
use countersign_protocol::key::PublicKey;
use countersign_protocol::name::Time;
use countersign_protocol::statement::Statement;
use ed25519_dalek::SigningKey;
use sha2::{Digest as _, Sha256};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::measure::{at, cpu, setting, timed};

/// The aim, in megabytes a second of one core's time.
const AIM: f64 = 200.0;

/// Messages that are written down together, as in `running.rs`.
const MAX_TAKEN: usize = 16;

/// Wall and processor time.
type Cost = (Duration, Duration);

/// Prints the part.
pub(crate) fn print() {
    let bytes = setting("COUNTERSIGN_BENCH_OUTPUT_MB", 64) * 1_000_000;
    let rounds = 5;
    let content = vec![b'x'; CHUNK_BYTES];
    let mut bench = Bench::new();
    let chunks = bytes.div_ceil(CHUNK_BYTES);
    let each = |work: &mut dyn FnMut()| cost(|| (0..chunks).for_each(|_| work()));
    let mut lines: Vec<(&str, Vec<Cost>)> = Vec::new();
    for _round in 0..rounds {
        let mut note = |name: &'static str, cost: Cost| match lines
            .iter_mut()
            .find(|(known, _)| *known == name)
        {
            Some((_, costs)) => costs.push(cost),
            None => lines.push((name, vec![cost])),
        };
        note("bare: pipe and read", cost(|| read_bare(bytes)));
        note(
            "bare: SHA-256, once",
            each(&mut || {
                black_box(Sha256::digest(&content));
            }),
        );
        note(
            "bare: write and fdatasync each MiB",
            cost(|| bench.write_bare(bytes)),
        );
        note(
            "execution::run alone: pipe, digest, chunks",
            cost(|| bench.run(bytes, false)),
        );
        let made = blob(&content);
        note(
            "part: digest of the blob, statement, signature",
            each(&mut || drop(black_box(bench.sign(0, StatementId::ZERO, &made)))),
        );
        let record = bench.record(0, StatementId::ZERO, content.clone());
        note(
            "part: record as JSON with base64",
            each(&mut || drop(black_box(serde_json::to_vec(&[&record]).unwrap()))),
        );
        let records = vec![record; MAX_TAKEN];
        note(
            "part: journal append, 16 chunks each",
            cost(|| bench.append_only(&records, chunks)),
        );
        note(
            "WHOLE: run, blob, sign, append",
            cost(|| bench.run(bytes, true)),
        );
    }
    println!(
        "\n(g) output: {} MB through one command, median of {rounds}; MB/s",
        bytes / 1_000_000
    );
    println!("{:<46} {:>8} {:>12}", "", "by clock", "by core");
    let megabytes = f64::from(u32::try_from(bytes).unwrap()) / 1e6;
    let rate = |costs: &[Cost], of: fn(&Cost) -> Duration| {
        let times: Vec<Duration> = costs.iter().map(of).collect();
        megabytes / at(&times, 0.5).as_secs_f64()
    };
    for (name, costs) in &lines {
        let (clock, core) = (rate(costs, |cost| cost.0), rate(costs, |cost| cost.1));
        println!("{name:<46} {clock:>8.0} {core:>12.0}");
    }
    let whole = rate(&lines.last().unwrap().1, |cost| cost.1);
    println!(
        "aim: {AIM:.0} MB/s of one core's time, it is {whole:.0} (the command's own time is not in it)"
    );
}

fn cost(work: impl FnOnce()) -> Cost {
    let before = cpu();
    let (clock, ()) = timed(work);
    (clock, cpu() - before)
}

fn writer(bytes: usize) -> (PathBuf, Vec<String>) {
    let arguments = ["head", "-c", &bytes.to_string(), "/dev/zero"];
    (
        "/usr/bin/head".into(),
        arguments.map(str::to_owned).to_vec(),
    )
}

/// What a reader with a thread of its own and a buffer of a chunk reaches.
fn read_bare(bytes: usize) {
    let (program, arguments) = writer(bytes);
    let mut child = Command::new(program)
        .args(&arguments[1..])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = child.stdout.take().unwrap();
    let (mut buffer, mut total) = (vec![0; CHUNK_BYTES], 0);
    loop {
        match pipe.read(&mut buffer).unwrap() {
            0 => break,
            length => total += length,
        }
    }
    assert!(child.wait().unwrap().success() && total == bytes);
}

fn blob(content: &[u8]) -> Blob {
    Blob::new(key::random().unwrap(), content.to_vec()).unwrap()
}

/// What a running agent holds for this.
struct Bench {
    runtime: Runtime,
    folder: tempfile::TempDir,
    key: SigningKey,
    signer: KeyId,
    command: CommandId,
    started: StatementId,
    number: u32,
}

impl Bench {
    fn new() -> Self {
        let key = SigningKey::from_bytes(&[7; 32]);
        Self {
            runtime: Runtime::new().unwrap(),
            folder: tempfile::tempdir().unwrap(),
            signer: PublicKey::of(&key).key_id(),
            key,
            command: CommandId::new([1; 32]),
            started: StatementId::new([2; 32]),
            number: 0,
        }
    }

    /// A journal in which a run has begun.
    fn spool(&mut self) -> (PathBuf, Arc<Spool>) {
        self.number += 1;
        let folder = self.folder.path().join(self.number.to_string());
        fs::create_dir(&folder).unwrap();
        let time = Time::from_micros(1).unwrap();
        let birth = Birth {
            key_id: self.signer,
            journal_id: "00".into(),
            created: time,
        };
        Spool::create(&folder, &birth).unwrap();
        let spool = Spool::open_bounded(&folder, u64::MAX, u64::MAX).unwrap();
        let (statement, _) = self.sign(0, StatementId::ZERO, &blob(b"x"));
        let id = self.started;
        let word = Record::Word {
            about: About::Started(self.command),
            id,
            submission: Submission::new(&statement, []),
        };
        spool.append([word]).unwrap();
        spool
            .append([Record::Answered { id, accepted: true }])
            .unwrap();
        (folder, Arc::new(spool))
    }

    /// As `Station::sign_events` does it.
    fn sign(
        &self,
        chunk_no: u64,
        chunk_prev: StatementId,
        blob: &Blob,
    ) -> (Statement, StatementId) {
        let event = Event::from(ExecutionOutput {
            signer: self.signer,
            agent: "web-1".parse().unwrap(),
            nonce: key::nonce().unwrap(),
            made_at: Time::from_micros(1_800_000_000_000_000).unwrap(),
            ledger: LedgerId::new([3; 32]),
            seen: Seen {
                size: 100,
                root: Hash::new([4; 32]),
            },
            command: self.command,
            started: self.started,
            chunk_no,
            chunk_prev,
            stream: Stream::Stdout,
            offset_us: 1000,
            data: blob.reference(),
        });
        let statement = Statement::sign(&event, &self.key).unwrap();
        let id = statement.id();
        (statement, id)
    }

    fn record(&self, chunk_no: u64, chunk_prev: StatementId, bytes: Vec<u8>) -> Record {
        let blob = Blob::new(key::random().unwrap(), bytes).unwrap();
        let (statement, id) = self.sign(chunk_no, chunk_prev, &blob);
        Record::Chunk {
            started: self.started,
            id,
            submission: Submission::new(&statement, [&blob]),
        }
    }

    fn append_only(&mut self, records: &[Record], chunks: usize) {
        let (folder, spool) = self.spool();
        for _append in 0..chunks.div_ceil(MAX_TAKEN) {
            spool.append(records).unwrap();
        }
        remove(&folder);
    }

    fn write_bare(&mut self, bytes: usize) {
        let path = self.folder.path().join("bare");
        let mut file = fs::File::create(&path).unwrap();
        for _write in 0..bytes >> 20 {
            file.write_all(&[b'x'; 1 << 20]).unwrap();
            file.sync_data().unwrap();
        }
        fs::remove_file(path).unwrap();
    }

    /// One command that writes so many bytes; `kept` signs and writes down what it says.
    fn run(&mut self, bytes: usize, kept: bool) {
        let (folder, spool) = self.spool();
        let (program, argv) = writer(bytes);
        let confinement = Confinement::default();
        let plan = Plan {
            first: Step {
                program: Program::resolve(program.as_os_str(), &[]).unwrap(),
                argv: argv.into_iter().map(OsString::from).collect(),
            },
            then: vec![],
            cwd: "/".into(),
            env: vec![],
            stdin: vec![],
            timeout: Duration::from_secs(120),
            grace: Duration::from_secs(1),
            output_limit: u64::MAX,
            stop_at_limit: false,
            secrets: Secrets::default(),
            secrets_place: None,
            reach: Reach::Tree,
            announced: Some(confinement.foresee().unwrap()),
            confinement,
        };
        let total = self.runtime.block_on(self.record_all(plan, &spool, kept));
        assert_eq!(total, bytes);
        remove(&folder);
    }

    /// As `Station::record` does it: one task, what is signed is written by a thread that may block
    /// while the run goes on.
    async fn record_all(&self, plan: Plan, spool: &Arc<Spool>, kept: bool) -> usize {
        let (sender, mut events) = mpsc::channel(MAX_TAKEN);
        let mut run = pin!(run(plan, CancellationToken::new(), sender));
        let (mut taken, mut running) = (Vec::with_capacity(MAX_TAKEN), true);
        let (mut total, mut chunk_no, mut last) = (0, 0, self.started);
        loop {
            let count = tokio::select! {
                ended = &mut run, if running => {
                    ended.unwrap();
                    running = false;
                    continue;
                }
                count = events.recv_many(&mut taken, MAX_TAKEN) => count,
            };
            if count == 0 {
                return total;
            }
            let mut records = Vec::new();
            for event in taken.drain(..) {
                let RunEvent::Chunk { bytes, .. } = event else {
                    continue;
                };
                total += bytes.len();
                if kept {
                    let record = self.record(chunk_no, last, bytes);
                    if let Record::Chunk { id, .. } = &record {
                        last = *id;
                    }
                    chunk_no += 1;
                    records.push(record);
                }
            }
            if records.is_empty() {
                continue;
            }
            let spool = Arc::clone(spool);
            let mut writing = pin!(tokio::task::spawn_blocking(move || spool.append(records)));
            loop {
                tokio::select! {
                    written = &mut writing => {
                        written.unwrap().unwrap();
                        break;
                    }
                    ended = &mut run, if running => {
                        ended.unwrap();
                        running = false;
                    }
                }
            }
        }
    }
}

fn remove(folder: &Path) {
    fs::remove_dir_all(folder).unwrap();
}
