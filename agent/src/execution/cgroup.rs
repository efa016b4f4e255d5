//! A cgroup (v2) of a run's own: limits of the whole tree, and death at one stroke.
//!
//! It owns the directory of one run below the tree that is given to the agent, from its creation
//! to its removal. It must not touch any other cgroup: not the agent's own limits, not its parent's
//! unless systemd has marked that as delegated. Version 1 is not used; then nothing is in force.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{Access, AtFlags, CWD, OFlags};

use super::confinement::{CgroupInForce, CgroupLimits};

/// How the directories of runs begin; the agent's process id and a number follow.
const PREFIX: &str = "countersign-run-";

/// The period of `cpu.max` in microseconds: the kernel's own default.
const CPU_PERIOD_US: u64 = 100_000;

/// How deep cgroups below a run's are looked for to be removed: deeper than container tools nest.
const MAX_DEPTH: u8 = 16;

/// Makes names of runs differ within one agent.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Why a run has no cgroup although there is a tree for it.
#[derive(Debug, thiserror::Error)]
#[error("the cgroup file {path:?} could not be {what} ({source})")]
pub struct CgroupError {
    path: PathBuf,
    what: &'static str,
    source: std::io::Error,
}

/// The directory in which runs get theirs.
pub(super) struct Base {
    path: PathBuf,
    /// Controllers that the runs' cgroups have.
    controllers: String,
}

/// The cgroup of one run. It is removed with the last of its processes, by [`Cgroup::remove`].
pub(super) struct Cgroup {
    path: PathBuf,
    procs: OwnedFd,
}

/// The tree that is given to this process; none without a writable cgroup v2.
pub(super) fn base() -> Option<Base> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    let (root, mount) = mounts.lines().find_map(parse_mount)?;
    let below = Path::new(own).strip_prefix(root).ok()?;
    let own = Path::new(mount).join(below);
    // A cgroup with processes in it has no controllers to give, so systemd's `DelegateSubgroup`
    // puts the agent one deeper, and marks what is delegated.
    let delegated = own
        .parent()
        .filter(|parent| {
            let mut mark = [0_u8; 1];
            rustix::fs::getxattr(*parent, "user.delegate", &mut mark).is_ok() && mark == *b"1"
        })
        .map(Path::to_owned);
    let path = delegated.unwrap_or(own);
    rustix::fs::accessat(CWD, &path, Access::WRITE_OK, AtFlags::EACCESS).ok()?;
    let controllers = fs::read_to_string(path.join("cgroup.subtree_control")).ok()?;
    Some(Base { path, controllers })
}

impl Base {
    /// What a run with these limits gets here.
    pub(super) fn foresee(&self, limits: &CgroupLimits) -> CgroupInForce {
        let has = |name| self.controllers.split_whitespace().any(|word| word == name);
        CgroupInForce {
            memory: limits.memory_bytes.is_some() && has("memory"),
            cpu: limits.cpu_percent.is_some() && has("cpu"),
            pids: limits.processes.is_some() && has("pids"),
        }
    }
}

/// Makes the cgroup of one run and sets those limits that can be enforced.
pub(super) fn create(limits: &CgroupLimits) -> Result<Cgroup, CgroupError> {
    let gone = || failed(Path::new("/sys/fs/cgroup"), "found")(ErrorKind::NotFound.into());
    let base = base().ok_or_else(gone)?;
    sweep(&base.path);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = base
        .path
        .join(format!("{PREFIX}{}-{number}", std::process::id()));
    fs::create_dir(&path).map_err(failed(&path, "made"))?;
    fill(&path, limits, base.foresee(limits)).inspect_err(|_| {
        let _ = fs::remove_dir(&path);
    })
}

