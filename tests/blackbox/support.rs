//! A `countersign dev` that runs, and the client verbs as its people.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::folder::Folder;

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_countersign");

/// Longest that anything here may take; a test that waits longer has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

static SHARED: Mutex<Weak<Dev>> = Mutex::new(Weak::new());

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Runs SQL, and gives what psql prints.
pub(crate) fn psql(url: &str, sql: &str) -> String {
    let output = Command::new("psql")
        .args([url, "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql])
        .output()
        .unwrap();
    assert!(output.status.success(), "{sql}: {}", text(&output.stderr));
    text(&output.stdout).trim().to_owned()
}

/// Waits until something is so.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(
            begun.elapsed() < PATIENCE,
            "it never came to be that {what}"
        );
        thread::sleep(Duration::from_millis(50));
    }
}

pub(crate) fn signal(pid: u32, name: &str) {
    let pid = pid.to_string();
    let sent = Command::new("kill")
        .args(["-s", name, &pid])
        .status()
        .unwrap();
    assert!(sent.success(), "kill -s {name} {pid}");
}

/// Processes, zombies left out, whose command line holds a text.
pub(crate) fn processes_with(text: &str) -> Vec<u32> {
    processes(|line| line.contains(text))
}

/// Processes whose whole command line is this: not those that only speak of it, as whoever was told
/// to run it does.
pub(crate) fn processes_running(command: &str) -> Vec<u32> {
    processes(|line| line.trim_end() == command)
}

fn processes(matches: impl Fn(&str) -> bool) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let state = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let is_zombie = state
            .rsplit(") ")
            .next()
            .is_some_and(|rest| rest.starts_with('Z'));
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if matches(&line) && !is_zombie && pid != std::process::id() {
            found.push(pid);
        }
    }
    found
}

/// A `countersign dev`, ready.
pub(crate) struct Dev {
    child: Child,
    env: Vec<(String, String)>,
    folder: Arc<Folder>,
    /// Where else clients meet it.
    pub(crate) public: Vec<String>,
    pub(crate) port: u16,
}

