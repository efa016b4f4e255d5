//! What a run may not do, and which of it this kernel can enforce.
//!
//! It owns the request ([`Confinement`]), the answer ([`InForce`]) and the refusal in between. It
//! confines nothing itself: `sandbox` does, by what is made here before the fork. The answer is
//! no hope but a promise: a step that was announced and then fails ends the run before its exec.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::Mode;
use rustix::process::{Gid, Resource, Rlimit, Uid, getrlimit};

use super::cgroup::{self, Cgroup, CgroupError};
use super::fence::{self, FenceError};
use super::seccomp::Filter;
use super::syscalls;

/// Most supplementary groups of an account: what the leader can check without allocating, and far
/// more than directory services hand out.
pub const MAX_GROUPS: usize = 256;

/// From the CPU limit's polite signal (XCPU) to its KILL, in seconds.
const CPU_GRACE_S: u64 = 1;

/// What files of a command look like unless somebody says otherwise: writable by their owner only.
pub const DEFAULT_UMASK: u32 = 0o022;

/// The user a command runs as, by numbers; names are looked up by the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// User id: real, effective and saved.
    pub uid: u32,
    /// Group id: real, effective and saved.
    pub gid: u32,
    /// All supplementary groups, at most [`MAX_GROUPS`]; the agent's own are dropped.
    pub groups: Vec<u32>,
}

/// Resource limits of every process of a run. None and 0 inherit the agent's limit; a limit above
/// the agent's own hard limit becomes that one. Core dumps are always off, as they hold secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// CPU seconds of one process: then XCPU, one second later KILL.
    pub cpu_s: Option<u64>,
    /// Bytes of address space of one process; beyond it allocation fails.
    pub memory_bytes: Option<u64>,
    /// Processes and threads of the run's *user*, those outside of the run included. The kernel
    /// does not hold root to it: `cgroup` does.
    pub processes: Option<u64>,
    /// Largest file in bytes that may be written: then XFSZ.
    pub file_size_bytes: Option<u64>,
    /// One more than the highest descriptor.
    pub open_files: Option<u64>,
}

/// What of the file system the run may change. Other than `None` refuses the run without Landlock.
///
/// Landlock rules over content and names. It does not see `chmod`, `chown`, time stamps, extended
/// attributes, and what another process does on request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Profile {
    /// Whatever its user may.
    #[default]
    None,
    /// Nothing but the writable devices every program expects, such as `/dev/null`.
    ReadOnly,
    /// As `ReadOnly`, but for this directory and all below it: absolute and existing.
    WriteOnlyHere(PathBuf),
}

/// Limits of the whole run together, by cgroup v2. None asks for no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CgroupLimits {
    /// Bytes of memory; beyond it the whole run is killed.
    pub memory_bytes: Option<u64>,
    /// Hundredths of one CPU: 150 is one and a half.
    pub cpu_percent: Option<u64>,
    /// Processes and threads.
    pub processes: Option<u64>,
}

/// Mechanisms without which the run is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Demand {
    /// No program of the run may gain privileges.
    pub no_new_privs: bool,
    /// `protected` or the profile is enforced by Landlock.
    pub landlock: bool,
    /// The deny list of system calls.
    pub seccomp: bool,
    /// A cgroup of the run's own, and each limit that was asked of it.
    pub cgroup: bool,
}

/// Everything that a run is confined by. The default confines as far as no ordinary program
/// notices: no new privileges, no core dump, the system call filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confinement {
    /// Whom the command runs as; none keeps the agent's own user.
    pub account: Option<Account>,
    /// Limits of each process.
    pub limits: Limits,
    /// Absolute paths whose content the run may neither read, change, create nor execute, by
    /// Landlock where there is one (demand it to be sure). See `fence` for what that costs.
    pub protected: Vec<PathBuf>,
    /// What the run may change.
    pub profile: Profile,
    /// Whether system calls that no command needs fail with EPERM. Off for the rare command that
    /// mounts, reboots or loads modules.
    pub filter_calls: bool,
    /// Limits of the run as a whole; none makes no cgroup.
    pub cgroup: Option<CgroupLimits>,
    /// The program must gain privileges or make namespaces itself, as `sudo` and the clients of
    /// container engines do: no `no_new_privs`, and so neither Landlock nor the filter.
    pub unheld: bool,
    /// What must be in force.
    pub demand: Demand,
    /// Permission bits that files of the command are made without, 0 to 0o777.
    pub umask: u32,
}

impl Default for Confinement {
    fn default() -> Self {
        Self {
            account: None,
            limits: Limits::default(),
            protected: Vec::new(),
            profile: Profile::None,
            filter_calls: true,
            cgroup: None,
            unheld: false,
            demand: Demand::default(),
            umask: DEFAULT_UMASK,
        }
    }
}

