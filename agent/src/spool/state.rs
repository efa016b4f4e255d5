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
    pub pending: VecDeque<Arc<Submission>>,
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
    chain: ChainEnd,
    used: BTreeMap<CommandId, Time>,
    word: Option<Word>,
    runs: BTreeMap<StatementId, Run>,
}

impl State {
    /// The state after the first record.
    ///
    /// # Errors
    /// It is not a birth.
    pub fn begin(record: Record) -> Result<Self, Illegal> {
        let Record::Birth(birth) = record else {
            return Err(Illegal("a journal begins with its birth"));
        };
        Ok(Self {
            birth,
            enrolment: None,
            accepted: false,
            chain: ChainEnd {
                next: 0,
                prev: StatementId::ZERO,
            },
            used: BTreeMap::new(),
            word: None,
            runs: BTreeMap::new(),
        })
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

    /// Takes one record.
    ///
    /// # Errors
    /// It cannot follow; then the file is damaged, or the program is wrong.
    pub fn apply(&mut self, record: Record) -> Result<(), Illegal> {
        match record {
            Record::Birth(_) => return Err(Illegal("a second birth")),
            Record::Enrolment(submission) => self.enrolment = Some(Arc::new(submission)),
            Record::Accepted => self.accepted = true,
            Record::Chain { next, prev } => self.chain = ChainEnd { next, prev },
            Record::Used { command, until } => {
                if self.used.insert(command, until).is_some() {
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
                let submission = Arc::new(submission);
                self.word = Some(Word {
                    about,
                    id,
                    submission,
                });
            }
            Record::Answered { id, accepted } => self.answer(id, accepted)?,
            Record::Chunk {
                started,
                id,
                submission,
            } => {
                let run = self.run(started)?;
                run.chunks = run.chunks.saturating_add(1);
                run.last_chunk = id;
                if !run.broken {
                    run.pending.push_back(Arc::new(submission));
                }
            }
            Record::Delivered { started, chunks } => {
                let run = self.run(started)?;
                let chunks = usize::try_from(chunks).unwrap_or(usize::MAX);
                if chunks > run.pending.len() {
                    return Err(Illegal("more chunks delivered than written"));
                }
                run.pending.drain(..chunks);
            }
            Record::Broken { started } => {
                let run = self.run(started)?;
                run.broken = true;
                run.pending.clear();
            }
            Record::Ended { started, facts } => {
                if self.run(started)?.ended.replace(facts).is_some() {
                    return Err(Illegal("a run ends twice"));
                }
            }
            Record::Closed { started } => {
                self.runs
                    .remove(&started)
                    .ok_or(Illegal("an unknown run is closed"))?;
            }
        }
        Ok(())
    }

    fn run(&mut self, started: StatementId) -> Result<&mut Run, Illegal> {
        self.runs.get_mut(&started).ok_or(Illegal("an unknown run"))
    }

    fn answer(&mut self, id: StatementId, accepted: bool) -> Result<(), Illegal> {
        let word = self
            .word
            .take_if(|word| word.id == id)
            .ok_or(Illegal("an answer to nothing"))?;
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
            About::Refused(_) => {}
            About::Completed(started) | About::Lost(started) => {
                self.runs.remove(&started);
            }
        }
        Ok(())
    }

    /// Whether nothing is under way, so that the journal can be written anew.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.runs.is_empty() && self.word.is_none()
    }

    /// The records that add up to this state at `now`, when it is quiet. Used grants that can no
    /// longer be replayed are left out.
    pub(super) fn summary(&self, now: Time) -> Option<Vec<Record>> {
        if !self.is_quiet() {
            return None;
        }
        let mut records = vec![Record::Birth(self.birth.clone())];
        records.extend(
            self.enrolment
                .iter()
                .map(|submission| Record::Enrolment(Submission::clone(submission))),
        );
        records.extend(self.accepted.then_some(Record::Accepted));
        records.push(Record::Chain {
            next: self.chain.next,
            prev: self.chain.prev,
        });
        let live = self.used.iter().filter(|(_, until)| **until > now);
        records.extend(live.map(|(command, until)| Record::Used {
            command: *command,
            until: *until,
        }));
        Some(records)
    }
}
