//! From a plan to a running supervisor: descriptors, the fork, and the agent's handle on it.
//!
//! It owns what has to exist before the fork and the socket to the supervisor after it. It must
//! not decide when a run ends.

use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{CWD, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, WaitId, WaitIdOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::oneshot;

use super::cgroup::Cgroup;
use super::confinement::{Account, ConfineError, InForce};
use super::run::{Plan, Step};
use super::sandbox::Kept;
use super::sealed::sealed;
use super::secrets::SECRETS_VARIABLE;
use super::supervisor::{self, Job, KILL_ORDER, REPORT_BYTES, Report};
use super::syscalls::{self, CStringArray, Slot, TEXT_PATH};

/// Descriptors for the supervisor are moved to here or above, out of the way of its slots.
const ABOVE_SLOTS: i32 = 16;

/// Pause before the second look for an ended supervisor; it mostly has only its exit before it.
const FIRST_REAP_PAUSE: Duration = Duration::from_millis(1);

/// Longest pause between two looks, for a tree that is stuck in the kernel.
const LAST_REAP_PAUSE: Duration = Duration::from_secs(1);

/// Why a step was not started.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error("the command has no argv[0]; name a program to run")]
    NoArguments,
    #[error("argument {index} contains a NUL byte, which no program can be given; remove it")]
    NulInArgument { index: usize },
    #[error(
        "the environment entry {name:?} is not allowed; names are not empty and have no '=', and nothing has a NUL byte"
    )]
    Environment { name: OsString },
    #[error("the working directory {path:?} is not absolute; give a path that begins with '/'")]
    CwdNotAbsolute { path: PathBuf },
    #[error(
        "the working directory {path:?} leads through a symbolic link; give the path without links"
    )]
    CwdSymlink { path: PathBuf },
    #[error("the working directory {path:?} could not be opened: {error}")]
    Cwd { path: PathBuf, error: Errno },
    #[error(transparent)]
    Confine(#[from] ConfineError),
    #[error(
        "the agent could not prepare the run ({what}): {source}; see its limits on open files and processes"
    )]
    Resources {
        what: &'static str,
        #[source]
        source: std::io::Error,
    },
}

/// A started run, as the agent holds it.
pub(super) struct Launch {
    pub(super) supervisor: Supervisor,
    pub(super) stdout: Receiver,
    pub(super) stderr: Receiver,
    pub(super) in_force: InForce,
}

/// The agent's end of the socket to one supervisor. Dropping it kills the run.
pub(super) struct Supervisor {
    held: Arc<Held>,
    cgroup: Option<Arc<Cgroup>>,
    socket: UnixStream,
    partial: [u8; REPORT_BYTES],
    filled: usize,
}

/// A supervisor's process id that stays its own: it is not reaped before the last of these drops.
pub(super) struct Held {
    pid: Pid,
    _released: oneshot::Sender<()>,
}

impl Held {
    pub(super) const fn pid(&self) -> Pid {
        self.pid
    }
}

impl Supervisor {
    pub(super) fn held(&self) -> Arc<Held> {
        Arc::clone(&self.held)
    }

    /// The next report; none when the supervisor is gone. Safe to cancel.
    pub(super) async fn next_report(&mut self) -> Option<Report> {
        while self.filled < REPORT_BYTES {
            let room = self.partial.get_mut(self.filled..)?;
            match self.socket.read(room).await {
                Ok(0) | Err(_) => return None,
                Ok(length) => self.filled = self.filled.saturating_add(length),
            }
        }
        self.filled = 0;
        Report::decode(&self.partial)
    }

    /// Removes the cgroup of a tree that is gone; what fails here is tried again by the reaper.
    pub(super) fn remove_cgroup(&self) {
        if let Some(cgroup) = &self.cgroup {
            cgroup.remove();
        }
    }

    /// Orders the death of the whole tree. A supervisor that cannot be told is gone.
    pub(super) async fn order_kill(&mut self) {
        let _ = self.socket.write_all(&[KILL_ORDER]).await;
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
        }
    }
}

