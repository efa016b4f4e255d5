//! Where the processes of a run can be: below its supervisor, or elsewhere on the host.
//!
//! It owns the search for those that are elsewhere. A container engine starts a command below its
//! own daemon, and an orphan in a pid namespace falls to that namespace's first process: neither
//! is the supervisor's to reap. Such a command carries a mark in its environment, which all that it
//! starts inherit. A process that throws the mark away is not found; so only a supervisor or a
//! cgroup proves a hostile command gone.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _};

use rustix::process::Signal;

use super::terminate::{self, Seen};

/// The variable that marks a run's processes.
pub const MARK: &str = "COUNTERSIGN_RUN";

/// Largest environment that is read of a process: more than Linux gives one by default.
const MAX_ENVIRONMENT: u64 = 4 << 20;

/// `/proc/self/ns/pid` of the namespace that sees every process: the kernel's `PROC_PID_INIT_INO`.
const FIRST_NAMESPACE: &str = "pid:[4026531836]";

/// Where the processes of a run can be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Reach {
    /// Below the supervisor, wherever their parents go.
    #[default]
    Tree,
    /// Also elsewhere on this host, with a mark in their environment.
    Marked(Mark),
    /// Where nobody here can see them: the run is never proved gone.
    Beyond,
}

/// The mark of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    value: String,
    descends: bool,
    /// In the kernel's clock ticks since it started, as `/proc` says when a process began.
    since: u64,
}

/// What is left of a run outside its tree.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// Nothing.
    Nothing,
    /// These.
    These(Vec<Seen>),
    /// It cannot be known from here.
    Unknown,
}

impl Mark {
    /// The mark of the run with this id, which begins now. `descends`: its processes begin below the
    /// supervisor, so whoever may see that may see them.
    #[must_use]
    pub fn new(value: String, descends: bool) -> Self {
        let since = terminate::now_in_ticks();
        Self {
            value,
            descends,
            since,
        }
    }

    /// The environment variable that carries it.
    #[must_use]
    pub fn variable(&self) -> (OsString, OsString) {
        (MARK.into(), self.value.clone().into())
    }

    /// All processes that carry the mark, now. What cannot be looked at may carry it.
    fn search(&self) -> Left {
        let Ok(processes) = terminate::look_at_all() else {
            return Left::Unknown;
        };
        let entry = format!("{MARK}={}", self.value).into_bytes();
        let (mut found, mut hidden) = (Vec::new(), !self.descends && !sees_all());
        for looked in processes {
            let process = match looked {
                // What was there before is not the run's, whoever hides it.
                Ok(Some(process)) if process.started >= self.since => process,
                Ok(Some(_) | None) => continue,
                Err(_) => {
                    hidden = true;
                    continue;
                }
            };
            match environment(&process) {
                Ok(text) => {
                    if text.split(|byte| *byte == 0).any(|held| held == entry) {
                        found.push(process);
                    }
                }
                // Somebody else's; what began below the supervisor is not.
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                    hidden |= !self.descends;
                }
                Err(error) => hidden |= !terminate::has_ended(&error),
            }
        }
        match (found.is_empty(), hidden) {
            (false, _) => Left::These(found),
            (true, true) => Left::Unknown,
            (true, false) => Left::Nothing,
        }
    }
}

/// Whether `/proc` shows every process of this machine: it is that of the first pid namespace, and
/// hides nobody's (`hidepid`).
fn sees_all() -> bool {
    let is_first = |name| name == OsStr::new(FIRST_NAMESPACE);
    fs::read_link("/proc/self/ns/pid").is_ok_and(is_first) && fs::metadata("/proc/1/stat").is_ok()
}

impl Reach {
    /// What is left outside the tree. Reads many small files.
    pub(super) fn left(&self) -> Left {
        match self {
            Self::Tree => Left::Nothing,
            Self::Marked(mark) => mark.search(),
            Self::Beyond => Left::Unknown,
        }
    }

    /// Signals all that is left outside the tree, and says what that was.
    pub(super) fn signal(&self, signals: &[Signal]) -> Left {
        let left = self.left();
        if let Left::These(processes) = &left {
            for process in processes {
                terminate::signal(*process, signals);
            }
        }
        left
    }
}

fn environment(process: &Seen) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let file = File::open(format!("/proc/{}/environ", process.pid))?;
    file.take(MAX_ENVIRONMENT).read_to_end(&mut text)?;
    Ok(text)
}
