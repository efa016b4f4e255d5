//! The newest snapshot that this host has verified, and every key that one of them revoked.
//!
//! Durable before it is relied on, as the remembered checkpoint is. It never goes back: an older
//! snapshot takes no newer one's place, and a revoked key is never forgotten. It is one for all
//! keys of the host. What stands here is verified again each time: administrators may be other
//! ones by now.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use countersign_protocol::api::SnapshotBody;
use countersign_protocol::event::RefusalReason;
use countersign_protocol::hash::{KeyId, LedgerId};
use countersign_protocol::name::{Principal, Time};
use countersign_protocol::snapshot::{MAX_REVOKED, Snapshot};
use serde::{Deserialize, Serialize};

use super::weigh::{NoSnapshot, Signed, SnapshotRule};
use crate::key;
use crate::rules::LocalRefusal;

/// The file, in the folder of the agent's state.
pub const FILE: &str = "snapshot";

/// Most revoked keys that are kept: several snapshots full of them. Past it none is forgotten, and
/// no snapshot with more of them is taken.
pub const MAX_REVOKED_KEPT: usize = 4 * MAX_REVOKED;

/// Largest file: a document in base64, its signatures, and the revoked keys.
const MAX_FILE_BYTES: u64 = 8 << 20;

/// The table that refusals name.
pub(crate) const SETTING: &str = "snapshot";

/// Why the memory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The disk.
    #[error("the remembered policy snapshot {} cannot be read: {source}", .path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something else stands in the file.
    #[error(
        "{} does not hold what this agent wrote. It knows which keys were revoked, so the agent \
         does not start without it; restore it, or remove it when you know that every revoked key \
         is out of allowed_signers", .0.display()
    )]
    Malformed(PathBuf),
}

/// What stands in the file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    snapshot: Option<SnapshotBody>,
    revoked: BTreeSet<KeyId>,
    /// Size of the log that the snapshot was made from; 0 without one.
    size: u64,
}

impl Kept {
    /// The kept one, verified again.
    fn signed(
        &self,
        rule: &SnapshotRule,
        ledger: &LedgerId,
        now: Time,
    ) -> Result<Signed, NoSnapshot> {
        let body = self.snapshot.as_ref().ok_or(NoSnapshot::Missing)?;
        Signed::read(body, rule, ledger, &self.revoked, now)
    }
}

/// The memory. Clones of an agent's parts share one.
#[derive(Debug, Default)]
pub struct Snapshots {
    /// None: in memory alone, for a host that is only looked at.
    path: Option<PathBuf>,
    kept: Mutex<Kept>,
}

/// What a host goes by for one grant.
#[derive(Debug)]
pub(crate) struct Standing {
    /// The snapshot and until when it holds. None: the host does not ask for one.
    pub(crate) snapshot: Option<(Snapshot, Time)>,
    /// Why there is none although the host asks for one: nothing runs.
    pub(crate) refusal: Option<LocalRefusal>,
    /// Keys that count for nothing.
    pub(crate) revoked: BTreeSet<KeyId>,
}

impl Standing {
    /// Refused for want of a snapshot that holds, where the host asks for one.
    pub(crate) fn check(&self) -> Result<(), LocalRefusal> {
        self.refusal.clone().map_or(Ok(()), Err)
    }

