//! Rounds over all witnesses, and the newest note that a quorum has signed.
//!
//! It owns the published note and its file, which never go back. It must not keep anything waiting.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use countersign_protocol::checkpoint::{Checkpoint, CheckpointError};
use countersign_protocol::cosignature::Cosignature;
use countersign_protocol::witness_policy::{PolicyError, WitnessPolicy};
use reqwest::Client;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::courier::{AskError, Courier};
use crate::durable;
use crate::ledger::{Ledger, OpenError};

/// How long a witness may take for one request: it waits for its disk.
const ANSWER: Duration = Duration::from_secs(10);

/// How long those beyond the quorum are waited for.
const GRACE: Duration = Duration::from_secs(1);

/// Between two rounds: a busy ledger has ten checkpoints a second, and each round asks all witnesses.
const PAUSE: Duration = Duration::from_secs(1);

/// The longest wait after rounds without a quorum.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// What the file's name adds to that of the checkpoint file.
const SUFFIX: &str = "-cosigned";

/// The policy, its witnesses, and the newest note that they have signed.
#[derive(Debug)]
pub struct Cosigned {
    ledger: Ledger,
    policy: WitnessPolicy,
    /// With the place of each in the policy.
    couriers: Vec<(usize, Arc<Courier>)>,
    file: PathBuf,
    newest: watch::Sender<Option<Arc<Checkpoint>>>,
    /// What was last said of each witness in trouble, so that it is said once.
    troubles: Mutex<BTreeMap<usize, String>>,
}

/// Why cosignatures cannot be collected.
#[derive(Debug, thiserror::Error)]
pub enum CosignedError {
    /// A file.
    #[error("cannot use {path}: {source}", path = path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The policy's text.
    #[error("{path}: {source}", path = path.display())]
    Policy {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: PolicyError,
    },
    /// It is about others.
    #[error(
        "the witness policy names other logs than this ledger; add `log {0}` to it, or leave its log lines out"
    )]
    OtherLog(String),
    /// Nobody could ever meet it.
    #[error(
        "the witness policy's quorum can never be met here: of the witnesses it needs, too few have an address; end their lines with one, as in `witness NAME VKEY https://witness.example.org`"
    )]
    NoWay,
    /// The kept note.
    #[error("the cosigned checkpoint {path}: {source}", path = path.display())]
    Note {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: CheckpointError,
    },
    /// The database does not continue what witnesses have signed.
    #[error("what witnesses have signed of this ledger and its database do not fit together: {0}")]
    Ledger(#[from] OpenError),
    /// TLS.
    #[error("no connections to witnesses can be made: {0}")]
    Setup(reqwest::Error),
}

impl Cosigned {
    /// Reads the policy and the note that was published last.
    ///
    /// # Errors
    /// See [`CosignedError`]. A database that does not continue the published note is evidence.
    pub async fn open(
        policy: &Path,
        checkpoint_file: &Path,
        ledger: Ledger,
    ) -> Result<Self, CosignedError> {
        let text = fs::read_to_string(policy).map_err(|source| CosignedError::Io {
            path: policy.to_path_buf(),
            source,
        })?;
        let policy: WitnessPolicy = text.parse().map_err(|source| CosignedError::Policy {
            path: policy.to_path_buf(),
            source,
        })?;
        if !policy.is_about(ledger.verifier()) {
            return Err(CosignedError::OtherLog(ledger.verifier().to_string()));
        }
        let with_url = policy.witnesses().iter().enumerate();
        let with_url = with_url.filter_map(|(place, one)| Some((place, one, one.url.clone()?)));
        let with_url: Vec<_> = with_url.collect();
        let places: BTreeSet<usize> = with_url.iter().map(|(place, ..)| *place).collect();
        if !policy.is_met(&places) {
            return Err(CosignedError::NoWay);
        }
        let needs_tls = with_url.iter().any(|(.., url)| url.starts_with("https:"));
        let http = client(needs_tls).map_err(CosignedError::Setup)?;
        let couriers = with_url.into_iter().map(|(place, witness, url)| {
            let courier = Courier::new(http.clone(), witness.clone(), url);
            (place, Arc::new(courier))
        });
        let couriers = couriers.collect();
        let file = beside(checkpoint_file);
        let kept = read(&file, &policy, &ledger).await?;
        Ok(Self {
            ledger,
            policy,
            couriers,
            file,
            newest: watch::Sender::new(kept.map(Arc::new)),
            troubles: Mutex::default(),
        })
    }

    /// The newest note that a quorum has signed; none before the first.
    #[must_use]
    pub fn newest(&self) -> Option<Arc<Checkpoint>> {
        self.newest.borrow().clone()
    }

