//! A batch while it is sealed: entries in their places, the nodes they complete, the rows to insert.

use std::collections::HashMap;
use std::sync::Arc;

use countersign_protocol::entry::{self, Entry, EntryError};
use countersign_protocol::event::Event;
use countersign_protocol::fold::{self, Stream};
use countersign_protocol::hash::Hash;
use countersign_protocol::lifecycle::Position;
use countersign_protocol::merkle::{NodeSource, RightEdge};
use countersign_protocol::name::Time;
use countersign_protocol::proof;
use countersign_protocol::statement::Verified;

use super::store::{self, BatchRows, TILE_HEIGHT};

/// The nodes that a batch's proofs need: the old right edge and all that the batch completed.
#[derive(Debug, Default)]
pub(super) struct BatchTree(HashMap<(u8, u64), Hash>);

impl NodeSource for BatchTree {
    fn node(&self, level: u8, index: u64) -> Option<Hash> {
        self.0.get(&(level, index)).copied()
    }
}

impl BatchTree {
    fn from_edge(edge: &RightEdge) -> Self {
        let ids = proof::nodes_for_root(edge.size());
        Self(
            ids.iter()
                .map(|id| (id.level, id.index))
                .zip(edge.hashes().iter().copied())
                .collect(),
        )
    }

    /// Inclusion proof of an entry of this batch in the tree after it.
    pub(super) fn inclusion(&self, seq: u64, size: u64) -> Vec<Hash> {
        proof::inclusion_proof(self, seq, size).unwrap_or_default()
    }
}

/// An entry that was decided and sealed, not yet committed.
#[derive(Debug)]
pub(super) struct Sealed {
    pub(super) at: Position,
    pub(super) bytes: Arc<[u8]>,
    pub(super) leaf: Hash,
}

/// Entries on top of a head.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) edge: RightEdge,
    pub(super) last_leaf: Hash,
    pub(super) time: Time,
    pub(super) tree: BatchTree,
    pub(super) rows: BatchRows,
}

impl Batch {
    /// An empty batch on a head; all its entries have the same time.
    pub(super) fn new(edge: RightEdge, last_leaf: Hash, time: Time) -> Self {
        let tree = BatchTree::from_edge(&edge);
        Self {
            edge,
            last_leaf,
            time,
            tree,
            rows: BatchRows::default(),
        }
    }

    /// Puts a statement in the next place, without taking that place yet.
    pub(super) fn seal(&self, verified: &Verified) -> Result<Sealed, EntryError> {
        let seq = self.edge.size();
        let entry = Entry {
            seq,
            time: self.time,
            prev: self.last_leaf,
            key_id: verified.facts().key_id,
            statement: verified.statement().clone(),
        };
        let bytes = entry.encode()?;
        let at = Position {
            seq,
            time: self.time,
            id: verified.id(),
        };
        Ok(Sealed {
            at,
            leaf: entry::leaf(&bytes),
            bytes: bytes.into(),
        })
    }

    /// Takes a sealed entry that was decided in favour of.
    pub(super) fn push(&mut self, sealed: &Sealed, event: &Event) {
        let Position { seq, id, .. } = sealed.at;
        let rows = &mut self.rows;
        let place = store::signed(seq);
        rows.seqs.push(place);
        rows.entries.push(sealed.bytes.to_vec());
        rows.statements.push(id.as_bytes().to_vec());
        rows.streams
            .push(Stream::of(event, id).map(|stream| stream.id().as_bytes().to_vec()));
        let mut named: Vec<_> = event.blobs().into_iter().map(|blob| blob.digest).collect();
        named.sort_unstable();
        named.dedup();
        for digest in named {
            rows.references.0.push(digest.as_bytes().to_vec());
            rows.references.1.push(place);
        }
        if let Event::CommandRequested(request) = event
            && let Some(client_ref) = &request.client_ref
        {
            rows.client_refs.0.push(request.principal.to_string());
            rows.client_refs.1.push(client_ref.as_bytes().to_vec());
            rows.client_refs.2.push(id.as_bytes().to_vec());
        }
        if let Some((agent, agent_seq, _)) = fold::agent_link(event) {
            rows.agent_links.0.push(agent.as_bytes().to_vec());
            rows.agent_links.1.push(store::signed(agent_seq));
            rows.agent_links.2.push(id.as_bytes().to_vec());
        }
        if let Event::ExecutionReleased(released) = event {
            for label in &released.labels {
                rows.label_turns.0.push(label.to_string());
                rows.label_turns.1.push(place);
            }
        }
        if matches!(event, Event::BlobRedacted(_)) {
            rows.redactions.push(place);
        }
        let nodes = &mut self.tree.0;
        nodes.insert((0, seq), sealed.leaf);
        self.edge.push(sealed.leaf, |level, index, root| {
            nodes.insert((level, index), root);
            if level.is_multiple_of(TILE_HEIGHT) {
                rows.subtrees.0.push(level.into());
                rows.subtrees.1.push(store::signed(index));
                rows.subtrees.2.push(root.as_bytes().to_vec());
            }
        });
        self.last_leaf = sealed.leaf;
    }

    /// Number of entries after the batch.
    pub(super) const fn size(&self) -> u64 {
        self.edge.size()
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.rows.seqs.is_empty()
    }
}
