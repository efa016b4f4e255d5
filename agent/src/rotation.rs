//! How a second key of this host takes the first one's place: while the agent runs.
//!
//! It owns who is served: one key, and beside it the one that replaces it, until the old one's grace
//! is over, its runs have ended and its last word is in the log. Each has its own station, journal
//! and dispatcher; they share the view of the ledger and the places for runs. It must not decide
//! what may run. The folders are `succession`'s.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use countersign_protocol::api::Problem;
use countersign_protocol::event::AgentKeyRetired;
use countersign_protocol::key::fingerprint;
use countersign_protocol::name::Time;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::admission::Pins;
use crate::client::{Client, SignIn};
use crate::clock::Clock;
use crate::config::Config;
use crate::dispatcher::{Dispatcher, End, Places};
use crate::execution::SecretsPlace;
use crate::idle::Spoken;
use crate::key::Identity;
use crate::manager::{Manager, Pulse};
use crate::orders::Orders;
use crate::reload;
use crate::snapshot::Snapshots;
use crate::spool::{About, Record, Spool};
use crate::station::{AgentError, Said, Station, agent_event};
use crate::succession::{self, Ending};
use crate::trust::{LedgerKeys, View};

/// How often it is looked for a new key: somebody has just asked for it and watches.
const LOOK: Duration = Duration::from_secs(2);

/// The pause before what failed about a rotation is tried again; the commands go on meanwhile.
const AGAIN: Duration = Duration::from_secs(30);

/// The longest sleep towards the end of a grace: clocks may be set.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// A host that serves its keys.
pub(crate) struct Service {
    /// The configuration as it was read last.
    pub(crate) live: watch::Sender<Arc<Config>>,
    pub(crate) clock: Clock,
    pub(crate) view: Arc<View>,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) secrets_place: Option<Arc<SecretsPlace>>,
    pub(crate) keys: LedgerKeys,
    pub(crate) orders: Orders,
    pub(crate) places: Places,
}

/// A key that is served.
struct Serving {
    station: Arc<Station>,
    /// Its own, which hear those of the agent as well.
    orders: Orders,
    /// Nothing new is begun.
    leave: CancellationToken,
    work: AbortOnDropHandle<Result<End, AgentError>>,
    /// It has come to its end, and somebody was told which.
    over: bool,
}

/// How a key that is followed by another one came to its end.
enum Old {
    /// It works.
    Serves,
    /// It began nothing any more, and has ended.
    Left,
    /// The server does not take what it says.
    Refused(Box<Problem>),
}

/// The client of an identity.
pub(crate) fn client(
    config: &Config,
    identity: &Identity,
    clock: &Clock,
) -> Result<Arc<Client>, AgentError> {
    let who = SignIn {
        agent: config.name.clone(),
        ledger: config.ledger,
        key: identity.key().clone(),
    };
    let client = Client::new(&config.server, config.ca.as_ref(), who, clock.clone())?;
    Ok(Arc::new(client))
}

/// What all keys of a host share.
pub(crate) struct Shared {
    pub(crate) view: Arc<View>,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) manager: Arc<Manager>,
    pub(crate) secrets_place: Option<Arc<SecretsPlace>>,
}

/// A station for an identity.
pub(crate) fn station(
    config: &Config,
    (identity, spool): (Identity, Spool),
    client: Arc<Client>,
    shared: Shared,
    clock: &Clock,
) -> Station {
    let spoken = Spoken::of(&identity, &spool, clock);
    let Shared {
        view,
        snapshots,
        manager,
        secrets_place,
    } = shared;
    Station {
        name: config.name.clone(),
        ledger: config.ledger,
        identity,
        client,
        view,
        snapshots,
        spool: Arc::new(spool),
        clock: clock.clone(),
        give_up: CancellationToken::new(),
        turn: Mutex::new(()),
        spoken,
        secrets_place,
        manager,
    }
}

impl Serving {
    /// How it came to its end. May be asked again while it has none, and not once it was told.
    async fn ended(&mut self) -> Result<End, AgentError> {
        let ended = (&mut self.work).await;
        self.over = true;
        ended.map_err(died)?
    }

