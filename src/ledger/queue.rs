//! What waits for the writer, fair among those who submit: one turn each, in the order in which
//! they came, so that a flood by one key delays the others by one statement a turn.
//!
//! Bounded for each key and for all together. It decides nothing.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use countersign_protocol::effect::Note;
use countersign_protocol::hash::KeyId;
use tokio::sync::{Notify, oneshot};

use super::admission::Admitted;
use super::error::AppendError;
use super::receipt::Receipt;

/// Submissions that may wait for the writer; beyond it callers are told to come again. As many as there
/// may be streams: each agent of a fleet that starts one command has one thing to say, and some seconds
/// in the queue are less work than coming again. Some 100 MiB if all are there.
const QUEUE: usize = 16 * 1024;

/// Those of one key among them: one key, or a few, cannot take every place.
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

#[derive(Debug, Default)]
struct Waiting {
    /// Keys with something waiting, the next one first.
    turns: VecDeque<KeyId>,
    of_key: HashMap<KeyId, VecDeque<(Box<Admitted>, Answer)>>,
    count: usize,
    dues: Vec<DueAnswer>,
    notes: VecDeque<(Note, DueAnswer)>,
    /// Nobody can put anything in any more.
    left: bool,
    /// Nobody will take anything out any more.
    closed: bool,
}

#[derive(Debug, Default)]
struct Queue {
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

/// A queue with its two ends.
pub(super) fn queue() -> (Entrance, Exit) {
    let queue = Arc::new(Queue::default());
    (Entrance(Arc::clone(&queue)), Exit(queue))
}

fn shut_down() -> AppendError {
    AppendError::Stopped("it was shut down".into())
}

impl Entrance {
    /// Puts a statement behind those of its key.
    ///
    /// # Errors
    /// [`AppendError::Busy`] when too many wait, of this key or in all.
    pub(super) fn submit(&self, admitted: Admitted, answer: Answer) -> Result<(), AppendError> {
        let key = admitted.verified.key().key_id();
        let mut guard = self.0.lock();
        let waiting = &mut *guard;
        if waiting.closed {
            return Err(shut_down());
        }
        let of_key = waiting.of_key.entry(key).or_default();
        let busy = waiting.count >= QUEUE || of_key.len() >= QUEUE_OF_ONE;
        if !busy {
            if of_key.is_empty() {
                waiting.turns.push_back(key);
            }
            of_key.push_back((Box::new(admitted), answer));
            waiting.count += 1;
        } else if of_key.is_empty() {
            waiting.of_key.remove(&key);
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
    /// each key, again and again. None when nothing can come any more.
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
            && let Some(key) = self.turns.pop_front()
        {
            let Some(of_key) = self.of_key.get_mut(&key) else {
                continue;
            };
            if let Some((admitted, answer)) = of_key.pop_front() {
                let statement = admitted.verified.statement();
                room = room.saturating_sub(statement.payload.len() + statement.signature.len());
                self.count -= 1;
                turn.statements.push(*admitted);
                turn.answers.push(answer);
            }
            if of_key.is_empty() {
                self.of_key.remove(&key);
            } else {
                self.turns.push_back(key);
            }
        }
        turn
    }
}
