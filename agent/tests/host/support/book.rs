//! A small ledger in memory with fixed keys: statements in, entries out, nothing hidden. Beside the
//! honest way in there is one for a thief of the ledger's keys, who may append what he likes.

use std::collections::BTreeMap;

use countersign_protocol::audit;
use countersign_protocol::blob::{Blob, BlobRef};
use countersign_protocol::checkpoint::{Checkpoint, CheckpointBody};
use countersign_protocol::command::{Act, CommandSpec, Mode};
use countersign_protocol::effect::LedgerHeader;
use countersign_protocol::entry::{self, Entry};
use countersign_protocol::event::{Administrator, Event, LedgerGenesis, Seen};
use countersign_protocol::fold::{Refusal, State};
use countersign_protocol::hash::{Digest, Hash, KeyId, LedgerId, StatementId};
use countersign_protocol::key::PublicKey;
use countersign_protocol::lifecycle::{Command, Position};
use countersign_protocol::merkle::Tree;
use countersign_protocol::name::{Nonce, SECOND_US, Time};
use countersign_protocol::policy::Policy;
use countersign_protocol::rights::ChangeBody;
use countersign_protocol::statement::Statement;
use countersign_protocol::target::{TargetLine, TargetList};
use ed25519_dalek::SigningKey;

pub(crate) const START: u64 = 1_800_000_000_000_000;

pub(crate) fn key(name: &str) -> SigningKey {
    let mut seed = [0; 32];
    seed[..name.len()].copy_from_slice(name.as_bytes());
    SigningKey::from_bytes(&seed)
}

pub(crate) fn public(name: &str) -> PublicKey {
    PublicKey::of(&key(name))
}

/// Everything a person's or agent's payload needs beside its own fields.
macro_rules! say {
    (person $book:expr, $who:expr, $kind:ident { $($field:ident: $value:expr),* $(,)? }) => {{
        let (signer, nonce, made_at, ledger, seen) = $book.header($who);
        countersign_protocol::event::Event::from(countersign_protocol::event::$kind {
            signer, nonce, made_at, ledger, seen,
            principal: $who.parse().unwrap(),
            $($field: $value,)*
        })
    }};
    (agent $book:expr, $who:expr, $kind:ident { $($field:ident: $value:expr),* $(,)? }) => {{
        let (signer, nonce, made_at, ledger, seen) = $book.header($who);
        countersign_protocol::event::Event::from(countersign_protocol::event::$kind {
            signer, nonce, made_at, ledger, seen,
            agent: $who.parse().unwrap(),
            $($field: $value,)*
        })
    }};
}

/// A ledger in memory. `now` is its clock, to be moved by hand.
pub(crate) struct Book {
    pub(crate) entries: Vec<Vec<u8>>,
    pub(crate) blobs: BTreeMap<Digest, Blob>,
    pub(crate) state: State,
    pub(crate) tree: Tree,
    pub(crate) now: u64,
    nonce: u8,
    counter: u64,
    last: Hash,
}

impl Book {
    /// Genesis alone: alice, bob and carol are administrators, two of them change rights.
    pub(crate) fn genesis() -> Self {
        let mut book = Self {
            entries: Vec::new(),
            blobs: BTreeMap::new(),
            state: State::default(),
            tree: Tree::default(),
            now: START,
            nonce: 0,
            counter: 0,
            last: Hash::ZERO,
        };
        let event = Event::from(LedgerGenesis {
            signer: public("ledger").key_id(),
            nonce: Nonce::new([9; 16]),
            made_at: Time::from_micros(START).unwrap(),
            origin: "ledger.example.com".parse().unwrap(),
            checkpoint_key: public("checkpoint"),
            statement_key: public("ledger"),
            administrators: ["alice", "bob", "carol"]
                .map(|name| Administrator {
                    principal: name.parse().unwrap(),
                    key: public(name),
                })
                .to_vec(),
            threshold: 2,
            recovery_key: None,
        });
        book.sign_and_append("ledger", &event).unwrap();
        book
    }

    /// With dave, and a policy of two approvals.
    pub(crate) fn ready() -> Self {
        let mut book = Self::genesis();
        let names = || {
            ["alice", "bob", "carol", "dave"]
                .map(|name| name.parse().unwrap())
                .to_vec()
        };
        book.change(ChangeBody::KeyAdded {
            principal: "dave".parse().unwrap(),
            key: public("dave"),
        });
        book.change(ChangeBody::PolicyPublished {
            policy: Policy {
                approvals: 2,
                may_request: names(),
                may_approve: names(),
            },
        });
        book
    }

