//! The dispatcher: takes work from the world, hands commands to their runs, and ends them all.
//!
//! It knows which commands are under way and how to cancel them. What may run is `admission`'s,
//! how one runs is `running`'s. Everything reaches it as a message, one at a time. It serves one
//! key; a host with two has two, which share the places for runs.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use countersign_protocol::api::{Grant, StreamBody, Work};
use countersign_protocol::checkpoint::Checkpoint;
use countersign_protocol::event::RefusalReason;
use countersign_protocol::hash::CommandId;
use countersign_protocol::name::Time;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::admission::{Host, Permit, Verdict};
use crate::client::{Backoff, ClientError};
use crate::rules::LocalRefusal;
use crate::station::{AgentError, Station, tolerate};
use crate::trust::ViewError;

/// Work that was read and not yet looked at; the server holds the rest back.
const MAX_UNREAD: usize = 4;

/// Grants put aside because their time has not come, and what waits for a proof. Others are
/// dropped; the server sends them again when the agent connects anew.
const MAX_ASIDE: usize = 64;

/// The longest that a grant is put aside before it is looked at again: clocks may be set.
const LONGEST_ASIDE: Duration = Duration::from_secs(60);

/// How long a grant waits for a server that does not answer with its proof.
const PROOF_PAUSE: Duration = Duration::from_secs(1);

/// Commands cancelled before they came, remembered so that they are not started.
const MAX_CANCELLED: usize = 1024;

/// Runs and statements of refusal under way at once; past it no more work is looked at until one is
/// over. As many runs as any host allows, and 64 refusals.
const MAX_TASKS: usize = 320;

/// How long a stopping agent tries to deliver what its commands still say.
const LAST_DELIVERY: Duration = Duration::from_secs(5);

/// What is left of that, at the least, for a command that had to be killed.
const AFTER_KILL: Duration = Duration::from_secs(1);

/// How a dispatcher came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It was told to stop.
    Asked,
    /// Its key's grace is over, and so is all that it had begun.
    Left,
}

type Ended = (Option<CommandId>, Result<(), AgentError>);

pub(crate) struct Dispatcher {
    station: Arc<Station>,
    host: Arc<Host>,
    /// Places for runs, of all keys of the host together.
    places: Arc<Semaphore>,
    active: HashMap<CommandId, CancellationToken>,
    /// Nothing is begun any more.
    leaving: bool,
    cancelled: VecDeque<CommandId>,
    tasks: JoinSet<Ended>,
    aside: JoinSet<Work>,
}

impl Dispatcher {
    pub(crate) fn new(station: Arc<Station>, host: Host, places: Arc<Semaphore>) -> Self {
        Self {
            station,
            host: Arc::new(host),
            places,
            active: HashMap::new(),
            leaving: false,
            cancelled: VecDeque::new(),
            tasks: JoinSet::new(),
            aside: JoinSet::new(),
        }
    }

