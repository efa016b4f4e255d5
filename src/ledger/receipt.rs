//! What an append answers: where the statement stands, and the committed checkpoint over it.

use std::sync::Arc;

use countersign_protocol::checkpoint::Checkpoint;
use countersign_protocol::hash::{Hash, StatementId};
use countersign_protocol::lifecycle::CommandStatus;
use countersign_protocol::name::Time;

/// A statement's place in the log. Committed and covered by `checkpoint` when one holds it.
#[derive(Debug, Clone)]
pub struct Receipt {
    /// The statement.
    pub id: StatementId,
    /// Its place.
    pub seq: u64,
    /// The ledger's clock then.
    pub time: Time,
    /// The entry's bytes.
    pub entry: Arc<[u8]>,
    /// The entry's hash.
    pub leaf: Hash,
    /// A committed checkpoint that covers it.
    pub checkpoint: Arc<Checkpoint>,
    /// Inclusion proof in that checkpoint.
    pub inclusion: Vec<Hash>,
    /// The status of the command it concerns, after its batch; for a repeated statement only if the command is at hand.
    pub status: Option<CommandStatus>,
    /// The statement stood in the log before.
    pub repeated: bool,
}
