//! From the server's bytes to the host's verdict: only what was really approved ever runs.

use countersign_agent::admission::{Permit, Verdict};
use countersign_protocol::api::{Base64, BlobBody, Grant, ProvenEntry, StreamBody, Work};
use countersign_protocol::checkpoint::{Checkpoint, CheckpointBody};
use countersign_protocol::entry::{self, Entry};
use countersign_protocol::event::{CommandApproved, CommandAuthorized, Event};
use countersign_protocol::hash::{Hash, StatementId};
use countersign_protocol::merkle::Tree;
use countersign_protocol::proof;
use countersign_protocol::quorum::{BreakGlass, Membership};
use countersign_protocol::sshsig::{self, SshSig};
use countersign_protocol::statement::Statement;
use ed25519_dalek::SigningKey;
use std::ffi::OsString;
use std::time::Duration;

use crate::bytes::Bytes;
use crate::story::{NOW, Runs, host, key, public, story, time, vkey};

/// Most edits of one thief, so that an input stays fast.
const MOST_EDITS: usize = 12;

/// Whom the thief speaks of.
const NAMES: [&str; 5] = ["alice", "bob", "carol", "dave", "mallory"];

/// The number of approvals that stands for a broken glass.
const LESS_THAN_NOTHING: u32 = 3;

/// One piece of work as the server sends it. It runs only if it is one of the commands that two
/// pinned people approved, exactly as they approved it; it cancels only what a pinned person cancelled.
pub fn grant(data: &[u8]) {
    let Ok(work) = serde_json::from_slice::<Work>(data) else {
        return;
    };
    match work {
        Work::Grant(grant) => judge(&grant),
        Work::Cancel(stream) => judge_cancel(&stream),
    }
}

fn judge(grant: &Grant) {
    let Ok(checkpoint) = Checkpoint::open(&grant.stream.checkpoint, vkey()) else {
        return;
    };
    if let Ok(Verdict::Run(permit)) = host().admit(grant, &checkpoint, time(NOW), |_| false) {
        assert_runs_what_was_approved(*permit);
        // The journal knows it: whatever else the grant says, the same command never runs again.
        let again = host().admit(grant, &checkpoint, time(NOW), |_| true);
        assert!(matches!(again, Ok(Verdict::Used(_))), "{again:?}");
    }
}

fn judge_cancel(stream: &StreamBody) {
    let Ok(checkpoint) = Checkpoint::open(&stream.checkpoint, vkey()) else {
        return;
    };
    if let Ok(Some(command)) = host().cancelled(stream, &checkpoint, time(NOW)) {
        assert!(really_cancelled(&command), "{command} was never cancelled");
    }
}

fn really_cancelled(command: &StatementId) -> bool {
    story().entries.iter().any(|entry| {
        let statement = Entry::decode(&entry.0).unwrap().statement;
        let event = Event::parse(statement.kind, &statement.payload).unwrap();
        matches!(event, Event::CommandCancelRequested(cancel) if cancel.command == *command)
    })
}

/// Compares what would run with what people signed, word by word.
fn assert_runs_what_was_approved(permit: Permit) {
    let id = permit.command();
    let approved = story().grants.iter().find_map(|(grant, runs)| {
        let request = Entry::decode(&grant.stream.entries.first()?.entry.0).ok()?;
        (request.statement.id() == id).then_some(runs.as_ref()?)
    });
    let Runs { argv, env, stdin } =
        approved.unwrap_or_else(|| panic!("{id} runs, which was never approved for this host"));
    let plan = permit.into_plan(Duration::from_secs(1)).unwrap();
    let texts = |words: &[String]| words.iter().map(OsString::from).collect::<Vec<_>>();
    assert_eq!(plan.first.argv, texts(argv));
    assert!(plan.then.is_empty());
    let pair = |(name, value): &(String, String)| (OsString::from(name), OsString::from(value));
    assert_eq!(plan.env, env.iter().map(pair).collect::<Vec<_>>());
    assert_eq!(plan.stdin, stdin.as_bytes());
    assert_eq!(plan.cwd.to_str(), Some("/"));
    assert_eq!(plan.timeout, Duration::from_secs(30));
    assert_eq!(plan.output_limit, 1 << 20);
}

/// A stream made by somebody who holds every key of the ledger, an administrator's that this host
/// does not pin, and all that people ever signed. The same holds: only what was really approved runs.
pub fn thief(data: &[u8]) {
    let mut bytes = Bytes(data);
    let grants = &story().grants;
    let base = &grants[bytes.below(grants.len())].0;
    let mut forged = Forged::of(base);
    for _edit in 0..MOST_EDITS {
        if bytes.is_empty() {
            break;
        }
        forged.edit(&mut bytes);
    }
    let grant = forged.seal();
    judge(&grant);
    judge_cancel(&grant.stream);
}

