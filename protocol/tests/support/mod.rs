//! A small ledger in memory with fixed keys: statements in, entries out, nothing hidden.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::BTreeMap;

use countersign_protocol::audit::{self, Auditor, Finding};
use countersign_protocol::blob::{Blob, BlobRef};
use countersign_protocol::command::{Act, CommandSpec, Mode};
use countersign_protocol::effect::LedgerHeader;
use countersign_protocol::entry::{self, Entry};
use countersign_protocol::event::*;
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
#[macro_export]
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

/// What holds every run of the book.
const IN_FORCE: InForce = InForce {
    cgroup: Some(CgroupInForce {
        cpu: false,
        memory: true,
        pids: true,
    }),
    gid: 1000,
    landlock: Some(6),
    limits: LimitsInForce {
        cpu_s: Some(60),
        file_size_bytes: None,
        memory_bytes: Some(1 << 30),
        open_files: Some(1024),
        processes: None,
    },
    no_new_privs: true,
    seccomp: true,
    uid: 1000,
};

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

    /// With a policy of two approvals and one accepted agent, `web-1`.
    pub(crate) fn ready() -> Self {
        let mut book = Self::genesis();
        let names = || {
            ["alice", "bob", "carol"]
                .map(|name| name.parse().unwrap())
                .to_vec()
        };
        book.change(ChangeBody::PolicyPublished {
            policy: Policy {
                approvals: 2,
                may_request: names(),
                may_approve: names(),
            },
        });
        book.enrol("web-1");
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

    /// An agent enrols under its name with the key called `anew`, which replaces its current one.
    pub(crate) fn rotate(&mut self, name: &str, anew: &str) {
        self.enrol_with(name, anew).unwrap();
        let agent = name.parse().unwrap();
        let replaces = self.state.rights().agent(&agent);
        assert!(replaces.is_some());
        self.change(ChangeBody::AgentAccepted {
            agent,
            key: public(anew),
            replaces,
        });
    }

    /// An agent enrols under its name with the key called `anew`.
    pub(crate) fn enrol_with(&mut self, name: &str, anew: &str) -> Result<StatementId, Refusal> {
        let key = public(anew);
        let (_, nonce, made_at, ledger, seen) = self.header(anew);
        let event = Event::from(AgentEnrolled {
            signer: key.key_id(),
            agent: name.parse().unwrap(),
            nonce,
            made_at,
            ledger,
            seen,
            key,
        });
        self.sign_and_append(anew, &event)
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

    /// The act of running `true` on `hosts`.
    pub(crate) fn act(&mut self, hosts: &[&str]) -> Act {
        let spec = CommandSpec {
            mode: Mode::Exec,
            argv: vec!["true".into()],
            cwd: None,
            user: None,
            timeout_ms: 30_000,
            output_limit: 1 << 20,
            at_output_limit: None,
        };
        let spec = self.blob(&spec.to_document().unwrap());
        let lines = hosts.iter().map(|host| {
            let agent = host.parse().unwrap();
            let known = self.state.rights().agent(&agent);
            TargetLine {
                key_id: known.unwrap_or_else(|| public(host).key_id()),
                agent,
                service: None,
                spec: spec.digest,
            }
        });
        let list = TargetList::new(lines.collect()).unwrap();
        let document = self.blob(&list.to_document().unwrap());
        Act {
            mode: Mode::Exec,
            spec,
            env: None,
            stdin: None,
            targets: list.describe(document).unwrap(),
            user: None,
            timeout_ms: 30_000,
            output_limit: 1 << 20,
            at_output_limit: None,
            not_before: Time::from_micros(self.now).unwrap(),
            expires_at: Time::from_micros(self.now + 3600 * SECOND_US).unwrap(),
            max_runs: 1,
        }
    }

    pub(crate) fn request_event(&mut self, who: &str, hosts: &[&str]) -> Event {
        let act = self.act(hosts);
        let reason = self.blob(b"because");
        say!(person self, who, CommandRequested { client_ref: None, act: act, reason: reason })
    }

    pub(crate) fn request(&mut self, who: &str, hosts: &[&str]) -> Result<StatementId, Refusal> {
        let event = self.request_event(who, hosts);
        self.sign_and_append(who, &event)
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

    pub(crate) fn start_event(&mut self, host: &str, command: StatementId) -> Event {
        let path = self.blob(b"/usr/bin/true");
        let (agent_seq, agent_prev) = self.chain(host);
        let program = ProgramFacts {
            path,
            sha256: Digest::new([1; 32]),
        };
        say!(agent self, host, ExecutionStarted {
            command: command, agent_seq: agent_seq, agent_prev: agent_prev, in_force: Some(IN_FORCE), program: program, steps: None,
        })
    }

    pub(crate) fn start(
        &mut self,
        host: &str,
        command: StatementId,
    ) -> Result<StatementId, Refusal> {
        let event = self.start_event(host, command);
        self.sign_and_append(host, &event)
    }

    pub(crate) fn output(
        &mut self,
        host: &str,
        command: StatementId,
        bytes: &[u8],
    ) -> Result<StatementId, Refusal> {
        let (started, chunk_no, chunk_prev) = self.run(host, command);
        let data = self.blob(bytes);
        let event = say!(agent self, host, ExecutionOutput {
            command: command, started: started, chunk_no: chunk_no, chunk_prev: chunk_prev,
            stream: Stream::Stdout, offset_us: 10, data: data,
        });
        self.sign_and_append(host, &event)
    }

    pub(crate) fn complete(
        &mut self,
        host: &str,
        command: StatementId,
        code: u8,
    ) -> Result<StatementId, Refusal> {
        let event = self.complete_event(host, command, code);
        self.sign_and_append(host, &event)
    }

    pub(crate) fn complete_event(&mut self, host: &str, command: StatementId, code: u8) -> Event {
        let (started, chunks, last_chunk) = self.run(host, command);
        let (agent_seq, agent_prev) = self.chain(host);
        let totals = StreamTotals {
            total: 0,
            kept: 0,
            sha256: Digest::new([2; 32]),
        };
        say!(agent self, host, ExecutionCompleted {
            command: command, agent_seq: agent_seq, agent_prev: agent_prev, started: started,
            detail: None, outcome: Outcome::Exited, exit_code: Some(code), signal: None,
            duration_us: 1000, cpu_us: 500, max_rss: 4096,
            stdout: totals, stderr: totals, chunks: chunks, last_chunk: last_chunk, tree_gone: true,
        })
    }

    pub(crate) fn chain(&self, host: &str) -> (u64, StatementId) {
        let chain = self.state.chain(&public(host).key_id());
        chain.map_or((0, StatementId::ZERO), |chain| (chain.next, chain.prev))
    }

    fn run(&self, host: &str, command: StatementId) -> (StatementId, u64, StatementId) {
        let run = &self.command(command).executions[&host.parse().unwrap()];
        let started = run
            .started
            .as_ref()
            .map_or(StatementId::ZERO, |(_, at)| at.id);
        (started, run.chunks, run.last_chunk)
    }

    pub(crate) fn command(&self, id: StatementId) -> &Command {
        self.state.command(&id).unwrap()
    }

    pub(crate) fn status(&self, id: StatementId) -> &'static str {
        self.command(id).status().as_str()
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

    /// Audits what stands here, from the bytes alone.
    pub(crate) fn audit(&self) -> Result<Auditor, Finding> {
        self.audit_of(&self.entries)
    }

    pub(crate) fn audit_of(&self, entries: &[Vec<u8>]) -> Result<Auditor, Finding> {
        let blob = |named: &BlobRef| self.blobs.get(&named.digest).cloned();
        audit::audit(entries.iter().map(Vec::as_slice), blob)
    }

    /// A command that went all the way.
    pub(crate) fn story() -> (Self, StatementId) {
        let mut book = Self::ready();
        let command = book.request("alice", &["web-1"]).unwrap();
        book.approve("bob", command).unwrap();
        book.approve("carol", command).unwrap();
        book.start("web-1", command).unwrap();
        book.output("web-1", command, b"hello\n").unwrap();
        book.complete("web-1", command, 0).unwrap();
        (book, command)
    }
}
