//! What waits for the writer, fair among those who submit: one turn each, in the order in which
//! they came, so that a flood by one of them delays the others by one statement a turn. Who submits is a
//! key, or an API token: one key, the gateway's, signs for all of those.
//!
//! Bounded for each of them and for all together. It decides nothing.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use countersign_protocol::effect::Note;
use countersign_protocol::hash::KeyId;
use countersign_protocol::name::TokenId;
use countersign_protocol::rights::token_of;
use tokio::sync::{Notify, oneshot};

use super::admission::Admitted;
use super::error::AppendError;
use super::receipt::Receipt;

/// Submissions that may wait for the writer; beyond it callers are told to come again. As many as there
/// may be streams: each agent of a fleet that starts one command has one thing to say, and some seconds
/// in the queue are less work than coming again. Some 100 MiB if all are there.
const QUEUE: usize = 16 * 1024;

/// Those of one who submits among them: one, or a few, cannot take every place.
const QUEUE_OF_ONE: usize = 1024;

/// Notes that may wait: each holds up a reader until it is written.
const NOTES: usize = 1024;

/// Notes of one batch, beside its statements.
const NOTES_AT_ONCE: usize = 64;

/// Where a statement's receipt or refusal goes.
pub(super) type Answer = oneshot::Sender<Result<Receipt, AppendError>>;

/// Where the word goes that what time demanded, or a note, is written.
pub(super) type DueAnswer = oneshot::Sender<Result<(), AppendError>>;

/// What the writer takes at once.
#[derive(Debug, Default)]
pub(super) struct Turn {
    pub(super) statements: Vec<Admitted>,
    /// One for each statement.
    pub(super) answers: Vec<Answer>,
    pub(super) dues: Vec<DueAnswer>,
    pub(super) notes: Vec<(Note, DueAnswer)>,
}

/// Who has a turn.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Submitter {
    Key(KeyId),
    /// For whom the gateway signed; in whose name others say to speak counts for nothing.
    Token(TokenId),
}

impl Submitter {
    fn of(admitted: &Admitted, gateway: Option<KeyId>) -> Self {
        let key = admitted.verified.key().key_id();
        match token_of(admitted.verified.event()) {
            Some((token, _)) if gateway == Some(key) => Self::Token(token.clone()),
            Some(_) | None => Self::Key(key),
        }
    }
}

#[derive(Debug, Default)]
struct Waiting {
    /// Who has something waiting, the next one first.
    turns: VecDeque<Submitter>,
    of_one: HashMap<Submitter, VecDeque<(Box<Admitted>, Answer)>>,
    count: usize,
    dues: Vec<DueAnswer>,
    notes: VecDeque<(Note, DueAnswer)>,
    /// Nobody can put anything in any more.
    left: bool,
    /// Nobody will take anything out any more.
    closed: bool,
}

#[derive(Debug)]
struct Queue {
    /// Signs for the holders of API tokens.
    gateway: Option<KeyId>,
    waiting: Mutex<Waiting>,
    wake: Notify,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where statements go in. The writer ends when it is dropped.
#[derive(Debug)]
pub(super) struct Entrance(Arc<Queue>);

/// Where the writer takes them out.
#[derive(Debug)]
pub(super) struct Exit(Arc<Queue>);

/// A queue with its two ends. `gateway` signs for the holders of API tokens.
pub(super) fn queue(gateway: Option<KeyId>) -> (Entrance, Exit) {
    let queue = Arc::new(Queue {
        gateway,
        waiting: Mutex::default(),
        wake: Notify::new(),
    });
    (Entrance(Arc::clone(&queue)), Exit(queue))
}

fn shut_down() -> AppendError {
    AppendError::Stopped("it was shut down".into())
}

impl Entrance {
    /// Puts a statement behind those of the same submitter.
    ///
    /// # Errors
    /// [`AppendError::Busy`] when too many wait, of this one or in all.
    pub(super) fn submit(&self, admitted: Admitted, answer: Answer) -> Result<(), AppendError> {
        let submitter = Submitter::of(&admitted, self.0.gateway);
        let mut guard = self.0.lock();
        let waiting = &mut *guard;
        if waiting.closed {
            return Err(shut_down());
        }
        let of_one = waiting.of_one.entry(submitter.clone()).or_default();
        let busy = waiting.count >= QUEUE || of_one.len() >= QUEUE_OF_ONE;
        if !busy {
            if of_one.is_empty() {
                waiting.turns.push_back(submitter);
            }
            of_one.push_back((Box::new(admitted), answer));
            waiting.count += 1;
        } else if of_one.is_empty() {
            waiting.of_one.remove(&submitter);
        }
        drop(guard);
        if busy {
            return Err(AppendError::Busy);
        }
        self.0.wake.notify_one();
        Ok(())
    }