/// What confines a run, for the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InForce {
    /// No program of the run can gain privileges.
    pub no_new_privs: bool,
    /// The kernel's Landlock version, when it guards protected paths or a profile. The rights
    /// used are those of version 3.
    pub landlock_abi: Option<u32>,
    /// The deny list of system calls holds.
    pub seccomp: bool,
    /// The limits as they are set, after the agent's own; none is inherited.
    pub rlimits: Limits,
    /// The run's cgroup, and which of its limits are enforced.
    pub cgroup: Option<CgroupInForce>,
}

/// What the cgroup of a run enforces. Killing by it comes with every cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CgroupInForce {
    /// `memory.max` is set.
    pub memory: bool,
    /// `cpu.max` is set.
    pub cpu: bool,
    /// `pids.max` is set.
    pub pids: bool,
}

/// A kind of confinement that a rule can demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// No new privileges.
    NoNewPrivileges,
    /// Landlock.
    Landlock,
    /// The system call filter.
    Seccomp,
    /// A cgroup with the limits that were asked.
    Cgroup,
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoNewPrivileges => "no_new_privs",
            Self::Landlock => "Landlock",
            Self::Seccomp => "seccomp",
            Self::Cgroup => "cgroup v2",
        })
    }
}

/// Why a run is refused before its exec.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfineError {
    /// A mechanism was demanded, or implied by a profile, and is not there.
    #[error(
        "{mechanism} is demanded and cannot be in force: {why}. Relax the rule, or run it on a \
         host that has it"
    )]
    Unmet {
        /// The mechanism.
        mechanism: Mechanism,
        /// What stands in the way.
        why: &'static str,
    },
    /// The number means "no change" to the kernel and so names nobody.
    #[error("user or group {0} is no account. Name another user")]
    NoAccount(u32),
    /// More groups than the leader can check.
    #[error(
        "the account has {0} groups, more than {MAX_GROUPS}, so they cannot be checked. \
         Run it as a user with fewer groups"
    )]
    TooManyGroups(usize),
    /// It was announced what would hold the run, and that is not what would.
    #[error("the run was announced with {0} in force, and that cannot be now. Ask for it again")]
    Broken(Mechanism),
    /// The rules for Landlock cannot be made.
    #[error(transparent)]
    Fence(#[from] FenceError),
    /// The cgroup cannot be made.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
}

/// An account as the leader takes it on.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) uid: Uid,
    pub(super) gid: Gid,
    /// Ascending and without doubles, as the kernel will list them.
    pub(super) groups: Vec<Gid>,
}

/// All that confines one run, made before the fork.
pub(super) struct Prepared {
    pub(super) in_force: InForce,
    pub(super) identity: Option<Identity>,
    pub(super) rlimits: Vec<(Resource, Rlimit)>,
    pub(super) umask: Mode,
    pub(super) ruleset: Option<OwnedFd>,
    pub(super) filter: Option<Filter>,
    pub(super) cgroup: Option<Cgroup>,
}

impl Confinement {
    /// What will be in force for a run of this confinement on this host, now. It changes nothing,
    /// so that a caller can write the answer down before it starts the run.
    ///
    /// # Errors
    /// [`ConfineError::Unmet`] for a demand that this host cannot meet, and an account that is none.
    pub fn foresee(&self) -> Result<InForce, ConfineError> {
        identity(self.account.as_ref())?;
        let landlock_abi = self.landlock()?;
        if landlock_abi.is_some() {
            fence::check(&self.protected, &self.profile)?;
        }
        let seccomp = self.filter_calls && !self.unheld && syscalls::filter_available();
        let cgroup = self
            .cgroup
            .and_then(|limits| Some(cgroup::base()?.foresee(&limits)));
        let unmet = |mechanism, why| Err(ConfineError::Unmet { mechanism, why });
        if self.demand.no_new_privs && self.unheld {
            return unmet(Mechanism::NoNewPrivileges, UNHELD);
        }
        if self.demand.seccomp && !seccomp {
            let why = match (self.unheld, self.filter_calls) {
                (true, _) => UNHELD,
                (false, false) => "the filter is switched off for this command",
                (false, true) => "the kernel has no system call filter",
            };
            return unmet(Mechanism::Seccomp, why);
        }
        if self.demand.cgroup && !cgroup_complete(self.cgroup, cgroup) {
            let why = match (self.cgroup, cgroup) {
                (None, _) => "no cgroup is asked for",
                (_, None) => "no writable cgroup v2 tree is given to the agent",
                _ => "the agent's cgroup v2 tree lacks the controller of a limit",
            };
            return unmet(Mechanism::Cgroup, why);
        }
        Ok(InForce {
            no_new_privs: !self.unheld,
            landlock_abi,
            seccomp,
            rlimits: self.limits.bounded(),
            cgroup,
        })
    }

    /// The Landlock version that will hold, if any is needed and there.
    fn landlock(&self) -> Result<Option<u32>, ConfineError> {
        let profiled = self.profile != Profile::None;
        let wanted = profiled || !self.protected.is_empty();
        let abi = fence::abi().filter(|_| wanted && !self.unheld);
        if abi.is_some() || !(profiled || self.demand.landlock) {
            return Ok(abi);
        }
        let why = match (self.unheld, wanted) {
            (true, _) => UNHELD,
            (false, false) => "neither a protected path nor a profile is asked for",
            (false, true) => "the kernel has no Landlock, or one older than version 3 (Linux 6.2)",
        };
        let mechanism = Mechanism::Landlock;
        Err(ConfineError::Unmet { mechanism, why })
    }

