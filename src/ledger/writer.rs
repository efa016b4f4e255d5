//! One writer at a time: drain, lock head, catch up, decide, seal, commit, answer.
//!
//! **Commit point**: the transaction's COMMIT. Before it nothing has happened; a refusal or an error
//! leaves no trace. After it, and after the checkpoint file is durable, everybody is answered. When
//! COMMIT itself fails, the database is asked what became of it; if it cannot say, callers are told
//! that the outcome is unknown, and the state is read back before the next batch.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use countersign_protocol::checkpoint::{Checkpoint, CheckpointBody, Origin, VerifierKey};
use countersign_protocol::effect::{LedgerHeader, Note};
use countersign_protocol::erasure::Naming;
use countersign_protocol::event::{Event, Seen};
use countersign_protocol::fold::{self, Attachment, Refusal, State, Stream};
use countersign_protocol::hash::{CommandId, Hash, LedgerId, StatementId};
use countersign_protocol::judgement::Judge;
use countersign_protocol::lifecycle::Position;
use countersign_protocol::merkle::RightEdge;
use countersign_protocol::name::{SECOND_US, Time};
use countersign_protocol::proof;
use countersign_protocol::statement::{Statement, Verified};
use sqlx::{Acquire as _, PgConnection, PgPool};

use super::admission::Admitted;
use super::batch::{Batch, Sealed};
use super::erasing::look_around;
use super::error::{AppendError, OpenError};
use super::newest::{Newest, behind, check_continues};
use super::queue::{DueAnswer, Exit, Turn};
use super::receipt::Receipt;
use super::state::Folded;
use super::store::{self, HeadRow};
use crate::clock::Clock;
use crate::keys::{self, LedgerKeys};

/// Most statements in a batch: some 50 ms of work, so that nobody waits long behind others.
const BATCH_STATEMENTS: usize = 512;

/// How long statements are taken into a batch: judging one may take some 100 ms, and while a batch is
/// decided other servers wait for the head. The rest goes into the next one.
const BATCH_DECIDING: Duration = Duration::from_millis(250);

/// Most bytes of payloads and signatures in a batch.
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// An idle ledger says so after this long, so that a cut tail shows.
const HEARTBEAT_US: u64 = 60 * SECOND_US;

/// How far this server's clock may be behind the newest entry.
const CLOCK_BEHIND_US: u64 = 10 * SECOND_US;

/// How far this server's clock may be ahead of the database's: a second opinion that is at hand also
/// after a long pause. Half of [`CLOCK_BEHIND_US`]: nothing that one server writes is too far ahead for
/// another that is itself as far behind the database's clock.
const CLOCK_AHEAD_US: u64 = CLOCK_BEHIND_US / 2;

/// How often, and how long apart, the database is asked what became of a COMMIT.
const SETTLE_TRIES: u32 = 10;
const SETTLE_PAUSE: Duration = Duration::from_millis(500);

/// The only holder of the folded state.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) pool: PgPool,
    pub(super) keys: LedgerKeys,
    pub(super) clock: Clock,
    /// None while it must be read back.
    pub(super) state: Option<Folded>,
    pub(super) newest: Arc<Newest>,
    pub(super) verifier: Arc<VerifierKey>,
    pub(super) ledger: LedgerId,
    /// Set once nothing may be written any more, with the reason.
    pub(super) stopped: Arc<OnceLock<Arc<str>>>,
    pub(super) judge: Arc<dyn Judge>,
}

/// Why a batch did not happen.
pub(super) enum Failure {
    /// It may work next time; nothing was written, or it is not known.
    Passing(AppendError),
    /// What was read contradicts what is known: nothing may be written any more.
    Final(String),
}

/// Why a batch was not decided.
enum Undecided {
    /// As a whole.
    Failed(Failure),
    /// What the ledger would have to say to this statement cannot be said.
    Unsaid(StatementId),
}

impl<E> From<E> for Undecided
where
    Failure: From<E>,
{
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        tracing::warn!(%error, "the database failed while a batch was written");
        Self::Passing(AppendError::Unavailable)
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        if let OpenError::Database(error) = error {
            return error.into();
        }
        Self::Final(error.to_string())
    }
}