    /// Ends it at once, as the agent cannot go on.
    async fn end(mut self) {
        if self.over {
            return;
        }
        self.orders.at_once.cancel();
        self.orders.stop.cancel();
        if let Err(error) = self.ended().await {
            tracing::error!(%error, "while stopping");
        }
    }
}

fn died(error: JoinError) -> AgentError {
    AgentError::Task(error.to_string())
}

impl Service {
    /// Serves the host's key, and whatever follows it, until the shutdown.
    ///
    /// # Errors
    /// Why it cannot go on. Trouble with a key that is not accepted yet is none, unless it may be in
    /// force for all that can be told.
    pub(crate) async fn serve(&self, first: Arc<Station>) -> Result<(), AgentError> {
        let leave = CancellationToken::new();
        if !self.may_begin(&first) {
            leave.cancel();
        }
        let mut current = self.start(first, leave);
        loop {
            let mut next = pin!(self.next(Arc::clone(&current.station)));
            let met = tokio::select! {
                ended = current.ended() => {
                    let old = self.followed(ended)?;
                    let next = match old {
                        Some(_) => self.alone(next).await,
                        None => None,
                    };
                    old.zip(next)
                }
                next = &mut next => Some((Old::Serves, next)),
            };
            let Some((old, next)) = met else {
                return Ok(());
            };
            match self.hand_over(current, old, next).await? {
                Some(next) => current = next,
                None => return Ok(()),
            }
        }
    }

    /// Whether the first key may begin anything. Not if another one follows it and its grace is
    /// over, also when that cannot be told: a restart must not prolong it.
    fn may_begin(&self, first: &Station) -> bool {
        match first.identity.open_next(&self.config().state) {
            Ok(None) => true,
            Ok(Some((_, journal))) => journal
                .succeeds()
                .is_none_or(|since| !self.grace_left(since).is_zero()),
            Err(error) => {
                tracing::error!(
                    %error,
                    "the key that is to follow cannot be opened, so it cannot be told whether the \
                     current one's grace is over, and it begins nothing; mend this and start the \
                     agent anew"
                );
                false
            }
        }
    }

    /// What is left of a key that has come to its end, if another one may go on.
    fn followed(&self, ended: Result<End, AgentError>) -> Result<Option<Old>, AgentError> {
        match ended {
            Ok(End::Asked) => Ok(None),
            Ok(End::Left) => Ok(Some(Old::Left)),
            Err(AgentError::KeyRefused(problem))
                if succession::is_prepared(&self.config().state) =>
            {
                tracing::error!(
                    code = problem.code,
                    detail = problem.detail,
                    "the server says that the current key counts no more; nothing runs until \
                     administrators have accepted the one that waits to follow"
                );
                Ok(Some(Old::Refused(problem)))
            }
            Err(error) => Err(error),
        }
    }

    /// Waits while no key is served: with the signs of life that a dispatcher would give. Nothing
    /// when the agent is to stop.
    async fn alone<T>(&self, waiting: impl Future<Output = T>) -> Option<T> {
        let manager = &self.orders.manager;
        let mut pulse = Pulse::new(Arc::clone(manager));
        let mut waiting = pin!(waiting);
        loop {
            tokio::select! {
                biased;
                () = self.orders.stop.cancelled() => {
                    manager.stopping(0);
                    return None;
                }
                () = pulse.beat() => {}
                done = &mut waiting => return Some(done),
            }
        }
    }

    /// Reads the configuration again whenever somebody wants it; for ever.
    pub(crate) async fn reload(&self) {
        reload::follow(&self.orders, &self.live).await;
    }

    fn config(&self) -> Arc<Config> {
        Arc::clone(&self.live.borrow())
    }

