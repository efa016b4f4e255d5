//! No process of a run outlives it, however it hides and however the run ends.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use countersign_agent::execution::{Outcome, RunError, run};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::fixture::{LONG, hear, plan, run_to_end, run_with, shell, wait_until};

/// A sleep that nobody waits out; its length marks the processes of one test.
fn marked_sleep() -> String {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).unwrap();
    format!("100000.{:010}", u32::from_ne_bytes(bytes))
}

/// Living processes that have this word among their arguments. A zombie has none.
fn alive(mark: &str) -> usize {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let carries = |line: &[u8]| line.split(|b| *b == 0).any(|word| word == mark.as_bytes());
    entries
        .filter(|e| fs::read(e.path().join("cmdline")).is_ok_and(|l| carries(&l)))
        .count()
}

/// How many processes of [`daemons`] and of a last `sleep` in the leader carry the mark.
const WITH_DAEMONS: usize = 3;

/// A daemon by the book, and one that keeps the pipes: both leave the leader's session.
fn daemons(mark: &str) -> String {
    format!(
        "setsid sh -c 'sleep {mark} >/dev/null 2>&1 </dev/null & exit' & \
         (setsid -f sleep {mark} &) ; wait; "
    )
}

#[tokio::test]
async fn the_timeout_kills_the_whole_tree_and_keeps_the_output() {
    let mark = marked_sleep();
    let mut plan = shell(&format!("echo before; {} sleep {mark}", daemons(&mark)));
    plan.timeout = Duration::from_millis(1500);
    let heard = run_to_end(plan).await;
    assert_eq!(heard.finished.outcome, Outcome::TimedOut);
    assert_eq!(heard.stdout, b"before\n");
    assert!(heard.finished.tree_gone);
    assert_eq!(alive(&mark), 0);
    assert!(heard.finished.duration >= Duration::from_millis(1500));
}

#[tokio::test]
async fn a_cancelled_tree_is_gone() {
    let mark = marked_sleep();
    let cancel = CancellationToken::new();
    let plan = shell(&format!("{} sleep {mark}", daemons(&mark)));
    let running = tokio::spawn(run_with(plan, cancel.clone()));
    wait_until("the tree runs", || alive(&mark) == WITH_DAEMONS).await;
    cancel.cancel();
    let heard = running.await.unwrap();
    assert_eq!(heard.finished.outcome, Outcome::Cancelled);
    assert!(heard.finished.tree_gone);
    assert_eq!(alive(&mark), 0);
}

#[tokio::test]
async fn a_run_cancelled_before_its_start_never_starts() {
    let room = tempfile::tempdir().unwrap();
    let cancel = CancellationToken::new();
    cancel.cancel();
    let mut plan = shell("touch started");
    plan.cwd = room.path().canonicalize().unwrap();
    assert_eq!(
        run_with(plan, cancel).await.finished.outcome,
        Outcome::Cancelled
    );
    assert!(!room.path().join("started").exists());
}

#[tokio::test]
async fn who_ignores_term_is_killed_after_the_grace() {
    let mut plan = shell("trap '' TERM; echo ready; while :; do sleep 0.1; done");
    plan.timeout = Duration::from_millis(500);
    plan.grace = Duration::from_millis(700);
    let heard = run_to_end(plan).await;
    assert_eq!(heard.finished.outcome, Outcome::TimedOut);
    assert!(
        heard.finished.duration >= Duration::from_millis(1200),
        "{:?}",
        heard.finished
    );
    assert!(heard.finished.tree_gone);
}

#[tokio::test]
async fn who_hears_term_may_say_goodbye() {
    let mut plan = shell("trap 'echo goodbye; exit 0' TERM; while :; do sleep 0.05; done");
    plan.timeout = Duration::from_millis(500);
    plan.grace = LONG;
    let heard = run_to_end(plan).await;
    assert_eq!(heard.finished.outcome, Outcome::TimedOut);
    assert_eq!(heard.stdout, b"goodbye\n");
}

#[tokio::test]
async fn a_process_with_its_own_session_hears_term() {
    let script = "trap '' TERM; setsid perl -e '$|=1; $SIG{TERM}=sub{print \"heard\\n\"; exit}; \
                  print \"up\\n\"; sleep 1 while 1' & wait";
    let cancel = CancellationToken::new();
    let mut plan = shell(script);
    plan.grace = LONG;
    let (sender, mut receiver) = mpsc::channel(4);
    let running = tokio::spawn(run(plan, cancel.clone(), sender));
    receiver.recv().await.unwrap();
    cancel.cancel();
    let heard = hear(receiver).await;
    running.await.unwrap().unwrap();
    assert_eq!(heard.stdout, b"heard\n");
}

#[tokio::test]
async fn what_the_leader_leaves_behind_is_killed() {
    let mark = marked_sleep();
    let heard = run_to_end(shell(&format!("{} echo bye; exit 7", daemons(&mark)))).await;
    assert_eq!(heard.finished.outcome, Outcome::Exited(7));
    assert_eq!(heard.stdout, b"bye\n");
    assert!(heard.finished.tree_gone);
    assert_eq!(alive(&mark), 0);
}