/// What became of one ticket's statement.
enum Decision {
    /// It is in the batch.
    Appended(Sealed, Option<CommandId>),
    /// It stands in the log already: in this batch, or at a place that was committed before.
    Repeated {
        seq: u64,
        command: Option<CommandId>,
    },
    /// It may not stand.
    Refused(AppendError),
}

/// A decided batch with all that its answers need.
pub(super) struct Decided {
    pub(super) head: HeadRow,
    /// The head's, checked to be of the state's right edge.
    newest: Arc<Checkpoint>,
    pub(super) batch: Batch,
    pub(super) state: Folded,
    decisions: Vec<Decision>,
    pub(super) touched: BTreeSet<CommandId>,
}

impl Writer {
    /// Serves who submits until the last of them is gone or the ledger must stop.
    pub(super) async fn run(mut self, mut waiting: Exit) {
        while let Some(turn) = waiting.take(BATCH_STATEMENTS, BATCH_BYTES).await {
            let Turn {
                statements,
                answers,
                dues,
                notes,
            } = turn;
            let (notes, told): (Vec<Note>, Vec<DueAnswer>) = notes.into_iter().unzip();
            let dues: Vec<DueAnswer> = dues.into_iter().chain(told).collect();
            let result = self.write(&statements, &notes, !dues.is_empty()).await;
            let settled = match &result {
                Ok(_) => Ok(()),
                Err(Failure::Passing(error)) => Err(error.clone()),
                Err(Failure::Final(reason)) => Err(AppendError::Stopped(reason.as_str().into())),
            };
            if let Err(AppendError::Stopped(reason)) = &settled {
                // Before anybody hears of it, so that nobody is told that this server is ready.
                let _once = self.stopped.set(Arc::clone(reason));
            }
            let mut answers = answers.into_iter();
            match result {
                Ok(receipts) => {
                    let decided = receipts.len();
                    for (receipt, answer) in receipts.into_iter().zip(answers.by_ref()) {
                        let _gone = answer.send(receipt);
                    }
                    waiting.put_back(statements.into_iter().skip(decided).zip(answers));
                }
                Err(_) => answers.for_each(|answer| {
                    let _gone = answer.send(settled.clone().map(|()| unreachable!("an error")));
                }),
            }
            dues.into_iter().for_each(|answer| {
                let _gone = answer.send(settled.clone());
            });
            if let Err(AppendError::Stopped(reason)) = settled {
                tracing::error!(%reason, "the ledger stops: nothing may be appended any more");
                refuse_all(waiting, &reason).await;
                return;
            }
        }
    }

