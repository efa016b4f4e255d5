//! The agent of dev and demo: a process of its own, with a configuration as a host would have it.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::home::Home;
use super::people::{self, Person};
use super::spawn;
use super::station::DevError;

/// Its name in the ledger.
pub(super) const NAME: &str = "local";

/// Its state, in its folder.
pub(super) const STATE: &str = "state";

/// How long it may take to end its commands and say so before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(6);

/// How often its end is looked for.
const POLL: Duration = Duration::from_millis(20);

/// A pause before it is started again, so that one that cannot start does not spin.
const RESTART_PAUSE: Duration = Duration::from_millis(500);

/// Seconds from TERM to KILL of a command: with it, everything stops well within ten seconds.
const GRACE_S: u64 = 2;

/// What the agent pins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pins<'a> {
    /// Where the server listens.
    pub(super) server: &'a str,
    /// The ledger's id.
    pub(super) ledger: &'a str,
    /// Its origin.
    pub(super) origin: &'a str,
    /// Its checkpoints' key.
    pub(super) vkey: &'a str,
}

/// Writes the agent's configuration, as of now: the port may be another each time.
///
/// # Errors
/// The file system's.
pub(super) fn configure(
    home: &Home,
    people: &[Person],
    pins: Pins<'_>,
) -> Result<PathBuf, DevError> {
    let folder = home.agent();
    write_private(
        &folder.join("allowed_signers"),
        &people::allowed_signers(people),
    )?;
    let user = spawn::Account::find(|_, uid| uid == rustix::process::geteuid().as_raw())
        .map_or_else(String::new, |account| {
            format!(
                "# Whoever asks for no user gets the agent's own.\ndefault_user = {:?}\n",
                account.name
            )
        });
    let Pins {
        server,
        ledger,
        origin,
        vkey,
    } = pins;
    let names = every_name();
    let text = format!(
        "# Written anew at each start of `countersign dev`.\n\
         server = {server:?}\nname = {NAME:?}\nstate = {STATE:?}\n\n\
         # Out of the server's reach: whom this host believes.\n\
         ledger = {ledger:?}\norigin = {origin:?}\nvkey = {vkey:?}\n\
         allowed_signers = \"allowed_signers\"\nmin_approvals = 2\n\n\
         # What may run here. A real host allows less.\n\
         execution = true\nmodes = [\"exec\", \"shell\", \"action\"]\n\
         allow_all = true\nshell.allow = true\nenvironment = {names}\n\
         grace_s = {GRACE_S}\ndrain_s = 0\n\
         # dev's folder lies among yours, where commands may write; a real host keeps its own apart.\n\
         confine.protect_own = false\n{user}"
    );
    let path = folder.join("agent.toml");
    write_private(&path, &text)?;
    Ok(path)
}

/// Patterns for every variable's name; a star alone is none, so that nobody allows all by a slip.
fn every_name() -> String {
    let first = ('A'..='Z').chain('a'..='z').chain(['_']);
    let patterns: Vec<String> = first.map(|letter| format!("\"{letter}*\"")).collect();
    format!("[{}]", patterns.join(", "))
}

/// Writes a file that only we can read, whole or not at all.
pub(super) fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let new = crate::durable::beside(path);
    // A leftover may have another mode.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)
}

#[derive(Debug, Default)]
struct Shared {
    child: Option<Pid>,
    stopping: bool,
}

/// A running agent, started again when it ends by itself.
#[derive(Debug)]
pub(super) struct AgentProcess {
    shared: Arc<Mutex<Shared>>,
    keeper: Option<JoinHandle<()>>,
}

impl AgentProcess {
    /// Starts it from this very binary. Its words go to `agent.log`.
    ///
    /// # Errors
    /// The process cannot be started.
    pub(super) fn start(home: &Home, config: PathBuf) -> Result<Self, DevError> {
        let log = home.path().join("agent.log");
        let shared = Arc::new(Mutex::new(Shared::default()));
        let ours = Arc::clone(&shared);
        let (started, told) = std::sync::mpsc::channel();
        // Its death signal follows the thread that forks it, so one thread keeps it.
        let keeper = thread::spawn(move || {
            let mut first = Some(started);
            loop {
                let child = launch(&config, &log);
                let child = match (child, first.take()) {
                    (Ok(child), told) => {
                        let _gone = told.map(|told| told.send(Ok(())));
                        child
                    }
                    (Err(error), Some(told)) => {
                        let _gone = told.send(Err(error));
                        return;
                    }
                    (Err(error), None) => {
                        tracing::error!(%error, "the agent cannot be started again");
                        return;
                    }
                };
                if !keep(&ours, child) {
                    return;
                }
                thread::sleep(RESTART_PAUSE);
            }
        });
        told.recv()
            .unwrap_or_else(|_| Err(std::io::Error::other("the keeper of the agent ended")))?;
        Ok(Self {
            shared,
            keeper: Some(keeper),
        })
    }

    /// Asks it to end its commands and to stop; kills it when it does not. Blocks.
    pub(super) fn stop(mut self) {
        self.shut_down();
    }

    fn shut_down(&mut self) {
        let Some(keeper) = self.keeper.take() else {
            return;
        };
        let ask = |signal| {
            let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
            shared.stopping = true;
            if let Some(pid) = shared.child {
                spawn::signal(pid, signal);
            }
        };
        ask(Signal::TERM);
        let begun = Instant::now();
        while !keeper.is_finished() && begun.elapsed() < STOP_LIMIT {
            thread::sleep(POLL);
        }
        if !keeper.is_finished() {
            ask(Signal::KILL);
        }
        let _panicked = keeper.join();
    }
}

impl Drop for AgentProcess {
    fn drop(&mut self) {
        self.shut_down();
    }
}

fn launch(config: &Path, log: &Path) -> std::io::Result<Child> {
    let log: File = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(log)?;
    let program = std::env::current_exe()?;
    let mut command = spawn::quiet(&program, None, log)?;
    command.arg("agent").arg("--config").arg(config);
    // KILL, not TERM: when we are gone there is nobody left to deliver to, and its supervisors end
    // what it runs.
    spawn::bound(command, Signal::KILL)
}

/// Waits for the agent's end. Says whether it is to be started again.
fn keep(shared: &Mutex<Shared>, mut child: Child) -> bool {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    {
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.child = pid;
        if let (true, Some(pid)) = (shared.stopping, pid) {
            spawn::signal(pid, Signal::TERM);
        }
    }
    let ended = loop {
        // Looked for and not waited for, so that the pid is forgotten before it can be another's.
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        match child.try_wait() {
            Ok(None) => {}
            Ok(Some(status)) => {
                shared.child = None;
                break Some((status, shared.stopping));
            }
            Err(_) => break None,
        }
        drop(shared);
        thread::sleep(POLL);
    };
    match ended {
        Some((status, false)) => {
            tracing::warn!(
                how = spawn::describe(status),
                "the agent ended; starting it again"
            );
            true
        }
        Some((_, true)) | None => false,
    }
}
