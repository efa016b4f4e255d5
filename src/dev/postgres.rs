//! A private Postgres cluster: no network, no password, gone when we are, never losing a row.
//!
//! It listens on a socket in a folder of ours and knows people by their operating-system account.
//! Killing this process stops it cleanly (its death signal is INT, a fast shutdown); killing it as
//! well leaves what any Postgres recovers from. It is never started with fsync off but for
//! throw-away test clusters.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Signal};

use crate::dev::binaries::Binaries;
use crate::dev::spawn::{self, Account};

/// How long a start may take: crash recovery of a large log included.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How long a fast shutdown may take before QUIT: a checkpoint on a slow disk.
const STOP_LIMIT: Duration = Duration::from_secs(6);

/// How often a state that sends no signal is looked at.
const POLL: Duration = Duration::from_millis(20);

/// Longest path of a Unix socket, with its end.
const SOCKET_PATH_MAX: usize = 107;

/// What Postgres appends to the socket folder.
const SOCKET_NAME: &str = "/.s.PGSQL.5432.lock";

/// The role of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Owns the schema and migrates; superuser here.
    Owner,
    /// Serves.
    App,
}

/// Whether what is committed outlives a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// As a real ledger: fsync, synchronous commit, full page writes.
    Durable,
    /// For throw-away test clusters only.
    ThrowAway,
}

/// How to start a cluster.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder that holds it; made if it is missing.
    pub folder: PathBuf,
    /// Whether commits must outlive a power cut.
    pub durability: Durability,
    /// Where the binaries are; looked for if not said.
    pub binaries: Option<PathBuf>,
}

/// Why there is no cluster.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// No binaries anywhere.
    #[error("Postgres is not installed here; install it with: {install}")]
    NotInstalled {
        /// The line.
        install: String,
    },
    /// A folder was named that has none.
    #[error("there are no Postgres binaries (postgres, initdb) in {0}")]
    NoBinaries(PathBuf),
    /// Somebody else runs it.
    #[error("another countersign uses {0}; stop it, or give another folder with --data")]
    InUse(PathBuf),
    /// The folder was made by another version.
    #[error(
        "{folder} was made by Postgres {found}, the binaries found are {binaries}; set COUNTERSIGN_PG_BINDIR to a folder with Postgres {found}, or give another folder with --data"
    )]
    WrongMajor {
        /// The folder.
        folder: PathBuf,
        /// Its version.
        found: String,
        /// That of the binaries.
        binaries: u32,
    },
    /// Postgres refuses to run as root and there is nobody to run it as.
    #[error(
        "Postgres does not run as root and there is no account countersign, postgres or nobody to run it as; make one with: useradd --system countersign"
    )]
    NoAccount,
    /// The account cannot reach the folder.
    #[error(
        "the account {account} that runs Postgres cannot enter {folder}; give a folder elsewhere with --data, or run: chmod o+x {folder}"
    )]
    Unreachable {
        /// Who.
        account: String,
        /// The parent that is closed.
        folder: PathBuf,
    },
    /// Somebody else prepared the folder, or it is a link to somewhere else.
    #[error(
        "{0} is not a folder of ours: somebody else made it, or it is a link; remove it, or set TMPDIR to a folder that only you can write to"
    )]
    NotOurs(PathBuf),
    /// A Postgres of that folder would not stop.
    #[error("a Postgres that still runs in {0} does not stop")]
    Leftover(PathBuf),
    /// initdb or postgres failed.
    #[error("{program} failed ({how}); its last words: {log}")]
    Failed {
        /// Which.
        program: &'static str,
        /// How it ended.
        how: String,
        /// The end of its log.
        log: String,
    },
    /// It does not come up.
    #[error("Postgres did not become ready within 60 s; its last words: {0}")]
    NotReady(String),
    /// The file system.
    #[error("{doing}: {source}")]
    Io {
        /// What was tried.
        doing: String,
        /// Why it failed.
        source: io::Error,
    },
}

trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, PostgresError>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, PostgresError> {
        self.map_err(|error| PostgresError::Io {
            doing: what(),
            source: error.into(),
        })
    }
}

/// A running cluster. Dropping it stops it.
#[derive(Debug)]
pub struct Cluster {
    sockets: PathBuf,
    pid: Pid,
    keeper: Option<JoinHandle<()>>,
    /// Held as long as we run; its flock keeps others out.
    _lock: File,
}

/// The places inside the folder.
#[derive(Debug)]
struct Places {
    folder: PathBuf,
    data: PathBuf,
    sockets: PathBuf,
    log: PathBuf,
}

