//! Signals to every process of a run, found by descent from its supervisor.
//!
//! It owns the walk through `/proc`. The walk is a courtesy (a tree is asked to end) and a second
//! way to kill; that a tree is gone is never concluded here, only by its supervisor.

use std::collections::HashMap;
use std::{fs, io};

use rustix::process::{Pid, PidfdFlags, Signal};

/// Most processes signalled in one walk: above the default limit of a Linux system.
const MAX_PROCESSES: usize = 1 << 16;

/// Fields between the state and the start time in `/proc/PID/stat`, both counted after the name.
const START_FIELD: usize = 19;

/// A process as `/proc` showed it. Id and start time together never name another process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) pid: i32,
    parent: i32,
    /// In clock ticks since the kernel started.
    pub(super) started: u64,
}

/// The time as `/proc` gives it for the start of a process that starts now.
pub(super) fn now_in_ticks() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let ticks = rustix::param::clock_ticks_per_second();
    let (seconds, nanos) = (now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs());
    let rest = nanos.saturating_mul(ticks) / 1_000_000_000;
    seconds.saturating_mul(ticks).saturating_add(rest)
}

/// Asks every process below `supervisor` to end. Stopped ones are woken, so that they hear it.
pub(super) fn ask_to_end(supervisor: Pid) {
    for process in descendants(supervisor) {
        signal(process, &[Signal::TERM, Signal::CONT]);
    }
}

/// Kills every process below `supervisor`, beside what it kills itself, and wakes it if the
/// command has stopped it.
pub(super) fn kill_below(supervisor: Pid) {
    let _ = rustix::process::kill_process(supervisor, Signal::CONT);
    for process in descendants(supervisor) {
        signal(process, &[Signal::KILL]);
    }
}

/// All processes whose line of parents leads to `root`, nearest first.
fn descendants(root: Pid) -> Vec<Seen> {
    let mut by_parent: HashMap<i32, Vec<Seen>> = HashMap::new();
    for process in all_processes() {
        by_parent.entry(process.parent).or_default().push(process);
    }
    let mut found = by_parent
        .remove(&root.as_raw_nonzero().get())
        .unwrap_or_default();
    let mut next = 0;
    while let Some(process) = found.get(next).copied()
        && found.len() < MAX_PROCESSES
    {
        found.extend(by_parent.remove(&process.pid).unwrap_or_default());
        next = next.saturating_add(1);
    }
    found
}

fn all_processes() -> impl Iterator<Item = Seen> {
    let seen = look_at_all().into_iter().flatten();
    seen.filter_map(|process| process.ok().flatten())
}

/// All processes of the host that this one may look at: each that is there, none for one that has
/// ended meanwhile, an error for one that could not be looked at.
pub(super) fn look_at_all() -> io::Result<impl Iterator<Item = io::Result<Option<Seen>>>> {
    let entries = fs::read_dir("/proc")?;
    Ok(entries.filter_map(|entry| {
        let name = match entry {
            Ok(entry) => entry.file_name(),
            Err(error) => return Some(Err(error)),
        };
        let pid = name.to_str()?.parse().ok()?;
        Some(match fs::read(format!("/proc/{pid}/stat")) {
            Ok(stat) => Ok(seen(pid, &stat)),
            Err(error) if has_ended(&error) => Ok(None),
            Err(error) => Err(error),
        })
    }))
}

/// What the kernel says of a process that is not there any more.
pub(super) fn has_ended(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

/// The process of this id, now.
fn look(pid: i32) -> Option<Seen> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    seen(pid, &stat)
}

fn seen(pid: i32, stat: &[u8]) -> Option<Seen> {
    let (parent, started) = parse_stat(stat)?;
    Some(Seen {
        pid,
        parent,
        started,
    })
}

/// Parent and start time. The name before them may hold any byte, `)` too, so look from the end.
fn parse_stat(stat: &[u8]) -> Option<(i32, u64)> {
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    let fields = std::str::from_utf8(stat.get(name_end.checked_add(1)?..)?).ok()?;
    let mut fields = fields.split_ascii_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    let started = fields.nth(START_FIELD - 2)?.parse().ok()?;
    Some((parent, started))
}

/// Signals exactly the process that was seen: the handle is taken first and the identity checked
/// after, so a reused id is not hit.
pub(super) fn signal(process: Seen, signals: &[Signal]) {
    let Some(pid) = Pid::from_raw(process.pid) else {
        return;
    };
    let Ok(handle) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else {
        return;
    };
    if look(process.pid).is_some_and(|now| now.started == process.started) {
        for signal in signals {
            let _ = rustix::process::pidfd_send_signal(&handle, *signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_forge_the_fields_behind_it() {
        let stat = b"7 (a) S 1 2) S 42 7 7 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 98765 1 2 3";
        assert_eq!(parse_stat(stat), Some((42, 98765)));
        assert_eq!(parse_stat(b"7 (a"), None);
    }

    #[test]
    fn this_process_is_found_with_its_parent() {
        let own = rustix::process::getpid().as_raw_nonzero().get();
        let parent = rustix::process::getppid().unwrap();
        assert_eq!(look(own).unwrap().parent, parent.as_raw_nonzero().get());
        assert!(descendants(parent).iter().any(|seen| seen.pid == own));
    }
}
