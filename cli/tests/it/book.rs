//! A small ledger in memory, on the real clock: what an honest server would hold, and what a lying
//! one starts from.

use std::collections::BTreeMap;

use countersign_protocol::audit;
use countersign_protocol::blob::{Blob, BlobRef};
use countersign_protocol::checkpoint::{Checkpoint, CheckpointBody};
use countersign_protocol::command::{Act, CommandSpec, Mode};
use countersign_protocol::effect::LedgerHeader;
use countersign_protocol::entry::{self, Entry};
use countersign_protocol::event::*;
use countersign_protocol::fold::{self, Refusal, State};
use countersign_protocol::hash::{Digest, Hash, KeyId, LedgerId, StatementId};
use countersign_protocol::key::PublicKey;
use countersign_protocol::lifecycle::Position;
use countersign_protocol::merkle::Tree;
use countersign_protocol::name::{Nonce, SECOND_US, Time};
use countersign_protocol::policy::Policy;
use countersign_protocol::rights::ChangeBody;
use countersign_protocol::secret::SealingKey;
use countersign_protocol::statement::Statement;
use countersign_protocol::target::{TargetLine, TargetList};
use countersign_sealing::SealingSecret;
use ed25519_dalek::SigningKey;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::cedar;

pub(crate) const ORIGIN: &str = "ledger.example.com";

pub(crate) fn key(name: &str) -> SigningKey {
    let mut seed = [0; 32];
    seed[..name.len()].copy_from_slice(name.as_bytes());
    SigningKey::from_bytes(&seed)
}

pub(crate) fn public(name: &str) -> PublicKey {
    PublicKey::of(&key(name))
}

macro_rules! person {
    ($book:expr, $who:expr, $kind:ident { $($field:ident: $value:expr),* $(,)? }) => {{
        let (signer, nonce, made_at, ledger, seen) = $book.header($who);
        Event::from($kind {
            signer, nonce, made_at, ledger, seen, principal: $who.parse().unwrap(),
            $($field: $value,)*
        })
    }};
}

macro_rules! agent {
    ($book:expr, $who:expr, $kind:ident { $($field:ident: $value:expr),* $(,)? }) => {{
        let (signer, nonce, made_at, ledger, seen) = $book.header($who);
        Event::from($kind {
            signer, nonce, made_at, ledger, seen, agent: $who.parse().unwrap(),
            $($field: $value,)*
        })
    }};
}

/// A ledger in memory.
#[derive(Clone)]
pub(crate) struct Book {
    pub(crate) entries: Vec<Vec<u8>>,
    pub(crate) streams: Vec<Option<fold::Stream>>,
    pub(crate) blobs: BTreeMap<Digest, Blob>,
    pub(crate) state: State,
    pub(crate) tree: Tree,
    last: Hash,
    time: u64,
}

/// What opens secrets for a host.
pub(crate) fn sealing(host: &str) -> SealingSecret {
    SealingSecret::new(Zeroizing::new(Sha256::digest(host).into()))
}

/// The key of a host that takes secrets; web-2 enrolled before there were any.
fn sealing_key(host: &str) -> Option<SealingKey> {
    (host != "web-2").then(|| sealing(host).public().unwrap())
}

impl Book {
    /// Genesis alone: alice, bob and carol are administrators, two of them change rights.
    pub(crate) fn genesis() -> Self {
        Self::of(public("bob"))
    }

    /// The same with another key for bob.
    pub(crate) fn of(bob: PublicKey) -> Self {
        let mut book = Self {
            entries: Vec::new(),
            streams: Vec::new(),
            blobs: BTreeMap::new(),
            state: State::new(countersign_cli::replay::judge()),
            tree: Tree::default(),
            last: Hash::ZERO,
            time: countersign_cli::clock::now().as_micros(),
        };
        let people = [
            ("alice", public("alice")),
            ("bob", bob),
            ("carol", public("carol")),
        ];
        let event = Event::from(LedgerGenesis {
            signer: public("ledger").key_id(),
            nonce: countersign_cli::entropy::nonce(),
            made_at: Time::from_micros(book.time).unwrap(),
            origin: ORIGIN.parse().unwrap(),
            checkpoint_key: public("checkpoint"),
            statement_key: public("ledger"),
            administrators: people
                .map(|(name, key)| Administrator {
                    principal: name.parse().unwrap(),
                    key,
                })
                .to_vec(),
            threshold: 2,
            gateway_key: None,
            recovery_key: None,
        });
        book.say("ledger", &event).unwrap();
        book
    }

