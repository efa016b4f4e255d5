//! (j) What do thousands of connected agents cost a server, and how fast does one command reach them all?
//!
//! A `countersign serve` in a process of its own with a real Postgres, and as many simulated agents as
//! asked for in this process: each with its own key, session and open connection, each judging its grant
//! with the agent's own admission and signing on its own chain (`simulator/`). Memory and idle time
//! are the server process's alone. `COUNTERSIGN_BENCH_AGENTS` sets how many (1,000).
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a bench fails by panicking, prints, and starts what it measures"
)]

#[expect(dead_code, reason = "the other benches use the rest of it")]
mod fixture;

use std::time::{Duration, Instant};

use countersign_cli::acts::RequestSpec;
use countersign_protocol::lifecycle::CommandStatus;
use countersign_protocol::name::Time;
use countersign_protocol::target::Place;
use countersign_simulator::{Administrator, Fleet, Office, Plan, open_many_files};
use fixture::book::Book;
use fixture::cpu;
use fixture::serve::Serve;
use fixture::statements::{key, public};
use fixture::{is_bench, setting};

/// The aims.
const AIM_KIB: u64 = 64;
const AIM_IDLE: f64 = 5.0;
const AIM_RUN: Duration = Duration::from_secs(10);

/// Files of a fleet: two connections for each agent, and some.
const FILES_EACH: usize = 3;

/// How long the idle fleet is watched.
const IDLE: Duration = Duration::from_secs(30);

/// Nothing here takes longer, or the bench has failed.
const PATIENCE: Duration = Duration::from_secs(900);

fn main() {
    if !is_bench() {
        return;
    }
    tokio::runtime::Runtime::new().unwrap().block_on(bench());
}

fn percent(part: Duration, whole: Duration) -> f64 {
    part.as_secs_f64() * 100.0 / whole.as_secs_f64()
}

async fn bench() {
    let hosts = setting("COUNTERSIGN_BENCH_AGENTS", 1000);
    let wanted = u64::try_from(hosts * FILES_EACH + 1024).unwrap();
    let files = open_many_files(wanted);
    if files < wanted {
        eprintln!("{files} open files are allowed and {wanted} wanted: some connections may fail");
    }
    let mut book = Book::new("fleet").await;
    let (ledger, vkey) = (book.ledger().id(), book.ledger().verifier().clone());
    book.close().await;
    let serve = Serve::start(&book, (ledger, vkey.clone())).await;
    let people = ["alice", "bob", "carol"];
    let signers = people.map(|name| format!("{name} {}\n", public(name).to_openssh()));
    let server: reqwest::Url = serve.url.parse().unwrap();
    let plan = Plan {
        server: server.clone(),
        ledger,
        vkey: vkey.clone(),
        signers: signers.concat(),
        hosts,
        prefix: "host-".to_owned(),
        own_addresses: true,
    };
    let administrator = |name: &str| Administrator {
        name: name.parse().unwrap(),
        key: key(name),
    };
    let pins = (ledger, vkey.clone());
    let office = Office::new(&server, pins, administrator("alice"), administrator("bob")).unwrap();
    let fleet = Fleet::new(&plan, book.keys_folder()).await.unwrap();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!(
        "\n(j) a fleet: {hosts} agents, {cores} cores for server, Postgres (fsync on) and all agents"
    );

    let begun = Instant::now();
    fleet.enrol(&office).await.unwrap();
    println!(
        "enrolled and accepted by two administrators          {:>9.1} s",
        begun.elapsed().as_secs_f64()
    );
    tokio::time::sleep(Duration::from_secs(3)).await;

    let before = serve.resident();
    let begun = Instant::now();
    tokio::time::timeout(PATIENCE, fleet.connect())
        .await
        .unwrap();
    let connected = begun.elapsed();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let grown = serve.resident().saturating_sub(before);
    let each = grown as f64 / hosts as f64;
    println!(
        "signed in, each with a stream of work                {:>9.1} s",
        connected.as_secs_f64()
    );
    println!(
        "server's memory before                               {:>9.1} MiB",
        before as f64 / 1024.0
    );
    println!(
        "server's memory for each connected agent             {each:>9.1} KiB   aim {AIM_KIB} KiB {}",
        met(each <= AIM_KIB as f64)
    );

    // Connections of the sign-ins are closed by then.
    tokio::time::sleep(Duration::from_secs(35)).await;
    let (own, postgres, begun) = (
        serve.used(),
        cpu::used(book.postmaster()).postgres,
        Instant::now(),
    );
    tokio::time::sleep(IDLE).await;
    let idle = percent(serve.used().saturating_sub(own), begun.elapsed());
    let of_postgres = cpu::used(book.postmaster())
        .postgres
        .saturating_sub(postgres);
    println!(
        "at rest: of one core, the server                     {idle:>9.1} %     aim {AIM_IDLE} % {}",
        met(idle <= AIM_IDLE)
    );
    println!(
        "at rest: of one core, Postgres                       {:>9.1} %",
        percent(of_postgres, begun.elapsed())
    );
    let rested = serve.resident().saturating_sub(before);
    println!(
        "server's memory for each, at rest                    {:>9.1} KiB",
        rested as f64 / hosts as f64
    );

    for round in 1..=2 {
        run(&fleet, &serve, &book, round).await;
    }
    fleet.stop().await;
    println!("counts: {:?}", fleet.counts());
    if std::env::var_os("COUNTERSIGN_BENCH_LOG").is_some() {
        eprintln!(
            "{}",
            std::fs::read_to_string(book.keys_folder().join("serve.log")).unwrap()
        );
    }
}

