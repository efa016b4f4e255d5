//! A run of several steps is one run: in turn, within one timeout, with one output and one end.

use std::fs;
use std::time::{Duration, Instant};

use countersign_agent::execution::{MASKED, Outcome, Secrets, Stream};
use countersign_protocol::secret::Delivery;
use tokio_util::sync::CancellationToken;

use crate::fixture::{LONG, digest, run_to_end, run_with, secret, shell, step, text, wait_until};

const SECRET: &str = "correct horse battery staple";

#[tokio::test]
async fn steps_run_in_turn_and_their_output_is_one() {
    let mut plan = shell("echo one; echo two >&2");
    plan.then = vec![step(&["/bin/sh", "-c", "cat"]), step(&["echo", "three"])];
    plan.stdin = b"input\n".to_vec();
    let heard = run_to_end(plan).await;
    assert_eq!(heard.finished.outcome, Outcome::Exited(0));
    assert_eq!(text(&heard.stdout), "one\ninput\nthree\n");
    assert_eq!(text(&heard.stderr), "two\n");
    assert_eq!(heard.finished.stdout.sha256, digest(b"one\ninput\nthree\n"));
    assert_eq!(heard.finished.stdout.kept_bytes, 16);
    let offsets = heard
        .chunks
        .iter()
        .filter(|(stream, ..)| *stream == Stream::Stdout);
    let offsets: Vec<u64> = offsets.map(|(_, offset, _)| *offset).collect();
    assert!(offsets.is_sorted(), "{offsets:?}");
}

#[tokio::test]
async fn nothing_follows_a_step_that_did_not_exit_with_zero() {
    for (first, outcome) in [
        ("exit 3", Outcome::Exited(3)),
        ("kill -9 $$", Outcome::Signalled(9)),
    ] {
        let mut plan = shell(first);
        plan.then = vec![step(&["echo", "never"])];
        let heard = run_to_end(plan).await;
        assert_eq!(heard.finished.outcome, outcome);
        assert_eq!(text(&heard.stdout), "");
    }
}

#[tokio::test]
async fn a_later_step_that_cannot_start_does_not_claim_that_nothing_ran() {
    let room = tempfile::tempdir().unwrap();
    let (cwd, mark) = (room.path().join("cwd"), room.path().join("ran"));
    fs::create_dir(&cwd).unwrap();
    let leaves = format!("touch {}; rmdir {}", mark.display(), cwd.display());
    let why = |outcome: Outcome| {
        let Outcome::FailedToStart(why) = outcome else {
            panic!("{outcome:?}");
        };
        why
    };
    let mut plan = shell("true");
    plan.cwd = cwd.clone();
    plan.then = vec![step(&["/bin/sh", "-c", &leaves]), step(&["echo", "never"])];
    let heard = run_to_end(plan).await;
    let detail = why(heard.finished.outcome);
    let begins = "step 3 did not start, after 2 steps had run: ";
    assert!(detail.starts_with(begins) && mark.exists(), "{detail}");
    assert!(!detail.contains("nothing"), "{detail}");
    assert_eq!(text(&heard.stdout), "");
    // Where the kernel would not have it.
    let mut plan = shell("true");
    plan.then = vec![step(&["/bin/echo", &"x".repeat(128 * 1024)])];
    let detail = why(run_to_end(plan).await.finished.outcome);
    let begins = "step 2 did not start, after 1 step had run: the run could not execute";
    assert!(detail.starts_with(begins), "{detail}");
    let mut plan = shell("true");
    plan.cwd = cwd;
    let detail = why(run_to_end(plan).await.finished.outcome);
    assert!(
        detail.starts_with("nothing was run: the working"),
        "{detail}"
    );
}

#[tokio::test]
async fn a_step_begins_when_all_processes_of_the_one_before_are_gone() {
    let mut plan = shell("( sleep 0.3; echo late ) & echo early");
    plan.then = vec![step(&["echo", "after"])];
    let heard = run_to_end(plan).await;
    assert_eq!(text(&heard.stdout), "early\nlate\nafter\n");
}

