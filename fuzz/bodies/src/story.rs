//! The ledger behind the seeds: its entries, the grants made of it, and what of it may run.
//!
//! `story.json` is written by `tests/seeds.rs` from the same ledger in memory that the agent's own
//! tests use; the keys are the name of their holder, filled up with zeros.

use std::sync::{Arc, OnceLock};

use countersign_agent::admission::{Host, Pins};
use countersign_agent::config::{Config, Variables};
use countersign_agent::own::OwnFacts;
use countersign_agent::rules::{Account, Directory, RunAs};
use countersign_agent::signers::AllowedSigners;
use countersign_protocol::api::{Base64, BlobBody, Grant};
use countersign_protocol::checkpoint::VerifierKey;
use countersign_protocol::key::PublicKey;
use countersign_protocol::name::Time;
use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};

/// The host's clock while it decides, in microseconds: some seconds after the grants were made.
pub(crate) const NOW: u64 = 1_800_000_010_000_000;

/// What one grant would run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runs {
    /// All arguments.
    pub argv: Vec<String>,
    /// Variables and values.
    pub env: Vec<(String, String)>,
    /// Standard input.
    pub stdin: String,
}

/// The ledger and its grants.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Story {
    /// Every entry.
    pub entries: Vec<Base64>,
    /// Every blob.
    pub blobs: Vec<BlobBody>,
    /// What each command's grant says, and what it runs; none when it must never run here.
    pub grants: Vec<(Grant, Option<Runs>)>,
}

/// The story that the seeds tell.
pub fn story() -> &'static Story {
    static STORY: OnceLock<Story> = OnceLock::new();
    STORY.get_or_init(|| serde_json::from_str(include_str!("story.json")).unwrap())
}

pub(crate) fn key(name: &str) -> SigningKey {
    let mut seed = [0; 32];
    seed[..name.len()].copy_from_slice(name.as_bytes());
    SigningKey::from_bytes(&seed)
}

pub(crate) fn public(name: &str) -> PublicKey {
    PublicKey::of(&key(name))
}

/// The pinned key of the ledger's checkpoints.
pub(crate) fn vkey() -> &'static VerifierKey {
    static VKEY: OnceLock<VerifierKey> = OnceLock::new();
    VKEY.get_or_init(|| {
        let origin = "ledger.example.com".parse().unwrap();
        VerifierKey::of(&origin, &public("checkpoint")).unwrap()
    })
}

pub(crate) fn time(micros: u64) -> Time {
    Time::from_micros(micros).unwrap()
}

/// The host of the seeds, which pins alice, bob and carol and asks for two of them.
pub(crate) fn host() -> &'static Host {
    static HOST: OnceLock<Host> = OnceLock::new();
    HOST.get_or_init(|| {
        let config = config(include_str!("agent.toml"));
        Host {
            pins: Pins {
                ledger: config.ledger,
                statement_key: public("ledger"),
                gateway_key: Some(public("gateway")),
                agent: config.name,
                key_id: public("web-1").key_id(),
            },
            signers: config.signers,
            rules: config.rules,
            journal_since: time(1),
            snapshot: None,
            snapshots: Arc::default(),
            max_checkpoint_age_us: None,
            facts: OwnFacts::Silent,
        }
    })
}

/// A configuration whose account is the same on every machine.
pub(crate) fn config(text: &str) -> Config {
    let signers = include_str!("allowed_signers");
    let read = |_path| Ok(AllowedSigners::parse(signers).unwrap());
    let path = "/etc/countersign/agent.toml".as_ref();
    let mut config = Config::of_text(path, text, Variables::default(), read).unwrap();
    config.rules.account = Account {
        uid: 1000,
        gid: 1000,
        name: Some("agent".into()),
        default_user: None,
        users: None,
        run_as: RunAs::Setuid,
        directory: Directory::These(vec![]),
    };
    config
}
