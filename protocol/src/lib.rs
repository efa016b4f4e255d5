//! What every party of a countersign ledger must agree on: the bytes and the rules.
//!
//! Pure by construction: no clock, no randomness, no file, no socket, no async. Time, nonces and
//! keys come in as values. `docs/PROTOCOL.md` says the same in prose.
//!
//! | room | files |
//! |---|---|
//! | bytes | [`canonical`] [`hash`] [`short`] [`name`] [`origin`] [`key`] [`sshsig`] [`blob`] [`statement`] [`entry`] [`event`] |
//! | trees | [`merkle`] [`proof`] [`tlog_proof`] [`checkpoint`] [`target`] [`tile`] |
//! | witnesses | [`cosignature`] what a witness says, [`witness_policy`] whose word is enough, [`witness`] how it is asked |
//! | acts | [`command`] [`facts`] [`policy`] [`judgement`] [`quorum`] [`permission`] [`snapshot`] [`secret`] |
//! | rules | [`rights`] who may sign, [`lifecycle`] what may follow, [`rollout`] how it goes over many hosts, [`fold`] both over the log, [`erasure`] what may be erased, [`refusal`] why not, [`effect`] what the ledger says then |
//! | proof | [`audit`] entries in, the first bad one and why out |
//! | reading | [`search`] what is searched for, [`subject`] what an entry is about, [`view`] the fold as rows of lists, [`visible`] foreign text made safe to show |
//! | tokens | [`token`] the secret of an API token |
//! | wire | [`api`] the bodies that travel over HTTP |
#![cfg_attr(not(feature = "openapi"), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod api;
pub mod audit;
pub mod blob;
pub mod canonical;
pub mod checkpoint;
pub mod command;
pub mod cosignature;
pub mod effect;
pub mod entry;
pub mod erasure;
pub mod event;
pub mod facts;
pub mod fold;
pub mod hash;
pub mod judgement;
pub mod key;
pub mod lifecycle;
pub mod merkle;
pub mod name;
pub mod origin;
pub mod permission;
pub mod policy;
pub mod proof;
pub mod quorum;
pub mod refusal;
pub mod retry;
pub mod rights;
pub mod rollout;
pub mod search;
pub mod secret;
pub mod short;
pub mod snapshot;
pub mod sshsig;
pub mod statement;
pub mod subject;
pub mod target;
pub mod tile;
pub mod tlog_proof;
pub mod token;
pub mod view;
pub mod visible;
mod wire;
pub mod witness;
pub mod witness_policy;
