//! A ledger with alice, bob and carol in it, who sign with keys held in software.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use countersign::clock::Clock;
use countersign::keys::LedgerKeys;
use countersign::ledger::{
    AppendError, Ledger, OpenError, Receipt, Settings, StartRule, Submission,
};
use countersign::projections::{self, Bell, Projected};
use countersign_protocol::blob::BlobRef;
use countersign_protocol::command::Act;
use countersign_protocol::event::{
    AgentFacts, AgentKeyRetired, CommandCancelRequested, ExecutionCompleted, ExecutionOutput,
    KeyClaim, KeyClaimed, Outcome, ReviewClosed, Seen, Stream, StreamTotals,
};
use countersign_protocol::hash::{Digest, KeyId, LedgerId, StatementId};
use countersign_protocol::name::{Nonce, Time};
use countersign_protocol::policy::{Policy, PolicyRef};
use countersign_protocol::rights::ChangeBody;
use countersign_protocol::statement::Statement;
use sha2::{Digest as _, Sha256};
use sqlx::PgPool;
use tokio::sync::watch;

use super::{TestDatabase, database};
use crate::folder::Folder;
use crate::statements::{self, Ask, View, blob, in_rack, key, public, signed};

pub(crate) struct TestLedger {
    pub(crate) database: TestDatabase,
    pub(crate) folder: Folder,
    pub(crate) clock: Clock,
    pub(crate) ledger: Ledger,
    pub(crate) policy: PolicyRef,
    chain: std::sync::Mutex<(u64, StatementId)>,
}

impl TestLedger {
    /// A ledger with a policy of two approvals and the accepted agent `web-1`.
    pub(crate) async fn ready() -> Self {
        Self::at(Clock::system()).await
    }

    /// As [`TestLedger::ready`], by a clock that stands two minutes ago until a test moves it: no
    /// server may be ahead of the database's.
    pub(crate) async fn two_minutes_ago() -> Self {
        let now = Clock::system().now().as_micros();
        let then = Time::from_micros(now - 120_000_000).unwrap();
        Self::at(Clock::fixed(then)).await
    }

