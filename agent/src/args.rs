//! The command line of the agent, the same for `countersign-agent` and `countersign agent`.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use tracing_subscriber::EnvFilter;

use crate::check::{self, CheckError, Question};
use crate::clock::Clock;
use crate::config::Config;
use crate::enroll::{self, Card, End, Enroll};
use crate::key::IdentityError;
use crate::orders::Orders;
use crate::rotate_key::{RotateKey, rotate_key};
use crate::service;
use crate::station::AgentError;
use crate::summary::{self, How};

/// It ended as it was asked to.
const DONE: u8 = 0;

/// It cannot go on.
const FAILED: u8 = 1;

/// The configuration or the call is wrong.
const USAGE: u8 = 2;

/// There is evidence of tampering.
const EVIDENCE: u8 = 3;

/// The ledger will not have this agent, or the rules will not have a command.
const REFUSED: u8 = 4;

/// Runs on this host what its people have signed, and nothing else.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The host's pins and rules.
    #[arg(
        long,
        value_name = "FILE",
        env = "COUNTERSIGN_AGENT_CONFIG",
        default_value = "/etc/countersign/agent.toml"
    )]
    pub config: PathBuf,
    /// How log lines look. What is logged: COUNTERSIGN_LOG.
    #[arg(long, value_enum, env = "COUNTERSIGN_LOG_FORMAT", default_value_t)]
    pub log_format: LogFormat,
    /// What to do; `run` when left out.
    #[command(subcommand)]
    pub verb: Option<Verb>,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// What the agent can be asked to do.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Verb {
    /// Connect to the server and run what is granted, until TERM or INT.
    Run,
    /// Make this host's key, print its fingerprint, and wait until it is accepted. Runs nothing. Exit 0
    /// accepted, 1 when the wait is over before, 4 refused.
    Enroll(Enroll),
    /// Read the configuration, tell the first mistake with its line or list the rules and what cannot
    /// work, and do nothing else: exit 0 in order, 2 a mistake.
    CheckConfig(How),
    /// Say what this host would answer to a command, and by which rule, and whether it has a policy
    /// snapshot to go by where it asks for one: exit 0 allowed, 4 refused.
    #[command(after_help = "Examples:
  countersign-agent check -- systemctl restart nginx.service
  countersign-agent check --action -- restart_service nginx.service
  countersign-agent check --service app --user www -- ls /srv")]
    Check(Question),
    /// Make a new key for this host, and wait until administrators have accepted it.
    #[command(
        after_help = "It is asked for by the agent that runs on this host, which goes on meanwhile. \
The old key still runs what names it, for rotation_grace_s; then it retires by itself."
    )]
    RotateKey(RotateKey),
}

/// Does what the arguments say and gives the exit code: 0 done, 1 failed, 2 wrong configuration,
/// 3 evidence of tampering, 4 refused by the ledger or by the rules. Logs and errors go to stderr.
pub async fn main(args: Args) -> u8 {
    let config = match Config::load(&args.config) {
        Ok(config) => config,
        Err(error) => {
            if matches!(&args.verb, Some(Verb::CheckConfig(how)) if how.json) {
                print(&summary::mistake_to_json(&error));
            } else {
                tell(&format!("error: {error}"));
            }
            return USAGE;
        }
    };
    match args.verb.unwrap_or(Verb::Run) {
        Verb::CheckConfig(how) => {
            let summary = summary::summary(&args.config, &config, Clock::system().now());
            if how.json {
                print(&summary.to_json());
            } else {
                tell(&summary.to_string());
            }
            DONE
        }
        Verb::Check(question) => answer(&config, question),
        Verb::RotateKey(how) => {
            start_log(args.log_format);
            told(rotate_key(&config, how).await)
        }
        Verb::Enroll(options) => become_known(config, args.config, options, args.log_format).await,
        Verb::Run => run(config, args.config, args.log_format).await,
    }
}

fn told(result: Result<(), AgentError>) -> u8 {
    match result {
        Ok(()) => DONE,
        Err(error) => {
            tell(&format!("error: {error}"));
            exit_code(&error)
        }
    }
}