    /// Writes one batch and gives a receipt or a refusal for each statement that was decided: of those
    /// at the front, one at least, as many as [`BATCH_DECIDING`] has time for.
    async fn write(
        &mut self,
        admitted: &[Admitted],
        notes: &[Note],
        due: bool,
    ) -> Result<Vec<Result<Receipt, AppendError>>, Failure> {
        if let Some(reason) = self.stopped.get() {
            return Err(Failure::Final(reason.to_string()));
        }
        if admitted.is_empty() && notes.is_empty() && !self.something_due() {
            return Ok(Vec::new());
        }
        let mut connection = self.pool.acquire().await?;
        let mut transaction = connection.begin().await?;
        let mut unsaid = BTreeSet::new();
        let mut decided = loop {
            let asked = (admitted, &unsaid);
            match self.decide(&mut transaction, asked, notes, due).await {
                Ok(decided) => break decided,
                Err(Undecided::Failed(failure)) => return Err(failure),
                // The state has taken it, and is read back without it.
                Err(Undecided::Unsaid(id)) => drop(unsaid.insert(id)),
            }
        };
        let mut answers = self.repeated(&mut transaction, &mut decided).await?;
        if decided.batch.is_empty() {
            // Nothing was written, and yet: when the commit of this lock is acknowledged, so is all
            // that it stands on. A primary that came back from a crash shows entries that its
            // standby may not have, and a receipt for one of those would be worth nothing.
            transaction.commit().await?;
            // The head may be another server's: its checkpoint is kept here before it is told here.
            let kept = self.newest.advance(Arc::clone(&decided.newest));
            self.keep(decided.state, &decided.touched);
            let mut results = finish(answers, decided.decisions, |_| None);
            if let Err(error) = kept {
                tracing::warn!(%error, "what other servers committed cannot be kept");
                for receipt in results.iter_mut().filter(|result| result.is_ok()) {
                    *receipt = Err(AppendError::NotKept);
                }
            }
            return Ok(results);
        }
        let checkpoint = Arc::new(self.sign(&decided.batch));
        let head = insert(&mut transaction, &mut decided, &checkpoint).await?;
        if let Err(error) = transaction.commit().await {
            tracing::warn!(%error, "COMMIT failed; asking what became of it");
            drop(connection);
            self.settle(&head).await?;
        }
        self.committed(&checkpoint, &mut decided)?;
        let (batch, fold) = (&decided.batch, &decided.state.fold);
        let statuses: HashMap<CommandId, _> = decided
            .touched
            .iter()
            .filter_map(|id| Some((*id, fold.command(id)?.status())))
            .collect();
        let receipt = |sealed: &Sealed, command: Option<CommandId>| Receipt {
            id: sealed.at.id,
            seq: sealed.at.seq,
            time: sealed.at.time,
            entry: Arc::clone(&sealed.bytes),
            leaf: sealed.leaf,
            checkpoint: Arc::clone(&checkpoint),
            inclusion: batch.tree.inclusion(sealed.at.seq, batch.size()),
            status: command.and_then(|id| statuses.get(&id).copied()),
            repeated: false,
        };
        // A statement that came twice in this batch gets the receipt of its first.
        let first: HashMap<u64, Receipt> = decided
            .decisions
            .iter()
            .filter_map(|decision| match decision {
                Decision::Appended(sealed, command) => {
                    Some((sealed.at.seq, receipt(sealed, *command)))
                }
                Decision::Repeated { .. } | Decision::Refused(_) => None,
            })
            .collect();
        for (index, decision) in decided.decisions.iter().enumerate() {
            if let Decision::Repeated { seq, .. } = decision
                && let Some(again) = first.get(seq)
            {
                answers.insert(
                    index,
                    Receipt {
                        repeated: true,
                        ..again.clone()
                    },
                );
            }
        }
        let results = finish(answers, decided.decisions, |seq| first.get(&seq).cloned());
        self.keep(decided.state, &decided.touched);
        Ok(results)
    }

    /// Keeps the state for the next batch, without most of the commands that are settled.
    fn keep(&mut self, mut state: Folded, touched: &BTreeSet<CommandId>) {
        state.let_go(touched);
        self.state = Some(state);
    }

    /// Also where another server has written since: what it wrote may have a deadline, and it may be gone.
    fn something_due(&self) -> bool {
        let (now, known) = (self.clock.now(), self.newest.known().size());
        self.state.as_ref().is_none_or(|state| {
            state.size() < known
                || state.fold.is_due(now)
                || now.micros_since(state.last_time) >= HEARTBEAT_US
        })
    }

