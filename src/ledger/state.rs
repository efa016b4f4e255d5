//! The folded state that decisions read, kept in step with the database.
//!
//! Rights are held whole. Commands are held while they are open; a closed one is read back from the
//! log when something touches it. Live entries, entries of other servers and entries read at the
//! start all go through the protocol's fold.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use countersign_protocol::event::Event;
use countersign_protocol::fold::{State, Stream};
use countersign_protocol::hash::{CommandId, Hash, KeyId, StatementId};
use countersign_protocol::judgement::Judge;
use countersign_protocol::merkle::RightEdge;
use countersign_protocol::name::Time;
use sqlx::PgConnection;

use super::error::OpenError;
use super::history::{self, attachment, bad, check, position};
use super::store::{self, EntryRow, HeadRow};

/// Entries read at a time while catching up: some 16 MiB at the most.
const CATCH_UP_PAGE: u64 = 512;

/// Roots of recent checkpoints that are kept, so that most `seen`s need no query.
const KNOWN_ROOTS: usize = 4096;

/// Settled commands that stay held: a command with much output is costly to read back, and whoever
/// goes on about it must not make everybody wait under the head lock each time.
const KEPT_SETTLED: usize = 64;

/// Hosts of all settled commands that stay held, to bound the memory: some 64 MiB. A list has some 20,000 at most, so
/// that the newest of them stays held whatever it is.
const KEPT_HOSTS: usize = 64 * 1024;

/// The state after `size` entries.
#[derive(Debug)]
pub(super) struct Folded {
    pub(super) fold: State,
    pub(super) edge: RightEdge,
    pub(super) last_leaf: Hash,
    pub(super) last_time: Time,
    /// Roots at sizes that were committed.
    roots: BTreeMap<u64, Hash>,
    /// Settled commands that are still held, the longest settled first.
    settled: VecDeque<CommandId>,
}

impl Folded {
    /// Before the first entry.
    pub(super) fn empty(judge: &Arc<dyn Judge>) -> Self {
        Self {
            fold: State::new(Arc::clone(judge)),
            edge: RightEdge::default(),
            last_leaf: Hash::ZERO,
            last_time: Time::from_micros(0).unwrap_or_else(|| unreachable!("0 is a time")),
            roots: BTreeMap::new(),
            settled: VecDeque::new(),
        }
    }

    /// Reads rights and open commands back, as of the head that is given.
    pub(super) async fn load(
        connection: &mut PgConnection,
        head: &HeadRow,
        judge: &Arc<dyn Judge>,
    ) -> Result<Self, OpenError> {
        let mut state = Self::empty(judge);
        state.fold = history::rights(connection, head.size, judge).await?;
        for id in store::open_streams(connection, head.size).await? {
            state.hold(connection, id, head.size).await?;
        }
        // Commands that are over keep others apart for as long as their gaps are.
        for id in store::last_label_turns(connection, head.size).await? {
            let is_open = state.fold.command(&id).is_some();
            state.hold(connection, id, head.size).await?;
            if !is_open {
                drop(state.fold.close(&id));
            }
        }
        state.edge = RightEdge::from_hashes(head.size, head.right_edge.clone())
            .map_err(|_| OpenError::Head("its right edge does not fit its size"))?;
        state.last_leaf = head.last_leaf;
        state.last_time =
            Time::from_micros(head.last_time_us).ok_or(OpenError::Head("its time"))?;
        Ok(state)
    }

    /// Number of entries folded.
    pub(super) const fn size(&self) -> u64 {
        self.edge.size()
    }

    /// Folds what other servers appended since. The head is locked.
    pub(super) async fn catch_up(
        &mut self,
        connection: &mut PgConnection,
        head: &HeadRow,
    ) -> Result<(), OpenError> {
        while self.size() < head.size {
            let from = self.size();
            let rows = store::entries(connection, from, head.size, CATCH_UP_PAGE).await?;
            if rows.is_empty() {
                return Err(bad(from, "it is missing"));
            }
            let mut touched = BTreeSet::new();
            for row in rows {
                touched.extend(self.follow(connection, &row).await?);
            }
            // Once for all of them: whether a command of ten thousand hosts is over takes a look at each.
            for command in touched {
                self.settle(&command);
            }
        }
        if self.size() > head.size {
            return Err(OpenError::Behind {
                database: head.size,
                file: self.size(),
            });
        }
        if self.edge.hashes() != head.right_edge || self.last_leaf != head.last_leaf {
            return Err(OpenError::OtherHistory(head.size));
        }
        Ok(())
    }

