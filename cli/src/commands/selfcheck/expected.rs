//! The commands of `selfcheck`: what each asks for, and what must come of it.

use countersign_protocol::command::{DEFAULT_OUTPUT_LIMIT, Mode};
use countersign_protocol::event::{ExecutionCompleted, Outcome, Stream};
use countersign_protocol::lifecycle::{Execution, ExecutionStatus};
use countersign_protocol::target::Place;
use serde::Serialize;

use super::report::Bad;
use crate::acts::RequestSpec;
use crate::view::{CommandView, Deed};
use crate::{describe, render};

/// Why everything is asked for; approvers and auditors read it.
pub(super) const REASON: &str = "selfcheck";

/// What the allowed command prints.
const ECHOED: &str = "countersign selfcheck";

/// How long an ordinary one may take.
const TIMEOUT_MS: u64 = 30_000;

/// How long the one sleeps that is cancelled: a host has longer than that to stop it.
const CANCELLED_S: &str = "120";

/// Longer than that, so that it is the cancel that ends it.
const CANCELLED_TIMEOUT_MS: u64 = 150_000;

/// The one that is stopped by its timeout sleeps longer than any patience.
const TIMED_OUT_S: &str = "60";

/// Its timeout: the shortest that a person would ask for.
const TIMED_OUT_MS: u64 = 1000;

/// Bytes kept of the output that is truncated: of more than a hundred thousand.
const KEPT_BYTES: u64 = 4096;

/// What is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Check {
    /// The server lives and is ready.
    Health,
    /// It is the pinned ledger, and knows the key.
    You,
    /// There is a host that takes work.
    Host,
    /// A person alone gets nothing to run.
    Refused,
    /// A command runs.
    Allowed,
    /// One that runs is stopped.
    Cancel,
    /// A shell's pipeline.
    Pipeline,
    /// The timeout holds.
    Timeout,
    /// More output than is kept is counted.
    Truncation,
    /// A changed approval is no approval.
    Tampered,
    /// All of it is in the log, proved.
    Audit,
}

impl Check {
    /// All, in the order of their lines.
    pub(super) const ALL: [Self; 11] = [
        Self::Health,
        Self::You,
        Self::Host,
        Self::Refused,
        Self::Allowed,
        Self::Cancel,
        Self::Pipeline,
        Self::Timeout,
        Self::Truncation,
        Self::Tampered,
        Self::Audit,
    ];

    /// Those that run something, in order.
    pub(super) const RUNS: [Self; 5] = [
        Self::Allowed,
        Self::Cancel,
        Self::Pipeline,
        Self::Timeout,
        Self::Truncation,
    ];

