//! (c) How long is a command's way: request, two approvals, `true` run on a host, completion seen?
//!
//! Real parts in real processes: `countersign dev` (Postgres with fsync on, the server, an agent of
//! its own) and one client a person, each with a memory of its own. Once with keys in this process
//! and once through `ssh-keygen`; beside them, in the same run, bare starts of `true`, bare
//! signatures of `ssh-keygen` and bare fsyncs. `COUNTERSIGN_BENCH_ROUNDS` sets how many rounds.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a bench fails by panicking, prints, and starts what it measures"
)]

#[path = "fixture/dev.rs"]
mod dev;
#[expect(dead_code, reason = "the other benches use the rest of it")]
mod fixture;

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use countersign::keys;
use countersign_cli::acts::{Client, RequestSpec, Step};
use countersign_cli::sign::Signer;
use countersign_protocol::event::Kind;
use countersign_protocol::hash::CommandId;
use countersign_protocol::lifecycle::CommandStatus;
use dev::Dev;
use fixture::{is_bench, setting};

/// The aim for the median of the whole way, with keys in the process.
const AIM: Duration = Duration::from_millis(60);

/// Rounds before the clock counts: sessions, connections, plans and caches are then as they stay.
const WARM_UP: usize = 20;

/// Who asks, and the two who approve.
const NAMES: [&str; 3] = ["alice", "bob", "carol"];

fn main() {
    if !is_bench() {
        return;
    }
    let rounds = setting("COUNTERSIGN_BENCH_ROUNDS", 200);
    let dev = Dev::start("life");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut bare = Bare::default();
    bare.measure(&dev, rounds);
    let software = runtime.block_on(lives(&dev, rounds, "software", |key| {
        Signer::Software(keys::read(key).unwrap())
    }));
    bare.measure(&dev, rounds);
    let keygen = runtime.block_on(lives(&dev, rounds, "ssh-keygen", |key| {
        Signer::SshKeygen(key.to_path_buf())
    }));
    bare.measure(&dev, rounds);
    print(&software, &keygen, &bare);
}

/// When each step of one command was there, since its requester began.
struct Life {
    /// The request's receipt was checked.
    requested: Duration,
    /// The first approver read, verified, signed, and has the receipt.
    approved: Duration,
    /// The same of the second.
    approved_again: Duration,
    /// The requester, who listens, has verified `command.authorized`.
    authorized: Duration,
    /// The same of the agent's `execution.started`.
    started: Duration,
    /// The same of `execution.completed`.
    completed: Duration,
    /// The whole story was fetched again with its proofs.
    proven: Duration,
}

/// Warms up, then leads commands through their whole life, one after the other.
async fn lives(
    dev: &Dev,
    rounds: usize,
    memory: &str,
    signer: impl Fn(&Path) -> Signer,
) -> Vec<Life> {
    eprintln!("{rounds} commands, signed by {memory}");
    let mut people = Vec::new();
    for name in NAMES {
        let signer = signer(&dev.key(name));
        people.push(Arc::new(dev.client(name, Path::new(memory), signer).await));
    }
    let agent = dev.env("COUNTERSIGN_AGENT").parse().unwrap();
    let spec = RequestSpec::new(vec![agent], vec!["true".to_owned()], "bench");
    let mut lives = Vec::new();
    for round in 0..WARM_UP + rounds {
        let life = life(&people, &spec).await;
        if round >= WARM_UP {
            lives.push(life);
        }
    }
    lives
}

async fn life(people: &[Arc<Client>], spec: &RequestSpec) -> Life {
    let [asks, consents, agrees] = people else {
        unreachable!("three people");
    };
    let begun = Instant::now();
    let id = asks.request(spec).await.unwrap().id;
    let requested = begun.elapsed();
    let listening = tokio::spawn(listen(Arc::clone(asks), id, begun));
    consents.approve(&id, None).await.unwrap();
    let approved = begun.elapsed();
    agrees.approve(&id, None).await.unwrap();
    let approved_again = begun.elapsed();
    let (seen, proven) = listening.await.unwrap();
    let when = |wanted: Kind| {
        let found = seen.iter().find(|(kind, _)| *kind == wanted);
        found.unwrap_or_else(|| panic!("no {}", wanted.as_str())).1
    };
    Life {
        requested,
        approved,
        approved_again,
        authorized: when(Kind::CommandAuthorized),
        started: when(Kind::ExecutionStarted),
        completed: when(Kind::ExecutionCompleted),
        proven,
    }
}

/// Follows a command as `countersign run` does; gives when each entry was verified, and the proof.
async fn listen(
    client: Arc<Client>,
    id: CommandId,
    begun: Instant,
) -> (Vec<(Kind, Duration)>, Duration) {
    let mut seen = Vec::new();
    let mut note = |step: Step<'_>| {
        if let Step::Entry { link, .. } = step {
            seen.push((link.entry.verified.event().kind(), begun.elapsed()));
        }
        Ok(())
    };
    let view = client.follow(&id, &mut note).await.unwrap();
    let proven = begun.elapsed();
    assert_eq!(view.command.status(), CommandStatus::Completed);
    (seen, proven)
}

