//! A process that starts a cluster and holds it, so that a test can kill it.
//!
//! It is this test binary itself, told by its environment to run [`hold_a_cluster`] alone.
#![expect(
    clippy::disallowed_methods,
    reason = "the tests start themselves, psql and unshare"
)]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use countersign::dev::{Binaries, Cluster, Durability, Options, Role};
use rustix::process::{Pid, Signal};

use crate::folder::Folder;
use crate::left_out::left_out;

/// Names the cluster's folder to the process that holds it.
const FOLDER: &str = "COUNTERSIGN_TEST_FOLDER";

/// Names the folder to look for binaries in, when one is given.
const BINARIES: &str = "COUNTERSIGN_TEST_BINARIES";

/// Names the file where the process says what became of the start.
const REPORT: &str = "COUNTERSIGN_TEST_REPORT";

/// Longer than any start; past it something hangs.
const PATIENCE: Duration = Duration::from_secs(90);

#[test]
#[ignore = "the part of a process that other tests start and kill"]
fn hold_a_cluster() {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let Some(folder) = variable(FOLDER) else {
        return;
    };
    let report = variable(REPORT).unwrap();
    let options = Options {
        folder,
        durability: Durability::Durable,
        binaries: variable(BINARIES),
    };
    let say = |words: String| {
        // Whole at once: a reader never sees half a report.
        let half = report.with_extension("half");
        fs::write(&half, words).unwrap();
        fs::rename(&half, &report).unwrap();
    };
    match Cluster::start(&options) {
        Err(refused) => say(format!("refused\n{refused}")),
        Ok(cluster) => {
            let owner = cluster.url(Role::Owner, "postgres");
            say(format!("ready\n{}\n{owner}", cluster.pid()));
            // Until the test closes our input, or kills us.
            let _end = std::io::stdin().read_to_end(&mut Vec::new());
            cluster.stop();
        }
    }
}

/// An account that starts clusters.
#[derive(Debug, Clone, Copy)]
pub(crate) enum User {
    /// Whoever runs the tests.
    Ourselves,
    /// `nobody`, whose ids these are.
    Ordinary(u32, u32),
}

impl User {
    /// An ordinary user beside root; none, said aloud, where we are ordinary ourselves.
    pub(crate) fn ordinary() -> Option<Self> {
        if !is_root() {
            left_out("it needs root: each scenario a second time, as an ordinary user");
            return None;
        }
        let passwd = fs::read_to_string("/etc/passwd").unwrap();
        let line = passwd.lines().find(|line| line.starts_with("nobody:"))?;
        let ids: Vec<u32> = line
            .split(':')
            .filter_map(|field| field.parse().ok())
            .collect();
        Some(Self::Ordinary(ids[0], ids[1]))
    }

    fn apply(self, command: &mut Command) {
        if let Self::Ordinary(uid, gid) = self {
            command.uid(uid).gid(gid);
        }
    }
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A folder for one scenario: the cluster's own, the report, and a copy of this binary that every
/// user can reach.
pub(crate) struct Place {
    kept: Folder,
    user: User,
}

/// A process that holds a running cluster.
pub(crate) struct Parent {
    child: Child,
    /// The postmaster.
    pub(crate) postmaster: i32,
    /// The owner's URL.
    pub(crate) url: String,
}

/// What a start came to.
pub(crate) enum Start {
    Ready(Parent),
    Refused(String),
}

impl Place {
    pub(crate) fn new(name: &str, user: User) -> Self {
        let kept = Folder::new(name);
        if let User::Ordinary(uid, gid) = user {
            chown(kept.path(), Some(uid), Some(gid)).unwrap();
        }
        let place = Self { kept, user };
        let own = std::env::current_exe().unwrap();
        if fs::hard_link(&own, place.binary()).is_err() {
            // By another process: a file that this one has open for writing is kept open, for a
            // moment, by whatever another test starts meanwhile, and cannot be executed then.
            let mut copy = Command::new("cp");
            assert!(
                copy.arg(&own)
                    .arg(place.binary())
                    .status()
                    .unwrap()
                    .success()
            );
        }
        place
    }