impl Dev {
    /// One that tests share while any of them uses it. Its log may be added to, never changed.
    pub(crate) fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().unwrap();
        shared.upgrade().unwrap_or_else(|| {
            let dev = Arc::new(Self::start());
            *shared = Arc::downgrade(&dev);
            dev
        })
    }

    /// One of a test's own.
    pub(crate) fn start() -> Self {
        Self::start_in(Arc::new(Folder::new("dev")))
    }

    /// One in a folder, which may hold what another left.
    pub(crate) fn start_in(folder: Arc<Folder>) -> Self {
        Self::start_met_at(folder, &[])
    }

    /// One that clients meet at other addresses too.
    pub(crate) fn start_met_at(folder: Arc<Folder>, public: &[&str]) -> Self {
        let mut child = Command::new(PROGRAM)
            .args(["dev", "--listen", "127.0.0.1:0", "--data"])
            .arg(folder.path().join("dev"))
            .args(public.iter().flat_map(|url| ["--public-url", url]))
            .stdout(Stdio::piped())
            .stderr(fs::File::create(folder.path().join("stderr")).unwrap())
            .process_group(0)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.any(|line| line.unwrap() == "ready");
        let stderr = fs::read_to_string(folder.path().join("stderr")).unwrap();
        assert!(ready, "dev ended before it was ready: {stderr}");
        thread::spawn(move || lines.count());
        let text = fs::read_to_string(folder.path().join("dev/dev.env")).unwrap();
        let env = text.lines().map(|line| {
            let (name, value) = line
                .strip_prefix("export ")
                .unwrap()
                .split_once('=')
                .unwrap();
            (name.to_owned(), value.trim_matches('\'').to_owned())
        });
        let env: Vec<(String, String)> = env.collect();
        let server = env.iter().find(|(name, _)| name == "COUNTERSIGN_SERVER");
        let port = server.unwrap().1.rsplit(':').next().unwrap();
        let port = port.parse().unwrap();
        Self {
            child,
            env,
            port,
            public: public.iter().map(ToString::to_string).collect(),
            folder,
        }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("dev")
    }

    pub(crate) fn folder(&self) -> Arc<Folder> {
        Arc::clone(&self.folder)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn env(&self, name: &str) -> &str {
        let found = self.env.iter().find(|(known, _)| known == name);
        &found
            .unwrap_or_else(|| unreachable!("dev.env has no {name}"))
            .1
    }

    /// A client verb as one of the people.
    pub(crate) fn command(&self, who: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command
            .args(arguments)
            .env_clear()
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("COUNTERSIGN_STATE_HOME", self.folder.path().join("state"))
            .env("COUNTERSIGN_KEY", self.data().join("keys").join(who))
            .stdin(Stdio::null());
        command
    }

    /// Runs a verb to its end.
    pub(crate) fn verb(&self, who: &str, arguments: &[&str]) -> Output {
        self.command(who, arguments).output().unwrap()
    }

    /// Runs a verb with `--json` that must end with a code, and gives its one object.
    pub(crate) fn json(&self, who: &str, code: i32, arguments: &[&str]) -> Value {
        let arguments = [&["--json"], arguments].concat();
        let output = self.verb(who, &arguments);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?}\n{out}\n{err}"
        );
        assert_eq!(out.lines().count(), 1, "one object on stdout: {out}");
        serde_json::from_str(&out).unwrap()
    }

    /// Whether `verify` finds nothing wrong in all of the database.
    pub(crate) fn is_sound(&self) -> bool {
        // At the address of the environment.
        self.json("alice", 0, &["verify", "--database"])["ok"] == true
    }

    /// What was acknowledged is in the log, each statement once.
    pub(crate) fn holds_each_once(&self, acknowledged: &[String]) {
        let in_log = self.sql("SELECT encode(statement_id, 'hex') FROM statements");
        for id in acknowledged {
            let times = in_log.lines().filter(|line| line == id).count();
            assert_eq!(times, 1, "{id}");
        }
    }

    /// alice asks; the id comes back.
    pub(crate) fn request(&self, options: &[&str], words: &[&str]) -> String {
        let head = ["request", "--on", "local", "--reason", "a test"];
        let asked = self.json("alice", 0, &[&head, options, &["--"], words].concat());
        asked["id"].as_str().unwrap().to_owned()
    }

    pub(crate) fn approve(&self, id: &str) {
        for who in ["bob", "carol"] {
            self.json(who, 0, &["approve", id, "--yes"]);
        }
    }

    pub(crate) fn show(&self, id: &str) -> Value {
        self.json("alice", 0, &["show", id])
    }

    /// Waits for a command's end and shows it.
    pub(crate) fn ended(&self, id: &str) -> Value {
        let begun = Instant::now();
        loop {
            let shown = self.show(id);
            let status = shown["status"].as_str().unwrap();
            if !["requested", "authorized", "running"].contains(&status) {
                return shown;
            }
            assert!(begun.elapsed() < PATIENCE, "it does not end: {shown:#}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// alice asks, bob and carol approve, and it ends.
    pub(crate) fn through(&self, options: &[&str], words: &[&str]) -> Value {
        let id = self.request(options, words);
        self.approve(&id);
        self.ended(&id)
    }

    /// Starts `run` as alice, approves, and waits for its end.
    pub(crate) fn run(&self, options: &[&str], words: &[&str]) -> Output {
        let head = ["run", "--on", "local", "--reason", "a test"];
        let mut command = self.command("alice", &[&head, options, &["--"], words].concat());
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        self.approve_next(&child);
        child.wait_with_output().unwrap()
    }

    /// Approves what the inbox shows for this child's request: its reason is unique to nobody, so
    /// only for tests whose dev is their own.
    pub(crate) fn approve_next(&self, child: &Child) {
        let mut id = None;
        until("the request is in the inbox", || {
            let inbox = self.json("bob", 0, &["inbox"]);
            id = inbox["items"][0]["id"].as_str().map(str::to_owned);
            id.is_some() || !processes_with(PROGRAM).contains(&child.id())
        });
        if let Some(id) = id {
            self.approve(&id);
        }
    }

    /// Runs SQL as the owner, and gives what psql prints.
    pub(crate) fn sql(&self, sql: &str) -> String {
        psql(self.env("COUNTERSIGN_OWNER_DATABASE_URL"), sql)
    }

    /// Ends it by order.
    pub(crate) fn stop(&mut self) {
        signal(self.pid(), "TERM");
        self.wait();
    }

    /// Waits until it has ended.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(begun.elapsed() < PATIENCE, "dev does not end");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            signal(self.child.id(), "TERM");
            let _status = self.child.wait();
        }
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
