//! What a sink is, in values that hold: names, kinds, addresses, and where it begins.
//!
//! `parse.rs` reads them from a file. It opens no connection, and shows no secret.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use countersign_protocol::event::Kind;
use reqwest::Certificate;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use secrecy::SecretString;
use serde::Deserialize;

use super::secret::Secrets;

/// Longest name of a sink; it is a label in metrics.
const MAX_NAME: usize = 64;

/// Why a file of sinks cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No TOML of this shape.
    #[error("{path}, line {line}: {why}", path = path.display())]
    Toml {
        /// Which file.
        path: PathBuf,
        /// Which line.
        line: usize,
        /// Why; never the line itself, which may hold an address that is a secret.
        why: String,
    },
    /// The sinks together.
    #[error("{path}: {why}", path = path.display())]
    Sinks {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and what to do.
        why: String,
    },
    /// One sink.
    #[error("{path}: sink {name:?}: {why}", path = path.display())]
    Sink {
        /// Which file.
        path: PathBuf,
        /// Which sink.
        name: String,
        /// What is wrong, and what to do.
        why: String,
    },
}

/// The name of a sink, and of its cursor: `[a-z0-9][a-z0-9._-]{0,63}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SinkName(String);

impl SinkName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SinkName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_start = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let holds = text.len() <= MAX_NAME
            && text.bytes().next().is_some_and(is_start)
            && text.bytes().all(|b| is_start(b) || b"._-".contains(&b));
        if holds {
            Ok(Self(text.to_owned()))
        } else {
            Err(
                "a sink's name is 1 to 64 of a-z 0-9 . _ - and begins with a letter or digit"
                    .into(),
            )
        }
    }
}

/// How an entry is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// The signed payload with where it stands.
    Event,
    /// OCSF 1.6.0.
    Ocsf,
    /// One sentence as chat services take it: `{"text": "…"}`.
    Slack,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Event => "event",
            Self::Ocsf => "ocsf",
            Self::Slack => "slack",
        })
    }
}

/// Where a sink without a cursor begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Begin {
    /// At the first entry of the log.
    Start,
    /// At the next entry.
    Now,
}

/// The kinds that are told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kinds(BTreeSet<Kind>);

impl Default for Kinds {
    /// All but those that only say that time passes, and output, whose bytes never leave anyway.
    fn default() -> Self {
        let told = Kind::ALL.iter().copied().filter(|kind| {
            kind.is_event()
                && !matches!(
                    kind,
                    Kind::LedgerHeartbeat | Kind::AgentIdle | Kind::ExecutionOutput
                )
        });
        Self(told.collect())
    }
}

impl Kinds {
    /// The kinds that at least one pattern takes in: `*`, `command.*` or a whole word.
    ///
    /// # Errors
    /// A pattern that takes in nothing: a mistake would go unnoticed for ever.
    pub fn of(patterns: &[String]) -> Result<Self, String> {
        let mut told = BTreeSet::new();
        for pattern in patterns {
            let takes = |kind: &Kind| match pattern.strip_suffix('*') {
                Some(start) => {
                    (start.is_empty() || start.ends_with('.')) && kind.as_str().starts_with(start)
                }
                None => kind.as_str() == pattern,
            };
            let known = Kind::ALL.iter().copied().filter(|kind| kind.is_event());
            let taken: Vec<Kind> = known.filter(takes).collect();
            if taken.is_empty() {
                return Err(format!(
                    "no kind of event is called {pattern:?}; write a whole one, as in execution.completed, all of a family, as in command.*, or *"
                ));
            }
            told.extend(taken);
        }
        if told.is_empty() {
            return Err(
                "kinds is empty: this sink would never hear anything; leave it out for the default"
                    .into(),
            );
        }
        Ok(Self(told))
    }

    /// Says whether a kind is told of.
    #[must_use]
    pub fn holds(&self, kind: Kind) -> bool {
        self.0.contains(&kind)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

/// Where a syslog receiver is, and how it is reached.
#[derive(Debug, Clone)]
pub(super) struct SyslogTo {
    pub(super) transport: Transport,
    /// Without brackets around an IPv6 address.
    pub(super) host: String,
    pub(super) port: u16,
}

#[derive(Clone)]
pub(super) enum Transport {
    Udp,
    Tcp,
    Tls {
        name: ServerName<'static>,
        /// May hold a private key.
        config: Arc<ClientConfig>,
    },
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Udp => "Udp",
            Self::Tcp => "Tcp",
            Self::Tls { .. } => "Tls",
        })
    }
}

/// Where a webhook is. The path may be a secret; only the origin is ever shown.
pub(super) struct WebhookTo {
    pub(super) url: SecretString,
    pub(super) origin: String,
    pub(super) secrets: Secrets,
    /// The only CAs that count there; the system's when nothing is pinned.
    pub(super) ca: Option<Vec<Certificate>>,
}

impl fmt::Debug for WebhookTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookTo")
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

/// Who is told. What is inside is this room's own affair; shown, it says where messages go.
#[derive(Debug)]
pub struct Receiver(pub(super) ReceiverKind);

#[derive(Debug)]
pub(super) enum ReceiverKind {
    File(PathBuf),
    Syslog(SyslogTo),
    Webhook(Box<WebhookTo>),
}

impl fmt::Display for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            ReceiverKind::File(path) => write!(f, "JSON lines to {}", path.display()),
            ReceiverKind::Syslog(to) => {
                let how = match to.transport {
                    Transport::Udp => "UDP, without any promise of delivery",
                    Transport::Tcp => "TCP in clear",
                    Transport::Tls { .. } => "TLS",
                };
                write!(f, "syslog to {} port {} over {how}", to.host, to.port)
            }
            ReceiverKind::Webhook(to) => match to.secrets.count() {
                0 => write!(f, "an unsigned webhook at {}", to.origin),
                1 => write!(f, "a webhook at {}, signed with 1 secret", to.origin),
                more => write!(f, "a webhook at {}, signed with {more} secrets", to.origin),
            },
        }
    }
}

/// One sink.
#[derive(Debug)]
pub struct SinkConfig {
    /// Its name; with it goes the cursor.
    pub name: SinkName,
    /// Who is told.
    pub receiver: Receiver,
    /// How.
    pub format: Format,
    /// Of what.
    pub kinds: Kinds,
    /// Where it begins when it has no cursor yet.
    pub begin: Begin,
    /// Whether free text goes out: commands, reasons, details; never output, environment or input.
    pub texts: bool,
}

impl fmt::Display for SinkConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts = if self.texts {
            "with texts (commands, reasons, details), which no erasure here can call back"
        } else {
            "without texts"
        };
        let begin = match self.begin {
            Begin::Start => "from the first entry",
            Begin::Now => "from the next entry",
        };
        write!(
            f,
            "{}: {}, as {}, {} kinds, {begin} unless it has begun, {texts}",
            self.name,
            self.receiver,
            self.format,
            self.kinds.count()
        )
    }
}

/// The sinks of a server.
#[derive(Debug)]
pub struct FeedConfig {
    /// In the order of the file; at least one, each name once.
    pub sinks: Vec<SinkConfig>,
}
