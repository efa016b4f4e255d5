//! Inclusion and consistency proofs (RFC 9162), made from any source of nodes and checked strictly.
//!
//! Making: a proof is a list of ranges of leaves; each range splits into perfect subtrees, and
//! [`nodes_for_inclusion`] and its sisters name those, so that a store can fetch them in one go.

use alloc::vec::Vec;

use crate::hash::Hash;
use crate::merkle::{self, MAX_TREE_SIZE, NodeSource};

/// Most hashes of a proof: one for each bit of the largest size, twice over for consistency.
pub const MAX_PROOF_HASHES: usize = 64;

/// A perfect subtree: the root over `2^level` leaves from `index << level` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId {
    /// Height above the leaves.
    pub level: u8,
    /// Position among its level's nodes.
    pub index: u64,
}

/// Why a proof proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The leaf's place is not inside the tree, or the tree is larger than any can be.
    #[error("the proof is for a place outside the tree")]
    OutOfRange,
    /// Too few or too many hashes for these sizes.
    #[error("the proof has the wrong number of hashes")]
    Length,
    /// The hashes lead to another root.
    #[error("the proof leads to another root")]
    Root,
}

/// Leaves `begin..end` of a tree.
type Range = (u64, u64);

/// The largest power of two below `size`, for size ≥ 2.
const fn split(size: u64) -> u64 {
    1 << (63 - (size - 1).leading_zeros())
}

/// The perfect subtrees that make up a range whose begin is aligned, largest first.
fn perfect(range: Range) -> Vec<NodeId> {
    let (mut begin, end) = range;
    let mut nodes = Vec::new();
    while begin < end {
        let level = (end - begin).ilog2();
        nodes.push(NodeId {
            level: u8::try_from(level).unwrap_or(u8::MAX),
            index: begin >> level,
        });
        begin += 1 << level;
    }
    nodes
}

/// The sibling ranges on the way from leaf `index` to the root, nearest first.
fn inclusion_ranges(index: u64, size: u64) -> Vec<Range> {
    let (mut begin, mut end) = (0, size);
    let mut ranges = Vec::new();
    while end - begin > 1 {
        let middle = begin + split(end - begin);
        if index < middle {
            ranges.push((middle, end));
            end = middle;
        } else {
            ranges.push((begin, middle));
            begin = middle;
        }
    }
    ranges.reverse();
    ranges
}

/// The ranges of a consistency proof from `old` to `new` (RFC 9162, 2.1.4.1), in proof order.
fn consistency_ranges(old: u64, new: u64) -> Vec<Range> {
    let (mut begin, mut end) = (0, new);
    let mut ranges = Vec::new();
    // Whether the subtree at hand begins at 0, so that the verifier knows its old root.
    let mut known = true;
    while old != end {
        let middle = begin + split(end - begin);
        if old <= middle {
            ranges.push((middle, end));
            end = middle;
        } else {
            ranges.push((begin, middle));
            begin = middle;
            known = false;
        }
    }
    if !known {
        ranges.push((begin, end));
    }
    ranges.reverse();
    ranges
}

fn nodes_of(ranges: &[Range]) -> Vec<NodeId> {
    ranges.iter().flat_map(|range| perfect(*range)).collect()
}

fn hash_of(source: &impl NodeSource, range: Range) -> Option<Hash> {
    let hashes: Option<Vec<Hash>> = perfect(range)
        .iter()
        .map(|node| source.node(node.level, node.index))
        .collect();
    merkle::join(hashes?.into_iter())
}

/// The root over the first `size` leaves; none if the source lacks a node.
#[must_use]
pub fn root(source: &impl NodeSource, size: u64) -> Option<Hash> {
    if size == 0 {
        Some(merkle::empty_root())
    } else {
        hash_of(source, (0, size))
    }
}

/// Proof that leaf `index` is in the tree of `size`; none outside the tree or without its nodes.
#[must_use]
pub fn inclusion_proof(source: &impl NodeSource, index: u64, size: u64) -> Option<Vec<Hash>> {
    if index >= size || size > MAX_TREE_SIZE {
        return None;
    }
    inclusion_ranges(index, size)
        .into_iter()
        .map(|range| hash_of(source, range))
        .collect()
}

