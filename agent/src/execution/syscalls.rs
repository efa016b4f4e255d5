//! The only file of the agent with `unsafe`: what rustix does not offer safely.
//!
//! Every function here is a thin wrapper over one or two system calls. None may allocate, lock or
//! panic once it can run between `fork` and `exec`; those that can say so.

#![expect(
    unsafe_code,
    reason = "fork, exec, wait with resource usage, signal masks, identities and the entry into Landlock and seccomp have no safe wrapper"
)]

use std::borrow::Borrow;
use std::ffi::{CStr, CString, c_char, c_long};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::process::Pid;
use zeroize::Zeroize as _;

use super::confinement::MAX_GROUPS;

/// Highest signal number that Linux knows.
const LAST_SIGNAL: i32 = 64;

/// Size of the kernel's signal mask: one bit for each of these signals.
const KERNEL_MASK_BYTES: usize = 8;

/// `LANDLOCK_CREATE_RULESET_VERSION`: ask for the version instead of making rules.
const LANDLOCK_ASK_VERSION: u32 = 1;

/// Where the supervisor lays its descriptors, so that all others can be closed in one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub(super) enum Slot {
    Stdin = 0,
    Stdout = 1,
    Stderr = 2,
    /// The supervisor's end of the socket to the agent.
    Control = 3,
    /// The program; scripts see it as `/dev/fd/4`.
    Program = 4,
    /// The working directory.
    Cwd = 5,
    /// The Landlock rules, if there are any.
    Ruleset = 6,
    /// The text that a shell reads, if there is one, as [`TEXT_PATH`].
    Text = 7,
    /// Where the leader enters its cgroup, if it has one.
    Cgroup = 8,
}

/// Where a shell finds the text in [`Slot::Text`].
pub(super) const TEXT_PATH: &CStr = c"/proc/self/fd/7";

/// The first descriptor that is no slot.
pub(super) const FIRST_FREE: u32 = 9;

impl Slot {
    /// The descriptor in this slot. Only meaningful in a supervisor or leader, after [`Slot::fill`].
    pub(super) fn fd(self) -> BorrowedFd<'static> {
        // SAFETY: the number is not -1, and a supervisor or leader, which alone asks, keeps its
        // slots until it has no further use for them; a closed slot gives EBADF, no memory error.
        unsafe { BorrowedFd::borrow_raw(self as RawFd) }
    }

    /// Copies `from` into this slot, inheritable over exec. Safe after fork.
    pub(super) fn fill(self, from: BorrowedFd<'_>) -> Result<(), Errno> {
        // SAFETY: dup2 takes two numbers; slots belong to the supervisor, which has just forked
        // and whose sources all lie above the slots.
        check(unsafe { libc::dup2(from.as_raw_fd(), self as RawFd) }).map(drop)
    }
}

/// How often a process was on the CPU, and how large it grew.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// User and system time in microseconds.
    pub(super) cpu_us: u64,
    /// Largest resident set of any one process, in bytes.
    pub(super) max_rss_bytes: u64,
}

impl Usage {
    /// Of both together: the times add up, and the largest process is the larger one.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            cpu_us: self.cpu_us.saturating_add(other.cpu_us),
            max_rss_bytes: self.max_rss_bytes.max(other.max_rss_bytes),
        }
    }
}

/// What waiting for any child found.
#[derive(Debug, Clone, Copy)]
pub(super) enum Waited {
    /// Children exist and none has ended.
    Nothing,
    /// There is no child at all.
    NoChildren,
    /// This child ended and is reaped.
    Ended { pid: Pid, end: End, usage: Usage },
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// By itself, with this code (0 to 255).
    Exited(i32),
    /// By this signal.
    Signalled(i32),
}

/// A NULL-terminated array of C strings, as exec wants it, built before any fork.
pub(super) struct CStringArray {
    pointers: Vec<*const c_char>,
    /// Owns the bytes that `pointers` lead to.
    strings: Vec<CString>,
}

impl CStringArray {
    pub(super) fn new(strings: Vec<CString>) -> Self {
        let mut pointers: Vec<*const c_char> = strings.iter().map(|s| s.as_ptr()).collect();
        pointers.push(std::ptr::null());
        Self { pointers, strings }
    }
}

/// One of them may be a secret.
impl Drop for CStringArray {
    fn drop(&mut self) {
        for string in self.strings.drain(..) {
            string.into_bytes_with_nul().zeroize();
        }
    }
}