#[tokio::test]
async fn the_timeout_is_for_all_steps_together() {
    let mut plan = shell("sleep 0.4");
    plan.then = vec![step(&["sleep", "60"])];
    plan.timeout = Duration::from_millis(600);
    let begun = Instant::now();
    let heard = run_to_end(plan).await;
    assert_eq!(heard.finished.outcome, Outcome::TimedOut);
    assert!(heard.finished.tree_gone);
    assert!(begun.elapsed() < LONG / 2);
}

#[tokio::test]
async fn a_cancel_between_steps_keeps_the_next_from_starting() {
    let room = tempfile::tempdir().unwrap();
    let mark = room.path().join("begun");
    let mut plan = shell(&format!("touch {}; sleep 60", mark.display()));
    plan.then = vec![step(&["echo", "never"])];
    let cancel = CancellationToken::new();
    let (heard, ()) = tokio::join!(run_with(plan, cancel.clone()), async {
        wait_until("the first step runs", || mark.exists()).await;
        cancel.cancel();
    });
    assert_eq!(heard.finished.outcome, Outcome::Cancelled);
    assert_eq!(text(&heard.stdout), "");
}

#[tokio::test]
async fn a_run_that_must_stop_at_its_limit_is_ended_there() {
    let mut plan = shell("trap '' TERM; yes; sleep 60");
    plan.output_limit = 10;
    plan.stop_at_limit = true;
    plan.grace = Duration::from_millis(50);
    plan.then = vec![step(&["echo", "never"])];
    let heard = run_to_end(plan).await;
    assert_eq!(heard.finished.outcome, Outcome::OutputLimit);
    assert!(heard.finished.truncated && heard.finished.tree_gone);
    assert_eq!(heard.stdout.len(), 10);
}

/// Also where the step that reached it ended well before anybody could end it.
#[tokio::test]
async fn no_step_begins_once_the_limit_is_reached_or_the_time_is_over() {
    let room = tempfile::tempdir().unwrap();
    let mark = room.path().join("begun");
    for (first, timeout, outcome) in [
        ("seq 1 1000", LONG, Outcome::OutputLimit),
        // What it leaves behind is waited for, and takes the time.
        (
            "sleep 0.4 & exit 0",
            Duration::from_millis(200),
            Outcome::TimedOut,
        ),
    ] {
        for _ in 0..8 {
            let mut plan = shell(first);
            plan.then = vec![step(&["touch", mark.to_str().unwrap()])];
            (plan.output_limit, plan.stop_at_limit) = (100, true);
            plan.timeout = timeout;
            let heard = run_to_end(plan).await;
            assert_eq!(heard.finished.outcome, outcome);
            assert!(!mark.exists(), "{first}");
        }
    }
}

#[tokio::test]
async fn output_of_exactly_the_limit_stops_nothing() {
    let mut plan = shell("printf 12345");
    plan.output_limit = 5;
    plan.stop_at_limit = true;
    let heard = run_to_end(plan).await;
    assert_eq!(heard.finished.outcome, Outcome::Exited(0));
}

/// Also where the value is written in pieces, with time between them, and on both streams.
#[tokio::test]
async fn a_secret_is_masked_before_anything_is_counted_hashed_or_sent() {
    let script = format!(
        "printf 'a {}'; sleep 0.3; printf '{} z\\n'; echo '{SECRET}' >&2",
        &SECRET[..9],
        &SECRET[9..]
    );
    let mut plan = shell(&script);
    plan.secrets = Secrets::new(vec![secret("word", Delivery::Stdin, SECRET)]).unwrap();
    assert!(!format!("{plan:?}").contains(&SECRET[..9]));
    let heard = run_to_end(plan).await;
    let masked = [b"a ", MASKED, b" z\n"].concat();
    assert_eq!(text(&heard.stdout), text(&masked));
    assert_eq!(heard.stderr, [MASKED, b"\n"].concat());
    assert_eq!(heard.finished.stdout.sha256, digest(&masked));
    assert_eq!(heard.finished.stdout.total_bytes, masked.len() as u64);
    assert!(!heard.finished.truncated);
    assert_eq!(heard.finished.masked, Some(2));
}
