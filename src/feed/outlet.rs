//! One receiver: messages go in, and come back as delivered or with the reason why not.
//!
//! It knows no cursor and waits for nothing after trouble: whoever calls decides when to try again.

use std::io;
use std::time::Duration;

use countersign_protocol::checkpoint::Origin;

use super::config::{Receiver, ReceiverKind};
use super::file::FileOutlet;
use super::gather::PAGE;
use super::message::Message;
use super::webhook::WebhookOutlet;
use super::wire::SyslogOutlet;
use crate::clock::Clock;
use crate::ledger::OpenError;

/// Why messages were not delivered, or none could be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// No connection, or one that broke.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    /// Somebody is there and says nothing.
    #[error("it does not answer in time")]
    Timeout,
    /// It answers that it has not taken the message.
    #[error("it answered {status}")]
    Refused {
        /// The status.
        status: u16,
        /// How long it asks to be left alone.
        retry_after: Option<Duration>,
    },
    /// It answers that it will take none ever again.
    #[error("it answered 410: it takes no messages any more")]
    Gone,
    /// A file.
    #[error("cannot write: {0}")]
    Write(#[from] io::Error),
    /// The database.
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
    /// The log does not stand.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// The cursor tells of entries that this log does not have.
    #[error(
        "its cursor stands behind entry {0} of another history of this ledger; look into that first, then give the sink another name to begin anew"
    )]
    History(u64),
    /// Another server moved the cursor.
    #[error("another server feeds it")]
    Taken,
    /// This server knows nothing new any more.
    #[error("this server does not learn what other servers commit, and leaves the sink to them")]
    Deaf,
}

impl Trouble {
    /// A word for metrics.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Timeout => "timeout",
            Self::Refused { .. } => "refused",
            Self::Gone => "gone",
            Self::Write(_) => "write",
            Self::Database(_) | Self::Log(OpenError::Database(_)) => "database",
            Self::Log(_) => "log",
            Self::History(_) => "history",
            Self::Taken => "taken",
            Self::Deaf => "deaf",
        }
    }

    /// Whether it is of the receiver, and not of where the messages come from.
    pub(super) const fn is_receivers(&self) -> bool {
        matches!(
            self,
            Self::Unreachable(_) | Self::Timeout | Self::Refused { .. } | Self::Write(_)
        )
    }
}

/// A receiver with whatever connection it has.
#[derive(Debug)]
pub(super) enum Outlet {
    File(FileOutlet),
    Syslog(SyslogOutlet),
    Webhook(WebhookOutlet),
}

impl Outlet {
    pub(super) fn new(
        receiver: Receiver,
        origin: Origin,
        clock: Clock,
    ) -> Result<Self, reqwest::Error> {
        Ok(match receiver.0 {
            ReceiverKind::File(path) => Self::File(FileOutlet::new(path)),
            ReceiverKind::Syslog(to) => Self::Syslog(SyslogOutlet::new(to, origin)),
            ReceiverKind::Webhook(to) => Self::Webhook(WebhookOutlet::new(*to, clock)?),
        })
    }

    /// How many messages it takes at a time.
    pub(super) fn at_a_time(&self) -> usize {
        match self {
            Self::File(_) | Self::Syslog(_) => usize::try_from(PAGE).unwrap_or(1),
            Self::Webhook(_) => 1,
        }
    }

    /// Delivers all of these, or perhaps some and an error: then all are to be delivered again.
    pub(super) async fn deliver(&mut self, messages: Vec<Message>) -> Result<(), Trouble> {
        match self {
            Self::File(file) => file.write(&messages).await,
            Self::Syslog(wire) => wire.send(&messages).await,
            Self::Webhook(hook) => {
                for message in &messages {
                    hook.post(message).await?;
                }
                Ok(())
            }
        }
    }
}
