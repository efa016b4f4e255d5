//! A task for each sink: follow the log, deliver, move the cursor, and wait after trouble.
//!
//! The cursor moves only behind what is delivered, so a message is told at least once, and nothing
//! is skipped. It must not keep anything waiting.

use std::sync::Arc;
use std::time::Duration;

use countersign_protocol::checkpoint::{Checkpoint, Origin};
use countersign_protocol::hash::LedgerId;
use sqlx::PgPool;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::config::{Begin, FeedConfig, Format, SinkConfig, SinkName};
use super::cursor::Cursor;
use super::gather::Gatherer;
use super::message::Message;
use super::outlet::{Outlet, Trouble};
use super::standing::Standing;
use crate::clock::Clock;
use crate::keys;
use crate::ledger::Learning;

/// How often a server asks whether the one that feeds a sink is gone.
const TAKEOVER: Duration = Duration::from_secs(2);

/// The first wait after trouble; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// The longest wait, so that a receiver that is back hears of it within a minute.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Where entries come from.
#[derive(Debug, Clone)]
pub struct Source {
    /// Whose entries.
    pub ledger: LedgerId,
    /// Its name.
    pub origin: Origin,
    /// The database, as the role that serves; each sink opens a connection of its own, where these
    /// lead then: the primary may move.
    pub database: PgPool,
    /// The newest committed checkpoint, again and again.
    pub log: watch::Receiver<Arc<Checkpoint>>,
    /// Whether that holds what other servers commit.
    pub learning: Learning,
    /// Time.
    pub clock: Clock,
}

/// All sinks of a server.
#[derive(Debug)]
pub struct Feed {
    sinks: Vec<Sink>,
    standing: Arc<Standing>,
}

#[derive(Debug)]
struct Sink {
    name: SinkName,
    begin: Begin,
    format: Format,
    gatherer: Gatherer,
    outlet: Outlet,
    source: Source,
    standing: Arc<Standing>,
    backoff: Backoff,
}

impl Feed {
    /// Puts the sinks together; nothing is connected yet.
    ///
    /// # Errors
    /// No TLS can be had for a webhook.
    pub fn new(config: FeedConfig, source: &Source) -> Result<Self, reqwest::Error> {
        let names = config.sinks.iter().map(|sink| sink.name.clone());
        let standing = Arc::new(Standing::new(names));
        let sinks = config.sinks.into_iter().map(|sink| {
            tracing::info!(sink = %sink.name, to = %sink.receiver, format = %sink.format, texts = sink.texts, "feeds");
            Sink::new(sink, source.clone(), Arc::clone(&standing))
        });
        Ok(Self {
            sinks: sinks.collect::<Result<_, _>>()?,
            standing,
        })
    }

    /// What operators see.
    #[must_use]
    pub fn standing(&self) -> Arc<Standing> {
        Arc::clone(&self.standing)
    }

    /// Feeds all sinks until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut tasks = JoinSet::new();
        for sink in self.sinks {
            let shutdown = shutdown.clone();
            tasks.spawn(async move { shutdown.run_until_cancelled(Box::pin(sink.run())).await });
        }
        while tasks.join_next().await.is_some() {}
    }
}

impl Sink {
    fn new(
        config: SinkConfig,
        source: Source,
        standing: Arc<Standing>,
    ) -> Result<Self, reqwest::Error> {
        let gatherer = Gatherer {
            ledger: source.ledger,
            origin: source.origin.clone(),
            kinds: config.kinds,
            texts: config.texts,
        };
        let origin = source.origin.clone();
        Ok(Self {
            name: config.name,
            begin: config.begin,
            format: config.format,
            gatherer,
            outlet: Outlet::new(config.receiver, origin, source.clock.clone())?,
            source,
            standing,
            backoff: Backoff::default(),
        })
    }

    async fn run(mut self) {
        loop {
            match self.feed().await {
                Ok(()) => return,
                Err(trouble) => {
                    if !self.wait_after(&trouble).await {
                        return;
                    }
                }
            }
        }
    }

    /// Feeds with one connection to the database; ends well when the ledger is gone.
    async fn feed(&mut self) -> Result<(), Trouble> {
        let mut cursor = self.take().await?;
        self.standing.feeding(&self.name, cursor.next(), 0);
        loop {
            let size = self.source.log.borrow_and_update().size();
            while cursor.next() < size {
                self.page(&mut cursor, size).await?;
            }
            tokio::select! {
                changed = self.source.log.changed() => if changed.is_err() {
                    return Ok(());
                },
                // The right to feed goes with the cursor, to a server that has something to tell.
                () = self.source.learning.lost() => return Err(Trouble::Deaf),
            }
        }
    }

    /// Waits for the right to feed; who learns nothing leaves it to others.
    async fn take(&mut self) -> Result<Cursor, Trouble> {
        loop {
            if self.source.learning.holds() {
                let size = self.source.log.borrow().size();
                let options = self.source.database.connect_options();
                if let Some(cursor) = Cursor::take(&options, &self.name, self.begin, size).await? {
                    return Ok(cursor);
                }
            }
            self.standing.standby(&self.name);
            sleep(TAKEOVER).await;
        }
    }

