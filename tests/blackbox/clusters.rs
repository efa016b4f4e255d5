//! Two clusters of Postgres, the second a standby of the first, killed and promoted as machines are.
//!
//! They are started with the machine's own programs, by an account that is not root, in folders of
//! the test. Knows nothing of ledgers.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use countersign::dev::Binaries;

use crate::folder::Folder;
use crate::left_out::left_out;
use crate::support::{signal, text, until};

/// Who is a superuser in them.
const OWNER: &str = "countersign_owner";

/// Whether a primary waits for its standby before it says that something is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replication {
    /// It waits until the standby has it on its disk.
    Synchronous,
    /// It does not wait.
    Asynchronous,
}

/// The account that runs them, as numbers.
#[derive(Debug, Clone, Copy)]
struct Account {
    uid: u32,
    gid: u32,
}

/// One cluster. Killed when dropped.
pub(crate) struct Cluster {
    folder: PathBuf,
    binaries: PathBuf,
    account: Option<Account>,
    _parent: Arc<Folder>,
}

/// A primary and its standby.
pub(crate) struct Pair {
    pub(crate) primary: Cluster,
    pub(crate) standby: Cluster,
}

impl Pair {
    /// A primary, and a standby that follows it. None, said aloud, where Postgres's programs for that
    /// are missing.
    pub(crate) fn start(replication: Replication) -> Option<Self> {
        let binaries = match Binaries::find(None) {
            Ok(found) if found.folder.join("pg_basebackup").is_file() => found.folder,
            Ok(_) | Err(_) => {
                left_out("there is no pg_basebackup: a primary that dies and its standby");
                return None;
            }
        };
        if Command::new("setpriv").arg("--version").output().is_err() {
            left_out("there is no setpriv: a primary that dies and its standby");
            return None;
        }
        let account = match ordinary_account() {
            Ok(account) => account,
            Err(why) => {
                left_out(&format!("{why}: a primary that dies and its standby"));
                return None;
            }
        };
        let parent = Arc::new(Folder::new("pair"));
        let at = |name: &str| {
            let folder = parent.path().join(name);
            // No password is asked, so nobody else comes to its socket.
            fs::DirBuilder::new().mode(0o700).create(&folder).unwrap();
            if let Some(account) = account {
                std::os::unix::fs::chown(&folder, Some(account.uid), Some(account.gid)).unwrap();
            }
            Cluster {
                folder,
                binaries: binaries.clone(),
                account,
                _parent: Arc::clone(&parent),
            }
        };
        let (primary, standby) = (at("one"), at("two"));
        primary.initialise();
        primary.start();
        standby.copy(&primary);
        standby.start();
        primary.follow_up(replication);
        Some(Self { primary, standby })
    }
}

impl Cluster {
    /// Its address for a role and a database.
    pub(crate) fn url(&self, user: &str, database: &str) -> String {
        let host = self.folder.display().to_string().replace('/', "%2F");
        format!("postgresql:///{database}?host={host}&user={user}")
    }

