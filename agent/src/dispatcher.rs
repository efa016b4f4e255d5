//! The dispatcher: takes work from the world, hands commands to their runs, and ends them all.
//!
//! `listener` keeps the stream of work open, `stopping` is its end.
//!
//! It knows which commands are under way and how to cancel them. What may run is `admission`'s,
//! how one runs is `running`'s. Everything reaches it as a message, one at a time. It serves one
//! key; a host with two has two, which share the places for runs.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use countersign_protocol::api::{Grant, StreamBody, Work};
use countersign_protocol::checkpoint::Checkpoint;
use countersign_protocol::event::RefusalReason;
use countersign_protocol::hash::CommandId;
use countersign_protocol::name::Time;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::admission::{MAX_CHECKPOINT_AGE, Permit, Pins, Verdict};
use crate::aside::Aside;
use crate::config::Config;
use crate::idle;
use crate::listener;
use crate::manager::Pulse;
use crate::orders::Orders;
use crate::own;
use crate::reload::Policy;
use crate::rules::LocalRefusal;
use crate::snapshot::SETTING as SNAPSHOT;
use crate::station::{AgentError, Station, tolerate};
use crate::trust::ViewError;
use crate::witnessed::{self, Waits, Word};

/// Work that was read and not yet looked at; the server holds the rest back.
const MAX_UNREAD: usize = 4;

/// How long a grant waits for a server that does not answer with its proof.
const PROOF_PAUSE: Duration = Duration::from_secs(1);

/// How long texts that were delivered stay in the journal, at the most, while little waits: a minute's
/// writing anew costs nothing beside the runs that it follows.
const FORGET_EVERY: Duration = Duration::from_secs(30);

/// Commands cancelled before they came, remembered so that they are not started.
const MAX_CANCELLED: usize = 1024;

/// Statements of refusal under way at once; past it no more work is looked at until one is said.
const MAX_REFUSALS: usize = 64;

/// When a piece of work came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Came {
    /// The server has just sent it.
    Now,
    /// It was put aside before.
    Again,
}

/// A command under way.
pub(crate) struct Active {
    pub(crate) cancel: CancellationToken,
    pub(crate) is_run: bool,
    /// From TERM to KILL, as it was when the command was taken.
    pub(crate) grace: Duration,
}

/// How a dispatcher came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It was told to stop.
    Asked,
    /// Its key's grace is over, and so is all that it had begun.
    Left,
}

/// The runs of all keys of the host.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places(Arc<AtomicUsize>);

/// One of them, until it is dropped.
struct Place(Places);