    /// With a policy of two approvals and two accepted agents, `web-1` and `web-2`.
    pub(crate) fn ready() -> Self {
        Self::genesis().equipped()
    }

    pub(crate) fn equipped(mut self) -> Self {
        let people = ["alice", "bob", "carol"];
        self.publish(&cedar::names(2, &people, &people));
        for host in ["web-1", "web-2"] {
            let (agent, key) = (host.parse().unwrap(), public(host));
            self.enrol(host);
            self.change(ChangeBody::AgentAccepted {
                agent,
                key,
                replaces: None,
                labels: Vec::new(),
            });
        }
        self
    }

    /// The word of `who`'s key that it is theirs in this ledger.
    fn claim(&mut self, who: &str) -> KeyClaim {
        let (signer, nonce, made_at, ledger, _) = self.header(who);
        let claimed = KeyClaimed {
            signer,
            principal: who.parse().unwrap(),
            nonce,
            made_at,
            ledger,
        };
        KeyClaim::of(&Statement::sign(&claimed.into(), &key(who)).unwrap())
    }

    /// A person whom the ledger begins to know, without any right of theirs.
    pub(crate) fn join(&mut self, who: &str) {
        let claim = self.claim(who);
        self.change(ChangeBody::KeyAdded {
            principal: who.parse().unwrap(),
            key: public(who),
            claim,
            expires_at: None,
        });
    }

    pub(crate) fn enrol(&mut self, host: &str) {
        let event = agent!(
            self,
            host,
            AgentEnrolled {
                key: public(host),
                sealing_key: sealing_key(host)
            }
        );
        self.say(host, &event).unwrap();
    }

    /// A host asks to be known by the key called `anew`.
    pub(crate) fn enrol_with(&mut self, host: &str, anew: &str) {
        let (signer, nonce, made_at, ledger, seen) = self.header(anew);
        let enrolled = AgentEnrolled {
            signer,
            agent: host.parse().unwrap(),
            nonce,
            made_at,
            ledger,
            seen,
            key: public(anew),
            sealing_key: None,
        };
        self.say(anew, &enrolled.into()).unwrap();
    }

    /// A policy comes into force.
    pub(crate) fn publish(&mut self, policy: &Policy) {
        let digest = policy.digest();
        self.change_with(ChangeBody::PolicyPublished { policy: digest }, Some(policy));
    }

    /// Alice asks for a change, carol consents.
    pub(crate) fn change(&mut self, body: ChangeBody) {
        self.change_with(body, None);
    }

    fn change_with(&mut self, body: ChangeBody, policy: Option<&Policy>) {
        let document = policy.map(|policy| self.blob(policy.text().as_bytes()));
        let named = self.blob(&body.to_document().unwrap());
        let event = person!(
            self,
            "alice",
            ChangeRequested {
                body: named,
                document: document,
                reason: None
            }
        );
        let change = self.say("alice", &event).unwrap();
        let body = named.digest;
        let event = person!(
            self,
            "carol",
            ChangeApproved {
                change: change,
                body: body,
                reason: None
            }
        );
        self.say("carol", &event).unwrap();
    }

    pub(crate) fn blob(&mut self, content: &[u8]) -> BlobRef {
        let blob = countersign_cli::entropy::blob(content.to_vec()).unwrap();
        let reference = blob.reference();
        self.blobs.insert(reference.digest, blob);
        reference
    }

    pub(crate) fn header(&mut self, who: &str) -> (KeyId, Nonce, Time, LedgerId, Seen) {
        let size = self.tree.size();
        let root = self.tree.root_at(size).unwrap();
        let ledger = self.state.rights().ledger().unwrap();
        let (nonce, now) = (
            countersign_cli::entropy::nonce(),
            countersign_cli::clock::now(),
        );
        (
            public(who).key_id(),
            nonce,
            now,
            ledger,
            Seen { size, root },
        )
    }

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

    /// Asks as `who` for `argv` on `hosts`.
    pub(crate) fn request(&mut self, who: &str, hosts: &[&str], argv: &[&str]) -> StatementId {
        self.request_with(who, hosts, argv, None)
    }

