//! Starting processes for `dev` and `demo`: the only file of the server that may.
#![expect(
    clippy::disallowed_methods,
    reason = "this is the one file where processes are started"
)]

use std::fs::File;
use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal};

/// An account to run as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Account {
    /// Looks an account up by a test on its name and uid.
    pub(crate) fn find(wanted: impl Fn(&str, u32) -> bool) -> Option<Self> {
        let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let uid = fields.nth(1)?.parse().ok()?;
            let gid = fields.next()?.parse().ok()?;
            wanted(name, uid).then(|| Self {
                name: name.to_owned(),
                uid,
                gid,
            })
        })
    }
}

/// Runs a program to its end and gives its output, if it ended well.
pub(crate) fn output(program: &Path, arguments: &[&str]) -> Option<String> {
    let done = Command::new(program)
        .args(arguments)
        .stderr(Stdio::null())
        .output()
        .ok()?;
    done.status
        .success()
        .then(|| String::from_utf8(done.stdout).ok())?
}

/// A command with an empty environment, no input, its words written to `log`, run as `account`.
pub(crate) fn quiet(program: &Path, account: Option<&Account>, log: File) -> io::Result<Command> {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("LC_ALL", "C")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    if let Some(account) = account {
        // The standard library drops all supplementary groups with the uid.
        command.uid(account.uid).gid(account.gid);
    }
    Ok(command)
}

/// Starts a process in a session of its own that is sent `signal` when this *thread* ends.
///
/// The session keeps a terminal's ^C away from it. The death signal follows the thread that forks,
/// so call this from a thread that outlives the child.
pub(crate) fn bound(mut command: Command, signal: Signal) -> io::Result<Child> {
    let parent = rustix::process::getpid();
    let in_child = move || {
        rustix::process::setsid()?;
        // After the change of uid, which clears it.
        rustix::process::set_parent_process_death_signal(Some(signal))?;
        // Did the parent die before the signal was armed?
        if rustix::process::getppid() == Some(parent) {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(libc::ECHILD))
        }
    };
    #[expect(unsafe_code, reason = "the one way to act between fork and exec")]
    // SAFETY: the closure makes three system calls and allocates nothing, so it is fine in a child
    // that was forked from a process with threads.
    unsafe {
        command.pre_exec(in_child);
    }
    command.spawn()
}

/// Runs a command to its end.
pub(crate) fn run(mut command: Command) -> io::Result<ExitStatus> {
    command.status()
}

/// Says how a process ended, for people.
pub(crate) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown end".to_owned(),
    }
}

/// Sends a signal; a process that is gone is fine.
pub(crate) fn signal(pid: Pid, signal: Signal) {
    let _gone = rustix::process::kill_process(pid, signal);
}

/// Runs a program to its end on this terminal.
pub(crate) fn attached(program: &Path, arguments: &[&str]) -> io::Result<ExitStatus> {
    Command::new(program).args(arguments).status()
}