    /// The larger of the host's number of people and the snapshot's, and who demands it.
    pub(crate) fn least(&self, own: (u32, &'static str)) -> (u32, &'static str) {
        match &self.snapshot {
            Some((snapshot, _)) if snapshot.min_approvals > own.0 => {
                (snapshot.min_approvals, SETTING)
            }
            Some(_) | None => own,
        }
    }
}

impl Snapshots {
    /// Opens the memory in the folder of the agent's state.
    ///
    /// # Errors
    /// See [`MemoryError`].
    pub fn open(state: &Path) -> Result<Self, MemoryError> {
        let path = state.join(FILE);
        let io = |source| MemoryError::Io {
            path: path.clone(),
            source,
        };
        let mut text = Vec::new();
        let kept = match File::open(&path) {
            Ok(file) => {
                let mut file = file.take(MAX_FILE_BYTES);
                file.read_to_end(&mut text).map_err(io)?;
                let kept = serde_json::from_slice(&text);
                kept.map_err(|_| MemoryError::Malformed(path.clone()))?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Kept::default(),
            Err(source) => return Err(io(source)),
        };
        Ok(Self {
            path: Some(path),
            kept: Mutex::new(kept),
        })
    }

    /// Takes what came with a grant into account, and says what the host goes by. `rule` is its
    /// setting; without one it still knows which keys were revoked.
    pub(crate) fn weigh(
        &self,
        offered: Option<&SnapshotBody>,
        rule: Option<&SnapshotRule>,
        ledger: &LedgerId,
        now: Time,
    ) -> Standing {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(rule) = rule else {
            return Standing {
                snapshot: None,
                refusal: None,
                revoked: kept.revoked.clone(),
            };
        };
        let learned = offered.map_or(Ok(()), |body| {
            let signed = Signed::read(body, rule, ledger, &kept.revoked, now);
            let signed = signed.map_err(refusal)?;
            self.learn(&mut kept, body, &signed)
        });
        let held = kept.signed(rule, ledger, now).and_then(|signed| {
            let until = signed.holds(rule, now)?;
            Ok((signed.snapshot, until))
        });
        let revoked = kept.revoked.clone();
        let (snapshot, refusal) = match (held, learned) {
            // What it could not write down it could forget again.
            (_, Err(error)) if error.why == RefusalReason::Busy => (None, Some(error)),
            (Ok(held), _) => (Some(held), None),
            (Err(NoSnapshot::Missing), Err(error)) => (None, Some(error)),
            (Err(why), _) => (None, Some(refusal(why))),
        };
        Standing {
            snapshot,
            refusal,
            revoked,
        }
    }

    /// What the host goes by for a cancel. Stopping is always safe, so the kept snapshot says who is known
    /// however old it is; a revoked key counts for nothing all the same.
    pub(crate) fn weigh_to_stop(
        &self,
        rule: Option<&SnapshotRule>,
        ledger: &LedgerId,
        now: Time,
    ) -> Standing {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let signed = rule.and_then(|rule| kept.signed(rule, ledger, now).ok());
        Standing {
            // For this one moment.
            snapshot: signed.map(|signed| (signed.snapshot, now)),
            refusal: None,
            revoked: kept.revoked.clone(),
        }
    }

    /// What is kept, also when it holds no more: the words that count, as long as enough of them do,
    /// and the keys that count for nothing.
    pub(super) fn kept(
        &self,
        rule: &SnapshotRule,
        ledger: &LedgerId,
        now: Time,
    ) -> (Result<Signed, NoSnapshot>, BTreeSet<KeyId>) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        (kept.signed(rule, ledger, now), kept.revoked.clone())
    }

    /// Administrators of the rule of whom some key could sign for this host at `now`.
    pub(crate) fn able(&self, rule: &SnapshotRule, now: Time) -> Vec<Principal> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let is_revoked = |id: &KeyId| kept.revoked.contains(id);
        let keys = rule.administrators.keys();
        let able = keys.filter(|(key, who)| rule.counts(key, who, is_revoked, now).is_ok());
        let able: BTreeSet<&Principal> = able.map(|(_, who)| who).collect();
        able.into_iter().cloned().collect()
    }

    /// Remembers what is new in a snapshot that enough administrators have signed.
    fn learn(
        &self,
        kept: &mut Kept,
        body: &SnapshotBody,
        signed: &Signed,
    ) -> Result<(), LocalRefusal> {
        let size = signed.snapshot.seen.size;
        let mut next = kept.clone();
        next.revoked.extend(&signed.snapshot.revoked);
        // The same document may come with another signature.
        if size >= kept.size && kept.snapshot.as_ref() != Some(body) {
            next.snapshot = Some(body.clone());
            next.size = size;
        }
        if next.revoked.len() > MAX_REVOKED_KEPT {
            let detail = "more keys were revoked than this host can remember";
            return Err(busy(detail));
        }
        let is_news = next.size != kept.size
            || next.snapshot != kept.snapshot
            || next.revoked.len() != kept.revoked.len();
        if !is_news {
            return Ok(());
        }
        if let Some(path) = &self.path {
            let written = serde_json::to_vec(&next)
                .map_err(io::Error::other)
                .and_then(|bytes| key::replace_private(path, &bytes));
            written.map_err(|error| {
                busy(&format!(
                    "the policy snapshot cannot be kept on this host: {error}"
                ))
            })?;
        }
        *kept = next;
        Ok(())
    }
}

fn busy(detail: &str) -> LocalRefusal {
    LocalRefusal::new(RefusalReason::Busy, SETTING, detail)
}

fn refusal(why: NoSnapshot) -> LocalRefusal {
    let class = if why.is_of_time() {
        RefusalReason::Time
    } else {
        RefusalReason::Approvals
    };
    let detail = format!(
        "no policy snapshot holds on this host: {why}; let administrators run `countersign policy \
         snapshot` and ask again"
    );
    LocalRefusal::new(class, SETTING, detail)
}
