//! Trees, proofs and checkpoints beside second implementations, and against every near miss.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use countersign_protocol::checkpoint::{Checkpoint, CheckpointBody, CheckpointError, VerifierKey};
use countersign_protocol::hash::Hash;
use countersign_protocol::merkle::{self, RightEdge, Tree};
use countersign_protocol::proof::{self, ProofError};
use ed25519_dalek::SigningKey;
use proptest::prelude::*;

fn tree(size: u64) -> Tree {
    let mut tree = Tree::default();
    for n in 0..size {
        tree.push(merkle::leaf_hash(&n.to_be_bytes()));
    }
    tree
}

/// The inputs and roots of Certificate Transparency's own reference tests.
#[test]
fn the_roots_of_rfc_6962s_reference_inputs_are_known() {
    let inputs = [
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    ];
    let roots = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];
    let mut tree = Tree::default();
    for (input, root) in inputs.iter().zip(roots) {
        tree.push(merkle::leaf_hash(&hex::decode(input).unwrap()));
        assert_eq!(tree.root_at(tree.size()).unwrap().to_string(), root);
    }
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(merkle::empty_root().to_string(), empty);
}

#[test]
fn edge_and_tree_agree_and_report_each_perfect_subtree() {
    let tree = tree(300);
    let mut edge = RightEdge::default();
    for n in 0..300_u64 {
        edge.push(merkle::leaf_hash(&n.to_be_bytes()), |level, index, root| {
            assert_eq!(merkle::NodeSource::node(&tree, level, index), Some(root));
        });
        assert_eq!(edge.root(), tree.root_at(n + 1).unwrap());
        let again = RightEdge::from_hashes(edge.size(), edge.hashes().to_vec()).unwrap();
        assert_eq!(again, edge);
    }
    assert!(RightEdge::from_hashes(3, vec![Hash::ZERO]).is_err());
}

#[test]
fn ct_merkle_makes_the_same_roots_and_takes_our_proofs() {
    use ct_merkle::mem_backed_tree::MemoryBackedTree;
    use ct_merkle::{ConsistencyProof, HashableLeaf, InclusionProof};
    struct Leaf(u64);
    impl HashableLeaf for Leaf {
        fn hash<H: ct_merkle::digest::Update>(&self, hasher: &mut H) {
            hasher.update(&self.0.to_be_bytes());
        }
    }
    let ours = tree(40);
    let mut theirs = MemoryBackedTree::<sha2::Sha256, Leaf>::new();
    let mut roots = Vec::new();
    for n in 0..40 {
        theirs.push(Leaf(n));
        let root = theirs.root();
        assert_eq!(
            root.as_bytes().as_slice(),
            ours.root_at(n + 1).unwrap().as_bytes()
        );
        for index in 0..=n {
            let proof = proof::inclusion_proof(&ours, index, n + 1).unwrap();
            let bytes: Vec<u8> = proof.iter().flat_map(|hash| *hash.as_bytes()).collect();
            let proof = InclusionProof::<sha2::Sha256>::try_from_bytes(bytes).unwrap();
            root.verify_inclusion(&Leaf(index), index, &proof).unwrap();
        }
        for (old, old_root) in roots.iter().enumerate() {
            let proof = proof::consistency_proof(&ours, old as u64 + 1, n + 1).unwrap();
            let bytes: Vec<u8> = proof.iter().flat_map(|hash| *hash.as_bytes()).collect();
            let proof = ConsistencyProof::<sha2::Sha256>::try_from_bytes(bytes).unwrap();
            root.verify_consistency(old_root, &proof).unwrap();
        }
        roots.push(root);
    }
}

