//! The command line: every role of the one binary.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use countersign::feed::Format as FeedFormat;
use countersign::http::TlsFiles;
use countersign::server::Way;
use countersign::telemetry::Format;
use countersign_protocol::checkpoint::{Origin, VerifierKey};
use countersign_protocol::event::Administrator;
use countersign_protocol::key::PublicKey;
use countersign_protocol::origin::{NotAnOrigin, ServerOrigin};
use countersign_protocol::policy::Policy;
use secrecy::SecretString;

/// A ledger for commands run on hosts: every request, approval, start and line of output is a signed
/// event in one log, and agents run only what they have verified themselves.
#[derive(Debug, Parser)]
#[command(
    name = "countersign",
    version,
    after_help = "Begin with:  countersign demo\n\
        Exit codes: 0 done, 1 failed, 2 usage, 3 evidence of tampering, 4 refused, 5 unreachable, \
        6 verified and a part of it suspect, 7 (selfcheck) something was left out; `run`, `retry --follow` and `demo` \
        exit as the command did, 124 when its time ran out, 126 and 127 when the host could not start it, 125 for everything of ours."
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) globals: countersign_cli::Globals,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show it all: one command, two approvals, one host, then the audit.
    #[command(after_help = "Examples:\n  countersign demo\n  countersign demo -- df -h /")]
    Demo(Demo),
    /// Stay up with everything on this machine, to try things from another terminal.
    #[command(after_help = "Example:\n  countersign dev --listen 127.0.0.1:7070")]
    Dev(Dev),
    /// Serve a ledger over HTTP.
    Serve(Serve),
    /// Make a ledger: draw its keys, write its first entry. --origin is the first line of its
    /// checkpoints: a name of your own, for ever.
    #[command(
        after_help = "Example:\n  countersign init --origin ledger.example.com/prod \\\n    \
        --admin alice=alice.pub --admin bob=bob.pub --admin carol=carol.pub --threshold 2"
    )]
    Init(Init),
    /// Bring the database's schema up to date, with the owner's address.
    Migrate(Migrate),
    /// Build the lists anew from the log.
    Rebuild(Database),
    /// Vouch for ledgers: sign each checkpoint that continues the one before, and nothing else.
    Witness(Witness),
    /// Look at what sinks would hear.
    #[command(subcommand)]
    Feed(FeedVerb),
    /// Run this host's agent.
    Agent(countersign_agent::args::Args),
    /// Recompute everything from the bytes of the log.
    Verify(countersign_cli::VerifyArguments),
    #[command(flatten)]
    Client(countersign_cli::Verb),
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Where to put everything; a new folder when left out.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Install Postgres without asking, if it is missing.
    #[arg(long)]
    pub(crate) yes: bool,
    /// What to run.
    #[arg(last = true, value_name = "CMD")]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Dev {
    /// Where to keep everything.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Where the server listens, on loopback.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7070", value_parser = loopback)]
    pub(crate) listen: SocketAddr,
    /// Another address at which clients meet this server; several times.
    #[arg(
        long = "public-url",
        value_name = "URL",
        env = "COUNTERSIGN_PUBLIC_URL",
        value_delimiter = ',',
        value_parser = server_origin
    )]
    pub(crate) public_urls: Vec<ServerOrigin>,
    /// Programs that people may ask for here, and no others: a comma list, such as
    /// ls,echo,cat,grep,find,pwd.
    #[arg(
        long,
        value_name = "LIST",
        env = "COUNTERSIGN_ALLOWED_COMMANDS",
        value_parser = countersign_policy::lists::allowed_commands
    )]
    pub(crate) allowed_commands: Option<Policy>,
    /// Install Postgres without asking, if it is missing.
    #[arg(long)]
    pub(crate) yes: bool,
}

/// The database, as the role that serves.
#[derive(Debug, Args)]
pub(crate) struct Database {
    /// The database's address, as the role that serves. Several have a comma between: the one that
    /// takes writes is used, also after a failover. Rather from the environment: it may hold a
    /// password, and arguments can be read by others.
    #[arg(long, value_name = "URL", env = "DATABASE_URL", hide_env_values = true)]
    pub(crate) database: SecretString,
}

/// Where the ledger's keys and its newest committed checkpoint are.
#[derive(Debug, Args)]
pub(crate) struct Keys {
    /// The folder of the ledger's keys.
    #[arg(
        long,
        value_name = "DIR",
        env = "COUNTERSIGN_KEYS",
        default_value = "/var/lib/countersign/ledger"
    )]
    pub(crate) keys: PathBuf,
    /// The file of the newest committed checkpoint; `checkpoint` in the folder of the keys when left
    /// out. Never inside the database, and in no backup of it.
    #[arg(long, value_name = "FILE", env = "COUNTERSIGN_CHECKPOINT")]
    pub(crate) checkpoint: Option<PathBuf>,
}

impl Keys {
    pub(crate) fn checkpoint_file(&self) -> PathBuf {
        self.checkpoint
            .clone()
            .unwrap_or_else(|| self.keys.join("checkpoint"))
    }
}

