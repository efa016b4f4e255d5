//! What a running agent is told, and what it tells the service manager: stop, stop at once, reload.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use countersign_agent::Config;
use countersign_agent::manager::Manager;
use countersign_agent::orders::Orders;
use countersign_protocol::event::Stream;
use countersign_protocol::lifecycle::ExecutionStatus;

use crate::support::{Book, Tell, public};
use crate::whole::{Rig, execution};

/// An agent that lets commands go on for this long.
async fn draining(drain: Duration) -> Rig {
    let rig = Rig::new_with(|config| {
        config.drain = drain;
        Orders::default()
    })
    .await;
    rig.accept().await;
    rig.listening(1).await;
    rig
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_agent_lets_a_command_end_and_delivers_all_of_it() {
    let mut rig = draining(Duration::from_secs(20)).await;
    let go = rig.file("go");
    let wait = format!(
        "echo on; while [ ! -e {} ]; do sleep 0.02; done; echo done",
        go.display()
    );
    let id = rig.granted(&wait);
    rig.until("output", |book| execution(book, id).chunks > 0)
        .await;
    let begun = Instant::now();
    rig.shutdown.cancel();
    tokio::time::sleep(Duration::from_millis(300)).await;
    // What comes now is for the next start.
    let late = rig.granted("true");
    tokio::time::sleep(Duration::from_millis(300)).await;
    fs::write(&go, "").unwrap();
    rig.result().await.unwrap();
    let done = rig.execution(id);
    assert_eq!(done.status, ExecutionStatus::Completed);
    assert_eq!(done.completed.unwrap().exit_code, Some(0));
    assert_eq!(rig.output(id, Stream::Stdout), "on\ndone\n");
    assert!(
        begun.elapsed() < Duration::from_secs(15),
        "it waits for nothing else"
    );
    assert!(
        !rig.execution(late).status.is_final(),
        "it takes no new work"
    );
    rig.start();
    rig.listening(2).await;
    rig.fake.tell(Tell::Grant(late));
    assert_eq!(rig.ended(late).await.status, ExecutionStatus::Completed);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_time_to_stop_is_over_what_runs_is_ended() {
    let mut rig = draining(Duration::from_millis(700)).await;
    let id = rig.granted("echo on; sleep 60");
    rig.running(id).await;
    let begun = Instant::now();
    rig.stop().await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(700));
    let done = rig.execution(id);
    assert_eq!(done.status, ExecutionStatus::Cancelled);
    assert!(done.completed.unwrap().tree_gone);
}

#[tokio::test(flavor = "multi_thread")]
async fn told_a_second_time_it_ends_what_runs_at_once() {
    let mut rig = draining(Duration::from_secs(60)).await;
    let id = rig.granted("sleep 60");
    rig.running(id).await;
    rig.shutdown.cancel();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(
        !rig.execution(id).status.is_final(),
        "the first lets it go on"
    );
    let begun = Instant::now();
    rig.orders.at_once.cancel();
    rig.result().await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(rig.execution(id).status, ExecutionStatus::Cancelled);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_persons_cancel_counts_while_the_agent_waits_to_stop() {
    let mut rig = draining(Duration::from_secs(60)).await;
    let id = rig.granted("sleep 60");
    rig.running(id).await;
    rig.shutdown.cancel();
    rig.cancels("bob", id);
    rig.fake.wire.unproven.store(1, Ordering::SeqCst);
    rig.fake.tell(Tell::Cancel(id));
    rig.result().await.unwrap();
    assert_eq!(rig.execution(id).status, ExecutionStatus::Cancelled);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_persons_cancel_counts_whose_proof_was_on_its_way_when_the_agent_was_told_to_stop() {
    let mut rig = draining(Duration::from_secs(60)).await;
    let id = rig.granted("echo on; sleep 60");
    rig.writing(id).await;
    // Nothing but the cancel asks for a proof after that.
    tokio::time::sleep(Duration::from_millis(500)).await;
    rig.cancels("bob", id);
    let wire = &rig.fake.wire;
    wire.hang.store(true, Ordering::SeqCst);
    rig.fake.tell(Tell::Cancel(id));
    rig.until("it asks", |_| wire.hung.load(Ordering::SeqCst) > 0)
        .await;
    let begun = Instant::now();
    rig.shutdown.cancel();
    tokio::time::sleep(Duration::from_millis(300)).await;
    wire.hang.store(false, Ordering::SeqCst);
    rig.result().await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(15), "it went on");
    assert_eq!(rig.execution(id).status, ExecutionStatus::Cancelled);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_journal_has_the_bound_that_the_configuration_gives_it() {
    let mut managed = Managed::ready().await;
    assert_eq!(managed.outcome().await, "Completed");
    managed.rig.stop().await.unwrap();
    // Smaller than any file may say: the journal is beyond it already.
    managed.rig.config.spool_max = 1;
    let socket = managed.rig.file("notify");
    managed.rig.orders.manager = Arc::new(Manager::at(socket.as_os_str(), None));
    managed.rig.start();
    managed.hears("READY=1").await;
    assert_eq!(managed.outcome().await, "Busy");
    // By a reload, too.
    managed.reload(&format!("{}{RULES}", managed.text)).await;
    assert_eq!(managed.outcome().await, "Completed");
}

/// A rig whose configuration is a file, and whose service manager listens.
struct Managed {
    rig: Rig,
    ear: UnixDatagram,
    text: String,
}

const RULES: &str = "[[allow]]\nname = \"scripts\"\nprogram = \"sh\"\nargs = [\"**\"]\n";

impl Managed {
    async fn ready() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ear = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        ear.set_nonblocking(true).unwrap();
        let mut text = String::new();
        let rig = Rig::new_with(|config| {
            // In a folder of its own, which goes with the rig.
            let state = folder.path().join("state");
            let own = rustix::process::geteuid().as_raw();
            // It says nothing of itself: one word is under way at a time, and these are about others.
            text = format!(
                "say_facts = false\nserver = \"{}\"\nname = \"web-1\"\nstate = {state:?}\nledger = \"{}\"\n\
                 origin = \"ledger.example.com\"\nvkey = \"{}\"\n\
                 allowed_signers = \"allowed_signers\"\nexecution = true\ngrace_s = 1\ndrain_s = 0\n\
                 default_user = \"{own}\"\nconfine.protect_own = false\n",
                config.server, config.ledger, config.vkey
            );
            let file = folder.path().join("agent.toml");
            fs::write(&file, format!("{text}{RULES}")).unwrap();
            write_signers(folder.path(), &["alice", "bob", "carol"]);
            *config = Config::load(&file).unwrap();
            let socket = folder.path().join("notify");
            Orders {
                manager: Arc::new(Manager::at(socket.as_os_str(), None)),
                file: Some(file),
                ..Orders::default()
            }
        })
        .await;
        let mut rig = rig;
        rig.folder = folder;
        let managed = Self { rig, ear, text };
        managed.hears("STATUS=waiting to be accepted").await;
        let early = managed.said();
        assert!(!early.contains("READY"), "{early}");
        managed.rig.accept().await;
        managed.hears("READY=1").await;
        managed
    }

    /// All that was said since, whatever it is.
    fn said(&self) -> String {
        let mut bytes = [0; 512];
        let words = std::iter::from_fn(|| {
            let length = self.ear.recv(&mut bytes).ok()?;
            Some(String::from_utf8_lossy(&bytes[..length]).into_owned())
        });
        words.collect::<Vec<_>>().join("|")
    }

    /// Waits for a word; what came before it is forgotten.
    async fn hears(&self, word: &str) -> String {
        let (begun, mut heard) = (Instant::now(), String::new());
        while !heard.contains(word) {
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "never {word}: {heard}"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
            heard.push_str(&self.said());
        }
        heard
    }

    async fn reload(&self, text: &str) {
        fs::write(self.rig.file("agent.toml"), text).unwrap();
        self.rig.orders.reload.notify_one();
        let heard = self.hears("READY=1").await;
        assert!(heard.contains("RELOADING=1\nMONOTONIC_USEC="), "{heard}");
    }

    async fn outcome(&self) -> String {
        let id = self.rig.granted("true");
        let done = self.rig.ended(id).await;
        match done.refused {
            Some(refused) => format!("{:?}", refused.why),
            None => format!("{:?}", done.status),
        }
    }
}

fn write_signers(folder: &std::path::Path, names: &[&str]) {
    let line = |name: &&str| format!("{name} {}\n", public(name).to_openssh());
    let text: String = names.iter().map(line).collect();
    fs::write(folder.join("allowed_signers"), text).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_takes_a_rule_away_for_the_next_grant_and_leaves_what_runs() {
    let mut managed = Managed::ready().await;
    assert_eq!(managed.outcome().await, "Completed");
    let go = managed.rig.file("go");
    let running = managed.rig.granted(&format!(
        "echo on; while [ ! -e {} ]; do sleep 0.02; done",
        go.display()
    ));
    // Its receipt has come: what is only on its way is judged anew.
    let has_begun = |book: &Book| execution(book, running).chunks > 0;
    managed.rig.until("it runs", has_begun).await;
    let text = managed.text.clone();
    managed.reload(&text).await;
    assert_eq!(managed.outcome().await, "NotAllowed");
    managed.reload(&format!("{text}{RULES}")).await;
    assert_eq!(managed.outcome().await, "Completed");
    let off = text.replace("execution = true", "execution = false");
    managed.reload(&format!("{off}{RULES}")).await;
    assert_eq!(managed.outcome().await, "Disabled");
    fs::write(go, "").unwrap();
    assert_eq!(
        managed.rig.ended(running).await.status,
        ExecutionStatus::Completed
    );
    managed.rig.stop().await.unwrap();
    let last = managed.hears("STOPPING=1").await;
    assert!(last.contains("\nSTATUS=stopping: "), "{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_counts_a_person_who_was_taken_out_no_more() {
    let managed = Managed::ready().await;
    write_signers(managed.rig.folder.path(), &["alice", "bob"]);
    managed.reload(&format!("{}{RULES}", managed.text)).await;
    assert_eq!(managed.outcome().await, "Approvals");
    // A list that cannot be read brings nobody back.
    fs::write(
        managed.rig.file("allowed_signers"),
        "carol ssh-ed25519 AAAA\n",
    )
    .unwrap();
    managed.reload(&format!("{}{RULES}", managed.text)).await;
    assert_eq!(managed.outcome().await, "Approvals");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_is_whole_or_not_at_all() {
    let managed = Managed::ready().await;
    let text = managed.text.clone();
    let other_ledger = {
        let line = text.lines().find(|line| line.starts_with("ledger"));
        text.replace(line.unwrap(), &format!("ledger = \"{}\"", "ab".repeat(32)))
    };
    for bad in [
        // A mistake behind a change that would count.
        text.replace("execution = true", "execution = false") + "max_runs = 0\n",
        text.replace("execution = true", "execution = false") + "[[allow",
        // Another agent's.
        text.replace("execution = true", "execution = false")
            .replace("web-1", "web-2"),
        text.replace("execution = true", "execution = false")
            .replace("/state\"", "/other\""),
        text.replace("execution = true", "execution = false")
            .replace("http://", "https://"),
        other_ledger.replace("execution = true", "execution = false"),
        String::new(),
    ] {
        managed.reload(&bad).await;
        assert_eq!(managed.outcome().await, "Completed", "{bad}");
    }
}

/// Whoever holds the receipt back gains nothing by it: what counts is what the host says when it
/// would run.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_also_counts_for_a_start_whose_receipt_is_on_its_way() {
    let managed = Managed::ready().await;
    let wire = &managed.rig.fake.wire;
    wire.lose.store(usize::MAX, Ordering::SeqCst);
    let id = managed.rig.granted("echo it ran");
    managed.rig.running(id).await;
    let text = format!("{}{RULES}", managed.text);
    managed
        .reload(&text.replace("execution = true", "execution = false"))
        .await;
    wire.lose.store(0, Ordering::SeqCst);
    assert_eq!(managed.rig.ended(id).await.status, ExecutionStatus::Lost);
    assert_eq!(managed.rig.output(id, Stream::Stdout), "");
}