/// Starts one step of the plan, whose secrets lie in this folder where some are files. Must be
/// called inside a tokio runtime.
pub(super) fn launch(
    step: &Step,
    plan: &Plan,
    secrets: Option<&Path>,
) -> Result<Launch, StartError> {
    let text = step.program.text();
    let argv = argv(&step.argv, text.is_some())?;
    let env = environment(plan, secrets)?;
    let cwd = raised(open_cwd(&plan.cwd)?)?;
    let stdin = raised(stdin(plan.secrets.stdin().unwrap_or(&plan.stdin))?)?;
    let mut prepared = plan.confinement.prepare(plan.announced)?;
    // An account that is the agent's own already owns the pipes.
    let owner = plan.confinement.account.as_ref();
    let owner = owner.filter(|_| prepared.identity.is_some());
    let (stdout, child_stdout) = pipe(owner)?;
    let (stderr, child_stderr) = pipe(owner)?;
    let (ours, theirs) = StdUnixStream::pair().map_err(because("socket"))?;
    ours.set_nonblocking(true).map_err(because("socket"))?;
    let socket = UnixStream::from_std(ours).map_err(because("socket"))?;
    let control = raised(theirs.into())?;
    let program = raise(step.program.fd())?;
    let ruleset = raise_some(prepared.ruleset.as_ref().map(AsFd::as_fd))?;
    let text = raise_some(text)?;
    let procs = raise_some(prepared.cgroup.as_ref().map(Cgroup::procs))?;
    let always = [
        (Slot::Stdin, stdin.as_fd()),
        (Slot::Stdout, child_stdout.as_fd()),
        (Slot::Stderr, child_stderr.as_fd()),
        (Slot::Control, control.as_fd()),
        (Slot::Program, program.as_fd()),
        (Slot::Cwd, cwd.as_fd()),
    ];
    let sometimes = [
        (Slot::Ruleset, &ruleset),
        (Slot::Text, &text),
        (Slot::Cgroup, &procs),
    ];
    let sometimes = sometimes
        .into_iter()
        .filter_map(|(slot, fd)| Some((slot, fd.as_ref()?.as_fd())));
    let job = Job {
        sources: always.into_iter().chain(sometimes).collect(),
        argv,
        env,
        kept: Kept {
            program: step.program.is_script(),
            text: text.is_some(),
        },
        prepared: &prepared,
    };
    let pid = syscalls::fork_with(&job, |job| supervisor::supervise(job))
        .map_err(|error| because("fork")(error.into()))?;
    let (released, release) = oneshot::channel();
    drop(job);
    let cgroup = prepared.cgroup.take().map(Arc::new);
    reap_when_ended(pid, release, cgroup.clone());
    let held = Arc::new(Held {
        pid,
        _released: released,
    });
    let supervisor = Supervisor {
        held,
        cgroup,
        socket,
        partial: [0; REPORT_BYTES],
        filled: 0,
    };
    Ok(Launch {
        supervisor,
        stdout,
        stderr,
        in_force: prepared.in_force,
    })
}

/// Reaps the supervisor itself in the background, once it has ended and nobody needs its process
/// id any more; so no zombie stays, also when the run's future is dropped. The cgroup goes after.
///
/// It looks again and again instead of waiting in a thread, because a runtime that shuts down
/// waits for its threads, and a process stuck in the kernel would then hold the agent.
fn reap_when_ended(pid: Pid, release: oneshot::Receiver<()>, cgroup: Option<Arc<Cgroup>>) {
    tokio::spawn(async move {
        let _ = release.await;
        let mut pause = FIRST_REAP_PAUSE;
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        while let Ok(None) = rustix::process::waitid(WaitId::Pid(pid), options) {
            tokio::time::sleep(pause).await;
            pause = pause.saturating_mul(2).min(LAST_REAP_PAUSE);
        }
        // Its processes outlive it when something from outside has killed the supervisor.
        if let Some(cgroup) = cgroup {
            while !cgroup.remove() {
                cgroup.kill();
                tokio::time::sleep(pause).await;
                pause = pause.saturating_mul(2).min(LAST_REAP_PAUSE);
            }
        }
    });
}