#[tokio::test]
async fn a_leftover_may_finish_its_last_write() {
    let heard = run_to_end(shell("(sleep 0.2; echo late) & exit 0")).await;
    assert_eq!(heard.stdout, b"late\n");
    assert_eq!(heard.finished.outcome, Outcome::Exited(0));
}

#[tokio::test]
async fn a_stopped_process_that_ignores_term_dies_too() {
    let mark = marked_sleep();
    let stopped = format!("trap \"\" TERM; kill -STOP $$; sleep {mark}; kill -STOP $$");
    let mut plan = shell(&format!("setsid sh -c '{stopped}' & sleep 0.2; exit"));
    plan.grace = Duration::from_millis(300);
    let heard = run_to_end(plan).await;
    assert!(heard.finished.tree_gone);
    assert_eq!(alive(&mark), 0);
}

#[tokio::test]
async fn a_chain_of_forks_does_not_outrun_the_kill() {
    let script = "$SIG{TERM}='IGNORE'; my $end=time+40; \
                  while (time<$end) { my $p=fork; exit if $p; POSIX::setsid() if rand()<0.5; }";
    let mut plan = plan(&["/usr/bin/perl", "-MPOSIX", "-e", script]);
    plan.grace = Duration::from_millis(100);
    let heard = run_to_end(plan).await;
    assert!(heard.finished.tree_gone, "{:?}", heard.finished);
}

#[tokio::test]
async fn ending_one_run_leaves_the_other_alone() {
    let (mine, other) = (marked_sleep(), marked_sleep());
    let (stop_mine, stop_other) = (CancellationToken::new(), CancellationToken::new());
    let one = shell(&format!("{} sleep {mine}", daemons(&mine)));
    let two = shell(&format!("{} sleep {other}", daemons(&other)));
    let one = tokio::spawn(run_with(one, stop_mine.clone()));
    let two = tokio::spawn(run_with(two, stop_other.clone()));
    let both = || alive(&mine) == WITH_DAEMONS && alive(&other) == WITH_DAEMONS;
    wait_until("both run", both).await;
    stop_mine.cancel();
    assert!(one.await.unwrap().finished.tree_gone);
    assert_eq!((alive(&mine), alive(&other)), (0, WITH_DAEMONS));
    stop_other.cancel();
    assert!(two.await.unwrap().finished.tree_gone);
    assert_eq!(alive(&other), 0);
}

#[tokio::test]
async fn a_dropped_run_is_killed() {
    let mark = marked_sleep();
    let plan = shell(&format!("trap '' TERM; {} sleep {mark}", daemons(&mark)));
    let running = tokio::spawn(run_with(plan, CancellationToken::new()));
    wait_until("the tree runs", || alive(&mark) == WITH_DAEMONS).await;
    running.abort();
    wait_until("the tree is gone", || alive(&mark) == 0).await;
}

#[tokio::test]
async fn a_run_without_a_receiver_is_killed() {
    let mark = marked_sleep();
    let (sender, receiver) = mpsc::channel(1);
    let plan = shell(&format!("yes & sleep {mark}"));
    let running = tokio::spawn(run(plan, CancellationToken::new(), sender));
    wait_until("the tree runs", || alive(&mark) == 1).await;
    drop(receiver);
    assert_eq!(running.await.unwrap(), Err(RunError::ReceiverGone));
    assert_eq!(alive(&mark), 0);
}

#[tokio::test]
async fn a_killed_supervisor_is_never_a_result_and_takes_the_leader_along() {
    let mark = marked_sleep();
    let (sender, mut receiver) = mpsc::channel(4);
    let plan = shell(&format!("kill -KILL $PPID; exec sleep {mark}"));
    let ran = run(plan, CancellationToken::new(), sender).await;
    assert_eq!(ran, Err(RunError::SupervisorLost));
    assert!(receiver.recv().await.is_none());
    wait_until("the leader is gone", || alive(&mark) == 0).await;
}

#[tokio::test]
async fn a_finished_run_leaves_no_zombie() {
    let heard = run_to_end(shell("echo $PPID")).await;
    let supervisor = String::from_utf8(heard.stdout).unwrap();
    let path = PathBuf::from(format!("/proc/{}", supervisor.trim()));
    wait_until("the supervisor is reaped", || !path.exists()).await;
}

/// The other half of the next test: an agent that runs a tree until it is killed.
#[tokio::test]
#[ignore = "started by the_tree_dies_with_its_agent"]
async fn agent_to_be_killed() {
    let Ok(mark) = std::env::var("EXECUTION_TEST_MARK") else {
        return;
    };
    run_to_end(shell(&format!(
        "trap '' TERM; {} sleep {mark}",
        daemons(&mark)
    )))
    .await;
}

#[tokio::test]
async fn the_tree_dies_with_its_agent() {
    let mark = marked_sleep();
    let mut agent = start_agent_to_be_killed(&mark);
    wait_until("the tree runs", || alive(&mark) == WITH_DAEMONS).await;
    agent.kill().unwrap();
    agent.wait().unwrap();
    wait_until("the tree is gone", || alive(&mark) == 0).await;
}

#[expect(
    clippy::disallowed_methods,
    reason = "the test needs a process that no supervisor owns"
)]
fn start_agent_to_be_killed(mark: &str) -> std::process::Child {
    std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tree::agent_to_be_killed", "--ignored"])
        .env("EXECUTION_TEST_MARK", mark)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap()
}
