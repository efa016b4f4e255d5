//! Blobs on their way into the database: what waits at the same time goes in together.
//!
//! Each statement brings a blob or a few, and a transaction of its own for each would cost Postgres
//! more than the log itself. Storing twice is harmless, so a failure is told to all who waited.

use std::collections::BTreeMap;
use std::sync::Arc;

use countersign_protocol::blob::Blob;
use countersign_protocol::hash::Digest;
use sqlx::PgPool;
use tokio::sync::{Mutex, mpsc, oneshot};

use super::store;

/// Submissions that go in together: as many as in a batch of the writer.
const TOGETHER: usize = 512;

/// Content that goes in together; one blob may be as large by itself.
const TOGETHER_BYTES: usize = 4 * 1024 * 1024;

/// Tasks that store: a second one gathers, and passes a large blob, while the first waits.
const TASKS: usize = 2;

/// The blobs of one submission, and who waits for them.
type Waiting = (BTreeMap<Digest, Blob>, oneshot::Sender<bool>);

/// Stores blobs. Cheap to clone; its tasks end with the last clone.
#[derive(Debug, Clone)]
pub(super) struct BlobStore(mpsc::Sender<Waiting>);

impl BlobStore {
    /// Starts the tasks that store through this pool.
    pub(super) fn start(pool: &PgPool) -> Self {
        let (sender, waiting) = mpsc::channel(TOGETHER);
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..TASKS {
            tokio::spawn(run(pool.clone(), Arc::clone(&waiting)));
        }
        Self(sender)
    }

    /// Stores blobs, and says whether they are there now. See [`store::insert_blobs`].
    pub(super) async fn store(&self, blobs: BTreeMap<Digest, Blob>) -> bool {
        let (answer, answered) = oneshot::channel();
        let sent = self.0.send((blobs, answer)).await;
        sent.is_ok() && answered.await.unwrap_or(false)
    }
}

async fn run(pool: PgPool, waiting: Arc<Mutex<mpsc::Receiver<Waiting>>>) {
    loop {
        // One task gathers at a time; the others store meanwhile.
        let gathered = gather(&mut *waiting.lock().await).await;
        let Some((blobs, answers)) = gathered else {
            return;
        };
        let stored = store::insert_blobs(&pool, &blobs).await;
        if let Err(error) = &stored {
            tracing::warn!(%error, "blobs could not be stored");
        }
        for answer in answers {
            let _gone = answer.send(stored.is_ok());
        }
    }
}

/// Waits for one submission and takes those that wait behind it. Nothing when all senders are gone.
///
/// By digest, so in one order: two tasks that store the same blobs cannot wait for each other.
async fn gather(
    waiting: &mut mpsc::Receiver<Waiting>,
) -> Option<(BTreeMap<Digest, Blob>, Vec<oneshot::Sender<bool>>)> {
    let (mut blobs, answer) = waiting.recv().await?;
    let mut answers = vec![answer];
    let size = |blobs: &BTreeMap<Digest, Blob>| -> usize {
        blobs.values().map(|blob| blob.content().len()).sum()
    };
    let mut bytes = size(&blobs);
    while answers.len() < TOGETHER && bytes < TOGETHER_BYTES {
        let Ok((more, answer)) = waiting.try_recv() else {
            break;
        };
        bytes += size(&more);
        blobs.extend(more);
        answers.push(answer);
    }
    Some((blobs, answers))
}