    /// Asks again whenever the ledger has moved, until `shutdown`.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let rounds = self.rounds();
        shutdown.run_until_cancelled(rounds).await;
    }

    async fn rounds(&self) {
        let mut log = self.ledger.watch();
        let mut wait = PAUSE;
        loop {
            let target = Arc::clone(&log.borrow_and_update());
            if self.round(&target).await {
                wait = PAUSE;
                sleep(PAUSE).await;
                if log.changed().await.is_err() {
                    return;
                }
            } else {
                tracing::warn!(
                    size = target.size(),
                    again_in_s = wait.as_secs(),
                    "no quorum of witnesses has signed the newest checkpoint; the ledger goes on without"
                );
                sleep(wait).await;
                wait = (wait * 2).min(LONGEST_WAIT);
            }
        }
    }

    /// Asks all witnesses for one checkpoint; says whether a quorum has signed and it is published.
    async fn round(&self, target: &Arc<Checkpoint>) -> bool {
        let mut asked = JoinSet::new();
        for (place, courier) in &self.couriers {
            let (place, courier) = (*place, Arc::clone(courier));
            let (pool, target) = (self.ledger.pool().clone(), Arc::clone(target));
            asked.spawn(async move { (place, courier.ask(&pool, &target).await) });
        }
        let mut lines: BTreeMap<usize, Cosignature> = BTreeMap::new();
        let mut published = 0;
        let mut met_at = None;
        loop {
            let signed: BTreeSet<usize> = lines.keys().copied().collect();
            if met_at.is_none() && self.policy.is_met(&signed) {
                if !self.publish(target, &lines).await {
                    return false;
                }
                (met_at, published) = (Some(Instant::now()), lines.len());
            }
            let until = met_at.map(|at| at + GRACE);
            let next = tokio::select! {
                next = asked.join_next() => next,
                () = until_then(until) => None,
            };
            match next {
                Some(Ok((place, answer))) => {
                    self.tell(place, answer.as_ref().err());
                    lines.extend(answer.ok().map(|line| (place, line)));
                }
                Some(Err(error)) => tracing::error!(%error, "asking a witness broke"),
                None => break,
            }
        }
        if met_at.is_some() && lines.len() > published {
            return self.publish(target, &lines).await;
        }
        met_at.is_some()
    }

    /// Keeps a note with its cosignatures, and only then shows it.
    async fn publish(&self, target: &Checkpoint, lines: &BTreeMap<usize, Cosignature>) -> bool {
        let texts = lines.values().map(Cosignature::line);
        let note = match target.with_lines(texts) {
            Ok(note) => Arc::new(note),
            Err(error) => {
                tracing::error!(%error, "the cosigned checkpoint is larger than any");
                return false;
            }
        };
        let (path, text) = (self.file.clone(), note.note().to_owned());
        let kept = tokio::task::spawn_blocking(move || durable::replace(&path, text.as_bytes()));
        match kept.await {
            Ok(Ok(())) => {
                self.newest.send_replace(Some(note));
                true
            }
            Ok(Err(error)) => {
                tracing::error!(%error, file = %self.file.display(), "the cosigned checkpoint cannot be kept, so it is not shown");
                false
            }
            Err(error) => {
                tracing::error!(%error, "the cosigned checkpoint could not be written");
                false
            }
        }
    }

    /// Says what is wrong with a witness, once, and that it is well again.
    fn tell(&self, place: usize, trouble: Option<&AskError>) {
        let courier = self.couriers.iter().find(|(one, _)| *one == place);
        let witness = courier.map_or("", |(_, courier)| courier.name());
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(error) = trouble else {
            if troubles.remove(&place).is_some() {
                tracing::info!(witness, "the witness signs again");
            }
            return;
        };
        let newest = self.ledger.newest().size();
        let (is_evidence, kind) = match error {
            AskError::OtherHistory(_) => (true, "other history".to_owned()),
            AskError::Ahead(size) if *size > newest => (true, "ahead".to_owned()),
            // Another server of this ledger was faster; the next round is larger.
            AskError::Ahead(_) => return,
            AskError::Unreachable(_)
            | AskError::Refused { .. }
            | AskError::Answer(_)
            | AskError::NoLine
            | AskError::NoProof(_) => (false, error.to_string()),
        };
        if troubles.insert(place, kind.clone()).as_ref() == Some(&kind) {
            return;
        }
        if is_evidence {
            tracing::error!(
                witness, %error, newest,
                "a witness knows another history of this ledger than this server: was the database rolled back, or is the ledger's key used elsewhere? Compare with the witness's operator before anything else"
            );
        } else {
            tracing::warn!(witness, %error, "a witness does not sign");
        }
    }
}

async fn until_then(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}

fn client(needs_tls: bool) -> Result<Client, reqwest::Error> {
    // Another part of the process may have installed the same one before.
    drop(rustls::crypto::ring::default_provider().install_default());
    let builder = Client::builder()
        .timeout(ANSWER)
        .redirect(reqwest::redirect::Policy::none());
    if needs_tls {
        builder.build()
    } else {
        // Without TLS no roots are needed, and a bare machine has none.
        builder.tls_certs_only(Vec::new()).build()
    }
}

fn beside(checkpoint_file: &Path) -> PathBuf {
    let mut name = checkpoint_file.file_name().unwrap_or_default().to_owned();
    name.push(SUFFIX);
    checkpoint_file.with_file_name(name)
}

/// The note that was published last. One that this policy would not publish is left out.
async fn read(
    file: &Path,
    policy: &WitnessPolicy,
    ledger: &Ledger,
) -> Result<Option<Checkpoint>, CosignedError> {
    let path = file.to_path_buf();
    let note = match fs::read_to_string(file) {
        Ok(note) => note,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(CosignedError::Io { path, source }),
    };
    let kept = Checkpoint::open(&note, ledger.verifier());
    let kept = kept.map_err(|source| CosignedError::Note { path, source })?;
    ledger.continues(&kept).await?;
    match policy.check(&kept, |_at| true) {
        Ok(()) => Ok(Some(kept)),
        Err(error) => {
            tracing::warn!(%error, "the policy has changed; the cosigned checkpoint waits for a quorum of it");
            Ok(None)
        }
    }
}
