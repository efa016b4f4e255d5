//! The executor's words in the ledger's: what holds a run, and how it ended.
//!
//! It translates and decides nothing.

use std::borrow::Cow;
use std::time::Duration;

use countersign_protocol::command::ActionStep;
use countersign_protocol::event::{CgroupInForce, InForce, LimitsInForce, Outcome};
use countersign_protocol::hash::Digest;

use crate::execution::{self, Finished, Step};
use crate::rules::Runner;
use crate::spool::{EndFacts, Totals};

/// What will hold a run in the ledger's words.
pub(crate) fn in_force(runner: &Runner, held: &execution::InForce) -> InForce {
    let limits = held.rlimits;
    InForce {
        cgroup: held.cgroup.map(|cgroup| CgroupInForce {
            cpu: cgroup.cpu,
            memory: cgroup.memory,
            pids: cgroup.pids,
        }),
        gid: runner.gid,
        landlock: held.landlock_abi,
        limits: LimitsInForce {
            cpu_s: limits.cpu_s,
            file_size_bytes: limits.file_size_bytes,
            memory_bytes: limits.memory_bytes,
            open_files: limits.open_files,
            processes: limits.processes,
        },
        no_new_privs: held.no_new_privs,
        seccomp: held.seccomp,
        uid: runner.uid,
    }
}

/// A step that will run in the ledger's words.
pub(crate) fn action_step(step: &Step) -> ActionStep {
    let words = step.argv.iter().map(|word| word.to_string_lossy());
    ActionStep {
        argv: words.map(Cow::into_owned).collect(),
        path: step.program.path().to_string_lossy().into_owned(),
        sha256: Digest::new(*step.program.sha256()),
    }
}

/// The executor's last word in the ledger's words.
pub(crate) fn facts(finished: &Finished) -> EndFacts {
    let (mut exit_code, mut signal, mut detail) = (None, None, None);
    let outcome = match &finished.outcome {
        execution::Outcome::Exited(code) => {
            exit_code = Some(u8::try_from(*code).unwrap_or(u8::MAX));
            Outcome::Exited
        }
        execution::Outcome::Signalled(number) => {
            signal = Some(u8::try_from(*number).unwrap_or(u8::MAX));
            Outcome::Signalled
        }
        execution::Outcome::TimedOut => Outcome::TimedOut,
        execution::Outcome::Cancelled => Outcome::Cancelled,
        execution::Outcome::OutputLimit => Outcome::OutputLimit,
        execution::Outcome::NotFound => Outcome::NotFound,
        execution::Outcome::NotExecutable => Outcome::NotExecutable,
        execution::Outcome::FailedToStart(why) => {
            tracing::warn!(why, "a run did not start, or not with all of its steps");
            detail = Some(why.clone());
            Outcome::NotExecutable
        }
    };
    let totals = |totals: &execution::StreamTotals| Totals {
        total: totals.total_bytes,
        kept: totals.kept_bytes,
        sha256: Digest::new(totals.sha256),
    };
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    EndFacts {
        outcome,
        detail,
        exit_code,
        signal,
        duration_us: micros(finished.duration),
        cpu_us: micros(finished.cpu),
        max_rss: finished.max_rss_bytes,
        stdout: totals(&finished.stdout),
        stderr: totals(&finished.stderr),
        tree_gone: finished.tree_gone,
        masked: finished.masked,
    }
}
