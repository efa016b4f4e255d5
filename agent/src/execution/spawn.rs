//! From a plan to a running supervisor: descriptors, the fork, and the agent's handle on it.
//!
//! It owns what has to exist before the fork and the socket to the supervisor after it. It must
//! not decide when a run ends.

use std::ffi::{CString, OsStr, OsString};
use std::io::{Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, ResolveFlags, SealFlags};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, WaitId, WaitIdOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::oneshot;

use super::run::Plan;
use super::supervisor::{self, Job, KILL_ORDER, REPORT_BYTES, Report};
use super::syscalls::{self, CStringArray, Slot};

/// Descriptors for the supervisor are moved to here or above, out of the way of its slots.
const ABOVE_SLOTS: i32 = 16;

/// Pause before the second look for an ended supervisor; it mostly has only its exit before it.
const FIRST_REAP_PAUSE: Duration = Duration::from_millis(1);

/// Longest pause between two looks, for a tree that is stuck in the kernel.
const LAST_REAP_PAUSE: Duration = Duration::from_secs(1);

/// Why nothing was started.
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
}

/// The agent's end of the socket to one supervisor. Dropping it kills the run.
pub(super) struct Supervisor {
    held: Arc<Held>,
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

    /// Orders the death of the whole tree. A supervisor that cannot be told is gone.
    pub(super) async fn order_kill(&mut self) {
        let _ = self.socket.write_all(&[KILL_ORDER]).await;
    }
}

/// Starts the plan. Must be called inside a tokio runtime.
pub(super) fn launch(plan: &Plan) -> Result<Launch, StartError> {
    let argv = argv(&plan.argv)?;
    let env = environment(&plan.env)?;
    let cwd = raised(open_cwd(&plan.cwd)?)?;
    let stdin = raised(stdin(&plan.stdin)?)?;
    let (stdout, child_stdout) = pipe()?;
    let (stderr, child_stderr) = pipe()?;
    let (ours, theirs) = StdUnixStream::pair().map_err(because("socket"))?;
    ours.set_nonblocking(true).map_err(because("socket"))?;
    let socket = UnixStream::from_std(ours).map_err(because("socket"))?;
    let control = raised(theirs.into())?;
    let program = raise(plan.program.fd())?;
    let sources = [
        (Slot::Stdin, stdin.as_fd()),
        (Slot::Stdout, child_stdout.as_fd()),
        (Slot::Stderr, child_stderr.as_fd()),
        (Slot::Control, control.as_fd()),
        (Slot::Program, program.as_fd()),
        (Slot::Cwd, cwd.as_fd()),
    ];
    let job = Job {
        sources,
        argv,
        env,
        script: plan.program.is_script(),
    };
    let pid = syscalls::fork_with(&job, |job| supervisor::supervise(job))
        .map_err(|error| because("fork")(error.into()))?;
    let (released, release) = oneshot::channel();
    reap_when_ended(pid, release);
    let held = Arc::new(Held {
        pid,
        _released: released,
    });
    let supervisor = Supervisor {
        held,
        socket,
        partial: [0; REPORT_BYTES],
        filled: 0,
    };
    Ok(Launch {
        supervisor,
        stdout,
        stderr,
    })
}

/// Reaps the supervisor itself in the background, once it has ended and nobody needs its process
/// id any more; so no zombie stays, also when the run's future is dropped.
///
/// It looks again and again instead of waiting in a thread, because a runtime that shuts down
/// waits for its threads, and a process stuck in the kernel would then hold the agent.
fn reap_when_ended(pid: Pid, release: oneshot::Receiver<()>) {
    tokio::spawn(async move {
        let _ = release.await;
        let mut pause = FIRST_REAP_PAUSE;
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        while let Ok(None) = rustix::process::waitid(WaitId::Pid(pid), options) {
            tokio::time::sleep(pause).await;
            pause = pause.saturating_mul(2).min(LAST_REAP_PAUSE);
        }
    });
}

fn argv(arguments: &[OsString]) -> Result<CStringArray, StartError> {
    if arguments.is_empty() {
        return Err(StartError::NoArguments);
    }
    let strings = arguments.iter().enumerate().map(|(index, argument)| {
        CString::new(argument.as_bytes()).map_err(|_| StartError::NulInArgument { index })
    });
    Ok(CStringArray::new(strings.collect::<Result<_, _>>()?))
}

fn environment(entries: &[(OsString, OsString)]) -> Result<CStringArray, StartError> {
    let strings = entries.iter().map(|(name, value)| {
        let refused = || StartError::Environment { name: name.clone() };
        if name.is_empty() || name.as_bytes().contains(&b'=') {
            return Err(refused());
        }
        let entry = [name.as_bytes(), b"=", value.as_bytes()].concat();
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
    sealed(bytes).map_err(because("stdin"))
}

fn sealed(bytes: &[u8]) -> std::io::Result<OwnedFd> {
    if bytes.is_empty() {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        return Ok(rustix::fs::open(
            OsStr::new("/dev/null"),
            flags,
            Mode::empty(),
        )?);
    }
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = std::fs::File::from(rustix::fs::memfd_create("stdin", flags)?);
    file.write_all(bytes)?;
    file.rewind()?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file.into())
}

/// A pipe: our reading end, registered with the runtime, and the command's writing end.
fn pipe() -> Result<(Receiver, OwnedFd), StartError> {
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)
        .map_err(|error| because("pipe")(error.into()))?;
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

fn because(what: &'static str) -> impl Fn(std::io::Error) -> StartError {
    move |source| StartError::Resources { what, source }
}
