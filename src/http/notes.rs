//! What the ledger writes down of this server's door: who reads what not everybody may, and how many
//! were turned away. It decides nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use countersign_protocol::effect::Note;
use countersign_protocol::event::{DeniedWhat, ReadWhat};
use countersign_protocol::hash::CommandId;
use countersign_protocol::name::{Principal, SECOND_US, Time, TokenId};
use countersign_protocol::permission::Permission;
use serde::Deserialize;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use super::app::App;
use super::auth::Who;
use super::error::ApiError;
use crate::ledger::AppendError;

/// One event for each reader, thing and hour.
const HOUR_US: u64 = 3600 * SECOND_US;

/// Reads that are remembered within an hour; when there are more, some are written twice.
const REMEMBERED_READS: usize = 100_000;

/// Reasons and people that are counted apart between two writings; the rest is counted together,
/// so that whoever is turned away under ever new names fills neither memory nor log.
const COUNTED_APART: usize = 64;

/// How often the counts are written: a minute of them is lost when the server dies.
const WRITE_EVERY: Duration = Duration::from_secs(60);

/// How long the counts may take at the end: a database that does not answer keeps no server from
/// stopping.
const LAST_WRITE: Duration = Duration::from_secs(2);

/// Reads of this hour, each written or about to be.
#[derive(Debug, Default)]
pub(super) struct Reads(Mutex<Hour>);

#[derive(Debug, Default)]
struct Hour {
    hour: u64,
    reads: BTreeMap<Note, Arc<OnceCell<()>>>,
}

impl Reads {
    /// The place of a note in this hour: filled once it stands in the log.
    fn place(&self, hour: u64, note: &Note) -> Arc<OnceCell<()>> {
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = written.reads.get(note).filter(|_| written.hour == hour) {
            return Arc::clone(place);
        }
        if written.hour != hour || written.reads.len() >= REMEMBERED_READS {
            *written = Hour {
                hour,
                reads: BTreeMap::new(),
            };
        }
        let place = Arc::<OnceCell<()>>::default();
        written.reads.insert(note.clone(), Arc::clone(&place));
        place
    }
}

/// What a reader says that it reads something for, when it is not just looked at.
#[derive(Debug, Clone, Copy, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Purpose {
    /// To show its output with its timing.
    Replay,
    /// To take it away in a bundle.
    Export,
}

impl From<Purpose> for ReadWhat {
    fn from(purpose: Purpose) -> Self {
        match purpose {
            Purpose::Replay => Self::Replay,
            Purpose::Export => Self::Export,
        }
    }
}

/// Makes sure that it stands in the log that somebody reads this, before anything goes out.
pub(super) async fn reads(
    app: &App,
    who: &Who,
    what: ReadWhat,
    command: Option<CommandId>,
) -> Result<(), ApiError> {
    let (key_id, token) = match who {
        Who::Person(_, key) => (Some(*key), None),
        Who::Token(_, token) => (None, Some(token.clone())),
    };
    let note = Note::Read {
        reader: who.principal().clone(),
        key_id,
        token,
        what,
        command,
    };
    let place = app
        .reads
        .place(app.clock.now().as_micros() / HOUR_US, &note);
    if place.initialized() {
        return Ok(());
    }
    // In a task of its own, so that a caller who hangs up leaves no note that is written and not remembered; and
    // nobody passes on the word of one who is still writing.
    let ledger = app.ledger.clone();
    let written = tokio::spawn(async move {
        let written = place.get_or_try_init(|| ledger.note(note)).await;
        written.map(drop)
    });
    written.await.unwrap_or(Err(AppendError::Unavailable))?;
    Ok(())
}

/// What was turned away since the last writing.
#[derive(Debug, Default)]
pub(super) struct Denials(Mutex<BTreeMap<Denied, Count>>);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Denied {
    what: DeniedWhat,
    principal: Option<Principal>,
    permission: Option<Permission>,
}

#[derive(Debug, Clone, Copy)]
struct Count {
    count: u64,
    from: Time,
    to: Time,
}

impl Denials {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Denied, Count>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call that was turned away.
    pub(super) fn count(
        &self,
        what: DeniedWhat,
        principal: Option<Principal>,
        permission: Option<Permission>,
        now: Time,
    ) {
        let mut counted = self.lock();
        let mut denied = Denied {
            what,
            principal,
            permission,
        };
        if counted.len() >= COUNTED_APART && !counted.contains_key(&denied) {
            denied.principal = None;
            denied.permission = None;
        }
        let count = counted.entry(denied).or_insert(Count {
            count: 0,
            from: now,
            to: now,
        });
        count.count += 1;
        count.to = count.to.max(now);
    }

    /// Writes the counts down. What cannot be written is counted on.
    async fn write(&self, app: &App) {
        let counted = std::mem::take(&mut *self.lock());
        for (denied, count) in counted {
            let note = Note::Denied {
                what: denied.what,
                principal: denied.principal.clone(),
                permission: denied.permission,
                count: count.count,
                from: count.from,
                to: count.to,
            };
            if let Err(error) = app.ledger.note(note).await {
                tracing::warn!(%error, "who was turned away is not written yet");
                let mut counted = self.lock();
                let again = counted.entry(denied).or_insert(Count { count: 0, ..count });
                again.count += count.count;
                again.from = again.from.min(count.from);
            }
        }
    }
}

/// Writes the counts every minute, and once more at the end.
pub async fn run(app: App, shutdown: CancellationToken) {
    let write = async {
        loop {
            let slept = shutdown.run_until_cancelled(tokio::time::sleep(WRITE_EVERY));
            let is_last = slept.await.is_none();
            app.denials.write(&app).await;
            if is_last {
                return;
            }
        }
    };
    // What is being written when the word comes has as long: it was taken out of the counts.
    let overdue = async {
        shutdown.cancelled().await;
        tokio::time::sleep(LAST_WRITE).await;
    };
    tokio::select! {
        () = write => {}
        () = overdue => tracing::warn!("who was turned away last is not written: no answer"),
    }
}

/// How often the last use of a token is kept: people ask which of them nobody uses any more.
const KEEP_EVERY_US: u64 = 60 * SECOND_US;

/// When the last use of each API token was last kept. A convenience for people and no record: it is
/// not in the log.
#[derive(Debug, Default)]
pub(super) struct TokenUses(Mutex<BTreeMap<TokenId, Time>>);

impl TokenUses {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<TokenId, Time>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says whether this use is to be kept; then it is taken to be. Of a token that is known, so
    /// that there are no more of them than tokens.
    pub(super) fn is_to_keep(&self, token: &TokenId, now: Time) -> bool {
        let mut kept = self.lock();
        let known = kept.get(token).copied();
        if known.is_some_and(|known| now.micros_since(known) < KEEP_EVERY_US) {
            return false;
        }
        kept.insert(token.clone(), now);
        true
    }
}