impl Cluster {
    /// Finds the binaries, makes the cluster if there is none, recovers what a crash left, starts it
    /// and waits until it answers. Blocks.
    ///
    /// # Errors
    /// See [`PostgresError`]; each says what to do.
    pub fn start(options: &Options) -> Result<Self, PostgresError> {
        let binaries = Binaries::find(options.binaries.as_deref())?;
        let folder = absolute(&options.folder)?;
        make_folder(&folder, 0o711)?;
        let lock = lock(&folder)?;
        let account = account_for(&folder)?;
        if let Some(account) = &account {
            check_reachable(&folder, account)?;
        }
        let places = Places {
            data: folder.join("data"),
            sockets: socket_folder(&folder)?,
            log: folder.join("log"),
            folder,
        };
        give_folder(&places.sockets, account.as_ref())?;
        stop_leftovers(&places.data)?;
        if places.data.exists() {
            check_version(&places.data, &binaries)?;
        } else {
            initialise(&places, &binaries, account.as_ref(), options.durability)?;
        }
        remove_stale(&places)?;
        let (pid, keeper) = launch(&places, &binaries, account, options.durability)?;
        let cluster = Self {
            sockets: places.sockets.clone(),
            pid,
            keeper: Some(keeper),
            _lock: lock,
        };
        cluster.wait_ready(&places)?;
        Ok(cluster)
    }

    /// A URL that both this program and `psql` take, for the account that started the cluster.
    #[must_use]
    pub fn url(&self, role: Role, database: &str) -> String {
        let user = match role {
            Role::Owner => "countersign_owner",
            Role::App => "countersign_app",
        };
        let host: String = self
            .sockets
            .to_string_lossy()
            .bytes()
            .map(percent_encode)
            .collect();
        format!("postgresql:///{database}?host={host}&user={user}")
    }

    /// The process.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Stops it: INT, and QUIT if that takes too long; never KILL. Blocks.
    pub fn stop(mut self) {
        self.shut_down();
    }

    fn shut_down(&mut self) {
        let Some(keeper) = self.keeper.take() else {
            return;
        };
        spawn::signal(self.pid, Signal::INT);
        let begun = Instant::now();
        while !keeper.is_finished() && begun.elapsed() < STOP_LIMIT {
            thread::sleep(POLL);
        }
        if !keeper.is_finished() {
            spawn::signal(self.pid, Signal::QUIT);
        }
        let _panicked = keeper.join();
    }

    fn wait_ready(&self, places: &Places) -> Result<(), PostgresError> {
        let begun = Instant::now();
        let pid_file = places.data.join("postmaster.pid");
        loop {
            if self.keeper.as_ref().is_none_or(JoinHandle::is_finished) {
                return Err(PostgresError::Failed {
                    program: "postgres",
                    how: "it ended while starting".to_owned(),
                    log: tail(&places.log),
                });
            }
            let state = fs::read_to_string(&pid_file).unwrap_or_default();
            let ours = state
                .lines()
                .next()
                .and_then(|line| line.trim().parse().ok());
            let word = state.lines().nth(7).map(str::trim);
            if ours == Some(self.pid()) && word == Some("ready") {
                return Ok(());
            }
            if begun.elapsed() > START_LIMIT {
                return Err(PostgresError::NotReady(tail(&places.log)));
            }
            thread::sleep(POLL);
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.shut_down();
    }
}

fn percent_encode(byte: u8) -> String {
    if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
        char::from(byte).to_string()
    } else {
        format!("%{byte:02X}")
    }
}

fn absolute(folder: &Path) -> Result<PathBuf, PostgresError> {
    std::path::absolute(folder).doing(|| format!("finding {}", folder.display()))
}

fn make_folder(folder: &Path, mode: u32) -> Result<(), PostgresError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(mode);
    builder
        .create(folder)
        .doing(|| format!("making the folder {}", folder.display()))
}

/// Makes a folder that nobody else may enter and hands it to the account.
///
/// One that is there already is taken only if it is ours: the name of a socket folder under the
/// temporary one can be guessed, and root must not be led to give away or empty another folder.
fn give_folder(folder: &Path, account: Option<&Account>) -> Result<(), PostgresError> {
    make_folder(folder, 0o700)?;
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = match rustix::fs::open(folder, flags, Mode::empty()) {
        Err(Errno::NOTDIR | Errno::LOOP) => {
            return Err(PostgresError::NotOurs(folder.to_path_buf()));
        }
        opened => File::from(opened.doing(|| format!("opening {}", folder.display()))?),
    };
    let state = opened
        .metadata()
        .doing(|| format!("looking at {}", folder.display()))?;
    let own = rustix::process::geteuid().as_raw();
    if state.uid() != own && account.is_none_or(|account| state.uid() != account.uid) {
        return Err(PostgresError::NotOurs(folder.to_path_buf()));
    }
    let to = account.map(|account| (account.uid, account.gid));
    let (uid, gid) = to.unzip();
    fchown(&opened, uid, gid)
        .and_then(|()| opened.set_permissions(Permissions::from_mode(0o700)))
        .doing(|| format!("giving {} to the account of Postgres", folder.display()))
}