/// The verdict is what was asked for, so it goes to stdout.
fn answer(config: &Config, question: Question) -> u8 {
    let as_json = question.json;
    match check::ask(config, question, Clock::system().now()) {
        Ok(answer) => {
            if as_json {
                print(&answer.to_json());
            } else {
                // A reader that is gone still gets the code.
                let _ = write!(std::io::stdout(), "{answer}");
            }
            if answer.is_yes() { DONE } else { REFUSED }
        }
        Err(error) => {
            tell(&format!("error: {error}"));
            match error {
                CheckError::NoQuestion(_) => USAGE,
                CheckError::Memory(_) => FAILED,
            }
        }
    }
}

/// One object a line, for scripts. A reader that is gone still gets the code.
fn print(object: &serde_json::Value) {
    let _ = writeln!(std::io::stdout(), "{object}");
}

/// What was asked for goes to stdout, everything else to stderr.
async fn become_known(config: Config, file: PathBuf, options: Enroll, log: LogFormat) -> u8 {
    start_log(log);
    let orders = match Orders::by_signals(file) {
        // Who waits for a service to be ready waits for another process than this one.
        Ok(orders) => Orders {
            manager: Arc::default(),
            ..orders
        },
        Err(error) => {
            tell(&format!("error: cannot listen for signals: {error}"));
            return FAILED;
        }
    };
    let show = |card: &Card| {
        let text = if options.json {
            serde_json::to_string(card).unwrap_or_default() + "\n"
        } else {
            enroll::words(card)
        };
        // A reader that is gone still gets the code.
        let _ = write!(std::io::stdout(), "{text}");
    };
    match Box::pin(enroll::enroll(&config, &options, &orders, show)).await {
        Ok(End::Accepted) => DONE,
        Ok(End::Introduced) => {
            tell("The enrolment is in the ledger and waits to be accepted.");
            DONE
        }
        Ok(End::Over { delivered }) => {
            tell(if delivered {
                "error: the wait is over and nobody has accepted this host yet. Its enrolment is in \
                 the ledger; enroll again, or start the agent: both wait with the same key."
            } else {
                "error: the wait is over and the server was not reached, so the ledger does not know \
                 of this host yet. Look at server in agent.toml and enroll again: the key stays."
            });
            FAILED
        }
        Err(error) => {
            tell(&format!("error: {error}"));
            if matches!(error, AgentError::Identity(IdentityError::Busy(_))) {
                tell("An agent that runs enrols by itself; its log has the fingerprint.");
            }
            exit_code(&error)
        }
    }
}

async fn run(config: Config, file: PathBuf, log_format: LogFormat) -> u8 {
    start_log(log_format);
    leave_no_core();
    let orders = match Orders::by_signals(file) {
        Ok(orders) => orders,
        Err(error) => {
            tell(&format!("error: cannot listen for signals: {error}"));
            return FAILED;
        }
    };
    told(Box::pin(service::run(config, orders)).await)
}

/// The agent's keys, and the secrets that it hands over, are in its memory: no core dump has it, and
/// nobody but root reads it. Its children are so too, until they become another program.
fn leave_no_core() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit};

    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let unlimited = rustix::process::setrlimit(Resource::Core, none);
    let hidden = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    if let Err(error) = unlimited.and(hidden) {
        tracing::error!(%error, "a core dump of the agent could hold its keys");
    }
}

const fn exit_code(error: &AgentError) -> u8 {
    if error.is_evidence() {
        EVIDENCE
    } else if matches!(error, AgentError::Enrolment(_) | AgentError::KeyRefused(_)) {
        REFUSED
    } else {
        FAILED
    }
}

/// To stderr, `COUNTERSIGN_LOG` chooses what. A log that someone started before stays.
fn start_log(format: LogFormat) {
    let filter =
        EnvFilter::try_from_env("COUNTERSIGN_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let _ = match format {
        LogFormat::Json => builder.json().try_init(),
        LogFormat::Human => builder.with_target(false).try_init(),
    };
}

fn tell(text: &str) {
    // Without a stderr there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "{text}");
}
