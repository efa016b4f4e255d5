//! A primary of Postgres dies and its standby takes over, under servers that go on serving: what was
//! acknowledged is there, what is behind or forked is refused, and a standby is never served.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::clusters::{Cluster, Pair, Replication};
use crate::servers::{Server, http};
use crate::support::{Dev, PROGRAM, free_port, text, until};

/// What docs/OPERATIONS.md promises: how long after a promotion a server of a database that is behind
/// may go on.
const STOPS_WITHIN: Duration = Duration::from_secs(10);

const APP: &str = "countersign_app";

/// A ledger with people and an accepted host, on a primary with a standby.
struct Stage {
    dev: Arc<Dev>,
    pair: Pair,
}

impl Stage {
    /// None where there cannot be two clusters.
    fn set(replication: Replication) -> Option<Self> {
        let dev = thread::spawn(Dev::start);
        let pair = Pair::start(replication);
        let (dev, pair) = (Arc::new(dev.join().unwrap()), pair?);
        pair.primary.sql(
            "postgres",
            "CREATE ROLE countersign_app LOGIN; CREATE ROLE countersign_reader",
        );
        pair.primary.sql("postgres", "CREATE DATABASE countersign");
        let mut dump = Command::new("pg_dump")
            .arg(dev.env("COUNTERSIGN_OWNER_DATABASE_URL"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let restored = Command::new("psql")
            .args(["-Xq", "-v", "ON_ERROR_STOP=1", "--single-transaction"])
            .arg(pair.primary.url("countersign_owner", "countersign"))
            .stdin(dump.stdout.take().unwrap())
            .output()
            .unwrap();
        assert!(restored.status.success(), "{}", text(&restored.stderr));
        assert!(dump.wait().unwrap().success());
        Some(Self { dev, pair })
    }

    /// Both addresses, as a server is given them.
    fn both(&self) -> String {
        let (one, two) = (&self.pair.primary, &self.pair.standby);
        format!("{},{}", url(one), url(two))
    }

    fn checkpoint(&self, name: &str) -> PathBuf {
        self.dev.folder().path().join(format!("checkpoint-{name}"))
    }

    /// A server with a name of its own.
    fn server(&self, name: &str, database: &str) -> Server {
        let checkpoint = self.checkpoint(name);
        let is_first = !checkpoint.exists();
        let keys = self.dev.data().join("ledger");
        Server::start(&self.dev, database, &keys, &checkpoint, is_first)
    }

    /// A server that does not start, and what it says: its exit code and stderr.
    fn refused(&self, name: &str, database: &str) -> (Option<i32>, String) {
        let output = Command::new(PROGRAM)
            .args(["serve", "--listen", &format!("127.0.0.1:{}", free_port())])
            .env("DATABASE_URL", database)
            .env("COUNTERSIGN_LOG", "off")
            .arg("--keys")
            .arg(self.dev.data().join("ledger"))
            .arg("--checkpoint")
            .arg(self.checkpoint(name))
            .output()
            .unwrap();
        (output.status.code(), text(&output.stderr))
    }

    /// What a server logged.
    fn log(&self, server: &Server) -> String {
        let port = server.url.rsplit(':').next().unwrap();
        fs::read_to_string(self.dev.folder().path().join(format!("serve-{port}"))).unwrap()
    }

    /// alice asks at a server; `memory` is where her client remembers what it saw.
    fn asking(&self, server: &str, memory: &str) -> Child {
        let request = [
            "--json", "--server", server, "request", "--on", "local", "--reason", "a test", "--",
            "true",
        ];
        self.dev
            .command("alice", &request)
            .env(
                "COUNTERSIGN_STATE_HOME",
                self.dev.folder().path().join(memory),
            )
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn ask(&self, server: &str, memory: &str) -> Output {
        self.asking(server, memory).wait_with_output().unwrap()
    }

    /// alice asks, and it is acknowledged.
    fn asked(&self, server: &str, memory: &str) -> String {
        id(&self.ask(server, memory))
    }

    /// What `verify` says of a database.
    fn verdict(&self, cluster: &Cluster) -> Value {
        let url = url(cluster);
        self.dev.json("alice", 0, &["verify", "--database", &url])
    }
}

fn url(cluster: &Cluster) -> String {
    cluster.url(APP, "countersign")
}

/// The id of what was acknowledged.
fn id(output: &Output) -> String {
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    let asked: Value = serde_json::from_str(&out).unwrap();
    asked["id"].as_str().unwrap().to_owned()
}

/// Everything in a database that a server could have added to.
fn rows(cluster: &Cluster) -> String {
    let count = "SELECT (SELECT size FROM head), (SELECT count(*) FROM entries),
        (SELECT count(*) FROM checkpoints), (SELECT count(*) FROM blobs)";
    cluster.sql("countersign", count)
}

/// The number of entries that a checkpoint file covers, and its note.
fn noted(file: &PathBuf) -> (u64, String) {
    let note = fs::read_to_string(file).unwrap();
    (note.lines().nth(1).unwrap().parse().unwrap(), note)
}

/// Waits until a child has ended, no longer than `limit`.
fn ended_within(child: &mut Child, limit: Duration) -> Option<i32> {
    let begun = Instant::now();
    while begun.elapsed() < limit {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        thread::sleep(Duration::from_millis(50));
    }
    None
}

/// People who ask again and again until they are told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Vec<Arc<AtomicUsize>>,
    threads: Vec<thread::JoinHandle<Vec<String>>>,
}

impl Load {
    fn begin(stage: &Arc<Stage>, servers: &[&Server]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let counts = servers.iter().map(|_| Arc::default()).collect::<Vec<_>>();
        let each = |(index, server): (usize, &&Server)| {
            let (stage, stop) = (Arc::clone(stage), Arc::clone(&stop));
            let (url, count): (_, Arc<AtomicUsize>) =
                (server.url.clone(), Arc::clone(&counts[index]));
            thread::spawn(move || {
                let mut acknowledged = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    let output = stage.ask(&url, &format!("load-{index}"));
                    if output.status.success() {
                        acknowledged.push(id(&output));
                        count.fetch_add(1, Ordering::SeqCst);
                    } else {
                        // Told as unreachable, never as anything else.
                        let said = text(&output.stdout) + &text(&output.stderr);
                        assert_eq!(output.status.code(), Some(5), "{said}");
                    }
                }
                acknowledged
            })
        };
        let threads = servers.iter().enumerate().map(each).collect();
        Self {
            stop,
            acknowledged: counts,
            threads,
        }
    }

    /// Waits until each of them has been told yes so many times more.
    fn go_on(&self, more: usize) {
        for count in &self.acknowledged {
            let wanted = count.load(Ordering::SeqCst) + more;
            until("more is acknowledged", || {
                count.load(Ordering::SeqCst) >= wanted
                    || self.threads.iter().any(thread::JoinHandle::is_finished)
            });
        }
    }

    fn end(self) -> Vec<String> {
        self.stop.store(true, Ordering::SeqCst);
        let threads = self.threads.into_iter();
        threads.flat_map(|thread| thread.join().unwrap()).collect()
    }
}

#[test]
fn a_synchronous_standby_takes_over_and_nothing_acknowledged_is_lost_or_doubled() {
    let Some(stage) = Stage::set(Replication::Synchronous).map(Arc::new) else {
        return;
    };
    let both = stage.both();
    // A standby that is the only address is refused, also when it holds every entry there is.
    let (code, said) = stage.refused("nobody", &url(&stage.pair.standby));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("a standby, which is read-only"), "{said}");
    assert!(said.contains("promote the standby first"), "{said}");
    let read_only = |value: &str| {
        let set = format!("ALTER ROLE {APP} SET default_transaction_read_only = {value}");
        stage.pair.primary.sql("postgres", &set);
    };
    read_only("on");
    let (code, said) = stage.refused("nobody", &url(&stage.pair.primary));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("takes no writes"), "{said}");
    read_only("off");
    // Named first it is passed over.
    let other_way = format!("{},{}", url(&stage.pair.standby), url(&stage.pair.primary));
    let servers = [stage.server("a", &both), stage.server("b", &other_way)];
    let load = Load::begin(&stage, &[&servers[0], &servers[1]]);
    load.go_on(2);
    stage.pair.primary.kill();
    stage.pair.standby.promote();
    load.go_on(2);
    let acknowledged = load.end();
    let now = &stage.pair.standby;
    let statements = now.sql(
        "countersign",
        "SELECT encode(statement_id, 'hex') FROM statements",
    );
    for id in &acknowledged {
        assert_eq!(
            statements.lines().filter(|line| line == id).count(),
            1,
            "{id}"
        );
    }
    assert_eq!(stage.verdict(now)["ok"], true);
    for (server, name) in servers.iter().zip(["a", "b"]) {
        assert!(
            http(&server.url, "/readyz").contains("200 OK"),
            "{}",
            stage.log(server)
        );
        let (size, note) = noted(&stage.checkpoint(name));
        let stored = format!("SELECT note FROM checkpoints WHERE size = {size}");
        assert_eq!(now.sql("countersign", &stored).trim(), note.trim());
    }
    // And they start again from what they hold.
    drop(servers);
    stage.asked(&stage.server("a", &both).url, "after");
}