    /// Locks the head, catches up, and decides each statement against the state after the one
    /// before it.
    async fn decide(
        &mut self,
        connection: &mut PgConnection,
        (admitted, unsaid): (&[Admitted], &BTreeSet<StatementId>),
        notes: &[Note],
        due: bool,
    ) -> Result<Decided, Undecided> {
        let head = store::lock_head(connection).await?;
        // At the same moment as the database's: what is read back below may take a while.
        let now = self.clock.now();
        let known = self.newest.known();
        // Taken: if anything goes wrong from here on, it is read back.
        let mut state = match self.state.take() {
            Some(mut state) => {
                // This server may have seen more than it wrote and folded itself.
                if known.size() > head.size {
                    return Err(behind(&head, &known).into());
                }
                state.catch_up(connection, &head).await?;
                state
            }
            None => {
                check_continues(connection, &head, &known).await?;
                Folded::load(connection, &head, &self.judge).await?
            }
        };
        let newest = Checkpoint::open(&head.note, &self.verifier)
            .map(Arc::new)
            .map_err(|error| Failure::Final(format!("the head's checkpoint: {error}")))?;
        if newest.size() != head.size || newest.root() != state.edge.root() {
            return Err(Failure::Final(
                "the head's checkpoint is not of its right edge".to_owned(),
            )
            .into());
        }
        state.know_root(newest.size(), newest.root());
        let time = match Self::time(now, &state, &head) {
            Ok(time) => time,
            Err(error) => {
                self.state = Some(state);
                return Err(Failure::Passing(error).into());
            }
        };
        let batch = Batch::new(state.edge.clone(), state.last_leaf, time);
        let seen = Seen {
            size: newest.size(),
            root: newest.root(),
        };
        let mut decided = Decided {
            head,
            newest,
            batch,
            state,
            decisions: Vec::new(),
            touched: BTreeSet::new(),
        };
        let ids: Vec<StatementId> = admitted
            .iter()
            .map(|admitted| admitted.verified.id())
            .collect();
        let mut places = store::places(connection, &ids).await?;
        let begun = Instant::now();
        for admitted in admitted {
            if !decided.decisions.is_empty() && begun.elapsed() >= BATCH_DECIDING {
                break;
            }
            let id = admitted.verified.id();
            let decision = match places.get(&id) {
                Some(seq) => repeat(&mut decided, admitted, *seq),
                None if unsaid.contains(&id) => Decision::Refused(Refusal::TooLarge.into()),
                None => {
                    self.decide_one(connection, &mut decided, admitted, seen)
                        .await?
                }
            };
            if let Decision::Appended(sealed, _) = &decision {
                places.insert(id, sealed.at.seq);
            }
            decided.decisions.push(decision);
        }
        decided.state.fold.name_texts(Naming::new());
        for note in notes {
            let event = self.header(&decided, seen).note(note.clone());
            self.say(&mut decided, &event)?;
        }
        let commands = decided.state.fold.commands();
        let looked_at = commands.filter(|command| due || decided.touched.contains(&command.id));
        let looked_at: BTreeSet<_> = looked_at
            .map(|command| (command.requested.seq, command.id))
            .collect();
        self.append_due(&mut decided, seen, looked_at)?;
        if due {
            self.append_heartbeat(&mut decided, seen)?;
        }
        Ok(decided)
    }

    /// The time of the batch: never before the newest entry, never far from the database's clock.
    fn time(now: Time, state: &Folded, head: &HeadRow) -> Result<Time, AppendError> {
        let behind = state.last_time.micros_since(now);
        let ahead = now.as_micros().saturating_sub(head.database_us);
        if ahead > CLOCK_AHEAD_US {
            tracing::error!(
                ahead_us = ahead,
                "nothing is written: this server's clock is ahead of the database's"
            );
            return Err(AppendError::Clock);
        }
        if behind > CLOCK_BEHIND_US {
            let behind_database = head.database_us.saturating_sub(now.as_micros());
            if behind_database > CLOCK_AHEAD_US {
                tracing::error!(
                    behind_us = behind,
                    behind_database_us = behind_database,
                    "nothing is written: this server's clock is behind the newest entry and the \
                     database's clock"
                );
            } else {
                tracing::error!(
                    behind_us = behind,
                    "nothing is written: the newest entry is ahead of this server's clock, which agrees \
                     with the database's. Another server wrote ahead of time, or the database's clock \
                     was set back; it passes when the clocks have come so far"
                );
            }
            return Err(AppendError::Clock);
        }
        Ok(now.max(state.last_time))
    }