impl Places {
    /// A place, if fewer than `most` are taken.
    fn take(&self, most: usize) -> Option<Place> {
        let more = |taken: usize| (taken < most).then_some(taken.saturating_add(1));
        let taken = self
            .0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, more);
        taken.ok().map(|_| Place(self.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

pub(crate) type Ended = (Option<CommandId>, Result<(), AgentError>);

pub(crate) struct Dispatcher {
    pub(crate) station: Arc<Station>,
    /// By the configuration that was read last.
    pub(crate) policy: Policy,
    /// Configurations that were read again.
    live: watch::Receiver<Arc<Config>>,
    places: Places,
    /// Nothing is begun any more.
    leaving: bool,
    pub(crate) active: HashMap<CommandId, Active>,
    cancelled: VecDeque<CommandId>,
    /// Asks the server for all that is open, with today's proofs.
    pub(crate) again: Arc<Notify>,
    pub(crate) tasks: JoinSet<Ended>,
    /// Grants whose time has not come, and what waits for a proof.
    pub(crate) aside: Aside,
    /// Grants among these for which the witnesses' word is too old.
    old_words: Waits,
    /// When the next idle statement is due, if any is.
    idle_due: Option<Instant>,
    /// The last one; one at a time is under way.
    idle: Option<AbortHandle>,
    /// What is said of the host's facts; one at a time is under way.
    facts: Option<AbortHandle>,
    /// Somebody wants an idle statement that speaks up to now.
    idle_asked: bool,
}

impl Dispatcher {
    /// For a key with these pins, by the configuration that is live.
    pub(crate) fn new(
        station: Arc<Station>,
        pins: Pins,
        mut live: watch::Receiver<Arc<Config>>,
        places: Places,
    ) -> Self {
        let config = Config::clone(&live.borrow_and_update());
        let memory = Arc::clone(&station.snapshots);
        let policy = Policy::of(config, pins, station.identity.created(), memory);
        station.spool.bound(policy.spool_max);
        let idle_due = idle::next(policy.idle_every);
        Self {
            station,
            policy,
            live,
            places,
            leaving: false,
            active: HashMap::new(),
            cancelled: VecDeque::new(),
            again: Arc::default(),
            tasks: JoinSet::new(),
            aside: Aside::default(),
            old_words: Waits::default(),
            idle_due,
            idle: None,
            facts: None,
            idle_asked: false,
        }
    }

    /// Works until it is told to stop, lets what runs go on for a while, then ends it. Runs that an
    /// earlier process left are finished first in the log: their output, then that they are lost.
    /// From `leave` on it begins nothing, and ends with what it has begun.
    pub(crate) async fn work(
        mut self,
        orders: &Orders,
        leave: &CancellationToken,
    ) -> Result<End, AgentError> {
        let mut pulse = Pulse::new(Arc::clone(&orders.manager));
        self.recover();
        let (sender, mut work) = mpsc::channel(MAX_UNREAD);
        let stop_listening = CancellationToken::new();
        let listener = AbortOnDropHandle::new(tokio::spawn(listener::listen(
            Arc::clone(&self.station),
            sender,
            Arc::clone(&self.again),
            stop_listening.clone(),
        )));
        let mut result = self.take_all(&mut work, orders, &mut pulse, leave).await;
        if matches!(result, Ok(End::Asked)) {
            let drained = self.drain(&mut work, orders, &mut pulse).await;
            result = drained.map(|()| End::Asked);
        }
        stop_listening.cancel();
        drop(work);
        if !matches!(result, Ok(End::Left)) {
            self.end_all(&mut pulse).await;
        }
        if matches!(result, Ok(End::Asked)) {
            self.say_last().await;
        }
        if let Err(error) = listener.await {
            tracing::error!(%error, "the listener died");
        }
        result
    }

    fn recover(&mut self) {
        let station = Arc::clone(&self.station);
        self.tasks.spawn(async move {
            let result = async {
                station.settle().await?;
                for started in station.spool.open_runs() {
                    station.finish(started).await?;
                }
                Ok(())
            };
            (None, result.await)
        });
    }

    async fn take_all(
        &mut self,
        work: &mut mpsc::Receiver<Work>,
        orders: &Orders,
        pulse: &mut Pulse,
        leave: &CancellationToken,
    ) -> Result<End, AgentError> {
        let mut asked = orders.idle.subscribe();
        let mut forget = tokio::time::interval(FORGET_EVERY);
        forget.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // The first tick is now.
        let mut look = tokio::time::interval(own::LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            if self.leaving && self.tasks.is_empty() {
                return Ok(End::Left);
            }
            let busy = self.tasks.len() >= self.policy.max_runs.saturating_add(MAX_REFUSALS);
            tokio::select! {
                biased;
                () = orders.stop.cancelled() => return Ok(End::Asked),
                () = pulse.beat() => {}
                // Before the next grant: what was taken away counts for it.
                Ok(()) = self.live.changed() => self.reload(),
                () = leave.cancelled(), if !self.leaving => self.leaving = true,
                Some(ended) = self.tasks.join_next() => {
                    pulse.during(self.take_end(ended)).await?;
                    if self.idle_asked {
                        self.speak_of_idle_time();
                    }
                }
                // Before what waits: each look at that may ask the server, and a cancel must not stand behind it.
                next = work.recv(), if !busy => match next {
                    Some(next) => self.take((next, Came::Now), &orders.stop, pulse).await?,
                    None => return Err(AgentError::Task("the listener is gone".into())),
                },
                () = when(self.aside.next()) => if let Some(again) = self.aside.take() {
                    self.take((again, Came::Again), &orders.stop, pulse).await?;
                    if self.aside.wants_again() {
                        self.again.notify_one();
                    }
                },
                Ok(()) = asked.changed() => {
                    self.idle_asked = true;
                    self.speak_of_idle_time();
                }
                () = when(self.idle_due) => self.speak_of_idle_time(),
                _tick = look.tick() => self.speak_of_facts(),
                _tick = forget.tick() => pulse.during(self.forget()).await?,
            }
        }
    }

    /// Clears what the ledger has out of the journal: what is erased there must not stay here.
    async fn forget(&self) -> Result<(), AgentError> {
        let (spool, now) = (Arc::clone(&self.station.spool), self.station.clock.now());
        let forgotten = tokio::task::spawn_blocking(move || spool.forget(now)).await;
        forgotten.map_err(died)??;
        Ok(())
    }

    /// Beside all else: it waits for its turn, and a server that is away holds it up alone.
    fn speak_of_idle_time(&mut self) {
        self.idle_due = idle::next(self.policy.idle_every);
        let under_way = self.idle.as_ref().is_some_and(|last| !last.is_finished());
        // Once its key leaves, the last one is said at the end.
        if under_way || self.leaving {
            return;
        }
        self.idle_asked = false;
        let station = Arc::clone(&self.station);
        let said = async move { (None, station.say_idle().await) };
        self.idle = Some(self.tasks.spawn(said));
    }

    /// Says what the host is, where that changed; beside all else, as above.
    fn speak_of_facts(&mut self) {
        let under_way = self.facts.as_ref().is_some_and(|last| !last.is_finished());
        if under_way || self.leaving {
            return;
        }
        let (station, own) = (Arc::clone(&self.station), self.policy.host.facts.clone());
        let said = async move { (None, station.say_facts(own).await) };
        self.facts = Some(self.tasks.spawn(said));
    }

    /// Another configuration for the grants from here on. Never while a grant is looked at, and
    /// what runs keeps what it was started with.
    fn reload(&mut self) {
        let config = Config::clone(&self.live.borrow_and_update());
        let host = &self.policy.host;
        let memory = Arc::clone(&host.snapshots);
        let before = self.policy.idle_every;
        self.policy = Policy::of(config, host.pins.clone(), host.journal_since, memory);
        self.station.spool.bound(self.policy.spool_max);
        self.speak_of_facts();
        if self.policy.idle_every != before {
            self.idle_due = idle::next(self.policy.idle_every);
        }
    }

    /// One piece of work; a server that is slow with its proofs does not keep the agent from
    /// stopping, and one that never comes to an end is a hang, for the service manager to see.
    pub(crate) async fn take(
        &mut self,
        (work, came): (Work, Came),
        stop: &CancellationToken,
        pulse: &mut Pulse,
    ) -> Result<(), AgentError> {
        let taken = async {
            match work {
                Work::Grant(grant) => self.take_grant(grant, came).await,
                Work::Cancel(stream) => self.take_cancel(stream).await,
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => Ok(()),
            taken = pulse.during(taken) => taken,
        }
    }

    /// A grant: its checkpoint against the remembered one, then admission, then a run of its own.
    async fn take_grant(&mut self, grant: Box<Grant>, came: Came) -> Result<(), AgentError> {
        if self.leaving {
            tracing::warn!("a grant names a key whose grace is over; it does not run");
            return Ok(());
        }
        let (note, since) = (&grant.stream.checkpoint, grant.since.as_ref());
        let since = since.map(|since| (since.size, since.proof.as_slice()));
        let checkpoint = match self.station.view.confirm_since(note, since).await {
            Ok(checkpoint) => checkpoint,
            Err(ViewError::NoProof(error)) => {
                tracing::warn!(%error, "a grant waits for its proof");
                self.put_aside(Work::Grant(grant), PROOF_PAUSE);
                return Ok(());
            }
            Err(error) if error.is_no_room() => {
                tracing::error!(%error, "a grant waits for room");
                self.put_aside(Work::Grant(grant), PROOF_PAUSE);
                return Ok(());
            }
            Err(error) => return tolerate(error),
        };
        let (grant, verdict) = self.admit(grant, checkpoint).await?;
        match verdict {
            Ok(Verdict::Run(permit)) => return self.start_witnessed(*permit, grant).await,
            // It was new when it came; the server has newer proofs, and a newer snapshot perhaps.
            Ok(Verdict::Refuse { refusal, .. }) if came == Came::Again && is_outdated(&refusal) => {
                tracing::info!("a grant that waited is asked for again");
                self.again.notify_one();
            }
            Ok(Verdict::Refuse {
                command,
                remember_until,
                refusal,
            }) => self.refuse(command, remember_until, refusal),
            Ok(Verdict::Wait { until, .. }) => {
                let wait = until.micros_since(self.station.clock.now());
                self.put_aside(Work::Grant(grant), Duration::from_micros(wait));
            }
            Ok(Verdict::Used(command)) => tracing::debug!(%command, "seen before"),
            Err(error) => tracing::warn!(%error, "a grant is not believed; nothing is done"),
        }
        Ok(())
    }

    /// The last question before a start: whether the witnesses know of this history, where the host
    /// asks for them.
    async fn start_witnessed(
        &mut self,
        permit: Permit,
        grant: Box<Grant>,
    ) -> Result<(), AgentError> {
        if let Some(policy) = self.policy.witnesses.clone() {
            let (client, view) = (&self.station.client, &self.station.view);
            let now = self.station.clock.now();
            match witnessed::demand(&policy, client, view, now).await {
                Ok(Word::Young) => self.old_words.forget(&permit.command()),
                // Not refused for good at once: the server may have started just now.
                Ok(Word::Old(_)) if self.old_words.may_wait(permit.command(), now) => {
                    tracing::warn!("a grant waits for a younger word of the witnesses");
                    self.put_aside(Work::Grant(grant), PROOF_PAUSE);
                    return Ok(());
                }
                Ok(Word::Old(refusal) | Word::Missing(refusal)) => {
                    self.old_words.forget(&permit.command());
                    self.refuse(permit.command(), permit.remember_until(), refusal);
                    return Ok(());
                }
                // The note is fetched anew each time. The grant is not sent again on this connection.
                Err(error) => {
                    tolerate(error)?;
                    tracing::warn!("a grant waits for the witnesses' checkpoint");
                    // A server that was away has not had the time in which it asks them.
                    self.old_words.forget(&permit.command());
                    self.put_aside(Work::Grant(grant), PROOF_PAUSE);
                    return Ok(());
                }
            }
        }
        self.start(permit);
        Ok(())
    }

    /// Admission reads and hashes the program, so it leaves this thread.
    async fn admit(
        &self,
        grant: Box<Grant>,
        checkpoint: Checkpoint,
    ) -> Result<(Box<Grant>, Result<Verdict, crate::admission::Unproven>), AgentError> {
        let (host, spool) = (
            Arc::clone(&self.policy.host),
            Arc::clone(&self.station.spool),
        );
        let now = self.station.clock.now();
        let admitted = tokio::task::spawn_blocking(move || {
            let verdict = host.admit(&grant, &checkpoint, now, |id| spool.is_used(id));
            (grant, verdict)
        });
        admitted.await.map_err(died)
    }

    fn start(&mut self, permit: Permit) {
        let command = permit.command();
        if self.active.contains_key(&command) {
            return;
        }
        if self.cancelled.contains(&command) {
            tracing::info!(%command, "cancelled before it started; nothing runs");
            return;
        }
        let place = self.places.take(self.policy.max_runs);
        let Some(place) = place.filter(|_| self.station.spool.has_room()) else {
            let refusal = LocalRefusal::new(
                RefusalReason::Busy,
                "max_runs",
                "as many commands run as this host allows, or its journal is full; ask again later",
            );
            self.refuse(command, permit.remember_until(), refusal);
            return;
        };
        let (cancel, grace) = (self.begin(command, true), self.policy.grace);
        // It has seen what this permit was judged by, and nothing later.
        let (station, judged_by) = (Arc::clone(&self.station), self.live.clone());
        self.tasks.spawn(async move {
            let run = station.run_command(permit, grace, judged_by, cancel);
            let ended = Box::pin(run).await;
            drop(place);
            (Some(command), ended)
        });
    }

    fn refuse(&mut self, command: CommandId, until: Time, refusal: LocalRefusal) {
        if self.active.contains_key(&command) {
            return;
        }
        self.begin(command, false);
        let station = Arc::clone(&self.station);
        self.tasks.spawn(async move {
            let ended = station.refuse(command, until, refusal).await;
            (Some(command), ended)
        });
    }

    fn begin(&mut self, command: CommandId, is_run: bool) -> CancellationToken {
        let cancel = CancellationToken::new();
        let active = Active {
            cancel: cancel.clone(),
            is_run,
            grace: self.policy.grace,
        };
        self.active.insert(command, active);
        cancel
    }

    /// A cancel by a person whom this host pins stops the run, or keeps it from starting.
    async fn take_cancel(&mut self, stream: StreamBody) -> Result<(), AgentError> {
        let note = &stream.checkpoint;
        let (checkpoint, kept) = match self.station.view.confirm_to_stop(note).await {
            Ok(confirmed) => confirmed,
            Err(ViewError::NoProof(error)) => {
                // It is not sent again on this connection, and the run would go on.
                tracing::warn!(%error, "a cancel waits for its proof");
                self.put_aside(Work::Cancel(stream), PROOF_PAUSE);
                return Ok(());
            }
            Err(error) => return tolerate(error),
        };
        let now = self.station.clock.now();
        match self.policy.host.cancelled(&stream, &checkpoint, now) {
            Ok(Some(command)) => {
                tracing::info!(%command, "cancelled by a person");
                if let Some(active) = self.active.get(&command) {
                    active.cancel.cancel();
                }
                if self.cancelled.len() >= MAX_CANCELLED {
                    self.cancelled.pop_front();
                }
                self.cancelled.push_back(command);
            }
            Ok(None) => {
                tracing::warn!("a cancel is by nobody whom this host pins; the run goes on");
            }
            Err(error) => tracing::warn!(%error, "a cancel is not believed; the run goes on"),
        }
        // The very run that is to be stopped may have filled the disk.
        kept.or_else(tolerate)
    }

    fn put_aside(&mut self, work: Work, pause: Duration) {
        let active = &self.active;
        let runs = |command: &CommandId| active.get(command).is_some_and(|active| active.is_run);
        self.aside.put(work, pause, runs);
    }

    pub(crate) async fn take_end(
        &mut self,
        ended: Result<Ended, JoinError>,
    ) -> Result<(), AgentError> {
        let (command, result) = ended.map_err(died)?;
        if let Some(command) = command {
            self.active.remove(&command);
        }
        result?;
        let (spool, now) = (Arc::clone(&self.station.spool), self.station.clock.now());
        let compacted = tokio::task::spawn_blocking(move || spool.compact(now)).await;
        compacted.map_err(died)??;
        Ok(())
    }
}

/// At that time, or never.
pub(crate) async fn when(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Whether the same command could run with a grant of today.
fn is_outdated(refusal: &LocalRefusal) -> bool {
    let rule = refusal.rule.as_ref().map(|rule| rule.as_str());
    matches!(rule, Some(MAX_CHECKPOINT_AGE | SNAPSHOT))
}

fn died(error: JoinError) -> AgentError {
    AgentError::Task(error.to_string())
}