fn fill(path: &Path, limits: &CgroupLimits, set: CgroupInForce) -> Result<Cgroup, CgroupError> {
    let quota = |percent: u64| percent.saturating_mul(CPU_PERIOD_US / 100);
    let cpu = limits
        .cpu_percent
        .map(|percent| format!("{} {CPU_PERIOD_US}", quota(percent)));
    let settings = [
        (set.memory, "memory.max", limits.memory_bytes.map(text)),
        // Without the first, memory that is over the limit goes to swap; with the second, a run
        // that lost one process to the limit does not limp on.
        (set.memory, "memory.swap.max", Some(text(0))),
        (set.memory, "memory.oom.group", Some(text(1))),
        (set.cpu, "cpu.max", cpu),
        (set.pids, "pids.max", limits.processes.map(text)),
    ];
    for (_, name, value) in settings.into_iter().filter(|(set, ..)| *set) {
        let file = path.join(name);
        match fs::write(&file, value.unwrap_or_default()) {
            // A kernel without swap accounting has no such file and no such swap.
            Err(error) if error.kind() == ErrorKind::NotFound && name == "memory.swap.max" => {}
            done => done.map_err(failed(&file, "written"))?,
        }
    }
    let procs = path.join("cgroup.procs");
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(&procs, flags, rustix::fs::Mode::empty());
    Ok(Cgroup {
        path: path.to_owned(),
        procs: opened.map_err(|error| failed(&procs, "opened")(error.into()))?,
    })
}

fn text(number: u64) -> String {
    number.to_string()
}

impl Cgroup {
    /// Where the leader writes itself in.
    pub(super) fn procs(&self) -> BorrowedFd<'_> {
        self.procs.as_fd()
    }

    /// Kills every process in it, at once. Without `cgroup.kill` (before Linux 5.14) the
    /// supervisor's rounds do it alone.
    pub(super) fn kill(&self) {
        let file = fs::OpenOptions::new()
            .write(true)
            .open(self.path.join("cgroup.kill"));
        let _ = file.and_then(|mut file| file.write_all(b"1"));
    }

    /// Removes it; false while processes are left in it.
    pub(super) fn remove(&self) -> bool {
        remove(&self.path, MAX_DEPTH)
    }
}

/// Removes the cgroup and those that a command of root has made below it. The files in it go with
/// it and cannot be removed alone.
fn remove(path: &Path, depth: u8) -> bool {
    if let Some(depth) = depth.checked_sub(1) {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                remove(&entry.path(), depth);
            }
        }
    }
    match fs::remove_dir(path) {
        Ok(()) => true,
        Err(error) => error.kind() == ErrorKind::NotFound,
    }
}

/// Removes what an agent that died left behind; one with processes in it cannot be removed.
fn sweep(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX)?.split_once('-'))
            .map(|(pid, _)| Path::new("/proc").join(pid));
        if pid.is_some_and(|process| !process.exists()) {
            remove(&entry.path(), MAX_DEPTH);
        }
    }
}

/// Root and mount point of a cgroup v2 mount in a line of mountinfo.
fn parse_mount(line: &str) -> Option<(&str, &str)> {
    let (before, after) = line.split_once(" - ")?;
    let mut fields = before.split(' ');
    let root = fields.nth(3)?;
    let mount = fields.next()?;
    (after.split(' ').next()? == "cgroup2").then_some((root, mount))
}

fn failed(path: &Path, what: &'static str) -> impl Fn(std::io::Error) -> CgroupError {
    move |source| CgroupError {
        path: path.to_owned(),
        what,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_mount_is_known_by_its_type() {
        let v2 = "42 32 0:37 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw";
        assert_eq!(parse_mount(v2), Some(("/", "/sys/fs/cgroup/unified")));
        let v1 = "33 32 0:28 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu";
        assert_eq!(parse_mount(v1), None);
    }

    #[test]
    fn a_limit_is_enforced_only_by_its_controller() {
        let limits = CgroupLimits {
            memory_bytes: Some(1),
            cpu_percent: None,
            processes: Some(1),
        };
        let base = Base {
            path: "/".into(),
            controllers: "cpu memory hugetlb".into(),
        };
        let memory_only = CgroupInForce {
            memory: true,
            ..CgroupInForce::default()
        };
        assert_eq!(base.foresee(&limits), memory_only);
    }
}