    /// Folds one entry of another server; gives the command that it is about.
    async fn follow(
        &mut self,
        connection: &mut PgConnection,
        row: &EntryRow,
    ) -> Result<Option<CommandId>, OpenError> {
        let entry = check(row)?;
        if entry.seq != self.size() || entry.prev != self.last_leaf || entry.time < self.last_time {
            return Err(bad(row.seq, "it does not link to the one before it"));
        }
        let event = entry.verified.event();
        if let Some((agent, number, _)) = countersign_protocol::fold::agent_link(event)
            && self.fold.chain(&agent).is_none()
        {
            // The database holds this very link already, and those after it.
            self.load_chain(connection, &agent, number).await?;
        }
        self.touch(connection, event, entry.verified.id(), entry.seq)
            .await?;
        let attachment = attachment(connection, event, row.seq).await?;
        let at = position(&entry);
        self.fold
            .admit(&entry.verified, at, entry.leaf, attachment)
            .map_err(|refusal| bad(row.seq, refusal))?;
        let command = match Stream::of(event, at.id) {
            Some(Stream::Command(command)) => Some(command),
            Some(Stream::Rights) | None => None,
        };
        self.edge.push(entry.leaf, |_, _, _| {});
        self.last_leaf = entry.leaf;
        self.last_time = entry.time;
        Ok(command)
    }

    /// Makes sure that what an event will be judged by is held: its command, its agent's chain.
    pub(super) async fn touch(
        &mut self,
        connection: &mut PgConnection,
        event: &Event,
        id: StatementId,
        before: u64,
    ) -> Result<(), OpenError> {
        if let Some(Stream::Command(command)) = Stream::of(event, id)
            && command != id
        {
            self.hold(connection, command, before).await?;
        }
        if let Event::CommandRequested(request) = event
            && let Some(retry) = &request.retry
        {
            self.hold(connection, retry.of, before).await?;
        }
        if let Some((agent, ..)) = countersign_protocol::fold::agent_link(event)
            && self.fold.chain(&agent).is_none()
        {
            self.load_chain(connection, &agent, u64::MAX).await?;
        }
        Ok(())
    }

    /// Makes sure that a command is held.
    pub(super) async fn hold(
        &mut self,
        connection: &mut PgConnection,
        command: CommandId,
        before: u64,
    ) -> Result<(), OpenError> {
        if self.fold.command(&command).is_none()
            && let Some(command) = history::command(connection, command, before).await?
        {
            self.fold.restore(command);
        }
        Ok(())
    }

    async fn load_chain(
        &mut self,
        connection: &mut PgConnection,
        agent: &KeyId,
        before: u64,
    ) -> Result<(), OpenError> {
        let chain = history::chain_before(connection, agent, before).await?;
        self.fold.restore_chain(*agent, chain);
        Ok(())
    }

    /// Lets go of a command if it is settled; the next event that touches it reads it back.
    fn settle(&mut self, command: &CommandId) {
        let held = self.fold.command(command);
        if held.is_some_and(|held| held.status().is_final()) {
            drop(self.fold.close(command));
        }
    }

    /// After a batch that touched these commands: few of those that are settled stay held.
    pub(super) fn let_go(&mut self, touched: &BTreeSet<CommandId>) {
        for id in touched {
            let Some(command) = self.fold.command(id) else {
                continue;
            };
            if !command.status().is_final() {
                continue;
            }
            self.settled.retain(|kept| kept != id);
            self.settled.push_back(*id);
        }
        let hosts = |id: &CommandId| {
            self.fold
                .command(id)
                .map_or(0, |held| held.executions.len())
        };
        let mut held: usize = self.settled.iter().map(hosts).sum();
        while self.settled.len() > KEPT_SETTLED || held > KEPT_HOSTS {
            let Some(id) = self.settled.pop_front() else {
                break;
            };
            let gone = self.fold.close(&id);
            held = held.saturating_sub(gone.map_or(0, |gone| gone.executions.len()));
        }
    }

    /// This log's root at a committed size.
    pub(super) async fn root_at(
        &mut self,
        connection: &mut PgConnection,
        size: u64,
    ) -> Result<Option<Hash>, OpenError> {
        if let Some(root) = self.roots.get(&size) {
            return Ok(Some(*root));
        }
        let Some(note) = store::note(connection, size).await? else {
            return Ok(None);
        };
        // The head's own signature was checked; older notes are compared by `verify`.
        let text = note.split_once("\n\n").map_or("", |(text, _)| text);
        let body: countersign_protocol::checkpoint::CheckpointBody =
            format!("{text}\n").parse().map_err(OpenError::Checkpoint)?;
        self.know_root(size, body.root);
        Ok(Some(body.root))
    }

    /// Remembers the root of a committed checkpoint.
    pub(super) fn know_root(&mut self, size: u64, root: Hash) {
        if self.roots.len() >= KNOWN_ROOTS {
            self.roots.pop_first();
        }
        self.roots.insert(size, root);
    }
}