    /// An agent enrols and is accepted.
    pub(crate) fn enrol(&mut self, name: &str) {
        let key = public(name);
        let event = say!(agent self, name, AgentEnrolled { key: key.clone() });
        self.sign_and_append(name, &event).unwrap();
        self.change(ChangeBody::AgentAccepted {
            agent: name.parse().unwrap(),
            key,
            replaces: None,
        });
    }

    /// The entries of another ledger by this kind, entered here anew.
    pub(crate) fn copy_enrolments(&mut self, from: &Self) {
        for bytes in &from.entries {
            let statement = Entry::decode(bytes).unwrap().statement;
            let Event::AgentEnrolled(enrolled) =
                Event::parse(statement.kind, &statement.payload).unwrap()
            else {
                continue;
            };
            self.append(statement).unwrap();
            self.change(ChangeBody::AgentAccepted {
                agent: enrolled.agent,
                key: enrolled.key,
                replaces: None,
            });
        }
    }

    /// Alice asks for a change, bob consents.
    pub(crate) fn change(&mut self, body: ChangeBody) {
        let change = self.ask_change("alice", body).unwrap();
        self.consent("bob", change).unwrap();
    }

    pub(crate) fn ask_change(
        &mut self,
        who: &str,
        body: ChangeBody,
    ) -> Result<StatementId, Refusal> {
        let body = self.blob(&body.to_document().unwrap());
        let event = say!(person self, who, ChangeRequested { body: body, reason: None });
        self.sign_and_append(who, &event)
    }

    pub(crate) fn consent(
        &mut self,
        who: &str,
        change: StatementId,
    ) -> Result<StatementId, Refusal> {
        let body = self.state.rights().change(&change).map(|open| open.digest);
        let body = body.unwrap_or(Digest::new([0; 32]));
        let event =
            say!(person self, who, ChangeApproved { change: change, body: body, reason: None });
        self.sign_and_append(who, &event)
    }

    pub(crate) fn blob(&mut self, content: &[u8]) -> BlobRef {
        self.counter += 1;
        let mut salt = [0; 32];
        salt[..8].copy_from_slice(&self.counter.to_be_bytes());
        let blob = Blob::new(salt, content.to_vec()).unwrap();
        let reference = blob.reference();
        self.blobs.insert(reference.digest, blob);
        reference
    }

    pub(crate) fn header(&mut self, who: &str) -> (KeyId, Nonce, Time, LedgerId, Seen) {
        self.nonce = self.nonce.wrapping_add(1);
        self.counter += 1;
        let mut nonce = [self.nonce; 16];
        nonce[..8].copy_from_slice(&self.counter.to_be_bytes());
        let size = self.tree.size();
        let seen = Seen {
            size,
            root: self.tree.root_at(size).unwrap(),
        };
        let ledger = self.state.rights().ledger().unwrap();
        let now = Time::from_micros(self.now).unwrap();
        (public(who).key_id(), Nonce::new(nonce), now, ledger, seen)
    }

    /// What running `argv` is, before it has an act.
    pub(crate) fn spec(argv: &[&str]) -> CommandSpec {
        CommandSpec {
            mode: Mode::Exec,
            argv: argv.iter().map(|word| (*word).to_owned()).collect(),
            cwd: None,
            user: None,
            timeout_ms: 30_000,
            output_limit: 1 << 20,
            at_output_limit: None,
        }
    }

    /// The act of running `spec` on `hosts`, whose keys the ledger knows.
    pub(crate) fn act(&mut self, hosts: &[&str], spec: &CommandSpec) -> Act {
        let written = spec;
        let spec = self.blob(&spec.to_document().unwrap());
        let lines = hosts.iter().map(|host| TargetLine {
            agent: host.parse().unwrap(),
            key_id: self.state.rights().agent(&host.parse().unwrap()).unwrap(),
            service: None,
            spec: spec.digest,
        });
        let list = TargetList::new(lines.collect()).unwrap();
        let document = self.blob(&list.to_document().unwrap());
        Act {
            mode: written.mode,
            spec,
            env: None,
            stdin: None,
            targets: list.describe(document).unwrap(),
            user: written.user.clone(),
            timeout_ms: written.timeout_ms,
            output_limit: written.output_limit,
            at_output_limit: None,
            not_before: Time::from_micros(self.now).unwrap(),
            expires_at: Time::from_micros(self.now + 2 * 3600 * SECOND_US).unwrap(),
            max_runs: 1,
        }
    }

