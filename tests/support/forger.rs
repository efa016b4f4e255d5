//! A thief of the ledger's keys who owns its database too: rewrites the log and everything derived.
//!
//! What people and agents signed it cannot make anew: nobody else has their keys.

use std::collections::{BTreeMap, BTreeSet};

use countersign::keys::LedgerKeys;
use countersign_protocol::audit::{self, Auditor};
use countersign_protocol::checkpoint::{Checkpoint, CheckpointBody, Origin};
use countersign_protocol::entry::{self, Entry};
use countersign_protocol::event::{Author, Event, Seen};
use countersign_protocol::fold::{self, Stream};
use countersign_protocol::hash::Hash;
use countersign_protocol::merkle::{RightEdge, Tree};
use countersign_protocol::name::{Nonce, Time};
use countersign_protocol::statement::Statement;
use sqlx::{PgConnection, PgPool, Row as _};

/// A copy of the log, and the power to put another in its place.
pub(crate) struct Forger {
    owner: PgPool,
    origin: Origin,
    pub(crate) keys: LedgerKeys,
    pub(crate) entries: Vec<Entry>,
    /// The signed notes, by their sizes.
    pub(crate) notes: BTreeMap<u64, String>,
}

impl Forger {
    /// Reads the log as it is, with the database's owner and the keys that the thief has.
    pub(crate) async fn new(owner: &PgPool, origin: &Origin, keys: LedgerKeys) -> Self {
        let rows = sqlx::query("SELECT entry FROM entries ORDER BY seq")
            .fetch_all(owner)
            .await
            .unwrap();
        let entries = rows
            .iter()
            .map(|row| Entry::decode(row.get("entry")).unwrap())
            .collect();
        let rows = sqlx::query("SELECT size, note FROM checkpoints")
            .fetch_all(owner)
            .await
            .unwrap();
        let note = |row: &sqlx::postgres::PgRow| {
            (
                u64::try_from(row.get::<i64, _>("size")).unwrap(),
                row.get("note"),
            )
        };
        Self {
            owner: owner.clone(),
            origin: origin.clone(),
            keys,
            entries,
            notes: rows.iter().map(note).collect(),
        }
    }

    /// Sizes at which there is a checkpoint.
    pub(crate) fn sizes(&self) -> BTreeSet<u64> {
        self.notes.keys().copied().collect()
    }

    pub(crate) fn cut(&mut self, size: u64) {
        self.entries.truncate(usize::try_from(size).unwrap());
        self.notes.retain(|noted, _| *noted <= size);
    }

    /// Signs the ledger's own words and every checkpoint from `from` on anew, and links all again.
    /// What people and agents signed stays: nobody else has their keys.
    pub(crate) fn seal_from(&mut self, from: u64) {
        let mut tree = Tree::default();
        let mut prev = Hash::ZERO;
        for (seq, entry) in (0..).zip(&mut self.entries) {
            if seq >= from {
                entry.seq = seq;
                entry.prev = prev;
                resign(entry, &tree, &self.keys);
            }
            prev = entry::leaf(&entry.encode().unwrap());
            tree.push(prev);
        }
        let size = tree.size();
        self.notes.retain(|noted, _| *noted <= size);
        self.notes.entry(size).or_default();
        for (noted, note) in self.notes.range_mut(from + 1..) {
            let body = CheckpointBody {
                origin: self.origin.clone(),
                size: *noted,
                root: tree.root_at(*noted).unwrap(),
            };
            *note = Checkpoint::sign(body, self.keys.checkpoint())
                .note()
                .to_owned();
        }
    }

    /// Puts this log and everything derived from it into the database.
    pub(crate) async fn put(&self) {
        let mut connection = self.owner.acquire().await.unwrap();
        let db = &mut *connection;
        run(db, "SET session_replication_role = replica").await;
        run(
            db,
            "TRUNCATE entries, checkpoints, blob_references, statements, client_refs,
             agent_statements, label_turns, open_streams, subtrees",
        )
        .await;
        let mut edge = RightEdge::default();
        for entry in &self.entries {
            let bytes = entry.encode().unwrap();
            edge.push(entry::leaf(&bytes), |_, _, _| {});
            put_entry(db, entry, &bytes).await;
        }
        for (size, note) in &self.notes {
            sqlx::query("INSERT INTO checkpoints VALUES ($1, $2)")
                .bind(signed(*size))
                .bind(note)
                .execute(&mut *db)
                .await
                .unwrap();
        }
        self.put_head(db, &edge).await;
        self.put_open(db).await;
        run(db, "RESET session_replication_role").await;
    }

    async fn put_head(&self, db: &mut PgConnection, edge: &RightEdge) {
        let last = self.entries.last().unwrap();
        let nodes = edge.hashes().iter();
        let nodes: Vec<Vec<u8>> = nodes.map(|node| node.as_bytes().to_vec()).collect();
        let head = "UPDATE head SET size = $1, last_leaf = $2, last_time_us = $3, right_edge = $4,
                    note = (SELECT note FROM checkpoints ORDER BY size DESC LIMIT 1)";
        sqlx::query(head)
            .bind(signed(edge.size()))
            .bind(entry::leaf(&last.encode().unwrap()).as_bytes().as_slice())
            .bind(signed(last.time.as_micros()))
            .bind(nodes)
            .execute(db)
            .await
            .unwrap();
    }