/// What the parts cost by themselves.
#[derive(Default)]
struct Bare {
    /// Start `true` and wait for its end.
    runs: Vec<Duration>,
    /// One signature of `ssh-keygen`.
    signatures: Vec<Duration>,
    /// Write 200 bytes to a file that is there, and fdatasync.
    syncs: Vec<Duration>,
}

impl Bare {
    /// Measures each once more; called between the lives, so that all see the same machine.
    fn measure(&mut self, dev: &Dev, rounds: usize) {
        let timed = |times: &mut Vec<Duration>, work: &mut dyn FnMut()| {
            for _round in 0..rounds.div_ceil(3) {
                let begun = Instant::now();
                work();
                times.push(begun.elapsed());
            }
        };
        timed(&mut self.runs, &mut || {
            assert!(Command::new("true").status().unwrap().success());
        });
        let key = dev.key(NAMES[0]);
        timed(&mut self.signatures, &mut || sign(&key));
        let mut file = File::create(dev.folder.path().join("synced")).unwrap();
        timed(&mut self.syncs, &mut || {
            file.write_all(&[0; 200]).unwrap();
            file.sync_data().unwrap();
        });
    }
}

fn sign(key: &Path) {
    let mut child = Command::new("ssh-keygen")
        .args(["-q", "-Y", "sign", "-n", "bench", "-f"])
        .arg(key)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(&[b'x'; 1024]).unwrap();
    drop(input);
    assert!(child.wait().unwrap().success());
}

/// A line of the table: its name, and its time in one life.
type Stage = (&'static str, fn(&Life) -> Duration);

/// One after the other, the first five are the whole way.
const STAGES: [Stage; 8] = [
    ("request: read rights, sign, receipt", |life| life.requested),
    ("approval 1: read, verify, sign, receipt", |life| {
        life.approved.saturating_sub(life.requested)
    }),
    ("approval 2, until authorized is seen", |life| {
        life.authorized.saturating_sub(life.approved)
    }),
    ("agent: verified, started is in the log", |life| {
        life.started.saturating_sub(life.authorized)
    }),
    ("agent: ran, completed is in the log", |life| {
        life.completed.saturating_sub(life.started)
    }),
    ("WHOLE WAY", |life| life.completed),
    ("beside it: approval 2 until its receipt", |life| {
        life.approved_again.saturating_sub(life.approved)
    }),
    ("after it: fetched again, all proofs checked", |life| {
        life.proven.saturating_sub(life.completed)
    }),
];

fn print(software: &[Life], keygen: &[Life], bare: &Bare) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!(
        "\n(c) life of `true`: {cores} cores for clients, server, Postgres (fsync on) and agent; \
         {} commands, one after the other; ms",
        software.len()
    );
    let heads = ["p50", "p99", "keygen p50", "keygen p99"];
    let [a, b, c, d] = heads;
    println!("{:<46} {a:>8} {b:>8} {c:>12} {d:>12}", "");
    for (name, time) in STAGES {
        let all = |lives: &[Life]| lives.iter().map(time).collect::<Vec<_>>();
        let (ours, theirs) = (all(software), all(keygen));
        let [a, b] = [0.5, 0.99].map(|share| ms(at(&ours, share)));
        let [c, d] = [0.5, 0.99].map(|share| ms(at(&theirs, share)));
        println!("{name:<46} {a:>8.2} {b:>8.2} {c:>12.2} {d:>12.2}");
    }
    let parts = [
        ("bare: start `true` and wait for it", &bare.runs),
        ("bare: a signature of ssh-keygen", &bare.signatures),
        ("bare: append 200 B and fdatasync", &bare.syncs),
    ];
    for (name, times) in parts {
        let [a, b] = [0.5, 0.99].map(|share| ms(at(times, share)));
        println!("{name:<46} {a:>8.2} {b:>8.2}");
    }
    let whole = |lives: &[Life]| {
        at(
            &lives.iter().map(|life| life.completed).collect::<Vec<_>>(),
            0.5,
        )
    };
    let (ours, theirs, run) = (whole(software), whole(keygen), at(&bare.runs, 0.5));
    println!(
        "the whole way is {:.0} bare runs, through ssh-keygen {:.0}; aim: median of {} ms, it is {:.1} ms",
        ours.div_duration_f64(run),
        theirs.div_duration_f64(run),
        AIM.as_millis(),
        ms(ours)
    );
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// The time that this share of them does not exceed.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "an index into a short list"
)]
fn at(times: &[Duration], share: f64) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times[((times.len() - 1) as f64 * share).round() as usize]
}