    /// As its superuser; what psql prints.
    pub(crate) fn sql(&self, database: &str, sql: &str) -> String {
        let url = self.url(OWNER, database);
        let output = Command::new("psql")
            .args([&url, "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql])
            .output()
            .unwrap();
        assert!(output.status.success(), "{sql}: {}", text(&output.stderr));
        text(&output.stdout).trim().to_owned()
    }

    /// Starts it and waits until it answers.
    pub(crate) fn start(&self) {
        let log = fs::File::create(self.folder.join("log")).unwrap();
        let sockets = format!("unix_socket_directories={}", self.folder.display());
        let mut command = Command::new("setpriv");
        if let Some(account) = self.account {
            command.arg("--clear-groups");
            command.arg(format!("--reuid={}", account.uid));
            command.arg(format!("--regid={}", account.gid));
        }
        command
            // It ends with the test, however that ends.
            .args(["--pdeathsig", "KILL", "--"])
            .arg(self.binaries.join("postgres"))
            .current_dir("/")
            .arg("-D")
            .arg(self.data())
            .args(["-c", "listen_addresses=", "-c", &sockets])
            // What is promised here is tried against the death of processes, not of machines.
            .args(["-c", "fsync=off", "-c", "full_page_writes=off"])
            .stdout(Stdio::null())
            .stderr(log);
        let mut child = command.spawn().unwrap();
        // Its end is nobody's business, and no zombie's.
        thread::spawn(move || child.wait());
        until("the cluster answers", || {
            let url = self.url(OWNER, "postgres");
            let answer = Command::new("psql")
                .args([&url, "-XAtqc", "SELECT 1"])
                .output();
            answer.unwrap().status.success()
        });
    }

    /// SIGKILL to all of its processes at once, as a power cut would.
    pub(crate) fn kill(&self) {
        until("all of the cluster's processes have ended", || {
            let running = self.processes();
            for pid in &running {
                let _gone = Command::new("kill")
                    .args(["-s", "KILL", &pid.to_string()])
                    .output();
            }
            running.is_empty()
        });
    }

    /// All of its processes stop where they are: a machine that says nothing and ends nothing.
    pub(crate) fn freeze(&self) {
        self.processes()
            .into_iter()
            .for_each(|pid| signal(pid, "STOP"));
    }

    /// They go on as if nothing had been.
    pub(crate) fn thaw(&self) {
        self.processes()
            .into_iter()
            .for_each(|pid| signal(pid, "CONT"));
    }

    /// Makes a primary of it.
    pub(crate) fn promote(&self) {
        assert_eq!(self.sql("postgres", "SELECT pg_promote()"), "t");
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.binaries.join(name));
        if let Some(account) = self.account {
            command.uid(account.uid).gid(account.gid);
        }
        // Not the folder of the tests, which the account may not be allowed to enter.
        command.current_dir("/");
        command
    }

    fn run(&self, command: &mut Command) {
        let output = command.output().unwrap();
        assert!(
            output.status.success(),
            "{command:?}: {}",
            text(&output.stderr)
        );
    }

    fn initialise(&self) {
        let mut command = self.program("initdb");
        command
            .args(["--no-sync", "--locale=C", "--encoding=UTF8", "--auth=trust"])
            .args(["--username", OWNER, "-D"])
            .arg(self.data());
        self.run(&mut command);
    }

    fn copy(&self, primary: &Self) {
        let mut command = self.program("pg_basebackup");
        command
            .args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync"])
            .args(["--dbname", &primary.url(OWNER, "postgres"), "-D"])
            .arg(self.data());
        self.run(&mut command);
    }

    /// Waits until a standby follows, and from then on, if so told, for the standby.
    fn follow_up(&self, replication: Replication) {
        let follows = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
        until("the standby follows", || {
            self.sql("postgres", follows) == "1"
        });
        if replication == Replication::Asynchronous {
            return;
        }
        // synchronous_commit is left at "on": a commit is acknowledged when the standby has it on its
        // disk. More (remote_apply) would help who reads from a standby, and nobody does; less
        // (remote_write) would lose what a standby had only in memory.
        self.sql(
            "postgres",
            "ALTER SYSTEM SET synchronous_standby_names = '*'",
        );
        self.sql("postgres", "SELECT pg_reload_conf()");
        let waits = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
        until("the standby is waited for", || {
            self.sql("postgres", waits) == "1"
        });
    }

    /// Processes whose working directory is the data folder, zombies left out.
    fn processes(&self) -> Vec<u32> {
        let data = self.data();
        let entries = fs::read_dir("/proc").unwrap().flatten();
        entries
            .filter(|entry| fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == data))
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Root runs them as somebody else, as Postgres demands; others run them themselves.
fn ordinary_account() -> Result<Option<Account>, &'static str> {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return Ok(None);
    }
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let find = |wanted: &str| {
        let line = passwd
            .lines()
            .find(|line| line.split(':').next() == Some(wanted))?;
        let mut fields = line.split(':').skip(2);
        let uid = fields.next()?.parse().ok()?;
        Some(Account {
            uid,
            gid: fields.next()?.parse().ok()?,
        })
    };
    let found = ["postgres", "nobody"].into_iter().find_map(find);
    found
        .map(Some)
        .ok_or("root may not run Postgres, and there is no account for it")
}
