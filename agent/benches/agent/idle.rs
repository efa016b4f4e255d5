//! At rest: an agent that is accepted, signed in, and listens to a real server that has no work.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::AGENT;
use crate::measure::{Started, setting};

/// The aim: resident memory at rest, in KiB.
const AIM_KIB: u32 = 12 * 1024;

/// Longest wait for anything to be there.
const LONG: Duration = Duration::from_secs(60);

/// Prints the part.
pub(crate) fn print() {
    let server = Path::new(AGENT).with_file_name("countersign");
    if !server.exists() {
        eprintln!(
            "idle: left out, as there is no {}; run: cargo build --release",
            server.display()
        );
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // The account that runs Postgres has to get through.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).unwrap();
    let dev = Dev::start(&server, folder.path());
    let agent = dev.second();
    let pid = agent.0.id();
    // Until what it did to get here is over.
    std::thread::sleep(Duration::from_secs(2));
    let seconds = setting("COUNTERSIGN_BENCH_IDLE_S", 30);
    let (cpu, before) = (ticks(pid), switches(pid));
    std::thread::sleep(Duration::from_secs(seconds.try_into().unwrap()));
    let cpu = ticks(pid) - cpu;
    // A thread that did nothing for long may have ended meanwhile, and takes its count with it.
    let woken =
        |(thread, after): (String, u32)| after - before.get(&thread).copied().unwrap_or_default();
    let wakeups: u32 = switches(pid).into_iter().map(woken).sum();
    let memory = memory(pid);
    println!("\n(e) at rest: accepted, signed in, listening to a real server without work");
    for name in [
        "VmRSS",
        "RssAnon",
        "RssFile",
        "Pss",
        "Private_Dirty",
        "VmHWM",
    ] {
        let kib = memory.get(name).copied().unwrap_or_default();
        println!("{name:<46} {:>8.2} MiB", f64::from(kib) / 1024.0);
    }
    let bare = bare_memory();
    println!(
        "{:<46} {:>8.2} MiB",
        "bare: `sleep`, VmRSS",
        f64::from(bare) / 1024.0
    );
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().count();
    println!(
        "threads {threads}; in {seconds} s: {cpu} ticks of CPU (aim: 0 or 1), {wakeups} wakeups"
    );
    println!("aim: {AIM_KIB} KiB resident, it is {} KiB", memory["VmRSS"]);
}

/// What a process that does nothing holds.
fn bare_memory() -> u32 {
    let sleep = Started(Command::new("sleep").arg("60").spawn().unwrap());
    std::thread::sleep(Duration::from_millis(200));
    memory(sleep.0.id())["VmRSS"]
}

/// KiB by name, of `status` and `smaps_rollup`.
fn memory(pid: u32) -> BTreeMap<String, u32> {
    let texts = ["status", "smaps_rollup"]
        .map(|file| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default());
    let lines = texts.iter().flat_map(|text| text.lines());
    let number = |line: &str| {
        let (name, rest) = line.split_once(':')?;
        let kib = rest.strip_suffix("kB")?.trim().parse().ok()?;
        Some((name.to_owned(), kib))
    };
    lines.filter_map(number).collect()
}

/// Hundredths of a second in user and system mode.
fn ticks(pid: u32) -> u32 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = text
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    [11, 12]
        .iter()
        .map(|at| fields[*at].parse::<u32>().unwrap())
        .sum()
}

/// How often each thread went to sleep by itself.
fn switches(pid: u32) -> BTreeMap<String, u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let of = |task: fs::DirEntry| {
        let text = fs::read_to_string(task.path().join("status")).ok()?;
        let mut lines = text.lines();
        let line = lines.find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        let count = line.trim().parse().ok()?;
        Some((task.file_name().into_string().ok()?, count))
    };
    tasks.filter_map(of).collect()
}

/// A `countersign dev`, and the agent that joins it as a second host would.
struct Dev {
    server: PathBuf,
    folder: PathBuf,
    env: Vec<(String, String)>,
    _running: Started,
}

impl Dev {
    fn start(server: &Path, folder: &Path) -> Self {
        let data = folder.join("dev");
        let mut child = Command::new(server)
            .args(["dev", "--listen", "127.0.0.1:0", "--data"])
            .arg(&data)
            .stdout(Stdio::piped())
            .stderr(File::create(folder.join("stderr")).unwrap())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let running = Started(child);
        assert!(
            lines.any(|line| line.unwrap() == "ready"),
            "dev did not start"
        );
        let text = fs::read_to_string(data.join("dev.env")).unwrap();
        let lines = text.lines().filter_map(|line| line.split_once('='));
        let pair = |(name, value): (&str, &str)| {
            let name = name.trim_start_matches("export ");
            (name.to_owned(), value.trim_matches('\'').to_owned())
        };
        Self {
            server: server.to_owned(),
            folder: folder.to_owned(),
            env: lines.map(pair).collect(),
            _running: running,
        }
    }

    /// Starts the agent's own binary, accepts it, and waits until it listens.
    fn second(&self) -> Started {
        let folder = self.folder.join("second");
        fs::DirBuilder::new().mode(0o700).create(&folder).unwrap();
        let theirs = self.folder.join("dev/agent");
        let config = fs::read_to_string(theirs.join("agent.toml")).unwrap();
        let config = config.replace("name = \"local\"", "name = \"second\"");
        fs::write(folder.join("agent.toml"), config).unwrap();
        fs::copy(
            theirs.join("allowed_signers"),
            folder.join("allowed_signers"),
        )
        .unwrap();
        let log = folder.join("log");
        let agent = Command::new(AGENT)
            .arg("--config")
            .arg(folder.join("agent.toml"))
            .stderr(File::create(&log).unwrap())
            .spawn();
        let agent = Started(agent.unwrap());
        let fingerprint = until("its fingerprint", || {
            let text = fs::read_to_string(&log).unwrap();
            let word = text
                .split_whitespace()
                .find(|word| word.starts_with("SHA256:"))?;
            Some(word.trim_end_matches('.').to_owned())
        });
        let accept = ["agents", "accept", "second", "--fingerprint", &fingerprint];
        let id = until("its enrolment", || self.verb("alice", &accept));
        until("a second consent", || {
            self.verb("carol", &["approve", &id, "--yes"])
        });
        // It listens once a command for it can be over.
        let ask = [
            "request", "--on", "second", "--reason", "idle", "--", "true",
        ];
        let command = until("a request", || self.verb("alice", &ask));
        for who in ["bob", "carol"] {
            until("an approval", || {
                self.verb(who, &["approve", &command, "--yes"])
            });
        }
        until("its end", || {
            let shown = self.shown("alice", &["show", &command])?;
            (shown["status"] == "completed").then_some(())
        });
        agent
    }

    /// The id that a verb answers; none when it fails, for now.
    fn verb(&self, who: &str, arguments: &[&str]) -> Option<String> {
        let answer = self.shown(who, arguments)?;
        Some(answer["id"].as_str().unwrap_or_default().to_owned())
    }

    fn shown(&self, who: &str, arguments: &[&str]) -> Option<serde_json::Value> {
        let output = Command::new(&self.server)
            .arg("--json")
            .args(arguments)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .env("COUNTERSIGN_KEY", self.folder.join("dev/keys").join(who))
            .env("COUNTERSIGN_STATE_HOME", self.folder.join("client"))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        serde_json::from_slice(&output.stdout)
            .ok()
            .filter(|_| output.status.success())
    }
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < LONG, "never there: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