/// Proof that the tree of `new` continues the tree of `old`, for 1 ≤ old ≤ new.
#[must_use]
pub fn consistency_proof(source: &impl NodeSource, old: u64, new: u64) -> Option<Vec<Hash>> {
    if old == 0 || old > new || new > MAX_TREE_SIZE {
        return None;
    }
    consistency_ranges(old, new)
        .into_iter()
        .map(|range| hash_of(source, range))
        .collect()
}

/// The nodes that [`root`] reads.
#[must_use]
pub fn nodes_for_root(size: u64) -> Vec<NodeId> {
    perfect((0, size))
}

/// The nodes that [`inclusion_proof`] reads.
#[must_use]
pub fn nodes_for_inclusion(index: u64, size: u64) -> Vec<NodeId> {
    if index >= size {
        Vec::new()
    } else {
        nodes_of(&inclusion_ranges(index, size))
    }
}

/// The nodes that [`consistency_proof`] reads.
#[must_use]
pub fn nodes_for_consistency(old: u64, new: u64) -> Vec<NodeId> {
    if old == 0 || old > new {
        Vec::new()
    } else {
        nodes_of(&consistency_ranges(old, new))
    }
}

/// Says whether `leaf` is number `index` of the tree with this size and root.
///
/// # Errors
/// See [`ProofError`]. A proof for another place, size or root never passes.
pub fn verify_inclusion(
    leaf: &Hash,
    index: u64,
    size: u64,
    proof: &[Hash],
    root: &Hash,
) -> Result<(), ProofError> {
    if index >= size || size > MAX_TREE_SIZE {
        return Err(ProofError::OutOfRange);
    }
    if proof.len() > MAX_PROOF_HASHES {
        return Err(ProofError::Length);
    }
    // RFC 9162, 2.1.3.2.
    let (mut node, mut last, mut hash) = (index, size - 1, *leaf);
    for sibling in proof {
        if last == 0 {
            return Err(ProofError::Length);
        }
        if node & 1 == 1 || node == last {
            hash = merkle::node_hash(sibling, &hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = merkle::node_hash(&hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(ProofError::Length);
    }
    if hash == *root {
        Ok(())
    } else {
        Err(ProofError::Root)
    }
}

/// Says whether the tree `(new, new_root)` begins with the tree `(old, old_root)`.
///
/// # Errors
/// See [`ProofError`]. Equal sizes need equal roots and an empty proof.
pub fn verify_consistency(
    old: u64,
    new: u64,
    old_root: &Hash,
    new_root: &Hash,
    proof: &[Hash],
) -> Result<(), ProofError> {
    if old == 0 || old > new || new > MAX_TREE_SIZE {
        return Err(ProofError::OutOfRange);
    }
    if proof.len() > MAX_PROOF_HASHES || (old == new && !proof.is_empty()) {
        return Err(ProofError::Length);
    }
    if old == new {
        return if old_root == new_root {
            Ok(())
        } else {
            Err(ProofError::Root)
        };
    }
    // RFC 9162, 2.1.4.2: an old tree that is perfect is its own first hash.
    let mut hashes = old
        .is_power_of_two()
        .then_some(*old_root)
        .into_iter()
        .chain(proof.iter().copied());
    let first = hashes.next().ok_or(ProofError::Length)?;
    let (mut node, mut last) = (old - 1, new - 1);
    while node & 1 == 1 {
        node >>= 1;
        last >>= 1;
    }
    let (mut from_old, mut from_new) = (first, first);
    for hash in hashes {
        if last == 0 {
            return Err(ProofError::Length);
        }
        if node & 1 == 1 || node == last {
            from_old = merkle::node_hash(&hash, &from_old);
            from_new = merkle::node_hash(&hash, &from_new);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            from_new = merkle::node_hash(&from_new, &hash);
        }
        node >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(ProofError::Length);
    }
    if from_old == *old_root && from_new == *new_root {
        Ok(())
    } else {
        Err(ProofError::Root)
    }
}