/// Forks; the child runs `child` with all signals blocked and exits with its answer.
///
/// In a process with several threads `child` may only do what is safe in a signal handler: system
/// calls, and no allocation, lock or panic. The parent's signal mask is unchanged.
pub(super) fn fork_with<T>(context: &T, child: fn(&T) -> i32) -> Result<Pid, Errno> {
    let before = block_all_signals()?;
    // SAFETY: the child goes only through `child`, whose contract is above, then leaves by _exit:
    // no destructor of the parent runs twice and no unwinding leaves this frame.
    let answer = check(unsafe { libc::fork() });
    if answer == Ok(0) {
        let code = child(context);
        // SAFETY: _exit ends the process without running anything else of it.
        unsafe { libc::_exit(code) }
    }
    // A mask the kernel gave us is valid, so this cannot fail; a child may run, so it must not.
    let _ = set_signal_mask(&before);
    Pid::from_raw(answer?).ok_or(Errno::CHILD)
}

/// Runs the program in its slot in place of this process; returns only when that failed.
/// Safe after fork.
pub(super) fn exec(argv: &CStringArray, env: &CStringArray) -> Errno {
    // SAFETY: both arrays are NULL-terminated and their strings live in the same values; the empty
    // path is a literal. execveat keeps none of them when it fails.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            Slot::Program as RawFd,
            c"".as_ptr(),
            argv.pointers.as_ptr(),
            env.pointers.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    last_error()
}

/// Reaps one ended child, if there is one, without waiting. Safe after fork.
pub(super) fn reap_any() -> Result<Waited, Errno> {
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: both pointers lead to live locals of the right type.
    match check(unsafe { libc::wait4(-1, &raw mut status, libc::WNOHANG, usage.as_mut_ptr()) }) {
        Ok(pid) => {
            // SAFETY: rusage is plain numbers, all zero before the call.
            let usage = unsafe { usage.assume_init() };
            Ok(
                Pid::from_raw(pid).map_or(Waited::Nothing, |pid| Waited::Ended {
                    pid,
                    end: end_of(status),
                    usage: usage_of(&usage),
                }),
            )
        }
        Err(Errno::CHILD) => Ok(Waited::NoChildren),
        Err(Errno::INTR) => Ok(Waited::Nothing),
        Err(error) => Err(error),
    }
}

/// What all reaped descendants used together. Safe after fork.
pub(super) fn children_usage() -> Usage {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer leads to a live local of the right type; the call cannot fail otherwise.
    unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr()) };
    // SAFETY: rusage is plain numbers, all zero before the call.
    usage_of(&unsafe { usage.assume_init() })
}

/// A descriptor that is readable when a child ended. SIGCHLD must be blocked. Safe after fork.
pub(super) fn child_ended_fd() -> Result<OwnedFd, Errno> {
    let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: the pointer leads to a live local of the right type.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: as above, and the signal number is valid.
    unsafe { libc::sigaddset(set.as_mut_ptr(), libc::SIGCHLD) };
    let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
    // SAFETY: the set was initialised above.
    let fd = check(unsafe { libc::signalfd(-1, set.as_ptr(), flags) })?;
    // SAFETY: the kernel just gave us this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Closes the descriptors `first..=last`, or those that exist of them. Safe after fork, in a
/// process whose owners of these descriptors never run again.
pub(super) fn close_descriptors(first: u32, last: u32) -> Result<(), Errno> {
    // SAFETY: close_range takes three numbers. The caller is a supervisor, where the copies of the
    // agent's owned descriptors are never dropped, so nothing is closed twice.
    check_long(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) })
}

/// Marks `first` and all descriptors above it to be closed by exec. Safe after fork.
pub(super) fn close_on_exec_from(first: u32) -> Result<(), Errno> {
    // SAFETY: close_range takes three numbers, and this flag closes nothing now.
    check_long(unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    })
}

/// Sets every signal to its default action and unblocks all. Safe after fork.
pub(super) fn reset_signals() -> Result<(), Errno> {
    // The kernel's own structure, all zero on every architecture, means the default action. The
    // library's call would spare the two signals it keeps for itself, ignored ones included.
    let default = [0_u64; 4];
    for signal in 1..=LAST_SIGNAL {
        // SAFETY: the kernel reads at most these 32 bytes, and no handler is installed. KILL and
        // STOP answer EINVAL, which is as good.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null_mut::<u64>(),
                KERNEL_MASK_BYTES,
            )
        };
    }
    let mut none = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: the pointer leads to a live local of the right type.
    unsafe { libc::sigemptyset(none.as_mut_ptr()) };
    // SAFETY: sigset_t is plain bits, initialised above.
    set_signal_mask(&unsafe { none.assume_init() })
}

