//! What all hosts of a command are sent alike: its entries with their proofs, its list of targets with
//! the tree over it. Made once for all of them, so that ten thousand hosts of one command cost one
//! reading and not ten thousand.
//!
//! It owns how long that is kept and how much of it. It must not know who listens.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use countersign_protocol::api::{
    Base64, Grant, ProvenEntry, Since, SnapshotBody, StreamBody, Work,
};
use countersign_protocol::canonical;
use countersign_protocol::entry::Entry;
use countersign_protocol::event::{Event, Kind};
use countersign_protocol::fold::Attachment;
use countersign_protocol::hash::{CommandId, KeyId};
use countersign_protocol::name::AgentName;
use countersign_protocol::rights::Rights;
use countersign_protocol::target::ProvableTargets;
use tokio::sync::OnceCell;

use super::app::App;
use super::error::ApiError;
use super::streams::{self, Wanted};
use crate::ledger::history;

/// How long it is kept: hosts that may ask for a young checkpoint ask for one of minutes.
const KEPT: Duration = Duration::from_secs(5);

/// Commands that it is kept of: with ten thousand hosts each takes some 4 MiB.
const MOST_KEPT: usize = 16;

/// What of a command all its hosts get alike.
#[derive(Debug)]
pub(super) struct Alike {
    stream: StreamBody,
    targets: ProvableTargets,
    newest: Option<ProvenEntry>,
    snapshot: Option<SnapshotBody>,
    cancel: Option<StreamBody>,
    authorized: bool,
    size: u64,
    /// As of which the snapshot is.
    rights: Option<Arc<Rights>>,
}

/// Which one is new enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Enough {
    /// Of a log of at least so many entries.
    Size(u64),
    /// One that has its cancel, if it was cancelled.
    Cancelled(bool),
}

#[derive(Debug)]
struct Slot {
    begun: Instant,
    cell: OnceCell<Arc<Alike>>,
}

/// The newest of some commands. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Grants(Arc<Mutex<HashMap<CommandId, Arc<Slot>>>>);

impl Grants {
    /// That of a command: the one at hand where it will do, else a new one. Whoever asks meanwhile
    /// waits for the same.
    pub(super) async fn of(
        &self,
        app: &App,
        id: CommandId,
        enough: Enough,
    ) -> Result<Arc<Alike>, ApiError> {
        let slot = self.slot(id, None);
        let alike = slot.cell.get_or_try_init(|| make(app, id)).await?;
        if alike.is_enough(enough) && alike.is_of(app.reader.rights_of_rows().as_ref()) {
            return Ok(Arc::clone(alike));
        }
        let slot = self.slot(id, Some(&slot));
        let alike = slot.cell.get_or_try_init(|| make(app, id)).await?;
        Ok(Arc::clone(alike))
    }

    /// The slot that is kept of a command, unless it is too old or this one.
    fn slot(&self, id: CommandId, not: Option<&Arc<Slot>>) -> Arc<Slot> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_this = |slot: &Arc<Slot>| not.is_some_and(|not| Arc::ptr_eq(not, slot));
        if let Some(slot) = kept.get(&id)
            && slot.begun.elapsed() < KEPT
            && !is_this(slot)
        {
            return Arc::clone(slot);
        }
        kept.retain(|_, slot| slot.begun.elapsed() < KEPT);
        while kept.len() >= MOST_KEPT {
            let oldest = kept.iter().min_by_key(|(_, slot)| slot.begun);
            let Some(oldest) = oldest.map(|(id, _)| *id) else {
                break;
            };
            kept.remove(&oldest);
        }
        let slot = Arc::new(Slot {
            begun: Instant::now(),
            cell: OnceCell::new(),
        });
        kept.insert(id, Arc::clone(&slot));
        slot
    }
}

impl Alike {
    fn is_enough(&self, enough: Enough) -> bool {
        match enough {
            Enough::Size(size) => self.size >= size,
            Enough::Cancelled(cancelled) => self.cancel.is_some() || !cancelled,
        }
    }

    /// Whether nothing was said about rights since: a policy snapshot comes along.
    fn is_of(&self, rights: Option<&Arc<Rights>>) -> bool {
        match (&self.rights, rights) {
            (Some(made_with), Some(now)) => Arc::ptr_eq(made_with, now),
            (Some(_), None) | (None, _) => false,
        }
    }

    pub(super) const fn is_cancelled(&self) -> bool {
        self.cancel.is_some()
    }

