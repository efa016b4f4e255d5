//! What the records add up to. Live and on recovery, one record changes it in one way.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use countersign_protocol::api::Submission;
use countersign_protocol::hash::{CommandId, StatementId};
use countersign_protocol::name::Time;

use super::record::{About, Birth, EndFacts, Record};

/// A record that cannot follow what stands before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a record cannot follow the ones before it: {0}")]
pub struct Illegal(pub(super) &'static str);

/// Where the agent's own chain stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainEnd {
    /// The next `agent_seq`.
    pub next: u64,
    /// The statement before it; zeros when there is none.
    pub prev: StatementId,
}

/// A statement on the agent's chain that has no answer yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// What it is about.
    pub about: About,
    /// Its id.
    pub id: StatementId,
    /// The statement and its blobs.
    pub submission: Arc<Submission>,
}

/// Where in the journal a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Offset of its frame.
    pub(super) offset: u64,
    /// Length of the frame's body.
    pub(super) body_len: u32,
    /// Which record of the frame.
    pub(super) index: usize,
}

/// A chunk that is not known to be in the log. Its bytes are in the journal, not in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    pub(super) place: Place,
    /// Bytes of output.
    pub(super) output: usize,
    /// About what it takes up in the journal.
    weight: u64,
}

/// A run whose end is not yet in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The command.
    pub command: CommandId,
    /// Chunks so far, delivered or not.
    pub chunks: u64,
    /// The last chunk; the run's `execution.started` before the first.
    pub last_chunk: StatementId,
    /// Chunks that are not known to be in the log, the oldest first.
    pub pending: VecDeque<Waiting>,
    /// The ledger refused a chunk.
    pub broken: bool,
    /// How it ended.
    pub ended: Option<EndFacts>,
}

/// Everything that the journal remembers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    birth: Birth,
    enrolment: Option<Arc<Submission>>,
    accepted: bool,
    succeeds: Option<Time>,
    retired: bool,
    chain: ChainEnd,
    used: BTreeMap<CommandId, Time>,
    word: Option<Word>,
    runs: BTreeMap<StatementId, Run>,
    /// What all waiting chunks take up.
    waiting: u64,
    /// The file holds texts that the ledger has and nobody needs here any more.
    spent: bool,
}

/// What a used grant takes up in the journal.
const USED_WEIGHT: u64 = 140;

/// What a run or a chunk takes up beside its statement's bytes.
const RECORD_WEIGHT: u64 = 512;

/// About what a submission takes up in the journal: base64 is a third longer than its bytes.
fn weight(submission: &Submission) -> u64 {
    let blobs: usize = submission.blobs.iter().map(|b| b.content.0.len()).sum();
    let bytes = submission.payload.0.len() + submission.signature.0.len() + blobs;
    RECORD_WEIGHT.saturating_add(bytes as u64 / 3 * 4)
}

/// The state in records, so that a journal can be written anew from it.
pub(super) struct Summary {
    /// What comes first, the birth before all.
    pub(super) head: Vec<Record>,
    /// Each run: how it stands, the chunks to be copied, its end.
    pub(super) runs: Vec<(Record, Vec<Waiting>, Option<Record>)>,
    /// The statement that has no answer.
    pub(super) word: Option<Record>,
}

impl State {
    /// The state after the first record.
    ///
    /// # Errors
    /// It is not a birth.
    pub fn begin(record: &Record) -> Result<Self, Illegal> {
        let Record::Birth(birth) = record else {
            return Err(Illegal("a journal begins with its birth"));
        };
        Ok(Self {
            birth: birth.clone(),
            enrolment: None,
            accepted: false,
            succeeds: None,
            retired: false,
            chain: ChainEnd {
                next: 0,
                prev: StatementId::ZERO,
            },
            used: BTreeMap::new(),
            word: None,
            runs: BTreeMap::new(),
            waiting: 0,
            spent: false,
        })
    }

    /// Whether the file holds texts that were delivered, or can never be.
    pub(super) const fn is_spent(&self) -> bool {
        self.spent
    }

    /// Whose journal this is.
    #[must_use]
    pub const fn birth(&self) -> &Birth {
        &self.birth
    }

    /// The enrolment, once it was signed.
    #[must_use]
    pub fn enrolment(&self) -> Option<Arc<Submission>> {
        self.enrolment.clone()
    }