/// Whether real, effective and saved ids and all supplementary groups of this thread are exactly
/// these; `groups` ascend. Safe after fork.
pub(super) fn is_identity<G>(uid: u32, gid: u32, groups: G) -> bool
where
    G: IntoIterator,
    G::Item: Borrow<u32>,
{
    let (mut uids, mut gids) = ([0; 3], [0; 3]);
    let [r, e, s] = &mut uids;
    // SAFETY: three pointers to live numbers of the right type.
    let uids_known = unsafe { libc::getresuid(r, e, s) } == 0;
    let [r, e, s] = &mut gids;
    // SAFETY: as above.
    let gids_known = unsafe { libc::getresgid(r, e, s) } == 0;
    let mut own = [0_u32; MAX_GROUPS];
    let room = i32::try_from(MAX_GROUPS).unwrap_or(0);
    // SAFETY: the array has as many elements as the call is told; with more groups it fails.
    let count = check(unsafe { libc::getgroups(room, own.as_mut_ptr()) });
    let Some(own) = count
        .ok()
        .and_then(|count| own.get(..usize::try_from(count).ok()?))
    else {
        return false;
    };
    let groups = groups.into_iter();
    uids_known
        && gids_known
        && uids == [uid; 3]
        && gids == [gid; 3]
        && groups.map(|group| *group.borrow()).eq(own.iter().copied())
}

/// The kernel's Landlock version; none where it has none or was booted without it.
pub(super) fn landlock_version() -> Option<u32> {
    // SAFETY: with this flag the kernel takes no attributes and only answers its version.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<u8>(),
            0_usize,
            LANDLOCK_ASK_VERSION,
        )
    };
    u32::try_from(version).ok().filter(|version| *version > 0)
}

/// Puts this thread, and all that it will start, under the rules. Safe after fork.
pub(super) fn restrict_by_landlock(ruleset: BorrowedFd<'_>) -> Result<(), Errno> {
    let no_flags: c_long = 0;
    // SAFETY: the call takes two numbers.
    check_long(unsafe {
        libc::syscall(
            libc::SYS_landlock_restrict_self,
            ruleset.as_raw_fd(),
            no_flags,
        )
    })
}

/// Whether the kernel has system call filters that can answer with an error.
pub(super) fn filter_available() -> bool {
    let action: u32 = libc::SECCOMP_RET_ERRNO;
    // SAFETY: for this question the kernel reads one u32, which lives.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_GET_ACTION_AVAIL,
            0,
            &raw const action,
        )
    };
    answer == 0
}

/// Filters the calls of this thread and all that it will start. Safe after fork.
pub(super) fn install_filter(steps: &[libc::sock_filter]) -> Result<(), Errno> {
    let program = libc::sock_fprog {
        len: u16::try_from(steps.len()).map_err(|_| Errno::INVAL)?,
        // The kernel copies the steps and writes nothing.
        filter: steps.as_ptr().cast_mut(),
    };
    // SAFETY: the program and the steps it leads to live through the call, and the length is theirs.
    check_long(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const program,
        )
    })
}

fn block_all_signals() -> Result<libc::sigset_t, Errno> {
    let mut all = MaybeUninit::<libc::sigset_t>::zeroed();
    let mut before = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: the pointer leads to a live local of the right type.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: `all` is initialised, `before` is a live local of the right type.
    let code =
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) };
    if code != 0 {
        return Err(Errno::from_raw_os_error(code));
    }
    // SAFETY: sigset_t is plain bits, written by the call.
    Ok(unsafe { before.assume_init() })
}

fn set_signal_mask(mask: &libc::sigset_t) -> Result<(), Errno> {
    // SAFETY: the mask is a live reference; the old mask is not asked for.
    match unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, mask, std::ptr::null_mut()) } {
        0 => Ok(()),
        code => Err(Errno::from_raw_os_error(code)),
    }
}

fn end_of(status: i32) -> End {
    if libc::WIFSIGNALED(status) {
        End::Signalled(libc::WTERMSIG(status))
    } else {
        End::Exited(libc::WEXITSTATUS(status))
    }
}

fn usage_of(usage: &libc::rusage) -> Usage {
    let micros = |t: &libc::timeval| {
        let seconds = u64::try_from(t.tv_sec).unwrap_or(0);
        seconds
            .saturating_mul(1_000_000)
            .saturating_add(u64::try_from(t.tv_usec).unwrap_or(0))
    };
    Usage {
        cpu_us: micros(&usage.ru_utime).saturating_add(micros(&usage.ru_stime)),
        // Linux counts the resident set in KiB.
        max_rss_bytes: u64::try_from(usage.ru_maxrss)
            .unwrap_or(0)
            .saturating_mul(1024),
    }
}

fn check(answer: i32) -> Result<i32, Errno> {
    if answer == -1 {
        Err(last_error())
    } else {
        Ok(answer)
    }
}

fn check_long(answer: c_long) -> Result<(), Errno> {
    if answer == -1 {
        Err(last_error())
    } else {
        Ok(())
    }
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