    /// Works until `shutdown`, then ends what runs. Runs that an earlier process left are
    /// finished first in the log: their output, then that they are lost. From `leave` on it begins
    /// nothing, and ends with what it has begun.
    pub(crate) async fn work(
        mut self,
        shutdown: &CancellationToken,
        leave: &CancellationToken,
    ) -> Result<End, AgentError> {
        self.recover();
        let (sender, mut work) = mpsc::channel(MAX_UNREAD);
        let stop_listening = CancellationToken::new();
        let listener = AbortOnDropHandle::new(tokio::spawn(listen(
            Arc::clone(&self.station),
            sender,
            stop_listening.clone(),
        )));
        let result = self.take_all(&mut work, shutdown, leave).await;
        stop_listening.cancel();
        drop(work);
        self.end_all().await;
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
        shutdown: &CancellationToken,
        leave: &CancellationToken,
    ) -> Result<End, AgentError> {
        loop {
            if self.leaving && self.tasks.is_empty() {
                return Ok(End::Left);
            }
            let busy = self.tasks.len() >= MAX_TASKS;
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(End::Asked),
                () = leave.cancelled(), if !self.leaving => self.leaving = true,
                Some(ended) = self.tasks.join_next() => self.take_end(ended).await?,
                Some(again) = self.aside.join_next() => if let Ok(again) = again {
                    self.take(again, shutdown).await?;
                },
                next = work.recv(), if !busy => match next {
                    Some(next) => self.take(next, shutdown).await?,
                    None => return Err(AgentError::Task("the listener is gone".into())),
                },
            }
        }
    }

    /// One piece of work; a server that is slow with its proofs does not keep the agent from
    /// stopping.
    async fn take(&mut self, work: Work, shutdown: &CancellationToken) -> Result<(), AgentError> {
        let taken = async {
            match work {
                Work::Grant(grant) => self.take_grant(Box::new(grant)).await,
                Work::Cancel(stream) => self.take_cancel(stream).await,
            }
        };
        tokio::select! {
            biased;
            () = shutdown.cancelled() => Ok(()),
            taken = taken => taken,
        }
    }

    /// A grant: its checkpoint against the remembered one, then admission, then a run of its own.
    async fn take_grant(&mut self, grant: Box<Grant>) -> Result<(), AgentError> {
        if self.leaving {
            tracing::warn!("a grant names a key whose grace is over; it does not run");
            return Ok(());
        }
        let checkpoint = match self.station.view.confirm(&grant.stream.checkpoint).await {
            Ok(checkpoint) => checkpoint,
            Err(ViewError::NoProof(error)) => {
                tracing::warn!(%error, "a grant waits for its proof");
                self.put_aside(Work::Grant(*grant), PROOF_PAUSE);
                return Ok(());
            }
            Err(error) if error.is_no_room() => {
                tracing::error!(%error, "a grant waits for room");
                self.put_aside(Work::Grant(*grant), PROOF_PAUSE);
                return Ok(());
            }
            Err(error) => return tolerate(error),
        };
        let (grant, verdict) = self.admit(grant, checkpoint).await?;
        match verdict {
            Ok(Verdict::Run(permit)) => self.start(*permit),
            Ok(Verdict::Refuse {
                command,
                remember_until,
                refusal,
            }) => self.refuse(command, remember_until, refusal),
            Ok(Verdict::Wait { until, .. }) => {
                let wait = until.micros_since(self.station.clock.now());
                let wait = Duration::from_micros(wait).min(LONGEST_ASIDE);
                self.put_aside(Work::Grant(*grant), wait);
            }
            Ok(Verdict::Used(command)) => tracing::debug!(%command, "seen before"),
            Err(error) => tracing::warn!(%error, "a grant is not believed; nothing is done"),
        }
        Ok(())
    }

    /// Admission reads and hashes the program, so it leaves this thread.
    async fn admit(
        &self,
        grant: Box<Grant>,
        checkpoint: Checkpoint,
    ) -> Result<(Box<Grant>, Result<Verdict, crate::admission::Unproven>), AgentError> {
        let (host, spool) = (Arc::clone(&self.host), Arc::clone(&self.station.spool));
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
        let place = Arc::clone(&self.places).try_acquire_owned().ok();
        let Some(place) = place.filter(|_| self.station.spool.has_room()) else {
            let refusal = LocalRefusal::new(
                RefusalReason::Busy,
                "max_runs",
                "as many commands run as this host allows, or its journal is full; ask again later",
            );
            self.refuse(command, permit.remember_until(), refusal);
            return;
        };
        let cancel = self.begin(command);
        let station = Arc::clone(&self.station);
        self.tasks.spawn(async move {
            let ended = Box::pin(station.run_command(permit, cancel)).await;
            drop(place);
            (Some(command), ended)
        });
    }

    fn refuse(&mut self, command: CommandId, until: Time, refusal: LocalRefusal) {
        if self.active.contains_key(&command) {
            return;
        }
        self.begin(command);
        let station = Arc::clone(&self.station);
        self.tasks.spawn(async move {
            let ended = station.refuse(command, until, refusal).await;
            (Some(command), ended)
        });
    }

    fn begin(&mut self, command: CommandId) -> CancellationToken {
        let cancel = CancellationToken::new();
        self.active.insert(command, cancel.clone());
        cancel
    }

    /// A cancel by a person whom this host pins stops the run, or keeps it from starting.
    async fn take_cancel(&mut self, stream: StreamBody) -> Result<(), AgentError> {
        let checkpoint = match self.station.view.confirm(&stream.checkpoint).await {
            Ok(checkpoint) => checkpoint,
            Err(ViewError::NoProof(error)) => {
                // It is not sent again on this connection, and the run would go on.
                tracing::warn!(%error, "a cancel waits for its proof");
                self.put_aside(Work::Cancel(stream), PROOF_PAUSE);
                return Ok(());
            }
            Err(error) if error.is_no_room() => {
                tracing::error!(%error, "a cancel waits for room");
                self.put_aside(Work::Cancel(stream), PROOF_PAUSE);
                return Ok(());
            }
            Err(error) => return tolerate(error),
        };
        let now = self.station.clock.now();
        match self.host.cancelled(&stream, &checkpoint, now) {
            Ok(Some(command)) => {
                tracing::info!(%command, "cancelled by a person");
                if let Some(active) = self.active.get(&command) {
                    active.cancel();
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
        Ok(())
    }

    fn put_aside(&mut self, work: Work, pause: Duration) {
        if self.aside.len() >= MAX_ASIDE {
            tracing::warn!("too much work waits; one piece is dropped until the next connection");
            return;
        }
        self.aside.spawn(async move {
            tokio::time::sleep(pause).await;
            work
        });
    }

    async fn take_end(&mut self, ended: Result<Ended, JoinError>) -> Result<(), AgentError> {
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

    /// Ends every run as a cancel does, and delivers what it said if the server answers in time.
    async fn end_all(&mut self) {
        self.aside.abort_all();
        for active in self.active.values() {
            active.cancel();
        }
        let give_up = self.station.give_up.clone();
        let limit = LAST_DELIVERY.max(self.station.grace.saturating_add(AFTER_KILL));
        let timer = tokio::spawn(async move {
            tokio::time::sleep(limit).await;
            give_up.cancel();
        });
        while let Some(ended) = self.tasks.join_next().await {
            match ended {
                Ok((_, Ok(()))) => {}
                Ok((_, Err(error))) => tracing::error!(%error, "while stopping"),
                Err(error) => tracing::error!(%error, "while stopping"),
            }
        }
        timer.abort();
    }
}

fn died(error: JoinError) -> AgentError {
    AgentError::Task(error.to_string())
}

/// Keeps a stream of work open and passes on what it brings.
async fn listen(station: Arc<Station>, work: mpsc::Sender<Work>, stop: CancellationToken) {
    let mut backoff = Backoff::for_server();
    loop {
        let heard = tokio::select! {
            () = stop.cancelled() => return,
            heard = hear(&station, &work, &mut backoff) => heard,
        };
        match heard {
            Ok(()) => tracing::info!("the server ended the stream of work; connecting anew"),
            Err(error) => tracing::warn!(%error, "no stream of work"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(backoff.pause()) => {}
        }
    }
}

async fn hear(
    station: &Station,
    work: &mpsc::Sender<Work>,
    backoff: &mut Backoff,
) -> Result<(), ClientError> {
    let mut stream = station.client.work().await?;
    tracing::info!("listening for work");
    backoff.reset();
    while let Some(next) = stream.next().await? {
        if work.send(next).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}
