//! What every parser of the agent and of the verifier promises about any bytes, one function a fuzz
//! target.
//!
//! | file | promises about |
//! |---|---|
//! | `admission` | a grant as it comes from the server, and one by a thief of the ledger's keys |
//! | `wire` | the event stream, answers of the server, proofs |
//! | `statements` | signatures, entries, payloads, documents, notes, keys |
//! | `rights` | changes of rights, requirements and their counting |
//! | `files` | `agent.toml`, `allowed_signers`, rules, patterns, the agent's key |
//! | `secrets` | the document of sealed secrets, and what is sealed |
//! | `journal` | the journal's file and its records |
//! | `bundles` | evidence bundles and the proofs in them |
//! | `witnesses` | what witnesses are asked and answer, their policies, places of tiles |
//! | `story` | the ledger behind the seeds: what is true, and what may run |
//! | `bytes` | reading decisions from a fuzzer's input |
//!
//! A broken promise is a panic. The functions know neither nightly nor a fuzzer: `cargo fuzz` calls
//! them with what it finds, `tests/seeds.rs` with the committed seeds and mutations of them.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a broken promise is a panic, which is what a fuzzer looks for"
)]

mod admission;
mod bundles;
mod bytes;
mod files;
mod journal;
mod rights;
mod secrets;
mod statements;
mod story;
mod wire;
mod witnesses;

pub use admission::{grant, thief};
pub use bundles::{bundle, tlog_proof};
pub use files::{config, key_file, patterns, rules, signers};
pub use journal::{journal, records};
pub use rights::{change, requirement};
pub use secrets::secrets;
pub use statements::{documents, entry, keys, note, payload, sshsig};
pub use story::{Runs, Story, story};
pub use wire::{answers, events, proofs};
pub use witnesses::{
    Cosigned, add_checkpoint, cosigned, cosigned_note, tile_place, witness_policy,
};

/// A name and what is promised about any input.
pub type Target = (&'static str, fn(&[u8]));

/// All targets. Each has a file of this name in `fuzz_targets/` and a folder in `seeds/`.
pub const TARGETS: &[Target] = &[
    ("add_checkpoint", add_checkpoint),
    ("answers", answers),
    ("bundle", bundle),
    ("change", change),
    ("config", config),
    ("cosigned_note", cosigned_note),
    ("documents", documents),
    ("entry", entry),
    ("events", events),
    ("grant", grant),
    ("journal", journal),
    ("key_file", key_file),
    ("keys", keys),
    ("note", note),
    ("patterns", patterns),
    ("payload", payload),
    ("proofs", proofs),
    ("records", records),
    ("requirement", requirement),
    ("rules", rules),
    ("secrets", secrets),
    ("signers", signers),
    ("sshsig", sshsig),
    ("thief", thief),
    ("tile_place", tile_place),
    ("tlog_proof", tlog_proof),
    ("witness_policy", witness_policy),
];
