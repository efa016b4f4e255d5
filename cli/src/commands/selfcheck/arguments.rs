//! The command line of `selfcheck`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use countersign_protocol::target::Place;

use crate::commands::request::duration;

/// What to try, and who approves.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  countersign selfcheck --host web-1                                     # others approve what it asks for; it says how
  countersign selfcheck --host web-1 -- uptime                           # on a host that allows no more than that
  countersign selfcheck --approver-key bob.key --approver-key carol.key  # where all keys are yours: a trial
  countersign selfcheck --host web-1 --no-runs --allow-left-out          # for a monitor: no command, no approval

It asks for five small commands (echo, sleep twice, a pipeline, seq); they stand in the log as any
other does, with the reason `selfcheck`.

Exits with 0 when all is well, 1 when something failed, 3 when it found evidence of tampering, and 7 when
nothing failed and something could not be tried; with --allow-left-out that is 0 too.

A monitor gives --no-runs, --allow-left-out and --host. It hears of a server that is not up or ready, of a
ledger that is not the pinned one, of a key that does not count any more, and of a host that is not
accepted; not of an agent that does not answer, which takes a command. Where there are several hosts and none
is named, --allow-left-out is a usage error: nothing would be tried on any of them.")]
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
    /// Ask for no command: only what takes no approval is tried, and the rest is left out
    #[arg(long, conflicts_with = "command")]
    pub(super) no_runs: bool,
    /// Exit with 0 also when something could not be tried; where there are several hosts, --host must
    /// name one
    #[arg(long)]
    pub(super) allow_left_out: bool,
    /// A command that the host allows, to run instead of `echo`, after --; it must exit with 0
    #[arg(last = true, value_name = "COMMAND")]
    pub(super) command: Vec<String>,
}
