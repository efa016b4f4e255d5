//! What of each entry is kept for the index, in bounded memory. What does not fit is counted.

use std::collections::BTreeMap;

use countersign_protocol::audit::CheckedEntry;
use countersign_protocol::blob::{Blob, BlobRef};
use countersign_protocol::command::{CommandSpec, Mode};
use countersign_protocol::event::{Author, Event, Stream as OutputStream};
use countersign_protocol::facts;
use countersign_protocol::fold::Stream;
use countersign_protocol::hash::{CommandId, Digest};
use countersign_protocol::key;
use countersign_protocol::target::TargetLine;
use countersign_protocol::visible;
use serde::Serialize;

/// Commands that an index tells of, the newest: a page that a browser still opens.
const MAX_COMMANDS: usize = 2_000;

/// What people and the ledger said of one command; each person says a few words.
const MAX_WORDS: usize = 64;

/// Hosts of one command that are listed.
pub(super) const MAX_HOSTS: usize = 200;

/// Output of one host's stream that is shown: its beginning.
const MAX_SHOWN_BYTES: usize = 2 * 1024;

/// Output of one command that is shown.
const MAX_COMMAND_BYTES: usize = 16 * 1024;

/// Changes of rights that an index tells of, the newest.
const MAX_CHANGES: usize = 2_000;

/// Columns of a text in the index; the blob has all of it.
const MAX_COLUMNS: usize = 2_000;

/// Largest command of which it is told what each host ran with its own facts in it.
const MAX_TEMPLATE_BYTES: usize = 8 * 1024;

/// Blobs of a page.
type Content = BTreeMap<Digest, Blob>;

/// Somebody's words in the log.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Word {
    pub(super) seq: u64,
    pub(super) time_us: u64,
    pub(super) kind: &'static str,
    /// `person:alice`, `agent:web-1`, `ledger`.
    pub(super) by: String,
    /// The key as `SHA256:…`.
    pub(super) key: String,
    /// Its free text, safe to show.
    pub(super) text: Option<String>,
}

/// The beginning of one host's output.
#[derive(Debug, Clone, Default)]
pub(super) struct Shown {
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
    /// There is more than what is shown.
    pub(super) is_cut: bool,
}

/// What is kept of one command.
#[derive(Debug, Clone, Default)]
pub(super) struct Story {
    pub(super) runs: Option<String>,
    /// The command, where hosts may have facts of their own in it.
    template: Option<CommandSpec>,
    pub(super) cwd: Option<String>,
    pub(super) words: Vec<Word>,
    pub(super) more_words: u64,
    pub(super) output: BTreeMap<String, Shown>,
    bytes: usize,
}

/// What was kept so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gathered {
    entries: u64,
    last: Option<u64>,
    pub(super) last_time_us: u64,
    /// By the place of the request.
    pub(super) stories: BTreeMap<u64, (CommandId, Story)>,
    places: BTreeMap<CommandId, u64>,
    pub(super) more_commands: u64,
    pub(super) changes: std::collections::VecDeque<Word>,
    pub(super) more_changes: u64,
}

impl Gathered {
    /// How many entries passed.
    pub(crate) const fn entries(&self) -> u64 {
        self.entries
    }

    /// The place of the last entry.
    pub(crate) fn last(&self) -> u64 {
        self.last.unwrap_or(0)
    }

    /// The place after the last entry.
    pub(crate) fn next(&self) -> u64 {
        self.last.map_or(0, |last| last.saturating_add(1))
    }

    /// Keeps what is to be told of an entry.
    pub(crate) fn take(&mut self, entry: &CheckedEntry, content: &Content) {
        self.entries += 1;
        self.last = Some(entry.seq);
        self.last_time_us = entry.time.as_micros();
        let event = entry.verified.event();
        match Stream::of(event, entry.verified.id()) {
            Some(Stream::Rights) => self.change(word(entry, content)),
            Some(Stream::Command(id)) => self.command(id, entry, content),
            None => {}
        }
    }

    fn change(&mut self, word: Word) {
        self.changes.push_back(word);
        if self.changes.len() > MAX_CHANGES {
            self.changes.pop_front();
            self.more_changes += 1;
        }
    }

    /// Begins the story of a command. The oldest makes room.
    fn begin(&mut self, id: CommandId, place: u64) {
        self.places.insert(id, place);
        self.stories.insert(place, (id, Story::default()));
        if self.stories.len() > MAX_COMMANDS
            && let Some((_, (gone, _))) = self.stories.pop_first()
        {
            self.places.remove(&gone);
            self.more_commands += 1;
        }
    }

    fn command(&mut self, id: CommandId, entry: &CheckedEntry, content: &Content) {
        let event = entry.verified.event();
        if let Event::CommandRequested(_) = event {
            self.begin(id, entry.seq);
        }
        let place = self.places.get(&id);
        let Some((_, story)) = place.and_then(|place| self.stories.get_mut(place)) else {
            return;
        };
        if let Event::CommandRequested(request) = event {
            story.spec(held(&request.act.spec, content));
        }
        if let Event::ExecutionOutput(chunk) = event {
            let bytes = held(&chunk.data, content);
            return story.output(chunk.agent.to_string(), chunk.stream, bytes);
        }
        // Hosts are told of by what came out in the end.
        if !matches!(entry.verified.event().header().author, Author::Agent(_)) {
            story.word(word(entry, content));
        }
    }
}