/// `true` on all of them: from the entry that authorized it.
async fn run(fleet: &Fleet, serve: &Serve, book: &Book, round: u64) {
    let hosts = fleet.names().count() as u64;
    let places: Vec<Place> = fleet.names().cloned().map(Place::from).collect();
    let spec = RequestSpec::new(places, vec!["true".to_owned()], "bench");
    let mut people = Vec::new();
    for name in ["alice", "bob", "carol"] {
        people.push(serve.person(name).await);
    }
    let [asks, consents, agrees] = people.as_slice() else {
        unreachable!("three people");
    };
    let begun = Instant::now();
    let id = asks.request(&spec).await.unwrap().id;
    let requested = begun.elapsed();
    consents.approve(&id, None).await.unwrap();
    let approved = begun.elapsed().saturating_sub(requested);
    println!(
        "round {round}: request of {hosts} hosts, by its client              {:>9.2} s",
        requested.as_secs_f64()
    );
    println!(
        "round {round}: an approval, the list read and checked       {:>9.2} s",
        approved.as_secs_f64()
    );
    let (own, server, postgres) = (
        cpu::of(std::process::id()),
        serve.used(),
        cpu::used(book.postmaster()).postgres,
    );
    let both = async {
        let all = hosts * round;
        let started = fleet
            .until(PATIENCE, |counts| counts.started + counts.refused >= all)
            .await;
        let started = (started, countersign::clock::Clock::system().now());
        let done = fleet
            .until(PATIENCE, |counts| counts.completed + counts.refused >= all)
            .await;
        (started, (done, countersign::clock::Clock::system().now()))
    };
    let (last, (started, completed)) = tokio::join!(agrees.approve(&id, None), both);
    let authorized = last.unwrap().time;
    assert!(
        started.0 && completed.0,
        "not all ended: {:?}",
        fleet.counts()
    );
    let since = |time: Time| Duration::from_micros(time.micros_since(authorized));
    let (started, completed) = (since(started.1), since(completed.1));
    println!(
        "round {round}: authorized until all have started            {:>9.2} s",
        started.as_secs_f64()
    );
    println!(
        "round {round}: authorized until all have ended              {:>9.2} s     aim {} s {}",
        completed.as_secs_f64(),
        AIM_RUN.as_secs(),
        met(completed <= AIM_RUN)
    );
    let spent = |now: Duration, before: Duration| now.saturating_sub(before).as_secs_f64();
    println!(
        "round {round}: processor time: agents {:.1} s, server {:.1} s, Postgres {:.1} s",
        spent(cpu::of(std::process::id()), own),
        spent(serve.used(), server),
        spent(cpu::used(book.postmaster()).postgres, postgres)
    );
    let begun = Instant::now();
    let view = asks.fetch_command(&id).await.unwrap();
    assert_eq!(view.command.status(), CommandStatus::Completed);
    println!(
        "round {round}: fetched with all proofs and judged completed {:>9.2} s",
        begun.elapsed().as_secs_f64()
    );
}

const fn met(holds: bool) -> &'static str {
    if holds { "met" } else { "missed" }
}
