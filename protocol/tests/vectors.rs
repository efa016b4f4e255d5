//! The golden vectors: that they are still what this code makes, that there is one of each kind,
//! that other crates agree, and that no bit of them can change unseen.
//!
//! Tools that are not ours check the same files in `tests/it/vectors/`. After a decided change of
//! the protocol, write them anew:
//! `cargo test -p countersign-protocol --test vectors -- --ignored write_the_vectors`
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod golden;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use countersign_protocol::audit::{self, Auditor, CheckedEntry, Reason};
use countersign_protocol::blob::BlobRef;
use countersign_protocol::checkpoint::{Checkpoint, VerifierKey};
use countersign_protocol::entry::{self, Entry};
use countersign_protocol::event::Kind;
use countersign_protocol::hash::Hash;
use countersign_protocol::proof;
use golden::Golden;
use proptest::prelude::*;
use support::{Book, Named, public};

/// What lies in the folder and is not made here: written by hand, or by `sealing/tests/vector.rs`.
const WRITTEN_BY_HAND: &[&str] = &[
    "README.md",
    "audit.sql",
    "canonical.json",
    "check.mjs",
    "check.py",
    "ocsf/extract.py",
    "ocsf/table.json",
    "sealed.json",
    "sealed.py",
];

/// Told once: it is the same every time.
fn golden() -> &'static Golden {
    static TOLD: OnceLock<Golden> = OnceLock::new();
    TOLD.get_or_init(Golden::tell)
}

fn files_below(folder: &Path, prefix: &str, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.path().is_dir() {
            files_below(&entry.path(), &format!("{name}/"), found);
        } else {
            found.insert(name);
        }
    }
}

#[test]
fn the_vectors_are_what_this_code_makes() {
    let made = golden::render(golden());
    for (name, content) in &made {
        let stored = fs::read_to_string(golden::folder().join(name));
        let stored = stored.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(
            stored == *content,
            "{name} is not what this code makes; the protocol changed"
        );
    }
    let mut there = BTreeSet::new();
    files_below(&golden::folder(), "", &mut there);
    let expected = made.keys().map(String::as_str);
    let expected: BTreeSet<&str> = expected.chain(WRITTEN_BY_HAND.iter().copied()).collect();
    let there: BTreeSet<&str> = there.iter().map(String::as_str).collect();
    assert_eq!(there, expected);
}

#[test]
#[ignore = "writes the vectors anew, after a decided change of the protocol"]
fn write_the_vectors() {
    for (name, content) in golden::render(golden()) {
        let path = golden::folder().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

#[test]
fn every_kind_has_a_vector_and_all_but_sign_ins_and_claims_stand_in_the_log() {
    let golden = golden();
    let decode = |bytes: &Vec<u8>| Entry::decode(bytes).unwrap().statement.kind;
    let mut kinds: BTreeSet<Kind> = golden.book.entries.iter().map(decode).collect();
    for outside in [&golden.challenge, &golden.claim] {
        assert!(kinds.insert(outside.kind), "{}", outside.kind.as_str());
    }
    let all: BTreeSet<Kind> = Kind::ALL.iter().copied().collect();
    let missing: Vec<_> = all.difference(&kinds).collect();
    assert!(missing.is_empty(), "no vector for {missing:?}");
    for kind in all {
        let name = format!("statements/{}.json", kind.as_str());
        assert!(golden::folder().join(&name).is_file(), "{name} is missing");
    }
}

#[test]
fn the_golden_log_audits_and_ends_in_its_checkpoint() {
    let golden = golden();
    let auditor = golden.book.audit().unwrap();
    let last = golden.checkpoints.last().unwrap();
    assert_eq!(auditor.size(), last.size());
    assert_eq!(auditor.root_at(last.size()), Some(last.root()));
    assert_eq!(auditor.not_rejudged(), 0);
    for outside in [&golden.challenge, &golden.claim] {
        outside.clone().verify().unwrap();
    }
}

#[test]
fn signed_note_tlog_tiles_and_ct_merkle_take_the_golden_checkpoints_and_proofs() {
    let golden = golden();
    let tree = &golden.book.tree;
    let size = tree.size();
    let theirs = |hash: Hash| tlog_tiles::Hash(*hash.as_bytes());
    let origin = golden.checkpoints[0].body().origin.clone();
    let key = VerifierKey::of(&origin, &public("checkpoint")).unwrap();
    for checkpoint in &golden.checkpoints {
        let note = signed_note::Note::from_bytes(checkpoint.note().as_bytes()).unwrap();
        let verifier = signed_note::StandardVerifier::new(&key.to_string()).unwrap();
        let known = signed_note::VerifierList::new(vec![Box::new(verifier)]);
        assert_eq!(note.verify(&known).unwrap().0.len(), 1);
        let body = tlog_tiles::Checkpoint::from_bytes(note.text()).unwrap();
        assert_eq!(&body.hash().0, checkpoint.root().as_bytes());
        assert_eq!(
            Checkpoint::open(checkpoint.note(), &key).as_ref(),
            Ok(checkpoint)
        );
    }
    let root = theirs(tree.root_at(size).unwrap());
    for (index, bytes) in golden.book.entries.iter().enumerate() {
        let index = index as u64;
        let path = proof::inclusion_proof(tree, index, size).unwrap();
        let path: Vec<_> = path.into_iter().map(theirs).collect();
        let leaf = theirs(entry::leaf(bytes));
        tlog_tiles::check_record(&path, size, root, index, leaf).unwrap();
    }
    let old = &golden.checkpoints[0];
    let path = proof::consistency_proof(tree, old.size(), size).unwrap();
    let path: Vec<_> = path.into_iter().map(theirs).collect();
    tlog_tiles::check_tree(&path, size, root, old.size(), theirs(old.root())).unwrap();
    assert_eq!(ct_merkle_root(&golden.book.entries), root.0);
}

fn ct_merkle_root(entries: &[Vec<u8>]) -> [u8; 32] {
    struct Leaf(Vec<u8>);
    impl ct_merkle::HashableLeaf for Leaf {
        fn hash<H: ct_merkle::digest::Update>(&self, hasher: &mut H) {
            hasher.update(&self.0);
        }
    }
    let mut tree = ct_merkle::mem_backed_tree::MemoryBackedTree::<sha2::Sha256, Leaf>::new();
    for bytes in entries {
        tree.push(Leaf(bytes.clone()));
    }
    tree.root().as_bytes().as_slice().try_into().unwrap()
}

/// Says whether an auditor who holds the last checkpoint finds the change of one entry, and that
/// the finding names the entry or, for a change of its place alone, the one that links to it.
fn is_found(golden: &Golden, at: usize, changed: Vec<u8>) -> bool {
    let Ok(changed) = audit::check_entry(&changed) else {
        // The audit checks each entry by itself before it takes it.
        return true;
    };
    let mut entries = checked(golden).to_vec();
    entries[at] = changed;
    let mut auditor = Auditor::new(Arc::new(Named));
    for entry in entries {
        let blob = |named: &BlobRef| golden.book.blobs.get(&named.digest).cloned();
        let attached = audit::attachment(entry.verified.event(), blob).unwrap();
        if let Err(finding) = auditor.push(&entry, attached) {
            return finding.seq == at as u64 || finding.seq == at as u64 + 1;
        }
    }
    let last = golden.checkpoints.last().unwrap();
    at + 1 == golden.book.entries.len() && auditor.root_at(last.size()) != Some(last.root())
}

/// The golden entries, each checked by itself: once, as signatures are what an audit is slow at.
fn checked(golden: &Golden) -> &'static [CheckedEntry] {
    static CHECKED: OnceLock<Vec<CheckedEntry>> = OnceLock::new();
    CHECKED.get_or_init(|| {
        let entries = golden.book.entries.iter();
        entries
            .map(|bytes| audit::check_entry(bytes).unwrap())
            .collect()
    })
}

fn flip(bytes: &[u8], bit: usize) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    changed[bit / 8] ^= 1 << (bit % 8);
    changed
}

