//! Delivery of a run's output: from the journal to the ledger, in order, each chunk once.
//!
//! It owns the batches and what an answer means for them. A chunk is forgotten once its receipt
//! was checked. It must not sign anything, and it never touches the agent's own chain.

use std::sync::Arc;

use countersign_protocol::api::{Answer, MAX_BATCH, Submission};
use countersign_protocol::hash::StatementId;
use tokio::sync::Notify;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

use crate::client::{Backoff, ClientError};
use crate::spool::Record;
use crate::station::{AgentError, Behind, Heed, Station, tolerate};

/// Output in one request: with base64 and entries it stays below the largest body.
const MAX_BATCH_BYTES: usize = 4 << 20;

impl Station {
    /// Delivers what is written down, whenever there is something, until the run is over.
    pub(crate) async fn deliver_while(
        &self,
        started: StatementId,
        written: &Notify,
        over: &CancellationToken,
    ) -> Result<(), AgentError> {
        loop {
            tokio::select! {
                () = written.notified() => {}
                () = over.cancelled() => return Ok(()),
            }
            while self.spool.pending_count(&started) > 0 {
                if !self.deliver_batch(started).await? {
                    return Ok(());
                }
            }
        }
    }

    /// Delivers all output of a run that is written down; false when the agent is stopping.
    pub(crate) async fn deliver_pending(&self, started: StatementId) -> Result<bool, AgentError> {
        while self.spool.pending_count(&started) > 0 {
            if !self.deliver_batch(started).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Delivers the oldest chunks until at least one is in the log; false when the agent stops.
    async fn deliver_batch(&self, started: StatementId) -> Result<bool, AgentError> {
        let (mut backoff, mut behind) = (Backoff::for_server(), Behind::default());
        loop {
            let batch = self.oldest(started).await?;
            let sent = tokio::select! {
                () = self.give_up.cancelled() => return Ok(false),
                sent = self.client.submit_batch(&batch) => sent,
            };
            match sent {
                Ok(answers) => {
                    let progress = self
                        .take_answers((started, &mut behind), &batch, answers)
                        .await?;
                    if progress {
                        return Ok(true);
                    }
                }
                Err(ClientError::Refused(problem)) => {
                    if self.heed(&problem, &mut behind).await? == Heed::Answered {
                        tracing::error!(code = problem.code, "the ledger refused a run's output");
                        self.write_down(vec![Record::Broken { started }]).await?;
                        return Ok(true);
                    }
                }
                Err(error) => tracing::warn!(%error, "output is not delivered yet"),
            }
            if !self.pause(&mut backoff).await {
                return Ok(false);
            }
        }
    }

    /// Reads the oldest chunks from the journal, on a thread that may block.
    async fn oldest(&self, started: StatementId) -> Result<Vec<Arc<Submission>>, AgentError> {
        let spool = Arc::clone(&self.spool);
        let read = tokio::task::spawn_blocking(move || {
            spool.pending(&started, MAX_BATCH, MAX_BATCH_BYTES)
        });
        Ok(read.await.map_err(died)??)
    }

    /// Lets go of what was delivered, once it is worth it.
    async fn tidy(&self) -> Result<(), AgentError> {
        let (spool, now) = (Arc::clone(&self.spool), self.clock.now());
        let compacted = tokio::task::spawn_blocking(move || spool.compact(now));
        compacted.await.map_err(died)??;
        Ok(())
    }

    /// Writes down what was delivered; whether anything was, or can never be.
    async fn take_answers(
        &self,
        (started, behind): (StatementId, &mut Behind),
        batch: &[Arc<Submission>],
        answers: Vec<Answer>,
    ) -> Result<bool, AgentError> {
        let mut chunks = 0_u64;
        let mut records = Vec::new();
        for (submission, answer) in batch.iter().zip(answers) {
            match answer {
                Answer::Receipt(receipt) => {
                    let id = submission.statement().map(|statement| statement.id());
                    let id = id.unwrap_or(StatementId::ZERO);
                    if let Err(error) = self.view.check_receipt(&receipt, id) {
                        tolerate(error)?;
                        break;
                    }
                    chunks = chunks.saturating_add(1);
                }
                // Worth another try, as the status of the same name is.
                Answer::Problem(problem) if matches!(problem.status, 408 | 429 | 500..) => break,
                Answer::Problem(problem) => {
                    if self.heed(&problem, behind).await? == Heed::Answered {
                        tracing::error!(code = problem.code, "the ledger refused a run's output");
                        records.push(Record::Broken { started });
                    }
                    break;
                }
            }
        }
        if chunks > 0 {
            records.insert(0, Record::Delivered { started, chunks });
        }
        let progress = !records.is_empty();
        if progress {
            self.write_down(records).await?;
            self.tidy().await?;
        }
        Ok(progress)
    }
}

fn died(error: JoinError) -> AgentError {
    AgentError::Task(error.to_string())
}
