//! What an auditor can ask.

use clap::{Args, Subcommand};
use countersign_protocol::name::{AgentName, Principal};

use crate::acts::Since;
use crate::commands::{moment, nothing_ran};

/// Which question.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  countersign audit why 7K3M-9QPX
  countersign audit ran --host web-1 --user root --from 2026-01-01 --to 2026-02-01
  countersign audit nothing-ran --host web-1 --from 24h --to 1h
  countersign audit person dave --from 90d --csv > dave.csv
  countersign audit break-glass --without-review
  countersign audit suspect
  countersign audit search 'label:env=prod and not exit:0 and from:30d'

why, ran, break-glass and search: the server finds, and every entry of what it found is proved and judged
again here, so that nothing can be changed or invented. That nothing was left out is its word, unless --whole
reads the log from its first entry on and audits all of it; one line says which of the two it was. person,
suspect and nothing-ran always read the whole log. Needs audit:read and command:read; with --whole,
command:read only for the words of commands. The ledger records that you read the log.

CSV is as RFC 4180 has it, in UTF-8, with one line of headings. A cell that begins with = + - @ or a tab
gets an apostrophe in front, so that no spreadsheet takes it for a formula.")]
pub struct Arguments {
    #[command(subcommand)]
    pub(super) question: Question,
}

/// How much of an answer, and in which form.
#[derive(Debug, Clone, Args)]
pub(super) struct Form {
    /// As CSV on stdout
    #[arg(long)]
    pub(super) csv: bool,
    /// How many rows at most; 200, or all of them as CSV
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) limit: Option<u32>,
    /// Where to go on: the `next` of the page before, which also says as of when
    #[arg(long, value_name = "CURSOR")]
    pub(super) cursor: Option<String>,
    /// Read and audit every entry of the log, so that nothing can be left out
    #[arg(long)]
    pub(super) whole: bool,
}

#[derive(Debug, Clone, Subcommand)]
pub(super) enum Question {
    /// Whether a host started nothing from one time to another, proved by its own signed statements
    NothingRan(nothing_ran::Arguments),
    /// Everything that led to a command: rights, rules, request, approvals, start and end
    Why {
        /// The command: XXXX-XXXX, the whole id, or at least its first 8 digits
        id: String,
        #[command(flatten)]
        form: Form,
    },
    /// All that ran on a host, also what was running already when the time began
    Ran {
        /// The host
        #[arg(long, value_name = "HOST")]
        host: AgentName,
        /// As this account: the name that was asked for, or the number that the host signed
        #[arg(long, value_name = "USER")]
        user: Option<String>,
        #[command(flatten)]
        span: Between,
        #[command(flatten)]
        form: Form,
    },
    /// All that a person asked for, approved, rejected, changed and read
    Person {
        /// Who
        name: Principal,
        #[command(flatten)]
        span: Between,
        #[command(flatten)]
        form: Form,
    },
    /// Runs without approvals, and what came of their reviews
    BreakGlass {
        /// Only those that nobody has reviewed
        #[arg(long)]
        without_review: bool,
        #[command(flatten)]
        form: Form,
    },
    /// Approvals and other statements by keys that were revoked later
    Suspect {
        /// Only what stands where the revocation says that the key may have been somebody else's
        #[arg(long)]
        marked: bool,
        #[command(flatten)]
        form: Form,
    },
    /// Runs that fit a query: and, or, not, brackets
    #[command(after_help = "Terms, each KEY:VALUE; two side by side mean both:
  who:NAME         asked for it, or said yes or no      exit:0  exit:1..255
  host:NAME        the host                             status:completed  (of the command or the run)
  program:NAME     its path, or its name alone          mode:exec  mode:shell  mode:action
  arg:WORD         a further word; the text of a script id:7K3M-9QPX
  label:KEY=VALUE  of the host, when it was asked for   from:2026-01-31  to:7d  (of the request)
  output:TEXT      what it wrote has this text; needs output:read, and reads what it must

arg finds words as they were asked for, @fact.NAME and not what each host had there; the answer
shows both.
* stands for any text in who, host, program, arg and label; in \"quotes\" it does not. A value with
spaces or brackets goes in quotes, with \\\" and \\\\ inside.

Examples:
  countersign audit search 'host:web-* and program:systemctl and not who:alice'
  countersign audit search '(arg:*/etc/shadow* or output:\"permission denied\") from:30d' --csv")]
    Search {
        /// What to look for
        query: String,
        #[command(flatten)]
        form: Form,
    },
}

impl Question {
    /// Whether the answer is wanted as CSV. Nothing-ran has one answer, and no rows.
    pub(super) const fn is_csv(&self) -> bool {
        match self {
            Self::NothingRan(_) => false,
            Self::Why { form, .. }
            | Self::Ran { form, .. }
            | Self::Person { form, .. }
            | Self::BreakGlass { form, .. }
            | Self::Suspect { form, .. }
            | Self::Search { form, .. } => form.csv,
        }
    }
}

/// From one time on, up to another.
#[derive(Debug, Clone, Args)]
pub(super) struct Between {
    /// At that time or later: a time, a day, or how long ago
    #[arg(long, value_name = "T", value_parser = moment::since)]
    pub(super) from: Option<Since>,
    /// Before that time
    #[arg(long, value_name = "T", value_parser = moment::since)]
    pub(super) to: Option<Since>,
}
