//! A ledger with alice, bob and carol in it, who sign with keys held in software.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use countersign::clock::Clock;
use countersign::keys::{self, LedgerKeys};
use countersign::ledger::{
    AppendError, Ledger, OpenError, Receipt, Settings, StartRule, Submission,
};
use countersign_protocol::blob::{Blob, BlobRef};
use countersign_protocol::command::{Act, CommandSpec, Mode};
use countersign_protocol::event::{
    Administrator, AgentEnrolled, AgentKeyRetired, ChangeApproved, ChangeRequested,
    CommandApproved, CommandCancelRequested, CommandRequested, Event, ExecutionCompleted,
    ExecutionOutput, ExecutionStarted, LedgerGenesis, Outcome, ProgramFacts, Seen, Stream,
    StreamTotals,
};
use countersign_protocol::hash::{Digest, KeyId, LedgerId, StatementId};
use countersign_protocol::key::PublicKey;
use countersign_protocol::name::{Nonce, SECOND_US, Time};
use countersign_protocol::policy::{Policy, PolicyRef};
use countersign_protocol::rights::ChangeBody;
use countersign_protocol::statement::Statement;
use countersign_protocol::target::{TargetLine, TargetList};
use ed25519_dalek::SigningKey;
use sqlx::PgPool;

use super::cluster::OpenFolder;
use super::{TestDatabase, database};

pub(crate) fn key(name: &str) -> SigningKey {
    let mut seed = [7; 32];
    seed[..name.len()].copy_from_slice(name.as_bytes());
    SigningKey::from_bytes(&seed)
}

pub(crate) fn public(name: &str) -> PublicKey {
    PublicKey::of(&key(name))
}

fn blob(content: &[u8]) -> Blob {
    Blob::new(keys::random(), content.to_vec()).unwrap()
}

/// A signed statement and its blobs, ready to be sent; cloned, it is a retry.
pub(crate) fn signed(who: &str, event: &Event, blobs: Vec<Blob>) -> Submission {
    Submission {
        statement: Statement::sign(event, &key(who)).unwrap(),
        blobs,
    }
}

pub(crate) struct TestLedger {
    pub(crate) database: TestDatabase,
    pub(crate) folder: OpenFolder,
    pub(crate) clock: Clock,
    pub(crate) ledger: Ledger,
    pub(crate) policy: PolicyRef,
    chain: std::sync::Mutex<(u64, StatementId)>,
    nonce: AtomicU64,
}

impl TestLedger {
    /// A ledger with a policy of two approvals and the accepted agent `web-1`.
    pub(crate) async fn ready() -> Self {
        let database = database().await;
        let folder = OpenFolder::new("ledger");
        let clock = Clock::system();
        LedgerKeys::generate().write_new(folder.path()).unwrap();
        let settings = settings(&folder, database.app.clone(), &clock, StartRule::FirstStart);
        let genesis = genesis(&settings.keys, clock.now());
        Ledger::create(&settings, genesis).await.unwrap();
        let ledger = Ledger::open(settings).await.unwrap();
        let policy = PolicyRef {
            digest: Digest::new([0; 32]),
            seq: 0,
        };
        let chain = std::sync::Mutex::new((0, StatementId::ZERO));
        let nonce = AtomicU64::new(0);
        let mut this = Self {
            database,
            folder,
            clock,
            ledger,
            policy,
            chain,
            nonce,
        };
        let names = || {
            ["alice", "bob", "carol"]
                .map(|name| name.parse().unwrap())
                .to_vec()
        };
        let policy = Policy {
            approvals: 2,
            may_request: names(),
            may_approve: names(),
        };
        let digest = policy.digest().unwrap();
        let consent = this.change(ChangeBody::PolicyPublished { policy }).await;
        this.policy = PolicyRef {
            digest,
            seq: consent.seq + 1,
        };
        this.enrol("web-1").await;
        this
    }

