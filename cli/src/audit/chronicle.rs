//! The audit of all entries up to a point, or the fold of chosen ones, and what rows are made of beside the state that it folds.
//!
//! It judges by the protocol's own audit and keeps what that forgets: when a run ended, which labels
//! a host had when it was asked for, who closed a review.

use std::collections::BTreeMap;

use countersign_protocol::audit::{self, Auditor, CheckedEntry, Excerpt, Finding};
use countersign_protocol::blob::BlobRef;
use countersign_protocol::command::CommandSpec;
use countersign_protocol::event::{self, Event};
use countersign_protocol::fold::{Attachment, State, Stream};
use countersign_protocol::hash::{CommandId, KeyId, StatementId};
use countersign_protocol::lifecycle::Position;
use countersign_protocol::name::{AgentName, Label, Principal, Time};
use countersign_protocol::rights::ChangeBody;
use countersign_protocol::target::TargetList;

use super::fact::Fact;
use crate::replay;
use crate::streams::{Blobs, Link};

/// What is kept of the entries, beside what they amount to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Keep {
    /// All entries of this command, with all that they name.
    pub command: Option<CommandId>,
    /// Where the output of every run is to be found.
    pub output: bool,
}

/// The review of a run without approvals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReviewFact {
    /// The entry that opened it.
    pub opened: u64,
    /// By when it should be closed.
    pub due_at: Time,
    /// Who closed it, where, when, with which key, and what they found.
    pub closed: Option<(Principal, Position, KeyId, BlobRef)>,
}

/// One host's part of a command.
pub type PartKey = (CommandId, AgentName);

/// How entries are judged.
#[derive(Debug)]
enum Fold {
    /// All of them, so that nothing can be left out.
    Whole(Box<Auditor>),
    /// Chosen ones of a log of that size, each proved by itself.
    Chosen(Box<Excerpt>, u64),
}

impl Fold {
    fn push(&mut self, entry: &CheckedEntry, attachment: Attachment) -> Result<(), Finding> {
        match self {
            Self::Whole(auditor) => auditor.push(entry, attachment),
            Self::Chosen(excerpt, _) => excerpt.push(entry, attachment),
        }
    }

    const fn state(&self) -> &State {
        match self {
            Self::Whole(auditor) => auditor.state(),
            Self::Chosen(excerpt, _) => excerpt.state(),
        }
    }
}

/// Entries up to a point, judged: all of them, or chosen ones.
#[derive(Debug)]
pub struct Chronicle {
    keep: Keep,
    fold: Fold,
    last: Option<Time>,
    rights: Vec<Link>,
    kept: Vec<Link>,
    blobs: Blobs,
    facts: Vec<Fact>,
    ends: BTreeMap<PartKey, Position>,
    labels: BTreeMap<PartKey, Vec<Label>>,
    words: BTreeMap<CommandId, Vec<String>>,
    /// Of requests that have facts of their hosts in them.
    templates: BTreeMap<CommandId, CommandSpec>,
    reviews: BTreeMap<CommandId, ReviewFact>,
    changes: BTreeMap<StatementId, ChangeBody>,
    output: BTreeMap<PartKey, Vec<(u64, event::Stream, BlobRef)>>,
}

impl Chronicle {
    /// Before the first entry; all of them are to come.
    #[must_use]
    pub fn new(keep: Keep) -> Self {
        Self::of(
            keep,
            Fold::Whole(Box::new(Auditor::new(replay::judge()))),
            None,
        )
    }

    /// Before the first of chosen entries of a log of that size, whose newest entry is of that time.
    #[must_use]
    pub fn chosen(keep: Keep, size: u64, last: Time) -> Self {
        let excerpt = Box::new(Excerpt::new(replay::judge()));
        Self::of(keep, Fold::Chosen(excerpt, size), Some(last))
    }

    fn of(keep: Keep, fold: Fold, last: Option<Time>) -> Self {
        Self {
            keep,
            fold,
            last,
            rights: Vec::new(),
            kept: Vec::new(),
            blobs: Blobs::default(),
            facts: Vec::new(),
            ends: BTreeMap::new(),
            labels: BTreeMap::new(),
            words: BTreeMap::new(),
            templates: BTreeMap::new(),
            reviews: BTreeMap::new(),
            changes: BTreeMap::new(),
            output: BTreeMap::new(),
        }
    }

    /// Takes the next entry, with the blobs that it names as far as they are needed.
    ///
    /// # Errors
    /// It may not stand there. The chronicle is of no more use then.
    pub fn take(&mut self, link: Link, blobs: Blobs) -> Result<(), Finding> {
        let entry = &link.entry;
        let at = Position {
            seq: entry.seq,
            time: entry.time,
            id: entry.verified.id(),
        };
        let event = entry.verified.event();
        let attachment = audit::attachment(event, |named| blobs.blob(named).cloned());
        let attachment = attachment.map_err(|refusal| Finding {
            seq: at.seq,
            reason: refusal.into(),
        })?;
        if let Attachment::Change(body, _) = &attachment {
            self.changes.insert(at.id, body.clone());
        } else if let Attachment::Request(targets, Some(spec)) = &attachment {
            // The state lets go of them once a command is decided.
            self.words.insert(at.id, spec.argv.clone());
            let mut lines = targets.iter().flat_map(TargetList::lines);
            if lines.any(|line| line.facts.is_some()) {
                self.templates.insert(at.id, spec.clone());
            }
        }
        self.fold.push(entry, attachment)?;
        if self.is_whole() {
            self.last = Some(at.time);
        }
        self.facts.extend(Fact::of(at.seq, at.time, at.id, event));
        self.note(at, event);
        let stream = Stream::of(event, at.id);
        if stream == Some(Stream::Rights) {
            self.blobs.extend(blobs);
            self.rights.push(link);
        } else if stream.is_some() && stream == self.keep.command.map(Stream::Command) {
            self.blobs.extend(blobs);
            self.kept.push(link);
        }
        Ok(())
    }

