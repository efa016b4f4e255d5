//! Logs that are trees in memory, and a witness that watches them.

use std::path::Path;

use countersign::clock::Clock;
use countersign::keys;
use countersign::witness::{Options, StartError, Witness};
use countersign_protocol::checkpoint::{Checkpoint, CheckpointBody, VerifierKey};
use countersign_protocol::cosignature::WitnessKey;
use countersign_protocol::merkle::{self, Tree};
use countersign_protocol::proof;
use countersign_protocol::witness::AddCheckpoint;
use ed25519_dalek::SigningKey;
use reqwest::Response;
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) const WITNESS: &str = "witness.example.com/w1";

/// A log, or another view of one: the same key over other leaves.
pub(crate) struct Log {
    pub(crate) key: SigningKey,
    pub(crate) verifier: VerifierKey,
    tree: Tree,
}

impl Log {
    /// A log of this name whose leaves differ from `changed` on by what `view` says.
    pub(crate) fn new(name: &str, view: u8, changed: u64, size: u64) -> Self {
        let key = SigningKey::from_bytes(&[77; 32]);
        let public = key.verifying_key().to_bytes();
        let verifier = VerifierKey::new(name.parse().unwrap(), public).unwrap();
        let mut tree = Tree::default();
        for n in 0..size {
            let view = if n < changed { 0 } else { view };
            tree.push(merkle::leaf_hash(&[&[view][..], &n.to_be_bytes()].concat()));
        }
        Self {
            key,
            verifier,
            tree,
        }
    }

    pub(crate) fn honest(size: u64) -> Self {
        Self::new("log.example.com", 0, 0, size)
    }

    pub(crate) fn checkpoint(&self, size: u64) -> Checkpoint {
        let body = CheckpointBody {
            origin: self.verifier.origin().clone(),
            size,
            root: self.tree.root_at(size).unwrap(),
        };
        Checkpoint::sign(body, &self.key)
    }

    /// What the log asks of a witness that knows `old`.
    pub(crate) fn request(&self, old: u64, new: u64) -> AddCheckpoint {
        let proof = if old == 0 {
            Vec::new()
        } else {
            proof::consistency_proof(&self.tree, old, new).unwrap_or_default()
        };
        AddCheckpoint {
            old,
            proof,
            note: self.checkpoint(new).note().to_owned(),
        }
    }
}

/// Writes the witness's key where it is read from.
pub(crate) fn write_key(folder: &Path, seed: u8) -> WitnessKey {
    let key = SigningKey::from_bytes(&[seed; 32]);
    keys::write_new(&folder.join("witness.key"), &key, "witness").unwrap();
    WitnessKey::of(&WITNESS.parse().unwrap(), &key)
}

/// A witness in this process.
pub(crate) struct Running {
    pub(crate) url: String,
    pub(crate) key: WitnessKey,
    _stop: DropGuard,
}

/// Starts a witness whose key and state are in `folder`.
pub(crate) async fn start(folder: &Path, logs: &[&Log]) -> Result<Running, StartError> {
    let keys = logs.iter().map(|log| log.verifier.clone());
    start_for(folder, keys.collect()).await
}

/// As [`start`], for logs of which only the keys are known.
pub(crate) async fn start_for(
    folder: &Path,
    logs: Vec<VerifierKey>,
) -> Result<Running, StartError> {
    let stop = CancellationToken::new();
    let options = Options {
        name: WITNESS.parse().unwrap(),
        key: folder.join("witness.key"),
        state: folder.join("state"),
        logs,
        listen: "127.0.0.1:0".parse().unwrap(),
        tls: None,
        behind_proxy: false,
        clock: Clock::system(),
    };
    let witness = Witness::start(options, stop.clone()).await?;
    let (url, key) = (
        format!("http://{}", witness.address()),
        witness.key().clone(),
    );
    tokio::spawn(witness.run());
    let stop = stop.drop_guard();
    Ok(Running {
        url,
        key,
        _stop: stop,
    })
}

pub(crate) fn client() -> reqwest::Client {
    let _second = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

pub(crate) async fn ask(url: &str, body: &impl ToString) -> Response {
    let call = client().post(format!("{url}/add-checkpoint"));
    call.body(body.to_string()).send().await.unwrap()
}

/// Status and text of an answer.
pub(crate) async fn answer(url: &str, body: &impl ToString) -> (u16, String) {
    let answer = ask(url, body).await;
    (answer.status().as_u16(), answer.text().await.unwrap())
}