    /// Whether the ledger accepted this agent.
    #[must_use]
    pub const fn is_accepted(&self) -> bool {
        self.accepted
    }

    /// Since when the key before this one is in its grace, if there was one.
    #[must_use]
    pub const fn succeeds(&self) -> Option<Time> {
        self.succeeds
    }

    /// Whether the key has said its last word.
    #[must_use]
    pub const fn is_retired(&self) -> bool {
        self.retired
    }

    /// Where the chain stands.
    #[must_use]
    pub const fn chain(&self) -> ChainEnd {
        self.chain
    }

    /// Whether a grant was used.
    #[must_use]
    pub fn is_used(&self, command: &CommandId) -> bool {
        self.used.contains_key(command)
    }

    /// The statement that has no answer yet.
    #[must_use]
    pub const fn word(&self) -> Option<&Word> {
        self.word.as_ref()
    }

    /// Runs whose end is not in the log.
    #[must_use]
    pub const fn runs(&self) -> &BTreeMap<StatementId, Run> {
        &self.runs
    }

    /// About what the state takes up in a journal that is written anew.
    pub(super) fn weight(&self) -> u64 {
        let words = [
            self.enrolment.as_ref(),
            self.word.as_ref().map(|word| &word.submission),
        ];
        let words = words
            .into_iter()
            .flatten()
            .map(|submission| weight(submission));
        words
            .fold(self.waiting, u64::saturating_add)
            .saturating_add(USED_WEIGHT.saturating_mul(self.used.len() as u64))
            .saturating_add(RECORD_WEIGHT.saturating_mul(self.runs.len() as u64))
    }

    /// Takes one record, which stands at `place`.
    ///
    /// # Errors
    /// It cannot follow; then the file is damaged, or the program is wrong.
    pub(super) fn apply(&mut self, record: &Record, place: Place) -> Result<(), Illegal> {
        match record {
            Record::Birth(_) => return Err(Illegal("a second birth")),
            Record::Enrolment(submission) => self.enrolment = Some(Arc::new(submission.clone())),
            Record::Accepted => self.accepted = true,
            Record::Succeeds { since } => self.succeeds = Some(*since),
            Record::Retired => self.retired = true,
            Record::Chain { next, prev } => {
                self.chain = ChainEnd {
                    next: *next,
                    prev: *prev,
                };
            }
            Record::Used { command, until } => {
                if self.used.insert(*command, *until).is_some() {
                    return Err(Illegal("a grant is used a second time"));
                }
            }
            Record::Word {
                about,
                id,
                submission,
            } => {
                if self.word.is_some() {
                    return Err(Illegal("a statement before the last one's answer"));
                }
                self.word = Some(Word {
                    about: *about,
                    id: *id,
                    submission: Arc::new(submission.clone()),
                });
            }
            Record::Answered { id, accepted } => self.answer(*id, *accepted)?,
            Record::Open { started, .. } => {
                let run = opened(record).ok_or(Illegal("no run"))?;
                if self.runs.insert(*started, run).is_some() {
                    return Err(Illegal("a run is opened twice"));
                }
            }
            Record::Chunk { .. }
            | Record::Delivered { .. }
            | Record::Broken { .. }
            | Record::Ended { .. }
            | Record::Closed { .. } => self.apply_to_run(record, place)?,
        }
        Ok(())
    }

    fn apply_to_run(&mut self, record: &Record, place: Place) -> Result<(), Illegal> {
        match record {
            Record::Chunk {
                started,
                id,
                submission,
            } => {
                let run = self.run(*started)?;
                run.chunks = run.chunks.saturating_add(1);
                run.last_chunk = *id;
                if !run.broken {
                    let chunk = Waiting {
                        place,
                        output: submission.blobs.iter().map(|b| b.content.0.len()).sum(),
                        weight: weight(submission),
                    };
                    run.pending.push_back(chunk);
                    self.waiting = self.waiting.saturating_add(chunk.weight);
                }
            }
            Record::Delivered { started, chunks } => {
                let run = self.run(*started)?;
                let chunks = usize::try_from(*chunks).unwrap_or(usize::MAX);
                if chunks > run.pending.len() {
                    return Err(Illegal("more chunks delivered than written"));
                }
                let gone = run.pending.drain(..chunks).map(|chunk| chunk.weight).sum();
                self.waiting = self.waiting.saturating_sub(gone);
                self.spent |= chunks > 0;
            }
            Record::Broken { started } => {
                let run = self.run(*started)?;
                run.broken = true;
                let gone = run.pending.drain(..).map(|chunk| chunk.weight).sum();
                self.waiting = self.waiting.saturating_sub(gone);
                self.spent = true;
            }
            Record::Ended { started, facts } => {
                if self.run(*started)?.ended.replace(facts.clone()).is_some() {
                    return Err(Illegal("a run ends twice"));
                }
            }
            Record::Closed { started } => {
                if !self.close(started) {
                    return Err(Illegal("an unknown run is closed"));
                }
            }
            Record::Birth(_)
            | Record::Enrolment(_)
            | Record::Accepted
            | Record::Succeeds { .. }
            | Record::Retired
            | Record::Chain { .. }
            | Record::Used { .. }
            | Record::Word { .. }
            | Record::Answered { .. }
            | Record::Open { .. } => {}
        }
        Ok(())
    }

