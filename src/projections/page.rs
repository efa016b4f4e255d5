//! A run of entries, folded, and what they touched.
//!
//! A row is a function of the fold at the end of a page, so it makes no difference how the log is
//! cut into pages.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use countersign_protocol::audit::CheckedEntry;
use countersign_protocol::effecting_event;
use countersign_protocol::event::Event;
use countersign_protocol::fold::{State, Stream};
use countersign_protocol::hash::CommandId;
use countersign_protocol::judgement::Judge;
use countersign_protocol::lifecycle::{Command, CommandStatus, Execution};
use countersign_protocol::name::AgentName;
use countersign_protocol::rights::Rights;
use sqlx::PgConnection;

use crate::ledger::OpenError;
use crate::ledger::history;
use crate::ledger::store;

/// Entries in a page: one transaction's worth. What rows it comes to depends on the hosts of its commands.
pub(super) const PAGE: u64 = 512;

/// The fold after some entries. Commands are held while they are open and read back when touched.
#[derive(Debug)]
pub(super) struct Fold {
    state: State,
    next: u64,
}

/// What a page of entries came to.
pub(super) struct Page<'a> {
    /// The fold after it; all touched commands are held.
    state: &'a State,
    /// Commands whose rows may be others now.
    commands: BTreeMap<CommandId, Parts>,
    /// Its entries, in order.
    entries: Vec<CheckedEntry>,
    /// The labels of hosts where something was asked for, as they were then.
    labels: BTreeMap<(CommandId, AgentName), Vec<String>>,
    /// Whether keys, agents, policy or changes may be others now.
    pub(super) rights_touched: bool,
}

/// Which hosts' parts of a command may be others now.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Parts {
    All,
    These(BTreeSet<AgentName>),
}

impl Parts {
    const NONE: Self = Self::These(BTreeSet::new());

    /// After one more event: what a host says is of its own part alone.
    fn touch(&mut self, event: &Event) {
        match (self, event.host()) {
            (Self::These(hosts), Some(host)) => {
                hosts.insert(host.clone());
            }
            (parts @ Self::These(_), None) => *parts = Self::All,
            (Self::All, _) => {}
        }
    }
}

impl Page<'_> {
    /// Commands whose rows may be others now, as they stand.
    pub(super) fn commands(&self) -> impl Iterator<Item = &Command> {
        let ids = self.commands.keys();
        ids.filter_map(|id| self.state.command(id))
    }

    /// The hosts' parts of a command that may be others now: what ten thousand hosts do with one
    /// command must not write ten thousand rows for each.
    pub(super) fn parts<'a>(
        &'a self,
        command: &'a Command,
    ) -> impl Iterator<Item = (&'a AgentName, &'a Execution)> {
        let (all, these) = match self.commands.get(&command.id) {
            Some(Parts::All) => (Some(command.executions.iter()), None),
            Some(Parts::These(hosts)) => (None, Some(hosts)),
            None => (None, None),
        };
        let these = these.into_iter().flatten();
        let these = these.filter_map(|host| command.executions.get_key_value(host));
        all.into_iter().flatten().chain(these)
    }

    /// Commands that may be others for all their hosts: asked for, allowed, cancelled.
    pub(super) fn changed_for_all(&self) -> impl Iterator<Item = &Command> {
        let all = self
            .commands
            .iter()
            .filter(|(_, parts)| **parts == Parts::All);
        all.filter_map(|(id, _)| self.state.command(id))
    }

    /// Its entries, in order.
    pub(super) fn entries(&self) -> &[CheckedEntry] {
        &self.entries
    }

    /// The labels that a host had when a command of this page was asked for on it.
    pub(super) fn labels_then(&self, id: &CommandId, host: &AgentName) -> Vec<String> {
        let labels = self.labels.get(&(*id, host.clone()));
        labels.cloned().unwrap_or_default()
    }

    pub(super) const fn state(&self) -> &State {
        self.state
    }
}

impl Fold {
    /// The fold of entries before `next`; commands come when they are touched.
    pub(super) async fn at(
        connection: &mut PgConnection,
        next: u64,
        judge: &Arc<dyn Judge>,
    ) -> Result<Self, OpenError> {
        let state = history::rights(connection, next, judge).await?;
        Ok(Self { state, next })
    }