    /// The word.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Health => "health",
            Self::You => "you",
            Self::Host => "host",
            Self::Refused => "refused",
            Self::Allowed => "allowed",
            Self::Cancel => "cancel",
            Self::Pipeline => "pipeline",
            Self::Timeout => "timeout",
            Self::Truncation => "truncation",
            Self::Tampered => "tampered",
            Self::Audit => "audit",
        }
    }

    /// What it asks for. `own` replaces the allowed command.
    pub(super) fn spec(self, host: &Place, own: &[String]) -> RequestSpec {
        let words = |words: &[&str]| words.iter().map(ToString::to_string).collect();
        let (mode, argv, timeout_ms, output_limit): (_, Vec<String>, _, _) = match self {
            Self::Cancel => (
                Mode::Exec,
                words(&["sleep", CANCELLED_S]),
                CANCELLED_TIMEOUT_MS,
                DEFAULT_OUTPUT_LIMIT,
            ),
            Self::Pipeline => (
                Mode::Shell,
                words(&["printf 'b\\na\\n' | sort | head -n 1"]),
                TIMEOUT_MS,
                DEFAULT_OUTPUT_LIMIT,
            ),
            Self::Timeout => (
                Mode::Exec,
                words(&["sleep", TIMED_OUT_S]),
                TIMED_OUT_MS,
                DEFAULT_OUTPUT_LIMIT,
            ),
            Self::Truncation => (
                Mode::Exec,
                words(&["seq", "1", "20000"]),
                TIMEOUT_MS,
                KEPT_BYTES,
            ),
            Self::Allowed
            | Self::Health
            | Self::You
            | Self::Host
            | Self::Refused
            | Self::Tampered
            | Self::Audit => {
                let argv = if own.is_empty() {
                    words(&["echo", ECHOED])
                } else {
                    own.to_vec()
                };
                (Mode::Exec, argv, TIMEOUT_MS, DEFAULT_OUTPUT_LIMIT)
            }
        };
        RequestSpec {
            mode,
            timeout_ms,
            output_limit,
            ..RequestSpec::new(vec![host.clone()], argv, REASON)
        }
    }

    /// Whether what came of it is what must come of it, in a sentence.
    pub(super) fn judge(
        self,
        view: &CommandView,
        host: &Place,
        is_own: bool,
    ) -> Result<String, Bad> {
        let agent = &host.agent;
        if let Some(deed) = view.words.iter().find(|word| word.deed == Deed::Rejected) {
            return Err(Bad::left_out(format!("{} said no to it", deed.principal)));
        }
        let part = view.command.executions.get(agent);
        let part = part.ok_or_else(|| Bad::failed(format!("{agent} has no part in it")))?;
        if let Some(why) = &part.refused {
            return Err(self.refused(view, host, &describe::refused(view, why)));
        }
        let Some(done) = part.completed.as_ref() else {
            return Err(ended_otherwise(view, part));
        };
        if done.outcome == Outcome::NotFound {
            let word = view.spec.here().and_then(|spec| spec.argv.first().cloned());
            let word = word.unwrap_or_default();
            return Err(self.not_possible(format!("there is no {word} on {agent}")));
        }
        let wrote = view.outputs.get(agent);
        let stdout = wrote.map_or_else(Vec::new, |output| output.bytes(Stream::Stdout));
        let is_hidden = wrote.is_some_and(|output| !output.is_whole());
        let millis = done.duration_us / 1000;
        match self {
            Self::Cancel => {
                let is_stopped =
                    part.status == ExecutionStatus::Cancelled && done.outcome == Outcome::Cancelled;
                match (is_stopped, done.tree_gone) {
                    (true, true) => Ok(format!(
                        "{agent} stopped it after {millis} ms, and proved that nothing of it is left"
                    )),
                    (true, false) => Err(Bad::failed(format!(
                        "{agent} stopped it and cannot say that nothing of it is left"
                    ))
                    .hint("look at the processes of that host")),
                    (false, _) => Err(ended_otherwise(view, part)),
                }
            }
            Self::Timeout => {
                if done.outcome == Outcome::TimedOut {
                    Ok(format!(
                        "{agent} ended it after {millis} ms of {TIMED_OUT_MS} allowed"
                    ))
                } else {
                    Err(ended_otherwise(view, part))
                }
            }
            Self::Truncation => truncated(view, part, done),
            Self::Allowed | Self::Pipeline if !part.succeeded() => Err(ended_otherwise(view, part)),
            Self::Allowed if is_own => Ok(format!("{agent} ran it, and it exited with 0")),
            Self::Allowed | Self::Pipeline if is_hidden => Ok(format!(
                "{agent} ran it, and it exited with 0; its output is not for you to read"
            )),
            Self::Pipeline => wrote_what(agent.as_str(), &stdout, "a\n"),
            Self::Allowed
            | Self::Health
            | Self::You
            | Self::Host
            | Self::Refused
            | Self::Tampered
            | Self::Audit => wrote_what(agent.as_str(), &stdout, &format!("{ECHOED}\n")),
        }
    }

    /// The host's own rules say what runs there. For the allowed command that is a failure: nothing
    /// would be known to run.
    fn refused(self, view: &CommandView, host: &Place, why: &str) -> Bad {
        let agent = &host.agent;
        let words = view.spec.here().map(|spec| render::words(&spec.argv));
        let words = words.unwrap_or_default();
        self.not_possible(format!("{agent} would not run {words}: {why}"))
    }

    /// What this host or policy does not permit: left out, but for the allowed command.
    pub(super) fn not_possible(self, said: String) -> Bad {
        if self == Self::Allowed {
            Bad::failed(said).hint("nothing is known to run: name a command that this host allows, after --; or allow one there (agent.toml, [[allow]])")
        } else {
            Bad::left_out(said)
        }
    }
}

fn ended_otherwise(view: &CommandView, part: &Execution) -> Bad {
    let how = describe::ending(view, part);
    Bad::failed(format!("it ended otherwise than it must: {how}"))
}

fn wrote_what(agent: &str, stdout: &[u8], expected: &str) -> Result<String, Bad> {
    if stdout == expected.as_bytes() {
        Ok(format!("{agent} ran it, and it wrote what it must"))
    } else {
        let wrote = String::from_utf8_lossy(stdout);
        Err(Bad::failed(format!(
            "{agent} ran it, and it wrote {wrote:?} instead of {expected:?}"
        )))
    }
}

fn truncated(
    view: &CommandView,
    part: &Execution,
    done: &ExecutionCompleted,
) -> Result<String, Bad> {
    let (kept, total) = (done.stdout.kept, done.stdout.total);
    if !part.succeeded() {
        return Err(ended_otherwise(view, part));
    }
    if done.is_truncated() && kept <= KEPT_BYTES && kept > 0 {
        Ok(format!(
            "{kept} of {total} bytes were kept, the others counted and hashed"
        ))
    } else {
        Err(Bad::failed(format!(
            "{kept} of {total} bytes were kept where {KEPT_BYTES} were asked for"
        )))
    }
}