fn lock(folder: &Path) -> Result<File, PostgresError> {
    let path = folder.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .doing(|| format!("opening {}", path.display()))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(PostgresError::InUse(folder.to_path_buf())),
        Err(error) => Err(error).doing(|| format!("locking {}", path.display())),
    }
}

/// Root drops to the owner of the data, else to an account of that purpose; others stay themselves.
fn account_for(folder: &Path) -> Result<Option<Account>, PostgresError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let owner = fs::metadata(folder.join("data"))
        .ok()
        .map(|data| data.uid());
    let of_data = owner.and_then(|owner| Account::find(|_, uid| uid == owner && uid != 0));
    let named = || {
        ["countersign", "postgres", "nobody"]
            .iter()
            .find_map(|wanted| Account::find(|name, uid| name == *wanted && uid != 0))
    };
    of_data
        .or_else(named)
        .map(Some)
        .ok_or(PostgresError::NoAccount)
}

/// Every parent must let the account through.
fn check_reachable(folder: &Path, account: &Account) -> Result<(), PostgresError> {
    for parent in folder.ancestors() {
        let Ok(state) = fs::metadata(parent) else {
            continue;
        };
        let open = if state.uid() == account.uid {
            state.mode() & 0o100
        } else if state.gid() == account.gid {
            state.mode() & 0o010
        } else {
            state.mode() & 0o001
        };
        if open == 0 {
            let (account, folder) = (account.name.clone(), parent.to_path_buf());
            return Err(PostgresError::Unreachable { account, folder });
        }
    }
    Ok(())
}

/// Beside the data, or, where that path is too long for a socket, under the temporary directory.
fn socket_folder(folder: &Path) -> Result<PathBuf, PostgresError> {
    let beside = folder.join("sockets");
    if beside.as_os_str().len() + SOCKET_NAME.len() <= SOCKET_PATH_MAX {
        return Ok(beside);
    }
    let state = fs::metadata(folder).doing(|| format!("looking at {}", folder.display()))?;
    let name = format!("countersign-{:x}-{:x}", state.dev(), state.ino());
    Ok(std::env::temp_dir().join(name))
}

fn check_version(data: &Path, binaries: &Binaries) -> Result<(), PostgresError> {
    let path = data.join("PG_VERSION");
    let found = fs::read_to_string(&path).doing(|| format!("reading {}", path.display()))?;
    let found = found.trim().to_owned();
    if found == binaries.major.to_string() {
        return Ok(());
    }
    let (folder, binaries) = (data.to_path_buf(), binaries.major);
    Err(PostgresError::WrongMajor {
        folder,
        found,
        binaries,
    })
}

/// Makes the cluster beside its place and moves it there when it is whole.
fn initialise(
    places: &Places,
    binaries: &Binaries,
    account: Option<&Account>,
    durability: Durability,
) -> Result<(), PostgresError> {
    let new = places.folder.join("data.new");
    if new.exists() {
        fs::remove_dir_all(&new).doing(|| format!("removing the half-made {}", new.display()))?;
    }
    give_folder(&new, account)?;
    let log = open_log(&places.log)?;
    let mut command = spawn::quiet(&binaries.folder.join("initdb"), account, log)
        .doing(|| "preparing initdb".to_owned())?;
    command
        .args(["--data-checksums", "--locale=C", "--encoding=UTF8"])
        .args([
            "--username=countersign_owner",
            "--auth-local=peer",
            "--auth-host=reject",
        ])
        .arg("-D")
        .arg(&new);
    if durability == Durability::ThrowAway {
        command.arg("--no-sync");
    }
    let status = spawn::run(command).doing(|| "starting initdb".to_owned())?;
    if !status.success() {
        let (how, log) = (spawn::describe(status), tail(&places.log));
        return Err(PostgresError::Failed {
            program: "initdb",
            how,
            log,
        });
    }
    let write = |name: &str, text: &str| {
        let path = new.join(name);
        fs::write(&path, text).doing(|| format!("writing {}", path.display()))
    };
    write(
        "pg_hba.conf",
        "# Accounts of this host, by map; nobody else.\nlocal all all peer map=countersign\n",
    )?;
    write("pg_ident.conf", &identities(account))?;
    fs::rename(&new, &places.data).doing(|| format!("moving {} into place", new.display()))
}

