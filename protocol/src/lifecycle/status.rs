//! The status words of commands and of their hosts' parts. The same everywhere.

use serde::{Deserialize, Serialize};

/// The status words of a command. The same everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandStatus {
    /// Waits for approvals.
    Requested,
    /// Someone said no.
    Rejected,
    /// The requester took it back.
    Withdrawn,
    /// Its time ran out before anything ran.
    Expired,
    /// Allowed; no host has started yet.
    Authorized,
    /// At least one host has started; not all are done.
    Running,
    /// All hosts ran it and all exited with 0.
    Completed,
    /// It ended, and on no host well.
    Failed,
    /// It ended well on some hosts only.
    Partial,
    /// A person stopped it.
    Cancelled,
    /// Every host refused it.
    Refused,
    /// Nobody can say how it ended.
    Lost,
}

impl CommandStatus {
    /// All words.
    pub const ALL: &'static [Self] = &[
        Self::Requested,
        Self::Rejected,
        Self::Withdrawn,
        Self::Expired,
        Self::Authorized,
        Self::Running,
        Self::Completed,
        Self::Failed,
        Self::Partial,
        Self::Cancelled,
        Self::Refused,
        Self::Lost,
    ];

    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Rejected => "rejected",
            Self::Withdrawn => "withdrawn",
            Self::Expired => "expired",
            Self::Authorized => "authorized",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Partial => "partial",
            Self::Cancelled => "cancelled",
            Self::Refused => "refused",
            Self::Lost => "lost",
        }
    }

    /// Says whether nothing more is expected to happen.
    #[must_use]
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Requested | Self::Authorized | Self::Running)
    }
}

impl core::fmt::Display for CommandStatus {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The status words of an execution, one host's part of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecutionStatus {
    /// Not started.
    Waiting,
    /// Started.
    Running,
    /// Ended; its outcome says how.
    Completed,
    /// The host would not.
    Refused,
    /// Not started in time.
    Skipped,
    /// Stopped, or never started, because a person cancelled.
    Cancelled,
    /// Nobody can say.
    Lost,
}

impl ExecutionStatus {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Refused => "refused",
            Self::Skipped => "skipped",
            Self::Cancelled => "cancelled",
            Self::Lost => "lost",
        }
    }

    /// Says whether nothing more is expected to happen.
    #[must_use]
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Waiting | Self::Running)
    }
}