/// Who ends TLS, and with what.
#[derive(Debug, Args)]
pub(crate) struct Ends {
    /// The certificate of this server and those that lead to its CA, PEM; read again when it changes.
    #[arg(
        long,
        value_name = "FILE",
        env = "COUNTERSIGN_TLS_CERT",
        requires = "tls_key"
    )]
    tls_cert: Option<PathBuf>,
    /// The private key of the certificate, PEM, which others cannot read.
    #[arg(
        long,
        value_name = "FILE",
        env = "COUNTERSIGN_TLS_KEY",
        requires = "tls_cert"
    )]
    tls_key: Option<PathBuf>,
    /// A proxy before this server ends TLS: listen in clear wherever told, and believe the last
    /// address in its X-Forwarded-For.
    #[arg(long, env = "COUNTERSIGN_BEHIND_PROXY")]
    pub(crate) behind_proxy: bool,
}

impl Ends {
    /// The files, when this server ends TLS itself.
    pub(crate) fn files(&self) -> Option<TlsFiles> {
        let pair = self.tls_cert.clone().zip(self.tls_key.clone());
        pair.map(|(cert, key)| TlsFiles { cert, key })
    }
}

/// How clients get to the server.
#[derive(Debug, Args)]
pub(crate) struct Reach {
    #[command(flatten)]
    ends: Ends,
    /// Where clients meet this server, as they are configured; several times. Its own loopback
    /// address is known.
    #[arg(
        long = "public-url",
        value_name = "URL",
        env = "COUNTERSIGN_PUBLIC_URL",
        value_delimiter = ',',
        value_parser = server_origin
    )]
    pub(crate) public_urls: Vec<ServerOrigin>,
}

impl Reach {
    pub(crate) fn way(self) -> Way {
        Way {
            tls: self.ends.files(),
            behind_proxy: self.ends.behind_proxy,
            public_urls: self.public_urls,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) database: Database,
    #[command(flatten)]
    pub(crate) keys: Keys,
    /// Where to listen.
    #[arg(
        long,
        value_name = "ADDR",
        env = "COUNTERSIGN_LISTEN",
        default_value = "127.0.0.1:7070"
    )]
    pub(crate) listen: SocketAddr,
    #[command(flatten)]
    pub(crate) way: Reach,
    /// This server serves this ledger for the first time: trust what the database holds.
    #[arg(long, conflicts_with = "accept_checkpoint")]
    pub(crate) first_start: bool,
    /// After a move: trust what the database holds if it continues the checkpoint in this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) accept_checkpoint: Option<PathBuf>,
    /// The witnesses to ask, and which of them are enough, as C2SP tlog-policy: `/checkpoint` then
    /// answers the newest checkpoint that enough of them have signed.
    #[arg(long, value_name = "FILE", env = "COUNTERSIGN_WITNESS_POLICY")]
    pub(crate) witness_policy: Option<PathBuf>,
    /// The file of sinks, TOML: SIEMs, files and webhooks that hear of each entry at least once
    /// (docs/FEED.md). Try it with `countersign feed check FILE`.
    #[arg(long, value_name = "FILE", env = "COUNTERSIGN_FEED")]
    pub(crate) feed: Option<PathBuf>,
    /// How log lines look. What is logged: COUNTERSIGN_LOG.
    #[arg(long, value_enum, env = "COUNTERSIGN_LOG_FORMAT", default_value_t)]
    pub(crate) log_format: Format,
}

/// Events out to SIEMs and webhooks.
#[derive(Debug, Subcommand)]
pub(crate) enum FeedVerb {
    /// Read a file of sinks, its secrets and CAs, and say what `serve --feed FILE` would do. Nothing
    /// is connected.
    Check {
        /// The file, TOML.
        #[arg(value_name = "FILE", env = "COUNTERSIGN_FEED")]
        file: PathBuf,
    },
    /// Print messages as a sink would get them, a line each. Moves no cursor.
    #[command(
        after_help = "Example:\n  countersign feed print --format ocsf --from 100 --kinds 'command.*'"
    )]
    Print(FeedPrint),
}