    /// Asks for what time demands.
    ///
    /// # Errors
    /// The writer has ended.
    pub(super) fn due(&self, answer: DueAnswer) -> Result<(), AppendError> {
        let mut waiting = self.0.lock();
        if waiting.closed {
            return Err(shut_down());
        }
        waiting.dues.push(answer);
        drop(waiting);
        self.0.wake.notify_one();
        Ok(())
    }

    /// Puts a note behind the others.
    ///
    /// # Errors
    /// [`AppendError::Busy`] when too many wait.
    pub(super) fn note(&self, note: Note, answer: DueAnswer) -> Result<(), AppendError> {
        let mut waiting = self.0.lock();
        if waiting.closed {
            return Err(shut_down());
        }
        if waiting.notes.len() >= NOTES {
            return Err(AppendError::Busy);
        }
        waiting.notes.push_back((note, answer));
        drop(waiting);
        self.0.wake.notify_one();
        Ok(())
    }

    /// Whether nobody takes anything out any more.
    pub(super) fn is_closed(&self) -> bool {
        self.0.lock().closed
    }
}

impl Drop for Entrance {
    fn drop(&mut self) {
        self.0.lock().left = true;
        self.0.wake.notify_one();
    }
}

impl Exit {
    /// Waits for something, and takes up to `statements` and about `bytes` of it: one statement of
    /// each who submits, again and again. None when nothing can come any more.
    pub(super) async fn take(&mut self, statements: usize, bytes: usize) -> Option<Turn> {
        loop {
            {
                let mut waiting = self.0.lock();
                let more = !waiting.dues.is_empty() || !waiting.notes.is_empty();
                if waiting.count > 0 || more {
                    return Some(waiting.take(statements, bytes));
                }
                if waiting.left {
                    return None;
                }
            }
            self.0.wake.notified().await;
        }
    }

    /// Puts back what a turn had no time for, before what came meanwhile of the same submitters.
    pub(super) fn put_back(&mut self, rest: impl DoubleEndedIterator<Item = (Admitted, Answer)>) {
        let mut guard = self.0.lock();
        let waiting = &mut *guard;
        for (admitted, answer) in rest.rev() {
            let submitter = Submitter::of(&admitted, self.0.gateway);
            let of_one = waiting.of_one.entry(submitter.clone()).or_default();
            if of_one.is_empty() {
                waiting.turns.push_front(submitter);
            }
            of_one.push_front((Box::new(admitted), answer));
            waiting.count += 1;
        }
    }
}

impl Drop for Exit {
    /// Who waits is told by the end of their channel; who comes, by [`Entrance::submit`].
    fn drop(&mut self) {
        let mut waiting = self.0.lock();
        *waiting = Waiting {
            closed: true,
            ..Waiting::default()
        };
    }
}

impl Waiting {
    fn take(&mut self, statements: usize, bytes: usize) -> Turn {
        let notes = self.notes.len().min(NOTES_AT_ONCE);
        let mut turn = Turn {
            dues: std::mem::take(&mut self.dues),
            notes: self.notes.drain(..notes).collect(),
            ..Turn::default()
        };
        let mut room = bytes;
        while turn.statements.len() < statements
            && room > 0
            && let Some(submitter) = self.turns.pop_front()
        {
            let Some(of_one) = self.of_one.get_mut(&submitter) else {
                continue;
            };
            if let Some((admitted, answer)) = of_one.pop_front() {
                let statement = admitted.verified.statement();
                room = room.saturating_sub(statement.payload.len() + statement.signature.len());
                self.count -= 1;
                turn.statements.push(*admitted);
                turn.answers.push(answer);
            }
            if of_one.is_empty() {
                self.of_one.remove(&submitter);
            } else {
                self.turns.push_back(submitter);
            }
        }
        turn
    }
}