    /// The commands that are open after as much of the log as folds.
    async fn put_open(&self, db: &mut PgConnection) {
        let mut auditor = Auditor::new(countersign::setup::judge());
        for entry in &self.entries {
            let Ok(checked) = audit::check_entry(&entry.encode().unwrap()) else {
                break;
            };
            let mut blobs = BTreeMap::new();
            for named in checked.verified.event().blobs() {
                let blob = countersign::ledger::store::blob(db, &named.digest).await;
                blobs.insert(named.digest, blob.unwrap().flatten().unwrap());
            }
            let attached = audit::attachment(checked.verified.event(), |named| {
                blobs.get(&named.digest).cloned()
            });
            if auditor.push(&checked, attached.unwrap()).is_err() {
                break;
            }
        }
        let commands = auditor.state().commands();
        for command in commands.filter(|command| !command.status().is_final()) {
            sqlx::query("INSERT INTO open_streams VALUES ($1)")
                .bind(command.id.as_bytes().as_slice())
                .execute(&mut *db)
                .await
                .unwrap();
        }
    }

    /// The entry of the first kind that fits.
    pub(crate) fn find(&self, fits: impl Fn(&Event) -> bool) -> u64 {
        let fits = |entry: &&Entry| fits(&event(entry));
        self.entries.iter().find(fits).unwrap().seq
    }

    /// Has the first approval say that eve gave it. Says where it stands.
    pub(crate) fn name_another(&mut self) -> u64 {
        let seq = self.find(|event| matches!(event, Event::CommandApproved(_)));
        let payload = &mut self.entry(seq).statement.payload;
        let text = String::from_utf8(payload.clone()).unwrap();
        let other = text.replace("\"principal\":\"bob\"", "\"principal\":\"eve\"");
        assert_ne!(text, other);
        *payload = other.into_bytes();
        self.seal_from(seq);
        seq
    }

    /// Dates the first authorization before the entry before it. Says where it stands.
    pub(crate) fn date_back(&mut self) -> u64 {
        let seq = self.find(|event| matches!(event, Event::CommandAuthorized(_)));
        let before = self.entry(seq - 1).time.as_micros();
        self.entry(seq).time = Time::from_micros(before - 1).unwrap();
        self.seal_from(seq);
        seq
    }

    /// Says the authorization at this place in other words.
    pub(crate) fn say_anew(&mut self, seq: u64) {
        let Event::CommandAuthorized(mut word) = event(self.entry(seq)) else {
            unreachable!("an authorization stands there");
        };
        word.nonce = Nonce::new([9; 16]);
        self.entry(seq).statement = Statement::sign(&word.into(), self.keys.statement()).unwrap();
        self.seal_from(seq);
    }

    pub(crate) fn entry(&mut self, seq: u64) -> &mut Entry {
        &mut self.entries[usize::try_from(seq).unwrap()]
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap()
}

async fn run(db: &mut PgConnection, sql: &'static str) {
    sqlx::raw_sql(sql).execute(db).await.unwrap();
}

pub(crate) fn event(entry: &Entry) -> Event {
    Event::parse(entry.statement.kind, &entry.statement.payload).unwrap()
}

/// If it is the ledger's own word: says it again, about the tree as it is now.
fn resign(entry: &mut Entry, tree: &Tree, keys: &LedgerKeys) {
    let event = event(entry);
    let header = event.header();
    let (Author::Ledger, Some(seen)) = (header.author, header.seen) else {
        return;
    };
    let now = Seen {
        size: seen.size.min(tree.size()),
        root: tree.root_at(seen.size.min(tree.size())).unwrap(),
    };
    let text = String::from_utf8(entry.statement.payload.clone()).unwrap();
    let of = |seen: Seen| {
        format!(
            "\"seen\":{{\"root\":\"{}\",\"size\":{}}}",
            seen.root, seen.size
        )
    };
    let said = text.replace(&of(seen), &of(now));
    assert!(said.contains(&of(now)));
    let event = Event::parse(entry.statement.kind, said.as_bytes()).unwrap();
    entry.statement = Statement::sign(&event, keys.statement()).unwrap();
}

async fn put_entry(db: &mut PgConnection, entry: &Entry, bytes: &[u8]) {
    let (event, id) = (event(entry), entry.statement.id());
    let seq = signed(entry.seq);
    let stream = Stream::of(&event, id).map(|stream| stream.id().as_bytes().to_vec());
    sqlx::query("WITH one AS (INSERT INTO entries (seq, entry) VALUES ($1, $2)) INSERT INTO statements VALUES ($3, $1, $4)")
        .bind(seq)
        .bind(bytes)
        .bind(id.as_bytes().as_slice())
        .bind(stream)
        .execute(&mut *db)
        .await
        .unwrap();
    for blob in event.blobs() {
        sqlx::query("INSERT INTO blob_references VALUES ($1, $2) ON CONFLICT DO NOTHING")
            .bind(blob.digest.as_bytes().as_slice())
            .bind(seq)
            .execute(&mut *db)
            .await
            .unwrap();
    }
    if let Event::CommandRequested(request) = &event
        && let Some(client_ref) = &request.client_ref
    {
        sqlx::query("INSERT INTO client_refs VALUES ($1, $2, $3)")
            .bind(request.principal.as_str())
            .bind(client_ref.as_bytes().as_slice())
            .bind(id.as_bytes().as_slice())
            .execute(&mut *db)
            .await
            .unwrap();
    }
    if let Some((agent, agent_seq, _)) = fold::agent_link(&event) {
        sqlx::query("INSERT INTO agent_statements VALUES ($1, $2, $3)")
            .bind(agent.as_bytes().as_slice())
            .bind(signed(agent_seq))
            .bind(id.as_bytes().as_slice())
            .execute(&mut *db)
            .await
            .unwrap();
    }
    if let Event::ExecutionReleased(released) = &event {
        for label in &released.labels {
            sqlx::query("INSERT INTO label_turns VALUES ($1, $2)")
                .bind(label.as_str())
                .bind(seq)
                .execute(&mut *db)
                .await
                .unwrap();
        }
    }
}