    pub(crate) fn request_event(&mut self, who: &str, act: Act) -> Event {
        let reason = self.blob(b"because");
        say!(person self, who, CommandRequested { client_ref: None, act: act, reason: reason })
    }

    pub(crate) fn request(&mut self, who: &str, act: Act) -> StatementId {
        let event = self.request_event(who, act);
        self.sign_and_append(who, &event).unwrap()
    }

    pub(crate) fn approval_event(&mut self, who: &str, command: StatementId) -> Event {
        let (requester, act) = {
            let command = self.command(command);
            (command.requester().clone(), command.act().clone())
        };
        let policy = self.state.rights().policy().unwrap().reference;
        say!(person self, who, CommandApproved {
            command: command, requester: requester, act: act, policy: policy, reason: None,
        })
    }

    pub(crate) fn approve(
        &mut self,
        who: &str,
        command: StatementId,
    ) -> Result<StatementId, Refusal> {
        let event = self.approval_event(who, command);
        self.sign_and_append(who, &event)
    }

    pub(crate) fn command(&self, id: StatementId) -> &Command {
        self.state.command(&id).unwrap()
    }

    /// Signs with `who`'s key and appends; then says what the ledger must say to it.
    pub(crate) fn sign_and_append(
        &mut self,
        who: &str,
        event: &Event,
    ) -> Result<StatementId, Refusal> {
        let statement = Statement::sign(event, &key(who)).unwrap();
        self.append(statement)
    }

    pub(crate) fn append(&mut self, statement: Statement) -> Result<StatementId, Refusal> {
        let (id, event) = self.append_one(statement)?;
        if let Some(effect) = self.state.effect_of(&event, id) {
            let event = self.ledger_header().effect(effect);
            self.append_one(Statement::sign(&event, &key("ledger")).unwrap())?;
        }
        Ok(id)
    }

    pub(crate) fn ledger_header(&mut self) -> LedgerHeader {
        let (_, nonce, made_at, ledger, seen) = self.header("ledger");
        LedgerHeader {
            signer: public("ledger").key_id(),
            nonce,
            made_at,
            ledger,
            seen,
        }
    }

    /// What a thief of the ledger's keys can do: an entry that no rule has judged.
    pub(crate) fn force(&mut self, statement: Statement) -> u64 {
        let (seq, time) = (
            self.entries.len() as u64,
            Time::from_micros(self.now).unwrap(),
        );
        let key_id = countersign_protocol::sshsig::SshSig::from_blob(&statement.signature)
            .unwrap()
            .key()
            .key_id();
        let (prev, entry) = (self.last, |prev| Entry {
            seq,
            time,
            prev,
            key_id,
            statement,
        });
        let bytes = entry(prev).encode().unwrap();
        self.last = entry::leaf(&bytes);
        self.tree.push(self.last);
        self.entries.push(bytes);
        seq
    }

    pub(crate) fn force_event(&mut self, who: &str, event: &Event) -> u64 {
        self.force(Statement::sign(event, &key(who)).unwrap())
    }

    /// Where the statement with this id stands.
    pub(crate) fn seq_of(&self, id: StatementId) -> Option<u64> {
        let found = self
            .entries
            .iter()
            .position(|bytes| Entry::decode(bytes).unwrap().statement.id() == id);
        found.map(|seq| seq as u64)
    }

    pub(crate) fn checkpoint(&self) -> Checkpoint {
        let size = self.tree.size();
        let root = self.tree.root_at(size).unwrap();
        let origin = "ledger.example.com".parse().unwrap();
        Checkpoint::sign(CheckpointBody { origin, size, root }, &key("checkpoint"))
    }

    fn append_one(&mut self, statement: Statement) -> Result<(StatementId, Event), Refusal> {
        let seq = self.entries.len() as u64;
        let time = Time::from_micros(self.now).unwrap();
        let verified = statement.clone().verify().unwrap();
        let key_id = verified.facts().key_id;
        let bytes = Entry {
            seq,
            time,
            prev: self.last,
            key_id,
            statement,
        }
        .encode()
        .unwrap();
        let leaf = entry::leaf(&bytes);
        let id = verified.id();
        let event = verified.event().clone();
        let attached = audit::attachment(&event, |named| self.blobs.get(&named.digest).cloned())?;
        self.state
            .admit(&verified, Position { seq, time, id }, leaf, attached)?;
        self.entries.push(bytes);
        self.tree.push(leaf);
        self.last = leaf;
        Ok((id, event))
    }
}