impl Story {
    fn spec(&mut self, document: Option<&[u8]>) {
        // Checked against the act when it is judged; what is no spec ends the examination there.
        let spec =
            document.and_then(|document| serde_json::from_slice::<CommandSpec>(document).ok());
        let Some(spec) = spec else { return };
        let words = match spec.mode {
            Mode::Exec => visible::words(&spec.argv),
            Mode::Shell => format!("/bin/sh -c {}", visible::words(&spec.argv)),
            Mode::Action => format!("action {}", visible::words(&spec.argv)),
        };
        self.runs = Some(visible::cut(&words, MAX_COLUMNS));
        let cwd = spec.cwd.as_ref();
        self.cwd = cwd.map(|cwd| visible::cut(cwd, MAX_COLUMNS));
        let length = spec.argv.iter().map(String::len).sum::<usize>();
        let has_facts = spec.argv.iter().any(|word| word.contains(facts::MARK));
        self.template = Some(spec).filter(|_| has_facts && length <= MAX_TEMPLATE_BYTES);
    }

    /// What the host of a line ran with its own facts in it; nothing where it has none.
    pub(super) fn runs_on(&self, line: &TargetLine) -> Option<String> {
        let template = self.template.as_ref().filter(|_| line.facts.is_some())?;
        let filled = template.for_host(line).ok()?;
        Some(visible::cut(&visible::words(&filled.argv), MAX_COLUMNS))
    }

    fn word(&mut self, word: Word) {
        if self.words.len() < MAX_WORDS {
            self.words.push(word);
        } else {
            self.more_words += 1;
        }
    }

    fn output(&mut self, agent: String, stream: OutputStream, bytes: Option<&[u8]>) {
        let is_new = !self.output.contains_key(&agent);
        if is_new && self.output.len() >= MAX_HOSTS {
            return;
        }
        let shown = self.output.entry(agent).or_default();
        let Some(bytes) = bytes else {
            shown.is_cut = true;
            return;
        };
        let kept = match stream {
            OutputStream::Stdout => &mut shown.stdout,
            OutputStream::Stderr => &mut shown.stderr,
        };
        let room = MAX_SHOWN_BYTES.saturating_sub(kept.len());
        let room = room.min(MAX_COMMAND_BYTES.saturating_sub(self.bytes));
        let part = bytes.get(..room).unwrap_or(bytes);
        shown.is_cut |= part.len() < bytes.len();
        kept.extend_from_slice(part);
        self.bytes += part.len();
    }
}

/// Content that is here and is what was signed.
fn held<'a>(named: &BlobRef, content: &'a Content) -> Option<&'a [u8]> {
    let blob = content.get(&named.digest)?;
    blob.verify(named).ok()?;
    Some(blob.content())
}

fn word(entry: &CheckedEntry, content: &Content) -> Word {
    let event = entry.verified.event();
    let by = match event.header().author {
        Author::Ledger => "ledger".to_owned(),
        Author::Person(name) => format!("person:{name}"),
        Author::Agent(name) => format!("agent:{name}"),
    };
    let text = free_text(event).and_then(|named| held(&named, content));
    let text = text.map(|text| visible::cut(&String::from_utf8_lossy(text), MAX_COLUMNS));
    Word {
        seq: entry.seq,
        time_us: entry.time.as_micros(),
        kind: event.kind().as_str(),
        by,
        key: key::fingerprint(&entry.verified.facts().key_id),
        text: text.or_else(|| said_by_ledger(event)),
    }
}

/// The free text that says most about an event: a reason, or what a change would change.
fn free_text(event: &Event) -> Option<BlobRef> {
    if let Event::CommandRequested(event) = event {
        Some(event.reason)
    } else if let Event::CommandApproved(event) = event {
        event.reason
    } else if let Event::CommandRejected(event) = event {
        event.reason
    } else if let Event::CommandWithdrawn(event) = event {
        event.reason
    } else if let Event::CommandCancelRequested(event) = event {
        event.reason
    } else if let Event::RolloutPaused(event) = event {
        event.reason
    } else if let Event::RolloutResumed(event) = event {
        event.reason
    } else if let Event::RolloutContinued(event) = event {
        event.reason
    } else if let Event::ChangeRequested(event) = event {
        Some(event.body)
    } else if let Event::ChangeApproved(event) = event {
        event.reason
    } else if let Event::ChangeRejected(event) = event {
        event.reason
    } else if let Event::ReviewClosed(event) = event {
        Some(event.reason)
    } else {
        None
    }
}