    /// Forgets a run; whether there was one.
    fn close(&mut self, started: &StatementId) -> bool {
        let Some(run) = self.runs.remove(started) else {
            return false;
        };
        let gone = run.pending.iter().map(|chunk| chunk.weight).sum();
        self.waiting = self.waiting.saturating_sub(gone);
        // Its end may have had words in it.
        self.spent = true;
        true
    }

    fn run(&mut self, started: StatementId) -> Result<&mut Run, Illegal> {
        self.runs.get_mut(&started).ok_or(Illegal("an unknown run"))
    }

    fn answer(&mut self, id: StatementId, accepted: bool) -> Result<(), Illegal> {
        let word = self
            .word
            .take_if(|word| word.id == id)
            .ok_or(Illegal("an answer to nothing"))?;
        self.spent |= !word.submission.blobs.is_empty();
        if !accepted {
            return Ok(());
        }
        self.chain = ChainEnd {
            next: self.chain.next.saturating_add(1),
            prev: id,
        };
        match word.about {
            About::Started(command) => {
                let run = Run {
                    command,
                    chunks: 0,
                    last_chunk: id,
                    pending: VecDeque::new(),
                    broken: false,
                    ended: None,
                };
                self.runs.insert(id, run);
            }
            About::Refused(_) | About::Idle | About::Facts => {}
            About::Retired => self.retired = true,
            About::Completed(started) | About::Lost(started) => {
                self.close(&started);
            }
        }
        Ok(())
    }

    /// The records that add up to this state. Used grants that can no longer be replayed `now` are
    /// left out, if the time is given.
    pub(super) fn summary(&self, now: Option<Time>) -> Summary {
        let mut head = vec![Record::Birth(self.birth.clone())];
        head.extend(
            self.enrolment
                .iter()
                .map(|submission| Record::Enrolment(Submission::clone(submission))),
        );
        head.extend(self.accepted.then_some(Record::Accepted));
        head.extend(self.succeeds.map(|since| Record::Succeeds { since }));
        head.extend(self.retired.then_some(Record::Retired));
        head.push(Record::Chain {
            next: self.chain.next,
            prev: self.chain.prev,
        });
        let live = self
            .used
            .iter()
            .filter(|(_, until)| now.is_none_or(|now| **until > now));
        head.extend(live.map(|(command, until)| Record::Used {
            command: *command,
            until: *until,
        }));
        let runs = self.runs.iter().map(|(started, run)| {
            let started = *started;
            let open = Record::Open {
                started,
                command: run.command,
                chunks: run.chunks.saturating_sub(run.pending.len() as u64),
                last_chunk: run.last_chunk,
                broken: run.broken,
            };
            let ended = run
                .ended
                .clone()
                .map(|facts| Record::Ended { started, facts });
            (open, run.pending.iter().copied().collect(), ended)
        });
        let word = self.word.as_ref().map(|word| Record::Word {
            about: word.about,
            id: word.id,
            submission: Submission::clone(&word.submission),
        });
        Summary {
            head,
            runs: runs.collect(),
            word,
        }
    }
}

/// The run that a [`Record::Open`] speaks of.
fn opened(record: &Record) -> Option<Run> {
    let Record::Open {
        started: _,
        command,
        chunks,
        last_chunk,
        broken,
    } = record
    else {
        return None;
    };
    Some(Run {
        command: *command,
        chunks: *chunks,
        last_chunk: *last_chunk,
        pending: VecDeque::new(),
        broken: *broken,
        ended: None,
    })
}
