//! A whole agent against a server in this process: once, in order, whatever is lost on the way.
//! ATTACKS rows 3, 7, 17, 18.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use countersign_agent::clock::Clock;
use countersign_agent::orders::Orders;
use countersign_agent::own::OwnFacts;
use countersign_agent::service;
use countersign_agent::spool::Spool;
use countersign_agent::{AgentError, Config};
use countersign_protocol::checkpoint::VerifierKey;
use countersign_protocol::entry::Entry;
use countersign_protocol::event::{Event, LossForm, Outcome, RefusalReason, Stream};
use countersign_protocol::hash::StatementId;
use countersign_protocol::lifecycle::{Execution, ExecutionStatus};
use countersign_protocol::name::SECOND_US;
use countersign_protocol::rights::ChangeBody;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::{Book, Fake, Tell, World, at, public};

/// Longer than any test should take.
const LONG: Duration = Duration::from_secs(30);

pub(crate) struct Rig {
    pub(crate) fake: Fake,
    pub(crate) clock: Clock,
    pub(crate) config: Config,
    pub(crate) shutdown: CancellationToken,
    pub(crate) orders: Orders,
    pub(crate) agent: Option<JoinHandle<Result<(), AgentError>>>,
    pub(crate) folder: tempfile::TempDir,
}

impl Rig {
    /// A ledger where the host's name is not taken yet, and an agent that has just started.
    pub(crate) async fn new() -> Self {
        Self::new_with(|_| Orders::default()).await
    }

    /// As [`Rig::new`], with changes of its configuration, and orders.
    pub(crate) async fn new_with(change: impl FnOnce(&mut Config) -> Orders) -> Self {
        let World { mut book, host, .. } = World::without_host();
        book.now += SECOND_US;
        let clock = Clock::fixed(at(book.now));
        let ledger = book.state.rights().ledger().unwrap();
        let fake = Fake::start(book).await;
        let folder = tempfile::tempdir().unwrap();
        let mut rules = host.rules;
        rules.account.uid = 1000;
        let mut config = Config {
            server: fake.address.parse().unwrap(),
            ca: None,
            name: "web-1".parse().unwrap(),
            state: folder.path().join("state"),
            ledger,
            vkey: VerifierKey::of(
                &"ledger.example.com".parse().unwrap(),
                &public("checkpoint"),
            )
            .unwrap(),
            signers: host.signers,
            rules,
            max_runs: 4,
            grace: Duration::from_millis(200),
            drain: Duration::ZERO,
            idle_every: Some(Duration::from_secs(3600)),
            spool_max: 256 << 20,
            snapshot: None,
            witnesses: None,
            max_checkpoint_age_us: None,
            facts: OwnFacts::Silent,
            rotation_grace: Duration::ZERO,
        };
        let orders = change(&mut config);
        let mut rig = Self {
            fake,
            clock,
            config,
            shutdown: CancellationToken::new(),
            orders,
            agent: None,
            folder,
        };
        rig.start();
        rig
    }

    /// A rig whose agent is accepted and listens.
    pub(crate) async fn ready() -> Self {
        let rig = Self::new().await;
        rig.accept().await;
        rig.listening(1).await;
        rig
    }

    pub(crate) fn start(&mut self) {
        self.shutdown = CancellationToken::new();
        let (config, clock) = (self.config.clone(), self.clock.clone());
        self.orders.stop = self.shutdown.clone();
        let orders = self.orders.clone();
        self.agent = Some(tokio::spawn(Box::pin(service::run_with(
            config, clock, orders,
        ))));
    }

    pub(crate) async fn accept(&self) {
        self.until("it enrols", |book| {
            book.state.rights().enrolments().next().is_some()
        })
        .await;
        let mut book = self.fake.book();
        let (agent, key) = book.state.rights().enrolments().next().unwrap();
        let (agent, key) = (agent.clone(), key.clone());
        let replaces = book.state.rights().agent(&agent);
        book.change(ChangeBody::AgentAccepted {
            agent,
            key,
            replaces,
            labels: vec![],
        });
    }

