//! What can be asked of policies, and who answers.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use countersign_protocol::name::{OsUser, Principal};
use countersign_protocol::target::Place;

use super::{judge, publish, snapshot};
use crate::acts::Since;
use crate::commands::asking::Why;
use crate::commands::{Globals, moment};
use crate::failure::Failure;

/// What to do with policies.
#[derive(Debug, Clone, Args)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Clone, Subcommand)]
enum Action {
    /// The policy in force, with its digest and where it was published
    Show {
        /// As it was before this entry
        #[arg(long, value_name = "SEQ")]
        at: Option<u64>,
    },
    /// Say what is wrong with a file and what its rules cost; needs no server
    #[command(after_help = "Example:
  countersign policy check rules.cedar

Exits with 2 when it cannot be published. Warnings are no errors: they may be meant so.")]
    Check {
        /// .cedar, or a short form: .toml or .json
        file: PathBuf,
    },
    /// What differs between the policy in force and a file, or between two files
    #[command(after_help = "Examples:
  countersign policy diff rules.cedar          # what publishing it would change
  countersign policy diff old.cedar new.cedar  # needs no server")]
    Diff {
        /// The new one; the old one when there are two
        file: PathBuf,
        /// The new one
        other: Option<PathBuf>,
    },
    /// Ask for a policy to come into force for every command
    #[command(
        visible_alias = "set",
        after_help = "Examples:
  countersign policy publish rules.cedar --reason T-77
  COUNTERSIGN_ALLOWED_COMMANDS=ls,cat,grep countersign policy publish

A short form is enough to begin; it becomes rules that `policy show` prints.
  rules.toml    allow = [\"ls\", \"cat\", \"grep\"]
  rules.json    {\"approvals\": 2, \"may_request\": [\"alice\"], \"may_approve\": [\"alice\", \"bob\", \"carol\"]}

Shows what would change, then asks; other administrators consent with `approve`."
    )]
    Publish {
        /// .cedar, .toml or .json; the programs of COUNTERSIGN_ALLOWED_COMMANDS when left out
        file: Option<PathBuf>,
        #[command(flatten)]
        why: Why,
    },
    /// Sign who may approve, for the hosts that pin administrators; or join who signed it already
    #[command(after_help = "Examples:
  countersign policy snapshot               # the first makes it, the others join
  countersign policy snapshot --valid 12h --min-approvals 3
  countersign policy snapshot --yes --json  # by a timer; see docs/OPERATIONS.md

It is read off the verified rights. Another administrator's is signed only when it is what your own
reading of the rights gives. Hosts with a [snapshot] table run nothing without one that holds.")]
    Snapshot(snapshot::Snapshot),
    /// What the rules say of a request that nobody has made: which speak, what it costs, and who
    /// could approve it
    #[command(after_help = "Examples:
  countersign policy explain --as dave@example.com --on web-1 -- systemctl restart nginx
  countersign policy explain --as dave@example.com --on web-1 --shell --with new.cedar -- 'cd /tmp && ls'

Judged here, over the verified rights as they are now. Nothing is asked for.")]
    Explain(Explain),
    /// Which past requests would have been decided otherwise under another policy
    #[command(after_help = "Examples:
  countersign policy replay --with new.cedar
  countersign policy replay --with new.cedar --since 30d
  countersign policy replay --with new.cedar --since 2026-01-31 --json

Each request is judged where it stands in the log, by the rights of that place. Requests that the
policy of their day refused are in no log, so a policy that permits more shows only by its price.")]
    Replay {
        /// The other policy: .cedar, .toml or .json
        #[arg(long, value_name = "FILE")]
        with: PathBuf,
        /// From this entry on, this time (2026-01-31, 2026-01-31T12:00:00Z) or for so long (30d)
        #[arg(long, value_name = "SEQ|TIME|DURATION", value_parser = moment::since)]
        since: Option<Since>,
    },
}

/// What somebody would ask for.
#[derive(Debug, Clone, Args)]
pub(super) struct Explain {
    /// Who would ask
    #[arg(long = "as", value_name = "NAME")]
    pub(super) who: Principal,
    /// The hosts, or HOST/SERVICE
    #[arg(
        long,
        required = true,
        value_delimiter = ',',
        value_name = "HOST[/SERVICE],…"
    )]
    pub(super) on: Vec<Place>,
    /// One word as a script of /bin/sh
    #[arg(long)]
    pub(super) shell: bool,
    /// What each host has under this name, with these arguments
    #[arg(long, num_args = 1.., value_names = ["NAME", "ARG"], conflicts_with = "shell")]
    pub(super) action: Vec<String>,
    /// The account
    #[arg(long, value_name = "USER")]
    pub(super) user: Option<OsUser>,
    /// The directory, absolute
    #[arg(long, value_name = "DIR")]
    pub(super) cwd: Option<String>,
    /// Seconds it may take
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    pub(super) timeout: u64,
    /// Without approvals
    #[arg(long)]
    pub(super) break_glass: bool,
    /// By this policy and not the one in force: .cedar, .toml or .json
    #[arg(long, value_name = "FILE")]
    pub(super) with: Option<PathBuf>,
    /// The command and its arguments, after --
    #[arg(
        last = true,
        required_unless_present = "action",
        value_name = "COMMAND"
    )]
    pub(super) argv: Vec<String>,
}

/// Does it.
pub(in crate::commands) async fn policy(
    globals: &Globals,
    arguments: Arguments,
) -> Result<u8, Failure> {
    match arguments.action {
        Action::Show { at } => publish::show(globals, at).await,
        Action::Check { file } => publish::check(globals, &file).await,
        Action::Diff { file, other } => publish::diff(globals, &file, other.as_deref()).await,
        Action::Publish { file, why } => publish::publish(globals, file.as_deref(), &why).await,
        Action::Snapshot(arguments) => Box::pin(snapshot::snapshot(globals, arguments)).await,
        Action::Explain(arguments) => judge::explain(globals, arguments).await,
        Action::Replay { with, since } => {
            let since = since.unwrap_or(Since::Entry(0));
            judge::replay(globals, &with, since).await
        }
    }
}