    async fn decide_one(
        &self,
        connection: &mut PgConnection,
        decided: &mut Decided,
        admitted: &Admitted,
        seen: Seen,
    ) -> Result<Decision, Undecided> {
        let Admitted {
            verified,
            attachment,
        } = admitted;
        let (event, id) = (verified.event(), verified.id());
        // First what costs nothing: who may not speak must not make everybody wait for a reading.
        let rights = decided.state.fold.rights();
        if let Err(refusal) = rights.may_sign(event, verified.key(), decided.batch.time) {
            return Ok(Decision::Refused(refusal.into()));
        }
        if let Some(refusal) = check_client_ref(connection, &decided.batch, event).await? {
            return Ok(Decision::Refused(refusal.into()));
        }
        let size = decided.head.size;
        decided.state.touch(connection, event, id, size).await?;
        if let Some(Stream::Command(command)) = Stream::of(event, id) {
            // Also when it is refused: what was read back must not stay.
            decided.touched.insert(command);
        }
        if let Event::CommandRequested(request) = event
            && let Some(retry) = &request.retry
        {
            decided.touched.insert(retry.of);
        }
        let held = decided.state.fold.holds_retried(event);
        let held = held.and_then(|()| decided.state.fold.holds_facts(attachment));
        if let Err(refusal) = held {
            return Ok(Decision::Refused(refusal.into()));
        }
        if let Some(claimed) = event.header().seen {
            let root = match claimed.size {
                1.. if claimed.size <= size => {
                    decided.state.root_at(connection, claimed.size).await?
                }
                _ => None,
            };
            if let Err(refusal) = fold::check_seen(&claimed, size, root) {
                return Ok(Decision::Refused(refusal.into()));
            }
        }
        if let Some(refusal) = look_around(connection, decided, event, attachment).await? {
            return Ok(Decision::Refused(refusal.into()));
        }
        let sealed = match enter(decided, verified, attachment.clone()) {
            Ok(sealed) => sealed,
            Err(error) => return Ok(Decision::Refused(error)),
        };
        // What the ledger says may call for more of its words: a run without approvals, a review.
        let mut cause = (event.clone(), sealed.at);
        while let Some(effect) = decided.state.fold.effect_of(&cause.0, cause.1) {
            let event = self.header(decided, seen).effect(effect);
            let at = match self.say(decided, &event) {
                Ok(at) => at,
                // Nobody's statement stops the ledger: it is refused for what would follow from it.
                Err(Failure::Final(reason)) => {
                    tracing::error!(%id, %reason, "a statement is refused");
                    return Err(Undecided::Unsaid(id));
                }
                Err(failure) => return Err(failure.into()),
            };
            cause = (event, at);
        }
        let command = Stream::of(event, id).and_then(|stream| match stream {
            Stream::Command(command) => Some(command),
            Stream::Rights => None,
        });
        Ok(Decision::Appended(sealed, command))
    }

    /// What is due of these commands, the oldest first. A turn that ended in this batch lets the next
    /// one begin in it.
    fn append_due(
        &self,
        decided: &mut Decided,
        seen: Seen,
        commands: BTreeSet<(u64, CommandId)>,
    ) -> Result<(), Failure> {
        let now = decided.batch.time;
        let mut room = BATCH_STATEMENTS;
        for (_, command) in commands {
            while room > 0 {
                let due = decided.state.fold.due(&command, now);
                if due.is_empty() {
                    break;
                }
                for due in due.into_iter().take(room) {
                    let event = self.header(decided, seen).due(command, due);
                    self.say(decided, &event)?;
                    room -= 1;
                }
            }
        }
        Ok(())
    }

    fn append_heartbeat(&self, decided: &mut Decided, seen: Seen) -> Result<(), Failure> {
        let quiet = decided.batch.time.micros_since(decided.state.last_time) >= HEARTBEAT_US;
        if decided.batch.is_empty() && quiet {
            let event = self.header(decided, seen).heartbeat();
            self.say(decided, &event)?;
        }
        Ok(())
    }

    fn header(&self, decided: &Decided, seen: Seen) -> LedgerHeader {
        LedgerHeader {
            signer: self.keys.statement_id(),
            nonce: keys::nonce(),
            made_at: decided.batch.time,
            ledger: self.ledger,
            seen,
        }
    }

    /// The ledger's own word. That it may stand follows from the state, so a refusal is a fault.
    fn say(&self, decided: &mut Decided, event: &Event) -> Result<Position, Failure> {
        let fault = |error: &dyn std::fmt::Display| {
            Failure::Final(format!(
                "the ledger's own {}: {error}",
                event.kind().as_str()
            ))
        };
        let statement =
            Statement::sign(event, self.keys.statement()).map_err(|error| fault(&error))?;
        let verified = statement.verify().map_err(|error| fault(&error))?;
        enter(decided, &verified, Attachment::None)
            .map(|sealed| sealed.at)
            .map_err(|error| fault(&error))
    }