/// Who may be which role: the account that started this and the one that runs Postgres.
fn identities(account: Option<&Account>) -> String {
    let own = rustix::process::geteuid().as_raw();
    let own = Account::find(|_, uid| uid == own).map(|found| found.name);
    let names = own
        .into_iter()
        .chain(account.map(|account| account.name.clone()));
    let lines = names.flat_map(|name| {
        ["countersign_owner", "countersign_app"]
            .map(|role| format!("countersign \"{name}\" {role}\n"))
    });
    lines.collect()
}

fn open_log(path: &Path) -> Result<File, PostgresError> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .doing(|| format!("opening {}", path.display()))
}

/// The end of the log, for an error message.
fn tail(path: &Path) -> String {
    /// Enough for Postgres's FATAL and HINT lines.
    const TAIL_BYTES: u64 = 1000;
    let read = || -> io::Result<String> {
        let mut file = File::open(path)?;
        let from = file.metadata()?.len().saturating_sub(TAIL_BYTES);
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    };
    read().unwrap_or_else(|_| "(none)".to_owned())
}

/// Processes whose working directory is the data folder: what a killed parent left running.
fn leftovers(data: &Path) -> Vec<Pid> {
    let Ok(data) = fs::canonicalize(data) else {
        return Vec::new();
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter(|entry| fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == data))
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(Pid::from_raw)
        .filter(|pid| !is_zombie(*pid))
        .collect()
}

/// A zombie is dead; only its parent has not looked yet.
fn is_zombie(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    stat.is_ok_and(|stat| {
        stat.rsplit_once(')')
            .is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
    })
}

/// Stops what still runs in the data folder. We hold the lock, so it belongs to nobody.
fn stop_leftovers(data: &Path) -> Result<(), PostgresError> {
    for signal in [Signal::INT, Signal::QUIT] {
        let begun = Instant::now();
        let mut sent = false;
        while begun.elapsed() < STOP_LIMIT {
            let running = leftovers(data);
            if running.is_empty() {
                return Ok(());
            }
            if !sent {
                running.iter().for_each(|pid| spawn::signal(*pid, signal));
                sent = true;
            }
            thread::sleep(POLL);
        }
    }
    Err(PostgresError::Leftover(data.to_path_buf()))
}

/// Nothing of ours runs, so a pid file and a socket here are stale, whomever they name.
fn remove_stale(places: &Places) -> Result<(), PostgresError> {
    let sockets = fs::read_dir(&places.sockets)
        .into_iter()
        .flatten()
        .flatten();
    let stale = sockets
        .map(|entry| entry.path())
        .chain([places.data.join("postmaster.pid")]);
    for path in stale {
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(error).doing(|| format!("removing the stale {}", path.display()));
            }
        }
    }
    Ok(())
}

/// Starts the postmaster from a thread that lives as long as it does.
fn launch(
    places: &Places,
    binaries: &Binaries,
    account: Option<Account>,
    durability: Durability,
) -> Result<(Pid, JoinHandle<()>), PostgresError> {
    let log = open_log(&places.log)?;
    let mut command = spawn::quiet(&binaries.folder.join("postgres"), account.as_ref(), log)
        .doing(|| "preparing postgres".to_owned())?;
    command.arg("-D").arg(&places.data);
    let sockets = format!("unix_socket_directories={}", places.sockets.display());
    let safe = match durability {
        Durability::Durable => "on",
        Durability::ThrowAway => "off",
    };
    let mut settings = vec![
        "listen_addresses=".to_owned(),
        sockets,
        "max_connections=200".to_owned(),
    ];
    settings.extend(
        ["fsync", "synchronous_commit", "full_page_writes"].map(|name| format!("{name}={safe}")),
    );
    settings.iter().for_each(|setting| {
        command.args(["-c", setting]);
    });
    let (started, answer) = mpsc::channel();
    let keeper = thread::Builder::new()
        .name("postgres-keeper".to_owned())
        .spawn(move || {
            let child = spawn::bound(command, Signal::INT);
            keep(child, &started);
        })
        .doing(|| "starting a thread".to_owned())?;
    let ended = || io::Error::other("the keeper thread ended");
    let pid = answer
        .recv()
        .map_err(|_| ended())
        .and_then(|started| started);
    let pid = pid.doing(|| "starting postgres".to_owned())?;
    Ok((pid, keeper))
}

fn keep(child: io::Result<Child>, started: &mpsc::Sender<io::Result<Pid>>) {
    match child {
        Err(error) => {
            let _nobody_waits = started.send(Err(error));
        }
        Ok(mut child) => {
            let _nobody_waits = started.send(Ok(Pid::from_child(&child)));
            let _unknown = child.wait();
        }
    }
}
