//! What holds a command, in words for people: as it is asked for, and as it will be in force.
//!
//! It says what it is given and asks nobody; `check` and `check-config` print it.

use crate::execution::InForce;
use crate::rules::{Allowed, Cap, Confine, Writes};

/// What a table of confinement asks for.
pub(crate) fn confine(table: &Confine) -> String {
    let cap = |name: &str, cap: Option<Cap>| match cap {
        None => None,
        Some(Cap::Lifted) => Some(format!("{name} none")),
        Some(Cap::At(limit)) => Some(format!("{name} {limit}")),
    };
    let paths = |paths: &Vec<std::path::PathBuf>| {
        let paths = paths.iter().map(|path| path.display().to_string());
        format!("protected [{}]", paths.collect::<Vec<_>>().join(", "))
    };
    let profile = table.profile.map(|writes| match writes {
        Writes::Anything => "profile none",
        Writes::Nothing => "profile read-only",
        Writes::OnlyHere => "profile write-only-here",
    });
    let cgroup = table.cgroup.map(|caps| {
        let parts = [
            cap(" memory", caps.memory),
            cap(" cpu_percent", caps.cpu_percent),
            cap(" processes", caps.processes),
        ];
        format!("cgroup{}", parts.into_iter().flatten().collect::<String>())
    });
    let demand = table.demand.map(|demand| {
        let words = [
            (demand.no_new_privs, " no_new_privs"),
            (demand.landlock, " landlock"),
            (demand.seccomp, " seccomp"),
            (demand.cgroup, " cgroup"),
        ];
        let words = words.into_iter().filter(|(is_there, _)| *is_there);
        format!("demands{}", words.map(|(_, word)| word).collect::<String>())
    });
    let parts = [
        table.protected.as_ref().map(paths),
        table.protect_own.map(|own| format!("protect_own {own}")),
        profile.map(ToOwned::to_owned),
        cap("cpu_s", table.cpu_s),
        cap("memory", table.memory),
        cap("processes", table.processes),
        cap("file_size", table.file_size),
        cap("open_files", table.open_files),
        cgroup,
        table.seccomp.map(|on| format!("seccomp {on}")),
        table.umask.map(|umask| format!("umask {umask:03o}")),
        demand,
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() {
        return "the defaults".to_owned();
    }
    parts.join(", ")
}

/// What will hold the command, in words.
pub(crate) fn in_force(held: &InForce) -> String {
    let limits = held.rlimits;
    let number = |name: &str, limit: Option<u64>| limit.map(|limit| format!("{name} {limit}"));
    let word = |name: &str, is_there: bool| is_there.then(|| name.to_owned());
    let cgroup = held.cgroup.map(|cgroup| {
        let parts = [
            word(" memory", cgroup.memory),
            word(" cpu", cgroup.cpu),
            word(" processes", cgroup.pids),
        ];
        format!("cgroup{}", parts.into_iter().flatten().collect::<String>())
    });
    let parts = [
        word("no_new_privs", held.no_new_privs),
        word("seccomp", held.seccomp),
        held.landlock_abi
            .map(|version| format!("landlock {version}")),
        number("cpu_s", limits.cpu_s),
        number("memory", limits.memory_bytes),
        number("processes", limits.processes),
        number("file_size", limits.file_size_bytes),
        number("open_files", limits.open_files),
        cgroup,
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() {
        return "nothing".to_owned();
    }
    parts.join(", ")
}

/// What is asked for and not demanded, so that the command runs without it here.
pub(crate) fn not_in_force(allowed: &Allowed) -> Vec<&'static str> {
    let (asked, held) = (&allowed.confinement, &allowed.in_force);
    let caps = asked.cgroup.unwrap_or_default();
    let got = held.cgroup.unwrap_or_default();
    let missing = [
        (
            !asked.protected.is_empty() && held.landlock_abi.is_none(),
            "the protected paths: no Landlock here, or the command runs through sudo",
        ),
        (
            asked.filter_calls && !held.seccomp,
            "seccomp: the kernel has none, or the command runs through sudo",
        ),
        (
            asked.cgroup.is_some() && held.cgroup.is_none(),
            "the cgroup: no writable cgroup v2 tree is given to the agent",
        ),
        (
            held.cgroup.is_some() && caps.memory_bytes.is_some() && !got.memory,
            "memory of the cgroup: the agent's tree has no such controller",
        ),
        (
            held.cgroup.is_some() && caps.cpu_percent.is_some() && !got.cpu,
            "cpu_percent of the cgroup: the agent's tree has no such controller",
        ),
        (
            held.cgroup.is_some() && caps.processes.is_some() && !got.pids,
            "processes of the cgroup: the agent's tree has no such controller",
        ),
    ];
    let missing = missing.into_iter().filter(|(is_missing, _)| *is_missing);
    missing.map(|(_, what)| what).collect()
}