    /// A place whose cluster was started and stopped before: a copy, because `initdb` waits for
    /// the disk.
    pub(crate) fn warm(name: &str, user: User) -> Self {
        static SEEDS: [OnceLock<PathBuf>; 2] = [OnceLock::new(), OnceLock::new()];
        let seed = match user {
            User::Ourselves => &SEEDS[0],
            User::Ordinary(..) => &SEEDS[1],
        };
        let seed = seed.get_or_init(|| {
            let seed = Self::new("seed", user);
            seed.start().finish();
            let folder = seed.folder();
            // Outlives this function; the next run removes it.
            std::mem::forget(seed);
            folder
        });
        let place = Self::new(name, user);
        let copied = Command::new("cp")
            .arg("-a")
            .arg(seed)
            .arg(place.folder())
            .status();
        assert!(copied.unwrap().success());
        // What is looked for in the log must be of this place.
        fs::remove_file(place.folder().join("log")).unwrap();
        place
    }

    pub(crate) fn path(&self) -> &Path {
        self.kept.path()
    }

    fn binary(&self) -> PathBuf {
        self.path().join("it")
    }

    /// The cluster's folder.
    pub(crate) fn folder(&self) -> PathBuf {
        self.path().join("pg")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder().join("data")
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder().join("log")).unwrap()
    }

    /// The command that plays the part, in the cluster's usual folder.
    pub(crate) fn part(&self) -> Command {
        let mut command = Command::new(self.binary());
        self.cast(&mut command);
        command.args(["--exact", "dev::parent::hold_a_cluster", "--ignored"]);
        self.user.apply(&mut command);
        command
    }

    /// The part behind another program, which gets `before` as its arguments.
    pub(crate) fn part_under(&self, program: &str, before: &[&str]) -> Command {
        let mut command = Command::new(program);
        self.cast(&mut command);
        command.args(before).arg(self.binary()).args([
            "--exact",
            "dev::parent::hold_a_cluster",
            "--ignored",
        ]);
        command
    }