    /// The next entry that is not folded.
    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    /// Who may do what after the entries that were folded.
    pub(super) const fn rights(&self) -> &Rights {
        self.state.rights()
    }

    /// Folds the next page, at most up to `to`. Nothing when there are no more entries.
    pub(super) async fn page(
        &mut self,
        connection: &mut PgConnection,
        to: u64,
    ) -> Result<Option<Page<'_>>, OpenError> {
        let rows = store::entries(connection, self.next, to, PAGE).await?;
        if rows.is_empty() {
            return Ok(None);
        }
        let mut commands: BTreeMap<CommandId, Parts> = BTreeMap::new();
        let mut entries = Vec::with_capacity(rows.len());
        let mut labels = BTreeMap::new();
        let mut rights_touched = false;
        let mut requirement_touched = false;
        for row in &rows {
            let entry = history::check(row)?;
            if entry.seq != self.next {
                return Err(history::bad(self.next, "it is missing"));
            }
            let (event, at) = (entry.verified.event(), history::position(&entry));
            match Stream::of(event, at.id) {
                Some(Stream::Command(id)) => {
                    self.hold(connection, id, at.seq).await?;
                    commands.entry(id).or_insert(Parts::NONE).touch(event);
                }
                Some(Stream::Rights) => {
                    rights_touched = true;
                    requirement_touched |= is_looked_at(event);
                }
                None => {}
            }
            self.chain(connection, event).await?;
            let attachment = history::attachment(connection, event, at.seq).await?;
            self.state
                .admit(&entry.verified, at, entry.leaf, attachment)
                .map_err(|refusal| history::bad(at.seq, refusal))?;
            if matches!(event, Event::CommandRequested(_)) {
                self.labels_now(&at.id, &mut labels);
            }
            self.next += 1;
            entries.push(entry);
        }
        if requirement_touched {
            // How many approvals of an open request count is another question now.
            for id in store::open_streams(connection, self.next).await? {
                self.hold(connection, id, self.next).await?;
                // Of its hosts nothing has changed by that.
                commands.entry(id).or_insert(Parts::NONE);
            }
        }
        Ok(Some(Page {
            state: &self.state,
            commands,
            entries,
            labels,
            rights_touched,
        }))
    }

    /// Keeps the labels of the hosts of a command that was just asked for.
    fn labels_now(
        &self,
        id: &CommandId,
        labels: &mut BTreeMap<(CommandId, AgentName), Vec<String>>,
    ) {
        let Some(command) = self.state.command(id) else {
            return;
        };
        for host in command.executions.keys() {
            let of_host = self.state.rights().labels(host).map(ToString::to_string);
            let of_host: Vec<String> = of_host.collect();
            if !of_host.is_empty() {
                labels.insert((*id, host.clone()), of_host);
            }
        }
    }

    /// Drops the commands whose end is settled; whatever touches one again reads it back.
    pub(super) fn drop_settled(&mut self) {
        let settled: Vec<CommandId> = self
            .state
            .commands()
            .filter(|command| command.status().is_final())
            .map(|command| command.id)
            .collect();
        for id in settled {
            self.state.close(&id);
        }
    }

    async fn hold(
        &mut self,
        connection: &mut PgConnection,
        id: CommandId,
        before: u64,
    ) -> Result<(), OpenError> {
        if self.state.command(&id).is_none()
            && let Some(command) = history::command(connection, id, before).await?
        {
            self.state.restore(command);
        }
        Ok(())
    }

    async fn chain(
        &mut self,
        connection: &mut PgConnection,
        event: &Event,
    ) -> Result<(), OpenError> {
        let Some((agent, seq, _)) = countersign_protocol::fold::agent_link(event) else {
            return Ok(());
        };
        if self.state.chain(&agent).is_none() {
            let chain = history::chain_before(connection, &agent, seq).await?;
            self.state.restore_chain(agent, chain);
        }
        Ok(())
    }
}

/// Says whether an event changes what a judgement may look at: rights, and the time as of which a
/// command that waits is judged ([`Rights::changed_at`]).
const fn is_looked_at(event: &Event) -> bool {
    matches!(
        event,
        effecting_event!()
            | Event::AgentKeyRetired(_)
            | Event::ReviewOpened(_)
            | Event::ReviewClosed(_)
    )
}

/// Says whether a command waits for people.
pub(super) fn waits(command: &Command) -> bool {
    command.status() == CommandStatus::Requested
}