/// Under which rule something was allowed.
fn said_by_ledger(event: &Event) -> Option<String> {
    let Event::CommandAuthorized(authorized) = event else {
        return None;
    };
    let rules = authorized.requirement.rules.iter();
    let rules: Vec<String> = rules.map(ToString::to_string).collect();
    let approvals: Vec<String> = authorized
        .approvals
        .iter()
        .map(ToString::to_string)
        .collect();
    Some(format!(
        "policy {}, rules {}, approvals in entries {}",
        authorized.policy.digest,
        if rules.is_empty() {
            "none".to_owned()
        } else {
            rules.join(" ")
        },
        if approvals.is_empty() {
            "none".to_owned()
        } else {
            approvals.join(" ")
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More than fit.
    const MORE: u64 = 2;

    fn said_at(seq: u64) -> Word {
        Word {
            seq,
            time_us: 0,
            kind: "command.approved",
            by: "person:bob".to_owned(),
            key: String::new(),
            text: None,
        }
    }

    #[test]
    fn of_changes_the_newest_are_kept_and_the_others_counted() {
        let mut gathered = Gathered::default();
        let most = u64::try_from(MAX_CHANGES).unwrap();
        for seq in 0..most {
            gathered.change(said_at(seq));
        }
        assert_eq!(
            (gathered.changes.len(), gathered.more_changes),
            (MAX_CHANGES, 0)
        );
        for seq in most..most + MORE {
            gathered.change(said_at(seq));
        }
        assert_eq!(
            (gathered.changes.len(), gathered.more_changes),
            (MAX_CHANGES, MORE)
        );
        let kept = [gathered.changes.front(), gathered.changes.back()];
        assert_eq!(kept.map(|word| word.unwrap().seq), [MORE, most + MORE - 1]);
    }

    #[test]
    fn of_commands_the_newest_are_kept_and_the_others_counted() {
        let mut gathered = Gathered::default();
        let most = u64::try_from(MAX_COMMANDS).unwrap();
        let id = |number: u64| {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&number.to_be_bytes());
            CommandId::new(id)
        };
        for number in 0..most {
            gathered.begin(id(number), number);
        }
        assert_eq!(
            (gathered.stories.len(), gathered.more_commands),
            (MAX_COMMANDS, 0)
        );
        for number in most..most + MORE {
            gathered.begin(id(number), number);
        }
        assert_eq!(
            (gathered.stories.len(), gathered.more_commands),
            (MAX_COMMANDS, MORE)
        );
        assert_eq!(gathered.places.len(), MAX_COMMANDS);
        for number in [0, 1] {
            assert!(
                !gathered.stories.contains_key(&number)
                    && !gathered.places.contains_key(&id(number))
            );
        }
        assert_eq!(gathered.places.get(&id(MORE)), Some(&MORE));
    }

    #[test]
    fn of_words_the_first_are_kept_and_the_others_counted() {
        let mut story = Story::default();
        let most = u64::try_from(MAX_WORDS).unwrap();
        for seq in 0..most {
            story.word(said_at(seq));
        }
        assert_eq!((story.words.len(), story.more_words), (MAX_WORDS, 0));
        for seq in most..most + MORE {
            story.word(said_at(seq));
        }
        assert_eq!((story.words.len(), story.more_words), (MAX_WORDS, MORE));
        assert_eq!(story.words.last().unwrap().seq, most - 1);
    }

    #[test]
    fn output_of_so_many_hosts_and_no_others_is_shown_and_goes_on() {
        let mut story = Story::default();
        for host in 0..=MAX_HOSTS {
            story.output(format!("web-{host}"), OutputStream::Stdout, Some(b"a"));
        }
        assert_eq!(story.output.len(), MAX_HOSTS);
        assert!(!story.output.contains_key(&format!("web-{MAX_HOSTS}")));
        // Who is listed already is heard to the end.
        story.output("web-0".to_owned(), OutputStream::Stdout, Some(b"b"));
        assert_eq!(story.output["web-0"].stdout, b"ab");
        assert!(story.output.values().all(|shown| !shown.is_cut));
    }

    #[test]
    fn output_of_all_hosts_together_is_shown_up_to_its_bound() {
        let mut story = Story::default();
        let chunk = [b'x'; MAX_SHOWN_BYTES];
        let hosts = MAX_COMMAND_BYTES / MAX_SHOWN_BYTES;
        for host in 0..=hosts {
            story.output(format!("web-{host}"), OutputStream::Stderr, Some(&chunk));
        }
        let shown = |host: usize| &story.output[&format!("web-{host}")];
        for host in 0..hosts {
            assert_eq!(
                (shown(host).stderr.len(), shown(host).is_cut),
                (MAX_SHOWN_BYTES, false)
            );
        }
        assert_eq!((shown(hosts).stderr.len(), shown(hosts).is_cut), (0, true));
    }

    #[test]
    fn the_bounds_are_what_a_page_can_show() {
        let bounds = [
            MAX_COMMANDS,
            MAX_WORDS,
            MAX_HOSTS,
            MAX_SHOWN_BYTES,
            MAX_COMMAND_BYTES,
            MAX_CHANGES,
            MAX_COLUMNS,
        ];
        assert_eq!(bounds, [2_000, 64, 200, 2_048, 16_384, 2_000, 2_000]);
    }
}
