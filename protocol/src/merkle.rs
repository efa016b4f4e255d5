//! Merkle trees of RFC 6962: hashing, the right edge for appending, a whole tree in memory.
//!
//! A node is named by `(level, index)`: the root of the perfect subtree over the `2^level` leaves
//! from `index << level` on. How nodes make proofs is [`crate::proof`]'s.

use alloc::vec::Vec;

use sha2::{Digest as _, Sha256};

use crate::hash::Hash;

/// Largest tree: far past any log, and small enough that no size arithmetic overflows.
pub const MAX_TREE_SIZE: u64 = 1 << 62;

/// SHA-256(0x00 ‖ bytes).
#[must_use]
pub fn leaf_hash(bytes: &[u8]) -> Hash {
    Hash::new(
        Sha256::new()
            .chain_update([0])
            .chain_update(bytes)
            .finalize()
            .into(),
    )
}

/// SHA-256(0x01 ‖ left ‖ right).
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let hasher = Sha256::new().chain_update([1]);
    Hash::new(
        hasher
            .chain_update(left.as_bytes())
            .chain_update(right.as_bytes())
            .finalize()
            .into(),
    )
}

/// The root of nothing: SHA-256("").
#[must_use]
pub fn empty_root() -> Hash {
    Hash::new(Sha256::digest([]).into())
}

/// Where the hashes of perfect subtrees come from: memory, or rows fetched before.
pub trait NodeSource {
    /// The root over the `2^level` leaves from `index << level` on; none if it is not held.
    fn node(&self, level: u8, index: u64) -> Option<Hash>;
}

/// Folds perfect subtrees, largest first, into one root.
pub(crate) fn join(hashes: impl DoubleEndedIterator<Item = Hash>) -> Option<Hash> {
    hashes.rev().reduce(|right, left| node_hash(&left, &right))
}

/// The roots of the perfect subtrees along a tree's right edge: all that appending needs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RightEdge {
    size: u64,
    /// Largest subtree first, one for each set bit of `size`.
    hashes: Vec<Hash>,
}

/// Hashes that are no right edge of a tree of that size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a right edge of {size} entries has {} hashes, not {found}", size.count_ones())]
pub struct NotAnEdge {
    /// The size.
    pub size: u64,
    /// How many hashes there were.
    pub found: usize,
}

impl RightEdge {
    /// Puts an edge together again from what [`RightEdge::hashes`] gave.
    ///
    /// # Errors
    /// [`NotAnEdge`] when the number of hashes does not fit the size.
    pub fn from_hashes(size: u64, hashes: Vec<Hash>) -> Result<Self, NotAnEdge> {
        if size > MAX_TREE_SIZE || hashes.len() != size.count_ones() as usize {
            return Err(NotAnEdge {
                size,
                found: hashes.len(),
            });
        }
        Ok(Self { size, hashes })
    }

    /// Number of leaves.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The subtrees' roots, largest first.
    #[must_use]
    pub fn hashes(&self) -> &[Hash] {
        &self.hashes
    }

    /// Appends a leaf and reports each perfect subtree that it completes, as `(level, index, root)`.
    pub fn push(&mut self, leaf: Hash, mut completed: impl FnMut(u8, u64, Hash)) {
        let mut hash = leaf;
        let mut level = 0_u8;
        let mut index = self.size;
        while index & 1 == 1 {
            let Some(left) = self.hashes.pop() else { break };
            hash = node_hash(&left, &hash);
            level += 1;
            index >>= 1;
            completed(level, index, hash);
        }
        self.hashes.push(hash);
        self.size += 1;
    }

    /// The root over all leaves.
    #[must_use]
    pub fn root(&self) -> Hash {
        join(self.hashes.iter().copied()).unwrap_or_else(empty_root)
    }
}

/// A whole tree in memory: 64 bytes a leaf.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tree {
    /// `levels[l][i]` is the node `(l, i)`.
    levels: Vec<Vec<Hash>>,
}

impl Tree {
    /// Number of leaves.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.levels.first().map_or(0, |leaves| leaves.len() as u64)
    }

    /// Appends a leaf.
    pub fn push(&mut self, leaf: Hash) {
        let mut hash = leaf;
        for level in 0.. {
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            let Some(nodes) = self.levels.get_mut(level) else {
                return;
            };
            nodes.push(hash);
            let [.., left, right] = nodes.as_slice() else {
                return;
            };
            if nodes.len() % 2 == 1 {
                return;
            }
            hash = node_hash(left, right);
        }
    }

    /// The root when the tree had `size` leaves; none if it never had so many.
    #[must_use]
    pub fn root_at(&self, size: u64) -> Option<Hash> {
        if size > self.size() {
            return None;
        }
        crate::proof::root(self, size)
    }
}

impl NodeSource for Tree {
    fn node(&self, level: u8, index: u64) -> Option<Hash> {
        self.levels
            .get(usize::from(level))?
            .get(usize::try_from(index).ok()?)
            .copied()
    }
}
