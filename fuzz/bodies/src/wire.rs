//! What comes over HTTP beside grants: the event stream, answers, and the proofs in them.

use countersign_agent::client::{EventParser, ServerEvent};
use countersign_agent::trust;
use countersign_protocol::api::{
    Answers, ChallengeBody, LedgerInfo, Problem, ProofBody, Receipt, SessionBody,
};
use countersign_protocol::entry::{self, Entry};
use countersign_protocol::hash::{Hash, LedgerId};
use countersign_protocol::merkle::{Tree, leaf_hash};
use countersign_protocol::proof;

use crate::bytes::Bytes;
use crate::story::{host, story, vkey};

/// A limit that a fuzzer's input can pass.
const LIMIT: usize = 256;

/// A stream of events, cut in two ways: both hear the same, which is what a plain reading hears.
pub fn events(data: &[u8]) {
    let mut bytes = Bytes(data);
    let step = usize::from(bytes.byte()) + 1;
    let stream = bytes.0;
    let mut parser = EventParser::with_limit(LIMIT);
    let whole = parser.push(stream);
    let mut parser = EventParser::with_limit(LIMIT);
    let pieces: Result<Vec<_>, _> = stream
        .chunks(step)
        .map(|piece| parser.push(piece))
        .collect();
    let pieces = pieces.map(|events| events.concat());
    assert_eq!(whole, pieces, "the cutting matters");
    let Ok(heard) = whole else {
        return;
    };
    assert!(heard.iter().all(|event| event.data.len() <= LIMIT));
    assert_eq!(heard, plainly(stream));
}

/// The standard's own words, on a whole stream: lines, fields, an empty line dispatches.
fn plainly(stream: &[u8]) -> Vec<ServerEvent> {
    let text = String::from_utf8_lossy(stream)
        .replace("\r\n", "\n")
        .replace('\r', "\n");
    let (mut events, mut kind, mut data) = (Vec::new(), String::new(), Vec::new());
    let mut lines: Vec<&str> = text.split('\n').collect();
    lines.pop();
    for line in lines {
        if line.is_empty() {
            let kind = std::mem::take(&mut kind);
            let data: Vec<String> = std::mem::take(&mut data);
            if !data.is_empty() {
                let message = "message".to_owned();
                events.push(ServerEvent {
                    kind: if kind.is_empty() { message } else { kind },
                    data: data.join("\n"),
                });
            }
        } else if let Some(value) = field(line, "event") {
            value.clone_into(&mut kind);
        } else if let Some(value) = field(line, "data") {
            data.push(value.to_owned());
        }
    }
    events
}

fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let rest = line.strip_prefix(name)?;
    if rest.is_empty() {
        return Some("");
    }
    let value = rest.strip_prefix(':')?;
    Some(value.strip_prefix(' ').unwrap_or(value))
}

/// Every other body that the server answers with. A receipt that is believed is for an entry of
/// the log; a genesis that is believed is the pinned one.
pub fn answers(data: &[u8]) {
    if let Ok(receipt) = serde_json::from_slice::<Receipt>(data) {
        for entry in &story().entries {
            let statement = Entry::decode(&entry.0).unwrap().statement;
            if let Ok(seen) = trust::check_receipt(vkey(), &receipt, statement.id()) {
                assert_eq!(receipt.entry, *entry);
                let size = u64::try_from(story().entries.len()).unwrap();
                assert!(seen.is_none_or(|seen| seen < size));
            }
        }
    }
    if let Ok(info) = serde_json::from_slice::<LedgerInfo>(data)
        && trust::ledger_keys(&info, &host().pins.ledger, vkey()).is_ok()
    {
        assert_eq!(info.genesis, story().entries[0]);
        let leaf = entry::leaf(&info.genesis.0);
        assert_eq!(LedgerId::new(*leaf.as_bytes()), host().pins.ledger);
    }
    let _ = serde_json::from_slice::<Answers>(data);
    let _ = serde_json::from_slice::<Problem>(data);
    let _ = serde_json::from_slice::<ProofBody>(data);
    let _ = serde_json::from_slice::<ChallengeBody>(data);
    let _ = serde_json::from_slice::<SessionBody>(data);
}

/// True proofs over a small tree, then edited: no other hashes prove the same.
pub fn proofs(data: &[u8]) {
    let mut bytes = Bytes(data);
    let size = u64::try_from(bytes.below(70) + 1).unwrap();
    let mut tree = Tree::default();
    for number in 0..size {
        tree.push(leaf_hash(&number.to_be_bytes()));
    }
    let index = u64::from(bytes.byte()) % size;
    let old = index + 1;
    let (root, old_root) = (tree.root_at(size).unwrap(), tree.root_at(old).unwrap());
    let leaf = leaf_hash(&index.to_be_bytes());
    let inclusion = proof::inclusion_proof(&tree, index, size).unwrap();
    let consistency = proof::consistency_proof(&tree, old, size).unwrap();
    let includes = |leaf: &Hash, proof: &[Hash], root: &Hash| {
        proof::verify_inclusion(leaf, index, size, proof, root).is_ok()
    };
    let continues = |proof: &[Hash], old_root: &Hash, root: &Hash| {
        proof::verify_consistency(old, size, old_root, root, proof).is_ok()
    };
    assert!(includes(&leaf, &inclusion, &root));
    assert!(continues(&consistency, &old_root, &root));
    let (other, earlier) = (
        edited(&inclusion, &mut bytes),
        edited(&consistency, &mut bytes),
    );
    assert_eq!(includes(&leaf, &other, &root), other == inclusion);
    assert_eq!(
        continues(&earlier, &old_root, &root),
        earlier == consistency
    );
    let strange = edited(&[leaf, root, old_root], &mut bytes);
    if let [leaf_, root_, old_root_] = strange.as_slice() {
        // The one leaf of a tree is its root.
        let same = *leaf_ == leaf && *root_ == root;
        assert_eq!(
            includes(leaf_, &inclusion, root_),
            same || (size == 1 && leaf_ == root_)
        );
        // Of a tree and itself there is nothing to prove but that both roots are one.
        let same = *old_root_ == old_root && *root_ == root;
        assert_eq!(
            continues(&consistency, old_root_, root_),
            same || (old == size && old_root_ == root_)
        );
    }
    // Any place and any size, whatever they are: no panic and no endless work.
    let mut wild = || u64::from(bytes.byte()) << (8 * bytes.below(8));
    let (a, b) = (wild(), wild());
    let _ = proof::verify_inclusion(&leaf, a, b, &other, &root);
    let _ = proof::verify_consistency(a, b, &old_root, &root, &earlier);
}

fn edited(hashes: &[Hash], bytes: &mut Bytes<'_>) -> Vec<Hash> {
    let mut hashes = hashes.to_vec();
    for _edit in 0..bytes.byte() % 4 {
        let at = bytes.below(hashes.len());
        match (bytes.byte() % 4, hashes.get(at).copied()) {
            (0, Some(hash)) => {
                let mut changed = *hash.as_bytes();
                changed[bytes.below(32)] ^= bytes.byte();
                hashes[at] = Hash::new(changed);
            }
            (1, Some(_)) => drop(hashes.remove(at)),
            (2, Some(hash)) => hashes.insert(at, hash),
            (3, Some(_)) => {
                let other = bytes.below(hashes.len());
                hashes.swap(at, other);
            }
            _other => hashes.push(Hash::ZERO),
        }
    }
    hashes
}