    /// Receipts for statements that were committed before this batch, by their index.
    async fn repeated(
        &self,
        connection: &mut PgConnection,
        decided: &mut Decided,
    ) -> Result<HashMap<usize, Receipt>, Failure> {
        let mut answers = HashMap::new();
        let size = decided.head.size;
        for (index, decision) in decided.decisions.iter().enumerate() {
            let Decision::Repeated { seq, command } = decision else {
                continue;
            };
            if *seq >= size {
                continue;
            }
            let rows = store::entries(connection, *seq, seq + 1, 1).await?;
            let row = rows.into_iter().next().ok_or(sqlx::Error::RowNotFound)?;
            let entry = countersign_protocol::audit::check_entry(&row.entry)
                .map_err(|reason| Failure::Final(format!("entry {seq}: {reason}")))?;
            let nodes = store::nodes(connection, &proof::nodes_for_inclusion(*seq, size)).await?;
            let inclusion = proof::inclusion_proof(&nodes, *seq, size)
                .ok_or_else(|| Failure::Final(format!("nodes over entry {seq} are missing")))?;
            let receipt = Receipt {
                id: entry.verified.id(),
                seq: *seq,
                time: entry.time,
                entry: row.entry.into(),
                leaf: entry.leaf,
                checkpoint: Arc::clone(&decided.newest),
                inclusion,
                status: command.and_then(|id| Some(decided.state.fold.command(&id)?.status())),
                repeated: true,
            };
            answers.insert(index, receipt);
        }
        Ok(answers)
    }

    fn sign(&self, batch: &Batch) -> Checkpoint {
        let origin = self.verifier.origin().clone();
        let body = CheckpointBody {
            origin,
            size: batch.size(),
            root: batch.edge.root(),
        };
        Checkpoint::sign(body, self.keys.checkpoint())
    }

    /// The transaction is committed: make the file durable, and only then let the note out.
    fn committed(
        &mut self,
        checkpoint: &Arc<Checkpoint>,
        decided: &mut Decided,
    ) -> Result<(), Failure> {
        self.newest
            .advance(Arc::clone(checkpoint))
            .map_err(|error| Failure::Final(error.to_string()))?;
        let Decided { batch, state, .. } = decided;
        state.edge = batch.edge.clone();
        state.last_leaf = batch.last_leaf;
        state.last_time = batch.time;
        state.know_root(checkpoint.size(), checkpoint.root());
        Ok(())
    }

    /// Asks what became of a COMMIT whose answer was lost. Ok: it happened.
    async fn settle(&self, wanted: &HeadRow) -> Result<(), Failure> {
        for _try in 0..SETTLE_TRIES {
            let asked = async {
                let mut transaction = self.pool.begin().await?;
                // Waits for the lost transaction to be over, one way or the other.
                store::lock_head(&mut transaction).await?;
                let note = store::note(&mut transaction, wanted.size).await?;
                // Acknowledged as a batch would be, by the standbys too: what is found may have been
                // committed on this machine alone.
                transaction.commit().await?;
                Ok::<_, sqlx::Error>(note)
            };
            match asked.await {
                Ok(note) if note.as_deref() == Some(wanted.note.as_str()) => return Ok(()),
                Ok(_) => return Err(Failure::Passing(AppendError::Unavailable)),
                Err(error) => tracing::warn!(%error, "the outcome of a COMMIT is not known yet"),
            }
            tokio::time::sleep(SETTLE_PAUSE).await;
        }
        Err(Failure::Passing(AppendError::Unavailable))
    }

    /// Writes the first entry of a ledger.
    pub(super) async fn begin(
        connection: &mut PgConnection,
        keys: &LedgerKeys,
        judge: &Arc<dyn Judge>,
        origin: &Origin,
        genesis: &Verified,
    ) -> Result<(Checkpoint, Hash), OpenError> {
        let refused = |reason: String| OpenError::Entry { seq: 0, reason };
        // The time that it says itself, so that the ledger's id is known before there is a database.
        let time = genesis.event().header().made_at;
        let mut batch = Batch::new(RightEdge::default(), Hash::ZERO, time);
        let sealed = batch
            .seal(genesis)
            .map_err(|error| refused(error.to_string()))?;
        State::new(Arc::clone(judge))
            .admit(genesis, sealed.at, sealed.leaf, Attachment::None)
            .map_err(|refusal| refused(refusal.to_string()))?;
        batch.push(&sealed, genesis.event());
        let body = CheckpointBody {
            origin: origin.clone(),
            size: 1,
            root: batch.edge.root(),
        };
        let checkpoint = Checkpoint::sign(body, keys.checkpoint());
        let head = head_of(&batch, &checkpoint);
        store::insert_batch(connection, &batch.rows, &head).await?;
        Ok((checkpoint, sealed.leaf))
    }
}