proptest! {
    #[test]
    fn an_inclusion_proof_verifies_for_its_place_size_and_root_and_no_other(
        size in 1_u64..200, pick in any::<u64>(), other in any::<u64>(), bit in any::<usize>(),
    ) {
        let tree = tree(size);
        let index = pick % size;
        let leaf = merkle::leaf_hash(&index.to_be_bytes());
        let root = tree.root_at(size).unwrap();
        let proof = proof::inclusion_proof(&tree, index, size).unwrap();
        prop_assert_eq!(proof::verify_inclusion(&leaf, index, size, &proof, &root), Ok(()));
        let wrong = other % (size + 3);
        if wrong != index {
            prop_assert!(proof::verify_inclusion(&leaf, wrong, size, &proof, &root).is_err());
        }
        let smaller = other % size;
        if smaller > 0 {
            let root = tree.root_at(smaller).unwrap();
            prop_assert!(proof::verify_inclusion(&leaf, index, size, &proof, &root).is_err());
        }
        let mut longer = proof.clone();
        longer.push(root);
        prop_assert!(proof::verify_inclusion(&leaf, index, size, &longer, &root).is_err());
        if !proof.is_empty() {
            let at = bit % proof.len();
            let mut bytes = *proof[at].as_bytes();
            bytes[bit % 32] ^= 1;
            let mut flipped = proof.clone();
            flipped[at] = Hash::new(bytes);
            prop_assert!(proof::verify_inclusion(&leaf, index, size, &flipped, &root).is_err());
            prop_assert!(proof::verify_inclusion(&leaf, index, size, &proof[1..], &root).is_err());
        }
    }

    #[test]
    fn a_consistency_proof_verifies_for_its_sizes_and_roots_and_no_other(
        new in 1_u64..200, pick in any::<u64>(), bit in any::<usize>(),
    ) {
        let tree = tree(new);
        let old = pick % new + 1;
        let (old_root, new_root) = (tree.root_at(old).unwrap(), tree.root_at(new).unwrap());
        let proof = proof::consistency_proof(&tree, old, new).unwrap();
        prop_assert_eq!(proof::verify_consistency(old, new, &old_root, &new_root, &proof), Ok(()));
        if old != new {
            prop_assert!(proof::verify_consistency(old, new, &new_root, &new_root, &proof).is_err());
            prop_assert!(proof::verify_consistency(old, new, &old_root, &old_root, &proof).is_err());
            let at = bit % proof.len();
            let mut bytes = *proof[at].as_bytes();
            bytes[bit % 32] ^= 1;
            let mut flipped = proof;
            flipped[at] = Hash::new(bytes);
            prop_assert!(proof::verify_consistency(old, new, &old_root, &new_root, &flipped).is_err());
            prop_assert!(proof::verify_consistency(old, new, &old_root, &new_root, &[]).is_err());
        }
    }
}

#[test]
fn sizes_and_proofs_past_all_bounds_are_refused() {
    let root = Hash::ZERO;
    let far = 1_u64 << 63;
    assert_eq!(
        proof::verify_inclusion(&root, 0, far, &[], &root),
        Err(ProofError::OutOfRange)
    );
    assert_eq!(
        proof::verify_consistency(1, far, &root, &root, &[]),
        Err(ProofError::OutOfRange)
    );
    assert_eq!(
        proof::verify_consistency(0, 5, &root, &root, &[]),
        Err(ProofError::OutOfRange)
    );
    let many = vec![root; 65];
    assert_eq!(
        proof::verify_inclusion(&root, 0, 1 << 40, &many, &root),
        Err(ProofError::Length)
    );
    assert_eq!(
        proof::verify_consistency(1, 9, &root, &root, &many),
        Err(ProofError::Length)
    );
}

fn signed(size: u64) -> (Checkpoint, VerifierKey, SigningKey) {
    let key = SigningKey::from_bytes(&[42; 32]);
    let origin: countersign_protocol::checkpoint::Origin = "ledger.example.com".parse().unwrap();
    let verifier = VerifierKey::new(origin.clone(), key.verifying_key().to_bytes()).unwrap();
    let body = CheckpointBody {
        origin,
        size,
        root: merkle::empty_root(),
    };
    (Checkpoint::sign(body, &key), verifier, key)
}

#[test]
fn a_checkpoint_opens_with_its_key_and_no_other() {
    let (checkpoint, verifier, _) = signed(7);
    assert_eq!(
        Checkpoint::open(checkpoint.note(), &verifier),
        Ok(checkpoint.clone())
    );
    let other = SigningKey::from_bytes(&[43; 32]).verifying_key().to_bytes();
    let other = VerifierKey::new(verifier.origin().clone(), other).unwrap();
    assert_eq!(
        Checkpoint::open(checkpoint.note(), &other),
        Err(CheckpointError::Unsigned)
    );
    let elsewhere = VerifierKey::new("elsewhere".parse().unwrap(), *verifier.key()).unwrap();
    assert_eq!(
        Checkpoint::open(checkpoint.note(), &elsewhere),
        Err(CheckpointError::OtherOrigin)
    );
}