    /// From `leave` on it begins nothing.
    fn start(&self, station: Arc<Station>, leave: CancellationToken) -> Serving {
        let pins = Pins {
            ledger: station.ledger,
            statement_key: self.keys.statement.clone(),
            gateway_key: self.keys.gateway.clone(),
            agent: station.name.clone(),
            key_id: station.identity.key_id(),
        };
        let (live, places) = (self.live.subscribe(), self.places.clone());
        let dispatcher = Dispatcher::new(Arc::clone(&station), pins, live, places);
        let orders = Orders {
            stop: self.orders.stop.child_token(),
            at_once: self.orders.at_once.child_token(),
            ..self.orders.clone()
        };
        let (told, left) = (orders.clone(), leave.clone());
        let work = tokio::spawn(async move { Box::pin(dispatcher.work(&told, &left)).await });
        let work = AbortOnDropHandle::new(work);
        Serving {
            station,
            orders,
            leave,
            work,
            over: false,
        }
    }

    /// Waits until there is another key and people have accepted it.
    async fn next(&self, current: Arc<Station>) -> Arc<Station> {
        loop {
            let mut pause = LOOK;
            if succession::is_prepared(&self.config().state) {
                match self.meet_next(&current).await {
                    Ok(Some(next)) => return Arc::new(next),
                    Ok(None) => {}
                    Err(error) => {
                        tracing::error!(%error, "the new key cannot be served yet");
                        pause = AGAIN;
                    }
                }
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn meet_next(&self, current: &Station) -> Result<Option<Station>, AgentError> {
        let config = self.config();
        let Some(identity) = current.identity.open_next(&config.state)? else {
            return Ok(None);
        };
        let client = client(&config, &identity.0, &self.clock)?;
        let shared = Shared {
            view: Arc::clone(&self.view),
            snapshots: Arc::clone(&self.snapshots),
            manager: Arc::clone(&self.orders.manager),
            secrets_place: self.secrets_place.clone(),
        };
        let station = station(&config, identity, client, shared, &self.clock);
        let key = fingerprint(&station.identity.key_id());
        tracing::info!(key, "a new key waits to replace the current one");
        if !station.spool.is_accepted() {
            // Not by `enrol`: the manager is told of the key that is served.
            tokio::select! {
                () = self.orders.stop.cancelled() => return Ok(None),
                introduced = station.introduce() => introduced?,
            }
            tokio::select! {
                () = self.orders.stop.cancelled() => return Ok(None),
                accepted = station.wait_for_acceptance() => accepted?,
            }
        }
        Ok(Some(station))
    }

    /// Serves both until the old key has said its last word. Gives what goes on, if anything does.
    async fn hand_over(
        &self,
        mut old: Serving,
        how: Old,
        next: Arc<Station>,
    ) -> Result<Option<Serving>, AgentError> {
        let since = self.grace_began(&next).await?;
        self.view.ask_as(Arc::clone(&next.client));
        let mut new = self.start(Arc::clone(&next), CancellationToken::new());
        tracing::info!("a new key is served beside the old one");
        let left = {
            let mut leaving = pin!(self.leave(&mut old, how, since));
            tokio::select! {
                left = &mut leaving => Ok(left),
                ended = new.ended() => Err(ended),
            }
        };
        match left {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => return new.ended().await.map(|_| None),
            Ok(Err(AgentError::KeyRefused(problem))) => {
                let (code, detail) = (problem.code, problem.detail);
                tracing::warn!(
                    code,
                    detail,
                    "the server says that the old key counts no more"
                );
            }
            Ok(Err(error)) => {
                new.end().await;
                return Err(error);
            }
            Err(ended) => {
                old.end().await;
                return ended.map(|_| None);
            }
        }
        tokio::select! {
            () = self.put_away(&old.station, &next) => Ok(Some(new)),
            ended = new.ended() => ended.map(|_| None),
        }
    }

    /// Since when both keys are served; written down, so that no restart prolongs the grace.
    async fn grace_began(&self, next: &Station) -> Result<Time, AgentError> {
        if let Some(since) = next.spool.succeeds() {
            return Ok(since);
        }
        let since = self.clock.now();
        next.write_down(vec![Record::Succeeds { since }]).await?;
        Ok(since)
    }

    /// The old key's way out: its grace, its runs, its last word. False when the agent stops first.
    async fn leave(&self, old: &mut Serving, how: Old, since: Time) -> Result<bool, AgentError> {
        let end = match how {
            Old::Serves => self.grace_through(old, since).await?,
            // It began nothing because nobody could tell whether it may; now that is known.
            Old::Left if !self.grace_left(since).is_zero() => {
                *old = self.start(Arc::clone(&old.station), CancellationToken::new());
                self.grace_through(old, since).await?
            }
            Old::Left => End::Left,
            Old::Refused(problem) => return Err(AgentError::KeyRefused(problem)),
        };
        match end {
            End::Asked => Ok(false),
            End::Left => tokio::select! {
                () = self.orders.stop.cancelled() => Ok(false),
                retired = retire(&old.station) => retired,
            },
        }
    }

    /// Serves a key through its grace, and from then on what it has begun.
    async fn grace_through(&self, old: &mut Serving, since: Time) -> Result<End, AgentError> {
        let leave = old.leave.clone();
        {
            let mut grace = pin!(self.grace(since));
            tokio::select! {
                end = old.ended() => return end,
                () = &mut grace => {}
            }
        }
        tracing::info!("the old key's grace is over; it ends with what it has begun");
        leave.cancel();
        old.ended().await
    }

    async fn grace(&self, since: Time) {
        loop {
            let left = self.grace_left(since);
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(LONGEST_SLEEP)).await;
        }
    }

    /// What is left of a grace that began then.
    fn grace_left(&self, since: Time) -> Duration {
        let passed = Duration::from_micros(self.clock.now().micros_since(since));
        self.config().rotation_grace.saturating_sub(passed)
    }

    /// Puts the old key's folder away; tried until it is done, as both look for the same name.
    async fn put_away(&self, old: &Station, next: &Station) {
        let ending = Ending::of(&old.spool);
        loop {
            let (state, id) = (self.config().state.clone(), old.identity.key_id());
            let spool = Arc::clone(&next.spool);
            // Begun only when the view is at rest: a thread begins as soon as it is asked for, and
            // the view writes into the folder that is moved.
            let moving = async move {
                let moved = tokio::task::spawn_blocking(move || {
                    succession::complete(&state, (&id, ending), &spool).map_err(AgentError::from)
                });
                moved.await.map_err(died)?
            };
            match self.view.at_rest(moving).await {
                Ok(away) => {
                    let key = fingerprint(&old.identity.key_id());
                    match ending {
                        Ending::Retired => {
                            tracing::info!(
                                key,
                                "the old key has retired; its private part is removed"
                            );
                        }
                        Ending::Refused => tracing::warn!(
                            key,
                            folder = %away.display(),
                            "the old key never said its last word, and only the server says that it \
                             counts no more; key and journal are kept in this folder until a person \
                             has seen its revocation in the log"
                        ),
                    }
                    return;
                }
                Err(error) => tracing::error!(%error, "the old key is not put away yet"),
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// Says the key's last word, after all others. False when the agent is stopping.
async fn retire(station: &Station) -> Result<bool, AgentError> {
    loop {
        // It may have been said before a crash, and only its answer be missing.
        station.settle().await?;
        if station.spool.is_retired() {
            return Ok(true);
        }
        for started in station.spool.open_runs() {
            station.finish(started).await?;
        }
        // Up to its end there is no gap in what it says of its time.
        station.say_idle().await?;
        let said = station.say(About::Retired, vec![], vec![], |header, chain| {
            let (agent_seq, agent_prev) = (chain.next, chain.prev);
            agent_event!(
                header,
                AgentKeyRetired {
                    agent_seq,
                    agent_prev
                }
            )
        });
        match said.await? {
            Said::Accepted(_) => return Ok(true),
            Said::Unanswered => return Ok(false),
            Said::Refused(problem) => {
                tracing::warn!(
                    code = problem.code,
                    detail = problem.detail,
                    "the old key does not retire yet"
                );
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}