    /// Makes all that the leader needs, so that it has to allocate nothing. What was announced
    /// before is what is made, or nothing is.
    pub(super) fn prepare(&self, announced: Option<InForce>) -> Result<Prepared, ConfineError> {
        let in_force = match announced {
            Some(announced) => announced,
            None => self.foresee()?,
        };
        let ruleset = match in_force.landlock_abi {
            Some(_) => Some(fence::ruleset(&self.protected, &self.profile)?),
            None => None,
        };
        let cgroup = match (in_force.cgroup, self.cgroup) {
            (Some(held), Some(limits)) => {
                // A controller may have been taken away from the agent since.
                let still = cgroup::base().is_some_and(|base| base.foresee(&limits) == held);
                let broken = ConfineError::Broken(Mechanism::Cgroup);
                Some(still.then(|| cgroup::create(&limits)).ok_or(broken)??)
            }
            (Some(_), None) => return Err(ConfineError::Broken(Mechanism::Cgroup)),
            (None, _) => None,
        };
        Ok(Prepared {
            in_force,
            identity: identity(self.account.as_ref())?,
            rlimits: in_force.rlimits.settings(),
            umask: Mode::from_raw_mode(self.umask),
            ruleset,
            filter: in_force.seccomp.then(Filter::deny_list),
            cgroup,
        })
    }
}

/// Why what gains privileges excludes what needs `no_new_privs`.
const UNHELD: &str = "the command runs by sudo or in a container, which must gain privileges";

/// Whether there is a cgroup, with every limit that was asked.
fn cgroup_complete(asked: Option<CgroupLimits>, got: Option<CgroupInForce>) -> bool {
    let (Some(asked), Some(got)) = (asked, got) else {
        return false;
    };
    (asked.memory_bytes.is_none() || got.memory)
        && (asked.cpu_percent.is_none() || got.cpu)
        && (asked.processes.is_none() || got.pids)
}

impl Limits {
    /// What is asked for, address space last: it also counts what the leader still holds.
    fn asked(&self) -> [(Resource, Option<u64>); 5] {
        [
            (Resource::Cpu, self.cpu_s),
            (Resource::Nproc, self.processes),
            (Resource::Fsize, self.file_size_bytes),
            (Resource::Nofile, self.open_files),
            (Resource::As, self.memory_bytes),
        ]
        .map(|(resource, limit)| (resource, limit.filter(|limit| *limit != 0)))
    }

    /// These limits where the agent's own hard limits allow them.
    fn bounded(&self) -> Self {
        let [cpu_s, processes, file_size_bytes, open_files, memory_bytes] =
            self.asked().map(|(resource, limit)| {
                let hard = getrlimit(resource).maximum.unwrap_or(u64::MAX);
                limit.map(|limit| limit.min(hard))
            });
        Self {
            cpu_s,
            memory_bytes,
            processes,
            file_size_bytes,
            open_files,
        }
    }

    /// What the leader sets. Soft and hard limit are the same but for CPU time, so that the polite
    /// signal comes first.
    fn settings(&self) -> Vec<(Resource, Rlimit)> {
        let set = self.asked().into_iter().filter_map(|(resource, limit)| {
            let soft = limit?;
            let hard = if resource == Resource::Cpu {
                let own = getrlimit(resource).maximum.unwrap_or(u64::MAX);
                soft.saturating_add(CPU_GRACE_S).min(own)
            } else {
                soft
            };
            Some((resource, rlimit(soft, hard)))
        });
        std::iter::once((Resource::Core, rlimit(0, 0)))
            .chain(set)
            .collect()
    }
}

const fn rlimit(soft: u64, hard: u64) -> Rlimit {
    Rlimit {
        current: Some(soft),
        maximum: Some(hard),
    }
}

/// The account in the kernel's terms; none when it is what this process is already.
fn identity(account: Option<&Account>) -> Result<Option<Identity>, ConfineError> {
    let Some(account) = account else {
        return Ok(None);
    };
    let mut groups = account.groups.clone();
    groups.sort_unstable();
    groups.dedup();
    if groups.len() > MAX_GROUPS {
        return Err(ConfineError::TooManyGroups(groups.len()));
    }
    if groups.contains(&u32::MAX) || [account.uid, account.gid].contains(&u32::MAX) {
        return Err(ConfineError::NoAccount(u32::MAX));
    }
    // An agent without the right to change its user may still name the one it has.
    if syscalls::is_identity(account.uid, account.gid, &groups) {
        return Ok(None);
    }
    Ok(Some(Identity {
        uid: Uid::from_raw(account.uid),
        gid: Gid::from_raw(account.gid),
        groups: groups.into_iter().map(Gid::from_raw).collect(),
    }))
}