#[test]
fn any_changed_byte_of_a_checkpoint_is_refused() {
    let (checkpoint, verifier, _) = signed(1234);
    let note = checkpoint.note().as_bytes();
    for at in 0..note.len() {
        let mut changed = note.to_vec();
        changed[at] ^= 1;
        if let Ok(text) = String::from_utf8(changed) {
            assert!(Checkpoint::open(&text, &verifier).is_err(), "byte {at}");
        }
    }
}

#[test]
fn unknown_signatures_are_ignored_and_a_failing_known_one_is_not() {
    let (checkpoint, verifier, key) = signed(7);
    let stranger = "\u{2014} witness.example AAAAAAAA\n";
    let cosigned = format!("{}{stranger}", checkpoint.note());
    assert_eq!(Checkpoint::open(&cosigned, &verifier).unwrap().size(), 7);
    let other = Checkpoint::sign(
        CheckpointBody {
            size: 8,
            ..checkpoint.body().clone()
        },
        &key,
    );
    let line = other.note().rsplit_once("\n\n").unwrap().1;
    let doubled = format!("{}{line}", checkpoint.note());
    assert_eq!(
        Checkpoint::open(&doubled, &verifier),
        Err(CheckpointError::BadSignature)
    );
}

#[test]
fn second_spellings_of_a_checkpoint_are_refused() {
    for text in [
        "ledger\n07\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n",
        "ledger\n+7\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n",
        "ledger\n7\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU\n",
        "ledger\n7\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\nextension\n",
        "ledger\n7\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
        "ledger\n9223372036854775808\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n",
        "led ger\n7\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n",
    ] {
        assert!(text.parse::<CheckpointBody>().is_err(), "{text:?}");
    }
}

#[test]
fn huge_notes_and_a_million_signature_lines_are_refused_before_work() {
    let (checkpoint, verifier, _) = signed(7);
    let line = "\u{2014} witness.example AAAAAAAA\n";
    let many = format!("{}{}", checkpoint.note(), line.repeat(64));
    assert_eq!(
        Checkpoint::open(&many, &verifier),
        Err(CheckpointError::TooLarge)
    );
    let million = format!("{}{}", checkpoint.note(), line.repeat(1_000_000));
    assert_eq!(
        Checkpoint::open(&million, &verifier),
        Err(CheckpointError::TooLarge)
    );
}

#[test]
fn a_verifier_key_has_one_spelling_and_is_never_weak() {
    let (_, verifier, _) = signed(7);
    let text = verifier.to_string();
    assert_eq!(text.parse::<VerifierKey>().unwrap(), verifier);
    assert!(text.to_uppercase().parse::<VerifierKey>().is_err());
    let mut identity = [0; 32];
    identity[0] = 1;
    assert!(VerifierKey::new("ledger".parse().unwrap(), identity).is_err());
}

#[test]
fn the_signed_note_and_tlog_tiles_crates_read_our_checkpoints() {
    let (checkpoint, verifier, _) = signed(1234);
    let note = signed_note::Note::from_bytes(checkpoint.note().as_bytes()).unwrap();
    let theirs = signed_note::StandardVerifier::new(&verifier.to_string()).unwrap();
    let known = signed_note::VerifierList::new(vec![Box::new(theirs)]);
    let (verified, _) = note.verify(&known).unwrap();
    assert_eq!(verified.len(), 1);
    let body = tlog_tiles::Checkpoint::from_bytes(note.text()).unwrap();
    assert_eq!(body.origin(), "ledger.example.com");
    assert_eq!(body.size(), 1234);
    assert_eq!(&body.hash().0, checkpoint.root().as_bytes());
}

#[test]
fn the_tlog_tiles_crate_takes_our_proofs() {
    let ours = tree(100);
    let hash = |ours: Hash| tlog_tiles::Hash(*ours.as_bytes());
    let hashes = |proof: Vec<Hash>| proof.into_iter().map(hash).collect::<Vec<_>>();
    for size in 1..=100_u64 {
        let root = hash(ours.root_at(size).unwrap());
        for index in 0..size {
            let proof = hashes(proof::inclusion_proof(&ours, index, size).unwrap());
            let leaf = hash(merkle::leaf_hash(&index.to_be_bytes()));
            tlog_tiles::check_record(&proof, size, root, index, leaf).unwrap();
        }
        for old in 1..size {
            let proof = hashes(proof::consistency_proof(&ours, old, size).unwrap());
            let old_root = hash(ours.root_at(old).unwrap());
            tlog_tiles::check_tree(&proof, size, root, old, old_root).unwrap();
        }
    }
}