    pub(crate) async fn listening(&self, times: usize) {
        let wire = &self.fake.wire;
        self.until("it listens", |_| {
            wire.streams.load(Ordering::SeqCst) >= times
        })
        .await;
    }

    /// Ends the agent's stream, and waits until it has come back.
    pub(crate) async fn hung_up(&self, times: usize) {
        let wire = &self.fake.wire;
        self.until("it listens again", |_| {
            let back = wire.streams.load(Ordering::SeqCst) >= times;
            if !back {
                // Again and again, as only who waits at that moment hears it.
                wire.hang_up.notify_waiters();
            }
            back
        })
        .await;
    }

    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&Book) -> bool) {
        let begun = Instant::now();
        while !holds(&self.fake.book()) {
            assert!(begun.elapsed() < LONG, "never: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Alice asks, bob and carol approve, the agent is told.
    pub(crate) fn granted(&self, script: &str) -> StatementId {
        let id = approved(&mut self.fake.book(), &["sh", "-c", script]);
        self.fake.tell(Tell::Grant(id));
        id
    }

    pub(crate) fn execution(&self, id: StatementId) -> Execution {
        execution(&self.fake.book(), id)
    }

    pub(crate) async fn ended(&self, id: StatementId) -> Execution {
        self.until("it ends", |book| execution(book, id).status.is_final())
            .await;
        self.execution(id)
    }

    pub(crate) async fn running(&self, id: StatementId) {
        self.until("it starts", |book| {
            execution(book, id).status == ExecutionStatus::Running
        })
        .await;
    }

    /// Waits until some of its output is in the log.
    pub(crate) async fn writing(&self, id: StatementId) {
        self.until("output", |book| execution(book, id).chunks > 0)
            .await;
    }

    /// Somebody's cancel comes into the log; the agent is not told.
    pub(crate) fn cancels(&self, who: &str, id: StatementId) {
        let mut book = self.fake.book();
        let event = say!(person book, who, CommandCancelRequested { command: id, token: None, reason: None });
        book.sign_and_append(who, &event).unwrap();
    }

    /// Starts the agent anew, with another configuration.
    pub(crate) async fn restart_with(&mut self, change: impl FnOnce(&mut Config)) {
        self.stop().await.unwrap();
        change(&mut self.config);
        self.start();
    }

    /// What the log holds of the run's output, in the log's order.
    pub(crate) fn output(&self, id: StatementId, wanted: Stream) -> String {
        let book = self.fake.book();
        let mut output = Vec::new();
        for bytes in &book.entries {
            let statement = Entry::decode(bytes).unwrap().statement;
            let event = Event::parse(statement.kind, &statement.payload).unwrap();
            if let Event::ExecutionOutput(chunk) = event
                && chunk.command == id
                && chunk.stream == wanted
            {
                output.extend_from_slice(book.blobs[&chunk.data.digest].content());
            }
        }
        String::from_utf8(output).unwrap()
    }

    /// Stops without a word, as kill -9 does: no future is asked anything.
    pub(crate) async fn kill(&mut self) {
        let agent = self.agent.take().unwrap();
        agent.abort();
        let _ = agent.await;
        // What was on its way in other threads has ended by then.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    pub(crate) async fn stop(&mut self) -> Result<(), AgentError> {
        self.shutdown.cancel();
        self.result().await
    }

    pub(crate) async fn result(&mut self) -> Result<(), AgentError> {
        let agent = self.agent.take().unwrap();
        tokio::time::timeout(LONG, agent).await.unwrap().unwrap()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// Alice asks, bob and carol approve.
pub(crate) fn approved(book: &mut Book, argv: &[&str]) -> StatementId {
    let act = book.act(&["web-1"], &Book::spec(argv));
    let id = book.request("alice", act);
    book.approve("bob", id).unwrap();
    book.approve("carol", id).unwrap();
    id
}

pub(crate) fn execution(book: &Book, id: StatementId) -> Execution {
    let host = "web-1".parse().unwrap();
    book.state.command(&id).unwrap().executions[&host].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_agent_is_accepted_and_tells_the_whole_story_of_a_command() {
    let mut rig = Rig::ready().await;
    let id = rig.granted("echo out; echo err >&2; sleep 0.3; echo more; exit 3");
    let done = rig.ended(id).await.completed.unwrap();
    assert_eq!((done.outcome, done.exit_code), (Outcome::Exited, Some(3)));
    assert_eq!(rig.output(id, Stream::Stdout), "out\nmore\n");
    assert_eq!(rig.output(id, Stream::Stderr), "err\n");
    assert_eq!((done.stdout.total, done.stdout.kept), (9, 9));
    assert!(done.tree_gone && done.chunks >= 3);
    rig.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_double_nothing() {
    let rig = Rig::new().await;
    rig.fake.wire.lose.store(2, Ordering::SeqCst);
    rig.accept().await;
    rig.listening(1).await;
    rig.fake.wire.lose.store(3, Ordering::SeqCst);
    let script = format!("echo once >> {}; echo out", rig.file("ran").display());
    let id = rig.granted(&script);
    let done = rig.ended(id).await;
    assert_eq!(done.completed.unwrap().exit_code, Some(0));
    assert_eq!(rig.output(id, Stream::Stdout), "out\n");
    assert_eq!(fs::read_to_string(rig.file("ran")).unwrap(), "once\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_comes_again_is_not_run_again() {
    let mut rig = Rig::ready().await;
    let id = rig.granted(&format!("echo once >> {}", rig.file("ran").display()));
    rig.fake.tell(Tell::Grant(id));
    rig.ended(id).await;
    rig.hung_up(2).await;
    rig.stop().await.unwrap();
    let before = rig.fake.wire.streams.load(Ordering::SeqCst);
    rig.start();
    rig.listening(before + 1).await;
    let after = rig.granted("true");
    rig.ended(after).await;
    assert_eq!(fs::read_to_string(rig.file("ran")).unwrap(), "once\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_the_agent_did_not_survive_is_lost_with_the_output_it_had() {
    let mut rig = Rig::ready().await;
    let script = format!(
        "echo before; echo x >> {}; sleep 60",
        rig.file("ran").display()
    );
    let id = rig.granted(&script);
    rig.writing(id).await;
    rig.kill().await;
    rig.start();
    let lost = rig.ended(id).await;
    assert_eq!(lost.status, ExecutionStatus::Lost);
    assert_eq!(lost.lost, Some(LossForm::Confirmed));
    assert_eq!(rig.output(id, Stream::Stdout), "before\n");
    // The agent goes on, and its chain with it.
    let after = rig.granted("true");
    assert_eq!(rig.ended(after).await.status, ExecutionStatus::Completed);
    assert_eq!(fs::read_to_string(rig.file("ran")).unwrap(), "x\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn output_of_an_outage_is_delivered_later_in_order_and_once() {
    let mut rig = Rig::ready().await;
    let go = rig.file("go");
    let id = rig.granted(&format!(
        "echo 1; while [ ! -e {} ]; do sleep 0.05; done; for n in 2 3 4 5; do echo $n; sleep 0.15; done",
        go.display()
    ));
    rig.until("output", |book| execution(book, id).chunks == 1)
        .await;
    rig.fake.wire.away.store(true, Ordering::SeqCst);
    fs::write(go, "").unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(rig.output(id, Stream::Stdout), "1\n");
    rig.fake.wire.away.store(false, Ordering::SeqCst);
    let done = rig.ended(id).await.completed.unwrap();
    assert_eq!(rig.output(id, Stream::Stdout), "1\n2\n3\n4\n5\n");
    assert_eq!(done.exit_code, Some(0));
    rig.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn output_and_end_written_down_in_an_outage_survive_the_agent() {
    let mut rig = Rig::ready().await;
    let go = rig.file("go");
    let script = format!(
        "echo 1; while [ ! -e {} ]; do sleep 0.05; done; echo 2; exit 7",
        go.display()
    );
    let id = rig.granted(&script);
    rig.until("output", |book| execution(book, id).chunks == 1)
        .await;
    rig.fake.wire.away.store(true, Ordering::SeqCst);
    fs::write(go, "").unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    rig.kill().await;
    rig.fake.wire.away.store(false, Ordering::SeqCst);
    rig.start();
    let done = rig.ended(id).await.completed.unwrap();
    assert_eq!(done.exit_code, Some(7));
    assert_eq!(rig.output(id, Stream::Stdout), "1\n2\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_starts_without_the_receipt_of_its_own_start() {
    let mut rig = Rig::ready().await;
    rig.fake.wire.lie.store(true, Ordering::SeqCst);
    let id = rig.granted(&format!("echo x >> {}", rig.file("ran").display()));
    rig.running(id).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!rig.file("ran").exists());
    // Nor after a crash: whether it began is then not known.
    rig.kill().await;
    rig.fake.wire.lie.store(false, Ordering::SeqCst);
    rig.start();
    assert_eq!(rig.ended(id).await.status, ExecutionStatus::Lost);
    assert!(!rig.file("ran").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_that_comes_after_the_time_starts_nothing() {
    let rig = Rig::ready().await;
    rig.fake.wire.lie.store(true, Ordering::SeqCst);
    let id = rig.granted(&format!("echo x >> {}", rig.file("ran").display()));
    rig.running(id).await;
    rig.clock.advance(2 * 3600 * SECOND_US);
    rig.fake.wire.lie.store(false, Ordering::SeqCst);
    assert_eq!(rig.ended(id).await.status, ExecutionStatus::Lost);
    assert!(!rig.file("ran").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_the_ledger_refuses_is_no_start_and_frees_its_number() {
    let rig = Rig::ready().await;
    let id = {
        let mut book = rig.fake.book();
        let ran = rig.file("ran");
        approved(&mut book, &["touch", ran.to_str().unwrap()])
    };
    // The agent is shown the grant as it was before the cancel.
    let grant = crate::support::grant(&rig.fake.book(), id, "web-1");
    rig.cancels("alice", id);
    rig.fake.tell(Tell::Stale(Box::leak(Box::new(grant))));
    let after = rig.granted("true");
    assert_eq!(rig.ended(after).await.status, ExecutionStatus::Completed);
    assert_eq!(rig.execution(id).status, ExecutionStatus::Cancelled);
    assert!(!rig.file("ran").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_persons_cancel_ends_the_run() {
    let rig = Rig::ready().await;
    let id = rig.granted("echo on; sleep 60");
    rig.writing(id).await;
    rig.cancels("bob", id);
    rig.fake.tell(Tell::Cancel(id));
    let done = rig.ended(id).await;
    assert_eq!(done.status, ExecutionStatus::Cancelled);
    assert!(done.completed.unwrap().tree_gone);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_whose_proof_is_lost_is_looked_at_again() {
    let rig = Rig::ready().await;
    let id = rig.granted("echo on; sleep 60");
    rig.writing(id).await;
    rig.cancels("bob", id);
    rig.fake.wire.unproven.store(1, Ordering::SeqCst);
    rig.fake.tell(Tell::Cancel(id));
    assert_eq!(rig.ended(id).await.status, ExecutionStatus::Cancelled);
    assert_eq!(rig.fake.wire.unproven.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_agent_ends_its_runs_and_says_so() {
    let mut rig = Rig::ready().await;
    let id = rig.granted("sleep 60");
    rig.running(id).await;
    rig.stop().await.unwrap();
    let done = rig.execution(id);
    assert_eq!(done.status, ExecutionStatus::Cancelled);
    assert!(done.completed.unwrap().tree_gone);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_agent_does_not_wait_long_for_a_server_that_is_away() {
    let mut rig = Rig::ready().await;
    let id = rig.granted("echo on; sleep 60");
    rig.writing(id).await;
    rig.fake.wire.away.store(true, Ordering::SeqCst);
    let begun = Instant::now();
    rig.stop().await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(9));
    rig.fake.wire.away.store(false, Ordering::SeqCst);
    rig.start();
    assert_eq!(rig.ended(id).await.status, ExecutionStatus::Cancelled);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_the_host_is_in_the_ledger_with_its_rule() {
    let mut rig = Rig::new().await;
    rig.restart_with(|config| config.rules.execution = false)
        .await;
    rig.accept().await;
    let id = rig.granted("true");
    let refused = rig.ended(id).await;
    assert_eq!(refused.refused.unwrap().why, RefusalReason::Disabled);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_history_stops_the_agent_and_is_kept_as_evidence() {
    let mut rig = Rig::ready().await;
    let id = rig.granted("true");
    rig.ended(id).await;
    has_another_past(&rig);
    let id = rig.granted("true");
    let error = rig.result().await.unwrap_err();
    assert!(error.is_evidence(), "{error}");
    assert_eq!(rig.execution(id).status, ExecutionStatus::Waiting);
    assert_eq!(forks_kept(&rig), 1);
}

/// The same ledger id and keys, another past.
fn has_another_past(rig: &Rig) {
    let mut book = rig.fake.book();
    let World {
        book: mut other, ..
    } = World::without_host();
    other.now = book.now;
    other.enrol("web-0");
    other.copy_enrolments(&book);
    while other.entries.len() < book.entries.len() + 3 {
        other.enrol(&format!("web-{}", other.entries.len()));
    }
    *book = other;
}

fn forks_kept(rig: &Rig) -> usize {
    let kept = fs::read_dir(rig.config.state.join("identity")).unwrap();
    let kept = kept.filter(|file| {
        let name = file.as_ref().unwrap().file_name();
        name.to_string_lossy().starts_with("fork-")
    });
    kept.count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_refuses_what_this_host_has_seen_is_looked_at_and_both_histories_are_kept() {
    let mut rig = Rig::ready().await;
    let id = rig.granted("true");
    rig.ended(id).await;
    let web = "web-1".parse().unwrap();
    let own = rig.fake.book().state.rights().agent(&web).unwrap();
    has_another_past(&rig);
    let refuse = &rig.fake.wire.refuse;
    refuse.lock().unwrap().insert(own, "seen_fork");
    // Nothing is granted: the host itself has something to say.
    rig.orders.ask_for_idle();
    let error = rig.result().await.unwrap_err();
    assert!(error.is_evidence(), "{error}");
    assert_eq!(forks_kept(&rig), 1, "{error}");
}

/// A host with a run whose output and end wait in its journal, and a ledger that was restored from before
/// what the host has seen since. Gives what the ledger had.
async fn rolled_back() -> (Rig, StatementId, Book) {
    let rig = Rig::ready().await;
    let go = rig.file("go");
    let id = rig.granted(&format!(
        "echo 1; while [ ! -e {} ]; do sleep 0.05; done; echo 2; exit 7",
        go.display()
    ));
    rig.writing(id).await;
    let backup = rig.fake.book().clone();
    let after = rig.granted("true");
    rig.ended(after).await;
    let remembered = rig.config.state.join("identity").join("checkpoint");
    rig.until("it has seen all of it", |book| {
        let note = fs::read_to_string(&remembered).unwrap();
        note.lines().nth(1) == Some(book.entries.len().to_string().as_str())
    })
    .await;
    rig.fake.wire.away.store(true, Ordering::SeqCst);
    fs::write(go, "").unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let whole = rig.fake.restore(backup);
    rig.fake.wire.away.store(false, Ordering::SeqCst);
    // Some tries, of all that it has to say.
    rig.orders.ask_for_idle();
    tokio::time::sleep(Duration::from_secs(2)).await;
    (rig, id, whole)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_lost_its_end_stops_the_agent_which_keeps_both_notes_and_all_it_has_to_say() {
    let (mut rig, id, whole) = rolled_back().await;
    assert_eq!(forks_kept(&rig), 0, "it may be for a moment");
    rig.clock.advance(61 * SECOND_US);
    let error = rig.result().await.unwrap_err();
    assert!(error.is_evidence(), "{error}");
    assert!(forks_kept(&rig) > 0, "{error}");
    {
        let spool = Spool::open(&rig.config.state.join("identity")).unwrap();
        let runs = spool.open_runs();
        let run = spool.run(&runs[0]).unwrap();
        assert_eq!((runs.len(), spool.pending_count(&runs[0])), (1, 1));
        assert!(run.ended.is_some() && !run.broken);
        assert!(spool.word().is_some(), "nor is its idle statement answered");
    }
    // With the ledger as it was, all of that is told.
    *rig.fake.book() = whole;
    rig.start();
    let done = rig.ended(id).await.completed.unwrap();
    assert_eq!(done.exit_code, Some(7));
    assert_eq!(rig.output(id, Stream::Stdout), "1\n2\n");
    rig.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_is_behind_for_a_moment_stops_nothing_and_loses_nothing() {
    let (mut rig, id, whole) = rolled_back().await;
    *rig.fake.book() = whole;
    let done = rig.ended(id).await.completed.unwrap();
    assert_eq!(done.exit_code, Some(7));
    assert_eq!(rig.output(id, Stream::Stdout), "1\n2\n");
    assert_eq!(forks_kept(&rig), 0);
    rig.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_ledger_than_the_pinned_one_is_not_even_enrolled_with() {
    let mut rig = Rig::new().await;
    rig.stop().await.unwrap();
    rig.config.state = rig.file("fresh");
    rig.config.ledger = countersign_protocol::hash::LedgerId::new([1; 32]);
    let before = rig.fake.book().entries.len();
    rig.start();
    assert!(matches!(rig.result().await, Err(AgentError::Pin(_))));
    assert_eq!(rig.fake.book().entries.len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_agents_do_not_share_an_identity() {
    let rig = Rig::ready().await;
    let second = Box::pin(service::run_with(
        rig.config.clone(),
        rig.clock.clone(),
        CancellationToken::new(),
    ));
    assert!(matches!(second.await, Err(AgentError::Identity(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_restored_from_a_copy_stops_the_agent() {
    let mut rig = Rig::ready().await;
    rig.stop().await.unwrap();
    let journal = rig.config.state.join("identity").join("journal");
    let copy = fs::read(&journal).unwrap();
    rig.start();
    let id = rig.granted(&format!("echo once >> {}", rig.file("ran").display()));
    rig.ended(id).await;
    rig.stop().await.unwrap();
    fs::write(&journal, copy).unwrap();
    rig.start();
    let next = rig.granted("true");
    let error = rig.result().await.unwrap_err();
    assert!(matches!(error, AgentError::ChainFork(_)), "{error}");
    assert_eq!(rig.execution(next).status, ExecutionStatus::Waiting);
    assert_eq!(fs::read_to_string(rig.file("ran")).unwrap(), "once\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_commands_than_the_host_allows_are_refused_as_busy() {
    let mut rig = Rig::ready().await;
    rig.restart_with(|config| config.max_runs = 1).await;
    let first = rig.granted("sleep 60");
    rig.running(first).await;
    let second = rig.granted("true");
    assert_eq!(
        rig.ended(second).await.refused.unwrap().why,
        RefusalReason::Busy
    );
    rig.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_commands_at_once_keep_one_chain() {
    let rig = Rig::ready().await;
    let ids: Vec<_> = (0..4)
        .map(|number| rig.granted(&format!("echo {number}; sleep 0.2; echo {number}")))
        .collect();
    for (number, id) in ids.into_iter().enumerate() {
        assert_eq!(rig.ended(id).await.status, ExecutionStatus::Completed);
        assert_eq!(
            rig.output(id, Stream::Stdout),
            format!("{number}\n{number}\n")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn why_a_run_could_not_start_is_in_the_ledger() {
    let rig = Rig::ready().await;
    // One byte more than the kernel takes in one argument; the ledger takes it.
    let id = rig.granted(&"x".repeat(128 * 1024));
    let done = rig.ended(id).await.completed.unwrap();
    assert_eq!(done.outcome, Outcome::NotExecutable);
    let book = rig.fake.book();
    let why = book.blobs[&done.detail.unwrap().digest].content();
    let why = String::from_utf8(why.to_vec()).unwrap();
    assert!(why.contains("Argument list too long"), "{why}");
}
