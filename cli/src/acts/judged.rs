//! How a thing stands once a statement on it is in the log. The receipt has proved that by then: what cannot
//! be read back takes nothing of it away, and whoever is told of a failure alone would say it again.

use countersign_protocol::hash::{CommandId, StatementId};

use super::change::{ChangeView, Replaced};
use super::connect::Client;
use super::submit::Accepted;
use crate::failure::Failure;
use crate::view::CommandView;

/// What became of a command or a change.
#[derive(Debug)]
pub struct Judged {
    /// Of the command or change.
    pub id: StatementId,
    /// Where the statement stands.
    pub seq: u64,
    /// The status word by verified entries, or why they could not be read.
    pub status: Result<&'static str, Failure>,
    /// The key that an acceptance replaces.
    pub replaces: Option<Replaced>,
}

impl Judged {
    /// Of a command that was read back.
    #[must_use]
    pub fn command(
        id: &CommandId,
        accepted: &Accepted,
        read: Result<&CommandView, Failure>,
    ) -> Self {
        Self {
            id: *id,
            seq: accepted.seq,
            status: read.map(|view| view.command.status().as_str()),
            replaces: None,
        }
    }

    fn change(id: &StatementId, accepted: &Accepted, read: Result<ChangeView, Failure>) -> Self {
        let (status, replaces) = match read {
            Ok(view) => (Ok(view.stage.as_str()), view.replaces),
            Err(failure) => (Err(failure), None),
        };
        Self {
            id: *id,
            seq: accepted.seq,
            status,
            replaces,
        }
    }
}

impl Client {
    /// The command's status once a statement on it is in the log.
    pub async fn judged_command(&self, id: &CommandId, accepted: &Accepted) -> Judged {
        let read = self.fetch_command_with(id, accepted.seq).await;
        Judged::command(id, accepted, read.as_ref().map_err(Clone::clone))
    }

    /// How far a change has come once a statement on it is in the log.
    pub async fn judged_change(&self, id: &StatementId, accepted: &Accepted) -> Judged {
        Judged::change(id, accepted, self.change_with(id, accepted.seq).await)
    }
}