/// An entry that the thief will enter, and the approvals that he will let it name.
struct Item {
    entry: Entry,
    names: Option<(u8, u32)>,
}

struct Forged {
    items: Vec<Item>,
    blobs: Vec<BlobBody>,
    grant: Grant,
}

impl Forged {
    fn of(grant: &Grant) -> Self {
        let entries = grant.stream.entries.iter();
        Self {
            items: entries.map(|item| decoded(&item.entry)).collect(),
            blobs: grant.stream.blobs.clone(),
            grant: grant.clone(),
        }
    }

    fn edit(&mut self, bytes: &mut Bytes<'_>) {
        let what = bytes.below(12);
        let at = bytes.below(self.items.len());
        let pool = &story().entries;
        let grants = &story().grants;
        match what {
            0 if !self.items.is_empty() => drop(self.items.remove(at)),
            1 => self
                .items
                .insert(at, decoded(&pool[bytes.below(pool.len())])),
            2 => {
                let other = bytes.below(self.items.len());
                if !self.items.is_empty() {
                    self.items.swap(at, other);
                }
            }
            3 => self.flip(at, bytes),
            4 => self.name_approvals(at, bytes),
            5 => self.speak_for(at, bytes),
            6 => self.item(at, |item| {
                let delta = u64::try_from(bytes.pair()).unwrap();
                item.entry.time = item.entry.time.plus_micros(delta << bytes.below(40));
            }),
            7 => self.blobs.clone_from(&story().blobs),
            8 if !self.blobs.is_empty() => {
                let which = bytes.below(self.blobs.len());
                let content = &mut self.blobs[which].content.0;
                if let Some(byte) = content.get_mut(bytes.byte() as usize) {
                    *byte ^= bytes.byte();
                }
            }
            9 => {
                let other = &grants[bytes.below(grants.len())].0;
                self.grant.line = other.line.clone();
                self.grant.line_proof.clone_from(&other.line_proof);
                self.grant.line_index = u64::from(bytes.byte() % 4);
            }
            10 => self.pretend(at, bytes),
            11 => {
                let other = &grants[bytes.below(grants.len())].0;
                let entries = other.stream.entries.iter();
                self.items.extend(entries.map(|item| decoded(&item.entry)));
                self.blobs.extend(other.stream.blobs.clone());
            }
            _nothing_there => {}
        }
    }

    fn item(&mut self, at: usize, change: impl FnOnce(&mut Item)) {
        if let Some(item) = self.items.get_mut(at) {
            change(item);
        }
    }

    /// Changes one byte of what was signed; the ledger's own words are signed again.
    fn flip(&mut self, at: usize, bytes: &mut Bytes<'_>) {
        let (offset, change) = (bytes.pair(), bytes.byte());
        self.item(at, |item| {
            let payload = &mut item.entry.statement.payload;
            let len = payload.len();
            if let Some(byte) = payload.get_mut(offset % len.max(1)) {
                *byte ^= change;
            }
            if item.entry.key_id == public("ledger").key_id() {
                resign(item, &key("ledger"));
            }
        });
    }

    /// The ledger's word that these approvals suffice, or that another command is authorized.
    fn name_approvals(&mut self, at: usize, bytes: &mut Bytes<'_>) {
        let (mask, need) = (bytes.byte(), u32::from(bytes.byte() % 4));
        self.item(at, |item| item.names = Some((mask, need)));
    }

    /// An approval in the name of somebody, signed with a key that the thief has.
    fn speak_for(&mut self, at: usize, bytes: &mut Bytes<'_>) {
        let who = NAMES[bytes.below(NAMES.len())];
        let with = ["dave", "mallory", "ledger", "checkpoint", "gateway"][bytes.below(5)];
        self.item(at, |item| {
            let statement = &item.entry.statement;
            let Ok(Event::CommandApproved(said)) = Event::parse(statement.kind, &statement.payload)
            else {
                return;
            };
            let approval = CommandApproved {
                principal: who.parse().unwrap(),
                signer: public(with).key_id(),
                ..said
            };
            say(item, &Event::from(approval), &key(with));
        });
    }

    /// A true signature under another payload, or a true payload with another's signature.
    fn pretend(&mut self, at: usize, bytes: &mut Bytes<'_>) {
        let pool = &story().entries;
        let other = decoded(&pool[bytes.below(pool.len())]).entry;
        let whole = bytes.byte().is_multiple_of(2);
        self.item(at, |item| {
            if whole {
                item.entry.statement.signature = other.statement.signature;
                item.entry.key_id = other.key_id;
            } else {
                item.entry.statement.payload = other.statement.payload;
            }
        });
    }

