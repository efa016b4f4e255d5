//! Asks one witness to sign a checkpoint, by C2SP tlog-witness, and checks what comes back.
//!
//! It must not decide whose word is enough.

use std::error::Error as _;
use std::sync::atomic::{AtomicU64, Ordering};

use countersign_protocol::checkpoint::{Checkpoint, CheckpointError, MAX_NOTE_BYTES};
use countersign_protocol::cosignature::Cosignature;
use countersign_protocol::hash::Hash;
use countersign_protocol::proof;
use countersign_protocol::witness::{AddCheckpoint, SIZE_CONTENT_TYPE, parse_size};
use countersign_protocol::witness_policy::Witness;
use reqwest::{Client, Response, StatusCode, header};
use sqlx::PgPool;

use crate::ledger::store;

/// How often one round may tell a witness's size anew: once to learn it, once more when others of
/// our servers were faster.
const TRIES: usize = 3;

/// Characters of a witness's own words that are logged.
const WORDS: usize = 200;

/// One witness, and what it is believed to know.
#[derive(Debug)]
pub(super) struct Courier {
    http: Client,
    witness: Witness,
    url: String,
    /// The size that it signed last, as far as is known here.
    size: AtomicU64,
}

/// Why there is no cosignature.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    /// It does not answer.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    /// It answers what the protocol does not have.
    #[error("it answered {status}: {words}")]
    Refused {
        /// Its status.
        status: u16,
        /// The beginning of what it said.
        words: String,
    },
    /// Its answer is no cosignature of it.
    #[error("its answer does not hold: {0}")]
    Answer(CheckpointError),
    /// Lines, but none of its own.
    #[error("its answer has no line by the key that the policy names")]
    NoLine,
    /// It was told the right size and says the same again, or a proof from that size leads elsewhere.
    #[error("it has signed another history of {0} entries than this server has")]
    OtherHistory(u64),
    /// It knows a longer log than the one that was shown.
    #[error("it has signed {0} entries already")]
    Ahead(u64),
    /// The proof could not be made.
    #[error("no proof could be made: {0}")]
    NoProof(String),
}

impl Courier {
    pub(super) fn new(http: Client, witness: Witness, url: String) -> Self {
        Self {
            http,
            witness,
            url: format!("{url}/add-checkpoint"),
            size: AtomicU64::new(0),
        }
    }

    /// What the policy calls it.
    pub(super) fn name(&self) -> &str {
        &self.witness.name
    }

    /// Has a checkpoint signed.
    pub(super) async fn ask(
        &self,
        pool: &PgPool,
        target: &Checkpoint,
    ) -> Result<Cosignature, AskError> {
        for _try in 0..TRIES {
            let old = self.size.load(Ordering::Relaxed);
            if old > target.size() {
                // It may have been told wrong, by an answer that nobody signed.
                self.size.store(0, Ordering::Relaxed);
                return Err(AskError::Ahead(old));
            }
            let request = AddCheckpoint {
                old,
                proof: prove(pool, old, target.size()).await?,
                note: target.note().to_owned(),
            };
            let sent = self.http.post(&self.url).body(request.to_string()).send();
            let answer = sent.await.map_err(unreachable)?;
            let status = answer.status();
            let is_size = answer.headers().get(header::CONTENT_TYPE);
            let is_size = is_size.is_some_and(|kind| kind == SIZE_CONTENT_TYPE);
            let text = read(answer).await?;
            if status == StatusCode::OK {
                let found = self.witness.key.find(target.body(), text.lines());
                let line = found.map_err(AskError::Answer)?.ok_or(AskError::NoLine)?;
                self.size.store(target.size(), Ordering::Relaxed);
                return Ok(line);
            }
            // From the size that it knows, and made from what this server has: to a witness of this
            // history it leads.
            if status == StatusCode::UNPROCESSABLE_ENTITY && old > 0 {
                return Err(AskError::OtherHistory(old));
            }
            let known = (status == StatusCode::CONFLICT && is_size)
                .then(|| text.strip_suffix('\n').and_then(parse_size))
                .flatten();
            match known {
                Some(known) if known == old => return Err(AskError::OtherHistory(known)),
                Some(known) => self.size.store(known, Ordering::Relaxed),
                None => {
                    return Err(AskError::Refused {
                        status: status.as_u16(),
                        words: text.chars().take(WORDS).collect(),
                    });
                }
            }
        }
        Err(AskError::Refused {
            status: StatusCode::CONFLICT.as_u16(),
            words: "another size each time".to_owned(),
        })
    }
}

async fn prove(pool: &PgPool, old: u64, new: u64) -> Result<Vec<Hash>, AskError> {
    if old == 0 || old == new {
        return Ok(Vec::new());
    }
    let failed = |error: sqlx::Error| AskError::NoProof(error.to_string());
    let mut connection = pool.acquire().await.map_err(failed)?;
    let wanted = proof::nodes_for_consistency(old, new);
    let nodes = store::nodes(&mut connection, &wanted).await;
    let nodes = nodes.map_err(failed)?;
    proof::consistency_proof(&nodes, old, new)
        .ok_or_else(|| AskError::NoProof("nodes of the tree are missing".to_owned()))
}

/// An answer's text; more than any note has is not read.
async fn read(mut answer: Response) -> Result<String, AskError> {
    let mut bytes = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(unreachable)? {
        if bytes.len() + piece.len() > MAX_NOTE_BYTES {
            return Err(AskError::Answer(CheckpointError::TooLarge));
        }
        bytes.extend_from_slice(&piece);
    }
    String::from_utf8(bytes).map_err(|_| AskError::Answer(CheckpointError::Malformed("no text")))
}

/// The innermost cause: the error itself only says "error sending request".
fn unreachable(error: reqwest::Error) -> AskError {
    let mut cause: &dyn std::error::Error = &error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    if error.is_timeout() {
        return AskError::Unreachable("it does not answer in time".to_owned());
    }
    AskError::Unreachable(
        error
            .source()
            .map_or_else(|| error.to_string(), |_| cause.to_string()),
    )
}