#[test]
fn an_asynchronous_standby_that_is_behind_is_refused_and_nothing_is_written_there() {
    let Some(stage) = Stage::set(Replication::Asynchronous) else {
        return;
    };
    let both = stage.both();
    let mut server = stage.server("a", &both);
    stage.asked(&server.url, "alice");
    let (primary, standby) = (&stage.pair.primary, &stage.pair.standby);
    let caught_up =
        "SELECT count(*) FROM pg_stat_replication WHERE replay_lsn = pg_current_wal_lsn()";
    until("the standby has it all", || {
        primary.sql("postgres", caught_up) == "1"
    });
    standby.kill();
    for _each in 0..2 {
        stage.asked(&server.url, "alice");
    }
    let (committed, note) = noted(&stage.checkpoint("a"));
    primary.kill();
    standby.start();
    standby.promote();
    let (promoted, held) = (Instant::now(), rows(standby));
    let has = standby.sql("countersign", "SELECT size FROM head");
    // It stops by itself, asked or not, and says why.
    let told = format!("it has {has} entries, this server has committed {committed}");
    until("the server stops", || stage.log(&server).contains(&told));
    assert!(
        promoted.elapsed() < STOPS_WITHIN,
        "{:?}",
        promoted.elapsed()
    );
    until("the ledger has stopped", || {
        stage.log(&server).contains("the ledger stops")
    });
    assert!(http(&server.url, "/readyz").contains("503"));
    let turned_away = stage.ask(&server.url, "alice");
    assert!(
        !turned_away.status.success(),
        "{}",
        text(&turned_away.stdout)
    );
    // A person has to look: it is refused at each start, too.
    server.child.kill().unwrap();
    for _each in 0..2 {
        let (code, said) = stage.refused("a", &both);
        assert_eq!(code, Some(3), "{said}");
        assert!(said.contains(&told), "{said}");
    }
    assert_eq!(rows(standby), held, "nothing was written there");
    assert_eq!(noted(&stage.checkpoint("a")), (committed, note));
}

