//! The streams of many commands by a few calls. Each is proved as one that was fetched alone: by its own
//! bytes, and under the id that was asked for in its place.

use countersign_protocol::api::{StreamPart, StreamsBody, StreamsRequest};
use countersign_protocol::checkpoint::Checkpoint;
use countersign_protocol::fold::Stream;
use countersign_protocol::hash::{CommandId, LedgerId};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::connect::Client;
use crate::failure::Failure;
use crate::streams::{ProvenStream, StreamError};

/// Where they are read.
const ENTRIES: &str = "/v1/commands/entries";

/// Streams that one call asks for: a quarter of a page, so that some are checked while the server proves
/// the next ones.
const EACH_CALL: usize = 50;

/// Calls under way at a time: a page of them, and a core for each where there are so many.
const CALLS_AT_ONCE: usize = 4;

impl Client {
    /// The entries of these commands, proven, in the order of the ids, without what hosts wrote.
    ///
    /// # Errors
    /// Unreachable, not allowed, or evidence of tampering.
    pub(super) async fn bare_commands(
        &self,
        ids: &[CommandId],
    ) -> Result<Vec<ProvenStream>, Failure> {
        let calls = ids.chunks(EACH_CALL).map(|ids| self.some(ids.to_vec()));
        let calls: Vec<_> = calls.collect();
        stream::iter(calls)
            .buffered(CALLS_AT_ONCE)
            .try_concat()
            .await
    }

    /// Asks until all of them are there: a server gives at a time what fits into an answer.
    async fn some(&self, ids: Vec<CommandId>) -> Result<Vec<ProvenStream>, Failure> {
        let mut found = Vec::with_capacity(ids.len());
        while let Some(rest) = ids.get(found.len()..).filter(|rest| !rest.is_empty()) {
            let request = StreamsRequest {
                ids: rest.iter().map(ToString::to_string).collect(),
            };
            let body: StreamsBody = self.ask(ENTRIES, &request).await?;
            if body.streams.len() > rest.len() {
                return Err(Failure::unreachable(
                    "malformed",
                    "the server answered with more commands than were asked for",
                ));
            }
            let asked = rest.iter().copied().zip(body.streams).collect();
            let (checkpoint, _standing) = self.believe(&body.checkpoint).await?;
            let proven = verified(asked, checkpoint, self.ledger()).await?;
            // One that gives nothing would be asked for ever.
            if proven.is_empty() {
                return Err(StreamError::Beginning.into());
            }
            found.extend(proven);
        }
        Ok(found)
    }
}

/// Verifies on a thread of its own, so that several answers take several cores.
async fn verified(
    asked: Vec<(CommandId, StreamPart)>,
    checkpoint: Checkpoint,
    ledger: LedgerId,
) -> Result<Vec<ProvenStream>, Failure> {
    let verify = move || -> Result<Vec<ProvenStream>, StreamError> {
        let one = |(id, part)| {
            ProvenStream::verify(part, checkpoint.clone(), Stream::Command(id), ledger)
        };
        asked.into_iter().map(one).collect()
    };
    let done = tokio::task::spawn_blocking(verify).await;
    let done = done.map_err(|_| {
        Failure::failed(
            "verification",
            "the verification of what the server gave broke off",
        )
        .hint("this is a fault of the client; nothing was shown or signed")
    })?;
    Ok(done?)
}