#[test]
fn one_flipped_bit_in_any_byte_of_an_entry_of_each_kind_is_found() {
    let golden = golden();
    let mut kinds = BTreeSet::new();
    for (at, bytes) in golden.book.entries.iter().enumerate() {
        if !kinds.insert(Entry::decode(bytes).unwrap().statement.kind) {
            // One of each kind: another of it has the same fields.
            continue;
        }
        // Bytes of place and time pass alone and need a whole audit: those are tried elsewhere.
        for byte in (0..21).chain(69..bytes.len()) {
            let bit = byte * 8 + (at + byte) % 8;
            assert!(
                audit::check_entry(&flip(bytes, bit)).is_err(),
                "entry {at}, bit {bit}"
            );
        }
    }
}

/// Keys that were read before are taken by their very bytes: behind a good entry a changed one of the same
/// signer comes out as it does alone.
#[test]
fn many_entries_come_out_as_each_of_them_alone() {
    let golden = golden();
    let bytes = golden.book.entries.last().unwrap();
    let flips = (0..bytes.len()).map(|byte| flip(bytes, byte * 8 + byte % 8));
    let mut all: Vec<Vec<u8>> = golden.book.entries.clone();
    all.extend(flips);
    let told = |checked: Result<CheckedEntry, Reason>| checked.map(|entry| entry.leaf);
    let many = audit::check_entries(all.iter().map(Vec::as_slice));
    assert_eq!(many.len(), all.len());
    for (bytes, checked) in all.iter().zip(many) {
        assert_eq!(told(checked), told(audit::check_entry(bytes)));
    }
}

#[test]
fn every_flipped_bit_of_the_first_a_middle_and_the_last_entry_is_found() {
    let golden = golden();
    let last = golden.book.entries.len() - 1;
    std::thread::scope(|scope| {
        for at in [0, last / 2, last] {
            scope.spawn(move || {
                let bytes = &golden.book.entries[at];
                for bit in 0..bytes.len() * 8 {
                    let found = is_found(golden, at, flip(bytes, bit));
                    assert!(found, "entry {at}, bit {bit}");
                }
            });
        }
    });
}

proptest! {
    #[test]
    fn a_flipped_bit_of_place_or_time_is_found(
        at in any::<prop::sample::Index>(), bit in 21 * 8..69 * 8_usize,
    ) {
        let golden = golden();
        let at = at.index(golden.book.entries.len());
        let changed = flip(&golden.book.entries[at], bit);
        prop_assert!(is_found(golden, at, changed));
    }
}

/// The bits above are found because the audit looks, not because nothing ever passes.
#[test]
fn the_unchanged_log_has_no_finding() {
    let golden = golden();
    let book: &Book = &golden.book;
    for (at, bytes) in book.entries.iter().enumerate() {
        assert!(audit::check_entry(bytes).is_ok());
        assert!(!is_found(golden, at, bytes.clone()), "entry {at}");
    }
}

#[test]
fn a_security_key_whose_counter_goes_back_is_told_of_and_one_that_counts_on_is_not() {
    let mut golden = Golden::tell();
    golden.approve_with_counter(0);
    assert_eq!(golden.book.audit().unwrap().went_back(), []);
    golden.approve_with_counter(7);
    let auditor = golden.book.audit().unwrap();
    let told: Vec<(u32, u32)> = auditor
        .went_back()
        .iter()
        .map(|back| (back.counter, back.before))
        .collect();
    assert_eq!(told, [(7, 44)]);
}
