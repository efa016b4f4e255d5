//! The leader's steps between fork and exec, in fixed order, each with its reason.
//!
//! It owns the order and nothing else. It runs after `fork`, so it must not allocate, lock or
//! panic; a step that fails ends the run, none is skipped. Resource limits, the change of user,
//! Landlock and seccomp get their places here when they come.

use rustix::fs::Mode;
use rustix::io::{Errno, FdFlags};
use rustix::process::{Pid, Signal};

use super::syscalls::{self, Slot};

/// What files of a command look like unless it says otherwise: writable by their owner only.
const UMASK: u32 = 0o022;

/// The first descriptor that no command may inherit.
const FIRST_NOT_INHERITED: u32 = 3;

/// A step on the way to the program, named so that a failure can say where it happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The supervisor's own preparations.
    Supervise,
    Signals,
    Session,
    Umask,
    Cwd,
    DeathSignal,
    NoNewPrivileges,
    Descriptors,
    Exec,
}

impl Step {
    /// Every step, in order; the position is the number that reports carry.
    const ALL: [Self; 9] = [
        Self::Supervise,
        Self::Signals,
        Self::Session,
        Self::Umask,
        Self::Cwd,
        Self::DeathSignal,
        Self::NoNewPrivileges,
        Self::Descriptors,
        Self::Exec,
    ];

    pub(super) const fn number(self) -> u8 {
        self as u8
    }

    pub(super) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// What the step does, to go after "could not".
    pub(super) const fn purpose(self) -> &'static str {
        match self {
            Self::Supervise => "set up the supervisor of the run",
            Self::Signals => "reset the signals",
            Self::Session => "open a session of its own",
            Self::Umask => "set the umask",
            Self::Cwd => "enter the working directory",
            Self::DeathSignal => "tie its life to its supervisor",
            Self::NoNewPrivileges => "give up gaining privileges",
            Self::Descriptors => "close inherited descriptors",
            Self::Exec => "execute the program",
        }
    }
}

/// Takes the fresh leader through all steps but the exec itself. Safe after fork.
///
/// # Errors
/// The step that failed and why; the process must then exit without running anything.
pub(super) fn confine(supervisor: Pid, keep_program: bool) -> Result<(), (Step, Errno)> {
    // First, so that nothing the agent ignored or blocked (SIGPIPE) shows in the command.
    syscalls::reset_signals().map_err(|e| (Step::Signals, e))?;
    // Before any other step: from here a signal to the agent's terminal or group misses the run.
    rustix::process::setsid().map_err(|e| (Step::Session, e))?;
    rustix::process::umask(Mode::from_raw_mode(UMASK));
    // By descriptor: the path was walked once, without symlinks, and cannot be swapped since.
    // It stands after the place of the change of user, so that this user's rights count.
    rustix::process::fchdir(Slot::Cwd.fd()).map_err(|e| (Step::Cwd, e))?;
    // A change of user clears the death signal, so it stands after that place as well.
    die_with(supervisor).map_err(|e| (Step::DeathSignal, e))?;
    // Late, because it forbids what earlier steps may need; it also disarms set-uid programs.
    rustix::thread::set_no_new_privs(true).map_err(|e| (Step::NoNewPrivileges, e))?;
    // Last: until here a failure still has a socket to be reported on.
    close_all_but_standard(keep_program).map_err(|e| (Step::Descriptors, e))
}

/// The kernel kills this process when its parent dies; a parent that died before that is noticed.
fn die_with(supervisor: Pid) -> Result<(), Errno> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    if rustix::process::getppid() == Some(supervisor) {
        Ok(())
    } else {
        Err(Errno::CHILD)
    }
}

/// All but stdin, stdout and stderr close at exec. A script's descriptor stays, because its
/// interpreter opens it again as `/dev/fd/4`.
fn close_all_but_standard(keep_program: bool) -> Result<(), Errno> {
    syscalls::close_on_exec_from(FIRST_NOT_INHERITED)?;
    if keep_program {
        rustix::io::fcntl_setfd(Slot::Program.fd(), FdFlags::empty())?;
    }
    Ok(())
}