#[derive(Debug, Args)]
pub(crate) struct FeedPrint {
    #[command(flatten)]
    pub(crate) database: Database,
    /// The first entry.
    #[arg(long, value_name = "SEQ", default_value_t = 0)]
    pub(crate) from: u64,
    /// How each is told.
    #[arg(long, value_enum, default_value_t = FeedFormat::Event)]
    pub(crate) format: FeedFormat,
    /// Of which kinds: a comma list of words, `command.*` or `*`.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) kinds: Vec<String>,
    /// With free text: commands, reasons, details.
    #[arg(long)]
    pub(crate) texts: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ssh-keygen -t ed25519 -N '' -f witness.key
  countersign witness --name witness.example.org/w1 --key witness.key --show-key
  countersign witness --name witness.example.org/w1 --key witness.key \\
    --state /var/lib/countersign-witness --listen 0.0.0.0:7080 \\
    --log ledger.example.com/prod+5b0d1a3c+AQ…

Get each --log key from the ledger's operator (`init` prints it as vkey), and give them the line of
--show-key. Never delete the state folder: without it a witness would sign a second history. It asks
for nobody's trust but its own operator's, so it should not be the ledger's.")]
pub(crate) struct Witness {
    /// The name in its signature lines, for ever: an address without a scheme.
    #[arg(long, value_name = "NAME", env = "COUNTERSIGN_WITNESS_NAME")]
    pub(crate) name: Origin,
    /// The file of its own key, used for nothing else: an OpenSSH ed25519 private key.
    #[arg(long, value_name = "FILE", env = "COUNTERSIGN_WITNESS_KEY")]
    pub(crate) key: PathBuf,
    /// Print the key for policies and end.
    #[arg(long)]
    pub(crate) show_key: bool,
    /// Where it remembers what it signed. One folder, one witness.
    #[arg(
        long,
        value_name = "DIR",
        env = "COUNTERSIGN_WITNESS_STATE",
        required_unless_present = "show_key"
    )]
    pub(crate) state: Option<PathBuf>,
    /// The verifier key of a log to watch; several times.
    #[arg(
        long = "log",
        value_name = "VKEY",
        env = "COUNTERSIGN_WITNESS_LOGS",
        value_delimiter = ',',
        required_unless_present = "show_key"
    )]
    pub(crate) logs: Vec<VerifierKey>,
    /// Where to listen.
    #[arg(
        long,
        value_name = "ADDR",
        env = "COUNTERSIGN_LISTEN",
        default_value = "127.0.0.1:7080"
    )]
    pub(crate) listen: SocketAddr,
    #[command(flatten)]
    pub(crate) ends: Ends,
    /// How log lines look. What is logged: COUNTERSIGN_LOG.
    #[arg(long, value_enum, env = "COUNTERSIGN_LOG_FORMAT", default_value_t)]
    pub(crate) log_format: Format,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  countersign init --keys /etc/countersign/keys --origin ledger.example.com/prod \\
    --admin alice@example.com=alice.pub --admin bob@example.com=bob.pub \\
    --admin carol@example.com=carol.pub --threshold 2

On a machine without a network, and later where the database is:
  countersign init --offline genesis.json --keys keys --origin … --admin … --threshold 2
  countersign init --genesis genesis.json --keys keys")]
pub(crate) struct Init {
    /// The database's address, as the role that serves. Rather from the environment: it may hold a
    /// password, and arguments can be read by others.
    #[arg(long, value_name = "URL", env = "DATABASE_URL", hide_env_values = true)]
    pub(crate) database: Option<SecretString>,
    #[command(flatten)]
    pub(crate) keys: Keys,
    /// Sign the first entry into this file and touch no database.
    #[arg(long, value_name = "FILE", conflicts_with = "genesis")]
    pub(crate) offline: Option<PathBuf>,
    /// Enter the first entry that was signed into this file before, with the keys made then.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["administrators", "threshold", "recovery_key"])]
    pub(crate) genesis: Option<PathBuf>,
    /// An administrator and the file of their public key; several times.
    #[arg(long = "admin", value_name = "NAME=PUBKEY", required_unless_present = "genesis", value_parser = administrator)]
    pub(crate) administrators: Vec<Administrator>,
    /// How many administrators a change of rights takes: two are the least that guards anything.
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub(crate) threshold: u32,
    /// The file of a public key for the day when administrators are lost; kept offline.
    #[arg(long, value_name = "PUBKEY", value_parser = public_key)]
    pub(crate) recovery_key: Option<PublicKey>,
}

#[derive(Debug, Args)]
pub(crate) struct Migrate {
    /// The database's address, as its owner.
    #[arg(
        long,
        value_name = "URL",
        env = "COUNTERSIGN_OWNER_DATABASE_URL",
        hide_env_values = true
    )]
    pub(crate) database: SecretString,
}

/// A public key: the file it is in, or the key itself.
fn public_key(text: &str) -> Result<PublicKey, String> {
    if let Ok(key) = PublicKey::from_openssh(text) {
        return Ok(key);
    }
    let line =
        std::fs::read_to_string(text).map_err(|error| format!("cannot read {text}: {error}"))?;
    PublicKey::from_openssh(line.trim_end()).map_err(|error| error.to_string())
}

/// What `dev` makes is for this machine: its keys lie about, and it speaks in clear.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text
        .parse()
        .map_err(|_| "an address is IP:PORT, as in 127.0.0.1:7070".to_owned())?;
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err("dev serves this machine only; `countersign serve` serves others".to_owned())
    }
}

/// An address as people write it: a slash at its end and capitals do not matter.
fn server_origin(text: &str) -> Result<ServerOrigin, NotAnOrigin> {
    text.trim_end_matches('/').to_ascii_lowercase().parse()
}

fn administrator(text: &str) -> Result<Administrator, String> {
    let (name, key) = text
        .split_once('=')
        .ok_or("an administrator is NAME=PUBKEY, as in alice=alice.pub")?;
    Ok(Administrator {
        principal: name.parse().map_err(|_| {
            format!("{name:?} is not a name: 1 to 128 of A-Z a-z 0-9 . _ @ : / = + -")
        })?,
        key: public_key(key)?,
    })
}
