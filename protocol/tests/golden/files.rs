//! How the golden ledger is written down: the format that `tests/vectors/README.md` describes.
//!
//! Fields stand in the order of the structs here; no map of a JSON library decides it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_protocol::blob::BlobRef;
use countersign_protocol::checkpoint::VerifierKey;
use countersign_protocol::entry::{self, Entry};
use countersign_protocol::event::Kind;
use countersign_protocol::hash::{Digest, Hash, KeyId, LedgerId, StatementId};
use countersign_protocol::key::PublicKey;
use countersign_protocol::name::Time;
use countersign_protocol::proof;
use countersign_protocol::sshsig::SshSig;
use countersign_protocol::statement::Statement;
use countersign_protocol::target::TargetLine;
use serde::Serialize;

use super::{Golden, identity};
use crate::support::public;

/// Where the vectors lie.
pub(crate) fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors")
}

#[derive(Serialize)]
struct StatementVector<'a> {
    kind: &'static str,
    namespace: &'static str,
    signer: &'static str,
    public_key: String,
    key_id: KeyId,
    payload: &'a str,
    statement_id: StatementId,
    signature: String,
}

#[derive(Serialize)]
struct EntryVector {
    seq: u64,
    time_us: Time,
    prev: Hash,
    key_id: KeyId,
    signer: &'static str,
    namespace: &'static str,
    statement_id: StatementId,
    leaf: Hash,
    entry: String,
}

#[derive(Serialize)]
struct BlobVector {
    digest: Digest,
    len: u64,
    salt: String,
    content: String,
}

#[derive(Serialize)]
struct LedgerVector {
    ledger_id: LedgerId,
    origin: &'static str,
    verifier_key: String,
    checkpoint_key: String,
    statement_key: String,
    size: u64,
    roots: Vec<Hash>,
}

#[derive(Serialize)]
struct Inclusion {
    index: u64,
    size: u64,
    proof: Vec<Hash>,
}

#[derive(Serialize)]
struct Consistency {
    old: u64,
    new: u64,
    proof: Vec<Hash>,
}

#[derive(Serialize)]
struct ProofVectors {
    inclusion: Vec<Inclusion>,
    consistency: Vec<Consistency>,
}

#[derive(Serialize)]
struct TargetVectors<'a> {
    command: StatementId,
    count: u64,
    root: Hash,
    list: BlobRef,
    lines: &'a [TargetLine],
    proofs: Vec<Vec<Hash>>,
}

fn pretty(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap() + "\n"
}

fn lines<T: Serialize>(values: impl Iterator<Item = T>) -> String {
    let line = |value| serde_json::to_string(&value).unwrap() + "\n";
    values.map(line).collect()
}

/// Every file, by its path below the folder.
pub(crate) fn render(golden: &Golden) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let entries: Vec<Entry> = golden
        .book
        .entries
        .iter()
        .map(|bytes| Entry::decode(bytes).unwrap())
        .collect();
    let said = entries.iter().map(|entry| &entry.statement);
    for statement in said.chain([&golden.challenge, &golden.claim]) {
        let name = format!("statements/{}.json", statement.kind.as_str());
        files
            .entry(name)
            .or_insert_with(|| pretty(&vector(statement)));
    }
    let lines_of_entries = entries.iter().zip(&golden.book.entries).map(entry_vector);
    files.insert("log/entries.jsonl".to_owned(), lines(lines_of_entries));
    let blobs = golden.book.blobs.iter().map(|(digest, blob)| BlobVector {
        digest: *digest,
        len: blob.content().len() as u64,
        salt: hex::encode(blob.salt()),
        content: STANDARD.encode(blob.content()),
    });
    files.insert("log/blobs.jsonl".to_owned(), lines(blobs));
    files.insert("log/ledger.json".to_owned(), pretty(&ledger(golden)));
    files.insert("log/proofs.json".to_owned(), pretty(&proofs(golden)));
    files.insert("log/targets.json".to_owned(), targets(golden));
    for checkpoint in &golden.checkpoints {
        let name = format!("log/checkpoint-{}.txt", checkpoint.size());
        files.insert(name, checkpoint.note().to_owned());
    }
    files
}

fn key_of(statement: &Statement) -> PublicKey {
    let signature = SshSig::from_blob(&statement.signature).unwrap();
    signature.key().clone()
}

fn vector(statement: &Statement) -> StatementVector<'_> {
    let key = key_of(statement);
    let kind: Kind = statement.kind;
    StatementVector {
        kind: kind.as_str(),
        namespace: kind.namespace(),
        signer: identity(&key),
        public_key: key.to_openssh(),
        key_id: key.key_id(),
        payload: std::str::from_utf8(&statement.payload).unwrap(),
        statement_id: statement.id(),
        signature: SshSig::from_blob(&statement.signature).unwrap().to_armour(),
    }
}

fn entry_vector((entry, bytes): (&Entry, &Vec<u8>)) -> EntryVector {
    EntryVector {
        seq: entry.seq,
        time_us: entry.time,
        prev: entry.prev,
        key_id: entry.key_id,
        signer: identity(&key_of(&entry.statement)),
        namespace: entry.statement.kind.namespace(),
        statement_id: entry.statement.id(),
        leaf: entry::leaf(bytes),
        entry: STANDARD.encode(bytes),
    }
}

fn ledger(golden: &Golden) -> LedgerVector {
    let tree = &golden.book.tree;
    let origin = "ledger.example.com";
    let verifier = VerifierKey::of(&origin.parse().unwrap(), &public("checkpoint")).unwrap();
    LedgerVector {
        ledger_id: golden.book.state.rights().ledger().unwrap(),
        origin,
        verifier_key: verifier.to_string(),
        checkpoint_key: public("checkpoint").to_openssh(),
        statement_key: public("ledger").to_openssh(),
        size: tree.size(),
        roots: (0..=tree.size())
            .map(|size| tree.root_at(size).unwrap())
            .collect(),
    }
}

fn proofs(golden: &Golden) -> ProofVectors {
    let tree = &golden.book.tree;
    let size = tree.size();
    let inclusion = |index| Inclusion {
        index,
        size,
        proof: proof::inclusion_proof(tree, index, size).unwrap(),
    };
    let consistency = |old| Consistency {
        old,
        new: size,
        proof: proof::consistency_proof(tree, old, size).unwrap(),
    };
    ProofVectors {
        inclusion: (0..size).map(inclusion).collect(),
        consistency: (1..=size).map(consistency).collect(),
    }
}

fn targets(golden: &Golden) -> String {
    let command = golden.book.command(golden.command);
    let signed = command.act().targets;
    let list = command.targets.as_ref().unwrap();
    pretty(&TargetVectors {
        command: command.id,
        count: signed.count,
        root: signed.root,
        list: signed.list,
        lines: list.lines(),
        proofs: (0..signed.count)
            .map(|index| list.prove(index).unwrap())
            .collect(),
    })
}
