//! The command line of `selfcheck`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use countersign_protocol::target::Place;

use crate::commands::request::duration;

/// What to try, and who approves.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  countersign selfcheck --host web-1              (others approve what it asks for; it says how)
  countersign selfcheck --host web-1 -- uptime    (on a host that allows no more than that)
  countersign selfcheck --approver-key bob.key --approver-key carol.key      (where all keys are yours: a trial)
  countersign selfcheck --no-runs --allow-left-out                           (only what takes no approval)

It asks for five small commands (echo, sleep twice, a pipeline, seq); they stand in the log as any
other does, with the reason `selfcheck`.

Exits with 0 when all is well, 1 when something failed, 3 when it found evidence of tampering, and 7 when
nothing failed and something could not be tried; with --allow-left-out that is 0 too.")]
pub struct Arguments {
    /// The host to try it on, or HOST/SERVICE; the only one, where the ledger knows one
    #[arg(long, value_name = "HOST[/SERVICE]")]
    pub(super) host: Option<Place>,
    /// A key of another person that approves what is asked for here; for trials, where all keys are
    /// on one machine. In earnest other people approve
    #[arg(
        long,
        value_name = "FILE",
        value_delimiter = ',',
        env = "COUNTERSIGN_SELFCHECK_APPROVERS"
    )]
    pub(super) approver_key: Vec<PathBuf>,
    /// How long to wait for other people's approvals
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration)]
    pub(super) wait: Duration,
    /// Ask for no command: only what takes no approval is tried
    #[arg(long, conflicts_with = "command")]
    pub(super) no_runs: bool,
    /// Exit with 0 also when something could not be tried
    #[arg(long)]
    pub(super) allow_left_out: bool,
    /// A command that the host allows, to run instead of `echo`, after --; it must exit with 0
    #[arg(last = true, value_name = "COMMAND")]
    pub(super) command: Vec<String>,
}