    /// The proof that its checkpoint goes on from what a host has seen, which spares that a question. It
    /// asks when it gets none.
    pub(super) async fn since(&self, app: &App, seen: Option<u64>) -> Option<Since> {
        let size = seen.filter(|seen| (1..=self.size).contains(seen))?;
        let proof = app.proofs.consistency(app.ledger.pool(), size, self.size);
        let proof = proof.await.ok()?.to_vec();
        Some(Since { size, proof })
    }

    /// The grant for one host, with its own line and a proof, not the list; none where the list names
    /// another key of it, or while nothing is authorized.
    pub(super) fn grant(
        &self,
        agent: &AgentName,
        key: &KeyId,
        since: Option<Since>,
    ) -> Result<Option<(u64, Work)>, ApiError> {
        let seq = last(&self.stream);
        let line = self.targets.list().line_of(agent);
        let Some((line_index, line)) = line.filter(|(_, line)| line.key_id == *key) else {
            return Ok(None);
        };
        if !self.authorized {
            return Ok(None);
        }
        let broken = || history::bad(seq, "the agent's line has no proof");
        let line_proof = self.targets.prove(line_index).map_err(|_| broken())?;
        let line = canonical::to_vec(line).map_err(|_| broken())?;
        let work = Work::Grant(Grant {
            stream: self.stream.clone(),
            line_index,
            line: Base64(line),
            line_proof,
            snapshot: self.snapshot.clone(),
            newest: self.newest.clone(),
            since,
        });
        Ok(Some((seq, work)))
    }

    /// That a person wants it stopped.
    pub(super) fn cancel(&self) -> Option<(u64, Work)> {
        let stream = self.cancel.clone()?;
        Some((last(&stream), Work::Cancel(stream)))
    }
}

fn last(stream: &StreamBody) -> u64 {
    stream.entries.last().map_or(0, |entry| entry.seq)
}

/// Entries that a host needs to judge for itself; other hosts' runs are none of its business.
fn concerns_host(event: &Event) -> bool {
    matches!(
        event.kind(),
        Kind::CommandRequested
            | Kind::CommandApproved
            | Kind::CommandRejected
            | Kind::CommandWithdrawn
            | Kind::CommandAuthorized
            | Kind::CommandExpired
            | Kind::CommandCancelRequested
    )
}

async fn make(app: &App, id: CommandId) -> Result<Arc<Alike>, ApiError> {
    let rights = app.reader.rights_of_rows();
    let checkpoint = app.ledger.newest();
    let size = checkpoint.size();
    let mut connection = app.ledger.pool().acquire().await?;
    // It runs without the reasons.
    let stream = Wanted {
        stream: id,
        event: &concerns_host,
        blob: &|event, digest| {
            let Event::CommandRequested(request) = event else {
                return false;
            };
            *digest != request.act.targets.list.digest && *digest != request.reason.digest
        },
    };
    let stream = streams::prove_in(&mut connection, &checkpoint, &stream).await?;
    let mut kinds = Vec::with_capacity(stream.entries.len());
    let mut targets = None;
    for item in &stream.entries {
        let entry = Entry::decode(&item.entry.0).map_err(|error| history::bad(item.seq, error))?;
        let statement = &entry.statement;
        kinds.push(statement.kind);
        if statement.kind == Kind::CommandRequested {
            let request = Event::parse(statement.kind, &statement.payload)
                .map_err(|error| history::bad(item.seq, error))?;
            let found = history::attachment(&mut connection, &request, item.seq).await?;
            if let Attachment::Request(list, _) = found {
                targets = list;
            }
        }
    }
    let broken = |why: &str| history::bad(last(&stream), why);
    let targets = targets.ok_or_else(|| broken("its list of targets is gone"))?;
    let targets = ProvableTargets::new(targets);
    let targets = targets.map_err(|_| broken("its list of targets has no tree"))?;
    let cancel = if kinds.contains(&Kind::CommandCancelRequested) {
        let cancel = Wanted {
            stream: id,
            event: &|event| {
                matches!(
                    event.kind(),
                    Kind::CommandRequested | Kind::CommandCancelRequested
                )
            },
            blob: &|_, _| false,
        };
        Some(streams::prove_in(&mut connection, &checkpoint, &cancel).await?)
    } else {
        None
    };
    let newest = streams::newest(&mut connection, size).await?;
    drop(connection);
    Ok(Arc::new(Alike {
        authorized: kinds.contains(&Kind::CommandAuthorized),
        stream,
        targets,
        newest,
        snapshot: streams::snapshot(app).await?,
        cancel,
        size,
        rights,
    }))
}