    pub(crate) fn settings(&self, pool: PgPool, start: StartRule) -> Settings {
        settings(&self.folder, pool, &self.clock, start)
    }

    pub(crate) fn checkpoint_file(&self) -> PathBuf {
        self.folder.path().join("checkpoint")
    }

    /// Opens the ledger anew, as a server that starts does.
    pub(crate) async fn reopen(&self) -> Result<Ledger, OpenError> {
        let pool = self.database.another_app().await;
        Ledger::open(self.settings(pool, StartRule::FileRequired)).await
    }

    pub(crate) fn header(&self, who: &str) -> (KeyId, Nonce, Time, LedgerId, Seen) {
        let count = self.nonce.fetch_add(1, Ordering::Relaxed);
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&count.to_be_bytes());
        let newest = self.ledger.newest();
        let seen = Seen {
            size: newest.size(),
            root: newest.root(),
        };
        (
            public(who).key_id(),
            Nonce::new(nonce),
            self.clock.now(),
            self.ledger.id(),
            seen,
        )
    }

    pub(crate) async fn send(&self, submission: Submission) -> Result<Receipt, AppendError> {
        self.ledger.append(submission).await
    }

    pub(crate) async fn change(&self, body: ChangeBody) -> Receipt {
        let document = blob(&body.to_document().unwrap());
        let (signer, nonce, made_at, ledger, seen) = self.header("alice");
        let named = document.reference();
        let principal = "alice".parse().unwrap();
        let request = ChangeRequested {
            signer,
            nonce,
            made_at,
            ledger,
            seen,
            principal,
            body: named,
            reason: None,
        };
        let change = self
            .send(signed("alice", &request.into(), vec![document]))
            .await
            .unwrap()
            .id;
        let (signer, nonce, made_at, ledger, seen) = self.header("bob");
        let principal = "bob".parse().unwrap();
        let body = named.digest;
        let consent = ChangeApproved {
            signer,
            nonce,
            made_at,
            ledger,
            seen,
            principal,
            change,
            body,
            reason: None,
        };
        self.send(signed("bob", &consent.into(), Vec::new()))
            .await
            .unwrap()
    }

    pub(crate) async fn enrol(&self, name: &str) {
        self.enrol_with(name, name, None).await;
    }

    /// An agent gets the key called `anew` instead of the one that has its name.
    pub(crate) async fn rotate(&self, name: &str, anew: &str) {
        let replaces = Some(public(name).key_id());
        self.enrol_with(name, anew, replaces).await;
    }

    async fn enrol_with(&self, name: &str, with: &str, replaces: Option<KeyId>) {
        let (signer, nonce, made_at, ledger, seen) = self.header(with);
        let (agent, key) = (name.parse().unwrap(), public(with));
        let enrolled = AgentEnrolled {
            signer,
            nonce,
            made_at,
            ledger,
            seen,
            agent,
            key: key.clone(),
        };
        self.send(signed(with, &enrolled.into(), Vec::new()))
            .await
            .unwrap();
        self.change(ChangeBody::AgentAccepted {
            agent: name.parse().unwrap(),
            key,
            replaces,
        })
        .await;
    }

    /// The last word of web-1's first key.
    pub(crate) fn retire(&self) -> Submission {
        let (agent_seq, agent_prev) = *self.chain.lock().unwrap();
        self.retire_after(agent_seq, agent_prev)
    }

    /// As [`TestLedger::retire`], at a place on the chain.
    pub(crate) fn retire_after(&self, agent_seq: u64, agent_prev: StatementId) -> Submission {
        let (signer, nonce, made_at, ledger, seen) = self.header("web-1");
        let retired = AgentKeyRetired {
            signer,
            nonce,
            made_at,
            ledger,
            seen,
            agent: "web-1".parse().unwrap(),
            agent_seq,
            agent_prev,
        };
        signed("web-1", &retired.into(), Vec::new())
    }

    /// Alice asks for `true` on web-1.
    pub(crate) fn request(&self) -> (Submission, Act) {
        self.request_with(None)
    }

    pub(crate) fn request_with(&self, client_ref: Option<Digest>) -> (Submission, Act) {
        self.ask(client_ref, &["true"], b"because")
    }

    pub(crate) fn request_running(&self, argv: &[&str], reason: &[u8]) -> (Submission, Act) {
        self.ask(None, argv, reason)
    }

    fn ask(&self, client_ref: Option<Digest>, argv: &[&str], reason: &[u8]) -> (Submission, Act) {
        self.ask_of("web-1", client_ref, argv, reason)
    }

    /// Asks web-1 by its key called `key`.
    fn ask_of(
        &self,
        key: &str,
        client_ref: Option<Digest>,
        argv: &[&str],
        reason: &[u8],
    ) -> (Submission, Act) {
        let spec = CommandSpec {
            mode: Mode::Exec,
            argv: argv.iter().map(|word| (*word).to_owned()).collect(),
            cwd: None,
            user: None,
            timeout_ms: 30_000,
            output_limit: 1 << 20,
            at_output_limit: None,
        };
        let spec = blob(&spec.to_document().unwrap());
        let line = TargetLine {
            agent: "web-1".parse().unwrap(),
            key_id: public(key).key_id(),
            service: None,
            spec: spec.reference().digest,
        };
        let list = TargetList::new(vec![line]).unwrap();
        let document = blob(&list.to_document().unwrap());
        let reason = blob(reason);
        let now = self.clock.now();
        let act = Act {
            mode: Mode::Exec,
            spec: spec.reference(),
            env: None,
            stdin: None,
            targets: list.describe(document.reference()).unwrap(),
            user: None,
            timeout_ms: 30_000,
            output_limit: 1 << 20,
            at_output_limit: None,
            not_before: now,
            expires_at: now.plus_micros(3600 * SECOND_US),
            max_runs: 1,
        };
        let (signer, nonce, made_at, ledger, seen) = self.header("alice");
        let request = CommandRequested {
            signer,
            nonce,
            made_at,
            ledger,
            seen,
            principal: "alice".parse().unwrap(),
            client_ref,
            act: act.clone(),
            reason: reason.reference(),
        };
        (
            signed("alice", &request.into(), vec![spec, document, reason]),
            act,
        )
    }

    pub(crate) fn approval(&self, who: &str, command: StatementId, act: &Act) -> Submission {
        let (signer, nonce, made_at, ledger, seen) = self.header(who);
        let approval = CommandApproved {
            signer,
            nonce,
            made_at,
            ledger,
            seen,
            principal: who.parse().unwrap(),
            command,
            requester: "alice".parse().unwrap(),
            act: act.clone(),
            policy: self.policy,
            reason: None,
        };
        signed(who, &approval.into(), Vec::new())
    }

    pub(crate) fn cancel(&self, who: &str, command: StatementId) -> Submission {
        let (signer, nonce, made_at, ledger, seen) = self.header(who);
        let cancel = CommandCancelRequested {
            signer,
            nonce,
            made_at,
            ledger,
            seen,
            principal: who.parse().unwrap(),
            command,
            reason: None,
        };
        signed(who, &cancel.into(), Vec::new())
    }

    /// A command that bob and carol have approved.
    pub(crate) async fn authorized(&self) -> (StatementId, Act) {
        self.authorized_for("web-1").await
    }

    /// As [`TestLedger::authorized`], for web-1 by its key called `key`.
    pub(crate) async fn authorized_for(&self, key: &str) -> (StatementId, Act) {
        let (request, act) = self.ask_of(key, None, &["true"], b"because");
        let command = self.send(request).await.unwrap().id;
        self.send(self.approval("bob", command, &act))
            .await
            .unwrap();
        self.send(self.approval("carol", command, &act))
            .await
            .unwrap();
        (command, act)
    }

    pub(crate) fn start(&self, command: StatementId) -> Submission {
        let (signer, nonce, made_at, ledger, seen) = self.header("web-1");
        let path = blob(b"/usr/bin/true");
        let (agent_seq, agent_prev) = *self.chain.lock().unwrap();
        let program = ProgramFacts {
            path: path.reference(),
            sha256: Digest::new([1; 32]),
        };
        let agent = "web-1".parse().unwrap();
        let started = ExecutionStarted {
            signer,
            nonce,
            made_at,
            ledger,
            seen,
            agent,
            command,
            agent_seq,
            agent_prev,
            steps: None,
            in_force: None,
            program,
        };
        signed("web-1", &started.into(), vec![path])
    }

    /// Runs an authorized command to its end: started, one chunk, exited with 0.
    pub(crate) async fn run(&self, command: StatementId) -> Receipt {
        let started = self.send(self.start(command)).await.unwrap().id;
        self.finish(command, started).await
    }

    /// Ends a run that started: one chunk, exited with 0.
    pub(crate) async fn finish(&self, command: StatementId, started: StatementId) -> Receipt {
        let data = blob(b"hello\n");
        let named: BlobRef = data.reference();
        let (signer, nonce, made_at, ledger, seen) = self.header("web-1");
        let chunk = ExecutionOutput {
            signer,
            nonce,
            made_at,
            ledger,
            seen,
            agent: "web-1".parse().unwrap(),
            command,
            started,
            chunk_no: 0,
            chunk_prev: started,
            stream: Stream::Stdout,
            offset_us: 5,
            data: named,
        };
        let last_chunk = self
            .send(signed("web-1", &chunk.into(), vec![data]))
            .await
            .unwrap()
            .id;
        let (signer, nonce, made_at, ledger, seen) = self.header("web-1");
        let (agent_seq, _) = *self.chain.lock().unwrap();
        let none = StreamTotals {
            total: 0,
            kept: 0,
            sha256: Digest::new([2; 32]),
        };
        let completed = ExecutionCompleted {
            signer,
            nonce,
            made_at,
            ledger,
            seen,
            agent: "web-1".parse().unwrap(),
            command,
            agent_seq: agent_seq + 1,
            agent_prev: started,
            started,
            detail: None,
            outcome: Outcome::Exited,
            exit_code: Some(0),
            signal: None,
            duration_us: 1000,
            cpu_us: 500,
            max_rss: 4096,
            stdout: StreamTotals {
                total: 6,
                kept: 6,
                ..none
            },
            stderr: none,
            chunks: 1,
            last_chunk,
            tree_gone: true,
        };
        let receipt = self
            .send(signed("web-1", &completed.into(), Vec::new()))
            .await
            .unwrap();
        *self.chain.lock().unwrap() = (agent_seq + 2, receipt.id);
        receipt
    }
}

fn settings(folder: &OpenFolder, pool: PgPool, clock: &Clock, start: StartRule) -> Settings {
    Settings {
        pool,
        keys: LedgerKeys::read(folder.path()).unwrap(),
        checkpoint_file: folder.path().join("checkpoint"),
        start,
        clock: clock.clone(),
    }
}

fn genesis(keys: &LedgerKeys, now: Time) -> Statement {
    let genesis = LedgerGenesis {
        signer: keys.statement_id(),
        nonce: keys::nonce(),
        made_at: now,
        origin: "test.example.com".parse().unwrap(),
        checkpoint_key: PublicKey::of(keys.checkpoint()),
        statement_key: PublicKey::of(keys.statement()),
        administrators: ["alice", "bob", "carol"]
            .map(|name| Administrator {
                principal: name.parse().unwrap(),
                key: public(name),
            })
            .to_vec(),
        threshold: 2,
        recovery_key: None,
    };
    Statement::sign(&genesis.into(), keys.statement()).unwrap()
}
