//! The leader's steps between fork and exec, in fixed order, each with its reason.
//!
//! It owns the order and nothing else. It runs after `fork`, so it must not allocate, lock or
//! panic; a step that fails ends the run, none is skipped. What a step needs was made before the
//! fork, in `confinement`.

use rustix::io::{Errno, FdFlags};
use rustix::process::{Gid, Pid, Signal, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::confinement::{Identity, Prepared};
use super::syscalls::{self, Slot};

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
    Cgroup,
    Account,
    AccountHolds,
    Cwd,
    DeathSignal,
    NoNewPrivileges,
    Fence,
    Limits,
    Descriptors,
    Filter,
    Exec,
}

impl Step {
    /// Every step, in order; the position is the number that reports carry.
    const ALL: [Self; 15] = [
        Self::Supervise,
        Self::Signals,
        Self::Session,
        Self::Umask,
        Self::Cgroup,
        Self::Account,
        Self::AccountHolds,
        Self::Cwd,
        Self::DeathSignal,
        Self::NoNewPrivileges,
        Self::Fence,
        Self::Limits,
        Self::Descriptors,
        Self::Filter,
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
            Self::Cgroup => "enter its cgroup",
            Self::Account => "become the user it is to run as",
            Self::AccountHolds => "make sure that it cannot go back to the agent's user",
            Self::Cwd => "enter the working directory",
            Self::DeathSignal => "tie its life to its supervisor",
            Self::NoNewPrivileges => "give up gaining privileges",
            Self::Fence => "enter its Landlock rules",
            Self::Limits => "set its resource limits",
            Self::Descriptors => "close inherited descriptors",
            Self::Filter => "install its system call filter",
            Self::Exec => "execute the program",
        }
    }
}

/// What the program's interpreter, and not only the kernel, must find open.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kept {
    /// The program begins with `#!`.
    pub(super) program: bool,
    /// A shell runs a text of ours.
    pub(super) text: bool,
}

/// Takes the fresh leader through all steps but the exec itself. Safe after fork.
///
/// # Errors
/// The step that failed and why; the process must then exit without running anything.
pub(super) fn confine(
    prepared: &Prepared,
    supervisor: Pid,
    kept: Kept,
) -> Result<(), (Step, Errno)> {
    // First, so that nothing the agent ignored or blocked (SIGPIPE) shows in the command.
    syscalls::reset_signals().map_err(|e| (Step::Signals, e))?;
    // Before any other step: from here a signal to the agent's terminal or group misses the run.
    rustix::process::setsid().map_err(|e| (Step::Session, e))?;
    rustix::process::umask(prepared.umask);
    // As the agent's user, who may; everything the run starts is counted from its first moment.
    if prepared.cgroup.is_some() {
        join_cgroup().map_err(|e| (Step::Cgroup, e))?;
    }
    if let Some(identity) = &prepared.identity {
        take_on(identity).map_err(|e| (Step::Account, e))?;
        cannot_undo(identity).map_err(|e| (Step::AccountHolds, e))?;
    }
    // By descriptor: the path was walked once, without symlinks, and cannot be swapped since.
    // After the change of user, so that this user's rights count.
    rustix::process::fchdir(Slot::Cwd.fd()).map_err(|e| (Step::Cwd, e))?;
    // The change of user has cleared any death signal, so not before it.
    die_with(supervisor).map_err(|e| (Step::DeathSignal, e))?;
    // Late, because it forbids what earlier steps may need; it also disarms set-uid programs, and
    // the kernel wants it before the fence and the filter.
    if prepared.in_force.no_new_privs {
        rustix::thread::set_no_new_privs(true).map_err(|e| (Step::NoNewPrivileges, e))?;
    }
    if prepared.ruleset.is_some() {
        syscalls::restrict_by_landlock(Slot::Ruleset.fd()).map_err(|e| (Step::Fence, e))?;
    }
    // Only ever lower than the agent's hard limits, so the user's rights suffice.
    for (resource, limit) in &prepared.rlimits {
        rustix::process::setrlimit(*resource, *limit).map_err(|e| (Step::Limits, e))?;
    }
    // Until the exec itself a failure still has a socket to be reported on.
    close_all_but_standard(kept).map_err(|e| (Step::Descriptors, e))?;
    // Last, so that it judges the command and not these steps.
    if let Some(filter) = &prepared.filter {
        syscalls::install_filter(filter.steps()).map_err(|e| (Step::Filter, e))?;
    }
    Ok(())
}

/// `0` is whoever writes.
fn join_cgroup() -> Result<(), Errno> {
    rustix::io::write(Slot::Cgroup.fd(), b"0").map(drop)
}

/// Groups first and the user last, since each step needs the rights that the last one gives up.
/// These calls act on one thread, and the leader has no other.
fn take_on(identity: &Identity) -> Result<(), Errno> {
    let (uid, gid) = (identity.uid, identity.gid);
    set_thread_groups(&identity.groups)?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    let groups = identity.groups.iter().map(|group| group.as_raw());
    if syscalls::is_identity(uid.as_raw(), gid.as_raw(), groups) {
        Ok(())
    } else {
        Err(Errno::PERM)
    }
}

/// Tries the way back: it has to be closed, for whoever is not root by request.
fn cannot_undo(identity: &Identity) -> Result<(), Errno> {
    if identity.uid == Uid::ROOT {
        return Ok(());
    }
    let back_to_root = set_thread_res_uid(None, Uid::ROOT, None).is_ok();
    let back_to_group =
        identity.gid != Gid::ROOT && set_thread_res_gid(None, Gid::ROOT, None).is_ok();
    let back_to_groups = set_thread_groups(&identity.groups).is_ok();
    if back_to_root || back_to_group || back_to_groups {
        Err(Errno::NOTRECOVERABLE)
    } else {
        Ok(())
    }
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
/// interpreter opens it again as `/dev/fd/4`, and so does a text that a shell reads.
fn close_all_but_standard(kept: Kept) -> Result<(), Errno> {
    syscalls::close_on_exec_from(FIRST_NOT_INHERITED)?;
    if kept.program {
        rustix::io::fcntl_setfd(Slot::Program.fd(), FdFlags::empty())?;
    }
    if kept.text {
        rustix::io::fcntl_setfd(Slot::Text.fd(), FdFlags::empty())?;
    }
    Ok(())
}
