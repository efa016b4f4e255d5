//! Row 21: a bundle that proves something else than it says, made by who has the ledger's key.

use std::collections::BTreeSet;
use std::fs;

use countersign::keys::LedgerKeys;
use countersign_protocol::checkpoint::{Checkpoint, CheckpointBody, VerifierKey};
use countersign_protocol::hash::Hash;
use countersign_verifier::bundle::{Manifest, Selection, Writer};

use super::TAMPERING;
use crate::bundles::{export, verdict};
use crate::support::{Dev, text};

/// Bytes of a tar's header, and of the blocks that everything fills up.
const BLOCK: usize = 512;

/// A bundle as the members of its tar.
#[derive(Clone)]
struct Tar(Vec<(Vec<u8>, Vec<u8>)>);

impl Tar {
    fn read(bytes: &[u8]) -> Self {
        let mut members = Vec::new();
        let mut rest = bytes;
        while rest[0] != 0 {
            let (header, behind) = rest.split_at(BLOCK);
            let size = usize::from_str_radix(&text(&header[124..135]), 8).unwrap();
            members.push((header.to_vec(), behind[..size].to_vec()));
            rest = &behind[size.next_multiple_of(BLOCK)..];
        }
        Self(members)
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (header, content) in &self.0 {
            let mut header = header.clone();
            header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
            header[148..156].fill(b' ');
            let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
            header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            bytes.extend(header);
            bytes.extend(content);
            bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        }
        bytes.resize(bytes.len() + 2 * BLOCK, 0);
        bytes
    }

    /// The content of the `nth` member whose name begins so.
    fn content(&mut self, name: &str, nth: usize) -> &mut Vec<u8> {
        let name = format!("countersign-bundle/{name}");
        let mut named = self
            .0
            .iter_mut()
            .filter(|(header, _)| header.starts_with(name.as_bytes()));
        &mut named.nth(nth).unwrap().1
    }

    /// With a text of a member put for another.
    fn with(&self, name: &str, from: &str, to: &str) -> Vec<u8> {
        let mut other = self.clone();
        let content = other.content(name, 0);
        let was = text(content);
        assert!(was.contains(from), "{name}: {was}");
        *content = was.replace(from, to).into_bytes();
        other.bytes()
    }
}

/// The hashes of a proof, one a line.
fn path_of(proof: &str) -> &str {
    let (head, _) = proof.split_once("\n\n").unwrap();
    let (_, path) = head.split_once("index ").unwrap();
    path.split_once('\n').unwrap().1
}

#[test]
fn each_way_in_which_a_bundle_proves_nothing_has_its_own_name() {
    let dev = Dev::start();
    let id = dev.through(&[], &["echo", "hello"]);
    let id = id["id"].as_str().unwrap();
    let part = fs::read(export(&dev, "alice", "part.tar", &[id]).0).unwrap();
    let whole = fs::read(export(&dev, "alice", "whole.tar", &[]).0).unwrap();
    let (mut part, whole) = (Tar::read(&part), Tar::read(&whole));
    let judged = |name: &str, bytes: &[u8], code: i32| {
        let file = dev.folder().path().join(name);
        fs::write(&file, bytes).unwrap();
        verdict(&dev, code, &file)
    };
    // What is taken apart and put together again is the same.
    for (name, tar) in [("part", &part), ("whole", &whole)] {
        assert_eq!(judged(name, &tar.bytes(), 0)["ok"], true);
    }

    let ledger: VerifierKey = dev.env("COUNTERSIGN_VKEY").parse().unwrap();
    let note = text(part.content("checkpoint", 0));
    let honest = Checkpoint::open(&note, &ledger).unwrap().body().clone();
    let keys = LedgerKeys::read(&dev.data().join("ledger")).unwrap();
    let signs = |body: CheckpointBody| Checkpoint::sign(body, keys.checkpoint()).note().to_owned();
    let other_root = signs(CheckpointBody {
        root: Hash::new([13; 32]),
        ..honest.clone()
    });
    let elsewhere = signs(CheckpointBody {
        origin: "ledger.example.com/other".parse().unwrap(),
        ..honest
    });
    let (unsigned, _) = note.split_once("\n\n").unwrap();
    // The second entry's proof under the first one's name, as it is and with the first one's number.
    let second = text(part.content("proofs/", 1));
    let first = text(part.content("proofs/", 0));
    let anothers = part.with("proofs/", &first, &second);
    let paths = [&first, &second].map(|proof| path_of(proof).to_owned());
    let elsewhere_up = part.with("proofs/", &paths[0], &paths[1]);
    let manifest = Manifest {
        ledger: dev.env("COUNTERSIGN_LEDGER").parse().unwrap(),
        origin: honest.origin,
        selection: Selection::Whole,
    };
    let nothing = Writer::new(Vec::new(), manifest, note.clone()).unwrap();
    let (nothing, _) = nothing.finish().unwrap();
    let mut sentences = BTreeSet::new();
    for (file, bytes, name) in [
        ("anothers_proof", anothers, "bad_proof"),
        ("anothers_path", elsewhere_up, "not_included"),
        (
            "foreign_manifest",
            whole.with(
                "manifest.json",
                "countersign.local/dev",
                "countersign.local/new",
            ),
            "foreign_origin",
        ),
        (
            "foreign_checkpoint",
            whole.with("checkpoint", &note, &elsewhere),
            "foreign_origin",
        ),
        (
            "other_root",
            whole.with("checkpoint", &note, &other_root),
            "other_root",
        ),
        (
            "unsigned",
            whole.with("checkpoint", &note, &format!("{unsigned}\n\n")),
            "bad_checkpoint",
        ),
        (
            "no_signature_part",
            whole.with("checkpoint", &note, &format!("{unsigned}\n")),
            "bad_checkpoint",
        ),
        ("no_entry", nothing, "empty"),
        ("no_member", Tar(Vec::new()).bytes(), "bad_layout"),
        ("no_byte", Vec::new(), "cut_off"),
        (
            "unknown_version",
            whole.with("manifest.json", "\"version\":1", "\"version\":2"),
            "unknown_version",
        ),
        (
            "something_else",
            whole.with("manifest.json", "countersign-bundle", "countersign-bundel"),
            "not_a_bundle",
        ),
    ] {
        let report = judged(file, &bytes, TAMPERING);
        let bad = &report["first_bad"];
        assert_eq!(bad["name"], name, "{file}: {bad}");
        let sentence = bad["reason"].as_str().unwrap().to_owned();
        assert!(sentences.insert(sentence), "{file}: said before: {bad}");
    }
}
