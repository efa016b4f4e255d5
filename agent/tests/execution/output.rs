//! What a command writes arrives as it was written, up to the limit.

use std::fs;
use std::time::Duration;

use countersign_agent::execution::{CHUNK_BYTES, Outcome, RunEvent, run};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::fixture::{LONG, digest, hear, plan, run_to_end, shell};

#[tokio::test]
async fn both_streams_are_kept_apart_byte_for_byte() {
    let room = tempfile::tempdir().unwrap();
    let all: Vec<u8> = (0..=255).cycle().take(200_003).collect();
    let invalid = b"\xff\xfe\xc0\x80 no newline at the end \x00\xed\xa0\x80".to_vec();
    fs::write(room.path().join("all"), &all).unwrap();
    fs::write(room.path().join("invalid"), &invalid).unwrap();
    let mut plan = shell("cat all; cat invalid >&2");
    plan.cwd = room.path().canonicalize().unwrap();
    let heard = run_to_end(plan).await;
    assert!(heard.stdout == all);
    assert_eq!(heard.stderr, invalid);
    assert_eq!(heard.finished.stdout.sha256, digest(&all));
    assert_eq!(heard.finished.stdout.kept_bytes, 200_003);
    assert_eq!(heard.finished.stderr.sha256, digest(&invalid));
    assert!(!heard.finished.truncated);
    assert!(
        heard
            .chunks
            .iter()
            .all(|(_, _, length)| (1..=CHUNK_BYTES).contains(length))
    );
}

#[tokio::test]
async fn no_output_has_the_digest_of_nothing() {
    let heard = run_to_end(plan(&["true"])).await;
    assert_eq!(heard.finished.stdout.total_bytes, 0);
    assert_eq!(heard.finished.stdout.sha256, digest(b""));
    assert!(heard.chunks.is_empty());
}

#[tokio::test]
async fn output_over_the_limit_is_counted_and_hashed_but_not_kept() {
    const TOTAL: usize = 20_000_000;
    const LIMIT: usize = 1 << 20;
    let mut plan = shell("yes 0123456789abcde | head -c 20000000; echo late >&2");
    plan.output_limit = LIMIT as u64;
    let expected: Vec<u8> = b"0123456789abcde\n"
        .iter()
        .copied()
        .cycle()
        .take(TOTAL)
        .collect();
    let heard = run_to_end(plan).await;
    assert_eq!(heard.finished.outcome, Outcome::Exited(0));
    assert!(heard.finished.truncated);
    assert!(heard.stdout == expected[..LIMIT]);
    assert!(
        heard.stderr.is_empty(),
        "the limit is for both streams together"
    );
    assert_eq!(heard.finished.stdout.kept_bytes, LIMIT as u64);
    assert_eq!(heard.finished.stdout.total_bytes, TOTAL as u64);
    assert_eq!(heard.finished.stdout.sha256, digest(&expected));
    assert_eq!(heard.finished.stderr.sha256, digest(b"late\n"));
}

#[tokio::test]
async fn output_of_exactly_the_limit_is_not_truncated() {
    let mut plan = shell("printf 12345");
    plan.output_limit = 5;
    let heard = run_to_end(plan).await;
    assert_eq!(
        (heard.stdout.as_slice(), heard.finished.truncated),
        (&b"12345"[..], false)
    );
}

#[tokio::test]
async fn chunks_come_while_the_command_runs() {
    let room = tempfile::tempdir().unwrap();
    let mut plan = shell("echo first; while [ ! -e go ]; do sleep 0.02; done; echo second");
    plan.cwd = room.path().canonicalize().unwrap();
    let (sender, mut receiver) = mpsc::channel(4);
    let running = tokio::spawn(run(plan, CancellationToken::new(), sender));
    let first = tokio::time::timeout(LONG / 2, receiver.recv())
        .await
        .unwrap()
        .unwrap();
    assert!(
        matches!(&first, RunEvent::Chunk { bytes, .. } if bytes == b"first\n"),
        "{first:?}"
    );
    fs::write(room.path().join("go"), "").unwrap();
    let rest = hear(receiver).await;
    running.await.unwrap().unwrap();
    assert_eq!(rest.stdout, b"second\n");
    assert!(rest.chunks[0].1 > 0);
}

#[tokio::test]
async fn a_slow_receiver_holds_the_command_back() {
    let (sender, receiver) = mpsc::channel(1);
    let mut plan = shell("head -c 8000000 /dev/zero; echo done >&2");
    plan.timeout = Duration::from_millis(1500);
    plan.grace = Duration::from_secs(1);
    let running = tokio::spawn(run(plan, CancellationToken::new(), sender));
    // Nobody receives, so head cannot finish, and the timeout still comes.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let heard = hear(receiver).await;
    running.await.unwrap().unwrap();
    assert_eq!(heard.finished.outcome, Outcome::TimedOut);
    assert!(
        heard.finished.stdout.total_bytes < 1_000_000,
        "{:?}",
        heard.finished.stdout
    );
    assert_eq!(heard.finished.stdout.sha256, digest(&heard.stdout));
}
