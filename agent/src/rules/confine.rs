//! What holds a command here: the host's own defaults, and a rule's words over them.
//!
//! It owns how settings lie over each other and what they mean to the executor, and the refusal
//! where this host cannot hold a command as it must be held. It confines nothing itself.

use std::path::PathBuf;

use countersign_protocol::event::RefusalReason;
use countersign_protocol::name::RuleName;

use super::account::Runner;
use super::host::LocalRefusal;
use crate::execution::{
    self, CgroupLimits, ConfineError, Confinement, DEFAULT_UMASK, Demand, InForce, Limits,
    Mechanism, Profile,
};

/// A limit that is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cap {
    /// `"none"`: there is none, whatever the defaults say.
    Lifted,
    /// This one.
    At(u64),
}

/// What of the file system a command may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    /// What its user may.
    Anything,
    /// Nothing.
    Nothing,
    /// The directory that it runs in, and all below it.
    OnlyHere,
}

/// `cgroup` of a table: limits of all processes of a run together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CgroupCaps {
    /// Bytes.
    pub memory: Option<Cap>,
    /// Hundredths of one CPU.
    pub cpu_percent: Option<Cap>,
    /// Processes and threads.
    pub processes: Option<Cap>,
}

/// A table of confinement: `[confine]`, or that of a rule. What it leaves out is as the table below
/// it says, and as the host is without any.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Confine {
    /// Paths out of the command's reach. A list takes the place of the other list.
    pub protected: Option<Vec<PathBuf>>,
    /// Whether the agent's own files are such paths, for a command that could reach them otherwise.
    pub protect_own: Option<bool>,
    /// What may be changed.
    pub profile: Option<Writes>,
    /// CPU seconds of one process.
    pub cpu_s: Option<Cap>,
    /// Bytes of address space of one process.
    pub memory: Option<Cap>,
    /// Processes and threads of the user.
    pub processes: Option<Cap>,
    /// Bytes of one file that is written.
    pub file_size: Option<Cap>,
    /// Descriptors of one process.
    pub open_files: Option<Cap>,
    /// A cgroup of the run's own.
    pub cgroup: Option<CgroupCaps>,
    /// Whether system calls that no command needs are refused.
    pub seccomp: Option<bool>,
    /// What must be in force.
    pub demand: Option<Demand>,
    /// Permission bits that files are made without.
    pub umask: Option<u32>,
}

/// Which command it is that is to be held.
pub(super) struct Held<'a> {
    pub(super) runner: &'a Runner,
    pub(super) own_files: &'a [PathBuf],
    pub(super) cwd: &'a str,
    pub(super) sudo: bool,
}

impl CgroupCaps {
    fn over(self, base: Self) -> Self {
        Self {
            memory: self.memory.or(base.memory),
            cpu_percent: self.cpu_percent.or(base.cpu_percent),
            processes: self.processes.or(base.processes),
        }
    }
}

impl Confine {
    /// These settings, and for what they leave out those of `base`.
    #[must_use]
    pub fn over(&self, base: &Self) -> Self {
        let base = base.clone();
        Self {
            protected: self.protected.clone().or(base.protected),
            protect_own: self.protect_own.or(base.protect_own),
            profile: self.profile.or(base.profile),
            cpu_s: self.cpu_s.or(base.cpu_s),
            memory: self.memory.or(base.memory),
            processes: self.processes.or(base.processes),
            file_size: self.file_size.or(base.file_size),
            open_files: self.open_files.or(base.open_files),
            cgroup: match (self.cgroup, base.cgroup) {
                (Some(own), Some(base)) => Some(own.over(base)),
                (own, base) => own.or(base),
            },
            seccomp: self.seccomp.or(base.seccomp),
            demand: self.demand.or(base.demand),
            umask: self.umask.or(base.umask),
        }
    }

    /// The same for the executor.
    pub(super) fn confinement(&self, held: &Held<'_>) -> Confinement {
        let runner = held.runner;
        // `sudo` makes the change of user itself, after the executor is done.
        let account = (!runner.is_own && !held.sudo).then(|| execution::Account {
            uid: runner.uid,
            gid: runner.gid,
            groups: runner.groups.clone(),
        });
        let mut protected = self.protected.clone().unwrap_or_default();
        // Permissions keep any other account away from them, and a fence has its price.
        let reaches_own = runner.is_own || runner.uid == 0;
        if reaches_own && self.protect_own.unwrap_or(true) {
            protected.extend_from_slice(held.own_files);
        }
        Confinement {
            account,
            limits: Limits {
                cpu_s: at(self.cpu_s),
                memory_bytes: at(self.memory),
                processes: at(self.processes),
                file_size_bytes: at(self.file_size),
                open_files: at(self.open_files),
            },
            protected,
            profile: match self.profile {
                None | Some(Writes::Anything) => Profile::None,
                Some(Writes::Nothing) => Profile::ReadOnly,
                Some(Writes::OnlyHere) => Profile::WriteOnlyHere(held.cwd.into()),
            },
            filter_calls: self.seccomp.unwrap_or(true),
            cgroup: self.cgroup.map(|caps| CgroupLimits {
                memory_bytes: at(caps.memory),
                cpu_percent: at(caps.cpu_percent),
                processes: at(caps.processes),
            }),
            unheld: held.sudo,
            demand: self.demand.unwrap_or_default(),
            umask: self.umask.unwrap_or(DEFAULT_UMASK),
        }
    }
}

const fn at(cap: Option<Cap>) -> Option<u64> {
    match cap {
        Some(Cap::At(limit)) => Some(limit),
        Some(Cap::Lifted) | None => None,
    }
}

/// What will hold the command that `allowed_by` allows.
pub(super) fn foresee(
    confinement: &Confinement,
    allowed_by: &RuleName,
) -> Result<InForce, LocalRefusal> {
    confinement.foresee().map_err(|error| {
        let rule = match &error {
            // A profile is nothing without Landlock, so it is refused without having been demanded.
            ConfineError::Unmet {
                mechanism: Mechanism::Landlock,
                ..
            } if !confinement.demand.landlock => "profile",
            ConfineError::Unmet { .. } => "demand",
            ConfineError::NoAccount(_) | ConfineError::TooManyGroups(_) => "run_as",
            ConfineError::Fence(_) => "protected",
            ConfineError::Cgroup(_) | ConfineError::Broken(_) => "cgroup",
        };
        let detail = format!("{error} ({allowed_by} allows the command itself)");
        LocalRefusal::new(RefusalReason::Unusable, rule, detail)
    })
}
