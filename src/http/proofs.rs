//! Proofs that the log at one size begins with the log at a smaller one, made once for all who ask: the
//! statements of one batch share a checkpoint, so ten thousand hosts ask for a few dozen of them.
//!
//! It owns how many are kept. Proofs prove themselves, so an old one is as good as a new one.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use countersign_protocol::hash::Hash;
use countersign_protocol::proof;
use sqlx::PgPool;
use tokio::sync::OnceCell;

use super::error::ApiError;
use crate::ledger::{history, store};

/// Proofs that are kept, some 2 MiB: a fleet that starts together asks for fewer than that.
const KEPT: usize = 1024;

type Proof = Arc<OnceCell<Arc<[Hash]>>>;

#[derive(Debug, Default)]
struct Kept {
    of: HashMap<(u64, u64), Proof>,
    /// The oldest first.
    order: VecDeque<(u64, u64)>,
}

/// Proofs that were asked for. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Proofs(Arc<Mutex<Kept>>);

impl Proofs {
    /// The proof from one size to a larger one that is committed. Whoever asks meanwhile waits for the
    /// same reading.
    pub(super) async fn consistency(
        &self,
        pool: &PgPool,
        from: u64,
        to: u64,
    ) -> Result<Arc<[Hash]>, ApiError> {
        let cell = self.cell((from, to));
        let proof = cell.get_or_try_init(|| read(pool, from, to)).await?;
        Ok(Arc::clone(proof))
    }

    fn cell(&self, sizes: (u64, u64)) -> Proof {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cell) = kept.of.get(&sizes) {
            return Arc::clone(cell);
        }
        if kept.order.len() >= KEPT
            && let Some(oldest) = kept.order.pop_front()
        {
            kept.of.remove(&oldest);
        }
        let cell = Proof::default();
        kept.order.push_back(sizes);
        kept.of.insert(sizes, Arc::clone(&cell));
        cell
    }
}

async fn read(pool: &PgPool, from: u64, to: u64) -> Result<Arc<[Hash]>, ApiError> {
    let mut connection = pool.acquire().await?;
    let wanted = proof::nodes_for_consistency(from, to);
    let nodes = store::nodes(&mut connection, &wanted).await?;
    let proof = proof::consistency_proof(&nodes, from, to)
        .ok_or_else(|| history::bad(to, "nodes of the tree are missing"))?;
    Ok(proof.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_the_same_shares_it_and_the_oldest_goes() {
        let proofs = Proofs::default();
        let first = proofs.cell((1, 2));
        assert!(Arc::ptr_eq(&first, &proofs.cell((1, 2))));
        for to in 3..3 + KEPT as u64 {
            proofs.cell((1, to));
        }
        assert!(!Arc::ptr_eq(&first, &proofs.cell((1, 2))));
        let kept = proofs.0.lock().unwrap();
        assert_eq!((kept.of.len(), kept.order.len()), (KEPT, KEPT));
    }
}