    fn cast(&self, command: &mut Command) {
        command
            .current_dir("/")
            .env(FOLDER, self.folder())
            .env(REPORT, self.path().join("report"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
    }

    /// Plays the part and waits for its report.
    pub(crate) fn play(&self, mut command: Command) -> Start {
        let report = self.path().join("report");
        let _none_before = fs::remove_file(&report);
        let mut child = command.spawn().unwrap();
        let begun = Instant::now();
        while !report.exists() {
            let ended = child.try_wait().unwrap();
            assert!(
                ended.is_none() || report.exists(),
                "it ended without a word: {ended:?}"
            );
            assert!(begun.elapsed() < PATIENCE, "no report");
            std::thread::sleep(Duration::from_millis(5));
        }
        let words = fs::read_to_string(&report).unwrap();
        let (verdict, rest) = words.split_once('\n').unwrap();
        if verdict == "refused" {
            child.wait().unwrap();
            return Start::Refused(rest.to_owned());
        }
        let (pid, url) = rest.split_once('\n').unwrap();
        Start::Ready(Parent {
            child,
            postmaster: pid.parse().unwrap(),
            url: url.to_owned(),
        })
    }

    /// Starts a cluster that must come up.
    pub(crate) fn start(&self) -> Parent {
        match self.play(self.part()) {
            Start::Ready(parent) => parent,
            Start::Refused(why) => unreachable!("refused: {why}"),
        }
    }

    /// Starts a cluster that must be refused, and says why it was.
    pub(crate) fn refusal(&self, command: Command) -> String {
        match self.play(command) {
            Start::Refused(why) => why,
            Start::Ready(_) => unreachable!("it started"),
        }
    }

    /// The part with binaries looked for in one folder only.
    pub(crate) fn part_with_binaries(&self, folder: &Path) -> Command {
        let mut command = self.part();
        command.env(BINARIES, folder);
        command
    }

    fn psql(&self, url: &str) -> Command {
        let mut command = Command::new(Binaries::find(None).unwrap().folder.join("psql"));
        command
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", url])
            .current_dir("/")
            .env_clear();
        self.user.apply(&mut command);
        command
    }

    fn ask_anything(&self, url: &str, sql: &str) -> Output {
        self.psql(url).args(["-c", sql]).output().unwrap()
    }

    /// The answer of `psql URL`, as the user who started the cluster.
    pub(crate) fn ask(&self, url: &str, sql: &str) -> String {
        let done = self.ask_anything(url, sql);
        assert!(done.status.success(), "{sql}: {done:?}");
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }

    /// Inserts rows one by one until `enough` are acknowledged, then calls `stop`; all rows that
    /// were acknowledged by the time the connection ended.
    pub(crate) fn write_until(&self, url: &str, enough: usize, stop: impl FnOnce()) -> Vec<u32> {
        let mut psql = self
            .psql(url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut input = psql.stdin.take().unwrap();
        let feeder = std::thread::spawn(move || {
            for n in 0..1_000_000 {
                let line = format!("INSERT INTO rows VALUES ({n}) RETURNING n;\n");
                if input.write_all(line.as_bytes()).is_err() {
                    return;
                }
            }
        });
        let mut acknowledged = Vec::new();
        let mut stop = Some(stop);
        for line in BufReader::new(psql.stdout.take().unwrap()).lines() {
            acknowledged.push(line.unwrap().parse().unwrap());
            if acknowledged.len() == enough
                && let Some(stop) = stop.take()
            {
                stop();
            }
        }
        psql.wait().unwrap();
        feeder.join().unwrap();
        acknowledged
    }
}

impl Parent {
    /// Sends the process that holds the cluster a signal and takes its end in.
    pub(crate) fn die(mut self, signal: Signal) {
        send(i32::try_from(self.child.id()).unwrap(), signal);
        self.child.wait().unwrap();
    }

    /// Lets the process end the cluster as a program does that is done.
    pub(crate) fn finish(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        // A test that failed half-way: the cluster goes with its parent.
        let _gone = self.child.kill();
        let _taken = self.child.wait();
    }
}

pub(crate) fn send(pid: i32, signal: Signal) {
    rustix::process::kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// A field of `/proc/PID/stat` after the program's name: 0 is the state, 3 the session.
fn stat(pid: &str, field: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields = stat.rsplit_once(')')?.1;
    fields
        .split_ascii_whitespace()
        .nth(field)
        .map(str::to_owned)
}

/// Says whether a process leads a session of its own, which no other's terminal interrupts.
pub(crate) fn leads_its_session(pid: i32) -> bool {
    let pid = pid.to_string();
    stat(&pid, 3).as_ref() == Some(&pid)
}

/// Says whether a process runs; a zombie does not.
pub(crate) fn runs(pid: i32) -> bool {
    stat(&pid.to_string(), 0).is_some_and(|state| state != "Z")
}

/// Processes that run in a folder.
fn inside(folder: &Path) -> Vec<String> {
    let Ok(folder) = fs::canonicalize(folder) else {
        return Vec::new();
    };
    let all = fs::read_dir("/proc").unwrap().flatten();
    all.filter(|entry| fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == folder))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|pid| stat(pid, 0).is_some_and(|state| state != "Z"))
        .collect()
}

/// Waits until neither the postmaster nor any other process of the cluster is left.
pub(crate) fn gone_within(place: &Place, postmaster: i32, limit: Duration) {
    let begun = Instant::now();
    while runs(postmaster) || !inside(&place.data()).is_empty() {
        let left = inside(&place.data());
        assert!(
            begun.elapsed() < limit,
            "after {limit:?} there are still {left:?}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The permission bits of a file.
pub(crate) fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Starts a program as the account that owns the cluster's data.
fn as_owner(place: &Place, mut command: Command) -> Child {
    let owner = fs::metadata(place.data()).unwrap();
    if is_root() {
        command.uid(owner.uid()).gid(owner.gid());
    }
    command
        .current_dir("/")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Starts a process that has nothing to do with the cluster. It belongs to the same account: of
/// others' processes Postgres thinks nothing anyway.
pub(crate) fn stranger(place: &Place) -> Child {
    let mut sleep = Command::new("sleep");
    sleep.arg("600");
    as_owner(place, sleep)
}

/// Starts a Postgres in the data folder by hand, which nobody's death stops, and waits for it.
pub(crate) fn by_hand(place: &Place) -> Child {
    let mut postgres = Command::new(Binaries::find(None).unwrap().folder.join("postgres"));
    postgres
        .arg("-D")
        .arg(place.data())
        .arg("-k")
        .arg(place.folder().join("sockets"))
        .args(["-c", "listen_addresses="]);
    let started = as_owner(place, postgres);
    let begun = Instant::now();
    let ready = || fs::read_to_string(place.data().join("postmaster.pid"));
    while !ready().is_ok_and(|lines| lines.contains("ready")) {
        assert!(begun.elapsed() < PATIENCE, "it does not come up");
        std::thread::sleep(Duration::from_millis(20));
    }
    started
}