/// The arguments; a shell that reads a text is given its path after argv\[0\].
fn argv(arguments: &[OsString], text: bool) -> Result<CStringArray, StartError> {
    if arguments.is_empty() {
        return Err(StartError::NoArguments);
    }
    let strings = arguments.iter().enumerate().map(|(index, argument)| {
        CString::new(argument.as_bytes()).map_err(|_| StartError::NulInArgument { index })
    });
    let mut strings: Vec<CString> = strings.collect::<Result<_, _>>()?;
    if text {
        strings.insert(1, TEXT_PATH.to_owned());
    }
    Ok(CStringArray::new(strings))
}

/// The plan's variables, those that are secret, and where the secrets are that are files.
fn environment(plan: &Plan, secrets: Option<&Path>) -> Result<CStringArray, StartError> {
    let folder =
        secrets.map(|folder| (OsStr::new(SECRETS_VARIABLE), folder.as_os_str().as_bytes()));
    let plain = plan.env.iter();
    let plain = plain.map(|(name, value)| (name.as_os_str(), value.as_bytes()));
    let entries = plain.chain(plan.secrets.variables()).chain(folder);
    let strings = entries.map(|(name, value)| {
        let refused = || StartError::Environment {
            name: name.to_owned(),
        };
        if name.is_empty() || name.as_bytes().contains(&b'=') || value.contains(&0) {
            return Err(refused());
        }
        // Room for all of it and the NUL, so that no copy of a secret is left behind by growing.
        let room = name.len().saturating_add(value.len()).saturating_add(2);
        let mut entry = Vec::with_capacity(room);
        entry.extend_from_slice(name.as_bytes());
        entry.push(b'=');
        entry.extend_from_slice(value);
        CString::new(entry).map_err(|_| refused())
    });
    Ok(CStringArray::new(strings.collect::<Result<_, _>>()?))
}

/// Opened once, walked without a symlink anywhere, entered later by this descriptor.
fn open_cwd(path: &Path) -> Result<OwnedFd, StartError> {
    if !path.is_absolute() {
        return Err(StartError::CwdNotAbsolute {
            path: path.to_owned(),
        });
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS).map_err(
        |error| match error {
            Errno::LOOP => StartError::CwdSymlink {
                path: path.to_owned(),
            },
            error => StartError::Cwd {
                path: path.to_owned(),
                error,
            },
        },
    )
}

/// The bytes as a sealed file in memory, which nobody can change under the command; an empty
/// stdin is `/dev/null`.
fn stdin(bytes: &[u8]) -> Result<OwnedFd, StartError> {
    if bytes.is_empty() {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        return rustix::fs::open(OsStr::new("/dev/null"), flags, Mode::empty())
            .map_err(|error| because("stdin")(error.into()));
    }
    sealed("stdin", bytes).map_err(because("stdin"))
}

/// A pipe: our reading end, registered with the runtime, and the command's writing end. It belongs
/// to the account, which otherwise could not open its own `/dev/stdout`.
fn pipe(owner: Option<&Account>) -> Result<(Receiver, OwnedFd), StartError> {
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)
        .map_err(|error| because("pipe")(error.into()))?;
    if let Some(Account { uid, gid, .. }) = owner {
        let (uid, gid) = (Uid::from_raw(*uid), Gid::from_raw(*gid));
        rustix::fs::fchown(&write, Some(uid), Some(gid))
            .map_err(|error| because("owner of a pipe")(error.into()))?;
    }
    let read = Receiver::from_owned_fd(read).map_err(because("pipe"))?;
    Ok((read, raised(write)?))
}

fn raised(fd: OwnedFd) -> Result<OwnedFd, StartError> {
    raise(fd.as_fd())
}

/// A copy of the descriptor above all slots.
fn raise(fd: BorrowedFd<'_>) -> Result<OwnedFd, StartError> {
    rustix::io::fcntl_dupfd_cloexec(fd, ABOVE_SLOTS)
        .map_err(|error| because("descriptor")(error.into()))
}

fn raise_some(fd: Option<BorrowedFd<'_>>) -> Result<Option<OwnedFd>, StartError> {
    fd.map(raise).transpose()
}

fn because(what: &'static str) -> impl Fn(std::io::Error) -> StartError {
    move |source| StartError::Resources { what, source }
}