    async fn at(clock: Clock) -> Self {
        let database = database().await;
        let folder = Folder::new("ledger");
        LedgerKeys::generate().write_new(folder.path()).unwrap();
        let settings = settings(&folder, database.app.clone(), &clock, StartRule::FirstStart);
        let genesis = statements::genesis(&settings.keys, "test.example.com", clock.now());
        Ledger::create(&settings, genesis).await.unwrap();
        let ledger = Ledger::open(settings).await.unwrap();
        let policy = PolicyRef {
            digest: Policy::built_in().digest(),
            seq: 0,
        };
        let chain = std::sync::Mutex::new((0, StatementId::ZERO));
        let mut this = Self {
            database,
            folder,
            clock,
            ledger,
            policy,
            chain,
        };
        this.policy = this.publish(&statements::policy()).await;
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

    /// A second server on the same database, with a checkpoint file of its own.
    pub(crate) async fn another_server(&self) -> Ledger {
        let pool = self.database.another_app().await;
        let mut settings = self.settings(pool, StartRule::FirstStart);
        settings.checkpoint_file = self.other_checkpoint_file();
        Ledger::open(settings).await.unwrap()
    }

    /// Of [`Self::another_server`].
    pub(crate) fn other_checkpoint_file(&self) -> PathBuf {
        self.folder.path().join("other-checkpoint")
    }

    /// Rows that follow what it writes, as a server beside makes them.
    pub(crate) fn follow(&self, pool: PgPool, bell: Bell) -> Rows {
        let (tell, rows) = watch::channel(None);
        let (log, judge) = (self.ledger.watch(), self.ledger.judge());
        tokio::spawn(projections::run(pool, log, (tell, bell), judge));
        rows
    }

    pub(crate) fn view(&self) -> View {
        View::of(&self.ledger, &self.clock)
    }

    pub(crate) fn header(&self, who: &str) -> (KeyId, Nonce, Time, LedgerId, Seen) {
        self.view().header(who)
    }

    pub(crate) async fn send(&self, submission: Submission) -> Result<Receipt, AppendError> {
        self.ledger.append(submission).await
    }

    pub(crate) async fn change(&self, body: ChangeBody) -> Receipt {
        self.change_with(body, None).await
    }

    /// A policy comes into force.
    pub(crate) async fn publish(&self, policy: &Policy) -> PolicyRef {
        let digest = policy.digest();
        let body = ChangeBody::PolicyPublished { policy: digest };
        let consent = self.change_with(body, Some(policy)).await;
        let seq = consent.seq + 1;
        PolicyRef { digest, seq }
    }

    async fn change_with(&self, body: ChangeBody, policy: Option<&Policy>) -> Receipt {
        let (request, digest) = self.view().change(&body, policy);
        let change = self.send(request).await.unwrap().id;
        let consent = self.view().consent(change, digest);
        self.send(consent).await.unwrap()
    }

    /// The key of this name counts no more; what it said stays good.
    pub(crate) async fn revoke(&self, name: &str) {
        self.change(ChangeBody::KeyRevoked {
            key_id: public(name).key_id(),
            suspect_from: None,
        })
        .await;
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
        let enrolment = self.view().enrolment(name, with);
        self.send(enrolment).await.unwrap();
        self.change(ChangeBody::AgentAccepted {
            agent: name.parse().unwrap(),
            key: public(with),
            replaces,
            labels: Vec::new(),
        })
        .await;
    }

    /// A person gets the key that has their name, which says itself that it is theirs.
    pub(crate) async fn join(&self, name: &str) {
        let claim = self.claim(name, name);
        self.change(ChangeBody::KeyAdded {
            principal: name.parse().unwrap(),
            key: public(name),
            claim,
            expires_at: None,
        })
        .await;
    }

    /// The word of the key of one name that it belongs to another.
    pub(crate) fn claim(&self, with: &str, principal: &str) -> KeyClaim {
        let (signer, nonce, made_at, ledger, _) = self.header(with);
        let claimed = KeyClaimed {
            signer,
            principal: principal.parse().unwrap(),
            nonce,
            made_at,
            ledger,
        };
        KeyClaim::of(&Statement::sign(&claimed.into(), &key(with)).unwrap())
    }

    pub(crate) async fn grant(&self, role: &str, to: &str) {
        let (role, to) = (role.parse().unwrap(), to.parse().unwrap());
        self.change(ChangeBody::RoleGranted { role, to }).await;
    }

    pub(crate) async fn take_away(&self, role: &str, from: &str) {
        let (role, from) = (role.parse().unwrap(), from.parse().unwrap());
        self.change(ChangeBody::RoleRevoked { role, from }).await;
    }

    pub(crate) async fn regroup(&self, group: &str, add: &[&str], remove: &[&str]) {
        let names = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
        self.change(ChangeBody::GroupChanged {
            group: group.parse().unwrap(),
            add: names(add),
            remove: names(remove),
        })
        .await;
    }

    /// Alice breaks the glass for `true` on web-1.
    pub(crate) fn break_glass(&self) -> Submission {
        let ask = Ask {
            break_glass: true,
            ..Ask::of("web-1")
        };
        self.ask(&ask).0
    }

    /// `who` has looked at a run without approvals.
    pub(crate) fn review(&self, who: &str, command: StatementId) -> Submission {
        let found = blob(b"the disk was full");
        let (signer, nonce, made_at, ledger, seen) = self.header(who);
        let closed = ReviewClosed {
            signer,
            nonce,
            made_at,
            ledger,
            seen,
            principal: who.parse().unwrap(),
            command,
            reason: found.reference(),
        };
        signed(who, &closed.into(), vec![found])
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
        self.ask(&Ask {
            client_ref,
            ..Ask::of("web-1")
        })
    }

    pub(crate) fn request_running(&self, argv: &[&str], reason: &[u8]) -> (Submission, Act) {
        self.ask(&Ask {
            argv,
            reason,
            ..Ask::of("web-1")
        })
    }

    pub(crate) fn ask(&self, ask: &Ask<'_>) -> (Submission, Act) {
        self.view().request(ask)
    }

    pub(crate) fn approval(&self, who: &str, command: StatementId, act: &Act) -> Submission {
        self.view().approval(who, command, act, self.policy)
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
            token: None,
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
        let (request, act) = self.ask(&Ask {
            key,
            ..Ask::of("web-1")
        });
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
        let link = *self.chain.lock().unwrap();
        self.view().start("web-1", command, link)
    }

    /// web-1 says of itself in which rack it stands.
    pub(crate) async fn say_facts(&self, rack: &str) -> Receipt {
        let document = blob(&in_rack(rack).to_document().unwrap());
        let (signer, nonce, made_at, ledger, seen) = self.header("web-1");
        let (agent_seq, agent_prev) = *self.chain.lock().unwrap();
        let said = AgentFacts {
            signer,
            nonce,
            made_at,
            ledger,
            seen,
            agent: "web-1".parse().unwrap(),
            agent_seq,
            agent_prev,
            facts: document.reference(),
        };
        let receipt = self.send(signed("web-1", &said.into(), vec![document]));
        let receipt = receipt.await.unwrap();
        *self.chain.lock().unwrap() = (agent_seq + 1, receipt.id);
        receipt
    }

    /// Runs an authorized command to its end: started, one chunk, exited with 0.
    pub(crate) async fn run(&self, command: StatementId) -> Receipt {
        let started = self.send(self.start(command)).await.unwrap().id;
        self.finish(command, started).await
    }

    /// Ends a run that started: one chunk, exited with 0.
    pub(crate) async fn finish(&self, command: StatementId, started: StatementId) -> Receipt {
        self.end(command, started, Outcome::Exited).await
    }

    /// Runs an authorized command until its own time is over.
    pub(crate) async fn run_out_of_time(&self, command: StatementId) -> Receipt {
        let started = self.send(self.start(command)).await.unwrap().id;
        self.end(command, started, Outcome::TimedOut).await
    }

    /// Ends a run that started, with one chunk.
    async fn end(&self, command: StatementId, started: StatementId, outcome: Outcome) -> Receipt {
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
        let totals = |bytes: &[u8]| StreamTotals {
            total: bytes.len() as u64,
            kept: bytes.len() as u64,
            sha256: Digest::new(Sha256::digest(bytes).into()),
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
            outcome,
            exit_code: (outcome == Outcome::Exited).then_some(0),
            signal: None,
            duration_us: 1000,
            cpu_us: 500,
            max_rss: 4096,
            stdout: totals(b"hello\n"),
            stderr: totals(b""),
            chunks: 1,
            last_chunk,
            tree_gone: true,
            masked: None,
        };
        let receipt = self
            .send(signed("web-1", &completed.into(), Vec::new()))
            .await
            .unwrap();
        *self.chain.lock().unwrap() = (agent_seq + 2, receipt.id);
        receipt
    }
}

/// Nothing newer can be kept in a file from now on: what is written beside it has a folder in its way.
pub(crate) fn make_unwritable(file: &Path) {
    fs::create_dir(beside(file)).unwrap();
}

/// Longer than rows take to follow.
const PATIENCE: Duration = Duration::from_secs(20);

/// How far a follower is.
pub(crate) type Rows = watch::Receiver<Option<Projected>>;

/// Until the rows have so many entries.
pub(crate) async fn have(rows: &mut Rows, size: u64) {
    let there = |rows: &Option<Projected>| rows.as_ref().is_some_and(|rows| rows.in_rows() >= size);
    let waited = tokio::time::timeout(PATIENCE, rows.wait_for(there)).await;
    waited.expect("the rows follow").unwrap();
}

/// The file can be written again.
pub(crate) fn mend(file: &Path) {
    fs::remove_dir(beside(file)).unwrap();
}

fn beside(file: &Path) -> PathBuf {
    file.with_extension("new")
}

fn settings(folder: &Folder, pool: PgPool, clock: &Clock, start: StartRule) -> Settings {
    Settings {
        pool,
        keys: LedgerKeys::read(folder.path()).unwrap(),
        checkpoint_file: folder.path().join("checkpoint"),
        start,
        clock: clock.clone(),
        judge: countersign::setup::judge(),
    }
}