    /// The same with this document of secrets.
    pub(crate) fn request_with(
        &mut self,
        who: &str,
        hosts: &[&str],
        argv: &[&str],
        secrets: Option<&[u8]>,
    ) -> StatementId {
        let secrets = secrets.map(|document| self.blob(document));
        self.request_for(who, hosts, argv, |act| act.secrets = secrets)
    }

    /// The same with an act that is changed before it is signed.
    pub(crate) fn request_for(
        &mut self,
        who: &str,
        hosts: &[&str],
        argv: &[&str],
        change: impl FnOnce(&mut Act),
    ) -> StatementId {
        let spec = self.blob(&Self::spec(argv).to_document().unwrap());
        let lines = hosts.iter().map(|host| TargetLine {
            agent: host.parse().unwrap(),
            key_id: public(host).key_id(),
            service: None,
            spec: spec.digest,
            turn: None,
            facts: None,
        });
        let list = TargetList::new(lines.collect()).unwrap();
        let document = self.blob(&list.to_document().unwrap());
        let now = countersign_cli::clock::now();
        let mut act = Act {
            mode: Mode::Exec,
            spec,
            env: None,
            stdin: None,
            secrets: None,
            targets: list.describe(document).unwrap(),
            user: None,
            timeout_ms: 30_000,
            output_limit: 1 << 20,
            at_output_limit: None,
            not_before: now,
            expires_at: now.plus_micros(3600 * SECOND_US),
            max_runs: 1,
            break_glass: false,
            rollout: None,
        };
        change(&mut act);
        let reason = self.blob(b"because");
        let event = person!(
            self,
            who,
            CommandRequested {
                token: None,
                retry: None,
                client_ref: None,
                act: act,
                reason: reason
            }
        );
        self.say(who, &event).unwrap()
    }

    pub(crate) fn approval(&mut self, who: &str, command: StatementId) -> Event {
        let asked = self.state.command(&command).unwrap();
        let (requester, act) = (asked.requester().clone(), asked.act().clone());
        let policy = self.state.rights().policy().unwrap().reference;
        person!(
            self,
            who,
            CommandApproved {
                command: command,
                requester: requester,
                act: act,
                policy: policy,
                reason: None,
            }
        )
    }

    pub(crate) fn approve(&mut self, who: &str, command: StatementId) {
        let event = self.approval(who, command);
        self.say(who, &event).unwrap();
    }

    fn chain(&self, host: &str) -> (u64, StatementId) {
        let chain = self.state.chain(&public(host).key_id());
        chain.map_or((0, StatementId::ZERO), |chain| (chain.next, chain.prev))
    }

    fn execution(&self, host: &str, command: StatementId) -> (StatementId, u64, StatementId) {
        let command = self.state.command(&command).unwrap();
        let part = &command.executions[&host.parse().unwrap()];
        let started = part.started.as_ref().map(|(_, at)| at.id).unwrap();
        (started, part.chunks, part.last_chunk)
    }

    pub(crate) fn start(&mut self, host: &str, command: StatementId) {
        let path = self.blob(b"/usr/bin/true");
        let (agent_seq, agent_prev) = self.chain(host);
        let sha256 = Digest::new([1; 32]);
        let event = agent!(
            self,
            host,
            ExecutionStarted {
                command: command,
                agent_seq: agent_seq,
                agent_prev: agent_prev,
                steps: None,
                in_force: None,
                program: ProgramFacts { path, sha256 },
            }
        );
        self.say(host, &event).unwrap();
    }

    pub(crate) fn output(
        &mut self,
        host: &str,
        command: StatementId,
        stream: Stream,
        bytes: &[u8],
    ) {
        let (started, chunk_no, chunk_prev) = self.execution(host, command);
        let data = self.blob(bytes);
        let event = agent!(
            self,
            host,
            ExecutionOutput {
                command: command,
                started: started,
                chunk_no: chunk_no,
                chunk_prev: chunk_prev,
                stream: stream,
                offset_us: 10,
                data: data,
            }
        );
        self.say(host, &event).unwrap();
    }

    /// Ends a run that wrote these bytes, as the agent claims.
    pub(crate) fn complete(
        &mut self,
        host: &str,
        command: StatementId,
        code: u8,
        out: &[u8],
        err: &[u8],
    ) {
        let totals = |bytes: &[u8]| StreamTotals {
            total: bytes.len() as u64,
            kept: bytes.len() as u64,
            sha256: Digest::new(Sha256::digest(bytes).into()),
        };
        let event = self.completion(host, command, code, [totals(out), totals(err)]);
        self.say(host, &event).unwrap();
    }