    /// Reads a page, delivers it, and moves the cursor behind it.
    async fn page(&mut self, cursor: &mut Cursor, size: u64) -> Result<(), Trouble> {
        let from = cursor.next();
        let page = self.gatherer.page(cursor.connection(), from, size).await?;
        let Some(leaf) = page.leaf else {
            // The log was longer a moment ago; the ledger itself says so aloud.
            return Err(Trouble::History(from));
        };
        for told in page.told.chunks(self.outlet.at_a_time()) {
            let messages: Vec<Message> = told
                .iter()
                .map(|told| Message::new(told, &self.gatherer, self.format))
                .collect();
            self.deliver(cursor, messages).await?;
            if let Some(last) = told.last() {
                cursor.advance(last.seq + 1, last.leaf).await?;
                self.moved(cursor, told.len());
            }
        }
        if page.next > cursor.next() {
            cursor.advance(page.next, leaf).await?;
            self.moved(cursor, 0);
        }
        Ok(())
    }

    /// The cursor is behind so many more messages, and all is well.
    fn moved(&mut self, cursor: &Cursor, delivered: usize) {
        let delivered = u64::try_from(delivered).unwrap_or(u64::MAX);
        self.standing.feeding(&self.name, cursor.next(), delivered);
        if self.backoff.reset() {
            tracing::info!(sink = %self.name, "the feed goes on");
        }
    }

    /// Delivers, again and again while it is the receiver that is in trouble and this server's turn.
    async fn deliver(&mut self, cursor: &mut Cursor, all: Vec<Message>) -> Result<(), Trouble> {
        loop {
            match self.outlet.deliver(all.clone()).await {
                Ok(()) => return Ok(()),
                Err(trouble) if trouble.is_receivers() => {
                    self.wait_after(&trouble).await;
                    if !self.source.learning.holds() {
                        return Err(Trouble::Deaf);
                    }
                    cursor.check().await?;
                }
                Err(trouble) => return Err(trouble),
            }
        }
    }

    /// Says what is wrong and waits; false when the sink is over.
    async fn wait_after(&mut self, trouble: &Trouble) -> bool {
        let is_over = matches!(trouble, Trouble::Gone);
        self.standing.trouble(&self.name, trouble.kind(), is_over);
        if is_over {
            tracing::error!(
                sink = %self.name, %trouble,
                "the sink is disabled until this server is started anew; its cursor stays, so nothing is skipped"
            );
            return false;
        }
        let asked = match trouble {
            Trouble::Refused { retry_after, .. } => *retry_after,
            Trouble::Unreachable(_)
            | Trouble::Timeout
            | Trouble::Gone
            | Trouble::Write(_)
            | Trouble::Database(_)
            | Trouble::Log(_)
            | Trouble::History(_)
            | Trouble::Taken
            | Trouble::Deaf => None,
        };
        let wait = self.backoff.next().max(asked.unwrap_or_default());
        if self.backoff.is_news(trouble.kind()) {
            tracing::warn!(
                sink = %self.name, %trouble, again_in_ms = wait.as_millis(),
                "the feed is held up; the ledger goes on without, and the feed catches up"
            );
        }
        sleep(wait).await;
        true
    }
}

/// Waits that grow, with chance in them so that sinks do not all come at once.
#[derive(Debug, Default)]
struct Backoff {
    tries: u32,
    said: Option<&'static str>,
}

impl Backoff {
    fn next(&mut self) -> Duration {
        let whole = FIRST_WAIT
            .saturating_mul(2_u32.saturating_pow(self.tries))
            .min(LONGEST_WAIT);
        self.tries = self.tries.saturating_add(1);
        // Between half of it and all of it.
        let [chance] = keys::random::<1>();
        whole / 2 + whole * u32::from(chance) / 510
    }

    /// Whether this trouble was not said yet.
    fn is_news(&mut self, kind: &'static str) -> bool {
        self.said.replace(kind) != Some(kind)
    }

    /// All is well; says whether it was not.
    fn reset(&mut self) -> bool {
        self.tries = 0;
        self.said.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_minute_and_no_two_servers_wait_the_same() {
        let mut backoff = Backoff::default();
        let waits: Vec<Duration> = (0..40).map(|_each| backoff.next()).collect();
        assert!(waits[0] >= FIRST_WAIT / 2 && waits[0] <= FIRST_WAIT);
        assert!(waits.iter().all(|wait| *wait <= LONGEST_WAIT));
        let last = &waits[20..];
        assert!(last.iter().all(|wait| *wait >= LONGEST_WAIT / 2));
        assert!(last.iter().any(|wait| *wait != last[0]));
        assert!(!backoff.reset(), "nothing was said");
        assert!(backoff.next() <= FIRST_WAIT);
    }
}