/// Says to everybody who waits or comes that the ledger has stopped.
async fn refuse_all(mut waiting: Exit, reason: &Arc<str>) {
    while let Some(turn) = waiting.take(usize::MAX, usize::MAX).await {
        let stopped = || AppendError::Stopped(Arc::clone(reason));
        for answer in turn.answers {
            let _gone = answer.send(Err(stopped()));
        }
        let notes = turn.notes.into_iter().map(|(_, answer)| answer);
        for answer in turn.dues.into_iter().chain(notes) {
            let _gone = answer.send(Err(stopped()));
        }
    }
}

/// Seals, decides and, if it may stand, takes a statement into the batch.
fn enter(
    decided: &mut Decided,
    verified: &Verified,
    attachment: Attachment,
) -> Result<Sealed, AppendError> {
    let sealed = decided
        .batch
        .seal(verified)
        .map_err(|error| AppendError::Document(error.to_string()))?;
    decided
        .state
        .fold
        .admit(verified, sealed.at, sealed.leaf, attachment)?;
    let event = verified.event();
    decided.batch.push(&sealed, event);
    if let Some(Stream::Command(command)) = Stream::of(event, sealed.at.id) {
        if command == sealed.at.id {
            decided.batch.rows.opened.push(command.as_bytes().to_vec());
        }
        decided.touched.insert(command);
    }
    Ok(sealed)
}

/// A statement that stands in the log already.
fn repeat(decided: &mut Decided, admitted: &Admitted, seq: u64) -> Decision {
    let command = match Stream::of(admitted.verified.event(), admitted.verified.id()) {
        Some(Stream::Command(command)) => Some(command),
        Some(Stream::Rights) | None => None,
    };
    // One that is not held is over, and is not read back for it: a host that says an old word again and again would make
    // everybody wait.
    let held = command.filter(|command| decided.state.fold.command(command).is_some());
    decided.touched.extend(held);
    Decision::Repeated { seq, command }
}

/// A caller's own id that stands for another request, in the log or in this batch.
async fn check_client_ref(
    connection: &mut PgConnection,
    batch: &Batch,
    event: &Event,
) -> Result<Option<Refusal>, Failure> {
    let Event::CommandRequested(request) = event else {
        return Ok(None);
    };
    let Some(client_ref) = &request.client_ref else {
        return Ok(None);
    };
    let (names, refs, _) = &batch.rows.client_refs;
    let in_batch = names
        .iter()
        .zip(refs)
        .any(|(name, known)| name == request.principal.as_str() && known == client_ref.as_bytes());
    let known = store::client_ref(connection, request.principal.as_str(), client_ref).await?;
    Ok((in_batch || known.is_some()).then_some(Refusal::ClientRef))
}

fn head_of(batch: &Batch, checkpoint: &Checkpoint) -> HeadRow {
    HeadRow {
        size: batch.size(),
        last_leaf: batch.last_leaf,
        last_time_us: batch.time.as_micros(),
        right_edge: batch.edge.hashes().to_vec(),
        note: checkpoint.note().to_owned(),
        database_us: 0,
    }
}

async fn insert(
    connection: &mut PgConnection,
    decided: &mut Decided,
    checkpoint: &Checkpoint,
) -> Result<HeadRow, Failure> {
    let fold = &decided.state.fold;
    let ended = |id: &&CommandId| {
        fold.command(id)
            .is_some_and(|held| held.status().is_final())
    };
    decided.batch.rows.closed = decided
        .touched
        .iter()
        .filter(ended)
        .map(|id| id.as_bytes().to_vec())
        .collect();
    let head = head_of(&decided.batch, checkpoint);
    store::insert_batch(connection, &decided.batch.rows, &head).await?;
    Ok(head)
}

/// Pairs each decision with its answer, in the order in which the statements came.
fn finish(
    mut repeated: HashMap<usize, Receipt>,
    decisions: Vec<Decision>,
    appended: impl Fn(u64) -> Option<Receipt>,
) -> Vec<Result<Receipt, AppendError>> {
    let answer = |(index, decision)| match decision {
        Decision::Appended(sealed, _) => {
            let sealed: Sealed = sealed;
            appended(sealed.at.seq).ok_or(AppendError::Unavailable)
        }
        Decision::Repeated { .. } => repeated.remove(&index).ok_or(AppendError::Unavailable),
        Decision::Refused(error) => Err(error),
    };
    decisions.into_iter().enumerate().map(answer).collect()
}