    fn note(&mut self, at: Position, event: &Event) {
        if matches!(event, Event::CommandRequested(_)) {
            self.note_labels(at.id);
        } else if let Event::ExecutionCompleted(done) = event {
            self.ends.insert((done.command, done.agent.clone()), at);
        } else if let Event::ExecutionRefused(refused) = event {
            self.ends
                .insert((refused.command, refused.agent.clone()), at);
        } else if let Event::ExecutionLost(lost) = event {
            let key = (lost.command, lost.agent.clone());
            self.ends.entry(key).or_insert(at);
        } else if let Event::ExecutionSkipped(skipped) = event {
            self.ends
                .insert((skipped.command, skipped.agent.clone()), at);
        } else if let Event::ReviewOpened(opened) = event {
            let review = ReviewFact {
                opened: at.seq,
                due_at: opened.due_at,
                closed: None,
            };
            self.reviews.insert(opened.command, review);
        } else if let Event::ReviewClosed(closed) = event {
            if let Some(review) = self.reviews.get_mut(&closed.command) {
                let who = closed.principal.clone();
                review.closed = Some((who, at, closed.signer, closed.reason));
            }
        } else if let Event::ExecutionOutput(chunk) = event
            && self.keep.output
        {
            let key = (chunk.command, chunk.agent.clone());
            let piece = (at.seq, chunk.stream, chunk.data);
            self.output.entry(key).or_default().push(piece);
        }
    }

    /// What the policy saw when it judged the request.
    fn note_labels(&mut self, id: CommandId) {
        let state = self.fold.state();
        let Some(command) = state.command(&id) else {
            return;
        };
        for agent in command.executions.keys() {
            let labels: Vec<Label> = state.rights().labels(agent).cloned().collect();
            if !labels.is_empty() {
                self.labels.insert((id, agent.clone()), labels);
            }
        }
    }

    /// How many entries the log had.
    #[must_use]
    pub fn size(&self) -> u64 {
        match &self.fold {
            Fold::Whole(auditor) => auditor.size(),
            Fold::Chosen(_, size) => *size,
        }
    }

    /// Whether all entries were taken, so that nothing that there was is missing.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        matches!(self.fold, Fold::Whole(_))
    }

    /// The time of the newest entry.
    #[must_use]
    pub const fn last(&self) -> Option<Time> {
        self.last
    }

    /// What the entries amount to.
    #[must_use]
    pub const fn state(&self) -> &State {
        self.fold.state()
    }

    /// Requests and changes whose words may not be read here: they were judged without them.
    #[must_use]
    pub const fn not_rejudged(&self) -> u64 {
        match &self.fold {
            Fold::Whole(auditor) => auditor.not_rejudged(),
            Fold::Chosen(excerpt, _) => excerpt.not_rejudged(),
        }
    }

    /// The entries on rights.
    #[must_use]
    pub fn rights(&self) -> &[Link] {
        &self.rights
    }

    /// The entries of the command that is kept.
    #[must_use]
    pub fn kept(&self) -> &[Link] {
        &self.kept
    }

    /// What the entries on rights and those of the kept command name.
    #[must_use]
    pub const fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// All statements but pieces of output, in order.
    #[must_use]
    pub fn facts(&self) -> &[Fact] {
        &self.facts
    }

    /// Where one host's part of a command came to its end.
    #[must_use]
    pub fn end(&self, part: &PartKey) -> Option<Position> {
        self.ends.get(part).copied()
    }

    /// The labels that a host had when a command was asked for on it.
    #[must_use]
    pub fn labels(&self, part: &PartKey) -> &[Label] {
        self.labels.get(part).map_or(&[], Vec::as_slice)
    }

    /// The words of a command, where they may be read.
    #[must_use]
    pub fn words(&self, id: &CommandId) -> Option<&[String]> {
        self.words.get(id).map(Vec::as_slice)
    }

    /// The words that a host runs, where it has facts of its own in them.
    #[must_use]
    pub fn runs(&self, (id, agent): &PartKey) -> Option<Vec<String>> {
        let template = self.templates.get(id)?;
        let targets = self.state().command(id)?.targets.as_ref()?;
        let (_, line) = targets.line_of(agent)?;
        // Lines that do not fit the words were found out when the request was judged.
        Some(template.for_host(line).ok()?.into_owned().argv)
    }

    /// The review of a command that ran without approvals.
    #[must_use]
    pub fn review(&self, id: &CommandId) -> Option<&ReviewFact> {
        self.reviews.get(id)
    }

    /// What a change of rights would change, where that may be read.
    #[must_use]
    pub fn change(&self, id: &StatementId) -> Option<&ChangeBody> {
        self.changes.get(id)
    }

    /// Where the output of one host's part is, in order: entry, stream, blob. Only when it is kept.
    #[must_use]
    pub fn output(&self, part: &PartKey) -> &[(u64, event::Stream, BlobRef)] {
        self.output.get(part).map_or(&[], Vec::as_slice)
    }
}