    pub(crate) fn completion(
        &mut self,
        host: &str,
        command: StatementId,
        code: u8,
        [stdout, stderr]: [StreamTotals; 2],
    ) -> Event {
        let (started, chunks, last_chunk) = self.execution(host, command);
        let (agent_seq, agent_prev) = self.chain(host);
        agent!(
            self,
            host,
            ExecutionCompleted {
                command: command,
                agent_seq: agent_seq,
                agent_prev: agent_prev,
                started: started,
                detail: None,
                outcome: Outcome::Exited,
                exit_code: Some(code),
                signal: None,
                duration_us: 1_500,
                cpu_us: 500,
                max_rss: 4096,
                stdout: stdout,
                stderr: stderr,
                chunks: chunks,
                last_chunk: last_chunk,
                tree_gone: true,
                masked: None,
            }
        )
    }

    /// bob and carol approve, web-1 runs it, writes and ends.
    pub(crate) fn carry_out(&mut self, command: StatementId) {
        self.approve("bob", command);
        self.approve("carol", command);
        self.start("web-1", command);
        self.output("web-1", command, Stream::Stdout, b"hello\n");
        self.output("web-1", command, Stream::Stderr, b"oops\n");
        self.output("web-1", command, Stream::Stdout, b"world\n");
        self.complete("web-1", command, 3, b"hello\nworld\n", b"oops\n");
    }

    /// Signs with `who`'s key and enters it; then says what the ledger must say to it.
    pub(crate) fn say(&mut self, who: &str, event: &Event) -> Result<StatementId, Refusal> {
        self.enter(Statement::sign(event, &key(who)).unwrap())
    }

    pub(crate) fn enter(&mut self, statement: Statement) -> Result<StatementId, Refusal> {
        let (event, at) = self.enter_one(statement, true)?;
        let id = at.id;
        let mut cause = (event, at);
        while let Some(effect) = self.state.effect_of(&cause.0, cause.1) {
            let (_, nonce, made_at, ledger, seen) = self.header("ledger");
            let signer = public("ledger").key_id();
            let head = LedgerHeader {
                signer,
                nonce,
                made_at,
                ledger,
                seen,
            };
            let statement = Statement::sign(&head.effect(effect), &key("ledger")).unwrap();
            cause = self.enter_one(statement, true)?;
        }
        Ok(id)
    }

    /// Enters what no honest ledger would: the statement of somebody who may not say it.
    pub(crate) fn smuggle(&mut self, who: &str, event: &Event) {
        let statement = Statement::sign(event, &key(who)).unwrap();
        self.enter_one(statement, false).unwrap();
    }

    fn enter_one(
        &mut self,
        statement: Statement,
        judged: bool,
    ) -> Result<(Event, Position), Refusal> {
        let seq = self.entries.len() as u64;
        self.time = self.time.max(countersign_cli::clock::now().as_micros());
        let time = Time::from_micros(self.time).unwrap();
        let verified = statement.clone().verify().unwrap();
        let (key_id, prev) = (verified.facts().key_id, self.last);
        let entry = Entry {
            seq,
            time,
            prev,
            key_id,
            statement,
        };
        let bytes = entry.encode().unwrap();
        let leaf = entry::leaf(&bytes);
        let (id, event) = (verified.id(), verified.event().clone());
        let attached = audit::attachment(&event, |named| self.blobs.get(&named.digest).cloned())?;
        let at = Position { seq, time, id };
        if judged {
            self.state.admit(&verified, at, leaf, attached)?;
        }
        self.streams.push(fold::Stream::of(&event, id));
        self.entries.push(bytes);
        self.tree.push(leaf);
        self.last = leaf;
        Ok((event, at))
    }

    pub(crate) fn ledger(&self) -> LedgerId {
        self.state.rights().ledger().unwrap()
    }

    /// The signed checkpoint over everything.
    pub(crate) fn checkpoint(&self) -> Checkpoint {
        self.checkpoint_by("checkpoint")
    }

    pub(crate) fn checkpoint_by(&self, who: &str) -> Checkpoint {
        let size = self.tree.size();
        let body = CheckpointBody {
            origin: ORIGIN.parse().unwrap(),
            size,
            root: self.tree.root_at(size).unwrap(),
        };
        Checkpoint::sign(body, &key(who))
    }
}