#[test]
fn what_one_machine_alone_has_committed_is_not_acknowledged() {
    let Some(stage) = Stage::set(Replication::Synchronous) else {
        return;
    };
    let (primary, standby) = (&stage.pair.primary, &stage.pair.standby);
    let server = stage.server("a", &stage.both());
    let asked = stage.asked(&server.url, "alice");
    let size = "SELECT size FROM head";
    let before = primary.sql("countersign", size);
    // Else their COMMIT waits for the standby too, and whoever reads before approving is told to come again.
    let followed = format!("SELECT min(next) >= {before} FROM projections.cursors");
    until("the lists have the request", || {
        primary.sql("countersign", &followed) == "t"
    });
    standby.kill();
    // An approval has no texts of its own, which would wait for the standby before it does.
    let approve = ["--server", &server.url, "approve", &asked, "--yes"];
    let mut waiting = stage
        .dev
        .command("bob", &approve)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One of entries: the lists commit too.
    let commits = "SELECT count(*) FROM pg_stat_activity JOIN pg_locks USING (pid)
         WHERE wait_event = 'SyncRep' AND relation = 'entries'::regclass AND mode = 'RowExclusiveLock'";
    until("a COMMIT of an entry waits for the standby", || {
        primary.sql("countersign", commits) != "0"
    });
    // It comes back and shows the entry, which its standby does not have.
    primary.kill();
    primary.start();
    let with_it = primary.sql("countersign", size);
    assert_ne!(with_it, before, "the entry is in the primary's log");
    assert_eq!(ended_within(&mut waiting, Duration::from_secs(4)), None);
    let is_receipt = |line: &str| line.contains("appended") && line.contains("command.approved");
    assert!(!stage.log(&server).lines().any(is_receipt));
    standby.start();
    let told = waiting.wait_with_output().unwrap();
    assert!(told.status.success(), "{}", text(&told.stderr));
    primary.kill();
    standby.promote();
    assert_eq!(standby.sql("countersign", size), with_it);
}

#[test]
fn a_primary_that_comes_back_after_its_standby_took_over_forks_nothing_unseen() {
    let Some(stage) = Stage::set(Replication::Synchronous) else {
        return;
    };
    let (old, new) = (&stage.pair.primary, &stage.pair.standby);
    let both = stage.both();
    let mut server = stage.server("a", &both);
    let other = stage.server("b", &url(old));
    stage.asked(&server.url, "alice");
    // A machine that answers nothing and ends nothing.
    old.freeze();
    new.promote();
    // What hangs on it cannot be called back: the server ends, and whoever keeps it starts it again.
    assert_eq!(
        ended_within(&mut server.child, Duration::from_secs(20)),
        Some(1)
    );
    let said = stage.log(&server);
    assert!(said.contains("the database fell silent"), "{said}");
    old.thaw();
    // Two machines take writes now. Of these the one that was promoted last is served.
    let server = stage.server("a", &both);
    let acknowledged = stage.asked(&server.url, "bystander");
    let statements = "SELECT encode(statement_id, 'hex') FROM statements";
    assert!(new.sql("countersign", statements).contains(&acknowledged));
    // Who still writes to the old one is told nothing, because its standby has gone.
    let mut waiting = stage.asking(&other.url, "alice");
    assert_eq!(ended_within(&mut waiting, Duration::from_secs(2)), None);
    // Until somebody no longer waits for standbys there: that is a fork, with a receipt.
    old.sql(
        "postgres",
        "ALTER SYSTEM SET synchronous_standby_names = ''",
    );
    old.sql("postgres", "SELECT pg_reload_conf()");
    id(&waiting.wait_with_output().unwrap());
    for _each in 0..3 {
        stage.asked(&server.url, "bystander");
    }
    // Whoever saw one side and comes to the other finds out, and so does a server.
    let found_out = stage.ask(&server.url, "alice");
    assert_eq!(
        found_out.status.code(),
        Some(3),
        "{}",
        text(&found_out.stderr)
    );
    drop(other);
    let (code, said) = stage.refused("b", &url(new));
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("another history"), "{said}");
}
