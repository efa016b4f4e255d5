//! What all hosts of a command are sent alike: its entries with their proofs, its list of targets with
//! the tree over it. Made once for all of them, so that ten thousand hosts of one command cost one
//! reading and not ten thousand.
//!
//! It owns how long that is kept and how much of it. It must not know who listens.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use countersign_protocol::api::{
    Ahead, Base64, Grant, ProvenEntry, Since, SnapshotBody, StreamBody, Work,
};
use countersign_protocol::canonical;
use countersign_protocol::entry::Entry;
use countersign_protocol::event::{Event, Kind};
use countersign_protocol::fold::Attachment;
use countersign_protocol::hash::{CommandId, Hash, KeyId};
use countersign_protocol::name::AgentName;
use countersign_protocol::rights::Rights;
use countersign_protocol::rollout::Plan;
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
    targets: Arc<ProvableTargets>,
    newest: Option<ProvenEntry>,
    snapshot: Option<SnapshotBody>,
    cancel: Option<StreamBody>,
    authorized: bool,
    /// Its hosts start in turns, so that each gets more than this.
    plan: Option<Plan>,
    id: CommandId,
    size: u64,
    /// As of which the snapshot is.
    rights: Option<Arc<Rights>>,
}

/// What a host of a rollout gets besides: that it has its turn, and the end of the host before it.
#[derive(Debug)]
pub(super) struct Turn {
    released: ProvenEntry,
    ahead: Option<Box<Ahead>>,
}

/// Which one is new enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Enough {
    /// Of a log of at least so many entries.
    Size(u64),
    /// One that was authorized, and has its cancel if it was cancelled.
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
        let alike = slot.cell.get_or_try_init(|| make(app, id, None)).await?;
        if alike.is_enough(enough) && alike.is_of(app.reader.rights_of_rows().as_ref()) {
            return Ok(Arc::clone(alike));
        }
        let slot = self.slot(id, Some(&slot));
        let again = || make(app, id, Some(&alike.targets));
        let alike = slot.cell.get_or_try_init(again).await?;
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
            Enough::Cancelled(cancelled) => {
                self.authorized && (self.cancel.is_some() || !cancelled)
            }
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

    pub(super) const fn goes_in_turns(&self) -> bool {
        self.plan.is_some()
    }

    /// The turn of one host, proved for the same checkpoint; none where all hosts start at once.
    pub(super) async fn turn(
        &self,
        app: &App,
        agent: &AgentName,
    ) -> Result<Option<Turn>, ApiError> {
        let Some(plan) = &self.plan else {
            return Ok(None);
        };
        let broken = || history::bad(last(&self.stream), "the host's turn cannot be shown");
        // By the rows: the whole stream again for each of ten thousand hosts would be their square.
        let places = app.reader.places(&self.id, agent).await?;
        let released = places.released.ok_or_else(broken)?;
        let before = match self.host_before(plan, agent) {
            Some(before) => {
                let over = app.reader.places(&self.id, before).await?.over;
                Some((before, over.ok_or_else(broken)?))
            }
            None => None,
        };
        // One connection at a time, and none while it waits for the rows: a hundred hosts whose turn comes at
        // once would hold all there are, each waiting for one more.
        let mut connection = app.ledger.pool().acquire().await?;
        let released = streams::one(&mut connection, released, self.size).await?;
        let ahead = match before {
            Some((before, over)) => {
                let (line_index, line, line_proof) = self.line_of(before).ok_or_else(broken)?;
                let entry = streams::one(&mut connection, over, self.size).await?;
                Some(Box::new(Ahead {
                    entry: entry.ok_or_else(broken)?,
                    line_index,
                    line,
                    line_proof,
                }))
            }
            None => None,
        };
        Ok(Some(Turn {
            released: released.ok_or_else(broken)?,
            ahead,
        }))
    }

    /// Whose end a host's turn waited for.
    fn host_before(&self, plan: &Plan, agent: &AgentName) -> Option<&AgentName> {
        let targets = self.targets.list();
        let (index, line) = targets.line_of(agent)?;
        let before = plan.waits_for(line.turn_at(index))?;
        Some(&targets.at_turn(before)?.agent)
    }

    /// A host's line with its index and proof.
    fn line_of(&self, agent: &AgentName) -> Option<(u64, Base64, Vec<Hash>)> {
        let (index, line) = self.targets.list().line_of(agent)?;
        let proof = self.targets.prove(index).ok()?;
        Some((index, Base64(canonical::to_vec(line).ok()?), proof))
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
        (agent, key): (&AgentName, &KeyId),
        since: Option<Since>,
        turn: Option<Turn>,
    ) -> Result<Option<(u64, Work)>, ApiError> {
        let line = self.targets.list().line_of(agent);
        let is_own = line.is_some_and(|(_, line)| line.key_id == *key);
        if !is_own || !self.authorized || (self.plan.is_some() && turn.is_none()) {
            return Ok(None);
        }
        let mut stream = self.stream.clone();
        let mut ahead = None;
        if let Some(turn) = turn {
            let before = |entry: &ProvenEntry| entry.seq < turn.released.seq;
            let place = stream.entries.partition_point(before);
            stream.entries.insert(place, turn.released);
            ahead = turn.ahead;
        }
        let seq = last(&stream);
        let broken = || history::bad(seq, "the agent's line has no proof");
        let (line_index, line, line_proof) = self.line_of(agent).ok_or_else(broken)?;
        let work = Work::Grant(Box::new(Grant {
            stream,
            line_index,
            line,
            line_proof,
            ahead,
            snapshot: self.snapshot.clone(),
            newest: self.newest.clone(),
            since,
        }));
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
            | Kind::RolloutContinued
    )
}

/// Reads it; its targets only where they are not `known`, for they never change.
async fn make(
    app: &App,
    id: CommandId,
    known: Option<&Arc<ProvableTargets>>,
) -> Result<Arc<Alike>, ApiError> {
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
    let mut list = None;
    let mut asked = None;
    let mut plan = None;
    for item in &stream.entries {
        let entry = Entry::decode(&item.entry.0).map_err(|error| history::bad(item.seq, error))?;
        let statement = &entry.statement;
        kinds.push(statement.kind);
        let parsed = || {
            Event::parse(statement.kind, &statement.payload)
                .map_err(|error| history::bad(item.seq, error))
        };
        if statement.kind == Kind::CommandRequested {
            let request = parsed()?;
            if known.is_none()
                && let Attachment::Request(found, _) =
                    history::attachment(&mut connection, &request, item.seq).await?
            {
                list = found;
            }
            asked = Some(request);
        } else if statement.kind == Kind::CommandAuthorized
            && let Some(Event::CommandRequested(request)) = &asked
            && let Event::CommandAuthorized(authorized) = parsed()?
        {
            plan = Plan::of(&request.act, &authorized.requirement);
        }
    }
    let broken = |why: &str| history::bad(last(&stream), why);
    let targets = match known {
        Some(known) => Arc::clone(known),
        None => {
            let list = list.ok_or_else(|| broken("its list of targets is gone"))?;
            let targets = ProvableTargets::new(list);
            Arc::new(targets.map_err(|_| broken("its list of targets has no tree"))?)
        }
    };
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
        plan,
        id,
        size,
        rights,
    }))
}