    /// Gives every entry its place, lets the ledger say what it must, and signs the new log.
    fn seal(mut self) -> Grant {
        let mut places = Vec::with_capacity(self.items.len());
        let mut next = 0;
        for item in &mut self.items {
            item.entry.seq = item.entry.seq.clamp(next, next + 64);
            places.push(item.entry.seq);
            next = item.entry.seq + 1;
        }
        let first = self.items.first().map(|item| item.entry.statement.id());
        for item in &mut self.items {
            authorize(item, first.unwrap_or(StatementId::ZERO), &places);
        }
        let mut tree = Tree::default();
        let mut entries = Vec::new();
        for item in &self.items {
            let Ok(bytes) = item.entry.encode() else {
                continue;
            };
            while tree.size() < item.entry.seq {
                tree.push(Hash::ZERO);
            }
            tree.push(entry::leaf(&bytes));
            entries.push((item.entry.seq, bytes));
        }
        let size = tree.size();
        let proven = entries.into_iter().map(|(seq, bytes)| ProvenEntry {
            seq,
            entry: Base64(bytes),
            inclusion: proof::inclusion_proof(&tree, seq, size).unwrap(),
        });
        let proven = proven.collect();
        let body = CheckpointBody {
            origin: vkey().origin().clone(),
            size,
            root: proof::root(&tree, size).unwrap(),
        };
        let checkpoint = Checkpoint::sign(body, &key("checkpoint"));
        let mut grant = self.grant;
        grant.stream = StreamBody {
            checkpoint: checkpoint.note().to_owned(),
            entries: proven,
            blobs: self.blobs,
            redacted: vec![],
        };
        grant
    }
}

fn decoded(entry: &Base64) -> Item {
    let entry = Entry::decode(&entry.0).unwrap();
    Item { entry, names: None }
}

/// Lets an authorization name the places of a mask, if the thief wants that.
fn authorize(item: &mut Item, command: StatementId, places: &[u64]) {
    let statement = &item.entry.statement;
    let (Some((mask, need)), Ok(Event::CommandAuthorized(said))) =
        (item.names, Event::parse(statement.kind, &statement.payload))
    else {
        return;
    };
    let named = places.iter().enumerate();
    let named = named.filter(|(at, _)| mask >> (at % 8) & 1 == 1);
    let mut requirement = said.requirement.clone();
    if need == LESS_THAN_NOTHING {
        requirement.demands.clear();
        requirement.break_glass = Some(BreakGlass { review_ms: 1 });
    }
    for seats in requirement
        .demands
        .iter_mut()
        .flat_map(|demand| &mut demand.0)
    {
        seats.approvals = need;
    }
    // Everybody is one of everybody, if the ledger is asked.
    let everybody = NAMES.map(|name| name.parse().unwrap()).to_vec();
    let electors = requirement.electors().into_iter();
    let members = electors.map(|whom| Membership {
        of: whom.clone(),
        people: everybody.clone(),
    });
    let members = members.collect();
    let authorized = CommandAuthorized {
        command,
        request_seq: places.first().copied().unwrap_or_default(),
        approvals: named.map(|(_, place)| *place).collect(),
        requirement,
        members,
        ..said
    };
    say(item, &Event::from(authorized), &key("ledger"));
}

fn say(item: &mut Item, event: &Event, key: &SigningKey) {
    if let Ok(statement) = Statement::sign(event, key) {
        item.entry.statement = statement;
        item.entry.key_id = countersign_protocol::key::PublicKey::of(key).key_id();
    }
}

fn resign(item: &mut Item, key: &SigningKey) {
    let statement = &mut item.entry.statement;
    let namespace = statement.kind.namespace();
    let signature: SshSig = sshsig::sign(key, namespace, &statement.payload);
    statement.signature = signature.to_blob();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_approved_runs_so_that_the_promises_are_about_something() {
        let runs = |grant: &Grant| {
            let checkpoint = Checkpoint::open(&grant.stream.checkpoint, vkey()).unwrap();
            let verdict = host().admit(grant, &checkpoint, time(NOW), |_| false);
            matches!(verdict, Ok(Verdict::Run(_)))
        };
        let mut ran = 0;
        for (grant, expected) in &story().grants {
            // A cancelled command was approved; its grant as it stands must not run.
            ran += usize::from(runs(grant));
            assert!(expected.is_some() || !runs(grant));
            let sealed = Forged::of(grant).seal();
            assert_eq!(runs(grant), runs(&sealed), "a thief's seal is as good");
            let line: serde_json::Value = serde_json::from_slice(&grant.line.0).unwrap();
            assert_eq!(
                countersign_protocol::canonical::to_vec(&line).unwrap(),
                grant.line.0
            );
        }
        assert_eq!(ran, 2);
    }
}
